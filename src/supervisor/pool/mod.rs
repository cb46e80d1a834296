//! A pool as the supervisor sees it: its sockets, its scoreboard, and its generations of pool processes.
//!
//! # Lifecycle of a generation
//!
//! ```text
//! exec ─► Starting ─► Ready: older ones drain ─► a newer one is ready: Draining ─► exit
//!             │          │
//!             └──────────┴─ died: if no other generation goes on, start one: at once, or a second later if it did not
//!                           get ready or was the second in a row to die young
//! ```
//!
//! An *ondemand* pool has no pool process before its first connection, nor after it has had no worker process for a minute
//! (six times `pm.process_idle_timeout`, if that is less).
//!
//! Generations share everything but memory: listening sockets, the hand-over socket and the scoreboard outlive them.

mod shared;
mod succession;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, getpid};
use tokio::task::JoinHandle;

pub(super) use self::shared::ProcessLimit;

use self::shared::{Logs, capacity, handover_socket, open_logs, threads};
use super::SupervisorError;
use super::generation::{EventKind, EventSender, Generation, Phase};
use super::listen_queue::ListenQueues;
use super::messages::{Channel, PhpFacts, ReopenedLogs, ReplaceReason, Start, ToPool};
use super::process::{Exit, spawn_pool_process, watch_listener};
use super::reload::Handed;
use super::sockets::PoolSockets;
use super::status_listener;
use crate::config::{ListenAddress, PhpBuild, PoolConfig, ProcessManager};
use crate::descriptor::high_fd;
use crate::log;
use crate::scoreboard::{Lost, Scoreboard, Snapshot};
use crate::status::Pages;
use crate::zygote::Identity;

/// See the module's documentation.
pub(super) struct Pool {
    config: PoolConfig,
    identity: Identity,
    processes: u32,
    /// None once the pool finishes: nobody can connect any more.
    sockets: Option<PoolSockets>,
    access_log: Option<OwnedFd>,
    slow_log: Option<OwnedFd>,
    /// Tasks that answer at `pm.status_listen`.
    status_listeners: Vec<JoinHandle<()>>,
    scoreboard: Arc<Scoreboard>,
    scoreboard_fd: OwnedFd,
    /// Sending and receiving end. Held here too, so that connections on their way survive any process.
    handover: (OwnedFd, OwnedFd),
    generations: Vec<Generation>,
    last_generation: u32,
    last_start: Instant,
    /// Whether a generation was ever ready, of this program or the one before it.
    served: bool,
    /// Waits for the first connection of a pool that has no process.
    dormant: Option<JoinHandle<()>>,
    /// Pool processes in a row that died young.
    early_deaths: u32,
    wanted: Option<ReplaceReason>,
    restart_at: Option<Instant>,
    /// Until then the supervisor waits for older generations to have stopped taking requests, before it says that all is ready.
    transition_until: Option<Instant>,
    stop_at: Option<Instant>,
    kill_at: Option<Instant>,
    stopping: bool,
    /// `process_control_timeout`; none for endless patience.
    patience: Option<Duration>,
    process_limit: Option<Arc<ProcessLimit>>,
    events: EventSender,
    /// See [`Parts::is_reload`].
    is_reload: bool,
}

/// What a pool is made of.
pub(super) struct Parts {
    pub(super) config: PoolConfig,
    pub(super) identity: Identity,
    /// Worker processes that share `pm.max_children` PHP workers: as many on NTS, one on ZTS.
    pub(super) processes: u32,
    pub(super) sockets: Option<PoolSockets>,
    pub(super) patience: Option<Duration>,
    pub(super) process_limit: Option<Arc<ProcessLimit>>,
    pub(super) events: EventSender,
    /// Others serve: it is no reason to end if this pool does not start.
    pub(super) is_reload: bool,
}

impl Pool {
    /// Makes what all generations share, or takes it over from the program that this one has replaced.
    pub(super) fn new(parts: Parts, handed: Option<Handed>) -> Result<Self, SupervisorError> {
        let Parts {
            config,
            identity,
            processes,
            sockets,
            patience,
            process_limit,
            events,
            is_reload,
        } = parts;
        let mut generations = Vec::new();
        let mut handover = None;
        let mut scoreboard = None;
        let mut last_generation = 0;
        if let Some(handed) = handed {
            last_generation = handed.last_generation;
            handover = Some(handed.handover);
            for old in handed.generations {
                let generation = Generation::inherit(old, events.clone());
                generations.push(generation.map_err(SupervisorError::Setup)?);
            }
            // One that is too small, or that this version does not understand, stays with those who have it.
            match Scoreboard::open(&handed.scoreboard) {
                Ok(old)
                    if old.capacity() >= capacity(processes)
                        && old.threads_per_process() == threads(&config, processes) =>
                {
                    scoreboard = Some((old, handed.scoreboard));
                }
                Ok(old) => old.set_serving_generation(last_generation + 1),
                Err(error) => log::warning(format_args!(
                    "[pool {}] the workers before the reload have a scoreboard that cannot be used ({error}): they close their \
                     idle connections",
                    config.name
                )),
            }
        }
        let (scoreboard, scoreboard_fd) = match scoreboard {
            Some(scoreboard) => scoreboard,
            None => Scoreboard::create(capacity(processes), threads(&config, processes))
                .map_err(SupervisorError::Setup)?,
        };
        // It costs worker processes two system calls for each request.
        scoreboard.set_measures_cpu(config.status.is_shown());
        let handover = match handover {
            Some(handover) => handover,
            None => handover_socket().map_err(SupervisorError::Setup)?,
        };
        // A pool that ends has no use for them.
        let logs = if sockets.is_some() {
            open_logs(&config)?
        } else {
            Logs::default()
        };
        Ok(Self {
            access_log: logs.access,
            slow_log: logs.slow,
            served: generations
                .iter()
                .any(|old: &Generation| old.phase == Phase::Ready),
            config,
            identity,
            processes,
            sockets,
            status_listeners: Vec::new(),
            scoreboard: Arc::new(scoreboard),
            scoreboard_fd: high_fd(scoreboard_fd),
            handover,
            generations,
            last_generation,
            last_start: Instant::now(),
            dormant: None,
            early_deaths: 0,
            wanted: None,
            restart_at: None,
            transition_until: None,
            stop_at: None,
            kill_at: None,
            stopping: false,
            patience,
            process_limit,
            events,
            is_reload,
        })
    }

    /// Where it listens, if the system has chosen a port.
    pub(super) fn chosen_addresses(&self) -> impl Iterator<Item = &ListenAddress> {
        let chosen = self.config.listen.iter().any(ListenAddress::has_any_port);
        let sockets = self.sockets.iter().filter(move |_| chosen);
        sockets.flat_map(|sockets| sockets.listen.addresses())
    }

    /// Its figures now.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.scoreboard.snapshot()
    }

    pub(super) fn sockets(&self) -> Option<&PoolSockets> {
        self.sockets.as_ref()
    }

    /// Starts serving: with a pool process, or for an ondemand pool with the wait for a connection. `goes_on` if what serves
    /// already is to go on: the new configuration has come to nothing.
    pub(super) fn start(&mut self, goes_on: bool) -> Result<(), SupervisorError> {
        // Until PHP has started and knows better.
        let [major, minor, patch] = PhpBuild::compiled().version;
        self.listen_for_status(&PhpFacts {
            version: format!("{major}.{minor}.{patch}"),
            expose_php: true,
        });
        let busy = self.generations.iter().any(|old| old.phase == Phase::Ready);
        if goes_on && busy {
            self.scoreboard.set_serving_generation(self.last_generation);
            return Ok(());
        }
        if self.is_on_demand() && !busy {
            self.sleep();
            return Ok(());
        }
        self.start_generation()
    }

    /// Answers at `pm.status_listen`.
    fn listen_for_status(&mut self, php: &PhpFacts) {
        let sockets = self
            .sockets
            .as_ref()
            .and_then(|sockets| sockets.status.as_ref());
        let (Some(sockets), Some(address)) = (sockets, &self.config.status.listen) else {
            return;
        };
        let pages = Arc::new(Pages::new(
            &self.config,
            Arc::clone(&self.scoreboard),
            &php.version,
            php.expose_php,
        ));
        for task in self.status_listeners.drain(..) {
            task.abort();
        }
        for socket in sockets.descriptors() {
            match socket.try_clone_to_owned() {
                Ok(socket) => self.status_listeners.push(status_listener::spawn(
                    high_fd(socket),
                    &self.config,
                    address,
                    Arc::clone(&pages),
                )),
                Err(error) => log::error(format_args!(
                    "[pool {}] pm.status_listen is not served: {error}",
                    self.config.name
                )),
            }
        }
    }

    /// Whether it does all that it can: nothing is starting. If the newest generation has failed, that is said already, and the one
    /// before it serves, or another attempt is to be made.
    pub(super) fn is_up(&self) -> bool {
        self.is_on_demand() || !(self.is_starting() || self.is_in_transition())
    }

    fn is_starting(&self) -> bool {
        let mut generations = self.generations.iter();
        generations.any(|generation| generation.phase == Phase::Starting)
    }

    /// Whether generations before the newest still take requests, but for a stubborn one.
    fn is_in_transition(&self) -> bool {
        self.transition_until
            .is_some_and(|until| Instant::now() < until)
            && self.scoreboard.serves_before(self.last_generation)
    }

    /// Whether it does not serve by its configuration.
    pub(super) fn has_failed(&self) -> bool {
        let last = self.last_generation;
        let mut generations = self.generations.iter();
        !self.stopping
            && self.dormant.is_none()
            && !generations.any(|generation| {
                generation.number == last
                    && matches!(generation.phase, Phase::Starting | Phase::Ready)
            })
    }

    /// The files of inherited sockets are its own from now on.
    pub(super) fn settle(&self) {
        if let Some(sockets) = &self.sockets {
            sockets.settle();
        }
    }

    /// Kills what this program has started.
    pub(super) fn kill_new(&mut self) {
        let new = self.generations.iter_mut();
        new.filter(|generation| !generation.is_inherited())
            .for_each(Generation::kill);
    }

    fn is_on_demand(&self) -> bool {
        matches!(self.config.pm, ProcessManager::OnDemand { .. })
    }

    /// Waits for a connection, without a process.
    fn sleep(&mut self) {
        let Some(sockets) = &self.sockets else { return };
        // Those that end; the sockets themselves are watched through descriptors of our own.
        let watched: Vec<OwnedFd> = sockets
            .listen
            .descriptors()
            .filter_map(|socket| socket.try_clone_to_owned().ok())
            .map(high_fd)
            .collect();
        let events = self.events.clone();
        self.dormant = Some(tokio::spawn(async move {
            wait_for_connection(watched).await;
            let _ = events.send(EventKind::Connection);
        }));
    }

    fn wake_up(&mut self) {
        if let Some(task) = self.dormant.take() {
            task.abort();
        }
    }

    /// Starts a pool process beside those that there are.
    fn start_generation(&mut self) -> Result<(), SupervisorError> {
        self.wake_up();
        self.restart_at = None;
        self.last_start = Instant::now();
        let Some(sockets) = &self.sockets else {
            return Ok(());
        };
        let number = self.last_generation + 1;
        let (ours, theirs) = Channel::pair().map_err(SupervisorError::Setup)?;
        let listeners: Vec<BorrowedFd<'_>> = sockets.listen.descriptors().collect();
        let (log, log_descriptor) = log::heritage();
        let start = Start {
            config: self.config.clone(),
            identity: self.identity.clone(),
            generation: number,
            processes: self.processes,
            threads: threads(&self.config, self.processes),
            process_max: self.process_limit.as_ref().map(|limit| limit.max),
            number: self.events.pool,
            supervisor: getpid().as_raw_nonzero().get(),
            log,
            has_log: log_descriptor.is_some(),
            has_access_log: self.access_log.is_some(),
            has_slow_log: self.slow_log.is_some(),
            listeners: listeners.len(),
            socket_files: sockets.listen.files(),
        };
        let mut descriptors = listeners;
        descriptors.extend([
            self.scoreboard_fd.as_fd(),
            self.handover.0.as_fd(),
            self.handover.1.as_fd(),
        ]);
        descriptors.extend(
            self.process_limit
                .as_ref()
                .map(|limit| limit.descriptor.as_fd()),
        );
        descriptors.extend(log_descriptor);
        descriptors.extend(self.access_log.as_ref().map(AsFd::as_fd));
        descriptors.extend(self.slow_log.as_ref().map(AsFd::as_fd));
        // Before the process exists, so that nothing can fail after that.
        ours.send(&ToPool::Start(Box::new(start)), &descriptors)?;
        let pid = spawn_pool_process(&self.config.name, theirs.into_socket())
            .map_err(SupervisorError::Spawn)?;
        log::debug(format_args!(
            "[pool {}] pool process {pid} (generation {number}) started",
            self.config.name
        ));
        let generation = Generation::new(
            number,
            pid,
            ours,
            Phase::Starting,
            false,
            self.events.clone(),
        );
        self.last_generation = number;
        self.generations
            .push(generation.map_err(SupervisorError::Setup)?);
        Ok(())
    }

    pub(super) fn on_event(&mut self, event: EventKind) -> Result<(), SupervisorError> {
        match event {
            EventKind::Message {
                generation,
                message,
            } => self.on_message(generation, message),
            EventKind::Closed { generation } => {
                if let Some(generation) = self.generation(generation) {
                    generation.closed = true;
                }
                self.bury()
            }
            EventKind::Connection => {
                self.dormant = None;
                if !self.stopping && !self.is_served() {
                    self.start_or_retry();
                }
                Ok(())
            }
        }
    }

    /// A process of ours has been reaped: a pool process, or an orphan that we adopted. Whether it was this pool's.
    pub(super) fn on_exit(&mut self, pid: Pid, exit: Exit) -> Result<bool, SupervisorError> {
        let lost = self
            .scoreboard
            .release(pid.as_raw_nonzero().get().cast_unsigned());
        if let Some(lost) = lost {
            // It died with its pool process, whose end is in the log.
            self.report_lost(pid, lost);
        }
        let mut known = lost.is_some();
        if let Some(generation) = self
            .generations
            .iter_mut()
            .find(|generation| generation.pid == pid)
        {
            generation.exit = Some(exit);
            known = true;
        }
        self.bury()?;
        Ok(known)
    }

    /// Lets running requests finish, then ends; nobody can connect any more.
    pub(super) fn finish(&mut self) {
        self.wake_up();
        self.stopping = true;
        self.scoreboard.set_stopping();
        for generation in &mut self.generations {
            generation.drain();
        }
        self.sockets = None;
        self.stop_at = self.patience.map(|patience| Instant::now() + patience);
    }

    /// Ends at once.
    pub(super) fn stop(&mut self) {
        self.wake_up();
        self.stopping = true;
        self.scoreboard.set_stopping();
        for generation in &mut self.generations {
            generation.stop();
        }
        self.stop_at = None;
        self.kill_at = Some(Instant::now() + STOP_TIMEOUT);
    }

    /// Ends what is left.
    pub(super) fn kill(&mut self) {
        self.wake_up();
        self.stopping = true;
        for generation in &mut self.generations {
            generation.kill();
        }
    }

    /// Whether it has been told to end.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether no pool process is left.
    pub(super) fn is_gone(&self) -> bool {
        self.generations.is_empty()
    }

    /// Whether no worker process is left either.
    pub(super) fn is_buried(&self) -> bool {
        self.is_gone() && self.scoreboard.is_empty()
    }

    /// All is ready, and that has been said.
    pub(super) fn launch(&mut self) {
        self.generations.iter_mut().for_each(Generation::launch);
    }

    /// Asks all generations that answer for something; how many.
    pub(super) fn ask(&self, message: &ToPool) -> usize {
        let listening = self
            .generations
            .iter()
            .filter(|generation| matches!(generation.phase, Phase::Ready | Phase::Draining));
        listening.map(|generation| generation.send(message)).count()
    }

    /// Tells all generations something; those that are starting read it when PHP has started.
    fn tell(&self, message: &ToPool, descriptors: &[BorrowedFd<'_>]) {
        for generation in &self.generations {
            generation.send_with(message, descriptors);
        }
    }

    /// Opens the pool's logs anew and passes them on, with that of the error log. If the pool has an access log, answers whether that
    /// could be done; what was open goes on otherwise.
    pub(super) fn reopen_logs(&mut self, error_log: Option<BorrowedFd<'_>>) -> Option<bool> {
        let opened = match open_logs(&self.config) {
            Ok(logs) => {
                self.access_log = logs.access;
                self.slow_log = logs.slow;
                true
            }
            Err(error) => {
                log::error(format_args!("{error}"));
                false
            }
        };
        let access_log = self.access_log.as_ref().map(AsFd::as_fd);
        let slow_log = self.slow_log.as_ref().map(AsFd::as_fd);
        let message = ToPool::ReopenLogs(ReopenedLogs {
            error: error_log.is_some(),
            access: access_log.is_some(),
            slow: slow_log.is_some(),
        });
        let descriptors: Vec<BorrowedFd<'_>> = error_log
            .into_iter()
            .chain(access_log)
            .chain(slow_log)
            .collect();
        self.tell(&message, &descriptors);
        access_log.is_some().then_some(opened)
    }

    /// The last words.
    pub(super) fn log_summary(&self) {
        log::debug(format_args!(
            "[pool {}] {}",
            self.config.name,
            self.scoreboard.snapshot()
        ));
    }

    /// What the program that replaces this one is to know.
    pub(super) fn hand_down(&self) -> io::Result<Handed> {
        // Nobody will tell of those again that have been reaped: they would be waited for for ever.
        let generations = self
            .generations
            .iter()
            .filter(|generation| generation.exit.is_none());
        let generations = generations.map(Generation::hand_down);
        Ok(Handed {
            name: self.config.name.clone(),
            config: Some((self.config.clone(), self.identity.clone())),
            removed: self.sockets.is_none(),
            processes: self.processes,
            last_generation: self.last_generation,
            scoreboard: self.scoreboard_fd.try_clone()?,
            handover: (self.handover.0.try_clone()?, self.handover.1.try_clone()?),
            generations: generations.collect::<io::Result<_>>()?,
        })
    }

    /// Whether there is a pool process, or should be soon.
    pub(super) fn has_process(&self) -> bool {
        !self.generations.is_empty()
    }

    /// Puts into the scoreboard how many connections wait in the kernel.
    pub(super) fn measure(&self, listen_queues: &mut ListenQueues) {
        if let Some(sockets) = &self.sockets {
            let queue = listen_queues.read_all(sockets.listen.descriptors());
            self.scoreboard.set_backlog(queue.waiting, queue.limit);
        }
    }

    fn report_lost(&self, pid: Pid, lost: Lost) {
        if !self.stopping {
            self.scoreboard.count_crash(lost);
            if !lost.is_empty() {
                log::warning(format_args!(
                    "[pool {}] child {pid} took with it: {lost}",
                    self.config.name
                ));
            }
        }
    }

    fn generation(&mut self, number: u32) -> Option<&mut Generation> {
        self.generations
            .iter_mut()
            .find(|generation| generation.number == number)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.wake_up();
        for task in &self.status_listeners {
            task.abort();
        }
    }
}

/// Returns when one of the listening sockets has a connection. One that cannot be watched counts as having one.
async fn wait_for_connection(sockets: Vec<OwnedFd>) {
    let mut tasks = tokio::task::JoinSet::new();
    for socket in sockets {
        tasks.spawn(async move {
            if let Ok(socket) = watch_listener(socket) {
                let _ = socket.readable().await;
            }
        });
    }
    tasks.join_next().await;
}

/// Pool processes that are not gone after this time are killed; they themselves give worker processes one second.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
