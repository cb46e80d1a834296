//! The writing half of a connection, shared by all who answer on it, and its registration with epoll.
//!
//! A response is written by the thread that made it, directly, while nothing else waits; what the socket does not
//! take is queued here and leaves when epoll says so. The descriptor lives as long as anyone may write to it, so its
//! number cannot become another client's meanwhile.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, send, shutdown};

use crate::request::ClientGone;

/// The output side of one connection.
#[derive(Debug)]
pub(crate) struct Output {
    socket: OwnedFd,
    /// Response bytes that may be queued before a script has to wait.
    limit: usize,
    /// A write has failed, or the peer has hung up: nothing more can be sent.
    broken: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Whole records that the socket has not taken yet, from `sent` on.
    pending: Vec<u8>,
    sent: usize,
    registration: Option<Registration>,
    /// Whether the connection wants to be read.
    reading: bool,
    /// It is not for a moment, since its only request has just been answered, by a PHP thread that looks at it next.
    resting: bool,
    /// It is not, since its peer asks for answers of our own and takes none.
    choked: bool,
    /// The peer has closed both ways. epoll would say so for ever, whatever the interest.
    hung_up: bool,
}

#[derive(Debug)]
struct Registration {
    epoll: Arc<OwnedFd>,
    token: u64,
    interest: EventFlags,
}

impl Output {
    pub(crate) fn new(socket: OwnedFd, limit: usize) -> Self {
        Self {
            socket,
            limit,
            broken: AtomicBool::new(false),
            state: Mutex::new(State {
                pending: Vec::new(),
                sent: 0,
                registration: None,
                reading: true,
                resting: false,
                choked: false,
                hung_up: false,
            }),
        }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// The peer has reset the connection.
    pub(crate) fn mark_broken(&self) {
        let _ = self.fail(&mut self.state.lock());
    }

    /// Sends whole records without ever waiting; what does not fit is queued.
    pub(crate) fn send(&self, records: &[u8]) -> Result<(), ClientGone> {
        let mut state = self.state.lock();
        self.send_locked(&mut state, records)
    }

    /// As [`send`](Self::send), for answers that no script gives: a peer that does not take them is read no further until it does.
    pub(crate) fn answer(&self, records: &[u8]) -> Result<(), ClientGone> {
        let mut state = self.state.lock();
        self.send_locked(&mut state, records)?;
        if state.waiting() > self.limit && !state.choked {
            state.choked = true;
            self.update_interest(&mut state);
        }
        Ok(())
    }

    /// As [`send`](Self::send); `first` is called when nobody else can look at or use the output any more.
    pub(crate) fn send_after(
        &self,
        first: impl FnOnce(),
        records: &[u8],
    ) -> Result<(), ClientGone> {
        let mut state = self.state.lock();
        first();
        self.send_locked(&mut state, records)
    }

    /// Sends whole records, and waits while more than the limit is queued: a script goes no faster than its client.
    pub(crate) fn send_and_wait(&self, records: &[u8]) -> Result<(), ClientGone> {
        let mut state = self.state.lock();
        self.send_locked(&mut state, records)?;
        while state.waiting() > self.limit {
            drop(state);
            let mut wanted = [PollFd::new(&self.socket, PollFlags::OUT)];
            // A signal for PHP interrupts this; it acts at PHP's next opcode.
            let _ = poll(&mut wanted, None);
            state = self.state.lock();
            self.flush_locked(&mut state)?;
        }
        Ok(())
    }

    /// Writes what is queued, as far as the socket takes it; for the thread that epoll has told.
    pub(crate) fn flush(&self) -> Result<(), ClientGone> {
        self.flush_locked(&mut self.state.lock())
    }

    /// Whether everything has left.
    pub(crate) fn is_flushed(&self) -> bool {
        let state = self.state.lock();
        state.pending.is_empty() || self.is_broken()
    }

    /// Whether more is queued than the limit allows.
    pub(crate) fn is_backlogged(&self) -> bool {
        let state = self.state.lock();
        state.waiting() > self.limit
    }

    /// Puts the socket into `epoll` under `token`, unless it is there already.
    pub(crate) fn register(&self, epoll: &Arc<OwnedFd>, token: u64) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.registration.is_none() && !state.hung_up {
            let interest = state.interest();
            epoll::add(&**epoll, &self.socket, EventData::new_u64(token), interest)?;
            state.registration = Some(Registration {
                epoll: Arc::clone(epoll),
                token,
                interest,
            });
        }
        Ok(())
    }

    /// Takes the socket out of epoll, before it is passed on or because nothing is expected of it any more.
    pub(crate) fn deregister(&self) {
        if let Some(registration) = self.state.lock().registration.take() {
            // It fails only for a descriptor that is not registered.
            let _ = epoll::delete(&*registration.epoll, &self.socket);
        }
    }

    /// Takes the socket out of epoll for good, because the peer has closed it: what is queued cannot leave, and what is
    /// sent later fails by itself.
    pub(crate) fn hang_up(&self) {
        let _ = self.flush();
        self.deregister();
        self.state.lock().hung_up = true;
    }

    /// Says whether the connection is to be read; from any thread.
    pub(crate) fn set_reading(&self, reading: bool) {
        let mut state = self.state.lock();
        if state.reading != reading {
            state.reading = reading;
            self.update_interest(&mut state);
        }
    }

    /// Has epoll tell once more what there is now: whoever was told has not read all of it.
    pub(crate) fn tell_again(&self) {
        if let Some(registration) = &self.state.lock().registration {
            registration.set(&self.socket, registration.interest);
        }
    }

    /// Has epoll tell nothing of what the peer sends, or again.
    pub(crate) fn set_resting(&self, resting: bool) {
        let mut state = self.state.lock();
        if state.resting != resting {
            state.resting = resting;
            self.update_interest(&mut state);
        }
    }

    /// Ends the connection in one direction or both. The reactor then sees it as closed.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        // A peer that has gone already makes this fail, which is as good.
        let _ = shutdown(&self.socket, how);
    }

    fn send_locked(&self, state: &mut State, records: &[u8]) -> Result<(), ClientGone> {
        if self.is_broken() {
            return Err(ClientGone);
        }
        let mut rest = records;
        if state.pending.is_empty() {
            while !rest.is_empty() {
                match send(
                    &self.socket,
                    rest,
                    SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
                ) {
                    Ok(sent) => rest = &rest[sent..],
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(_) => return self.fail(state),
                }
            }
        }
        if !rest.is_empty() {
            state.pending.extend_from_slice(rest);
            self.update_interest(state);
        }
        Ok(())
    }

    fn flush_locked(&self, state: &mut State) -> Result<(), ClientGone> {
        while state.sent < state.pending.len() {
            match send(
                &self.socket,
                &state.pending[state.sent..],
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(sent) => state.sent += sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if state.sent > self.limit {
                        let sent = std::mem::take(&mut state.sent);
                        state.pending.drain(..sent);
                    }
                    if state.choked && state.waiting() <= self.limit / 2 {
                        state.choked = false;
                        self.update_interest(state);
                    }
                    return Ok(());
                }
                Err(_) => return self.fail(state),
            }
        }
        state.pending = Vec::new();
        state.sent = 0;
        state.choked = false;
        self.update_interest(state);
        if self.is_broken() {
            Err(ClientGone)
        } else {
            Ok(())
        }
    }

    fn fail(&self, state: &mut State) -> Result<(), ClientGone> {
        self.broken.store(true, Ordering::Relaxed);
        state.pending = Vec::new();
        state.sent = 0;
        state.choked = false;
        self.update_interest(state);
        // Wakes the reactor, which closes the connection once nobody runs for it.
        let _ = shutdown(&self.socket, Shutdown::Both);
        Err(ClientGone)
    }

    fn update_interest(&self, state: &mut State) {
        let interest = state.interest();
        if let Some(registration) = &mut state.registration
            && registration.interest != interest
        {
            registration.interest = interest;
            registration.set(&self.socket, interest);
        }
    }
}

impl Registration {
    fn set(&self, socket: &OwnedFd, interest: EventFlags) {
        // It fails only for a descriptor that is not registered.
        let _ = epoll::modify(
            &*self.epoll,
            socket,
            EventData::new_u64(self.token),
            interest,
        );
    }
}

impl State {
    /// Bytes that the socket has not taken.
    fn waiting(&self) -> usize {
        self.pending.len() - self.sent
    }

    fn interest(&self) -> EventFlags {
        let mut interest = EventFlags::ET;
        if self.reading && !self.resting && !self.choked {
            // The second tells an end that comes with the last bytes.
            interest |= EventFlags::IN | EventFlags::RDHUP;
        }
        if !self.pending.is_empty() {
            interest |= EventFlags::OUT;
        }
        interest
    }
}
