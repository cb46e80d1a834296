//! The sockets of one worker process: accepts, reads, times out and closes connections, and yields requests that are
//! ready to run. One thread at a time drives it; which one is `driver.rs`'s business.
//!
//! # Who takes what
//!
//! New connections, and connections that siblings have handed over, are *idle sources*: they are taken only while this process
//! can run a request at once (or, for new connections, while no process of the pool can, so that they do not wait in the
//! kernel's backlog where no limit of ours sees them). A request that is ready on a connection of a busy process goes into the
//! hand-over channel with its connection, whether or not somebody is idle now: the first to become idle takes it. Threads
//! of one process pass the request alone, through a [`ThreadQueue`]: its connection stays where it is.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, write};
use rustix::net::{RecvFlags, Shutdown, recv};
use slab::Slab;

use super::allowed_clients::AllowedClients;
use super::connection::{Connection, Surroundings};
use super::exchange::Exchange;
use super::job::{Home, Job};
use super::output::Output;
use super::relay::Relay;
use crate::config::Limits;
use crate::descriptor::{high_fd, high_room};
use crate::fastcgi::ProtocolStatus;
use crate::log::{self, AccessLog, AccessWriter};
use crate::scoreboard::{Scoreboard, Slot};

mod clock;
mod draining;
mod idle_sources;
mod passing;
mod queueing;

use draining::{Cause, Drain};
pub(crate) use passing::ThreadQueue;
pub(crate) use queueing::QueueRules;

/// How often the I/O side looks after running requests: output that a script holds back leaves that soon.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// How often it looks after everything else that depends on time.
const SWEEP: Duration = Duration::from_millis(100);
/// Turns in which idle sources may be passed over because connections of our own kept us busy.
const PATIENCE: u32 = 16;
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
const QUEUE: u64 = 1 << 45;
const CONTROL: u64 = 1 << 46;
const RELAY: u64 = 1 << 47;

/// Everything a reactor is given.
pub(crate) struct Sources {
    /// The pool's name.
    pub(crate) pool: String,
    pub(crate) listeners: Arc<Vec<OwnedFd>>,
    pub(crate) handover: Arc<crate::zygote::Handover>,
    /// Becomes readable when this process is to finish; says whether others take its connections.
    pub(crate) drain: Arc<crate::zygote::DrainSignal>,
    /// Becomes readable on SIGQUIT, and stays so.
    pub(crate) quit: Arc<OwnedFd>,
    /// An eventfd: interrupts [`Reactor::turn`].
    pub(crate) wake: Arc<OwnedFd>,
    pub(crate) scoreboard: Arc<Scoreboard>,
    pub(crate) slot: Slot,
    /// PHP threads of this process that still take requests.
    pub(crate) undrained: Arc<AtomicU32>,
    pub(crate) limits: Limits,
    /// What becomes of requests that have to wait.
    pub(crate) queue_rules: QueueRules,
    /// Where refused requests are written down, as others are.
    pub(crate) access_log: Option<Arc<AccessLog>>,
    /// Who may connect.
    pub(crate) allowed: Arc<AllowedClients>,
    /// Requests that the pool runs at once.
    pub(crate) capacity: u32,
    /// Where requests go that other threads of this process may run, if there are any; else whole connections go to
    /// sibling processes.
    pub(crate) queue: Option<Arc<ThreadQueue>>,
    /// The way down from the pool process; one reactor of a process has it.
    pub(crate) control: Option<Control>,
    /// Called by a PHP thread before it waits for its client's body.
    pub(crate) before_waiting: Arc<dyn Fn() + Send + Sync>,
}

/// Messages from the pool process.
pub(crate) struct Control {
    pub(crate) channel: crate::supervisor::messages::Channel,
    /// Called when there is something to receive; false if nothing will come any more.
    pub(crate) receive: Box<dyn Fn(&crate::supervisor::messages::Channel) -> bool + Send>,
}

/// See the module's documentation.
pub(crate) struct Reactor {
    epoll: Arc<OwnedFd>,
    scratch: Vec<u8>,
    sources: Sources,
    values: Vec<(&'static [u8], Vec<u8>)>,
    connections: Slab<Connection>,
    /// Connections that are only read until their peer closes them.
    lingering: VecDeque<(Instant, OwnedFd)>,
    relays: Slab<Relay>,
    ready: VecDeque<Job>,
    new_jobs: Vec<Job>,
    /// Requests that run in this process, for ticks.
    running: Vec<Arc<Exchange>>,
    home: Arc<Home>,
    /// See [`set_running`](Self::set_running).
    runs: bool,
    refusals: Option<AccessWriter>,
    /// A connection has had several requests open at once.
    multiplexed: bool,
    held: usize,
    /// Connections with a deadline.
    clocked: usize,
    /// Whether listeners and the hand-over channel are in epoll.
    accepting: bool,
    receiving: bool,
    receiving_queue: bool,
    /// Accepting is off until then, for want of descriptors or because the limit is reached.
    suspended: Option<Instant>,
    drain: Option<Cause>,
    /// When that began.
    drain_since: Option<Instant>,
    passed_over: u32,
    /// When the last turn ended.
    now: Instant,
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
        epoll::add(
            &*epoll,
            &*sources.wake,
            EventData::new_u64(WAKE),
            EventFlags::IN,
        )?;
        epoll::add(
            &*epoll,
            &*sources.drain,
            EventData::new_u64(DRAIN),
            EventFlags::IN,
        )?;
        epoll::add(
            &*epoll,
            &*sources.quit,
            EventData::new_u64(QUIT),
            EventFlags::IN,
        )?;
        if let Some(control) = &sources.control {
            epoll::add(
                &*epoll,
                &control.channel,
                EventData::new_u64(CONTROL),
                EventFlags::IN,
            )?;
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
        let home = Arc::new(Home::new(Arc::clone(&sources.wake)));
        Ok(Self {
            epoll,
            scratch: vec![0; 64 << 10],
            sources,
            values,
            connections: Slab::new(),
            lingering: VecDeque::new(),
            relays: Slab::new(),
            ready: VecDeque::new(),
            new_jobs: Vec::new(),
            running: Vec::new(),
            home,
            runs: false,
            refusals,
            multiplexed: false,
            held: 0,
            clocked: 0,
            accepting: false,
            receiving: false,
            receiving_queue: false,
            suspended: None,
            drain: None,
            drain_since: None,
            passed_over: 0,
            now,
            last_tick: now,
            last_sweep: now,
            warned: None,
            want_told: None,
            room: u32::try_from(high_room()).unwrap_or(u32::MAX).max(1),
        })
    }

    /// This process can run a request now: takes from the idle sources.
    pub(crate) fn become_idle(&mut self) {
        self.set_accepting(true);
        self.set_receiving(true);
    }

    /// This process is busy, and so stays for a while. Answers whether all others of the pool are busy too.
    pub(crate) fn become_busy(&mut self) -> bool {
        // EPOLLEXCLUSIVE has woken nobody else for what was passed over: take it, so that it reaches a sibling.
        if std::mem::take(&mut self.passed_over) > 0 {
            self.receive();
            if self.accepting {
                self.accept(u64::MAX);
            }
        }
        self.set_receiving(false);
        let all_busy = self.sources.scoreboard.idle_workers() == 0;
        self.set_accepting(all_busy);
        all_busy
    }

    /// Whoever drives it from now on ticks a whole interval later.
    pub(crate) fn start_ticking(&mut self) {
        self.last_tick = Instant::now();
    }

    /// The next request to run.
    pub(crate) fn next_job(&mut self) -> Option<Job> {
        loop {
            let job = self.ready.pop_front()?;
            if self.is_unwanted(&job) {
                self.drop_job(job);
                continue;
            }
            if self.is_late(&job) {
                self.refuse_late(job);
                continue;
            }
            if job.home.is_none() {
                self.running.push(Arc::clone(&job.exchange));
            }
            return Some(job);
        }
    }

    /// The time at which [`turn`](Self::turn) began to handle events.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Whether no other request than the next can come while it runs, as far as one can know.
    pub(crate) fn is_alone(&self) -> bool {
        self.connections.len() <= 1 && !self.multiplexed
    }

    /// A request of a connection of ours that [`next_job`](Self::next_job) gave out, here or on another thread, has been run.
    pub(crate) fn finish(&mut self, token: u64, exchange: Arc<Exchange>) {
        self.running
            .retain(|running| !Arc::ptr_eq(running, &exchange));
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

    fn dispose(&mut self, job: Job, refuse: impl FnOnce(Job)) {
        let (token, home, exchange) = (job.token, job.home.clone(), Arc::clone(&job.exchange));
        refuse(job);
        match home {
            Some(home) => home.finished(token, exchange),
            None => self.finish(token, exchange),
        }
    }

    /// Forgets what was to be run for a connection that is going away.
    fn forget_ready(&mut self, token: u64) {
        self.ready
            .retain(|job| job.home.is_some() || job.token != token);
    }

    /// Whether this process is to exit and has nothing left to do.
    pub(crate) fn is_finished(&self) -> bool {
        let empty = self.ready.is_empty() && self.running.is_empty() && self.connections.is_empty();
        match self.drain_mode() {
            None => false,
            Some(Drain::HandOver) => empty,
            Some(Drain::Close) => {
                empty && !self.channel_is(PollFlags::IN, &self.sources.handover.receive)
            }
        }
    }

    /// Waits for events, for `timeout` at most, and handles them. Requests that become ready are for
    /// [`next_job`](Self::next_job).
    pub(crate) fn turn(&mut self, timeout: Option<Duration>) {
        // Requests that are ready here are those that `hand_over_ready` could not pass on: they wait for something too.
        let timeout = self.patience(timeout);
        let timespec = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let mut buffer = [MaybeUninit::<Event>::uninit(); EVENTS];
        let events = match epoll::wait(&*self.epoll, &mut buffer, timespec.as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => &mut [],
            Err(error) => {
                self.warn(&format!("epoll_wait: {error}"));
                return;
            }
        };
        // Not the time before the wait: what has come has come now.
        self.now = Instant::now();
        let (finished, returned) = self.home.take();
        for (token, exchange) in finished {
            self.finish(token, exchange);
        }
        for job in returned {
            self.take_back(job);
        }
        // The hand-over channel or the queue; listeners, a bit each.
        let mut idle_sources = (false, 0_u64);
        let accepting = self.accepting;
        for Event { flags, data } in events.iter().copied() {
            match data.u64() {
                WAKE => {
                    let mut count = [0; 8];
                    let _ = read(&*self.sources.wake, &mut count);
                }
                DRAIN => {
                    self.start_drain(Cause::Generation);
                    let _ = epoll::delete(&*self.epoll, &*self.sources.drain);
                }
                QUIT => {
                    self.start_drain(Cause::Quit);
                    let _ = epoll::delete(&*self.epoll, &*self.sources.quit);
                }
                CONTROL => self.receive_control(),
                HANDOVER | QUEUE => idle_sources.0 = true,
                token if token >= RELAY => {
                    self.relay_event(usize::try_from(token - RELAY).unwrap_or(usize::MAX));
                }
                token if token >= LISTENER => idle_sources.1 |= 1 << (token - LISTENER).min(63),
                token => self.connection_event(token, flags),
            }
        }
        if idle_sources != (false, 0) {
            // Whoever is idle serves them; we do when we have nothing of our own to do, or have let them wait enough.
            if self.ready.is_empty() || self.passed_over >= PATIENCE {
                self.passed_over = 0;
                if idle_sources.0 {
                    self.receive();
                }
                if idle_sources.1 != 0 && accepting && (self.ready.is_empty() || !idle_sources.0) {
                    self.accept(idle_sources.1);
                }
            } else {
                self.passed_over += 1;
            }
        }
        self.look_after_time();
    }

    fn receive_control(&mut self) {
        let closed = self
            .sources
            .control
            .take_if(|control| !(control.receive)(&control.channel));
        if let Some(control) = closed {
            // It fails only for a descriptor that is not registered.
            let _ = epoll::delete(&*self.epoll, &control.channel);
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
            self.read_connection(index);
        } else if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            self.close_input(index);
            self.connections[index].output().hang_up();
        }
        self.settle(token);
    }

    fn read_connection(&mut self, index: usize) {
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
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
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
    fn feed(&mut self, index: usize, bytes: &[u8], waiting_since: Option<Instant>) -> bool {
        let connection = &mut self.connections[index];
        let clocked = connection.deadline().is_some();
        let mut jobs = std::mem::take(&mut self.new_jobs);
        let result = connection.receive(
            bytes,
            &mut Surroundings {
                limits: &self.sources.limits,
                values: &self.values,
                token: index as u64,
                now: self.now,
                before_waiting: &self.sources.before_waiting,
                held: &mut self.held,
                ready: &mut jobs,
            },
        );
        self.multiplexed |= connection.dispatched() > 1;
        match (clocked, connection.deadline().is_some()) {
            (false, true) => self.clocked += 1,
            (true, false) => self.clocked -= 1,
            _ => {}
        }
        if let (Some(job), Some(since)) = (jobs.first_mut(), waiting_since) {
            job.ready = since;
        }
        for job in jobs.drain(..) {
            if self.ready.len() > self.sources.limits.queue as usize {
                self.refuse_for_want_of_room(job);
            } else {
                self.ready.push_back(job);
            }
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
                    drop(self.hand_over(token, None));
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
        self.forget_ready(index as u64);
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
        usize::try_from(token)
            .ok()
            .filter(|index| self.connections.contains(*index))
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

/// Whether bytes, or the end, can be read.
fn has_input(socket: BorrowedFd<'_>) -> bool {
    let mut wanted = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut wanted, Some(&now)), Ok(1..))
}

/// Interrupts a [`Reactor::turn`] that another thread is in.
pub(crate) fn wake(descriptor: &OwnedFd) {
    // It fails only when the counter is full, and then it is readable.
    let _ = write(descriptor, &1_u64.to_ne_bytes());
}
