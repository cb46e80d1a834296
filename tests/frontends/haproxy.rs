//! HAProxy as a FastCGI client that sends many requests over one connection at the same time.

use super::frontend::{Frontend, Program};
use super::http::Site;
use crate::support::client::Address;
use crate::support::server::Server;

const HAPROXY: Program = Program {
    name: "haproxy",
    package: "haproxy",
    arguments: &["-db", "-f"],
};

/// Where its counters are to be had.
const STATISTICS: &str = "/haproxy;csv";

/// Requests that one connection may carry.
const MAX_REQUESTS: u64 = 50;

/// Every request goes to PHP: HAProxy serves no files.
pub(crate) fn start(server: &Server) -> Frontend {
    let root = server.root().display();
    let upstream = match server.address() {
        Address::Unix(path) => format!("unix@{}", path.display()),
        Address::Tcp(address) => address.clone(),
    };
    Frontend::start(&HAPROXY, |place| {
        let port = place.port;
        format!(
            r"global
    log stderr format raw local0 notice
    nbthread 1
    maxconn 1000
defaults
    mode http
    log global
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend web
    bind 127.0.0.1:{port}
    stats enable
    stats uri /haproxy
    default_backend php
backend php
    http-reuse always
    use-fcgi-app php
    server fe-php {upstream} proto fcgi
fcgi-app php
    log-stderr global
    docroot {root}
    index index.php
    path-info ^(/.+\.php)(/.*)?$
    pass-header Authorization
    option keep-conn
    option mpxs-conns
    option max-reqs {MAX_REQUESTS}
"
        )
    })
}

/// How many connections HAProxy has made to PHP.
pub(crate) fn connections(site: &Site) -> u64 {
    let table = site.get(STATISTICS).text();
    let mut lines = table
        .lines()
        .map(|line| line.trim_start_matches("# ").split(',').collect::<Vec<_>>());
    let column = lines
        .next()
        .unwrap()
        .iter()
        .position(|&name| name == "connect")
        .unwrap();
    lines.find(|line| line[..2] == ["php", "fe-php"]).unwrap()[column]
        .parse()
        .unwrap()
}
