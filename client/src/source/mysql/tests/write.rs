//! MariaDB as a database that is written to: what is its own. What all kinds have in common is tested on each of them alike
//! by the conformance suite.

use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::manifest::Item;
use plimsoll_core::row::{RowWriter, key_of, position_in, put_varint};
use plimsoll_core::schema::TableSchema;
use plimsoll_core::store::{Applied, SourceKey, SourceRecord, SourceRow};
use plimsoll_core::value::{NumericBuf, Value};

use super::golden::by_type;
use super::{Fixture, PASSWORD, USER, schema};
use crate::config::TableConfig;
use crate::source::Password;
use crate::source::local::LocalDatabase;
use crate::source::mysql::Mysql;
use crate::source::plan::TablePlan;
use crate::source::write::{Expected, LocalStore, RowChange};

fn store(fixture: &mut Fixture, table: &str, columns: &[(&str, &str)]) -> (Box<dyn LocalStore>, TableSchema) {
    let database = fixture.url.rsplit('/').next().expect("a database").to_owned();
    fixture.run(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.* TO '{USER}'@'%'"));
    let password = Password(PASSWORD.to_owned());
    let mut local = Mysql::open_writable(&fixture.url, Some(&password)).expect("opened");
    let found = local.table(table).expect("a table");
    let schema = schema(columns, None);
    let config = TableConfig { name: table.to_owned(), ..TableConfig::default() };
    let plan = TablePlan::new(&found, schema.clone(), &config, &[]).expect("they fit");
    (Box::new(local).into_store(vec![plan], FingerprintKey::new([1; 32])).expect("a store"), schema)
}

fn row(schema: &TableSchema, wire: Vec<u8>) -> SourceRow {
    let digest = Digester::new(FingerprintKey::new([1; 32])).digest(&wire).expect("a digest");
    let (position, key) = (position_in(&wire, schema).expect("one"), key_of(&wire, schema).expect("one"));
    SourceRow { item: Item { position, digest }, key, row: wire }
}

fn upsert(store: &mut dyn LocalStore, rows: &[SourceRow]) -> Vec<Applied> {
    let changes: Vec<RowChange<'_>> =
        rows.iter().map(|row| RowChange::Upsert { row, expected: Expected::Anything }).collect();
    let mut answers = Vec::new();
    let outcome = store.transact(&mut |transaction| {
        answers = transaction.apply(0, &changes)?;
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    answers
}

#[test]
fn values_of_the_corpus_come_back_or_are_refused() {
    let mut fixture = Fixture::new("SET sql_mode = ''");
    let (mut stored, mut refused) = (0, Vec::new());
    for (number, ((column_type, declared), cases)) in
        by_type(|entry| entry.refused.is_none()).into_iter().enumerate()
    {
        let table = format!("t{number}");
        fixture.run(&format!("CREATE TABLE {table} (id INT PRIMARY KEY, value {declared} DEFAULT NULL)"));
        let columns = [("id", "int8*"), ("value", column_type.as_str())];
        let (mut store, schema) = store(&mut fixture, &table, &columns);
        let row_of = |(id, entry): (i64, &super::golden::Entry)| {
            let mut bytes = Vec::new();
            RowWriter::new(&mut bytes).field(1, &Value::Int(id));
            if let Some((1, value)) = entry.wire.as_ref().expect("a wire form").split_first() {
                put_varint(&mut bytes, 2);
                bytes.extend_from_slice(value);
            }
            row(&schema, bytes)
        };
        let rows: Vec<SourceRow> = (1..).zip(cases.iter().map(|(entry, _)| entry)).map(row_of).collect();
        let answers = upsert(store.as_mut(), &rows);
        let keys: Vec<SourceKey> = rows.iter().map(|row| SourceKey::Encoded(row.key.clone())).collect();
        let found = store.lookup(0, &keys).expect("read");
        for ((((entry, _), row), answer), found) in cases.iter().zip(&rows).zip(answers).zip(found) {
            match (answer, found) {
                (Applied::Done, Some(SourceRecord::Row(found))) => {
                    assert_eq!(found.item, row.item, "{} as {declared}", entry.name);
                    stored += 1;
                }
                (Applied::Refused { waits: false, reason }, None) => {
                    assert_eq!(reason.column.as_deref(), Some("value"), "{}: {reason:?}", entry.name);
                    refused.push(format!("{} as {declared}: {}", entry.name, reason.message));
                }
                other => panic!("{} as {declared}: {other:?}", entry.name),
            }
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
    assert!(stored > 110, "only {stored} values were stored");
}

#[test]
fn values_of_types_of_its_own_come_back_or_are_refused() {
    let mut fixture = Fixture::new(
        "SET sql_mode = '';
         CREATE TABLE t (id BIGINT UNSIGNED PRIMARY KEY, small TINYINT UNSIGNED, bits BIT(12), kind ENUM('a', 'it''s'),
             parts SET('x', 'y'), long_time TIME(6), fixed BINARY(4), padded CHAR(4) CHARACTER SET latin1, day DATE, at DATETIME)
         CHARACTER SET utf8mb4",
    );
    let columns = [
        ("id", "numeric*"),
        ("small", "int4"),
        ("bits", "other('bit')"),
        ("kind", "text"),
        ("parts", "text"),
        ("long_time", "interval"),
        ("fixed", "bytea"),
        ("padded", "char(8)"),
        ("day", "timestamp"),
        ("at", "timestamp"),
    ];
    let (mut store, schema) = store(&mut fixture, "t", &columns);
    let of = |id: &str, values: [Option<Value<'_>>; 9]| {
        let mut wire = Vec::new();
        let number = NumericBuf::parse(id).expect("a number");
        let mut writer = RowWriter::new(&mut wire);
        writer.field(1, &Value::Numeric(number.borrow()));
        (2..).zip(values).for_each(|(column, value)| {
            if let Some(value) = value {
                writer.field(column, &value);
            }
        });
        row(&schema, wire)
    };
    let good = |id: &str| {
        of(
            id,
            [
                Some(Value::Int(255)),
                Some(Value::Other("000000000101")),
                Some(Value::Text("it's")),
                Some(Value::Text("x,y")),
                Some(Value::Interval(0, 0, -3_020_399_000_001)),
                Some(Value::Bytea(&[0, 255, 0, 1])),
                Some(Value::Text("é")),
                Some(Value::Timestamp(-86_400_000_000)),
                Some(Value::Timestamp(1_000_000)),
            ],
        )
    };
    let with = |id: &str, at: usize, value: Value<'_>| {
        let mut values = [None; 9];
        values[at] = Some(value);
        of(id, values)
    };
    let rows = [
        good("0"),
        good("18446744073709551615"),
        with("1", 0, Value::Int(256)),
        with("2", 1, Value::Other("1000000000000")),
        with("3", 2, Value::Text("A")),
        with("4", 3, Value::Text("y,x")),
        with("5", 4, Value::Interval(0, 0, 3_020_400_000_000)),
        with("6", 4, Value::Interval(1, 0, 0)),
        with("7", 5, Value::Bytea(&[1])),
        with("8", 6, Value::Text("€uro ł")),
        with("9", 7, Value::Timestamp(1)),
        with("10", 8, Value::Timestamp(1)),
        with("11", 8, Value::Timestamp(i64::MAX)),
        good("18446744073709551616"),
    ];
    let answers = upsert(store.as_mut(), &rows);
    let states: Vec<String> = answers
        .iter()
        .map(|answer| match answer {
            Applied::Done => "done".to_owned(),
            Applied::Refused { waits: false, reason } => {
                assert!(reason.sqlstate.starts_with("22"), "{reason:?}");
                reason.column.clone().unwrap_or_default()
            }
            other => format!("{other:?}"),
        })
        .collect();
    let expected = [
        "done",
        "done",
        "small",
        "bits",
        "kind",
        "parts",
        "long_time",
        "long_time",
        "fixed",
        "padded",
        "day",
        "at",
        "at",
        "id",
    ];
    assert_eq!(states, expected, "{answers:#?}");
    // A key whose local type is compared by its value is found whatever the scale that it is sent with.
    let key = SourceKey::Encoded(rows[1].key.clone());
    assert!(
        matches!(&store.lookup(0, &[key]).expect("read")[0], Some(SourceRecord::Row(row)) if row.item == rows[1].item)
    );
    let changes = [RowChange::Delete {
        position: rows[1].item.position,
        key: &rows[1].key,
        expected: Expected::Row(plimsoll_core::short::ShortItem::from(&rows[1].item).digest),
    }];
    store
        .transact(&mut |transaction| {
            assert_eq!(transaction.apply(0, &changes)?, [Applied::Done]);
            assert_eq!(transaction.tally().deleted, 1);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}
