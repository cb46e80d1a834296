//! A request that shares its connection with another one which runs here, executed by a sibling process.
//!
//! The connection cannot be handed over, for two processes would write to it. So the sibling gets one end of a socket pair
//! as if it were a client's connection, with the request on it, and this process passes the answer on under the request's
//! own id. That is how requests multiplexed on one connection run at the same time on NTS.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};

use super::exchange::Exchange;
use crate::descriptor::high_fd;
use crate::fastcgi::{ProtocolStatus, RecordType, ResponseDecoder, ResponseEvent};

/// Our end of the socket pair, and where its answer goes.
pub(super) struct Relay {
    socket: OwnedFd,
    decoder: ResponseDecoder,
    input: Vec<u8>,
    exchange: Arc<Exchange>,
    /// The number of the client's connection.
    connection: u64,
    /// Not read, because the client does not keep up.
    paused: bool,
}

/// What became of a relay after reading it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More will come.
    Open,
    /// The answer is complete.
    Done,
    /// The sibling went away in the middle of the answer.
    Lost,
}

impl Relay {
    /// A relay for `exchange`, and the socket that the sibling is to have.
    pub(super) fn new(exchange: Arc<Exchange>, connection: u64) -> Result<(Self, OwnedFd), Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let relay = Self {
            socket: high_fd(ours),
            decoder: ResponseDecoder::new(),
            input: Vec::new(),
            exchange,
            connection,
            paused: false,
        };
        Ok((relay, theirs))
    }

    pub(super) fn connection(&self) -> u64 {
        self.connection
    }

    pub(super) fn register(&self, epoll: &OwnedFd, token: u64) -> Result<(), Errno> {
        epoll::add(
            epoll,
            &self.socket,
            EventData::new_u64(token),
            self.interest(),
        )
    }

    /// Has epoll tell once more what there is now.
    pub(super) fn tell_again(&self, epoll: &OwnedFd, token: u64) {
        // It fails only for a descriptor that is not registered.
        let _ = epoll::modify(
            epoll,
            &self.socket,
            EventData::new_u64(token),
            self.interest(),
        );
    }

    fn interest(&self) -> EventFlags {
        if self.paused {
            EventFlags::ET
        } else {
            EventFlags::IN | EventFlags::ET
        }
    }

    /// Whether nobody waits for the answer; dropping the relay tells the sibling.
    pub(super) fn is_gone(&self) -> bool {
        self.exchange.is_gone()
    }

    /// Stops or resumes reading, as the client keeps up or does not.
    pub(super) fn pace(&mut self, epoll: &OwnedFd, token: u64) {
        let pause = self.exchange.output().is_backlogged();
        if pause != self.paused {
            self.paused = pause;
            self.tell_again(epoll, token);
        }
    }

    /// Reads once and passes on what came.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> Progress {
        match recv(&self.socket, &mut *scratch, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Progress::Lost,
            Ok((length, _)) => {
                self.input.extend_from_slice(&scratch[..length]);
                self.pass_on()
            }
            Err(Errno::AGAIN | Errno::INTR) => Progress::Open,
            Err(_) => Progress::Lost,
        }
    }

    fn pass_on(&mut self) -> Progress {
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        loop {
            match self.decoder.decode(&mut rest) {
                // A client that has gone is noticed through `is_gone`.
                Ok(Some(ResponseEvent::Stdout { data, .. })) => {
                    let _ = self.exchange.forward(RecordType::Stdout, data);
                }
                Ok(Some(ResponseEvent::Stderr { data, .. })) => {
                    let _ = self.exchange.forward(RecordType::Stderr, data);
                }
                Ok(Some(ResponseEvent::End {
                    protocol_status, ..
                })) => {
                    let _ = self.exchange.end(protocol_status);
                    return Progress::Done;
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.input.extend_from_slice(rest);
                    return Progress::Open;
                }
                Err(_) => return Progress::Lost,
            }
        }
    }

    /// Ends the exchange for a client that has gone or has aborted it.
    pub(super) fn abandon(self) {
        let _ = self.exchange.end(ProtocolStatus::RequestComplete);
    }

    /// Ends the exchange of a sibling that went away. `alone`: the connection has no other request, and is closed, as it is when the
    /// process dies that has it; else the client gets what there is.
    pub(super) fn end_lost(self, alone: bool) {
        if alone {
            self.exchange.output().mark_broken();
        }
        let _ = self.exchange.end(ProtocolStatus::RequestComplete);
    }
}
