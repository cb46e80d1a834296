//! Scripts that end when the engine asks them to.

use std::time::{Duration, Instant};

use super::{assert_ended, terminate, timed_out};
use crate::memory::resident;
use crate::support::server::Server;
use crate::support::wait_until;

/// Scripts that never end of themselves, and what the backtrace in the log says of each.
const ENDLESS: &[(&str, &str)] = &[
    ("while (true) {}", "[main]"),
    (
        "for (;;) { $a[] = 1; if (count($a) > 100) { $a = []; } }",
        "[main]",
    ),
    ("function again() { while (true) {} } again();", "again()"),
    (
        "function down($n) { return $n ? down($n - 1) : 0; } while (true) { down(50); }",
        "[main]",
    ),
    (
        "class A { static function run() { while (true) { md5('x'); } } } A::run();",
        "A::run()",
    ),
    (
        "while (true) { array_map(function ($x) { return $x + 1; }, [1, 2, 3]); }",
        "[main]",
    ),
    ("sleep(60);", "sleep() [internal]"),
    ("while (true) { sleep(60); }", "sleep() [internal]"),
    ("while (true) { usleep(100); }", "[main]"),
    ("time_nanosleep(60, 0);", "time_nanosleep() [internal]"),
    (
        "$s = stream_socket_server('tcp://127.0.0.1:0'); $r = [$s]; $n = null;
         while (true) { @stream_select($r, $n, $n, 60); $r = [$s]; }",
        "stream_select() [internal]",
    ),
    (
        "$a = range(1, 1000000); shuffle($a); usort($a, function ($x, $y) { usleep(1); return $x <=> $y; });",
        "usort() [internal]",
    ),
    (
        "$f = new Fiber(function () { while (true) { Fiber::suspend(1); } }); $f->start(); while (true) { $f->resume(); }",
        "[main]",
    ),
    (
        "$f = new Fiber(function () { while (true) {} }); $f->start();",
        "{closure", // since PHP 8.4 with its place
    ),
    (
        "function g() { while (true) { yield 1; } } foreach (g() as $x) {}",
        "[main]",
    ),
    (
        "function g() { while (true) {} yield 1; } foreach (g() as $x) {}",
        "g()",
    ),
    ("eval('while (true) {}');", "[main]"),
    (
        "ob_start(function ($s) { return $s; }); while (true) { echo 'x'; ob_clean(); }",
        "[main]",
    ),
    (
        "while (true) { try { throw new Exception('x'); } catch (Throwable $e) {} finally { $x = 1; } }",
        "[main]",
    ),
    (
        "set_time_limit(0); ignore_user_abort(true); while (true) {}",
        "[main]",
    ),
];

fn ends_all(s: &Server) {
    let pid = |s: &Server| s.get("/pid.php").text();
    s.php("pid.php", "<?php echo getmypid();");
    let before = pid(s);
    for (number, (source, frame)) in ENDLESS.iter().enumerate() {
        let name = format!("endless{number}.php");
        s.php(
            &name,
            &format!("<?php register_shutdown_function(function () {{ error_log('shut down'); }});\n{source}"),
        );
        let begun = Instant::now();
        let response = s.get(&format!("/{name}"));
        let took = begun.elapsed();
        assert_ended(&response, source);
        assert!(
            response.stderr_text().contains("shut down"),
            "{source}: no shutdown function ran: {}",
            response.stderr_text()
        );
        assert!(
            took >= Duration::from_millis(480),
            "{source}: after {took:?}"
        );
        assert!(
            took < Duration::from_millis(1400),
            "{source}: not by the engine: {took:?}"
        );
        timed_out(s, &name);
        let place = s.root().join(&name);
        let log = s.log().text();
        let report: Vec<&str> = log
            .lines()
            .skip_while(|line| !line.contains(&format!("/{name}\") execution timed out")))
            .skip(1)
            .take_while(|line| line.contains("   #"))
            .collect();
        assert!(
            report.iter().any(|line| line.contains(frame)),
            "{source}: no {frame} in {report:?}"
        );
        let last = report.last().unwrap_or(&"").to_string();
        assert!(
            last.contains(&format!("[main] {}:", place.display())),
            "{source}: {report:?}"
        );
    }
    assert_eq!(pid(s), before, "the process that ran them goes on");
}

server!(
    what_never_ends_is_ended_and_its_process_serves_on,
    terminate(1),
    |s| {
        ends_all(&s);
    }
);

server!(
    code_that_was_compiled_by_the_jit_is_ended_too,
    terminate(1)
        .ini("opcache.enable=1")
        .ini("opcache.jit=tracing")
        .ini("opcache.jit_buffer_size=32M"),
    |s| {
        ends_all(&s);
    }
);

server!(a_script_within_its_time_is_left_alone, terminate(1), |s| {
    s.php("short.php", "<?php usleep(200000); echo 'done';");
    for _ in 0..5 {
        assert_eq!(s.get("/short.php").text(), "done");
    }
    assert_eq!(s.log().count("timed out"), 0);
});

server!(
    the_request_after_an_ended_one_has_its_whole_time,
    terminate(1),
    |s| {
        s.php("loop.php", "<?php while (true) {}");
        s.php("short.php", "<?php usleep(300000); echo 'done';");
        let mut connection = s.connect();
        for _ in 0..3 {
            assert_eq!(
                connection.exchange(&s.request("/loop.php").keep()).status,
                504
            );
            let next = connection.exchange(&s.request("/short.php").keep());
            assert_eq!((next.status, next.text().as_str()), (200, "done"));
        }
    }
);

/// Needs 40 MB, and has so many of itself running at once before it ends.
const BIG: &str = r#"<?php
$a = []; for ($i = 0; $i < 400; $i++) { $a[] = str_repeat(chr($i), 100_000); }
touch("$_GET[prefix]$_GET[number]");
for ($end = microtime(true) + 15; microtime(true) < $end; usleep(2000)) {
    if (count(glob("$_GET[prefix]*")) >= (int) $_GET['all']) { usleep(50000); break; }
}
echo getmypid();
"#;

// While nothing happens for five seconds, workers give memory back, and who watches them goes to sleep: until the next request
// begins, not until five seconds after that. Each worker has one chance to oversleep.
server!(
    a_request_after_idleness_is_watched_from_its_beginning,
    Server::builder()
        .workers(8)
        .args(&["--request-terminate-timeout", "2"]),
    |s| {
        s.php("big.php", BIG);
        s.php("sleep.php", "<?php sleep(4); echo 'slept';");
        let mut warm = 0;
        let mut pids: Vec<String> = Vec::new();
        for round in 0..3 {
            let prefix = s.directory().join(format!("big{round}-"));
            let mut connections: Vec<_> = (0..s.workers()).map(|_| s.connect()).collect();
            for (number, connection) in connections.iter_mut().enumerate() {
                let uri = format!(
                    "/big.php?prefix={}&number={number}&all={}",
                    prefix.display(),
                    s.workers()
                );
                connection.send(&s.request(&uri).encode());
            }
            pids = connections
                .iter_mut()
                .map(|connection| connection.response(1).text())
                .collect();
            pids.sort_unstable();
            pids.dedup();
            warm = pids.iter().map(|pid| resident(pid)).sum();
        }
        let workers = u64::from(s.workers());
        wait_until("the workers to be idle", || {
            pids.iter().map(|pid| resident(pid)).sum::<u64>() + workers * 20 <= warm
        });
        let mut connections: Vec<_> = (0..workers).map(|_| s.connect()).collect();
        for connection in &mut connections {
            connection.send(&s.request("/sleep.php").encode());
        }
        for connection in &mut connections {
            assert_eq!(connection.response(1).status, 504);
        }
    }
);

server!(
    an_answer_that_has_begun_keeps_its_status,
    terminate(1),
    |s| {
        s.php("begun.php", "<?php echo 'first'; flush(); while (true) {}");
        let response = s.get("/begun.php");
        assert_eq!((response.status, response.text().as_str()), (200, "first"));
        timed_out(&s, "begun.php");
    }
);

server!(an_error_handler_does_not_hide_the_504, terminate(1), |s| {
    s.php(
            "handler.php",
            "<?php header('HTTP/1.1 201 Created'); header('Status: 202 Accepted'); header('X-Kept: yes');
             register_shutdown_function(function () {
                 header('HTTP/1.1 500 Internal Server Error'); http_response_code(500);
                 echo 'sorry: ', error_get_last()['message'];
             });
             while (true) {}",
        );
    let response = s.get("/handler.php");
    assert_eq!(response.status, 504, "{response:?}");
    assert_eq!(response.header("X-Kept"), Some("yes"));
    let expected = "sorry: request_terminate_timeout of 0.500 seconds exceeded";
    assert_eq!(response.text(), expected);
});

server!(
    what_runs_after_fastcgi_finish_request_has_no_limit,
    terminate(1),
    |s| {
        let file = s.directory().join("after");
        let source = format!(
            "<?php echo 'answer'; fastcgi_finish_request(); usleep(900000); touch('{}');",
            file.display()
        );
        s.php("finish.php", &source);
        assert_eq!(s.get("/finish.php").text(), "answer");
        assert!(crate::support::holds_within(
            crate::support::DEADLINE,
            || file.exists()
        ));
        s.php(
            "shutdown.php",
            "<?php register_shutdown_function(function () { usleep(900000); echo 'late'; });",
        );
        assert_eq!(s.get("/shutdown.php").text(), "late");
        assert_eq!(s.log().count("timed out"), 0);
    }
);

server!(
    with_track_finished_it_has,
    terminate(1).args(&["--request-terminate-timeout-track-finished"]),
    |s| {
        s.php(
            "finish.php",
            "<?php echo 'answer'; fastcgi_finish_request(); while (true) {}",
        );
        assert_eq!(s.get("/finish.php").text(), "answer");
        timed_out(&s, "finish.php");
        s.php(
            "shutdown.php",
            "<?php register_shutdown_function(function () { while (true) {} });",
        );
        assert_ended(&s.get("/shutdown.php"), "a shutdown function");
        timed_out(&s, "shutdown.php");
    }
);

server!(
    max_execution_time_still_counts_for_itself,
    Server::builder()
        .ini("max_execution_time=1")
        .ini("display_errors=0")
        .ini("log_errors=1")
        .args(&["--request-terminate-timeout", "20"]),
    |s| {
        s.php("loop.php", "<?php while (true) {}");
        let response = s.get("/loop.php");
        assert_eq!(response.status, 500, "{response:?}");
        let errors = response.stderr_text();
        assert!(
            errors.contains("Maximum execution time of 1 second exceeded"),
            "{errors}"
        );
    }
);
