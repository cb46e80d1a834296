//! Real front ends, each started for the test with its own configuration, reach PHP through fe-php.
//!
//! HAProxy (2.6) and lighttpd (when it does not buffer requests) refuse bodies of unknown length by themselves.

mod apache;
mod caddy;
pub(crate) mod frontend;
mod haproxy;
pub(crate) mod http;
mod lighttpd;
pub(crate) mod nginx;
mod smoke;

use smoke::{Pair, TCP, UNIX, WORKERS};

#[test]
fn nginx_over_a_unix_socket() {
    Pair::start(UNIX, nginx::start).smoke();
}

#[test]
fn nginx_over_tcp() {
    Pair::start(TCP, nginx::start).smoke();
}

#[test]
fn nginx_streams_bodies_of_unknown_length() {
    Pair::start(UNIX, nginx::start).chunked_body("/unbuffered/index.php");
}

#[test]
fn nginx_without_buffering_passes_events_on_at_once() {
    Pair::start(UNIX, nginx::start).events("/unbuffered/events.php");
}

#[test]
fn apache_over_a_unix_socket() {
    Pair::start(UNIX, apache::start).smoke();
}

#[test]
fn apache_over_tcp() {
    Pair::start(TCP, apache::start).smoke();
}

#[test]
fn apache_streams_bodies_of_unknown_length() {
    Pair::start(UNIX, apache::start).chunked_body("/index.php");
}

#[test]
fn caddy_over_a_unix_socket() {
    Pair::start(UNIX, caddy::start).smoke();
}

#[test]
fn caddy_over_tcp() {
    Pair::start(TCP, caddy::start).smoke();
}

#[test]
fn caddy_streams_bodies_of_unknown_length() {
    // It announces them with a length of -1.
    Pair::start(UNIX, caddy::start).chunked_body("/index.php");
}

#[test]
fn lighttpd_over_a_unix_socket() {
    Pair::start(UNIX, lighttpd::start).smoke();
}

#[test]
fn lighttpd_over_tcp() {
    Pair::start(TCP, lighttpd::start).smoke();
}

#[test]
fn haproxy_over_a_unix_socket() {
    Pair::start(UNIX, haproxy::start).smoke();
}

#[test]
fn haproxy_over_tcp() {
    Pair::start(TCP, haproxy::start).smoke();
}

#[test]
fn haproxy_multiplexes_requests_that_run_at_the_same_time() {
    let pair = Pair::start(UNIX, haproxy::start);
    pair.meeting(WORKERS);
    // Fewer connections than requests that were running at one time: some must have shared one.
    let connections = haproxy::connections(pair.site());
    assert!(
        connections < u64::from(WORKERS),
        "{connections} connections"
    );
}
