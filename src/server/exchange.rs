//! One request between its connection and the PHP thread that runs it: the response on its way out.
//!
//! The response is built in wire format: the 8 bytes of a record's header are reserved when its first byte comes and
//! filled in when it is full or must leave. It leaves when it has grown to [`SEND_AT`], at `flush()`, at the end, and
//! when the helper thread looks after running requests, so that a page that prints its progress is seen to do so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::body::BodyPipe;
use super::output::Output;
use super::status_line::write_status;
use crate::fastcgi::{HEADER_LEN, ProtocolStatus, RecordType, encoder};
use crate::request::{
    ClientGone, RequestEnd, RequestStart, ResponseHead, ResponseSink, StatusArrays,
};

/// Bytes of response that are gathered before they are sent.
const SEND_AT: usize = 64 << 10;
/// Room for the answers that need no more; a size for which allocators are fast.
const SMALL_ANSWER: usize = 1000;
/// The longest content of a record that needs no padding.
const RECORD_CONTENT: usize = 0xfff8;

/// Shared by the connection (which may abort it) and the PHP thread.
#[derive(Debug)]
pub(crate) struct Exchange {
    output: Arc<Output>,
    id: u16,
    /// FCGI_ABORT_REQUEST has come.
    aborted: AtomicBool,
    /// END_REQUEST is out: the id may be used again.
    ended: AtomicBool,
    /// Its connection is to rest from its end on.
    rests: AtomicBool,
    /// The body, where it is streamed.
    body: OnceLock<Arc<BodyPipe>>,
    response: Mutex<Response>,
}

#[derive(Debug, Default)]
struct Response {
    wire: Vec<u8>,
    /// Where the open record's header begins, and what it is.
    open: Option<(usize, RecordType)>,
    /// There has been output.
    begun: bool,
}

impl Exchange {
    pub(crate) fn new(output: Arc<Output>, id: u16) -> Self {
        Self {
            output,
            id,
            aborted: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            rests: AtomicBool::new(false),
            body: OnceLock::new(),
            response: Mutex::new(Response::default()),
        }
    }

    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    pub(crate) fn output(&self) -> &Arc<Output> {
        &self.output
    }

    /// The client wants no answer any more. PHP learns it at its next write.
    pub(crate) fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
    }

    /// What comes on its connection after its end is not to be told before [`Output::set_resting`] says so.
    pub(crate) fn let_rest(&self) {
        self.rests.store(true, Ordering::Relaxed);
    }

    /// Whether END_REQUEST has been sent, or queued.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Called by the helper thread every 20 ms or so: sends what waits.
    pub(crate) fn tick(&self) {
        // epoll does not watch every connection while its request runs.
        let _ = self.output.flush();
        if self.output.is_backlogged() {
            return; // it stays here until the script has to wait for its client
        }
        // Whoever holds the lock is writing just now.
        if let Some(mut response) = self.response.try_lock()
            && !response.wire.is_empty()
            && !self.is_ended()
        {
            response.close_record();
            // A client that has gone is noticed by the script at its own next write.
            let _ = self.output.send(&response.wire);
            response.wire.clear();
        }
    }

    /// This process will not answer it: it has been passed on before it started.
    pub(crate) fn disown(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Its body comes through `pipe`.
    pub(super) fn set_body(&self, pipe: Arc<BodyPipe>) {
        // It has one body.
        let _ = self.body.set(pipe);
    }

    /// The request has taken too long: its script no longer waits for its client, neither for the rest of a body nor to be
    /// rid of its output. From any thread.
    pub(super) fn expire(&self) {
        if let Some(body) = self.body.get() {
            body.end();
        }
        if self.output.is_backlogged() {
            self.output.mark_broken();
        }
    }

    /// Ends the request in the place of a script that does not end. The answer is a 504 unless there has been output; then the
    /// connection is closed, so that nobody takes half a page for a whole one.
    pub(super) fn give_up(&self) {
        // A script that waits with the lock waits for its client.
        let Some(mut response) = self.response.try_lock() else {
            return self.output.mark_broken();
        };
        if self.is_ended() {
            return;
        }
        if response.begun {
            drop(response);
            return self.output.mark_broken();
        }
        response.open_record(RecordType::Stdout, self.id);
        response.wire.extend_from_slice(TIMED_OUT);
        drop(response);
        // A client that has gone needs no answer.
        let _ = self.end(ProtocolStatus::RequestComplete);
    }

    /// Answers a request with `page`, headers and all, in the place of a script.
    pub(super) fn answer(&self, page: &[u8]) {
        // A client that has gone needs no answer.
        let _ = self.push(RecordType::Stdout, page, false);
        let _ = self.end(ProtocolStatus::RequestComplete);
    }

    fn push(&self, kind: RecordType, mut data: &[u8], wait: bool) -> Result<(), ClientGone> {
        let mut response = self.response.lock();
        if self.is_ended() {
            return Ok(()); // after fastcgi_finish_request
        }
        while !data.is_empty() {
            let room = response.open_record(kind, self.id);
            let (now, rest) = data.split_at(data.len().min(room));
            response.wire.extend_from_slice(now);
            data = rest;
            if response.wire.len() >= SEND_AT {
                self.send(&mut response, wait)?;
            }
        }
        self.alive()
    }

    fn alive(&self) -> Result<(), ClientGone> {
        if self.is_gone() {
            Err(ClientGone)
        } else {
            Ok(())
        }
    }

    fn send(&self, response: &mut Response, wait: bool) -> Result<(), ClientGone> {
        response.close_record();
        let sent = if self.is_gone() {
            Err(ClientGone)
        } else if wait {
            self.output.send_and_wait(&response.wire)
        } else {
            self.output.send(&response.wire)
        };
        response.wire.clear();
        sent
    }

    /// Passes on a piece of an answer that another process makes, at once.
    pub(crate) fn forward(&self, kind: RecordType, data: &[u8]) -> Result<(), ClientGone> {
        self.push(kind, data, false)?;
        let mut response = self.response.lock();
        if response.wire.is_empty() {
            Ok(())
        } else {
            self.send(&mut response, false)
        }
    }

    fn head(&self, head: ResponseHead<'_>) -> Result<(), ClientGone> {
        let block = {
            let mut response = self.response.lock();
            if self.is_ended() {
                return Ok(());
            }
            response.open_record(RecordType::Stdout, self.id);
            let start = response.wire.len();
            write_status(&mut response.wire, head);
            if response.content() <= RECORD_CONTENT {
                return self.alive();
            }
            response.wire.split_off(start)
        };
        self.push(RecordType::Stdout, &block, true)
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.aborted.load(Ordering::Relaxed) || self.output.is_broken()
    }

    /// Sends the rest and END_REQUEST; does nothing the second time.
    pub(crate) fn end(&self, status: ProtocolStatus) -> Result<(), ClientGone> {
        let mut response = self.response.lock();
        if self.is_ended() {
            return Ok(());
        }
        response.close_record();
        if status == ProtocolStatus::RequestComplete {
            response
                .wire
                .extend_from_slice(&encoder::header(RecordType::Stdout, self.id, 0, 0));
        }
        encoder::push_end_request(&mut response.wire, self.id, 0, status);
        if self.rests.load(Ordering::Relaxed) {
            self.output.set_resting(true);
        }
        // Before the bytes: the peer may use the id again as soon as it has them. Under the output's lock: whoever sees it
        // and then asks whether everything has left must not hear yes before these bytes have gone.
        let sent = self
            .output
            .send_after(|| self.ended.store(true, Ordering::Release), &response.wire);
        response.wire = Vec::new();
        sent
    }
}

impl Response {
    /// Makes sure that a record of `kind` is open, and says how much it still takes.
    fn open_record(&mut self, kind: RecordType, id: u16) -> usize {
        if let Some((_, open)) = self.open {
            let content = self.content();
            if open == kind && content < RECORD_CONTENT {
                return RECORD_CONTENT - content;
            }
            self.close_record();
        }
        if self.wire.capacity() == 0 {
            self.wire.reserve(SMALL_ANSWER);
        }
        self.open = Some((self.wire.len(), kind));
        self.begun |= kind == RecordType::Stdout;
        self.wire
            .extend_from_slice(&encoder::header(kind, id, 0, 0));
        RECORD_CONTENT
    }

    /// Bytes of content in the open record.
    fn content(&self) -> usize {
        self.open
            .map_or(0, |(start, _)| self.wire.len() - start - HEADER_LEN)
    }

    fn close_record(&mut self) {
        let content = self.content();
        if let Some((start, _)) = self.open.take() {
            // RECORD_CONTENT keeps it within 16 bits.
            let length = u16::try_from(content).unwrap_or(u16::MAX).to_be_bytes();
            let padding = content.wrapping_neg() % 8;
            self.wire[start + 4..start + 6].copy_from_slice(&length);
            self.wire[start + 6] = u8::try_from(padding).unwrap_or(0);
            self.wire.extend_from_slice(&[0; 8][..padding]);
        }
    }
}

/// The answer to a request that could not be ended.
const TIMED_OUT: &[u8] =
    b"Status: 504 Gateway Timeout\r\nContent-type: text/plain; charset=UTF-8\r\n\r\n\
    The script took too long.\n";

/// The sink that PHP writes to.
#[derive(Debug)]
pub(crate) struct FastcgiSink<A: Account> {
    exchange: Arc<Exchange>,
    account: A,
}

/// Who keeps account of requests.
pub(crate) trait Account {
    /// A request begins.
    fn begin(&mut self, start: &RequestStart<'_>);

    /// Whether [`head`](Self::head) is to have the header lines.
    fn wants_headers(&self) -> bool;

    /// The answer begins, with these lines if they are wanted.
    fn head(&mut self, lines: &[&[u8]]);

    /// The request is over but for the end of its answer.
    fn end(&mut self, end: &RequestEnd<'_>, output: &Output);

    /// For `fpm_get_status()`.
    fn status(&self) -> Option<StatusArrays>;
}

/// Nobody does, in tests of the protocol.
#[cfg(any(test, fuzzing))]
#[derive(Debug)]
pub(crate) struct NoAccount;

#[cfg(any(test, fuzzing))]
impl Account for NoAccount {
    fn begin(&mut self, _: &RequestStart<'_>) {}

    fn wants_headers(&self) -> bool {
        false
    }

    fn head(&mut self, _: &[&[u8]]) {}

    fn end(&mut self, _: &RequestEnd<'_>, _: &Output) {}

    fn status(&self) -> Option<StatusArrays> {
        None
    }
}

impl<A: Account> FastcgiSink<A> {
    pub(crate) fn new(exchange: Arc<Exchange>, account: A) -> Self {
        Self { exchange, account }
    }
}

impl<A: Account> ResponseSink for FastcgiSink<A> {
    fn begin(&mut self, start: &RequestStart<'_>) {
        self.account.begin(start);
    }

    fn ending(&mut self, end: &RequestEnd<'_>) {
        self.account.end(end, self.exchange.output());
    }

    fn status(&mut self) -> Option<StatusArrays> {
        self.account.status()
    }

    fn head(&mut self, head: ResponseHead<'_>) -> Result<(), ClientGone> {
        if !self.account.wants_headers() {
            return self.exchange.head(head);
        }
        let lines: Vec<&[u8]> = head.headers.collect();
        self.account.head(&lines);
        self.exchange.head(ResponseHead {
            status: head.status,
            status_line: head.status_line,
            nph: head.nph,
            rfc2616_headers: head.rfc2616_headers,
            headers: &mut lines.into_iter(),
        })
    }

    fn write(&mut self, data: &[u8]) -> Result<(), ClientGone> {
        self.exchange.push(RecordType::Stdout, data, true)
    }

    fn flush(&mut self) -> Result<(), ClientGone> {
        let mut response = self.exchange.response.lock();
        if self.exchange.is_ended() {
            return Ok(());
        }
        if response.wire.is_empty() {
            return self.exchange.alive();
        }
        self.exchange.send(&mut response, true)
    }

    fn error(&mut self, message: &[u8]) {
        // A client that has gone is noticed elsewhere.
        let _ = self.exchange.push(RecordType::Stderr, message, true);
    }

    fn finish(&mut self) -> Result<(), ClientGone> {
        self.exchange.end(ProtocolStatus::RequestComplete)
    }
}

impl<A: Account> Drop for FastcgiSink<A> {
    /// A request always ends: when it was not executed, or panicked, its client must not wait.
    fn drop(&mut self) {
        let _ = self.exchange.end(ProtocolStatus::RequestComplete);
    }
}
