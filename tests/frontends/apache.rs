//! Apache with mod_proxy_fcgi and kept-alive connections, in threads (event MPM).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::getuid;

use super::frontend::{Frontend, Program};
use crate::support::client::Address;
use crate::support::server::Server;

const APACHE: Program = Program {
    name: "apache2",
    package: "apache2",
    arguments: &["-DFOREGROUND", "-f"],
};

/// The usual way: a handler for files that end in `.php`.
pub(crate) fn start(server: &Server) -> Frontend {
    // The first part is the address, the second makes up the script's name that PHP gets: `proxy:fcgi://localhost/…`.
    let (proxy, handler) = match server.address() {
        Address::Unix(path) => {
            let address = format!("unix:{}|fcgi://localhost", path.display());
            (address.clone(), address)
        }
        Address::Tcp(address) => (format!("fcgi://{address}"), format!("fcgi://{address}")),
    };
    // Apache refuses to serve as root.
    let user = if getuid().is_root() {
        open(server);
        "User www-data\nGroup www-data"
    } else {
        ""
    };
    let root = server.root().display();
    Frontend::start(&APACHE, |place| {
        let (directory, port) = (place.directory.display(), place.port);
        format!(
            r#"{modules}
ServerRoot "{directory}"
DefaultRuntimeDir "{directory}"
PidFile "{directory}/pid"
ErrorLog "/proc/self/fd/2"
ServerName localhost
Listen 127.0.0.1:{port}
{user}
StartServers 2
ThreadsPerChild 25
DocumentRoot "{root}"
<Directory "{root}">
    Require all granted
    CGIPassAuth On
</Directory>
<FilesMatch "\.php$">
    SetHandler "proxy:{handler}"
</FilesMatch>
<Proxy "{proxy}">
    ProxySet enablereuse=on flushpackets=on timeout=30
</Proxy>
"#,
            modules = modules(&["mpm_event", "authz_core", "proxy", "proxy_fcgi"]),
        )
    })
}

fn modules(names: &[&str]) -> String {
    let directory = "/usr/lib/apache2/modules";
    let line = |name: &&str| format!("LoadModule {name}_module {directory}/mod_{name}.so");
    names.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Lets other users reach the scripts and the socket.
fn open(server: &Server) {
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    set(server.directory(), 0o755);
    if let Address::Unix(path) = server.address() {
        set(path, 0o666);
    }
}
