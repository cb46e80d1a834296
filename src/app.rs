//! The program: command line to exit code. Here the layers are wired together.

mod php_fpm;

use std::process::ExitCode;
use std::sync::Arc;

use crate::cli::{Cli, Command, Invocation, parse};
use crate::config::{GlobalConfig, IniConfig, IniMode, PoolConfig};
use crate::engine::{Engine, is_zts, php_version};
use crate::supervisor::Launch;
use crate::supervisor::messages::PhpFacts;
use crate::supervisor::reload::{self, Program};
use crate::supervisor::sockets::Inherited;
use crate::{bench, log, server, supervisor, zygote};

/// Runs the program; `fe-php` is nothing but this.
pub fn main() -> ExitCode {
    match parse(std::env::args_os()) {
        Invocation::Own(cli) => own(cli),
        Invocation::PhpFpm { command, program } => php_fpm::main(command, &program),
    }
}

fn own(cli: Cli) -> ExitCode {
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
    let global = GlobalConfig {
        daemonize: false,
        ..GlobalConfig::default()
    };
    if let Err(error) = log::init(&global) {
        log::error(format_args!("{error}"));
        return exit_code(supervisor::EXIT_CONFIG);
    }
    run(Launch {
        global,
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
            if error.is_initialization() {
                log::error(format_args!("FPM initialization failed"));
            }
            exit_code(error.exit_code())
        }
    }
}

/// PHP's module startup, in the pool process.
fn start_php(config: &PoolConfig) -> Result<(StartedPhp, PhpFacts), String> {
    let engine =
        Engine::start(&startup_ini(config), log_from_php).map_err(|error| error.to_string())?;
    if !config.pcntl {
        engine.disable_process_functions();
    }
    // Kept for the life of this process and its children.
    match crate::engine::RestartGuard::hold(&engine) {
        Ok(guard) => std::mem::forget(guard),
        Err(error) => return Err(format!("OPcache's lock file cannot be locked: {error}")),
    }
    let facts = PhpFacts {
        version: php_version().to_owned(),
        expose_php: engine.exposes_php(),
    };
    Ok((Arc::new(engine), facts))
}

type StartedPhp = Arc<Engine>;

/// Settings of a pool that only count when PHP starts (`php_admin_value[opcache.memory_consumption]`) come before those of
/// the command line, unless the pool [starts plainly](PoolConfig::starts_plainly). Worker processes apply them all once more,
/// with the rights that belong to them.
fn startup_ini(config: &PoolConfig) -> IniConfig {
    let mut ini = config.ini.clone();
    if config.starts_plainly {
        return ini;
    }
    let admin = config.ini_settings.iter().filter(|setting| {
        let plain = !setting.value.contains(['"', '\\', '$', '\n', '\0']);
        let name = setting.name.as_str();
        let at_start = if name == "extension" {
            is_zts()
        } else {
            setting.mode == IniMode::Admin
        };
        at_start && plain && !BY_WORKER.contains(&name) && !REMOVED.contains(&name)
    });
    let admin = admin.map(|setting| (setting.name.clone(), format!("\"{}\"", setting.value)));
    ini.defines.splice(0..0, admin);
    ini
}

/// What only worker processes do: take functions away, and open files, which the pool's user is to own and must not lead astray.
const BY_WORKER: [&str; 5] = [
    "disable_functions",
    "disable_classes",
    "error_log",
    "opcache.error_log",
    "xdebug.log",
];

/// With these PHP does not start (`php_module_startup` in main/main.c). A worker process only says that there is no such
/// setting, as php-fpm's do.
const REMOVED: [&str; 17] = [
    "allow_call_time_pass_reference",
    "asp_tags",
    "define_syslog_variables",
    "highlight.bg",
    "magic_quotes_gpc",
    "magic_quotes_runtime",
    "magic_quotes_sybase",
    "register_globals",
    "register_long_arrays",
    "safe_mode",
    "safe_mode_allowed_env_vars",
    "safe_mode_exec_dir",
    "safe_mode_gid",
    "safe_mode_include_dir",
    "safe_mode_protected_env_vars",
    "track_errors",
    "zend.ze1_compatibility_mode",
];

/// In worker processes to where the pool's configuration says, before that to the log.
fn log_from_php(message: &[u8], to_client: bool) -> Vec<u8> {
    server::log_php_message(message, to_client)
}

fn print_version() {
    println!(
        "fe-php {} (FastCGI server and library)",
        env!("CARGO_PKG_VERSION")
    );
    let kind = if is_zts() { "ZTS" } else { "NTS" };
    let opcache = match Engine::start(&IniConfig::default(), |_, _| Vec::new()) {
        Ok(engine) if engine.has_opcache() => "with Zend OPcache",
        Ok(_) => "without OPcache: no zend_extension=opcache in php.ini",
        Err(_) => "its configuration does not load",
    };
    println!("PHP {} {kind}, {opcache}", php_version());
}

fn exit_code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status.clamp(0, 255)).unwrap_or(1))
}
