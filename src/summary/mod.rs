//! What ranges of a replica hold, as agents and people ask for it: fingerprints, sketches, short items, and the
//! keys and rows that short items stand for; and what a replica that is right is read by. Every call is one snapshot.

mod parts;
mod rows;
mod scan;
mod source;

use pgrx::datum::AnyElement;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::{Range, Uuid};
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::ranges::{RangeSummary, choose, pack_summaries, read_ranges};
use plimsoll_core::short::{ShortItem, pack_items};
use plimsoll_core::sketch::Sketch;
use plimsoll_core::store::PositionRange;

use crate::access::Database;
use crate::argument::required;
use crate::datum::{Parameter, read_all};
use crate::error::{Answer, OrRaise, Problem, state};
use crate::setting;
use crate::table::{self, ManagedTable};
use crate::version::range_of;
use scan::pieces;

/// Divides each of some ranges into at most `most` of about equal row count, with what each holds.
fn divide(
    database: &Database,
    table: &mut ManagedTable,
    ranges: &[PositionRange],
    most: usize,
) -> Answer<Vec<(PositionRange, Fingerprint)>> {
    let pieces = pieces(ranges, setting::max_ranges(database) / most)?;
    let leaves = parts::leaves(database, table, &pieces, most)?;
    let mut divided = Vec::new();
    for (range, leaves) in ranges.iter().zip(&leaves) {
        let mut rest = leaves.iter().peekable();
        for part in choose(leaves, *range, most) {
            let mut held = Fingerprint::default();
            // The first leaf may begin before the range; none lies across a cut.
            while let Some((_, sum)) = rest.next_if(|(leaf, _)| part.to.is_none_or(|to| leaf.first() < to)) {
                held.combine(sum);
            }
            divided.push((part, held));
        }
    }
    Ok(divided)
}

/// Into how many ranges a caller has each range divided.
fn range_limit(database: &Database, max_ranges: Option<i32>) -> Answer<usize> {
    let max_ranges = required(max_ranges, "max_ranges")?;
    let most = setting::max_ranges(database);
    usize::try_from(max_ranges).ok().filter(|number| (1..=most).contains(number)).ok_or_else(|| {
        let message = format!("max_ranges is {max_ranges}; it must be from 1 to {most}");
        Problem::new(state::BAD_ARGUMENT, message)
            .hint("An admin sets the upper bound with the option max_ranges of this database.")
    })
}

#[pg_extern(sql = false)]
fn packed_ranges(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    ranges: Option<&[u8]>,
    max_ranges: Option<i32>,
) -> Vec<u8> {
    let answer = || {
        let (database, mut table) = table::open(database_id, relation)?;
        let most = range_limit(&database, max_ranges)?;
        let ranges = read_ranges(setting::check_bytes(&database, required(ranges, "ranges")?, "ranges")?)?;
        Ok(packed(divide(&database, &mut table, &ranges, most)?))
    };
    answer().or_raise()
}

fn packed(held: Vec<(PositionRange, Fingerprint)>) -> Vec<u8> {
    let summaries: Vec<_> = held.iter().map(|(range, held)| RangeSummary::new(*range, held)).collect();
    pack_summaries(&summaries)
}

#[pg_extern(sql = false)]
fn packed_summaries(database_id: Option<Uuid>, relation: Option<&str>, ranges: Option<&[u8]>) -> Vec<u8> {
    let answer = || {
        let (database, mut table) = table::open(database_id, relation)?;
        let ranges = read_ranges(setting::check_bytes(&database, required(ranges, "ranges")?, "ranges")?)?;
        let pieces = pieces(&ranges, setting::max_ranges(&database))?;
        let sums = parts::fingerprints(&database, &mut table, &pieces)?;
        Ok(packed(ranges.into_iter().zip(sums).collect()))
    };
    answer().or_raise()
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "the columns of the answer, as pgrx reads them")]
fn range_manifest(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    range: Option<Range<i64>>,
    max_ranges: Option<i32>,
) -> TableIterator<'static, (name!(range, Range<i64>), name!(row_count, i64), name!(fingerprint, Vec<u8>))> {
    let rows = || {
        let (database, mut table) = table::open(database_id, relation)?;
        let most = range_limit(&database, max_ranges)?;
        let Some(range) = range_of(&required(range, "range")?) else { return Ok(Vec::new()) };
        let rows = divide(&database, &mut table, &[range], most)?.into_iter().map(|(range, held)| {
            let count = i64::try_from(held.row_count()).unwrap_or(i64::MAX);
            (int8range(range), count, held.sum().to_vec())
        });
        Ok::<_, Problem>(rows.collect())
    };
    TableIterator::new(rows().or_raise())
}

fn int8range(range: PositionRange) -> Range<i64> {
    use pgrx::datum::RangeBound::{Exclusive, Inclusive, Infinite};
    Range::new(range.from.map_or(Infinite, Inclusive), range.to.map_or(Infinite, Exclusive))
}

/// The symbols `first..first + symbols` over the rows of ranges.
fn sketched(
    database: &Database,
    table: &mut ManagedTable,
    ranges: &[PositionRange],
    first: Option<i32>,
    symbols: Option<i32>,
) -> Answer<Vec<u8>> {
    let number = |argument: Option<i32>, name: &str| {
        let argument = required(argument, name)?;
        u32::try_from(argument).map_err(|_| {
            Problem::new(state::BAD_ARGUMENT, format!("{name} is {argument}; it must not be negative"))
        })
    };
    if table.schema.is_keyless() {
        let message = format!("{} has no key: symbols of equal rows would cancel each other out", table.name);
        return Err(Problem::new(state::UNSUPPORTED, message)
            .hint("Compare it by plimsoll.range_manifest and plimsoll.manifest."));
    }
    let pieces = pieces(ranges, setting::max_ranges(database))?;
    let (first, symbols) = (number(first, "first")?, number(symbols, "symbols")?);
    setting::check_symbols(database, first, symbols)?;
    let sketch = Sketch::new(ranges, first, symbols);
    let mut sketch = sketch
        .map_err(|error| Problem::from(error).with_code(state::TOO_LARGE).hint("Ask for fewer symbols."))?;
    scan::digest(database, table, &pieces, false, &mut |row, _| {
        sketch.add(&row.short_item());
        Ok(())
    })?;
    Ok(sketch.pack())
}

#[pg_extern(sql = false)]
fn packed_sketch(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    ranges: Option<&[u8]>,
    first: Option<i32>,
    symbols: Option<i32>,
) -> Vec<u8> {
    let answer = || {
        let (database, mut table) = table::open(database_id, relation)?;
        let ranges = read_ranges(setting::check_bytes(&database, required(ranges, "ranges")?, "ranges")?)?;
        sketched(&database, &mut table, &ranges, first, symbols)
    };
    answer().or_raise()
}

/// The ranges of an `int8multirange`, in order: one more than may be named at most.
fn multirange(database: &Database, argument: AnyElement) -> Answer<Vec<PositionRange>> {
    let parameter = Parameter { type_oid: pg_sys::INT8MULTIRANGEOID, datum: Some(argument.datum()) };
    let sql = "SELECT pg_catalog.lower(u.r), pg_catalog.upper(u.r) FROM pg_catalog.unnest($1) AS u (r)";
    let most = setting::max_ranges(database);
    let mut ranges = Vec::new();
    read_all(sql, &[parameter], &mut |row| {
        ranges.push(PositionRange { from: row.int8(0), to: row.int8(1) });
        Ok(ranges.len() <= most)
    })?;
    Ok(ranges)
}

#[pg_extern(sql = false)]
fn sketch(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    ranges: Option<AnyElement>,
    first: Option<i32>,
    symbols: Option<i32>,
) -> Vec<u8> {
    let answer = || {
        let (database, mut table) = table::open(database_id, relation)?;
        let ranges = multirange(&database, required(ranges, "ranges")?)?;
        sketched(&database, &mut table, &ranges, first, symbols)
    };
    answer().or_raise()
}

#[pg_extern(sql = false)]
fn packed_items(database_id: Option<Uuid>, relation: Option<&str>, ranges: Option<&[u8]>) -> Vec<u8> {
    let answer = || {
        let (database, mut table) = table::open(database_id, relation)?;
        let ranges = read_ranges(setting::check_bytes(&database, required(ranges, "ranges")?, "ranges")?)?;
        let pieces = pieces(&ranges, setting::max_ranges(&database))?;
        let name = table.name.clone();
        let mut items: Vec<ShortItem> = Vec::new();
        scan::digest(&database, &mut table, &pieces, false, &mut |row, _| {
            items.push(row.short_item());
            setting::check_answer_rows(&database, items.len() as u64, &name)
        })?;
        Ok(pack_items(&items))
    };
    answer().or_raise()
}
