//! The rows of a range: encoded, digested, or as a fingerprint.

use pgrx::pg_sys::Oid;
use plimsoll_core::digest::{DigestQueue, Digester, RowDigest};
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::Item;
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::PositionRange;

use crate::access::Database;
use crate::datum::{Codec, Indexes, Parameter, Row, by_only, in_order, read_all, read_rows};
use crate::error::{Answer, Problem, state};
use crate::kept;
use crate::table::{ManagedTable, Placeholders, Positions};

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
    index: Indexes,
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
        let index = table.position_index();
        Ok(RangeQuery { sql, parameters, index, owner: table.owner, ordered })
    }

    fn read(&self, take: &mut dyn FnMut(&Row<'_>) -> Answer<bool>) -> Answer<()> {
        crate::identity::as_owner(self.owner, || match self.ordered {
            // Whoever asks for an order may stop early.
            true => in_order(|| read_rows(&self.sql, &self.parameters, take)),
            false => by_only(self.index.clone(), || read_all(&self.sql, &self.parameters, take)),
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
    places: Vec<usize>,
    numbers: Vec<u32>,
    codecs: &'t mut [Codec],
    positions: Positions,
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
            queue: DigestQueue::new(&Digester::new(database.fingerprint_key.clone())),
            positions: Positions::of(&table.schema),
            places: (0..numbers.len()).collect(),
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
        let RowDigests { queue, places, numbers, codecs, positions, .. } = self;
        let position = positions.encode(row, places, numbers, codecs, queue.form())?.ok_or_else(|| {
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
