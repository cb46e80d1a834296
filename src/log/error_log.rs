//! The error log of a process: where its lines go, from its start to its end.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use rustix::fs::fstat;
use rustix::stdio::dup2_stderr;
use serde::{Deserialize, Serialize};

use super::file::write_to;
use super::line::{Errno, write_line};
use super::syslog::Syslog;
use super::{Level, LogFile, Settings, open};
use crate::config::{GlobalConfig, LogTarget};
use crate::descriptor::high_fd;

/// Why there is no error log; in php-fpm's words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The file cannot be opened.
    #[error("failed to open error_log ({}): {}", path.display(), Errno(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another system call failed.
    #[error("failed to save original STDERR fd: dup(): {}", Errno(.0))]
    StandardError(#[from] io::Error),
}

/// What a process inherits, as it is handed over. A descriptor goes with it unless lines go to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heritage {
    settings: Settings,
    syslog: Option<(i32, String)>,
    file: bool,
}

/// All of it can be used by several threads at once, and right after a fork.
pub(super) struct ErrorLog {
    level: AtomicU8,
    limit: AtomicUsize,
    buffering: AtomicBool,
    target: AtomicU8,
    launched: AtomicBool,
    file: OnceLock<LogFile>,
    /// What `file` was opened as.
    path: OnceLock<PathBuf>,
    syslog: OnceLock<Syslog>,
    /// Another number of standard error, as it was before the log took its place.
    standard_error: OnceLock<OwnedFd>,
}

impl ErrorLog {
    pub(super) const fn new() -> Self {
        Self {
            level: AtomicU8::new(Level::Notice as u8),
            limit: AtomicUsize::new(1024),
            buffering: AtomicBool::new(true),
            target: AtomicU8::new(STANDARD_ERROR),
            launched: AtomicBool::new(false),
            file: OnceLock::new(),
            path: OnceLock::new(),
            syslog: OnceLock::new(),
            standard_error: OnceLock::new(),
        }
    }

    pub(super) fn init(&self, config: &GlobalConfig) -> Result<(), LogError> {
        self.set_level(config.log_level);
        self.limit.store(config.log_limit, Ordering::Relaxed);
        self.buffering
            .store(config.log_buffering, Ordering::Relaxed);
        if !config.daemonize {
            // A daemon leaves it alone: somebody may wait for its end.
            self.keep_standard_error()?;
        }
        let target = match &config.error_log {
            LogTarget::Stderr => return Ok(()),
            LogTarget::File(path) => {
                let file = LogFile::new(open(path).map_err(|source| LogError::Open {
                    path: path.clone(),
                    source,
                })?);
                // The first one counts: there is one configuration in a process's life.
                let _ = self.path.set(path.clone());
                let _ = self.file.set(file);
                FILE
            }
            LogTarget::Syslog { facility, ident } => {
                let _ = self
                    .syslog
                    .set(Syslog::connect(SYSLOG_SOCKET, *facility, ident));
                SYSLOG
            }
        };
        // Somebody who started it in a terminal to look at is not sent elsewhere, as under php-fpm.
        if config.daemonize || !io::stderr().is_terminal() {
            self.target.store(target, Ordering::Release);
        }
        Ok(())
    }

    pub(super) fn launched(&self) -> io::Result<()> {
        self.take_standard_error()?;
        self.launched.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes descriptor 2 lead to the log.
    fn take_standard_error(&self) -> io::Result<()> {
        match (self.target(), self.file.get()) {
            (FILE, Some(file)) => dup2_stderr(file)?,
            (SYSLOG, _) => dup2_stderr(std::fs::File::options().write(true).open("/dev/null")?)?,
            _ => {}
        }
        Ok(())
    }

    pub(super) fn restore_standard_error(&self) -> io::Result<()> {
        match self.standard_error.get() {
            Some(fd) => Ok(dup2_stderr(fd)?),
            None => Ok(()),
        }
    }

    /// After [`restore_standard_error`](Self::restore_standard_error), if it did lead to the log.
    pub(super) fn take_standard_error_again(&self) -> io::Result<()> {
        if self.launched.load(Ordering::Acquire) {
            self.take_standard_error()?;
        }
        Ok(())
    }

    pub(super) fn reopen(&self) -> Result<(), LogError> {
        if let (Some(file), Some(path)) = (self.file.get(), self.path.get()) {
            let failed = |source| LogError::Open {
                path: path.clone(),
                source,
            };
            file.replace(open(path).map_err(failed)?).map_err(failed)?;
            if self.launched.load(Ordering::Acquire) {
                self.take_standard_error().map_err(failed)?;
            }
        }
        if let Some(syslog) = self.syslog.get() {
            syslog.reconnect();
        }
        Ok(())
    }

    pub(super) fn heritage(&self) -> Heritage {
        Heritage {
            settings: self.settings(),
            syslog: match self.target() {
                SYSLOG => self.syslog.get().map(Syslog::identity),
                _ => None,
            },
            file: self.target() == FILE,
        }
    }

    /// The descriptor that processes below need: none if it is standard error, which they have.
    pub(super) fn descriptor_to_pass(&self) -> Option<BorrowedFd<'_>> {
        match self.target() {
            FILE => self.file.get().map(AsFd::as_fd),
            SYSLOG => self.syslog.get().map(AsFd::as_fd),
            _ => None,
        }
    }

    pub(super) fn inherit(&self, heritage: Heritage, descriptor: Option<OwnedFd>) {
        let settings = heritage.settings;
        self.set_level(settings.level);
        self.limit.store(settings.limit, Ordering::Relaxed);
        self.buffering.store(settings.buffering, Ordering::Relaxed);
        self.launched.store(true, Ordering::Release);
        match (heritage.syslog, descriptor) {
            (Some((facility, ident)), Some(fd)) => {
                let syslog = Syslog::from_socket(fd, SYSLOG_SOCKET, facility, &ident);
                if self.syslog.set(syslog).is_ok() {
                    self.target.store(SYSLOG, Ordering::Release);
                }
            }
            (None, Some(fd)) => {
                let usable = heritage.file && self.file.set(LogFile::new(fd)).is_ok();
                if usable {
                    self.target.store(FILE, Ordering::Release);
                }
            }
            _ => {}
        }
        // Before a worker process's standard error becomes a pipe.
        self.leave_standard_error();
    }

    pub(super) fn adopt(&self, new: OwnedFd) -> io::Result<()> {
        match (self.target(), self.file.get(), self.syslog.get()) {
            (FILE, Some(file), _) => {
                // In the pool process libraries write to it; in worker processes it is something else.
                let tied = is_same_file(rustix::stdio::stderr(), file.as_fd());
                file.replace(new)?;
                if tied {
                    dup2_stderr(file)?;
                }
                Ok(())
            }
            (SYSLOG, _, Some(syslog)) => syslog.replace(new),
            _ => Ok(()),
        }
    }

    pub(super) fn leave_standard_error(&self) -> RawFd {
        // Without a number of its own, 2 has to do.
        let _ = self.keep_standard_error();
        self.descriptor().as_raw_fd()
    }

    fn keep_standard_error(&self) -> io::Result<()> {
        if self.standard_error.get().is_none() {
            let copy = rustix::io::dup(io::stderr())?;
            let _ = self.standard_error.set(high_fd(copy));
        }
        Ok(())
    }

    pub(super) fn set_level(&self, level: Level) {
        self.level.store(level as u8, Ordering::Relaxed);
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            level: match self.level.load(Ordering::Relaxed) {
                0..=1 => Level::Debug,
                2 => Level::Notice,
                3 => Level::Warning,
                4 => Level::Error,
                _ => Level::Alert,
            },
            limit: self.limit.load(Ordering::Relaxed),
            buffering: self.buffering.load(Ordering::Relaxed),
            syslog: self.target() == SYSLOG,
        }
    }

    pub(super) fn write(&self, level: Level, message: &str, place: &Location<'_>) {
        let settings = self.settings();
        let mut lines = Vec::with_capacity(message.len() + 64);
        for line in message.lines() {
            write_line(&mut lines, settings, level, line, place);
        }
        self.write_lines(level, &lines);
        if !self.launched.load(Ordering::Acquire)
            && self.target() != STANDARD_ERROR
            && level >= Level::Notice
        {
            write_to(self.standard_error(), &lines);
        }
    }

    pub(super) fn write_lines(&self, level: Level, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        match self.syslog.get() {
            Some(syslog) if self.target() == SYSLOG => {
                for line in lines.split(|byte| *byte == b'\n') {
                    if !line.is_empty() && !syslog.send(level, line) {
                        self.write_to_console(line);
                    }
                }
            }
            _ => write_to(self.descriptor(), lines),
        }
    }

    /// Where syslog cannot be reached: as openlog(3) with LOG_CONS, but whoever started the server sees it first.
    fn write_to_console(&self, line: &[u8]) {
        let line = [line, b"\n"].concat();
        if let Some(fd) = self.standard_error.get() {
            write_to(fd.as_fd(), &line);
        } else if let Ok(console) = std::fs::File::options().write(true).open("/dev/console") {
            write_to(console.as_fd(), &line);
        }
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match (self.target(), self.file.get(), self.syslog.get()) {
            (FILE, Some(file), _) => file.as_fd(),
            (SYSLOG, _, Some(syslog)) => syslog.as_fd(),
            _ => self.standard_error(),
        }
    }

    fn standard_error(&self) -> BorrowedFd<'_> {
        self.standard_error
            .get()
            .map_or(rustix::stdio::stderr(), AsFd::as_fd)
    }

    /// The stream that `path` is a name of. Standard error is what it was before the log took its place.
    pub(super) fn standard_stream(&self, path: &Path) -> Option<BorrowedFd<'_>> {
        match path.to_str()? {
            "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" => Some(self.standard_error()),
            "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1" => Some(rustix::stdio::stdout()),
            _ => None,
        }
    }

    fn target(&self) -> u8 {
        self.target.load(Ordering::Acquire)
    }
}

fn is_same_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

const STANDARD_ERROR: u8 = 0;
const FILE: u8 = 1;
const SYSLOG: u8 = 2;

const SYSLOG_SOCKET: &str = "/dev/log";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn config(path: &Path) -> GlobalConfig {
        GlobalConfig {
            error_log: LogTarget::File(path.to_owned()),
            ..GlobalConfig::default()
        }
    }

    fn say(log: &ErrorLog, text: &str) {
        log.write(Level::Notice, text, Location::caller());
    }

    /// Lines without their time.
    fn lines(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).expect("a log file");
        text.lines()
            .map(|line| line.split_at("[24-Nov-2026 21:30:00] ".len()).1.to_owned())
            .collect()
    }

    #[test]
    fn several_lines_each_get_a_head() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let log = ErrorLog::new();
        log.init(&config(&path)).expect("opens");
        // So that this test does not write to standard error.
        log.launched.store(true, Ordering::Release);
        say(&log, "one\n[forged] two");
        assert_eq!(lines(&path), ["NOTICE: one", "NOTICE: [forged] two"]);
    }

    #[test]
    fn reopened_log_is_passed_on_and_everybody_writes_to_the_new_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
        let supervisor = ErrorLog::new();
        supervisor.init(&config(&path)).expect("opens");
        let pool = ErrorLog::new();
        let fd = supervisor.descriptor_to_pass().expect("a file");
        let heritage = serde_json::to_vec(&supervisor.heritage()).expect("encodes");
        let heritage = serde_json::from_slice(&heritage).expect("decodes");
        pool.inherit(heritage, Some(fd.try_clone_to_owned().expect("copied")));
        say(&pool, "before");
        let number = pool.leave_standard_error();

        fs::rename(&path, &old).expect("renamed");
        supervisor.reopen().expect("opens");
        say(&pool, "meanwhile");
        let fd = supervisor.descriptor_to_pass().expect("a file");
        pool.adopt(fd.try_clone_to_owned().expect("copied"))
            .expect("replaced");
        say(&pool, "after");

        assert_eq!(pool.leave_standard_error(), number);
        assert_eq!(lines(&old), ["NOTICE: before", "NOTICE: meanwhile"]);
        assert_eq!(lines(&path), ["NOTICE: after"]);
    }

    #[test]
    fn log_that_cannot_be_reopened_stays_in_use() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().join("place");
        fs::create_dir(&place).expect("made");
        let (path, moved) = (place.join("log"), directory.path().join("moved"));
        let log = ErrorLog::new();
        log.init(&config(&path)).expect("opens");
        log.launched.store(true, Ordering::Release);
        fs::rename(&place, &moved).expect("renamed");
        // Not a directory, for root too.
        fs::write(&place, "").expect("written");
        let error = log.reopen().expect_err("nothing to open");
        assert_eq!(
            error.to_string(),
            format!(
                "failed to open error_log ({}): Not a directory (20)",
                path.display()
            )
        );
        say(&log, "still here");
        assert_eq!(lines(&moved.join("log")), ["NOTICE: still here"]);
    }

    #[test]
    fn log_that_cannot_be_opened_is_an_error_in_php_fpms_words() {
        let path = Path::new("/nonexistent/log");
        let error = ErrorLog::new().init(&config(path)).expect_err("no file");
        assert_eq!(
            error.to_string(),
            "failed to open error_log (/nonexistent/log): No such file or directory (2)"
        );
    }

    #[test]
    fn log_without_file_has_nothing_to_pass_and_reopens_nothing() {
        let log = ErrorLog::new();
        log.init(&GlobalConfig::default()).expect("nothing to open");
        assert!(log.descriptor_to_pass().is_none());
        log.reopen().expect("nothing to open");
        let below = ErrorLog::new();
        below.inherit(log.heritage(), None);
        assert_eq!(below.settings(), log.settings());
    }

    #[test]
    fn file_is_known_again_under_another_number() {
        let directory = tempfile::tempdir().expect("a directory");
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        let (first, second) = (open(&one).expect("opens"), open(&one).expect("opens"));
        let other = open(&other).expect("opens");
        assert!(is_same_file(first.as_fd(), second.as_fd()));
        assert!(!is_same_file(first.as_fd(), other.as_fd()));
    }

    #[test]
    fn settings_reach_the_processes_below() {
        let config = GlobalConfig {
            log_level: Level::Error,
            log_limit: 4096,
            log_buffering: false,
            ..GlobalConfig::default()
        };
        let log = ErrorLog::new();
        log.init(&config).expect("nothing to open");
        let below = ErrorLog::new();
        below.inherit(log.heritage(), None);
        let expected = Settings {
            level: Level::Error,
            limit: 4096,
            buffering: false,
            syslog: false,
        };
        assert_eq!(below.settings(), expected);
    }
}
