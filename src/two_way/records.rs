//! What is recorded for a person: keys that were left as they are on both sides, with what both had then. One open record
//! a key; what replaces it, or that both sides agree, closes it.

use std::collections::HashMap;

use pgrx::Uuid;
use pgrx::spi::Spi;
use plimsoll_core::digest::Digester;
use plimsoll_core::reconcile::Side;
use plimsoll_core::row::{check_row, key_of};
use plimsoll_core::store::{Applied, Choice, MemoryKey, OpenKind, Seen, ShortDigest};
use plimsoll_core::two_way::wire::Noted;
use serde_json::{Value as Json, json};

use super::shown::Room;
use crate::access::Database;
use crate::datum::{Row, by_index, execute};
use crate::error::Answer;
use crate::table::{ManagedTable, Placeholders};
use crate::upload::{height, readable_keys, short};
use crate::{identity, manifest, run};

/// Choices that one run carries out.
const MOST_CHOICES: i64 = 10_000;

/// Closed records that one purge removes at most.
const PURGE_LIMIT: i64 = 10_000;

/// Bytes of a key as people read it.
const KEY_LIMIT: usize = 1 << 16;

/// A key as it is remembered: position and tail.
pub fn memory_key(key: &MemoryKey) -> Vec<u8> {
    [&key.position.to_le_bytes()[..], &key.tail].concat()
}

fn memory_key_of(bytes: &[u8]) -> Option<MemoryKey> {
    let (position, tail) = bytes.split_first_chunk::<8>()?;
    Some(MemoryKey { position: i64::from_le_bytes(*position), tail: tail.try_into().ok()? })
}

/// What was seen: no bytes for no row, the beginning of its digest, or a byte where no encoding holds it.
pub fn seen_bytes(seen: Seen) -> Vec<u8> {
    match seen {
        Seen::Absent => Vec::new(),
        Seen::Row(digest) => digest.to_vec(),
        Seen::Unreadable => vec![0],
    }
}

/// What such bytes say.
pub fn seen_of(bytes: &[u8]) -> Seen {
    match bytes.try_into() {
        Ok(digest) => Seen::Row(digest),
        Err(_) if bytes.is_empty() => Seen::Absent,
        Err(_) => Seen::Unreadable,
    }
}

fn kind_of(kind: OpenKind) -> (&'static str, Option<&'static str>) {
    let side = |side| Some(if side == Side::Local { "local" } else { "remote" });
    match kind {
        OpenKind::Conflict => ("conflict", None),
        OpenKind::Undecided => ("undecided", None),
        OpenKind::Rejected(at) => ("rejected", side(at)),
        OpenKind::Waiting(at) => ("waiting", side(at)),
    }
}

/// What the replica has under a key.
struct Found {
    digest: ShortDigest,
    revision: Option<i64>,
    json: Option<String>,
}

/// Looks up what the replica has under the keys of records, by their places.
fn look_up(
    database: &Database,
    table: &mut ManagedTable,
    keys: Vec<(usize, &[u8])>,
    room: &mut Room,
) -> Answer<HashMap<usize, Found>> {
    let mut found = HashMap::with_capacity(keys.len());
    let keys = readable_keys(table, keys)?;
    if keys.is_empty() {
        return Ok(found);
    }
    let owner = table.owner;
    identity::as_owner(owner, || {
        let placeholders = Placeholders::for_tenant(table, database)?;
        let incoming = crate::delete::keys(table, &keys)?;
        let columns = table.column_list("t.");
        let (index, stored) = (table.key_index(), table.incoming_with_stored(&columns, "OFFSET 0"));
        let sql = format!("SELECT i.\"plimsoll ordinal\", {columns} FROM {stored}");
        let mut digester = Digester::new(database.fingerprint_key.clone());
        let numbers = table.numbers();
        let by_place: HashMap<usize, &[u8]> = keys.iter().copied().collect();
        let (schema, codecs) = (&table.schema, &mut table.codecs);
        let mut encoded = Vec::new();
        let mut take = |row: &Row<'_>| {
            encoded.clear();
            row.encode(1, &numbers, codecs, &mut encoded)?;
            let place = row.int8(0).unwrap_or(-1) as usize;
            if by_place.get(&place).copied() == Some(&key_of(&encoded, schema)?) {
                let digest = short(&digester.digest(&encoded)?);
                let (revision, json) = (height(&encoded, schema)?, room.json(&encoded, schema)?);
                found.insert(place, Found { digest, revision, json });
            }
            Ok(())
        };
        by_index(index, || execute(&sql, placeholders.parameters(), Some(&incoming), &mut take)).map(drop)
    })?;
    Ok(found)
}

/// The beginning of the digest of what the replica has under a key.
pub fn stored_digest(
    database: &Database,
    table: &mut ManagedTable,
    key: &[u8],
) -> Answer<Option<ShortDigest>> {
    let mut found = look_up(database, table, vec![(0, key)], &mut Room::new())?;
    Ok(found.remove(&0).map(|found| found.digest))
}

/// What is written of a record.
struct Written {
    key: Vec<u8>,
    encoded_key: Option<Vec<u8>>,
    kind: &'static str,
    side: Option<&'static str>,
    local: Vec<u8>,
    remote: Vec<u8>,
    shown_key: String,
    rows: [Option<String>; 3],
    revisions: [Option<i64>; 2],
    reason: Option<String>,
}

/// Records what the replica still has as it was seen; what became of each.
pub fn record(
    database: &Database,
    table: &mut ManagedTable,
    records: &[Noted<'_>],
    run_id: Option<i64>,
) -> Answer<Vec<Applied>> {
    let mut applied = vec![Applied::Done; records.len()];
    if records.is_empty() {
        return Ok(applied);
    }
    let mut room = Room::new();
    for noted in records {
        noted.encoded_key.into_iter().chain(noted.local_row).chain(noted.base_row).try_for_each(check_row)?;
    }
    let keys = records.iter().enumerate().filter_map(|(place, noted)| Some((place, noted.encoded_key?)));
    let mut found = look_up(database, table, keys.collect(), &mut room)?;
    let mut written: HashMap<Vec<u8>, Written> = HashMap::with_capacity(records.len());
    for (place, noted) in records.iter().enumerate() {
        let found = found.remove(&place);
        if Seen::from(found.as_ref().map(|found| found.digest)) != noted.remote {
            applied[place] = Applied::Changed;
            continue;
        }
        let record = to_write(noted, found, table, &mut room)?;
        // Of several of one key the last counts.
        written.insert(record.key.clone(), record);
    }
    write(database, table, written.into_values().collect(), run_id)?;
    Ok(applied)
}

fn to_write(
    noted: &Noted<'_>,
    found: Option<Found>,
    table: &ManagedTable,
    room: &mut Room,
) -> Answer<Written> {
    let schema = &table.schema;
    let mut json_of = |row: Option<&[u8]>| match row {
        Some(row) => room.json(row, schema),
        None => Ok(None),
    };
    let (local_row, base_row) = (json_of(noted.local_row)?, json_of(noted.base_row)?);
    let local_revision = noted.local_row.map(|row| height(row, schema)).transpose()?.flatten();
    let (kind, side) = kind_of(noted.kind);
    let key_text = noted.reason.map(|reason| reason.key_text).unwrap_or_default();
    let as_text = |text: &str| Json::from(run::shortened(&text.replace('\0', "\u{fffd}"))).to_string();
    let shown_key = match noted.encoded_key.map(|key| manifest::shown_key(key, schema)).transpose()? {
        Some(shown) if shown.len() > KEY_LIMIT => as_text(&shown),
        Some(shown) => shown,
        None => as_text(key_text),
    };
    let clean = |text: &str| run::shortened(&text.replace('\0', "\u{fffd}"));
    let reason = noted.reason.map(|reason| {
        json!({
            "sqlstate": clean(reason.sqlstate),
            "column": reason.column.map(clean),
            "message": clean(reason.message),
        })
        .to_string()
    });
    let (remote_revision, remote_row) = found.map_or((None, None), |found| (found.revision, found.json));
    Ok(Written {
        key: memory_key(&noted.key),
        encoded_key: noted.encoded_key.map(<[u8]>::to_vec),
        kind,
        side,
        local: seen_bytes(noted.local),
        remote: seen_bytes(noted.remote),
        shown_key,
        rows: [local_row, remote_row, base_row],
        revisions: [local_revision, remote_revision],
        reason,
    })
}

/// Writes records in place of open ones that say something else; one that says the same stays as it is, unless something
/// was decided of it: then that could not be done, and the new one says why.
fn write(
    database: &Database,
    table: &ManagedTable,
    records: Vec<Written>,
    run_id: Option<i64>,
) -> Answer<()> {
    fn column<T>(records: &[Written], of: impl Fn(&Written) -> T) -> Vec<T> {
        records.iter().map(of).collect()
    }
    if records.is_empty() {
        return Ok(());
    }
    identity::as_extension(|| {
        Spi::run_with_args(
            "WITH noted AS MATERIALIZED (
                 SELECT n.*, n.kind OPERATOR(pg_catalog.||) COALESCE('/' OPERATOR(pg_catalog.||) n.side, '') AS what
                 FROM ROWS FROM (pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6),
                     pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9), pg_catalog.unnest($10),
                     pg_catalog.unnest($11), pg_catalog.unnest($12), pg_catalog.unnest($13), pg_catalog.unnest($14),
                     pg_catalog.unnest($15), pg_catalog.unnest($16))
                     AS n (memory_key, encoded_key, kind, side, local_seen, remote_seen, key, local_row, remote_row,
                           base_row, local_revision, remote_revision, reason)),
             known AS MATERIALIZED (
                 SELECT c.conflict_id, n.memory_key,
                     c.resolution IS NULL AND c.local_seen OPERATOR(pg_catalog.=) n.local_seen
                         AND c.remote_seen OPERATOR(pg_catalog.=) n.remote_seen
                         AND (c.kind OPERATOR(pg_catalog.||) COALESCE('/' OPERATOR(pg_catalog.||) c.side, ''))
                             OPERATOR(pg_catalog.=) n.what AS same
                 FROM noted n CROSS JOIN LATERAL (
                     SELECT c.conflict_id, c.local_seen, c.remote_seen, c.kind, c.side, c.resolution
                     FROM plimsoll.conflict_record c
                     WHERE c.database_id OPERATOR(pg_catalog.=) $1 AND c.table_id OPERATOR(pg_catalog.=) $2
                         AND c.memory_key OPERATOR(pg_catalog.=) n.memory_key AND c.closed_at IS NULL
                     FOR UPDATE) c),
             replaced AS (
                 UPDATE plimsoll.conflict_record c
                 SET closed_at = pg_catalog.clock_timestamp(), outcome = 'replaced'
                 FROM known k WHERE c.conflict_id OPERATOR(pg_catalog.=) k.conflict_id AND NOT k.same
                 RETURNING c.conflict_id),
             -- Until the replaced ones are closed no other of their keys can be open.
             gone AS (SELECT pg_catalog.count(*) AS replaced FROM replaced)
             INSERT INTO plimsoll.conflict_record (database_id, table_id, run_id, memory_key, encoded_key, kind, side,
                 local_seen, remote_seen, key, local_row, remote_row, base_row, local_revision, remote_revision, reason)
             SELECT $1, $2, $3, n.memory_key, n.encoded_key, n.kind, n.side, n.local_seen, n.remote_seen,
                 n.key::pg_catalog.jsonb, n.local_row::pg_catalog.jsonb, n.remote_row::pg_catalog.jsonb,
                 n.base_row::pg_catalog.jsonb, n.local_revision, n.remote_revision, n.reason::pg_catalog.jsonb
             FROM gone g CROSS JOIN noted n
             WHERE g.replaced OPERATOR(pg_catalog.>=) 0 AND NOT EXISTS (
                 SELECT FROM known k WHERE k.memory_key OPERATOR(pg_catalog.=) n.memory_key AND k.same)",
            &[
                database.id.into(),
                table.table_id.into(),
                run_id.into(),
                column(&records, |record| record.key.clone()).into(),
                column(&records, |record| record.encoded_key.clone()).into(),
                column(&records, |record| record.kind.to_owned()).into(),
                column(&records, |record| record.side.map(str::to_owned)).into(),
                column(&records, |record| record.local.clone()).into(),
                column(&records, |record| record.remote.clone()).into(),
                column(&records, |record| record.shown_key.clone()).into(),
                column(&records, |record| record.rows[0].clone()).into(),
                column(&records, |record| record.rows[1].clone()).into(),
                column(&records, |record| record.rows[2].clone()).into(),
                column(&records, |record| record.revisions[0]).into(),
                column(&records, |record| record.revisions[1]).into(),
                column(&records, |record| record.reason.clone()).into(),
            ],
        )?;
        Ok(())
    })
}

/// What persons chose of open records, the first of them.
pub fn choices(database: &Database, table: &ManagedTable) -> Answer<Vec<Choice>> {
    identity::as_extension(|| {
        Spi::connect(|client| {
            let rows = client.select(
                "SELECT c.memory_key, c.resolution, c.local_seen, c.remote_seen FROM plimsoll.conflict_record c
                 WHERE c.database_id OPERATOR(pg_catalog.=) $1 AND c.table_id OPERATOR(pg_catalog.=) $2
                     AND c.closed_at IS NULL AND c.resolution IS NOT NULL
                 ORDER BY c.conflict_id LIMIT $3",
                None,
                &[database.id.into(), table.table_id.into(), MOST_CHOICES.into()],
            )?;
            let mut choices = Vec::with_capacity(rows.len());
            for row in rows {
                let Some(key) = memory_key_of(&row.get::<Vec<u8>>(1)?.unwrap_or_default()) else { continue };
                let resolution: String = row.get(2)?.unwrap_or_default();
                let side = if resolution == "local" { Side::Local } else { Side::Remote };
                let local = seen_of(&row.get::<Vec<u8>>(3)?.unwrap_or_default());
                let remote = seen_of(&row.get::<Vec<u8>>(4)?.unwrap_or_default());
                choices.push(Choice { key, side, local, remote });
            }
            Ok(choices)
        })
    })
}

/// Closes the records of these keys, on which both sides agree; how many.
pub fn close(database: &Database, table: &ManagedTable, keys: &[MemoryKey]) -> Answer<i64> {
    let keys: Vec<Vec<u8>> = keys.iter().map(memory_key).collect();
    identity::as_extension(|| {
        Spi::connect_mut(|client| {
            let closed = client.update(
                "UPDATE plimsoll.conflict_record c SET closed_at = pg_catalog.clock_timestamp(),
                     outcome = CASE WHEN c.resolution IS NULL THEN 'agreed' ELSE 'resolved' END
                 WHERE c.database_id OPERATOR(pg_catalog.=) $1 AND c.table_id OPERATOR(pg_catalog.=) $2
                     AND c.closed_at IS NULL AND c.memory_key OPERATOR(pg_catalog.=) ANY ($3)",
                None,
                &[database.id.into(), table.table_id.into(), keys.into()],
            )?;
            Ok(i64::try_from(closed.len()).unwrap_or(i64::MAX))
        })
    })
}

/// Closes all records of a replica: what they are about is decided anew.
pub fn close_all(database: &Database, table: &ManagedTable) -> Answer<()> {
    identity::as_extension(|| {
        Spi::run_with_args(
            "UPDATE plimsoll.conflict_record c SET closed_at = pg_catalog.clock_timestamp(), outcome = 'replaced'
             WHERE c.database_id OPERATOR(pg_catalog.=) $1 AND c.table_id OPERATOR(pg_catalog.=) $2
                 AND c.closed_at IS NULL",
            &[database.id.into(), table.table_id.into()],
        )?;
        Ok(())
    })
}

/// Removes closed records of a database that are older than its history, a bounded number a call.
pub fn purge(database_id: Uuid, days: f64) -> Answer<()> {
    Spi::run_with_args(
        "DELETE FROM plimsoll.conflict_record WHERE conflict_id OPERATOR(pg_catalog.=) ANY (ARRAY(
             SELECT c.conflict_id FROM plimsoll.conflict_record c
             WHERE c.database_id OPERATOR(pg_catalog.=) $1 AND c.closed_at OPERATOR(pg_catalog.<)
                 (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(secs => $2))
             ORDER BY c.closed_at LIMIT $3))",
        &[database_id.into(), (days * 86_400.0).into(), PURGE_LIMIT.into()],
    )?;
    Ok(())
}
