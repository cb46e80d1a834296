//! The neutral words between a protocol and PHP: [`Variables`], [`Body`], [`ResponseHead`], [`ResponseSink`].

use std::fmt;
use std::io::Read;
use std::ops::Range;

/// CGI variables in the order in which they arrived.
///
/// Names and values are bytes; they live in one buffer, so a request costs two allocations however many variables it
/// has. A name that was set twice has its last value, as in php-fpm (`fcgi_hash_set`, main/fastcgi.c).
#[derive(Clone, Default)]
pub struct Variables {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// Where in the buffer of [`Variables`] a pair is.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: Range<usize>,
    pub(crate) value: Range<usize>,
}

impl Variables {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Room for `bytes` bytes of names and values in `count` pairs.
    pub fn with_capacity(bytes: usize, count: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            entries: Vec::with_capacity(count),
        }
    }

    /// Takes over `bytes` as they came off the wire; `entries` say where in them the pairs are.
    pub(crate) fn from_block(bytes: Vec<u8>, entries: Vec<Entry>) -> Self {
        debug_assert!(
            entries
                .iter()
                .all(|entry| entry.name.end.max(entry.value.end) <= bytes.len())
        );
        Self { bytes, entries }
    }

    /// The value of `name`.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.entries
            .iter()
            .rev()
            .find(|entry| &self.bytes[entry.name.clone()] == name)
            .map(|entry| &self.bytes[entry.value.clone()])
    }

    /// Appends a pair without looking for an earlier one of the same name: [`get`](Self::get) finds the last.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.entries.push(Entry {
            name: start..middle,
            value: middle..self.bytes.len(),
        });
    }

    /// Sets `name`, in place of its earlier values.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        self.remove(name);
        self.push(name, value);
    }

    /// Forgets `name`.
    pub fn remove(&mut self, name: &[u8]) {
        let bytes = &self.bytes;
        self.entries
            .retain(|entry| &bytes[entry.name.clone()] != name);
    }

    /// All pairs in order of arrival, duplicates included.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|entry| {
            (
                &self.bytes[entry.name.clone()],
                &self.bytes[entry.value.clone()],
            )
        })
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| {
                (
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(value),
                )
            }))
            .finish()
    }
}

/// A request as PHP is to see it.
#[derive(Debug)]
pub struct Request {
    /// CGI variables: `REQUEST_METHOD`, `QUERY_STRING`, `CONTENT_LENGTH`, `HTTP_…` and so on.
    pub variables: Variables,
    /// What to run.
    pub script: Script,
    /// What `php://input` reads.
    pub body: Body,
}

/// The body of a request.
#[derive(Default)]
pub enum Body {
    /// No body.
    #[default]
    Empty,
    /// A body that is there as a whole.
    Complete(Vec<u8>),
    /// A body that is read while PHP runs; `read` blocks until there are bytes, and answers 0 at its end.
    Stream(Box<dyn Read + Send>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Complete(bytes) => write!(f, "Complete({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// What PHP is to run for a request; `server/script.rs` finds it as php-fpm's `init_request_info` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// Run this file.
    File {
        /// The file, which becomes `SG(request_info).path_translated`.
        path: Vec<u8>,
    },
    /// There is no such file: php-fpm answers 404 `File not found.` and logs `Primary script unknown`.
    NotFound,
    /// The file's extension is not in `security.limit_extensions`: 403 `Access denied.`
    AccessDenied {
        /// The file that was asked for.
        path: Vec<u8>,
    },
}

/// Status and header lines, once, before the first byte of the body.
pub struct ResponseHead<'a> {
    /// The status code, 200 when PHP set none.
    pub status: u16,
    /// The line given to `header("HTTP/1.1 404 Nope")`, when there was one.
    pub status_line: Option<&'a [u8]>,
    /// `cgi.nph` is on: a status is wanted even when it is 200.
    pub nph: bool,
    /// `cgi.rfc2616_headers` is on: the status line is wanted as the script gave it.
    pub rfc2616_headers: bool,
    /// The other header lines (`Name: value`), in PHP's order.
    pub headers: &'a mut dyn Iterator<Item = &'a [u8]>,
}

impl fmt::Debug for ResponseHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// The client cannot be reached any more, or has aborted the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientGone;

/// Where a response goes. Its methods are called on the PHP thread that runs the request.
pub trait ResponseSink {
    /// Status and headers; called once at most, before any [`write`](Self::write).
    fn head(&mut self, head: ResponseHead<'_>) -> Result<(), ClientGone>;

    /// A piece of the body. It may be held back until [`flush`](Self::flush); it blocks while too much is unsent.
    fn write(&mut self, data: &[u8]) -> Result<(), ClientGone>;

    /// Sends what is held back (PHP's `flush()`).
    fn flush(&mut self) -> Result<(), ClientGone>;

    /// A message for the web server's error log (FastCGI's stderr stream).
    fn error(&mut self, message: &[u8]);

    /// PHP is about to start the request.
    fn begin(&mut self, start: &RequestStart<'_>) {
        let _ = start;
    }

    /// All that the request does is done; [`finish`](Self::finish) comes next.
    fn ending(&mut self, end: &RequestEnd<'_>) {
        let _ = end;
    }

    /// What `fpm_get_status()` returns; `None` makes it false.
    fn status(&mut self) -> Option<StatusArrays> {
        None
    }

    /// The response is complete (`fastcgi_finish_request()`, or the end of the request): the client gets all of it
    /// now, though PHP may go on running.
    fn finish(&mut self) -> Result<(), ClientGone>;
}

/// A request as it begins.
#[derive(Debug, Clone, Copy)]
pub struct RequestStart<'r> {
    /// `REQUEST_METHOD`
    pub method: &'r [u8],
    /// `SG(request_info).request_uri`: `SCRIPT_NAME`, without the query.
    pub request_uri: &'r [u8],
    /// `QUERY_STRING`
    pub query_string: &'r [u8],
    /// The script's file; empty if there is none.
    pub script: &'r [u8],
    /// `HTTP_AUTHORIZATION`
    pub authorization: &'r [u8],
    /// `CONTENT_LENGTH`, as PHP takes it.
    pub content_length: u64,
}

/// A request at its end.
#[derive(Debug, Clone, Copy)]
pub struct RequestEnd<'r> {
    /// CGI variables.
    pub variables: &'r Variables,
    /// `zend_memory_peak_usage(1)`, in bytes.
    pub memory_peak: usize,
    /// `SG(sapi_headers).http_response_code`: what the script set last, whether or not the client got that.
    pub status: u16,
}

/// A value that `fpm_get_status()` returns.
#[derive(Debug, Clone, PartialEq)]
pub enum StatusValue {
    /// `int`
    Long(i64),
    /// `float`
    Double(f64),
    /// `string`
    String(Vec<u8>),
}

/// What `fpm_get_status()` returns.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusArrays {
    /// The pool's figures.
    pub pool: Vec<(&'static str, StatusValue)>,
    /// The last element, `procs`: a list of arrays.
    pub procs: Vec<Vec<(&'static str, StatusValue)>>,
}
