//! How worker processes come into being.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use rustix::process::{Signal, getpid};

use super::fork::{self, Forked};
use super::privileges::become_worker;
use super::{DrainSignal, FORK_DELAY, PLACE_DELAY, PoolProcess, Reports, State, WorkerProcess};
use crate::log::{self, Pipes};
use crate::scoreboard::ProcessShare;
use crate::supervisor::EXIT_SOFTWARE;
use crate::supervisor::messages::{Channel, Start};
use crate::title;

/// What is made before a fork, for both sides.
pub(super) struct Birth {
    /// With `catch_workers_output`.
    pipes: Option<Pipes>,
    ours: Channel,
    theirs: Channel,
    lane: u32,
}

impl<E> PoolProcess<E> {
    /// The rest of a worker process's life.
    pub(super) fn become_worker_process(self) -> ! {
        // A panic must not get back into the pool process's loop.
        let code = std::panic::catch_unwind(AssertUnwindSafe(move || self.run_worker_process()));
        fork::exit_now(code.unwrap_or(EXIT_SOFTWARE));
    }

    /// Signals are still blocked here; `self` is the child's own copy, and what it is not to have is closed first.
    fn run_worker_process(mut self) -> i32 {
        drop((
            self.control,
            self.signals,
            self.reports,
            self.children,
            self.share,
        ));
        let Some(Birth {
            pipes,
            theirs,
            lane,
            ..
        }) = self.birth.take()
        else {
            return EXIT_SOFTWARE;
        };
        title::set(&format!("php-fpm: pool {}", self.start.config.name));
        // The log stays where it was, whatever becomes of standard error.
        let crash_log = log::leave_standard_error();
        let stderr = match pipes {
            Some(pipes) => pipes.into_child().map(Some),
            None if self.start.config.inherits_stderr => Ok(None),
            None => log::to_null().map(|()| None),
        };
        let stderr = match stderr {
            Ok(stderr) => stderr,
            Err(error) => {
                log::error(format_args!("a worker process cannot start: {error}"));
                return EXIT_SOFTWARE;
            }
        };
        if let Err(error) = become_worker(&self.start.identity, &self.start.config) {
            log::error(format_args!("{error}"));
            return EXIT_SOFTWARE;
        }
        // Changing the user has taken it back, should it have been set before.
        if !fork::die_with(self.pid, Signal::KILL) {
            return EXIT_SOFTWARE;
        }
        let Start {
            config,
            generation,
            threads,
            supervisor,
            ..
        } = self.start;
        let pid = getpid().as_raw_nonzero().get();
        let Some(slot) = self
            .scoreboard
            .claim(pid.cast_unsigned(), generation, threads)
        else {
            log::error(format_args!(
                "[pool {}] child {pid} found no free slot in the scoreboard",
                config.name
            ));
            return EXIT_SOFTWARE;
        };
        fork::reset_signals();
        (self.run_worker)(WorkerProcess {
            config,
            threads,
            engine: self.engine,
            slot,
            listeners: self.listeners,
            handover: self.handover,
            lanes: self.lanes,
            lane,
            drain: DrainSignal::new(self.drain, generation, Arc::clone(&self.scoreboard)),
            scoreboard: self.scoreboard,
            reports: Reports::new(self.reports_sender),
            control: theirs,
            logs: self.logs,
            stderr,
            crash_log,
            supervisor,
        })
    }

    /// Forks as many worker processes as are missing; in each of them, returns `Child`.
    pub(super) fn fork_missing(&mut self) -> Option<Forked> {
        if self.fork_at.is_some_and(|time| time > Instant::now()) {
            return None;
        }
        self.fork_at = None;
        self.at_process_max = false;
        while self.state == State::Running && self.children.is_one_missing() {
            if self.share.as_ref().is_some_and(|share| !share.add()) {
                self.wait_for_other_pools();
                break;
            }
            let forked = self.birth().and_then(|birth| Ok((birth, fork::fork()?)));
            match forked {
                Ok((birth, Forked::Child)) => {
                    self.birth = Some(birth);
                    return Some(Forked::Child);
                }
                Ok((birth, Forked::Parent { child })) => {
                    // Replacements are worth a word, what the process manager does is not.
                    let level = if self.replacing > 0 {
                        self.replacing -= 1;
                        self.scoreboard.count_restart();
                        log::Level::Notice
                    } else {
                        log::Level::Debug
                    };
                    log::write(
                        level,
                        format_args!("[pool {}] child {child} started", self.name()),
                    );
                    let number = child.as_raw_nonzero().get();
                    let output = birth.pipes.map(|pipes| {
                        let decorate = self.start.config.decorate_workers_output;
                        pipes.into_parent(&self.start.config.name, number, decorate)
                    });
                    self.children.add(child, birth.lane, birth.ours, output);
                }
                Err(error) => {
                    if let Some(share) = &self.share {
                        share.remove();
                    }
                    log::error(format_args!(
                        "[pool {}] fork() failed: {error}",
                        self.name()
                    ));
                    self.fork_at = Some(Instant::now() + FORK_DELAY);
                    break;
                }
            }
        }
        None
    }

    /// All pools together have as many worker processes as `process.max` allows: looks again soon.
    fn wait_for_other_pools(&mut self) {
        if self.share.as_ref().is_some_and(ProcessShare::is_to_warn) {
            log::warning(format_args!(
                "The maximum number of processes has been reached. Please review your configuration and consider raising \
                 'process.max'"
            ));
        }
        self.at_process_max = true;
        self.fork_at = Some(Instant::now() + PLACE_DELAY);
    }

    /// What a worker process and this one are to share.
    fn birth(&self) -> std::io::Result<Birth> {
        let pipes = self.start.config.catch_workers_output.then(Pipes::new);
        let (ours, theirs) = Channel::pair()?;
        Ok(Birth {
            pipes: pipes.transpose()?,
            ours,
            theirs,
            lane: self.children.free_lane(self.lanes.count()),
        })
    }
}
