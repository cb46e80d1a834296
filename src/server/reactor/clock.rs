//! What a reactor does because time has passed: ticks for running requests, deadlines, closed connections that are still read,
//! and new ones that have had to wait.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::{Reactor, SWEEP, TICK};
use crate::log;

impl Reactor {
    /// Suspends accepting for want of descriptors or memory.
    pub(super) fn suspend_for(&mut self, want: &str) {
        self.tell_want(&format!(
            "{want}; raise the limit of open files (rlimit_files, ulimit -n, LimitNOFILE=). New connections wait"
        ));
        self.suspend();
    }

    /// Logs what is wanting. That may last: it is said once a minute.
    pub(super) fn tell_want(&mut self, line: &str) {
        let now = Instant::now();
        if self
            .want_told
            .is_none_or(|told| now - told > Duration::from_secs(60))
        {
            self.want_told = Some(now);
            log::warning(format_args!("[pool {}] {line}", self.sources.pool));
        }
    }

    pub(super) fn suspend(&mut self) {
        self.suspend_until(Instant::now() + Duration::from_millis(100));
    }

    pub(super) fn suspend_until(&mut self, end: Instant) {
        self.set_accepting(false);
        self.suspended = Some(end);
    }

    /// How long a thread may wait for events: no longer than something that depends on time can. `ticks`: it sees to output that
    /// running requests hold back.
    pub(crate) fn patience(&self, timeout: Option<Duration>, ticks: bool) -> Option<Duration> {
        let mut longest = timeout.unwrap_or(Duration::MAX);
        let is_any_running = || self.running.iter().any(|running| !running.is_ended());
        if !self.relays.is_empty() || (ticks && is_any_running()) {
            longest = longest.min(TICK);
        }
        if self.suspended.is_some() || self.drain.is_some() || !self.lingering.is_empty() {
            longest = longest.min(SWEEP);
        }
        if self.has_queue_clock() || !self.sent.is_empty() {
            longest = longest.min(TICK);
        }
        if self.clocked > 0 {
            longest = longest.min(Duration::from_millis(250));
        }
        (longest != Duration::MAX).then_some(longest)
    }

    pub(super) fn look_after_time(&mut self) {
        let now = self.now;
        if !self.sent.is_empty() {
            self.take_back();
        }
        if now.saturating_duration_since(self.last_tick) >= TICK {
            self.last_tick = now;
            for running in &self.running {
                running.tick();
            }
            self.look_after_relays();
        }
        if now.saturating_duration_since(self.last_sweep) < SWEEP {
            return;
        }
        self.last_sweep = now;
        if self.suspended.is_some_and(|until| until <= now) {
            self.suspended = None;
            self.set_accepting(true);
            self.pending_listeners = u64::MAX;
        }
        self.read_lingering(now);
        if self.drain.is_some() {
            self.drain_connections();
        }
        if self.clocked == 0 {
            return;
        }
        let late: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, connection)| {
                connection
                    .deadline()
                    .is_some_and(|deadline| deadline <= now)
            })
            .map(|(index, _)| index)
            .collect();
        for index in late {
            self.warn(&format!(
                "a client took longer than limit.request_header_timeout (--request-header-timeout, {} s) to send its request, so its connection is \
                 closed",
                self.sources.limits.request_header_timeout.as_secs_f32()
            ));
            self.remove(index);
        }
    }

    fn read_lingering(&mut self, now: Instant) {
        let scratch = self.scratch.as_mut_slice();
        self.lingering.retain(|(until, socket)| {
            if *until <= now {
                return false;
            }
            loop {
                match recv(socket, &mut *scratch, RecvFlags::DONTWAIT) {
                    Ok((0, _)) => return false,
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return true,
                    Err(_) => return false,
                }
            }
        });
    }
}
