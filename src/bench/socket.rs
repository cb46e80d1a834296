//! Connections that are opened, written and read without blocking.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with, sockopt,
};

use crate::config::ListenAddress;

/// An attempt to connect.
#[derive(Debug)]
pub(super) enum Opened {
    Connected(OwnedFd),
    /// Writable or in error once that is known.
    InProgress(OwnedFd),
    /// The server's backlog is full, and the kernel tells nobody when it is no more: try again.
    BacklogFull,
}

/// Starts a connection.
pub(super) fn open(address: &ListenAddress) -> Result<Opened, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, result) = match address {
        ListenAddress::Unix(path) => {
            let address = SocketAddrUnix::new(path.as_path())?;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            let result = connect(&socket, &address);
            (socket, result)
        }
        ListenAddress::Tcp(address) => {
            let family = if address.is_ipv4() {
                AddressFamily::INET
            } else {
                AddressFamily::INET6
            };
            let socket = socket_with(family, SocketType::STREAM, flags, None)?;
            sockopt::set_tcp_nodelay(&socket, true)?;
            let result = connect(&socket, address);
            (socket, result)
        }
        // The command line's addresses have been looked up.
        ListenAddress::Inet(_) => return Err(Errno::AFNOSUPPORT),
    };
    match result {
        Ok(()) => Ok(Opened::Connected(socket)),
        Err(Errno::INPROGRESS) => Ok(Opened::InProgress(socket)),
        Err(Errno::AGAIN) => Ok(Opened::BacklogFull),
        Err(error) => Err(error),
    }
}

/// Whether connecting has worked, once the socket is writable.
pub(super) fn connected(socket: &OwnedFd) -> Result<(), Errno> {
    sockopt::socket_error(socket)?
}

/// Sends what the socket takes; 0 if it takes nothing now.
pub(super) fn write(socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    match send(socket, bytes, SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN) => Ok(0),
        result => result,
    }
}

/// What has come: `None` if nothing has, 0 bytes at the end.
pub(super) fn read(socket: &OwnedFd, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
    match recv(socket, buffer, RecvFlags::empty()) {
        Ok((length, _)) => Ok(Some(length)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the server has neither closed the connection nor sent anything.
pub(super) fn is_quiet(socket: &OwnedFd) -> bool {
    matches!(read(socket, &mut [0; 1]), Ok(None))
}

/// Opens a connection and waits until it is open, at most for `timeout`. Says what is wrong with the address.
pub(super) fn open_blocking(address: &ListenAddress, timeout: Duration) -> Result<OwnedFd, String> {
    let end = Instant::now() + timeout;
    let failed = |error: Errno| failure(address, error);
    loop {
        match open(address).map_err(failed)? {
            Opened::Connected(socket) => return Ok(socket),
            Opened::InProgress(socket) => {
                wait_until_writable(&socket, end).map_err(failed)?;
                connected(&socket).map_err(failed)?;
                return Ok(socket);
            }
            Opened::BacklogFull if Instant::now() < end => {
                std::thread::sleep(super::load::RETRY_BACKLOG);
            }
            Opened::BacklogFull => return Err(failed(Errno::AGAIN)),
        }
    }
}

/// Makes and closes one connection: an address where nobody listens is told before the load begins.
pub(super) fn check(address: &ListenAddress, timeout: Duration) -> Result<(), String> {
    open_blocking(address, timeout).map(drop)
}

/// Why no connection could be made, and what to do.
pub(super) fn failure(address: &ListenAddress, error: Errno) -> String {
    let (place, permission) = match address {
        ListenAddress::Unix(_) => (address.to_string(), "the socket's permissions"),
        ListenAddress::Tcp(_) | ListenAddress::Inet(_) => (address.to_string(), "the firewall"),
    };
    let remedy = match error {
        Errno::CONNREFUSED | Errno::NOENT => "nobody listens there; is the server running?".to_owned(),
        Errno::ACCESS | Errno::PERM => format!("look at {permission}"),
        Errno::AGAIN | Errno::TIMEDOUT => {
            "its backlog is full and it accepts no connection; see --timeout".to_owned()
        }
        Errno::ADDRNOTAVAIL => {
            "all local ports are in use or waiting after a close (net.ipv4.ip_local_port_range); use a Unix socket, \
             fewer connections, or --keep-alive"
                .to_owned()
        }
        Errno::MFILE | Errno::NFILE => "no descriptor is left; see ulimit -n".to_owned(),
        _ => "the connection failed".to_owned(),
    };
    format!("{place}: {error}: {remedy}")
}

fn wait_until_writable(socket: &OwnedFd, end: Instant) -> Result<(), Errno> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&left)) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}
