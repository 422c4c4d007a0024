//! Stored as sent, or refused: what the statements returned is compared with what was sent.

use std::collections::{HashMap, HashSet};

use plimsoll_core::digest::RowDigest;
use plimsoll_core::row::{Fields, digest_form, key_of};
use plimsoll_core::schema::TableSchema;

use super::IncomingRow;
use crate::error::Answer;

/// What statements say they stored.
#[derive(Default)]
pub struct ReadBack {
    /// Whether the new rows went a way on which nothing changes them, and are not read back.
    pub new_as_sent: bool,
    /// Ordinals of rows that came back in their place and as they were sent.
    pub as_sent: HashSet<usize>,
    /// The rest, by key.
    pub others: HashMap<Vec<u8>, (RowDigest, Vec<u8>)>,
    /// Ordinals of rows that were there when they were looked up, and were not when they were to be changed.
    pub gone: HashSet<usize>,
}

/// Why a row is not stored as it was sent.
pub enum Difference {
    /// Somebody deleted it meanwhile: it is new now.
    Gone,
    /// The server did something to it.
    Changed(String),
}

impl ReadBack {
    /// How a row was stored otherwise than it was sent.
    pub fn difference(&self, row: &IncomingRow<'_>, schema: &TableSchema) -> Answer<Option<Difference>> {
        if self.as_sent.contains(&row.ordinal) {
            return Ok(None);
        }
        if self.gone.contains(&row.ordinal) {
            return Ok(Some(Difference::Gone));
        }
        let Some((digest, encoded)) = self.others.get(&key_of(row.row, schema)?) else {
            let what = "the server stored no such row: a trigger skipped or re-keyed it";
            return Ok(Some(Difference::Changed(what.to_owned())));
        };
        if *digest == row.digest {
            return Ok(None);
        }
        let (sent, stored) = (normal_fields(row.row)?, normal_fields(encoded)?);
        let changed = schema.columns().iter().filter(|c| sent.get(&c.number) != stored.get(&c.number));
        let names: Vec<String> = changed.map(|column| format!("\"{}\"", column.name)).collect();
        let names = names.join(", ");
        let what = format!("the server changed what was sent for {names}: a trigger or default does so");
        Ok(Some(Difference::Changed(what)))
    }
}

/// Each field of a row in digest form, by column number.
fn normal_fields(row: &[u8]) -> Answer<HashMap<u32, Vec<u8>>> {
    Fields::new(row)
        .map(|field| {
            let (field, mut form) = (field?, Vec::new());
            digest_form(field.bytes, &mut form)?;
            Ok((field.number, form))
        })
        .collect()
}
