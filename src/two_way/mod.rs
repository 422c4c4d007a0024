//! The remote side of two-way tables: batches of changes, each done only where the replica has what it was decided upon;
//! what is remembered of them; and what is recorded for a person to decide.
//!
//! ```text
//! two_way_begin    a run of the table begins, with a number above all before; what is remembered
//! two_way_settle   whether a batch of an earlier run was applied
//! two_way_fetch    rows as they are now
//! two_way_apply    one batch, or a part of it that fits into a call, in one transaction with its number
//! two_way_close    both sides agree on keys that were recorded
//! ```
//! Batches are numbered `run << 24 | n`. A batch is applied under the lock of the replica's row in `two_way_record`, which
//! holds the number of the run: once a later run began, no call of an earlier one can apply anything, however long it was
//! under way. With each number goes a mark, made at random for its run: the client remembers both, and finds out by them whether
//! this is the server that it was level with, or one that was restored and has counted up to the same number again.
//!
//! | file | what lives there |
//! |---|---|
//! | `memory` | runs, numbers of batches, what became of their acts |
//! | `apply` | carries the acts of a batch out |
//! | `records` | what is recorded, closed and chosen |
//! | `shown` | rows as people read them |
//! | `resolve` | `resolve_conflict` |

mod apply;
mod memory;
mod records;
mod resolve;
mod shown;

pub use memory::forget;
pub use records::purge as purge_records;

use pgrx::Uuid;
use pgrx::prelude::*;
use plimsoll_core::direction::Direction;
use plimsoll_core::store::Settled;
use plimsoll_core::two_way::wire::{pack_choices, read_keys};
use plimsoll_core::value::datetime::UNIX_EPOCH;

use crate::access::Database;
use crate::argument::{count, required};
use crate::error::{Answer, OrRaise};
use crate::table::{self, ManagedTable, check_fits_two_way};
use crate::{access, direction, lease, setting, version};

use memory::Part;

/// The database, once its use is authorised, and a table whose rows both sides may change.
fn open(database_id: Option<Uuid>, relation: Option<&str>) -> Answer<(Database, ManagedTable)> {
    let (database, table) = table::open(database_id, relation)?;
    check_fits_two_way(&table)?;
    direction::check_allowed(&database, &table.registered(), Direction::TwoWay)?;
    Ok((database, table))
}

/// The same within a run, which must be under way: somebody else's run tells nothing of tables.
fn open_in_run(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    run_id: Option<i64>,
) -> Answer<(Database, ManagedTable)> {
    let database = access::authorise(required(database_id, "database_id")?)?;
    stay(run_id, &database)?;
    open(database_id, relation)
}

/// As an upload does, before anything is written. See [`direction::renew_to_write`].
fn renew(run_id: Option<i64>, database: &Database, table: &ManagedTable) -> Answer<Option<i64>> {
    direction::renew_to_write(run_id, database, &table.registered(), Some(Direction::TwoWay))
}

/// Makes sure that the run is under way, and keeps it so until the transaction ends. Nothing is recorded of a run that
/// goes on to find nothing.
fn stay(run_id: Option<i64>, database: &Database) -> Answer<()> {
    let run_id = required(run_id, "run_id")?;
    access::keep_authorised(database)?;
    let lease = lease::lock(database)?;
    match lease.as_ref().is_some_and(|lease| lease.run_id == run_id && lease.open) {
        true => Ok(()),
        false => Err(lease::over(run_id, lease.as_ref())),
    }
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "the columns of the answer, as pgrx reads them")]
fn two_way_begin(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    run_id: Option<i64>,
    dry_run: Option<bool>,
) -> TableIterator<
    'static,
    (
        name!(row_count, i64),
        name!(fingerprint, Option<Vec<u8>>),
        name!(begun, bool),
        name!(run, i64),
        name!(mark, i64),
        name!(last_batch, i64),
        name!(last_mark, i64),
        name!(choices, Vec<u8>),
        name!(most_bytes, i64),
        name!(most_acts, i64),
        name!(clock, i64),
    ),
> {
    let answer = || {
        let (database, table) = open_in_run(database_id, relation, run_id)?;
        let remembered = match required(dry_run, "dry_run")? {
            true => memory::look(&database, &table)?,
            false => memory::begin(&database, &table)?,
        };
        let version = version::of(&database, &table)?;
        let choices = pack_choices(&records::choices(&database, &table)?);
        let count = i64::try_from(version.row_count).unwrap_or(i64::MAX);
        let limits = [setting::max_upload_bytes(&database), setting::max_upload_rows(&database)];
        let [most_bytes, most_acts] = limits.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
        let sum = version.sum.map(|sum| sum.to_vec());
        let memory::Remembered { begun, run, mark, last, last_mark } = remembered;
        Ok((count, sum, begun, run, mark, last, last_mark, choices, most_bytes, most_acts, clock()))
    };
    TableIterator::once(answer().or_raise())
}

/// The server's clock, in microseconds since the Unix epoch.
fn clock() -> i64 {
    crate::datum::now().saturating_add(UNIX_EPOCH)
}

#[pg_extern(sql = false)]
fn two_way_base(database_id: Option<Uuid>, relation: Option<&str>, run_id: Option<i64>) {
    let answer = || {
        let (database, table) = open_in_run(database_id, relation, run_id)?;
        renew(run_id, &database, &table)?;
        memory::base_begun(&database, &table)?;
        records::close_all(&database, &table)
    };
    answer().or_raise();
}

#[pg_extern(sql = false)]
fn two_way_settle(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    run_id: Option<i64>,
    batch_number: Option<i64>,
    mark: Option<i64>,
) -> TableIterator<'static, (name!(outcome, &'static str), name!(done, Option<Vec<u8>>))> {
    let answer = || {
        let (database, table) = open_in_run(database_id, relation, run_id)?;
        let number = count(batch_number, "batch_number")?;
        Ok(match memory::settled(&database, &table, number, required(mark, "mark")?)? {
            Settled::Applied(done) => ("applied", Some(done.into_iter().map(u8::from).collect())),
            Settled::Never => ("never", None),
            Settled::Forgotten => ("forgotten", None),
        })
    };
    TableIterator::once(answer().or_raise())
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn two_way_apply(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    run_id: Option<i64>,
    batch_number: Option<i64>,
    acts: Option<&[u8]>,
    planned: Option<i64>,
    first_act: Option<i32>,
    all_acts: Option<i32>,
    schema_stamp: Option<i64>,
) -> Vec<u8> {
    let answer = || {
        let (database, mut table) = open_in_run(database_id, relation, run_id)?;
        let bytes = setting::check_bytes(&database, required(acts, "acts")?, "acts")?;
        let acts = plimsoll_core::two_way::wire::read_acts(bytes)?;
        setting::check_upload_rows(&database, acts.left())?;
        crate::upload::check_stamp(&table, schema_stamp)?;
        let run_id = renew(run_id, &database, &table)?;
        let number = count(batch_number, "batch_number")?;
        let planned = count(planned, "planned")?.unsigned_abs();
        let part = Part::new(&database, &table, number, first_act, all_acts, (acts.left(), bytes))?;
        if let Some(known) = part.enter(&database, &table)? {
            return Ok(known);
        }
        let acts: Vec<_> = acts.collect::<plimsoll_core::Result<_>>()?;
        let applied = apply::apply(&database, &mut table, &acts, planned, run_id)?;
        part.remember(&database, &table, &applied)
    };
    answer().or_raise()
}

#[pg_extern(sql = false)]
fn two_way_close(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    run_id: Option<i64>,
    keys: Option<&[u8]>,
) -> i64 {
    let answer = || {
        let (database, table) = open_in_run(database_id, relation, run_id)?;
        let keys = read_keys(setting::check_bytes(&database, required(keys, "keys")?, "keys")?)?;
        renew(run_id, &database, &table)?;
        records::close(&database, &table, &keys)
    };
    answer().or_raise()
}
