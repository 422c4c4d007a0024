//! Local tables that have other types than the managed ones, from the begin or while they are read.

use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::store::{BatchLimit, FailureKind, SourceKey, SourceRecord};

use crate::local::{KEY, Local, read_all};

const LIMIT: BatchLimit = BatchLimit { rows: 10, bytes: 1 << 20 };

/// The keys of all rows.
fn keys(local: &Local, table: &str, columns: &[&str]) -> Vec<SourceKey> {
    let mut source = local.source(table, columns, Some("v"));
    let records = read_all(source.as_mut(), 10);
    let key = |record: &SourceRecord| match record {
        SourceRecord::Row(row) => SourceKey::Encoded(row.key.clone()),
        SourceRecord::Bad(bad) => panic!("{bad:?}"),
    };
    records.iter().map(key).collect()
}

#[test]
fn keys_that_the_local_type_has_not_are_no_rows_and_others_are_found_as_they_are_spelled() {
    let local = Local::new(
        r#"CREATE TYPE mood AS ENUM ('happy', 'sad');
           CREATE TABLE small (k int2 PRIMARY KEY, v int8 NOT NULL); INSERT INTO small VALUES (7, 1), (-8, 2);
           CREATE TABLE large (k numeric PRIMARY KEY, v int8 NOT NULL); INSERT INTO large VALUES (7, 1), (100000, 2);
           CREATE TABLE half (k numeric PRIMARY KEY, v int8 NOT NULL); INSERT INTO half VALUES (7, 1), (1.5, 2);
           CREATE TABLE real (k float4 PRIMARY KEY, v int8 NOT NULL); INSERT INTO real VALUES (0.1, 1);
           CREATE TABLE double (k float8 PRIMARY KEY, v int8 NOT NULL); INSERT INTO double VALUES (0.1, 1), (1e300, 2);
           CREATE TABLE moods (k mood PRIMARY KEY, v int8 NOT NULL); INSERT INTO moods VALUES ('sad', 1);
           CREATE TABLE words (k text PRIMARY KEY, v int8 NOT NULL); INSERT INTO words VALUES ('sad', 1), ('none', 2);
           CREATE TABLE documents (k text PRIMARY KEY, v int8 NOT NULL);
           INSERT INTO documents VALUES ('{"b": 1,  "a": 2.0}', 1);"#,
    );
    // Rows of the first table are found by the keys of the other's that it has, and no others.
    for (table, other, found, key) in [
        ("small", "large", 1, "k int8*"),
        ("small", "half", 1, "k numeric*"),
        ("small", "small", 2, "k float8*"),
        ("real", "real", 1, "k float8*"),
        ("real", "double", 0, "k float8*"),
        ("moods", "words", 1, "k text*"),
        ("documents", "documents", 1, "k jsonb*"),
    ] {
        let columns = [key, "v int8!"];
        let wanted = keys(&local, other, &columns);
        let answers = local.source(table, &columns, Some("v")).lookup(0, &wanted);
        let answers = answers.unwrap_or_else(|failure| panic!("{table} by {other} as {key}: {failure}"));
        assert_eq!(answers.iter().flatten().count(), found, "{table} by {other} as {key}: {answers:?}");
    }
}

#[test]
fn a_column_that_gets_another_type_while_it_is_read_stops_its_table() {
    let mut local = Local::new(
        "CREATE DOMAIN count AS int4; CREATE TABLE t (k int8 PRIMARY KEY, n int4, d count, v int8 NOT NULL);
         INSERT INTO t VALUES (1, 875770417, 5, 1)",
    );
    let mut source = local.source("t", &["k int8*", "n int4", "d int4", "v int8!"], Some("v"));
    assert_eq!(source.read_batch(0, None, LIMIT).expect("a batch").records.len(), 1);
    // Four bytes as before, of another value.
    local.writer.batch_execute("ALTER TABLE t ALTER n TYPE text USING '1234'").expect("altered");
    let refused = source.read_batch(0, None, LIMIT).expect_err("another type");
    assert!(refused.message.contains("\"n\"") && refused.hint.is_some(), "{refused}");
}

#[test]
fn a_column_that_is_altered_between_two_connections_stops_its_table_and_refuses_no_row() {
    let mut local = Local::new("CREATE TABLE t (k int8 PRIMARY KEY, n int4, v int8 NOT NULL)");
    for (own, alteration) in
        [("n int4", "ALTER n TYPE text"), ("n text", "RENAME n TO m"), ("m text", "DROP m")]
    {
        let (_, plan) = local.planned("t", &["k int8*", own, "v int8!"]);
        local.writer.batch_execute(&format!("ALTER TABLE t {alteration}")).expect("altered");
        let (key, column) = (FingerprintKey::new(KEY), &own[..1]);
        let written = local.opened().into_store(vec![plan.clone()], key.clone()).map(drop);
        let read = local.opened().into_source(vec![plan], key).map(drop);
        for outcome in [written, read] {
            let refused = outcome.expect_err(alteration);
            assert_eq!(refused.kind, FailureKind::Table, "{alteration}: {refused}");
            assert!(
                refused.message.contains(&format!("\"{column}\"")) && refused.hint.is_some(),
                "{alteration}: {refused}"
            );
        }
    }
}
