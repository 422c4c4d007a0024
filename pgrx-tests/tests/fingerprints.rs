//! The aggregate `plimsoll.fingerprint` in queries of all shapes, and pairs of tables that other tools have
//! called equal.

use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::row::RowWriter;
use plimsoll_core::value::Value;
use plimsoll_tests::shared;
use postgres::Client;

const KEY: [u8; 32] = [7; 32];
const EMPTY: [u8; 32] = [0; 32];

/// Rows of several types, some with NULL, some stored compressed or elsewhere.
const SALES: &str = "
    CREATE TABLE sale (id int8, customer int4, name text, price numeric(12,4), paid bool, token uuid,
        made timestamptz, due date, rate float8, tags text[], facts jsonb, gone int4);
    INSERT INTO sale SELECT i, i % 97, CASE WHEN i % 11 <> 0 THEN 'name ' || i END, i / 7.0, i % 2 = 0,
        md5(i::text)::uuid, timestamptz '2020-01-01' + i * interval '1 minute', date '2021-01-01' + i % 500, i / 3.0,
        CASE WHEN i % 5 = 0 THEN ARRAY['a', NULL, 'b' || i] END, jsonb_build_object('b', i, 'a', 1.50)
        FROM generate_series(1, 20000) i;
    ALTER TABLE sale ALTER name SET STORAGE EXTERNAL;
    INSERT INTO sale (id, name) VALUES (20001, repeat('outside ', 2000));
    ALTER TABLE sale ALTER name SET STORAGE MAIN;
    INSERT INTO sale (id, name) VALUES (20002, repeat('compressed ', 2000));
    ALTER TABLE sale DROP gone;
    ANALYZE sale";

const COLUMNS: &str = "id, customer, name, price, paid, token, made, due, rate, tags, facts";

fn database() -> Client {
    let cluster = shared();
    cluster.superuser(&cluster.create_database())
}

/// The one value of a query whose parameter `$1` is the key.
fn sum(client: &mut Client, query: &str) -> Vec<u8> {
    let row = client.query_one(query, &[&&KEY[..]]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    row.get(0)
}

/// The plan of such a query.
fn plan(client: &mut Client, query: &str) -> String {
    let query = query.replace("$1", &format!("'\\x{}'::bytea", "07".repeat(32)));
    let rows = client.query(&format!("EXPLAIN (COSTS OFF) {query}"), &[]).expect("a plan");
    rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}

fn refusal(client: &mut Client, query: &str) -> (String, String) {
    let error = client.batch_execute(query).expect_err(query);
    let error = error.as_db_error().expect("an error of the server");
    (error.code().code().to_owned(), error.message().to_owned())
}

#[test]
fn the_sum_is_that_of_the_encoding() {
    let mut client = database();
    let mut digester = Digester::new(FingerprintKey::new(KEY));
    let rows: [&[(u32, Value<'_>)]; 3] =
        [&[(1, Value::Int(1)), (2, Value::Text("one"))], &[(2, Value::Text("two"))], &[]];
    let mut expected = Fingerprint::default();
    for row in rows {
        let mut encoded = Vec::new();
        let mut writer = RowWriter::new(&mut encoded);
        row.iter().for_each(|(number, value)| writer.field(*number, value));
        expected.insert(&digester.digest(&encoded).expect("a row"));
    }
    let values = "(VALUES (1, 'one'), (NULL, 'two'), (NULL, NULL)) v (a, b)";
    assert_eq!(
        sum(&mut client, &format!("SELECT plimsoll.fingerprint($1, a, b) FROM {values}")),
        expected.sum()
    );
    assert_eq!(
        sum(&mut client, &format!("SELECT plimsoll.fingerprint($1, v) FROM {values}")),
        expected.sum()
    );
}

#[test]
fn columns_rows_groups_and_windows_add_up_to_the_same() {
    let mut client = database();
    client.batch_execute(SALES).expect("rows");
    let expected = sum(&mut client, &format!("SELECT plimsoll.fingerprint($1, {COLUMNS}) FROM sale"));
    assert_ne!(expected, EMPTY);
    // Whole rows: of the table, which has a dropped column, and without a name.
    assert_eq!(sum(&mut client, "SELECT plimsoll.fingerprint($1, sale) FROM sale"), expected);
    let anonymous = format!("SELECT plimsoll.fingerprint($1, ROW({COLUMNS})) FROM sale");
    assert_eq!(sum(&mut client, &anonymous), expected);
    let reversed = format!("SELECT plimsoll.fingerprint($1, {COLUMNS} ORDER BY id DESC) FROM sale");
    assert_eq!(sum(&mut client, &reversed), expected);
    for (settings, node) in [("enable_sort", "HashAggregate"), ("enable_hashagg", "GroupAggregate")] {
        client.batch_execute(&format!("SET {settings} = off")).expect("a setting");
        let grouped = format!("SELECT plimsoll.fingerprint($1, {COLUMNS}) FROM sale GROUP BY customer");
        let shown = plan(&mut client, &grouped);
        assert!(shown.contains(node), "{shown}");
        let groups = client.query(&grouped, &[&&KEY[..]]).expect("groups");
        assert_eq!(groups.len(), 98);
        let mut total = Fingerprint::default();
        for group in groups {
            let part: Vec<u8> = group.get(0);
            total.combine(&Fingerprint::from_parts(0, part.try_into().expect("32 bytes")));
        }
        assert_eq!(total.sum()[..], expected[..], "{node}");
        client.batch_execute("RESET ALL").expect("settings");
    }
    // A running sum: its last is the whole one's, and reading it does not change what comes after.
    let running = format!(
        "SELECT (array_agg(f ORDER BY id DESC))[1], count(DISTINCT f) FROM
             (SELECT id, plimsoll.fingerprint($1, {COLUMNS}) OVER (ORDER BY id) AS f FROM sale) w"
    );
    let row = client.query_one(&running, &[&&KEY[..]]).expect("a running sum");
    assert_eq!((row.get::<_, Vec<u8>>(0), row.get::<_, i64>(1)), (expected, 20_002));
}

#[test]
fn parallel_workers_and_partitions_find_what_one_process_finds() {
    let mut client = database();
    client.batch_execute(SALES).expect("rows");
    client
        .batch_execute(
            "CREATE TABLE parted (LIKE sale) PARTITION BY RANGE (id);
             CREATE TABLE parted_a PARTITION OF parted FOR VALUES FROM (MINVALUE) TO (7000);
             CREATE TABLE parted_b (facts jsonb, tags text[], rate float8, due date, made timestamptz, token uuid,
                 paid bool, price numeric(12,4), name text, customer int4, id int8);
             ALTER TABLE parted ATTACH PARTITION parted_b FOR VALUES FROM (7000) TO (MAXVALUE);
             INSERT INTO parted SELECT * FROM sale;
             ANALYZE parted",
        )
        .expect("partitions");
    let mut expected = Vec::new();
    for (table, row) in [("sale", "sale"), ("parted", "parted")] {
        for arguments in [COLUMNS, row] {
            let query = format!("SELECT plimsoll.fingerprint($1, {arguments}) FROM {table}");
            client.batch_execute("SET max_parallel_workers_per_gather = 0").expect("a setting");
            let shown = plan(&mut client, &query);
            assert!(!shown.contains("Gather"), "{shown}");
            expected.push(sum(&mut client, &query));
            client
                .batch_execute(
                    "SET max_parallel_workers_per_gather = 3; SET parallel_setup_cost = 0;
                     SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
                     SET enable_partitionwise_aggregate = on",
                )
                .expect("settings");
            let shown = plan(&mut client, &query);
            assert!(shown.contains("Gather") && shown.contains("Partial Aggregate"), "{shown}");
            expected.push(sum(&mut client, &query));
            let grouped = format!(
                "SELECT plimsoll.fingerprint($1, f) FROM (SELECT paid, plimsoll.fingerprint($1, {arguments}) AS f
                     FROM {table} GROUP BY paid) g"
            );
            client
                .batch_execute("SET enable_hashagg = off; SET max_parallel_workers_per_gather = 0")
                .expect("");
            let serial = sum(&mut client, &grouped);
            client.batch_execute("RESET enable_hashagg; SET max_parallel_workers_per_gather = 3").expect("");
            let shown = plan(&mut client, &grouped);
            assert!(shown.contains("Partial"), "{shown}");
            assert_eq!(sum(&mut client, &grouped), serial, "{table} {arguments}");
            client.batch_execute("RESET ALL").expect("settings");
        }
    }
    assert!(expected.iter().all(|found| *found == expected[0]), "{expected:?}");
}

#[test]
fn no_rows_are_the_empty_sum_and_no_row_counts_for_none() {
    let mut client = database();
    let none = "FROM generate_series(1, 0) i";
    assert_eq!(sum(&mut client, &format!("SELECT plimsoll.fingerprint($1, i) {none}")), EMPTY);
    let outer = "SELECT plimsoll.fingerprint($1, v) FROM (VALUES (1)) l (a)
                 LEFT JOIN (SELECT 2 AS a, 3 AS b) v ON l.a = v.a";
    assert_eq!(sum(&mut client, outer), EMPTY);
    // A row without a value is a row all the same.
    assert_ne!(sum(&mut client, "SELECT plimsoll.fingerprint($1, NULL::int)"), EMPTY);
    let moving = "SELECT CASE WHEN count(DISTINCT f) = 1 THEN (array_agg(f))[1] END FROM (SELECT plimsoll.fingerprint($1, i) OVER
                      (ORDER BY i ROWS BETWEEN 1 FOLLOWING AND 0 FOLLOWING) f FROM generate_series(1, 5) i) w";
    assert_eq!(sum(&mut client, moving), EMPTY);
}

#[test]
fn each_row_takes_the_key_it_comes_with() {
    let mut client = database();
    let both = sum(
        &mut client,
        "SELECT plimsoll.fingerprint(CASE i WHEN 1 THEN $1 ELSE sha256($1) END, i) FROM generate_series(1, 2) i",
    );
    let first = sum(&mut client, "SELECT plimsoll.fingerprint($1, 1)");
    let second = sum(&mut client, "SELECT plimsoll.fingerprint(sha256($1), 2)");
    let mut total = Fingerprint::default();
    for part in [first, second] {
        total.combine(&Fingerprint::from_parts(1, part.try_into().expect("32 bytes")));
    }
    assert_eq!(both[..], total.sum());
    // Compressed or not, a key is its bytes.
    let packed = "SELECT plimsoll.fingerprint(k, 1) FROM (SELECT substr($1 || ''::bytea, 1) AS k) p";
    assert_eq!(sum(&mut client, packed), sum(&mut client, "SELECT plimsoll.fingerprint($1, 1)"));
}

#[test]
fn what_has_no_fingerprint_is_refused() {
    let mut client = database();
    let key = "sha256('')";
    for (arguments, state, part) in [
        ("NULL::bytea, 1", "22004", "key is NULL"),
        ("'\\x00'::bytea, 1", "22023", "32 bytes"),
        (&format!("{key} || '\\x00'::bytea, 1"), "22023", "32 bytes"),
        (&format!("{key}, 1, 'pg_class'::regclass"), "0A000", "column 2"),
        (&format!("{key}, 1, 'untyped'"), "0A000", "column 2"),
        (&format!("{key}, ROW(1, '12.5'::money)"), "0A000", "column 2"),
        (&format!("{key}, VARIADIC ARRAY[1, 2]"), "0A000", "VARIADIC"),
    ] {
        let (found, message) = refusal(&mut client, &format!("SELECT plimsoll.fingerprint({arguments})"));
        assert!(found == state && message.contains(part), "{arguments}: {found} {message}");
    }
    // Its functions called by hand: states that are none, and copies instead of changes.
    for call in ["fingerprint_sum('\\x00')", "fingerprint_combine('\\x00', '\\x00')", "fingerprint_sum(NULL)"]
    {
        assert_eq!(refusal(&mut client, &format!("SELECT plimsoll.{call}")).0, "22023", "{call}");
    }
    let by_hand = "WITH s AS MATERIALIZED (SELECT decode(repeat('00', 40), 'hex') AS z)
         SELECT plimsoll.fingerprint_sum(plimsoll.fingerprint_combine(plimsoll.fingerprint_add(z, $1, 5), z))
             || z FROM s";
    let mut expected = sum(&mut client, "SELECT plimsoll.fingerprint($1, 5)");
    expected.extend([0; 40]);
    assert_eq!(sum(&mut client, by_hand), expected);
}

#[test]
fn types_and_widths_agree_with_what_their_columns_hold() {
    let mut client = database();
    // Each pair is equal to Postgres, and equal here.
    for (left, right) in [
        ("1::int2", "1::int8"),
        ("-1::int4", "-1::int8"),
        ("1.50::numeric", "1.5000::numeric"),
        ("0.00::numeric", "0::numeric"),
        ("'-0'::float8", "0::float8"),
        ("1.5::float4", "1.5::float8"),
        ("'NaN'::float8", "'-NaN'::float8"),
        ("'ab'::char(5)", "'ab'::text"),
        ("'ab'::varchar(9)", "'ab'::text"),
        (r#"'{"a": 1.0, "b": 2}'::jsonb"#, r#"'{"b":2,"a":1}'::jsonb"#),
        ("ARRAY[1.50]::numeric[]", "ARRAY[1.5]::numeric[]"),
    ] {
        let left = sum(&mut client, &format!("SELECT plimsoll.fingerprint($1, {left})"));
        assert_eq!(left, sum(&mut client, &format!("SELECT plimsoll.fingerprint($1, {right})")), "{right}");
    }
    client
        .batch_execute("CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN price AS numeric(9,2)")
        .expect("types");
    for (other, base) in [("1.50::price", "1.5::numeric"), ("'ab'::char(7)", "'ab'::char(2)")] {
        let other = sum(&mut client, &format!("SELECT plimsoll.fingerprint($1, {other})"));
        assert_eq!(other, sum(&mut client, &format!("SELECT plimsoll.fingerprint($1, {base})")), "{base}");
    }
    let moods = ["'sad'::mood", "'glad'::mood", "'sad'::text"];
    let moods = moods.map(|mood| sum(&mut client, &format!("SELECT plimsoll.fingerprint($1, {mood})")));
    assert!(moods[0] != moods[1] && moods[0] != moods[2], "a label is neither another label nor a text");
}

#[test]
fn tables_that_others_called_equal_differ() {
    let mut client = database();
    let pairs = [
        ("NULL against the empty text", "VALUES (1, NULL)", "VALUES (1, '')"),
        ("NULL against the word", "VALUES (1, NULL)", "VALUES (1, 'NULL')"),
        ("a delimiter inside a text", "VALUES ('a|b', 'c')", "VALUES ('a', 'b|c')"),
        ("a text moved to the next column", "VALUES ('ab', '')", "VALUES ('', 'ab')"),
        ("values swapped between columns", "VALUES (1, 2)", "VALUES (2, 1)"),
        ("values swapped between rows", "VALUES (1, 'a'), (2, 'b')", "VALUES (1, 'b'), (2, 'a')"),
        ("two equal rows on one side", "VALUES (1, 'a'), (1, 'a')", "SELECT 1, 'a' WHERE false"),
        (
            "two equal rows that take another's place",
            "VALUES (1, 'a'), (1, 'a')",
            "VALUES (2, 'b'), (2, 'b')",
        ),
        ("three equal rows against one", "VALUES (1, 'a'), (1, 'a'), (1, 'a')", "VALUES (1, 'a')"),
        ("a row beyond the largest key", "VALUES (1, 'a')", "VALUES (1, 'a'), (9223372036854775807, 'b')"),
        (
            "part of a second",
            "VALUES (1, '2024-01-01 00:00:00.000001'::timestamptz)",
            "VALUES (1, '2024-01-01'::timestamptz)",
        ),
        ("the end of a day", "VALUES (1, '24:00'::time)", "VALUES (1, '00:00'::time)"),
        ("one digit far behind the point", "VALUES (1, 1.00000000000000000001)", "VALUES (1, 1.0)"),
        ("the last bit of a double", "VALUES (1, 0.1::float8 + 0.2)", "VALUES (1, 0.3::float8)"),
        ("a blank at the end", "VALUES (1, 'a ')", "VALUES (1, 'a')"),
        ("upper and lower case", "VALUES (1, 'A')", "VALUES (1, 'a')"),
        ("composed and decomposed", "VALUES (1, U&'\\00e9')", "VALUES (1, U&'e\\0301')"),
        ("a text that looks like a number", "VALUES (1, '1')", "VALUES (1, 1)"),
        ("bytes against their text", "VALUES (1, 'a'::bytea)", "VALUES (1, 'a')"),
        ("a NULL element", "VALUES (1, ARRAY['a', NULL])", "VALUES (1, ARRAY['a', 'NULL'])"),
        ("other dimensions", "VALUES (1, ARRAY[[1, 2]])", "VALUES (1, ARRAY[[1], [2]])"),
        ("other bounds", "VALUES (1, '[0:0]={1}'::int[])", "VALUES (1, '{1}'::int[])"),
    ];
    for (what, left, right) in pairs {
        let [left, right] = [left, right].map(|rows| {
            let typed = format!("SELECT plimsoll.fingerprint($1, a, b) FROM ({rows}) v (a, b)");
            sum(&mut client, &typed)
        });
        assert_ne!(left, right, "{what}");
    }
}

#[test]
fn rows_on_a_boundary_count_in_one_range_alone() {
    let mut client = database();
    let of = |client: &mut Client, condition: &str| {
        let query =
            format!("SELECT plimsoll.fingerprint($1, i) FROM generate_series(1, 100) i WHERE {condition}");
        Fingerprint::from_parts(0, sum(client, &query).try_into().expect("32 bytes"))
    };
    let mut parts = of(&mut client, "i < 50");
    parts.combine(&of(&mut client, "i >= 50"));
    assert_eq!(parts, of(&mut client, "true"));
    let mut twice = of(&mut client, "i <= 50");
    twice.combine(&of(&mut client, "i >= 50"));
    assert_ne!(twice, parts, "a row that stands in two ranges shows");
}

#[test]
fn a_range_of_a_replica_has_the_fingerprint_of_its_rows() {
    let cluster = shared();
    let database = cluster.create_database();
    let owner = cluster.create_owner();
    let till = cluster.register(&database, "shop", "till");
    let mut client = cluster.superuser(&database);
    client
        .batch_execute(&format!(
            "GRANT ALL ON SCHEMA public TO {owner};
             CREATE TABLE public.item (id int8, v int8 NOT NULL, name text, price numeric, client_id text,
                 database_id uuid, PRIMARY KEY (client_id, database_id, id));
             ALTER TABLE public.item OWNER TO {owner};
             SELECT plimsoll.manage_table('public.item', version_column => 'v');
             INSERT INTO public.item SELECT i, i, 'item ' || i, i / 8.0, 'shop', '{}' FROM generate_series(1, 500) i",
            till.id
        ))
        .expect("a managed table");
    let numbers: Vec<i32> = client
        .query("SELECT column_number FROM plimsoll.table_schema($1, 'public.item')", &[&till.id])
        .expect("columns")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    for (range, condition) in [("(,)", "true"), ("[100,200)", "v >= 100 AND v < 200"), ("[900,)", "false")] {
        let query = format!(
            "SELECT r.row_count, r.fingerprint, a.n, a.f FROM plimsoll.range_fingerprint($1, 'public.item', '{range}') r,
                 (SELECT count(*) AS n, plimsoll.fingerprint(
                      (SELECT fingerprint_key FROM plimsoll.database_record WHERE database_id = $1), id, v, name, price) AS f
                  FROM public.item WHERE {condition}) a"
        );
        let row = client.query_one(&query, &[&till.id]).expect("fingerprints");
        assert_eq!(row.get::<_, i64>(0), row.get::<_, i64>(2), "{range}");
        assert_eq!(row.get::<_, Vec<u8>>(1), row.get::<_, Vec<u8>>(3), "{range}");
    }
}
