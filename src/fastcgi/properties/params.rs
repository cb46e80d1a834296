//! Properties of name-value pairs.

use super::{Choices, pairs};
use crate::fastcgi::params::{self, BlockError, Pairs};

/// Name-value pairs: read as a plain reading of section 3.4 has them, the same after being written and read again, and
/// found by name.
pub fn params(data: &[u8]) {
    let mut choices = Choices::new(data);
    let limit = usize::from(choices.byte());
    let block = choices.take(usize::MAX);
    let expected = plain_pairs(block);
    let ranges: Vec<_> = Pairs::new(block).collect();
    assert_eq!(
        ranges.iter().all(Result::is_ok),
        expected.is_some(),
        "{ranges:?}"
    );
    let variables = match (params::into_variables(block.to_vec(), limit), &expected) {
        (Err(BlockError::TooMany), _) => {
            assert!(ranges.len() > limit);
            return;
        }
        (Err(BlockError::Malformed), expected) => {
            assert!(expected.is_none());
            return;
        }
        (Ok(_), None) => panic!("a malformed block was taken"),
        (Ok(variables), Some(_)) => variables,
    };
    let expected = expected.unwrap_or_default();
    assert!(expected.len() <= limit);
    assert_eq!(pairs(&variables), expected);
    assert_eq!(variables.len(), expected.len());

    let mut written = Vec::new();
    for (name, value) in &expected {
        let start = written.len();
        params::push_pair(&mut written, name, value);
        assert_eq!(written.len() - start, params::pair_len(name, value));
    }
    // Long encodings of short lengths are the only other way to say the same.
    assert!(written.len() <= block.len());
    assert_eq!(plain_pairs(&written).as_ref(), Some(&expected));
    let again = params::into_variables(written, limit).expect("as many pairs as before");
    assert_eq!(pairs(&again), expected);

    let mut changed = variables;
    for (name, _) in &expected {
        let last = expected.iter().rev().find(|(other, _)| other == name);
        assert_eq!(changed.get(name), last.map(|(_, value)| value.as_slice()));
    }
    if let Some((name, _)) = expected.first() {
        let others = expected.iter().filter(|(other, _)| other != name).count();
        changed.set(name, b"new");
        assert_eq!(changed.get(name), Some(&b"new"[..]));
        assert_eq!(changed.len(), others + 1);
        changed.remove(name);
        assert_eq!(changed.get(name), None);
        assert_eq!(changed.len(), others);
    }
}

type PlainPairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Section 3.4, read aloud.
fn plain_pairs(mut block: &[u8]) -> Option<PlainPairs> {
    let mut pairs = Vec::new();
    while !block.is_empty() {
        let mut lengths = [0; 2];
        for length in &mut lengths {
            let &first = block.first()?;
            let (encoded, rest) = block.split_at_checked(if first < 128 { 1 } else { 4 })?;
            block = rest;
            *length = match *encoded {
                [short] => usize::from(short),
                [a, b, c, d] => {
                    ((usize::from(a) - 128) << 24)
                        + (usize::from(b) << 16)
                        + (usize::from(c) << 8)
                        + usize::from(d)
                }
                _ => return None,
            };
        }
        let (name, rest) = block.split_at_checked(lengths[0])?;
        let (value, rest) = rest.split_at_checked(lengths[1])?;
        block = rest;
        pairs.push((name.to_vec(), value.to_vec()));
    }
    Some(pairs)
}
