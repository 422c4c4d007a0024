//! Rows found again by key and by manifest item.

use plimsoll_core::store::{PositionRange, Source, SourceKey, SourceRecord};

use super::{Fixture, read_all, shown};

fn key_of(record: &SourceRecord) -> SourceKey {
    match record {
        SourceRecord::Row(row) => SourceKey::Encoded(row.key.clone()),
        SourceRecord::Bad(bad) => bad.key.clone(),
    }
}

/// Every row is found by its key, in the order asked; keys of deleted rows are not.
fn all_are_found(fixture: &Fixture, table: &str, columns: &[(&str, &str)], version: &str) {
    let mut source = fixture.source(table, columns, version);
    let records = read_all(&mut source, 100);
    let keys: Vec<SourceKey> = records.iter().rev().map(key_of).collect();
    let found = source.lookup(0, &keys).expect("looked up");
    for (record, found) in records.iter().rev().zip(&found) {
        assert_eq!(found.as_ref(), Some(record), "{}", shown(record));
    }
    fixture.run(&format!("DELETE FROM {table}"));
    assert!(source.lookup(0, &keys).expect("looked up").iter().all(Option::is_none));
}

#[test]
fn a_key_finds_its_own_row_under_a_collation_that_folds_case() {
    let fixture = Fixture::new(
        "CREATE TABLE t (k TEXT COLLATE NOCASE, n INTEGER, v INTEGER, UNIQUE (k, n));
         CREATE TABLE other (k TEXT PRIMARY KEY COLLATE NOCASE, v INTEGER);
         INSERT INTO t VALUES ('abc', 1, 1), ('ABC', 2, 2);
         INSERT INTO other VALUES ('Abc', 1);",
    );
    let mut source = fixture.source("other", &[("k", "text*"), ("v", "int8!")], "v");
    let records = read_all(&mut source, 10);
    let SourceKey::Encoded(key) = key_of(&records[0]) else { panic!("no key") };
    let lower = key.iter().map(u8::to_ascii_lowercase).collect();
    let keys = [SourceKey::Encoded(lower), SourceKey::Encoded(key)];
    let found = source.lookup(0, &keys).expect("looked up");
    assert_eq!(found, [None, Some(records[0].clone())]);
    all_are_found(&fixture, "t", &[("k", "text*"), ("n", "int4*"), ("v", "int8!")], "v");
}

#[test]
fn keys_are_found_however_they_are_spelled() {
    let fixture = Fixture::new(
        "CREATE TABLE u (k, v INTEGER, PRIMARY KEY (k));
         INSERT INTO u VALUES ('6B3E7F7E-6F0C-4E0C-9A57-0F2F0E6F0C11', 1),
           ('6b3e7f7e6f0c4e0c9a570f2f0e6f0c12', 2), (x'6b3e7f7e6f0c4e0c9a570f2f0e6f0c13', 3),
           ('6b3E7f7e-6f0c-4e0c-9a57-0f2f0e6f0c14', 4);
         CREATE TABLE d (k, at TEXT, v INTEGER, PRIMARY KEY (at, k));
         INSERT INTO d VALUES ('1.50', '2024-01-01', 1), (1.25, '2024-01-02 00:00:00', 2), (7, '2024-01-03', 3),
           ('1e3', '2024-01-03', 4);
         CREATE TABLE c (k TEXT PRIMARY KEY, v INTEGER);
         INSERT INTO c VALUES ('a  ', 1), ('b', 2);",
    );
    all_are_found(&fixture, "u", &[("k", "uuid*"), ("v", "int8!")], "v");
    all_are_found(&fixture, "d", &[("k", "numeric*"), ("at", "date*"), ("v", "int8!")], "v");
    all_are_found(&fixture, "c", &[("k", "char(5)*"), ("v", "int8!")], "v");
}

#[test]
fn rows_whose_key_cannot_be_encoded_are_found_by_their_own_values() {
    let fixture = Fixture::new(
        "CREATE TABLE t (a, b, v INTEGER, PRIMARY KEY (a, b));
         INSERT INTO t VALUES (NULL, 'x', 1), (CAST(x'ff' AS TEXT), 'y', 2), ('ok', 'z', 3), (1.5, 'q', 4);",
    );
    let columns = [("a", "text*"), ("b", "text*"), ("v", "int8!")];
    let mut source = fixture.source("t", &columns, "v");
    let records = read_all(&mut source, 1);
    let raw = records.iter().filter(|record| matches!(key_of(record), SourceKey::Raw(_))).count();
    // NULL in its key: nothing but the whole row tells it from others.
    let by_content = records.iter().filter(|record| matches!(key_of(record), SourceKey::Long(_))).count();
    assert_eq!((raw, by_content), (2, 1));
    all_are_found(&fixture, "t", &columns, "v");
}

#[test]
fn a_bad_row_with_a_sound_key_is_found_by_that_key() {
    let fixture = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT, v INTEGER); INSERT INTO t VALUES (1, 'long', 1);",
    );
    let columns = [("id", "int8*"), ("note", "varchar(3)"), ("v", "int8!")];
    let mut source = fixture.source("t", &columns, "v");
    let records = read_all(&mut source, 1);
    assert!(matches!(key_of(&records[0]), SourceKey::Encoded(_)));
    all_are_found(&fixture, "t", &columns, "v");
}

#[test]
fn items_bring_their_rows_as_they_are_now() {
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, v INTEGER);
         INSERT INTO t VALUES (1, 'a', 5), (2, 'b', 5), (3, 'c', 6), (4, 'd', 9), (5, 'e', 9223372036854775807);";
    for index in ["", "CREATE INDEX i ON t (v)"] {
        let fixture = Fixture::new(&format!("{sql}{index}"));
        let columns = [("id", "int8*"), ("name", "text"), ("v", "int8!")];
        let mut source = fixture.source("t", &columns, "v");
        let items = source.window(0, PositionRange::ALL, 10).expect("a window").items;
        assert_eq!(source.rows_of(0, &items).expect("rows").len(), 5);
        fixture.run("UPDATE t SET name = 'B' WHERE id = 2; UPDATE t SET v = 7 WHERE id = 3");
        let rows = source.rows_of(0, &items[..4]).expect("rows");
        let names: Vec<String> = rows.iter().map(|row| shown(&SourceRecord::Row(row.clone()))).collect();
        assert_eq!(names, ["5: Int(1) Text(\"a\") Int(5)", "9: Int(4) Text(\"d\") Int(9)"]);
    }
}
