//! Short items: what a comparison needs of a row. Whole digests and keys are asked for where rows differ.
//!
//! ```text
//! short items = version(1) count(varint) [ first(zigzag varint) digest(16) *(step(varint) digest(16)) ]
//! ```
//! Items come by ascending position; each further position is a step from the one before.

use crate::ENCODING_VERSION;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Item;
use crate::row::{put_varint, take_varint};

/// The first bytes of a digest.
pub type ShortDigest = [u8; 16];

/// A row as comparisons see it: where it stands, and the first half of its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShortItem {
    /// The row's position.
    pub position: i64,
    /// The first 16 bytes of the digest of its content.
    pub digest: ShortDigest,
}

impl ShortItem {
    /// The digest's low 64 bits, as they count in a [`crate::ranges::ShortSum`].
    pub fn low(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.digest;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl From<&Item> for ShortItem {
    fn from(item: &Item) -> Self {
        let mut digest = [0; 16];
        digest.copy_from_slice(&item.digest.0[..16]);
        ShortItem { position: item.position, digest }
    }
}

pub(crate) fn zigzag(position: i64) -> u64 {
    ((position as u64) << 1) ^ ((position >> 63) as u64)
}

pub(crate) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Packs items, in whatever order they come.
pub fn pack_items(items: &[ShortItem]) -> Vec<u8> {
    let mut items = items.to_vec();
    items.sort_unstable();
    let mut bytes = Vec::with_capacity(12 + items.len() * 18);
    bytes.push(ENCODING_VERSION);
    put_varint(&mut bytes, items.len() as u64);
    let mut before = None;
    for item in items {
        match before {
            None => put_varint(&mut bytes, zigzag(item.position)),
            Some(before) => put_varint(&mut bytes, item.position.wrapping_sub(before) as u64),
        }
        bytes.extend_from_slice(&item.digest);
        before = Some(item.position);
    }
    bytes
}

/// Reads packed items, by ascending position and digest.
///
/// # Errors
/// `Malformed` where the bytes are none.
pub fn read_items(bytes: &[u8]) -> Result<Vec<ShortItem>> {
    let malformed = |what: &str| Error::new(ErrorKind::Malformed, what);
    let Some((&ENCODING_VERSION, rest)) = bytes.split_first() else {
        return Err(malformed("a list of short items of another kind or version"));
    };
    let (count, mut rest) = take_varint(rest)?;
    // Each takes 17 bytes at least.
    if count > rest.len() as u64 / 17 {
        return Err(malformed("the bytes end inside a list of short items"));
    }
    let mut items: Vec<ShortItem> = Vec::with_capacity(rest.len() / 17);
    for _ in 0..count {
        let (number, after) = take_varint(rest)?;
        let position = match items.last() {
            None => unzigzag(number),
            Some(before) => before
                .position
                .checked_add_unsigned(number)
                .ok_or_else(|| malformed("a position beyond the end of the axis"))?,
        };
        let (digest, after) = after
            .split_first_chunk::<16>()
            .ok_or_else(|| malformed("the bytes end inside a list of short items"))?;
        let item = ShortItem { position, digest: *digest };
        if items.last().is_some_and(|before| *before > item) {
            return Err(malformed("short items out of order"));
        }
        items.push(item);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(malformed("bytes after the last short item"));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item() -> impl Strategy<Value = ShortItem> {
        let position = prop_oneof![any::<i64>(), -3..3i64, i64::MAX - 2..=i64::MAX, i64::MIN..=i64::MIN + 2];
        (position, any::<[u8; 16]>()).prop_map(|(position, digest)| ShortItem { position, digest })
    }

    proptest! {
        #[test]
        fn lists_come_back_in_order(mut items in prop::collection::vec(item(), 0..20)) {
            let bytes = pack_items(&items);
            items.sort_unstable();
            prop_assert_eq!(read_items(&bytes), Ok(items));
            for cut in 0..bytes.len() {
                prop_assert!(read_items(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = read_items(&bytes);
            bytes.insert(0, ENCODING_VERSION);
            let _ = read_items(&bytes);
        }
    }

    #[test]
    fn items_out_of_order_are_refused() {
        let items = [1, 2].map(|byte| ShortItem { position: 5, digest: [byte; 16] });
        let mut bytes = pack_items(&items);
        assert!(read_items(&bytes).is_ok());
        let (first, second) = bytes[3..].split_at_mut(17);
        first[..16].swap_with_slice(&mut second[..16]);
        assert!(read_items(&bytes).is_err());
    }

    #[test]
    fn neighbours_take_seventeen_bytes() {
        let items: Vec<_> = (0..100).map(|position| ShortItem { position, digest: [7; 16] }).collect();
        assert_eq!(pack_items(&items).len(), 2 + 17 * 100);
    }
}
