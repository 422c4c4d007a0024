//! What a replica holds, from head, blocks and pending changes; all in the snapshot of the caller.

use pgrx::pg_sys::{self, Datum};
use pgrx::{IntoDatum, Uuid};
use plimsoll_core::blocks::{Entry, Node, merge, read_entries};
use plimsoll_core::dyadic::Dyadic;
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::store::{PositionRange, SourceKey};

use super::definition::{self, Definition};
use crate::access::Database;
use crate::datum::{Parameter, Row, read_planned};
use crate::error::Answer;
use crate::identity;
use crate::table::ManagedTable;

/// Whether a replica's manifest can be answered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It says what the rows are.
    Kept,
    /// Something happened that triggers do not see; a rebuild helps.
    Untrusted,
    /// No manifest is kept of the table, or its triggers are not as they must be: for an admin to change.
    Off,
}

/// What all rows of a replica amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// How many, and their digest sum.
    pub fingerprint: Fingerprint,
    /// The highest position.
    pub max_position: Option<i64>,
    /// The greatest time of change, in microseconds since 2000-01-01 UTC.
    pub max_modified: Option<i64>,
}

/// What is kept of a replica besides its blocks.
pub(super) struct Kept {
    /// What the blocks add up to.
    pub total: Node,
    /// What is still to be added to them.
    pub entries: Vec<Entry>,
}

/// The parameters that stand for a replica, first in every statement on our tables.
pub(super) fn replica(database_id: Uuid, table_id: i32) -> [Parameter; 2] {
    [
        Parameter { type_oid: pg_sys::UUIDOID, datum: database_id.into_datum() },
        Parameter { type_oid: pg_sys::INT4OID, datum: Some(Datum::from(table_id)) },
    ]
}

/// A position as a parameter.
pub(super) fn position(position: i64) -> Parameter {
    Parameter { type_oid: pg_sys::INT8OID, datum: Some(Datum::from(position)) }
}

fn sum_at(row: &Row<'_>, count: usize, sum: usize) -> Option<Fingerprint> {
    let sum = row.with_bytes(sum, |bytes| <[u8; 32]>::try_from(bytes).ok()).flatten()?;
    Some(Fingerprint::from_parts(row.int8(count)? as u64, sum))
}

/// Whether the replica's manifest can be answered from.
pub fn state(database: &Database, table: &ManagedTable) -> Answer<State> {
    if !table.keep_manifest {
        return Ok(State::Off);
    }
    let Some(definition) = definition::of(database, table)? else { return Ok(State::Off) };
    Ok(if kept_under(database, table, definition)?.is_some() { State::Kept } else { State::Untrusted })
}

/// Head and pending changes; `None`: off or untrusted.
pub(super) fn kept(database: &Database, table: &ManagedTable) -> Answer<Option<Kept>> {
    if !table.keep_manifest {
        return Ok(None);
    }
    match definition::of(database, table)? {
        Some(definition) => kept_under(database, table, definition),
        None => Ok(None),
    }
}

fn kept_under(database: &Database, table: &ManagedTable, definition: Definition) -> Answer<Option<Kept>> {
    let replica = replica(database.id, table.table_id);
    let mut total = None;
    let mut entries = Some(Vec::new());
    identity::as_extension(|| {
        read_planned(
            "SELECT h.definition, h.mapping, h.row_count, h.sum, h.max_modified FROM plimsoll.kept_head h
             WHERE h.database_id OPERATOR(pg_catalog.=) $1 AND h.table_id OPERATOR(pg_catalog.=) $2",
            &replica,
            &mut |row| {
                let same = row.with_bytes(0, |hash| hash == definition.hash.0) == Some(true)
                    && row.int8(1) == Some(definition.mapping);
                total = sum_at(row, 2, 3).filter(|_| same).map(|fingerprint| Node {
                    range: Dyadic::ALL,
                    fingerprint,
                    max_modified: row.int8(4),
                    lost: false,
                });
                Ok(true)
            },
        )?;
        if total.is_none() {
            return Ok(());
        }
        read_planned(
            "SELECT d.mapping, d.entries FROM plimsoll.kept_delta d
             WHERE d.database_id OPERATOR(pg_catalog.=) $1 AND d.table_id OPERATOR(pg_catalog.=) $2",
            &replica,
            &mut |row| {
                let read = row.with_bytes(1, read_entries).and_then(Result::ok);
                match (&mut entries, read.filter(|_| row.int8(0) == Some(definition.mapping))) {
                    (Some(entries), Some(read)) => entries.extend(read),
                    _ => entries = None,
                }
                Ok(entries.is_some())
            },
        )
    })?;
    Ok(total.zip(entries).map(|(total, entries)| Kept { total, entries }))
}

/// The blocks that share a position with `first..=last`, in order.
pub(super) fn blocks(database_id: Uuid, table_id: i32, first: i64, last: i64) -> Answer<Vec<Node>> {
    let [database, table] = replica(database_id, table_id);
    let mut blocks = Vec::new();
    identity::as_extension(|| {
        read_planned(
            "SELECT b.first_position, b.last_position, b.row_count, b.sum, b.max_modified
             FROM plimsoll.kept_block b
             WHERE b.database_id OPERATOR(pg_catalog.=) $1 AND b.table_id OPERATOR(pg_catalog.=) $2
               AND b.first_position OPERATOR(pg_catalog.<=) $4
               AND b.first_position OPERATOR(pg_catalog.>=) COALESCE(
                   (SELECT pg_catalog.max(o.first_position) FROM plimsoll.kept_block o
                    WHERE o.database_id OPERATOR(pg_catalog.=) $1 AND o.table_id OPERATOR(pg_catalog.=) $2
                      AND o.first_position OPERATOR(pg_catalog.<=) $3), $3)
               AND b.last_position OPERATOR(pg_catalog.>=) $3
             ORDER BY b.first_position",
            &[database, table, position(first), position(last)],
            &mut |row| {
                let bounds = row.int8(0).zip(row.int8(1));
                if let Some((fingerprint, (first, last))) = sum_at(row, 2, 3).zip(bounds) {
                    let range = Dyadic::enclosing(first, last);
                    blocks.push(Node { range, fingerprint, max_modified: row.int8(4), lost: false });
                }
                Ok(true)
            },
        )
    })?;
    Ok(blocks)
}

/// Where a replica's blocks are, in order.
pub(super) fn block_ranges(database_id: Uuid, table_id: i32) -> Answer<Vec<Dyadic>> {
    Ok(blocks(database_id, table_id, i64::MIN, i64::MAX)?.iter().map(|block| block.range).collect())
}

/// First and last position of a range and of all entries that share one with it; `None` where it is empty.
pub(super) fn hull(entries: &[Entry], range: PositionRange) -> Option<(i64, i64)> {
    let first = range.from.unwrap_or(i64::MIN);
    let last = match range.to {
        Some(to) => to.checked_sub(1)?,
        None => i64::MAX,
    };
    if first > last {
        return None;
    }
    let meeting = entries.iter().map(|entry| entry.range).filter(|entry| entry.meets(&range));
    Some(
        meeting
            .fold((first, last), |(first, last), entry| (first.min(entry.first()), last.max(entry.last()))),
    )
}

/// Disjoint nodes in order that together hold every row of the replica that lies in `range`; a node may reach
/// beyond it. `None`: no manifest is kept, or it is untrusted.
pub fn nodes(database: &Database, table: &ManagedTable, range: PositionRange) -> Answer<Option<Vec<Node>>> {
    let Some(kept) = kept(database, table)? else { return Ok(None) };
    let Some((first, last)) = hull(&kept.entries, range) else { return Ok(Some(Vec::new())) };
    let blocks = blocks(database.id, table.table_id, first, last)?;
    let hull = PositionRange { from: Some(first), to: last.checked_add(1) };
    let entries: Vec<Entry> = kept.entries.into_iter().filter(|entry| entry.range.meets(&hull)).collect();
    let Ok(mut nodes) = merge(blocks, &entries) else { return Ok(None) };
    nodes.retain(|node| node.range.meets(&range));
    Ok(Some(nodes))
}

/// How many rows of a range are certain without reading one: those of whole nodes. 0 without a manifest.
pub fn rows_at_least(database: &Database, table: &ManagedTable, range: PositionRange) -> Answer<u64> {
    let nodes = nodes(database, table, range)?.unwrap_or_default();
    let whole = nodes.iter().filter(|node| node.range.lies_in(&range));
    Ok(whole.map(|node| node.fingerprint.row_count()).sum())
}

/// Bytes that are others after whatever changed a row, also where it was changed back: which transactions wrote what is
/// kept. A change is a row of changes of its own, and taking these into the blocks writes the head. A server that was put back
/// to an earlier state gives the same transactions and places again: what all rows amount to is in them too. `None`: no
/// manifest is kept, or it is untrusted.
pub fn mark(database: &Database, table: &ManagedTable) -> Answer<Option<Vec<u8>>> {
    let Some(kept) = kept(database, table)? else { return Ok(None) };
    let mut rows = kept.total.fingerprint;
    kept.entries.iter().for_each(|entry| rows.combine(&entry.change));
    let mut mark = None;
    identity::as_extension(|| {
        read_planned(
            "SELECT pg_catalog.concat(h.xmin, ' ', h.ctid,
                 (SELECT pg_catalog.string_agg(pg_catalog.concat(' ', d.xmin, ' ', d.ctid), '' ORDER BY d.ctid)
                  FROM plimsoll.kept_delta d
                  WHERE d.database_id OPERATOR(pg_catalog.=) $1 AND d.table_id OPERATOR(pg_catalog.=) $2))
             FROM plimsoll.kept_head h
             WHERE h.database_id OPERATOR(pg_catalog.=) $1 AND h.table_id OPERATOR(pg_catalog.=) $2",
            &replica(database.id, table.table_id),
            &mut |row| {
                mark = row.text(0);
                Ok(true)
            },
        )
    })?;
    let known = |mark: String| [mark.as_bytes(), &rows.row_count().to_le_bytes(), &rows.sum()].concat();
    Ok(mark.map(|mark| SourceKey::Encoded(known(mark)).id().to_vec()))
}

/// What all rows amount to, without a scan. `None`: no manifest is kept, or it is untrusted.
pub fn root(database: &Database, table: &ManagedTable) -> Answer<Option<Root>> {
    let Some(kept) = kept(database, table)? else { return Ok(None) };
    let all = Entry { range: Dyadic::ALL, change: Fingerprint::default(), added: None, removed: None };
    let total = kept.total;
    let mut sum = all;
    for entry in &kept.entries {
        sum.change.combine(&entry.change);
        sum.added = sum.added.max(entry.added);
        sum.removed = sum.removed.max(entry.removed);
    }
    let Ok(merged) = merge([total], &[sum]) else { return Ok(None) };
    let Some(total) = merged.first() else {
        let fingerprint = Fingerprint::default();
        return Ok(Some(Root { fingerprint, max_position: None, max_modified: None }));
    };
    let max_modified = match total.lost {
        false => total.max_modified,
        true => match latest(database, table)? {
            Some(latest) => latest,
            None => return Ok(None),
        },
    };
    let max_position = crate::version::max_position(database, table)?;
    Ok(Some(Root { fingerprint: total.fingerprint, max_position, max_modified }))
}

/// The greatest time of change where the row that had it may be gone: looks at the rows of the few blocks that
/// can hold it. `None`: untrusted.
fn latest(database: &Database, table: &ManagedTable) -> Answer<Option<Option<i64>>> {
    let Some(mut nodes) = nodes(database, table, PositionRange::ALL)? else { return Ok(None) };
    nodes.sort_by_key(|node| std::cmp::Reverse(node.max_modified));
    let mut latest = None;
    for node in nodes {
        if node.max_modified <= latest {
            break;
        }
        let found = match node.lost {
            true => crate::version::max_modified(database, table, node.range.range())?,
            false => node.max_modified,
        };
        latest = latest.max(found);
    }
    Ok(Some(latest))
}
