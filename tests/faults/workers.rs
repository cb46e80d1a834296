//! A worker process dies, at various stages of a request: what is lost is what ran in it, and its clients see that at once.

use std::io::ErrorKind;

use rustix::process::Signal;

use super::watch::{Cost, have_all_workers_run, survives, times};
use crate::fastcgi::{create, expect_waiting, wait};
use crate::support::client::{Connection, STDIN};
use crate::support::php;
use crate::support::process::kill;
use crate::support::request::record;
use crate::support::server::Server;

/// Dies of a signal, after `print` bytes of output.
const DIE: &str = "<?php
while (ob_get_level()) { ob_end_clean(); }
if ($_GET['print'] ?? 0) { echo str_repeat('x', $_GET['print']); flush(); }
posix_kill(getmypid(), (int) $_GET['signal']);
sleep(20);";

/// Waits for the end of a connection that is not answered.
fn expect_no_answer(connection: &mut Connection) {
    match connection.try_next_response() {
        Ok(answer) => panic!("{answer:?}, where the connection should end"),
        Err(error) => assert_ne!(
            error.kind(),
            ErrorKind::TimedOut,
            "the client is left hanging"
        ),
    }
}

server!(
    killed_worker_process_takes_only_its_own_requests_along,
    Server::builder().workers(4),
    |s| {
        s.php("die.php", DIE);
        survives(
            &s,
            "a kill in mid-request",
            Cost::WorkerProcesses,
            times(6),
            |n| {
                let signal = if n % 2 == 0 { 9 } else { 11 };
                let mut others: Vec<_> = (0..3)
                    .map(|other| {
                        let (file, uri) = wait(&s, &format!("go-{n}-{other}"));
                        let mut connection = s.connect();
                        connection.send(&s.request(&uri).encode());
                        (file, connection)
                    })
                    .collect();
                others.iter().for_each(|(file, _)| expect_waiting(file));
                let mut dying = s.connect();
                dying.send(&s.request(&format!("/die.php?signal={signal}")).encode());
                expect_no_answer(&mut dying);
                for (file, connection) in &mut others {
                    if php::is_zts() {
                        expect_no_answer(connection); // they ran in the same process
                    } else {
                        create(file);
                        assert_eq!(connection.response(1).text(), "waited");
                    }
                }
            },
        );
        s.expect_log("on signal 9 (SIGKILL)");
        s.expect_log("on signal 11 (SIGSEGV");
    }
);

server!(
    killed_worker_process_ends_its_answer_half_way,
    Server::builder().workers(2),
    |s| {
        s.php("die.php", DIE);
        survives(
            &s,
            "a kill in mid-answer",
            Cost::WorkerProcesses,
            times(10),
            |_| {
                let mut dying = s.connect();
                dying.send(&s.request("/die.php?signal=9&print=100000").keep().encode());
                expect_no_answer(&mut dying);
                assert!(
                    dying.stdout_so_far(1).len() >= 100_000,
                    "flushed output is lost"
                );
            },
        );
    }
);

server!(
    killed_worker_process_ends_an_upload,
    Server::builder().workers(2).ini("post_max_size=0"),
    |s| {
        s.php("die.php", DIE);
        survives(
            &s,
            "a kill during an upload",
            Cost::WorkerProcesses,
            times(10),
            |_| {
                let put = s.request("/die.php?signal=9").method("PUT");
                let mut dying = s.connect();
                dying.send(&put.param("CONTENT_LENGTH", "50000000").encode_head());
                let piece = record(STDIN, 1, &[b'x'; 60_000]);
                // Sends until there is nobody who takes it: far less than all.
                let sent = (0..800)
                    .take_while(|_| dying.try_send(&piece).is_ok())
                    .count();
                assert!(sent < 800, "48 MB went to a dead process");
                expect_no_answer(&mut dying);
            },
        );
    }
);

server!(
    killed_idle_worker_process_costs_only_its_own_connections,
    Server::builder().workers(4),
    |s| {
        s.php("pid.php", "<?php echo getmypid();");
        survives(
            &s,
            "a kill between requests",
            Cost::WorkerProcesses,
            times(5),
            |_| {
                have_all_workers_run(&s); // so that there are connections to each
                let mut connections: Vec<(Connection, i32)> = (0..16)
                    .map(|_| {
                        let mut connection = s.connect();
                        let pid = connection.exchange(&s.request("/pid.php").keep());
                        (connection, pid.text().parse().unwrap())
                    })
                    .collect();
                let victim = connections[0].1;
                kill(victim, Signal::KILL);
                for (connection, pid) in &mut connections {
                    if *pid == victim {
                        connection.expect_close();
                    } else {
                        let answer = connection.exchange(&s.request("/pid.php").keep());
                        assert_ne!(answer.text(), victim.to_string());
                    }
                }
            },
        );
    }
);

server!(
    all_worker_processes_may_die_at_once,
    Server::builder().workers(4),
    |s| {
        survives(
            &s,
            "a kill of all workers",
            Cost::WorkerProcesses,
            times(5),
            |_| {
                have_all_workers_run(&s); // one that has served was fit to live, and is replaced at once
                s.worker_pids()
                    .into_iter()
                    .for_each(|pid| kill(pid, Signal::KILL));
            },
        );
    }
);
