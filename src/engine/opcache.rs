//! What OPcache is like, and how it is kept from restarting under running threads.
//!
//! `opcache_reset()`, and running out of its memory, make OPcache wait until nobody uses it and then start over. "Nobody"
//! is judged by a POSIX read lock on byte 1 of its lock file (`accel_is_inactive`, ext/opcache/ZendAccelerator.c), which
//! belongs to a process: threads of that process never see each other's. On ZTS the restart would overwrite what other
//! threads run. So somebody holds a read lock for good: an *open file description* lock, on a description of its own,
//! conflicts with POSIX locks of the same process too and is not dropped when any other descriptor of the file is closed. A
//! scheduled restart then stays pending (`opcache.force_restart_timeout=0` sees to it that nobody is killed for it), requests
//! run uncached, and whoever runs the pool replaces the process.

use std::ffi::c_int;
use std::fs;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::{Engine, ffi};
use crate::scoreboard::OpcacheFigures;

/// What has been seen of OPcache at the end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpcacheView {
    /// It is not loaded, or cannot be switched on.
    Absent,
    /// It is there.
    Present {
        /// It waits to restart.
        restart_pending: bool,
        /// What it says of itself.
        figures: OpcacheFigures,
    },
}

impl OpcacheView {
    /// What C has seen; `figures` are what it has written, if it has.
    pub(super) fn new(
        seen: ffi::fe_php_opcache,
        figures: &ffi::fe_php_opcache_figures,
    ) -> Option<Self> {
        let restart_pending = match seen {
            ffi::fe_php_opcache::FE_PHP_OPCACHE_UNSEEN => return None,
            ffi::fe_php_opcache::FE_PHP_OPCACHE_ABSENT => return Some(Self::Absent),
            ffi::fe_php_opcache::FE_PHP_OPCACHE_RUNS => false,
            ffi::fe_php_opcache::FE_PHP_OPCACHE_RESTARTS => true,
        };
        Some(Self::Present {
            restart_pending,
            figures: OpcacheFigures {
                used_memory: figures.used_memory,
                free_memory: figures.free_memory,
                wasted_memory: figures.wasted_memory,
                interned_strings_used_memory: figures.interned_strings_used_memory,
                interned_strings_free_memory: figures.interned_strings_free_memory,
                cached_scripts: figures.cached_scripts,
                cached_keys: figures.cached_keys,
                max_cached_keys: figures.max_cached_keys,
                hits: figures.hits,
                misses: figures.misses,
                oom_restarts: figures.oom_restarts,
                hash_restarts: figures.hash_restarts,
                manual_restarts: figures.manual_restarts,
            },
        })
    }
}

/// Holds the lock until it is dropped; forked children hold it too.
#[derive(Debug)]
pub(crate) struct RestartGuard {
    _lock: File,
}

impl RestartGuard {
    /// Takes the lock. `Ok(None)` when it is not needed: NTS, or no OPcache memory.
    ///
    /// # Errors
    /// The system's, when the lock file cannot be opened or locked.
    pub(crate) fn hold(_engine: &Engine) -> io::Result<Option<Self>> {
        if !cfg!(php_zts) {
            return Ok(None);
        }
        match lock_file()? {
            Some(path) => lock(&path).map(|file| Some(Self { _lock: file })),
            None => Ok(None),
        }
    }
}

/// OPcache's lock file among this process's descriptors: a memfd named `opcache_lock`, or a deleted temporary file.
fn lock_file() -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        if let Ok(target) = fs::read_link(&path) {
            let target = target.to_string_lossy();
            if target.starts_with("/memfd:opcache_lock") || target.contains("/.ZendSem.") {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

fn lock(path: &Path) -> io::Result<File> {
    // Opening it through /proc makes a description of our own.
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let request = libc::flock {
        l_type: read_lock_type(),
        l_whence: 0,
        l_start: 1,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and the struct is valid for the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), F_OFD_SETLK, &raw const request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

fn read_lock_type() -> libc::c_short {
    libc::c_short::try_from(libc::F_RDLCK).unwrap_or_default()
}

const F_OFD_SETLK: c_int = libc::F_OFD_SETLK;
