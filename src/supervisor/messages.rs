//! Messages between the supervisor and a pool process: JSON with a version number, one to a packet of a
//! SOCK_SEQPACKET socket, descriptors beside it as SCM_RIGHTS.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg,
    sendmsg, socketpair, sockopt,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::sockets::SocketFile;
use crate::config::{PoolConfig, ProcessManager};
use crate::descriptor::high_fd;
use crate::log::Heritage;
use crate::zygote::Identity;

/// What the supervisor tells a pool process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToPool {
    /// The first message.
    Start(Box<Start>),
    /// Take nothing new, finish what runs, pass connections on if there is a successor (the scoreboard knows), exit.
    Drain,
    /// Exit at once.
    Stop,
    /// The supervisor has said that all is ready: what worker processes say may stand in the log from now on.
    Launched,
    /// Log what worker processes have said so far, and answer `Flushed`.
    Flush,
    /// Log files have been opened anew.
    ReopenLogs(ReopenedLogs),
}

/// Which logs there are new descriptors of, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReopenedLogs {
    /// `error_log`
    pub(crate) error: bool,
    /// `access.log`
    pub(crate) access: bool,
    /// `slowlog`
    pub(crate) slow: bool,
}

/// What a pool process tells its worker processes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// Log files have been opened anew.
    ReopenLogs(ReopenedLogs),
    /// The owner of this lane has died: what was sent to it is to be received, and what it was told of accepted.
    TakeLane(u32),
}

/// What a pool process needs to begin. Descriptors, in this order: the listening sockets, the scoreboard, the sending and
/// the receiving end of the hand-over socket, and, as far as there are such, the count of all processes, the error log, the
/// access log, the slow log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The pool's configuration.
    pub(crate) config: PoolConfig,
    /// Whose rights worker processes have.
    pub(crate) identity: Identity,
    /// Counts the pool processes of this pool.
    pub(crate) generation: u32,
    /// Worker processes at most: `pm.max_children` on NTS, one on ZTS.
    pub(crate) processes: u32,
    /// PHP workers in each.
    pub(crate) threads: u32,
    /// `process.max`; if there is one, there is a count of all processes.
    pub(crate) process_max: Option<u32>,
    /// The pool's number in that.
    pub(crate) number: usize,
    /// The supervisor.
    pub(crate) supervisor: i32,
    /// How to log.
    pub(crate) log: Heritage,
    /// Whether it has a descriptor.
    pub(crate) has_log: bool,
    /// Whether there is an access log.
    pub(crate) has_access_log: bool,
    /// Whether there is a slow log.
    pub(crate) has_slow_log: bool,
    /// Number of listening sockets among the descriptors.
    pub(crate) listeners: usize,
    /// Files to remove if the supervisor has been killed.
    pub(crate) socket_files: Vec<SocketFile>,
}

impl Start {
    /// How worker processes come and go. With ZTS there is one, whose threads are its own business (server/crew.rs).
    pub(crate) fn process_manager(&self) -> ProcessManager {
        match (&self.config.pm, self.threads > 1) {
            (ProcessManager::Dynamic { .. }, true) => ProcessManager::Static,
            (pm, _) => pm.clone(),
        }
    }
}

/// What the supervisor, which has no PHP, needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PhpFacts {
    /// `PHP_VERSION`
    pub(crate) version: String,
    /// `expose_php`
    pub(crate) expose_php: bool,
}

/// What a pool process tells the supervisor.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromPool {
    /// All worker processes serve.
    Ready {
        /// The PHP that it runs.
        php: PhpFacts,
    },
    /// PHP did not start, or worker processes do not; the pool process exits.
    StartFailed {
        /// Why, for the log.
        text: String,
    },
    /// What worker processes had said when `Flush` came is in the log.
    Flushed,
    /// A worker process has died of SIGSEGV or SIGBUS.
    Faulted,
    /// It has had no worker process for a while, as ondemand pools may: it is not needed.
    Unused,
    /// Start a new generation beside this one.
    ReplaceMe {
        /// Why.
        reason: ReplaceReason,
    },
}

/// Why a generation wants a successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReplaceReason {
    /// OPcache wants to empty its memory, which threads could not survive (DESIGN.md).
    OpcacheRestartPending,
    /// A PHP thread does not end its request.
    ThreadStuck,
    /// SIGUSR2.
    Reload,
    /// Its worker process has run as many requests as `pm.max_requests` allows (ZTS).
    MaxRequests,
    /// It got SIGQUIT, not from the supervisor.
    Quit,
}

impl std::fmt::Display for ReplaceReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OpcacheRestartPending => "OPcache restart pending",
            Self::ThreadStuck => "a thread is stuck in a request",
            Self::Reload => "reload",
            Self::MaxRequests => "pm.max_requests reached",
            Self::Quit => "SIGQUIT",
        })
    }
}

/// One end of the socket between the two.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
}

/// What [`Channel::receive`] found.
#[derive(Debug)]
pub(crate) enum Received<T> {
    /// A message and its descriptors, close-on-exec and moved up.
    Message(T, Vec<OwnedFd>),
    /// Nothing now.
    Nothing,
    /// The other process is gone.
    Closed,
}

/// Why a message did not get through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    /// The system call failed.
    #[error("control socket: {0}")]
    Io(#[from] io::Error),
    /// More descriptors than Linux passes in one message.
    #[error("{0} descriptors in one message; at most {MAX_DESCRIPTORS} are possible")]
    TooManyDescriptors(usize),
    /// The other process speaks another version.
    #[error("message of version {0}, this is version {VERSION}")]
    Version(u32),
    /// Not what we speak.
    #[error("malformed message: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Part of a message or a descriptor is missing.
    #[error("message was cut off")]
    Truncated,
}

impl From<rustix::io::Errno> for MessageError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl Channel {
    /// Both ends of a new socket, nonblocking and close-on-exec.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        for socket in [&ours, &theirs] {
            // A message must fit; a configuration may be long. The kernel cuts this down to net.core.wmem_max.
            sockopt::set_socket_send_buffer_size(socket, 1 << 20)?;
        }
        let (ours, theirs) = (high_fd(ours), high_fd(theirs));
        Ok((Self { socket: ours }, Self { socket: theirs }))
    }

    /// One end that came from elsewhere.
    pub(crate) fn from_socket(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// The socket itself.
    pub(crate) fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Sends one message. Does not wait: the other side's buffer holds more than we ever have to say.
    pub(crate) fn send<T: Serialize>(
        &self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), MessageError> {
        let packet = serde_json::to_vec(&Envelope {
            version: VERSION,
            message,
        })?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fits = descriptors.len() <= MAX_DESCRIPTORS;
        if !fits
            || !descriptors.is_empty()
                && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors))
        {
            return Err(MessageError::TooManyDescriptors(descriptors.len()));
        }
        let flags = SendFlags::NOSIGNAL;
        let sent = retry(|| {
            sendmsg(
                &self.socket,
                &[IoSlice::new(&packet)],
                &mut ancillary,
                flags,
            )
        })?;
        if sent == packet.len() {
            Ok(())
        } else {
            Err(MessageError::Truncated)
        }
    }

    /// Receives one message if there is one.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> Result<Received<T>, MessageError> {
        let length = match self.next_length() {
            Ok(0) | Err(rustix::io::Errno::CONNRESET) => return Ok(Received::Closed),
            Ok(length) => length,
            Err(rustix::io::Errno::AGAIN) => return Ok(Received::Nothing),
            Err(errno) => return Err(errno.into()),
        };
        let mut packet = vec![0; length];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = retry(|| {
            let mut buffers = [IoSliceMut::new(&mut packet)];
            recvmsg(
                &self.socket,
                &mut buffers,
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights.map(high_fd));
            }
        }
        if received.bytes != length
            || received
                .flags
                .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(MessageError::Truncated);
        }
        // The version first: a message of another one may not even parse.
        let Version { version } = serde_json::from_slice(&packet)?;
        if version != VERSION {
            return Err(MessageError::Version(version));
        }
        let envelope: Envelope<T> = serde_json::from_slice(&packet)?;
        Ok(Received::Message(envelope.message, descriptors))
    }

    /// The length of the next packet; 0 at the end, as nobody sends empty ones.
    fn next_length(&self) -> rustix::io::Result<usize> {
        let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
        retry(|| recv(&self.socket, &mut [0u8; 0][..], flags)).map(|(_, length)| length)
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Calls again as long as a signal handler comes in between.
pub(crate) fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return result,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    message: T,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// Goes up with every change to the messages: a supervisor that an upgrade has replaced may meet older pool processes.
const VERSION: u32 = 1;

/// SCM_MAX_FD.
pub(crate) const MAX_DESCRIPTORS: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(channel: &Channel) -> (FromPool, Vec<OwnedFd>) {
        match channel.receive().expect("well-formed") {
            Received::Message(message, descriptors) => (message, descriptors),
            other => panic!("expected a message, got {other:?}"),
        }
    }

    #[test]
    fn messages_arrive_whole_and_in_order_with_their_descriptors() {
        let (ours, theirs) = Channel::pair().expect("socketpair");
        let (reader, writer) = std::io::pipe().expect("pipe");
        let failed = FromPool::StartFailed {
            text: "x".repeat(100_000),
        };
        ours.send(&FromPool::Flushed, &[reader.as_fd(), writer.as_fd()])
            .expect("sent");
        ours.send(&failed, &[]).expect("sent");
        let (first, descriptors) = message(&theirs);
        assert_eq!((first, descriptors.len()), (FromPool::Flushed, 2));
        for descriptor in &descriptors {
            let flags = rustix::io::fcntl_getfd(descriptor).expect("open");
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
        assert_eq!(message(&theirs).0, failed);
        assert!(matches!(
            theirs.receive::<FromPool>(),
            Ok(Received::Nothing)
        ));
        drop(ours);
        assert!(matches!(theirs.receive::<FromPool>(), Ok(Received::Closed)));
    }

    #[test]
    fn as_many_descriptors_as_linux_allows() {
        let (ours, theirs) = Channel::pair().expect("socketpair");
        let (reader, _writer) = std::io::pipe().expect("pipe");
        let most = vec![reader.as_fd(); MAX_DESCRIPTORS];
        ours.send(&FromPool::Flushed, &most).expect("sent");
        assert_eq!(message(&theirs).1.len(), MAX_DESCRIPTORS);
        let more = vec![reader.as_fd(); MAX_DESCRIPTORS + 1];
        assert!(matches!(
            ours.send(&FromPool::Flushed, &more),
            Err(MessageError::TooManyDescriptors(254))
        ));
    }

    #[test]
    fn another_version_is_told_apart_from_nonsense() {
        let (ours, theirs) = Channel::pair().expect("socketpair");
        let send =
            |bytes: &[u8]| rustix::net::send(&ours, bytes, SendFlags::empty()).expect("sent");
        send(br#"{"version":2,"message":{"Unheard":["of"]}}"#);
        assert!(matches!(
            theirs.receive::<FromPool>(),
            Err(MessageError::Version(2))
        ));
        send(b"{");
        assert!(matches!(
            theirs.receive::<FromPool>(),
            Err(MessageError::Malformed(_))
        ));
    }
}
