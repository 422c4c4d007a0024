//! Uploads: rows of one replica, stored as sent or refused one by one.
//!
//! ```text
//! bytes  -> where all rows are likely new: each checked and inserted at once, without statements
//! bytes  -> rows, checked against the table (values that would be changed are refused here)
//! rows   -> next attempt, without statements: looked up by key; changed or inserted where they belong
//! rest   -> probe: which keys exist, and with what content
//! new    -> INSERT; changed -> UPDATE; equal -> nothing
//! stored -> read back from RETURNING and compared with what was sent
//! ```
//! The rest are all rows where one is at fault or the table needs statements, and rows that go back to an older
//! version. The first attempts read nothing back: what was counted for the kept manifest must be what was sent.
//! Each attempt is a subtransaction. One that fails because of its rows is halved until the rows at fault
//! stand alone.

mod bulk;
mod change;
mod fresh;
mod height;
mod holder;
mod json;
mod keys;
mod memory;
mod read_back;
mod readable;
mod sender;
mod store;
mod waiting;
mod write;

use pgrx::Array;
use pgrx::datum::AnyElement;
use pgrx::pg_sys::Datum;
use pgrx::prelude::*;
use pgrx::{IntoDatum, Uuid};
use plimsoll_core::digest::{DigestQueue, Digester, RowDigest};
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::row::{BatchReader, check_row, examine, key_of};
use plimsoll_core::store::{Reason, TWICE_IN_UPLOAD};

pub use change::{Change, change, short};
pub use height::height;
pub use memory::forget as forget_batches;
pub use readable::readable_keys;
pub use sender::check_stamp;
pub use store::fault_of_row;

use keys::Keys;
use memory::Batch;

use crate::access::Database;
use crate::argument::{Members, required};
use crate::datum::{Answers, Call, Sent, with_json_array};
use crate::error::{Answer, OrRaise, Problem, state};
use crate::manifest::{hex, shown_key, shown_value};
use crate::run::shortened;
use crate::stamp::Syncing;
use crate::table::{self, ManagedTable};
use crate::{guard, kept, run, setting};

/// A row of an upload that its columns can hold.
#[derive(Clone, Copy)]
pub struct IncomingRow<'u> {
    /// Its place in the upload.
    pub ordinal: usize,
    /// Its fields in wire form.
    pub row: &'u [u8],
    /// Its position.
    pub position: i64,
    /// The digest of its content.
    pub digest: RowDigest,
}

impl IncomingRow<'_> {
    /// What whoever stores it is told of it.
    fn sent(&self) -> Sent<'_> {
        Sent { row: self.row, digest: Some(&self.digest) }
    }
}

/// Why a row was not stored.
pub struct RefusedRow {
    ordinal: usize,
    waits: bool,
    holder: Option<Vec<u8>>,
    sqlstate: String,
    column: Option<String>,
    /// As people read it: JSON.
    key: String,
    message: String,
}

impl RefusedRow {
    /// As the driver of two-way sync is told.
    fn reason(self) -> Reason {
        let RefusedRow { sqlstate, column, key, message, .. } = self;
        Reason { key_text: key, sqlstate, column, message }
    }

    fn json(&self) -> String {
        let text = |text: Option<&str>| serde_json::Value::from(text).to_string();
        format!(
            "{{\"ordinal\":{},\"waits\":{},\"holder\":{},\"sqlstate\":{},\"column\":{},\"key\":{},\"message\":{}}}",
            self.ordinal,
            self.waits,
            text(self.holder.as_deref().map(hex).as_deref()),
            text(Some(&self.sqlstate)),
            text(self.column.as_deref()),
            self.key,
            text(Some(&self.message)),
        )
    }
}

/// What an upload did.
#[derive(Default)]
pub struct Report {
    inserted: u64,
    updated: u64,
    unchanged: u64,
    held: u64,
    fingerprint: Fingerprint,
    refused: Vec<RefusedRow>,
}

impl Report {
    fn done(mut self) -> Done {
        self.refused.sort_by_key(|row| row.ordinal);
        Done {
            numbers: [self.inserted, self.updated, self.unchanged, self.held].map(|number| number as i64),
            sum: self.fingerprint.sum(),
            refused: self.refused.into_iter().map(|row| row.json()).collect(),
        }
    }
}

/// What the caller is told of an upload.
pub struct Done {
    /// Rows inserted, updated, unchanged, held.
    numbers: [i64; 4],
    /// Digest sum of the rows that are stored now as they were sent.
    sum: [u8; 32],
    /// The rows that were not stored, each as JSON.
    refused: Vec<String>,
}

impl Done {
    fn answer(self, answers: &mut Answers) -> Answer<()> {
        let [inserted, updated, unchanged, held] = self.numbers.map(|number| Some(Datum::from(number)));
        let sum = self.sum.as_slice().into_datum();
        with_json_array(self.refused.into_iter(), |refused| {
            answers.push(&[inserted, updated, unchanged, sum, held, Some(refused)])
        })
    }
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn upload(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    rows: Option<&[u8]>,
    run_id: Option<i64>,
    schema_stamp: Option<i64>,
    absent_columns: Option<Array<i32>>,
    batch_number: Option<i64>,
    call: Call,
) {
    let answer = |answers: &mut Answers| {
        let (database, mut table) = table::open(database_id, relation)?;
        let bytes = setting::check_bytes(&database, required(rows, "rows")?, "rows")?;
        let rows = BatchReader::new(bytes)?;
        setting::check_upload_rows(&database, rows.rows_left() as usize)?;
        sender::check_stamp(&table, schema_stamp)?;
        let absent: Vec<i32> = absent_columns.iter().flat_map(|numbers| numbers.iter().flatten()).collect();
        let absent = sender::absent_places(&table, &absent)?;
        let run_id = run::renew_to_write(run_id, &database, &table)?;
        // With a key, rows that are sent again are found unchanged.
        let numbered = batch_number.filter(|_| table.schema.is_keyless());
        let batch =
            numbered.map(|number| Batch::new(&database, &table, run_id, number, bytes)).transpose()?;
        if let Some(known) = batch.as_ref().map(Batch::known).transpose()?.flatten() {
            return known.answer(answers);
        }
        let done = take(&database, &mut table, rows, run_id, &absent)?.done();
        if let Some(batch) = &batch {
            batch.remember(&done)?;
        }
        done.answer(answers)
    };
    call.answer(answer).or_raise();
}

#[pg_extern(sql = false)]
fn upload_json(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    rows: Option<AnyElement>,
    run_id: Option<i64>,
    call: Call,
) {
    let answer = |answers: &mut Answers| {
        let (database, mut table) = table::open(database_id, relation)?;
        let encoded = json::encode_rows(&database, required(rows, "rows")?, &mut table)?;
        let rows = encoded.iter().map(|row| Ok(row.as_slice()));
        let run_id = run::renew_to_write(run_id, &database, &table)?;
        take(&database, &mut table, rows, run_id, &[])?.done().answer(answers)
    };
    call.answer(answer).or_raise();
}

/// Stores rows in wire form, within a run or none, of a source that does not have the columns at the `absent` places.
fn take<'u>(
    database: &Database,
    table: &mut ManagedTable,
    rows: impl Iterator<Item = plimsoll_core::Result<&'u [u8]>> + Clone,
    run_id: Option<i64>,
    absent: &[usize],
) -> Answer<Report> {
    crate::datum::set_constraints_immediate();
    let _syncing = Syncing::begin(table.oid);
    let mut report = Report::default();
    let prospect = fresh::prospect(database, table, rows.clone())?;
    if !fresh::store_unseen(database, table, rows.clone(), prospect, &mut report)? {
        let incoming = check(database, table, rows, &mut report)?;
        let incoming = sender::without_losses(database, table, incoming, absent, &mut report)?;
        if !incoming.is_empty() {
            store::store(database, table, incoming, prospect, &mut report)?;
        }
    }
    kept::fold_if_due(database, table, kept::Due::WhenMany)?;
    guard::add_replacing(database, table, report.inserted)?;
    if let Some(run_id) = run_id {
        // Rejected rows are counted when the caller records them.
        run::add_counts(run_id, report.inserted, report.updated, 0, 0)?;
    }
    Ok(report)
}

/// The rows whose values their columns hold, one a key: of several the last is taken, and others are refused where their
/// content is another. Without a key, each of them.
fn check<'u>(
    database: &Database,
    table: &ManagedTable,
    rows: impl Iterator<Item = plimsoll_core::Result<&'u [u8]>>,
    report: &mut Report,
) -> Answer<Vec<IncomingRow<'u>>> {
    let most = rows.size_hint().1.unwrap_or_default();
    let mut keys = Keys::new(most);
    let mut incoming: Vec<IncomingRow<'u>> = Vec::with_capacity(most);
    let mut queue = DigestQueue::new(&Digester::new(database.fingerprint_key.clone()));
    let (mut key, mut earlier) = (Vec::new(), Vec::new());
    let settle = |queue: &mut DigestQueue<usize>, incoming: &mut Vec<IncomingRow<'u>>| {
        queue.take_all(|place, digest, _| {
            incoming[place].digest = digest;
            Ok::<bool, Problem>(true)
        })
    };
    for (ordinal, row) in rows.enumerate() {
        pgrx::check_for_interrupts!();
        let row = row?;
        key.clear();
        let start = queue.form().len();
        let position = match examine(row, &table.schema, queue.form(), &mut key) {
            Ok(position) => position,
            Err((column, error)) => {
                queue.form().truncate(start);
                // Bytes that break the grammar are the sender's mistake: nothing of the upload is stored.
                if let (None, _) | (_, Err(_)) = (&column, check_row(row)) {
                    return Err(malformed(ordinal, &error));
                }
                report.refused.push(refused_value(ordinal, row, column, &error, table)?);
                continue;
            }
        };
        // Its digest is made together with those of its neighbours.
        let row = IncomingRow { ordinal, row, position, digest: RowDigest([0; 32]) };
        let place = if table.schema.is_keyless() { incoming.len() } else { keys.place(&key) };
        if place < incoming.len() {
            earlier.push((place, std::mem::replace(&mut incoming[place], row)));
        } else {
            incoming.push(row);
        }
        if queue.push(place) {
            settle(&mut queue, &mut incoming)?;
        }
    }
    settle(&mut queue, &mut incoming)?;
    if !earlier.is_empty() {
        let mut digester = Digester::new(database.fingerprint_key.clone());
        for (place, row) in earlier {
            let taken = &incoming[place];
            if digester.digest(row.row)? == taken.digest {
                report.unchanged += 1;
            } else {
                report.refused.push(taken_instead(&row, taken, table)?);
            }
        }
    }
    Ok(incoming)
}

/// A row in whose place another one of the upload was taken.
fn taken_instead(row: &IncomingRow<'_>, taken: &IncomingRow<'_>, table: &ManagedTable) -> Answer<RefusedRow> {
    let (key, other) = (shown_key(row.row, &table.schema)?, shown_key(taken.row, &table.schema)?);
    let message = format!(
        "row {} of the upload has the same key, {other}, and another content, and was taken instead: send one row of a key",
        taken.ordinal
    );
    Ok(RefusedRow {
        ordinal: row.ordinal,
        waits: false,
        holder: None,
        sqlstate: TWICE_IN_UPLOAD.to_owned(),
        column: None,
        key,
        message: shortened(&message),
    })
}

fn malformed(ordinal: usize, error: &plimsoll_core::Error) -> Problem {
    Problem::new(state::MALFORMED, format!("row {ordinal} of the upload: {error}"))
        .hint("Nothing of it was stored. The format is in docs/encoding.md.")
}

fn refused_value(
    ordinal: usize,
    row: &[u8],
    column: Option<String>,
    error: &plimsoll_core::Error,
    table: &ManagedTable,
) -> Answer<RefusedRow> {
    let named = column.as_deref().and_then(|name| table.schema.columns().iter().find(|c| c.name == name));
    let message = match named {
        Some(column) if error.kind() != plimsoll_core::ErrorKind::Null => {
            let (name, shown) = (&column.name, shown_value(row, column.number)?);
            format!("column \"{name}\": {}: {shown}; {}", error.message(), error.kind().advice())
        }
        Some(column) => format!("column \"{}\": {}", column.name, error.message()),
        None => error.message().to_owned(),
    };
    let message = shortened(&message);
    let key = shown_key(row, &table.schema)?;
    let sqlstate = error.kind().sqlstate().to_owned();
    Ok(RefusedRow { ordinal, waits: false, holder: None, sqlstate, column, key, message })
}

/// A row in wire form that a person gave by its columns; those that are not named are NULL.
pub fn encode_row(values: &Members, table: &mut ManagedTable) -> Answer<Vec<u8>> {
    json::encode(0, values, table)
}

/// The encoded key of a row that a person names by its key columns.
pub fn encode_key(ordinal: usize, key: &Members, table: &mut ManagedTable) -> Answer<Vec<u8>> {
    let row = json::encode(ordinal, key, table)?;
    key_of(&row, &table.schema).map_err(|error| {
        Problem::new(state::BAD_ARGUMENT, format!("row {ordinal} of {}: {error}", table.name))
            .hint("Name every key column.")
    })
}
