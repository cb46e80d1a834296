//! The scoreboard: a pool's numbers in shared memory, mapped by the supervisor, pool processes and worker processes.
//!
//! One memfd holds a `Header` for the pool, a `Cells` of 128 bytes (two cache lines, since processors fetch them
//! in pairs) for each worker process, and a `WorkerCells` for each of its PHP workers (worker.rs). All of it is atomics;
//! whoever is killed at whatever point leaves a slot that the process which reaps it can still settle
//! ([`Scoreboard::release`]). Totals (requests, accepted connections, histograms) are counted in the slot of the worker
//! process, which nobody else writes to, and moved to the header when the slot is released; only what has a limit or a
//! maximum across the pool (connections, queued and running requests) is counted in the header as it happens.
//!
//! # Lifecycle
//!
//! ```text
//! claim (worker process, after fork) → Starting → Serving ⇄ running requests → Draining → exit → release (who reaped it)
//! ```

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use histogram::Histogram;
use idle::QueueLength;
use opcache::OpcacheCells;
use slot::{Cells, State};
use worker::WorkerCells;

mod dispatch;
mod histogram;
mod idle;
mod opcache;
mod processes;
mod slot;
mod snapshot;
mod sync;
mod worker;

pub(crate) use dispatch::Reservation;
pub(crate) use histogram::Distribution;
pub(crate) use opcache::OpcacheFigures;
pub(crate) use processes::{ProcessCount, ProcessShare};
pub(crate) use slot::{Slot, Waits};
pub(crate) use snapshot::{Lost, ProcessView, Snapshot, WorkerSnapshot};
pub(crate) use worker::{Moment, RequestEntry, RequestInfo, Stage, Worker};

/// The mapped memory of one pool.
pub(crate) struct Scoreboard {
    memory: NonNull<Header>,
    bytes: usize,
    capacity: usize,
    threads: usize,
}

impl Scoreboard {
    /// A new scoreboard with room for `capacity` worker processes of `threads` PHP workers each, and the memfd by which
    /// other processes [`open`](Self::open) it.
    pub(crate) fn create(capacity: u32, threads: u32) -> io::Result<(Self, OwnedFd)> {
        let fd = memfd_create(
            "fe-php-scoreboard",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        let bytes = bytes_for(capacity, threads).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{capacity} worker processes of {threads} threads need more memory than there is"),
            )
        })?;
        ftruncate(&fd, bytes as u64)?;
        // A process that shortened the file would kill all others with SIGBUS.
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let mut scoreboard = Self::map(&fd, bytes)?;
        let header = scoreboard.header();
        header.capacity.store(capacity, Ordering::Relaxed);
        header.threads.store(threads, Ordering::Relaxed);
        // Whose keys are random.
        let id = RandomState::new().build_hasher().finish();
        header.id.store(id.max(1), Ordering::Relaxed);
        header
            .started_at
            .store(microseconds_now(), Ordering::Relaxed);
        header.layout.store(LAYOUT, Ordering::Release);
        scoreboard.capacity = capacity as usize;
        scoreboard.threads = threads as usize;
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
        let known = scoreboard.header().layout.load(Ordering::Acquire) == LAYOUT;
        let capacity = scoreboard.header().capacity.load(Ordering::Relaxed);
        let threads = scoreboard.header().threads.load(Ordering::Relaxed);
        if !known || bytes_for(capacity, threads) != Some(bytes) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "scoreboard of another version",
            ));
        }
        scoreboard.capacity = capacity as usize;
        scoreboard.threads = threads as usize;
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
            threads: 0,
        })
    }

    /// Takes a free slot for the process `pid`, which is the caller or its child. `threads` is the number of PHP workers
    /// (threads) that it has. None if all slots are taken, or if the scoreboard was made for fewer threads.
    pub(crate) fn claim(self: &Arc<Self>, pid: u32, generation: u32, threads: u32) -> Option<Slot> {
        if threads as usize > self.threads {
            return None;
        }
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
        let (index, cells) = self
            .used_cells()
            .iter()
            .enumerate()
            .find(|(_, cells)| cells.pid.load(Ordering::Acquire) == pid)?;
        let header = self.header();
        header.releases_begun.fetch_add(1, Ordering::AcqRel);
        cells.state.store(State::Free as u32, Ordering::Relaxed);
        let lost = Lost {
            running: cells.running.swap(0, Ordering::Relaxed),
            queued: cells.queued.swap(0, Ordering::Relaxed),
            connections: cells.connections.swap(0, Ordering::Relaxed),
            requests: cells.requests.swap(0, Ordering::Relaxed),
        };
        for worker in self.workers_of(index) {
            worker.settle(&header.past_durations, &header.past_waits);
        }
        subtract(&header.active.now, lost.running);
        header
            .past_unfinished
            .fetch_add(u64::from(lost.running), Ordering::Relaxed);
        subtract(&header.connections, lost.connections);
        subtract(&header.queued, lost.queued);
        subtract(
            &header.queued_open,
            cells.queued_open.swap(0, Ordering::Relaxed),
        );
        header
            .past_requests
            .fetch_add(lost.requests, Ordering::Relaxed);
        header
            .past_accepted
            .fetch_add(cells.accepted.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        cells.dispatch.clear();
        cells.pid.store(0, Ordering::Release);
        header.releases_done.fetch_add(1, Ordering::AcqRel);
        Some(lost)
    }

    /// PHP workers that could run a request this moment: of worker processes that serve and do not drain, threads that
    /// run nothing. Reads one pair of cache lines for each worker process.
    pub(crate) fn idle_workers(&self) -> u32 {
        self.idle_workers_where(|_| true)
    }

    /// The same of one generation.
    pub(crate) fn idle_workers_of(&self, generation: u32) -> u32 {
        self.idle_workers_where(|own| own == generation)
    }

    fn idle_workers_where(&self, generation: impl Fn(u32) -> bool) -> u32 {
        self.used_cells()
            .iter()
            .filter(|cells| cells.state.load(Ordering::Relaxed) == State::Serving as u32)
            .filter(|cells| generation(cells.generation.load(Ordering::Relaxed)))
            .map(|cells| {
                cells
                    .threads
                    .load(Ordering::Relaxed)
                    .saturating_sub(cells.running.load(Ordering::Relaxed))
            })
            .sum()
    }

    /// Whether a worker process of a generation before this one takes requests.
    pub(crate) fn serves_before(&self, generation: u32) -> bool {
        self.used_cells().iter().any(|cells| {
            cells.state.load(Ordering::Relaxed) == State::Serving as u32
                && cells.generation.load(Ordering::Relaxed) < generation
        })
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

    /// Those of them that wait on connections which were open before.
    pub(crate) fn queued_open(&self) -> u32 {
        load(&self.header().queued_open)
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
            connections: cells.connections.load(Ordering::Relaxed),
        })
    }

    /// Counts that `pm.max_children` has kept the pool from growing.
    pub(crate) fn count_max_children_reached(&self) {
        self.header()
            .max_children_reached
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Tells it from the pool's scoreboards before and after it; never 0.
    pub(crate) fn id(&self) -> u64 {
        self.header().id.load(Ordering::Relaxed)
    }

    /// Worker processes that it has room for.
    pub(crate) fn capacity(&self) -> u32 {
        u32::try_from(self.capacity).unwrap_or(u32::MAX)
    }

    /// PHP workers that each of them may have.
    pub(crate) fn threads_per_process(&self) -> u32 {
        u32::try_from(self.threads).unwrap_or(u32::MAX)
    }

    /// Whether no process has a slot.
    pub(crate) fn is_empty(&self) -> bool {
        self.used_cells()
            .iter()
            .all(|cells| cells.pid.load(Ordering::Acquire) == 0)
    }

    /// The pool's numbers, with what every PHP worker does.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.read_whole(false)
    }

    /// The same with the requests of all PHP workers.
    pub(crate) fn full_snapshot(&self) -> Snapshot {
        self.read_whole(true)
    }

    /// Reads again if a slot was released meanwhile: what is on its way from a slot to the header would be counted twice
    /// or not at all. Not for ever, since whoever releases slots can be killed too.
    fn read_whole(&self, full: bool) -> Snapshot {
        let header = self.header();
        for _ in 0..READ_ATTEMPTS {
            let done = header.releases_done.load(Ordering::Acquire);
            if header.releases_begun.load(Ordering::Acquire) == done {
                let snapshot = self.read(full);
                fence(Ordering::Acquire);
                if header.releases_begun.load(Ordering::Relaxed) == done {
                    return snapshot;
                }
            }
            std::thread::yield_now();
        }
        self.read(full)
    }

    fn read(&self, full: bool) -> Snapshot {
        let header = self.header();
        let get = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let requests = get(&header.past_requests);
        let mut snapshot = Snapshot {
            taken_at: SystemTime::now(),
            now: Moment::now(),
            started_at: time(get(&header.started_at)),
            connections: load(&header.connections),
            queued: load(&header.queued),
            running: 0,
            idle: 0,
            accepted: get(&header.past_accepted),
            requests,
            requests_begun: requests + get(&header.past_unfinished),
            max_active: load(&header.active.max),
            max_children_reached: get(&header.max_children_reached),
            slow_requests: get(&header.slow_requests),
            memory_peak: get(&header.memory_peak),
            backlog: header.backlog.load(Ordering::Relaxed),
            backlog_limit: header.backlog_limit.load(Ordering::Relaxed),
            max_listen_queue: header.max_listen_queue.load(Ordering::Relaxed),
            crashes: get(&header.crashes),
            restarts: get(&header.restarts),
            refused: get(&header.refused),
            lost_requests: get(&header.lost_requests),
            lost_connections: get(&header.lost_connections),
            draining_processes: 0,
            durations: Distribution::default(),
            waits: Distribution::default(),
            opcache: header.opcache.read(),
            workers: Vec::new(),
        };
        header.past_durations.add_to(&mut snapshot.durations);
        header.past_waits.add_to(&mut snapshot.waits);
        for (index, cells) in self.used_cells().iter().enumerate() {
            self.read_process(index, cells, full, &mut snapshot);
        }
        snapshot
    }

    fn read_process(&self, index: usize, cells: &Cells, full: bool, snapshot: &mut Snapshot) {
        let pid = cells.pid.load(Ordering::Acquire);
        if pid == 0 {
            return;
        }
        let running = cells.running.load(Ordering::Relaxed);
        let requests = cells.requests.load(Ordering::Relaxed);
        snapshot.running += running;
        snapshot.requests += requests;
        snapshot.requests_begun += requests + u64::from(running);
        snapshot.accepted += cells.accepted.load(Ordering::Relaxed);
        let state = cells.state.load(Ordering::Relaxed);
        let is_draining = state == State::Draining as u32;
        snapshot.draining_processes += u32::from(is_draining);
        let threads = cells.threads.load(Ordering::Relaxed);
        if state == State::Serving as u32 {
            snapshot.idle += threads.saturating_sub(running);
        }
        for (thread, worker) in self.workers_of(index).iter().enumerate() {
            worker.durations().add_to(&mut snapshot.durations);
            worker.waits().add_to(&mut snapshot.waits);
            let request = full.then(|| worker.read());
            let stage = match &request {
                Some(request) => request.stage,
                None => worker.stage(),
            };
            // One that does not serve yet, or not any more, is neither idle nor active.
            if stage.is_none() || (is_draining && stage == Some(Stage::Accepting)) {
                continue;
            }
            snapshot.workers.push(WorkerSnapshot {
                number: index * self.threads + thread,
                pid,
                started_at: time(cells.started_at.load(Ordering::Relaxed)),
                requests: worker.requests(),
                stage,
                request,
            });
        }
    }

    /// What [`Worker::begin`] and its like have written about one worker, by its [number](WorkerSnapshot::number).
    #[cfg(test)]
    pub(crate) fn request_of(&self, worker: usize) -> Option<RequestEntry> {
        self.worker_cells().get(worker).map(WorkerCells::read)
    }

    /// Notes how many connections wait in the kernel for a worker process to accept them, and how many may.
    pub(crate) fn set_backlog(&self, waiting: u32, limit: u32) {
        let header = self.header();
        header.backlog.store(waiting, Ordering::Relaxed);
        header.backlog_limit.store(limit, Ordering::Relaxed);
        header.note_listen_queue();
    }

    /// Counts a request that took longer than `request_slowlog_timeout`.
    pub(crate) fn count_slow_request(&self) {
        self.header().slow_requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was refused since it had waited too long, or found too many waiting. Now and then answers how many
    /// have been since the last time, for the log: once a second, to one process of all.
    pub(crate) fn count_refused(&self, now: Moment) -> Option<u64> {
        let header = self.header();
        let refused = header.refused.fetch_add(1, Ordering::Relaxed) + 1;
        let now = now.as_micros().max(1);
        let last = header.refused_told_at.load(Ordering::Relaxed);
        let is_due = last == 0 || now.saturating_sub(last) >= 1_000_000;
        let turn = &header.refused_told_at;
        if is_due
            && turn
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            let told = header.refused_told.swap(refused, Ordering::Relaxed);
            return Some(refused.saturating_sub(told));
        }
        None
    }

    /// Says whether PHP workers are to measure the CPU time of requests, for the status page.
    pub(crate) fn set_measures_cpu(&self, measures: bool) {
        self.header()
            .measures_cpu
            .store(u32::from(measures), Ordering::Relaxed);
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
        // SAFETY: `map` made the mapping one header and `capacity` cells long at least, so this stays inside it.
        let first = unsafe { self.memory.add(1) }.cast::<Cells>();
        // SAFETY: as above; cells are atomics, so shared references may alias other processes' writes, and the mapping
        // lives until drop.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), self.capacity) }
    }

    fn worker_cells(&self) -> &[WorkerCells] {
        let offset = size_of::<Header>() + self.capacity * size_of::<Cells>();
        // SAFETY: `bytes_for` put the workers' entries here, behind the header and all slots.
        let first = unsafe { self.memory.byte_add(offset) }.cast::<WorkerCells>();
        // SAFETY: as in `cells`; the mapping is `bytes_for` long, which counts `capacity * threads` of them. Their sizes
        // are multiples of 128, so they are aligned.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), self.capacity * self.threads) }
    }

    /// The PHP workers of one worker process.
    fn workers_of(&self, index: usize) -> &[WorkerCells] {
        &self.worker_cells()[index * self.threads..][..self.threads]
    }

    /// PHP workers that a worker process has at most.
    fn threads(&self) -> usize {
        self.threads
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

/// The pool's part of the memory. Each member group is alone on its cache lines: what all worker processes write to must
/// not slow down what they read.
#[repr(C)]
struct Header {
    layout: AtomicU32,
    capacity: AtomicU32,
    /// A random number, never 0.
    id: AtomicU64,
    /// PHP workers of a worker process.
    threads: AtomicU32,
    /// CPU time of requests is wanted.
    measures_cpu: AtomicU32,
    /// Slots at and above this were never claimed.
    used: AtomicU32,
    /// The newest generation that serves.
    generation: AtomicU32,
    stopping: AtomicU32,
    started_at: AtomicU64,
    crashes: AtomicU64,
    restarts: AtomicU64,
    /// Requests refused, as many as the log has, and when it was last told.
    refused: AtomicU64,
    refused_told: AtomicU64,
    refused_told_at: AtomicU64,
    lost_requests: AtomicU64,
    lost_connections: AtomicU64,
    /// Totals of released slots.
    past_requests: AtomicU64,
    past_accepted: AtomicU64,
    past_unfinished: AtomicU64,
    past_durations: Histogram,
    past_waits: Histogram,
    max_children_reached: AtomicU64,
    slow_requests: AtomicU64,
    memory_peak: AtomicU64,
    /// Connections that wait in the kernel, and may wait there, when the supervisor last looked.
    backlog: AtomicU32,
    backlog_limit: AtomicU32,
    max_listen_queue: AtomicU32,
    /// Calls of [`Scoreboard::release`]: while these two differ, totals are on their way from a slot to here.
    releases_begun: AtomicU64,
    releases_done: AtomicU64,
    opcache: OpcacheCells,
    /// See [`Scoreboard::backlog_since`].
    backlog_since: Aligned<AtomicU64>,
    /// When a process last said that it keeps requests, in microseconds.
    last_kept: Aligned<AtomicU64>,
    /// Requests in the queues of generations, by number.
    queue_lengths: [Aligned<QueueLength>; dispatch::QUEUES],
    connections: Aligned<AtomicI32>,
    queued: Aligned<AtomicI32>,
    /// Of those, the ones whose connection has not come from a listen queue just now.
    queued_open: Aligned<AtomicI32>,
    active: Aligned<Active>,
}

/// Running requests of the pool: counted as they come, since nobody could find the maximum afterwards.
#[repr(C)]
struct Active {
    now: AtomicI32,
    max: AtomicI32,
}

impl Header {
    /// Raises the maximum to what waits this moment.
    fn note_listen_queue(&self) {
        let waiting = load(&self.queued).saturating_add(self.backlog.load(Ordering::Relaxed));
        if waiting > self.max_listen_queue.load(Ordering::Relaxed) {
            self.max_listen_queue.fetch_max(waiting, Ordering::Relaxed);
        }
    }
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

/// Bytes of a scoreboard; none if they cannot be counted.
fn bytes_for(capacity: u32, threads: u32) -> Option<usize> {
    let (capacity, threads) = (capacity as usize, threads as usize);
    let workers = capacity
        .checked_mul(threads)?
        .checked_mul(size_of::<WorkerCells>())?;
    let slots = capacity.checked_mul(size_of::<Cells>())?;
    size_of::<Header>().checked_add(slots)?.checked_add(workers)
}

/// Changes whenever what lies in the memory does.
const LAYOUT: u32 = 0xfe_0005;

/// Times that a reader lets slots be released before it takes what it finds.
const READ_ATTEMPTS: u32 = 100;

const _: () = assert!(size_of::<Cells>() == 128, "a slot is two cache lines");
const _: () = assert!(
    size_of::<Header>().is_multiple_of(128),
    "slots begin on a cache line"
);

#[cfg(test)]
mod tests;
