//! Status and headers as CGI wants them, with php-fpm's rules for which status line counts.

use crate::request::ResponseHead;

/// Writes the header block: as `sapi_cgi_send_headers` (sapi/fpm/fpm/fpm_main.c) does.
///
/// A status other than 200 is written as `Status:`, from the script's own `HTTP/…` line when it gave one, unless it
/// set a `Status:` header. Of several `Status:` headers the first counts. A 304 has no `Content-Type`.
pub(crate) fn write_status(out: &mut Vec<u8>, head: ResponseHead<'_>) {
    let mut lines: [&[u8]; 64] = [&[]; 64];
    let mut count = 0;
    let mut more = Vec::new();
    for line in head.headers {
        if count < lines.len() {
            lines[count] = line;
            count += 1;
        } else {
            more.push(line);
        }
    }
    let all = || lines[..count].iter().chain(&more);

    let mut status = head.status;
    let mut status_written = false;
    if head.nph || status != 200 {
        match head.status_line {
            Some(line) if head.rfc2616_headers => {
                out.extend_from_slice(&line[..line.len().min(MAX_STATUS_LINE)]);
                status = code_of(line).unwrap_or(status);
                status_written = true;
            }
            Some(line)
                if line.len() > 5
                    && line[..5].eq_ignore_ascii_case(b"HTTP/")
                    && line.contains(&b' ') =>
            {
                let space = memchr::memchr(b' ', line).unwrap_or(0);
                out.extend_from_slice(b"Status:");
                let rest = &line[space..];
                out.extend_from_slice(&rest[..rest.len().min(MAX_STATUS_LINE - b"Status:".len())]);
                status = code_of(line).unwrap_or(status);
                status_written = true;
            }
            _ => {
                if !all().any(|line| is_header(line, b"Status:")) {
                    out.extend_from_slice(format!("Status: {status}").as_bytes());
                    if let Some(reason) = reason(status) {
                        out.push(b' ');
                        out.extend_from_slice(reason.as_bytes());
                    }
                    status_written = true;
                }
            }
        }
        if status_written {
            out.extend_from_slice(b"\r\n");
        }
    }
    for line in all() {
        if is_header(line, b"Status:") {
            if status_written {
                continue;
            }
            status_written = true;
        } else if status == 304 && is_header(line, b"Content-Type:") {
            continue;
        }
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// php-fpm formats the line in a buffer of this size, less the NUL.
const MAX_STATUS_LINE: usize = 1023;

fn is_header(line: &[u8], name: &[u8]) -> bool {
    line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name)
}

/// The number after the first space.
fn code_of(line: &[u8]) -> Option<u16> {
    let space = memchr::memchr(b' ', line)?;
    let digits = line[space + 1..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    let code = digits.fold(0_u32, |sum, digit| {
        (sum * 10 + u32::from(digit - b'0')).min(99_999)
    });
    u16::try_from(code).ok()
}

/// PHP's own list (main/http_status_codes.h).
fn reason(status: u16) -> Option<&'static str> {
    Some(match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Requested Range Not Satisfiable",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        511 => "Network Authentication Required",
        _ => return None,
    })
}
