//! Whether a path names something, with a short memory for paths that did.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{Metadata, metadata};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

/// PHP's limit on the length of a path (`MAXPATHLEN - 1`), less than which Linux takes too.
pub(super) const MAX_PATH: usize = 4095;

/// Whether `path` names a file or a directory; one that did less than `trust` ago is taken to do so still.
pub(super) fn exists(path: &[u8], trust: Duration) -> bool {
    if trust.is_zero() {
        return stat(path).is_some();
    }
    RECENT.with_borrow_mut(|recent| {
        let now = Instant::now();
        if recent
            .get(path)
            .is_some_and(|&seen| now.duration_since(seen) < trust)
        {
            return true;
        }
        let exists = stat(path).is_some();
        if exists {
            recent.insert(path.into(), now);
            if recent.len() > REMEMBERED {
                recent.clear();
            }
        } else {
            recent.remove(path);
        }
        exists
    })
}

/// Whether `path` names a regular file, now.
pub(super) fn is_regular_file(path: &[u8]) -> bool {
    stat(path).is_some_and(|found| found.is_file())
}

fn stat(path: &[u8]) -> Option<Metadata> {
    if path.is_empty() || path.len() >= MAX_PATH {
        None
    } else {
        metadata(OsStr::from_bytes(path)).ok()
    }
}

/// So many paths, each no longer than [`MAX_PATH`], keep the memory below a megabyte.
const REMEMBERED: usize = 200;

thread_local! {
    /// Paths that named something, and when that was seen.
    static RECENT: RefCell<HashMap<Box<[u8]>, Instant>> = RefCell::default();
}
