//! What PHP and its extensions say on standard error while they start.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::getpid;

use crate::config::PoolConfig;
use crate::descriptor::high_fd;
use crate::log;

/// Standard error while PHP starts: with `catch_workers_output`, what extensions say there belongs into the log.
pub(super) struct HeldStderr {
    original: OwnedFd,
    memory: File,
}

/// None if it is not to be caught, or cannot be.
pub(super) fn hold_stderr(config: &PoolConfig) -> Option<HeldStderr> {
    if !config.catch_workers_output {
        return None;
    }
    let memory = memfd_create("fe-php-stderr", MemfdFlags::CLOEXEC).ok()?;
    let held = HeldStderr {
        original: high_fd(rustix::io::dup(rustix::stdio::stderr()).ok()?),
        memory: high_fd(memory).into(),
    };
    rustix::stdio::dup2_stderr(&held.memory).ok()?;
    Some(held)
}

impl HeldStderr {
    /// What was said there; from now on it leads where it did.
    pub(super) fn release(mut self) -> Vec<u8> {
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
