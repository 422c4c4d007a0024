//! Ranges are deleted some rows at a time, and it does not show.

use postgres::Client;
use serde_json::Value;
use uuid::Uuid;

use super::stock;

/// More than are deleted together.
const ROWS: i64 = 6_000;

/// Deleted, held, and the places of rows that others refer to.
fn delete_all(client: &mut Client, id: Uuid, table: &str) -> (i64, i64, Value) {
    let row = client
        .query_one("SELECT deleted, held, blocked FROM plimsoll.delete_all($1, $2)", &[&id, &table])
        .expect("an answer");
    (row.get(0), row.get(1), row.get(2))
}

#[test]
fn rows_that_refer_to_rows_of_their_own_table_go_together() {
    let mut shop = stock::open();
    let owner: String =
        shop.value("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'shop.customer'::regclass");
    shop.superuser
        .batch_execute(&format!(
            "SET ROLE {owner};
             CREATE TABLE shop.link (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL, before int,
                 version bigint NOT NULL, PRIMARY KEY (client_id, database_id, id),
                 FOREIGN KEY (client_id, database_id, before) REFERENCES shop.link);
             CREATE INDEX ON shop.link (client_id, database_id, before);
             RESET ROLE;
             SELECT plimsoll.manage_table('shop.link', version_column => 'version')"
        ))
        .expect("a managed table");
    let till = shop.register("acme", 0);
    shop.superuser
        .execute(
            "INSERT INTO shop.link
             SELECT 'acme', $1, i, nullif(i - 1, 0), i FROM generate_series(1, $2::bigint) i",
            &[&till.id, &ROWS],
        )
        .expect("a chain");
    assert_eq!(delete_all(&mut shop.superuser, till.id, "shop.link"), (ROWS, 0, Value::Array(Vec::new())));
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.link"), 0);
}

#[test]
fn rows_that_others_refer_to_stay_and_are_told() {
    let mut shop = stock::open();
    let till = shop.register("acme", 0);
    shop.superuser
        .execute(
            "INSERT INTO shop.customer SELECT 'acme', $1, i, NULL, i FROM generate_series(1, $2::bigint) i",
            &[&till.id, &ROWS],
        )
        .expect("customers");
    shop.superuser
        .execute(
            "INSERT INTO shop.invoice SELECT 'acme', $1, i, i, i FROM unnest(ARRAY[1, 5001, 6000]) i",
            &[&till.id],
        )
        .expect("invoices");
    let (deleted, held, blocked) = delete_all(&mut shop.superuser, till.id, "shop.customer");
    assert_eq!((deleted, held, blocked), (ROWS - 3, 0, serde_json::json!([0, 5000, 5999])));
    let wrong = "SELECT count(*) FROM plimsoll.check_manifest($1, 'shop.customer')";
    shop.superuser
        .execute("SELECT plimsoll.rebuild_manifest($1, 'shop.customer')", &[&till.id])
        .expect("rebuilt");
    assert_eq!(shop.superuser.query_one(wrong, &[&till.id]).expect("a check").get::<_, i64>(0), 0);
}

#[test]
fn the_guard_is_asked_about_all_of_them() {
    let mut shop = stock::open();
    let till = stock::stocked(&mut shop, "acme", ROWS);
    let mut agent = shop.agent(&till);
    assert_eq!(delete_all(&mut agent, till.id, "shop.sale"), (0, ROWS, Value::Array(Vec::new())));
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.sale"), ROWS);
    // An admin is not held, and the manifest says that nothing is left.
    assert_eq!(delete_all(&mut shop.superuser, till.id, "shop.sale").0, ROWS);
    let left = "SELECT row_count FROM plimsoll.table_version($1, 'shop.sale')";
    assert_eq!(shop.superuser.query_one(left, &[&till.id]).expect("a version").get::<_, i64>(0), 0);
    let wrong = "SELECT count(*) FROM plimsoll.check_manifest($1, 'shop.sale')";
    assert_eq!(shop.superuser.query_one(wrong, &[&till.id]).expect("a check").get::<_, i64>(0), 0);
}
