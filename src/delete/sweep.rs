//! Deletes of all rows of a range, some at a time, so that memory does not grow with the replica: once to lock and
//! count them, because the guard is asked about all of them, and once to delete.

use std::collections::{BTreeMap, HashMap};

use plimsoll_core::digest::Digester;
use plimsoll_core::row::{key_of, position_in};
use plimsoll_core::store::PositionRange;

use super::{
    Doomed, Leave, Report, copies, finish, is_referred_to, key_rows, lock_as_named, remove, remove_all,
};
use crate::access::Database;
use crate::cascade::{self, Taken};
use crate::datum::{Ctid, Scratch, attempt, set_constraints_immediate};
use crate::error::Answer;
use crate::identity::as_owner;
use crate::table::{self, ManagedTable};
use crate::version::read_range;

/// Rows that are locked or deleted together.
const TOGETHER: usize = 5_000;
/// Bytes of keys that are.
const BYTES_TOGETHER: usize = 1 << 20;

/// Rows that others refer to of which the answer tells: the first ones.
const MOST_BLOCKED: usize = 10_000;

/// Deletes the rows of a range that are there now, or none where the guard forbids it.
pub fn delete(
    database: &Database,
    table: &mut ManagedTable,
    range: PositionRange,
    run_id: Option<i64>,
) -> Answer<Report> {
    if table.schema.is_keyless() {
        return copies::sweep(database, table, range, run_id);
    }
    let mut report = Report::default();
    set_constraints_immediate();
    // A second look-up of the same table: one reads while the other writes.
    let mut reader = table::resolve(&table.name)?;
    let (rows, taken) = lock(database, table, &mut reader, range)?;
    if rows == 0 {
        return Ok(report);
    }
    let Some(leave) = Leave::ask(database, table, rows, 0, taken)? else {
        report.held = rows;
        return Ok(report);
    };
    // In one subtransaction: each keeps the memory of its triggers' transition tables until the end of all.
    let together = attempt(|| {
        let mut deleted = 0;
        each_group(database, &mut reader, range, &mut |rows| {
            let (rows, there) = still_there(database, table, rows)?;
            let owner = table.owner;
            deleted += as_owner(owner, || remove_all(database, table, &rows, &there))?;
            Ok(())
        })?;
        Ok(deleted)
    });
    match together {
        Ok(deleted) => report.deleted = deleted?,
        Err(caught) if is_referred_to(&caught) => {
            remove_groups(database, table, &mut reader, range, &mut report)?
        }
        Err(caught) => caught.raise(),
    }
    leave.count(database, table, report.deleted)?;
    finish(database, table, run_id, &report)?;
    Ok(report)
}

/// Deletes the rows that no others refer to. One that a row of the same table refers to goes once that one is gone.
fn remove_groups(
    database: &Database,
    table: &mut ManagedTable,
    reader: &mut ManagedTable,
    range: PositionRange,
    report: &mut Report,
) -> Answer<()> {
    loop {
        let before = report.deleted;
        report.blocked.clear();
        each_group(database, reader, range, &mut |rows| {
            let (rows, there) = still_there(database, table, rows)?;
            remove(database, table, rows, &there, report)?;
            report.blocked.truncate(MOST_BLOCKED);
            Ok(())
        })?;
        if report.blocked.is_empty() || report.deleted == before {
            return Ok(());
        }
    }
}

/// Locks rows: those that are still there as they were read, and where.
fn still_there(
    database: &Database,
    table: &mut ManagedTable,
    mut rows: Vec<Doomed>,
) -> Answer<(Vec<Doomed>, HashMap<usize, Ctid>)> {
    let owner = table.owner;
    let there = as_owner(owner, || lock_as_named(database, table, &rows))?;
    rows.retain(|row| there.contains_key(&row.ordinal));
    Ok((rows, there))
}

/// Locks the rows; how many there are, and what they would take along.
fn lock(
    database: &Database,
    table: &mut ManagedTable,
    reader: &mut ManagedTable,
    range: PositionRange,
) -> Answer<(u64, Vec<Taken>)> {
    let mut count = 0;
    let mut all: BTreeMap<Option<String>, u64> = BTreeMap::new();
    each_group(database, reader, range, &mut |rows| {
        let (rows, there) = still_there(database, table, rows)?;
        count += rows.len() as u64;
        let incoming = key_rows(table, &rows, &there)?;
        for taken in cascade::taken(database, table, &incoming)? {
            // By name: what was looked up lives no longer than the group.
            *all.entry(taken.table.map(|table| table.name)).or_default() += taken.rows;
        }
        Ok(())
    })?;
    let taken = all.into_iter().map(|(name, rows)| {
        let table = name.map(|name| table::resolve(&name)).transpose()?;
        Ok(Taken { table, rows })
    });
    Ok((count, taken.collect::<Answer<Vec<_>>>()?))
}

/// Hands the rows of a range over in groups, as the snapshot of the caller has them.
fn each_group(
    database: &Database,
    table: &mut ManagedTable,
    range: PositionRange,
    take: &mut dyn FnMut(Vec<Doomed>) -> Answer<()>,
) -> Answer<()> {
    let schema = table.schema.clone();
    let mut digester = Digester::new(database.fingerprint_key.clone());
    let (mut rows, mut bytes, mut ordinal) = (Vec::new(), 0, 0);
    // What one group takes from Postgres is freed before the next.
    let scratch = Scratch::new();
    let mut hand_over = |rows: Vec<Doomed>| {
        pgrx::check_for_interrupts!();
        let answer = scratch.within(|| take(rows));
        scratch.reset();
        answer
    };
    read_range(database, table, range, true, &mut |_, row| {
        let key = key_of(row, &schema)?;
        bytes += key.len();
        let (position, digest) = (Some(position_in(row, &schema)?), Some(digester.digest(row)?));
        rows.push(Doomed { ordinal, key, position, digest });
        ordinal += 1;
        if rows.len() == TOGETHER || bytes > BYTES_TOGETHER {
            bytes = 0;
            hand_over(std::mem::take(&mut rows))?;
        }
        Ok(true)
    })?;
    if rows.is_empty() { Ok(()) } else { hand_over(rows) }
}
