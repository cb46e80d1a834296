//! Which php.ini PHP reads, and the text of settings that are put on top of it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
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
    // If there is nothing, PHP goes on to its own directory.
    let has_phprc = std::env::var_os("PHPRC").is_some_and(|path| {
        let path = Path::new(&path);
        path.is_file()
            || ["php-fpm-fcgi.ini", "php.ini"]
                .iter()
                .any(|name| path.join(name).is_file())
    });
    let fpm = compiled
        .parent()
        .filter(|parent| parent.starts_with("/etc/php"))
        .map(|parent| parent.join("fpm"));
    let scan_directory = fpm
        .as_ref()
        .map(|fpm| fpm.join("conf.d"))
        .filter(|conf| conf.is_dir())
        .and_then(|conf| scan_path(&conf, std::env::var_os("PHP_INI_SCAN_DIR").as_deref()));
    let file_or_directory = config
        .path
        .clone()
        // Where PHPRC says comes before PHP's own directory, as in php-fpm. PHP reads what it is given even with -n.
        .or_else(|| {
            fpm.filter(|fpm| !config.no_ini && !has_phprc && fpm.join("php.ini").is_file())
        });
    IniLocation {
        file_or_directory,
        scan_directory,
    }
}

/// Directories to scan, as `PHP_INI_SCAN_DIR` names them; an empty element of it, or none, means PHP's own. None leaves it as it is.
fn scan_path(own: &Path, variable: Option<&OsStr>) -> Option<PathBuf> {
    let Some(variable) = variable else {
        return Some(own.to_owned());
    };
    let elements: Vec<&[u8]> = variable.as_bytes().split(|byte| *byte == b':').collect();
    if variable.is_empty() || !elements.contains(&b"".as_slice()) {
        return None;
    }
    let own = own.as_os_str().as_bytes();
    let elements = elements
        .iter()
        .map(|element| if element.is_empty() { own } else { element });
    let path = elements.collect::<Vec<_>>().join(&b':');
    Some(OsString::from_vec(path).into())
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
    #[test]
    fn an_empty_element_of_the_scan_path_is_phps_own_directory() {
        let path = |variable: Option<&str>| {
            let path = super::scan_path(super::Path::new("/own"), variable.map(super::OsStr::new));
            path.map(|path| path.to_str().expect("UTF-8").to_owned())
        };
        assert_eq!(path(None).as_deref(), Some("/own"));
        assert_eq!(path(Some("")), None);
        assert_eq!(path(Some("/a:/b")), None);
        assert_eq!(path(Some(":/a")).as_deref(), Some("/own:/a"));
        assert_eq!(path(Some("/a:")).as_deref(), Some("/a:/own"));
    }

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
