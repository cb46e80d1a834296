//! The fields of the status page, once for all formats that write them under the same names.

use super::{StatusContext, epoch};
use crate::scoreboard::{RequestEntry, Snapshot, Stage, WorkerSnapshot};

/// What a field holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Text of ours, harmless in every format.
    Name(String),
    /// Bytes of a client's.
    Text(Vec<u8>),
    /// A number.
    Number(u64),
    /// A percentage, with two digits behind the point.
    Percent(f64),
    /// Seconds since 1970.
    Time(i64),
}

pub(super) type Field = (&'static str, Value);

/// The pool's fields, in php-fpm's order.
pub(super) fn pool(snapshot: &Snapshot, context: &StatusContext<'_>) -> Vec<Field> {
    use Value::{Name, Number, Time};
    let started = epoch(snapshot.started_at);
    let (idle, active) = (snapshot.idle, snapshot.running);
    let mut fields = vec![
        ("pool", Value::Text(context.pool.as_bytes().to_vec())),
        (
            "process manager",
            Name(context.process_manager_name().to_owned()),
        ),
        ("start time", Time(started)),
        ("start since", Number(since(snapshot, started))),
        ("accepted conn", Number(snapshot.requests_begun)),
        ("listen queue", Number(snapshot.listen_queue().into())),
        ("max listen queue", Number(snapshot.max_listen_queue.into())),
        ("listen queue len", Number(snapshot.backlog_limit.into())),
        ("idle processes", Number(idle.into())),
        ("active processes", Number(active.into())),
        (
            "total processes",
            Number(u64::from(idle) + u64::from(active)),
        ),
        ("max active processes", Number(snapshot.max_active.into())),
        (
            "max children reached",
            Number(snapshot.max_children_reached),
        ),
        ("slow requests", Number(snapshot.slow_requests)),
    ];
    if context.has_memory_peak() {
        fields.push(("memory peak", Number(snapshot.memory_peak)));
    }
    fields
}

/// The workers that have fields to show.
pub(super) fn workers(
    snapshot: &Snapshot,
) -> impl Iterator<Item = (&WorkerSnapshot, &RequestEntry)> {
    snapshot
        .workers
        .iter()
        .filter_map(|worker| Some((worker, worker.request.as_ref()?)))
}

/// One worker's fields, in php-fpm's order.
pub(super) fn worker(
    snapshot: &Snapshot,
    worker: &WorkerSnapshot,
    request: &RequestEntry,
) -> Vec<Field> {
    use Value::{Name, Number, Percent, Text, Time};
    let started = epoch(worker.started_at);
    let or_dash = |text: &[u8]| Text(if text.is_empty() { b"-" } else { text }.to_vec());
    let mut uri = if request.request_uri.is_empty() {
        b"-".to_vec()
    } else {
        request.request_uri.clone()
    };
    if !request.query_string.is_empty() {
        uri.push(b'?');
        uri.extend_from_slice(&request.query_string);
    }
    vec![
        ("pid", Number(worker.pid.into())),
        ("state", Name(state(request).to_owned())),
        ("start time", Time(started)),
        ("start since", Number(since(snapshot, started))),
        ("requests", Number(worker.requests)),
        ("request duration", Number(duration(snapshot, request))),
        ("request method", or_dash(&request.request_method)),
        ("request uri", Text(uri)),
        ("content length", Number(request.content_length)),
        ("user", or_dash(&request.auth_user)),
        ("script", or_dash(&request.script_filename)),
        ("last request cpu", Percent(last_cpu(request))),
        ("last request memory", Number(last_memory(request))),
    ]
}

/// The stage by its name.
pub(super) fn state(request: &RequestEntry) -> &'static str {
    request.stage.unwrap_or(Stage::Accepting).name()
}

/// Microseconds that the request has taken.
pub(super) fn duration(snapshot: &Snapshot, request: &RequestEntry) -> u64 {
    let duration = request.duration_at(snapshot.now);
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// CPU of the last request in percent, while no other runs.
pub(super) fn last_cpu(request: &RequestEntry) -> f64 {
    if is_idle(request) {
        request.cpu_percent()
    } else {
        0.0
    }
}

/// Memory peak of the last request, while no other runs.
pub(super) fn last_memory(request: &RequestEntry) -> u64 {
    if is_idle(request) { request.memory } else { 0 }
}

fn is_idle(request: &RequestEntry) -> bool {
    request.stage == Some(Stage::Accepting)
}

/// Seconds from `started` to the snapshot.
pub(super) fn since(snapshot: &Snapshot, started: i64) -> u64 {
    u64::try_from(epoch(snapshot.taken_at) - started).unwrap_or(0)
}
