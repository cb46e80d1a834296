//! A request body on its way to PHP: bounded, filled from its connection, read by the PHP thread.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::output::Output;

/// What the pipe holds before the connection is no longer read.
pub(super) const CAPACITY: usize = 256 << 10;

/// The pipe itself; the connection keeps one handle, PHP reads through a [`BodyReader`].
#[derive(Debug)]
pub(super) struct BodyPipe {
    state: Mutex<State>,
    changed: Condvar,
    output: Arc<Output>,
}

#[derive(Debug)]
struct State {
    bytes: VecDeque<u8>,
    /// No more will come: the stream ended, or the client went away.
    ended: bool,
    /// The connection's reading has been stopped because the pipe was full.
    paused: bool,
    /// PHP has finished with the request; what still comes is thrown away.
    abandoned: bool,
}

impl BodyPipe {
    pub(super) fn new(start: Vec<u8>, output: Arc<Output>) -> Self {
        let state = State {
            bytes: start.into(),
            ended: false,
            paused: false,
            abandoned: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            output,
        }
    }

    /// Adds what the client sent, and stops reading the connection when that fills the pipe.
    pub(super) fn fill(&self, data: &[u8]) {
        let mut state = self.state.lock();
        if state.abandoned {
            return;
        }
        state.bytes.extend(data);
        if state.bytes.len() >= CAPACITY {
            // Again each time: another body of this connection may have had it read on.
            state.paused = true;
            self.output.set_reading(false);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// No more will come.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_one();
    }

    /// What nobody has read yet, for passing the request on before it has started.
    pub(super) fn unread(&self) -> Vec<u8> {
        self.state.lock().bytes.iter().copied().collect()
    }
}

/// The connection's end of the pipe. Whatever becomes of the connection, PHP does not wait any longer once it is dropped.
#[derive(Debug)]
pub(super) struct BodyWriter(Arc<BodyPipe>);

impl BodyWriter {
    pub(super) fn new(pipe: Arc<BodyPipe>) -> Self {
        Self(pipe)
    }

    pub(super) fn pipe(&self) -> Arc<BodyPipe> {
        Arc::clone(&self.0)
    }
}

impl std::ops::Deref for BodyWriter {
    type Target = BodyPipe;

    fn deref(&self) -> &BodyPipe {
        &self.0
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// See [`BodyReader`].
pub(crate) type Waiting = Arc<dyn Fn(bool) + Send + Sync>;

/// PHP's end of the pipe.
pub(super) struct BodyReader {
    pipe: Arc<BodyPipe>,
    /// Called with true before waiting, so that somebody reads the connection meanwhile, and with false after it.
    waiting: Waiting,
}

impl BodyReader {
    pub(super) fn new(pipe: Arc<BodyPipe>, waiting: Waiting) -> Self {
        Self { pipe, waiting }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.pipe.state.lock();
        loop {
            if !state.bytes.is_empty() {
                let length = state.bytes.read(buffer)?;
                if state.paused && state.bytes.len() <= CAPACITY / 2 {
                    state.paused = false;
                    self.pipe.output.set_reading(true);
                }
                return Ok(length);
            }
            if state.ended || self.pipe.output.is_broken() {
                return Ok(0);
            }
            (self.waiting)(true);
            self.pipe.changed.wait(&mut state);
            (self.waiting)(false);
        }
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        state.abandoned = true;
        state.bytes = VecDeque::new();
        if state.paused {
            state.paused = false;
            self.pipe.output.set_reading(true);
        }
    }
}
