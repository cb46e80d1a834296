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
//! Should the new program not be able to use the configuration after all, for it cannot listen where it should, say, it is executed
//! once more and goes on with the old one, which is in the memfd too ([`WayBack`]).

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use super::messages::Channel;
use super::process::Exit;
use super::sockets::{Copies, Export};
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
    until: Instant,
}

impl Check {
    /// Starts the program with `-t`.
    pub(super) fn start(program: &Program) -> io::Result<Self> {
        let output = File::from(memfd_create("fe-php-check", MemfdFlags::CLOEXEC)?);
        let mut command = program.command();
        command
            .arg("-t")
            .stdin(Stdio::null())
            // Preloading forks: all of it can be ended.
            .process_group(0)
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?);
        command.env(CHECK, "1");
        let activation = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
        for name in activation.into_iter().chain(super::notify::VARIABLES) {
            command.env_remove(name);
        }
        let child = command.spawn()?;
        Ok(Self {
            pid: Pid::from_child(&child),
            output,
            until: Instant::now() + CHECK_PATIENCE,
        })
    }

    /// When it has taken too long.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Ends it: what it says of the configuration does not matter any more, or it will say nothing.
    pub(super) fn give_up(&mut self) {
        log::debug(format_args!(
            "the check of the configuration (process {}) is ended",
            self.pid
        ));
        // Not reaped yet, so the number is its own. It may have ended all the same.
        let _ = kill_process_group(self.pid, Signal::KILL);
        // It is over when it has been reaped.
        self.until += CHECK_PATIENCE;
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// It has ended: whether the configuration can be used. Says so if not.
    pub(super) fn finish(mut self, exit: Exit) -> bool {
        if exit.code() == Some(0) {
            return true;
        }
        if exit.signal() == Some(libc::SIGKILL) {
            log::error(format_args!(
                "the new configuration cannot be used (its check was killed; it may take {} seconds, preloading included): the old \
                 one goes on serving",
                CHECK_PATIENCE.as_secs()
            ));
        } else {
            log::error(format_args!(
                "the new configuration cannot be used (its check exited {exit}): the old one goes on serving"
            ));
        }
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

/// How long a check may take. Module startup takes milliseconds, but a preload script may do anything.
const CHECK_PATIENCE: Duration = Duration::from_secs(120);

/// A pool that is handed down.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(super) name: String,
    /// None if this version does not understand it: then the pool can only go on with the new configuration, or end.
    pub(super) config: Option<(PoolConfig, Identity)>,
    /// It only finishes what runs: the configuration has it no more.
    pub(super) removed: bool,
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
    /// How long it has been finishing what runs.
    pub(super) draining_for: Duration,
}

/// All that is handed down.
#[derive(Debug, Default)]
pub(crate) struct HandedDown {
    /// The configuration that it served by; none if this version does not understand it.
    pub(crate) global: Option<GlobalConfig>,
    /// Pools, as far as this version understands them.
    pub(crate) pools: Vec<Handed>,
    /// Why it is to be served by again: the new configuration has been tried.
    pub(crate) failure: Option<String>,
    /// How to go back to it; none if that cannot be done, or has been.
    pub(crate) way_back: Option<WayBack>,
}

impl HandedDown {
    /// What it served by, if this version understands it.
    pub(crate) fn config(&self) -> Option<(GlobalConfig, Vec<PoolConfig>)> {
        let pools = self.pools.iter().filter(|pool| !pool.removed);
        let pools = pools.map(|pool| pool.config.as_ref().map(|(config, _)| config.clone()));
        Some((self.global.clone()?, pools.collect::<Option<_>>()?))
    }
}

/// What was handed down once more, kept until this program serves: should it not be able to by the new configuration, it is
/// executed again, to serve by the old one. Nothing has stopped until then.
#[derive(Debug)]
pub(crate) struct WayBack {
    /// With the numbers of `descriptors`.
    record: Record,
    descriptors: Vec<OwnedFd>,
    sockets: Copies,
}

impl WayBack {
    fn new(record: &Record) -> io::Result<Self> {
        let mut descriptors = Vec::new();
        let mut copy = |number: &mut RawFd| -> io::Result<()> {
            // SAFETY: only asks and copies; if nothing is open under this number, it is told so.
            let descriptor = unsafe { BorrowedFd::borrow_raw(*number) };
            let descriptor = high_fd(descriptor.try_clone_to_owned()?);
            *number = descriptor.as_raw_fd();
            descriptors.push(descriptor);
            Ok(())
        };
        let mut record = record.clone();
        for pool in &mut record.pools {
            copy(&mut pool.scoreboard)?;
            copy(&mut pool.handover.0)?;
            copy(&mut pool.handover.1)?;
            for generation in &mut pool.generations {
                copy(&mut generation.control)?;
            }
        }
        Ok(Self {
            record,
            descriptors,
            sockets: Copies::make()?,
        })
    }

    /// Goes back, for this reason. Returns only if that fails.
    pub(crate) fn take(mut self, program: &Program, why: &dyn std::fmt::Display) -> io::Error {
        self.record.failure = Some(why.to_string());
        let descriptors: Vec<BorrowedFd<'_>> = self.descriptors.iter().map(AsFd::as_fd).collect();
        let result = become_anew(program, &self.record, &descriptors, |command| {
            Ok(self.sockets.apply(command)?)
        });
        match result {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }
}

/// What is written down of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// Parsed last: another version may not understand it.
    global: serde_json::Value,
    pools: Vec<PoolRecord>,
    /// See [`HandedDown::failure`].
    #[serde(default)]
    failure: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct PoolRecord {
    #[serde(default)]
    name: String,
    #[serde(default)]
    removed: bool,
    /// Parsed last: another version may not understand it.
    config: serde_json::Value,
    identity: serde_json::Value,
    processes: u32,
    last_generation: u32,
    scoreboard: RawFd,
    handover: (RawFd, RawFd),
    generations: Vec<GenerationRecord>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct GenerationRecord {
    number: u32,
    pid: i32,
    control: RawFd,
    ready: bool,
    #[serde(default)]
    starting: bool,
    #[serde(default)]
    draining_for: Duration,
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
        failure: None,
    };
    become_anew(program, &record, &descriptors, |command| {
        sockets.apply(command);
        Ok(())
    })
}

/// Executes `program` with what `record` and its `descriptors` say, and the sockets that `apply` tells it of.
fn become_anew(
    program: &Program,
    record: &Record,
    descriptors: &[BorrowedFd<'_>],
    apply: impl FnOnce(&mut Command) -> io::Result<()>,
) -> io::Result<std::convert::Infallible> {
    let mut memory = File::from(high_fd(memfd_create("fe-php-reload", MemfdFlags::CLOEXEC)?));
    memory.write_all(&serde_json::to_vec(&record)?)?;
    memory.rewind()?;
    let descriptors = [descriptors, &[memory.as_fd()]].concat();
    let mut command = program.command();
    apply(&mut command)?;
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
    log::take_standard_error_again();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    for descriptor in &descriptors {
        // Cannot fail on an open descriptor.
        let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
    }
    Err(error)
}

impl Handed {
    fn record<'a>(&'a self, descriptors: &mut Vec<BorrowedFd<'a>>) -> io::Result<PoolRecord> {
        let mut number = |descriptor: BorrowedFd<'a>| {
            descriptors.push(descriptor);
            descriptor.as_raw_fd()
        };
        let generations = self.generations.iter().map(|generation| GenerationRecord {
            number: generation.number,
            pid: generation.pid.as_raw_nonzero().get(),
            control: number(generation.control.as_fd()),
            ready: generation.ready,
            starting: generation.starting,
            draining_for: generation.draining_for,
        });
        let generations = generations.collect();
        let config = self.config.as_ref().map(|(config, _)| config);
        let identity = self.config.as_ref().map(|(_, identity)| identity);
        Ok(PoolRecord {
            name: self.name.clone(),
            removed: self.removed,
            config: serde_json::to_value(config)?,
            identity: serde_json::to_value(identity)?,
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

/// Says that the program is to check a configuration for a reload.
pub(crate) const CHECK: &str = "FE_PHP_CHECK";

/// Whether this process is to forget that it was reloaded, for the programs that it starts.
pub(crate) const RELOAD: &str = "FE_PHP_RELOAD";

fn read(number: RawFd) -> io::Result<HandedDown> {
    let mut text = Vec::new();
    File::from(take(number)?).read_to_end(&mut text)?;
    let record: Record = serde_json::from_slice(&text)?;
    // Before the descriptors are taken.
    let way_back = match record.failure {
        None => WayBack::new(&record).map(Some)?,
        Some(_) => None,
    };
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
                draining_for: generation.draining_for,
            });
        }
        let scoreboard = take(pool.scoreboard)?;
        let handover = (take(pool.handover.0)?, take(pool.handover.1)?);
        // Another version may have other directives.
        let config = serde_json::from_value::<PoolConfig>(pool.config).ok();
        let identity = serde_json::from_value::<Identity>(pool.identity).ok();
        pools.push(Handed {
            name: pool.name,
            removed: pool.removed,
            config: config.zip(identity),
            processes: pool.processes,
            last_generation: pool.last_generation,
            scoreboard,
            handover,
            generations,
        });
    }
    let mut handed = HandedDown {
        global: serde_json::from_value(record.global).ok(),
        pools,
        failure: record.failure,
        way_back: None,
    };
    handed.way_back = way_back.filter(|_| handed.config().is_some());
    Ok(handed)
}

/// Takes a descriptor that was left to us.
fn take(number: RawFd) -> io::Result<OwnedFd> {
    if number < 3 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: only asks; if nothing is open under this number, it is told so.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_getfd(descriptor)?;
    // SAFETY: it is open, and was left to this program to own, once each.
    Ok(high_fd(unsafe { OwnedFd::from_raw_fd(number) }))
}
