//! Processes as the operating system sees them: starting a pool process, and how a process ended.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{
    Pid, Resource, Signal, WaitOptions, WaitStatus, getrlimit, kill_process, setrlimit, wait,
    waitpid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::messages::Channel;
use crate::descriptor::high_fd;

/// The argument that makes this program a pool process; its control socket is its standard input.
pub(crate) const POOL_PROCESS: &str = "pool-process";

/// Starts a pool process: this very program in a fresh process, whatever has become of its file since.
///
/// It has a process group of its own, so that Ctrl-C reaches the supervisor only, which then does things in order.
pub(crate) fn spawn_pool_process(pool: &str, control: OwnedFd) -> io::Result<Pid> {
    // The pool process itself forgets what of the environment is ours (zygote/fork.rs): a changed one would be sorted.
    let child = Command::new("/proc/self/exe")
        .arg0(format!("fe-php: pool {pool}"))
        .arg(POOL_PROCESS)
        .stdin(Stdio::from(control))
        // As under php-fpm, whose workers' standard output leads nowhere either.
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()?;
    // Dropping a `Child` neither kills nor reaps it; `reap` does.
    Ok(Pid::from_child(&child))
}

/// Goes on in the background, in a child of a session of its own. What started this process waits until the child is ready,
/// which it says by a byte in the pipe that is returned here, and exits.
///
/// To be called on the main thread while there is no other.
pub(crate) fn daemonize() -> io::Result<OwnedFd> {
    let (mut reader, writer) = io::pipe()?;
    // SAFETY: this process has a single thread, so the child may do whatever its parent may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(reader);
            rustix::process::setsid()?;
            let null = std::fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/null")?;
            rustix::stdio::dup2_stdin(&null)?;
            rustix::stdio::dup2_stdout(&null)?;
            Ok(high_fd(writer.into()))
        }
        _ => {
            drop(writer);
            let mut byte = [0];
            let is_ready = io::Read::read(&mut reader, &mut byte).is_ok_and(|length| length == 1);
            let status = if is_ready { 0 } else { super::EXIT_SOFTWARE };
            if !is_ready {
                // It has said that to its log, which standard error was not any more.
                let text = "the server did not start; its error log says why\n";
                let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
            }
            // SAFETY: no condition; it does not return. Nothing of the child's may be undone here.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Makes the runtime watch a control socket for messages.
pub(crate) fn watch(control: Channel) -> io::Result<AsyncFd<Channel>> {
    // SAFETY: a `Channel` owns its descriptor and never changes it, so it stays open and the same until it is dropped,
    // which `AsyncFd` does after deregistration.
    Ok(unsafe { AsyncFd::register_with_interest(control, Interest::READABLE) }?)
}

/// Makes the runtime watch a listening socket for connections.
pub(super) fn watch_listener(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open and the same until it is dropped, which `AsyncFd` does after deregistration.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

/// The next process that has ended, child or adopted: the supervisor adopts worker processes whose pool process died.
pub(crate) fn reap() -> Option<(Pid, Exit)> {
    let ended = super::messages::retry(|| wait(WaitOptions::NOHANG));
    ended
        .ok()
        .flatten()
        .map(|(pid, status)| (pid, Exit(status)))
}

/// Waits for the end of a child.
pub(crate) fn wait_for(child: Pid) -> io::Result<Exit> {
    let ended = super::messages::retry(|| waitpid(Some(child), WaitOptions::empty()))?;
    let (_, status) = ended.ok_or_else(|| io::Error::other("the child has not ended"))?;
    Ok(Exit(status))
}

/// Kills a process that has not been reaped yet, so the number is still its own.
pub(crate) fn kill(pid: Pid, signal: Signal) {
    // It may be a zombie, and that is all right.
    let _ = kill_process(pid, signal);
}

/// Raises the soft limit on descriptors to the hard one, or to what is enough for `connections`: programs that scripts
/// start inherit it, and some of them close every possible descriptor one by one.
pub(crate) fn raise_descriptor_limit(connections: u32) -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    let enough = ENOUGH.max(u64::from(connections) + 8192);
    let wanted = limit.maximum.map_or(enough, |maximum| maximum.min(enough));
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(())
}

/// How a process ended; displays as php-fpm says it: `with code 1`, `on signal 11 (SIGSEGV - core dumped)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exit(WaitStatus);

impl Exit {
    pub(crate) fn code(self) -> Option<i32> {
        self.0.exit_status()
    }

    pub(crate) fn signal(self) -> Option<i32> {
        self.0.terminating_signal()
    }

    /// Whether nothing can have been lost: exit code 0, or SIGQUIT, as php-fpm judges it.
    pub(crate) fn is_clean(self) -> bool {
        self.code() == Some(0) || self.signal() == Some(libc::SIGQUIT)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.signal() {
            Some(signal) => {
                let core = if libc::WCOREDUMP(self.0.as_raw()) {
                    " - core dumped"
                } else {
                    ""
                };
                write!(f, "on signal {signal} ({}{core})", signal_name(signal))
            }
            None => write!(f, "with code {}", self.code().unwrap_or(0)),
        }
    }
}

/// `SIGSEGV` for 11; empty where php-fpm has no name either.
pub(crate) fn signal_name(signal: i32) -> &'static str {
    SIGNALS
        .iter()
        .find(|(number, _)| *number == signal)
        .map_or("", |(_, name)| name)
}

const SIGNALS: [(i32, &str); 31] = [
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGINT, "SIGINT"),
    (libc::SIGQUIT, "SIGQUIT"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGTRAP, "SIGTRAP"),
    (libc::SIGABRT, "SIGABRT"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGKILL, "SIGKILL"),
    (libc::SIGUSR1, "SIGUSR1"),
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGUSR2, "SIGUSR2"),
    (libc::SIGPIPE, "SIGPIPE"),
    (libc::SIGALRM, "SIGALRM"),
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGSTKFLT, "SIGSTKFLT"),
    (libc::SIGCHLD, "SIGCHLD"),
    (libc::SIGCONT, "SIGCONT"),
    (libc::SIGSTOP, "SIGSTOP"),
    (libc::SIGTSTP, "SIGTSTP"),
    (libc::SIGTTIN, "SIGTTIN"),
    (libc::SIGTTOU, "SIGTTOU"),
    (libc::SIGURG, "SIGURG"),
    (libc::SIGXCPU, "SIGXCPU"),
    (libc::SIGXFSZ, "SIGXFSZ"),
    (libc::SIGVTALRM, "SIGVTALRM"),
    (libc::SIGPROF, "SIGPROF"),
    (libc::SIGWINCH, "SIGWINCH"),
    (libc::SIGIO, "SIGIO"),
    (libc::SIGPWR, "SIGPWR"),
    (libc::SIGSYS, "SIGSYS"),
];

const ENOUGH: u64 = 65_536;
