//! Requests that wait too long for a worker, or find too many waiting: they are refused, so that their clients can turn elsewhere
//! while it is still of use (`pm.queue_timeout`, `pm.queue_max`, `pm.queue_answer`).
//!
//! A PHP thread looks at each request before it runs it, and beside a request that takes long the helper looks every tick at those
//! that wait there and at the first of the queue. The time that a request has waited goes with it from process to process.
//!
//! What waits in the kernel, since nobody has accepted its connection, has not begun to wait in this sense: where there is a limit,
//! the helper accepts all the same beside a request that takes long (`dispatch.rs`).

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Reactor;
use crate::config::{PoolConfig, QueueAnswer};
use crate::fastcgi::ProtocolStatus;
use crate::log;
use crate::scoreboard::Moment;
use crate::server::books;
use crate::server::handover;
use crate::server::job::Job;

/// What a pool does with requests that have to wait.
#[derive(Debug, Clone)]
pub(crate) struct QueueRules {
    timeout: Option<Duration>,
    answer: QueueAnswer,
    /// Requests whose client has closed its connection are not run. (php-fpm runs them, and some scripts rely on that: so only
    /// where there is a limit on the queue.)
    drops_gone: bool,
}

impl QueueRules {
    pub(crate) fn new(config: &PoolConfig) -> Self {
        Self {
            timeout: config.queue_timeout,
            answer: config.queue_answer,
            drops_gone: config.queue_timeout.is_some() || config.limits.queue != u32::MAX,
        }
    }

    /// Seconds after which a client may try again.
    fn retry_after(&self) -> u64 {
        let timeout = self.timeout.unwrap_or_default();
        (timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0)).clamp(1, LONGEST_RETRY)
    }

    fn page(&self) -> String {
        format!(
            "Status: 503 Service Unavailable\r\nRetry-After: {}\r\nContent-type: text/plain; charset=UTF-8\r\n\r\n\
             The server is busy. Please try again later.\n",
            self.retry_after()
        )
    }
}

impl Reactor {
    /// Whether a request that has not started has nobody any more who waits for it.
    pub(super) fn is_unwanted(&self, job: &Job) -> bool {
        // The rest costs a system call, and few leave so soon.
        job.exchange.is_gone()
            || self.sources.queue_rules.drops_gone
                && job.ready.elapsed() >= SOON
                && has_hung_up(job.exchange.output().socket())
    }

    /// Whether a request has waited longer than it may.
    pub(super) fn is_late(&self, job: &Job) -> bool {
        let timeout = self.sources.queue_rules.timeout;
        timeout.is_some_and(|timeout| job.ready.elapsed() >= timeout)
    }

    /// Refuses a request that [is late](Self::is_late).
    pub(super) fn refuse_late(&mut self, job: Job) {
        let (waited, allowed) = (job.ready.elapsed(), self.sources.queue_rules.timeout);
        self.refuse_by_rule(job, |count| {
            format!(
                "{count} request(s) refused: the last one has waited {:.3} s for a worker, pm.queue_timeout is {:.3} s; consider \
                 raising pm.max_children",
                waited.as_secs_f64(),
                allowed.unwrap_or_default().as_secs_f64()
            )
        });
    }

    /// Refuses a request that finds too many waiting.
    pub(super) fn refuse_for_want_of_room(&mut self, job: Job) {
        let limit = self.sources.limits.queue;
        self.refuse_by_rule(job, |count| {
            format!(
                "{count} request(s) refused: {limit} wait for a worker, as many as pm.queue_max (--queue) allows; consider raising \
                 pm.max_children (--workers)"
            )
        });
    }

    fn refuse_by_rule(&mut self, job: Job, line: impl FnOnce(u64) -> String) {
        if let Some(writer) = &mut self.refusals {
            let waited = job.ready.elapsed();
            books::log_refused(writer, &job.variables, job.exchange.output(), waited);
        }
        let rules = &self.sources.queue_rules;
        // All processes of the pool together say it once a second.
        if let Some(count) = self.sources.scoreboard.count_refused(Moment::now()) {
            log::warning(format_args!("[pool {}] {}", self.sources.pool, line(count)));
        }
        match rules.answer {
            QueueAnswer::Overloaded => self.refuse(job, ProtocolStatus::Overloaded),
            QueueAnswer::ServiceUnavailable => {
                let page = rules.page();
                self.dispose(job, |job| job.exchange.answer(page.as_bytes()));
            }
        }
    }

    /// Whether requests that wait are limited in number or time.
    pub(super) fn has_queue_limit(&self) -> bool {
        self.sources.queue_rules.drops_gone
    }

    /// Whether more requests wait here than the whole pool may have.
    pub(crate) fn exceeds_queue(&self) -> bool {
        self.ready.len() > self.sources.limits.queue as usize
    }

    /// Whether a request that waits is to be looked at again soon.
    pub(super) fn has_queue_clock(&self) -> bool {
        self.sources.queue_rules.timeout.is_some()
            && (!self.ready.is_empty() || self.sources.slot.has_queue())
    }

    /// While all PHP threads of this process are busy: refuses what has waited too long, here and in the queue.
    pub(crate) fn expire_queued(&mut self) {
        let Some(timeout) = self.sources.queue_rules.timeout else {
            return;
        };
        self.expire_ready();
        for _ in 0..EXPIRED_AT_ONCE {
            let receiver = self.sources.lanes.queue_receiver();
            let is_late = |since| Moment::now().since(since) >= timeout;
            // Should another process take it first, we get the next one, which goes back where it was.
            if !self.sources.slot.has_queue()
                || self.is_full()
                || !receiver.and_then(handover::peek).is_some_and(is_late)
            {
                return;
            }
            self.receive_queued();
            self.expire_ready();
        }
    }

    /// Refuses what has waited too long.
    pub(super) fn expire_ready(&mut self) {
        if self.sources.queue_rules.timeout.is_none() {
            return;
        }
        for mut job in std::mem::take(&mut self.ready) {
            if self.index(job.token).is_none() {
                self.uncount(&mut job);
                continue; // its connection was closed with one before
            }
            if self.is_late(&job) {
                self.refuse_late(job);
            } else {
                self.ready.push_back(job);
            }
        }
    }
}

/// Whether the peer has closed its connection, or reset it. (One that has only said that it will send no more has not.)
fn has_hung_up(socket: impl AsFd) -> bool {
    let gone = PollFlags::HUP | PollFlags::ERR;
    let mut wanted = [PollFd::new(&socket, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut wanted, Some(&now)), Ok(1)) && wanted[0].revents().intersects(gone)
}

/// A client that closes its connection this soon has not been waited for in vain.
const SOON: Duration = Duration::from_millis(1);

/// Requests that are taken out of the queue in one tick, since others wait for this thread too.
const EXPIRED_AT_ONCE: usize = 256;

/// The most that clients are told to wait, in seconds.
const LONGEST_RETRY: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_to_come_back_in_whole_seconds() {
        let mut config = PoolConfig::new("www".to_owned(), Vec::new(), 1);
        for (timeout, seconds) in [
            (None, 1),
            (Some(1), 1),
            (Some(1_000), 1),
            (Some(1_001), 2),
            (Some(3_600_000), 60),
        ] {
            config.queue_timeout = timeout.map(Duration::from_millis);
            let page = QueueRules::new(&config).page();
            assert!(
                page.contains(&format!("\r\nRetry-After: {seconds}\r\n")),
                "{page}"
            );
        }
    }
}
