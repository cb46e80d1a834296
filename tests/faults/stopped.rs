//! A worker process that is stopped (SIGSTOP, a debugger, a hung disk): what it has waits for it, all else goes on.

use std::time::Duration;

use rustix::process::Signal;

use super::watch::{Cost, Watch, have_all_workers_run, times};
use crate::fastcgi::{create, expect_waiting, wait};
use crate::support::client::Connection;
use crate::support::php;
use crate::support::process::{Identity, kill};
use crate::support::server::Server;
use crate::support::wait_until;

/// Kept connections with the process that has each.
fn kept(s: &Server, count: usize) -> Vec<(Connection, i32)> {
    s.php("pid.php", "<?php echo getmypid();");
    have_all_workers_run(s);
    (0..count)
        .map(|_| {
            let mut connection = s.connect();
            let pid = connection.exchange(&s.request("/pid.php").keep()).text();
            (connection, pid.parse().unwrap())
        })
        .collect()
}

fn is_stopped(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('T'))
    })
}

fn stop(pid: i32) {
    kill(pid, Signal::STOP);
    wait_until("the process is stopped", || is_stopped(pid));
}

server!(
    a_stopped_worker_process_holds_up_only_its_own_connections,
    Server::builder().workers(4),
    |s| {
        let mut watch = Watch::start(&s);
        for _ in 0..times(3) {
            let mut connections = kept(&s, 16);
            let victim = connections[0].1;
            stop(victim);
            if !php::is_zts() {
                // New connections never wait for it, and others' connections neither.
                for _ in 0..100 {
                    assert_ne!(s.get("/pid.php").text(), victim.to_string());
                }
                for (connection, _) in connections.iter_mut().filter(|(_, pid)| *pid != victim) {
                    assert_ne!(
                        connection.exchange(&s.request("/pid.php").keep()).text(),
                        victim.to_string()
                    );
                }
            }
            let theirs = connections.iter_mut().filter(|(_, pid)| *pid == victim);
            let mut theirs: Vec<&mut Connection> =
                theirs.map(|(connection, _)| connection).collect();
            for connection in &mut theirs {
                connection.send(&s.request("/pid.php").keep().encode());
            }
            assert!(
                !theirs[0].is_readable_within(Duration::from_millis(50)),
                "a stopped process answers"
            );
            kill(victim, Signal::CONT);
            for connection in theirs {
                assert_ne!(connection.response(1).text(), "");
            }
            watch.answers("a stop", Cost::Request);
        }
        watch.settled("stops");
    }
);

server!(
    requests_go_on_while_all_but_one_worker_process_is_stopped,
    Server::builder().workers(4),
    |s| {
        if php::is_zts() {
            eprintln!("skipped: the threads are one process");
            return;
        }
        let mut watch = Watch::start(&s);
        // One is stopped in a script, two while they are idle.
        let (file, _) = wait(&s, "go");
        let source = "<?php file_put_contents($_GET['file'] . '.pid', getmypid()); require __DIR__ . '/wait.php';";
        s.php("slow.php", source);
        let mut slow = s.connect();
        slow.send(
            &s.request(&format!("/slow.php?file={}", file.display()))
                .encode(),
        );
        expect_waiting(&file);
        let text = std::fs::read_to_string(file.with_extension("pid")).unwrap();
        let running: i32 = text.parse().unwrap();
        let idle: Vec<i32> = s
            .worker_pids()
            .into_iter()
            .filter(|pid| *pid != running)
            .collect();
        let stopped = [running, idle[0], idle[1]];
        stopped.into_iter().for_each(stop);
        s.php("pid.php", "<?php echo getmypid();");
        for _ in 0..100 {
            assert_eq!(s.get("/pid.php").text(), idle[2].to_string());
        }
        create(&file);
        stopped.into_iter().for_each(|pid| kill(pid, Signal::CONT));
        assert_eq!(slow.response(1).text(), "waited");
        watch.answers("stops", Cost::Request);
        drop(slow);
        watch.settled("stops");
    }
);

server!(
    a_stopped_worker_process_does_not_hold_up_the_end,
    Server::builder().workers(2),
    |s| {
        let all = s.descendants();
        stop(s.worker_pids()[0]);
        s.signal(Signal::TERM);
        assert_eq!(s.wait_exit().code(), Some(0));
        wait_until("every process is gone", || {
            !all.iter().any(Identity::is_running)
        });
    }
);

server!(
    a_stopped_worker_process_does_not_hold_up_a_reload,
    Server::builder().workers(2),
    |s| {
        let mut connections = kept(&s, 8);
        let victim = connections[0].1;
        stop(victim);
        s.reload();
        for _ in 0..10 {
            assert_ne!(s.get("/pid.php").text(), victim.to_string());
        }
        // What it has it hands over when it goes on.
        kill(victim, Signal::CONT);
        for (connection, _) in &mut connections {
            let pid = connection.exchange(&s.request("/pid.php").keep()).text();
            assert_ne!(pid, victim.to_string());
        }
        wait_until("the old generation is gone", || {
            Identity::of(victim).is_none()
        });
    }
);
