//! The words by which worker processes see which of them are idle, how many requests are in the queue, and which keep requests
//! (`server/reactor/dispatch.rs` has the protocol). `tests/model` includes this file and tries every order of its steps.
//!
//! All operations are sequentially consistent. A process that becomes idle says so and then looks whether the queue has requests; a
//! process that puts one there says so and then looks for an idle process. So at least one of the two sees the other. It is the
//! same with a process that keeps requests.
//!
//! All lie in shared memory, which is zero at first.

use super::sync::{AtomicI32, AtomicU32, AtomicU64, Ordering};

/// Runs a request, or does not take part (yet, or any more).
const BUSY: u32 = 0;
/// Waits for a request.
const IDLE: u32 = 1;
/// Waits for a request that a sibling is about to send.
const RESERVED: u32 = 2;
/// Has not taken what was sent, since it is stopped, say.
const STUCK: u32 = 3;

/// Whether a process is idle, and reserved.
#[derive(Default)]
#[repr(transparent)]
pub(super) struct IdleFlag(AtomicU32);

impl IdleFlag {
    /// The process waits for a request from now on. It looks into the queue after this.
    pub(super) fn become_idle(&self) {
        self.0.store(IDLE, Ordering::SeqCst);
    }

    /// The process waits no longer. Returns whether a sibling has reserved it, and sends something.
    pub(super) fn become_busy(&self) -> bool {
        self.0.swap(BUSY, Ordering::SeqCst) == RESERVED
    }

    /// Reserves the process; false if it is not idle, or reserved by another.
    pub(super) fn reserve(&self) -> bool {
        self.0
            .compare_exchange(IDLE, RESERVED, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// The caller has reserved the process and sends nothing after all.
    pub(super) fn cancel(&self) {
        // The process may have become busy with something else, or have ended.
        let _ = self
            .0
            .compare_exchange(RESERVED, IDLE, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// The reserved process has had time to take what was sent. Returns whether it has not: then nobody reserves it until it goes on
    /// by itself.
    pub(super) fn give_up(&self) -> bool {
        self.0
            .compare_exchange(RESERVED, STUCK, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Whether [`reserve`](Self::reserve) would succeed this moment.
    pub(super) fn is_idle(&self) -> bool {
        self.0.load(Ordering::SeqCst) == IDLE
    }

    /// The process is dead.
    pub(super) fn clear(&self) {
        self.0.store(BUSY, Ordering::SeqCst);
    }
}

/// How many requests are in the queue.
#[derive(Default)]
#[repr(transparent)]
pub(super) struct QueueLength(AtomicI32);

impl QueueLength {
    /// The queue is new. (What it was before is not believed: processes of the pool can write to it.)
    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    /// Whether requests are in the queue.
    pub(super) fn has_any(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }

    /// A request has been put into the queue. The caller looks for an idle sibling after this.
    pub(super) fn grew(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether the caller may take a request out of the queue. If there is none then, one had been counted that never came.
    pub(super) fn claim(&self) -> bool {
        let less = |length: i32| (length > 0).then(|| length - 1);
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
            .is_ok()
    }
}

/// Since when the first of the requests waits that a busy process keeps, in some unit of time; 0 if it keeps none.
#[derive(Default)]
#[repr(transparent)]
pub(super) struct KeptSince(AtomicU64);

impl KeptSince {
    /// The process keeps requests, the first since then, or none. It looks for an idle sibling after this.
    pub(super) fn keep(&self, since: Option<u64>) {
        self.0
            .store(since.map_or(0, |since| since.max(1)), Ordering::SeqCst);
    }

    /// The process keeps one that waits since `now`, and perhaps others before. It looks for an idle sibling after this.
    pub(super) fn keep_more(&self, now: u64) {
        let _ = self
            .0
            .compare_exchange(0, now.max(1), Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Since when the first waits.
    pub(super) fn since(&self) -> Option<u64> {
        let since = self.0.load(Ordering::SeqCst);
        (since > 0).then_some(since)
    }

    /// Whether the caller is to ask the process for what it keeps `since` then: one of those that see it.
    pub(super) fn claim(&self, since: u64) -> bool {
        self.0
            .compare_exchange(since, 0, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

/// Since when nobody in a busy process sees what becomes ready there, as long as no sibling asks; 0 if somebody does.
#[derive(Default)]
#[repr(transparent)]
pub(super) struct UnwatchedSince(AtomicU64);

impl UnwatchedSince {
    /// The process does not look from `now` on. It looks for an idle sibling after this.
    pub(super) fn set(&self, now: u64) {
        self.0.store(now.max(1), Ordering::SeqCst);
    }

    /// Whether the caller is to have the process look, which has not done so since before `than`: one of those that see it.
    pub(super) fn claim(&self, than: u64) -> bool {
        let since = self.0.load(Ordering::SeqCst);
        since != 0
            && since < than
            && self
                .0
                .compare_exchange(since, 0, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
    }

    /// The process looks, or is dead.
    pub(super) fn clear(&self) {
        if self.0.load(Ordering::SeqCst) != 0 {
            self.0.store(0, Ordering::SeqCst);
        }
    }
}
