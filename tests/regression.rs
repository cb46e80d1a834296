//! One test for each bug that a review of the FastCGI server found: hangs, spins, and memory without bound.

use std::time::Duration;

use crate::support::client::{Connection, STDIN};
use crate::support::request::record;
use crate::support::server::{Builder, Server};
use crate::support::{holds_within, php, wait_until};

use super::fastcgi::{create, expect_waiting, wait};

const ANSWER: &str = "<?php echo 'answer';";

/// Sleeps, and answers how many milliseconds of processor time its process has used up meanwhile.
const NAP: &str = "<?php
function used() { $u = getrusage(); return ($u['ru_utime.tv_sec'] + $u['ru_stime.tv_sec']) * 1000
    + intdiv($u['ru_utime.tv_usec'] + $u['ru_stime.tv_usec'], 1000); }
$before = used();
touch($_GET['file'] . '.started');
$end = microtime(true) + $_GET['seconds'];
while (($left = $end - microtime(true)) > 0) { usleep((int)($left * 1e6)); }
$used = used() - $before;
file_put_contents($_GET['file'] . '.new', $used);
rename($_GET['file'] . '.new', $_GET['file']);
echo $used;";

/// What a sleeping process may use, generously: one that spins comes to several times this.
const IDLE: u32 = 300;

/// Starts a PUT whose body is still to come, and waits until its script runs. `source` follows the script's start.
fn start_upload(s: &Server, id: u16, source: &str) -> Connection {
    let started = s.directory().join("upload");
    s.php(
        "upload.php",
        &format!("<?php touch($_GET['file'] . '.started'); {source}"),
    );
    let request = s
        .request(&format!("/upload.php?file={}", started.display()))
        .with_id(id)
        .method("PUT")
        .param("CONTENT_LENGTH", "3000000")
        .keep();
    let mut connection = s.connect();
    connection.send(&request.encode_head());
    connection.send(&record(STDIN, id, &[b'x'; 1000]));
    expect_waiting(&started);
    connection
}

server!(a_protocol_error_in_a_body_frees_the_worker, |s| {
    s.php("a.php", ANSWER);
    let mut connection = start_upload(&s, 1, "echo strlen(file_get_contents('php://input'));");
    connection.send(&[9; 16]); // no FastCGI version
    assert_eq!(s.get("/a.php").text(), "answer");
});

server!(a_finished_request_does_not_wait_for_a_body_for_ever, |s| {
    s.php("a.php", ANSWER);
    let read = s.directory().join("read");
    let source = format!(
        "fastcgi_finish_request(); file_put_contents('{}', strlen(file_get_contents('php://input')));",
        read.display()
    );
    let mut connection = start_upload(&s, 1, &source);
    connection.response(1);
    let _ = connection.try_send(&record(STDIN, 1, &[b'x'; 1000]));
    drop(connection);
    assert_eq!(s.get("/a.php").text(), "answer");
    assert!(read.exists());
});

server!(a_get_without_the_end_of_its_input_is_answered, |s| {
    s.php("a.php", ANSWER);
    for _ in 0..3 {
        let mut connection = s.connect();
        connection.send(&s.request("/a.php").encode_head());
        assert_eq!(connection.response(1).text(), "answer");
    }
    let mut connection = s.connect();
    for id in 1..=3 {
        connection.send(&s.request("/a.php").with_id(id).keep().encode_head());
    }
    for _ in 1..=3 {
        assert_eq!(connection.next_response().1.text(), "answer");
    }
});

/// A script that sleeps, its URI, and the file in which it leaves what it answers.
fn nap(s: &Server, seconds: f32) -> (std::path::PathBuf, String) {
    s.php("nap.php", NAP);
    let file = s.directory().join("nap");
    let uri = format!("/nap.php?seconds={seconds}&file={}", file.display());
    (file, uri)
}

fn assert_idle(used: &str) {
    let milliseconds: u32 = used
        .parse()
        .unwrap_or_else(|_| panic!("the script was ended: {used:?}"));
    assert!(milliseconds < IDLE, "{milliseconds} ms of processor time");
}

server!(
    a_request_that_waits_its_turn_costs_the_running_script_no_time,
    Server::builder().workers(2).ini("max_execution_time=1"),
    |s| {
        if php::is_zts() {
            eprintln!("skipped: threads' max_execution_time counts the time that passes");
            return;
        }
        // Here it counts processor time, that of the I/O thread included.
        let (file, uri) = nap(&s, 1.8);
        s.php(
            "count.php",
            "<?php echo strlen(file_get_contents('php://input'));",
        );
        let mut connection = s.connect();
        connection.send(&s.request(&uri).keep().encode());
        expect_waiting(&file);
        let put = s.request("/count.php").with_id(2).method("PUT").keep();
        connection.send(&put.param("CONTENT_LENGTH", "3000000").encode_head());
        connection.send(&record(STDIN, 2, &[b'x'; 1000]));
        assert_idle(&connection.response(1).text());
        connection.send(&record(STDIN, 2, b""));
        assert_eq!(connection.response(2).text(), "1000");
    }
);

server!(
    a_client_that_closes_in_a_running_script_costs_nothing,
    |s| {
        let (file, uri) = nap(&s, 1.2);
        let mut connection = s.connect();
        connection.send(&s.request(&uri).keep().encode());
        expect_waiting(&file);
        drop(connection);
        wait_until("the script ends", || file.exists());
        assert_idle(&std::fs::read_to_string(&file).unwrap());
    }
);

server!(a_graceful_stop_waits_for_its_last_requests_in_peace, |s| {
    s.php("a.php", ANSWER);
    let (file, uri) = nap(&s, 1.2);
    let mut running = s.connect();
    running.send(&s.request(&uri).keep().encode());
    expect_waiting(&file);
    let mut queued = s.connect();
    queued.send(&s.request("/a.php").encode());
    assert!(!queued.is_readable_within(Duration::from_millis(250)));
    s.signal(rustix::process::Signal::QUIT);
    assert_idle(&running.response(1).text());
    assert_eq!(queued.response(1).text(), "answer");
    s.wait_exit();
});

server!(flushed_output_arrives_while_the_script_waits, |s| {
    let (file, _) = wait(&s, "go");
    let source = "<?php while (ob_get_level()) { ob_end_clean(); }
        echo str_repeat('x', 400000); flush(); require __DIR__ . '/wait.php';";
    s.php("big.php", source);
    let mut connection = s.connect();
    connection.send(
        &s.request(&format!("/big.php?file={}", file.display()))
            .encode(),
    );
    expect_waiting(&file); // more is on its way than a socket holds
    while connection.stdout_so_far(1).len() < 400_000 {
        let record = connection.record();
        assert!(connection.collect(&record).is_none());
    }
    create(&file);
    assert_eq!(connection.response(1).body.len(), 400_006);
});

server!(
    a_script_that_logs_goes_no_faster_than_its_client,
    Server::builder().ini("log_errors=1"),
    |s| {
        let done = s.directory().join("done");
        let source = "<?php $before = getrusage()['ru_maxrss']; $line = str_repeat('x', 8000);
            for ($i = 0; $i < 5000; $i++) { error_log($line); }
            touch($_GET['done']);
            echo getrusage()['ru_maxrss'] - $before;";
        s.php("log.php", source);
        let mut connection = s.connect();
        connection.send(
            &s.request(&format!("/log.php?done={}", done.display()))
                .keep()
                .encode(),
        );
        let unread = Duration::from_millis(700);
        assert!(!holds_within(unread, || done.exists()), "5 MB went nowhere");
        let response = connection.response(1);
        // Each message is cut to log_limit, as by php-fpm.
        assert!(response.stderr.len() >= 5000 * 1000);
        let kilobytes: u32 = response.text().parse().unwrap();
        assert!(kilobytes < 16 << 10, "grew by {kilobytes} KiB");
    }
);

server!(
    two_bodies_on_one_connection_are_both_held_back,
    Server::builder().workers(2),
    |s| {
        let (slow, _) = wait(&s, "slow");
        let (deaf, deaf_uri) = wait(&s, "deaf");
        let read = s.directory().join("read");
        // PHP reads bodies in blocks of 16 KiB, and waits until it has a whole one.
        let source = "<?php require __DIR__ . '/wait.php'; $input = fopen('php://input', 'r');
            for ($size = 0; $size < 262144; $size += strlen(fread($input, 8192))) {}
            touch($_GET['read']); $_GET['file'] = $_GET['next']; require __DIR__ . '/wait.php';";
        s.php("slow.php", source);
        let slow_uri = format!(
            "/slow.php?file={}&read={}&next={}",
            slow.display(),
            read.display(),
            deaf.display()
        );
        let mut connection = s.connect();
        for (id, uri) in [(1, &slow_uri), (2, &deaf_uri)] {
            let put = s.request(uri).with_id(id).method("PUT").keep();
            connection.send(&put.param("CONTENT_LENGTH", "2000000000").encode_head());
        }
        expect_waiting(&slow);
        // Up to 256 KiB of each wait for the script; then the connection is not read until there is room again.
        for id in [2, 2, 2, 2, 1, 1, 1, 1] {
            connection.send(&record(STDIN, id, &[b'x'; 65_000]));
        }
        connection.send(&[1, 2].map(|id| record(STDIN, id, &[b'x'; 8000])).concat());
        create(&slow);
        wait_until("the first body is read", || read.exists());
        connection.set_timeout(Duration::from_millis(700)).unwrap();
        let flood = record(STDIN, 2, &[b'x'; 65_000]).repeat(500);
        assert!(
            connection.try_send(&flood).is_err(),
            "32 MB are held for a script that reads none"
        );
        create(&deaf);
    }
);

server!(
    aborted_uploads_do_not_use_up_the_body_buffer,
    Server::builder().args(&["--body-buffer", "1K"]),
    |s| {
        s.php("a.php", ANSWER);
        let upload = || {
            let post = s.request("/a.php").method("POST");
            let mut connection = s.connect();
            connection.send(&post.param("CONTENT_LENGTH", "1000").encode_head());
            connection.send(&record(STDIN, 1, &[b'x'; 900]));
            connection
        };
        for _ in 0..100 {
            drop(upload());
        }
        let mut slow = upload();
        assert!(!slow.is_readable_within(Duration::from_millis(100)));
        assert_eq!(s.get("/a.php").text(), "answer");
        slow.send(&record(STDIN, 1, &[b'x'; 100]));
        slow.send(&record(STDIN, 1, b""));
        assert_eq!(slow.response(1).text(), "answer");
    }
);

/// Threads may not see their OPcache restart, so the generation is replaced: that a script may not ask whether a restart
/// is pending changes nothing.
fn resetting_opcache_replaces_the_generation(builder: Builder) {
    if !php::is_zts() {
        eprintln!("skipped: processes restart OPcache by themselves");
        return;
    }
    let s = builder.workers(2).start();
    s.php("a.php", ANSWER);
    s.php("reset.php", "<?php var_dump(opcache_reset());");
    assert_eq!(s.get("/reset.php").text().trim(), "bool(true)");
    wait_until("the generation is replaced", || {
        assert_eq!(s.get("/a.php").text(), "answer");
        s.log().count("(generation 2) has taken over") > 0
    });
}

#[test]
fn a_reset_is_noticed_where_the_opcache_status_is_disabled() {
    let disabled = Server::builder().ini("disable_functions=opcache_get_status");
    resetting_opcache_replaces_the_generation(disabled);
}

#[test]
fn a_reset_is_noticed_where_the_opcache_api_is_restricted() {
    let restricted = Server::builder().ini("opcache.restrict_api={directory}/www");
    resetting_opcache_replaces_the_generation(restricted);
}

server!(
    a_user_ini_is_not_mixed_up_between_document_roots,
    Server::builder().ini("user_agent=base"),
    |s| {
        s.php("site/inner/a.php", "<?php echo ini_get('user_agent');");
        s.php("site/.user.ini", "user_agent=site\n");
        let inner = s.root().join("site/inner");
        let site = s.root().join("site");
        let ask = |root: &std::path::Path| {
            let request = s.request("/site/inner/a.php");
            s.send(&request.param("DOCUMENT_ROOT", root.to_str().unwrap()))
                .text()
        };
        for _ in 0..2 {
            assert_eq!(ask(&site), "site");
            assert_eq!(ask(&inner), "base");
        }
    }
);

#[test]
fn what_scripts_say_on_standard_error_is_seen_where_the_server_was_started() {
    let s = crate::support::server::Server::builder().start();
    s.php(
        "say.php",
        "<?php file_put_contents('php://stderr', \"raw words\\n\");",
    );
    s.get("/say.php");
    s.expect_log("raw words");
}
