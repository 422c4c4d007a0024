//! The history of batches: from it an agent chooses the size of the next. Old entries are purged when
//! runs end.

use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;

use crate::access::{self, Database};
use crate::argument::{count, required};
use crate::error::{Answer, OrRaise, Problem, state};
use crate::{identity, lease, run, setting, table, two_way};

/// What a batch can be.
const KINDS: [&str; 3] = ["upload", "delete", "compare"];

/// Rows that one purge removes of each table at most: a run must not wait for it.
const PURGE_LIMIT: i64 = 10_000;

/// Entries that one call may ask for.
const ROW_LIMIT: i32 = 10_000;

#[pg_extern(sql = false)]
fn record_batch(
    run_id: Option<i64>,
    relation: Option<&str>,
    kind: Option<&str>,
    row_count: Option<i64>,
    byte_count: Option<i64>,
    duration_micros: Option<i64>,
    side: Option<&str>,
) {
    record(run_id, relation, kind, row_count, byte_count, duration_micros, side).or_raise();
}

fn record(
    run_id: Option<i64>,
    relation: Option<&str>,
    kind: Option<&str>,
    row_count: Option<i64>,
    byte_count: Option<i64>,
    duration_micros: Option<i64>,
    side: Option<&str>,
) -> Answer<()> {
    let run_id = required(run_id, "run_id")?;
    let database = run::authorise(run_id)?;
    let kind = required(kind, "kind")?;
    if !KINDS.contains(&kind) {
        let message = format!("kind is \"{kind}\"; it must be one of {}", KINDS.join(", "));
        return Err(Problem::new(state::BAD_ARGUMENT, message));
    }
    if let Some(side) = side.filter(|side| !["local", "remote"].contains(side)) {
        let message = format!("side is \"{side}\"; it must be local or remote");
        return Err(Problem::new(state::BAD_ARGUMENT, message));
    }
    let row_count = count(row_count, "row_count")?;
    let byte_count = count(byte_count, "byte_count")?;
    let duration_micros = count(duration_micros, "duration_micros")?;
    let (table_id, _) = table::registered_id(required(relation, "relation")?)?;
    lease::renew(Some(run_id), &database)?;
    identity::as_extension(|| {
        Spi::run_with_args(
            "INSERT INTO plimsoll.batch_record
                 (run_id, database_id, table_id, kind, row_count, byte_count, duration_micros, direction, side)
             SELECT $1, $2, $3, $4, $5, $6, $7, w.direction, COALESCE($8, CASE
                 WHEN w.direction OPERATOR(pg_catalog.=) ANY (ARRAY['pull', 'snapshot-from-remote']) THEN 'local'
                 ELSE 'remote' END)
             FROM (SELECT COALESCE((SELECT r.direction FROM plimsoll.replica_record r
                                    WHERE r.database_id OPERATOR(pg_catalog.=) $2
                                        AND r.table_id OPERATOR(pg_catalog.=) $3), 'push') AS direction) w",
            &[
                run_id.into(),
                database.id.into(),
                table_id.into(),
                kind.into(),
                row_count.into(),
                byte_count.into(),
                duration_micros.into(),
                side.into(),
            ],
        )?;
        Ok(())
    })
}

/// Kind, rows, bytes, duration and end of a batch.
type Batch = (String, i64, i64, i64, TimestampWithTimeZone);

#[pg_extern(sql = false)]
fn batch_history(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    row_limit: Option<i32>,
) -> TableIterator<
    'static,
    (
        name!(kind, String),
        name!(row_count, i64),
        name!(byte_count, i64),
        name!(duration_micros, i64),
        name!(finished_at, TimestampWithTimeZone),
    ),
> {
    TableIterator::new(newest(database_id, relation, row_limit).or_raise())
}

fn newest(database_id: Option<Uuid>, relation: Option<&str>, row_limit: Option<i32>) -> Answer<Vec<Batch>> {
    let database = access::authorise(required(database_id, "database_id")?)?;
    let (table_id, _) = table::registered_id(required(relation, "relation")?)?;
    let row_limit = required(row_limit, "row_limit")?;
    if !(0..=ROW_LIMIT).contains(&row_limit) {
        let message = format!("row_limit is {row_limit}; it must be from 0 to {ROW_LIMIT}");
        return Err(Problem::new(state::BAD_ARGUMENT, message));
    }
    identity::as_extension(|| {
        Spi::connect(|client| {
            let rows = client.select(
                "SELECT kind, row_count, byte_count, duration_micros, finished_at FROM plimsoll.batch_record
                 WHERE database_id OPERATOR(pg_catalog.=) $1 AND table_id OPERATOR(pg_catalog.=) $2
                 ORDER BY batch_id DESC LIMIT $3",
                None,
                &[database.id.into(), table_id.into(), i64::from(row_limit).into()],
            )?;
            let mut batches = Vec::with_capacity(rows.len());
            for row in rows {
                let finished_at = row.get(5)?.unwrap_or_else(TimestampWithTimeZone::negative_infinity);
                batches.push((
                    row.get(1)?.unwrap_or_default(),
                    row.get(2)?.unwrap_or_default(),
                    row.get(3)?.unwrap_or_default(),
                    row.get(4)?.unwrap_or_default(),
                    finished_at,
                ));
            }
            Ok(batches)
        })
    })
}

/// Removes history older than the database's retention: a bounded number of rows a call, the oldest
/// first. The run that is ending stays.
pub fn purge(database: &Database, run_id: i64) -> Answer<()> {
    let days = setting::history_days(database);
    identity::as_extension(|| {
        // Batches are numbered in the order of time: the index leads to the oldest of each table.
        Spi::run_with_args(
            "DELETE FROM plimsoll.batch_record b USING (
                 SELECT o.batch_id FROM plimsoll.table_record t CROSS JOIN LATERAL (
                     SELECT c.batch_id, c.finished_at FROM plimsoll.batch_record c
                     WHERE c.database_id OPERATOR(pg_catalog.=) $1
                         AND c.table_id OPERATOR(pg_catalog.=) t.table_id
                     ORDER BY c.batch_id LIMIT $3) o
                 WHERE o.finished_at OPERATOR(pg_catalog.<)
                     (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(secs => $2))) old
             WHERE b.batch_id OPERATOR(pg_catalog.=) old.batch_id",
            &[database.id.into(), (days * 86_400.0).into(), PURGE_LIMIT.into()],
        )?;
        Spi::run_with_args(
            "DELETE FROM plimsoll.run_record WHERE run_id OPERATOR(pg_catalog.=) ANY (ARRAY(
                 SELECT r.run_id FROM plimsoll.run_record r
                 WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.run_id OPERATOR(pg_catalog.<>) $4
                     AND r.started_at OPERATOR(pg_catalog.<)
                         (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(secs => $2))
                 ORDER BY r.started_at LIMIT $3))",
            &[database.id.into(), (days * 86_400.0).into(), PURGE_LIMIT.into(), run_id.into()],
        )?;
        two_way::purge_records(database.id, days)
    })
}
