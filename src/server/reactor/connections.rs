//! The connections of one reactor, by number.

use std::ops::{Index, IndexMut};

use slab::Slab;

use super::Connection;

/// Bits of a token that are the index; as many have the serial number.
const BITS: u32 = 20;
const MASK: u64 = (1 << BITS) - 1;

/// Connections by index. An index is used again when its connection is gone, while a thread may still have events of that one: so
/// what epoll is given is a *token*, the index with a serial number.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slab: Slab<(u64, Connection)>,
    serial: u64,
}

impl Connections {
    /// Adds one; returns its index.
    pub(super) fn insert(&mut self, connection: Connection) -> usize {
        self.serial = self.serial.wrapping_add(1) & MASK;
        self.slab.insert((self.serial, connection))
    }

    pub(super) fn get(&self, index: usize) -> Option<&Connection> {
        self.slab.get(index).map(|(_, connection)| connection)
    }

    pub(super) fn contains(&self, index: usize) -> bool {
        self.slab.contains(index)
    }

    /// # Panics
    /// If there is none.
    pub(super) fn remove(&mut self, index: usize) -> Connection {
        self.slab.remove(index).1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// All connections, with their indices.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Connection)> {
        self.slab
            .iter()
            .map(|(index, (_, connection))| (index, connection))
    }

    /// The token of the connection at `index`.
    pub(super) fn token(&self, index: usize) -> u64 {
        let serial = self.slab.get(index).map_or(0, |(serial, _)| *serial);
        serial << BITS | (index as u64 & MASK)
    }

    /// Tokens of the connections for which `filter` is true.
    pub(super) fn tokens(&self, filter: impl Fn(&Connection) -> bool) -> Vec<u64> {
        let wanted = self.iter().filter(|(_, connection)| filter(connection));
        wanted.map(|(index, _)| self.token(index)).collect()
    }

    /// The index of the connection with this token, unless it is gone.
    pub(super) fn index(&self, token: u64) -> Option<usize> {
        let index = usize::try_from(token & MASK).ok()?;
        let (serial, _) = self.slab.get(index)?;
        (*serial == token >> BITS).then_some(index)
    }
}

impl Index<usize> for Connections {
    type Output = Connection;

    fn index(&self, index: usize) -> &Connection {
        &self.slab[index].1
    }
}

impl IndexMut<usize> for Connections {
    fn index_mut(&mut self, index: usize) -> &mut Connection {
        &mut self.slab[index].1
    }
}
