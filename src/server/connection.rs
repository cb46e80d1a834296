//! The reading half of one FastCGI connection: records in, requests ready to run out.

use std::sync::Arc;
use std::time::Instant;

use super::body::{BodyPipe, BodyReader, BodyWriter, CAPACITY, Waiting};
use super::exchange::Exchange;
use super::job::Job;
use super::output::Output;
use crate::config::Limits;
use crate::fastcgi::{Decoder, DecoderLimits, Event, FastcgiError, ProtocolStatus, Role, encoder};
use crate::request::{Body, Variables};

/// What a connection needs from the process that owns it.
pub(super) struct Surroundings<'a> {
    pub(super) limits: &'a Limits,
    /// Pairs that answer FCGI_GET_VALUES.
    pub(super) values: &'a [(&'static [u8], Vec<u8>)],
    /// The connection's own number.
    pub(super) token: u64,
    pub(super) now: Instant,
    pub(super) waiting: &'a Waiting,
    /// Bytes of bodies that all connections of this process hold for requests that have not started.
    pub(super) held: &'a mut usize,
    /// Requests that have all that they need.
    pub(super) ready: &'a mut Vec<Job>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    output: Arc<Output>,
    decoder: Decoder,
    /// The beginning of a record whose end has not come.
    input: Vec<u8>,
    open: Vec<Open>,
    /// When the incomplete request on it is given up.
    deadline: Option<Instant>,
    /// The peer has closed its side.
    input_closed: bool,
    /// A request without FCGI_KEEP_CONN has been answered.
    close: bool,
    /// A request was answered before its body had been read to the end.
    unread: bool,
    /// The last request's id.
    last_id: Option<u16>,
    order: Order,
    /// It came from a sibling, which may still hold a descriptor of it.
    passed_on: bool,
}

/// How a peer sends its requests, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Each when the one before has ended.
    Sequential,
    /// Several at once.
    Multiplexed,
}

#[derive(Debug)]
struct Open {
    id: u16,
    keep_conn: bool,
    role: Role,
    state: State,
}

/// ```text
/// Begin ─▶ Params ─▶ Collecting ─▶ Dispatched ─▶ (ended)
///             └──────── abort ────────┴──▶ (ended)
/// ```
#[derive(Debug)]
enum State {
    /// FCGI_PARAMS are coming.
    Params,
    /// A body that is to be whole before a worker is taken.
    Collecting(Box<Collecting>),
    /// In a queue, or running. `body`: what still streams to it.
    Dispatched {
        exchange: Arc<Exchange>,
        body: Option<BodyWriter>,
        stdin_ended: bool,
    },
}

#[derive(Debug)]
struct Collecting {
    variables: Variables,
    body: Vec<u8>,
    /// CONTENT_LENGTH.
    declared: Option<u64>,
}

impl Connection {
    pub(super) fn new(output: Arc<Output>, limits: &Limits, passed_on: bool) -> Self {
        Self {
            output,
            decoder: Decoder::new(DecoderLimits {
                params_size: limits.params_size,
                params_count: limits.params_count,
                requests: limits.requests_per_connection as usize,
            }),
            input: Vec::new(),
            open: Vec::new(),
            deadline: None,
            input_closed: false,
            close: false,
            unread: false,
            last_id: None,
            order: Order::Sequential,
            passed_on,
        }
    }

    pub(super) fn output(&self) -> &Arc<Output> {
        &self.output
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes bytes from the socket (or from the connection's former owner).
    ///
    /// # Errors
    /// What the peer did wrong; the connection is to be closed.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        around: &mut Surroundings<'_>,
    ) -> Result<(), FastcgiError> {
        self.reap();
        if self.input.is_empty() {
            let mut rest = bytes;
            self.decode(&mut rest, around)?;
            self.input.extend_from_slice(rest);
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(bytes);
            let mut rest = input.as_slice();
            self.decode(&mut rest, around)?;
            let used = input.len() - rest.len();
            input.drain(..used);
            if !input.is_empty() {
                self.input = input;
            }
        }
        self.dispatch_bodiless(around);
        self.watch_clock(around);
        Ok(())
    }

    /// The peer will send no more. A request that has all it needs still runs (a half-close is legal); one that is
    /// incomplete never will be.
    pub(super) fn close_input(&mut self, held: &mut usize) {
        self.input_closed = true;
        self.deadline = None;
        *held = held.saturating_sub(self.held());
        self.open.retain(|open| match &open.state {
            State::Dispatched { body, .. } => {
                if let Some(body) = body {
                    body.end();
                }
                true
            }
            State::Params | State::Collecting(_) => false,
        });
    }

    /// Bytes of bodies that are not whole, which count as held.
    pub(super) fn held(&self) -> usize {
        self.open
            .iter()
            .map(|open| match &open.state {
                State::Collecting(collecting) => collecting.body.len(),
                State::Params | State::Dispatched { .. } => 0,
            })
            .sum()
    }

    /// Forgets requests whose answer is out, so that their ids can be used again.
    pub(super) fn reap(&mut self) {
        let Self {
            open,
            decoder,
            close,
            unread,
            ..
        } = self;
        open.retain(|open| {
            let State::Dispatched {
                exchange,
                stdin_ended,
                ..
            } = &open.state
            else {
                return true;
            };
            if exchange.is_ended() {
                decoder.end_request(open.id);
                *close |= !open.keep_conn;
                *unread |= !stdin_ended;
                return false;
            }
            true
        });
    }

    /// Whether nothing runs and nothing is queued for it.
    pub(super) fn is_quiet(&self) -> bool {
        !self
            .open
            .iter()
            .any(|open| matches!(open.state, State::Dispatched { .. }))
    }

    /// Whether part of a request has come.
    pub(super) fn has_begun(&self) -> bool {
        !self.input_closed && (!self.open.is_empty() || !self.input.is_empty())
    }

    /// Records that ask a sibling process for `job`, which shares this connection with others. `None` for a request
    /// whose body still streams in: it stays here.
    pub(super) fn relayed(job: &Job) -> Option<Vec<u8>> {
        let id = job.exchange.id();
        let mut bytes = Vec::new();
        encoder::push_begin_request(&mut bytes, id, Role::Responder, false);
        encoder::push_params(&mut bytes, id, &job.variables);
        match &job.body {
            Body::Empty => {}
            Body::Complete(body) => push_stdin(&mut bytes, id, body),
            Body::Stream(_) => return None,
        }
        push_stdin_end(&mut bytes, id);
        Some(bytes)
    }

    /// Whether a sibling process has owned it before.
    pub(super) fn was_passed_on(&self) -> bool {
        self.passed_on
    }

    /// Whether it has one request, which has been read to its end.
    pub(super) fn is_received(&self) -> bool {
        self.input.is_empty()
            && matches!(
                self.open.as_slice(),
                [Open {
                    state: State::Dispatched {
                        stdin_ended: true,
                        ..
                    },
                    ..
                }]
            )
    }

    /// Whether it has been read to its end: it is closed when its request has been answered.
    pub(super) fn is_complete(&self) -> bool {
        self.is_received() && self.open.iter().all(|open| !open.keep_conn)
    }

    /// Whether the request that runs is the only one of it.
    pub(super) fn runs_alone(&self) -> bool {
        self.is_received() && self.order != Order::Multiplexed
    }

    /// Whether other requests of it run or wait besides one, or may come: then it stays here, so that they are seen.
    pub(super) fn is_shared(&self) -> bool {
        self.dispatched() > 1 || self.order == Order::Multiplexed
    }

    /// A request begins. Peers that send several at once give them different ids; those that send one at a time use the id of the
    /// one before again.
    fn learn_order(&mut self, id: u16) {
        let last = self.last_id.replace(id);
        if !self.open.is_empty() || last.is_some_and(|last| last != id) {
            self.order = Order::Multiplexed;
        }
    }

    /// Number of requests that are queued or running.
    pub(super) fn dispatched(&self) -> usize {
        self.open
            .iter()
            .filter(|open| matches!(open.state, State::Dispatched { .. }))
            .count()
    }

    /// Whether it has served its purpose and all that was to be sent has left.
    pub(super) fn is_done(&self) -> bool {
        let finished = self.is_quiet() && (self.close || self.input_closed);
        (finished && self.output.is_flushed()) || (self.output.is_broken() && self.is_quiet())
    }

    /// Whether the peer may still be sending something that was never read, so that closing now could reset the
    /// connection under the answer.
    pub(super) fn has_unread_input(&self) -> bool {
        let partial = self.unread || !self.open.is_empty() || !self.input.is_empty();
        partial && !self.input_closed && !self.output.is_broken()
    }

    /// Records that bring a fresh decoder to where this one is. Only while nothing is dispatched, except `job`, which
    /// whoever gets them runs instead.
    pub(super) fn replay(&self, job: Option<&Job>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut job = job;
        for open in &self.open {
            match &open.state {
                State::Params => {}
                State::Collecting(collecting) => {
                    encoder::push_begin_request(&mut bytes, open.id, open.role, open.keep_conn);
                    encoder::push_params(&mut bytes, open.id, &collecting.variables);
                    push_stdin(&mut bytes, open.id, &collecting.body);
                }
                State::Dispatched {
                    body, stdin_ended, ..
                } => {
                    let Some(job) = job.take() else { continue };
                    // An earlier request's wish to have the connection closed goes with this one.
                    let keep_conn = open.keep_conn && !self.close;
                    encoder::push_begin_request(&mut bytes, open.id, open.role, keep_conn);
                    encoder::push_params(&mut bytes, open.id, &job.variables);
                    match (&job.body, body) {
                        (Body::Complete(body), _) => push_stdin(&mut bytes, open.id, body),
                        (_, Some(pipe)) => push_stdin(&mut bytes, open.id, &pipe.unread()),
                        _ => {}
                    }
                    if *stdin_ended {
                        push_stdin_end(&mut bytes, open.id);
                    }
                }
            }
        }
        self.decoder.replay_partial(&mut bytes);
        bytes.extend_from_slice(&self.input);
        bytes
    }

    fn decode(
        &mut self,
        rest: &mut &[u8],
        around: &mut Surroundings<'_>,
    ) -> Result<(), FastcgiError> {
        while let Some(event) = self.decoder.decode(rest)? {
            match event {
                Event::Begin { id, keep_conn } => {
                    self.reap_id(id);
                    self.learn_order(id);
                    self.open.push(Open {
                        id,
                        keep_conn,
                        role: Role::Responder,
                        state: State::Params,
                    });
                }
                Event::Request {
                    id,
                    keep_conn,
                    role,
                    variables,
                } => self.request(id, keep_conn, role, variables, around),
                Event::Stdin { id, data } => self.stdin(id, data, around),
                Event::StdinEnd { id } => self.stdin_end(id, around),
                Event::Abort { id } => self.abort(id, around),
                Event::GetValues { names } => {
                    let known: Vec<(&[u8], &[u8])> = around
                        .values
                        .iter()
                        .filter(|(name, _)| names.iter().any(|asked| asked == name))
                        .map(|(name, value)| (*name, value.as_slice()))
                        .collect();
                    let mut bytes = Vec::new();
                    encoder::push_get_values_result(&mut bytes, &known);
                    self.answer(&bytes);
                }
                Event::UnknownType { kind } => {
                    let mut bytes = Vec::new();
                    encoder::push_unknown_type(&mut bytes, kind);
                    self.answer(&bytes);
                }
                Event::UnknownRole { id, keep_conn, .. } => {
                    self.refuse(id, keep_conn, ProtocolStatus::UnknownRole);
                }
                Event::TooManyRequests { id, keep_conn } => {
                    self.refuse(id, keep_conn, ProtocolStatus::Overloaded);
                }
            }
        }
        Ok(())
    }

    /// A peer may use an id again as soon as it has read END_REQUEST, before anybody told us that it was sent.
    fn reap_id(&mut self, id: u16) {
        self.open.retain(|open| open.id != id);
    }

    fn request(
        &mut self,
        id: u16,
        keep_conn: bool,
        role: Role,
        variables: Variables,
        around: &mut Surroundings<'_>,
    ) {
        let declared = variables.get(b"CONTENT_LENGTH").and_then(parse_length);
        let Some(open) = self.open.iter_mut().find(|open| open.id == id) else {
            return;
        };
        open.keep_conn = keep_conn;
        open.role = role;
        if declared == Some(0) {
            self.dispatch(id, variables, Body::Empty, None, false, around);
        } else if declared.is_some_and(|length| length > around.limits.body_buffer as u64) {
            self.stream(id, variables, Vec::new(), around);
        } else {
            open.state = State::Collecting(Box::new(Collecting {
                variables,
                body: Vec::new(),
                declared,
            }));
        }
    }

    fn stdin(&mut self, id: u16, data: &[u8], around: &mut Surroundings<'_>) {
        let Some(open) = self.open.iter_mut().find(|open| open.id == id) else {
            return;
        };
        match &mut open.state {
            State::Collecting(collecting) => {
                if collecting.body.is_empty()
                    && let Some(declared) = collecting.declared
                {
                    let declared = usize::try_from(declared).unwrap_or(usize::MAX);
                    collecting.body.reserve(declared.min(RESERVED_BODY));
                }
                collecting.body.extend_from_slice(data);
                *around.held += data.len();
                let length = collecting.body.len();
                if collecting
                    .declared
                    .is_some_and(|declared| length as u64 >= declared)
                {
                    self.complete(id, false, around);
                } else if length > around.limits.body_buffer
                    || *around.held > around.limits.body_buffer.saturating_mul(HELD_BODIES)
                {
                    let collecting = self.take_collecting(id, around);
                    if let Some(Collecting {
                        variables, body, ..
                    }) = collecting
                    {
                        self.stream(id, variables, body, around);
                    }
                } else {
                    // A body that keeps coming has its time again.
                    self.deadline = Some(around.now + around.limits.request_header_timeout);
                }
            }
            State::Dispatched {
                body: Some(pipe), ..
            } => pipe.fill(data),
            // More than CONTENT_LENGTH said: nobody reads it.
            State::Dispatched { body: None, .. } | State::Params => {}
        }
    }

    fn stdin_end(&mut self, id: u16, around: &mut Surroundings<'_>) {
        let Some(open) = self.open.iter_mut().find(|open| open.id == id) else {
            return;
        };
        match &mut open.state {
            State::Collecting(_) => self.complete(id, true, around),
            State::Dispatched {
                body, stdin_ended, ..
            } => {
                *stdin_ended = true;
                if let Some(pipe) = body {
                    pipe.end();
                }
            }
            State::Params => {}
        }
    }

    fn abort(&mut self, id: u16, around: &mut Surroundings<'_>) {
        let Some(open) = self.open.iter().find(|open| open.id == id) else {
            return;
        };
        if let State::Dispatched { exchange, body, .. } = &open.state {
            exchange.abort();
            if let Some(pipe) = body {
                pipe.end();
            }
            return;
        }
        let keep_conn = open.keep_conn;
        drop(self.take_collecting(id, around));
        self.reap_id(id);
        self.decoder.end_request(id);
        self.refuse(id, keep_conn, ProtocolStatus::RequestComplete);
    }

    /// Requests whose method has no body run as soon as their params are there, even if the peer never sends the empty
    /// FCGI_STDIN (php-fpm does not wait for it either). Should a body come all the same, it is streamed, from what has come of it.
    fn dispatch_bodiless(&mut self, around: &mut Surroundings<'_>) {
        while let Some(id) = self.open.iter().find_map(|open| match &open.state {
            State::Collecting(collecting)
                if collecting.declared.is_none()
                    && matches!(
                        collecting.variables.get(b"REQUEST_METHOD"),
                        Some(b"GET" | b"HEAD") | None
                    ) =>
            {
                Some(open.id)
            }
            _ => None,
        }) {
            let Some(Collecting {
                variables, body, ..
            }) = self.take_collecting(id, around)
            else {
                return;
            };
            self.stream(id, variables, body, around);
        }
    }

    fn complete(&mut self, id: u16, stdin_ended: bool, around: &mut Surroundings<'_>) {
        if let Some(Collecting {
            variables, body, ..
        }) = self.take_collecting(id, around)
        {
            let body = if body.is_empty() {
                Body::Empty
            } else {
                Body::Complete(body)
            };
            self.dispatch(id, variables, body, None, stdin_ended, around);
        }
    }

    fn take_collecting(&mut self, id: u16, around: &mut Surroundings<'_>) -> Option<Collecting> {
        let open = self.open.iter_mut().find(|open| open.id == id)?;
        match std::mem::replace(&mut open.state, State::Params) {
            State::Collecting(collecting) => {
                *around.held = around.held.saturating_sub(collecting.body.len());
                Some(*collecting)
            }
            other => {
                open.state = other;
                None
            }
        }
    }

    fn stream(
        &mut self,
        id: u16,
        variables: Variables,
        start: Vec<u8>,
        around: &mut Surroundings<'_>,
    ) {
        let pipe = Arc::new(BodyPipe::new(start, Arc::clone(&self.output)));
        let reader = BodyReader::new(Arc::clone(&pipe), Arc::clone(around.waiting));
        self.dispatch(
            id,
            variables,
            Body::Stream(Box::new(reader)),
            Some(BodyWriter::new(pipe)),
            false,
            around,
        );
    }

    fn dispatch(
        &mut self,
        id: u16,
        variables: Variables,
        body: Body,
        pipe: Option<BodyWriter>,
        stdin_ended: bool,
        around: &mut Surroundings<'_>,
    ) {
        let exchange = Arc::new(Exchange::new(Arc::clone(&self.output), id));
        if let Some(pipe) = &pipe {
            exchange.set_body(pipe.pipe());
        }
        if let Some(open) = self.open.iter_mut().find(|open| open.id == id) {
            open.state = State::Dispatched {
                exchange: Arc::clone(&exchange),
                body: pipe,
                stdin_ended,
            };
        }
        let job = Job::new(around.token, exchange, variables, body, around.now);
        around.ready.push(job);
    }

    /// Answers a request that never becomes one.
    fn refuse(&mut self, id: u16, keep_conn: bool, status: ProtocolStatus) {
        let mut bytes = Vec::new();
        encoder::push_end_request(&mut bytes, id, 0, status);
        self.answer(&bytes);
        self.close |= !keep_conn;
        // The rest of it may still be on its way.
        self.unread |= !keep_conn;
    }

    fn answer(&self, bytes: &[u8]) {
        // A peer that has gone is noticed by its socket.
        let _ = self.output.answer(bytes);
    }

    fn watch_clock(&mut self, around: &Surroundings<'_>) {
        let incomplete = !self.input.is_empty()
            || self
                .open
                .iter()
                .any(|open| !matches!(open.state, State::Dispatched { .. }));
        let streaming = self.open.iter().any(|open| {
            matches!(
                &open.state,
                State::Dispatched {
                    body: Some(_),
                    stdin_ended: false,
                    ..
                }
            )
        });
        if !incomplete || streaming {
            self.deadline = None;
        } else if self.deadline.is_none() {
            self.deadline = Some(around.now + around.limits.request_header_timeout);
        }
    }
}

/// Memory that is set aside for a body as soon as its first bytes come.
const RESERVED_BODY: usize = 256 << 10;
/// So many bodies of full size may be held for requests that have not started; beyond that they are streamed.
const HELD_BODIES: usize = 64;
const _: () = assert!(CAPACITY >= 64 << 10, "a pipe holds at least a record");

fn push_stdin(out: &mut Vec<u8>, id: u16, data: &[u8]) {
    if !data.is_empty() {
        encoder::push_stream(out, crate::fastcgi::RecordType::Stdin, id, data);
    }
}

fn push_stdin_end(out: &mut Vec<u8>, id: u16) {
    out.extend_from_slice(&encoder::header(
        crate::fastcgi::RecordType::Stdin,
        id,
        0,
        0,
    ));
}

/// A plain number; anything else leaves the length open, and the end of FCGI_STDIN decides.
fn parse_length(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}
