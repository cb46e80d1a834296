//! Descriptors: scripts that close what is not theirs or take all there are, and a server that runs out of them.

use std::process::Command;

use rustix::process::getuid;

use super::watch::{Cost, Watch, survives, times};
use crate::fastcgi::{create, expect_waiting, wait};
use crate::fpm::config::open_up;
use crate::fpm::status::json;
use crate::support::client::Connection;
use crate::support::configured::Configured;
use crate::support::php;
use crate::support::process::Identity;
use crate::support::server::Server;
use crate::support::wait_until;

/// What a PHP script can do without FFI: PHP refuses `php://fd`, and gives out copies of 0 to 2 only.
const CLOSE_COPIES: &str = r#"<?php
for ($i = 0; $i < 3; $i++) {
    foreach (['php://stdin', 'php://stdout', 'php://stderr', 'php://output', 'php://input'] as $name) {
        fclose(fopen($name, $name == 'php://stdin' || $name == 'php://input' ? 'r' : 'w'));
    }
}
for ($i = 0; $i <= 10; $i++) {
    if (@fopen("php://fd/$i", 'r')) { exit("php://fd/$i is open to scripts"); }
}
foreach (['STDIN', 'STDOUT', 'STDERR'] as $name) { if (defined($name)) { exit("$name is defined"); } }
foreach (get_resources('stream') as $stream) {
    try { fclose($stream); } catch (TypeError) {} // the script's own file
}
echo 'closed';"#;

/// And with it. The script then uses the numbers for files of its own, and leaves them open.
const CLOSE_BY_FFI: &str = r#"<?php
$c = FFI::cdef('int close(int); int open(const char *, int, int);');
for ($i = 0; $i <= 10; $i++) { $c->close($i); }
if ($_GET['reuse']) {
    for ($i = 0; $i <= 10; $i++) { $c->open($_GET['file'], 0102, 0600); }
}
echo 'closed';"#;

server!(
    scripts_may_close_all_descriptors_they_get,
    Server::builder().workers(2),
    |s| {
        s.php("close.php", CLOSE_COPIES);
        survives(&s, "a script that closes", Cost::Request, times(10), |_| {
            assert_eq!(s.get("/close.php").text(), "closed");
        });
    }
);

server!(
    a_script_that_closes_0_to_10_disturbs_no_request,
    Server::builder()
        .workers(2)
        .ini("ffi.enable=1")
        .ini("session.save_path={directory}"),
    |s| {
        s.php(
            "ffi.php",
            "<?php echo json_encode(extension_loaded('ffi'));",
        );
        if s.get("/ffi.php").text() != "true" {
            eprintln!("skipped: this PHP has no FFI");
            return;
        }
        s.php("close.php", CLOSE_BY_FFI);
        s.php("include.php", "<?php return 'included';");
        s.php(
            "all.php",
            "<?php session_start(); $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; error_log('logged');
            $t = tmpfile(); fwrite($t, 'written'); rewind($t);
            echo include 'include.php', ' ', fread($t, 10), ' ', file_get_contents('php://input');",
        );
        let file = s.directory().join("theirs");
        let mut watch = Watch::start(&s);
        for reuse in [0, 1] {
            let uri = format!("/close.php?reuse={reuse}&file={}", file.display());
            for _ in 0..times(6) {
                assert_eq!(s.get(&uri).text(), "closed");
                let post = s.request("/all.php").form("posted");
                let response = s.send(&post.header("Cookie", "PHPSESSID=faults"));
                assert_eq!(response.text(), "included written posted", "{response:?}");
                watch.answers("a script that closes 0 to 10", Cost::Request);
            }
        }
        // The server's own log goes where it went before, not into what the script opened as 2.
        s.connect().send(&[9; 16]);
        let line = s.expect_log("sent what it must not");
        assert!(
            line.contains("WARNING: [pool www] a FastCGI client "),
            "{line}"
        );
        let theirs = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(!theirs.contains("WARNING"), "{theirs}");
        s.reload();
        watch.answers("a reload after that", Cost::WorkerProcesses);
    }
);

/// Opens until there are no more descriptors; then waits until it is told to go on.
const OPEN_ALL: &str = "<?php
while (($f = @fopen('/dev/null', 'r'))) { $files[] = $f; }
$reason = error_get_last()['message'];
array_pop($files); // touch() needs one
touch($_GET['file'] . '.started');
$end = microtime(true) + 20;
while (!file_exists($_GET['file']) && microtime(true) < $end) { usleep(1000); clearstatcache(); }
echo count($files), ' ', $reason;";

server!(
    a_script_that_opens_all_descriptors_disturbs_no_later_request,
    Server::builder().workers(2).limit("-n 1000"),
    |s| {
        s.php("open.php", OPEN_ALL);
        survives(
            &s,
            "a script that opened all",
            Cost::Request,
            times(6),
            |n| {
                let file = s.directory().join(format!("go{n}"));
                let mut greedy = s.connect();
                greedy.send(
                    &s.request(&format!("/open.php?file={}", file.display()))
                        .encode(),
                );
                expect_waiting(&file);
                let mut late: Vec<Connection> = (0..5).map(|_| s.connect()).collect();
                for connection in &mut late {
                    connection.send(&s.request("/right.php?n=1").encode());
                }
                if !php::is_zts() {
                    // The other process has its own; threads share theirs.
                    for connection in &mut late {
                        assert_eq!(connection.response(1).text(), "right 1 ");
                    }
                    late.clear();
                }
                create(&file);
                let answer = greedy.response(1).text();
                assert!(answer.ends_with("Too many open files"), "{answer}");
                for connection in &mut late {
                    let response = connection.response(1);
                    // One that ran at the same time found no descriptor to open its script with.
                    assert!(
                        response.text() == "right 1 " || response.status == 404,
                        "{response:?}"
                    );
                }
            },
        );
    }
);

/// Processor time of a process so far, in clock ticks.
fn ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap().split_ascii_whitespace();
    fields
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum()
}

/// Takes out the connections that are answered.
fn take_answered(connections: &mut Vec<Connection>) -> Vec<Connection> {
    let (mut answered, waiting): (Vec<_>, _) = std::mem::take(connections)
        .into_iter()
        .partition(Connection::has_input);
    *connections = waiting;
    for connection in &mut answered {
        assert_eq!(connection.response(1).text(), "included written");
    }
    answered
}

server!(
    connections_beyond_the_descriptor_limit_wait,
    Server::builder().workers(2).limit("-n 200"),
    |s| {
        s.php("include.php", "<?php return 'included';");
        s.php(
            "open.php",
            "<?php $t = tmpfile(); fwrite($t, 'written'); rewind($t); echo include 'include.php', ' ', fread($t, 10);",
        );
        let mut watch = Watch::start(&s);
        let memory = watch.memory();
        for _ in 0..times(1) {
            // More than all processes together can hold.
            let mut connections: Vec<Connection> = (0..500).map(|_| s.connect()).collect();
            for connection in &mut connections {
                connection.send(&s.request("/open.php").keep().encode());
            }
            s.expect_log("raise the limit of open files");
            // Those that are in are answered, and right: scripts still have descriptors to open files.
            let mut inside = Vec::new();
            wait_until("those that are in are answered", || {
                inside.extend(take_answered(&mut connections));
                inside.len() >= 40
            });
            // Nobody spins while the others wait.
            let used = || s.worker_pids().into_iter().map(ticks).sum::<u64>();
            let before = used();
            std::thread::sleep(std::time::Duration::from_secs(1));
            let spent = used() - before;
            assert!(
                spent < 30,
                "{spent} of 100 ticks of a second were spent on waiting"
            );
            // As some close, others get in.
            drop(inside);
            wait_until("all others are answered", || {
                take_answered(&mut connections);
                connections.is_empty()
            });
        }
        watch.answers("a lack of descriptors", Cost::Request);
        watch.settled("a lack of descriptors");
        watch.has_not_grown("a lack of descriptors", memory);
        let lines = s.log().count("raise the limit of open files");
        assert!(lines <= 2, "{lines} lines in the log say so");
    }
);

/// What waits at a busy process has its descriptor already, so a script that takes all that are left costs it nothing: it is refused
/// when its time has come, and waits no more.
#[test]
fn a_request_that_waits_while_a_script_has_all_descriptors_is_refused_in_time() {
    let lines = "pm = static\npm.max_children = 1\nrlimit_files = 200\npm.queue_timeout = 2s\npm.status_path = /status\n\
                 pm.status_listen = {dir}/status.sock";
    let server = Configured::builder(&Configured::pool("www", lines)).start();
    server.php("right.php", "<?php echo 'right';");
    server.php(
        "open.php",
        "<?php
        function wait($name) {
            for ($end = microtime(true) + 15; !file_exists($name) && microtime(true) < $end; usleep(2000)) { clearstatcache(); }
        }
        wait('open');
        while ($f = @fopen('/dev/null', 'r')) { $files[] = $f; }
        wait('close');
        echo count($files) > 50 ? 'opened' : 'not opened';",
    );
    let queue = |number: u64| {
        wait_until(&format!("{number} to wait"), || {
            json(&server, "status", "/status")["listen queue"] == number
        });
    };
    let send = |script: &str| {
        let mut connection = server.connect("www");
        connection.send(&server.request(script).encode());
        connection
    };
    let mut busy = send("/open.php");
    wait_until("the script to run", || {
        json(&server, "status", "/status")["active processes"] == 1
    });
    let mut waiting = send("/right.php");
    queue(1);
    create(&server.files().path("www/open"));
    assert_eq!(waiting.response(1).status, 503);
    queue(0);
    create(&server.files().path("www/close"));
    assert_eq!(busy.response(1).text(), "opened");
    assert_eq!(server.get("www", "/right.php").text(), "right");
    queue(0);
}

/// The kernel lets an ordinary user have only so many descriptors on their way between processes as a process of his may open:
/// requests wait where they are, and only go to another process when it can run them.
#[test]
fn more_requests_than_may_be_passed_on_can_wait() {
    let user = if getuid().is_root() {
        "user = www-data\ngroup = www-data"
    } else {
        ""
    };
    let config = format!(
        "[www]\nlisten = {{dir}}/www.sock\nlisten.mode = 0666\n{user}\npm = static\npm.max_children = 2\nrlimit_files = 200"
    );
    let server = Configured::builder(&config).start();
    open_up(server.files().directory(), 0o755);
    let go = server.files().path("www/go");
    server.php(
        "wait.php",
        "<?php for ($end = microtime(true) + 15; !file_exists('go') && microtime(true) < $end; usleep(2000)) { clearstatcache(); }
         echo 'waited';",
    );
    let connect = |_| {
        let mut connection = server.connect("www");
        connection.send(&server.request("/wait.php").encode());
        connection
    };
    let mut connections: Vec<Connection> = (0..400).map(connect).collect();
    create(&go);
    for connection in &mut connections {
        assert_eq!(connection.response(1).text(), "waited");
    }
    assert_eq!(server.log().count("connections can be passed on"), 0);
}

#[test]
fn a_server_that_is_started_without_standard_descriptors_serves() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("sock");
    let script = directory.path().join("a.php");
    std::fs::write(&script, "<?php error_log('logged'); echo 'answer';").unwrap();
    let mut child = Command::new("/bin/sh")
        .args(["-c", "exec \"$0\" fpm -l \"$1\" -w 2 -n <&- >&- 2>&-"])
        .args([env!("CARGO_BIN_EXE_fe-php"), socket.to_str().unwrap()])
        .spawn()
        .unwrap();
    let address = crate::support::client::Address::Unix(socket);
    let mut connection = None;
    wait_until("the server listens", || {
        connection = Connection::try_open(&address).ok();
        connection.is_some()
    });
    let mut connection = connection.unwrap();
    let request = crate::support::client::Request::get(directory.path(), "/a.php").keep();
    for _ in 0..10 {
        assert_eq!(connection.exchange(&request).text(), "answer");
    }
    let server = Identity::of(i32::try_from(child.id()).unwrap()).unwrap();
    crate::support::process::kill(server.pid, rustix::process::Signal::TERM);
    wait_until("the server has ended", || {
        child.try_wait().unwrap().is_some()
    });
}

server!(
    idle_descriptors_are_not_used_up_by_waiting_scripts,
    Server::builder().workers(2).limit("-n 100"),
    |s| {
        // Connections come and go while a script runs: the helper thread's work, with few numbers to spare.
        let (file, uri) = wait(&s, "go");
        survives(
            &s,
            "many connections beside a script",
            Cost::Request,
            times(1),
            |n| {
                let file = file.with_file_name(format!("go{n}"));
                let mut busy = s.connect();
                busy.send(&s.request(&uri.replace("/go", &format!("/go{n}"))).encode());
                expect_waiting(&file);
                for number in 0..300 {
                    let uri = format!("/right.php?n={number}");
                    assert_eq!(s.get(&uri).text(), format!("right {number} "));
                }
                create(&file);
                assert_eq!(busy.response(1).text(), "waited");
            },
        );
    }
);
