//! The PHP threads of a ZTS worker process: as many as `pm` starts with, more when they are needed, up to
//! `pm.max_children`, and fewer when they are not.
//!
//! The process's first thread looks after this: once a second by php-fpm's rules (`pm.rs`), and at once when requests wait while
//! all are busy. A thread that is no longer needed passes its connections to the others. The first one stays until the process
//! ends: it has the way down from the pool process.

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
use crate::zygote::Handover;

/// What threads say to the crew.
#[derive(Debug)]
pub(crate) enum News {
    /// All are busy, and a request may be waiting.
    AllBusy,
    /// The PHP thread with this number has ended, with the exit status that it would give the process.
    Ended(u32, i32),
}

/// What a crew is made of.
pub(crate) struct Crew<'a> {
    pub(crate) name: &'a str,
    pub(crate) engine: &'a Arc<Engine>,
    pub(crate) pool: &'a Pool<'a>,
    pub(crate) scoreboard: &'a Scoreboard,
    /// Where connections are that no process owns.
    pub(crate) handover: &'a Handover,
    pub(crate) pm: ProcessManager,
    /// `pm.max_children`
    pub(crate) most: u32,
    /// Makes a PHP thread's sockets.
    pub(crate) make_seat: &'a mut dyn FnMut(&Sender<News>) -> io::Result<Arc<Seat>>,
}

/// A PHP thread, as the crew sees it.
struct Member {
    seat: Arc<Seat>,
    started: Instant,
    /// Requests that it had begun at the last look, and since when it has been idle.
    requests: u64,
    idle_since: Instant,
    /// It has been told to go.
    retiring: bool,
}

/// The PHP threads that there are.
struct Members {
    /// By number.
    table: Vec<Option<Member>>,
}

impl Crew<'_> {
    /// PHP threads to begin with: an ondemand pool's process is there because somebody needs it.
    pub(crate) fn at_start(pm: &ProcessManager, most: u32) -> u32 {
        Manager::new(pm.clone(), most).at_start().clamp(1, most)
    }

    /// Serves until all threads have ended; returns the exit status of the process.
    pub(crate) fn run(mut self) -> i32 {
        let (sender, news) = bounded(NEWS);
        let mut members = Members { table: Vec::new() };
        thread::scope(|scope| {
            let first = Self::at_start(&self.pm, self.most);
            if let Err(error) = self.hire(scope, first, &mut members, &sender) {
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
            self.look_after(scope, &mut members, &sender, &news)
        })
    }

    fn look_after<'scope, 'env: 'scope>(
        &mut self,
        scope: &'scope Scope<'scope, 'env>,
        members: &mut Members,
        sender: &Sender<News>,
        news: &Receiver<News>,
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
            match news.recv_timeout(patience) {
                Ok(News::AllBusy) => in_demand = true,
                Ok(News::Ended(number, own)) => {
                    status = own.max(status);
                    ending |= !members.remove(number);
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
                    if let Err(error) = self.hire(scope, more, members, sender) {
                        log::warning(format_args!(
                            "[pool {}] another PHP thread cannot be started: {error}; {} go on",
                            self.name,
                            members.serving()
                        ));
                    }
                }
                Action::RetireOldest => self.retire(members, |member| member.started),
                Action::RetireLongestIdle => self.retire(members, |member| member.idle_since),
            }
        }
        status
    }

    /// Requests that nobody runs, and connections that nobody reads.
    fn waiting(&self) -> u32 {
        let queued = self.scoreboard.queued();
        queued.max(u32::from(self.handover.has_connections()))
    }

    /// Ends the idle thread for which `age` is earliest. Another that is idle has to be there for its connections.
    fn retire(&self, members: &mut Members, age: impl Fn(&Member) -> Instant) {
        if members.serving_idle().count() < 2 {
            return;
        }
        // Not the first.
        let idle = members.table.iter_mut().skip(1).flatten();
        let oldest = idle
            .filter(|member| !member.retiring && member.seat.is_idle())
            .min_by_key(|member| age(member));
        if let Some(member) = oldest {
            member.retiring = true;
            let seat = Arc::clone(&member.seat);
            // Before it goes: it counts as idle no more.
            self.pool.slot.set_threads(members.serving());
            seat.leave();
        }
    }

    fn hire<'scope, 'env: 'scope>(
        &mut self,
        scope: &'scope Scope<'scope, 'env>,
        more: u32,
        members: &mut Members,
        sender: &Sender<News>,
    ) -> io::Result<()>
    where
        Self: 'env,
    {
        for _ in 0..more {
            let number = members.free_number();
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
                        log::error(format_args!(
                            "[pool {}] PHP thread {number} cannot start: {error}",
                            pool.name
                        ));
                        thread.dismiss();
                        1
                    }
                };
                // The crew listens as long as there are threads.
                let _ = sender.send(News::Ended(number, status));
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
        let serving = self
            .table
            .iter()
            .flatten()
            .filter(|member| !member.retiring);
        u32::try_from(serving.count()).unwrap_or(u32::MAX)
    }

    fn serving_idle(&self) -> impl Iterator<Item = &Member> {
        let members = self.table.iter().flatten();
        members.filter(|member| !member.retiring && member.seat.is_idle())
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
            started: now,
            requests: 0,
            idle_since: now,
            retiring: false,
        });
        match self.table.get_mut(number as usize) {
            Some(place) => *place = member,
            None => self.table.push(member),
        }
    }

    /// It has ended. Answers whether it had been told to.
    fn remove(&mut self, number: u32) -> bool {
        let member = self.table.get_mut(number as usize).and_then(Option::take);
        member.is_some_and(|member| member.retiring)
    }

    fn census(&mut self) -> Census {
        let now = Instant::now();
        let running = self.table.iter().flatten().count();
        let mut census = Census {
            running: u32::try_from(running).unwrap_or(u32::MAX),
            has_connections: true,
            ..Census::default()
        };
        for (number, member) in self.table.iter_mut().enumerate() {
            let Some(member) = member else { continue };
            let (is_idle, requests) = (member.seat.is_idle(), member.seat.requests());
            if !is_idle || requests != member.requests {
                member.requests = requests;
                member.idle_since = now;
            }
            if is_idle && !member.retiring {
                census.idle += 1;
                if number > 0 {
                    census.longest_idle = census.longest_idle.max(Some(now - member.idle_since));
                }
            }
        }
        census
    }
}

/// How often the process manager looks at the pool, as php-fpm's.
const TICK: Duration = Duration::from_secs(1);

/// How often it looks while all threads are busy.
const GLANCE: Duration = Duration::from_millis(10);

const FOR_EVER: Duration = Duration::from_secs(3600);

/// News that may wait; who finds no room has nothing new to say.
const NEWS: usize = 1024;
