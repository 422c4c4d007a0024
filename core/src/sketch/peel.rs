//! Finds the items of a difference: a symbol with one item left gives it away, and taking it out of its
//! other symbols leaves more such.

use super::mapping::{Indices, hash};
use super::{Shape, Symbol};
use crate::short::ShortItem;

/// Powers of two in the number of copies of a row for which its symbol is still solved.
const MOST_HALVINGS: u32 = 4;

/// How many rows a difference has at most: a symbol of a few bytes may stand for thousands of copies of a row.
const MOST_ROWS: usize = super::MOST_SYMBOLS as usize;

/// How the rows of two sides differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decoded {
    /// Rows that only the local side has, one for each copy.
    pub local_only: Vec<ShortItem>,
    /// Rows that only the remote side has, one for each copy.
    pub remote_only: Vec<ShortItem>,
}

/// An item, its hash, and how many more copies the remote side has of it than the local one.
struct Single {
    position: u64,
    digest: u128,
    hash: u64,
    copies: i16,
}

pub(super) fn peel(mut symbols: Vec<Symbol>, shape: &Shape) -> Option<Decoded> {
    let mask = shape.mask();
    symbols.iter_mut().for_each(|symbol| symbol.position &= mask);
    let mut decoded = Decoded::default();
    let mut pending: Vec<usize> = (0..symbols.len()).rev().collect();
    // A check that agrees by chance may lead in circles.
    let mut left = symbols.len();
    while let Some(at) = pending.pop() {
        let Some(single) = single(&symbols[at], at as u64, shape) else { continue };
        left = left.checked_sub(1)?;
        let share = Symbol::of(single.position, single.digest, single.hash).times(single.copies);
        let end = symbols.len() as u64;
        for index in Indices::new(single.hash).take_while(|index| *index < end) {
            let symbol = &mut symbols[index as usize];
            symbol.subtract(&share);
            symbol.position &= mask;
            pending.push(index as usize);
        }
        let item = ShortItem {
            position: shape.base.wrapping_add(single.position as i64),
            digest: single.digest.to_le_bytes(),
        };
        let copies = single.copies.unsigned_abs().into();
        if decoded.local_only.len() + decoded.remote_only.len() + copies > MOST_ROWS {
            return None;
        }
        let side = if single.copies > 0 { &mut decoded.remote_only } else { &mut decoded.local_only };
        side.extend(std::iter::repeat_n(item, copies));
    }
    symbols.iter().all(|symbol| *symbol == Symbol::default()).then_some(decoded)
}

/// The item of a symbol that has copies of one item alone.
fn single(symbol: &Symbol, at: u64, shape: &Shape) -> Option<Single> {
    let copies = symbol.count as i16;
    if copies == 0 || copies.trailing_zeros() > MOST_HALVINGS {
        return None;
    }
    let bits = 8 * shape.width as u32;
    for position in divisions(symbol.position.into(), copies, bits) {
        let position = position as u64;
        if position > shape.most {
            continue;
        }
        for digest in divisions(symbol.digest, copies, 128) {
            let hash = hash(position, digest);
            let single = Single { position, digest, hash, copies };
            let agrees = Symbol::of(position, digest, hash).times(copies).check == symbol.check;
            if agrees && Indices::new(hash).find(|index| *index >= at) == Some(at) {
                return Some(single);
            }
        }
    }
    None
}

/// All numbers of `bits` bits that are `sum` when taken `times` times, modulo 2^bits.
fn divisions(sum: u128, times: i16, bits: u32) -> impl Iterator<Item = u128> {
    let mask = u128::MAX >> (128 - bits);
    let halvings = times.trailing_zeros();
    let odd = (i128::from(times) >> halvings) as u128;
    // The inverse of an odd number modulo 2^128, by Newton's method: each step doubles the right bits.
    let mut inverse = odd;
    for _ in 0..6 {
        inverse = inverse.wrapping_mul(2u128.wrapping_sub(odd.wrapping_mul(inverse)));
    }
    let divisible = sum.trailing_zeros() >= halvings || sum == 0;
    let low = (sum >> halvings).wrapping_mul(inverse) & (mask >> halvings);
    let count = if divisible { 1u128 << halvings } else { 0 };
    (0..count).map(move |top| low | top.checked_shl(bits - halvings).unwrap_or(0))
}
