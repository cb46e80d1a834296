//! php-fpm.conf and the files it includes: which line sets what in which section.

use std::fs;
use std::io;
use std::path::Path;

use glob::{MatchOptions, Pattern, glob_with};

use super::directive::{Key, Scope, find, find_array};
use super::ini::{Statement, SyntaxError, parse};
use super::messages::Messages;
use super::options::{FpmOptions, PhpBuild};
use super::settings::Settings;
use crate::log::Level;

/// The sections of all files, as they stand there.
#[derive(Debug)]
pub(super) struct Sections {
    pub(super) global: Settings,
    /// In the order of their first line.
    pub(super) pools: Vec<Section>,
}

/// One pool.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) settings: Settings,
    /// The pool that this one shows the status of, if it is there for `pm.status_listen`.
    pub(super) shared: Option<usize>,
}

/// Something is wrong; the messages say what.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed;

/// Reads the files.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    options: &'a FpmOptions,
    php: &'a PhpBuild,
    messages: &'a mut Messages,
    sections: Sections,
    /// The pool whose section the current line is in; none for `[global]`. An included file changes it for the lines
    /// after the include.
    current: Option<usize>,
    depth: u32,
}

/// Files within files at most.
const MAX_DEPTH: u32 = 5;

impl<'a> Reader<'a> {
    pub(super) fn new(
        options: &'a FpmOptions,
        php: &'a PhpBuild,
        messages: &'a mut Messages,
    ) -> Self {
        let mut global = Settings::new();
        if let Some(pid) = options.pid.as_deref().filter(|pid| !pid.is_empty()) {
            global.set_text(Key::Pid, pid);
        }
        Self {
            options,
            php,
            messages,
            sections: Sections {
                global,
                pools: Vec::new(),
            },
            current: None,
            depth: 0,
        }
    }

    pub(super) fn read(mut self, file: &str) -> Result<Sections, Failed> {
        self.file(file)?;
        Ok(self.sections)
    }

    fn file(&mut self, file: &str) -> Result<(), Failed> {
        if file.is_empty() {
            return self.fail("configuration filename is empty");
        }
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) => {
                let what = format!("failed to open configuration file '{file}'");
                self.messages.system_error(&what, error);
                return Err(Failed);
            }
        };
        if self.depth >= MAX_DEPTH {
            return self.fail("failed to include more than 5 files recursively");
        }
        self.depth += 1;
        // PHP is given one line at a time, so no value spans lines.
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            if !line.is_empty() {
                self.line(line, file, index + 1)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn line(&mut self, line: &[u8], file: &str, number: usize) -> Result<(), Failed> {
        let (options, php) = (self.options, self.php);
        let place = format!("[{file}:{number}]");
        let mut include = None;
        let mut result = Ok(());
        let text = [line, b"\n"].concat();
        let syntax = parse(&text, &php.environment(options), &mut |statement| {
            if result.is_ok() {
                result = self.statement(statement, &place, &mut include);
            }
        });
        if let Err(SyntaxError { message, .. }) = &syntax {
            // PHP's own message has "Unknown on line 1", as it knows one line only.
            self.messages
                .plain(format!("PHP:  {message} in {file} on line {number}"));
        }
        if result.is_err() || syntax.is_err() {
            return Err(Failed);
        }
        match include {
            Some(pattern) => self.include(&pattern, file, number),
            None => Ok(()),
        }
    }

    fn statement(
        &mut self,
        statement: Statement,
        place: &str,
        include: &mut Option<String>,
    ) -> Result<(), Failed> {
        match statement {
            Statement::Section(name) => {
                let name = self.text(name, place)?;
                self.section(name);
                Ok(())
            }
            Statement::Entry(_, None) => {
                self.fail(format!("{place} value is NULL for a ZEND_INI_PARSER_ENTRY"))
            }
            Statement::Entry(name, Some(value)) => {
                let name = self.text(name, place)?;
                let value = self.text(value, place)?;
                if name != "include" {
                    return self.entry(&name, &value, place);
                }
                if include.is_some() {
                    return self.fail(format!("{place} two includes at the same time !"));
                }
                *include = Some(value);
                Ok(())
            }
            Statement::Element(name, key, value) => {
                let name = self.text(name, place)?;
                let key = self.text(key, place)?;
                let value = self.text(value, place)?;
                self.element(&name, &key, &value, place)
            }
        }
    }

    fn section(&mut self, name: String) {
        if name.eq_ignore_ascii_case("global") {
            self.current = None;
            return;
        }
        let pools = &mut self.sections.pools;
        let known = pools
            .iter()
            .position(|pool| pool.name.eq_ignore_ascii_case(&name));
        self.current = known.or_else(|| {
            pools.push(Section {
                name,
                settings: Settings::new(),
                shared: None,
            });
            Some(pools.len() - 1)
        });
    }

    fn entry(&mut self, name: &str, value: &str, place: &str) -> Result<(), Failed> {
        let (scope, settings, pool) = match self.current {
            None => (Scope::Global, &mut self.sections.global, None),
            Some(index) => {
                let pool = &mut self.sections.pools[index];
                (Scope::Pool, &mut pool.settings, Some(pool.name.as_str()))
            }
        };
        let Some(directive) = find(scope, name) else {
            return self.fail(format!("{place} unknown entry '{name}'"));
        };
        let result = settings.set(directive, value, pool);
        result.or_else(|problem| {
            let name = directive.name;
            self.fail(format!(
                "{place} unable to parse value for entry '{name}': {problem}"
            ))
        })
    }

    fn element(&mut self, name: &str, key: &str, value: &str, place: &str) -> Result<(), Failed> {
        if name == "access.suppress_path" {
            let mut result = Ok(());
            if !key.is_empty() {
                result = self.fail(format!(
                    "{place} Keys provided to field 'access.suppress_path' are ignored"
                ));
            }
            if !value.starts_with('/') {
                result = self.fail(format!(
                    "{place} Values provided to field 'access.suppress_path' must begin with '/'"
                ));
            }
            result?;
        } else if key.is_empty() {
            return self.fail(format!("{place} You must provide a key for field '{name}'"));
        }
        let Some(index) = self.current else {
            return self.fail(format!(
                "{place} Array are not allowed in the global section"
            ));
        };
        if name == "env" && value.is_empty() {
            return self.fail(format!("{place} empty value"));
        }
        let Some(directive) = find_array(name) else {
            return self.fail(format!("{place} unknown directive '{name}'"));
        };
        let pool = &mut self.sections.pools[index];
        let result = pool.settings.push(directive, key, value, Some(&pool.name));
        result.or_else(|problem| {
            self.fail(format!(
                "{place} error while parsing '{name}[{key}]' : {problem}"
            ))
        })
    }

    fn include(&mut self, pattern: &str, file: &str, line: usize) -> Result<(), Failed> {
        let prefix = self.options.prefix.as_deref().unwrap_or(&self.php.prefix);
        let pattern = if pattern.starts_with('/') {
            pattern.to_owned()
        } else {
            format!("{prefix}/{pattern}")
        };
        let Ok(files) = expand(&pattern) else {
            return self.fail(format!(
                "Unable to globalize '{pattern}' (ret=2) from {file} at line {line}."
            ));
        };
        if files.is_empty() {
            self.messages.push(
                Level::Warning,
                format!(
                    "Nothing matches the include pattern '{pattern}' from {file} at line {line}."
                ),
            );
        }
        for included in files {
            if Path::new(&included).is_dir() {
                continue;
            }
            if self.file(&included).is_err() {
                return self.fail(format!(
                    "Unable to include {included} from {file} at line {line}"
                ));
            }
        }
        Ok(())
    }

    fn text(&mut self, bytes: Vec<u8>, place: &str) -> Result<String, Failed> {
        String::from_utf8(bytes).map_err(|error| {
            self.messages.error(format!(
                "{place} '{}' is not valid UTF-8",
                String::from_utf8_lossy(error.as_bytes())
            ));
            Failed
        })
    }

    fn fail<T>(&mut self, text: impl Into<String>) -> Result<T, Failed> {
        self.messages.error(text);
        Err(Failed)
    }
}

/// The files that match, in order, as glob(3) finds them; an error if a directory cannot be read.
fn expand(pattern: &str) -> Result<Vec<String>, io::Error> {
    let Some(wildcard) = pattern.find(['*', '?', '[']) else {
        let exists = fs::symlink_metadata(pattern).is_ok();
        return Ok(exists.then(|| pattern.to_owned()).into_iter().collect());
    };
    // glob(3) fails if the directory is missing, but not if it is none.
    let directory = pattern[..wildcard]
        .rfind('/')
        .map_or(".", |slash| &pattern[..=slash]);
    match fs::read_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotADirectory => return Err(error),
        _ => {}
    }
    let options = MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    // Two stars mean nothing more than one there.
    let mut single = pattern.replace("[^", "[!");
    while single.contains("**") {
        single = single.replace("**", "*");
    }
    let found = glob_with(&single, options)
        // A pattern that is none, such as `a[`, stands for itself.
        .or_else(|_| glob_with(&Pattern::escape(pattern), options))
        .map_err(io::Error::other)?;
    found
        .map(|path| {
            let path = path.map_err(io::Error::from)?;
            path.into_os_string()
                .into_string()
                .map_err(|path| io::Error::other(format!("{} is not UTF-8", path.display())))
        })
        .collect()
}
