//! Folding: from exact nodes back to blocks of a handy size.

use super::{BLOCK_ROWS, Node};
use crate::dyadic::Dyadic;
use crate::store::PositionRange;

/// Joins neighbours that together hold few rows. `known` is where every block of the replica is among the
/// nodes: nothing is joined across what lies beyond.
pub fn coalesce(nodes: &[Node], known: PositionRange) -> Vec<Node> {
    let mut joined = Vec::with_capacity(nodes.len());
    join(nodes, known, &mut joined);
    joined
}

fn join(nodes: &[Node], known: PositionRange, joined: &mut Vec<Node>) {
    let [first, .., last] = nodes else {
        joined.extend(nodes);
        return;
    };
    let range = Dyadic::enclosing(first.range.first(), last.range.last());
    // Counts are summed only as far as they matter: the range is divided at most 64 times.
    let mut rows = 0;
    let few = range.lies_in(&known)
        && nodes.iter().all(|node| {
            rows += node.fingerprint.row_count();
            rows <= BLOCK_ROWS / 2
        });
    if few {
        let mut whole = Node { range, ..*first };
        for node in &nodes[1..] {
            whole.fingerprint.combine(&node.fingerprint);
            whole.max_modified = whole.max_modified.max(node.max_modified);
            whole.lost |= node.lost;
        }
        joined.push(whole);
    } else if let Some((lower, _)) = range.halves() {
        let middle = nodes.partition_point(|node| node.range.first() <= lower.last());
        join(&nodes[..middle], known, joined);
        join(&nodes[middle..], known, joined);
    }
}

/// What is to be written so that the blocks before become those after.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// Ranges whose blocks go.
    pub gone: Vec<Dyadic>,
    /// Blocks that are new or hold something else now.
    pub written: Vec<Node>,
}

/// Compares two lists of blocks, each in order. A block is known by its first position: one that keeps it and
/// has another range is written, not gone.
pub fn difference(before: &[Node], after: &[Node]) -> Difference {
    let mut difference = Difference::default();
    let mut before = before.iter().peekable();
    for node in after {
        while let Some(gone) = before.next_if(|old| old.range.first() < node.range.first()) {
            difference.gone.push(gone.range);
        }
        let same_place = before.next_if(|old| old.range.first() == node.range.first());
        if same_place != Some(node) {
            difference.written.push(*node);
        }
    }
    difference.gone.extend(before.map(|old| old.range));
    difference
}
