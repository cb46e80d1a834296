//! `fe-php fpm` started for one test, in a directory of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::process::{Signal, getuid};
use tempfile::TempDir;

use super::client::{Address, Connection, Request, Response};
use super::ini::Ini;
use super::log::Log;
use super::process::{Identity, Process};

/// A test that gets a running server: `server!(name, |s| { … })`, or with settings
/// `server!(name, Server::builder().workers(4), |s| { … })`.
macro_rules! server {
    ($name:ident, |$server:ident| $body:block) => {
        server!(
            $name,
            $crate::support::server::Server::builder(),
            |$server| $body
        );
    };
    ($name:ident, $builder:expr, |$server:ident| $body:block) => {
        #[test]
        fn $name() {
            #[allow(unused_mut)]
            let mut $server = $builder.start();
            $body
        }
    };
}

/// A running `fe-php fpm`. It is stopped on drop, which fails if it leaves a process behind.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process, // before the directory: stopped first
    address: Address,
    log: Log,
    ini: Ini,
    root: PathBuf,
    workers: u32,
    directory: TempDir,
}

/// What to start a [`Server`] with.
#[derive(Clone, Debug)]
pub(crate) struct Builder {
    program: PathBuf,
    workers: u32,
    listen: Option<String>,
    root: Option<PathBuf>,
    current_directory: Option<PathBuf>,
    ini: Vec<String>,
    arguments: Vec<String>,
    limits: Vec<String>,
}

impl Server {
    /// One worker, a Unix socket, an empty document root.
    pub(crate) fn builder() -> Builder {
        Builder {
            program: env!("CARGO_BIN_EXE_fe-php").into(),
            workers: 1,
            listen: None,
            root: None,
            current_directory: None,
            ini: Vec::new(),
            arguments: Vec::new(),
            limits: Vec::new(),
        }
    }

    /// Writes a script into the document root.
    pub(crate) fn php(&self, name: &str, source: &str) -> PathBuf {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // In one step: a request that runs may be compiling the script just now.
        let draft = self.directory.path().join("draft");
        fs::write(&draft, source).unwrap();
        fs::rename(&draft, &path).unwrap();
        path
    }

    /// A GET request for `uri` (path and query string), as nginx would send it.
    pub(crate) fn request(&self, uri: &str) -> Request {
        Request::get(&self.root, uri)
    }

    /// The answer to a GET request on a connection of its own.
    pub(crate) fn get(&self, uri: &str) -> Response {
        self.send(&self.request(uri))
    }

    /// The answer to `request` on a connection of its own.
    pub(crate) fn send(&self, request: &Request) -> Response {
        self.connect().exchange(request)
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(&self.address)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Where it listens at `host:` with a port that the kernel chose.
    pub(crate) fn tcp_address(&self, host: &str) -> Address {
        listening_address(&self.log, host)
    }

    /// The document root.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A directory for the test's own files, outside the document root.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its php.ini.
    pub(crate) fn ini(&self) -> &Ini {
        &self.ini
    }

    /// What it has written to its standard error.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Waits for a log line with `text` in it.
    pub(crate) fn expect_log(&self, text: &str) -> String {
        self.log.expect(text)
    }

    /// Sends a signal to the supervisor.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Asks for a reload and waits until the new generation is ready.
    pub(crate) fn reload(&self) {
        let ready = self.log.count(READY);
        self.signal(Signal::USR2);
        self.log.expect_count(READY, ready + 1);
    }

    /// The number of PHP workers that it was started with.
    pub(crate) fn workers(&self) -> u32 {
        self.workers
    }

    /// The supervisor's process number.
    pub(crate) fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// The worker processes.
    pub(crate) fn worker_pids(&self) -> Vec<i32> {
        self.process.worker_pids()
    }

    /// All processes below the supervisor.
    pub(crate) fn descendants(&self) -> Vec<Identity> {
        self.process.descendants()
    }

    /// The process itself.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        self.process.wait_exit()
    }
}

impl Builder {
    /// Another build of fe-php.
    pub(crate) fn program(mut self, program: &Path) -> Self {
        self.program = program.to_owned();
        self
    }

    /// `--workers`.
    pub(crate) fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// `--listen`, instead of a Unix socket in the test's directory.
    pub(crate) fn listen(mut self, address: &str) -> Self {
        self.listen = Some(address.to_owned());
        self
    }

    /// A document root that is there already.
    pub(crate) fn root(mut self, root: &Path) -> Self {
        self.root = Some(root.to_owned());
        self
    }

    /// The directory to start in, instead of the test's own.
    pub(crate) fn current_directory(mut self, directory: &Path) -> Self {
        self.current_directory = Some(directory.to_owned());
        self
    }

    /// A php.ini line; `{directory}` stands for the test's own directory.
    pub(crate) fn ini(mut self, line: &str) -> Self {
        self.ini.push(line.to_owned());
        self
    }

    /// Further command line arguments.
    pub(crate) fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// A limit for the whole server, in the words of the shell's `ulimit`: `-n 100`.
    pub(crate) fn limit(mut self, limit: &str) -> Self {
        self.limits.push(format!("ulimit {limit} && "));
        self
    }

    /// Starts the server and waits until it is ready.
    pub(crate) fn start(self) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::new(directory.path().join("log"));
        let path = directory.path().to_str().unwrap();
        let lines: Vec<String> = self
            .ini
            .iter()
            .map(|line| line.replace("{directory}", path))
            .collect();
        let ini = Ini::write(directory.path(), &lines);
        let root = self.root.unwrap_or_else(|| directory.path().join("www"));
        fs::create_dir_all(&root).unwrap();
        let socket = directory.path().join("fe-php.sock");
        let listen = self
            .listen
            .clone()
            .unwrap_or_else(|| socket.to_str().unwrap().to_owned());

        let mut command = if self.limits.is_empty() {
            Command::new(&self.program)
        } else {
            let mut shell = Command::new("/bin/sh");
            let limits = self.limits.concat();
            shell
                .args(["-c", &format!("{limits}exec \"$0\" \"$@\"")])
                .arg(&self.program);
            shell
        };
        environment(&mut command, &ini);
        command.current_dir(
            self.current_directory
                .as_deref()
                .unwrap_or_else(|| directory.path()),
        );
        command.args([
            "fpm",
            "--listen",
            &listen,
            "--workers",
            &self.workers.to_string(),
            "-c",
        ]);
        command.arg(&ini.directory).args(&self.arguments);
        let mut process = Process::start(&mut command, log.clone());
        process.expect_started(READY);

        let address = match &self.listen {
            Some(listen) if listen.ends_with(":0") => {
                listening_address(&log, &listen[..listen.len() - 1])
            }
            Some(listen) => Address::parse(listen),
            None => Address::Unix(socket),
        };
        Server {
            process,
            address,
            log,
            ini,
            root,
            workers: self.workers,
            directory,
        }
    }
}

/// Gives a server the environment that php-fpm gives its children: as little as possible, and the same for all.
pub(crate) fn environment(command: &mut Command, ini: &Ini) {
    command
        .env_clear()
        .env("PHP_INI_SCAN_DIR", &ini.scan_directory);
    // Of `make asan`.
    for name in [
        "ASAN_OPTIONS",
        "UBSAN_OPTIONS",
        "USE_ZEND_ALLOC",
        "LD_PRELOAD",
    ] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let (user, home) = if getuid().is_root() {
        ("root".to_owned(), "/root".to_owned())
    } else {
        let variable = |name| std::env::var(name).unwrap_or_else(|_| "/".to_owned());
        (variable("USER"), variable("HOME"))
    };
    command.env("USER", user).env("HOME", home);
}

/// The log line of a server that accepts connections, in php-fpm's words.
pub(crate) const READY: &str = "ready to handle connections";

/// The address with the port that the kernel chose.
fn listening_address(log: &Log, host: &str) -> Address {
    let line = log.expect(&format!("listening at {host}"));
    let (_, address) = line.split_once("listening at ").unwrap();
    Address::parse(
        address
            .split_whitespace()
            .next()
            .unwrap()
            .trim_end_matches([',', '.']),
    )
}
