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
    /// The rest, by key; without one there may be several that are equal.
    others: HashMap<Vec<u8>, Vec<(RowDigest, Vec<u8>)>>,
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
    /// Adds a row that came back in another place, or not as it was sent.
    pub fn other(&mut self, key: Vec<u8>, digest: RowDigest, encoded: &[u8]) {
        self.others.entry(key).or_default().push((digest, encoded.to_vec()));
    }

    /// How a row was stored otherwise than it was sent. To be asked once a row.
    pub fn difference(&mut self, row: &IncomingRow<'_>, schema: &TableSchema) -> Answer<Option<Difference>> {
        if self.as_sent.contains(&row.ordinal) {
            return Ok(None);
        }
        if self.gone.contains(&row.ordinal) {
            return Ok(Some(Difference::Gone));
        }
        let found = self.others.get_mut(&key_of(row.row, schema)?).and_then(Vec::pop);
        let Some((digest, encoded)) = found else {
            let what = match schema.is_keyless() {
                true => "the server stored no such row: a trigger skipped or changed it",
                false => "the server stored no such row: a trigger skipped or re-keyed it",
            };
            return Ok(Some(Difference::Changed(what.to_owned())));
        };
        if digest == row.digest {
            return Ok(None);
        }
        let (sent, stored) = (normal_fields(row.row)?, normal_fields(&encoded)?);
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
