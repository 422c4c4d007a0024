//! Which rows of an upload have the same key.

use std::hash::{BuildHasher, RandomState};

/// Marks a place of the table that is free.
const FREE: u32 = u32::MAX;

/// The keys of an upload, numbered in the order in which each came first. All keys are in one allocation: an
/// upload has many, and each is small.
pub struct Keys {
    bytes: Vec<u8>,
    /// Where each key ends in `bytes`; it begins where the one before ends.
    ends: Vec<usize>,
    /// Numbers of keys, found by hash, then place by place; always at least half free.
    table: Vec<u32>,
    hasher: RandomState,
}

impl Keys {
    /// No keys, with room for `rows`.
    pub fn new(rows: usize) -> Self {
        let size = (rows.max(8) * 2).next_power_of_two();
        Keys {
            bytes: Vec::new(),
            ends: Vec::with_capacity(rows),
            table: vec![FREE; size],
            hasher: RandomState::new(),
        }
    }

    /// The number of a key: as many as there were keys before where it is new.
    pub fn place(&mut self, key: &[u8]) -> usize {
        if self.ends.len() * 2 >= self.table.len() {
            self.grow();
        }
        let mut at = self.first(key);
        while self.table[at] != FREE {
            let place = self.table[at] as usize;
            if self.key(place) == key {
                return place;
            }
            at = (at + 1) & (self.table.len() - 1);
        }
        let place = self.ends.len();
        self.table[at] = place as u32;
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
        place
    }

    fn key(&self, place: usize) -> &[u8] {
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.bytes[start..self.ends[place]]
    }

    fn first(&self, key: &[u8]) -> usize {
        self.hasher.hash_one(key) as usize & (self.table.len() - 1)
    }

    fn grow(&mut self) {
        self.table = vec![FREE; self.table.len() * 2];
        for place in 0..self.ends.len() {
            let mut at = self.first(self.key(place));
            while self.table[at] != FREE {
                at = (at + 1) & (self.table.len() - 1);
            }
            self.table[at] = place as u32;
        }
    }
}
