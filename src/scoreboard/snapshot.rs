//! What a reader takes from the scoreboard.

use std::fmt;
use std::time::SystemTime;

use super::histogram::Distribution;
use super::opcache::OpcacheFigures;
use super::worker::{Moment, RequestEntry, Stage};

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

/// One worker process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessView {
    /// It takes requests.
    pub(crate) serving: bool,
    /// Requests that it runs.
    pub(crate) running: u32,
    /// Requests that it has run.
    pub(crate) requests: u64,
    /// Connections that it has open.
    pub(crate) connections: u32,
}

/// A pool's numbers at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// When it was taken.
    pub(crate) taken_at: SystemTime,
    /// The same moment on the clock that [`RequestEntry`] uses.
    pub(crate) now: Moment,
    /// When the pool was started.
    pub(crate) started_at: SystemTime,
    /// Open connections.
    pub(crate) connections: u32,
    /// Requests that wait for a PHP worker.
    pub(crate) queued: u32,
    /// Requests that run: php-fpm's active processes.
    pub(crate) running: u32,
    /// PHP workers that could run one: php-fpm's idle processes.
    pub(crate) idle: u32,
    /// Connections accepted since the start.
    pub(crate) accepted: u64,
    /// Requests finished since the start.
    pub(crate) requests: u64,
    /// Requests begun since the start, which php-fpm calls `accepted conn`.
    pub(crate) requests_begun: u64,
    /// The most requests that ever ran at once.
    pub(crate) max_active: u32,
    /// How often the pool had no worker left to start: php-fpm's `max children reached`.
    pub(crate) max_children_reached: u64,
    /// Requests that took longer than `request_slowlog_timeout`.
    pub(crate) slow_requests: u64,
    /// The biggest memory peak of any request, in bytes.
    pub(crate) memory_peak: u64,
    /// Connections that wait in the kernel.
    pub(crate) backlog: u32,
    /// How many may wait there.
    pub(crate) backlog_limit: u32,
    /// The most connections and requests that ever waited for a worker.
    pub(crate) max_listen_queue: u32,
    /// Worker processes that died of themselves.
    pub(crate) crashes: u64,
    /// Worker processes started in place of others.
    pub(crate) restarts: u64,
    /// Requests refused since they had waited too long for a worker, or found too many waiting.
    pub(crate) refused: u64,
    /// Requests that died with worker processes.
    pub(crate) lost_requests: u64,
    /// Connections that died with worker processes.
    pub(crate) lost_connections: u64,
    /// Worker processes that take no more requests and finish what they have.
    pub(crate) draining_processes: u32,
    /// How long requests took.
    pub(crate) durations: Distribution,
    /// How long requests waited for a worker.
    pub(crate) waits: Distribution,
    /// OPcache's figures, once a worker has written them.
    pub(crate) opcache: Option<OpcacheFigures>,
    /// The PHP workers.
    pub(crate) workers: Vec<WorkerSnapshot>,
}

impl Snapshot {
    /// Connections and requests that wait for a worker, whether the kernel or a worker process holds them: php-fpm's
    /// `listen queue`.
    pub(crate) fn listen_queue(&self) -> u32 {
        self.backlog.saturating_add(self.queued)
    }
}

/// One PHP worker.
#[derive(Debug, Clone)]
pub(crate) struct WorkerSnapshot {
    /// Its number, the same for the next one in its place.
    pub(crate) number: usize,
    /// The worker process.
    pub(crate) pid: u32,
    /// When that process was started.
    pub(crate) started_at: SystemTime,
    /// Requests that this worker has begun.
    pub(crate) requests: u64,
    /// What it does.
    pub(crate) stage: Option<Stage>,
    /// Its request, if that was asked for.
    pub(crate) request: Option<RequestEntry>,
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
