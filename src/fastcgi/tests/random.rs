//! Random streams.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::fastcgi::properties::pairs;
use crate::request::Variables;

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
    fn a_damaged_stream_never_panics(which in any::<Index>(), at in any::<Index>(), byte in any::<u8>()) {
        let streams = streams();
        let mut wire = which.get(&streams).1.clone();
        let at = at.index(wire.len());
        wire[at] = byte;
        let _ = decode_all(&wire);
    }

    #[test]
    fn any_records_give_the_same_events_however_they_are_cut_and_replayed(data in vec(any::<u8>(), 0..600)) {
        properties::decoder(&data);
    }

    #[test]
    fn any_params_are_read_as_the_specification_says(
        mut block in vec(prop_oneof![0..6_u8, any::<u8>()], 0..200),
        pairs in vec((vec(any::<u8>(), 0..140), vec(any::<u8>(), 0..140)), 0..6),
        limit in 0..10_u8,
    ) {
        let mut data = vec![limit];
        for (name, value) in &pairs {
            params::push_pair(&mut data, name, value);
        }
        data.append(&mut block);
        properties::params(&data);
    }

    #[test]
    fn any_answers_give_the_same_events_however_they_are_cut(data in vec(any::<u8>(), 0..200)) {
        properties::response(&data);
    }
}
