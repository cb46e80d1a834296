//! Stock php-fpm of the PHP under test, to compare with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Signal, getuid};
use tempfile::TempDir;

use super::client::{Address, Connection};
use super::ini::Ini;
use super::log::Log;
use super::php;
use super::process::{Identity, Process};
use super::server::{READY, environment};

/// A running php-fpm with a static pool.
#[derive(Debug)]
pub(crate) struct Fpm {
    process: Process,
    socket: PathBuf,
    log: Log,
    directory: TempDir,
}

impl Fpm {
    /// Starts php-fpm with one child and the php.ini lines `ini`, in `directory`. `pool` are further lines of the
    /// pool's configuration. Panics if there is no php-fpm on this machine.
    pub(crate) fn start(ini: &[String], pool: &str, current_directory: &Path) -> Self {
        Self::start_as(Command::new(program()), ini, pool, current_directory)
    }

    /// Starts `command` as [`start`](Self::start) does php-fpm: it takes php-fpm's options. In the pool's lines,
    /// `{directory}` stands for a directory of the server's own.
    pub(crate) fn start_as(
        mut command: Command,
        ini: &[String],
        pool: &str,
        current_directory: &Path,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("fpm.sock");
        let log = Log::new(directory.path().join("log"));
        let ini = Ini::write(directory.path(), ini);
        let configuration = directory.path().join("php-fpm.conf");
        let user = if getuid().is_root() {
            "user = root\ngroup = root\n"
        } else {
            ""
        };
        let text = format!(
            "[global]\nerror_log = {log}\ndaemonize = no\n[www]\nlisten = {socket}\n{user}\
             pm = static\npm.max_children = 1\n{pool}\n",
            log = directory.path().join("error.log").display(),
            socket = socket.display(),
            pool = pool.replace("{directory}", directory.path().to_str().unwrap()),
        );
        fs::write(&configuration, text).unwrap();

        environment(&mut command, &ini);
        command
            .current_dir(current_directory)
            .args(["-F", "-O", "-y"])
            .arg(&configuration)
            .arg("-c")
            .arg(&ini.directory);
        if getuid().is_root() {
            command.arg("-R");
        }
        let mut process = Process::start(&mut command, log.clone());
        process.expect_started(READY);
        Self {
            process,
            socket,
            log,
            directory,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Address {
        Address::Unix(self.socket.clone())
    }

    /// A directory of its own.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Sends a signal to the master process.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// The master's process number.
    pub(crate) fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(&self.address())
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// All processes below the master.
    pub(crate) fn descendants(&self) -> Vec<Identity> {
        self.process.descendants()
    }

    /// Its worker processes.
    pub(crate) fn worker_pids(&self) -> Vec<i32> {
        self.process.worker_pids()
    }
}

/// php-fpm of the PHP under test; without it there is nothing to compare with.
pub(crate) fn program() -> PathBuf {
    php::fpm().unwrap_or_else(|| {
        panic!(
            "no php-fpm of PHP {} found: `make test` installs it (Debian: apt-get install php{}-fpm); or set PHP_FPM",
            php::version(),
            php::branch()
        )
    })
}
