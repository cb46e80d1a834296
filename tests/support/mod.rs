//! What every feature file needs: servers to start, a FastCGI client, logs to wait for.
#![allow(dead_code)] // a helper is written for all feature files, not for each

pub(crate) mod client;
pub(crate) mod configured;
pub(crate) mod fpm;
pub(crate) mod ini;
pub(crate) mod log;
pub(crate) mod php;
pub(crate) mod process;
pub(crate) mod request;
#[macro_use]
pub(crate) mod server;

use std::time::{Duration, Instant};

/// How long anything may take that should be there at once. Generous: machines that test are slow and shared.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Repeats `condition` until it holds; panics with `what` if it does not within [`DEADLINE`].
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    assert!(
        holds_within(DEADLINE, &mut condition),
        "{what}: not within {DEADLINE:?}"
    );
}

/// Repeats `condition` until it holds or `time` is over.
pub(crate) fn holds_within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
