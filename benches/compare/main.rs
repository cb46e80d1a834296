//! What a small request costs: fe-php beside the php-fpm of the same PHP.
//!
//! ```text
//! cargo bench --bench hello                                       # fe-php and php-fpm
//! cargo bench --bench hello -- old=/path/to/another/fe-php        # and another build of fe-php
//! cargo bench --bench hello -- --rounds 3 --requests 5000 --only hello
//! ```
//!
//! Both have four workers, a Unix socket and the same php.ini: OPcache, and no other extension than PHP has built in
//! (`PHP_INI_SCAN_DIR=/etc/php/8.2/fpm/conf.d` in the environment adds Debian's). One thread keeps a request open on
//! each of four connections (`--connections`). Servers take turns, so that what else the machine does hits all alike;
//! figures are medians over the rounds, and ratios medians of the ratios within a round. CPU is that of the server's
//! whole process tree, in nanoseconds from its CPU clocks. Throughput depends on the load generator, which shares the
//! processors, so look at CPU first. `busy` is the number of processes that did a tenth of the work or more: few busy
//! processes cost less CPU (they sleep less), but use fewer processors.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::process::{Pid, Signal, getuid, kill_process};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const WORKERS: usize = 4;
/// How long a server may take to start or stop, and to answer one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest that one round of one server in one scenario may take.
const LONGEST_ROUND: Duration = Duration::from_secs(30);
const READY: &str = "ready to handle connections";

struct Scenario {
    name: &'static str,
    script: &'static str,
    source: &'static str,
    /// Length of the page.
    length: usize,
    keep_alive: bool,
    /// Time from one request to the next, which then come one at a time, and fifty times fewer of them.
    pace: Option<Duration>,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "hello, kept alive",
        script: "hello.php",
        source: "<?php echo 'hello';",
        length: 5,
        keep_alive: true,
        pace: None,
    },
    Scenario {
        name: "hello, new connection",
        script: "hello.php",
        source: "<?php echo 'hello';",
        length: 5,
        keep_alive: false,
        pace: None,
    },
    Scenario {
        name: "hello, 200 a second",
        script: "hello.php",
        source: "<?php echo 'hello';",
        length: 5,
        keep_alive: true,
        pace: Some(Duration::from_millis(5)),
    },
    Scenario {
        name: "50 x 1 KB, kept alive",
        script: "page.php",
        source: "<?php $k = str_repeat('x', 1024); for ($i = 0; $i < 50; $i++) { echo $k; }",
        length: 50 << 10,
        keep_alive: true,
        pace: None,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("nothing is measured without `cargo bench --bench hello`");
        return ExitCode::SUCCESS;
    }
    match Options::parse(&arguments).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    rounds: usize,
    requests: usize,
    connections: usize,
    only: String,
    /// Other builds of fe-php.
    others: Vec<(String, PathBuf)>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            rounds: 7,
            requests: 20_000,
            connections: 4,
            only: String::new(),
            others: Vec::new(),
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .ok_or_else(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--bench" => {}
                "--rounds" => options.rounds = value()?.parse::<usize>()?.clamp(1, 1000),
                "--requests" => options.requests = value()?.parse::<usize>()?.clamp(1, 10_000_000),
                "--connections" => {
                    options.connections = value()?.parse::<usize>()?.clamp(1, WORKERS);
                }
                "--only" => options.only.clone_from(value()?),
                other => match other.split_once('=') {
                    Some((name, program)) => options.others.push((name.to_owned(), program.into())),
                    None => {
                        let usage = "--rounds N, --requests N, --connections N, --only SCENARIO, NAME=/path/to/fe-php";
                        return Err(format!("{other}: what is understood is {usage}").into());
                    }
                },
            }
        }
        Ok(options)
    }
}

fn run(options: &Options) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let directory = directory.path();
    let php_fpm = php_fpm()?;
    for scenario in &SCENARIOS {
        fs::write(directory.join(scenario.script), scenario.source)?;
    }
    let ini = Ini::write(directory)?;
    let scenarios: Vec<&Scenario> = SCENARIOS
        .iter()
        .filter(|scenario| scenario.name.contains(&options.only))
        .collect();
    if scenarios.is_empty() {
        return Err(format!("no scenario is called {}", options.only).into());
    }

    // php-fpm is the first: the others are compared with it.
    let mut servers = vec![Server::php_fpm(&php_fpm, directory, &ini)?];
    let own = (
        "fe-php".to_owned(),
        PathBuf::from(env!("CARGO_BIN_EXE_fe-php")),
    );
    for (name, program) in std::iter::once(&own).chain(&options.others) {
        servers.push(Server::fe_php(name, program, directory, &ini)?);
    }
    same_php(&servers, directory)?;
    eprintln!(
        "{} against {}; {} rounds of {} requests, {} connections, {WORKERS} workers",
        servers[1..]
            .iter()
            .map(|server| server.name.as_str())
            .collect::<Vec<_>>()
            .join(", "),
        php_fpm.display(),
        options.rounds,
        options.requests,
        options.connections,
    );

    let mut table = Table::default();
    for scenario in scenarios {
        let load = Load::new(scenario, directory, options.connections);
        for server in &servers {
            load.run(&server.socket, (load.requests(options) / 10).max(WORKERS))?;
        }
        let mut samples: Vec<Vec<Sample>> = servers.iter().map(|_| Vec::new()).collect();
        for round in 0..options.rounds {
            // Everybody is first, second, … equally often.
            let count = servers.len();
            for turn in 0..count {
                let place = (turn + round) % count;
                let index = if round / count % 2 == 0 {
                    place
                } else {
                    count - 1 - place
                };
                samples[index].push(servers[index].measure(&load, load.requests(options))?);
            }
        }
        table.add(scenario, &servers, &samples);
    }
    println!("{}", table.text());
    Ok(())
}

/// What one server did in one round.
#[derive(Clone, Copy)]
struct Sample {
    /// Microseconds of CPU for one request.
    cpu: f64,
    /// Requests in a second.
    rate: f64,
    /// Processes that did a tenth of the work or more.
    busy: f64,
}

/// A running server; stopped on drop.
struct Server {
    name: String,
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Server {
    fn php_fpm(program: &Path, directory: &Path, ini: &Ini) -> Result<Self> {
        let socket = directory.join("php-fpm.sock");
        let configuration = directory.join("php-fpm.conf");
        let root = getuid().is_root();
        let user = if root {
            "user = root\ngroup = root\n"
        } else {
            ""
        };
        let text = format!(
            "[global]\nerror_log = {}\ndaemonize = no\n[www]\nlisten = {}\n{user}pm = static\npm.max_children = {WORKERS}\n",
            directory.join("php-fpm.error.log").display(),
            socket.display(),
        );
        fs::write(&configuration, text)?;
        let mut command = Command::new(program);
        command
            .args(["-F", "-O", "-y"])
            .arg(&configuration)
            .arg("-c")
            .arg(&ini.file);
        if root {
            command.arg("-R");
        }
        Self::start("php-fpm", command, socket, directory, ini)
    }

    fn fe_php(name: &str, program: &Path, directory: &Path, ini: &Ini) -> Result<Self> {
        let socket = directory.join(format!("{name}.sock"));
        let mut command = Command::new(program);
        command
            .args(["fpm", "--workers", &WORKERS.to_string(), "--listen"])
            .arg(&socket)
            .arg("-c")
            .arg(&ini.file);
        Self::start(name, command, socket, directory, ini)
    }

    fn start(
        name: &str,
        mut command: Command,
        socket: PathBuf,
        directory: &Path,
        ini: &Ini,
    ) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let file = File::create(&log)?;
        command
            .env("PHP_INI_SCAN_DIR", &ini.scan_directory)
            .current_dir(directory);
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        let mut server = Self {
            name: name.to_owned(),
            child,
            socket,
            log,
        };
        let end = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(&server.log)?;
            if log.contains(READY) {
                return Ok(server);
            }
            let status = server.child.try_wait()?;
            if status.is_some() || Instant::now() > end {
                return Err(format!("{name} does not start ({status:?}). Its log:\n{log}").into());
            }
            sleep(Duration::from_millis(5));
        }
    }

    fn measure(&self, load: &Load<'_>, requests: usize) -> Result<Sample> {
        let failed = |error| format!("{}, {}: {error}", self.name, load.scenario.name);
        let before = self.processes()?;
        let cpu_before = cpu_times(&before)?;
        let start = Instant::now();
        load.run(&self.socket, requests).map_err(failed)?;
        let elapsed = start.elapsed();
        // What a server does after an answer belongs to the request.
        sleep(Duration::from_millis(2));
        let cpu: Vec<Duration> = cpu_times(&before)?
            .iter()
            .zip(&cpu_before)
            .map(|(after, before)| *after - *before)
            .collect();
        let total: Duration = cpu.iter().sum();
        let busy = cpu.iter().filter(|cpu| **cpu * 10 >= total).count();
        if self.processes()? != before {
            let log = fs::read_to_string(&self.log)?;
            return Err(format!(
                "{} has other processes after a round than before. Its log:\n{log}",
                self.name
            )
            .into());
        }
        #[allow(clippy::cast_precision_loss)] // far below 2^53
        let (requests, busy) = (requests as f64, busy as f64);
        Ok(Sample {
            cpu: total.as_secs_f64() * 1e6 / requests,
            rate: requests / elapsed.as_secs_f64(),
            busy,
        })
    }

    /// The server and all processes below it.
    fn processes(&self) -> Result<BTreeSet<i32>> {
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok())
            else {
                continue;
            };
            if let Some(parent) = parent_of(pid) {
                parents.push((pid, parent));
            }
        }
        let mut found = BTreeSet::from([i32::try_from(self.child.id())?]);
        while let Some((pid, _)) = parents
            .iter()
            .find(|(pid, parent)| found.contains(parent) && !found.contains(pid))
        {
            found.insert(*pid);
        }
        Ok(found)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let below = self.processes().unwrap_or_default();
        let kill = |pid: i32, signal| {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, signal);
            }
        };
        kill(i32::try_from(self.child.id()).unwrap_or(0), Signal::TERM);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            sleep(Duration::from_millis(5));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            eprintln!("{} does not stop at SIGTERM and is killed", self.name);
            // Its children first, while they are known to be its own.
            for pid in self.processes().unwrap_or_default().intersection(&below) {
                kill(*pid, Signal::KILL);
            }
            let _ = self.child.wait();
        }
    }
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; after it come the state and the parent.
    stat[stat.rfind(')')? + 1..]
        .split_ascii_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// CPU time of each process, with all its threads, even those that have ended.
#[allow(unsafe_code)] // another process's CPU clock: rustix has no function for it
fn cpu_times(pids: &BTreeSet<i32>) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for pid in pids {
        let mut clock = 0;
        // SAFETY: writes the clock's number.
        let error = unsafe { libc::clock_getcpuclockid(*pid, &raw mut clock) };
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: writes the time.
        if error != 0 || unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
            return Err(format!("process {pid} has ended, or its CPU clock cannot be read").into());
        }
        times.push(Duration::new(
            u64::try_from(time.tv_sec)?,
            u32::try_from(time.tv_nsec)?,
        ));
    }
    Ok(times)
}

/// A closed loop of one scenario's requests.
struct Load<'a> {
    scenario: &'a Scenario,
    request: Vec<u8>,
    connections: usize,
}

impl<'a> Load<'a> {
    fn new(scenario: &'a Scenario, root: &Path, connections: usize) -> Self {
        Self {
            scenario,
            request: request(root, scenario.script, scenario.keep_alive),
            connections,
        }
    }

    /// How many requests make a round.
    fn requests(&self, options: &Options) -> usize {
        if self.scenario.pace.is_some() {
            (options.requests / 50).max(WORKERS)
        } else {
            options.requests
        }
    }

    /// Makes `requests` requests; returns when all have been answered.
    fn run(&self, socket: &Path, requests: usize) -> Result<()> {
        let start = Instant::now();
        let end = start + LONGEST_ROUND;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timeout = Timespec {
            tv_sec: i64::try_from(PATIENCE.as_secs())?,
            tv_nsec: 0,
        };
        let mut buffer = vec![0; 256 << 10];
        let mut started = 0;
        let mut answered = 0;
        let mut connections = Vec::new();
        for index in 0..self.connections.min(requests) {
            connections.push(Connection::open(socket, &epoll, index)?);
            if self.scenario.pace.is_none() || index == 0 {
                connections[index].stream.write_all(&self.request)?;
                started += 1;
            }
        }
        let mut events = [MaybeUninit::<Event>::uninit(); WORKERS];
        while answered < requests {
            let (ready, _) = epoll::wait(&epoll, &mut events, Some(&timeout))?;
            if ready.is_empty() || Instant::now() > end {
                return Err(format!(
                    "only {answered} of {requests} requests were answered in time"
                )
                .into());
            }
            for event in ready.iter() {
                let index = usize::try_from(event.data.u64())?;
                let mut connection = &mut connections[index];
                let length = connection.stream.read(&mut buffer)?;
                if length == 0 {
                    return Err(
                        "the server has closed a connection before its answer was complete".into(),
                    );
                }
                if !connection.answer.read(&buffer[..length])? {
                    continue;
                }
                if connection.answer.page != self.scenario.length {
                    return Err(format!(
                        "a page of {} bytes instead of {}",
                        connection.answer.page, self.scenario.length
                    )
                    .into());
                }
                answered += 1;
                if started == requests {
                    epoll::delete(&epoll, &connection.stream)?;
                    continue;
                }
                if self.scenario.keep_alive {
                    connection.answer = Answer::default();
                } else {
                    *connection = Connection::open(socket, &epoll, index)?;
                }
                if let Some(pace) = self.scenario.pace {
                    sleep(
                        (start + pace * u32::try_from(started)?)
                            .saturating_duration_since(Instant::now()),
                    );
                    connection = &mut connections[started % self.connections];
                }
                connection.stream.write_all(&self.request)?;
                started += 1;
            }
        }
        Ok(())
    }
}

struct Connection {
    stream: UnixStream,
    answer: Answer,
}

impl Connection {
    fn open(socket: &Path, epoll: &impl std::os::fd::AsFd, index: usize) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        epoll::add(
            epoll,
            &stream,
            EventData::new_u64(index as u64),
            EventFlags::IN,
        )?;
        Ok(Self {
            stream,
            answer: Answer::default(),
        })
    }
}

/// How far an answer has come.
#[derive(Default)]
struct Answer {
    header: [u8; 8],
    header_length: usize,
    /// Bytes of the current record's content, and of its padding, that have not come.
    content: usize,
    padding: usize,
    in_page: bool,
    /// The last bytes of the header block.
    last: [u8; 4],
    /// Length of the page so far.
    page: usize,
}

impl Answer {
    /// Takes bytes; true once END_REQUEST has come.
    fn read(&mut self, mut bytes: &[u8]) -> Result<bool> {
        loop {
            if self.header_length == 8 && self.content == 0 && self.padding == 0 {
                if self.header[1] == 3 {
                    return if bytes.is_empty() {
                        Ok(true)
                    } else {
                        Err("bytes after END_REQUEST".into())
                    };
                }
                self.header_length = 0;
            }
            let Some(first) = bytes.first() else {
                return Ok(false);
            };
            if self.header_length < 8 {
                self.header[self.header_length] = *first;
                self.header_length += 1;
                bytes = &bytes[1..];
                if self.header_length == 8 {
                    self.content =
                        usize::from(u16::from_be_bytes([self.header[4], self.header[5]]));
                    self.padding = usize::from(self.header[6]);
                }
            } else if self.content > 0 {
                let (now, rest) = bytes.split_at(bytes.len().min(self.content));
                self.content -= now.len();
                bytes = rest;
                match self.header[1] {
                    6 => self.stdout(now),
                    7 => {
                        return Err(format!(
                            "on the error stream: {}",
                            String::from_utf8_lossy(now)
                        )
                        .into());
                    }
                    _ => {}
                }
            } else {
                let now = bytes.len().min(self.padding);
                self.padding -= now;
                bytes = &bytes[now..];
            }
        }
    }

    fn stdout(&mut self, mut bytes: &[u8]) {
        while !self.in_page {
            let Some((first, rest)) = bytes.split_first() else {
                return;
            };
            self.last.rotate_left(1);
            self.last[3] = *first;
            bytes = rest;
            self.in_page = self.last == *b"\r\n\r\n";
        }
        self.page += bytes.len();
    }
}

/// A GET request as nginx sends it with Debian's `fastcgi.conf` and a browser's usual headers.
fn request(root: &Path, script: &str, keep_alive: bool) -> Vec<u8> {
    let root = root.display().to_string();
    let script = format!("/{script}");
    let file = format!("{root}{script}");
    let params = [
        ("SCRIPT_FILENAME", file.as_str()),
        ("QUERY_STRING", ""),
        ("REQUEST_METHOD", "GET"),
        ("CONTENT_TYPE", ""),
        ("CONTENT_LENGTH", ""),
        ("SCRIPT_NAME", &script),
        ("REQUEST_URI", &script),
        ("DOCUMENT_URI", &script),
        ("DOCUMENT_ROOT", &root),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_SCHEME", "http"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_SOFTWARE", "nginx/1.22.1"),
        ("REMOTE_ADDR", "192.0.2.7"),
        ("REMOTE_PORT", "40000"),
        ("REMOTE_USER", ""),
        ("SERVER_ADDR", "192.0.2.1"),
        ("SERVER_PORT", "80"),
        ("SERVER_NAME", "example.test"),
        ("REDIRECT_STATUS", "200"),
        ("HTTP_HOST", "example.test"),
        (
            "HTTP_USER_AGENT",
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        ),
        (
            "HTTP_ACCEPT",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ),
        ("HTTP_ACCEPT_LANGUAGE", "en-US,en;q=0.5"),
        ("HTTP_ACCEPT_ENCODING", "gzip, deflate, br"),
    ];
    let mut content = Vec::new();
    for (name, value) in params {
        for length in [name.len(), value.len()] {
            match u8::try_from(length) {
                Ok(length @ 0..=127) => content.push(length),
                _ => content.extend_from_slice(
                    &(u32::try_from(length).unwrap_or(0) | 1 << 31).to_be_bytes(),
                ),
            }
        }
        content.extend_from_slice(name.as_bytes());
        content.extend_from_slice(value.as_bytes());
    }
    let mut bytes = Vec::new();
    push_record(&mut bytes, 1, &[0, 1, u8::from(keep_alive), 0, 0, 0, 0, 0]);
    push_record(&mut bytes, 4, &content);
    push_record(&mut bytes, 4, &[]);
    push_record(&mut bytes, 5, &[]);
    bytes
}

fn push_record(bytes: &mut Vec<u8>, kind: u8, content: &[u8]) {
    let [high, low] = u16::try_from(content.len()).unwrap_or(0).to_be_bytes();
    let padding = content.len().wrapping_neg() % 8;
    bytes.extend_from_slice(&[
        1,
        kind,
        0,
        1,
        high,
        low,
        u8::try_from(padding).unwrap_or(0),
        0,
    ]);
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(&[0; 8][..padding]);
}

/// php.ini, and the directory of further ini files.
struct Ini {
    file: PathBuf,
    scan_directory: PathBuf,
}

impl Ini {
    fn write(directory: &Path) -> Result<Self> {
        let file = directory.join("php.ini");
        let mut text = "opcache.enable=1\nopcache.validate_timestamps=1\nlog_errors=1\n".to_owned();
        let own = directory.join("conf.d");
        fs::create_dir(&own)?;
        let scan_directory = std::env::var_os("PHP_INI_SCAN_DIR").map(PathBuf::from);
        if scan_directory.is_none() && php_config("--vernum")?.parse::<u32>()? < 80_500 {
            text.push_str("zend_extension=opcache\n");
        }
        fs::write(&file, text)?;
        Ok(Self {
            file,
            scan_directory: scan_directory.unwrap_or(own),
        })
    }
}

/// The php-fpm of the PHP that fe-php was built with: `PHP_FPM`, or where that PHP is installed.
fn php_fpm() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("PHP_FPM") {
        return Ok(path.into());
    }
    let version = php_config("--version")?;
    let branch = version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    let directory = PathBuf::from(php_config("--prefix")?).join("sbin");
    let candidates =
        [format!("php-fpm{branch}"), "php-fpm".to_owned()].map(|name| directory.join(name));
    candidates.into_iter().find(|path| path.exists()).ok_or_else(|| {
        let directory = directory.display();
        format!(
            "no php-fpm of PHP {version} in {directory}, so there is nothing to compare with: install Debian's package \
             php{branch}-fpm (apt-get install php-fpm), or set PHP_FPM to its path"
        )
        .into()
    })
}

fn php_config(option: &str) -> Result<String> {
    let program = std::env::var_os("PHP_CONFIG").unwrap_or_else(|| "php-config".into());
    let output = Command::new(&program).arg(option).output();
    let output = output.map_err(|error| {
        format!(
            "{}: {error}. Install Debian's package php-dev, or set PHP_CONFIG",
            program.display()
        )
    })?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Refuses to compare different PHPs, or one with OPcache and one without.
fn same_php(servers: &[Server], root: &Path) -> Result<()> {
    let source = "<?php echo PHP_VERSION, PHP_ZTS ? ' ZTS' : ' NTS', ', ', \
                  (opcache_get_status(false)['opcache_enabled'] ?? false) ? 'with' : 'without', ' OPcache.';";
    fs::write(root.join("same.php"), source)?;
    let request = request(root, "same.php", false);
    let mut texts = Vec::new();
    for server in servers {
        let mut stream = UnixStream::connect(&server.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&request)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let text = text
            .split_once("\r\n\r\n")
            .map_or(text.as_str(), |(_, page)| page);
        let end = text
            .find("OPcache")
            .map_or(text.len(), |at| at + "OPcache".len());
        texts.push(text[..end].to_owned());
    }
    eprintln!("PHP {}", texts[0]);
    for (server, text) in servers.iter().zip(&texts) {
        if *text != texts[0] {
            return Err(format!(
                "{} is PHP {text:?}, but php-fpm is PHP {:?}",
                server.name, texts[0]
            )
            .into());
        }
    }
    Ok(())
}

/// The report.
#[derive(Default)]
struct Table {
    rows: String,
}

impl Table {
    fn add(&mut self, scenario: &Scenario, servers: &[Server], samples: &[Vec<Sample>]) {
        for (server, own) in servers.iter().zip(samples) {
            let of = |value: fn(&Sample) -> f64| sorted(own.iter().map(value).collect());
            let to_php_fpm = |value: fn(&Sample) -> f64| {
                median(&sorted(
                    own.iter()
                        .zip(&samples[0])
                        .map(|(own, php_fpm)| value(own) / value(php_fpm))
                        .collect(),
                ))
            };
            let cpu = of(|sample| sample.cpu);
            let rate = of(|sample| sample.rate);
            let _ = writeln!(
                self.rows,
                "{:<22} {:<10} {:>8.1} {:>7.1}-{:<7.1} {:>5.2} {:>11.0} {:>6.2} {:>5}",
                scenario.name,
                server.name,
                median(&cpu),
                cpu[0],
                cpu[cpu.len() - 1],
                to_php_fpm(|sample| sample.cpu),
                median(&rate),
                to_php_fpm(|sample| sample.rate),
                median(&of(|sample| sample.busy)),
            );
        }
    }

    fn text(&self) -> String {
        format!(
            "{:<22} {:<10} {:>8} {:>15} {:>5} {:>11} {:>6} {:>5}\n{}",
            "scenario",
            "server",
            "CPU us",
            "min-max",
            "ratio",
            "requests/s",
            "ratio",
            "busy",
            self.rows
        )
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}
