//! The log of a server under test: a file that is searched, and waited for.

use std::path::{Path, PathBuf};

use super::{DEADLINE, holds_within};

/// A log file that another process writes.
#[derive(Clone, Debug)]
pub(crate) struct Log(PathBuf);

impl Log {
    /// The log at `path`, which need not exist yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// All that has been written so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.0).unwrap_or_default()).into_owned()
    }

    /// How many lines have `text` in them so far.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.text()
            .lines()
            .filter(|line| line.contains(text))
            .count()
    }

    /// Waits for the first line with `text` in it and returns it; panics with the whole log if none comes.
    pub(crate) fn expect(&self, text: &str) -> String {
        self.expect_count(text, 1)
    }

    /// Waits until `count` lines have `text` in them and returns the last of those.
    pub(crate) fn expect_count(&self, text: &str, count: usize) -> String {
        holds_within(DEADLINE, || self.count(text) >= count);
        let log = self.text();
        let mut lines = log.lines().filter(|line| line.contains(text));
        match lines.nth(count - 1) {
            Some(line) => line.to_owned(),
            None => panic!("the log lacks line {count} with {text:?} after {DEADLINE:?}:\n{log}"),
        }
    }
}
