//! The helper thread steps away, or stays: `away` of src/server/watch.rs and `idle` of src/server/driver.rs.

use std::sync::Mutex;

use loom::sync::Arc;
use loom::thread;

use crate::check;
use crate::sync::{AtomicBool, AtomicI32, Ordering};

/// `Driver` and `Watch`, as far as this goes. Requests are long, so every PHP thread that is the last to begin one calls.
#[derive(Default)]
struct Driver {
    /// PHP threads that wait.
    idle: AtomicI32,
    away: AtomicBool,
    /// Whether the bell has rung and the helper has not heard it. (No step of the model's: it rings with the swap.)
    bell: Mutex<bool>,
}

impl Driver {
    fn new(idle: i32) -> Arc<Self> {
        let driver = Self::default();
        driver.idle.fetch_add(idle, Ordering::SeqCst);
        Arc::new(driver)
    }

    fn all_busy(&self) -> bool {
        self.idle.load(Ordering::SeqCst) == 0
    }

    /// `Seat::next`, where a PHP thread has found a request.
    fn begin(&self) {
        self.idle.fetch_sub(1, Ordering::SeqCst);
        if self.all_busy() {
            self.call();
        }
    }

    /// `Seat::next`, where it has found none.
    fn wait(&self) {
        self.idle.fetch_add(1, Ordering::SeqCst);
    }

    /// `Watch::call`.
    fn call(&self) {
        if self.away.load(Ordering::SeqCst) && self.away.swap(false, Ordering::SeqCst) {
            *self.bell.lock().unwrap() = true;
        }
    }

    /// `Helper::step`; returns whether the helper is away.
    fn step(&self) -> bool {
        let mut away = !self.all_busy();
        self.away.store(away, Ordering::SeqCst);
        if away && self.all_busy() {
            away = false;
            self.away.store(false, Ordering::SeqCst);
        }
        away
    }

    fn hears_bell(&self) -> bool {
        std::mem::take(&mut *self.bell.lock().unwrap())
    }
}

/// The helper decides where to wait, and once more if it is called, while PHP threads do as given. It must not be away uncalled
/// when all of them are busy in the end.
fn helper_comes(preemptions: Option<usize>, idle: i32, php_threads: &'static [fn(&Driver)]) {
    check(preemptions, move || {
        let driver = Driver::new(idle);
        let helper = {
            let driver = Arc::clone(&driver);
            thread::spawn(move || {
                let away = driver.step();
                if driver.hears_bell() {
                    driver.step()
                } else {
                    away
                }
            })
        };
        let php_threads: Vec<_> = php_threads
            .iter()
            .map(|run| {
                let driver = Arc::clone(&driver);
                thread::spawn(move || run(&driver))
            })
            .collect();
        for thread in php_threads {
            thread.join().unwrap();
        }
        let away = helper.join().unwrap();
        if driver.all_busy() && away {
            assert!(
                driver.hears_bell(),
                "the helper is away, and nobody has called it"
            );
        }
    });
}

#[test]
fn helper_is_called_by_the_only_php_thread() {
    helper_comes(None, 1, &[Driver::begin]);
}

#[test]
fn helper_is_called_by_the_last_of_two_php_threads() {
    helper_comes(Some(4), 2, &[Driver::begin, Driver::begin]);
}

#[test]
fn helper_is_called_again_after_a_pause() {
    helper_comes(
        None,
        1,
        &[|driver| {
            driver.begin();
            driver.wait();
            driver.begin();
        }],
    );
}

#[test]
fn helper_is_called_though_another_waits_meanwhile() {
    helper_comes(
        Some(4),
        1,
        &[Driver::begin, |driver| {
            driver.wait();
            driver.begin();
        }],
    );
}
