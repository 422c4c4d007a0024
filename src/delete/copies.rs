//! Deletes from tables without a key: as many of equal rows as are named, or all of a range. Rows are locked, and deleted,
//! where they lie.

use std::collections::{HashMap, HashSet};

use plimsoll_core::digest::Digester;
use plimsoll_core::manifest::Item;
use plimsoll_core::row::position_in;
use plimsoll_core::store::PositionRange;

use super::{Doomed, Leave, Report, finish, is_referred_to};
use crate::access::Database;
use crate::cascade;
use crate::datum::{
    IncomingRows, Parameter, Place, Row, Scratch, attempt, by_index, by_only, by_place, execute, long_array,
    place_arrays, read_rows, set_constraints_immediate,
};
use crate::error::{Answer, Problem, state};
use crate::identity::as_owner;
use crate::table::{ManagedTable, Placeholders};

/// Rows that are locked or deleted together.
const TOGETHER: usize = 5_000;

/// Rows that others refer to of which the answer tells: the first ones.
const MOST_BLOCKED: usize = 10_000;

/// The rows that people name by their whole content: where such rows stand, and their digests.
///
/// # Errors
/// `BAD_ARGUMENT` where a version or a digest is given that is not the row's.
pub fn named(database: &Database, table: &ManagedTable, rows: &[Doomed]) -> Answer<Vec<Item>> {
    let mut digester = Digester::new(database.fingerprint_key.clone());
    let mut item = |row: &Doomed| {
        let position = position_in(&row.key, &table.schema)?;
        let item = Item { position, digest: digester.digest(&row.key)? };
        let is_so = row.position.is_none_or(|position| position == item.position)
            && row.digest.is_none_or(|digest| digest == item.digest);
        if is_so {
            return Ok(item);
        }
        let message = format!("row {}: its version or digest is not that of the row", row.ordinal);
        Err(Problem::new(state::BAD_ARGUMENT, message)
            .hint("In a table without a key the row says both: leave them out."))
    };
    rows.iter().map(&mut item).collect()
}

/// A row that is locked.
#[derive(Clone, Copy)]
struct Locked {
    /// Which of the rows it is that were named, or its place among those of a range.
    ordinal: usize,
    place: Place,
}

/// Deletes as many rows of each position and digest as are named, or as there are. `planned`: rows still to be
/// deleted in this run.
pub fn delete(
    database: &Database,
    table: &mut ManagedTable,
    items: Vec<Item>,
    planned: Option<u64>,
    run_id: Option<i64>,
) -> Answer<Report> {
    let mut report = Report::default();
    if items.is_empty() {
        return Ok(report);
    }
    set_constraints_immediate();
    let owner = table.owner;
    let locked = as_owner(owner, || lock(database, table, &items))?;
    let rows = locked.len() as u64;
    let taken = cascade::taken(database, table, &without_key(table, locked.len())?)?;
    let Some(leave) = Leave::ask(database, table, rows, planned.unwrap_or(0), taken)? else {
        report.held = rows;
        return Ok(report);
    };
    remove(database, table, locked, &mut report)?;
    leave.count(database, table, report.deleted)?;
    finish(database, table, run_id, &report)?;
    Ok(report)
}

/// Deletes the rows of a range that are there now, or none where the guard forbids it.
pub fn sweep(
    database: &Database,
    table: &mut ManagedTable,
    range: PositionRange,
    run_id: Option<i64>,
) -> Answer<Report> {
    let mut report = Report::default();
    set_constraints_immediate();
    let mut rows = 0;
    each_group(database, table, range, &mut |group| {
        rows += table.as_owner(|| lock_places(database, table, &group))?.len();
        Ok(())
    })?;
    if rows == 0 {
        return Ok(report);
    }
    let taken = cascade::taken(database, table, &without_key(table, rows.min(TOGETHER))?)?;
    let Some(leave) = Leave::ask(database, table, rows as u64, 0, taken)? else {
        report.held = rows as u64;
        return Ok(report);
    };
    each_group(database, table, range, &mut |group| {
        let there = table.as_owner(|| lock_places(database, table, &group))?;
        remove(database, table, there, &mut report)?;
        report.blocked.truncate(MOST_BLOCKED);
        Ok(())
    })?;
    leave.count(database, table, report.deleted)?;
    finish(database, table, run_id, &report)?;
    Ok(report)
}

/// Hands the rows of a range over in groups, as the snapshot of the caller has them.
fn each_group(
    database: &Database,
    table: &ManagedTable,
    range: PositionRange,
    take: &mut dyn FnMut(Vec<Locked>) -> Answer<()>,
) -> Answer<()> {
    let mut placeholders = Placeholders::for_tenant(table, database)?;
    let predicate = table.range_predicate(range.from, range.to, &mut placeholders);
    let sql = format!("SELECT t.ctid, t.tableoid FROM {} t WHERE {predicate}", table.name);
    let (mut group, mut ordinal) = (Vec::new(), 0);
    // What one group takes from Postgres is freed before the next.
    let scratch = Scratch::new();
    let mut hand_over = |group: Vec<Locked>| {
        pgrx::check_for_interrupts!();
        let answer = scratch.within(|| take(group));
        scratch.reset();
        answer
    };
    let mut take = |row: &Row<'_>| {
        group.extend(row.place(0, 1).map(|place| Locked { ordinal, place }));
        ordinal += 1;
        if group.len() == TOGETHER {
            hand_over(std::mem::take(&mut group))?;
        }
        Ok(true)
    };
    table.as_owner(|| {
        by_only(table.position_index(), || read_rows(&sql, placeholders.parameters(), &mut take))
    })?;
    if group.is_empty() { Ok(()) } else { hand_over(group) }
}

/// Rows of which nothing is known but the tenant: others can refer to them by that alone.
fn without_key(table: &ManagedTable, rows: usize) -> Answer<IncomingRows> {
    let mut incoming = IncomingRows::new(&table.incoming_columns())?;
    let nothing = vec![None; table.physical.len()];
    (0..rows).try_for_each(|ordinal| incoming.push_row(ordinal, None, &nothing))?;
    Ok(incoming)
}

/// Locks as many rows of each item as are named. At each position so many rows are looked at first; all of them only
/// where these were not the ones.
fn lock(database: &Database, table: &mut ManagedTable, items: &[Item]) -> Answer<Vec<Locked>> {
    let mut wanted: HashMap<Item, Vec<usize>> = HashMap::new();
    for (ordinal, item) in items.iter().enumerate() {
        wanted.entry(*item).or_default().push(ordinal);
    }
    let (mut locked, mut known) = (Vec::new(), HashSet::new());
    for is_limited in [true, false] {
        let mut positions: HashMap<i64, i64> = HashMap::new();
        for (item, ordinals) in wanted.iter().filter(|(_, ordinals)| !ordinals.is_empty()) {
            *positions.entry(item.position).or_default() += ordinals.len() as i64;
        }
        // Where fewer rows stand than are wanted there are no others to look at.
        let mut met: HashMap<i64, i64> = HashMap::new();
        lock_positions(database, table, &positions, is_limited, &mut |item, place| {
            *met.entry(item.position).or_default() += 1;
            if known.contains(&place) {
                return;
            }
            if let Some(ordinal) = wanted.get_mut(&item).and_then(Vec::pop) {
                known.insert(place);
                locked.push(Locked { ordinal, place });
            }
        })?;
        for (item, ordinals) in &mut wanted {
            if met.get(&item.position) < positions.get(&item.position) {
                ordinals.clear();
            }
        }
    }
    locked.sort_unstable_by_key(|row: &Locked| row.ordinal);
    Ok(locked)
}

/// Locks the rows at these positions, all or at most as many as are given with each, and hands them to `take`.
fn lock_positions(
    database: &Database,
    table: &mut ManagedTable,
    positions: &HashMap<i64, i64>,
    is_limited: bool,
    take: &mut dyn FnMut(Item, Place),
) -> Answer<()> {
    let possible = positions.iter().filter(|(position, _)| table.possible(**position, **position).is_some());
    let (at, most): (Vec<i64>, Vec<i64>) = possible.unzip();
    if at.is_empty() {
        return Ok(());
    }
    let mut placeholders = Placeholders::for_tenant(table, database)?;
    let at = placeholders.add(long_array(table.position_parameter(0).type_oid, &at));
    let most = placeholders.add(long_array(pgrx::pg_sys::INT8OID, &most));
    let sql = format!(
        "SELECT t.\"plimsoll ctid\", t.\"plimsoll table\", {columns}
         FROM ROWS FROM (pg_catalog.unnest({at}), pg_catalog.unnest({most}))
             AS b (\"plimsoll position\", \"plimsoll most\")
         CROSS JOIN LATERAL (
             SELECT t.ctid AS \"plimsoll ctid\", t.tableoid AS \"plimsoll table\", {columns} FROM {} t
             WHERE {} AND {} OPERATOR(pg_catalog.=) b.\"plimsoll position\"
             LIMIT {} FOR UPDATE) t",
        table.name,
        table.placed_predicate(),
        table.position("t."),
        if is_limited { "b.\"plimsoll most\"" } else { "NULL" },
        columns = table.column_list("t."),
    );
    let mut digester = Digester::new(database.fingerprint_key.clone());
    let (index, numbers) = (table.position_index(), table.numbers());
    let (schema, codecs) = (&table.schema, &mut table.codecs);
    let mut encoded = Vec::new();
    let mut take = |row: &Row<'_>| {
        encoded.clear();
        row.encode(2, &numbers, codecs, &mut encoded)?;
        let item = Item { position: position_in(&encoded, schema)?, digest: digester.digest(&encoded)? };
        if let Some(place) = row.place(0, 1) {
            take(item, place);
        }
        Ok(())
    };
    by_index(index, || execute(&sql, placeholders.parameters(), None, &mut take)).map(drop)
}

/// The statement's end that says which rows are meant: those at places, of the tenant, in a form that offers the
/// planner no index.
fn at_places(table: &ManagedTable) -> String {
    format!(
        "t.ctid OPERATOR(pg_catalog.=) g.place AND t.tableoid OPERATOR(pg_catalog.=) g.relation AND ({}) IS TRUE",
        table.tenant_predicate()
    )
}

/// The places as a table of a statement, and its parameters.
fn places(database: &Database, table: &ManagedTable, rows: &[Locked]) -> Answer<(String, Vec<Parameter>)> {
    let mut placeholders = Placeholders::for_tenant(table, database)?;
    let [ctids, tables] = place_arrays(&rows.iter().map(|row| row.place).collect::<Vec<_>>());
    let (ctids, tables) = (placeholders.add(ctids), placeholders.add(tables));
    let relation = format!(
        "ROWS FROM (pg_catalog.unnest({ctids}), pg_catalog.unnest({tables})) WITH ORDINALITY
             AS g (place, relation, number)"
    );
    Ok((relation, placeholders.parameters().to_vec()))
}

/// Locks rows: those that are still there as they were read.
fn lock_places(database: &Database, table: &ManagedTable, rows: &[Locked]) -> Answer<Vec<Locked>> {
    let (relation, parameters) = places(database, table, rows)?;
    let sql = format!(
        "SELECT g.number FROM {relation} CROSS JOIN LATERAL (SELECT FROM {} t WHERE {} FOR UPDATE) t",
        table.name,
        at_places(table)
    );
    let mut there = Vec::with_capacity(rows.len());
    let mut take = |row: &Row<'_>| {
        let number = row.int8(0).and_then(|number| usize::try_from(number - 1).ok());
        there.extend(number.and_then(|number| rows.get(number)).copied());
        Ok(())
    };
    by_place(|| execute(&sql, &parameters, None, &mut take))?;
    Ok(there)
}

/// Deletes locked rows, halving where others still refer to some of them.
fn remove(
    database: &Database,
    table: &ManagedTable,
    mut rows: Vec<Locked>,
    report: &mut Report,
) -> Answer<()> {
    if rows.is_empty() {
        return Ok(());
    }
    pgrx::check_for_interrupts!();
    let removed = attempt(|| {
        table.as_owner(|| {
            let (relation, parameters) = places(database, table, &rows)?;
            let sql = format!("DELETE FROM {} t USING {relation} WHERE {}", table.name, at_places(table));
            by_place(|| execute(&sql, &parameters, None, &mut |_| Ok(())))
        })
    });
    match removed {
        Ok(removed) => report.deleted += removed?,
        Err(caught) if !is_referred_to(&caught) => caught.raise(),
        Err(_) if rows.len() == 1 => report.blocked.extend(rows.iter().map(|row| row.ordinal)),
        Err(_) => {
            let rest = rows.split_off(rows.len() / 2);
            remove(database, table, rows, report)?;
            remove(database, table, rest, report)?;
        }
    }
    Ok(())
}
