//! The judge: php-fpm itself, with `-tt`. What it prints for a file, fe-php prints too, to the letter.

use std::process::Command;

use proptest::prelude::*;

use super::*;

/// Whether it succeeded, and its lines without times and without places that differ for a reason.
fn judge(files: &Files, options: &FpmOptions) -> (bool, Vec<String>) {
    let mut command = Command::new(php_fpm_to_compare_with());
    command.args(["-n", "-tt", "-y", &files.place("@/fpm.conf")]);
    for (option, value) in [("-p", &options.prefix), ("-g", &options.pid)] {
        command.args(value.iter().flat_map(|value| [option, value]));
    }
    for (option, given) in [
        ("-R", options.run_as_root),
        ("-F", options.daemonize == Some(false)),
    ] {
        command.args(given.then_some(option));
    }
    let output = command
        .env("FE_PHP_TEST_VARIABLE", "of the environment")
        .env_remove("WATCHDOG_USEC")
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "{} cannot be run: {error}",
                php_fpm_to_compare_with().display()
            )
        });
    let text = String::from_utf8(output.stderr).unwrap();
    (output.status.success(), normal(text.lines(), files))
}

fn normal<'a>(lines: impl Iterator<Item = &'a str>, files: &Files) -> Vec<String> {
    let directory = files.place("@");
    lines
        .map(|line| {
            // "[24-Nov-2026 21:29:00] "
            let line = match line.as_bytes() {
                [b'[', rest @ ..] if rest.get(2) == Some(&b'-') && rest.get(20) == Some(&b']') => {
                    &line[23..]
                }
                _ => line,
            };
            // PHP calls each line "Unknown on line 1".
            let line = match (line.starts_with("PHP:"), line.find(" in ")) {
                (true, Some(place)) => &line[..place],
                _ => line,
            };
            // It goes on counting from the lines of the included file.
            let line = match (
                line.starts_with("ERROR: Unable to include"),
                line.find(" at line "),
            ) {
                (true, Some(place)) => &line[..place],
                _ => line,
            };
            // php-fpm adds errno here, which nobody has set.
            let line = if line.contains(" cannot get ") {
                line.trim_end_matches(": Success (0)")
                    .trim_end_matches(": no such user")
                    .trim_end_matches(": no such group")
            } else {
                line
            };
            // The form for syslog.
            line.replacen("[NOTICE] ", "NOTICE: ", 1)
                .replace(&directory, "@")
        })
        .filter(|line| line != "ERROR: FPM initialization failed")
        .collect()
}

fn ours(files: &Files, options: &FpmOptions) -> (bool, Vec<String>) {
    let options = FpmOptions {
        test: 2,
        config_file: files.options().config_file,
        ..options.clone()
    };
    let (result, lines) = files.load(&options);
    // A value may have a line break in it.
    (
        result.is_ok(),
        normal(lines.iter().flat_map(|line| line.split('\n')), files),
    )
}

/// A php-fpm that was built without systemd or ACLs does not have their lines.
fn leave_out_what_is_not_built(lines: &mut Vec<String>, judge: &[String]) {
    for name in ["systemd_interval", "listen.acl_users", "listen.acl_groups"] {
        let entry = format!("NOTICE: \t{name} = ");
        if !judge.iter().any(|line| line.starts_with(&entry)) {
            lines.retain(|line| !line.starts_with(&entry));
        }
    }
}

#[track_caller]
fn same(text: &str) {
    same_with(text, &FpmOptions::default());
}

/// `@` in the prefix stands for the directory, too.
#[track_caller]
fn same_with(text: &str, options: &FpmOptions) {
    let files = Files::new(text);
    files.write(
        "pool.d/a.conf",
        "[a]\nuser = daemon\nlisten = @/a\npm = static\npm.max_children = 1\n",
    );
    files.write(
        "pool.d/b.conf",
        "[b]\nuser = daemon\nlisten = @/b\npm = ondemand\npm.max_children = 1\n",
    );
    files.write("pool.d/.hidden.conf", "nonsense");
    files.write("pool.d/dir.conf/x", "");
    files.write("broken/x.conf", "[x]\nnonsense = 1\n");
    files.write("loop.conf", "include = @/loop.conf\n");
    files.write("root/sub/x", "");
    let options = FpmOptions {
        prefix: options.prefix.as_ref().map(|prefix| files.place(prefix)),
        ..options.clone()
    };
    let judge = judge(&files, &options);
    let mut ours = ours(&files, &options);
    leave_out_what_is_not_built(&mut ours.1, &judge.1);
    assert_eq!(ours, judge, "left: fe-php, right: php-fpm\n{text}");
}

#[test]
fn debians_files() {
    let main = include_str!("../../../tests/config/php-fpm.conf");
    let www = include_str!("../../../tests/config/pool.d/www.conf");
    let files = Files::new(
        &main
            .replace("/run/php/", "@/")
            .replace("/var/log/", "@/")
            .replace("/etc/php/8.2/fpm/", "@/"),
    );
    files.write("pool.d/www.conf", www);
    let judge = judge(&files, &FpmOptions::default());
    let mut ours = ours(&files, &FpmOptions::default());
    leave_out_what_is_not_built(&mut ours.1, &judge.1);
    assert!(judge.0, "{judge:?}");
    assert_eq!(ours, judge);
}

#[test]
fn every_directive_of_a_pool() {
    for line in [
        "prefix = @/root",
        "prefix = @/root\nchdir = sub\nslowlog = slow.log\naccess.log = $pool.access.log\nphp_value[error_log] = x",
        "prefix = @/root\nchroot = $prefix\nchdir = /sub",
        "prefix = @/root\nchroot = $prefix/sub",
        "prefix = @/root\nchroot = x$prefix",
        "prefix = @/nowhere",
        "prefix =\nslowlog = tmp/../@/slow.log",
        "user = 33\ngroup = 33",
        "user = nosuchuser",
        "group = nosuchgroup",
        "listen.owner = nosuchuser",
        "listen.group = nosuchgroup",
        "listen.owner = daemon\nlisten.group = daemon\nlisten.mode = 0600\nlisten.allowed_clients = 127.0.0.1,::1",
        "listen.backlog = 17",
        "listen = 127.0.0.1:9000",
        "listen = 9000",
        "listen = [::1]:9000",
        "listen =",
        "process.priority = -5\nprocess.dumpable = yes",
        "process.priority = 21",
        "process.priority = 64",
        "pm = x",
        "pm.max_children = 0",
        "pm.max_children = -3",
        "pm.max_children = 3k",
        "pm.max_requests = 500\npm.status_path = /status\nping.path = /ping\nping.response = hello",
        "pm.status_path = status",
        "pm.status_path = /",
        "pm.status_path = /st?",
        "pm.status_path =",
        "pm.status_listen = 127.0.0.1:9001",
        "pm.status_listen = @/sock",
        "pm.status_listen = 127.0.0.1:9001\npm.status_path = /x\nping.path = /p",
        "ping.path = ping",
        "ping.path = /",
        "ping.path = /a b",
        "ping.path = /ping\nping.response =",
        "ping.response = alone",
        "access.log = @/access.log",
        "access.log = @/nowhere/access.log",
        "access.log =",
        "access.log = @/$pool.log\naccess.format = \"%R %{REMOTE_USER}e %%\"",
        "access.log = @/access\naccess.format = %Y",
        "access.log = @/access\naccess.format = \"%{x}\"",
        "access.log = @/access\naccess.format = \"%{mega}M %{user}C %{milli}d %e\"",
        "access.suppress_path[] = /a\naccess.suppress_path[] = /b",
        "access.suppress_path[x] = /a",
        "access.suppress_path[] = a",
        "access.suppress_path[x] = a",
        "slowlog = @/slow.log\nrequest_slowlog_timeout = 5s\nrequest_terminate_timeout = 1m",
        "slowlog = @/slow.log\nrequest_slowlog_timeout = 5m\nrequest_terminate_timeout = 30",
        "slowlog = @/slow.log\nrequest_slowlog_trace_depth = -1",
        "slowlog = @/nowhere/slow.log\nrequest_slowlog_timeout = 1h",
        "request_slowlog_timeout = 1d",
        "request_slowlog_timeout = 1w",
        "request_slowlog_timeout =",
        "request_slowlog_trace_depth = 10",
        "request_terminate_timeout_track_finished = yes",
        "rlimit_files = 1024\nrlimit_core = unlimited",
        "rlimit_core = -2",
        "rlimit_core = 7",
        "chroot = @/root\nchdir = /sub",
        "chroot = @/root\nchdir = /nowhere",
        "chroot = @/nowhere",
        "chdir = @/nowhere",
        "chdir = @/root",
        "catch_workers_output = yes\ndecorate_workers_output = no\nclear_env = no",
        "clear_env = maybe",
        "clear_env = 'yes'",
        "security.limit_extensions =",
        "security.limit_extensions = .php .php7",
        "env[A] = 1\nenv[B] = $PATH\nenv[A] = 2",
        "env[A] =",
        "env[] = x",
        "php_value[a] = b\nphp_flag[c] = on\nphp_admin_value[d] = $pool\nphp_admin_flag[e] = off\nphp_value[f] = E_ALL & ~E_NOTICE",
        "php_flag[c] = maybe",
        "php_flags[c] = on",
        "php_admin_value[error_log] = syslog\nphp_admin_value[extension_dir] = ext",
        "nonsense = 1",
        "PM.Max_Children = 4",
        "pid = x",
    ] {
        same(&pool_with(line));
    }
}

#[test]
fn process_managers() {
    for line in [
        "pm = dynamic",
        "pm = Dynamic\npm.min_spare_servers = 1\npm.max_spare_servers = 3",
        "pm = dynamic\npm.min_spare_servers = 1",
        "pm = dynamic\npm.min_spare_servers = 2\npm.max_spare_servers = 9",
        "pm = dynamic\npm.min_spare_servers = 3\npm.max_spare_servers = 1",
        "pm = dynamic\npm.min_spare_servers = 1\npm.max_spare_servers = 2\npm.start_servers = 3",
        "pm = dynamic\npm.min_spare_servers = 1\npm.max_spare_servers = 2\npm.start_servers = 2\npm.max_spawn_rate = 0",
        "pm = dynamic\npm.min_spare_servers = 1\npm.max_spare_servers = 2\npm.max_spawn_rate = 64",
        "pm = ondemand",
        "pm = ondemand\npm.process_idle_timeout = 0",
        "pm = ondemand\npm.process_idle_timeout = 1m\npm.start_servers = 2",
        "pm = ondemand\nlisten.backlog = -2",
    ] {
        same(&pool_with(line));
    }
}

#[test]
fn the_global_section() {
    let pool = "[www]\nuser = daemon\nlisten = @/sock\npm = static\npm.max_children = 3\n";
    for line in [
        "pid = @/pid\nsyslog.ident = x\nsyslog.facility = local3\nlog_buffering = no\nlog_limit = 2048",
        "log_level = notice\nemergency_restart_threshold = 3\nemergency_restart_interval = 1m",
        "log_level = WARN",
        "log_level = loud",
        "log_level = error",
        "process_control_timeout = 10\nprocess.max = 7\nprocess.priority = 3\ndaemonize = no",
        "process.max = -1",
        "process.priority = 30",
        "rlimit_files = 10\nrlimit_core = unlimited\nevents.mechanism = epoll\n",
        "events.mechanism = nonsense",
        "log_limit = 511",
        "log_limit = 64",
        "syslog.facility = nonsense",
        "error_log = @/nowhere/log",
        "error_log = syslog",
        "pid = $pool.pid",
        "env[A] = 1",
        "pm = static",
    ] {
        same(&format!("{GLOBAL}{line}\n{pool}"));
    }
    same(GLOBAL);
    same("");
    same("error_log = @/log\n[www]\nlisten = @/sock\npm = static\npm.max_children = 1");
}

#[test]
fn several_pools_and_files() {
    for text in [
        "include = @/pool.d/*.conf\n",
        "include = @/pool.d/a.conf\n[A]\npm.max_children = 9\n[b]\nlisten = @/a\nuser = daemon\npm = static\npm.max_children = 1\n",
        "include = @/pool.d/[ab].conf\n[global]\nlog_limit = 1000\n",
        "include = @/pool.d/?.conf\npm.max_requests = 3\n",
        "include = @/none/*.conf\n",
        "include = @/pool.d/*.none\n",
        "include = @/none.conf\n",
        "include = @/broken/x.conf\n",
        "include = @/loop.conf\n",
        "include = @/pool.d/**.conf\n",
        "[www]\rinclude = a\rinclude = b\n",
    ] {
        same(&format!("{GLOBAL}{text}"));
    }
}

#[test]
fn options_of_the_command_line() {
    let text = "[global]\npid = run/pid\nerror_log = log\ninclude = pool.d/*.conf\n[www]\nlisten = sock\nuser = daemon\n\
                pm = static\npm.max_children = 3\nslowlog = slow\naccess.log = $pool.log\n";
    for prefix in ["@", "@/", "@/nowhere", ""] {
        for more in ["", "chroot = $prefix\n", "prefix = root\nchdir = sub\n"] {
            let options = FpmOptions {
                prefix: Some(prefix.to_owned()),
                pid: Some("other.pid".to_owned()),
                ..FpmOptions::default()
            };
            same_with(&format!("{text}{more}"), &options);
        }
    }
    let options = FpmOptions {
        pid: Some("other.pid".to_owned()),
        run_as_root: true,
        daemonize: Some(false),
        ..FpmOptions::default()
    };
    let pool = "[www]\nlisten = @/sock\npm = static\npm.max_children = 3\n";
    same_with(&format!("{GLOBAL}{pool}"), &options);
    same_with(&format!("{GLOBAL}{pool}user = root\n"), &options);
}

#[test]
fn syntax() {
    for line in [
        "user = \"dae\"mon",
        "user = 'daemon' ; comment",
        "user=daemon;comment",
        "  user\t=\tdaemon  ",
        "; comment",
        "# comment",
        "user",
        "= x",
        "[broken",
        " [www]",
        "user = a = b",
        "user = )",
        "rlimit_files = (1|2) ^ 1",
        "rlimit_files = !1",
        "rlimit_files = ~-5",
        "rlimit_files = (1",
        "ping.path = /p\nping.response = \"a\\\"b\\\\c\\$d\"",
        "ping.path = /p\nping.response = E_WARNING E_ALL",
        "ping.path = /p\nping.response = PHP_VERSION",
        "ping.path = /p\nping.response = \"${NO_SUCH_VARIABLE}x\"",
        "ping.path = /p\nping.response = \"open",
        "ping.path = /p\nping.response = ''",
        "ping.path = /p\nping.response = a,b:c/d[e]?<f>@g#h%i*j+k-l",
        "ping.path = /p\nping.response = \u{e4}\u{f6}\u{fc}",
        "ping.path = /p\nping.response = $x ${",
        "ping.path = /p\nping.response = a$\n",
        "ping.path = /p\nping.response = ${AB",
        "ping.path = /p\nping.response = ${AB\nenv[${AB] = x",
        "ping.path = /p\nping.response = ${AB:-",
        "ping.path = /p\nping.response = ${AB:-x",
        "ping.path = /p\nping.response = ${AB:-}",
        "ping.path = /p\nping.response = ${AB:-:-}",
        "ping.path = /p\nping.response = ${AB:-c d}e",
        "ping.path = /p\nping.response = ${AB:-\"x",
        "ping.path = /p\nping.response = ${AB:-(",
        "ping.path = /p\nping.response = ${AB:-[x]}",
        "ping.path = /p\nping.response = ${AB:-x;y}",
        "ping.path = /p\nping.response = ${AB:-x\"y\"z}",
        "ping.path = /p\nping.response = ${AB:-${",
        "ping.path = /p\nping.response = ${AB:-E_ALL}",
        "ping.path = /p\nping.response = ${AB:-1|2}",
        "ping.path = /p\nping.response = \"${AB:-${CD:-d}}\"",
        "ping.path = /p\nping.response = ${AB:-\\}}",
        "ping.path = /p\nping.response = ${AB:-'x'}",
        "yes = 1",
        "env[a = 1",
        "env[a] 1",
        "env['A B'] = yes no",
        "env[\"A\"] = \"yes\"",
        "env[TRUE] = x",
        "env[E_ALL] = x",
        "\u{feff}rlimit_files = 3",
        "rlimit_files = 3\r",
        "[ www2 ]",
        "[www]]",
        "[a] listen = 1",
        "[\"q\"]",
        "[]",
    ] {
        same(&pool_with(line));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Values put together of what means something to the parser.
    #[test]
    fn made_up_values(parts in proptest::collection::vec(proptest::sample::select(&PARTS[..]), 0..6)) {
        let value = parts.concat();
        same(&pool_with(&format!("ping.path = /p\nping.response = {value}\nenv[{value}] = x")));
    }
}

const PARTS: [&str; 34] = [
    "a", "B_1", "12", "-3", "4.5", ".", " ", "\t", "\"", "\"a b\"", "'c d'", "\\", "\\\"", "$",
    "$$", "${", "${HOME}", "}", "|", "&", "^", "~", "!", "(", ")", ";", "#", "=", "on", "null",
    "none ", "E_ALL", "[", "]",
];
