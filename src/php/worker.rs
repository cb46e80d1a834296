//! The threads that run scripts for the library.

use std::sync::{Arc, OnceLock};
use std::thread;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use tokio::sync::mpsc;

use crate::config::IniConfig;
use crate::engine::{Engine, EngineError, Outcome, PhpThread, RestartGuard, execute};
use crate::request::{self, ClientGone, ResponseHead, ResponseSink};
use crate::server::PHP_STACK;

/// The thread that starts PHP, runs scripts, and ends PHP when the queue is closed and all others are done.
pub(super) fn own_php(
    ini: &IniConfig,
    log: fn(&[u8]),
    workers: u32,
    queue: &Receiver<Job>,
    started: &Sender<Result<(), EngineError>>,
) {
    // PHP starts once, so this is set once.
    let _ = LOG.set(log);
    let engine = match Engine::start(ini, on_message) {
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

/// Where messages go that belong to no request.
static LOG: OnceLock<fn(&[u8])> = OnceLock::new();

/// Takes what PHP says: for the answer it belongs to, if there is one.
fn on_message(message: &[u8], to_client: bool) -> Vec<u8> {
    if to_client {
        return [b"PHP message: ", message].concat();
    }
    if let Some(log) = LOG.get() {
        log(message);
    }
    Vec::new()
}

pub(super) struct Job {
    pub(super) request: request::Request,
    pub(super) events: mpsc::Sender<Event>,
}

fn work(php: &mut PhpThread, queue: &Receiver<Job>) {
    for Job { request, events } in queue {
        let mut sink = Sink {
            events,
            buffer: Vec::new(),
            finished: false,
        };
        let outcome = execute(php, request, &mut sink);
        sink.end(outcome);
    }
}

/// From the PHP thread to the caller.
#[derive(Debug)]
pub(super) enum Event {
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

/// Pieces of a body that wait for their reader; then the script waits.
pub(super) const CHUNKS: usize = 16;
/// Size of such a piece.
const CHUNK: usize = 16 << 10;
