//! A server process under test with all its descendants, found through /proc.

use std::fs::{self, File};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::log::Log;
use super::{DEADLINE, holds_within};

/// A process that was started by a test; killed on drop, and then checked to have left no child behind.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: Log,
    exited: Option<ExitStatus>,
}

/// A process by number and start time, so that a reused number is not mistaken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The process number.
    pub(crate) pid: i32,
    /// Its parent.
    pub(crate) parent: i32,
    started: u64,
    /// It has ended, and nobody has asked how.
    pub(crate) zombie: bool,
}

impl Process {
    /// Starts `command` with its output going to `log`.
    pub(crate) fn start(command: &mut Command, log: Log) -> Self {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log.path())
            .unwrap();
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            child,
            log,
            exited: None,
        }
    }

    /// Waits for `text` in the log; panics when the process ends before it comes.
    pub(crate) fn expect_started(&mut self, text: &str) {
        let ready = holds_within(DEADLINE, || self.log.count(text) > 0 || self.has_exited());
        let status = self.exited;
        assert!(
            ready && self.log.count(text) > 0,
            "no {text:?} in the log ({status:?}):\n{}",
            self.log.text()
        );
    }

    /// The process number.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Sends a signal to the process that was started.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// All processes below this one.
    pub(crate) fn descendants(&self) -> Vec<Identity> {
        let all = all_processes();
        let mut found: Vec<Identity> = Vec::new();
        let mut parents = vec![self.pid()];
        while let Some(parent) = parents.pop() {
            for process in all.iter().filter(|process| process.parent == parent) {
                found.push(*process);
                parents.push(process.pid);
            }
        }
        found
    }

    /// The processes below this one that have no child themselves: the worker processes, as long as no script has
    /// started a program.
    pub(crate) fn worker_pids(&self) -> Vec<i32> {
        let descendants = self.descendants();
        let is_leaf =
            |process: &&Identity| !descendants.iter().any(|other| other.parent == process.pid);
        let mut pids: Vec<i32> = descendants
            .iter()
            .filter(is_leaf)
            .filter(|process| !process.zombie)
            .map(|process| process.pid)
            .collect();
        pids.sort_unstable();
        pids
    }

    /// Whether it is over.
    pub(crate) fn has_exited(&mut self) -> bool {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().unwrap();
        }
        self.exited.is_some()
    }

    /// Waits until it is over.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        let over = holds_within(DEADLINE, || self.has_exited());
        assert!(
            over,
            "still running after {DEADLINE:?}:\n{}",
            self.log.text()
        );
        self.exited.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let before = self.descendants();
        if !self.has_exited() {
            self.signal(Signal::TERM);
        }
        let ended = holds_within(DEADLINE, || self.has_exited());
        if !ended {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        let left = |process: &Identity| process.is_running();
        let clean = holds_within(Duration::from_secs(20), || !before.iter().any(left));
        let leaked: Vec<Identity> = before.into_iter().filter(left).collect();
        for process in &leaked {
            kill(process.pid, Signal::KILL);
        }
        if !std::thread::panicking() {
            assert!(
                ended,
                "SIGTERM does not end the server:\n{}",
                self.log.text()
            );
            assert!(
                clean,
                "the server left {leaked:?} running:\n{}",
                self.log.text()
            );
        }
    }
}

impl Identity {
    /// The process with this number now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; after it: state, parent, …, start time as field 22.
        let fields: Vec<&str> = stat[stat.rfind(')')? + 1..]
            .split_ascii_whitespace()
            .collect();
        let (parent, started) = (fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?);
        Some(Self {
            pid,
            parent,
            started,
            zombie: *fields.first()? == "Z",
        })
    }

    /// Whether it is still there and not merely waiting to be reaped.
    pub(crate) fn is_running(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now.started == self.started && !now.zombie)
    }
}

/// Sends `signal` to `pid`, which may be gone already.
pub(crate) fn kill(pid: i32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
}

fn all_processes() -> Vec<Identity> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Identity::of).collect()
}
