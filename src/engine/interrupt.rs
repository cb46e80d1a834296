//! A PHP thread as other threads see it: what it runs, and a way to end that.
//!
//! Whoever looks holds a lock that the PHP thread needs to begin and end a request. So what is found out, and what is stopped, is
//! one request, and the thread's state cannot go away meanwhile.

use std::fmt;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::backtrace::{self, Backtrace, text};
use super::ffi;

/// The handle that other threads have; cheap to clone. It outlives its PHP thread, and then finds nothing running.
#[derive(Clone)]
pub(crate) struct Interrupter {
    state: Arc<Mutex<State>>,
}

struct State {
    view: ffi::fe_php_view,
    /// A request runs. Never true once the PHP thread is gone.
    runs: bool,
}

/// The request that runs, which cannot end while this is held: so not for long.
pub(crate) struct Running<'a> {
    state: MutexGuard<'a, State>,
}

/// php-fpm's request stages, as far as they concern PHP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The script has not started: a body is being read, or parsed.
    Info,
    /// The script runs.
    Executing,
    /// It has ended, or called `fastcgi_finish_request()`; shutdown functions may be running.
    Finished,
}

/// What a request asks for, in php-fpm's words; long values are cut.
#[derive(Debug, Clone)]
pub(crate) struct RequestInfo {
    pub(crate) stage: Stage,
    pub(crate) method: String,
    pub(crate) request_uri: String,
    pub(crate) query_string: String,
    /// The script's file; empty where there is none.
    pub(crate) script: String,
}

impl Interrupter {
    /// For the calling thread.
    ///
    /// # Safety
    /// This thread is PHP's, and [`leave`](Self::leave) is called before it stops to be.
    pub(super) unsafe fn of_this_thread() -> Self {
        let mut view = MaybeUninit::<ffi::fe_php_view>::uninit();
        // SAFETY: the thread is PHP's, by this function's own condition; the shim fills in every field.
        unsafe { ffi::fe_php_view_of_this_thread(view.as_mut_ptr()) };
        // SAFETY: filled in above.
        let view = unsafe { view.assume_init() };
        Self {
            state: Arc::new(Mutex::new(State { view, runs: false })),
        }
    }

    /// On the PHP thread: a request begins.
    pub(super) fn enter(&self) {
        self.state.lock().runs = true;
    }

    /// On the PHP thread: no request runs any more. It waits for those who look.
    pub(super) fn leave(&self) {
        let mut state = self.state.lock();
        state.runs = false;
        // SAFETY: this is the PHP thread, so its state is there.
        unsafe { ffi::fe_php_forget_stop(&raw const state.view) };
    }

    /// The request that runs now, if one does.
    pub(crate) fn running(&self) -> Option<Running<'_>> {
        let state = self.state.lock();
        state.runs.then_some(Running { state })
    }
}

impl Running<'_> {
    /// Ends the script with a fatal error that names `limit`, at the next place where PHP looks for interrupts: shutdown functions
    /// run, the PHP thread serves on, and the answer is a 504 unless its head has been sent. A system call that is waiting is
    /// interrupted. Where the caller of that call goes on waiting (database clients, `shell_exec`), the request does not end;
    /// neither does one that is busy in a long function of PHP's own. Call it again to interrupt the next system call.
    pub(crate) fn stop(&self, limit: Duration) {
        let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        // SAFETY: a request runs, so the thread's state is there, and it exists.
        unsafe { ffi::fe_php_ask_to_stop(&raw const self.state.view, milliseconds) };
    }

    /// Whether [`stop`](Self::stop) was called and PHP has not seen it yet.
    pub(crate) fn is_stop_pending(&self) -> bool {
        // SAFETY: as in `stop`.
        unsafe { ffi::fe_php_stop_is_pending(&raw const self.state.view) }
    }

    /// What is being run, innermost first, with up to `depth` frames. It takes some ten microseconds up to a few milliseconds, and
    /// the script notices nothing. Empty while no code is executed: when a file is being compiled, for example.
    pub(crate) fn backtrace(&self, depth: usize) -> Backtrace {
        backtrace::read(&self.state.view, depth)
    }

    /// Which request it is; `None` at its very beginning.
    pub(crate) fn info(&self) -> Option<RequestInfo> {
        let mut running = Box::<ffi::fe_php_running>::new_uninit();
        // SAFETY: a request runs; all is read through the kernel.
        if !unsafe { ffi::fe_php_read_running(&raw const self.state.view, running.as_mut_ptr()) } {
            return None;
        }
        // SAFETY: the shim has answered that it filled everything in (strings up to their NUL).
        let running = unsafe { running.assume_init() };
        Some(RequestInfo {
            stage: match u32::from(running.stage) {
                ffi::FE_PHP_STAGE_INFO => Stage::Info,
                ffi::FE_PHP_STAGE_EXECUTING => Stage::Executing,
                _ => Stage::Finished,
            },
            method: text(&running.method),
            request_uri: text(&running.request_uri),
            query_string: text(&running.query_string),
            script: text(&running.script),
        })
    }
}

// SAFETY: the addresses inside are used under the lock and while a request runs, and the shim makes of them only atomic
// stores, copies through the kernel, and a signal.
unsafe impl Send for State {}

impl fmt::Debug for Interrupter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupter").finish_non_exhaustive()
    }
}
