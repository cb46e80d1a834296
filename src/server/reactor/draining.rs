//! How a process takes nothing new and gets rid of what it has.

use std::time::Instant;

use super::{Connection, Reactor};

/// Why this process is to finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its generation does.
    Generation,
    /// It got SIGQUIT itself, and will be replaced.
    Quit,
}

/// What becomes of connections then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drain {
    /// Others go on serving this pool: they get the connections.
    HandOver,
    /// Nobody goes on.
    Close,
}

impl Reactor {
    /// This process is about to end, in the middle of a request: takes nothing new, and passes on what it has.
    pub(crate) fn retire(&mut self) {
        self.start_drain(Cause::Quit);
    }

    /// Whether others can be asked to serve what is left here.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    pub(super) fn start_drain(&mut self, cause: Cause) {
        let first = self.drain.is_none();
        // The order for the whole generation says more than the one for this process.
        if self.drain != Some(Cause::Generation) {
            self.drain = Some(cause);
        }
        self.drain_since.get_or_insert_with(Instant::now);
        self.set_accepting(false);
        match self.drain_mode() {
            Some(Drain::Close) => self.accept_waiting(),
            Some(Drain::HandOver) => self.pass_on_waiting(),
            None => {}
        }
        // When the whole pool stops, what waits for it in the channel is still served.
        let has_received = self.receiving;
        self.set_receiving(self.receiving);
        if has_received && !self.receiving && self.channel_has_connections() {
            // This process alone may have been told of it, and took the channel out of epoll before it saw that. Whoever gets what
            // is put back sees all that is there.
            self.receive_handover();
        }
        if first {
            self.sources.slot.set_draining();
            if std::mem::take(&mut self.is_shown_idle) && self.sources.slot.become_busy() {
                self.awaited = Some(Instant::now());
            }
        }
        self.drain_connections();
    }

    /// Asked again for each connection, since a replacement can turn into a stop.
    pub(super) fn drain_mode(&self) -> Option<Drain> {
        let others_go_on = match self.drain? {
            Cause::Generation => self.sources.drain.has_successor(),
            Cause::Quit => !self.sources.scoreboard.is_stopping(),
        };
        Some(if others_go_on {
            Drain::HandOver
        } else {
            Drain::Close
        })
    }

    pub(super) fn drain_connections(&mut self) {
        let quiet = self.connections.tokens(Connection::is_quiet);
        for token in quiet {
            self.settle(token);
        }
    }
}
