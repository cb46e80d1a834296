//! What concerns one pool: its section of php-fpm.conf.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything a pool needs. `$pool` and prefixes are resolved, users and groups are still names: they are looked up
/// where they are used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PoolConfig {
    /// The pool's name, as in log lines: `www`.
    pub(crate) name: String,
    /// Addresses to listen at, one or more; php-fpm.conf gives one.
    pub(crate) listen: Vec<ListenAddress>,
    /// `listen.*`
    pub(crate) socket: SocketOptions,
    /// `user`: none leaves the supervisor's own.
    pub(crate) user: Option<Name>,
    /// `group`: none means the user's.
    pub(crate) group: Option<Name>,
    /// `pm` with the directives that belong to that kind.
    pub(crate) pm: ProcessManager,
    /// `pm.max_children`: PHP workers: worker processes on NTS, PHP threads of one worker process on ZTS.
    pub(crate) max_children: u32,
    /// `pm.max_requests`: after so many requests a worker process is replaced; 0 for never.
    pub(crate) max_requests: u32,
    /// `pm.queue_timeout` (fe-php's own): a request that has waited longer for a worker is refused.
    pub(crate) queue_timeout: Option<Duration>,
    /// `pm.queue_answer` (fe-php's own): what a request is told that waited too long, or found too many waiting.
    pub(crate) queue_answer: QueueAnswer,
    /// Status and ping pages.
    pub(crate) status: StatusConfig,
    /// `access.log`
    pub(crate) access_log: Option<PathBuf>,
    /// `access.format`; none means php-fpm's default.
    pub(crate) access_format: Option<String>,
    /// `access.suppress_path[]`
    pub(crate) access_suppress_paths: Vec<String>,
    /// `request_*_timeout`, `slowlog`
    pub(crate) time_limits: TimeLimits,
    /// `rlimit_files`, `rlimit_core`
    pub(crate) rlimits: ResourceLimits,
    /// `process.priority`
    pub(crate) priority: Option<i32>,
    /// `process.dumpable`
    pub(crate) dumpable: bool,
    /// `chroot`
    pub(crate) chroot: Option<PathBuf>,
    /// `chdir`
    pub(crate) chdir: Option<PathBuf>,
    /// `apparmor_hat`
    pub(crate) apparmor_hat: Option<String>,
    /// `catch_workers_output`
    pub(crate) catch_workers_output: bool,
    /// What worker processes say on standard error goes where the supervisor's goes; for a pool that the command line
    /// describes.
    pub(crate) inherits_stderr: bool,
    /// `decorate_workers_output`
    pub(crate) decorate_workers_output: bool,
    /// `clear_env`
    pub(crate) clear_env: bool,
    /// `env[NAME]`, in order.
    pub(crate) env: Vec<(String, String)>,
    /// `security.limit_extensions`; empty allows all.
    pub(crate) limit_extensions: Vec<String>,
    /// `php_value[]`, `php_flag[]`, `php_admin_value[]`, `php_admin_flag[]`, in order.
    pub(crate) ini_settings: Vec<IniSetting>,
    /// PHP's own settings as the command line gives them.
    pub(crate) ini: IniConfig,
    /// Leaves `pcntl_*` and `chroot` on where Debian's php-fpm has none.
    pub(crate) pcntl: bool,
    /// Limits on what clients may ask for.
    pub(crate) limits: Limits,
    /// PHP starts without the settings of the pool's own, with which it did not start.
    pub(crate) starts_plainly: bool,
}

/// One address to listen at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ListenAddress {
    /// A TCP socket.
    Tcp(SocketAddr),
    /// A TCP socket as php-fpm.conf has it: `host:port`, `[address]:port` or `port`. Looked up when it is bound.
    Inet(String),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Whether the system is to choose the port.
    pub(crate) fn has_any_port(&self) -> bool {
        match self {
            Self::Tcp(address) => address.port() == 0,
            Self::Inet(text) => text.rsplit(':').next() == Some("0"),
            Self::Unix(_) => false,
        }
    }

    /// What `listen` of php-fpm.conf means: TCP if there is a colon, or if there is nothing but digits. A path is
    /// absolute already, by the rules for prefixes.
    pub(crate) fn from_directive(text: &str) -> Self {
        if text.contains(':') || text.bytes().all(|byte| byte.is_ascii_digit()) {
            Self::Inet(text.to_owned())
        } else {
            Self::Unix(text.into())
        }
    }
}

/// A user or group as configured: `www-data`, or `33`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Name {
    /// To be looked up.
    Name(String),
    /// A number as it is.
    Id(u32),
}

/// Directives of listening sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SocketOptions {
    /// `listen.backlog`; -1 leaves it to the kernel.
    pub(crate) backlog: i32,
    /// `listen.owner` (of a Unix socket)
    pub(crate) owner: Option<Name>,
    /// `listen.group`
    pub(crate) group: Option<Name>,
    /// `listen.mode`: permission bits.
    pub(crate) mode: u32,
    /// `listen.acl_users`; when it or the next is given, owner and group are not used.
    pub(crate) acl_users: Vec<String>,
    /// `listen.acl_groups`
    pub(crate) acl_groups: Vec<String>,
    /// `listen.allowed_clients` (of a TCP socket), as configured; none allows all. What is wrong in it is reported by
    /// worker processes, and allows nobody.
    pub(crate) allowed_clients: Option<String>,
}

/// `pm`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ProcessManager {
    /// `static`
    Static,
    /// `dynamic`
    Dynamic {
        /// `pm.start_servers`
        start_servers: u32,
        /// `pm.min_spare_servers`
        min_spare_servers: u32,
        /// `pm.max_spare_servers`
        max_spare_servers: u32,
        /// `pm.max_spawn_rate`
        max_spawn_rate: u32,
    },
    /// `ondemand`
    OnDemand {
        /// `pm.process_idle_timeout`
        process_idle_timeout: Duration,
    },
}

impl ProcessManager {
    /// How long a pool has no worker process until its pool process goes too; none if it stays.
    pub(crate) fn unused_after(&self) -> Option<Duration> {
        match self {
            Self::OnDemand {
                process_idle_timeout,
            } => Some(UNUSED.min(6 * *process_idle_timeout)),
            Self::Static | Self::Dynamic { .. } => None,
        }
    }
}

/// An *ondemand* pool with the default `pm.process_idle_timeout` needs no pool process after this time.
const UNUSED: Duration = Duration::from_secs(60);

/// `pm.queue_answer`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum QueueAnswer {
    /// Status 503 with Retry-After.
    ServiceUnavailable,
    /// FCGI_OVERLOADED.
    Overloaded,
}

/// Status and ping pages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StatusConfig {
    /// `pm.status_path`
    pub(crate) path: Option<String>,
    /// `pm.status_listen`
    pub(crate) listen: Option<ListenAddress>,
    /// `ping.path`
    pub(crate) ping_path: Option<String>,
    /// `ping.response`; none means `pong`.
    pub(crate) ping_response: Option<String>,
}

impl StatusConfig {
    /// Whether there is a status page.
    pub(crate) fn is_shown(&self) -> bool {
        self.path.is_some() || self.listen.is_some()
    }
}

/// How long requests may take, and what happens then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TimeLimits {
    /// `request_terminate_timeout`; none for no limit.
    pub(crate) terminate: Option<Duration>,
    /// `request_terminate_timeout_track_finished`: it counts after `fastcgi_finish_request()` too.
    pub(crate) track_finished: bool,
    /// `request_slowlog_timeout`; none for no slow log.
    pub(crate) slowlog: Option<Duration>,
    /// `request_slowlog_trace_depth`: frames of a backtrace at most.
    pub(crate) slowlog_trace_depth: u32,
    /// `slowlog`: the file.
    pub(crate) slowlog_file: Option<PathBuf>,
}

/// `rlimit_files` and `rlimit_core`; none leaves what is inherited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ResourceLimits {
    /// Open descriptors.
    pub(crate) files: Option<u64>,
    /// Bytes of a core file; `u64::MAX` for `unlimited`.
    pub(crate) core: Option<u64>,
}

/// One `php_value[name]` or the like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IniSetting {
    /// The setting's name.
    pub(crate) name: String,
    /// Its value, as in php.ini.
    pub(crate) value: String,
    /// Who may change it.
    pub(crate) mode: IniMode,
}

/// Whether scripts may change a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum IniMode {
    /// `php_value`, `php_flag`
    User,
    /// `php_admin_value`, `php_admin_flag`
    Admin,
}

/// Which php.ini is read, and what is put on top of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct IniConfig {
    /// `-c`: a php.ini file, or the directory that holds one.
    pub(crate) path: Option<PathBuf>,
    /// `-n`: no php.ini at all.
    pub(crate) no_ini: bool,
    /// `-d name=value`, in order; they win over php.ini.
    pub(crate) defines: Vec<(String, String)>,
    /// `-e`: scripts are compiled with what debuggers and profilers need.
    pub(crate) extended_info: bool,
}

/// Limits on clients; each has a command line option of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Limits {
    /// Bytes of FCGI_PARAMS content in one request.
    pub(crate) params_size: usize,
    /// Number of name-value pairs in one request.
    pub(crate) params_count: usize,
    /// A body up to this many bytes is complete in memory before a worker is taken; a bigger one is streamed.
    pub(crate) body_buffer: usize,
    /// Open connections of the pool.
    pub(crate) connections: u32,
    /// Requests of the pool that wait for a worker (`pm.queue_max`); one more is refused as `pm.queue_answer` says.
    pub(crate) queue: u32,
    /// Requests that may be open at once on one connection.
    pub(crate) requests_per_connection: u32,
    /// What FCGI_GET_VALUES is told of FCGI_MPXS_CONNS. In php-fpm's place it is what php-fpm says, 0; clients that multiplex
    /// without asking are served all the same.
    pub(crate) announces_multiplexing: bool,
    /// Time from the first byte of a request to the end of its params (and of a body that is held in memory).
    pub(crate) request_header_timeout: Duration,
    /// Response bytes that may wait for a slow client before the script has to wait too.
    pub(crate) output_buffer: usize,
}

impl PoolConfig {
    /// A pool with php-fpm's defaults, as far as it has any.
    pub(crate) fn new(name: String, listen: Vec<ListenAddress>, max_children: u32) -> Self {
        Self {
            name,
            listen,
            socket: SocketOptions::default(),
            user: None,
            group: None,
            pm: ProcessManager::Static,
            max_children,
            max_requests: 0,
            queue_timeout: None,
            queue_answer: QueueAnswer::Overloaded,
            status: StatusConfig::default(),
            access_log: None,
            access_format: None,
            access_suppress_paths: Vec::new(),
            time_limits: TimeLimits {
                slowlog_trace_depth: 20,
                ..TimeLimits::default()
            },
            rlimits: ResourceLimits::default(),
            priority: None,
            dumpable: false,
            chroot: None,
            chdir: None,
            apparmor_hat: None,
            catch_workers_output: false,
            inherits_stderr: false,
            decorate_workers_output: true,
            clear_env: true,
            env: Vec::new(),
            limit_extensions: vec![".php".to_owned(), ".phar".to_owned()],
            ini_settings: Vec::new(),
            ini: IniConfig::default(),
            pcntl: false,
            limits: Limits::default(),
            starts_plainly: false,
        }
    }

    /// The names of its own settings that PHP may see when it starts, for a message; none if there are none.
    pub(crate) fn admin_settings(&self) -> Option<String> {
        let settings = self.ini_settings.iter();
        let names: Vec<&str> = settings
            .filter(|setting| setting.mode == IniMode::Admin)
            .map(|setting| setting.name.as_str())
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

/// What a neighbouring version of this program does not say.
impl Default for PoolConfig {
    fn default() -> Self {
        Self::new(String::new(), Vec::new(), 1)
    }
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            backlog: 511,
            owner: None,
            group: None,
            mode: 0o660,
            acl_users: Vec::new(),
            acl_groups: Vec::new(),
            allowed_clients: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            params_size: 1 << 20,
            params_count: 10_000,
            body_buffer: 1 << 20,
            connections: 20_000,
            queue: 4096,
            requests_per_connection: 128,
            announces_multiplexing: false,
            request_header_timeout: Duration::from_secs(60),
            output_buffer: 256 << 10,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// After an upgrade, the new program is handed what the old one has written down.
    #[test]
    fn neighbouring_versions_understand_each_other() {
        let text =
            r#"{"name": "www", "max_children": 3, "limits": {"queue": 5}, "of_later": {"x": 1}}"#;
        let pool: PoolConfig = serde_json::from_str(text).unwrap();
        assert_eq!((pool.name.as_str(), pool.max_children), ("www", 3));
        assert_eq!(pool.limits.queue, 5);
        assert_eq!(pool.limits.connections, Limits::default().connections);
        assert_eq!(pool.limit_extensions, [".php", ".phar"]);
    }
}
