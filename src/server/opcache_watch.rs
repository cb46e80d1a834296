//! What one PHP thread finds out about OPcache: its figures, for the status of the pool, and on ZTS whether it waits to restart.
//! Only a request can see it, so at the end of some requests it is looked at.

use std::time::{Duration, Instant};

use crate::engine::{OpcacheView, PhpThread};
use crate::scoreboard::{Moment, Slot};

/// How often a thread looks whether OPcache waits to restart.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often it says so.
const AGAIN: Duration = Duration::from_secs(10);

/// The watch of one PHP thread.
#[derive(Debug)]
pub(super) struct OpcacheWatch {
    /// The figures are wanted.
    shows_status: bool,
    /// When it was last looked whether it waits to restart; none when that is of no interest.
    looked: Option<Instant>,
    /// When it was last said that it does: the successor may have failed to start.
    said: Option<Instant>,
    /// It is this thread's turn to bring the figures.
    has_turn: bool,
}

impl OpcacheWatch {
    pub(super) fn new(shows_status: bool) -> Self {
        Self {
            shows_status,
            looked: cfg!(php_zts).then(Instant::now),
            said: None,
            has_turn: false,
        }
    }

    /// A request is about to run.
    pub(super) fn before(&mut self, php: &mut PhpThread, slot: &Slot) {
        self.has_turn = self.shows_status && slot.is_opcache_due(Moment::now());
        if self.has_turn || self.looked.is_some_and(|last| last.elapsed() >= INTERVAL) {
            php.look_at_opcache();
        }
    }

    /// It has run. Answers whether OPcache waits to restart, now and then.
    pub(super) fn after(&mut self, php: &mut PhpThread, slot: &Slot) -> bool {
        let view = php.opcache();
        if std::mem::take(&mut self.has_turn) {
            match view {
                Some(OpcacheView::Present { figures, .. }) => slot.set_opcache(figures),
                Some(OpcacheView::Absent) => {}
                // It was a request for the status, say, that runs no script.
                None => slot.opcache_unread(),
            }
        }
        match view {
            None => {}
            Some(OpcacheView::Absent) => (self.shows_status, self.looked) = (false, None),
            Some(OpcacheView::Present {
                restart_pending, ..
            }) => {
                self.looked = self.looked.map(|_| Instant::now());
                let is_news = self.said.is_none_or(|said| said.elapsed() >= AGAIN);
                if restart_pending && is_news {
                    self.said = Some(Instant::now());
                    return true;
                }
            }
        }
        false
    }
}
