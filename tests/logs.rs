//! Log files: stock php-fpm and fe-php write the same lines for the same requests and configuration.

mod access;
mod worker_output;

use std::path::Path;
use std::process::Command;

use crate::support::DEADLINE;
use crate::support::fpm::Fpm;
use crate::support::holds_within;

/// Stock php-fpm, and fe-php in its place, each with these lines in the configuration of its pool.
fn both(pool: &str, root: &Path) -> [Fpm; 2] {
    let mut ours = Command::new(env!("CARGO_BIN_EXE_fe-php"));
    ours.arg("fpm");
    [
        Fpm::start(&[], pool, root),
        Fpm::start_as(ours, &[], pool, root),
    ]
}

/// The lines of a log file, when there are as many.
fn lines(path: &Path, count: usize) -> Vec<String> {
    let read = || {
        let text = std::fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    holds_within(DEADLINE, || read().len() >= count);
    read()
}

/// The line with each number as a 0, where its value depends on the moment.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    for character in line.chars() {
        match character {
            '0'..='9' if shape.ends_with('0') => {}
            '0'..='9' => shape.push('0'),
            other => shape.push(other),
        }
    }
    shape
}
