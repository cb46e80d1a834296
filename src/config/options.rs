//! What the command line tells the configuration.

use std::path::Path;

use super::ini::Environment;
use super::pool::IniConfig;

/// php-fpm's command line, as far as it is about serving.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FpmOptions {
    /// `-c`, `-n`, `-d`, `-e`
    pub(crate) ini: IniConfig,
    /// `-y`: the configuration file.
    pub(crate) config_file: Option<String>,
    /// `-p`: the directory below which relative paths are.
    pub(crate) prefix: Option<String>,
    /// `-g`: the pid file; `pid` of the file comes first, as in php-fpm.
    pub(crate) pid: Option<String>,
    /// How often `-t` was given: 1 tests the configuration, 2 shows it too.
    pub(crate) test: u8,
    /// `-D` and `-F`; the last one counts.
    pub(crate) daemonize: Option<bool>,
    /// `-O`
    pub(crate) force_stderr: bool,
    /// `-R`
    pub(crate) run_as_root: bool,
}

/// What the configuration needs to know of the PHP that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PhpBuild {
    /// `PHP_VERSION`
    pub(crate) version: [u32; 3],
    /// `PHP_PREFIX`
    pub(crate) prefix: String,
    /// Directory of php-fpm.conf.
    pub(crate) sysconfdir: String,
    /// `PHP_LOCALSTATEDIR`
    pub(crate) localstatedir: String,
}

impl PhpBuild {
    /// The PHP whose headers fe-php was compiled with.
    pub(crate) fn compiled() -> Self {
        let mut numbers = env!("FE_PHP_BUILD_VERSION")
            .split('.')
            .map(|number| number.parse().unwrap_or(0));
        let version: [u32; 3] = std::array::from_fn(|_| numbers.next().unwrap_or(0));
        Self {
            version,
            prefix: env!("FE_PHP_BUILD_PREFIX").to_owned(),
            sysconfdir: sysconfdir(version),
            localstatedir: env!("FE_PHP_BUILD_LOCALSTATEDIR").to_owned(),
        }
    }

    /// For reading a file: values may name settings of `-d` and variables of this process.
    pub(super) fn environment<'a>(&'a self, options: &'a FpmOptions) -> Environment<'a> {
        Environment {
            php_version: self.version,
            prefix: &self.prefix,
            sysconfdir: &self.sysconfdir,
            localstatedir: &self.localstatedir,
            variable: environment_variable,
            defines: &options.ini.defines,
        }
    }
}

/// Debian compiles `/etc` into libphp and `/etc/php/X.Y/fpm` into php-fpm.
fn sysconfdir([major, minor, _]: [u32; 3]) -> String {
    let debian = format!("/etc/php/{major}.{minor}/fpm");
    if env!("FE_PHP_BUILD_CONFIG_FILE_PATH").starts_with("/etc/php/") && Path::new(&debian).is_dir()
    {
        debian
    } else {
        env!("FE_PHP_BUILD_SYSCONFDIR").to_owned()
    }
}

fn environment_variable(name: &[u8]) -> Option<Vec<u8>> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};

    // env::var_os() finds nothing under names that no variable can have.
    std::env::var_os(std::ffi::OsStr::from_bytes(name)).map(OsStringExt::into_vec)
}
