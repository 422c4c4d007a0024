//! What writing a table needs to know of it.

use std::sync::Arc;

use mysql_async::Row;
use plimsoll_core::store::Outcome;

use super::super::catalogue::{Index, read_table};
use super::super::dialect::{local_type, quoted};
use super::super::session::Session;
use super::super::types::LocalType;
use crate::failure::{Advise, table as refused};
use crate::source::write::WritePlan;

/// A table that is written to.
#[derive(Debug)]
pub struct WriteTable {
    /// The local types of the plan's columns.
    pub types: Vec<LocalType>,
    /// The columns that are neither written nor computed.
    pub others: Vec<(String, LocalType)>,
    /// The foreign keys that act on other rows when rows are deleted, as far as who asks may see the tables that have them.
    pub acting: Arc<[ActingKey]>,
    /// Whether a row can be taken out and put in again without anything noticing: no other row, and no trigger, which is known
    /// only to those who may see triggers.
    pub is_exchangeable: bool,
    /// Whether INSERT .. ON DUPLICATE KEY UPDATE does to rows that are there what UPDATE does: they are known by the primary
    /// key, all other columns have a default, and there is no trigger, which is known only to those who may see triggers.
    pub updates_together: bool,
    /// Bytes of one statement at most.
    pub most_bytes: usize,
}

impl WriteTable {
    /// Reads it from the catalogue.
    ///
    /// # Errors
    /// As the server says.
    pub fn read(
        session: &mut Session,
        database: &str,
        write: &WritePlan,
        indexes: &[Index],
    ) -> Outcome<Self> {
        let plan = &write.plan;
        let (local, engine) = read_table(session, &plan.table)?;
        if let Some(engine) = engine {
            let told = format!(
                "\"{}\" is a table of {engine}, which has no transactions: it is not written to",
                plan.table
            );
            return Err(refused(told).advise(format!("ALTER TABLE {} ENGINE = InnoDB", plan.relation)));
        }
        let is_written = |name: &str| write.places.iter().any(|place| plan.columns[*place].name == name);
        let others: Vec<(String, LocalType)> = local
            .columns
            .iter()
            .filter(|column| !column.generated && !is_written(&column.name))
            .map(|column| (column.name.clone(), LocalType::parse(&column.declared)))
            .collect();
        let types = (0..plan.columns.len()).map(|place| local_type(plan, place)).collect();
        let has = |session: &mut Session, sql: &str| -> Outcome<bool> {
            Ok(!session.rows(sql, &[&plan.table])?.is_empty())
        };
        let triggers = "SELECT 1 FROM information_schema.triggers
             WHERE event_object_schema = DATABASE() AND event_object_table = ? LIMIT 1";
        let on_delete = "SELECT 1 FROM information_schema.triggers
             WHERE event_object_schema = DATABASE() AND event_object_table = ? AND event_manipulation = 'DELETE' LIMIT 1";
        let needed = "SELECT 1 FROM information_schema.columns
             WHERE table_schema = DATABASE() AND table_name = ? AND is_nullable = 'NO' AND column_default IS NULL
                 AND extra NOT LIKE '%GENERATED%' AND column_name NOT IN (";
        let written: Vec<String> = write
            .places
            .iter()
            .map(|place| format!("'{}'", plan.columns[*place].name.replace('\\', "\\\\").replace('\'', "''")))
            .collect();
        let needed = format!("{needed}{}) LIMIT 1", written.join(", "));
        let primary = indexes.iter().find(|index| index.name == "PRIMARY" && index.is_unique);
        let is_primary = primary.is_some_and(|primary| {
            let key: Vec<&str> = plan.key_columns().collect();
            key.len() == primary.columns.len()
                && primary.columns.iter().all(|name| key.contains(&name.as_str()))
        });
        let acting = acting(session, &plan.table)?;
        let sees_triggers = sees_triggers(session, database)?;
        let updates_together =
            is_primary && sees_triggers && !has(session, triggers)? && !has(session, &needed)?;
        let is_exchangeable = acting.is_empty() && sees_triggers && !has(session, on_delete)?;
        let packet = session.rows("SELECT @@max_allowed_packet", &[])?;
        let packet = packet.first().and_then(|row| row.get_opt::<u64, _>(0)).and_then(Result::ok);
        let most_bytes = usize::try_from(packet.unwrap_or(1 << 20)).unwrap_or(1 << 20);
        let most_bytes = most_bytes.saturating_sub(64 << 10).clamp(1 << 10, 64 << 20);
        Ok(WriteTable { types, others, acting, is_exchangeable, updates_together, most_bytes })
    }
}

/// A foreign key that acts on other rows when rows are deleted.
#[derive(Debug)]
pub struct ActingKey {
    /// The table that refers, as a configuration names it.
    pub name: String,
    /// The same as it stands in a statement.
    pub relation: String,
    /// Whether it is the table itself.
    pub is_own: bool,
    /// The columns that refer, each with the one that it refers to.
    pub columns: Vec<(String, String)>,
}

/// The foreign keys that act on other rows when rows of a table are deleted.
fn acting(session: &mut Session, table: &str) -> Outcome<Arc<[ActingKey]>> {
    let keys = "SELECT constraint_schema, table_name, constraint_name, constraint_schema = DATABASE()
         FROM information_schema.referential_constraints
         WHERE unique_constraint_schema = DATABASE() AND referenced_table_name = ?
             AND delete_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT')
         ORDER BY constraint_schema, table_name, constraint_name";
    let columns = "SELECT column_name, referenced_column_name FROM information_schema.key_column_usage
         WHERE table_schema = ? AND table_name = ? AND constraint_name = ? ORDER BY ordinal_position";
    let text = |row: &Row, place| row.get_opt::<String, _>(place).and_then(Result::ok).unwrap_or_default();
    let mut acting = Vec::new();
    for row in session.rows(keys, &[table])? {
        let (schema, child, name) = (text(&row, 0), text(&row, 1), text(&row, 2));
        let is_here = row.get_opt::<i64, _>(3).and_then(Result::ok) == Some(1);
        let columns = session.rows(columns, &[&schema, &child, &name])?;
        acting.push(ActingKey {
            relation: format!("{}.{}", quoted(&schema), quoted(&child)),
            is_own: is_here && child == table,
            columns: columns.iter().map(|row| (text(row, 0), text(row, 1))).collect(),
            name: if is_here { child } else { format!("{schema}.{child}") },
        });
    }
    Ok(acting.into())
}

/// Whether the user's rights say that all triggers of the database are seen.
fn sees_triggers(session: &mut Session, database: &str) -> Outcome<bool> {
    let places = ["ON *.* ".to_owned(), format!("ON `{}`.* ", database.replace('`', "``"))];
    let rows = session.rows("SHOW GRANTS", &[])?;
    let mut grants = rows.iter().filter_map(|row| row.get_opt::<String, _>(0).and_then(Result::ok));
    Ok(grants.any(|grant| {
        let rights =
            places.iter().find_map(|place| grant.split_once(place.as_str())).map(|(rights, _)| rights);
        rights.is_some_and(|rights| rights.contains("ALL PRIVILEGES") || rights.contains("TRIGGER"))
    }))
}
