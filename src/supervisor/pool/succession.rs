//! How generations of a pool follow each other: at a reload, when one wants a successor, and when one has died.

use std::time::{Duration, Instant};

use super::shared::MAX_GENERATIONS;
use super::{Generation, Phase, Pool, SupervisorError};
use crate::log;
use crate::supervisor::messages::{FromPool, ReplaceReason};

impl Pool {
    /// Wants a new generation in place of the current one. Many wishes make one replacement.
    pub(super) fn replace(&mut self, reason: ReplaceReason) {
        self.wanted = Some(reason);
        self.replace_if_due();
    }

    /// When to call [`on_deadline`](Self::on_deadline).
    pub(in crate::supervisor) fn deadline(&self) -> Option<Instant> {
        let ending = self.stop_at.into_iter().chain(self.kill_at);
        if self.stopping {
            return ending.min();
        }
        let replace_at = self
            .wanted
            .filter(|_| self.may_replace())
            .map(|_| self.last_start + REPLACE_INTERVAL);
        self.restart_at
            .into_iter()
            .chain(replace_at)
            .chain(self.drained_until())
            .chain(self.transition_until.map(|_| Instant::now() + GLANCE))
            .min()
    }

    /// When the patience with a generation that drains is over.
    pub(super) fn drained_until(&self) -> Option<Instant> {
        let patience = self.patience?;
        let draining = self
            .generations
            .iter()
            .filter(|generation| generation.phase == Phase::Draining);
        draining
            .filter_map(|generation| generation.draining_since)
            .map(|since| since + patience)
            .min()
    }

    pub(in crate::supervisor) fn on_deadline(&mut self) {
        let now = Instant::now();
        if self.kill_at.is_some_and(|time| time <= now) {
            self.kill_at = None;
            self.kill();
        }
        if self.stop_at.is_some_and(|time| time <= now) {
            self.stop();
        }
        if self.stopping {
            return;
        }
        if !self.is_in_transition() {
            self.transition_until = None;
        }
        if let Some(patience) = self.patience {
            for generation in &mut self.generations {
                if generation.phase == Phase::Draining
                    && generation
                        .draining_since
                        .is_some_and(|since| since + patience <= now)
                {
                    log::notice(format_args!(
                        "[pool {}] pool process {} (generation {}) has not finished within process_control_timeout, it is ended",
                        self.config.name, generation.pid, generation.number
                    ));
                    generation.stop();
                }
            }
        }
        if self.restart_at.is_some_and(|time| time <= now) {
            self.restart();
        }
        self.replace_if_due();
    }

    pub(super) fn on_message(
        &mut self,
        number: u32,
        message: FromPool,
    ) -> Result<(), SupervisorError> {
        let name = self.config.name.clone();
        let is_last = number == self.last_generation;
        let Some(generation) = self.generation(number) else {
            return Ok(());
        };
        match message {
            FromPool::Ready { php } if generation.phase == Phase::Starting => {
                generation.phase = Phase::Ready;
                let pid = generation.pid;
                if self.stopping {
                    self.finish();
                    return Ok(());
                }
                self.scoreboard.set_serving_generation(number);
                let mut took_over = false;
                for older in self
                    .generations
                    .iter_mut()
                    .filter(|other| other.number < number)
                {
                    took_over |= older.phase == Phase::Ready;
                    older.drain();
                }
                if took_over || self.early_deaths > 0 {
                    log::notice(format_args!(
                        "[pool {name}] pool process {pid} (generation {number}) has taken over"
                    ));
                }
                if took_over {
                    self.transition_until = Some(Instant::now() + TRANSITION);
                }
                self.served = true;
                self.listen_for_status(&php);
            }
            FromPool::StartFailed { text } => generation.failure = Some(text),
            FromPool::ReplaceMe { reason } if generation.phase == Phase::Ready => {
                log::notice(format_args!(
                    "[pool {name}] pool process {} wants a successor: {reason}",
                    generation.pid
                ));
                self.replace(reason);
            }
            // It exits by itself.
            FromPool::Unused if generation.phase == Phase::Ready && is_last => {
                generation.phase = Phase::Draining;
            }
            // Its successor is on its way; or the supervisor itself has listened.
            FromPool::Ready { .. }
            | FromPool::ReplaceMe { .. }
            | FromPool::Unused
            | FromPool::Flushed
            | FromPool::Faulted => {}
        }
        Ok(())
    }

    /// Deals with every generation that is gone.
    pub(super) fn bury(&mut self) -> Result<(), SupervisorError> {
        while let Some(index) = self.generations.iter().position(Generation::is_gone) {
            let generation = self.generations.remove(index);
            self.on_gone(&generation)?;
        }
        self.replace_if_due();
        Ok(())
    }

    fn on_gone(&mut self, generation: &Generation) -> Result<(), SupervisorError> {
        let Some(exit) = generation.exit else {
            return Ok(());
        };
        let Generation {
            number, pid, phase, ..
        } = *generation;
        if let Some(limit) = &self.process_limit {
            limit.count.forget(self.events.pool, number);
        }
        let name = &self.config.name;
        let lived = generation.started.elapsed();
        let level = match phase {
            _ if self.stopping || generation.failure.is_some() => log::Level::Debug,
            Phase::Draining if exit.is_clean() => log::Level::Debug,
            Phase::Stopping => log::Level::Debug,
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
        if self.stopping {
            return Ok(());
        }
        if matches!(phase, Phase::Draining | Phase::Stopping) {
            // It may be an old one that outlives a newer one which nobody has needed for long.
            if self.is_on_demand() && !self.is_served() {
                self.sleep();
            }
            return Ok(());
        }
        let why = generation
            .failure
            .clone()
            .unwrap_or_else(|| exit.to_string());
        let own = self.config.admin_settings();
        if let Some(settings) = own.filter(|_| !self.config.starts_plainly)
            && !self.served
            && !self.is_reload
        {
            // php-fpm's workers would take what can be set then, and pass over the rest.
            log::error(format_args!(
                "[pool {name}] PHP does not start with the php_admin_value settings of this pool, {settings} ({why}): it starts without \
                 them, and they hold as far as they can be changed later; correct them, or put them into php.ini"
            ));
            self.config.starts_plainly = true;
            self.start_or_retry();
            return Ok(());
        }
        if !self.served && !self.is_on_demand() && !self.is_reload {
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
        if self.is_served() {
            log::notice(format_args!("[pool {name}] another pool process goes on"));
            return Ok(());
        }
        self.early_deaths = if lived < YOUNG {
            self.early_deaths + 1
        } else {
            0
        };
        if phase == Phase::Ready && self.early_deaths < 2 {
            self.restart();
            return Ok(());
        }
        // Slower each time, but not for ever so: somebody may be mending it.
        let pause = RETRY * (1 << self.early_deaths.saturating_sub(1).min(LONGEST_RETRY));
        log::notice(format_args!(
            "[pool {name}] the next pool process starts in {} second(s)",
            pause.as_secs()
        ));
        self.restart_at = Some(Instant::now() + pause);
        Ok(())
    }

    /// Whether there is a generation that takes requests, or will.
    pub(super) fn is_served(&self) -> bool {
        let mut generations = self.generations.iter();
        generations.any(|other| matches!(other.phase, Phase::Starting | Phase::Ready))
    }

    /// Starts a generation in place of one that died; if that is impossible now, tries again later.
    fn restart(&mut self) {
        // It serves whatever the old one was to be replaced for.
        self.wanted = None;
        self.scoreboard.count_restart();
        self.start_or_retry();
    }

    pub(super) fn start_or_retry(&mut self) {
        if let Err(error) = self.start_generation() {
            log::error(format_args!("[pool {}] {error}", self.config.name));
            if self
                .generations
                .iter()
                .all(|generation| matches!(generation.phase, Phase::Draining | Phase::Stopping))
            {
                self.restart_at = Some(Instant::now() + RETRY);
            }
        }
    }

    pub(super) fn replace_if_due(&mut self) {
        if self.wanted.is_none()
            || !self.may_replace()
            || self.last_start.elapsed() < REPLACE_INTERVAL
        {
            return;
        }
        self.wanted = None;
        self.start_or_retry();
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

    /// Whether another reload would have to end an older generation.
    pub(in crate::supervisor) fn has_many_finishing(&self) -> bool {
        let finishing = self
            .generations
            .iter()
            .filter(|generation| generation.phase == Phase::Draining && generation.exit.is_none());
        finishing.count() > MOST_FINISHING
    }

    /// Makes room for another generation after a reload: of those that still finish long requests, only so many may.
    pub(in crate::supervisor) fn bound_generations(&mut self) {
        let mut finishing: Vec<&mut Generation> = self
            .generations
            .iter_mut()
            .filter(|generation| generation.phase == Phase::Draining && generation.exit.is_none())
            .collect();
        finishing.sort_by_key(|generation| generation.number);
        let count = finishing.len().saturating_sub(MOST_FINISHING);
        for generation in finishing.into_iter().take(count) {
            log::warning(format_args!(
                "[pool {}] {MOST_FINISHING} older generations of workers still finish their requests: pool process {} (generation {}), the \
                 oldest, is ended",
                self.config.name, generation.pid, generation.number
            ));
            generation.stop();
        }
    }
}

/// A pool process that dies younger than this is not replaced at once if the one before it did the same.
const YOUNG: Duration = Duration::from_secs(3);

/// Longest time that the supervisor waits for older generations to stop taking requests, and how often it looks.
const TRANSITION: Duration = Duration::from_secs(1);

const GLANCE: Duration = Duration::from_millis(2);

/// Pause before the next attempt then; it doubles so many times.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: u32 = 5;

/// Least time between the starts of a generation and its replacement.
const REPLACE_INTERVAL: Duration = Duration::from_secs(2);

const MOST_FINISHING: usize = MAX_GENERATIONS as usize - 2;
