//! The command line of `fe-php bench`, and the [`Plan`] that it makes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::load::Phase;
use super::request::{self, Target};
use crate::cli::{parse_listen, parse_seconds, parse_size};
use crate::config::ListenAddress;

pub(crate) const EXAMPLES: &str = "\
Examples:
  fe-php bench /run/php/x.sock /var/www/html/index.php -c 4 -n 20000
  fe-php bench 127.0.0.1:9000 /var/www/html/index.php -d 10 --rate 100 -c 64 --mix 20:/var/www/html/slow.php
  fe-php bench /run/php/x.sock /var/www/html/index.php --idle 10000 --pid $(cat /run/php/fe-php.pid) --json

Exit status: 0 when every answer was right, 1 when some were not, 2 when nothing could be measured.";

/// Options of `fe-php bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The server: a Unix socket (/path, unix:/path) or a TCP address (127.0.0.1:9000, [::1]:9000, localhost:9000).
    #[arg(value_parser = parse_address)]
    address: ListenAddress,
    /// The script's absolute file name, as the server sees it (SCRIPT_FILENAME).
    #[arg(value_parser = parse_script)]
    script: String,

    /// Number of connections.
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Number of requests [default: 10000, unless there is a duration].
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// Time in which requests are started.
    #[arg(short, long, value_name = "SECONDS", value_parser = parse_seconds)]
    duration: Option<Duration>,
    /// Requests per second in all, instead of as many as possible.
    ///
    /// Latency counts from the moment a request was due: one for which no connection was free shows how long it waited.
    #[arg(short, long, value_name = "N", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Requests that are made before the measurement and not counted.
    #[arg(long, value_name = "N", default_value_t = 0)]
    warm_up: u64,
    /// Longest time for a request, from taking its connection to the end of the answer.
    #[arg(short, long, value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    timeout: Duration,

    #[command(flatten)]
    connection: ConnectionOptions,
    #[command(flatten)]
    request: RequestOptions,
    #[command(flatten)]
    answer: AnswerOptions,

    /// Print the report as one JSON object.
    ///
    /// Times are in microseconds (`_us`) or seconds, sizes in bytes; what was not measured is null. Its fields: address,
    /// connections, keep_alive, rate, requests (failed ones included), seconds, requests_per_second (right answers),
    /// sent_bytes, received_bytes, errors {total, kinds {KIND: count}, first {KIND: text}}, latency_us {min, mean, p50, p90,
    /// p95, p99, p99_9, max}, overtaken {more_than, requests, most}, scripts [{script, every, answers, errors, latency_us,
    /// overtaken}], error_stream, error_stream_first, reconnects, idle {connections, closed, server_descriptors, pss_bytes_per_connection}, server {cpu_us_per_request,
    /// cpu_us, pss_bytes_before, pss_bytes_after, threads, descriptors_before, descriptors_after, ended_processes,
    /// new_processes, processes [{pid, command, cpu_us, threads, pss_bytes_*, descriptors_*}]}. Kinds of errors are connect,
    /// closed, timeout, status, length, refused, protocol and not_sent.
    #[arg(long, help_heading = "Report")]
    pub(super) json: bool,
    /// Count the requests that more than N later ones overtook [default: the number of connections].
    ///
    /// A request is overtaken by another one that was sent whole later and answered completely earlier, whatever the scripts of
    /// the two; requests that fail do not count. The report has the number of such requests and the most overtakings of one
    /// request, with --mix also for each script. A server that starts requests in the order in which they come lets about as
    /// many overtake one as it has workers: give that number, or a small multiple, to see whether it does. With the default,
    /// the requests are counted for which at least one connection had two answers meanwhile.
    #[arg(long, value_name = "N", help_heading = "Report")]
    overtaken: Option<u64>,
    /// Report the CPU time, memory (PSS), threads and descriptors of this process and all its descendants.
    #[arg(short, long, value_name = "PID", help_heading = "Report", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// Leave the server alone for this time before its figures are taken, for what it does when it is idle.
    #[arg(long, value_name = "SECONDS", requires = "pid", help_heading = "Report", value_parser = parse_seconds)]
    settle: Option<Duration>,
}

/// How connections are used.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connections")]
struct ConnectionOptions {
    /// Keep connections open for further requests (FCGI_KEEP_CONN); the default.
    #[arg(short, long, overrides_with = "no_keep_alive")]
    keep_alive: bool,
    /// Open a connection for each request.
    #[arg(short = 'K', long)]
    no_keep_alive: bool,
    /// Open N further connections before the measurement, and check after it that none was closed.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    idle: u32,
    /// Make one request on each idle connection when it is opened; otherwise nothing is sent on them.
    #[arg(long, requires = "idle", conflicts_with = "no_keep_alive")]
    idle_used: bool,
}

/// What is asked for.
#[derive(Debug, Args)]
#[command(next_help_heading = "Requests")]
struct RequestOptions {
    /// The document root [default: the script's directory].
    #[arg(long, value_name = "DIRECTORY")]
    document_root: Option<String>,
    /// The query string.
    #[arg(short, long, value_name = "QUERY", default_value = "")]
    query: String,
    /// Set a variable (HTTP_COOKIE=…, REQUEST_URI=…) in place of the one that would be sent. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_param)]
    param: Vec<(String, String)>,
    /// The method [default: GET, or POST with a body].
    #[arg(short, long, value_name = "METHOD")]
    method: Option<String>,
    /// Send a generated form field of this size as the body (K, M and G are understood).
    #[arg(long, value_name = "SIZE", conflicts_with = "body_file", value_parser = parse_size)]
    body_size: Option<usize>,
    /// Send this file as the body.
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
    /// The body's type.
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "application/x-www-form-urlencoded"
    )]
    content_type: String,
    /// Send each EVERYth request to another SCRIPT, which gets a row of its own in the report. May be repeated.
    #[arg(long, value_name = "EVERY:SCRIPT", value_parser = parse_mix)]
    mix: Vec<(u64, String)>,
}

/// Which answers are right.
#[derive(Debug, Args)]
#[command(next_help_heading = "Answers")]
struct AnswerOptions {
    /// The HTTP status that all answers must have [default: any below 400].
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(100..=999))]
    expect_status: Option<u16>,
    /// Accept bodies of different lengths; otherwise all answers of a script must be as long as its first good one.
    #[arg(long)]
    any_length: bool,
}

/// What is to be measured: checked options, and requests ready to be sent.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) address: ListenAddress,
    pub(super) connections: usize,
    requests: Option<u64>,
    pub(super) duration: Option<Duration>,
    pub(super) rate: Option<f64>,
    pub(super) warm_up: u64,
    /// How long the server is left alone before its figures are taken.
    pub(super) settle: Duration,
    pub(super) timeout: Duration,
    pub(super) keep_alive: bool,
    pub(super) idle: usize,
    pub(super) idle_used: bool,
    /// The script that most requests are for comes first.
    pub(super) targets: Vec<Target>,
    pub(super) expect_status: Option<u16>,
    pub(super) any_length: bool,
    pub(super) pid: Option<i32>,
    /// Requests with more overtakings than this are counted.
    pub(super) overtaken: u64,
}

impl Options {
    pub(super) fn into_plan(self) -> Result<Plan, String> {
        let keep_alive = !self.connection.no_keep_alive;
        let asked = self.request;
        let body = match (asked.body_size, &asked.body_file) {
            (Some(size), _) => Some(request::form_of(size)),
            (None, Some(file)) => Some(
                std::fs::read(file)
                    .map_err(|error| format!("--body-file {}: {error}", file.display()))?,
            ),
            (None, None) => None,
        };
        let method = asked
            .method
            .unwrap_or_else(|| if body.is_some() { "POST" } else { "GET" }.to_owned());
        let mut targets = Vec::new();
        for (every, script) in std::iter::once((1, self.script)).chain(asked.mix) {
            let (root, name) = split_script(&script, asked.document_root.as_deref())?;
            let request = request::Request {
                script: &script,
                root,
                name,
                query: &asked.query,
                params: &asked.param,
                method: &method,
                content_type: &asked.content_type,
                body: body.as_deref(),
                keep_alive,
            };
            let bytes = request.bytes();
            targets.push(Target {
                script,
                every,
                bytes,
            });
        }
        let requests = self
            .requests
            .or_else(|| self.duration.is_none().then_some(DEFAULT_REQUESTS));
        Ok(Plan {
            address: self.address,
            connections: self.connections as usize,
            requests,
            duration: self.duration,
            rate: self.rate,
            warm_up: self.warm_up,
            settle: self.settle.unwrap_or_default(),
            timeout: self.timeout,
            keep_alive,
            idle: self.connection.idle as usize,
            idle_used: self.connection.idle_used,
            targets,
            expect_status: self.answer.expect_status,
            any_length: self.answer.any_length,
            pid: self.pid,
            overtaken: self.overtaken.unwrap_or_else(|| self.connections.into()),
        })
    }
}

impl Plan {
    /// The load that is measured.
    pub(super) fn phase(&self) -> Phase {
        Phase {
            requests: self.total(),
            duration: self.duration,
            rate: self.rate,
        }
    }

    /// How many requests that is, if it is known beforehand.
    pub(super) fn total(&self) -> Option<u64> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // positive, and floor is meant
        let at_rate =
            |(duration, rate): (Duration, f64)| ((duration.as_secs_f64() * rate) as u64).max(1);
        self.requests
            .or_else(|| self.duration.zip(self.rate).map(at_rate))
    }

    /// Which target the `number`th request (from 1) is for.
    pub(super) fn target_of(&self, number: u64) -> usize {
        let mixed = self.targets[1..]
            .iter()
            .position(|target| number.is_multiple_of(target.every));
        mixed.map_or(0, |index| index + 1)
    }
}

const DEFAULT_REQUESTS: u64 = 10_000;

/// The document root and the script's name below it.
fn split_script<'a>(script: &'a str, root: Option<&'a str>) -> Result<(&'a str, &'a str), String> {
    let root = match root {
        Some(root) => root.trim_end_matches('/'),
        None => Path::new(script)
            .parent()
            .and_then(Path::to_str)
            .unwrap_or("")
            .trim_end_matches('/'),
    };
    match script.strip_prefix(root) {
        Some(name) if name.starts_with('/') => Ok((root, name)),
        _ => Err(format!(
            "{script} is not below the document root {root}: give another --document-root"
        )),
    }
}

fn parse_address(text: &str) -> Result<ListenAddress, String> {
    let mut address = parse_listen(text)?;
    // `9000` means all addresses for a server, and this machine for a client.
    if let ListenAddress::Tcp(address) = &mut address
        && address.ip().is_unspecified()
    {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    Ok(address)
}

fn parse_script(text: &str) -> Result<String, String> {
    if text.starts_with('/') && !text.ends_with('/') {
        Ok(text.to_owned())
    } else {
        Err("expected a script's absolute file name, like /var/www/html/index.php".to_owned())
    }
}

fn parse_mix(text: &str) -> Result<(u64, String), String> {
    let (every, script) = text
        .split_once(':')
        .ok_or("expected EVERY:SCRIPT, like 20:/var/www/html/slow.php")?;
    match every.parse() {
        Ok(every) if every >= 2 => Ok((every, parse_script(script)?)),
        _ => Err(format!("EVERY is a number of at least 2, not '{every}'")),
    }
}

fn parse_param(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 10_000_000.0 => Ok(rate),
        _ => Err("expected a number of requests per second between 0 and 10000000".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_script_has_its_name_below_the_document_root() {
        assert_eq!(split_script("/a/b.php", None), Ok(("/a", "/b.php")));
        assert_eq!(split_script("/b.php", None), Ok(("", "/b.php")));
        assert_eq!(
            split_script("/a/b/c.php", Some("/a/")),
            Ok(("/a", "/b/c.php"))
        );
        split_script("/ab/c.php", Some("/a")).unwrap_err();
    }

    #[test]
    fn a_mix_names_an_interval_and_a_script() {
        assert_eq!(parse_mix("20:/a:b.php"), Ok((20, "/a:b.php".to_owned())));
        parse_mix("1:/a.php").unwrap_err();
        parse_mix("20:a.php").unwrap_err();
        parse_mix("/a.php").unwrap_err();
    }

    #[test]
    fn a_port_alone_is_on_this_machine() {
        assert_eq!(
            parse_address("9000"),
            Ok(ListenAddress::Tcp("127.0.0.1:9000".parse().unwrap()))
        );
    }
}
