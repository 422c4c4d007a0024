//! What a table says of itself: row count, highest version, latest change; and the fingerprint of a range.
//!
//! They come from the kept manifest; where there is none, counts come from an index scan of the replica and
//! fingerprints from its rows.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::{Datum, Oid};
use pgrx::prelude::*;
use pgrx::{FromDatum, Uuid};
use plimsoll_core::ENCODING_VERSION;
use plimsoll_core::digest::{DigestQueue, RowDigest};
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::Item;
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::PositionRange;

use crate::access::{Database, authorise};
use crate::datum::{Codec, Parameter, Row, read_all, read_planned, read_rows};
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

/// The highest position as an eight-byte value. A timestamp is one already: microseconds since 2000.
fn greatest_position(table: &ManagedTable) -> String {
    use plimsoll_core::value::ColumnType::{Int2, Int4, Xid8};
    let column = format!("t.{}", table.version_column());
    match table.schema.version().column_type {
        Int2 | Int4 => format!("pg_catalog.max({column})::pg_catalog.int8"),
        // There is no max(xid8) before version 16; an index on the column answers this.
        Xid8 => format!("pg_catalog.max(({column}::pg_catalog.text)::pg_catalog.int8)"),
        _ => format!("pg_catalog.max({column})"),
    }
}

/// The highest position of a replica, by an index look-up.
pub fn max_position(database: &Database, table: &ManagedTable) -> Answer<Option<i64>> {
    let mut placeholders = Placeholders::for_tenant(table, database)?;
    let predicate = table.range_predicate(None, None, &mut placeholders);
    let column = table.version_column();
    // By value in every type that a position can have; not max(), which not every version has for xid8.
    let sql =
        format!("SELECT t.{column} FROM {} t WHERE {predicate} ORDER BY t.{column} DESC LIMIT 1", table.name);
    let mut position = None;
    table.as_owner(|| {
        read_planned(&sql, placeholders.parameters(), &mut |row| {
            position = row.int8(0);
            Ok(true)
        })
    })?;
    Ok(position)
}

/// The latest change among the rows of a range.
pub fn max_modified(database: &Database, table: &ManagedTable, range: PositionRange) -> Answer<Option<i64>> {
    let Some(column) = table.schema.modified() else { return Ok(None) };
    let mut placeholders = Placeholders::for_tenant(table, database)?;
    let predicate = table.range_predicate(range.from, range.to, &mut placeholders);
    let column = pgrx::spi::quote_identifier(&column.name);
    let sql = format!("SELECT pg_catalog.max(t.{column}) FROM {} t WHERE {predicate}", table.name);
    let mut latest = None;
    table.as_owner(|| {
        read_rows(&sql, placeholders.parameters(), &mut |row| {
            latest = row.int8(0);
            Ok(true)
        })
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
    table.as_owner(|| {
        read_rows(&sql, placeholders.parameters(), &mut |row| {
            count = row.int8(0).unwrap_or(0) as u64;
            Ok(true)
        })
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

/// Hands each row of a range to `take`, encoded, in no particular order or in (position, key) order.
pub fn read_range(
    database: &Database,
    table: &mut ManagedTable,
    range: PositionRange,
    ordered: bool,
    take: &mut dyn FnMut(&Row<'_>, &[u8]) -> Answer<bool>,
) -> Answer<()> {
    let query = RangeQuery::new(database, table, range, ordered)?;
    let numbers = table.numbers();
    let codecs = &mut table.codecs;
    let mut encoded = Vec::new();
    query.read(&mut |row: &Row<'_>| {
        encoded.clear();
        row.encode(0, &numbers, codecs, &mut encoded)?;
        take(row, &encoded)
    })
}

/// The statement that reads the columns of a range's rows.
struct RangeQuery {
    sql: String,
    parameters: Vec<Parameter>,
    owner: Oid,
    ordered: bool,
}

impl RangeQuery {
    fn new(
        database: &Database,
        table: &ManagedTable,
        range: PositionRange,
        ordered: bool,
    ) -> Answer<RangeQuery> {
        let mut placeholders = Placeholders::for_tenant(table, database)?;
        let predicate = table.range_predicate(range.from, range.to, &mut placeholders);
        let order = if ordered { format!(" ORDER BY {}", table.order()) } else { String::new() };
        let columns = table.column_list("t.");
        let sql = format!("SELECT {columns} FROM {} t WHERE {predicate}{order}", table.name);
        let parameters = placeholders.parameters().to_vec();
        Ok(RangeQuery { sql, parameters, owner: table.owner, ordered })
    }

    fn read(&self, take: &mut dyn FnMut(&Row<'_>) -> Answer<bool>) -> Answer<()> {
        crate::identity::as_owner(self.owner, || match self.ordered {
            // Whoever asks for an order may stop early.
            true => read_rows(&self.sql, &self.parameters, take),
            false => read_all(&self.sql, &self.parameters, take),
        })
    }
}

/// What a scan says of a row where its content is not needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestedRow {
    /// Where it stands.
    pub position: i64,
    /// Its modified column in microseconds since 2000-01-01 UTC; `None` where that is NULL or there is none.
    pub modified: Option<i64>,
    /// The digest of its content.
    pub digest: RowDigest,
}

impl DigestedRow {
    /// What a comparison needs of it.
    pub fn short_item(&self) -> ShortItem {
        ShortItem::from(&Item { position: self.position, digest: self.digest })
    }
}

/// Hands position, modification and digest of each row of a range to `take`, in no particular order or in
/// (position, key) order, at less cost than [`read_range`]. `take` answers whether to go on.
pub fn digest_range(
    database: &Database,
    table: &mut ManagedTable,
    range: PositionRange,
    ordered: bool,
    take: &mut dyn FnMut(DigestedRow) -> Answer<bool>,
) -> Answer<()> {
    let query = RangeQuery::new(database, table, range, ordered)?;
    let mut digests = RowDigests::new(database, table);
    let mut take = |row: DigestedRow, _: &[u8]| take(row);
    let mut more = true;
    query.read(&mut |row| {
        more = digests.add(row, &mut take)?;
        Ok(more)
    })?;
    if more { digests.finish(&mut take) } else { Ok(()) }
}

/// Makes digests of rows that a statement answers with the table's columns first, in their order. Some at a time:
/// rows are handed over later than they are added, in the same order.
pub struct RowDigests<'t> {
    queue: DigestQueue<(i64, Option<i64>)>,
    numbers: Vec<u32>,
    codecs: &'t mut [Codec],
    version: usize,
    modified: Option<usize>,
}

/// Where rows are handed over to, each with its digest form; answers whether to go on.
pub type TakeDigested<'a> = &'a mut dyn FnMut(DigestedRow, &[u8]) -> Answer<bool>;

impl<'t> RowDigests<'t> {
    /// For the rows of a replica.
    pub fn new(database: &Database, table: &'t mut ManagedTable) -> Self {
        let numbers = table.numbers();
        let modified = table.schema.modified().map(|column| column.number);
        RowDigests {
            queue: DigestQueue::new(database.fingerprint_key.clone()),
            version: table.schema.version_index(),
            modified: modified.and_then(|number| numbers.iter().position(|found| *found == number)),
            numbers,
            codecs: &mut table.codecs,
        }
    }

    /// Adds a row, and hands those over that are ready.
    ///
    /// # Errors
    /// `NOT_IN_STATE` where it has no version, `INTERNAL` where a stored value is damaged.
    pub fn add(&mut self, row: &Row<'_>, take: TakeDigested<'_>) -> Answer<bool> {
        row.encode_digest_form(0, &self.numbers, self.codecs, self.queue.form())?;
        // Whole numbers and timestamps are held by value, so that one reading serves all their types.
        let position = row.int8(self.version).ok_or_else(|| {
            Problem::new(state::NOT_IN_STATE, "a stored row has no version").hint(
                "Set the version column NOT NULL, or manage the table anew with a column that has no NULL.",
            )
        })?;
        let modified = self.modified.and_then(|column| row.int8(column));
        if self.queue.push((position, modified)) { self.hand_over(take) } else { Ok(true) }
    }

    /// Hands the rest over.
    pub fn finish(mut self, take: TakeDigested<'_>) -> Answer<()> {
        self.hand_over(take).map(drop)
    }

    fn hand_over(&mut self, take: TakeDigested<'_>) -> Answer<bool> {
        self.queue.take_all(|(position, modified), digest, form| {
            take(DigestedRow { position, modified, digest }, form)
        })
    }
}

/// The fingerprint of a range of the replica.
pub fn fingerprint(
    database: &Database,
    table: &mut ManagedTable,
    range: PositionRange,
) -> Answer<Fingerprint> {
    let mut fingerprint = Fingerprint::default();
    let Some(nodes) = kept::nodes(database, table, range)? else {
        add_rows(database, table, range, &mut fingerprint)?;
        return Ok(fingerprint);
    };
    for node in nodes {
        if node.range.lies_in(&range) {
            fingerprint.combine(&node.fingerprint);
        } else {
            add_rows(database, table, common(node.range.range(), range), &mut fingerprint)?;
        }
    }
    Ok(fingerprint)
}

/// The positions that two ranges share.
fn common(one: PositionRange, other: PositionRange) -> PositionRange {
    let to = match (one.to, other.to) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    PositionRange { from: one.from.max(other.from), to }
}

/// Adds the rows of a range to a fingerprint, by a scan.
fn add_rows(
    database: &Database,
    table: &mut ManagedTable,
    range: PositionRange,
    fingerprint: &mut Fingerprint,
) -> Answer<()> {
    digest_range(database, table, range, false, &mut |row| {
        fingerprint.insert(&row.digest);
        Ok(true)
    })
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
                schema.version_index() == i,
                schema.modified().is_some_and(|modified| modified.number == column.number),
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
