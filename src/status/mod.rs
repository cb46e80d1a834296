//! Status and ping pages: php-fpm's `pm.status_path` and `ping.path`, byte for byte where clients depend on it.
//!
//! All functions are pure: they make a [`Page`] of a [`Snapshot`]. Who answers a status request on a PHP worker counts it as
//! a running request first, as php-fpm does: the page is about a pool that is busy with this page. The supervisor, answering
//! at `pm.status_listen`, counts nothing.
//!
//! Differences from php-fpm, all of them in what it gets wrong:
//!
//! - Bytes that are not UTF-8 become U+FFFD in html and xml, where php-fpm drops the whole text; control characters in
//!   text become `?`, so that a URL cannot forge lines; method, user and script are escaped by every version.
//! - HEAD has the page's own Content-Type.
//! - `openmetrics`: php-fpm's page calls things counters that have no name a counter may have, which strict parsers refuse.
//!   A client that sends an `Accept` header, as Prometheus and every HTTP client do, or asks for `full`, gets the same
//!   metrics under the same names with types that fit, and more (`openmetrics.rs`). Without either, as a program has it that
//!   speaks FastCGI itself and was written for php-fpm, the page is php-fpm's.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::{ProcessManager, StatusConfig};
use crate::request::Variables;
use crate::scoreboard::Snapshot;

mod escape;
mod fields;
mod formats;
mod openmetrics;
mod pages;
mod php;
mod time;

pub(crate) use pages::Pages;
pub(crate) use php::php_status;

/// What a page says apart from the scoreboard's numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StatusContext<'c> {
    /// The pool's name.
    pub(crate) pool: &'c str,
    /// `pm`
    pub(crate) process_manager: &'c ProcessManager,
    /// PHP's major and minor version: 8.4 has a field more.
    pub(crate) php_version: (u32, u32),
    /// Seconds that local time is ahead of UTC at a time since 1970.
    pub(crate) utc_offset: fn(i64) -> i64,
}

impl StatusContext<'_> {
    fn process_manager_name(&self) -> &'static str {
        match self.process_manager {
            ProcessManager::Static => "static",
            ProcessManager::Dynamic { .. } => "dynamic",
            ProcessManager::OnDemand { .. } => "ondemand",
        }
    }

    fn has_memory_peak(&self) -> bool {
        self.php_version >= (8, 4)
    }
}

/// Which of the pool's own pages a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageKind {
    /// `pm.status_path`
    Status,
    /// `ping.path`
    Ping,
}

impl PageKind {
    /// The page at `request_uri`, which is `SG(request_info).request_uri`: `SCRIPT_NAME`, as php-fpm takes it.
    pub(crate) fn at(request_uri: &[u8], config: &StatusConfig) -> Option<Self> {
        let is = |path: &Option<String>| path.as_ref().is_some_and(|p| p.as_bytes() == request_uri);
        if is(&config.ping_path) {
            Some(Self::Ping)
        } else if is(&config.path) {
            Some(Self::Status)
        } else {
            None
        }
    }
}

/// How the status page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// No format was asked for.
    Text,
    /// `?html`
    Html,
    /// `?xml`
    Xml,
    /// `?json`
    Json,
    /// `?openmetrics`
    OpenMetrics {
        /// To the letter of its specification, with metrics of ours.
        strict: bool,
    },
}

impl Format {
    fn content_type(self) -> &'static str {
        // As PHP completes what php-fpm says.
        match self {
            Self::Text => TEXT_PLAIN,
            Self::Html => "text/html;charset=UTF-8",
            Self::Xml => "text/xml;charset=UTF-8",
            Self::Json => "application/json",
            Self::OpenMetrics { .. } => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            }
        }
    }
}

/// What a client wants of the status page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StatusRequest {
    /// In which format.
    pub(crate) format: Format,
    /// `?full`: with all workers; take a [`full_snapshot`](crate::scoreboard::Scoreboard::full_snapshot) then.
    pub(crate) full: bool,
    /// HEAD: headers alone.
    pub(crate) head: bool,
}

impl StatusRequest {
    /// What these CGI variables ask for.
    pub(crate) fn from_variables(variables: &Variables) -> Self {
        let query = variables.get(b"QUERY_STRING").unwrap_or_default();
        let has = |name: &[u8]| query_has(query, name);
        let full = has(b"full");
        let format = if has(b"html") {
            Format::Html
        } else if has(b"xml") {
            Format::Xml
        } else if has(b"json") {
            Format::Json
        } else if has(b"openmetrics") {
            let says_what_it_accepts = variables
                .get(b"HTTP_ACCEPT")
                .is_some_and(|accept| !accept.is_empty());
            Format::OpenMetrics {
                strict: full || says_what_it_accepts,
            }
        } else {
            Format::Text
        };
        Self {
            format,
            full,
            head: is_head(variables),
        }
    }
}

/// Whether a request is for headers alone.
pub(crate) fn is_head(variables: &Variables) -> bool {
    variables.get(b"REQUEST_METHOD") == Some(b"HEAD")
}

/// Whether `$_GET` would have a string by this name.
fn query_has(query: &[u8], name: &[u8]) -> bool {
    query.split(|&byte| byte == b'&').any(|pair| {
        let key = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
        decode(key) == name
    })
}

/// Undoes `%XX` and `+`.
fn decode(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| {
        let byte = text.get(at)?;
        char::from(*byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let escaped = match byte {
            b'%' => digit(at + 1).zip(digit(at + 2)),
            _ => None,
        };
        if let Some((high, low)) = escaped {
            decoded.push(high << 4 | low);
            at += 3;
        } else {
            decoded.push(if byte == b'+' { b' ' } else { byte });
            at += 1;
        }
    }
    decoded
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// The HTTP status code.
    pub(crate) status: u16,
    /// Header names and values, in php-fpm's order.
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    /// The body; empty for HEAD.
    pub(crate) body: Vec<u8>,
}

/// The status page.
pub(crate) fn render(
    snapshot: &Snapshot,
    context: &StatusContext<'_>,
    request: StatusRequest,
) -> Page {
    let StatusRequest { format, full, head } = request;
    let content_type = match format {
        Format::Text | Format::Html | Format::Xml => "Content-type",
        Format::Json | Format::OpenMetrics { .. } => "Content-Type",
    };
    let body = match format {
        _ if head => Vec::new(),
        Format::Text => formats::text(snapshot, context, full),
        Format::Html => formats::html(snapshot, context, full),
        Format::Xml => formats::xml(snapshot, context, full),
        Format::Json => formats::json(snapshot, context, full),
        Format::OpenMetrics { strict: true } => openmetrics::strict(snapshot, context, full),
        Format::OpenMetrics { strict: false } => openmetrics::as_php_fpm(snapshot, context),
    };
    Page {
        status: 200,
        headers: vec![
            EXPIRES,
            CACHE_CONTROL,
            (content_type, format.content_type()),
        ],
        body,
    }
}

/// The ping page. php-fpm's default `response` is `pong`.
pub(crate) fn ping(response: Option<&str>, head: bool) -> Page {
    let body = if head { "" } else { response.unwrap_or("pong") };
    Page {
        status: 200,
        headers: vec![("Content-type", TEXT_PLAIN), EXPIRES, CACHE_CONTROL],
        body: body.as_bytes().to_vec(),
    }
}

/// Whole seconds since 1970, as `time(NULL)` has them.
fn epoch(time: SystemTime) -> i64 {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

const TEXT_PLAIN: &str = "text/plain;charset=UTF-8";
const EXPIRES: (&str, &str) = ("Expires", "Thu, 01 Jan 1970 00:00:00 GMT");
const CACHE_CONTROL: (&str, &str) = (
    "Cache-Control",
    "no-cache, no-store, must-revalidate, max-age=0",
);

#[cfg(test)]
mod tests;
