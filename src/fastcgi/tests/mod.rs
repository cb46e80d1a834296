//! Whole streams through the decoder: from bytes, from the encoder, cut and interleaved in every way.

use super::properties::{Seen, record};
use super::*;

mod errors;
mod random;

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
