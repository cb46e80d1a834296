//! Whole streams through the decoder: from bytes, from the encoder, cut and interleaved in every way.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::request::Variables;

/// An [`Event`] that can be kept and compared.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
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

fn pairs(variables: &Variables) -> Vec<(Vec<u8>, Vec<u8>)> {
    variables
        .iter()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect()
}

/// What [`Seen::Request`] holds for a responder with these params.
fn responder(id: u16, keep_conn: bool, params: &[(&str, &str)]) -> Seen {
    let pairs = [("FCGI_ROLE", "RESPONDER")].iter().chain(params);
    let pairs = pairs
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect();
    Seen::Request(id, Role::Responder, keep_conn, pairs)
}

const LIMITS: DecoderLimits = DecoderLimits {
    params_size: 1 << 20,
    params_count: 100,
    requests: 8,
};

/// Feeds `wire` in pieces that end at `cuts`, as a connection does: what is left over comes again with the next piece.
fn decode(
    decoder: &mut Decoder,
    wire: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> Result<Vec<Seen>, FastcgiError> {
    let mut seen = Vec::new();
    let mut start = 0;
    for end in cuts.into_iter().chain([wire.len()]) {
        let mut input = &wire[start..end];
        while let Some(event) = decoder.decode(&mut input)? {
            seen.push(event.into());
        }
        start = end - input.len();
    }
    Ok(seen)
}

fn decode_all(wire: &[u8]) -> Result<Vec<Seen>, FastcgiError> {
    decode(&mut Decoder::new(LIMITS), wire, [])
}

/// A record in bytes, without a use of the encoder.
fn record(kind: u8, id: u16, content: &[u8], padding: u8) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let id = id.to_be_bytes();
    let mut wire = vec![1, kind, id[0], id[1], length[0], length[1], padding, 0xee];
    wire.extend_from_slice(content);
    wire.resize(wire.len() + usize::from(padding), 0xdd);
    wire
}

fn begin(id: u16, role: u8, flags: u8) -> Vec<u8> {
    record(1, id, &[0, role, flags, 0, 0, 0, 0, 0], 0)
}

/// Valid streams and what they mean.
fn streams() -> Vec<(&'static str, Vec<u8>, Vec<Seen>)> {
    let long = "v".repeat(200);
    let mut long_pair = vec![0x80, 0, 0, 1, 0x80, 0, 0, 200, b'L'];
    long_pair.extend_from_slice(long.as_bytes());
    vec![
        (
            "as nginx sends a GET",
            [
                begin(1, 1, 0),
                record(4, 1, b"\x01\x02abc", 3),
                record(4, 1, b"", 0),
                record(5, 1, b"", 0),
            ]
            .concat(),
            vec![
                Seen::Begin(1),
                responder(1, false, &[("a", "bc")]),
                Seen::StdinEnd(1),
            ],
        ),
        (
            "no params, a body in two pieces, most padding",
            [
                begin(0xffff, 1, 0xff),
                record(4, 0xffff, b"", 255),
                record(5, 0xffff, b"one", 255),
                record(5, 0xffff, b"two", 0),
                record(5, 0xffff, b"", 255),
            ]
            .concat(),
            vec![
                Seen::Begin(0xffff),
                responder(0xffff, true, &[]),
                Seen::Stdin(0xffff, b"one".to_vec()),
                Seen::Stdin(0xffff, b"two".to_vec()),
                Seen::StdinEnd(0xffff),
            ],
        ),
        (
            "pairs split over records, in the lengths too; empty names and values; names that come twice",
            [
                begin(3, 1, 1),
                record(4, 3, &long_pair[..2], 0),
                record(4, 3, &long_pair[2..6], 1),
                record(4, 3, &long_pair[6..50], 2),
                record(
                    4,
                    3,
                    &[&long_pair[50..], b"\x00\x00\x00\x01e\x02"].concat(),
                    0,
                ),
                record(4, 3, b"\x00nn\x01\x01L2", 0),
                record(4, 3, b"", 0),
            ]
            .concat(),
            vec![
                Seen::Begin(3),
                responder(
                    3,
                    true,
                    &[("L", &long), ("", ""), ("", "e"), ("nn", ""), ("L", "2")],
                ),
            ],
        ),
        (
            "interleaved",
            [
                begin(1, 1, 1),
                begin(2, 1, 1),
                record(4, 2, b"\x01\x01", 0),
                record(4, 1, b"\x01\x01x", 0),
                record(9, 0, b"\x01\x00q", 5),
                record(4, 1, b"1", 0),
                record(4, 2, b"y2", 0),
                record(4, 2, b"", 0),
                record(5, 2, b"body", 0),
                record(4, 1, b"", 0),
                record(5, 1, b"", 0),
                record(5, 2, b"", 0),
            ]
            .concat(),
            vec![
                Seen::Begin(1),
                Seen::Begin(2),
                Seen::GetValues(vec![b"q".to_vec()]),
                responder(2, true, &[("y", "2")]),
                Seen::Stdin(2, b"body".to_vec()),
                responder(1, true, &[("x", "1")]),
                Seen::StdinEnd(1),
                Seen::StdinEnd(2),
            ],
        ),
        (
            "an authorizer, which has no body, and the empty one that some send",
            [
                begin(1, 2, 0),
                record(4, 1, b"\x01\x01ab", 0),
                record(4, 1, b"", 0),
                record(5, 1, b"", 0),
            ]
            .concat(),
            vec![
                Seen::Begin(1),
                Seen::Request(
                    1,
                    Role::Authorizer,
                    false,
                    vec![
                        (b"FCGI_ROLE".to_vec(), b"AUTHORIZER".to_vec()),
                        (b"a".to_vec(), b"b".to_vec()),
                    ],
                ),
                Seen::StdinEnd(1),
            ],
        ),
        (
            "params that an empty stdin ends",
            [
                begin(1, 1, 0),
                record(4, 1, b"\x01\x01ab", 0),
                record(5, 1, b"", 0),
            ]
            .concat(),
            vec![
                Seen::Begin(1),
                responder(1, false, &[("a", "b")]),
                Seen::StdinEnd(1),
            ],
        ),
        (
            "records of requests that are not open",
            [
                record(5, 1, b"", 0),
                record(4, 7, b"late", 0),
                record(2, 7, b"", 0),
                record(6, 7, b"wrong direction", 0),
                record(99, 7, b"unknown", 0),
                begin(1, 1, 0),
                record(4, 1, b"", 0),
                record(4, 1, b"", 0),
                record(8, 1, b"data of a filter", 0),
                record(5, 1, b"", 0),
                record(5, 1, b"", 0),
                record(4, 1, b"", 0),
            ]
            .concat(),
            vec![Seen::Begin(1), responder(1, false, &[]), Seen::StdinEnd(1)],
        ),
        (
            "what is answered by the caller",
            [
                record(9, 0, b"\x00\x00\x03\x02abcde", 0),
                record(9, 0, b"", 0),
                record(0, 0, b"?", 0),
                record(10, 0, b"?", 0),
                record(11, 0, b"?", 0),
                begin(5, 3, 1),
                record(4, 5, b"ignored", 0),
                record(1, 6, &[1, 1, 0, 0, 0, 0, 0, 0], 0),
                begin(7, 1, 0),
                record(12, 7, b"?", 0),
            ]
            .concat(),
            vec![
                Seen::GetValues(vec![b"".to_vec(), b"abc".to_vec()]),
                Seen::GetValues(vec![]),
                Seen::UnknownType(0),
                Seen::UnknownRole(5, true, 3),
                Seen::UnknownRole(6, false, 0x0101),
                Seen::Begin(7),
                Seen::UnknownType(12),
            ],
        ),
        (
            "aborts",
            [
                begin(1, 1, 1),
                record(4, 1, b"\x05", 0),
                record(2, 1, b"", 0),
                record(4, 1, b"late", 0),
                record(2, 1, b"", 0),
                begin(1, 1, 1),
                record(4, 1, b"", 0),
                record(2, 1, b"", 0),
                record(5, 1, b"late", 0),
            ]
            .concat(),
            vec![
                Seen::Begin(1),
                Seen::Abort(1),
                Seen::Begin(1),
                responder(1, true, &[]),
                Seen::Abort(1),
                Seen::Stdin(1, b"late".to_vec()),
            ],
        ),
    ]
}

#[test]
fn every_split_point_gives_the_same_events() {
    for (name, wire, events) in streams() {
        for cut in 0..=wire.len() {
            let mut decoder = Decoder::new(LIMITS);
            assert_eq!(
                decode(&mut decoder, &wire, [cut]).as_ref(),
                Ok(&events),
                "{name}, cut at {cut}"
            );
        }
        let mut decoder = Decoder::new(LIMITS);
        assert_eq!(
            decode(&mut decoder, &wire, 0..wire.len()),
            Ok(events),
            "{name}, byte by byte"
        );
    }
}

#[test]
fn a_replay_at_every_split_point_gives_the_same_requests() {
    for (name, wire, events) in streams() {
        for cut in 0..=wire.len() {
            let mut old = Decoder::new(LIMITS);
            let mut input = &wire[..cut];
            let mut seen: Vec<Seen> = Vec::new();
            while let Some(event) = old.decode(&mut input).unwrap() {
                seen.push(event.into());
            }
            if seen.iter().any(|event| matches!(event, Seen::Request(..))) {
                continue; // such a connection is not handed on, or in another way
            }
            let rest = cut - input.len();
            let mut handover = Vec::new();
            old.replay_partial(&mut handover);
            handover.extend_from_slice(&wire[rest..]);
            let again = decode_all(&handover).unwrap();
            seen.extend(again);
            seen.retain(|event| !matches!(event, Seen::Begin(_)));
            let mut events = events.clone();
            events.retain(|event| !matches!(event, Seen::Begin(_)));
            assert_eq!(seen, events, "{name}, handed on at {cut}");
        }
    }
}

#[test]
fn an_id_is_free_after_its_end() {
    let request = [begin(1, 1, 1), record(4, 1, b"", 0)].concat();
    let mut decoder = Decoder::new(LIMITS);
    assert!(decoder.is_idle());
    decode(&mut decoder, &request, []).unwrap();
    assert!(!decoder.is_idle());
    decoder.end_request(1);
    assert!(decoder.is_idle());
    // The rest of a body that the script did not read.
    assert_eq!(
        decode(&mut decoder, &record(5, 1, b"late", 0), []),
        Ok(vec![])
    );
    assert_eq!(decode(&mut decoder, &record(5, 1, b"", 0), []), Ok(vec![]));
    assert_eq!(
        decode(&mut decoder, &request, []),
        Ok(vec![Seen::Begin(1), responder(1, true, &[])])
    );
    decoder.end_request(2);
    assert!(!decoder.is_idle());
}

#[test]
fn an_authorizer_ended_at_its_request_leaves_nothing_behind() {
    let wire = [begin(1, 2, 1), record(4, 1, b"", 0), begin(1, 1, 1)].concat();
    let mut decoder = Decoder::new(LIMITS);
    let mut input = &wire[..];
    while !matches!(decoder.decode(&mut input), Ok(Some(Event::Request { .. }))) {}
    decoder.end_request(1);
    assert!(matches!(
        decoder.decode(&mut input),
        Ok(Some(Event::Begin { id: 1, .. }))
    ));
}

#[test]
fn one_request_too_many() {
    let limits = DecoderLimits {
        requests: 1,
        ..LIMITS
    };
    let mut decoder = Decoder::new(limits);
    let wire = [
        begin(1, 1, 1),
        begin(2, 1, 1),
        record(4, 2, b"ignored", 0),
        record(4, 1, b"", 0),
    ]
    .concat();
    assert_eq!(
        decode(&mut decoder, &wire, []),
        Ok(vec![
            Seen::Begin(1),
            Seen::TooManyRequests(2, true),
            responder(1, true, &[])
        ])
    );
    decoder.end_request(1);
    assert_eq!(
        decode(&mut decoder, &begin(2, 1, 0), []),
        Ok(vec![Seen::Begin(2)])
    );
}

#[test]
fn limits_are_the_last_allowed_value() {
    let limits = DecoderLimits {
        params_size: 8,
        params_count: 2,
        requests: 1,
    };
    let decode = |content: &[&[u8]]| {
        let mut wire = begin(1, 1, 0);
        for content in content.iter().chain([&&b""[..]]) {
            wire.extend(record(4, 1, content, 0));
        }
        decode(&mut Decoder::new(limits), &wire, []).map(|seen| seen.len())
    };
    assert_eq!(decode(&[b"\x03\x03abcdef"]), Ok(2));
    assert_eq!(decode(&[b"\x01\x01ab\x01", b"\x01cd"]), Ok(2));
    let too_large = Err(FastcgiError::ParamsTooLarge { id: 1, limit: 8 });
    assert_eq!(decode(&[b"\x03\x04abcdefg"]), too_large);
    assert_eq!(decode(&[b"\x03\x03abcde", b"fg"]), too_large);
    assert_eq!(
        decode(&[&[0; 6]]),
        Err(FastcgiError::TooManyParams { id: 1, limit: 2 })
    );
    let message = decode(&[&[0; 9]]).unwrap_err().to_string();
    assert!(
        message.contains("8 bytes") && message.contains("--params-size"),
        "{message}"
    );
    let message = decode(&[&[0; 8]]).unwrap_err().to_string();
    assert!(
        message.contains("2 name-value pairs") && message.contains("--params-count"),
        "{message}"
    );
}

#[test]
fn errors() {
    let open = [begin(1, 1, 0), record(4, 1, b"", 0)].concat();
    let ended = [&open[..], &record(5, 1, b"", 0)].concat();
    let error = |prefix: &[u8], last: Vec<u8>| decode_all(&[prefix, &last].concat()).unwrap_err();

    assert_eq!(
        error(b"", b"GET / HTTP/1.1\r\n".to_vec()),
        FastcgiError::Version { found: b'G' }
    );
    assert_eq!(error(&open, vec![2]), FastcgiError::Version { found: 2 });
    for kind in 1..=8 {
        assert_eq!(
            error(b"", record(kind, 0, &[0; 8], 0)),
            FastcgiError::NullRequestId { kind }
        );
    }
    for length in [0, 7, 9] {
        assert_eq!(
            error(b"", record(1, 1, &vec![0; length], 0)),
            FastcgiError::BeginLength { id: 1, length }
        );
    }
    assert_eq!(
        error(&open, begin(1, 1, 0)),
        FastcgiError::AlreadyOpen { id: 1 }
    );
    assert_eq!(
        error(&begin(1, 1, 0), begin(1, 1, 0)),
        FastcgiError::AlreadyOpen { id: 1 }
    );
    let cut = [begin(1, 1, 0), record(4, 1, b"\x01\x02ab", 0)].concat();
    assert_eq!(
        error(&cut, record(4, 1, b"", 0)),
        FastcgiError::ParamsMalformed { id: 1 }
    );
    assert_eq!(
        error(&cut, record(5, 1, b"", 0)),
        FastcgiError::ParamsMalformed { id: 1 }
    );
    assert_eq!(
        error(&open, record(4, 1, b"a", 0)),
        FastcgiError::ParamsAfterEnd { id: 1 }
    );
    assert_eq!(
        error(&ended, record(4, 1, b"a", 0)),
        FastcgiError::ParamsAfterEnd { id: 1 }
    );
    assert_eq!(
        error(&begin(1, 1, 0), record(5, 1, b"a", 0)),
        FastcgiError::StdinBeforeParamsEnd { id: 1 }
    );
    assert_eq!(
        error(&ended, record(5, 1, b"a", 0)),
        FastcgiError::StdinAfterEnd { id: 1 }
    );
    for kind in [3, 6, 7] {
        assert_eq!(
            error(&open, record(kind, 1, b"", 0)),
            FastcgiError::WrongDirection { id: 1, kind }
        );
    }
    assert_eq!(
        error(b"", record(9, 0, b"\x05", 0)),
        FastcgiError::ValuesMalformed { kind: 9 }
    );
    assert_eq!(
        error(b"", record(9, 0, &[0; 202], 0)),
        FastcgiError::TooManyValues { limit: 100 }
    );
}

/// One request of a random conversation.
#[derive(Debug, Clone)]
struct Conversation {
    keep_conn: bool,
    params: Vec<(Vec<u8>, Vec<u8>)>,
    params_cuts: Vec<Index>,
    body: Vec<u8>,
    body_cuts: Vec<Index>,
    paddings: Vec<u8>,
}

impl Conversation {
    fn records(&self, id: u16) -> Vec<Vec<u8>> {
        let mut block = Vec::new();
        for (name, value) in &self.params {
            params::push_pair(&mut block, name, value);
        }
        let mut paddings = self.paddings.iter().copied().cycle();
        let mut padding = || paddings.next().unwrap_or(0);
        let mut records = vec![begin(id, 1, u8::from(self.keep_conn))];
        for (kind, content, cuts) in [
            (4, &block, &self.params_cuts),
            (5, &self.body, &self.body_cuts),
        ] {
            let mut cuts: Vec<_> = cuts
                .iter()
                .map(|cut| cut.index(content.len() + 1))
                .collect();
            cuts.extend([0, content.len()]);
            cuts.sort_unstable();
            cuts.dedup();
            records.extend(
                cuts.windows(2)
                    .map(|cut| record(kind, id, &content[cut[0]..cut[1]], padding())),
            );
            records.push(record(kind, id, b"", padding()));
        }
        records
    }
}

fn conversation() -> impl Strategy<Value = Conversation> {
    let bytes = || prop_oneof![vec(any::<u8>(), 0..20), vec(any::<u8>(), 100..300)];
    (
        any::<bool>(),
        vec((bytes(), bytes()), 0..6),
        vec(any::<Index>(), 0..6),
        vec(any::<u8>(), 0..500),
        vec(any::<Index>(), 0..6),
        vec(any::<u8>(), 0..4),
    )
        .prop_map(
            |(keep_conn, params, params_cuts, body, body_cuts, paddings)| Conversation {
                keep_conn,
                params,
                params_cuts,
                body,
                body_cuts,
                paddings,
            },
        )
}

proptest! {
    #[test]
    fn interleaved_requests_are_told_apart(
        conversations in vec(conversation(), 1..5),
        turns in vec(any::<Index>(), 0..60),
        cuts in vec(any::<Index>(), 0..10),
    ) {
        let mut queues: Vec<_> = (1_u16..).zip(&conversations).map(|(id, one)| one.records(id).into_iter()).collect();
        let mut wire = Vec::new();
        for turn in turns {
            let queue = turn.index(queues.len());
            wire.extend(queues[queue].next().unwrap_or_default());
        }
        wire.extend(queues.into_iter().flatten().flatten());
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
        cuts.sort_unstable();

        let mut decoder = Decoder::new(LIMITS);
        let seen = decode(&mut decoder, &wire, cuts).unwrap();
        for (id, one) in (1_u16..).zip(&conversations) {
            let mut body = Vec::new();
            let mut events = Vec::new();
            for event in &seen {
                match event {
                    Seen::Begin(of) if *of == id => events.push("begin"),
                    Seen::Request(of, role, keep_conn, pairs) if *of == id => {
                        events.push("request");
                        prop_assert_eq!((*role, *keep_conn), (Role::Responder, one.keep_conn));
                        prop_assert_eq!(&pairs[1..], &one.params[..]);
                    }
                    Seen::Stdin(of, data) if *of == id => {
                        prop_assert!(!data.is_empty());
                        prop_assert_eq!(&events, &["begin", "request"]);
                        body.extend_from_slice(data);
                    }
                    Seen::StdinEnd(of) if *of == id => events.push("end"),
                    _ => {}
                }
            }
            prop_assert_eq!(events, ["begin", "request", "end"]);
            prop_assert_eq!(&body, &one.body);
            decoder.end_request(id);
        }
        prop_assert!(decoder.is_idle());
    }

    #[test]
    fn what_the_encoder_writes_the_decoder_reads(
        params in vec((vec(any::<u8>(), 0..200), vec(any::<u8>(), 0..200)), 0..20),
        body in vec(any::<u8>(), 0..1000),
        big in prop_oneof![Just(0_usize), 0xff00..0x1_0100_usize],
        id in 1..=u16::MAX,
    ) {
        let mut variables = Variables::new();
        for (name, value) in &params {
            variables.push(name, value);
        }
        variables.push(b"BIG", &vec![b'b'; big]);
        let mut wire = Vec::new();
        encoder::push_begin_request(&mut wire, id, Role::Responder, true);
        encoder::push_params(&mut wire, id, &variables);
        encoder::push_stream(&mut wire, RecordType::Stdin, id, &body);
        encoder::push_stream_end(&mut wire, RecordType::Stdin, id);
        prop_assert_eq!(wire.len() % 8, 0);
        let mut decoder = Decoder::new(LIMITS);
        let mut input = &wire[..];
        let mut relayed = Vec::new();
        while let Some(event) = decoder.decode(&mut input).unwrap() {
            match event {
                Event::Begin { .. } => encoder::push_begin_request(&mut relayed, id, Role::Responder, true),
                Event::Request { variables: seen, .. } => {
                    prop_assert_eq!(&pairs(&seen)[1..], &pairs(&variables)[..]);
                    encoder::push_params(&mut relayed, id, &seen);
                }
                Event::Stdin { data, .. } => encoder::push_stream(&mut relayed, RecordType::Stdin, id, data),
                Event::StdinEnd { .. } => encoder::push_stream_end(&mut relayed, RecordType::Stdin, id),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(relayed, wire);
    }

    #[test]
    fn garbage_never_panics(mut wire in vec(any::<u8>(), 0..600), versions in any::<bool>()) {
        if versions && let Some(first) = wire.first_mut() {
            *first = 1;
        }
        let _ = decode_all(&wire);
        let mut input = &wire[..];
        while let Ok(Some(_)) = ResponseDecoder::new().decode(&mut input) {}
    }

    #[test]
    fn random_records_never_panic(
        records in vec((0..14_u8, 0..4_u16, vec(0..4_u8, 0..12), 0..4_u8), 0..40),
        ended in vec(0..4_u16, 0..20),
    ) {
        let mut decoder = Decoder::new(DecoderLimits { params_size: 20, params_count: 3, requests: 2 });
        let mut ended = ended.into_iter();
        let mut wire = begin(1, 1, 1);
        wire.extend(begin(2, 2, 1));
        wire.extend(records.iter().flat_map(|(kind, id, content, padding)| record(*kind, *id, content, *padding)));
        let mut input = &wire[..];
        while let Ok(Some(_)) = decoder.decode(&mut input) {
            if let Some(id) = ended.next() {
                decoder.end_request(id);
            }
            decoder.replay_partial(&mut Vec::new());
        }
    }

    #[test]
    fn a_damaged_stream_never_panics(which in any::<Index>(), at in any::<Index>(), byte in any::<u8>()) {
        let streams = streams();
        let mut wire = which.get(&streams).1.clone();
        let at = at.index(wire.len());
        wire[at] = byte;
        let _ = decode_all(&wire);
    }
}
