//! Caddy with its `php_fastcgi` directive.

use super::frontend::{Frontend, Program};
use crate::support::client::Address;
use crate::support::server::Server;

const CADDY: Program = Program {
    name: "caddy",
    package: "caddy",
    arguments: &["run", "--adapter", "caddyfile", "--config"],
};

/// As Caddy's manual has it, only that a missing script is not answered by `index.php`.
pub(crate) fn start(server: &Server) -> Frontend {
    let root = server.root().display();
    let upstream = match server.address() {
        Address::Unix(path) => format!("unix/{}", path.display()),
        Address::Tcp(address) => address.clone(),
    };
    Frontend::start(&CADDY, |place| {
        let port = place.port;
        format!(
            "{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    bind 127.0.0.1
    root * {root}
    php_fastcgi {upstream} {{
        try_files {{path}}
    }}
}}
"
        )
    })
}
