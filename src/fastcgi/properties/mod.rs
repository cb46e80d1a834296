//! What must hold whatever the peer sends. A function here takes any bytes as its choices and panics when a property
//! does not hold; proptest calls it from `tests`, and libFuzzer from the targets in `tests/fuzz`.

use crate::request::Variables;

mod decoder;
mod params;
mod response;

#[cfg(test)]
pub(super) use decoder::Seen;
pub(crate) use decoder::any_records;
pub use decoder::decoder;
pub use params::params;
pub use response::response;
pub(crate) use response::{Answer, answers, any_answers};

/// Bytes of records after which no more are made.
const LONGEST: usize = 192 << 10;

/// Bytes that decide what happens next. When none are left, they are zeros.
#[derive(Debug)]
pub(crate) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// As many bytes as there are, `length` at most.
    pub(crate) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Content of a record: short and chosen, or long and monotonous.
    fn content(&mut self) -> Vec<u8> {
        match self.byte() {
            length @ ..240 => self.take(usize::from(length)).to_vec(),
            length => vec![self.byte(); (usize::from(length) - 239).min(15) * 4369],
        }
    }
}

/// Numbers that look random, for cutting a stream: what is cut is chosen by libFuzzer, where need not be.
#[derive(Debug)]
pub(crate) struct Cutter(u32);

impl Cutter {
    pub(crate) fn new(seed: u8) -> Self {
        Self(0x9e37_79b9 ^ u32::from(seed))
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % limit.max(1)
    }

    /// The end of a piece that begins at `start`.
    pub(crate) fn piece(&mut self, start: usize, end: usize) -> usize {
        // Cuts inside headers matter as much as cuts far away.
        let most = [1, 9, 40, usize::MAX][self.below(4)].min(end - start);
        start + 1 + self.below(most)
    }
}

/// All pairs, in order.
pub(crate) fn pairs(variables: &Variables) -> Vec<(Vec<u8>, Vec<u8>)> {
    variables
        .iter()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect()
}

/// A record in bytes, without a use of the encoder.
pub(crate) fn record(kind: u8, id: u16, content: &[u8], padding: u8) -> Vec<u8> {
    let length = u16::try_from(content.len())
        .expect("content of a record")
        .to_be_bytes();
    let id = id.to_be_bytes();
    let mut wire = vec![1, kind, id[0], id[1], length[0], length[1], padding, 0xee];
    wire.extend_from_slice(content);
    wire.resize(wire.len() + usize::from(padding), 0xdd);
    wire
}
