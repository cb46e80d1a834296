//! The supervisor: owns the listening sockets and the scoreboards, keeps pool processes running, obeys signals.
//!
//! # Lifecycle
//!
//! ```text
//! bind ─► start pools ─► all ready: Normal ──SIGTERM, SIGINT──────────► Terminating ─► all gone: exit 0
//!                  │        ▲    │   │                                     ▲
//!      StartFailed: exit 78 │    │   └──SIGQUIT──► Finishing ──SIGTERM─────┘
//!                           │    └──SIGUSR2──► check of the configuration ─ passes ─► exec
//!                           └───────────────────────────┘ fails              (reload.rs)
//! ```
//!
//! Whatever way it ends, socket files are gone afterwards: it removes them itself, and when it is killed, its pool
//! processes do.

mod error;
mod faults;
mod generation;
pub(crate) mod limits;
#[allow(unsafe_code)]
pub(crate) mod listen_queue;
pub(crate) mod messages;
mod notify;
mod pid_file;
mod pool;
#[allow(unsafe_code)]
pub(crate) mod process;
#[allow(unsafe_code)]
pub(crate) mod reload;
mod reloading;
mod signals;
#[allow(unsafe_code)]
pub(crate) mod sockets;
mod status_listener;

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::getpid;
use tokio::sync::mpsc;

pub(crate) use self::error::{EXIT_CONFIG, EXIT_SOFTWARE, SupervisorError};

use self::faults::Faults;
use self::generation::{Event, EventKind, EventSender};
use self::listen_queue::ListenQueues;
use self::messages::{FromPool, ToPool};
use self::notify::Notifier;
use self::pid_file::PidFile;
use self::pool::{Parts, Pool, ProcessLimit};
use self::process::{raise_descriptor_limit, reap};
use self::reload::{Check, HandedDown, Program, WayBack};
use self::reloading::ReloadWait;
use self::signals::{Signal, Signals};
use self::sockets::{Inherited, bind_pools};
use crate::config::{GlobalConfig, PoolConfig};
use crate::log;
use crate::zygote::Identity;

/// What the supervisor is to do.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) global: GlobalConfig,
    pub(crate) pools: Vec<PoolConfig>,
    /// Whether one worker process has all workers of a pool, as threads.
    pub(crate) threads: bool,
    /// Scripts may run as root (`-R`).
    pub(crate) allow_root: bool,
    /// Sockets that are there.
    pub(crate) inherited: Inherited,
    /// What the program before a reload has left.
    pub(crate) handed: Option<HandedDown>,
    /// How to execute it anew.
    pub(crate) program: Program,
    /// Gets a byte when requests can come.
    pub(crate) ready: Option<OwnedFd>,
}

/// Serves until told to stop.
///
/// Call it on the main thread (its death is what takes pool processes along) while there is no other.
pub(crate) fn run(launch: Launch) -> Result<(), SupervisorError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(SupervisorError::Setup)?;
    runtime.block_on(supervise(launch))
}

async fn supervise(mut launch: Launch) -> Result<(), SupervisorError> {
    // First, so that no signal finds a socket file that nobody would remove.
    let signals = Signals::new().map_err(SupervisorError::Setup)?;
    reload::unblock_signals().map_err(SupervisorError::Setup)?;
    // Worker processes whose pool process was killed become our children: we see them end and settle their slots.
    rustix::process::set_child_subreaper(Some(getpid()))
        .map_err(|errno| SupervisorError::Setup(errno.into()))?;
    let connections = launch
        .pools
        .iter()
        .map(|pool| pool.limits.connections)
        .max();
    if let Err(error) = raise_descriptor_limit(connections.unwrap_or(0)) {
        log::warning(format_args!(
            "the limit on descriptors cannot be raised: {error}"
        ));
    }
    let program = launch.program.clone();
    let way_back = launch
        .handed
        .as_mut()
        .and_then(|handed| handed.way_back.take());
    // Returns only if it fails, or cannot be done.
    let go_back = |way_back: Option<WayBack>, error: SupervisorError| {
        if let Some(way_back) = way_back {
            let failure = way_back.take(&program, &error);
            log::error(format_args!(
                "{} cannot be executed to go back to the old configuration: {failure}",
                program.path.display()
            ));
        }
        error
    };
    let mut supervisor = match Supervisor::new(launch, signals) {
        Ok(supervisor) => supervisor,
        Err(error) => return Err(go_back(way_back, error)),
    };
    let result = match supervisor.start() {
        Ok(()) => {
            drop(way_back);
            supervisor.run().await
        }
        Err(error) => {
            if way_back.is_some() {
                supervisor.kill_new();
            }
            Err(go_back(way_back, error))
        }
    };
    supervisor.end().await;
    if result.is_ok() {
        log::notice(format_args!("exiting, bye-bye!"));
    }
    result
}

struct Supervisor {
    global: GlobalConfig,
    program: Program,
    /// By number; none for one that has ended after a reload.
    pools: Vec<Option<Pool>>,
    /// Until all is settled.
    unused_sockets: Option<Inherited>,
    /// Why a reload has come to nothing, so that all goes on as before.
    failure: Option<String>,
    listen_queues: ListenQueues,
    /// When to look at them again.
    measure_at: Instant,
    state: State,
    /// Whether "ready to handle connections" has been said.
    is_up: bool,
    ready: Option<OwnedFd>,
    check: Option<Check>,
    /// Another SIGUSR2 has come while the check ran, or before we were up.
    reload_again: bool,
    /// A reload waits for older generations to finish.
    reload_waits: Option<ReloadWait>,
    faults: Faults,
    pid_file: Option<PidFile>,
    notifier: Notifier,
    signals: Signals,
    events: mpsc::UnboundedReceiver<Event>,
}

/// As php-fpm's fpm_process_ctl has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Normal,
    Finishing,
    Terminating,
}

impl Supervisor {
    fn new(launch: Launch, signals: Signals) -> Result<Self, SupervisorError> {
        let Launch {
            global,
            pools: configs,
            threads,
            allow_root,
            inherited,
            handed,
            program,
            ready,
        } = launch;
        let identities: Vec<Identity> = configs
            .iter()
            .map(|config| Identity::resolve(config, allow_root))
            .collect::<Result<_, _>>()?;
        let (sockets, unused_sockets) = bind_pools(&configs, inherited)?;
        let process_limit =
            ProcessLimit::new(global.process_max, configs.len()).map_err(SupervisorError::Setup)?;
        let is_reload = handed.is_some();
        let handed = handed.unwrap_or_default();
        let (failure, mut handed) = (handed.failure, handed.pools);
        let patience =
            Some(global.process_control_timeout).filter(|timeout| *timeout > Duration::ZERO);
        let (sender, events) = mpsc::unbounded_channel();
        let mut pools = Vec::new();
        let mut add = |parts, handed| {
            Pool::new(parts, handed).map(|pool| {
                pools.push(Some(pool));
                pools.len()
            })
        };
        let mut number = 0;
        for ((config, identity), sockets) in configs.into_iter().zip(identities).zip(sockets) {
            let old = handed
                .iter()
                .position(|old| old.name == config.name)
                .map(|index| handed.swap_remove(index));
            let processes = if threads { 1 } else { config.max_children };
            number = add(
                Parts {
                    config,
                    identity,
                    processes,
                    sockets: Some(sockets),
                    patience,
                    process_limit: process_limit.clone(),
                    events: EventSender {
                        pool: number,
                        events: sender.clone(),
                    },
                    is_reload,
                },
                old,
            )?;
        }
        // Pools that there are no more.
        for old in handed {
            // What it was configured to be does not matter any more.
            let nothing = || {
                let config = PoolConfig::new(old.name.clone(), Vec::new(), 1);
                (config, Identity::default())
            };
            let (config, identity) = old.config.clone().unwrap_or_else(nothing);
            number = add(
                Parts {
                    config,
                    identity,
                    processes: old.processes,
                    sockets: None,
                    patience,
                    process_limit: process_limit.clone(),
                    events: EventSender {
                        pool: number,
                        events: sender.clone(),
                    },
                    is_reload,
                },
                Some(old),
            )?;
        }
        Ok(Self {
            notifier: Notifier::new(global.systemd_interval),
            faults: Faults::new(
                global.emergency_restart_threshold,
                global.emergency_restart_interval,
            ),
            global,
            program,
            pools,
            unused_sockets: Some(unused_sockets),
            failure,
            listen_queues: ListenQueues::default(),
            measure_at: Instant::now() + MEASURE_INTERVAL,
            state: State::Normal,
            is_up: false,
            ready,
            check: None,
            reload_again: false,
            reload_waits: None,
            pid_file: None,
            signals,
            events,
        })
    }

    fn start(&mut self) -> Result<(), SupervisorError> {
        for address in self.pools.iter().flatten().flat_map(Pool::chosen_addresses) {
            log::notice(format_args!("listening at {address}"));
        }
        if let Some(path) = &self.global.pid {
            let file = PidFile::create(path).map_err(|source| SupervisorError::PidFile {
                path: path.display().to_string(),
                source,
            })?;
            self.pid_file = Some(file);
        }
        log::launched().map_err(SupervisorError::Setup)?;
        log::notice(format_args!("fpm is running, pid {}", getpid()));
        // Children that ended while the program was executed anew have sent their signal to nobody.
        self.reap()?;
        for pool in self.pools.iter_mut().flatten() {
            if pool.sockets().is_some() {
                pool.bound_generations();
                pool.start(self.failure.is_some())?;
                pool.measure(&mut self.listen_queues);
            } else {
                pool.finish();
            }
        }
        // Nothing can fail any more that would be a reason to end.
        self.pools.iter().flatten().for_each(Pool::settle);
        if let Some(unused) = self.unused_sockets.take() {
            unused.close_unused();
        }
        // Not before: the newest generation would be the one before the reload. Pools on demand are up already.
        self.look_whether_up();
        Ok(())
    }

    /// Ends what this program has started.
    fn kill_new(&mut self) {
        self.pools.iter_mut().flatten().for_each(Pool::kill_new);
    }

    async fn run(&mut self) -> Result<(), SupervisorError> {
        while self.state == State::Normal || !self.all_gone() {
            let measures = self.pools.iter().flatten().any(Pool::has_process);
            let measure_at = measures.then_some(self.measure_at);
            let deadlines = self.pools.iter().flatten().filter_map(Pool::deadline);
            let reload_at = self.reload_waits.map(|wait| wait.look_at);
            let check_until = self.check.as_ref().map(Check::until);
            let deadline = deadlines
                .chain(measure_at)
                .chain(reload_at)
                .chain(check_until)
                .min();
            let notify_at = self.notifier.deadline();
            tokio::select! {
                signal = self.signals.next() => self.on_signal(signal).await?,
                Some(event) = self.events.recv() => self.on_event(event)?,
                () = sleep_until(deadline) => self.on_deadline(),
                () = sleep_until(notify_at) => self.notify_status(),
            }
        }
        Ok(())
    }

    async fn on_signal(&mut self, signal: Signal) -> Result<(), SupervisorError> {
        if signal != Signal::Child {
            self.flush_output().await?;
        }
        match signal {
            Signal::Terminate if self.state != State::Terminating => {
                log::notice(format_args!("Terminating ..."));
                self.notifier.stopping();
                self.state = State::Terminating;
                self.reload_waits = None;
                self.pools.iter_mut().flatten().for_each(Pool::stop);
            }
            Signal::Finish if self.state == State::Normal => {
                log::notice(format_args!("Finishing ..."));
                self.notifier.stopping();
                self.state = State::Finishing;
                self.reload_waits = None;
                self.pools.iter_mut().flatten().for_each(Pool::finish);
            }
            Signal::Reload if self.state == State::Normal => self.begin_reload(),
            Signal::ReopenLogs => self.reopen_logs(),
            Signal::Child => {
                self.reap()?;
                self.look_whether_up();
            }
            Signal::Terminate | Signal::Finish | Signal::Reload => {}
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) -> Result<(), SupervisorError> {
        if let EventKind::Message {
            message: FromPool::Faulted,
            ..
        } = &event.kind
            && self.faults.add(Instant::now())
            && self.state == State::Normal
        {
            log::warning(format_args!(
                "failed processes threshold ({} in {} sec) is reached, initiating reload",
                self.global.emergency_restart_threshold,
                self.global.emergency_restart_interval.as_secs()
            ));
            self.begin_reload();
        }
        if let Some(Some(pool)) = self.pools.get_mut(event.pool) {
            pool.on_event(event.kind)?;
        }
        self.look_whether_up();
        Ok(())
    }

    fn on_deadline(&mut self) {
        if self.measure_at <= Instant::now() {
            self.measure_at = Instant::now() + MEASURE_INTERVAL;
            for pool in self
                .pools
                .iter()
                .flatten()
                .filter(|pool| pool.has_process())
            {
                pool.measure(&mut self.listen_queues);
            }
        }
        self.pools.iter_mut().flatten().for_each(Pool::on_deadline);
        if let Some(check) = &mut self.check
            && check.until() <= Instant::now()
        {
            check.give_up();
        }
        if self
            .reload_waits
            .is_some_and(|wait| wait.look_at <= Instant::now())
        {
            self.begin_reload();
        }
        self.look_whether_up();
    }

    fn notify_status(&mut self) {
        let ready = self.is_up && self.check.is_none() && self.state == State::Normal;
        let pools = self.pools.iter().flatten();
        self.notifier.tell(ready, pools.map(Pool::snapshot));
    }

    fn reap(&mut self) -> Result<(), SupervisorError> {
        while let Some((pid, exit)) = reap() {
            if let Some(check) = self.check.take_if(|check| check.pid() == pid) {
                self.end_check(check, exit);
                continue;
            }
            for pool in self.pools.iter_mut().flatten() {
                if pool.on_exit(pid, exit)? {
                    break;
                }
            }
        }
        // Of a pool that the configuration has no more, nothing may be left.
        for pool in &mut self.pools {
            pool.take_if(|pool| {
                pool.is_stopping() && pool.is_buried() && self.state == State::Normal
            });
        }
        Ok(())
    }

    /// Says once that requests can come.
    fn look_whether_up(&mut self) {
        let serving = |pool: &Pool| pool.is_stopping() || pool.is_up();
        if !self.is_up && self.state == State::Normal && self.pools.iter().flatten().all(serving) {
            self.is_up = true;
            log::notice(format_args!("ready to handle connections"));
            let pools = self.pools.iter().flatten();
            self.notifier
                .ready(pools.map(|pool| pool.snapshot().requests).sum());
            if self.failure.is_some() || self.pools.iter().flatten().any(Pool::has_failed) {
                self.notifier.reload_failed();
            }
            if let Some(ready) = self.ready.take() {
                // Nobody waits for it any more if that fails.
                let _ = File::from(ready).write_all(b"1");
            }
            if std::mem::take(&mut self.reload_again) {
                self.begin_reload();
            }
        }
        if self.is_up {
            self.pools.iter_mut().flatten().for_each(Pool::launch);
        }
    }

    /// Waits a moment until what worker processes have said is in the log, so that it stands before what we say next.
    async fn flush_output(&mut self) -> Result<(), SupervisorError> {
        let pools = self.pools.iter().flatten();
        let mut expected: usize = pools.map(|pool| pool.ask(&ToPool::Flush)).sum();
        let patience = Instant::now() + FLUSH_TIMEOUT;
        while expected > 0 {
            let event = tokio::time::timeout_at(patience.into(), self.events.recv()).await;
            let Ok(Some(event)) = event else { break };
            match event.kind {
                EventKind::Message {
                    message: FromPool::Flushed,
                    ..
                } => expected -= 1,
                _ => self.on_event(event)?,
            }
        }
        Ok(())
    }

    fn reopen_logs(&mut self) {
        let error_log = log::reopen();
        let pools = self.pools.iter_mut().flatten();
        let results: Vec<_> = pools
            .filter_map(|pool| pool.reopen_logs(error_log))
            .collect();
        if results.contains(&false) {
            log::error(format_args!("unable to re-opened access log file"));
        } else if !results.is_empty() {
            log::notice(format_args!("access log file re-opened"));
        }
    }

    fn all_gone(&self) -> bool {
        self.pools.iter().flatten().all(Pool::is_gone)
    }

    /// Leaves nothing behind: no process, and, by dropping the pools, no socket file.
    async fn end(mut self) {
        if let Some(check) = &mut self.check {
            check.give_up();
        }
        self.pools.iter_mut().flatten().for_each(Pool::kill);
        let patience = Instant::now() + Duration::from_secs(1);
        // Worker processes whose pool process had to be killed die by the kernel's hand, a moment later.
        while !self.pools.iter().flatten().all(Pool::is_buried) && Instant::now() < patience {
            // All errors are reasons to end, which we are doing.
            let _ = self.reap();
            while let Ok(event) = self.events.try_recv() {
                let _ = self.on_event(event);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.pools.iter().flatten().for_each(Pool::log_summary);
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// How often the listen queues are looked at, as php-fpm does.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

/// How long the supervisor waits for pool processes to log what their worker processes have said.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);
