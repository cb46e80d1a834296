//! The supervisor or a pool process is killed; see also `processes.rs`.

use std::fs;

use rustix::process::Signal;

use super::watch::{Cost, survives, times};
use crate::fastcgi::{expect_waiting, wait};
use crate::support::client::{Address, Connection};
use crate::support::process::{Identity, kill};
use crate::support::server::Server;
use crate::support::wait_until;

fn pool_pid(s: &Server) -> i32 {
    let workers = s.worker_pids();
    let descendants = s.descendants();
    let mut pool = descendants
        .iter()
        .filter(|process| !workers.contains(&process.pid));
    pool.next().expect("a pool process").pid
}

/// Kills the supervisor while a request runs, one waits and some connections are idle: everything ends by itself, and a new
/// server can start in its place.
fn kill_supervisor(listen: Option<&str>) {
    let mut listen = listen.map(str::to_owned);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket").to_str().unwrap().to_owned();
    for number in 0..times(3) {
        let address = listen.clone().unwrap_or_else(|| socket.clone());
        let mut s = Server::builder().workers(2).listen(&address).start();
        s.php("a.php", "<?php echo 'answer';");
        let mut idle = s.connect();
        assert_eq!(idle.exchange(&s.request("/a.php").keep()).text(), "answer");
        let mut running: Vec<Connection> = Vec::new();
        for name in ["one", "two", "waiting"] {
            let (file, uri) = wait(&s, name);
            let mut connection = s.connect();
            connection.send(&s.request(&uri).encode());
            if name != "waiting" {
                expect_waiting(&file);
            }
            running.push(connection);
        }
        let all = s.descendants();
        if number % 2 == 1 {
            // Nobody but the kernel can end the worker processes then.
            kill(pool_pid(&s), Signal::STOP);
            s.signal(Signal::KILL);
            kill(all[0].pid, Signal::KILL);
        } else {
            s.signal(Signal::KILL);
        }
        s.wait_exit();
        for connection in running.iter_mut().chain([&mut idle]) {
            connection.expect_close();
        }
        wait_until("every process is gone", || {
            !all.iter().any(Identity::is_running)
        });
        match s.address() {
            Address::Unix(path) if number % 2 == 0 => {
                assert!(!path.exists(), "the socket file is left");
            }
            Address::Unix(_) => {} // a file that nobody listens at does not hinder the next server
            Address::Tcp(host) => listen = Some(host.clone()),
        }
    }
    drop(fs::remove_file(socket));
}

#[test]
fn killed_supervisor_leaves_its_unix_socket_to_the_next() {
    kill_supervisor(None);
}

#[test]
fn killed_supervisor_leaves_its_tcp_port_to_the_next() {
    kill_supervisor(Some("127.0.0.1:0"));
}

server!(
    killed_pool_process_costs_its_connections_and_nothing_else,
    Server::builder().workers(2),
    |s| {
        survives(
            &s,
            "a kill of the pool process",
            Cost::WorkerProcesses,
            times(1),
            |n| {
                let (file, uri) = wait(&s, &format!("go{n}"));
                let mut running = s.connect();
                running.send(&s.request(&uri).encode());
                expect_waiting(&file);
                kill(pool_pid(&s), Signal::KILL);
                running.expect_close();
            },
        );
        s.expect_log("took with it: 1 running");
    }
);

server!(
    stopped_pool_process_holds_up_no_request,
    Server::builder().workers(2),
    |s| {
        let pool = pool_pid(&s);
        kill(pool, Signal::STOP);
        survives(
            &s,
            "a stop of the pool process",
            Cost::Request,
            times(10),
            |_| {},
        );
        kill(pool, Signal::CONT);
    }
);
