//! Who drives the reactor of a worker process.
//!
//! # NTS: the PHP thread itself
//!
//! While it is idle it waits in epoll, and runs a request in place: no other thread is woken for it, which makes a small
//! request as cheap as it can be. A helper thread looks once a millisecond; when it sees the same request a second time it
//! takes the reactor over until that request ends: it passes waiting requests to sibling processes, sends output that a
//! script holds back, and feeds bodies. So hand-over is paid by requests that take longer than a millisecond only. When
//! nothing runs the helper sleeps until the next request.
//!
//! Measured (benches/hello.rs, PHP 8.2 NTS, 4 workers, CPU per request relative to php-fpm in the same run, two runs): this
//! against an I/O thread that hands requests to the PHP thread, as on ZTS:
//!
//! | case | PHP thread itself | I/O thread |
//! |---|---|---|
//! | hello, kept alive | 0.76, 0.70 | 1.05, 0.85 |
//! | hello, kept alive, one connection | 0.85 | 1.51 |
//! | hello, a connection per request | 0.98, 0.92 | 1.44, 1.41 |
//! | 50 KB page, kept alive | 0.62, 0.71 | 0.87, 0.92 |
//!
//! ```text
//! PHP thread  [epoll][run][epoll][run .................................][epoll]
//! helper          ·     ·     ·   ·  [take over: epoll … epoll … epoll ]
//! ```
//!
//! # ZTS: an I/O thread
//!
//! The main thread drives the reactor, and hands requests to PHP threads through a channel.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use parking_lot::Mutex;

use super::exchange::Exchange;
use super::job::Job;
use super::reactor::{Reactor, TICK, wake};
use super::script::ScriptSettings;
use crate::config::Limits;
use crate::engine::{Engine, PhpThread, block_signals, exit_forked_child};
use crate::fastcgi::ProtocolStatus;
use crate::log;
use crate::scoreboard::Slot;

/// How often the helper looks.
const GLANCE: Duration = Duration::from_millis(1);
/// Glances without a request after which it sleeps. Each costs a wake-up after every lonely request (measured at 200
/// requests a second: 326 µs of CPU each with 50 glances, 227 with one).
const GLANCES: u32 = 1;

/// Wakes whoever must read sockets while a PHP thread waits for its client.
pub(crate) type Alarm = Arc<dyn Fn() + Send + Sync>;

/// What both drivers need to know of the pool.
pub(crate) struct Pool<'a> {
    pub(crate) slot: &'a Slot,
    pub(crate) settings: &'a ScriptSettings,
    pub(crate) limits: &'a Limits,
}

/// The state that the PHP thread and its helper share.
struct Shared {
    reactor: Mutex<Reactor>,
    wake: Arc<OwnedFd>,
    /// Odd while a request runs.
    sequence: AtomicU64,
    /// The helper drives the reactor.
    driving: AtomicBool,
    /// The helper sleeps until it is unparked.
    asleep: AtomicBool,
    urgent: Arc<AtomicBool>,
    stop: AtomicBool,
}

/// Serves on NTS until the reactor is finished; returns the exit status of this process.
pub(crate) fn run_inline(
    reactor: Reactor,
    wake_descriptor: Arc<OwnedFd>,
    helper_slot: &HelperSlot,
    mut php: PhpThread,
    pool: &Pool<'_>,
) -> i32 {
    let Pool { slot, settings, .. } = *pool;
    let shared = Arc::new(Shared {
        reactor: Mutex::new(reactor),
        wake: wake_descriptor,
        sequence: AtomicU64::new(0),
        driving: AtomicBool::new(false),
        asleep: AtomicBool::new(false),
        urgent: Arc::clone(&helper_slot.urgent),
        stop: AtomicBool::new(false),
    });
    let helper = {
        let shared = Arc::clone(&shared);
        thread::Builder::new()
            .name("fe-php helper".to_owned())
            .stack_size(256 << 10)
            .spawn(move || {
                block_signals();
                help(&shared);
            })
    };
    let helper = match helper {
        Ok(helper) => helper,
        Err(error) => {
            log::error(format_args!(
                "a worker process cannot start its helper thread: {error}"
            ));
            return 1;
        }
    };
    *helper_slot.thread.lock() = Some(helper.thread().clone());

    let mut finished: Option<(u64, Arc<Exchange>)> = None;
    loop {
        let job = {
            let mut reactor = shared.reactor.lock();
            reactor.become_idle();
            if let Some((token, exchange)) = finished.take() {
                reactor.finish(token, &exchange);
            }
            loop {
                if let Some(job) = reactor.next_job() {
                    break job;
                }
                if reactor.is_finished() {
                    shared.stop.store(true, Ordering::SeqCst);
                    helper.thread().unpark();
                    return 0;
                }
                reactor.turn(None);
            }
        };
        slot.request_started();
        shared.sequence.fetch_add(1, Ordering::SeqCst);
        if shared.asleep.load(Ordering::SeqCst) {
            helper.thread().unpark();
        }
        finished = Some((job.token, Arc::clone(&job.exchange)));
        let outcome = job.run(&mut php, settings);
        if outcome.forked {
            // A child of the script's own fork: its parent goes on serving.
            exit_forked_child(outcome.exit_status);
        }
        shared.sequence.fetch_add(1, Ordering::SeqCst);
        if shared.driving.load(Ordering::SeqCst) {
            wake(&shared.wake);
        }
        slot.request_finished();
    }
}

fn help(shared: &Shared) {
    let mut seen = 0;
    let mut quiet = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        let sequence = shared.sequence.load(Ordering::SeqCst);
        if sequence.is_multiple_of(2) {
            quiet += 1;
            if quiet > GLANCES {
                shared.asleep.store(true, Ordering::SeqCst);
                // Between the last look and the store a request may have begun, which would not unpark us.
                if shared.sequence.load(Ordering::SeqCst) == sequence
                    && !shared.stop.load(Ordering::SeqCst)
                {
                    thread::park();
                }
                shared.asleep.store(false, Ordering::SeqCst);
                quiet = 0;
                continue;
            }
        } else {
            quiet = 0;
            if (sequence == seen || shared.urgent.swap(false, Ordering::SeqCst))
                && let Some(mut reactor) = shared.reactor.try_lock()
            {
                take_over(shared, &mut reactor, sequence);
                continue;
            }
            seen = sequence;
        }
        thread::park_timeout(GLANCE);
    }
}

fn take_over(shared: &Shared, reactor: &mut Reactor, sequence: u64) {
    shared.driving.store(true, Ordering::SeqCst);
    while shared.sequence.load(Ordering::SeqCst) == sequence {
        reactor.become_busy();
        reactor.hand_over_ready();
        reactor.turn(Some(TICK));
    }
    shared.driving.store(false, Ordering::SeqCst);
}

/// Where the helper thread will be known, for alarms that are made before it is.
#[derive(Debug, Default)]
pub(crate) struct HelperSlot {
    thread: Mutex<Option<Thread>>,
    urgent: Arc<AtomicBool>,
}

impl HelperSlot {
    /// Makes the helper take over at once.
    pub(crate) fn alarm(&self) {
        if !self.urgent.swap(true, Ordering::SeqCst)
            && let Some(thread) = &*self.thread.lock()
        {
            thread.unpark();
        }
    }
}

/// Serves on ZTS until the reactor is finished; returns the exit status of this process.
pub(crate) fn run_threads(
    mut reactor: Reactor,
    wake_descriptor: &Arc<OwnedFd>,
    engine: &Arc<Engine>,
    threads: u32,
    pool: &Pool<'_>,
    on_restart_pending: &(dyn Fn() + Sync),
) -> i32 {
    let Pool {
        slot,
        settings,
        limits,
    } = *pool;
    let (sender, receiver) = unbounded::<Job>();
    let (done_sender, done) = unbounded::<(u64, Arc<Exchange>)>();
    let draining = AtomicBool::new(false);
    // Threads that run a request; one that has just taken its request may not be counted yet.
    let busy = AtomicUsize::new(0);
    thread::scope(|scope| {
        let draining = &draining;
        let busy = &busy;
        for number in 0..threads {
            let receiver: Receiver<Job> = receiver.clone();
            let done = done_sender.clone();
            let builder = thread::Builder::new()
                .name(format!("php {number}"))
                .stack_size(PHP_STACK);
            let spawned = builder.spawn_scoped(scope, move || {
                let mut php = match PhpThread::attach(engine) {
                    Ok(php) => php,
                    Err(error) => {
                        log::error(format_args!("a PHP thread cannot start: {error}"));
                        return;
                    }
                };
                let mut watch = RestartWatch::new();
                for job in receiver {
                    let keep_conn = job.keep_conn;
                    let token = job.token;
                    let exchange = Arc::clone(&job.exchange);
                    if exchange.is_gone() {
                        // Aborted while it waited: nobody would see the answer.
                        job.refuse(ProtocolStatus::RequestComplete);
                        let _ = done.send((token, exchange));
                        wake(wake_descriptor);
                        continue;
                    }
                    busy.fetch_add(1, Ordering::Relaxed);
                    slot.request_started();
                    let outcome = job.run(&mut php, settings);
                    if outcome.forked {
                        exit_forked_child(outcome.exit_status);
                    }
                    slot.request_finished();
                    busy.fetch_sub(1, Ordering::Relaxed);
                    let attention = !keep_conn
                        || draining.load(Ordering::Relaxed)
                        || exchange.output().needs_attention();
                    // The reactor lives longer than its PHP threads.
                    let _ = done.send((token, exchange));
                    if attention {
                        wake(wake_descriptor);
                    }
                    if watch.is_pending(&mut php) {
                        on_restart_pending();
                    }
                }
            });
            if let Err(error) = spawned {
                log::error(format_args!(
                    "PHP thread {number} cannot be started: {error}"
                ));
                // Without it requests would wait for nobody: end, and let the pool process try again.
                drop(sender);
                return 1;
            }
        }
        block_signals();
        reactor.become_idle();
        loop {
            while let Ok((token, exchange)) = done.try_recv() {
                reactor.finish(token, &exchange);
            }
            while let Some(job) = reactor.next_job() {
                if sender.len() + busy.load(Ordering::Relaxed) >= (threads + limits.queue) as usize
                {
                    reactor.overload(job);
                    continue;
                }
                // PHP threads hold receivers until the sender is gone.
                let _ = sender.send(job);
            }
            if reactor.is_finished() {
                break;
            }
            reactor.turn(None);
            if reactor.is_draining() {
                draining.store(true, Ordering::Relaxed);
            }
        }
        drop(sender);
        0
    })
}

/// A stack that endless recursion fills only after `memory_limit` has ended it (PHP 8.2 does not measure its stack);
/// it is committed as it is used.
pub(crate) const PHP_STACK: usize = 256 << 20;

/// Looks once a second, after a request, whether OPcache waits to restart.
struct RestartWatch {
    last: Option<std::time::Instant>,
    told: bool,
}

impl RestartWatch {
    fn new() -> Self {
        Self {
            last: Some(std::time::Instant::now()),
            told: false,
        }
    }

    fn is_pending(&mut self, php: &mut PhpThread) -> bool {
        let Some(last) = self.last else { return false };
        if self.told || last.elapsed() < Duration::from_secs(1) {
            return false;
        }
        match php.opcache_restart_pending() {
            None => self.last = None,
            Some(pending) => {
                self.last = Some(std::time::Instant::now());
                self.told = pending;
            }
        }
        self.told
    }
}
