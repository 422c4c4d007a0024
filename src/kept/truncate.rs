//! Tables that are emptied at once: no transition table says what went, but the manifest does.

use pgrx::pg_sys::{self, Datum};
use pgrx::{IntoDatum, Uuid};
use plimsoll_core::blocks::{Entry, Node, merge, pack_entries, read_entries};
use plimsoll_core::dyadic::Dyadic;
use plimsoll_core::fingerprint::Fingerprint;

use super::mapping;
use super::read::{blocks, replica};
use crate::datum::{Parameter, insert_row, read_planned, with_latest_snapshot};
use crate::error::Answer;
use crate::identity;

/// Up to as many entries say where the rows were. More would be too much to write; one for all says the same, but
/// whoever folds it then has to look at the rows that came since.
const MOST_ENTRIES: usize = 4_096;

/// What is kept of a replica: id, mapping, total with its greatest time of change.
struct Head {
    database_id: Uuid,
    mapping: i64,
    total: Entry,
}

/// Takes everything away that is kept of each replica of the table. `whole`: the table itself was emptied. A
/// partition alone takes an unknown part of the rows with it: the replicas that have any are to be scanned.
///
/// Emptying waits for all writers, and no new one begins before it is committed: what is committed now is all.
pub fn truncated(table_id: i32, whole: bool) -> Answer<()> {
    let Some(delta) = mapping::delta_table() else { return Ok(()) };
    let heads = identity::as_extension(|| with_latest_snapshot(|| heads(table_id)))?;
    for head in heads {
        if head.total.change == Fingerprint::default() {
            continue;
        }
        let entries = match whole {
            true => Some(pack_entries(&taken_away(&head, table_id)?)),
            false => None,
        };
        let values = [
            head.database_id.into_datum(),
            table_id.into_datum(),
            head.mapping.into_datum(),
            entries.as_deref().into_datum(),
        ];
        insert_row(delta, &values);
    }
    Ok(())
}

/// Entries that take everything away that is kept of a replica.
fn taken_away(head: &Head, table_id: i32) -> Answer<Vec<Entry>> {
    let mut nodes = None;
    identity::as_extension(|| {
        with_latest_snapshot(|| {
            let blocks = blocks(head.database_id, table_id, i64::MIN, i64::MAX)?;
            let mut entries = Vec::new();
            pending(head, table_id, |found| entries.extend(found))?;
            nodes = merge(blocks, &entries).ok();
            Ok(())
        })
    })?;
    let of_node = |node: &Node| Entry {
        range: node.range,
        change: node.fingerprint,
        added: node.max_modified,
        removed: None,
    };
    let mut parts: Vec<Entry> = nodes.unwrap_or_default().iter().map(of_node).collect();
    let mut sum = Fingerprint::default();
    parts.iter().for_each(|part| sum.combine(&part.change));
    if parts.len() > MOST_ENTRIES || sum != head.total.change {
        parts = vec![head.total];
    }
    for part in &mut parts {
        let mut change = Fingerprint::default();
        change.take_away(&part.change);
        *part = Entry { range: part.range, change, added: None, removed: part.added };
    }
    Ok(parts)
}

/// What is kept of all replicas of a table, pending changes included. Replicas that are known to be untrusted
/// are left out: a rebuild will look at their rows anyway.
fn heads(table_id: i32) -> Answer<Vec<Head>> {
    let mut heads = Vec::new();
    let table = Parameter { type_oid: pg_sys::INT4OID, datum: Some(Datum::from(table_id)) };
    read_planned(
        "SELECT h.database_id, h.mapping, h.row_count, h.sum, h.max_modified FROM plimsoll.kept_head h
         WHERE h.table_id OPERATOR(pg_catalog.=) $1 AND h.definition OPERATOR(pg_catalog.<>) ''::pg_catalog.bytea",
        &[table],
        &mut |row| {
            let sum = row.with_bytes(3, |sum| <[u8; 32]>::try_from(sum).ok()).flatten();
            if let (Some(id), Some(sum)) = (row.uuid(0), sum) {
                let change = Fingerprint::from_parts(row.int8(2).unwrap_or(0) as u64, sum);
                let total = Entry { range: Dyadic::ALL, change, added: row.int8(4), removed: None };
                let mapping = row.int8(1).unwrap_or(0);
                heads.push(Head { database_id: Uuid::from_bytes(id), mapping, total });
            }
            Ok(true)
        },
    )?;
    let mut known = Vec::with_capacity(heads.len());
    for mut head in heads {
        let mut total = head.total;
        let trusted = pending(&head, table_id, |entries| {
            for entry in entries {
                total.change.combine(&entry.change);
                total.added = total.added.max(entry.added);
            }
        })?;
        head.total = total;
        if trusted && merge([], &[head.total]).is_ok() {
            known.push(head);
        }
    }
    Ok(known)
}

/// Hands the changes of a replica over that are not folded yet; `false` where nobody knows some of them.
fn pending(head: &Head, table_id: i32, mut take: impl FnMut(Vec<Entry>)) -> Answer<bool> {
    let mut trusted = true;
    read_planned(
        "SELECT d.mapping, d.entries FROM plimsoll.kept_delta d
         WHERE d.database_id OPERATOR(pg_catalog.=) $1 AND d.table_id OPERATOR(pg_catalog.=) $2",
        &replica(head.database_id, table_id),
        &mut |row| {
            let entries = row.with_bytes(1, read_entries).and_then(Result::ok);
            match entries.filter(|_| row.int8(0) == Some(head.mapping)) {
                Some(entries) => take(entries),
                None => trusted = false,
            }
            Ok(trusted)
        },
    )?;
    Ok(trusted)
}
