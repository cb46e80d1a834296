//! A request as the client means it, and the script that runs for it.

use std::collections::VecDeque;
use std::io::Read;

use crate::fastcgi::ProtocolStatus;
use crate::fastcgi::properties::{Choices, record};
use crate::request::Body;
use crate::server::exchange::{FastcgiSink, NoAccount};

/// What the server knows once it has a record.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    Begin,
    Params,
    ParamsEnd,
    Stdin(usize),
    StdinEnd,
    Abort,
    Nothing,
}

pub(super) struct Request {
    pub(super) id: u16,
    pub(super) role: u8,
    pub(super) keep_conn: bool,
    pub(super) params: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) body: Vec<u8>,
    /// CONTENT_LENGTH, when it is a number.
    pub(super) declared: Option<usize>,
    pub(super) bodiless: bool,
    pub(super) unsent: VecDeque<(Vec<u8>, Effect)>,

    // What the server knows.
    pub(super) begun: bool,
    pub(super) params_ended: bool,
    pub(super) stdin: usize,
    pub(super) stdin_ended: bool,
    pub(super) aborted: bool,
    /// The end that the server has to answer with at once.
    pub(super) refusal: Option<ProtocolStatus>,

    // What it has done.
    /// It is or was a job, and how its body came.
    pub(super) job: Option<Kind>,
    /// The script has ended, so the id is free as soon as more bytes arrive.
    pub(super) answered: bool,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,

    // What the client has received.
    pub(super) seen_stdout: Vec<u8>,
    pub(super) seen_stderr: Vec<u8>,
    pub(super) end: Option<ProtocolStatus>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Whole,
    Stream,
}

/// A request that runs.
pub(super) struct Script {
    pub(super) request: usize,
    pub(super) sink: FastcgiSink<NoAccount>,
    pub(super) body: Body,
    pub(super) read: usize,
    /// After fastcgi_finish_request().
    pub(super) finished: bool,
}

impl Request {
    /// A request of any kind.
    pub(super) fn choose(id: u16, serial: usize, choices: &mut Choices<'_>) -> Self {
        let shape = choices.byte();
        let sizes = choices.byte();
        let role = [1, 1, 1, 1, 1, 1, 2, 3][usize::from(shape & 7)];
        let length = [0, 1, 30, 64, 65, 300, 4200, 70_000][usize::from(sizes & 7)];
        let body: Vec<u8> = (0..length)
            .map(|at| (at * 7 + serial).to_le_bytes()[0])
            .collect();
        let mut params = vec![(b"SERIAL".to_vec(), serial.to_string().into_bytes())];
        let method: &[u8] = [&b"POST"[..], b"GET", b"PUT", b"HEAD"][usize::from(shape >> 3 & 3)];
        if shape < 0xe0 {
            params.push((b"REQUEST_METHOD".to_vec(), method.to_vec()));
        }
        let bodiless = shape >= 0xe0 || matches!(method, b"GET" | b"HEAD");
        let (text, declared) = match sizes >> 3 & 7 {
            0..=2 => (Some(length.to_string()), Some(length)),
            3 => (Some((length + 9).to_string()), Some(length + 9)),
            4 => (Some((length / 2).to_string()), Some(length / 2)),
            5 => (Some("1000000".to_owned()), Some(1_000_000)),
            6 => (Some("many".to_owned()), None),
            _ => (None, None),
        };
        if let Some(text) = text {
            params.push((b"CONTENT_LENGTH".to_vec(), text.into_bytes()));
        }
        for extra in 0..sizes >> 6 {
            let value = vec![b'v'; [3, 127, 128, 70_000][usize::from(shape >> 5 & 3)]];
            params.push((format!("EXTRA_{extra}").into_bytes(), value));
        }

        let mut block = Vec::new();
        for (name, value) in &params {
            for length in [name.len(), value.len()] {
                match u8::try_from(length) {
                    Ok(short @ ..128) if choices.byte() < 200 => block.push(short),
                    _ => {
                        let length = u32::try_from(length).expect("lengths here are small");
                        block.extend((0x8000_0000 | length).to_be_bytes());
                    }
                }
            }
            block.extend_from_slice(name);
            block.extend_from_slice(value);
        }
        let flags = [0, 1, 1, 0xff][usize::from(choices.byte() & 3)];
        let begin = record(1, id, &[0, role, flags, 0, 0, 0, 0, 0], choices.byte());
        let mut unsent = VecDeque::from([(begin, Effect::Begin)]);
        for piece in pieces(&block, choices) {
            unsent.push_back((record(4, id, piece, choices.byte()), Effect::Params));
        }
        unsent.push_back((record(4, id, b"", choices.byte()), Effect::ParamsEnd));
        if role == 1 {
            for piece in pieces(&body, choices) {
                unsent.push_back((
                    record(5, id, piece, choices.byte()),
                    Effect::Stdin(piece.len()),
                ));
            }
            unsent.push_back((record(5, id, b"", choices.byte()), Effect::StdinEnd));
        }
        Self {
            id,
            role,
            keep_conn: flags & 1 == 1,
            params,
            body: if role == 1 { body } else { Vec::new() },
            declared,
            bodiless,
            unsent,
            begun: false,
            params_ended: false,
            stdin: 0,
            stdin_ended: false,
            aborted: false,
            refusal: None,
            job: None,
            answered: false,
            stdout: Vec::new(),
            stderr: Vec::new(),
            seen_stdout: Vec::new(),
            seen_stderr: Vec::new(),
            end: None,
        }
    }

    /// Whether an end may come now, with this status.
    pub(super) fn check_end(&self, status: ProtocolStatus) {
        assert!(self.begun);
        if let Some(refusal) = self.refusal {
            assert_eq!(status, refusal);
            return;
        }
        assert_eq!(status, ProtocolStatus::RequestComplete);
        if self.aborted {
            return;
        }
        assert!(self.answered, "an end before the script's");
        assert!(self.seen_stdout == self.stdout, "stdout is another");
        assert!(self.seen_stderr == self.stderr, "stderr is another");
    }
}

impl Script {
    /// Reads as much of the body as has arrived.
    pub(super) fn read(&mut self, one: &Request, wanted: usize) {
        let Body::Stream(body) = &mut self.body else {
            return;
        };
        let available = one.stdin - self.read;
        if one.aborted || (available == 0 && !one.stdin_ended) {
            return; // it would wait
        }
        let mut bytes = vec![0; wanted.min(available)];
        body.read_exact(&mut bytes)
            .expect("bytes that have arrived");
        let end = self.read + bytes.len();
        assert!(bytes == one.body[self.read..end], "another body");
        self.read = end;
        if one.stdin_ended && self.read == one.stdin {
            assert_eq!(body.read(&mut [0]).expect("the end"), 0);
        }
    }
}

/// Cuts content into pieces for records: a few chosen ones, then the rest.
fn pieces<'a>(content: &'a [u8], choices: &mut Choices<'_>) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = content;
    while !rest.is_empty() {
        let length = match choices.byte() {
            0 => rest.len(),
            length => usize::from(length),
        };
        let (piece, more) = rest.split_at(length.min(rest.len()).min(0xffff));
        pieces.push(piece);
        rest = more;
        if pieces.len() == 6 {
            pieces.extend(rest.chunks(0xffff));
            break;
        }
    }
    pieces
}
