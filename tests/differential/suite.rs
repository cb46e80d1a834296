//! Runs cases against both servers and judges what differs.
//!
//! `FE_PHP_SHOW=text` prints php-fpm's answers to the cases with this text in their names.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::allowed;
use crate::support::client::{Connection, Request, Response};
use crate::support::fpm::Fpm;
use crate::support::log::Log;
use crate::support::server::Server;

/// The cases of one comparison and the document root they live in.
pub(crate) struct Suite {
    root: PathBuf,
    cases: Vec<Case>,
}

struct Case {
    name: String,
    request: Request,
    /// Ends the sending direction of the connection after the request.
    half_close: bool,
}

/// One place where two answers differ.
struct Difference {
    /// `area/case: place`, where the place is `head`, `body`, `body.KEY.KEY` of a JSON body, `stderr`, `status`, or `answer`.
    place: String,
    report: String,
}

/// Sends all `cases` to php-fpm and to fe-php, both with the php.ini lines `ini` (`{root}` is the document root), and panics if an answer differs where
/// `allowed` does not list it, or if it does not differ where it is listed.
pub(crate) fn compare(area: &str, ini: &[&str], cases: fn(&mut Suite)) {
    compare_with(area, ini, "", false, cases);
}

/// The same through a pool of fe-php that is configured as php-fpm's is: both read the same php-fpm.conf, with `pool` in it.
pub(crate) fn compare_configured(area: &str, ini: &[&str], pool: &str, cases: fn(&mut Suite)) {
    compare_with(area, ini, pool, true, cases);
}

/// The same with a php-fpm that executes each request in a new process, for what it fails to undo after a request.
pub(crate) fn compare_with_fresh_fpm(area: &str, ini: &[&str], cases: fn(&mut Suite)) {
    compare_with(area, ini, "pm.max_requests = 1", false, cases);
}

fn compare_with(area: &str, ini: &[&str], pool: &str, configured: bool, cases: fn(&mut Suite)) {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    let mut suite = Suite {
        root: base.join("www"),
        cases: Vec::new(),
    };
    fs::create_dir(&suite.root).unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/php");
    for entry in fs::read_dir(scripts).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, suite.root.join(path.file_name().unwrap())).unwrap();
        }
    }
    cases(&mut suite);

    let state = base.join("state");
    // Before the test's own, whose last section goes on to the end.
    let mut lines = vec![
        format!("session.save_path={}", state.display()),
        "opcache.file_update_protection=0".to_owned(), // else what is cached depends on how long the test runs
    ];
    let root = suite.root.to_str().unwrap();
    lines.extend(ini.iter().map(|line| line.replace("{root}", root)));
    let fpm = Fpm::start(&lines, pool, &base);
    let server: Box<dyn Ours> = if configured {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fe-php"));
        command.arg("fpm");
        Box::new(Fpm::start_as(command, &lines, pool, &base))
    } else {
        let builder = lines
            .iter()
            .fold(Server::builder(), |builder, line| builder.ini(line));
        Box::new(builder.root(&suite.root).current_directory(&base).start())
    };

    let stock = suite.run(&state, || fpm.connect());
    let ours = suite.run(&state, || server.connect());
    if let Ok(show) = std::env::var("FE_PHP_SHOW") {
        for (case, stock) in suite
            .cases
            .iter()
            .zip(&stock)
            .filter(|(case, _)| case.name.contains(&show))
        {
            eprintln!("php-fpm's answer to {area}/{}: {stock:#?}", case.name);
        }
    }

    let mut differences = Vec::new();
    for (case, (stock, ours)) in suite.cases.iter().zip(stock.iter().zip(&ours)) {
        let mut found = Vec::new();
        differ(stock, ours, &mut found);
        for (place, report) in found {
            differences.push(Difference {
                place: format!("{area}/{}: {place}", case.name),
                report,
            });
        }
    }
    judge(area, &suite, &differences, server.log().path());
}

/// fe-php, however it was started.
trait Ours {
    fn connect(&self) -> Connection;
    fn log(&self) -> &Log;
}

impl Ours for Server {
    fn connect(&self) -> Connection {
        self.connect()
    }

    fn log(&self) -> &Log {
        self.log()
    }
}

impl Ours for Fpm {
    fn connect(&self) -> Connection {
        self.connect()
    }

    fn log(&self) -> &Log {
        self.log()
    }
}

fn judge(area: &str, suite: &Suite, differences: &[Difference], log: &Path) {
    let allowed = allowed::in_area(area);
    let unlisted =
        |difference: &&Difference| !allowed.iter().any(|entry| entry.covers(&difference.place));
    let unlisted: Vec<&Difference> = differences.iter().filter(unlisted).collect();
    let mut cases: Vec<&str> = unlisted
        .iter()
        .map(|difference| difference.case())
        .collect();
    cases.dedup();
    let mut report = String::new();
    for (index, difference) in unlisted.iter().enumerate() {
        let same = |other: &&&Difference| other.report == difference.report;
        if unlisted[..index].iter().any(|other| same(&other)) {
            continue;
        }
        let more = unlisted[index + 1..].iter().filter(same).count();
        let more = if more > 0 {
            format!(" (and the same in {more} more cases)")
        } else {
            String::new()
        };
        writeln!(
            report,
            "{:.200}{more}\n{}",
            difference.place,
            difference.report.trim_end()
        )
        .unwrap();
    }
    for entry in &allowed {
        let there = differences
            .iter()
            .any(|difference| entry.covers(&difference.place));
        if !there && !entry.comes_and_goes {
            writeln!(
                report,
                "{}: listed as a difference, but there is none ({})",
                entry.place, entry.reason
            )
            .unwrap();
        }
    }
    let summary = format!(
        "{area}: {} cases, {} differ",
        suite.cases.len(),
        cases.len()
    );
    eprintln!(
        "{summary}, {} differences are allowed",
        differences.len() - unlisted.len()
    );
    if !report.is_empty() {
        let log = fs::read_to_string(log).unwrap_or_default();
        let log: Vec<&str> = log.lines().rev().take(20).collect();
        let log: String = log
            .into_iter()
            .rev()
            .fold(String::new(), |all, line| all + line + "\n");
        panic!("- php-fpm, + fe-php\n{report}fe-php's log ends with\n{log}{summary}");
    }
}

impl Difference {
    fn case(&self) -> &str {
        self.place.split(": ").next().unwrap_or(&self.place)
    }
}

impl Suite {
    /// The document root.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Writes a file into the document root.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A GET request.
    pub(crate) fn get(&self, uri: &str) -> Request {
        Request::get(&self.root, uri)
    }

    /// Adds a case.
    pub(crate) fn case(&mut self, name: &str, request: Request) {
        assert!(
            self.cases.iter().all(|case| case.name != name),
            "two cases are called {name}"
        );
        self.cases.push(Case {
            name: name.to_owned(),
            request,
            half_close: false,
        });
    }

    /// Adds a case whose connection ends after the request, at which php-fpm stops waiting for more of a body.
    pub(crate) fn half_closed_case(&mut self, name: &str, request: Request) {
        self.case(name, request);
        self.cases.last_mut().unwrap().half_close = true;
    }

    /// Adds a case: a GET request for a script with this source.
    pub(crate) fn script(&mut self, name: &str, source: &str) {
        self.script_with(name, source, |request| request);
    }

    /// Adds a case: a request for a script with this source.
    pub(crate) fn script_with(
        &mut self,
        name: &str,
        source: &str,
        request: impl FnOnce(Request) -> Request,
    ) {
        let file = format!("case-{}.php", name.replace([' ', '/'], "-"));
        self.file(&file, source);
        self.case(name, request(self.get(&format!("/{file}"))));
    }

    /// The answers of one server. Each request has a connection of its own; the state of an earlier run is removed.
    fn run(&self, state: &Path, connect: impl Fn() -> Connection) -> Vec<Result<Response, String>> {
        let _ = fs::remove_dir_all(state);
        fs::create_dir(state).unwrap();
        let answer = |case: &Case| {
            let start = Instant::now();
            let mut connection = connect();
            connection.set_timeout(Duration::from_secs(60)).unwrap(); // time limits count CPU time, which may be scarce
            let answer = if case.half_close {
                connection.send(&case.request.encode());
                connection.shutdown_write();
                connection.try_next_response()
            } else {
                connection.try_exchange(&case.request)
            };
            let answer = match answer {
                Ok((id, response)) if id == case.request.id() => Ok(response),
                Ok((id, _)) => Err(format!("answer to request {id}")),
                Err(error) => Err(error.to_string()),
            };
            if start.elapsed() > Duration::from_secs(10) {
                eprintln!("{} took {:?}", case.name, start.elapsed());
            }
            answer
        };
        self.cases.iter().map(answer).collect()
    }
}

fn differ(
    stock: &Result<Response, String>,
    ours: &Result<Response, String>,
    found: &mut Vec<(String, String)>,
) {
    let (stock, ours) = match (stock, ours) {
        (Ok(stock), Ok(ours)) => (stock, ours),
        (Err(stock), Err(ours)) if stock == ours => return,
        (stock, ours) => {
            let text = |answer: &Result<Response, String>| format!("{answer:?}");
            found.push((
                "answer".to_owned(),
                lines(text(stock).as_bytes(), text(ours).as_bytes()),
            ));
            return;
        }
    };
    for (place, stock, ours) in [
        ("head", &stock.head, &ours.head),
        ("stderr", &stock.stderr, &ours.stderr),
    ] {
        if stock != ours {
            found.push((place.to_owned(), lines(stock, ours)));
        }
    }
    let status =
        |response: &Response| format!("{} {}", response.app_status, response.protocol_status);
    if status(stock) != status(ours) {
        found.push((
            "status".to_owned(),
            lines(status(stock).as_bytes(), status(ours).as_bytes()),
        ));
    }
    if stock.body != ours.body {
        if let (Ok(stock), Ok(ours)) = (
            serde_json::from_slice(&stock.body),
            serde_json::from_slice(&ours.body),
        ) {
            differ_json("body", &stock, &ours, found); // objects are alike in any order
        } else {
            found.push(("body".to_owned(), lines(&stock.body, &ours.body)));
        }
    }
}

/// Compares objects key by key.
fn differ_json(place: &str, stock: &Value, ours: &Value, found: &mut Vec<(String, String)>) {
    if let (Value::Object(stock), Value::Object(ours)) = (stock, ours) {
        let missing = Value::String("(not there)".to_owned());
        for (key, value) in stock {
            differ_json(
                &format!("{place}.{key}"),
                value,
                ours.get(key).unwrap_or(&missing),
                found,
            );
        }
        for (key, value) in ours.iter().filter(|(key, _)| !stock.contains_key(*key)) {
            differ_json(&format!("{place}.{key}"), &missing, value, found);
        }
    } else if stock != ours {
        found.push((
            place.to_owned(),
            lines(stock.to_string().as_bytes(), ours.to_string().as_bytes()),
        ));
    }
}

/// The lines between the common start and the common end of two texts, shortened.
fn lines(stock: &[u8], ours: &[u8]) -> String {
    let stock: Vec<&[u8]> = stock.split(|&byte| byte == b'\n').collect();
    let ours: Vec<&[u8]> = ours.split(|&byte| byte == b'\n').collect();
    let start = stock
        .iter()
        .zip(&ours)
        .take_while(|(one, other)| one == other)
        .count();
    let most = stock.len().min(ours.len()) - start;
    let end = stock
        .iter()
        .rev()
        .zip(ours.iter().rev())
        .take(most)
        .take_while(|(one, other)| one == other)
        .count();
    let mut text = String::new();
    let (stock, ours) = (
        &stock[start..stock.len() - end],
        &ours[start..ours.len() - end],
    );
    let alike = match (stock, ours) {
        ([stock], [ours]) => stock
            .iter()
            .zip(ours.iter())
            .take_while(|(one, other)| one == other)
            .count(),
        _ => 0,
    };
    for (sign, lines) in [('-', stock), ('+', ours)] {
        for line in lines.iter().take(8) {
            let from = alike.saturating_sub(60);
            let line = String::from_utf8_lossy(&line[from..]);
            let short: String = line.chars().take(300).collect();
            let dots = if from > 0 { "…" } else { "" };
            writeln!(text, "    {sign} {dots}{}", short.escape_debug()).unwrap();
        }
        if lines.len() > 8 {
            writeln!(text, "    {sign} … {} more lines", lines.len() - 8).unwrap();
        }
    }
    text
}

#[test]
fn a_difference_is_found_wherever_it_is() {
    let answer = |head: &str, body: &str| {
        let (head, body) = (head.as_bytes().to_vec(), body.as_bytes().to_vec());
        Ok(Response {
            head,
            body,
            ..Response::default()
        })
    };
    let places = |stock, ours| {
        let mut found = Vec::new();
        differ(&stock, &ours, &mut found);
        found
            .into_iter()
            .map(|(place, _)| place)
            .collect::<Vec<_>>()
    };
    assert!(places(answer("A: 1", "x"), answer("A: 1", "x")).is_empty());
    assert_eq!(
        places(answer("A: 1\r\nB: 2", "x"), answer("B: 2\r\nA: 1", "y")),
        ["head", "body"]
    );
    assert_eq!(
        places(
            answer("", r#"{"a":{"b":1},"c":[1]}"#),
            answer("", r#"{"c":[1],"a":{"d":1}}"#)
        ),
        ["body.a.b", "body.a.d"]
    );
    assert_eq!(
        places(answer("", "{}"), Err("closed".to_owned())),
        ["answer"]
    );
    let failed = Ok(Response {
        app_status: 1,
        stderr: b"x".to_vec(),
        ..Response::default()
    });
    assert_eq!(places(answer("", ""), failed), ["stderr", "status"]);
}
