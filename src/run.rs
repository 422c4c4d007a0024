//! Runs: one pass of the algorithm over a database, under its lease.
//!
//! ```text
//! begin_run   takes the lease; answers what the server has of all tables
//! ...         uploads, deletes, records of batches: each renews the lease; renew_lease does nothing else
//! end_run     gives the lease back, with the news of each table
//! ```
//! A run that records nothing leaves no record: it changes the lease's row only.

use pgrx::datum::{AnyElement, TimestampWithTimeZone};
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};

use crate::access::{self, Database};
use crate::argument::{json, name, required};
use crate::direction::Declared;
use crate::error::{Answer, OrRaise, Problem, state};
use crate::lease::{self, Agent};
use crate::table::ManagedTable;
use crate::{direction, history, identity, replica, upload};

/// The version of the calls of a run and their order that this server speaks.
const PROTOCOL: i32 = 1;

/// Characters in an agent's id, version and host.
const NAME_LIMIT: usize = 200;

/// Characters that are kept of an error.
const ERROR_LIMIT: usize = 2000;

/// Makes sure that a run under way may write to a replica, and renews its lease: see [`direction::renew_to_write`].
pub fn renew_to_write(run_id: Option<i64>, database: &Database, table: &ManagedTable) -> Answer<Option<i64>> {
    direction::renew_to_write(run_id, database, &table.registered(), None)
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn begin_run(
    database_id: Option<Uuid>,
    agent_id: Option<&str>,
    agent_version: Option<&str>,
    protocol: Option<i32>,
    host: Option<&str>,
    local_versions: Option<AnyElement>,
    directions: Option<AnyElement>,
    side_id: Option<Uuid>,
    dry_run: Option<bool>,
) -> TableIterator<
    'static,
    (name!(run_id, i64), name!(lease_until, TimestampWithTimeZone), name!(tables, JsonB)),
> {
    let begin = || {
        let database = access::authorise(required(database_id, "database_id")?)?;
        check_protocol(required(protocol, "protocol")?)?;
        let agent = Agent {
            id: name(required(agent_id, "agent_id")?, "agent_id", NAME_LIMIT)?,
            version: name(required(agent_version, "agent_version")?, "agent_version", NAME_LIMIT)?,
            host: host.map(|host| name(host, "host", NAME_LIMIT)).transpose()?,
        };
        let local_versions = match local_versions {
            Some(versions) => replica::local_versions(&json(versions, "local_versions")?)?,
            None => Default::default(),
        };
        let directions = match directions {
            Some(directions) => direction::read(&json(directions, "directions")?)?,
            None => Default::default(),
        };
        let dry_run = required(dry_run, "dry_run")?;
        let (run_id, until) = lease::take(&database, &agent)?;
        upload::forget_batches(database.id)?;
        let declared = Declared { agent: &agent, directions, side_id, dry_run };
        let tables = replica::at_begin(&database, &local_versions, &declared)?;
        Ok((run_id, until, JsonB(tables)))
    };
    TableIterator::once(begin().or_raise())
}

fn check_protocol(protocol: i32) -> Answer<()> {
    if protocol == PROTOCOL {
        return Ok(());
    }
    let hint = if protocol > PROTOCOL { "Update the extension." } else { "Update the agent." };
    let message = format!("the agent speaks protocol {protocol}, this server protocol {PROTOCOL}");
    Err(Problem::new(state::UNSUPPORTED, message).hint(hint))
}

/// The database of a run, whose use is authorised. A run that never was and someone else's read the same.
pub fn authorise(run_id: i64) -> Answer<Database> {
    identity::refuse_restricted()?;
    let unknown = || {
        Problem::new(state::NOT_IN_STATE, format!("run {run_id} is over, or not yours"))
            .hint("Begin a new run with plimsoll.begin_run.")
    };
    let database_id = lease::database_of(run_id)?.ok_or_else(unknown)?;
    access::authorise(database_id).map_err(|problem| match problem.code() {
        state::NOT_AUTHORISED => unknown(),
        _ => problem,
    })
}

/// Adds what a step did to its run's record, which [`renew`] made.
pub fn add_counts(run_id: i64, inserted: u64, updated: u64, deleted: u64, rejected: u64) -> Answer<()> {
    if inserted == 0 && updated == 0 && deleted == 0 && rejected == 0 {
        return Ok(());
    }
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    identity::as_extension(|| {
        Spi::run_with_args(
            "UPDATE plimsoll.run_record
             SET inserted = inserted OPERATOR(pg_catalog.+) $2, updated = updated OPERATOR(pg_catalog.+) $3,
                 deleted = deleted OPERATOR(pg_catalog.+) $4, rejected = rejected OPERATOR(pg_catalog.+) $5
             WHERE run_id OPERATOR(pg_catalog.=) $1",
            &[
                run_id.into(),
                count(inserted).into(),
                count(updated).into(),
                count(deleted).into(),
                count(rejected).into(),
            ],
        )?;
        Ok(())
    })
}

/// For agents that write elsewhere: whoever has the lease renewed may write its side, and no other run has begun.
#[pg_extern(sql = false)]
fn renew_lease(run_id: Option<i64>) -> TimestampWithTimeZone {
    let renew = || {
        let run_id = required(run_id, "run_id")?;
        lease::prolong(run_id, &authorise(run_id)?)
    };
    renew().or_raise()
}

#[pg_extern(sql = false)]
fn end_run(run_id: Option<i64>, outcome: Option<&str>, tables: Option<AnyElement>, error: Option<&str>) {
    end(run_id, outcome, tables, error).or_raise();
}

fn end(
    run_id: Option<i64>,
    outcome: Option<&str>,
    tables: Option<AnyElement>,
    error: Option<&str>,
) -> Answer<()> {
    let run_id = required(run_id, "run_id")?;
    let database = authorise(run_id)?;
    let outcome = required(outcome, "outcome")?;
    if !["finished", "stopped", "failed"].contains(&outcome) {
        let message = format!("outcome is \"{outcome}\"; it must be finished, stopped or failed");
        return Err(Problem::new(state::BAD_ARGUMENT, message));
    }
    let news = match tables {
        Some(tables) => replica::news(&json(tables, "tables")?)?,
        None => Vec::new(),
    };
    let Some(lease) = lease::lock(&database)?.filter(|lease| lease.run_id == run_id && lease.open) else {
        return Err(lease::over(run_id, lease::lock(&database)?.as_ref()));
    };
    let confirmed = replica::at_end(&database, &lease, &news, outcome == "finished")?;
    let moved = replica::Moved::of_all(&news);
    if outcome == "failed" || error.is_some() || moved.is_some() {
        // A run that did nothing but fail is worth a record, and one that changed the local side alone.
        lease::renew(Some(run_id), &database)?;
    }
    let error = error.map(shortened);
    identity::as_extension(|| {
        Spi::run_with_args(
            "WITH ended AS (
                 UPDATE plimsoll.run_record
                 SET ended_at = pg_catalog.clock_timestamp(), outcome = $3, error = $4, received = $6,
                     deleted_local = $7, conflicts = $8, undecided = $9
                 WHERE run_id OPERATOR(pg_catalog.=) $2 RETURNING run_id)
             UPDATE plimsoll.lease_record
             SET lease_until = NULL, last_seen_at = pg_catalog.clock_timestamp(),
                 last_ended_at = pg_catalog.clock_timestamp(),
                 confirmed_at = CASE WHEN $5 THEN started_at ELSE confirmed_at END,
                 idle_runs = idle_runs OPERATOR(pg_catalog.+)
                     CASE WHEN EXISTS (SELECT FROM ended) THEN 0 ELSE 1 END
             WHERE database_id OPERATOR(pg_catalog.=) $1",
            &[
                database.id.into(),
                run_id.into(),
                outcome.into(),
                error.into(),
                confirmed.into(),
                moved.received.into(),
                moved.deleted_local.into(),
                moved.conflicts.into(),
                moved.undecided.into(),
            ],
        )?;
        Ok(())
    })?;
    upload::forget_batches(database.id)?;
    if lease.first_of_hour { history::purge(&database, run_id) } else { Ok(()) }
}

/// The beginning of a text that may be of any length.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(ERROR_LIMIT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
