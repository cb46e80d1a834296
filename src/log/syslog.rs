//! The error log's way to syslog: datagrams as syslog(3) sends them.
//!
//! Not syslog(3) itself: it has one ident and one lock for the process, and scripts use them (`openlog()`).

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI64, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
    sockopt,
};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::{Level, sys};
use crate::descriptor::high_fd;

/// A socket to the system's log, and what this program is called there.
#[derive(Debug)]
pub(super) struct Syslog {
    /// None if not even a socket could be had.
    socket: Option<OwnedFd>,
    address: &'static str,
    facility: i32,
    ident: String,
    /// Until then (seconds of the monotonic clock) nobody waits for a syslogd that was stuck: each line would cost as much.
    stuck_until: AtomicI64,
}

impl Syslog {
    /// Nobody need be there yet: each line tries again.
    pub(super) fn connect(address: &'static str, facility: i32, ident: &str) -> Self {
        let socket = new_socket(SocketType::DGRAM).map(high_fd).ok();
        let syslog = Self {
            socket,
            address,
            facility,
            ident: ident.to_owned(),
            stuck_until: AtomicI64::new(0),
        };
        syslog.reconnect();
        syslog
    }

    /// A socket that another process has connected.
    pub(super) fn from_socket(
        socket: OwnedFd,
        address: &'static str,
        facility: i32,
        ident: &str,
    ) -> Self {
        Self {
            socket: Some(high_fd(socket)),
            address,
            facility,
            ident: ident.to_owned(),
            stuck_until: AtomicI64::new(0),
        }
    }

    pub(super) fn identity(&self) -> (i32, String) {
        (self.facility, self.ident.clone())
    }

    /// Sends a line; false if nobody takes it.
    pub(super) fn send(&self, level: Level, line: &[u8]) -> bool {
        let datagram = self.datagram(level, line);
        match self.try_send(&datagram) {
            Ok(()) => true,
            Err(Errno::AGAIN) => false,
            // syslogd may have been started anew. In a chroot this fails, until the process above sends a new socket.
            Err(_) => self.reconnect() && self.try_send(&datagram).is_ok(),
        }
    }

    /// Connects the same number anew; false if nobody is there.
    pub(super) fn reconnect(&self) -> bool {
        let connect = |kind| {
            let socket = new_socket(kind)?;
            connect(&socket, &SocketAddrUnix::new(self.address)?)?;
            self.replace(socket)
        };
        // As syslog(3): some listen with a stream socket.
        connect(SocketType::DGRAM)
            .or_else(|_| connect(SocketType::STREAM))
            .is_ok()
    }

    pub(super) fn replace(&self, new: OwnedFd) -> io::Result<()> {
        match &self.socket {
            Some(socket) => sys::replace(socket.as_fd(), new),
            None => Err(Errno::BADF.into()),
        }
    }

    /// `<29>Nov 24 21:30:00 php-fpm[123]: [NOTICE] text`
    fn datagram(&self, level: Level, line: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(line.len() + self.ident.len() + 40);
        // A `Vec` cannot fail to take bytes.
        let _ = write!(datagram, "<{}>", self.facility | severity(level));
        sys::write_time(
            &mut datagram,
            c"%h %e %T ",
            clock_gettime(ClockId::Realtime).tv_sec,
        );
        let _ = write!(datagram, "{}[{}]: ", self.ident, rustix::process::getpid());
        datagram.extend_from_slice(line);
        datagram
    }

    fn try_send(&self, datagram: &[u8]) -> rustix::io::Result<()> {
        let socket = self.socket.as_ref().ok_or(Errno::BADF)?;
        if sockopt::socket_type(socket)? == SocketType::STREAM {
            // A NUL ends it there.
            let text = [datagram, b"\0"].concat();
            return self.send_all(socket, &text);
        }
        self.send_all(socket, datagram)
    }

    fn send_all(&self, socket: &OwnedFd, mut text: &[u8]) -> rustix::io::Result<()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        while !text.is_empty() {
            match send(socket, text, flags) {
                Ok(length) => text = text.get(length..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                // A syslogd that is stuck must not stop the server: it has a moment to take what it has.
                Err(Errno::AGAIN) => {
                    let now = clock_gettime(ClockId::Monotonic).tv_sec;
                    let mut fds = [PollFd::new(socket, PollFlags::OUT)];
                    if now < self.stuck_until.load(Ordering::Relaxed)
                        || poll(&mut fds, Some(&PATIENCE)) == Ok(0)
                    {
                        self.stuck_until.store(now + STUCK, Ordering::Relaxed);
                        return Err(Errno::AGAIN);
                    }
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

impl AsFd for Syslog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket
            .as_ref()
            .map_or(rustix::stdio::stderr(), AsFd::as_fd)
    }
}

fn new_socket(kind: SocketType) -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::UNIX,
        kind,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// The line's own. php-fpm says `log_level` for all, so that an ALERT is filed as a NOTICE.
const fn severity(level: Level) -> i32 {
    match level {
        Level::Debug => libc::LOG_DEBUG,
        Level::Notice => libc::LOG_NOTICE,
        Level::Warning => libc::LOG_WARNING,
        Level::Error => libc::LOG_ERR,
        Level::Alert => libc::LOG_ALERT,
    }
}

const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// Seconds without patience after that.
const STUCK: i64 = 2;

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    /// An address for a syslogd of the test's own.
    fn address(directory: &tempfile::TempDir) -> &'static str {
        let path = directory.path().join("log");
        Box::leak(path.to_str().expect("UTF-8").to_owned().into_boxed_str())
    }

    fn receive(daemon: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        daemon.set_nonblocking(true).expect("set");
        let length = daemon.recv(&mut buffer).expect("a datagram");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn line_is_sent_as_syslog_sends_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let address = address(&directory);
        let daemon = UnixDatagram::bind(address).expect("bound");
        let syslog = Syslog::connect(address, libc::LOG_DAEMON, "php-fpm");
        assert!(syslog.send(Level::Notice, b"[NOTICE] text"));
        let text = receive(&daemon);
        let pid = rustix::process::getpid();
        assert!(text.starts_with("<29>"), "{text}");
        assert_eq!(
            text["<29>Nov 24 21:30:00 ".len()..],
            format!("php-fpm[{pid}]: [NOTICE] text")
        );
        assert!(syslog.send(Level::Alert, b"x") && receive(&daemon).starts_with("<25>"));
    }

    #[test]
    fn line_reaches_a_syslogd_that_was_started_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let address = address(&directory);
        let first = UnixDatagram::bind(address).expect("bound");
        let syslog = Syslog::connect(address, libc::LOG_DAEMON, "php-fpm");
        drop(first);
        assert!(!syslog.send(Level::Notice, b"nobody there"));
        std::fs::remove_file(address).expect("removed");
        let second = UnixDatagram::bind(address).expect("bound");
        assert!(syslog.send(Level::Notice, b"here again"));
        assert!(receive(&second).ends_with(": here again"));
    }

    #[test]
    fn socket_that_was_passed_needs_no_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let address = address(&directory);
        let daemon = UnixDatagram::bind(address).expect("bound");
        let above = Syslog::connect(address, libc::LOG_DAEMON, "php-fpm");
        let socket = above.as_fd().try_clone_to_owned().expect("copied");
        let (facility, ident) = above.identity();
        let below = Syslog::from_socket(socket, "/nonexistent", facility, &ident);
        assert!(below.send(Level::Warning, b"from a chroot"));
        assert!(receive(&daemon).ends_with(": from a chroot"));
    }

    #[test]
    fn stuck_syslogd_costs_a_moment_and_the_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let address = address(&directory);
        let _daemon = UnixDatagram::bind(address).expect("bound");
        let syslog = Syslog::connect(address, libc::LOG_DAEMON, "php-fpm");
        // Its queue is short (net.unix.max_dgram_qlen), or its buffer full at last.
        let sent = (0..10_000).take_while(|_| syslog.send(Level::Notice, &[b'x'; 1024]));
        assert!(sent.count() < 10_000);
        // Not a moment for each line: 1,000 of them would be minutes.
        assert!((0..1000).all(|_| !syslog.send(Level::Notice, &[b'x'; 1024])));
    }

    #[test]
    fn syslogd_may_listen_with_a_stream_socket() {
        let directory = tempfile::tempdir().expect("a directory");
        let address = address(&directory);
        let daemon = UnixListener::bind(address).expect("bound");
        let syslog = Syslog::connect(address, libc::LOG_DAEMON, "php-fpm");
        assert!(syslog.send(Level::Notice, b"one") && syslog.send(Level::Notice, b"two"));
        let (mut stream, _) = daemon.accept().expect("it has connected");
        drop(syslog);
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("read");
        let lines: Vec<&str> = text.split_terminator('\0').collect();
        assert!(
            lines.len() == 2 && lines[0].ends_with(": one") && lines[1].ends_with(": two"),
            "{lines:?}"
        );
    }
}
