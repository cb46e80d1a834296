//! `pm.queue_timeout`, `pm.queue_max` and `pm.queue_answer`: requests that would wait too long are refused, without being executed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::client::{Connection, OVERLOADED, Response};
use crate::support::fpm::Fpm;
use crate::support::request::Request;
use crate::support::wait_until;

/// Says that it runs by one file, and runs until there is another.
const SCRIPT: &str = r#"<?php
touch(__DIR__ . '/began-' . $_GET['name']);
while (isset($_GET['until']) && !file_exists(__DIR__ . '/' . $_GET['until'])) {
    usleep(5000);
    clearstatcache();
}
echo $_GET['name'];
"#;

/// fe-php in php-fpm's place, and its scripts.
struct Pool {
    server: Fpm,
    root: TempDir,
}

impl Pool {
    /// With these lines in the pool's configuration.
    fn start(lines: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a.php"), SCRIPT).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fe-php"));
        command.arg("fpm");
        Self {
            server: Fpm::start_as(command, &[], lines, root.path()),
            root,
        }
    }

    /// Sends a request for the script.
    fn send(&self, name: &str, query: &str) -> Connection {
        let mut connection = self.server.connect();
        let uri = format!("/a.php?name={name}{query}");
        connection.send(&Request::get(self.root.path(), &uri).encode());
        connection
    }

    /// Keeps a worker busy until [`release`](Self::release) is called.
    fn occupy(&self, name: &str) -> Connection {
        let connection = self.send(name, "&until=go");
        wait_until("the worker is busy", || self.has_run(name));
        connection
    }

    fn release(&self) {
        fs::write(self.root.path().join("go"), "").unwrap();
    }

    fn has_run(&self, name: &str) -> bool {
        self.file(&format!("began-{name}")).exists()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn root(&self) -> &Path {
        self.root.path()
    }
}

/// The answer to the only request on a connection.
fn answer(connection: &mut Connection) -> Response {
    connection.response(1)
}

fn assert_busy(response: &Response) {
    assert_eq!(response.status, 503, "{response:?}");
    assert_eq!(
        response.header("Status"),
        Some("503 Service Unavailable"),
        "{response:?}"
    );
    let seconds = response.header("Retry-After").map(str::parse::<u64>);
    assert!(matches!(seconds, Some(Ok(1..=60))), "{response:?}");
    assert!(response.text().contains("busy"), "{response:?}");
}

#[test]
fn a_request_that_waits_too_long_is_refused_while_all_workers_are_busy() {
    let pool =
        Pool::start("pm.max_children = 2\npm.queue_timeout = 300ms\npm.status_path = /status\n");
    let mut busy = ["one", "two"].map(|name| pool.occupy(name));
    let sent = Instant::now();
    let names = ["three", "four", "five", "six"];
    let mut late = names.map(|name| pool.send(name, ""));
    for connection in &mut late {
        assert_busy(&answer(connection));
        assert!(sent.elapsed() >= Duration::from_millis(300), "too early");
    }
    for connection in &busy {
        assert!(!connection.has_input(), "a worker has become free");
    }
    pool.release();
    for (connection, name) in busy.iter_mut().zip(["one", "two"]) {
        assert_eq!(answer(connection).text(), name);
    }
    assert_eq!(answer(&mut pool.send("seven", "")).text(), "seven");
    for name in names {
        assert!(!pool.has_run(name), "{name} was executed");
    }
    let line = pool.server.log().expect("request(s) refused");
    assert!(line.contains("WARNING: [pool www] "), "{line}");
    // Both processes may refuse one in the same moment.
    assert!(
        line.contains(" request(s) refused: the last one has waited 0.3"),
        "{line}"
    );
    assert!(line.contains("pm.queue_timeout is 0.300 s"), "{line}");

    let mut connection = pool.server.connect();
    let page = connection.exchange(
        &Request::get(pool.root(), "/status?openmetrics&full")
            .param("SCRIPT_NAME", "/status")
            .param("SCRIPT_FILENAME", "/status"),
    );
    assert!(
        page.text().contains("\nphpfpm_refused_requests_total 4\n"),
        "{}",
        page.text()
    );
}

#[test]
fn the_time_before_a_request_has_come_is_not_time_that_it_waits() {
    let pool = Pool::start("pm.queue_timeout = 500ms\n");
    for name in ["one", "two"] {
        // Nothing happens for longer than a request may wait.
        std::thread::sleep(Duration::from_millis(1200));
        assert_eq!(answer(&mut pool.send(name, "")).text(), name);
    }
}

#[test]
fn a_request_that_waits_less_is_executed() {
    let pool = Pool::start("pm.queue_timeout = 60s\n");
    let mut busy = pool.occupy("one");
    let mut waiting = ["two", "three"].map(|name| pool.send(name, ""));
    for connection in &mut waiting {
        assert!(!connection.is_readable_within(Duration::from_millis(100)));
    }
    pool.release();
    assert_eq!(answer(&mut busy).text(), "one");
    for (connection, name) in waiting.iter_mut().zip(["two", "three"]) {
        assert_eq!(answer(connection).text(), name);
    }
}

/// Two of four may wait.
fn fill(pool: &Pool, assert_refused: impl Fn(&Response)) {
    let mut busy = pool.occupy("one");
    let names = ["two", "three", "four", "five"];
    let mut connections = names.map(|name| pool.send(name, ""));
    wait_until("two are refused", || {
        connections
            .iter()
            .filter(|connection| connection.has_input())
            .count()
            >= 2
    });
    let refused = connections.each_ref().map(Connection::has_input);
    assert_eq!(refused.iter().filter(|refused| **refused).count(), 2);
    assert!(!busy.has_input(), "the worker has become free");
    pool.release();
    assert_eq!(answer(&mut busy).text(), "one");
    for ((connection, name), refused) in connections.iter_mut().zip(names).zip(refused) {
        let response = answer(connection);
        assert_eq!(pool.has_run(name), !refused, "{name}");
        if refused {
            assert_refused(&response);
        } else {
            assert_eq!(response.text(), name);
        }
    }
    let line = pool.server.log().expect("request(s) refused");
    assert!(
        line.contains("2 wait for a worker, as many as pm.queue_max"),
        "{line}"
    );
}

#[test]
fn a_request_that_finds_too_many_waiting_is_refused() {
    fill(&Pool::start("pm.queue_max = 2\n"), assert_busy);
}

#[test]
fn the_refusal_is_fastcgis_own_by_setting() {
    fill(
        &Pool::start("pm.queue_max = 2\npm.queue_answer = overloaded\n"),
        |response| {
            assert_eq!(response.protocol_status, OVERLOADED, "{response:?}");
            assert!(
                response.stdout.is_empty() && response.head.is_empty(),
                "{response:?}"
            );
        },
    );
}

#[test]
fn a_request_whose_client_has_gone_is_not_executed() {
    let pool = Pool::start("pm.queue_timeout = 60s\n");
    let mut busy = pool.occupy("one");
    let mut waiting = pool.send("two", "");
    assert!(!waiting.is_readable_within(Duration::from_millis(50)));
    drop(waiting);
    // One that only says that it sends no more still waits for its answer.
    let mut half_closed = pool.send("three", "");
    half_closed.shutdown_write();
    assert!(!half_closed.is_readable_within(Duration::from_millis(50)));
    pool.release();
    assert_eq!(answer(&mut busy).text(), "one");
    assert_eq!(answer(&mut half_closed).text(), "three");
    assert!(!pool.has_run("two"));
}

#[test]
fn without_a_limit_all_wait() {
    let pool = Pool::start("");
    let mut busy = pool.occupy("one");
    let names: Vec<String> = (0..20).map(|number| format!("n{number}")).collect();
    let mut waiting: Vec<Connection> = names.iter().map(|name| pool.send(name, "")).collect();
    assert!(!waiting[19].is_readable_within(Duration::from_millis(300)));
    pool.release();
    assert_eq!(answer(&mut busy).text(), "one");
    for (connection, name) in waiting.iter_mut().zip(&names) {
        assert_eq!(answer(connection).text(), *name);
    }
}

#[test]
fn refused_requests_are_in_the_access_log() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("access.log");
    let pool = Pool::start(&format!(
        "pm.queue_max = 1\naccess.log = {}\naccess.format = \"%m %r%Q%q %s\"\n",
        log.display()
    ));
    let mut busy = pool.occupy("one");
    let mut others: Vec<_> = ["two", "three", "four"]
        .into_iter()
        .map(|name| pool.send(name, ""))
        .collect();
    let lines = |status: &str| {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines = text.lines().filter(|line| line.ends_with(status));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    wait_until("two are refused", || lines(" 503").len() == 2);
    for line in lines(" 503") {
        assert!(line.starts_with("GET /a.php?name="), "{line}");
    }
    pool.release();
    answer(&mut busy);
    for connection in &mut others {
        answer(connection);
    }
    wait_until("the others are there too", || lines(" 200").len() == 2);
}
