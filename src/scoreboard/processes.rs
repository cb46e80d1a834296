//! `process.max`: how many worker processes all pools have together, in memory that the supervisor makes and all pool processes
//! share. Worker processes have no part in it.
//!
//! A pool has one word, with the generation that writes to it in one half and the number of its worker processes in the other.
//! A generation that takes over from another begins again at 0, and what the older one does is no longer counted: it is about
//! to end, and its successor could not start if it had to wait for that. After a reload all begin anew, for the same reason.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The mapped memory.
pub(crate) struct ProcessCount {
    memory: NonNull<AtomicU64>,
    words: usize,
}

impl ProcessCount {
    /// For so many pools, and the memfd by which pool processes [`open`](Self::open) it.
    pub(crate) fn create(pools: usize) -> io::Result<(Self, OwnedFd)> {
        let fd = memfd_create(
            "fe-php-processes",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        let words = pools + FIRST_POOL;
        ftruncate(&fd, (words * size_of::<AtomicU64>()) as u64)?;
        // A process that shortened the file would kill all others with SIGBUS.
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok((Self::map(&fd, words)?, fd))
    }

    /// Maps what another process has created.
    pub(crate) fn open(fd: impl AsFd) -> io::Result<Self> {
        let bytes = usize::try_from(fstat(&fd)?.st_size).unwrap_or(0);
        let words = bytes / size_of::<AtomicU64>();
        if words < FIRST_POOL {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Self::map(fd, words)
    }

    fn map(fd: impl AsFd, words: usize) -> io::Result<Self> {
        // SAFETY: the address is the kernel's choice, so no existing mapping is touched.
        let memory = unsafe {
            mmap(
                ptr::null_mut(),
                words * size_of::<AtomicU64>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        let memory = NonNull::new(memory.cast())
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self { memory, words })
    }

    /// A generation of a pool is gone, and its worker processes with it.
    pub(crate) fn forget(&self, pool: usize, generation: u32) {
        if let Some(word) = self.pools().get(pool) {
            update(word, |word| (word.0 == generation).then_some((word.0, 0)));
        }
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is `words` long, page-aligned, valid for any bytes (atomics), and lives until drop.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.words) }
    }

    fn pools(&self) -> &[AtomicU64] {
        &self.words()[FIRST_POOL..]
    }

    fn total(&self) -> u64 {
        let counts = self.pools().iter();
        counts
            .map(|word| u64::from(halves(word.load(Ordering::SeqCst)).1))
            .sum()
    }
}

impl Drop for ProcessCount {
    fn drop(&mut self) {
        let bytes = self.words * size_of::<AtomicU64>();
        // SAFETY: this is the whole mapping that `map` made, and no reference outlives `self`.
        // It cannot fail on a mapping that exists.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), bytes) };
    }
}

// SAFETY: the memory holds atomics only and belongs to no thread.
unsafe impl Send for ProcessCount {}
// SAFETY: as above.
unsafe impl Sync for ProcessCount {}

impl fmt::Debug for ProcessCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessCount")
            .field("total", &self.total())
            .finish_non_exhaustive()
    }
}

/// The part that one generation of a pool has in it.
#[derive(Debug)]
pub(crate) struct ProcessShare {
    count: Arc<ProcessCount>,
    pool: usize,
    generation: u32,
    /// `process.max`
    limit: u32,
}

impl ProcessShare {
    /// Nothing is counted yet; nor is what an older generation of the pool has, from now on.
    pub(crate) fn new(count: Arc<ProcessCount>, pool: usize, generation: u32, limit: u32) -> Self {
        if let Some(word) = count.pools().get(pool) {
            update(word, |word| {
                (word.0 < generation).then_some((generation, 0))
            });
        }
        Self {
            count,
            pool,
            generation,
            limit,
        }
    }

    /// Counts a worker process that is about to be forked; false, and nothing counted, if there are as many as there may be.
    #[must_use]
    pub(crate) fn add(&self) -> bool {
        if !self.change(|count| count.saturating_add(1)) {
            return true; // a newer generation takes over
        }
        if self.count.total() <= u64::from(self.limit) {
            self.count.words()[WARNED].store(0, Ordering::Relaxed);
            return true;
        }
        self.remove();
        false
    }

    /// A worker process has ended.
    pub(crate) fn remove(&self) {
        self.change(|count| count.saturating_sub(1));
    }

    /// Whether the caller is to say that there are as many as there may be: once, until there have been less.
    pub(crate) fn is_to_warn(&self) -> bool {
        self.count.words()[WARNED].swap(1, Ordering::Relaxed) == 0
    }

    /// False if this generation does not count any more.
    fn change(&self, change: impl Fn(u32) -> u32) -> bool {
        let Some(word) = self.count.pools().get(self.pool) else {
            return false;
        };
        update(word, |(generation, count)| {
            (generation == self.generation).then(|| (generation, change(count)))
        })
    }
}

/// Generation and number of processes.
type Halves = (u32, u32);

fn halves(word: u64) -> Halves {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
    (half(word >> 32), half(word))
}

/// Whether `change` wanted to change it.
fn update(word: &AtomicU64, change: impl Fn(Halves) -> Option<Halves>) -> bool {
    let change = |word| {
        let (generation, count) = change(halves(word))?;
        Some(u64::from(generation) << 32 | u64::from(count))
    };
    word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change)
        .is_ok()
}

/// The word that says whether the limit has been reached and said.
const WARNED: usize = 0;
/// The first pool's.
const FIRST_POOL: usize = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pools_together_have_as_many_as_the_limit_says() {
        let (_ours, fd) = ProcessCount::create(2).expect("memfd");
        let open = || Arc::new(ProcessCount::open(&fd).expect("ours"));
        let (one, two) = (
            ProcessShare::new(open(), 0, 1, 3),
            ProcessShare::new(open(), 1, 1, 3),
        );
        assert!(one.add() && one.add() && two.add());
        assert!(!two.add() && !one.add());
        assert!(two.is_to_warn(), "the first time");
        assert!(!one.is_to_warn(), "it has been said");
        one.remove();
        assert!(two.add());
        assert!(!two.add());
        assert!(two.is_to_warn(), "there were less");
    }

    #[test]
    fn a_new_generation_does_not_wait_for_the_old_one() {
        let (ours, _fd) = ProcessCount::create(1).expect("memfd");
        let ours = Arc::new(ours);
        let old = ProcessShare::new(Arc::clone(&ours), 0, 1, 2);
        assert!(old.add() && old.add());
        let new = ProcessShare::new(Arc::clone(&ours), 0, 2, 2);
        assert!(new.add());
        // What becomes of the old one's changes nothing.
        old.remove();
        old.remove();
        assert!(old.add());
        ours.forget(0, 1);
        assert!(new.add());
        assert!(!new.add());
        ours.forget(0, 2);
        assert!(new.add());
    }
}
