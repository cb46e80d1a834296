//! A line of the error log: its head, what may be in it, how long it may be (php-fpm's zlog.c).

use std::fmt;
use std::io::{self, Write};
use std::panic::Location;

use rustix::time::{ClockId, clock_gettime};

use super::{Level, Settings, sys};

/// Appends a line.
pub(super) fn write_line(
    out: &mut Vec<u8>,
    settings: Settings,
    level: Level,
    text: &str,
    place: &Location<'_>,
) {
    let start = out.len();
    write_head(out, settings, level, place);
    // Control characters but for tabs are not for a terminal to obey.
    let mut plain = [0; 4];
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            // A `Vec` cannot fail to take bytes; here and below.
            let _ = write!(out, "{}", character.escape_default());
        } else {
            out.extend_from_slice(character.encode_utf8(&mut plain).as_bytes());
        }
    }
    // php-fpm has room for 2048 bytes and cuts what is longer to `log_limit`; a greater limit is obeyed here.
    cut(out, start, settings.limit.max(ROOM) - 1);
    out.push(b'\n');
}

/// Shortens the line that begins at `start` to `length` bytes, the last three of which are dots then.
pub(super) fn cut(out: &mut Vec<u8>, start: usize, length: usize) {
    if out.len() - start > length {
        out.truncate(start + length - DOTS.len());
        out.extend_from_slice(DOTS);
    }
}

/// `[24-Nov-2026 21:30:00] NOTICE: `; at level DEBUG with microseconds, process and place, in php-fpm's form, which has a
/// function's name where we have the module's.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    settings: Settings,
    level: Level,
    place: &Location<'_>,
) {
    let debug = settings.level == Level::Debug;
    if settings.syslog {
        let _ = write!(out, "[{}] ", level.name());
        if debug {
            let _ = write!(out, "{}(), line {}: ", module(place.file()), place.line());
        }
        return;
    }
    let now = clock_gettime(ClockId::Realtime);
    let _ = write_time(out, now.tv_sec + sys::local_offset(now.tv_sec));
    if debug {
        let pid = rustix::process::getpid();
        let _ = write!(
            out,
            ".{:06}] {}: pid {pid}, {}(), line {}: ",
            now.tv_nsec / 1_000,
            level.name(),
            module(place.file()),
            place.line()
        );
    } else {
        let _ = write!(out, "] {}: ", level.name());
    }
}

/// Now, as lines begin: `[21-Nov-2026 07:50:00] `, as php-fpm's `zlog_print_time` writes it.
pub(super) fn timestamp(level: Level) -> String {
    let now = clock_gettime(ClockId::Realtime);
    let mut out = Vec::new();
    let _ = write_time(&mut out, now.tv_sec + sys::local_offset(now.tv_sec));
    if level == Level::Debug {
        let _ = write!(out, ".{:06}", now.tv_nsec / 1_000);
    }
    out.extend_from_slice(b"] ");
    String::from_utf8_lossy(&out).into_owned()
}

/// `pool` for `src/supervisor/pool.rs`, `zygote` for `src/zygote/mod.rs`.
fn module(file: &str) -> &str {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path)
}

/// `[21-Nov-2026 07:50:00` from seconds since 1970 of local time (Howard Hinnant's `civil_from_days`).
fn write_time(out: &mut Vec<u8>, local: i64) -> io::Result<()> {
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

/// An error of the system's, as php-fpm ends a line with it: `No such file or directory (2)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Errno<'a>(pub(crate) &'a io::Error);

impl fmt::Display for Errno<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match self.0.raw_os_error() {
            Some(number) => {
                let text = text.strip_suffix(&format!(" (os error {number})"));
                write!(f, "{} ({number})", text.unwrap_or("Unknown error"))
            }
            None => f.write_str(&text),
        }
    }
}

/// php-fpm's buffer for a line.
const ROOM: usize = 2048;

const DOTS: &[u8] = b"...";

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn line(settings: Settings, text: &str) -> String {
        let mut out = Vec::new();
        write_line(&mut out, settings, Level::Error, text, Location::caller());
        String::from_utf8(out).expect("valid UTF-8")
    }

    const SETTINGS: Settings = Settings {
        level: Level::Notice,
        limit: 1024,
        buffering: true,
        syslog: false,
    };

    fn time(local: i64) -> String {
        let mut text = Vec::new();
        write_time(&mut text, local).expect("a Vec takes bytes");
        String::from_utf8(text).expect("valid UTF-8")
    }

    #[test]
    fn line_obeys_no_control_character() {
        let text = line(SETTINGS, "a\tb\u{1b}[2J\r\u{e4}");
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

    #[test]
    fn debug_line_has_the_form_that_php_fpms_tests_look_for() {
        let text = line(
            Settings {
                level: Level::Debug,
                ..SETTINGS
            },
            "text",
        );
        let (time, rest) = text.split_once("] ERROR: ").expect("a head");
        assert_eq!(time.len(), "[24-Nov-2026 21:30:00.123456".len(), "{text}");
        let pid = rustix::process::getpid();
        let rest = rest
            .strip_prefix(&format!("pid {pid}, line(), line "))
            .expect("process and module");
        assert!(rest.ends_with(": text\n"), "{text}");
    }

    #[test]
    fn syslog_line_has_no_time() {
        let settings = Settings {
            syslog: true,
            ..SETTINGS
        };
        assert_eq!(line(settings, "text"), "[ERROR] text\n");
    }

    #[test]
    fn long_line_is_cut_where_php_fpm_has_no_more_room() {
        let fits = 2047 - "[24-Nov-2026 21:30:00] ERROR: ".len();
        let whole = line(SETTINGS, &"x".repeat(fits));
        assert!(whole.len() == 2048 && whole.ends_with("xxxx\n"));
        let cut = line(SETTINGS, &"x".repeat(fits + 1));
        assert!(cut.len() == 2048 && cut.ends_with("x...\n"));
    }

    #[test]
    fn greater_limit_lets_longer_lines_through() {
        let settings = Settings {
            limit: 8000,
            ..SETTINGS
        };
        assert!(line(settings, &"x".repeat(7000)).ends_with("xxxx\n"));
        assert_eq!(line(settings, &"x".repeat(9000)).len(), 8000);
    }

    #[test]
    fn module_is_named_as_its_file() {
        assert_eq!(module("src/supervisor/pool.rs"), "pool");
        assert_eq!(module("src/zygote/mod.rs"), "zygote");
    }

    #[test]
    fn errno_is_shown_as_php_fpm_shows_it() {
        let error = io::Error::from_raw_os_error(2);
        assert_eq!(Errno(&error).to_string(), "No such file or directory (2)");
        let error = io::Error::other("no number");
        assert_eq!(Errno(&error).to_string(), "no number");
    }
}
