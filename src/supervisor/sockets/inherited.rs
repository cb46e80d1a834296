//! Listening sockets that are there when this program begins: kept over a reload by php-fpm's own rules, so that php-fpm
//! and fe-php can even take over from each other, or made by systemd (socket activation).
//!
//! `FPM_SOCKETS` has `address=descriptor` pairs, 128 in a variable; more are in `FPM_SOCKETS_1` and so on. systemd says
//! `LISTEN_FDS` for how many there are from number 3 on, and `LISTEN_PID` for whom they are.

use std::collections::HashSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Command;
use std::sync::Arc;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{SocketAddrAny, getsockname};

use super::{ListeningSocket, ListeningSockets, key_of};
use crate::descriptor::high_fd;
use crate::log;

/// Sockets to use rather than to bind.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    sockets: Vec<InheritedSocket>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct InheritedSocket {
    pub(super) fd: OwnedFd,
    /// Where it listens, in the form of [`key_of`].
    pub(super) key: OsString,
    /// It is systemd's, and so is its file.
    pub(super) activated: bool,
}

impl Inherited {
    /// None at all.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// Those that the environment names. To be called once, before this process opens anything.
    pub(crate) fn from_environment() -> Self {
        let mut taken = HashSet::new();
        let mut sockets = Vec::new();
        let activated = activated_before();
        for (key, number) in sets().flat_map(|set| pairs(&set)) {
            log::notice(format_args!(
                "using inherited socket fd={number}, \"{}\"",
                key.display()
            ));
            if let Some(fd) = take(number, &mut taken) {
                let activated = activated.contains(&number);
                sockets.push(InheritedSocket { fd, key, activated });
            }
        }
        for number in activated_by_systemd() {
            let Some(fd) = take(number, &mut taken) else {
                continue;
            };
            let Some(key) = bound_at(&fd) else {
                log::warning(format_args!(
                    "socket fd={number} from systemd has no address, it is closed"
                ));
                continue;
            };
            log::notice(format_args!(
                "using socket fd={number} from systemd, \"{}\"",
                key.display()
            ));
            sockets.push(InheritedSocket {
                fd,
                key,
                activated: true,
            });
        }
        Self { sockets }
    }

    /// The one that listens at this address.
    pub(super) fn take(&mut self, key: &OsStr) -> Option<InheritedSocket> {
        let index = self.sockets.iter().position(|socket| socket.key == key)?;
        Some(self.sockets.swap_remove(index))
    }

    /// Closes those that no pool has asked for. The files of our own go; systemd has reasons for its own.
    pub(crate) fn close_unused(self) {
        for socket in self.sockets {
            if socket.activated {
                log::warning(format_args!(
                    "no pool has listen = {}, the address of a socket from systemd: it is closed",
                    socket.key.display()
                ));
            } else if socket.key.as_bytes().starts_with(b"/") {
                // As php-fpm does. Whoever keeps us from removing it has a reason.
                let _ = std::fs::remove_file(&socket.key);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn with(fd: OwnedFd, key: &str, activated: bool) -> Self {
        let key = key.into();
        Self {
            sockets: vec![InheritedSocket { fd, key, activated }],
        }
    }
}

/// Sockets as the program gets them that this process is about to become by exec. If that fails, drop this: other programs
/// that are started must not get them.
#[derive(Debug)]
pub(crate) struct Export<'a> {
    sockets: Vec<&'a ListeningSocket>,
}

impl<'a> Export<'a> {
    /// Leaves the sockets of all pools open over exec.
    pub(crate) fn new(
        pools: impl IntoIterator<Item = &'a ListeningSockets>,
    ) -> rustix::io::Result<Self> {
        let mut seen = HashSet::new();
        let all = pools.into_iter().flat_map(|pool| &pool.sockets);
        let sockets = all
            .map(Arc::as_ref)
            .filter(|socket| seen.insert(socket.fd.as_raw_fd()))
            .collect();
        let export = Self { sockets };
        for socket in &export.sockets {
            fcntl_setfd(&socket.fd, FdFlags::empty())?;
        }
        Ok(export)
    }

    /// Tells the program about them; takes away what an earlier one was told.
    pub(crate) fn apply(&self, command: &mut Command) {
        let sockets = self.sockets.iter();
        let sockets = sockets.map(|socket| (key_of(&socket.address), &socket.fd, socket.activated));
        describe(&sockets.collect::<Vec<_>>(), command);
    }
}

/// Tells a program about sockets: where they listen, their descriptors, and whether systemd has made them.
fn describe(sockets: &[(OsString, &OwnedFd, bool)], command: &mut Command) {
    let mut sets = 0;
    for set in sockets.chunks(SET_SIZE) {
        let pairs: Vec<Vec<u8>> = set
            .iter()
            .map(|(key, fd, _)| {
                let mut pair = key.as_bytes().to_vec();
                pair.extend(format!("={}", fd.as_raw_fd()).bytes());
                pair
            })
            .collect();
        command.env(variable(sets), OsString::from_vec(pairs.join(&b',')));
        sets += 1;
    }
    for index in sets..SETS {
        let name = variable(index);
        if env::var_os(&name).is_none() {
            break;
        }
        command.env_remove(name);
    }
    let activated = sockets.iter().filter(|(_, _, activated)| *activated);
    let numbers: Vec<String> = activated
        .map(|(_, fd, _)| fd.as_raw_fd().to_string())
        .collect();
    command.env(ACTIVATED, numbers.join(","));
    // Their numbers mean something else by now.
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        command.env_remove(name);
    }
}

/// Descriptors of our own of the sockets that a program before a reload has left to this one, for a third one that may have to
/// take its place.
#[derive(Debug)]
pub(crate) struct Copies {
    sockets: Vec<(OsString, OwnedFd, bool)>,
}

impl Copies {
    /// To be made before [`Inherited::from_environment`] takes the sockets.
    pub(crate) fn make() -> std::io::Result<Self> {
        let activated = activated_before();
        let mut sockets = Vec::new();
        for (key, number) in sets().flat_map(|set| pairs(&set)) {
            if number < FIRST {
                continue;
            }
            // SAFETY: only asks and copies; if nothing is open under this number, it is told so.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            if socket_acceptconn(fd).unwrap_or(false) {
                let fd = high_fd(fd.try_clone_to_owned()?);
                sockets.push((key, fd, activated.contains(&number)));
            }
        }
        Ok(Self { sockets })
    }

    /// Leaves them open over exec, and tells the program about them.
    pub(crate) fn apply(&self, command: &mut Command) -> rustix::io::Result<()> {
        for (_, fd, _) in &self.sockets {
            fcntl_setfd(fd, FdFlags::empty())?;
        }
        let sockets = self.sockets.iter();
        let sockets = sockets.map(|(key, fd, activated)| (key.clone(), fd, *activated));
        describe(&sockets.collect::<Vec<_>>(), command);
        Ok(())
    }
}

/// The variables that name sockets.
fn sets() -> impl Iterator<Item = OsString> {
    (0..SETS).map_while(|index| env::var_os(variable(index)))
}

/// Numbers of those that systemd had made for a program before this one.
fn activated_before() -> Vec<RawFd> {
    let numbers = env::var(ACTIVATED).unwrap_or_default();
    let numbers = numbers.split(',').filter_map(|number| number.parse().ok());
    numbers.collect()
}

impl Drop for Export<'_> {
    fn drop(&mut self) {
        for socket in &self.sockets {
            // Cannot fail on an open descriptor.
            let _ = fcntl_setfd(&socket.fd, FdFlags::CLOEXEC);
        }
    }
}

/// `FPM_SOCKETS`, `FPM_SOCKETS_1`, …
fn variable(index: usize) -> String {
    match index {
        0 => "FPM_SOCKETS".to_owned(),
        _ => format!("FPM_SOCKETS_{index}"),
    }
}

/// `address=descriptor,…`
fn pairs(set: &OsStr) -> Vec<(OsString, RawFd)> {
    let pairs = set.as_bytes().split(|&byte| byte == b',');
    pairs
        .filter_map(|pair| {
            let middle = memchr::memrchr(b'=', pair)?;
            let number = std::str::from_utf8(&pair[middle + 1..])
                .ok()?
                .parse()
                .ok()?;
            Some((OsStr::from_bytes(&pair[..middle]).to_owned(), number))
        })
        .collect()
}

/// Numbers of the descriptors that systemd has left to us.
fn activated_by_systemd() -> std::ops::Range<RawFd> {
    let number = |name| env::var(name).ok().and_then(|value| value.parse().ok());
    let ours = rustix::process::getpid().as_raw_nonzero().get();
    let count = match number("LISTEN_PID") {
        Some(pid) if pid == ours => number("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    };
    FIRST..FIRST.saturating_add(count.clamp(0, 4096))
}

/// Takes a descriptor that is a listening socket; anything else is left alone.
fn take(number: RawFd, taken: &mut HashSet<RawFd>) -> Option<OwnedFd> {
    let listens = number >= FIRST && {
        // SAFETY: only asks; if nothing is open under this number, it is told so.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl_getfd(fd).is_ok() && socket_acceptconn(fd).unwrap_or(false)
    };
    if !listens || !taken.insert(number) {
        log::warning(format_args!(
            "inherited fd={number} is not a listening socket, it is ignored"
        ));
        return None;
    }
    // SAFETY: it is open, and was left to this program to own; `taken` sees to it that this is done once.
    let fd = high_fd(unsafe { OwnedFd::from_raw_fd(number) });
    // Cannot fail on a socket.
    let _ = rustix::io::ioctl_fionbio(&fd, true);
    Some(fd)
}

/// Where a socket listens.
fn bound_at(fd: &OwnedFd) -> Option<OsString> {
    let address = getsockname(fd).ok()?;
    if let Ok(unix) = rustix::net::SocketAddrUnix::try_from(address.clone()) {
        return Some(OsStr::from_bytes(unix.path_bytes()?).to_owned());
    }
    inet_key(address)
}

fn inet_key(address: SocketAddrAny) -> Option<OsString> {
    let address = std::net::SocketAddr::try_from(address).ok()?;
    Some(key_of(&crate::config::ListenAddress::Tcp(address)))
}

/// FPM_ENV_SOCKET_SET_MAX and FPM_ENV_SOCKET_SET_SIZE.
const SETS: usize = 256;
const SET_SIZE: usize = 128;

/// SD_LISTEN_FDS_START.
const FIRST: RawFd = 3;

/// Of the descriptors in `FPM_SOCKETS`, those that are systemd's.
const ACTIVATED: &str = "FE_PHP_ACTIVATED_SOCKETS";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn php_fpms_list_is_understood() {
        let set = OsStr::new("127.0.0.1:9000=8,:::9001=9,/run/a=b.sock=10,nonsense,x=y");
        let expected = [("127.0.0.1:9000", 8), (":::9001", 9), ("/run/a=b.sock", 10)];
        let found = pairs(set);
        let found: Vec<(&str, RawFd)> = found
            .iter()
            .map(|(key, number)| (key.to_str().unwrap(), *number))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn only_a_listening_socket_is_taken_and_only_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let key = format!("{}", listener.local_addr().unwrap());
        let number = listener.into_raw_fd();
        let mut taken = HashSet::new();
        let fd = take(number, &mut taken).unwrap();
        assert_eq!(bound_at(&fd).unwrap(), OsStr::new(&key));
        assert!(take(number, &mut taken).is_none());
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(take(reader.as_raw_fd(), &mut taken).is_none());
        assert!(take(RawFd::MAX, &mut taken).is_none());
        assert!(take(0, &mut taken).is_none());
    }

    #[test]
    fn a_unix_socket_is_known_by_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let fd = OwnedFd::from(UnixListener::bind(&path).unwrap());
        assert_eq!(bound_at(&fd).unwrap(), path.as_os_str());
    }
}
