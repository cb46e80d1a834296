//! What a worker process says on its standard output and error, as lines of the error log (php-fpm's
//! fpm_stdio_child_said and zlog_stream_*).
//!
//! ```text
//! [24-Nov-2026 21:30:00] WARNING: [pool www] child 123 said into stderr: "text"
//! ```
//!
//! No line is longer than `log_limit`, its end included: what does not fit goes on in another line of the same form.
//! With `decorate_workers_output = no` there is only the text. An unfinished line waits for its end, which is a line
//! feed, [`FLUSH`], or something said into the other stream; with `log_buffering = no` it is written as far as it has
//! come. Empty lines are dropped. Above the level WARNING there is text without a head, as under php-fpm (but without
//! its lone quotation mark at the end).

use std::panic::Location;

use memchr::memchr2;

use super::line::write_head;
use super::{Level, Settings};

/// What a worker process writes to its standard error when a request has ended: the line is complete.
pub(super) const FLUSH: &[u8] = b"\0fscf\0";

/// The stream that something was said into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Source {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The lines of one worker process. Bytes go in, bytes for the log come out; it reads and writes nothing itself.
#[derive(Debug)]
pub(super) struct WorkerOutput {
    settings: Settings,
    pool: String,
    pid: i32,
    decorate: bool,
    /// What the current line is from; none before anything was read.
    source: Option<Source>,
    /// The current line as far as it is not written.
    line: Vec<u8>,
    /// Bytes of the current line, written or not.
    length: usize,
    /// How much of [`FLUSH`] each stream has ended with so far.
    matched: [usize; 2],
}

impl WorkerOutput {
    pub(super) fn new(settings: Settings, pool: &str, pid: i32, decorate: bool) -> Self {
        Self {
            settings,
            pool: pool.to_owned(),
            pid,
            // php-fpm has room for 511 bytes before the text. At the least limit (512) and with a long name there would
            // be none for the text itself.
            decorate: decorate && pool.len() < settings.limit / 2,
            source: None,
            line: Vec::new(),
            length: 0,
            matched: [0; 2],
        }
    }

    /// Whether anything was ever read from the process.
    pub(super) fn has_begun(&self) -> bool {
        self.source.is_some()
    }

    /// Takes what was read from `source`; appends to `out` what is to be written.
    pub(super) fn feed(&mut self, source: Source, bytes: &[u8], out: &mut Vec<u8>) {
        self.turn_to(source, out);
        let mut matched = self.matched[source as usize];
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            if matched > 0 {
                if *first == FLUSH[matched] {
                    matched += 1;
                    rest = &rest[1..];
                    if matched == FLUSH.len() {
                        matched = 0;
                        self.finish(out);
                    }
                } else {
                    // It was text. No later part of it can be a beginning of `FLUSH`.
                    self.text(&FLUSH[..matched], out);
                    matched = 0;
                }
                continue;
            }
            let Some(at) = memchr2(b'\n', FLUSH[0], rest) else {
                self.text(rest, out);
                break;
            };
            self.text(&rest[..at], out);
            if rest[at] == b'\n' {
                self.finish(out);
            } else {
                matched = 1;
            }
            rest = &rest[at + 1..];
        }
        self.matched[source as usize] = matched;
    }

    /// The stream has ended. `at_once` says that it did so the first time that anything was read from the process.
    pub(super) fn end(&mut self, source: Source, at_once: bool, out: &mut Vec<u8>) {
        self.turn_to(source, out);
        let matched = std::mem::take(&mut self.matched[source as usize]);
        self.text(&FLUSH[..matched], out);
        if at_once {
            self.finish_with(CLOSED, out);
        }
    }

    /// Ends an unfinished line: the process is gone.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        self.finish_with(b"", out);
    }

    fn turn_to(&mut self, source: Source, out: &mut Vec<u8>) {
        if self.source != Some(source) {
            self.finish(out);
            self.source = Some(source);
        }
    }

    fn text(&mut self, mut text: &[u8], out: &mut Vec<u8>) {
        let quote = usize::from(self.quotes());
        while !text.is_empty() {
            if self.length == 0 {
                self.begin(quote == 1, out);
            }
            // One for the line feed.
            let room = self.settings.limit.saturating_sub(self.length + quote + 1);
            let (now, later) = text.split_at(room.min(text.len()));
            self.put(now, out);
            text = later;
            if !text.is_empty() {
                self.close(out);
            }
        }
    }

    /// Begins a line with its head.
    fn begin(&mut self, quote: bool, out: &mut Vec<u8>) {
        if !self.quotes() {
            return;
        }
        let mut head = Vec::with_capacity(128);
        write_head(&mut head, self.settings, Level::Warning, Location::caller());
        let source = self.source.map_or("", Source::name);
        head.extend_from_slice(
            format!(
                "[pool {}] child {} said into {source}: ",
                self.pool, self.pid
            )
            .as_bytes(),
        );
        if quote {
            head.push(b'"');
        }
        self.put(&head, out);
    }

    fn finish_with(&mut self, suffix: &[u8], out: &mut Vec<u8>) {
        if self.length == 0 {
            return;
        }
        let suffix = if self.quotes() { suffix } else { b"" };
        let quote = usize::from(self.quotes());
        let room = self.settings.limit.saturating_sub(self.length + quote + 1);
        let (now, later) = suffix.split_at(room.min(suffix.len()));
        if self.quotes() {
            self.put(b"\"", out);
        }
        self.put(now, out);
        self.put(b"\n", out);
        self.release(out);
        if !later.is_empty() {
            self.begin(false, out);
            self.put(later, out);
            self.put(b"\n", out);
            self.release(out);
        }
    }

    /// Ends a line that goes on in another one.
    fn close(&mut self, out: &mut Vec<u8>) {
        if self.quotes() {
            self.put(b"\"", out);
        }
        self.put(b"\n", out);
        self.release(out);
    }

    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.length += bytes.len();
        if self.settings.buffering || self.settings.syslog {
            self.line.extend_from_slice(bytes);
        } else {
            out.extend_from_slice(bytes);
        }
    }

    fn release(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.line);
        self.length = 0;
    }

    /// Whether lines have head and quotation marks.
    fn quotes(&self) -> bool {
        self.decorate && self.settings.level <= Level::Warning
    }
}

const CLOSED: &[u8] = b", pipe is closed";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Source::{Stderr, Stdout};
    use super::*;

    const SETTINGS: Settings = Settings {
        level: Level::Notice,
        limit: 1024,
        buffering: true,
        syslog: false,
    };

    fn decorated(limit: usize) -> WorkerOutput {
        WorkerOutput::new(Settings { limit, ..SETTINGS }, "www", 123, true)
    }

    fn plain() -> WorkerOutput {
        WorkerOutput::new(SETTINGS, "www", 123, false)
    }

    /// What comes out for what goes in, piece by piece; lines without their time.
    fn lines(output: &mut WorkerOutput, pieces: &[(Source, &[u8])]) -> Vec<String> {
        let mut out = Vec::new();
        for (source, piece) in pieces {
            output.feed(*source, piece, &mut out);
        }
        split(output, &out)
    }

    fn split(output: &WorkerOutput, out: &[u8]) -> Vec<String> {
        let text = String::from_utf8_lossy(out);
        let time = if output.quotes() && !output.settings.syslog {
            "[24-Nov-2026 21:30:00] ".len()
        } else {
            0
        };
        text.split_terminator('\n')
            .map(|line| line.split_at(time).1.to_owned())
            .collect()
    }

    const HEAD: &str = "WARNING: [pool www] child 123 said into stderr: ";

    #[test]
    fn each_line_is_quoted_and_the_last_one_waits_for_its_end() {
        let mut output = decorated(1024);
        let said = lines(&mut output, &[(Stderr, b"msg 1\nmsg 2\n\nmsg 3")]);
        assert_eq!(
            said,
            [format!("{HEAD}\"msg 1\""), format!("{HEAD}\"msg 2\"")]
        );
        assert_eq!(
            lines(&mut output, &[(Stderr, FLUSH)]),
            [format!("{HEAD}\"msg 3\"")]
        );
        assert!(lines(&mut output, &[(Stderr, FLUSH)]).is_empty());
    }

    #[test]
    fn pieces_of_a_request_are_one_line() {
        let mut output = decorated(1024);
        let said = lines(
            &mut output,
            &[
                (Stderr, b"msg 1 - "),
                (Stderr, b"msg 2 - "),
                (Stderr, b"msg 3"),
                (Stderr, FLUSH),
            ],
        );
        assert_eq!(said, [format!("{HEAD}\"msg 1 - msg 2 - msg 3\"")]);
    }

    #[test]
    fn other_stream_begins_another_line() {
        let mut output = decorated(1024);
        let said = lines(
            &mut output,
            &[
                (Stdout, b"msg 1 - "),
                (Stderr, b"msg 2 - "),
                (Stderr, b"msg 3"),
                (Stderr, FLUSH),
            ],
        );
        let stdout = HEAD.replace("stderr", "stdout");
        assert_eq!(
            said,
            [
                format!("{stdout}\"msg 1 - \""),
                format!("{HEAD}\"msg 2 - msg 3\"")
            ]
        );
    }

    #[test]
    fn long_line_is_wrapped_at_the_limit_whatever_the_buffering() {
        // log-bwd-limit-1050-msg-2900.phpt and log-dwd-limit-1050-msg-2900.phpt
        for buffering in [true, false] {
            let mut output = decorated(1050);
            output.settings.buffering = buffering;
            let mut out = Vec::new();
            output.feed(Stderr, &[b'a'; 2900], &mut out);
            output.feed(Stderr, b"\n", &mut out);
            let text = String::from_utf8(out).expect("valid UTF-8");
            let all: Vec<&str> = text.split_inclusive('\n').collect();
            let lengths: Vec<usize> = all.iter().map(|line| line.len()).collect();
            let head = "[24-Nov-2026 21:30:00] ".len() + HEAD.len();
            let per_line = 1050 - head - 3;
            assert_eq!(
                lengths,
                [1050, 1050, 2900 - 2 * per_line + head + 3],
                "{buffering}"
            );
            let said: String = split(&output, text.as_bytes())
                .iter()
                .map(|line| {
                    let text = line.strip_prefix(HEAD).expect("a head");
                    text.trim_matches('"').to_owned()
                })
                .collect();
            assert_eq!(said, "a".repeat(2900));
        }
    }

    #[test]
    fn undecorated_lines_are_wrapped_at_the_limit_too() {
        // log-bwp-realloc-buffer.phpt
        let mut output = plain();
        let said = lines(
            &mut output,
            &[
                (Stderr, &[b'a'; 100]),
                (Stderr, &[b'b'; 2500]),
                (Stderr, b"\n"),
            ],
        );
        let expected = [
            "a".repeat(100) + &"b".repeat(923),
            "b".repeat(1023),
            "b".repeat(554),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn line_of_exactly_the_limit_is_one_line() {
        let mut output = plain();
        assert_eq!(
            lines(&mut output, &[(Stderr, &[b'a'; 1023]), (Stderr, b"\n")]),
            ["a".repeat(1023)]
        );
        assert_eq!(
            lines(&mut output, &[(Stderr, &[b'a'; 1024]), (Stderr, b"\n")]),
            ["a".repeat(1023), "a".to_owned()]
        );
    }

    #[test]
    fn flush_is_found_wherever_reads_split_it() {
        // log-bwp-msg-flush-split-*.phpt
        let said = b"Quarkslab\0fscf\0Quarkslab\n";
        for at in 0..said.len() {
            let (first, second) = said.split_at(at);
            let mut output = plain();
            let found = lines(&mut output, &[(Stderr, first), (Stderr, second)]);
            assert_eq!(found, ["Quarkslab", "Quarkslab"], "split at {at}");
        }
    }

    #[test]
    fn what_only_begins_like_a_flush_is_text() {
        for said in ["a\0fabc", "\0\0fscx", "\0fscf", "\0fsc\0fscf", "a\0"] {
            for at in 0..said.len() {
                let (first, second) = said.as_bytes().split_at(at);
                let pieces: [(_, &[u8]); 3] = [(Stderr, first), (Stderr, second), (Stderr, b"\n")];
                assert_eq!(lines(&mut plain(), &pieces), [said], "split at {at}");
            }
        }
    }

    #[test]
    fn two_nuls_before_a_flush_leave_one() {
        assert_eq!(
            lines(&mut plain(), &[(Stderr, b"a\0\0fscf\0b\n")]),
            ["a\0", "b"]
        );
    }

    #[test]
    fn unbuffered_line_is_written_as_it_comes() {
        let mut output = decorated(1024);
        output.settings.buffering = false;
        let mut out = Vec::new();
        output.feed(Stderr, b"one, ", &mut out);
        assert_eq!(split(&output, &out), [format!("{HEAD}\"one, ")]);
        output.feed(Stderr, b"two\n", &mut out);
        assert_eq!(split(&output, &out), [format!("{HEAD}\"one, two\"")]);
    }

    #[test]
    fn process_that_ends_while_it_first_speaks_has_closed_its_pipe() {
        let mut output = decorated(1024);
        let mut out = Vec::new();
        output.feed(Stderr, b"no line feed", &mut out);
        output.end(Stderr, true, &mut out);
        assert_eq!(
            split(&output, &out),
            [format!("{HEAD}\"no line feed\", pipe is closed")]
        );
    }

    #[test]
    fn suffix_that_does_not_fit_goes_on_in_another_line() {
        let mut output = decorated(1024);
        let text = 1023 - "[24-Nov-2026 21:30:00] ".len() - HEAD.len() - 2 - 6;
        let mut out = Vec::new();
        output.feed(Stderr, &vec![b'x'; text], &mut out);
        output.end(Stderr, true, &mut out);
        let said = split(&output, &out);
        assert!(said[0].ends_with("x\", pipe"), "{said:?}");
        assert_eq!(said[1], format!("{HEAD} is closed"));
        assert_eq!(
            out.split_inclusive(|byte| *byte == b'\n')
                .map(<[u8]>::len)
                .max(),
            Some(1024)
        );
    }

    #[test]
    fn unfinished_line_of_a_process_that_had_spoken_ends_with_it() {
        let mut output = decorated(1024);
        let mut out = Vec::new();
        output.feed(Stderr, b"last words\0f", &mut out);
        output.end(Stderr, false, &mut out);
        assert!(out.is_empty());
        output.finish(&mut out);
        assert_eq!(split(&output, &out), [format!("{HEAD}\"last words\0f\"")]);
    }

    #[test]
    fn above_its_level_there_is_only_text() {
        let settings = Settings {
            level: Level::Error,
            ..SETTINGS
        };
        let mut output = WorkerOutput::new(settings, "www", 123, true);
        assert_eq!(lines(&mut output, &[(Stderr, b"text\n")]), ["text"]);
    }

    #[test]
    fn long_pool_name_leaves_room_for_text() {
        let name = "p".repeat(600);
        let settings = Settings {
            limit: 512,
            ..SETTINGS
        };
        let mut output = WorkerOutput::new(settings, &name, 123, true);
        assert_eq!(lines(&mut output, &[(Stderr, b"text\n")]), ["text"]);
    }

    proptest! {
        #[test]
        fn no_line_exceeds_the_limit_and_no_byte_is_lost(
            pieces in prop::collection::vec("[a-z\0\n]{0,700}", 0..8),
            limit in 512usize..2000,
            buffering: bool,
            decorate: bool,
        ) {
            let settings = Settings { limit, buffering, ..SETTINGS };
            let mut output = WorkerOutput::new(settings, "www", 1, decorate);
            let mut out = Vec::new();
            for piece in &pieces {
                output.feed(Stderr, piece.as_bytes(), &mut out);
            }
            output.end(Stderr, false, &mut out);
            output.finish(&mut out);
            prop_assert!(out.split_inclusive(|byte| *byte == b'\n').all(|line| line.len() <= limit));
            let said: String = split(&output, &out)
                .iter()
                .map(|line| line.rsplit_once("stderr: ").map_or(line.as_str(), |(_, text)| text).replace('"', ""))
                .collect();
            prop_assert_eq!(said, pieces.concat().replace('\n', ""));
        }
    }
}
