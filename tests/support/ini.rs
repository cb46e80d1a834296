//! A php.ini and a conf.d for one test, so that the machine's own settings decide nothing.

use std::fs;
use std::path::{Path, PathBuf};

use super::php;

/// The directory to hand over by `-c`, and the one for `PHP_INI_SCAN_DIR`.
#[derive(Clone, Debug)]
pub(crate) struct Ini {
    /// Holds php.ini.
    pub(crate) directory: PathBuf,
    /// Holds a line for each extension.
    pub(crate) scan_directory: PathBuf,
}

impl Ini {
    /// Writes both below `directory`: the extensions of the PHP under test without Xdebug (which changes what errors
    /// look like), OPcache on, and `lines` as php.ini.
    pub(crate) fn write(directory: &Path, lines: &[String]) -> Self {
        let ini = Self {
            directory: directory.join("ini"),
            scan_directory: directory.join("ini/conf.d"),
        };
        fs::create_dir_all(&ini.scan_directory).unwrap();
        let mut has_opcache = php::version_number() >= 80500; // compiled in
        for file in system_files() {
            let name = file.file_name().unwrap().to_str().unwrap();
            if name.contains("xdebug") {
                continue;
            }
            has_opcache |= name.contains("opcache");
            fs::copy(&file, ini.scan_directory.join(name)).unwrap();
        }
        if !has_opcache {
            fs::write(
                ini.scan_directory.join("00-opcache.ini"),
                "zend_extension=opcache\n",
            )
            .unwrap();
        }
        fs::write(ini.directory.join("php.ini"), lines.join("\n") + "\n").unwrap();
        ini
    }

    /// Adds a php.ini line for the next start or reload.
    pub(crate) fn append(&self, line: &str) {
        let path = self.directory.join("php.ini");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{text}{line}\n")).unwrap();
    }
}

/// The files that load extensions: php-fpm's on Debian, else where this PHP was told to look.
fn system_files() -> Vec<PathBuf> {
    let debian = PathBuf::from(format!("/etc/php/{}/fpm/conf.d", php::branch()));
    let directory = if php::is_packaged() && debian.exists() {
        debian
    } else {
        php::config("--ini-dir").into()
    };
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "ini"));
    files.sort();
    files
}
