//! Cases with nginx before the servers, and wrk as the load generator.

use std::process::Command;
use std::time::Duration;

use crate::contestants::FOUR_WORKERS;
use crate::frontends::frontend::{Frontend, find_program};
use crate::frontends::nginx::start_tuned;
use crate::load::Sample;
use crate::options::Options;
use crate::processes::Snapshot;
use crate::rounds::{Row, take_turns};
use crate::scripts::Scripts;

/// wrk over HTTP; nginx keeps its connections to the server.
pub(crate) fn nginx(
    scripts: &Scripts,
    script: &'static str,
    options: &Options,
) -> Result<Vec<Row>, String> {
    let wrk = find_program("wrk").ok_or(
        "wrk is missing: install Debian's package wrk, or run `make bench`, which does that",
    )?;
    let servers = FOUR_WORKERS.all(scripts.root(), options);
    let directives = format!(
        "root {};
        location ~ \\.php$ {{ include /etc/nginx/fastcgi.conf; fastcgi_pass php; }}",
        scripts.root().display()
    );
    // One worker process that keeps as many connections as php-fpm has workers: two would keep them from each other.
    let fronts: Vec<Frontend> = servers
        .iter()
        .map(|server| start_tuned(&server.address, &directives, 1, 4))
        .collect();
    let mut rows: Vec<Row> = servers
        .iter()
        .map(|server| Row::new(&server.name))
        .collect();
    let seconds = options.seconds(3.0).ceil().to_string();
    let measure = |index: usize| {
        let url = format!("{}/{script}", fronts[index].site().base_url());
        let before = Snapshot::take(servers[index].pid)?;
        let mut command = Command::new(&wrk);
        command.args([
            "-t1",
            "-c4",
            "--latency",
            "--timeout",
            "10s",
            "-d",
            &seconds,
            &url,
        ]);
        let output = command
            .output()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let cpu = Snapshot::take(servers[index].pid)?.cpu_since(&before).total;
        wrk_sample(&String::from_utf8_lossy(&output.stdout), cpu)
    };
    for index in 0..rows.len() {
        measure(index)?;
    }
    take_turns(&mut rows, options.rounds(5), measure);
    Ok(rows)
}

/// The figures in wrk's report.
fn wrk_sample(text: &str, cpu: Duration) -> Result<Sample, String> {
    let field = |start: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(start))
            .map(str::trim)
    };
    for trouble in ["Non-2xx", "Socket errors"] {
        if let Some(rest) = field(trouble) {
            return Err(format!("wrk: {trouble}{rest}"));
        }
    }
    let unreadable = || format!("wrk said\n{text}");
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .and_then(|(count, _)| count.parse::<f64>().ok())
        .ok_or_else(unreadable)?;
    let time = |name: &str| {
        let text = field(name)?;
        let (number, factor) = [("us", 1.0), ("ms", 1e3), ("s", 1e6)]
            .iter()
            .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
        Some(number.parse::<f64>().ok()? * factor)
    };
    Ok(Sample {
        cpu: Some(cpu.as_secs_f64() * 1e6 / requests),
        rate: field("Requests/sec:").and_then(|rate| rate.parse().ok()),
        p50: time("50%"),
        p99: time("99%"),
        ..Sample::default()
    })
}
