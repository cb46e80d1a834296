//! An answer as it comes: records walked without a copy of the body.
//!
//! [`ResponseDecoder`](crate::fastcgi::ResponseDecoder) wants whole records, and so a buffer per connection into which
//! a record's pieces are gathered. Here only its length counts, and an answer is often one piece.

use memchr::memmem;

use super::request::ID;
use crate::fastcgi::{HEADER_LEN, ProtocolStatus, RecordType};

/// How far the answer on a connection has come.
#[derive(Debug, Default)]
pub(super) struct Answer {
    header: [u8; HEADER_LEN],
    header_length: usize,
    /// Bytes of the current record's content, and of its padding, that have not come.
    content: usize,
    padding: usize,
    /// The header block, until it is complete.
    head: Vec<u8>,
    /// The body has begun.
    in_body: bool,
    status: u16,
    body_length: u64,
    /// The last record's content, of up to 8 bytes.
    end: [u8; 8],
    ended: bool,
    stderr: String,
    /// The start of a body that comes with an error status.
    excerpt: String,
}

/// A complete answer.
#[derive(Debug)]
pub(super) struct Complete {
    pub(super) status: u16,
    pub(super) body_length: u64,
}

/// What is wrong with an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AnswerError {
    /// The server refuses the request.
    Refused(&'static str),
    /// The server breaks the protocol.
    Malformed(String),
}

impl Answer {
    /// Forgets everything for the next answer.
    pub(super) fn reset(&mut self) {
        self.head.clear();
        self.stderr.clear();
        self.excerpt.clear();
        *self = Self {
            head: std::mem::take(&mut self.head),
            stderr: std::mem::take(&mut self.stderr),
            excerpt: std::mem::take(&mut self.excerpt),
            ..Self::default()
        };
    }

    /// Whether a part of it has come.
    pub(super) fn has_begun(&self) -> bool {
        self.header_length > 0
    }

    /// What the server wrote to the error stream.
    pub(super) fn stderr(&self) -> &str {
        &self.stderr
    }

    /// How the body of an answer with an error status begins.
    pub(super) fn excerpt(&self) -> &str {
        &self.excerpt
    }

    /// Takes bytes; the answer once it is complete.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<Option<Complete>, AnswerError> {
        loop {
            if self.ended && self.padding == 0 {
                if !bytes.is_empty() {
                    return Err(malformed("bytes after the end of the answer"));
                }
                return self.complete().map(Some);
            }
            if bytes.is_empty() {
                return Ok(None);
            }
            if self.content > 0 {
                let (now, rest) = bytes.split_at(bytes.len().min(self.content));
                self.take(now);
                self.content -= now.len();
                self.ended = self.content == 0 && self.kind() == Some(RecordType::EndRequest);
                bytes = rest;
            } else if self.padding > 0 {
                let now = bytes.len().min(self.padding);
                self.padding -= now;
                bytes = &bytes[now..];
            } else {
                if self.header_length == HEADER_LEN {
                    self.header_length = 0;
                }
                let now = bytes.len().min(HEADER_LEN - self.header_length);
                self.header[self.header_length..self.header_length + now]
                    .copy_from_slice(&bytes[..now]);
                self.header_length += now;
                bytes = &bytes[now..];
                if self.header_length == HEADER_LEN {
                    self.begin_record()?;
                }
            }
        }
    }

    fn kind(&self) -> Option<RecordType> {
        RecordType::from_code(self.header[1])
    }

    fn begin_record(&mut self) -> Result<(), AnswerError> {
        let [version, kind, id1, id0, length1, length0, padding, _] = self.header;
        self.content = usize::from(u16::from_be_bytes([length1, length0]));
        self.padding = usize::from(padding);
        if version != 1 {
            return Err(malformed(format!(
                "a record of FastCGI version {version}: is this a FastCGI server?"
            )));
        }
        let id = u16::from_be_bytes([id1, id0]);
        let known = match self.kind() {
            Some(RecordType::Stdout | RecordType::Stderr) => id == ID,
            Some(RecordType::EndRequest) => id == ID && self.content == self.end.len(),
            _ => false,
        };
        if known {
            return Ok(());
        }
        Err(malformed(format!(
            "a record of type {kind} for request {id} with {} bytes",
            self.content
        )))
    }

    fn take(&mut self, bytes: &[u8]) {
        match self.kind() {
            Some(RecordType::Stdout) => self.stdout(bytes),
            Some(RecordType::Stderr) => push_excerpt(&mut self.stderr, bytes),
            _ => {
                let start = self.end.len() - self.content;
                self.end[start..start + bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    fn stdout(&mut self, bytes: &[u8]) {
        if self.in_body {
            self.body(bytes);
            return;
        }
        // Mostly the whole block is in one piece.
        if self.head.is_empty()
            && let Some(end) = memmem::find(bytes, b"\r\n\r\n")
        {
            self.begin_body(status(&bytes[..end]), &bytes[end + 4..]);
            return;
        }
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let from = before.saturating_sub(3);
        if let Some(end) = memmem::find(&self.head[from..], b"\r\n\r\n") {
            let end = from + end;
            let status = status(&self.head[..end]);
            self.begin_body(status, &bytes[end + 4 - before..]);
        }
    }

    fn begin_body(&mut self, status: u16, rest: &[u8]) {
        self.in_body = true;
        self.status = status;
        self.body(rest);
    }

    fn body(&mut self, bytes: &[u8]) {
        self.body_length += bytes.len() as u64;
        if self.status >= 400 {
            push_excerpt(&mut self.excerpt, bytes);
        }
    }

    fn complete(&self) -> Result<Complete, AnswerError> {
        match ProtocolStatus::from_code(self.end[4]) {
            Some(ProtocolStatus::RequestComplete) => {}
            Some(ProtocolStatus::CantMultiplex) => {
                return Err(AnswerError::Refused("FCGI_CANT_MPX_CONN"));
            }
            Some(ProtocolStatus::Overloaded) => {
                return Err(AnswerError::Refused("FCGI_OVERLOADED"));
            }
            Some(ProtocolStatus::UnknownRole) => {
                return Err(AnswerError::Refused("FCGI_UNKNOWN_ROLE"));
            }
            None => {
                return Err(malformed(format!(
                    "the unknown protocol status {}",
                    self.end[4]
                )));
            }
        }
        if !self.in_body {
            return Err(malformed("an answer without an end of its headers"));
        }
        Ok(Complete {
            status: self.status,
            body_length: self.body_length,
        })
    }
}

fn malformed(text: impl Into<String>) -> AnswerError {
    AnswerError::Malformed(text.into())
}

/// The status that a header block says, 200 when it says none.
fn status(head: &[u8]) -> u16 {
    const NAME: &[u8] = b"status:";
    let value = head.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(NAME.len())?;
        name.eq_ignore_ascii_case(NAME).then_some(value)
    });
    let Some(value) = value else { return 200 };
    let text = value.trim_ascii_start();
    let digits = &text[..text.len().min(3)];
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

/// Keeps the first line or so for a message.
fn push_excerpt(excerpt: &mut String, bytes: &[u8]) {
    const LONGEST: usize = 160;
    if excerpt.len() < LONGEST {
        let bytes = &bytes[..bytes.len().min(LONGEST)];
        let text = String::from_utf8_lossy(bytes);
        // Neither line breaks nor escape sequences: it is shown in a terminal.
        excerpt.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c }));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fastcgi::encoder;

    fn wire(status: ProtocolStatus) -> Vec<u8> {
        let mut wire = Vec::new();
        encoder::push_stream(&mut wire, RecordType::Stderr, ID, b"note\n");
        encoder::push_stream(
            &mut wire,
            RecordType::Stdout,
            ID,
            b"X: y\r\nSTATUS: 503 Busy\r\n\r\nthe ",
        );
        encoder::push_stream(&mut wire, RecordType::Stdout, ID, b"body");
        encoder::push_stream_end(&mut wire, RecordType::Stdout, ID);
        encoder::push_end_request(&mut wire, ID, 0, status);
        wire
    }

    #[test]
    fn an_answer_is_read_whole_however_it_is_cut() {
        let wire = wire(ProtocolStatus::RequestComplete);
        let mut answer = Answer::default();
        for first in 0..wire.len() {
            for second in first..wire.len() {
                assert!(!answer.has_begun());
                assert!(answer.read(&wire[..first]).unwrap().is_none());
                assert!(answer.read(&wire[first..second]).unwrap().is_none());
                let complete = answer.read(&wire[second..]).unwrap().unwrap();
                assert_eq!((complete.status, complete.body_length), (503, 8));
                assert_eq!((answer.excerpt(), answer.stderr()), ("the body", "note "));
                answer.reset();
            }
        }
    }

    #[test]
    fn no_status_means_200() {
        assert_eq!(status(b"X-Status: 404"), 200);
        assert_eq!(status(b"A: b\r\nStatus: 404 Not Found"), 404);
        assert_eq!(status(b"Status:302"), 302);
        assert_eq!(status(b"Status: "), 0);
    }

    #[test]
    fn refusals_and_nonsense_are_errors() {
        let read = |wire: &[u8]| Answer::default().read(wire).unwrap_err();
        assert_eq!(
            read(&wire(ProtocolStatus::Overloaded)),
            AnswerError::Refused("FCGI_OVERLOADED")
        );
        let mut longer = wire(ProtocolStatus::RequestComplete);
        longer.push(1);
        assert!(matches!(read(&longer), AnswerError::Malformed(_)));
        assert!(matches!(read(b"HTTP/1.1"), AnswerError::Malformed(_)));
        let mut headless = Vec::new();
        encoder::push_end_request(&mut headless, ID, 0, ProtocolStatus::RequestComplete);
        assert!(matches!(read(&headless), AnswerError::Malformed(_)));
    }
}
