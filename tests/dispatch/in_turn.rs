//! While all workers are busy, requests start in the order in which they became ready, whichever connections they come on.

use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::support::server::Server;

use super::{NAP, Nap, Occupant, expect_in_three_attempts, is_great_majority, open_and_use};

/// What is sent within this time of each other counts as sent at once.
const AT_ONCE: Duration = Duration::from_micros(200);
/// Between two requests that are to be in order: ten times that.
const APART: Duration = Duration::from_millis(2);

/// On which connection a request is sent.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// An open one of the worker that became busy first, as far as connections belong to workers.
    First,
    /// An open one of the other worker.
    Second,
    /// A new one.
    New,
    /// The one of all requests of this kind.
    Multiplexed,
}

/// Requests of each kind in a round.
const OF_EACH: usize = 4;
const ROUNDS: usize = 15;

server!(
    waiting_requests_start_in_turn_on_open_and_new_connections,
    Server::builder().workers(2),
    |s| { expect_in_turn(&s, &[Kind::First, Kind::New, Kind::Second]) }
);

server!(
    waiting_requests_start_in_turn_on_multiplexed_connections_too,
    Server::builder().workers(2),
    |s| {
        expect_in_turn(
            &s,
            &[Kind::First, Kind::New, Kind::Second, Kind::Multiplexed],
        );
    }
);

fn expect_in_turn(server: &Server, kinds: &[Kind]) {
    server.php("nap.php", NAP);
    let mut numbers = 0..;
    expect_in_three_attempts(|| {
        let numbers = numbers.by_ref().take(ROUNDS);
        let rounds: Vec<Vec<u64>> = numbers.map(|number| round(server, kinds, number)).collect();
        let good = rounds.iter().filter(|starts| is_in_turn(starts)).count();
        if is_great_majority(good, ROUNDS) {
            return Ok(());
        }
        let orders: String = rounds.iter().map(|starts| describe(starts)).collect();
        Err(format!(
            "in turn in {good} of {ROUNDS} rounds. Who started, by rounds:\n{orders}"
        ))
    });
}

/// Keeps both workers busy, sends requests one after the other, and lets the workers go on. Returns when each started.
fn round(server: &Server, kinds: &[Kind], number: usize) -> Vec<u64> {
    // While one worker is busy, connections become the other's.
    let occupant = Occupant::new(server, &format!("{number}-zero"));
    let mut first = open_and_use(server, OF_EACH + 1).0;
    occupant.release();
    let first_occupant = Occupant::on(first.remove(0), server, &format!("{number}-one"));
    let mut second = open_and_use(server, OF_EACH + 2).0;
    let mut multiplexed = second.remove(0);
    let second_occupant = Occupant::on(second.remove(0), server, &format!("{number}-two"));

    let request = server.request("/nap.php?us=1000").keep();
    let mut connections = Vec::new();
    let mut multiplexed_numbers = Vec::new();
    let total = OF_EACH * kinds.len();
    // Each kind comes after each other one in some round or other.
    let stride = if number.is_multiple_of(2) {
        1
    } else {
        kinds.len() - 1
    };
    for index in 0..total {
        let kind = kinds[(index * stride + index / kinds.len() + number) % kinds.len()];
        let connection = match kind {
            Kind::First => first.pop(),
            Kind::Second => second.pop(),
            Kind::New => Some(server.connect()),
            Kind::Multiplexed => None,
        };
        match connection {
            Some(mut connection) => {
                connection.send(&request.encode());
                connections.push((index, connection));
            }
            None => {
                let id = 100 + index as u16;
                multiplexed.send(&request.clone().with_id(id).encode());
                multiplexed_numbers.push(index);
            }
        }
        sleep(APART);
    }
    first_occupant.release();
    second_occupant.release();

    let mut starts = vec![0; total];
    for (index, mut connection) in connections {
        starts[index] = Nap::of(&connection.response(1)).start;
    }
    for _ in multiplexed_numbers {
        let (id, response) = multiplexed.next_response();
        starts[usize::from(id) - 100] = Nap::of(&response).start;
    }
    starts
}

/// Whether these times are in order. Two workers start at once: so only those that are two or more apart are compared.
fn is_in_turn(starts: &[u64]) -> bool {
    let apart = |index: usize| starts.iter().skip(index + 2);
    (0..starts.len()).all(|index| apart(index).all(|later| starts[index] <= *later))
}

/// The numbers of the requests in the order in which they started.
fn describe(starts: &[u64]) -> String {
    let mut order: Vec<usize> = (0..starts.len()).collect();
    order.sort_by_key(|&index| starts[index]);
    format!("{order:?}\n")
}

const WORKERS: usize = 4;
const CLIENTS: usize = 16;
/// Requests of each client.
const REQUESTS: usize = 100;

server!(
    no_client_is_overtaken_again_and_again,
    Server::builder().workers(WORKERS as u32),
    |s| { expect_few_overtaken(&s, 2000, |_| true) }
);

// Processes keep such requests until others ask for them.
server!(
    no_client_is_overtaken_again_and_again_by_shorter_requests,
    Server::builder().workers(WORKERS as u32),
    |s| { expect_few_overtaken(&s, 300, |_| true) }
);

server!(
    clients_with_new_and_with_open_connections_do_not_overtake_each_other,
    Server::builder().workers(WORKERS as u32),
    |s| {
        expect_few_overtaken(&s, 2000, |client| client.is_multiple_of(2));
    }
);

server!(
    clients_with_shorter_requests_do_not_overtake_each_other,
    Server::builder().workers(WORKERS as u32),
    |s| {
        expect_few_overtaken(&s, 300, |client| client.is_multiple_of(2));
    }
);

/// Requests take so many microseconds. `keeps` says which clients keep their connections; the others open one for each request.
fn expect_few_overtaken(server: &Server, length: u32, keeps: fn(usize) -> bool) {
    server.php("nap.php", NAP);
    let all = CLIENTS * REQUESTS;
    // More short ones pass while a worker stands still.
    let allowed = if length < 1000 {
        all * 3 / 100
    } else {
        all / 100
    };
    expect_in_three_attempts(|| {
        // A worker that stands still between taking a request and running it is overtaken too, and the machine's fault.
        let overtakings = overtakings(&closed_loop(server, length, keeps));
        let most = overtakings.iter().max().copied().unwrap_or(0);
        let overtaken = overtakings.iter().filter(|by| **by > 2 * WORKERS).count();
        // Nor is a single one left where it is while others come and go.
        if overtaken <= allowed && most < 10 * CLIENTS {
            return Ok(());
        }
        Err(format!(
            "{overtaken} of {all} requests were overtaken by more than {} later ones, one by {most}",
            2 * WORKERS
        ))
    });
}

/// A request of a client that sends its next one when it has its answer.
struct Sent {
    before: Instant,
    after: Instant,
    start: u64,
}

/// All clients at once.
fn closed_loop(server: &Server, length: u32, keeps: fn(usize) -> bool) -> Vec<Sent> {
    let request = server.request(&format!("/nap.php?us={length}"));
    let request = request.keep().encode();
    let client = |number: usize| {
        let mut connection = server.connect();
        let one = |_| {
            let before = Instant::now();
            if !keeps(number) {
                connection = server.connect();
            }
            connection.send(&request);
            let after = Instant::now();
            let start = Nap::of(&connection.response(1)).start;
            Sent {
                before,
                after,
                start,
            }
        };
        (0..REQUESTS).map(one).collect::<Vec<Sent>>()
    };
    thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || client(number)))
            .collect();
        let results = clients.into_iter().map(|client| client.join().unwrap());
        results.flatten().collect()
    })
}

/// For each request, how many started before it that were sent later.
fn overtakings(all: &[Sent]) -> Vec<usize> {
    let overtaking = |one: &Sent| {
        let by = |other: &&Sent| other.before > one.after + AT_ONCE && other.start < one.start;
        all.iter().filter(by).count()
    };
    all.iter().map(overtaking).collect()
}
