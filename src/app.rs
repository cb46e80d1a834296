//! The program: command line to exit code. Here the layers are wired together.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::config::{GlobalConfig, IniConfig, PoolConfig};
use crate::engine::{Engine, is_zts, php_version};
use crate::supervisor::Launch;
use crate::supervisor::reload::{self, Program};
use crate::supervisor::sockets::Inherited;
use crate::{bench, log, server, supervisor, zygote};

/// Runs the program; `fe-php` is nothing but this.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.version {
        print_version();
        return ExitCode::SUCCESS;
    }
    match cli.command {
        Some(Command::Fpm(options)) if options.test => test(&options.into_config()),
        Some(Command::Fpm(options)) => serve(options.into_config()),
        Some(Command::Bench(options)) => bench::main(*options),
        Some(Command::Directives) => {
            print!("{}", crate::config::reference());
            ExitCode::SUCCESS
        }
        Some(Command::PoolProcess) => exit_code(zygote::main(start_php, server::run)),
        None => ExitCode::SUCCESS,
    }
}

/// Serves a pool that the command line describes, in the foreground.
fn serve(config: PoolConfig) -> ExitCode {
    let handed = reload::receive();
    let inherited = Inherited::from_environment();
    if rustix::process::geteuid().is_root() && handed.is_none() {
        log::notice(format_args!(
            "started as root, and so run the scripts: start fe-php as the user that the scripts are to have"
        ));
    }
    run(Launch {
        global: GlobalConfig {
            daemonize: false,
            ..GlobalConfig::default()
        },
        pools: vec![config],
        threads: is_zts(),
        allow_root: true,
        inherited,
        handed,
        program: Program::current(),
        ready: None,
    })
}

/// Starts PHP and says whether that works; its own messages are in the log.
fn test(config: &PoolConfig) -> ExitCode {
    match start_php(config) {
        Ok(_) => {
            log::notice(format_args!("configuration test is successful"));
            ExitCode::SUCCESS
        }
        Err(text) => {
            log::error(format_args!("{text}"));
            exit_code(supervisor::EXIT_CONFIG)
        }
    }
}

fn run(launch: Launch) -> ExitCode {
    match supervisor::run(launch) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error(format_args!("{error}"));
            exit_code(error.exit_code())
        }
    }
}

/// PHP's module startup, in the pool process.
fn start_php(config: &PoolConfig) -> Result<StartedPhp, String> {
    let engine = Engine::start(&config.ini, log_from_php).map_err(|error| error.to_string())?;
    if !config.pcntl {
        engine.disable_process_functions();
    }
    // Kept for the life of this process and its children.
    match crate::engine::RestartGuard::hold(&engine) {
        Ok(guard) => std::mem::forget(guard),
        Err(error) => return Err(format!("OPcache's lock file cannot be locked: {error}")),
    }
    Ok(Arc::new(engine))
}

type StartedPhp = Arc<Engine>;

fn log_from_php(line: &[u8]) {
    log::notice(format_args!(
        "PHP message: {}",
        String::from_utf8_lossy(line).trim_end()
    ));
}

fn print_version() {
    println!(
        "fe-php {} (FastCGI server and library)",
        env!("CARGO_PKG_VERSION")
    );
    let kind = if is_zts() { "ZTS" } else { "NTS" };
    let opcache = match Engine::start(&IniConfig::default(), |_| ()) {
        Ok(engine) if engine.has_opcache() => "with Zend OPcache",
        Ok(_) => "without OPcache: no zend_extension=opcache in php.ini",
        Err(_) => "its configuration does not load",
    };
    println!("PHP {} {kind}, {opcache}", php_version());
}

fn exit_code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status.clamp(0, 255)).unwrap_or(1))
}
