//! The supervisor: owns the listening sockets and the scoreboard, keeps a pool process running, obeys signals.
//!
//! # Lifecycle
//!
//! ```text
//! bind ─► start pool process ─► Ready ─► Normal ──SIGTERM, SIGINT──────────► Terminating ─► all gone: exit 0
//!                  │                       │                                     ▲
//!      StartFailed: exit 78                └──SIGQUIT──► Finishing ──SIGTERM─────┘
//! ```
//!
//! Whatever way it ends, socket files are gone afterwards: it removes them itself, and when it is killed, its pool
//! processes do.

pub(crate) mod limits;
pub(crate) mod messages;
mod pool;
#[allow(unsafe_code)]
pub(crate) mod process;
mod signals;
pub(crate) mod sockets;

use std::io;
use std::time::{Duration, Instant};

use rustix::process::getpid;
use tokio::sync::mpsc;

use self::messages::{MessageError, ReplaceReason};
use self::pool::{Event, Pool};
use self::process::{raise_descriptor_limit, reap};
use self::signals::{Signal, Signals};
use self::sockets::SocketError;
use crate::config::PoolConfig;
use crate::log;

/// Serves until told to stop. `processes` is the number of worker processes that share `config.max_children` PHP workers: as
/// many on NTS, one on ZTS.
///
/// Call it on the main thread (its death is what takes pool processes along) while there is no other.
pub(crate) fn run(config: PoolConfig, processes: u32) -> Result<(), SupervisorError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(SupervisorError::Setup)?;
    runtime.block_on(supervise(config, processes))
}

/// Why the supervisor ended other than by a signal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SupervisorError {
    /// A listening socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A system call that should not fail.
    #[error("the supervisor cannot start: {0}")]
    Setup(#[source] io::Error),
    /// The program could not be executed again.
    #[error("the pool process cannot be started: {0}")]
    Spawn(#[source] io::Error),
    /// The pool process could not be told what to do.
    #[error("the pool process cannot be started: {0}")]
    Message(#[from] MessageError),
    /// PHP or the worker processes did not start; nothing was served.
    #[error("{0}")]
    StartFailed(String),
    /// The pool process ended before it was ready, without a word.
    #[error("the pool process exited {0} before it was ready")]
    DiedAtStart(String),
}

impl SupervisorError {
    /// The exit code that php-fpm has for it.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::Socket(_) | Self::StartFailed(_) => EXIT_CONFIG,
            Self::Setup(_) | Self::Spawn(_) | Self::Message(_) | Self::DiedAtStart(_) => {
                EXIT_SOFTWARE
            }
        }
    }
}

/// FPM_EXIT_CONFIG.
pub(crate) const EXIT_CONFIG: i32 = 78;

/// FPM_EXIT_SOFTWARE.
pub(crate) const EXIT_SOFTWARE: i32 = 70;

async fn supervise(config: PoolConfig, processes: u32) -> Result<(), SupervisorError> {
    // First, so that no signal finds a socket file that nobody would remove.
    let signals = Signals::new().map_err(SupervisorError::Setup)?;
    // Worker processes whose pool process was killed become our children: we see them end and settle their slots.
    rustix::process::set_child_subreaper(Some(getpid()))
        .map_err(|errno| SupervisorError::Setup(errno.into()))?;
    if let Err(error) = raise_descriptor_limit(config.limits.connections) {
        log::warning(format_args!(
            "the limit on descriptors cannot be raised: {error}"
        ));
    }
    let (sender, events) = mpsc::unbounded_channel();
    let mut pool = Pool::new(config, processes, sender)?;
    for address in pool.addresses() {
        log::notice(format_args!("listening at {address}"));
    }
    log::notice(format_args!("fpm is running, pid {}", getpid()));
    pool.start_generation()?;
    let mut supervisor = Supervisor {
        pool,
        state: State::Normal,
        signals,
        events,
    };
    let result = supervisor.run().await;
    supervisor.end().await;
    if result.is_ok() {
        log::notice(format_args!("exiting, bye-bye!"));
    }
    result
}

struct Supervisor {
    pool: Pool,
    state: State,
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
    async fn run(&mut self) -> Result<(), SupervisorError> {
        while self.state == State::Normal || !self.pool.is_gone() {
            let deadline = self.pool.deadline();
            tokio::select! {
                signal = self.signals.next() => self.on_signal(signal)?,
                Some(event) = self.events.recv() => self.pool.on_event(event)?,
                () = sleep_until(deadline) => self.pool.on_deadline()?,
            }
        }
        Ok(())
    }

    fn on_signal(&mut self, signal: Signal) -> Result<(), SupervisorError> {
        match signal {
            Signal::Terminate if self.state != State::Terminating => {
                log::notice(format_args!("Terminating ..."));
                self.state = State::Terminating;
                self.pool.stop();
            }
            Signal::Finish if self.state == State::Normal => {
                log::notice(format_args!("Finishing ..."));
                self.state = State::Finishing;
                self.pool.finish();
            }
            Signal::Reload if self.state == State::Normal => {
                log::notice(format_args!("Reloading in progress ..."));
                log::notice(format_args!(
                    "PHP is started anew; neither the command line nor the program file is read again (not supported yet)"
                ));
                self.pool.replace(ReplaceReason::Reload)?;
            }
            Signal::ReopenLogs => log::notice(format_args!(
                "no log file to reopen: the log is standard error"
            )),
            Signal::Child => self.reap()?,
            Signal::Terminate | Signal::Finish | Signal::Reload => {}
        }
        Ok(())
    }

    fn reap(&mut self) -> Result<(), SupervisorError> {
        while let Some((pid, exit)) = reap() {
            self.pool.on_exit(pid, exit)?;
        }
        Ok(())
    }

    /// Leaves nothing behind: no process, and, by dropping the pool, no socket file.
    async fn end(mut self) {
        self.pool.kill();
        let patience = Instant::now() + Duration::from_secs(1);
        // Worker processes whose pool process had to be killed die by the kernel's hand, a moment later.
        while !self.pool.is_buried() && Instant::now() < patience {
            // All errors are reasons to end, which we are doing.
            let _ = self.reap();
            while let Ok(event) = self.events.try_recv() {
                let _ = self.pool.on_event(event);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.pool.log_summary();
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
