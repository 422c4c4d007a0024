//! Values and types that are refused, each with the reason.

use plimsoll_core::row::{BatchWriter, RowWriter, put_varint};
use plimsoll_core::value::{ColumnType, Value};

use crate::bench::{bench, numbers, row};
use crate::corpus::{bytes, entries};

#[test]
fn refused_values_are_rejected_one_by_one_with_their_code() {
    let (mut bench, tables) = bench();
    let mut refused = 0;
    for (table, (_, entries)) in &tables {
        let numbers = numbers(&mut bench, table);
        let mut rows = Vec::new();
        for entry in entries {
            let state = match entry.refused {
                Some("OutOfRange") => "22003",
                Some("TooLong") => "22001",
                Some("WouldChange" | "WrongType") => "22000",
                Some("InvalidText") => "22P02",
                _ => continue,
            };
            // Text that is not UTF-8 breaks the grammar: the upload as a whole is refused.
            let Some(wire) = entry.wire.as_ref().filter(|wire| plimsoll_core::row::check_row(wire).is_ok())
            else {
                continue;
            };
            rows.push((entry.name, state, row(rows.len() as i64 + 1, numbers, wire)));
        }
        let mut upload = BatchWriter::new();
        rows.iter().for_each(|(_, _, row)| upload.push(row));
        upload.push(&row(rows.len() as i64 + 1, numbers, &[]));
        let sql = "SELECT inserted, rejected FROM plimsoll.upload($1, $2, $3::bytea)";
        let answer = bench
            .client
            .query_one(sql, &[&bench.uploaded.id, &format!("public.{table}"), &upload.finish()])
            .unwrap_or_else(|error| panic!("{table}: {error:?}"));
        assert_eq!(answer.get::<_, i64>(0), 1, "{table}: the sound row is stored");
        let rejected: serde_json::Value = answer.get(1);
        let rejected = rejected.as_array().expect("a list");
        let found: Vec<_> =
            rejected.iter().map(|r| (r["ordinal"].as_u64(), r["sqlstate"].as_str())).collect();
        let expected: Vec<_> = (0..).zip(&rows).map(|(i, (_, state, _))| (Some(i), Some(*state))).collect();
        let names: Vec<_> = rows.iter().map(|(name, ..)| name).collect();
        assert_eq!(found, expected, "{table}: {names:?}");
        refused += rows.len();
    }
    assert!(refused > 35, "only {refused} values were refused");
}

#[test]
fn what_breaks_the_grammar_is_refused_with_nothing_stored() {
    let (mut bench, tables) = bench();
    let (table, _) = tables.iter().find(|(_, (sql, _))| sql == "text").expect("a table of text");
    let numbers = numbers(&mut bench, table);
    for hex in ["010502c328", "010580", "0116", "0100", "01050161ff", "0105ffffffff0f"] {
        let mut upload = BatchWriter::new();
        upload.push(&row(1, numbers, &[]));
        upload.push(&row(2, numbers, &bytes(hex)));
        let error = bench
            .client
            .query(
                "SELECT * FROM plimsoll.upload($1, $2, $3::bytea)",
                &[&bench.uploaded.id, &format!("public.{table}"), &upload.finish()],
            )
            .expect_err(hex);
        assert_eq!(error.code().map(|code| code.code()), Some("22P03"), "{hex}: {error:?}");
    }
    let sql = format!("SELECT count(*) FROM public.{table}");
    assert_eq!(bench.client.query_one(&sql, &[]).expect("a count").get::<_, i64>(0), 0);
}

#[test]
fn types_without_an_encoding_are_refused_with_the_column_and_what_to_do() {
    let (mut bench, _) = bench();
    bench
        .client
        .batch_execute(
            "CREATE TYPE public.priced AS (name text, price money);
             CREATE TYPE public.classes AS RANGE (subtype = regclass);
             CREATE DOMAIN public.cash AS money;
             DO $$ BEGIN
                 CREATE TYPE public.deep_1 AS (a int4);
                 FOR i IN 2 .. 33 LOOP
                     EXECUTE format('CREATE TYPE public.deep_%s AS (a public.deep_%s)', i, i - 1);
                 END LOOP;
             END $$",
        )
        .expect("types");
    for (sql, reason, remedy) in [
        ("money", "lc_monetary", "numeric"),
        ("money[]", "lc_monetary", "numeric"),
        ("public.cash", "lc_monetary", "numeric"),
        ("public.priced", "lc_monetary", "numeric"),
        ("regclass", "not immutable", "text"),
        ("regtype[]", "not immutable", "text"),
        ("aclitem", "not immutable", "text"),
        ("public.classes", "not immutable", "text"),
        ("bpchar", "without a length", "char(n)"),
        ("interval day to hour", "some fields", "interval"),
        ("int2vector", "system catalogue", "server_columns"),
        ("pg_node_tree", "system catalogue", "server_columns"),
        ("public.deep_33", "more than 32", "server_columns"),
    ] {
        let owner = &bench.owner;
        let create = format!(
            "CREATE TABLE public.odd (client_id text NOT NULL, database_id uuid NOT NULL,
                 id int8 NOT NULL, v int8 NOT NULL, value {sql},
                 PRIMARY KEY (client_id, database_id, id));
             ALTER TABLE public.odd OWNER TO {owner}"
        );
        bench.client.batch_execute(&create).expect("a table");
        let manage = "SELECT plimsoll.manage_table('public.odd', version_column => 'v')";
        let error = bench.client.batch_execute(manage).expect_err(sql);
        let error = error.as_db_error().expect("an error of the server");
        assert_eq!(error.code().code(), "0A000", "{sql}: {error:?}");
        assert!(error.message().contains("column \"value\""), "{sql}: {error:?}");
        assert!(error.message().contains(reason), "{sql}: {error:?}");
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains(remedy) && hint.contains("server_columns"), "{sql}: {error:?}");
        let with_hint =
            "SELECT plimsoll.manage_table('public.odd', version_column => 'v', server_columns => '{value}')";
        bench.client.batch_execute(with_hint).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        bench
            .client
            .batch_execute("SELECT plimsoll.unmanage_table('public.odd'); DROP TABLE public.odd")
            .expect(sql);
    }
}

#[test]
fn a_domain_is_its_base_type_and_keeps_its_constraint() {
    let (mut bench, _) = bench();
    let owner = &bench.owner;
    let create = format!(
        "CREATE DOMAIN public.price AS numeric(5,2) CHECK (VALUE > 0);
         CREATE TABLE public.priced (client_id text NOT NULL, database_id uuid NOT NULL,
             id int8 NOT NULL, v int8 NOT NULL, value public.price, list public.price[],
             PRIMARY KEY (client_id, database_id, id));
         ALTER TABLE public.priced OWNER TO {owner};
         SELECT plimsoll.manage_table('public.priced', version_column => 'v')"
    );
    bench.client.batch_execute(&create).expect("a table");
    let numbers = numbers(&mut bench, "priced");
    let list = bench.column_number("priced", "list");
    let entries = entries();
    let wire = |name: &str| {
        let entry = entries.iter().find(|entry| entry.name == name).expect(name);
        entry.wire.clone().expect("a wire form")
    };
    let (good, bad) = (wire("numeric(5,2) fewer digits"), wire("numeric minus one"));
    let good_list = wire("array of numeric(5,2)");
    let element = |value: &[u8]| {
        let mut array = vec![1, 1, 0, 0, 0, 1, 0, 0, 0];
        array.extend_from_slice(&value[1..]);
        let mut field = vec![1, 16, array.len() as u8];
        field.extend_from_slice(&array);
        field
    };
    assert_eq!(element(&good), good_list);
    let with_list = |id, value: &[u8], array: &[u8]| {
        let mut row = row(id, numbers, value);
        put_varint(&mut row, u64::from(list));
        row.extend_from_slice(&array[1..]);
        row
    };
    let mut upload = BatchWriter::new();
    upload.push(&with_list(1, &good, &good_list));
    upload.push(&with_list(2, &bad, &good_list));
    upload.push(&with_list(3, &good, &element(&bad)));
    let sql = "SELECT inserted, rejected FROM plimsoll.upload($1, $2, $3::bytea)";
    let answer = bench
        .client
        .query_one(sql, &[&bench.uploaded.id, &"public.priced", &upload.finish()])
        .expect("an upload");
    let rejected: serde_json::Value = answer.get(1);
    let states: Vec<_> =
        rejected.as_array().expect("a list").iter().map(|r| r["sqlstate"].as_str()).collect();
    assert_eq!((answer.get::<_, i64>(0), states), (1, vec![Some("23514"); 2]), "{rejected}");
    // The elements' type, too, is the domain.
    let sql = "SELECT value::text, list::text, list = ARRAY[1.5]::public.price[] FROM public.priced";
    let kept = bench.client.query_one(sql, &[]).expect("a row");
    assert_eq!((kept.get(0), kept.get(1), kept.get(2)), ("1.50", "{1.50}", true));
}

#[test]
fn text_that_its_type_refuses_rejects_its_row_alone_in_the_key_too() {
    let (mut bench, _) = bench();
    let owner = &bench.owner;
    let create = format!(
        "CREATE TABLE public.hosts (client_id text NOT NULL, database_id uuid NOT NULL,
             id inet NOT NULL, v int8 NOT NULL, value cidr,
             PRIMARY KEY (client_id, database_id, id));
         ALTER TABLE public.hosts OWNER TO {owner};
         SELECT plimsoll.manage_table('public.hosts', version_column => 'v')"
    );
    bench.client.batch_execute(&create).expect("a table");
    let numbers = numbers(&mut bench, "hosts");
    let mut upload = BatchWriter::new();
    for (id, value) in [("10.0.0.1", "10.0.0.0/8"), ("nowhere", "10.0.0.0/8"), ("10.0.0.2", "10.0.0.1/8")] {
        let mut row = Vec::new();
        let mut writer = RowWriter::new(&mut row);
        writer.field(numbers[0], &Value::Other(id));
        writer.field(numbers[1], &Value::Int(1));
        writer.field(numbers[2], &Value::Other(value));
        upload.push(&row);
    }
    let sql = "SELECT inserted, rejected FROM plimsoll.upload($1, $2, $3::bytea)";
    let answer = bench
        .client
        .query_one(sql, &[&bench.uploaded.id, &"public.hosts", &upload.finish()])
        .expect("an upload");
    let rejected: serde_json::Value = answer.get(1);
    let found: Vec<_> = rejected
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| (row["ordinal"].as_u64(), row["sqlstate"].as_str()))
        .collect();
    assert_eq!(found, [(Some(1), Some("22P02")), (Some(2), Some("22P02"))], "{rejected}");
    assert_eq!(answer.get::<_, i64>(0), 1);
}

/// A value that its type takes and keeps as another, and what is said of it.
const KEPT_OTHERWISE: [(&str, &str, &str, &str); 15] = [
    ("inet", "other('inet')", "10.0.0.1/32", "writes it as \"10.0.0.1\""),
    ("cidr", "other('cidr')", "10", "writes it as \"10.0.0.0/8\""),
    ("jsonpath", "other('jsonpath')", "$.a", "writes it as \"$.\\\"a\\\"\""),
    ("point", "other('point')", "(1.50,2)", "writes it as \"(1.5,2)\""),
    (
        "name",
        "other('name')",
        "0123456789012345678901234567890123456789012345678901234567890123",
        "writes it as",
    ),
    ("\"char\"", "other('\"char\"')", "xy", "writes it as \"x\""),
    ("xid", "other('xid')", "-1", "writes it as \"4294967295\""),
    ("bit(3)", "other('bit')", "10", "does not match type bit(3)"),
    ("public.hstore", "other('public.hstore')", "a=>1", "writes it as \"\\\"a\\\"=>\\\"1\\\"\""),
    ("int4range", "range(int4)", "[1,9]", "canonical form"),
    ("numrange", "range(numeric)", "[1,1)", "canonical form"),
    ("numrange", "range(numeric)", "[2,1]", "lower bound must be less"),
    ("int4multirange", "multirange(int4)", "{[3,4),[1,2)}", "not in order"),
    ("int4multirange", "multirange(int4)", "{[1,3),[3,5)}", "touch"),
    ("int4range[]", "array(range(int4))", "{\"[1,9]\"}", "canonical form"),
];

#[test]
fn values_that_their_types_keep_as_others_are_rejected_with_column_value_and_what_to_do() {
    let (mut bench, _) = bench();
    let owner = bench.owner.clone();
    for (i, (sql, core_type, text, expected)) in KEPT_OTHERWISE.into_iter().enumerate() {
        let table = format!("kept_{i}");
        let create = format!(
            "CREATE TABLE public.{table} (client_id text NOT NULL, database_id uuid NOT NULL,
                 id int8 NOT NULL, v int8 NOT NULL, value {sql},
                 PRIMARY KEY (client_id, database_id, id));
             ALTER TABLE public.{table} OWNER TO {owner};
             SELECT plimsoll.manage_table('public.{table}', version_column => 'v')"
        );
        bench.client.batch_execute(&create).expect("a table");
        let numbers = numbers(&mut bench, &table);
        let (column_type, mut buffer) = (core_type.parse::<ColumnType>().expect("a type"), Vec::new());
        let value = plimsoll_core::value::literal::parse(text, &column_type, &mut buffer).expect(text);
        let mut field = Vec::new();
        RowWriter::new(&mut field).field(1, &value);
        let mut upload = BatchWriter::new();
        upload.push(&row(1, numbers, &[]));
        upload.push(&row(2, numbers, &field));
        upload.push(&row(3, numbers, &[]));
        let sql = "SELECT inserted, rejected FROM plimsoll.upload($1, $2, $3::bytea)";
        let answer = bench
            .client
            .query_one(sql, &[&bench.uploaded.id, &format!("public.{table}"), &upload.finish()])
            .unwrap_or_else(|error| panic!("{text}: {error:?}"));
        let rejected: serde_json::Value = answer.get(1);
        let message = rejected[0]["message"].as_str().unwrap_or_default();
        assert_eq!(
            (answer.get::<_, i64>(0), rejected[0]["ordinal"].as_u64()),
            (2, Some(1)),
            "{text}: {rejected}"
        );
        assert_eq!(rejected[0]["column"], "value", "{text}: {rejected}");
        let shown: String = text.chars().take(40).collect();
        assert!(message.starts_with("column \"value\": "), "{text}: {message}");
        assert!(message.contains(&expected.replace("\\\"", "\"")), "{text}: {message}");
        assert!(message.contains(&shown) && message.contains("correct the value"), "{text}: {message}");
    }
}
