//! The first attempts at an upload: without statements where the table allows it, and without looking for rows
//! that are likely new.

use plimsoll_core::digest::{DigestQueue, Digester};
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::row::{digest_form, examine_each};

use super::bulk::{self, Sorted};
use super::store::{Failed, Mode, Writer, fault};
use super::{IncomingRow, Report};
use crate::access::Database;
use crate::datum::{Caught, Row, Scratch, attempt, by_index, execute, may_have_children};
use crate::error::{Answer, Problem, state};
use crate::kept::{Counted, Counting};
use crate::table::{ManagedTable, Placeholders};

/// How many rows of an upload are looked at to learn whether all of them are new.
const SAMPLE: usize = 16;

/// What a few rows say of all rows of an upload. It decides what is tried first, and nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Prospect {
    /// They lie beyond everything the replica has: they are new, or newer versions of rows it has.
    beyond: bool,
    /// They are new.
    new: bool,
}

/// Looks at a few rows.
pub fn prospect<'u>(
    database: &Database,
    table: &mut ManagedTable,
    rows: impl Iterator<Item = plimsoll_core::Result<&'u [u8]>>,
) -> Answer<Prospect> {
    let mut prospect = Prospect { beyond: false, new: false };
    if table.schema.is_keyless() {
        // Nothing is looked for.
        let new = !may_have_children(table.oid);
        return Ok(Prospect { beyond: new, new });
    }
    let step = rows.size_hint().1.unwrap_or(1) / SAMPLE;
    let mut sample = Vec::with_capacity(SAMPLE + 1);
    let mut lowest = i64::MAX;
    for row in rows.step_by(step.max(1)) {
        // Rows that are refused are dealt with later.
        let Ok(row) = row else { break };
        let Ok(position) = examine_each(row, &table.schema, |_, _, _| Ok(())) else { continue };
        lowest = lowest.min(position);
        sample.push(row);
    }
    if sample.is_empty() || may_have_children(table.oid) {
        return Ok(prospect);
    }
    // A hash says nothing of what is new.
    prospect.beyond = !table.is_hashed() && is_beyond_all(database, table, lowest)?;
    if prospect.beyond || table.is_hashed() {
        let owner = table.owner;
        let outcome = within_attempt(|| {
            crate::identity::as_owner(owner, || bulk::one_exists(database, table, &sample)).map(Some)
        })?;
        match outcome {
            Err(caught) if fault(&caught).is_none() => caught.raise(),
            outcome => prospect.new = matches!(outcome, Ok(Some(false))),
        }
    }
    Ok(prospect)
}

/// Stores rows that are likely all new in one pass, without statements, each as soon as it is checked. `false`
/// where that did not go well: nothing is stored then.
pub fn store_unseen<'u>(
    database: &Database,
    table: &mut ManagedTable,
    rows: impl Iterator<Item = plimsoll_core::Result<&'u [u8]>>,
    prospect: Prospect,
    report: &mut Report,
) -> Answer<bool> {
    if !prospect.new {
        return Ok(false);
    }
    let (owner, keep_manifest) = (table.owner, table.keep_manifest);
    let outcome = within_attempt(|| {
        let counting = Counting::begin(table, database);
        let mut queue = DigestQueue::new(&Digester::new(database.fingerprint_key.clone()));
        let mut sent = Fingerprint::default();
        let mut settle = |queue: &mut DigestQueue<()>| {
            queue.take_all(|(), digest, _| {
                sent.insert(&digest);
                Ok::<bool, Problem>(true)
            })
        };
        let mut take = |row: &[u8]| {
            // Where a manifest is kept, the digests are those of what is stored.
            if !keep_manifest {
                digest_form(row, queue.form())?;
                if queue.push(()) {
                    settle(&mut queue)?;
                }
            }
            Ok(())
        };
        let stored =
            crate::identity::as_owner(owner, || bulk::insert_checked(database, table, rows, &mut take))?;
        let Some(count) = stored else { return Ok(None) };
        settle(&mut queue)?;
        let counted = match counting {
            Some(counting) => counting.end(),
            None => Counted { added: sent, removed: Fingerprint::default() },
        };
        // What was counted is what was sent, row by row, and nothing else: code of the table's owner may write to
        // it too.
        let as_sent = counted.added.row_count() == count && counted.removed == Fingerprint::default();
        Ok(as_sent.then_some((count, counted.added)))
    })?;
    match outcome {
        Ok(Some((count, fingerprint))) => {
            report.inserted += count;
            report.fingerprint.combine(&fingerprint);
            Ok(true)
        }
        // A cancelled statement, a serialization failure and the like are not for a second try.
        Err(caught) if fault(&caught).is_none() => caught.raise(),
        _ => Ok(false),
    }
}

/// Does work in a subtransaction, which is rolled back where it answers `None` or that the table needs statements,
/// and where it raises an ERROR, which is answered.
pub fn within_attempt<T>(work: impl FnOnce() -> Answer<Option<T>>) -> Answer<Result<Option<T>, Caught>> {
    let scratch = Scratch::new();
    let outcome = scratch.within(|| attempt(|| work()?.ok_or_else(needs_statements)));
    match outcome {
        Err(caught) => Ok(Err(caught)),
        Ok(Ok(done)) => Ok(Ok(Some(done))),
        Ok(Err(problem)) if problem.code() == state::UNSUPPORTED => Ok(Ok(None)),
        Ok(Err(problem)) => Err(problem),
    }
}

/// Stores what can be stored at once, and answers the rows that are left: all of them where one is at fault.
pub fn store_first<'u>(
    database: &Database,
    table: &mut ManagedTable,
    rows: Vec<IncomingRow<'u>>,
    prospect: Prospect,
    report: &mut Report,
) -> Answer<Vec<IncomingRow<'u>>> {
    // The same key in a child table violates no index.
    if rows.is_empty() || may_have_children(table.oid) {
        return Ok(rows);
    }
    let Prospect { beyond, new } = prospect;
    let outcome = match store_bulk(database, table, &rows, new)? {
        // The sample held none of the rows that are there.
        Err(caught) if new && !table.schema.is_keyless() && caught.sqlstate() == "23505" => {
            store_bulk(database, table, &rows, false)?
        }
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
    within_attempt(|| {
        let counting = Counting::begin(table, database);
        let sorted = crate::identity::as_owner(owner, || {
            let mut sorted = Sorted::default();
            if likely_new {
                sorted.new = rows.to_vec();
            } else {
                sorted = bulk::update_raised(database, table, rows, None)?.ok_or_else(needs_statements)?;
            }
            if !sorted.new.is_empty() && !bulk::insert(database, table, sorted.new.iter())? {
                if sorted.updated.is_empty() {
                    return Err(needs_statements());
                }
                sorted.others.append(&mut sorted.new);
            }
            Ok(sorted)
        })?;
        // What was counted is what is stored.
        let as_sent = counting.is_none_or(|counting| is_as_sent(&counting.end(), &sorted));
        Ok(as_sent.then_some(sorted))
    })
}

/// Whether the triggers saw the rows come that were sent, those go that they replace, and nothing else: code of
/// the table's owner may write to it too.
pub fn is_as_sent(counted: &Counted, sorted: &Sorted<'_>) -> bool {
    let mut sent = Fingerprint::default();
    sorted.new.iter().chain(&sorted.updated).for_each(|row| sent.insert(&row.digest));
    counted.added == sent && counted.removed.row_count() == sorted.updated.len() as u64
}

/// Rolls the subtransaction back; it is not shown.
pub fn needs_statements() -> Problem {
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
    let mut writer = Writer {
        database,
        table,
        may_replace: false,
        report,
        waiting: Vec::new(),
        past_statements: true,
        fault,
    };
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
    let index = table.position_index();
    table.as_owner(|| by_index(index, || execute(&sql, placeholders.parameters(), None, &mut take)))?;
    Ok(none)
}
