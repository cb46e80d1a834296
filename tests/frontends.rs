//! Real front ends, each started for the test with its own configuration, reach PHP through fe-php.

mod apache;
mod caddy;
pub(crate) mod frontend;
mod haproxy;
pub(crate) mod http;
mod lighttpd;
pub(crate) mod nginx;
mod smoke;

use smoke::{PARALLEL, Pair, TCP, UNIX};

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
    let pair = Pair::start(UNIX, nginx::start);
    pair.chunked_body("/unbuffered/index.php");
    pair.check_logs();
}

#[test]
fn nginx_passes_events_on_at_once() {
    let pair = Pair::start(UNIX, nginx::start);
    pair.events("/unbuffered/events.php");
    pair.check_logs();
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
fn caddy_over_a_unix_socket() {
    Pair::start(UNIX, caddy::start).smoke();
}

#[test]
fn caddy_over_tcp() {
    Pair::start(TCP, caddy::start).smoke();
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
fn haproxy_sends_many_requests_at_once_over_one_connection() {
    let pair = Pair::start(UNIX, haproxy::start);
    smoke::parallel(pair.site());
    let (connections, reused) = haproxy::connections(pair.site());
    // The first requests come before HAProxy has learnt (by FCGI_GET_VALUES) what the server can do.
    assert!(connections < PARALLEL / 4 && reused > PARALLEL / 2, "{connections} connections, {reused} requests on old ones");
}
