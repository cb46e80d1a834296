//! Very many connections at once.

use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::watch::{Cost, Watch, times};
use crate::support::client::{Connection, OVERLOADED};
use crate::support::server::{Builder, Server};

const MANY: usize = 10_000;

/// This process has the other end of every connection, and the limit on descriptors is one for all its tests.
static ALONE: Mutex<()> = Mutex::new(());

/// Raises the limit on descriptors of this process, and says how many connections it can have.
fn as_many_as_possible() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let maximum = limit.maximum.map_or(usize::MAX, |maximum| maximum as usize);
    // The server's processes have the same limit, and half of it is for scripts, up to 4096.
    let possible = MANY.min(maximum.saturating_sub(5000));
    if possible < MANY {
        eprintln!("{possible} connections only: ulimit -Hn is {maximum}");
    }
    possible
}

fn builder() -> Builder {
    Server::builder().workers(4).args(&["--queue", "20000"])
}

/// Opens connections and sends a request on each as soon as it is open.
fn send_on_each(s: &Server, count: usize) -> Vec<Connection> {
    let bytes = s.request("/right.php?n=7").keep().encode();
    (0..count)
        .map(|_| {
            let mut connection = s.connect();
            connection.set_timeout(Duration::from_secs(60)).unwrap();
            connection.send(&bytes);
            connection
        })
        .collect()
}

fn at_once(s: &Server) {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let count = as_many_as_possible();
    let mut watch = Watch::start(s);
    let mut memory = None;
    for _ in 0..times(1) + 1 {
        let mut connections = send_on_each(s, count);
        for connection in &mut connections {
            assert_eq!(connection.response(1).text(), "right 7 ");
        }
        drop(connections);
        watch.answers("10,000 connections", Cost::Request);
        watch.settled("10,000 connections");
        // What the allocator keeps of the first time serves the second.
        watch.has_not_grown(
            "10,000 connections",
            *memory.get_or_insert_with(|| watch.memory()),
        );
    }
}

server!(
    ten_thousand_connections_at_once_are_all_answered,
    builder(),
    |s| {
        at_once(&s);
    }
);

server!(
    ten_thousand_tcp_connections_at_once_are_all_answered,
    builder().listen("127.0.0.1:0"),
    |s| {
        at_once(&s);
    }
);

server!(
    more_requests_than_the_queue_takes_are_refused_and_none_is_lost,
    Server::builder().workers(4).args(&["--queue", "100"]),
    |s| {
        let _alone = ALONE
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = as_many_as_possible() / 5;
        let mut watch = Watch::start(&s);
        let mut connections = send_on_each(&s, count);
        let mut answered = 0;
        for connection in &mut connections {
            let response = connection.response(1);
            if response.protocol_status == OVERLOADED {
                assert!(response.body.is_empty(), "{response:?}");
            } else {
                assert_eq!(response.text(), "right 7 ");
                answered += 1;
            }
        }
        assert!(answered >= 100, "only {answered} answered");
        drop(connections);
        watch.answers("an overload", Cost::Request);
        watch.settled("an overload");
    }
);

server!(
    ten_thousand_idle_connections_cost_no_worker_and_little_memory,
    builder(),
    |s| {
        let _alone = ALONE
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = as_many_as_possible();
        let mut watch = Watch::start(&s);
        let memory = watch.memory();
        let mut connections = send_on_each(&s, count);
        for connection in &mut connections {
            assert_eq!(connection.response(1).text(), "right 7 ");
        }
        for _ in 0..50 {
            watch.answers("10,000 idle connections", Cost::Request);
        }
        watch.has_grown_by_at_most("10,000 idle connections", memory, 8 * count as u64);
        // None of them is forgotten.
        for connection in connections.iter_mut().step_by(7) {
            let request = s.request("/right.php?n=8").keep();
            assert_eq!(connection.exchange(&request).text(), "right 8 ");
        }
        drop(connections);
        watch.answers("10,000 idle connections", Cost::Request);
        watch.settled("10,000 idle connections");
    }
);
