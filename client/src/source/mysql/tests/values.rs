//! Values of every type of MariaDB, as they come through a real server.

use plimsoll_cluster::mysql_async::Value as Local;
use plimsoll_core::store::{BatchLimit, Source, SourceRecord};

use super::Fixture;
use crate::source::sqlite::tests::{read_all, shown};

/// What becomes of one column's values, in the order of their ids.
fn read(fixture: &Fixture, table: &str, column_type: &str) -> Vec<String> {
    let columns = [("id", "int4*"), ("v", "int8!"), ("value", column_type)];
    let records = read_all(&mut fixture.source(table, &columns, Some("v")), 1000);
    let value = |record: &SourceRecord| {
        let text = shown(record);
        let (_, value) = text.split_once(": ").expect("a position");
        match value.strip_prefix("bad ") {
            Some(fault) => fault.to_owned(),
            None => value.splitn(3, ' ').nth(2).unwrap_or("NULL").to_owned(),
        }
    };
    records.iter().map(value).collect()
}

/// A table of such a column with these values, written as SQL.
fn table(name: &str, declared: &str, values: &[&str]) -> String {
    let rows = (1..).zip(values).map(|(id, value)| format!("({id}, {id}, {value})"));
    let rows: Vec<String> = rows.collect();
    format!(
        "CREATE TABLE {name} (id INT PRIMARY KEY, v BIGINT, value {declared} DEFAULT NULL);
         INSERT INTO {name} VALUES {};",
        rows.join(", ")
    )
}

#[test]
fn values_are_exact_whatever_the_servers_modes_were() {
    let cases: &[(&str, &str, &[&str], &[&str])] = &[
        (
            "BIGINT UNSIGNED",
            "numeric(20,0)",
            &["18446744073709551615", "0"],
            &["Numeric(18446744073709551615)", "Numeric(0)"],
        ),
        (
            "BIGINT UNSIGNED",
            "int8",
            &["9223372036854775807", "9223372036854775808"],
            &["Int(9223372036854775807)", "value 22003"],
        ),
        ("INT(8) UNSIGNED ZEROFILL", "int8", &["42"], &["Int(42)"]),
        (
            "DECIMAL(65,30)",
            "numeric(65,30)",
            &[
                "99999999999999999999999999999999999.999999999999999999999999999999",
                "-0.000000000000000000000000000001",
            ],
            &[
                "Numeric(99999999999999999999999999999999999.999999999999999999999999999999)",
                "Numeric(-0.000000000000000000000000000001)",
            ],
        ),
        (
            "FLOAT",
            "float4",
            &["16777217", "0.1", "3.4028235e38", "1.17549e-38"],
            &[
                "Float(16777216.0)",
                "Float(0.10000000149011612)",
                "Float(3.4028234663852886e38)",
                "Float(1.1754900067970481e-38)",
            ],
        ),
        (
            "DOUBLE",
            "float8",
            &["1.7976931348623157e308", "5e-324", "0.1"],
            &["Float(1.7976931348623157e308)", "Float(5e-324)", "Float(0.1)"],
        ),
        (
            "DATE",
            "date",
            &["'2000-01-02'", "'0000-00-00'", "'2024-00-00'", "'2024-02-00'", "'9999-12-31'"],
            &["Date(1)", "value 22003", "value 22003", "value 22003", "Date(2921939)"],
        ),
        (
            "DATETIME(6)",
            "timestamp",
            &["'2000-01-01 00:00:00.000001'", "'0000-00-00'", "'1000-01-01'"],
            &["Timestamp(1)", "value 22003", "Timestamp(-31556908800000000)"],
        ),
        ("DATETIME(2)", "timestamp(2)", &["'2000-01-01 00:00:00.129'"], &["Timestamp(120000)"]),
        (
            "TIME(6)",
            "interval",
            &["'838:59:59.999999'", "'-838:59:59'", "'-00:00:00.5'"],
            &["Interval(0, 0, 3020399999999)", "Interval(0, 0, -3020399000000)", "Interval(0, 0, -500000)"],
        ),
        (
            "TIME",
            "time",
            &["'24:00:00'", "'24:00:01'", "'-00:00:01'", "'23:59:59'"],
            &["Time(86400000000)", "value 22003", "value 22003", "Time(86399000000)"],
        ),
        ("YEAR", "int2", &["2024", "0", "1901"], &["Int(2024)", "Int(0)", "Int(1901)"]),
        (
            "BIT(64)",
            "numeric",
            &["b'1'", "0xffffffffffffffff"],
            &["Numeric(1)", "Numeric(18446744073709551615)"],
        ),
        (
            "BIT(9)",
            "other('bit')",
            &["b'101'", "b'100000000'"],
            &["Other(\"000000101\")", "Other(\"100000000\")"],
        ),
        ("BOOLEAN", "bool", &["TRUE", "FALSE", "7"], &["Bool(true)", "Bool(false)", "value 22000"]),
        (
            "ENUM('x','it''s','é') CHARACTER SET latin1",
            "text",
            &["'é'", "2", "0"],
            &["Text(\"é\")", "Text(\"it's\")", "Text(\"\")"],
        ),
        ("SET('a','b','c')", "text", &["'c,a'", "''"], &["Text(\"a,c\")", "Text(\"\")"]),
        (
            "VARCHAR(20) CHARACTER SET latin1",
            "text",
            &["'grün €'", "x'80819D'"],
            &["Text(\"grün €\")", "Text(\"€\\u{81}\\u{9d}\")"],
        ),
        (
            "VARCHAR(20) CHARACTER SET utf8mb4",
            "text",
            &["'𝄞 a '", "x'6100'"],
            &["Text(\"𝄞 a \")", "value 22P02"],
        ),
        ("CHAR(5)", "char(5)", &["'ab   '", "''"], &["Text(\"ab\")", "Text(\"\")"]),
        ("VARCHAR(5)", "char(5)", &["'ab '"], &["value 22000"]),
        (
            "VARCHAR(20) CHARACTER SET sjis",
            "text",
            &["'テスト'", "x'F040'"],
            &["Text(\"テスト\")", "value 22P02"],
        ),
        ("VARCHAR(20) CHARACTER SET utf16", "text", &["'𝄞é'"], &["Text(\"𝄞é\")"]),
        ("BINARY(4)", "bytea", &["x'0100'", "x''"], &["Bytea([1, 0, 0, 0])", "Bytea([0, 0, 0, 0])"]),
        ("VARBINARY(4)", "bytea", &["x'0100'", "x''"], &["Bytea([1, 0])", "Bytea([])"]),
        ("JSON", "jsonb", &["'{\"a\": 1.50}'"], &["Jsonb(\"{\\\"a\\\": 1.50}\")"]),
        (
            "UUID",
            "uuid",
            &["'6B3E7F7E-6F0C-4E0C-9A57-0F2F0E6F0C11'"],
            &["Uuid([107, 62, 127, 126, 111, 12, 78, 12, 154, 87, 15, 47, 14, 111, 12, 17])"],
        ),
        ("INET6", "other('inet')", &["'2001:DB8::0:1'"], &["Other(\"2001:db8::1\")"]),
        ("POINT", "bytea", &["POINT(1,2)"], &["value 22000"]),
    ];
    // What any mode lets in: zero dates, members that are none.
    let mut fixture = Fixture::new("SET sql_mode = '', time_zone = '+00:00'");
    for (number, (declared, column_type, values, expected)) in cases.iter().enumerate() {
        let name = format!("t{number}");
        fixture.run(&table(&name, declared, values));
        assert_eq!(read(&fixture, &name, column_type), *expected, "{declared} as {column_type}");
    }
}

#[test]
fn a_timestamp_is_an_instant_whatever_zone_the_server_has() {
    let mut fixture = Fixture::new("SET time_zone = '+05:30'");
    fixture.run(&table("t", "TIMESTAMP(6) NULL", &["'2000-01-01 05:30:00'", "'2037-12-31 23:59:59.999999'"]));
    fixture.run("SET GLOBAL time_zone = '-08:00'");
    let found = read(&fixture, "t", "timestamptz");
    fixture.run("SET GLOBAL time_zone = 'SYSTEM'");
    assert_eq!(found, ["Timestamptz(0)", "Timestamptz(1199212199999999)"]);
}

#[test]
fn large_values_come_whole() {
    let mut fixture = Fixture::new("CREATE TABLE t (id INT PRIMARY KEY, v BIGINT, value LONGBLOB)");
    let large: Vec<u8> = (0..1u32 << 20).map(|i| (i ^ i >> 11) as u8).collect::<Vec<_>>().repeat(100);
    fixture
        .writer
        .run_with("INSERT INTO t VALUES (1, 1, ?), (2, 2, 'small')", vec![Local::Bytes(large.clone())])
        .expect("a large row");
    let columns = [("id", "int4*"), ("v", "int8!"), ("value", "bytea")];
    let mut source = fixture.source("t", &columns, Some("v"));
    let limit = BatchLimit { rows: 10, bytes: 1 << 20 };
    let first = source.read_batch(0, None, limit).expect("a batch");
    // One row comes whatever its size.
    let [SourceRecord::Row(row)] = &first.records[..] else { panic!("{} records", first.records.len()) };
    assert!(row.row.ends_with(&large));
    let second = source.read_batch(0, first.next.as_ref(), limit).expect("a batch");
    assert_eq!(
        second.records.iter().map(shown).collect::<Vec<_>>(),
        ["2: Int(2) Int(2) Bytea([115, 109, 97, 108, 108])"]
    );
}
