//! The worker processes of a pool process: who there is, who is to go, who is missing.
//!
//! # Lifecycle of one
//!
//! ```text
//!                       ┌─ Retiring: the process manager has sent SIGQUIT ─► exit, not replaced ─┐
//! forked ─► Serving ────┼─ Leaving: has had pm.max_requests, is replaced at once ─► exit ────────┼─► buried
//!                       └─ died: replaced ───────────────────────────────────────────────────────┘
//! ```

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::config::PoolConfig;
use crate::log::{self, Source, WorkerPipes};
use crate::pm::{Action, Census, Manager};
use crate::scoreboard::{ProcessView, Scoreboard};
use crate::supervisor::messages::{Channel, ToWorker};
use crate::supervisor::process::{Exit, kill};

/// The worker processes of one generation of a pool.
pub(super) struct Children {
    pool: String,
    table: HashMap<Pid, Child>,
    manager: Manager,
    /// How many there should be.
    wanted: u32,
}

/// One worker process.
pub(super) struct Child {
    started: Instant,
    serving: bool,
    phase: Phase,
    /// The way down to it.
    control: Channel,
    /// The lane by which its siblings send to it.
    lane: u32,
    /// Where it says something, if that is read.
    output: Option<WorkerPipes>,
    /// Requests it had run when it was last looked at, and since when that number has been the same.
    requests: u64,
    idle_since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// The process manager wants it to go; it is not to be replaced.
    Retiring,
    /// It goes by itself, and has been replaced already.
    Leaving,
}

/// What became of a worker process.
pub(super) struct Burial {
    /// Since it was forked.
    pub(super) lived: Duration,
    /// Whether requests could have come.
    pub(super) served: bool,
    /// The process manager has ended it.
    pub(super) was_retired: bool,
    /// It went by itself and has been replaced.
    pub(super) was_leaving: bool,
    /// Its lane.
    pub(super) lane: u32,
}

impl Children {
    pub(super) fn new(config: &PoolConfig, manager: Manager) -> Self {
        Self {
            pool: config.name.clone(),
            table: HashMap::new(),
            wanted: manager.at_start(),
            manager,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(super) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.table.keys().copied()
    }

    /// Whether one is missing.
    pub(super) fn is_one_missing(&self) -> bool {
        self.running() < self.wanted
    }

    pub(super) fn add(
        &mut self,
        pid: Pid,
        lane: u32,
        control: Channel,
        output: Option<WorkerPipes>,
    ) {
        let now = Instant::now();
        self.table.insert(
            pid,
            Child {
                started: now,
                serving: false,
                phase: Phase::Serving,
                control,
                lane,
                output,
                requests: 0,
                idle_since: now,
            },
        );
    }

    /// The lane, of `count`, that the next one is to have: that which the fewest have now.
    pub(super) fn free_lane(&self, count: u32) -> u32 {
        let users = |lane| {
            let lanes = self.table.values().map(|child| child.lane);
            lanes.filter(|used| *used == lane).count()
        };
        (0..count).min_by_key(|lane| users(*lane)).unwrap_or(0)
    }

    /// Has one that serves take what is in a lane whose owner is dead. False if there is none.
    pub(super) fn take_lane(&self, lane: u32) -> bool {
        let serving = self.table.values().filter(|child| child.serving);
        serving
            .filter(|child| child.phase == Phase::Serving)
            .any(|child| child.control.send(&ToWorker::TakeLane(lane), &[]).is_ok())
    }

    /// It has said that it serves.
    pub(super) fn serves(&mut self, pid: Pid) {
        if let Some(child) = self.table.get_mut(&pid) {
            child.serving = true;
            child.idle_since = Instant::now();
        }
    }

    /// It has said that it goes, for it has run enough requests. Answers whether another is to take its place.
    pub(super) fn leaves(&mut self, pid: Pid) -> bool {
        match self.table.get_mut(&pid) {
            Some(child) if child.phase == Phase::Serving => {
                child.phase = Phase::Leaving;
                true
            }
            _ => false,
        }
    }

    /// Whether as many serve as the pool begins with.
    pub(super) fn all_serve(&self) -> bool {
        let serving = self.table.values().filter(|child| child.serving).count();
        serving >= self.manager.at_start() as usize
    }

    /// It is gone; `None` if it was none of ours.
    pub(super) fn remove(&mut self, pid: Pid, exit: Exit) -> Option<Burial> {
        let child = self.table.remove(&pid)?;
        if let Some(output) = child.output {
            output.finish();
        }
        // As php-fpm: one that had to be killed is replaced.
        let quietly = exit.signal().is_none_or(|signal| signal == libc::SIGQUIT);
        let was_retired = child.phase == Phase::Retiring && quietly;
        if was_retired {
            self.wanted = self.wanted.saturating_sub(1);
        }
        Some(Burial {
            lived: child.started.elapsed(),
            served: child.serving,
            was_retired,
            was_leaving: child.phase == Phase::Leaving,
            lane: child.lane,
        })
    }

    /// What to read when there is something.
    pub(super) fn outputs(&self) -> impl Iterator<Item = (Pid, Source, BorrowedFd<'_>)> {
        self.table.iter().flat_map(|(pid, child)| {
            let sources = child.output.iter().flat_map(WorkerPipes::sources);
            sources.map(|(source, fd)| (*pid, source, fd))
        })
    }

    /// Logs what one has said.
    pub(super) fn read_output(&mut self, pid: Pid, source: Source) {
        let child = self.table.get_mut(&pid);
        if let Some(output) = child.and_then(|child| child.output.as_mut()) {
            output.read(source);
        }
    }

    /// Logs what all have said.
    pub(super) fn read_outputs(&mut self) {
        for output in self
            .table
            .values_mut()
            .filter_map(|child| child.output.as_mut())
        {
            output.read(Source::Stdout);
            output.read(Source::Stderr);
        }
    }

    /// Tells all of them something.
    pub(super) fn tell(&self, message: &ToWorker, descriptors: &[BorrowedFd<'_>]) {
        for (pid, child) in &self.table {
            if let Err(error) = child.control.send(message, descriptors) {
                log::warning(format_args!(
                    "[pool {}] child {pid} was not told {message:?}: {error}",
                    self.pool
                ));
            }
        }
    }

    /// Whether the process manager looks at the pool every second.
    pub(super) fn ticks(&self) -> bool {
        self.manager.ticks() && !self.table.is_empty()
    }

    /// Whether a request that waits may get a new worker process.
    pub(super) fn may_grow(&self) -> bool {
        self.manager.may_grow(self.running()) && !self.has_starting()
    }

    /// Whether some have been forked and do not serve yet.
    pub(super) fn has_starting(&self) -> bool {
        self.table.values().any(|child| !child.serving)
    }

    /// The second has passed: grows or shrinks the pool by php-fpm's rules.
    pub(super) fn tick(&mut self, scoreboard: &Scoreboard) {
        let census = self.census(scoreboard);
        let decision = self.manager.tick(census);
        self.obey(decision, scoreboard);
    }

    /// `waiting` requests have found nobody idle.
    pub(super) fn on_demand(&mut self, scoreboard: &Scoreboard, waiting: u32) {
        let census = self.census(scoreboard);
        let decision = self.manager.on_demand(census, waiting);
        self.obey(decision, scoreboard);
    }

    fn obey(&mut self, decision: crate::pm::Decision, scoreboard: &Scoreboard) {
        if let Some((level, text)) = decision.message {
            log::write(level, format_args!("[pool {}] {text}", self.pool));
        }
        if decision.limit_reached {
            scoreboard.count_max_children_reached();
        }
        match decision.action {
            Action::Keep => {}
            Action::Fork(count) => self.wanted = self.running() + count,
            Action::RetireOldest => self.retire(scoreboard, |child| child.started),
            Action::RetireLongestIdle => self.retire(scoreboard, |child| child.idle_since),
        }
    }

    /// Ends the idle one for which `age` is earliest. One that was told already and goes on as if nothing had happened is
    /// killed, as php-fpm does (`fpm_pctl_kill_idle_child`).
    fn retire(&mut self, scoreboard: &Scoreboard, age: impl Fn(&Child) -> Instant) {
        let idle = self
            .table
            .iter_mut()
            .filter(|(pid, child)| child.is_idle(&view(scoreboard, **pid)))
            .min_by_key(|(_, child)| age(child));
        if let Some((pid, child)) = idle {
            if child.phase == Phase::Retiring {
                kill(*pid, Signal::KILL);
            } else {
                child.phase = Phase::Retiring;
                kill(*pid, Signal::QUIT);
            }
        }
    }

    fn census(&mut self, scoreboard: &Scoreboard) -> Census {
        let now = Instant::now();
        let mut census = Census {
            running: self.running(),
            ..Census::default()
        };
        for (pid, child) in &mut self.table {
            let view = view(scoreboard, *pid);
            // Those of older generations are not for these to keep.
            census.has_connections |= view.is_some_and(|view| view.connections > 0);
            if !child.serving {
                census.starting += 1;
            } else if child.is_idle(&view) {
                let requests = view.map_or(0, |view| view.requests);
                if requests != child.requests {
                    child.requests = requests;
                    child.idle_since = now;
                }
                census.idle += 1;
                census.longest_idle = census.longest_idle.max(Some(now - child.idle_since));
            } else {
                child.idle_since = now;
            }
        }
        census
    }

    /// Those that count for the process manager.
    fn running(&self) -> u32 {
        let count = self
            .table
            .values()
            .filter(|child| child.phase != Phase::Leaving)
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

impl Child {
    fn is_idle(&self, view: &Option<ProcessView>) -> bool {
        self.serving
            && self.phase != Phase::Leaving
            && view.is_some_and(|view| view.serving && view.running == 0)
    }
}

fn view(scoreboard: &Scoreboard, pid: Pid) -> Option<ProcessView> {
    scoreboard.process(pid.as_raw_nonzero().get().cast_unsigned())
}
