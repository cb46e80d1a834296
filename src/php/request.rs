//! What the library is asked to run.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::PhpError;
use super::worker::CHUNKS;
use crate::request::{self, Body, Script, Variables};

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

    pub(super) fn into_engine(self) -> Result<request::Request, PhpError> {
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
        let bytes = path.as_os_str().as_bytes();
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
            variables.push(b"DOCUMENT_ROOT", parent.as_os_str().as_bytes());
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
///
/// The script waits for the end of its body, and the end of PHP waits for the script: drop this before the last `Php`.
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
    ///
    /// # Panics
    /// In async code, whose thread must not block.
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
