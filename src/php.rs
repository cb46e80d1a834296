//! The library: PHP scripts run from Rust, from any thread, blocking or async.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use tokio::sync::mpsc;

use crate::config::IniConfig;
use crate::engine::{
    Engine, EngineError, LogFunction, Outcome, PhpThread, RestartGuard, execute, exit_forked_child,
    is_zts,
};
use crate::request::{self, Body, ClientGone, ResponseHead, ResponseSink, Script, Variables};
use crate::server::PHP_STACK;

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
    log: LogFunction,
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
    pub fn stream(&self, request: Request) -> Result<StreamedResponse, PhpError> {
        let mut events = self.submit(request)?;
        let mut answer = Answer::default();
        loop {
            match events.blocking_recv() {
                Some(event @ Event::Head { .. }) => {
                    answer.take(event);
                    return Ok(StreamedResponse::new(answer, events));
                }
                Some(event) => answer.take(event),
                None => {
                    return answer
                        .finish()
                        .map(|head| StreamedResponse::ended(head, events));
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
                    return Ok(StreamedResponse::new(answer, events));
                }
                Some(event) => answer.take(event),
                None => {
                    return answer
                        .finish()
                        .map(|head| StreamedResponse::ended(head, events));
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

/// Pieces of a body that wait for their reader; then the script waits.
const CHUNKS: usize = 16;
/// Size of such a piece.
const CHUNK: usize = 16 << 10;

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

/// The thread that starts PHP, runs scripts, and ends PHP when the queue is closed and all others are done.
fn own_php(
    ini: &IniConfig,
    log: LogFunction,
    workers: u32,
    queue: &Receiver<Job>,
    started: &Sender<Result<(), EngineError>>,
) {
    let engine = match Engine::start(ini, log) {
        Ok(engine) => Arc::new(engine),
        Err(error) => return drop(started.send(Err(error))),
    };
    // The program's own descriptors are not ours to close.
    engine.after_fork(None);
    let guard = RestartGuard::hold(&engine);
    let mut php = match PhpThread::startup_thread(&engine) {
        Ok(php) => php,
        Err(error) => return drop(started.send(Err(error))),
    };
    thread::scope(|scope| {
        for number in 1..workers {
            let engine = &engine;
            let spawned = thread::Builder::new()
                .name(format!("php {number}"))
                .stack_size(PHP_STACK)
                .spawn_scoped(scope, move || {
                    if let Ok(mut php) = PhpThread::attach(engine) {
                        work(&mut php, queue);
                    }
                });
            // Fewer workers run the same scripts.
            drop(spawned);
        }
        let _ = started.send(Ok(()));
        work(&mut php, queue);
    });
    drop(php);
    drop(guard);
}

struct Job {
    request: request::Request,
    events: mpsc::Sender<Event>,
}

fn work(php: &mut PhpThread, queue: &Receiver<Job>) {
    for Job { request, events } in queue {
        let mut sink = Sink {
            events,
            buffer: Vec::new(),
            finished: false,
        };
        let outcome = execute(php, request, &mut sink);
        if outcome.forked {
            exit_forked_child(outcome.exit_status);
        }
        sink.end(outcome);
    }
}

/// From the PHP thread to the caller.
#[derive(Debug)]
enum Event {
    Head {
        status: u16,
        headers: Vec<(String, Vec<u8>)>,
    },
    Chunk(Bytes),
    Error(Vec<u8>),
    /// The script's last word.
    End(Outcome),
}

struct Sink {
    events: mpsc::Sender<Event>,
    buffer: Vec<u8>,
    finished: bool,
}

impl Sink {
    fn send(&self, event: Event) -> Result<(), ClientGone> {
        self.events.blocking_send(event).map_err(|_| ClientGone)
    }

    fn end(mut self, outcome: Outcome) {
        // The caller may have gone; nobody else is interested.
        let _ = self.flush();
        let _ = self.send(Event::End(outcome));
    }
}

impl ResponseSink for Sink {
    fn head(&mut self, head: ResponseHead<'_>) -> Result<(), ClientGone> {
        let headers = head.headers.filter_map(split_header).collect();
        self.send(Event::Head {
            status: head.status,
            headers,
        })
    }

    fn write(&mut self, data: &[u8]) -> Result<(), ClientGone> {
        if self.finished {
            return Ok(());
        }
        self.buffer.extend_from_slice(data);
        if self.buffer.len() >= CHUNK {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), ClientGone> {
        if self.buffer.is_empty() {
            return if self.events.is_closed() {
                Err(ClientGone)
            } else {
                Ok(())
            };
        }
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        self.send(Event::Chunk(chunk))
    }

    fn error(&mut self, message: &[u8]) {
        let _ = self.send(Event::Error(message.to_vec()));
    }

    fn finish(&mut self) -> Result<(), ClientGone> {
        let flushed = if self.finished { Ok(()) } else { self.flush() };
        self.finished = true;
        flushed
    }
}

fn split_header(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = memchr::memchr(b':', line)?;
    Some((
        String::from_utf8_lossy(&line[..colon]).into_owned(),
        line[colon + 1..].trim_ascii().to_vec(),
    ))
}

/// A script to run, and what it is to see of a request.
#[derive(Debug)]
pub struct Request {
    script: PathBuf,
    method: String,
    query: String,
    uri: Option<String>,
    headers: Vec<(String, String)>,
    variables: Vec<(String, String)>,
    body: Body,
}

impl Request {
    /// A GET request for a script.
    pub fn new(script: impl AsRef<Path>) -> Self {
        Self {
            script: script.as_ref().to_owned(),
            method: "GET".to_owned(),
            query: String::new(),
            uri: None,
            headers: Vec::new(),
            variables: Vec::new(),
            body: Body::Empty,
        }
    }

    /// The method; POST makes `$_POST` of a form.
    #[must_use]
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = method.into();
        self
    }

    /// The query string without its question mark, as `$_GET` has it.
    #[must_use]
    pub fn query(mut self, query: impl Into<String>) -> Self {
        self.query = query.into();
        self
    }

    /// `REQUEST_URI`; without it, one is made of the script's name and the query string.
    #[must_use]
    pub fn uri(mut self, uri: impl Into<String>) -> Self {
        self.uri = Some(uri.into());
        self
    }

    /// A header: `Content-Type`, `Cookie` and so on.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A CGI variable, as `$_SERVER` has it; it wins over what the request says otherwise.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// A body that is there as a whole.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Body::Complete(body.into());
        self
    }

    /// A body that is read on the PHP thread while the script runs.
    #[must_use]
    pub fn body_reader(mut self, reader: impl Read + Send + 'static) -> Self {
        self.body = Body::Stream(Box::new(reader));
        self
    }

    /// A body that is sent piece by piece, from async code or not; it ends when the [`BodySender`] is dropped.
    #[must_use]
    pub fn body_channel(mut self) -> (Self, BodySender) {
        let (sender, pieces) = mpsc::channel(CHUNKS);
        self.body = Body::Stream(Box::new(ChannelReader {
            pieces,
            piece: Bytes::new(),
        }));
        (self, BodySender { sender })
    }

    fn into_engine(self) -> Result<request::Request, PhpError> {
        let path = std::path::absolute(&self.script).map_err(|error| PhpError::ScriptNotFound {
            path: self.script.clone(),
            source: Some(error),
        })?;
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err(PhpError::ScriptNotFound { path, source: None }),
            Err(error) => {
                let source = (error.kind() != io::ErrorKind::NotFound).then_some(error);
                return Err(PhpError::ScriptNotFound { path, source });
            }
        }
        let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
        let name = path
            .file_name()
            .map(|name| format!("/{}", name.to_string_lossy()))
            .unwrap_or_default();
        let uri = self.uri.unwrap_or_else(|| {
            if self.query.is_empty() {
                name.clone()
            } else {
                format!("{name}?{}", self.query)
            }
        });
        let length = match &self.body {
            Body::Empty => Some(0),
            Body::Complete(body) => Some(body.len()),
            Body::Stream(_) => None,
        };
        let mut variables = Variables::new();
        variables.push(b"GATEWAY_INTERFACE", b"CGI/1.1");
        variables.push(b"SERVER_PROTOCOL", b"HTTP/1.1");
        variables.push(
            b"SERVER_SOFTWARE",
            concat!("fe-php/", env!("CARGO_PKG_VERSION")).as_bytes(),
        );
        variables.push(b"REQUEST_METHOD", self.method.as_bytes());
        variables.push(b"QUERY_STRING", self.query.as_bytes());
        variables.push(b"REQUEST_URI", uri.as_bytes());
        variables.push(b"SCRIPT_NAME", name.as_bytes());
        variables.push(b"SCRIPT_FILENAME", bytes);
        if let Some(parent) = path.parent() {
            variables.push(
                b"DOCUMENT_ROOT",
                std::os::unix::ffi::OsStrExt::as_bytes(parent.as_os_str()),
            );
        }
        if let Some(length) = length {
            variables.push(b"CONTENT_LENGTH", length.to_string().as_bytes());
        }
        for (name, value) in &self.headers {
            if name.contains(['\n', '\r', '\0']) || value.contains(['\n', '\r', '\0']) {
                return Err(PhpError::Malformed { what: "a header" });
            }
            if name.eq_ignore_ascii_case("Content-Type") {
                variables.push(b"CONTENT_TYPE", value.as_bytes());
            } else if !name.eq_ignore_ascii_case("Content-Length") {
                let name = format!("HTTP_{}", name.to_ascii_uppercase().replace('-', "_"));
                variables.push(name.as_bytes(), value.as_bytes());
            }
        }
        for (name, value) in &self.variables {
            if name.contains('\0') || value.contains('\0') {
                return Err(PhpError::Malformed { what: "a variable" });
            }
            variables.set(name.as_bytes(), value.as_bytes());
        }
        Ok(request::Request {
            variables,
            script: Script::File {
                path: bytes.to_vec(),
            },
            body: self.body,
        })
    }
}

/// Sends the body of a request that was made with [`Request::body_channel`].
#[derive(Debug, Clone)]
pub struct BodySender {
    sender: mpsc::Sender<Bytes>,
}

impl BodySender {
    /// Sends a piece, waiting while the script has not read the ones before. False: the script wants no more.
    pub async fn send(&self, piece: impl Into<Bytes>) -> bool {
        self.sender.send(piece.into()).await.is_ok()
    }

    /// As [`send`](Self::send), from code that is not async.
    pub fn blocking_send(&self, piece: impl Into<Bytes>) -> bool {
        self.sender.blocking_send(piece.into()).is_ok()
    }
}

struct ChannelReader {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

/// What a script answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    errors: Vec<u8>,
}

impl Response {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Header names and values in PHP's order; a name may come several times.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The first header of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers()
            .find(|(candidate, _)| candidate.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The body; empty in the head of a [`StreamedResponse`].
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body, without a copy.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// What PHP logged while the script ran (`error_log()`, `log_errors`), where `error_log` is not set.
    pub fn errors(&self) -> &[u8] {
        &self.errors
    }
}

#[derive(Debug, Default)]
struct Answer {
    response: Response,
    outcome: Option<Outcome>,
}

impl Answer {
    fn take(&mut self, event: Event) {
        match event {
            Event::Head { status, headers } => {
                self.response.status = status;
                self.response.headers = headers;
            }
            Event::Chunk(chunk) => self.response.body.extend_from_slice(&chunk),
            Event::Error(text) => self.response.errors.extend_from_slice(&text),
            Event::End(outcome) => self.outcome = Some(outcome),
        }
    }

    fn finish(self) -> Result<Response, PhpError> {
        let Some(outcome) = self.outcome else {
            return Err(ended("its thread ended"));
        };
        if let Some(reason) = outcome.panic {
            return Err(PhpError::Interrupted { reason });
        }
        if outcome.startup_failed {
            return Err(ended("php_request_startup failed"));
        }
        if outcome.exit_status == FATAL {
            let errors = String::from_utf8_lossy(&self.response.errors).into_owned();
            return Err(PhpError::Fatal {
                errors,
                response: Box::new(self.response),
            });
        }
        Ok(self.response)
    }
}

/// PHP's exit status after a fatal error or an uncaught exception.
const FATAL: i32 = 255;

/// An answer whose body comes while the script runs. Dropping it tells the script that its client has gone.
#[derive(Debug)]
pub struct StreamedResponse {
    head: Response,
    events: mpsc::Receiver<Event>,
    rest: Bytes,
    /// The script's last word has come.
    over: bool,
}

impl StreamedResponse {
    fn new(answer: Answer, events: mpsc::Receiver<Event>) -> Self {
        Self {
            head: answer.response,
            events,
            rest: Bytes::new(),
            over: false,
        }
    }

    fn ended(head: Response, events: mpsc::Receiver<Event>) -> Self {
        Self {
            head,
            events,
            rest: Bytes::new(),
            over: true,
        }
    }

    /// Status and headers.
    pub fn head(&self) -> &Response {
        &self.head
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// As [`Php::execute`]: what went wrong after the headers.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, PhpError> {
        loop {
            let event = if self.over {
                None
            } else {
                self.events.recv().await
            };
            if let Some(answer) = self.advance(event) {
                return answer;
            }
        }
    }

    /// As [`chunk`](Self::chunk), from code that is not async.
    ///
    /// # Errors
    /// The same.
    pub fn blocking_chunk(&mut self) -> Result<Option<Bytes>, PhpError> {
        loop {
            let event = if self.over {
                None
            } else {
                self.events.blocking_recv()
            };
            if let Some(answer) = self.advance(event) {
                return answer;
            }
        }
    }

    /// `None`: there is nothing to tell yet.
    fn advance(&mut self, event: Option<Event>) -> Option<Result<Option<Bytes>, PhpError>> {
        match event {
            Some(Event::Chunk(chunk)) => Some(Ok(Some(chunk))),
            Some(Event::End(outcome)) => {
                self.over = true;
                let answer = Answer {
                    response: self.head.clone(),
                    outcome: Some(outcome),
                };
                Some(answer.finish().map(|_| None))
            }
            Some(Event::Error(text)) => {
                self.head.errors.extend_from_slice(&text);
                None
            }
            Some(Event::Head { .. }) => None,
            None if self.over => Some(Ok(None)),
            None => {
                self.over = true;
                Some(Err(ended("its thread ended")))
            }
        }
    }
}

impl Read for StreamedResponse {
    /// Blocks; not for async code. An error of the script is an [`io::Error`] that holds a [`PhpError`].
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.blocking_chunk() {
                Ok(Some(chunk)) => self.rest = chunk,
                Ok(None) => return Ok(0),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}
