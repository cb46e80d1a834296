//! How many connections wait in a listening socket, and how many may: `listen queue` and `listen queue len` of the status
//! page, and what the process manager starts workers for.
//!
//! TCP sockets say it by TCP_INFO, as php-fpm asks them. Unix sockets, of which php-fpm knows nothing, say it by netlink
//! (`sock_diag(7)`), as `ss -xl` asks them. Where the kernel has no `unix_diag` (it is a module), that is an error, and
//! the figure is unknown.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::unix::{ShowFlags, StateFlags, UnixRequest, nlas::Nla};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use rustix::fs::fstat;
use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;

/// What one listening socket says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ListenQueue {
    /// Connections that wait to be accepted.
    pub(crate) waiting: u32,
    /// How many may wait: `listen.backlog`, or the kernel's own limit if that is less.
    pub(crate) limit: u32,
}

/// Asks listening sockets, of any kind.
#[derive(Default)]
pub(crate) struct ListenQueues {
    /// Made for the first Unix socket.
    netlink: Option<Socket>,
}

impl ListenQueues {
    /// How long the queue of `socket` is.
    pub(crate) fn read(&mut self, socket: impl AsFd) -> io::Result<ListenQueue> {
        let socket = socket.as_fd();
        if socket_domain(socket)? == AddressFamily::UNIX {
            self.read_unix(socket)
        } else {
            read_tcp(socket)
        }
    }

    /// The sum of several sockets' queues. One that cannot be asked counts nothing.
    pub(crate) fn read_all<S: AsFd>(
        &mut self,
        sockets: impl IntoIterator<Item = S>,
    ) -> ListenQueue {
        let mut sum = ListenQueue::default();
        for socket in sockets {
            let one = self.read(socket).unwrap_or_default();
            sum.waiting = sum.waiting.saturating_add(one.waiting);
            sum.limit = sum.limit.saturating_add(one.limit);
        }
        sum
    }

    fn read_unix(&mut self, socket: BorrowedFd<'_>) -> io::Result<ListenQueue> {
        let netlink = match self.netlink.take() {
            Some(netlink) => netlink,
            None => connect()?,
        };
        // After a failure an answer may still come: it must not be taken for that to the next question.
        let queue = ask(&netlink, socket)?;
        self.netlink = Some(netlink);
        Ok(queue)
    }
}

impl std::fmt::Debug for ListenQueues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenQueues").finish_non_exhaustive()
    }
}

fn read_tcp(socket: BorrowedFd<'_>) -> io::Result<ListenQueue> {
    // SAFETY: all-zero bytes are a valid `tcp_info`: it is integers.
    let mut info = unsafe { std::mem::zeroed::<libc::tcp_info>() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or(0);
    // SAFETY: `info` has room for `length` bytes, and both live until the call returns.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // Of a listening socket, these are not what their names say (tcp_get_info in the kernel's net/ipv4/tcp.c).
    Ok(ListenQueue {
        waiting: info.tcpi_unacked,
        limit: info.tcpi_sacked,
    })
}

fn connect() -> io::Result<Socket> {
    let mut netlink = Socket::new(NETLINK_SOCK_DIAG)?;
    netlink.bind_auto()?;
    netlink.connect(&SocketAddr::new(0, 0))?;
    // The kernel answers within the request's own system call, so an answer is there or never comes.
    netlink.set_non_blocking(true)?;
    Ok(netlink)
}

fn ask(netlink: &Socket, socket: BorrowedFd<'_>) -> io::Result<ListenQueue> {
    let inode = u32::try_from(fstat(socket)?.st_ino).map_err(io::Error::other)?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let request = SockDiagMessage::UnixRequest(UnixRequest {
        state_flags: StateFlags::LISTEN,
        inode,
        show_flags: ShowFlags::RQLEN,
        cookie: ANY_COOKIE,
    });
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    netlink.send(&bytes, 0)?;

    let (bytes, _) = netlink.recv_from_full()?;
    let answer =
        NetlinkMessage::<SockDiagMessage>::deserialize(&bytes).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::UnixResponse(response)) => response
            .nlas
            .iter()
            .find_map(|attribute| match attribute {
                Nla::ReceiveQueueLength(waiting, limit) => Some(ListenQueue {
                    waiting: *waiting,
                    limit: *limit,
                }),
                _ => None,
            })
            .ok_or_else(|| io::Error::other("the kernel did not say how long the queue is")),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::other("an answer of another kind")),
    }
}

/// INET_DIAG_NOCOOKIE: the inode says enough.
const ANY_COOKIE: [u8; 8] = [0xff; 8];

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
    use std::os::unix::net::UnixStream;

    use socket2::{Domain, SockAddr, Socket, Type};

    use super::*;

    fn waiting(queues: &mut ListenQueues, listener: &Socket) -> u32 {
        queues.read(listener).expect("a listening socket").waiting
    }

    #[test]
    fn waiting_connections_of_a_unix_socket_are_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s.sock");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("socket");
        listener
            .bind(&SockAddr::unix(&path).expect("short"))
            .expect("bind");
        listener.listen(5).expect("listen");
        let mut queues = ListenQueues::default();
        assert_eq!(
            queues.read(&listener).expect("a listening socket"),
            ListenQueue {
                waiting: 0,
                limit: 5
            }
        );
        let clients: Vec<_> = (0..3)
            .map(|_| UnixStream::connect(&path).expect("room"))
            .collect();
        assert_eq!(waiting(&mut queues, &listener), 3);
        let _accepted = listener.accept().expect("one waits");
        assert_eq!(waiting(&mut queues, &listener), 2);
        drop(clients);
    }

    #[test]
    fn waiting_connections_of_a_tcp_socket_are_counted() {
        for (domain, address) in [
            (Domain::IPV4, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            (Domain::IPV6, SocketAddr::from((Ipv6Addr::LOCALHOST, 0))),
        ] {
            let listener = Socket::new(domain, Type::STREAM, None).expect("socket");
            listener.bind(&address.into()).expect("bind");
            listener.listen(7).expect("listen");
            let address = listener.local_addr().expect("bound");
            let address = address.as_socket().expect("an address");
            let mut queues = ListenQueues::default();
            assert_eq!(
                queues.read(&listener).expect("a listening socket"),
                ListenQueue {
                    waiting: 0,
                    limit: 7
                }
            );
            let _clients = [(); 2].map(|()| TcpStream::connect(address).expect("room"));
            assert_eq!(waiting(&mut queues, &listener), 2);
            assert_eq!(
                queues.read_all([&listener, &listener]),
                ListenQueue {
                    waiting: 4,
                    limit: 14
                }
            );
        }
    }
}
