//! Folding: pending changes are added to the blocks. Only under the replica's lock, in one snapshot taken after
//! the lock is held; exactly the changes seen in it are taken away.

use pgrx::spi::Spi;
use plimsoll_core::blocks::{Change, Changes, Difference, Entry, Node, coalesce, difference, merge};
use plimsoll_core::dyadic::Dyadic;
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::store::PositionRange;

use super::definition;
use super::read::{self, replica};
use crate::access::Database;
use crate::datum::{execute_in_snapshot, is_read_committed, may_write, with_latest_snapshot};
use crate::error::{Answer, Problem, state};
use crate::table::ManagedTable;
use crate::version::{DigestedRow, digest_range, max_modified, timestamptz};
use crate::{datum, identity};

/// Pending rows of changes, and bytes of them, from which on a fold is due.
const DUE_ROWS: i64 = 64;
const DUE_BYTES: i64 = 16 << 10;

/// When to fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Once there is something to fold.
    Always,
    /// Once many changes are pending.
    WhenMany,
}

/// Folds a replica's pending changes where it is due, and unless somebody else does so now. Answers how many
/// rows of changes were pending. Nothing happens where the transaction's isolation forbids it, or within a
/// statement on the table.
pub fn fold_if_due(database: &Database, table: &mut ManagedTable, due: Due) -> Answer<u64> {
    if !table.keep_manifest || !may_write() || !is_read_committed() {
        return Ok(0);
    }
    if !is_due(database, table, due)? || definition::is_under_way(table)? || !lock(database, table)? {
        return Ok(0);
    }
    with_latest_snapshot(|| fold(database, table))
}

fn is_due(database: &Database, table: &ManagedTable, due: Due) -> Answer<bool> {
    let (rows, bytes) = match due {
        Due::Always => (1, i64::MAX),
        Due::WhenMany => (DUE_ROWS, DUE_BYTES),
    };
    let (mut pending, mut size) = (0, 0);
    let sql = format!(
        "SELECT pg_catalog.count(*), pg_catalog.sum(d.size)::pg_catalog.int8
         FROM (SELECT pg_catalog.octet_length(d.entries) AS size FROM plimsoll.kept_delta d
               WHERE d.database_id OPERATOR(pg_catalog.=) $1 AND d.table_id OPERATOR(pg_catalog.=) $2
               LIMIT {DUE_ROWS}) d"
    );
    identity::as_extension(|| {
        with_latest_snapshot(|| {
            datum::read_planned(&sql, &replica(database.id, table.table_id), &mut |row| {
                (pending, size) = (row.int8(0).unwrap_or(0), row.int8(1).unwrap_or(0));
                Ok(true)
            })
        })
    })?;
    Ok(pending >= rows || size >= bytes)
}

/// Takes the replica's lock for this transaction; `false` where another holds it.
fn lock(database: &Database, table: &ManagedTable) -> Answer<bool> {
    identity::as_extension(|| {
        make_head(database, table)?;
        Spi::connect_mut(|client| {
            let locked = client.update(
                "SELECT FROM plimsoll.kept_head h
                 WHERE h.database_id OPERATOR(pg_catalog.=) $1 AND h.table_id OPERATOR(pg_catalog.=) $2
                 FOR NO KEY UPDATE SKIP LOCKED",
                None,
                &[database.id.into(), table.table_id.into()],
            )?;
            Ok(!locked.is_empty())
        })
    })
}

/// Makes the row of a replica whose rows were not scanned yet, which says so.
pub(super) fn make_head(database: &Database, table: &ManagedTable) -> Answer<()> {
    Ok(Spi::run_with_args(
        "INSERT INTO plimsoll.kept_head (database_id, table_id, definition, mapping, row_count, sum)
         VALUES ($1, $2, '', 0, 0, '') ON CONFLICT (database_id, table_id) DO NOTHING",
        &[database.id.into(), table.table_id.into()],
    )?)
}

/// Marks a replica as untrusted and throws the pending changes away: they would pile up until it is rebuilt, which
/// needs none of them.
fn give_up(database: &Database, table: &ManagedTable) -> Answer<u64> {
    identity::as_extension(|| {
        Ok(Spi::run_with_args(
            "UPDATE plimsoll.kept_head h SET definition = ''
             WHERE h.database_id OPERATOR(pg_catalog.=) $1 AND h.table_id OPERATOR(pg_catalog.=) $2",
            &[database.id.into(), table.table_id.into()],
        )?)
    })?;
    take_away(database, table)
}

/// Folds everything that is pending, in the snapshot that is active.
fn fold(database: &Database, table: &mut ManagedTable) -> Answer<u64> {
    let Some(kept) = read::kept(database, table)? else { return give_up(database, table) };
    let Some((before, known)) = neighbourhood(database, table, &kept.entries)? else {
        return take_away(database, table);
    };
    let Ok(merged) = merge(before.iter().copied(), &kept.entries) else { return give_up(database, table) };
    let mut nodes = Vec::with_capacity(merged.len());
    for node in merged {
        if node.is_oversize() {
            nodes.extend(scan(database, table, node.range)?);
        } else if node.lost {
            let max_modified = max_modified(database, table, node.range.range())?;
            nodes.push(Node { max_modified, lost: false, ..node });
        } else {
            nodes.push(node);
        }
    }
    let after = coalesce(&nodes, known);
    let mut total = kept.total.fingerprint;
    kept.entries.iter().for_each(|entry| total.combine(&entry.change));
    write_blocks(database, table, &difference(&before, &after))?;
    write_total(database, table, &total)?;
    take_away(database, table)
}

/// The blocks that changes touch with one on either side, and where all blocks are among them. `None` where
/// nothing changed.
fn neighbourhood(
    database: &Database,
    table: &ManagedTable,
    entries: &[Entry],
) -> Answer<Option<(Vec<Node>, PositionRange)>> {
    let first = entries.iter().map(|entry| entry.range.first()).min();
    let last = entries.iter().map(|entry| entry.range.last()).max();
    let Some((first, last)) = first.zip(last) else { return Ok(None) };
    let [database_id, table_id] = replica(database.id, table.table_id);
    let (mut before, mut beyond) = (None, None);
    identity::as_extension(|| {
        datum::read_planned(
            "SELECT (SELECT pg_catalog.max(b.first_position) FROM plimsoll.kept_block b
                     WHERE b.database_id OPERATOR(pg_catalog.=) $1 AND b.table_id OPERATOR(pg_catalog.=) $2
                       AND b.first_position OPERATOR(pg_catalog.<) $3),
                    (SELECT pg_catalog.min(b.first_position) FROM plimsoll.kept_block b
                     WHERE b.database_id OPERATOR(pg_catalog.=) $1 AND b.table_id OPERATOR(pg_catalog.=) $2
                       AND b.first_position OPERATOR(pg_catalog.>) $4)",
            &[database_id, table_id, read::position(first), read::position(last)],
            &mut |row| {
                (before, beyond) = (row.int8(0), row.int8(1));
                Ok(true)
            },
        )
    })?;
    let blocks =
        read::blocks(database.id, table.table_id, before.unwrap_or(i64::MIN), beyond.unwrap_or(i64::MAX))?;
    let to = beyond.and(blocks.last()).and_then(|block| block.range.last().checked_add(1));
    Ok(Some((blocks, PositionRange { from: before, to })))
}

/// Blocks made out of the rows of a range.
pub(super) fn scan(database: &Database, table: &mut ManagedTable, range: Dyadic) -> Answer<Vec<Node>> {
    let mut changes = Changes::default();
    digest_range(database, table, range.range(), true, &mut |row: DigestedRow| {
        let DigestedRow { position, modified, digest } = row;
        changes.push(Change { position, digest, modified, added: true });
        if changes.is_full() {
            changes.flush_ordered();
        }
        Ok(true)
    })?;
    Ok(merge([], &changes.finish_ordered())?)
}

/// Writes blocks as they are now.
pub(super) fn write_blocks(database: &Database, table: &ManagedTable, change: &Difference) -> Answer<()> {
    let (id, table_id) = (database.id, table.table_id);
    identity::as_extension(|| {
        if !change.gone.is_empty() {
            let gone: Vec<i64> = change.gone.iter().map(Dyadic::first).collect();
            Spi::run_with_args(
                "DELETE FROM plimsoll.kept_block b
                 WHERE b.database_id OPERATOR(pg_catalog.=) $1 AND b.table_id OPERATOR(pg_catalog.=) $2
                   AND b.first_position OPERATOR(pg_catalog.=) ANY ($3)",
                &[id.into(), table_id.into(), gone.into()],
            )?;
        }
        if change.written.is_empty() {
            return Ok(());
        }
        let written = &change.written;
        let counts: Vec<i64> = written.iter().map(|node| node.fingerprint.row_count() as i64).collect();
        let sums: Vec<u8> = written.iter().flat_map(|node| node.fingerprint.sum()).collect();
        let modified: Vec<_> = written.iter().map(|node| node.max_modified.and_then(timestamptz)).collect();
        Spi::run_with_args(
            "INSERT INTO plimsoll.kept_block
                 (database_id, table_id, first_position, last_position, row_count, sum, max_modified)
             SELECT $1, $2, n.first_position, n.last_position, n.row_count,
                    pg_catalog.substr($6, (32 OPERATOR(pg_catalog.*) (n.place OPERATOR(pg_catalog.-) 1)
                        OPERATOR(pg_catalog.+) 1)::pg_catalog.int4, 32), n.max_modified
             FROM ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5),
                  pg_catalog.unnest($7)) WITH ORDINALITY
                  AS n (first_position, last_position, row_count, max_modified, place)
             ON CONFLICT (database_id, table_id, first_position) DO UPDATE
             SET last_position = excluded.last_position, row_count = excluded.row_count, sum = excluded.sum,
                 max_modified = excluded.max_modified",
            &[
                id.into(),
                table_id.into(),
                written.iter().map(|node| node.range.first()).collect::<Vec<_>>().into(),
                written.iter().map(|node| node.range.last()).collect::<Vec<_>>().into(),
                counts.into(),
                sums.into(),
                modified.into(),
            ],
        )?;
        Ok(())
    })
}

/// Writes what the blocks add up to.
pub(super) fn write_total(database: &Database, table: &ManagedTable, total: &Fingerprint) -> Answer<()> {
    identity::as_extension(|| {
        Spi::run_with_args(
            "UPDATE plimsoll.kept_head h
             SET row_count = $3, sum = $4, max_modified = (
                 SELECT pg_catalog.max(b.max_modified) FROM plimsoll.kept_block b
                 WHERE b.database_id OPERATOR(pg_catalog.=) $1 AND b.table_id OPERATOR(pg_catalog.=) $2)
             WHERE h.database_id OPERATOR(pg_catalog.=) $1 AND h.table_id OPERATOR(pg_catalog.=) $2",
            &[
                database.id.into(),
                table.table_id.into(),
                (total.row_count() as i64).into(),
                total.sum().to_vec().into(),
            ],
        )?;
        Ok(())
    })
}

/// Takes the changes away that are seen in the active snapshot; how many rows of them there were.
pub(super) fn take_away(database: &Database, table: &ManagedTable) -> Answer<u64> {
    identity::as_extension(|| {
        execute_in_snapshot(
            "DELETE FROM plimsoll.kept_delta d
             WHERE d.database_id OPERATOR(pg_catalog.=) $1 AND d.table_id OPERATOR(pg_catalog.=) $2",
            &replica(database.id, table.table_id),
        )
    })
}

/// What a caller is told who asks for what is not kept.
pub(super) fn not_kept(table: &ManagedTable) -> Problem {
    Problem::new(state::NOT_IN_STATE, format!("no manifest is kept of {}", table.name))
        .detail("It is switched off, or triggers of the table or of a partition are missing or disabled.")
        .hint(format!("Its owner, as an admin, runs SELECT plimsoll.keep_manifest('{}', true);", table.name))
}
