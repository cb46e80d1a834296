//! Descriptors out of the way of PHP scripts.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};
use rustix::process::{Resource, getrlimit};

/// Moves a descriptor to a number of at least 4096 (half of RLIMIT_NOFILE where that is less), close-on-exec.
///
/// A script's `stream_select()` refuses numbers above 1023, and some scripts count on 0–10 being theirs; so whatever is
/// ours lives up there in a process that runs PHP. Where no number is left, the descriptor stays where it is. Call it
/// before the descriptor is registered with an epoll instance.
pub(crate) fn high_fd(fd: OwnedFd) -> OwnedFd {
    let base = first_high();
    if fd.as_raw_fd() >= base {
        return close_on_exec(fd);
    }
    match fcntl_dupfd_cloexec(&fd, base) {
        Ok(high) => high,
        Err(_) => close_on_exec(fd),
    }
}

fn close_on_exec(fd: OwnedFd) -> OwnedFd {
    if let Ok(flags) = fcntl_getfd(&fd) {
        // Cannot fail on an open descriptor.
        let _ = fcntl_setfd(&fd, flags | FdFlags::CLOEXEC);
    }
    fd
}

/// Occupies the numbers up to 10, which scripts count as theirs, until the result is dropped.
pub(crate) fn reserve_low() -> std::io::Result<Vec<OwnedFd>> {
    let mut reserved = Vec::new();
    loop {
        let fd = OwnedFd::from(File::open("/dev/null")?);
        if fd.as_raw_fd() > SCRIPTS_LAST {
            return Ok(reserved);
        }
        reserved.push(fd);
    }
}

/// How many connections have a number at which [`high_fd`] puts descriptors. With more than that they would take numbers
/// from scripts, which could open no file then.
pub(crate) fn high_room() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    let above = limit.saturating_sub(usize::try_from(first_high()).unwrap_or(0));
    above - OWN.min(above / 2)
}

/// The lowest number that [`high_fd`] gives out. Asked of the system once: the supervisor raises the limit before anything
/// else, and processes inherit it.
pub(crate) fn first_high() -> RawFd {
    match BASE.load(Ordering::Relaxed) {
        UNKNOWN => {
            let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
            let base = RawFd::try_from(limit / 2).unwrap_or(RawFd::MAX).min(HIGH);
            BASE.store(base, Ordering::Relaxed);
            base
        }
        base => base,
    }
}

/// To be called after this process has changed its limit on descriptors. Those that are open keep their numbers, even above
/// the limit.
pub(crate) fn limit_has_changed() {
    BASE.store(UNKNOWN, Ordering::Relaxed);
}

static BASE: AtomicI32 = AtomicI32::new(UNKNOWN);

const UNKNOWN: RawFd = -1;

const HIGH: RawFd = 4096;

/// Numbers up there for what is not a connection: epoll, listening sockets, channels, relays.
const OWN: usize = 64;

const SCRIPTS_LAST: RawFd = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_connections_is_above_what_scripts_have() {
        let limit = getrlimit(Resource::Nofile).current.expect("a limit");
        let limit = usize::try_from(limit).expect("fits");
        let first = usize::try_from(first_high()).expect("fits");
        assert!(high_room() > 0 && first + high_room() < limit);
    }

    #[test]
    fn descriptor_moves_up_once() {
        let (reader, _writer) = std::io::pipe().expect("pipe");
        let high = high_fd(OwnedFd::from(reader));
        assert!(high.as_raw_fd() >= first_high());
        let number = high.as_raw_fd();
        let same = high_fd(high);
        assert_eq!(same.as_raw_fd(), number);
        assert!(fcntl_getfd(&same).expect("open").contains(FdFlags::CLOEXEC));
    }
}
