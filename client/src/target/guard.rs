//! The guard against destruction on this side: how many rows of a local table may be deleted or set back within a day is
//! the core's rule, and what was touched is noted in the local database, in the transaction that touches it. Beyond it
//! the table is on hold until the person at the client agrees: no server can.
//!
//! Two tables of notes: `plimsoll_guard` counts rows by table and hour, `plimsoll_hold` has the tables that are on hold,
//! and what a person agreed to.

use plimsoll_core::guard::{FRACTION, HOURS, Weight};
use plimsoll_core::store::Outcome;

use crate::agent::now;
use crate::source::notes::{Cell, NoteType};
use crate::source::write::{LocalStore, Look, Transaction};

const GUARD: &str = "plimsoll_guard";
const HOLD: &str = "plimsoll_hold";
/// Microseconds of an hour.
const HOUR: i64 = 3_600 * 1_000_000;
/// How long a release is good for.
const RELEASED_FOR: i64 = 24 * HOUR;
/// Characters of a table's name, and of a reason.
const NAME: u32 = 250;
const REASON: u32 = 500;

/// Why a table is on hold where nothing else is said.
pub const TOO_MANY: &str = "more rows to delete or set back here than the guard allows";

/// Whether planned deletes, or upserts that lower a version, may be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They may, and count.
    Allowed,
    /// They may, because a person agreed: they do not count.
    Released,
    /// They may not: the table is on hold.
    Held,
}

/// A table on which nothing destructive happens until a person agrees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Since when, in microseconds since the Unix epoch.
    pub since: i64,
    /// How many rows were to be deleted or set back.
    pub planned: u64,
    /// Why.
    pub reason: String,
}

/// What is to be done to a table's rows. A hold, and what a person agrees to, is about the rows that are named: what they take
/// along differs from one delete to the next, and weighs only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Rows that are named now.
    pub rows: u64,
    /// About how many the run names from here on, these among them.
    pub planned: u64,
    /// Rows that these take along.
    pub along: u64,
    /// Rows of the table before the run.
    pub row_count: u64,
    /// Rows added to a table without a key since it was last level.
    pub replacing: u64,
}

impl Plan {
    /// About how many rows go along where so many go with the rows named now.
    pub fn all_along(&self, along: u64) -> u64 {
        let all = u128::from(along) * u128::from(self.planned.max(self.rows)) / u128::from(self.rows.max(1));
        u64::try_from(all).unwrap_or(u64::MAX)
    }
}

/// What speaks for and against a plan, of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weighed {
    /// It is as little as the guard allows.
    Light,
    /// It is more than that.
    Heavy,
    /// The table is on hold.
    OnHold,
}

/// Makes the tables of notes where there are none.
///
/// # Errors
/// What the database says.
pub fn define(store: &mut dyn LocalStore) -> Outcome<()> {
    let notes = store.notes();
    let guard = [
        ("relation", NoteType::Text(NAME), false),
        ("hour", NoteType::Int, false),
        ("touched", NoteType::Int, false),
        ("largest", NoteType::Int, false),
    ];
    store.define(&notes.create(GUARD, &guard, &["relation", "hour"]))?;
    let hold = [
        ("relation", NoteType::Text(NAME), false),
        ("since", NoteType::Int, true),
        ("planned", NoteType::Int, false),
        ("reason", NoteType::Text(REASON), false),
        ("released", NoteType::Int, false),
        ("released_until", NoteType::Int, false),
    ];
    store.define(&notes.create(HOLD, &hold, &["relation"]))
}

/// What is noted of a table.
#[derive(Debug, Clone, Default)]
struct Known {
    hold: Option<Hold>,
    /// Rows that a person agreed to lose, until this moment.
    released: u64,
    released_until: i64,
}

fn integer(cell: Option<&Cell<'_>>) -> Option<i64> {
    match cell {
        Some(Cell::Int(number)) => Some(*number),
        _ => None,
    }
}

fn unsigned(cell: Option<&Cell<'_>>) -> u64 {
    integer(cell).map_or(0, |number| u64::try_from(number).unwrap_or(0))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn known(look: &mut dyn Look, table: &str) -> Outcome<Known> {
    let mut known = Known::default();
    let sql = "SELECT since, planned, reason, released, released_until FROM plimsoll_hold WHERE relation = ?";
    look.query(sql, &[Cell::Text(table)], &mut |row| {
        let reason = match row.get(2) {
            Some(Cell::Text(reason)) => (*reason).to_owned(),
            _ => String::new(),
        };
        let planned = unsigned(row.get(1));
        known = Known {
            hold: integer(row.first()).map(|since| Hold { since, planned, reason }),
            released: unsigned(row.get(3)),
            released_until: integer(row.get(4)).unwrap_or(0),
        };
        Ok(())
    })?;
    Ok(known)
}

fn write(transaction: &mut dyn Transaction, table: &str, known: &Known) -> Outcome<()> {
    let hold = known.hold.as_ref();
    let row = vec![
        Cell::Text(table),
        hold.map_or(Cell::Null, |hold| Cell::Int(hold.since)),
        Cell::Int(hold.map_or(0, |hold| signed(hold.planned))),
        Cell::Text(hold.map_or("", |hold| hold.reason.as_str())),
        Cell::Int(signed(known.released)),
        Cell::Int(known.released_until),
    ];
    let others = ["since", "planned", "reason", "released", "released_until"];
    transaction.notes().put(transaction, HOLD, &["relation"], &others, &[row])
}

/// The table's hold, where it has one.
///
/// # Errors
/// What the database says: also where no notes were ever made.
pub fn hold_of(look: &mut dyn Look, table: &str) -> Outcome<Option<Hold>> {
    Ok(known(look, table)?.hold)
}

/// Puts a table on hold, with how many rows were to be lost: a later plan replaces a smaller one.
///
/// # Errors
/// What the database says.
pub fn hold(transaction: &mut dyn Transaction, table: &str, planned: u64, reason: &str) -> Outcome<()> {
    let mut known = known(transaction, table)?;
    let before = known.hold.take();
    let shown: String = reason.chars().take(REASON as usize).collect();
    known.hold = Some(match before {
        Some(hold) => Hold { planned: hold.planned.max(planned), ..hold },
        None => Hold { since: now(), planned, reason: shown },
    });
    write(transaction, table, &known)
}

/// Approves what a table's hold planned, once, for a day. Whether there was one.
///
/// # Errors
/// What the database says.
pub fn release(transaction: &mut dyn Transaction, table: &str) -> Outcome<bool> {
    let mut known = known(transaction, table)?;
    let Some(hold) = known.hold.take() else { return Ok(false) };
    known.released = hold.planned;
    known.released_until = now().saturating_add(RELEASED_FOR);
    write(transaction, table, &known)?;
    Ok(true)
}

/// How many rows a person agreed to lose that are still there.
///
/// # Errors
/// What the database says.
pub fn released(look: &mut dyn Look, table: &str) -> Outcome<u64> {
    let known = known(look, table)?;
    Ok(if known.released_until > now() { known.released } else { 0 })
}

/// Weighs rows that are to be touched, or to go along with those of another table; notes nothing.
///
/// # Errors
/// What the database says.
pub fn weigh(look: &mut dyn Look, table: &str, plan: Plan) -> Outcome<Weighed> {
    if known(look, table)?.hold.is_some() {
        return Ok(Weighed::OnHold);
    }
    let (mut touched, mut largest) = (plan.all_along(plan.along), plan.row_count);
    let since = now() / HOUR - i64::from(HOURS);
    let sql = "SELECT touched, largest FROM plimsoll_guard WHERE relation = ? AND hour > ?";
    look.query(sql, &[Cell::Text(table), Cell::Int(since)], &mut |row| {
        touched = touched.saturating_add(unsigned(row.first()));
        largest = largest.max(unsigned(row.get(1)));
        Ok(())
    })?;
    let weight = Weight { largest, touched, replacing: plan.replacing, fraction: FRACTION };
    Ok(if weight.allows(plan.planned.max(plan.rows)) { Weighed::Light } else { Weighed::Heavy })
}

/// Asks for leave to touch rows. A refusal puts the table on hold in this transaction, and what a person agreed to is used in
/// it: whoever asks commits it.
///
/// # Errors
/// What the database says.
pub fn ask(transaction: &mut dyn Transaction, table: &str, plan: Plan) -> Outcome<Verdict> {
    ask_with(transaction, table, plan, Weighed::Light, TOO_MANY)
}

/// As [`ask`], where rows of other tables go along, of which the worst that was found is `others`; `reason`: of a hold.
///
/// # Errors
/// What the database says.
pub fn ask_with(
    transaction: &mut dyn Transaction,
    table: &str,
    plan: Plan,
    others: Weighed,
    reason: &str,
) -> Outcome<Verdict> {
    if plan.rows == 0 {
        return Ok(Verdict::Allowed);
    }
    let planned = plan.planned.max(plan.rows);
    let weighed = weigh(transaction, table, plan)?.max(others);
    if weighed == Weighed::Light {
        return Ok(Verdict::Allowed);
    }
    let mut known = known(transaction, table)?;
    let is_released = known.released >= planned && known.released_until > now();
    if weighed == Weighed::Heavy && is_released {
        known.released -= plan.rows;
        write(transaction, table, &known)?;
        return Ok(Verdict::Released);
    }
    hold(transaction, table, planned, reason)?;
    Ok(Verdict::Held)
}

/// Gives back what was not used of an approval, because so many rows were not touched after all.
///
/// # Errors
/// What the database says.
pub fn give_back(transaction: &mut dyn Transaction, table: &str, rows: u64, verdict: Verdict) -> Outcome<()> {
    if rows == 0 || verdict != Verdict::Released {
        return Ok(());
    }
    let mut known = known(transaction, table)?;
    known.released = known.released.saturating_add(rows);
    write(transaction, table, &known)
}

/// Counts rows that were touched with this leave.
///
/// # Errors
/// What the database says.
pub fn count(
    transaction: &mut dyn Transaction,
    table: &str,
    touched: u64,
    row_count: u64,
    verdict: Verdict,
) -> Outcome<()> {
    if touched == 0 || verdict != Verdict::Allowed {
        return Ok(());
    }
    let hour = now() / HOUR;
    let (mut before, mut largest) = (0, row_count);
    let sql = "SELECT touched, largest FROM plimsoll_guard WHERE relation = ? AND hour = ?";
    transaction.query(sql, &[Cell::Text(table), Cell::Int(hour)], &mut |row| {
        before = unsigned(row.first());
        largest = largest.max(unsigned(row.get(1)));
        Ok(())
    })?;
    let row = vec![
        Cell::Text(table),
        Cell::Int(hour),
        Cell::Int(signed(before.saturating_add(touched))),
        Cell::Int(signed(largest)),
    ];
    transaction.notes().put(transaction, GUARD, &["relation", "hour"], &["touched", "largest"], &[row])?;
    let old = Cell::Int(hour - i64::from(HOURS) - 1);
    transaction
        .execute("DELETE FROM plimsoll_guard WHERE relation = ? AND hour < ?", &[Cell::Text(table), old])
        .map(drop)
}
