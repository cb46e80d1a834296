//! When the supervisor checks a configuration, and is executed anew: the supervisor's side of `reload.rs`.

use std::io;
use std::time::{Duration, Instant};

use super::process::Exit;
use super::reload::{self, Check, Handed};
use super::sockets::Export;
use super::{Pool, State, Supervisor};
use crate::log;

/// A reload that comes too early.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReloadWait {
    since: Instant,
    /// When to look again.
    pub(super) look_at: Instant,
}

impl Supervisor {
    /// Begins a reload with a check of the new configuration.
    pub(super) fn begin_reload(&mut self) {
        if self.check.is_some() || !self.is_up {
            self.reload_again = true;
            return;
        }
        if self.is_reload_too_early() {
            return;
        }
        log::notice(format_args!("Reloading in progress ..."));
        match Check::start(&self.program) {
            Ok(check) => {
                self.check = Some(check);
                self.notifier.reloading();
            }
            Err(error) => log::error(format_args!(
                "{} cannot be executed to check the new configuration: {error}; the old one goes on serving",
                self.program.path.display()
            )),
        }
    }

    /// Whether so many older generations still finish their requests that another reload would end one of them. Patience with
    /// them has an end too.
    fn is_reload_too_early(&mut self) -> bool {
        let is_full = self.pools.iter().flatten().any(Pool::has_many_finishing);
        if !is_full {
            self.reload_waits = None;
            return false;
        }
        let since = match self.reload_waits {
            Some(wait) => wait.since,
            None => {
                log::notice(format_args!(
                    "a reload waits for workers of earlier reloads that still finish their requests, {} seconds at most",
                    RELOAD_PATIENCE.as_secs()
                ));
                Instant::now()
            }
        };
        let waits = since.elapsed() < RELOAD_PATIENCE;
        self.reload_waits = waits.then(|| ReloadWait {
            since,
            look_at: Instant::now() + RELOAD_GLANCE,
        });
        waits
    }

    pub(super) fn end_check(&mut self, check: Check, exit: Exit) {
        if !check.finish(exit) || self.state != State::Normal {
            if self.state == State::Normal {
                self.notifier.reload_failed();
                // What was wrong may have been mended while we looked.
                if std::mem::take(&mut self.reload_again) {
                    self.begin_reload();
                }
            }
            return;
        }
        if let Err(error) = self.execute_anew() {
            log::error(format_args!(
                "failed to reload: {} cannot be executed: {error}; the old program goes on serving",
                self.program.path.display()
            ));
            self.notifier.reload_failed();
        }
    }

    /// Returns only if it fails.
    fn execute_anew(&mut self) -> io::Result<()> {
        let pools = self.pools.iter().flatten();
        let handed: Vec<Handed> = pools
            .clone()
            .map(Pool::hand_down)
            .collect::<io::Result<_>>()?;
        let sockets = pools
            .filter_map(Pool::sockets)
            .flat_map(|sockets| std::iter::once(&sockets.listen).chain(&sockets.status));
        let export = Export::new(sockets)?;
        Err(reload::execute(
            &self.program,
            &self.global,
            &handed,
            &export,
        ))
    }
}

/// How long a reload waits for workers of earlier ones, and how often it looks.
const RELOAD_PATIENCE: Duration = Duration::from_secs(30);

const RELOAD_GLANCE: Duration = Duration::from_millis(50);
