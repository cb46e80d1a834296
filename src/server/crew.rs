//! The PHP threads of a ZTS worker process: as many as `pm` starts with, more when they are needed, up to
//! `pm.max_children`, and fewer when they are not.
//!
//! The process's first thread looks after this: once a second by php-fpm's rules (`pm.rs`), and at once when requests wait while
//! all are busy. When there is one too many, whichever is idle first ends: which one does not matter, since they share all sockets.

use std::io;
use std::sync::Arc;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::driver::{Driver, Leave, PHP_STACK, Pool, Seat};
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
    /// The PHP thread with this number has ended, with the exit status that it would give the process.
    Ended(u32, i32),
    /// The PHP thread with this number was needed no longer.
    Left(u32),
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
    /// The process's sockets.
    pub(crate) driver: &'a Arc<Driver>,
    pub(crate) sender: Sender<News>,
    pub(crate) news: Receiver<News>,
}

/// A PHP thread, as the crew sees it.
struct Member {
    seat: Arc<Seat>,
    /// Requests that it had begun at the last look, and since when it has been idle.
    requests: u64,
    idle_since: Instant,
}

/// The PHP threads that there are.
struct Members {
    /// By number.
    table: Vec<Option<Member>>,
    /// How many are to go and have not gone yet.
    leaving: u32,
}

impl Crew<'_> {
    /// PHP threads to begin with: an ondemand pool's process is there because somebody needs it.
    pub(crate) fn at_start(pm: &ProcessManager, most: u32) -> u32 {
        Manager::new(pm.clone(), most).at_start().clamp(1, most)
    }

    /// Serves until all threads have ended; returns the exit status of the process.
    pub(crate) fn run(mut self) -> i32 {
        let mut members = Members {
            table: Vec::new(),
            leaving: 0,
        };
        thread::scope(|scope| {
            let first = Self::at_start(&self.pm, self.most);
            if let Err(error) = self.hire(scope, first, &mut members) {
                log::error(format_args!(
                    "[pool {}] PHP thread {} cannot be started: {error}",
                    self.name,
                    members.serving()
                ));
                if members.serving() == 0 {
                    return 1;
                }
            }
            block_signals();
            let status = self.look_after(scope, &mut members);
            self.driver.stop();
            status
        })
    }

    fn look_after<'scope, 'env: 'scope>(
        &mut self,
        scope: &'scope Scope<'scope, 'env>,
        members: &mut Members,
    ) -> i32
    where
        Self: 'env,
    {
        let mut manager = Manager::new(self.pm.clone(), self.most);
        let mut status = 0;
        let mut in_demand = false;
        // Once one has ended unasked, the process is to end.
        let mut ending = false;
        let mut tick_at = Instant::now() + TICK;
        while !members.is_empty() {
            let patience = if ending {
                FOR_EVER
            } else if in_demand {
                GLANCE
            } else if manager.ticks() {
                tick_at.saturating_duration_since(Instant::now())
            } else {
                FOR_EVER
            };
            match self.news.recv_timeout(patience) {
                Ok(News::AllBusy) => in_demand = true,
                Ok(News::Ended(number, own)) => {
                    status = own.max(status);
                    ending = true;
                    members.remove(number);
                }
                Ok(News::Left(number)) => {
                    members.leaving = members.leaving.saturating_sub(1);
                    members.remove(number);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if ending {
                continue;
            }
            let census = members.census();
            in_demand &= census.idle == 0;
            let waiting = if in_demand { self.waiting() } else { 0 };
            let decision = if waiting > 0 {
                // There is no more to be done until one has been idle.
                in_demand = census.running < self.most;
                manager.on_demand(census, waiting)
            } else if manager.ticks() && tick_at <= Instant::now() {
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
            match decision.action {
                Action::Keep => {}
                Action::Fork(more) => {
                    if let Err(error) = self.hire(scope, more, members) {
                        log::warning(format_args!(
                            "[pool {}] another PHP thread cannot be started: {error}; {} go on",
                            self.name,
                            members.serving()
                        ));
                    }
                }
                Action::RetireOldest | Action::RetireLongestIdle => self.release(members),
            }
        }
        status
    }

    /// Requests that nobody runs, and connections that nobody has accepted.
    fn waiting(&self) -> u32 {
        let queued = self.scoreboard.queued();
        queued.max(u32::from(self.scoreboard.backlog_since().is_some()))
    }

    /// Ends an idle thread. Another that is idle has to be there for what comes.
    fn release(&self, members: &mut Members) {
        let idle = members.table.iter().flatten();
        let idle = idle.filter(|member| member.seat.is_idle()).count();
        if idle < 2 + members.leaving as usize {
            return;
        }
        members.leaving += 1;
        // Before it goes: it counts as idle no more.
        self.pool.slot.set_threads(members.serving());
        self.driver.release_one();
    }

    fn hire<'scope, 'env: 'scope>(
        &mut self,
        scope: &'scope Scope<'scope, 'env>,
        more: u32,
        members: &mut Members,
    ) -> io::Result<()>
    where
        Self: 'env,
    {
        for _ in 0..more {
            let number = members.free_number();
            let seat = self.driver.seat();
            let thread = Arc::clone(&seat);
            let (engine, pool, sender) = (self.engine, self.pool, self.sender.clone());
            let php = move || {
                let news = match PhpThread::attach(engine) {
                    Ok(mut php) => {
                        (pool.apply_settings)();
                        match thread.serve(&mut php, pool, &mut (pool.books)(number)) {
                            Leave::Finished => News::Ended(number, 0),
                            Leave::Unneeded => News::Left(number),
                        }
                    }
                    Err(error) => {
                        log::error(format_args!(
                            "[pool {}] PHP thread {number} cannot start: {error}",
                            pool.name
                        ));
                        thread.dismiss();
                        News::Ended(number, 1)
                    }
                };
                // The crew listens as long as there are threads.
                let _ = sender.send(news);
            };
            let started = thread::Builder::new()
                .name(format!("php {number}"))
                .stack_size(PHP_STACK)
                .spawn_scoped(scope, php);
            if let Err(error) = started {
                seat.dismiss();
                return Err(error);
            }
            members.add(number, seat);
            self.pool.slot.set_threads(members.serving());
        }
        Ok(())
    }
}

impl Members {
    fn is_empty(&self) -> bool {
        self.table.iter().all(Option::is_none)
    }

    /// Those that take requests, and are to go on doing so.
    fn serving(&self) -> u32 {
        self.running().saturating_sub(self.leaving)
    }

    fn running(&self) -> u32 {
        let running = self.table.iter().flatten().count();
        u32::try_from(running).unwrap_or(u32::MAX)
    }

    /// The lowest that nobody has.
    fn free_number(&self) -> u32 {
        let free = self.table.iter().position(Option::is_none);
        u32::try_from(free.unwrap_or(self.table.len())).unwrap_or(u32::MAX)
    }

    fn add(&mut self, number: u32, seat: Arc<Seat>) {
        let now = Instant::now();
        let member = Some(Member {
            seat,
            requests: 0,
            idle_since: now,
        });
        match self.table.get_mut(number as usize) {
            Some(place) => *place = member,
            None => self.table.push(member),
        }
    }

    /// It has ended.
    fn remove(&mut self, number: u32) {
        if let Some(place) = self.table.get_mut(number as usize) {
            *place = None;
        }
    }

    fn census(&mut self) -> Census {
        let now = Instant::now();
        let mut census = Census {
            running: self.running(),
            has_connections: true,
            ..Census::default()
        };
        for member in self.table.iter_mut().flatten() {
            let (is_idle, requests) = (member.seat.is_idle(), member.seat.requests());
            if !is_idle || requests != member.requests {
                member.requests = requests;
                member.idle_since = now;
            }
            if is_idle {
                census.idle += 1;
                census.longest_idle = census.longest_idle.max(Some(now - member.idle_since));
            }
        }
        census.idle = census.idle.saturating_sub(self.leaving);
        census
    }
}

/// How often the process manager looks at the pool, as php-fpm's.
const TICK: Duration = Duration::from_secs(1);

/// How often it looks while all threads are busy.
const GLANCE: Duration = Duration::from_millis(10);

const FOR_EVER: Duration = Duration::from_secs(3600);

/// The way from PHP threads to the crew. Who finds no room has nothing new to say.
pub(crate) fn news() -> (Sender<News>, Receiver<News>) {
    bounded(1024)
}
