//! Where a reactor's connections come from: listeners and other processes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::draining::Drain;
use super::passing::Target;
use super::{Connection, HANDOVER, LISTENER, Output, Reactor, Waited};
use crate::descriptor::high_fd;
use crate::log;
use crate::scoreboard::Waits;
use crate::server::watch::Expected;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// It is new.
    Listener,
    /// Another process has had it; so the request that comes with it, if there is one, has waited.
    Sibling(Option<Waited>),
}

/// How epoll tells of new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepting {
    /// Once for all that there are: whoever is told takes them until there are none. The helper, which waits in the same epoll,
    /// is not woken for what a PHP thread has been told of.
    All,
    /// As long as there are any: so a PHP thread takes one at a time, and need not find out that there is none left. That would cost
    /// a small request too much.
    One,
}

impl Accepting {
    fn flags(self) -> EventFlags {
        match self {
            Self::All => EventFlags::IN | EventFlags::ET,
            Self::One => EventFlags::IN,
        }
    }
}

/// How often a new connection is read again at once.
const MORE_READS: u32 = 2;

/// Connections that are accepted in one turn, at most: others send, and end, meanwhile.
const AT_ONCE: usize = 8;
/// The same where all are to be in one order.
const ALL_AT_ONCE: usize = 256;

impl Reactor {
    /// Takes new connections from listeners that may have some: until one has brought a request, or all that there are.
    pub(super) fn accept(&mut self, all: bool) {
        let most = if all { ALL_AT_ONCE } else { AT_ONCE };
        for _ in 0..most {
            if !all && !self.ready.is_empty() {
                if self.accepting == Some(Accepting::One) {
                    // If there are more, that is told again.
                    self.pending_listeners = 0;
                }
                return;
            }
            if self.pending_listeners == 0 {
                return;
            }
            let connections = self.sources.slot.connections();
            if !self.accept_one(Some(connections)) {
                return;
            }
        }
    }

    /// Takes some of the new connections that there are.
    pub(super) fn accept_some(&mut self) {
        for _ in 0..AT_ONCE {
            let connections = self.sources.slot.connections();
            if self.pending_listeners == 0 || !self.accept_one(Some(connections)) {
                return;
            }
        }
    }

    /// Takes a new connection, which goes to an idle sibling with fewer than `connections`, or to any if none is given; if there is
    /// no such sibling, it stays here. False if no more can be taken for now.
    pub(super) fn accept_one(&mut self, connections: Option<u32>) -> bool {
        let count = self.sources.listeners.len();
        let next = (0..count)
            .map(|index| (self.next_listener + index) % count)
            .find(|index| self.pending_listeners & 1 << index.min(&63) != 0);
        let Some(index) = next else {
            self.pending_listeners = 0;
            return false;
        };
        self.next_listener = index + 1;
        let full = self.is_full();
        // What waits has woken nobody but us.
        if full && !self.sources.scoreboard.has_process_below(self.room / 8 * 7) {
            self.suspend_for("no descriptor is left for a connection");
            return false;
        }
        // Whoever has room takes one after the other: those on their way are in nobody's count.
        if full && self.channel_has_connections() {
            self.suspend();
            return false;
        }
        if self.sources.scoreboard.connections() >= self.sources.limits.connections {
            self.warn(&format!(
                "{} connections are open, as many as limit.connections (--max-connections) allows: new ones wait",
                self.sources.limits.connections
            ));
            self.suspend();
            return false;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match accept_with(&self.sources.listeners[index], flags) {
            Ok(socket) if !self.sources.allowed.admits(&socket) => {}
            Ok(socket) => {
                // The limit has been looked at; siblings may exceed it by one each.
                let _ = self.sources.slot.add_connection(u32::MAX);
                let socket = if full {
                    self.pass_on(socket, Target::Channel)
                } else {
                    self.spread(socket, connections)
                };
                if let Some(socket) = socket {
                    self.is_fresh = true;
                    self.adopt(socket, &[], Origin::Listener);
                    if full {
                        // It takes one beyond its room, and seldom another.
                        self.suspend_until(Instant::now() + Duration::from_secs(1));
                        return false;
                    }
                }
            }
            Err(Errno::AGAIN) => self.pending_listeners &= !(1 << index.min(63)),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                self.suspend_for(&format!("accept: {error}"));
                return false;
            }
            Err(error) => {
                self.pending_listeners &= !(1 << index.min(63));
                self.warn(&format!("accept: {error}"));
            }
        }
        true
    }

    /// Whether connections wait in a listen queue.
    pub(super) fn has_backlog(&self) -> bool {
        let listeners = &self.sources.listeners;
        listeners
            .iter()
            .any(|listener| self.channel_is(PollFlags::IN, listener))
    }

    /// Passes some of those that wait in the listen queues on, when this process ends: it alone may have been told of them, and took
    /// the listeners out of epoll before it saw that.
    pub(super) fn pass_on_waiting(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for index in 0..self.sources.listeners.len() {
            for _ in 0..AT_ONCE {
                let Ok(socket) = accept_with(&self.sources.listeners[index], flags) else {
                    break;
                };
                if self.sources.allowed.admits(&socket) {
                    let _ = self.sources.slot.add_connection(u32::MAX);
                    if let Some(socket) = self.pass_on(socket, Target::Channel) {
                        self.adopt(socket, &[], Origin::Listener);
                    }
                }
            }
        }
    }

    /// Takes all that wait in the listen queues when the pool stops: closing those would reset them.
    pub(super) fn accept_waiting(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for index in 0..self.sources.listeners.len() {
            while !self.is_full()
                && let Ok(socket) = accept_with(&self.sources.listeners[index], flags)
            {
                if self.sources.allowed.admits(&socket) {
                    let _ = self.sources.slot.add_connection(u32::MAX);
                    self.adopt(socket, &[], Origin::Listener);
                }
            }
        }
    }

    /// Whether scripts would have too few descriptors with another connection here.
    pub(super) fn is_full(&self) -> bool {
        let lingering = u32::try_from(self.lingering.len()).unwrap_or(u32::MAX);
        self.sources.slot.connections().saturating_add(lingering) >= self.room
    }

    /// Makes a connection of ours of a socket, and reads it at once: most have sent their request already. `bytes` have been read
    /// from it before.
    pub(super) fn adopt(&mut self, socket: OwnedFd, bytes: &[u8], origin: Origin) {
        let (passed_on, waited) = match origin {
            Origin::Listener => (false, None),
            Origin::Sibling(waited) => (true, waited),
        };
        let output = Arc::new(Output::new(
            high_fd(socket),
            self.sources.limits.output_buffer,
        ));
        let connection = Connection::new(output, &self.sources.limits, passed_on);
        let index = self.connections.insert(connection);
        let token = self.connections.token(index);
        if !bytes.is_empty() && !self.feed(index, bytes, waited) {
            return;
        }
        // Most have sent their request already; one that waited with a sibling may have been aborted meanwhile.
        if passed_on || self.connections[index].is_quiet() {
            self.read_connection(index, false);
        }
        // Of one that has sent a part the rest, or the end, has often come as well.
        for _ in 0..MORE_READS {
            if self.connections.get(index).is_some_and(|connection| {
                connection.is_quiet() && connection.has_begun() && !passed_on
            }) {
                self.read_connection(index, false);
            }
        }
        if !passed_on && let Some(job) = self.ready.iter_mut().rfind(|job| job.token == token) {
            job.waits = Waits::OnNew;
        }
        let Some(connection) = self.connections.get(index) else {
            return;
        };
        // One that is answered and closed needs no watching, unless that takes long.
        let mut jobs = self.ready.iter().rev();
        let once = connection.is_complete() && jobs.any(|job| job.token == token);
        if !once {
            self.settle(token);
        }
    }

    /// Puts the listeners into epoll, or takes them out.
    pub(super) fn set_accepting(&mut self, accept: bool) {
        let accept = accept && self.drain.is_none() && self.suspended.is_none();
        let wanted = accept.then_some(if self.expected == Expected::Short && !cfg!(php_zts) {
            Accepting::One
        } else {
            Accepting::All
        });
        if wanted == self.accepting {
            return;
        }
        for (listener, number) in self.sources.listeners.iter().zip(LISTENER..) {
            if self.accepting.is_some() {
                self.watch(false, listener.as_fd(), number, EventFlags::empty());
            }
            if let Some(wanted) = wanted {
                self.watch(true, listener.as_fd(), number, wanted.flags());
            }
        }
        self.accepting = wanted;
    }

    pub(super) fn set_receiving(&mut self, receive: bool) {
        // A process whose connections others take would only put back what it takes.
        let receive = receive && matches!(self.drain_mode(), None | Some(Drain::Close));
        if receive != self.receiving {
            self.receiving = receive;
            // What is in the channel is told until it is empty: it is seldom used, and nobody may miss it.
            self.watch(
                receive,
                self.sources.handover.receive.as_fd(),
                HANDOVER,
                EventFlags::IN,
            );
        }
    }

    /// Puts something that others watch too into epoll, or takes it out.
    fn watch(&self, watch: bool, descriptor: BorrowedFd<'_>, token: u64, flags: EventFlags) {
        let result = if watch {
            let flags = flags | EventFlags::EXCLUSIVE;
            epoll::add(&*self.epoll, descriptor, EventData::new_u64(token), flags)
        } else {
            epoll::delete(&*self.epoll, descriptor)
        };
        if let Err(error) = result {
            log::error(format_args!(
                "[pool {}] epoll_ctl: {error}",
                self.sources.pool
            ));
        }
    }
}
