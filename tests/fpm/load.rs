//! Clients that never try again: whatever goes wrong with a request counts as a failure.
//!
//! Half of them keep their connections. On those, an end of the connection between two requests is a failure too: a front
//! end may have sent its next request just then, and must not repeat a POST.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Address, Connection, REQUEST_COMPLETE, Request, Response};

/// What the clients ask for: it takes as long as it is told, and tells which request and process it was.
pub(super) const SCRIPT: &str = r#"<?php
$body = file_get_contents('php://input');
usleep((int) $_GET['us']);
echo $_GET['id'], ' ', strlen($body), ' ', md5($body), ' ', getmypid();
"#;

/// The longest request, in milliseconds.
const LONGEST: u64 = 500;

/// Patience with one request: it only has to be longer than any wait that is no failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// Clients that run in the background until [`stop`](Self::stop).
#[derive(Debug, Default)]
pub(super) struct Load {
    stop: AtomicBool,
    /// Requests that were answered rightly.
    answered: AtomicU64,
    /// Kept-alive requests among those.
    kept: AtomicU64,
    failures: Mutex<Vec<String>>,
    /// Processes that have answered.
    processes: Mutex<HashSet<String>>,
}

/// What a load has come to.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) answered: u64,
    pub(super) kept: u64,
    pub(super) processes: usize,
    pub(super) failures: Vec<String>,
}

impl Load {
    /// Runs `clients` clients, spread over `addresses`, every second with a kept-alive connection, while `during` runs. The
    /// script [`SCRIPT`] is `load.php` in `root`.
    pub(super) fn run(
        clients: usize,
        addresses: &[Address],
        root: &Path,
        during: impl FnOnce(&Self),
    ) -> Figures {
        let load = Self::default();
        let begun = Instant::now();
        thread::scope(|scope| {
            for number in 0..clients {
                let client = Client {
                    load: &load,
                    number,
                    address: &addresses[number / 2 % addresses.len()],
                    root: root.to_owned(),
                    keeps: number % 2 == 0,
                    begun,
                    random: 0x9E37_79B9_7F4A_7C15 ^ (number as u64 + 1) << 17,
                };
                scope.spawn(move || client.run());
            }
            // Its clients end even when an assertion fails.
            let stop = StopOnDrop(&load);
            during(&load);
            drop(stop);
        });
        Figures {
            answered: load.answered.into_inner(),
            kept: load.kept.into_inner(),
            processes: load.processes.into_inner().unwrap().len(),
            failures: load.failures.into_inner().unwrap(),
        }
    }

    /// Lets the clients end after the requests that they have sent.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Processes that have answered so far.
    pub(super) fn processes(&self) -> usize {
        self.processes.lock().unwrap().len()
    }

    /// Requests that have been answered so far.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// Requests that have failed so far.
    pub(super) fn failed(&self) -> usize {
        self.failures.lock().unwrap().len()
    }
}

struct StopOnDrop<'a>(&'a Load);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

struct Client<'a> {
    load: &'a Load,
    number: usize,
    address: &'a Address,
    root: PathBuf,
    keeps: bool,
    begun: Instant,
    random: u64,
}

impl Client<'_> {
    fn run(mut self) {
        let mut connection = None;
        let mut count = 0;
        while !self.load.stop.load(Ordering::SeqCst) {
            count += 1;
            let id = format!("{}-{count}", self.number);
            match self.request(&id, connection.take()) {
                Ok(kept) => connection = kept,
                Err(error) => {
                    let text = format!(
                        "{:?}: request {id}{} {error}",
                        self.begun.elapsed(),
                        if self.keeps { " (kept alive)" } else { "" }
                    );
                    self.load.failures.lock().unwrap().push(text);
                    // A server that is gone would make these by the thousand.
                    thread::sleep(Duration::from_millis(20));
                }
            }
            // Most at once, some after a pause in which the connection lies idle.
            let pause = [0, 0, 0, 1, 5, 50, 150, 300][self.random(8) as usize];
            thread::sleep(Duration::from_millis(pause));
        }
    }

    fn request(
        &mut self,
        id: &str,
        kept: Option<Connection>,
    ) -> Result<Option<Connection>, String> {
        let time = 1000 + self.random((LONGEST - 1) * 1000);
        let uri = format!("/load.php?id={id}&us={time}");
        let mut request = Request::get(&self.root, &uri);
        let mut length = 0;
        match self.random(8) {
            0 => length = 1000,
            1 => length = 100_000, // does not fit into one record, nor a socket's buffer
            _ => {}
        }
        let body: Vec<u8> = (0..length)
            .map(|index: usize| (index % 251) as u8)
            .collect();
        if length > 0 {
            request = request.post("application/octet-stream", &body);
        }
        if self.keeps {
            request = request.keep();
        }
        let mut connection = match kept {
            Some(connection) => {
                if connection.has_input() {
                    return Err("found its connection closed".to_owned());
                }
                connection
            }
            None => Connection::try_open(self.address)
                .map_err(|error| format!("could not connect: {error}"))?,
        };
        connection
            .set_timeout(PATIENCE)
            .map_err(|error| error.to_string())?;
        let sent = Instant::now();
        let (_, response) = connection
            .try_exchange(&request)
            .map_err(|error| format!("got no answer within {:?}: {error}", sent.elapsed()))?;
        self.check(&response, &format!("{id} {length} "))?;
        Ok(self.keeps.then_some(connection))
    }

    fn check(&self, response: &Response, expected: &str) -> Result<(), String> {
        let text = response.text();
        let right = response.status == 200
            && response.protocol_status == REQUEST_COMPLETE
            && response.stderr.is_empty()
            && text.starts_with(expected);
        if !right {
            return Err(format!("was answered {response:?}"));
        }
        let pid = text.rsplit(' ').next().unwrap_or_default().to_owned();
        self.load.processes.lock().unwrap().insert(pid);
        self.load.answered.fetch_add(1, Ordering::SeqCst);
        self.load
            .kept
            .fetch_add(u64::from(self.keeps), Ordering::SeqCst);
        Ok(())
    }

    /// Evenly spread below `below`.
    fn random(&mut self, below: u64) -> u64 {
        // xorshift64*
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below
    }
}

impl Figures {
    /// One line, and the first failures.
    pub(super) fn show(&self, name: &str) {
        eprintln!(
            "{name}: {} requests answered ({} on kept-alive connections) by {} processes, {} failed",
            self.answered,
            self.kept,
            self.processes,
            self.failures.len()
        );
        for failure in self.failures.iter().take(10) {
            eprintln!("  {failure:.300}");
        }
    }
}
