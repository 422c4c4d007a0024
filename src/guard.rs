//! The guard against destruction: how many rows of a replica may be deleted or set back to an older
//! version within 24 hours. Beyond it the replica goes on hold until a person agrees. The rule is
//! [`plimsoll_core::guard`]'s.

use pgrx::spi::Spi;
use plimsoll_core::guard::{FRACTION, Weight};

use crate::access::Database;
use crate::error::Answer;
use crate::identity;
use crate::table::ManagedTable;
use crate::version;

/// Whether planned deletes, or planned upserts that lower a version, may be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They may, and count.
    Allowed,
    /// They may, because a person agreed: they do not count.
    Released,
    /// They may not: the replica is on hold.
    Held,
}

/// Asks for leave to touch `rows` rows now, of `planned` that are still to be touched in this run. A
/// refusal puts the replica on hold with the planned count, in this transaction: the caller answers it, and
/// does not raise. Admins are not held.
pub fn ask(database: &Database, table: &ManagedTable, rows: u64, planned: u64) -> Answer<Verdict> {
    if rows == 0 {
        return Ok(Verdict::Allowed);
    }
    if database.admin {
        return Ok(Verdict::Released);
    }
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    let planned = i64::try_from(planned).unwrap_or(i64::MAX).max(rows);
    let known = identity::as_extension(|| {
        lock(database, table)?;
        known(database, table)
    })?;
    if known.on_hold {
        identity::as_extension(|| hold(database, table, planned))?;
        return Ok(Verdict::Held);
    }
    let row_count = match known.row_count {
        Some(row_count) => row_count,
        None => {
            // No run has counted yet: what it is before anything is touched is what the guard goes by.
            let counted = i64::try_from(version::of(database, table)?.row_count).unwrap_or(i64::MAX);
            identity::as_extension(|| remember_rows(database, table, counted))?;
            counted
        }
    };
    let weight = Weight {
        largest: known.largest.max(row_count).unsigned_abs(),
        touched: known.touched.unsigned_abs(),
        replacing: known.replacing.unsigned_abs(),
        fraction: database.number_option("guard_fraction").unwrap_or(FRACTION),
    };
    identity::as_extension(|| {
        if weight.allows(planned.unsigned_abs()) {
            return Ok(Verdict::Allowed);
        }
        if known.released >= planned {
            use_release(database, table, rows)?;
            return Ok(Verdict::Released);
        }
        hold(database, table, planned)?;
        Ok(Verdict::Held)
    })
}

/// Lets one transaction at a time ask about a replica. It writes the replica's row, so that one that looks at
/// an old snapshot fails instead of counting what was true then.
fn lock(database: &Database, table: &ManagedTable) -> Answer<()> {
    Spi::run_with_args(
        "INSERT INTO plimsoll.replica_record AS r (database_id, table_id) VALUES ($1, $2)
         ON CONFLICT (database_id, table_id) DO UPDATE SET status = r.status",
        &[database.id.into(), table.table_id.into()],
    )?;
    Ok(())
}

fn remember_rows(database: &Database, table: &ManagedTable, rows: i64) -> Answer<()> {
    Spi::run_with_args(
        "UPDATE plimsoll.replica_record r SET row_count = $3
         WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2",
        &[database.id.into(), table.table_id.into(), rows.into()],
    )?;
    Ok(())
}

struct Known {
    touched: i64,
    largest: i64,
    row_count: Option<i64>,
    on_hold: bool,
    released: i64,
    replacing: i64,
}

fn known(database: &Database, table: &ManagedTable) -> Answer<Known> {
    Spi::connect(|client| {
        let rows = client.select(
            "SELECT COALESCE(pg_catalog.sum(g.touched), 0)::pg_catalog.int8, COALESCE(pg_catalog.max(g.largest), 0),
                    (SELECT r.row_count FROM plimsoll.replica_record r
                     WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2),
                    EXISTS (SELECT FROM plimsoll.replica_record r
                     WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2
                       AND r.hold_since IS NOT NULL),
                    COALESCE((SELECT r.released_rows FROM plimsoll.replica_record r
                     WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2
                       AND r.released_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()), 0),
                    COALESCE((SELECT r.replacing_rows FROM plimsoll.replica_record r
                     WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2), 0)
             FROM plimsoll.guard_record g
             WHERE g.database_id OPERATOR(pg_catalog.=) $1 AND g.table_id OPERATOR(pg_catalog.=) $2
               AND g.hour OPERATOR(pg_catalog.>) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '24:00'::pg_catalog.interval)",
            Some(1),
            &[database.id.into(), table.table_id.into()],
        )?;
        let row = rows.first();
        Ok(Known {
            touched: row.get(1)?.unwrap_or(0),
            largest: row.get(2)?.unwrap_or(0),
            row_count: row.get(3)?,
            on_hold: row.get(4)?.unwrap_or(false),
            released: row.get(5)?.unwrap_or(0),
            replacing: row.get(6)?.unwrap_or(0),
        })
    })
}

fn hold(database: &Database, table: &ManagedTable, planned: i64) -> Answer<()> {
    Spi::run_with_args(
        "INSERT INTO plimsoll.replica_record AS r (database_id, table_id, status, hold_since, hold_reason, hold_planned)
         VALUES ($1, $2, 'different', pg_catalog.clock_timestamp(), 'more rows to delete or set back than the guard allows', $3)
         ON CONFLICT (database_id, table_id) DO UPDATE
         SET hold_since = COALESCE(r.hold_since, excluded.hold_since),
             hold_reason = COALESCE(r.hold_reason, excluded.hold_reason),
             hold_planned = GREATEST(COALESCE(r.hold_planned, 0), excluded.hold_planned), status = 'different'",
        &[database.id.into(), table.table_id.into(), planned.into()],
    )?;
    Ok(())
}

/// Puts a replica on hold whose rows a transaction was to touch that the guard ended.
pub fn hold_back(database: &Database, table: &ManagedTable, planned: i64) -> Answer<()> {
    identity::as_extension(|| hold(database, table, planned))
}

fn use_release(database: &Database, table: &ManagedTable, rows: i64) -> Answer<()> {
    Spi::run_with_args(
        "UPDATE plimsoll.replica_record r SET released_rows = r.released_rows OPERATOR(pg_catalog.-) $3
         WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2",
        &[database.id.into(), table.table_id.into(), rows.into()],
    )?;
    Ok(())
}

/// Remembers that rows were added to a table without a key: as many deletes are those of their older versions. Not before the
/// replica was level once, until when nothing in it has an older version.
pub fn add_replacing(database: &Database, table: &ManagedTable, rows: u64) -> Answer<()> {
    if rows == 0 || !table.schema.is_keyless() {
        return Ok(());
    }
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    identity::as_extension(|| {
        Spi::run_with_args(
            "UPDATE plimsoll.replica_record r
             SET replacing_rows = r.replacing_rows OPERATOR(pg_catalog.+) $3
             WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2
               AND r.level_at IS NOT NULL",
            &[database.id.into(), table.table_id.into(), rows.into()],
        )?;
        Ok(())
    })
}

/// Uses up rows that were added for rows that were deleted; answers how many these are.
fn use_replacing(database: &Database, table: &ManagedTable, touched: i64) -> Answer<i64> {
    if !table.schema.is_keyless() {
        return Ok(0);
    }
    let used = Spi::get_one_with_args::<i64>(
        "WITH known AS (
             SELECT LEAST(r.replacing_rows, $3) AS used FROM plimsoll.replica_record r
             WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2 FOR UPDATE),
         changed AS (
             UPDATE plimsoll.replica_record r SET replacing_rows = r.replacing_rows OPERATOR(pg_catalog.-) k.used
             FROM known k
             WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2
               AND k.used OPERATOR(pg_catalog.>) 0)
         SELECT COALESCE(pg_catalog.max(k.used), 0) FROM known k",
        &[database.id.into(), table.table_id.into(), touched.into()],
    )?;
    Ok(used.unwrap_or(0))
}

/// Counts rows that were touched with this leave, but for those of a table without a key whose newer versions are there.
pub fn count(database: &Database, table: &ManagedTable, touched: u64, verdict: Verdict) -> Answer<()> {
    if touched == 0 || verdict != Verdict::Allowed {
        return Ok(());
    }
    let touched = i64::try_from(touched).unwrap_or(i64::MAX);
    identity::as_extension(|| {
        let lost = touched - use_replacing(database, table, touched)?;
        if lost == 0 {
            return Ok(());
        }
        Spi::run_with_args(
            "INSERT INTO plimsoll.guard_record AS g (database_id, table_id, hour, touched, largest)
             VALUES ($1, $2, pg_catalog.date_trunc('hour', pg_catalog.clock_timestamp()), $3,
                     COALESCE((SELECT r.row_count FROM plimsoll.replica_record r
                               WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2), 0))
             ON CONFLICT (database_id, table_id, hour) DO UPDATE
             SET touched = g.touched OPERATOR(pg_catalog.+) excluded.touched,
                 largest = GREATEST(g.largest, excluded.largest)",
            &[database.id.into(), table.table_id.into(), lost.into()],
        )?;
        Spi::run_with_args(
            "DELETE FROM plimsoll.guard_record g
             WHERE g.database_id OPERATOR(pg_catalog.=) $1 AND g.table_id OPERATOR(pg_catalog.=) $2
               AND g.hour OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '25:00'::pg_catalog.interval)",
            &[database.id.into(), table.table_id.into()],
        )?;
        Ok(())
    })
}
