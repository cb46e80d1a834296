//! Who drives the sockets of a worker process: its PHP threads, each those of its own [`Reactor`].
//!
//! While a PHP thread is idle it waits in epoll, and runs a request in place: no other thread is woken for it, which makes a
//! small request as cheap as it can be. When a request takes long (`watch.rs` says when), a helper thread takes the reactor
//! over until that request ends: it passes waiting requests to whoever is idle, sends output that a script holds back, and
//! feeds bodies. So hand-over is paid by long requests only.
//!
//! ```text
//! PHP thread  [epoll][run][epoll][run .................................][epoll]
//! helper                            ·  [take over: epoll … epoll … epoll ]
//! ```
//!
//! NTS has one PHP thread in each worker process, the process's first; waiting requests go to sibling processes with their
//! connections. ZTS has as many as there are workers in one process; waiting requests go through a queue to the thread that
//! is idle first, and their connections stay.
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
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::{Mutex, MutexGuard};
use rustix::process::{Signal, getpid, kill_process};

use super::books::Books;
use super::crew::News;
use super::exchange::Exchange;
use super::job::Home;
use super::opcache_watch::OpcacheWatch;
use super::reactor::{Reactor, TICK, wake};
use super::script::ScriptSettings;
use super::time_limits::{Clock, TimeLimiter, Verdict};
use super::watch::{Call, Watch};
use crate::engine::{
    Interrupter, PhpThread, block_signals, exit_beside_stuck_thread, request_takes_long,
};
use crate::log;
use crate::scoreboard::Slot;
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

/// One PHP thread's sockets, and what its helper shares with it.
pub(crate) struct Seat {
    reactor: Mutex<Reactor>,
    watch: Arc<Watch>,
    reports: Arc<Reports>,
    /// Where to say that more PHP threads are needed, if there may be more.
    crew: Option<Sender<News>>,
    /// Interrupts whoever waits in the reactor.
    wake: Arc<OwnedFd>,
    /// The helper drives the reactor.
    driving: AtomicBool,
    /// The PHP thread, which is idle, is to give memory back.
    release: AtomicBool,
    /// The PHP thread is no longer needed.
    leaving: AtomicBool,
    /// Requests begun.
    requests: AtomicU64,
    current: Mutex<Current>,
    /// The PHP thread, once there is one.
    interrupter: OnceLock<Interrupter>,
    limiter: Option<Arc<TimeLimiter>>,
    /// How many seats of this process still serve.
    serving: Arc<AtomicUsize>,
}

/// What a PHP thread does, as it and its helper agree on it.
enum Current {
    /// Nothing.
    Idle,
    /// It runs a request. Whoever takes that away settles what comes after it.
    Running { begun: Instant, finished: Finished },
    /// It runs one that has been answered, since it does not end.
    GivenUp,
    /// The same, and the process ends without waiting for it: it counts as finished, and its seat no longer serves.
    Left,
}

impl Seat {
    /// `serving` is shared by all seats of the process.
    pub(crate) fn new(
        reactor: Reactor,
        watch: Arc<Watch>,
        wake: Arc<OwnedFd>,
        reports: Arc<Reports>,
        crew: Option<Sender<News>>,
        limiter: Option<Arc<TimeLimiter>>,
        serving: &Arc<AtomicUsize>,
    ) -> Arc<Self> {
        serving.fetch_add(1, Ordering::SeqCst);
        Arc::new(Self {
            reactor: Mutex::new(reactor),
            watch,
            reports,
            crew,
            wake,
            driving: AtomicBool::new(false),
            release: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            current: Mutex::new(Current::Idle),
            interrupter: OnceLock::new(),
            limiter,
            serving: Arc::clone(serving),
        })
    }

    pub(super) fn spawn_helper(self: &Arc<Self>) -> std::io::Result<()> {
        let seat = Arc::clone(self);
        thread::Builder::new()
            .name("fe-php helper".to_owned())
            .stack_size(HELPER_STACK)
            .spawn(move || {
                block_signals();
                seat.help();
            })
            .map(drop)
    }

    /// There will be no PHP thread: nothing is expected of this seat any more, and its helper ends.
    pub(super) fn dismiss(&self) {
        let mut reactor = self.reactor.lock();
        reactor.set_running(false);
        reactor.retire();
        drop(reactor);
        self.serving.fetch_sub(1, Ordering::SeqCst);
        self.watch.stop();
    }

    /// Whether the PHP thread runs nothing.
    pub(super) fn is_idle(&self) -> bool {
        matches!(*self.current.lock(), Current::Idle)
    }

    /// Requests that it has begun.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The PHP thread passes its connections on and ends.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        wake(&self.wake);
    }

    fn help(&self) {
        loop {
            let sequence = match self.watch.next_call() {
                Call::Long(sequence) => sequence,
                Call::Idle => {
                    self.release.store(true, Ordering::SeqCst);
                    wake(&self.wake);
                    continue;
                }
                Call::Stop => return,
            };
            request_takes_long();
            let Some(mut reactor) = self.take_over(sequence) else {
                continue;
            };
            self.driving.store(true, Ordering::SeqCst);
            reactor.start_ticking();
            let mut told = false;
            let mut overdue = Overdue::new(self, sequence);
            while self.watch.runs(sequence) {
                let all_busy = reactor.become_busy();
                if all_busy && !told {
                    self.ask_for_more();
                }
                told = all_busy;
                reactor.expire_queued();
                reactor.hand_over_ready();
                reactor.turn(Some(TICK));
                overdue.look(&mut reactor);
            }
            self.driving.store(false, Ordering::SeqCst);
        }
    }

    /// The reactor, for a request that takes long; none if it ends before. The PHP thread has it for a moment yet when the request
    /// begins, and may be kept from running in that moment.
    fn take_over(&self, sequence: u64) -> Option<MutexGuard<'_, Reactor>> {
        while self.watch.runs(sequence) {
            let reactor = self.reactor.try_lock_for(Duration::from_millis(1));
            if reactor.is_some() {
                return reactor;
            }
        }
        None
    }

    /// All are busy.
    fn ask_for_more(&self) {
        match &self.crew {
            // If it is full, the crew is about to look anyway.
            Some(crew) => drop(crew.try_send(News::AllBusy)),
            None => self.reports.send(WorkerMessage::AllBusy),
        }
    }

    /// Serves with this PHP thread until the reactor is finished; returns the exit status of the process.
    pub(super) fn serve(&self, php: &mut PhpThread, pool: &Pool<'_>, books: &mut Books) -> i32 {
        let Pool { slot, settings, .. } = *pool;
        // Set once: a seat has one PHP thread.
        let _ = self.interrupter.set(php.interrupter());
        let mut pulse = Watch::pulse();
        let mut opcache = OpcacheWatch::new(pool.shows_status);
        let mut finished: Option<Finished> = None;
        loop {
            let (job, begun) = {
                let mut reactor = self.reactor.lock();
                reactor.set_running(true);
                reactor.become_idle();
                if let Some(finished) = finished.take() {
                    finished.settle(&mut reactor);
                }
                loop {
                    if let Some(job) = reactor.next_job() {
                        self.watch
                            .begin(&mut pulse, reactor.now(), reactor.is_alone());
                        break (job, reactor.now());
                    }
                    if self.leaving.swap(false, Ordering::SeqCst) {
                        reactor.retire();
                    }
                    if reactor.is_finished() {
                        reactor.set_running(false);
                        self.watch.stop();
                        self.serving.fetch_sub(1, Ordering::SeqCst);
                        return 0;
                    }
                    self.watch.rest(&pulse);
                    reactor.turn(None);
                    if self.release.swap(false, Ordering::SeqCst) {
                        php.release_memory();
                    }
                }
            };
            slot.request_started();
            self.requests.fetch_add(1, Ordering::Relaxed);
            *self.current.lock() = Current::Running {
                begun,
                finished: Finished {
                    token: job.token,
                    exchange: Arc::clone(&job.exchange),
                    home: job.home.clone(),
                },
            };
            books.waited(begun.saturating_duration_since(job.ready));
            opcache.before(php, slot);
            job.run(php, settings, books, pool.name);
            self.watch.end();
            if self.driving.load(Ordering::SeqCst) {
                wake(&self.wake);
            }
            match std::mem::replace(&mut *self.current.lock(), Current::Idle) {
                Current::Running { finished: done, .. } => {
                    slot.request_finished();
                    finished = done.go_home();
                }
                Current::GivenUp => slot.request_finished(),
                Current::Left => drop(self.serving.fetch_add(1, Ordering::SeqCst)),
                Current::Idle => {}
            }
            books.idle();
            if opcache.after(php, slot) {
                self.reports.send(WorkerMessage::OpcacheRestartPending);
            }
            if pool.max_requests > 0 {
                self.count_request(pool);
            }
        }
    }
}

impl Seat {
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
                self.reports.send(WorkerMessage::MaxRequests);
            }
        } else if requests == pool.max_requests {
            self.reports.send(WorkerMessage::Leaving);
            self.reactor.lock().retire();
        }
    }
}

/// The helper's view of the limits of one request.
struct Overdue<'a> {
    seat: &'a Seat,
    sequence: u64,
    clock: Option<Clock<'a>>,
    /// When a successor was asked for.
    asked: Instant,
}

impl<'a> Overdue<'a> {
    fn new(seat: &'a Seat, sequence: u64) -> Self {
        let begun = match &*seat.current.lock() {
            Current::Running { begun, .. } => *begun,
            _ => Instant::now(),
        };
        let limiter = seat.limiter.as_ref();
        Self {
            seat,
            sequence,
            clock: limiter.map(|limiter| limiter.clock(begun)),
            asked: begun,
        }
    }

    /// Does what is due.
    fn look(&mut self, reactor: &mut Reactor) {
        let seat = self.seat;
        let (Some(clock), Some(interrupter)) = (&mut self.clock, seat.interrupter.get()) else {
            return;
        };
        let exchange = match &*seat.current.lock() {
            Current::Running { finished, .. } => Some(Arc::clone(&finished.exchange)),
            _ => None,
        };
        let runs = || seat.watch.runs(self.sequence);
        match clock.check(interrupter, exchange.as_deref(), runs) {
            Verdict::Fine => {}
            Verdict::Hopeless => self.give_up(reactor),
            Verdict::GivenUp => self.leave(reactor),
        }
    }

    /// Answers a request whose script does not end, and does without its thread from now on.
    fn give_up(&mut self, reactor: &mut Reactor) {
        let seat = self.seat;
        let finished = {
            let mut current = seat.current.lock();
            match std::mem::replace(&mut *current, Current::GivenUp) {
                Current::Running { finished, .. } => finished,
                other => {
                    *current = other;
                    return; // it has just ended
                }
            }
        };
        finished.exchange.give_up();
        reactor.set_running(false);
        if let Some(finished) = finished.go_home() {
            finished.settle(reactor);
        }
        self.ask_for_successor();
        if !cfg!(php_zts) {
            self.end_process(reactor);
        }
    }

    fn ask_for_successor(&mut self) {
        self.asked = Instant::now();
        if let Some(limiter) = &self.seat.limiter {
            limiter.stuck();
        }
    }

    /// Passes all other connections to sibling processes, and ends this one as php-fpm's master does with a child.
    fn end_process(&self, reactor: &mut Reactor) {
        reactor.retire();
        let until = Instant::now() + HAND_OVER;
        while !reactor.is_finished() && Instant::now() < until {
            reactor.hand_over_ready();
            reactor.turn(Some(TICK));
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
        if left && self.seat.serving.load(Ordering::SeqCst) == 0 {
            exit_beside_stuck_thread(0);
        }
    }

    /// False when the request has ended after all.
    fn count_as_left(&self) -> bool {
        let mut current = self.seat.current.lock();
        if matches!(*current, Current::GivenUp) {
            *current = Current::Left;
            self.seat.serving.fetch_sub(1, Ordering::SeqCst);
            if let Some(limiter) = &self.seat.limiter {
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

/// A request that has been run.
struct Finished {
    token: u64,
    exchange: Arc<Exchange>,
    home: Option<Arc<Home>>,
}

impl Finished {
    /// Tells the reactor that owns its connection, if that is another thread's.
    fn go_home(self) -> Option<Self> {
        let Some(home) = &self.home else {
            return Some(self);
        };
        home.finished(self.token, self.exchange);
        None
    }

    fn settle(self, reactor: &mut Reactor) {
        reactor.finish(self.token, self.exchange);
    }
}

/// Serves on NTS, on the thread that started PHP.
pub(crate) fn run_alone(seat: &Arc<Seat>, php: &mut PhpThread, pool: &Pool<'_>) -> i32 {
    if let Err(error) = seat.spawn_helper() {
        log::error(format_args!(
            "[pool {}] a worker process cannot start its helper thread: {error}",
            pool.name
        ));
        return 1;
    }
    seat.serve(php, pool, &mut (pool.books)(0))
}

/// A stack that most endless recursion fills only after `memory_limit` has ended it (PHP 8.2 does not measure its stack; what
/// recurses in C with little memory of PHP's own, as `__toString` does, fills it all the same). It is committed as it is used.
pub(crate) const PHP_STACK: usize = 256 << 20;
const HELPER_STACK: usize = 256 << 10;
