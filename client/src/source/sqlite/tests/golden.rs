//! The golden corpus through a real database file: what SQLite can hold is encoded with the corpus' bytes, and
//! what the corpus refuses is refused here with the same code.

#[path = "../../../../../core/tests/golden/corpus.rs"]
pub(in crate::source) mod corpus;

use std::collections::BTreeMap;

use corpus::{Entry, entries};
use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::row::{RowWriter, put_varint};
use plimsoll_core::store::SourceRecord;
use plimsoll_core::value::{ColumnType, Value};
use rusqlite::types::Value as Local;

use super::{Fixture, read_all};

/// The value as an application keeps it in SQLite; `None` where it cannot.
fn local(entry: &Entry) -> Option<Local> {
    use ColumnType as T;
    let Some(text) = &entry.text else { return Some(Local::Null) };
    let real = |number: f64| (!number.is_nan()).then_some(Local::Real(number));
    match &entry.column_type {
        T::Bool => Some(Local::Integer(i64::from(text == "true"))),
        T::Int2 | T::Int4 | T::Int8 | T::Xid8 => text.parse().ok().map(Local::Integer),
        T::Float4 if entry.refused.is_some() => real(text.split(' ').next()?.parse().ok()?),
        // SQLite has no NaN: it keeps NULL.
        T::Float4 => real(text.parse::<f32>().ok()?.into()),
        T::Float8 => real(text.parse().ok()?),
        T::Bytea => Some(Local::Blob(corpus::bytes(&text[2..]))),
        _ => Some(Local::Text(text.clone())),
    }
}

/// What the source makes of values of one type, in order.
fn encoded(column_type: &ColumnType, values: &[Local]) -> Vec<SourceRecord> {
    let fixture = Fixture::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER, value BLOB)");
    for (id, value) in (1..).zip(values) {
        fixture
            .writer
            .execute("INSERT INTO t VALUES (?1, ?1, ?2)", rusqlite::params![id as i64, value])
            .expect("a row");
    }
    let text = column_type.to_string();
    let mut source = fixture.source("t", &[("id", "int8*"), ("v", "int8!"), ("value", text.as_str())], "v");
    read_all(&mut source, 1000)
}

fn by_type(wanted: impl Fn(&Entry) -> bool) -> BTreeMap<String, Vec<(Entry, Local)>> {
    let mut types: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for entry in entries().into_iter().filter(wanted) {
        if let Some(value) = local(&entry) {
            types.entry(entry.column_type.to_string()).or_default().push((entry, value));
        }
    }
    types
}

#[test]
fn values_have_the_bytes_of_the_corpus() {
    let mut digester = Digester::new(FingerprintKey::new([1; 32]));
    let mut compared = 0;
    for cases in by_type(|entry| entry.refused.is_none()).into_values() {
        let values: Vec<Local> = cases.iter().map(|(_, value)| value.clone()).collect();
        let records = encoded(&cases[0].0.column_type, &values);
        assert_eq!(records.len(), cases.len());
        for ((id, (entry, _)), record) in (1..).zip(&cases).zip(&records) {
            let mut expected = Vec::new();
            let mut writer = RowWriter::new(&mut expected);
            writer.field(1, &Value::Int(id));
            writer.field(2, &Value::Int(id));
            if let Some((1, value)) = entry.wire.as_ref().expect("a wire form").split_first() {
                put_varint(&mut expected, 3);
                expected.extend_from_slice(value);
            }
            let SourceRecord::Row(row) = record else { panic!("{}: {record:?}", entry.name) };
            assert_eq!(row.row, expected, "{}", entry.name);
            assert_eq!(Ok(row.item.digest), digester.digest(&expected), "{}", entry.name);
            compared += 1;
        }
    }
    assert!(compared > 250, "only {compared} values were compared");
}

#[test]
fn what_the_corpus_refuses_is_refused_with_its_code() {
    // Bytes that no text makes, and blanks that an application cannot mean by char(n).
    let other = ["refused text UTF-8", "refused text surrogate", "refused char(3) blank"];
    let wanted = |entry: &Entry| {
        !matches!(entry.refused, None | Some("Malformed" | "WrongType")) && !other.contains(&entry.name)
    };
    let mut refused = 0;
    for cases in by_type(wanted).into_values() {
        let values: Vec<Local> = cases.iter().map(|(_, value)| value.clone()).collect();
        let records = encoded(&cases[0].0.column_type, &values);
        for ((entry, _), record) in cases.iter().zip(&records) {
            let state = match entry.refused {
                Some("OutOfRange") => "22003",
                Some("TooLong") => "22001",
                Some("WouldChange") => "22000",
                _ => "22P02",
            };
            let SourceRecord::Bad(bad) = record else { panic!("{}: {record:?}", entry.name) };
            assert_eq!(bad.sqlstate, state, "{}: {}", entry.name, bad.message);
            refused += 1;
        }
    }
    assert!(refused > 35, "only {refused} values were refused");
}

#[test]
fn pairs_have_the_digests_that_the_list_says() {
    let mut compared = 0;
    for pair in corpus::pairs().iter().filter(|pair| pair.database == "SQLite") {
        let corpus::Pair { declared, one, other, .. } = pair;
        let fixture =
            Fixture::new(&format!("CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER, value {declared})"));
        let insert = format!("INSERT INTO t VALUES (1, 1, {one}), (2, 2, {other})");
        fixture.writer.execute(&insert, []).expect("two rows");
        let compare = "SELECT a.value = b.value FROM t a, t b WHERE a.id = 1 AND b.id = 2";
        let equal: bool = fixture.writer.query_row(compare, [], |row| row.get(0)).expect("an answer");
        assert_eq!(if equal { "equal" } else { "different" }, pair.says, "{pair:?}");
        let column_type = pair.column_type.to_string();
        let mut source =
            fixture.source("t", &[("id", "int8*"), ("v", "int8!"), ("value", &column_type)], "v");
        let forms: Vec<Vec<u8>> = read_all(&mut source, 10)
            .iter()
            .map(|record| {
                let SourceRecord::Row(row) = record else { panic!("{pair:?}: {record:?}") };
                let field = plimsoll_core::row::Fields::new(&row.row).last().expect("three fields");
                let mut form = Vec::new();
                plimsoll_core::row::put_field(&mut form, &field.expect("a field")).expect("a digest form");
                form
            })
            .collect();
        assert_eq!(forms[0] == forms[1], pair.same, "{pair:?}");
        compared += 1;
    }
    assert!(compared > 15, "only {compared} pairs were compared");
}
