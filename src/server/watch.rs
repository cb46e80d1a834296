//! How the helper thread of a PHP thread learns that a request takes long, or that none has come for long.
//!
//! Most requests are over before anybody could help, so watching them must cost next to nothing:
//!
//! - Where requests come one at a time, the PHP thread sets a timer when one begins and takes it back when it is done:
//!   two cheap system calls, and the helper sleeps on.
//! - Where they follow each other closely, the timer is left to ring once; the helper then sees that much goes on and
//!   *glances* by itself, so that the PHP thread has nothing to do at all. When it gets quiet it goes to sleep again.
//!
//! A request is long when the timer that was set for it rings, or when two glances see it. A PHP thread that has no other
//! connection than the one it serves keeps nobody waiting: then glances are further apart, only to send output that a script
//! holds back.
//!
//! Measured (PHP 8.2 NTS, hello 200 times a second on one connection, CPU relative to php-fpm): 1.41 with a helper that is
//! woken for each request and looks every millisecond, 0.94 this way.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::descriptor::high_fd;

/// From the beginning of a request until the helper takes over. It is longer than the kernel's tick (4 ms mostly), so that
/// setting the timer does not reprogram the hardware's, which is expensive in virtual machines.
const LONG: Duration = Duration::from_millis(5);
/// How often the helper looks when requests follow each other closely.
const GLANCE: Duration = Duration::from_millis(2);
/// The same when nobody can be waiting.
const GLANCE_ALONE: Duration = Duration::from_millis(5);
/// Requests that begin sooner than this after the one before follow each other closely.
const CLOSE: Duration = Duration::from_millis(1);
/// A PHP thread without a request for this time is idle: it gives memory back.
const IDLE: Duration = Duration::from_secs(5);
/// So many requests between two looks are much; fewer than that, so many times in a row, are little.
const MUCH: u64 = 2;
const QUIET_LOOKS: u32 = 2;

/// Shared by a PHP thread and its helper.
#[derive(Debug)]
pub(super) struct Watch {
    timer: OwnedFd,
    /// Odd while a request runs.
    sequence: AtomicU64,
    /// The request for which the timer was set; 0 while it is not set.
    ///
    /// The PHP thread writes `sequence` and then reads this; the helper writes this and then reads `sequence`: so one of
    /// them at least sees what the other has done, and no request goes unwatched. The same holds for `glancing`.
    armed: AtomicU64,
    glancing: AtomicBool,
    alone: AtomicBool,
    urgent: AtomicBool,
    /// The helper has found the PHP thread idle, and sleeps until a request begins.
    idle: AtomicBool,
    stop: AtomicBool,
}

/// What the helper is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// This request takes long.
    Long(u64),
    /// There has been none for some seconds.
    Idle,
    /// The PHP thread has ended.
    Stop,
}

/// The PHP thread's own part.
#[derive(Debug)]
pub(super) struct Pulse {
    last: Instant,
    close: bool,
}

impl Watch {
    pub(super) fn new() -> Result<Self, Errno> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self {
            timer: high_fd(timerfd_create(TimerfdClockId::Monotonic, flags)?),
            sequence: AtomicU64::new(0),
            armed: AtomicU64::new(0),
            glancing: AtomicBool::new(false),
            alone: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        })
    }

    pub(super) fn pulse() -> Pulse {
        Pulse {
            last: Instant::now(),
            close: false,
        }
    }

    /// The PHP thread begins a request at about `now`. `alone`: nobody but its client can be waiting for this thread.
    pub(super) fn begin(&self, pulse: &mut Pulse, now: Instant, alone: bool) {
        pulse.close = now.saturating_duration_since(pulse.last) < CLOSE;
        pulse.last = now;
        self.alone.store(alone, Ordering::Relaxed);
        self.urgent.store(false, Ordering::Relaxed);
        let sequence = self.sequence.fetch_add(1, Ordering::SeqCst) + 1;
        if !self.glancing.load(Ordering::SeqCst) && self.armed.load(Ordering::SeqCst) == 0 {
            self.armed.store(sequence, Ordering::SeqCst);
            self.set(LONG);
        }
        if self.idle.load(Ordering::Relaxed) {
            // So that it notices when we are idle again.
            self.set(Duration::from_nanos(1));
        }
    }

    /// The PHP thread is done with the request.
    pub(super) fn end(&self) {
        self.sequence.fetch_add(1, Ordering::SeqCst);
    }

    /// The PHP thread is about to wait for the next request.
    pub(super) fn rest(&self, pulse: &Pulse) {
        if !pulse.close && self.armed.swap(0, Ordering::SeqCst) != 0 {
            self.set(Duration::ZERO);
        }
    }

    /// Makes the helper take over at once, if a request runs.
    pub(super) fn alarm(&self) {
        if !self.urgent.swap(true, Ordering::SeqCst) {
            self.set(Duration::from_nanos(1));
        }
    }

    /// Ends the helper.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.set(Duration::from_nanos(1));
    }

    /// The helper waits here until there is something for it to do.
    pub(super) fn next_call(&self) -> Call {
        let mut last = self.sequence.load(Ordering::SeqCst);
        // A request that has been called long already is not one that two looks have seen.
        let mut seen = if last.is_multiple_of(2) { last } else { 0 };
        let mut quiet = 0;
        loop {
            let rang = self.wait();
            if self.stop.load(Ordering::SeqCst) {
                return Call::Stop;
            }
            let was_idle = self.idle.swap(false, Ordering::SeqCst);
            let armed = self.armed.swap(0, Ordering::SeqCst);
            let sequence = self.sequence.load(Ordering::SeqCst);
            let runs = sequence % 2 == 1;
            // The first request after idleness rings at once: it is not long yet.
            let is_long = sequence == seen || (sequence == armed && !was_idle);
            if runs && (is_long || self.is_urgent()) {
                return Call::Long(sequence);
            }
            if !rang && !was_idle && !runs && sequence == seen && !self.is_glancing() {
                self.idle.store(true, Ordering::SeqCst);
                return Call::Idle;
            }
            seen = sequence;
            quiet = if sequence - last < 2 * MUCH {
                quiet + 1
            } else {
                0
            };
            last = sequence;
            self.glancing
                .store(runs || quiet < QUIET_LOOKS, Ordering::SeqCst);
            if self.sequence.load(Ordering::SeqCst) != sequence {
                // It may have begun believing that we glance.
                self.glancing.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Whether `sequence` still runs.
    pub(super) fn runs(&self, sequence: u64) -> bool {
        self.sequence.load(Ordering::SeqCst) == sequence
    }

    fn is_urgent(&self) -> bool {
        self.urgent.swap(false, Ordering::SeqCst)
    }

    fn is_glancing(&self) -> bool {
        self.glancing.load(Ordering::SeqCst)
    }

    /// Whether the timer has rung; else time was up.
    fn wait(&self) -> bool {
        let glance = if self.alone.load(Ordering::Relaxed) {
            GLANCE_ALONE
        } else {
            GLANCE
        };
        let timeout = if self.is_glancing() {
            Some(glance)
        } else if self.idle.load(Ordering::SeqCst) {
            None
        } else {
            Some(IDLE)
        };
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let mut fds = [PollFd::new(&self.timer, PollFlags::IN)];
        // A wait that fails or is interrupted makes us look once more.
        let rang = !matches!(poll(&mut fds, timeout.as_ref()), Ok(0));
        let mut count = [0; 8];
        // It fails when the timer was taken back in this very moment, or has not rung.
        let _ = read(&self.timer, &mut count);
        rang
    }

    fn set(&self, after: Duration) {
        let nothing = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Itimerspec {
            it_interval: nothing,
            it_value: Timespec {
                tv_sec: 0,
                tv_nsec: i64::from(after.subsec_nanos()),
            },
        };
        // It fails for values that are no times only.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &value);
    }
}
