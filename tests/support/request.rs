//! A FastCGI request as a web server would send it, and every deviation that a test wants.

use std::path::Path;

use super::client::{BEGIN_REQUEST, PARAMS, STDIN};

/// What to ask. Built by value: `Request::get(root, "/a.php").header("Accept", "*/*")`.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    id: u16,
    role: u16,
    flags: u8,
    params: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
}

impl Request {
    /// A GET of `uri` (path and query string) as nginx would send it with Debian's `fastcgi.conf`; the script is the
    /// path below `root`.
    pub(crate) fn get(root: &Path, uri: &str) -> Self {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let root = root.to_str().unwrap();
        let params = [
            ("SCRIPT_FILENAME", format!("{root}{path}").as_str()),
            ("QUERY_STRING", query),
            ("REQUEST_METHOD", "GET"),
            ("CONTENT_TYPE", ""),
            ("CONTENT_LENGTH", ""),
            ("SCRIPT_NAME", path),
            ("REQUEST_URI", uri),
            ("DOCUMENT_URI", path),
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
            ("SERVER_NAME", "example.test"),
            ("REDIRECT_STATUS", "200"),
            ("HTTP_HOST", "example.test"),
        ]
        .map(|(name, value)| (name.into(), value.into()));
        Self {
            id: 1,
            role: 1,
            flags: 0,
            params: params.into(),
            body: Vec::new(),
        }
    }

    /// The request's number on its connection.
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    /// Sets the request's number.
    pub(crate) fn with_id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    /// Sets the role; 1 is the responder.
    pub(crate) fn role(mut self, role: u16) -> Self {
        self.role = role;
        self
    }

    /// Asks for the connection to stay open.
    pub(crate) fn keep(mut self) -> Self {
        self.flags |= 1;
        self
    }

    /// Sets a param in place, or appends it.
    pub(crate) fn param(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        match self
            .params
            .iter_mut()
            .find(|(found, _)| found == name.as_bytes())
        {
            Some((_, found)) => *found = value.as_ref().into(),
            None => self.params.push((name.into(), value.as_ref().into())),
        }
        self
    }

    /// Appends a param, even if one of that name is there.
    pub(crate) fn another_param(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.params
            .push((name.as_ref().into(), value.as_ref().into()));
        self
    }

    /// Removes a param.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.params.retain(|(found, _)| found != name.as_bytes());
        self
    }

    /// Removes all params.
    pub(crate) fn without_params(mut self) -> Self {
        self.params.clear();
        self
    }

    /// Sets the param of an HTTP header.
    pub(crate) fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.param(
            &format!("HTTP_{}", name.to_ascii_uppercase().replace('-', "_")),
            value,
        )
    }

    /// Sets the method.
    pub(crate) fn method(self, method: &str) -> Self {
        self.param("REQUEST_METHOD", method)
    }

    /// A POST with this body, its length and type announced.
    pub(crate) fn post(self, content_type: &str, body: impl AsRef<[u8]>) -> Self {
        let length = body.as_ref().len().to_string();
        let post = self
            .method("POST")
            .param("CONTENT_TYPE", content_type)
            .param("CONTENT_LENGTH", length);
        post.body(body)
    }

    /// A POST of an urlencoded form.
    pub(crate) fn form(self, body: impl AsRef<[u8]>) -> Self {
        self.post("application/x-www-form-urlencoded", body)
    }

    /// Sets the bytes of the body and nothing else.
    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().into();
        self
    }

    /// All params in order.
    pub(crate) fn params(&self) -> &[(Vec<u8>, Vec<u8>)] {
        &self.params
    }

    /// The whole request.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.encode_head();
        bytes.extend(stream(STDIN, self.id, &self.body));
        bytes
    }

    /// The request up to the end of its params, without a body.
    pub(crate) fn encode_head(&self) -> Vec<u8> {
        let mut bytes = self.encode_begin();
        bytes.extend(stream(PARAMS, self.id, &self.encode_params()));
        bytes
    }

    /// Only the first record.
    pub(crate) fn encode_begin(&self) -> Vec<u8> {
        let role = self.role.to_be_bytes();
        record(
            BEGIN_REQUEST,
            self.id,
            &[role[0], role[1], self.flags, 0, 0, 0, 0, 0],
        )
    }

    /// The content of the params stream.
    pub(crate) fn encode_params(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, value) in &self.params {
            pair(&mut bytes, name, value);
        }
        bytes
    }
}

/// Appends a name-value pair.
pub(crate) fn pair(bytes: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for length in [name.len(), value.len()] {
        if length < 0x80 {
            bytes.push(length as u8);
        } else {
            bytes.extend((length as u32 | 0x8000_0000).to_be_bytes());
        }
    }
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(value);
}

/// The pairs in the content of a GET_VALUES_RESULT; short lengths only.
pub(crate) fn pairs(mut content: &[u8]) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    while let [name, value, rest @ ..] = content {
        let (name, rest) = rest.split_at(usize::from(*name));
        let (value, rest) = rest.split_at(usize::from(*value));
        pairs.push((
            String::from_utf8(name.into()).unwrap(),
            String::from_utf8(value.into()).unwrap(),
        ));
        content = rest;
    }
    pairs
}

/// One record without padding.
pub(crate) fn record(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
    padded_record(kind, id, content, 0)
}

/// One record with `padding` bytes after its content.
pub(crate) fn padded_record(kind: u8, id: u16, content: &[u8], padding: u8) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let id = id.to_be_bytes();
    let mut bytes = vec![1, kind, id[0], id[1], length[0], length[1], padding, 0];
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len() + usize::from(padding), 0xAA);
    bytes
}

/// A stream: records of at most `u16::MAX` bytes, then the empty one that ends it.
pub(crate) fn stream(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + content.len() / 8192 + 16);
    for chunk in content.chunks(0xFFF8) {
        bytes.extend(record(kind, id, chunk));
    }
    bytes.extend(record(kind, id, &[]));
    bytes
}
