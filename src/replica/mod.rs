//! What a run finds and leaves of each replica: versions and holds when it begins, news when it ends.

mod news;

pub use news::{Moved, at_end, news};

use std::collections::BTreeMap;

use pgrx::datum::TimestampWithTimeZone;
use pgrx::spi::Spi;
use pgrx::{JsonB, Uuid};
use plimsoll_core::direction::Direction;
use serde_json::{Value, json};

use crate::access::Database;
use crate::datum::with_latest_snapshot;
use crate::direction::Declared;
use crate::error::{Answer, Problem, state};
use crate::manifest::hex;
use crate::table::ManagedTable;
use crate::version::TableVersion;
use crate::{direction, hold, identity, kept, table, two_way, version};

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
    /// The name of the direction that an agent declared last.
    direction: Option<String>,
    /// The local database that it is kept level with, where that is written to.
    pub side_id: Option<Uuid>,
    undecided: i64,
    held_local: i64,
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
pub fn at_begin(database: &Database, local: &LocalVersions, declared: &Declared) -> Answer<Value> {
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
    let refusals = direction::judge(database, declared, &mut replicas)?;
    hold::check_fall(database, &mut replicas, local)?;
    let said = replicas.iter().zip(ranks).zip(&manifests).zip(&refusals);
    let answers = said.map(|(((replica, rank), (_, manifest)), refusal)| {
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
            "directions": replica.table.allowed.words(),
            "refused": refusal.as_ref().map(Problem::json),
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
                        r.status, r.proved_at, r.local_rows, r.error, r.direction, r.side_id, r.undecided, r.held_local
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
                    direction: row.get(13)?,
                    side_id: row.get(14)?,
                    undecided: row.get(15)?.unwrap_or(0),
                    held_local: row.get(16)?.unwrap_or(0),
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
    /// Remembers which way the replica goes. Where it went another way, what was found then holds no more: the proof, the
    /// local maximum, rows that could not be stored, conflicts that nobody decided.
    pub fn turn(&mut self, database: &Database, direction: Direction) -> Answer<()> {
        let known = self.remembered.direction.replace(direction.name().to_owned());
        if known.as_deref() == Some(direction.name()) {
            return Ok(());
        }
        let changed = known.is_some_and(|known| known != direction.name());
        if changed {
            let Remembered { reported_max, rejected, proved_at, status, undecided, held_local, .. } =
                &mut self.remembered;
            (*reported_max, *rejected, *proved_at, *undecided, *held_local) = (None, 0, None, 0, 0);
            *status = "unknown".to_owned();
            two_way::forget(database, self.table.table_id)?;
        }
        identity::as_extension(|| {
            Ok(Spi::run_with_args(
                "WITH cleared AS (
                     DELETE FROM plimsoll.rejected_record j
                     WHERE $4 AND j.database_id OPERATOR(pg_catalog.=) $1 AND j.table_id OPERATOR(pg_catalog.=) $2)
                 UPDATE plimsoll.replica_record r
                 SET direction = $3, reported_max = CASE WHEN $4 THEN NULL ELSE r.reported_max END,
                     status = CASE WHEN $4 THEN 'unknown' ELSE r.status END,
                     proved_at = CASE WHEN $4 THEN NULL ELSE r.proved_at END,
                     undecided = CASE WHEN $4 THEN 0 ELSE r.undecided END,
                     held_local = CASE WHEN $4 THEN 0 ELSE r.held_local END,
                     held_local_since = CASE WHEN $4 THEN NULL ELSE r.held_local_since END
                 WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2",
                &[database.id.into(), self.table.table_id.into(), direction.name().into(), changed.into()],
            )?)
        })
    }

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
