//! What is written down of each request: the scoreboard, the access log, and the worker's standard error. One of these belongs
//! to each PHP thread.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::net::getpeername;

use super::exchange::Account;
use super::output::Output;
use crate::log::{
    self, AccessLog, AccessRecord, AccessWriter, CpuTime, Level, PhpMessage, WorkerStderr,
};
use crate::request::{RequestEnd, RequestStart, StatusArrays, Variables};
use crate::scoreboard::{Moment, RequestInfo, Worker};
use crate::status::Pages;

/// The books of one PHP thread.
#[derive(Debug)]
pub(crate) struct Books {
    worker: Option<Worker>,
    pages: Arc<Pages>,
    access: Option<Access>,
    stderr: Option<Arc<WorkerStderr>>,
    /// What the request in hand began with.
    accepted: Moment,
    cpu: Option<CpuTime>,
    is_open: bool,
}

/// The access log, and what its lines need of the request in hand. The buffers are used again for each.
#[derive(Debug)]
struct Access {
    writer: AccessWriter,
    needs_headers: bool,
    needs_cpu: bool,
    method: Vec<u8>,
    uri: Vec<u8>,
    query: Vec<u8>,
    script: Vec<u8>,
    user: Vec<u8>,
    headers: Vec<u8>,
    content_length: u64,
}

impl Books {
    /// `worker` is the thread's own entry in the scoreboard.
    pub(crate) fn new(
        worker: Option<Worker>,
        pages: Arc<Pages>,
        access: Option<&Arc<AccessLog>>,
        stderr: Option<Arc<WorkerStderr>>,
    ) -> Self {
        let access = access.map(|log| Access {
            needs_headers: log.format().needs_headers(),
            needs_cpu: log.format().needs_cpu(),
            writer: AccessWriter::new(Arc::clone(log)),
            method: Vec::new(),
            uri: Vec::new(),
            query: Vec::new(),
            script: Vec::new(),
            user: Vec::new(),
            headers: Vec::new(),
            content_length: 0,
        });
        let mut books = Self {
            worker,
            pages,
            access,
            stderr,
            accepted: Moment::now(),
            cpu: None,
            is_open: false,
        };
        books.idle();
        books
    }

    pub(super) fn pages(&self) -> &Arc<Pages> {
        &self.pages
    }

    /// The request has waited for a worker for this time.
    pub(super) fn waited(&mut self, time: Duration) {
        if let Some(worker) = &mut self.worker {
            worker.waited(time);
        }
    }

    /// The thread waits for the next request.
    pub(super) fn idle(&mut self) {
        if let Some(worker) = &mut self.worker {
            worker.accepting(Moment::now());
        }
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        if let Some(worker) = &mut self.worker {
            worker.gone();
        }
    }
}

impl Account for &mut Books {
    fn begin(&mut self, start: &RequestStart<'_>) {
        self.accepted = Moment::now();
        self.is_open = true;
        let measures_cpu = self.worker.as_ref().is_some_and(Worker::measures_cpu)
            || self.access.as_ref().is_some_and(|access| access.needs_cpu);
        self.cpu = measures_cpu.then(CpuTime::now);
        let user = if start.authorization.is_empty() {
            Vec::new()
        } else {
            basic_user(start.authorization)
        };
        if let Some(worker) = &mut self.worker {
            worker.begin(
                self.accepted,
                &RequestInfo {
                    request_uri: start.request_uri,
                    query_string: start.query_string,
                    request_method: start.method,
                    script_filename: start.script,
                    auth_user: &user,
                    content_length: start.content_length,
                },
            );
        }
        if let Some(access) = &mut self.access {
            for (kept, value) in [
                (&mut access.method, start.method),
                (&mut access.uri, start.request_uri),
                (&mut access.query, start.query_string),
                (&mut access.script, start.script),
                (&mut access.user, user.as_slice()),
            ] {
                kept.clear();
                kept.extend_from_slice(value);
            }
            access.headers.clear();
            access.content_length = start.content_length;
        }
    }

    fn wants_headers(&self) -> bool {
        self.access
            .as_ref()
            .is_some_and(|access| access.needs_headers)
    }

    fn head(&mut self, lines: &[&[u8]]) {
        if let Some(access) = &mut self.access {
            for line in lines {
                access.headers.extend_from_slice(line);
                access.headers.push(b'\n');
            }
        }
    }

    fn end(&mut self, end: &RequestEnd<'_>, output: &Output) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let now = Moment::now();
        let cpu = self
            .cpu
            .map(|start| CpuTime::now().since(start))
            .unwrap_or_default();
        if let Some(worker) = &mut self.worker {
            worker.end(now, end.memory_peak as u64, cpu.total());
        }
        if let Some(access) = &mut self.access {
            let duration = now.since(self.accepted);
            let seconds = since_1970();
            access.writer.write(&AccessRecord {
                client: client(output),
                method: &access.method,
                uri: &access.uri,
                query: &access.query,
                script: &access.script,
                user: &access.user,
                content_length: access.content_length,
                status: end.status,
                variables: end.variables,
                headers: &access.headers,
                accepted: epoch(seconds.saturating_sub(duration)),
                now: epoch(seconds),
                duration,
                cpu,
                memory: end.memory_peak,
            });
        }
        if let Some(stderr) = &self.stderr {
            stderr.flush();
        }
    }

    fn status(&self) -> Option<StatusArrays> {
        Some(self.pages.php_status())
    }
}

/// Writes the line of a request that nobody runs: it was refused with a 503 after this time, or with FastCGI's FCGI_OVERLOADED.
pub(super) fn log_refused(
    writer: &mut AccessWriter,
    variables: &Variables,
    output: &Output,
    waited: Duration,
) {
    let value = |name: &[u8]| variables.get(name).unwrap_or_default();
    let length = std::str::from_utf8(value(b"CONTENT_LENGTH")).ok();
    let now = since_1970();
    writer.write(&AccessRecord {
        client: client(output),
        method: value(b"REQUEST_METHOD"),
        uri: value(b"SCRIPT_NAME"),
        query: value(b"QUERY_STRING"),
        script: value(b"SCRIPT_FILENAME"),
        user: &basic_user(value(b"HTTP_AUTHORIZATION")),
        content_length: length
            .and_then(|length| length.trim().parse().ok())
            .unwrap_or(0),
        status: 503,
        variables,
        headers: b"",
        accepted: epoch(now.saturating_sub(waited)),
        now: epoch(now),
        duration: waited,
        cpu: CpuTime::default(),
        memory: 0,
    });
}

fn since_1970() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

fn epoch(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// Who is at the other end; nobody for a Unix socket.
fn client(output: &Output) -> Option<IpAddr> {
    let address = getpeername(output.socket()).ok()??;
    let address = std::net::SocketAddr::try_from(address).ok()?;
    Some(address.ip())
}

/// The user of `Basic` credentials, as `php_handle_auth_data` takes it.
fn basic_user(authorization: &[u8]) -> Vec<u8> {
    let Some((scheme, credentials)) = authorization.split_at_checked(6) else {
        return Vec::new();
    };
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return Vec::new();
    }
    let mut decoded = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in credentials {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push(u8::try_from(bits >> count & 0xff).unwrap_or(0));
        }
    }
    let end = memchr::memchr(b':', &decoded);
    // Without a colon there is no user.
    decoded.truncate(end.unwrap_or(0));
    decoded
}

/// Says what php-fpm's worker processes say, where those say it: on standard error, or, if that leads nowhere, in the log.
pub(super) fn say(stderr: Option<&WorkerStderr>, level: Level, message: &dyn std::fmt::Display) {
    match stderr {
        Some(stderr) if log::enabled(level) => {
            stderr.write(format!("{}: {message}\n", level.name()).as_bytes());
        }
        Some(_) => {}
        None => log::write(level, format_args!("{message}")),
    }
}

/// Where PHP's messages go in this worker process.
pub(super) fn log_php_message(
    stderr: Option<&WorkerStderr>,
    message: &[u8],
    to_client: bool,
) -> Vec<u8> {
    let message = PhpMessage::new(message);
    if let Some(stderr) = stderr {
        stderr.write(message.line());
    } else if !to_client {
        // Else nobody would ever see it.
        log::notice(format_args!(
            "{}",
            String::from_utf8_lossy(message.for_web_server()).trim_end()
        ));
    }
    message.for_web_server().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_basic_credentials_is_known() {
        assert_eq!(basic_user(b"Basic YWxpY2U6c2VjcmV0"), b"alice");
        assert_eq!(basic_user(b"basic Ym9iOg=="), b"bob");
        assert_eq!(basic_user(b"Basic bm9jb2xvbg=="), b"");
        assert_eq!(basic_user(b"Bearer YWxpY2U6c2VjcmV0"), b"");
        assert_eq!(basic_user(b"x"), b"");
    }
}
