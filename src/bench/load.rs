//! The loop that makes requests.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use super::answer::{Answer, AnswerError, Complete};
use super::options::Plan;
use super::order::Order;
use super::progress::Progress;
use super::socket::{self, Opened};
use super::stats::{ErrorKind, Stats};

/// The connections, which stay open from one phase to the next.
#[derive(Debug)]
pub(super) struct Load<'a> {
    plan: &'a Plan,
    interrupted: &'a AtomicBool,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    /// Connections without a request, the one that has been free longest first, so that all are used.
    free: VecDeque<usize>,
    /// Connections that wait before their next attempt to connect, in order of time.
    resting: VecDeque<(Instant, usize)>,
    in_flight: usize,
    order: Order,
    buffer: Vec<u8>,
    /// Length of each target's first good body.
    lengths: Vec<Option<u64>>,
}

/// How many requests are made, and when.
#[derive(Debug)]
pub(super) struct Phase {
    pub(super) requests: Option<u64>,
    /// After this no request is started.
    pub(super) duration: Option<Duration>,
    pub(super) rate: Option<f64>,
}

#[derive(Debug, Default)]
struct Connection {
    socket: Option<OwnedFd>,
    connected: bool,
    /// epoll reports also when the socket takes bytes.
    writing: bool,
    request: Option<InFlight>,
    answer: Answer,
}

#[derive(Debug, Clone, Copy)]
struct InFlight {
    target: usize,
    /// When latency begins: at a fixed rate the moment it was due.
    start: Instant,
    /// When it got its connection.
    taken: Instant,
    sent: usize,
    /// Its place in the order of requests, once it is sent whole.
    number: Option<u64>,
}

/// What is wrong with a request: what kind of error it is, and a text.
type Failure = (ErrorKind, String);

/// Pause before the next attempt to connect to a full backlog.
pub(super) const RETRY_BACKLOG: Duration = Duration::from_millis(1);
/// Pause of a connection after a failed attempt, so that a dead server does not make this loop spin.
const AFTER_FAILURE: Duration = Duration::from_millis(10);
/// How often timeouts, Ctrl-C and the progress line are looked at.
const TICK: Duration = Duration::from_millis(50);
const EVENTS: usize = 256;

impl<'a> Load<'a> {
    pub(super) fn new(plan: &'a Plan, interrupted: &'a AtomicBool) -> Result<Self, String> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)
            .map_err(|error| format!("cannot create an epoll instance: {error}"))?;
        Ok(Self {
            plan,
            interrupted,
            epoll,
            connections: (0..plan.connections)
                .map(|_| Connection::default())
                .collect(),
            free: (0..plan.connections).collect(),
            resting: VecDeque::new(),
            in_flight: 0,
            order: Order::new(plan.connections),
            buffer: vec![0; 256 << 10],
            lengths: vec![None; plan.targets.len()],
        })
    }

    /// Makes the phase's requests and waits for their answers. A request that takes longer than the timeout fails;
    /// what was due, but had no connection by the end of the phase and a timeout more, was not sent.
    pub(super) fn run(
        &mut self,
        phase: &Phase,
        stats: &mut Stats,
        progress: &mut Progress,
    ) -> Result<(), String> {
        let begin = Instant::now();
        let stop_starting = phase.duration.map(|duration| begin + duration);
        let stop_waiting = end_of(phase, begin).map(|end| end + self.plan.timeout);
        let mut events = [MaybeUninit::<Event>::uninit(); EVENTS];
        let mut next_tick = begin + TICK;
        let mut started = 0;
        let mut now = begin;
        loop {
            // Start what is due.
            let mut wake = next_tick;
            let mut all_started = false;
            loop {
                if phase.requests.is_some_and(|requests| started >= requests)
                    || phase.rate.is_none() && stop_starting.is_some_and(|end| now >= end)
                {
                    all_started = true;
                    break;
                }
                let due = phase.rate.map(|rate| due(begin, rate, started));
                if let Some(due) = due
                    && due > now
                {
                    wake = wake.min(due);
                    break;
                }
                let Some(index) = self.free.pop_front() else {
                    break;
                };
                started += 1;
                let target = self.plan.target_of(started);
                self.start(index, target, due.unwrap_or(now), stats);
                if due.is_some() {
                    now = Instant::now();
                }
            }
            if all_started && self.in_flight == 0 {
                return Ok(());
            }
            if let Some((time, _)) = self.resting.front() {
                wake = wake.min(*time);
            }

            let ready = self.wait(&mut events, wake.saturating_duration_since(now))?;
            now = Instant::now();
            for event in ready {
                now = self.event(event, stats);
            }
            while let Some((time, index)) = self.resting.front().copied()
                && time <= now
            {
                self.resting.pop_front();
                if self.connections[index].request.is_some() {
                    self.open(index, stats);
                } else {
                    self.free.push_back(index);
                }
            }
            if now >= next_tick {
                next_tick = now + TICK;
                self.expire(now, stats);
                progress.update(stats, now - begin);
                if self.interrupted.load(Ordering::Relaxed) {
                    return Ok(());
                }
                if stop_waiting.is_some_and(|end| now >= end) {
                    self.give_up(phase.requests.unwrap_or(started) - started, stats);
                    return Ok(());
                }
            }
        }
    }

    /// Closes all connections, of which none has a request.
    pub(super) fn close_all(&mut self) {
        for connection in &mut self.connections {
            connection.socket = None;
        }
    }

    fn wait<'b>(
        &self,
        events: &'b mut [MaybeUninit<Event>; EVENTS],
        timeout: Duration,
    ) -> Result<&'b mut [Event], String> {
        let timeout = Timespec::try_from(timeout).map_err(|error| error.to_string())?;
        match epoll::wait(&self.epoll, &mut events[..], Some(&timeout)) {
            Ok((ready, _)) => Ok(ready),
            Err(Errno::INTR) => Ok(&mut []),
            Err(error) => Err(format!("epoll_wait: {error}")),
        }
    }

    /// Starts a request on a free connection.
    fn start(&mut self, index: usize, target: usize, start: Instant, stats: &mut Stats) {
        let connection = &mut self.connections[index];
        connection.request = Some(InFlight {
            target,
            start,
            // At a fixed rate it may have waited for the connection.
            taken: if self.plan.rate.is_some() {
                Instant::now()
            } else {
                start
            },
            sent: 0,
            number: None,
        });
        self.in_flight += 1;
        if connection.socket.is_some() {
            self.send(index, stats);
        } else {
            self.open(index, stats);
        }
    }

    /// Connects for the request that the connection has.
    fn open(&mut self, index: usize, stats: &mut Stats) {
        let opened = socket::open(&self.plan.address);
        let (socket, connected) = match opened {
            Ok(Opened::Connected(socket)) => (socket, true),
            Ok(Opened::InProgress(socket)) => (socket, false),
            Ok(Opened::BacklogFull) => {
                self.rest(index, RETRY_BACKLOG);
                return;
            }
            Err(error) => {
                self.fail(index, self.connect_failure(error), stats);
                return;
            }
        };
        let flags = interest(!connected);
        let data = EventData::new_u64(index as u64);
        if let Err(error) = epoll::add(&self.epoll, &socket, data, flags) {
            self.fail(index, self.connect_failure(error), stats);
            return;
        }
        let connection = &mut self.connections[index];
        connection.answer.reset();
        connection.socket = Some(socket);
        connection.connected = connected;
        connection.writing = !connected;
        if connected {
            self.send(index, stats);
        }
    }

    /// Sends what the socket takes of the request.
    fn send(&mut self, index: usize, stats: &mut Stats) {
        let connection = &mut self.connections[index];
        let (Some(socket), Some(request)) = (&connection.socket, &mut connection.request) else {
            return;
        };
        let bytes = &self.plan.targets[request.target].bytes;
        match socket::write(socket, &bytes[request.sent..]) {
            Ok(length) => {
                request.sent += length;
                stats.sent += length as u64;
                let writing = request.sent < bytes.len();
                if !writing && request.number.is_none() {
                    request.number = Some(self.order.send());
                }
                if writing != connection.writing {
                    connection.writing = writing;
                    let data = EventData::new_u64(index as u64);
                    if let Err(error) = epoll::modify(&self.epoll, socket, data, interest(writing))
                    {
                        self.fail(index, self.connect_failure(error), stats);
                    }
                }
            }
            // What the server said before it closed is to be read, and that fails where there is nothing.
            Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(error) => {
                let failure = closed(&connection.answer, error);
                self.fail(index, failure, stats);
            }
        }
    }

    /// Handles an event of a connection; returns the time.
    fn event(&mut self, event: &Event, stats: &mut Stats) -> Instant {
        let index = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
        let flags = event.flags;
        let connection = &mut self.connections[index];
        if !connection.connected {
            let Some(socket) = &connection.socket else {
                return Instant::now();
            };
            match socket::connected(socket) {
                Ok(()) if flags.contains(EventFlags::OUT) => connection.connected = true,
                Ok(()) => return Instant::now(),
                Err(error) => {
                    self.fail(index, self.connect_failure(error), stats);
                    return Instant::now();
                }
            }
        }
        if flags.contains(EventFlags::OUT) {
            self.send(index, stats);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.receive(index, stats)
        } else {
            Instant::now()
        }
    }

    fn receive(&mut self, index: usize, stats: &mut Stats) -> Instant {
        let connection = &mut self.connections[index];
        let Some(socket) = &connection.socket else {
            return Instant::now();
        };
        let read = socket::read(socket, &mut self.buffer);
        let now = Instant::now();
        if connection.request.is_none() {
            // Between two requests: the server may close, but has nothing to say.
            connection.socket = None;
            match read {
                Ok(Some(1..)) => {
                    let text = "bytes on a connection without a request".to_owned();
                    stats.error(0, ErrorKind::Protocol, now, text);
                }
                _ => stats.reconnects += 1,
            }
            return now;
        }
        let result = match read {
            Ok(None) => return now,
            Ok(Some(0)) => Err(closed(&connection.answer, Errno::CONNRESET)),
            Ok(Some(length)) => {
                stats.received += length as u64;
                match connection.answer.read(&self.buffer[..length]) {
                    Ok(None) => return now,
                    Ok(Some(complete)) => self.check(index, &complete),
                    Err(AnswerError::Refused(text)) => Err((ErrorKind::Refused, text.to_owned())),
                    Err(AnswerError::Malformed(text)) => Err((ErrorKind::Protocol, text)),
                }
            }
            Err(error) => Err(closed(&connection.answer, error)),
        };
        match result {
            Ok(()) => self.finish(index, now, stats),
            Err(failure) => self.fail(index, failure, stats),
        }
        now
    }

    /// Whether a complete answer is the expected one.
    fn check(&mut self, index: usize, complete: &Complete) -> Result<(), Failure> {
        let connection = &self.connections[index];
        let Some(request) = &connection.request else {
            return Ok(());
        };
        let right = match self.plan.expect_status {
            Some(expected) => complete.status == expected,
            None => (100..400).contains(&complete.status),
        };
        if !right {
            let text = format!("{} {:?}", complete.status, connection.answer.excerpt());
            return Err((ErrorKind::Status, text));
        }
        if request.sent < self.plan.targets[request.target].bytes.len() {
            let text = "an answer before the request was sent whole".to_owned();
            return Err((ErrorKind::Protocol, text));
        }
        let length = complete.body_length;
        let expected = *self.lengths[request.target].get_or_insert(length);
        if length != expected && !self.plan.any_length {
            let text = format!("{length} bytes instead of {expected}; see --any-length");
            return Err((ErrorKind::Length, text));
        }
        Ok(())
    }

    /// The request has been answered well.
    fn finish(&mut self, index: usize, now: Instant, stats: &mut Stats) {
        let connection = &mut self.connections[index];
        if let Some(request) = connection.request.take() {
            let overtakings = request.number.map_or(0, |number| self.order.answer(number));
            stats.answer(request.target, request.start, now, overtakings);
            self.in_flight -= 1;
        }
        if !connection.answer.stderr().is_empty() {
            stats.error_stream(connection.answer.stderr());
        }
        if self.plan.keep_alive {
            connection.answer.reset();
        } else {
            connection.socket = None;
        }
        self.free.push_back(index);
    }

    /// The request has failed, and the connection with it.
    fn fail(&mut self, index: usize, (kind, text): Failure, stats: &mut Stats) {
        let connection = &mut self.connections[index];
        connection.socket = None;
        if let Some(request) = connection.request.take() {
            stats.error(request.target, kind, Instant::now(), text);
            if let Some(number) = request.number {
                self.order.fail(number);
            }
            self.in_flight -= 1;
        }
        if kind == ErrorKind::Connect {
            self.rest(index, AFTER_FAILURE);
        } else {
            self.free.push_back(index);
        }
    }

    fn rest(&mut self, index: usize, pause: Duration) {
        let time = Instant::now() + pause;
        let place = self.resting.partition_point(|(other, _)| *other <= time);
        self.resting.insert(place, (time, index));
    }

    /// Ends requests that have taken too long.
    fn expire(&mut self, now: Instant, stats: &mut Stats) {
        let timeout = self.plan.timeout;
        for index in 0..self.connections.len() {
            let connection = &self.connections[index];
            if connection
                .request
                .is_none_or(|request| now - request.taken < timeout)
            {
                continue;
            }
            let what = if connection.socket.is_none() || !connection.connected {
                "no connection"
            } else if connection.answer.has_begun() {
                "no complete answer"
            } else {
                "no answer"
            };
            self.resting.retain(|(_, resting)| *resting != index);
            let text = format!("{what} within {timeout:?}");
            self.fail(index, (ErrorKind::Timeout, text), stats);
        }
    }

    /// The time is over: requests that still run have timed out, and others never had a connection.
    fn give_up(&mut self, not_started: u64, stats: &mut Stats) {
        for index in 0..self.connections.len() {
            if self.connections[index].request.is_some() {
                self.resting.retain(|(_, resting)| *resting != index);
                let text = "no answer by the end of the measurement".to_owned();
                self.fail(index, (ErrorKind::Timeout, text), stats);
            }
        }
        if not_started > 0 {
            let text = "due, but all connections waited for answers".to_owned();
            stats.errors_of(0, ErrorKind::NotSent, not_started, text);
        }
    }

    fn connect_failure(&self, error: Errno) -> Failure {
        (
            ErrorKind::Connect,
            socket::failure(&self.plan.address, error),
        )
    }
}

/// When the phase is over, if that is known beforehand.
fn end_of(phase: &Phase, begin: Instant) -> Option<Instant> {
    match (phase.duration, phase.rate, phase.requests) {
        (Some(duration), _, _) => Some(begin + duration),
        (None, Some(rate), Some(requests)) => Some(due(begin, rate, requests)),
        _ => None,
    }
}

/// When a request is due that comes after `number` others.
#[allow(clippy::cast_precision_loss)] // of numbers above 2^53
fn due(begin: Instant, rate: f64, number: u64) -> Instant {
    begin + Duration::from_secs_f64(number as f64 / rate)
}

fn interest(writing: bool) -> EventFlags {
    if writing {
        EventFlags::IN | EventFlags::OUT
    } else {
        EventFlags::IN
    }
}

fn closed(answer: &Answer, error: Errno) -> Failure {
    let place = if answer.has_begun() {
        "in the middle of an answer"
    } else {
        "before the answer"
    };
    (
        ErrorKind::Closed,
        format!("the server closed the connection {place} ({error})"),
    )
}
