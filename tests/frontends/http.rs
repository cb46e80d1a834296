//! A blocking HTTP client for tests, with a deadline on everything and no redirect followed by itself.

use std::fmt;
use std::io::{self, Read};

use serde_json::Value;
use ureq::http::request::Builder;
use ureq::http::{HeaderMap, Request, Response};
use ureq::{Agent, AsSendBody, Body, BodyReader, SendBody};

use crate::support::DEADLINE;

/// A web site, by the start of its addresses: `http://127.0.0.1:8080`.
#[derive(Debug)]
pub(crate) struct Site {
    base_url: String,
    agent: Agent,
}

/// A request that is being put together.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    site: &'a Site,
    name: String,
    request: Builder,
}

/// A whole answer.
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// In the order in which they came.
    pub(crate) headers: HeaderMap,
    /// All of it; decoded if it came in chunks.
    pub(crate) body: Vec<u8>,
}

/// A file in a form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upload<'a> {
    /// The form's name for it.
    pub(crate) field: &'a str,
    /// The client's name for it.
    pub(crate) filename: &'a str,
    /// What it holds.
    pub(crate) content: &'a [u8],
}

impl Site {
    /// The site below `base_url`, which has no slash at its end.
    pub(crate) fn new(base_url: String) -> Self {
        let agent = Agent::config_builder()
            .timeout_global(Some(DEADLINE))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .max_idle_connections(32)
            .max_idle_connections_per_host(32)
            .user_agent("fe-php tests")
            .build()
            .new_agent();
        Self { base_url, agent }
    }

    /// Where it lies.
    pub(crate) fn base_url(&self) -> &str {
        &self.base_url
    }

    /// A request with `method` for `path` (with query string).
    pub(crate) fn request(&self, method: &str, path: &str) -> Call<'_> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base_url));
        Call {
            site: self,
            name: format!("{method} {path}"),
            request,
        }
    }

    /// The answer to a GET request.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path).send()
    }
}

impl<'a> Call<'a> {
    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// Sends it without a body.
    pub(crate) fn send(self) -> Answer {
        self.finish(())
    }

    /// Sends it with a body of known length.
    pub(crate) fn send_body(self, content_type: &str, body: &[u8]) -> Answer {
        self.header("Content-Type", content_type).finish(body)
    }

    /// Sends it with an urlencoded form as body.
    pub(crate) fn send_form(self, fields: &[(&str, &str)]) -> Answer {
        let body = url_encode(fields);
        self.send_body("application/x-www-form-urlencoded", body.as_bytes())
    }

    /// Sends it with a multipart form as body.
    pub(crate) fn send_multipart(self, fields: &[(&str, &str)], upload: Upload<'_>) -> Answer {
        const BOUNDARY: &str = "----fe-php-tests-boundary";
        let mut body = Vec::new();
        for (name, value) in fields {
            let head = format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
            body.extend_from_slice(head.as_bytes());
        }
        let Upload {
            field,
            filename,
            content,
        } = upload;
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{filename}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        self.send_body(&format!("multipart/form-data; boundary={BOUNDARY}"), &body)
    }

    /// Sends it with a body of unknown length, in chunks.
    pub(crate) fn send_chunked(self, content_type: &str, body: &mut dyn Read) -> Answer {
        self.header("Content-Type", content_type)
            .finish(SendBody::from_reader(body))
    }

    /// Sends it without a body, and returns the answer's body as a stream.
    pub(crate) fn open(self) -> BodyReader<'static> {
        let (name, response) = self.run(());
        assert_eq!(response.status(), 200, "{name}: {response:?}");
        response.into_body().into_reader()
    }

    fn finish(self, body: impl AsSendBody) -> Answer {
        let (name, response) = self.run(body);
        let (head, mut body) = response.into_parts();
        let body = body.with_config().limit(u64::MAX).read_to_vec();
        let body = body.unwrap_or_else(|error| panic!("{name}: body of {head:?}: {error}"));
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        }
    }

    fn run(self, body: impl AsSendBody) -> (String, Response<Body>) {
        let request = self
            .request
            .body(body)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let response = self.site.agent.run(request);
        let response = response.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        (self.name, response)
    }
}

impl Answer {
    /// The first header of this name, or "".
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// All headers of this name.
    pub(crate) fn all_headers(&self, name: &str) -> Vec<&str> {
        self.headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "status {}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
        }
        let body = String::from_utf8_lossy(&self.body);
        let short: String = body.chars().take(4000).collect();
        write!(f, "\n{short}\n({} bytes)", self.body.len())
    }
}

/// Reads exactly `count` bytes of a stream.
pub(crate) fn read_exactly(stream: &mut impl Read, count: usize) -> io::Result<String> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Fields of a form, or of a query string.
pub(crate) fn url_encode(fields: &[(&str, &str)]) -> String {
    let pair = |(name, value): &(&str, &str)| {
        format!("{}={}", percent_encode(name), percent_encode(value))
    };
    fields.iter().map(pair).collect::<Vec<_>>().join("&")
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
