//! One pool process as the supervisor sees it.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::messages::{Channel, FromPool, Received, ToPool};
use super::process::{Exit, kill, watch};
use super::reload::HandedGeneration;
use crate::log;

/// A generation of a pool: a pool process and the worker processes that it has forked.
pub(super) struct Generation {
    pub(super) number: u32,
    pub(super) pid: Pid,
    control: Arc<AsyncFd<Channel>>,
    pub(super) started: Instant,
    pub(super) phase: Phase,
    /// When it began to drain.
    pub(super) draining_since: Option<Instant>,
    /// Started by the program that this one has replaced: it may be of another version, which does not understand our
    /// messages, but signals it does.
    inherited: bool,
    /// It has been told that all is ready.
    is_launched: bool,
    pub(super) failure: Option<String>,
    /// Both must be seen before it is gone: its last words may be read after its death.
    pub(super) exit: Option<Exit>,
    pub(super) closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    Ready,
    Draining,
    /// It has been told to end at once.
    Stopping,
}

/// What comes from a pool, for the supervisor's loop.
#[derive(Debug)]
pub(super) struct Event {
    /// The number of the pool in the supervisor's list.
    pub(super) pool: usize,
    pub(super) kind: EventKind,
}

#[derive(Debug)]
pub(super) enum EventKind {
    Message {
        generation: u32,
        message: FromPool,
    },
    /// Nothing more will come.
    Closed {
        generation: u32,
    },
    /// A connection waits, and there is no pool process yet.
    Connection,
}

/// Where events go.
#[derive(Debug, Clone)]
pub(super) struct EventSender {
    pub(super) pool: usize,
    pub(super) events: mpsc::UnboundedSender<Event>,
}

impl EventSender {
    /// False if nobody listens any more: the supervisor is ending.
    pub(super) fn send(&self, kind: EventKind) -> bool {
        let event = Event {
            pool: self.pool,
            kind,
        };
        self.events.send(event).is_ok()
    }
}

impl Generation {
    /// `control` is our end of its socket, which is watched from now on.
    pub(super) fn new(
        number: u32,
        pid: Pid,
        control: Channel,
        phase: Phase,
        inherited: bool,
        events: EventSender,
    ) -> std::io::Result<Self> {
        let control = Arc::new(watch(control)?);
        tokio::spawn(forward(number, Arc::clone(&control), events));
        Ok(Self {
            number,
            pid,
            control,
            started: Instant::now(),
            phase,
            draining_since: None,
            inherited,
            is_launched: inherited,
            failure: None,
            exit: None,
            closed: false,
        })
    }

    /// One that the program before a reload has started.
    pub(super) fn inherit(handed: HandedGeneration, events: EventSender) -> std::io::Result<Self> {
        let phase = match (handed.ready, handed.starting) {
            (true, _) => Phase::Ready,
            (false, true) => Phase::Starting,
            (false, false) => Phase::Draining,
        };
        let mut generation = Self::new(
            handed.number,
            handed.pid,
            handed.control,
            phase,
            true,
            events,
        )?;
        if phase == Phase::Draining {
            generation.draining_since = Instant::now().checked_sub(handed.draining_for);
        }
        Ok(generation)
    }

    /// What the program that replaces this one is to know of it.
    pub(super) fn hand_down(&self) -> std::io::Result<HandedGeneration> {
        let control = self.control.get_ref().as_fd().try_clone_to_owned()?;
        Ok(HandedGeneration {
            number: self.number,
            pid: self.pid,
            control: Channel::from_socket(control),
            ready: self.phase == Phase::Ready,
            starting: self.phase == Phase::Starting,
            draining_for: self
                .draining_since
                .map_or(Duration::ZERO, |since| since.elapsed()),
        })
    }

    /// Whether the program before a reload has started it.
    pub(super) fn is_inherited(&self) -> bool {
        self.inherited
    }

    /// Whether nothing of it is left.
    pub(super) fn is_gone(&self) -> bool {
        self.closed && self.exit.is_some()
    }

    /// Tells it, once, that all is ready.
    pub(super) fn launch(&mut self) {
        if self.phase == Phase::Ready && !std::mem::replace(&mut self.is_launched, true) {
            self.send(&ToPool::Launched);
        }
    }

    /// Lets it finish what runs.
    pub(super) fn drain(&mut self) {
        match self.phase {
            // One that starts may have worker processes that serve already; it listens to us as soon as PHP has started.
            Phase::Starting | Phase::Ready => {
                self.phase = Phase::Draining;
                self.draining_since = Some(Instant::now());
                if self.inherited {
                    self.signal(Signal::QUIT);
                } else {
                    self.send(&ToPool::Drain);
                }
            }
            Phase::Draining | Phase::Stopping => {}
        }
    }

    /// Ends it at once; it ends its worker processes.
    pub(super) fn stop(&mut self) {
        match self.phase {
            Phase::Starting => self.kill(),
            Phase::Ready | Phase::Draining => {
                self.phase = Phase::Stopping;
                if self.inherited {
                    self.signal(Signal::TERM);
                } else {
                    self.send(&ToPool::Stop);
                }
            }
            Phase::Stopping => {}
        }
    }

    pub(super) fn kill(&mut self) {
        self.phase = Phase::Stopping;
        self.signal(Signal::KILL);
    }

    /// Its number is another process's once it has been reaped.
    fn signal(&self, signal: Signal) {
        if self.exit.is_none() {
            kill(self.pid, signal);
        }
    }

    pub(super) fn send(&self, message: &ToPool) {
        self.send_with(message, &[]);
    }

    pub(super) fn send_with(&self, message: &ToPool, descriptors: &[std::os::fd::BorrowedFd<'_>]) {
        if let Err(error) = self.control.get_ref().send(message, descriptors) {
            // Most likely it has just died, and we are about to learn that.
            log::debug(format_args!(
                "pool process {} was not told {message:?}: {error}",
                self.pid
            ));
        }
    }
}

/// Reads a control socket to its end.
async fn forward(generation: u32, control: Arc<AsyncFd<Channel>>, events: EventSender) {
    while let Ok(mut ready) = control.readable().await {
        match control.get_ref().receive() {
            Ok(Received::Message(message, _)) => {
                if !events.send(EventKind::Message {
                    generation,
                    message,
                }) {
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
    let _ = events.send(EventKind::Closed { generation });
}
