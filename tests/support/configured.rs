//! fe-php, or stock php-fpm in its place, with a php-fpm.conf of the test's own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::process::{Signal, getuid};
use tempfile::TempDir;

use super::client::{Address, Connection, Request, Response};
use super::fpm;
use super::ini::Ini;
use super::log::Log;
use super::process::{Identity, Process};
use super::server::{READY, environment};

/// Which program obeys the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// `fe-php fpm`
    FePhp,
    /// fe-php under the name php-fpm
    Renamed,
    /// php-fpm of the PHP under test
    Stock,
}

/// A running server. It is stopped on drop, which fails if it leaves a process behind.
#[derive(Debug)]
pub(crate) struct Configured {
    process: Process, // before the directory: stopped first
    log: Log,
    files: Files,
}

/// What to start a [`Configured`] with.
#[derive(Clone, Debug)]
pub(crate) struct Builder {
    config: String,
    program: Program,
    executable: Option<PathBuf>,
    ini: Vec<String>,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

/// The directory of a server: its configuration, its sockets, and scripts in `www`.
#[derive(Debug)]
pub(crate) struct Files {
    directory: TempDir,
    ini: Ini,
}

impl Configured {
    /// `config` begins in the section `[global]`; `{dir}` stands for the server's directory, `{user}` for the lines that
    /// let a pool run as whoever runs the test.
    pub(crate) fn builder(config: &str) -> Builder {
        Builder {
            config: config.to_owned(),
            program: Program::FePhp,
            executable: None,
            ini: Vec::new(),
            arguments: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// The section of a pool that listens at `{dir}/NAME.sock`, with `lines`.
    pub(crate) fn pool(name: &str, lines: &str) -> String {
        format!("[{name}]\nlisten = {{dir}}/{name}.sock\n{{user}}\n{lines}\n")
    }

    /// Its files.
    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// Writes a script into the document root.
    pub(crate) fn php(&self, name: &str, source: &str) -> PathBuf {
        self.files.php(name, source)
    }

    /// Where the pool `name` listens, if its section was made by [`pool`](Self::pool).
    pub(crate) fn address(&self, name: &str) -> Address {
        Address::Unix(self.files.path(&format!("{name}.sock")))
    }

    /// A GET request for `uri`, as nginx would send it.
    pub(crate) fn request(&self, uri: &str) -> Request {
        Request::get(&self.files.root(), uri)
    }

    /// A new connection to a pool.
    pub(crate) fn connect(&self, pool: &str) -> Connection {
        Connection::open(&self.address(pool))
    }

    /// A pool's answer to a GET request on a connection of its own.
    pub(crate) fn get(&self, pool: &str, uri: &str) -> Response {
        self.send(pool, &self.request(uri))
    }

    /// A pool's answer to `request` on a connection of its own.
    pub(crate) fn send(&self, pool: &str, request: &Request) -> Response {
        self.connect(pool).exchange(request)
    }

    /// What it has written to its standard error: the whole error log.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// The supervisor's process number.
    pub(crate) fn pid(&self) -> i32 {
        self.process.pid()
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

    /// All processes below the supervisor.
    pub(crate) fn descendants(&self) -> Vec<Identity> {
        self.process.descendants()
    }

    /// The worker processes of all pools.
    pub(crate) fn worker_pids(&self) -> Vec<i32> {
        self.process.worker_pids()
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        self.process.wait_exit()
    }
}

impl Builder {
    /// Another program than `fe-php fpm`.
    pub(crate) fn program(mut self, program: Program) -> Self {
        self.program = program;
        self
    }

    /// Another file with fe-php in it.
    pub(crate) fn executable(mut self, path: &Path) -> Self {
        self.executable = Some(path.to_owned());
        self
    }

    /// A php.ini line.
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

    /// An environment variable of the server.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes the files and starts the server; returns when it is ready.
    pub(crate) fn start(self) -> Configured {
        let files = Files::new(&self.ini);
        files.configure(&self.config);
        self.start_in(files)
    }

    /// The same with files that are there already.
    pub(crate) fn start_in(self, files: Files) -> Configured {
        let log = Log::new(files.path("log"));
        let mut process = Process::start(&mut self.command(&files), log.clone());
        process.expect_started(READY);
        Configured {
            process,
            log,
            files,
        }
    }

    /// The command that starts it: in the foreground, with its log on standard error.
    pub(crate) fn command(&self, files: &Files) -> Command {
        let mut command = self.bare_command(files);
        command.args(["-F", "-O", "-y"]).arg(files.config());
        command
    }

    /// The program with its php.ini, and `-R` if need be, and nothing else.
    pub(crate) fn bare_command(&self, files: &Files) -> Command {
        let ours = self
            .executable
            .clone()
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_fe-php").into());
        let mut command = match self.program {
            Program::FePhp => {
                let mut command = Command::new(ours);
                command.arg("fpm");
                command
            }
            Program::Renamed => {
                let name = files.path("php-fpm");
                if !name.exists() {
                    symlink(ours, &name).unwrap();
                }
                Command::new(name)
            }
            Program::Stock => Command::new(fpm::program()),
        };
        environment(&mut command, &files.ini);
        command
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(files.directory())
            .arg("-c")
            .arg(&files.ini.directory)
            .args(&self.arguments);
        if getuid().is_root() {
            command.arg("-R");
        }
        command
    }
}

impl Files {
    /// A new directory with these php.ini lines.
    pub(crate) fn new(ini: &[String]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let lines: Vec<String> = ini.iter().map(|line| line.replace("{dir}", path)).collect();
        let ini = Ini::write(directory.path(), &lines);
        fs::create_dir(directory.path().join("www")).unwrap();
        Self { directory, ini }
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A file in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The document root.
    pub(crate) fn root(&self) -> PathBuf {
        self.path("www")
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("php-fpm.conf")
    }

    /// Its php.ini.
    pub(crate) fn ini(&self) -> &Ini {
        &self.ini
    }

    /// Writes the configuration, as [`Configured::builder`] takes it.
    pub(crate) fn configure(&self, config: &str) {
        let text = format!("[global]\nerror_log = {{dir}}/error.log\ndaemonize = no\n{config}");
        fs::write(self.config(), self.fill_in(&text)).unwrap();
    }

    /// The text with what stands for the directory and the user.
    pub(crate) fn fill_in(&self, text: &str) -> String {
        let user = if getuid().is_root() {
            "user = root\ngroup = root"
        } else {
            ""
        };
        text.replace("{dir}", self.directory().to_str().unwrap())
            .replace("{user}", user)
    }

    /// Writes a script into the document root.
    pub(crate) fn php(&self, name: &str, source: &str) -> PathBuf {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // In one step: a request that runs may be compiling the script just now.
        let draft = self.path("draft");
        fs::write(&draft, source).unwrap();
        fs::rename(&draft, &path).unwrap();
        path
    }
}
