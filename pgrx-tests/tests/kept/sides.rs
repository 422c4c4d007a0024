//! Two sides that both keep manifests, and agents that find one in need of repair.

use plimsoll_tests::shared;
use uuid::Uuid;

use crate::site::Site;

/// A database of one client's own, with the rows of `site`'s replica in a table without tenant columns.
struct Own {
    client: postgres::Client,
    id: Uuid,
}

impl Own {
    fn open(site: &mut Site) -> Own {
        let id = site.till.id;
        let key: Vec<u8> =
            site.value("SELECT fingerprint_key FROM plimsoll.database_record WHERE database_id = $D");
        let numbers: serde_json::Value = site.value(
            "SELECT jsonb_object_agg(column_name, column_number) FROM plimsoll.table_schema($D, 'shop.item')",
        );
        let database = shared().create_database();
        let mut client = shared().superuser(&database);
        client
            .batch_execute(
                "CREATE TABLE item (version bigint NOT NULL, changed timestamptz, name text, id int PRIMARY KEY,
                     amount numeric(10,2))",
            )
            .expect("a table");
        client
            .execute("SELECT plimsoll.adopt_database($1, 'acme', 'till', $2)", &[&id, &key])
            .expect("the same database");
        client
            .execute(
                "SELECT plimsoll.manage_table('item', version_column => 'version', modified_column => 'changed',
                     tenant_columns => '{}', superuser_allowed => true, database_id => $1, column_numbers => $2)",
                &[&id, &numbers],
            )
            .expect("a managed table without tenant columns");
        let mut own = Own { client, id };
        own.call("rebuild_manifest").expect("a rebuild");
        own
    }

    fn call(&mut self, function: &str) -> Result<i64, postgres::Error> {
        let query = format!("SELECT plimsoll.{function}($1, 'item')");
        self.client.query_one(&query, &[&self.id]).map(|row| row.get(0))
    }

    fn run(&mut self, sql: &str) {
        self.client.batch_execute(sql).expect(sql);
    }

    #[track_caller]
    fn root(&mut self) -> (i64, Option<i64>, Option<Vec<u8>>) {
        root(&mut self.client, self.id, "item")
    }
}

fn root(client: &mut postgres::Client, id: Uuid, relation: &str) -> (i64, Option<i64>, Option<Vec<u8>>) {
    let query = "SELECT row_count, max_version, fingerprint FROM plimsoll.table_version($1, $2)";
    let row = client.query_one(query, &[&id, &relation]).expect("a version");
    (row.get(0), row.get(1), row.get(2))
}

#[test]
fn equal_rows_have_equal_roots_on_both_sides() {
    let mut site = Site::open();
    let mut own = Own::open(&mut site);
    let id = site.till.id;
    let rows =
        "i, 'name ' || i, i * 0.10, '2026-01-01 00:00+00'::timestamptz + i * interval '1 second', i * 3";
    site.run(&format!("INSERT INTO shop.item SELECT $C, $D, {rows} FROM generate_series(1, 5000) i"));
    own.run(&format!(
        "INSERT INTO item (id, name, amount, changed, version) SELECT {rows} FROM generate_series(5000, 1, -1) i"
    ));
    let first = own.root();
    assert_eq!(first.0, 5_000);
    assert!(first.2.is_some(), "without a scan");
    assert_eq!(first, root(&mut site.superuser, id, "shop.item"));
    own.run("UPDATE item SET name = 'other' WHERE id = 17");
    assert_ne!(own.root().2, first.2);
    site.run("UPDATE shop.item SET name = 'other' WHERE id = 17");
    assert_eq!(own.root(), root(&mut site.superuser, id, "shop.item"));
    own.call("fold_manifest").expect("a fold");
    own.run("DELETE FROM item WHERE id > 4990");
    assert_ne!(own.root(), root(&mut site.superuser, id, "shop.item"));
    site.run("DELETE FROM shop.item WHERE id > 4990");
    site.right();
    assert_eq!(own.root(), root(&mut site.superuser, id, "shop.item"));
    let wrong =
        own.client.query("SELECT * FROM plimsoll.check_manifest($1, 'item')", &[&id]).expect("a check");
    assert!(wrong.is_empty());
}

#[test]
fn a_table_of_one_database_is_closed_to_others() {
    let mut site = Site::open();
    let mut own = Own::open(&mut site);
    own.run("INSERT INTO item VALUES (1, now(), 'one', 1, 1)");
    let other: Uuid = own
        .client
        .query_one("SELECT database_id FROM plimsoll.register_database('zeta', 'till')", &[])
        .expect("another database")
        .get(0);
    for query in [
        "SELECT * FROM plimsoll.table_version($1, 'item')",
        "SELECT * FROM plimsoll.range_fingerprint($1, 'item', '(,)')",
        "SELECT * FROM plimsoll.download($1, 'item', '(,)', 10)",
        "SELECT plimsoll.rebuild_manifest($1, 'item')",
        "SELECT * FROM plimsoll.delete_all($1, 'item')",
    ] {
        let refused = own.client.query(query, &[&other]).expect_err(query);
        assert_eq!(refused.code().map(|code| code.code().to_owned()).as_deref(), Some("42501"), "{query}");
    }
    let versions = "SELECT count(*) FROM plimsoll.table_versions($1)";
    assert_eq!(own.client.query_one(versions, &[&other]).expect("no table").get::<_, i64>(0), 0);
    assert_eq!(own.client.query_one(versions, &[&own.id]).expect("one").get::<_, i64>(0), 1);
    // Forgotten, it takes its rows along; the other's end leaves them alone.
    own.client.query("SELECT plimsoll.forget_database($1)", &[&other]).expect("an end");
    assert_eq!(own.root().0, 1);
    let id = own.id;
    own.client.query("SELECT plimsoll.forget_database($1)", &[&id]).expect("an end");
    let left: i64 = own.client.query_one("SELECT count(*) FROM item", &[]).expect("a count").get(0);
    assert_eq!(left, 0);
    let kept: i64 = own
        .client
        .query_one(
            "SELECT (SELECT count(*) FROM plimsoll.kept_head) + (SELECT count(*) FROM plimsoll.kept_block)
                 + (SELECT count(*) FROM plimsoll.kept_delta)",
            &[],
        )
        .expect("a count")
        .get(0);
    assert_eq!(kept, 0, "nothing is kept of a database that is forgotten");
}

#[test]
fn numbers_and_databases_that_make_no_sense_are_refused() {
    let mut site = Site::open();
    let id = site.till.id;
    for (arguments, state) in [
        ("tenant_columns => '{}'", "22023"),
        ("database_id => '$D'", "22023"),
        ("tenant_columns => '{}', database_id => '00000000-0000-0000-0000-000000000000'", "42501"),
        ("column_numbers => '{\"id\": 99}'", "22023"),
        ("column_numbers => '{\"amount\": 0}'", "22023"),
        ("column_numbers => '[1]'", "22023"),
    ] {
        let arguments = arguments.replace("$D", &id.to_string());
        let query =
            format!("SELECT plimsoll.manage_table('shop.item', version_column => 'version', {arguments})");
        let refused = site.superuser.query(&query, &[]).expect_err(&query);
        assert_eq!(
            refused.code().map(|code| code.code().to_owned()).as_deref(),
            Some(state),
            "{query}: {refused:?}"
        );
    }
    let adopt = "SELECT plimsoll.adopt_database($1, $2, 'till', $3)";
    let key = vec![7u8; 32];
    let other = Uuid::new_v4();
    for (id, client, key, state) in [
        (id, "zeta", &key, "42710"),
        (other, "acme", &key, "42710"),
        (other, "zeta", &key[..31].to_vec(), "22023"),
    ] {
        let refused = site.superuser.query(adopt, &[&id, &client, key]).expect_err("no second one");
        assert_eq!(refused.code().map(|code| code.code().to_owned()).as_deref(), Some(state));
    }
}

#[test]
fn an_agent_has_a_manifest_rebuilt_that_is_not_trusted() {
    let site = plimsoll_tests::Site::new(shared());
    let agent = site.agent(
        "acme",
        "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, version INTEGER NOT NULL);
         CREATE INDEX item_version ON item (version);
         INSERT INTO item VALUES (1, 'one', 1), (2, 'two', 2)",
        &["item"],
        "",
    );
    site.create_tables(&agent);
    agent.sync().expect_code(0);
    let id = agent.registered.id;
    let mut superuser = site.superuser();
    let mut kept = || root(&mut superuser, id, "public.item").2.is_some();
    assert!(kept(), "a replica that begins empty is kept from the first run on");
    let change = "ALTER TABLE public.item ALTER name TYPE text USING upper(name)";
    site.owner().batch_execute(change).expect("rows that changed without a statement");
    assert!(!kept());
    agent.sync();
    assert!(kept());
    let wrong = site
        .superuser()
        .query("SELECT * FROM plimsoll.check_manifest($1, 'public.item')", &[&id])
        .expect("a check");
    assert!(wrong.is_empty());
}
