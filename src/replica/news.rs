//! What an agent reports of its tables when a run ends.

use std::collections::{BTreeMap, BTreeSet};

use pgrx::spi::Spi;
use plimsoll_core::direction::Direction;
use plimsoll_core::value::datetime::UNIX_EPOCH;
use serde_json::Value;

use super::{Remembered, remembered, time, write_version};
use crate::access::Database;
use crate::argument::{Entry, entries};
use crate::error::Answer;
use crate::lease::Lease;
use crate::{guard, identity, run, table, version};

/// Managed tables that one call may speak of.
const TABLE_LIMIT: usize = 100_000;

/// A proof that moved on by less is not written while nothing else changed: an idle run changes no replica.
const PROOF_STEP: i64 = 15 * 60 * 1_000_000;

/// The words for a replica's status that an agent may report.
const STATUSES: [&str; 5] = ["level", "counts_agree", "level_except", "different", "unknown"];

/// Rows that a run moved, per side, and those that it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Stored on the remote side.
    pub sent: i64,
    /// Stored on the local side.
    pub received: i64,
    /// Deleted on the local side.
    pub deleted_local: i64,
    /// Deleted on the remote side.
    pub deleted_remote: i64,
    /// Changed on both sides.
    pub conflicts: i64,
    /// Left as they are, because it is not known which side is right.
    pub undecided: i64,
}

impl Moved {
    /// What was moved of all tables.
    pub fn of_all(news: &[News]) -> Moved {
        news.iter().fold(Moved::default(), |all, News { moved, .. }| Moved {
            sent: all.sent.saturating_add(moved.sent),
            received: all.received.saturating_add(moved.received),
            deleted_local: all.deleted_local.saturating_add(moved.deleted_local),
            deleted_remote: all.deleted_remote.saturating_add(moved.deleted_remote),
            conflicts: all.conflicts.saturating_add(moved.conflicts),
            undecided: all.undecided.saturating_add(moved.undecided),
        })
    }

    /// Whether rows of either side were changed, or found changed on both.
    pub fn is_some(&self) -> bool {
        let counts = [self.sent, self.received, self.deleted_local, self.deleted_remote, self.conflicts];
        counts.iter().any(|count| *count > 0)
    }
}

/// What an agent reports of one table when its run ends.
pub struct News {
    relation: String,
    status: String,
    /// Microseconds since 2000-01-01 UTC.
    proved_at: Option<i64>,
    local_rows: Option<i64>,
    error: Option<String>,
    direction: Direction,
    moved: Moved,
    /// Local rows that the local side's guard holds back.
    held_local: i64,
    /// Rows of the replica that were to be touched by a transaction that the guard ended, and that left no hold.
    planned: i64,
}

/// Reads the argument of `end_run`.
pub fn news(value: &Value) -> Answer<Vec<News>> {
    let read = |(ordinal, value)| {
        let entry = Entry::new("tables", ordinal, value);
        let status = entry.text("status")?;
        if !STATUSES.contains(&status) {
            let message = format!("is \"{status}\"; it must be one of {}", STATUSES.join(", "));
            return Err(entry.wrong("status", &message));
        }
        let proved_at = entry.integer_or_null("proved_at")?.map(|micros| {
            let since = micros.checked_sub(UNIX_EPOCH).filter(|since| time(*since).is_ok());
            since.ok_or_else(|| entry.wrong("proved_at", "must be microseconds since 1970-01-01 UTC"))
        });
        let direction = match entry.text_or_null("direction")? {
            None => Direction::Push,
            Some(name) => {
                Direction::of_name(name).ok_or_else(|| entry.wrong("direction", "is no direction"))?
            }
        };
        for member in ["rejected", "waiting", "held", "compared", "merged", "held_there"] {
            entry.count(member)?;
        }
        // Of the side that is made level, whichever that is.
        let stored = entry.count("inserted")?.saturating_add(entry.count("updated")?);
        let deleted = entry.count("deleted")?;
        let here = direction.writes_local() && !direction.writes_remote();
        let side = |member, count| match entry.member(member) {
            Some(_) => entry.count(member),
            None => Ok(count),
        };
        let moved = Moved {
            sent: side("sent", if here { 0 } else { stored })?,
            received: side("received", if here { stored } else { 0 })?,
            deleted_local: side("deleted_here", if here { deleted } else { 0 })?,
            deleted_remote: side("deleted_there", if here { 0 } else { deleted })?,
            conflicts: entry.count("conflicts")?,
            undecided: entry.count("undecided")?,
        };
        let local_rows = entry.member("local_rows").map(|_| entry.count("local_rows")).transpose()?;
        Ok(News {
            relation: entry.text("relation")?.to_owned(),
            status: status.to_owned(),
            proved_at: proved_at.transpose()?,
            local_rows,
            error: entry.text_or_null("error")?.map(run::shortened),
            direction,
            moved,
            held_local: entry.count("held_here")?,
            planned: entry.count("planned")?,
        })
    };
    entries(value, "tables", TABLE_LIMIT)?.iter().enumerate().map(read).collect()
}

/// Writes the news of the tables that are still managed. Answers whether the run confirmed all replicas
/// that are known to be level: then what it found as it was before is not written again.
pub fn at_end(database: &Database, lease: &Lease, news: &[News], finished: bool) -> Answer<bool> {
    if news.is_empty() {
        return Ok(false);
    }
    let (tables, known) = (managed_ids()?, remembered(database)?);
    let told: BTreeMap<i32, &News> =
        news.iter().filter_map(|news| Some((*tables.get(&news.relation)?, news))).collect();
    let managed: BTreeSet<i32> = tables.values().copied().collect();
    let mut level = known.iter().filter(|(id, known)| managed.contains(id) && is_level(&known.status));
    let confirmed = finished && level.all(|(table_id, _)| told.contains_key(table_id));
    for (table_id, news) in told {
        // A table that changed since the run began is reported by the next one.
        if (news.moved.sent > 0 || news.moved.deleted_remote > 0 || news.planned > 0)
            && let Ok(table) = table::resolve(&news.relation)
        {
            write_version(database, table_id, &version::of(database, &table)?)?;
            if news.planned > 0 && !database.admin {
                guard::hold_back(database, &table, news.planned)?;
            }
        }
        if !confirmed || known.get(&table_id).is_none_or(|known| news.differs_from(known)) {
            write_news(database, lease, table_id, news)?;
        }
    }
    Ok(confirmed)
}

/// Whether all that can be stored was found equal.
fn is_level(status: &str) -> bool {
    ["level", "counts_agree", "level_except"].contains(&status)
}

/// The numbers of the managed tables by name.
fn managed_ids() -> Answer<BTreeMap<String, i32>> {
    identity::as_extension(|| {
        Spi::connect(|client| {
            let rows = client.select(
                "SELECT t.table_id, pg_catalog.format('%I.%I', t.schema_name, t.table_name)
                 FROM plimsoll.table_record t WHERE t.unmanaged_at IS NULL",
                None,
                &[],
            )?;
            let mut tables = BTreeMap::new();
            for row in rows {
                tables.insert(row.get(2)?.unwrap_or_default(), row.get(1)?.unwrap_or_default());
            }
            Ok(tables)
        })
    })
}

impl News {
    fn differs_from(&self, known: &Remembered) -> bool {
        let proved = match (self.proved_at, known.proved_at) {
            (Some(now), Some(before)) => now.abs_diff(before) >= PROOF_STEP.unsigned_abs(),
            (now, before) => now.is_some() && before.is_none(),
        };
        self.moved.is_some()
            || proved
            || self.moved.undecided != known.undecided
            || self.held_local != known.held_local
            || self.status != known.status
            || self.error != known.error
            || self.local_rows.is_some_and(|rows| known.local_rows != Some(rows))
    }
}

/// A replica was level when the run began, at the least; a proof cannot lie in the future, whatever the
/// agent's clock says.
fn write_news(database: &Database, lease: &Lease, table_id: i32, news: &News) -> Answer<()> {
    let level_at = if is_level(&news.status) { lease.started_at } else { None };
    let proved_at = news.proved_at.map(time).transpose()?;
    identity::as_extension(|| {
        Spi::run_with_args(
            "INSERT INTO plimsoll.replica_record AS r
                 (database_id, table_id, status, proved_at, level_at, local_rows, error, run_id, direction, undecided,
                  held_local, held_local_since, sent, received, deleted_local, deleted_remote, conflicts, moved_at)
             VALUES ($1, $2, $3, LEAST($4, pg_catalog.clock_timestamp()), $5, $6, $7, $8, $9, $10, $11,
                     CASE WHEN $11 OPERATOR(pg_catalog.>) 0 THEN pg_catalog.clock_timestamp() END,
                     $12, $13, $14, $15, $16, CASE WHEN $17 THEN pg_catalog.clock_timestamp() END)
             ON CONFLICT (database_id, table_id) DO UPDATE SET status = EXCLUDED.status,
                 proved_at = COALESCE(EXCLUDED.proved_at, r.proved_at),
                 level_at = COALESCE(EXCLUDED.level_at, r.level_at),
                 replacing_rows = CASE WHEN EXCLUDED.level_at IS NULL THEN r.replacing_rows ELSE 0 END,
                 local_rows = COALESCE(EXCLUDED.local_rows, r.local_rows),
                 error = EXCLUDED.error, run_id = EXCLUDED.run_id, undecided = EXCLUDED.undecided,
                 direction = EXCLUDED.direction, held_local = EXCLUDED.held_local,
                 held_local_since = CASE WHEN $11 OPERATOR(pg_catalog.>) 0
                     THEN COALESCE(r.held_local_since, EXCLUDED.held_local_since) END,
                 moved_at = COALESCE(EXCLUDED.moved_at, r.moved_at),
                 sent = CASE WHEN $17 THEN EXCLUDED.sent ELSE r.sent END,
                 received = CASE WHEN $17 THEN EXCLUDED.received ELSE r.received END,
                 deleted_local = CASE WHEN $17 THEN EXCLUDED.deleted_local ELSE r.deleted_local END,
                 deleted_remote = CASE WHEN $17 THEN EXCLUDED.deleted_remote ELSE r.deleted_remote END,
                 conflicts = CASE WHEN $17 THEN EXCLUDED.conflicts ELSE r.conflicts END",
            &[
                database.id.into(),
                table_id.into(),
                news.status.as_str().into(),
                proved_at.into(),
                level_at.into(),
                news.local_rows.into(),
                news.error.as_deref().into(),
                lease.run_id.into(),
                news.direction.name().into(),
                news.moved.undecided.into(),
                news.held_local.into(),
                news.moved.sent.into(),
                news.moved.received.into(),
                news.moved.deleted_local.into(),
                news.moved.deleted_remote.into(),
                news.moved.conflicts.into(),
                news.moved.is_some().into(),
            ],
        )?;
        Ok(())
    })
}
