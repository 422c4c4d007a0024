//! Ranges that are asked for one after the other, whose rows are read in one pass.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use plimsoll_client::config::TableConfig;
use plimsoll_client::source::plan::TablePlan;
use plimsoll_client::source::{Place, open_writable};
use plimsoll_client::two_way::{Guarding, LocalTable, LocalTables, MadeOf};
use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::row::Fields;
use plimsoll_core::schema::{Column, Roles, TableSchema};
use plimsoll_core::store::{
    Base, BaseInfo, Conclusion, LocalContent, LocalRow, LocalSide, MemoryEntry, PositionRange, Settle,
    SourceKey, SourceRecord,
};
use plimsoll_core::value::{ColumnType, Value};
use rusqlite::Connection;

fn schema() -> TableSchema {
    let columns = [("id", ColumnType::Char(10)), ("version", ColumnType::Int8), ("note", ColumnType::Text)];
    let column = |(number, (name, column_type)): (u32, (&str, ColumnType))| Column {
        number,
        name: name.to_owned(),
        column_type,
        not_null: false,
    };
    let columns = (1..).zip(columns).map(column).collect();
    let roles = Roles { key: &["id"], version: Some("version"), placed_by: &["id"], ..Roles::default() };
    TableSchema::new(columns, &roles).expect("a schema")
}

fn tables(path: &std::path::Path) -> LocalTables {
    let mut local = open_writable(&Place::Sqlite(path.to_owned())).expect("a file");
    let config = TableConfig { name: "t".to_owned(), ..TableConfig::default() };
    let plan = TablePlan::new(&local.table("t").expect("a table"), schema(), &config, &[]).expect("a plan");
    let store = local.into_store(vec![plan], FingerprintKey::new([7; 32])).expect("a store");
    let table = LocalTable {
        name: "t".to_owned(),
        local: "t".to_owned(),
        schema: schema(),
        merging: None,
        keeps_rows: false,
        made_of: MadeOf::default(),
    };
    LocalTables::new(store, vec![table], Guarding::Off)
}

/// Four groups, the last one first: two ranges each, all of the table together.
fn groups() -> Vec<Vec<PositionRange>> {
    let end = |at: i64| (at > 0 && at < 8).then(|| (at - 4) * (1 << 61));
    let range = |at: i64| PositionRange { from: end(at), to: end(at + 1) };
    (0..4).rev().map(|group| vec![range(2 * group), range(2 * group + 1)]).collect()
}

fn sorted(mut rows: Vec<LocalRow>) -> Vec<LocalRow> {
    rows.sort_by_key(LocalRow::memory_key);
    rows
}

#[test]
fn rows_that_were_read_with_others_are_those_that_are_read_by_themselves() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("local.db");
    let connection = Connection::open(&path).expect("a file");
    // Some are long; some share a key once it is text; some have a key or a version that is none.
    connection
        .execute_batch(
            "CREATE TABLE t (id PRIMARY KEY NOT NULL, version, note TEXT);
             WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 3000)
             INSERT INTO t SELECT 'row ' || n, n, CASE n % 500 WHEN 0 THEN hex(zeroblob(3000)) ELSE 'note ' || n END FROM n;
             UPDATE t SET note = x'ff' WHERE version % 700 = 0;
             INSERT INTO t VALUES (x'00ff', 1, 'no text'), ('none', 'soon', 'no number'), (5, 1, 'five'), ('5', 2, 'five'), ('row 77 ', 3, 'twice'), ('row 2345 ', 3, 'twice')",
        )
        .expect("rows");
    let (mut together, mut apart) = (tables(&path), tables(&path));
    together.spool_from(1, tempfile::tempfile);
    together.held(0, &[PositionRange::ALL]).expect("held");
    let groups = groups();
    let mut seen = 0;
    for (at, ranges) in groups.iter().enumerate() {
        let mut rows = together.states(0, ranges, &groups[at + 1..]).expect("states").rows;
        rows = sorted(rows);
        assert_eq!(rows, sorted(apart.states(0, ranges, &[]).expect("states").rows), "group {at}");
        seen += rows.len();
        if at == 0 {
            // From here on the rows of the other groups are what they were.
            connection.execute_batch("UPDATE t SET note = note WHERE version = 1").expect("no change");
        }
        let keys: Vec<SourceKey> = rows
            .iter()
            .filter(|row| matches!(row.content, LocalContent::Row { .. }))
            .map(|row| row.key.clone())
            .chain([SourceKey::Encoded(vec![9; 9])])
            .collect();
        let found = together.lookup(0, &keys, usize::MAX).expect("rows");
        assert_eq!(found, apart.lookup(0, &keys, usize::MAX).expect("rows"), "group {at}");
        assert_eq!(found.iter().filter(|found| found.is_none()).count(), 1);
    }
    assert!(seen > 2_900, "{seen}");
}

/// The groups, of which the first was told, and the others were read with it.
fn told_first(path: &std::path::Path, rows: &str) -> (LocalTables, Connection, Vec<Vec<PositionRange>>) {
    let application = Connection::open(path).expect("a file");
    application
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; CREATE TABLE t (id PRIMARY KEY NOT NULL, version, note TEXT);
             WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100)
             INSERT INTO t SELECT 'row ' || n, n, 'old' FROM n; {rows}"
        ))
        .expect("rows");
    let mut local = tables(path);
    local.spool_from(1, tempfile::tempfile);
    local.recall(0).expect("a run");
    local.begin_base(0, BaseInfo::default()).expect("a base");
    local.held(0, &[PositionRange::ALL]).expect("held");
    let groups = groups();
    let rows = local.states(0, &groups[0], &groups[1..]).expect("states").rows;
    assert!(!rows.is_empty());
    (local, application, groups)
}

fn is_good(row: &&LocalRow) -> bool {
    matches!(row.content, LocalContent::Row { .. })
}

/// The notes of rows that were told of.
fn notes(local: &mut LocalTables, rows: &[LocalRow]) -> Vec<String> {
    let keys: Vec<SourceKey> = rows.iter().filter(is_good).map(|row| row.key.clone()).collect();
    let found = local.lookup(0, &keys, usize::MAX).expect("rows");
    let note = |record: Option<SourceRecord>| match record {
        Some(SourceRecord::Row(row)) => {
            let last = Fields::new(&row.row).last().expect("fields").expect("a field");
            match last.value {
                Value::Text(note) => note.to_owned(),
                value => panic!("{value:?}"),
            }
        }
        _ => "none".to_owned(),
    };
    found.into_iter().map(note).collect()
}

#[test]
fn what_was_read_ahead_is_told_once_and_not_in_another_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut local, application, groups) = told_first(&folder.path().join("local.db"), "");
    application.execute_batch("UPDATE t SET note = 'new'").expect("changes");
    for (at, again) in [(1, "new"), (2, "new")] {
        let rows = local.states(0, &groups[at], &groups[at + 1..]).expect("states").rows;
        assert!(notes(&mut local, &rows).iter().all(|note| note == "old") && !rows.is_empty());
        // Whoever asks once more wants to know what it is now.
        let rows = local.states(0, &groups[at], &[]).expect("states").rows;
        assert!(notes(&mut local, &rows).iter().all(|note| note == again) && !rows.is_empty());
        let rows = local.states(0, &groups[0], &groups[1..]).expect("states").rows;
        assert!(!rows.is_empty(), "read ahead once more");
        application.execute_batch("UPDATE t SET note = 'old'").expect("changes");
        let rows = local.states(0, &groups[3], &[]).expect("states").rows;
        assert!(notes(&mut local, &rows).iter().all(|note| note == "new"));
        let rows = local.states(0, &groups[0], &groups[1..]).expect("states").rows;
        assert!(!rows.is_empty(), "and once more");
        application.execute_batch("UPDATE t SET note = 'new'").expect("changes");
    }
    application.execute_batch("DELETE FROM t").expect("no rows any more");
    local.recall(0).expect("a run");
    assert_eq!(local.states(0, &groups[3], &[]).expect("states").rows, []);
}

#[test]
fn a_row_whose_double_is_gone_since_it_was_read_ahead_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let doubles = "INSERT INTO t SELECT id || ' ', version, 'old' FROM t";
    let (mut local, application, groups) = told_first(&folder.path().join("local.db"), doubles);
    // Of two rows of each key one stays, by turns.
    application
        .execute_batch("DELETE FROM t WHERE (substr(id, -1) = ' ') = (version % 2 = 1)")
        .expect("no doubles any more");
    let (mut rows, first) = (0, 1);
    for at in first..groups.len() {
        let states = local.states(0, &groups[at], &groups[at + 1..]).expect("states").rows;
        assert!(states.iter().all(|row| is_good(&row)), "group {at}");
        rows += states.len();
    }
    let mut apart = tables(&folder.path().join("local.db"));
    let there: usize =
        groups[first..].iter().map(|group| apart.states(0, group, &[]).expect("states").rows.len()).sum();
    assert_eq!(rows, there);
    assert!(rows > 50, "{rows}");
}

#[test]
fn what_is_remembered_of_is_read_at_its_turn() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut local, application, groups) = told_first(&folder.path().join("local.db"), "");
    let mut apart = tables(&folder.path().join("local.db"));
    let known = apart.states(0, &groups[2], &[]).expect("states").rows.remove(0);
    let base = Some(Base { digest: [1; 16], columns: Vec::new() });
    let entry = MemoryEntry { key: known.memory_key(), base, open: None };
    let settled = vec![Settle { entry, closes: false }];
    local.conclude(0, &Conclusion { serial: 1, settled, ..Conclusion::default() }).expect("remembered");
    application.execute_batch("UPDATE t SET note = 'new'").expect("changes");
    for (at, note) in [(1, "old"), (2, "new"), (3, "old")] {
        let states = local.states(0, &groups[at], &groups[at + 1..]).expect("states");
        assert_eq!(states.entries.len(), usize::from(at == 2));
        assert!(!states.rows.is_empty());
        assert!(notes(&mut local, &states.rows).iter().all(|found| found == note), "group {at}");
    }
}

static FULL: AtomicUsize = AtomicUsize::new(0);

/// A file on a full disk.
fn full() -> io::Result<File> {
    FULL.fetch_add(1, Ordering::Relaxed);
    File::options().read(true).write(true).open("/dev/full")
}

#[test]
fn without_room_for_a_file_rows_are_read_at_their_turn_and_none_is_tried_until_the_next_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("local.db");
    let large = "UPDATE t SET note = hex(zeroblob(900))";
    let (mut local, _application, groups) = told_first(&path, large);
    let mut apart = tables(&path);
    local.spool_from(1, full);
    for run in 1..=2 {
        local.recall(0).expect("a run");
        for (at, ranges) in groups.iter().enumerate() {
            let rows = sorted(local.states(0, ranges, &groups[at + 1..]).expect("states").rows);
            assert_eq!(rows, sorted(apart.states(0, ranges, &[]).expect("states").rows), "group {at}");
            let keys: Vec<SourceKey> = rows.iter().map(|row| row.key.clone()).collect();
            let found = local.lookup(0, &keys, usize::MAX).expect("rows");
            assert_eq!(found, apart.lookup(0, &keys, usize::MAX).expect("rows"));
            assert_eq!(FULL.load(Ordering::Relaxed), run, "a file is tried once in a run");
        }
    }
}

#[test]
fn a_row_whose_double_comes_and_goes_is_there_at_any_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("local.db");
    let application = Connection::open(&path).expect("a file");
    application
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
             CREATE TABLE t (id PRIMARY KEY NOT NULL, version, note TEXT); INSERT INTO t VALUES ('a', 1, 'stays')",
        )
        .expect("a table");
    let mut local = tables(&path);
    let is_over = AtomicUsize::new(0);
    let (mut doubled, mut single, mut wrong) = (0, 0, None);
    thread::scope(|scope| {
        let is_over = &is_over;
        scope.spawn(move || {
            while is_over.load(Ordering::Relaxed) == 0 {
                application.execute_batch("INSERT INTO t VALUES ('a ', 2, 'goes')").expect("a double");
                application.execute_batch("DELETE FROM t WHERE id = 'a '").expect("none any more");
            }
        });
        let until = Instant::now() + Duration::from_secs(20);
        while wrong.is_none() && Instant::now() < until && doubled.min(single) < 1_000 {
            let rows = local.states(0, &[PositionRange::ALL], &[]).expect("states").rows;
            let sent: Vec<_> = rows.iter().filter(is_good).map(|row| &row.key).collect();
            wrong = (!matches!(sent[..], [SourceKey::Encoded(_)])).then_some(rows.clone());
            if rows.len() == 2 { doubled += 1 } else { single += 1 }
        }
        is_over.store(1, Ordering::Relaxed);
    });
    assert_eq!(wrong, None, "after {doubled} with a double and {single} without");
    assert!(doubled.min(single) > 10, "{doubled} {single}");
}
