//! The PHP threads of a ZTS worker process: as many as `pm` starts with, and more when they are needed, up to
//! `pm.max_children`.
//!
//! The process's first thread looks after this: once a second by php-fpm's rules (`pm.rs`), and at once when requests wait while
//! all are busy. Threads do not end before the process does: one that has nothing to do has given its memory back and costs
//! little, and its connections stay where they are.

use std::io;
use std::sync::Arc;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::driver::{PHP_STACK, Pool, Seat};
use crate::config::ProcessManager;
use crate::engine::{Engine, PhpThread, block_signals};
use crate::log;
use crate::pm::{Action, Census, Manager};
use crate::scoreboard::Scoreboard;

/// What threads say to the crew.
#[derive(Debug)]
pub(crate) enum News {
    /// All are busy, and a request may be waiting.
    AllBusy,
    /// A PHP thread has ended, with the exit status that it would give the process.
    Ended(i32),
}

/// What a crew is made of.
pub(crate) struct Crew<'a> {
    pub(crate) name: &'a str,
    pub(crate) engine: &'a Arc<Engine>,
    pub(crate) pool: &'a Pool<'a>,
    pub(crate) scoreboard: &'a Scoreboard,
    pub(crate) pm: ProcessManager,
    /// `pm.max_children`
    pub(crate) most: u32,
    /// Makes a PHP thread's sockets.
    pub(crate) make_seat: &'a mut dyn FnMut(&Sender<News>) -> io::Result<Arc<Seat>>,
}

impl Crew<'_> {
    /// PHP threads to begin with: an ondemand pool's process is there because somebody needs it.
    pub(crate) fn at_start(pm: &ProcessManager, most: u32) -> u32 {
        Manager::new(pm.clone(), most).at_start().clamp(1, most)
    }

    /// Serves until all threads have ended; returns the exit status of the process.
    pub(crate) fn run(mut self) -> i32 {
        let (sender, news) = bounded(NEWS);
        let mut manager = Manager::new(self.pm.clone(), self.most);
        thread::scope(|scope| {
            let mut count = 0;
            let first = Self::at_start(&self.pm, self.most);
            if let Err(error) = self.hire(scope, first, &mut count, &sender) {
                log::error(format_args!(
                    "PHP thread {count} cannot be started: {error}"
                ));
                if count == 0 {
                    return 1;
                }
            }
            block_signals();
            self.look_after(scope, &mut manager, count, &sender, &news)
        })
    }

    fn look_after<'scope, 'env: 'scope>(
        &mut self,
        scope: &'scope Scope<'scope, 'env>,
        manager: &mut Manager,
        mut count: u32,
        sender: &Sender<News>,
        news: &Receiver<News>,
    ) -> i32
    where
        Self: 'env,
    {
        let mut status = 0;
        let mut ended = 0;
        let mut in_demand = false;
        let mut tick_at = Instant::now() + TICK;
        while ended < count {
            let patience = if in_demand {
                GLANCE
            } else if count < self.most && manager.ticks() {
                tick_at.saturating_duration_since(Instant::now())
            } else {
                FOR_EVER
            };
            match news.recv_timeout(patience) {
                Ok(News::AllBusy) => in_demand = true,
                Ok(News::Ended(own)) => {
                    ended += 1;
                    status = own.max(status);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if ended > 0 || count >= self.most {
                in_demand = false;
                continue;
            }
            let census = self.census(count);
            in_demand &= census.idle == 0;
            let queued = self.scoreboard.queued();
            let decision = if in_demand && queued > 0 {
                manager.on_demand(census, queued)
            } else if tick_at <= Instant::now() {
                tick_at = Instant::now() + TICK;
                manager.tick(census)
            } else {
                continue;
            };
            if let Some((level, text)) = decision.message {
                log::write(level, format_args!("[pool {}] {text}", self.name));
            }
            if decision.limit_reached {
                self.scoreboard.count_max_children_reached();
            }
            if let Action::Fork(more) = decision.action
                && let Err(error) = self.hire(scope, more, &mut count, sender)
            {
                log::warning(format_args!(
                    "[pool {}] another PHP thread cannot be started: {error}; {count} go on",
                    self.name
                ));
            }
        }
        status
    }

    fn census(&self, count: u32) -> Census {
        let own = std::process::id();
        let running = self.scoreboard.process(own).map_or(0, |view| view.running);
        Census {
            running: count,
            idle: count.saturating_sub(running),
            has_connections: true,
            ..Census::default()
        }
    }

    fn hire<'scope, 'env: 'scope>(
        &mut self,
        scope: &'scope Scope<'scope, 'env>,
        more: u32,
        count: &mut u32,
        sender: &Sender<News>,
    ) -> io::Result<()>
    where
        Self: 'env,
    {
        for _ in 0..more {
            let number = *count;
            let seat = (self.make_seat)(sender)?;
            let thread = Arc::clone(&seat);
            let (engine, pool, sender) = (self.engine, self.pool, sender.clone());
            let php = move || {
                let status = match PhpThread::attach(engine) {
                    Ok(mut php) => {
                        (pool.apply_settings)();
                        thread.serve(&mut php, pool, &mut (pool.books)(number))
                    }
                    Err(error) => {
                        log::error(format_args!("PHP thread {number} cannot start: {error}"));
                        thread.dismiss();
                        1
                    }
                };
                // The crew listens as long as there are threads.
                let _ = sender.send(News::Ended(status));
            };
            let started = seat.spawn_helper().and_then(|()| {
                thread::Builder::new()
                    .name(format!("php {number}"))
                    .stack_size(PHP_STACK)
                    .spawn_scoped(scope, php)
            });
            if let Err(error) = started {
                seat.dismiss();
                return Err(error);
            }
            *count += 1;
            self.pool.slot.set_threads(*count);
        }
        Ok(())
    }
}

/// How often the process manager looks at the pool, as php-fpm's.
const TICK: Duration = Duration::from_secs(1);

/// How often it looks while all threads are busy.
const GLANCE: Duration = Duration::from_millis(10);

const FOR_EVER: Duration = Duration::from_secs(3600);

/// News that may wait; who finds no room has nothing new to say.
const NEWS: usize = 1024;
