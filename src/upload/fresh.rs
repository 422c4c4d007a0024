//! The first attempt at an upload: without statements where the table allows it, and without looking at rows
//! that are likely new.

use plimsoll_core::fingerprint::Fingerprint;

use super::bulk::{self, Sorted};
use super::store::{Failed, Mode, Writer, fault};
use super::{IncomingRow, Report};
use crate::access::Database;
use crate::datum::{Caught, Row, Scratch, attempt, by_index, execute, may_have_children};
use crate::error::{Answer, Problem, state};
use crate::kept::{Counted, Counting};
use crate::table::{ManagedTable, Placeholders};

/// Stores what can be stored at once, and answers the rows that are left: all of them where one is at fault.
pub fn store_first<'u>(
    database: &Database,
    table: &mut ManagedTable,
    rows: Vec<IncomingRow<'u>>,
    report: &mut Report,
) -> Answer<Vec<IncomingRow<'u>>> {
    let Some(lowest) = rows.iter().map(|row| row.position).min() else { return Ok(rows) };
    // The same key in a child table violates no index.
    if may_have_children(table.oid) {
        return Ok(rows);
    }
    // Rows beyond everything the replica has are new, or newer versions of rows it has.
    let beyond = is_beyond_all(database, table, lowest)?;
    let outcome = match store_bulk(database, table, &rows, beyond)? {
        // The sample held none of the rows that are there.
        Err(caught) if beyond && caught.sqlstate() == "23505" => store_bulk(database, table, &rows, false)?,
        outcome => outcome,
    };
    match outcome {
        Ok(Some(sorted)) => {
            for row in sorted.new.iter().chain(&sorted.updated).chain(&sorted.unchanged) {
                report.fingerprint.insert(&row.digest);
            }
            report.inserted += sorted.new.len() as u64;
            report.updated += sorted.updated.len() as u64;
            report.unchanged += sorted.unchanged.len() as u64;
            Ok(sorted.others)
        }
        // A cancelled statement, a serialization failure and the like are not for a second try.
        Err(caught) if fault(&caught).is_none() => caught.raise(),
        Err(_) => Ok(rows),
        Ok(None) if beyond => store_as_new(database, table, rows, report),
        Ok(None) => Ok(rows),
    }
}

/// Stores rows without statements, in a subtransaction; `None` where the table does not allow that.
fn store_bulk<'u>(
    database: &Database,
    table: &mut ManagedTable,
    rows: &[IncomingRow<'u>],
    likely_new: bool,
) -> Answer<Result<Option<Sorted<'u>>, Caught>> {
    let owner = table.owner;
    let mut done = None;
    let scratch = Scratch::new();
    let outcome = scratch.within(|| {
        attempt(|| {
            let counting = Counting::begin(table, database);
            let sorted = crate::identity::as_owner(owner, || {
                let mut sorted = Sorted::default();
                if likely_new && !bulk::some_exist(database, table, rows)? {
                    sorted.new = rows.to_vec();
                } else {
                    sorted = bulk::update_raised(database, table, rows)?.ok_or_else(needs_statements)?;
                }
                if !sorted.new.is_empty() && !bulk::insert(database, table, sorted.new.iter())? {
                    if sorted.updated.is_empty() {
                        return Err(needs_statements());
                    }
                    sorted.others.append(&mut sorted.new);
                }
                Ok(sorted)
            })?;
            // What the triggers counted is what is stored.
            if counting.is_some_and(|counting| !is_as_sent(&counting.end(), &sorted)) {
                return Err(needs_statements());
            }
            done = Some(sorted);
            Ok(())
        })
    });
    match outcome {
        Err(caught) => Ok(Err(caught)),
        Ok(Ok(())) => Ok(Ok(done)),
        Ok(Err(problem)) if problem.code() == state::UNSUPPORTED => Ok(Ok(None)),
        Ok(Err(problem)) => Err(problem),
    }
}

/// Whether the triggers saw the rows come that were sent, those go that they replace, and nothing else: code of
/// the table's owner may write to it too.
fn is_as_sent(counted: &Counted, sorted: &Sorted<'_>) -> bool {
    let mut sent = Fingerprint::default();
    sorted.new.iter().chain(&sorted.updated).for_each(|row| sent.insert(&row.digest));
    counted.added == sent && counted.removed.row_count() == sorted.updated.len() as u64
}

/// Rolls the subtransaction back; it is not shown.
fn needs_statements() -> Problem {
    Problem::new(state::UNSUPPORTED, "the table needs statements")
}

/// Inserts rows without asking for each whether it exists, which is most of a first sync; others fail at the
/// first of them, which costs little.
fn store_as_new<'u>(
    database: &Database,
    table: &mut ManagedTable,
    rows: Vec<IncomingRow<'u>>,
    report: &mut Report,
) -> Answer<Vec<IncomingRow<'u>>> {
    let rows: Vec<(IncomingRow<'u>, bool)> = rows.into_iter().map(|row| (row, false)).collect();
    let mut writer = Writer { database, table, may_replace: false, report, waiting: Vec::new() };
    match writer.attempt(&rows, Mode::Update)? {
        Ok(()) => Ok(Vec::new()),
        Err(Failed::Raised(caught)) if fault(&caught).is_none() => caught.raise(),
        Err(_) => Ok(rows.into_iter().map(|(row, _)| row).collect()),
    }
}

/// Whether the replica has no row at this position or beyond.
fn is_beyond_all(database: &Database, table: &ManagedTable, position: i64) -> Answer<bool> {
    let mut placeholders = Placeholders::for_tenant(table, database)?;
    let predicate = table.range_predicate(Some(position), None, &mut placeholders);
    let sql = format!("SELECT 1 FROM {} t WHERE {predicate} LIMIT 1", table.name);
    let mut none = true;
    let mut take = |_: &Row<'_>| {
        none = false;
        Ok(())
    };
    table.as_owner(|| by_index(|| execute(&sql, placeholders.parameters(), None, &mut take)))?;
    Ok(none)
}
