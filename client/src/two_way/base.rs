//! The base in the local database: blocks read and written, and what they say of ranges added up.

use plimsoll_core::store::{LocalHeld, MemoryKey, Outcome, PositionRange, Seen, SeenSum, ShortDigest};

use super::block::{self, Agreed, Block, rewrite};
use super::notes::{BASE, damaged, each_open};
use crate::source::notes::Cell;
use crate::source::write::{Look, Transaction};

/// More stretches than these are read in one go, with what lies between them.
const MOST_STRETCHES: usize = 64;
/// Keys that are farther apart than so many blocks are read by themselves.
const NEAR_BLOCKS: u64 = 4;

/// The blocks to which the positions of a range belong, in order.
fn each_block(
    look: &mut dyn Look,
    relation: i64,
    range: PositionRange,
    each: &mut dyn FnMut(i64, &[u8]) -> Outcome<()>,
) -> Outcome<()> {
    let mut sql = format!("SELECT lowest, entries FROM {BASE} WHERE relation = ?");
    let mut cells = vec![Cell::Int(relation)];
    if let Some(from) = range.from {
        sql += &format!(
            " AND lowest >= COALESCE((SELECT MAX(lowest) FROM {BASE} WHERE relation = ? AND lowest <= ?), ?)"
        );
        cells.extend([Cell::Int(relation), Cell::Int(from), Cell::Int(i64::MIN)]);
    }
    if let Some(to) = range.to {
        sql += " AND lowest < ?";
        cells.push(Cell::Int(to));
    }
    sql += " ORDER BY lowest";
    look.query(&sql, &cells, &mut |cells| match cells {
        [Cell::Int(lowest), Cell::Bytes(bytes)] => each(*lowest, bytes),
        _ => Err(damaged("a block of the base")),
    })
}

/// What was agreed on of each key of these ranges, which ascend and may meet.
pub fn each_agreed(
    look: &mut dyn Look,
    relation: i64,
    ranges: &[PositionRange],
    each: &mut dyn FnMut(usize, Agreed),
) -> Outcome<()> {
    let mut at = 0;
    for stretch in stretches(ranges) {
        each_block(look, relation, stretch, &mut |_, bytes| {
            for (key, digest) in block::read(bytes).ok_or_else(|| damaged("a block of the base"))? {
                if !ranges.get(at).is_some_and(|range| range.contains(key.position)) {
                    at = ranges.partition_point(|range| range.to.is_some_and(|to| to <= key.position));
                }
                if ranges.get(at).is_some_and(|range| range.contains(key.position)) {
                    each(at, (key, digest));
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// What is to be read for these ranges: each by itself, or all with what lies between them where they are many.
pub fn stretches(ranges: &[PositionRange]) -> Vec<PositionRange> {
    let mut joined: Vec<PositionRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.to.is_some() && last.to == range.from => last.to = range.to,
            _ => joined.push(*range),
        }
    }
    match (&joined[..], joined.len() > MOST_STRETCHES) {
        ([first, .., last], true) => vec![PositionRange { from: first.from, to: last.to }],
        _ => joined,
    }
}

/// The place of the range that a position is in.
pub fn place_of(ranges: &[PositionRange], position: i64) -> Option<usize> {
    let at = ranges.partition_point(|range| range.to.is_some_and(|to| to <= position));
    ranges.get(at).filter(|range| range.contains(position)).map(|_| at)
}

/// Takes away what was added of a key.
fn take(sum: &mut SeenSum, seen: Seen) {
    let mut own = SeenSum::default();
    own.add(seen);
    sum.rows = sum.rows.wrapping_sub(own.rows);
    sum.sum.0 = sum.sum.0.wrapping_sub(own.sum.0);
}

/// Adds up what is remembered of ranges. One pass over their blocks, and one over the keys that are open.
pub fn add_up(
    look: &mut dyn Look,
    relation: i64,
    ranges: &[PositionRange],
    held: &mut [LocalHeld],
) -> Outcome<()> {
    each_agreed(look, relation, ranges, &mut |at, (_, digest)| {
        if let Some(held) = held.get_mut(at) {
            held.local.add(Seen::Row(digest));
        }
    })?;
    held.iter_mut().for_each(|held| held.remote = held.local);
    for stretch in stretches(ranges) {
        each_open(look, relation, stretch, &mut |opened| {
            let place = place_of(ranges, opened.key.position);
            if let Some(held) = place.and_then(|place| held.get_mut(place)) {
                for (sum, seen) in
                    [(&mut held.local, opened.open.local), (&mut held.remote, opened.open.remote)]
                {
                    take(sum, opened.base.into());
                    sum.add(seen);
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Remembers what was agreed on of keys, which ascend; `None`: that neither side has them. `known`: about how many keys the
/// base has. Answers how many more it has then.
pub fn agree(
    transaction: &mut dyn Transaction,
    relation: i64,
    known: u64,
    changes: &[(MemoryKey, Option<ShortDigest>)],
) -> Outcome<i64> {
    let block_width = u64::MAX / (known / 64).max(1);
    let near = block_width.saturating_mul(NEAR_BLOCKS);
    let (mut more, mut gone, mut put) = (0, Vec::new(), Vec::new());
    for span in changes.chunk_by(|(a, _), (b, _)| a.position.abs_diff(b.position) <= near) {
        let (Some((first, _)), Some((last, _))) = (span.first(), span.last()) else { continue };
        let range = PositionRange { from: Some(first.position), to: last.position.checked_add(1) };
        let mut blocks = Vec::new();
        each_block(transaction, relation, range, &mut |lowest, bytes| {
            blocks.push(Block { lowest, bytes: bytes.to_vec() });
            Ok(())
        })?;
        let rewritten = rewrite(&blocks, span).ok_or_else(|| damaged("a block of the base"))?;
        more += rewritten.more;
        // A block that two spans change is written by the first before the second reads it.
        gone.extend(rewritten.gone);
        put.extend(rewritten.put);
        write(transaction, relation, &mut gone, &mut put)?;
    }
    Ok(more)
}

fn write(
    transaction: &mut dyn Transaction,
    relation: i64,
    gone: &mut Vec<i64>,
    put: &mut Vec<Block>,
) -> Outcome<()> {
    let rows: Vec<_> = gone.drain(..).map(|lowest| vec![Cell::Int(relation), Cell::Int(lowest)]).collect();
    let key = ["relation", "lowest"];
    if !rows.is_empty() {
        transaction.notes().remove(transaction, BASE, &key, &rows)?;
    }
    let rows: Vec<_> = put
        .iter()
        .map(|block| vec![Cell::Int(relation), Cell::Int(block.lowest), Cell::Bytes(&block.bytes)])
        .collect();
    if !rows.is_empty() {
        transaction.notes().put(transaction, BASE, &key, &["entries"], &rows)?;
    }
    put.clear();
    Ok(())
}
