//! Row manifests: for people as rows with jsonb keys, for agents packed; and rows to download.

use pgrx::pg_sys::Datum;
use pgrx::prelude::*;
use pgrx::{IntoDatum, JsonB, Uuid};
use plimsoll_core::digest::Digester;
use plimsoll_core::manifest::{Item, ItemsWriter};
use plimsoll_core::row::{Fields, key_of, position_in};
use plimsoll_core::schema::{TableSchema, position_of};
use plimsoll_core::store::PositionRange;
use plimsoll_core::value::{NumericKind, Value, datetime, literal};

use crate::access::{Database, authorise};
use crate::argument::required;
use crate::datum::{Answers, Call};
use crate::error::{Answer, OrRaise, Problem, state};
use crate::table::{self, ManagedTable};
use crate::version::{DigestedRow, digest_range, range_of, read_range};
use crate::{kept, setting};

/// The most bytes of an answer in one piece.
pub const MAX_ANSWER_BYTES: usize = 256 << 20;

/// A key as people read it: an object of column names and values. Without a key it is the whole row, or its
/// first `most` columns.
fn key_json(row: &[u8], schema: &TableSchema, most: usize) -> Answer<serde_json::Value> {
    let mut key = serde_json::Map::new();
    for field in Fields::new(row) {
        let field = field?;
        let column = match schema.is_keyless() {
            true => schema.column(field.number).filter(|_| key.len() < most),
            false => schema.key().find(|column| column.number == field.number),
        };
        if let Some(column) = column {
            key.insert(column.name.clone(), value_json(&field.value));
        }
    }
    Ok(serde_json::Value::Object(key))
}

/// Columns that a person is shown of a row without a key.
const SHOWN_COLUMNS: usize = 16;

/// Characters of a value, and elements of a list, that a person is shown of a key.
const SHOWN: usize = 200;

/// A key as people are shown it beside a message, as JSON text: the beginning of what is long. A few bytes may stand
/// for a number of 131,072 digits.
pub fn shown_key(row: &[u8], schema: &TableSchema) -> Answer<String> {
    Ok(shortened(key_json(row, schema, SHOWN_COLUMNS)?).to_string())
}

/// The value of a column as people are shown it in a message; nothing where it is NULL.
pub fn shown_value(row: &[u8], number: u32) -> Answer<String> {
    const SHOWN: usize = 60;
    for field in Fields::new(row) {
        let field = field?;
        if field.number == number {
            return Ok(literal::shown(&field.value, SHOWN));
        }
    }
    Ok(String::new())
}

fn shortened(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        // No jsonb holds it.
        Json::String(text) if text.contains('\0') => shortened(Json::from(text.replace('\0', "\u{fffd}"))),
        Json::String(text) if text.len() > SHOWN => {
            let beginning: String = text.chars().take(SHOWN).collect();
            Json::from(beginning + "…")
        }
        Json::Array(items) => Json::Array(items.into_iter().take(SHOWN).map(shortened).collect()),
        Json::Object(members) => {
            let shown = members.into_iter().take(SHOWN).map(|(name, value)| (name, shortened(value)));
            Json::Object(shown.collect())
        }
        value => value,
    }
}

/// A value as people read it.
pub fn value_json(value: &Value<'_>) -> serde_json::Value {
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
        Value::Array(array) => {
            Json::Array(array.elements().map(|e| e.map_or(Json::Null, |value| value_json(&value))).collect())
        }
        Value::Interval(..) | Value::Range(_) | Value::Multirange(_) | Value::Composite(_) => {
            Json::from(literal::to_text(value))
        }
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
fn manifest(database_id: Uuid, relation: &str, range: pgrx::Range<i64>, call: Call) {
    let rows = |answers: &mut Answers| {
        let database = authorise(database_id)?;
        let mut table = table::resolve(relation)?;
        let Some(range) = range_of(&range) else { return Ok(()) };
        let name = table.name.clone();
        setting::check_answer_rows(&database, kept::rows_at_least(&database, &table, range)?, &name)?;
        let schema = table.schema.clone();
        let mut digester = digester(&database);
        let mut count = 0;
        read_range(&database, &mut table, range, true, &mut |_, row| {
            count += 1;
            setting::check_answer_rows(&database, count, &name)?;
            answers.push(&[
                JsonB(key_json(row, &schema, usize::MAX)?).into_datum(),
                Some(Datum::from(position_in(row, &schema)?)),
                modified_of(row, &schema)?.map(Datum::from),
                digester.digest(row)?.0.as_slice().into_datum(),
            ])?;
            Ok(true)
        })
    };
    call.answer(rows).or_raise();
}

#[pg_extern(sql = false)]
fn packed_manifest(database_id: Uuid, relation: &str, range: pgrx::Range<i64>, row_limit: i32) -> Vec<u8> {
    let answer = || {
        let database = authorise(database_id)?;
        let row_limit = setting::row_limit(&database, row_limit)?;
        let mut table = table::resolve(relation)?;
        let mut items = ItemsWriter::new(false);
        let Some(range) = range_of(&range) else { return Ok(items.finish(None)) };
        let next = pack(&database, &mut table, range, row_limit, &mut items)?;
        Ok(items.finish(next))
    };
    answer().or_raise()
}

/// Writes the items of a range until the limit is reached and a position ends; where to go on.
fn pack(
    database: &Database,
    table: &mut ManagedTable,
    range: PositionRange,
    row_limit: usize,
    items: &mut ItemsWriter,
) -> Answer<Option<i64>> {
    let (mut last, mut next) = (None, None);
    let name = table.name.clone();
    digest_range(database, table, range, true, &mut |row| {
        let DigestedRow { position, digest, .. } = row;
        if items.count() as usize >= row_limit && last != Some(position) {
            next = Some(position);
            return Ok(false);
        }
        if items.len() > MAX_ANSWER_BYTES {
            let message =
                format!("the rows of version {position} of {name} take more than {MAX_ANSWER_BYTES} bytes");
            return Err(Problem::new(state::TOO_LARGE, message).hint("Compare them by plimsoll.sketch."));
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
    call: Call,
) {
    let rows = |answers: &mut Answers| {
        let database = authorise(required(database_id, "database_id")?)?;
        let row_limit = setting::row_limit(&database, required(row_limit, "row_limit")?)?;
        let mut table = table::resolve(required(relation, "relation")?)?;
        let Some(range) = range_of(&required(range, "range")?) else { return Ok(()) };
        let cursor = after.map(Cursor::read).transpose()?;
        copy_rows(&database, &mut table, range, row_limit, cursor.as_ref(), answers)
    };
    call.answer(rows).or_raise();
}

/// Where a download goes on: the position and the key of the last row read, 8 bytes and the encoded key. Without a key
/// it is the number of rows that were read at this position, 8 bytes.
struct Cursor<'a> {
    position: i64,
    key: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn read(bytes: &'a [u8]) -> Answer<Self> {
        let Some((position, key)) = bytes.split_first_chunk::<8>() else {
            return Err(Problem::new(state::MALFORMED, "a cursor shorter than a position"));
        };
        Ok(Cursor { position: i64::from_le_bytes(*position), key })
    }

    fn is_at(&self, position: i64, key: &[u8]) -> bool {
        (position, key) == (self.position, self.key)
    }
}

/// By what rows at one position are told apart: their keys; without one their number, because so many of them are as
/// good as as many others.
#[derive(Default)]
struct Keys {
    at: Option<i64>,
    number: u64,
}

impl Keys {
    fn of(&mut self, row: &[u8], position: i64, schema: &TableSchema) -> Answer<Vec<u8>> {
        if !schema.is_keyless() {
            return Ok(key_of(row, schema)?);
        }
        self.number = if self.at.replace(position) == Some(position) { self.number + 1 } else { 1 };
        Ok(self.number.to_le_bytes().to_vec())
    }
}

/// Answers the rows of a range in (position, key) order, those behind the cursor.
fn copy_rows(
    database: &Database,
    table: &mut ManagedTable,
    mut range: PositionRange,
    row_limit: usize,
    after: Option<&Cursor<'_>>,
    answers: &mut Answers,
) -> Answer<()> {
    let schema = table.schema.clone();
    // A cursor whose row is gone says nothing of the rows at its position: they are all read again.
    let mut skipping = false;
    if let Some(cursor) = after {
        let mut keys = Keys::default();
        range.from = Some(range.from.map_or(cursor.position, |from| from.max(cursor.position)));
        let tied = PositionRange { from: Some(cursor.position), to: cursor.position.checked_add(1) };
        read_range(database, table, tied, true, &mut |_, row| {
            let position = position_in(row, &schema)?;
            skipping = cursor.is_at(position, &keys.of(row, position, &schema)?);
            Ok(!skipping)
        })?;
    }
    let (mut count, mut keys) = (0, Keys::default());
    read_range(database, table, range, true, &mut |_, row| {
        let position = position_in(row, &schema)?;
        let key = keys.of(row, position, &schema)?;
        if skipping {
            skipping = !after.is_some_and(|cursor| cursor.is_at(position, &key));
            return Ok(true);
        }
        let cursor = [&position.to_le_bytes()[..], &key].concat();
        answers.push(&[row.into_datum(), cursor.as_slice().into_datum()])?;
        count += 1;
        Ok(count < row_limit)
    })
}
