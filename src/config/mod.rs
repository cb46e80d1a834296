//! The configuration, checked, in the form that processes hand each other: what php-fpm.conf and the command line say.
//!
//! ```text
//! ini/          text → statements              PHP's INI syntax
//! file.rs       statements → settings          sections, includes; by directive.rs, the table of all directives
//! check.rs      php-fpm's checks and defaults
//! typed.rs      settings → GlobalConfig, PoolConfig
//! dump.rs       settings → what -tt shows
//! ```

mod check;
mod directive;
mod dump;
mod file;
mod global;
mod ini;
mod messages;
mod options;
mod pool;
mod reference;
mod settings;
mod typed;

use check::Checker;
use file::{Failed, Reader, Sections};

pub(crate) use global::{GlobalConfig, LogTarget};
pub(crate) use messages::Messages;
pub(crate) use options::{FpmOptions, PhpBuild};
pub(crate) use pool::{
    IniConfig, IniMode, IniSetting, Limits, ListenAddress, Name, PoolConfig, ProcessManager,
    QueueAnswer, ResourceLimits, SocketOptions, StatusConfig, TimeLimits,
};
pub(crate) use reference::reference;

/// All of php-fpm.conf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// Section `[global]`.
    pub(crate) global: GlobalConfig,
    /// The pools, in the order of the file.
    pub(crate) pools: Vec<PoolConfig>,
}

/// The configuration is not usable. The messages say why; php-fpm logs "FPM initialization failed" after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("FPM initialization failed")]
pub(crate) struct InvalidConfig;

/// Reads and checks the configuration as php-fpm does, logs being created on the way; `messages` is for the log, also
/// in case of success.
///
/// With `-t` users and groups are looked up too, and the last messages are what `-t` and `-tt` show. PHP's own startup,
/// which comes before, is the caller's, and so is what php-fpm looks at later: sockets, and who worker processes are.
pub(crate) fn load(
    options: &FpmOptions,
    php: &PhpBuild,
    messages: &mut Messages,
) -> Result<Config, InvalidConfig> {
    let file = config_file(options, php);
    read(options, php, &file, messages).map_err(|Failed| InvalidConfig)
}

/// The configuration file: `-y`, else `-d fpm.config=`, else php-fpm.conf below the prefix or where PHP has it.
pub(crate) fn config_file(options: &FpmOptions, php: &PhpBuild) -> String {
    let given = options.config_file.as_ref().or_else(|| {
        let defines = &options.ini.defines;
        let define = defines.iter().rfind(|(name, _)| name == "fpm.config");
        define.map(|(_, file)| file)
    });
    match (given.filter(|file| !file.is_empty()), &options.prefix) {
        (Some(file), _) => file.clone(),
        (None, Some(prefix)) => format!("{prefix}/etc/php-fpm.conf"),
        (None, None) => format!("{}/php-fpm.conf", php.sysconfdir),
    }
}

fn read(
    options: &FpmOptions,
    php: &PhpBuild,
    file: &str,
    messages: &mut Messages,
) -> Result<Config, Failed> {
    if let Some(prefix) = options.prefix.as_deref()
        && !prefix.is_empty()
        && !check::is_directory(prefix)
    {
        messages.error(format!(
            "the global prefix '{prefix}' does not exist or is not a directory"
        ));
        return Err(Failed);
    }
    let mut sections = match Reader::new(options, php, messages).read(file) {
        Ok(sections) => sections,
        Err(Failed) => {
            messages.error(format!("failed to load configuration file '{file}'"));
            return Err(Failed);
        }
    };
    let mut checker = Checker {
        options,
        php,
        messages,
    };
    if checker.check(&mut sections).is_err() {
        messages.error("failed to post process the configuration");
        return Err(Failed);
    }
    if options.test == 0 {
        return Ok(typed::config(&sections, options, messages));
    }
    checker.names(&sections.pools)?;
    let config = typed::config(&sections, options, messages);
    show(&sections, options, php, file, messages);
    Ok(config)
}

fn show(
    sections: &Sections,
    options: &FpmOptions,
    php: &PhpBuild,
    file: &str,
    messages: &mut Messages,
) {
    let notice = crate::log::Level::Notice;
    if options.test > 1 {
        for line in dump::dump(sections) {
            messages.push(notice, line);
        }
    }
    messages.push(
        notice,
        format!("configuration file {file} test is successful"),
    );
    // Before PHP 8.3 php-fpm's message has a line break of its own at its end.
    if php.version < [8, 3, 0] {
        messages.blank_line_after(notice);
    }
}

/// php-fpm of the same PHP version, the judge in tests: that of `make test`, else Debian's.
#[cfg(test)]
pub(crate) fn php_fpm_to_compare_with() -> std::path::PathBuf {
    let [major, minor, _] = PhpBuild::compiled().version;
    let debian = format!("/usr/sbin/php-fpm{major}.{minor}");
    std::env::var("PHP_FPM").unwrap_or(debian).into()
}

#[cfg(test)]
mod tests;
