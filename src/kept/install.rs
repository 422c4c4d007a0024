//! Triggers made and dropped, and what is kept thrown away.

use pgrx::Uuid;
use pgrx::pg_sys::Oid;
use pgrx::spi::Spi;
use plimsoll_core::sqlstate::passes;

use super::mapping::{tell_databases_changed, tell_registrations_changed};
use crate::datum::attempt;
use crate::error::{Answer, Problem, state};
use crate::identity;
use crate::table::{qualified, quoted, registrations};

/// The triggers by event, and the rows that each is told of. One for several events could not have them.
const TRIGGERS: [(&str, &str, &str); 4] = [
    ("plimsoll_kept_insert", "INSERT", "REFERENCING NEW TABLE AS plimsoll_after"),
    (
        "plimsoll_kept_update",
        "UPDATE",
        "REFERENCING OLD TABLE AS plimsoll_before NEW TABLE AS plimsoll_after",
    ),
    ("plimsoll_kept_delete", "DELETE", "REFERENCING OLD TABLE AS plimsoll_before"),
    ("plimsoll_kept_truncate", "TRUNCATE", ""),
];

/// A table or partition, and the triggers on it that call our function.
struct Member {
    name: String,
    triggers: Vec<String>,
    /// They are as they are made here.
    fit: bool,
}

/// The table and its partitions.
fn members(relation: Oid) -> Answer<Vec<Member>> {
    identity::as_extension(|| {
        Spi::connect(|client| {
            let rows = client.select(
                "WITH RECURSIVE tree (oid) AS (
                     SELECT $1 UNION
                     SELECT i.inhrelid FROM tree t
                     JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid)
                 SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text,
                        pg_catalog.array_agg(g.tgname::pg_catalog.text) FILTER (WHERE g.tgname IS NOT NULL),
                        pg_catalog.count(g.oid) OPERATOR(pg_catalog.=) 4
                            AND pg_catalog.bool_and(g.tgenabled OPERATOR(pg_catalog.=) 'A' AND g.tgqual IS NULL
                                AND g.tgname OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.name[]))
                 FROM tree t
                 JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid
                 JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
                 LEFT JOIN pg_catalog.pg_trigger g ON g.tgrelid OPERATOR(pg_catalog.=) t.oid
                      AND g.tgfoid OPERATOR(pg_catalog.=) 'plimsoll.kept_trigger()'::pg_catalog.regprocedure
                 GROUP BY n.nspname, c.relname, c.oid ORDER BY c.oid",
                None,
                &[relation.into(), TRIGGERS.map(|(name, ..)| name.to_owned()).to_vec().into()],
            )?;
            rows.map(|row| {
                let schema: String = row.get(1)?.unwrap_or_default();
                let name: String = row.get(2)?.unwrap_or_default();
                Ok::<_, Problem>(Member {
                    name: qualified(&schema, &name),
                    triggers: row.get(3)?.unwrap_or_default(),
                    fit: row.get(4)?.unwrap_or(false),
                })
            })
            .collect::<Answer<_>>()
        })
    })
}

/// Makes the triggers on the table and each partition where they are not as they must be. Waits for writers
/// there, as making any trigger does.
fn make_triggers(relation: Oid) -> Answer<()> {
    for Member { name, triggers, fit } in members(relation)? {
        if fit {
            continue;
        }
        identity::as_extension(|| {
            drop_from(&name, &triggers)?;
            for (trigger, event, rows) in TRIGGERS {
                Spi::run(&format!(
                    "CREATE TRIGGER {trigger} AFTER {event} ON {name} {rows}
                     FOR EACH STATEMENT EXECUTE FUNCTION plimsoll.kept_trigger()"
                ))?;
                Spi::run(&format!("ALTER TABLE ONLY {name} ENABLE ALWAYS TRIGGER {trigger}"))?;
                Spi::run(&format!("ALTER TRIGGER {trigger} ON {name} DEPENDS ON EXTENSION plimsoll"))?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn drop_from(name: &str, triggers: &[String]) -> Answer<()> {
    for trigger in triggers {
        Spi::run(&format!("DROP TRIGGER {} ON {name}", quoted(trigger)))?;
    }
    Ok(())
}

/// Drops the triggers of a table and its partitions.
pub fn drop_triggers(relation: Oid) -> Answer<()> {
    for Member { name, triggers, .. } in members(relation)? {
        identity::as_extension(|| drop_from(&name, &triggers))?;
    }
    Ok(())
}

/// Throws away what is kept of all replicas of a table.
pub fn drop_data(table_id: i32) -> Answer<()> {
    identity::as_extension(|| {
        for table in ["kept_delta", "kept_block", "kept_head"] {
            Spi::run_with_args(
                &format!("DELETE FROM plimsoll.{table} k WHERE k.table_id OPERATOR(pg_catalog.=) $1"),
                &[table_id.into()],
            )?;
        }
        Ok(())
    })
}

/// Throws away what is kept of all replicas of a database that is forgotten.
pub fn forget(database_id: Uuid) -> Answer<()> {
    identity::as_extension(|| {
        for table in ["kept_delta", "kept_block", "kept_head"] {
            Spi::run_with_args(
                &format!("DELETE FROM plimsoll.{table} k WHERE k.database_id OPERATOR(pg_catalog.=) $1"),
                &[database_id.into()],
            )?;
        }
        Ok(())
    })?;
    tell_databases_changed()
}

/// Waits until every transaction that wrote to a table with a kept manifest has ended, and lets none begin until
/// this one has.
pub fn wait_for_writers() -> Answer<()> {
    identity::as_extension(|| {
        for registration in registrations()?.iter().filter(|registration| registration.keep_manifest) {
            Spi::run(&format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", registration.name()))?;
        }
        Ok(())
    })
}

/// Switches the kept manifest of a table on or off; on: repairs its triggers. Answers whether it is on: where
/// triggers are refused (foreign partitions, distributed tables) it stays off, with a warning, and everything is
/// answered by scans.
pub fn set_kept(relation: Oid, table_id: i32, shown: &str, keep: bool) -> Answer<bool> {
    let mut kept = keep;
    if keep {
        match attempt(|| make_triggers(relation)) {
            Ok(made) => made?,
            // That says nothing of triggers here.
            Err(caught) if passes(&caught.sqlstate()) => caught.raise(),
            Err(caught) => {
                pgrx::warning!(
                    "{shown}: no manifest is kept, because triggers are refused: {}",
                    caught.message
                );
                kept = false;
            }
        }
    }
    if !kept {
        drop_triggers(relation)?;
        drop_data(table_id)?;
    }
    let changed = identity::as_extension(|| {
        Ok(Spi::get_one_with_args::<i64>(
            "WITH changed AS (
                 UPDATE plimsoll.table_record t SET keep_manifest = $2
                 WHERE t.table_id OPERATOR(pg_catalog.=) $1 RETURNING t.table_id)
             SELECT pg_catalog.count(*) FROM changed",
            &[table_id.into(), kept.into()],
        )?)
    })?;
    tell_registrations_changed()?;
    match changed {
        Some(1) => Ok(kept),
        _ => Err(Problem::new(state::INTERNAL, format!("the registration of {shown} is gone"))),
    }
}
