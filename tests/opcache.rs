//! OPcache and APCu: active, shared by all worker processes of a pool, and safe to reset under load.

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::support::client::Connection;
use crate::support::php;
use crate::support::server::Server;

/// Asks every worker at once, so that each must answer one; returns all answers.
fn ask_all(s: &Server, workers: usize, uri: &str) -> Vec<String> {
    let mut connections: Vec<Connection> = (0..workers).map(|_| s.connect()).collect();
    for connection in &mut connections {
        connection.send(&s.request(uri).encode());
    }
    connections
        .iter_mut()
        .map(|connection| connection.response(1).text())
        .collect()
}

server!(opcache_is_active, |s| {
    s.php(
        "status.php",
        "<?php echo json_encode(opcache_get_status(false)['opcache_enabled']);",
    );
    assert_eq!(s.get("/status.php").text(), "true");
});

server!(
    opcache_memory_is_shared_by_all_workers,
    Server::builder()
        .workers(4)
        .ini("opcache.file_update_protection=0"),
    |s| {
        let cached = s.php("cached.php", "<?php echo 'compiled';");
        assert_eq!(s.get("/cached.php").text(), "compiled");
        s.php(
            "who.php",
            &format!(
                "<?php usleep(200000); echo getmypid(), ' ', json_encode(opcache_is_script_cached('{}'));",
                cached.display()
            ),
        );
        let answers = ask_all(&s, 4, "/who.php");
        let pids: HashSet<&str> = answers.iter().filter_map(|a| a.split(' ').next()).collect();
        assert_eq!(pids.len(), if php::is_zts() { 1 } else { 4 }, "{answers:?}");
        assert!(
            answers.iter().all(|answer| answer.ends_with(" true")),
            "{answers:?}"
        );
    }
);

server!(
    apcu_memory_is_shared_by_all_workers,
    Server::builder().workers(4).ini("apc.enabled=1"),
    |s| {
        s.php(
            "store.php",
            "<?php var_dump(apcu_store('key', getmypid()));",
        );
        assert_eq!(s.get("/store.php").text().trim(), "bool(true)");
        s.php(
            "fetch.php",
            "<?php usleep(200000); echo getmypid(), ' ', apcu_fetch('key');",
        );
        let answers = ask_all(&s, 4, "/fetch.php");
        let values: HashSet<&str> = answers.iter().filter_map(|a| a.split(' ').nth(1)).collect();
        assert_eq!(values.len(), 1, "{answers:?}");
        assert_ne!(values.iter().next(), Some(&""));
        let pids: HashSet<&str> = answers.iter().filter_map(|a| a.split(' ').next()).collect();
        assert_eq!(pids.len(), if php::is_zts() { 1 } else { 4 }, "{answers:?}");
    }
);

#[test]
fn preloaded_classes_are_there_in_every_request() {
    let directory = tempfile::tempdir().unwrap();
    let preload = directory.path().join("preload.php");
    std::fs::write(
        &preload,
        "<?php class Preloaded { const WORD = 'preloaded'; } function preloaded() { return Preloaded::WORD; }",
    )
    .unwrap();
    let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
    let s = Server::builder()
        .workers(2)
        .ini(&format!("opcache.preload={}", preload.display()))
        .ini(&format!("opcache.preload_user={user}"))
        .start();
    s.php(
        "use.php",
        "<?php echo preloaded(), json_encode(class_exists('Preloaded', false));",
    );
    for _ in 0..3 {
        assert_eq!(s.get("/use.php").text(), "preloadedtrue");
    }
}

/// Writes scripts that are worth caching, and one that includes them all; returns its right answer.
fn write_scripts(s: &Server, count: usize, values: usize) -> String {
    let mut main = String::from("<?php $all = '';\n");
    let mut expected = String::new();
    for number in 0..count {
        let list: Vec<String> = (0..values)
            .map(|value| (value * number).to_string())
            .collect();
        s.php(
            &format!("part{number}.php"),
            &format!(
                "<?php class Part{number} {{ public $list = [{}]; function word() {{ return 'part {number};'; }} }}",
                list.join(",")
            ),
        );
        writeln!(
            main,
            "require __DIR__ . '/part{number}.php'; $part = new Part{number}; \
             $all .= $part->word() . array_sum($part->list);"
        )
        .unwrap();
        let sum: usize = (0..values).map(|value| value * number).sum();
        write!(expected, "part {number};{sum}").unwrap();
    }
    main.push_str("echo $all;");
    s.php("main.php", &main);
    expected
}

/// For how long to disturb: `FE_PHP_LONG_SECONDS` of `make soak-opcache`, else a few seconds.
fn duration(seconds: u64) -> Duration {
    let long = std::env::var("FE_PHP_LONG_SECONDS");
    let long = long.map(|text| {
        text.parse()
            .expect("FE_PHP_LONG_SECONDS is a number of seconds")
    });
    Duration::from_secs(long.unwrap_or(seconds))
}

/// What the longest script of the load takes by itself.
const LONGEST: Duration = Duration::from_millis(500);

/// By how much a request may take longer than the longest script of the load: other requests run at the same time, and so
/// does the start of the next generation.
const MARGIN: Duration = Duration::from_secs(10);

/// Tells the threads of a load to end.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `main.php` from several kept-alive connections, and one script of half a second, for some time while `disturb` does
/// its worst. Panics if an answer is wrong or missing, or comes later than the longest script takes and [`MARGIN`].
fn under_load(s: &Server, expected: &str, time: Duration, disturb: impl Fn() + Sync) {
    s.php(
        "long.php",
        "<?php usleep(500000); ob_start(); require 'main.php'; echo md5(ob_get_clean());",
    );
    let sum = s.get("/long.php").text();
    let end = Instant::now() + time;
    let stop = AtomicBool::new(false);
    let load = |uri: &str, expected: &str| {
        let mut connection = s.connect();
        let (mut requests, mut longest) = (0_usize, Duration::ZERO);
        while !stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            let response = connection.exchange(&s.request(uri).keep());
            longest = longest.max(started.elapsed());
            requests += 1;
            assert!(
                response.text() == expected && response.stderr.is_empty(),
                "request {requests} of {uri}: {response:?}\n{}",
                s.log().text()
            );
            // Clients that leave no time idle keep everybody else from running, on some kernels for a minute: what starts or ends
            // meanwhile would be late for reasons that are not ours.
            std::thread::sleep(Duration::from_millis(3));
        }
        (requests, longest)
    };
    let (short, long) = std::thread::scope(|scope| {
        let short: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| load("/main.php", expected)))
            .collect();
        let long = scope.spawn(|| load("/long.php", &sum));
        let _stop = StopOnDrop(&stop); // also when `disturb` panics: the scope waits for its threads
        while Instant::now() < end && !short.iter().any(|thread| thread.is_finished()) {
            disturb();
        }
        stop.store(true, Ordering::Relaxed);
        let short: Vec<_> = short
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        (short, long.join().unwrap())
    });
    let requests: usize = short.iter().map(|(requests, _)| requests).sum();
    let longest = short.iter().map(|(_, longest)| *longest).max().unwrap();
    eprintln!(
        "{requests} requests, none wrong, longest {longest:?}; {} of at least 500 ms, longest {:?}; \
         {} generations replaced, {} worker processes crashed",
        long.0,
        long.1,
        s.log().count("has taken over"),
        s.log().count("on signal"),
    );
    assert!(requests > 50);
    assert!(longest.max(long.1) < LONGEST + MARGIN, "a request stalled");
    assert_eq!(s.log().count("on signal"), 0, "{}", s.log().text());
}

server!(
    resetting_opcache_under_load_disturbs_no_request,
    Server::builder()
        .workers(4)
        .ini("opcache.file_update_protection=0"),
    |s| {
        let expected = write_scripts(&s, 40, 100);
        s.php("reset.php", "<?php var_dump(opcache_reset());");
        under_load(&s, &expected, duration(6), || {
            assert!(s.get("/reset.php").text().starts_with("bool("));
            std::thread::sleep(Duration::from_secs(1));
        });
        if php::is_zts() {
            // Threads may not see their OPcache restart: the generation is replaced instead.
            s.expect_log("OPcache restart pending");
            s.expect_log("(generation 2) has taken over");
        }
    }
);

server!(
    running_out_of_opcache_memory_under_load_disturbs_no_request,
    Server::builder()
        .workers(4)
        .ini("opcache.memory_consumption=8")
        .ini("opcache.interned_strings_buffer=1")
        .ini("opcache.file_update_protection=0")
        .ini("opcache.max_wasted_percentage=1")
        .ini("opcache.revalidate_freq=0"),
    |s| {
        let expected = write_scripts(&s, 40, 2000);
        // Scripts that change all the time: each version stays in memory as waste until that is full, and restarts.
        let number = AtomicUsize::new(0);
        let start = SystemTime::now() - Duration::from_secs(1_000_000);
        s.php(
            "status.php",
            "<?php echo opcache_get_status(false)['opcache_statistics']['oom_restarts'];",
        );
        // On a slow machine it takes longer until the memory is full.
        for _ in 0..8 {
            under_load(&s, &expected, duration(6), || {
                let number = number.fetch_add(1, Ordering::Relaxed);
                let name = format!("new{}.php", number % 20);
                let list =
                    vec!["'a string of some length that is not interned'"; 5000].join(".'x',");
                let path = s.php(
                    &name,
                    &format!("<?php $list = [{list}]; echo count($list), ' ', {number};"),
                );
                // OPcache sees a change by the second.
                let modified = start + Duration::from_secs(number as u64);
                let file = std::fs::File::options().write(true).open(path).unwrap();
                file.set_modified(modified).unwrap();
                assert_eq!(s.get(&format!("/{name}")).text(), format!("5000 {number}"));
            });
            let full = if php::is_zts() {
                s.log().text().contains("OPcache restart pending")
            } else {
                s.get("/status.php").text() != "0"
            };
            if full {
                break;
            }
        }
        if php::is_zts() {
            s.expect_log("OPcache restart pending");
            s.expect_log("(generation 2) has taken over");
        } else {
            let restarts = s.get("/status.php").text();
            assert_ne!(restarts, "0", "OPcache was never full");
            eprintln!("OPcache ran out of memory {restarts} times");
        }
    }
);

server!(
    replacing_the_generation_disturbs_no_request,
    Server::builder().workers(3),
    |s| {
        let expected = write_scripts(&s, 3, 10);
        under_load(&s, &expected, duration(7), || {
            s.reload();
            std::thread::sleep(Duration::from_millis(500));
        });
    }
);
