//! A server's tables as one side of a comparison. The other side may be a server too: both ask the same way.

use plimsoll_core::manifest::{KeyedItem, read_keyed};
use plimsoll_core::ranges::{RangeSummary, pack_ranges, read_summaries};
use plimsoll_core::row::BatchReader;
use plimsoll_core::short::{ShortItem, pack_items, read_items};
use plimsoll_core::store::{Outcome, PositionRange, Summaries, TableId, TableVersion};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

use super::agent::malformed;
use super::error::Place;
use super::session::{Parameter, Server, cell};
use super::target::{Replica, RunTarget};
use super::two_way::TwoWayRemote;
use crate::failure::table as refused;

/// How a side makes calls that name the database and the table first.
pub trait Call {
    /// Makes one; `more` parameters follow these two.
    ///
    /// # Errors
    /// As the server says.
    fn call(&mut self, table: TableId, sql: &str, more: Vec<Parameter<'_>>) -> Outcome<Vec<Row>>;
}

/// The tables of a server that is only read, outside a run.
#[derive(Debug)]
pub struct ReadOnly<'s> {
    server: &'s mut Server,
    replicas: Vec<Replica>,
}

impl<'s> ReadOnly<'s> {
    /// The tables of the database that the server was asked for.
    pub fn new(server: &'s mut Server, replicas: Vec<Replica>) -> Self {
        ReadOnly { server, replicas }
    }

    /// The database's fingerprint key, once the server was asked something.
    pub fn fingerprint_key(&self) -> Option<&[u8]> {
        self.server.fingerprint_key()
    }
}

impl Call for ReadOnly<'_> {
    fn call(&mut self, table: TableId, sql: &str, more: Vec<Parameter<'_>>) -> Outcome<Vec<Row>> {
        let replica = self.replicas.get(table).ok_or_else(|| refused("a table outside the comparison"))?;
        let database = self.server.database_id();
        let mut parameters: Vec<Parameter<'_>> =
            vec![(&database, Type::UUID), (&replica.relation, Type::TEXT)];
        parameters.extend(more);
        self.server.call(Place::Table, sql, parameters)
    }
}

/// The one value that a call answers.
fn bytes(rows: &[Row]) -> Outcome<&[u8]> {
    cell(rows.first(), 0)
}

fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// What a table says of itself.
///
/// # Errors
/// As the server says.
pub fn version_of<C: Call>(side: &mut C, table: TableId) -> Outcome<TableVersion> {
    let sql = "SELECT row_count,max_version,max_modified,fingerprint FROM plimsoll.table_version($1,$2)";
    let rows = side.call(table, sql, Vec::new())?;
    let row = rows.first();
    let count: Option<i64> = cell(row, 0)?;
    let modified: Option<Stamp> = cell(row, 2)?;
    let sum: Option<&[u8]> = cell(row, 3)?;
    Ok(TableVersion {
        row_count: count.map(i64::unsigned_abs),
        max_position: cell(row, 1)?,
        max_modified: modified.map(|stamp| stamp.0),
        sum: sum.and_then(|sum| sum.try_into().ok()),
    })
}

/// Position, whole digest and key of the rows that short items stand for; rows that are gone are left out.
///
/// # Errors
/// As the server says.
pub fn keys_of<C: Call>(side: &mut C, table: TableId, items: &[ShortItem]) -> Outcome<Vec<KeyedItem>> {
    let items = pack_items(items);
    let sql = "SELECT plimsoll.packed_keys($1,$2,$3)";
    let rows = side.call(table, sql, vec![(&items, Type::BYTEA)])?;
    Ok(read_keyed(bytes(&rows)?).map_err(|error| malformed("a list of keys", error))?.0)
}

/// The rows that short items stand for, in wire form; rows that are gone are left out.
///
/// # Errors
/// As the server says.
pub fn rows_of<C: Call>(side: &mut C, table: TableId, items: &[ShortItem]) -> Outcome<Vec<Vec<u8>>> {
    let items = pack_items(items);
    let sql = "SELECT plimsoll.packed_rows($1,$2,$3)";
    let rows = side.call(table, sql, vec![(&items, Type::BYTEA)])?;
    let batch = BatchReader::new(bytes(&rows)?).map_err(|error| malformed("rows", error))?;
    batch.map(|row| row.map(<[u8]>::to_vec).map_err(|error| malformed("rows", error))).collect()
}

/// A `timestamptz` as it travels: microseconds since 2000-01-01 UTC, the ends of `i64` the infinities.
struct Stamp(i64);

impl<'a> FromSql<'a> for Stamp {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Stamp(i64::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(column_type: &Type) -> bool {
        *column_type == Type::TIMESTAMPTZ
    }
}

/// The same questions to each kind of side.
macro_rules! summaries_by_call {
    ($($side:ty),*) => {$(
        impl Summaries for $side {
            fn range_manifest(
                &mut self,
                table: TableId,
                ranges: &[PositionRange],
                most: u32,
            ) -> Outcome<Vec<RangeSummary>> {
                let (ranges, most) = (pack_ranges(ranges), signed(most));
                let sql = "SELECT plimsoll.packed_ranges($1,$2,$3,$4)";
                let rows = self.call(table, sql, vec![(&ranges, Type::BYTEA), (&most, Type::INT4)])?;
                read_summaries(bytes(&rows)?).map_err(|error| malformed("a range manifest", error))
            }

            fn summaries(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<RangeSummary>> {
                let ranges = pack_ranges(ranges);
                let sql = "SELECT plimsoll.packed_summaries($1,$2,$3)";
                let rows = self.call(table, sql, vec![(&ranges, Type::BYTEA)])?;
                read_summaries(bytes(&rows)?).map_err(|error| malformed("what ranges hold", error))
            }

            fn sketch(
                &mut self,
                table: TableId,
                ranges: &[PositionRange],
                first: u32,
                symbols: u32,
            ) -> Outcome<Vec<u8>> {
                let (ranges, first, symbols) = (pack_ranges(ranges), signed(first), signed(symbols));
                let sql = "SELECT plimsoll.packed_sketch($1,$2,$3,$4,$5)";
                let more = vec![(&ranges as _, Type::BYTEA), (&first as _, Type::INT4), (&symbols as _, Type::INT4)];
                bytes(&self.call(table, sql, more)?).map(<[u8]>::to_vec)
            }

            fn items(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<ShortItem>> {
                let ranges = pack_ranges(ranges);
                let sql = "SELECT plimsoll.packed_items($1,$2,$3)";
                let rows = self.call(table, sql, vec![(&ranges, Type::BYTEA)])?;
                read_items(bytes(&rows)?).map_err(|error| malformed("a list of rows", error))
            }
        }
    )*};
}

summaries_by_call!(ReadOnly<'_>, RunTarget<'_>, TwoWayRemote<'_>);
