//! A manifest made out of the rows, and compared with them.

use std::collections::BTreeMap;

use pgrx::spi::Spi;
use plimsoll_core::blocks::{Difference, Node};
use plimsoll_core::dyadic::Dyadic;
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::store::PositionRange;

use super::{definition, fold, read};
use crate::access::Database;
use crate::datum::{is_read_committed, may_write, read_rows, with_latest_snapshot};
use crate::error::{Answer, Problem, state};
use crate::identity;
use crate::table::{ManagedTable, Placeholders};
use crate::version::digest_range;

/// Positions outside all blocks that a check tells of one by one.
const STRAY: usize = 1_000;

/// Scans a replica and writes its blocks; how many rows it has. Applications go on meanwhile: what they change is
/// either in the snapshot of the scan or still pending after it.
///
/// # Errors
/// `NOT_IN_STATE` where no manifest is kept of the table; `IN_USE` within a statement on the table.
pub fn rebuild(database: &Database, table: &mut ManagedTable) -> Answer<u64> {
    if definition::is_under_way(table)? {
        let message = format!("a statement of this session is at work on {}", table.name);
        return Err(Problem::new(state::IN_USE, message)
            .detail(
                "Its rows can be seen, and its triggers, or others that are deferred, have not fired yet.",
            )
            .hint("Call this in a statement of its own."));
    }
    // Shared with all writers; it keeps triggers, columns and partitions as they are until the end.
    table.as_owner(|| Ok(Spi::run(&format!("LOCK TABLE {} IN ROW EXCLUSIVE MODE", table.name))?))?;
    identity::as_extension(|| {
        fold::make_head(database, table)?;
        Spi::run_with_args(
            "SELECT FROM plimsoll.kept_head h
             WHERE h.database_id OPERATOR(pg_catalog.=) $1 AND h.table_id OPERATOR(pg_catalog.=) $2
             FOR NO KEY UPDATE",
            &[database.id.into(), table.table_id.into()],
        )?;
        Ok(())
    })?;
    with_latest_snapshot(|| {
        let definition = match definition::of(database, table)? {
            Some(definition) if table.keep_manifest => definition,
            _ => return Err(fold::not_kept(table)),
        };
        let written = fold::scan(database, table, Dyadic::ALL)?;
        fold::take_away(database, table)?;
        identity::as_extension(|| {
            Spi::run_with_args(
                "DELETE FROM plimsoll.kept_block b
                 WHERE b.database_id OPERATOR(pg_catalog.=) $1 AND b.table_id OPERATOR(pg_catalog.=) $2",
                &[database.id.into(), table.table_id.into()],
            )?;
            Spi::run_with_args(
                "UPDATE plimsoll.kept_head h
                 SET definition = $3, mapping = $4, rebuilt_at = pg_catalog.clock_timestamp()
                 WHERE h.database_id OPERATOR(pg_catalog.=) $1 AND h.table_id OPERATOR(pg_catalog.=) $2",
                &[
                    database.id.into(),
                    table.table_id.into(),
                    definition.hash.0.to_vec().into(),
                    definition.mapping.into(),
                ],
            )?;
            Ok(())
        })?;
        let mut total = Fingerprint::default();
        written.iter().for_each(|node| total.combine(&node.fingerprint));
        fold::write_blocks(database, table, &Difference { gone: Vec::new(), written })?;
        fold::write_total(database, table, &total)?;
        Ok(total.row_count())
    })
}

/// Rebuilds the manifest of a replica without rows, which costs nothing; answers whether it did.
pub fn rebuild_if_empty(database: &Database, table: &mut ManagedTable) -> Answer<bool> {
    if !may_write() || !is_read_committed() {
        return Ok(false);
    }
    let placeholders = Placeholders::for_tenant(table, database)?;
    let sql = format!("SELECT 1 FROM {} t WHERE {} LIMIT 1", table.name, table.tenant_predicate());
    let mut empty = true;
    table.as_owner(|| {
        read_rows(&sql, placeholders.parameters(), &mut |_| {
            empty = false;
            Ok(false)
        })
    })?;
    let settled = empty && !definition::is_under_way(table)?;
    if settled {
        rebuild(database, table)?;
    }
    Ok(settled)
}

/// A range of which the manifest says something else than the rows.
pub struct Wrong {
    /// The range.
    pub range: PositionRange,
    /// What is kept of it.
    pub kept: Fingerprint,
    /// What its rows are.
    pub actual: Fingerprint,
}

/// Compares each node of a replica's manifest with its rows, and what lies between nodes with nothing.
///
/// # Errors
/// `NOT_IN_STATE` where there is nothing to be compared.
pub fn check(database: &Database, table: &mut ManagedTable) -> Answer<Vec<Wrong>> {
    match read::state(database, table)? {
        read::State::Kept => {}
        read::State::Off => return Err(fold::not_kept(table)),
        read::State::Untrusted => {
            let message =
                format!("the manifest of {} is not trusted: nothing is answered from it", table.name);
            let hint = format!("SELECT plimsoll.rebuild_manifest('{}', '{}');", database.id, table.name);
            return Err(Problem::new(state::NOT_IN_STATE, message).hint(hint));
        }
    }
    let root = read::root(database, table)?;
    let nodes = read::nodes(database, table, PositionRange::ALL)?;
    let (Some(root), Some(nodes)) = (root, nodes) else {
        let message = format!("the manifest of {} does not add up", table.name);
        let hint = format!("SELECT plimsoll.rebuild_manifest('{}', '{}');", database.id, table.name);
        return Err(Problem::new(state::NOT_IN_STATE, message).hint(hint));
    };
    let mut wrong = compare(database, table, &nodes)?;
    let (mut kept, mut latest) = (Fingerprint::default(), None);
    for node in &nodes {
        kept.combine(&node.fingerprint);
        latest = latest.max(node.max_modified);
    }
    if root.fingerprint != kept || root.max_modified > latest {
        wrong.push(Wrong { range: PositionRange::ALL, kept: root.fingerprint, actual: kept });
    }
    Ok(wrong)
}

fn compare(database: &Database, table: &mut ManagedTable, nodes: &[Node]) -> Answer<Vec<Wrong>> {
    let mut actual = vec![Fingerprint::default(); nodes.len()];
    let mut latest = vec![None; nodes.len()];
    let mut stray: BTreeMap<i64, Fingerprint> = BTreeMap::new();
    digest_range(database, table, PositionRange::ALL, false, &mut |row| {
        let place = nodes.partition_point(|node| node.range.last() < row.position);
        match nodes.get(place).filter(|node| node.range.contains(row.position)) {
            Some(_) => {
                actual[place].insert(&row.digest);
                latest[place] = latest[place].max(row.modified);
            }
            None if stray.len() < STRAY || stray.contains_key(&row.position) => {
                stray.entry(row.position).or_default().insert(&row.digest);
            }
            None => {}
        }
        Ok(true)
    })?;
    let mut wrong = Vec::new();
    for ((node, actual), latest) in nodes.iter().zip(actual).zip(latest) {
        let latest_fits = node.max_modified == latest || (node.lost && node.max_modified > latest);
        if node.fingerprint != actual || !latest_fits {
            wrong.push(Wrong { range: node.range.range(), kept: node.fingerprint, actual });
        }
    }
    wrong.extend(stray.into_iter().map(|(position, actual)| Wrong {
        range: Dyadic::point(position).range(),
        kept: Fingerprint::default(),
        actual,
    }));
    Ok(wrong)
}
