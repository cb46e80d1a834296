//! The timer by which the helper thread learns that a request takes long, and what else a PHP thread tells it.
//!
//! Most requests are over before the helper could do anything, so watching them must cost next to nothing. A PHP thread sets the
//! timer when a request begins, unless it is set. Where requests come one at a time it takes the timer back when the request is
//! done; where they follow each other closely it leaves the timer to ring, once in [`LONG`], and the helper looks which requests run
//! since when.
//!
//! Measured (PHP 8.2 NTS, hello 200 times a second on one connection, CPU relative to php-fpm): 1.41 with a helper that is
//! woken for each request and looks every millisecond, 0.94 this way.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, clock_gettime,
    timerfd_create, timerfd_settime,
};

use crate::descriptor::high_fd;

/// A request that has run for this time is long. It is longer than the kernel's tick (4 ms mostly), so that setting the timer
/// does not reprogram the hardware's, which is expensive in virtual machines.
pub(super) const LONG: Duration = Duration::from_millis(5);
/// Requests that begin sooner than this after the one before follow each other closely.
const CLOSE: Duration = Duration::from_millis(1);
/// While most requests take less than this, it costs more to look after what waits behind one than to let it wait.
const SHORT: Duration = Duration::from_micros(100);
/// While most take less than this, it is the same unless a worker is idle, or is about to run what came later.
const MEDIUM: Duration = Duration::from_micros(500);
/// Bounds of [`Watch::typical`], in nanoseconds, so that it follows soon when requests become shorter or longer.
const LEAST_TYPICAL: u64 = 20_000;
const MOST_TYPICAL: u64 = 2_000_000;

/// How long requests are likely to take. What follows from it is said in `reactor/dispatch.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Expected {
    /// Less than [`SHORT`].
    Short,
    /// Less than [`MEDIUM`].
    Medium,
    /// Longer.
    Long,
}

/// Shared by the PHP threads of a process and their helper.
#[derive(Debug)]
pub(super) struct Watch {
    timer: Arc<OwnedFd>,
    /// The timer has rung, and a PHP thread that runs nothing was told of it.
    rung: AtomicBool,
    /// The helper, which is away, hears what siblings ask for.
    hears: AtomicBool,
    /// Scripts that wait for their client's body.
    readers: AtomicU32,
    /// Readable when the helper is called: an eventfd.
    bell: OwnedFd,
    /// The timer is set, or has rung and the helper does not know yet.
    armed: AtomicBool,
    /// The helper does not wait for events: it waits for the timer alone.
    ///
    /// It sets this and then looks whether all PHP threads are busy; a PHP thread becomes busy and then looks at this: so one of
    /// them at least sees what the other has done.
    away: AtomicBool,
    /// The time that half of the requests of late have exceeded, in nanoseconds. (Not the average: a short request that is put off
    /// its processor takes as long as a hundred others.)
    typical: AtomicU64,
    stop: AtomicBool,
}

/// A PHP thread's own part.
#[derive(Debug)]
pub(super) struct Pulse {
    last: Instant,
    close: bool,
    /// Requests until one is measured.
    until_measured: u32,
}

/// One request in so many is measured, since that costs four system calls.
const MEASURED: u32 = 8;

/// The state of a PHP thread when a request begins that is measured.
#[derive(Debug)]
struct Measured {
    cpu: Timespec,
    waits: Option<i64>,
}

impl Measured {
    fn now() -> Self {
        let usage = getrusage(UsageWho::RUSAGE_THREAD);
        Self {
            cpu: clock_gettime(ClockId::ThreadCPUTime),
            waits: usage.ok().map(|usage| usage.voluntary_context_switches()),
        }
    }

    /// How long the request has taken that has taken `elapsed` by the clock. If it has not waited for anything, the time that
    /// other threads have had the processor does not count: then hello on a busy machine would seem to be a long request, and the
    /// work that is done for long ones would make it busier still.
    fn took(&self, elapsed: Duration) -> Duration {
        let now = Self::now();
        if self.waits.is_some() && self.waits == now.waits {
            let nanos = (now.cpu.tv_sec - self.cpu.tv_sec) * 1_000_000_000
                + (now.cpu.tv_nsec - self.cpu.tv_nsec);
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)).min(elapsed)
        } else {
            elapsed
        }
    }
}

/// A request that runs.
#[derive(Debug)]
pub(super) struct Beat {
    begun: Instant,
    measured: Option<Measured>,
}

impl Pulse {
    /// Whether the last request began soon after the one before.
    pub(super) fn is_close(&self) -> bool {
        self.close
    }

    /// A request begins.
    pub(super) fn beat(&mut self, begun: Instant) -> Beat {
        let is_due = self.until_measured == 0;
        self.until_measured = if is_due {
            MEASURED
        } else {
            self.until_measured - 1
        };
        Beat {
            begun,
            measured: is_due.then(Measured::now),
        }
    }
}

/// Lets other threads of the machine run before a request that begins without a wait. A request that is interrupted in its middle
/// would else wait for the whole time slices of threads that go from one request to the next. (php-fpm's workers wait for their
/// client's end after each request, which has the same effect.)
pub(super) fn give_way() {
    std::thread::yield_now();
}

impl Watch {
    pub(super) fn new() -> Result<Self, Errno> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self {
            timer: Arc::new(high_fd(timerfd_create(TimerfdClockId::Monotonic, flags)?)),
            rung: AtomicBool::new(false),
            hears: AtomicBool::new(false),
            readers: AtomicU32::new(0),
            bell: high_fd(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?),
            armed: AtomicBool::new(false),
            away: AtomicBool::new(true),
            typical: AtomicU64::new(MOST_TYPICAL),
            stop: AtomicBool::new(false),
        })
    }

    pub(super) fn pulse() -> Pulse {
        let now = Instant::now();
        Pulse {
            last: now,
            close: false,
            until_measured: 0,
        }
    }

    /// Readable when it has rung.
    pub(super) fn timer(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.timer)
    }

    /// A script is about to wait for its client's body, which the helper reads; or it has waited. Returns whether the helper may
    /// have put off what it is to read.
    pub(super) fn wait_for_body(&self, waits: bool) -> bool {
        if !waits {
            self.readers.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        let is_first = self.readers.fetch_add(1, Ordering::SeqCst) == 0;
        self.call();
        is_first
    }

    /// Whether a script waits for its client's body.
    pub(super) fn has_readers(&self) -> bool {
        self.readers.load(Ordering::SeqCst) > 0
    }

    /// A PHP thread begins a request at about `now`.
    pub(super) fn begin(&self, pulse: &mut Pulse, now: Instant) {
        pulse.close = now.saturating_duration_since(pulse.last) < CLOSE;
        pulse.last = now;
        if !self.armed.load(Ordering::SeqCst) && !self.armed.swap(true, Ordering::SeqCst) {
            self.set(LONG);
        }
    }

    /// A PHP thread is done with a request.
    pub(super) fn end(&self, pulse: &mut Pulse, beat: &Beat) {
        let elapsed = beat.begun.elapsed();
        let Some(measured) = &beat.measured else {
            if elapsed >= SHORT && self.expected() == Expected::Short {
                // Perhaps they have become longer.
                pulse.until_measured = 0;
            }
            return;
        };
        let took = u64::try_from(measured.took(elapsed).as_nanos()).unwrap_or(u64::MAX);
        let typical = self.typical.load(Ordering::Relaxed);
        // Up or down by the same factor: so it rests where as many requests take longer as shorter. Threads that do this at once
        // may forget each other's.
        let typical = if took > typical {
            (typical + typical / 4).min(MOST_TYPICAL)
        } else {
            (typical - typical / 5).max(LEAST_TYPICAL)
        };
        self.typical.store(typical, Ordering::Relaxed);
    }

    /// A PHP thread is about to wait for the next request.
    pub(super) fn rest(&self, pulse: &Pulse) {
        if !pulse.close && self.armed.swap(false, Ordering::SeqCst) {
            self.set(Duration::ZERO);
        }
    }

    /// How long requests are likely to take.
    pub(super) fn expected(&self) -> Expected {
        let typical = Duration::from_nanos(self.typical.load(Ordering::Relaxed));
        if typical < SHORT {
            Expected::Short
        } else if typical < MEDIUM {
            Expected::Medium
        } else {
            Expected::Long
        }
    }

    /// Has the helper look at once, if it does not wait for events.
    pub(super) fn call(&self) {
        if self.away.load(Ordering::SeqCst) && self.away.swap(false, Ordering::SeqCst) {
            self.ring();
        }
    }

    fn ring(&self) {
        // It fails only when the counter is full, and then it is readable.
        let _ = write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Ends the helper.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.ring();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// The helper waits for the timer alone from now on, or no longer.
    pub(super) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// Whether the helper hears what siblings ask for; or it is not away.
    pub(super) fn hears(&self) -> bool {
        self.hears.load(Ordering::SeqCst)
    }

    /// The helper is about to wait, and hears what siblings ask for if `hears`; returns that. A PHP thread becomes busy and then looks
    /// at this: so if that changes `hears` meanwhile, one of them sees what the other has done.
    pub(super) fn set_hears(&self, hears: impl Fn() -> bool) -> bool {
        let mut result = hears();
        self.hears.store(result, Ordering::SeqCst);
        if !result && hears() {
            result = true;
            self.hears.store(true, Ordering::SeqCst);
        }
        result
    }

    /// The helper waits here for the timer, a call, or something in `lane`, for `timeout` at most; returns whether the timer has
    /// rung, and whether there is something in the lane.
    pub(super) fn wait(&self, timeout: Option<Duration>, lane: Option<&OwnedFd>) -> (bool, bool) {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let wanted = |descriptor| PollFd::new(descriptor, PollFlags::IN);
        let mut fds = [
            wanted(&*self.timer),
            wanted(&self.bell),
            wanted(lane.unwrap_or(&self.bell)),
        ];
        // A wait that fails or is interrupted makes it look once more.
        let _ = poll(&mut fds, timeout.as_ref());
        let [timer, bell, asked] = fds.map(|fd| fd.revents().contains(PollFlags::IN));
        if bell {
            let mut count = [0; 8];
            let _ = read(&self.bell, &mut count);
        }
        if timer {
            self.rang();
        }
        (timer, asked && lane.is_some())
    }

    /// The timer has rung.
    pub(super) fn rang(&self) {
        // First, so that a request that begins now sets the timer.
        self.armed.store(false, Ordering::SeqCst);
        let mut count = [0; 8];
        // It fails when the timer was taken back in this very moment, or has not rung.
        let _ = read(&*self.timer, &mut count);
    }

    /// The timer has rung while other PHP threads run requests, and the caller was told of it: the helper may not have been.
    pub(super) fn pass_ring_on(&self) {
        self.rung.store(true, Ordering::SeqCst);
        // If it does not hear this, it waits for events, and does so for a tick at most while a PHP thread waits.
        self.ring();
    }

    /// Whether a ring has been passed on.
    pub(super) fn takes_ring(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::SeqCst)
    }

    /// Sets the timer for a request that runs, unless it is set.
    pub(super) fn rearm(&self, after: Duration) {
        if !self.armed.swap(true, Ordering::SeqCst) {
            self.set(after);
        }
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
        let _ = timerfd_settime(&*self.timer, TimerfdTimerFlags::empty(), &value);
    }
}
