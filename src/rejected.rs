//! Rows that could not be stored: remembered with the reason, so that a run goes on past them.

use std::collections::BTreeMap;

use pgrx::Uuid;
use pgrx::datum::AnyElement;
use pgrx::prelude::*;
use serde_json::{Value, json};

use crate::access;
use crate::acts::Act;
use crate::argument::{Entry, entries, json, required};
use crate::error::{Answer, OrRaise, Problem, state};
use crate::{direction, identity, lease, run, table};

/// Rejections that one call may carry.
const REJECTION_LIMIT: usize = 10_000;

/// Bytes of a source key, and of a key as people read it.
const KEY_LIMIT: usize = 1 << 16;

struct Rejection {
    key_id: Vec<u8>,
    source_key: Vec<u8>,
    source_digest: Vec<u8>,
    position: Option<i64>,
    waits: bool,
    /// As people read it: JSON.
    key: String,
    sqlstate: String,
    column: Option<String>,
    message: String,
}

fn read(ordinal: usize, value: &Value) -> Answer<Rejection> {
    let entry = Entry::new("rejections", ordinal, value);
    let sqlstate = entry.text("sqlstate")?;
    if sqlstate.len() != 5 || !sqlstate.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
    {
        return Err(entry.wrong("sqlstate", "must be five digits or capital letters"));
    }
    let key = match entry.member("key") {
        Some(key @ (Value::Object(_) | Value::String(_))) => key.to_string(),
        _ => return Err(entry.wrong("key", "must be an object or a text")),
    };
    if key.len() > KEY_LIMIT {
        return Err(entry.wrong("key", &format!("has {} bytes; at most {KEY_LIMIT} are taken", key.len())));
    }
    Ok(Rejection {
        key_id: entry.bytes("key_id", 16..=16)?,
        source_key: entry.bytes("source_key", 1..=KEY_LIMIT)?,
        source_digest: entry.bytes("source_digest", 32..=32)?,
        position: entry.integer_or_null("position")?,
        waits: entry.flag("waits")?,
        key,
        sqlstate: sqlstate.to_owned(),
        column: entry.text_or_null("column")?.map(run::shortened),
        message: run::shortened(entry.text("message")?),
    })
}

#[pg_extern(sql = false)]
fn reject_rows(run_id: Option<i64>, relation: Option<&str>, rejections: Option<AnyElement>) -> i64 {
    reject(run_id, relation, rejections).or_raise()
}

/// The number of rows that are remembered by this call. A row that is rejected again counts its attempts.
fn reject(run_id: Option<i64>, relation: Option<&str>, rejections: Option<AnyElement>) -> Answer<i64> {
    let run_id = required(run_id, "run_id")?;
    let database = run::authorise(run_id)?;
    let table = table::registered(required(relation, "relation")?)?;
    let rejections = json(required(rejections, "rejections")?, "rejections")?;
    let mut rows = BTreeMap::new();
    for (ordinal, value) in entries(&rejections, "rejections", REJECTION_LIMIT)?.iter().enumerate() {
        let rejection = read(ordinal, value)?;
        rows.insert(rejection.key_id.clone(), rejection);
    }
    direction::renew_to_record(run_id, &database, &table)?;
    let remembered = rows.len();
    let new = write(database.id, table.table_id, run_id, rows.into_values().collect())?;
    run::add_counts(run_id, 0, 0, 0, new)?;
    Ok(i64::try_from(remembered).unwrap_or(i64::MAX))
}

/// Writes the rows; the number of those that were not remembered before.
fn write(database_id: Uuid, table_id: i32, run_id: i64, rows: Vec<Rejection>) -> Answer<u64> {
    fn column<T>(rows: &[Rejection], of: impl Fn(&Rejection) -> T) -> Vec<T> {
        rows.iter().map(of).collect()
    }
    identity::as_extension(|| {
        Spi::connect_mut(|client| {
            let written = client.update(
                "INSERT INTO plimsoll.rejected_record AS r (database_id, table_id, run_id, key_id, source_key,
                     source_digest, position, waits, key, sqlstate, column_name, message)
                 SELECT $1, $2, $3, n.key_id, n.source_key, n.source_digest, n.position, n.waits,
                     n.key::pg_catalog.jsonb, n.sqlstate, n.column_name, n.message
                 FROM ROWS FROM (pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6),
                     pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9), pg_catalog.unnest($10),
                     pg_catalog.unnest($11), pg_catalog.unnest($12))
                     AS n (key_id, source_key, source_digest, position, waits, key, sqlstate, column_name, message)
                 ON CONFLICT (database_id, table_id, key_id) DO UPDATE SET
                     source_key = EXCLUDED.source_key, source_digest = EXCLUDED.source_digest,
                     position = EXCLUDED.position, waits = EXCLUDED.waits, key = EXCLUDED.key,
                     sqlstate = EXCLUDED.sqlstate, column_name = EXCLUDED.column_name,
                     message = EXCLUDED.message, run_id = EXCLUDED.run_id,
                     attempts = LEAST(r.attempts, 2147483646) OPERATOR(pg_catalog.+) 1,
                     last_rejected_at = pg_catalog.clock_timestamp()
                 RETURNING r.attempts",
                None,
                &[
                    database_id.into(),
                    table_id.into(),
                    run_id.into(),
                    column(&rows, |row| row.key_id.clone()).into(),
                    column(&rows, |row| row.source_key.clone()).into(),
                    column(&rows, |row| row.source_digest.clone()).into(),
                    column(&rows, |row| row.position).into(),
                    column(&rows, |row| row.waits).into(),
                    column(&rows, |row| row.key.clone()).into(),
                    column(&rows, |row| row.sqlstate.clone()).into(),
                    column(&rows, |row| row.column.clone()).into(),
                    column(&rows, |row| row.message.clone()).into(),
                ],
            )?;
            let mut new = 0;
            for row in written {
                new += u64::from(row.get::<i32>(1)? == Some(1));
            }
            Ok(new)
        })
    })
}

#[pg_extern(sql = false)]
fn clear_rejected_rows(run_id: Option<i64>, relation: Option<&str>, key_ids: Option<Array<&[u8]>>) -> i64 {
    clear_some(run_id, relation, key_ids).or_raise()
}

/// Forgets rows that are stored now, or gone.
fn clear_some(run_id: Option<i64>, relation: Option<&str>, key_ids: Option<Array<&[u8]>>) -> Answer<i64> {
    let run_id = required(run_id, "run_id")?;
    let database = run::authorise(run_id)?;
    let (table_id, _) = table::registered_id(required(relation, "relation")?)?;
    let key_ids: Vec<Vec<u8>> = required(key_ids, "key_ids")?.iter().flatten().map(<[u8]>::to_vec).collect();
    lease::renew(Some(run_id), &database)?;
    delete(
        "DELETE FROM plimsoll.rejected_record WHERE database_id OPERATOR(pg_catalog.=) $1
             AND table_id OPERATOR(pg_catalog.=) $2 AND key_id OPERATOR(pg_catalog.=) ANY ($3)",
        &[database.id.into(), table_id.into(), key_ids.into()],
    )
}

#[pg_extern(sql = false)]
fn clear_rejected_table(database_id: Option<Uuid>, relation: Option<&str>) -> i64 {
    clear_all(database_id, relation).or_raise()
}

/// Forgets all of a replica's rejected rows, on request: the next runs try them again.
fn clear_all(database_id: Option<Uuid>, relation: Option<&str>) -> Answer<i64> {
    let database = access::authorise(required(database_id, "database_id")?)?;
    let (table_id, name) = table::registered_id(required(relation, "relation")?)?;
    access::keep_authorised(&database)?;
    let deleted = delete(
        "DELETE FROM plimsoll.rejected_record WHERE database_id OPERATOR(pg_catalog.=) $1
             AND table_id OPERATOR(pg_catalog.=) $2",
        &[database.id.into(), table_id.into()],
    )?;
    // What a client does to its own is no administrative act: nobody fills the record, which is never purged.
    if deleted > 0 && database.admin {
        Act::new("clear_rejected")
            .database(database.id)
            .relation(&name)
            .outcome(json!({ "rows": deleted }))
            .record()?;
    }
    Ok(deleted)
}

fn delete(statement: &str, arguments: &[pgrx::datum::DatumWithOid]) -> Answer<i64> {
    identity::as_extension(|| {
        Spi::connect_mut(|client| {
            let deleted = client.update(statement, None, arguments)?.len();
            i64::try_from(deleted).map_err(|_| Problem::new(state::INTERNAL, "too many rows"))
        })
    })
}

/// Id of a key, key and digest of the row on the source side, its position, and whether it waits.
type Known = (Vec<u8>, Vec<u8>, Vec<u8>, Option<i64>, bool);

// pgrx takes no alias for the row's type.
#[allow(clippy::type_complexity)]
#[pg_extern(sql = false)]
fn rejected_keys(
    database_id: Option<Uuid>,
    relation: Option<&str>,
) -> TableIterator<
    'static,
    (
        name!(key_id, Vec<u8>),
        name!(source_key, Vec<u8>),
        name!(source_digest, Vec<u8>),
        name!(position, Option<i64>),
        name!(waits, bool),
    ),
> {
    TableIterator::new(known(database_id, relation).or_raise())
}

fn known(database_id: Option<Uuid>, relation: Option<&str>) -> Answer<Vec<Known>> {
    let database = access::authorise(required(database_id, "database_id")?)?;
    let (table_id, _) = table::registered_id(required(relation, "relation")?)?;
    identity::as_extension(|| {
        Spi::connect(|client| {
            let rows = client.select(
                "SELECT key_id, source_key, source_digest, position, waits FROM plimsoll.rejected_record
                 WHERE database_id OPERATOR(pg_catalog.=) $1 AND table_id OPERATOR(pg_catalog.=) $2
                 ORDER BY key_id",
                None,
                &[database.id.into(), table_id.into()],
            )?;
            let mut known = Vec::with_capacity(rows.len());
            for row in rows {
                known.push((
                    row.get(1)?.unwrap_or_default(),
                    row.get(2)?.unwrap_or_default(),
                    row.get(3)?.unwrap_or_default(),
                    row.get(4)?,
                    row.get(5)?.unwrap_or(false),
                ));
            }
            Ok(known)
        })
    })
}
