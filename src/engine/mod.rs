//! The only door to PHP: module startup once per process, [`PhpThread`]s, and [`execute`].
//!
//! # Lifecycle
//!
//! [`Engine::start`] runs PHP's module startup (php.ini, extensions, OPcache, preloading) on the calling thread. A
//! process may then fork: children share OPcache's memory, and each calls [`Engine::after_fork`]. Whoever wants to
//! run a request needs a [`PhpThread`], which is bound to its thread. PHP is shut down when the `Engine` is dropped;
//! it cannot be started a second time in a process.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, ptr};

use crate::config::{IniConfig, IniMode, IniSetting};

mod backtrace;
mod context;
mod execute;
mod ffi;
mod ini;
mod interrupt;
mod opcache;
mod sapi;
mod thread;

pub(crate) use backtrace::Backtrace;
pub(crate) use execute::{Outcome, execute};
pub(crate) use interrupt::{Interrupter, RequestInfo, Running, Stage};
pub(crate) use opcache::{OpcacheView, RestartGuard};
pub(crate) use thread::PhpThread;

/// Why PHP could not be started, or not be used as was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum EngineError {
    /// PHP was started in this process before; libphp can do that once only.
    #[error("PHP was already started in this process; libphp can be started once per process")]
    AlreadyStarted,
    /// A value has a NUL byte in it, which C strings cannot hold.
    #[error("{what} contains a NUL byte")]
    Nul {
        /// Which value.
        what: &'static str,
    },
    /// `php_module_startup` failed; PHP has logged why.
    #[error("PHP's module startup failed; its own messages are in the log")]
    Startup,
    /// Another thread of this process holds PHP's only state (NTS).
    #[error("this PHP is NTS, so one thread at a time can run it, and another one does")]
    ThreadTaken,
}

/// PHP, started. Dropping it runs PHP's module shutdown.
#[derive(Debug)]
pub(crate) struct Engine {
    cgi: CgiSettings,
}

/// Settings of `cgi.*` that decide which file a request means.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CgiSettings {
    /// `cgi.fix_pathinfo`
    pub(crate) fix_pathinfo: bool,
    /// `cgi.discard_path`
    pub(crate) discard_path: bool,
    /// PHP 8.5 or later, and not `fastcgi.script_path_encoded`
    pub(crate) decode_script_path: bool,
}

/// Takes what PHP says for the server's log. If the web server is to hear it too, answers what that gets.
pub(crate) type LogFunction = fn(message: &[u8], to_client: bool) -> Vec<u8>;

static STARTED: AtomicBool = AtomicBool::new(false);
static LOG: OnceLock<LogFunction> = OnceLock::new();

impl Engine {
    /// Starts PHP in this process, on this thread.
    ///
    /// # Errors
    /// [`EngineError::AlreadyStarted`] for a second start, even after the first `Engine` was dropped;
    /// [`EngineError::Startup`] when PHP refuses its configuration.
    pub(crate) fn start(ini: &IniConfig, log: LogFunction) -> Result<Self, EngineError> {
        let location = ini::locate(ini, Path::new(compiled_ini_directory()));
        let path = location
            .file_or_directory
            .as_deref()
            .map(|p| c_string(p.as_os_str(), "the php.ini path"))
            .transpose()?;
        let scan = location
            .scan_directory
            .as_deref()
            .map(|p| c_string(p.as_os_str(), "conf.d"))
            .transpose()?;
        let mut text = ini::entries(&ini.defines);
        if cfg!(php_zts) {
            // See `RestartGuard`: a restart stays pending, rather than kill "stuck" readers that we keep on purpose.
            text.push_str("opcache.force_restart_timeout=0\n");
        }
        let entries = c_string(OsStr::new(&text), "a -d setting")?;
        let directory = env::current_dir().unwrap_or_else(|_| "/".into());
        let directory = c_string(directory.as_os_str(), "the working directory")?;

        let executable = env::current_exe().unwrap_or_default();
        let executable = c_string(executable.as_os_str(), "the program's path")?;

        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(EngineError::AlreadyStarted);
        }
        LOG.get_or_init(|| log);
        let startup = ffi::fe_php_startup {
            callbacks: sapi::CALLBACKS,
            ini_path: path.as_ref().map_or(ptr::null(), |path| path.as_ptr()),
            scan_path: scan.as_ref().map_or(ptr::null(), |scan| scan.as_ptr()),
            ini_entries: entries.as_ptr(),
            executable: executable.as_ptr(),
            directory: directory.as_ptr(),
            no_ini: ini.no_ini,
            extended_info: ini.extended_info,
        };
        // SAFETY: the flag above makes this the first and only start; every pointer outlives the call, and the shim
        // copies what it keeps.
        if unsafe { ffi::fe_php_module_startup(&raw const startup) } != 0 {
            return Err(EngineError::Startup);
        }
        // SAFETY: module startup is done, so the settings exist.
        let settings = unsafe { ffi::fe_php_read_cgi_settings() };
        Ok(Self {
            cgi: CgiSettings {
                fix_pathinfo: settings.fix_pathinfo,
                discard_path: settings.discard_path,
                decode_script_path: cfg!(php85) && !settings.script_path_encoded,
            },
        })
    }

    /// Values of `cgi.*` as they were at the start; they are PHP_INI_SYSTEM, so no request changes them.
    pub(crate) fn cgi_settings(&self) -> CgiSettings {
        self.cgi
    }

    /// To be called in a forked child (or before the first request of a process that never forks): from now on a
    /// fork is a script's `pcntl_fork`. Its child closes all descriptors from `first_own_descriptor` on.
    pub(crate) fn after_fork(&self, first_own_descriptor: Option<u32>) {
        // SAFETY: PHP is started; registers an atfork handler once.
        unsafe { ffi::fe_php_after_fork(first_own_descriptor.unwrap_or(0)) };
    }

    /// Switches off the functions that Debian's libphp has but its php-fpm has not (`pcntl_*`, `chroot`). Does nothing
    /// for a PHP that is not Debian's: there php-fpm has what libphp has. Before any fork.
    pub(crate) fn disable_process_functions(&self) {
        if !is_zts() && Path::new(compiled_ini_directory()).starts_with("/etc/php") {
            // SAFETY: PHP is started, and no request runs.
            unsafe { ffi::fe_php_disable_process_functions() };
        }
    }

    /// Requests start and end in this directory from now on, which is the working directory. Before
    /// [`after_fork`](Self::after_fork).
    pub(crate) fn stay_here(&self) {
        let directory = env::current_dir().unwrap_or_else(|_| "/".into());
        if let Ok(directory) = c_string(directory.as_os_str(), "the working directory") {
            // SAFETY: the shim copies the string.
            unsafe { ffi::fe_php_set_directory(directory.as_ptr()) };
        }
    }

    /// Makes a pool's settings PHP's own, on this thread, before its first request; answers the names that PHP does not know.
    ///
    /// With ZTS each thread has settings of its own. Extensions are for the thread that started PHP; there they have to be
    /// loaded at PHP's start, for what comes later other threads see in part.
    pub(crate) fn apply_settings<'s>(&self, settings: &'s [IniSetting]) -> Vec<&'s str> {
        let apply = |setting: &IniSetting| {
            let (Ok(name), Ok(value)) = (
                CString::new(setting.name.as_str()),
                CString::new(setting.value.as_str()),
            ) else {
                return false;
            };
            let admin = setting.mode == IniMode::Admin;
            // SAFETY: PHP is started and runs no request; the strings outlive the call, which copies them.
            unsafe { ffi::fe_php_apply_setting(name.as_ptr(), value.as_ptr(), admin) }
        };
        settings
            .iter()
            .filter(|setting| !is_zts() || setting.name != "extension")
            .filter(|setting| !apply(setting))
            .map(|setting| setting.name.as_str())
            .collect()
    }

    /// `expose_php`
    pub(crate) fn exposes_php(&self) -> bool {
        // SAFETY: PHP is started.
        unsafe { ffi::fe_php_expose() }
    }

    /// Prints what `php-fpm -v` does.
    pub(crate) fn show_version(&self) {
        // SAFETY: PHP is started; prints constants.
        unsafe { ffi::fe_php_show_version() };
    }

    /// Prints what `php-fpm -m` does.
    pub(crate) fn show_modules(&self) {
        // SAFETY: PHP is started, and no other thread loads modules.
        unsafe { ffi::fe_php_show_modules() };
    }

    /// Prints what `php-fpm -i` does; false if PHP starts no request.
    pub(crate) fn show_information(&self) -> bool {
        // SAFETY: PHP is started on this thread, and no request runs.
        unsafe { ffi::fe_php_show_information() }
    }

    /// Promises that [`request_takes_long`] is called for each request that takes some milliseconds: only then does it get its
    /// `max_execution_time` on NTS. Before the first request, once.
    pub(crate) fn watch_for_long_requests(&self) {
        // SAFETY: PHP is started, and no request runs.
        unsafe { ffi::fe_php_timeout_startup() };
    }

    /// Lets this process keep up to a megabyte of memory that it has freed.
    pub(crate) fn keep_memory(&self) {
        // SAFETY: sets numbers of the allocator's.
        unsafe { ffi::fe_php_keep_memory() };
    }

    /// From now on a crash of this process writes a PHP backtrace to `descriptor` first.
    pub(crate) fn report_crashes(&self, descriptor: i32, pool: &str) {
        let pool = CString::new(pool).unwrap_or_default();
        // SAFETY: the shim copies the name; its handler only reads PHP's memory and writes to the descriptor.
        unsafe { ffi::fe_php_install_crash_handler(descriptor, pool.as_ptr()) };
    }

    /// Whether OPcache is loaded (it may still be switched off by `opcache.enable`).
    pub(crate) fn has_opcache(&self) -> bool {
        // SAFETY: PHP is started.
        unsafe { ffi::fe_php_has_opcache() }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: PHP is started, and no PhpThread can run a request: they are made from a borrowed Engine and their
        // owners end before it.
        unsafe { ffi::fe_php_module_shutdown() };
    }
}

/// Ends a worker process that has a PHP thread which does not end: PHP's own shutdown would wait for it, or crash.
pub(crate) fn exit_beside_stuck_thread(status: i32) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(status) }
}

/// Says that the request which runs now takes long, so that it gets its `max_execution_time` (csrc/timeout.c). From any thread of
/// a process that has started PHP; does nothing on ZTS.
pub(crate) fn request_takes_long() {
    // SAFETY: on NTS, stores to an atomic of libphp's, which is there from the start.
    unsafe { ffi::fe_php_timeout_wanted() };
}

/// Blocks every signal for the current thread: signals are for PHP's threads.
pub(crate) fn block_signals() {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: writes the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set has been written above.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), ptr::null_mut()) };
}

/// Asks the scheduler to let the current thread run soon after it has been woken, before threads that compute: it has little to do
/// each time. (A time slice of its own, which Linux has since 6.12; where it is refused, nothing changes.)
pub(crate) fn run_promptly() {
    let mut attributes = SchedAttr {
        size: 0,
        policy: 0,
        flags: 0,
        nice: 0,
        priority: 0,
        runtime: 0,
        deadline: 0,
        period: 0,
    };
    let size = size_of::<SchedAttr>();
    // SAFETY: writes `size` bytes at most of a structure of plain numbers that is this long.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if read == 0 {
        attributes.runtime = SLICE_NANOSECONDS;
        // SAFETY: reads the structure, which says how long it is.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    }
}

/// `struct sched_attr` of `linux/sched/types.h`, in its first version.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// The shortest slice that the kernel gives.
const SLICE_NANOSECONDS: u64 = 100_000;

/// PHP's version: `8.2.35`.
pub(crate) fn php_version() -> &'static str {
    // SAFETY: answers a constant.
    let version = unsafe { ffi::fe_php_version() };
    // SAFETY: the constant is NUL-terminated.
    let version = unsafe { CStr::from_ptr(version) };
    version.to_str().unwrap_or("unknown")
}

/// Whether this PHP is thread-safe, so that several threads of a process can run it.
pub(crate) const fn is_zts() -> bool {
    cfg!(php_zts)
}

fn compiled_ini_directory() -> &'static OsStr {
    // SAFETY: answers a constant.
    let directory = unsafe { ffi::fe_php_compiled_ini_directory() };
    // SAFETY: the constant is NUL-terminated.
    let directory = unsafe { CStr::from_ptr(directory) };
    OsStr::from_bytes(directory.to_bytes())
}

fn c_string(text: &OsStr, what: &'static str) -> Result<CString, EngineError> {
    CString::new(text.as_bytes()).map_err(|_| EngineError::Nul { what })
}

fn log_message(message: &[u8], to_client: bool) -> Vec<u8> {
    match LOG.get() {
        Some(log) => log(message, to_client),
        None => message.to_vec(),
    }
}
