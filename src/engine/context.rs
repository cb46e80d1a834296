//! What a callback finds behind the pointer that PHP hands back to it.

use std::io::{ErrorKind, Read};

use super::ffi;
use crate::request::{Body, ResponseSink, StatusArrays, Variables};

/// Lives on the stack of [`execute`](super::execute) for the length of one request.
pub(super) struct RequestContext<'a> {
    pub(super) sink: &'a mut dyn ResponseSink,
    pub(super) body: Body,
    /// Bytes of a complete body that PHP has read.
    pub(super) position: usize,
    pub(super) variables: &'a Variables,
    /// The same for C, made when it is asked for.
    pub(super) table: &'a mut Vec<ffi::fe_php_variable>,
    /// What `fpm_get_status()` was told last, and the same for C.
    pub(super) status: Option<StatusArrays>,
    pub(super) status_table: Vec<ffi::fe_php_status_value>,
    /// A callback panicked: its text.
    pub(super) panic: Option<String>,
}

impl RequestContext<'_> {
    /// Fills `buffer` from the body; 0 at its end, or when the client stopped sending.
    pub(super) fn read_body(&mut self, buffer: &mut [u8]) -> usize {
        match &mut self.body {
            Body::Empty => 0,
            Body::Complete(bytes) => {
                let rest = &bytes[self.position..];
                let length = rest.len().min(buffer.len());
                buffer[..length].copy_from_slice(&rest[..length]);
                self.position += length;
                length
            }
            Body::Stream(stream) => loop {
                match stream.read(buffer) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => break 0,
                    Ok(length) => break length,
                }
            },
        }
    }
}
