//! One request on one PHP thread.

use std::collections::HashMap;
use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::ptr;

use super::context::RequestContext;
use super::ffi;
use super::opcache::OpcacheView;
use super::thread::PhpThread;
use crate::request::{Body, Request, RequestStart, ResponseSink, Script, Variables};

/// How a request ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// PHP's exit status: 0, what the script gave to `exit`, or 255 after a fatal error.
    pub(crate) exit_status: i32,
    /// `php_request_startup` failed, so nothing was run.
    pub(crate) startup_failed: bool,
    /// [`Running::stop`](super::Running::stop) ended it.
    pub(crate) stopped: bool,
    /// A [`ResponseSink`] method or the body's reader panicked, with this text.
    pub(crate) panic: Option<String>,
}

/// Runs `request`, sending what PHP answers to `sink`. Returns when PHP has shut the request down; in a child of the script's own
/// `pcntl_fork`, where that is the end of the process, not at all.
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
    let known = Known::of(&variables);
    let content_length = content_length(known.content_length, &body);
    let mut context = RequestContext {
        sink,
        body,
        position: 0,
        variables: &variables,
        table: &mut thread.variables,
        status: None,
        status_table: Vec::new(),
        panic: None,
    };

    let strings = &mut thread.strings;
    strings.clear();
    let mut keep = |value: Option<&[u8]>| strings.keep(value);
    let method = keep(known.method);
    let query_string = keep(known.query_string);
    let content_type = keep(known.content_type);
    // With cgi.fix_pathinfo=0, php-fpm takes PATH_INFO where there is one (init_request_info).
    let path_first = known.path_info.filter(|_| !thread.fix_pathinfo);
    let request_uri = keep(path_first.or(known.script_name));
    let cookies = keep(known.cookies);
    let authorization = keep(known.authorization);
    let path_info = keep(known.path_info);
    let server_name = keep(known.server_name);
    let document_root = keep(known.document_root);
    let script_path = keep(match &script {
        Script::File { path } | Script::AccessDenied { path } => Some(path),
        Script::NotFound => None,
    });

    let mut figures = MaybeUninit::<ffi::fe_php_opcache_figures>::zeroed();
    let mut raw = ffi::fe_php_request {
        context: ptr::from_mut(&mut context).cast(),
        script: match &script {
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
        user_ini: bytes(known.user_ini),
        admin_ini: bytes(known.admin_ini),
        content_length,
        opcache_figures: if thread.opcache_wanted {
            figures.as_mut_ptr()
        } else {
            ptr::null_mut()
        },
        variables: ffi::fe_php_variables {
            list: ptr::null(),
            count: 0,
        },
        getenv_copy: ptr::null_mut(),
        logged: false,
        refused_ini: false,
        finished: false,
        stopped: false,
        opcache: ffi::fe_php_opcache::FE_PHP_OPCACHE_UNSEEN,
        stage: 0,
    };
    context.sink.begin(&RequestStart {
        method: known.method.unwrap_or_default(),
        request_uri: path_first.or(known.script_name).unwrap_or_default(),
        query_string: known.query_string.unwrap_or_default(),
        script: match &script {
            Script::File { path } | Script::AccessDenied { path } => path,
            Script::NotFound => &[],
        },
        authorization: known.authorization.unwrap_or_default(),
        content_length: u64::try_from(content_length).unwrap_or(0),
    });
    thread.interrupter.enter();
    // SAFETY: `thread` proves that this thread is PHP's and runs nothing else; everything `raw` points to outlives
    // the call. Bailouts end at the setjmp inside fe_php_execute and never pass a Rust frame.
    let outcome = unsafe { ffi::fe_php_execute(&raw mut raw) };
    if outcome.forked {
        // Before anything is dropped: locks may be held by threads that are not there.
        exit_forked_child(outcome.exit_status);
    }
    thread.interrupter.leave();
    if thread.opcache_wanted {
        // SAFETY: it is integers, which were all zero before PHP wrote some of them.
        let figures = unsafe { figures.assume_init() };
        thread.opcache = OpcacheView::new(raw.opcache, &figures);
    }
    // The table holds pointers into this request's buffers: let none stay behind.
    let panic = context.panic.take();
    thread.variables.clear();
    Outcome {
        exit_status: outcome.exit_status,
        startup_failed: outcome.startup_failed,
        stopped: outcome.stopped,
        panic,
    }
}

/// Ends a child of a script's `pcntl_fork`, without any of this program's own clean-up: nothing here is the child's.
fn exit_forked_child(status: i32) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(status) }
}

/// The variables that PHP is told about apart from `$_SERVER`; of a name that was sent twice, the last.
#[derive(Default)]
struct Known<'v> {
    method: Option<&'v [u8]>,
    query_string: Option<&'v [u8]>,
    content_type: Option<&'v [u8]>,
    content_length: &'v [u8],
    script_name: Option<&'v [u8]>,
    path_info: Option<&'v [u8]>,
    cookies: Option<&'v [u8]>,
    authorization: Option<&'v [u8]>,
    server_name: Option<&'v [u8]>,
    document_root: Option<&'v [u8]>,
    user_ini: &'v [u8],
    admin_ini: &'v [u8],
}

impl<'v> Known<'v> {
    fn of(variables: &'v Variables) -> Self {
        let mut known = Self::default();
        for (name, value) in variables.iter() {
            match name {
                b"REQUEST_METHOD" => known.method = Some(value),
                b"QUERY_STRING" => known.query_string = Some(value),
                b"CONTENT_TYPE" => known.content_type = Some(value),
                b"CONTENT_LENGTH" => known.content_length = value,
                b"SCRIPT_NAME" => known.script_name = Some(value),
                b"PATH_INFO" => known.path_info = Some(value),
                b"HTTP_COOKIE" => known.cookies = Some(value),
                b"HTTP_AUTHORIZATION" => known.authorization = Some(value),
                b"SERVER_NAME" => known.server_name = Some(value),
                b"DOCUMENT_ROOT" => known.document_root = Some(value),
                b"PHP_VALUE" => known.user_ini = value,
                b"PHP_ADMIN_VALUE" => known.admin_ini = value,
                _ => {}
            }
        }
        known
    }
}

/// The order that php-fpm's `$_SERVER` has: the newest variable first (its list is walked from its end); one that was
/// sent twice stands where it came first and has the value that came last.
pub(super) fn fill_table(table: &mut Vec<ffi::fe_php_variable>, variables: &Variables) {
    table.clear();
    if variables.len() <= FEW {
        let mut seen = Seen::default();
        for (name, value) in variables.iter() {
            let earlier = if seen.insert(name) {
                table.iter_mut().find(|entry| {
                    // SAFETY: every entry was made of a live slice of `variables` a moment ago.
                    entry.name.len == name.len() && unsafe { slice_of(&entry.name) } == name
                })
            } else {
                None
            };
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

/// Says of most new names that they are new, without looking at the others.
#[derive(Default)]
struct Seen([u64; 4]);

impl Seen {
    /// Whether a name like this may have been inserted before.
    fn insert(&mut self, name: &[u8]) -> bool {
        let at = |index: usize| name.get(index).map_or(0, |byte| usize::from(*byte));
        let hash = name.len() * 5 + at(name.len() / 2) * 3 + at(name.len().wrapping_sub(1)) * 7;
        let (word, bit) = (hash / 64 % 4, 1 << (hash % 64));
        let seen = self.0[word] & bit != 0;
        self.0[word] |= bit;
        seen
    }
}

/// # Safety
/// `bytes` is made of a slice that is still alive.
unsafe fn slice_of(bytes: &ffi::fe_php_bytes) -> &[u8] {
    // SAFETY: by this function's own condition.
    unsafe { std::slice::from_raw_parts(bytes.ptr.cast(), bytes.len) }
}

/// `CONTENT_LENGTH` as php-fpm reads it (`atol`); without one, the body's own length, or -1 when only its end says it.
fn content_length(declared: &[u8], body: &Body) -> i64 {
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

pub(super) fn bytes(bytes: &[u8]) -> ffi::fe_php_bytes {
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
        content_length(declared.as_bytes(), &body)
    }

    #[test]
    fn of_a_name_sent_twice_the_place_is_the_first_and_the_value_the_last() {
        let mut variables = Variables::new();
        for (name, value) in [("A", "1"), ("B", "2"), ("A", "3"), ("C", "4"), ("B", "5")] {
            variables.push(name.as_bytes(), value.as_bytes());
        }
        for more in [0, FEW] {
            let mut variables = variables.clone();
            for number in 0..more {
                variables.push(format!("X{number}").as_bytes(), b"");
            }
            let mut table = Vec::new();
            fill_table(&mut table, &variables);
            table.reverse();
            let text = |bytes: &ffi::fe_php_bytes| {
                // SAFETY: made of a slice of `variables`, which is alive.
                String::from_utf8_lossy(unsafe { slice_of(bytes) }).into_owned()
            };
            let first: Vec<_> = table
                .iter()
                .take(3)
                .map(|entry| text(&entry.name) + &text(&entry.value))
                .collect();
            assert_eq!(first, ["A3", "B5", "C4"]);
            assert_eq!(table.len(), 3 + more);
        }
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
