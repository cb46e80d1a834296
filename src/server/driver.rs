//! Who drives the sockets of a worker process: its PHP threads and one helper thread, which share a [`Reactor`].
//!
//! A PHP thread that has nothing to do waits in epoll, and runs a request in place: no other thread is woken for it, which makes
//! a small request as cheap as it can be. The helper waits in the same epoll. The kernel wakes the thread that came last, so as long
//! as a PHP thread waits the helper sleeps; while all PHP threads are busy, it is woken for what happens: it reads requests and
//! finds a place for them (`reactor/dispatch.rs`), sends output that a script holds back, feeds bodies.
//!
//! ```text
//! PHP thread  [epoll][run][epoll][run ....................................][epoll]
//! helper      [epoll ........................][request came: send it][epoll ......
//! ```
//!
//! Nothing depends on that order but speed. If the helper gets an event while a PHP thread has nothing to do, it handles it and
//! wakes a PHP thread. Then it steps *away*, since it would be before the PHP thread in the kernel's order: it waits for the timer
//! alone (`watch.rs`) until all PHP threads are busy again, and the one that began last calls it. It is away as well while requests
//! are so short that PHP threads see to everything sooner, and between two requests they look what has come.
//!
//! NTS has one PHP thread in each worker process, the process's first. ZTS has as many as there are workers in one process.
//!
//! Measured on PHP 8.2 NTS, CPU per request relative to php-fpm in the same run, against an I/O thread that hands requests
//! to PHP threads through a channel, as ZTS had it before:
//!
//! | case | PHP thread itself | I/O thread |
//! |---|---|---|
//! | hello, kept alive | 0.59 | 0.85 to 1.05 |
//! | hello, a connection per request | 0.82 | 1.4 |

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::{Mutex, MutexGuard};
use rustix::event::epoll::Event;

use super::books::Books;
use super::crew::News;
use super::exchange::Exchange;
use super::job::Job;
use super::opcache_watch::OpcacheWatch;
use super::reactor::{self, Arrived, Reactor, Subject, arrived, wake};
use super::script::ScriptSettings;
use super::time_limits::TimeLimiter;
use super::watch::{Expected, Pulse, Watch, give_way};
use crate::descriptor::high_fd;
use crate::engine::{Interrupter, PhpThread};
use crate::log;
use crate::scoreboard::{Moment, Slot, Waits};
use crate::zygote::{Reports, WorkerMessage};

/// What every PHP thread needs to know of the pool.
pub(crate) struct Pool<'a> {
    pub(crate) name: &'a str,
    pub(crate) slot: &'a Slot,
    pub(crate) settings: &'a ScriptSettings,
    /// Opens the books of a PHP thread, by its number.
    pub(crate) books: &'a (dyn Fn(u32) -> Books + Sync),
    /// Somebody wants to see OPcache's figures.
    pub(crate) shows_status: bool,
    /// Makes the pool's settings those of a PHP thread that has been attached: it has those of PHP's start.
    pub(crate) apply_settings: &'a (dyn Fn() + Sync),
    /// `pm.max_requests`, for all PHP threads of this process together; 0 for no limit.
    pub(crate) max_requests: u64,
    /// Requests that they have run.
    pub(crate) requests: AtomicU64,
}

/// The sockets of a worker process, and those who drive them.
pub(crate) struct Driver {
    reactor: Mutex<Reactor>,
    /// Events that the helper has for whoever holds the reactor.
    noticed: Mutex<Vec<Arrived>>,
    has_noticed: AtomicBool,
    pub(super) epoll: Arc<OwnedFd>,
    pub(super) slot: Slot,
    /// Where siblings reach this process.
    pub(super) lane: Option<OwnedFd>,
    pub(super) watch: Arc<Watch>,
    pub(super) reports: Arc<Reports>,
    /// Where to say that more PHP threads are needed, if there may be more.
    pub(super) crew: Option<Sender<News>>,
    /// Whether there may be more workers than there are.
    pub(super) may_grow: bool,
    /// Wakes a thread that waits for events: a PHP thread, if one does.
    pub(super) wake: Arc<OwnedFd>,
    pub(super) limiter: Option<Arc<TimeLimiter>>,
    /// PHP threads that wait.
    pub(super) idle: AtomicUsize,
    /// PHP threads that serve.
    pub(super) serving: AtomicUsize,
    /// PHP threads that are to go: whichever is idle first.
    leavers: AtomicUsize,
    /// The request that runs has the only connection.
    is_alone: AtomicBool,
    /// A PHP thread that waits sees to what depends on time.
    timekeeper: AtomicBool,
    pub(super) seats: Mutex<Vec<Arc<Seat>>>,
}

/// One PHP thread, and what the helper shares with it.
pub(crate) struct Seat {
    pub(super) driver: Arc<Driver>,
    /// Odd while a request runs.
    sequence: AtomicU64,
    /// Requests begun.
    requests: AtomicU64,
    pub(super) current: Mutex<Current>,
    /// The PHP thread, once there is one.
    pub(super) interrupter: OnceLock<Interrupter>,
}

/// What a PHP thread does, as it and the helper agree on it.
pub(super) enum Current {
    /// Nothing.
    Idle,
    /// It runs a request. Whoever takes that away settles what comes after it.
    Running { begun: Instant, finished: Finished },
    /// It runs one that has been answered, since it does not end.
    GivenUp,
    /// The same, and the process ends without waiting for it: it counts as finished, and its seat no longer serves.
    Left,
}

/// How a PHP thread ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// The process has nothing left to do.
    Finished,
    /// It is needed no longer; others go on.
    Unneeded,
}

/// A request that has been run.
pub(super) struct Finished {
    token: u64,
    pub(super) exchange: Arc<Exchange>,
}

impl Finished {
    pub(super) fn settle(self, reactor: &mut Reactor) {
        reactor.finish(self.token, self.exchange);
    }
}

impl Driver {
    pub(crate) fn new(
        reactor: Reactor,
        watch: Arc<Watch>,
        wake: Arc<OwnedFd>,
        reports: Arc<Reports>,
        crew: Option<Sender<News>>,
        limiter: Option<Arc<TimeLimiter>>,
        may_grow: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            epoll: reactor.epoll(),
            slot: reactor.slot().clone(),
            lane: reactor
                .lane()
                .and_then(|lane| lane.try_clone_to_owned().ok())
                .map(high_fd),
            reactor: Mutex::new(reactor),
            noticed: Mutex::new(Vec::new()),
            has_noticed: AtomicBool::new(false),
            watch,
            reports,
            crew,
            may_grow,
            wake,
            limiter,
            idle: AtomicUsize::new(0),
            serving: AtomicUsize::new(0),
            leavers: AtomicUsize::new(0),
            is_alone: AtomicBool::new(false),
            timekeeper: AtomicBool::new(false),
            seats: Mutex::new(Vec::new()),
        })
    }

    /// A seat for one more PHP thread, which counts as serving from now on.
    pub(crate) fn seat(self: &Arc<Self>) -> Arc<Seat> {
        self.serving.fetch_add(1, Ordering::SeqCst);
        let seat = Arc::new(Seat {
            driver: Arc::clone(self),
            sequence: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            current: Mutex::new(Current::Idle),
            interrupter: OnceLock::new(),
        });
        self.seats.lock().push(Arc::clone(&seat));
        seat
    }

    /// The reactor, which a PHP thread has for some microseconds between two requests. [Release](Self::release) it.
    pub(super) fn lock(&self) -> MutexGuard<'_, Reactor> {
        let mut reactor = self.reactor.lock();
        self.handle_noticed(&mut reactor);
        reactor
    }

    /// Handles events, for the helper: returns the reactor, or none if another thread has it, which handles them.
    pub(super) fn handle(&self, events: &[Event]) -> Option<MutexGuard<'_, Reactor>> {
        self.notice(events);
        let mut reactor = self.reactor.try_lock()?;
        let noticed = self.take_noticed();
        // Even if there are none: time has passed.
        reactor.handle(noticed);
        Some(reactor)
    }

    /// Leaves events for whoever has the reactor, or has it next.
    fn notice(&self, events: &[Event]) {
        if !events.is_empty() {
            self.noticed.lock().extend(arrived(events));
            self.has_noticed.store(true, Ordering::SeqCst);
        }
    }

    /// Leaves events, for the helper, to the PHP thread that is done first, if that is soon and nobody can see to them sooner. False if
    /// they are to be handled now (they are among those noticed, perhaps).
    pub(super) fn put_off(&self, events: &[Event]) -> bool {
        let subject = Subject::of(events);
        let may_wait =
            || self.all_busy() && !self.slot.has_idle_sibling() && !self.watch.has_readers();
        if subject == Subject::Others || self.watch.expected() == Expected::Long || !may_wait() {
            return false;
        }
        self.notice(events);
        // Siblings are to see what waits here, before this looks once more whether one is idle.
        let now = Moment::now();
        if subject == Subject::Connections {
            self.slot.keep_more(now);
        } else {
            self.slot.set_backlog_since(now);
        }
        may_wait()
    }

    fn handle_noticed(&self, reactor: &mut Reactor) {
        let noticed = self.take_noticed();
        if !noticed.is_empty() {
            reactor.handle(noticed);
        }
    }

    fn take_noticed(&self) -> Vec<Arrived> {
        if self.has_noticed.swap(false, Ordering::SeqCst) {
            std::mem::take(&mut *self.noticed.lock())
        } else {
            Vec::new()
        }
    }

    /// Gives the reactor back, unless the helper has had events meanwhile: then it handles them, and returns it.
    fn release<'a>(
        &'a self,
        mut reactor: MutexGuard<'a, Reactor>,
    ) -> Option<MutexGuard<'a, Reactor>> {
        loop {
            if self.has_noticed.load(Ordering::SeqCst) {
                self.handle_noticed(&mut reactor);
                return Some(reactor);
            }
            drop(reactor);
            if !self.has_noticed.load(Ordering::SeqCst) {
                return None;
            }
            reactor = self.reactor.try_lock()?;
        }
    }

    /// All PHP threads have ended.
    pub(super) fn stop(&self) {
        self.watch.stop();
        wake(&self.wake);
    }

    /// A PHP thread ends as soon as one has nothing to do.
    pub(super) fn release_one(&self) {
        self.leavers.fetch_add(1, Ordering::SeqCst);
        wake(&self.wake);
    }

    /// Whether the caller is to leave.
    fn takes_leave(&self) -> bool {
        self.leavers.load(Ordering::Relaxed) > 0
            && self
                .leavers
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok()
    }

    /// While all PHP threads are busy, with no request that takes long: whether the helper is to see what comes. Else PHP threads
    /// look when they are done.
    pub(super) fn wants_helper(&self) -> bool {
        match self.watch.expected() {
            Expected::Short => self.watch.has_readers(),
            // Nothing comes but on the connection that has its request already. (New ones are for siblings.)
            Expected::Medium
                if self.is_alone.load(Ordering::SeqCst) && self.slot.connections() <= 1 =>
            {
                self.watch.has_readers()
            }
            Expected::Medium => {
                let is_wanted = || self.watch.has_readers() || self.slot.has_idle_sibling();
                if is_wanted() {
                    self.slot.set_watched();
                    return true;
                }
                self.slot.set_unwatched();
                is_wanted()
            }
            Expected::Long => true,
        }
    }

    /// Whether all PHP threads run requests.
    pub(super) fn all_busy(&self) -> bool {
        self.idle.load(Ordering::SeqCst) == 0
    }
}

impl Seat {
    /// There will be no PHP thread, or no more.
    pub(super) fn dismiss(self: &Arc<Self>) {
        let driver = &self.driver;
        driver.serving.fetch_sub(1, Ordering::SeqCst);
        driver.seats.lock().retain(|seat| !Arc::ptr_eq(seat, self));
    }

    /// Whether the PHP thread runs nothing.
    pub(super) fn is_idle(&self) -> bool {
        matches!(*self.current.lock(), Current::Idle)
    }

    /// Requests that it has begun.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The request that runs, by its number.
    pub(super) fn running(&self) -> Option<u64> {
        let sequence = self.sequence.load(Ordering::SeqCst);
        (sequence % 2 == 1).then_some(sequence)
    }

    /// Whether the request with this number still runs.
    pub(super) fn runs(&self, sequence: u64) -> bool {
        self.sequence.load(Ordering::SeqCst) == sequence
    }

    /// Serves with this PHP thread until the reactor is finished, or the thread is needed no longer.
    pub(super) fn serve(
        self: &Arc<Self>,
        php: &mut PhpThread,
        pool: &Pool<'_>,
        books: &mut Books,
    ) -> Leave {
        let Pool { slot, settings, .. } = *pool;
        let driver = &*self.driver;
        // Set once: a seat has one PHP thread.
        let _ = self.interrupter.set(php.interrupter());
        let mut pulse = Watch::pulse();
        let mut opcache = OpcacheWatch::new(pool.shows_status);
        let mut finished: Option<Finished> = None;
        loop {
            let (job, begun) = match self.next(php, &mut pulse, finished.take()) {
                Ok(next) => next,
                Err(leave) => {
                    self.dismiss();
                    if leave == Leave::Finished {
                        // The next one is to see it too.
                        wake(&driver.wake);
                    }
                    return leave;
                }
            };
            slot.request_started();
            self.requests.fetch_add(1, Ordering::Relaxed);
            *self.current.lock() = Current::Running {
                begun,
                finished: Finished {
                    token: job.token,
                    exchange: Arc::clone(&job.exchange),
                },
            };
            books.waited(begun.saturating_duration_since(job.ready));
            opcache.before(php, slot);
            let beat = pulse.beat(begun);
            job.run(php, settings, books, pool.name);
            self.sequence.fetch_add(1, Ordering::SeqCst);
            driver.watch.end(&mut pulse, &beat);
            match std::mem::replace(&mut *self.current.lock(), Current::Idle) {
                Current::Running { finished: done, .. } => {
                    slot.request_finished();
                    finished = Some(done);
                }
                Current::GivenUp => slot.request_finished(),
                Current::Left => drop(driver.serving.fetch_add(1, Ordering::SeqCst)),
                Current::Idle => {}
            }
            books.idle();
            if opcache.after(php, slot) {
                driver.reports.send(WorkerMessage::OpcacheRestartPending);
            }
            if pool.max_requests > 0 {
                self.count_request(pool);
            }
        }
    }

    /// The next request to run, and when it begins; waits for it.
    fn next(
        &self,
        php: &mut PhpThread,
        pulse: &mut Pulse,
        finished: Option<Finished>,
    ) -> Result<(Job, Instant), Leave> {
        let driver = &*self.driver;
        let mut events = reactor::events();
        let mut is_idle = false;
        let mut has_memory = true;
        let mut has_waited = false;
        let mut has_rung = false;
        let mut reactor = driver.lock();
        let expected = driver.watch.expected();
        reactor.set_expected(expected);
        let is_between = finished.is_some();
        if let Some(finished) = finished {
            finished.settle(&mut reactor);
        }
        // The helper has not seen what has come meanwhile. (Short ones that have been read are run first: new connections are accepted
        // when none is left. If this thread gets its work from the pool's queue alone, it is to look all the same.)
        let is_from_elsewhere = || is_between && !reactor.has_ready() && reactor.has_not_looked();
        if expected == Expected::Medium || expected == Expected::Short && is_from_elsewhere() {
            reactor.look();
            self.take_ring(&mut reactor);
        }
        loop {
            if let Some(job) = reactor.next_job() {
                let begun = reactor.now();
                if is_idle {
                    driver.idle.fetch_sub(1, Ordering::SeqCst);
                }
                self.sequence.fetch_add(1, Ordering::SeqCst);
                driver.watch.begin(pulse, begun);
                let mut call = false;
                let mut held = Some(reactor);
                while let Some(mut reactor) = held {
                    if driver.all_busy() {
                        call |= self.begin_last(&mut reactor, job.token);
                    } else if reactor.has_ready() || reactor.may_have_connections() {
                        // Another thread has nothing to do.
                        wake(&driver.wake);
                    }
                    held = driver.release(reactor);
                }
                if call {
                    driver.watch.call();
                }
                if !has_waited && self.has_turns(&job) {
                    give_way();
                }
                return Ok((job, begun));
            }
            if !is_idle {
                is_idle = true;
                driver.idle.fetch_add(1, Ordering::SeqCst);
            }
            if reactor.become_idle() {
                // What came before that was shown has to be looked for now.
                continue;
            }
            let leave = if reactor.is_finished() {
                Some(Leave::Finished)
            } else if driver.takes_leave() {
                Some(Leave::Unneeded)
            } else {
                None
            };
            if let Some(leave) = leave {
                if is_idle && driver.idle.fetch_sub(1, Ordering::SeqCst) == 1 {
                    reactor.become_busy();
                }
                return Err(leave);
            }
            if driver.idle.load(Ordering::SeqCst) == driver.serving.load(Ordering::SeqCst) {
                driver.watch.rest(pulse);
            }
            let is_timekeeper = !driver.timekeeper.swap(true, Ordering::SeqCst);
            // A timeout costs more than a small request; where they follow each other closely, the timer rings once they stop.
            let rest = (has_memory && (has_rung || !pulse.is_close())).then_some(REST);
            let patience = if is_timekeeper {
                reactor.patience(None, !cfg!(php_zts))
            } else {
                None
            };
            let timeout = if reactor.may_have_connections() {
                Some(Duration::ZERO)
            } else {
                patience.into_iter().chain(rest).min()
            };
            if let Some(released) = driver.release(reactor) {
                reactor = released;
                if is_timekeeper {
                    driver.timekeeper.store(false, Ordering::SeqCst);
                }
                continue;
            }
            has_waited = true;
            let began = Instant::now();
            let happened = reactor::wait(&driver.epoll, &mut events, timeout);
            if happened.is_empty() && has_memory && began.elapsed() >= REST {
                has_memory = false;
                php.release_memory();
            }
            reactor = driver.lock();
            if is_timekeeper {
                driver.timekeeper.store(false, Ordering::SeqCst);
            }
            reactor.handle(arrived(happened));
            has_rung |= self.take_ring(&mut reactor);
        }
    }

    /// Whether requests follow each other here without a wait because others wait. (With one connection that is open, the client is
    /// what is waited for: if its request has come already, that is chance.)
    fn has_turns(&self, job: &Job) -> bool {
        let Driver { watch, slot, .. } = &*self.driver;
        watch.expected() != Expected::Short && (slot.connections() > 1 || job.waits == Waits::OnNew)
    }

    /// Whether the timer has rung, as a PHP thread is told that runs nothing. If others run something it is for the helper.
    fn take_ring(&self, reactor: &mut Reactor) -> bool {
        if !reactor.has_rung() {
            return false;
        }
        self.driver.watch.rang();
        let seats = self.driver.seats.lock();
        if seats.iter().any(|seat| seat.running().is_some()) {
            self.driver.watch.pass_ring_on();
        }
        true
    }

    /// The last PHP thread that had nothing to do begins a request, on the connection `token`. Returns whether the helper is
    /// wanted.
    fn begin_last(&self, reactor: &mut Reactor, token: u64) -> bool {
        reactor.become_busy();
        if self.driver.watch.expected() != Expected::Short {
            reactor.place_waiting(false);
            self.driver
                .is_alone
                .store(reactor.is_alone(), Ordering::SeqCst);
            reactor.let_rest(token);
            // (Called, it hears from now on.)
            return self.driver.wants_helper()
                || self.driver.lane.is_some() && !self.driver.watch.hears();
        }
        if reactor.exceeds_queue() {
            reactor.place_waiting(false);
        }
        false
    }

    /// Makes this process end when it has run enough requests; on ZTS its whole generation is replaced, since two processes of
    /// threads cannot share an OPcache.
    fn count_request(&self, pool: &Pool<'_>) {
        let requests = pool.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if requests < pool.max_requests {
            return;
        }
        if cfg!(php_zts) {
            // Again now and then, in case it was not heard.
            if requests.is_multiple_of(pool.max_requests) {
                self.driver.reports.send(WorkerMessage::MaxRequests);
            }
        } else if requests == pool.max_requests {
            self.driver.reports.send(WorkerMessage::Leaving);
            self.driver.lock().retire();
        }
    }
}

/// Serves on NTS, on the thread that started PHP.
pub(crate) fn run_alone(driver: &Arc<Driver>, php: &mut PhpThread, pool: &Pool<'_>) -> i32 {
    let seat = driver.seat();
    if let Err(error) = driver.spawn_helper() {
        log::error(format_args!(
            "[pool {}] a worker process cannot start its helper thread: {error}",
            pool.name
        ));
        return 1;
    }
    seat.serve(php, pool, &mut (pool.books)(0));
    driver.stop();
    0
}

/// A PHP thread that has had nothing to do for this time gives memory back.
const REST: Duration = Duration::from_secs(5);

/// A stack that most endless recursion fills only after `memory_limit` has ended it (PHP 8.2 does not measure its stack; what
/// recurses in C with little memory of PHP's own, as `__toString` does, fills it all the same). It is committed as it is used.
pub(crate) const PHP_STACK: usize = 256 << 20;
