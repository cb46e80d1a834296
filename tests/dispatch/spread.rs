//! New connections go to idle workers, and among those to the ones with fewest open connections.

use crate::support::client::Connection;
use crate::support::php;
use crate::support::server::Server;

use super::{NAP, is_great_majority, open_and_use, open_at_one_worker};

/// Each with a server of its own: connections that are closed would count for a while.
const ROUNDS: usize = 5;
const WORKERS: usize = 4;

#[test]
fn new_connections_are_spread_over_idle_workers() {
    expect_spread([2; WORKERS], |server| open_and_use(server, 2 * WORKERS));
}

#[test]
fn new_connections_go_where_fewest_are() {
    expect_spread([0, 4, 4, 4], |server| {
        let _one_worker_has = open_at_one_worker(server, 4, "uneven");
        open_and_use(server, 4 * (WORKERS - 1))
    });
}

/// So many of the connections that `open` returns belong to each worker, in some order.
fn expect_spread(
    expected: [usize; WORKERS],
    open: impl Fn(&Server) -> (Vec<Connection>, Vec<i32>),
) {
    if php::is_zts() {
        eprintln!("skipped: with threads, connections belong to all workers");
        return;
    }
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        let server = Server::builder().workers(WORKERS as u32).start();
        server.php("nap.php", NAP);
        let (_connections, pids) = open(&server);
        let of_worker = |pid: i32| pids.iter().filter(|&&found| found == pid).count();
        let mut counts: Vec<usize> = server.worker_pids().into_iter().map(of_worker).collect();
        counts.sort_unstable();
        seen.push(counts);
    }
    let good = seen.iter().filter(|counts| **counts == expected).count();
    assert!(
        is_great_majority(good, ROUNDS),
        "{expected:?} connections were to be the workers', and are: {seen:?}"
    );
}
