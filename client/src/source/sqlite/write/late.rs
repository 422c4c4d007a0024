//! Foreign keys that SQLite looks at when the transaction is committed (DEFERRABLE INITIALLY DEFERRED): looked at before, so
//! that a row waits alone. Row by row where rows have a key; which of the keys are deferred SQLite does not tell: where the
//! word stands in one of the tables' definitions, all are looked at. Whether any does not hold is what SQLite itself counts.

use std::os::raw::c_int;

use plimsoll_core::sqlstate::FOREIGN_KEY;
use plimsoll_core::store::Outcome;
use rusqlite::{Connection, OptionalExtension, ffi, params_from_iter};

use super::super::error::failure;
use super::super::schema::quoted;
use super::Own;
use crate::source::query::RawValue;
use crate::source::write::{RowError, WritePlan};

/// Why a row does not stay as it is.
pub fn broken_key() -> RowError {
    let message = "FOREIGN KEY constraint failed (deferred)".to_owned();
    RowError { sqlstate: FOREIGN_KEY.to_owned(), column: None, message }
}

/// Whether the transaction that is open could not be committed as it is now, because a deferred foreign key does not hold.
pub fn is_broken(connection: &Connection) -> bool {
    let (mut count, mut highest): (c_int, c_int) = (0, 0);
    // SAFETY: the handle is that of a connection that lives for as long as it is borrowed here, and that no other thread
    // uses meanwhile, because `Connection` is not `Sync`; both numbers are of the type that is written, and outlive the call.
    // The call changes nothing: it is not told to reset what it reads.
    let answer = unsafe {
        let handle = connection.handle();
        ffi::sqlite3_db_status(handle, ffi::SQLITE_DBSTATUS_DEFERRED_FKS, &raw mut count, &raw mut highest, 0)
    };
    answer == ffi::SQLITE_OK && count != 0
}

/// The questions about a table's rows.
#[derive(Debug, Default)]
pub struct LateKeys {
    /// Of a row that is there: whether what it refers to is not. Run with the row's values of the plan's order.
    parents: Vec<String>,
    /// Of a row that is gone: whether another one refers to it. With which of those values it is run.
    children: Vec<(String, Vec<usize>)>,
}

/// A foreign key, column by column.
#[derive(Debug)]
pub struct ForeignKey {
    /// The table that has it.
    pub child: String,
    /// The table it refers to.
    pub parent: String,
    /// The columns of both.
    pub columns: Vec<(String, String)>,
    /// What becomes of rows that refer to one that is deleted.
    on_delete: String,
}

impl ForeignKey {
    /// Whether it deletes or changes rows that refer to one that is deleted.
    pub fn acts(&self) -> bool {
        matches!(self.on_delete.as_str(), "CASCADE" | "SET NULL" | "SET DEFAULT")
    }
}

impl LateKeys {
    /// Those of a table; `named` finds one of its rows by the values of the plan's order.
    pub fn read(connection: &Connection, write: &WritePlan, named: &str) -> Outcome<Self> {
        let read = || -> rusqlite::Result<LateKeys> {
            let plan = &write.plan;
            let deferred = "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema t WHERE t.type = 'table'
                 AND t.sql LIKE '%DEFERRED%' AND (t.name = ?1 COLLATE NOCASE OR EXISTS (
                     SELECT 1 FROM pragma_foreign_key_list(t.name, 'main') k WHERE k.\"table\" = ?1 COLLATE NOCASE)))";
            if !connection.query_row(deferred, [&plan.table], |row| row.get::<_, bool>(0))? {
                return Ok(LateKeys::default());
            }
            let mut keys = LateKeys::default();
            for key in foreign_keys(connection, &plan.table)? {
                if key.child.eq_ignore_ascii_case(&plan.table) {
                    keys.parents.push(missing_parent(&key, named));
                }
                let place = |column: &String| {
                    let is_it = |place: &usize| plan.columns[*place].name.eq_ignore_ascii_case(column);
                    plan.order.iter().position(is_it)
                };
                let places: Option<Vec<usize>> = key.columns.iter().map(|(_, to)| place(to)).collect();
                if let Some(places) =
                    places.filter(|_| !key.acts() && key.parent.eq_ignore_ascii_case(&plan.table))
                {
                    keys.children.push((referring(&key), places));
                }
            }
            Ok(keys)
        };
        read().map_err(|error| failure(&error))
    }

    /// Why a row cannot stay as it is, or be gone; `None` where it can.
    pub fn broken(
        &self,
        connection: &Connection,
        order: &[RawValue],
        is_gone: bool,
    ) -> Outcome<Option<RowError>> {
        let found = |sql: &str, values: &mut dyn Iterator<Item = &RawValue>| -> Outcome<bool> {
            let mut look = || {
                let mut statement = connection.prepare_cached(sql)?;
                statement.query_row(params_from_iter((&mut *values).map(Own)), |_| Ok(())).optional()
            };
            look().map(|found| found.is_some()).map_err(|error| failure(&error))
        };
        let mut is_broken = false;
        if is_gone {
            for (sql, places) in &self.children {
                is_broken |= found(sql, &mut places.iter().filter_map(|place| order.get(*place)))?;
            }
        } else {
            for sql in &self.parents {
                is_broken |= found(sql, &mut order.iter())?;
            }
        }
        Ok(is_broken.then(broken_key))
    }
}

/// The foreign keys that a table has, and those that refer to it.
pub fn foreign_keys(connection: &Connection, table: &str) -> rusqlite::Result<Vec<ForeignKey>> {
    let sql = "SELECT t.name, k.id, k.\"table\", k.\"from\", coalesce(k.\"to\", (SELECT p.name
             FROM pragma_table_info(k.\"table\", 'main') p WHERE p.pk = k.seq + 1)), k.on_delete
         FROM main.sqlite_schema t, pragma_foreign_key_list(t.name, 'main') k
         WHERE t.type = 'table' AND (t.name = ?1 COLLATE NOCASE OR k.\"table\" = ?1 COLLATE NOCASE)
         ORDER BY t.name, k.id, k.seq";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([table])?;
    let (mut keys, mut last): (Vec<ForeignKey>, Option<(String, i64)>) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        let this: (String, i64) = (row.get(0)?, row.get(1)?);
        if last.as_ref() != Some(&this) {
            let (child, parent, on_delete) = (this.0.clone(), row.get(2)?, row.get(5)?);
            keys.push(ForeignKey { child, parent, columns: Vec::new(), on_delete });
            last = Some(this);
        }
        // Without a column there the key refers to nothing: SQLite says so itself.
        if let (Some(key), Some(to)) = (keys.last_mut(), row.get::<_, Option<String>>(4)?) {
            key.columns.push((row.get(3)?, to));
        }
    }
    Ok(keys)
}

/// Finds the row where it refers to one that is not there. The parent's column stands first: it is compared by its rules.
fn missing_parent(key: &ForeignKey, named: &str) -> String {
    let child = quoted(&key.child);
    let filled: Vec<String> =
        key.columns.iter().map(|(from, _)| format!("{child}.{} IS NOT NULL", quoted(from))).collect();
    let equal: Vec<String> =
        key.columns.iter().map(|(from, to)| format!("p.{} = {child}.{}", quoted(to), quoted(from))).collect();
    format!(
        "SELECT 1 FROM main.{child} WHERE {named} AND {} AND NOT EXISTS (SELECT 1 FROM main.{} AS p WHERE {})",
        filled.join(" AND "),
        quoted(&key.parent),
        equal.join(" AND ")
    )
}

/// Finds a row that refers to the one with these values, in the order of the key's columns.
fn referring(key: &ForeignKey) -> String {
    let equal: Vec<String> = (1..)
        .zip(&key.columns)
        .map(|(number, (from, _)): (usize, _)| format!("{} = ?{number}", quoted(from)))
        .collect();
    format!("SELECT 1 FROM main.{} WHERE {} LIMIT 1", quoted(&key.child), equal.join(" AND "))
}
