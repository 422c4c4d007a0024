//! Which tables can be managed without version or key, and how that is said.

use serde_json::json;

use crate::site::{Site, TENANT, refused};

/// Manages `shop.thing`, made by `sql`.
fn manage(site: &mut Site, sql: &str, arguments: &str) -> Result<(), postgres::Error> {
    site.run(&format!("DROP TABLE IF EXISTS shop.thing; {}", sql.replace("TENANT", TENANT)));
    site.superuser.batch_execute(&format!("SELECT plimsoll.manage_table('shop.thing'{arguments})"))
}

fn site() -> Site {
    Site::with(
        "CREATE TABLE shop.item (TENANT, id int NOT NULL, PRIMARY KEY (client_id, database_id, id))",
        "",
    )
}

/// What a table is said to be.
fn shown(site: &mut Site) -> String {
    site.value(
        "SELECT concat_ws(' ', key_columns, is_keyless, COALESCE(version_column, '-'), version_scope, axis, placed_by)
         FROM plimsoll.tables WHERE relation = 'shop.thing'",
    )
}

#[test]
fn a_table_without_version_stands_at_its_key() {
    let mut site = site();
    manage(&mut site, "CREATE TABLE shop.thing (TENANT, b int, a int, note text, PRIMARY KEY (client_id, database_id, a, b))", "")
        .expect("a managed table");
    assert_eq!(shown(&mut site), "{a,b} f - table hash {a,b}");
    let schema: String = site.value(
        "SELECT string_agg(concat(column_name, ' ', is_key, is_version, places), ', ' ORDER BY column_number)
         FROM plimsoll.table_schema($D, 'shop.thing')",
    );
    assert_eq!(schema, "b tft, a tft, note fff");
    let index: String = site.value(
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index
         WHERE indrelid = 'shop.thing'::regclass AND NOT indisunique",
    );
    assert!(
        index.contains("(client_id, database_id, plimsoll_open.hash_position('{3,4}'::integer[], b, a))"),
        "{index}"
    );
    // Managed once more, it is found.
    let before: u32 = site.value("SELECT 'shop.plimsoll_2_position'::regclass::oid");
    site.superuser.batch_execute("SELECT plimsoll.manage_table('shop.thing')").expect("once more");
    assert_eq!(site.value::<u32>("SELECT 'shop.plimsoll_2_position'::regclass::oid"), before);
}

#[test]
fn a_unique_index_is_a_key_where_it_is_never_null() {
    let mut site = site();
    let table = "CREATE TABLE shop.thing (TENANT, code text NOT NULL, other int, v bytea NOT NULL)";
    let unique = "CREATE UNIQUE INDEX ON shop.thing (database_id, code, client_id)";
    let nullable = "CREATE UNIQUE INDEX ON shop.thing (client_id, database_id, other)";
    manage(&mut site, &format!("{table}; {nullable}; {unique}"), ", version_column => 'v'").expect("a key");
    assert_eq!(shown(&mut site), "{code} f v table version {}");
    let outcome = manage(&mut site, &format!("{table}; {nullable}"), "");
    let message = refused(outcome, "42P16");
    assert!(message.contains("no usable key") && message.contains("key_columns => '{}'"), "{message}");
}

#[test]
fn nobody_gets_a_table_without_a_key_unasked() {
    let mut site = site();
    let table = "CREATE TABLE shop.thing (TENANT, a int, b text)";
    refused(manage(&mut site, table, ""), "42P16");
    manage(&mut site, table, ", key_columns => '{}'").expect("a table without a key");
    assert_eq!(shown(&mut site), "{} t - table hash {a,b}");
    let keyed = "CREATE TABLE shop.thing (TENANT, a int, PRIMARY KEY (client_id, database_id, a))";
    let message = refused(manage(&mut site, keyed, ", key_columns => '{}'"), "22023");
    assert!(message.contains("has a key: (a)"), "{message}");
    // A column that comes later moves no row, also when it is managed again.
    manage(&mut site, table, ", key_columns => '{}', server_columns => '{b}'")
        .expect("a table without a key");
    assert_eq!(shown(&mut site), "{} t - table hash {a}");
    let one: i64 = site.value("SELECT plimsoll_open.hash_position('{2}', 5)");
    site.run("INSERT INTO shop.thing VALUES ($T, 5, 'x'); ALTER TABLE shop.thing ADD c int");
    site.superuser
        .batch_execute(
            "SELECT plimsoll.manage_table('shop.thing', key_columns => '{}', server_columns => '{b}')",
        )
        .expect("once more");
    assert_eq!(shown(&mut site), "{} t - table hash {a}");
    let position: i64 = site.value("SELECT version FROM plimsoll.manifest($D, 'shop.thing', '(,)')");
    let number = site.value::<i32>(
        "SELECT column_number FROM plimsoll.table_schema($D, 'shop.thing') WHERE column_name = 'a'",
    );
    assert_eq!(
        position,
        site.value::<i64>(&format!("SELECT plimsoll_open.hash_position('{{{number}}}', 5)")),
        "{one}"
    );
    // One that is gone is no longer hashed.
    site.run("ALTER TABLE shop.thing DROP a");
    refused(
        site.superuser.query("SELECT * FROM plimsoll.manifest($1, 'shop.thing', '(,)')", &[&site.till.id]),
        "42703",
    );
    site.superuser
        .batch_execute(
            "SELECT plimsoll.manage_table('shop.thing', key_columns => '{}', server_columns => '{b}')",
        )
        .expect("once more");
    assert_eq!(shown(&mut site), "{} t - table hash {c}");
}

#[test]
fn versions_of_a_table_and_of_a_row_are_told_apart() {
    let mut site = site();
    let table = "CREATE TABLE shop.thing (TENANT, id int, revision int, status text, PRIMARY KEY (client_id, database_id, id))";
    for (arguments, shown_as) in [
        (", version_column => 'revision', version_scope => 'row'", "{id} f revision row hash {id}"),
        (", version_column => 'status', version_scope => 'row'", "{id} f status row hash {id}"),
        (", version_column => 'id'", "{id} f id table version {}"),
    ] {
        manage(&mut site, table, arguments).unwrap_or_else(|error| panic!("{arguments}: {error:?}"));
        assert_eq!(shown(&mut site), shown_as);
    }
    for (arguments, sqlstate, told) in [
        (", version_column => 'revision'", "42P16", "takes NULL"),
        (", version_scope => 'row'", "22023", "needs a version column"),
        (", version_scope => 'sometimes'", "22023", "not known"),
        (", version_column => 'none', version_scope => 'row'", "42703", "none"),
    ] {
        let message = refused(manage(&mut site, table, arguments), sqlstate);
        assert!(message.contains(told), "{arguments}: {message}");
    }
    let keyless = "CREATE TABLE shop.thing (TENANT, v bigint NOT NULL, status text NOT NULL)";
    manage(&mut site, keyless, ", key_columns => '{}', version_column => 'v'").expect("without a key");
    assert_eq!(shown(&mut site), "{} t v table version {}");
    let row = ", key_columns => '{}', version_column => 'v', version_scope => 'row'";
    assert!(refused(manage(&mut site, keyless, row), "22023").contains("needs a key"));
    let status = ", key_columns => '{}', version_column => 'status'";
    assert!(refused(manage(&mut site, keyless, status), "42P16").contains("version_scope => 'row'"));
}

#[test]
fn a_renamed_label_that_is_hashed_is_noticed() {
    let mut site = Site::with(
        "CREATE TYPE shop.size AS ENUM ('small', 'large');
         CREATE TABLE shop.item (TENANT, size shop.size, note text)",
        ", key_columns => '{}'",
    );
    let rows = json!([{"size": "small", "note": "a"}, {"size": "large", "note": "b"}]);
    assert_eq!(site.upload(&rows).numbers, [2, 0, 0, 0]);
    site.run("ALTER TYPE shop.size ADD VALUE 'huge'");
    site.superuser
        .execute("SELECT plimsoll.rebuild_manifest($1, 'shop.item')", &[&site.till.id])
        .expect("as before");
    site.run("ALTER TYPE shop.size RENAME VALUE 'small' TO 'tiny'");
    let message = refused(
        site.agent.query("SELECT plimsoll.rebuild_manifest($1, 'shop.item')", &[&site.till.id]),
        "55000",
    );
    assert!(message.contains("\"small\"") && message.contains("manage_table"), "{message}");
    site.superuser
        .batch_execute("SELECT plimsoll.manage_table('shop.item', key_columns => '{}')")
        .expect("managed again");
    for id in [site.till.id, site.other.id] {
        site.superuser.execute("SELECT plimsoll.rebuild_manifest($1, 'shop.item')", &[&id]).expect("a scan");
    }
    site.right();
    site.superuser
        .execute("SELECT plimsoll.set_option($1, 'guard_fraction', '1')", &[&site.till.id])
        .expect("an option");
    let items = site.items();
    let first = site.delete_items(&items[..1]);
    assert_eq!(first, (1, 0), "the row is found by the index");
}

#[test]
fn a_dropped_attribute_that_is_hashed_is_noticed() {
    let mut site = Site::with(
        "CREATE TYPE shop.size AS (width int, height int);
         CREATE TABLE shop.item (TENANT, size shop.size, note text)",
        ", key_columns => '{}'",
    );
    site.run("INSERT INTO shop.item VALUES ($T, '(1,2)', 'a'), ($T, '(3,4)', 'b')");
    site.right();
    // Rows stay where they are.
    site.run("ALTER TYPE shop.size ADD ATTRIBUTE depth int; ALTER TYPE shop.size RENAME ATTRIBUTE width TO breadth");
    site.superuser
        .execute("SELECT plimsoll.rebuild_manifest($1, 'shop.item')", &[&site.till.id])
        .expect("as before");
    site.run("ALTER TYPE shop.size DROP ATTRIBUTE height");
    let message = refused(
        site.agent.query("SELECT plimsoll.rebuild_manifest($1, 'shop.item')", &[&site.till.id]),
        "55000",
    );
    assert!(message.contains("\"size\"") && message.contains("\"attribute 2\""), "{message}");
    site.superuser
        .batch_execute("SELECT plimsoll.manage_table('shop.item', key_columns => '{}')")
        .expect("managed again");
    for id in [site.till.id, site.other.id] {
        site.superuser.execute("SELECT plimsoll.rebuild_manifest($1, 'shop.item')", &[&id]).expect("a scan");
    }
    site.right();
    site.superuser
        .execute("SELECT plimsoll.set_option($1, 'guard_fraction', '1')", &[&site.till.id])
        .expect("an option");
    let items = site.items();
    assert_eq!(site.delete_items(&items[..1]), (1, 0), "the row is found by the index");
}

#[test]
fn the_extension_takes_its_indexes_along() {
    let mut site = Site::with(
        "CREATE TABLE shop.item (TENANT, id int NOT NULL, PRIMARY KEY (client_id, database_id, id))
             PARTITION BY RANGE (id);
         CREATE TABLE shop.low PARTITION OF shop.item FOR VALUES FROM (0) TO (100);
         CREATE TABLE shop.rest PARTITION OF shop.item DEFAULT",
        "",
    );
    site.run("INSERT INTO shop.item SELECT $T, i FROM generate_series(90, 110) i");
    site.right();
    let count =
        "SELECT count(*) FROM pg_class WHERE relkind IN ('i', 'I') AND relnamespace = 'shop'::regnamespace";
    assert_eq!(site.value::<i64>(count), 6);
    site.superuser.batch_execute("DROP EXTENSION plimsoll").expect("it goes");
    assert_eq!(site.value::<i64>(count), 3);
    site.run("INSERT INTO shop.item VALUES ($T, 7)");
    assert_eq!(site.value::<i64>("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'plimsoll%'"), 0);
}
