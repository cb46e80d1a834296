//! `request_terminate_timeout` and `request_slowlog_timeout`: what takes too long is logged with PHP's backtrace, and ended in a way
//! that costs nobody else anything.

mod clients;
mod slow_log;
mod stubborn;
mod terminate;

use crate::support::client::Response;
use crate::support::server::{Builder, Server};

/// A server that ends scripts after half a second.
fn terminate(workers: u32) -> Builder {
    Server::builder()
        .workers(workers)
        .ini("display_errors=0")
        .ini("log_errors=1")
        .args(&["--request-terminate-timeout", "0.5"])
}

/// What the log says of a request that takes too long, with all that php-fpm says.
fn timed_out(server: &Server, script: &str) -> String {
    let text = format!(
        "script '{}/{script}' (request: \"GET /{script}\") execution timed out (0.",
        server.root().display()
    );
    let line = server.expect_log(&text);
    assert!(line.contains("WARNING: [pool www] child "), "{line}");
    assert!(line.ends_with(" sec), terminating"), "{line}");
    line
}

/// The answer to a script that PHP itself has ended.
fn assert_ended(response: &Response, source: &str) {
    assert_eq!(response.status, 504, "{source}: {response:?}");
    assert_eq!(
        response.header("Status"),
        Some("504 Gateway Timeout"),
        "{source}"
    );
    let errors = response.stderr_text();
    assert!(
        errors.contains("PHP Fatal error:  request_terminate_timeout of 0.500 seconds exceeded in"),
        "{source}: {errors}"
    );
}
