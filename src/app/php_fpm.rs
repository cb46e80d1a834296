//! php-fpm's command line, obeyed: `fe-php fpm` without options of its own, and the program under php-fpm's name.

use std::io::Write;
use std::process::ExitCode;

use super::{exit_code, log_from_php, run, start_php};
use crate::cli::php_fpm::{EXIT_CONFIG, EXIT_SOFTWARE, PhpFpm, usage};
use crate::config::{self, Config, FpmOptions, GlobalConfig, Messages, PhpBuild, PoolConfig};
use crate::engine::{Engine, is_zts};
use crate::log;
use crate::supervisor::Launch;
use crate::supervisor::limits::set_limits;
use crate::supervisor::process::daemonize;
use crate::supervisor::reload::{self, HandedDown, Program};
use crate::supervisor::sockets::Inherited;
use crate::title;

/// Does what the command line says; `program` is its name in the usage text.
pub(super) fn main(command: PhpFpm, program: &str) -> ExitCode {
    match command {
        PhpFpm::Usage { status } => {
            print!("{}", usage(program, &PhpBuild::compiled()));
            ExitCode::from(status)
        }
        PhpFpm::Version(options) => with_php(&options, |php| {
            php.show_version();
            true
        }),
        PhpFpm::Modules(options) => with_php(&options, |php| {
            php.show_modules();
            true
        }),
        PhpFpm::Information(options) => with_php(&options, Engine::show_information),
        PhpFpm::Serve(options) if options.test > 0 => test(&options),
        PhpFpm::Serve(options) => serve(&options),
    }
}

/// Starts PHP to show something of it.
fn with_php(options: &FpmOptions, show: impl FnOnce(&Engine) -> bool) -> ExitCode {
    match Engine::start(&options.ini, log_from_php) {
        Ok(engine) if show(&engine) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(EXIT_SOFTWARE),
        Err(error) => {
            log::error(format_args!("{error}"));
            ExitCode::from(EXIT_SOFTWARE)
        }
    }
}

/// `-t`: PHP starts too, so that its own complaints are seen, as deploy scripts expect.
fn test(options: &FpmOptions) -> ExitCode {
    let (config, messages) = load(options);
    // php-fpm starts PHP before it reads its configuration.
    let php = match &config {
        Ok(config) => config.pools.first().map(start_php),
        Err(_) => None,
    };
    let php_fails = php.and_then(Result::err);
    if let Some(text) = &php_fails {
        log::error(format_args!("{text}"));
    }
    write(&messages);
    match (config, php_fails) {
        (Ok(_), None) => ExitCode::SUCCESS,
        (Ok(_), Some(_)) => ExitCode::from(EXIT_SOFTWARE),
        (Err(error), _) => {
            log::error(format_args!("{error}"));
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn serve(options: &FpmOptions) -> ExitCode {
    let handed = reload::receive();
    let (config, messages) = load(options);
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            write(&messages);
            let Some(config) = handed.as_ref().and_then(config_of) else {
                log::error(format_args!("{error}"));
                return ExitCode::from(EXIT_CONFIG);
            };
            log::error(format_args!(
                "the new configuration cannot be used ({error}): the old one goes on serving"
            ));
            config
        }
    };
    let program = Program::current();
    let file = config::config_file(options, &PhpBuild::compiled());
    match prepare(&file, &config.global, handed.is_some(), &messages) {
        Ok(ready) => run(Launch {
            global: config.global,
            pools: config.pools,
            threads: is_zts(),
            allow_root: options.run_as_root,
            inherited: Inherited::from_environment(),
            handed,
            program,
            ready,
        }),
        Err(status) => status,
    }
}

/// Opens the log, takes limits and goes into the background, as configured; answers where to say that all is ready.
fn prepare(
    file: &str,
    global: &GlobalConfig,
    is_reload: bool,
    messages: &Messages,
) -> Result<Option<std::os::fd::OwnedFd>, ExitCode> {
    let fail = |text: &dyn std::fmt::Display| {
        log::error(format_args!("{text}"));
        ExitCode::from(EXIT_CONFIG)
    };
    log::init(global).map_err(|error| fail(&error))?;
    write(messages);
    if let Some(error) = set_limits(&global.rlimits).first() {
        return Err(fail(error));
    }
    if let Some(priority) = global.priority
        && let Err(error) = rustix::process::setpriority_process(None, priority)
    {
        return Err(fail(&format_args!(
            "Unable to set priority for the master process: {error}"
        )));
    }
    title::set(&format!("php-fpm: master process ({file})"));
    if !global.daemonize || is_reload {
        return Ok(None);
    }
    daemonize().map(Some).map_err(|error| {
        fail(&format_args!("failed to daemonize: {error}"));
        exit_code(i32::from(EXIT_SOFTWARE))
    })
}

fn load(options: &FpmOptions) -> (Result<Config, config::InvalidConfig>, Messages) {
    let mut messages = Messages::new();
    let config = config::load(options, &PhpBuild::compiled(), &mut messages);
    let config = config.map(|mut config| {
        let defines = &options.ini.defines;
        config
            .pools
            .iter_mut()
            .for_each(|pool| pool.pcntl |= wants_pcntl(pool, defines));
        config
    });
    (config, messages)
}

/// Debian's php-fpm has no pcntl functions unless the extension is configured; its libphp has it built in.
fn wants_pcntl(pool: &PoolConfig, defines: &[(String, String)]) -> bool {
    let is_pcntl =
        |(name, value): (&str, &str)| name == "extension" && matches!(value, "pcntl" | "pcntl.so");
    let settings = pool.ini_settings.iter();
    let mut settings = settings.map(|setting| (setting.name.as_str(), setting.value.as_str()));
    let mut defines = defines
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    settings.any(is_pcntl) || defines.any(is_pcntl)
}

/// The configuration that the program before a reload served by.
fn config_of(handed: &HandedDown) -> Option<Config> {
    Some(Config {
        global: handed.global.clone()?,
        pools: handed.configs(),
    })
}

fn write(messages: &Messages) {
    for message in messages.list() {
        match message.level {
            Some(level) => log::write(level, format_args!("{}", message.text)),
            // Nobody is there to hear that it failed.
            None => drop(writeln!(std::io::stderr(), "{}", message.text)),
        }
    }
}
