//! The two words by which worker processes see which of them are idle and how many requests are in the queue
//! (`server/reactor/dispatch.rs` has the protocol). `tests/model` includes this file and tries every order of its steps.
//!
//! All operations are sequentially consistent. A process that becomes idle says so and then looks whether the queue has requests; a
//! process that puts one there says so and then looks for an idle process. So at least one of the two sees the other.
//!
//! Both lie in shared memory, which is zero at first.

use super::sync::{AtomicI32, AtomicU32, Ordering};

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
