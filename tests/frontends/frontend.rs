//! A web server from Debian, started for one test on a free port with its own configuration, and stopped with it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::http::Site;
use crate::support::log::Log;
use crate::support::process::Process;
use crate::support::{DEADLINE, holds_within};

/// A running web server.
#[derive(Debug)]
pub(crate) struct Frontend {
    _process: Process, // before the directory: stopped first
    site: Site,
    log: Log,
    _directory: TempDir,
}

/// How a web server is started.
#[derive(Debug)]
pub(crate) struct Program {
    /// The command.
    pub(crate) name: &'static str,
    /// Debian's package that has it.
    pub(crate) package: &'static str,
    /// All arguments that stand before the name of the configuration file.
    pub(crate) arguments: &'static [&'static str],
}

/// What a configuration has to name.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// A directory of its own, for everything it writes.
    pub(crate) directory: &'a Path,
    /// Where to listen, on 127.0.0.1.
    pub(crate) port: u16,
}

impl Frontend {
    /// Starts `program` with the configuration that `configure` writes, and waits until it accepts connections.
    pub(crate) fn start(program: &Program, configure: impl Fn(&Place<'_>) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Somebody else may take the port between our look and its bind: then another one.
        for attempt in 0..5 {
            let log = Log::new(directory.path().join(format!("log-{attempt}")));
            let port = free_port();
            let place = Place {
                directory: directory.path(),
                port,
            };
            let configuration = directory.path().join("configuration");
            fs::write(&configuration, configure(&place)).unwrap();
            let mut command = program.command(directory.path());
            command.arg(&configuration);
            let mut process = Process::start(&mut command, log.clone());
            let mut exited = false;
            let started = holds_within(DEADLINE, || {
                exited = process.has_exited();
                exited || TcpStream::connect(("127.0.0.1", port)).is_ok()
            });
            // The connection may have been to the other one that took the port.
            if started && !exited && !process.has_exited() {
                let site = Site::new(format!("http://127.0.0.1:{port}"));
                return Self {
                    _process: process,
                    site,
                    log,
                    _directory: directory,
                };
            }
            let text = log.text();
            let taken =
                text.to_ascii_lowercase().contains("in use") || text.contains("cannot bind");
            assert!(taken, "{} does not start:\n{text}", program.name);
        }
        panic!("{}: five times no free port", program.name);
    }

    /// What it serves.
    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }
}

/// Shows what a failed test cannot: the log goes with the directory.
impl Drop for Frontend {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log.text();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(20)..];
            eprintln!("the front end's log ends with\n{}", last.join("\n"));
        }
    }
}

impl Program {
    fn command(&self, directory: &Path) -> Command {
        let mut command = Command::new(self.path());
        // Caddy keeps state below the home directory; nobody should.
        for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR"] {
            command.env(variable, directory);
        }
        command.current_dir(directory).args(self.arguments);
        command
    }

    fn path(&self) -> PathBuf {
        find_program(self.name).unwrap_or_else(|| {
            let Self { name, package, .. } = self;
            panic!("{name} is missing: install Debian's package {package}, or run `make test`, which does that")
        })
    }
}

/// A program on the search path or where Debian puts servers, which is on root's path only.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    directories
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// A TCP port of 127.0.0.1 that nobody uses now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
