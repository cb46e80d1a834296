//! Reload (SIGUSR2): this program is executed anew, in the same process, with the same sockets, scoreboards and children.
//!
//! ```text
//! old program   check: run the program with -t ── fails ─► say why, go on as before
//!                  │ passes
//!               exec: everything that lives on is described in a memfd and stays open
//!                  ▼
//! new program   takes it over, reads the configuration, starts a generation of each pool beside the old ones
//!                  │ it serves
//!               the old generations finish their requests, hand over their connections, and exit
//! ```
//!
//! Executing it anew is what makes a reload pick up an upgraded program. Nothing stops meanwhile: worker processes go on
//! accepting connections and answering requests through all of this.
//!
//! Should the new program not be able to use the configuration after all, it goes on with the old one, which is in the
//! memfd too.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::messages::Channel;
use super::process::{Exit, kill};
use super::sockets::Export;
use crate::config::{GlobalConfig, PoolConfig};
use crate::descriptor::high_fd;
use crate::log;
use crate::zygote::Identity;

/// How this program was started, to do it again.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// The path it was started by, made absolute while the working directory was the same.
    pub(crate) path: PathBuf,
    /// Arguments; the first is its name.
    pub(crate) arguments: Vec<OsString>,
}

impl Program {
    /// The one that runs.
    pub(crate) fn current() -> Self {
        let arguments: Vec<OsString> = env::args_os().collect();
        let name = PathBuf::from(arguments.first().cloned().unwrap_or_default());
        let path = if name.components().count() > 1 {
            std::path::absolute(&name).unwrap_or(name)
        } else {
            // Found by PATH. If an upgrade replaces the file, the name that this had leads to the new one.
            find(&name).unwrap_or_else(|| "/proc/self/exe".into())
        };
        Self { path, arguments }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if let [name, rest @ ..] = self.arguments.as_slice() {
            command.arg0(name).args(rest);
        }
        command
    }

    /// As php-fpm shows it: `execvp("php-fpm", {"php-fpm", "-F"})`.
    fn shown(&self) -> String {
        let arguments: Vec<String> = self
            .arguments
            .iter()
            .map(|argument| format!("\"{}\"", argument.display()))
            .collect();
        let name = arguments.first().cloned().unwrap_or_default();
        format!("execvp({name}, {{{}}})", arguments.join(", "))
    }
}

fn find(name: &std::path::Path) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// The check of a configuration, which runs beside us.
#[derive(Debug)]
pub(super) struct Check {
    pid: Pid,
    output: File,
}

impl Check {
    /// Starts the program with `-t`.
    pub(super) fn start(program: &Program) -> io::Result<Self> {
        let output = File::from(memfd_create("fe-php-check", MemfdFlags::CLOEXEC)?);
        let mut command = program.command();
        command
            .arg("-t")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?);
        let activation = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
        for name in activation.into_iter().chain(super::notify::VARIABLES) {
            command.env_remove(name);
        }
        let child = command.spawn()?;
        Ok(Self {
            pid: Pid::from_child(&child),
            output,
        })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// It has ended: whether the configuration can be used. Says so if not.
    pub(super) fn finish(mut self, exit: Exit) -> bool {
        if exit.code() == Some(0) {
            return true;
        }
        log::error(format_args!(
            "the new configuration cannot be used (its check exited {exit}): the old one goes on serving"
        ));
        let mut text = Vec::new();
        let read = self
            .output
            .rewind()
            .and_then(|()| self.output.read_to_end(&mut text));
        if let Err(error) = read {
            log::error(format_args!("the check's output cannot be read: {error}"));
        }
        for line in String::from_utf8_lossy(&text).lines() {
            log::error(format_args!("check: {line}"));
        }
        false
    }
}

/// A pool that is handed down.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(super) config: PoolConfig,
    pub(super) identity: Identity,
    pub(super) processes: u32,
    pub(super) last_generation: u32,
    pub(super) scoreboard: OwnedFd,
    pub(super) handover: (OwnedFd, OwnedFd),
    pub(super) generations: Vec<HandedGeneration>,
}

/// One of its generations.
#[derive(Debug)]
pub(super) struct HandedGeneration {
    pub(super) number: u32,
    pub(super) pid: Pid,
    pub(super) control: Channel,
    pub(super) ready: bool,
    /// It is not ready yet, rather than not any more.
    pub(super) starting: bool,
}

/// All that is handed down.
#[derive(Debug, Default)]
pub(crate) struct HandedDown {
    /// The configuration that it served by; none if this version does not understand it.
    pub(crate) global: Option<GlobalConfig>,
    /// Pools, as far as this version understands them.
    pub(crate) pools: Vec<Handed>,
}

impl HandedDown {
    /// Configurations of the pools that it served.
    pub(crate) fn configs(&self) -> Vec<PoolConfig> {
        self.pools.iter().map(|pool| pool.config.clone()).collect()
    }
}

/// What is written down of them.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Parsed last: another version may not understand it.
    global: serde_json::Value,
    pools: Vec<PoolRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PoolRecord {
    /// Parsed last: another version may not understand it.
    config: serde_json::Value,
    identity: serde_json::Value,
    processes: u32,
    last_generation: u32,
    scoreboard: RawFd,
    handover: (RawFd, RawFd),
    generations: Vec<GenerationRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct GenerationRecord {
    number: u32,
    pid: i32,
    control: RawFd,
    ready: bool,
    #[serde(default)]
    starting: bool,
}

/// Executes `program` in place of this one. Returns only if that fails: then all is as it was.
pub(super) fn execute(
    program: &Program,
    global: &GlobalConfig,
    pools: &[Handed],
    sockets: &Export<'_>,
) -> io::Error {
    log::notice(format_args!("reloading: {}", program.shown()));
    match hand_over(program, global, pools, sockets) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn hand_over(
    program: &Program,
    global: &GlobalConfig,
    pools: &[Handed],
    sockets: &Export<'_>,
) -> io::Result<std::convert::Infallible> {
    let mut descriptors = Vec::new();
    let record = Record {
        global: serde_json::to_value(global)?,
        pools: pools
            .iter()
            .map(|pool| pool.record(&mut descriptors))
            .collect::<io::Result<_>>()?,
    };
    let mut memory = File::from(high_fd(memfd_create("fe-php-reload", MemfdFlags::CLOEXEC)?));
    memory.write_all(&serde_json::to_vec(&record)?)?;
    memory.rewind()?;
    descriptors.push(memory.as_fd());
    let mut command = program.command();
    sockets.apply(&mut command);
    command.env(RELOAD, memory.as_raw_fd().to_string());
    for descriptor in &descriptors {
        fcntl_setfd(descriptor, FdFlags::empty())?;
    }
    // A signal that comes before the new program listens would kill it; blocked, it waits.
    let mut before = SigSet::empty();
    sigprocmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::all()),
        Some(&mut before),
    )?;
    if let Err(error) = log::restore_standard_error() {
        log::warning(format_args!("standard error cannot be restored: {error}"));
    }
    let error = command.exec();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    for descriptor in &descriptors {
        // Cannot fail on an open descriptor.
        let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
    }
    Err(error)
}

impl Handed {
    pub(super) fn name(&self) -> &str {
        &self.config.name
    }

    fn record<'a>(
        &'a self,
        descriptors: &mut Vec<std::os::fd::BorrowedFd<'a>>,
    ) -> io::Result<PoolRecord> {
        let mut number = |descriptor: std::os::fd::BorrowedFd<'a>| {
            descriptors.push(descriptor);
            descriptor.as_raw_fd()
        };
        let generations = self.generations.iter().map(|generation| GenerationRecord {
            number: generation.number,
            pid: generation.pid.as_raw_nonzero().get(),
            control: number(generation.control.as_fd()),
            ready: generation.ready,
            starting: generation.starting,
        });
        let generations = generations.collect();
        Ok(PoolRecord {
            config: serde_json::to_value(&self.config)?,
            identity: serde_json::to_value(&self.identity)?,
            processes: self.processes,
            last_generation: self.last_generation,
            scoreboard: number(self.scoreboard.as_fd()),
            handover: (
                number(self.handover.0.as_fd()),
                number(self.handover.1.as_fd()),
            ),
            generations,
        })
    }
}

/// What the program that ran in this process before has handed down; none if there was no such program. To be called once,
/// at the start.
pub(crate) fn receive() -> Option<HandedDown> {
    let number: RawFd = env::var(RELOAD).ok()?.parse().ok()?;
    let handed = read(number).unwrap_or_else(|error| {
        log::error(format_args!(
            "what the program before the reload has handed down cannot be used: {error}"
        ));
        HandedDown::default()
    });
    Some(handed)
}

/// Lets signals come again that [`execute`] has blocked.
pub(super) fn unblock_signals() -> io::Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// Whether this process is to forget that it was reloaded, for the programs that it starts.
pub(crate) const RELOAD: &str = "FE_PHP_RELOAD";

fn read(number: RawFd) -> io::Result<HandedDown> {
    let mut text = Vec::new();
    File::from(take(number)?).read_to_end(&mut text)?;
    let record: Record = serde_json::from_slice(&text)?;
    let mut pools = Vec::new();
    for pool in record.pools {
        let mut generations = Vec::new();
        for generation in &pool.generations {
            let Some(pid) = Pid::from_raw(generation.pid) else {
                continue;
            };
            generations.push(HandedGeneration {
                number: generation.number,
                pid,
                control: Channel::from_socket(take(generation.control)?),
                ready: generation.ready,
                starting: generation.starting,
            });
        }
        let scoreboard = take(pool.scoreboard)?;
        let handover = (take(pool.handover.0)?, take(pool.handover.1)?);
        let config = serde_json::from_value::<PoolConfig>(pool.config);
        let identity = serde_json::from_value::<Identity>(pool.identity);
        let (Ok(config), Ok(identity)) = (config, identity) else {
            // Of a version with other directives. Its workers finish.
            for generation in generations {
                kill(generation.pid, Signal::QUIT);
            }
            log::warning(format_args!(
                "a pool of the program before the reload is not understood; its workers finish without handing over connections"
            ));
            continue;
        };
        pools.push(Handed {
            config,
            identity,
            processes: pool.processes,
            last_generation: pool.last_generation,
            scoreboard,
            handover,
            generations,
        });
    }
    Ok(HandedDown {
        global: serde_json::from_value(record.global).ok(),
        pools,
    })
}

/// Takes a descriptor that was left to us.
fn take(number: RawFd) -> io::Result<OwnedFd> {
    if number < 3 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: only asks; if nothing is open under this number, it is told so.
    let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    fcntl_getfd(descriptor)?;
    // SAFETY: it is open, and was left to this program to own, once each.
    Ok(high_fd(unsafe { OwnedFd::from_raw_fd(number) }))
}
