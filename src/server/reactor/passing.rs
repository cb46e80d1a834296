//! Passing work to other processes: whole connections through lanes and the hand-over channel, and single requests of a shared
//! connection through relays.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::draining::Cause;
use super::idle_sources::Origin;
use super::{RELAY, Reactor, Waited, instant, moment};
use crate::scoreboard::{Moment, Waits};
use crate::server::connection::Connection;
use crate::server::handover::{self, Label, Lost, Message, Parcel};
use crate::server::job::Job;
use crate::server::relay::{Progress, Relay};

/// Where a connection or a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// To any process of the pool that goes on when this one ends.
    Channel,
    /// To the sibling that has this lane.
    Lane(u32),
    /// To whichever sibling is next to have nothing to do.
    Queue,
}

impl Reactor {
    /// What a process does with requests that are ready when it is to end and others go on.
    pub(crate) fn hand_over_ready(&mut self) {
        let mut waiting = std::mem::take(&mut self.ready);
        while let Some(mut job) = waiting.pop_front() {
            if self.index(job.token).is_none() {
                self.uncount(&mut job);
                continue;
            }
            if self.is_unwanted(&job) {
                self.drop_job(job);
            } else if let Err(job) = self.send_job(job, Target::Channel) {
                self.ready.push_back(job);
            }
        }
    }

    /// Has another process run a request. It comes back if that is impossible now.
    pub(super) fn send_job(&mut self, job: Job, target: Target) -> Result<(), Job> {
        let Some(index) = self.index(job.token) else {
            return Err(job);
        };
        let connection = &self.connections[index];
        if connection.is_shared() && target != Target::Channel || connection.dispatched() > 1 {
            return self.relay(job, target);
        }
        if !connection.output().is_flushed() {
            return Err(job);
        }
        match self.hand_over(job.token, Some(job), target) {
            Err(Some(job)) => Err(job),
            Ok(()) | Err(None) => Ok(()),
        }
    }

    fn sender(&self, target: Target) -> Option<BorrowedFd<'_>> {
        match target {
            Target::Channel => Some(self.sources.handover.send.as_fd()),
            Target::Lane(lane) => self.sources.lanes.sender(lane),
            Target::Queue => self.sources.lanes.queue_sender(),
        }
    }

    /// Counts a request that is about to be sent as one that waits, unless it is. False if the pool has as many as it may.
    fn count_sent(&self, job: &mut Job, target: Target) -> bool {
        // For the next generation it goes by how many wait there.
        let limit = match (self.drain, target) {
            (Some(Cause::Generation), Target::Channel) => u32::MAX,
            _ => self.sources.limits.queue,
        };
        job.counted = job.counted || self.sources.slot.add_queued(job.waits, limit);
        job.counted
    }

    /// Has a sibling run a request that shares its connection with one that runs here.
    fn relay(&mut self, mut job: Job, target: Target) -> Result<(), Job> {
        let Some(bytes) = Connection::relayed(&job) else {
            return Err(job);
        };
        if !self.has_room(target) {
            return Err(job);
        }
        if !self.count_sent(&mut job, target) {
            self.refuse_for_want_of_room(job);
            return Ok(());
        }
        let label = self.label(Some((moment(job.ready), job.waits)));
        let slot = &self.sources.slot;
        let sender = match target {
            Target::Channel => Some(self.sources.handover.send.as_fd()),
            Target::Lane(lane) => self.sources.lanes.sender(lane),
            Target::Queue => self.sources.lanes.queue_sender(),
        };
        let entry = self.relays.vacant_entry();
        let token = RELAY + entry.key() as u64;
        let sent = Relay::new(Arc::clone(&job.exchange), job.token).and_then(|(relay, theirs)| {
            relay.register(&self.epoll, token)?;
            let sender = sender.ok_or(Errno::NOTCONN)?;
            handover::send(sender, theirs.as_fd(), &bytes, label)?;
            Ok(relay)
        });
        match sent {
            Ok(relay) => {
                entry.insert(relay);
                // The pool has one connection more, which nobody owns while it is on its way.
                let _ = slot.add_connection(u32::MAX);
                slot.connection_handed_over();
                slot.request_handed_over(job.waits);
                Ok(())
            }
            Err(error) => {
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
            relay.tell_again(&self.epoll, RELAY + index as u64);
            return;
        }
        let relay = self.relays.remove(index);
        let connection = relay.connection();
        if progress == Progress::Lost {
            self.warn("a sibling process ended while it answered a request of ours");
            let others = self
                .index(connection)
                .map_or(0, |index| self.connections[index].dispatched());
            relay.end_lost(others <= 1);
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

    /// Sends a connection, with the request on it that has not started. If there is no room now, it stays as it is, and the
    /// request comes back.
    pub(super) fn hand_over(
        &mut self,
        token: u64,
        mut job: Option<Job>,
        target: Target,
    ) -> Result<(), Option<Job>> {
        let Some(index) = self.index(token) else {
            return Ok(());
        };
        if !self.has_room(target) {
            return Err(job);
        }
        if let Some(waiting) = &mut job
            && !self.count_sent(waiting, target)
        {
            if let Some(job) = job {
                self.refuse_for_want_of_room(job);
            }
            return Ok(());
        }
        let waits = job.as_ref().map(|job| (moment(job.ready), job.waits));
        let connection = &self.connections[index];
        let sent = self
            .sender(target)
            .ok_or(Errno::NOTCONN)
            .and_then(|sender| {
                handover::send(
                    sender,
                    connection.output().socket(),
                    &connection.replay(job.as_ref()),
                    self.label(waits),
                )
            });
        match sent {
            Ok(()) => {
                connection.output().deregister();
                self.sources.slot.connection_handed_over();
                if let Some(job) = job {
                    // It is not answered here.
                    job.exchange.disown();
                    self.sources.slot.request_handed_over(job.waits);
                }
                let connection = self.connections.remove(index);
                if connection.deadline().is_some() {
                    self.clocked -= 1;
                }
                self.held = self.held.saturating_sub(connection.held());
                Ok(())
            }
            Err(error) if is_want_of_room(error) => {
                self.tell_want_of_room(error);
                Err(job)
            }
            Err(error) => {
                if let Some(mut job) = job {
                    self.uncount(&mut job);
                }
                self.warn(&format!(
                    "a connection could not be handed over and is closed: {error}"
                ));
                self.remove(index);
                Ok(())
            }
        }
    }

    /// Sends a new connection; it comes back if that is impossible now.
    pub(super) fn pass_on(&mut self, socket: OwnedFd, target: Target) -> Option<OwnedFd> {
        let sender = self.sender(target).ok_or(Errno::NOTCONN);
        match sender
            .and_then(|sender| handover::send(sender, socket.as_fd(), &[], self.label(None)))
        {
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
    fn label(&self, request: Option<(Moment, Waits)>) -> Label {
        Label {
            queued_since: request.map(|(since, _)| since),
            waits: request.map_or(Waits::OnOpen, |(_, waits)| waits),
            scoreboard: self.sources.scoreboard.id(),
        }
    }

    /// Counts a connection that has come from another process, and its request; returns whether the latter is counted as one that
    /// waits. What a generation with another scoreboard has sent is counted there, by which nobody goes any more when that
    /// generation has ended.
    fn count_taken_over(&self, label: Label) -> bool {
        let slot = &self.sources.slot;
        if label.scoreboard != self.sources.scoreboard.id() {
            slot.foreign_connection_taken_over();
            return false;
        }
        slot.connection_taken_over();
        if label.queued_since.is_some() {
            slot.request_taken_over(label.waits);
        }
        label.queued_since.is_some()
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

    /// The channel is full at times, when a whole generation drains; what is to be sent is made for nothing then.
    fn has_room(&self, target: Target) -> bool {
        target != Target::Channel || self.channel_is(PollFlags::OUT, &self.sources.handover.send)
    }

    pub(super) fn channel_is(&self, flags: PollFlags, channel: &OwnedFd) -> bool {
        let mut wanted = [PollFd::new(channel, flags)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        matches!(poll(&mut wanted, Some(&now)), Ok(1)) && wanted[0].revents().contains(flags)
    }

    /// Takes a connection out of the hand-over channel.
    pub(super) fn receive_handover(&mut self) {
        match handover::receive(self.sources.handover.receive.as_fd()) {
            Ok(Some(Message::Parcel(parcel))) => self.take_over(parcel),
            // A sibling was faster. (Nothing else is said there.)
            Ok(_) => {}
            Err(lost) => self.lose(&lost),
        }
    }

    /// Takes what siblings have sent into a lane.
    pub(super) fn receive_lane(&mut self, lane: u32) {
        let (mut has_asked, mut has_sent) = (false, false);
        while let Some(receiver) = self.sources.lanes.receiver(lane) {
            match handover::receive(receiver) {
                Ok(Some(Message::Parcel(parcel))) => {
                    has_sent = true;
                    self.awaited = None;
                    self.take_over(parcel);
                }
                Ok(Some(Message::Look)) => {
                    has_sent = true;
                    self.called = true;
                }
                Ok(Some(Message::Give(than))) => {
                    has_asked = true;
                    self.asked = self.asked.max(Some(than));
                }
                Ok(None) => break,
                Err(lost) => {
                    has_sent = true;
                    let is_over = lost.label.is_none();
                    self.lose(&lost);
                    if is_over {
                        break;
                    }
                }
            }
        }
        // Whoever sends has reserved this process (another may have taken that, where processes share a lane): it is shown as idle
        // again when it is about to wait. Who only asks has not.
        self.was_reserved |= has_sent || !has_asked;
    }

    /// Takes the first request out of the queue, if there is one.
    pub(super) fn receive_queued(&mut self) {
        let Some(receiver) = self.sources.lanes.queue_receiver() else {
            return;
        };
        if !self.sources.slot.claim_queued() {
            return;
        }
        match handover::receive(receiver) {
            Ok(Some(Message::Parcel(parcel))) => self.take_over(parcel),
            Ok(Some(Message::Look | Message::Give(_)) | None) => {}
            Err(lost) => self.lose(&lost),
        }
    }

    fn take_over(&mut self, parcel: Parcel) {
        let counted = self.count_taken_over(parcel.label);
        let waited = parcel.label.queued_since.map(|since| Waited {
            since: instant(since),
            waits: parcel.label.waits,
            counted,
        });
        self.adopt(parcel.socket, &parcel.bytes, Origin::Sibling(waited));
    }

    fn lose(&mut self, lost: &Lost) {
        let Lost { error, label } = lost;
        if let Some(label) = label {
            if self.count_taken_over(*label) {
                self.sources.slot.remove_queued(label.waits);
            }
            self.sources.slot.connection_closed();
        }
        self.warn(&format!(
            "a connection was lost on its way from a sibling: {error}"
        ));
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
