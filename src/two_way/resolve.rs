//! `resolve_conflict`: what a person decides of a recorded key. The next run carries it out, where neither side has
//! anything else by then.

use pgrx::Uuid;
use pgrx::datum::AnyElement;
use pgrx::prelude::*;
use plimsoll_core::digest::Digester;
use plimsoll_core::row::{Fields, RowWriter, key_of};
use plimsoll_core::schema::Column;
use plimsoll_core::store::{Applied, Seen, ShortDigest};
use plimsoll_core::value::{ColumnType, Value};
use serde_json::json;

use super::records::{seen_bytes, seen_of, stored_digest};
use super::shown::Room;
use super::{open, renew};
use crate::access::{self, Database};
use crate::acts::Act;
use crate::argument::{Members, object, required};
use crate::error::{Answer, OrRaise, Problem, state};
use crate::identity;
use crate::stamp::next_version;
use crate::table::ManagedTable;
use crate::upload::{Change, change, encode_row, short};
use crate::{kept, setting};

/// A record that is open.
struct Conflict {
    id: i64,
    database_id: Uuid,
    relation: String,
    encoded_key: Option<Vec<u8>>,
    remote: Seen,
    revisions: [Option<i64>; 2],
    is_open: bool,
}

#[pg_extern(sql = false)]
fn resolve_conflict_by_side(conflict_id: Option<i64>, resolution: Option<&str>) {
    by_side(conflict_id, resolution).or_raise();
}

#[pg_extern(sql = false)]
fn resolve_conflict_by_row(conflict_id: Option<i64>, resolved_row: Option<AnyElement>) {
    by_row(conflict_id, resolved_row).or_raise();
}

fn by_side(conflict_id: Option<i64>, resolution: Option<&str>) -> Answer<()> {
    identity::refuse_restricted()?;
    let id = required(conflict_id, "conflict_id")?;
    let resolution = required(resolution, "resolution")?;
    if !["local", "remote"].contains(&resolution) {
        let shown: String = resolution.chars().take(40).collect();
        let message = format!("resolution is \"{shown}\"; it must be local or remote, or a row as jsonb");
        return Err(Problem::new(state::BAD_ARGUMENT, message).hint("Pass a row as '{...}'::jsonb."));
    }
    let (database, conflict) = begin(id)?;
    let (database, mut table) = open(Some(database.id), Some(&conflict.relation))?;
    let conflict = lock(id)?;
    check_unchanged(&database, &mut table, &conflict)?;
    settle(&database, &conflict, resolution, None)
}

/// The record, and its database, whose use is authorised. A record that never was and someone else's read the same.
fn begin(id: i64) -> Answer<(Database, Conflict)> {
    let unknown = || {
        Problem::new(state::NOT_AUTHORISED, format!("there is no conflict {id}, or it is not yours"))
            .hint("plimsoll.conflicts shows those that are.")
    };
    let conflict = load(id, "")?.ok_or_else(unknown)?;
    let database = access::authorise(conflict.database_id).map_err(|problem| match problem.code() {
        state::NOT_AUTHORISED => unknown(),
        _ => problem,
    })?;
    access::keep_authorised(&database)?;
    Ok((database, conflict))
}

/// The record as it is once it is locked, which must be open.
fn lock(id: i64) -> Answer<Conflict> {
    load(id, "FOR UPDATE OF c")?.filter(|conflict| conflict.is_open).ok_or_else(|| {
        Problem::new(state::NOT_IN_STATE, format!("conflict {id} is closed"))
            .hint("Both sides agree by now, or have something else: plimsoll.conflicts shows what is open.")
    })
}

fn load(id: i64, fence: &str) -> Answer<Option<Conflict>> {
    identity::as_extension(|| {
        Spi::connect_mut(|client| {
            let sql = format!(
                "SELECT c.database_id, pg_catalog.format('%I.%I', t.schema_name, t.table_name), c.encoded_key,
                        c.remote_seen, c.local_revision, c.remote_revision, c.closed_at IS NULL
                 FROM plimsoll.conflict_record c
                 JOIN plimsoll.table_record t ON t.table_id OPERATOR(pg_catalog.=) c.table_id
                 WHERE c.conflict_id OPERATOR(pg_catalog.=) $1 {fence}"
            );
            let mut rows = client.update(&sql, Some(1), &[id.into()])?;
            let Some(row) = rows.next() else { return Ok(None) };
            let Some(database_id) = row.get(1)? else { return Ok(None) };
            Ok(Some(Conflict {
                id,
                database_id,
                relation: row.get(2)?.unwrap_or_default(),
                encoded_key: row.get(3)?,
                remote: seen_of(&row.get::<Vec<u8>>(4)?.unwrap_or_default()),
                revisions: [row.get(5)?, row.get(6)?],
                is_open: row.get(7)?.unwrap_or(false),
            }))
        })
    })
}

fn changed(conflict: &Conflict) -> Problem {
    let message =
        format!("the row in {} changed since conflict {} was recorded", conflict.relation, conflict.id);
    Problem::new(state::NOT_IN_STATE, message)
        .hint("The next run decides anew, and records what it cannot decide.")
}

fn check_unchanged(database: &Database, table: &mut ManagedTable, conflict: &Conflict) -> Answer<()> {
    let Some(key) = &conflict.encoded_key else { return Ok(()) };
    match stored_digest(database, table, key)?.map_or(Seen::Absent, Seen::Row) == conflict.remote {
        true => Ok(()),
        false => Err(changed(conflict)),
    }
}

/// Writes down what was decided; with a row, what the replica has now.
fn settle(
    database: &Database,
    conflict: &Conflict,
    resolution: &str,
    stored: Option<(ShortDigest, Option<String>)>,
) -> Answer<()> {
    let by = identity::role_name(database.user);
    let (digest, row) = stored.unzip();
    identity::as_extension(|| {
        Spi::run_with_args(
            "UPDATE plimsoll.conflict_record SET resolution = $2, resolved_at = pg_catalog.clock_timestamp(),
                 resolved_by = $3::pg_catalog.name, remote_seen = COALESCE($4, remote_seen),
                 resolved_row = $5::pg_catalog.jsonb
             WHERE conflict_id OPERATOR(pg_catalog.=) $1",
            &[
                conflict.id.into(),
                resolution.into(),
                by.into(),
                digest.map(|digest| seen_bytes(Seen::Row(digest))).into(),
                row.flatten().into(),
            ],
        )?;
        Ok(())
    })?;
    // What a client decides of its own is no administrative act.
    if !database.admin {
        return Ok(());
    }
    Act::new("resolve_conflict")
        .database(database.id)
        .relation(&conflict.relation)
        .arguments(json!({ "conflict_id": conflict.id, "resolution": resolution }))
        .record()
}

fn by_row(conflict_id: Option<i64>, resolved_row: Option<AnyElement>) -> Answer<()> {
    identity::refuse_restricted()?;
    let id = required(conflict_id, "conflict_id")?;
    let argument = required(resolved_row, "resolved_row")?;
    let (database, conflict) = begin(id)?;
    // It writes to the replica as a run would, and locks in the same order: the lease, then records.
    let (database, mut table) = open(Some(database.id), Some(&conflict.relation))?;
    renew(None, &database, &table)?;
    let conflict = lock(id)?;
    let members = object(argument, "resolved_row", setting::max_upload_bytes(&database))?;
    let row = complete(&conflict, members, &mut table)?;
    let expected = match conflict.remote {
        Seen::Absent => None,
        Seen::Row(digest) => Some(digest),
        Seen::Unreadable => return Err(changed(&conflict)),
    };
    let (applied, ..) = change(&database, &mut table, &[Change { row: &row, expected }])?;
    match applied.into_iter().next() {
        Some(Applied::Done) => {}
        Some(Applied::Changed) | None => return Err(changed(&conflict)),
        Some(Applied::Held) => {
            let message = format!("{} is on hold for database {}", table.name, database.id);
            return Err(Problem::new(state::NOT_IN_STATE, message).hint("See plimsoll.release_hold."));
        }
        Some(Applied::Refused { reason, .. }) => {
            let column =
                reason.column.as_deref().map(|name| format!("column \"{name}\": ")).unwrap_or_default();
            let message = format!("{} does not take the row: {column}{}", table.name, reason.message);
            return Err(Problem::new(state::BAD_ARGUMENT, message).hint("Correct the row and resolve again."));
        }
    }
    kept::fold_if_due(&database, &mut table, kept::Due::WhenMany)?;
    let digest = Digester::new(database.fingerprint_key.clone()).digest(&row)?;
    let shown = Room::new().json(&row, &table.schema)?;
    settle(&database, &conflict, "row", Some((short(&digest), shown)))
}

/// The row that a person gave, with the record's key and a version above those of both sides.
fn complete(conflict: &Conflict, mut members: Members, table: &mut ManagedTable) -> Answer<Vec<u8>> {
    let bad = |message: String| Problem::new(state::BAD_ARGUMENT, message);
    let Some(key) = &conflict.encoded_key else {
        return Err(bad(format!("the key of conflict {} is none that {} can hold", conflict.id, table.name))
            .hint("Change it on the side that has it."));
    };
    let Some(version) = table.schema.version().cloned() else {
        return Err(Problem::new(state::INTERNAL, "a two-way table without a version"));
    };
    members.remove(&version.name);
    let is_key = |column: &Column| table.schema.key().any(|key| key.number == column.number);
    let missing: Vec<&str> = table
        .schema
        .columns()
        .iter()
        .filter(|column| {
            !is_key(column) && column.number != version.number && !members.contains_key(&column.name)
        })
        .map(|column| column.name.as_str())
        .collect();
    if !missing.is_empty() {
        return Err(bad(format!("the row says nothing of \"{}\"", missing.join("\", \""))).hint(
            "Name every column, with null where it has no value; the key and the version may be left out.",
        ));
    }
    let given = encode_row(&members, table)?;
    let highest = conflict.revisions.into_iter().flatten().max();
    let revision = next_version(&version.column_type, highest)
        .ok_or_else(|| bad(format!("column \"{}\" has no value above those of both sides", version.name)))?;
    let mut fields: Vec<(u32, Value<'_>)> = Vec::new();
    for field in Fields::new(key).chain(Fields::new(&given)) {
        let field = field?;
        fields.retain(|(number, _)| *number != field.number);
        fields.push((field.number, field.value));
    }
    let value = match version.column_type {
        ColumnType::Timestamp(_) => Value::Timestamp(revision),
        ColumnType::Timestamptz(_) => Value::Timestamptz(revision),
        _ => Value::Int(revision),
    };
    fields.push((version.number, value));
    fields.sort_by_key(|(number, _)| *number);
    let mut row = Vec::new();
    let mut writer = RowWriter::new(&mut row);
    fields.iter().for_each(|(number, value)| writer.field(*number, value));
    if key_of(&row, &table.schema)? != *key {
        return Err(bad("the row has another key than the conflict".to_owned())
            .hint("A key is not changed by resolving a conflict: leave it out."));
    }
    Ok(row)
}
