//! What must hold for a connection whatever its peer sends and whenever it is answered, cut, aborted or handed over.
//! The functions here take any bytes as their choices and panic when a property does not hold; proptest calls them from
//! the tests below, and libFuzzer from the targets in `tests/fuzz`.

#![allow(unreachable_pub)] // the targets reach them

use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use rustix::net::sockopt::set_socket_send_buffer_size;

use super::connection::{Connection, Surroundings};
use super::exchange::{FastcgiSink, NoAccount};
use super::job::Job;
use super::output::Output;
use crate::config::Limits;
use crate::fastcgi::properties::{Answer, Choices, Cutter, answers};
use crate::fastcgi::{FastcgiError, ProtocolStatus};
use crate::request::Body;

mod client;
mod relay;
#[cfg(test)]
mod tests;
mod wild;

/// A connection, its client's socket, and the process around them. It does what the reactor does, with one thread.
struct World {
    limits: Limits,
    waiting: super::body::Waiting,
    /// Bytes that other connections hold.
    held_elsewhere: usize,
    held: usize,
    connection: Connection,
    client: UnixStream,
    /// What the client has read and not decoded yet.
    unread: Vec<u8>,
    ready: Vec<Job>,
    cutter: Cutter,
}

const TOKEN: u64 = 7;
const VALUES: [(&[u8], &[u8]); 2] = [(b"FCGI_MAX_REQS", b"12"), (b"FCGI_MPXS_CONNS", b"1")];

impl World {
    fn new(choices: &mut Choices<'_>) -> Self {
        let shape = choices.byte();
        let limits = Limits {
            body_buffer: [64, 4096][usize::from(shape & 1)],
            requests_per_connection: [1, 2, 4, 128][usize::from(shape >> 1 & 3)],
            // What a program here writes at once fits, since nobody reads meanwhile.
            output_buffer: 1 << 20,
            ..Limits::default()
        };
        let held_elsewhere = match shape >> 3 & 1 {
            0 => 0,
            _ => limits.body_buffer * 64 - 10,
        };
        let (client, socket) = UnixStream::pair().expect("socketpair");
        client.set_nonblocking(true).expect("nonblocking");
        // So small that some output has to be queued.
        set_socket_send_buffer_size(&socket, 4096).expect("SO_SNDBUF");
        let output = Arc::new(Output::new(OwnedFd::from(socket), limits.output_buffer));
        Self {
            waiting: Arc::new(|_| panic!("a script waits for a body that has arrived")),
            held_elsewhere,
            held: held_elsewhere,
            connection: Connection::new(output, &limits, false),
            limits,
            client,
            unread: Vec::new(),
            ready: Vec::new(),
            cutter: Cutter::new(choices.byte()),
        }
    }

    /// As the reactor does with what it has read. New jobs are the last ones in `ready`.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), FastcgiError> {
        let values = VALUES.map(|(name, value)| (name, value.to_vec()));
        let known = self.ready.len();
        let result = self.connection.receive(
            bytes,
            &mut Surroundings {
                limits: &self.limits,
                values: &values,
                token: TOKEN,
                now: Instant::now(),
                waiting: &self.waiting,
                held: &mut self.held,
                ready: &mut self.ready,
            },
        );
        self.check_held();
        for job in &self.ready[known..] {
            assert_eq!(job.token, TOKEN);
            assert!(!job.exchange.is_ended(), "a job that is over already");
        }
        result
    }

    fn check_held(&self) {
        let held = self.held_elsewhere + self.connection.held();
        assert_eq!(self.held, held, "bytes of bodies that count as held");
    }

    /// Refuses what nobody waits for, as the reactor does before it gives out or hands over a job.
    fn drop_gone(&mut self) -> usize {
        let count = self.ready.len();
        for job in std::mem::take(&mut self.ready) {
            if job.exchange.is_gone() {
                job.refuse(ProtocolStatus::RequestComplete);
            } else {
                self.ready.push(job);
            }
        }
        count - self.ready.len()
    }

    /// Reads all that the connection has for its client.
    fn read(&mut self) -> Vec<Answer> {
        let mut scratch = [0; 16 << 10];
        loop {
            match self.client.read(&mut scratch) {
                Ok(0) => break,
                Ok(length) => self.unread.extend_from_slice(&scratch[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.connection.output().is_flushed() {
                        break;
                    }
                    // As the reactor does when epoll says that there is room.
                    let _ = self.connection.output().flush();
                }
                Err(error) => panic!("the client cannot read: {error}"),
            }
        }
        let mut input = self.unread.as_slice();
        let seen = answers(&mut input).expect("valid records");
        let used = self.unread.len() - input.len();
        self.unread.drain(..used);
        seen
    }

    /// Passes the connection on to another process, if the reactor would. Nothing is unread or gone.
    fn hand_over(&mut self) -> bool {
        self.connection.reap();
        if self.connection.is_done() {
            return false; // it is closed instead
        }
        let job = match (self.connection.dispatched(), self.ready.len()) {
            (0, 0) => None,
            (1, 1) => self.ready.pop(),
            _ => return false,
        };
        let bytes = self.connection.replay(job.as_ref());
        if let Some(job) = job {
            job.exchange.disown();
        }
        let socket = self.connection.output().socket();
        let socket = socket.try_clone_to_owned().expect("dup");
        let output = Arc::new(Output::new(socket, self.limits.output_buffer));
        let next = Connection::new(output, &self.limits, true);
        self.held -= self.connection.held();
        self.connection = next;
        self.receive(&bytes)
            .expect("a replay is valid when the original was");
        true
    }

    /// The client sends no more; whatever it had begun ends, and nothing stays behind. Answers what it still reads.
    fn leave(mut self, running: Vec<FastcgiSink<NoAccount>>) -> Vec<Answer> {
        self.connection.close_input(&mut self.held);
        self.check_held();
        assert_eq!(self.held, self.held_elsewhere);
        assert_eq!(self.connection.deadline(), None);
        for job in self.ready.drain(..) {
            if let Body::Stream(mut body) = job.body {
                // It would wait here for ever if its end were not said.
                body.read_to_end(&mut Vec::new()).expect("a body");
            }
            drop(FastcgiSink::new(job.exchange, NoAccount));
        }
        drop(running);
        let seen = self.read();
        self.connection.reap();
        assert!(self.connection.is_quiet());
        assert!(self.connection.is_done(), "{:?}", self.connection);
        seen
    }
}

/// A client that keeps to the protocol: see `client.rs`.
pub fn valid_client(data: &[u8]) {
    client::run(data);
}

/// A client that sends any records in any order: see `wild.rs`.
pub fn wild_client(data: &[u8]) {
    wild::run(data);
}

/// A sibling process that answers a relayed request: see `relay.rs`.
pub fn relayed_answer(data: &[u8]) {
    relay::run(data);
}
