//! The error log: php-fpm's line format on standard error.
//!
//! A line is formatted in memory and written with one `write(2)`; nothing is buffered and no lock of ours is held, so
//! every process may log at any time, right after a fork too.

use std::fmt::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// How much a line matters, in php-fpm's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// For whoever debugs the server.
    Debug = 1,
    /// Normal life: starts, stops, replacements.
    Notice,
    /// Something was lost or is about to be.
    Warning,
    /// Something does not work.
    Error,
    /// Nothing works.
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

/// Drops every line below `level` from now on, in this process and those it forks; php-fpm's `log_level`.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether lines of `level` are written.
pub fn enabled(level: Level) -> bool {
    level as u8 >= LEVEL.load(Ordering::Relaxed)
}

/// Writes one line.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    if enabled(level) {
        OFFSET.store(local_time::offset(now().0), Ordering::Relaxed);
        let mut line = String::with_capacity(256);
        // A `String` cannot fail to take text.
        let _ = write_line(&mut line, level, message);
        write_bytes(line.as_bytes());
    }
}

/// Writes one line at level ALERT.
pub fn alert(message: fmt::Arguments<'_>) {
    write(Level::Alert, message);
}

/// Writes one line at level ERROR.
pub fn error(message: fmt::Arguments<'_>) {
    write(Level::Error, message);
}

/// Writes one line at level WARNING.
pub fn warning(message: fmt::Arguments<'_>) {
    write(Level::Warning, message);
}

/// Writes one line at level NOTICE.
pub fn notice(message: fmt::Arguments<'_>) {
    write(Level::Notice, message);
}

/// Writes one line at level DEBUG.
pub fn debug(message: fmt::Arguments<'_>) {
    write(Level::Debug, message);
}

/// What a worker process's PHP has to say (`error_log()`, uncaught errors), in the words php-fpm's master process uses
/// for it. Each line of `text` is a line of the log, so a script cannot forge one.
pub fn worker_said(pool: &str, pid: u32, text: &[u8]) {
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line = String::from_utf8_lossy(line);
        warning(format_args!("[pool {pool}] child {pid} said into stderr: \"{line}\""));
    }
}

/// As [`write()`], for signal handlers: no allocation, no lock, at most 2 KiB; the time zone is the one that the last
/// normal line of this process (or its parent) had.
pub fn write_in_signal_handler(level: Level, message: fmt::Arguments<'_>) {
    let mut line = ShortLine { bytes: [0; 2048], length: 0 };
    // What does not fit is cut off.
    let _ = write_line(&mut line, level, message);
    if let Some(last) = line.length.checked_sub(1) {
        line.bytes[last] = b'\n';
    }
    write_bytes(&line.bytes[..line.length]);
}

fn write_line(out: &mut impl Write, level: Level, message: fmt::Arguments<'_>) -> fmt::Result {
    let (seconds, microseconds) = now();
    write_time(out, seconds + OFFSET.load(Ordering::Relaxed))?;
    if enabled(Level::Debug) {
        let pid = rustix::process::getpid();
        writeln!(out, ".{microseconds:06}] {}: pid {}: {message}", level.name(), pid.as_raw_nonzero())
    } else {
        writeln!(out, "] {}: {message}", level.name())
    }
}

/// `[21-Nov-2026 07:50:00` from seconds since 1970 of local time (Howard Hinnant's `civil_from_days`).
fn write_time(out: &mut impl Write, local: i64) -> fmt::Result {
    let (days, second) = (local.div_euclid(86_400), local.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let (month, next_year) = if from_march < 10 { (from_march + 2, 0) } else { (from_march - 10, 1) };
    let year = year_of_era + era * 400 + next_year;
    let month = usize::try_from(month).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"???");
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    write!(out, "[{day:02}-{month}-{year:04} {hour:02}:{minute:02}:{second:02}")
}

fn now() -> (i64, i64) {
    let now = clock_gettime(ClockId::Realtime);
    (now.tv_sec, now.tv_nsec / 1_000)
}

fn write_bytes(mut bytes: &[u8]) {
    let stderr = std::io::stderr();
    while !bytes.is_empty() {
        match rustix::io::write(stderr.as_fd(), bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            // There is nobody left to tell.
            Err(_) => return,
        }
    }
}

/// Bytes of a line on the stack; what does not fit is dropped.
struct ShortLine {
    bytes: [u8; 2048],
    length: usize,
}

impl Write for ShortLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.length..];
        let taken = text.len().min(room.len());
        room[..taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken;
        Ok(())
    }
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Notice as u8);

/// Seconds that local time is ahead of UTC, for signal handlers.
static OFFSET: AtomicI64 = AtomicI64::new(0);

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

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

    #[test]
    fn short_line_cuts_what_does_not_fit() {
        let mut line = ShortLine { bytes: [0; 2048], length: 0 };
        write_line(&mut line, Level::Alert, format_args!("{}", "x".repeat(5_000))).expect("never fails");
        assert_eq!(line.length, 2048);
    }
}
