//! What a worker process is given.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::lanes::Lanes;
use crate::config::PoolConfig;
use crate::log::{self, LogFile, WorkerStderr};
use crate::scoreboard::{Scoreboard, Slot};
use crate::supervisor::messages::{Channel, ReopenedLogs};

/// Everything that a worker process owns when it begins. All descriptors are nonblocking, close-on-exec and out of the
/// way of scripts.
///
/// SIGTERM ends the process at once and SIGKILL comes when the pool process dies; neither needs code. SIGQUIT has its
/// default action until whoever runs the worker process changes it.
#[derive(Debug)]
pub(crate) struct WorkerProcess<E> {
    /// The pool's configuration.
    pub(crate) config: PoolConfig,
    /// PHP workers (threads) to run.
    pub(crate) threads: u32,
    /// What startup made.
    pub(crate) engine: E,
    /// The pool's scoreboard.
    pub(crate) scoreboard: Arc<Scoreboard>,
    /// This process's slot in it, in state Starting.
    pub(crate) slot: Slot,
    /// The pool's listening sockets.
    pub(crate) listeners: Vec<OwnedFd>,
    /// Where connections go to siblings and come from them.
    pub(crate) handover: Handover,
    /// How siblings of the same generation send requests to each other.
    pub(crate) lanes: Lanes,
    /// The lane of this process.
    pub(crate) lane: u32,
    /// When to end.
    pub(crate) drain: DrainSignal,
    /// The way up to the pool process.
    pub(crate) reports: Reports,
    /// The way down from it; readable when there is something.
    pub(crate) control: Channel,
    /// Files to write to.
    pub(crate) logs: WorkerLogs,
    /// Standard error by another number, if it is read.
    pub(crate) stderr: Option<WorkerStderr>,
    /// The number of the log's descriptor, for a crash.
    pub(crate) crash_log: RawFd,
    /// The supervisor.
    pub(crate) supervisor: i32,
}

/// Log files of a pool, which the supervisor has opened.
#[derive(Debug)]
pub(crate) struct WorkerLogs {
    /// `access.log`
    pub(crate) access: Option<Arc<LogFile>>,
    /// `slowlog`
    pub(crate) slow: Option<Arc<LogFile>>,
}

impl WorkerLogs {
    /// Goes over to files that were opened anew, with the error log's.
    pub(crate) fn reopen(&self, which: ReopenedLogs, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let mut descriptors = descriptors.into_iter();
        if which.error
            && let Some(descriptor) = descriptors.next()
        {
            log::adopt(descriptor)?;
        }
        for (log, is_there) in [(&self.access, which.access), (&self.slow, which.slow)] {
            if is_there && let (Some(descriptor), Some(log)) = (descriptors.next(), log) {
                log.replace(descriptor)?;
            }
        }
        Ok(())
    }
}

impl<E> WorkerProcess<E> {
    /// Says that requests may come now, to siblings (through the slot) and to the pool process. A generation takes over
    /// from the one before when all its worker processes have said so.
    pub(crate) fn serving(&self) {
        self.slot.set_serving();
        self.reports.send(WorkerMessage::Serving);
    }
}

/// Both ends of the pool's hand-over socket (SOCK_SEQPACKET), shared by all its processes of all generations: what one
/// sends, any other may receive.
#[derive(Debug)]
pub(crate) struct Handover {
    /// To pass a connection on.
    pub(crate) send: OwnedFd,
    /// To receive one.
    pub(crate) receive: OwnedFd,
}

impl Handover {
    /// Whether connections wait for somebody to receive them.
    pub(crate) fn has_connections(&self) -> bool {
        let mut channel = [PollFd::new(&self.receive, PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // What cannot be told counts as none, as an interrupted look does.
        matches!(poll(&mut channel, Some(&now)), Ok(1))
    }
}

/// Tells a generation of worker processes to finish. The descriptor becomes readable and stays so; do not read from it.
#[derive(Debug)]
pub(crate) struct DrainSignal {
    event: OwnedFd,
    generation: u32,
    scoreboard: Arc<Scoreboard>,
}

impl DrainSignal {
    pub(super) fn new(event: OwnedFd, generation: u32, scoreboard: Arc<Scoreboard>) -> Self {
        Self {
            event,
            generation,
            scoreboard,
        }
    }

    /// Whether connections can be handed over, since a newer generation serves; else the pool stops, and they are to be
    /// closed. Ask again for each connection: a replacement can turn into a stop.
    pub(crate) fn has_successor(&self) -> bool {
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
pub(crate) struct Reports {
    pipe: OwnedFd,
}

impl Reports {
    pub(super) fn new(pipe: OwnedFd) -> Self {
        Self { pipe }
    }

    /// Sends one message; does not wait. If the pipe is full, the message is lost: say it again later if it still holds.
    pub(crate) fn send(&self, message: WorkerMessage) {
        let pid = rustix::process::getpid()
            .as_raw_nonzero()
            .get()
            .cast_unsigned();
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
pub(crate) enum WorkerMessage {
    /// It serves; [`WorkerProcess::serving`] sends it.
    Serving = 1,
    /// OPcache wants to restart and cannot while threads use it: the generation should be replaced.
    OpcacheRestartPending = 2,
    /// All worker processes are busy, and a request may be waiting.
    AllBusy = 3,
    /// It has run as many requests as `pm.max_requests` allows, and exits when its connections have been passed on.
    Leaving = 4,
    /// The same, of a process that is replaced with its whole generation (ZTS).
    MaxRequests = 5,
    /// A PHP thread does not end its request, which has been answered: the generation should be replaced. This process ends when
    /// its other threads are done.
    ThreadStuck = 6,
}

impl WorkerMessage {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Serving,
            2 => Self::OpcacheRestartPending,
            3 => Self::AllBusy,
            4 => Self::Leaving,
            5 => Self::MaxRequests,
            6 => Self::ThreadStuck,
            _ => return None,
        })
    }
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
            // Anything else was written by a script that found the descriptor.
            if let Some(message) = WorkerMessage::from_byte(message[4]) {
                messages.push((pid, message));
            }
        }
    }
}

/// Bytes of a message in the pipe; divides the pipe's capacity and the read buffer, so messages are read whole.
const MESSAGE: usize = 8;

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags};
    use rustix::pipe::{PipeFlags, pipe_with};
    use rustix::time::Timespec;

    use super::*;

    #[test]
    fn reports_arrive_with_the_senders_pid() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("pipe");
        let reports = Reports::new(writer);
        reports.send(WorkerMessage::Serving);
        reports.send(WorkerMessage::OpcacheRestartPending);
        let pid = i32::try_from(std::process::id()).expect("fits");
        let expected = [
            (pid, WorkerMessage::Serving),
            (pid, WorkerMessage::OpcacheRestartPending),
        ];
        assert_eq!(read_reports(&reader).expect("readable"), expected);
        assert_eq!(read_reports(&reader).expect("readable"), []);
    }

    fn is_set(drain: &DrainSignal) -> bool {
        let mut fds = [PollFd::new(drain, PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&Timespec::default())).expect("poll") > 0
    }

    #[test]
    fn drain_stays_set() {
        let (scoreboard, _) = Scoreboard::create(1, 1).expect("memfd");
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let event = rustix::event::eventfd(0, flags).expect("eventfd");
        let drain = DrainSignal::new(event, 1, Arc::new(scoreboard));
        assert!(!is_set(&drain));
        rustix::io::write(drain.as_fd(), &1u64.to_ne_bytes()).expect("writable");
        assert!(is_set(&drain) && is_set(&drain) && !drain.has_successor());
    }
}
