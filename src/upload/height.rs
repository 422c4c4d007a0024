//! How high a row stands among the states that it had: by that an upload tells whether it sets a row back.

use plimsoll_core::row::Fields;
use plimsoll_core::schema::{TableSchema, position_of};

use crate::error::Answer;

/// The row's version as a number, where its table has a version and that is one: a status is none.
pub fn height(row: &[u8], schema: &TableSchema) -> Answer<Option<i64>> {
    let Some(version) = schema.version() else { return Ok(None) };
    for field in Fields::new(row) {
        let field = field?;
        if field.number == version.number {
            return Ok(position_of(&field.value));
        }
    }
    Ok(None)
}

/// Whether a row that stands at `stored` would be set back by one that stands at `sent`.
pub fn is_lower(sent: Option<i64>, stored: Option<i64>) -> bool {
    sent.zip(stored).is_some_and(|(sent, stored)| sent < stored)
}
