//! `access.log`.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use super::{both, lines, shape};
use crate::support::client::Request;
use crate::support::fpm::Fpm;
use crate::support::{DEADLINE, holds_within};

const SCRIPT: &str = r#"<?php
header('X-Test: of the script');
http_response_code((int) ($_GET['status'] ?? 200));
if (isset($_GET['type'])) header('Content-Type: text/plain');
if (isset($_GET['exit'])) exit('early');
if (isset($_GET['fatal'])) no_such_function();
echo strlen(file_get_contents('php://input'));
"#;

fn requests(root: &Path) -> Vec<Request> {
    let get = |uri| Request::get(root, uri);
    vec![
        get("/a.php"),
        get("/a.php?x=1&y=%20"),
        get("/a.php?status=404"),
        get("/a.php?status=204&type"),
        get("/a.php?exit"),
        get("/a.php?fatal"),
        get("/missing.php"),
        get("/a.txt"),
        get("/a.php/path/info").param(
            "SCRIPT_FILENAME",
            format!("{}/a.php/path/info", root.display()),
        ),
        get("/a.php").method("HEAD"),
        get("/a.php").post("text/plain", "12345"),
        get("/a.php").header("X-Test", "of the client"),
        get("/a.php").header("Authorization", "Basic am9lOnNlY3JldA=="),
        get("/ping"),
        get("/ping?full"),
    ]
}

/// The access log of a server after all those requests.
fn log_of(server: &Fpm, root: &Path) -> Vec<String> {
    let requests = requests(root);
    for request in &requests {
        server.connect().exchange(request);
    }
    lines(&server.directory().join("access.log"), requests.len())
}

fn pool(format: &str) -> String {
    format!("access.log = {{directory}}/access.log\nping.path = /ping\naccess.format = {format}\n")
}

fn compare(format: &str, see: fn(&str) -> String) {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a.php"), SCRIPT).unwrap();
    fs::write(root.path().join("a.txt"), "").unwrap();
    let [stock, ours] = both(&pool(format), root.path());
    let expected: Vec<_> = log_of(&stock, root.path())
        .iter()
        .map(|line| see(line))
        .collect();
    let found: Vec<_> = log_of(&ours, root.path())
        .iter()
        .map(|line| see(line))
        .collect();
    assert_eq!(expected.len(), requests(root.path()).len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn lines_that_only_depend_on_the_request_are_equal() {
    compare(
        "\"%%|%f|%l|%m|%n|%q|%Q|%r|%R|%s|%u|%{HTTP_X_TEST}e|%{MISSING}e|%{X-Test}o|%{X-None}o|%{X-Powered-By}o\"",
        str::to_owned,
    );
}

#[test]
fn figures_and_times_have_the_same_form() {
    compare(
        "\"%d|%{milli}d|%{micro}d|%M|%{kilo}M|%{mega}M|%p|%P|%t|%T|%{%Y-%m-%dT%H:%M:%S}t\"",
        shape,
    );
}

#[test]
fn default_lines_have_the_same_form() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a.php"), SCRIPT).unwrap();
    let [stock, ours] = both("access.log = {directory}/access.log\n", root.path());
    let [expected, found] = [stock, ours].map(|server| {
        server
            .connect()
            .exchange(&Request::get(root.path(), "/a.php?x"));
        let lines = lines(&server.directory().join("access.log"), 1);
        lines.iter().map(|line| shape(line)).collect::<Vec<_>>()
    });
    assert_eq!(found, expected);
}

#[test]
fn the_same_paths_are_suppressed() {
    let pool = pool("\"%m %r%Q%q %s\"")
        + "access.suppress_path[] = /a.php\naccess.suppress_path[] = /ping\n";
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a.php"), SCRIPT).unwrap();
    let [stock, ours] = both(&pool, root.path());
    let [expected, found] = [stock, ours].map(|server| {
        for request in requests(root.path()) {
            server.connect().exchange(&request);
        }
        // The last one is logged, so all before it have been.
        server
            .connect()
            .exchange(&Request::get(root.path(), "/a.php?last"));
        let path = server.directory().join("access.log");
        holds_within(DEADLINE, || {
            fs::read_to_string(&path).is_ok_and(|text| text.contains("?last"))
        });
        lines(&path, 0)
    });
    assert_eq!(found, expected);
}

#[test]
fn reopened_log_gets_the_next_line() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a.php"), SCRIPT).unwrap();
    let [_, server] = both(&pool("\"%q\""), root.path());
    let (path, old) = (
        server.directory().join("access.log"),
        server.directory().join("access.log.1"),
    );
    let get = |query| {
        server
            .connect()
            .exchange(&Request::get(root.path(), &format!("/a.php?{query}")))
    };
    get("first");
    lines(&path, 1);
    fs::rename(&path, &old).unwrap();
    get("meanwhile");
    lines(&old, 2);
    server.signal(Signal::USR1);
    server.log().expect("access log file re-opened");
    // The worker process may get its descriptor a moment after the supervisor has said so.
    holds_within(DEADLINE, || {
        get("after");
        path.exists() && !lines(&path, 0).is_empty()
    });
    assert_eq!(lines(&old, 2)[..2], ["first", "meanwhile"]);
    assert!(lines(&path, 1).iter().all(|line| line == "after"));
}
