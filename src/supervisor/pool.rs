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
//! An *ondemand* pool has no pool process before its first connection, nor after it has been unused for a minute.
//!
//! Generations share everything but memory: listening sockets, the hand-over socket and the scoreboard outlive them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use rustix::process::{Pid, getpid};
use tokio::task::JoinHandle;

use super::SupervisorError;
use super::generation::{EventKind, EventSender, Generation, Phase};
use super::listen_queue::ListenQueues;
use super::messages::{Channel, FromPool, PhpFacts, ReopenedLogs, ReplaceReason, Start, ToPool};
use super::process::{Exit, spawn_pool_process, watch_listener};
use super::reload::{Handed, HandedGeneration};
use super::sockets::PoolSockets;
use super::status_listener;
use crate::config::{ListenAddress, PhpBuild, PoolConfig, ProcessManager};
use crate::descriptor::high_fd;
use crate::log;
use crate::scoreboard::{Lost, ProcessCount, Scoreboard, Snapshot};
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
}

/// `process.max`, and what it is about.
pub(super) struct ProcessLimit {
    max: u32,
    count: ProcessCount,
    descriptor: OwnedFd,
}

impl ProcessLimit {
    /// For so many pools; none without a limit.
    pub(super) fn new(max: u32, pools: usize) -> io::Result<Option<Arc<Self>>> {
        if max == 0 {
            return Ok(None);
        }
        let (count, descriptor) = ProcessCount::create(pools)?;
        Ok(Some(Arc::new(Self {
            max,
            count,
            descriptor: high_fd(descriptor),
        })))
    }
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
        } = parts;
        let mut generations = Vec::new();
        let mut handover = None;
        let mut scoreboard = None;
        let mut last_generation = 0;
        if let Some(handed) = handed {
            last_generation = handed.last_generation;
            handover = Some(handed.handover);
            for HandedGeneration {
                number,
                pid,
                control,
                ready,
                starting,
            } in handed.generations
            {
                let phase = match (ready, starting) {
                    (true, _) => Phase::Ready,
                    (false, true) => Phase::Starting,
                    (false, false) => Phase::Draining,
                };
                let generation = Generation::new(number, pid, control, phase, true, events.clone());
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

    /// Starts serving: with a pool process, or for an ondemand pool with the wait for a connection.
    pub(super) fn start(&mut self) -> Result<(), SupervisorError> {
        // Until PHP has started and knows better.
        let [major, minor, patch] = PhpBuild::compiled().version;
        self.listen_for_status(&PhpFacts {
            version: format!("{major}.{minor}.{patch}"),
            expose_php: true,
        });
        let busy = self.generations.iter().any(|old| old.phase == Phase::Ready);
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

    /// Whether it does what it is to do: serve, or wait for connections.
    pub(super) fn is_up(&self) -> bool {
        self.dormant.is_some() || self.is_on_demand() || self.serves_last()
    }

    /// Whether its newest generation is ready, and those before it take no more requests, but for a stubborn one.
    fn serves_last(&self) -> bool {
        let in_transition = self
            .transition_until
            .is_some_and(|until| Instant::now() < until)
            && self.scoreboard.serves_before(self.last_generation);
        !in_transition && self.has_ready_last()
    }

    fn has_ready_last(&self) -> bool {
        self.generations.iter().any(|generation| {
            generation.number == self.last_generation && generation.phase == Phase::Ready
        })
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
                if self.stopping || !self.generations.is_empty() {
                    return Ok(());
                }
                self.start_or_retry();
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

    /// Wants a new generation in place of the current one. Many wishes make one replacement.
    fn replace(&mut self, reason: ReplaceReason) {
        self.wanted = Some(reason);
        self.replace_if_due();
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

    /// Tells all generations something.
    pub(super) fn tell(&self, message: &ToPool, descriptors: &[BorrowedFd<'_>]) -> usize {
        let listening = self
            .generations
            .iter()
            .filter(|generation| matches!(generation.phase, Phase::Ready | Phase::Draining));
        listening
            .map(|generation| generation.send_with(message, descriptors))
            .count()
    }

    /// Opens the pool's logs anew and passes them on, with that of the error log; whether the pool has an access log.
    pub(super) fn reopen_logs(&mut self, error_log: Option<BorrowedFd<'_>>) -> bool {
        match open_logs(&self.config) {
            Ok(logs) => {
                self.access_log = logs.access;
                self.slow_log = logs.slow;
            }
            // What was open goes on.
            Err(error) => log::error(format_args!("{error}")),
        }
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
        access_log.is_some()
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
        let generations = self
            .generations
            .iter()
            .filter(|generation| !generation.is_gone());
        let generations = generations.map(|generation| {
            Ok(HandedGeneration {
                number: generation.number,
                pid: generation.pid,
                control: Channel::from_socket(generation.control_descriptor()?),
                ready: generation.phase == Phase::Ready,
                starting: generation.phase == Phase::Starting,
            })
        });
        Ok(Handed {
            config: self.config.clone(),
            identity: self.identity.clone(),
            processes: self.processes,
            last_generation: self.last_generation,
            scoreboard: self.scoreboard_fd.try_clone()?,
            handover: (self.handover.0.try_clone()?, self.handover.1.try_clone()?),
            generations: generations.collect::<io::Result<_>>()?,
        })
    }

    /// When to call [`on_deadline`](Self::on_deadline).
    pub(super) fn deadline(&self) -> Option<Instant> {
        let ending = self.stop_at.into_iter().chain(self.kill_at);
        if self.stopping {
            return ending.min();
        }
        let replace_at = self
            .wanted
            .filter(|_| self.may_replace())
            .map(|_| self.last_start + REPLACE_INTERVAL);
        self.restart_at
            .into_iter()
            .chain(replace_at)
            .chain(self.drained_until())
            .chain(self.transition_until.map(|_| Instant::now() + GLANCE))
            .min()
    }

    /// When the patience with a generation that drains is over.
    fn drained_until(&self) -> Option<Instant> {
        let patience = self.patience?;
        let draining = self
            .generations
            .iter()
            .filter(|generation| generation.phase == Phase::Draining);
        draining
            .filter_map(|generation| generation.draining_since)
            .map(|since| since + patience)
            .min()
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

    pub(super) fn on_deadline(&mut self) {
        let now = Instant::now();
        if self.kill_at.is_some_and(|time| time <= now) {
            self.kill_at = None;
            self.kill();
        }
        if self.stop_at.is_some_and(|time| time <= now) {
            self.stop();
        }
        if self.stopping {
            return;
        }
        if self.transition_until.is_some() && self.serves_last() {
            self.transition_until = None;
        }
        if let Some(patience) = self.patience {
            for generation in &mut self.generations {
                if generation.phase == Phase::Draining
                    && generation
                        .draining_since
                        .is_some_and(|since| since + patience <= now)
                {
                    log::notice(format_args!(
                        "[pool {}] pool process {} (generation {}) has not finished within process_control_timeout, it is ended",
                        self.config.name, generation.pid, generation.number
                    ));
                    generation.stop();
                }
            }
        }
        if self.restart_at.is_some_and(|time| time <= now) {
            self.restart();
        }
        self.replace_if_due();
    }

    fn on_message(&mut self, number: u32, message: FromPool) -> Result<(), SupervisorError> {
        let name = self.config.name.clone();
        let is_last = number == self.last_generation;
        let Some(generation) = self.generation(number) else {
            return Ok(());
        };
        match message {
            FromPool::Ready { php } if generation.phase == Phase::Starting => {
                generation.phase = Phase::Ready;
                let pid = generation.pid;
                if self.stopping {
                    self.finish();
                    return Ok(());
                }
                self.scoreboard.set_serving_generation(number);
                let mut took_over = false;
                for older in self
                    .generations
                    .iter_mut()
                    .filter(|other| other.number < number)
                {
                    took_over |= older.phase == Phase::Ready;
                    older.drain();
                }
                if took_over || self.early_deaths > 0 {
                    log::notice(format_args!(
                        "[pool {name}] pool process {pid} (generation {number}) has taken over"
                    ));
                }
                if took_over {
                    self.transition_until = Some(Instant::now() + TRANSITION);
                }
                self.served = true;
                self.listen_for_status(&php);
            }
            FromPool::StartFailed { text } => generation.failure = Some(text),
            FromPool::ReplaceMe { reason } if generation.phase == Phase::Ready => {
                log::notice(format_args!(
                    "[pool {name}] pool process {} wants a successor: {reason}",
                    generation.pid
                ));
                self.replace(reason);
            }
            // It exits by itself.
            FromPool::Unused if generation.phase == Phase::Ready && is_last => {
                generation.phase = Phase::Draining;
            }
            // Its successor is on its way; or the supervisor itself has listened.
            FromPool::Ready { .. }
            | FromPool::ReplaceMe { .. }
            | FromPool::Unused
            | FromPool::Flushed
            | FromPool::Faulted => {}
        }
        Ok(())
    }

    /// Deals with every generation that is gone.
    fn bury(&mut self) -> Result<(), SupervisorError> {
        while let Some(index) = self.generations.iter().position(Generation::is_gone) {
            let generation = self.generations.remove(index);
            self.on_gone(&generation)?;
        }
        self.replace_if_due();
        Ok(())
    }

    fn on_gone(&mut self, generation: &Generation) -> Result<(), SupervisorError> {
        let Some(exit) = generation.exit else {
            return Ok(());
        };
        let Generation {
            number, pid, phase, ..
        } = *generation;
        if let Some(limit) = &self.process_limit {
            limit.count.forget(self.events.pool, number);
        }
        let name = &self.config.name;
        let lived = generation.started.elapsed();
        let level = match phase {
            _ if self.stopping || generation.failure.is_some() => log::Level::Debug,
            Phase::Draining if exit.is_clean() => log::Level::Debug,
            Phase::Stopping => log::Level::Debug,
            _ if !self.served => log::Level::Debug,
            _ => log::Level::Warning,
        };
        log::write(
            level,
            format_args!(
                "[pool {name}] pool process {pid} (generation {number}) exited {exit} after {}.{:06} seconds from start",
                lived.as_secs(),
                lived.subsec_micros()
            ),
        );
        if self.stopping {
            return Ok(());
        }
        if matches!(phase, Phase::Draining | Phase::Stopping) {
            let was_last = number == self.last_generation;
            if was_last && self.generations.is_empty() && self.is_on_demand() {
                self.sleep();
            }
            return Ok(());
        }
        if !self.served && !self.is_on_demand() {
            return Err(match &generation.failure {
                Some(text) => SupervisorError::StartFailed(text.clone()),
                None => SupervisorError::DiedAtStart(exit.to_string()),
            });
        }
        if let Some(text) = &generation.failure {
            log::error(format_args!(
                "[pool {name}] the new pool process did not start: {text}"
            ));
        }
        if self
            .generations
            .iter()
            .any(|other| matches!(other.phase, Phase::Starting | Phase::Ready))
        {
            log::notice(format_args!("[pool {name}] another pool process goes on"));
            return Ok(());
        }
        self.early_deaths = if lived < YOUNG {
            self.early_deaths + 1
        } else {
            0
        };
        if phase == Phase::Ready && self.early_deaths < 2 {
            self.restart();
            return Ok(());
        }
        log::notice(format_args!(
            "[pool {name}] the next pool process starts in {} second(s)",
            RETRY.as_secs()
        ));
        self.restart_at = Some(Instant::now() + RETRY);
        Ok(())
    }

    /// Starts a generation in place of one that died; if that is impossible now, tries again later.
    fn restart(&mut self) {
        // It serves whatever the old one was to be replaced for.
        self.wanted = None;
        self.scoreboard.count_restart();
        self.start_or_retry();
    }

    fn start_or_retry(&mut self) {
        if let Err(error) = self.start_generation() {
            log::error(format_args!("[pool {}] {error}", self.config.name));
            if self
                .generations
                .iter()
                .all(|generation| matches!(generation.phase, Phase::Draining | Phase::Stopping))
            {
                self.restart_at = Some(Instant::now() + RETRY);
            }
        }
    }

    fn replace_if_due(&mut self) {
        if self.wanted.is_none()
            || !self.may_replace()
            || self.last_start.elapsed() < REPLACE_INTERVAL
        {
            return;
        }
        self.wanted = None;
        self.start_or_retry();
    }

    /// Whether a replacement may start, but for its being too early.
    fn may_replace(&self) -> bool {
        !self.stopping
            && self.restart_at.is_none()
            && self.generations.len() < MAX_GENERATIONS as usize
            && self
                .generations
                .iter()
                .all(|generation| generation.phase != Phase::Starting)
    }

    /// Whether another reload would have to end an older generation.
    pub(super) fn has_many_finishing(&self) -> bool {
        let finishing = self
            .generations
            .iter()
            .filter(|generation| generation.phase == Phase::Draining && generation.exit.is_none());
        finishing.count() > MOST_FINISHING
    }

    /// Makes room for another generation after a reload: of those that still finish long requests, only so many may.
    pub(super) fn bound_generations(&mut self) {
        let mut finishing: Vec<&mut Generation> = self
            .generations
            .iter_mut()
            .filter(|generation| generation.phase == Phase::Draining && generation.exit.is_none())
            .collect();
        finishing.sort_by_key(|generation| generation.number);
        let count = finishing.len().saturating_sub(MOST_FINISHING);
        for generation in finishing.into_iter().take(count) {
            log::warning(format_args!(
                "[pool {}] {MOST_FINISHING} older generations of workers still finish their requests: pool process {} (generation {}), the \
                 oldest, is ended",
                self.config.name, generation.pid, generation.number
            ));
            generation.stop();
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

/// Files that a pool's worker processes write to.
#[derive(Default)]
struct Logs {
    access: Option<OwnedFd>,
    slow: Option<OwnedFd>,
}

fn open_logs(config: &PoolConfig) -> Result<Logs, SupervisorError> {
    let access = config.access_log.as_deref().map(log::open_access_log);
    let limits = &config.time_limits;
    let slow = limits
        .slowlog_file
        .as_deref()
        .filter(|_| limits.slowlog.is_some())
        .map(log::open_slow_log);
    Ok(Logs {
        access: access.transpose()?,
        slow: slow.transpose()?,
    })
}

/// Room in the scoreboard for worker processes.
fn capacity(processes: u32) -> u32 {
    // A reload adds one to those that there are, even if one of them has only started.
    (MAX_GENERATIONS + 1) * processes + SPARE_SLOTS
}

/// PHP workers of each of `processes` worker processes.
fn threads(config: &PoolConfig, processes: u32) -> u32 {
    (config.max_children / processes.max(1)).max(1)
}

/// The socket by which worker processes pass connections to each other, with room for many of them.
fn handover_socket() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (send, receive) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // The second is possible without privileges, but only as far as net.core.wmem_max.
    sockopt::set_socket_send_buffer_size_force(&send, HANDOVER_BUFFER)
        .or_else(|_| sockopt::set_socket_send_buffer_size(&send, HANDOVER_BUFFER))?;
    Ok((high_fd(send), high_fd(receive)))
}

/// One that serves, one that starts, and two that still finish long requests: more would take too much memory and too
/// many database connections. Further replacements wait.
const MAX_GENERATIONS: u32 = 4;

const MOST_FINISHING: usize = MAX_GENERATIONS as usize - 2;

/// For worker processes that have died and are not reaped yet when their successors start.
const SPARE_SLOTS: u32 = 8;

/// Bytes of connections on their way.
const HANDOVER_BUFFER: usize = 8 << 20;

/// A pool process that dies younger than this is not replaced at once if the one before it did the same.
const YOUNG: Duration = Duration::from_secs(3);

/// Longest time that the supervisor waits for older generations to stop taking requests, and how often it looks.
const TRANSITION: Duration = Duration::from_secs(1);
const GLANCE: Duration = Duration::from_millis(2);

/// Pause before the next attempt then.
const RETRY: Duration = Duration::from_secs(1);

/// Least time between the starts of a generation and its replacement.
const REPLACE_INTERVAL: Duration = Duration::from_secs(2);

/// Pool processes that are not gone after this time are killed; they themselves give worker processes one second.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
