//! The lease of a database: one row with an expiry, which says whose run is under way. Session locks would
//! not survive a transaction pooler, and transaction locks cover one step only.
//!
//! Every step of a run updates the row first and keeps it locked until its transaction ends, so the steps
//! of two runs never interleave. A lease that expired is still its agent's until another takes it.

use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::spi::{Spi, SpiClient};

use crate::access::{self, Database};
use crate::error::{Answer, Problem, state};
use crate::{identity, setting};

/// Who asks for a lease.
pub struct Agent<'a> {
    /// Tells one agent from another, across its restarts.
    pub id: &'a str,
    /// Its release.
    pub version: &'a str,
    /// The machine it runs on.
    pub host: Option<&'a str>,
}

/// A database's lease as it stands, its row locked by this transaction.
pub struct Lease {
    /// The last run that began.
    pub run_id: i64,
    agent_id: String,
    host: Option<String>,
    /// Until when, as people read it.
    until: String,
    /// The run has not ended.
    pub open: bool,
    /// The run has not ended, and its lease has not expired.
    live: bool,
    /// When the run began.
    pub started_at: Option<TimestampWithTimeZone>,
    /// No run of this database ended in this hour of the clock before.
    pub first_of_hour: bool,
}

impl Lease {
    fn agent(&self) -> String {
        match &self.host {
            Some(host) => format!("\"{}\" on host \"{host}\"", self.agent_id),
            None => format!("\"{}\"", self.agent_id),
        }
    }
}

/// Locks the lease's row; `None` before the first run.
pub fn lock(database: &Database) -> Answer<Option<Lease>> {
    identity::as_extension(|| Spi::connect_mut(|client| lock_row(client, database.id)))
}

fn lock_row(client: &mut SpiClient, database_id: Uuid) -> Answer<Option<Lease>> {
    client.update(
        "SELECT FROM plimsoll.lease_record WHERE database_id OPERATOR(pg_catalog.=) $1 FOR UPDATE",
        None,
        &[database_id.into()],
    )?;
    read(client, database_id)
}

/// The clock is read in a statement of its own, after any wait for the row's lock.
fn read(client: &mut SpiClient, database_id: Uuid) -> Answer<Option<Lease>> {
    let rows = client.update(
        "SELECT run_id, agent_id, host,
                COALESCE(pg_catalog.to_char(lease_until, 'YYYY-MM-DD HH24:MI:SS TZH:TZM'), ''),
                lease_until IS NOT NULL,
                COALESCE(lease_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp(), false),
                started_at,
                COALESCE(last_ended_at OPERATOR(pg_catalog.<)
                    pg_catalog.date_trunc('hour', pg_catalog.clock_timestamp()), true)
         FROM plimsoll.lease_record WHERE database_id OPERATOR(pg_catalog.=) $1",
        Some(1),
        &[database_id.into()],
    )?;
    if rows.is_empty() {
        return Ok(None);
    }
    let row = rows.first();
    Ok(Some(Lease {
        run_id: row.get(1)?.unwrap_or_default(),
        agent_id: row.get(2)?.unwrap_or_default(),
        host: row.get(3)?,
        until: row.get(4)?.unwrap_or_default(),
        open: row.get(5)?.unwrap_or(false),
        live: row.get(6)?.unwrap_or(false),
        started_at: row.get(7)?,
        first_of_hour: row.get(8)?.unwrap_or(false),
    }))
}

/// Takes the lease for a new run: the run's number, and until when. Refused while another agent's lease
/// has not expired. An agent takes over its own at once: it restarts after a crash.
pub fn take(database: &Database, agent: &Agent) -> Answer<(i64, TimestampWithTimeZone)> {
    access::keep_authorised(database)?;
    let user = identity::role_name(database.user);
    identity::as_extension(|| {
        Spi::connect_mut(|client| {
            // Told at once: the row stays locked as long as the other agent's step goes on.
            if let Some(other) =
                read(client, database.id)?.filter(|lease| lease.live && lease.agent_id != agent.id)
            {
                return Err(held(&other));
            }
            let earlier = match lock_row(client, database.id)? {
                Some(earlier) => earlier,
                None => {
                    insert_row(client, database.id, agent, &user)?;
                    lock_row(client, database.id)?
                        .ok_or_else(|| Problem::new(state::INTERNAL, "the lease cannot be taken"))?
                }
            };
            if earlier.live && earlier.agent_id != agent.id {
                return Err(held(&earlier));
            }
            if earlier.open {
                abandon(client, earlier.run_id)?;
            }
            let rows = client.update(
                "UPDATE plimsoll.lease_record
                 SET run_id = pg_catalog.nextval('plimsoll.run_number'), agent_id = $2, agent_version = $3,
                     host = $4, user_name = $5::pg_catalog.name,
                     started_at = pg_catalog.clock_timestamp(), last_seen_at = pg_catalog.clock_timestamp(),
                     lease_until = pg_catalog.clock_timestamp()
                         OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => $6)
                 WHERE database_id OPERATOR(pg_catalog.=) $1 RETURNING run_id, lease_until",
                None,
                &[
                    database.id.into(),
                    agent.id.into(),
                    agent.version.into(),
                    agent.host.into(),
                    user.as_str().into(),
                    setting::lease_seconds(database).into(),
                ],
            )?;
            match rows.first().get_two::<i64, TimestampWithTimeZone>()? {
                (Some(run_id), Some(until)) => Ok((run_id, until)),
                _ => Err(Problem::new(state::INTERNAL, "the lease cannot be taken")),
            }
        })
    })
}

/// The row of a database's first run, not yet taken. Another agent may insert it at the same moment.
fn insert_row(client: &mut SpiClient, database_id: Uuid, agent: &Agent, user: &str) -> Answer<()> {
    client.update(
        "INSERT INTO plimsoll.lease_record
             (database_id, run_id, agent_id, agent_version, host, user_name, started_at, last_seen_at)
         VALUES ($1, pg_catalog.nextval('plimsoll.run_number'), $2, $3, $4, $5::pg_catalog.name,
             pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp())
         ON CONFLICT (database_id) DO NOTHING",
        None,
        &[database_id.into(), agent.id.into(), agent.version.into(), agent.host.into(), user.into()],
    )?;
    Ok(())
}

fn abandon(client: &mut SpiClient, run_id: i64) -> Answer<()> {
    client.update(
        "UPDATE plimsoll.run_record SET outcome = 'abandoned', ended_at = pg_catalog.clock_timestamp()
         WHERE run_id OPERATOR(pg_catalog.=) $1 AND ended_at IS NULL",
        None,
        &[run_id.into()],
    )?;
    Ok(())
}

fn held(lease: &Lease) -> Problem {
    let message = format!("agent {} holds the lease until {}", lease.agent(), lease.until);
    Problem::new(state::LEASE_HELD, message)
        .detail(format!("Its run {} is under way.", lease.run_id))
        .hint("Try again when that run has ended; a lease that is not renewed expires.")
}

/// A run whose lease was renewed.
pub struct Renewed {
    /// Its number.
    pub run_id: i64,
    /// The tables that it was refused.
    pub refused: Vec<i32>,
    /// The tables that it said it only reads.
    pub only_read: Vec<i32>,
}

/// Renews the lease of a run, marks that the run has something to record, and keeps the lease's row locked
/// until the transaction ends. Every writing call begins with it.
///
/// Without a run: an admin may write at any time, others while no run is under way.
pub fn renew(run_id: Option<i64>, database: &Database) -> Answer<Option<Renewed>> {
    access::keep_authorised(database)?;
    let Some(run_id) = run_id else {
        return match lock(database)? {
            Some(lease) if lease.live && !database.admin => {
                Err(held(&lease).hint("Pass the number of the run under way, or wait until it has ended."))
            }
            _ => Ok(None),
        };
    };
    let renewed = identity::as_extension(|| {
        Spi::connect_mut(|client| {
            let rows = client.update(
                "WITH renewed AS (
                     UPDATE plimsoll.lease_record
                     SET last_seen_at = pg_catalog.clock_timestamp(),
                         lease_until = pg_catalog.clock_timestamp()
                             OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => $3)
                     WHERE database_id OPERATOR(pg_catalog.=) $1 AND run_id OPERATOR(pg_catalog.=) $2
                         AND lease_until IS NOT NULL
                     RETURNING run_id, database_id, agent_id, agent_version, host, started_at, directions,
                         refused, only_read),
                 marked AS (
                     INSERT INTO plimsoll.run_record
                         (run_id, database_id, agent_id, agent_version, host, started_at, directions)
                     SELECT run_id, database_id, agent_id, agent_version, host, started_at, directions FROM renewed
                     ON CONFLICT (run_id) DO NOTHING)
                 SELECT refused, only_read FROM renewed",
                None,
                &[database.id.into(), run_id.into(), setting::lease_seconds(database).into()],
            )?;
            if rows.is_empty() {
                return Ok(None);
            }
            let (refused, only_read) = rows.first().get_two::<Vec<i32>, Vec<i32>>()?;
            let (refused, only_read) = (refused.unwrap_or_default(), only_read.unwrap_or_default());
            Ok(Some(Renewed { run_id, refused, only_read }))
        })
    })?;
    match renewed {
        Some(renewed) => Ok(Some(renewed)),
        None => Err(over(run_id, lock(database)?.as_ref())),
    }
}

/// Renews the lease of a run that records nothing: until when it has it now.
pub fn prolong(run_id: i64, database: &Database) -> Answer<TimestampWithTimeZone> {
    access::keep_authorised(database)?;
    let until = identity::as_extension(|| {
        Spi::connect_mut(|client| {
            let rows = client.update(
                "UPDATE plimsoll.lease_record
                 SET last_seen_at = pg_catalog.clock_timestamp(),
                     lease_until = pg_catalog.clock_timestamp()
                         OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => $3)
                 WHERE database_id OPERATOR(pg_catalog.=) $1 AND run_id OPERATOR(pg_catalog.=) $2
                     AND lease_until IS NOT NULL
                 RETURNING lease_until",
                None,
                &[database.id.into(), run_id.into(), setting::lease_seconds(database).into()],
            )?;
            if rows.is_empty() { Ok(None) } else { Ok(rows.first().get_one()?) }
        })
    })?;
    match until {
        Some(until) => Ok(until),
        None => Err(over(run_id, lock(database)?.as_ref())),
    }
}

/// Remembers which ways a run's tables go, the tables that it was refused, and those that it only reads. Written only
/// where that differs from the run before: an idle run changes one row once.
pub fn declare(
    database: &Database,
    directions: Vec<String>,
    refused: Vec<i32>,
    only_read: Vec<i32>,
) -> Answer<()> {
    identity::as_extension(|| {
        Ok(Spi::run_with_args(
            "UPDATE plimsoll.lease_record l SET directions = $2, refused = $3, only_read = $4
             WHERE l.database_id OPERATOR(pg_catalog.=) $1
                 AND (l.directions, l.refused, l.only_read) IS DISTINCT FROM ($2, $3, $4)",
            &[database.id.into(), directions.into(), refused.into(), only_read.into()],
        )?)
    })
}

/// Why a run may do nothing any more.
pub fn over(run_id: i64, lease: Option<&Lease>) -> Problem {
    let message = match lease {
        Some(lease) if lease.run_id == run_id => format!("run {run_id} has ended"),
        Some(lease) if lease.live => format!(
            "run {run_id} is over: its lease passed to agent {}, who holds it until {}",
            lease.agent(),
            lease.until
        ),
        Some(lease) => {
            format!("run {run_id} is over: run {} of agent {} followed it", lease.run_id, lease.agent())
        }
        None => format!("run {run_id} is over"),
    };
    Problem::new(state::NOT_IN_STATE, message).hint("Begin a new run with plimsoll.begin_run.")
}

/// The database that a run belongs to: the run under way, or one that left a record.
pub fn database_of(run_id: i64) -> Answer<Option<Uuid>> {
    identity::as_extension(|| {
        Spi::connect(|client| {
            let rows = client.select(
                "SELECT database_id FROM plimsoll.lease_record WHERE run_id OPERATOR(pg_catalog.=) $1
                 UNION ALL
                 SELECT database_id FROM plimsoll.run_record WHERE run_id OPERATOR(pg_catalog.=) $1",
                Some(1),
                &[run_id.into()],
            )?;
            if rows.is_empty() { Ok(None) } else { Ok(rows.first().get_one()?) }
        })
    })
}
