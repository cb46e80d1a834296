//! Passing work between sibling processes: whole connections through the hand-over channel, and single requests of a shared
//! connection through relays.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read};

use super::draining::Cause;
use super::draining::Drain;
use super::{RELAY, Reactor, wake};
use crate::descriptor::high_fd;
use crate::scoreboard::Moment;
use crate::server::connection::Connection;
use crate::server::handover::{self, Label, Lost};
use crate::server::job::Job;
use crate::server::relay::{Progress, Relay};

/// Requests that threads of one process have for each other.
#[derive(Debug)]
pub(crate) struct ThreadQueue {
    jobs: Mutex<VecDeque<Job>>,
    /// Counts them, for epoll.
    ready: OwnedFd,
    /// PHP threads that may run them.
    runners: AtomicUsize,
}

impl ThreadQueue {
    pub(crate) fn new() -> Result<Self, Errno> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE;
        Ok(Self {
            jobs: Mutex::new(VecDeque::new()),
            ready: high_fd(eventfd(0, flags)?),
            runners: AtomicUsize::new(0),
        })
    }

    fn has_runner(&self) -> bool {
        self.runners.load(Ordering::SeqCst) > 0
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }

    fn push(&self, job: Job) {
        self.jobs.lock().push_back(job);
        wake(&self.ready);
    }

    pub(super) fn pop(&self) -> Option<Job> {
        let mut count = [0; 8];
        // Whoever takes one from the count may take one from the queue.
        read(&self.ready, &mut count).ok()?;
        self.jobs.lock().pop_front()
    }

    /// Since when the one that has been longest in it waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.jobs.lock().front().map(|job| job.ready)
    }
}

impl Reactor {
    /// What a busy process does with requests that are ready: they go where somebody can run them.
    pub(crate) fn hand_over_ready(&mut self) {
        if let Some(queue) = &self.sources.queue {
            let queue = Arc::clone(queue);
            if queue.has_runner() || self.drain_mode() != Some(Drain::HandOver) {
                while let Some(job) = self.ready.pop_front() {
                    self.share(&queue, job);
                }
                return;
            }
            // All threads are stuck, and another process takes over: it gets what waits for them, connections and all.
            while let Some(job) = queue.pop() {
                self.sources.slot.remove_queued();
                self.send_home(job);
            }
        }
        let mut waiting = std::mem::take(&mut self.ready);
        while let Some(job) = waiting.pop_front() {
            let Some(index) = self.index(job.token) else {
                continue;
            };
            if self.is_unwanted(&job) {
                self.drop_job(job);
                continue;
            }
            let connection = &self.connections[index];
            if connection.dispatched() > 1 {
                if let Err(job) = self.relay(job) {
                    self.ready.push_back(job);
                }
                continue;
            }
            if !connection.output().is_flushed() {
                self.ready.push_back(job);
                continue;
            }
            let token = job.token;
            if let Err(job) = self.hand_over(token, Some(job)) {
                self.ready.extend(job);
                break;
            }
        }
        self.ready.append(&mut waiting);
    }

    /// Gives a request that nobody here will run back to who has its connection.
    fn send_home(&mut self, mut job: Job) {
        match job.home.take() {
            Some(home) if !Arc::ptr_eq(&home, &self.home) => home.give_back(job),
            _ => self.take_back(job),
        }
    }

    /// A request of a connection of ours that nobody has run.
    pub(super) fn take_back(&mut self, job: Job) {
        self.running
            .retain(|running| !Arc::ptr_eq(running, &job.exchange));
        self.ready.push_back(job);
    }

    /// Whether the PHP thread of this reactor may run requests of all.
    pub(crate) fn set_running(&mut self, runs: bool) {
        let Some(queue) = &self.sources.queue else {
            return;
        };
        if std::mem::replace(&mut self.runs, runs) != runs {
            if runs {
                queue.runners.fetch_add(1, Ordering::SeqCst);
            } else {
                queue.runners.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Lets any thread of this process run a request.
    fn share(&mut self, queue: &ThreadQueue, mut job: Job) {
        if self.is_unwanted(&job) {
            return self.drop_job(job);
        }
        if !self.sources.slot.add_queued(self.sources.limits.queue) {
            return self.refuse_for_want_of_room(job);
        }
        if job.home.is_none() {
            self.running.push(Arc::clone(&job.exchange));
            job.home = Some(Arc::clone(&self.home));
        }
        queue.push(job);
    }

    /// Has a sibling run a request that shares its connection with one that runs here.
    fn relay(&mut self, job: Job) -> Result<(), Job> {
        let Some(bytes) = Connection::relayed(&job) else {
            return Err(job);
        };
        if !self.channel_has_room() {
            return Err(job);
        }
        let slot = &self.sources.slot;
        if !slot.add_queued(self.sources.limits.queue) {
            self.refuse_for_want_of_room(job);
            return Ok(());
        }
        let label = self.label(Some(moment(job.ready)));
        let entry = self.relays.vacant_entry();
        let token = RELAY + entry.key() as u64;
        let sent = Relay::new(Arc::clone(&job.exchange), job.token).and_then(|(relay, theirs)| {
            relay.register(&self.epoll, token)?;
            handover::send(
                self.sources.handover.send.as_fd(),
                theirs.as_fd(),
                &bytes,
                label,
            )?;
            Ok(relay)
        });
        match sent {
            Ok(relay) => {
                entry.insert(relay);
                // The pool has one connection more, which nobody owns while it is on its way.
                let _ = slot.add_connection(u32::MAX);
                slot.connection_handed_over();
                slot.request_handed_over();
                Ok(())
            }
            Err(error) => {
                slot.remove_queued();
                if is_want_of_room(error) {
                    self.tell_want_of_room(error);
                } else {
                    self.warn(&format!(
                        "a request could not be passed to a sibling: {error}"
                    ));
                }
                Err(job)
            }
        }
    }

    pub(super) fn relay_event(&mut self, index: usize) {
        let Some(relay) = self.relays.get_mut(index) else {
            return;
        };
        let progress = relay.read(&mut self.scratch);
        if progress == Progress::Open {
            relay.pace(&self.epoll, RELAY + index as u64);
            return;
        }
        let connection = self.relays.remove(index).connection();
        if progress == Progress::Lost {
            self.warn("a sibling process ended while it answered a request of ours");
        }
        self.settle(connection);
    }

    pub(super) fn look_after_relays(&mut self) {
        let mut gone = Vec::new();
        for (index, relay) in &mut self.relays {
            if relay.is_gone() {
                gone.push(index);
            } else {
                relay.pace(&self.epoll, RELAY + index as u64);
            }
        }
        for index in gone {
            let relay = self.relays.remove(index);
            let connection = relay.connection();
            relay.abandon();
            self.settle(connection);
        }
    }

    /// Puts a connection into the hand-over channel, with the request on it that has not started. If there is no room now, it stays
    /// as it is, and the request comes back.
    pub(super) fn hand_over(&mut self, token: u64, job: Option<Job>) -> Result<(), Option<Job>> {
        let Some(index) = self.index(token) else {
            return Ok(());
        };
        let connection = &self.connections[index];
        if !self.channel_has_room() {
            return Err(job);
        }
        let queued_since = job.as_ref().map(|job| moment(job.ready));
        let counts = queued_since.is_some();
        // For the next generation it goes by how many wait there.
        let limit = match self.drain {
            Some(Cause::Generation) => u32::MAX,
            Some(Cause::Quit) | None => self.sources.limits.queue,
        };
        if counts && !self.sources.slot.add_queued(limit) {
            if let Some(job) = job {
                self.refuse_for_want_of_room(job);
            }
            return Ok(());
        }
        match handover::send(
            self.sources.handover.send.as_fd(),
            connection.output().socket(),
            &connection.replay(job.as_ref()),
            self.label(queued_since),
        ) {
            Ok(()) => {
                connection.output().deregister();
                if let Some(job) = job {
                    // It is not answered here.
                    job.exchange.disown();
                }
                self.sources.slot.connection_handed_over();
                if counts {
                    self.sources.slot.request_handed_over();
                }
                let connection = self.connections.remove(index);
                if connection.deadline().is_some() {
                    self.clocked -= 1;
                }
                self.held = self.held.saturating_sub(connection.held());
                Ok(())
            }
            Err(error) => {
                if counts {
                    self.sources.slot.remove_queued();
                }
                if is_want_of_room(error) {
                    self.tell_want_of_room(error);
                    return Err(job);
                }
                self.warn(&format!(
                    "a connection could not be handed over and is closed: {error}"
                ));
                self.remove(index);
                Ok(())
            }
        }
    }

    /// Gives a new connection to whichever process takes it first; back if that is impossible now.
    pub(super) fn pass_on(&mut self, socket: OwnedFd) -> Option<OwnedFd> {
        let channel = self.sources.handover.send.as_fd();
        match handover::send(channel, socket.as_fd(), &[], self.label(None)) {
            Ok(()) => {
                self.sources.slot.connection_handed_over();
                None
            }
            Err(error) => {
                self.tell_want_of_room(error);
                Some(socket)
            }
        }
    }

    /// What is written on what we pass on.
    fn label(&self, queued_since: Option<Moment>) -> Label {
        Label {
            queued_since,
            scoreboard: self.sources.scoreboard.id(),
        }
    }

    /// Counts a connection that has come out of the channel, and its request as one that waits no more. What a generation with
    /// another scoreboard has put in is counted there, by which nobody goes any more when that generation has ended.
    fn count_taken_over(&self, label: Label) {
        let slot = &self.sources.slot;
        if label.scoreboard != self.sources.scoreboard.id() {
            slot.foreign_connection_taken_over();
            return;
        }
        slot.connection_taken_over();
        if label.queued_since.is_some() {
            slot.request_taken_over();
            slot.remove_queued();
        }
    }

    /// Says why waiting requests stay in this process, unless it is that the channel is full, which is as it should be.
    fn tell_want_of_room(&mut self, error: Errno) {
        if error != Errno::AGAIN {
            self.tell_want(&format!(
                "no more connections can be passed on to other processes of the pool now ({error}): a user may have as many on \
                 their way as files open in a process; raise that limit (rlimit_files, ulimit -n, LimitNOFILE=). They wait where \
                 they are"
            ));
        }
    }

    fn channel_has_room(&self) -> bool {
        self.channel_is(PollFlags::OUT, &self.sources.handover.send)
    }

    pub(super) fn channel_is(&self, flags: PollFlags, channel: &OwnedFd) -> bool {
        let mut wanted = [PollFd::new(channel, flags)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        matches!(poll(&mut wanted, Some(&now)), Ok(1)) && wanted[0].revents().contains(flags)
    }

    /// Takes what others have put into the channel and into the queue of this process's threads: one of each.
    pub(super) fn receive(&mut self) {
        if self.receiving_queue
            && let Some(queue) = &self.sources.queue
            && let Some(job) = queue.pop()
        {
            self.sources.slot.remove_queued();
            self.ready.push_back(job);
        }
        if self.receiving {
            self.receive_handover();
        }
    }

    pub(super) fn receive_handover(&mut self) {
        match handover::receive(self.sources.handover.receive.as_fd()) {
            Ok(Some(parcel)) => {
                self.count_taken_over(parcel.label);
                let since = parcel.label.queued_since.map(instant);
                self.adopt(parcel.socket, &parcel.bytes, Some(since));
            }
            Ok(None) => {} // a sibling was faster
            Err(Lost { error, label }) => {
                if let Some(label) = label {
                    self.count_taken_over(label);
                    self.sources.slot.connection_closed();
                }
                self.warn(&format!(
                    "a connection was lost on its way from a sibling: {error}"
                ));
            }
        }
    }
}

/// Whether what could not be put into the channel may be tried again: the channel is full, or the system has no room for more on
/// its way.
fn is_want_of_room(error: Errno) -> bool {
    matches!(
        error,
        Errno::AGAIN
            | Errno::TOOMANYREFS
            | Errno::NOBUFS
            | Errno::NOMEM
            | Errno::MFILE
            | Errno::NFILE
    )
}

/// The same moment on the clock that processes share.
fn moment(instant: Instant) -> Moment {
    Moment::now().before(instant.elapsed())
}

fn instant(moment: Moment) -> Instant {
    let now = Instant::now();
    now.checked_sub(Moment::now().since(moment)).unwrap_or(now)
}
