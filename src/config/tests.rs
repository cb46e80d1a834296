#![allow(clippy::unwrap_used)]

mod errors;
mod php_fpm;

use std::fs;

use super::*;

/// A directory with a configuration file in it.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    /// `@` in the text stands for the directory.
    fn new(text: &str) -> Self {
        let files = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        files.write("fpm.conf", text);
        files
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, self.place(text)).unwrap();
    }

    fn place(&self, text: &str) -> String {
        text.replace('@', self.directory.path().to_str().unwrap())
    }

    fn options(&self) -> FpmOptions {
        FpmOptions {
            config_file: Some(self.place("@/fpm.conf")),
            test: 1,
            ..FpmOptions::default()
        }
    }

    fn load(&self, options: &FpmOptions) -> (Result<Config, InvalidConfig>, Vec<String>) {
        let mut messages = Messages::new();
        let result = load(options, &PhpBuild::compiled(), &mut messages);
        let lines = messages.list().iter().map(|message| {
            let level = message
                .level
                .map(|level| format!("{level:?}: ").to_uppercase());
            let line = format!("{}{}", level.unwrap_or_default(), message.text);
            line.replace(self.directory.path().to_str().unwrap(), "@")
        });
        (result, lines.collect())
    }
}

/// The configuration, and what was said about it without the message of success.
fn config_of(text: &str) -> (Config, Vec<String>) {
    let files = Files::new(text);
    let (config, mut lines) = files.load(&files.options());
    let config = config.unwrap_or_else(|_| panic!("{lines:#?}"));
    let end = lines
        .iter()
        .position(|line| line.ends_with(" test is successful"));
    lines.truncate(end.unwrap());
    (config, lines)
}

const GLOBAL: &str = "[global]\nerror_log = @/log\n";

/// A pool with `more` in it.
fn pool_with(more: &str) -> String {
    format!(
        "{GLOBAL}[www]\nuser = daemon\nlisten = @/sock\npm = static\npm.max_children = 3\n{more}\n"
    )
}
