//! Log files: the error log in php-fpm's line format, what worker processes say, and access logs.
//!
//! # The error log
//!
//! A message is formatted in memory and written with one `write(2)`; no lock of ours is held, so every process may log
//! at any time, right after a fork too. Lines go where `error_log` leads ([`init`]): to a file or device, opened to append,
//! so that lines of several processes follow each other whole; to syslog, a datagram each; or to standard error. Until
//! [`launched`] is called, NOTICE and above go to standard error as well, so that whoever starts the server sees why it
//! does not start. From then on standard error *is* the log, for whatever else writes there.
//!
//! # Processes, and reopening
//!
//! Only the supervisor opens files: it keeps its rights, is never in a chroot, and is the one place to say that a file
//! cannot be opened. Everybody below inherits descriptors and writes to them directly. There is no relay through the
//! supervisor: nothing is lost when it is killed, and nobody waits for it.
//!
//! ```text
//! supervisor      init(): opens   reopen() at SIGUSR1: opens anew, dup3() over the old number
//!   │ Start: heritage() + descriptor           │ one message: error log and access log
//! pool process    inherit()       adopt(): dup3() over the number it has, and passes them on
//!   │ fork                                     │ one message to each worker process
//! worker process  the same number adopt()
//! ```
//!
//! The number of a log's descriptor never changes in a process, so threads that write while it is replaced, and the
//! crash handler in C that knows nothing but the number, write to the old file or to the new one, whole lines in either
//! case. Between the supervisor's reopening and a process's own, that process writes to the file that logrotate has
//! renamed: the line is there. A worker process that is forked meanwhile has what the pool process has at that moment,
//! and is sent what comes after; both are steps of one loop in the pool process, so none is missed.
//!
//! php-fpm ends its worker processes to make them reopen an access log. Here they go on.
//!
//! # Worker processes' own output
//!
//! As under php-fpm, standard output and standard error of worker processes are pipes if `catch_workers_output` is on
//! ([`worker_pipes`], [`worker_output`]), else /dev/null; and what PHP says itself ([`PhpMessage`]) goes both to the web
//! server and to the worker's standard error.

mod access;
mod error_log;
mod file;
mod line;
mod php;
#[allow(unsafe_code)]
mod sys;
mod syslog;
mod worker_output;
mod worker_pipes;

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::panic::Location;

use serde::{Deserialize, Serialize};

use crate::config::GlobalConfig;

pub(crate) use access::{
    AccessFormat, AccessLog, AccessLogError, AccessRecord, AccessWriter, CpuTime,
    DEFAULT_ACCESS_FORMAT, open_access_log, open_slow_log,
};
pub(crate) use error_log::{Heritage, LogError};
pub(crate) use file::{LogFile, open as open_log_file};
pub(crate) use line::Errno;
pub(crate) use php::PhpMessage;
pub(crate) use worker_output::Source;
pub(crate) use worker_pipes::{Pipes, WorkerPipes, WorkerStderr, to_null};

use error_log::ErrorLog;
use file::open;

/// How much a line matters, in php-fpm's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub(crate) enum Level {
    /// For whoever debugs the server.
    Debug = 1,
    /// Normal life: starts, stops, replacements.
    Notice,
    /// Something was lost or is about to be.
    Warning,
    /// Something does not work.
    Error,
    /// The server cannot go on.
    Alert,
}

impl Level {
    /// As it stands in lines.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Notice => "NOTICE",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Alert => "ALERT",
        }
    }
}

/// Opens the error log that is configured, in the supervisor. Call it before anything is daemonized.
pub(crate) fn init(config: &GlobalConfig) -> Result<(), LogError> {
    LOG.init(config)
}

/// The server is up: from now on lines go to the error log only, and standard error leads there too.
pub(crate) fn launched() -> io::Result<()> {
    LOG.launched()
}

/// Opens the error log anew (SIGUSR1), says so in php-fpm's words, and answers what to pass to pool processes, if
/// anything.
pub(crate) fn reopen() -> Option<BorrowedFd<'static>> {
    match LOG.reopen() {
        Ok(()) => notice(format_args!("error log file re-opened")),
        Err(problem) => {
            error(format_args!("{problem}"));
            error(format_args!("unable to re-opened error log file"));
        }
    }
    LOG.descriptor_to_pass()
}

/// Gives descriptor 2 back what it was before [`launched`]: to execute the supervisor anew.
pub(crate) fn restore_standard_error() -> io::Result<()> {
    LOG.restore_standard_error()
}

/// Takes descriptor 2 back: the supervisor has not been executed anew after all.
pub(crate) fn take_standard_error_again() {
    if let Err(error) = LOG.take_standard_error_again() {
        warning(format_args!(
            "standard error cannot be led to the error log: {error}"
        ));
    }
}

/// What a process below needs to log as this one does; the descriptor goes beside it.
pub(crate) fn heritage() -> (Heritage, Option<BorrowedFd<'static>>) {
    (LOG.heritage(), LOG.descriptor_to_pass())
}

/// Logs from now on as the process above does.
pub(crate) fn inherit(heritage: Heritage, descriptor: Option<OwnedFd>) {
    LOG.inherit(heritage, descriptor);
}

/// Writes to this descriptor from now on, which the process above has reopened.
pub(crate) fn adopt(descriptor: OwnedFd) -> io::Result<()> {
    LOG.adopt(descriptor)
}

/// From now on writes to a descriptor that scripts cannot take away by closing theirs; answers its number.
pub(crate) fn leave_standard_error() -> RawFd {
    LOG.leave_standard_error()
}

/// The lowest level that is written.
pub(crate) fn level() -> Level {
    LOG.settings().level
}

/// Whether lines of `level` are written.
pub(crate) fn enabled(level: Level) -> bool {
    level >= self::level()
}

/// Now, as lines begin.
pub(crate) fn timestamp() -> String {
    line::timestamp(level())
}

/// Seconds that local time is ahead of UTC at `seconds` since 1970.
pub(crate) fn local_offset(seconds: i64) -> i64 {
    sys::local_offset(seconds)
}

/// Writes a message: a line, or several, each with its own head, so that no script can forge one.
#[track_caller]
pub(crate) fn write(level: Level, message: fmt::Arguments<'_>) {
    if enabled(level) {
        LOG.write(level, &message.to_string(), Location::caller());
    }
}

/// Writes lines that have their head already, as [`WorkerPipes::read`] makes them.
pub(crate) fn write_lines(level: Level, lines: &[u8]) {
    LOG.write_lines(level, lines);
}

/// Writes a message at level ERROR.
#[track_caller]
pub(crate) fn error(message: fmt::Arguments<'_>) {
    write(Level::Error, message);
}

/// Writes a message at level WARNING.
#[track_caller]
pub(crate) fn warning(message: fmt::Arguments<'_>) {
    write(Level::Warning, message);
}

/// Writes a message at level NOTICE.
#[track_caller]
pub(crate) fn notice(message: fmt::Arguments<'_>) {
    write(Level::Notice, message);
}

/// Writes a message at level DEBUG.
#[track_caller]
pub(crate) fn debug(message: fmt::Arguments<'_>) {
    write(Level::Debug, message);
}

/// How lines are made; the same in all processes of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Settings {
    /// `log_level`
    level: Level,
    /// `log_limit`: bytes of a line, its end included.
    limit: usize,
    /// `log_buffering`: what a worker process says is written in whole lines, rather than as it comes.
    buffering: bool,
    /// The lines' heads are without time, which syslog has itself.
    syslog: bool,
}

/// The one of this process.
static LOG: ErrorLog = ErrorLog::new();

#[cfg(test)]
mod tests;
