//! Numbers of uploads to tables without a key. An upload is noted in the transaction that makes it: one whose answer was
//! lost is found done when it is made again, and rows are added once.

use plimsoll_core::store::{Outcome, Refusal, Uploaded};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::failure::table as refused;
use crate::source::notes::{Cell, NoteType};
use crate::source::write::{LocalStore, Look, Transaction};

const UPLOAD: &str = "plimsoll_upload";
const NAME: u32 = 250;

/// The upload of a table that is under way.
#[derive(Debug, Default)]
pub struct Numbered {
    /// Its number, as long as it is not known what became of it.
    under_way: Option<Uuid>,
}

/// What an upload did, as it is noted.
#[derive(Serialize, Deserialize)]
struct Done {
    inserted: u64,
    refused: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    ordinal: usize,
    waits: bool,
    sqlstate: String,
    column: Option<String>,
    key_text: String,
    message: String,
}

impl Numbered {
    /// The number of the upload that is made now: again the last one's, where that failed in passing.
    pub fn begin(&mut self) -> Uuid {
        *self.under_way.get_or_insert_with(Uuid::new_v4)
    }

    /// It is known what became of it.
    pub fn end(&mut self) {
        self.under_way = None;
    }
}

/// Makes the table of notes where there is none.
///
/// # Errors
/// What the database says.
pub fn define(store: &mut dyn LocalStore) -> Outcome<()> {
    let columns = [
        ("relation", NoteType::Text(NAME), false),
        ("number", NoteType::Bytes(16), false),
        ("done", NoteType::LongBytes, false),
    ];
    let statement = store.notes().create(UPLOAD, &columns, &["relation"]);
    store.define(&statement)
}

/// What the upload with this number did, where it was done.
///
/// # Errors
/// What the database says.
pub fn look_up(look: &mut dyn Look, table: &str, number: Uuid) -> Outcome<Option<Uploaded>> {
    let mut found = None;
    let cells = [Cell::Text(table), Cell::Bytes(number.as_bytes())];
    look.query("SELECT done FROM plimsoll_upload WHERE relation = ? AND number = ?", &cells, &mut |row| {
        if let Some(Cell::Bytes(bytes)) = row.first() {
            found = Some(bytes.to_vec());
        }
        Ok(())
    })?;
    let Some(found) = found else { return Ok(None) };
    let done: Done = serde_json::from_slice(&found)
        .map_err(|error| refused(format!("the note of an upload to \"{table}\" cannot be read: {error}")))?;
    let refusal = |row: Row| Refusal {
        ordinal: row.ordinal,
        waits: row.waits,
        holder: None,
        sqlstate: row.sqlstate,
        column: row.column,
        key_text: row.key_text,
        message: row.message,
    };
    let refused = done.refused.into_iter().map(refusal).collect();
    Ok(Some(Uploaded { inserted: done.inserted, refused, ..Uploaded::default() }))
}

/// Notes what an upload did, in place of the one before.
///
/// # Errors
/// What the database says.
pub fn note(
    transaction: &mut dyn Transaction,
    table: &str,
    number: Uuid,
    uploaded: &Uploaded,
) -> Outcome<()> {
    let row = |refusal: &Refusal| Row {
        ordinal: refusal.ordinal,
        waits: refusal.waits,
        sqlstate: refusal.sqlstate.clone(),
        column: refusal.column.clone(),
        key_text: refusal.key_text.clone(),
        message: refusal.message.clone(),
    };
    let done = Done { inserted: uploaded.inserted, refused: uploaded.refused.iter().map(row).collect() };
    let done = serde_json::to_vec(&done)
        .map_err(|error| refused(format!("an upload to \"{table}\" cannot be noted: {error}")))?;
    let row = vec![Cell::Text(table), Cell::Bytes(number.as_bytes()), Cell::Bytes(&done)];
    transaction.notes().put(transaction, UPLOAD, &["relation"], &["number", "done"], &[row])
}
