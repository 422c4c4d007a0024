//! Keys, what persons chose, and rows that are asked for.

use super::cursor::{Cursor, begin, malformed};
use super::{put_bytes, put_key, put_seen};
use crate::ENCODING_VERSION;
use crate::digest::RowDigest;
use crate::error::Result;
use crate::manifest::Item;
use crate::reconcile::Side;
use crate::row::put_varint;
use crate::short::ShortItem;
use crate::store::{Choice, MemoryKey, Wanted};

/// Packs keys.
pub fn pack_keys(keys: &[MemoryKey]) -> Vec<u8> {
    let mut bytes = begin(keys.len());
    keys.iter().for_each(|key| put_key(&mut bytes, key));
    bytes
}

/// Reads keys.
///
/// # Errors
/// `Malformed` where the bytes are none.
pub fn read_keys(bytes: &[u8]) -> Result<Vec<MemoryKey>> {
    let (mut cursor, count) = Cursor::new(bytes, 16)?;
    let keys = (0..count).map(|_| cursor.key()).collect::<Result<_>>()?;
    cursor.end().map(|()| keys)
}

/// Packs what persons chose.
pub fn pack_choices(choices: &[Choice]) -> Vec<u8> {
    let mut bytes = begin(choices.len());
    for choice in choices {
        put_key(&mut bytes, &choice.key);
        bytes.push(u8::from(choice.side == Side::Remote));
        put_seen(&mut bytes, choice.local);
        put_seen(&mut bytes, choice.remote);
    }
    bytes
}

/// Reads what persons chose.
///
/// # Errors
/// `Malformed` where the bytes are none.
pub fn read_choices(bytes: &[u8]) -> Result<Vec<Choice>> {
    let (mut cursor, count) = Cursor::new(bytes, 19)?;
    let choice = |_| {
        let key = cursor.key()?;
        let side = match cursor.byte()? {
            0 => Side::Local,
            1 => Side::Remote,
            _ => return malformed("a third side"),
        };
        Ok(Choice { key, side, local: cursor.seen()?, remote: cursor.seen()? })
    };
    let choices = (0..count).map(choice).collect::<Result<_>>()?;
    cursor.end().map(|()| choices)
}

/// Packs what is asked for, in its order.
pub fn pack_wanted(wanted: &[Wanted]) -> Vec<u8> {
    let mut bytes = begin(wanted.len());
    for Wanted { item, content } in wanted {
        bytes.extend_from_slice(&item.position.to_le_bytes());
        bytes.extend_from_slice(&item.digest);
        bytes.push(u8::from(*content));
    }
    bytes
}

/// Reads what is asked for.
///
/// # Errors
/// `Malformed` where the bytes are none.
pub fn read_wanted(bytes: &[u8]) -> Result<Vec<Wanted>> {
    let (mut cursor, count) = Cursor::new(bytes, 25)?;
    let wanted = |_| {
        let item = ShortItem { position: i64::from_le_bytes(cursor.array()?), digest: cursor.array()? };
        match cursor.byte()? {
            content @ (0 | 1) => Ok(Wanted { item, content: content == 1 }),
            _ => malformed("something else than a row or its key is wanted"),
        }
    };
    let wanted = (0..count).map(wanted).collect::<Result<_>>()?;
    cursor.end().map(|()| wanted)
}

/// A row that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// With its content, in wire form: all else is in it.
    Row(Vec<u8>),
    /// Without.
    Key {
        /// Position and digest.
        item: Item,
        /// Its version as a number.
        revision: i64,
        /// The encoded key.
        key: Vec<u8>,
    },
}

impl Found {
    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Found::Row(row) => row.len(),
            Found::Key { key, .. } => 48 + key.len(),
        }
    }
}

/// Packs rows that were asked for, of the first `looked_for` of the list.
pub fn pack_fetched(looked_for: usize, found: &[Found]) -> Vec<u8> {
    let mut bytes = vec![ENCODING_VERSION];
    put_varint(&mut bytes, looked_for as u64);
    put_varint(&mut bytes, found.len() as u64);
    for found in found {
        match found {
            Found::Row(row) => {
                bytes.push(0);
                put_bytes(&mut bytes, row);
            }
            Found::Key { item, revision, key } => {
                bytes.push(1);
                bytes.extend_from_slice(&item.position.to_le_bytes());
                bytes.extend_from_slice(&item.digest.0);
                bytes.extend_from_slice(&revision.to_le_bytes());
                put_bytes(&mut bytes, key);
            }
        }
    }
    bytes
}

/// Reads rows that were asked for, and how many of the list were looked for.
///
/// # Errors
/// `Malformed` where the bytes are none.
pub fn read_fetched(bytes: &[u8]) -> Result<(usize, Vec<Found>)> {
    let mut cursor = Cursor::versioned(bytes)?;
    let looked_for = cursor.number()?;
    let count = cursor.count(2)?;
    let mut found = Vec::with_capacity(count.min(1 << 12));
    for _ in 0..count {
        found.push(match cursor.byte()? {
            0 => Found::Row(cursor.sized()?.to_vec()),
            1 => {
                let (position, digest) = (i64::from_le_bytes(cursor.array()?), RowDigest(cursor.array()?));
                let revision = i64::from_le_bytes(cursor.array()?);
                Found::Key { item: Item { position, digest }, revision, key: cursor.sized()?.to_vec() }
            }
            _ => return malformed("a row of another kind"),
        });
    }
    cursor.end()?;
    match usize::try_from(looked_for) {
        Ok(looked_for) => Ok((looked_for, found)),
        Err(_) => malformed("more rows were looked for than there can be"),
    }
}
