//! Figures of the status page that have to be measured: the listen queue, CPU times, OPcache's.

use std::fs;
use std::process::Command;

use crate::support::client::{Address, Connection, Request};
use crate::support::fpm::Fpm;
use crate::support::wait_until;

#[test]
fn figures_that_have_to_be_measured_are_there() {
    let root = tempfile::tempdir().unwrap();
    let script = "<?php for ($i = 0; $i < 20_000; $i++) { $a = range(1, 1000); } echo 'done';";
    fs::write(root.path().join("burn.php"), script).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fe-php"));
    command.arg("fpm");
    let lines = "listen.backlog = 77\npm.status_path = /status\npm.status_listen = {directory}/status.sock\n";
    let server = Fpm::start_as(command, &[], lines, root.path());
    // The page of this socket is the supervisor's, so the worker's last request is the script.
    let page = |query: &str| {
        let socket = server.directory().join("status.sock");
        let request = Request::get(root.path(), &format!("/status?{query}"))
            .param("SCRIPT_NAME", "/status")
            .param("SCRIPT_FILENAME", "/status");
        Connection::open(&Address::Unix(socket))
            .exchange(&request)
            .text()
    };
    let text = page("");
    assert!(text.contains("\nlisten queue len:     77\n"), "{text}");

    let run = || {
        let request = Request::get(root.path(), "/burn.php");
        assert_eq!(server.connect().exchange(&request).text(), "done");
    };
    run();
    let cpu = |page: &str| {
        let line = page
            .lines()
            .find(|line| line.starts_with("phpfpm_process_last_request_cpu{"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    // The kernel counts in ticks. It is there when the worker is idle again, a moment after the answer. How much of its time it had a processor
    // depends on who else wants one.
    wait_until("the CPU time is there", || {
        cpu(&page("openmetrics&full")).is_some_and(|cpu| cpu > 0.0)
    });
    wait_until("OPcache's figures are there", || {
        run();
        let page = page("openmetrics&full");
        let scripts = page
            .lines()
            .find_map(|line| line.strip_prefix("phpfpm_opcache_cached_scripts "));
        scripts.is_some_and(|scripts| scripts != "0")
    });
}
