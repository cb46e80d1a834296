//! The process manager: pools grow when requests wait, shrink when they do not, and recycle their workers.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::Value;

use super::status::json;
use crate::support::configured::Configured;
use crate::support::php;
use crate::support::process::kill;
use crate::support::server::READY;
use crate::support::{DEADLINE, holds_within, wait_until};

const PID: &str = "<?php echo getmypid();";

/// Waits until so many requests run at once, or 15 seconds; tells how many did.
const TOGETHER: &str = r#"<?php
touch("$_GET[dir]/$_GET[number]");
for ($end = microtime(true) + 15; microtime(true) < $end; usleep(2000)) {
    if (count(glob("$_GET[dir]/*")) >= (int) $_GET['all']) exit('together');
}
echo 'alone';
"#;

/// A pool with its status at a socket that the supervisor answers, so that looking starts no worker.
fn pool(lines: &str) -> String {
    let lines =
        format!("pm.status_path = /status\npm.status_listen = {{dir}}/status.sock\n{lines}");
    Configured::pool("www", &lines)
}

fn figure(server: &Configured, name: &str) -> u64 {
    let status = json(server, "status", "/status");
    status[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no {name} in {status}"))
}

fn total(server: &Configured) -> u64 {
    figure(server, "total processes")
}

/// `count` requests that end only when all of them run.
fn burst(server: &Configured, count: usize) -> Duration {
    let directory = server.files().path("burst");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir(&directory).unwrap();
    let begun = Instant::now();
    let mut connections: Vec<_> = (0..count)
        .map(|number| {
            let mut connection = server.connect("www");
            let uri = format!(
                "/together.php?dir={}&number={number}&all={count}",
                directory.display()
            );
            connection.send(&server.request(&uri).encode());
            connection
        })
        .collect();
    for connection in &mut connections {
        assert_eq!(connection.response(1).text(), "together");
    }
    begun.elapsed()
}

/// php-fpm's rules (one process a second, then two, four, …) reach twelve after three seconds at the earliest.
#[test]
fn dynamic_pool_answers_a_burst_at_once_and_shrinks_afterwards() {
    let lines = "pm = dynamic\npm.max_children = 12\npm.start_servers = 1\npm.min_spare_servers = 1\n\
                 pm.max_spare_servers = 2\n";
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let server = Configured::builder(&pool(lines)).start();
        server.php("together.php", TOGETHER);
        assert_eq!(total(&server), 1);
        fastest = fastest.min(burst(&server, 12));
        if fastest > Duration::from_millis(2500) {
            continue; // a busy machine: once more
        }
        assert_eq!(server.log().count("seems busy"), 0);
        assert_eq!(figure(&server, "max active processes"), 12);
        wait_until("the pool is small again", || total(&server) <= 3);
        assert_eq!(figure(&server, "active processes"), 0);
        assert!(figure(&server, "idle processes") >= 1);
        // And grows again, with what it had before.
        burst(&server, 12);
        return;
    }
    panic!("twelve at once took {fastest:?}");
}

#[test]
fn ondemand_pool_has_no_process_before_the_first_connection_and_none_after_the_idle_timeout() {
    let lines = "pm = ondemand\npm.max_children = 4\npm.process_idle_timeout = 1s\n";
    let server = Configured::builder(&pool(lines)).start();
    server.php("pid.php", PID);
    server.php("together.php", TOGETHER);
    assert_eq!(server.descendants().len(), 0);
    assert_eq!(figure(&server, "total processes"), 0);
    let first = server.get("www", "/pid.php");
    assert_eq!(first.status, 200);
    burst(&server, 4);
    let empty = || holds_within(DEADLINE, || total(&server) == 0);
    assert!(empty(), "{}", json(&server, "status", "/status"));
    let second = server.get("www", "/pid.php");
    assert_ne!(second.text(), first.text());
    assert!(empty());
    // Six times the idle timeout later the pool process goes too, and comes back when it is needed.
    wait_until("the pool process has gone", || {
        server.descendants().is_empty()
    });
    assert_eq!(server.get("www", "/pid.php").status, 200);
    assert_eq!(server.log().count("WARNING"), 0, "{}", server.log().text());
}

#[test]
fn ondemand_pool_keeps_kept_alive_connections_while_it_shrinks() {
    let lines = "pm = ondemand\npm.max_children = 4\npm.process_idle_timeout = 1s\n";
    let server = Configured::builder(&pool(lines)).start();
    server.php("pid.php", PID);
    server.php("sleep.php", "<?php usleep(300000); echo 'slept';");
    let mut connections: Vec<_> = (0..4).map(|_| server.connect("www")).collect();
    for connection in &mut connections {
        connection.send(&server.request("/sleep.php").keep().encode());
    }
    for connection in &mut connections {
        assert_eq!(connection.response(1).text(), "slept");
    }
    wait_until("one is left", || total(&server) == 1);
    // Two more seconds in which the last could go.
    std::thread::sleep(Duration::from_secs(2));
    for connection in &mut connections {
        assert!(!connection.has_input(), "a connection was closed");
        assert_eq!(
            connection
                .exchange(&server.request("/pid.php").keep())
                .status,
            200
        );
    }
    drop(connections);
    wait_until("the last is gone", || total(&server) == 0);
}

/// Workers go while requests come on connections that they had.
#[test]
fn shrinking_fails_no_request_on_kept_alive_connections() {
    for pm in [
        "pm = dynamic\npm.start_servers = 1\npm.min_spare_servers = 1\npm.max_spare_servers = 1",
        "pm = ondemand\npm.process_idle_timeout = 1s",
    ] {
        let server = Configured::builder(&pool(&format!("{pm}\npm.max_children = 6\n"))).start();
        server.php("pid.php", PID);
        server.php("sleep.php", "<?php usleep(50000); echo 'slept';");
        let (sleep, pid) = (
            server.request("/sleep.php").keep(),
            server.request("/pid.php").keep(),
        );
        let mut connections: Vec<_> = (0..6).map(|_| server.connect("www")).collect();
        let mut smallest = u64::MAX;
        for _ in 0..3 {
            for connection in &mut connections {
                connection.send(&sleep.encode());
            }
            for connection in &mut connections {
                assert_eq!(connection.response(1).text(), "slept", "{pm}");
            }
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(2500) {
                for connection in &mut connections {
                    assert_eq!(connection.exchange(&pid).status, 200, "{pm}");
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            smallest = smallest.min(total(&server));
        }
        // One a second goes.
        if pm.contains("dynamic") {
            assert!(smallest < 6, "{smallest}: {pm}");
        }
        assert_eq!(server.log().count("was lost"), 0, "{}", server.log().text());
    }
}

#[test]
fn recycled_workers_fail_no_request_on_a_kept_alive_connection() {
    let lines = "pm = static\npm.max_children = 2\npm.max_requests = 1\n";
    let server = Configured::builder(&pool(lines)).start();
    server.php("pid.php", PID);
    let request = server.request("/pid.php").keep();
    let mut connection = server.connect("www");
    let mut pids: Vec<String> = (0..50)
        .map(|_| {
            let response = connection.exchange(&request);
            assert_eq!(response.status, 200, "{response:?}");
            response.text()
        })
        .collect();
    if php::is_zts() {
        // Its generation is replaced, at most every two seconds.
        wait_until("another process", || {
            connection.exchange(&request).text() != pids[0]
        });
        return;
    }
    pids.sort();
    pids.dedup();
    // A request that was read before the one before it had ended runs in the same process.
    assert!(pids.len() > 20, "{} processes", pids.len());
    wait_until("two workers", || total(&server) == 2);
    // Bodies are passed on too.
    server.php(
        "post.php",
        "<?php echo strlen(file_get_contents('php://input'));",
    );
    for length in [1, 70_000, 300_000] {
        let post = server
            .request("/post.php")
            .post("text/plain", vec![b'x'; length])
            .keep();
        assert_eq!(connection.exchange(&post).text(), length.to_string());
    }
}

#[test]
fn crashes_beyond_the_emergency_threshold_reload_the_server() {
    let global = "emergency_restart_threshold = 3\nemergency_restart_interval = 1m\n";
    let lines = "pm = static\npm.max_children = 1\n";
    let server = Configured::builder(&format!("{global}{}", pool(lines))).start();
    server.php("pid.php", PID);
    let said = "failed processes threshold (3 in 60 sec) is reached, initiating reload";
    for count in 1..=3 {
        assert_eq!(server.log().count(said), 0);
        let pid: i32 = server.get("www", "/pid.php").text().parse().unwrap();
        kill(pid, Signal::SEGV);
        server.log().expect_count("on signal 11 (SIGSEGV", count);
    }
    server.log().expect(said);
    server.log().expect_count(READY, 2);
    assert_eq!(server.get("www", "/pid.php").status, 200);
    // It counts anew.
    let pid: i32 = server.get("www", "/pid.php").text().parse().unwrap();
    kill(pid, Signal::SEGV);
    server.log().expect_count("on signal 11 (SIGSEGV", 4);
    assert_eq!(server.get("www", "/pid.php").status, 200);
    assert_eq!(server.log().count(READY), 2);
}

/// Proportional set size of a process, in KiB: what it shares counts in parts.
fn pss(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Pss:"));
    line.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

#[test]
fn two_hundred_ondemand_pools_take_little_and_all_serve() {
    const POOLS: usize = 200;
    let pools: String = (0..POOLS)
        .map(|number| {
            Configured::pool(
                &format!("p{number}"),
                "pm = ondemand\npm.max_children = 2\n",
            )
        })
        .collect();
    let begun = Instant::now();
    let server = Configured::builder(&pools).start();
    let started = begun.elapsed();
    server.php("pool.php", "<?php echo $_SERVER['FCGI_ROLE'], getmypid();");
    assert_eq!(server.descendants().len(), 0);
    let idle = pss(server.pid());
    let mut answers: Vec<String> = (0..POOLS)
        .step_by(20)
        .map(|number| server.get(&format!("p{number}"), "/pool.php").text())
        .collect();
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), POOLS / 20, "{answers:?}");
    let in_use: u64 = server
        .descendants()
        .iter()
        .map(|process| pss(process.pid))
        .sum();
    let begun = Instant::now();
    server.reload();
    eprintln!(
        "{POOLS} ondemand pools: ready after {started:?}, {idle} KiB idle; {in_use} KiB more for ten in use; reloaded in \
         {:?}",
        begun.elapsed()
    );
    assert!(idle > 0 && idle < 100 << 10, "{idle} KiB");
    assert_eq!(server.get("p199", "/pool.php").status, 200);
}

#[test]
fn max_children_is_never_exceeded_and_reaching_it_is_said_once() {
    for pm in ["ondemand", "static"] {
        let lines = format!("pm = {pm}\npm.max_children = 2\n");
        let server = Configured::builder(&pool(&lines)).start();
        server.php("sleep.php", "<?php usleep(100000); echo 'slept';");
        let mut connections: Vec<_> = (0..12).map(|_| server.connect("www")).collect();
        for connection in &mut connections {
            connection.send(&server.request("/sleep.php").encode());
        }
        for connection in &mut connections {
            assert!(total(&server) <= 2);
            assert_eq!(connection.response(1).text(), "slept");
        }
        let status: Value = json(&server, "status", "/status");
        assert_eq!(status["accepted conn"], 12, "{status}");
        assert_eq!(status["max active processes"], 2, "{status}");
        if pm == "ondemand" {
            let said = "server reached max_children setting (2), consider raising it";
            assert_eq!(server.log().count(said), 1, "{}", server.log().text());
            assert_eq!(status["max children reached"], 1, "{status}");
        }
    }
}

/// A ZTS pool that cannot have another PHP thread goes on with those it has, and ends when it is replaced.
#[test]
fn pool_without_memory_for_another_thread_goes_on_and_can_be_replaced() {
    if !php::is_zts() {
        return;
    }
    let lines = "pm = dynamic\npm.max_children = 4\npm.start_servers = 1\npm.min_spare_servers = 1\n\
                 pm.max_spare_servers = 1\nrequest_terminate_timeout = 2s\n";
    let server = Configured::builder(&pool(lines)).start();
    server.php("pid.php", PID);
    server.php("sleep.php", "<?php usleep(500000); echo 'slept';");
    server.php(
        "read.php",
        "<?php ini_set('default_socket_timeout', 600); $pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0); fread($pair[0], 1);",
    );
    assert_eq!(server.get("www", "/pid.php").status, 200);
    let [worker] = server.worker_pids()[..] else {
        panic!("not one process")
    };
    // Room for much, but not for a PHP thread's stack of 256 MB.
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let size: u64 = size
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    let limit = Some(size * 1024 + (128 << 20));
    prlimit(
        Pid::from_raw(worker),
        Resource::As,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )
    .unwrap();
    let mut busy: Vec<_> = (0..3).map(|_| server.connect("www")).collect();
    for connection in &mut busy {
        connection.send(&server.request("/sleep.php").encode());
    }
    server.log().expect("another PHP thread cannot be started");
    for connection in &mut busy {
        assert_eq!(connection.response(1).text(), "slept");
    }
    // A script that cannot be stopped has the process replaced: it ends once all other threads are done.
    assert_eq!(server.get("www", "/read.php").status, 504);
    wait_until("the old process has ended", || {
        !server.worker_pids().contains(&worker)
    });
    assert_eq!(server.get("www", "/pid.php").status, 200);
}
