//! No request waits while a worker is idle, however short the request is that keeps its own worker busy.

use std::time::{Duration, Instant};

use crate::support::DEADLINE;
use crate::support::client::Connection;
use crate::support::server::Server;

use super::{NAP, Nap, expect_in_three_attempts, is_great_majority, open_at_one_worker};

/// How long a script runs. So short a request was once over before anybody looked after the others at its worker: after 2 to
/// 5 ms.
const LENGTH: Duration = Duration::from_millis(2);
/// Rounds of an attempt.
const ROUNDS: usize = 25;

server!(
    a_request_on_another_connection_of_a_busy_worker_runs_at_once,
    Server::builder().workers(4),
    |s| { expect_side_by_side(&s, 3, &[1]) }
);

server!(
    a_request_on_the_same_connection_as_one_that_runs_runs_at_once,
    Server::builder().workers(4),
    |s| { expect_side_by_side(&s, 1, &[1, 2, 3]) }
);

/// When requests with these ids are sent on each of so many connections of one worker, all of them start before the first
/// ends. (There are workers enough.)
fn expect_side_by_side(server: &Server, connections: usize, ids: &[u16]) {
    server.php("nap.php", NAP);
    let mut numbers = 0..;
    let end = Instant::now() + DEADLINE;
    expect_in_three_attempts(|| {
        let mut rounds = Vec::new();
        while rounds.len() < ROUNDS {
            assert!(Instant::now() < end, "the machine stands still");
            let name = format!("round-{}", numbers.next().unwrap_or(0));
            let mut connections = open_at_one_worker(server, connections, &name);
            rounds.extend(round(server, &mut connections, ids));
        }
        let good = rounds.iter().filter(|naps| overlap(naps)).count();
        if is_great_majority(good, ROUNDS) {
            return Ok(());
        }
        let times: String = rounds.iter().map(|naps| describe(naps)).collect();
        Err(format!(
            "requests waited while workers were idle: side by side in {good} of {ROUNDS} rounds. Start and end in µs:\n{times}"
        ))
    });
}

/// Whether all have started before the first ends.
fn overlap(naps: &[Nap]) -> bool {
    let first_end = naps.iter().map(|nap| nap.end).min();
    naps.iter().all(|nap| Some(nap.start) < first_end)
}

/// Sends the first request, and the others as soon as it runs. None if the
/// machine was so busy meanwhile that a script slept for much longer than it was to, or the requests came late.
fn round(server: &Server, connections: &mut [Connection], ids: &[u16]) -> Option<Vec<Nap>> {
    let uri = format!("/nap.php?us={}", LENGTH.as_micros());
    let requests: Vec<Vec<u8>> = ids
        .iter()
        .map(|&id| server.request(&uri).with_id(id).keep().encode())
        .collect();
    connections[0].send(&requests[0]);
    while connections[0].stdout_so_far(ids[0]).is_empty() {
        let record = connections[0].record();
        let complete = connections[0].collect(&record);
        assert!(complete.is_none(), "the script was to run on: {complete:?}");
    }
    let runs = Instant::now();
    for (index, connection) in connections.iter_mut().enumerate() {
        for request in &requests[usize::from(index == 0)..] {
            connection.send(request);
        }
    }
    let sent = runs.elapsed();
    let mut naps = Vec::new();
    for connection in connections {
        for _ in ids {
            naps.push(Nap::of(&connection.next_response().1));
        }
    }
    let slept_well = |nap: &Nap| nap.length() < LENGTH * 5 / 4;
    (sent < LENGTH / 4 && naps.iter().all(slept_well)).then_some(naps)
}

/// When they started and ended, from the first start on.
fn describe(naps: &[Nap]) -> String {
    let begin = naps.iter().map(|nap| nap.start).min().unwrap();
    let times = |nap: &Nap| {
        format!(
            "  {}-{}",
            (nap.start - begin) / 1000,
            (nap.end - begin) / 1000
        )
    };
    naps.iter().map(times).collect::<String>() + "\n"
}
