//! The process manager's rules (`pm`): how many worker processes a pool should have. Decides, and does nothing itself.
//!
//! The rules are php-fpm's (`fpm_pctl_perform_idle_server_maintenance`): once a second a *dynamic* pool is brought back
//! between its spare limits, faster each second, and one that is idle beyond its time leaves an *ondemand* pool. On top of
//! that a request which has to wait is answered by a fork at once ([`Manager::on_demand`]).

use std::time::Duration;

use crate::config::ProcessManager;
use crate::log::Level;

/// The process manager of one pool.
#[derive(Debug)]
pub(crate) struct Manager {
    pm: ProcessManager,
    max_children: u32,
    /// Doubles with each second in which there are too few.
    spawn_rate: u32,
    /// Whether the limit has been reached and said.
    warned: bool,
}

/// The worker processes of a pool at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// All of them, those that are starting included.
    pub(crate) running: u32,
    /// Those that could run a request.
    pub(crate) idle: u32,
    /// Those that are starting, and will be idle.
    pub(crate) starting: u32,
    /// How long the one that has been idle longest has been so.
    pub(crate) longest_idle: Option<Duration>,
    /// Whether connections are open that somebody has to own.
    pub(crate) has_connections: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing.
    Keep,
    /// Fork so many.
    Fork(u32),
    /// End the idle one that was started first.
    RetireOldest,
    /// End the one that has been idle longest.
    RetireLongestIdle,
}

/// A decision, and what is to be logged about it (after `[pool NAME] `).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) action: Action,
    pub(crate) message: Option<(Level, String)>,
    /// Counts as `max children reached`.
    pub(crate) limit_reached: bool,
}

impl Decision {
    fn quiet(action: Action) -> Self {
        Self {
            action,
            message: None,
            limit_reached: false,
        }
    }
}

impl Manager {
    pub(crate) fn new(pm: ProcessManager, max_children: u32) -> Self {
        Self {
            pm,
            max_children,
            spawn_rate: 1,
            warned: false,
        }
    }

    /// Worker processes to begin with.
    pub(crate) fn at_start(&self) -> u32 {
        match self.pm {
            ProcessManager::Static => self.max_children,
            ProcessManager::Dynamic { start_servers, .. } => start_servers.min(self.max_children),
            ProcessManager::OnDemand { .. } => 0,
        }
    }

    /// Whether [`tick`](Self::tick) is to be called every second.
    pub(crate) fn ticks(&self) -> bool {
        self.pm != ProcessManager::Static
    }

    /// Whether more may be forked when requests wait.
    pub(crate) fn may_grow(&self, running: u32) -> bool {
        self.pm != ProcessManager::Static && running < self.max_children
    }

    /// To be called once a second.
    pub(crate) fn tick(&mut self, census: Census) -> Decision {
        match self.pm {
            ProcessManager::Static => Decision::quiet(Action::Keep),
            ProcessManager::OnDemand {
                process_idle_timeout,
            } => {
                // Whoever is last keeps the connections.
                let can_go = census.running > 1 || !census.has_connections;
                let is_late = census
                    .longest_idle
                    .is_some_and(|idle| idle >= process_idle_timeout);
                Decision::quiet(if can_go && is_late {
                    Action::RetireLongestIdle
                } else {
                    Action::Keep
                })
            }
            ProcessManager::Dynamic {
                min_spare_servers,
                max_spare_servers,
                max_spawn_rate,
                ..
            } => {
                if census.idle > max_spare_servers {
                    self.spawn_rate = 1;
                    return Decision::quiet(Action::RetireOldest);
                }
                let spare = census.idle + census.starting;
                if spare >= min_spare_servers {
                    self.spawn_rate = 1;
                    return Decision::quiet(Action::Keep);
                }
                self.grow(census, min_spare_servers - spare, max_spawn_rate)
            }
        }
    }

    /// To be called when `waiting` requests (or connections) find no idle worker process.
    pub(crate) fn on_demand(&mut self, census: Census, waiting: u32) -> Decision {
        if self.pm == ProcessManager::Static || census.idle > 0 || waiting <= census.starting {
            return Decision::quiet(Action::Keep);
        }
        if census.running >= self.max_children {
            return self.at_limit();
        }
        self.warned = false;
        let fork = (waiting - census.starting).min(self.max_children - census.running);
        Decision::quiet(Action::Fork(fork))
    }

    fn grow(&mut self, census: Census, missing: u32, max_spawn_rate: u32) -> Decision {
        if census.running >= self.max_children {
            self.spawn_rate = 1;
            return self.at_limit();
        }
        let fork = self
            .spawn_rate
            .min(missing)
            .min(self.max_children - census.running);
        self.warned = false;
        let message = (self.spawn_rate >= BUSY).then(|| {
            let text = format!(
                "seems busy (you may need to increase pm.start_servers, or pm.min/max_spare_servers), spawning {} children, \
                 there are {} idle, and {} total children",
                self.spawn_rate, census.idle, census.running
            );
            (Level::Warning, text)
        });
        if self.spawn_rate < max_spawn_rate {
            self.spawn_rate *= 2;
        }
        Decision {
            action: Action::Fork(fork),
            message,
            limit_reached: false,
        }
    }

    fn at_limit(&mut self) -> Decision {
        if std::mem::replace(&mut self.warned, true) {
            return Decision::quiet(Action::Keep);
        }
        let setting = if matches!(self.pm, ProcessManager::OnDemand { .. }) {
            "max_children"
        } else {
            "pm.max_children"
        };
        let text = format!(
            "server reached {setting} setting ({}), consider raising it",
            self.max_children
        );
        Decision {
            action: Action::Keep,
            message: Some((Level::Warning, text)),
            limit_reached: true,
        }
    }
}

/// A spawn rate that is worth a word.
const BUSY: u32 = 8;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn dynamic() -> Manager {
        let pm = ProcessManager::Dynamic {
            start_servers: 3,
            min_spare_servers: 2,
            max_spare_servers: 4,
            max_spawn_rate: 32,
        };
        Manager::new(pm, 40)
    }

    fn census(running: u32, idle: u32) -> Census {
        Census {
            running,
            idle,
            ..Census::default()
        }
    }

    #[test]
    fn static_pools_neither_grow_nor_shrink() {
        let mut manager = Manager::new(ProcessManager::Static, 4);
        assert_eq!(manager.at_start(), 4);
        assert_eq!(manager.tick(census(4, 4)).action, Action::Keep);
        assert_eq!(manager.on_demand(census(4, 0), 9).action, Action::Keep);
    }

    #[test]
    fn dynamic_pools_are_brought_back_between_their_limits() {
        let mut manager = dynamic();
        assert_eq!(manager.at_start(), 3);
        assert_eq!(manager.tick(census(3, 2)).action, Action::Keep);
        assert_eq!(manager.tick(census(3, 1)).action, Action::Fork(1));
        assert_eq!(manager.tick(census(8, 5)).action, Action::RetireOldest);
        let starting = Census {
            starting: 2,
            ..census(5, 0)
        };
        assert_eq!(manager.tick(starting).action, Action::Keep);
    }

    #[test]
    fn the_spawn_rate_doubles_until_it_is_said() {
        let mut manager = Manager::new(
            ProcessManager::Dynamic {
                start_servers: 1,
                min_spare_servers: 30,
                max_spare_servers: 30,
                max_spawn_rate: 8,
            },
            40,
        );
        let forks: Vec<Decision> = (0..5).map(|_| manager.tick(census(5, 0))).collect();
        let counts: Vec<Action> = forks.iter().map(|decision| decision.action).collect();
        assert_eq!(counts, [1, 2, 4, 8, 8].map(Action::Fork));
        assert!(forks[2].message.is_none());
        let (level, text) = forks[3].message.clone().unwrap();
        assert_eq!(level, Level::Warning);
        assert_eq!(
            text,
            "seems busy (you may need to increase pm.start_servers, or pm.min/max_spare_servers), spawning 8 children, there are \
             0 idle, and 5 total children"
        );
    }

    #[test]
    fn the_limit_is_said_once_until_there_is_room_again() {
        let mut manager = dynamic();
        let first = manager.tick(census(40, 0));
        assert!(first.limit_reached);
        assert_eq!(
            first.message.unwrap().1,
            "server reached pm.max_children setting (40), consider raising it"
        );
        assert_eq!(manager.tick(census(40, 0)).message, None);
        assert_eq!(manager.tick(census(39, 0)).action, Action::Fork(1));
        assert!(manager.on_demand(census(40, 0), 1).limit_reached);
    }

    #[test]
    fn a_burst_is_answered_at_once_but_not_beyond_the_limit() {
        let mut manager = dynamic();
        assert_eq!(manager.on_demand(census(3, 0), 5).action, Action::Fork(5));
        assert_eq!(manager.on_demand(census(3, 1), 5).action, Action::Keep);
        let starting = Census {
            starting: 5,
            ..census(8, 0)
        };
        assert_eq!(manager.on_demand(starting, 5).action, Action::Keep);
        assert_eq!(manager.on_demand(census(38, 0), 9).action, Action::Fork(2));
    }

    #[test]
    fn an_ondemand_pool_ends_who_is_idle_too_long() {
        let pm = ProcessManager::OnDemand {
            process_idle_timeout: Duration::from_secs(10),
        };
        let mut manager = Manager::new(pm, 4);
        assert_eq!(manager.at_start(), 0);
        let idle = |running, seconds, has_connections| Census {
            running,
            idle: running,
            longest_idle: Some(Duration::from_secs(seconds)),
            has_connections,
            ..Census::default()
        };
        assert_eq!(manager.tick(idle(2, 9, false)).action, Action::Keep);
        assert_eq!(
            manager.tick(idle(2, 10, true)).action,
            Action::RetireLongestIdle
        );
        assert_eq!(manager.tick(idle(1, 10, true)).action, Action::Keep);
        assert_eq!(
            manager.tick(idle(1, 10, false)).action,
            Action::RetireLongestIdle
        );
    }
}
