//! The figures, as text for people and as JSON for programs.
//!
//! The JSON object is [`Report`] with its fields as they are named here. Names ending in `_us` are microseconds,
//! in `_bytes` bytes; what was not measured is `null`. Fields are added, never renamed; `--help` lists them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::{BinaryBytes, HumanCount};
use serde::Serialize;

use super::options::Plan;
use super::processes::Snapshot;
use super::stats::{Overtaken, Stats};

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    address: String,
    connections: usize,
    keep_alive: bool,
    /// Requests per second that were asked for; null: as many as possible.
    rate: Option<f64>,
    /// Requests that were made, failed ones included.
    requests: u64,
    /// From the start to the last answer or error.
    seconds: f64,
    /// Right answers per second.
    requests_per_second: f64,
    sent_bytes: u64,
    received_bytes: u64,
    errors: ErrorReport,
    /// Of all right answers.
    latency_us: Latency,
    overtaken: OvertakenReport,
    /// The script first, then those of `--mix` in their order.
    scripts: Vec<ScriptReport>,
    /// Answers that came with something on FastCGI's error stream; not counted as errors.
    error_stream: u64,
    error_stream_first: Option<String>,
    /// Kept-alive connections that the server closed between two requests, and that were opened again.
    reconnects: u64,
    idle: Option<IdleReport>,
    server: Option<ServerReport>,
}

/// Requests that failed.
#[derive(Debug, Serialize)]
struct ErrorReport {
    total: u64,
    /// By kind: connect, closed, timeout, status, length, refused, protocol, not_sent.
    kinds: BTreeMap<&'static str, u64>,
    /// What the first error of each kind said.
    first: BTreeMap<&'static str, String>,
}

/// One script's share.
#[derive(Debug, Serialize)]
struct ScriptReport {
    script: String,
    /// Each how many requests it got one.
    every: u64,
    /// Right answers.
    answers: u64,
    errors: u64,
    latency_us: Latency,
    overtaken: OvertakenReport,
}

/// Right answers to requests that later requests overtook: those were sent later and answered earlier.
#[derive(Debug, Serialize)]
struct OvertakenReport {
    /// The limit of `--overtaken`.
    more_than: u64,
    /// Requests that more later ones than that overtook.
    requests: u64,
    /// The most overtakings of one request.
    most: u64,
}

/// Time from sending a request (with `--rate` from when it was due) to the end of its answer; of no answers all are 0.
#[derive(Debug, Serialize)]
struct Latency {
    min: f64,
    mean: f64,
    p50: f64,
    p90: f64,
    p95: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

/// The connections of `--idle`.
#[derive(Debug, Serialize)]
pub(super) struct IdleReport {
    pub(super) connections: u64,
    /// Those that the server had closed, or sent something on, by the end.
    pub(super) closed: u64,
    /// How many descriptors more than without them the server had open.
    pub(super) server_descriptors: Option<f64>,
    /// How much they added to the server's PSS, for each one.
    pub(super) pss_bytes_per_connection: Option<f64>,
}

/// The server's processes: that of `--pid` and all below it.
#[derive(Debug, Serialize)]
pub(super) struct ServerReport {
    /// CPU time of all processes during the measurement, for each right answer.
    cpu_us_per_request: Option<f64>,
    cpu_us: f64,
    pss_bytes_before: Option<u64>,
    pss_bytes_after: Option<u64>,
    threads: u64,
    descriptors_before: Option<u64>,
    descriptors_after: Option<u64>,
    /// Processes that ended during the measurement; their CPU time is known in steps of 10 ms only.
    ended_processes: usize,
    new_processes: usize,
    /// The processes at the end.
    processes: Vec<ProcessReport>,
}

/// One process at the end; `before` is null for one that was not there at the beginning.
#[derive(Debug, Serialize)]
struct ProcessReport {
    pid: i32,
    command: String,
    cpu_us: f64,
    threads: u64,
    pss_bytes_before: Option<u64>,
    pss_bytes_after: Option<u64>,
    descriptors_before: Option<u64>,
    descriptors_after: Option<u64>,
}

impl Report {
    #[allow(clippy::cast_precision_loss)] // counts far below 2^53
    pub(super) fn new(
        plan: &Plan,
        stats: &Stats,
        elapsed: Duration,
        idle: Option<IdleReport>,
        server: Option<ServerReport>,
    ) -> Self {
        let scripts = plan.targets.iter().zip(&stats.targets);
        let scripts = scripts.map(|(target, counts)| ScriptReport {
            script: target.script.clone(),
            every: target.every,
            answers: counts.latency.len(),
            errors: counts.errors,
            latency_us: Latency::of(&counts.latency),
            overtaken: OvertakenReport::new(plan, counts.overtaken),
        });
        let seconds = elapsed.as_secs_f64();
        let per_second = if seconds > 0.0 {
            stats.answered() as f64 / seconds
        } else {
            0.0
        };
        Self {
            address: plan.address.to_string(),
            connections: plan.connections,
            keep_alive: plan.keep_alive,
            rate: plan.rate,
            requests: stats.answered() + stats.failed(),
            seconds,
            requests_per_second: per_second,
            sent_bytes: stats.sent,
            received_bytes: stats.received,
            errors: ErrorReport {
                total: stats.failed(),
                kinds: stats
                    .errors
                    .iter()
                    .map(|(kind, errors)| (kind.name(), errors.count))
                    .collect(),
                first: stats
                    .errors
                    .iter()
                    .map(|(kind, errors)| (kind.name(), errors.first.clone()))
                    .collect(),
            },
            latency_us: Latency::of(&stats.latency()),
            overtaken: OvertakenReport::new(plan, stats.overtaken()),
            scripts: scripts.collect(),
            error_stream: stats.stderr,
            error_stream_first: (stats.stderr > 0).then(|| stats.first_stderr.clone()),
            reconnects: stats.reconnects,
            idle,
            server,
        }
    }

    /// Whether a request failed, or an idle connection was closed.
    pub(super) fn has_errors(&self) -> bool {
        self.errors.total > 0
            || self.requests == 0
            || self.idle.as_ref().is_some_and(|idle| idle.closed > 0)
    }

    pub(super) fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain structs have a JSON form");
        text.push('\n');
        text
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let kind = if self.keep_alive {
            "kept-alive connections"
        } else {
            "connections, each for one request"
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}, {} {kind}", self.address, self.connections);
        let _ = writeln!(
            out,
            "{} requests in {:.2} s: {:.0} per second{}; {} sent, {} received",
            HumanCount(self.requests),
            self.seconds,
            self.requests_per_second,
            self.rate
                .map_or_else(String::new, |rate| format!(" ({rate} asked for)")),
            BinaryBytes(self.sent_bytes),
            BinaryBytes(self.received_bytes),
        );
        let _ = writeln!(out);
        self.write_latencies(&mut out);
        let _ = writeln!(out);
        let _ = writeln!(out, "overtaken  {}", self.overtaken.text());
        self.write_errors(&mut out);
        if let Some(idle) = &self.idle {
            idle.write(&mut out);
        }
        if let Some(server) = &self.server {
            server.write(&mut out);
        }
        out
    }

    fn write_latencies(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "{:<10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "latency", "min", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"
        );
        let mut row = |name: &str, latency: &Latency| {
            let _ = write!(out, "{name:<10}");
            for value in latency.values() {
                let _ = write!(out, " {:>9}", microseconds(value));
            }
            let _ = writeln!(out);
        };
        row("all", &self.latency_us);
        if self.scripts.len() > 1 {
            for (number, script) in self.scripts.iter().enumerate() {
                row(&format!("script {}", number + 1), &script.latency_us);
            }
            for (number, script) in self.scripts.iter().enumerate() {
                let _ = writeln!(
                    out,
                    "script {} is {}: {} answers, {} errors, {} overtaken",
                    number + 1,
                    script.script,
                    HumanCount(script.answers),
                    HumanCount(script.errors),
                    script.overtaken.text()
                );
            }
        }
    }

    fn write_errors(&self, out: &mut String) {
        let _ = writeln!(out, "errors     {}", HumanCount(self.errors.total));
        for (kind, count) in &self.errors.kinds {
            let first = self.errors.first.get(kind).map_or("", String::as_str);
            let _ = writeln!(out, "  {kind:<9}{count:>8}  {first}");
        }
        if let Some(first) = &self.error_stream_first {
            let count = HumanCount(self.error_stream);
            let _ = writeln!(
                out,
                "{count} answers came with messages; the first: {first}"
            );
        }
        if self.reconnects > 0 {
            let count = HumanCount(self.reconnects);
            let _ = writeln!(
                out,
                "the server closed {count} connections between two requests"
            );
        }
    }
}

impl OvertakenReport {
    fn new(plan: &Plan, overtaken: Overtaken) -> Self {
        Self {
            more_than: plan.overtaken,
            requests: overtaken.requests,
            most: overtaken.most,
        }
    }

    fn text(&self) -> String {
        format!(
            "{} by more than {} later requests (most: {})",
            HumanCount(self.requests),
            HumanCount(self.more_than),
            HumanCount(self.most)
        )
    }
}

impl Latency {
    #[allow(clippy::cast_precision_loss)] // nanoseconds of at most an hour
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            min: histogram.min() as f64 / 1e3,
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p99_9: at(0.999),
            max: histogram.max() as f64 / 1e3,
        }
    }

    fn values(&self) -> [f64; 8] {
        let Self {
            min,
            mean,
            p50,
            p90,
            p95,
            p99,
            p99_9,
            max,
        } = *self;
        [min, mean, p50, p90, p95, p99, p99_9, max]
    }
}

impl IdleReport {
    fn write(&self, out: &mut String) {
        let _ = write!(
            out,
            "idle       {} connections, {} of them closed by the server",
            HumanCount(self.connections),
            HumanCount(self.closed)
        );
        if let Some(descriptors) = self.server_descriptors {
            let _ = write!(out, "; {descriptors} descriptors in the server");
        }
        if let Some(pss) = self.pss_bytes_per_connection {
            let _ = write!(out, "; {:.1} KB of PSS each", pss / 1024.0);
        }
        let _ = writeln!(out);
    }
}

impl ServerReport {
    #[allow(clippy::cast_precision_loss)] // microseconds and counts
    pub(super) fn new(before: &Snapshot, after: &Snapshot, answered: u64) -> Self {
        let cpu = after.cpu_since(before);
        let cpu_us = cpu.total.as_secs_f64() * 1e6;
        let processes = after.processes.iter().map(|(identity, now)| {
            let before = before.processes.get(identity);
            let cpu = now.cpu - before.map_or(Duration::ZERO, |before| before.cpu.min(now.cpu));
            ProcessReport {
                pid: identity.pid,
                command: now.command.clone(),
                cpu_us: cpu.as_secs_f64() * 1e6,
                threads: now.threads,
                pss_bytes_before: before.and_then(|before| before.pss),
                pss_bytes_after: now.pss,
                descriptors_before: before.and_then(|before| before.descriptors),
                descriptors_after: now.descriptors,
            }
        });
        Self {
            cpu_us_per_request: (answered > 0).then(|| cpu_us / answered as f64),
            cpu_us,
            pss_bytes_before: before.pss(),
            pss_bytes_after: after.pss(),
            threads: after.threads(),
            descriptors_before: before.descriptors(),
            descriptors_after: after.descriptors(),
            ended_processes: cpu.ended,
            new_processes: cpu.new,
            processes: processes.collect(),
        }
    }

    fn write(&self, out: &mut String) {
        let per_request = self
            .cpu_us_per_request
            .map_or_else(|| "-".to_owned(), microseconds);
        let change = |before: Option<u64>, after: Option<u64>, show: fn(u64) -> String| match (
            before, after,
        ) {
            (Some(before), Some(after)) => format!("{} (before: {})", show(after), show(before)),
            _ => "not readable: they are another user's processes".to_owned(),
        };
        let _ = writeln!(
            out,
            "server     CPU {per_request} per request; {} processes, {} threads",
            self.processes.len(),
            self.threads
        );
        let _ = writeln!(
            out,
            "           PSS {}",
            change(self.pss_bytes_before, self.pss_bytes_after, |bytes| {
                BinaryBytes(bytes).to_string()
            })
        );
        let _ = writeln!(
            out,
            "           descriptors {}",
            change(self.descriptors_before, self.descriptors_after, |count| {
                count.to_string()
            })
        );
        if self.ended_processes + self.new_processes > 0 {
            let _ = writeln!(
                out,
                "           {} processes ended and {} are new; CPU time of ended ones is known in steps of 10 ms",
                self.ended_processes, self.new_processes
            );
        }
    }
}

/// A time with the unit that suits it.
fn microseconds(value: f64) -> String {
    if value < 1e3 {
        format!("{value:.1} us")
    } else if value < 1e6 {
        format!("{:.2} ms", value / 1e3)
    } else {
        format!("{:.2} s", value / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_that_suits_them() {
        assert_eq!(microseconds(12.34), "12.3 us");
        assert_eq!(microseconds(12_340.0), "12.34 ms");
        assert_eq!(microseconds(12_340_000.0), "12.34 s");
    }
}
