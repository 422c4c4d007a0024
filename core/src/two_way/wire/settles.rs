//! What is to be remembered of keys, as a local database keeps it while a batch is on its way.
//!
//! ```text
//! settles = version(1) count(varint) *settle
//! settle  = flags(1) memory-key [base] [open]       -- 1: closes a record; 2: has a base; 4: is left open
//! base    = digest(16) columns
//! open    = kind(1) seen seen
//! columns = count(varint) *( number(varint) digest(8) )
//! ```

use super::cursor::{Cursor, begin, malformed};
use super::{KINDS, put_key, put_seen};
use crate::ENCODING_VERSION;
use crate::error::Result;
use crate::row::put_varint;
use crate::store::{Base, ColumnDigests, MemoryEntry, Open, OpenKind, Settle};

const CLOSES: u8 = 1;
const BASE: u8 = 2;
const OPEN: u8 = 4;
/// Bytes of the shortest one.
const LEAST: usize = 17;

fn put_columns(out: &mut Vec<u8>, columns: &[(u32, u64)]) {
    put_varint(out, columns.len() as u64);
    for (number, digest) in columns {
        put_varint(out, u64::from(*number));
        out.extend_from_slice(&digest.to_le_bytes());
    }
}

fn columns(cursor: &mut Cursor<'_>) -> Result<ColumnDigests> {
    let count = cursor.number()?;
    let mut columns = ColumnDigests::new();
    for _ in 0..count {
        let Ok(number) = u32::try_from(cursor.number()?) else { return malformed("no number of a column") };
        columns.push((number, u64::from_le_bytes(cursor.array()?)));
    }
    Ok(columns)
}

/// Packs the digests of a row's columns.
pub fn pack_columns(columns: &[(u32, u64)]) -> Vec<u8> {
    let mut bytes = vec![ENCODING_VERSION];
    put_columns(&mut bytes, columns);
    bytes
}

/// Reads the digests of a row's columns.
///
/// # Errors
/// `Malformed` where the bytes are none.
pub fn read_columns(bytes: &[u8]) -> Result<ColumnDigests> {
    let mut cursor = Cursor::versioned(bytes)?;
    let columns = columns(&mut cursor)?;
    cursor.end()?;
    Ok(columns)
}

/// Why a key was left as it is, as a number.
pub fn number_of(kind: OpenKind) -> u8 {
    KINDS.iter().position(|other| *other == kind).unwrap_or_default() as u8
}

/// What this number says; `None` where it is none.
pub fn kind_of(number: u8) -> Option<OpenKind> {
    KINDS.get(usize::from(number)).copied()
}

/// Packs what is to be remembered of keys.
pub fn pack_settles(settles: &[Settle]) -> Vec<u8> {
    let mut bytes = begin(settles.len());
    for Settle { entry, closes } in settles {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        bytes.push(
            flag(*closes, CLOSES) | flag(entry.base.is_some(), BASE) | flag(entry.open.is_some(), OPEN),
        );
        put_key(&mut bytes, &entry.key);
        if let Some(base) = &entry.base {
            bytes.extend_from_slice(&base.digest);
            put_columns(&mut bytes, &base.columns);
        }
        if let Some(open) = &entry.open {
            bytes.push(number_of(open.kind));
            put_seen(&mut bytes, open.local);
            put_seen(&mut bytes, open.remote);
        }
    }
    bytes
}

/// Reads what is to be remembered of keys.
///
/// # Errors
/// `Malformed` where the bytes are none.
pub fn read_settles(bytes: &[u8]) -> Result<Vec<Settle>> {
    let (mut cursor, count) = Cursor::new(bytes, LEAST)?;
    let mut settles = Vec::with_capacity(count);
    for _ in 0..count {
        let flags = cursor.byte()?;
        if flags & !(CLOSES | BASE | OPEN) != 0 {
            return malformed("what is to be remembered is of another kind");
        }
        let key = cursor.key()?;
        let base = match flags & BASE {
            0 => None,
            _ => Some(Base { digest: cursor.array()?, columns: columns(&mut cursor)? }),
        };
        let open = match flags & OPEN {
            0 => None,
            _ => {
                let Some(kind) = kind_of(cursor.byte()?) else {
                    return malformed("a key is left for an unknown reason");
                };
                Some(Open { kind, local: cursor.seen()?, remote: cursor.seen()? })
            }
        };
        settles.push(Settle { entry: MemoryEntry { key, base, open }, closes: flags & CLOSES != 0 });
    }
    cursor.end()?;
    Ok(settles)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::Side;
    use crate::store::{MemoryKey, Seen};

    #[test]
    fn what_is_to_be_remembered_comes_back_and_nothing_else_does() {
        let key = |position| MemoryKey { position, tail: [3; 8] };
        let base = Some(Base { digest: [9; 16], columns: vec![(1, 7), (300, u64::MAX)] });
        let open = |kind| Some(Open { kind, local: Seen::Row([1; 16]), remote: Seen::Unreadable });
        let mut settles = vec![
            Settle { entry: MemoryEntry { key: key(i64::MIN), base: None, open: None }, closes: true },
            Settle { entry: MemoryEntry { key: key(5), base, open: None }, closes: false },
        ];
        for kind in KINDS {
            assert_eq!(kind_of(number_of(kind)), Some(kind));
            settles.push(Settle {
                entry: MemoryEntry { key: key(6), base: None, open: open(kind) },
                closes: true,
            });
        }
        assert!(matches!(KINDS[2], OpenKind::Rejected(Side::Local)));
        for some in [&settles[..], &settles[..1], &[]] {
            let bytes = pack_settles(some);
            assert_eq!(read_settles(&bytes).expect("packed"), some);
            for end in 0..bytes.len() {
                assert!(read_settles(&bytes[..end]).is_err(), "{end} of {bytes:?}");
            }
            assert!(read_settles(&[&bytes[..], &[0]].concat()).is_err());
        }
        let columns = vec![(1, 7), (300, u64::MAX)];
        assert_eq!(read_columns(&pack_columns(&columns)).expect("packed"), columns);
    }
}
