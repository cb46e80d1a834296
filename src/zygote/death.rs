//! What becomes of worker processes that have ended.

use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::children::Burial;
use super::{FORK_DELAY, MAX_EARLY_DEATHS, PoolProcess, State};
use crate::log;
use crate::scoreboard::Lost;
use crate::supervisor::messages::FromPool;
use crate::supervisor::process::{Exit, reap};

impl<E> PoolProcess<E> {
    pub(super) fn reap(&mut self) {
        while let Some((pid, exit)) = reap() {
            let lost = self
                .scoreboard
                .release(pid.as_raw_nonzero().get().cast_unsigned());
            // Module startup may have left processes behind that are not ours to report.
            if let Some(burial) = self.children.remove(pid, exit) {
                self.empty_since = Instant::now();
                if let Some(share) = &self.share {
                    share.remove();
                }
                if self.at_process_max {
                    self.fork_at = None;
                }
                if !exit.is_clean() && self.lanes.count() > 0 {
                    self.scoreboard.repair_queue(self.start.generation);
                }
                if !exit.is_clean() || self.lanes.has_messages(burial.lane) {
                    self.orphaned_lanes.push(burial.lane);
                }
                self.bury(pid, &burial, exit, lost);
            }
        }
    }

    /// Reports a death, as php-fpm's fpm_children_bury does.
    fn bury(&mut self, pid: Pid, burial: &Burial, exit: Exit, lost: Option<Lost>) {
        let lived = burial.lived;
        let level = match self.state {
            State::Stopping { .. } | State::Draining => log::Level::Debug,
            State::Running if burial.was_retired => log::Level::Debug,
            State::Running if exit.is_clean() => log::Level::Notice,
            State::Running => log::Level::Warning,
        };
        let how = if burial.was_retired {
            "has been killed by the process management".to_owned()
        } else {
            format!("exited {exit}")
        };
        log::write(
            level,
            format_args!(
                "[pool {}] child {pid} {how} after {}.{:06} seconds from start",
                self.name(),
                lived.as_secs(),
                lived.subsec_micros()
            ),
        );
        let is_replaced = !burial.was_retired && !burial.was_leaving;
        if self.ready && self.state == State::Running && is_replaced {
            self.replacing += 1;
        }
        if self.is_stopping() {
            return;
        }
        let lost = lost.unwrap_or_default();
        if !lost.is_empty() {
            log::warning(format_args!(
                "[pool {}] child {pid} took with it: {lost}",
                self.name()
            ));
        }
        if !exit.is_clean() {
            self.scoreboard.count_crash(lost);
        }
        if matches!(exit.signal(), Some(libc::SIGSEGV | libc::SIGBUS)) {
            self.tell_supervisor(&FromPool::Faulted);
        }
        if (lived < EARLY || !burial.served) && lost.is_empty() && lost.requests == 0 {
            self.early_deaths += 1;
            let patience = MAX_EARLY_DEATHS.max(2 * self.start.processes);
            if self.ready && self.early_deaths >= patience && self.state == State::Running {
                self.fork_at = Some(Instant::now() + FORK_DELAY);
            }
        } else {
            self.early_deaths = 0;
        }
    }
}

impl<E> PoolProcess<E> {
    /// What siblings had sent to worker processes that died, or the kernel had told them, is seen to by others.
    pub(super) fn rescue_lanes(&mut self) {
        let children = &self.children;
        self.orphaned_lanes
            .retain(|lane| !children.take_lane(*lane));
    }
}

/// A worker process that dies younger than this was not fit to live.
const EARLY: Duration = Duration::from_secs(1);
