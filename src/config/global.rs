//! What concerns all pools: the section `[global]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pool::ResourceLimits;
use crate::log::Level;

/// The section `[global]` of php-fpm.conf, and what the command line adds to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GlobalConfig {
    /// `pid`: the file that has the supervisor's pid while it runs.
    pub(crate) pid: Option<PathBuf>,
    /// `error_log`
    pub(crate) error_log: LogTarget,
    /// `log_level`
    pub(crate) log_level: Level,
    /// `log_limit`: bytes of a log line before it is split.
    pub(crate) log_limit: usize,
    /// `log_buffering`
    pub(crate) log_buffering: bool,
    /// `process.max`: worker processes of all pools; 0 for no limit.
    pub(crate) process_max: u32,
    /// `process.priority`: nice value of the supervisor, and of pools that have none of their own.
    pub(crate) priority: Option<i32>,
    /// `daemonize`, or `-D` and `-F`.
    pub(crate) daemonize: bool,
    /// `rlimit_files` and `rlimit_core` of the supervisor.
    pub(crate) rlimits: ResourceLimits,
    /// `emergency_restart_threshold`: so many worker processes that die of SIGSEGV or SIGBUS within the interval make
    /// the pools restart; 0 for never.
    pub(crate) emergency_restart_threshold: u32,
    /// `emergency_restart_interval`
    pub(crate) emergency_restart_interval: Duration,
    /// `process_control_timeout`: how long worker processes may take to obey; zero for no patience at all.
    pub(crate) process_control_timeout: Duration,
    /// `systemd_interval`: how often systemd is told the state; none for never.
    pub(crate) systemd_interval: Option<Duration>,
}

/// Where `error_log` leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LogTarget {
    /// A file, or a device such as `/proc/self/fd/2`.
    File(PathBuf),
    /// `syslog`
    Syslog {
        /// `syslog.facility`, as the numbers of `syslog.h` (LOG_DAEMON is 24).
        facility: i32,
        /// `syslog.ident`
        ident: String,
    },
    /// Standard error: `-O`, or no configuration file.
    Stderr,
}

impl Default for GlobalConfig {
    fn default() -> Self {
        Self {
            pid: None,
            error_log: LogTarget::Stderr,
            log_level: Level::Notice,
            log_limit: 1024,
            log_buffering: true,
            process_max: 0,
            priority: None,
            daemonize: true,
            rlimits: ResourceLimits::default(),
            emergency_restart_threshold: 0,
            emergency_restart_interval: Duration::ZERO,
            process_control_timeout: Duration::ZERO,
            systemd_interval: Some(Duration::from_secs(10)),
        }
    }
}
