//! The remote side of two-way tables, over plain SQL: each call one transaction.
//!
//! | call | function |
//! |---|---|
//! | `remembered` | `plimsoll.two_way_begin` |
//! | `base_begun` | `plimsoll.two_way_base` |
//! | `settle` | `plimsoll.two_way_settle` |
//! | `fetch` | `plimsoll.two_way_fetch` |
//! | `apply` | `plimsoll.two_way_apply`: in parts where the server's limits ask for it, all of one number |
//! | `close` | `plimsoll.two_way_close` |

use std::collections::HashMap;
use std::time::Instant;

use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::manifest::Item;
use plimsoll_core::row::{Fields, key_of, position_in};
use plimsoll_core::schema::{TableSchema, position_of};
use plimsoll_core::store::{
    Applied, BatchId, Fetched, MemoryKey, Outcome, Reason, RemoteAct, RemoteMemory, RemoteRow, RemoteSide,
    Settled, TableId, TableVersion, Wanted,
};
use plimsoll_core::two_way::wire::{
    Act, Found, Noted, pack_acts, pack_keys, pack_wanted, packed_len, read_applied, read_choices,
    read_fetched,
};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::agent::malformed;
use super::session::{Parameter, Server, cell};
use super::summaries::Call;
use super::target::{Replica, RunTarget};
use crate::agent::now;
use crate::failure::{run as no_run, table as refused};
use crate::fault::fault_point;

/// SQLSTATE of what exceeds a limit of the server's.
const TOO_LARGE: &str = "54000";

/// What is shown of a key that there is no room for.
const LONG_KEY: &str = "a key that is too long to be shown";

/// Bytes in front of a batch's acts, at most.
const MOST_IN_FRONT: usize = 16;

/// What the server takes in one call.
#[derive(Debug, Clone, Copy)]
struct Limits {
    bytes: usize,
    acts: usize,
}

impl Limits {
    /// Bytes that the acts of one call may take.
    fn room(&self) -> usize {
        self.bytes.saturating_sub(MOST_IN_FRONT)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes: 1 << 16, acts: 1_000 }
    }
}

/// By how much the local clock is ahead of the server's.
#[derive(Debug, Clone, Copy)]
struct Skew {
    /// Microseconds; negative: it is behind.
    micros: i64,
    /// By how much that may be wrong at most: half the round trip.
    within: i64,
}

/// The two-way tables of one run.
#[derive(Debug)]
pub struct TwoWayRemote<'s> {
    target: RunTarget<'s>,
    run_id: i64,
    replicas: Vec<Replica>,
    limits: HashMap<TableId, Limits>,
    base_rows: HashMap<MemoryKey, Vec<u8>>,
    skew: Option<Skew>,
}

impl<'s> TwoWayRemote<'s> {
    /// The replicas of the run that `run_id` names.
    pub fn new(server: &'s mut Server, run_id: i64, replicas: Vec<Replica>) -> Self {
        TwoWayRemote {
            target: RunTarget::new(server, run_id, replicas.clone()),
            run_id,
            replicas,
            limits: HashMap::new(),
            base_rows: HashMap::new(),
            skew: None,
        }
    }

    /// Rows that both sides last agreed on, in wire form: they go with the records of these keys that the next batches
    /// bring. In place of what was set before.
    pub fn base_rows(&mut self, rows: HashMap<MemoryKey, Vec<u8>>) {
        self.base_rows = rows;
    }

    /// By how many microseconds the local clock is ahead of the server's, as it was measured when the run of a table began;
    /// `None` before that. It is wrong by half a round trip at most.
    pub fn skew(&self) -> Option<i64> {
        self.skew.map(|skew| skew.micros)
    }

    fn schema(&self, table: TableId) -> Outcome<&TableSchema> {
        let replica = self.replicas.get(table).ok_or_else(|| refused("a table outside the run"))?;
        replica
            .schema
            .as_ref()
            .ok_or_else(|| refused(format!("the columns of {} are not known", replica.relation)))
    }

    fn call_with_run(&mut self, table: TableId, sql: &str, more: Vec<Parameter<'_>>) -> Outcome<Vec<Row>> {
        let run_id = self.run_id;
        let mut parameters: Vec<Parameter<'_>> = vec![(&run_id, Type::INT8)];
        parameters.extend(more);
        self.call(table, sql, parameters)
    }

    /// Keeps the measurement that can be wrong by least.
    fn measure(&mut self, sent: i64, received: i64, server: i64) {
        let within = received.saturating_sub(sent) / 2;
        let micros = sent.saturating_add(within).saturating_sub(server);
        if self.skew.is_none_or(|skew| within < skew.within) {
            self.skew = Some(Skew { micros, within });
        }
    }

    /// Has acts carried out with one call.
    fn apply_part(
        &mut self,
        table: TableId,
        number: i64,
        acts: &[Act<'_>],
        (first, all): (usize, usize),
        planned: i64,
    ) -> Outcome<Vec<Applied>> {
        let bytes = pack_acts(acts.iter().copied());
        let small = |number: usize| i32::try_from(number).map_err(|_| refused("a batch of too many acts"));
        let (first, all) = (small(first)?, small(all)?);
        let stamp = self.schema(table)?.stamp();
        let sql = "SELECT plimsoll.two_way_apply($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        fault_point("before-apply");
        let rows = self.call_with_run(
            table,
            sql,
            vec![
                (&number, Type::INT8),
                (&bytes, Type::BYTEA),
                (&planned, Type::INT8),
                (&first, Type::INT4),
                (&all, Type::INT4),
                (&stamp, Type::INT8),
            ],
        )?;
        fault_point("after-apply");
        let applied = cell::<&[u8]>(rows.first(), 0)?;
        let applied = read_applied(applied).map_err(|error| malformed("what became of a batch", error))?;
        match applied.len() == acts.len() {
            true => Ok(applied),
            false => Err(malformed("what became of a batch", "it is of other acts")),
        }
    }
}

impl Call for TwoWayRemote<'_> {
    fn call(&mut self, table: TableId, sql: &str, more: Vec<Parameter<'_>>) -> Outcome<Vec<Row>> {
        self.target.call(table, sql, more)
    }
}

fn signed(number: u64) -> Outcome<i64> {
    i64::try_from(number).map_err(|_| refused("a number of a batch beyond 63 bits"))
}

impl RemoteSide for TwoWayRemote<'_> {
    fn remembered(&mut self, table: TableId, dry_run: bool) -> Outcome<RemoteMemory> {
        let sql =
            "SELECT row_count, fingerprint, begun, run, mark, last_batch, last_mark, choices, most_bytes, most_acts, clock
                   FROM plimsoll.two_way_begin($1, $2, $3, $4)";
        fault_point("before-two-way-begin");
        let (sent, since) = (now(), Instant::now());
        let rows = self.call_with_run(table, sql, vec![(&dry_run, Type::BOOL)])?;
        let micros = i64::try_from(since.elapsed().as_micros()).unwrap_or(i64::MAX);
        fault_point("after-two-way-begin");
        let row = rows.first();
        let number = |place| cell::<i64>(row, place).map(i64::unsigned_abs);
        let room = |place| number(place).map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        self.limits.insert(table, Limits { bytes: room(8)?, acts: room(9)? });
        let clock = cell(row, 10)?;
        self.measure(sent, sent.saturating_add(micros), clock);
        let sum: Option<&[u8]> = cell(row, 1)?;
        let choices = read_choices(cell(row, 7)?).map_err(|error| malformed("what was decided", error))?;
        Ok(RemoteMemory {
            version: TableVersion {
                row_count: Some(number(0)?),
                sum: sum.and_then(|sum| sum.try_into().ok()),
                ..TableVersion::default()
            },
            begun: cell(row, 2)?,
            run: number(3)?,
            mark: cell(row, 4)?,
            last: BatchId { number: number(5)?, mark: cell(row, 6)? },
            clock: Some(clock),
            choices,
        })
    }

    fn base_begun(&mut self, table: TableId) -> Outcome<()> {
        self.call_with_run(table, "SELECT plimsoll.two_way_base($1, $2, $3)", Vec::new()).map(drop)
    }

    fn settle(&mut self, table: TableId, batch: BatchId) -> Outcome<Settled> {
        let (number, mark) = (signed(batch.number)?, batch.mark);
        let sql = "SELECT outcome, done FROM plimsoll.two_way_settle($1, $2, $3, $4, $5)";
        let rows = self.call_with_run(table, sql, vec![(&number, Type::INT8), (&mark, Type::INT8)])?;
        let done: Option<&[u8]> = cell(rows.first(), 1)?;
        match (cell::<&str>(rows.first(), 0)?, done) {
            ("applied", Some(done)) => Ok(Settled::Applied(done.iter().map(|done| *done == 1).collect())),
            ("never", _) => Ok(Settled::Never),
            ("forgotten", _) => Ok(Settled::Forgotten),
            (outcome, _) => Err(malformed("what became of a batch", format!("it is \"{outcome}\""))),
        }
    }

    fn fetch(&mut self, table: TableId, wanted: &[Wanted], bytes: usize) -> Outcome<Fetched> {
        // They are looked for by ascending position, as far as they come so.
        let ascending = wanted.windows(2).take_while(|pair| pair[0].item.position <= pair[1].item.position);
        let wanted = &wanted[..wanted.len().min(ascending.count() + 1)];
        let limit = i32::try_from(bytes).unwrap_or(i32::MAX);
        let packed = pack_wanted(wanted);
        let sql = "SELECT plimsoll.two_way_fetch($1, $2, $3, $4)";
        let rows = self.call(table, sql, vec![(&packed, Type::BYTEA), (&limit, Type::INT4)])?;
        let (looked_for, found) =
            read_fetched(cell(rows.first(), 0)?).map_err(|error| malformed("rows", error))?;
        let key = self.target.fingerprint_key().and_then(FingerprintKey::from_slice);
        let key = key.ok_or_else(|| no_run("the server answered no fingerprint key"))?;
        let (mut digester, schema) = (Digester::new(key), self.schema(table)?);
        let rows = found.into_iter().map(|found| match found {
            Found::Key { item, revision, key } => Ok(RemoteRow { item, key, revision, row: None }),
            Found::Row(row) => {
                let item = Item { position: position_in(&row, schema)?, digest: digester.digest(&row)? };
                let (key, revision) = (key_of(&row, schema)?, revision_of(&row, schema)?);
                Ok(RemoteRow { item, key, revision, row: Some(row) })
            }
        });
        let rows: plimsoll_core::Result<Vec<RemoteRow>> = rows.collect();
        Ok(Fetched { rows: rows.map_err(|error| malformed("a row of the server", error))?, looked_for })
    }

    fn apply(
        &mut self,
        table: TableId,
        number: u64,
        acts: &[RemoteAct],
        planned: u64,
    ) -> Outcome<Vec<Applied>> {
        let number = signed(number)?;
        let limits = self.limits.get(&table).copied().unwrap_or_default();
        let base_rows = std::mem::take(&mut self.base_rows);
        let base_row = |act: &RemoteAct| match act {
            RemoteAct::Record(record) => base_rows.get(&record.key).map(Vec::as_slice),
            RemoteAct::Change(_) => None,
        };
        let room = limits.room();
        let packed: Vec<Act<'_>> =
            acts.iter().map(|act| fitting(Act::of(act, base_row(act)), room)).collect();
        let outcome = self.apply_all(table, number, &packed, limits, planned);
        // The same batch may be asked for again.
        self.base_rows = base_rows;
        outcome
    }

    fn close(&mut self, table: TableId, keys: &[MemoryKey]) -> Outcome<()> {
        let limits = self.limits.get(&table).copied().unwrap_or_default();
        for keys in keys.chunks((limits.bytes / 16).saturating_sub(1).max(1)) {
            let keys = pack_keys(keys);
            let sql = "SELECT plimsoll.two_way_close($1, $2, $3, $4)";
            self.call_with_run(table, sql, vec![(&keys, Type::BYTEA)])?;
        }
        Ok(())
    }
}

impl TwoWayRemote<'_> {
    /// Has a batch carried out, in parts that the server takes. Of one number the same parts are made each time.
    fn apply_all(
        &mut self,
        table: TableId,
        number: i64,
        acts: &[Act<'_>],
        limits: Limits,
        planned: u64,
    ) -> Outcome<Vec<Applied>> {
        let mut planned = i64::try_from(planned).unwrap_or(i64::MAX);
        let mut applied = Vec::with_capacity(acts.len());
        let mut is_known = false;
        for part in parts(acts, limits) {
            match part {
                Part::Acts { first, count } => {
                    is_known = true;
                    let acts_of = &acts[first..first + count];
                    applied.extend(self.apply_part(table, number, acts_of, (first, acts.len()), planned)?);
                    let deletes = acts_of.iter().filter(|act| matches!(act, Act::Delete { .. })).count();
                    planned = planned.saturating_sub(i64::try_from(deletes).unwrap_or(i64::MAX)).max(0);
                }
                Part::TooLarge { bytes } => applied.push(too_large(bytes, limits)),
            }
        }
        if !is_known {
            // Its number is remembered there all the same, so that the local side is never ahead.
            self.apply_part(table, number, &[], (0, acts.len()), planned)?;
        }
        Ok(applied)
    }
}

/// An act with as much of it as there is room for. Of a record the rows that it shows may be missing, that of the base
/// first, and a key that no replica can have.
fn fitting<'a>(act: Act<'a>, room: usize) -> Act<'a> {
    let Act::Record(whole) = act else { return act };
    let without_base = Noted { base_row: None, ..whole };
    let without_rows = Noted { local_row: None, ..without_base };
    let mut least = Noted { encoded_key: None, ..without_rows };
    if let Some(reason) = least.reason.as_mut().filter(|reason| reason.key_text.is_empty()) {
        reason.key_text = LONG_KEY;
    }
    let records = [whole, without_base, without_rows].map(Act::Record);
    records.into_iter().find(|act| packed_len(act) <= room).unwrap_or(Act::Record(least))
}

/// Acts that are sent together, or one that is too large to be sent.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Acts { first: usize, count: usize },
    TooLarge { bytes: usize },
}

fn parts(acts: &[Act<'_>], limits: Limits) -> Vec<Part> {
    let room = limits.room();
    let (mut parts, mut left) = (Vec::new(), 0);
    for (place, act) in acts.iter().enumerate() {
        let bytes = packed_len(act);
        if bytes > room {
            parts.push(Part::TooLarge { bytes });
            continue;
        }
        match parts.last_mut() {
            Some(Part::Acts { count, .. }) if bytes <= left && *count < limits.acts => {
                *count += 1;
                left -= bytes;
            }
            _ => {
                parts.push(Part::Acts { first: place, count: 1 });
                left = room - bytes;
            }
        }
    }
    parts
}

fn too_large(bytes: usize, limits: Limits) -> Applied {
    let message = format!("it takes {bytes} bytes; the server takes {} in one call", limits.bytes);
    let reason = Reason { sqlstate: TOO_LARGE.to_owned(), message, ..Reason::default() };
    Applied::Refused { waits: false, reason: Box::new(reason) }
}

/// The version of a row as a number.
fn revision_of(row: &[u8], schema: &TableSchema) -> plimsoll_core::Result<i64> {
    let version = schema.version().map(|column| column.number);
    for field in Fields::new(row) {
        let field = field?;
        if Some(field.number) == version {
            return Ok(position_of(&field.value).unwrap_or_default());
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use plimsoll_core::store::{OpenKind, Seen};
    use plimsoll_core::two_way::wire::Told;

    use super::*;

    fn upserts(lengths: &[usize]) -> Vec<Vec<u8>> {
        lengths.iter().map(|length| vec![0; *length]).collect()
    }

    #[test]
    fn batches_are_cut_by_bytes_and_by_number() {
        let rows = upserts(&[10, 10, 200, 10, 10, 10]);
        let acts: Vec<Act<'_>> = rows.iter().map(|row| Act::Upsert { row, expected: None }).collect();
        let limits = Limits { bytes: MOST_IN_FRONT + 40, acts: 100 };
        let expected = [
            Part::Acts { first: 0, count: 2 },
            Part::TooLarge { bytes: 204 },
            Part::Acts { first: 3, count: 3 },
        ];
        assert_eq!(parts(&acts, limits), expected);
        let two = Limits { bytes: 1 << 20, acts: 2 };
        let expected = [0, 2, 4].map(|first| Part::Acts { first, count: 2 });
        assert_eq!(parts(&acts, two), expected);
        assert_eq!(parts(&[], two), []);
    }

    #[test]
    fn a_record_goes_with_as_much_as_there_is_room_for() {
        let (key, row, base) = (vec![1; 10], vec![2; 100], vec![3; 100]);
        let whole = Noted {
            key: MemoryKey { position: 1, tail: [1; 8] },
            encoded_key: Some(&key),
            kind: OpenKind::Conflict,
            local: Seen::Row([2; 16]),
            remote: Seen::Absent,
            local_row: Some(&row),
            base: Some([3; 16]),
            base_row: Some(&base),
            reason: Some(Told { key_text: "", sqlstate: TOO_LARGE, column: None, message: "" }),
        };
        let kept = |room: usize| match fitting(Act::Record(whole), room) {
            Act::Record(noted) => {
                [noted.encoded_key.is_some(), noted.local_row.is_some(), noted.base_row.is_some()]
            }
            act => panic!("{act:?}"),
        };
        let all = packed_len(&Act::Record(whole));
        assert_eq!(kept(all), [true; 3]);
        assert_eq!(kept(all - 1), [true, true, false]);
        assert_eq!(kept(all - 102), [true, false, false]);
        assert_eq!(kept(all - 203), [false; 3]);
    }

    #[test]
    fn a_part_never_exceeds_what_the_server_takes() {
        let rows = upserts(&[1; 1000]);
        let acts: Vec<Act<'_>> = rows.iter().map(|row| Act::Upsert { row, expected: None }).collect();
        let limits = Limits { bytes: 1 << 10, acts: 1 << 20 };
        let mut sent = 0;
        for part in parts(&acts, limits) {
            let Part::Acts { first, count } = part else { panic!("{part:?}") };
            assert!(pack_acts(acts[first..first + count].iter().copied()).len() <= limits.bytes);
            sent += count;
        }
        assert_eq!(sent, acts.len());
    }
}
