//! One request on one PHP thread.

use std::collections::HashMap;
use std::ffi::c_char;
use std::ptr;

use super::context::RequestContext;
use super::ffi;
use super::thread::PhpThread;
use crate::request::{Body, Request, ResponseSink, Script, Variables};

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// PHP's exit status: 0, what the script gave to `exit`, or 255 after a fatal error.
    pub(crate) exit_status: i32,
    /// `php_request_startup` failed, so nothing was run.
    pub(crate) startup_failed: bool,
    /// This process is a child of the script's own `pcntl_fork` and must exit at once.
    pub(crate) forked: bool,
    /// A [`ResponseSink`] method or the body's reader panicked, with this text.
    pub(crate) panic: Option<String>,
}

/// Runs `request`, sending what PHP answers to `sink`. Returns when PHP has shut the request down.
pub(crate) fn execute(
    thread: &mut PhpThread,
    request: Request,
    sink: &mut dyn ResponseSink,
) -> Outcome {
    let Request {
        variables,
        script,
        body,
    } = request;
    let content_length = content_length(&variables, &body);
    let mut context = RequestContext {
        sink,
        body,
        position: 0,
        panic: None,
    };

    let strings = &mut thread.strings;
    strings.clear();
    let mut keep = |value: Option<&[u8]>| strings.keep(value);
    let method = keep(variables.get(b"REQUEST_METHOD"));
    let query_string = keep(variables.get(b"QUERY_STRING"));
    let content_type = keep(variables.get(b"CONTENT_TYPE"));
    // With cgi.fix_pathinfo=0, php-fpm takes PATH_INFO where there is one (init_request_info).
    let path_first = if thread.fix_pathinfo {
        None
    } else {
        variables.get(b"PATH_INFO")
    };
    let request_uri = keep(path_first.or_else(|| variables.get(b"SCRIPT_NAME")));
    let cookies = keep(variables.get(b"HTTP_COOKIE"));
    let authorization = keep(variables.get(b"HTTP_AUTHORIZATION"));
    let path_info = keep(variables.get(b"PATH_INFO"));
    let server_name = keep(variables.get(b"SERVER_NAME"));
    let document_root = keep(variables.get(b"DOCUMENT_ROOT"));
    let script_path = keep(match &script {
        Script::File { path } | Script::AccessDenied { path } => Some(path),
        Script::NotFound => None,
    });

    let table = &mut thread.variables;
    table.clear();
    fill_table(table, &variables);
    let mut raw = ffi::fe_php_request {
        context: ptr::from_mut(&mut context).cast(),
        variables: table.as_ptr(),
        variable_count: table.len(),
        script: match script {
            Script::File { .. } => ffi::fe_php_script::FE_PHP_SCRIPT_FILE,
            Script::NotFound => ffi::fe_php_script::FE_PHP_SCRIPT_NOT_FOUND,
            Script::AccessDenied { .. } => ffi::fe_php_script::FE_PHP_SCRIPT_DENIED,
        },
        script_path: strings.pointer(script_path),
        method: strings.pointer(method),
        query_string: strings.pointer(query_string),
        content_type: strings.pointer(content_type),
        request_uri: strings.pointer(request_uri),
        cookies: strings.pointer(cookies),
        authorization: strings.pointer(authorization),
        path_info: strings.pointer(path_info),
        server_name: strings.pointer(server_name),
        document_root: strings.pointer(document_root),
        user_ini: bytes(variables.get(b"PHP_VALUE").unwrap_or_default()),
        admin_ini: bytes(variables.get(b"PHP_ADMIN_VALUE").unwrap_or_default()),
        content_length,
        getenv_copy: ptr::null_mut(),
        logged: false,
        refused_ini: false,
        finished: false,
    };
    // SAFETY: `thread` proves that this thread is PHP's and runs nothing else; everything `raw` points to outlives
    // the call. Bailouts end at the setjmp inside fe_php_execute and never pass a Rust frame.
    let outcome = unsafe { ffi::fe_php_execute(&raw mut raw) };
    // The table holds pointers into this request's buffers: let none stay behind.
    table.clear();
    Outcome {
        exit_status: outcome.exit_status,
        startup_failed: outcome.startup_failed,
        forked: outcome.forked,
        panic: context.panic,
    }
}

/// The order that php-fpm's `$_SERVER` has: the newest variable first (its list is walked from its end); one that was
/// sent twice stands where it came first and has the value that came last.
fn fill_table(table: &mut Vec<ffi::fe_php_variable>, variables: &Variables) {
    if variables.len() <= FEW {
        for (name, value) in variables.iter() {
            let earlier = table.iter_mut().find(|entry| {
                // SAFETY: every entry was made of a live slice of `variables` a moment ago.
                entry.name.len == name.len() && unsafe { slice_of(&entry.name) } == name
            });
            match earlier {
                Some(entry) => entry.value = bytes(value),
                None => table.push(ffi::fe_php_variable {
                    name: bytes(name),
                    value: bytes(value),
                }),
            }
        }
    } else {
        let mut places: HashMap<&[u8], usize> = HashMap::with_capacity(variables.len());
        for (name, value) in variables.iter() {
            let place = *places.entry(name).or_insert(table.len());
            if place == table.len() {
                table.push(ffi::fe_php_variable {
                    name: bytes(name),
                    value: bytes(value),
                });
            } else {
                table[place].value = bytes(value);
            }
        }
    }
    table.reverse();
}

/// Up to so many variables, looking for duplicates one by one is faster than hashing.
const FEW: usize = 64;

/// # Safety
/// `bytes` is made of a slice that is still alive.
unsafe fn slice_of(bytes: &ffi::fe_php_bytes) -> &[u8] {
    // SAFETY: by this function's own condition.
    unsafe { std::slice::from_raw_parts(bytes.ptr.cast(), bytes.len) }
}

/// `CONTENT_LENGTH` as php-fpm reads it (`atol`); without one, the body's own length, or -1 when only its end says it.
fn content_length(variables: &Variables, body: &Body) -> i64 {
    let declared = variables.get(b"CONTENT_LENGTH").unwrap_or_default();
    if declared.is_empty() {
        return match body {
            Body::Empty => 0,
            Body::Complete(bytes) => i64::try_from(bytes.len()).unwrap_or(i64::MAX),
            Body::Stream(_) => -1,
        };
    }
    let text = declared.trim_ascii_start();
    let (negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let number = digits
        .iter()
        .take_while(|digit| digit.is_ascii_digit())
        .fold(0_i64, |sum, digit| {
            sum.saturating_mul(10)
                .saturating_add(i64::from(digit - b'0'))
        });
    // php-fpm reads on until the client closes; the end of the body says as much.
    if negative && number > 0 { -1 } else { number }
}

fn bytes(bytes: &[u8]) -> ffi::fe_php_bytes {
    ffi::fe_php_bytes {
        ptr: bytes.as_ptr().cast::<c_char>(),
        len: bytes.len(),
    }
}

/// NUL-terminated copies in one buffer, which is used again for the next request.
#[derive(Debug, Default)]
pub(super) struct CStrings {
    bytes: Vec<u8>,
}

impl CStrings {
    fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Copies `value` up to its first NUL, as php-fpm's C strings do; the answer is for [`pointer`](Self::pointer).
    fn keep(&mut self, value: Option<&[u8]>) -> Option<usize> {
        let value = value?;
        let start = self.bytes.len();
        let end = memchr::memchr(0, value).unwrap_or(value.len());
        self.bytes.extend_from_slice(&value[..end]);
        self.bytes.push(0);
        Some(start)
    }

    /// The address of a copy, once all copies are made.
    fn pointer(&self, start: Option<usize>) -> *const c_char {
        start.map_or(ptr::null(), |start| self.bytes[start..].as_ptr().cast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length_of(declared: &str, body: Body) -> i64 {
        let mut variables = Variables::new();
        variables.push(b"CONTENT_LENGTH", declared.as_bytes());
        content_length(&variables, &body)
    }

    #[test]
    fn content_length_is_read_as_atol_does() {
        assert_eq!(length_of("12", Body::Empty), 12);
        assert_eq!(length_of(" 12abc", Body::Empty), 12);
        assert_eq!(length_of("-5", Body::Empty), -1);
        assert_eq!(length_of("abc", Body::Empty), 0);
        assert_eq!(length_of("99999999999999999999999", Body::Empty), i64::MAX);
    }

    #[test]
    fn a_body_without_content_length_has_its_own() {
        assert_eq!(length_of("", Body::Complete(vec![0; 7])), 7);
        assert_eq!(length_of("", Body::Stream(Box::new(std::io::empty()))), -1);
    }
}
