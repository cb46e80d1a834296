//! A worker process's slot: how many requests, connections and waiting requests it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use super::Scoreboard;
use super::dispatch::DispatchCells;
use super::opcache::OpcacheFigures;
use super::worker::{Moment, Worker};

/// A worker process's own slot; cheap to clone, usable from all its threads.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(super) scoreboard: Arc<Scoreboard>,
    pub(super) index: usize,
}

impl Slot {
    /// Requests may come. (`WorkerProcess::serving` says it to the pool process too.)
    pub(crate) fn set_serving(&self) {
        self.cells()
            .state
            .store(State::Serving as u32, Ordering::Release);
    }

    /// The process has so many PHP workers (threads) from now on; no more than it was claimed for.
    pub(crate) fn set_threads(&self, threads: u32) {
        self.cells().threads.store(threads, Ordering::Relaxed);
    }

    /// No new request will be taken.
    pub(crate) fn set_draining(&self) {
        self.cells()
            .state
            .store(State::Draining as u32, Ordering::Release);
    }

    /// The entry of the process's PHP worker (thread) number `thread`, counted from 0. Whoever gets it is that worker: two
    /// threads with the same number would spoil each other's entry, though nothing else. None for a number above what
    /// the scoreboard was made for.
    pub(crate) fn worker(&self, thread: u32) -> Option<Worker> {
        let threads = self.scoreboard.threads();
        let thread = usize::try_from(thread)
            .ok()
            .filter(|thread| *thread < threads)?;
        Some(Worker {
            scoreboard: Arc::clone(&self.scoreboard),
            index: self.index * threads + thread,
        })
    }

    /// A PHP worker of this process starts a request: on NTS, the slot goes from Idle to Running.
    pub(crate) fn request_started(&self) {
        self.cells().running.fetch_add(1, Ordering::Relaxed);
        let header = self.scoreboard.header();
        let active = header.active.now.fetch_add(1, Ordering::Relaxed) + 1;
        if active > header.active.max.load(Ordering::Relaxed) {
            header.active.max.fetch_max(active, Ordering::Relaxed);
        }
    }

    /// A PHP worker of this process is done with a request.
    pub(crate) fn request_finished(&self) {
        let cells = self.cells();
        cells.requests.fetch_add(1, Ordering::Relaxed);
        let header = self.scoreboard.header();
        header.active.now.fetch_sub(1, Ordering::Relaxed);
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

    /// A connection came from a process of another generation that counts it in another scoreboard, for good.
    pub(crate) fn foreign_connection_taken_over(&self) {
        // There is no limit that it could reach.
        let _ = add_below(
            &self.scoreboard.header().connections,
            &self.cells().connections,
            u32::MAX,
        );
    }

    /// Counts a request that waits for a PHP worker; false, and nothing counted, if `limit` requests of the pool wait
    /// already.
    #[must_use]
    pub(crate) fn add_queued(&self, waits: Waits, limit: u32) -> bool {
        let header = self.scoreboard.header();
        let added = add_below(&header.queued, &self.cells().queued, limit);
        if added {
            header.note_listen_queue();
            if waits == Waits::OnOpen {
                let _ = add_below(&header.queued_open, &self.cells().queued_open, u32::MAX);
            }
        }
        added
    }

    /// A request waits no more: it runs, was passed on, or was dropped.
    pub(crate) fn remove_queued(&self, waits: Waits) {
        let header = self.scoreboard.header();
        remove(&header.queued, &self.cells().queued);
        if waits == Waits::OnOpen {
            remove(&header.queued_open, &self.cells().queued_open);
        }
    }

    /// A queued request went to a sibling: it stays one of the pool's.
    pub(crate) fn request_handed_over(&self, waits: Waits) {
        self.cells().queued.fetch_sub(1, Ordering::Relaxed);
        if waits == Waits::OnOpen {
            self.cells().queued_open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A queued request came from a sibling.
    pub(crate) fn request_taken_over(&self, waits: Waits) {
        self.cells().queued.fetch_add(1, Ordering::Relaxed);
        if waits == Waits::OnOpen {
            self.cells().queued_open.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the caller is to [read and write](Self::set_opcache) OPcache's figures, or to [say](Self::opcache_unread) that it
    /// cannot: true for one worker of the pool, once a second.
    pub(crate) fn is_opcache_due(&self, now: Moment) -> bool {
        self.scoreboard.header().opcache.take_turn(now)
    }

    /// The caller could not read OPcache's figures.
    pub(crate) fn opcache_unread(&self) {
        self.scoreboard.header().opcache.return_turn();
    }

    /// Puts OPcache's figures where all can read them.
    pub(crate) fn set_opcache(&self, figures: OpcacheFigures) {
        self.scoreboard.header().opcache.write(figures);
    }

    pub(super) fn cells(&self) -> &Cells {
        &self.scoreboard.cells()[self.index]
    }
}

/// On what kind of connection a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// One that has come from a listen queue with it: it is before all that wait there.
    OnNew,
    /// One that was open before: those that wait in a listen queue may be before it.
    OnOpen,
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

/// One worker process's part of the memory. Only that process writes to it until it is dead, but for what `dispatch` says.
#[repr(C, align(128))]
pub(super) struct Cells {
    pub(super) pid: AtomicU32,
    pub(super) generation: AtomicU32,
    pub(super) state: AtomicU32,
    pub(super) threads: AtomicU32,
    pub(super) running: AtomicU32,
    pub(super) connections: AtomicU32,
    pub(super) queued: AtomicU32,
    pub(super) queued_open: AtomicU32,
    pub(super) requests: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) started_at: AtomicU64,
    pub(super) dispatch: DispatchCells,
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
