//! A request that is ready to run, on its way to a PHP thread.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Instant;

use super::books::Books;
use super::exchange::{Account, Exchange, FastcgiSink};
use super::script::{ScriptSettings, resolve};
use crate::engine::{PhpThread, execute};
use crate::fastcgi::{ProtocolStatus, RecordType};
use crate::log;
use crate::request::{Body, Request, RequestEnd, RequestStart, Variables};
use crate::scoreboard::Waits;
use crate::status::PageKind;

/// All that a request needs. If it is dropped without having run, its client is told so.
#[derive(Debug)]
pub(crate) struct Job {
    /// The connection's token in its reactor.
    pub(super) token: u64,
    pub(super) exchange: Arc<Exchange>,
    pub(super) variables: Variables,
    pub(super) body: Body,
    /// When it was complete.
    pub(super) ready: Instant,
    /// It is in the pool's count of requests that wait.
    pub(super) counted: bool,
    /// On what kind of connection it waits.
    pub(super) waits: Waits,
}

impl Job {
    /// A request on an open connection, which is complete since `ready`.
    pub(super) fn new(
        token: u64,
        exchange: Arc<Exchange>,
        variables: Variables,
        body: Body,
        ready: Instant,
    ) -> Self {
        Self {
            token,
            exchange,
            variables,
            body,
            ready,
            counted: false,
            waits: Waits::OnOpen,
        }
    }

    /// Runs it on this thread; returns when PHP has shut the request down. `pool` is named in the log.
    pub(crate) fn run(
        self,
        thread: &mut PhpThread,
        settings: &ScriptSettings,
        books: &mut Books,
        pool: &str,
    ) {
        let Self {
            exchange,
            mut variables,
            body,
            ..
        } = self;
        if let Some(kind) = books.pages().kind(&variables) {
            answer_page(kind, &variables, &body, &exchange, books);
            return;
        }
        let script = resolve(&mut variables, settings);
        let body = body_file(&variables, pool).unwrap_or(body);
        let mut sink = FastcgiSink::new(exchange, books);
        let outcome = execute(
            thread,
            Request {
                variables,
                script,
                body,
            },
            &mut sink,
        );
        if let Some(panic) = &outcome.panic {
            log::error(format_args!(
                "[pool {pool}] a panic while answering a request, which has been cut short: {panic}"
            ));
        }
        if outcome.startup_failed {
            log::error(format_args!(
                "[pool {pool}] php_request_startup failed; the request was answered with an empty page"
            ));
        }
    }

    /// Answers without running it.
    pub(super) fn refuse(self, status: ProtocolStatus) {
        let _ = self.exchange.end(status);
    }
}

/// Answers a request for a page of the pool's own.
fn answer_page(
    kind: PageKind,
    variables: &Variables,
    body: &Body,
    exchange: &Exchange,
    mut books: &mut Books,
) {
    let value = |name: &[u8]| variables.get(name).unwrap_or_default();
    let length = std::str::from_utf8(value(b"CONTENT_LENGTH")).ok();
    books.begin(&RequestStart {
        method: value(b"REQUEST_METHOD"),
        request_uri: value(b"SCRIPT_NAME"),
        query_string: value(b"QUERY_STRING"),
        script: b"", // there is none: php-fpm looks for it, and finds no file
        authorization: value(b"HTTP_AUTHORIZATION"),
        content_length: length
            .and_then(|length| length.trim().parse().ok())
            .unwrap_or(0),
    });
    // Whoever sends a body to it gets no use out of that.
    let _ = body;
    let pages = Arc::clone(books.pages());
    let page = pages.page(kind, variables);
    if books.wants_headers() {
        let end = memchr::memmem::find(&page, b"\r\n\r\n").unwrap_or(page.len());
        let lines = page[..end].split(|&byte| byte == b'\n');
        let lines: Vec<&[u8]> = lines.map(<[u8]>::trim_ascii_end).collect();
        books.head(&lines);
    }
    // A client that has gone needs no page.
    let _ = exchange.forward(RecordType::Stdout, &page);
    books.end(
        &RequestEnd {
            variables,
            memory_peak: 0,
            status: 200,
        },
        exchange.output(),
    );
    let _ = exchange.end(ProtocolStatus::RequestComplete);
}

/// The file that holds the body when the web server has stored it (nginx's `fastcgi_request_body_file`), as php-fpm reads it.
fn body_file(variables: &Variables, pool: &str) -> Option<Body> {
    let name = variables
        .get(b"REQUEST_BODY_FILE")
        .filter(|name| !name.is_empty())?;
    match File::open(OsStr::from_bytes(name)) {
        Ok(file) => Some(Body::Stream(Box::new(file))),
        Err(error) => {
            let name = String::from_utf8_lossy(name);
            log::warning(format_args!(
                "[pool {pool}] REQUEST_BODY_FILE: {name} cannot be opened: {error}; the body is empty"
            ));
            Some(Body::Empty)
        }
    }
}
