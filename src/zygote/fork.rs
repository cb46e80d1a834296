//! fork() and signals, for the pool process.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// Which side of a fork we are on.
pub(super) enum Forked {
    Parent { child: Pid },
    Child,
}

/// Forks. The pool process has one thread, so nothing that another one holds stays locked in the child.
pub(super) fn fork() -> io::Result<Forked> {
    // SAFETY: this process has a single thread, so the child may do whatever its parent may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => {
            let child =
                Pid::from_raw(pid).ok_or_else(|| io::Error::other("fork returned no pid"))?;
            Ok(Forked::Parent { child })
        }
    }
}

/// Makes this process get `signal` when `parent` dies; false if it is dead already.
///
/// Changing the user clears it, and it fires at the death of the parent's *thread* that forked: set it after the first,
/// and fork from main threads only.
pub(super) fn die_with(parent: Pid, signal: Signal) -> bool {
    set_parent_process_death_signal(Some(signal)).is_ok() && getppid() == Some(parent)
}

/// Ends the process without destructors or exit handlers: those belong to the pool process.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: no condition; it does not return.
    unsafe { libc::_exit(code) }
}

/// Has `hook` called when something calls exit(); false if that cannot be.
pub(super) fn at_exit(hook: extern "C" fn()) -> bool {
    // SAFETY: no condition; `hook` lasts as long as the program.
    unsafe { libc::atexit(hook) == 0 }
}

/// Makes /dev/null the standard input.
pub(super) fn close_stdin() -> io::Result<()> {
    let null = std::fs::File::open("/dev/null")?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&null);
    // SAFETY: both are plain numbers; nobody owns descriptor 0 as an `OwnedFd`.
    if unsafe { libc::dup2(number, 0) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes away what the supervisor was told by its environment alone, which is nothing to scripts. (A `Command` that changes
/// the environment sorts it, and scripts may see its order.) For a process that has one thread.
pub(super) fn forget_environment() {
    let names: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
    for name in names {
        let text = name.to_string_lossy();
        if text.starts_with("FPM_SOCKETS") || OURS.contains(&text.as_ref()) {
            // SAFETY: this process has a single thread, so nobody else reads or changes the environment.
            unsafe { std::env::remove_var(&name) };
        }
    }
}

const OURS: [&str; 9] = [
    crate::supervisor::reload::RELOAD,
    "FE_PHP_ACTIVATED_SOCKETS",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "FDSTORE",
];

/// Blocked signals, read as they come.
///
/// Blocked rather than caught by handlers, since PHP takes whatever handler it finds at module startup for the original
/// one, which it calls in worker processes too.
#[derive(Debug)]
pub(super) struct SignalQueue {
    fd: OwnedFd,
}

impl SignalQueue {
    /// Blocks the signals that a pool process waits for.
    pub(super) fn new() -> io::Result<Self> {
        let set = signal_set(&WAITED_FOR);
        // SAFETY: `set` is an initialized signal set; the old mask is not asked for.
        if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) } == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above; -1 asks for a new descriptor.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd just made it for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self {
            fd: crate::descriptor::high_fd(fd),
        })
    }

    /// The number of the next signal that has arrived, and the process that has sent it.
    pub(super) fn next(&self) -> Option<(i32, i32)> {
        let mut information = [0; size_of::<libc::signalfd_siginfo>()];
        let length = super::retry(|| rustix::io::read(&self.fd, &mut information)).ok()?;
        let word = |offset: usize| {
            let bytes = information[..length].get(offset..)?.first_chunk::<4>()?;
            Some(i32::from_ne_bytes(*bytes))
        };
        let signal = word(std::mem::offset_of!(libc::signalfd_siginfo, ssi_signo))?;
        let sender = word(std::mem::offset_of!(libc::signalfd_siginfo, ssi_pid))?;
        Some((signal, sender))
    }
}

impl AsFd for SignalQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Gives a worker process the default actions and an empty signal mask.
pub(super) fn reset_signals() {
    for signal in WAITED_FOR {
        // SAFETY: the default action involves no code of ours. It cannot fail for these numbers.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let set = signal_set(&[]);
    // SAFETY: `set` is an initialized signal set; the old mask is not asked for. It cannot fail.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()) };
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the pointer is to memory for a signal set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: sigemptyset initializes it and cannot fail.
    let mut set = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: `set` is an initialized signal set.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

const WAITED_FOR: [i32; 6] = [
    libc::SIGCHLD,
    libc::SIGTERM,
    libc::SIGQUIT,
    libc::SIGINT,
    libc::SIGUSR1,
    libc::SIGUSR2,
];
