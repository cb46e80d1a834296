//! The rules of src/server/reactor/dispatch.rs as a whole, for random schedules: workers, clients' connections, requests that come
//! and take their time, and messages that are on their way for a while.
//!
//! What it checks is said in dispatch.rs: no request waits while a worker is idle, and requests start in the order in which they
//! became ready. Both are meant give or take what it takes to notice a request and to send it ([`NOTICE`], [`HOP`]), and `SLACK`.
//!
//! It leaves out: new connections in the listen queue (they come to a worker at random), requests that cannot be sent, sends that
//! fail, short requests, which nobody looks for while others run, limits, drains, deaths of processes, and ZTS. The steps between which
//! another process may do something are those of a message on its way; `hand_over` has those of a send itself.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Microseconds.
type Time = u64;

/// `SLACK` of dispatch.rs.
const SLACK: Time = 200;
/// How long it takes a helper at most to notice what has come.
const NOTICE: Time = 50;
/// How long a request, or a call, is on its way.
const HOP: std::ops::RangeInclusive<Time> = 5..=50;
/// How long it takes a busy process at most to send an idle one what it has asked for.
const ASKED: Time = 50 + NOTICE + 50;
/// A request that is noticed at the last moment, and then sent to a process that is idle.
const PROMPT: Time = NOTICE + 50;

const SCHEDULES: u64 = 10_000;
const REQUESTS: usize = 300;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn within(&mut self, range: std::ops::RangeInclusive<u64>) -> u64 {
        range.start() + self.next() % (range.end() - range.start() + 1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A client sends a request on its connection.
    Arrives { connection: usize },
    /// The helper of a worker sees what has come, if the worker is busy.
    Notices { worker: usize },
    /// A request has been put into the queue.
    Queued { request: usize },
    /// A sibling has sent a request, or a call to look into the queue if none.
    Lane {
        worker: usize,
        request: Option<usize>,
    },
    /// A sibling has asked for what waits since before `than`.
    Asked { worker: usize, than: Time },
    /// A worker is done.
    Finishes { worker: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flag {
    Busy,
    Idle,
    /// And whether it is called to look into the queue, rather than sent a request.
    Reserved {
        called: bool,
    },
}

#[derive(Debug)]
struct Request {
    connection: usize,
    arrived: Time,
    /// When it became ready in the reactor that has read it.
    ready: Time,
    started: Option<Time>,
    /// How much of `delays` is that it was taken out of the queue.
    adoption: Time,
    /// How long it was on its way, and was not noticed.
    delays: Time,
    /// Time that it has waited while a worker was idle.
    beside_idle: Time,
    /// How much of that is allowed.
    allowed: Time,
}

#[derive(Debug)]
struct Worker {
    flag: Flag,
    running: Option<usize>,
    /// In the socket still.
    unread: Vec<usize>,
    /// By the time at which they became ready.
    ready: Vec<usize>,
    connections: usize,
    /// Since when it shows that it keeps requests, and that it does not look for others.
    kept: Option<Time>,
    unwatched: bool,
    /// It was called while it was busy, and has not seen that.
    called: bool,
}

struct Simulation {
    seed: u64,
    random: Random,
    now: Time,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    count: u64,
    workers: Vec<Worker>,
    /// The worker that each connection is with; new ones have none.
    owners: Vec<Option<usize>>,
    requests: Vec<Request>,
    queue: VecDeque<usize>,
    /// The longest pause of a client, and the longest request.
    pause: Time,
    length: Time,
    /// Requests are medium: busy processes keep them as long as no sibling is idle or asks for them.
    keeps: bool,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let workers = random.within(2..=8);
        let connections = random.within(1..=4 * workers);
        let length = [300, 2_000, 20_000][(random.next() % 3) as usize];
        // From a load of nearly nothing to twice as much as they can do.
        let keeps = length <= 2_000 && random.one_in(2);
        let pause = length * connections / workers * 4 / random.within(1..=16) + 1;
        let mut simulation = Self {
            seed,
            random,
            now: 0,
            events: BinaryHeap::new(),
            count: 0,
            workers: (0..workers)
                .map(|_| Worker {
                    flag: Flag::Idle,
                    running: None,
                    unread: Vec::new(),
                    ready: Vec::new(),
                    connections: 0,
                    kept: None,
                    unwatched: false,
                    called: false,
                })
                .collect(),
            owners: vec![None; connections as usize],
            requests: Vec::new(),
            queue: VecDeque::new(),
            pause,
            length,
            keeps,
        };
        for connection in 0..connections as usize {
            let after = simulation.random.within(0..=pause);
            simulation.after(after, Event::Arrives { connection });
        }
        simulation
    }

    fn after(&mut self, delay: Time, event: Event) {
        self.count += 1;
        self.events
            .push(Reverse((self.now + delay, self.count, event)));
    }

    fn hop(&mut self) -> Time {
        self.random.within(HOP)
    }

    fn run(mut self) {
        while let Some(Reverse((time, _, event))) = self.events.pop() {
            self.pass_time(time);
            self.handle(event);
        }
        self.check();
    }

    /// Time goes by; each request that waits beside an idle worker is charged.
    fn pass_time(&mut self, to: Time) {
        let is_idle =
            |worker: &Worker| matches!(worker.flag, Flag::Idle | Flag::Reserved { called: true });
        if self.workers.iter().any(is_idle) {
            for request in &mut self.requests {
                if request.started.is_none() {
                    request.beside_idle += to - self.now;
                }
            }
        }
        self.now = to;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrives { connection } => self.arrives(connection),
            Event::Notices { worker } if self.workers[worker].running.is_some() => {
                if self.keeps && !self.has_idle() {
                    // `Driver::put_off`, and the helper does not look from now on.
                    let it = &mut self.workers[worker];
                    it.kept = it.kept.or(Some(self.now));
                    it.unwatched = true;
                    return;
                }
                self.read(worker);
                self.place(worker);
                if std::mem::take(&mut self.workers[worker].called) && !self.queue.is_empty() {
                    self.call(worker);
                }
            }
            Event::Notices { .. } => {}
            Event::Queued { request } => {
                self.queue.push_back(request);
                self.call(usize::MAX);
            }
            Event::Lane { worker, request } => self.receives(worker, request),
            Event::Asked { worker, than } => self.asked(worker, than),
            Event::Finishes { worker } => self.finishes(worker),
        }
    }

    fn arrives(&mut self, connection: usize) {
        let worker = self.owners[connection].unwrap_or_else(|| {
            let worker = self.random.within(0..=self.workers.len() as u64 - 1) as usize;
            self.workers[worker].connections += 1;
            self.owners[connection] = Some(worker);
            worker
        });
        let request = self.requests.len();
        self.requests.push(Request {
            connection,
            arrived: self.now,
            ready: self.now,
            started: None,
            adoption: 0,
            delays: 0,
            beside_idle: 0,
            allowed: PROMPT + HOP.end(),
        });
        self.workers[worker].unread.push(request);
        if self.workers[worker].running.is_none() {
            self.read(worker);
            self.next(worker);
        } else if !self.workers[worker].unwatched {
            self.notice(worker);
        }
    }

    fn has_idle(&self) -> bool {
        self.workers.iter().any(|worker| worker.flag == Flag::Idle)
    }

    fn notice(&mut self, worker: usize) {
        let delay = self.random.within(0..=NOTICE);
        self.after(delay, Event::Notices { worker });
    }

    /// Reads what has come; it becomes ready by that.
    fn read(&mut self, worker: usize) {
        for request in std::mem::take(&mut self.workers[worker].unread) {
            self.requests[request].ready = self.now;
            self.requests[request].delays += self.now - self.requests[request].arrived;
            self.enqueue(worker, request);
        }
    }

    /// `Reactor::enqueue`.
    fn enqueue(&mut self, worker: usize, request: usize) {
        let requests = &self.requests;
        let ready = &mut self.workers[worker].ready;
        let at = ready.partition_point(|it| requests[*it].ready <= requests[request].ready);
        ready.insert(at, request);
    }

    /// `Reactor::next_job`, with `take_older`: the worker begins a request, or becomes idle.
    fn next(&mut self, worker: usize) {
        let own = self.workers[worker].ready.first().copied();
        let first = self.queue.front().copied();
        let ready = |request: usize| self.requests[request].ready;
        let is_own = match (own, first) {
            (None, None) => {
                self.become_idle(worker);
                return;
            }
            (Some(own), Some(first)) => ready(own).saturating_sub(ready(first)) <= SLACK,
            (own, _) => own.is_some(),
        };
        let mut adoption = 0;
        let request = if is_own {
            let own = self.workers[worker].ready.remove(0);
            self.ask_older(self.requests[own].ready.saturating_sub(SLACK));
            own
        } else {
            adoption = self.hop();
            let request = self.queue.pop_front().expect("not empty");
            self.come(worker, request, adoption);
            request
        };
        let length = self.random.within(20..=self.length);
        self.requests[request].started = Some(self.now + adoption);
        self.requests[request].adoption = adoption;
        self.workers[worker].flag = Flag::Busy;
        self.workers[worker].running = Some(request);
        self.after(adoption + length, Event::Finishes { worker });
        self.place(worker);
    }

    /// A connection comes with its request.
    fn come(&mut self, worker: usize, request: usize, hop: Time) {
        self.requests[request].delays += hop;
        self.workers[worker].connections += 1;
        self.owners[self.requests[request].connection] = Some(worker);
    }

    /// `Reactor::become_idle`.
    fn become_idle(&mut self, worker: usize) {
        self.workers[worker].flag = Flag::Idle;
        if self.keeps {
            for request in &mut self.requests {
                request.allowed += ASKED;
            }
        }
        for sibling in 0..self.workers.len() {
            let it = &mut self.workers[sibling];
            let is_unwatched = std::mem::take(&mut it.unwatched);
            if it.kept.take().is_some() || is_unwatched {
                self.ask(sibling, self.now);
            }
        }
    }

    /// `Reactor::ask_older`.
    fn ask_older(&mut self, than: Time) {
        let kept = |worker: &usize| self.workers[*worker].kept.filter(|since| *since < than);
        let oldest = (0..self.workers.len())
            .filter(|worker| kept(worker).is_some())
            .min_by_key(kept);
        if let Some(worker) = oldest {
            self.workers[worker].kept = None;
            self.ask(worker, than);
        }
    }

    fn ask(&mut self, worker: usize, than: Time) {
        let hop = self.hop();
        self.after(hop, Event::Asked { worker, than });
    }

    fn asked(&mut self, worker: usize, than: Time) {
        if self.workers[worker].running.is_none() {
            return;
        }
        self.place_before(worker, than);
        if self.has_idle() {
            // The helper looks from now on.
            self.notice(worker);
        }
    }

    /// `Reactor::place_waiting`.
    fn place(&mut self, worker: usize) {
        let before = if self.keeps { 0 } else { Time::MAX };
        self.place_before(worker, before);
    }

    /// `Reactor::send_ready`, and `Reactor::keep`.
    fn place_before(&mut self, worker: usize, before: Time) {
        for request in std::mem::take(&mut self.workers[worker].ready) {
            if self.requests[request].ready >= before && !self.has_idle() {
                self.workers[worker].ready.push(request);
                continue;
            }
            let hop = self.hop();
            self.workers[worker].connections -= 1;
            if let Some(sibling) = self.reserve(worker, false) {
                let request = Some(request);
                self.after(
                    hop,
                    Event::Lane {
                        worker: sibling,
                        request,
                    },
                );
            } else {
                self.after(hop, Event::Queued { request });
            }
            self.requests[request].delays += hop;
        }
        let it = &self.workers[worker];
        let first = it
            .ready
            .first()
            .map(|request| self.requests[*request].ready);
        let has_idle = self.has_idle();
        let it = &mut self.workers[worker];
        it.kept = first;
        it.unwatched |= self.keeps && !has_idle;
    }

    /// `Slot::reserve_idle`.
    fn reserve(&mut self, but: usize, called: bool) -> Option<usize> {
        let idle = |worker: &usize| *worker != but && self.workers[*worker].flag == Flag::Idle;
        let worker = (0..self.workers.len())
            .filter(idle)
            .min_by_key(|worker| self.workers[*worker].connections)?;
        self.workers[worker].flag = Flag::Reserved { called };
        Some(worker)
    }

    /// Has an idle sibling look into the queue.
    fn call(&mut self, but: usize) {
        if let Some(worker) = self.reserve(but, true) {
            let hop = self.hop();
            self.after(
                hop,
                Event::Lane {
                    worker,
                    request: None,
                },
            );
        }
    }

    fn receives(&mut self, worker: usize, request: Option<usize>) {
        let is_busy = self.workers[worker].running.is_some();
        if let Some(request) = request {
            self.come(worker, request, 0);
            self.enqueue(worker, request);
        }
        if !is_busy {
            self.next(worker);
            return;
        }
        // It has become busy with something of its own: one more way for what was sent, or for the call.
        let more = PROMPT + HOP.end();
        match request {
            Some(request) => {
                self.requests[request].allowed += more;
                self.requests[request].delays += NOTICE;
            }
            None => {
                self.workers[worker].called = true;
                for request in &self.queue {
                    self.requests[*request].allowed += more;
                }
            }
        }
        self.notice(worker);
    }

    fn finishes(&mut self, worker: usize) {
        let request = self.workers[worker].running.take().expect("runs one");
        let connection = self.requests[request].connection;
        if self.random.one_in(4) {
            // The client closes it, and opens another.
            self.owners[connection] = None;
            self.workers[worker].connections -= 1;
        }
        if self.requests.len() < REQUESTS {
            let pause = self.random.within(1..=self.pause);
            self.after(pause, Event::Arrives { connection });
        }
        // The helper may have had events for the PHP thread, or there was none.
        if self.keeps || self.random.one_in(2) {
            self.read(worker);
        }
        self.next(worker);
        if self.workers[worker].running.is_none() && !self.workers[worker].unread.is_empty() {
            self.read(worker);
            self.next(worker);
        }
    }

    fn check(&self) {
        let seed = self.seed;
        // Two that are taken out of the queue one after the other may come in another order.
        let began = |request: &Request| request.started.map(|at| at - request.adoption);
        for (number, request) in self.requests.iter().enumerate() {
            assert!(
                request.started.is_some(),
                "schedule {seed}: {number} is never run: {request:?}"
            );
            assert!(
                request.beside_idle <= request.allowed,
                "schedule {seed}: {number} waits beside an idle worker: {request:?}"
            );
            // They are in the order in which they have arrived. One that is kept may be overtaken until it has been asked for: by
            // what other workers take meanwhile, each two at most.
            let allowed = if self.keeps {
                2 * self.workers.len()
            } else {
                0
            };
            let overtaking = self.requests.iter().enumerate().skip(number + 1);
            let overtaking: Vec<_> = overtaking
                .filter(|(_, other)| {
                    other.arrived > request.arrived + SLACK + request.delays
                        && began(other) < began(request)
                })
                .collect();
            assert!(
                overtaking.len() <= allowed,
                "schedule {seed}: {number} is overtaken: {request:?}, {overtaking:?}"
            );
        }
    }
}

#[test]
fn no_request_waits_beside_an_idle_worker_and_all_are_in_order() {
    for seed in 0..SCHEDULES {
        Simulation::new(seed).run();
    }
}
