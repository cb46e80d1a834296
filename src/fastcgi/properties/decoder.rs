//! Properties of the record decoder.

use super::{Choices, Cutter, LONGEST, pairs, record};
use crate::fastcgi::record::Record;
use crate::fastcgi::{
    Decoder, DecoderLimits, Event, FastcgiError, HEADER_LEN, MAX_CONTENT, RecordType, Role, encoder,
};
use crate::request::Variables;

/// An [`Event`] that can be kept and compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Begin(u16),
    Request(u16, Role, bool, Vec<(Vec<u8>, Vec<u8>)>),
    Stdin(u16, Vec<u8>),
    StdinEnd(u16),
    Abort(u16),
    GetValues(Vec<Vec<u8>>),
    UnknownType(u8),
    UnknownRole(u16, bool, u16),
    TooManyRequests(u16, bool),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Begin { id, .. } => Self::Begin(id),
            Event::Request {
                id,
                role,
                keep_conn,
                variables,
            } => Self::Request(id, role, keep_conn, pairs(&variables)),
            Event::Stdin { id, data } => Self::Stdin(id, data.to_vec()),
            Event::StdinEnd { id } => Self::StdinEnd(id),
            Event::Abort { id } => Self::Abort(id),
            Event::GetValues { names } => Self::GetValues(names),
            Event::UnknownType { kind } => Self::UnknownType(kind),
            Event::UnknownRole {
                id,
                keep_conn,
                role,
            } => Self::UnknownRole(id, keep_conn, role),
            Event::TooManyRequests { id, keep_conn } => Self::TooManyRequests(id, keep_conn),
        }
    }
}

/// The record decoder: the same events and errors however the input is cut, also when another decoder goes on from
/// [`Decoder::replay_partial`]; the events follow the states in [`Decoder`]'s documentation; and what the encoder makes
/// of a request is the same request.
///
/// The first byte says how the rest is read: as it is, or as choices of records.
pub fn decoder(data: &[u8]) {
    let mut choices = Choices::new(data);
    let shape = choices.byte();
    let ends = choices.byte();
    let seed = choices.byte();
    let limits = if shape & 2 == 0 {
        DecoderLimits {
            params_size: 1 << 20,
            params_count: 100,
            requests: 8,
        }
    } else {
        DecoderLimits {
            params_size: 40,
            params_count: 3,
            requests: 2,
        }
    };
    let wire = if shape & 1 == 0 {
        choices.take(usize::MAX).to_vec()
    } else {
        any_records(&mut choices)
    };

    let mut whole = Receiver::new(limits, ends);
    let left = whole.feed(&wire);
    whole.check_requests();

    let mut cutter = Cutter::new(seed);
    let mut cut = Receiver::new(limits, ends);
    let mut start = 0;
    let mut end = 0;
    while cut.error.is_none() && end < wire.len() {
        end = cutter.piece(end, wire.len());
        start = end - cut.feed(&wire[start..end]);
        if cutter.below(2) == 0 {
            cut.replay();
        }
    }
    assert_eq!(cut.seen, whole.seen);
    assert_eq!(cut.error, whole.error);
    if cut.error.is_none() {
        assert_eq!(end - start, left, "bytes left over");
    }
}

/// A decoder, what came out of it, and which requests should be open in it.
struct Receiver {
    limits: DecoderLimits,
    decoder: Decoder,
    /// Which requests are ended as soon as they may be.
    ends: u8,
    seen: Vec<Seen>,
    open: Vec<(u16, Stage)>,
    error: Option<FastcgiError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Params,
    Stdin(Role),
    Ended,
}

impl Receiver {
    fn new(limits: DecoderLimits, ends: u8) -> Self {
        Self {
            limits,
            decoder: Decoder::new(limits),
            ends,
            seen: Vec::new(),
            open: Vec::new(),
            error: None,
        }
    }

    /// Decodes all of it; answers how many bytes are left.
    fn feed(&mut self, mut input: &[u8]) -> usize {
        loop {
            let event = match self.decoder.decode(&mut input) {
                Ok(Some(event)) => Seen::from(event),
                Ok(None) => break,
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            };
            if let Some(id) = self.follow(&event)
                && self.ends >> (self.seen.len() % 8) & 1 == 1
            {
                self.decoder.end_request(id);
                self.open.retain(|(open, _)| *open != id);
            }
            self.seen.push(event);
            assert_eq!(self.decoder.is_idle(), self.open.is_empty());
        }
        if self.error.is_none() {
            assert_eq!(Record::peek(input), Ok(None), "a whole record is left");
            assert!(input.len() < HEADER_LEN + MAX_CONTENT + 255);
        }
        input.len()
    }

    /// Checks that an event may come now; answers the request that may be ended at it.
    fn follow(&mut self, event: &Seen) -> Option<u16> {
        let limits = self.limits;
        let full = self.open.len() >= limits.requests;
        match event {
            Seen::Begin(id) => {
                assert!(self.stage(*id).is_none() && !full && *id != 0);
                self.open.push((*id, Stage::Params));
                None
            }
            Seen::Request(id, role, _, pairs) => {
                let stage = self.stage(*id).expect("a request that has begun");
                assert_eq!(*stage, Stage::Params);
                *stage = Stage::Stdin(*role);
                assert_eq!(pairs[0].0, b"FCGI_ROLE");
                assert!(pairs.len() <= limits.params_count + 1);
                let size: usize = pairs[1..].iter().map(|(n, v)| n.len() + v.len()).sum();
                assert!(size <= limits.params_size);
                // An Authorizer's end of stdin follows by itself.
                (*role == Role::Responder).then_some(*id)
            }
            Seen::Stdin(id, data) => {
                assert_eq!(
                    self.stage(*id).copied(),
                    Some(Stage::Stdin(Role::Responder))
                );
                assert!(!data.is_empty());
                Some(*id)
            }
            Seen::StdinEnd(id) => {
                let stage = self.stage(*id).expect("a request that has begun");
                assert!(matches!(stage, Stage::Stdin(_)));
                *stage = Stage::Ended;
                Some(*id)
            }
            Seen::Abort(id) => {
                let stage = *self.stage(*id).expect("a request that is open");
                if stage == Stage::Params {
                    self.open.retain(|(open, _)| open != id);
                    return None;
                }
                Some(*id)
            }
            Seen::GetValues(names) => {
                assert!(names.len() <= limits.params_count);
                None
            }
            Seen::UnknownType(kind) => {
                assert_eq!(RecordType::from_code(*kind), None);
                None
            }
            Seen::UnknownRole(id, _, role) => {
                assert!(self.stage(*id).is_none() && !(1..=2).contains(role));
                None
            }
            Seen::TooManyRequests(id, _) => {
                assert!(self.stage(*id).is_none() && full);
                None
            }
        }
    }

    fn stage(&mut self, id: u16) -> Option<&mut Stage> {
        let mut open = self.open.iter_mut();
        open.find(|(open, _)| *open == id).map(|(_, stage)| stage)
    }

    /// Lets another decoder go on, as in a hand-over, when that is possible.
    fn replay(&mut self) {
        if self.error.is_some() || self.open.iter().any(|(_, stage)| *stage != Stage::Params) {
            return;
        }
        let mut bytes = Vec::new();
        self.decoder.replay_partial(&mut bytes);
        let mut other = Decoder::new(self.limits);
        let mut input = bytes.as_slice();
        let mut begun = Vec::new();
        while let Some(event) = other.decode(&mut input).expect("valid records") {
            let Event::Begin { id, .. } = event else {
                panic!("a replay of incomplete params gave {event:?}");
            };
            begun.push((id, Stage::Params));
        }
        assert!(input.is_empty());
        begun.sort_unstable_by_key(|(id, _)| *id);
        self.open.sort_unstable_by_key(|(id, _)| *id);
        assert_eq!(begun, self.open);
        let mut again = Vec::new();
        other.replay_partial(&mut again);
        assert_eq!(again, bytes);
        self.decoder = other;
    }

    /// Encodes each request and decodes it again.
    fn check_requests(&self) {
        for event in &self.seen {
            let Seen::Request(id, role, keep_conn, pairs) = event else {
                continue;
            };
            let mut variables = Variables::new();
            for (name, value) in pairs {
                variables.push(name, value);
            }
            let mut wire = Vec::new();
            encoder::push_begin_request(&mut wire, *id, *role, *keep_conn);
            encoder::push_params(&mut wire, *id, &variables);
            let mut decoder = Decoder::new(self.limits);
            let mut input = wire.as_slice();
            let mut seen = Vec::new();
            while let Some(event) = decoder.decode(&mut input).expect("valid records") {
                seen.push(Seen::from(event));
            }
            assert!(input.is_empty());
            assert_eq!(seen[..2], [Seen::Begin(*id), event.clone()]);
            let end: &[Seen] = match role {
                Role::Authorizer => &[Seen::StdinEnd(*id)],
                _ => &[],
            };
            assert_eq!(&seen[2..], end);
        }
    }
}

/// Records of any kind in any order; ids are few, so that they meet.
pub(crate) fn any_records(choices: &mut Choices<'_>) -> Vec<u8> {
    const KINDS: [u8; 16] = [1, 1, 4, 4, 4, 5, 5, 2, 9, 8, 0, 3, 6, 10, 11, 12];
    let mut wire = Vec::new();
    while !choices.is_empty() && wire.len() < LONGEST {
        let choice = choices.byte();
        let kind = KINDS[usize::from(choice & 15)];
        let id = match (kind, choice >> 4 & 3) {
            (0 | 9..=12, 0) => 0,
            (_, 3) => u16::from(choices.byte()),
            (_, few) => u16::from(few) + 1,
        };
        let content = if kind == 1 && choice < 0xc0 {
            let (role, flags) = ([1, 1, 2, 3][usize::from(choice >> 6)], choices.byte());
            vec![0, role, flags, 0, 0, 0, 0, 0]
        } else {
            choices.content()
        };
        wire.extend(record(kind, id, &content, choices.byte()));
    }
    wire
}
