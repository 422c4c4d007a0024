//! SQLite as a database that is written to: what is its own. What all kinds have in common is tested on each of them alike
//! by the conformance suite.

use std::collections::BTreeMap;

use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::manifest::Item;
use plimsoll_core::row::{RowWriter, key_of, position_in, put_varint};
use plimsoll_core::schema::TableSchema;
use plimsoll_core::store::{Applied, SourceKey, SourceRecord, SourceRow};
use plimsoll_core::value::Value;

use super::golden::corpus::{Entry, entries};
use super::{Fixture, schema};
use crate::config::TableConfig;
use crate::source::local::LocalDatabase;
use crate::source::plan::TablePlan;
use crate::source::sqlite::Sqlite;
use crate::source::write::{Expected, LocalStore, RowChange};

/// The store over one table.
fn store(
    fixture: &Fixture,
    columns: &[(&str, &str)],
    config: TableConfig,
) -> (Box<dyn LocalStore>, TableSchema) {
    let mut local = Sqlite::open_writable(&fixture.path()).expect("opened");
    let found = local.table("t").expect("a table");
    let schema = schema(columns, "");
    let config = TableConfig { name: "t".to_owned(), ..config };
    let plan = TablePlan::new(&found, schema.clone(), &config, &[]).expect("they fit");
    (Box::new(local).into_store(vec![plan], FingerprintKey::new([1; 32])).expect("a store"), schema)
}

fn row(schema: &TableSchema, wire: Vec<u8>) -> SourceRow {
    let digest = Digester::new(FingerprintKey::new([1; 32])).digest(&wire).expect("a digest");
    let (position, key) = (position_in(&wire, schema).expect("one"), key_of(&wire, schema).expect("one"));
    SourceRow { item: Item { position, digest }, key, row: wire }
}

fn wire(values: &[Value<'_>]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut writer = RowWriter::new(&mut wire);
    (1..).zip(values).for_each(|(number, value)| {
        writer.field(number, value);
    });
    wire
}

/// Makes changes in one transaction.
fn apply(store: &mut dyn LocalStore, changes: &[RowChange<'_>]) -> Vec<Applied> {
    let mut answers = Vec::new();
    store
        .transact(&mut |transaction| {
            answers = transaction.apply(0, changes)?;
            Ok(())
        })
        .expect("a transaction");
    answers
}

fn upsert(store: &mut dyn LocalStore, rows: &[SourceRow]) -> Vec<Applied> {
    let changes: Vec<RowChange<'_>> =
        rows.iter().map(|row| RowChange::Upsert { row, expected: Expected::Anything }).collect();
    apply(store, &changes)
}

/// Deletes rows in this order, whatever they are by now.
fn delete<'r>(store: &mut dyn LocalStore, rows: impl IntoIterator<Item = &'r SourceRow>) -> Vec<Applied> {
    let deletion = |row: &'r SourceRow| RowChange::Delete {
        position: row.item.position,
        key: &row.key,
        expected: Expected::Anything,
    };
    apply(store, &rows.into_iter().map(deletion).collect::<Vec<_>>())
}

/// The column of a type, as an application declares it.
fn declared(entry: &Entry) -> &'static str {
    use plimsoll_core::value::ColumnType as T;
    match &entry.column_type {
        T::Bool => "BOOLEAN",
        T::Int2 | T::Int4 | T::Int8 | T::Xid8 => "INTEGER",
        T::Float4 | T::Float8 => "REAL",
        T::Numeric(_) => "TEXT",
        T::Bytea => "BLOB",
        T::Uuid => "UUID",
        T::Date => "DATE",
        T::Timestamp(_) => "DATETIME",
        T::Timestamptz(_) => "TIMESTAMPTZ",
        _ => "TEXT",
    }
}

#[test]
fn values_of_the_corpus_come_back_or_are_refused() {
    let mut types: BTreeMap<(String, &'static str), Vec<Entry>> = BTreeMap::new();
    for entry in entries().into_iter().filter(|entry| entry.refused.is_none()) {
        types.entry((entry.column_type.to_string(), declared(&entry))).or_default().push(entry);
    }
    let (mut stored, mut refused) = (0, Vec::new());
    for ((column_type, declared), cases) in types {
        let fixture = Fixture::new(&format!("CREATE TABLE t (id INTEGER PRIMARY KEY, value {declared})"));
        let columns = [("id", "int8*"), ("value", column_type.as_str())];
        let (mut store, schema) = store(&fixture, &columns, TableConfig::default());
        let row_of = |(id, entry): (i64, &Entry)| {
            let mut bytes = wire(&[Value::Int(id)]);
            if let Some((1, value)) = entry.wire.as_ref().expect("a wire form").split_first() {
                put_varint(&mut bytes, 2);
                bytes.extend_from_slice(value);
            }
            row(&schema, bytes)
        };
        let rows: Vec<SourceRow> = (1..).zip(&cases).map(row_of).collect();
        let answers = upsert(store.as_mut(), &rows);
        let keys: Vec<SourceKey> = rows.iter().map(|row| SourceKey::Encoded(row.key.clone())).collect();
        let found = store.lookup(0, &keys).expect("read");
        for (((entry, row), answer), found) in cases.iter().zip(&rows).zip(answers).zip(found) {
            match (answer, found) {
                (Applied::Done, Some(SourceRecord::Row(found))) => {
                    assert_eq!(found.item, row.item, "{}", entry.name);
                    stored += 1;
                }
                (Applied::Refused { waits: false, reason }, None) => {
                    assert_eq!(reason.column.as_deref(), Some("value"), "{}: {reason:?}", entry.name);
                    assert!(reason.sqlstate.starts_with("22"), "{}: {reason:?}", entry.name);
                    refused.push(entry.name);
                }
                other => panic!("{}: {other:?}", entry.name),
            }
        }
    }
    // SQLite keeps NULL for NaN.
    assert!(refused.iter().all(|name| name.starts_with("float") && name.ends_with("NaN")), "{refused:?}");
    assert!(stored > 250, "only {stored} values were stored");
}

#[test]
fn what_waits_and_what_does_not_undoes_no_other_row() {
    let fixture = Fixture::new(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY);
         CREATE TABLE t (id INTEGER PRIMARY KEY, code TEXT UNIQUE, parent INTEGER REFERENCES parent, low INTEGER CHECK (low < 10),
             own TEXT NOT NULL DEFAULT 'mine');
         INSERT INTO parent VALUES (1); INSERT INTO t VALUES (1, 'a', 1, 1, 'one'), (2, 'b', NULL, 2, 'two')",
    );
    let columns = [("id", "int8*"), ("code", "text"), ("parent", "int8"), ("low", "int8")];
    let config = TableConfig { leave_out: vec!["own".to_owned()], ..TableConfig::default() };
    let (mut store, schema) = store(&fixture, &columns, config);
    let of = |id: i64, code: &str, parent: i64, low: i64| {
        row(&schema, wire(&[Value::Int(id), Value::Text(code), Value::Int(parent), Value::Int(low)]))
    };
    let rows = [
        of(1, "b", 1, 1),
        of(2, "a", 1, 2),
        of(3, "c", 7, 3),
        of(4, "d", 1, 40),
        of(5, "e", 1, 5),
        of(6, "e", 1, 6),
    ];
    let answers = upsert(store.as_mut(), &rows);
    let states: Vec<String> = answers
        .iter()
        .map(|answer| match answer {
            Applied::Done => "done".to_owned(),
            Applied::Refused { waits, reason } => format!("{} {waits} {:?}", reason.sqlstate, reason.column),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(
        states,
        ["done", "done", "23503 true None", "23514 false None", "done", "23505 true Some(\"code\")"]
    );
    let mut statement = fixture.writer.prepare("SELECT id || code || own FROM t ORDER BY id").expect("sound");
    let texts: Vec<String> =
        statement.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>().expect("texts");
    assert_eq!(texts, ["1bone", "2atwo", "5emine"]);
}

fn states(answers: &[Applied]) -> Vec<String> {
    let state = |answer: &Applied| match answer {
        Applied::Done => "done".to_owned(),
        Applied::Refused { waits, reason } => format!("{} {waits}", reason.sqlstate),
        other => format!("{other:?}"),
    };
    answers.iter().map(state).collect()
}

#[test]
fn keys_are_found_however_they_are_spelled_and_stay_so() {
    let fixture = Fixture::new(
        "CREATE TABLE t (id UUID PRIMARY KEY, a TEXT);
         CREATE TABLE child (t UUID REFERENCES t);
         INSERT INTO t VALUES ('{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}', 'odd'), ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A12', 'capital');
         INSERT INTO child SELECT id FROM t",
    );
    let (mut store, schema) = store(&fixture, &[("id", "uuid*"), ("a", "text")], TableConfig::default());
    let id = |last: u8| {
        let mut bytes =
            *uuid::Uuid::parse_str("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11").expect("one").as_bytes();
        bytes[15] = last;
        bytes
    };
    let of = |last: u8, text: &str| row(&schema, wire(&[Value::Uuid(id(last)), Value::Text(text)]));
    let rows = [of(0x11, "x"), of(0x12, "y"), of(0x13, "new")];
    assert_eq!(states(&upsert(store.as_mut(), &rows)), ["done"; 3]);
    let mut statement = fixture.writer.prepare("SELECT id || ' ' || a FROM t ORDER BY a").expect("sound");
    let texts: Vec<String> =
        statement.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>().expect("texts");
    assert_eq!(
        texts,
        [
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a13 new",
            "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11} x",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A12 y",
        ]
    );
    // Both have children; the third goes.
    assert_eq!(states(&delete(store.as_mut(), &rows)), ["23503 true", "23503 true", "done"]);
}

#[test]
fn converted_columns_are_written_as_the_application_keeps_them() {
    let fixture = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, s INTEGER, ms NUMERIC, j REAL, d INTEGER, r NUMERIC, plain TEXT)",
    );
    let columns = [
        ("id", "int8*"),
        ("s", "timestamptz"),
        ("ms", "timestamp"),
        ("j", "timestamp"),
        ("d", "date"),
        ("r", "numeric(9,1)"),
        ("plain", "text"),
    ];

    let convert = [
        ("s", "unix_seconds"),
        ("ms", "unix_milliseconds"),
        ("j", "julian_day"),
        ("d", "unix_seconds"),
        ("r", "round"),
        ("plain", "strip_nul"),
    ];
    let config = TableConfig {
        convert: convert
            .iter()
            .map(|(name, conversion)| ((*name).to_owned(), (*conversion).to_owned()))
            .collect(),
        ..TableConfig::default()
    };
    let (mut store, schema) = store(&fixture, &columns, config);
    let number = plimsoll_core::value::NumericBuf::parse("-2.50").expect("a number");
    let of = |id: i64, micros: i64| {
        row(
            &schema,
            wire(&[
                Value::Int(id),
                Value::Timestamptz(micros),
                Value::Timestamp(micros),
                Value::Timestamp(micros - micros.rem_euclid(1000)),
                Value::Date(8825),
                Value::Numeric(number.borrow()),
                Value::Text("x"),
            ]),
        )
    };
    let rows = [of(1, 762_518_430_000_000), of(2, 762_518_430_123_456), of(3, -1_500_000)];
    assert_eq!(states(&upsert(store.as_mut(), &rows)), ["done"; 3]);
    let text: String = fixture
        .writer
        .query_row(
            "SELECT s || ' ' || ms || ' ' || typeof(s) || ' ' || datetime(j) || ' ' || d || ' ' || r FROM t WHERE id = 1",
            [],
            |row| row.get(0),
        )
        .expect("a row");
    assert_eq!(text, "1709203230 1709203230000 integer 2024-02-29 10:40:30 1709164800 -2.5");
    // What SQLite's own functions do not reach.
    let infinite = of(4, i64::MAX);
    assert_eq!(states(&upsert(store.as_mut(), &[infinite])), ["22003 false"]);
}

#[test]
fn rows_that_refer_to_each_other_come_and_go_in_any_order() {
    let fixture = Fixture::new("CREATE TABLE t (id INTEGER PRIMARY KEY, before INTEGER REFERENCES t)");
    let (mut store, schema) = store(&fixture, &[("id", "int8*"), ("before", "int8")], TableConfig::default());
    // Each refers to the one that comes behind it.
    let rows: Vec<SourceRow> =
        (1..=500).map(|id| row(&schema, wire(&[Value::Int(id), Value::Int((id + 1).min(500))]))).collect();
    assert!(states(&upsert(store.as_mut(), &rows)).iter().all(|state| state == "done"));
    assert!(states(&delete(store.as_mut(), rows.iter().rev())).iter().all(|state| state == "done"));
}

#[test]
fn a_row_that_no_encoding_holds_is_deleted_as_it_was_seen() {
    let fixture = Fixture::new(
        "CREATE TABLE t (id, n INTEGER, UNIQUE (id)); INSERT INTO t VALUES (1, 'x'), ('y', 1), (3, 3)",
    );
    let (mut store, _) = store(&fixture, &[("id", "int8*"), ("n", "int8")], TableConfig::default());
    let mut bad = Vec::new();
    store
        .look(&mut |look| {
            look.rows(0, &[plimsoll_core::store::PositionRange::ALL], &mut |row| {
                if let crate::source::write::RowSeen::Bad(row) = row {
                    bad.push(row.clone());
                }
                Ok(())
            })
        })
        .expect("a look");
    assert_eq!(bad.len(), 2);
    fixture.run("UPDATE t SET n = 'z' WHERE id = 1");
    let changes: Vec<RowChange<'_>> =
        bad.iter().map(|bad| RowChange::DeleteBad { key: &bad.key, expected: bad.source_digest }).collect();
    let mut found = states(&apply(store.as_mut(), &changes));
    found.sort();
    assert_eq!(found, ["Changed", "done"]);
    let left: String = fixture
        .writer
        .query_row("SELECT group_concat(id || n) FROM (SELECT id, n FROM t ORDER BY id)", [], |row| {
            row.get(0)
        })
        .expect("a row");
    assert_eq!(left, "1z,33");
}

#[test]
fn a_row_whose_deferred_foreign_key_does_not_hold_waits_alone() {
    let fixture = Fixture::new(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY);
         CREATE TABLE t (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED,
             other INTEGER REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE child (t INTEGER NOT NULL REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO parent VALUES (1)",
    );
    let columns = [("id", "int8*"), ("parent", "int8"), ("other", "int8")];
    let (mut store, schema) = store(&fixture, &columns, TableConfig::default());
    let of = |id: i64, parent: i64, other: i64| {
        row(&schema, wire(&[Value::Int(id), Value::Int(parent), Value::Int(other)]))
    };
    // A circle, one whose parent is not there, and one that refers to that.
    let rows = [of(1, 1, 2), of(2, 1, 1), of(3, 7, 1), of(4, 1, 3), of(5, 1, 5)];
    assert_eq!(states(&upsert(store.as_mut(), &rows)), ["done", "done", "23503 true", "23503 true", "done"]);
    fixture.run("INSERT INTO child VALUES (5); INSERT INTO parent VALUES (7)");
    assert_eq!(states(&upsert(store.as_mut(), &rows)), ["done"; 5]);
    let answers = delete(store.as_mut(), [&rows[0], &rows[1], &rows[4], &rows[3]]);
    // The third refers to the first, and the first to the second.
    assert_eq!(states(&answers), ["23503 true", "23503 true", "23503 true", "done"]);
}

#[test]
fn a_row_that_a_trigger_refuses_is_not_there_however_it_is_refused() {
    for raise in ["ABORT", "FAIL"] {
        let fixture = Fixture::new(&format!(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT);
             CREATE TABLE seen (id INTEGER);
             INSERT INTO t VALUES (2, 'old');
             CREATE TRIGGER after_insert AFTER INSERT ON t BEGIN
                 INSERT INTO seen VALUES (new.id);
                 SELECT RAISE({raise}, 'no even numbers') WHERE new.id % 2 = 0; END;
             CREATE TRIGGER after_update AFTER UPDATE ON t BEGIN SELECT RAISE({raise}, 'nor these'); END"
        ));
        let (mut store, schema) = store(&fixture, &[("id", "int8*"), ("a", "text")], TableConfig::default());
        let of = |id: i64| row(&schema, wire(&[Value::Int(id), Value::Text("new")]));
        let rows: Vec<SourceRow> = (1..9).map(of).collect();
        for (id, answer) in (1..9).zip(upsert(store.as_mut(), &rows)) {
            match answer {
                Applied::Done => assert_eq!(id % 2, 1, "{raise}"),
                Applied::Refused { waits: false, reason } => {
                    assert_eq!((id % 2, reason.sqlstate.as_str()), (0, "P0001"), "{raise} {reason:?}");
                }
                other => panic!("{raise} {id}: {other:?}"),
            }
        }
        drop(store);
        let local = rusqlite::Connection::open(fixture.path()).expect("opened");
        let text = |sql: &str| -> String { local.query_row(sql, [], |row| row.get(0)).expect("a text") };
        assert_eq!(
            text("SELECT group_concat(id || a) FROM (SELECT * FROM t ORDER BY id)"),
            "1new,2old,3new,5new,7new"
        );
        assert_eq!(
            text("SELECT group_concat(id) FROM (SELECT id FROM seen ORDER BY id)"),
            "1,3,5,7",
            "{raise}"
        );
    }
}

#[test]
fn a_row_that_cannot_be_deleted_is_there_whatever_a_trigger_had_done() {
    for (said, refuses, sqlstate, most) in [
        ("OR FAIL", "one INTEGER UNIQUE", "23505", 2),
        ("", "one INTEGER UNIQUE ON CONFLICT FAIL", "23505", 2),
        ("OR FAIL", "one INTEGER CHECK (one = 2)", "23514", 1),
    ] {
        let fixture = Fixture::new(&format!(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT);
             CREATE TABLE told (id INTEGER);
             CREATE TABLE seen ({refuses});
             INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd');
             CREATE TRIGGER tells AFTER DELETE ON t BEGIN
                 INSERT INTO told VALUES (old.id);
                 INSERT {said} INTO seen SELECT 1 WHERE old.id > 1; END"
        ));
        let (mut store, schema) = store(&fixture, &[("id", "int8*"), ("a", "text")], TableConfig::default());
        let of = |(id, text)| row(&schema, wire(&[Value::Int(id), Value::Text(text)]));
        let rows: Vec<SourceRow> = [(1, "a"), (2, "b"), (3, "c"), (4, "d")].map(of).to_vec();
        let answers = delete(store.as_mut(), &rows);
        let gone = states(&answers).iter().filter(|state| *state == "done").count();
        assert_eq!(gone, most, "{said} {refuses}: {answers:?}");
        assert!(
            states(&answers).iter().all(|state| state == "done" || state.starts_with(sqlstate)),
            "{answers:?}"
        );
        drop(store);
        let local = rusqlite::Connection::open(fixture.path()).expect("opened");
        let count = |sql: &str| -> usize { local.query_row(sql, [], |row| row.get(0)).expect("a count") };
        assert_eq!(count("SELECT count(*) FROM t"), 4 - gone, "{said} {refuses}: {answers:?}");
        assert_eq!(count("SELECT count(*) FROM told"), gone, "{said} {refuses}");
    }
}
