//! The library from a program's point of view. PHP starts once in a process, so this is one program with a list of
//! claims rather than a set of test functions that would each want a PHP of their own.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use fe_php::{Php, PhpError, Request};
use tempfile::TempDir;

struct World {
    php: Php,
    directory: TempDir,
}

impl World {
    fn script(&self, name: &str, source: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, format!("<?php {source}")).unwrap();
        path
    }
}

type Claim = (&'static str, fn(&World));

const CLAIMS: &[Claim] = &[
    ("a_script_sees_its_request", a_script_sees_its_request),
    ("status_and_headers_arrive", status_and_headers_arrive),
    ("several_threads_call_at_once", several_threads_call_at_once),
    (
        "workers_run_side_by_side_on_zts",
        workers_run_side_by_side_on_zts,
    ),
    (
        "a_missing_script_is_an_error_value",
        a_missing_script_is_an_error_value,
    ),
    (
        "a_fatal_error_is_an_error_value",
        a_fatal_error_is_an_error_value,
    ),
    (
        "a_second_engine_is_an_error_value",
        a_second_engine_is_an_error_value,
    ),
    (
        "a_malformed_header_is_an_error_value",
        a_malformed_header_is_an_error_value,
    ),
    (
        "a_panicking_body_is_an_error_value",
        a_panicking_body_is_an_error_value,
    ),
    (
        "an_endless_loop_ends_at_max_execution_time",
        an_endless_loop_ends_at_max_execution_time,
    ),
    (
        "endless_recursion_is_an_error_value",
        endless_recursion_is_an_error_value,
    ),
    ("a_body_is_read_from_a_reader", a_body_is_read_from_a_reader),
    (
        "a_response_streams_while_the_script_runs",
        a_response_streams_while_the_script_runs,
    ),
    (
        "a_dropped_response_aborts_the_script",
        a_dropped_response_aborts_the_script,
    ),
    (
        "finished_requests_go_on_without_their_caller",
        finished_requests_go_on_without_their_caller,
    ),
    (
        "async_callers_stream_both_ways",
        async_callers_stream_both_ways,
    ),
    ("ini_settings_are_in_force", ini_settings_are_in_force),
    (
        "nothing_is_left_for_the_next_request",
        nothing_is_left_for_the_next_request,
    ),
];

fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let php = Php::builder()
        .workers(3)
        .ini("memory_limit", "64M")
        .ini("max_execution_time", "2")
        .ini("output_buffering", "0")
        .ini("display_errors", "0")
        .ini("log_errors", "1")
        .ini("error_log", "")
        .start()
        .unwrap();
    let world = World { php, directory };
    println!(
        "\nrunning {} tests",
        CLAIMS.len() + usize::from(filters.is_empty())
    );
    let (mut passed, mut failed, mut left_out) = (0, 0, 0);
    for (name, claim) in CLAIMS {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            left_out += 1;
            continue;
        }
        let holds = catch_unwind(AssertUnwindSafe(|| claim(&world))).is_ok();
        println!("test {name} ... {}", if holds { "ok" } else { "FAILED" });
        if holds {
            passed += 1;
        } else {
            failed += 1;
        }
    }
    if filters.is_empty() {
        // Ends PHP, so it comes last; should it hang, this program is ended.
        end_php_under_a_live_response(world);
        println!("test the_last_php_may_go_before_a_response ... ok");
        passed += 1;
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {left_out} filtered out"
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The response of a script that never ends outlives the last `Php` handle, and is still read; then PHP ends.
fn end_php_under_a_live_response(world: World) {
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if is_done.recv_timeout(Duration::from_secs(20)) == Err(RecvTimeoutError::Timeout) {
            println!("test the_last_php_may_go_before_a_response ... FAILED: it hangs");
            std::process::abort();
        }
    });
    let script = world.script(
        "endless.php",
        "while (true) { echo str_repeat('x', 10000); flush(); }",
    );
    let mut response = world.php.stream(Request::new(script)).unwrap();
    drop(world);
    let mut piece = vec![0; 1_000_000];
    response.read_exact(&mut piece).unwrap();
    drop(response);
    drop(done);
    watchdog.join().unwrap();
}

fn a_script_sees_its_request(w: &World) {
    let script = w.script(
        "see.php",
        "echo json_encode([$_SERVER['REQUEST_METHOD'], $_GET, $_POST, $_COOKIE, $_SERVER['HTTP_X_OWN'], $_SERVER['MINE']]);",
    );
    let request = Request::new(script)
        .method("POST")
        .query("a=1&b[]=2")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("Cookie", "c=3")
        .header("X-Own", "own")
        .variable("MINE", "mine")
        .body("d=4");
    let response = w.php.execute(request).unwrap();
    assert_eq!(
        String::from_utf8_lossy(response.body()),
        r#"["POST",{"a":"1","b":["2"]},{"d":"4"},{"c":"3"},"own","mine"]"#
    );
}

fn status_and_headers_arrive(w: &World) {
    let script = w.script(
        "head.php",
        "http_response_code(418); header('X-A: 1'); header('X-A: 2', false); echo 'tea';",
    );
    let response = w.php.execute(Request::new(script)).unwrap();
    assert_eq!(response.status(), 418);
    let values: Vec<&[u8]> = response
        .headers()
        .filter(|(name, _)| *name == "X-A")
        .map(|(_, value)| value)
        .collect();
    assert_eq!(values, [b"1", b"2"]);
    assert_eq!(
        response.header("content-type"),
        Some(&b"text/html; charset=UTF-8"[..])
    );
    assert_eq!(response.into_body(), b"tea");
}

fn several_threads_call_at_once(w: &World) {
    let script = w.script("square.php", "echo $_GET['n'] ** 2;");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let script = &script;
            scope.spawn(move || {
                for round in 0..50 {
                    let n = thread * 100 + round;
                    let response = w
                        .php
                        .execute(Request::new(script).query(format!("n={n}")))
                        .unwrap();
                    assert_eq!(
                        String::from_utf8_lossy(response.body()),
                        (n * n).to_string()
                    );
                }
            });
        }
    });
}

fn workers_run_side_by_side_on_zts(w: &World) {
    assert_eq!(w.php.workers(), if Php::is_zts() { 3 } else { 1 });
    let script = w.script("wait.php", "usleep(300000); echo 'waited';");
    let start = Instant::now();
    let barrier = Barrier::new(3);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                barrier.wait();
                assert_eq!(
                    w.php.execute(Request::new(&script)).unwrap().body(),
                    b"waited"
                );
            });
        }
    });
    let one_by_one = Duration::from_millis(900);
    assert_eq!(
        start.elapsed() < one_by_one,
        Php::is_zts(),
        "{:?}",
        start.elapsed()
    );
}

fn a_missing_script_is_an_error_value(w: &World) {
    let missing = w.directory.path().join("missing.php");
    let error = w.php.execute(Request::new(&missing)).unwrap_err();
    assert!(
        matches!(&error, PhpError::ScriptNotFound { path, .. } if *path == missing),
        "{error:?}"
    );
    assert!(error.to_string().contains("missing.php"));
    let directory = w.php.execute(Request::new(w.directory.path())).unwrap_err();
    assert!(matches!(directory, PhpError::ScriptNotFound { .. }));
}

fn a_fatal_error_is_an_error_value(w: &World) {
    let script = w.script(
        "fatal.php",
        "header('X-A: 1'); throw new RuntimeException('told you');",
    );
    match w.php.execute(Request::new(script)) {
        Err(PhpError::Fatal { errors, response }) => {
            assert!(
                errors.contains("Uncaught RuntimeException: told you"),
                "{errors}"
            );
            assert_eq!(response.status(), 500);
            assert_eq!(response.header("X-A"), Some(&b"1"[..]));
        }
        other => panic!("{other:?}"),
    }
    let script = w.script("syntax.php", "this is not PHP");
    assert!(matches!(
        w.php.execute(Request::new(script)),
        Err(PhpError::Fatal { .. })
    ));
    let script = w.script("fine.php", "echo 'fine';");
    assert_eq!(w.php.execute(Request::new(script)).unwrap().body(), b"fine");
}

fn a_second_engine_is_an_error_value(_: &World) {
    assert!(matches!(
        Php::builder().start(),
        Err(PhpError::AlreadyStarted)
    ));
}

fn a_malformed_header_is_an_error_value(w: &World) {
    let script = w.script("any.php", "echo 1;");
    let request = Request::new(script).header("X-A", "1\r\nX-B: 2");
    assert!(matches!(
        w.php.execute(request),
        Err(PhpError::Malformed { .. })
    ));
}

fn a_panicking_body_is_an_error_value(w: &World) {
    struct Panics;
    impl Read for Panics {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            panic!("no body for you")
        }
    }
    let script = w.script("body.php", "echo strlen(file_get_contents('php://input'));");
    let request = Request::new(script).method("POST").body_reader(Panics);
    match w.php.execute(request) {
        Err(PhpError::Interrupted { reason }) => {
            assert!(reason.contains("no body for you"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

fn an_endless_loop_ends_at_max_execution_time(w: &World) {
    let script = w.script("endless.php", "while (true) {}");
    match w.php.execute(Request::new(script)) {
        Err(PhpError::Fatal { .. }) => {}
        other => panic!("{other:?}"),
    }
}

fn endless_recursion_is_an_error_value(w: &World) {
    let script = w.script("deep.php", "function f($n) { return f($n + 1) + 1; } f(1);");
    assert!(matches!(
        w.php.execute(Request::new(script)),
        Err(PhpError::Fatal { .. })
    ));
}

fn a_body_is_read_from_a_reader(w: &World) {
    let script = w.script(
        "count.php",
        "echo strlen(file_get_contents('php://input'));",
    );
    let body = Cursor::new(vec![b'x'; 3_000_000]);
    let request = Request::new(script).method("PUT").body_reader(body);
    assert_eq!(w.php.execute(request).unwrap().body(), b"3000000");
}

fn a_response_streams_while_the_script_runs(w: &World) {
    let gate = w.directory.path().join("gate");
    let script = w.script(
        "stream.php",
        "echo 'first'; flush(); while (!file_exists($_GET['gate'])) { usleep(1000); clearstatcache(); } echo 'second';",
    );
    let request = Request::new(script).query(format!("gate={}", gate.display()));
    let mut response = w.php.stream(request).unwrap();
    assert_eq!(response.head().status(), 200);
    assert_eq!(response.blocking_chunk().unwrap().unwrap(), &b"first"[..]);
    std::fs::write(&gate, "").unwrap();
    let mut rest = String::new();
    response.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "second");
}

fn a_dropped_response_aborts_the_script(w: &World) {
    let gone = w.directory.path().join("gone");
    let script = w.script(
        "abort.php",
        "register_shutdown_function(fn() => file_put_contents($_GET['gone'], connection_status()));
         while (true) { echo 'x'; flush(); usleep(1000); }",
    );
    let request = Request::new(script).query(format!("gone={}", gone.display()));
    drop(w.php.stream(request).unwrap());
    let end = Instant::now() + Duration::from_secs(20);
    while std::fs::read_to_string(&gone).unwrap_or_default() != "1" {
        assert!(Instant::now() < end, "the script was not told");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn finished_requests_go_on_without_their_caller(w: &World) {
    let script = w.script(
        "finish.php",
        "echo 'all'; fastcgi_finish_request(); echo 'too late';",
    );
    assert_eq!(w.php.execute(Request::new(script)).unwrap().body(), b"all");
}

fn async_callers_stream_both_ways(w: &World) {
    let script = w.script(
        "upper.php",
        "$in = fopen('php://input', 'r'); while (($line = fgets($in)) !== false) { echo strtoupper($line); flush(); }",
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (request, body) = Request::new(&script)
            .method("POST")
            .header("Content-Type", "text/plain")
            .body_channel();
        let sender = tokio::spawn(async move {
            for line in ["one\n", "two\n", "three\n"] {
                assert!(body.send(line).await);
            }
        });
        let mut response = w.php.stream_async(request).await.unwrap();
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.unwrap() {
            text.extend_from_slice(&chunk);
        }
        sender.await.unwrap();
        assert_eq!(text, b"ONE\nTWO\nTHREE\n");
        let fine = w.script("fine.php", "echo 'fine';");
        assert_eq!(
            w.php
                .execute_async(Request::new(fine))
                .await
                .unwrap()
                .body(),
            b"fine"
        );
    });
}

fn ini_settings_are_in_force(w: &World) {
    let script = w.script(
        "ini.php",
        "echo ini_get('memory_limit'), PHP_VERSION, (int) PHP_ZTS;",
    );
    let expected = format!("64M{}{}", Php::version(), i32::from(Php::is_zts()));
    assert_eq!(
        String::from_utf8_lossy(w.php.execute(Request::new(script)).unwrap().body()),
        expected
    );
}

fn nothing_is_left_for_the_next_request(w: &World) {
    let leave = w.script("leave.php", "$GLOBALS['x'] = 1; define('LEFT', 1); putenv('LEFT=1'); ini_set('precision', 3); chdir('/');");
    let look = w.script(
        "look.php",
        "echo json_encode([isset($GLOBALS['x']), defined('LEFT'), getenv('LEFT'), ini_get('precision'), getcwd()]);",
    );
    let expected = format!(
        r#"[false,false,false,"14","{}"]"#,
        w.directory.path().display().to_string().replace('/', "\\/")
    );
    for _ in 0..6 {
        w.php.execute(Request::new(&leave)).unwrap();
        assert_eq!(
            String::from_utf8_lossy(w.php.execute(Request::new(&look)).unwrap().body()),
            expected
        );
    }
}
