//! Name-value pairs (section 3.4 of the specification).

use std::ops::Range;

use crate::request::{Entry, Variables};

/// The pairs of a block of bytes, in order, as ranges of it; an `Err` ends it.
pub(super) struct Pairs<'a> {
    block: &'a [u8],
    position: usize,
}

/// A pair's lengths, or a name or value of these lengths, run past the end of the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Why a block of bytes is not taken as variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockError {
    /// It is no sequence of pairs.
    Malformed,
    /// It has more pairs than allowed.
    TooMany,
}

impl<'a> Pairs<'a> {
    pub(super) fn new(block: &'a [u8]) -> Self {
        Self { block, position: 0 }
    }

    fn pair(&mut self) -> Result<Entry, Malformed> {
        let name = self.length()?;
        let value = self.length()?;
        let name = self.advance(name)?;
        let value = self.advance(value)?;
        Ok(Entry { name, value })
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        // "Lengths of 127 bytes and less can be encoded in one byte, while longer lengths are always encoded in four
        // bytes": so four bytes for a short one are valid too.
        let rest = &self.block[self.position..];
        match *rest {
            [short @ 0x00..=0x7f, ..] => {
                self.position += 1;
                Ok(usize::from(short))
            }
            [b3, b2, b1, b0, ..] => {
                self.position += 4;
                let length = u32::from_be_bytes([b3 & 0x7f, b2, b1, b0]);
                usize::try_from(length).map_err(|_| Malformed)
            }
            _ => Err(Malformed),
        }
    }

    /// The next `length` bytes.
    fn advance(&mut self, length: usize) -> Result<Range<usize>, Malformed> {
        debug_assert!(self.position <= self.block.len());
        if length > self.block.len() - self.position {
            return Err(Malformed);
        }
        let start = self.position;
        self.position += length;
        Ok(start..self.position)
    }
}

impl Iterator for Pairs<'_> {
    type Item = Result<Entry, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position == self.block.len() {
            return None;
        }
        let pair = self.pair();
        if pair.is_err() {
            self.position = self.block.len();
        }
        Some(pair)
    }
}

/// The pairs of `block`, at most `limit`, as variables that keep `block` as their buffer.
pub(super) fn into_variables(block: Vec<u8>, limit: usize) -> Result<Variables, BlockError> {
    // A pair has more than 32 bytes on average in what web servers send, so that this is one allocation mostly.
    let mut entries = Vec::with_capacity((block.len() / 32).min(limit) + SPARE);
    for pair in Pairs::new(&block) {
        let pair = pair.map_err(|Malformed| BlockError::Malformed)?;
        if entries.len() == limit {
            return Err(BlockError::TooMany);
        }
        entries.push(pair);
    }
    Ok(Variables::from_block(block, entries))
}

/// Appends a pair.
///
/// # Panics
///
/// When name or value have more than 0x7fffffff bytes, which the protocol cannot say.
pub(super) fn push_pair(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    push_length(out, name.len());
    push_length(out, value.len());
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

/// Bytes that [`push_pair`] appends.
pub(super) fn pair_len(name: &[u8], value: &[u8]) -> usize {
    let length_len = |length: usize| if length <= SHORT_MAX { 1 } else { 4 };
    length_len(name.len()) + length_len(value.len()) + name.len() + value.len()
}

fn push_length(out: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short) if length <= SHORT_MAX => out.push(short),
        _ => {
            assert!(
                length <= LONG_MAX,
                "a name or value of {length} bytes does not fit into FCGI_PARAMS"
            );
            let length = u32::try_from(length).expect("checked on the line above");
            out.extend_from_slice(&(length | LONG_FLAG).to_be_bytes());
        }
    }
}

/// Room for the variables that are set before a script runs.
const SPARE: usize = 8;

/// The longest length in one byte.
const SHORT_MAX: usize = 0x7f;

/// The longest length in four bytes.
const LONG_MAX: usize = 0x7fff_ffff;

/// "The high-order bit of the first byte of a length indicates the length's encoding."
const LONG_FLAG: u32 = 0x8000_0000;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    type Pair = (Vec<u8>, Vec<u8>);

    fn pairs(block: &[u8]) -> Result<Vec<Pair>, BlockError> {
        let variables = into_variables(block.to_vec(), 10)?;
        Ok(variables
            .iter()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect())
    }

    #[test]
    fn both_encodings_of_lengths() {
        let mut block = b"\x01\x02abc".to_vec();
        block.extend_from_slice(b"\x80\x00\x00\x01\x02abc");
        block.extend_from_slice(b"\x01\x80\x00\x00\x02abc");
        block.extend_from_slice(b"\x80\x00\x00\x01\x80\x00\x00\x02abc");
        assert_eq!(
            pairs(&block).unwrap(),
            vec![(b"a".to_vec(), b"bc".to_vec()); 4]
        );
    }

    #[test]
    fn empty_names_and_values() {
        assert_eq!(pairs(b""), Ok(vec![]));
        let empty = Vec::new;
        assert_eq!(
            pairs(b"\x00\x00\x00\x01v\x01\x00n"),
            Ok(vec![
                (empty(), empty()),
                (empty(), b"v".to_vec()),
                (b"n".to_vec(), empty())
            ])
        );
    }

    #[test]
    fn every_cut_of_a_pair_is_malformed() {
        for block in [&b"\x01\x02abc"[..], b"\x80\x00\x00\x01\x80\x00\x00\x02abc"] {
            for end in 1..block.len() {
                assert_eq!(pairs(&block[..end]), Err(BlockError::Malformed));
            }
        }
        assert_eq!(
            pairs(b"\xff\xff\xff\xff\xff\xff\xff\xffabc"),
            Err(BlockError::Malformed)
        );
    }

    #[test]
    fn the_limit_is_the_last_allowed_count() {
        assert!(into_variables(vec![0; 6], 3).is_ok());
        assert_eq!(
            into_variables(vec![0; 8], 3).unwrap_err(),
            BlockError::TooMany
        );
    }

    #[test]
    fn lengths_around_the_change_of_encoding() {
        for length in [0, 1, 0x7e, 0x7f, 0x80, 0x81, 0xff, 0x100, 0xffff, 0x1_0000] {
            let (name, value) = (vec![b'n'; length], vec![b'v'; length]);
            let mut block = Vec::new();
            push_pair(&mut block, &name, &value);
            assert_eq!(block.len(), pair_len(&name, &value));
            assert_eq!(block.len(), 2 * length + if length < 0x80 { 2 } else { 8 });
            assert_eq!(pairs(&block).unwrap(), vec![(name, value)]);
        }
    }
}
