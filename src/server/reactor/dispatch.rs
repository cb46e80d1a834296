//! Which worker process runs a request that is ready.
//!
//! Two rules hold for the whole pool: no request waits while a worker is idle, and requests start in the order in which they
//! became ready, give or take [`SLACK`].
//!
//! # Who may hold a request, and who wakes whom
//!
//! A request that is ready belongs to the reactor of the process that has read it, in `ready`, by the time at which it became so.
//! A PHP thread of this process that has nothing to do takes what is first there. While all PHP threads are busy, requests that have
//! become ready are sent, with their connections, to one of two places:
//!
//! ```text
//!                 a sibling is idle
//!               ┌───────────────────▶ the sibling's lane ──▶ in its epoll: its PHP thread runs the request
//! ready, all ───┤
//! threads busy  └───────────────────▶ the pool's queue ────▶ the PHP thread that has finished next takes it
//!                 none is idle
//! ```
//!
//! The threads of one process (ZTS) share its reactor, so among them nothing has to be sent: `ready` is the queue. Processes (NTS)
//! have lanes and a queue, which are sockets that the pool process has made (`zygote/lanes.rs`), and see in the scoreboard
//! (`scoreboard/dispatch.rs`) which of them are idle and how many requests are in the queue.
//!
//! ```text
//! process A, busy                                         process B
//!   a request has become ready                              PHP thread: has nothing to do
//!   1 puts it into the queue, counts it there               1 shows that B is idle
//!   2 is a sibling idle? reserves it, and tells it to look  2 is something in the queue? takes it
//!                                                           else: sleeps
//! ```
//!
//! Both do the first step before the second, and all of it is sequentially consistent: so one of them sees the other. (If A sees
//! an idle sibling before it does anything, it reserves that one and sends the request into its lane at once.) A process that is
//! reserved is no one else's to send to; it shows itself as idle again when it has received what was sent and is about to wait. If
//! it becomes busy with something of its own in that moment, its helper sends the request on, or tells another idle sibling to
//! look. If it takes nothing for [`TAKEN_WITHIN`] (it is stopped, say), the sender takes back what it has sent. `tests/model` tries
//! every order of these steps.
//!
//! A connection on which several requests come at once stays where it is, and single requests of it are sent by a relay
//! (`relay.rs`). What is known of a peer is how its requests came so far.
//!
//! A PHP thread that has finished takes the first of the queue before a request of its own process that became ready later. Requests
//! whose body still streams in on a connection with other requests cannot be sent; they wait for their own process.
//!
//! # Short, medium and long requests
//!
//! To send a request costs some 40 µs, and so does it to wake the helper thread for what comes while a PHP thread is busy. How much
//! of that is done depends on how long requests mostly take (`watch::Expected`):
//!
//! | requests | while a PHP thread is busy | what waits when it is done |
//! |---|---|---|
//! | long (from 0.5 ms) | the helper reads what comes, and sends it | all of it is in the queue, or with siblings |
//! | medium | the same as long as a sibling is idle; else nobody looks | the PHP thread reads it, and keeps it |
//! | short (less than 0.1 ms) | nobody looks | the PHP thread runs it, in order |
//!
//! A process that keeps requests shows since when the first of them waits. A sibling that is about to run one that became ready
//! later asks for those that are older, through the lane, and the helper puts them into the queue. A sibling that becomes idle asks
//! all that keep some, or do not look: so there too, whoever keeps something shows that and then looks for an idle sibling, and
//! whoever becomes idle shows that and then looks who keeps something.
//!
//! A long request among others is noticed after `watch::LONG`; from then on its process does as if all were long.
//!
//! # New connections
//!
//! While a PHP thread has nothing to do it accepts, and keeps the connection unless an idle sibling has fewer. While all are busy,
//! connections wait in the listen queue, which is a queue of the pool by itself: whoever finishes first takes the first. Only when
//! requests on open connections wait as well are new ones accepted at once, so that all are in one order; and beside a request that
//! takes long, where the length of the queue or the time in it is limited. A process that sees a connection and leaves it there says
//! so in the scoreboard (`backlog_since`), for the event tells it alone. Where requests are medium, a PHP thread accepts a few if
//! they have waited longer than what it keeps.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::draining::Drain;
use super::passing::Target;
use super::{Reactor, instant, moment};
use crate::request::Body;
use crate::scoreboard::{Moment, Waits};
use crate::server::handover;
use crate::server::job::Job;
use crate::server::watch::Expected;

/// Requests that became ready within this time of each other count as having become so at once: it is less work to run the one
/// that is here.
const SLACK: Duration = Duration::from_micros(200);

/// A busy process with requests of medium length looks within this time what has come, or is asked to.
const LOOKED_WITHIN: Duration = Duration::from_micros(500);

/// An idle sibling takes what is sent to it within this time, or others do.
const TAKEN_WITHIN: Duration = Duration::from_millis(20);

impl Reactor {
    /// Puts a request among those that wait, by when it became ready.
    pub(super) fn enqueue(&mut self, job: Job) {
        let earlier = |waiting: &Job| waiting.ready <= job.ready;
        let at = self.ready.iter().rposition(earlier).map_or(0, |at| at + 1);
        self.ready.insert(at, job);
    }

    /// Takes one out; it waits no more.
    pub(super) fn dequeue(&mut self, at: usize) -> Option<Job> {
        let mut job = self.ready.remove(at)?;
        self.uncount(&mut job);
        Some(job)
    }

    pub(super) fn uncount(&self, job: &mut Job) {
        if std::mem::take(&mut job.counted) {
            self.sources.slot.remove_queued(job.waits);
        }
    }

    /// The next request to run, for a PHP thread that has nothing to do.
    pub(crate) fn next_job(&mut self) -> Option<Job> {
        loop {
            self.now = Instant::now();
            self.listen_again();
            self.take_older();
            self.ask_older();
            if self.ready.is_empty() {
                self.accept_idle();
            } else {
                self.accept_older();
            }
            let job = self.dequeue(0)?;
            if self.is_unwanted(&job) {
                self.drop_job(job);
                continue;
            }
            if self.is_late(&job) {
                self.refuse_late(job);
                continue;
            }
            self.running.push(Arc::clone(&job.exchange));
            return Some(job);
        }
    }

    /// Takes the first request of the queue, unless one that waits here is older.
    fn take_older(&mut self) {
        if !self.sources.slot.has_queue() {
            return;
        }
        let Some(receiver) = self.sources.lanes.queue_receiver() else {
            return;
        };
        if let Some(job) = self.ready.front() {
            let own = moment(job.ready);
            if handover::peek(receiver).is_none_or(|since| own.since(since) <= SLACK) {
                return;
            }
        }
        self.receive_queued();
    }

    /// Asks the sibling that keeps the request which waits longest to put it into the queue, unless one that waits here is older. That
    /// one is run meanwhile.
    fn ask_older(&self) {
        if self.expected != Expected::Short
            && self.sources.lanes.count() > 0
            && let Some(job) = self.ready.front()
        {
            let than = moment(job.ready).before(SLACK);
            let slot = &self.sources.slot;
            if let Some(lane) = slot.claim_kept(than) {
                self.ask(lane, than);
            } else if let Some(lane) = slot.claim_unwatched(moment(self.now).before(LOOKED_WITHIN))
            {
                // Its PHP thread is off its processor, perhaps.
                self.ask(lane, than);
            }
        }
    }

    /// Asks the owner of `lane` for what waits since before `than`.
    fn ask(&self, lane: u32, than: Moment) {
        if let Some(lane) = self.sources.lanes.sender(lane) {
            // If its lane is full, it has a lot to do at once, and does this as well.
            let _ = handover::ask(lane, than);
        }
    }

    /// A PHP thread is about to wait: siblings may send it something. Returns whether that was not so before: then
    /// [`next_job`](Self::next_job) has to be asked once more.
    pub(crate) fn become_idle(&mut self) -> bool {
        self.set_accepting(true);
        self.set_receiving(true);
        self.is_fresh = false;
        let is_shown = self.is_shown_idle && !std::mem::take(&mut self.was_reserved);
        if is_shown || self.drain.is_some() {
            return false;
        }
        self.is_shown_idle = true;
        self.sources.slot.keep(None);
        self.sources.slot.set_watched();
        self.sources.slot.become_idle();
        if self.sources.lanes.count() > 0 {
            for lane in self.sources.slot.claim_all_kept() {
                // This process gets the first; or whoever is done next, should it be busy with something else by then.
                self.ask(lane, moment(self.now));
            }
        }
        true
    }

    /// No PHP thread of this process has nothing to do.
    pub(crate) fn become_busy(&mut self) {
        self.listen_again();
        if std::mem::take(&mut self.is_shown_idle) {
            // What a sibling sends now waits here, as what becomes ready here does.
            let _ = self.sources.slot.become_busy();
        }
    }

    /// How long requests are likely to take.
    pub(crate) fn set_expected(&mut self, expected: Expected) {
        self.expected = expected;
    }

    /// All PHP threads of this process are busy, or about to be: finds a place for what waits. `is_overdue`: one of them is busy with
    /// a request that has taken long already.
    pub(crate) fn place_waiting(&mut self, is_overdue: bool) {
        let expected = if is_overdue {
            Expected::Long
        } else {
            self.expected
        };
        if expected != Expected::Short || self.pending_listeners != 0 {
            self.leave_listeners();
            self.accept_busy(expected, is_overdue);
        }
        if std::mem::take(&mut self.called) {
            // Another has to look in the place of this process.
            self.call_idle();
        }
        let asked = self.asked.take();
        if self.ready.is_empty() {
            self.keep();
            return;
        }
        if self.drain_mode() == Some(Drain::HandOver) {
            self.hand_over_ready();
            return;
        }
        self.expire_ready();
        self.count_waiting();
        if expected == Expected::Short || self.sources.lanes.count() == 0 {
            // It is about to run, or there are no sibling processes and it is for the threads of this one.
            return;
        }
        let before = if expected == Expected::Long {
            Some(Moment::from_micros(u64::MAX))
        } else {
            asked
        };
        self.send_ready(before);
        if self.keep() && self.sources.slot.has_idle_sibling() {
            self.send_ready(None);
            self.keep();
        }
        self.call_idle();
    }

    /// Sends what waits here to idle siblings, and of the rest what waits since before `before` into the queue.
    fn send_ready(&mut self, before: Option<Moment>) {
        let mut at = 0;
        while at < self.ready.len() {
            if !self.is_movable(&self.ready[at]) {
                at += 1;
            } else if let Some(reservation) = self.sources.slot.reserve_idle() {
                if !self.send_waiting(at, Target::Lane(reservation.lane)) {
                    self.sources.slot.cancel(&reservation);
                    break;
                }
                self.sent.push((reservation, Instant::now()));
            } else if before.is_some_and(|before| moment(self.ready[at].ready) < before)
                && self.send_waiting(at, Target::Queue)
            {
                self.sources.slot.queue_grew();
            } else {
                break;
            }
        }
    }

    /// Shows siblings what waits here for this process, and whether they may ask for something; returns that.
    fn keep(&mut self) -> bool {
        let first = self.ready.iter().find(|job| self.is_movable(job));
        let since = first.map(|job| moment(job.ready));
        self.sources.slot.keep(since);
        since.is_some()
    }

    /// Has a sibling that has become idle look into the queue, if there is something in it: it has perhaps not seen that.
    fn call_idle(&mut self) {
        if self.sources.slot.has_queue()
            && let Some(reservation) = self.sources.slot.reserve_idle()
        {
            let lane = self.sources.lanes.sender(reservation.lane);
            if lane.is_some_and(|lane| handover::call(lane).is_ok()) {
                self.sent.push((reservation, Instant::now()));
            } else {
                self.sources.slot.cancel(&reservation);
            }
        }
    }

    /// A request begins on this connection, and the helper waits for events. Clients often send the next request while this one's
    /// thread is about to be free: that is not to wake the helper.
    pub(crate) fn let_rest(&mut self, token: u64) {
        if let Some(index) = self.index(token)
            && self.connections[index].runs_alone()
            && let Some(exchange) = self.running.last()
        {
            exchange.let_rest();
        }
    }

    /// Requests that run take long: their clients may abort them.
    pub(crate) fn watch_running(&mut self) {
        for token in self.connections.tokens(|connection| !connection.is_quiet()) {
            if let Some(index) = self.index(token) {
                self.connections[index].output().set_resting(false);
            }
            self.settle(token);
        }
    }

    /// Whether a request waits here.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether a PHP thread that has nothing to do has not accepted all connections that there may be.
    pub(crate) fn may_have_connections(&self) -> bool {
        self.pending_listeners != 0 && self.may_accept()
    }

    /// Whether something is to be done by the helper though nothing has happened: connections that have been seen and left.
    pub(crate) fn has_pending(&self) -> bool {
        self.pending_listeners != 0
    }

    /// Whether a request waits, or may wait since one here takes long.
    pub(crate) fn may_wait(&self, is_long: bool) -> bool {
        let scoreboard = &self.sources.scoreboard;
        is_long || scoreboard.queued() > 0 || scoreboard.backlog_since().is_some()
    }

    /// Counts requests that wait here as such, and refuses those that are too many.
    fn count_waiting(&mut self) {
        let limit = self.sources.limits.queue;
        let mut at = 0;
        while at < self.ready.len() {
            if self.ready[at].counted || self.sources.slot.add_queued(self.ready[at].waits, limit) {
                self.ready[at].counted = true;
                at += 1;
            } else if let Some(job) = self.ready.remove(at) {
                self.refuse_for_want_of_room(job);
            }
        }
    }

    /// Whether a sibling could run a request that waits here.
    fn is_movable(&self, job: &Job) -> bool {
        let Some(index) = self.index(job.token) else {
            return false;
        };
        let connection = &self.connections[index];
        if connection.is_shared() {
            !matches!(job.body, Body::Stream(_))
        } else {
            connection.output().is_flushed()
        }
    }

    /// Sends the request at this place; false if that is impossible now, and it stays.
    fn send_waiting(&mut self, at: usize, target: Target) -> bool {
        // It stays counted on its way.
        let Some(job) = self.ready.remove(at) else {
            return false;
        };
        match self.send_job(job, target) {
            Ok(()) => true,
            Err(job) => {
                self.enqueue(job);
                false
            }
        }
    }

    /// A new connection could be run by an idle sibling that has fewer than `connections`, or by any if none is given. Returns it
    /// if it stays here.
    pub(super) fn spread(&mut self, socket: OwnedFd, connections: Option<u32>) -> Option<OwnedFd> {
        if connections == Some(0) || self.sources.lanes.count() == 0 {
            return Some(socket);
        }
        let slot = &self.sources.slot;
        let Some(reservation) = slot.reserve_idle_below(connections.unwrap_or(u32::MAX)) else {
            return Some(socket);
        };
        let back = self.pass_on(socket, Target::Lane(reservation.lane));
        if back.is_some() {
            self.sources.slot.cancel(&reservation);
            // It was reserved meanwhile for those who look for an idle one.
            self.call_idle();
        } else {
            self.sent.push((reservation, Instant::now()));
        }
        back
    }

    /// Takes back what siblings have not taken in time: they are stopped, or not given a processor.
    pub(super) fn take_back(&mut self) {
        let now = self.now;
        let is_late = |since: Instant| now.saturating_duration_since(since) >= TAKEN_WITHIN;
        while let Some(at) = self.sent.iter().position(|(_, since)| is_late(*since)) {
            let (reservation, _) = self.sent.swap_remove(at);
            if self.sources.slot.has_not_taken(&reservation) {
                self.receive_lane(reservation.lane);
                self.call_idle();
                // When it goes on, it is to show itself again.
                let lane = self.sources.lanes.sender(reservation.lane);
                let _ = lane.map(handover::call);
            }
        }
    }

    /// Either connections are known to wait in a listen queue, or somebody is told when there are any: idle processes are, and else
    /// whoever has taken what waited listens again.
    fn listen_again(&mut self) {
        if self.accepting.is_none()
            && self.sources.scoreboard.backlog_since().is_none()
            && !self.sources.slot.has_idle_sibling()
        {
            self.set_accepting(true);
        }
    }

    /// A PHP thread has nothing to do: takes new connections until one has brought a request.
    fn accept_idle(&mut self) {
        if self.sources.scoreboard.backlog_since().is_some() && self.may_accept() {
            // Before looking: what comes after that is said again.
            self.sources.scoreboard.take_backlog();
            self.pending_listeners = u64::MAX;
        }
        if self.pending_listeners == 0 || !self.may_accept() {
            return;
        }
        // With others waiting who have been read, all are to be in one order.
        let all = self.reads_all(self.expected) && self.sources.scoreboard.queued_open() > 0;
        self.accept(all);
    }

    /// Whether requests are sent as soon as they are ready, or have nowhere to be sent, so that those of new connections are read
    /// whenever others wait.
    fn reads_all(&self, expected: Expected) -> bool {
        match expected {
            Expected::Short => false,
            Expected::Medium => self.sources.lanes.count() == 0,
            Expected::Long => true,
        }
    }

    /// Where that is not so: takes a few new connections if they have waited longer than what waits here.
    fn accept_older(&mut self) {
        if self.expected != Expected::Medium || self.reads_all(self.expected) || !self.may_accept()
        {
            return;
        }
        let scoreboard = &self.sources.scoreboard;
        let (Some(since), Some(job)) = (scoreboard.backlog_since(), self.ready.front()) else {
            return;
        };
        if moment(job.ready).since(since) <= SLACK {
            return;
        }
        scoreboard.take_backlog();
        self.pending_listeners = u64::MAX;
        // They have become ready some time between then and now.
        let now = std::mem::replace(&mut self.now, instant(since));
        self.accept_some();
        self.now = now;
    }

    /// All PHP threads are busy: new connections go to siblings that are not, or wait.
    fn accept_busy(&mut self, expected: Expected, is_overdue: bool) {
        if !self.may_accept() {
            return;
        }
        let waits = |reactor: &Self| {
            is_overdue && reactor.has_queue_limit()
                || reactor.reads_all(expected)
                    && (reactor.ready.iter().any(|job| job.waits == Waits::OnOpen)
                        || reactor.sources.scoreboard.queued_open() > 0)
        };
        if self.pending_listeners == 0 {
            if self.sources.scoreboard.backlog_since().is_none() || !waits(self) {
                return;
            }
            // Connections have been left where they were, and come before what waits now.
            self.sources.scoreboard.take_backlog();
            self.pending_listeners = u64::MAX;
        }
        while self.pending_listeners != 0 && self.sources.slot.has_idle_sibling() {
            if !self.accept_one(None) {
                return;
            }
        }
        if self.pending_listeners == 0 {
            return;
        }
        if waits(self) {
            self.accept(true);
            self.set_accepting(true);
        } else {
            self.pending_listeners = 0;
            // Those that have been told may have been accepted; the process manager goes by this.
            if self.has_backlog() {
                self.sources.scoreboard.set_backlog_since(moment(self.now));
                // More of them would tell nothing new.
                self.set_accepting(false);
            }
        }
    }

    /// A process that is busy for some time with a new connection, or is told of one, does not want to hear of others as long as a
    /// sibling can take them.
    fn leave_listeners(&mut self) {
        let is_fresh = std::mem::take(&mut self.is_fresh);
        if (is_fresh || self.pending_listeners != 0)
            && self.accepting.is_some()
            && self.sources.slot.has_idle_sibling()
        {
            self.set_accepting(false);
            if self.has_backlog() {
                // This process alone may have been told of it.
                self.pending_listeners = u64::MAX;
            }
        }
    }

    fn may_accept(&self) -> bool {
        self.drain.is_none() && self.suspended.is_none()
    }

    /// Whether something is in the channel of the pool.
    pub(super) fn channel_has_connections(&self) -> bool {
        self.channel_is(PollFlags::IN, &self.sources.handover.receive)
    }
}
