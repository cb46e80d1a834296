//! A busy process keeps requests, or does not look for them, and a sibling becomes idle: src/scoreboard/idle.rs, with the steps of
//! src/server/reactor/dispatch.rs and src/server/driver.rs that use it.

use std::sync::Mutex;

use loom::sync::Arc;
use loom::thread;

use crate::check;
use crate::idle::{IdleFlag, KeptSince, UnwatchedSince};

/// What a busy process and one that becomes idle have in shared memory, and what comes of it. (No steps of the model's: what is sent
/// arrives.)
#[derive(Default)]
struct Shared {
    kept: KeptSince,
    unwatched: UnwatchedSince,
    flag: IdleFlag,
    /// The request has been sent to the idle process, or the helper looks for it.
    seen: Mutex<bool>,
    /// How often the idle process has asked.
    asked: Mutex<u32>,
}

impl Shared {
    /// `Reactor::place_waiting`, where a PHP thread begins a request and keeps another one.
    fn keep(&self) {
        self.kept.keep(Some(7));
        self.look();
    }

    /// `Driver::put_off`: the helper leaves a request to the PHP thread.
    fn keep_more(&self) {
        self.kept.keep_more(7);
        self.look();
    }

    /// `Driver::wants_helper`: nobody looks for what comes.
    fn leave_unwatched(&self) {
        self.unwatched.set(7);
        self.look();
    }

    fn look(&self) {
        if self.flag.reserve() {
            *self.seen.lock().unwrap() = true;
        }
    }

    /// `Reactor::become_idle`, with `Slot::claim_all_kept`.
    fn become_idle(&self) {
        self.flag.become_idle();
        let is_unwatched = self.unwatched.claim(u64::MAX);
        let is_kept = self
            .kept
            .since()
            .is_some_and(|since| self.kept.claim(since));
        if is_unwatched || is_kept {
            *self.asked.lock().unwrap() += 1;
        }
    }
}

/// The busy process does what is given while others become idle, each of which has the same flag: one of them at most is reserved.
fn somebody_sees(keep: fn(&Shared), idle: usize) {
    check(None, move || {
        let shared = Arc::new(Shared::default());
        let siblings: Vec<_> = (0..idle)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.become_idle())
            })
            .collect();
        keep(&shared);
        for sibling in siblings {
            sibling.join().unwrap();
        }
        let (seen, asked) = (*shared.seen.lock().unwrap(), *shared.asked.lock().unwrap());
        assert!(
            seen || asked > 0,
            "the request waits, and the idle process sleeps uncalled"
        );
        assert!(asked <= 1, "one that is kept is asked for once");
    });
}

#[test]
fn request_that_a_php_thread_keeps_is_seen() {
    somebody_sees(Shared::keep, 1);
    somebody_sees(Shared::keep, 2);
}

#[test]
fn request_that_the_helper_leaves_is_seen() {
    somebody_sees(Shared::keep_more, 1);
    somebody_sees(Shared::keep_more, 2);
}

#[test]
fn process_that_does_not_look_is_woken() {
    somebody_sees(Shared::leave_unwatched, 1);
    somebody_sees(Shared::leave_unwatched, 2);
}
