//! A request's bytes, made up once and sent as they are.

use crate::fastcgi::{RecordType, Role, encoder};
use crate::request::Variables;

/// A script that requests are made for.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) script: String,
    /// Each how many requests it gets one; 1 for the script that gets all others.
    pub(super) every: u64,
    /// The request.
    pub(super) bytes: Vec<u8>,
}

/// What a request says.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) script: &'a str,
    pub(super) root: &'a str,
    pub(super) name: &'a str,
    pub(super) query: &'a str,
    /// Variables in place of the usual ones.
    pub(super) params: &'a [(String, String)],
    pub(super) method: &'a str,
    pub(super) content_type: &'a str,
    pub(super) body: Option<&'a [u8]>,
    pub(super) keep_alive: bool,
}

impl Request<'_> {
    /// The request as nginx sends it with Debian's `fastcgi.conf` and a browser's usual headers.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let variables = self.variables();
        let mut bytes = Vec::new();
        encoder::push_begin_request(&mut bytes, ID, Role::Responder, self.keep_alive);
        encoder::push_params(&mut bytes, ID, &variables);
        if let Some(body) = self.body {
            encoder::push_stream(&mut bytes, RecordType::Stdin, ID, body);
        }
        encoder::push_stream_end(&mut bytes, RecordType::Stdin, ID);
        bytes
    }

    fn variables(&self) -> Variables {
        let uri = match self.query {
            "" => self.name.to_owned(),
            query => format!("{}?{query}", self.name),
        };
        let length = self
            .body
            .map_or_else(String::new, |body| body.len().to_string());
        let content_type = if self.body.is_some() {
            self.content_type
        } else {
            ""
        };
        let root = if self.root.is_empty() { "/" } else { self.root };
        let usual = [
            ("SCRIPT_FILENAME", self.script),
            ("QUERY_STRING", self.query),
            ("REQUEST_METHOD", self.method),
            ("CONTENT_TYPE", content_type),
            ("CONTENT_LENGTH", &length),
            ("SCRIPT_NAME", self.name),
            ("REQUEST_URI", &uri),
            ("DOCUMENT_URI", self.name),
            ("DOCUMENT_ROOT", root),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("REQUEST_SCHEME", "http"),
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("SERVER_SOFTWARE", "nginx/1.22.1"),
            ("REMOTE_ADDR", "192.0.2.7"),
            ("REMOTE_PORT", "40000"),
            ("REMOTE_USER", ""),
            ("SERVER_ADDR", "192.0.2.1"),
            ("SERVER_PORT", "80"),
            ("SERVER_NAME", "localhost"),
            ("REDIRECT_STATUS", "200"),
            ("HTTP_HOST", "localhost"),
            (
                "HTTP_USER_AGENT",
                "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            ),
            (
                "HTTP_ACCEPT",
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            ),
            ("HTTP_ACCEPT_LANGUAGE", "en-US,en;q=0.5"),
            ("HTTP_ACCEPT_ENCODING", "gzip, deflate, br"),
        ];
        let mut variables = Variables::new();
        for (name, value) in usual {
            variables.push(name.as_bytes(), value.as_bytes());
        }
        for (name, value) in self.params {
            variables.set(name.as_bytes(), value.as_bytes());
        }
        variables
    }
}

/// A form field of `size` bytes with its name, so that PHP has something to read whatever the script wants of it.
pub(super) fn form_of(size: usize) -> Vec<u8> {
    let mut body = b"body=".to_vec();
    body.resize(size.max(body.len()), b'x');
    body.truncate(size);
    body
}

/// One request at a time is open on a connection.
pub(super) const ID: u16 = 1;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_the_size_asked_for() {
        assert_eq!(form_of(7), b"body=xx");
        assert_eq!(form_of(3), b"bod");
    }

    #[test]
    fn a_param_replaces_the_usual_one() {
        let params = [("HTTP_HOST".to_owned(), "example.test".to_owned())];
        let request = Request {
            script: "/www/a/b.php",
            root: "/www",
            name: "/a/b.php",
            query: "x=1",
            params: &params,
            method: "POST",
            content_type: "text/plain",
            body: Some(b"body"),
            keep_alive: true,
        };
        let variables = request.variables();
        let get =
            |name: &str| std::str::from_utf8(variables.get(name.as_bytes()).unwrap()).unwrap();
        assert_eq!(get("HTTP_HOST"), "example.test");
        assert_eq!(get("REQUEST_URI"), "/a/b.php?x=1");
        assert_eq!(get("DOCUMENT_ROOT"), "/www");
        assert_eq!(get("CONTENT_LENGTH"), "4");
        assert_eq!(variables.len(), 25);
    }
}
