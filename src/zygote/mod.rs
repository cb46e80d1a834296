//! The pool process: starts PHP once, forks worker processes, reaps and replaces them.
//!
//! One thread, no tokio, so that fork() is safe at any time after PHP's module startup. It is started by exec with the
//! control socket as its standard input.
//!
//! # Lifecycle
//!
//! ```text
//!                     ┌── a worker process died: report, fork another ──┐
//! Start ─► startup ─► fork ─► all serve: Ready ─► Running ──────────────┘
//!             │                                    │  │
//!        StartFailed                         Drain │  │ Stop, SIGTERM, the supervisor is gone
//!                                                  ▼  ▼
//!                                           Draining ─► Stopping ─► all reaped: exit
//! ```

mod birth;
mod children;
mod death;
mod first_words;
mod fork;
mod lanes;
mod privileges;
mod worker;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, getpid, getppid};

pub(crate) use self::lanes::Lanes;
pub(crate) use self::privileges::{Identity, IdentityError};
pub(crate) use self::worker::{
    DrainSignal, Handover, Reports, WorkerLogs, WorkerMessage, WorkerProcess,
};

use self::birth::Birth;
use self::children::Children;
use self::first_words::{hold_stderr, log_words, release_stderr};
use self::fork::{Forked, SignalQueue};
use self::privileges::set_environment;
use crate::config::PoolConfig;
use crate::descriptor::{high_fd, reserve_low};
use crate::log::{self, LogFile, Source};
use crate::pm::Manager;
use crate::scoreboard::{ProcessCount, ProcessShare, Scoreboard};
use crate::supervisor::messages::{
    Channel, FromPool, MessageError, PhpFacts, Received, ReopenedLogs, ReplaceReason, Start,
    ToPool, ToWorker, retry,
};
use crate::supervisor::process::{Exit, kill, wait_for};
use crate::supervisor::sockets::SocketFile;
use crate::supervisor::{EXIT_CONFIG, EXIT_SOFTWARE};
use crate::title;

/// Runs the pool process to its end; returns its exit code.
///
/// `startup` starts PHP; its error text is for the administrator. `run_worker` is called in each worker process, whose
/// exit code it returns; it calls [`WorkerProcess::serving`] when it is ready. Call this on the main thread while there
/// is no other, with nothing but the standard descriptors open.
pub(crate) fn main<E>(
    startup: impl FnOnce(&PoolConfig) -> Result<(E, PhpFacts), String>,
    run_worker: fn(WorkerProcess<E>) -> i32,
) -> i32 {
    // The program was started as /proc/self/exe, so its name in `ps` would be "exe": it is to be that of the supervisor.
    title::take_name_of_parent();
    fork::forget_environment();
    match PoolProcess::start(startup, run_worker) {
        Ok(Some(process)) => process.run(),
        Ok(None) => EXIT_CONFIG,
        Err(error) => {
            log::error(format_args!("pool process failed to start: {error}"));
            EXIT_SOFTWARE
        }
    }
}

/// Runs `act` in a process of its own, which ends with the code that it returns. For a process that has a single thread.
pub(crate) fn in_child(act: impl FnOnce() -> i32) -> std::io::Result<Exit> {
    let parent = getpid();
    match fork::fork()? {
        Forked::Child => {
            if !fork::die_with(parent, Signal::KILL) {
                fork::exit_now(EXIT_SOFTWARE);
            }
            let code = std::panic::catch_unwind(AssertUnwindSafe(act));
            fork::exit_now(code.unwrap_or(EXIT_SOFTWARE))
        }
        Forked::Parent { child } => wait_for(child),
    }
}

/// What [`PoolProcess::wait`] has found.
struct Waited {
    /// A connection waits for a worker process to be forked.
    connection: bool,
    /// Worker processes have said something.
    output: Vec<(Pid, Source)>,
}

struct PoolProcess<E> {
    start: Start,
    pid: Pid,
    engine: E,
    php: PhpFacts,
    run_worker: fn(WorkerProcess<E>) -> i32,
    state: State,
    control: Channel,
    signals: SignalQueue,
    reports: OwnedFd,
    /// Given to worker processes.
    reports_sender: OwnedFd,
    drain: OwnedFd,
    listeners: Vec<OwnedFd>,
    handover: Handover,
    lanes: Lanes,
    /// Lanes of worker processes that have died, in which something is left.
    orphaned_lanes: Vec<u32>,
    scoreboard: Arc<Scoreboard>,
    children: Children,
    /// With `process.max`.
    share: Option<ProcessShare>,
    /// Worker processes are missing because all pools have as many as they may.
    at_process_max: bool,
    logs: WorkerLogs,
    /// In a worker process: its side of what was made before the fork.
    birth: Option<Birth>,
    /// Since when there has been no worker process.
    empty_since: Instant,
    /// When the process manager looks at the pool again.
    tick_at: Instant,
    /// A worker process has said that requests wait while all are busy.
    in_demand: bool,
    /// Whether worker processes of this generation all serve, or did once.
    ready: bool,
    ready_since: Option<Instant>,
    /// Whether the supervisor has said that all is ready.
    is_launched: bool,
    /// What PHP and its extensions have said on standard error while they started.
    first_words: Vec<u8>,
    /// Worker processes in a row that died young without having had a request to blame.
    early_deaths: u32,
    /// Worker processes that are forked next take the place of others that died.
    replacing: u32,
    /// When to fork again after too many of those.
    fork_at: Option<Instant>,
    /// When the supervisor was last asked to replace this generation.
    replacement_asked: Option<Instant>,
    /// Whether the supervisor is known to be dead.
    orphaned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    /// Worker processes finish and are not replaced.
    Draining,
    /// Worker processes have been told to die, and are killed at this time.
    Stopping {
        kill_at: Instant,
    },
}

impl<E> PoolProcess<E> {
    /// None if PHP did not start, which the supervisor has been told.
    fn start(
        startup: impl FnOnce(&PoolConfig) -> Result<(E, PhpFacts), String>,
        run_worker: fn(WorkerProcess<E>) -> i32,
    ) -> Result<Option<Self>, MessageError> {
        let control = Channel::from_socket(high_fd(std::io::stdin().as_fd().try_clone_to_owned()?));
        fork::close_stdin()?;
        let signals = SignalQueue::new()?;
        let (start, mut descriptors) = receive_start(&control)?;
        title::set(&format!("php-fpm: pool process {}", start.config.name));
        let mut next = || descriptors.pop().ok_or(MessageError::Truncated);
        // From the last to the first.
        let slow_log = start.has_slow_log.then(&mut next).transpose()?;
        let access_log = start.has_access_log.then(&mut next).transpose()?;
        log::inherit(
            start.log.clone(),
            start.has_log.then(&mut next).transpose()?,
        );
        let share = match start.process_max {
            Some(max) => {
                let count = Arc::new(ProcessCount::open(next()?)?);
                let (pool, generation) = (start.number, start.generation);
                Some(ProcessShare::new(count, pool, generation, max))
            }
            None => None,
        };
        let handover = Handover {
            receive: next()?,
            send: next()?,
        };
        let scoreboard = Arc::new(Scoreboard::open(next()?)?);
        if descriptors.len() != start.listeners {
            return Err(MessageError::Truncated);
        }
        if let Some(supervisor) = Pid::from_raw(start.supervisor) {
            // If it is dead already, the control socket will say so.
            fork::die_with(supervisor, Signal::TERM);
        }
        let (reports, reports_sender) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let drain = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // What PHP opens for life (OPcache's lock file) stays clear of the numbers that some scripts close.
        let scripts_own = reserve_low()?;
        if cfg!(php_zts) {
            // Extensions of the pool's own are loaded now rather than in the worker process.
            set_environment(&start.identity, false);
        }
        hold_stderr(&start.config);
        let started = startup(&start.config);
        let words = release_stderr();
        if started.is_err() {
            log_words(&start.config, &words);
        }
        let (engine, php) = match started {
            Ok(started) => started,
            Err(text) => {
                control.send(&FromPool::StartFailed { text }, &[])?;
                return Ok(None);
            }
        };
        drop(scripts_own);
        let manager = Manager::new(start.process_manager(), start.processes);
        let lanes = Lanes::new(start.processes)?;
        scoreboard.begin_queue(start.generation);
        Ok(Some(Self {
            children: Children::new(&start.config, manager),
            logs: WorkerLogs {
                access: access_log.map(LogFile::new).map(Arc::new),
                slow: slow_log.map(LogFile::new).map(Arc::new),
            },
            share,
            at_process_max: false,
            birth: None,
            empty_since: Instant::now(),
            tick_at: Instant::now() + TICK,
            in_demand: false,
            start,
            pid: getpid(),
            engine,
            php,
            run_worker,
            state: State::Running,
            control,
            signals,
            reports: high_fd(reports),
            reports_sender: high_fd(reports_sender),
            drain: high_fd(drain),
            listeners: descriptors,
            handover,
            lanes,
            orphaned_lanes: Vec::new(),
            scoreboard,
            ready: false,
            ready_since: None,
            is_launched: false,
            first_words: words,
            early_deaths: 0,
            replacing: 0,
            fork_at: None,
            replacement_asked: None,
            orphaned: false,
        }))
    }

    fn run(mut self) -> i32 {
        // What has come while PHP started: there may be no point in forking.
        self.handle_signals();
        self.handle_control();
        loop {
            if let Some(Forked::Child) = self.fork_missing() {
                self.become_worker_process();
            }
            if self.state != State::Running && self.children.is_empty() {
                break;
            }
            if self.is_unused() {
                // The supervisor waits for the next connection in our place.
                self.tell_supervisor(&FromPool::Unused);
                break;
            }
            if !self.ready && self.early_deaths >= MAX_EARLY_DEATHS && !self.is_stopping() {
                let text = format!(
                    "{} worker processes in a row ended before they served",
                    self.early_deaths
                );
                self.tell_supervisor(&FromPool::StartFailed { text });
                self.stop();
            }
            self.look_whether_ready();
            let waited = self.wait();
            for (pid, source) in waited.output {
                self.children.read_output(pid, source);
            }
            self.handle_signals();
            self.handle_reports();
            self.handle_control();
            self.rescue_lanes();
            self.kill_late();
            self.manage(waited.connection);
        }
        if self.orphaned && self.is_supervisor_dead() {
            // It was killed, so it could not do this itself.
            self.start.socket_files.iter().for_each(SocketFile::remove);
        }
        0
    }

    /// Its end of the control socket is closed a moment before it is dead; and a program that has taken its place over may have
    /// closed that too, and serve.
    fn is_supervisor_dead(&self) -> bool {
        let until = Instant::now() + DYING;
        while getppid() == Pid::from_raw(self.start.supervisor) {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Waits until there is something to do.
    fn wait(&self) -> Waited {
        let tick = (self.state == State::Running && self.children.ticks()).then_some(self.tick_at);
        let deadline = match self.state {
            State::Stopping { kill_at } => Some(kill_at),
            State::Running => {
                let unused = self.unused_at();
                let launch = self.ready_since.filter(|_| !self.is_launched);
                let launch = launch.map(|since| since + LAUNCH);
                let launch = launch.filter(|&launch| launch > Instant::now());
                self.fork_at
                    .into_iter()
                    .chain(tick)
                    .chain(unused)
                    .chain(launch)
                    .min()
            }
            State::Draining => None,
        };
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| rustix::time::Timespec::try_from(timeout).ok());
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.reports, PollFlags::IN),
        ];
        if !self.is_stopping() {
            // Once the supervisor is gone, it is readable for ever.
            fds.push(PollFd::new(&self.control, PollFlags::IN));
        }
        let own = fds.len();
        if self.watches_connections() {
            fds.push(PollFd::new(&self.handover.receive, PollFlags::IN));
            fds.extend(
                self.listeners
                    .iter()
                    .map(|listener| PollFd::new(listener, PollFlags::IN)),
            );
        }
        let sources = fds.len();
        // What they say while all is starting comes behind the line that says it has started, as under php-fpm.
        // But if that line is long in coming (another pool of this server may start slowly), they must not fill their pipes.
        let speaks = self.is_launched
            || self.state != State::Running
            || self
                .ready_since
                .is_some_and(|since| since.elapsed() >= LAUNCH);
        let outputs: Vec<(Pid, Source, BorrowedFd<'_>)> =
            self.children.outputs().filter(|_| speaks).collect();
        fds.extend(
            outputs
                .iter()
                .map(|(_, _, fd)| PollFd::new(fd, PollFlags::IN)),
        );
        // An interrupted or failed wait only makes us look at everything once more.
        let _ = poll(&mut fds, timeout.as_ref());
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let ready = outputs.iter().zip(&fds[sources..]);
        Waited {
            connection: fds[own..sources].iter().any(is_ready),
            output: ready
                .filter(|(_, fd)| is_ready(fd))
                .map(|((pid, source, _), _)| (*pid, *source))
                .collect(),
        }
    }

    /// When this process may go, if it has nothing to do until then.
    fn unused_at(&self) -> Option<Instant> {
        let after = self.start.process_manager().unused_after();
        after
            .filter(|_| self.children.is_empty())
            .map(|after| self.empty_since + after)
    }

    fn is_unused(&self) -> bool {
        self.state == State::Running
            && self.ready
            && self.unused_at().is_some_and(|at| at <= Instant::now())
            && !self.children.is_one_missing()
            && !self.handover.has_connections()
    }

    /// Whether a connection that comes now is to be answered by a fork, since nobody is idle.
    fn watches_connections(&self) -> bool {
        self.state == State::Running
            && self.ready
            && self.fork_at.is_none()
            && (self.in_demand || self.children.is_empty())
            && self.children.may_grow()
            && self.idle_workers() == 0
    }

    /// Of this generation: those of the one before are about to go, and nobody tells us when.
    fn idle_workers(&self) -> u32 {
        self.scoreboard.idle_workers_of(self.start.generation)
    }

    /// Grows and shrinks the pool.
    fn manage(&mut self, connection_waits: bool) {
        if self.state != State::Running || !self.ready {
            return;
        }
        // Worker processes leave connections in the listen queue while all are busy.
        let backlog = u32::from(self.scoreboard.backlog_since().is_some());
        let queued = self.scoreboard.queued().max(backlog);
        if self.idle_workers() > 0 {
            self.in_demand = false;
        } else if connection_waits || (self.in_demand && queued > 0) {
            self.children
                .on_demand(&self.scoreboard, queued.max(u32::from(connection_waits)));
        }
        let now = Instant::now();
        if self.tick_at <= now {
            self.tick_at = now + TICK;
            self.children.tick(&self.scoreboard);
        }
    }

    fn handle_signals(&mut self) {
        while let Some((signal, sender)) = self.signals.next() {
            match signal {
                libc::SIGCHLD => self.reap(),
                libc::SIGTERM => {
                    if getppid() != Pid::from_raw(self.start.supervisor) {
                        self.become_orphan();
                    }
                    self.stop();
                }
                libc::SIGQUIT if sender == self.start.supervisor || self.orphaned => self.drain(),
                // An administrator's: somebody else is to be there first.
                libc::SIGQUIT => self.ask_for_replacement(ReplaceReason::Quit),
                // SIGINT, SIGUSR1, SIGUSR2: the supervisor's business.
                _ => {}
            }
        }
    }

    fn handle_reports(&mut self) {
        let messages = worker::read_reports(&self.reports).unwrap_or_default();
        for (pid, message) in messages {
            match (message, Pid::from_raw(pid)) {
                (WorkerMessage::Serving, Some(pid)) => self.children.serves(pid),
                (WorkerMessage::Leaving, Some(pid)) => {
                    self.replacing += u32::from(self.children.leaves(pid));
                }
                (WorkerMessage::AllBusy, _) => self.in_demand = true,
                (WorkerMessage::OpcacheRestartPending, _) => {
                    self.ask_for_replacement(ReplaceReason::OpcacheRestartPending);
                }
                (WorkerMessage::ThreadStuck, _) => {
                    self.ask_for_replacement(ReplaceReason::ThreadStuck);
                }
                (WorkerMessage::MaxRequests, _) => {
                    self.ask_for_replacement(ReplaceReason::MaxRequests);
                }
                (WorkerMessage::Serving | WorkerMessage::Leaving, None) => {}
            }
        }
    }

    /// Says once that this generation serves; one of an ondemand pool does so without a worker process, and so does one that
    /// `process.max` leaves none.
    fn look_whether_ready(&mut self) {
        let all_serve =
            self.children.all_serve() || self.at_process_max && !self.children.has_starting();
        if !self.ready && self.state == State::Running && all_serve {
            self.ready = true;
            self.ready_since = Some(Instant::now());
            let php = self.php.clone();
            self.tell_supervisor(&FromPool::Ready { php });
        }
    }

    fn handle_control(&mut self) {
        while !self.is_stopping() {
            match self.control.receive() {
                Ok(Received::Message(ToPool::Drain, _)) => self.drain(),
                Ok(Received::Message(ToPool::Launched, _)) => {
                    self.is_launched = true;
                    log_words(&self.start.config, &std::mem::take(&mut self.first_words));
                }
                Ok(Received::Message(ToPool::Flush, _)) => {
                    self.children.read_outputs();
                    self.tell_supervisor(&FromPool::Flushed);
                }
                Ok(Received::Message(ToPool::ReopenLogs(which), descriptors)) => {
                    self.reopen_logs(which, descriptors);
                }
                Ok(Received::Message(ToPool::Stop, _)) => self.stop(),
                Ok(Received::Message(ToPool::Start(_), _)) => self.warn("was told to start twice"),
                Ok(Received::Nothing) => return,
                Ok(Received::Closed) => {
                    self.become_orphan();
                    self.stop();
                }
                Err(error) => {
                    self.warn(&format!("{error}, terminating"));
                    self.stop();
                }
            }
        }
    }

    fn drain(&mut self) {
        if self.state != State::Running {
            return;
        }
        self.state = State::Draining;
        if let Err(errno) = rustix::io::write(&self.drain, &1u64.to_ne_bytes()) {
            self.warn(&format!(
                "worker processes cannot be told to finish: {errno}"
            ));
            self.stop();
        }
        // Nobody here will accept again; the supervisor decides whether somebody else does.
        self.listeners.clear();
    }

    fn stop(&mut self) {
        if !self.is_stopping() {
            self.state = State::Stopping {
                kill_at: Instant::now() + STOP_TIMEOUT,
            };
            self.signal_children(Signal::TERM);
        }
    }

    /// Kills worker processes that SIGTERM did not end in time.
    fn kill_late(&mut self) {
        if let State::Stopping { kill_at } = self.state
            && kill_at <= Instant::now()
        {
            self.signal_children(Signal::KILL);
            // They die of it for certain; should the kernel take long, ask again.
            self.state = State::Stopping {
                kill_at: Instant::now() + STOP_TIMEOUT,
            };
        }
    }

    fn signal_children(&self, signal: Signal) {
        for pid in self.children.pids() {
            kill(pid, signal);
        }
    }

    /// Goes over to logs that the supervisor has opened anew, and has the worker processes do so.
    fn reopen_logs(&self, which: ReopenedLogs, descriptors: Vec<OwnedFd>) {
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        self.children.tell(&ToWorker::ReopenLogs(which), &borrowed);
        if let Err(error) = self.logs.reopen(which, descriptors) {
            self.warn(&format!("a log that was re-opened cannot be used: {error}"));
        }
    }

    /// Asks for a successor, at most once a second however often worker processes do.
    fn ask_for_replacement(&mut self, reason: ReplaceReason) {
        let recently = self
            .replacement_asked
            .is_some_and(|time| time.elapsed() < Duration::from_secs(1));
        if self.state == State::Running && !recently {
            self.replacement_asked = Some(Instant::now());
            self.tell_supervisor(&FromPool::ReplaceMe { reason });
        }
    }

    fn tell_supervisor(&self, message: &FromPool) {
        if let Err(error) = self.control.send(message, &[]) {
            self.warn(&format!(
                "{message:?} did not reach the supervisor: {error}"
            ));
        }
    }

    fn warn(&self, text: &str) {
        log::warning(format_args!(
            "[pool {}] pool process {}: {text}",
            self.name(),
            getpid()
        ));
    }

    fn name(&self) -> &str {
        &self.start.config.name
    }

    /// Two things tell of the supervisor's death, in either order: its signal, and, while it is still our parent, the
    /// end of the control socket.
    fn become_orphan(&mut self) {
        if !self.orphaned {
            self.orphaned = true;
            self.warn("the supervisor is gone, terminating");
        }
    }

    fn is_stopping(&self) -> bool {
        matches!(self.state, State::Stopping { .. })
    }
}

/// Waits for the first message, `Start`.
fn receive_start(control: &Channel) -> Result<(Start, Vec<OwnedFd>), MessageError> {
    loop {
        let received = control.receive();
        match received? {
            Received::Message(ToPool::Start(start), descriptors) => {
                return Ok((*start, descriptors));
            }
            // Told to go before it began; the caller ends either way.
            Received::Message(ToPool::Drain | ToPool::Stop, _) | Received::Closed => {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            Received::Message(ToPool::Launched | ToPool::Flush | ToPool::ReopenLogs(_), _) => {}
            Received::Nothing => {
                let mut fds = [PollFd::new(control, PollFlags::IN)];
                retry(|| poll(&mut fds, None))?;
            }
        }
    }
}

/// How often the process manager looks at the pool, as php-fpm's.
const TICK: Duration = Duration::from_secs(1);

/// How long a pool that is ready holds back what its worker processes say, for all to be ready.
const LAUNCH: Duration = Duration::from_secs(2);

/// How long a supervisor may take to die.
const DYING: Duration = Duration::from_millis(200);

/// What SIGTERM does not end within this time gets SIGKILL.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// So many early deaths in a row make a generation fail that does not serve yet. One that does goes on at a slower pace,
/// when all its worker processes have died that way twice.
const MAX_EARLY_DEATHS: u32 = 3;

/// How often a pool looks whether `process.max` leaves it a place.
const PLACE_DELAY: Duration = Duration::from_millis(100);

/// The slowed-down pace of forking.
const FORK_DELAY: Duration = Duration::from_secs(1);
