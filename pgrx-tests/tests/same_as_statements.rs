//! What is done without statements, or by ones that are kept, is what fresh statements would have done.

mod shop;

use plimsoll_tests::Registered;
use postgres::Client;
use serde_json::{Value, json};
use shop::{Shop, refused};

/// With a kept manifest, whose triggers prove what was stored, and without.
const BOTH: [bool; 2] = [true, false];

/// A managed table `shop.item` of the shop's owner, and the agent of a database that uploads to it.
fn shop_with(columns: &str, options: &str, keep: bool) -> (Shop, Registered, Client) {
    let mut shop = Shop::open();
    let script = format!(
        "DO $$ BEGIN EXECUTE format('SET LOCAL ROLE %s',
             (SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'shop')); END $$;
         CREATE DOMAIN shop.must AS text NOT NULL;
         CREATE TABLE shop.item (client_id text NOT NULL, database_id uuid NOT NULL, v bigint NOT NULL, {columns},
             PRIMARY KEY (client_id, database_id, id));
         RESET ROLE;
         SELECT plimsoll.manage_table('shop.item', version_column => 'v', keep_manifest => {keep} {options})"
    );
    shop.superuser.batch_execute(&script).expect("a managed table");
    let till = shop.register("acme", 0);
    let agent = shop.agent(&till);
    (shop, till, agent)
}

const UPLOAD: &str = "SELECT inserted, updated, rejected FROM plimsoll.upload($1, 'shop.item', $2::jsonb)";

/// Uploads one row; answers whether it was inserted, updated or rejected.
fn upload(client: &mut Client, database: &Registered, row: Value) -> (i64, i64, usize) {
    let row = client.query_one(UPLOAD, &[&database.id, &json!([row])]).expect("an upload");
    let rejected: Value = row.get(2);
    (row.get(0), row.get(1), rejected.as_array().expect("an array").len())
}

#[test]
fn a_published_table_whose_changes_nobody_could_follow_takes_none() {
    for keep in BOTH {
        let (mut shop, till, mut agent) = shop_with("id int NOT NULL", "", keep);
        shop.superuser
            .batch_execute(
                "ALTER TABLE shop.item REPLICA IDENTITY NOTHING; CREATE PUBLICATION told FOR TABLE shop.item",
            )
            .expect("a publication");
        assert_eq!(upload(&mut agent, &till, json!({"id": 1, "v": 1})), (1, 0, 0));
        let rows = json!([{"id": 1, "v": 2}]);
        refused(agent.query(UPLOAD, &[&till.id, &rows]), "55000");
        assert_eq!(shop.value::<i64>("SELECT v FROM shop.item"), 1);
    }
}

#[test]
fn a_row_of_a_child_table_is_found_by_its_key() {
    for keep in BOTH {
        let (mut shop, till, mut agent) = shop_with("id int NOT NULL", "", keep);
        shop.superuser
            .batch_execute(&format!(
                "CREATE TABLE shop.child () INHERITS (shop.item);
                 DO $$ BEGIN EXECUTE format('ALTER TABLE shop.child OWNER TO %s',
                     (SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'shop')); END $$;
                 INSERT INTO shop.child (client_id, database_id, v, id) VALUES ('acme', '{}', 1, 1)",
                till.id
            ))
            .expect("a row");
        assert_eq!(upload(&mut agent, &till, json!({"id": 1, "v": 2})), (0, 1, 0));
        let stored: String =
            shop.value("SELECT string_agg(concat(tableoid::regclass, ' ', v), ', ') FROM shop.item");
        assert_eq!(stored, "shop.child 2");
    }
}

#[test]
fn a_server_column_whose_domain_takes_no_null_rejects_the_row_where_nothing_fills_it() {
    for keep in BOTH {
        let (mut shop, till, mut agent) =
            shop_with("id int NOT NULL, filled shop.must", ", server_columns => '{filled}'", keep);
        assert_eq!(upload(&mut agent, &till, json!({"id": 1, "v": 1})), (0, 0, 1));
        assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.item"), 0);
    }
}

#[test]
fn a_key_that_is_only_equal_is_not_taken_for_the_one_that_was_sent() {
    for keep in BOTH {
        let (mut shop, till, mut agent) = shop_with("id interval NOT NULL, name text", "", keep);
        assert_eq!(upload(&mut agent, &till, json!({"id": "1 mon", "v": 1, "name": "a"})), (1, 0, 0));
        assert_eq!(upload(&mut agent, &till, json!({"id": "30 days", "v": 2, "name": "b"})), (0, 0, 1));
        assert_eq!(shop.value::<String>("SELECT concat(id, ' ', name) FROM shop.item"), "1 mon a");
    }
}

#[test]
fn triggers_that_are_off_for_a_while_are_noticed_within_one_transaction_too() {
    let (mut shop, till, mut agent) = shop_with("id int NOT NULL, name text", "", true);
    assert_eq!(upload(&mut agent, &till, json!({"id": 1, "v": 1, "name": "a"})), (1, 0, 0));
    let off = "ALTER TABLE shop.item DISABLE TRIGGER plimsoll_kept_update;";
    let on = "ALTER TABLE shop.item ENABLE ALWAYS TRIGGER plimsoll_kept_update;";
    let rebuild = format!("SELECT plimsoll.rebuild_manifest('{}', 'shop.item');", till.id);
    shop.superuser
        .batch_execute(&format!(
            "BEGIN; {off} {on} {rebuild} {off} UPDATE shop.item SET name = 'b'; {on} COMMIT"
        ))
        .expect("a change that no trigger saw");
    let check = format!("SELECT * FROM plimsoll.check_manifest('{}', 'shop.item')", till.id);
    let told = refused(shop.superuser.query(&check, &[]), "55000");
    assert!(told.contains("not trusted"), "{told}");
}

#[test]
fn a_session_goes_on_when_a_tenant_column_gets_another_type() {
    let (mut shop, till, mut agent) = shop_with("id int NOT NULL", "", true);
    let version = "SELECT row_count, max_version FROM plimsoll.table_version($1, 'shop.item')";
    assert_eq!(upload(&mut agent, &till, json!({"id": 1, "v": 7})), (1, 0, 0));
    for kind in ["text", "uuid USING database_id::uuid"] {
        shop.superuser
            .batch_execute(&format!("ALTER TABLE shop.item ALTER COLUMN database_id TYPE {kind}"))
            .expect("another type");
        agent.query("SELECT plimsoll.rebuild_manifest($1, 'shop.item')", &[&till.id]).expect("a manifest");
        let row = agent.query_one(version, &[&till.id]).expect("a table version");
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 7), "{kind}");
    }
}

#[test]
fn a_table_gets_other_tenant_columns_once_all_its_writers_are_done() {
    let (mut shop, till, mut agent) = shop_with("id int NOT NULL", "", true);
    shop.superuser
        .batch_execute(
            "CREATE UNIQUE INDEX ON shop.item (database_id, id); CREATE INDEX ON shop.item (database_id, v);
             SET lock_timeout = '100ms'",
        )
        .expect("indexes");
    assert_eq!(upload(&mut agent, &till, json!({"id": 1, "v": 1})), (1, 0, 0));
    // Nobody's row yet, and the database's as soon as its client is not asked for.
    let mut writer = shop.server.superuser(&shop.database);
    writer
        .batch_execute(&format!(
            "BEGIN; INSERT INTO shop.item (client_id, database_id, v, id) VALUES ('other', '{}', 5, 5)",
            till.id
        ))
        .expect("a row");
    let manage = "SELECT plimsoll.manage_table('shop.item', version_column => 'v', key_columns => '{id}',
        tenant_columns => '{database_id}', server_columns => '{client_id}')";
    refused(shop.superuser.query(manage, &[]), "55P03");
    writer.batch_execute("COMMIT").expect("a commit");
    shop.superuser.query(manage, &[]).expect("a managed table");
    let rebuild = "SELECT plimsoll.rebuild_manifest($1, 'shop.item')";
    let rows: i64 = shop.superuser.query_one(rebuild, &[&till.id]).expect("a manifest").get(0);
    assert_eq!(rows, 2);
}
