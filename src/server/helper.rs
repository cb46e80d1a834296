//! The helper thread of a worker process: sees to the sockets while all PHP threads are busy, and to requests that take long.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};

use super::crew::News;
use super::driver::{Current, Driver, Seat};
use super::reactor::{self, Reactor, TICK, wake};
use super::time_limits::{Clock, Verdict};
use super::watch::{Expected, LONG};
use crate::engine::{block_signals, exit_beside_stuck_thread, request_takes_long, run_promptly};
use crate::zygote::WorkerMessage;

/// What the helper remembers from one look to the next.
struct Helper<'a> {
    driver: &'a Driver,
    /// Requests that take long.
    overdue: Vec<Overdue<'a>>,
    /// It waits for the timer alone.
    away: bool,
    /// When more workers were last asked for.
    told: Option<Instant>,
}

impl Driver {
    pub(super) fn spawn_helper(self: &Arc<Self>) -> std::io::Result<()> {
        let driver = Arc::clone(self);
        thread::Builder::new()
            .name("fe-php helper".to_owned())
            .stack_size(HELPER_STACK)
            .spawn(move || {
                block_signals();
                run_promptly();
                Helper {
                    driver: &driver,
                    overdue: Vec::new(),
                    away: true,
                    told: None,
                }
                .help();
            })
            .map(drop)
    }
}

impl Helper<'_> {
    fn help(&mut self) {
        let driver = self.driver;
        let mut events = reactor::events();
        let mut timeout = None;
        let mut is_contended = false;
        loop {
            let mut rang = false;
            let mut is_asked = false;
            let arrived = if self.away {
                // While requests are short nobody asks for anything, and what comes while a PHP thread waits is for that; it calls
                // when it is busy again.
                let is_contended = std::mem::take(&mut is_contended);
                let hears = || {
                    !is_contended
                        && driver.watch.expected() == Expected::Medium
                        && driver.all_busy()
                };
                let hears = driver.watch.set_hears(hears) && driver.lane.is_some();
                let lane = driver.lane.as_ref().filter(|_| hears);
                (rang, is_asked) = driver.watch.wait(timeout, lane);
                &[]
            } else {
                let arrived = reactor::wait(&driver.epoll, &mut events, timeout);
                if reactor::has_ring(arrived) {
                    // Whoever handles these events may not know what it means.
                    driver.watch.rang();
                    rang = true;
                }
                arrived
            };
            if driver.watch.is_stopped() {
                return;
            }
            rang |= driver.watch.takes_ring();
            let has_long = !self.overdue.is_empty();
            if !has_long && !rang && driver.put_off(arrived) {
                self.ask_for_workers(true);
                timeout = SHARED_TICK;
                self.step();
                continue;
            }
            let handled = driver.handle(arrived);
            let Some(mut reactor) = handled.or_else(|| has_long.then(|| driver.lock())) else {
                // A PHP thread has it, which begins a request or is about to wait, and handles what has come.
                if rang {
                    driver.watch.rearm(LONG);
                }
                // (What has come into the lane just now, perhaps when it begins the next one.)
                is_contended = is_asked;
                timeout = if is_asked { Some(SOON) } else { SHARED_TICK };
                self.step();
                continue;
            };
            if is_asked {
                reactor.receive_own_lane();
                if reactor.is_asked() {
                    reactor.look();
                }
            }
            if reactor.has_rung() {
                rang = true;
                driver.watch.rang();
            }
            if rang || !self.overdue.is_empty() {
                self.find_long(&mut reactor);
            }
            self.look(&mut reactor, !arrived.is_empty());
            for overdue in &mut self.overdue {
                overdue.look(&mut reactor);
            }
            timeout = self.patience(&reactor);
            drop(reactor);
            self.step();
        }
    }

    /// Sees to what waits. `has_handled`: events that a PHP thread would have had, if it waits.
    fn look(&mut self, reactor: &mut Reactor, has_handled: bool) {
        let driver = self.driver;
        if !driver.all_busy() {
            self.told = None;
            if has_handled || reactor.has_ready() || reactor.has_pending() {
                wake(&driver.wake);
            }
            return;
        }
        reactor.expire_queued();
        reactor.place_waiting(!self.overdue.is_empty());
        self.ask_for_workers(reactor.may_wait(!self.overdue.is_empty()));
    }

    /// Says that there are too few workers, if a request waits, or may wait, and none is idle.
    fn ask_for_workers(&mut self, waits: bool) {
        let driver = self.driver;
        let is_due = self.told.is_none_or(|told| told.elapsed() >= TICK);
        if driver.may_grow && waits && is_due && driver.slot.idle_workers() == 0 {
            self.told = Some(Instant::now());
            match &driver.crew {
                // If it is full, the crew is about to look anyway.
                Some(crew) => drop(crew.try_send(News::AllBusy)),
                None => driver.reports.send(WorkerMessage::AllBusy),
            }
        }
    }

    /// Looks which requests take long.
    fn find_long(&mut self, reactor: &mut Reactor) {
        let driver = self.driver;
        let had_any = !self.overdue.is_empty();
        self.overdue
            .retain(|overdue| overdue.seat.runs(overdue.sequence));
        let mut is_any_young = false;
        for seat in &*driver.seats.lock() {
            let Some(sequence) = seat.running() else {
                continue;
            };
            let is_known = |overdue: &Overdue<'_>| {
                Arc::ptr_eq(&overdue.seat, seat) && overdue.sequence == sequence
            };
            if self.overdue.iter().any(is_known) {
                continue;
            }
            let begun = match &*seat.current.lock() {
                Current::Running { begun, .. } => *begun,
                _ => Instant::now(),
            };
            if begun.elapsed() < LONG - TOLERANCE {
                is_any_young = true;
            } else {
                request_takes_long();
                self.overdue
                    .push(Overdue::new(driver, Arc::clone(seat), sequence, begun));
            }
        }
        if is_any_young {
            driver.watch.rearm(LONG);
        }
        if !had_any && !self.overdue.is_empty() {
            reactor.start_ticking();
        }
        if !self.overdue.is_empty() {
            reactor.watch_running();
        }
    }

    /// How long it may wait.
    fn patience(&self, reactor: &Reactor) -> Option<Duration> {
        let is_long = !self.overdue.is_empty();
        let busy = is_long || self.driver.all_busy();
        let patience = busy.then(|| reactor.patience(None, is_long)).flatten();
        // Time limits; and on ZTS, PHP threads that have nothing to do may be behind it in the kernel's order.
        let most = (is_long || (cfg!(php_zts) && busy)).then_some(TICK);
        patience.into_iter().chain(most).min()
    }

    /// Decides where to wait next.
    fn step(&mut self) {
        let driver = self.driver;
        self.away = self.is_in_vain();
        driver.watch.set_away(self.away);
        if self.away && !self.is_in_vain() {
            // That has changed meanwhile, and nobody has called.
            self.away = false;
            driver.watch.set_away(false);
        }
    }

    /// Whether it is not worth while to be woken for what comes meanwhile.
    fn is_in_vain(&self) -> bool {
        !self.driver.all_busy() || self.overdue.is_empty() && !self.driver.wants_helper()
    }
}

/// The helper's view of a request that takes long.
struct Overdue<'a> {
    driver: &'a Driver,
    seat: Arc<Seat>,
    sequence: u64,
    clock: Option<Clock<'a>>,
    /// When a successor was asked for.
    asked: Instant,
}

impl<'a> Overdue<'a> {
    fn new(driver: &'a Driver, seat: Arc<Seat>, sequence: u64, begun: Instant) -> Self {
        let limiter = driver.limiter.as_ref();
        Self {
            driver,
            seat,
            sequence,
            clock: limiter.map(|limiter| limiter.clock(begun)),
            asked: begun,
        }
    }

    /// Does what is due.
    fn look(&mut self, reactor: &mut Reactor) {
        let seat = &self.seat;
        let (Some(clock), Some(interrupter)) = (&mut self.clock, seat.interrupter.get()) else {
            return;
        };
        let exchange = match &*seat.current.lock() {
            Current::Running { finished, .. } => Some(Arc::clone(&finished.exchange)),
            _ => None,
        };
        let sequence = self.sequence;
        let runs = || seat.runs(sequence);
        match clock.check(interrupter, exchange.as_deref(), runs) {
            Verdict::Fine => {}
            Verdict::Hopeless => self.give_up(reactor),
            Verdict::GivenUp => self.leave(reactor),
        }
    }

    /// Answers a request whose script does not end, and does without its thread from now on.
    fn give_up(&mut self, reactor: &mut Reactor) {
        let finished = {
            let mut current = self.seat.current.lock();
            match std::mem::replace(&mut *current, Current::GivenUp) {
                Current::Running { finished, .. } => finished,
                other => {
                    *current = other;
                    return; // it has just ended
                }
            }
        };
        finished.exchange.give_up();
        finished.settle(reactor);
        self.ask_for_successor();
        if !cfg!(php_zts) {
            self.end_process(reactor);
        }
    }

    fn ask_for_successor(&mut self) {
        self.asked = Instant::now();
        if let Some(limiter) = &self.driver.limiter {
            limiter.stuck();
        }
    }

    /// Passes all other connections to sibling processes, and ends this one as php-fpm's master does with a child.
    fn end_process(&self, reactor: &mut Reactor) {
        let mut events = reactor::events();
        reactor.retire();
        let until = Instant::now() + HAND_OVER;
        while !reactor.is_finished() && Instant::now() < until {
            reactor.hand_over_ready();
            let arrived = reactor::wait(&self.driver.epoll, &mut events, Some(TICK));
            reactor.handle(reactor::arrived(arrived));
        }
        if !self.count_as_left() {
            return; // it has ended after all, and so does this process: it has retired
        }
        for signal in [Signal::TERM, Signal::KILL] {
            // A process may always signal itself.
            let _ = kill_process(getpid(), signal);
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// On ZTS, ends the process once all threads are done that can be.
    fn leave(&mut self, reactor: &mut Reactor) {
        // The one that was asked for may have failed to start.
        if !reactor.is_draining() && self.asked.elapsed() >= ASK_AGAIN {
            self.ask_for_successor();
        }
        if reactor.is_draining() && reactor.is_finished() {
            self.count_as_left();
        }
        let left = matches!(*self.seat.current.lock(), Current::Left);
        if left && self.driver.serving.load(Ordering::SeqCst) == 0 {
            exit_beside_stuck_thread(0);
        }
    }

    /// False when the request has ended after all.
    fn count_as_left(&self) -> bool {
        let mut current = self.seat.current.lock();
        if matches!(*current, Current::GivenUp) {
            *current = Current::Left;
            self.driver.serving.fetch_sub(1, Ordering::SeqCst);
            if let Some(limiter) = &self.driver.limiter {
                limiter.left();
            }
        }
        matches!(*current, Current::Left)
    }
}

/// How often a successor is asked for while there is none.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// How long connections may take to be handed over before the process ends.
const HAND_OVER: Duration = Duration::from_millis(500);

/// So much sooner than it was set for may the timer ring for a request: it was set for one before.
const TOLERANCE: Duration = Duration::from_millis(1);

/// How long it waits for events where a PHP thread that has nothing to do may be told of them instead: on ZTS.
const SHARED_TICK: Option<Duration> = if cfg!(php_zts) { Some(TICK) } else { None };

/// How long it may take until a sibling gets what it has asked for in the very moment in which a request begins.
const SOON: Duration = Duration::from_millis(1);

const HELPER_STACK: usize = 256 << 10;
