//! The slow log: php-fpm's format, without ptrace.

use std::fs;
use std::path::Path;

use crate::faults::watch::times;
use crate::support::client::Request;
use crate::support::fpm::Fpm;
use crate::support::server::{Builder, Server};
use crate::support::wait_until;

/// Calls of every kind on the way to `sleep`.
const DEEP: &str = r"<?php
namespace Deep;
class Caller {
    public static function first(int $x) { return (new self)->second($x); }
    public function second(int $x) {
        return array_map(function ($y) { return $this->third($y); }, [$x]);
    }
    private function third(int $y) { return include __DIR__ . '/included.php'; }
}
function generate() { yield from array_map([Caller::class, 'first'], [1]); }
foreach (generate() as $x) {
    echo 'done';
}
";
const INCLUDED: &str = r"<?php
function in_included_file() { usort($GLOBALS['list'], 'compare'); return 1; }
function compare($a, $b) {
    if (!isset($GLOBALS['slept'])) {
        $GLOBALS['slept'] = true;
        sleep(3);
    }
    return $a <=> $b;
}
$GLOBALS['list'] = [2, 1];
return in_included_file();
";

fn slow(file: &Path, timeout: &str) -> Builder {
    Server::builder().args(&[
        "--request-slowlog-timeout",
        timeout,
        "--slowlog",
        file.to_str().unwrap(),
    ])
}

/// The entries of a slow log, each a list of lines.
fn entries(file: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let entries = text.split("\n\n").filter(|entry| !entry.trim().is_empty());
    entries
        .map(|entry| entry.trim().lines().map(ToOwned::to_owned).collect())
        .collect()
}

/// Without what differs from run to run: the time, the process, addresses.
fn normalized(entry: &[String]) -> Vec<String> {
    let mut lines = entry.to_vec();
    let (time, pid) = lines[0].split_once("] ").unwrap();
    assert!(
        time.starts_with('[') && time.len() == "[21-Nov-2026 07:50:00".len(),
        "{lines:?}"
    );
    let (pool, pid) = pid.split_once(" pid ").unwrap();
    pid.parse::<u32>().unwrap();
    lines[0] = pool.to_owned();
    for line in &mut lines[2..] {
        let (address, rest) = line.split_once("] ").unwrap();
        assert_eq!(address.len(), "[0x0123456789abcdef".len(), "{line}");
        u64::from_str_radix(&address[3..], 16).unwrap();
        *line = rest.to_owned();
    }
    lines
}

#[test]
fn entry_is_that_of_php_fpm() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (
        directory.path().join("ours"),
        directory.path().join("theirs"),
    );
    let s = slow(&ours, "1").start();
    s.php("deep.php", DEEP);
    s.php("included.php", INCLUDED);
    assert_eq!(s.get("/deep.php?a=b").text(), "done");
    let our_entries = entries(&ours);
    assert_eq!(our_entries.len(), 1, "{our_entries:?}");
    let our_entry = normalized(&our_entries[0]);
    let log = s.expect_log("executing too slow (1.");
    let script = s.root().join("deep.php");
    assert!(
        log.contains(&format!(
            "WARNING: [pool www] child {}, script '{}' (request: \"GET /deep.php?a=b\") executing too slow (1.",
            s.worker_pids()[0],
            script.display()
        )),
        "{log}"
    );
    assert!(log.ends_with(" sec), logging"), "{log}");
    let pid = s.worker_pids()[0];
    s.expect_log(&format!("NOTICE: about to trace {pid}"));
    s.expect_log(&format!("NOTICE: finished trace of {pid}"));
    assert_eq!(
        our_entry[1],
        format!("script_filename = {}", script.display())
    );

    let pool = format!(
        "request_slowlog_timeout = 1\nslowlog = {}",
        theirs.display()
    );
    let fpm = Fpm::start(&[], &pool, directory.path());
    let answer = fpm
        .connect()
        .exchange(&Request::get(s.root(), "/deep.php?a=b"));
    assert_eq!(answer.text(), "done");
    wait_until("php-fpm's slow log", || theirs.exists());
    let their_entries = entries(&theirs);
    let Some(their_entry) = their_entries.first().filter(|entry| entry.len() > 2) else {
        eprintln!(
            "not compared: php-fpm could not trace its child, for which it needs ptrace: {their_entries:?}"
        );
        return;
    };
    let mut expected = normalized(their_entry);
    expected[0] = our_entry[0].clone();
    assert_eq!(our_entry, expected);
}

#[test]
fn each_request_is_logged_once_and_no_deeper_than_asked() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("slow");
    let s = slow(&file, "0.1")
        .args(&["--request-slowlog-trace-depth", "3"])
        .start();
    s.php(
        "slow.php",
        "<?php function f($n) { if ($n) { f($n - 1); } else { usleep(400000); } }\nf(10); echo 'done';",
    );
    s.php("quick.php", "<?php usleep(20000); echo 'done';");
    for number in 1..=3 {
        assert_eq!(s.get("/slow.php").text(), "done");
        assert_eq!(s.get("/quick.php").text(), "done");
        let all = entries(&file);
        assert_eq!(all.len(), number, "{all:?}");
        let lines = normalized(&all[number - 1]);
        let path = s.root().join("slow.php");
        let expected =
            ["usleep()", "f()", "f()"].map(|name| format!("{name} {}:1", path.display()));
        assert_eq!(lines[2..], expected);
    }
}

#[test]
fn sleep_is_not_cut_short_by_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("slow");
    let s = slow(&file, "0.1").start();
    s.php("sleep.php", "<?php echo sleep(1);");
    assert_eq!(s.get("/sleep.php").text(), "0", "seconds left to sleep");
    assert_eq!(entries(&file).len(), 1);
}

#[test]
fn a_slow_request_can_be_overdue_later() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("slow");
    let s = slow(&file, "0.2")
        .args(&["--request-terminate-timeout", "0.5"])
        .start();
    s.php("loop.php", "<?php while (true) {}");
    assert_eq!(s.get("/loop.php").status, 504);
    s.expect_log("executing too slow (0.2");
    s.expect_log("execution timed out (0.5");
    assert_eq!(entries(&file).len(), 1);
}

/// A script that never stands still is walked again and again (32 times a request): every frame must be one that can be there.
#[test]
fn backtraces_of_busy_scripts_are_right() {
    const BUSY: &str = r"<?php
$end = microtime(true) + 0.05;
function fib($n) { return $n < 2 ? $n : fib($n - 1) + fib($n - 2); }
function each_one($list) { return array_map(function ($x) { return fib($x); }, $list); }
function walk() { foreach (each_one([3, 5, 8]) as $x) { yield $x; } }
function load($n) { return eval('return new class(' . $n . ') { function __construct(public $n) { fib($this->n); } };'); }
while (microtime(true) < $end) {
    foreach (walk() as $x) { usort($GLOBALS['a'], fn($p, $q) => fib(3) + $p <=> $q); load($x); }
    $a = [3, 1, 2];
}
echo 'done';";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("slow");
    let s = slow(&file, "0.01").workers(2).start();
    s.php(
        "busy.php",
        &BUSY
            .replace("$GLOBALS['a']", "$a")
            .replace("$end =", "$a = [1, 2]; $end ="),
    );
    let requests = times(120) as usize;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut connection = s.connect();
                for _ in 0..requests {
                    assert_eq!(
                        connection.exchange(&s.request("/busy.php").keep()).text(),
                        "done"
                    );
                }
            });
        }
    });
    let all = entries(&file);
    assert!(
        all.len() > requests,
        "{} entries of {} requests",
        all.len(),
        2 * requests
    );
    let known = [
        "fib()",
        "each_one()",
        "array_map()",
        "{closure}()",
        "walk()",
        "load()",
        "__construct()",
        "[INCLUDE_OR_EVAL]()",
        "usort()",
        "microtime()",
    ];
    let script = s.root().join("busy.php");
    let mut deepest = 0;
    for entry in &all {
        let lines = normalized(entry);
        assert_eq!(lines[1], format!("script_filename = {}", script.display()));
        deepest = deepest.max(lines.len());
        for line in &lines[2..] {
            let (name, place) = line.split_once(' ').unwrap();
            // Since PHP 8.4 a closure's name says where it is.
            let name = match name.strip_prefix("{closure:") {
                Some(_) => "{closure}()",
                None => name,
            };
            assert!(known.contains(&name), "{name:?} in {entry:?}");
            assert!(
                place.starts_with(script.to_str().unwrap()),
                "{place:?} in {entry:?}"
            );
        }
    }
    assert!(deepest > 5, "only short backtraces: {all:?}");
    assert_eq!(s.log().count("exited on"), 0, "{}", s.log().text());
}
