//! Passing a connection to a sibling process: the descriptor, and the bytes that its next owner is to read first.
//!
//! All worker processes of a pool, of every generation, share one pair of sequenced-packet sockets, the hand-over channel: a
//! process that drains puts its connections in, and any other takes them out. Siblings of one generation have lanes besides
//! (`reactor/dispatch.rs`), by which they also ask each other for requests. The bytes are FastCGI records that bring a fresh decoder to where the old one was, so the
//! next owner needs to know nothing else. Few bytes go in the message itself, many in a memfd beside it.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, pread, pwrite};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
};

use crate::scoreboard::{Moment, Waits};

/// Bytes that travel in the message itself.
const INLINE: usize = 16 << 10;
/// Length of the message's own header in its first format: format, whether a request is queued, number of bytes in the memfd
/// (or 0).
const HEADER_1: usize = 10;
/// The second format has on top of that since when the request waits ([`Moment`], 8 bytes).
const HEADER_2: usize = HEADER_1 + 8;
/// And the present one the number of the scoreboard in which the sender has counted what it sends (8 bytes). Of two generations,
/// the newer one has to understand all of them.
const HEADER: usize = HEADER_2 + 8;
const FORMAT_1: u8 = 1;
const FORMAT_2: u8 = 2;
const FORMAT: u8 = 3;
/// All that a message consists of which only has its receiver look into the queue.
const LOOK: u8 = 0x10;
/// The same, to have it put there what it keeps and what waits since before the [`Moment`] that follows.
const GIVE: u8 = 0x11;
/// Length of that message.
const ASK: usize = 9;
/// Values of the header's second byte.
const NO_REQUEST: u8 = 0;
const REQUEST_ON_OPEN: u8 = 1;
const REQUEST_ON_NEW: u8 = 2;

/// What is written on a parcel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    /// Since when a request on the connection waits for a worker (and is counted as queued); none if it has no such request.
    pub(crate) queued_since: Option<Moment>,
    /// What kind of connection that is.
    pub(crate) waits: Waits,
    /// The [scoreboard](crate::scoreboard::Scoreboard::id) in which the connection and its request are counted; 0 if the sender
    /// has not said it.
    pub(crate) scoreboard: u64,
}

/// A connection on its way.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) socket: OwnedFd,
    /// What its next owner is to decode before it reads the socket.
    pub(crate) bytes: Vec<u8>,
    pub(crate) label: Label,
}

/// What can be received.
#[derive(Debug)]
pub(crate) enum Message {
    /// A connection.
    Parcel(Parcel),
    /// There is something in the queue.
    Look,
    /// Others are to have the requests that the receiver keeps and that wait since before then.
    Give(Moment),
}

/// Tells the owner of a lane that there is something in the queue.
///
/// # Errors
/// `AGAIN` when the lane is full.
pub(crate) fn call(lane: BorrowedFd<'_>) -> Result<(), Errno> {
    say(lane, &[LOOK])
}

/// Asks the owner of a lane for the requests that it keeps and that wait since before `than`; an idle process gets one in any case.
///
/// # Errors
/// `AGAIN` when the lane is full.
pub(crate) fn ask(lane: BorrowedFd<'_>, than: Moment) -> Result<(), Errno> {
    let mut message = [GIVE; ASK];
    message[1..].copy_from_slice(&than.as_micros().to_be_bytes());
    say(lane, &message)
}

fn say(lane: BorrowedFd<'_>, what: &[u8]) -> Result<(), Errno> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::send(lane, what, flags).map(drop)
}

/// Puts a connection into `channel`.
///
/// # Errors
/// `AGAIN` when the channel is full: the caller keeps the connection and tries again later.
pub(crate) fn send(
    channel: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    label: Label,
) -> Result<(), Errno> {
    let mut header = label.write();
    let memory;
    let mut descriptors = vec![socket];
    let mut inline = bytes;
    if bytes.len() > INLINE {
        memory = in_memory(bytes)?;
        descriptors.push(memory.as_fd());
        inline = &[];
        header[2..HEADER_1].copy_from_slice(
            &u64::try_from(bytes.len())
                .map_err(|_| Errno::TOOBIG)?
                .to_be_bytes(),
        );
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::NOBUFS);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        match sendmsg(
            channel,
            &[IoSlice::new(&header), IoSlice::new(inline)],
            &mut control,
            flags,
        ) {
            Err(Errno::INTR) => {}
            result => return result.map(|_| ()),
        }
    }
}

/// Takes a connection, or what else siblings say, out of `channel`; `None` when there is nothing.
///
/// # Errors
/// The system's, or `PROTO` for a message that is not ours; or what has been taken out and is lost, as the descriptor is when this
/// process may have no other.
pub(crate) fn receive(channel: BorrowedFd<'_>) -> Result<Option<Message>, Lost> {
    let mut header = [0; HEADER_1];
    let mut bytes = vec![0; HEADER - HEADER_1 + INLINE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = loop {
        let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(&mut bytes)];
        match recvmsg(channel, &mut parts, &mut control, flags) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(Lost { error, label: None }),
            Ok(message) => break message,
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    match (header[0], message.bytes) {
        (LOOK, 1) => return Ok(Some(Message::Look)),
        (GIVE, ASK) => {
            let than = header[1..ASK]
                .first_chunk()
                .map_or(0, |than| u64::from_be_bytes(*than));
            return Ok(Some(Message::Give(Moment::from_micros(than))));
        }
        _ => {}
    }
    bytes.truncate(message.bytes.saturating_sub(HEADER_1));
    let read = Label::read(header, &bytes).filter(|_| message.bytes >= HEADER_1);
    let Some((label, rest)) = read else {
        return Err(Lost {
            error: Errno::PROTO,
            label: None,
        });
    };
    bytes.drain(..rest);
    let lost = |error| Lost {
        error,
        label: Some(label),
    };
    let mut descriptors = descriptors.into_iter();
    let socket = descriptors.next().ok_or_else(|| lost(Errno::MFILE))?;
    let mut length = [0; 8];
    length.copy_from_slice(&header[2..]);
    let in_memory = usize::try_from(u64::from_be_bytes(length)).map_err(|_| lost(Errno::PROTO))?;
    if in_memory > 0 {
        let memory = descriptors.next().ok_or_else(|| lost(Errno::MFILE))?;
        bytes = read_memory(&memory, in_memory).map_err(lost)?;
    }
    Ok(Some(Message::Parcel(Parcel {
        socket,
        bytes,
        label,
    })))
}

/// Why nothing could be received.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) error: Errno,
    /// What was written on a parcel that has been taken out of the channel, and is lost; none if there is none, or nobody can read
    /// it.
    pub(crate) label: Option<Label>,
}

impl Label {
    /// The header of a message without a memfd.
    fn write(self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0] = FORMAT;
        header[1] = match (self.queued_since, self.waits) {
            (None, _) => NO_REQUEST,
            (Some(_), Waits::OnOpen) => REQUEST_ON_OPEN,
            (Some(_), Waits::OnNew) => REQUEST_ON_NEW,
        };
        let since = self.queued_since.unwrap_or_default();
        header[HEADER_1..HEADER_2].copy_from_slice(&since.as_micros().to_be_bytes());
        header[HEADER_2..].copy_from_slice(&self.scoreboard.to_be_bytes());
        header
    }

    /// Reads the first part of a header, with what follows it; says how much of that belongs to it. None for an unknown format.
    fn read(header: [u8; HEADER_1], rest: &[u8]) -> Option<(Self, usize)> {
        let number = |start: usize| {
            let bytes = rest.get(start..)?.first_chunk()?;
            Some(u64::from_be_bytes(*bytes))
        };
        let (since, scoreboard, length) = match header[0] {
            FORMAT_1 => (Moment::now(), 0, 0),
            FORMAT_2 => (Moment::from_micros(number(0)?), 0, HEADER_2 - HEADER_1),
            FORMAT => {
                let since = Moment::from_micros(number(0)?);
                (since, number(HEADER_2 - HEADER_1)?, HEADER - HEADER_1)
            }
            _ => return None,
        };
        let label = Self {
            queued_since: (header[1] != NO_REQUEST).then_some(since),
            waits: if header[1] == REQUEST_ON_NEW {
                Waits::OnNew
            } else {
                Waits::OnOpen
            },
            scoreboard,
        };
        Some((label, length))
    }
}

/// Since when the request waits that [`receive`] would take, unless another process is faster. None if there is none, or if what
/// is there does not say it.
pub(crate) fn peek(channel: BorrowedFd<'_>) -> Option<Moment> {
    let mut header = [0; HEADER];
    let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
    let (length, _) = recv(channel, &mut header[..], flags).ok()?;
    let (first, rest) = header.split_first_chunk()?;
    let (label, _) = Label::read(*first, rest)?;
    label.queued_since.filter(|_| length == HEADER)
}

fn in_memory(bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let memory = memfd_create("fe-php-handover", MemfdFlags::CLOEXEC)?;
    let mut offset = 0;
    while offset < bytes.len() {
        match pwrite(&memory, &bytes[offset..], offset as u64) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(written) => offset += written,
        }
    }
    Ok(memory)
}

fn read_memory(memory: &OwnedFd, length: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; length];
    let mut offset = 0;
    while offset < length {
        match pread(memory, &mut bytes[offset..], offset as u64) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(0) => return Err(Errno::PROTO),
            Ok(read) => offset += read,
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn channel() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("socketpair")
    }

    fn parcel(receiver: &OwnedFd) -> Parcel {
        match receive(receiver.as_fd()).expect("receive") {
            Some(Message::Parcel(parcel)) => parcel,
            other => panic!("not a parcel: {other:?}"),
        }
    }

    #[test]
    fn a_call_is_told_from_a_connection() {
        let (sender, receiver) = channel();
        call(sender.as_fd()).expect("send");
        ask(sender.as_fd(), Moment::from_micros(7)).expect("send");
        let message = || receive(receiver.as_fd()).expect("receive");
        assert!(matches!(message(), Some(Message::Look)));
        assert!(matches!(message(), Some(Message::Give(than)) if than.as_micros() == 7));
    }

    fn round_trip(bytes: &[u8]) {
        let (sender, receiver) = channel();
        let (mut client, server) = UnixStream::pair().expect("pair");
        let since = Moment::from_micros(123_456_789);
        let label = Label {
            queued_since: Some(since),
            waits: Waits::OnNew,
            scoreboard: 0x0123_4567_89ab_cdef,
        };
        send(sender.as_fd(), server.as_fd(), bytes, label).expect("send");
        drop(server);
        assert_eq!(peek(receiver.as_fd()), Some(since));
        let parcel = parcel(&receiver);
        assert_eq!(peek(receiver.as_fd()), None);
        assert_eq!(parcel.bytes, bytes);
        assert_eq!(parcel.label, label);
        let mut passed = UnixStream::from(parcel.socket);
        passed.write_all(b"still open").expect("write");
        drop(passed);
        let mut text = String::new();
        client.read_to_string(&mut text).expect("read");
        assert_eq!(text, "still open");
        assert!(receive(receiver.as_fd()).expect("receive").is_none());
    }

    #[test]
    fn a_connection_arrives_with_its_bytes() {
        round_trip(b"");
        round_trip(b"half a record");
        round_trip(&[7; INLINE]);
        round_trip(&vec![7; 3 << 20]);
    }

    #[test]
    fn a_connection_without_a_request_is_told_apart() {
        let (sender, receiver) = channel();
        let (_client, server) = UnixStream::pair().expect("pair");
        let label = Label {
            queued_since: None,
            waits: Waits::OnOpen,
            scoreboard: 1,
        };
        send(sender.as_fd(), server.as_fd(), b"half", label).expect("send");
        assert_eq!(parcel(&receiver).label, label);
    }

    #[test]
    fn of_a_connection_whose_descriptor_is_cut_off_the_label_is_left() {
        let (sender, receiver) = channel();
        let label = Label {
            queued_since: Some(Moment::from_micros(5)),
            waits: Waits::OnOpen,
            scoreboard: 7,
        };
        rustix::net::send(&sender, &label.write(), SendFlags::empty()).expect("send");
        let lost = receive(receiver.as_fd()).expect_err("no descriptor");
        assert_eq!(lost.label, Some(label));
        rustix::net::send(&sender, &[99; HEADER], SendFlags::empty()).expect("send");
        let lost = receive(receiver.as_fd()).expect_err("an unknown format");
        assert_eq!((lost.error, lost.label), (Errno::PROTO, None));
    }

    #[test]
    fn earlier_formats_are_understood() {
        for (format, length) in [(FORMAT_1, HEADER_1), (FORMAT_2, HEADER_2)] {
            let (sender, receiver) = channel();
            let (_client, server) = UnixStream::pair().expect("pair");
            let mut message = vec![0; length];
            message[..2].copy_from_slice(&[format, 1]);
            message.extend_from_slice(b"abc");
            let descriptors = [server.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
            let flags = SendFlags::empty();
            sendmsg(&sender, &[IoSlice::new(&message)], &mut control, flags).expect("send");
            let parcel = parcel(&receiver);
            assert_eq!(parcel.bytes, b"abc");
            assert!(parcel.label.queued_since.is_some());
            assert_eq!(parcel.label.scoreboard, 0);
        }
    }
}
