//! Which PHP is under test, as `php-config` (override: `PHP_CONFIG`) describes it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

/// The version, such as `8.2.35`.
pub(crate) fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| config("--version"));
    &VERSION
}

/// Major and minor version, such as `8.2`.
pub(crate) fn branch() -> String {
    version()
        .splitn(3, '.')
        .take(2)
        .collect::<Vec<_>>()
        .join(".")
}

/// The version as one number, such as 80235.
pub(crate) fn version_number() -> u32 {
    config("--vernum").parse().unwrap()
}

/// Whether it is a thread-safe build.
pub(crate) fn is_zts() -> bool {
    static ZTS: LazyLock<bool> = LazyLock::new(|| {
        let header = PathBuf::from(config("--include-dir")).join("main/php_config.h");
        let text = std::fs::read_to_string(&header)
            .unwrap_or_else(|error| panic!("{}: {error}", header.display()));
        text.lines().any(|line| line.trim_end() == "#define ZTS 1")
    });
    *ZTS
}

/// Whether it is a distribution's own build, whose SAPIs are configured apart from each other.
pub(crate) fn is_packaged() -> bool {
    config("--prefix") == "/usr"
}

/// The php-fpm of the same build: `PHP_FPM`, or where that build installs it.
pub(crate) fn fpm() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("PHP_FPM") {
        return Some(path.into());
    }
    let sbin = PathBuf::from(config("--prefix")).join("sbin");
    [format!("php-fpm{}", branch()), "php-fpm".to_owned()]
        .iter()
        .map(|name| sbin.join(name))
        .find(|path| path.exists())
}

/// What `php-config` answers to `option`.
pub(crate) fn config(option: &str) -> String {
    let program = std::env::var_os("PHP_CONFIG").unwrap_or_else(|| "php-config".into());
    let output = Command::new(&program).arg(option).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
