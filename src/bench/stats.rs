//! What is counted while requests are made.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::options::Plan;

/// Counts of one phase.
#[derive(Debug)]
pub(super) struct Stats {
    pub(super) targets: Vec<TargetStats>,
    pub(super) errors: BTreeMap<ErrorKind, Errors>,
    /// Answers with something on the error stream, and the first of it.
    pub(super) stderr: u64,
    pub(super) first_stderr: String,
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Kept-alive connections that the server closed between two requests.
    pub(super) reconnects: u64,
    /// More overtakings of a request than this are counted.
    overtaken_by: u64,
    last: Option<Instant>,
}

/// Counts of one script.
#[derive(Debug)]
pub(super) struct TargetStats {
    /// Latencies of right answers, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    pub(super) errors: u64,
    pub(super) overtaken: Overtaken,
}

/// Requests with right answers that later ones overtook.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Overtaken {
    /// Those with more overtakings than the limit.
    pub(super) requests: u64,
    /// The most overtakings of one request.
    pub(super) most: u64,
}

/// Errors of one kind.
#[derive(Debug, Default)]
pub(super) struct Errors {
    pub(super) count: u64,
    /// What the first one says.
    pub(super) first: String,
}

/// What can go wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ErrorKind {
    /// No connection.
    Connect,
    /// The connection was closed or reset before the answer was complete.
    Closed,
    /// No complete answer in time.
    Timeout,
    /// Another HTTP status than expected.
    Status,
    /// A body of another length than before.
    Length,
    /// FastCGI's own refusal: overloaded, for one.
    Refused,
    /// The server broke the protocol.
    Protocol,
    /// The request was due, but no connection ever became free for it.
    NotSent,
}

impl ErrorKind {
    /// Its name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Length => "length",
            Self::Refused => "refused",
            Self::Protocol => "protocol",
            Self::NotSent => "not_sent",
        }
    }
}

impl Stats {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            targets: plan.targets.iter().map(|_| TargetStats::new()).collect(),
            errors: BTreeMap::new(),
            stderr: 0,
            first_stderr: String::new(),
            sent: 0,
            received: 0,
            reconnects: 0,
            overtaken_by: plan.overtaken,
            last: None,
        }
    }

    /// A right answer at `now` to a request that began at `start` and was overtaken by so many later ones.
    pub(super) fn answer(&mut self, target: usize, start: Instant, now: Instant, overtakings: u64) {
        let latency = u64::try_from((now - start).as_nanos()).unwrap_or(u64::MAX);
        let counts = &mut self.targets[target];
        counts.latency.saturating_record(latency);
        counts.overtaken.requests += u64::from(overtakings > self.overtaken_by);
        counts.overtaken.most = counts.overtaken.most.max(overtakings);
        self.last = Some(now);
    }

    /// A request that failed at `now`.
    pub(super) fn error(&mut self, target: usize, kind: ErrorKind, now: Instant, text: String) {
        self.errors_of(target, kind, 1, text);
        self.last = Some(now);
    }

    /// `count` requests that failed in the same way.
    pub(super) fn errors_of(&mut self, target: usize, kind: ErrorKind, count: u64, text: String) {
        self.targets[target].errors += count;
        let errors = self.errors.entry(kind).or_default();
        if errors.count == 0 {
            errors.first = text;
        }
        errors.count += count;
    }

    /// Something on an answer's error stream.
    pub(super) fn error_stream(&mut self, text: &str) {
        if self.stderr == 0 {
            text.clone_into(&mut self.first_stderr);
        }
        self.stderr += 1;
    }

    /// Number of right answers.
    pub(super) fn answered(&self) -> u64 {
        self.targets.iter().map(|target| target.latency.len()).sum()
    }

    /// Number of requests that failed.
    pub(super) fn failed(&self) -> u64 {
        self.targets.iter().map(|target| target.errors).sum()
    }

    /// Overtakings of the requests for all scripts.
    pub(super) fn overtaken(&self) -> Overtaken {
        let counts = || self.targets.iter().map(|target| target.overtaken);
        Overtaken {
            requests: counts().map(|overtaken| overtaken.requests).sum(),
            most: counts().map(|overtaken| overtaken.most).max().unwrap_or(0),
        }
    }

    /// Time from `start` to the last answer.
    pub(super) fn elapsed(&self, start: Instant) -> Duration {
        self.last.map_or(Duration::ZERO, |last| last - start)
    }

    /// Latencies of all scripts together.
    pub(super) fn latency(&self) -> Histogram<u64> {
        let mut all = empty();
        for target in &self.targets {
            // Both have the same bounds.
            let _ = all.add(&target.latency);
        }
        all
    }
}

impl TargetStats {
    fn new() -> Self {
        Self {
            latency: empty(),
            errors: 0,
            overtaken: Overtaken::default(),
        }
    }
}

/// Up to an hour, with an error of at most one in a thousand.
fn empty() -> Histogram<u64> {
    const HOUR: u64 = 3_600_000_000_000;
    Histogram::new_with_bounds(1, HOUR, 3).expect("these bounds are valid")
}
