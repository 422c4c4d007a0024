//! Uploads to tables with a key whose rows stand at its hash: unique values that change places, and manifests that are
//! right whatever is done to the rows.

use serde_json::{Value, json};

use crate::site::Site;

#[test]
fn unique_values_that_change_places_arrive() {
    let mut site = Site::with(
        "CREATE TABLE shop.item (TENANT, id int NOT NULL, name text, seat int, PRIMARY KEY (client_id, database_id, id),
             UNIQUE (client_id, database_id, seat))",
        "",
    );
    let rows = |shift: i64| -> Value {
        (1..=9).map(|id| json!({"id": id, "name": format!("n{id}"), "seat": (id + shift) % 9})).collect()
    };
    assert_eq!(site.upload(&rows(0)).numbers, [9, 0, 0, 0]);
    assert_eq!(site.upload(&rows(1)).numbers, [0, 9, 0, 0], "all in a circle");
    let swap = json!([{"id": 1, "name": "n1", "seat": 3}, {"id": 2, "name": "n2", "seat": 2}]);
    assert_eq!(site.upload(&swap).numbers, [0, 2, 0, 0], "two of them");
    // A key that changes is a row that goes and one that comes: the new one waits for what the old one has.
    let moved = site.upload(&json!([{"id": 77, "name": "n1", "seat": 3}]));
    assert_eq!((moved.numbers, &moved.rejected[0]["waits"]), ([0, 0, 0, 0], &json!(true)));
    let sql = "SELECT deleted FROM plimsoll.delete_rows($1, 'shop.item', '[{\"key\": {\"id\": 1}}]'::jsonb)";
    assert_eq!(site.agent.query_one(sql, &[&site.till.id]).expect("a delete").get::<_, i64>(0), 1);
    assert_eq!(site.upload(&json!([{"id": 77, "name": "n1", "seat": 3}])).numbers, [1, 0, 0, 0]);
    site.right();
}

#[test]
fn values_swap_in_a_table_that_needs_statements() {
    let mut site = Site::with(
        "CREATE TABLE shop.item (TENANT, id int NOT NULL, revision int NOT NULL, seat inet,
             PRIMARY KEY (client_id, database_id, id), UNIQUE (client_id, database_id, seat))",
        ", version_column => 'revision', version_scope => 'row'",
    );
    let row = |id: i64, revision: i64, seat: i64| json!({"id": id, "revision": revision, "seat": format!("10.0.0.{seat}")});
    assert_eq!(site.upload(&json!([row(1, 5, 1), row(2, 90, 2)])).numbers, [2, 0, 0, 0]);
    assert_eq!(site.upload(&json!([row(1, 6, 2), row(2, 91, 1)])).numbers, [0, 2, 0, 0]);
    site.right();
}

/// Statements on the rows of one table, at random but the same each time.
fn at_random(sql: &str, manage: &str, statements: &[&str]) {
    let mut random = fastrand::Rng::with_seed(7);
    let mut site = Site::with(sql, manage);
    for step in 0..120 {
        let statement = statements[random.usize(..statements.len())];
        let (from, tenant) = (random.u32(..400), if random.u32(..4) == 0 { "$O" } else { "$T" });
        let statement = statement
            .replace("$TENANT", tenant)
            .replace("$FROM", &from.to_string())
            .replace("$TO", &(from + random.u32(..300)).to_string());
        let rolled_back = random.u32(..6) == 0;
        site.run(&match rolled_back {
            true => format!("BEGIN; {statement}; ROLLBACK"),
            false => statement,
        });
        if step % 20 == 19 {
            site.right();
        }
    }
}

#[test]
fn manifests_are_right_whatever_happens_to_rows_without_version() {
    at_random(
        "CREATE TABLE shop.item (TENANT, id int NOT NULL, code text NOT NULL, note text,
             PRIMARY KEY (client_id, database_id, id, code)) PARTITION BY HASH (database_id);
         CREATE TABLE shop.item_0 PARTITION OF shop.item FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE shop.item_1 PARTITION OF shop.item FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        "",
        &[
            "INSERT INTO shop.item SELECT $TENANT, i, 'c' || i % 3, 'new' FROM generate_series($FROM, $TO) i ON CONFLICT DO NOTHING",
            "INSERT INTO shop.item SELECT $TENANT, i, 'x', 'up' FROM generate_series($FROM, $TO) i
                 ON CONFLICT (client_id, database_id, id, code) DO UPDATE SET note = shop.item.note || '!'",
            "UPDATE shop.item SET note = 'changed' WHERE id BETWEEN $FROM AND $FROM + 5",
            "UPDATE shop.item SET id = id + 10000 WHERE id BETWEEN $FROM AND $TO AND code = 'x'
                 AND NOT EXISTS (SELECT FROM shop.item o WHERE o.id BETWEEN $FROM + 10000 AND $TO + 10000)",
            "DELETE FROM shop.item WHERE id BETWEEN $FROM AND $FROM + 40",
        ],
    );
}

#[test]
fn manifests_are_right_whatever_happens_to_rows_without_key() {
    at_random(
        "CREATE TABLE shop.item (TENANT, a int, b text, c numeric)",
        ", key_columns => '{}'",
        &[
            "INSERT INTO shop.item SELECT $TENANT, i % 7, 'b', NULL FROM generate_series($FROM, $TO) i",
            "INSERT INTO shop.item SELECT $TENANT, NULL, NULL, NULL FROM generate_series($FROM, $FROM + 3) i",
            "UPDATE shop.item SET c = a * 1.50 WHERE a = $FROM % 7",
            "UPDATE shop.item SET c = 1.0 WHERE ctid IN (SELECT ctid FROM shop.item LIMIT 9)",
            "UPDATE shop.item SET c = 1.000 WHERE c = 1",
            "DELETE FROM shop.item WHERE ctid IN (SELECT ctid FROM shop.item WHERE a = $FROM % 7 LIMIT $TO - $FROM)",
        ],
    );
}
