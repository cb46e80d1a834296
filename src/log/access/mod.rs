//! Access logs: a line for each request, in the form of `access.format` (php-fpm's fpm_log.c).
//!
//! [`AccessFormat`] is parsed once, at configuration time. Each worker process has an [`AccessLog`] (format, file,
//! suppressed paths), and each PHP thread an [`AccessWriter`] on it, which has a buffer and the text of the current
//! second, so that a line costs well below a microsecond and one `write(2)`.
//!
//! Where php-fpm is not followed: control characters in what a client sends (a user's name may have a line feed) become
//! `\x0a`, so that nobody can forge a line; paths and names are not cut at the sizes of php-fpm's scoreboard (127
//! bytes of a path), only the line at 1024; a line that is cut ends without a NUL; CPU time is that of the thread and has
//! microseconds rather than ticks of 10 ms.

mod format;
mod time;

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::getpid;

use super::{Errno, LogFile, sys};
use crate::request::Variables;

pub(crate) use format::AccessFormat;

use time::TimeCache;

/// What `access.format` is when it is not set.
pub(crate) const DEFAULT_ACCESS_FORMAT: &str = "%R - %u %t \"%m %r\" %s";

/// php-fpm's length of a line.
const LINE: usize = 1024;

/// What php-fpm has room for (`fpm_scoreboard_proc_s`, less the NUL): a long URL must not push the status out of the line.
const METHOD: usize = 15;
const URI: usize = 127;
const QUERY: usize = 511;
const SCRIPT: usize = 255;
const USER: usize = 31;

/// What a line can tell of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AccessRecord<'a> {
    /// Address of the FastCGI client, unless it came through a Unix socket.
    pub(crate) client: Option<IpAddr>,
    /// `SG(request_info).request_method`; empty if there is none.
    pub(crate) method: &'a [u8],
    /// `SG(request_info).request_uri`: the script's path as the client sees it, without query string.
    pub(crate) uri: &'a [u8],
    /// `SG(request_info).query_string`
    pub(crate) query: &'a [u8],
    /// `SG(request_info).path_translated`: the script's file; empty if there is none.
    pub(crate) script: &'a [u8],
    /// `SG(request_info).auth_user`; empty if there is none.
    pub(crate) user: &'a [u8],
    /// `SG(request_info).content_length`
    pub(crate) content_length: u64,
    /// `SG(sapi_headers).http_response_code`
    pub(crate) status: u16,
    /// Variables of the request, for `%{NAME}e`.
    pub(crate) variables: &'a Variables,
    /// The script's header lines, each with a line feed at its end, for `%{Name}o`; see [`AccessFormat::needs_headers`].
    pub(crate) headers: &'a [u8],
    /// When the request was accepted: seconds since 1970.
    pub(crate) accepted: i64,
    /// Seconds since 1970 now.
    pub(crate) now: i64,
    /// From acceptance to the end of the script.
    pub(crate) duration: Duration,
    /// CPU time that it took, for `%C`; see [`AccessFormat::needs_cpu`].
    pub(crate) cpu: CpuTime,
    /// `zend_memory_peak_usage(1)`
    pub(crate) memory: usize,
}

/// An access log or slow log cannot be opened; in php-fpm's words.
#[derive(Debug, thiserror::Error)]
#[error("failed to open {what} ({}): {}", path.display(), Errno(source))]
pub(crate) struct AccessLogError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Opens an access log, in the supervisor: at its start, and anew at SIGUSR1.
pub(crate) fn open_access_log(path: &Path) -> Result<OwnedFd, AccessLogError> {
    open("access log", path)
}

/// Opens a slow log, likewise.
pub(crate) fn open_slow_log(path: &Path) -> Result<OwnedFd, AccessLogError> {
    open("slow log", path)
}

fn open(what: &'static str, path: &Path) -> Result<OwnedFd, AccessLogError> {
    let fd = super::open(path).map_err(|source| AccessLogError {
        what,
        path: path.to_owned(),
        source,
    })?;
    super::debug(format_args!("open {what} ({})", path.display()));
    Ok(fd)
}

/// CPU time of this thread, and of programs that scripts have run to their end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    user: Duration,
    system: Duration,
}

impl CpuTime {
    /// Up to now.
    pub(crate) fn now() -> Self {
        let (user, system) = sys::cpu_time();
        Self { user, system }
    }

    /// In both modes.
    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }

    /// Since an earlier time on the same thread.
    pub(crate) fn since(self, start: Self) -> Self {
        Self {
            user: self.user.saturating_sub(start.user),
            system: self.system.saturating_sub(start.system),
        }
    }
}

/// An access log as a worker process has it.
#[derive(Debug)]
pub(crate) struct AccessLog {
    format: AccessFormat,
    file: Arc<LogFile>,
    /// `access.suppress_path[]`
    suppressed: Vec<Vec<u8>>,
    pool: String,
    /// For `%P`; php-fpm's master process.
    supervisor: i32,
}

impl AccessLog {
    /// `file` is made of a descriptor that [`open_access_log`] made; whoever has it may replace it.
    pub(crate) fn new(
        format: AccessFormat,
        file: Arc<LogFile>,
        suppressed: &[String],
        pool: &str,
        supervisor: i32,
    ) -> Self {
        Self {
            format,
            file,
            suppressed: suppressed
                .iter()
                .map(|path| path.clone().into_bytes())
                .collect(),
            pool: pool.to_owned(),
            supervisor,
        }
    }

    /// The format, for what it needs.
    pub(crate) fn format(&self) -> &AccessFormat {
        &self.format
    }

    /// Whether the request is not to be logged: a successful GET or HEAD without query or body, of a path that is listed.
    fn suppresses(&self, record: &AccessRecord<'_>) -> bool {
        record.query.is_empty()
            && matches!(record.method, b"GET" | b"HEAD")
            && (200..300).contains(&record.status)
            && record.content_length == 0
            && self.suppressed.iter().any(|path| path == record.uri)
    }
}

/// One PHP thread's way into an access log. Make it after the fork.
#[derive(Debug)]
pub(crate) struct AccessWriter {
    log: Arc<AccessLog>,
    pid: i32,
    buffer: Vec<u8>,
    times: TimeCache,
}

impl AccessWriter {
    /// A writer for this thread.
    pub(crate) fn new(log: Arc<AccessLog>) -> Self {
        Self {
            times: TimeCache::new(log.format.times()),
            log,
            pid: getpid().as_raw_nonzero().get(),
            buffer: Vec::with_capacity(LINE + 1),
        }
    }

    /// Logs a request that has ended, unless its path is suppressed.
    pub(crate) fn write(&mut self, record: &AccessRecord<'_>) {
        if self.log.suppresses(record) {
            return;
        }
        self.buffer.clear();
        let record = &AccessRecord {
            method: cut(record.method, METHOD),
            uri: cut(record.uri, URI),
            query: cut(record.query, QUERY),
            script: cut(record.script, SCRIPT),
            user: cut(record.user, USER),
            ..*record
        };
        let line = format::Line {
            record,
            pool: &self.log.pool,
            pid: self.pid,
            supervisor: self.log.supervisor,
        };
        self.log
            .format
            .append(&line, &mut self.times, &mut self.buffer);
        if self.buffer.is_empty() {
            return;
        }
        if self.buffer.len() > LINE {
            super::notice(format_args!(
                "the log buffer is full ({LINE}). The access log request has been truncated."
            ));
            self.buffer.truncate(LINE);
        }
        self.buffer.push(b'\n');
        self.log.file.write(&self.buffer);
    }
}

fn cut(text: &[u8], length: usize) -> &[u8] {
    &text[..text.len().min(length)]
}

/// What a client sent, without characters that could end a line or work on a terminal.
fn printable(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(u8::is_ascii_control) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len() + 16);
    for byte in text {
        if byte.is_ascii_control() {
            out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        } else {
            out.push(*byte);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests;
