//! Memory that idle workers give back.

use std::fs;

use crate::support::server::Server;
use crate::support::wait_until;

/// Megabytes that the process has in memory.
pub(crate) fn resident(pid: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes: u64 = line
        .and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .expect("a number");
    kilobytes / 1024
}

server!(
    an_idle_worker_gives_memory_back_each_time,
    Server::builder().workers(1),
    |s| {
        s.php(
            "big.php",
            "<?php $a = []; for ($i = 0; $i < 400; $i++) { $a[] = str_repeat(chr($i), 100_000); }
             echo getmypid(), ' ', md5(implode($a));",
        );
        let mut answers = Vec::new();
        for _ in 0..2 {
            let mut pid = String::new();
            for _ in 0..6 {
                let answer = s.get("/big.php").text();
                pid = answer.split(' ').next().unwrap_or_default().to_owned();
                answers.push(answer);
            }
            let warm = resident(&pid);
            wait_until("the worker to give 20 MB back", || {
                resident(&pid) + 20 <= warm
            });
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{answers:?}");
    }
);
