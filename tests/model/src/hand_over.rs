//! A request goes from a busy process to an idle one: src/scoreboard/idle.rs, with the steps of src/server/reactor/dispatch.rs that
//! use it.
//!
//! A process that has begun a request runs it to the end of the test, so what is left in the queue then has nobody but processes
//! that sleep. Its helper thread goes on: it sees to what comes through the lane.

use std::collections::VecDeque;
use std::sync::Mutex as Notes;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::check;
use crate::idle::{IdleFlag, QueueLength};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Request(u32),
    /// Look into the queue.
    Look,
    /// The test ends.
    Stop,
}

#[derive(Default)]
struct Lane {
    messages: Mutex<VecDeque<Message>>,
    arrived: Condvar,
}

impl Lane {
    fn send(&self, message: Message) {
        self.messages.lock().unwrap().push_back(message);
        self.arrived.notify_one();
    }

    fn receive(&self) -> Message {
        let mut messages = self.messages.lock().unwrap();
        loop {
            if let Some(message) = messages.pop_front() {
                return message;
            }
            messages = self.arrived.wait(messages).unwrap();
        }
    }

    fn try_receive(&self) -> Option<Message> {
        self.messages.lock().unwrap().pop_front()
    }
}

/// What a process that may be idle has in shared memory, and its lane.
#[derive(Default)]
struct Sibling {
    flag: IdleFlag,
    lane: Lane,
    counts: Notes<Counts>,
}

/// What the test counts; no steps of the model's.
#[derive(Default)]
struct Counts {
    shown_idle: u32,
    reserved: u32,
    sent: u32,
}

#[derive(Default)]
struct Pool {
    siblings: Vec<Sibling>,
    queue: Mutex<VecDeque<u32>>,
    length: QueueLength,
    ran: Notes<Vec<u32>>,
}

impl Pool {
    /// `Slot::reserve_idle`.
    fn reserve(&self) -> Option<&Sibling> {
        loop {
            let sibling = self
                .siblings
                .iter()
                .find(|sibling| sibling.flag.is_idle())?;
            if sibling.flag.reserve() {
                sibling.counts.lock().unwrap().reserved += 1;
                return Some(sibling);
            }
        }
    }

    /// Puts a request into the queue, and tells an idle sibling.
    fn enqueue(&self, request: u32) {
        self.queue.lock().unwrap().push_back(request);
        self.length.grew();
        self.call();
    }

    /// Has an idle sibling look into the queue.
    fn call(&self) {
        if let Some(sibling) = self.reserve() {
            sibling.send(Message::Look);
        }
    }

    /// `Reactor::place_waiting`: to an idle sibling at once, or into the queue.
    fn place(&self, request: u32) {
        match self.reserve() {
            Some(sibling) => sibling.send(Message::Request(request)),
            None => self.enqueue(request),
        }
    }

    /// `Reactor::receive_queued`.
    fn take(&self) -> Option<u32> {
        let may_take = self.length.has_any() && self.length.claim();
        may_take.then(|| {
            let request = self.queue.lock().unwrap().pop_front();
            request.expect("a claim that succeeds finds a request")
        })
    }
}

impl Sibling {
    fn send(&self, message: Message) {
        self.counts.lock().unwrap().sent += 1;
        self.lane.send(message);
    }
}

/// A process that may be idle.
struct Process {
    pool: Arc<Pool>,
    number: usize,
    is_busy: bool,
}

impl Process {
    fn sibling(&self) -> &Sibling {
        &self.pool.siblings[self.number]
    }

    /// The PHP thread has nothing to do.
    fn become_idle(&mut self) {
        self.is_busy = false;
        self.sibling().counts.lock().unwrap().shown_idle += 1;
        self.sibling().flag.become_idle();
        if let Some(request) = self.pool.take() {
            self.begin();
            self.run(request);
        }
    }

    fn begin(&mut self) {
        self.is_busy = true;
        // Whatever a sibling sends now, the helper gets.
        let _ = self.sibling().flag.become_busy();
    }

    fn run(&self, request: u32) {
        self.pool.ran.lock().unwrap().push(request);
    }

    /// Something has come through the lane: to the helper thread if the PHP thread is busy.
    fn handle(&mut self, message: Message) {
        match (message, self.is_busy) {
            (Message::Request(request), false) => {
                self.begin();
                self.run(request);
            }
            (Message::Request(request), true) => self.pool.place(request),
            // If the queue is empty again, it is no longer reserved for anything.
            (Message::Look, false) => self.become_idle(),
            // It was to take what is in the queue, and no other has been told.
            (Message::Look, true) => {
                if self.pool.length.has_any() {
                    self.pool.call();
                }
            }
            (Message::Stop, _) => {}
        }
    }

    fn handle_all(&mut self) {
        loop {
            match self.sibling().lane.receive() {
                Message::Stop => return,
                message => self.handle(message),
            }
        }
    }
}

/// How a process of the test begins.
type Begin = fn(&mut Process);

/// It becomes idle.
const IDLE: Begin = Process::become_idle;

/// It becomes idle, and begins something of its own, which takes long.
const BUSY_AGAIN: Begin = |process| {
    process.become_idle();
    if !process.is_busy {
        process.begin();
    }
};

/// It becomes idle, has something of its own to do, and becomes idle again.
const IDLE_AGAIN: Begin = |process| {
    process.become_idle();
    if !process.is_busy {
        process.begin();
        process.become_idle();
    }
};

/// Busy processes that have some requests each, and others, which begin as given.
fn all_is_run(
    preemptions: Option<usize>,
    place: fn(&Pool, u32),
    senders: &'static [&'static [u32]],
    processes: &'static [Begin],
) {
    check(preemptions, move || {
        let pool = Arc::new(Pool {
            siblings: processes.iter().map(|_| Sibling::default()).collect(),
            ..Pool::default()
        });
        let threads: Vec<_> = (0..processes.len())
            .map(|number| {
                let mut process = Process {
                    pool: Arc::clone(&pool),
                    number,
                    is_busy: true,
                };
                thread::spawn(move || {
                    processes[number](&mut process);
                    process.handle_all();
                    process
                })
            })
            .collect();
        // The last one is this thread: there can be no more than five.
        let (own, others) = senders.split_last().unwrap();
        let others: Vec<_> = others
            .iter()
            .map(|&requests| {
                let pool = Arc::clone(&pool);
                thread::spawn(move || requests.iter().for_each(|it| place(&pool, *it)))
            })
            .collect();
        own.iter().for_each(|it| place(&pool, *it));
        for sender in others {
            sender.join().unwrap();
        }
        for sibling in &pool.siblings {
            sibling.lane.send(Message::Stop);
        }
        let processes: Vec<_> = threads.into_iter().map(|it| it.join().unwrap()).collect();
        settle(&pool, processes, senders.concat());
    });
}

/// All threads have ended: does what is still to be done, one after the other, and looks whether anything is wrong.
fn settle(pool: &Pool, mut processes: Vec<Process>, requests: Vec<u32>) {
    loop {
        let mut is_any = false;
        for process in &mut processes {
            while let Some(message) = process.sibling().lane.try_receive() {
                is_any = true;
                process.handle(message);
            }
        }
        if !is_any {
            break;
        }
    }
    let left: Vec<u32> = pool.queue.lock().unwrap().drain(..).collect();
    for process in &processes {
        if !process.is_busy {
            assert_eq!(
                left, [0; 0],
                "they are in the queue while a process sleeps uncalled"
            );
            assert!(process.sibling().flag.is_idle(), "nobody can call it");
        }
        let counts = process.sibling().counts.lock().unwrap();
        assert_eq!(
            counts.sent, counts.reserved,
            "a message for each reservation"
        );
        assert!(
            counts.reserved <= counts.shown_idle,
            "two have reserved it at once"
        );
    }
    let mut seen = pool.ran.lock().unwrap().clone();
    seen.extend(&left);
    seen.sort_unstable();
    assert_eq!(seen, requests, "each is run, or waits, once");
    for _ in &left {
        assert!(pool.length.claim(), "what is in the queue is counted there");
    }
    assert!(!pool.length.has_any(), "what is counted is there");
}

#[test]
fn queue_one_sender_one_process() {
    all_is_run(None, Pool::enqueue, &[&[1]], &[IDLE]);
}

#[test]
fn queue_two_requests_two_processes() {
    all_is_run(Some(3), Pool::enqueue, &[&[1, 2]], &[IDLE, IDLE]);
}

#[test]
fn queue_two_senders_one_process() {
    all_is_run(Some(3), Pool::enqueue, &[&[1], &[2]], &[IDLE]);
}

#[test]
fn queue_two_senders_two_processes() {
    all_is_run(Some(2), Pool::enqueue, &[&[1], &[2]], &[IDLE, IDLE]);
}

#[test]
fn queue_called_process_becomes_busy() {
    all_is_run(Some(3), Pool::enqueue, &[&[1]], &[BUSY_AGAIN, IDLE]);
}

#[test]
fn direct_one_sender_one_process() {
    all_is_run(None, Pool::place, &[&[1]], &[BUSY_AGAIN]);
}

#[test]
fn direct_reserved_process_becomes_busy() {
    all_is_run(Some(3), Pool::place, &[&[1]], &[BUSY_AGAIN, IDLE]);
}

#[test]
fn direct_reserved_process_becomes_idle_again() {
    all_is_run(Some(3), Pool::place, &[&[1], &[2]], &[IDLE_AGAIN]);
}

#[test]
fn direct_two_senders_two_processes() {
    all_is_run(Some(2), Pool::place, &[&[1], &[2]], &[BUSY_AGAIN, IDLE]);
}
