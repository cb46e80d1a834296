//! The supervisor's signals, in php-fpm's meaning.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGTERM, SIGINT: stop at once.
    Terminate,
    /// SIGQUIT: finish running requests, then stop.
    Finish,
    /// SIGUSR1: open log files again.
    ReopenLogs,
    /// SIGUSR2: replace everything without losing a request.
    Reload,
    /// SIGCHLD: a process of ours ended.
    Child,
}

/// Catches the signals from the moment it is made.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    user1: tokio::signal::unix::Signal,
    user2: tokio::signal::unix::Signal,
    child: tokio::signal::unix::Signal,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            child: signal(SignalKind::child())?,
        })
    }

    /// The next signal. Several of one kind may count as one.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Terminate,
            _ = self.quit.recv() => Signal::Finish,
            _ = self.user1.recv() => Signal::ReopenLogs,
            _ = self.user2.recv() => Signal::Reload,
            _ = self.child.recv() => Signal::Child,
        }
    }
}
