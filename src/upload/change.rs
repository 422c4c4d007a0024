//! Rows of a two-way batch: each stored only where the replica has what it was decided upon. They are stored as those of
//! an upload are, and fail as those do.
//!
//! ```text
//! rows -> inserted, where all are to be new
//! rest -> looked up by key and changed where they are found, without statements; what is not expected is left
//! rest -> locked by a statement, sorted again, written as an upload writes
//! ```

use std::collections::HashMap;

use plimsoll_core::digest::RowDigest;
use plimsoll_core::store::{Applied, ShortDigest};

use super::bulk::{self, Sorted};
use super::fresh::{is_as_sent, needs_statements, within_attempt};
use super::height::{height, is_lower};
use super::readable::with_readable_values;
use super::store::{Stored, Writer, fault_of_row, held_by_twin, probe};
use super::{IncomingRow, Report, check, holder};
use crate::access::Database;
use crate::datum::may_have_children;
use crate::error::{Answer, Problem};
use crate::guard::{self, Verdict};
use crate::identity::as_owner;
use crate::kept::Counting;
use crate::stamp::Syncing;
use crate::table::ManagedTable;

/// SQLSTATE of a unique value that another row has.
const TAKEN: &str = "23505";

/// A row, and what the replica must have under its key for it to be stored.
#[derive(Clone, Copy)]
pub struct Change<'u> {
    /// In wire form.
    pub row: &'u [u8],
    /// The beginning of the digest of what is there; `None`: nothing.
    pub expected: Option<ShortDigest>,
}

/// What the replica must have in the place of each row.
pub struct Expected(Vec<Option<ShortDigest>>);

impl Expected {
    /// In the place of this row.
    pub fn of(&self, row: &IncomingRow<'_>) -> Option<ShortDigest> {
        self.0.get(row.ordinal).copied().flatten()
    }
}

/// The beginning of a digest.
pub fn short(digest: &RowDigest) -> ShortDigest {
    let mut short = [0; 16];
    short.copy_from_slice(&digest.0[..16]);
    short
}

/// Stores the rows whose condition holds. Answers what became of each, and how many were inserted and updated.
///
/// # Errors
/// `MALFORMED` where a row is none by the grammar: nothing is stored then. Errors of the server that no row is to blame
/// for are raised.
pub fn change(
    database: &Database,
    table: &mut ManagedTable,
    changes: &[Change<'_>],
) -> Answer<(Vec<Applied>, u64, u64)> {
    let mut applied = vec![Applied::Done; changes.len()];
    if changes.is_empty() {
        return Ok((applied, 0, 0));
    }
    crate::datum::set_constraints_immediate();
    let _syncing = Syncing::begin(table.oid);
    let expected = Expected(changes.iter().map(|change| change.expected).collect());
    let mut report = Report::default();
    let rows = check(database, table, changes.iter().map(|change| Ok(change.row)), &mut report)?;
    let rows = with_readable_values(table, rows, &mut report)?;
    let rest = match at_once(database, table, &rows, &expected)? {
        Some(sorted) => {
            report.inserted += sorted.new.len() as u64;
            report.updated += sorted.updated.len() as u64;
            sorted.unexpected.iter().for_each(|row| applied[row.ordinal] = Applied::Changed);
            sorted.others
        }
        None => rows,
    };
    by_statements(database, table, rest, &expected, &mut report, &mut applied)?;
    let refused = std::mem::take(&mut report.refused);
    for row in refused {
        let (ordinal, waits) = (row.ordinal, row.waits);
        applied[ordinal] = Applied::Refused { waits, reason: Box::new(row.reason()) };
    }
    look_again(database, table, changes, &mut applied)?;
    Ok((applied, report.inserted, report.updated))
}

/// Rows that are all to be new: fewer are looked up one by one.
const MANY_NEW: usize = 64;
/// How many of them are looked up to see whether they are.
const SAMPLE: usize = 16;

/// Inserts rows that are all to be new, as a first run sends them, without looking for any: the unique index tells of one
/// that is there. `None` where it does, or one is at fault: nothing is stored then.
fn all_new<'u>(
    database: &Database,
    table: &mut ManagedTable,
    rows: &[IncomingRow<'u>],
    expected: &Expected,
) -> Answer<Option<Sorted<'u>>> {
    if rows.len() < MANY_NEW || rows.iter().any(|row| expected.of(row).is_some()) {
        return Ok(None);
    }
    let owner = table.owner;
    let sample: Vec<&[u8]> = rows.iter().step_by(rows.len() / SAMPLE).map(|row| row.row).collect();
    let outcome = within_attempt(|| {
        if as_owner(owner, || bulk::one_exists(database, table, &sample))? {
            return Ok(None);
        }
        let counting = Counting::begin(table, database);
        let inserted = as_owner(owner, || bulk::insert(database, table, rows.iter()))?;
        let sorted = Sorted { new: rows.to_vec(), ..Sorted::default() };
        let as_sent = counting.is_none_or(|counting| is_as_sent(&counting.end(), &sorted));
        Ok((inserted && as_sent).then_some(sorted))
    })?;
    match outcome {
        Ok(sorted) => Ok(sorted),
        Err(caught) if fault_of_row(&caught).is_none() => caught.raise(),
        Err(_) => Ok(None),
    }
}

/// Stores without statements all that is as expected and raises its version; `None` where a row is at fault or the table
/// does not allow that: nothing is stored then.
fn at_once<'u>(
    database: &Database,
    table: &mut ManagedTable,
    rows: &[IncomingRow<'u>],
    expected: &Expected,
) -> Answer<Option<Sorted<'u>>> {
    // The same key in a child table violates no index.
    if rows.is_empty() || may_have_children(table.oid) {
        return Ok(None);
    }
    if let Some(sorted) = all_new(database, table, rows, expected)? {
        return Ok(Some(sorted));
    }
    let owner = table.owner;
    let outcome = within_attempt(|| {
        let counting = Counting::begin(table, database);
        let sorted = as_owner(owner, || {
            let sorted = bulk::update_raised(database, table, rows, Some(expected))?;
            let mut sorted = sorted.ok_or_else(needs_statements)?;
            if !sorted.new.is_empty() && !bulk::insert(database, table, sorted.new.iter())? {
                if sorted.updated.is_empty() {
                    return Err(needs_statements());
                }
                sorted.others.append(&mut sorted.new);
            }
            Ok(sorted)
        })?;
        let as_sent = counting.is_none_or(|counting| is_as_sent(&counting.end(), &sorted));
        Ok(as_sent.then_some(sorted))
    })?;
    match outcome {
        Ok(sorted) => Ok(sorted),
        // A cancelled statement, a serialization failure and the like are not for a second try.
        Err(caught) if fault_of_row(&caught).is_none() => caught.raise(),
        Err(_) => Ok(None),
    }
}

fn by_statements(
    database: &Database,
    table: &mut ManagedTable,
    rows: Vec<IncomingRow<'_>>,
    expected: &Expected,
    report: &mut Report,
    applied: &mut [Applied],
) -> Answer<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let owner = table.owner;
    let existing = as_owner(owner, || probe(database, table, &rows, "FOR UPDATE"))?;
    let (mut changed, mut lowering) = (Vec::new(), Vec::new());
    for row in rows {
        let stored = existing.get(&row.ordinal);
        match stored {
            Some(Stored { twin: Some(twin), .. }) => report.refused.push(held_by_twin(table, &row, twin)?),
            Some(stored) if stored.digest == row.digest => {}
            _ if stored.map(|stored| short(&stored.digest)) != expected.of(&row) => {
                applied[row.ordinal] = Applied::Changed;
            }
            Some(stored) if is_lower(height(row.row, &table.schema)?, stored.height) => lowering.push(row),
            _ => changed.push((row, stored.is_some())),
        }
    }
    let lower = lowering.len() as u64;
    let verdict = guard::ask(database, table, lower, lower)?;
    for row in lowering {
        match verdict {
            Verdict::Held => applied[row.ordinal] = Applied::Held,
            Verdict::Allowed | Verdict::Released => changed.push((row, true)),
        }
    }
    let may_replace = !holder::has_cascading_references(table)?;
    let fault = fault_of_row;
    let mut writer =
        Writer { database, table, may_replace, report, waiting: Vec::new(), past_statements: true, fault };
    writer.group(changed)?;
    writer.retry_waiting()?;
    guard::count(database, table, lower, verdict)
}

/// A row that was to be new, and whose key somebody else inserted meanwhile, waits for nothing: it changed.
fn look_again(
    database: &Database,
    table: &mut ManagedTable,
    changes: &[Change<'_>],
    applied: &mut [Applied],
) -> Answer<()> {
    let taken = |(ordinal, change): (usize, &Change<'_>)| match &applied[ordinal] {
        Applied::Refused { reason, .. } => change.expected.is_none() && reason.sqlstate == TAKEN,
        Applied::Done | Applied::Changed | Applied::Held => false,
    };
    let taken: Vec<usize> =
        changes.iter().enumerate().filter(|change| taken(*change)).map(|(i, _)| i).collect();
    if taken.is_empty() {
        return Ok(());
    }
    let mut report = Report::default();
    let again = check(
        database,
        table,
        taken.iter().map(|i| Ok::<_, plimsoll_core::Error>(changes[*i].row)),
        &mut report,
    )?;
    let owner = table.owner;
    let existing: HashMap<usize, Stored> = as_owner(owner, || probe(database, table, &again, "FOR UPDATE"))?;
    for row in again {
        let Some(stored) = existing.get(&row.ordinal).filter(|stored| stored.twin.is_none()) else {
            continue;
        };
        let same = stored.digest == row.digest;
        applied[taken[row.ordinal]] = if same { Applied::Done } else { Applied::Changed };
    }
    Ok::<_, Problem>(())
}
