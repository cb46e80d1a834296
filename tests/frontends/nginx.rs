//! nginx with kept-alive upstream connections.

use rustix::process::getuid;

use super::frontend::{Frontend, Program};
use crate::support::client::Address;
use crate::support::server::Server;

const NGINX: Program = Program {
    name: "nginx",
    package: "nginx",
    arguments: &["-e", "stderr", "-g", "daemon off;", "-c"],
};

/// Passes to PHP what ends in `.php`, with or without PATH_INFO. Below `/unbuffered`, bodies go both ways as they come.
pub(crate) fn start(server: &Server) -> Frontend {
    let root = server.root().display();
    let locations = format!(
        "root {root};
        location ~ ^/unbuffered/ {{
            rewrite ^/unbuffered(/.*)$ $1 break;
            fastcgi_request_buffering off;
            fastcgi_buffering off;
            include /etc/nginx/fastcgi.conf;
            fastcgi_pass php;
        }}
        location ~ \\.php(/|$) {{
            fastcgi_split_path_info ^(.+?\\.php)(/.*)$;
            include /etc/nginx/fastcgi.conf;
            fastcgi_param PATH_INFO $fastcgi_path_info;
            fastcgi_pass php;
        }}"
    );
    start_with(server.address(), &locations)
}

/// nginx with these directives in its server block, where the upstream is called `php`.
pub(crate) fn start_with(upstream: &Address, directives: &str) -> Frontend {
    start_tuned(upstream, directives, 2, 8)
}

/// ... and with so many worker processes, of which each keeps so many connections to the upstream.
pub(crate) fn start_tuned(
    upstream: &Address,
    directives: &str,
    worker_processes: u32,
    keepalive: u32,
) -> Frontend {
    let upstream = match upstream {
        Address::Unix(path) => format!("unix:{}", path.display()),
        Address::Tcp(address) => address.clone(),
    };
    // The worker processes must reach the test's directories, which are open to its own user only.
    let user = if getuid().is_root() { "user root;" } else { "" };
    Frontend::start(&NGINX, |place| {
        let (directory, port) = (place.directory.display(), place.port);
        format!(
            "{user}
worker_processes {worker_processes};
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
    include /etc/nginx/mime.types;
    access_log {directory}/access.log;
    client_max_body_size 16m;
    client_body_temp_path {directory}/body;
    fastcgi_temp_path {directory}/fastcgi;
    proxy_temp_path {directory}/proxy;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    upstream php {{
        server {upstream};
        keepalive {keepalive};
    }}
    fastcgi_keep_conn on;
    fastcgi_read_timeout 30s;
    server {{
        listen 127.0.0.1:{port};
        server_name localhost;
        {directives}
    }}
}}
"
        )
    })
}
