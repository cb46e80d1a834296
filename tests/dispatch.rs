//! Which worker runs a request, and when. A worker is a process, or a thread of one in a thread-safe build of PHP; the tests
//! hold for both.
//!
//! Nothing here is compared with a number of milliseconds: scripts print the times at which they start and end, and those
//! times are compared with each other. A machine that is busy with other things disturbs that. So a great majority of rounds
//! must be as it should, not all, and in one of three attempts.

mod at_once;
mod in_turn;
mod spread;
mod wake_ups;

use std::path::PathBuf;
use std::time::Duration;

use crate::fastcgi::{create, expect_waiting, wait};
use crate::support::client::{Connection, Response};
use crate::support::server::Server;

/// Prints when it starts, sleeps for some microseconds, and prints when it ends and in which process.
const NAP: &str = "<?php
echo hrtime(true), ' ';
flush();
usleep((int) $_GET['us']);
echo hrtime(true), ' ', getmypid();";

/// What a [`NAP`] has printed. The times are of one clock for all processes, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Nap {
    start: u64,
    end: u64,
    pid: i32,
}

/// A script that keeps a worker busy until it is released.
struct Occupant {
    file: PathBuf,
    connection: Connection,
}

impl Nap {
    fn of(response: &Response) -> Self {
        let text = response.text();
        let fields: Vec<&str> = text.split(' ').collect();
        let [start, end, pid] = fields[..] else {
            panic!("not two times and a process: {response:?}");
        };
        Self {
            start: start.parse().unwrap(),
            end: end.parse().unwrap(),
            pid: pid.parse().unwrap(),
        }
    }

    fn length(&self) -> Duration {
        Duration::from_nanos(self.end - self.start)
    }
}

impl Occupant {
    /// On a new connection. `name` is used once per server.
    fn new(server: &Server, name: &str) -> Self {
        Self::on(server.connect(), server, name)
    }

    /// On a connection that is there.
    fn on(mut connection: Connection, server: &Server, name: &str) -> Self {
        let (file, uri) = wait(server, name);
        connection.send(&server.request(&uri).keep().encode());
        expect_waiting(&file);
        Self { file, connection }
    }

    /// The script ends; the worker is idle or about to be. Returns the connection, which is open.
    fn release(mut self) -> Connection {
        create(&self.file);
        assert_eq!(self.connection.response(1).text(), "waited");
        self.connection
    }
}

/// Opens connections one after the other, each used by one request that ends at once. Returns them, and which process has
/// run the request of each.
fn open_and_use(server: &Server, count: usize) -> (Vec<Connection>, Vec<i32>) {
    let open = |_| {
        let mut connection = server.connect();
        let response = connection.exchange(&server.request("/nap.php?us=0").keep());
        // The answer comes a moment before the worker is idle, and so may have the next connection.
        std::thread::sleep(Duration::from_millis(3));
        (connection, Nap::of(&response).pid)
    };
    (0..count).map(open).unzip()
}

/// Opens connections while one worker is idle and all others are busy: so that they are all that worker's, as far as
/// connections belong to workers.
fn open_at_one_worker(server: &Server, count: usize, name: &str) -> Vec<Connection> {
    let occupants: Vec<Occupant> = (1..server.workers())
        .map(|number| Occupant::new(server, &format!("{name}-{number}")))
        .collect();
    let (connections, mut pids) = open_and_use(server, count);
    pids.dedup();
    assert_eq!(pids.len(), 1, "only one worker was idle");
    for occupant in occupants {
        occupant.release();
    }
    connections
}

/// Whether at least four fifths of `all` are `good`.
fn is_great_majority(good: usize, all: usize) -> bool {
    good * 5 >= all * 4
}

/// One of three attempts must succeed: what really does not hold fails in all.
fn expect_in_three_attempts(mut attempt: impl FnMut() -> Result<(), String>) {
    let mut errors = Vec::new();
    while errors.len() < 3 {
        match attempt() {
            Ok(()) => return,
            Err(error) => errors.push(error),
        }
    }
    panic!("{}", errors.join("\n"));
}
