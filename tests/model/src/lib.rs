//! Models of how worker processes share requests: `src/server/reactor/dispatch.rs` has the rules.
//!
//! - `hand_over`: the flags and the count in shared memory, with src/scoreboard/idle.rs itself, in every order.
//! - `kept`: the same for requests that a busy process keeps or does not look for.
//! - `away`: how the helper thread and the PHP threads of a process agree on who waits for events, in every order.
//! - `simulation`: the rules as a whole, for many random schedules.
#![cfg(test)]

mod away;
mod hand_over;
#[allow(dead_code)] // each is used in the package
#[path = "../../../src/scoreboard/idle.rs"]
mod idle;
mod kept;
mod simulation;
mod sync;

/// Tries every order in which the threads of a test can run, but for those in which threads are interrupted between two steps more
/// than `preemptions` times in all.
fn check(preemptions: Option<usize>, test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.max_branches = 10_000;
    model.check(test);
}
