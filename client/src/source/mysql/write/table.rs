//! What writing a table needs to know of it.

use plimsoll_core::store::Outcome;

use super::super::catalogue::{Index, read_table};
use super::super::dialect::local_type;
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
    /// Whether a row can be taken out and put in again without any other row noticing.
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
        let refers = "SELECT 1 FROM information_schema.referential_constraints
             WHERE unique_constraint_schema = DATABASE() AND referenced_table_name = ?
                 AND delete_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT') LIMIT 1";
        let triggers = "SELECT 1 FROM information_schema.triggers
             WHERE event_object_schema = DATABASE() AND event_object_table = ? LIMIT 1";
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
        let updates_together = is_primary
            && sees_triggers(session, database)?
            && !has(session, triggers)?
            && !has(session, &needed)?;
        let is_exchangeable = !has(session, refers)?;
        let packet = session.rows("SELECT @@max_allowed_packet", &[])?;
        let packet = packet.first().and_then(|row| row.get_opt::<u64, _>(0)).and_then(Result::ok);
        let most_bytes = usize::try_from(packet.unwrap_or(1 << 20)).unwrap_or(1 << 20);
        let most_bytes = most_bytes.saturating_sub(64 << 10).clamp(1 << 10, 64 << 20);
        Ok(WriteTable { types, others, is_exchangeable, updates_together, most_bytes })
    }
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
