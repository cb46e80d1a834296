//! sd_notify: what the service manager is told, by the datagrams that arrive at its socket.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::DEADLINE;
use crate::support::client::Request;
use crate::support::fpm::Fpm;

/// The service manager's end.
struct Manager {
    socket: UnixDatagram,
    name: String,
    _directory: TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        Self {
            socket: UnixDatagram::bind(&path).unwrap(),
            name: path.display().to_string(),
            _directory: directory,
        }
    }

    fn abstract_name() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().display().to_string();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Self {
            socket: UnixDatagram::bind_addr(&address).unwrap(),
            name: format!("@{name}"),
            _directory: directory,
        }
    }

    /// Starts fe-php as its service, with these lines in the section `[global]`.
    fn start(&self, variables: &[&str], global: &str, root: &Path) -> Fpm {
        // The server's environment is made by `Fpm`, so it is extended from within.
        let mut command = Command::new("/usr/bin/env");
        command
            .arg(format!("NOTIFY_SOCKET={}", self.name))
            .args(variables)
            .arg(env!("CARGO_BIN_EXE_fe-php"))
            .arg("fpm");
        let pool = format!("clear_env = no\n[global]\n{global}\n");
        Fpm::start_as(command, &[], &pool, root)
    }

    /// The next message with `text` in it. None in between has `never`.
    fn expect(&self, text: &str, never: &str) -> String {
        let end = Instant::now() + DEADLINE;
        let mut buffer = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no message has {text:?}");
            self.socket.set_read_timeout(Some(left)).unwrap();
            let Ok(length) = self.socket.recv(&mut buffer) else {
                continue;
            };
            let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if message.contains(text) {
                return message;
            }
            assert!(
                !message.contains(never),
                "{never:?} comes before {text:?}: {message}"
            );
        }
    }
}

fn root() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::write(
        root.path().join("environment.php"),
        "<?php print_r(getenv());",
    )
    .unwrap();
    root
}

fn monotonic_microseconds() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

#[test]
fn service_manager_is_told_of_start_state_reload_and_stop() {
    let (manager, root) = (Manager::new(), root());
    let server = manager.start(&[], "systemd_interval = 1", root.path());
    assert_eq!(
        manager.expect("READY=1", "="),
        format!(
            "READY=1\nSTATUS=Ready to handle connections\nMAINPID={}",
            server.pid()
        )
    );
    server
        .log()
        .expect("systemd monitor interval set to 1000ms");

    for _ in 0..3 {
        let request = Request::get(root.path(), "/environment.php");
        let environment = server.connect().exchange(&request).text();
        assert!(environment.contains("[HOME]"), "{environment}");
        assert!(!environment.contains("NOTIFY_SOCKET"), "{environment}");
    }
    let status = manager.expect("Requests: 3", "STOPPING");
    assert!(
        status.starts_with("READY=1\nSTATUS=Processes active: ")
            && status.contains(", Requests: 3, slow: 0, Traffic: "),
        "{status}"
    );
    let traffic = status.rsplit_once(' ').unwrap().1;
    let traffic: f64 = traffic.strip_suffix("req/sec").unwrap().parse().unwrap();
    // Of the time since it was ready, which is short where the start was slow, and long where the message is late.
    assert!(traffic > 0.0, "{status}");

    let before = monotonic_microseconds();
    server.signal(Signal::USR2);
    let reloading = manager.expect("RELOADING=1\n", "STOPPING");
    let moment = reloading
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    let moment: i64 = moment.unwrap().parse().unwrap();
    assert!((before..=monotonic_microseconds()).contains(&moment));
    // Said by the program that has taken over; nothing before it ends the manager's wait.
    manager.expect("READY=1\nSTATUS=Ready to handle connections", "READY=1");
    server.log().expect_count("ready to handle connections", 2);
    manager.expect(
        "READY=1\nSTATUS=Processes active: 0, idle: 1, Requests: 3",
        "STOPPING",
    );

    server.signal(Signal::QUIT);
    manager.expect("STOPPING=1", "RELOADING");
}

#[test]
fn refused_reload_is_over_for_the_service_manager_too() {
    let (manager, root) = (Manager::new(), root());
    let server = manager.start(&[], "systemd_interval = 0", root.path());
    manager.expect("READY=1\nSTATUS=Ready to handle connections", "STOPPING");
    server.log().expect("systemd monitor disabled");
    fs::write(server.directory().join("php-fpm.conf"), "nonsense = 1\n").unwrap();
    server.signal(Signal::USR2);
    manager.expect("RELOADING=1\n", "READY=1");
    let message = manager.expect("READY=1\n", "STOPPING");
    assert!(message.contains("STATUS=Reload failed"), "{message}");
}

#[test]
fn watchdog_hears_twice_in_its_time() {
    let (manager, root) = (Manager::abstract_name(), root());
    let time = Duration::from_millis(600);
    let variable = format!("WATCHDOG_USEC={}", time.as_micros());
    let server = manager.start(&[&variable], "systemd_interval = 0", root.path());
    server.log().expect("systemd monitor interval set to 300ms");
    for _ in 0..3 {
        let message = manager.expect("WATCHDOG=1\n", "STOPPING");
        assert!(message.contains("STATUS=Processes active: 0"), "{message}");
    }
    // Also while the program starts anew: without that, a reload that takes long would be its end.
    server.signal(Signal::USR2);
    manager.expect("RELOADING=1\n", "STOPPING");
    manager.expect("READY=1\nSTATUS=Ready to handle", "STOPPING");
    manager.expect("WATCHDOG=1\n", "STOPPING");
}

#[test]
fn watchdog_of_another_process_is_not_fed() {
    let (manager, root) = (Manager::new(), root());
    let variables = ["WATCHDOG_USEC=600000", "WATCHDOG_PID=1"];
    let _server = manager.start(&variables, "systemd_interval = 1", root.path());
    for _ in 0..2 {
        manager.expect("STATUS=Processes active", "WATCHDOG");
    }
}
