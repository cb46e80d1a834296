//! Which php.ini PHP reads, and the text of settings that are put on top of it.

use std::path::{Path, PathBuf};

use crate::config::IniConfig;

/// Where PHP looks for its settings; `None` leaves a choice to libphp's compiled-in one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct IniLocation {
    pub(super) file_or_directory: Option<PathBuf>,
    pub(super) scan_directory: Option<PathBuf>,
}

/// As php-fpm's stand-in: Debian compiles `/etc/php/X.Y/embed` (or `cli`) into libphp, but administrators configure
/// `/etc/php/X.Y/fpm`.
pub(super) fn locate(config: &IniConfig, compiled: &Path) -> IniLocation {
    let has_phprc = std::env::var_os("PHPRC").is_some_and(|path| !path.is_empty());
    let fpm = compiled
        .parent()
        .filter(|parent| parent.starts_with("/etc/php"))
        .map(|parent| parent.join("fpm"));
    let scan_directory = fpm
        .as_ref()
        .map(|fpm| fpm.join("conf.d"))
        .filter(|conf| conf.is_dir());
    let file_or_directory = config
        .path
        .clone()
        // Where PHPRC says comes before PHP's own directory, as in php-fpm.
        .or_else(|| fpm.filter(|fpm| !has_phprc && fpm.join("php.ini").is_file()));
    IniLocation {
        file_or_directory,
        scan_directory,
    }
}

/// The text for `sapi_module.ini_entries`, which PHP parses like php.ini and lets win over it.
///
/// Quoting as php-fpm's `-d` (main/php_ini_builder.c): a value that begins with anything but a letter, a digit or a
/// quote is quoted.
pub(super) fn entries(defines: &[(String, String)]) -> String {
    let mut text = String::new();
    for (name, value) in defines {
        text.push_str(name);
        text.push('=');
        match value.bytes().next() {
            Some(first) if !first.is_ascii_alphanumeric() && first != b'"' && first != b'\'' => {
                text.push('"');
                text.push_str(value);
                text.push('"');
            }
            _ => text.push_str(value),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_as_by_php_fpm() {
        let define = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let text = entries(&[
            define("memory_limit", "256M"),
            define("error_log", "/tmp/x.log"),
            define("a", "\"b c\""),
            define("empty", ""),
        ]);
        assert_eq!(
            text,
            "memory_limit=256M\nerror_log=\"/tmp/x.log\"\na=\"b c\"\nempty=\n"
        );
    }

    #[test]
    fn a_php_that_is_not_debians_keeps_its_own_directories() {
        let location = locate(&IniConfig::default(), Path::new("/opt/php/etc"));
        assert_eq!(
            location,
            IniLocation {
                file_or_directory: None,
                scan_directory: None
            }
        );
    }
}
