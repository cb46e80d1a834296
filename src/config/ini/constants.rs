//! PHP's constants, as far as a configuration file may sensibly name them.
//!
//! php-fpm asks the engine and so knows those of all extensions; the supervisor has no engine.

use super::Environment;

/// The constant's value as text; `None` leaves the word as it is.
pub(super) fn value(name: &[u8], environment: &Environment<'_>) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    match name.to_ascii_lowercase().as_str() {
        "true" => return Some("1".to_owned()),
        "false" | "null" => return Some(String::new()),
        _ => {}
    }
    if let Some((_, value)) = NUMBERS.iter().find(|(constant, _)| *constant == name) {
        return Some(value.to_string());
    }
    let [major, minor, release] = environment.php_version;
    Some(match name {
        "E_ALL" if (major, minor) >= (8, 4) => "30719".to_owned(),
        "E_ALL" => "32767".to_owned(),
        "PHP_VERSION" => format!("{major}.{minor}.{release}"),
        "PHP_MAJOR_VERSION" => major.to_string(),
        "PHP_MINOR_VERSION" => minor.to_string(),
        "PHP_RELEASE_VERSION" => release.to_string(),
        "PHP_VERSION_ID" => (major * 10_000 + minor * 100 + release).to_string(),
        "PHP_OS" | "PHP_OS_FAMILY" => "Linux".to_owned(),
        "PHP_SAPI" => "fpm-fcgi".to_owned(),
        "DIRECTORY_SEPARATOR" => "/".to_owned(),
        "PATH_SEPARATOR" => ":".to_owned(),
        "PHP_EOL" => "\n".to_owned(),
        "PHP_PREFIX" => environment.prefix.to_owned(),
        // Debian compiles /etc into PHP itself, and its php-fpm looks below it.
        "PHP_SYSCONFDIR" if environment.sysconfdir.starts_with("/etc/php/") => "/etc".to_owned(),
        "PHP_SYSCONFDIR" => environment.sysconfdir.to_owned(),
        "PHP_BINDIR" => format!("{}/bin", environment.prefix),
        "PHP_SHLIB_SUFFIX" => "so".to_owned(),
        "PHP_LOCALSTATEDIR" => environment.localstatedir.to_owned(),
        _ => return None,
    })
}

const NUMBERS: &[(&str, i64)] = &[
    ("E_ERROR", 1),
    ("E_WARNING", 2),
    ("E_PARSE", 4),
    ("E_NOTICE", 8),
    ("E_CORE_ERROR", 16),
    ("E_CORE_WARNING", 32),
    ("E_COMPILE_ERROR", 64),
    ("E_COMPILE_WARNING", 128),
    ("E_USER_ERROR", 256),
    ("E_USER_WARNING", 512),
    ("E_USER_NOTICE", 1024),
    ("E_STRICT", 2048),
    ("E_RECOVERABLE_ERROR", 4096),
    ("E_DEPRECATED", 8192),
    ("E_USER_DEPRECATED", 16384),
    ("PHP_INT_MAX", i64::MAX),
    ("PHP_INT_MIN", i64::MIN),
    ("PHP_INT_SIZE", 8),
    ("PHP_DEBUG", 0),
    ("PHP_MAXPATHLEN", 4096),
    ("LOG_EMERG", 0),
    ("LOG_ALERT", 1),
    ("LOG_CRIT", 2),
    ("LOG_ERR", 3),
    ("LOG_WARNING", 4),
    ("LOG_NOTICE", 5),
    ("LOG_INFO", 6),
    ("LOG_DEBUG", 7),
    ("LOG_PID", 1),
    ("LOG_CONS", 2),
    ("LOG_ODELAY", 4),
    ("LOG_NDELAY", 8),
    ("LOG_NOWAIT", 16),
    ("LOG_PERROR", 32),
    ("LOG_KERN", 0),
    ("LOG_USER", 8),
    ("LOG_MAIL", 16),
    ("LOG_DAEMON", 24),
    ("LOG_AUTH", 32),
    ("LOG_SYSLOG", 40),
    ("LOG_LPR", 48),
    ("LOG_NEWS", 56),
    ("LOG_UUCP", 64),
    ("LOG_CRON", 72),
    ("LOG_AUTHPRIV", 80),
    ("LOG_LOCAL0", 128),
    ("LOG_LOCAL1", 136),
    ("LOG_LOCAL2", 144),
    ("LOG_LOCAL3", 152),
    ("LOG_LOCAL4", 160),
    ("LOG_LOCAL5", 168),
    ("LOG_LOCAL6", 176),
    ("LOG_LOCAL7", 184),
];
