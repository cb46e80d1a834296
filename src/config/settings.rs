//! Values as they stand in the files, by directive: between the text and the typed configuration.

use super::directive::{DIRECTIVES, Directive, Initial, Key, Kind};
use super::ini::atoi;
use crate::log::Level;

/// The values of one section.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    values: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Unset,
    Text(String),
    Number(i64),
    /// Keys and values, the last one first, as php-fpm keeps them.
    List(Vec<(String, String)>),
}

impl Settings {
    pub(super) fn new() -> Self {
        let values = DIRECTIVES.iter().map(|directive| match directive.initial {
            Initial::Unset => Value::Unset,
            Initial::Number(number) => Value::Number(number),
        });
        Self {
            values: values.collect(),
        }
    }

    /// Reads a value in php-fpm's way; the error is its word for what is wrong.
    pub(super) fn set(
        &mut self,
        directive: &Directive,
        text: &str,
        pool: Option<&str>,
    ) -> Result<(), &'static str> {
        self.values[directive.key as usize] = match directive.kind {
            Kind::Text => Value::Text(expand_pool(text, pool)?),
            kind => Value::Number(number(kind, text)?),
        };
        Ok(())
    }

    /// Adds to an array.
    pub(super) fn push(
        &mut self,
        directive: &Directive,
        key: &str,
        text: &str,
        pool: Option<&str>,
    ) -> Result<(), &'static str> {
        let value = if directive.kind == Kind::BooleanArray {
            boolean(text)?.to_string()
        } else {
            expand_pool(text, pool)?
        };
        // php-fpm keeps flags among the values.
        let list = match directive.key {
            Key::PhpFlag => Key::PhpValue,
            Key::PhpAdminFlag => Key::PhpAdminValue,
            other => other,
        };
        let slot = &mut self.values[list as usize];
        if *slot == Value::Unset {
            *slot = Value::List(Vec::new());
        }
        if let Value::List(list) = slot {
            list.insert(0, (key.to_owned(), value));
        }
        Ok(())
    }

    /// A text; an empty one is not the same as none.
    pub(super) fn text(&self, key: Key) -> Option<&str> {
        match &self.values[key as usize] {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A text that is there and not empty.
    pub(super) fn filled(&self, key: Key) -> Option<&str> {
        self.text(key).filter(|text| !text.is_empty())
    }

    pub(super) fn number(&self, key: Key) -> i64 {
        self.given_number(key).unwrap_or(0)
    }

    /// A number, unless there is no default and none was given.
    pub(super) fn given_number(&self, key: Key) -> Option<i64> {
        match self.values[key as usize] {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(super) fn flag(&self, key: Key) -> bool {
        self.number(key) != 0
    }

    /// The entries of an array, the last one first.
    pub(super) fn list(&self, key: Key) -> &[(String, String)] {
        match &self.values[key as usize] {
            Value::List(list) => list,
            _ => &[],
        }
    }

    pub(super) fn list_mut(&mut self, key: Key) -> &mut [(String, String)] {
        match &mut self.values[key as usize] {
            Value::List(list) => list,
            _ => &mut [],
        }
    }

    pub(super) fn set_text(&mut self, key: Key, text: impl Into<String>) {
        self.values[key as usize] = Value::Text(text.into());
    }

    pub(super) fn set_number(&mut self, key: Key, number: i64) {
        self.values[key as usize] = Value::Number(number);
    }

    pub(super) fn unset(&mut self, key: Key) {
        self.values[key as usize] = Value::Unset;
    }

    /// Whether the value is another than without any configuration.
    pub(super) fn is_changed(&self, directive: &Directive) -> bool {
        let value = &self.values[directive.key as usize];
        match directive.initial {
            Initial::Unset => *value != Value::Unset,
            Initial::Number(number) => *value != Value::Number(number),
        }
    }

    /// `pm`
    pub(super) fn process_manager(&self) -> Option<&'static str> {
        let index = usize::try_from(self.given_number(Key::Pm)?).ok()?;
        PROCESS_MANAGERS.get(index).copied()
    }

    /// `log_level`, if it was given.
    pub(super) fn log_level(&self) -> Option<Level> {
        let number = self.number(Key::LogLevel);
        LEVELS.into_iter().find(|level| *level as i64 == number)
    }
}

/// Values of `pm`; [`Settings`] has the index.
const PROCESS_MANAGERS: [&str; 3] = ["static", "dynamic", "ondemand"];

const LEVELS: [Level; 5] = [
    Level::Debug,
    Level::Notice,
    Level::Warning,
    Level::Error,
    Level::Alert,
];

/// Replaces `$pool` by the pool's name.
fn expand_pool(text: &str, pool: Option<&str>) -> Result<String, &'static str> {
    if !text.contains("$pool") {
        return Ok(text.to_owned());
    }
    // php-fpm starts again after each replacement, for ever if the pool's name has `$pool` in it.
    pool.map(|pool| text.replace("$pool", pool))
        .ok_or("Can't use '$pool' when the pool is not defined")
}

fn number(kind: Kind, text: &str) -> Result<i64, &'static str> {
    match kind {
        Kind::Integer | Kind::Priority => integer(text),
        Kind::Time => time(text),
        Kind::Boolean => boolean(text).map(i64::from),
        Kind::LogLevel => log_level(text),
        Kind::Facility => facility(text),
        Kind::CoreSize => core_size(text),
        Kind::ProcessManager => process_manager(text),
        Kind::Milliseconds => milliseconds(text),
        Kind::Size => size(text),
        Kind::Count => count(text),
        Kind::QueueAnswer => queue_answer(text),
        Kind::Text | Kind::Array | Kind::BooleanArray => Err("is not a number"),
    }
}

fn integer(text: &str) -> Result<i64, &'static str> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("is not a valid number (greater or equal than zero)");
    }
    Ok(atoi(text.as_bytes()).into())
}

fn time(text: &str) -> Result<i64, &'static str> {
    let Some(&last) = text.as_bytes().last() else {
        return Err("invalid time value");
    };
    let factor = match last {
        b's' | b'0'..=b'9' => 1,
        b'm' => 60,
        b'h' => 60 * 60,
        b'd' => 24 * 60 * 60,
        _ => return Err("unknown suffix used in time value"),
    };
    Ok(atoi(text.as_bytes()).wrapping_mul(factor).into())
}

fn boolean(text: &str) -> Result<u8, &'static str> {
    match text {
        "1" | "yes" | "true" | "on" => Ok(1),
        "" | "0" | "no" | "none" | "false" | "off" => Ok(0),
        _ => Err("invalid boolean value"),
    }
}

fn log_level(text: &str) -> Result<i64, &'static str> {
    let level = match text.to_ascii_lowercase().as_str() {
        "debug" => Level::Debug,
        "notice" => Level::Notice,
        "warning" | "warn" => Level::Warning,
        "error" => Level::Error,
        "alert" => Level::Alert,
        _ => return Err("invalid value for 'log_level'"),
    };
    Ok(level as i64)
}

/// The numbers of `syslog.h`, which `-tt` prints.
fn facility(text: &str) -> Result<i64, &'static str> {
    const NAMES: [&str; 12] = [
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron",
        "authpriv", "ftp",
    ];
    let name = text.to_ascii_lowercase();
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return Ok(i64::try_from(index << 3).unwrap_or(0));
    }
    match name.strip_prefix("local").map(str::as_bytes) {
        Some(&[digit @ b'0'..=b'7']) => Ok(i64::from(16 + digit - b'0') << 3),
        _ => Err("invalid value"),
    }
}

fn core_size(text: &str) -> Result<i64, &'static str> {
    if text.eq_ignore_ascii_case("unlimited") {
        return Ok(-1);
    }
    match integer(text)? {
        ..0 => Err("must be greater than zero or 'unlimited'"),
        number => Ok(number),
    }
}

fn process_manager(text: &str) -> Result<i64, &'static str> {
    PROCESS_MANAGERS
        .iter()
        .position(|name| name.eq_ignore_ascii_case(text))
        .and_then(|index| i64::try_from(index).ok())
        .ok_or("invalid process manager (static, dynamic or ondemand)")
}

/// More strictly than php-fpm's times, since no configuration file has it yet.
fn milliseconds(text: &str) -> Result<i64, &'static str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let factor = match &text[digits..] {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("is not a time: use a number of seconds, or one with ms, s, m, h or d"),
    };
    text[..digits]
        .parse()
        .ok()
        .and_then(|number: i64| number.checked_mul(factor))
        .filter(|milliseconds| *milliseconds <= 366 * 86_400_000)
        .ok_or("is not a time between 0 and 366d")
}

fn size(text: &str) -> Result<i64, &'static str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let shift = match &text[digits..] {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return Err("is not a size: use a number of bytes, or one with K, M or G"),
    };
    text[..digits]
        .parse()
        .ok()
        .and_then(|number: i64| number.checked_mul(1 << shift))
        .filter(|size| (1..=1 << 40).contains(size))
        .ok_or("is not a size between 1 and 1024G")
}

fn count(text: &str) -> Result<i64, &'static str> {
    text.parse()
        .ok()
        .filter(|number| (1..=i64::from(i32::MAX)).contains(number))
        .ok_or("is not a number from 1 to 2147483647")
}

fn queue_answer(text: &str) -> Result<i64, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "503" => Ok(0),
        "overloaded" => Ok(1),
        _ => Err("must be 503 or overloaded"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_kind() {
        for (kind, text, expected) in [
            (Kind::Integer, "12", 12),
            (Kind::Integer, "-1", -1),
            (Kind::Integer, "", 0),
            (Kind::Time, "5", 5),
            (Kind::Time, "5s", 5),
            (Kind::Time, "5m", 300),
            (Kind::Time, "2h", 7200),
            (Kind::Time, "1d", 86_400),
            (Kind::Time, "m", 0),
            (Kind::Boolean, "on", 1),
            (Kind::Boolean, "none", 0),
            (Kind::LogLevel, "WARN", 3),
            (Kind::Facility, "daemon", 24),
            (Kind::Facility, "LOCAL7", 184),
            (Kind::Facility, "ftp", 88),
            (Kind::CoreSize, "Unlimited", -1),
            (Kind::CoreSize, "7", 7),
            (Kind::ProcessManager, "OnDemand", 2),
            (Kind::Milliseconds, "500ms", 500),
            (Kind::Milliseconds, "2", 2000),
            (Kind::Milliseconds, "1m", 60_000),
            (Kind::Size, "64K", 65_536),
            (Kind::Size, "1", 1),
            (Kind::Count, "3", 3),
            (Kind::QueueAnswer, "Overloaded", 1),
        ] {
            assert_eq!(number(kind, text), Ok(expected), "{kind:?} {text}");
        }
    }

    #[test]
    fn errors_have_php_fpms_words() {
        for (kind, text, expected) in [
            (
                Kind::Integer,
                "1k",
                "is not a valid number (greater or equal than zero)",
            ),
            (
                Kind::Integer,
                "--1",
                "is not a valid number (greater or equal than zero)",
            ),
            (Kind::Time, "", "invalid time value"),
            (Kind::Time, "5x", "unknown suffix used in time value"),
            (Kind::Boolean, "maybe", "invalid boolean value"),
            (Kind::Boolean, "YES", "invalid boolean value"),
            (Kind::LogLevel, "loud", "invalid value for 'log_level'"),
            (Kind::Facility, "local8", "invalid value"),
            (
                Kind::CoreSize,
                "-5",
                "must be greater than zero or 'unlimited'",
            ),
            (
                Kind::CoreSize,
                "x",
                "is not a valid number (greater or equal than zero)",
            ),
            (
                Kind::ProcessManager,
                "x",
                "invalid process manager (static, dynamic or ondemand)",
            ),
        ] {
            assert_eq!(number(kind, text), Err(expected), "{kind:?} {text}");
        }
        for (kind, text) in [
            (Kind::Milliseconds, "-1"),
            (Kind::Milliseconds, "5x"),
            (Kind::Milliseconds, ""),
            (Kind::Milliseconds, "400d"),
            (Kind::Size, "0"),
            (Kind::Size, "1T"),
            (Kind::Size, "99999999999G"),
            (Kind::Count, "0"),
            (Kind::QueueAnswer, "504"),
        ] {
            number(kind, text).unwrap_err();
        }
    }

    #[test]
    fn pool_is_expanded() {
        assert_eq!(
            expand_pool("/a/$pool/$pool.log", Some("www")).unwrap(),
            "/a/www/www.log"
        );
        expand_pool("$pool", None).unwrap_err();
        assert_eq!(expand_pool("x", None).unwrap(), "x");
    }
}
