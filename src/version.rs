//! What a table says of itself: row count, highest version, latest change; and the fingerprint of a range.
//!
//! They come from the kept manifest; where there is none, counts come from an index scan of the replica and
//! fingerprints from its rows.

mod rows;

pub use rows::{DigestedRow, RowDigests, digest_range, fingerprint, read_range};

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::Datum;
use pgrx::prelude::*;
use pgrx::{FromDatum, Uuid};
use plimsoll_core::ENCODING_VERSION;
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::store::PositionRange;

use crate::access::{Database, authorise};
use crate::datum::{Row, by_only, read_planned, read_rows};
use crate::error::{Answer, OrRaise, Problem, state};
use crate::kept;
use crate::table::{self, ManagedTable, Placeholders};

/// What one replica says of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct TableVersion {
    /// Number of rows.
    pub row_count: u64,
    /// The highest position.
    pub max_position: Option<i64>,
    /// The latest change, in microseconds since 2000-01-01 UTC.
    pub max_modified: Option<i64>,
    /// The digest sum of all rows, where it is kept.
    pub sum: Option<[u8; 32]>,
}

/// The version of the database's replica of a table.
pub fn of(database: &Database, table: &ManagedTable) -> Answer<TableVersion> {
    match kept::root(database, table)? {
        Some(kept::Root { fingerprint, max_position, max_modified }) => Ok(TableVersion {
            row_count: fingerprint.row_count(),
            max_position,
            max_modified,
            sum: Some(fingerprint.sum()),
        }),
        None => counted(database, table),
    }
}

/// The version of a replica of which no manifest is kept.
fn counted(database: &Database, table: &ManagedTable) -> Answer<TableVersion> {
    let modified = match table.schema.modified() {
        Some(column) => format!("pg_catalog.max(t.{})", pgrx::spi::quote_identifier(&column.name)),
        None => "NULL".to_owned(),
    };
    let mut placeholders = Placeholders::for_tenant(table, database)?;
    let predicate = table.range_predicate(None, None, &mut placeholders);
    let sql = format!(
        "SELECT pg_catalog.count(*), {}, {modified} FROM {} t WHERE {predicate}",
        greatest_position(table),
        table.name
    );
    let mut version = TableVersion::default();
    table.as_owner(|| {
        read_rows(&sql, placeholders.parameters(), &mut |row| {
            version = TableVersion {
                row_count: row.int8(0).unwrap_or(0) as u64,
                max_position: row.int8(1),
                max_modified: row.int8(2),
                sum: None,
            };
            Ok(true)
        })
    })?;
    Ok(version)
}

/// The highest position as an eight-byte value, NULL where the order of positions says nothing. A timestamp is one
/// already: microseconds since 2000.
fn greatest_position(table: &ManagedTable) -> String {
    use plimsoll_core::value::ColumnType::{Int2, Int4, Xid8};
    let position = table.position("t.");
    match table.position_type() {
        None => "NULL".to_owned(),
        Some(Int2 | Int4) => format!("pg_catalog.max({position})::pg_catalog.int8"),
        // There is no max(xid8) before version 16; an index on the column answers this.
        Some(Xid8) => format!("pg_catalog.max(({position}::pg_catalog.text)::pg_catalog.int8)"),
        Some(_) => format!("pg_catalog.max({position})"),
    }
}

/// The highest position of a replica, by an index look-up; `None` too where rows stand at a hash.
pub fn max_position(database: &Database, table: &ManagedTable) -> Answer<Option<i64>> {
    if table.is_hashed() {
        return Ok(None);
    }
    let mut placeholders = Placeholders::for_tenant(table, database)?;
    let predicate = table.range_predicate(None, None, &mut placeholders);
    let position = table.position("t.");
    // By value in every type that a position can have; not max(), which not every version has for xid8.
    let sql =
        format!("SELECT {position} FROM {} t WHERE {predicate} ORDER BY {position} DESC LIMIT 1", table.name);
    let mut highest = None;
    table.as_owner(|| {
        read_planned(&sql, placeholders.parameters(), &mut |row| {
            highest = row.int8(0);
            Ok(true)
        })
    })?;
    Ok(highest)
}

/// The latest change among the rows of a range.
pub fn max_modified(database: &Database, table: &ManagedTable, range: PositionRange) -> Answer<Option<i64>> {
    let Some(column) = table.schema.modified() else { return Ok(None) };
    let mut placeholders = Placeholders::for_tenant(table, database)?;
    let predicate = table.range_predicate(range.from, range.to, &mut placeholders);
    let column = pgrx::spi::quote_identifier(&column.name);
    let sql = format!("SELECT pg_catalog.max(t.{column}) FROM {} t WHERE {predicate}", table.name);
    let mut latest = None;
    let mut take = |row: &Row<'_>| {
        latest = row.int8(0);
        Ok(true)
    };
    table.as_owner(|| {
        by_only(table.position_index(), || read_rows(&sql, placeholders.parameters(), &mut take))
    })?;
    Ok(latest)
}

/// How many rows of the replica stand beyond a position.
pub fn count_beyond(database: &Database, table: &ManagedTable, position: i64) -> Answer<u64> {
    let Some(range) = PositionRange::beyond(position) else { return Ok(0) };
    let mut placeholders = Placeholders::for_tenant(table, database)?;
    let predicate = table.range_predicate(range.from, range.to, &mut placeholders);
    let sql = format!("SELECT pg_catalog.count(*) FROM {} t WHERE {predicate}", table.name);
    let mut count = 0;
    let mut take = |row: &Row<'_>| {
        count = row.int8(0).unwrap_or(0) as u64;
        Ok(true)
    };
    table.as_owner(|| {
        by_only(table.position_index(), || read_rows(&sql, placeholders.parameters(), &mut take))
    })?;
    Ok(count)
}

/// The bounds of a range argument; `None` where it is empty.
pub fn range_of(range: &pgrx::Range<i64>) -> Option<PositionRange> {
    if range.is_empty() {
        return None;
    }
    use pgrx::datum::RangeBound::{Exclusive, Inclusive, Infinite};
    let from = match range.lower() {
        Some(Inclusive(from)) => Some(*from),
        // Discrete ranges are canonical: an exclusive lower bound does not occur.
        Some(Exclusive(from)) => from.checked_add(1),
        Some(Infinite) | None => None,
    };
    let to = match range.upper() {
        Some(Exclusive(to)) => Some(*to),
        Some(Inclusive(to)) => to.checked_add(1),
        Some(Infinite) | None => None,
    };
    Some(PositionRange { from, to })
}

#[pg_extern(sql = false)]
fn version() -> TableIterator<'static, (name!(extension_version, String), name!(encoding_version, i32))> {
    TableIterator::once((env!("CARGO_PKG_VERSION").to_owned(), i32::from(ENCODING_VERSION)))
}

type VersionRow = (
    name!(relation, String),
    name!(row_count, i64),
    name!(max_version, Option<i64>),
    name!(max_modified, Option<TimestampWithTimeZone>),
    name!(fingerprint, Option<Vec<u8>>),
);

/// A timestamptz from microseconds since 2000.
pub fn timestamptz(micros: i64) -> Option<TimestampWithTimeZone> {
    // SAFETY: a timestamptz datum is this number, by value.
    unsafe { TimestampWithTimeZone::from_datum(Datum::from(micros), false) }
}

fn version_row(database: &Database, table: &ManagedTable) -> Answer<VersionRow> {
    let version = of(database, table)?;
    let count = i64::try_from(version.row_count).unwrap_or(i64::MAX);
    let sum = version.sum.map(|sum| sum.to_vec());
    Ok((table.name.clone(), count, version.max_position, version.max_modified.and_then(timestamptz), sum))
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "the columns of the answer, as pgrx reads them")]
fn table_versions(
    database_id: Uuid,
) -> TableIterator<
    'static,
    (
        name!(relation, String),
        name!(row_count, i64),
        name!(max_version, Option<i64>),
        name!(max_modified, Option<TimestampWithTimeZone>),
        name!(fingerprint, Option<Vec<u8>>),
    ),
> {
    let rows = || {
        let database = authorise(database_id)?;
        table::all(&database)?.iter().map(|table| version_row(&database, table)).collect::<Answer<Vec<_>>>()
    };
    TableIterator::new(rows().or_raise())
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "the columns of the answer, as pgrx reads them")]
fn table_version(
    database_id: Uuid,
    relation: &str,
) -> TableIterator<
    'static,
    (
        name!(relation, String),
        name!(row_count, i64),
        name!(max_version, Option<i64>),
        name!(max_modified, Option<TimestampWithTimeZone>),
        name!(fingerprint, Option<Vec<u8>>),
    ),
> {
    let row = || version_row(&authorise(database_id)?, &table::resolve(relation)?);
    TableIterator::once(row().or_raise())
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "the columns of the answer, as pgrx reads them")]
fn table_schema(
    database_id: Uuid,
    relation: &str,
) -> TableIterator<
    'static,
    (
        name!(column_number, i32),
        name!(column_name, String),
        name!(column_type, String),
        name!(not_null, bool),
        name!(is_key, bool),
        name!(is_version, bool),
        name!(is_modified, bool),
        name!(places, bool),
    ),
> {
    let rows = || {
        authorise(database_id)?;
        let table = table::resolve(relation)?;
        let schema = &table.schema;
        let rows = schema.columns().iter().enumerate().map(|(i, column)| {
            (
                column.number as i32,
                column.name.clone(),
                column.column_type.to_string(),
                column.not_null,
                schema.key_indexes().contains(&i),
                schema.version_index() == Some(i),
                schema.modified().is_some_and(|modified| modified.number == column.number),
                schema.placed_by_indexes().contains(&i),
            )
        });
        Ok::<_, Problem>(rows.collect::<Vec<_>>())
    };
    TableIterator::new(rows().or_raise())
}

#[pg_extern(sql = false)]
fn range_fingerprint(
    database_id: Uuid,
    relation: &str,
    range: pgrx::Range<i64>,
) -> TableIterator<'static, (name!(row_count, i64), name!(fingerprint, Vec<u8>))> {
    let row = || {
        let database = authorise(database_id)?;
        let mut table = table::resolve(relation)?;
        let fingerprint = match range_of(&range) {
            Some(range) => fingerprint(&database, &mut table, range)?,
            None => Fingerprint::default(),
        };
        let count = i64::try_from(fingerprint.row_count())
            .map_err(|_| Problem::new(state::INTERNAL, "a row count beyond int8"))?;
        Ok::<_, Problem>((count, fingerprint.sum().to_vec()))
    };
    TableIterator::once(row().or_raise())
}
