//! Scripts that do not end when the engine asks them to: they wait, or work, where PHP does not look.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{terminate, timed_out};
use crate::support::php::is_zts;
use crate::support::process::Identity;
use crate::support::server::{Builder, Server};
use crate::support::wait_until;

/// Two workers: somebody must serve on.
fn two() -> Builder {
    terminate(2)
        .ini("memory_limit=-1")
        .ini("pcre.jit=0")
        .ini("pcre.backtrack_limit=1000000000000")
}

/// What the server says when a new pool process serves.
const TAKEN_OVER: &str = "has taken over";
/// What it says when it gives up.
const GAVE_UP: &str = "did not end when it was told to (1.000000 sec), ";

/// Runs `source`, which waits in `function`, while other requests go on; only the stubborn one may notice anything.
fn gives_up(s: &Server, source: &str, function: &str) {
    s.php("stubborn.php", &format!("<?php {source}"));
    s.php(
        "short.php",
        "<?php usleep(20000); echo 'right ', $_GET['n'];",
    );
    let successors = s.log().count(TAKEN_OVER);
    let workers: Vec<Identity> = s
        .worker_pids()
        .into_iter()
        .filter_map(Identity::of)
        .collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Idle before, idle meanwhile: whoever owns them.
        let mut idle: Vec<_> = (0..4).map(|_| s.connect()).collect();
        for (n, connection) in idle.iter_mut().enumerate() {
            let response = connection.exchange(&s.request(&format!("/short.php?n={n}")).keep());
            assert_eq!(response.text(), format!("right {n}"));
        }
        let others = scope.spawn(|| {
            let mut connection = s.connect();
            let mut n = 0;
            while !over.load(Ordering::Relaxed) {
                let kept = connection.exchange(&s.request(&format!("/short.php?n={n}")).keep());
                assert_eq!(kept.text(), format!("right {n}"));
                assert_eq!(
                    s.get(&format!("/short.php?n={n}")).text(),
                    format!("right {n}")
                );
                n += 1;
            }
            n
        });
        let begun = Instant::now();
        let response = s.connect().exchange(&s.request("/stubborn.php").keep());
        let took = begun.elapsed();
        over.store(true, Ordering::Relaxed);
        assert_eq!(response.status, 504, "{source}: {response:?}");
        assert_eq!(response.text(), "The script took too long.\n", "{source}");
        assert!(took >= Duration::from_millis(1450), "{source}: {took:?}");
        assert!(others.join().unwrap() > 0);
        for (n, connection) in idle.iter_mut().enumerate() {
            let response = connection.exchange(&s.request(&format!("/short.php?n={n}")).keep());
            assert_eq!(
                response.text(),
                format!("right {n}"),
                "{source}: an idle connection"
            );
        }
    });
    timed_out(s, "stubborn.php");
    s.expect_log(GAVE_UP);
    s.expect_log(&format!("{function}() [internal]"));
    if is_zts() {
        s.expect_log("its thread is lost and the process will be replaced");
        s.log().expect_count(TAKEN_OVER, successors + 1);
        wait_until("the old process ends", || {
            !workers.iter().any(Identity::is_running)
        });
    } else {
        s.expect_log("killing the process");
        s.expect_log("exited on signal 15 (SIGTERM)");
        let running = workers.iter().filter(|worker| worker.is_running()).count();
        assert_eq!(running, 1, "one of {workers:?} was killed");
    }
    assert_eq!(s.log().count("took with it"), 0, "{}", s.log().text());
    for n in 0..4 {
        assert_eq!(
            s.get(&format!("/short.php?n={n}")).text(),
            format!("right {n}")
        );
    }
}

server!(a_blocking_read_from_a_socket, two(), |s| {
    gives_up(
        &s,
        "$server = stream_socket_server('tcp://127.0.0.1:0');
         $client = stream_socket_client('tcp://' . stream_socket_get_name($server, false));
         fread($client, 1);",
        "fread",
    );
});

server!(a_database_that_is_locked, two(), |s| {
    let database = s.directory().join("database");
    gives_up(
        &s,
        &format!(
            "$options = [PDO::ATTR_TIMEOUT => 60];
             $one = new PDO('sqlite:{0}', null, null, $options);
             $one->exec('CREATE TABLE IF NOT EXISTS t (x)');
             $one->exec('BEGIN EXCLUSIVE');
             $two = new PDO('sqlite:{0}', null, null, $options);
             $two->exec('INSERT INTO t VALUES (1)');",
            database.display()
        ),
        "PDO::exec",
    );
});

server!(a_database_server_that_says_nothing, two(), |s| {
    s.php(
        "has.php",
        "<?php echo extension_loaded('redis') ? 'yes' : 'no';",
    );
    if s.get("/has.php").text() == "no" {
        eprintln!("skipped: this PHP has no redis extension");
        return;
    }
    gives_up(
        &s,
        "$server = stream_socket_server('tcp://127.0.0.1:0');
         [$host, $port] = explode(':', stream_socket_get_name($server, false));
         $redis = new Redis(); $redis->connect($host, (int) $port); $redis->ping();",
        "Redis::ping",
    );
});

server!(a_shell_command, two(), |s| {
    gives_up(&s, "shell_exec('sleep 6');", "shell_exec");
});

server!(a_pattern_that_backtracks_for_ever, two(), |s| {
    gives_up(
        &s,
        // Since PHP 8.4 a call by its name has no frame.
        "$match = 'preg_match'; $match('/^(a+)+$/', str_repeat('a', 60) . 'b');",
        "preg_match",
    );
});

server!(a_sort_of_a_huge_array, two(), |s| {
    gives_up(
        &s,
        "$a = array_fill(0, 200000, str_repeat('a', 2000)); sort($a, SORT_NATURAL);",
        "sort",
    );
});

server!(shutdown_functions_are_ended_too, terminate(2), |s| {
    s.php(
        "endless.php",
        "<?php register_shutdown_function(function () { while (true) {} });
         register_shutdown_function(function () { echo 'never'; });
         while (true) {}",
    );
    s.php("pid.php", "<?php echo getmypid();");
    let begun = Instant::now();
    let response = s.get("/endless.php");
    assert_eq!((response.status, response.text().as_str()), (504, ""));
    assert!(
        begun.elapsed() >= Duration::from_secs(5),
        "they have some time"
    );
    assert_eq!(s.log().count(GAVE_UP), 0, "{}", s.log().text());
});

server!(
    who_waits_for_workers_that_are_all_stuck_is_served_by_others,
    two(),
    |s| {
        s.php(
            "stuck.php",
            "<?php ini_set('default_socket_timeout', 600); $pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0); fread($pair[0], 1);",
        );
        s.php(
            "post.php",
            "<?php echo strlen(file_get_contents('php://input'));",
        );
        let mut stuck: Vec<_> = (0..2)
            .map(|_| {
                let mut connection = s.connect();
                connection.send(&s.request("/stuck.php").encode());
                connection
            })
            .collect();
        wait_until("both run", || s.log().count("execution timed out") == 2);
        // While nobody can run them, and some that have a body.
        let mut waiting: Vec<_> = [0, 10, 100_000, 500_000]
            .into_iter()
            .map(|length| {
                let request = s
                    .request("/post.php")
                    .post("text/plain", vec![b'x'; length]);
                let mut connection = s.connect();
                connection.send(&request.keep().encode());
                (length, connection)
            })
            .collect();
        for (length, connection) in &mut waiting {
            assert_eq!(connection.response(1).text(), length.to_string());
        }
        for connection in &mut stuck {
            assert_eq!(connection.response(1).status, 504);
        }
    }
);
