//! A pool as the supervisor sees it: its sockets, its scoreboard, and its generations of pool processes.
//!
//! # Lifecycle of a generation
//!
//! ```text
//! exec ─► Starting ─► Ready: older ones drain ─► a newer one is ready: Draining ─► exit
//!             │          │
//!             └──────────┴─ died: if no other generation goes on, start one: at once, or a second later if it did not
//!                           get ready or was the second in a row to die young
//! ```
//!
//! Generations share everything but memory: listening sockets, the hand-over socket and the scoreboard outlive them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use rustix::process::{Pid, Signal, getpid};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::SupervisorError;
use super::messages::{Channel, FromPool, Received, ReplaceReason, Start, ToPool};
use super::process::{Exit, kill, spawn_pool_process, watch};
use super::sockets::ListeningSockets;
use crate::config::{ListenAddress, PoolConfig};
use crate::descriptor::high_fd;
use crate::log;
use crate::scoreboard::{Lost, Scoreboard};

pub(super) struct Pool {
    config: PoolConfig,
    processes: u32,
    /// None once the pool finishes: nobody can connect any more.
    sockets: Option<ListeningSockets>,
    scoreboard: Scoreboard,
    scoreboard_fd: OwnedFd,
    /// Sending and receiving end. Held here too, so that connections on their way survive any process.
    handover: (OwnedFd, OwnedFd),
    generations: Vec<Generation>,
    last_generation: u32,
    last_start: Instant,
    /// Whether a generation was ever ready.
    served: bool,
    /// Pool processes in a row that died young.
    early_deaths: u32,
    wanted: Option<ReplaceReason>,
    restart_at: Option<Instant>,
    kill_at: Option<Instant>,
    stopping: bool,
    events: mpsc::UnboundedSender<Event>,
}

/// What comes from the control socket of a generation.
#[derive(Debug)]
pub(super) enum Event {
    Message {
        generation: u32,
        message: FromPool,
    },
    /// Nothing more will come.
    Closed {
        generation: u32,
    },
}

struct Generation {
    number: u32,
    pid: Pid,
    control: Arc<AsyncFd<Channel>>,
    started: Instant,
    phase: Phase,
    failure: Option<String>,
    /// Both must be seen before it is gone: its last words may be read after its death.
    exit: Option<Exit>,
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Ready,
    Draining,
}

impl Pool {
    /// Binds the sockets and makes what all generations share.
    pub(super) fn new(
        config: PoolConfig,
        processes: u32,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Self, SupervisorError> {
        let capacity = MAX_GENERATIONS * processes + SPARE_SLOTS;
        let (scoreboard, scoreboard_fd) =
            Scoreboard::create(capacity).map_err(SupervisorError::Setup)?;
        Ok(Self {
            sockets: Some(ListeningSockets::bind(&config)?),
            config,
            processes,
            scoreboard,
            scoreboard_fd: high_fd(scoreboard_fd),
            handover: handover_socket().map_err(SupervisorError::Setup)?,
            generations: Vec::new(),
            last_generation: 0,
            last_start: Instant::now(),
            served: false,
            early_deaths: 0,
            wanted: None,
            restart_at: None,
            kill_at: None,
            stopping: false,
            events,
        })
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = &ListenAddress> {
        self.sockets.iter().flat_map(ListeningSockets::addresses)
    }

    /// Starts a pool process beside those that there are.
    pub(super) fn start_generation(&mut self) -> Result<(), SupervisorError> {
        self.restart_at = None;
        self.last_start = Instant::now();
        let Some(sockets) = &self.sockets else {
            return Ok(());
        };
        let number = self.last_generation + 1;
        let (ours, theirs) = Channel::pair().map_err(SupervisorError::Setup)?;
        let listeners: Vec<BorrowedFd<'_>> = sockets.descriptors().collect();
        let start = Start {
            config: self.config.clone(),
            generation: number,
            processes: self.processes,
            threads: (self.config.max_children / self.processes.max(1)).max(1),
            supervisor: getpid().as_raw_nonzero().get(),
            log_level: log::level(),
            listeners: listeners.len(),
            socket_files: sockets.files(),
        };
        let mut descriptors = listeners;
        descriptors.extend([
            self.scoreboard_fd.as_fd(),
            self.handover.0.as_fd(),
            self.handover.1.as_fd(),
        ]);
        // Before the process exists, so that nothing can fail after that.
        ours.send(&ToPool::Start(Box::new(start)), &descriptors)?;
        let control = Arc::new(watch(ours).map_err(SupervisorError::Setup)?);
        let pid = spawn_pool_process(&self.config.name, theirs.into_socket())
            .map_err(SupervisorError::Spawn)?;
        log::debug(format_args!(
            "[pool {}] pool process {pid} (generation {number}) started",
            self.config.name
        ));
        tokio::spawn(forward(number, Arc::clone(&control), self.events.clone()));
        self.last_generation = number;
        self.generations.push(Generation {
            number,
            pid,
            control,
            started: self.last_start,
            phase: Phase::Starting,
            failure: None,
            exit: None,
            closed: false,
        });
        Ok(())
    }

    pub(super) fn on_event(&mut self, event: Event) -> Result<(), SupervisorError> {
        match event {
            Event::Message {
                generation,
                message,
            } => self.on_message(generation, message),
            Event::Closed { generation } => {
                if let Some(generation) = self.generation(generation) {
                    generation.closed = true;
                }
                self.bury()
            }
        }
    }

    /// A process of ours has been reaped: a pool process, or an orphan that we adopted.
    pub(super) fn on_exit(&mut self, pid: Pid, exit: Exit) -> Result<(), SupervisorError> {
        if let Some(lost) = self
            .scoreboard
            .release(pid.as_raw_nonzero().get().cast_unsigned())
        {
            // It died with its pool process, whose end is in the log.
            self.report_lost(pid, lost);
        }
        if let Some(generation) = self
            .generations
            .iter_mut()
            .find(|generation| generation.pid == pid)
        {
            generation.exit = Some(exit);
        }
        self.bury()
    }

    /// Wants a new generation in place of the current one. Many wishes make one replacement.
    pub(super) fn replace(&mut self, reason: ReplaceReason) -> Result<(), SupervisorError> {
        self.wanted = Some(reason);
        self.replace_if_due()
    }

    /// Lets running requests finish, then ends; nobody can connect any more.
    pub(super) fn finish(&mut self) {
        self.stopping = true;
        self.scoreboard.set_stopping();
        for generation in &mut self.generations {
            match generation.phase {
                Phase::Starting => kill(generation.pid, Signal::KILL),
                Phase::Ready => generation.drain(),
                Phase::Draining => {}
            }
        }
        self.sockets = None;
    }

    /// Ends at once.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.scoreboard.set_stopping();
        for generation in &self.generations {
            match generation.phase {
                // It does not listen to us before PHP has started.
                Phase::Starting => kill(generation.pid, Signal::KILL),
                Phase::Ready | Phase::Draining => generation.send(&ToPool::Stop),
            }
        }
        self.kill_at = Some(Instant::now() + STOP_TIMEOUT);
    }

    /// Ends what is left.
    pub(super) fn kill(&mut self) {
        self.stopping = true;
        for generation in &self.generations {
            if generation.exit.is_none() {
                kill(generation.pid, Signal::KILL);
            }
        }
    }

    /// Whether no pool process is left.
    pub(super) fn is_gone(&self) -> bool {
        self.generations.is_empty()
    }

    /// Whether no worker process is left either.
    pub(super) fn is_buried(&self) -> bool {
        self.is_gone() && self.scoreboard.is_empty()
    }

    /// The last words.
    pub(super) fn log_summary(&self) {
        log::debug(format_args!(
            "[pool {}] {}",
            self.config.name,
            self.scoreboard.snapshot()
        ));
    }

    /// When to call [`on_deadline`](Self::on_deadline).
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.stopping {
            return self.kill_at;
        }
        let replace_at = self
            .wanted
            .filter(|_| self.may_replace())
            .map(|_| self.last_start + REPLACE_INTERVAL);
        self.restart_at.into_iter().chain(replace_at).min()
    }

    pub(super) fn on_deadline(&mut self) -> Result<(), SupervisorError> {
        let now = Instant::now();
        if self.kill_at.is_some_and(|time| time <= now) {
            self.kill_at = None;
            self.kill();
        }
        if !self.stopping && self.restart_at.is_some_and(|time| time <= now) {
            self.restart()?;
        }
        self.replace_if_due()
    }

    fn on_message(&mut self, number: u32, message: FromPool) -> Result<(), SupervisorError> {
        let name = self.config.name.clone();
        let Some(generation) = self.generation(number) else {
            return Ok(());
        };
        match message {
            FromPool::Ready if generation.phase == Phase::Starting => {
                generation.phase = Phase::Ready;
                let pid = generation.pid;
                if self.stopping {
                    return Ok(());
                }
                self.scoreboard.set_serving_generation(number);
                for older in self
                    .generations
                    .iter_mut()
                    .filter(|other| other.number < number)
                {
                    older.drain();
                }
                if self.served {
                    log::notice(format_args!(
                        "[pool {name}] pool process {pid} (generation {number}) has taken over"
                    ));
                }
                self.served = true;
                log::notice(format_args!("ready to handle connections"));
            }
            FromPool::Ready => {}
            FromPool::StartFailed { text } => generation.failure = Some(text),
            FromPool::ReplaceMe { reason } if generation.phase == Phase::Ready => {
                log::notice(format_args!(
                    "[pool {name}] pool process {} wants a successor: {reason}",
                    generation.pid
                ));
                return self.replace(reason);
            }
            // Its successor is on its way.
            FromPool::ReplaceMe { .. } => {}
        }
        Ok(())
    }

    /// Deals with every generation that is gone.
    fn bury(&mut self) -> Result<(), SupervisorError> {
        let gone = |generation: &Generation| generation.closed && generation.exit.is_some();
        while let Some(index) = self.generations.iter().position(gone) {
            let generation = self.generations.remove(index);
            self.on_gone(&generation)?;
        }
        self.replace_if_due()
    }

    fn on_gone(&mut self, generation: &Generation) -> Result<(), SupervisorError> {
        let Some(exit) = generation.exit else {
            return Ok(());
        };
        let Generation {
            number, pid, phase, ..
        } = *generation;
        let name = &self.config.name;
        let lived = generation.started.elapsed();
        let level = match phase {
            _ if self.stopping || generation.failure.is_some() => log::Level::Debug,
            Phase::Draining if exit.is_clean() => log::Level::Notice,
            _ if !self.served => log::Level::Debug,
            _ => log::Level::Warning,
        };
        log::write(
            level,
            format_args!(
                "[pool {name}] pool process {pid} (generation {number}) exited {exit} after {}.{:06} seconds from start",
                lived.as_secs(),
                lived.subsec_micros()
            ),
        );
        if self.stopping || phase == Phase::Draining {
            return Ok(());
        }
        if !self.served {
            return Err(match &generation.failure {
                Some(text) => SupervisorError::StartFailed(text.clone()),
                None => SupervisorError::DiedAtStart(exit.to_string()),
            });
        }
        if let Some(text) = &generation.failure {
            log::error(format_args!(
                "[pool {name}] the new pool process did not start: {text}"
            ));
        }
        if self
            .generations
            .iter()
            .any(|other| other.phase != Phase::Draining)
        {
            log::notice(format_args!("[pool {name}] another pool process goes on"));
            return Ok(());
        }
        self.early_deaths = if lived < YOUNG {
            self.early_deaths + 1
        } else {
            0
        };
        if phase == Phase::Ready && self.early_deaths < 2 {
            return self.restart();
        }
        log::notice(format_args!(
            "[pool {name}] the next pool process starts in {} second(s)",
            RETRY.as_secs()
        ));
        self.restart_at = Some(Instant::now() + RETRY);
        Ok(())
    }

    /// Starts a generation in place of one that died; if that is impossible now, tries again later.
    fn restart(&mut self) -> Result<(), SupervisorError> {
        // It serves whatever the old one was to be replaced for.
        self.wanted = None;
        self.scoreboard.count_restart();
        self.start_or_retry()
    }

    fn start_or_retry(&mut self) -> Result<(), SupervisorError> {
        if let Err(error) = self.start_generation() {
            log::error(format_args!("[pool {}] {error}", self.config.name));
            if self
                .generations
                .iter()
                .all(|generation| generation.phase == Phase::Draining)
            {
                self.restart_at = Some(Instant::now() + RETRY);
            }
        }
        Ok(())
    }

    fn replace_if_due(&mut self) -> Result<(), SupervisorError> {
        if self.wanted.is_none()
            || !self.may_replace()
            || self.last_start.elapsed() < REPLACE_INTERVAL
        {
            return Ok(());
        }
        self.wanted = None;
        self.start_or_retry()
    }

    /// Whether a replacement may start, but for its being too early.
    fn may_replace(&self) -> bool {
        !self.stopping
            && self.restart_at.is_none()
            && self.generations.len() < MAX_GENERATIONS as usize
            && self
                .generations
                .iter()
                .all(|generation| generation.phase != Phase::Starting)
    }

    fn report_lost(&self, pid: Pid, lost: Lost) {
        if !self.stopping {
            self.scoreboard.count_crash(lost);
            if !lost.is_empty() {
                log::warning(format_args!(
                    "[pool {}] child {pid} took with it: {lost}",
                    self.config.name
                ));
            }
        }
    }

    fn generation(&mut self, number: u32) -> Option<&mut Generation> {
        self.generations
            .iter_mut()
            .find(|generation| generation.number == number)
    }
}

impl Generation {
    fn drain(&mut self) {
        if self.phase != Phase::Draining {
            self.phase = Phase::Draining;
            self.send(&ToPool::Drain);
        }
    }

    fn send(&self, message: &ToPool) {
        if let Err(error) = self.control.get_ref().send(message, &[]) {
            // Most likely it has just died, and we are about to learn that.
            log::debug(format_args!(
                "pool process {} was not told {message:?}: {error}",
                self.pid
            ));
        }
    }
}

/// Reads a control socket to its end.
async fn forward(
    generation: u32,
    control: Arc<AsyncFd<Channel>>,
    events: mpsc::UnboundedSender<Event>,
) {
    while let Ok(mut ready) = control.readable().await {
        match control.get_ref().receive() {
            Ok(Received::Message(message, _)) => {
                if events
                    .send(Event::Message {
                        generation,
                        message,
                    })
                    .is_err()
                {
                    return;
                }
            }
            Ok(Received::Nothing) => ready.clear_ready(),
            Ok(Received::Closed) => break,
            Err(error) => {
                log::error(format_args!(
                    "generation {generation} is not understood: {error}"
                ));
                break;
            }
        }
    }
    // If nobody listens any more, the supervisor is ending.
    let _ = events.send(Event::Closed { generation });
}

/// The socket by which worker processes pass connections to each other, with room for many of them.
fn handover_socket() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (send, receive) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // The second is possible without privileges, but only as far as net.core.wmem_max.
    sockopt::set_socket_send_buffer_size_force(&send, HANDOVER_BUFFER)
        .or_else(|_| sockopt::set_socket_send_buffer_size(&send, HANDOVER_BUFFER))?;
    Ok((high_fd(send), high_fd(receive)))
}

/// One that serves, one that starts, and two that still finish long requests: more would take too much memory and too
/// many database connections. Further replacements wait.
const MAX_GENERATIONS: u32 = 4;

/// For worker processes that have died and are not reaped yet when their successors start.
const SPARE_SLOTS: u32 = 8;

/// Bytes of connections on their way.
const HANDOVER_BUFFER: usize = 8 << 20;

/// A pool process that dies younger than this is not replaced at once if the one before it did the same.
const YOUNG: Duration = Duration::from_secs(3);

/// Pause before the next attempt then.
const RETRY: Duration = Duration::from_secs(1);

/// Least time between the starts of a generation and its replacement.
const REPLACE_INTERVAL: Duration = Duration::from_secs(2);

/// Pool processes that are not gone after this time are killed; they themselves give worker processes one second.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
