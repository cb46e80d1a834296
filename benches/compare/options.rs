//! The command line.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use crate::contestants::LOGGED;
use crate::support::php;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// fe-php beside php-fpm.
    Compare,
    /// Many requests, to see whether anything grows.
    Soak,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) rounds: Option<usize>,
    /// Part of the names of the cases to run.
    pub(crate) only: String,
    pub(crate) quick: bool,
    /// Only the cases of `fairness.rs`.
    pub(crate) fairness: bool,
    /// Other builds of fe-php.
    pub(crate) others: Vec<(String, PathBuf)>,
    markdown: Option<PathBuf>,
    /// Of `soak`.
    pub(crate) requests: u64,
}

/// The name of the build that `--before` names, which must not be better than this one.
pub(crate) const BEFORE: &str = "fe-php before";

const USAGE: &str = "--rounds N, --only CASE, --fairness, --quick, --logged, --markdown FILE, \
    --before /path/to/fe-php, NAME=/path/to/fe-php; or soak [--requests N]";

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self {
            mode: Mode::Compare,
            rounds: None,
            only: String::new(),
            quick: false,
            fairness: false,
            others: Vec::new(),
            markdown: None,
            requests: 1_000_000,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .ok_or_else(|| format!("{argument} needs a value"))
            };
            let number = |text: &String| {
                text.parse::<u64>()
                    .ok()
                    .filter(|number| (1..=1_000_000_000).contains(number))
                    .ok_or_else(|| format!("{argument}: expected a number above 0, not {text:?}"))
            };
            match argument.as_str() {
                "--bench" => {}
                "soak" => options.mode = Mode::Soak,
                "--rounds" => {
                    let rounds = number(value()?)?.min(1000);
                    options.rounds = Some(usize::try_from(rounds).unwrap_or(1000));
                }
                "--requests" => options.requests = number(value()?)?,
                "--only" => options.only.clone_from(value()?),
                "--quick" => options.quick = true,
                "--fairness" => options.fairness = true,
                "--before" => {
                    let program = value()?.into();
                    options.others.push((BEFORE.to_owned(), program));
                }
                "--logged" => LOGGED.store(true, Ordering::Relaxed),
                "--markdown" => options.markdown = Some(value()?.into()),
                other => match other.split_once('=') {
                    Some((name, program)) if !name.is_empty() => {
                        options.others.push((name.to_owned(), program.into()));
                    }
                    _ => return Err(format!("{other}: what is understood is {USAGE}")),
                },
            }
        }
        Ok(options)
    }

    /// How many rounds make a row, where `usual` would be enough.
    pub(crate) fn rounds(&self, usual: usize) -> usize {
        self.rounds_of(2, usual)
    }

    /// ... and `quick` ones with `--quick`.
    pub(crate) fn rounds_of(&self, quick: usize, usual: usize) -> usize {
        self.rounds
            .unwrap_or(if self.quick { quick } else { usual })
    }

    /// How long a round lasts, in seconds.
    pub(crate) fn seconds(&self, usual: f64) -> f64 {
        if self.quick { usual / 3.0 } else { usual }
    }

    /// Where the report goes: by default into the repository, once `complete`.
    pub(crate) fn markdown_file(&self, complete: bool) -> Option<PathBuf> {
        if self.markdown.is_some() {
            return self.markdown.clone();
        }
        let kind = if php::is_zts() { "zts" } else { "nts" };
        let all = complete
            && self.only.is_empty()
            && !self.fairness
            && !self.quick
            && !LOGGED.load(Ordering::Relaxed);
        all.then(|| {
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join(format!("benches/results/{}-{kind}.md", php::version()))
        })
    }
}
