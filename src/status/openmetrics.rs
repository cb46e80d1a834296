//! The status page for Prometheus and its like: php-fpm's own, and one that keeps to the OpenMetrics specification.
//!
//! The second has php-fpm's metrics under php-fpm's names. What php-fpm calls counters have no `_total` at the end of their
//! names, as counters must; so they are of type unknown, or gauges where they are not counters at all. What follows is ours:
//! the names of workers' metrics are those that exporters for php-fpm use (`phpfpm_process_…{child="0"}`).

use std::fmt::{Display, Write};
use std::time::Duration;

use super::{StatusContext, epoch, escape, fields};
use crate::scoreboard::{Distribution, OpcacheFigures, Snapshot, Stage};

/// One of php-fpm's metrics.
struct Metric {
    name: &'static str,
    help: &'static str,
    /// What php-fpm calls it.
    called: &'static str,
    /// What it is.
    is: &'static str,
    value: fn(&Snapshot) -> u64,
}

const START_SINCE: fn(&Snapshot) -> u64 = |s| fields::since(s, epoch(s.started_at));

/// In php-fpm's order and words.
#[rustfmt::skip]
const METRICS: [Metric; 12] = [
    Metric { name: "phpfpm_start_since", called: "counter", is: "gauge", value: START_SINCE,
        help: "The number of seconds since FPM has started." },
    Metric { name: "phpfpm_accepted_connections", called: "counter", is: "unknown", value: |s| s.requests_begun,
        help: "The number of requests accepted by the pool." },
    Metric { name: "phpfpm_listen_queue", called: "gauge", is: "gauge", value: |s| s.listen_queue().into(),
        help: "The number of requests in the queue of pending connections." },
    Metric { name: "phpfpm_max_listen_queue", called: "counter", is: "gauge", value: |s| s.max_listen_queue.into(),
        help: "The maximum number of requests in the queue of pending connections since FPM has started." },
    Metric { name: LISTEN_QUEUE_LENGTH, called: "gauge", is: "gauge", value: |s| s.backlog_limit.into(),
        help: "The size of the socket queue of pending connections." },
    Metric { name: "phpfpm_idle_processes", called: "gauge", is: "gauge", value: |s| s.idle.into(),
        help: "The number of idle processes." },
    Metric { name: "phpfpm_active_processes", called: "gauge", is: "gauge", value: |s| s.running.into(),
        help: "The number of active processes." },
    Metric { name: "phpfpm_total_processes", called: "gauge", is: "gauge", value: |s| u64::from(s.idle) + u64::from(s.running),
        help: "The number of idle + active processes." },
    Metric { name: "phpfpm_max_active_processes", called: "counter", is: "gauge", value: |s| s.max_active.into(),
        help: "The maximum number of active processes since FPM has started." },
    Metric { name: "phpfpm_max_children_reached", called: "counter", is: "unknown", value: |s| s.max_children_reached,
        help: "The number of times, the process limit has been reached, when pm tries to start more children (works only for pm 'dynamic' and 'ondemand')." },
    Metric { name: "phpfpm_slow_requests", called: "counter", is: "unknown", value: |s| s.slow_requests,
        help: "The number of requests that exceeded your 'request_slowlog_timeout' value." },
    Metric { name: MEMORY_PEAK, called: "gauge", is: "gauge", value: |s| s.memory_peak,
        help: "The memory usage peak since FPM has started." },
];

/// php-fpm has its TYPE before its HELP.
const LISTEN_QUEUE_LENGTH: &str = "phpfpm_listen_queue_length";
/// Since PHP 8.4.
const MEMORY_PEAK: &str = "phpfpm_memory_peak";

/// php-fpm's page.
pub(super) fn as_php_fpm(snapshot: &Snapshot, context: &StatusContext<'_>) -> Vec<u8> {
    let mut page = Page::default();
    page.up(context);
    for metric in METRICS {
        if metric.name == MEMORY_PEAK && !context.has_memory_peak() {
            continue;
        }
        if metric.name == LISTEN_QUEUE_LENGTH {
            page.type_of(metric.name, metric.called);
            page.help_of(metric.name, metric.help);
        } else {
            page.describe(metric.name, metric.called, metric.help);
        }
        page.sample(metric.name, "", (metric.value)(snapshot));
    }
    page.end()
}

/// The page that strict parsers take.
pub(super) fn strict(snapshot: &Snapshot, context: &StatusContext<'_>, full: bool) -> Vec<u8> {
    let mut page = Page::default();
    page.up(context);
    for metric in METRICS {
        page.describe(metric.name, metric.is, metric.help);
        page.sample(metric.name, "", (metric.value)(snapshot));
    }
    page.pool(snapshot);
    page.workers(snapshot, full);
    if let Some(figures) = &snapshot.opcache {
        page.opcache(figures);
    }
    page.end()
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn up(&mut self, context: &StatusContext<'_>) {
        let help = format!(
            "Could pool {} using a {} PM on PHP-FPM be reached?",
            escape::help(context.pool),
            context.process_manager_name()
        );
        self.describe("phpfpm_up", "gauge", &help);
        self.sample("phpfpm_up", "", 1);
    }

    fn pool(&mut self, snapshot: &Snapshot) {
        self.gauge(
            "phpfpm_open_connections",
            "The number of connections that are open, idle ones included.",
            snapshot.connections.into(),
        );
        self.gauge(
            "phpfpm_queued_requests",
            "The number of requests that have been read and wait for a worker.",
            snapshot.queued.into(),
        );
        self.gauge(
            "phpfpm_draining_processes",
            "The number of worker processes that finish their requests before they end.",
            snapshot.draining_processes.into(),
        );
        for (name, help, value) in [
            (
                "phpfpm_opened_connections",
                "The number of connections accepted by the pool.",
                snapshot.accepted,
            ),
            (
                "phpfpm_finished_requests",
                "The number of requests that were run to their end.",
                snapshot.requests,
            ),
            (
                "phpfpm_refused_requests",
                "The number of requests refused because they had waited too long or found too many waiting.",
                snapshot.refused,
            ),
            (
                "phpfpm_process_restarts",
                "The number of worker processes started in place of others.",
                snapshot.restarts,
            ),
            (
                "phpfpm_process_crashes",
                "The number of worker processes that died of themselves.",
                snapshot.crashes,
            ),
            (
                "phpfpm_lost_requests",
                "The number of requests that died with worker processes.",
                snapshot.lost_requests,
            ),
            (
                "phpfpm_lost_connections",
                "The number of connections that died with worker processes.",
                snapshot.lost_connections,
            ),
        ] {
            self.counter(name, help, value);
        }
        self.histogram(
            "phpfpm_request_duration_seconds",
            "How long requests took on a worker.",
            &snapshot.durations,
        );
        self.histogram(
            "phpfpm_request_queue_seconds",
            "How long requests waited for a worker.",
            &snapshot.waits,
        );
    }

    fn workers(&mut self, snapshot: &Snapshot, full: bool) {
        let name = "phpfpm_process_state";
        self.describe(name, "gauge", "Whether a worker is in this state.");
        for worker in &snapshot.workers {
            for stage in Stage::ALL {
                let labels = format!("{{child=\"{}\",state=\"{}\"}}", worker.number, stage.name());
                let is = u64::from(worker.stage == Some(stage));
                self.sample(name, &labels, is);
            }
        }
        if !full {
            return;
        }
        let workers = || {
            fields::workers(snapshot).map(|(worker, request)| {
                (format!("{{child=\"{}\"}}", worker.number), worker, request)
            })
        };
        let name = "phpfpm_process_requests";
        self.describe(name, "unknown", "The number of requests of this process.");
        for (labels, worker, _) in workers() {
            self.sample(name, &labels, worker.requests);
        }
        let name = "phpfpm_process_request_duration";
        self.describe(name, "gauge", "Microseconds of its request, or its last.");
        for (labels, _, request) in workers() {
            self.sample(name, &labels, fields::duration(snapshot, request));
        }
        let name = "phpfpm_process_last_request_cpu";
        self.describe(name, "gauge", "CPU of its last request in percent.");
        for (labels, _, request) in workers() {
            self.sample(
                name,
                &labels,
                format_args!("{:.2}", fields::last_cpu(request)),
            );
        }
        let name = "phpfpm_process_last_request_memory";
        self.describe(name, "gauge", "Memory peak of its last request in bytes.");
        for (labels, _, request) in workers() {
            self.sample(name, &labels, fields::last_memory(request));
        }
    }

    #[rustfmt::skip]
    fn opcache(&mut self, figures: &OpcacheFigures) {
        for (name, help, value) in [
            ("phpfpm_opcache_used_memory_bytes", "OPcache memory that is used.", figures.used_memory),
            ("phpfpm_opcache_free_memory_bytes", "OPcache memory that is free.", figures.free_memory),
            ("phpfpm_opcache_wasted_memory_bytes", "OPcache memory that is lost until it restarts.", figures.wasted_memory),
            ("phpfpm_opcache_interned_strings_used_memory_bytes", "Memory for interned strings that is used.",
                figures.interned_strings_used_memory),
            ("phpfpm_opcache_interned_strings_free_memory_bytes", "Memory for interned strings that is free.",
                figures.interned_strings_free_memory),
            ("phpfpm_opcache_cached_scripts", "The number of scripts in OPcache.", figures.cached_scripts),
            ("phpfpm_opcache_cached_keys", "The number of keys in OPcache's table.", figures.cached_keys),
            ("phpfpm_opcache_max_cached_keys", "The number of keys that OPcache has room for.", figures.max_cached_keys),
        ] {
            self.gauge(name, help, value);
        }
        for (name, help, value) in [
            ("phpfpm_opcache_hits", "The number of scripts that were found in OPcache.", figures.hits),
            ("phpfpm_opcache_misses", "The number of scripts that were not found in OPcache.", figures.misses),
            ("phpfpm_opcache_oom_restarts", "The number of restarts for want of memory.", figures.oom_restarts),
            ("phpfpm_opcache_hash_restarts", "The number of restarts for want of keys.", figures.hash_restarts),
            ("phpfpm_opcache_manual_restarts", "The number of restarts that scripts asked for.", figures.manual_restarts),
        ] {
            self.counter(name, help, value);
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.describe(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.describe(name, "counter", help);
        self.sample(name, "_total", value);
    }

    fn histogram(&mut self, name: &str, help: &str, distribution: &Distribution) {
        self.describe(name, "histogram", help);
        for (bound, count) in distribution.cumulative() {
            let labels = format!("_bucket{{le=\"{}\"}}", seconds(bound));
            self.sample(name, &labels, count);
        }
        let count = distribution.count();
        self.sample(name, "_bucket{le=\"+Inf\"}", count);
        self.sample(name, "_count", count);
        self.sample(name, "_sum", distribution.sum().as_secs_f64());
    }

    fn describe(&mut self, name: &str, kind: &str, help: &str) {
        self.help_of(name, help);
        self.type_of(name, kind);
    }

    fn help_of(&mut self, name: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
    }

    fn type_of(&mut self, name: &str, kind: &str) {
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// `rest` is what follows the name: a suffix, labels.
    fn sample(&mut self, name: &str, rest: &str, value: impl Display) {
        self.line(format_args!("{name}{rest} {value}"));
    }

    fn line(&mut self, line: impl Display) {
        // A `String` cannot fail to take text.
        let _ = writeln!(self.0, "{line}");
    }

    fn end(mut self) -> Vec<u8> {
        self.line("# EOF");
        self.0.into_bytes()
    }
}

/// Seconds in the one way to write a number that OpenMetrics calls canonical, which is Go's.
fn seconds(bound: Duration) -> String {
    let text = format!("{:?}", bound.as_secs_f64());
    match text.split_once("e-") {
        Some((digits, exponent)) if exponent.len() < 2 => format!("{digits}e-0{exponent}"),
        _ => text,
    }
}
