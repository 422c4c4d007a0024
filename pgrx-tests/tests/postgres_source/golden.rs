//! The golden corpus through a real database: what it holds is encoded with the corpus' bytes and digests, and what a
//! managed column would not hold is refused with the corpus' code.

#[path = "../../../core/tests/golden/corpus.rs"]
mod corpus;

use std::collections::BTreeMap;

use corpus::{Entry, entries};
use plimsoll_client::source::write::{Expected, RowChange};
use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::manifest::Item;
use plimsoll_core::row::{Fields, RowWriter, key_of, position_in, put_field, put_varint};
use plimsoll_core::store::{Applied, SourceKey, SourceRecord, SourceRow};
use plimsoll_core::value::{ColumnType, Value};
use plimsoll_tests::shared;
use postgres::Client;

use crate::local::{KEY, Local, read_all};

/// Makes the types that the corpus' columns need.
#[derive(Default)]
struct Made(BTreeMap<String, String>);

impl Made {
    /// The type as CREATE TABLE takes it; `None` where this server has none.
    fn sql(&mut self, client: &mut Client, column_type: &ColumnType) -> Option<String> {
        Some(match column_type {
            ColumnType::Numeric(Some((precision, scale))) if shared().major() < 15 => {
                if *scale < 0 || i32::from(*scale) > i32::from(*precision) {
                    return None;
                }
                column_type.to_string()
            }
            ColumnType::Array(element) => match &**element {
                // An array's elements are arrays where a domain says so.
                ColumnType::Array(inner) => {
                    let inner = format!("{}[]", self.sql(client, inner)?);
                    self.make(client, element, &format!("CREATE DOMAIN %I AS {inner}")) + "[]"
                }
                element => self.sql(client, element)? + "[]",
            },
            ColumnType::Enum(labels) => {
                let labels: Vec<String> =
                    labels.iter().map(|label| format!("'{}'", label.replace('\'', "''"))).collect();
                self.make(client, column_type, &format!("CREATE TYPE %I AS ENUM ({})", labels.join(", ")))
            }
            // The local type has no dropped attributes, so its own numbers are others.
            ColumnType::Composite(attributes) => {
                let mut list = Vec::new();
                for attribute in attributes {
                    let sql = self.sql(client, &attribute.column_type)?;
                    list.push(format!("\"{}\" {sql}", attribute.name.replace('"', "\"\"")));
                }
                self.make(client, column_type, &format!("CREATE TYPE %I AS ({})", list.join(", ")))
            }
            ColumnType::Range(bound) => match &**bound {
                ColumnType::Int4 => "int4range".to_owned(),
                ColumnType::Int8 => "int8range".to_owned(),
                ColumnType::Numeric(None) => "numrange".to_owned(),
                ColumnType::Date => "daterange".to_owned(),
                ColumnType::Timestamp(6) => "tsrange".to_owned(),
                ColumnType::Timestamptz(6) => "tstzrange".to_owned(),
                bound => {
                    let bound = self.sql(client, bound)?;
                    self.make(client, column_type, &format!("CREATE TYPE %I AS RANGE (subtype = {bound})"))
                }
            },
            ColumnType::Multirange(bound) => {
                let range = self.sql(client, &ColumnType::Range(bound.clone()))?;
                range.strip_suffix("range")?.to_owned() + "multirange"
            }
            ColumnType::Other(name) => name.clone(),
            ColumnType::Citext => "public.citext".to_owned(),
            other => other.to_string(),
        })
    }

    fn make(&mut self, client: &mut Client, column_type: &ColumnType, definition: &str) -> String {
        let next = format!("public.made_{}", self.0.len());
        let name = self.0.entry(column_type.to_string()).or_insert_with(|| {
            client.batch_execute(&definition.replace("%I", &next)).expect("a type");
            next
        });
        name.clone()
    }
}

/// Values of one local type as the source reads them for a managed column's type, in order.
fn encoded(
    local: &mut Local,
    sql: &str,
    column_type: &ColumnType,
    texts: &[Option<String>],
) -> Vec<SourceRecord> {
    let table = shared().unique("t");
    let create = format!("CREATE TABLE public.{table} (id int8 PRIMARY KEY, v int8 NOT NULL, value {sql})");
    local.writer.batch_execute(&create).expect("a table");
    for (id, text) in (1i64..).zip(texts) {
        let insert = format!("INSERT INTO public.{table} VALUES ($1, $1, $2::text::{sql})");
        local
            .writer
            .execute(&insert, &[&id, text])
            .unwrap_or_else(|error| panic!("{text:?}::{sql}: {error:?}"));
    }
    let value = format!("value {column_type}");
    let mut source = local.source(&table, &["id int8*", "v int8!", &value], Some("v"));
    read_all(&mut *source, 7)
}

fn new_local() -> Local {
    Local::new(
        "CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION cube; CREATE EXTENSION ltree",
    )
}

#[test]
fn values_have_the_bytes_and_digests_of_the_corpus() {
    let mut local = new_local();
    let mut made = Made::default();
    let mut digester = Digester::new(FingerprintKey::new(KEY));
    let mut types: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for entry in entries().into_iter().filter(|entry| entry.refused.is_none()) {
        types.entry(entry.column_type.to_string()).or_default().push(entry);
    }
    let (mut compared, mut left_out) = (0, Vec::new());
    for (name, cases) in types {
        let column_type = &cases[0].column_type;
        let Some(sql) = made.sql(&mut local.writer, column_type) else {
            left_out.push(name);
            continue;
        };
        let texts: Vec<_> = cases.iter().map(|entry| entry.text.clone()).collect();
        let records = encoded(&mut local, &sql, column_type, &texts);
        assert_eq!(records.len(), cases.len(), "{name}");
        for ((id, entry), record) in (1..).zip(&cases).zip(&records) {
            let mut expected = Vec::new();
            let mut writer = RowWriter::new(&mut expected);
            writer.field(1, &Value::Int(id));
            writer.field(2, &Value::Int(id));
            let numbers = expected.clone();
            if let Some((1, value)) = entry.stored.split_first() {
                put_varint(&mut expected, 3);
                expected.extend_from_slice(value);
            }
            let mut form = numbers;
            if let Some((1, value)) = entry.form.split_first() {
                put_varint(&mut form, 3);
                form.extend_from_slice(value);
            }
            let SourceRecord::Row(row) = record else { panic!("{}: {record:?}", entry.name) };
            assert_eq!(row.row, expected, "{}: {:?}", entry.name, entry.text);
            assert_eq!(Ok(row.item.digest), digester.digest(&expected), "{}", entry.name);
            assert_eq!(row.item.digest, digester.digest_of_form(&form), "{}", entry.name);
            compared += 1;
        }
    }
    println!("{compared} values compared, left out: {left_out:?}");
    assert!(compared >= 190, "only {compared} values were compared");
}

#[test]
fn values_are_written_and_read_back() {
    let mut local = new_local();
    let mut made = Made::default();
    let mut types: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for entry in entries().into_iter().filter(|entry| entry.refused.is_none()) {
        types.entry(entry.column_type.to_string()).or_default().push(entry);
    }
    let (mut stored, mut refused) = (0, Vec::new());
    for (name, cases) in types {
        let Some(sql) = made.sql(&mut local.writer, &cases[0].column_type) else { continue };
        let table = shared().unique("t");
        let create = format!("CREATE TABLE public.{table} (id int8 PRIMARY KEY, value {sql})");
        local.writer.batch_execute(&create).expect("a table");
        let (mut store, schema) = local.store(&table, &["id int8*", &format!("value {name}")]);
        let row_of = |(id, entry): (i64, &Entry)| {
            let mut wire = Vec::new();
            RowWriter::new(&mut wire).field(1, &Value::Int(id));
            if let Some((1, value)) = entry.stored.split_first() {
                put_varint(&mut wire, 2);
                wire.extend_from_slice(value);
            }
            let digest = Digester::new(FingerprintKey::new(KEY)).digest(&wire).expect("a digest");
            let position = position_in(&wire, &schema).expect("a position");
            let key = key_of(&wire, &schema).expect("a key");
            SourceRow { item: Item { position, digest }, key, row: wire }
        };
        let rows: Vec<SourceRow> = (1..).zip(&cases).map(row_of).collect();
        let changes: Vec<RowChange<'_>> =
            rows.iter().map(|row| RowChange::Upsert { row, expected: Expected::Absent }).collect();
        let mut answers = Vec::new();
        let outcome = store.transact(&mut |transaction| {
            answers = transaction.apply(0, &changes)?;
            Ok(())
        });
        outcome.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        let keys: Vec<SourceKey> = rows.iter().map(|row| SourceKey::Encoded(row.key.clone())).collect();
        let found = store.lookup(0, &keys).expect("read");
        for (((entry, row), answer), found) in cases.iter().zip(&rows).zip(answers).zip(found) {
            match (answer, found) {
                (Applied::Done, Some(SourceRecord::Row(found))) => {
                    assert_eq!(found.item, row.item, "{}", entry.name);
                    stored += 1;
                }
                (Applied::Refused { waits: false, reason }, None) => {
                    refused.push(format!("{} as {name}: {reason:?}", entry.name));
                }
                other => panic!("{} as {name}: {other:?}", entry.name),
            }
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
    assert!(stored >= 190, "only {stored} values were stored");
}

/// The type without its limits, in which an application may keep what a managed column refuses.
fn without_limits(column_type: &ColumnType) -> Option<&'static str> {
    Some(match column_type {
        ColumnType::Int2 | ColumnType::Int4 => "int8",
        ColumnType::Numeric(_) => "numeric",
        ColumnType::Varchar(_) | ColumnType::Char(_) => "text",
        ColumnType::Time(_) => "time",
        ColumnType::Timetz(_) => "timetz",
        ColumnType::Timestamp(_) => "timestamp",
        ColumnType::Timestamptz(_) => "timestamptz",
        ColumnType::Interval(_) => "interval",
        ColumnType::Float4 => "float8",
        ColumnType::Enum(_) => "text",
        ColumnType::Json | ColumnType::Jsonb => "text",
        _ => return None,
    })
}

#[test]
fn what_a_managed_column_would_change_is_refused_with_the_code_of_the_corpus() {
    let mut local = new_local();
    let (mut refused, mut unheld) = (0, Vec::new());
    for entry in entries() {
        let state = match entry.refused {
            Some("OutOfRange") => "22003",
            Some("TooLong") => "22001",
            Some("WouldChange") => "22000",
            Some("InvalidText") => "22P02",
            _ => continue,
        };
        let (Some(text), Some(sql)) = (&entry.text, without_limits(&entry.column_type)) else { continue };
        // What an application writes into a column of the very type is Postgres' to refuse or to round.
        if entry.column_type.to_string() == sql {
            continue;
        }
        // What Postgres cannot hold in any column, no source sends.
        let held = local.writer.query_one(&format!("SELECT $1::text::{sql} IS NOT NULL"), &[text]);
        if held.is_err() {
            unheld.push(entry.name);
            continue;
        }
        let records = encoded(&mut local, sql, &entry.column_type, std::slice::from_ref(&entry.text));
        let [SourceRecord::Bad(bad)] = &records[..] else { panic!("{}: {records:?}", entry.name) };
        assert_eq!(bad.sqlstate, state, "{}: {}", entry.name, bad.message);
        refused += 1;
    }
    println!("{refused} refused; not to be had in Postgres: {unheld:?}");
    assert!(refused >= 15, "only {refused} values were refused");
}

#[test]
fn pairs_have_the_digests_that_the_list_says() {
    let mut local = new_local();
    let types =
        "CREATE TYPE public.priced AS (price numeric); CREATE TYPE public.named AS (name public.citext)";
    local.writer.batch_execute(types).expect("types");
    // A collation is a matter of comparing, and no value is read otherwise because of it.
    let pairs = corpus::pairs();
    let of_types =
        pairs.iter().filter(|pair| pair.database == "Postgres" && !pair.declared.contains("COLLATE"));
    let mut compared = 0;
    for pair in of_types {
        let texts = [pair.one, pair.other].map(|text| Some(text.to_owned()));
        let records = encoded(&mut local, pair.declared, &pair.column_type, &texts);
        let forms: Vec<Vec<u8>> = records
            .iter()
            .map(|record| {
                let SourceRecord::Row(row) = record else { panic!("{pair:?}: {record:?}") };
                let field = Fields::new(&row.row).last().expect("three fields").expect("a field");
                let mut form = Vec::new();
                put_field(&mut form, &field).expect("a digest form");
                form
            })
            .collect();
        assert_eq!(forms[0] == forms[1], pair.same, "{pair:?}");
        compared += 1;
    }
    assert!(compared > 35, "only {compared} pairs were compared");
}
