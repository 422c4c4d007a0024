//! Row manifests: for people as rows with jsonb keys, for agents packed; and rows to download.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};
use plimsoll_core::digest::Digester;
use plimsoll_core::manifest::{Item, ItemsWriter};
use plimsoll_core::row::{Fields, key_of, position_in};
use plimsoll_core::schema::{TableSchema, position_of};
use plimsoll_core::store::PositionRange;
use plimsoll_core::value::{NumericKind, Value, datetime};

use crate::access::{Database, authorise};
use crate::argument::required;
use crate::error::{Answer, OrRaise, Problem, state};
use crate::table::{self, ManagedTable};
use crate::version::{DigestedRow, digest_range, range_of, read_range, timestamptz};

/// The most rows one answer holds, positions with more rows aside.
pub const MAX_ANSWER_ROWS: i32 = 1_000_000;

/// A key as people read it: an object of column names and values.
pub fn key_json(row: &[u8], schema: &TableSchema) -> Answer<serde_json::Value> {
    let mut key = serde_json::Map::new();
    for field in Fields::new(row) {
        let field = field?;
        if let Some(column) = schema.key().find(|column| column.number == field.number) {
            key.insert(column.name.clone(), value_json(&field.value));
        }
    }
    Ok(serde_json::Value::Object(key))
}

fn value_json(value: &Value<'_>) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::from(*value),
        Value::Float(value) => Json::from(*value),
        Value::Numeric(number) if number.kind().is_finite() => {
            // As text where a double would change it.
            let text = number.to_string();
            match text.parse::<i64>() {
                Ok(whole) => Json::from(whole),
                Err(_) => Json::from(text),
            }
        }
        Value::Numeric(number) => Json::from(match number.kind() {
            NumericKind::NaN => "NaN",
            NumericKind::NegativeInfinity => "-Infinity",
            _ => "Infinity",
        }),
        Value::Text(text) | Value::Enum(text) | Value::Other(text) => Json::from(*text),
        Value::Json(text) | Value::Jsonb(text) => serde_json::from_str(text).unwrap_or(Json::from(*text)),
        Value::Bytea(bytes) => Json::from(format!("\\x{}", hex(bytes))),
        Value::Uuid(bytes) => Json::from(Uuid::from_bytes(*bytes).to_string()),
        Value::Date(days) => Json::from(datetime::format_date(*days)),
        Value::Time(micros) | Value::Timetz(micros, _) => Json::from(datetime::format_time(*micros)),
        Value::Timestamp(micros) => Json::from(datetime::format_timestamp(*micros)),
        Value::Timestamptz(micros) => Json::from(format!("{}Z", datetime::format_timestamp(*micros))),
        Value::Interval(months, days, micros) => Json::from(format!("{months} mons {days} days {micros} us")),
        Value::Array(array) => {
            Json::Array(array.elements().map(|e| e.map_or(Json::Null, |value| value_json(&value))).collect())
        }
        Value::Range(_) | Value::Multirange(_) | Value::Composite(_) => Json::from("(composite)"),
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn modified_of(row: &[u8], schema: &TableSchema) -> Answer<Option<i64>> {
    let Some(modified) = schema.modified() else { return Ok(None) };
    for field in Fields::new(row) {
        let field = field?;
        if field.number == modified.number {
            return Ok(position_of(&field.value));
        }
    }
    Ok(None)
}

fn digester(database: &Database) -> Digester {
    Digester::new(database.fingerprint_key.clone())
}

#[pg_extern(sql = false)]
fn manifest(
    database_id: Uuid,
    relation: &str,
    range: pgrx::Range<i64>,
) -> TableIterator<
    'static,
    (
        name!(key, JsonB),
        name!(version, i64),
        name!(modified, Option<TimestampWithTimeZone>),
        name!(digest, Vec<u8>),
    ),
> {
    let rows = || {
        let database = authorise(database_id)?;
        let mut table = table::resolve(relation)?;
        let schema = table.schema.clone();
        let mut digester = digester(&database);
        let mut rows = Vec::new();
        if let Some(range) = range_of(&range) {
            read_range(&database, &mut table, range, true, &mut |_, row| {
                let modified = modified_of(row, &schema)?.and_then(timestamptz);
                let digest = digester.digest(row)?.0.to_vec();
                rows.push((JsonB(key_json(row, &schema)?), position_in(row, &schema)?, modified, digest));
                Ok(true)
            })?;
        }
        Ok::<_, Problem>(rows)
    };
    TableIterator::new(rows().or_raise())
}

#[pg_extern(sql = false)]
fn packed_manifest(database_id: Uuid, relation: &str, range: pgrx::Range<i64>, row_limit: i32) -> Vec<u8> {
    let answer = || {
        let database = authorise(database_id)?;
        if !(1..=MAX_ANSWER_ROWS).contains(&row_limit) {
            let message = format!("row_limit {row_limit} is not between 1 and {MAX_ANSWER_ROWS}");
            return Err(Problem::new(state::BAD_ARGUMENT, message));
        }
        let mut table = table::resolve(relation)?;
        let mut items = ItemsWriter::new(false);
        let Some(range) = range_of(&range) else { return Ok(items.finish(None)) };
        let next = pack(&database, &mut table, range, row_limit as u32, &mut items)?;
        Ok(items.finish(next))
    };
    answer().or_raise()
}

/// Writes the items of a range until the limit is reached and a position ends; where to go on.
fn pack(
    database: &Database,
    table: &mut ManagedTable,
    range: PositionRange,
    row_limit: u32,
    items: &mut ItemsWriter,
) -> Answer<Option<i64>> {
    let (mut last, mut next) = (None, None);
    digest_range(database, table, range, true, &mut |row| {
        let DigestedRow { position, digest, .. } = row;
        if items.count() >= row_limit && last != Some(position) {
            next = Some(position);
            return Ok(false);
        }
        last = Some(position);
        items.push(&Item { position, digest }, &[]);
        Ok(true)
    })?;
    Ok(next)
}

#[pg_extern(sql = false)]
fn download(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    range: Option<pgrx::Range<i64>>,
    row_limit: Option<i32>,
    after: Option<&[u8]>,
) -> TableIterator<'static, (name!(row, Vec<u8>), name!(cursor, Vec<u8>))> {
    let rows = || {
        let database = authorise(required(database_id, "database_id")?)?;
        let row_limit = required(row_limit, "row_limit")?;
        if !(1..=MAX_ANSWER_ROWS).contains(&row_limit) {
            let message = format!("row_limit {row_limit} is not between 1 and {MAX_ANSWER_ROWS}");
            return Err(Problem::new(state::BAD_ARGUMENT, message));
        }
        let mut table = table::resolve(required(relation, "relation")?)?;
        let schema = table.schema.clone();
        let Some(mut range) = range_of(&required(range, "range")?) else { return Ok(Vec::new()) };
        // A cursor is the position and the key of the last row read: 8 bytes, then the encoded key.
        let after = match after.map(<[u8]>::split_first_chunk::<8>) {
            None => None,
            Some(Some((position, key))) => Some((i64::from_le_bytes(*position), key.to_vec())),
            Some(None) => return Err(Problem::new(state::MALFORMED, "a cursor shorter than a position")),
        };
        if let Some((position, _)) = &after {
            range.from = Some(range.from.map_or(*position, |from| from.max(*position)));
        }
        let is_after = |position: i64, key: &[u8]| {
            after.as_ref().is_some_and(|(last, last_key)| position == *last && key == last_key)
        };
        // A cursor whose row is gone says nothing of the rows at its position: they are all read again.
        let mut skipping = false;
        if let Some((last, _)) = &after {
            let tied = PositionRange { from: Some(*last), to: last.checked_add(1) };
            read_range(&database, &mut table, tied, true, &mut |_, row| {
                skipping = is_after(position_in(row, &schema)?, &key_of(row, &schema)?);
                Ok(!skipping)
            })?;
        }
        let mut rows = Vec::new();
        read_range(&database, &mut table, range, true, &mut |_, row| {
            let (position, key) = (position_in(row, &schema)?, key_of(row, &schema)?);
            if skipping {
                skipping = !is_after(position, &key);
                return Ok(true);
            }
            let mut cursor = position.to_le_bytes().to_vec();
            cursor.extend_from_slice(&key);
            rows.push((row.to_vec(), cursor));
            Ok(rows.len() < row_limit as usize)
        })?;
        Ok(rows)
    };
    TableIterator::new(rows().or_raise())
}
