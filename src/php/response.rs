//! What a script answers to the library's caller.

use std::io::{self, Read};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::worker::Event;
use super::{Php, PhpError, ended};
use crate::engine::Outcome;

/// What a script answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    errors: Vec<u8>,
}

impl Response {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Header names and values in PHP's order; a name may come several times.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The first header of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers()
            .find(|(candidate, _)| candidate.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The body; empty in the head of a [`StreamedResponse`].
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body, without a copy.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// What PHP logged while the script ran (`error_log()`, `log_errors`), where `error_log` is not set.
    pub fn errors(&self) -> &[u8] {
        &self.errors
    }
}

#[derive(Debug, Default)]
pub(super) struct Answer {
    response: Response,
    outcome: Option<Outcome>,
}

impl Answer {
    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Head { status, headers } => {
                self.response.status = status;
                self.response.headers = headers;
            }
            Event::Chunk(chunk) => self.response.body.extend_from_slice(&chunk),
            Event::Error(text) => self.response.errors.extend_from_slice(&text),
            Event::End(outcome) => self.outcome = Some(outcome),
        }
    }

    pub(super) fn finish(self) -> Result<Response, PhpError> {
        let Some(outcome) = self.outcome else {
            return Err(ended("its thread ended"));
        };
        if let Some(reason) = outcome.panic {
            return Err(PhpError::Interrupted { reason });
        }
        if outcome.startup_failed {
            return Err(ended("php_request_startup failed"));
        }
        if outcome.exit_status == FATAL {
            let errors = String::from_utf8_lossy(&self.response.errors).into_owned();
            return Err(PhpError::Fatal {
                errors,
                response: Box::new(self.response),
            });
        }
        Ok(self.response)
    }
}

/// PHP's exit status after a fatal error or an uncaught exception.
const FATAL: i32 = 255;

/// An answer whose body comes while the script runs. Dropping it tells the script that its client has gone.
#[derive(Debug)]
pub struct StreamedResponse {
    head: Response,
    events: mpsc::Receiver<Event>,
    rest: Bytes,
    /// The script's last word has come.
    over: bool,
    /// PHP's end waits for the script, which waits for its reader; so PHP goes on while somebody reads. Dropped last.
    _php: Php,
}

impl StreamedResponse {
    pub(super) fn new(php: &Php, answer: Answer, events: mpsc::Receiver<Event>) -> Self {
        Self {
            head: answer.response,
            events,
            rest: Bytes::new(),
            over: false,
            _php: php.clone(),
        }
    }

    pub(super) fn ended(php: &Php, head: Response, events: mpsc::Receiver<Event>) -> Self {
        Self {
            head,
            events,
            rest: Bytes::new(),
            over: true,
            _php: php.clone(),
        }
    }

    /// Status and headers.
    pub fn head(&self) -> &Response {
        &self.head
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// As [`Php::execute`]: what went wrong after the headers.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, PhpError> {
        loop {
            let event = if self.over {
                None
            } else {
                self.events.recv().await
            };
            if let Some(answer) = self.advance(event) {
                return answer;
            }
        }
    }

    /// As [`chunk`](Self::chunk), from code that is not async.
    ///
    /// # Errors
    /// The same.
    ///
    /// # Panics
    /// In async code, whose thread must not block.
    pub fn blocking_chunk(&mut self) -> Result<Option<Bytes>, PhpError> {
        loop {
            let event = if self.over {
                None
            } else {
                self.events.blocking_recv()
            };
            if let Some(answer) = self.advance(event) {
                return answer;
            }
        }
    }

    /// `None`: there is nothing to tell yet.
    fn advance(&mut self, event: Option<Event>) -> Option<Result<Option<Bytes>, PhpError>> {
        match event {
            Some(Event::Chunk(chunk)) => Some(Ok(Some(chunk))),
            Some(Event::End(outcome)) => {
                self.over = true;
                let answer = Answer {
                    response: self.head.clone(),
                    outcome: Some(outcome),
                };
                Some(answer.finish().map(|_| None))
            }
            Some(Event::Error(text)) => {
                self.head.errors.extend_from_slice(&text);
                None
            }
            Some(Event::Head { .. }) => None,
            None if self.over => Some(Ok(None)),
            None => {
                self.over = true;
                Some(Err(ended("its thread ended")))
            }
        }
    }
}

impl Read for StreamedResponse {
    /// Blocks, so in async code it panics. An error of the script is an [`io::Error`] that holds a [`PhpError`].
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.blocking_chunk() {
                Ok(Some(chunk)) => self.rest = chunk,
                Ok(None) => return Ok(0),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}
