//! Rows as people read them: jsonb objects with each column that is sent, in a form that `resolve_conflict` takes back.

use plimsoll_core::row::Fields;
use plimsoll_core::schema::TableSchema;
use plimsoll_core::value::{Value, literal};
use serde_json::Value as Json;

use crate::error::Answer;
use crate::manifest::value_json;

/// Bytes of one row, and of all rows of a call: of rows beyond it none is kept.
const ROW_LIMIT: usize = 1 << 20;
const CALL_LIMIT: usize = 64 << 20;

/// Bytes of text that a literal is cut at.
const LITERAL_LIMIT: usize = 1 << 16;

/// Room for the rows of a call.
pub struct Room(usize);

impl Room {
    /// All of it.
    pub fn new() -> Self {
        Room(CALL_LIMIT)
    }

    /// The JSON text of a row in wire form; `None` where it is too large to be kept.
    pub fn json(&mut self, row: &[u8], schema: &TableSchema) -> Answer<Option<String>> {
        let mut columns = serde_json::Map::new();
        schema.columns().iter().for_each(|column| drop(columns.insert(column.name.clone(), Json::Null)));
        let mut left = ROW_LIMIT.min(self.0);
        for field in Fields::new(row) {
            let field = field?;
            let Some(column) = schema.column(field.number) else { continue };
            // What is written takes as much room as the bytes that it is made of, at least.
            let written = if field.bytes.len() > left { None } else { written(&field.value) };
            let Some(value) = written else { return Ok(None) };
            let size = size(&value) + column.name.len();
            if size > left {
                return Ok(None);
            }
            left -= size;
            columns.insert(column.name.clone(), value);
        }
        let text = Json::Object(columns).to_string();
        self.0 = self.0.saturating_sub(text.len());
        Ok(Some(text))
    }
}

/// About how many bytes a value takes.
fn size(value: &Json) -> usize {
    match value {
        Json::String(text) => text.len() + 2,
        Json::Array(items) => items.iter().map(|item| size(item) + 1).sum::<usize>() + 2,
        Json::Object(members) => {
            members.iter().map(|(name, value)| name.len() + size(value) + 4).sum::<usize>() + 2
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => 24,
    }
}

/// A value as its column takes it back; `None` where that is too long.
fn written(value: &Value<'_>) -> Option<Json> {
    let as_text = |value: &Value<'_>| {
        let text = literal::to_text(value);
        (text.len() < LITERAL_LIMIT).then(|| Json::from(text))
    };
    match value {
        Value::Float(number) if !number.is_finite() => as_text(value),
        Value::Timetz(..) => as_text(value),
        Value::Array(array) if array.dimensions().count() > 1 => as_text(value),
        Value::Interval(..) | Value::Range(_) | Value::Multirange(_) | Value::Composite(_) => as_text(value),
        value => Some(without_nul(value_json(value))),
    }
}

/// No jsonb holds the character.
fn without_nul(value: Json) -> Json {
    match value {
        Json::String(text) if text.contains('\0') => Json::from(text.replace('\0', "\u{fffd}")),
        Json::Array(items) => Json::Array(items.into_iter().map(without_nul).collect()),
        Json::Object(members) => {
            let member = |(name, value): (String, Json)| (name.replace('\0', "\u{fffd}"), without_nul(value));
            Json::Object(members.into_iter().map(member).collect())
        }
        value => value,
    }
}
