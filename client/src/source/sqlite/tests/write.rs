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
    (Box::new(local).into_store(vec![plan], FingerprintKey::new([1; 32])), schema)
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

fn upsert(store: &mut dyn LocalStore, rows: &[SourceRow]) -> Vec<Applied> {
    let changes: Vec<RowChange<'_>> =
        rows.iter().map(|row| RowChange::Upsert { row, expected: Expected::Anything }).collect();
    let mut answers = Vec::new();
    store
        .transact(&mut |transaction| {
            answers = transaction.apply(0, &changes)?;
            Ok(())
        })
        .expect("a transaction");
    answers
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
