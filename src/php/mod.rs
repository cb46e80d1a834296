//! The library: PHP scripts run from Rust, from any thread, blocking or async.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, bounded, unbounded};
use tokio::sync::mpsc;

use crate::config::IniConfig;
use crate::engine::{EngineError, is_zts};
use crate::server::PHP_STACK;

mod request;
mod response;
mod worker;

pub use request::{BodySender, Request};
pub use response::{Response, StreamedResponse};

use response::Answer;
use worker::{CHUNKS, Event, Job, own_php};

/// PHP, started in this process: runs scripts on threads of its own.
///
/// It can be started once in a process, for libphp cannot be started again. Any number of threads may call
/// [`execute`](Self::execute) at once. With a ZTS PHP as many scripts run at the same time as there are workers; with
/// an NTS PHP one does, and the others queue. Dropping the last handle lets running scripts finish and ends PHP.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let directory = tempfile::tempdir()?;
/// let script = directory.path().join("hello.php");
/// std::fs::write(&script, "<?php echo 'Hello ', $_GET['name'];")?;
///
/// let php = fe_php::Php::builder().workers(2).ini("memory_limit", "256M").start()?;
/// let response = php.execute(fe_php::Request::new(&script).query("name=World"))?;
/// assert_eq!(response.status(), 200);
/// assert_eq!(response.body(), b"Hello World");
///
/// // Misuse is an error value.
/// assert!(matches!(
///     php.execute(fe_php::Request::new("/does/not/exist.php")),
///     Err(fe_php::PhpError::ScriptNotFound { .. })
/// ));
/// assert!(matches!(fe_php::Php::builder().start(), Err(fe_php::PhpError::AlreadyStarted)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Php {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `None` only while it is dropped.
    jobs: Option<Sender<Job>>,
    startup_thread: Option<JoinHandle<()>>,
    workers: u32,
}

/// How to start PHP; see [`Php::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    workers: u32,
    ini: IniConfig,
    log: fn(&[u8]),
}

/// Why PHP could not be started, or a script not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhpError {
    /// PHP was started in this process before (even if it has ended since).
    #[error("PHP was already started in this process; libphp can be started once per process")]
    AlreadyStarted,
    /// PHP did not start.
    #[error("PHP cannot be started: {reason}")]
    Startup {
        /// Why.
        reason: String,
    },
    /// The script is not a file, or cannot be looked at.
    #[error("there is no script {}", path.display())]
    ScriptNotFound {
        /// What was asked for.
        path: PathBuf,
        /// The system's word, if it is more than that there is no such file.
        source: Option<io::Error>,
    },
    /// The script ended with a fatal error, an uncaught exception, or `exit(255)`.
    #[error("the script ended with a fatal error: {errors}")]
    Fatal {
        /// What PHP logged for this request, if `log_errors` is on.
        errors: String,
        /// What the script had answered, usually with status 500.
        response: Box<Response>,
    },
    /// A value has a NUL byte or a line break where none can be.
    #[error("{what} contains a NUL byte or a line break")]
    Malformed {
        /// Which value.
        what: &'static str,
    },
    /// The PHP thread is gone: PHP is ending, or a body's reader panicked.
    #[error("the script was not run to its end: {reason}")]
    Interrupted {
        /// Why.
        reason: String,
    },
}

impl Php {
    /// Four workers, and php.ini by PHP's own rules (`/etc/php/X.Y/fpm` on Debian), unless told otherwise.
    pub fn builder() -> Builder {
        Builder {
            workers: 4,
            ini: IniConfig::default(),
            log: |line| eprintln!("{}", String::from_utf8_lossy(line)),
        }
    }

    /// Runs a script and waits for the whole answer.
    ///
    /// # Errors
    /// [`PhpError::ScriptNotFound`], [`PhpError::Fatal`] with what the script had answered, [`PhpError::Interrupted`].
    ///
    /// # Panics
    /// In async code, whose thread must not block: use [`execute_async`](Self::execute_async) there.
    pub fn execute(&self, request: Request) -> Result<Response, PhpError> {
        let mut events = self.submit(request)?;
        let mut answer = Answer::default();
        while let Some(event) = events.blocking_recv() {
            answer.take(event);
        }
        answer.finish()
    }

    /// As [`execute`](Self::execute), from async code.
    ///
    /// # Errors
    /// The same.
    pub async fn execute_async(&self, request: Request) -> Result<Response, PhpError> {
        let mut events = self.submit(request)?;
        let mut answer = Answer::default();
        while let Some(event) = events.recv().await {
            answer.take(event);
        }
        answer.finish()
    }

    /// Runs a script and returns when its status and headers are known; the body follows as the script prints it.
    ///
    /// # Errors
    /// As [`execute`](Self::execute); an error after the headers comes with the body.
    ///
    /// # Panics
    /// In async code, whose thread must not block: use [`stream_async`](Self::stream_async) there.
    pub fn stream(&self, request: Request) -> Result<StreamedResponse, PhpError> {
        let mut events = self.submit(request)?;
        let mut answer = Answer::default();
        loop {
            match events.blocking_recv() {
                Some(event @ Event::Head { .. }) => {
                    answer.take(event);
                    return Ok(StreamedResponse::new(self, answer, events));
                }
                Some(event) => answer.take(event),
                None => {
                    return answer
                        .finish()
                        .map(|head| StreamedResponse::ended(self, head, events));
                }
            }
        }
    }

    /// As [`stream`](Self::stream), from async code.
    ///
    /// # Errors
    /// The same.
    pub async fn stream_async(&self, request: Request) -> Result<StreamedResponse, PhpError> {
        let mut events = self.submit(request)?;
        let mut answer = Answer::default();
        loop {
            match events.recv().await {
                Some(event @ Event::Head { .. }) => {
                    answer.take(event);
                    return Ok(StreamedResponse::new(self, answer, events));
                }
                Some(event) => answer.take(event),
                None => {
                    return answer
                        .finish()
                        .map(|head| StreamedResponse::ended(self, head, events));
                }
            }
        }
    }

    /// Scripts that run at the same time: 1 with an NTS PHP.
    pub fn workers(&self) -> u32 {
        self.inner.workers
    }

    /// PHP's version, like `8.2.35`.
    pub fn version() -> &'static str {
        crate::engine::php_version()
    }

    /// Whether PHP is thread-safe (ZTS), so that several scripts run at the same time.
    pub const fn is_zts() -> bool {
        is_zts()
    }

    fn submit(&self, request: Request) -> Result<mpsc::Receiver<Event>, PhpError> {
        let request = request.into_engine()?;
        let (sender, events) = mpsc::channel(CHUNKS);
        let jobs = self
            .inner
            .jobs
            .as_ref()
            .ok_or_else(|| ended("PHP has ended"))?;
        jobs.send(Job {
            request,
            events: sender,
        })
        .map_err(|_| ended("PHP has ended"))?;
        Ok(events)
    }
}

fn ended(reason: &str) -> PhpError {
    PhpError::Interrupted {
        reason: reason.to_owned(),
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.startup_thread.take() {
            // It returns when running scripts are done; a panic in it has been told already.
            let _ = thread.join();
        }
    }
}

impl Builder {
    /// Scripts that may run at the same time (1 to 1024); an NTS PHP has one worker whatever is asked for.
    #[must_use]
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers.clamp(1, 1024);
        self
    }

    /// A php.ini setting, which wins over php.ini.
    #[must_use]
    pub fn ini(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.ini.defines.push((name.into(), value.into()));
        self
    }

    /// The php.ini to read, or the directory that holds one.
    #[must_use]
    pub fn ini_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.ini.path = Some(path.into());
        self
    }

    /// Reads no php.ini at all.
    #[must_use]
    pub fn no_ini(mut self) -> Self {
        self.ini.no_ini = true;
        self
    }

    /// Where PHP's messages go that belong to no request (by default: standard error).
    #[must_use]
    pub fn log(mut self, log: fn(&[u8])) -> Self {
        self.log = log;
        self
    }

    /// Starts PHP.
    ///
    /// # Errors
    /// [`PhpError::AlreadyStarted`] the second time in a process, [`PhpError::Startup`] if PHP refuses its
    /// configuration, [`PhpError::Malformed`] for a setting that has a line break in it.
    pub fn start(self) -> Result<Php, PhpError> {
        if self
            .ini
            .defines
            .iter()
            .any(|(name, value)| name.contains(['\n', '\0']) || value.contains(['\n', '\0']))
        {
            return Err(PhpError::Malformed {
                what: "a php.ini setting",
            });
        }
        let workers = if is_zts() { self.workers } else { 1 };
        let (jobs, queue) = unbounded();
        let (started, start) = bounded(1);
        let startup_thread = thread::Builder::new()
            .name("php 0".to_owned())
            .stack_size(PHP_STACK)
            .spawn(move || own_php(&self.ini, self.log, workers, &queue, &started))
            .map_err(|error| PhpError::Startup {
                reason: error.to_string(),
            })?;
        match start.recv() {
            Ok(Ok(())) => Ok(Php {
                inner: Arc::new(Inner {
                    jobs: Some(jobs),
                    startup_thread: Some(startup_thread),
                    workers,
                }),
            }),
            Ok(Err(EngineError::AlreadyStarted)) => Err(PhpError::AlreadyStarted),
            Ok(Err(error)) => Err(PhpError::Startup {
                reason: error.to_string(),
            }),
            Err(_) => Err(PhpError::Startup {
                reason: "its thread ended".to_owned(),
            }),
        }
    }
}
