//! Deletes: exactly the rows named by key and digest, or a range, through the guard against destruction.

mod conditional;
mod copies;
mod leave;
mod sweep;

use std::collections::HashMap;

use pgrx::datum::AnyElement;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};
use plimsoll_core::digest::{Digester, RowDigest};
use plimsoll_core::manifest::{Item, KeyedItem, read_keyed};
use plimsoll_core::row::{Fields, check_row, key_of, position_in};
use plimsoll_core::sqlstate::FOREIGN_KEY;
use plimsoll_core::store::PositionRange;
use serde_json::json;

use crate::access::Database;
use crate::acts::Act;
use crate::argument::{members, objects, required};
use crate::datum::{Caught, Ctid, IncomingRows, Row, attempt, by_index, by_place, execute};
use crate::error::{Answer, OrRaise, Problem, state};
use crate::table::{self, ManagedTable, Placeholders};
use crate::version::range_of;
use crate::{cascade, identity, kept, run, setting};

pub use conditional::{Removal, delete_expected};

use leave::Leave;

/// What a delete did.
#[derive(Default)]
struct Report {
    deleted: u64,
    held: u64,
    blocked: Vec<usize>,
}

impl Report {
    fn row(self) -> (i64, i64, JsonB) {
        (self.deleted as i64, self.held as i64, JsonB(json!(self.blocked)))
    }

    /// Records what an admin deleted without a run, of which no history tells.
    fn recorded(
        self,
        function: &'static str,
        database: &Database,
        table: &ManagedTable,
        run_id: Option<i64>,
    ) -> Answer<Self> {
        if database.admin && run_id.is_none() && self.deleted > 0 {
            Act::new(function)
                .database(database.id)
                .relation(&table.name)
                .outcome(json!({ "deleted": self.deleted }))
                .record()?;
        }
        Ok(self)
    }
}

/// A row to delete.
struct Doomed {
    ordinal: usize,
    /// Its encoded key.
    key: Vec<u8>,
    /// Its position and digest, where the caller named them.
    position: Option<i64>,
    digest: Option<RowDigest>,
}

#[pg_extern(sql = false)]
fn delete_rows(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    rows: Option<&[u8]>,
    run_id: Option<i64>,
    planned: Option<i64>,
) -> TableIterator<'static, (name!(deleted, i64), name!(held, i64), name!(blocked, JsonB))> {
    let answer = || {
        let (database, mut table, run_id) = begin(database_id, relation, run_id)?;
        let (rows, _) = read_keyed(setting::check_bytes(&database, required(rows, "rows")?, "rows")?)?;
        let planned = planned.map(|planned| planned.max(0) as u64);
        if table.schema.is_keyless() {
            let items = rows.into_iter().map(|row| row.item).collect();
            let report = copies::delete(&database, &mut table, items, planned, run_id)?;
            return report.recorded("delete_rows", &database, &table, run_id).map(Report::row);
        }
        let doomed = rows.into_iter().enumerate().map(|(ordinal, KeyedItem { item, key })| Doomed {
            ordinal,
            key,
            position: Some(item.position),
            digest: Some(item.digest),
        });
        let report = delete(&database, &mut table, doomed.collect(), planned, run_id)?;
        report.recorded("delete_rows", &database, &table, run_id).map(Report::row)
    };
    TableIterator::once(answer().or_raise())
}

#[pg_extern(sql = false)]
fn delete_rows_json(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    rows: Option<AnyElement>,
    run_id: Option<i64>,
) -> TableIterator<'static, (name!(deleted, i64), name!(held, i64), name!(blocked, JsonB))> {
    let answer = || {
        let (database, mut table, run_id) = begin(database_id, relation, run_id)?;
        let doomed = doomed_of(&database, required(rows, "rows")?, &mut table)?;
        let report = match table.schema.is_keyless() {
            true => {
                let items = copies::named(&database, &table, &doomed)?;
                copies::delete(&database, &mut table, items, None, run_id)?
            }
            false => delete(&database, &mut table, doomed, None, run_id)?,
        };
        report.recorded("delete_rows", &database, &table, run_id).map(Report::row)
    };
    TableIterator::once(answer().or_raise())
}

#[pg_extern(sql = false)]
fn delete_range(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    range: Option<pgrx::Range<i64>>,
    run_id: Option<i64>,
) -> TableIterator<'static, (name!(deleted, i64), name!(held, i64), name!(blocked, JsonB))> {
    let answer = || {
        let (database, mut table, run_id) = begin(database_id, relation, run_id)?;
        let Some(range) = range_of(&required(range, "range")?) else { return Ok(Report::default().row()) };
        let report = sweep::delete(&database, &mut table, range, run_id)?;
        report.recorded("delete_range", &database, &table, run_id).map(Report::row)
    };
    TableIterator::once(answer().or_raise())
}

#[pg_extern(sql = false)]
fn delete_all(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    run_id: Option<i64>,
) -> TableIterator<'static, (name!(deleted, i64), name!(held, i64), name!(blocked, JsonB))> {
    let answer = || {
        let (database, mut table, run_id) = begin(database_id, relation, run_id)?;
        let report = sweep::delete(&database, &mut table, PositionRange::ALL, run_id)?;
        report.recorded("delete_all", &database, &table, run_id).map(Report::row)
    };
    TableIterator::once(answer().or_raise())
}

fn begin(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    run_id: Option<i64>,
) -> Answer<(Database, ManagedTable, Option<i64>)> {
    let (database, table) = table::open(database_id, relation)?;
    let run_id = run::renew_to_write(run_id, &database, &table)?;
    Ok((database, table, run_id))
}

/// Deletes every row of the database's replica, for `forget_database`.
pub fn delete_everything(database: &Database, table: &ManagedTable) -> Answer<u64> {
    crate::datum::set_constraints_immediate();
    let placeholders = Placeholders::for_tenant(table, database)?;
    let sql = format!("DELETE FROM {} t WHERE {}", table.name, table.tenant_predicate());
    table.as_owner(|| execute(&sql, placeholders.parameters(), None, &mut |_| Ok(())))
}

/// Rows named by people: an array of objects with the key columns, and where wanted `version` (a position)
/// and `digest` (hexadecimal) under those names, unless a key column has them.
fn doomed_of(database: &Database, rows: AnyElement, table: &mut ManagedTable) -> Answer<Vec<Doomed>> {
    const HINT: &str = "Pass an array of objects: {\"key\": {...}, \"version\": n, \"digest\": \"hex\"}; the last two are optional. In a table without a key the whole row is its key.";
    let bad = |message: String| Problem::new(state::BAD_ARGUMENT, message).hint(HINT);
    let rows = objects(rows, "rows", setting::max_upload_bytes(database))
        .map_err(|problem| problem.hint_else(HINT))?;
    let mut doomed = Vec::new();
    for (ordinal, row) in rows.enumerate() {
        let row = row?;
        let member = |name: &str| row.get(name).map(|value| value.get()).filter(|value| *value != "null");
        let key = row.get("key").and_then(|key| members(key));
        let key = key.ok_or_else(|| bad(format!("row {ordinal} has no object \"key\"")))?;
        let key = crate::upload::encode_key(ordinal, &key, table)?;
        let position = member("version").map(|version| {
            let version = version.parse::<i64>();
            version.map_err(|_| bad(format!("row {ordinal}: version is no whole number")))
        });
        let digest = member("digest").map(|digest| {
            let digest = serde_json::from_str::<String>(digest).ok().and_then(|digest| unhex(&digest));
            let wrong = || bad(format!("row {ordinal}: digest is not 64 hexadecimal digits"));
            digest.map(RowDigest).ok_or_else(wrong)
        });
        doomed.push(Doomed { ordinal, key, position: position.transpose()?, digest: digest.transpose()? });
    }
    Ok(doomed)
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let text = text.strip_prefix("\\x").unwrap_or(text);
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Deletes the rows that are there as named. `planned`: rows still to be deleted in this run.
fn delete(
    database: &Database,
    table: &mut ManagedTable,
    doomed: Vec<Doomed>,
    planned: Option<u64>,
    run_id: Option<i64>,
) -> Answer<Report> {
    let mut report = Report::default();
    if doomed.is_empty() {
        return Ok(report);
    }
    crate::datum::set_constraints_immediate();
    for row in &doomed {
        check_row(&row.key)?;
    }
    let owner = table.owner;
    let there = identity::as_owner(owner, || lock_as_named(database, table, &doomed))?;
    let doomed: Vec<Doomed> = doomed.into_iter().filter(|row| there.contains_key(&row.ordinal)).collect();
    let rows = doomed.len() as u64;
    let taken = {
        let incoming = key_rows(table, &doomed, &there)?;
        cascade::taken(database, table, &incoming)?
    };
    let Some(leave) = Leave::ask(database, table, rows, planned.unwrap_or(0), taken)? else {
        report.held = rows;
        return Ok(report);
    };
    remove(database, table, doomed, &there, &mut report)?;
    leave.count(database, table, report.deleted)?;
    finish(database, table, run_id, &report)?;
    Ok(report)
}

/// What is left to do once rows are gone.
fn finish(database: &Database, table: &mut ManagedTable, run_id: Option<i64>, report: &Report) -> Answer<()> {
    kept::fold_if_due(database, table, kept::Due::WhenMany)?;
    match run_id {
        Some(run_id) => run::add_counts(run_id, 0, 0, report.deleted, 0),
        None => Ok(()),
    }
}

/// Locks the rows with these keys and answers the places of those that are as named.
fn lock_as_named(
    database: &Database,
    table: &mut ManagedTable,
    doomed: &[Doomed],
) -> Answer<HashMap<usize, Ctid>> {
    let placeholders = Placeholders::for_tenant(table, database)?;
    let incoming = key_rows(table, doomed, &HashMap::new())?;
    let sql = format!(
        "SELECT i.\"plimsoll ordinal\", t.\"plimsoll ctid\", {} FROM {}",
        table.column_list("t."),
        table.incoming_with_stored(
            &format!("t.ctid AS \"plimsoll ctid\", {}", table.column_list("t.")),
            "FOR UPDATE"
        )
    );
    let places: HashMap<usize, &Doomed> = doomed.iter().map(|row| (row.ordinal, row)).collect();
    let mut digester = Digester::new(database.fingerprint_key.clone());
    let (index, numbers) = (table.key_index(), table.numbers());
    let (schema, codecs) = (&table.schema, &mut table.codecs);
    let (mut there, mut encoded) = (HashMap::new(), Vec::new());
    let mut take = |row: &Row<'_>| {
        encoded.clear();
        row.encode(2, &numbers, codecs, &mut encoded)?;
        let item = Item { position: position_in(&encoded, schema)?, digest: digester.digest(&encoded)? };
        let ordinal = row.int8(0).unwrap_or(-1) as usize;
        if let Some(named) = places.get(&ordinal) {
            let as_named = named.position.is_none_or(|position| position == item.position)
                && named.digest.is_none_or(|digest| digest == item.digest)
                && named.key == key_of(&encoded, schema)?;
            if let Some(ctid) = row.ctid(1).filter(|_| as_named) {
                there.insert(ordinal, ctid);
            }
        }
        Ok(())
    };
    by_index(index, || execute(&sql, placeholders.parameters(), Some(&incoming), &mut take))?;
    Ok(there)
}

/// Rows of which only the key columns are filled, with their places.
///
/// # Errors
/// `MALFORMED` where a key is none of the table's.
pub fn keys(table: &mut ManagedTable, keys: &[(usize, &[u8])]) -> Answer<IncomingRows> {
    let doomed = |(ordinal, key): &(usize, &[u8])| Doomed {
        ordinal: *ordinal,
        key: key.to_vec(),
        position: None,
        digest: None,
    };
    key_rows(table, &keys.iter().map(doomed).collect::<Vec<_>>(), &HashMap::new())
}

/// Rows of which only the key columns are filled, and the ctids of those that are locked.
fn key_rows(
    table: &mut ManagedTable,
    doomed: &[Doomed],
    places: &HashMap<usize, Ctid>,
) -> Answer<IncomingRows> {
    let mut incoming = IncomingRows::new(&table.incoming_columns())?;
    for row in doomed {
        let mut values = vec![None; table.physical.len()];
        let mut given = 0;
        for field in Fields::new(&row.key) {
            let field = field?;
            let place = table.schema.columns().iter().position(|column| column.number == field.number);
            let place =
                place.filter(|place| table.schema.key_indexes().contains(place)).ok_or_else(|| {
                    Problem::new(
                        state::MALFORMED,
                        format!("row {}: column {} is no key column", row.ordinal, field.number),
                    )
                })?;
            let column = &table.schema.columns()[place];
            column.column_type.check(&field.value).map_err(|error| {
                Problem::new(state::MALFORMED, format!("row {}: {error}", row.ordinal))
                    .in_column(&column.name, &table.name)
            })?;
            values[place] = Some(incoming.within(|| table.codecs[place].make_datum(&field.value))?);
            given += 1;
        }
        if given != table.schema.key_indexes().len() {
            return Err(Problem::new(
                state::MALFORMED,
                format!("row {}: its key is not complete", row.ordinal),
            ));
        }
        incoming.push_row(row.ordinal, places.get(&row.ordinal).copied(), &values)?;
    }
    Ok(incoming)
}

/// Deletes rows, halving where others still refer to some of them.
fn remove(
    database: &Database,
    table: &mut ManagedTable,
    mut rows: Vec<Doomed>,
    places: &HashMap<usize, Ctid>,
    report: &mut Report,
) -> Answer<()> {
    if rows.is_empty() {
        return Ok(());
    }
    pgrx::check_for_interrupts!();
    let owner = table.owner;
    match attempt(|| identity::as_owner(owner, || remove_all(database, table, &rows, places))) {
        Ok(removed) => {
            report.deleted += removed?;
            Ok(())
        }
        Err(caught) if !is_referred_to(&caught) => caught.raise(),
        Err(_) if rows.len() == 1 => {
            report.blocked.extend(rows.iter().map(|row| row.ordinal));
            Ok(())
        }
        Err(_) => {
            let rest = rows.split_off(rows.len() / 2);
            remove(database, table, rows, places, report)?;
            remove(database, table, rest, places, report)
        }
    }
}

fn is_referred_to(caught: &Caught) -> bool {
    matches!(caught.sqlstate().as_str(), FOREIGN_KEY | "23001")
}

fn remove_all(
    database: &Database,
    table: &mut ManagedTable,
    rows: &[Doomed],
    places: &HashMap<usize, Ctid>,
) -> Answer<u64> {
    let placeholders = Placeholders::for_tenant(table, database)?;
    let incoming = key_rows(table, rows, places)?;
    let sql = format!("DELETE FROM {} t USING incoming i WHERE {}", table.name, table.locked_predicate());
    by_place(|| execute(&sql, placeholders.parameters(), Some(&incoming), &mut |_| Ok(())))
}
