//! What the worker processes of a pool tell each other so that no request waits while one of them is idle, and all start in
//! turn: which processes are idle, and how many requests are in the queue. `server/reactor/dispatch.rs` has the protocol.
//!
//! All operations are sequentially consistent. A process that becomes idle says so and then looks whether the queue has requests; a
//! process that puts one there says so and then looks for an idle process. So at least one of the two sees the other.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::Scoreboard;
use super::idle::{IdleFlag, KeptSince, QueueLength, UnwatchedSince};
use super::slot::{Cells, Slot, State};
use super::worker::Moment;

/// A slot's part.
#[repr(C)]
pub(super) struct DispatchCells {
    /// Requests that have become ready there while it is busy, and are kept.
    kept: KeptSince,
    unwatched: UnwatchedSince,
    idle: IdleFlag,
    /// The process's lane, plus one; 0 if it has none.
    lane: AtomicU32,
}

/// An idle sibling that nobody else sends a request to. Give it back with [`Slot::cancel`] if nothing is sent.
#[derive(Debug)]
#[must_use]
pub(crate) struct Reservation {
    index: usize,
    /// Where it takes requests.
    pub(crate) lane: u32,
}

/// A process that keeps requests has said so within this time.
const KEPT_OF_LATE: Duration = Duration::from_secs(1);

/// Queues that are told from each other: more than there are generations of a pool at once.
pub(super) const QUEUES: usize = 16;

impl Slot {
    /// Siblings of this generation reach this process by `lane`.
    pub(crate) fn set_lane(&self, lane: u32) {
        self.dispatch().lane.store(lane + 1, Ordering::SeqCst);
    }

    /// This process waits for a request from now on. Look into the queue after this.
    pub(crate) fn become_idle(&self) {
        self.dispatch().idle.become_idle();
    }

    /// This process waits no longer. Returns whether a sibling has reserved it, and sends something.
    pub(crate) fn become_busy(&self) -> bool {
        self.dispatch().idle.become_busy()
    }

    /// Reserves the idle sibling that has the fewest open connections.
    pub(crate) fn reserve_idle(&self) -> Option<Reservation> {
        self.reserve_idle_below(u32::MAX)
    }

    /// The same among siblings that have fewer than `connections` open.
    pub(crate) fn reserve_idle_below(&self, connections: u32) -> Option<Reservation> {
        loop {
            let (_, index, cells) = self
                .idle_siblings()
                .map(|(index, cells)| (cells.connections.load(Ordering::Relaxed), index, cells))
                .filter(|(open, ..)| *open < connections)
                .min_by_key(|(open, ..)| *open)?;
            if cells.dispatch.idle.reserve() {
                let lane = cells.dispatch.lane.load(Ordering::SeqCst).saturating_sub(1);
                return Some(Reservation { index, lane });
            }
        }
    }

    /// The reserved sibling has had time to take what was sent. Returns whether it has not: then nobody sends it anything until it
    /// goes on by itself.
    pub(crate) fn has_not_taken(&self, reservation: &Reservation) -> bool {
        self.scoreboard.cells()[reservation.index]
            .dispatch
            .idle
            .give_up()
    }

    /// Nothing is sent after all.
    pub(crate) fn cancel(&self, reservation: &Reservation) {
        self.scoreboard.cells()[reservation.index]
            .dispatch
            .idle
            .cancel();
    }

    /// Whether [`reserve_idle`](Self::reserve_idle) would find one this moment.
    pub(crate) fn has_idle_sibling(&self) -> bool {
        self.idle_siblings().next().is_some()
    }

    /// This process is busy and keeps requests, the first of which waits since then; or none. Look for an idle sibling after this.
    pub(crate) fn keep(&self, since: Option<Moment>) {
        let kept = &self.dispatch().kept;
        if since.is_some() {
            self.announce_kept(Moment::now());
        } else if kept.since().is_none() {
            return;
        }
        kept.keep(since.map(Moment::as_micros));
    }

    /// The same of one that waits since `now`, and perhaps of others before.
    pub(crate) fn keep_more(&self, now: Moment) {
        self.announce_kept(now);
        self.dispatch().kept.keep_more(now.as_micros());
    }

    /// Nobody in this busy process looks what becomes ready. Look for an idle sibling after this.
    pub(crate) fn set_unwatched(&self) {
        let now = Moment::now();
        self.announce_kept(now);
        self.dispatch().unwatched.set(now.as_micros());
    }

    /// This process is not busy any more, and looks.
    pub(crate) fn set_watched(&self) {
        self.dispatch().unwatched.clear();
    }

    /// The lane of a busy sibling that has not looked since before `than`: the caller is to have it look.
    pub(crate) fn claim_unwatched(&self, than: Moment) -> Option<u32> {
        if !self.is_any_kept() {
            return None;
        }
        let mut siblings = self.siblings();
        let (_, cells) =
            siblings.find(|(_, cells)| cells.dispatch.unwatched.claim(than.as_micros()))?;
        let lane = cells.dispatch.lane.load(Ordering::SeqCst);
        (lane > 0).then(|| lane - 1)
    }

    /// Lanes of busy siblings that keep requests or do not look for them: the caller, which has become idle, is to tell them.
    pub(crate) fn claim_all_kept(&self) -> impl Iterator<Item = u32> {
        let is_any = self.is_any_kept();
        let siblings = self.siblings().take_while(move |_| is_any);
        siblings.filter_map(|(_, cells)| {
            let DispatchCells {
                kept, unwatched, ..
            } = &cells.dispatch;
            let lane = cells.dispatch.lane.load(Ordering::SeqCst);
            let is_unwatched = unwatched.claim(u64::MAX);
            let is_kept = kept.since().is_some_and(|since| kept.claim(since));
            (lane > 0 && (is_unwatched || is_kept)).then(|| lane - 1)
        })
    }

    fn is_any_kept(&self) -> bool {
        let last = self.scoreboard.header().last_kept.load(Ordering::SeqCst);
        Moment::now().since(Moment::from_micros(last)) < KEPT_OF_LATE
    }

    /// Siblings look into all entries only if somebody has kept something of late.
    fn announce_kept(&self, now: Moment) {
        let last = &self.scoreboard.header().last_kept;
        if now.since(Moment::from_micros(last.load(Ordering::SeqCst))) >= KEPT_OF_LATE / 2 {
            last.store(now.as_micros(), Ordering::SeqCst);
        }
    }

    /// The lane of the busy sibling that keeps the request which waits longest, if that is since before `than`: the caller is to ask
    /// for it.
    pub(crate) fn claim_kept(&self, than: Moment) -> Option<u32> {
        if !self.is_any_kept() {
            return None;
        }
        let (since, cells) = self
            .siblings()
            .filter_map(|(_, cells)| Some((cells.dispatch.kept.since()?, cells)))
            .filter(|(since, _)| *since < than.as_micros())
            .min_by_key(|(since, _)| *since)?;
        let lane = cells.dispatch.lane.load(Ordering::SeqCst);
        (lane > 0 && cells.dispatch.kept.claim(since)).then(|| lane - 1)
    }

    /// Whether requests are in the queue of this generation.
    pub(crate) fn has_queue(&self) -> bool {
        self.queue().has_any()
    }

    /// A request has been put into the queue. Look for an idle sibling after this.
    pub(crate) fn queue_grew(&self) {
        self.queue().grew();
    }

    /// Whether the caller may take a request out of the queue. If there is none then, one had been counted that never came.
    pub(crate) fn claim_queued(&self) -> bool {
        self.queue().claim()
    }

    fn queue(&self) -> &QueueLength {
        let generation = self.cells().generation.load(Ordering::Relaxed);
        self.scoreboard.queue(generation)
    }

    /// See [`Scoreboard::set_backlog_since`].
    pub(crate) fn set_backlog_since(&self, now: Moment) {
        self.scoreboard.set_backlog_since(now);
    }

    /// See [`Scoreboard::idle_workers`].
    pub(crate) fn idle_workers(&self) -> u32 {
        self.scoreboard.idle_workers()
    }

    /// Whether another process of this generation takes requests, and does not drain.
    pub(crate) fn has_serving_sibling(&self) -> bool {
        self.siblings().next().is_some()
    }

    fn idle_siblings(&self) -> impl Iterator<Item = (usize, &Cells)> {
        self.siblings().filter(|(_, cells)| {
            cells.dispatch.idle.is_idle() && cells.dispatch.lane.load(Ordering::SeqCst) > 0
        })
    }

    /// Processes of the same generation that serve.
    fn siblings(&self) -> impl Iterator<Item = (usize, &Cells)> {
        let generation = self.cells().generation.load(Ordering::Relaxed);
        let cells = self.scoreboard.used_cells().iter().enumerate();
        cells.filter(move |(index, cells)| {
            *index != self.index
                && cells.generation.load(Ordering::Relaxed) == generation
                && cells.state.load(Ordering::Relaxed) == State::Serving as u32
        })
    }

    fn dispatch(&self) -> &DispatchCells {
        &self.cells().dispatch
    }
}

impl DispatchCells {
    /// The process is dead.
    pub(super) fn clear(&self) {
        self.idle.clear();
        self.kept.keep(None);
        self.unwatched.clear();
        self.lane.store(0, Ordering::SeqCst);
    }
}

impl Scoreboard {
    /// The queue of this generation is new, and empty.
    pub(crate) fn begin_queue(&self, generation: u32) {
        self.queue(generation).clear();
    }

    /// A worker process of this generation was killed: it may have put a request into the queue that it has not counted. One too
    /// many does no harm.
    pub(crate) fn repair_queue(&self, generation: u32) {
        self.queue(generation).grew();
    }

    fn queue(&self, generation: u32) -> &QueueLength {
        &self.header().queue_lengths[generation as usize % QUEUES]
    }

    /// Connections wait in a listen queue since `now` at the latest, for the next worker process that has nothing else to do.
    pub(crate) fn set_backlog_since(&self, now: Moment) {
        let _ = self.header().backlog_since.compare_exchange(
            0,
            now.as_micros().max(1),
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
    }

    /// Since when connections wait in a listen queue, if a worker process has seen them and left them there.
    pub(crate) fn backlog_since(&self) -> Option<Moment> {
        let since = self.header().backlog_since.load(Ordering::SeqCst);
        (since > 0).then(|| Moment::from_micros(since))
    }

    /// The caller takes what is there: forgets what [`backlog_since`](Self::backlog_since) returned.
    pub(crate) fn take_backlog(&self) {
        self.header().backlog_since.store(0, Ordering::SeqCst);
    }
}
