//! What a worker process runs: sockets in front, PHP behind.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use rustix::event::{EventfdFlags, eventfd};
use signal_hook::consts::SIGQUIT;

use crate::config::{ListenAddress, PoolConfig, ProcessManager};
use crate::descriptor::{first_high, high_fd};
use crate::engine::{Engine, PhpThread, is_zts, php_version};
use crate::log::{self, AccessFormat, AccessLog, DEFAULT_ACCESS_FORMAT, LogFile, WorkerStderr};
use crate::scoreboard::{Scoreboard, Slot};
use crate::status::Pages;
use crate::supervisor::messages::{Channel, Received, ToWorker};
use crate::zygote::{Reports, WorkerLogs, WorkerMessage, WorkerProcess};

mod allowed_clients;
mod body;
mod books;
mod connection;
mod crew;
mod driver;
mod exchange;
mod handover;
mod helper;
mod job;
mod opcache_watch;
mod output;
#[cfg(test)]
mod properties;
mod reactor;
mod relay;
mod script;
mod slow_log;
mod status_line;
mod time_limits;
mod watch;

pub(crate) use allowed_clients::AllowedClients;
use books::Books;
use crew::Crew;
pub(crate) use driver::PHP_STACK;
use reactor::{Control, QueueRules};
use slow_log::SlowLog;
use time_limits::{Hooks, TimeLimiter};

/// Serves until this worker process is to end; returns its exit status.
pub(crate) fn run(worker: WorkerProcess<Arc<Engine>>) -> i32 {
    let name = worker.config.name.clone();
    match serve(worker) {
        Ok(status) => status,
        Err(error) => {
            log::error(format_args!(
                "[pool {name}] a worker process cannot start: {error}"
            ));
            1
        }
    }
}

fn serve(worker: WorkerProcess<Arc<Engine>>) -> Result<i32, Box<dyn std::error::Error>> {
    // The pool's own directory, by now.
    worker.engine.stay_here();
    apply_settings(&worker.engine, &worker.config);
    worker.engine.after_fork(u32::try_from(first_high()).ok());
    worker.engine.keep_memory();
    worker.engine.watch_for_long_requests();
    worker
        .engine
        .report_crashes(worker.crash_log, &worker.config.name);
    let mut settings = script::ScriptSettings::from(worker.engine.cgi_settings());
    settings
        .limit_extensions
        .clone_from(&worker.config.limit_extensions);
    let pages = Arc::new(Pages::new(
        &worker.config,
        Arc::clone(&worker.scoreboard),
        php_version(),
        worker.engine.exposes_php(),
    ));
    let quit = quit_signal()?;
    if is_zts() {
        // Those that are there from the start; it may have as many as it was given room for.
        let first = Crew::at_start(&worker.config.pm, worker.threads);
        worker.slot.set_threads(first);
    }
    // `serving` wants the worker whole, so it is said before its parts are given away.
    worker.serving();
    let WorkerProcess {
        config,
        threads,
        engine,
        scoreboard,
        slot,
        listeners,
        handover,
        lanes,
        lane,
        drain,
        reports,
        control,
        logs,
        stderr,
        supervisor,
        ..
    } = worker;
    let stderr = stderr.map(Arc::new);
    if let Some(stderr) = &stderr {
        // A worker process is made once.
        let _ = STDERR.set(Arc::clone(stderr));
    }
    let allowed = allowed_clients(&config);
    let access_log = access_log(&config, &logs, supervisor)?;
    let reports = Arc::new(reports);
    let limiter = limiter(&config, logs.slow.clone(), &slot, &scoreboard, &reports);
    let logs = Arc::new(logs);
    let control = Control {
        channel: control,
        receive: Box::new({
            let name = config.name.clone();
            move |channel, lanes| receive(channel, &logs, lanes, &name)
        }),
    };
    let wake = Arc::new(high_fd(eventfd(
        0,
        EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
    )?));
    let watch = Arc::new(watch::Watch::new()?);
    let waiting = {
        let (watch, wake) = (Arc::clone(&watch), Arc::clone(&wake));
        Arc::new(move |waits| {
            if watch.wait_for_body(waits) {
                reactor::wake(&wake);
            }
        })
    };
    let reactor = reactor::Reactor::new(reactor::Sources {
        pool: config.name.clone(),
        listeners,
        handover,
        lanes,
        lane,
        drain,
        quit,
        wake: Arc::clone(&wake),
        timer: watch.timer(),
        scoreboard: Arc::clone(&scoreboard),
        slot: slot.clone(),
        limits: config.limits.clone(),
        queue_rules: QueueRules::new(&config),
        access_log: access_log.clone(),
        capacity: config.max_children,
        allowed,
        control: Some(control),
        waiting,
    })?;
    let (sender, news) = crew::news();
    let driver = driver::Driver::new(
        reactor,
        watch,
        wake,
        reports,
        is_zts().then(|| sender.clone()),
        limiter,
        config.pm != ProcessManager::Static,
    );
    let pool = driver::Pool {
        name: &config.name,
        slot: &slot,
        settings: &settings,
        books: &|thread| {
            Books::new(
                slot.worker(thread),
                Arc::clone(&pages),
                access_log.as_ref(),
                stderr.clone(),
            )
        },
        shows_status: config.status.is_shown(),
        apply_settings: &|| {
            engine.apply_settings(&config.ini_settings);
        },
        max_requests: u64::from(config.max_requests) * u64::from(threads),
        requests: AtomicU64::new(0),
    };
    if !is_zts() {
        let mut php = PhpThread::startup_thread(&engine)?;
        return Ok(driver::run_alone(&driver, &mut php, &pool));
    }
    let crew = Crew {
        name: &config.name,
        engine: &engine,
        pool: &pool,
        scoreboard: &scoreboard,
        pm: config.pm.clone(),
        most: threads,
        driver: &driver,
        sender,
        news,
    };
    driver.spawn_helper()?;
    Ok(crew.run())
}

/// Makes the pool's `php_value`s and the like PHP's own on this thread.
fn apply_settings(engine: &Engine, config: &PoolConfig) {
    for name in engine.apply_settings(&config.ini_settings) {
        log::warning(format_args!(
            "[pool {}] unable to set php_value or php_admin_value '{name}': PHP has no such setting, or the extension cannot be \
             loaded",
            config.name
        ));
    }
}

/// Does what the pool process says; false if it will say no more.
fn receive(channel: &Channel, logs: &WorkerLogs, lanes: &mut Vec<u32>, pool: &str) -> bool {
    loop {
        match channel.receive() {
            Ok(Received::Message(ToWorker::ReopenLogs(which), descriptors)) => {
                if let Err(error) = logs.reopen(which, descriptors) {
                    log::error(format_args!(
                        "[pool {pool}] a log that was re-opened cannot be used: {error}"
                    ));
                }
            }
            Ok(Received::Message(ToWorker::TakeLane(lane), _)) => lanes.push(lane),
            Ok(Received::Nothing) => return true,
            Ok(Received::Closed) => return false,
            Err(error) => {
                log::error(format_args!(
                    "[pool {pool}] a worker process does not understand its pool process: {error}"
                ));
                return false;
            }
        }
    }
}

/// `listen.allowed_clients`, which is about TCP alone.
fn allowed_clients(config: &PoolConfig) -> Arc<AllowedClients> {
    let is_unix = |address: &ListenAddress| matches!(address, ListenAddress::Unix(_));
    let directive = config.socket.allowed_clients.as_deref();
    Arc::new(AllowedClients::of_pool(
        directive.filter(|_| !config.listen.iter().all(is_unix)),
    ))
}

fn access_log(
    config: &PoolConfig,
    logs: &WorkerLogs,
    supervisor: i32,
) -> Result<Option<Arc<AccessLog>>, String> {
    let Some(file) = &logs.access else {
        return Ok(None);
    };
    let format = config.access_format.as_deref();
    let format = AccessFormat::parse(format.unwrap_or(DEFAULT_ACCESS_FORMAT))?;
    let suppressed = &config.access_suppress_paths;
    let log = AccessLog::new(
        format,
        Arc::clone(file),
        suppressed,
        &config.name,
        supervisor,
    );
    Ok(Some(Arc::new(log)))
}

/// Takes what PHP says in this process.
pub(crate) fn log_php_message(message: &[u8], to_client: bool) -> Vec<u8> {
    books::log_php_message(STDERR.get().map(Arc::as_ref), message, to_client)
}

/// Says what php-fpm's worker processes say.
fn say(level: log::Level, message: &dyn std::fmt::Display) {
    books::say(STDERR.get().map(Arc::as_ref), level, message);
}

/// Standard error of this worker process, if it is read.
static STDERR: OnceLock<Arc<WorkerStderr>> = OnceLock::new();

/// What looks after `request_*_timeout`.
fn limiter(
    config: &PoolConfig,
    slowlog: Option<Arc<LogFile>>,
    slot: &Slot,
    scoreboard: &Arc<Scoreboard>,
    reports: &Arc<Reports>,
) -> Option<Arc<TimeLimiter>> {
    let slow_log = slowlog.map(|file| SlowLog::new(file, &config.name));
    let (slot, reports) = (slot.clone(), Arc::clone(reports));
    let hooks = Hooks {
        on_slow: Box::new({
            let scoreboard = Arc::clone(scoreboard);
            move || scoreboard.count_slow_request()
        }),
        on_stuck: Box::new(move || {
            if is_zts() {
                reports.send(WorkerMessage::ThreadStuck);
            }
        }),
        on_left: Box::new(move || slot.request_finished()),
    };
    TimeLimiter::new(&config.name, &config.time_limits, slow_log, hooks).map(Arc::new)
}

/// A descriptor that becomes readable when SIGQUIT comes.
fn quit_signal() -> std::io::Result<OwnedFd> {
    let (reader, writer) = UnixStream::pair()?;
    let writer = high_fd(OwnedFd::from(writer));
    signal_hook::low_level::pipe::register(SIGQUIT, UnixStream::from(writer))?;
    reader.set_nonblocking(true)?;
    Ok(high_fd(OwnedFd::from(reader)))
}
