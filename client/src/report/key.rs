//! Encoded keys as people read them.

use std::fmt::Write;

use plimsoll_core::row::Fields;
use plimsoll_core::schema::TableSchema;
use plimsoll_core::value::{Value, datetime};

/// A key as `column=value, column=value`.
pub fn key_text(key: &[u8], schema: &TableSchema) -> String {
    let mut text = String::new();
    for field in Fields::new(key) {
        // A number's digest form lacks its scale: such a key is shown as its bytes.
        let Ok(field) = field else { return format!("\\x{}", crate::server::to_hex(key)) };
        let name = schema.column(field.number).map_or("?", |column| column.name.as_str());
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a string never fails.
        let _ = write!(text, "{comma}{name}={}", value_text(&field.value));
    }
    text
}

fn value_text(value: &Value<'_>) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Numeric(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Text(text)
        | Value::Json(text)
        | Value::Jsonb(text)
        | Value::Enum(text)
        | Value::Other(text) => {
            format!("{text:?}")
        }
        Value::Bytea(bytes) => format!("\\x{}", crate::server::to_hex(bytes)),
        Value::Uuid(bytes) => uuid::Uuid::from_bytes(*bytes).to_string(),
        Value::Date(days) => datetime::format_date(*days),
        Value::Time(micros) => datetime::format_time(*micros),
        Value::Timestamp(micros) => datetime::format_timestamp(*micros),
        Value::Timestamptz(micros) => format!("{}Z", datetime::format_timestamp(*micros)),
        other => format!("{other:?}"),
    }
}
