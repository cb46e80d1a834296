//! What a server holds while it has nothing to do, looked at before a fault and after it, so that what leaks is seen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::support::client::{Address, Connection};
use crate::support::process::Identity;
use crate::support::server::Server;
use crate::support::{DEADLINE, holds_within};

/// How many connections stay open through every fault.
const KEPT: usize = 4;
/// Faults after which memory is looked at for the first time: caches have grown by then.
const WARM_UP: u32 = 3;
/// By how much all repetitions of a fault together may make a server bigger: KiB, and as much again for each process.
const GROWTH: u64 = 1024;

/// What a fault may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// Only the request that it happened to.
    Request,
    /// A worker process with its connections, or several.
    WorkerProcesses,
}

/// A server under observation.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    server: &'a Server,
    kept: Vec<Connection>,
    before: Holdings,
    workers: Vec<i32>,
    asked: u32,
}

/// All that can leak.
#[derive(Clone, Debug, Default)]
struct Holdings {
    supervisor: Process,
    pool: Process,
    workers: Vec<Process>,
    zombies: usize,
    /// Connections at the server's address as the kernel counts them.
    connections: usize,
}

#[derive(Clone, Debug, Default)]
struct Process {
    threads: usize,
    /// By what they are.
    descriptors: BTreeMap<String, usize>,
}

/// How often to commit a fault: `count` times, or ten times as often if asked for.
pub(crate) fn times(count: u32) -> u32 {
    if std::env::var_os("FE_PHP_LONG").is_some() {
        count * 10
    } else {
        count
    }
}

/// Commits a fault again and again, by `act`, which is told how often it was called. Each time right answers must follow; in
/// the end the server must hold what it held before and not have grown.
pub(crate) fn survives(
    server: &Server,
    fault: &str,
    cost: Cost,
    count: u32,
    mut act: impl FnMut(u32),
) {
    let mut watch = Watch::start(server);
    let mut memory = 0;
    for number in 0..WARM_UP + count {
        if number == WARM_UP {
            watch.settled(fault);
            memory = watch.memory();
        }
        act(number);
        watch.answers(fault, cost);
    }
    watch.settled(fault);
    watch.has_not_grown(fault, memory);
}

impl<'a> Watch<'a> {
    /// Has every worker run a request, so that all is there that comes with the first, opens connections, and looks.
    pub(crate) fn start(server: &'a Server) -> Self {
        server.php(
            "right.php",
            "<?php echo 'right ', $_GET['n'], ' ', file_get_contents('php://input');",
        );
        have_all_workers_run(server);
        let mut watch = Self {
            server,
            kept: (0..KEPT).map(|_| server.connect()).collect(),
            before: Holdings::default(),
            workers: server.worker_pids(),
            asked: 0,
        };
        watch.answers("the start", Cost::Request);
        // What was asked on connections of their own is gone a moment later.
        let mut held = Holdings::of(server);
        holds_within(DEADLINE, || {
            held = Holdings::of(server);
            held.connections == KEPT && held.zombies == 0
        });
        assert_eq!(held.connections, KEPT, "open connections at the start");
        watch.before = held;
        watch
    }

    /// The answers to the next requests are right.
    pub(crate) fn answers(&mut self, fault: &str, cost: Cost) {
        for index in 0..KEPT {
            if let Err(error) = self.ask(index) {
                assert!(
                    cost == Cost::WorkerProcesses && error.kind() != ErrorKind::TimedOut,
                    "after {fault}: an open connection: {error}\n{}",
                    self.server.log().text()
                );
                self.kept[index] = self.server.connect();
                self.ask(index).unwrap_or_else(|error| {
                    panic!(
                        "after {fault}: a new connection: {error}\n{}",
                        self.server.log().text()
                    )
                });
            }
        }
        for _ in 0..3 {
            let n = self.next_number();
            let request = self.server.request(&format!("/right.php?n={n}"));
            let answer = self.server.connect().try_exchange(&request.form("x=1"));
            match answer {
                Ok((1, response)) => {
                    assert_eq!(
                        response.text(),
                        format!("right {n} x=1"),
                        "after {fault}: {response:?}"
                    );
                }
                other => panic!("after {fault}: {other:?}\n{}", self.server.log().text()),
            }
        }
        if cost == Cost::Request {
            assert_eq!(
                self.server.worker_pids(),
                self.workers,
                "after {fault}: worker processes were replaced\n{}",
                self.server.log().text()
            );
        }
    }

    /// The server holds what it held before, or will in a moment.
    pub(crate) fn settled(&self, fault: &str) {
        let mut excess = String::new();
        let settled = holds_within(DEADLINE, || {
            excess = Holdings::of(self.server).excess(&self.before);
            excess.is_empty()
        });
        assert!(
            settled,
            "after {fault}, for {DEADLINE:?}:\n{excess}{}",
            self.server.log().text()
        );
    }

    /// Memory that belongs to the server's processes alone, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        memory(self.server)
    }

    /// The server uses not much more memory than `before`, or will in a moment.
    pub(crate) fn has_not_grown(&self, fault: &str, before: u64) {
        let processes = 2 + self.before.workers.len() as u64;
        self.has_grown_by_at_most(fault, before, GROWTH * (1 + processes));
    }

    /// The server uses at most so many KiB more than `before`, or will in a moment.
    pub(crate) fn has_grown_by_at_most(&self, fault: &str, before: u64, growth: u64) {
        let mut now = 0;
        let small = holds_within(DEADLINE, || {
            now = self.memory();
            now <= before + growth
        });
        assert!(
            small,
            "after {fault}: {before} KiB have become {now}, more than {growth} in addition"
        );
    }

    fn ask(&mut self, index: usize) -> std::io::Result<()> {
        let n = self.next_number();
        let request = self.server.request(&format!("/right.php?n={n}")).keep();
        let (_, response) = self.kept[index].try_exchange(&request)?;
        assert_eq!(response.text(), format!("right {n} "), "{response:?}");
        Ok(())
    }

    fn next_number(&mut self) -> u32 {
        self.asked += 1;
        self.asked
    }
}

impl Holdings {
    fn of(server: &Server) -> Self {
        let connections = connections(server.address());
        let descendants = server.descendants();
        let workers = server.worker_pids();
        let look = |pid| Process::of(pid, &connections);
        let pool = descendants
            .iter()
            .map(|process| process.pid)
            .find(|pid| !workers.contains(pid));
        Self {
            supervisor: look(server.pid()),
            pool: pool.map(look).unwrap_or_default(),
            workers: workers.into_iter().map(look).collect(),
            zombies: descendants
                .iter()
                .filter(|process| Identity::of(process.pid).is_some() && !process.is_running())
                .count(),
            connections: connections.len(),
        }
    }

    /// What is here and was not there before, in words.
    fn excess(&self, before: &Self) -> String {
        let mut text = String::new();
        let (now, then) = (self.workers.len(), before.workers.len());
        if now != then {
            writeln!(text, "{now} worker processes, {then} before").unwrap();
        }
        if self.zombies > 0 {
            writeln!(text, "{} zombies", self.zombies).unwrap();
        }
        let (now, then) = (self.connections, before.connections);
        if now != then {
            writeln!(text, "{now} connections, {then} before").unwrap();
        }
        self.supervisor
            .excess("the supervisor", &before.supervisor, &mut text);
        self.pool
            .excess("the pool process", &before.pool, &mut text);
        // Any of them may be new: none may hold more than the one that held most.
        let mut most = Process::default();
        for process in &before.workers {
            most.threads = most.threads.max(process.threads);
            for (kind, count) in &process.descriptors {
                let most = most.descriptors.entry(kind.clone()).or_default();
                *most = (*most).max(*count);
            }
        }
        for process in &self.workers {
            process.excess("a worker process", &most, &mut text);
        }
        text
    }
}

impl Process {
    fn of(pid: i32, connections: &[u64]) -> Self {
        let mut found = Self::default();
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return found; // it has just ended
        };
        for entry in entries.flatten() {
            let Ok(target) = fs::read_link(entry.path()) else {
                continue;
            };
            if let Some(kind) = kind(&target, connections) {
                *found.descriptors.entry(kind).or_default() += 1;
            }
        }
        found.threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        found
    }

    fn excess(&self, name: &str, before: &Self, text: &mut String) {
        let (now, then) = (self.threads, before.threads);
        if now != then {
            writeln!(text, "{name} has {now} threads, {then} before").unwrap();
        }
        for (kind, now) in &self.descriptors {
            let then = before.descriptors.get(kind).copied().unwrap_or(0);
            if *now > then {
                writeln!(
                    text,
                    "{name} has {now} descriptors of {kind}, {then} before"
                )
                .unwrap();
            }
        }
    }
}

/// What a descriptor is for; none for a connection, since those are counted by themselves: which process has one is chance.
fn kind(target: &Path, connections: &[u64]) -> Option<String> {
    let text = target.to_string_lossy();
    match text.split_once(":[") {
        Some(("socket", inode)) => {
            let inode = inode.trim_end_matches(']').parse().unwrap_or(0);
            (!connections.contains(&inode)).then(|| "socket".to_owned())
        }
        Some((kind, _)) => Some(kind.to_owned()),
        None if text.starts_with("/dev/") => Some(text.into_owned()),
        None => Some("files".to_owned()), // OPcache's and the like have names by chance
    }
}

/// The inodes of all connections at a server's address, on its side: 0 for one that it has not accepted yet.
fn connections(address: &Address) -> Vec<u64> {
    match address {
        Address::Unix(path) => unix_connections(path),
        Address::Tcp(host) => tcp_connections(host),
    }
}

fn unix_connections(path: &Path) -> Vec<u64> {
    // Num RefCount Protocol Flags Type St Inode Path; a listening socket has __SO_ACCEPTCON among the flags.
    const LISTENING: &str = "00010000";
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let rows = table
        .lines()
        .map(|row| row.split_ascii_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(7).is_some_and(|found| Path::new(found) == path))
        .filter(|row| row[3] != LISTENING)
        .map(|row| row[6].parse().unwrap())
        .collect()
}

fn tcp_connections(host: &str) -> Vec<u64> {
    // sl local_address rem_address st … inode; the state of a listening socket is 0A. What the kernel alone still has
    // (TIME_WAIT and the like) has no inode.
    const LISTENING: &str = "0A";
    let (_, port) = host.rsplit_once(':').unwrap();
    let port = format!(":{:04X}", port.parse::<u16>().unwrap());
    let mut found = Vec::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(table) = fs::read_to_string(file) else {
            continue; // no IPv6
        };
        for row in table.lines().skip(1) {
            let row: Vec<&str> = row.split_ascii_whitespace().collect();
            if row[1].ends_with(&port) && row[3] != LISTENING && row[9] != "0" {
                found.push(row[9].parse().unwrap());
            }
        }
    }
    found
}

/// Runs a script in all workers at once: each waits for the others.
pub(crate) fn have_all_workers_run(server: &Server) {
    let source = "<?php touch(\"$_GET[d]/here$_GET[n]\"); $end = microtime(true) + 15;
        while (count(glob(\"$_GET[d]/here*\")) < $_GET['all'] && microtime(true) < $end) { usleep(1000); }
        echo count(glob(\"$_GET[d]/here*\"));";
    server.php("meet.php", source);
    let directory = tempfile::tempdir_in(server.directory()).unwrap();
    let all = server.workers();
    let mut connections: Vec<Connection> = (0..all).map(|_| server.connect()).collect();
    for (number, connection) in connections.iter_mut().enumerate() {
        let uri = format!(
            "/meet.php?n={number}&all={all}&d={}",
            directory.path().display()
        );
        connection.send(&server.request(&uri).encode());
    }
    for connection in &mut connections {
        assert_eq!(connection.response(1).text(), all.to_string());
    }
}

/// Memory that belongs to the server's processes alone, in KiB: programs and libraries are shared with other servers, which
/// come and go.
pub(crate) fn memory(server: &Server) -> u64 {
    let processes = server.descendants();
    let pids = processes.iter().map(|process| process.pid);
    pids.chain([server.pid()]).map(anonymous_memory).sum()
}

fn anonymous_memory(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let lines = text
        .lines()
        .filter(|line| line.starts_with("Pss_Anon:") || line.starts_with("Pss_Shmem:"));
    let sizes = lines.filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    sizes.sum()
}
