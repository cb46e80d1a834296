//! `emergency_restart_threshold`: too many worker processes that died of SIGSEGV or SIGBUS in a short time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The last deaths.
#[derive(Debug)]
pub(super) struct Faults {
    threshold: usize,
    interval: Duration,
    times: VecDeque<Instant>,
}

impl Faults {
    /// A threshold of 0 is never reached.
    pub(super) fn new(threshold: u32, interval: Duration) -> Self {
        Self {
            threshold: threshold as usize,
            interval,
            times: VecDeque::new(),
        }
    }

    /// Another one; whether that is too many. Then it counts anew.
    pub(super) fn add(&mut self, now: Instant) -> bool {
        self.times.push_back(now);
        while self
            .times
            .front()
            .is_some_and(|first| now.duration_since(*first) > self.interval)
        {
            self.times.pop_front();
        }
        // Both directives are needed, as under php-fpm.
        let is_on = self.threshold > 0 && !self.interval.is_zero();
        let reached = is_on && self.times.len() >= self.threshold;
        if reached {
            self.times.clear();
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_many_deaths_in_a_short_time_are_too_many() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut faults = Faults::new(3, Duration::from_secs(10));
        assert!(!faults.add(at(0)) && !faults.add(at(6)));
        assert!(!faults.add(at(11)), "the first is too old");
        assert!(faults.add(at(12)));
        assert!(!faults.add(at(12)), "it counts anew");
        let mut never = Faults::new(0, Duration::ZERO);
        assert!(!never.add(at(0)) && !never.add(at(0)));
        let mut never = Faults::new(1, Duration::ZERO);
        assert!(!never.add(at(0)) && !never.add(at(0)));
    }
}
