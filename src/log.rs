//! The error log: php-fpm's line format on standard error.
//!
//! A message is formatted in memory and written with one `write(2)`; nothing is buffered and no lock of ours is held, so
//! every process may log at any time, right after a fork too.

use std::fmt::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::descriptor::high_fd;

/// How much a line matters, in php-fpm's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub(crate) enum Level {
    /// For whoever debugs the server.
    Debug = 1,
    /// Normal life: starts, stops, replacements.
    Notice,
    /// Something was lost or is about to be.
    Warning,
    /// Something does not work.
    Error,
    /// The server cannot go on.
    Alert,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Notice => "NOTICE",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Alert => "ALERT",
        }
    }
}

/// Drops every line below `level` from now on, in this process and those it forks or starts; php-fpm's `log_level`.
pub(crate) fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// The lowest level that is written.
pub(crate) fn level() -> Level {
    match LEVEL.load(Ordering::Relaxed) {
        0..=1 => Level::Debug,
        2 => Level::Notice,
        3 => Level::Warning,
        4 => Level::Error,
        _ => Level::Alert,
    }
}

/// Whether lines of `level` are written.
pub(crate) fn enabled(level: Level) -> bool {
    level >= self::level()
}

/// From now on writes to a descriptor that scripts cannot take away by closing theirs; answers its number.
pub(crate) fn leave_standard_error() -> std::os::fd::RawFd {
    let own = DESCRIPTOR.get_or_init(|| rustix::io::dup(std::io::stderr()).ok().map(high_fd));
    own.as_ref().map_or(2, AsRawFd::as_raw_fd)
}

/// Writes a message: a line, or several, each with its own head, so that no script can forge one.
pub(crate) fn write(level: Level, message: fmt::Arguments<'_>) {
    if !enabled(level) {
        return;
    }
    let message = message.to_string();
    let mut lines = String::with_capacity(message.len() + 64);
    for line in message.lines() {
        // A `String` cannot fail to take text.
        let _ = write_line(&mut lines, level, line);
    }
    write_bytes(lines.as_bytes());
}

/// Writes a message at level ERROR.
pub(crate) fn error(message: fmt::Arguments<'_>) {
    write(Level::Error, message);
}

/// Writes a message at level WARNING.
pub(crate) fn warning(message: fmt::Arguments<'_>) {
    write(Level::Warning, message);
}

/// Writes a message at level NOTICE.
pub(crate) fn notice(message: fmt::Arguments<'_>) {
    write(Level::Notice, message);
}

/// Writes a message at level DEBUG.
pub(crate) fn debug(message: fmt::Arguments<'_>) {
    write(Level::Debug, message);
}

fn write_line(out: &mut String, level: Level, line: &str) -> fmt::Result {
    let now = clock_gettime(ClockId::Realtime);
    write_time(out, now.tv_sec + local_time::offset(now.tv_sec))?;
    if enabled(Level::Debug) {
        let pid = rustix::process::getpid();
        write!(
            out,
            ".{:06}] {}: pid {pid}: ",
            now.tv_nsec / 1_000,
            level.name()
        )?;
    } else {
        write!(out, "] {}: ", level.name())?;
    }
    // Control characters but for tabs are not for a terminal to obey.
    for character in line.chars() {
        match character {
            '\t' => out.write_char(character)?,
            _ if character.is_control() => write!(out, "{}", character.escape_default())?,
            _ => out.write_char(character)?,
        }
    }
    out.write_char('\n')
}

/// `[21-Nov-2026 07:50:00` from seconds since 1970 of local time (Howard Hinnant's `civil_from_days`).
fn write_time(out: &mut String, local: i64) -> fmt::Result {
    let (days, second) = (local.div_euclid(86_400), local.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let (month, next_year) = if from_march < 10 {
        (from_march + 2, 0)
    } else {
        (from_march - 10, 1)
    };
    let year = year_of_era + era * 400 + next_year;
    let month = usize::try_from(month)
        .ok()
        .and_then(|month| MONTHS.get(month))
        .unwrap_or(&"???");
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    write!(
        out,
        "[{day:02}-{month}-{year:04} {hour:02}:{minute:02}:{second:02}"
    )
}

fn write_bytes(mut bytes: &[u8]) {
    let stderr = std::io::stderr();
    let descriptor = match DESCRIPTOR.get() {
        Some(Some(own)) => own.as_fd(),
        _ => stderr.as_fd(),
    };
    while !bytes.is_empty() {
        match rustix::io::write(descriptor, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            // There is nobody left to tell.
            Err(_) => return,
        }
    }
}

static DESCRIPTOR: OnceLock<Option<OwnedFd>> = OnceLock::new();

static LEVEL: AtomicU8 = AtomicU8::new(Level::Notice as u8);

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// The one thing neither std nor rustix offers.
#[allow(unsafe_code)]
mod local_time {
    use std::mem::MaybeUninit;

    /// Seconds that local time is ahead of UTC at `seconds` since 1970.
    pub(super) fn offset(seconds: i64) -> i64 {
        let mut parts = MaybeUninit::<libc::tm>::zeroed();
        // SAFETY: both pointers are to live values of the right types; a null return is checked.
        let filled = unsafe { libc::localtime_r(&raw const seconds, parts.as_mut_ptr()) };
        if filled.is_null() {
            return 0;
        }
        // SAFETY: all-zero bytes are a valid `tm` (integers and a nullable pointer), and it has been filled in since.
        unsafe { parts.assume_init() }.tm_gmtoff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(local: i64) -> String {
        let mut text = String::new();
        write_time(&mut text, local).expect("a String takes text");
        text
    }

    #[test]
    fn line_obeys_no_control_character() {
        let mut text = String::new();
        write_line(&mut text, Level::Error, "a\tb\u{1b}[2J\r\u{e4}").expect("a String takes text");
        assert!(
            text.ends_with("] ERROR: a\tb\\u{1b}[2J\\r\u{e4}\n"),
            "{text:?}"
        );
    }

    #[test]
    fn time_is_written_as_php_fpm_writes_it() {
        assert_eq!(time(0), "[01-Jan-1970 00:00:00");
        assert_eq!(time(1_795_247_400), "[21-Nov-2026 07:50:00");
        assert_eq!(time(951_782_399), "[28-Feb-2000 23:59:59");
        assert_eq!(time(951_782_400), "[29-Feb-2000 00:00:00");
        assert_eq!(time(4_107_542_399), "[28-Feb-2100 23:59:59");
        assert_eq!(time(4_107_542_400), "[01-Mar-2100 00:00:00");
        assert_eq!(time(1_798_761_599), "[31-Dec-2026 23:59:59");
        assert_eq!(time(-1), "[31-Dec-1969 23:59:59");
    }
}
