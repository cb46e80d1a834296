//! The scoreboard: a pool's numbers in shared memory, mapped by the supervisor, pool processes and worker processes.
//!
//! One memfd holds a `Header` for the pool and a `Cells` of 128 bytes (two cache lines, since processors fetch them
//! in pairs) for each worker process. All of it is atomics; whoever is killed at whatever point leaves a slot that the
//! process which reaps it can still settle ([`Scoreboard::release`]). Totals (requests, accepted connections) are counted
//! in the slot of the worker process, which nobody else writes to, and moved to the header when the slot is released;
//! only what has a limit across the pool (connections, queued requests) is counted in the header as it happens.
//!
//! # Lifecycle
//!
//! ```text
//! claim (worker process, after fork) → Starting → Serving ⇄ running requests → Draining → exit → release (who reaped it)
//! ```

use std::fmt;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The mapped memory of one pool.
pub(crate) struct Scoreboard {
    memory: NonNull<Header>,
    bytes: usize,
    capacity: usize,
}

impl Scoreboard {
    /// A new scoreboard with room for `capacity` worker processes, and the memfd by which other processes
    /// [`open`](Self::open) it.
    pub(crate) fn create(capacity: u32) -> io::Result<(Self, OwnedFd)> {
        let fd = memfd_create(
            "fe-php-scoreboard",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        let bytes = size_of::<Header>() + capacity as usize * size_of::<Cells>();
        ftruncate(&fd, bytes as u64)?;
        // A process that shortened the file would kill all others with SIGBUS.
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let mut scoreboard = Self::map(&fd, bytes)?;
        let header = scoreboard.header();
        header.capacity.store(capacity, Ordering::Relaxed);
        header
            .started_at
            .store(microseconds_now(), Ordering::Relaxed);
        header.layout.store(LAYOUT, Ordering::Release);
        scoreboard.capacity = capacity as usize;
        Ok((scoreboard, fd))
    }

    /// Maps a scoreboard that another process has created. Fails if it has another layout, as that of a process of
    /// another version may.
    pub(crate) fn open(fd: impl AsFd) -> io::Result<Self> {
        let bytes = usize::try_from(fstat(&fd)?.st_size).unwrap_or(0);
        if bytes < size_of::<Header>() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a scoreboard",
            ));
        }
        let mut scoreboard = Self::map(&fd, bytes)?;
        let capacity = scoreboard.header().capacity.load(Ordering::Relaxed) as usize;
        let known = scoreboard.header().layout.load(Ordering::Acquire) == LAYOUT;
        if !known || bytes != size_of::<Header>() + capacity * size_of::<Cells>() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "scoreboard of another version",
            ));
        }
        scoreboard.capacity = capacity;
        Ok(scoreboard)
    }

    fn map(fd: impl AsFd, bytes: usize) -> io::Result<Self> {
        // SAFETY: the address is the kernel's choice, so no existing mapping is touched.
        let memory = unsafe {
            mmap(
                ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        let memory = NonNull::new(memory.cast())
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self {
            memory,
            bytes,
            capacity: 0,
        })
    }

    /// Takes a free slot for the process `pid`, which is the caller or its child. `threads` is the number of PHP workers
    /// (threads) that it has. None if all slots are taken.
    pub(crate) fn claim(self: &Arc<Self>, pid: u32, generation: u32, threads: u32) -> Option<Slot> {
        let index = self.cells().iter().position(|cells| {
            cells
                .pid
                .compare_exchange(0, pid, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        })?;
        let cells = &self.cells()[index];
        cells.generation.store(generation, Ordering::Relaxed);
        cells.threads.store(threads, Ordering::Relaxed);
        cells
            .started_at
            .store(microseconds_now(), Ordering::Relaxed);
        cells.state.store(State::Starting as u32, Ordering::Release);
        let used = u32::try_from(index + 1).unwrap_or(u32::MAX);
        self.header().used.fetch_max(used, Ordering::Release);
        Some(Slot {
            scoreboard: Arc::clone(self),
            index,
        })
    }

    /// Frees the slot of a process that has been reaped, settles the pool's counters, and tells what died with it. None
    /// if it had no slot.
    pub(crate) fn release(&self, pid: u32) -> Option<Lost> {
        let cells = self
            .used_cells()
            .iter()
            .find(|cells| cells.pid.load(Ordering::Acquire) == pid)?;
        let header = self.header();
        cells.state.store(State::Free as u32, Ordering::Relaxed);
        let lost = Lost {
            running: cells.running.swap(0, Ordering::Relaxed),
            queued: cells.queued.swap(0, Ordering::Relaxed),
            connections: cells.connections.swap(0, Ordering::Relaxed),
            requests: cells.requests.swap(0, Ordering::Relaxed),
        };
        subtract(&header.connections, lost.connections);
        subtract(&header.queued, lost.queued);
        header
            .past_requests
            .fetch_add(lost.requests, Ordering::Relaxed);
        header
            .past_accepted
            .fetch_add(cells.accepted.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        cells.pid.store(0, Ordering::Release);
        Some(lost)
    }

    /// PHP workers that could run a request this moment: of worker processes that serve and do not drain, threads that
    /// run nothing. Reads one pair of cache lines for each worker process.
    pub(crate) fn idle_workers(&self) -> u32 {
        self.used_cells()
            .iter()
            .filter(|cells| cells.state.load(Ordering::Relaxed) == State::Serving as u32)
            .map(|cells| {
                cells
                    .threads
                    .load(Ordering::Relaxed)
                    .saturating_sub(cells.running.load(Ordering::Relaxed))
            })
            .sum()
    }

    /// Connections that the pool's processes have open.
    pub(crate) fn connections(&self) -> u32 {
        load(&self.header().connections)
    }

    /// Whether a worker process that serves has less than `limit` connections.
    pub(crate) fn has_process_below(&self, limit: u32) -> bool {
        self.used_cells().iter().any(|cells| {
            cells.state.load(Ordering::Relaxed) == State::Serving as u32
                && cells.connections.load(Ordering::Relaxed) < limit
        })
    }

    /// Requests of the pool that wait for a worker.
    pub(crate) fn queued(&self) -> u32 {
        load(&self.header().queued)
    }

    /// What the worker process `pid` does; none if it has no slot.
    pub(crate) fn process(&self, pid: u32) -> Option<ProcessView> {
        let cells = self
            .used_cells()
            .iter()
            .find(|cells| cells.pid.load(Ordering::Acquire) == pid)?;
        Some(ProcessView {
            serving: cells.state.load(Ordering::Relaxed) == State::Serving as u32,
            running: cells.running.load(Ordering::Relaxed),
            requests: cells.requests.load(Ordering::Relaxed),
        })
    }

    /// Counts that `pm.max_children` has kept the pool from growing.
    pub(crate) fn count_max_children_reached(&self) {
        self.header()
            .max_children_reached
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Worker processes that it has room for.
    pub(crate) fn capacity(&self) -> u32 {
        u32::try_from(self.capacity).unwrap_or(u32::MAX)
    }

    /// Whether no process has a slot.
    pub(crate) fn is_empty(&self) -> bool {
        self.used_cells()
            .iter()
            .all(|cells| cells.pid.load(Ordering::Acquire) == 0)
    }

    /// The pool's numbers.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let header = self.header();
        let mut snapshot = Snapshot {
            started_at: time(header.started_at.load(Ordering::Relaxed)),
            connections: load(&header.connections),
            queued: load(&header.queued),
            running: 0,
            accepted: header.past_accepted.load(Ordering::Relaxed),
            requests: header.past_requests.load(Ordering::Relaxed),
            crashes: header.crashes.load(Ordering::Relaxed),
            restarts: header.restarts.load(Ordering::Relaxed),
            lost_requests: header.lost_requests.load(Ordering::Relaxed),
            lost_connections: header.lost_connections.load(Ordering::Relaxed),
        };
        for cells in self.used_cells() {
            snapshot.running += cells.running.load(Ordering::Relaxed);
            snapshot.accepted += cells.accepted.load(Ordering::Relaxed);
            snapshot.requests += cells.requests.load(Ordering::Relaxed);
        }
        snapshot
    }

    /// Counts a worker process that died of itself, with what died with it.
    pub(crate) fn count_crash(&self, lost: Lost) {
        let header = self.header();
        header.crashes.fetch_add(1, Ordering::Relaxed);
        header
            .lost_requests
            .fetch_add(u64::from(lost.running + lost.queued), Ordering::Relaxed);
        header
            .lost_connections
            .fetch_add(u64::from(lost.connections), Ordering::Relaxed);
    }

    /// Counts a worker process that was started in place of one that ended.
    pub(crate) fn count_restart(&self) {
        self.header().restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// Says that this generation serves, so that older ones have a successor.
    pub(crate) fn set_serving_generation(&self, generation: u32) {
        self.header()
            .generation
            .fetch_max(generation, Ordering::Release);
    }

    /// Says that the whole pool stops: nobody has a successor any more.
    pub(crate) fn set_stopping(&self) {
        self.header().stopping.store(1, Ordering::Release);
    }

    /// Whether the whole pool stops.
    pub(crate) fn is_stopping(&self) -> bool {
        self.header().stopping.load(Ordering::Acquire) != 0
    }

    /// Whether connections of a worker process of `generation` have somebody to go to when it drains.
    pub(crate) fn has_successor(&self, generation: u32) -> bool {
        !self.is_stopping() && self.header().generation.load(Ordering::Acquire) > generation
    }

    fn header(&self) -> &Header {
        // SAFETY: the mapping is as long as a header at least, page-aligned, valid for any bytes (atomics), and lives
        // until drop.
        unsafe { self.memory.as_ref() }
    }

    fn cells(&self) -> &[Cells] {
        // SAFETY: `map` made the mapping one header and `capacity` cells long, so this stays inside it.
        let first = unsafe { self.memory.add(1) }.cast::<Cells>();
        // SAFETY: as above; cells are atomics, so shared references may alias other processes' writes, and the mapping
        // lives until drop.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), self.capacity) }
    }

    fn used_cells(&self) -> &[Cells] {
        let used = self.header().used.load(Ordering::Acquire) as usize;
        &self.cells()[..used.min(self.capacity)]
    }
}

impl Drop for Scoreboard {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping that `map` made, and no reference outlives `self`.
        // It cannot fail on a mapping that exists.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), self.bytes) };
    }
}

// SAFETY: the memory holds atomics only and belongs to no thread.
unsafe impl Send for Scoreboard {}
// SAFETY: as above.
unsafe impl Sync for Scoreboard {}

impl fmt::Debug for Scoreboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scoreboard")
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// One worker process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessView {
    /// It takes requests.
    pub(crate) serving: bool,
    /// Requests that it runs.
    pub(crate) running: u32,
    /// Requests that it has run.
    pub(crate) requests: u64,
}

/// A worker process's own slot; cheap to clone, usable from all its threads.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    scoreboard: Arc<Scoreboard>,
    index: usize,
}

impl Slot {
    /// Requests may come. (`WorkerProcess::serving` says it to the pool process too.)
    pub(crate) fn set_serving(&self) {
        self.cells()
            .state
            .store(State::Serving as u32, Ordering::Release);
    }

    /// No new request will be taken.
    pub(crate) fn set_draining(&self) {
        self.cells()
            .state
            .store(State::Draining as u32, Ordering::Release);
    }

    /// A PHP worker of this process starts a request: on NTS, the slot goes from Idle to Running.
    pub(crate) fn request_started(&self) {
        self.cells().running.fetch_add(1, Ordering::Relaxed);
    }

    /// A PHP worker of this process is done with a request.
    pub(crate) fn request_finished(&self) {
        let cells = self.cells();
        cells.requests.fetch_add(1, Ordering::Relaxed);
        let running = cells.running.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(running > 0, "request_finished without request_started");
    }

    /// Counts a connection that was just accepted; false, and nothing counted but the attempt, if the pool has `limit`
    /// connections already.
    #[must_use]
    pub(crate) fn add_connection(&self, limit: u32) -> bool {
        self.cells().accepted.fetch_add(1, Ordering::Relaxed);
        add_below(
            &self.scoreboard.header().connections,
            &self.cells().connections,
            limit,
        )
    }

    /// Connections that this process has open.
    pub(crate) fn connections(&self) -> u32 {
        self.cells().connections.load(Ordering::Relaxed)
    }

    /// A connection of this process was closed.
    pub(crate) fn connection_closed(&self) {
        remove(
            &self.scoreboard.header().connections,
            &self.cells().connections,
        );
    }

    /// A connection is about to be passed to a sibling: it stays one of the pool's. On failure take it back with
    /// [`connection_taken_over`](Self::connection_taken_over).
    pub(crate) fn connection_handed_over(&self) {
        let connections = self.cells().connections.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(connections > 0, "a connection that was never counted");
    }

    /// A connection came from a sibling.
    pub(crate) fn connection_taken_over(&self) {
        self.cells().connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that waits for a PHP worker; false, and nothing counted, if `limit` requests of the pool wait
    /// already.
    #[must_use]
    pub(crate) fn add_queued(&self, limit: u32) -> bool {
        add_below(
            &self.scoreboard.header().queued,
            &self.cells().queued,
            limit,
        )
    }

    /// A request waits no more: it runs, was passed on, or was dropped.
    pub(crate) fn remove_queued(&self) {
        remove(&self.scoreboard.header().queued, &self.cells().queued);
    }

    /// A queued request went into the hand-over channel: it stays one of the pool's.
    pub(crate) fn request_handed_over(&self) {
        self.cells().queued.fetch_sub(1, Ordering::Relaxed);
    }

    /// A queued request came out of the hand-over channel.
    pub(crate) fn request_taken_over(&self) {
        self.cells().queued.fetch_add(1, Ordering::Relaxed);
    }

    fn cells(&self) -> &Cells {
        &self.scoreboard.cells()[self.index]
    }
}

/// What a worker process does, from its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum State {
    /// Nobody's slot.
    Free = 0,
    /// Forked, not serving yet.
    Starting = 1,
    /// Serves: Idle or Running, as `running` says.
    Serving = 2,
    /// Finishes what runs and takes nothing new.
    Draining = 3,
}

/// What died with a worker process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Requests that were running.
    pub(crate) running: u32,
    /// Requests that waited.
    pub(crate) queued: u32,
    /// Connections that it owned.
    pub(crate) connections: u32,
    /// Requests that it had finished; these are not lost.
    pub(crate) requests: u64,
}

impl Lost {
    /// Whether anybody noticed.
    pub(crate) fn is_empty(&self) -> bool {
        self.running == 0 && self.queued == 0 && self.connections == 0
    }
}

impl std::ops::AddAssign for Lost {
    fn add_assign(&mut self, other: Self) {
        self.running += other.running;
        self.queued += other.queued;
        self.connections += other.connections;
        self.requests += other.requests;
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            running,
            queued,
            connections,
            ..
        } = self;
        write!(
            f,
            "{running} running and {queued} waiting request(s), {connections} connection(s)"
        )
    }
}

/// A pool's numbers at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot {
    /// When the pool was started.
    pub(crate) started_at: SystemTime,
    /// Open connections.
    pub(crate) connections: u32,
    /// Requests that wait for a PHP worker.
    pub(crate) queued: u32,
    /// Requests that run.
    pub(crate) running: u32,
    /// Connections accepted since the start.
    pub(crate) accepted: u64,
    /// Requests finished since the start.
    pub(crate) requests: u64,
    /// Worker processes that died of themselves.
    pub(crate) crashes: u64,
    /// Worker processes started in place of others.
    pub(crate) restarts: u64,
    /// Requests that died with worker processes.
    pub(crate) lost_requests: u64,
    /// Connections that died with worker processes.
    pub(crate) lost_connections: u64,
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uptime = self.started_at.elapsed().unwrap_or_default().as_secs();
        write!(
            f,
            "{uptime} s up; {} connection(s) accepted, {} open; {} request(s) finished, {} running, {} waiting; \
             {} worker process(es) crashed with {} request(s) and {} connection(s), {} replaced",
            self.accepted,
            self.connections,
            self.requests,
            self.running,
            self.queued,
            self.crashes,
            self.lost_requests,
            self.lost_connections,
            self.restarts
        )
    }
}

/// The pool's part of the memory. Each member group is alone on its cache lines: what all worker processes write to must
/// not slow down what they read.
#[repr(C)]
struct Header {
    layout: AtomicU32,
    capacity: AtomicU32,
    /// Slots at and above this were never claimed.
    used: AtomicU32,
    /// The newest generation that serves.
    generation: AtomicU32,
    stopping: AtomicU32,
    started_at: AtomicU64,
    crashes: AtomicU64,
    restarts: AtomicU64,
    lost_requests: AtomicU64,
    lost_connections: AtomicU64,
    max_children_reached: AtomicU64,
    /// Totals of released slots.
    past_requests: AtomicU64,
    past_accepted: AtomicU64,
    connections: Aligned<AtomicI32>,
    queued: Aligned<AtomicI32>,
}

/// One worker process's part of the memory; only that process writes to it, until it is dead.
#[repr(C, align(128))]
struct Cells {
    pid: AtomicU32,
    generation: AtomicU32,
    state: AtomicU32,
    threads: AtomicU32,
    running: AtomicU32,
    connections: AtomicU32,
    queued: AtomicU32,
    requests: AtomicU64,
    accepted: AtomicU64,
    started_at: AtomicU64,
}

/// A value on cache lines of its own.
#[repr(C, align(128))]
struct Aligned<T>(T);

impl<T> std::ops::Deref for Aligned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Counts one more, unless the pool has `limit`. The pool's counter is signed, and what is compared: a process that is
/// killed between two of these steps may leave it off by one, in either direction, which must not become four billion.
fn add_below(pool: &AtomicI32, own: &AtomicU32, limit: u32) -> bool {
    own.fetch_add(1, Ordering::Relaxed);
    if i64::from(pool.fetch_add(1, Ordering::Relaxed)) >= i64::from(limit) {
        remove(pool, own);
        return false;
    }
    true
}

fn remove(pool: &AtomicI32, own: &AtomicU32) {
    pool.fetch_sub(1, Ordering::Relaxed);
    let before = own.fetch_sub(1, Ordering::Relaxed);
    debug_assert!(before > 0, "removed what was never added");
}

fn subtract(pool: &AtomicI32, amount: u32) {
    pool.fetch_sub(i32::try_from(amount).unwrap_or(0), Ordering::Relaxed);
}

fn load(pool: &AtomicI32) -> u32 {
    u32::try_from(pool.load(Ordering::Relaxed)).unwrap_or(0)
}

fn microseconds_now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn time(microseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(microseconds)
}

/// Changes whenever [`Header`] or [`Cells`] do.
const LAYOUT: u32 = 0xfe_0001;

const _: () = assert!(size_of::<Cells>() == 128, "a slot is two cache lines");
const _: () = assert!(
    size_of::<Header>().is_multiple_of(128),
    "slots begin on a cache line"
);

#[cfg(test)]
mod tests {
    use super::*;

    fn scoreboard(capacity: u32) -> (Arc<Scoreboard>, Arc<Scoreboard>) {
        let (first, fd) = Scoreboard::create(capacity).expect("memfd");
        let second = Scoreboard::open(&fd).expect("same layout");
        (Arc::new(first), Arc::new(second))
    }

    #[test]
    fn slots_are_claimed_once_and_reused() {
        let (ours, theirs) = scoreboard(2);
        let first = ours.claim(11, 1, 1).expect("free");
        let second = theirs.claim(12, 1, 1).expect("free");
        assert!(ours.claim(13, 1, 1).is_none());
        assert_ne!(first.index, second.index);
        assert_eq!(ours.release(11), Some(Lost::default()));
        assert_eq!(ours.release(11), None);
        assert_eq!(
            theirs.claim(13, 2, 1).expect("free again").index,
            first.index
        );
        assert!(!ours.is_empty());
        assert!(ours.release(12).is_some() && ours.release(13).is_some());
        assert!(theirs.is_empty());
    }

    #[test]
    fn idle_workers_are_those_of_serving_processes() {
        let (ours, theirs) = scoreboard(8);
        let slot = ours.claim(11, 1, 4).expect("free");
        assert_eq!(theirs.idle_workers(), 0);
        slot.set_serving();
        assert_eq!(theirs.idle_workers(), 4);
        slot.request_started();
        assert_eq!(theirs.idle_workers(), 3);
        slot.request_finished();
        assert_eq!(theirs.idle_workers(), 4);
        slot.set_draining();
        assert_eq!(theirs.idle_workers(), 0);
    }

    #[test]
    fn death_settles_counters_and_keeps_totals() {
        let (ours, theirs) = scoreboard(8);
        let slot = theirs.claim(11, 1, 1).expect("free");
        let other = theirs.claim(12, 1, 1).expect("free");
        assert!(slot.add_connection(3) && slot.add_connection(3) && other.add_connection(3));
        assert!(!other.add_connection(3));
        assert!(slot.add_queued(1) && !other.add_queued(1));
        slot.request_started();
        slot.request_finished();
        slot.request_started();
        let lost = ours.release(11).expect("has a slot");
        assert_eq!(
            lost,
            Lost {
                running: 1,
                queued: 1,
                connections: 2,
                requests: 1
            }
        );
        let snapshot = ours.snapshot();
        assert_eq!(
            (snapshot.connections, snapshot.queued, snapshot.running),
            (1, 0, 0)
        );
        assert_eq!((snapshot.accepted, snapshot.requests), (4, 1));
        assert!(other.add_connection(3) && other.add_queued(1));
    }

    #[test]
    fn connection_that_is_handed_over_stays_counted() {
        let (ours, theirs) = scoreboard(8);
        let (from, to) = (
            ours.claim(11, 1, 1).expect("free"),
            theirs.claim(12, 1, 1).expect("free"),
        );
        assert!(from.add_connection(1));
        from.connection_handed_over();
        assert_eq!(ours.release(11).expect("has a slot").connections, 0);
        assert!(!to.add_connection(1));
        to.connection_taken_over();
        to.connection_closed();
        assert_eq!(
            (
                ours.snapshot().connections,
                to.cells().connections.load(Ordering::Relaxed)
            ),
            (0, 0)
        );
    }

    #[test]
    fn successor_is_a_newer_generation_unless_the_pool_stops() {
        let (ours, theirs) = scoreboard(1);
        assert!(!theirs.has_successor(1));
        ours.set_serving_generation(1);
        assert!(!theirs.has_successor(1));
        ours.set_serving_generation(2);
        assert!(theirs.has_successor(1) && !theirs.has_successor(2));
        ours.set_stopping();
        assert!(!theirs.has_successor(1));
    }

    #[test]
    fn memory_of_another_layout_is_refused() {
        let (scoreboard, fd) = Scoreboard::create(1).expect("memfd");
        scoreboard
            .header()
            .layout
            .store(LAYOUT + 1, Ordering::Release);
        assert!(Scoreboard::open(&fd).is_err());
        assert!(ftruncate(&fd, 0).is_err(), "sealed");
    }
}
