//! From rows that a statement changed, or that a scan found, to entries.

use super::{BLOCK_ROWS, Entry};
use crate::digest::RowDigest;
use crate::dyadic::Dyadic;
use crate::fingerprint::Fingerprint;

/// Changes of as many rows or fewer get an entry a position, without a look at the blocks.
const FEW: usize = 128;

/// Changes that are kept in memory, 64 bytes each, before they are summed up.
const BUFFER: usize = 1 << 18;

/// One row added or taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Where it stands.
    pub position: i64,
    /// What it holds.
    pub digest: RowDigest,
    /// When it was last changed, in microseconds since 2000-01-01 UTC.
    pub modified: Option<i64>,
    /// Added, or taken away.
    pub added: bool,
}

/// Collects changes of one replica in bounded memory.
#[derive(Debug, Default)]
pub struct Changes {
    buffer: Vec<Change>,
    entries: Vec<Entry>,
}

impl Changes {
    /// Adds a change. Where [`is_full`](Self::is_full) says so afterwards, a flush is due.
    pub fn push(&mut self, change: Change) {
        self.buffer.push(change);
    }

    /// Whether the buffer is to be flushed before more is added.
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= BUFFER
    }

    /// Whether so many rows were changed that entries are better made to fit the blocks there are.
    pub fn are_many(&self) -> bool {
        self.buffer.len() > FEW || !self.entries.is_empty()
    }

    /// Sums up what is in the buffer. `blocks`: the ranges of the replica's blocks, in order.
    pub fn flush(&mut self, blocks: &[Dyadic]) {
        self.buffer.sort_unstable_by_key(|change| change.position);
        divide(&self.buffer, blocks, &mut self.entries);
        self.buffer.clear();
    }

    /// As [`flush`](Self::flush), for changes that arrive by ascending position: keeps those of the last range
    /// back, to which more may come.
    pub fn flush_ordered(&mut self) {
        self.divide_rest();
        match self.entries.last() {
            Some(last) if !last.range.is_point() => {
                let range = last.range;
                self.entries.pop();
                self.buffer.retain(|change| range.contains(change.position));
            }
            _ => self.buffer.clear(),
        }
    }

    /// Sums up changes beyond all entries so far, of which none may end up within a range of later ones.
    fn divide_rest(&mut self) {
        let last = self.entries.last().map(|entry| entry.range);
        divide(&self.buffer, last.as_slice(), &mut self.entries);
    }

    /// All changes as entries. `blocks` as for [`flush`](Self::flush), or empty.
    pub fn finish(mut self, blocks: &[Dyadic]) -> Vec<Entry> {
        if self.are_many() {
            self.flush(blocks);
            return self.joined();
        }
        self.buffer.sort_unstable_by_key(|change| change.position);
        let by_position = self.buffer.chunk_by(|one, next| one.position == next.position);
        by_position.map(|changes| sum(Dyadic::point(changes[0].position), changes)).collect()
    }

    /// As [`finish`](Self::finish), for changes that arrived by ascending position.
    pub fn finish_ordered(mut self) -> Vec<Entry> {
        self.divide_rest();
        self.joined()
    }

    /// The entries in order, one a range.
    fn joined(mut self) -> Vec<Entry> {
        self.entries.sort_by_key(|entry| entry.range);
        self.entries.dedup_by(|next, entry| {
            let same = next.range == entry.range;
            if same {
                entry.change.combine(&next.change);
                entry.added = entry.added.max(next.added);
                entry.removed = entry.removed.max(next.removed);
            }
            same
        });
        self.entries
    }
}

fn sum(range: Dyadic, changes: &[Change]) -> Entry {
    let mut entry = Entry { range, change: Fingerprint::default(), added: None, removed: None };
    for change in changes {
        if change.added {
            entry.change.insert(&change.digest);
            entry.added = entry.added.max(change.modified);
        } else {
            entry.change.remove(&change.digest);
            entry.removed = entry.removed.max(change.modified);
        }
    }
    entry
}

/// Entries of changes in order: each lies within one block or holds none, and there the changes of at most one
/// block's worth of rows.
fn divide(changes: &[Change], blocks: &[Dyadic], entries: &mut Vec<Entry>) {
    let (Some(first), Some(last)) = (changes.first(), changes.last()) else { return };
    let range = Dyadic::enclosing(first.position, last.position);
    let begin = blocks.partition_point(|block| block.last() < range.first());
    let end = blocks.partition_point(|block| block.first() <= range.last());
    let blocks = &blocks[begin..end];
    let fits = match blocks {
        [] => changes.len() as u64 <= BLOCK_ROWS,
        [block, ..] => block.contains_range(&range),
    };
    match range.halves().filter(|_| !fits) {
        Some((lower, _)) => {
            let middle = changes.partition_point(|change| change.position <= lower.last());
            let (below, above) = changes.split_at(middle);
            divide(below, blocks, entries);
            divide(above, blocks, entries);
        }
        None => entries.push(sum(range, changes)),
    }
}
