//! What PHP and its extensions say on standard error while they start.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, getpid};

use super::fork::at_exit;
use crate::config::PoolConfig;
use crate::descriptor::high_fd;
use crate::log;

/// Standard error while PHP starts: with `catch_workers_output`, what extensions say there belongs into the log.
struct HeldStderr {
    original: OwnedFd,
    memory: File,
    config: PoolConfig,
    pid: Pid,
}

/// Here rather than with the caller, for when PHP ends the process.
static HELD: Mutex<Option<HeldStderr>> = Mutex::new(None);

/// Holds standard error until [`release_stderr`], unless it is not to be caught, or cannot be.
///
/// OPcache says that it cannot make its lock file, and then calls exit(): what is held then is logged.
pub(super) fn hold_stderr(config: &PoolConfig) {
    if !config.catch_workers_output || !at_exit(log_last_words) {
        return;
    }
    if let (Some(held), Ok(mut place)) = (HeldStderr::hold(config), HELD.lock()) {
        *place = Some(held);
    }
}

/// What was said there; from now on it leads where it did.
pub(super) fn release_stderr() -> Vec<u8> {
    let held = HELD.lock().ok().and_then(|mut place| place.take());
    held.map(HeldStderr::release).unwrap_or_default()
}

extern "C" fn log_last_words() {
    let held = HELD.lock().ok().and_then(|mut place| place.take());
    // Not in a process that an extension has forked.
    if let Some(held) = held.filter(|held| held.pid == getpid()) {
        let config = held.config.clone();
        log_words(&config, &held.release());
    }
}

impl HeldStderr {
    fn hold(config: &PoolConfig) -> Option<Self> {
        let memory = memfd_create("fe-php-stderr", MemfdFlags::CLOEXEC).ok()?;
        let held = Self {
            original: high_fd(rustix::io::dup(rustix::stdio::stderr()).ok()?),
            memory: high_fd(memory).into(),
            config: config.clone(),
            pid: getpid(),
        };
        rustix::stdio::dup2_stderr(&held.memory).ok()?;
        Some(held)
    }

    fn release(mut self) -> Vec<u8> {
        let mut words = Vec::new();
        // It cannot fail on open descriptors; without the words PHP serves all the same.
        let _ = rustix::stdio::dup2_stderr(&self.original);
        let _ = self
            .memory
            .rewind()
            .and_then(|()| self.memory.read_to_end(&mut words));
        words
    }
}

/// As [`WorkerPipes`](crate::log::WorkerPipes) does it for worker processes.
pub(super) fn log_words(config: &PoolConfig, words: &[u8]) {
    for line in String::from_utf8_lossy(words).lines() {
        if !config.decorate_workers_output {
            log::write_lines(log::Level::Warning, format!("{line}\n").as_bytes());
            continue;
        }
        log::warning(format_args!(
            "[pool {}] child {} said into stderr: \"{line}\"",
            config.name,
            getpid()
        ));
    }
}
