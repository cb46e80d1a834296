//! How worker processes of one generation send requests to each other: by pairs of sequenced-packet sockets. What is sent into a
//! *lane* is for one worker process, its owner; what is in the *queue* is for whichever is next to have nothing to do.
//! (`server/reactor/dispatch.rs` says what is sent where, and when.)
//!
//! The pool process makes all lanes of its generation before it forks, so every worker process has them. A large pool has fewer
//! lanes than worker processes, and some share one: whoever takes a request out of it can run it or send it on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_send_buffer_size, set_socket_send_buffer_size_force};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::descriptor::{high_fd, high_room};

/// All lanes of one generation, and the queue.
#[derive(Debug)]
pub(crate) struct Lanes {
    pairs: Vec<Pair>,
    queue: Option<Pair>,
}

#[derive(Debug)]
struct Pair {
    send: OwnedFd,
    receive: OwnedFd,
}

impl Lanes {
    /// Lanes for a pool of `processes` worker processes; none for one process, which has no siblings.
    ///
    /// # Errors
    /// The system's, as for want of descriptors.
    pub(super) fn new(processes: u32) -> Result<Self, Errno> {
        let room = u32::try_from(high_room() / 16).unwrap_or(u32::MAX);
        let count = if processes > 1 {
            processes.saturating_add(SPARE).min(MOST).min(room)
        } else {
            0
        };
        let pairs = (0..count).map(|_| Pair::new());
        let pairs = pairs.collect::<Result<Vec<_>, Errno>>()?;
        let queue = (count > 0).then(Pair::new).transpose()?;
        if let Some(queue) = &queue {
            // The second is possible without privileges, but only as far as net.core.wmem_max.
            set_socket_send_buffer_size_force(&queue.send, QUEUE_BUFFER)
                .or_else(|_| set_socket_send_buffer_size(&queue.send, QUEUE_BUFFER))?;
        }
        Ok(Self { pairs, queue })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.pairs.len()).unwrap_or(u32::MAX)
    }

    /// Where to send what the owner of `lane` is to get.
    pub(crate) fn sender(&self, lane: u32) -> Option<BorrowedFd<'_>> {
        self.pairs.get(lane as usize).map(|pair| pair.send.as_fd())
    }

    /// Where the owner of `lane` receives.
    pub(crate) fn receiver(&self, lane: u32) -> Option<BorrowedFd<'_>> {
        self.pairs
            .get(lane as usize)
            .map(|pair| pair.receive.as_fd())
    }

    /// Where to put a request for whoever is next.
    pub(crate) fn queue_sender(&self) -> Option<BorrowedFd<'_>> {
        self.queue.as_ref().map(|pair| pair.send.as_fd())
    }

    /// Where to take one.
    pub(crate) fn queue_receiver(&self) -> Option<BorrowedFd<'_>> {
        self.queue.as_ref().map(|pair| pair.receive.as_fd())
    }

    /// Whether something is in `lane` that has not been received.
    pub(super) fn has_messages(&self, lane: u32) -> bool {
        let Some(pair) = self.pairs.get(lane as usize) else {
            return false;
        };
        let mut wanted = [PollFd::new(&pair.receive, PollFlags::IN)];
        // What cannot be told counts as nothing, as an interrupted look does.
        matches!(poll(&mut wanted, Some(&Timespec::default())), Ok(1))
    }
}

impl Pair {
    fn new() -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (send, receive) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok(Self {
            send: high_fd(send),
            receive: high_fd(receive),
        })
    }
}

/// Bytes of requests in the queue.
const QUEUE_BUFFER: usize = 8 << 20;

/// Lanes beyond the number of worker processes: for those that leave and have been replaced already.
const SPARE: u32 = 2;

/// Lanes take two descriptors each, in the pool process and in every worker process. (Where the limit on descriptors is low, they
/// take an eighth of the room that there is.)
const MOST: u32 = 64;
