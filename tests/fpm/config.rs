//! Directives and options, each by what scripts or administrators see of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, getuid, test_kill_process};

use crate::support::client::{Address, Connection, Request};
use crate::support::configured::{Configured, Files, Program};
use crate::support::fpm::program;
use crate::support::php;
use crate::support::process::kill;
use crate::support::{holds_within, wait_until};

const ONE: &str = "pm = static\npm.max_children = 1\n";

/// Debian's own files, below `files`' directory: only directories are others, and who runs it if that is not root.
fn debian(files: &Files) {
    let directory = files.directory().to_str().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    for path in ["etc/php/8.2/fpm/pool.d", "run/php", "var/log"] {
        fs::create_dir_all(files.path(path)).unwrap();
    }
    for (name, to) in [
        ("php-fpm.conf", "etc/php/8.2/fpm/php-fpm.conf"),
        ("pool.d/www.conf", "etc/php/8.2/fpm/pool.d/www.conf"),
    ] {
        // Debian's own if it is installed, else the copy of it.
        let installed = Path::new("/etc/php/8.2/fpm").join(name);
        let path = if installed.exists() {
            installed
        } else {
            source.join(name)
        };
        let mut text = fs::read_to_string(path).unwrap();
        for place in ["/run/php/", "/var/log/", "/etc/php/"] {
            text = text.replace(place, &format!("{directory}{place}"));
        }
        if !getuid().is_root() {
            for line in ["user = ", "group = ", "listen.owner = ", "listen.group = "] {
                text = text.replace(&format!("\n{line}"), &format!("\n;{line}"));
            }
        }
        fs::write(files.path(to), text).unwrap();
    }
    // The pool's user is to reach the scripts.
    open_up(files.directory(), 0o755);
}

pub(crate) fn open_up(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A daemon that has been started by `-D`: ended by its pid file.
struct Daemon(i32);

impl Drop for Daemon {
    fn drop(&mut self) {
        kill(self.0, Signal::TERM);
        holds_within(Duration::from_secs(10), || !is_alive(self.0));
        kill(self.0, Signal::KILL);
    }
}

fn is_alive(pid: i32) -> bool {
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
}

#[test]
fn debians_configuration_works_unchanged_and_in_the_background() {
    let files = Files::new(&[]);
    debian(&files);
    files.php(
        "who.php",
        "<?php echo posix_getpwuid(posix_geteuid())['name'];",
    );
    let config = files.path("etc/php/8.2/fpm/php-fpm.conf");
    let pid_file = files.path("run/php/php8.2-fpm.pid");
    let socket = files.path("run/php/php8.2-fpm.sock");
    let log = files.path("var/log/php8.2-fpm.log");
    let builder = Configured::builder("").program(Program::Renamed);

    // As the unit's ExecStartPre or an init script would.
    let tested = run(builder
        .bare_command(&files)
        .arg("-t")
        .arg("-y")
        .arg(&config));
    assert_eq!(tested.status.code(), Some(0), "{tested:?}");
    let said = format!("configuration file {} test is successful", config.display());
    assert!(stderr(&tested).contains(&said), "{tested:?}");
    assert!(!pid_file.exists() && !socket.exists());

    // `output` waits until nobody has its standard error open any more.
    let started = run(builder
        .bare_command(&files)
        .arg("-D")
        .arg("-y")
        .arg(&config));
    assert_eq!(started.status.code(), Some(0), "{started:?}");
    let pid: i32 = fs::read_to_string(&pid_file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let daemon = Daemon(pid);
    // It is ready when the command has returned.
    let address = Address::Unix(socket.clone());
    let answer = Connection::open(&address).exchange(&Request::get(&files.root(), "/who.php"));
    if getuid().is_root() {
        assert_eq!(answer.text(), "www-data", "{answer:?}");
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(&socket).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o660);
        assert_ne!(metadata.uid(), 0);
    } else {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let text = fs::read_to_string(&log).unwrap();
    assert!(
        text.contains("NOTICE: ready to handle connections"),
        "{text}"
    );
    // logrotate's postrotate.
    let rotated = files.path("var/log/php8.2-fpm.log.1");
    fs::rename(&log, &rotated).unwrap();
    kill(pid, Signal::USR1);
    wait_until("a new log", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("error log file re-opened"))
    });
    // A reload keeps the pid, and the pid file.
    kill(pid, Signal::USR2);
    wait_until("the reload", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("ready to handle connections"))
    });
    assert_eq!(
        fs::read_to_string(&pid_file).unwrap().trim(),
        pid.to_string()
    );
    kill(pid, Signal::QUIT);
    wait_until("the end", || !is_alive(pid));
    assert!(!pid_file.exists() && !socket.exists());
    drop(daemon);
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What both programs say to `arguments` with this configuration, without times and program names.
fn both_say(config: &str, arguments: &[&str]) -> [(Option<i32>, String); 2] {
    [Program::Stock, Program::Renamed].map(|program| {
        let files = Files::new(&[]);
        files.configure(config);
        let output = run(Configured::builder("")
            .program(program)
            .bare_command(&files)
            .args(arguments)
            .arg("-y")
            .arg(files.config()));
        let text = stderr(&output).replace(files.directory().to_str().unwrap(), "{dir}");
        // Whether php-fpm shows these depends on how it was built.
        let is_shown =
            |line: &&str| !line.contains("systemd_interval") && !line.contains("listen.acl_");
        let lines = text.lines().filter(is_shown).map(|line| {
            let time_ends = line.find("] ").map_or(0, |end| end + 2);
            line[time_ends..].to_owned() + "\n"
        });
        (output.status.code(), lines.collect())
    })
}

#[test]
fn tests_of_a_configuration_exit_and_speak_alike() {
    let good = Configured::pool("www", ONE);
    for (config, arguments) in [
        (good.clone(), &["-t"][..]),
        (good.clone(), &["-tt"]),
        (
            good.clone() + "env[A] = b\nphp_admin_value[memory_limit] = 32M\n",
            &["-tt"],
        ),
        (good.clone() + "no_such_entry = 1\n", &["-t"]),
        (good.clone() + "pm.max_children = 0\n", &["-t"]),
        (good.clone() + "chdir = /no/such/directory\n", &["-t"]),
        (String::new(), &["-t"]),
        (good.replace("pm = static", "pm = dynamic"), &["-t"]),
    ] {
        let [stock, ours] = both_say(&config, arguments);
        assert_eq!(ours, stock, "{arguments:?} of {config}");
    }
}

#[test]
fn the_pid_file_is_there_while_it_runs_and_can_be_named_on_the_command_line() {
    let pool = Configured::pool("www", ONE);
    for option in [None, Some("named.pid")] {
        let files = Files::new(&[]);
        // The directive would win.
        let directive = option.map_or("pid = {dir}/configured.pid\n", |_| "");
        files.configure(&format!("{directive}{pool}"));
        let path = files.path(option.unwrap_or("configured.pid"));
        let mut builder = Configured::builder("");
        if option.is_some() {
            builder = builder.args(&["-g", path.to_str().unwrap()]);
        }
        let mut server = builder.start_in(files);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim(), server.pid().to_string());
        server.signal(Signal::QUIT);
        assert!(server.wait_exit().success());
        assert!(!path.exists(), "{} is left", path.display());
    }
}

#[test]
fn the_environment_is_the_pools() {
    let clean = Configured::pool(
        "clean",
        &format!("{ONE}env[FIXED] = 'a value'\nenv[COPIED] = $OUTER\nenv[NUMBER] = 7\n"),
    );
    let full = Configured::pool(
        "full",
        &format!("{ONE}clear_env = no\nenv[FIXED] = other\n"),
    );
    let server = Configured::builder(&(clean + &full))
        .env("OUTER", "from outside")
        .start();
    server.php(
        "env.php",
        "<?php foreach (['FIXED', 'COPIED', 'NUMBER', 'OUTER'] as $name) { \
         echo json_encode(getenv($name)), json_encode($_SERVER[$name] ?? null), ' '; }",
    );
    assert_eq!(
        server.get("clean", "/env.php").text(),
        r#""a value""a value" "from outside""from outside" "7""7" falsenull "#
    );
    assert_eq!(
        server.get("full", "/env.php").text(),
        r#""other""other" falsenull falsenull "from outside""from outside" "#
    );
}

#[test]
fn php_values_are_defaults_and_admin_values_are_final() {
    let lines = format!(
        "{ONE}php_value[memory_limit] = 64M\nphp_flag[display_errors] = on\nphp_admin_value[error_prepend_string] = fixed\n\
         php_admin_flag[log_errors] = off\nphp_admin_value[disable_functions] = phpinfo,system\n"
    );
    let other = Configured::pool("other", ONE);
    let server = Configured::builder(&(Configured::pool("www", &lines) + &other))
        .ini("memory_limit=100M")
        .ini("display_errors=0")
        .ini("log_errors=1")
        .start();
    server.php(
        "ini.php",
        r#"<?php
        foreach (['memory_limit' => '80M', 'display_errors' => '0', 'error_prepend_string' => 'changed', 'log_errors' => '1'] as $name => $new) {
            $old = ini_get($name);
            echo $name, '=', $old, ' ', json_encode(ini_set($name, $new)), ' ', ini_get($name), "\n";
        }
        echo json_encode(function_exists('system'));
        "#,
    );
    let first = server.get("www", "/ini.php").text();
    let expected = "memory_limit=64M \"64M\" 80M\ndisplay_errors=1 \"1\" 0\nerror_prepend_string=fixed false fixed\n\
                    log_errors=0 false 0\nfalse";
    assert_eq!(
        first.replace("display_errors=on \"on\"", "display_errors=1 \"1\""),
        expected
    );
    // What a script has set is gone with it.
    assert_eq!(server.get("www", "/ini.php").text(), first);
    let other = server.get("other", "/ini.php").text();
    assert!(
        other.starts_with("memory_limit=100M \"100M\" 80M\n"),
        "{other}"
    );
    assert!(other.ends_with("true"), "{other}");
}

/// Under php-fpm all pools share one OPcache, whose size no pool can set.
#[test]
fn each_pool_has_the_opcache_that_it_asks_for() {
    let pool = |name: &str, size: u32| {
        let lines = format!("{ONE}php_admin_value[opcache.memory_consumption] = {size}\n");
        Configured::pool(name, &lines)
    };
    let server = Configured::builder(&[pool("small", 16), pool("big", 64)].concat()).start();
    server.php(
        "size.php",
        "<?php $m = opcache_get_status(false)['memory_usage']; \
         echo ($m['used_memory'] + $m['free_memory'] + $m['wasted_memory']) >> 20;",
    );
    assert_eq!(server.get("small", "/size.php").text(), "16");
    assert_eq!(server.get("big", "/size.php").text(), "64");
}

#[test]
fn only_limited_extensions_run() {
    let strict = Configured::pool("strict", ONE);
    let more = Configured::pool(
        "more",
        &format!("{ONE}security.limit_extensions = .php .phtml\n"),
    );
    let all = Configured::pool("all", &format!("{ONE}security.limit_extensions =\n"));
    let server = Configured::builder(&[strict, more, all].concat()).start();
    for name in ["a.php", "a.phtml", "a.txt"] {
        server.php(name, "<?php echo 'ran';");
    }
    for (pool, runs) in [("strict", 1), ("more", 2), ("all", 3)] {
        for (index, uri) in ["/a.php", "/a.phtml", "/a.txt"].iter().enumerate() {
            let answer = server.get(pool, uri);
            let expected = if index < runs {
                (200, "ran")
            } else {
                (403, "Access denied.\n")
            };
            assert_eq!(
                (answer.status, answer.text().as_str()),
                expected,
                "{pool} {uri}"
            );
        }
    }
}

#[test]
fn the_socket_has_the_mode_and_owner_that_are_configured() {
    use std::os::unix::fs::MetadataExt;
    let mut lines = format!("{ONE}listen.mode = 0606\n");
    if getuid().is_root() {
        lines += "listen.owner = www-data\nlisten.group = daemon\n";
    } else {
        eprintln!("owner and group of sockets are not tested: that takes root");
    }
    let server = Configured::builder(&Configured::pool("www", &lines)).start();
    let metadata = fs::metadata(server.files().path("www.sock")).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o606);
    if getuid().is_root() {
        let id = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap();
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("{name}:")))
                .unwrap();
            line.split(':').nth(2).unwrap().parse::<u32>().unwrap()
        };
        assert_eq!(metadata.uid(), id("/etc/passwd", "www-data"));
        assert_eq!(metadata.gid(), id("/etc/group", "daemon"));
    }
}

#[test]
fn a_pool_in_a_chroot_sees_nothing_else_and_is_somebody_else() {
    if !getuid().is_root() {
        eprintln!("chroot and user are not tested: that takes root");
        return;
    }
    let config = format!(
        "[www]\nlisten = {{dir}}/www.sock\nuser = www-data\ngroup = www-data\nchroot = {{dir}}\nchdir = /www\n{ONE}"
    );
    let server = Configured::builder(&config).start();
    open_up(server.files().directory(), 0o755);
    server.php(
        "where.php",
        "<?php echo getcwd(), ' ', __FILE__, ' ', posix_geteuid(), ' ', json_encode(file_exists('/etc/passwd')), ' ', \
         json_encode(posix_setuid(0)), ' ', count(posix_getgroups());",
    );
    let root = Path::new("/www");
    let answer = server.send("www", &Request::get(root, "/where.php"));
    assert_eq!(
        answer.text(),
        "/www /www/where.php 33 false false 1",
        "{answer:?}"
    );
    // The path as the web server sees it leads nowhere in there.
    assert_eq!(server.get("www", "/where.php").status, 404);
}

#[test]
fn without_r_no_pool_runs_as_root() {
    if !getuid().is_root() {
        eprintln!("not tested: that takes root");
        return;
    }
    let files = Files::new(&[]);
    files.configure(&Configured::pool("www", ONE));
    let mut command = Command::new(env!("CARGO_BIN_EXE_fe-php"));
    command.args(["fpm", "-F", "-O", "-y"]).arg(files.config());
    command.arg("-c").arg(&files.ini().directory);
    let output = run(&mut command);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(
        stderr(&output).contains("please specify user and group other than root"),
        "{output:?}"
    );
}

#[test]
fn the_version_is_shown_as_php_fpm_shows_it() {
    let files = Files::new(&[]);
    let output = run(Configured::builder("").bare_command(&files).arg("-v"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = format!("PHP {} (fpm-fcgi)", php::version());
    assert!(text.contains(&expected), "{text}");
    if php::version_number() >= 80400 {
        // NTS or ZTS, and who built it; not the time, nor what extensions of php.ini add.
        let of_php = |text: &str| -> Vec<String> {
            let lines = text.lines().take_while(|line| !line.contains("    with "));
            let lines = lines.map(|line| match line.split_once(" (built: ") {
                Some((before, rest)) => format!("{before}{}", rest.split_once(')').unwrap().1),
                None => line.to_owned(),
            });
            lines.collect()
        };
        let judge = run(Command::new(program()).arg("-v"));
        assert_eq!(
            of_php(&text),
            of_php(&String::from_utf8_lossy(&judge.stdout))
        );
    }
}

#[test]
fn information_is_text_and_phprc_says_where_php_ini_is() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("php.ini"), "memory_limit = 55M\n").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_fe-php"))
        .args(["fpm", "-i"])
        .env("PHPRC", directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("\nmemory_limit => 55M => 55M\n"), "{text}");
    assert!(text.contains("\nServer API => FPM/FastCGI\n"), "{text}");
}

/// A line of another pool's settings that PHP does not start with, and what php-fpm makes of it: nothing.
#[test]
fn a_pool_whose_settings_php_does_not_start_with_starts_without_them() {
    let good = Configured::pool("good", "pm = static\npm.max_children = 1");
    let bad = Configured::pool("bad", "pm = static\npm.max_children = 1");
    for (lines, starts) in [
        ("php_admin_flag[track_errors] = on", true),
        ("php_admin_flag[safe_mode] = on", true),
        (
            "php_admin_value[opcache.preload] = /no/such/preload.php\nphp_admin_value[opcache.preload_user] = root",
            false,
        ),
    ] {
        let server = Configured::builder(&format!("{good}{bad}{lines}\n")).start();
        server.php("a.php", "<?php echo 'answer';");
        for pool in ["good", "bad"] {
            assert_eq!(server.get(pool, "/a.php").text(), "answer", "{lines}");
        }
        let said = server
            .log()
            .count("[pool bad] PHP does not start with the php_admin_value settings");
        assert_eq!(said, usize::from(!starts), "{lines}");
    }
}

#[test]
fn a_log_that_a_pool_names_is_made_by_its_user() {
    if !getuid().is_root() {
        return;
    }
    let pool = "[www]\nlisten = {dir}/www.sock\nuser = nobody\nlisten.mode = 0666\npm = static\npm.max_children = 1\n\
                php_admin_value[error_log] = {dir}/open/php.log\nphp_admin_flag[log_errors] = on\n";
    let files = Files::new(&["extension=no_such_extension".to_owned()]);
    files.configure(pool);
    let directory = files.path("open");
    fs::create_dir(&directory).unwrap();
    open_up(&directory, 0o777);
    open_up(files.directory(), 0o755);
    let server = Configured::builder(pool).start_in(files);
    let script = server.php("a.php", "<?php error_log('said'); echo 'answer';");
    open_up(script.parent().unwrap(), 0o755);
    open_up(&script, 0o644);
    assert_eq!(server.get("www", "/a.php").text(), "answer");
    let log = directory.join("php.log");
    assert!(fs::read_to_string(&log).unwrap().contains("said"));
    assert_ne!(fs::metadata(&log).unwrap().uid(), 0);
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_in_its_error_log_too() {
    for (lines, complaint) in [
        (
            "access.log = /no/such/directory/access.log",
            "failed to open access log",
        ),
        ("chroot = /no/such/directory", "/no/such/directory"),
        (
            "pm.max_children = 0",
            "pm.max_children must be a positive value",
        ),
    ] {
        for test in [None, Some("-t")] {
            let files = Files::new(&[]);
            files.configure(&Configured::pool(
                "www",
                &format!("pm = static\npm.max_children = 1\n{lines}"),
            ));
            let builder = Configured::builder("");
            let mut command = builder.bare_command(&files);
            command.args(["-F", "-y"]).arg(files.config()).args(test);
            let output = run(&mut command);
            assert!(!output.status.success());
            let log = fs::read_to_string(files.path("error.log")).unwrap();
            assert!(log.contains(complaint), "{test:?}: {log}");
            assert!(stderr(&output).contains(complaint), "{output:?}");
        }
    }
}

#[test]
fn without_php_ini_none_is_read() {
    let files = Files::new(&[]);
    let shown = |arguments: &[&str]| {
        let mut command = Configured::builder("")
            .program(Program::Renamed)
            .bare_command(&files);
        // Its -c would win.
        let mut bare = Command::new(command.get_program());
        bare.args(arguments).env_remove("PHPRC");
        command = bare;
        let output = run(&mut command);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text
            .lines()
            .find(|line| line.starts_with("Loaded Configuration File"));
        line.map(str::to_owned)
    };
    let loaded = shown(&["-n", "-i"]);
    assert_eq!(
        loaded.as_deref(),
        Some("Loaded Configuration File => (none)")
    );
}

/// `ps -C`, `pgrep` and `pidof` find all of a server.
#[test]
fn all_processes_have_the_name_of_the_program() {
    let pool = Configured::pool("www", "pm = static\npm.max_children = 1");
    let server = Configured::builder(&pool).program(Program::Renamed).start();
    let name = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name(server.pid()), "php-fpm\n");
    for process in server.descendants() {
        assert_eq!(name(process.pid), "php-fpm\n");
    }
}

/// Debian's php-fpm has no pcntl.
#[test]
fn pcntl_is_there_if_php_fpm_has_it() {
    let source = "<?php var_dump(extension_loaded('pcntl'), function_exists('pcntl_fork'));\n\
                  // What counts the extensions.\n\
                  var_dump(count(get_defined_constants(true)) > 9, count(get_loaded_extensions()) > 9);";
    let said = |program| {
        let pool = Configured::pool("www", "pm = static\npm.max_children = 1");
        let server = Configured::builder(&pool).program(program).start();
        server.php("a.php", source);
        server.get("www", "/a.php").text()
    };
    assert_eq!(said(Program::FePhp), said(Program::Stock));
}
