//! The servers that are compared.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::frontends::frontend::free_port;
use crate::options::Options;
use crate::scripts::Scripts;
use crate::support::client::{Address, Connection, Request};
use crate::support::fpm::Fpm;
use crate::support::php;
use crate::support::server::Server;

/// A running server.
#[derive(Debug)]
pub(crate) struct Contestant {
    pub(crate) name: String,
    pub(crate) pid: i32,
    pub(crate) address: Address,
    _server: Running,
}

/// Stopped on drop.
#[derive(Debug)]
#[allow(dead_code)] // held, not looked at
enum Running {
    FePhp(Box<Server>),
    PhpFpm(Box<Fpm>),
}

/// How the servers are set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) workers: u32,
    pub(crate) tcp: bool,
}

/// The usual one.
pub(crate) const FOUR_WORKERS: Setup = Setup {
    workers: 4,
    tcp: false,
};

const PHP_FPM: &str = "php-fpm";

/// php.ini; the extensions are those that the machine has.
const INI: [&str; 4] = [
    "opcache.enable=1",
    "memory_limit=256M",
    "error_reporting=E_ALL & ~E_DEPRECATED", // as in php.ini-production
    "post_max_size=8M",
];

/// Whether all servers write access and slow logs and watch the time of requests (`--logged`).
pub(crate) static LOGGED: AtomicBool = AtomicBool::new(false);

const LOGS: &str = "access.log = {directory}/access.log
slowlog = {directory}/slow.log
request_slowlog_timeout = 20
request_terminate_timeout = 60
";

impl Setup {
    /// Stock php-fpm.
    pub(crate) fn php_fpm(self, root: &Path) -> Contestant {
        let program = php::fpm().expect("`make bench` finds php-fpm");
        self.by_configuration(PHP_FPM, Command::new(program), root)
    }

    /// A server that takes php-fpm's options and configuration.
    fn by_configuration(self, name: &str, program: Command, root: &Path) -> Contestant {
        let workers = self.workers;
        // What is said last counts.
        let mut pool = format!("pm.max_children = {workers}\nlisten.backlog = 4096\n");
        if LOGGED.load(Ordering::Relaxed) {
            pool += LOGS;
        }
        let mut address = None;
        if self.tcp {
            let tcp = format!("127.0.0.1:{}", free_port());
            pool += &format!("listen = {tcp}\n");
            address = Some(Address::Tcp(tcp));
        }
        let fpm = Fpm::start_as(program, &INI.map(str::to_owned), &pool, root);
        Contestant {
            name: name.to_owned(),
            pid: fpm.pid(),
            address: address.unwrap_or_else(|| fpm.address()),
            _server: Running::PhpFpm(Box::new(fpm)),
        }
    }

    /// This build of fe-php, or another one with its name.
    pub(crate) fn fe_php(self, root: &Path, other: Option<(&str, &Path)>) -> Contestant {
        if LOGGED.load(Ordering::Relaxed) {
            let (name, program) =
                other.unwrap_or_else(|| ("fe-php", Path::new(env!("CARGO_BIN_EXE_fe-php"))));
            let mut command = Command::new(program);
            command.arg("fpm");
            return self.by_configuration(name, command, root);
        }
        let mut builder = Server::builder().workers(self.workers).root(root);
        for line in INI {
            builder = builder.ini(line);
        }
        if self.tcp {
            builder = builder.listen("127.0.0.1:0");
        }
        if let Some((_, program)) = other {
            builder = builder.program(program);
        }
        let server = builder.start();
        Contestant {
            name: other.map_or("fe-php", |(name, _)| name).to_owned(),
            pid: server.pid(),
            address: server.address().clone(),
            _server: Running::FePhp(Box::new(server)),
        }
    }

    /// php-fpm first, then fe-php, then other builds of it.
    pub(crate) fn all(self, root: &Path, options: &Options) -> Vec<Contestant> {
        let mut all = vec![self.php_fpm(root), self.fe_php(root, None)];
        for (name, program) in &options.others {
            all.push(self.fe_php(root, Some((name, program))));
        }
        all
    }
}

impl Contestant {
    pub(crate) fn is_php_fpm(&self) -> bool {
        self.name == PHP_FPM
    }

    /// The address as `fe-php bench` takes it.
    pub(crate) fn address_text(&self) -> String {
        match &self.address {
            Address::Unix(path) => path.to_str().unwrap().to_owned(),
            Address::Tcp(address) => address.clone(),
        }
    }
}

/// Refuses to compare different PHPs, or one with OPcache and one without.
pub(crate) fn same_php(scripts: &Scripts, options: &Options) -> Result<(), String> {
    let mut first: Option<String> = None;
    for contestant in FOUR_WORKERS.all(scripts.root(), options) {
        let request = Request::get(scripts.root(), "/same.php");
        let text = Connection::open(&contestant.address)
            .exchange(&request)
            .text();
        // fe-php may have what php-fpm leaves out, and the order is of no importance.
        let (build, extensions) = text.split_once(" OPcache, ").unwrap_or((&text, ""));
        let mut extensions: Vec<&str> = extensions.split(' ').collect();
        extensions.sort_unstable();
        extensions.retain(|name| !["cgi-fcgi", "pcntl", "fe-php"].contains(name));
        let text = format!("{build} OPcache, {}", extensions.join(" "));
        match &first {
            None if !build.ends_with("with") => {
                return Err(format!("php-fpm is PHP {text}: OPcache is to be compared"));
            }
            None => {
                eprintln!("PHP {text}");
                first = Some(text);
            }
            Some(first) if *first != text => {
                return Err(format!(
                    "{} is PHP {text}, but php-fpm is PHP {first}",
                    contestant.name
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
