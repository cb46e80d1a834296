//! Properties of the response decoder.

use super::{Choices, Cutter, LONGEST, pairs, record};
use crate::fastcgi::{
    FastcgiError, ProtocolStatus, RecordType, ResponseDecoder, ResponseEvent, encoder, params,
};

/// A [`ResponseEvent`] that can be kept and compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Stdout(u16, Vec<u8>),
    Stderr(u16, Vec<u8>),
    End(u16, u32, ProtocolStatus),
    Values(Vec<(Vec<u8>, Vec<u8>)>),
    UnknownType(u8),
}

impl From<ResponseEvent<'_>> for Answer {
    fn from(event: ResponseEvent<'_>) -> Self {
        match event {
            ResponseEvent::Stdout { id, data } => Self::Stdout(id, data.to_vec()),
            ResponseEvent::Stderr { id, data } => Self::Stderr(id, data.to_vec()),
            ResponseEvent::End {
                id,
                app_status,
                protocol_status,
            } => Self::End(id, app_status, protocol_status),
            ResponseEvent::GetValuesResult { values } => Self::Values(pairs(&values)),
            ResponseEvent::UnknownType { kind } => Self::UnknownType(kind),
        }
    }
}

/// What a web server reads of these bytes, and how many are left.
pub(crate) fn answers(input: &mut &[u8]) -> Result<Vec<Answer>, (Vec<Answer>, FastcgiError)> {
    let mut seen = Vec::new();
    loop {
        match ResponseDecoder::new().decode(input) {
            Ok(Some(event)) => seen.push(event.into()),
            Ok(None) => return Ok(seen),
            Err(error) => return Err((seen, error)),
        }
    }
}

/// The response decoder: the same events and errors however the input is cut, and the same events once more from what
/// the encoder makes of them.
pub fn response(data: &[u8]) {
    let mut choices = Choices::new(data);
    let shape = choices.byte();
    let seed = choices.byte();
    let wire = if shape & 1 == 0 {
        choices.take(usize::MAX).to_vec()
    } else {
        any_answers(&mut choices)
    };
    let whole = answers(&mut wire.as_slice());

    let mut cutter = Cutter::new(seed);
    let (mut seen, mut error) = (Vec::new(), None);
    let (mut start, mut end) = (0, 0);
    while error.is_none() && end < wire.len() {
        end = cutter.piece(end, wire.len());
        let mut input = &wire[start..end];
        match answers(&mut input) {
            Ok(more) => seen.extend(more),
            Err((more, wrong)) => {
                seen.extend(more);
                error = Some(wrong);
            }
        }
        start = end - input.len();
    }
    let (whole_seen, whole_error) = match whole {
        Ok(seen) => (seen, None),
        Err((seen, error)) => (seen, Some(error)),
    };
    assert_eq!(seen, whole_seen);
    assert_eq!(error, whole_error);

    let mut wire = Vec::new();
    for answer in &seen {
        match answer {
            Answer::Stdout(id, data) => {
                encoder::push_stream(&mut wire, RecordType::Stdout, *id, data);
            }
            Answer::Stderr(id, data) => {
                encoder::push_stream(&mut wire, RecordType::Stderr, *id, data);
            }
            Answer::End(id, app, status) => {
                encoder::push_end_request(&mut wire, *id, *app, *status);
            }
            Answer::Values(pairs) => {
                let pairs: Vec<(&[u8], &[u8])> =
                    pairs.iter().map(|(n, v)| (&n[..], &v[..])).collect();
                encoder::push_get_values_result(&mut wire, &pairs);
            }
            Answer::UnknownType(kind) => encoder::push_unknown_type(&mut wire, *kind),
        }
    }
    let mut input = wire.as_slice();
    let again = answers(&mut input).expect("valid records");
    assert!(input.is_empty());
    assert_eq!(whole_streams(again), whole_streams(seen));
}

/// Records that an application may send, and some that it may not.
pub(crate) fn any_answers(choices: &mut Choices<'_>) -> Vec<u8> {
    const KINDS: [u8; 8] = [6, 6, 7, 3, 3, 10, 11, 13];
    let mut wire = Vec::new();
    while !choices.is_empty() && wire.len() < LONGEST {
        let choice = choices.byte();
        let kind = match choice >> 4 {
            15 => choices.byte(),
            _ => KINDS[usize::from(choice & 7)],
        };
        let content = match kind {
            3 | 11 => vec![0, 0, 0, choice, choices.byte() % 5, 0, 0, 0],
            _ => choices.content(),
        };
        let id = u16::from(kind < 8) * (1 + u16::from(choice >> 3 & 1));
        wire.extend(record(kind, id, &content, choices.byte()));
    }
    wire
}

/// Pieces of one stream that follow each other are one; so are the values that fit into the one record they may have.
fn whole_streams(answers: Vec<Answer>) -> Vec<Answer> {
    let mut whole: Vec<Answer> = Vec::new();
    for answer in answers {
        match (whole.last_mut(), answer) {
            (Some(Answer::Stdout(id, so_far)), Answer::Stdout(next, data)) if *id == next => {
                so_far.extend(data);
            }
            (Some(Answer::Stderr(id, so_far)), Answer::Stderr(next, data)) if *id == next => {
                so_far.extend(data);
            }
            (_, Answer::Values(mut pairs)) => {
                let mut room = 0xfff8;
                pairs.retain(|(name, value)| {
                    let length = params::pair_len(name, value);
                    let fits = length <= room;
                    room -= if fits { length } else { 0 };
                    fits
                });
                whole.push(Answer::Values(pairs));
            }
            (_, answer) => whole.push(answer),
        }
    }
    whole
}
