//! What a run finds and leaves of each replica: versions and holds when it begins, news when it ends.

use std::collections::{BTreeMap, BTreeSet};

use pgrx::JsonB;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::spi::Spi;
use serde_json::{Value, json};

use crate::access::Database;
use crate::argument::{Entry, entries};
use crate::datum::with_latest_snapshot;
use crate::error::{Answer, Problem, state};
use crate::lease::Lease;
use crate::manifest::hex;
use crate::table::ManagedTable;
use crate::version::TableVersion;
use crate::{hold, identity, kept, run, table, version};

/// Managed tables that one call may speak of.
const TABLE_LIMIT: usize = 100_000;

/// Microseconds from the Unix epoch to 2000-01-01 UTC, Postgres' own.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// A proof that moved on by less is not written while nothing else changed: an idle run changes no replica.
const PROOF_STEP: i64 = 15 * 60 * 1_000_000;

/// The words for a replica's status that an agent may report.
const STATUSES: [&str; 5] = ["level", "counts_agree", "level_except", "different", "unknown"];

/// The highest position on the local side by table name; `None` where the local table is empty.
pub type LocalVersions = BTreeMap<String, Option<i64>>;

/// What is remembered of a replica.
#[derive(Default)]
pub struct Remembered {
    row_count: Option<i64>,
    max_version: Option<i64>,
    max_modified: Option<i64>,
    /// The highest position that an agent reported of its local table.
    pub reported_max: Option<i64>,
    /// Reason, planned rows and time of a hold.
    hold: Option<Value>,
    /// An admin approved what a hold held back, not long ago.
    pub released: bool,
    rejected: i64,
    status: String,
    proved_at: Option<i64>,
    local_rows: Option<i64>,
    error: Option<String>,
}

impl Remembered {
    /// Whether nothing destructive may happen to it.
    pub fn on_hold(&self) -> bool {
        self.hold.is_some()
    }
}

/// A managed table with both sides' versions of the replica.
pub struct Replica<'a> {
    /// The table.
    pub table: &'a ManagedTable,
    /// What the server has now.
    pub version: TableVersion,
    /// What was known when the run began.
    pub remembered: Remembered,
}

/// Reads the argument of `begin_run`: `{"schema.table": highest position or null}`.
pub fn local_versions(value: &Value) -> Answer<LocalVersions> {
    let wrong = |message: String| Problem::new(state::BAD_ARGUMENT, format!("local_versions {message}"));
    let members =
        value.as_object().ok_or_else(|| wrong("must be an object of table names and numbers".to_owned()))?;
    let member = |(name, value): (&String, &Value)| match (value.as_i64(), value.is_null()) {
        (None, false) => Err(wrong(format!("has no whole number of 64 bits for table {name}"))),
        (number, _) => Ok((name.clone(), number)),
    };
    members.iter().map(member).collect()
}

/// What the server has of all managed tables, as `begin_run` answers it. Writes only what changed.
pub fn at_begin(database: &Database, local: &LocalVersions) -> Answer<Value> {
    let mut tables = table::all(database)?;
    let ranks = table::ranks(&tables)?;
    let mut known = remembered(database)?;
    let mut replicas = Vec::with_capacity(tables.len());
    let mut manifests = Vec::with_capacity(tables.len());
    for table in &mut tables {
        manifests.push(prepare_manifest(database, table)?);
    }
    for (table, (version, _)) in tables.iter().zip(&manifests) {
        let version = *version;
        let remembered = known.remove(&table.table_id);
        if remembered.as_ref().is_none_or(|remembered| !is_known(remembered, &version)) {
            write_version(database, table.table_id, &version)?;
        }
        replicas.push(Replica { table, version, remembered: remembered.unwrap_or_default() });
    }
    hold::check_fall(database, &mut replicas, local)?;
    let answers = replicas.iter().zip(ranks).zip(&manifests).map(|((replica, rank), (_, manifest))| {
        json!({
            "relation": replica.table.name,
            "row_count": replica.version.row_count,
            "max_version": replica.version.max_position,
            "max_modified": replica.version.max_modified,
            "fingerprint": replica.version.sum.as_ref().map(|sum| hex(sum)),
            "manifest": manifest,
            "rejected": replica.remembered.rejected,
            "hold": replica.remembered.hold,
            "rank": rank,
        })
    });
    Ok(Value::Array(answers.collect()))
}

/// Makes a replica's manifest ready to be answered from, as far as that costs little: folds what is pending, and
/// begins that of a replica without rows. Answers what the replica says of itself then, and what the manifest is.
fn prepare_manifest(database: &Database, table: &mut ManagedTable) -> Answer<(TableVersion, &'static str)> {
    kept::fold_if_due(database, table, kept::Due::WhenMany)?;
    let version = with_latest_snapshot(|| version::of(database, table))?;
    if version.sum.is_some() {
        // It comes from the manifest, which was found good on the way.
        return Ok((version, "kept"));
    }
    let manifest = match with_latest_snapshot(|| kept::state(database, table))? {
        kept::State::Kept => "kept",
        kept::State::Untrusted if kept::rebuild_if_empty(database, table)? => {
            return Ok((with_latest_snapshot(|| version::of(database, table))?, "kept"));
        }
        kept::State::Untrusted => "untrusted",
        kept::State::Off => "off",
    };
    Ok((version, manifest))
}

fn is_known(remembered: &Remembered, version: &TableVersion) -> bool {
    remembered.row_count == Some(signed(version.row_count))
        && remembered.max_version == version.max_position
        && remembered.max_modified == version.max_modified
}

/// A count as SQL has it.
pub fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What is remembered of the database's replicas, by table.
fn remembered(database: &Database) -> Answer<BTreeMap<i32, Remembered>> {
    identity::as_extension(|| {
        Spi::connect(|client| {
            let rows = client.select(
                "SELECT r.table_id, r.row_count, r.max_version, r.max_modified, r.reported_max,
                        CASE WHEN r.hold_since IS NOT NULL THEN pg_catalog.jsonb_build_object('reason',
                            r.hold_reason, 'planned', r.hold_planned, 'since', r.hold_since) END,
                        COALESCE(r.released_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp(), false),
                        (SELECT pg_catalog.count(*) FROM plimsoll.rejected_record j
                         WHERE j.database_id OPERATOR(pg_catalog.=) r.database_id
                             AND j.table_id OPERATOR(pg_catalog.=) r.table_id),
                        r.status, r.proved_at, r.local_rows, r.error
                 FROM plimsoll.replica_record r WHERE r.database_id OPERATOR(pg_catalog.=) $1",
                None,
                &[database.id.into()],
            )?;
            let mut known = BTreeMap::new();
            for row in rows {
                let remembered = Remembered {
                    row_count: row.get(2)?,
                    max_version: row.get(3)?,
                    max_modified: row.get::<TimestampWithTimeZone>(4)?.map(i64::from),
                    reported_max: row.get(5)?,
                    hold: row.get::<JsonB>(6)?.map(|hold| hold.0),
                    released: row.get(7)?.unwrap_or(false),
                    rejected: row.get(8)?.unwrap_or(0),
                    status: row.get(9)?.unwrap_or_default(),
                    proved_at: row.get::<TimestampWithTimeZone>(10)?.map(i64::from),
                    local_rows: row.get(11)?,
                    error: row.get(12)?,
                };
                known.insert(row.get::<i32>(1)?.unwrap_or_default(), remembered);
            }
            Ok(known)
        })
    })
}

fn write_version(database: &Database, table_id: i32, version: &TableVersion) -> Answer<()> {
    let modified = version.max_modified.map(time).transpose()?;
    identity::as_extension(|| {
        Spi::run_with_args(
            "INSERT INTO plimsoll.replica_record (database_id, table_id, row_count, max_version, max_modified)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (database_id, table_id) DO UPDATE SET row_count = EXCLUDED.row_count,
                 max_version = EXCLUDED.max_version, max_modified = EXCLUDED.max_modified",
            &[
                database.id.into(),
                table_id.into(),
                signed(version.row_count).into(),
                version.max_position.into(),
                modified.into(),
            ],
        )?;
        Ok(())
    })
}

/// A point in time from microseconds since 2000-01-01 UTC.
fn time(micros: i64) -> Answer<TimestampWithTimeZone> {
    TimestampWithTimeZone::try_from(micros)
        .map_err(|_| Problem::new(state::BAD_ARGUMENT, format!("{micros} microseconds is no point in time")))
}

impl Replica<'_> {
    /// Remembers what the agent reported of its local table.
    pub fn write_reported(&self, database: &Database, reported: i64) -> Answer<()> {
        identity::as_extension(|| {
            Spi::run_with_args(
                "UPDATE plimsoll.replica_record SET reported_max = $3
                 WHERE database_id OPERATOR(pg_catalog.=) $1 AND table_id OPERATOR(pg_catalog.=) $2",
                &[database.id.into(), self.table.table_id.into(), reported.into()],
            )?;
            Ok(())
        })
    }

    /// Puts the replica on hold.
    pub fn write_hold(&mut self, database: &Database, reason: &str, planned: u64) -> Answer<()> {
        let hold = identity::as_extension(|| {
            Spi::connect_mut(|client| {
                let rows = client.update(
                    "UPDATE plimsoll.replica_record
                     SET hold_since = pg_catalog.clock_timestamp(), hold_reason = $3, hold_planned = $4
                     WHERE database_id OPERATOR(pg_catalog.=) $1 AND table_id OPERATOR(pg_catalog.=) $2
                     RETURNING pg_catalog.jsonb_build_object('reason', hold_reason, 'planned', hold_planned,
                         'since', hold_since)",
                    None,
                    &[database.id.into(), self.table.table_id.into(), reason.into(), signed(planned).into()],
                )?;
                Ok(rows.first().get_one::<JsonB>()?)
            })
        })?;
        self.remembered.hold = hold.map(|hold| hold.0);
        Ok(())
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
    /// The run inserted, updated or deleted rows.
    changed: bool,
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
            let since = micros.checked_sub(POSTGRES_EPOCH).filter(|since| time(*since).is_ok());
            since.ok_or_else(|| entry.wrong("proved_at", "must be microseconds since 1970-01-01 UTC"))
        });
        let mut changed = false;
        for member in ["inserted", "updated", "deleted"] {
            changed |= entry.count(member)? > 0;
        }
        for member in ["rejected", "waiting", "held", "compared"] {
            entry.count(member)?;
        }
        let local_rows = entry.member("local_rows").map(|_| entry.count("local_rows")).transpose()?;
        Ok(News {
            relation: entry.text("relation")?.to_owned(),
            status: status.to_owned(),
            proved_at: proved_at.transpose()?,
            local_rows,
            error: entry.text_or_null("error")?.map(run::shortened),
            changed,
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
        if news.changed
            && let Ok(table) = table::resolve(&news.relation)
        {
            write_version(database, table_id, &version::of(database, &table)?)?;
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
        self.changed
            || proved
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
                 (database_id, table_id, status, proved_at, level_at, local_rows, error, run_id)
             VALUES ($1, $2, $3, LEAST($4, pg_catalog.clock_timestamp()), $5, $6, $7, $8)
             ON CONFLICT (database_id, table_id) DO UPDATE SET status = EXCLUDED.status,
                 proved_at = COALESCE(EXCLUDED.proved_at, r.proved_at),
                 level_at = COALESCE(EXCLUDED.level_at, r.level_at),
                 replacing_rows = CASE WHEN EXCLUDED.level_at IS NULL THEN r.replacing_rows ELSE 0 END,
                 local_rows = COALESCE(EXCLUDED.local_rows, r.local_rows),
                 error = EXCLUDED.error, run_id = EXCLUDED.run_id",
            &[
                database.id.into(),
                table_id.into(),
                news.status.as_str().into(),
                proved_at.into(),
                level_at.into(),
                news.local_rows.into(),
                news.error.as_deref().into(),
                lease.run_id.into(),
            ],
        )?;
        Ok(())
    })
}
