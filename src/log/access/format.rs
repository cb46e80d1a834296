//! `access.format`: from text to items, and from items to a line.

use std::ffi::CString;
use std::io::Write;
use std::net::IpAddr;

use memchr::{memchr, memchr_iter};

use super::time::{TimeCache, default_format};
use super::{AccessRecord, printable};

/// A parsed `access.format`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccessFormat {
    items: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Text(Vec<u8>),
    Cpu(Cpu),
    Duration(DurationUnit),
    Variable(Vec<u8>),
    Script,
    ContentLength,
    Method,
    Memory(MemoryUnit),
    Pool,
    Header(Vec<u8>),
    Pid,
    SupervisorPid,
    Query,
    QuestionMark,
    Uri,
    Client,
    Status,
    /// When it was accepted, or written: `number` is its place in the cache.
    Time {
        accepted: bool,
        format: CString,
        number: usize,
    },
    User,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cpu {
    Total,
    User,
    System,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DurationUnit {
    Seconds,
    Milliseconds,
    Microseconds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MemoryUnit {
    Bytes,
    Kilobytes,
    Megabytes,
}

/// What a line is made of.
pub(super) struct Line<'a> {
    pub(super) record: &'a AccessRecord<'a>,
    pub(super) pool: &'a str,
    pub(super) pid: i32,
    pub(super) supervisor: i32,
}

impl AccessFormat {
    /// Parses a format.
    ///
    /// # Errors
    /// What php-fpm logs as a WARNING, before its `[pool www] wrong format for access.format '…'`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut items = Vec::new();
        let mut times = 0;
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            push_text(&mut items, &rest[..at]);
            rest = &rest[at + 1..];
            let (item, after) = parse_item(rest, &mut times)?;
            match item {
                Some(Item::Text(text)) => push_text(&mut items, &String::from_utf8_lossy(&text)),
                Some(item) => items.push(item),
                None => {}
            }
            rest = after;
        }
        push_text(&mut items, rest);
        Ok(Self { items })
    }

    /// Whether lines tell CPU time, so that [`CpuTime::now`](super::CpuTime::now) has to be asked twice a request.
    pub(crate) fn needs_cpu(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Cpu(_)))
    }

    /// Whether lines tell response headers, so that they have to be kept.
    pub(crate) fn needs_headers(&self) -> bool {
        self.items
            .iter()
            .any(|item| matches!(item, Item::Header(_)))
    }

    /// The number of times in a line.
    pub(super) fn times(&self) -> usize {
        self.items
            .iter()
            .filter(|item| matches!(item, Item::Time { .. }))
            .count()
    }

    /// Appends a line, without its end.
    pub(super) fn append(&self, line: &Line<'_>, times: &mut TimeCache, out: &mut Vec<u8>) {
        for item in &self.items {
            append_item(item, line, times, out);
        }
    }
}

fn push_text(items: &mut Vec<Item>, text: &str) {
    match items.last_mut() {
        _ if text.is_empty() => {}
        Some(Item::Text(before)) => before.extend_from_slice(text.as_bytes()),
        _ => items.push(Item::Text(text.as_bytes().to_vec())),
    }
}

/// What comes after a percent sign: an item, and the text after that. A lone one at the end means nothing.
fn parse_item<'a>(mut text: &'a str, times: &mut usize) -> Result<(Option<Item>, &'a str), String> {
    let mut modifier = "";
    // Of several in a row the last one counts.
    while let Some(after) = text.strip_prefix('{') {
        (modifier, text) = after
            .split_once('}')
            .filter(|(_, rest)| !rest.is_empty())
            .ok_or_else(|| "missing closing embrace in the access.format".to_owned())?;
    }
    let mut characters = text.chars();
    let Some(code) = characters.next() else {
        return Ok((None, ""));
    };
    // php-fpm has room for so much.
    let modifier = &modifier[..floor_boundary(modifier, 128)];
    let item = match code {
        'C' => Item::Cpu(choose(code, modifier, &CPU, CPU_CHOICE)?),
        'd' => Item::Duration(choose(code, modifier, &DURATION, DURATION_CHOICE)?),
        'M' => Item::Memory(choose(code, modifier, &MEMORY, MEMORY_CHOICE)?),
        'e' if modifier.is_empty() => {
            return Err(format!(
                "the name of the environment variable must be set between embraces for %{code}"
            ));
        }
        'e' => Item::Variable(modifier.as_bytes().to_vec()),
        'o' if modifier.is_empty() => {
            return Err(format!(
                "the name of the header must be set between embraces for %{code}"
            ));
        }
        'o' => Item::Header(modifier.as_bytes().to_vec()),
        't' | 'T' => {
            let number = *times;
            *times += 1;
            let format = CString::new(modifier).unwrap_or_default();
            Item::Time {
                accepted: code == 't',
                format: if modifier.is_empty() {
                    default_format()
                } else {
                    format
                },
                number,
            }
        }
        _ => {
            let item = plain_item(code)
                .ok_or_else(|| format!("Invalid token in the access.format (%{code})"))?;
            if !modifier.is_empty() {
                return Err(format!("embrace is not allowed for modifier %{code}"));
            }
            item
        }
    };
    Ok((Some(item), characters.as_str()))
}

/// Items without a modifier.
fn plain_item(code: char) -> Option<Item> {
    Some(match code {
        '%' => Item::Text(b"%".to_vec()),
        'f' => Item::Script,
        'l' => Item::ContentLength,
        'm' => Item::Method,
        'n' => Item::Pool,
        'p' => Item::Pid,
        'P' => Item::SupervisorPid,
        'q' => Item::Query,
        'Q' => Item::QuestionMark,
        'r' => Item::Uri,
        'R' => Item::Client,
        's' => Item::Status,
        'u' => Item::User,
        _ => return None,
    })
}

fn choose<T: Copy>(
    code: char,
    modifier: &str,
    choices: &[(&str, T)],
    allowed: &str,
) -> Result<T, String> {
    choices
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(modifier))
        .map(|(_, choice)| *choice)
        .ok_or_else(|| {
            format!("only {allowed} are allowed as a modifier for %{code} ('{modifier}')")
        })
}

const CPU: [(&str, Cpu); 4] = [
    ("", Cpu::Total),
    ("total", Cpu::Total),
    ("user", Cpu::User),
    ("system", Cpu::System),
];
const CPU_CHOICE: &str = "'total', 'user' or 'system'";

/// With php-fpm's old spellings.
const DURATION: [(&str, DurationUnit); 8] = [
    ("", DurationUnit::Seconds),
    ("seconds", DurationUnit::Seconds),
    ("milliseconds", DurationUnit::Milliseconds),
    ("milli", DurationUnit::Milliseconds),
    ("miliseconds", DurationUnit::Milliseconds),
    ("mili", DurationUnit::Milliseconds),
    ("microseconds", DurationUnit::Microseconds),
    ("micro", DurationUnit::Microseconds),
];
const DURATION_CHOICE: &str = "'seconds', 'milli', 'milliseconds', 'micro' or 'microseconds'";

const MEMORY: [(&str, MemoryUnit); 6] = [
    ("", MemoryUnit::Bytes),
    ("bytes", MemoryUnit::Bytes),
    ("kilobytes", MemoryUnit::Kilobytes),
    ("kilo", MemoryUnit::Kilobytes),
    ("megabytes", MemoryUnit::Megabytes),
    ("mega", MemoryUnit::Megabytes),
];
const MEMORY_CHOICE: &str = "'bytes', 'kilo', 'kilobytes', 'mega' or 'megabytes'";

fn append_item(item: &Item, line: &Line<'_>, times: &mut TimeCache, out: &mut Vec<u8>) {
    let record = line.record;
    // A `Vec` cannot fail to take bytes.
    let _ = match item {
        Item::Text(text) => out.write_all(text),
        Item::Cpu(which) => write!(out, "{:.2}", percent(*which, record)),
        Item::Duration(DurationUnit::Seconds) => {
            write!(out, "{:.3}", record.duration.as_secs_f64())
        }
        Item::Duration(DurationUnit::Milliseconds) => {
            write!(out, "{:.3}", record.duration.as_secs_f64() * 1_000.0)
        }
        Item::Duration(DurationUnit::Microseconds) => {
            write_number(out, record.duration.as_micros())
        }
        Item::Variable(name) => match record.variables.get(name) {
            Some(value) => out.write_all(&printable(value)),
            None => out.write_all(b"-"),
        },
        Item::Script => out.write_all(or_dash(&printable(record.script))),
        Item::ContentLength => write_number(out, record.content_length),
        Item::Method => out.write_all(or_dash(&printable(record.method))),
        Item::Memory(unit) => write_number(out, record.memory / unit.bytes()),
        Item::Pool => out.write_all(line.pool.as_bytes()),
        Item::Header(name) => out.write_all(or_dash(&printable(header(record.headers, name)))),
        Item::Pid => write_number(out, line.pid),
        Item::SupervisorPid => write_number(out, line.supervisor),
        Item::Query => out.write_all(&printable(record.query)),
        Item::QuestionMark if record.query.is_empty() => Ok(()),
        Item::QuestionMark => out.write_all(b"?"),
        Item::Uri => out.write_all(&printable(record.uri)),
        Item::Client => match record.client.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => write!(out, "{address}"),
            Some(IpAddr::V6(address)) => write!(out, "{address}"),
            None => out.write_all(b"-"),
        },
        Item::Status => write_number(out, record.status),
        Item::Time {
            accepted,
            format,
            number,
        } => {
            let seconds = if *accepted {
                record.accepted
            } else {
                record.now
            };
            out.write_all(times.text(*number, format, seconds))
        }
        Item::User => out.write_all(&printable(record.user)),
    };
}

fn write_number(out: &mut Vec<u8>, number: impl std::fmt::Display) -> std::io::Result<()> {
    write!(out, "{number}")
}

impl MemoryUnit {
    const fn bytes(self) -> usize {
        match self {
            Self::Bytes => 1,
            Self::Kilobytes => 1 << 10,
            Self::Megabytes => 1 << 20,
        }
    }
}

/// CPU time in percent of the request's duration.
fn percent(which: Cpu, record: &AccessRecord<'_>) -> f64 {
    let cpu = match which {
        Cpu::Total => record.cpu.user + record.cpu.system,
        Cpu::User => record.cpu.user,
        Cpu::System => record.cpu.system,
    };
    if record.duration.is_zero() {
        return 0.0;
    }
    cpu.as_secs_f64() / record.duration.as_secs_f64() * 100.0
}

/// The value of a header: empty if there is none. Names are compared as HTTP does, which php-fpm does not.
fn header<'a>(lines: &'a [u8], name: &[u8]) -> &'a [u8] {
    let mut start = 0;
    for end in memchr_iter(b'\n', lines).chain([lines.len()]) {
        let line = lines.get(start..end).unwrap_or_default();
        start = end + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(colon) = memchr(b':', line)
            && line[..colon].eq_ignore_ascii_case(name)
        {
            return line[colon + 1..].trim_ascii();
        }
    }
    b""
}

fn or_dash(text: &[u8]) -> &[u8] {
    if text.is_empty() { b"-" } else { text }
}

/// The greatest boundary between characters that is not above `index`.
fn floor_boundary(text: &str, index: usize) -> usize {
    let mut boundary = index.min(text.len());
    while !text.is_char_boundary(boundary) {
        boundary -= 1;
    }
    boundary
}
