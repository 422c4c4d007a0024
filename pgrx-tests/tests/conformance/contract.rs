//! The contract of a source, checked against a model of its rows.

use std::collections::HashMap;

use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::Item;
use plimsoll_core::schema::Axis;
use plimsoll_core::store::{
    BatchLimit, Cursor, PositionRange, Source, SourceKey, SourceRecord, SourceRow, SourceWindow, TableId,
};

use super::kind::{Cell, LocalKind, Table};
use super::model::{rows_of, sort};

/// Checks all that a source says of a table with these rows, all of which can be encoded.
pub fn check<K: LocalKind>(local: &K, table: &Table, cells: &[Vec<Cell>]) {
    let schema = table.schema(&[]);
    let rows = rows_of(&schema, cells);
    let is_ordered = matches!(schema.axis(), Axis::Version(_));
    let open = || local.source(&[(table, schema.clone())]);
    let mut source = open();
    let source = source.as_mut();
    assert_eq!(source.row_count(0), Ok(rows.len() as u64), "{}", table.name);
    for limit in [1, 2, 3, 7, 1000] {
        let limit = BatchLimit { rows: limit, bytes: 1 << 20 };
        let mut read = read_all(source, 0, limit);
        if is_ordered {
            assert!(read.is_sorted_by_key(|row| row.item.position), "{}: {limit:?}", table.name);
        }
        sort(&mut read);
        assert_same(&read, &rows, &format!("{} by {limit:?}", table.name));
    }
    let mut by_bytes = read_all(source, 0, BatchLimit { rows: 1000, bytes: 100 });
    sort(&mut by_bytes);
    assert_same(&by_bytes, &rows, &format!("{} by bytes", table.name));
    // A source that is opened later goes on where this one stopped.
    let first = source.read_batch(0, None, BatchLimit { rows: 3, bytes: 1 << 20 }).expect("a batch");
    let mut both: Vec<SourceRow> = first.records.into_iter().map(good).collect();
    if let Some(next) = first.next.filter(|next| is_ordered || next.key.is_some()) {
        both.extend(read_from(open().as_mut(), 0, Some(next), BatchLimit { rows: 5, bytes: 1 << 20 }));
        sort(&mut both);
        assert_same(&both, &rows, &format!("{} reopened", table.name));
    }
    positions(source, table, &rows, is_ordered);
    windows(source, table, &rows);
    found_again(source, table, &rows);
}

/// Fails with the first rows that are on one side only.
#[track_caller]
fn assert_same(found: &[SourceRow], expected: &[SourceRow], what: &str) {
    let only = |a: &[SourceRow], b: &[SourceRow]| -> Vec<SourceRow> {
        a.iter().filter(|row| !b.contains(row)).take(3).cloned().collect()
    };
    assert!(
        found == expected,
        "{what}: {} rows where {} are\nonly found: {:?}\nonly there: {:?}",
        found.len(),
        expected.len(),
        only(found, expected),
        only(expected, found)
    );
}

fn good(record: SourceRecord) -> SourceRow {
    match record {
        SourceRecord::Row(row) => row,
        SourceRecord::Bad(bad) => panic!("{bad:?}"),
    }
}

/// All rows, in batches of at most so many.
pub fn read_all(source: &mut dyn Source, table: TableId, limit: BatchLimit) -> Vec<SourceRow> {
    read_from(source, table, None, limit)
}

fn read_from(
    source: &mut dyn Source,
    table: TableId,
    mut after: Option<Cursor>,
    limit: BatchLimit,
) -> Vec<SourceRow> {
    let mut rows = Vec::new();
    loop {
        let batch = source.read_batch(table, after.as_ref(), limit).expect("a batch");
        assert!(batch.records.len() <= limit.rows, "{} rows by {limit:?}", batch.records.len());
        let more: Vec<SourceRow> = batch.records.into_iter().map(good).collect();
        let bytes: usize = more.iter().map(|row| row.row.len()).sum();
        assert!(bytes <= limit.bytes || more.len() == 1, "{bytes} bytes by {limit:?}");
        rows.extend(more);
        match batch.next {
            Some(next) => after = Some(next),
            None => return rows,
        }
    }
}

fn positions(source: &mut dyn Source, table: &Table, rows: &[SourceRow], is_ordered: bool) {
    if !is_ordered {
        return;
    }
    let name = &table.name;
    let all: Vec<i64> = rows.iter().map(|row| row.item.position).collect();
    assert_eq!(source.max_position(0), Ok(all.last().copied()), "{name}");
    for upto in all.iter().copied().chain([i64::MAX, i64::MIN]) {
        let below = &all[..all.partition_point(|position| *position <= upto)];
        for rows in [1, 2, 5, 1000] {
            let expected = below.len().checked_sub(rows).map(|place| below[place]);
            assert_eq!(source.tail_start(0, upto, rows as u64), Ok(expected), "{name} {upto} {rows}");
        }
    }
    // Beyond all rows of a position.
    for position in all.iter().copied().step_by(3) {
        let after = Cursor { position, key: None };
        let read = read_from(source, 0, Some(after), BatchLimit { rows: 4, bytes: 1 << 20 });
        assert_eq!(read.len(), all.iter().filter(|other| **other > position).count(), "{name}");
    }
}

/// The items of a model in a range.
fn within(rows: &[SourceRow], range: PositionRange) -> Vec<Item> {
    rows.iter().map(|row| row.item).filter(|item| range.contains(item.position)).collect()
}

fn sorted(window: &SourceWindow) -> Vec<Item> {
    assert!(window.items.is_sorted_by_key(|item| item.position), "by ascending position");
    let mut items = window.items.clone();
    items.sort_unstable();
    items
}

fn windows(source: &mut dyn Source, table: &Table, rows: &[SourceRow]) {
    let name = &table.name;
    for wanted in [1, 4, 1000] {
        let (mut from, mut covered) = (None, 0);
        loop {
            let range = PositionRange { from, to: None };
            let window = source.window(0, range, wanted).expect("a window");
            assert_eq!(window.range.from, from, "{name}");
            assert_eq!(sorted(&window), within(rows, window.range), "{name} {:?}", window.range);
            covered += window.rows();
            from = window.range.to;
            if from.is_none() {
                break;
            }
            assert!(window.rows() >= wanted.min(1), "{name}: an empty window has an end");
        }
        assert_eq!(covered, rows.len() as u64, "{name}");
    }
    // Ranges cut at positions that rows have, one that none has, and the ends.
    let mut cuts: Vec<i64> = rows.iter().step_by(rows.len() / 5 + 1).map(|row| row.item.position).collect();
    cuts.extend([0, 5, i64::MIN + 1, i64::MAX]);
    cuts.sort_unstable();
    cuts.dedup();
    let ends: Vec<Option<i64>> = [None].into_iter().chain(cuts.into_iter().map(Some)).chain([None]).collect();
    let ranges: Vec<PositionRange> =
        ends.windows(2).map(|ends| PositionRange { from: ends[0], to: ends[1] }).collect();
    let held = source.fingerprints(0, &ranges).expect("fingerprints");
    for (range, held) in ranges.iter().zip(&held) {
        let expected: Fingerprint = within(rows, *range).into_iter().map(|item| item.digest).collect();
        assert_eq!((held.rows, held.bad), (expected, 0), "{name} {range:?}");
    }
    let apart: Vec<PositionRange> = ranges.iter().copied().step_by(2).collect();
    for wanted in [2, 1000] {
        let found = source.windows(0, &apart, wanted).expect("windows");
        assert!(!found.is_empty() && found.len() <= apart.len(), "{name}");
        for (i, (window, range)) in found.iter().zip(&apart).enumerate() {
            assert_eq!(window.range.from, range.from, "{name}");
            assert!(i + 1 == found.len() || window.range == *range, "{name}: one within was cut");
            assert_eq!(sorted(window), within(rows, window.range), "{name} {:?}", window.range);
        }
        assert!(wanted < 1000 || found.len() == apart.len(), "{name}");
    }
    for range in apart {
        let window = source.window(0, range, 1000).expect("a window");
        assert_eq!((window.range, sorted(&window)), (range, within(rows, range)), "{name}");
    }
}

fn found_again(source: &mut dyn Source, table: &Table, rows: &[SourceRow]) {
    let name = &table.name;
    let some: Vec<Item> = rows.iter().step_by(2).map(|row| row.item).collect();
    let mut found = source.rows_of(0, &some).expect("rows");
    sort(&mut found);
    // Of equal rows as many come as were asked for.
    let mut expected: Vec<SourceRow> = rows.iter().step_by(2).cloned().collect();
    sort(&mut expected);
    assert_same(&found, &expected, name);
    let gone = Item { position: 3, digest: plimsoll_core::digest::RowDigest([1; 32]) };
    assert_eq!(source.rows_of(0, &[gone]).expect("rows"), [], "{name}");
    let mut keys: Vec<SourceKey> = rows.iter().rev().map(|row| SourceKey::Encoded(row.key.clone())).collect();
    keys.insert(keys.len() / 2, SourceKey::Encoded(vec![1, 2, 0, 0, 0, 0, 0, 0, 0, 0x40]));
    let by_key: HashMap<&[u8], &SourceRow> = rows.iter().map(|row| (row.key.as_slice(), row)).collect();
    let looked_up = source.lookup(0, &keys).expect("looked up");
    assert_eq!(looked_up.len(), keys.len(), "{name}");
    for (key, found) in keys.iter().zip(looked_up) {
        let SourceKey::Encoded(key) = key else { continue };
        let expected = by_key.get(key.as_slice()).map(|row| SourceRecord::Row((*row).clone()));
        assert_eq!(found, expected, "{name}");
    }
}
