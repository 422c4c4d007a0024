//! Uploads as jsonb, for people and scripts: an array of objects, made into rows in wire form.

use std::borrow::Cow;

use pgrx::datum::AnyElement;
use plimsoll_core::row::RowWriter;
use plimsoll_core::value::{ArrayBuilder, ColumnType, NumericBuf, Value};
use serde_json::value::RawValue;

use crate::access::Database;
use crate::argument::{Members, objects};
use crate::datum::{Codec, Scratch};
use crate::error::{Answer, Problem, state};
use crate::setting;
use crate::table::ManagedTable;

const HINT: &str = "Pass an array of objects, one a row, with the table's columns as names.";

fn bad(message: &str) -> Problem {
    Problem::new(state::BAD_ARGUMENT, message).hint(HINT)
}

/// The rows of a jsonb array, in wire form. Columns that are not named are NULL.
pub fn encode_rows(database: &Database, rows: AnyElement, table: &mut ManagedTable) -> Answer<Vec<Vec<u8>>> {
    let limit = setting::max_upload_bytes(database);
    let rows = objects(rows, "rows", limit).map_err(|problem| problem.hint_else(HINT))?;
    setting::check_upload_rows(database, rows.len())?;
    let scratch = Scratch::new();
    rows.enumerate()
        .map(|(ordinal, values)| {
            scratch.relieve();
            let values = values.map_err(|problem| problem.hint_else(HINT))?;
            scratch.within(|| encode(ordinal, &values, table))
        })
        .collect()
}

/// One row, or as much of it as is given, in wire form.
pub fn encode(ordinal: usize, values: &Members, table: &mut ManagedTable) -> Answer<Vec<u8>> {
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
            None => {}
            Some(value) if value.get() == "null" => {}
            Some(value) => put(column.number, value, codec, &mut writer)
                .map_err(|problem| problem.in_column(&column.name, &table.name))?,
        }
    }
    Ok(encoded)
}

fn put(number: u32, value: &RawValue, codec: &mut Codec, writer: &mut RowWriter<'_>) -> Answer<()> {
    with_value(value, codec, &mut |value| writer.field(number, value))
}

/// Hands `take` the value that a JSON value stands for in a column of the codec's type.
fn with_value(value: &RawValue, codec: &mut Codec, take: &mut dyn FnMut(&Value<'_>)) -> Answer<()> {
    let written = value.get();
    let text: Cow<'_, str> = match written.starts_with('"') {
        true => serde_json::from_str::<String>(written).map_err(|_| bad("a text that is none"))?.into(),
        false => written.into(),
    };
    match &codec.column_type {
        // These keep what was written; an input function would round it to the column's limits.
        ColumnType::Numeric(_) => take(&Value::Numeric(NumericBuf::parse(&text)?.borrow())),
        ColumnType::Text | ColumnType::Citext | ColumnType::Varchar(_) => take(&Value::Text(&text)),
        ColumnType::Char(_) => take(&Value::Text(text.trim_end_matches(' '))),
        ColumnType::Json => take(&Value::Json(written)),
        ColumnType::Jsonb => take(&Value::Jsonb(written)),
        ColumnType::Array(_) if written.starts_with('[') => return with_array(written, codec, take),
        _ => {
            let datum = codec.unlimited_input(&text)?;
            // SAFETY: the datum was just made by the type's own input function.
            unsafe { codec.with_value(datum, take) }?;
        }
    }
    Ok(())
}

/// A JSON array for an array column: one dimension; others are given as text, as SQL writes them.
fn with_array(written: &str, codec: &mut Codec, take: &mut dyn FnMut(&Value<'_>)) -> Answer<()> {
    let items: Vec<&RawValue> = serde_json::from_str(written).map_err(|_| bad("an array that is none"))?;
    let dimension = [(items.len() as u32, 1)];
    let mut builder = ArrayBuilder::new(if items.is_empty() { &[] } else { &dimension });
    let Some(element) = codec.element() else {
        return Err(bad("an array for a column that is none"));
    };
    for item in items {
        match item.get() {
            "null" => builder.push(None),
            nested if nested.starts_with('[') => {
                return Err(bad("an array within an array: give it as text, '{{...}}'"));
            }
            _ => with_value(item, element, &mut |value| builder.push(Some(value)))?,
        }
    }
    take(&Value::Array(builder.array()));
    Ok(())
}
