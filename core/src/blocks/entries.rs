//! Entries as they are stored, one list a statement and replica.
//!
//! ```text
//! entries = version(1) *entry
//! entry   = flags(1) [ level(1) ] first(8) rows(varint, zigzag) sum(32) [ added(8) ] [ removed(8) ]
//! ```
//! Flag 1: a single position, without a level; flag 2: `added` is there; flag 4: `removed` is.

use super::Entry;
use crate::ENCODING_VERSION;
use crate::dyadic::Dyadic;
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::Fingerprint;
use crate::row::{put_varint, take_varint};

const POINT: u8 = 1;
const ADDED: u8 = 2;
const REMOVED: u8 = 4;

/// The stored form of entries.
pub fn pack_entries(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + 64 * entries.len());
    bytes.push(ENCODING_VERSION);
    for entry in entries {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        bytes.push(
            flag(entry.range.is_point(), POINT)
                | flag(entry.added.is_some(), ADDED)
                | flag(entry.removed.is_some(), REMOVED),
        );
        if !entry.range.is_point() {
            bytes.push(entry.range.level());
        }
        bytes.extend_from_slice(&entry.range.first().to_le_bytes());
        let rows = entry.change.row_count() as i64;
        put_varint(&mut bytes, ((rows << 1) ^ (rows >> 63)) as u64);
        bytes.extend_from_slice(&entry.change.sum());
        for time in [entry.added, entry.removed].into_iter().flatten() {
            bytes.extend_from_slice(&time.to_le_bytes());
        }
    }
    bytes
}

/// Reads a stored list.
///
/// # Errors
/// `Malformed` where the bytes are none.
pub fn read_entries(bytes: &[u8]) -> Result<Vec<Entry>> {
    let malformed = |what: &str, rest: &[u8]| {
        Error::new(ErrorKind::Malformed, what.to_owned()).at(bytes.len() - rest.len())
    };
    let Some((&ENCODING_VERSION, mut rest)) = bytes.split_first() else {
        return Err(malformed("entries of another version", bytes));
    };
    let mut entries = Vec::new();
    while let Some((&flags, after)) = rest.split_first() {
        let start = rest;
        let short = || malformed("the bytes end inside an entry", start);
        if flags & !(POINT | ADDED | REMOVED) != 0 {
            return Err(malformed("an entry of an unknown kind", start));
        }
        let (level, after) = match flags & POINT {
            0 => after.split_first().map(|(level, after)| (*level, after)).ok_or_else(short)?,
            _ => (64, after),
        };
        let (first, after) = after.split_first_chunk::<8>().ok_or_else(short)?;
        let range = Dyadic::new(i64::from_le_bytes(*first), level)
            .filter(|range| range.is_point() == (flags & POINT != 0))
            .ok_or_else(|| malformed("an entry of no dyadic range", start))?;
        let (rows, after) = take_varint(after).map_err(|_| short())?;
        let rows = (rows >> 1) as i64 ^ -((rows & 1) as i64);
        let (sum, after) = after.split_first_chunk::<32>().ok_or_else(short)?;
        rest = after;
        let mut time = |flag: u8| -> Result<Option<i64>> {
            if flags & flag == 0 {
                return Ok(None);
            }
            let (time, after) = rest.split_first_chunk::<8>().ok_or_else(short)?;
            rest = after;
            Ok(Some(i64::from_le_bytes(*time)))
        };
        let (added, removed) = (time(ADDED)?, time(REMOVED)?);
        entries.push(Entry { range, change: Fingerprint::from_parts(rows as u64, *sum), added, removed });
    }
    Ok(entries)
}
