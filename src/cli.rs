//! The command line: fe-php's own, which clap reads, and php-fpm's.

pub(crate) mod php_fpm;

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::bench;
use php_fpm::PhpFpm;

use crate::config::{IniConfig, Limits, ListenAddress, PoolConfig, TimeLimits};

/// What the program is to do.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// By fe-php's own command line.
    Own(Cli),
    /// By php-fpm's: called under a name that begins with `php-fpm`, or `fe-php fpm` without options of fe-php's own.
    PhpFpm {
        /// What it says.
        command: PhpFpm,
        /// How the program calls itself in the usage text.
        program: String,
    },
}

/// Reads the command line, the program's name included. Does not return if it asks for clap's help or is wrong.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Invocation {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let argv0 = arguments
        .first()
        .map(Path::new)
        .unwrap_or_else(|| Path::new(""));
    let name = argv0.file_name().unwrap_or_default().to_string_lossy();
    let first = arguments.get(1).map(|argument| argument.to_string_lossy());
    let first = first.as_deref().unwrap_or_default();
    // A pool process keeps the name that the supervisor has, whatever that is.
    if name.starts_with("php-fpm") && first != crate::supervisor::process::POOL_PROCESS {
        return Invocation::PhpFpm {
            program: php_fpm::program_name(&argv0.to_string_lossy()).to_owned(),
            command: php_fpm::parse(arguments.into_iter().skip(1)),
        };
    }
    if first == "fpm" && !arguments[2..].iter().any(is_own_option) {
        return Invocation::PhpFpm {
            program: "fe-php fpm".to_owned(),
            command: php_fpm::parse(arguments.into_iter().skip(2)),
        };
    }
    Invocation::Own(Cli::parse_from(arguments))
}

/// Whether `fe-php fpm` has this option and php-fpm does not; help is ours too.
fn is_own_option(argument: &OsString) -> bool {
    let argument = argument.to_string_lossy();
    let Some(long) = argument.strip_prefix("--") else {
        return ["-l", "-w", "-h"]
            .iter()
            .any(|own| argument.starts_with(own));
    };
    let name = long.split('=').next().unwrap_or(long);
    let command = Cli::command();
    let fpm = command.find_subcommand("fpm");
    name == "help"
        || fpm.is_some_and(|fpm| fpm.get_arguments().any(|own| own.get_long() == Some(name)))
}

/// PHP run inside a Rust program: a FastCGI server in php-fpm's place.
#[derive(Debug, Parser)]
#[command(
    name = "fe-php",
    disable_version_flag = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// Show the versions of fe-php and PHP, whether PHP is NTS or ZTS, and OPcache.
    #[arg(short = 'V', long)]
    pub(crate) version: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve FastCGI, as php-fpm does, in the foreground.
    ///
    /// Worker processes (PHP threads of one worker process, if PHP is ZTS) run the scripts. The log goes to standard
    /// error. SIGTERM stops at once, SIGQUIT after running requests.
    ///
    /// Without --listen it reads php-fpm.conf and takes php-fpm's options: -y FILE, -t, -tt, -F, -D, -O, -R, -p DIR,
    /// -g FILE, -e, -i, -m, -v and their long forms, as described in php-fpm(8).
    #[command(after_help = FPM_EXAMPLES)]
    Fpm(Box<Fpm>),
    /// Measure a FastCGI server: fe-php, php-fpm or another one.
    ///
    /// Sends requests for a script from one thread, checks every answer, and reports throughput, errors and latency;
    /// with --pid also what the server used. It does not start PHP.
    #[command(after_help = bench::EXAMPLES)]
    Bench(Box<bench::Options>),
    /// Print the reference of php-fpm.conf's directives, in Markdown.
    Directives,
    /// The pool process, which `fpm` starts by itself.
    #[command(name = crate::supervisor::process::POOL_PROCESS, hide = true)]
    PoolProcess,
}

const FPM_EXAMPLES: &str = "\
Examples:
  fe-php fpm -F -y /etc/php/8.2/fpm/php-fpm.conf
  fe-php fpm --listen 127.0.0.1:9000
  fe-php fpm --listen /run/php/x.sock --workers 8 -c /etc/php/8.2/fpm -d memory_limit=256M

In nginx:
  location ~ \\.php$ {
      include        fastcgi_params;
      fastcgi_param  SCRIPT_FILENAME $document_root$fastcgi_script_name;
      fastcgi_pass   unix:/run/php/x.sock;
  }";

/// Options of `fe-php fpm`.
#[derive(Debug, Args)]
pub(crate) struct Fpm {
    /// Listen at a TCP address (127.0.0.1:9000, [::1]:9000, :9000, 9000) or a Unix socket (a path); may be repeated.
    ///
    /// Port 0 lets the system choose; the log says which.
    #[arg(long, short = 'l', value_name = "ADDRESS", required = true, value_parser = parse_listen)]
    listen: Vec<ListenAddress>,
    /// Number of PHP workers: worker processes on NTS, PHP threads on ZTS.
    #[arg(long, short = 'w', value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    workers: u32,
    /// The php.ini to read, or the directory that has it.
    ///
    /// By default: /etc/php/X.Y/fpm on Debian, else PHP's compiled-in directory.
    #[arg(short = 'c', value_name = "PATH")]
    ini_path: Option<PathBuf>,
    /// Read no php.ini.
    #[arg(short = 'n')]
    no_ini: bool,
    /// Set a php.ini setting; it wins over php.ini. May be repeated. Without a value it means "1".
    #[arg(short = 'd', value_name = "NAME[=VALUE]", value_parser = parse_define)]
    defines: Vec<(String, String)>,
    /// Leave the pcntl functions and chroot() of Debian's libphp on.
    ///
    /// Debian's php-fpm has none, so they are off by default there. Elsewhere this changes nothing.
    #[arg(long)]
    pcntl: bool,
    /// Start PHP with these settings, say whether that works, and do not serve.
    #[arg(short = 't')]
    pub(crate) test: bool,
    /// The pool's name in the log.
    #[arg(long, value_name = "NAME", default_value = "www")]
    pool: String,
    #[command(flatten)]
    time_limits: TimeLimitArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

/// How long requests may take, in the words of php-fpm's configuration; see [`TimeLimits`].
#[derive(Debug, Args)]
#[command(next_help_heading = "Time limits")]
struct TimeLimitArgs {
    /// End a script that runs longer: shutdown functions run, and the client gets a 504 answer unless output was sent.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    request_terminate_timeout: Option<Duration>,
    /// That limit counts after fastcgi_finish_request() and in shutdown functions too.
    #[arg(long, requires = "request_terminate_timeout")]
    request_terminate_timeout_track_finished: bool,
    /// Write the backtrace of a script that runs longer to the slow log.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, requires = "slowlog")]
    request_slowlog_timeout: Option<Duration>,
    /// Most functions in such a backtrace.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    request_slowlog_trace_depth: u32,
    /// The slow log's file.
    #[arg(long, value_name = "FILE", requires = "request_slowlog_timeout")]
    slowlog: Option<PathBuf>,
}

/// Limits on what clients may ask for; see [`Limits`].
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Longest FCGI_PARAMS of a request, in bytes (K, M and G are understood).
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = parse_size)]
    params_size: usize,
    /// Most name-value pairs in FCGI_PARAMS of a request.
    #[arg(long, value_name = "N", default_value_t = Limits::default().params_count)]
    params_count: usize,
    /// A body up to this size is read whole before a worker is taken; a longer one is streamed to the script.
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = parse_size)]
    body_buffer: usize,
    /// Most open connections; more wait in the kernel's backlog.
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
    /// Most requests that may wait for a worker; more are answered FCGI_OVERLOADED.
    #[arg(long, value_name = "N", default_value_t = Limits::default().queue, value_parser = clap::value_parser!(u32).range(1..))]
    queue: u32,
    /// Most requests open at once on one connection (FastCGI multiplexing); more are answered FCGI_OVERLOADED.
    #[arg(long, value_name = "N", default_value_t = Limits::default().requests_per_connection, value_parser = clap::value_parser!(u32).range(1..=65535))]
    requests_per_connection: u32,
    /// Longest time from the first byte of a request until its params are complete, and longest pause in a body that
    /// is read whole. Then the connection is closed.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    request_header_timeout: Duration,
    /// Response bytes that may wait for a slow client before the script has to wait too.
    #[arg(long, value_name = "SIZE", default_value = "256K", value_parser = parse_size)]
    output_buffer: usize,
}

impl Fpm {
    /// The configuration that the options make.
    pub(crate) fn into_config(self) -> PoolConfig {
        let limits = self.limits;
        let time_limits = self.time_limits;
        PoolConfig {
            ini: IniConfig {
                path: self.ini_path,
                no_ini: self.no_ini,
                defines: self.defines,
                extended_info: false,
            },
            pcntl: self.pcntl,
            inherits_stderr: true,
            time_limits: TimeLimits {
                terminate: time_limits.request_terminate_timeout,
                track_finished: time_limits.request_terminate_timeout_track_finished,
                slowlog: time_limits.request_slowlog_timeout,
                slowlog_trace_depth: time_limits.request_slowlog_trace_depth,
                slowlog_file: time_limits.slowlog,
            },
            limits: Limits {
                params_size: limits.params_size,
                params_count: limits.params_count,
                body_buffer: limits.body_buffer,
                connections: limits.max_connections,
                queue: limits.queue,
                requests_per_connection: limits.requests_per_connection,
                announces_multiplexing: true,
                request_header_timeout: limits.request_header_timeout,
                output_buffer: limits.output_buffer,
            },
            ..PoolConfig::new(self.pool, self.listen, self.workers)
        }
    }
}

/// php-fpm's forms of `listen`: `address:port`, `:port`, `port`, `/path`.
pub(crate) fn parse_listen(text: &str) -> Result<ListenAddress, String> {
    let unix = text.strip_prefix("unix:").unwrap_or(text);
    if unix.starts_with('/') || unix.starts_with('.') {
        return Ok(ListenAddress::Unix(PathBuf::from(unix)));
    }
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        return Ok(ListenAddress::Tcp(SocketAddr::from(([0, 0, 0, 0], port))));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(ListenAddress::Tcp(address));
    }
    let resolved = text
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next());
    resolved.map(ListenAddress::Tcp).ok_or_else(|| {
        "neither a Unix socket (a path that begins with /) nor a TCP address like 127.0.0.1:9000, [::1]:9000 or 9000".to_owned()
    })
}

/// `name=value`, or `name` for `name=1`, as php-fpm's `-d`.
fn parse_define(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, "1"));
    if name.trim().is_empty() {
        return Err("expected NAME=VALUE".to_owned());
    }
    if text.contains(['\n', '\0']) {
        return Err("a setting cannot hold a line break or a NUL".to_owned());
    }
    Ok((name.trim().to_owned(), value.to_owned()))
}

pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let (number, unit) = match text.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        Some((at, _)) => text.split_at(at),
        None => (text, ""),
    };
    let factor: usize = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" => 1 << 10,
        "M" | "MB" => 1 << 20,
        "G" | "GB" => 1 << 30,
        _ => return Err(format!("unknown unit '{unit}': use K, M or G")),
    };
    let number: usize = number
        .parse()
        .map_err(|_| "expected a number of bytes, like 65536, 64K or 1M".to_owned())?;
    match number.checked_mul(factor) {
        Some(size) if size > 0 => Ok(size),
        Some(_) => Err("must be more than 0".to_owned()),
        None => Err("too large".to_owned()),
    }
}

pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    match number.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected a number of seconds between 0 and 86400".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_name_and_the_options_decide_whose_command_line_it_is() {
        let php_fpm = |line: &str| match parse(line.split(' ').map(OsString::from)) {
            Invocation::PhpFpm { program, .. } => Some(program),
            Invocation::Own(_) => None,
        };
        assert_eq!(php_fpm("/usr/sbin/php-fpm8.2 -t").unwrap(), "php-fpm8.2");
        assert_eq!(php_fpm("php-fpm").unwrap(), "php");
        assert_eq!(
            php_fpm("/usr/bin/fe-php fpm -tt -y x").unwrap(),
            "fe-php fpm"
        );
        assert_eq!(php_fpm("fe-php fpm").unwrap(), "fe-php fpm");
        assert_eq!(php_fpm("fe-php fpm --listen 9000"), None);
        assert_eq!(php_fpm("fe-php fpm -n -l 9000"), None);
        assert_eq!(php_fpm("fe-php fpm --workers=3 --listen 9000"), None);
        assert_eq!(php_fpm("/usr/sbin/php-fpm8.2 pool-process"), None);
        assert_eq!(php_fpm("fe-php -V"), None);
    }

    #[test]
    fn addresses_are_read_as_by_php_fpm() {
        assert_eq!(
            parse_listen("/run/x.sock").unwrap(),
            ListenAddress::Unix("/run/x.sock".into())
        );
        assert_eq!(
            parse_listen("127.0.0.1:9000").unwrap(),
            ListenAddress::Tcp("127.0.0.1:9000".parse().unwrap())
        );
        assert_eq!(
            parse_listen("[::1]:9000").unwrap(),
            ListenAddress::Tcp("[::1]:9000".parse().unwrap())
        );
        assert_eq!(
            parse_listen("9000").unwrap(),
            ListenAddress::Tcp("0.0.0.0:9000".parse().unwrap())
        );
        assert_eq!(
            parse_listen(":9000").unwrap(),
            ListenAddress::Tcp("0.0.0.0:9000".parse().unwrap())
        );
        parse_listen("nonsense").unwrap_err();
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("64K"), Ok(65_536));
        assert_eq!(parse_size("12"), Ok(12));
        parse_size("0").unwrap_err();
        parse_size("12Q").unwrap_err();
        parse_size("99999999999999999999").unwrap_err();
    }

    #[test]
    fn a_setting_without_a_value_is_on() {
        assert_eq!(
            parse_define("opcache.enable").unwrap(),
            ("opcache.enable".to_owned(), "1".to_owned())
        );
        assert_eq!(
            parse_define("a=b=c").unwrap(),
            ("a".to_owned(), "b=c".to_owned())
        );
        parse_define("=x").unwrap_err();
    }
}
