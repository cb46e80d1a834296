//! Where a reactor's connections come from: listeners, siblings, and what other threads of the process share.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::draining::Drain;
use super::{Connection, HANDOVER, LISTENER, Output, QUEUE, Reactor};
use crate::descriptor::high_fd;
use crate::log;

impl Reactor {
    /// Takes a connection from each of the listeners that have a bit in `which`, until one has brought a request.
    pub(super) fn accept(&mut self, which: u64) {
        for index in 0..self.sources.listeners.len() {
            if which & 1 << index.min(63) == 0 {
                continue;
            }
            let full = self.is_full();
            // What waits has woken nobody but us.
            if full && !self.sources.scoreboard.has_process_below(self.room / 8 * 7) {
                self.suspend_for("no descriptor is left for a connection");
                return;
            }
            // Whoever has room takes one after the other: those on their way are in nobody's count.
            if full && self.channel_is(PollFlags::IN, &self.sources.handover.receive) {
                self.suspend();
                return;
            }
            if self.sources.scoreboard.connections() >= self.sources.limits.connections {
                self.warn(&format!(
                    "{} connections are open, as many as limit.connections (--max-connections) allows: new ones wait",
                    self.sources.limits.connections
                ));
                self.suspend();
                return;
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match accept_with(&self.sources.listeners[index], flags) {
                Ok(socket) if !self.sources.allowed.admits(&socket) => {}
                Ok(socket) => {
                    // The limit has been looked at; siblings may exceed it by one each.
                    let _ = self.sources.slot.add_connection(u32::MAX);
                    let socket = if full {
                        self.pass_on(socket)
                    } else {
                        Some(socket)
                    };
                    if let Some(socket) = socket {
                        self.adopt(socket, &[], None);
                        if full {
                            // It takes one beyond its room, and seldom another.
                            self.suspend_until(Instant::now() + Duration::from_secs(1));
                            return;
                        }
                    }
                    if !self.ready.is_empty() {
                        return;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    self.suspend_for(&format!("accept: {error}"));
                    return;
                }
                Err(error) => self.warn(&format!("accept: {error}")),
            }
        }
    }

    /// Takes all that wait in the listen queues when the pool stops: closing those would reset them.
    pub(super) fn accept_waiting(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for listener in Arc::clone(&self.sources.listeners).iter() {
            while !self.is_full()
                && let Ok(socket) = accept_with(listener, flags)
            {
                if self.sources.allowed.admits(&socket) {
                    let _ = self.sources.slot.add_connection(u32::MAX);
                    self.adopt(socket, &[], None);
                }
            }
        }
    }

    /// Whether scripts would have too few descriptors with another connection here.
    pub(super) fn is_full(&self) -> bool {
        let lingering = u32::try_from(self.lingering.len()).unwrap_or(u32::MAX);
        self.sources.slot.connections().saturating_add(lingering) >= self.room
    }

    /// Makes a connection of ours of a socket, and reads it at once: most have sent their request already. `passed_on` if it comes
    /// from a sibling: with the time since when the request in `bytes` waits, if there is one.
    pub(super) fn adopt(
        &mut self,
        socket: OwnedFd,
        bytes: &[u8],
        passed_on: Option<Option<Instant>>,
    ) {
        let waiting_since = passed_on.flatten();
        let passed_on = passed_on.is_some();
        let output = Arc::new(Output::new(
            high_fd(socket),
            self.sources.limits.output_buffer,
        ));
        let index =
            self.connections
                .insert(Connection::new(output, &self.sources.limits, passed_on));
        if !bytes.is_empty() && !self.feed(index, bytes, waiting_since) {
            return;
        }
        // Most have sent their request already; one that waited with a sibling may have been aborted meanwhile.
        if passed_on || self.connections[index].is_quiet() {
            self.read_connection(index);
        }
        let Some(connection) = self.connections.get(index) else {
            return;
        };
        // One that is answered and closed needs no watching.
        let once = connection.is_received() && self.ready.back().is_some_and(|job| !job.keep_conn);
        if !once {
            self.settle(index as u64);
        }
    }

    pub(super) fn set_accepting(&mut self, accept: bool) {
        let accept = accept && self.drain.is_none() && self.suspended.is_none();
        if accept == self.accepting {
            return;
        }
        self.accepting = accept;
        for (listener, number) in self.sources.listeners.iter().zip(LISTENER..) {
            self.watch(accept, listener.as_fd(), number);
        }
    }

    pub(super) fn set_receiving(&mut self, receive: bool) {
        let (channel, queue) = match self.drain_mode() {
            // A busy process would only put back what it takes.
            None | Some(Drain::Close) => (receive, receive),
            // What threads of this process share is still to be run by them.
            Some(Drain::HandOver) => (false, receive),
        };
        if channel != self.receiving {
            self.receiving = channel;
            self.watch_shared(channel, HANDOVER);
        }
        if queue != self.receiving_queue {
            self.receiving_queue = queue;
            self.watch_shared(queue, QUEUE);
        }
    }

    fn watch_shared(&self, watch: bool, token: u64) {
        let descriptor = match (token, &self.sources.queue) {
            (QUEUE, Some(queue)) => queue.as_fd(),
            (QUEUE, None) => return,
            _ => self.sources.handover.receive.as_fd(),
        };
        self.watch(watch, descriptor, token);
    }

    /// Puts something that others watch too into epoll, or takes it out.
    fn watch(&self, watch: bool, descriptor: BorrowedFd<'_>, token: u64) {
        let result = if watch {
            let flags = EventFlags::IN | EventFlags::EXCLUSIVE;
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
