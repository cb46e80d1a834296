//! A client that keeps to the protocol: several requests at once, their records interleaved, aborts, questions for values.
//! Whatever the pieces in which its bytes arrive, and though the connection is handed over in between, each request reaches
//! a script with its params and its body, its answer comes back whole, and it ends once.

use super::*;
use crate::fastcgi::properties::{pairs, record};
use crate::fastcgi::{Decoder, DecoderLimits, Event};
use crate::request::ResponseSink;

mod request;

use request::{Effect, Kind, Request, Script};

pub(super) fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    let world = World::new(&mut choices);
    let mut session = Session {
        world,
        requests: Vec::new(),
        scripts: Vec::new(),
        questions: 0,
        unknown: 0,
        closing: false,
    };
    while !choices.is_empty() && !session.is_over() {
        session.step(&mut choices);
    }
    session.finish();
}

/// A record, and what the server knows once it has it.
type Message = (Vec<u8>, usize, Effect);

struct Session {
    world: World,
    requests: Vec<Request>,
    scripts: Vec<Script>,
    questions: usize,
    unknown: usize,
    /// A request without FCGI_KEEP_CONN has ended.
    closing: bool,
}

impl Session {
    fn is_over(&self) -> bool {
        self.closing && self.world.connection.dispatched() == 0
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let step = choices.byte();
        match step & 7 {
            0 if self.requests.iter().filter(|one| one.end.is_none()).count() < 6 => {
                self.open(choices);
            }
            // Some records of some requests, in one go.
            0..=3 => {
                let mut batch = Vec::new();
                for _ in 0..=step >> 6 {
                    let which = choices.byte();
                    self.send_some(which, choices.byte(), &mut batch);
                }
                self.deliver(batch);
            }
            4 => {
                let which = choices.byte();
                let live: Vec<usize> = (0..self.requests.len())
                    .filter(|index| {
                        let one = &self.requests[*index];
                        one.begun && one.end.is_none() && !one.aborted && one.refusal.is_none()
                    })
                    .collect();
                if let Some(&index) = live.get(usize::from(which) % live.len().max(1)) {
                    let one = &mut self.requests[index];
                    one.unsent.clear();
                    let abort = record(2, one.id, b"", step >> 3);
                    self.deliver(vec![(abort, index, Effect::Abort)]);
                }
            }
            5 => self.ask(step),
            6 if !self.world.ready.is_empty() => {
                let job = usize::from(step >> 3) % self.world.ready.len();
                self.start(job);
            }
            _ if !self.scripts.is_empty() => {
                let script = usize::from(step >> 3) % self.scripts.len();
                self.go_on(script, choices);
            }
            _ => {
                self.hand_over();
            }
        }
        self.read();
    }

    fn open(&mut self, choices: &mut Choices<'_>) {
        let id = [1, 2, 3, 0x100, 0xfffe, 0xffff, 9]
            .into_iter()
            .find(|id| {
                !self
                    .requests
                    .iter()
                    .any(|one| one.id == *id && one.end.is_none())
            })
            .expect("an id that is free");
        // What the client had still to send for an earlier request of this id.
        for one in self.requests.iter_mut().filter(|one| one.id == id) {
            one.unsent.clear();
        }
        let request = Request::choose(id, self.requests.len(), choices);
        self.requests.push(request);
    }

    fn send_some(&mut self, which: u8, count: u8, batch: &mut Vec<Message>) {
        let waiting: Vec<usize> = (0..self.requests.len())
            .filter(|index| !self.requests[*index].unsent.is_empty())
            .collect();
        let Some(&index) = waiting.get(usize::from(which) % waiting.len().max(1)) else {
            return;
        };
        let unsent = &mut self.requests[index].unsent;
        let count = usize::from(count & 15).clamp(1, unsent.len());
        batch.extend(
            unsent
                .drain(..count)
                .map(|(bytes, effect)| (bytes, index, effect)),
        );
    }

    fn ask(&mut self, step: u8) {
        let question = if step & 8 == 0 {
            self.questions += 1;
            record(9, 0, b"\x0d\x00FCGI_MAX_REQS\x01\x00x", step >> 4)
        } else {
            self.unknown += 1;
            record(77, 0, b"?", step >> 4)
        };
        self.deliver(vec![(question, usize::MAX, Effect::Nothing)]);
    }

    /// Hands the bytes of a batch to the connection in pieces, and looks after each piece what became of them.
    fn deliver(&mut self, batch: Vec<Message>) {
        let wire: Vec<u8> = batch
            .iter()
            .flat_map(|(bytes, ..)| bytes)
            .copied()
            .collect();
        let mut messages = batch.into_iter().peekable();
        let (mut start, mut whole) = (0, 0);
        while start < wire.len() {
            // Answered requests have been forgotten from here on.
            let over: Vec<bool> = self.requests.iter().map(|one| one.answered).collect();
            let end = self.world.cutter.piece(start, wire.len());
            let known = self.world.ready.len();
            self.world
                .receive(&wire[start..end])
                .expect("what a client sends that keeps to the protocol");
            start = end;
            let jobs = self.world.ready.len() - known;
            self.take_in(jobs);
            while let Some((bytes, index, effect)) =
                messages.next_if(|(bytes, ..)| whole + bytes.len() <= end)
            {
                whole += bytes.len();
                self.apply(index, effect, &over);
            }
            self.check_jobs(&over);
            self.check_clock(whole < end, &over);
            self.world.drop_gone();
            for (index, one) in self.requests.iter_mut().enumerate() {
                let runs = self.scripts.iter().any(|script| script.request == index);
                one.answered |= one.aborted && !runs;
            }
            self.read();
            if self.world.cutter.below(4) == 0 {
                self.hand_over();
            }
        }
    }

    fn hand_over(&mut self) {
        let queued: Vec<u16> = self
            .world
            .ready
            .iter()
            .map(|job| job.exchange.id())
            .collect();
        if self.world.hand_over() {
            for one in &mut self.requests {
                if one.end.is_none() && queued.contains(&one.id) {
                    one.job = None;
                }
            }
            self.take_in(self.world.ready.len());
        }
    }

    /// The last `count` jobs are new.
    fn take_in(&mut self, count: usize) {
        let known = self.world.ready.len() - count;
        for at in known..self.world.ready.len() {
            let job = &self.world.ready[at];
            let index = self.live(job.exchange.id());
            let one = &mut self.requests[index];
            assert_eq!(one.job, None, "dispatched twice");
            let variables = pairs(&job.variables);
            assert_eq!(variables[0].0, b"FCGI_ROLE");
            assert_eq!(variables[1..], one.params);
            one.job = Some(match &job.body {
                Body::Stream(_) => Kind::Stream,
                Body::Empty => {
                    assert!(one.body.is_empty() || one.declared == Some(0));
                    Kind::Whole
                }
                Body::Complete(bytes) => {
                    let least = one.declared.unwrap_or(usize::MAX).min(one.body.len());
                    assert!(bytes.len() >= least && one.body.starts_with(bytes));
                    Kind::Whole
                }
            });
            check_relayed(job);
        }
    }

    /// The request that has this id now.
    fn live(&self, id: u16) -> usize {
        self.requests
            .iter()
            .rposition(|one| one.id == id && one.end.is_none())
            .expect("a request of this id that has not ended")
    }

    fn apply(&mut self, index: usize, effect: Effect, over: &[bool]) {
        if let Effect::Begin = effect {
            let open = self.requests.iter().zip(over).filter(|(one, over)| {
                let forgotten = **over || (one.aborted && one.job.is_none());
                one.begun && one.refusal.is_none() && !forgotten
            });
            let full = open.count() >= self.world.limits.requests_per_connection as usize;
            let one = &mut self.requests[index];
            one.begun = true;
            one.refusal = match one.role {
                3 => Some(ProtocolStatus::UnknownRole),
                _ if full => Some(ProtocolStatus::Overloaded),
                _ => None,
            };
            return;
        }
        let Some(one) = self.requests.get_mut(index) else {
            return;
        };
        match effect {
            Effect::ParamsEnd => {
                one.params_ended = true;
                // There is none to come.
                one.stdin_ended |= one.role == 2;
            }
            // After fastcgi_finish_request() nobody keeps what still comes, as under php-fpm.
            Effect::Stdin(_) | Effect::StdinEnd if over[index] => {}
            Effect::Stdin(length) => one.stdin += length,
            Effect::StdinEnd => one.stdin_ended = true,
            Effect::Abort => one.aborted = true,
            Effect::Begin | Effect::Params | Effect::Nothing => {}
        }
    }

    /// Scripts are there for the requests that have all they need, and for no others.
    fn check_jobs(&self, over: &[bool]) {
        let limit = self.world.limits.body_buffer;
        for (one, over) in self.requests.iter().zip(over) {
            if !one.begun || *over || one.end.is_some() {
                continue;
            }
            if one.refusal.is_some() || !one.params_ended {
                assert_eq!(one.job, None);
                continue;
            }
            if one.aborted {
                continue;
            }
            let enough = one
                .declared
                .is_some_and(|declared| declared <= one.stdin || declared > limit);
            if one.stdin_ended || enough {
                assert!(one.job.is_some(), "{} waits with all that it needs", one.id);
            } else if self.world.held_elsewhere == 0
                && one.stdin <= limit
                && !(one.bodiless && one.declared.is_none())
            {
                assert_eq!(
                    one.job, None,
                    "{} takes a worker before its body is there",
                    one.id
                );
            }
        }
    }

    /// A deadline is set exactly while something is incomplete and no body streams to a script.
    fn check_clock(&self, partial: bool, over: &[bool]) {
        let mut incomplete = partial;
        let mut streaming = false;
        for (one, over) in self.requests.iter().zip(over) {
            if !one.begun || *over || one.refusal.is_some() || (one.aborted && one.job.is_none()) {
                continue;
            }
            incomplete |= one.job.is_none();
            streaming |= one.job == Some(Kind::Stream) && !one.stdin_ended;
        }
        let expected = incomplete && !streaming;
        assert_eq!(self.world.connection.deadline().is_some(), expected);
    }

    fn start(&mut self, job: usize) {
        let Job { exchange, body, .. } = self.world.ready.remove(job);
        self.scripts.push(Script {
            request: self.live(exchange.id()),
            sink: FastcgiSink::new(exchange, NoAccount),
            body,
            read: 0,
            finished: false,
        });
    }

    /// Lets a script do something.
    fn go_on(&mut self, index: usize, choices: &mut Choices<'_>) {
        let script = &mut self.scripts[index];
        let one = &mut self.requests[script.request];
        match choices.byte() & 7 {
            0 | 1 => {
                let data = vec![choices.byte(); usize::from(choices.byte()) * 300];
                let sent = script.sink.write(&data);
                if !script.finished {
                    assert_eq!(sent.is_err(), one.aborted);
                    one.stdout.extend(data);
                }
            }
            2 => {
                script.sink.error(b"warning");
                if !script.finished {
                    one.stderr.extend_from_slice(b"warning");
                }
            }
            // A client that has gone is seen at the next write.
            3 => drop(script.sink.flush()),
            4 | 5 => {
                let wanted = usize::from(choices.byte()) * 64;
                script.read(one, wanted);
            }
            6 => {
                assert!(script.sink.finish().is_ok() || one.aborted);
                script.finished = true;
                one.answered = true;
            }
            _ => self.end(index),
        }
    }

    fn end(&mut self, index: usize) {
        let script = self.scripts.swap_remove(index);
        self.requests[script.request].answered = true;
        drop(script);
    }

    /// What the client receives.
    fn read(&mut self) {
        for answer in self.world.read() {
            match answer {
                Answer::Stdout(id, data) => {
                    let one = self.live(id);
                    self.requests[one].seen_stdout.extend(data);
                }
                Answer::Stderr(id, data) => {
                    let one = self.live(id);
                    self.requests[one].seen_stderr.extend(data);
                }
                Answer::End(id, _, status) => {
                    let index = self.live(id);
                    let one = &mut self.requests[index];
                    one.check_end(status);
                    one.end = Some(status);
                    self.closing |= !one.keep_conn;
                }
                Answer::Values(values) => {
                    self.questions = self.questions.checked_sub(1).expect("a question");
                    assert_eq!(values, [(b"FCGI_MAX_REQS".to_vec(), b"12".to_vec())]);
                }
                Answer::UnknownType(kind) => {
                    self.unknown = self.unknown.checked_sub(1).expect("an unknown record");
                    assert_eq!(kind, 77);
                }
            }
        }
    }

    /// Everything is sent, run and read to its end; or, when the connection is to be closed, what still runs.
    fn finish(mut self) {
        while !self.is_over() && self.requests.iter().any(|one| one.end.is_none()) {
            let mut batch = Vec::new();
            for index in 0..self.requests.len() {
                let unsent = std::mem::take(&mut self.requests[index].unsent);
                batch.extend(
                    unsent
                        .into_iter()
                        .map(|(bytes, effect)| (bytes, index, effect)),
                );
            }
            self.deliver(batch);
            while !self.world.ready.is_empty() {
                self.start(0);
            }
            for script in &mut self.scripts {
                let one = &mut self.requests[script.request];
                if one.stdin_ended && !one.aborted {
                    script.read(one, usize::MAX);
                }
            }
            for index in (0..self.scripts.len()).rev() {
                self.end(index);
            }
            self.read();
            self.world.connection.reap();
        }
        for index in (0..self.scripts.len()).rev() {
            self.end(index); // those that had finished early
        }
        assert_eq!((self.questions, self.unknown), (0, 0));
        self.world.connection.reap();
        let connection = &self.world.connection;
        assert!(connection.is_quiet());
        assert_eq!(connection.is_done(), self.closing, "{connection:?}");
        if !self.closing {
            assert_eq!(connection.held(), 0);
            assert_eq!(connection.deadline(), None);
            assert!(
                !connection.has_unread_input() || self.requests.iter().any(|one| !one.stdin_ended)
            );
        }
        assert_eq!(self.world.leave(Vec::new()), []);
    }
}

/// A relay's records are the same request.
fn check_relayed(job: &Job) {
    let Some(bytes) = Connection::relayed(job) else {
        assert!(matches!(job.body, Body::Stream(_)));
        return;
    };
    let mut decoder = Decoder::new(DecoderLimits {
        params_size: 1 << 20,
        params_count: 100,
        requests: 1,
    });
    let mut input = bytes.as_slice();
    let (mut requests, mut ends, mut stdin) = (0, 0, Vec::new());
    while let Some(event) = decoder.decode(&mut input).expect("valid records") {
        match event {
            Event::Request { variables, .. } => {
                requests += 1;
                assert_eq!(pairs(&variables)[1..], pairs(&job.variables)[1..]);
            }
            Event::Stdin { data, .. } => stdin.extend_from_slice(data),
            Event::StdinEnd { .. } => ends += 1,
            Event::Begin { .. } => {}
            other => panic!("{other:?} in a relayed request"),
        }
    }
    assert!(input.is_empty());
    assert_eq!((requests, ends), (1, 1));
    match &job.body {
        Body::Complete(body) => assert!(*body == stdin),
        _ => assert!(stdin.is_empty()),
    }
}
