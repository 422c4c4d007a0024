//! Reading in the database's own order: no row is lost, none comes twice.

use std::collections::HashSet;

use plimsoll_core::store::{BatchLimit, PositionRange, Source, SourceKey, SourceRecord};

use super::Fixture;
use crate::source::sqlite::tests::{read_all, shown};

/// Reads a table in batches of each of these sizes, and in windows, and wants the same rows each time.
fn read_in_all_ways(
    fixture: &Fixture,
    table: &str,
    columns: &[(&str, &str)],
    version: Option<&str>,
) -> Vec<String> {
    let mut all: Option<Vec<String>> = None;
    for rows in [1, 2, 3, 1000] {
        let mut source = fixture.source(table, columns, version);
        let mut found: Vec<String> = read_all(&mut source, rows).iter().map(shown).collect();
        if version.is_none() {
            found.sort_unstable();
        }
        let expected = all.get_or_insert_with(|| found.clone());
        assert_eq!(*expected, found, "{rows} rows at a time");
    }
    let all = all.expect("read");
    let mut source = fixture.source(table, columns, version);
    let (mut from, mut items) = (None, 0);
    loop {
        let window = source.window(0, PositionRange { from, to: None }, 2).expect("a window");
        items += window.items.len() + window.bad.iter().filter(|bad| bad.position.is_some()).count();
        from = window.range.to;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(items, all.len(), "rows in windows");
    all
}

#[test]
fn keys_are_read_in_the_order_of_their_collation() {
    for collation in [
        "utf8mb4_general_ci",
        "utf8mb4_unicode_ci",
        "utf8mb4_uca1400_ai_ci",
        "utf8mb4_swedish_ci",
        "utf8mb4_bin",
        "utf8mb4_nopad_bin",
        "latin1_swedish_ci",
        "latin1_german2_ci",
        "latin1_bin",
    ] {
        let charset = collation.split('_').next().expect("a name");
        let fixture = Fixture::new(&format!(
            "CREATE TABLE t (k VARCHAR(30) CHARACTER SET {charset} COLLATE {collation} PRIMARY KEY, v INT, INDEX (v));
             INSERT INTO t VALUES ('b', 1), ('A', 1), ('ü', 2), ('Öl', 1), ('z', 1), ('', 1), ('ß', 1), ('a b', 1), ('aa', 2),
                ('0', 1), ('a-b', 1), ('Z z', 1), ('é€', 1), (' lead', 1), ('~', 1), ('_', 1)"
        ));
        let columns = [("k", "text*"), ("v", "int4!")];
        let by_version = read_in_all_ways(&fixture, "t", &columns, Some("v"));
        let by_hash = read_in_all_ways(&fixture, "t", &columns, None);
        let distinct: HashSet<&String> = by_hash.iter().collect();
        assert_eq!((by_version.len(), by_hash.len(), distinct.len()), (16, 16, 16), "{collation}");
    }
}

#[test]
fn keys_of_every_type_are_gone_on_from_and_found_again() {
    let cases = [
        ("INT", "int4", "(-2147483648), (-1), (0), (7), (2147483647)"),
        (
            "BIGINT UNSIGNED",
            "numeric",
            "(0), (9223372036854775807), (9223372036854775808), (18446744073709551615)",
        ),
        (
            "DECIMAL(40,20)",
            "numeric",
            "(0.00000000000000000001), (0.00000000000000000002), (-12345678901234567890.5), (12345678901234567890.00000000000000000001)",
        ),
        ("FLOAT", "float4", "(0.1), (-0.1), (1e30), (16777216)"),
        ("DOUBLE", "float8", "(0.1), (0.30000000000000004), (-5e-324), (1e300)"),
        ("DATE", "date", "('2024-02-29'), ('1000-01-01'), ('9999-12-31')"),
        (
            "DATETIME(6)",
            "timestamp",
            "('2024-02-29 01:02:03.000004'), ('2024-02-29 01:02:03.000005'), ('9999-12-31 23:59:59.999999')",
        ),
        (
            "TIMESTAMP(6)",
            "timestamptz",
            "('2024-02-29 01:02:03.000004'), ('2024-10-27 02:30:00'), ('2037-01-01')",
        ),
        ("TIME(3)", "interval", "('-838:59:59'), ('-0:0:0.001'), ('0:0:0'), ('838:59:59')"),
        ("YEAR", "int2", "(1901), (2155), (0)"),
        ("BIT(20)", "int4", "(0), (255), (256), (1048575)"),
        ("BOOL", "bool", "(0), (1)"),
        ("ENUM('b','a','c')", "enum('a','b','c')", "('a'), ('b'), ('c')"),
        ("SET('b','a')", "text", "(''), ('a'), ('b'), ('a,b')"),
        ("BINARY(3)", "bytea", "(x'00'), (x'ff'), (x'ff00ff'), (x'272727')"),
        ("VARBINARY(9)", "bytea", "(x''), (x'00'), (x'0000'), (x'ff'), (x'c3a4')"),
        (
            "CHAR(36)",
            "uuid",
            "('6b3e7f7e-6f0c-4e0c-9a57-0f2f0e6f0c11'), ('00000000-6F0C-4E0C-9A57-0F2F0E6F0C11')",
        ),
        (
            "BINARY(16)",
            "uuid",
            "(x'00112233445566778899aabbccddeeff'), (x'6b3e7f7e6f0c4e0c9a570f2f0e6f0c11')",
        ),
        (
            "UUID",
            "uuid",
            "('6b3e7f7e-6f0c-4e0c-9a57-0f2f0e6f0c11'), ('ffffffff-6f0c-1e0c-9a57-0f2f0e6f0c11'), ('00000000-0000-0000-0000-000000000000')",
        ),
        ("INET6", "other('inet')", "('::1'), ('2001:db8::1'), ('fe80::')"),
        ("TEXT", "text", "(repeat('a', 40000)), (concat(repeat('a', 40000), 'b')), ('é'), ('')"),
    ];
    let mut fixture = Fixture::new("SET sql_mode = '', time_zone = '+00:00'");
    for (number, (declared, column_type, values)) in cases.into_iter().enumerate() {
        let table = format!("t{number}");
        let key = if declared == "TEXT" { "UNIQUE (k)" } else { "PRIMARY KEY (k)" };
        fixture.run(&format!(
            "CREATE TABLE {table} (k {declared} NOT NULL, v INT NOT NULL DEFAULT 1, INDEX (v), {key});
             INSERT INTO {table} (k) VALUES {values}"
        ));
        let key_type = format!("{column_type}*");
        let columns = [("k", key_type.as_str()), ("v", "int4!")];
        let rows = read_in_all_ways(&fixture, &table, &columns, Some("v"));
        let count = values.matches("), (").count() + 1;
        assert_eq!(rows.len(), count, "{declared}");
        assert!(rows.iter().all(|row| row.starts_with("1: ")), "{declared}: {rows:?}");
        assert_eq!(read_in_all_ways(&fixture, &table, &columns, None).len(), count, "{declared}");
        // Each is found by its key, and a key that is not there is not.
        let mut source = fixture.source(&table, &columns, Some("v"));
        let records = read_all(&mut source, 1000);
        let keys: Vec<SourceKey> = records
            .iter()
            .map(|record| match record {
                SourceRecord::Row(row) => SourceKey::Encoded(row.key.clone()),
                SourceRecord::Bad(bad) => panic!("{declared}: {bad:?}"),
            })
            .collect();
        let found = source.lookup(0, &keys).expect("looked up");
        assert_eq!(found, records.into_iter().map(Some).collect::<Vec<_>>(), "{declared}");
        fixture.run(&format!("DELETE FROM {table}"));
        let gone = source.lookup(0, &keys).expect("looked up");
        assert!(gone.iter().all(Option::is_none), "{declared}");
    }
}

#[test]
fn a_key_that_differs_in_what_a_collation_ignores_is_another_key() {
    let mut fixture = Fixture::new(
        "CREATE TABLE t (k VARCHAR(30) COLLATE utf8mb4_general_ci PRIMARY KEY, v INT); INSERT INTO t VALUES ('abc', 1)",
    );
    let columns = [("k", "text*"), ("v", "int4!")];
    let mut source = fixture.source("t", &columns, Some("v"));
    let [SourceRecord::Row(row)] = &read_all(&mut source, 10)[..] else { panic!("one row") };
    let key = SourceKey::Encoded(row.key.clone());
    // The database finds this row by the old key; it is another one in Postgres.
    fixture.run("UPDATE t SET k = 'ABC '");
    assert_eq!(source.lookup(0, &[key]).expect("looked up"), [None]);
}

#[test]
fn rows_without_a_key_are_all_read_and_their_copies_counted() {
    let fixture = Fixture::new(
        "CREATE TABLE t (a VARCHAR(20) COLLATE utf8mb4_general_ci, b DOUBLE, c TEXT, d BLOB, e ENUM('y','x'), f INT, j JSON);
         INSERT INTO t (a, b, c, d, e, f, j) VALUES
            ('a', 0, 'x', x'00', 'x', 1, '{}'), ('A', 0, 'x', x'00', 'x', 1, '{}'), ('a ', 0, 'x', x'00', 'x', 1, '{}'),
            ('a', 0, 'X', x'00', 'x', 1, '{}'), ('a', 0, 'x', x'0000', 'x', 1, '{}'), ('a', 0, 'x', x'00', 'y', 1, '{}'),
            ('a', 0, 'x', x'00', 'x', 1, '{}'), ('a', 0, 'x', x'00', 'x', 1, '{ }'), (NULL, NULL, NULL, NULL, NULL, NULL, NULL),
            (NULL, NULL, NULL, NULL, NULL, NULL, NULL), (NULL, 1, NULL, NULL, NULL, NULL, NULL), ('ä', 0, 'x', x'00', 'x', 1, '{}')",
    );
    let columns = [
        ("a", "text"),
        ("b", "float8"),
        ("c", "text"),
        ("d", "bytea"),
        ("e", "text"),
        ("f", "int4"),
        ("j", "json"),
    ];
    let rows = read_in_all_ways(&fixture, "t", &columns, None);
    let distinct: HashSet<&String> = rows.iter().collect();
    assert_eq!((rows.len(), distinct.len()), (12, 10));
    let limit = BatchLimit { rows: 5, bytes: 1 << 20 };
    let mut source = fixture.source("t", &columns, None);
    assert!(source.read_batch(0, None, limit).expect("a batch").next.is_some());
}
