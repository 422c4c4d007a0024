//! Uploads by SQL: what is stored, what is refused and why, what waits, and that nothing is stored otherwise
//! than it was sent.

mod shop;

use plimsoll_tests::Registered;
use postgres::Client;
use serde_json::{Value, json};
use shop::Shop;

/// What an upload answered.
#[derive(Debug)]
struct Uploaded {
    inserted: i64,
    updated: i64,
    unchanged: i64,
    held: i64,
    rejected: Value,
}

impl Uploaded {
    fn counts(&self) -> (i64, i64, i64, usize) {
        (self.inserted, self.updated, self.unchanged, self.rejected.as_array().expect("an array").len())
    }
}

fn upload(client: &mut Client, database: &Registered, table: &str, rows: &Value) -> Uploaded {
    let sql = "SELECT inserted, updated, unchanged, held, rejected FROM plimsoll.upload($1, $2, $3::jsonb)";
    let row = client.query_one(sql, &[&database.id, &table, rows]).expect("an upload");
    Uploaded {
        inserted: row.get(0),
        updated: row.get(1),
        unchanged: row.get(2),
        held: row.get(3),
        rejected: row.get(4),
    }
}

/// A shop with a further table of the given columns and constraints, managed with version column `v`.
fn shop_with(table: &str, columns: &str) -> (Shop, Registered, Client) {
    let mut shop = Shop::open();
    let sql = format!(
        "SET LOCAL ROLE shop_owner_of; CREATE TABLE shop.{table} (client_id text NOT NULL,
             database_id uuid NOT NULL, id int NOT NULL, {columns}, v bigint NOT NULL,
             PRIMARY KEY (client_id, database_id, id));
         RESET ROLE; SELECT plimsoll.manage_table('shop.{table}', version_column => 'v')"
    );
    let owner: String = shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    shop.superuser.batch_execute(&sql.replace("shop_owner_of", &owner)).expect("a managed table");
    let till = shop.register("acme", 0);
    let agent = shop.agent(&till);
    (shop, till, agent)
}

#[test]
fn rows_are_inserted_updated_and_left_alone() {
    let (mut shop, till, mut agent) = shop_with("item", "name text, price numeric(8,2)");
    let rows = json!([{"id": 1, "name": "rope", "price": 1.5, "v": 1}, {"id": 2, "name": "tar", "v": 2}]);
    assert_eq!(upload(&mut agent, &till, "shop.item", &rows).counts(), (2, 0, 0, 0));
    let before: String = shop.value("SELECT string_agg(xmin::text, ',' ORDER BY id) FROM shop.item");
    // Equal numbers are equal whatever the digits: nothing is written.
    let same =
        json!([{"id": 1, "name": "rope", "price": "1.500", "v": 1}, {"id": 2, "name": "pitch", "v": 3}]);
    assert_eq!(upload(&mut agent, &till, "shop.item", &same).counts(), (0, 1, 1, 0));
    let after: String = shop.value("SELECT string_agg(xmin::text, ',' ORDER BY id) FROM shop.item");
    assert_eq!(before.split(',').next(), after.split(',').next(), "an equal row is not written");
    let stored: String = shop
        .value("SELECT string_agg(id || name || coalesce(price::text, '-'), ' ' ORDER BY id) FROM shop.item");
    assert_eq!(stored, "1rope1.50 2pitch-");
}

#[test]
fn of_several_rows_with_one_key_the_last_is_stored_and_the_others_are_named() {
    let (mut shop, till, mut agent) = shop_with("item", "name text");
    let rows = json!([{"id": 1, "name": "a", "v": 1}, {"id": 2, "name": "c", "v": 1}, {"id": 1, "name": "b", "v": 2}]);
    let named = |answer: &Uploaded| {
        let row = &answer.rejected[0];
        assert_eq!((&row["ordinal"], &row["waits"]), (&json!(0), &json!(false)), "{row}");
        assert_eq!((&row["sqlstate"], &row["key"]), (&json!("21000"), &json!({"id": 1})), "{row}");
        let message = row["message"].as_str().expect("a message");
        assert!(message.contains("row 2") && message.contains(r#"{"id":1}"#), "{message}");
    };
    let answer = upload(&mut agent, &till, "shop.item", &rows);
    assert_eq!(answer.counts(), (2, 0, 0, 1));
    named(&answer);
    assert_eq!(shop.value::<String>("SELECT string_agg(name, '' ORDER BY id) FROM shop.item"), "bc");
    // Over rows that are there too, the last one being stored already.
    let answer = upload(&mut agent, &till, "shop.item", &rows);
    assert_eq!(answer.counts(), (0, 0, 2, 1));
    named(&answer);
    // One row sent three times is one row.
    let row = json!({"id": 4, "name": "e", "v": 1});
    let answer = upload(&mut agent, &till, "shop.item", &json!([row, row, row]));
    assert_eq!(answer.counts(), (1, 0, 2, 0));
    // A row that no column takes is nobody's other row.
    let wrong = json!([{"id": 3, "name": "d", "v": 1}, {"id": 3, "name": "\u{1}", "v": null}]);
    let answer = upload(&mut agent, &till, "shop.item", &wrong);
    assert_eq!((answer.counts(), &answer.rejected[0]["ordinal"]), ((1, 0, 0, 1), &json!(1)));
    assert_eq!(shop.value::<String>("SELECT string_agg(name, '' ORDER BY id) FROM shop.item"), "bcde");
}

#[test]
fn poison_rows_are_told_one_by_one_and_the_rest_is_stored() {
    let (mut shop, till, mut agent) =
        shop_with("item", "name varchar(5) NOT NULL, amount int CHECK (amount > 0), at timestamp(0)");
    let mut rows: Vec<Value> =
        (0..500).map(|i| json!({"id": i, "name": "ok", "amount": 1, "v": i})).collect();
    rows[7] = json!({"id": 7, "name": "ok", "amount": 0, "v": 7});
    rows[100] = json!({"id": 100, "name": "too long", "v": 100});
    rows[200] = json!({"id": 200, "name": null, "v": 200});
    rows[300] = json!({"id": 300, "name": "ok", "at": "2020-01-01 00:00:00.5", "v": 300});
    let answer = upload(&mut agent, &till, "shop.item", &Value::Array(rows));
    assert_eq!(answer.counts(), (496, 0, 0, 4));
    let told: Vec<(i64, &str, &str)> = answer
        .rejected
        .as_array()
        .expect("an array")
        .iter()
        .map(|r| {
            (
                r["ordinal"].as_i64().expect("a place"),
                r["sqlstate"].as_str().expect("a state"),
                r["message"].as_str().expect("a message"),
            )
        })
        .collect();
    let states: Vec<(i64, &str)> = told.iter().map(|(ordinal, state, _)| (*ordinal, *state)).collect();
    assert_eq!(states, [(7, "23514"), (100, "22001"), (200, "23502"), (300, "22000")]);
    assert!(told[0].2.contains("item_amount_check"), "{}", told[0].2);
    assert!(told[1].2.contains("\"name\"") && told[1].2.contains("varchar(5)"), "{}", told[1].2);
    assert!(told[3].2.contains("timestamp(0)"), "{}", told[3].2);
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.item"), 496);
}

#[test]
fn swapped_unique_values_arrive_and_a_true_collision_names_its_holder() {
    let (mut shop, till, mut agent) = shop_with("item", "code text, UNIQUE (client_id, database_id, code)");
    let rows = json!([{"id": 1, "code": "a", "v": 1}, {"id": 2, "code": "b", "v": 2}, {"id": 3, "code": "c", "v": 3}]);
    assert_eq!(upload(&mut agent, &till, "shop.item", &rows).counts(), (3, 0, 0, 0));
    // A circle of three, and a fourth row that wants what one of them gets.
    let swapped = json!([{"id": 1, "code": "b", "v": 4}, {"id": 2, "code": "c", "v": 5}, {"id": 3, "code": "a", "v": 6},
        {"id": 4, "code": "a", "v": 7}]);
    let answer = upload(&mut agent, &till, "shop.item", &swapped);
    assert_eq!(answer.counts(), (0, 3, 0, 1));
    assert_eq!((&answer.rejected[0]["waits"], &answer.rejected[0]["ordinal"]), (&json!(true), &json!(3)));
    assert!(answer.rejected[0]["holder"].is_string(), "{:?}", answer.rejected);
    assert_eq!(shop.value::<String>("SELECT string_agg(code, '' ORDER BY id) FROM shop.item"), "bca");
}

#[test]
fn a_child_waits_for_its_parent_and_one_in_the_same_upload_does_not() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let rows = json!([{"id": 5, "customer_id": 9, "version": 5}, {"id": 6, "customer_id": 1, "version": 6}]);
    let answer = upload(&mut agent, &till, "shop.invoice", &rows);
    assert_eq!(answer.counts(), (1, 0, 0, 1));
    assert_eq!(
        (&answer.rejected[0]["waits"], &answer.rejected[0]["sqlstate"]),
        (&json!(true), &json!("23503"))
    );
}

#[test]
fn deferred_constraints_are_checked_within_the_upload() {
    let (_shop, till, mut agent) = shop_with(
        "item",
        "parent int, FOREIGN KEY (client_id, database_id, parent) REFERENCES shop.item DEFERRABLE INITIALLY DEFERRED",
    );
    let rows = json!([{"id": 1, "parent": 2, "v": 1}, {"id": 2, "v": 2}, {"id": 3, "parent": 99, "v": 3}]);
    let answer = upload(&mut agent, &till, "shop.item", &rows);
    assert_eq!(answer.counts(), (2, 0, 0, 1));
    assert_eq!(answer.rejected[0]["key"], json!({"id": 3}));
}

#[test]
fn a_trigger_that_changes_or_skips_a_row_has_it_rejected() {
    let (mut shop, till, mut agent) = shop_with("item", "name text");
    shop.superuser
        .batch_execute(
            "CREATE FUNCTION shop.meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.id = 2 THEN NEW.name := upper(NEW.name); END IF;
                 IF NEW.id = 3 THEN RETURN NULL; END IF;
                 RETURN NEW; END $$;
             CREATE TRIGGER meddle BEFORE INSERT OR UPDATE ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.meddle()",
        )
        .expect("a trigger");
    let rows = json!([{"id": 1, "name": "a", "v": 1}, {"id": 2, "name": "b", "v": 2}, {"id": 3, "name": "c", "v": 3}]);
    let answer = upload(&mut agent, &till, "shop.item", &rows);
    assert_eq!(answer.counts(), (1, 0, 0, 2));
    let message = answer.rejected[0]["message"].as_str().expect("a message");
    assert!(message.contains("\"name\"") && message.contains("trigger"), "{message}");
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.item"), 1);
}

#[test]
fn forced_row_level_security_and_generated_and_identity_columns_keep_working() {
    let (mut shop, till, mut agent) = shop_with(
        "item",
        "n int, doubled int GENERATED ALWAYS AS (n * 2) STORED, serial int GENERATED ALWAYS AS IDENTITY",
    );
    shop.superuser
        .batch_execute("ALTER TABLE shop.item ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        .expect("row-level security");
    let rows = json!([{"id": 1, "n": 4, "serial": 77, "v": 1}]);
    assert_eq!(upload(&mut agent, &till, "shop.item", &rows).counts(), (1, 0, 0, 0));
    let rows = json!([{"id": 1, "n": 5, "serial": 77, "v": 2}]);
    let answer = upload(&mut agent, &till, "shop.item", &rows);
    assert_eq!(answer.rejected, json!([]), "an identity column that stays the same is no obstacle");
    assert_eq!(shop.value::<i32>("SELECT doubled FROM shop.item"), 10);
}

#[test]
fn a_partitioned_table_takes_uploads_and_deletes() {
    let mut shop = Shop::open();
    let owner: String = shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    shop.superuser
        .batch_execute(&format!(
            "SET ROLE {owner};
             CREATE TABLE shop.log (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL, note text,
                 v bigint NOT NULL, PRIMARY KEY (client_id, database_id, id)) PARTITION BY HASH (database_id);
             CREATE TABLE shop.log_0 PARTITION OF shop.log FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE shop.log_1 PARTITION OF shop.log FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             RESET ROLE; SELECT plimsoll.manage_table('shop.log', version_column => 'v')"
        ))
        .expect("a partitioned table");
    let (one, other) = (shop.register("acme", 0), shop.register("zeta", 0));
    let (mut agent, mut stranger) = (shop.agent(&one), shop.agent(&other));
    let rows: Vec<Value> = (0..20).map(|i| json!({"id": i, "note": "x", "v": i})).collect();
    assert_eq!(upload(&mut agent, &one, "shop.log", &json!(rows)).counts(), (20, 0, 0, 0));
    assert_eq!(upload(&mut stranger, &other, "shop.log", &json!(rows)).counts(), (20, 0, 0, 0));
    let changed: Vec<Value> = (0..20).map(|i| json!({"id": i, "note": "y", "v": i + 20})).collect();
    assert_eq!(upload(&mut agent, &one, "shop.log", &json!(changed)).counts(), (0, 20, 0, 0));
    let deleted: i64 = agent
        .query_one("SELECT deleted FROM plimsoll.delete_range($1, 'shop.log', '[20,22)')", &[&one.id])
        .expect("a delete")
        .get(0);
    assert_eq!(deleted, 2);
    let left: String = shop.value(
        "SELECT string_agg(client_id || note || n, ' ' ORDER BY client_id)
         FROM (SELECT client_id, note, count(*) AS n FROM shop.log GROUP BY 1, 2) g",
    );
    assert_eq!(left, "acmey18 zetax20");
}

#[test]
fn tenant_columns_come_from_the_server_alone() {
    let (_shop, till, mut agent) = shop_with("item", "name text");
    let rows = json!([{"id": 1, "client_id": "zeta", "v": 1}]);
    let refused = agent
        .query_one("SELECT * FROM plimsoll.upload($1, 'shop.item', $2::jsonb)", &[&till.id, &rows])
        .expect_err("refused");
    let refused = refused.as_db_error().expect("an error of the server");
    assert!(
        refused.message().contains("\"client_id\"") && refused.message().contains("shop.item"),
        "{refused}"
    );
}

#[test]
fn deletes_name_key_version_and_digest_and_touch_nothing_else() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 100);
    let mut agent = shop.agent(&till);
    agent.batch_execute("SET timezone = 'UTC'").expect("a setting");
    let digest: String = agent
        .query_one(
            "SELECT encode(digest, 'hex') FROM plimsoll.manifest($1, 'shop.invoice', '[5,6)')",
            &[&till.id],
        )
        .expect("a manifest")
        .get(0);
    let rows = json!([{"key": {"id": 1}, "version": 99}, {"key": {"id": 2}, "digest": digest},
        {"key": {"id": 5}, "version": 5, "digest": digest}, {"key": {"id": 6}}]);
    let deleted: i64 = agent
        .query_one(
            "SELECT deleted FROM plimsoll.delete_rows($1, 'shop.invoice', $2::jsonb)",
            &[&till.id, &rows],
        )
        .expect("a delete")
        .get(0);
    assert_eq!(deleted, 2);
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.invoice WHERE id IN (1, 2)"), 2);
    // A parent that is referred to is told, and the others go on.
    let rows = json!([{"key": {"id": 1}}, {"key": {"id": 5}}]);
    let answer = agent
        .query_one(
            "SELECT deleted, blocked FROM plimsoll.delete_rows($1, 'shop.customer', $2::jsonb)",
            &[&till.id, &rows],
        )
        .expect("a delete");
    assert_eq!((answer.get::<_, i64>(0), answer.get::<_, Value>(1)), (1, json!([0])));
}

#[test]
fn the_guard_holds_and_an_admin_releases_once() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1_000);
    let mut agent = shop.agent(&till);
    let delete = |client: &mut Client, range: &str| -> (i64, i64) {
        let sql = format!("SELECT deleted, held FROM plimsoll.delete_range($1, 'shop.invoice', '{range}')");
        let row = client.query_one(&sql, &[&till.id]).expect("a delete");
        (row.get(0), row.get(1))
    };
    // A fifth, and as much again free: 400 of 1,000 within a day, in slices or not.
    assert_eq!(delete(&mut agent, "[1,301)"), (300, 0));
    assert_eq!(delete(&mut agent, "[301,501)"), (0, 200));
    let hold: (i64, String) = {
        let row = shop
            .superuser
            .query_one(
                "SELECT hold_planned, status FROM plimsoll.replicas WHERE relation = 'shop.invoice'",
                &[],
            )
            .expect("a replica");
        (row.get(0), row.get(1))
    };
    assert_eq!(hold, (200, "different".to_owned()));
    // On hold nothing is deleted, little as it may be; rows still arrive.
    assert_eq!(delete(&mut agent, "[301,302)"), (0, 1));
    let rows = json!([{"id": 2_000, "customer_id": 1, "version": 2_000}]);
    assert_eq!(upload(&mut agent, &till, "shop.invoice", &rows).counts(), (1, 0, 0, 0));
    let released = agent.query_one("SELECT plimsoll.release_hold($1, 'shop.invoice')", &[&till.id]);
    assert!(released.is_err(), "an agent releases nothing unless it may");
    shop.superuser
        .query_one("SELECT plimsoll.release_hold($1, 'shop.invoice')", &[&till.id])
        .expect("a release");
    assert_eq!(delete(&mut agent, "[301,501)"), (200, 0));
    // What a person agreed to does not use up what is free without asking.
    assert_eq!(delete(&mut agent, "[501,541)"), (40, 0));
    assert_eq!(delete(&mut agent, "[541,741)").1, 200, "a release is good for its plan, once");
}

#[test]
fn rows_set_back_to_older_versions_count_as_destroyed() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 100);
    let mut agent = shop.agent(&till);
    let rows: Vec<Value> = (1..=60).map(|i| json!({"id": i, "customer_id": i, "version": 0})).collect();
    let answer = upload(&mut agent, &till, "shop.invoice", &json!(rows));
    assert_eq!((answer.updated, answer.held), (0, 60));
    let few: Vec<Value> = (1..=5).map(|i| json!({"id": i, "customer_id": i, "version": 200 + i})).collect();
    assert_eq!(upload(&mut agent, &till, "shop.invoice", &json!(few)).counts(), (0, 5, 0, 0));
}

#[test]
fn rows_that_a_cascade_takes_count_for_their_own_table() {
    let mut shop = Shop::open();
    shop.superuser
        .batch_execute(
            "ALTER TABLE shop.invoice DROP CONSTRAINT invoice_client_id_database_id_customer_id_fkey,
                 ADD FOREIGN KEY (client_id, database_id, customer_id) REFERENCES shop.customer ON DELETE CASCADE",
        )
        .expect("a cascade");
    let till = shop.register("acme", 100);
    shop.superuser
        .execute("UPDATE shop.invoice SET customer_id = 1 WHERE id <= 90 AND database_id = $1", &[&till.id])
        .expect("an update");
    let mut agent = shop.agent(&till);
    let delete = |client: &mut Client, id: i32| -> (i64, i64) {
        let rows = json!([{"key": {"id": id}}]);
        let row = client
            .query_one(
                "SELECT deleted, held FROM plimsoll.delete_rows($1, 'shop.customer', $2::jsonb)",
                &[&till.id, &rows],
            )
            .expect("a delete");
        (row.get(0), row.get(1))
    };
    assert_eq!(delete(&mut agent, 95), (1, 0), "one invoice goes with it");
    assert_eq!(delete(&mut agent, 1), (0, 1), "ninety would");
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.invoice"), 99);
    let held: bool =
        shop.value("SELECT hold_since IS NOT NULL FROM plimsoll.replicas WHERE relation = 'shop.invoice'");
    assert!(held, "the table that would lose its rows is on hold");
}

#[test]
fn a_column_added_later_gets_a_number_of_its_own_and_is_named_to_agents() {
    let (mut shop, till, mut agent) = shop_with("item", "name text, gone text");
    let columns = |agent: &mut Client| -> Vec<(i32, String)> {
        let sql = "SELECT column_number, column_name FROM plimsoll.table_schema($1, 'shop.item')";
        let rows = agent.query(sql, &[&till.id]).expect("a schema");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    let before = columns(&mut agent);
    shop.superuser
        .batch_execute("ALTER TABLE shop.item DROP COLUMN gone, ADD COLUMN taste text")
        .expect("a change");
    let after = columns(&mut agent);
    let highest = before.iter().map(|(number, _)| *number).max();
    let taste = after.iter().find(|(_, name)| name == "taste").expect("the new column");
    assert!(Some(taste.0) > highest, "{before:?} {after:?}");
    assert!(!after.iter().any(|(_, name)| name == "gone"));
    let kept = |columns: &[(i32, String)]| -> Vec<(i32, String)> {
        columns.iter().filter(|(_, name)| name != "gone" && name != "taste").cloned().collect()
    };
    assert_eq!(kept(&before), kept(&after), "the others keep their numbers");
}
