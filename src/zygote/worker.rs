//! What a worker process is given.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::config::PoolConfig;
use crate::scoreboard::{Scoreboard, Slot};

/// Everything that a worker process owns when it begins. All descriptors are nonblocking, close-on-exec and out of the
/// way of scripts.
///
/// SIGTERM ends the process at once and SIGKILL comes when the pool process dies; neither needs code. SIGQUIT has its
/// default action until whoever runs the worker process changes it.
#[derive(Debug)]
pub struct WorkerProcess<E> {
    /// The pool's configuration.
    pub config: PoolConfig,
    /// Which of the pool's pool processes forked this one.
    pub generation: u32,
    /// PHP workers (threads) to run.
    pub threads: u32,
    /// What startup made.
    pub engine: E,
    /// The pool's scoreboard.
    pub scoreboard: Arc<Scoreboard>,
    /// This process's slot in it, in state Starting.
    pub slot: Slot,
    /// The pool's listening sockets.
    pub listeners: Vec<OwnedFd>,
    /// Where connections go to siblings and come from them.
    pub handover: Handover,
    /// When to end.
    pub drain: DrainSignal,
    /// The way up to the pool process.
    pub reports: Reports,
}

impl<E> WorkerProcess<E> {
    /// Says that requests may come now, to siblings (through the slot) and to the pool process. A generation takes over
    /// from the one before when all its worker processes have said so.
    pub fn serving(&self) {
        self.slot.set_serving();
        self.reports.send(WorkerMessage::Serving);
    }
}

/// Both ends of the pool's hand-over socket (SOCK_SEQPACKET), shared by all its processes of all generations: what one
/// sends, any other may receive.
#[derive(Debug)]
pub struct Handover {
    /// To pass a connection on.
    pub send: OwnedFd,
    /// To receive one.
    pub receive: OwnedFd,
}

/// Tells a generation of worker processes to finish.
#[derive(Debug)]
pub struct DrainSignal {
    event: OwnedFd,
    generation: u32,
    scoreboard: Arc<Scoreboard>,
}

impl DrainSignal {
    pub(super) fn new(event: OwnedFd, generation: u32, scoreboard: Arc<Scoreboard>) -> Self {
        Self { event, generation, scoreboard }
    }

    /// Whether the order has been given. For an event loop: the descriptor becomes readable and stays so; do not read.
    pub fn is_set(&self) -> bool {
        let mut fds = [rustix::event::PollFd::new(&self.event, rustix::event::PollFlags::IN)];
        let now = rustix::time::Timespec::default();
        rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// Whether connections can be handed over, since a newer generation serves; else the pool stops, and they are to be
    /// closed. Ask again for each connection: a replacement can turn into a stop.
    pub fn has_successor(&self) -> bool {
        self.scoreboard.has_successor(self.generation)
    }
}

impl AsFd for DrainSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// The way from worker processes to their pool process: a nonblocking pipe.
#[derive(Debug)]
pub struct Reports {
    pipe: OwnedFd,
}

impl Reports {
    pub(super) fn new(pipe: OwnedFd) -> Self {
        Self { pipe }
    }

    /// Sends one message; does not wait. If the pipe is full, the message is lost: say it again later if it still holds.
    pub fn send(&self, message: WorkerMessage) {
        let pid = rustix::process::getpid().as_raw_nonzero().get().cast_unsigned();
        let mut bytes = [0; MESSAGE];
        bytes[..4].copy_from_slice(&pid.to_ne_bytes());
        bytes[4] = message as u8;
        // Writes of up to PIPE_BUF bytes are atomic. Errors: see above; a dead pool process takes us with it anyway.
        let _ = super::retry(|| rustix::io::write(&self.pipe, &bytes));
    }
}

/// What a worker process may report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum WorkerMessage {
    /// It serves; [`WorkerProcess::serving`] sends it.
    Serving = 1,
    /// OPcache wants to restart and cannot while threads use it: the generation should be replaced.
    OpcacheRestartPending = 2,
}

/// Reads what worker processes have sent: their pid, and what they said.
pub(super) fn read_reports(pipe: &OwnedFd) -> io::Result<Vec<(i32, WorkerMessage)>> {
    let mut messages = Vec::new();
    let mut bytes = [0; 512 * MESSAGE];
    loop {
        let length = match super::retry(|| rustix::io::read(pipe, &mut bytes)) {
            Ok(0) | Err(rustix::io::Errno::AGAIN) => return Ok(messages),
            Ok(length) => length,
            Err(errno) => return Err(errno.into()),
        };
        for message in bytes[..length].chunks_exact(MESSAGE) {
            let pid = i32::from_ne_bytes([message[0], message[1], message[2], message[3]]);
            match message[4] {
                1 => messages.push((pid, WorkerMessage::Serving)),
                2 => messages.push((pid, WorkerMessage::OpcacheRestartPending)),
                // A script that found the descriptor wrote it.
                _ => {}
            }
        }
    }
}

/// Bytes of a message in the pipe; divides the pipe's capacity and the read buffer, so messages are read whole.
const MESSAGE: usize = 8;

#[cfg(test)]
mod tests {
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    #[test]
    fn reports_arrive_with_the_senders_pid() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("pipe");
        let reports = Reports::new(writer);
        reports.send(WorkerMessage::Serving);
        reports.send(WorkerMessage::OpcacheRestartPending);
        let pid = i32::try_from(std::process::id()).expect("fits");
        let expected = [(pid, WorkerMessage::Serving), (pid, WorkerMessage::OpcacheRestartPending)];
        assert_eq!(read_reports(&reader).expect("readable"), expected);
        assert_eq!(read_reports(&reader).expect("readable"), []);
    }

    #[test]
    fn drain_stays_set() {
        let (scoreboard, _) = Scoreboard::create(1).expect("memfd");
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let event = rustix::event::eventfd(0, flags).expect("eventfd");
        let drain = DrainSignal::new(event, 1, Arc::new(scoreboard));
        assert!(!drain.is_set());
        rustix::io::write(drain.as_fd(), &1u64.to_ne_bytes()).expect("writable");
        assert!(drain.is_set() && drain.is_set() && !drain.has_successor());
    }
}
