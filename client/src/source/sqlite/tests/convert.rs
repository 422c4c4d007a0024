//! Every value is taken exactly or refused with a reason.

use plimsoll_core::row::RowWriter;
use plimsoll_core::value::{ColumnType, NumericBuf, Value};
use rusqlite::types::ValueRef::{self, Blob, Integer, Null, Real};

use super::super::convert::convert;
use crate::source::kind::Scratch;

fn text(text: &str) -> ValueRef<'_> {
    ValueRef::Text(text.as_bytes())
}

fn taken(column_type: &str, raw: ValueRef<'_>) -> String {
    let column_type: ColumnType = column_type.parse().expect("a type");
    let mut scratch = Scratch::default();
    // As a row that is encoded checks and writes it.
    let written = convert(raw, &column_type, &mut scratch).and_then(|value| {
        if let Some(value) = &value {
            column_type.check(value)?;
            RowWriter::new(&mut Vec::new()).digest_field(1, value)?;
        }
        Ok(value)
    });
    match written {
        Ok(value) => format!("{value:?}"),
        Err(error) => error.kind().sqlstate().to_owned(),
    }
}

#[test]
fn what_is_exact_is_taken_and_all_else_refused() {
    let some = |value: Value<'_>| format!("{:?}", Some(value));
    let numeric = |text: &str| {
        let number = NumericBuf::parse(text).expect("a number");
        some(Value::Numeric(number.borrow()))
    };
    let uuid =
        [0x6b, 0x3e, 0x7f, 0x7e, 0x6f, 0x0c, 0x4e, 0x0c, 0x9a, 0x57, 0x0f, 0x2f, 0x0e, 0x6f, 0x0c, 0x11];
    let is_uuid = some(Value::Uuid(uuid));
    let changed = "22000".to_owned();
    let cases: Vec<(&str, ValueRef<'_>, String)> = vec![
        ("int8", Null, "None".into()),
        ("int8", Integer(i64::MIN), some(Value::Int(i64::MIN))),
        ("int4", Integer(1 << 31), "22003".into()),
        ("int2", Real(7.0), some(Value::Int(7))),
        ("int8", Real(7.5), changed.clone()),
        ("int8", Real(9.3e18), changed.clone()),
        ("int8", text("7"), changed.clone()),
        ("xid8", Integer(-1), "22003".into()),
        ("numeric", Integer(i64::MIN), numeric("-9223372036854775808")),
        ("numeric", Real(0.1), numeric("0.1")),
        ("numeric(12,2)", Real(19.99), numeric("19.99")),
        ("numeric(12,2)", Real(19.999), changed.clone()),
        ("numeric(5,2)", Integer(1000), "22003".into()),
        ("numeric", text("1.50"), numeric("1.50")),
        ("numeric", text("1,5"), "22P02".into()),
        ("numeric", Blob(b"1"), changed.clone()),
        ("float8", Real(0.1), some(Value::Float(0.1))),
        ("float8", Integer(1 << 53), some(Value::Float(9_007_199_254_740_992.0))),
        ("float8", Integer((1 << 53) + 1), changed.clone()),
        ("float8", Integer(i64::MAX), changed.clone()),
        ("float4", Real(0.5), some(Value::Float(0.5))),
        ("float4", Real(0.1), changed.clone()),
        ("text", text("tab\t é 😀"), some(Value::Text("tab\t é 😀"))),
        ("text", text(""), some(Value::Text(""))),
        ("text", text("a\0b"), "22P02".into()),
        ("text", ValueRef::Text(&[0x61, 0xc3, 0x28]), "22P02".into()),
        ("text", Integer(1), changed.clone()),
        ("text", Blob(b"a"), changed.clone()),
        ("varchar(3)", text("äöü"), some(Value::Text("äöü"))),
        ("varchar(3)", text("abc "), "22001".into()),
        ("char(3)", text("ab   "), some(Value::Text("ab"))),
        ("bool", Integer(1), some(Value::Bool(true))),
        ("bool", Integer(2), changed.clone()),
        ("bool", text("true"), changed.clone()),
        ("date", text("2024-02-29"), some(Value::Date(8825))),
        ("date", text("2024-02-29 00:00:00"), some(Value::Date(8825))),
        ("date", text("2024-02-29 00:00:01"), changed.clone()),
        ("date", text("2023-02-29"), "22P02".into()),
        ("date", text("29.02.2024"), "22P02".into()),
        ("date", Integer(8825), changed.clone()),
        ("time", text("10:00"), some(Value::Time(36_000_000_000))),
        ("timetz", text("10:00:00-05"), some(Value::Timetz(36_000_000_000, 18_000))),
        ("timestamp", text("2000-01-01 00:00:01.5"), some(Value::Timestamp(1_500_000))),
        ("timestamp", text("2000-01-01T00:00:01Z"), some(Value::Timestamp(1_000_000))),
        ("timestamp", text("2000-01-01T00:00:01+02:00"), changed.clone()),
        ("timestamp(0)", text("2000-01-01 00:00:01.5"), changed.clone()),
        ("timestamptz", text("2000-01-01 00:00:01"), some(Value::Timestamptz(1_000_000))),
        ("timestamptz", text("2000-01-01 02:00:01+02:00"), some(Value::Timestamptz(1_000_000))),
        ("timestamptz", text("2000-01-01 00:00:60"), "22P02".into()),
        ("bytea", Blob(&[0, 255]), some(Value::Bytea(&[0, 255]))),
        ("bytea", text("x"), changed.clone()),
        ("uuid", text("6b3e7f7e-6f0c-4e0c-9a57-0f2f0e6f0c11"), is_uuid.clone()),
        ("uuid", text("6B3E7F7E6F0C4E0C9A570F2F0E6F0C11"), is_uuid.clone()),
        ("uuid", Blob(&uuid), is_uuid),
        ("uuid", Blob(&uuid[1..]), "22P02".into()),
        ("uuid", text("6b3e"), "22P02".into()),
        ("json", text("{\"a\": 1}"), some(Value::Json("{\"a\": 1}"))),
        ("jsonb", text("{\"a\": 1}"), some(Value::Jsonb("{\"a\": 1}"))),
        ("jsonb", text("{a: 1}"), "22P02".into()),
        ("enum('draft','paid')", text("paid"), some(Value::Enum("paid"))),
        ("enum('draft','paid')", text("Paid"), "22P02".into()),
        ("other('inet')", text("127.0.0.1"), some(Value::Other("127.0.0.1"))),
        ("interval", text("1 mon -00:00:01"), some(Value::Interval(1, 0, -1_000_000))),
        ("interval", text("1 fortnight"), "22P02".into()),
        ("interval", Integer(1), changed.clone()),
        ("array(int4)", text("{1"), "22P02".into()),
        ("array(int4)", text("{2147483648}"), "22003".into()),
        ("range(int4)", text("[1,2"), "22P02".into()),
        ("array(int4)", Integer(1), changed),
    ];
    for (column_type, raw, expected) in cases {
        assert_eq!(taken(column_type, raw), expected, "{raw:?} for {column_type}");
    }
}
