//! The table of directives: what parses php-fpm.conf, what `-tt` prints and what docs/directives.md says come from it.
//!
//! The order within a scope is that of php-fpm's own dump.

/// A directive. The values are kept by it, see [`super::settings::Settings`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Key {
    Pid,
    ErrorLog,
    SyslogIdent,
    SyslogFacility,
    LogBuffering,
    LogLevel,
    LogLimit,
    EmergencyRestartInterval,
    EmergencyRestartThreshold,
    ProcessControlTimeout,
    ProcessMax,
    GlobalPriority,
    Daemonize,
    GlobalRlimitFiles,
    GlobalRlimitCore,
    EventsMechanism,
    SystemdInterval,
    Prefix,
    User,
    Group,
    Listen,
    ListenBacklog,
    ListenAclUsers,
    ListenAclGroups,
    ListenOwner,
    ListenGroup,
    ListenMode,
    ListenAllowedClients,
    ListenSetfib,
    Priority,
    Dumpable,
    Pm,
    MaxChildren,
    StartServers,
    MinSpareServers,
    MaxSpareServers,
    MaxSpawnRate,
    ProcessIdleTimeout,
    MaxRequests,
    StatusPath,
    StatusListen,
    PingPath,
    PingResponse,
    AccessLog,
    AccessFormat,
    AccessSuppressPath,
    SlowLog,
    SlowLogTimeout,
    SlowLogTraceDepth,
    TerminateTimeout,
    TerminateTimeoutTrackFinished,
    RlimitFiles,
    RlimitCore,
    Chroot,
    Chdir,
    CatchWorkersOutput,
    DecorateWorkersOutput,
    ClearEnv,
    LimitExtensions,
    AppArmorHat,
    Env,
    PhpValue,
    PhpFlag,
    PhpAdminValue,
    PhpAdminFlag,
    QueueTimeout,
    QueueMax,
    QueueAnswer,
    Pcntl,
    LimitParamsSize,
    LimitParamsCount,
    LimitBodyBuffer,
    LimitConnections,
    LimitRequestsPerConnection,
    LimitRequestHeaderTimeout,
    LimitOutputBuffer,
}

/// Where a directive may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Section `[global]`, and before the first section.
    Global,
    /// The section of a pool.
    Pool,
}

/// How a value is read, and how `-tt` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// A number; negative ones too, as in php-fpm.
    Integer,
    /// Seconds, or a number with s, m, h or d.
    Time,
    /// yes, true, on, 1 or no, false, off, none, 0.
    Boolean,
    /// `log_level`
    LogLevel,
    /// `syslog.facility`
    Facility,
    /// Bytes of a core file, or `unlimited`.
    CoreSize,
    /// Nice value; unset has a number of its own.
    Priority,
    /// `pm`
    ProcessManager,
    /// `name[key] = value`, any number of times. In php-fpm only `access.suppress_path[]` has no key.
    Array,
    /// `name[key] = yes`
    BooleanArray,
    /// fe-php's own: as [`Kind::Time`], and `ms` too; kept in milliseconds.
    Milliseconds,
    /// fe-php's own: bytes, or a number with K, M or G.
    Size,
    /// fe-php's own: a number of 1 or more.
    Count,
    /// fe-php's own: `pm.queue_answer`
    QueueAnswer,
}

/// What holds when a directive is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Initial {
    /// Nothing.
    Unset,
    /// A number, or yes (1) and no (0).
    Number(i64),
}

/// One directive.
#[derive(Debug)]
pub(crate) struct Directive {
    pub(crate) key: Key,
    pub(crate) name: &'static str,
    pub(crate) scope: Scope,
    pub(crate) kind: Kind,
    pub(crate) initial: Initial,
    /// The default in the reference, in words.
    pub(crate) default: &'static str,
    /// The PHP version that has it first; fe-php's own have none.
    pub(crate) since: Option<&'static str>,
    /// What it does.
    pub(crate) doc: &'static str,
    /// Where fe-php differs from php-fpm.
    pub(crate) note: &'static str,
}

impl Directive {
    /// Whether it is fe-php's own.
    pub(crate) fn is_ours(&self) -> bool {
        self.since.is_none()
    }
}

/// The directive of a name, which php-fpm compares without regard to case. Arrays are not found here.
pub(crate) fn find(scope: Scope, name: &str) -> Option<&'static Directive> {
    DIRECTIVES.iter().find(|directive| {
        directive.scope == scope
            && !matches!(directive.kind, Kind::Array | Kind::BooleanArray)
            && directive.name.eq_ignore_ascii_case(name)
    })
}

/// The array of a name, which php-fpm compares exactly.
pub(crate) fn find_array(name: &str) -> Option<&'static Directive> {
    DIRECTIVES.iter().find(|directive| {
        matches!(directive.kind, Kind::Array | Kind::BooleanArray) && directive.name == name
    })
}

/// What php-fpm takes for an unset priority.
pub(crate) const PRIORITY_UNSET: i64 = 64;

const fn row(
    key: Key,
    scope: Scope,
    name: &'static str,
    kind: Kind,
    initial: Initial,
    since: &'static str,
) -> Directive {
    Directive {
        key,
        name,
        scope,
        kind,
        initial,
        default: "",
        since: if since.is_empty() { None } else { Some(since) },
        doc: "",
        note: "",
    }
}

macro_rules! directives {
    ($($scope:ident $key:ident $name:literal $kind:ident $initial:expr, $default:literal, $since:literal, $doc:literal $(, $note:literal)?;)*) => {
        /// All directives, in the order of [`Key`].
        pub(crate) const DIRECTIVES: &[Directive] = &[$(
            Directive {
                default: $default,
                doc: $doc,
                note: concat!("", $($note)?),
                ..row(Key::$key, Scope::$scope, $name, Kind::$kind, $initial, $since)
            },
        )*];
    };
}

use Initial::{Number, Unset};

directives! {
    Global Pid "pid" Text Unset, "none", "5.3.3",
        "File that has the pid of the supervisor while it runs. A relative path is below `-p`, else below PHP's localstatedir.";
    Global ErrorLog "error_log" Text Unset, "log/php-fpm.log", "5.3.3",
        "The error log: a file, or `syslog`. A relative path is below `-p`, else below PHP's localstatedir.";
    Global SyslogIdent "syslog.ident" Text Unset, "php-fpm", "5.4.0",
        "Name before each message in syslog.";
    Global SyslogFacility "syslog.facility" Facility Number(-1), "daemon", "5.4.0",
        "Syslog facility: `auth`, `authpriv`, `cron`, `daemon`, `ftp`, `kern`, `lpr`, `mail`, `news`, `syslog`, `user`, `uucp` or `local0` to `local7`.";
    Global LogBuffering "log_buffering" Boolean Number(1), "yes", "7.3.0",
        "Whether the output of worker processes is collected into lines before it is logged.";
    Global LogLevel "log_level" LogLevel Number(0), "notice", "5.3.3",
        "Messages below this level are not logged: `debug`, `notice`, `warning`, `error` or `alert`.";
    Global LogLimit "log_limit" Integer Number(1024), "1024", "7.3.0",
        "Bytes of a log line before it is split; at least 512.";
    Global EmergencyRestartInterval "emergency_restart_interval" Time Number(0), "0", "5.3.3",
        "The time in which `emergency_restart_threshold` worker processes have to die.";
    Global EmergencyRestartThreshold "emergency_restart_threshold" Integer Number(0), "0 (never)", "5.3.3",
        "When so many worker processes die of SIGSEGV or SIGBUS within `emergency_restart_interval`, all pools are restarted.";
    Global ProcessControlTimeout "process_control_timeout" Time Number(0), "0", "5.3.3",
        "How long worker processes may take to obey a signal before the next stronger one follows.",
        "A reload does not depend on it: requests that run go on in the old generation.";
    Global ProcessMax "process.max" Integer Number(0), "0 (no limit)", "5.4.0",
        "Worker processes of all pools together.";
    Global GlobalPriority "process.priority" Priority Number(PRIORITY_UNSET), "unset", "5.4.0",
        "Nice value of the supervisor, -19 to 20, when started as root; pools without their own inherit it.";
    Global Daemonize "daemonize" Boolean Number(1), "yes", "5.3.3",
        "Whether to go into the background; `-D` and `-F` come first.";
    Global GlobalRlimitFiles "rlimit_files" Integer Number(0), "0 (inherited)", "5.3.3",
        "Limit of open descriptors of the supervisor.";
    Global GlobalRlimitCore "rlimit_core" CoreSize Number(0), "0 (inherited)", "5.3.3",
        "Limit of core files of the supervisor, in bytes, or `unlimited`.";
    Global EventsMechanism "events.mechanism" Text Unset, "epoll", "5.4.0",
        "How php-fpm waits for sockets.",
        "fe-php always uses epoll: any other value that php-fpm knows is noted in the log and has no effect.";
    Global SystemdInterval "systemd_interval" Time Number(-1), "10", "5.4.0",
        "How often systemd is told the state of a `Type=notify` service; 0 for never.",
        "With `WatchdogSec=` half of that time is used, as php-fpm does.";

    Pool Prefix "prefix" Text Unset, "none", "5.4.0",
        "Directory below which relative paths of this pool are. `-p`, else PHP's prefix, if not given.";
    Pool User "user" Text Unset, "none", "5.3.3",
        "User of the worker processes, by name or number. Required when started as root.";
    Pool Group "group" Text Unset, "the user's", "5.3.3",
        "Group of the worker processes, by name or number.";
    Pool Listen "listen" Text Unset, "required", "5.3.3",
        "Where requests come in: `host:port`, `[address]:port`, `port`, or the path of a Unix socket.";
    Pool ListenBacklog "listen.backlog" Integer Number(-1), "-1", "5.3.3",
        "Connections that may wait to be accepted; -1 is as many as the kernel allows (net.core.somaxconn).";
    Pool ListenAclUsers "listen.acl_users" Text Unset, "none", "7.0.4",
        "Users that may connect to the Unix socket, separated by commas. With this or the next, `listen.owner` and `listen.group` are not used.";
    Pool ListenAclGroups "listen.acl_groups" Text Unset, "none", "7.0.4",
        "Groups that may connect to the Unix socket, separated by commas.";
    Pool ListenOwner "listen.owner" Text Unset, "the supervisor's", "5.3.3",
        "Owner of the Unix socket, by name or number.";
    Pool ListenGroup "listen.group" Text Unset, "the supervisor's", "5.3.3",
        "Group of the Unix socket, by name or number.";
    Pool ListenMode "listen.mode" Text Unset, "0660", "5.3.3",
        "Permissions of the Unix socket, in octal.",
        "Of a value that is not octal as much is used as is understood, as by php-fpm, with a warning.";
    Pool ListenAllowedClients "listen.allowed_clients" Text Unset, "all", "5.3.3",
        "Addresses that may connect to the TCP socket, separated by commas.";
    Pool ListenSetfib "listen.setfib" Integer Number(-1), "-1", "8.2.0",
        "FreeBSD's routing table of the socket.",
        "There is none on Linux: the directive is noted in the log and has no effect. php-fpm on Linux refuses it.";
    Pool Priority "process.priority" Priority Number(PRIORITY_UNSET), "unset", "5.4.0",
        "Nice value of the worker processes, -19 to 20, when started as root.";
    Pool Dumpable "process.dumpable" Boolean Number(0), "no", "7.0.29",
        "Whether worker processes may be traced and dump core although they changed their user.";
    Pool Pm "pm" ProcessManager Unset, "required", "5.3.3",
        "How the number of worker processes is decided: `static`, `dynamic` or `ondemand`.";
    Pool MaxChildren "pm.max_children" Integer Number(0), "required", "5.3.3",
        "Most worker processes.",
        "With a ZTS build of PHP: PHP threads of the pool's one worker process.";
    Pool StartServers "pm.start_servers" Integer Number(0), "in the middle of min and max spare", "5.3.3",
        "dynamic: worker processes at the start.";
    Pool MinSpareServers "pm.min_spare_servers" Integer Number(0), "required for dynamic", "5.3.3",
        "dynamic: when fewer are idle, more are started.";
    Pool MaxSpareServers "pm.max_spare_servers" Integer Number(0), "required for dynamic", "5.3.3",
        "dynamic: when more are idle, some are stopped.";
    Pool MaxSpawnRate "pm.max_spawn_rate" Integer Number(32), "32", "8.1.0",
        "dynamic: most worker processes that are started at once.";
    Pool ProcessIdleTimeout "pm.process_idle_timeout" Time Number(10), "10", "5.3.9",
        "ondemand: an idle worker process is stopped after this time.";
    Pool MaxRequests "pm.max_requests" Integer Number(0), "0 (never)", "5.3.3",
        "A worker process is replaced after so many requests.";
    Pool StatusPath "pm.status_path" Text Unset, "none", "5.3.3",
        "Path of the status page: SCRIPT_NAME of the request. It begins with / and has letters, digits and `/_-.~` only.";
    Pool StatusListen "pm.status_listen" Text Unset, "none", "8.0.0",
        "A socket of its own for the status page, so that it answers while all workers are busy.";
    Pool PingPath "ping.path" Text Unset, "none", "5.3.3",
        "Path of the ping page.";
    Pool PingResponse "ping.response" Text Unset, "pong", "5.3.3",
        "What the ping page says.";
    Pool AccessLog "access.log" Text Unset, "none", "5.3.9",
        "The access log.";
    Pool AccessFormat "access.format" Text Unset, "\"%R - %u %t \\\"%m %r\\\" %s\"", "5.3.9",
        "Format of its lines; see php-fpm's www.conf for the codes.";
    Pool AccessSuppressPath "access.suppress_path" Array Unset, "none", "8.2.0",
        "`access.suppress_path[] = /health`: successful GET and HEAD requests without body or query for this path are not logged.";
    Pool SlowLog "slowlog" Text Unset, "none", "5.3.3",
        "Log of slow requests. Required with `request_slowlog_timeout`.";
    Pool SlowLogTimeout "request_slowlog_timeout" Time Number(0), "0 (never)", "5.3.3",
        "After this time the PHP backtrace of a running request is written to `slowlog`.",
        "No ptrace is needed, so it works in containers without CAP_SYS_PTRACE.";
    Pool SlowLogTraceDepth "request_slowlog_trace_depth" Integer Number(0), "20", "7.2.0",
        "Most frames of that backtrace.";
    Pool TerminateTimeout "request_terminate_timeout" Time Number(0), "0 (never)", "5.3.3",
        "A request that runs longer is stopped.",
        "The script is asked to stop first, so that its shutdown functions run; the worker process is killed only if that does not help.";
    Pool TerminateTimeoutTrackFinished "request_terminate_timeout_track_finished" Boolean Number(0), "no", "7.3.0",
        "Whether `request_terminate_timeout` counts after `fastcgi_finish_request()` and in shutdown functions too.";
    Pool RlimitFiles "rlimit_files" Integer Number(0), "0 (inherited)", "5.3.3",
        "Limit of open descriptors of the worker processes.";
    Pool RlimitCore "rlimit_core" CoreSize Number(0), "0 (inherited)", "5.3.3",
        "Limit of core files of the worker processes, in bytes, or `unlimited`.";
    Pool Chroot "chroot" Text Unset, "none", "5.3.3",
        "Directory that becomes the root of the worker processes. `$prefix` at its beginning stands for the pool's prefix.";
    Pool Chdir "chdir" Text Unset, "/ in a chroot", "5.3.3",
        "Working directory of the worker processes, within the chroot if there is one.";
    Pool CatchWorkersOutput "catch_workers_output" Boolean Number(0), "no", "5.3.3",
        "Whether what scripts write to standard output and standard error goes to the error log.";
    Pool DecorateWorkersOutput "decorate_workers_output" Boolean Number(1), "yes", "7.3.0",
        "Whether that output gets php-fpm's prefix.";
    Pool ClearEnv "clear_env" Boolean Number(1), "yes", "5.4.27",
        "Whether worker processes lose the environment of the supervisor.";
    Pool LimitExtensions "security.limit_extensions" Text Unset, ".php .phar", "5.3.9",
        "Scripts must end with one of these, separated by blanks; empty allows all.";
    Pool AppArmorHat "apparmor_hat" Text Unset, "none", "5.6.0",
        "AppArmor hat that the worker processes change to.";
    Pool Env "env" Array Unset, "none", "5.3.3",
        "`env[NAME] = value`: a variable of the environment; `$NAME` as value takes the supervisor's.";
    Pool PhpValue "php_value" Array Unset, "none", "5.3.3",
        "`php_value[name] = value`: a php.ini setting that scripts may change.";
    Pool PhpFlag "php_flag" BooleanArray Unset, "none", "5.3.3",
        "`php_flag[name] = on`: the same for a boolean.";
    Pool PhpAdminValue "php_admin_value" Array Unset, "none", "5.3.3",
        "`php_admin_value[name] = value`: a php.ini setting that scripts cannot change.",
        "Settings that PHP reads at its start, such as `opcache.memory_consumption`, can differ from pool to pool.";
    Pool PhpAdminFlag "php_admin_flag" BooleanArray Unset, "none", "5.3.3",
        "`php_admin_flag[name] = on`: the same for a boolean.";

    Pool QueueTimeout "pm.queue_timeout" Milliseconds Number(0), "0 (never)", "",
        "A request that has waited longer for a worker is answered without being run. `ms` is understood: `500ms`.";
    Pool QueueMax "pm.queue_max" Integer Number(0), "0 (no limit)", "",
        "Most requests that may wait for a worker; one more is answered without being run.";
    Pool QueueAnswer "pm.queue_answer" QueueAnswer Number(0), "503", "",
        "How: `503` with Retry-After, or `overloaded` for FastCGI's FCGI_OVERLOADED.";
    Pool Pcntl "pcntl" Boolean Number(0), "no", "",
        "Leaves the pcntl functions and `chroot()` of Debian's libphp on. Debian's php-fpm has none; elsewhere this changes nothing.";
    Pool LimitParamsSize "limit.params_size" Size Unset, "1M", "",
        "Longest FCGI_PARAMS of a request.";
    Pool LimitParamsCount "limit.params_count" Count Unset, "10000", "",
        "Most name-value pairs in FCGI_PARAMS of a request.";
    Pool LimitBodyBuffer "limit.body_buffer" Size Unset, "1M", "",
        "A body up to this size is read whole before a worker is taken; a longer one is streamed to the script.";
    Pool LimitConnections "limit.connections" Count Unset, "20000", "",
        "Most open connections of the pool; more wait in the kernel's backlog.";
    Pool LimitRequestsPerConnection "limit.requests_per_connection" Count Unset, "128", "",
        "Most requests open at once on one connection; more are answered FCGI_OVERLOADED.";
    Pool LimitRequestHeaderTimeout "limit.request_header_timeout" Milliseconds Unset, "60s", "",
        "Longest time from the first byte of a request until its params are complete, and longest pause in a body that is read whole.";
    Pool LimitOutputBuffer "limit.output_buffer" Size Unset, "256K", "",
        "Response bytes that may wait for a slow client before the script has to wait too.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_the_order_of_their_keys() {
        for (index, directive) in DIRECTIVES.iter().enumerate() {
            assert_eq!(directive.key as usize, index, "{}", directive.name);
        }
    }

    #[test]
    fn names_are_found_as_php_fpm_finds_them() {
        assert_eq!(
            find(Scope::Pool, "PM.Max_Children").map(|d| d.key),
            Some(Key::MaxChildren)
        );
        assert!(find(Scope::Global, "pm").is_none());
        assert!(find(Scope::Pool, "env").is_none());
        assert_eq!(find_array("env").map(|d| d.key), Some(Key::Env));
        assert!(find_array("ENV").is_none());
    }
}
