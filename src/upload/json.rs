//! Uploads as jsonb, for people and scripts: an array of objects, made into rows in wire form.

use plimsoll_core::row::RowWriter;
use plimsoll_core::value::{ArrayBuilder, ColumnType, NumericBuf, Value};
use serde_json::Value as Json;

use crate::datum::Codec;
use crate::error::{Answer, Problem, state};
use crate::table::ManagedTable;

fn bad(message: String) -> Problem {
    Problem::new(state::BAD_ARGUMENT, message)
        .hint("Pass an array of objects, one a row, with the table's columns as names.")
}

/// The rows of a jsonb array, in wire form. Columns that are not named are NULL.
pub fn encode_rows(rows: &Json, table: &mut ManagedTable) -> Answer<Vec<Vec<u8>>> {
    let Json::Array(rows) = rows else { return Err(bad("rows is no array".to_owned())) };
    rows.iter()
        .enumerate()
        .map(|(ordinal, row)| {
            let Json::Object(values) = row else { return Err(bad(format!("row {ordinal} is no object"))) };
            encode(ordinal, values, table)
        })
        .collect()
}

/// One row, or as much of it as is given, in wire form.
pub fn encode(
    ordinal: usize,
    values: &serde_json::Map<String, Json>,
    table: &mut ManagedTable,
) -> Answer<Vec<u8>> {
    let unknown =
        values.keys().find(|name| !table.schema.columns().iter().any(|column| column.name == **name));
    if let Some(name) = unknown {
        let message = format!("row {ordinal}: table {} has no sent column \"{name}\"", table.name);
        return Err(
            Problem::new(state::NO_COLUMN, message).hint("Tenant and server columns are set by the server.")
        );
    }
    let mut encoded = Vec::new();
    let mut writer = RowWriter::new(&mut encoded);
    for (column, codec) in table.schema.columns().iter().zip(&mut table.codecs) {
        match values.get(&column.name) {
            None | Some(Json::Null) => {}
            Some(value) => put(column.number, value, codec, &mut writer)
                .map_err(|problem| problem.in_column(&column.name, &table.name))?,
        }
    }
    Ok(encoded)
}

fn put(number: u32, value: &Json, codec: &mut Codec, writer: &mut RowWriter<'_>) -> Answer<()> {
    with_value(value, codec, &mut |value| writer.field(number, value))
}

/// Hands `take` the value that a JSON value stands for in a column of the codec's type.
fn with_value(value: &Json, codec: &mut Codec, take: &mut dyn FnMut(&Value<'_>)) -> Answer<()> {
    let text = match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    match (&codec.column_type, value) {
        // These keep what was written; an input function would round it to the column's limits.
        (ColumnType::Numeric(_), _) => take(&Value::Numeric(NumericBuf::parse(&text)?.borrow())),
        (ColumnType::Text | ColumnType::Citext | ColumnType::Varchar(_), _) => take(&Value::Text(&text)),
        (ColumnType::Char(_), _) => take(&Value::Text(text.trim_end_matches(' '))),
        (ColumnType::Json, _) => take(&Value::Json(&value.to_string())),
        (ColumnType::Jsonb, _) => take(&Value::Jsonb(&value.to_string())),
        (ColumnType::Array(_), Json::Array(items)) => return with_array(items, codec, take),
        _ => {
            let datum = codec.unlimited_input(&text)?;
            // SAFETY: the datum was just made by the type's own input function.
            unsafe { codec.with_value(datum, take) }?;
        }
    }
    Ok(())
}

/// A JSON array for an array column: one dimension; others are given as text, as SQL writes them.
fn with_array(items: &[Json], codec: &mut Codec, take: &mut dyn FnMut(&Value<'_>)) -> Answer<()> {
    let dimension = [(items.len() as u32, 1)];
    let mut builder = ArrayBuilder::new(if items.is_empty() { &[] } else { &dimension });
    let Some(element) = codec.element() else {
        return Err(bad("an array for a column that is none".to_owned()));
    };
    for item in items {
        match item {
            Json::Null => builder.push(None),
            Json::Array(_) => {
                return Err(bad("an array within an array: give it as text, '{{...}}'".to_owned()));
            }
            item => with_value(item, element, &mut |value| builder.push(Some(value)))?,
        }
    }
    take(&Value::Array(builder.array()));
    Ok(())
}
