//! A blocking FastCGI client that sends exactly the bytes it is told to and gives up at a deadline.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(crate) use super::request::Request;

/// Record types.
pub(crate) const BEGIN_REQUEST: u8 = 1;
pub(crate) const ABORT_REQUEST: u8 = 2;
pub(crate) const END_REQUEST: u8 = 3;
pub(crate) const PARAMS: u8 = 4;
pub(crate) const STDIN: u8 = 5;
pub(crate) const STDOUT: u8 = 6;
pub(crate) const STDERR: u8 = 7;
pub(crate) const GET_VALUES: u8 = 9;
pub(crate) const GET_VALUES_RESULT: u8 = 10;
pub(crate) const UNKNOWN_TYPE: u8 = 11;

/// Values of `protocolStatus`.
pub(crate) const REQUEST_COMPLETE: u8 = 0;
pub(crate) const CANT_MPX_CONN: u8 = 1;
pub(crate) const OVERLOADED: u8 = 2;
pub(crate) const UNKNOWN_ROLE: u8 = 3;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket file.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
}

/// A connection to a FastCGI server.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    received: Vec<u8>,
    partial: HashMap<u16, Response>,
    timeout: Duration,
}

/// One record as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: u8,
    pub(crate) id: u16,
    pub(crate) content: Vec<u8>,
}

/// A whole answer.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Response {
    /// From the `Status` header; 200 without one.
    pub(crate) status: u16,
    /// In the order in which they came, `Status` included.
    pub(crate) headers: Vec<(String, String)>,
    /// All bytes up to the empty line, without it.
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) app_status: u32,
    pub(crate) protocol_status: u8,
    /// The whole output of an answer that is not finished.
    pub(crate) stdout: Vec<u8>,
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Address {
    /// A path, or `host:port`.
    pub(crate) fn parse(text: &str) -> Self {
        if text.contains('/') {
            Self::Unix(text.into())
        } else {
            Self::Tcp(text.to_owned())
        }
    }
}

impl Connection {
    /// Connects; panics if it cannot.
    pub(crate) fn open(address: &Address) -> Self {
        Self::try_open(address).unwrap_or_else(|error| panic!("{address:?}: {error}"))
    }

    /// Connects.
    pub(crate) fn try_open(address: &Address) -> io::Result<Self> {
        let stream = match address {
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
            Address::Tcp(host) => {
                let stream = TcpStream::connect(host)?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
        };
        let mut connection = Self {
            stream,
            received: Vec::new(),
            partial: HashMap::new(),
            timeout: Duration::ZERO,
        };
        connection.set_timeout(super::DEADLINE)?;
        Ok(connection)
    }

    /// How long a read or write may take.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.timeout = timeout;
        match &self.stream {
            Stream::Unix(stream) => stream.set_write_timeout(Some(timeout)),
            Stream::Tcp(stream) => stream.set_write_timeout(Some(timeout)),
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes)
            .unwrap_or_else(|error| panic!("sending {} bytes: {error}", bytes.len()));
    }

    /// Sends bytes as they are, where the server may have closed.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends `request` and returns its answer.
    pub(crate) fn exchange(&mut self, request: &Request) -> Response {
        let (id, response) = self
            .try_exchange(request)
            .unwrap_or_else(|error| panic!("{error}; so far {self:?}"));
        assert_eq!(
            id,
            request.id(),
            "the answer to another request: {response:?}"
        );
        response
    }

    /// Sends `request` and returns the next answer. The two overlap, so neither side can block the other.
    pub(crate) fn try_exchange(&mut self, request: &Request) -> io::Result<(u16, Response)> {
        let bytes = request.encode();
        let mut writer = self.stream.try_clone()?;
        if bytes.len() <= 16 * 1024 {
            // A server may answer without reading everything, and close: then only the answer counts.
            drop(writer.write_all(&bytes));
            return self.try_next_response();
        }
        std::thread::scope(|scope| {
            scope.spawn(move || drop(writer.write_all(&bytes)));
            self.try_next_response()
        })
    }

    /// The answer to the request with this id, which must be the next one that is complete.
    pub(crate) fn response(&mut self, id: u16) -> Response {
        let (found, response) = self.next_response();
        assert_eq!(found, id, "the answer to another request: {response:?}");
        response
    }

    /// The next answer that is complete, whichever request it belongs to.
    pub(crate) fn next_response(&mut self) -> (u16, Response) {
        self.try_next_response()
            .unwrap_or_else(|error| panic!("{error}; so far {:?}", self.partial))
    }

    /// The next answer that is complete; an error if the connection ends or the deadline passes before.
    pub(crate) fn try_next_response(&mut self) -> io::Result<(u16, Response)> {
        loop {
            let record = self.try_record()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if let Some(response) = self.collect(&record) {
                return Ok((record.id, response));
            }
        }
    }

    /// Adds a record to the answer it belongs to, and returns that when it is complete.
    pub(crate) fn collect(&mut self, record: &Record) -> Option<Response> {
        let response = self.partial.entry(record.id).or_default();
        match record.kind {
            STDOUT => response.stdout.extend_from_slice(&record.content),
            STDERR => response.stderr.extend_from_slice(&record.content),
            END_REQUEST => {
                let mut response = self.partial.remove(&record.id)?;
                response.finish(&record.content);
                return Some(response);
            }
            kind => panic!("record of type {kind} in an answer"),
        }
        None
    }

    /// What has come so far as standard output of the request with this id.
    pub(crate) fn stdout_so_far(&self, id: u16) -> &[u8] {
        self.partial
            .get(&id)
            .map_or(&[], |response| &response.stdout)
    }

    /// The next record; panics if the connection ends or the deadline passes.
    pub(crate) fn record(&mut self) -> Record {
        match self.try_record() {
            Ok(Some(record)) => record,
            Ok(None) => panic!(
                "connection closed, where a record was expected; so far {:?}",
                self.partial
            ),
            Err(error) => panic!("waiting for a record: {error}; so far {:?}", self.partial),
        }
    }

    /// The next record, or `None` at the end of the connection.
    pub(crate) fn try_record(&mut self) -> io::Result<Option<Record>> {
        let end = Instant::now() + self.timeout;
        if !self.fill(8, end)? {
            return Ok(None);
        }
        let header: [u8; 8] = self.received[..8].try_into().unwrap();
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        assert_eq!(header[0], 1, "FastCGI version in {header:?}");
        if !self.fill(8 + length + usize::from(header[6]), end)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let content = self.received[8..8 + length].to_vec();
        self.received.drain(..8 + length + usize::from(header[6]));
        Ok(Some(Record {
            kind: header[1],
            id: u16::from_be_bytes([header[2], header[3]]),
            content,
        }))
    }

    /// Waits until the server closes; panics if it sends anything before or does not.
    pub(crate) fn expect_close(&mut self) {
        match self.try_record() {
            Ok(None) => {}
            Ok(Some(record)) => panic!("{record:?}, where the connection should close"),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("waiting for the connection to close: {error}"),
        }
    }

    /// Whether bytes or the end of the connection are there within `time`. Consumes nothing.
    pub(crate) fn is_readable_within(&mut self, time: Duration) -> bool {
        if !self.received.is_empty() {
            return true;
        }
        match self.read_some(Instant::now() + time) {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::TimedOut,
        }
    }

    /// Whether bytes or the end of the connection are there now. Consumes nothing.
    pub(crate) fn has_input(&self) -> bool {
        let mut wanted = [PollFd::new(&self.stream, PollFlags::IN)];
        !self.received.is_empty() || poll(&mut wanted, Some(&Timespec::default())).unwrap() > 0
    }

    /// Ends the sending direction: a half-closed connection.
    pub(crate) fn shutdown_write(&self) {
        match &self.stream {
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
        }
        .unwrap();
    }

    /// Closes, on TCP by a reset, so that the server's next system call on the connection fails. (A Unix socket has no such
    /// thing; there it is closed.)
    pub(crate) fn reset(self) {
        if let Stream::Tcp(stream) = &self.stream {
            let socket = socket2::SockRef::from(stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
    }

    /// A second handle on the same connection.
    pub(crate) fn try_clone_writer(&self) -> impl Write + Send + use<> {
        self.stream.try_clone().unwrap()
    }

    /// Reads until `count` bytes are in the buffer; `false` if the connection ends before the first.
    fn fill(&mut self, count: usize, end: Instant) -> io::Result<bool> {
        while self.received.len() < count {
            if self.read_some(end)? == 0 {
                return if self.received.is_empty() {
                    Ok(false)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
        Ok(true)
    }

    fn read_some(&mut self, end: Instant) -> io::Result<usize> {
        let left = end
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        self.stream.set_read_timeout(left)?;
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::ErrorKind::TimedOut.into())
            }
            Err(error) => Err(error),
        }
    }
}

impl Response {
    /// The value of a header, if it is there exactly once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(header, _)| header.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} twice in {self:?}");
        value
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What went to the error stream, as text.
    pub(crate) fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    fn finish(&mut self, end: &[u8]) {
        assert_eq!(end.len(), 8, "length of END_REQUEST");
        self.app_status = u32::from_be_bytes([end[0], end[1], end[2], end[3]]);
        self.protocol_status = end[4];
        let stdout = std::mem::take(&mut self.stdout);
        match stdout.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(position) => {
                self.head = stdout[..position].to_vec();
                self.body = stdout[position + 4..].to_vec();
            }
            None => self.body = stdout,
        }
        for line in String::from_utf8_lossy(&self.head)
            .split("\r\n")
            .filter(|line| !line.is_empty())
        {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            self.headers
                .push((name.to_owned(), value.trim().to_owned()));
        }
        let status = self
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("Status"));
        self.status = status.map_or(200, |(_, value)| {
            value[..value.len().min(3)].parse().unwrap_or(0)
        });
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short =
            |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned();
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("head", &short(&self.head))
            .field("body", &short(&self.body))
            .field("stderr", &short(&self.stderr))
            .field("unfinished", &short(&self.stdout))
            .field("app_status", &self.app_status)
            .field("protocol_status", &self.protocol_status)
            .finish()
    }
}

impl Stream {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
        })
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
