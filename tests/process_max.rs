//! `process.max`: worker processes of all pools together.

use std::process::Command;

use rustix::process::{Signal, getuid};

use crate::support::client::Request;
use crate::support::fpm::Fpm;
use crate::support::process::kill;
use crate::support::{php, wait_until};

const WARNING: &str = "WARNING: The maximum number of processes has been reached. Please review your configuration and consider \
                       raising 'process.max'";

#[test]
fn all_pools_together_have_as_many_worker_processes_as_process_max() {
    // With threads a pool has one worker process.
    let limit = if php::is_zts() { 1 } else { 5 };
    let user = if getuid().is_root() {
        "user = root\ngroup = root\n"
    } else {
        ""
    };
    let lines = format!(
        "pm.max_children = 4\n[two]\nlisten = {{directory}}/two.sock\n{user}pm = static\npm.max_children = 4\n\
         [global]\nprocess.max = {limit}\n"
    );
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("a.php"), "<?php echo 'served';").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fe-php"));
    command.arg("fpm");
    let server = Fpm::start_as(command, &[], &lines, root.path());
    // A pool process may have no worker process at all.
    let workers = || {
        let processes = server.descendants().into_iter();
        let workers = processes.filter(|process| !process.zombie && process.parent != server.pid());
        workers.map(|process| process.pid).collect::<Vec<i32>>()
    };
    let serves = || {
        let answer = server
            .connect()
            .exchange(&Request::get(root.path(), "/a.php"));
        answer.text() == "served"
    };
    assert_eq!(workers().len(), limit);
    server.log().expect_count(WARNING, 1);

    // One that dies makes room for one, of whatever pool.
    let before = workers();
    kill(before[0], Signal::KILL);
    wait_until("another takes its place", || {
        let now = workers();
        now.len() == limit && !now.contains(&before[0])
    });

    // A new generation does not wait for the old one to end.
    let before = workers();
    server.signal(Signal::USR2);
    wait_until("the new generation serves alone", || {
        let now = workers();
        now.len() == limit && now.iter().all(|pid| !before.contains(pid))
    });
    if limit > 1 {
        assert!(serves());
    }
}
