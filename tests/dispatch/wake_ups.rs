//! Workers that have nothing to do sleep.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::support::server::Server;

use super::{NAP, open_and_use};

/// When idle workers have given memory back, and have nothing more to do: that begins 5 s after their last request.
const SETTLED: Duration = Duration::from_millis(6500);
/// How long no thread may wake up.
const QUIET: Duration = Duration::from_secs(4);

server!(
    idle_workers_do_not_wake_up,
    Server::builder().workers(4),
    |s| {
        s.php("nap.php", NAP);
        // Connections stay open, as a web server's do, and some have been closed.
        let mut connections = open_and_use(&s, 16).0;
        connections.truncate(8);
        sleep(SETTLED);
        let mut seen = vec![switches(&s)];
        // On a machine that is busy, giving memory back may take longer.
        for _ in 0..3 {
            sleep(QUIET);
            seen.push(switches(&s));
            if seen[seen.len() - 2] == seen[seen.len() - 1] {
                return;
            }
        }
        panic!("each {QUIET:?}, the idle workers have gone to sleep so often in all: {seen:?}");
    }
);

/// How often all threads of all worker processes together have gone to sleep.
fn switches(server: &Server) -> u64 {
    let mut sum = 0;
    for pid in server.worker_pids() {
        for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
            let count: Option<u64> = status.lines().find_map(|line| {
                line.strip_prefix("voluntary_ctxt_switches:")?
                    .trim()
                    .parse()
                    .ok()
            });
            sum += count.expect("a number");
        }
    }
    sum
}
