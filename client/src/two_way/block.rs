//! The base in blocks: what both sides last agreed on, 32 bytes a key, the keys of a stretch of positions in one note.
//!
//! ```text
//! block = *( position(8) tail(8) digest(16) )       -- by ascending position and tail; numbers little-endian
//! ```
//! A block holds all keys from its lowest position, by which it is found, to the next block's. A single note for each key
//! would take half as much room again, and ten times as long to read.

use plimsoll_core::store::{MemoryKey, ShortDigest};

/// Bytes of a key and what was agreed on.
pub const ENTRY: usize = 32;
/// Keys of a block at most, unless they share a position: a block of SQLite is good for one page of its file.
const MOST: usize = 120;
/// A block of fewer keys goes together with the next that is written.
const FEW: usize = MOST / 4;

/// What both sides last agreed on: the digest of a key's row.
pub type Agreed = (MemoryKey, ShortDigest);

/// The keys of a block; `None` where the bytes are none.
pub fn read(bytes: &[u8]) -> Option<impl ExactSizeIterator<Item = Agreed> + '_> {
    let (entries, rest) = bytes.as_chunks::<ENTRY>();
    rest.is_empty().then(|| entries.iter().map(entry))
}

fn entry(bytes: &[u8; ENTRY]) -> Agreed {
    let (mut position, mut tail, mut digest) = ([0; 8], [0; 8], [0; 16]);
    position.copy_from_slice(&bytes[..8]);
    tail.copy_from_slice(&bytes[8..16]);
    digest.copy_from_slice(&bytes[16..]);
    (MemoryKey { position: i64::from_le_bytes(position), tail }, digest)
}

fn pack(entries: &[Agreed]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY);
    for (key, digest) in entries {
        bytes.extend_from_slice(&key.position.to_le_bytes());
        bytes.extend_from_slice(&key.tail);
        bytes.extend_from_slice(digest);
    }
    bytes
}

/// A block with the position by which it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The lowest position that belongs to it.
    pub lowest: i64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What is to be written in place of blocks that meet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Blocks that are no more, by their lowest positions.
    pub gone: Vec<i64>,
    /// Blocks that are new, or another.
    pub put: Vec<Block>,
    /// How many keys more they hold.
    pub more: i64,
}

/// Changes blocks, which ascend and meet; a change to `None`: the key is in none any more. Changes ascend, and are all of
/// positions that belong to these blocks or lie below all there are. `None` where the bytes of a block are none.
pub fn rewrite(blocks: &[Block], changes: &[(MemoryKey, Option<ShortDigest>)]) -> Option<Rewritten> {
    let mut rewritten = Rewritten::default();
    let mut left = changes;
    // What a block holds that has become too small, and its lowest position.
    let mut carried: Option<(i64, Vec<Agreed>)> = None;
    // What is below all blocks belongs to none yet.
    let first = changes.first().map(|(key, _)| key.position);
    let is_below = first.is_some_and(|first| blocks.first().is_none_or(|block| first < block.lowest));
    let below = is_below.then(|| Block { lowest: i64::MIN, bytes: Vec::new() });
    let all: Vec<&Block> = below.iter().chain(blocks).collect();
    for (at, block) in all.iter().enumerate() {
        let end = all.get(at + 1).map(|next| next.lowest);
        let own = end.map_or(left.len(), |end| left.partition_point(|(key, _)| key.position < end));
        let (own, rest) = left.split_at(own);
        left = rest;
        if own.is_empty() && carried.is_none() {
            continue;
        }
        let before = read(&block.bytes)?;
        let held = before.len();
        let merged = merged(before, own);
        rewritten.more += merged.len() as i64 - held as i64;
        let (lowest, entries) = match carried.take() {
            Some((lowest, mut entries)) => {
                entries.extend(merged);
                rewritten.gone.push(block.lowest);
                (lowest, entries)
            }
            None => (block.lowest, merged),
        };
        if entries.is_empty() {
            rewritten.gone.push(lowest);
        } else if entries.len() < FEW && end.is_some() {
            carried = Some((lowest, entries));
        } else {
            rewritten.put.extend(divided(lowest, &entries));
        }
    }
    Some(rewritten)
}

/// The keys of a block once it is changed.
fn merged(before: impl Iterator<Item = Agreed>, changes: &[(MemoryKey, Option<ShortDigest>)]) -> Vec<Agreed> {
    let (mut before, mut changes) = (before.peekable(), changes.iter().peekable());
    let mut merged = Vec::with_capacity(MOST);
    while let Some((key, digest)) = changes.next() {
        while let Some(entry) = before.next_if(|(other, _)| other < key) {
            merged.push(entry);
        }
        before.next_if(|(other, _)| other == key);
        // Of several changes of a key the last one counts.
        if changes.peek().is_none_or(|(next, _)| next != key) {
            merged.extend(digest.map(|digest| (*key, digest)));
        }
    }
    merged.extend(before);
    merged
}

/// Keys in blocks of about equal size, cut between positions.
fn divided(lowest: i64, entries: &[Agreed]) -> Vec<Block> {
    let size = entries.len().div_ceil(entries.len().div_ceil(MOST).max(1)).max(1);
    let (mut blocks, mut rest, mut from) = (Vec::new(), entries, lowest);
    while !rest.is_empty() {
        let mut end = size.min(rest.len());
        while end < rest.len() && rest[end].0.position == rest[end - 1].0.position {
            end += 1;
        }
        let (own, after) = rest.split_at(end);
        blocks.push(Block { lowest: from, bytes: pack(own) });
        rest = after;
        from = after.first().map_or(from, |(key, _)| key.position);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn key(position: i64, tail: u8) -> MemoryKey {
        MemoryKey { position, tail: [tail; 8] }
    }

    /// Blocks as a database keeps them.
    #[derive(Default)]
    struct Kept(BTreeMap<i64, Vec<u8>>);

    impl Kept {
        fn change(&mut self, changes: &[(MemoryKey, Option<ShortDigest>)]) -> Rewritten {
            let positions = changes.iter().map(|(key, _)| key.position);
            let (from, to) = (positions.clone().min().unwrap_or(0), positions.max().unwrap_or(0));
            let first = self.0.range(..=from).next_back().map_or(i64::MIN, |(lowest, _)| *lowest);
            let blocks: Vec<Block> = self
                .0
                .range(first..=to)
                .map(|(lowest, bytes)| Block { lowest: *lowest, bytes: bytes.clone() })
                .collect();
            let rewritten = rewrite(&blocks, changes).expect("sound blocks");
            rewritten.gone.iter().for_each(|lowest| drop(self.0.remove(lowest)));
            let put = rewritten.put.iter().cloned();
            self.0.extend(put.map(|block| (block.lowest, block.bytes)));
            rewritten
        }

        fn all(&self) -> BTreeMap<MemoryKey, ShortDigest> {
            let mut all = BTreeMap::new();
            let ends: Vec<i64> = self.0.keys().copied().skip(1).chain([i64::MAX]).collect();
            for ((lowest, bytes), end) in self.0.iter().zip(ends) {
                assert!(!bytes.is_empty());
                for (key, digest) in read(bytes).expect("a block") {
                    assert!(
                        *lowest <= key.position && key.position <= end,
                        "{key:?} in the block of {lowest}"
                    );
                    assert!(all.last_key_value().is_none_or(|(last, _)| *last < key), "out of order");
                    all.insert(key, digest);
                }
            }
            all
        }
    }

    #[test]
    fn blocks_hold_what_was_put_into_them_and_nothing_that_was_taken_out() {
        // A small generator of its own: the same in all runs.
        let mut state = 7u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut kept, mut expected) = (Kept::default(), BTreeMap::new());
        for round in 0..400u64 {
            let grows = round < 150 || (250..300).contains(&round);
            let width = [40, 3_000, 1 << 31][random(3) as usize];
            let from = random(1 << 31) as i64 - (1 << 30);
            let mut changes = BTreeMap::new();
            for _ in 0..random(300) + 1 {
                // Some share a position.
                let position = (from + random(width) as i64) / 3 * 3;
                let known = expected.range(key(position, 0)..).next().map(|(key, _): (&MemoryKey, _)| *key);
                let inside = known.filter(|key| key.position < from + width as i64);
                let of = if grows { None } else { inside }.unwrap_or(key(position, random(3) as u8));
                let digest = (grows || random(8) == 0).then(|| [random(256) as u8; 16]);
                changes.insert(of, digest);
            }
            let before = expected.len() as i64;
            for (key, digest) in &changes {
                match digest {
                    Some(digest) => drop(expected.insert(*key, *digest)),
                    None => drop(expected.remove(key)),
                }
            }
            let changes: Vec<_> = changes.into_iter().collect();
            let rewritten = kept.change(&changes);
            assert_eq!(rewritten.more, expected.len() as i64 - before);
            assert_eq!(kept.all(), expected, "round {round}");
        }
    }

    #[test]
    fn keys_in_order_fill_blocks_and_one_changed_key_rewrites_one() {
        let mut kept = Kept::default();
        for from in (0..40_960).step_by(4_096) {
            let keys: Vec<_> = (from..from + 4_096).map(|at| (key(at * 1_000, 1), Some([1; 16]))).collect();
            kept.change(&keys);
        }
        let bytes: usize = kept.0.values().map(Vec::len).sum();
        assert_eq!(bytes, 40_960 * ENTRY);
        assert!(kept.0.len() < 40_960 / 100, "{} blocks", kept.0.len());
        let rewritten = kept.change(&[(key(20_000_000, 1), Some([2; 16]))]);
        assert_eq!((rewritten.put.len(), rewritten.gone.len(), rewritten.more), (1, 0, 0));
        let rewritten = kept.change(&[(key(20_000_001, 1), Some([2; 16]))]);
        assert!(rewritten.put.len() <= 2 && rewritten.more == 1, "{rewritten:?}");
    }

    #[test]
    fn bytes_that_are_no_block_are_told() {
        assert!(read(&[0; ENTRY + 1]).is_none());
        let damaged = Block { lowest: 0, bytes: vec![0; 31] };
        assert_eq!(rewrite(&[damaged], &[(key(3, 0), None)]), None);
    }
}
