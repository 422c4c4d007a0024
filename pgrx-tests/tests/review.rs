//! What a hostile owner, a curious neighbour and an unlucky moment must not bring about.

mod shop;

use plimsoll_core::manifest::read_manifest;
use plimsoll_tests::Registered;
use postgres::Client;
use serde_json::{Value, json};
use shop::{Shop, refused};

const UPLOAD: &str = "SELECT inserted, updated, rejected FROM plimsoll.upload($1, $2, $3::jsonb)";

fn owner(shop: &mut Shop) -> String {
    shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'")
}

/// Makes and manages a table; `rest` are columns and constraints besides tenant, id and version `v`.
fn manage(shop: &mut Shop, table: &str, rest: &str, server_columns: &str) {
    let owner = owner(shop);
    shop.superuser
        .batch_execute(&format!(
            "SET ROLE {owner};
             CREATE TABLE shop.{table} (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL,
                 v bigint NOT NULL, {rest}, PRIMARY KEY (client_id, database_id, id));
             RESET ROLE;
             SELECT plimsoll.manage_table('shop.{table}', version_column => 'v', server_columns => '{server_columns}')"
        ))
        .expect("a managed table");
}

fn upload(client: &mut Client, database: &Registered, table: &str, rows: &Value) -> (i64, i64, Value) {
    let row = client.query_one(UPLOAD, &[&database.id, &table, rows]).expect("an upload");
    (row.get(0), row.get(1), row.get(2))
}

#[test]
fn settings_that_an_owners_trigger_changes_are_not_the_callers() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 3);
    let owner = owner(&mut shop);
    shop.superuser
        .batch_execute(&format!(
            "SET ROLE {owner};
             CREATE FUNCTION shop.lure() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM pg_catalog.set_config('search_path', 'shop, pg_catalog', false);
                 PERFORM pg_catalog.set_config('work_mem', '64kB', false);
                 RETURN NULL; END $$;
             CREATE TRIGGER lure AFTER INSERT OR DELETE ON shop.customer FOR EACH ROW EXECUTE FUNCTION shop.lure();
             RESET ROLE"
        ))
        .expect("a trap");
    let rows = json!([{"id": 4, "version": 4}]);
    assert_eq!(upload(&mut shop.superuser, &till, "shop.customer", &rows), (1, 0, json!([])));
    shop.superuser.execute("SELECT plimsoll.forget_database($1)", &[&till.id]).expect("it is forgotten");
    assert_eq!(shop.value::<String>("SHOW search_path"), "\"$user\", public");
    assert_eq!(shop.value::<String>("SHOW work_mem"), "4MB");
}

#[test]
fn an_agents_temporary_table_is_not_found_by_an_owners_trigger() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 0);
    let owner = owner(&mut shop);
    shop.superuser
        .batch_execute(&format!(
            "SET ROLE {owner};
             CREATE FUNCTION shop.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.name = 'rare' THEN INSERT INTO audit VALUES (NEW.id); END IF;
                 RETURN NULL; END $$;
             CREATE TRIGGER note AFTER INSERT ON shop.customer FOR EACH ROW EXECUTE FUNCTION shop.note();
             RESET ROLE"
        ))
        .expect("a trigger that forgets the schema");
    let mut agent = shop.agent(&till);
    agent
        .batch_execute(
            "CREATE TEMP TABLE audit (id int); GRANT ALL ON audit TO PUBLIC;
             CREATE FUNCTION pg_temp.mine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 DELETE FROM shop.customer; RETURN NEW; END $$;
             CREATE TRIGGER mine BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION pg_temp.mine()",
        )
        .expect("a trap");
    assert_eq!(upload(&mut agent, &till, "shop.customer", &json!([{"id": 1, "version": 1}])).0, 1);
    let rare = json!([{"id": 2, "name": "rare", "version": 2}]);
    refused(agent.query_one(UPLOAD, &[&till.id, &"shop.customer", &rare]), "42P01");
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.customer"), 1);
    let mine: i64 = agent.query_one("SELECT count(*) FROM audit", &[]).expect("it is there still").get(0);
    assert_eq!(mine, 0);
}

#[test]
fn a_conflict_with_a_row_of_another_database_does_not_show_it() {
    let mut shop = Shop::open();
    manage(&mut shop, "span", "low int, high int, EXCLUDE USING gist (int4range(low, high) WITH &&)", "{}");
    let (ours, theirs) = (shop.register("acme", 0), shop.register("bobs", 0));
    let (mut we, mut they) = (shop.agent(&ours), shop.agent(&theirs));
    let secret = json!([{"id": 1, "v": 1, "low": 4711, "high": 4799}]);
    assert_eq!(upload(&mut they, &theirs, "shop.span", &secret).0, 1);
    let probe = json!([{"id": 1, "v": 1, "low": 1, "high": 100_000}]);
    let (inserted, _, rejected) = upload(&mut we, &ours, "shop.span", &probe);
    assert_eq!((inserted, &rejected[0]["sqlstate"]), (0, &json!("23P01")));
    assert!(!rejected.to_string().contains("4711"), "{rejected}");
}

#[test]
fn what_the_server_filled_in_survives_a_swap_of_unique_values() {
    let mut shop = Shop::open();
    let rest = "mark text, note text DEFAULT 'none', UNIQUE (client_id, database_id, mark)";
    manage(&mut shop, "stamp", rest, "{note}");
    let till = shop.register("acme", 0);
    let mut agent = shop.agent(&till);
    let rows = json!([{"id": 1, "v": 1, "mark": "a"}, {"id": 2, "v": 2, "mark": "b"}]);
    assert_eq!(upload(&mut agent, &till, "shop.stamp", &rows).0, 2);
    shop.superuser.batch_execute("UPDATE shop.stamp SET note = 'seen ' || id").expect("notes");
    let swapped = json!([{"id": 1, "v": 3, "mark": "b"}, {"id": 2, "v": 4, "mark": "a"}, {"id": 3, "v": 5, "mark": "c"}]);
    assert_eq!(upload(&mut agent, &till, "shop.stamp", &swapped), (1, 2, json!([])));
    let stored: String = shop.value("SELECT string_agg(id || mark || note, ',' ORDER BY id) FROM shop.stamp");
    assert_eq!(stored, "1bseen 1,2aseen 2,3cnone");
}

#[test]
fn numbers_in_json_keep_every_digit_and_keys_too() {
    let mut shop = Shop::open();
    manage(&mut shop, "sum", "amount numeric, many numeric[]", "{}");
    let till = shop.register("acme", 0);
    let mut agent = shop.agent(&till);
    let sql = "SELECT inserted FROM plimsoll.upload($1, 'shop.sum', $2::text::jsonb)";
    let rows = r#"[{"id": 1, "v": 1, "amount": 12345678901234567890.123456789,
                    "many": [0.12345678901234567890123, null]}, {"id": 2, "v": 2, "amount": 1e400}]"#;
    let row = agent.query_one(sql, &[&till.id, &rows]).expect("an upload");
    assert_eq!(row.get::<_, i64>(0), 2);
    let stored: String = shop.value("SELECT amount || ' ' || many::text FROM shop.sum WHERE id = 1");
    assert_eq!(stored, "12345678901234567890.123456789 {0.12345678901234567890123,NULL}");
    assert!(shop.value::<bool>("SELECT amount = 1e400 FROM shop.sum WHERE id = 2"));
    let outcome = agent.query_one(sql, &[&till.id, &r#"{"id": 1}"#]);
    refused(outcome, "22023");
}

#[test]
fn a_cursor_whose_row_was_deleted_loses_no_row_of_its_position() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 0);
    shop.superuser
        .execute(
            "INSERT INTO shop.customer (client_id, database_id, id, version)
             SELECT 'acme', $1, i, 7 FROM generate_series(1, 5) i",
            &[&till.id],
        )
        .expect("rows of one version");
    let mut agent = shop.agent(&till);
    let mut read = |after: Option<&[u8]>, limit: i32| -> Vec<Vec<u8>> {
        let sql = "SELECT cursor FROM plimsoll.download($1, 'shop.customer', '[7,8)', $3, $2)";
        let rows = agent.query(sql, &[&till.id, &after, &limit]).expect("rows");
        rows.iter().map(|row| row.get(0)).collect()
    };
    let first = read(None, 2);
    assert_eq!(read(Some(&first[1]), 10).len(), 3);
    shop.superuser.batch_execute("DELETE FROM shop.customer WHERE id = 2").expect("the cursor's row is gone");
    assert_eq!(read(Some(&first[1]), 10).len(), 4, "the rows of the position are read again");
}

#[test]
fn an_answer_ends_where_its_limit_says_and_the_next_begins_there() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 2500);
    let mut agent = shop.agent(&till);
    let (mut from, mut positions) = (0, Vec::new());
    loop {
        let sql = "SELECT plimsoll.packed_manifest($1, 'shop.customer', int8range($2, NULL), 700)";
        let bytes: Vec<u8> = agent.query_one(sql, &[&till.id, &from]).expect("a manifest").get(0);
        let manifest = read_manifest(&bytes).expect("a manifest in its format");
        assert!(manifest.items.len() <= 700);
        positions.extend(manifest.items.iter().map(|item| item.position));
        match manifest.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert!(positions == (1..=2500).collect::<Vec<i64>>(), "a row is left out or told twice");
    let sql = "SELECT count(*) FROM plimsoll.download($1, 'shop.customer', '(,)', 1200)";
    assert_eq!(agent.query_one(sql, &[&till.id]).expect("rows").get::<_, i64>(0), 1200);
}

#[test]
fn a_database_is_forgotten_only_where_all_its_rows_can_be_found() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 3);
    let forget = format!("SELECT plimsoll.forget_database('{}')", till.id);
    shop.superuser.batch_execute("ALTER TABLE shop.invoice RENAME TO bill").expect("a new name");
    let message = refused(shop.superuser.batch_execute(&forget), "55000");
    assert!(message.contains("shop.bill"), "{message}");
    shop.superuser
        .batch_execute("DROP TABLE shop.bill; SELECT plimsoll.unmanage_table('shop.invoice')")
        .expect("a table that is gone is taken off the list");
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM plimsoll.tables WHERE NOT is_there"), 0);
    shop.superuser.batch_execute(&forget).expect("it is forgotten");
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.customer"), 0);
}

#[test]
fn a_missing_argument_is_named() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 0);
    let mut agent = shop.agent(&till);
    let id = format!("'{}'", till.id);
    for (call, missing) in [
        ("upload(NULL, 'shop.customer', '[]'::jsonb)".to_owned(), "database_id"),
        (format!("upload({id}, NULL, '[]'::jsonb)"), "relation"),
        (format!("upload({id}, 'shop.customer', NULL::bytea)"), "rows"),
        (format!("upload({id}, 'shop.customer', NULL::jsonb)"), "rows"),
        (format!("delete_rows({id}, 'shop.customer', NULL::bytea)"), "rows"),
        (format!("delete_rows({id}, 'shop.customer', NULL::jsonb)"), "rows"),
        (format!("delete_range({id}, 'shop.customer', NULL)"), "range"),
        (format!("delete_all({id}, NULL)"), "relation"),
        (format!("download({id}, 'shop.customer', '(,)', NULL)"), "row_limit"),
        ("login(NULL)".to_owned(), "database_id"),
    ] {
        let message = refused(agent.batch_execute(&format!("SELECT plimsoll.{call}")), "22004");
        assert!(message.contains(&format!("argument {missing} must not be NULL")), "{call}: {message}");
    }
    for missing in ["version_scope", "server_columns", "tenant_columns", "superuser_allowed", "keep_manifest"]
    {
        let call = format!(
            "SELECT plimsoll.manage_table('shop.customer', version_column => 'version', {missing} => NULL)"
        );
        let message = refused(shop.superuser.batch_execute(&call), "22004");
        assert!(message.contains(&format!("argument {missing} must not be NULL")), "{call}: {message}");
    }
}

#[test]
fn a_key_is_looked_up_by_its_own_index_before_the_table_has_statistics() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 0);
    let mut index_of = |condition: &str| -> String {
        let query = format!(
            "EXPLAIN (COSTS OFF) SELECT name FROM shop.customer
             WHERE client_id = 'acme' AND database_id = '{}' AND {condition}",
            till.id
        );
        shop.superuser
            .batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
            .expect("settings");
        let plan = shop.superuser.query(&query, &[]).expect("a plan");
        plan.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
    };
    let (by_key, by_position) = (index_of("id = 7"), index_of("version >= 7"));
    assert!(by_key.contains("using customer_pkey"), "{by_key}");
    assert!(by_position.contains("_position"), "{by_position}");
}

#[test]
fn whoever_reads_takes_no_transaction_number_and_may_do_so_beside_parallel_workers() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 500);
    shop.superuser
        .execute("SELECT plimsoll.rebuild_manifest($1, 'shop.customer')", &[&till.id])
        .expect("a manifest");
    shop.superuser
        .batch_execute(
            "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0",
        )
        .expect("settings");
    for call in [
        "table_versions('{}')",
        "table_version('{}', 'shop.customer')",
        "range_fingerprint('{}', 'shop.customer', '[7,400)')",
        "range_manifest('{}', 'shop.customer', '(,)', 10)",
        "manifest('{}', 'shop.customer', '[7,9)')",
        "check_manifest('{}', 'shop.customer')",
    ] {
        let call = call.replace("{}", &till.id.to_string());
        let mut transaction = shop.superuser.transaction().expect("a transaction");
        let beside = format!(
            "SELECT (SELECT count(*) FROM shop.invoice WHERE version > -1), count(*) FROM plimsoll.{call}"
        );
        let plan = transaction.query(&format!("EXPLAIN {beside}"), &[]).expect("a plan");
        assert!(plan.iter().any(|line| line.get::<_, &str>(0).contains("Gather")), "workers take part");
        transaction.query(&beside, &[]).unwrap_or_else(|error| panic!("{call}: {error:?}"));
        let number = "SELECT pg_current_xact_id_if_assigned() IS NULL";
        assert!(transaction.query_one(number, &[]).expect("an answer").get::<_, bool>(0), "{call}");
    }
}
