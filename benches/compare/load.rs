//! One round: `fe-php bench` against a server.

use std::process::Command;

use serde_json::Value;

use crate::contestants::Contestant;
use crate::support::php;

/// What one server did in one round; what was not measured is `None`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// Microseconds of CPU for each request.
    pub(crate) cpu: Option<f64>,
    /// Requests in a second.
    pub(crate) rate: Option<f64>,
    /// Microseconds.
    pub(crate) p50: Option<f64>,
    pub(crate) p95: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) longest: Option<f64>,
    /// Requests that more than [`OVERTAKEN`] later ones overtook, and the most overtakings of one.
    pub(crate) overtaken: Option<f64>,
    pub(crate) most_overtaken: Option<f64>,
    /// Bytes of all processes.
    pub(crate) pss: Option<f64>,
    /// Bytes.
    pub(crate) pss_per_connection: Option<f64>,
    /// Processes that did a tenth of the work or more. Few busy ones cost less CPU, since they sleep less, but use
    /// fewer processors.
    pub(crate) at_work: Option<f64>,
}

/// How many overtakings of a request are counted as too many, where that is asked for: twice the number of workers.
pub(crate) const OVERTAKEN: &str = "8";

impl Sample {
    /// How many processors the server keeps busy.
    pub(crate) fn busy(&self) -> Option<f64> {
        Some(self.rate? * self.cpu? / 1e6)
    }

    /// For ratios that do not depend on how fast the two builds run PHP's own code.
    pub(crate) fn p99_by_cpu(&self) -> Option<f64> {
        Some(self.p99? / self.cpu?)
    }

    /// Likewise.
    pub(crate) fn longest_by_cpu(&self) -> Option<f64> {
        Some(self.longest? / self.cpu?)
    }
}

/// The report of `fe-php bench` with `arguments`. Errors of the server are in it; trouble is an `Err`.
pub(crate) fn bench(
    contestant: &Contestant,
    script: &str,
    arguments: &[String],
) -> Result<Value, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fe-php"));
    command
        .args(["bench", &contestant.address_text(), script, "--json"])
        .args(["--pid", &contestant.pid.to_string()])
        .args(arguments);
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("{} {}", output.status, errors.trim()))
}

/// The figures of a report; an `Err` if a request failed.
pub(crate) fn sample(report: &Value) -> Result<Sample, String> {
    if let Some(text) = errors(report) {
        return Err(text);
    }
    let server = &report["server"];
    Ok(Sample {
        pss: server["pss_bytes_after"].as_f64(),
        pss_per_connection: report["idle"]["pss_bytes_per_connection"].as_f64(),
        at_work: Some(at_work(server)),
        ..figures(report, report)
    })
}

/// The figures of all requests, but latencies and overtakings are those of `part`: the report itself, or a script's part.
pub(crate) fn figures(report: &Value, part: &Value) -> Sample {
    let latency = &part["latency_us"];
    let server = &report["server"];
    Sample {
        cpu: server["cpu_us_per_request"].as_f64(),
        rate: report["requests_per_second"].as_f64(),
        p50: latency["p50"].as_f64(),
        p95: latency["p95"].as_f64(),
        p99: latency["p99"].as_f64(),
        longest: latency["max"].as_f64(),
        overtaken: part["overtaken"]["requests"].as_f64(),
        most_overtaken: part["overtaken"]["most"].as_f64(),
        ..Sample::default()
    }
}

/// What went wrong, in one line.
pub(crate) fn errors(report: &Value) -> Option<String> {
    let kinds = report["errors"]["kinds"].as_object()?;
    if kinds.is_empty() {
        return None;
    }
    let texts: Vec<String> = kinds
        .iter()
        .map(|(kind, count)| {
            let first = report["errors"]["first"][kind].as_str().unwrap_or("");
            format!("{count} {kind} ({first})")
        })
        .collect();
    Some(format!(
        "of {} requests failed {}",
        report["requests"],
        texts.join(", ")
    ))
}

#[allow(clippy::cast_precision_loss)] // a number of processes
fn at_work(server: &Value) -> f64 {
    let total = server["cpu_us"].as_f64().unwrap_or(0.0);
    let Some(processes) = server["processes"].as_array() else {
        return 0.0;
    };
    let cpu = processes
        .iter()
        .filter_map(|process| process["cpu_us"].as_f64());
    cpu.filter(|cpu| cpu * 10.0 >= total).count() as f64
}

/// Name and kind of the PHP.
pub(crate) fn php_name() -> String {
    let kind = if php::is_zts() { "ZTS" } else { "NTS" };
    format!("PHP {} {kind}", php::version())
}
