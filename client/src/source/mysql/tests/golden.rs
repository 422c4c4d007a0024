//! The golden corpus through a real server: what MariaDB can hold is encoded with the corpus' bytes, and what the corpus
//! refuses is refused here with the same code.

use std::collections::BTreeMap;

use plimsoll_cluster::mysql_async::Value as Local;
use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::row::{RowWriter, put_varint};
use plimsoll_core::store::SourceRecord;
use plimsoll_core::value::{ColumnType, NumericBuf, Value};

use super::Fixture;
pub use crate::source::sqlite::tests::golden::corpus::Entry;
use crate::source::sqlite::tests::golden::corpus::{self, entries};
use crate::source::sqlite::tests::read_all;

/// The column and the value as an application keeps them in MariaDB; `None` where it cannot.
fn local(entry: &Entry) -> Option<(String, Local)> {
    use ColumnType as T;
    let text = entry.text.as_deref().unwrap_or_default();
    let as_text = || Some(Local::from(text));
    // A value that is refused comes from a column that is wider than the managed one.
    let is_refused = entry.refused.is_some();
    // It has neither NaN nor infinities, and stores -0 as 0.
    let held =
        |number: f64| (number.is_finite() && (number != 0.0 || number.is_sign_positive())).then_some(number);
    let (declared, value) = match &entry.column_type {
        T::Bool => ("BOOLEAN".to_owned(), Some(Local::from(text == "true"))),
        T::Int2 if !is_refused => ("SMALLINT".to_owned(), text.parse::<i64>().ok().map(Local::from)),
        T::Int4 if !is_refused => ("INT".to_owned(), text.parse::<i64>().ok().map(Local::from)),
        T::Int2 | T::Int4 | T::Int8 | T::Xid8 => {
            ("BIGINT".to_owned(), text.parse::<i64>().ok().map(Local::from))
        }
        T::Numeric(_) => {
            let number = NumericBuf::parse(text).ok().filter(|number| number.borrow().kind().is_finite());
            let number = number.as_ref().map(NumericBuf::borrow);
            // MariaDB shows as many digits as are declared.
            let scale = number.map_or(0, |number| u32::from(number.scale()));
            let digits = number.map_or(1, |number| number.integer_digits().max(1));
            let fits = digits + i64::from(scale) <= 65 && scale <= 38;
            let declared = format!("DECIMAL({}, {scale})", (digits + i64::from(scale)).clamp(1, 65));
            (declared, as_text().filter(|_| fits && number.is_some() || entry.text.is_none()))
        }
        T::Float4 if !is_refused => (
            "FLOAT".to_owned(),
            text.parse::<f32>().ok().filter(|n| held(f64::from(*n)).is_some()).map(Local::Float),
        ),
        T::Float4 | T::Float8 => {
            let number = text.split(' ').next().and_then(|text| text.parse().ok()).and_then(held);
            ("DOUBLE".to_owned(), number.map(Local::Double))
        }
        T::Bytea => ("LONGBLOB".to_owned(), text.get(2..).map(|text| Local::Bytes(corpus::bytes(text)))),
        // MariaDB's CHAR keeps no blanks at the end.
        T::Char(_) if !is_refused => ("CHAR(50) CHARACTER SET utf8mb4".to_owned(), as_text()),
        T::Uuid => ("UUID".to_owned(), as_text()),
        T::Date | T::Timestamp(_) | T::Timestamptz(_)
            if !text.starts_with(|c: char| c.is_ascii_digit())
                || text.ends_with("BC")
                || text.find('-') != Some(4) =>
        {
            return None;
        }
        // MariaDB has no such hour.
        T::Timestamp(_) | T::Timestamptz(_) if text.contains(" 24:") => return None,
        T::Date => ("DATE".to_owned(), as_text()),
        T::Timestamp(_) => ("DATETIME(6)".to_owned(), as_text().filter(|_| !text.contains('+'))),
        T::Timestamptz(_) => {
            // What TIMESTAMP holds: 1970 to 2038.
            let (text, zone) =
                text.split_at(text.rfind(['+', '-']).filter(|at| *at > 10).unwrap_or(text.len()));
            let is_held = text.starts_with("20") && matches!(zone, "" | "+00") && text < "2038";
            ("TIMESTAMP(6) NULL".to_owned(), Some(Local::from(text)).filter(|_| is_held))
        }
        T::Time(_) => ("TIME(6)".to_owned(), as_text()),
        T::Interval(_) => {
            let is_time = !text.contains(' ') && text.contains(':');
            ("TIME(6)".to_owned(), as_text().filter(|_| is_time))
        }
        T::Json | T::Jsonb => ("LONGTEXT CHARACTER SET utf8mb4".to_owned(), as_text()),
        T::Text | T::Varchar(_) | T::Citext | T::Char(_) | T::Enum(_) | T::Other(_) => {
            ("LONGTEXT CHARACTER SET utf8mb4".to_owned(), as_text())
        }
        _ => return None,
    };
    match &entry.text {
        None => Some((declared, Local::NULL)),
        Some(_) => Some((declared, value?)),
    }
}

pub type Case = (Entry, Local);

/// The values of the corpus that MariaDB holds, by managed and declared type.
pub fn by_type(wanted: impl Fn(&Entry) -> bool) -> BTreeMap<(String, String), Vec<Case>> {
    let mut types: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for entry in entries().into_iter().filter(wanted) {
        if let Some((declared, value)) = local(&entry) {
            types.entry((entry.column_type.to_string(), declared)).or_default().push((entry, value));
        }
    }
    types
}

/// What the source makes of values of one type, in order. All tables are in one database.
fn encoded(
    fixture: &mut Fixture,
    number: usize,
    types: &(String, String),
    cases: &[Case],
) -> Vec<SourceRecord> {
    let table = format!("t{number}");
    let (column_type, declared) = types;
    fixture
        .run(&format!("CREATE TABLE {table} (id INT PRIMARY KEY, v BIGINT, value {declared} DEFAULT NULL)"));
    for (id, (entry, value)) in (1i64..).zip(cases) {
        let values = vec![Local::from(id), Local::from(id), value.clone()];
        fixture
            .writer
            .run_with(&format!("INSERT INTO {table} VALUES (?, ?, ?)"), values)
            .unwrap_or_else(|error| panic!("{}: {error:?}", entry.name));
    }
    let columns = [("id", "int8*"), ("v", "int8!"), ("value", column_type.as_str())];
    let mut source = fixture.source(&table, &columns, Some("v"));
    read_all(&mut source, 1000)
}

#[test]
fn values_have_the_bytes_of_the_corpus() {
    let mut fixture = Fixture::new("SET sql_mode = 'STRICT_ALL_TABLES', time_zone = '+00:00'");
    let mut digester = Digester::new(FingerprintKey::new([1; 32]));
    let mut compared = 0;
    for (number, (types, cases)) in by_type(|entry| entry.refused.is_none()).into_iter().enumerate() {
        let records = encoded(&mut fixture, number, &types, &cases);
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
            assert_eq!(row.row, expected, "{} as {}", entry.name, types.1);
            assert_eq!(Ok(row.item.digest), digester.digest(&expected), "{}", entry.name);
            compared += 1;
        }
    }
    assert!(compared > 110, "only {compared} values were compared");
}

#[test]
fn what_the_corpus_refuses_is_refused_with_its_code() {
    // Bytes that no text makes; and times beyond a day are no text here, but a value of TIME.
    let other = ["refused text UTF-8", "refused text surrogate"];
    let wanted = |entry: &Entry| {
        !matches!(entry.refused, None | Some("Malformed" | "WrongType"))
            && !other.contains(&entry.name)
            && !matches!(
                entry.column_type,
                ColumnType::Date
                    | ColumnType::Timestamp(6)
                    | ColumnType::Timestamptz(6)
                    | ColumnType::Time(6)
                    | ColumnType::Uuid
                    | ColumnType::Bool
            )
    };
    let mut fixture = Fixture::new("SET sql_mode = 'STRICT_ALL_TABLES', time_zone = '+00:00'");
    let mut refused = 0;
    for (number, (types, cases)) in by_type(wanted).into_iter().enumerate() {
        let records = encoded(&mut fixture, number, &types, &cases);
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
    assert!(refused > 20, "only {refused} values were refused");
}

#[test]
fn pairs_have_the_digests_that_the_list_says() {
    let mut fixture = Fixture::new(
        "SET NAMES utf8mb4; SET sql_mode = '', character_set_connection = utf8mb4, time_zone = '+00:00'",
    );
    let pairs = corpus::pairs();
    let mut compared = 0;
    for (number, pair) in pairs.iter().filter(|pair| pair.database == "MariaDB").enumerate() {
        let corpus::Pair { declared, one, other, .. } = pair;
        let table = format!("pair_{number}");
        fixture.run(&format!(
            "CREATE TABLE {table} (id INT PRIMARY KEY, v INT, value {declared}) CHARACTER SET utf8mb4;
             INSERT INTO {table} VALUES (1, 1, {one}), (2, 2, {other})"
        ));
        let compare =
            format!("SELECT a.value = b.value FROM {table} a, {table} b WHERE a.id = 1 AND b.id = 2");
        let answer = fixture.writer.rows(&compare).expect("an answer");
        let equal = answer[0][0] == Local::Int(1);
        assert_eq!(if equal { "equal" } else { "different" }, pair.says, "{pair:?}");
        let column_type = pair.column_type.to_string();
        let columns = [("id", "int8*"), ("v", "int8!"), ("value", column_type.as_str())];
        let mut source = fixture.source(&table, &columns, Some("v"));
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
    assert!(compared > 25, "only {compared} pairs were compared");
}
