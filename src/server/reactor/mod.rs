//! The sockets of one worker process: accepts, reads, times out and closes connections, and yields requests that are
//! ready to run. PHP threads and the helper thread share it (`driver.rs`): each waits in epoll without its lock, and takes the
//! lock to handle what has happened. `dispatch.rs` says who runs a request.
//!
//! Almost everything is registered edge-triggered: an event is told to one thread, which handles it whatever it does next. (With
//! level-triggered events the kernel would wake the helper for each event of an idle PHP thread. So listeners are level-triggered
//! only while requests are short and the helper is away, and the hand-over channel, which is seldom used, always.)

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, write};
use rustix::net::{RecvFlags, Shutdown, recv};
use slab::Slab;

use super::allowed_clients::AllowedClients;
use super::body::Waiting;
use super::connection::{Connection, Surroundings};
use super::exchange::Exchange;
use super::job::Job;
use super::output::Output;
use super::relay::Relay;
use super::watch::Expected;
use crate::config::Limits;
use crate::descriptor::{high_fd, high_room};
use crate::fastcgi::ProtocolStatus;
use crate::log::{self, AccessLog, AccessWriter};
use crate::scoreboard::{Moment, Reservation, Scoreboard, Slot, Waits};
use crate::supervisor::messages::Channel;

mod clock;
mod connections;
mod dispatch;
mod draining;
mod idle_sources;
mod passing;
mod queueing;

use connections::Connections;
use draining::{Cause, Drain};
use idle_sources::Accepting;
use passing::Target;
pub(crate) use queueing::QueueRules;

/// How often the helper looks after running requests: output that a script holds back leaves that soon.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// How often it looks after everything else that depends on time.
const SWEEP: Duration = Duration::from_millis(100);
/// A PHP thread that runs short requests one after the other looks in this time what has come.
const LOOKED_WITHIN: Duration = Duration::from_millis(1);
/// How long a closed connection is read on, so that the kernel does not reset it under the answer.
const LINGER: Duration = Duration::from_secs(5);

/// How long after the order to stop requests are still read from connections that are there.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// Events taken from epoll at once.
const EVENTS: usize = 128;

const LISTENER: u64 = 1 << 40;
const HANDOVER: u64 = 1 << 41;
const WAKE: u64 = 1 << 42;
const DRAIN: u64 = 1 << 43;
const QUIT: u64 = 1 << 44;
const LANE: u64 = 1 << 45;
const CONTROL: u64 = 1 << 46;
const RELAY: u64 = 1 << 47;
const TIMER: u64 = 1 << 48;

/// Everything a reactor is given.
pub(crate) struct Sources {
    /// The pool's name.
    pub(crate) pool: String,
    pub(crate) listeners: Vec<OwnedFd>,
    pub(crate) handover: crate::zygote::Handover,
    /// How siblings of the same generation send to each other, and the lane of this process.
    pub(crate) lanes: crate::zygote::Lanes,
    pub(crate) lane: u32,
    /// Becomes readable when this process is to finish; says whether others take its connections.
    pub(crate) drain: crate::zygote::DrainSignal,
    /// Becomes readable on SIGQUIT, and stays so.
    pub(crate) quit: OwnedFd,
    /// An eventfd: wakes a thread that waits for events.
    pub(crate) wake: Arc<OwnedFd>,
    /// The timer for requests that take long.
    pub(crate) timer: Arc<OwnedFd>,
    pub(crate) scoreboard: Arc<Scoreboard>,
    pub(crate) slot: Slot,
    pub(crate) limits: Limits,
    /// What becomes of requests that have to wait.
    pub(crate) queue_rules: QueueRules,
    /// Where refused requests are written down, as others are.
    pub(crate) access_log: Option<Arc<AccessLog>>,
    /// Who may connect.
    pub(crate) allowed: Arc<AllowedClients>,
    /// Requests that the pool runs at once.
    pub(crate) capacity: u32,
    /// The way down from the pool process.
    pub(crate) control: Option<Control>,
    /// Called by a PHP thread before it waits for its client's body.
    pub(crate) waiting: Waiting,
}

/// Receives what the pool process has sent; see [`Control`].
pub(crate) type Receive = Box<dyn Fn(&Channel, &mut Vec<u32>) -> bool + Send>;

/// Messages from the pool process.
pub(crate) struct Control {
    pub(crate) channel: Channel,
    /// Called when there is something to receive, with room for the lanes that are to be looked at; false if nothing will come
    /// any more.
    pub(crate) receive: Receive,
}

/// See the module's documentation.
pub(crate) struct Reactor {
    epoll: Arc<OwnedFd>,
    scratch: Vec<u8>,
    sources: Sources,
    values: Vec<(&'static [u8], Vec<u8>)>,
    connections: Connections,
    /// Connections that are only read until their peer closes them.
    lingering: VecDeque<(Instant, OwnedFd)>,
    relays: Slab<Relay>,
    /// Requests that wait for a PHP thread, by when they became ready.
    ready: VecDeque<Job>,
    new_jobs: Vec<Job>,
    /// Requests that run in this process, for ticks.
    running: Vec<Arc<Exchange>>,
    refusals: Option<AccessWriter>,
    held: usize,
    /// Connections with a deadline.
    clocked: usize,
    /// Whether listeners and the hand-over channel are in epoll.
    accepting: Option<Accepting>,
    receiving: bool,
    /// How long requests are likely to take.
    expected: Expected,
    /// Listeners that may have connections, a bit each.
    pending_listeners: u64,
    next_listener: usize,
    /// A connection has been accepted since a PHP thread had nothing to do.
    is_fresh: bool,
    /// What siblings see of this process.
    is_shown_idle: bool,
    /// A sibling has reserved this process since it was last shown as idle.
    was_reserved: bool,
    /// A sibling has had this process look into the queue.
    called: bool,
    /// A sibling wants the requests that this process keeps and that wait since before then.
    asked: Option<Moment>,
    /// What has been sent to idle siblings, and when; for a moment.
    sent: Vec<(Reservation, Instant)>,
    /// A sibling had reserved this process when it began to drain: what it sends is waited for.
    awaited: Option<Instant>,
    /// The timer has rung.
    rang: bool,
    /// Accepting is off until then, for want of descriptors or because the limit is reached.
    suspended: Option<Instant>,
    drain: Option<Cause>,
    /// When that began.
    drain_since: Option<Instant>,
    /// When events were last handled, or a request looked for.
    now: Instant,
    /// When somebody last looked what had come.
    looked: Instant,
    last_tick: Instant,
    last_sweep: Instant,
    warned: Option<Instant>,
    want_told: Option<Instant>,
    /// Connections of this process that leave scripts the descriptors they may count on.
    room: u32,
}

impl Reactor {
    /// Sets epoll up.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn new(sources: Sources) -> Result<Self, Errno> {
        let epoll = Arc::new(high_fd(epoll::create(CreateFlags::CLOEXEC)?));
        let mut own = vec![
            (sources.wake.as_fd(), WAKE),
            (sources.timer.as_fd(), TIMER),
            (sources.drain.as_fd(), DRAIN),
            (sources.quit.as_fd(), QUIT),
        ];
        if let Some(control) = &sources.control {
            own.push((control.channel.as_fd(), CONTROL));
        }
        if let Some(lane) = sources.lanes.receiver(sources.lane) {
            own.push((lane, LANE));
            sources.slot.set_lane(sources.lane);
        }
        for (descriptor, token) in own {
            let flags = EventFlags::IN | EventFlags::ET;
            epoll::add(&*epoll, descriptor, EventData::new_u64(token), flags)?;
        }
        let limits = &sources.limits;
        let values: Vec<(&'static [u8], Vec<u8>)> = vec![
            (
                b"FCGI_MAX_CONNS",
                limits.connections.to_string().into_bytes(),
            ),
            (
                b"FCGI_MAX_REQS",
                (limits.queue.saturating_add(sources.capacity))
                    .to_string()
                    .into_bytes(),
            ),
            (
                b"FCGI_MPXS_CONNS",
                if limits.announces_multiplexing {
                    b"1".to_vec()
                } else {
                    b"0".to_vec()
                },
            ),
        ];
        let now = Instant::now();
        let refusals = sources
            .access_log
            .as_ref()
            .map(|log| AccessWriter::new(Arc::clone(log)));
        let lanes = sources.lanes.count() * 2;
        Ok(Self {
            epoll,
            scratch: vec![0; 64 << 10],
            sources,
            values,
            connections: Connections::default(),
            lingering: VecDeque::new(),
            relays: Slab::new(),
            ready: VecDeque::new(),
            new_jobs: Vec::new(),
            running: Vec::new(),
            refusals,
            held: 0,
            clocked: 0,
            accepting: None,
            receiving: false,
            expected: Expected::Long,
            pending_listeners: 0,
            next_listener: 0,
            is_fresh: false,
            is_shown_idle: false,
            was_reserved: false,
            called: false,
            asked: None,
            sent: Vec::new(),
            awaited: None,
            rang: false,
            suspended: None,
            drain: None,
            drain_since: None,
            now,
            looked: now,
            last_tick: now,
            last_sweep: now,
            warned: None,
            want_told: None,
            room: u32::try_from(high_room())
                .unwrap_or(u32::MAX)
                .saturating_sub(lanes)
                .max(1),
        })
    }

    /// What to wait in for events, without the lock.
    pub(crate) fn epoll(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.epoll)
    }

    /// Where siblings reach this process, if there are any.
    pub(crate) fn lane(&self) -> Option<BorrowedFd<'_>> {
        self.sources.lanes.receiver(self.sources.lane)
    }

    /// Takes what siblings have sent.
    pub(crate) fn receive_own_lane(&mut self) {
        self.receive_lane(self.sources.lane);
    }

    /// Whether a sibling wants what waits here.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// The process's slot in the scoreboard.
    pub(crate) fn slot(&self) -> &Slot {
        &self.sources.slot
    }

    /// Whoever looks after running requests from now on does so for the first time a whole interval later.
    pub(crate) fn start_ticking(&mut self) {
        self.last_tick = Instant::now();
    }

    /// When events were last handled, or a request looked for.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// A request that [`next_job`](Self::next_job) gave out has been run.
    pub(crate) fn finish(&mut self, token: u64, exchange: Arc<Exchange>) {
        self.running
            .retain(|running| !Arc::ptr_eq(running, &exchange));
        exchange.output().set_resting(false);
        // With it goes the last other handle on the connection's socket: `remove` looks at that.
        drop(exchange);
        self.settle(token);
    }

    /// Nobody would see the answer, and nothing has been done yet.
    fn drop_job(&mut self, job: Job) {
        self.refuse(job, ProtocolStatus::RequestComplete);
    }

    /// Answers a request without running it.
    fn refuse(&mut self, job: Job, status: ProtocolStatus) {
        self.dispose(job, |job| job.refuse(status));
    }

    fn dispose(&mut self, mut job: Job, refuse: impl FnOnce(Job)) {
        self.uncount(&mut job);
        let (token, exchange) = (job.token, Arc::clone(&job.exchange));
        refuse(job);
        self.finish(token, exchange);
    }

    /// Forgets what was to be run for a connection that is going away.
    fn forget_ready(&mut self, token: u64) {
        while let Some(at) = self.ready.iter().position(|job| job.token == token) {
            drop(self.dequeue(at));
        }
    }

    /// Whether this process is to exit and has nothing left to do.
    pub(crate) fn is_finished(&self) -> bool {
        let empty = self.ready.is_empty()
            && self.running.is_empty()
            && self.connections.is_empty()
            && self.awaited.is_none_or(|since| since.elapsed() >= SWEEP)
            // If this process alone ends, others take what is there.
            && (self.sources.lanes.count() == 0
                || !self.sources.slot.has_queue()
                || (self.drain == Some(Cause::Quit) && self.sources.slot.has_serving_sibling()));
        match self.drain_mode() {
            None => false,
            Some(Drain::HandOver) => empty,
            Some(Drain::Close) => empty && !self.channel_has_connections(),
        }
    }

    /// Handles events. Requests that become ready are for [`next_job`](Self::next_job), or have to
    /// [wait](Self::place_waiting).
    pub(crate) fn handle(&mut self, events: impl IntoIterator<Item = Arrived>) {
        for (token, flags, at) in events {
            self.now = at;
            self.looked = self.looked.max(at);
            match token {
                WAKE => {}
                TIMER => self.rang = true,
                DRAIN => {
                    self.start_drain(Cause::Generation);
                    let _ = epoll::delete(&*self.epoll, &self.sources.drain);
                }
                QUIT => {
                    self.start_drain(Cause::Quit);
                    let _ = epoll::delete(&*self.epoll, &self.sources.quit);
                }
                CONTROL => self.receive_control(),
                HANDOVER => self.receive_handover(),
                LANE => self.receive_own_lane(),
                token if token >= RELAY => {
                    self.relay_event(usize::try_from(token - RELAY).unwrap_or(usize::MAX));
                }
                token if token >= LISTENER => {
                    self.pending_listeners |= 1 << (token - LISTENER).min(63);
                }
                token => self.connection_event(token, flags),
            }
        }
        self.now = Instant::now();
        self.look_after_time();
    }

    /// Looks what has come since anybody last looked, without a wait.
    pub(crate) fn look(&mut self) {
        let mut events = events();
        let epoll = Arc::clone(&self.epoll);
        let arrived = wait(&epoll, &mut events, Some(Duration::ZERO));
        // It has come some time between then and now.
        let at = self.looked + self.looked.elapsed() / 2;
        let arrived = arrived.iter();
        self.handle(arrived.map(|event| (event.data.u64(), event.flags, at)));
        self.looked = self.now;
    }

    /// Whether it is some time since anybody looked.
    pub(crate) fn has_not_looked(&self) -> bool {
        self.looked.elapsed() >= LOOKED_WITHIN
    }

    /// Whether nothing can come but on the one connection that has a request.
    pub(crate) fn is_alone(&self) -> bool {
        let mut all = self.connections.iter();
        self.relays.is_empty()
            && all.next().is_none_or(|(_, first)| first.runs_alone())
            && all.next().is_none()
    }

    /// Whether the timer has rung since the last call.
    pub(crate) fn has_rung(&mut self) -> bool {
        std::mem::take(&mut self.rang)
    }

    fn receive_control(&mut self) {
        let mut lanes = Vec::new();
        let closed = self
            .sources
            .control
            .take_if(|control| !(control.receive)(&control.channel, &mut lanes));
        if let Some(control) = closed {
            // It fails only for a descriptor that is not registered.
            let _ = epoll::delete(&*self.epoll, &control.channel);
        }
        for lane in lanes {
            self.receive_lane(lane);
            // Nor has its owner accepted what it was told of.
            self.pending_listeners = u64::MAX;
        }
    }

    fn connection_event(&mut self, token: u64, flags: EventFlags) {
        let Some(index) = self.index(token) else {
            return;
        };
        if flags.contains(EventFlags::OUT) {
            let _ = self.connections[index].output().flush();
        }
        if self.drain.is_some() {
            // Whoever owns it next reads what has come.
            self.settle(token);
            if !self.connections.contains(index) {
                return;
            }
        }
        if flags.contains(EventFlags::IN) {
            let is_closed = flags.intersects(EventFlags::RDHUP | EventFlags::HUP);
            self.read_connection(index, is_closed);
        } else if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            self.close_input(index);
            self.connections[index].output().hang_up();
        }
        self.settle(token);
    }

    /// Reads once. `more`: the end of what the peer sends can be read too.
    fn read_connection(&mut self, index: usize, more: bool) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let socket = Arc::clone(self.connections[index].output());
        match recv(socket.socket(), scratch.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.close_input(index);
                socket.set_reading(false);
                if self.connections[index].is_quiet() && socket.is_flushed() {
                    self.remove(index);
                }
            }
            Ok((length, _)) => {
                self.feed(index, &scratch[..length], None);
                // After less than there was room for nothing is left, and what comes later is told.
                if more || length == scratch.len() {
                    socket.tell_again();
                }
            }
            Err(Errno::INTR) => socket.tell_again(),
            Err(Errno::AGAIN) => {}
            Err(_) => {
                self.close_input(index);
                socket.deregister();
                socket.mark_broken();
                if self.connections[index].is_quiet() {
                    self.remove(index);
                }
            }
        }
        self.scratch = scratch;
    }

    /// Lets a connection decode bytes; false when that closed it. A request that becomes ready by it waits since now, unless it has
    /// waited with a sibling before.
    fn feed(&mut self, index: usize, bytes: &[u8], waited: Option<Waited>) -> bool {
        let token = self.connections.token(index);
        let connection = &mut self.connections[index];
        let clocked = connection.deadline().is_some();
        let mut jobs = std::mem::take(&mut self.new_jobs);
        let result = connection.receive(
            bytes,
            &mut Surroundings {
                limits: &self.sources.limits,
                values: &self.values,
                token,
                now: self.now,
                waiting: &self.sources.waiting,
                held: &mut self.held,
                ready: &mut jobs,
            },
        );
        match (clocked, connection.deadline().is_some()) {
            (false, true) => self.clocked += 1,
            (true, false) => self.clocked -= 1,
            _ => {}
        }
        match (jobs.first_mut(), waited) {
            (Some(job), Some(waited)) => {
                job.ready = waited.since;
                job.counted = waited.counted;
                job.waits = waited.waits;
            }
            // It is incomplete, or has been aborted.
            (
                None,
                Some(Waited {
                    counted: true,
                    waits,
                    ..
                }),
            ) => self.sources.slot.remove_queued(waits),
            _ => {}
        }
        for job in jobs.drain(..) {
            self.enqueue(job);
        }
        self.new_jobs = jobs;
        if let Err(error) = result {
            self.warn(&format!(
                "a FastCGI client sent what it must not, so its connection is closed: {error}"
            ));
            if self.connections.contains(index) {
                self.remove(index);
            }
            return false;
        }
        self.connections.contains(index)
    }

    /// Looks whether a connection is to be closed, handed over or watched after something has changed.
    fn settle(&mut self, token: u64) {
        let Some(index) = self.index(token) else {
            return;
        };
        let connection = &mut self.connections[index];
        connection.reap();
        if connection.is_done() {
            self.remove(index);
            return;
        }
        let drain = self.drain_mode();
        let connection = &self.connections[index];
        if let Some(drain) = drain
            && connection.is_quiet()
            && connection.output().is_flushed()
        {
            match drain {
                Drain::HandOver => {
                    drop(self.hand_over(token, None, Target::Channel));
                    return;
                }
                Drain::Close if !self.brings_request(index) => {
                    self.remove(index);
                    return;
                }
                Drain::Close => {}
            }
        }
        if let Err(error) = self.connections[index]
            .output()
            .register(&self.epoll, token)
        {
            self.warn(&format!("epoll_ctl: {error}"));
            self.remove(index);
        }
    }

    /// Whether a peer has sent a request that has not been read, or part of one, before the pool stopped: it is served
    /// still, and for as long as it may take to send. A client that goes on with new ones must not keep the pool alive, so that
    /// ends soon.
    fn brings_request(&self, index: usize) -> bool {
        let connection = &self.connections[index];
        let is_early = self
            .drain_since
            .is_some_and(|since| since.elapsed() < LAST_REQUESTS);
        !connection.output().is_broken()
            && (connection.has_begun() || is_early && has_input(connection.output().socket()))
    }

    /// The peer sends no more.
    fn close_input(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.deadline().is_some() {
            self.clocked -= 1;
        }
        connection.close_input(&mut self.held);
    }

    fn remove(&mut self, index: usize) {
        // Its number may be another connection's soon.
        self.forget_ready(self.connections.token(index));
        let connection = self.connections.remove(index);
        if connection.deadline().is_some() {
            self.clocked -= 1;
        }
        self.held = self.held.saturating_sub(connection.held());
        self.sources.slot.connection_closed();
        let output = connection.output();
        output.deregister();
        if connection.has_unread_input() {
            output.shutdown(Shutdown::Write);
            if let Ok(socket) = output.socket().try_clone_to_owned() {
                self.lingering
                    .push_back((Instant::now() + LINGER, high_fd(socket)));
            }
        } else if Arc::strong_count(output) > 1 || connection.was_passed_on() {
            // Somebody else still has a descriptor of it; the peer must see the end all the same.
            output.shutdown(Shutdown::Both);
        }
        if self.suspended.is_some() {
            self.suspended = Some(self.now);
        }
    }

    fn index(&self, token: u64) -> Option<usize> {
        self.connections.index(token)
    }

    /// Logs a line, but not the same trouble more than ten times a second.
    fn warn(&mut self, line: &str) {
        let now = Instant::now();
        if self.warned.is_none_or(|last| now - last > SWEEP) {
            self.warned = Some(now);
            log::warning(format_args!("[pool {}] {line}", self.sources.pool));
        }
    }
}

/// How a request has waited with a sibling.
#[derive(Debug, Clone, Copy)]
struct Waited {
    since: Instant,
    /// On what kind of connection.
    waits: Waits,
    /// It is in this pool's count of those that wait.
    counted: bool,
}

/// The same moment on the clock that processes share.
fn moment(instant: Instant) -> Moment {
    let (start, moment) = *START.get_or_init(|| (Instant::now(), Moment::now()));
    match instant.checked_duration_since(start) {
        Some(after) => moment.after(after),
        None => moment.before(start - instant),
    }
}

fn instant(since: Moment) -> Instant {
    let (start, moment) = *START.get_or_init(|| (Instant::now(), Moment::now()));
    let before = start.checked_sub(moment.since(since)).unwrap_or(start);
    before + since.since(moment)
}

/// One moment on both clocks.
static START: OnceLock<(Instant, Moment)> = OnceLock::new();

/// Whether bytes, or the end, can be read.
fn has_input(socket: BorrowedFd<'_>) -> bool {
    let mut wanted = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut wanted, Some(&now)), Ok(1..))
}

/// What epoll tells: about which of its descriptors, what, and when.
pub(crate) type Arrived = (u64, EventFlags, Instant);

/// What [`Reactor::handle`] takes, of events that have come now.
pub(crate) fn arrived(events: &[Event]) -> impl Iterator<Item = Arrived> {
    // Not the time before the wait: what has come has come now.
    let now = Instant::now();
    let arrived = move |event: &Event| (event.data.u64(), event.flags, now);
    events.iter().map(arrived)
}

/// What events are about that a busy process need not see to at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Connections that are open.
    Connections,
    /// Those and new ones.
    Listeners,
    /// Other things as well.
    Others,
}

/// Whether the timer has rung.
pub(crate) fn has_ring(events: &[Event]) -> bool {
    events.iter().any(|event| event.data.u64() == TIMER)
}

impl Subject {
    pub(crate) fn of(events: &[Event]) -> Self {
        let greatest = events.iter().map(|event| event.data.u64()).max();
        match greatest {
            None => Self::Others,
            Some(token) if token < LISTENER => Self::Connections,
            Some(token) if token < HANDOVER => Self::Listeners,
            Some(_) => Self::Others,
        }
    }
}

/// Waits in `epoll`, for `timeout` at most. An error is one that waiting again does not mend.
pub(crate) fn wait<'e>(
    epoll: &OwnedFd,
    events: &'e mut [MaybeUninit<Event>],
    timeout: Option<Duration>,
) -> &'e [Event] {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    });
    match epoll::wait(epoll, events, timeout.as_ref()) {
        Ok((events, _)) => events,
        Err(_) => &[],
    }
}

/// Room for events.
pub(crate) fn events() -> [MaybeUninit<Event>; EVENTS] {
    [MaybeUninit::uninit(); EVENTS]
}

/// Wakes a thread that waits in the reactor's epoll.
pub(crate) fn wake(descriptor: &OwnedFd) {
    // It fails only when the counter is full, and then it is readable.
    let _ = write(descriptor, &1_u64.to_ne_bytes());
}
