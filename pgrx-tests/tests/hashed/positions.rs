//! Where rows stand, in SQL as in the core.

use plimsoll_core::row::RowWriter;
use plimsoll_core::schema::{hash_position, position_of};
use plimsoll_core::value::{NumericBuf, Value as Field};

use crate::site::{Site, refused};

fn position(columns: &[(u32, Field<'_>)]) -> i64 {
    let mut fields = Vec::new();
    let mut row = RowWriter::new(&mut fields);
    columns.iter().for_each(|(number, value)| row.digest_field(*number, value).expect("sound"));
    hash_position(&fields)
}

fn site() -> Site {
    Site::with(
        "CREATE TABLE shop.item (TENANT, id int NOT NULL, PRIMARY KEY (client_id, database_id, id))",
        "",
    )
}

#[test]
fn sql_hashes_columns_as_the_core_does() {
    let mut site = site();
    let price = NumericBuf::parse("1.50").expect("a number");
    let row: [(u32, Field<'_>); 4] = [
        (1, Field::Int(-7)),
        (3, Field::Text("naïve")),
        (200, Field::Numeric(price.borrow())),
        (201, Field::Float(-0.0)),
    ];
    let expected = position(&row);
    let columns = "'{1,3,200,201}', (-7)::int2, 'naïve'::varchar(9), 1.5, '-0'::float8";
    for sql in [
        format!("SELECT plimsoll_open.hash_position({columns})"),
        // What is NULL is left out, wherever it stands.
        "SELECT plimsoll_open.hash_position('{1,2,3,200,201,202}', -7::int8, NULL::int, 'naïve'::text, 1.500, 0::float4,
             NULL::text)"
            .to_owned(),
        "SELECT plimsoll_open.hash_position('{1,3,200,201}', ROW(-7, 'naïve'::text, 1.5, 0::float8))".to_owned(),
        "SELECT plimsoll_open.hash_position('{1,3,200,201}', r)
         FROM (VALUES (-7, 'naïve'::text, 1.50, '-0'::float4)) AS r (a, b, c, d)"
            .to_owned(),
    ] {
        assert_eq!(site.value::<i64>(&sql), expected, "{sql}");
    }
    assert_eq!(site.value::<i64>("SELECT plimsoll_open.hash_position('{1}', NULL::int)"), position(&[]));
    // A column of a row type is one column, as the encoding has it, and no row of columns.
    let one = site.superuser.query_one("SELECT plimsoll_open.hash_position('{1}', ROW(1, 2))", &[]);
    assert!(one.is_err() || one.is_ok_and(|row| row.get::<_, i64>(0) != position(&[(1, Field::Int(1))])));
}

#[test]
fn more_columns_than_a_call_takes_are_given_as_a_row() {
    let mut site = site();
    let numbers: Vec<String> = (1..=1_600).map(|number| number.to_string()).collect();
    let values: Vec<String> = (1..=1_600).map(|number| format!("{number}::int8")).collect();
    let sql =
        format!("SELECT plimsoll_open.hash_position('{{{}}}', ROW({}))", numbers.join(","), values.join(","));
    let row: Vec<(u32, Field<'_>)> =
        (1..=1_600).map(|number| (number, Field::Int(i64::from(number)))).collect();
    assert_eq!(site.value::<i64>(&sql), position(&row));
}

#[test]
fn numbers_that_fit_no_columns_are_refused() {
    let mut site = site();
    for arguments in [
        "NULL, 1",
        "'{}', 1",
        "'{1,2}', 1",
        "'{1}', 1, 2",
        "'{2,1}', 1, 2",
        "'{1,1}', 1, 2",
        "'{0}', 1",
        "'{-1}', 1",
        "'{1,NULL}', 1, 2",
        "'{{1,2},{3,4}}', 1, 2, 3, 4",
        "'{1,2}', ROW(1, 2, 3)",
        "'{1,2,3}', ROW(1, 2)",
        "'{1,2}', NULL::shop.item",
    ] {
        let outcome = site.superuser.query(&format!("SELECT plimsoll_open.hash_position({arguments})"), &[]);
        let message = refused(outcome, "22023");
        assert!(message.contains("one for each column"), "{arguments}: {message}");
    }
    // They are a constant: an index could not be trusted otherwise.
    let sql = "SELECT plimsoll_open.hash_position(ARRAY[i], i) FROM generate_series(1, 2) i";
    refused(site.superuser.query(sql, &[]), "22023");
    refused(
        site.superuser.query("SELECT plimsoll_open.hash_position('{1,2}', VARIADIC ARRAY[1, 2])", &[]),
        "0A000",
    );
    refused(site.superuser.query("SELECT plimsoll_open.hash_position('{1}', '1'::money)", &[]), "0A000");
}

#[test]
fn a_type_that_is_altered_between_two_calls_is_read_as_it_is() {
    let mut site = site();
    // Both calls are one call site, which remembers what it learnt of the type.
    let calls = |numbers: &str, alter: &str, after: &str| {
        format!(
            "DO $do$
             DECLARE v shop.made; p bigint;
             BEGIN
                 FOR i IN 1..2 LOOP
                     IF i = 1 THEN v := ROW(1, 1717986918);
                     ELSE {alter}; EXECUTE 'SELECT {after}' INTO v; END IF;
                     p := plimsoll_open.hash_position('{numbers}', v);
                 END LOOP;
                 PERFORM set_config('shop.position', p::text, false);
             END $do$"
        )
    };
    let alter = "ALTER TYPE shop.made ALTER ATTRIBUTE b TYPE text";
    // As a row of columns it is read anew.
    site.superuser.batch_execute("CREATE TYPE shop.made AS (a int, b int)").expect("a type");
    site.superuser.batch_execute(&calls("{1,2}", alter, "7, repeat(''x'', 300)")).expect("two positions");
    let text = "x".repeat(300);
    let expected = position(&[(1, Field::Int(7)), (2, Field::Text(&text))]);
    assert_eq!(site.value::<String>("SELECT current_setting('shop.position')"), expected.to_string());
    // As one column it is refused, if it is not the same any more.
    site.superuser
        .batch_execute("DROP TYPE shop.made; CREATE TYPE shop.made AS (a int, b int)")
        .expect("the type");
    let message =
        refused(site.superuser.batch_execute(&calls("{1}", alter, "7, repeat(''x'', 300)")), "55000");
    assert!(message.contains("shop.made was altered"), "{message}");
    site.superuser
        .batch_execute("DROP TYPE shop.made; CREATE TYPE shop.made AS (a int, b int)")
        .expect("the type");
    site.superuser.batch_execute(&calls("{1}", "ANALYZE shop.item", "1, 2")).expect("nothing was altered");
    site.superuser
        .batch_execute(&calls("{1}", "COMMENT ON TYPE shop.made IS 'mine'", "1, 2"))
        .expect("nothing was altered that matters");
}

#[test]
fn types_that_are_nested_without_end_are_refused() {
    let mut site = site();
    site.superuser
        .batch_execute(
            "DO $do$ BEGIN
                 CREATE TYPE shop.nested0 AS (a int);
                 FOR i IN 1..500 LOOP
                     EXECUTE format('CREATE TYPE shop.nested%s AS (a shop.nested%s)', i, i - 1);
                 END LOOP;
             END $do$",
        )
        .expect("types");
    for (stack, sqlstate) in [("100kB", "54001"), ("2MB", "0A000")] {
        site.superuser.batch_execute(&format!("SET max_stack_depth = '{stack}'")).expect("a setting");
        let sql = "SELECT plimsoll_open.hash_position('{1}', NULL::shop.nested500)";
        refused(site.superuser.query(sql, &[]), sqlstate);
    }
}

#[test]
fn a_binary_version_stands_at_its_first_bytes() {
    let mut site = site();
    for bytes in [&[][..], &[0, 0, 0, 0, 0, 0, 7, 0xd1], &[0x7f; 8], &[0xff; 9], &[1]] {
        let expected = position_of(&Field::Bytea(bytes)).expect("a position");
        let sql = "SELECT plimsoll_open.version_position($1)";
        let found: i64 = site.superuser.query_one(sql, &[&bytes]).expect("a position").get(0);
        assert_eq!(found, expected, "{bytes:?}");
    }
    assert_eq!(site.value::<Option<i64>>("SELECT plimsoll_open.version_position(NULL)"), None);
}

#[test]
fn whoever_writes_to_a_table_may_keep_its_index_and_nothing_else() {
    let mut site = site();
    let clerk = site.server.create_login(&[]);
    site.run(&format!(
        "GRANT USAGE ON SCHEMA shop TO {0}; GRANT SELECT, INSERT, UPDATE, DELETE ON shop.item TO {0}",
        clerk.role
    ));
    let mut client = site.server.connect(&clerk, &site.database);
    let sql = site
        .filled("INSERT INTO shop.item VALUES ($T, 1); UPDATE shop.item SET id = 2; DELETE FROM shop.item");
    client.batch_execute(&sql).expect("the index is kept with the clerk's rights");
    let open: String = site.value(
        "SELECT string_agg(p.proname, ' ' ORDER BY p.proname) FROM pg_proc p
         WHERE pronamespace = 'plimsoll_open'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE')",
    );
    assert_eq!(open, "hash_position version_position");
    for sql in ["CREATE TABLE plimsoll_open.mine (i int)", "SELECT * FROM plimsoll.tables"] {
        refused(client.batch_execute(sql), "42501");
    }
}
