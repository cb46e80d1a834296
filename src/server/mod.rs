//! What a worker process runs: sockets in front, PHP behind.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use signal_hook::consts::SIGQUIT;

use crate::descriptor::{first_high, high_fd};
use crate::engine::{Engine, PhpThread, is_zts};
use crate::log;
use crate::zygote::{WorkerMessage, WorkerProcess};

mod body;
mod connection;
mod driver;
mod exchange;
mod handover;
mod job;
mod output;
mod reactor;
mod relay;
mod script;
mod status_line;

pub(crate) use driver::PHP_STACK;

/// Serves until this worker process is to end; returns its exit status.
pub(crate) fn run(worker: WorkerProcess<Arc<Engine>>) -> i32 {
    match serve(worker) {
        Ok(status) => status,
        Err(error) => {
            log::error(format_args!("a worker process cannot start: {error}"));
            1
        }
    }
}

fn serve(worker: WorkerProcess<Arc<Engine>>) -> Result<i32, Box<dyn std::error::Error>> {
    worker.engine.clear_environment();
    worker.engine.after_fork(u32::try_from(first_high()).ok());
    worker.engine.report_crashes(2, &worker.config.name);
    let wake = Arc::new(high_fd(eventfd(
        0,
        EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
    )?));
    let settings = script::ScriptSettings::from(worker.engine.cgi_settings());
    let helper = Arc::new(driver::HelperSlot::default());
    let before_waiting: driver::Alarm = if is_zts() {
        Arc::new(|| ())
    } else {
        let helper = Arc::clone(&helper);
        Arc::new(move || helper.alarm())
    };
    // `serving` wants the worker whole, so it is said before its parts are given away.
    let quit = quit_signal()?;
    let slot = worker.slot.clone();
    worker.serving();
    let WorkerProcess {
        config,
        threads,
        engine,
        scoreboard,
        listeners,
        handover,
        drain,
        reports,
        ..
    } = worker;
    let reactor = reactor::Reactor::new(reactor::Sources {
        listeners,
        handover_send: handover.send,
        handover_receive: handover.receive,
        drain,
        quit,
        wake: Arc::clone(&wake),
        scoreboard,
        slot: slot.clone(),
        limits: config.limits.clone(),
        capacity: threads,
        siblings: !is_zts(),
        before_waiting,
    })?;
    let pool = driver::Pool {
        slot: &slot,
        settings: &settings,
        limits: &config.limits,
    };
    if is_zts() {
        let on_pending = || reports.send(WorkerMessage::OpcacheRestartPending);
        Ok(driver::run_threads(
            reactor,
            &wake,
            &engine,
            threads,
            &pool,
            &on_pending,
        ))
    } else {
        let php = PhpThread::startup_thread(&engine)?;
        Ok(driver::run_inline(reactor, wake, &helper, php, &pool))
    }
}

/// A descriptor that becomes readable when SIGQUIT comes.
fn quit_signal() -> std::io::Result<OwnedFd> {
    let (reader, writer) = UnixStream::pair()?;
    let writer = high_fd(OwnedFd::from(writer));
    signal_hook::low_level::pipe::register(SIGQUIT, UnixStream::from(writer))?;
    reader.set_nonblocking(true)?;
    Ok(high_fd(OwnedFd::from(reader)))
}
