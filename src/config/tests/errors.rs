//! What the judge cannot show: fe-php's own messages, line numbers behind an include, and what the values become.

use std::path::PathBuf;
use std::time::Duration;

use super::*;

#[track_caller]
fn refused(text: &str) -> Vec<String> {
    let files = Files::new(text);
    let (result, lines) = files.load(&files.options());
    assert_eq!(result, Err(InvalidConfig), "{lines:?}");
    lines
}

#[test]
fn lines_are_counted_right_behind_an_include() {
    let files = Files::new("[global]\n\ninclude = @/other.conf\nnonsense = 1\n");
    files.write("other.conf", "[www]\n\n\n\n\n\n");
    let (_, lines) = files.load(&files.options());
    assert_eq!(lines[0], "ERROR: [@/fpm.conf:4] unknown entry 'nonsense'");
}

#[test]
fn a_syntax_error_names_file_and_line() {
    assert_eq!(
        refused("[global]\n[www\n")[0],
        "PHP:  syntax error, unexpected end of file, expecting ']' in @/fpm.conf on line 2"
    );
}

#[test]
fn what_cannot_be_read_is_said_with_the_reason() {
    let files = Files::new("");
    let options = FpmOptions {
        config_file: Some("/nowhere/fpm.conf".to_owned()),
        ..FpmOptions::default()
    };
    let (result, lines) = files.load(&options);
    assert_eq!(result, Err(InvalidConfig));
    assert_eq!(
        lines,
        [
            "ERROR: failed to open configuration file '/nowhere/fpm.conf': No such file or directory (2)",
            "ERROR: failed to load configuration file '/nowhere/fpm.conf'"
        ]
    );
}

#[test]
fn values_that_are_not_utf_8_are_refused() {
    let files = Files::new("");
    let path = files.place("@/fpm.conf");
    fs::write(&path, b"; \xe4 is fine here\n[www]\nuser = \xe4\n").unwrap();
    let (_, lines) = files.load(&files.options());
    assert_eq!(
        lines[0],
        "ERROR: [@/fpm.conf:3] '\u{fffd}' is not valid UTF-8"
    );
}

#[test]
fn what_does_not_apply_is_noted() {
    let text = pool_with("listen.setfib = 1").replace("[www]", "events.mechanism = select\n[www]");
    let (_, lines) = config_of(&text);
    assert_eq!(
        lines,
        [
            "NOTICE: events.mechanism = select has no effect: fe-php always uses epoll",
            "NOTICE: [pool www] listen.setfib has no effect: there are no routing tables of this kind on Linux"
        ]
    );
}

#[test]
fn what_means_nothing_is_warned_of() {
    let (config, lines) = config_of(&pool_with(
        "pm.max_requests = -1\nrequest_terminate_timeout = -5\nlisten.mode = rw",
    ));
    assert_eq!(
        lines,
        [
            "WARNING: [pool www] listen.mode 'rw' is not an octal number such as 0660: 0000 is used",
            "WARNING: [pool www] pm.max_requests(-1) is negative: 0 is used",
            "WARNING: [pool www] request_terminate_timeout(-5) is negative: 0 is used"
        ]
    );
    assert_eq!(config.pools[0].max_requests, 0);
    assert_eq!(config.pools[0].time_limits.terminate, None);
}

#[test]
fn our_own_values_are_checked() {
    for (line, problem) in [
        (
            "pm.queue_timeout = 5x",
            "is not a time: use a number of seconds, or one with ms, s, m, h or d",
        ),
        ("pm.queue_answer = 200", "must be 503 or overloaded"),
        ("limit.params_size = 0", "is not a size between 1 and 1024G"),
        (
            "limit.connections = x",
            "is not a number from 1 to 2147483647",
        ),
    ] {
        let name = line.split(' ').next().unwrap();
        assert_eq!(
            refused(&pool_with(line))[0],
            format!("ERROR: [@/fpm.conf:8] unable to parse value for entry '{name}': {problem}")
        );
    }
}

#[test]
fn a_test_finds_numbers_and_paths_that_cannot_be() {
    for (line, problem) in [
        ("user = 4294967295", "user ID '4294967295' is out of range"),
        (
            "group = 99999999999",
            "group ID '99999999999' is out of range",
        ),
        (
            "listen.owner = 99999999999",
            "user ID '99999999999' is out of range",
        ),
        (
            "listen.group = 4294967296",
            "group ID '4294967296' is out of range",
        ),
    ] {
        assert_eq!(
            refused(&pool_with(line)),
            [format!("ERROR: [pool www] {problem}")]
        );
    }
    for (directive, length, fits) in [
        ("listen", 107, true),
        ("listen", 108, false),
        ("pm.status_listen", 108, false),
    ] {
        let path = format!("/tmp/{}", "x".repeat(length - 5));
        let text = pool_with(&format!("{directive} = {path}"));
        if fits {
            config_of(&text);
        } else {
            assert_eq!(
                refused(&text),
                [format!(
                    "ERROR: [pool www] cannot bind to UNIX socket '{path}' as path is too long (found length: {length}, \
                     maximal length: 108)"
                )]
            );
        }
    }
}

#[test]
fn every_value_arrives_in_the_configuration() {
    let files = Files::new(&pool_with(
        "listen = 127.0.0.1:9007\ngroup = 7\nlisten.backlog = 5\nlisten.owner = daemon\nlisten.mode = 0600\n\
         listen.acl_users = daemon,root\nlisten.allowed_clients = 127.0.0.1\nprocess.priority = 3\n\
         process.dumpable = yes\npm = dynamic\npm.start_servers = 2\npm.min_spare_servers = 1\n\
         pm.max_spare_servers = 3\npm.max_spawn_rate = 4\npm.max_requests = 9\npm.status_path = /s\n\
         pm.status_listen = @/status\nping.path = /p\naccess.log = @/access\naccess.suppress_path[] = /x\n\
         slowlog = @/slow\nrequest_slowlog_timeout = 2\nrequest_terminate_timeout = 1m\n\
         request_terminate_timeout_track_finished = yes\nrlimit_files = 100\nrlimit_core = unlimited\n\
         chdir = @\ncatch_workers_output = yes\ndecorate_workers_output = no\nclear_env = no\n\
         security.limit_extensions = .php  .php5\napparmor_hat = hat\nenv[A] = 1\nenv[B] = 2\n\
         php_value[a] = 1\nphp_admin_value[b] = 2\nphp_flag[c] = on\n\
         pm.queue_timeout = 1500ms\npm.queue_max = 12\npm.queue_answer = overloaded\npcntl = yes\n\
         limit.params_size = 64K\nlimit.params_count = 11\nlimit.body_buffer = 2M\nlimit.connections = 13\n\
         limit.requests_per_connection = 14\nlimit.request_header_timeout = 15\nlimit.output_buffer = 16K",
    ));
    let (config, lines) = files.load(&files.options());
    let pool = config
        .unwrap_or_else(|_| panic!("{lines:?}"))
        .pools
        .remove(0);
    let path = |name: &str| PathBuf::from(files.place(name));
    let setting = |name: &str, value: &str, mode| IniSetting {
        name: name.to_owned(),
        value: value.to_owned(),
        mode,
    };
    let expected = PoolConfig {
        socket: SocketOptions {
            backlog: 5,
            owner: Some(Name::Name("daemon".to_owned())),
            group: None,
            mode: 0o600,
            acl_users: vec!["daemon".to_owned(), "root".to_owned()],
            acl_groups: Vec::new(),
            allowed_clients: Some("127.0.0.1".to_owned()),
        },
        user: Some(Name::Name("daemon".to_owned())),
        group: Some(Name::Id(7)),
        pm: ProcessManager::Dynamic {
            start_servers: 2,
            min_spare_servers: 1,
            max_spare_servers: 3,
            max_spawn_rate: 4,
        },
        max_requests: 9,
        queue_timeout: Some(Duration::from_millis(1500)),
        queue_answer: QueueAnswer::Overloaded,
        status: StatusConfig {
            path: Some("/s".to_owned()),
            listen: Some(ListenAddress::Unix(path("@/status"))),
            ping_path: Some("/p".to_owned()),
            ping_response: Some("pong".to_owned()),
        },
        access_log: Some(path("@/access")),
        access_format: Some("%R - %u %t \"%m %r\" %s".to_owned()),
        access_suppress_paths: vec!["/x".to_owned()],
        time_limits: TimeLimits {
            terminate: Some(Duration::from_secs(60)),
            track_finished: true,
            slowlog: Some(Duration::from_secs(2)),
            slowlog_trace_depth: 20,
            slowlog_file: Some(path("@/slow")),
        },
        rlimits: ResourceLimits {
            files: Some(100),
            core: Some(u64::MAX),
        },
        priority: Some(3),
        dumpable: true,
        chroot: None,
        chdir: Some(path("@")),
        apparmor_hat: Some("hat".to_owned()),
        catch_workers_output: true,
        decorate_workers_output: false,
        clear_env: false,
        // The last one first, as php-fpm goes through them.
        env: vec![
            ("B".to_owned(), "2".to_owned()),
            ("A".to_owned(), "1".to_owned()),
        ],
        limit_extensions: vec![".php".to_owned(), ".php5".to_owned()],
        ini_settings: vec![
            setting("c", "1", IniMode::User),
            setting("a", "1", IniMode::User),
            setting("b", "2", IniMode::Admin),
        ],
        ini: IniConfig::default(),
        pcntl: true,
        limits: Limits {
            announces_multiplexing: false,
            params_size: 64 << 10,
            params_count: 11,
            body_buffer: 2 << 20,
            connections: 13,
            queue: 12,
            requests_per_connection: 14,
            request_header_timeout: Duration::from_secs(15),
            output_buffer: 16 << 10,
        },
        ..PoolConfig::new(
            "www".to_owned(),
            vec![ListenAddress::Inet("127.0.0.1:9007".to_owned())],
            3,
        )
    };
    assert_eq!(pool, expected);
}

#[test]
fn the_command_line_comes_before_the_file_or_behind_it() {
    let files = Files::new(&pool_with("").replace("[www]", "daemonize = yes\n[www]"));
    let options = FpmOptions {
        pid: Some("/x/pid".to_owned()),
        daemonize: Some(false),
        ..files.options()
    };
    let (config, _) = files.load(&options);
    let global = config.unwrap().global;
    assert_eq!(global.pid, Some("/x/pid".into()));
    assert!(!global.daemonize);

    let files = Files::new(&pool_with("").replace("[www]", "pid = @/pid\n[www]"));
    let (config, _) = files.load(&FpmOptions {
        pid: Some("/x/pid".to_owned()),
        ..files.options()
    });
    assert_eq!(
        config.unwrap().global.pid,
        Some(files.place("@/pid").into())
    );
}

#[test]
fn the_prefix_is_where_relative_paths_are() {
    let text = "[global]\npid = run/pid\nerror_log = log\ninclude = pool/*.conf\n";
    let files = Files::new("");
    files.write("etc/php-fpm.conf", text);
    let pool = pool_with("slowlog = $pool.slow\npm.status_listen = status")
        .replace("listen = @/sock", "listen = sock");
    files.write("pool/a.conf", &pool.replace(GLOBAL, ""));
    let options = FpmOptions {
        prefix: Some(files.place("@")),
        test: 1,
        ..FpmOptions::default()
    };
    let (config, lines) = files.load(&options);
    let config = config.unwrap_or_else(|_| panic!("{lines:?}"));
    let path = |name: &str| PathBuf::from(files.place(name));
    assert_eq!(config.global.pid, Some(path("@/run/pid")));
    assert_eq!(config.global.error_log, LogTarget::File(path("@/log")));
    assert_eq!(
        config.pools[0].listen,
        [ListenAddress::Unix(path("@/sock"))]
    );
    assert_eq!(
        config.pools[0].status.listen,
        Some(ListenAddress::Unix(path("@/status")))
    );
    assert_eq!(
        config.pools[0].time_limits.slowlog_file,
        Some(path("@/www.slow"))
    );

    let nowhere = FpmOptions {
        prefix: Some("/nowhere".to_owned()),
        ..FpmOptions::default()
    };
    let (_, lines) = files.load(&nowhere);
    assert_eq!(
        lines,
        ["ERROR: the global prefix '/nowhere' does not exist or is not a directory"]
    );
}

#[test]
fn the_file_is_found_by_default_and_by_a_setting() {
    let php = PhpBuild {
        sysconfdir: "/etc/x".to_owned(),
        ..PhpBuild::compiled()
    };
    let mut options = FpmOptions::default();
    assert_eq!(config_file(&options, &php), "/etc/x/php-fpm.conf");
    options.ini.defines = vec![("fpm.config".to_owned(), "/a".to_owned())];
    assert_eq!(config_file(&options, &php), "/a");
    options.config_file = Some("/b".to_owned());
    assert_eq!(config_file(&options, &php), "/b");
}

#[test]
fn messages_below_log_level_are_left_out() {
    let files = Files::new(&pool_with("").replace("[www]", "log_level = error\n[www]"));
    let mut messages = Messages::new();
    let config = load(&files.options(), &PhpBuild::compiled(), &mut messages);
    assert_eq!(config.unwrap().global.log_level, crate::log::Level::Error);
    assert_eq!(messages.list(), []);
}
