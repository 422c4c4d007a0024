//! The replicas of one run as the core's target.

use std::collections::HashMap;

use plimsoll_core::digest::RowDigest;
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::{ItemsWriter, KeyedItem};
use plimsoll_core::schema::TableSchema;
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{
    BatchKind, BatchRecord, Deleted, Failure, KeyId, Outcome, PositionRange, Refusal, Rejected, Rejection,
    SourceRow, TableId, TableVersion, Target, Uploaded,
};
use serde_json::{Value as Json, json};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::agent::malformed;
use super::batch::Batch;
use super::error::Place;
use super::numbers::Numbers;
use super::parts::Parts;
use super::refused::{RefusedRow, rejected_row, rejection};
use super::session::{Parameter, Purpose, Server, Statement, cell};
use super::summaries::{Call, keys_of, version_of};
use crate::failure::{Advise, table as refused};
use crate::fault::fault_point;

/// How many batches of history are asked for.
const HISTORY_ROWS: i32 = 50;
/// SQLSTATE of rows that were made for other columns than the managed table has.
const OTHER_SCHEMA: &str = "42804";
/// Batch records are sent with the next call, or alone when so many are kept.
const MOST_KEPT: usize = 50;

/// One replica: the managed table's name, and what rows sent to it are made for.
#[derive(Debug, Clone, Default)]
pub struct Replica {
    /// `schema.table`
    pub relation: String,
    /// Its columns as rows are made for them. The server refuses rows once it has others; `None`: it does not look.
    pub schema: Option<TableSchema>,
    /// Numbers of the columns that the source does not have. The server refuses rows that would take a value away from
    /// one.
    pub absent: Vec<u32>,
}

/// The replicas of one run.
#[derive(Debug)]
pub struct RunTarget<'s> {
    server: &'s mut Server,
    run_id: i64,
    replicas: Vec<Replica>,
    kept: Vec<(String, BatchRecord)>,
    parts: Parts,
    numbers: Numbers,
    /// Bytes of the largest upload that the server took while one transaction was held.
    taken_bytes: usize,
}

/// A kept record in the types its statement takes.
struct KeptRecord<'k> {
    relation: &'k str,
    kind: &'static str,
    numbers: [i64; 3],
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(row: &Row, place: usize) -> Outcome<u64> {
    let number: i64 = cell(Some(row), place)?;
    Ok(number.unsigned_abs())
}

/// A range as Postgres reads it.
pub(crate) fn range_text(range: PositionRange) -> String {
    let end = |position: Option<i64>| position.map(|position| position.to_string()).unwrap_or_default();
    let open = if range.from.is_some() { '[' } else { '(' };
    format!("{open}{},{})", end(range.from), end(range.to))
}

impl<'s> RunTarget<'s> {
    /// The replicas of the run that `run_id` names.
    pub fn new(server: &'s mut Server, run_id: i64, replicas: Vec<Replica>) -> Self {
        RunTarget {
            server,
            run_id,
            replicas,
            kept: Vec::new(),
            parts: Parts::default(),
            numbers: Numbers::default(),
            taken_bytes: 0,
        }
    }

    /// The database's fingerprint key, once the server was asked something.
    pub fn fingerprint_key(&self) -> Option<&[u8]> {
        self.server.fingerprint_key()
    }

    fn relation(&self, table: TableId) -> Outcome<String> {
        let replica = self.replicas.get(table).ok_or_else(|| refused("a table outside the run"))?;
        Ok(replica.relation.clone())
    }

    /// Makes a call that names the run and the table first, with the kept records before it.
    fn call_for_run(&mut self, table: TableId, sql: &str, more: Vec<Parameter<'_>>) -> Outcome<Vec<Row>> {
        let relation = self.relation(table)?;
        let run_id = self.run_id;
        let mut parameters: Vec<Parameter<'_>> = vec![(&run_id, Type::INT8), (&relation, Type::TEXT)];
        parameters.extend(more);
        self.send(Some(Statement { sql, parameters }), false)
    }

    /// `may_fail`: also where one transaction is held, and goes on.
    fn send(&mut self, own: Option<Statement<'_>>, may_fail: bool) -> Outcome<Vec<Row>> {
        let run_id = self.run_id;
        let kept = std::mem::take(&mut self.kept);
        let records: Vec<KeptRecord<'_>> = kept
            .iter()
            .map(|(relation, record)| KeptRecord {
                relation,
                kind: record.kind.name(),
                numbers: [signed(record.rows), signed(record.bytes), signed(record.micros)],
            })
            .collect();
        let has_own = own.is_some();
        let mut statements: Vec<Statement<'_>> = records
            .iter()
            .map(|record| Statement {
                sql: "SELECT plimsoll.record_batch($1, $2, $3, $4, $5, $6)",
                parameters: vec![
                    (&run_id as _, Type::INT8),
                    (&record.relation as _, Type::TEXT),
                    (&record.kind as _, Type::TEXT),
                    (&record.numbers[0] as _, Type::INT8),
                    (&record.numbers[1] as _, Type::INT8),
                    (&record.numbers[2] as _, Type::INT8),
                ],
            })
            .collect();
        statements.extend(own);
        let answer = match may_fail {
            true => self.server.attempt(Place::Table, &statements),
            false => self.server.transact(Place::Table, &statements),
        };
        drop(statements);
        match answer {
            Ok(mut answers) => Ok(if has_own { answers.pop().unwrap_or_default() } else { Vec::new() }),
            Err(failure) => {
                // Nothing of the transaction stayed: the records go with the next one.
                self.kept = kept;
                Err(failure)
            }
        }
    }

    /// Makes a call that names the database and the table first, with the kept records before it.
    fn call_that(
        &mut self,
        may_fail: bool,
        table: TableId,
        sql: &str,
        more: Vec<Parameter<'_>>,
    ) -> Outcome<Vec<Row>> {
        let relation = self.relation(table)?;
        let database = self.server.database_id();
        let mut parameters: Vec<Parameter<'_>> = vec![(&database, Type::UUID), (&relation, Type::TEXT)];
        parameters.extend(more);
        self.send(Some(Statement { sql, parameters }), may_fail)
    }

    /// Has rows stored, all with one call, the upload of that number.
    fn store(&mut self, table: TableId, rows: &[SourceRow], number: i64) -> Outcome<Uploaded> {
        let batch = Batch(rows);
        let run_id = self.run_id;
        let sql = "SELECT inserted, updated, unchanged, fingerprint, held, rejected
                   FROM plimsoll.upload($1, $2, $3::pg_catalog.bytea, $4, batch_number => $5,
                        schema_stamp => $6, absent_columns => $7)";
        let replica = self.replicas.get(table);
        let stamp = replica.and_then(|replica| replica.schema.as_ref()).map(TableSchema::stamp);
        let absent: Vec<i32> =
            replica.map_or(&[][..], |replica| &replica.absent).iter().map(|n| *n as i32).collect();
        let parameters: Vec<Parameter<'_>> = vec![
            (&batch, Type::BYTEA),
            (&run_id, Type::INT8),
            (&number, Type::INT8),
            (&stamp, Type::INT8),
            (&absent, Type::INT4_ARRAY),
        ];
        fault_point("before-upload");
        // What the server finds too large is sent in parts, and must not cost the transaction. Subtransactions are few so.
        let bytes = rows.iter().map(|row| row.row.len()).sum();
        let may_fail = self.server.is_held() && bytes > self.taken_bytes;
        let answer = match self.call_that(may_fail, table, sql, parameters) {
            Err(failure) if failure.sqlstate.as_deref() == Some(OTHER_SCHEMA) => {
                return Err(self.other_schema(table, failure));
            }
            answer => answer?,
        };
        fault_point("after-upload");
        self.taken_bytes = self.taken_bytes.max(bytes);
        let row = answer.first();
        let refused_rows: Option<Json> = cell(row, 5)?;
        let refused_rows = refused_rows.filter(|rows| !rows.is_null()).unwrap_or_else(|| json!([]));
        let refused: Vec<RefusedRow> =
            serde_json::from_value(refused_rows).map_err(|error| malformed("the rejected rows", error))?;
        let number = |place| -> Outcome<u64> { cell(row, place).map(i64::unsigned_abs) };
        let uploaded = Uploaded {
            inserted: number(0)?,
            updated: number(1)?,
            unchanged: number(2)?,
            held: number(4)?,
            refused: refused.into_iter().map(Refusal::from).collect(),
        };
        check_stored(rows, &uploaded, cell(row, 3)?)?;
        Ok(uploaded)
    }

    /// What a person is told whose table was altered on the server while rows were sent: which columns.
    fn other_schema(&mut self, table: TableId, failure: Failure) -> Failure {
        let Some(Replica { relation, schema: Some(before), .. }) = self.replicas.get(table).cloned() else {
            return failure;
        };
        let now = self.server.table_schemas(&[&relation]).ok().and_then(|mut schemas| schemas.pop()?.ok());
        let changes = now.map(|now| before.changes_to(&now)).unwrap_or_default();
        let what = if changes.is_empty() { "its columns".to_owned() } else { changes.join("; ") };
        Failure {
            message: format!(
                "{relation} was altered on the server during the run: {what}; nothing more was stored"
            ),
            hint: Some("the next run goes on with the columns that there are now".to_owned()),
            ..failure
        }
    }

    /// Sends what is kept.
    ///
    /// # Errors
    /// As the server says.
    pub fn flush(&mut self) -> Outcome<()> {
        if self.kept.is_empty() { Ok(()) } else { self.send(None, false).map(drop) }
    }
}

impl Call for RunTarget<'_> {
    /// With the kept records before it.
    fn call(&mut self, table: TableId, sql: &str, more: Vec<Parameter<'_>>) -> Outcome<Vec<Row>> {
        self.call_that(false, table, sql, more)
    }
}

impl Target for RunTarget<'_> {
    fn table_version(&mut self, table: TableId) -> Outcome<TableVersion> {
        version_of(self, table)
    }

    fn fingerprint(&mut self, table: TableId, range: PositionRange) -> Outcome<Fingerprint> {
        let range = range_text(range);
        let sql = "SELECT row_count, fingerprint
                   FROM plimsoll.range_fingerprint($1, $2, $3::pg_catalog.text::pg_catalog.int8range)";
        let rows = self.call(table, sql, vec![(&range, Type::TEXT)])?;
        let row = rows.first();
        let count: i64 = cell(row, 0)?;
        let sum: Vec<u8> = cell(row, 1)?;
        let sum = sum.try_into().map_err(|_| malformed("a fingerprint", "it has not 32 bytes"))?;
        Ok(Fingerprint::from_parts(count.unsigned_abs(), sum))
    }

    fn keys_of(&mut self, table: TableId, items: &[ShortItem]) -> Outcome<Vec<KeyedItem>> {
        keys_of(self, table, items)
    }

    fn upload(&mut self, table: TableId, rows: &[SourceRow]) -> Outcome<Uploaded> {
        let (mut numbers, mut parts) = (std::mem::take(&mut self.numbers), self.parts);
        let mut store = |rows: &[SourceRow], number| self.store(table, rows, number);
        let uploaded = numbers.upload(table, rows, &mut parts, &mut store);
        (self.numbers, self.parts) = (numbers, parts);
        uploaded
    }

    fn delete(&mut self, table: TableId, rows: &[KeyedItem], planned: u64) -> Outcome<Deleted> {
        let mut writer = ItemsWriter::new(true);
        rows.iter().for_each(|row| writer.push(&row.item, &row.key));
        let bytes = writer.finish(None);
        let run_id = self.run_id;
        let sql = "SELECT deleted, held, blocked
                   FROM plimsoll.delete_rows($1, $2, $3::pg_catalog.bytea, $4, $5)";
        fault_point("before-delete");
        let planned = i64::try_from(planned).unwrap_or(i64::MAX);
        let parameters: Vec<Parameter<'_>> =
            vec![(&bytes, Type::BYTEA), (&run_id, Type::INT8), (&planned, Type::INT8)];
        let answer = self.call(table, sql, parameters)?;
        fault_point("after-delete");
        let row = answer.first().ok_or_else(|| malformed("the answer to a delete", "it has no row"))?;
        let blocked: Option<Json> = cell(Some(row), 2)?;
        let blocked = blocked.filter(|list| !list.is_null()).unwrap_or_else(|| json!([]));
        Ok(Deleted {
            deleted: unsigned(row, 0)?,
            held: unsigned(row, 1)?,
            blocked: serde_json::from_value(blocked)
                .map_err(|error| malformed("the list of blocked rows", error))?,
            why: None,
        })
    }

    fn rejected(&mut self, table: TableId) -> Outcome<Vec<Rejected>> {
        let sql = "SELECT key_id, source_key, source_digest, \"position\", waits
                   FROM plimsoll.rejected_keys($1, $2)";
        self.call(table, sql, Vec::new())?.iter().map(rejected_row).collect()
    }

    fn reject(&mut self, table: TableId, rows: &[Rejection]) -> Outcome<()> {
        let rejections: Vec<Json> = rows.iter().map(rejection).collect();
        let rejections = json!(rejections);
        let sql = "SELECT plimsoll.reject_rows($1, $2, $3)";
        fault_point("before-reject");
        self.call_for_run(table, sql, vec![(&rejections, Type::JSONB)]).map(|_| fault_point("after-reject"))
    }

    fn clear_rejected(&mut self, table: TableId, rows: &[KeyId]) -> Outcome<()> {
        let ids: Vec<&[u8]> = rows.iter().map(|id| id.as_slice()).collect();
        let sql = "SELECT plimsoll.clear_rejected($1, $2, $3)";
        fault_point("before-clear");
        self.call_for_run(table, sql, vec![(&ids, Type::BYTEA_ARRAY)]).map(|_| fault_point("after-clear"))
    }

    fn batch_history(&mut self, table: TableId) -> Outcome<Vec<BatchRecord>> {
        let sql = "SELECT kind, row_count, byte_count, duration_micros
                   FROM plimsoll.batch_history($1, $2, $3)";
        let rows = self.call(table, sql, vec![(&HISTORY_ROWS, Type::INT4)])?;
        let mut history = Vec::with_capacity(rows.len());
        for row in &rows {
            let kind: &str = cell(Some(row), 0)?;
            let kinds = [BatchKind::Upload, BatchKind::Delete, BatchKind::Compare];
            // A kind that a later version records says nothing to this one.
            let Some(kind) = kinds.into_iter().find(|known| known.name() == kind) else { continue };
            history.push(BatchRecord {
                kind,
                rows: unsigned(row, 1)?,
                bytes: unsigned(row, 2)?,
                micros: unsigned(row, 3)?,
            });
        }
        Ok(history)
    }

    fn record_batch(&mut self, table: TableId, batch: BatchRecord) -> Outcome<()> {
        self.kept.push((self.relation(table)?, batch));
        if self.kept.len() < MOST_KEPT { Ok(()) } else { self.flush() }
    }

    fn hold(&mut self) -> Outcome<()> {
        self.flush()?;
        self.server.hold(Purpose::Write)
    }

    fn commit(&mut self) -> Outcome<()> {
        self.flush()?;
        self.server.commit()
    }

    fn roll_back(&mut self) {
        if self.server.is_held() {
            // What was recorded was not done.
            self.kept.clear();
            self.server.roll_back();
        }
    }
}

/// Compares what the server says is stored with what was sent, where nothing was refused or held: the
/// proof of "stored as sent".
fn check_stored(rows: &[SourceRow], uploaded: &Uploaded, sum: Option<Vec<u8>>) -> Outcome<()> {
    let Some(sum) = sum else { return Ok(()) };
    if uploaded.held > 0 || !uploaded.refused.is_empty() {
        return Ok(());
    }
    let sum_of = |digests: &mut dyn Iterator<Item = RowDigest>| digests.collect::<Fingerprint>().sum();
    let stored = |sent: [u8; 32]| sent.as_slice() == sum.as_slice();
    // The last of several rows with one key wins; hardly ever there are any.
    let last = || rows.iter().map(|row| (row.key.as_slice(), row.item.digest)).collect::<HashMap<_, _>>();
    match stored(sum_of(&mut rows.iter().map(|row| row.item.digest)))
        || stored(sum_of(&mut last().into_values()))
    {
        true => Ok(()),
        false => Err(refused("the server stored other content than was sent").advise(
            "a trigger on the managed table may change rows: name the columns it fills in server_columns",
        )),
    }
}
