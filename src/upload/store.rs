//! From checked rows to stored ones: probe, classify, write, read back, and find the rows at fault.

use std::collections::HashMap;

use plimsoll_core::digest::{Digester, RowDigest};
use plimsoll_core::row::{Fields, key_of};
use plimsoll_core::sqlstate::FOREIGN_KEY;

use super::fresh::{Prospect, store_first};
use super::height::{height, is_lower};
use super::read_back::Difference;
use super::readable::with_readable_values;
use super::waiting::Waiting;
use super::{IncomingRow, RefusedRow, Report, bulk, holder};
use crate::access::Database;
use crate::datum::{Caught, Ctid, IncomingRows, Row, Scratch, attempt, by_index, execute};
use crate::error::{Answer, Problem, state};
use crate::guard;
use crate::manifest::shown_key;
use crate::run::shortened;
use crate::table::{ManagedTable, Placeholders};

/// What the probe found under a row's key.
pub struct Stored {
    /// The digest of its content.
    pub digest: RowDigest,
    /// How high it stands.
    pub height: Option<i64>,
    /// The row, where its key has other bytes: one that the index calls equal, as citext does `A` and `a`.
    pub twin: Option<Vec<u8>>,
}

/// How changed rows are written.
#[derive(Clone, Copy, PartialEq)]
pub enum Mode {
    /// Row by row in one UPDATE.
    Update,
    /// Taken out and put in again in one statement: unique values may be swapped between rows.
    Replace,
}

/// How one attempt ended that stored nothing.
pub enum Failed {
    /// An ERROR of the database.
    Raised(Caught),
    /// The server stored something else than was sent: these places of the group, with what differs.
    Changed(Vec<(usize, Difference)>),
}

/// Stores the rows; adds to the report what was done with each.
pub fn store<'u>(
    database: &Database,
    table: &mut ManagedTable,
    rows: Vec<IncomingRow<'u>>,
    prospect: Prospect,
    report: &mut Report,
) -> Answer<()> {
    let owner = table.owner;
    let may_replace = !holder::has_cascading_references(table)?;
    let rows = with_readable_values(table, rows, report)?;
    let rows = store_first(database, table, rows, prospect, report)?;
    if rows.is_empty() {
        return Ok(());
    }
    let existing = match table.schema.is_keyless() {
        true => HashMap::new(),
        false => crate::identity::as_owner(owner, || probe(database, table, &rows, "OFFSET 0"))?,
    };
    let mut lowering = 0u64;
    let (mut new, mut changed) = (Vec::new(), Vec::new());
    for row in rows {
        match existing.get(&row.ordinal) {
            None => new.push(row),
            Some(Stored { twin: Some(twin), .. }) => report.refused.push(held_by_twin(table, &row, twin)?),
            Some(stored) if stored.digest == row.digest => {
                report.unchanged += 1;
                report.fingerprint.insert(&row.digest);
            }
            Some(stored) => {
                let lowers = is_lower(height(row.row, &table.schema)?, stored.height);
                lowering += u64::from(lowers);
                changed.push((row, lowers));
            }
        }
    }
    let verdict = guard::ask(database, table, lowering, lowering)?;
    if verdict == guard::Verdict::Held {
        report.held += lowering;
        changed.retain(|(_, lowers)| !lowers);
    }
    let changed: Vec<IncomingRow<'u>> = changed.into_iter().map(|(row, _)| row).collect();
    let rows: Vec<(IncomingRow<'u>, bool)> =
        changed.into_iter().map(|row| (row, true)).chain(new.into_iter().map(|row| (row, false))).collect();
    let mut writer =
        Writer { database, table, may_replace, report, waiting: Vec::new(), past_statements: true, fault };
    writer.group(rows)?;
    writer.retry_waiting()?;
    guard::count(database, table, lowering, verdict)
}

/// A row whose key the unique index takes for that of a stored row with another key. Whether the source has both, or
/// spells the one key otherwise now, only the source can tell: it is asked for the stored one's, which is deleted
/// where it is gone.
pub fn held_by_twin(table: &ManagedTable, row: &IncomingRow<'_>, twin: &[u8]) -> Answer<RefusedRow> {
    let (key, other) = (shown_key(row.row, &table.schema)?, shown_key(twin, &table.schema)?);
    let message = format!(
        "the unique index of {} does not tell the key {key} from {other}, which is stored: change one of them, or \
         give the column a type or collation that tells them apart",
        table.name
    );
    Ok(RefusedRow {
        ordinal: row.ordinal,
        waits: true,
        holder: Some(key_of(twin, &table.schema)?),
        sqlstate: "23505".to_owned(),
        column: None,
        key,
        message: shortened(&message),
    })
}

/// Looks up every key at once; with the fence `FOR UPDATE` what is found stays as it is.
pub fn probe(
    database: &Database,
    table: &mut ManagedTable,
    rows: &[IncomingRow<'_>],
    fence: &str,
) -> Answer<HashMap<usize, Stored>> {
    let placeholders = Placeholders::for_tenant(table, database)?;
    let (index, keys) = (table.key_index(), key_rows(table, rows.iter())?);
    let sql = format!(
        "SELECT i.\"plimsoll ordinal\", {} FROM {}",
        table.column_list("t."),
        table.incoming_with_stored(&table.column_list("t."), fence)
    );
    let mut digester = Digester::new(database.fingerprint_key.clone());
    let numbers = table.numbers();
    let by_ordinal: HashMap<usize, &IncomingRow<'_>> = match bulk::has_exact_keys(table) {
        true => HashMap::new(),
        false => rows.iter().map(|row| (row.ordinal, row)).collect(),
    };
    let (schema, codecs) = (&table.schema, &mut table.codecs);
    let (mut found, mut encoded) = (HashMap::with_capacity(rows.len()), Vec::new());
    let mut take = |row: &Row<'_>| {
        encoded.clear();
        row.encode(1, &numbers, codecs, &mut encoded)?;
        let ordinal = row.int8(0).unwrap_or(-1) as usize;
        let twin = match by_ordinal.get(&ordinal) {
            Some(sent) if key_of(sent.row, schema)? != key_of(&encoded, schema)? => Some(encoded.clone()),
            _ => None,
        };
        let (digest, height) = (digester.digest(&encoded)?, height(&encoded, schema)?);
        found.insert(ordinal, Stored { digest, height, twin });
        Ok(())
    };
    by_index(index, || execute(&sql, placeholders.parameters(), Some(&keys), &mut take))?;
    Ok(found)
}

/// Rows as a table of which only the key columns are filled.
pub fn key_rows<'a>(
    table: &mut ManagedTable,
    rows: impl Iterator<Item = &'a IncomingRow<'a>>,
) -> Answer<IncomingRows> {
    let mut keys = IncomingRows::new(&table.incoming_columns())?;
    let key_indexes = table.schema.key_indexes().to_vec();
    for row in rows {
        push(table, row, Some(&key_indexes), None, &mut keys)?;
    }
    Ok(keys)
}

/// Adds a row; where `only` is given, other columns stay NULL.
pub fn push(
    table: &mut ManagedTable,
    row: &IncomingRow<'_>,
    only: Option<&[usize]>,
    ctid: Option<Ctid>,
    rows: &mut IncomingRows,
) -> Answer<()> {
    let columns = table.schema.columns();
    let mut values = vec![None; columns.len()];
    let mut place = 0;
    for field in Fields::new(row.row) {
        let field = field?;
        while columns.get(place).is_some_and(|column| column.number < field.number) {
            place += 1;
        }
        if only.is_none_or(|only| only.contains(&place)) {
            values[place] = Some(rows.within(|| table.codecs[place].make_datum(&field.value))?);
        }
    }
    rows.push_row(row.ordinal, ctid, &values)
}

/// Adds a row with all its columns.
pub fn push_row(table: &mut ManagedTable, row: &IncomingRow<'_>, rows: &mut IncomingRows) -> Answer<()> {
    push(table, row, None, None, rows)
}

/// Writes the rows of one upload.
pub struct Writer<'a, 'u> {
    pub(super) database: &'a Database,
    pub(super) table: &'a mut ManagedTable,
    pub(super) may_replace: bool,
    pub(super) report: &'a mut Report,
    pub(super) waiting: Vec<Waiting<'u>>,
    /// New rows may be inserted without a statement.
    pub(super) past_statements: bool,
    /// [`fault`] or [`fault_of_row`].
    pub(super) fault: fn(&Caught) -> Option<bool>,
}

/// Whether rows are at fault, and whether they may fit later; `None`: something else is.
pub fn fault(caught: &Caught) -> Option<bool> {
    let sqlstate = caught.sqlstate();
    match sqlstate.as_str() {
        "23001" | FOREIGN_KEY | "23505" | "23P01" => Some(true),
        "23502" | "23514" => Some(false),
        other if other.starts_with("22") || other.starts_with("54") => Some(false),
        _ => None,
    }
}

/// The same for rows that are applied one by one, whatever becomes of the others: there a row is at fault too where a
/// trigger raises an exception because of it.
pub fn fault_of_row(caught: &Caught) -> Option<bool> {
    fault(caught).or_else(|| (caught.sqlstate() == "P0001").then_some(false))
}

impl<'u> Writer<'_, 'u> {
    /// Stores a group, halving it where it fails because of its rows. Each comes with whether it exists.
    pub(super) fn group(&mut self, rows: Vec<(IncomingRow<'u>, bool)>) -> Answer<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let Some(failed) = self.together(&rows)? else { return Ok(()) };
        match failed {
            Failed::Changed(places) => self.refuse_changed(rows, places),
            Failed::Raised(caught) => match (self.fault)(&caught) {
                None => caught.raise(),
                Some(waits) => self.isolate(rows, waits, caught),
            },
        }
    }

    /// Stores a group as a whole or not at all; why not.
    pub(super) fn together(&mut self, rows: &[(IncomingRow<'u>, bool)]) -> Answer<Option<Failed>> {
        let Err(failed) = self.attempt(rows, Mode::Update)? else { return Ok(None) };
        let collided = matches!(&failed, Failed::Raised(caught) if caught.sqlstate() == "23505");
        if collided && self.may_replace && rows.iter().any(|(_, exists)| *exists) {
            return Ok(self.attempt(rows, Mode::Replace)?.err());
        }
        Ok(Some(failed))
    }

    fn isolate(&mut self, mut rows: Vec<(IncomingRow<'u>, bool)>, waits: bool, caught: Caught) -> Answer<()> {
        pgrx::check_for_interrupts!();
        if rows.len() > 1 {
            let rest = rows.split_off(rows.len() / 2);
            self.group(rows)?;
            return self.group(rest);
        }
        let Some(row) = rows.pop() else { return Ok(()) };
        if waits {
            self.waiting.push(Waiting { row, caught, holder: None });
            return Ok(());
        }
        self.refuse(&row.0, false, None, caught.sqlstate(), caught.message)
    }

    pub(super) fn refuse(
        &mut self,
        row: &IncomingRow<'_>,
        waits: bool,
        holder: Option<Vec<u8>>,
        sqlstate: String,
        message: String,
    ) -> Answer<()> {
        let key = shown_key(row.row, &self.table.schema)?;
        let (ordinal, message) = (row.ordinal, shortened(&message));
        self.report.refused.push(RefusedRow { ordinal, waits, holder, sqlstate, column: None, key, message });
        Ok(())
    }

    fn refuse_changed(
        &mut self,
        rows: Vec<(IncomingRow<'u>, bool)>,
        places: Vec<(usize, Difference)>,
    ) -> Answer<()> {
        let places: HashMap<usize, Difference> = places.into_iter().collect();
        let mut rest = Vec::new();
        for (place, (row, exists)) in rows.into_iter().enumerate() {
            match places.get(&place) {
                Some(Difference::Changed(what)) => {
                    self.refuse(&row, false, None, "22000".to_owned(), what.clone())?;
                }
                Some(Difference::Gone) => rest.push((row, false)),
                None => rest.push((row, exists)),
            }
        }
        self.group(rest)
    }

    /// Writes the group in a subtransaction and compares what was stored with what was sent.
    pub(super) fn attempt(
        &mut self,
        rows: &[(IncomingRow<'u>, bool)],
        mode: Mode,
    ) -> Answer<Result<(), Failed>> {
        let mut changed_by_server = Vec::new();
        let owner = self.table.owner;
        // Halving tries each row many times: what one attempt took from Postgres is freed before the next.
        let scratch = Scratch::new();
        let outcome = scratch.within(|| {
            attempt(|| {
                let mut stored = crate::identity::as_owner(owner, || self.write(rows, mode))?;
                for (place, (row, exists)) in rows.iter().enumerate() {
                    if stored.new_as_sent && !exists {
                        continue;
                    }
                    if let Some(what) = stored.difference(row, &self.table.schema)? {
                        changed_by_server.push((place, what));
                    }
                }
                if changed_by_server.is_empty() {
                    Ok(())
                } else {
                    // Rolls the subtransaction back; the problem itself is not shown.
                    Err(Problem::new(state::NOT_IN_STATE, "rows changed by the server"))
                }
            })
        });
        match outcome {
            Err(caught) => Ok(Err(Failed::Raised(caught))),
            Ok(Err(_)) if !changed_by_server.is_empty() => Ok(Err(Failed::Changed(changed_by_server))),
            // A row would not be stored as it was sent: a statement tells what becomes of it.
            Ok(Err(problem)) if problem.code() == state::UNSUPPORTED && self.past_statements => {
                self.past_statements = false;
                self.attempt(rows, mode)
            }
            Ok(Err(problem)) => Err(problem),
            Ok(Ok(())) => {
                for (row, exists) in rows {
                    self.report.fingerprint.insert(&row.digest);
                    *(if *exists { &mut self.report.updated } else { &mut self.report.inserted }) += 1;
                }
                Ok(Ok(()))
            }
        }
    }
}
