//! lighttpd with mod_fastcgi: a connection for each request, bodies passed on as they come.

use super::frontend::{Frontend, Program};
use crate::support::client::Address;
use crate::support::server::Server;

const LIGHTTPD: Program = Program {
    name: "lighttpd",
    package: "lighttpd",
    arguments: &["-D", "-f"],
};

/// As in Debian's `15-fastcgi-php.conf`, but with a server that runs already.
pub(crate) fn start(server: &Server) -> Frontend {
    let root = server.root().display();
    let upstream = match server.address() {
        Address::Unix(path) => format!("\"socket\" => \"{}\"", path.display()),
        Address::Tcp(address) => {
            let (host, port) = address.rsplit_once(':').unwrap();
            format!("\"host\" => \"{host}\", \"port\" => {port}")
        }
    };
    Frontend::start(&LIGHTTPD, |place| {
        let (directory, port) = (place.directory.display(), place.port);
        format!(
            r#"server.modules = ( "mod_fastcgi" )
server.document-root = "{root}"
server.bind = "127.0.0.1"
server.port = {port}
server.upload-dirs = ( "{directory}" )
server.stream-request-body = 2
server.stream-response-body = 2
server.max-connections = 512
fastcgi.server = ( ".php" => (( {upstream}, "broken-scriptfilename" => "enable" )) )
"#
        )
    })
}
