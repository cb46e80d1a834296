//! An application set up for one test in a directory of its own, and the servers in front of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::frontends::frontend::Frontend;
use crate::frontends::http::Site;
use crate::frontends::nginx;
use crate::support::php;
use crate::support::server::Server;

/// A directory that an application is being put in.
#[derive(Debug)]
pub(crate) struct Directory(TempDir);

/// A running application.
#[derive(Debug)]
pub(crate) struct Installation {
    frontend: Frontend, // before the server: stopped first
    server: Server,
    directory: Directory,
}

impl Directory {
    /// A new directory; panics if `file` of Debian's `package` is not there.
    pub(crate) fn new(package: &str, file: &str) -> Self {
        let present = Path::new(file).exists();
        assert!(
            present,
            "{file} is missing: install Debian's package {package}, or run `make test`, which does that"
        );
        Self(tempfile::tempdir().unwrap())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// A directory in it, which is made.
    pub(crate) fn subdirectory(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Has PHP draw `count` pictures and one more, no two of them alike.
    pub(crate) fn draw_pictures(&self, count: usize) {
        const DRAW: &str = "for ($number = 0; $number <= $argv[2]; $number++) {
            $image = imagecreatetruecolor(320, 200);
            imagefill($image, 0, 0, imagecolorallocate($image, 200, 220, 255 - $number));
            imagestring($image, 5, 20, 20, \"Picture $number\", imagecolorallocate($image, 0, 0, 0));
            imagepng($image, \"$argv[1]/$number.png\");
        }";
        let directory = self.subdirectory("pictures");
        run(php_command()
            .arg("-r")
            .arg(DRAW)
            .arg("--")
            .arg(directory)
            .arg(count.to_string()));
    }

    /// Starts fe-php and nginx; `directives` are nginx's, in which the upstream is called `php`.
    pub(crate) fn serve(self, root: &Path, directives: &str) -> Installation {
        let sessions = self.subdirectory("sessions");
        let server = Server::builder()
            .workers(4)
            .root(root)
            .ini("memory_limit=256M")
            .ini("error_reporting=E_ALL & ~E_DEPRECATED") // as in php.ini-production
            .ini("display_errors=0")
            .ini("log_errors=1")
            .ini("upload_max_filesize=8M")
            .ini(&format!("session.save_path={}", sessions.display()))
            .start();
        let frontend = nginx::start_with(server.address(), directives);
        Installation {
            frontend,
            server,
            directory: self,
        }
    }
}

impl Installation {
    /// The running application.
    pub(crate) fn site(&self) -> &Site {
        self.frontend.site()
    }

    /// A picture that this visitor alone has.
    pub(crate) fn picture(&self, visitor: usize) -> Vec<u8> {
        fs::read(
            self.directory
                .path()
                .join(format!("pictures/{visitor}.png")),
        )
        .unwrap()
    }

    /// Panics if anything went wrong that visitors did not see.
    pub(crate) fn check_logs(&self) {
        for log in [self.frontend.log(), self.server.log()] {
            let text = log.text();
            let bad = [
                "[error]", "[crit]", "[alert]", "Fatal", "Warning", "exited", "SIG",
            ];
            let bad: Vec<&str> = text
                .lines()
                .filter(|line| bad.iter().any(|bad| line.contains(bad)))
                .collect();
            assert!(bad.is_empty(), "{}", bad.join("\n"));
        }
    }
}

/// The `php` of the same PHP as the one under test.
pub(crate) fn php_command() -> Command {
    let program = php::config("--php-binary");
    assert!(
        Path::new(&program).exists(),
        "{program} is missing: install Debian's package php-cli, or run `make test`"
    );
    Command::new(program)
}

/// Runs a command that prepares a test.
pub(crate) fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}",
        output.status
    );
}
