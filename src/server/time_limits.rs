//! `request_slowlog_timeout` and `request_terminate_timeout` of one pool.
//!
//! The helper thread of a PHP thread looks at a request's clock every 20 ms (`driver.rs`). When the request is slow, its backtrace
//! goes to the slow log. When it is overdue, PHP is asked to end the script, which most scripts do within milliseconds:
//!
//! ```text
//!            terminate timeout               script ended              request over
//! Running ───────────────────▶ Stopping ──────────────────▶ Ending ────────────────▶
//!                                │  ▲                          │
//!                GRACE has passed│  └──────────────────────────┘ shutdown functions take longer than
//!                                ▼                               SHUTDOWN: those are ended too, but not for ever
//!                            Hopeless
//! ```
//!
//! What does not end this way waits where PHP does not look for interrupts: for a database, a shell command, another server; or is
//! busy in one function of PHP's. On NTS the process is ended then, on ZTS it is replaced while its other threads go on.

use std::fmt::{self, Write};
use std::time::{Duration, Instant};

use rustix::process::getpid;

use super::exchange::Exchange;
use super::slow_log::SlowLog;
use crate::config::TimeLimits;
use crate::engine::{Backtrace, Interrupter, RequestInfo, Running, Stage};
use crate::log;

/// How long a script may take to end after it has been asked to.
const GRACE: Duration = Duration::from_secs(1);
/// How long shutdown functions and destructors of a script that was ended may take.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// How often a request is asked to end.
const MOST_STOPS: u32 = 3;
/// Frames of a backtrace in the error log.
const REPORT_DEPTH: usize = 64;

/// A pool's limits, and what is done when they have passed.
pub(crate) struct TimeLimiter {
    pool: String,
    limits: TimeLimits,
    slow_log: Option<SlowLog>,
    hooks: Hooks,
}

/// What the rest of the server is told. All are called on helper threads.
pub(crate) struct Hooks {
    /// A request was slow: `slow requests` of the status page.
    pub(crate) on_slow: Box<dyn Fn() + Send + Sync>,
    /// A request of this process does not end. It has been answered; its PHP thread is lost. On NTS the process ends next, on ZTS
    /// it is to be replaced while its other threads finish.
    pub(crate) on_stuck: Box<dyn Fn() + Send + Sync>,
    /// The process is about to end beside that request, which counts as finished then.
    pub(crate) on_left: Box<dyn Fn() + Send + Sync>,
}

/// The clock of one request that takes long.
pub(super) struct Clock<'a> {
    limiter: &'a TimeLimiter,
    begun: Instant,
    slow_logged: bool,
    phase: Phase,
    stops: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Asked to end since then.
    Stopping(Instant),
    /// The script has ended; what comes after it has been running since then.
    Ending(Instant),
    /// Nothing more can be done.
    Hopeless,
}

/// What is to be done about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Fine,
    /// It does not end. Said once.
    Hopeless,
    /// The same later.
    GivenUp,
}

impl TimeLimiter {
    /// `None` when there is nothing to limit. A slow log that has no file is none.
    pub(crate) fn new(
        pool: &str,
        limits: &TimeLimits,
        slow_log: Option<SlowLog>,
        hooks: Hooks,
    ) -> Option<Self> {
        let mut limits = limits.clone();
        if slow_log.is_none() {
            limits.slowlog = None;
        }
        (limits.terminate.is_some() || limits.slowlog.is_some()).then(|| Self {
            pool: pool.to_owned(),
            limits,
            slow_log,
            hooks,
        })
    }

    /// For a request that began at about `begun`.
    pub(super) fn clock(&self, begun: Instant) -> Clock<'_> {
        Clock {
            limiter: self,
            begun,
            slow_logged: false,
            phase: Phase::Running,
            stops: 0,
        }
    }

    /// [`Hooks::on_stuck`]
    pub(super) fn stuck(&self) {
        (self.hooks.on_stuck)();
    }

    /// [`Hooks::on_left`]
    pub(super) fn left(&self) {
        (self.hooks.on_left)();
    }

    /// Says in php-fpm's words what has become of a request, and with `backtrace` what it was running, all at once.
    fn report(
        &self,
        info: &RequestInfo,
        what: &str,
        after: Duration,
        then: &str,
        backtrace: Option<&Backtrace>,
    ) {
        let head = format!("[pool {}] child {}", self.pool, getpid());
        let mut text = format!(
            "{head}, script '{}' (request: \"{}\") {what} ({}.{:06} sec), {then}",
            purified(&info.script),
            Line(info),
            after.as_secs(),
            after.subsec_micros()
        );
        for line in backtrace.iter().flat_map(|backtrace| backtrace.lines()) {
            // A `String` cannot fail to take text.
            let _ = write!(text, "\n{head}   {line}");
        }
        log::warning(format_args!("{text}"));
    }
}

impl Clock<'_> {
    /// Looks at the clock and does what is due. `still_runs` says whether the request of this clock runs. `exchange`: its answer.
    pub(super) fn check(
        &mut self,
        interrupter: &Interrupter,
        exchange: Option<&Exchange>,
        still_runs: impl Fn() -> bool,
    ) -> Verdict {
        if self.phase == Phase::Hopeless {
            return Verdict::GivenUp;
        }
        let after = self.begun.elapsed();
        let limits = &self.limiter.limits;
        let slow = !self.slow_logged && limits.slowlog.is_some_and(|limit| after >= limit);
        let overdue = limits.terminate.filter(|limit| after >= *limit);
        if !slow && overdue.is_none() {
            return Verdict::Fine;
        }
        // While this is held, no other request can begin.
        let Some(running) = interrupter.running().filter(|_| still_runs()) else {
            return Verdict::Fine;
        };
        if slow {
            self.log_slow(&running, after);
        }
        match overdue {
            None => Verdict::Fine,
            Some(limit) => self.terminate(running, exchange, limit, after),
        }
    }

    fn log_slow(&mut self, running: &Running<'_>, after: Duration) {
        let Some(info) = running.info() else { return };
        match info.stage {
            Stage::Info => return,
            Stage::Executing => {}
            Stage::Finished => {
                self.slow_logged = true;
                return;
            }
        }
        self.slow_logged = true;
        let limiter = self.limiter;
        let depth = usize::try_from(limiter.limits.slowlog_trace_depth).unwrap_or(usize::MAX);
        let backtrace = running.backtrace(depth);
        limiter.report(&info, "executing too slow", after, "logging", None);
        (limiter.hooks.on_slow)();
        let pid = getpid();
        log::notice(format_args!("about to trace {pid}"));
        if let Some(slow_log) = &limiter.slow_log {
            let pid = pid.as_raw_nonzero().get();
            slow_log.add(pid, &printable(&info.script), &backtrace);
        }
        log::notice(format_args!("finished trace of {pid}"));
    }

    fn terminate(
        &mut self,
        running: Running<'_>,
        exchange: Option<&Exchange>,
        limit: Duration,
        after: Duration,
    ) -> Verdict {
        match self.phase {
            Phase::Running => {
                let Some(info) = running.info() else {
                    return Verdict::Fine;
                };
                if info.stage == Stage::Finished && !self.limiter.limits.track_finished {
                    return Verdict::Fine;
                }
                let backtrace = running.backtrace(REPORT_DEPTH);
                self.stop(&running, limit);
                drop(running);
                if let Some(exchange) = exchange {
                    exchange.expire();
                }
                self.limiter.report(
                    &info,
                    "execution timed out",
                    after,
                    "terminating",
                    Some(&backtrace),
                );
            }
            Phase::Stopping(since) => {
                if !running.is_stop_pending() {
                    self.phase = Phase::Ending(Instant::now());
                } else if since.elapsed() < GRACE {
                    running.stop(limit);
                } else {
                    return self.give_up(&running, GRACE);
                }
            }
            Phase::Ending(since) => {
                if since.elapsed() < SHUTDOWN {
                    return Verdict::Fine;
                }
                if self.stops == MOST_STOPS {
                    return self.give_up(&running, SHUTDOWN);
                }
                self.stop(&running, limit);
            }
            Phase::Hopeless => {}
        }
        Verdict::Fine
    }

    fn stop(&mut self, running: &Running<'_>, limit: Duration) {
        running.stop(limit);
        self.phase = Phase::Stopping(Instant::now());
        self.stops += 1;
    }

    fn give_up(&mut self, running: &Running<'_>, waited: Duration) -> Verdict {
        self.phase = Phase::Hopeless;
        let Some(info) = running.info() else {
            return Verdict::Hopeless;
        };
        let then = if cfg!(php_zts) {
            "its thread is lost and the process will be replaced"
        } else {
            "killing the process"
        };
        let backtrace = running.backtrace(REPORT_DEPTH);
        let what = "did not end when it was told to";
        self.limiter
            .report(&info, what, waited, then, Some(&backtrace));
        Verdict::Hopeless
    }
}

impl fmt::Debug for TimeLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeLimiter")
            .field("pool", &self.pool)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// `GET /a.php?b=c`
struct Line<'a>(&'a RequestInfo);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(info) = self;
        let mark = if info.query_string.is_empty() {
            ""
        } else {
            "?"
        };
        let (method, uri, query) = (&info.method, &info.request_uri, &info.query_string);
        write!(f, "{method} {uri}{mark}{query}")
    }
}

/// php-fpm's `str_purify_filename`.
fn purified(name: &str) -> String {
    let pure = |byte: u8| {
        if matches!(byte, b' '..=0x7f) {
            byte
        } else {
            b'.'
        }
    };
    name.bytes().map(pure).map(char::from).collect()
}

/// No name forges a line.
fn printable(name: &str) -> String {
    let pure = |c: char| if c.is_control() { '?' } else { c };
    name.chars().map(pure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_purified_as_by_php_fpm() {
        assert_eq!(purified("/a b\t\u{e4}.php"), "/a b....php");
    }

    #[test]
    fn the_request_is_named_as_by_php_fpm() {
        let mut info = RequestInfo {
            stage: Stage::Executing,
            method: "GET".to_owned(),
            request_uri: "/a.php".to_owned(),
            query_string: String::new(),
            script: String::new(),
        };
        assert_eq!(Line(&info).to_string(), "GET /a.php");
        "b=c".clone_into(&mut info.query_string);
        assert_eq!(Line(&info).to_string(), "GET /a.php?b=c");
    }
}
