//! Deletes of a two-way batch: each done only where the replica has what it was decided upon, and alone. What a foreign key
//! would delete or change with it may have changed on either side since: it is decided upon first.

use std::collections::{HashMap, HashSet};

use plimsoll_core::digest::Digester;
use plimsoll_core::row::{check_row, key_of};
use plimsoll_core::sqlstate::FOREIGN_KEY;
use plimsoll_core::store::{Applied, Reason, ShortDigest};

use super::{Doomed, Leave, key_rows};
use crate::access::Database;
use crate::datum::{Caught, Ctid, Row, attempt, by_index, by_place, execute};
use crate::error::Answer;
use crate::manifest::shown_key;
use crate::run::shortened;
use crate::table::{ManagedTable, Placeholders};
use crate::upload::{fault_of_row, short};
use crate::{cascade, identity};

/// A row to delete, and what the replica must have under its key for that.
#[derive(Clone, Copy)]
pub struct Removal<'u> {
    /// The encoded key.
    pub key: &'u [u8],
    /// The beginning of the digest of what is there.
    pub expected: ShortDigest,
}

/// Deletes the rows whose condition holds; `planned`: about how many more this run deletes, these among them. Answers what
/// became of each, and how many were deleted.
///
/// # Errors
/// `MALFORMED` where a key is none of the table's: nothing is deleted then. Errors of the server that no row is to blame
/// for are raised.
pub fn delete_expected(
    database: &Database,
    table: &mut ManagedTable,
    removals: &[Removal<'_>],
    planned: u64,
) -> Answer<(Vec<Applied>, u64)> {
    let mut applied = vec![Applied::Done; removals.len()];
    if removals.is_empty() {
        return Ok((applied, 0));
    }
    crate::datum::set_constraints_immediate();
    let mut doomed = Vec::with_capacity(removals.len());
    for (ordinal, removal) in removals.iter().enumerate() {
        check_row(removal.key)?;
        doomed.push(Doomed { ordinal, key: removal.key.to_vec(), position: None, digest: None });
    }
    let owner = table.owner;
    let there = identity::as_owner(owner, || lock(database, table, &doomed))?;
    let mut places = HashMap::new();
    for (ordinal, (ctid, digest)) in there {
        if digest == removals[ordinal].expected {
            places.insert(ordinal, ctid);
        } else {
            applied[ordinal] = Applied::Changed;
        }
    }
    doomed.retain(|row| places.contains_key(&row.ordinal));
    let mut work = Work { database, table, places: &places, applied: &mut applied, deleted: 0 };
    let alone = work.alone(doomed)?;
    let rows = alone.len() as u64;
    let Some(leave) = Leave::ask(database, work.table, rows, planned, Vec::new())? else {
        alone.iter().for_each(|row| applied[row.ordinal] = Applied::Held);
        return Ok((applied, 0));
    };
    work.remove(alone)?;
    let deleted = work.deleted;
    leave.count(database, table, deleted)?;
    Ok((applied, deleted))
}

/// Locks the rows with these keys; where they are, and the beginnings of their digests.
fn lock(
    database: &Database,
    table: &mut ManagedTable,
    doomed: &[Doomed],
) -> Answer<HashMap<usize, (Ctid, ShortDigest)>> {
    let placeholders = Placeholders::for_tenant(table, database)?;
    let incoming = key_rows(table, doomed, &HashMap::new())?;
    let (index, columns) = (table.key_index(), table.column_list("t."));
    let stored = table.incoming_with_stored(&format!("t.ctid AS \"plimsoll ctid\", {columns}"), "FOR UPDATE");
    let sql = format!("SELECT i.\"plimsoll ordinal\", t.\"plimsoll ctid\", {columns} FROM {stored}");
    let mut digester = Digester::new(database.fingerprint_key.clone());
    let numbers = table.numbers();
    let (schema, codecs) = (&table.schema, &mut table.codecs);
    let (mut there, mut encoded) = (HashMap::with_capacity(doomed.len()), Vec::new());
    let mut take = |row: &Row<'_>| {
        encoded.clear();
        row.encode(2, &numbers, codecs, &mut encoded)?;
        let ordinal = row.int8(0).unwrap_or(-1) as usize;
        // A row whose key the index takes for this one is another.
        let named = doomed.get(ordinal).filter(|named| named.ordinal == ordinal);
        let is_named =
            named.map(|named| Ok::<_, plimsoll_core::Error>(named.key == key_of(&encoded, schema)?));
        if let (Some(true), Some(ctid)) = (is_named.transpose()?, row.ctid(1)) {
            there.insert(ordinal, (ctid, short(&digester.digest(&encoded)?)));
        }
        Ok(())
    };
    by_index(index, || execute(&sql, placeholders.parameters(), Some(&incoming), &mut take))?;
    Ok(there)
}

struct Work<'a> {
    database: &'a Database,
    table: &'a mut ManagedTable,
    places: &'a HashMap<usize, Ctid>,
    applied: &'a mut [Applied],
    deleted: u64,
}

impl Work<'_> {
    /// The rows that take no others along. The others wait: what they would take is decided upon by itself.
    fn alone(&mut self, rows: Vec<Doomed>) -> Answer<Vec<Doomed>> {
        if rows.is_empty() {
            return Ok(rows);
        }
        let extended = {
            let incoming = key_rows(self.table, &rows, self.places)?;
            cascade::extended(self.database, self.table, &incoming)?
        };
        let (extended_rows, alone): (Vec<Doomed>, Vec<Doomed>) =
            rows.into_iter().partition(|row| extended.contains_key(&row.ordinal));
        for row in extended_rows {
            let children = extended.get(&row.ordinal).into_iter().flatten();
            let children = children.map(String::as_str).collect::<Vec<_>>().join(", ");
            let message = format!(
                "rows of {children} refer to it, and the foreign key would delete or change them with it: they go first"
            );
            self.refuse(row.ordinal, &row.key, true, FOREIGN_KEY.to_owned(), &message)?;
        }
        Ok(alone)
    }

    /// Deletes rows, halving where some of them are at fault.
    fn remove(&mut self, mut rows: Vec<Doomed>) -> Answer<()> {
        pgrx::check_for_interrupts!();
        let Some(first) = rows.first() else { return Ok(()) };
        let owner = self.table.owner;
        let caught = match attempt(|| identity::as_owner(owner, || self.remove_all(&rows))) {
            Ok(removed) => {
                let removed = removed?;
                self.deleted += removed.len() as u64;
                for row in rows.iter().filter(|row| !removed.contains(&row.ordinal)) {
                    let message = "the server did not delete the row: a trigger skipped it".to_owned();
                    self.refuse(row.ordinal, &row.key, false, "22000".to_owned(), &message)?;
                }
                return Ok(());
            }
            Err(caught) => caught,
        };
        let Some(waits) = fault_of_row(&caught) else { caught.raise() };
        if rows.len() == 1 {
            let Caught { message, detail, .. } = &caught;
            let message = match detail {
                Some(detail) => format!("{message}: {detail}"),
                None => message.clone(),
            };
            return self.refuse(first.ordinal, &first.key, waits, caught.sqlstate(), &message);
        }
        let rest = rows.split_off(rows.len() / 2);
        for half in [rows, rest] {
            // What the other half has may refer to it.
            let half = self.alone(half)?;
            self.remove(half)?;
        }
        Ok(())
    }

    fn refuse(
        &mut self,
        ordinal: usize,
        key: &[u8],
        waits: bool,
        sqlstate: String,
        message: &str,
    ) -> Answer<()> {
        let key_text = shown_key(key, &self.table.schema)?;
        let reason = Reason { key_text, sqlstate, column: None, message: shortened(message) };
        self.applied[ordinal] = Applied::Refused { waits, reason: Box::new(reason) };
        Ok(())
    }

    /// Deletes rows that are locked, all of them or none; which are gone.
    fn remove_all(&mut self, rows: &[Doomed]) -> Answer<HashSet<usize>> {
        let placeholders = Placeholders::for_tenant(self.table, self.database)?;
        let incoming = key_rows(self.table, rows, self.places)?;
        let sql = format!(
            "DELETE FROM {} t USING incoming i WHERE {} RETURNING i.\"plimsoll ordinal\"",
            self.table.name,
            self.table.locked_predicate()
        );
        let mut gone = HashSet::with_capacity(rows.len());
        let mut take = |row: &Row<'_>| {
            gone.extend(row.int8(0).map(|ordinal| ordinal as usize));
            Ok(())
        };
        by_place(|| execute(&sql, placeholders.parameters(), Some(&incoming), &mut take))?;
        Ok(gone)
    }
}
