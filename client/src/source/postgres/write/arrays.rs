//! Columns of values as parameters: arrays of the column's own type in binary, or of text that it reads.

use std::sync::Arc;

use super::super::row::BINARY;
use super::table::ColumnOf;
use crate::source::query::RawValue;

/// The OID of `text`.
const TEXT: u32 = 25;

/// The values of one column.
#[derive(Debug, Clone)]
pub struct Column<'v> {
    /// What is known of it.
    pub of: Arc<ColumnOf>,
    /// Its values; `None` is NULL.
    pub values: Vec<Option<&'v RawValue>>,
}

impl Column<'_> {
    /// Whether its values are in the type's own binary form.
    fn is_binary(&self) -> bool {
        self.values.iter().flatten().find(|value| !value.is_null()).is_some_and(|value| value.class == BINARY)
    }

    /// The parameter with this number.
    pub fn mark(&self, number: usize) -> String {
        match self.is_binary() {
            true => format!("${number}::{}", self.of.array_type),
            false => format!("${number}::pg_catalog.text[]"),
        }
    }

    /// One of its values, that an expression answers, as the column takes it.
    pub fn value(&self, expression: &str) -> String {
        match (self.is_binary(), self.of.is_money) {
            (true, _) => expression.to_owned(),
            (false, true) => format!("{expression}::pg_catalog.numeric::pg_catalog.money"),
            (false, false) => format!("{expression}::{}", self.of.own_type),
        }
    }

    /// All of its values, of an array that an expression answers.
    pub fn values(&self, expression: &str) -> String {
        match self.is_binary() {
            true => expression.to_owned(),
            false => format!("ARRAY(SELECT {} FROM pg_catalog.unnest({expression}) AS v)", self.value("v")),
        }
    }
}

/// The array in Postgres' binary form.
pub fn array(column: &Column<'_>) -> Vec<u8> {
    let is_null = |value: &Option<&RawValue>| value.is_none_or(RawValue::is_null);
    let bytes: usize = column.values.iter().flatten().map(|value| value.bytes.len()).sum();
    let mut out = Vec::with_capacity(20 + column.values.len() * 4 + bytes);
    let element = if column.is_binary() { column.of.oid } else { TEXT };
    let has_null = column.values.iter().any(is_null);
    let mut put = |number: i32| out.extend_from_slice(&number.to_be_bytes());
    put(1);
    put(i32::from(has_null));
    put(element as i32);
    put(i32::try_from(column.values.len()).unwrap_or(i32::MAX));
    put(1);
    for value in &column.values {
        match value.filter(|value| !value.is_null()) {
            None => out.extend_from_slice(&(-1i32).to_be_bytes()),
            Some(value) => {
                let length = i32::try_from(value.bytes.len()).unwrap_or(i32::MAX);
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(&value.bytes);
            }
        }
    }
    out
}
