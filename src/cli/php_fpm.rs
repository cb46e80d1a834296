//! php-fpm's own command line, read as `php_getopt()` reads it and obeyed in `main()`'s order.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::{FpmOptions, PhpBuild};

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PhpFpm {
    /// Serve, or test the configuration if [`FpmOptions::test`] says so.
    Serve(FpmOptions),
    /// `-v`: PHP's version. The options before it are given: php-fpm starts PHP with them.
    Version(FpmOptions),
    /// `-m`: PHP's modules; as for `-v`.
    Modules(FpmOptions),
    /// `-i`: what `phpinfo()` says, as text.
    Information(FpmOptions),
    /// `-h`, or [`EXIT_USAGE`] if the command line is wrong: print [`usage`] to standard output.
    Usage {
        /// The exit code.
        status: u8,
    },
}

/// The command line is wrong: php-fpm's FPM_EXIT_USAGE.
pub(crate) const EXIT_USAGE: u8 = 64;
/// PHP does not start: FPM_EXIT_SOFTWARE.
pub(crate) const EXIT_SOFTWARE: u8 = 70;
/// The configuration is wrong, or what it asks for cannot be had: FPM_EXIT_CONFIG.
pub(crate) const EXIT_CONFIG: u8 = 78;

/// Reads the arguments behind the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> PhpFpm {
    // A name that is not UTF-8 would not be found in the messages about it either.
    let arguments: Option<Vec<String>> = arguments
        .into_iter()
        .map(|argument| argument.into_string().ok())
        .collect();
    let usage = |status| PhpFpm::Usage { status };
    let Some(arguments) = arguments else {
        return usage(EXIT_USAGE);
    };
    let mut scanner = Scanner {
        arguments: &arguments,
        index: 0,
        cluster: 0,
    };
    let mut options = FpmOptions::default();
    let mut information = false;
    loop {
        let (option, value) = match scanner.next() {
            Scanned::End => break,
            Scanned::Invalid => return usage(EXIT_USAGE),
            Scanned::Option(option, value) => (option, value.unwrap_or_default()),
        };
        match option {
            'c' => options.ini.path = Some(PathBuf::from(value)),
            'n' => options.ini.no_ini = true,
            'd' => options.ini.defines.push(define(value)),
            'y' => options.config_file = Some(value.to_owned()),
            'p' => options.prefix = Some(value.to_owned()),
            'g' => options.pid = Some(value.to_owned()),
            'e' => options.ini.extended_info = true,
            't' => options.test = options.test.saturating_add(1),
            'R' => options.run_as_root = true,
            'D' => options.daemonize = Some(true),
            'F' => options.daemonize = Some(false),
            'O' => options.force_stderr = true,
            'i' => information = true,
            'm' => return PhpFpm::Modules(options),
            'v' => return PhpFpm::Version(options),
            _ => return usage(0),
        }
    }
    if information {
        return PhpFpm::Information(options);
    }
    if scanner.index != arguments.len() {
        return usage(EXIT_USAGE);
    }
    PhpFpm::Serve(options)
}

/// php-fpm's help.
pub(crate) fn usage(program: &str, php: &PhpBuild) -> String {
    format!(
        "Usage: {program} [-n] [-e] [-h] [-i] [-m] [-v] [-t] [-p <prefix>] [-g <pid>] [-c <file>] [-d foo[=bar]] [-y <file>] [-D] [-F [-O]]
  -c <path>|<file> Look for php.ini file in this directory
  -n               No php.ini file will be used
  -d foo[=bar]     Define INI entry foo with value 'bar'
  -e               Generate extended information for debugger/profiler
  -h               This help
  -i               PHP information
  -m               Show compiled in modules
  -v               Version number
  -p, --prefix <dir>
                   Specify alternative prefix path to FastCGI process manager (default: {}).
  -g, --pid <file>
                   Specify the PID file location.
  -y, --fpm-config <file>
                   Specify alternative path to FastCGI process manager config file.
  -t, --test       Test FPM configuration and exit
  -D, --daemonize  force to run in background, and ignore daemonize option from config file
  -F, --nodaemonize
                   force to stay in foreground, and ignore daemonize option from config file
  -O, --force-stderr
                   force output to stderr in nodaemonize even if stderr is not a TTY
  -R, --allow-to-run-as-root
                   Allow pool to run as root (disabled by default)
",
        php.prefix
    )
}

/// The name in [`usage`]: that of a program called by a path, else `php`, as php-fpm has it.
pub(crate) fn program_name(argv0: &str) -> &str {
    argv0.rsplit_once('/').map_or("php", |(_, name)| name)
}

/// `name=value`, or `name` for `name=1`.
fn define(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, "1"));
    (name.to_owned(), value.to_owned())
}

/// Letter, whether it takes a value, long name.
const OPTIONS: [(char, bool, &str); 17] = [
    ('c', true, "php-ini"),
    ('d', true, "define"),
    ('e', false, "profile-info"),
    ('h', false, "help"),
    ('i', false, "info"),
    ('m', false, "modules"),
    ('n', false, "no-php-ini"),
    ('?', false, "usage"),
    ('v', false, "version"),
    ('y', true, "fpm-config"),
    ('t', false, "test"),
    ('p', true, "prefix"),
    ('g', true, "pid"),
    ('R', false, "allow-to-run-as-root"),
    ('D', false, "daemonize"),
    ('F', false, "nodaemonize"),
    ('O', false, "force-stderr"),
];

/// `php_getopt()`
struct Scanner<'a> {
    arguments: &'a [String],
    index: usize,
    /// Bytes of the current argument that are done, while several letters share it.
    cluster: usize,
}

enum Scanned<'a> {
    Option(char, Option<&'a str>),
    Invalid,
    /// No more options; [`Scanner::index`] is the first argument that is none.
    End,
}

impl<'a> Scanner<'a> {
    fn next(&mut self) -> Scanned<'a> {
        let Some(argument) = self.arguments.get(self.index) else {
            return Scanned::End;
        };
        if self.cluster > 0 {
            return self.short(argument);
        }
        match argument.strip_prefix('-') {
            None | Some("") => Scanned::End,
            Some("-") => {
                self.index += 1;
                Scanned::End
            }
            Some(long) if long.starts_with('-') => self.long(&argument[2..]),
            Some(_) => {
                self.cluster = 1;
                self.short(argument)
            }
        }
    }

    /// `--name`, `--name value` or `--name=value`.
    fn long(&mut self, argument: &'a str) -> Scanned<'a> {
        // An equals sign at the very end is taken for part of the name, which is then unknown.
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) if !value.is_empty() => (name, Some(value)),
            _ => (argument, None),
        };
        self.index += 1;
        let Some(&(letter, takes_value, _)) = OPTIONS.iter().find(|(_, _, long)| *long == name)
        else {
            return Scanned::Invalid;
        };
        if !takes_value {
            return Scanned::Option(letter, None);
        }
        self.value(
            letter,
            value.map(|value| value.strip_prefix('=').unwrap_or(value)),
        )
    }

    /// `-x`, also several in one argument; `-x value`, `-xvalue` or `-x=value`.
    fn short(&mut self, argument: &'a str) -> Scanned<'a> {
        let rest = &argument[self.cluster..];
        let letter = rest.chars().next().unwrap_or_default();
        let Some(&(letter, takes_value, _)) = OPTIONS.iter().find(|(known, _, _)| *known == letter)
        else {
            return Scanned::Invalid;
        };
        let rest = &rest[1..];
        if !takes_value {
            if rest.is_empty() {
                self.index += 1;
                self.cluster = 0;
            } else {
                self.cluster += 1;
            }
            return Scanned::Option(letter, None);
        }
        self.index += 1;
        self.cluster = 0;
        match rest {
            "" => self.value(letter, None),
            rest => self.value(letter, Some(rest.strip_prefix('=').unwrap_or(rest))),
        }
    }

    fn value(&mut self, letter: char, value: Option<&'a str>) -> Scanned<'a> {
        if value.is_some() {
            return Scanned::Option(letter, value);
        }
        match self.arguments.get(self.index) {
            Some(next) => {
                self.index += 1;
                Scanned::Option(letter, Some(next))
            }
            None => Scanned::Invalid,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

    use super::*;

    fn parsed(line: &str) -> PhpFpm {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn served(line: &str) -> FpmOptions {
        match parsed(line) {
            PhpFpm::Serve(options) => options,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn options_are_read_in_all_their_forms() {
        for line in [
            "-y a",
            "-ya",
            "-y=a",
            "--fpm-config a",
            "--fpm-config=a",
            "--fpm-config==a",
        ] {
            assert_eq!(served(line).config_file.as_deref(), Some("a"), "{line}");
        }
        let all = served("-ntt -c /x -d a=b=c -dd -e -p /p -g /g -R -O -F -D --");
        assert_eq!(
            all,
            FpmOptions {
                ini: crate::config::IniConfig {
                    path: Some("/x".into()),
                    no_ini: true,
                    defines: vec![
                        ("a".to_owned(), "b=c".to_owned()),
                        ("d".to_owned(), "1".to_owned())
                    ],
                    extended_info: true,
                },
                config_file: None,
                prefix: Some("/p".to_owned()),
                pid: Some("/g".to_owned()),
                test: 2,
                daemonize: Some(true),
                force_stderr: true,
                run_as_root: true,
            }
        );
        assert_eq!(served("--nodaemonize --test=x").test, 1);
    }

    #[test]
    fn what_is_asked_first_is_answered() {
        assert_eq!(parsed("-n -v -x"), PhpFpm::Version(served("-n")));
        assert_eq!(parsed("-m"), PhpFpm::Modules(FpmOptions::default()));
        assert_eq!(parsed("-i -n x"), PhpFpm::Information(served("-n")));
        assert_eq!(parsed("-i -v"), PhpFpm::Version(FpmOptions::default()));
        assert_eq!(parsed("--usage"), PhpFpm::Usage { status: 0 });
    }

    /// php-fpm's exit code and help for a command line. It is never one that makes it serve.
    fn judge(line: &str) -> (i32, String) {
        let php_fpm = crate::config::php_fpm_to_compare_with();
        let output = Command::new(&php_fpm)
            .args(line.split_whitespace())
            .output()
            .unwrap_or_else(|error| panic!("{} cannot be run: {error}", php_fpm.display()));
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap(), text)
    }

    #[test]
    fn wrong_lines_are_refused_as_by_php_fpm() {
        let php_fpm = crate::config::php_fpm_to_compare_with();
        let help = usage(
            program_name(php_fpm.to_str().unwrap()),
            &PhpBuild::compiled(),
        );
        for line in [
            "-h",
            "-?",
            "-n -h",
            "--help",
            "--usage",
            "-nh",
            "-x",
            "-n -x",
            "-nx",
            "-V",
            "-:",
            "-y",
            "-c",
            "-n x",
            "-n -- x",
            "-n -",
            "--unknown",
            "--prefix=",
            "--prefix",
            "---",
            "--test= x",
            "-nt=",
            "-hx",
            "-n --help=x",
        ] {
            let (code, text) = judge(line);
            let ours = match parsed(line) {
                PhpFpm::Usage { status } => i32::from(status),
                other => panic!("{line}: {other:?}"),
            };
            assert_eq!((ours, help.as_str()), (code, text.as_str()), "{line}");
        }
    }

    #[test]
    fn right_lines_are_taken_as_by_php_fpm() {
        for line in [
            "-n -t -y /nowhere/x",
            "-nt -y/nowhere/x",
            "-tny=/nowhere/x",
            "-n -t --fpm-config=/nowhere/x",
            "-n -t --fpm-config /nowhere/x -R -F -O -D -e",
            "-n -t -p /nowhere",
            "-ny /nowhere/x --",
            "-n --test=5 -y /nowhere/x -d a -d b=c",
        ] {
            served(line);
            // The configuration that cannot be read shows that it came to that.
            assert_eq!(judge(line).0, i32::from(EXIT_CONFIG), "{line}");
        }
    }
}
