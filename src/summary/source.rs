//! What a side reads of a replica that is right: rows in order, rows by their keys, row manifests of several ranges, what
//! exactly ranges hold, where a tail begins, whether anything changed. Every call is one snapshot, and its answer is bounded.

use pgrx::Uuid;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::*;
use plimsoll_core::digest::RowDigest;
use plimsoll_core::manifest::{Item, ItemsWriter};
use plimsoll_core::ranges::{pack_fingerprints, read_ranges};
use plimsoll_core::row::{BatchReader, BatchWriter, check_row, position_in};
use plimsoll_core::store::{PositionRange, ROW_ROOM};

use super::parts;
use super::scan::{self, Piece, pieces};
use crate::access::Database;
use crate::argument::required;
use crate::datum::{Parameter, Place, Row, by_index, in_order, place_arrays, read_joined, read_rows};
use crate::delete;
use crate::error::{Answer, OrRaise, Problem, state};
use crate::identity;
use crate::kept;
use crate::manifest::MAX_ANSWER_BYTES;
use crate::setting;
use crate::table::{self, ManagedTable, Placeholders};
use crate::version::digest_range;

/// Pieces whose rows one statement reads: between two statements the answer may be full.
const PIECES_TOGETHER: usize = 256;

/// The most keys that one call looks up.
const MAX_KEYS: usize = 100_000;

/// Where reading in order goes on: behind a row, by its position and where it lies; or behind all rows of a position.
struct Cursor {
    position: i64,
    place: Option<Place>,
}

impl Cursor {
    fn read(bytes: &[u8]) -> Answer<Cursor> {
        let malformed = || Problem::new(state::MALFORMED, "a cursor that is none");
        let (position, rest) = bytes.split_first_chunk::<8>().ok_or_else(malformed)?;
        let position = i64::from_le_bytes(*position);
        if rest.is_empty() {
            return Ok(Cursor { position, place: None });
        }
        let rest: [u8; 10] = rest.try_into().map_err(|_| malformed())?;
        let [a, b, c, d, ctid @ ..] = rest;
        let table = Oid::from(u32::from_le_bytes([a, b, c, d]));
        Ok(Cursor { position, place: Some(Place { ctid, table }) })
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = self.position.to_le_bytes().to_vec();
        if let Some(place) = &self.place {
            bytes.extend(place.table.to_u32().to_le_bytes());
            bytes.extend(place.ctid);
        }
        bytes
    }

    /// The rows behind it.
    fn predicate(&self, table: &ManagedTable, placeholders: &mut Placeholders) -> String {
        let position = table.position("t.");
        let at = placeholders.add(table.position_parameter(self.position));
        let Some(place) = &self.place else {
            return format!(" AND {position} OPERATOR(pg_catalog.>) {at}");
        };
        let [ctid, oid] = place_arrays(&[*place]).map(|one| placeholders.add(one));
        format!(
            " AND {position} OPERATOR(pg_catalog.>=) {at} AND ({position} OPERATOR(pg_catalog.>) {at}
                 OR ROW(t.tableoid, t.ctid) OPERATOR(pg_catalog.>) ROW(({oid})[1], ({ctid})[1]))"
        )
    }
}

fn read_batch(
    database: &Database,
    table: &mut ManagedTable,
    after: Option<&Cursor>,
    row_limit: usize,
    byte_limit: usize,
) -> Answer<(Vec<u8>, Option<Vec<u8>>)> {
    let mut placeholders = Placeholders::for_tenant(table, database)?;
    let predicate = match after {
        Some(cursor) => table.placed_predicate() + &cursor.predicate(table, &mut placeholders),
        None => table.range_predicate(None, None, &mut placeholders),
    };
    let limit = i64::try_from(row_limit).unwrap_or(i64::MAX).saturating_add(1);
    let limit = placeholders.add(Parameter { type_oid: pg_sys::INT8OID, datum: Some(Datum::from(limit)) });
    let sql = format!(
        "SELECT {}, t.ctid, t.tableoid FROM {} t WHERE {predicate}
         ORDER BY {}, t.tableoid, t.ctid LIMIT {limit}",
        table.column_list("t."),
        table.name,
        table.position("t.")
    );
    let (numbers, schema, owner) = (table.numbers(), table.schema.clone(), table.owner);
    let codecs = &mut table.codecs;
    let (mut rows, mut encoded, mut room) = (BatchWriter::new(), Vec::new(), 0usize);
    let (mut last, mut is_cut) = (None, false);
    let mut take = |row: &Row<'_>| {
        encoded.clear();
        row.encode(0, &numbers, codecs, &mut encoded)?;
        room = room.saturating_add(encoded.len() + ROW_ROOM);
        let is_full = rows.rows() as usize >= row_limit || room > byte_limit.min(MAX_ANSWER_BYTES);
        if is_full && !rows.is_empty() {
            is_cut = true;
            return Ok(false);
        }
        let place = row.place(numbers.len(), numbers.len() + 1);
        last = Some(Cursor { position: position_in(&encoded, &schema)?, place });
        rows.push(&encoded);
        Ok(true)
    };
    identity::as_owner(owner, || in_order(|| read_rows(&sql, placeholders.parameters(), &mut take)))?;
    let next = last.filter(|_| is_cut).map(|cursor| cursor.write());
    Ok((rows.finish(), next))
}

#[pg_extern(sql = false)]
fn packed_batch(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    after: Option<&[u8]>,
    row_limit: Option<i32>,
    byte_limit: Option<i64>,
) -> TableIterator<'static, (name!(rows, Vec<u8>), name!(next, Option<Vec<u8>>))> {
    let answer = || {
        let (database, mut table) = table::open(database_id, relation)?;
        let row_limit = setting::rows_at_most(&database, required(row_limit, "row_limit")?)?;
        let byte_limit = required(byte_limit, "byte_limit")?;
        let byte_limit = usize::try_from(byte_limit).ok().filter(|bytes| *bytes > 0).ok_or_else(|| {
            Problem::new(state::BAD_ARGUMENT, format!("byte_limit is {byte_limit}; it must be 1 or more"))
        })?;
        let after = after.map(Cursor::read).transpose()?;
        if after.as_ref().is_some_and(|after| table.possible(after.position, after.position).is_none()) {
            // No row stands there, and none can be compared with such a position: all are behind it.
            return read_batch(&database, &mut table, None, row_limit, byte_limit);
        }
        read_batch(&database, &mut table, after.as_ref(), row_limit, byte_limit)
    };
    TableIterator::once(answer().or_raise())
}

#[pg_extern(sql = false)]
fn packed_lookup(database_id: Option<Uuid>, relation: Option<&str>, keys: Option<&[u8]>) -> Vec<u8> {
    let answer = || {
        let (database, mut table) = table::open(database_id, relation)?;
        let keys = setting::check_bytes(&database, required(keys, "keys")?, "keys")?;
        lookup(&database, &mut table, keys)
    };
    answer().or_raise()
}

fn lookup(database: &Database, table: &mut ManagedTable, keys: &[u8]) -> Answer<Vec<u8>> {
    if table.schema.is_keyless() {
        let message = format!("{} has no key: its rows are not found by one", table.name);
        return Err(Problem::new(state::UNSUPPORTED, message)
            .hint("Ask for rows by position and digest: plimsoll.packed_rows."));
    }
    let keys = BatchReader::new(keys)?.collect::<plimsoll_core::Result<Vec<&[u8]>>>()?;
    if keys.len() > MAX_KEYS {
        let message = format!("{} keys; at most {MAX_KEYS} are taken", keys.len());
        return Err(Problem::new(state::TOO_LARGE, message).hint("Ask in several calls."));
    }
    for key in &keys {
        check_row(key)?;
    }
    let numbered: Vec<(usize, &[u8])> = keys.into_iter().enumerate().collect();
    let incoming = delete::keys(table, &numbered)?;
    let placeholders = Placeholders::for_tenant(table, database)?;
    let stored = table.incoming_with_stored(&table.column_list("t."), "OFFSET 0");
    let index = table.key_index();
    let sql = format!("SELECT {} FROM {stored}", table.column_list("t."));
    let (numbers, owner) = (table.numbers(), table.owner);
    let codecs = &mut table.codecs;
    let (mut rows, mut encoded) = (BatchWriter::new(), Vec::new());
    let mut take = |row: &Row<'_>| {
        encoded.clear();
        row.encode(0, &numbers, codecs, &mut encoded)?;
        rows.push(&encoded);
        check_bytes_answered(rows.len())
    };
    identity::as_owner(owner, || {
        by_index(index, || read_joined(&sql, placeholders.parameters(), &incoming, &mut take))
    })?;
    Ok(rows.finish())
}

fn check_bytes_answered(bytes: usize) -> Answer<()> {
    if bytes <= MAX_ANSWER_BYTES {
        return Ok(());
    }
    let message = format!("the rows take more than {MAX_ANSWER_BYTES} bytes");
    Err(Problem::new(state::TOO_LARGE, message).hint("Ask for fewer rows at a time."))
}

#[pg_extern(sql = false)]
fn packed_windows(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    ranges: Option<&[u8]>,
    row_limit: Option<i32>,
) -> Vec<u8> {
    let answer = || {
        let (database, mut table) = table::open(database_id, relation)?;
        let row_limit = setting::rows_at_most(&database, required(row_limit, "row_limit")?)?;
        let ranges = read_ranges(setting::check_bytes(&database, required(ranges, "ranges")?, "ranges")?)?;
        let pieces = pieces(&ranges, setting::max_ranges(&database))?;
        windows(&database, &mut table, &ranges, &pieces, row_limit)
    };
    answer().or_raise()
}

/// The items of ranges, up to the end of the position at which there are `row_limit` of them.
fn windows(
    database: &Database,
    table: &mut ManagedTable,
    ranges: &[PositionRange],
    pieces: &[Piece],
    row_limit: usize,
) -> Answer<Vec<u8>> {
    let mut window = Window { items: ItemsWriter::new(false), last: None, next: None, row_limit };
    if let [range] = ranges {
        digest_range(database, table, *range, true, &mut |row| window.add(row.position, row.digest))?;
        return Ok(window.items.finish(window.next));
    }
    for together in pieces.chunks(PIECES_TOGETHER) {
        scan::digest(database, table, together, true, &mut |row, _| {
            window.add(row.position, row.digest).map(drop)
        })?;
        if window.next.is_some() {
            break;
        }
    }
    Ok(window.items.finish(window.next))
}

/// Items of whole positions, and where they end.
struct Window {
    items: ItemsWriter,
    last: Option<i64>,
    next: Option<i64>,
    row_limit: usize,
}

impl Window {
    /// Adds a row, by ascending position; `false` where there is no room for it.
    fn add(&mut self, position: i64, digest: RowDigest) -> Answer<bool> {
        if self.next.is_some() {
            return Ok(false);
        }
        if self.items.count() as usize >= self.row_limit && self.last != Some(position) {
            self.next = Some(position);
            return Ok(false);
        }
        check_bytes_answered(self.items.len())?;
        self.last = Some(position);
        self.items.push(&Item { position, digest }, &[]);
        Ok(true)
    }
}

#[pg_extern(sql = false)]
fn packed_fingerprints(database_id: Option<Uuid>, relation: Option<&str>, ranges: Option<&[u8]>) -> Vec<u8> {
    let answer = || {
        let (database, mut table) = table::open(database_id, relation)?;
        let ranges = read_ranges(setting::check_bytes(&database, required(ranges, "ranges")?, "ranges")?)?;
        let pieces = pieces(&ranges, setting::max_ranges(&database))?;
        Ok::<_, Problem>(pack_fingerprints(&parts::fingerprints(&database, &mut table, &pieces)?))
    };
    answer().or_raise()
}

#[pg_extern(sql = false)]
fn change_mark(database_id: Option<Uuid>, relation: Option<&str>) -> Option<Vec<u8>> {
    let answer = || {
        let (database, table) = table::open(database_id, relation)?;
        kept::mark(&database, &table)
    };
    answer().or_raise()
}

#[pg_extern(sql = false)]
fn tail_start(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    upto: Option<i64>,
    row_count: Option<i32>,
) -> Option<i64> {
    let answer = || {
        let (database, mut table) = table::open(database_id, relation)?;
        let upto = required(upto, "upto")?;
        let rows = setting::row_limit(&database, required(row_count, "row_count")?)?;
        let Some((first, last)) = table.possible(i64::MIN, upto) else { return Ok(None) };
        let mut placeholders = Placeholders::for_tenant(&table, &database)?;
        let [first, last] =
            [first, last].map(|position| placeholders.add(table.position_parameter(position)));
        let position = table.position("t.");
        // The last of `rows` rows from the top down.
        let sql = format!(
            "SELECT {} FROM {} t WHERE {} AND {position} OPERATOR(pg_catalog.>=) {first}
                 AND {position} OPERATOR(pg_catalog.<=) {last} ORDER BY {position} DESC OFFSET {} LIMIT 1",
            table.column_list("t."),
            table.name,
            table.placed_predicate(),
            rows - 1
        );
        let (numbers, schema, owner) = (table.numbers(), table.schema.clone(), table.owner);
        let codecs = &mut table.codecs;
        let (mut found, mut encoded) = (None, Vec::new());
        let mut take = |row: &Row<'_>| {
            encoded.clear();
            row.encode(0, &numbers, codecs, &mut encoded)?;
            found = Some(position_in(&encoded, &schema)?);
            Ok(false)
        };
        identity::as_owner(owner, || in_order(|| read_rows(&sql, placeholders.parameters(), &mut take)))?;
        Ok::<_, Problem>(found)
    };
    answer().or_raise()
}
