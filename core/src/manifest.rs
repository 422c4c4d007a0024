//! Row manifests as they travel: a list of (position, digest), with or without the rows' keys.
//!
//! ```text
//! items = version(1) flags(1) next(8) count(4) *item
//! item  = position(8) digest(32) [ key-length(varint) key ]      -- key where flag 2 is set
//! ```
//! Flag 1 says that rows beyond are left out, and `next` is the position to go on from.

use crate::ENCODING_VERSION;
use crate::digest::RowDigest;
use crate::error::{Error, ErrorKind, Result};
use crate::row::{put_varint, take_varint};

const MORE: u8 = 1;
const KEYS: u8 = 2;
const HEADER: usize = 14;

/// One row of a row manifest: where it stands, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Item {
    /// The row's position.
    pub position: i64,
    /// The digest of its content.
    pub digest: RowDigest,
}

/// A row of a manifest with its key, as `row::key_of` makes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyedItem {
    /// Position and digest.
    pub item: Item,
    /// The encoded key.
    pub key: Vec<u8>,
}

/// A row manifest of a range, or of its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// The rows by ascending position; rows of one position are never split between two answers.
    pub items: Vec<Item>,
    /// The position to go on from, where rows were left out.
    pub next: Option<i64>,
}

/// Writes items.
#[derive(Debug)]
pub struct ItemsWriter {
    bytes: Vec<u8>,
    count: u32,
    keys: bool,
}

impl ItemsWriter {
    /// An empty list, of rows with or without keys.
    pub fn new(keys: bool) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[0] = ENCODING_VERSION;
        bytes[1] = if keys { KEYS } else { 0 };
        ItemsWriter { bytes, count: 0, keys }
    }

    /// The next row; `key` is ignored in a list without keys.
    pub fn push(&mut self, item: &Item, key: &[u8]) {
        self.bytes.extend_from_slice(&item.position.to_le_bytes());
        self.bytes.extend_from_slice(&item.digest.0);
        if self.keys {
            put_varint(&mut self.bytes, key.len() as u64);
            self.bytes.extend_from_slice(key);
        }
        self.count += 1;
    }

    /// How many rows it has.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes; `next` says where to go on, where rows were left out.
    pub fn finish(mut self, next: Option<i64>) -> Vec<u8> {
        if let Some(next) = next {
            self.bytes[1] |= MORE;
            self.bytes[2..10].copy_from_slice(&next.to_le_bytes());
        }
        self.bytes[10..HEADER].copy_from_slice(&self.count.to_le_bytes());
        self.bytes
    }
}

fn read(bytes: &[u8], keys: bool, mut take: impl FnMut(Item, &[u8])) -> Result<Option<i64>> {
    let malformed = |what: &str, at: usize| Error::new(ErrorKind::Malformed, what).at(at);
    let Some((header, mut rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(malformed("a manifest shorter than its header", 0));
    };
    let [version, flags, next @ .., c0, c1, c2, c3] = *header;
    let flags_known = flags & !(MORE | KEYS) == 0 && (flags & KEYS != 0) == keys;
    if version != ENCODING_VERSION || !flags_known {
        return Err(malformed("a manifest of another kind or version", 0));
    }
    if flags & MORE == 0 && next != [0; 8] {
        return Err(malformed("a manifest that goes on and does not", 2));
    }
    for _ in 0..u32::from_le_bytes([c0, c1, c2, c3]) {
        let at = bytes.len() - rest.len();
        let short = || malformed("the bytes end inside a manifest", at);
        let (position, after) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        let (digest, mut after) = after.split_first_chunk::<32>().ok_or_else(short)?;
        let mut key = &[][..];
        if keys {
            let (length, after_length) = take_varint(after).map_err(|error| error.at(at))?;
            let length = usize::try_from(length).map_err(|_| short())?;
            (key, after) = after_length.split_at_checked(length).ok_or_else(short)?;
        }
        take(Item { position: i64::from_le_bytes(*position), digest: RowDigest(*digest) }, key);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(malformed("bytes after a manifest's last row", bytes.len() - rest.len()));
    }
    Ok((flags & MORE != 0).then(|| i64::from_le_bytes(next)))
}

/// Reads a list without keys.
///
/// # Errors
/// `Malformed` where the bytes are none.
pub fn read_manifest(bytes: &[u8]) -> Result<Manifest> {
    let mut items = Vec::with_capacity(bytes.len() / 40);
    let next = read(bytes, false, |item, _| items.push(item))?;
    Ok(Manifest { items, next })
}

/// Reads a list with keys, and where to go on from.
///
/// # Errors
/// `Malformed` where the bytes are none.
pub fn read_keyed(bytes: &[u8]) -> Result<(Vec<KeyedItem>, Option<i64>)> {
    let mut items = Vec::new();
    let next = read(bytes, true, |item, key| items.push(KeyedItem { item, key: key.to_vec() }))?;
    Ok((items, next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item() -> impl Strategy<Value = Item> {
        (any::<i64>(), any::<[u8; 32]>())
            .prop_map(|(position, digest)| Item { position, digest: RowDigest(digest) })
    }

    proptest! {
        #[test]
        fn lists_come_back(rows in prop::collection::vec((item(), any::<Vec<u8>>()), 0..9), next: Option<i64>) {
            let (mut plain, mut keyed) = (ItemsWriter::new(false), ItemsWriter::new(true));
            for (item, key) in &rows {
                plain.push(item, key);
                keyed.push(item, key);
            }
            let (plain, keyed) = (plain.finish(next), keyed.finish(next));
            let items: Vec<_> = rows.iter().map(|(item, _)| *item).collect();
            prop_assert_eq!(read_manifest(&plain), Ok(Manifest { items, next }));
            let rows: Vec<_> = rows.into_iter().map(|(item, key)| KeyedItem { item, key }).collect();
            prop_assert_eq!(read_keyed(&keyed), Ok((rows, next)));
            prop_assert!(read_manifest(&keyed).is_err());
            if next.is_none() {
                let mut otherwise = plain.clone();
                otherwise[5] = 1;
                prop_assert!(read_manifest(&otherwise).is_err(), "a place to go on from, and nothing beyond");
            }
            for cut in 0..keyed.len() {
                prop_assert!(read_keyed(&keyed[..cut]).is_err());
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (read_manifest(&bytes), read_keyed(&bytes));
        }
    }
}
