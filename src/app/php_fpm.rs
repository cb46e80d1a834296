//! php-fpm's command line, obeyed: `fe-php fpm` without options of its own, and the program under php-fpm's name.

use std::io::Write;
use std::process::ExitCode;

use super::{exit_code, log_from_php, run, start_php, startup_ini};
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
use crate::zygote::in_child;

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
        Ok(engine) => {
            if !defines_pcntl(&options.ini.defines) {
                engine.disable_process_functions();
            }
            if show(&engine) {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(EXIT_SOFTWARE)
            }
        }
        Err(error) => {
            log::error(format_args!("{error}"));
            ExitCode::from(EXIT_SOFTWARE)
        }
    }
}

/// `-t`: PHP starts too, so that its own complaints are seen, as deploy scripts expect.
fn test(options: &FpmOptions) -> ExitCode {
    let (config, messages) = load(options);
    let config = match config {
        Ok(config) => config,
        Err(error) => return refuse(&error, &messages),
    };
    // php-fpm starts PHP before it reads its configuration.
    if !php_starts(&config) {
        return ExitCode::from(EXIT_SOFTWARE);
    }
    open_log(&messages);
    write(&messages);
    ExitCode::SUCCESS
}

/// Whether PHP starts as the pools want it, which may differ in what can go wrong then. With settings of a pool's own that PHP does
/// not start with, a server starts without them; a reload does not take place.
fn php_starts(config: &Config) -> bool {
    let is_reload = std::env::var_os(reload::CHECK).is_some();
    let decisive = |pool: &PoolConfig| -> Vec<(String, String)> {
        let defines = startup_ini(pool).defines.into_iter();
        let decides = |name: &str| {
            matches!(
                name,
                "browscap" | "extension" | "extension_dir" | "zend_extension"
            ) || ["apc.", "ffi.", "opcache.", "xdebug."]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        };
        defines.filter(|(name, _)| decides(name)).collect()
    };
    let mut seen = Vec::new();
    let mut all_start = true;
    for pool in &config.pools {
        let wanted = decisive(pool);
        if seen.contains(&wanted) {
            continue;
        }
        seen.push(wanted);
        all_start &= php_starts_for(pool) || !is_reload && php_starts_plainly_for(pool);
    }
    all_start
}

/// Without the settings that are the pool's own, if it has any.
fn php_starts_plainly_for(pool: &PoolConfig) -> bool {
    let Some(settings) = pool.admin_settings() else {
        return false;
    };
    log::error(format_args!(
        "[pool {}] PHP does not start with the php_admin_value settings of this pool, {settings}: it would start without them; correct \
         them, or put them into php.ini",
        pool.name
    ));
    let mut plain = pool.clone();
    plain.starts_plainly = true;
    php_starts_for(&plain)
}

/// PHP starts once in a process, so this is done in another one.
fn php_starts_for(pool: &PoolConfig) -> bool {
    let start = || match start_php(pool) {
        Ok(_) => 0,
        Err(text) => {
            log::error(format_args!("[pool {}] {text}", pool.name));
            i32::from(EXIT_SOFTWARE)
        }
    };
    match in_child(start) {
        Ok(exit) if exit.signal().is_some() => {
            log::error(format_args!(
                "[pool {}] PHP's start ended {exit}",
                pool.name
            ));
            false
        }
        Ok(exit) => exit.code() == Some(0),
        Err(error) => {
            log::error(format_args!(
                "[pool {}] PHP's start cannot be tried: {error}",
                pool.name
            ));
            false
        }
    }
}

fn serve(options: &FpmOptions) -> ExitCode {
    let mut handed = reload::receive();
    let program = Program::current();
    let (config, messages) = match handed
        .as_mut()
        .map(|handed| configure_anew(options, handed))
    {
        Some((Ok(config), messages)) => (config, messages),
        Some((Err(error), messages)) => return refuse(&error, &messages),
        None => match load(options) {
            (Ok(config), messages) => (config, messages),
            (Err(error), messages) => return refuse(&error, &messages),
        },
    };
    let file = config::config_file(options, &PhpBuild::compiled());
    match prepare(&file, &config.global, handed.as_ref(), &messages) {
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
        Err(Unprepared { text, status }) => {
            if let Some(way_back) = handed.and_then(|handed| handed.way_back) {
                let failure = way_back.take(&program, &text);
                log::error(format_args!(
                    "{} cannot be executed to go back to the old configuration: {failure}",
                    program.path.display()
                ));
            }
            log::error(format_args!("{text}"));
            log::error(format_args!("FPM initialization failed"));
            status
        }
    }
}

/// The configuration after a reload: the new one, or, if that cannot be used, the one from before.
fn configure_anew(
    options: &FpmOptions,
    handed: &mut HandedDown,
) -> (Result<Config, config::InvalidConfig>, Messages) {
    let old = |handed: &HandedDown| {
        let (global, pools) = handed.config()?;
        Some(Config { global, pools })
    };
    if handed.failure.is_some()
        && let Some(config) = old(handed)
    {
        return (Ok(config), Messages::new());
    }
    let (config, messages) = load(options);
    if let Err(error) = &config
        && let Some(config) = old(handed)
    {
        handed.failure = Some(error.to_string());
        handed.way_back = None;
        return (Ok(config), messages);
    }
    (config, messages)
}

fn refuse(error: &config::InvalidConfig, messages: &Messages) -> ExitCode {
    open_log(messages);
    write(messages);
    log::error(format_args!("{error}"));
    ExitCode::from(EXIT_CONFIG)
}

/// Opens the error log if the configuration has got so far: what is wrong with it is said there too, as under php-fpm.
fn open_log(messages: &Messages) {
    if let Some(global) = messages.global()
        && let Err(error) = log::init(global)
    {
        log::error(format_args!("{error}"));
    }
}

/// Why the server cannot be started.
struct Unprepared {
    text: String,
    status: ExitCode,
}

/// Opens the log, takes limits and goes into the background, as configured; answers where to say that all is ready.
fn prepare(
    file: &str,
    global: &GlobalConfig,
    handed: Option<&HandedDown>,
    messages: &Messages,
) -> Result<Option<std::os::fd::OwnedFd>, Unprepared> {
    let fail = |text: String| Unprepared {
        text,
        status: ExitCode::from(EXIT_CONFIG),
    };
    log::init(global).map_err(|error| fail(error.to_string()))?;
    write(messages);
    if let Some(failure) = handed.and_then(|handed| handed.failure.as_ref()) {
        log::error(format_args!(
            "the new configuration cannot be used ({failure}): the old one goes on serving"
        ));
    }
    if let Some(error) = set_limits(&global.rlimits).first() {
        return Err(fail(error.to_string()));
    }
    if let Some(priority) = global.priority
        && let Err(error) = rustix::process::setpriority_process(None, priority)
    {
        return Err(fail(format!(
            "Unable to set priority for the master process: {error}"
        )));
    }
    title::set(&format!("php-fpm: master process ({file})"));
    // As php-fpm: signals that a terminal or a script sends to its process group are not for the server. It fails for who leads
    // one already.
    let _ = rustix::process::setsid();
    if !global.daemonize || handed.is_some() {
        return Ok(None);
    }
    daemonize().map(Some).map_err(|error| Unprepared {
        text: format!("failed to daemonize: {error}"),
        status: exit_code(i32::from(EXIT_SOFTWARE)),
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
    let mut settings = pool.ini_settings.iter();
    settings.any(|setting| is_pcntl(&setting.name, &setting.value)) || defines_pcntl(defines)
}

fn defines_pcntl(defines: &[(String, String)]) -> bool {
    let mut defines = defines.iter();
    defines.any(|(name, value)| is_pcntl(name, value))
}

fn is_pcntl(name: &str, value: &str) -> bool {
    name == "extension" && matches!(value, "pcntl" | "pcntl.so")
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
