//! What is remembered of a two-way table: the number of its run, of its last batch, and what became of the acts of
//! batches not long ago.

use pgrx::spi::Spi;
use plimsoll_core::digest::Digester;
use plimsoll_core::store::{Applied, Settled};
use plimsoll_core::two_way::wire::{pack_applied, read_applied};

use crate::access::Database;
use crate::error::{Answer, Problem, state};
use crate::identity;
use crate::secret;
use crate::table::ManagedTable;

/// Batches of a run are numbered below its own number.
const RUN_BITS: u32 = 24;

/// Days for which it is remembered what became of a batch.
const BATCH_DAYS: i32 = 7;

/// Days for which it is remembered how far a run came: a backup of a local database that is older has no base any more.
const RUN_DAYS: i32 = 30;

/// What is remembered of a table.
#[derive(Debug, Clone, Copy, Default)]
pub struct Remembered {
    /// Whether a base was begun with it.
    pub begun: bool,
    /// The number of its last run.
    pub run: i64,
    /// The mark of its last run.
    pub mark: i64,
    /// The highest number of a batch that was applied.
    pub last: i64,
    /// The mark of that batch's run.
    pub last_mark: i64,
}

const COLUMNS: &str = "begun, run, mark, last_batch, last_mark";

/// Reads what is remembered, in a statement that answers the columns of [`COLUMNS`]. `mark`: its third parameter, where it has
/// one.
fn read(
    sql: &str,
    database: &Database,
    table: &ManagedTable,
    mark: Option<i64>,
) -> Answer<Option<Remembered>> {
    identity::as_extension(|| {
        Spi::connect_mut(|client| {
            let mut arguments = vec![database.id.into(), table.table_id.into()];
            arguments.extend(mark.map(Into::into));
            let mut rows = client.update(sql, Some(1), &arguments)?;
            let Some(row) = rows.next() else { return Ok(None) };
            Ok(Some(Remembered {
                begun: row.get(1)?.unwrap_or(false),
                run: row.get(2)?.unwrap_or(0),
                mark: row.get(3)?.unwrap_or(0),
                last: row.get(4)?.unwrap_or(0),
                last_mark: row.get(5)?.unwrap_or(0),
            }))
        })
    })
}

/// What is remembered.
pub fn look(database: &Database, table: &ManagedTable) -> Answer<Remembered> {
    let sql = format!(
        "SELECT {COLUMNS} FROM plimsoll.two_way_record
         WHERE database_id OPERATOR(pg_catalog.=) $1 AND table_id OPERATOR(pg_catalog.=) $2"
    );
    Ok(read(&sql, database, table, None)?.unwrap_or_default())
}

/// Begins a run: waits for a batch that is under way, and lets none of an earlier run apply any more.
pub fn begin(database: &Database, table: &ManagedTable) -> Answer<Remembered> {
    let sql = format!(
        "INSERT INTO plimsoll.two_way_record AS r (database_id, table_id, run, mark) VALUES ($1, $2, 1, $3)
         ON CONFLICT (database_id, table_id)
             DO UPDATE SET run = r.run OPERATOR(pg_catalog.+) 1, mark = excluded.mark
         RETURNING {COLUMNS}"
    );
    let [a, b, c, d, e, f, g, h, ..] = secret::random_bytes()?;
    let mark = i64::from_le_bytes([a, b, c, d, e, f, g, h]);
    read(&sql, database, table, Some(mark))?
        .ok_or_else(|| Problem::new(state::INTERNAL, "a run that did not begin"))
}

/// Remembers that a base was begun.
pub fn base_begun(database: &Database, table: &ManagedTable) -> Answer<()> {
    let sql = format!(
        "UPDATE plimsoll.two_way_record SET begun = true
         WHERE database_id OPERATOR(pg_catalog.=) $1 AND table_id OPERATOR(pg_catalog.=) $2 RETURNING {COLUMNS}"
    );
    read(&sql, database, table, None)?.map(drop).ok_or_else(|| not_begun(table))
}

/// Forgets that a base was begun with a replica that goes another way now, and closes its records.
pub fn forget(database: &Database, table_id: i32) -> Answer<()> {
    identity::as_extension(|| {
        Spi::run_with_args(
            "WITH closed AS (
                 UPDATE plimsoll.conflict_record c
                 SET closed_at = pg_catalog.clock_timestamp(), outcome = 'replaced'
                 WHERE c.database_id OPERATOR(pg_catalog.=) $1 AND c.table_id OPERATOR(pg_catalog.=) $2
                     AND c.closed_at IS NULL)
             UPDATE plimsoll.two_way_record r SET begun = false
             WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2 AND r.begun",
            &[database.id.into(), table_id.into()],
        )?;
        Ok(())
    })
}

fn not_begun(table: &ManagedTable) -> Problem {
    Problem::new(state::BAD_ARGUMENT, format!("no run of {} was begun", table.name))
        .hint("Call plimsoll.two_way_begin first.")
}

/// Whether the batch with this number was applied, in a run with this mark. Acts of parts that never came are not done.
pub fn settled(database: &Database, table: &ManagedTable, number: i64, mark: i64) -> Answer<Settled> {
    identity::as_extension(|| {
        Spi::connect_mut(|client| {
            let highest_of_run = number | ((1 << RUN_BITS) - 1);
            let known = client.update(
                "SELECT FROM (
                     SELECT r.last_batch, r.last_mark AS mark FROM plimsoll.two_way_record r
                     WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2
                     UNION ALL
                     SELECT r.last_batch, r.mark FROM plimsoll.two_way_run r
                     WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2
                         AND r.last_batch OPERATOR(pg_catalog.>=) $3 AND r.last_batch OPERATOR(pg_catalog.<=) $4) r
                 WHERE r.last_batch OPERATOR(pg_catalog.>=) $3 AND r.last_batch OPERATOR(pg_catalog.<=) $4
                     AND r.mark OPERATOR(pg_catalog.=) $5",
                Some(1),
                &[
                    database.id.into(),
                    table.table_id.into(),
                    number.into(),
                    highest_of_run.into(),
                    mark.into(),
                ],
            )?;
            if known.is_empty() {
                return Ok(Settled::Never);
            }
            let rows = client.update(
                "SELECT b.first_act, b.all_acts, b.applied FROM plimsoll.two_way_batch b
                 WHERE b.database_id OPERATOR(pg_catalog.=) $1 AND b.table_id OPERATOR(pg_catalog.=) $2
                     AND b.batch_number OPERATOR(pg_catalog.=) $3",
                None,
                &[database.id.into(), table.table_id.into(), number.into()],
            )?;
            let mut done: Vec<bool> = Vec::new();
            let found = !rows.is_empty();
            for row in rows {
                let first = row.get::<i32>(1)?.unwrap_or(0) as usize;
                let applied = read_applied(&row.get::<Vec<u8>>(3)?.unwrap_or_default())?;
                done.resize(done.len().max(row.get::<i32>(2)?.unwrap_or(0) as usize), false);
                for (place, applied) in done.iter_mut().skip(first).zip(applied) {
                    *place = applied == Applied::Done;
                }
            }
            Ok(if found { Settled::Applied(done) } else { Settled::Forgotten })
        })
    })
}

/// A batch, or the part of one that fits into a call.
pub struct Part {
    number: i64,
    first: i32,
    all: i32,
    acts: usize,
    /// Of the bytes that were sent, made with the database's own key.
    digest: Vec<u8>,
    name: String,
}

impl Part {
    /// The part of these acts, given with how many they are; where nothing is said, the batch as a whole.
    ///
    /// # Errors
    /// `BAD_ARGUMENT` where the acts are not among all of them.
    pub fn new(
        database: &Database,
        table: &ManagedTable,
        number: i64,
        first: Option<i32>,
        all: Option<i32>,
        (acts, bytes): (usize, &[u8]),
    ) -> Answer<Part> {
        let first = first.unwrap_or(0);
        let end = i32::try_from(acts).ok().and_then(|acts| first.checked_add(acts));
        let all = all.or(end).unwrap_or(i32::MAX);
        let most = crate::setting::MOST_ACTS;
        if first < 0 || end.is_none_or(|end| end > all) || all > most {
            let message = format!("{acts} acts from {first} on, of {all}; a batch has {most} at most");
            return Err(Problem::new(state::BAD_ARGUMENT, message));
        }
        let digester = Digester::new(database.fingerprint_key.clone());
        let digest = digester.digest_of_form(bytes).0.to_vec();
        Ok(Part { number, first, all, acts, digest, name: table.name.clone() })
    }

    /// Takes the table's turn until the transaction ends; what became of the acts, where they were applied before.
    ///
    /// # Errors
    /// `BAD_ARGUMENT` where the number is one of an earlier run or not the next one, or other acts were applied under it.
    pub fn enter(&self, database: &Database, table: &ManagedTable) -> Answer<Option<Vec<u8>>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM plimsoll.two_way_record
             WHERE database_id OPERATOR(pg_catalog.=) $1 AND table_id OPERATOR(pg_catalog.=) $2 FOR UPDATE"
        );
        let remembered = read(&sql, database, table, None)?.ok_or_else(|| not_begun(table))?;
        if let Some(known) = self.known(database, table)? {
            return Ok(Some(known));
        }
        let bad = |message: String| {
            Problem::new(state::BAD_ARGUMENT, message)
                .hint("Begin a new run of the table with plimsoll.two_way_begin.")
        };
        let number = self.number;
        if number >> RUN_BITS != remembered.run {
            return Err(bad(format!(
                "batch {number} of {} is of another run than the last one, {}: it is never applied",
                self.name, remembered.run
            )));
        }
        // A client numbers them one by one: where some are missing, they were lost after it had been told of them.
        let next = remembered.last.max(remembered.run << RUN_BITS) + 1;
        if number > next {
            let message = format!("batch {number} of {} comes before batch {next}", self.name);
            return Err(bad(message));
        }
        if number < remembered.last {
            let message = format!("batch {number} of {} comes after batch {}", self.name, remembered.last);
            return Err(bad(message));
        }
        Ok(None)
    }

    fn known(&self, database: &Database, table: &ManagedTable) -> Answer<Option<Vec<u8>>> {
        identity::as_extension(|| {
            Spi::connect_mut(|client| {
                let mut rows = client.update(
                    "SELECT b.digest OPERATOR(pg_catalog.=) $5 AND b.all_acts OPERATOR(pg_catalog.=) $6, b.applied
                     FROM plimsoll.two_way_batch b
                     WHERE b.database_id OPERATOR(pg_catalog.=) $1 AND b.table_id OPERATOR(pg_catalog.=) $2
                         AND b.batch_number OPERATOR(pg_catalog.=) $3 AND b.first_act OPERATOR(pg_catalog.=) $4",
                    Some(1),
                    &[
                        database.id.into(),
                        table.table_id.into(),
                        self.number.into(),
                        self.first.into(),
                        self.digest.clone().into(),
                        self.all.into(),
                    ],
                )?;
                let Some(row) = rows.next() else { return Ok(None) };
                if row.get(1)? == Some(true) {
                    return Ok(row.get(2)?);
                }
                let message = format!("batch {} of {} was applied with other acts", self.number, self.name);
                Err(Problem::new(state::BAD_ARGUMENT, message)
                    .hint("Repeat a batch with the same bytes only; give each other one a higher number."))
            })
        })
    }

    /// Remembers what became of the acts, in the transaction that carried them out; the answer.
    pub fn remember(
        &self,
        database: &Database,
        table: &ManagedTable,
        applied: &[Applied],
    ) -> Answer<Vec<u8>> {
        if applied.len() != self.acts {
            return Err(Problem::new(state::INTERNAL, "acts without an outcome"));
        }
        let answer = pack_applied(applied);
        let first_of_run = self.number >> RUN_BITS << RUN_BITS;
        identity::as_extension(|| {
            Spi::run_with_args(
                "WITH remembered AS (
                     INSERT INTO plimsoll.two_way_batch
                         (database_id, table_id, batch_number, first_act, all_acts, digest, applied)
                     VALUES ($1, $2, $3, $4, $5, $6, $7)),
                 followed AS (
                     INSERT INTO plimsoll.two_way_run AS p (database_id, table_id, last_batch, mark)
                     SELECT r.database_id, r.table_id, r.last_batch, r.last_mark FROM plimsoll.two_way_record r
                     WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2
                         AND r.last_batch OPERATOR(pg_catalog.<) $8
                         AND r.last_batch OPERATOR(pg_catalog.>) 0
                     ON CONFLICT (database_id, table_id, last_batch)
                         DO UPDATE SET mark = excluded.mark, followed_at = excluded.followed_at)
                 UPDATE plimsoll.two_way_record SET last_batch = $3, last_mark = mark
                 WHERE database_id OPERATOR(pg_catalog.=) $1 AND table_id OPERATOR(pg_catalog.=) $2",
                &[
                    database.id.into(),
                    table.table_id.into(),
                    self.number.into(),
                    self.first.into(),
                    self.all.into(),
                    self.digest.clone().into(),
                    answer.clone().into(),
                    first_of_run.into(),
                ],
            )?;
            forget_oldest(database, table)
        })?;
        Ok(answer)
    }
}

/// Forgets what became of the oldest batches of a table, and how far its oldest runs came: with each batch two of either, so
/// that no more are kept than came in that time, and none are looked through.
fn forget_oldest(database: &Database, table: &ManagedTable) -> Answer<()> {
    Spi::run_with_args(
        "WITH runs AS (
             DELETE FROM plimsoll.two_way_run r USING (
                 SELECT c.last_batch, c.followed_at FROM plimsoll.two_way_run c
                 WHERE c.database_id OPERATOR(pg_catalog.=) $1 AND c.table_id OPERATOR(pg_catalog.=) $2
                 ORDER BY c.last_batch LIMIT 2) o
             WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2
                 AND r.last_batch OPERATOR(pg_catalog.=) o.last_batch
                 AND o.followed_at OPERATOR(pg_catalog.<)
                     (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(days => $4)))
         DELETE FROM plimsoll.two_way_batch b USING (
                 SELECT c.batch_number, c.first_act, c.applied_at FROM plimsoll.two_way_batch c
                 WHERE c.database_id OPERATOR(pg_catalog.=) $1 AND c.table_id OPERATOR(pg_catalog.=) $2
                 ORDER BY c.batch_number, c.first_act LIMIT 2) o
             WHERE b.database_id OPERATOR(pg_catalog.=) $1 AND b.table_id OPERATOR(pg_catalog.=) $2
                 AND b.batch_number OPERATOR(pg_catalog.=) o.batch_number
                 AND b.first_act OPERATOR(pg_catalog.=) o.first_act
                 AND o.applied_at OPERATOR(pg_catalog.<)
                     (pg_catalog.now() OPERATOR(pg_catalog.-) pg_catalog.make_interval(days => $3))",
        &[database.id.into(), table.table_id.into(), BATCH_DAYS.into(), RUN_DAYS.into()],
    )?;
    Ok(())
}
