//! `fpm_get_status()`: the same figures as a PHP array.

use super::fields::{self, Value};
use super::{StatusContext, epoch};
use crate::request::{StatusArrays as PhpStatus, StatusValue as PhpValue};
use crate::scoreboard::{RequestEntry, Snapshot, WorkerSnapshot};

type PhpArray = Vec<(&'static str, PhpValue)>;

/// Makes it of a [full snapshot](crate::scoreboard::Scoreboard::full_snapshot).
pub(crate) fn php_status(snapshot: &Snapshot, context: &StatusContext<'_>) -> PhpStatus {
    let pool = fields::pool(snapshot, context)
        .into_iter()
        .map(|(name, value)| (key(name), value.into()))
        .collect();
    let procs = fields::workers(snapshot)
        .map(|(worker, request)| proc(snapshot, worker, request))
        .collect();
    PhpStatus { pool, procs }
}

/// The array writes its keys with hyphens.
fn key(field: &'static str) -> &'static str {
    match field {
        "process manager" => "process-manager",
        "start time" => "start-time",
        "start since" => "start-since",
        "accepted conn" => "accepted-conn",
        "listen queue" => "listen-queue",
        "max listen queue" => "max-listen-queue",
        "listen queue len" => "listen-queue-len",
        "idle processes" => "idle-processes",
        "active processes" => "active-processes",
        "total processes" => "total-processes",
        "max active processes" => "max-active-processes",
        "max children reached" => "max-children-reached",
        "slow requests" => "slow-requests",
        "memory peak" => "memory-peak",
        other => other,
    }
}

fn proc(snapshot: &Snapshot, worker: &WorkerSnapshot, request: &RequestEntry) -> PhpArray {
    let started = epoch(worker.started_at);
    let text = |text: &[u8]| PhpValue::String(text.to_vec());
    let or_dash = |value: &[u8]| text(if value.is_empty() { b"-" } else { value });
    vec![
        ("pid", long(worker.pid.into())),
        ("state", text(fields::state(request).as_bytes())),
        ("start-time", PhpValue::Long(started)),
        ("start-since", long(fields::since(snapshot, started))),
        ("requests", long(worker.requests)),
        (
            "request-duration",
            long(fields::duration(snapshot, request)),
        ),
        ("request-method", or_dash(&request.request_method)),
        ("request-uri", text(&request.request_uri)),
        ("query-string", text(&request.query_string)),
        ("request-length", long(request.content_length)),
        ("user", or_dash(&request.auth_user)),
        ("script", or_dash(&request.script_filename)),
        (
            "last-request-cpu",
            PhpValue::Double(fields::last_cpu(request)),
        ),
        ("last-request-memory", long(fields::last_memory(request))),
    ]
}

fn long(number: u64) -> PhpValue {
    PhpValue::Long(i64::try_from(number).unwrap_or(i64::MAX))
}

impl From<Value> for PhpValue {
    fn from(value: Value) -> Self {
        match value {
            Value::Name(text) => Self::String(text.into_bytes()),
            Value::Text(bytes) => Self::String(bytes),
            Value::Number(number) => long(number),
            Value::Percent(percent) => Self::Double(percent),
            Value::Time(seconds) => Self::Long(seconds),
        }
    }
}
