//! The slow log: what slow scripts were running, in php-fpm's format.

use std::fmt::Write;
use std::sync::Arc;

use crate::engine::Backtrace;
use crate::log::{self, LogFile};

/// A pool's `slowlog`.
#[derive(Debug)]
pub(crate) struct SlowLog {
    file: Arc<LogFile>,
    pool: String,
}

impl SlowLog {
    pub(crate) fn new(file: Arc<LogFile>, pool: &str) -> Self {
        Self {
            file,
            pool: pool.to_owned(),
        }
    }

    /// Adds one request, by a single write, so that those of other processes do not come in between.
    pub(super) fn add(&self, pid: i32, script: &str, backtrace: &Backtrace) {
        let entry = entry(&log::timestamp(), &self.pool, pid, script, backtrace);
        self.file.write(entry.as_bytes());
    }
}

/// As `fpm_php_trace_dump` writes it.
fn entry(time: &str, pool: &str, pid: i32, script: &str, backtrace: &Backtrace) -> String {
    let mut entry = format!("\n{time} [pool {pool}] pid {pid}\n");
    // A `String` cannot fail to take text.
    let _ = writeln!(entry, "script_filename = {script}");
    entry.push_str(&backtrace.slow_log());
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_begins_as_php_fpms() {
        let entry = entry(
            "[21-Nov-2026 07:50:00] ",
            "www",
            17,
            "/srv/a.php",
            &Backtrace::default(),
        );
        assert_eq!(
            entry,
            "\n[21-Nov-2026 07:50:00]  [pool www] pid 17\nscript_filename = /srv/a.php\n"
        );
    }
}
