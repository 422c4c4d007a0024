//! Sketches: coded symbols over a set of rows, from two of which the difference of the sets is found, at
//! about 1.35 to 1.7 symbols for each row that differs, however many rows there are.
//!
//! Rateless invertible Bloom lookup tables: Yang, Gilad, Alizadeh, "Practical Rateless Set Reconciliation",
//! SIGCOMM 2024, arXiv 2402.02668. Each item adds to symbol i with probability 1/(1 + i/2); the first n
//! symbols are the same however many follow. Unlike there, symbols are sums and not exclusive ors, so that
//! equal rows count one by one, in any order and without memory of those before.
//!
//! ```text
//! sketch = version(1) *( count(2) position(width) digest(16) check(4) )
//! ```
//! All are sums modulo their width, least significant byte first. Positions count from the beginning of
//! the ranges; `width` is as many bytes as the distance to their end takes.

use crate::ENCODING_VERSION;
use crate::error::{Error, ErrorKind, Result};
use crate::short::ShortItem;
use crate::store::PositionRange;

mod mapping;
mod peel;
#[cfg(test)]
mod tests;

use mapping::{Indices, hash};
pub use peel::Decoded;

/// How many symbols one sketch has at most, from the first on.
pub const MOST_SYMBOLS: u32 = 1 << 17;

/// Bytes of a symbol without its position.
const FIXED: usize = 2 + 16 + 4;

/// The sums of the items of one symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Symbol {
    count: u16,
    position: u64,
    digest: u128,
    check: u32,
}

impl Symbol {
    /// An item's share: its position from the base, its digest, its check.
    fn of(position: u64, digest: u128, hash: u64) -> Self {
        Symbol { count: 1, position, digest, check: (hash >> 32) as u32 }
    }

    fn add(&mut self, other: &Symbol) {
        self.count = self.count.wrapping_add(other.count);
        self.position = self.position.wrapping_add(other.position);
        self.digest = self.digest.wrapping_add(other.digest);
        self.check = self.check.wrapping_add(other.check);
    }

    fn subtract(&mut self, other: &Symbol) {
        self.count = self.count.wrapping_sub(other.count);
        self.position = self.position.wrapping_sub(other.position);
        self.digest = self.digest.wrapping_sub(other.digest);
        self.check = self.check.wrapping_sub(other.check);
    }

    /// The same share `times` times.
    fn times(&self, times: i16) -> Self {
        Symbol {
            count: self.count.wrapping_mul(times as u16),
            position: self.position.wrapping_mul(times as u64),
            digest: self.digest.wrapping_mul(times as u128),
            check: self.check.wrapping_mul(times as u32),
        }
    }
}

/// How positions count in a sketch over some ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    base: i64,
    /// The greatest distance from the base.
    most: u64,
    /// Bytes that it takes.
    width: usize,
}

impl Shape {
    fn of(ranges: &[PositionRange]) -> Self {
        let base = ranges.first().and_then(|range| range.from).unwrap_or(i64::MIN);
        let last = match ranges.last().and_then(|range| range.to) {
            Some(to) => to.wrapping_sub(1),
            None => i64::MAX,
        };
        let most = last.wrapping_sub(base) as u64;
        let width = (64 - most.leading_zeros()).div_ceil(8).max(1) as usize;
        Shape { base, most, width }
    }

    fn mask(&self) -> u64 {
        u64::MAX >> (64 - 8 * self.width)
    }

    fn symbol_bytes(&self) -> usize {
        FIXED + self.width
    }
}

/// Coded symbols over the rows of some ranges, or their difference on two sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketch {
    shape: Shape,
    first: u32,
    symbols: Vec<Symbol>,
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::Malformed, what)
}

impl Sketch {
    /// The symbols `first..first + symbols` of no rows yet. Takes 32 bytes of memory a symbol, however many
    /// rows are added.
    ///
    /// # Errors
    /// `OutOfRange` where they reach beyond [`MOST_SYMBOLS`].
    pub fn new(ranges: &[PositionRange], first: u32, symbols: u32) -> Result<Self> {
        if first.checked_add(symbols).is_none_or(|end| end > MOST_SYMBOLS) {
            let what = format!("a sketch has {MOST_SYMBOLS} symbols at most");
            return Err(Error::new(ErrorKind::OutOfRange, what));
        }
        let symbols = vec![Symbol::default(); symbols as usize];
        Ok(Sketch { shape: Shape::of(ranges), first, symbols })
    }

    /// Adds a row, which must lie in the ranges. Rows may come in any order; equal ones count one by one.
    pub fn add(&mut self, item: &ShortItem) {
        let position = item.position.wrapping_sub(self.shape.base) as u64;
        let digest = u128::from_le_bytes(item.digest);
        let hash = hash(position, digest);
        let share = Symbol::of(position, digest, hash);
        let end = u64::from(self.first) + self.symbols.len() as u64;
        for index in Indices::new(hash).take_while(|index| *index < end) {
            if let Some(symbol) = index.checked_sub(self.first.into()) {
                self.symbols[symbol as usize].add(&share);
            }
        }
    }

    /// How many symbols it has.
    pub fn symbols(&self) -> u32 {
        self.symbols.len() as u32
    }

    /// How many bytes so many symbols over some ranges take, packed.
    pub fn packed_len(ranges: &[PositionRange], symbols: u32) -> usize {
        1 + symbols as usize * Shape::of(ranges).symbol_bytes()
    }

    /// The bytes as they travel.
    pub fn pack(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + self.symbols.len() * self.shape.symbol_bytes());
        bytes.push(ENCODING_VERSION);
        for symbol in &self.symbols {
            bytes.extend_from_slice(&symbol.count.to_le_bytes());
            bytes.extend_from_slice(&symbol.position.to_le_bytes()[..self.shape.width]);
            bytes.extend_from_slice(&symbol.digest.to_le_bytes());
            bytes.extend_from_slice(&symbol.check.to_le_bytes());
        }
        bytes
    }

    /// Reads the symbols from `first` on that another side made over the same ranges.
    ///
    /// # Errors
    /// `Malformed` where the bytes are none.
    pub fn read(ranges: &[PositionRange], first: u32, bytes: &[u8]) -> Result<Self> {
        let shape = Shape::of(ranges);
        let Some((&ENCODING_VERSION, bytes)) = bytes.split_first() else {
            return Err(malformed("a sketch of another kind or version"));
        };
        let chunks = bytes.chunks_exact(shape.symbol_bytes());
        if !chunks.remainder().is_empty() || bytes.len() / shape.symbol_bytes() > MOST_SYMBOLS as usize {
            return Err(malformed("the bytes end inside a sketch, or go on beyond it"));
        }
        let read = |chunk: &[u8]| -> Option<Symbol> {
            let (count, rest) = chunk.split_first_chunk()?;
            let (position, rest) = rest.split_at_checked(shape.width)?;
            let (digest, check) = rest.split_first_chunk()?;
            let mut distance = [0; 8];
            distance[..shape.width].copy_from_slice(position);
            Some(Symbol {
                count: u16::from_le_bytes(*count),
                position: u64::from_le_bytes(distance),
                digest: u128::from_le_bytes(*digest),
                check: u32::from_le_bytes(check.try_into().ok()?),
            })
        };
        let symbols: Option<Vec<Symbol>> = chunks.map(read).collect();
        let symbols = symbols.ok_or_else(|| malformed("the bytes end inside a sketch"))?;
        Ok(Sketch { shape, first, symbols })
    }

    /// Puts the symbols that follow these behind them; `false` where `next` does not follow.
    pub fn append(&mut self, next: &Sketch) -> bool {
        let follows = next.shape == self.shape
            && u64::from(next.first) == u64::from(self.first) + self.symbols.len() as u64;
        if follows {
            self.symbols.extend_from_slice(&next.symbols);
        }
        follows
    }

    /// The difference of two sides, from the first symbols over the same ranges of both; `None` where there
    /// are too few of them, where the difference has more than [`MOST_SYMBOLS`] rows, or where the sketches are of
    /// other ranges.
    pub fn decode(&self, local: &Sketch) -> Option<Decoded> {
        let comparable = self.shape == local.shape && (self.first, local.first) == (0, 0);
        if !comparable || self.symbols.len() != local.symbols.len() {
            return None;
        }
        let mut symbols = self.symbols.clone();
        symbols.iter_mut().zip(&local.symbols).for_each(|(symbol, local)| symbol.subtract(local));
        peel::peel(symbols, &self.shape)
    }
}
