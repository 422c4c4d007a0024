//! The server's replicas as the core's source: the remote side is right. Over a connection of its own, so that it reads
//! ahead while the local side writes.

use std::collections::HashMap;
use std::ops::Range;

use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::{Item, Manifest, read_manifest};
use plimsoll_core::ranges::{pack_ranges, read_fingerprints};
use plimsoll_core::row::{BatchReader, BatchWriter, key_of, position_in};
use plimsoll_core::schema::{Axis, TableSchema};
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{
    BatchLimit, Cursor, Outcome, PositionRange, RangeHeld, Source, SourceBatch, SourceKey, SourceRecord,
    SourceRow, SourceWindow, TableId,
};
use plimsoll_core::value::ColumnType;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::agent::malformed;
use super::error::Place;
use super::parts::is_too_large;
use super::session::{Parameter, Purpose, Server, Statement, cell};
use super::summaries::{Call, rows_of, version_of};
use super::windows::windows_of;
use crate::failure::table as refused;
use crate::target::local_key;

/// Ranges that are asked about in one call.
const RANGES_AT_ONCE: usize = 4_096;
/// Keys and items that are asked about in one call, at most.
const KEYS_AT_ONCE: usize = 20_000;

/// What asks a server about some of a list.
type Question<'q, Q, A> = &'q mut dyn FnMut(&mut ServerSource, &[Q]) -> Outcome<Vec<A>>;

/// A replica that is right.
#[derive(Debug, Clone)]
pub struct SourceTable {
    /// `schema.table`
    pub relation: String,
    /// Its columns, as rows are understood.
    pub schema: TableSchema,
    /// Whether the other side finds the rows of a range by reading all of its rows: whoever compares the two must ask
    /// about many ranges at once, as of a source that does so itself.
    pub other_scans: bool,
}

/// The replicas of a run, on a connection of their own.
#[derive(Debug)]
pub struct ServerSource {
    server: Server,
    tables: Vec<SourceTable>,
    /// Of which of them the server keeps manifests.
    kept: Vec<bool>,
    digester: Digester,
}

impl ServerSource {
    /// These replicas of the database that `server` logs in to, whose digests are made with `key`.
    pub fn new(server: Server, tables: Vec<SourceTable>, key: FingerprintKey) -> Self {
        ServerSource { server, tables, kept: Vec::new(), digester: Digester::new(key) }
    }

    /// Finds out of which of them manifests are kept. Without it none are.
    ///
    /// # Errors
    /// As the server says.
    pub fn find_manifests(&mut self) -> Outcome<()> {
        self.kept = self.marks(0..self.tables.len())?.iter().map(Option::is_some).collect();
        Ok(())
    }

    /// Whether the manifest of one of them is kept.
    ///
    /// # Errors
    /// As the server says.
    pub fn has_manifest(&mut self, table: TableId) -> Outcome<bool> {
        Ok(self.marks(table..table + 1)?.iter().any(Option::is_some))
    }

    /// Of which replicas the server keeps manifests.
    pub fn kept_tables(&self) -> &[bool] {
        &self.kept
    }

    /// Says which of the other side's tables are read as a whole to find the rows of a range.
    pub fn compare_with(&mut self, scanned: impl Iterator<Item = bool>) {
        self.tables.iter_mut().zip(scanned).for_each(|(table, scanned)| table.other_scans = scanned);
    }

    /// The mark of the last change of each of these tables, where it is kept.
    fn marks(&mut self, tables: Range<TableId>) -> Outcome<Vec<Option<Vec<u8>>>> {
        if tables.is_empty() {
            return Ok(Vec::new());
        }
        let database = self.server.database_id();
        let asked = self.tables.get(tables).ok_or_else(|| refused("a table outside the run"))?;
        let statements: Vec<Statement<'_>> = asked
            .iter()
            .map(|table| Statement {
                sql: "SELECT plimsoll.change_mark($1,$2)",
                parameters: vec![(&database as _, Type::UUID), (&table.relation as _, Type::TEXT)],
            })
            .collect();
        // What is held is not the present.
        let answers = match self.server.is_held() {
            true => self.server.again()?.transact(Place::Table, &statements)?,
            false => self.server.transact(Place::Table, &statements)?,
        };
        answers.iter().map(|rows| cell(rows.first(), 0)).collect()
    }

    fn is_kept(&self, table: TableId) -> bool {
        self.kept.get(table).is_some_and(|kept| *kept)
    }

    fn table(&self, table: TableId) -> Outcome<&SourceTable> {
        self.tables.get(table).ok_or_else(|| refused("a table outside the run"))
    }

    /// A row in wire form as the other side takes it.
    fn row(&mut self, table: TableId, row: &[u8]) -> Outcome<SourceRow> {
        let ServerSource { tables, digester, .. } = self;
        let schema = &tables.get(table).ok_or_else(|| refused("a table outside the run"))?.schema;
        let mut read = || -> plimsoll_core::Result<SourceRow> {
            let item = Item { position: position_in(row, schema)?, digest: digester.digest(row)? };
            Ok(SourceRow { item, key: key_of(row, schema)?, row: row.to_vec() })
        };
        read().map_err(|error| malformed("a row of the server", error))
    }

    fn rows(&mut self, table: TableId, packed: &[u8]) -> Outcome<Vec<SourceRow>> {
        let batch = BatchReader::new(packed).map_err(|error| malformed("rows of the server", error))?;
        let mut rows = Vec::with_capacity(batch.rows_left() as usize);
        for row in batch {
            rows.push(self.row(table, row.map_err(|error| malformed("rows of the server", error))?)?);
        }
        Ok(rows)
    }

    /// The items of ranges in order, of about `rows` rows, and where reading ended, if it was not at their end.
    fn manifest(&mut self, table: TableId, ranges: &[PositionRange], rows: u64) -> Outcome<Manifest> {
        let ranges = pack_ranges(ranges);
        let rows = i32::try_from(rows.max(1)).unwrap_or(i32::MAX);
        let sql = "SELECT plimsoll.packed_windows($1,$2,$3,$4)";
        let answer = self.call(table, sql, vec![(&ranges, Type::BYTEA), (&rows, Type::INT4)])?;
        read_manifest(cell(answer.first(), 0)?).map_err(|error| malformed("a row manifest", error))
    }

    /// What all rows are, where the server keeps that.
    fn root(&mut self, table: TableId) -> Outcome<Option<Fingerprint>> {
        if !self.is_kept(table) {
            return Ok(None);
        }
        let version = version_of(self, table)?;
        Ok(version.row_count.zip(version.sum).map(|(rows, sum)| Fingerprint::from_parts(rows, sum)))
    }

    fn sums(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<Fingerprint>> {
        let packed = pack_ranges(ranges);
        let sql = "SELECT plimsoll.packed_fingerprints($1,$2,$3)";
        let answer = self.call(table, sql, vec![(&packed, Type::BYTEA)])?;
        let sums = read_fingerprints(cell(answer.first(), 0)?);
        let sums = sums.map_err(|error| malformed("what ranges hold", error))?;
        match sums.len() == ranges.len() {
            true => Ok(sums),
            false => Err(malformed("what ranges hold", "it is of other ranges")),
        }
    }

    /// Asks about some at a time, and about fewer where the answer would be too large.
    fn in_parts<Q, A>(&mut self, asked: &[Q], ask: Question<'_, Q, A>) -> Outcome<Vec<A>> {
        let mut answers = Vec::new();
        let (mut rest, mut most) = (asked, KEYS_AT_ONCE);
        while !rest.is_empty() {
            let (some, after) = rest.split_at(most.min(rest.len()));
            match ask(self, some) {
                Ok(answer) => {
                    answers.extend(answer);
                    rest = after;
                }
                Err(failure) if is_too_large(&failure) && some.len() > 1 => most = some.len().div_ceil(2),
                Err(failure) => return Err(failure),
            }
        }
        Ok(answers)
    }

    fn short_rows(&mut self, table: TableId, items: &[ShortItem]) -> Outcome<Vec<SourceRow>> {
        self.in_parts(items, &mut |source, items| {
            let rows = rows_of(source, table, items)?;
            rows.iter().map(|row| source.row(table, row)).collect()
        })
    }

    /// The rows with these encoded keys, in any order.
    fn by_keys(&mut self, table: TableId, keys: &[&[u8]]) -> Outcome<Vec<SourceRow>> {
        if self.table(table)?.schema.is_keyless() {
            let ServerSource { tables, digester, .. } = self;
            let schema = &tables[table].schema;
            // There a key is the row.
            let mut item = |key: &&[u8]| {
                let (position, digest) = (position_in(key, schema)?, digester.digest(key)?);
                Ok(ShortItem::from(&Item { position, digest }))
            };
            let items: plimsoll_core::Result<Vec<ShortItem>> = keys.iter().map(&mut item).collect();
            let mut items = items.map_err(|error| malformed("a row's key", error))?;
            items.sort_unstable();
            items.dedup();
            return self.short_rows(table, &items);
        }
        self.in_parts(keys, &mut |source, keys| {
            let mut packed = BatchWriter::new();
            keys.iter().for_each(|key| packed.push(key));
            let packed = packed.finish();
            let sql = "SELECT plimsoll.packed_lookup($1,$2,$3)";
            let answer = source.call(table, sql, vec![(&packed, Type::BYTEA)])?;
            source.rows(table, cell(answer.first(), 0)?)
        })
    }
}

impl Call for ServerSource {
    fn call(&mut self, table: TableId, sql: &str, more: Vec<Parameter<'_>>) -> Outcome<Vec<Row>> {
        let relation = self.table(table)?.relation.clone();
        let database = self.server.database_id();
        let mut parameters: Vec<Parameter<'_>> = vec![(&database, Type::UUID), (&relation, Type::TEXT)];
        parameters.extend(more);
        // Some calls are made again with less, where the answer would be too large: a snapshot must survive that.
        let mut answers = self.server.attempt(Place::Table, &[Statement { sql, parameters }])?;
        Ok(answers.pop().unwrap_or_default())
    }
}

impl Source for ServerSource {
    /// What tells of every change to the tables, where the server keeps manifests of all of them.
    fn change_token(&mut self) -> Outcome<Option<Vec<u8>>> {
        if self.kept.is_empty() || self.kept.contains(&false) {
            return Ok(None);
        }
        let marks: Option<Vec<Vec<u8>>> = self.marks(0..self.tables.len())?.into_iter().collect();
        Ok(marks.map(|marks| self.digester.digest_of_form(&marks.concat()).0[..16].to_vec()))
    }

    fn max_position(&mut self, table: TableId) -> Outcome<Option<i64>> {
        self.tail_start(table, i64::MAX, 1)
    }

    fn row_count(&mut self, table: TableId) -> Outcome<u64> {
        let count = version_of(self, table)?.row_count;
        count.ok_or_else(|| malformed("what a table says of itself", "it has no row count"))
    }

    fn tail_start(&mut self, table: TableId, upto: i64, rows: u64) -> Outcome<Option<i64>> {
        let rows = i32::try_from(rows.max(1)).unwrap_or(i32::MAX);
        let sql = "SELECT plimsoll.tail_start($1,$2,$3,$4)";
        let answer = self.call(table, sql, vec![(&upto, Type::INT8), (&rows, Type::INT4)])?;
        cell(answer.first(), 0)
    }

    /// For versions of type `xid8`: the oldest transaction under way.
    fn settled(&mut self, table: TableId) -> Outcome<Option<i64>> {
        let schema = &self.table(table)?.schema;
        let is_transaction = |place: usize| schema.columns()[place].column_type == ColumnType::Xid8;
        if !matches!(schema.axis(), Axis::Version(place) if is_transaction(place)) {
            return Ok(None);
        }
        let sql = "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())
                       ::pg_catalog.text::pg_catalog.int8";
        let answer = self.server.call(Place::Table, sql, Vec::new())?;
        cell(answer.first(), 0).map(Some)
    }

    fn is_scanned(&mut self, table: TableId) -> Outcome<bool> {
        Ok(self.table(table)?.other_scans)
    }

    fn kept(&mut self, table: TableId) -> Outcome<Option<Fingerprint>> {
        self.root(table)
    }

    fn kept_ranges(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Option<Vec<Fingerprint>>> {
        if !self.is_kept(table) {
            return Ok(None);
        }
        self.sums(table, ranges).map(Some)
    }

    fn read_batch(
        &mut self,
        table: TableId,
        after: Option<&Cursor>,
        limit: BatchLimit,
    ) -> Outcome<SourceBatch> {
        let after = after.map(|cursor| match &cursor.key {
            // The server's own bytes, which hold the position too.
            Some(key) => key.clone(),
            None => cursor.position.to_le_bytes().to_vec(),
        });
        let rows = i32::try_from(limit.rows.max(1)).unwrap_or(i32::MAX);
        let bytes = i64::try_from(limit.bytes.max(1)).unwrap_or(i64::MAX);
        let sql = "SELECT rows, next FROM plimsoll.packed_batch($1,$2,$3,$4,$5)";
        let more = vec![(&after as _, Type::BYTEA), (&rows as _, Type::INT4), (&bytes as _, Type::INT8)];
        let answer = self.call(table, sql, more)?;
        let next: Option<&[u8]> = cell(answer.first(), 1)?;
        let rows = self.rows(table, cell(answer.first(), 0)?)?;
        let position = rows.last().map_or(0, |row| row.item.position);
        let next = next.map(|key| Cursor { position, key: Some(key.to_vec()) });
        Ok(SourceBatch { records: rows.into_iter().map(SourceRecord::Row).collect(), next })
    }

    fn window(&mut self, table: TableId, range: PositionRange, rows: u64) -> Outcome<SourceWindow> {
        let window = self.windows(table, &[range], rows)?.pop();
        Ok(window.unwrap_or(SourceWindow { range, ..SourceWindow::default() }))
    }

    fn windows(&mut self, table: TableId, ranges: &[PositionRange], rows: u64) -> Outcome<Vec<SourceWindow>> {
        let rows = rows.max(1);
        let (mut items, mut rest, mut end) = (Vec::new(), ranges.to_vec(), None);
        while !rest.is_empty() {
            let some = rest.len().min(RANGES_AT_ONCE);
            let manifest = self.manifest(table, &rest[..some], rows - items.len() as u64)?;
            items.extend(manifest.items);
            match manifest.next {
                None => drop(rest.drain(..some)),
                Some(next) => {
                    rest.retain(|range| range.to.is_none_or(|to| next < to));
                    if let Some(first) = rest.first_mut().filter(|first| first.contains(next)) {
                        first.from = Some(next);
                    }
                }
            }
            if items.len() as u64 >= rows {
                end = manifest.next.or_else(|| rest.first().and_then(|range| range.from));
                break;
            }
        }
        Ok(windows_of(ranges, items, end))
    }

    fn fingerprints(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<RangeHeld>> {
        let sums = self.sums(table, ranges)?;
        Ok(sums.into_iter().map(|rows| RangeHeld { rows, bad: 0 }).collect())
    }

    fn rows_of(&mut self, table: TableId, items: &[Item]) -> Outcome<Vec<SourceRow>> {
        let short: Vec<ShortItem> = items.iter().map(ShortItem::from).collect();
        let mut wanted: HashMap<&Item, u64> = HashMap::with_capacity(items.len());
        items.iter().for_each(|item| *wanted.entry(item).or_default() += 1);
        let mut rows = self.short_rows(table, &short)?;
        rows.retain(|row| match wanted.get_mut(&row.item) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        });
        Ok(rows)
    }

    /// Keys that have no encoding are no keys of the server's.
    fn lookup(&mut self, table: TableId, keys: &[SourceKey]) -> Outcome<Vec<Option<SourceRecord>>> {
        let encoded: Vec<&[u8]> = keys
            .iter()
            .filter_map(|key| match key {
                SourceKey::Encoded(key) if !local_key::is_one(key) => Some(key.as_slice()),
                _ => None,
            })
            .collect();
        let found = self.by_keys(table, &encoded)?;
        let found: HashMap<Vec<u8>, SourceRow> =
            found.into_iter().map(|row| (row.key.clone(), row)).collect();
        let record = |key: &SourceKey| match key {
            SourceKey::Encoded(key) => found.get(key).cloned().map(SourceRecord::Row),
            SourceKey::Raw(_) | SourceKey::Long(_) => None,
        };
        Ok(keys.iter().map(record).collect())
    }

    fn hold(&mut self) -> Outcome<()> {
        self.server.hold(Purpose::Read)
    }

    fn let_go(&mut self) {
        self.server.roll_back();
    }
}
