//! The right to run PHP on the current thread.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::execute::CStrings;
use super::ffi;
use super::interrupt::Interrupter;
use super::opcache::OpcacheView;
use super::{Engine, EngineError};

/// PHP's state for one thread: made, used and dropped on that thread.
pub(crate) struct PhpThread {
    pub(super) strings: CStrings,
    pub(super) variables: Vec<ffi::fe_php_variable>,
    /// `cgi.fix_pathinfo`
    pub(super) fix_pathinfo: bool,
    pub(super) interrupter: Interrupter,
    pub(super) opcache_wanted: bool,
    pub(super) opcache: Option<OpcacheView>,
    kind: Kind,
    /// Its place in crash reports.
    watched: i32,
    /// PHP must not be shut down before its last thread is gone.
    _engine: Arc<Engine>,
    not_send: PhantomData<*mut ()>,
}

/// Does not compile if `PhpThread` is `Send`: then both implementations apply.
const _: () = {
    trait AmbiguousIfSend<A> {
        fn check() {}
    }
    struct Send_;
    impl<T> AmbiguousIfSend<()> for T {}
    impl<T: Send> AmbiguousIfSend<Send_> for T {}
    let _ = <PhpThread as AmbiguousIfSend<_>>::check;
};

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// The thread of module startup (in a forked child: its main thread).
    Startup,
    /// A thread that was attached.
    Attached,
}

/// NTS has one PHP state: this says whether somebody has it. ZTS never looks at it.
static TAKEN: AtomicBool = AtomicBool::new(false);

impl PhpThread {
    /// For the thread that started `engine`, or the main thread of a process forked from it.
    ///
    /// # Errors
    /// [`EngineError::ThreadTaken`] on NTS, when another `PhpThread` exists.
    pub(crate) fn startup_thread(engine: &Arc<Engine>) -> Result<Self, EngineError> {
        take()?;
        crash_stack();
        Ok(Self::new(Kind::Startup, engine))
    }

    /// For any other thread: on ZTS as many as one likes, on NTS a single one.
    ///
    /// # Errors
    /// [`EngineError::ThreadTaken`] on NTS, when another `PhpThread` exists.
    pub(crate) fn attach(engine: &Arc<Engine>) -> Result<Self, EngineError> {
        take()?;
        crash_stack();
        // SAFETY: module startup is done (there is an Engine), and this thread has no PHP state yet.
        unsafe { ffi::fe_php_thread_attach() };
        if !cfg!(php_zts) {
            // SAFETY: as above; PHP 8.3 and later measure the stack of the thread that calls this.
            unsafe { ffi::fe_php_foreign_thread() };
        }
        Ok(Self::new(Kind::Attached, engine))
    }

    /// At the end of the next request OPcache is looked at, for [`opcache`](Self::opcache).
    pub(crate) fn look_at_opcache(&mut self) {
        self.opcache_wanted = true;
    }

    /// What OPcache was like then, unless nobody has looked.
    pub(crate) fn opcache(&mut self) -> Option<OpcacheView> {
        self.opcache_wanted = false;
        self.opcache.take()
    }

    /// Gives the memory back that PHP keeps for this thread's next request; between requests only.
    pub(crate) fn release_memory(&mut self) {
        // SAFETY: this thread is PHP's, and no request runs on it, for `execute` would hold `self`.
        unsafe { ffi::fe_php_release_memory() };
    }

    /// For other threads that are to see what this one runs, or end it.
    pub(crate) fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }

    fn new(kind: Kind, engine: &Arc<Engine>) -> Self {
        // SAFETY: this thread has PHP's state, whose addresses the shim remembers until `drop`.
        let watched = unsafe { ffi::fe_php_watch_this_thread() };
        // SAFETY: as above; `execute` leaves whatever it has entered, and nothing else does.
        let interrupter = unsafe { Interrupter::of_this_thread() };
        Self {
            interrupter,
            fix_pathinfo: engine.cgi_settings().fix_pathinfo,
            watched,
            strings: CStrings::default(),
            variables: Vec::new(),
            opcache_wanted: false,
            opcache: None,
            kind,
            _engine: Arc::clone(engine),
            not_send: PhantomData,
        }
    }
}

impl Drop for PhpThread {
    fn drop(&mut self) {
        // SAFETY: the place is this thread's own.
        unsafe { ffi::fe_php_unwatch_thread(self.watched) };
        if self.kind == Kind::Attached {
            // SAFETY: this thread was attached by `attach` and runs no request.
            unsafe { ffi::fe_php_thread_detach() };
        }
        TAKEN.store(false, Ordering::Release);
    }
}

fn take() -> Result<(), EngineError> {
    if !cfg!(php_zts) && TAKEN.swap(true, Ordering::AcqRel) {
        return Err(EngineError::ThreadTaken);
    }
    Ok(())
}

fn crash_stack() {
    // SAFETY: maps memory of its own and registers it for this thread.
    let failed = unsafe { ffi::fe_php_crash_stack_for_this_thread() } != 0;
    debug_assert!(!failed, "64 KiB could not be mapped");
}
