//! Holds: a replica on which nothing destructive happens until a person agrees.

use pgrx::Uuid;
use pgrx::prelude::*;
use serde_json::json;

use crate::access::{self, Database};
use crate::acts::Act;
use crate::argument::required;
use crate::error::{Answer, OrRaise, Problem, state};
use crate::replica::{LocalVersions, Replica};
use crate::{identity, setting, table, version};

/// Tables that must have fallen back together before it looks like a restored backup.
const FALLEN_TABLES: usize = 2;

struct Fall {
    index: usize,
    from: i64,
    to: Option<i64>,
    /// Rows the server has beyond what the local side has now.
    beyond: u64,
}

/// Puts replicas on hold whose local maxima fell together below what the agent reported before, as a
/// restored backup does; otherwise remembers what it reports now.
pub fn check_fall(database: &Database, replicas: &mut [Replica], local: &LocalVersions) -> Answer<()> {
    let mut falls = Vec::new();
    for (index, replica) in replicas.iter().enumerate() {
        // A hash does not fall.
        if replica.table.is_hashed() {
            continue;
        }
        let Some(&to) = local.get(&replica.table.name) else { continue };
        let Some(from) = replica.remembered.reported_max else { continue };
        // What was released may be as low as it is.
        if replica.remembered.released || to.is_some_and(|to| to >= from) {
            continue;
        }
        let beyond = match to {
            Some(position) => version::count_beyond(database, replica.table, position)?,
            None => replica.version.row_count,
        };
        falls.push(Fall { index, from, to, beyond });
    }
    let beyond: u64 = falls.iter().map(|fall| fall.beyond).sum();
    if falls.len() < FALLEN_TABLES || beyond as f64 <= setting::fall_free_rows(database) {
        falls.clear();
    }
    for (index, replica) in replicas.iter_mut().enumerate() {
        if let Some(fall) = falls.iter().find(|fall| fall.index == index) {
            if !replica.remembered.on_hold() {
                replica.write_hold(database, &fall.reason(falls.len()), fall.beyond)?;
            }
        } else if let Some(Some(reported)) = local.get(&replica.table.name)
            && !replica.table.is_hashed()
            && replica.remembered.reported_max != Some(*reported)
        {
            replica.write_reported(database, *reported)?;
        }
    }
    Ok(())
}

impl Fall {
    fn reason(&self, tables: usize) -> String {
        let to = self.to.map_or("none, the table is empty".to_owned(), |to| to.to_string());
        format!(
            "the local maximum of {tables} tables fell, as after restoring a backup; here from {} to {to}",
            self.from
        )
    }
}

#[pg_extern(sql = false)]
fn release_hold(database_id: Option<Uuid>, relation: Option<&str>) -> i64 {
    release(database_id, relation).or_raise()
}

/// Approves the recorded plan, once; for a day.
fn release(database_id: Option<Uuid>, relation: Option<&str>) -> Answer<i64> {
    let database = access::authorise(required(database_id, "database_id")?)?;
    if !database.admin && !setting::allow_agent_release(&database) {
        return Err(Problem::new(state::NOT_AUTHORISED, "only an admin may release holds of this database")
            .hint("An admin may permit it with plimsoll.set_option(database_id, 'allow_agent_release', 'true')."));
    }
    let (table_id, name) = table::registered_id(required(relation, "relation")?)?;
    access::keep_authorised(&database)?;
    let planned = identity::as_extension(|| {
        Spi::connect_mut(|client| {
            let rows = client.update(
                "UPDATE plimsoll.replica_record
                 SET released_rows = COALESCE(hold_planned, 0),
                     released_until = pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) '24 hours',
                     hold_since = NULL, hold_reason = NULL, hold_planned = NULL
                 WHERE database_id OPERATOR(pg_catalog.=) $1 AND table_id OPERATOR(pg_catalog.=) $2
                     AND hold_since IS NOT NULL
                 RETURNING released_rows",
                None,
                &[database.id.into(), table_id.into()],
            )?;
            if rows.is_empty() { Ok(None) } else { Ok(rows.first().get_one::<i64>()?) }
        })
    })?;
    let planned = planned.ok_or_else(|| {
        Problem::new(state::NOT_IN_STATE, format!("table {name} is not on hold for database {}", database.id))
            .hint("plimsoll.replicas shows which replicas are on hold.")
    })?;
    Act::new("release_hold")
        .database(database.id)
        .relation(&name)
        .outcome(json!({ "planned": planned }))
        .record()?;
    Ok(planned)
}
