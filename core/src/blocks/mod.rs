//! Kept manifests: the arithmetic of blocks and of the changes that are still to be added to them.
//!
//! A replica's rows are told of in **blocks**: disjoint [`Dyadic`] ranges, each with row count, digest sum and
//! greatest time of change; where no block is, no row is. A statement that changes rows writes **entries**:
//! ranges with what was added to them less what was taken away. Blocks and entries together say exactly what
//! a replica holds; [`merge`] adds them up, and folding writes the sums back as blocks of a handy size.

mod changes;
mod entries;
mod fold;

pub use changes::{Change, Changes};
pub use entries::{pack_entries, read_entries};
pub use fold::{Difference, coalesce, difference};

use crate::dyadic::Dyadic;
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::Fingerprint;

/// Rows that a block holds where it can be chosen. Above twice as many it is split, neighbours that hold half
/// as many together become one.
pub const BLOCK_ROWS: u64 = 1_024;

/// What a statement did to the rows of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where the rows stand.
    pub range: Dyadic,
    /// The rows added less those taken away. Modular: a negative row count is its two's complement.
    pub change: Fingerprint,
    /// The greatest time of change among the rows added, in microseconds since 2000-01-01 UTC.
    pub added: Option<i64>,
    /// The same of the rows taken away.
    pub removed: Option<i64>,
}

/// The rows of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Where they stand.
    pub range: Dyadic,
    /// How many, and their digest sum.
    pub fingerprint: Fingerprint,
    /// Their greatest time of change, in microseconds since 2000-01-01 UTC; where [`lost`](Self::lost), none is
    /// greater.
    pub max_modified: Option<i64>,
    /// The row with the greatest time of change may be gone: it is known again once the rows are looked at.
    pub lost: bool,
}

impl Node {
    /// Whether it holds so many rows that it is to be split. A single position cannot be.
    pub fn is_oversize(&self) -> bool {
        self.fingerprint.row_count() > 2 * BLOCK_ROWS && !self.range.is_point()
    }
}

/// What of a sum of blocks and entries is still being added up.
struct Sum {
    node: Node,
    removed: Option<i64>,
}

impl Sum {
    /// The finished node; `None` where no row is left.
    fn finish(mut self) -> Result<Option<Node>> {
        let count = self.node.fingerprint.row_count();
        if count > i64::MAX as u64 || (count == 0 && self.node.fingerprint != Fingerprint::default()) {
            let message = format!("changes that do not fit the rows from {} on", self.node.range.first());
            return Err(Error::new(ErrorKind::Malformed, message));
        }
        self.node.lost |= self.removed.is_some() && self.removed >= self.node.max_modified;
        Ok((count > 0).then_some(self.node))
    }
}

/// What blocks and entries amount to: disjoint nodes in order, none of them empty. A range that holds others
/// becomes one node with them.
///
/// # Errors
/// `Malformed` where more rows were taken away than there were.
pub fn merge(blocks: impl IntoIterator<Item = Node>, entries: &[Entry]) -> Result<Vec<Node>> {
    let of_entry = |entry: &Entry| Sum {
        node: Node { range: entry.range, fingerprint: entry.change, max_modified: entry.added, lost: false },
        removed: entry.removed,
    };
    let mut sums: Vec<Sum> = blocks.into_iter().map(|node| Sum { node, removed: None }).collect();
    sums.extend(entries.iter().map(of_entry));
    // A range stands before its parts.
    sums.sort_by_key(|sum| sum.node.range);
    let mut nodes = Vec::new();
    let mut outer: Option<Sum> = None;
    for sum in sums {
        match &mut outer {
            Some(outer) if outer.node.range.contains_range(&sum.node.range) => {
                outer.node.fingerprint.combine(&sum.node.fingerprint);
                outer.node.max_modified = outer.node.max_modified.max(sum.node.max_modified);
                outer.node.lost |= sum.node.lost;
                outer.removed = outer.removed.max(sum.removed);
            }
            _ => {
                if let Some(done) = outer.replace(sum) {
                    nodes.extend(done.finish()?);
                }
            }
        }
    }
    if let Some(done) = outer {
        nodes.extend(done.finish()?);
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests;
