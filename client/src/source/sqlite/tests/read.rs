//! Order, ties, windows, what stands nowhere, and the change token.

use plimsoll_core::store::{BatchLimit, PositionRange, ROW_ROOM, Source, SourceWindow};

use super::{Fixture, read_all, shown};

const ITEMS: &str = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, version INTEGER);
                     CREATE INDEX by_version ON items (version, id);";
const COLUMNS: [(&str, &str); 3] = [("id", "int8*"), ("name", "text"), ("version", "int8!")];

#[test]
fn batches_come_in_order_of_version_and_key_whatever_their_size() {
    let fixture = Fixture::new(ITEMS);
    // Ties of many rows, the highest and the lowest version, and insertion out of order.
    fixture.run(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
         INSERT INTO items SELECT 100 - i, 'n' || i, i / 40 FROM n;
         INSERT INTO items VALUES (1000, 'top', 9223372036854775807), (1001, 'bottom', -9223372036854775808);",
    );
    let mut source = fixture.source("items", &COLUMNS, "version");
    let all = read_all(&mut source, 1000);
    assert_eq!(all.len(), 102);
    for rows in [1, 3, 7, 101, 102] {
        assert_eq!(read_all(&mut source, rows), all, "{rows} at a time");
    }
    let bytes = 100 + 6 * ROW_ROOM;
    let first = source.read_batch(0, None, BatchLimit { rows: 1000, bytes }).expect("read");
    assert!(first.records.len() > 1 && first.records.len() < 10, "{} rows", first.records.len());
    let one = source.read_batch(0, None, BatchLimit { rows: 1000, bytes: 1 }).expect("read");
    assert_eq!(one.records.len(), 1, "one row comes whatever its size");
    assert!(shown(&all[0]).starts_with("-9223372036854775808: Int(1001)"), "{}", shown(&all[0]));
    assert!(shown(&all[101]).starts_with("9223372036854775807: Int(1000)"));
    assert_eq!(source.max_position(0), Ok(Some(i64::MAX)));
    // Beyond all rows of a position, as the algorithm asks for.
    let after = plimsoll_core::store::Cursor { position: 0, key: None };
    let batch = source.read_batch(0, Some(&after), BatchLimit { rows: 1, bytes: 1 << 20 }).expect("read");
    assert!(shown(&batch.records[0]).starts_with("1: Int("), "{}", shown(&batch.records[0]));
    let after = plimsoll_core::store::Cursor { position: i64::MAX, key: None };
    let batch = source.read_batch(0, Some(&after), BatchLimit { rows: 1, bytes: 1 << 20 }).expect("read");
    assert!(batch.records.is_empty() && batch.next.is_none());
}

#[test]
fn ties_are_read_by_index_not_by_sorting() {
    let fixture = Fixture::new(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, version INTEGER); CREATE INDEX av ON a (version);
         CREATE TABLE b (x TEXT, y INTEGER, version INTEGER, PRIMARY KEY (x, y)) WITHOUT ROWID;
         CREATE INDEX bv ON b (version);",
    );
    for (table, key) in [("a", "id"), ("b", "x, y")] {
        let marks = if table == "a" { "?1, ?2" } else { "?1, ?2, ?3" };
        let sql = format!(
            "EXPLAIN QUERY PLAN SELECT * FROM {table} WHERE (version, {key}) > ({marks}) ORDER BY version, {key}"
        );
        let mut statement = fixture.writer.prepare(&sql).expect("prepared");
        let marks = vec![1i64; marks.split(',').count()];
        let plan: Vec<String> = statement
            .query_map(rusqlite::params_from_iter(marks), |row| row.get(3))
            .expect("planned")
            .map(|line| line.expect("a line"))
            .collect();
        assert_eq!(plan.len(), 1, "{plan:?}");
        assert!(
            plan[0].contains(&format!("(version,{}", key.split(',').next().expect("one")))
                || plan[0].contains("(version"),
            "{plan:?}"
        );
    }
}

#[test]
fn windows_hold_whole_positions_and_their_open_ends() {
    let fixture = Fixture::new(ITEMS);
    fixture.run(
        "INSERT INTO items VALUES (1, 'a', 10), (2, 'b', 10), (3, 'c', 10), (4, 'd', 20), (5, 'e', 30);",
    );
    let mut source = fixture.source("items", &COLUMNS, "version");
    let mut window = |range, rows| {
        let window = source.window(0, range, rows).expect("a window");
        let positions: Vec<i64> = window.items.iter().map(|item| item.position).collect();
        (window.range, positions)
    };
    let range = |from, to| PositionRange { from, to };
    assert_eq!(window(PositionRange::ALL, 1), (range(None, Some(20)), vec![10, 10, 10]));
    assert_eq!(window(PositionRange::ALL, 4), (range(None, Some(30)), vec![10, 10, 10, 20]));
    assert_eq!(window(PositionRange::ALL, 5), (PositionRange::ALL, vec![10, 10, 10, 20, 30]));
    assert_eq!(window(range(Some(11), None), 1), (range(Some(11), Some(30)), vec![20]));
    assert_eq!(window(range(Some(11), Some(20)), 9), (range(Some(11), Some(20)), vec![]));
    assert_eq!(window(range(Some(10), Some(30)), 9), (range(Some(10), Some(30)), vec![10, 10, 10, 20]));
    assert_eq!(window(range(Some(31), None), 9), (range(Some(31), None), vec![]));
    assert_eq!(source.row_count(0), Ok(5));
    assert_eq!(source.tail_start(0, i64::MAX, 1), Ok(Some(30)));
    assert_eq!(source.tail_start(0, 20, 2), Ok(Some(10)));
    assert_eq!(source.tail_start(0, 20, 4), Ok(Some(10)));
    assert_eq!(source.tail_start(0, 20, 5), Ok(None));
}

#[test]
fn several_windows_are_those_that_each_range_has_with_an_index_and_without() {
    for index in ["CREATE INDEX by_version ON items (version)", ""] {
        let fixture = Fixture::new(&format!(
            "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, version INTEGER); {index}"
        ));
        fixture.run(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
             INSERT INTO items SELECT i, 'n' || i, (i * 7) % 1000 / 2 FROM n;
             INSERT INTO items VALUES (2000, 'low', -9223372036854775808), (2001, 'top', 9223372036854775807),
                                      (2002, 'null', NULL), (2003, CAST(x'00' AS TEXT), 12);",
        );
        let mut source = fixture.source("items", &COLUMNS, "version");
        let range = |from, to| PositionRange { from, to };
        let ranges = [
            range(None, Some(i64::MIN + 1)),
            range(Some(10), Some(13)),
            range(Some(13), Some(14)),
            range(Some(600), Some(700)),
            range(Some(i64::MAX), None),
        ];
        let sorted = |mut window: SourceWindow| {
            window.items.sort_unstable();
            window
        };
        let mut read = |rows| -> Vec<_> {
            source.windows(0, &ranges, rows).expect("windows").into_iter().map(sorted).collect()
        };
        let (windows, first) = (read(1_000), read(4));
        let each: Vec<_> =
            ranges.iter().map(|range| sorted(source.window(0, *range, 1_000).expect("a window"))).collect();
        assert_eq!(windows, each, "{index}");
        let rows: Vec<_> = windows.iter().map(|window| (window.items.len(), window.bad.len())).collect();
        assert_eq!(rows, [(1, 1), (6, 1), (2, 0), (0, 0), (1, 0)], "{index}");
        // What lies behind those that have the rows asked for is left out, or all of it is there.
        assert!(!first.is_empty() && windows[..first.len() - 1] == first[..first.len() - 1], "{index}");
    }
}

#[test]
fn rows_without_a_version_are_reported_once_and_delay_nobody() {
    let fixture = Fixture::new(ITEMS);
    fixture.run(
        "INSERT INTO items VALUES (1, 'a', 10), (2, 'null', NULL), (3, 'text', 'x'), (4, 'half', 10.5),
         (5, 'blob', x'00'), (6, 'z', 11), (7, 'huge', 1e300);",
    );
    let mut source = fixture.source("items", &COLUMNS, "version");
    let good: Vec<String> = read_all(&mut source, 1).iter().map(shown).collect();
    assert_eq!(good, ["10: Int(1) Text(\"a\") Int(10)", "11: Int(6) Text(\"z\") Int(11)"]);
    assert_eq!(source.max_position(0), Ok(Some(11)));
    assert_eq!(source.tail_start(0, 11, 2), Ok(Some(10)));
    let first = source.window(0, PositionRange::ALL, 100).expect("a window");
    assert_eq!(first.items.len(), 2);
    let mut bad: Vec<&str> = first.bad.iter().map(|bad| bad.key_text.as_str()).collect();
    bad.sort_unstable();
    assert_eq!(bad, ["{\"id\":2}", "{\"id\":3}", "{\"id\":4}", "{\"id\":5}", "{\"id\":7}"]);
    assert!(first.bad.iter().all(|bad| bad.position.is_none() && bad.column.as_deref() == Some("version")));
    let later = source.window(0, PositionRange::starting_at(i64::MIN), 100).expect("a window");
    assert!(later.bad.is_empty());
}

#[test]
fn bad_rows_keep_their_place_and_change_their_digest() {
    let fixture = Fixture::new("CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT NOT NULL, v INTEGER)");
    fixture
        .run("INSERT INTO t VALUES (1, 'a' || char(0) || 'b', 5), (2, CAST(x'ff' AS TEXT), 6), (3, 'c', 7)");
    let mut source = fixture.source("t", &[("id", "int8*"), ("note", "varchar(2)!"), ("v", "int8!")], "v");
    let records = read_all(&mut source, 1);
    let list: Vec<String> = records.iter().map(shown).collect();
    assert_eq!(list[0], "Some(5): bad note 22P02");
    assert_eq!(list[1], "Some(6): bad note 22P02");
    assert!(list[2].starts_with("7: "));
    let digest = |source: &mut super::SqliteSource| {
        let window = source.window(0, PositionRange::ALL, 9).expect("a window");
        assert_eq!(window.bad.len(), 2);
        window.bad[0].source_digest
    };
    let before = digest(&mut source);
    assert_eq!(digest(&mut source), before);
    fixture.run("UPDATE t SET note = 'a' || char(0) WHERE id = 1");
    assert_ne!(digest(&mut source), before);
}

#[test]
fn keys_with_null_are_bad_rows_and_reading_goes_on_behind_them() {
    let fixture = Fixture::new("CREATE TABLE t (a TEXT, b TEXT, v INTEGER NOT NULL, PRIMARY KEY (a, b))");
    fixture.run(
        "INSERT INTO t VALUES (NULL, 'x', 1), (NULL, 'y', 1), ('a', NULL, 1), ('a', 'b', 1), ('c', 'd', 2)",
    );
    let mut source = fixture.source("t", &[("a", "text*"), ("b", "text*"), ("v", "int8!")], "v");
    let list: Vec<String> = read_all(&mut source, 1).iter().map(shown).collect();
    assert_eq!(list.len(), 5, "{list:?}");
    assert_eq!(list.iter().filter(|row| row.contains("23502")).count(), 3);
    assert!(list[4].starts_with("2: "));
}

#[test]
fn timestamps_are_versions_also_where_their_spellings_are_mixed() {
    let fixture = Fixture::new("CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT); CREATE INDEX i ON t (at)");
    fixture.run(
        "INSERT INTO t VALUES (1, '2000-01-01 00:00:03'), (2, '2000-01-01 00:00:01'),
         (3, '2000-01-01 00:00:01.000'), (4, '2000-01-01 00:00:02.5')",
    );
    let mut source = fixture.source("t", &[("id", "int8*"), ("at", "timestamptz!")], "at");
    let order = |source: &mut super::SqliteSource| -> Vec<i64> {
        let positions = read_all(source, 1).into_iter().map(|record| match record {
            plimsoll_core::store::SourceRecord::Row(row) => row.item.position,
            other => panic!("{other:?}"),
        });
        positions.collect()
    };
    assert_eq!(order(&mut source), [1_000_000, 1_000_000, 2_500_000, 3_000_000]);
    assert_eq!(source.max_position(0), Ok(Some(3_000_000)));
    // Spellings whose text sorts elsewhere come while the source is open: what was read in the wrong order
    // ends, and the next run reads in the right one.
    fixture.run("INSERT INTO t VALUES (5, '2000-01-01T00:00:02'), (6, '1999-12-31T23:00:00-02:00')");
    assert!(order(&mut source).is_sorted());
    let mut source = fixture.source("t", &[("id", "int8*"), ("at", "timestamptz!")], "at");
    assert_eq!(order(&mut source), [1_000_000, 1_000_000, 2_000_000, 2_500_000, 3_000_000, 3_600_000_000]);
    assert_eq!(source.max_position(0), Ok(Some(3_600_000_000)));
    let range = PositionRange { from: Some(1_000_001), to: Some(3_000_000) };
    let window = source.window(0, range, 100).expect("a window");
    assert_eq!(window.items.iter().map(|item| item.position).collect::<Vec<_>>(), [2_000_000, 2_500_000]);
    assert_eq!(source.rows_of(0, &window.items).expect("rows").len(), 2);
}

#[test]
fn keys_that_only_their_index_tells_apart_are_all_read() {
    for key in [
        "k TEXT COLLATE NOCASE, v INTEGER); CREATE UNIQUE INDEX u ON t (k COLLATE BINARY",
        "k TEXT COLLATE RTRIM, v INTEGER, PRIMARY KEY (k COLLATE BINARY)",
    ] {
        let fixture = Fixture::new(&format!("CREATE TABLE t ({key});"));
        fixture.run("INSERT INTO t VALUES ('a', 1), ('A', 1), ('a ', 1), ('b', 1), ('B', 1), ('b  ', 1)");
        let mut source = fixture.source("t", &[("k", "text*"), ("v", "int8!")], "v");
        let all = read_all(&mut source, 100);
        assert_eq!(all.len(), 6);
        assert_eq!(read_all(&mut source, 1), all);
        assert_eq!(read_all(&mut source, 2), all);
    }
}

#[test]
fn one_pass_over_all_rows_lets_writers_in_between() {
    let fixture = Fixture::new("CREATE TABLE t (k TEXT PRIMARY KEY, name TEXT)");
    fixture.run(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2999)
         INSERT INTO t SELECT 'k' || i, 'n' || i FROM n",
    );
    let columns = [("k", "text*"), ("name", "text")];
    let ranges = [PositionRange { from: None, to: Some(0) }, PositionRange::starting_at(0)];
    let mut whole = fixture.source("t", &columns, "");
    let expected = whole.fingerprints(0, &ranges).expect("fingerprints");
    assert_eq!(expected.iter().map(|held| held.rows.row_count()).sum::<u64>(), 3000);
    // Each snapshot is over after 256 rows.
    let mut pieces = fixture.source("t", &columns, "").with_snapshots_of(std::time::Duration::ZERO);
    assert_eq!(pieces.fingerprints(0, &ranges), Ok(expected));
    let all = whole.window(0, PositionRange::ALL, 10_000).expect("a window");
    assert_eq!(pieces.window(0, PositionRange::ALL, 10_000), Ok(all.clone()));
    assert_eq!(pieces.rows_of(0, &all.items[..500]).expect("rows").len(), 500);
}

#[test]
fn odd_names_are_names_like_others() {
    let fixture = Fixture::new(
        "CREATE TABLE \"order \"\"x\"\" lines\" (\"2B\" INTEGER, \"a.b\" TEXT, \"Größe\" REAL, \"select\" INTEGER,
         PRIMARY KEY (\"2B\", \"a.b\")) WITHOUT ROWID;
         INSERT INTO \"order \"\"x\"\" lines\" VALUES (1, 'k', 1.5, 9);",
    );
    let columns = [("2B", "int4*"), ("a.b", "text*"), ("größe", "float8"), ("select", "int8!")];
    // Only ASCII letters have a case in SQLite's names.
    let columns = [columns[0], columns[1], ("Größe", columns[2].1), columns[3]];
    let mut source = fixture.source("order \"x\" lines", &columns, "select");
    let records = read_all(&mut source, 10);
    assert_eq!(shown(&records[0]), "9: Int(1) Text(\"k\") Float(1.5) Int(9)");
}

#[test]
fn the_token_changes_with_every_commit_in_both_journal_modes() {
    for mode in ["delete", "wal"] {
        let fixture = Fixture::new(ITEMS);
        fixture.run(&format!("PRAGMA journal_mode = {mode}"));
        let mut source = fixture.source("items", &COLUMNS, "version");
        let mut tokens = vec![source.change_token().expect("a token").expect("a token")];
        for i in 0..20 {
            // Reading is no change.
            source.window(0, PositionRange::ALL, 10).expect("a window");
            assert_eq!(source.change_token().expect("a token").as_ref(), tokens.last(), "{mode}");
            if i == 10 {
                fixture.run("PRAGMA wal_checkpoint(TRUNCATE)");
            }
            fixture.run(&format!("INSERT INTO items VALUES ({i}, 'x', 1)"));
            let token = source.change_token().expect("a token").expect("a token");
            assert!(!tokens.contains(&token), "{mode}: the token came again after commit {i}");
            tokens.push(token);
        }
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_took_the_place_of_the_one_that_is_read_ends_the_run() {
    let fixture = Fixture::new(ITEMS);
    let mut source = fixture.source("items", &COLUMNS, "version");
    assert!(source.change_token().expect("a token").is_some());
    let path = fixture.path();
    std::fs::copy(&path, path.with_extension("copy")).expect("a copy");
    std::fs::rename(path.with_extension("copy"), &path).expect("another file");
    let failure = source.change_token().expect_err("another file");
    assert_eq!(failure.kind, plimsoll_core::store::FailureKind::Run);
}
