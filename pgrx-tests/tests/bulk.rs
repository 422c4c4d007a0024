//! Uploads of many rows: those that go past statements keep every rule of the table, and what fails among them
//! is found and leaves nothing behind.

mod shop;

use plimsoll_core::row::{BatchWriter, RowWriter};
use plimsoll_core::value::Value as Field;
use plimsoll_tests::Registered;
use postgres::Client;
use serde_json::{Value, json};
use shop::{Shop, refused};

/// More than are stored at once.
const MANY: i64 = 2_500;

/// A table of the shop's owner with version column `v`, made by `sql` with `OWN` for the columns that it has anyway and
/// `ITS_KEY` for its primary key.
fn shop_with(sql: &str) -> (Shop, Registered, Client) {
    let mut shop = Shop::open();
    let owner: String = shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    let own = "client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL, v bigint NOT NULL";
    let script = format!(
        "SET LOCAL ROLE {owner}; {}; RESET ROLE; SELECT plimsoll.manage_table('shop.item', version_column => 'v')",
        sql.replace("OWN", own).replace("ITS_KEY", "PRIMARY KEY (client_id, database_id, id)")
    );
    shop.superuser.batch_execute(&script).expect("a managed table");
    let till = shop.register("acme", 0);
    let agent = shop.agent(&till);
    (shop, till, agent)
}

/// Rows 1 to `count`, each made of its number.
fn rows(count: i64, row: impl Fn(i64) -> Value) -> Value {
    Value::Array((1..=count).map(row).collect())
}

/// Uploads; answers how many were inserted, updated and unchanged, and what was rejected.
fn upload(client: &mut Client, database: &Registered, rows: &Value) -> (i64, i64, i64, Vec<Value>) {
    let sql =
        "SELECT inserted, updated, unchanged, rejected FROM plimsoll.upload($1, 'shop.item', $2::jsonb)";
    let row = client.query_one(sql, &[&database.id, rows]).expect("an upload");
    let rejected: Value = row.get(3);
    (row.get(0), row.get(1), row.get(2), rejected.as_array().expect("an array").clone())
}

fn counts(uploaded: &(i64, i64, i64, Vec<Value>)) -> (i64, i64, i64, usize) {
    (uploaded.0, uploaded.1, uploaded.2, uploaded.3.len())
}

#[test]
fn many_new_rows_keep_defaults_identity_domains_and_every_index() {
    let (mut shop, till, mut agent) = shop_with(
        "CREATE DOMAIN shop.code AS text CHECK (VALUE <> 'bad');
         CREATE TABLE shop.item (OWN, serial int GENERATED ALWAYS AS IDENTITY, filled text DEFAULT 'here',
             code shop.code, name text, ITS_KEY);
         CREATE INDEX ON shop.item (lower(name)) WHERE name IS NOT NULL;
         CREATE UNIQUE INDEX ON shop.item (client_id, database_id, name) WHERE id > 10",
    );
    // The identity and the default are the server's: managed again so that they are not sent.
    shop.superuser
        .batch_execute(
            "SELECT plimsoll.manage_table('shop.item', version_column => 'v', server_columns => '{serial,filled}')",
        )
        .expect("managed again");
    let sent = rows(MANY, |id| match id {
        7 => json!({"id": id, "v": id, "code": "bad", "name": "n7"}),
        99 => json!({"id": id, "v": id, "code": null, "name": "n98"}),
        _ => json!({"id": id, "v": id, "code": "ok", "name": format!("n{id}")}),
    });
    let uploaded = upload(&mut agent, &till, &sent);
    assert_eq!(counts(&uploaded), (MANY - 2, 0, 0, 2));
    let rejected: Vec<_> =
        uploaded.3.iter().map(|row| (row["sqlstate"].clone(), row["waits"].clone())).collect();
    assert_eq!(rejected, [(json!("23514"), json!(false)), (json!("23505"), json!(true))]);
    let stored: String = shop.value(
        "SELECT concat(count(*), ' ', count(DISTINCT serial), ' ', bool_and(filled = 'here'), ' ',
                       bool_and(code = 'ok')) FROM shop.item",
    );
    assert_eq!(stored, format!("{} {} t t", MANY - 2, MANY - 2));
    // Each index has each row.
    for condition in ["id = 2000", "lower(name) = 'n2000' AND name IS NOT NULL", "name = 'n2000' AND id > 10"]
    {
        let sql = format!(
            "SELECT count(*) FROM shop.item WHERE {condition} AND client_id = 'acme' AND database_id = '{}'",
            till.id
        );
        shop.superuser.batch_execute("SET enable_seqscan = off").expect("a setting");
        assert_eq!(shop.value::<i64>(&sql), 1, "{condition}");
    }
}

#[test]
fn texts_arrive_byte_for_byte_and_a_nul_character_rejects_its_row() {
    let (mut shop, till, mut agent) =
        shop_with("CREATE TABLE shop.item (OWN, name text, raw bytea, doc jsonb, ITS_KEY)");
    let names = ["it's", "a\\b\\n\\N", "\"q\"", "a\tb\nc\rd", "", "ü€😀", "\\.", ",;|"];
    let sent = rows(MANY, |id| {
        let name = names[id as usize % names.len()];
        json!({"id": id, "v": id, "name": name, "raw": "\\x00ff5c", "doc": {"name": name}})
    });
    assert_eq!(counts(&upload(&mut agent, &till, &sent)), (MANY, 0, 0, 0));
    for (place, name) in names.iter().enumerate() {
        let equal: i64 = shop
            .superuser
            .query_one(
                "SELECT count(*) FROM shop.item
                 WHERE id % 8 = $1 AND name = $2 AND raw = '\\x00ff5c' AND doc ->> 'name' = $2",
                &[&(place as i32), name],
            )
            .expect("a count")
            .get(0);
        let expected = (1..=MANY).filter(|id| *id as usize % names.len() == place).count();
        assert_eq!(equal, expected as i64, "{name:?}");
    }
    let mut batch = BatchWriter::new();
    for (id, name) in [(MANY + 1, "fine"), (MANY + 2, "a\0b")] {
        let mut row = Vec::new();
        let mut writer = RowWriter::new(&mut row);
        writer.field(3, &Field::Int(id));
        writer.field(4, &Field::Int(id));
        writer.field(5, &Field::Text(name));
        batch.push(&row);
    }
    let answer = agent
        .query_one(
            "SELECT inserted, rejected -> 0 ->> 'sqlstate' FROM plimsoll.upload($1, 'shop.item', $2::bytea)",
            &[&till.id, &batch.finish()],
        )
        .expect("an upload");
    assert_eq!((answer.get::<_, i64>(0), answer.get::<_, String>(1)), (1, "22P02".to_owned()));
}

#[test]
fn a_value_of_a_hundred_megabytes_is_stored() {
    let (mut shop, till, mut agent) = shop_with("CREATE TABLE shop.item (OWN, raw bytea, ITS_KEY)");
    shop.set_option(&till, "max_upload_bytes", Some("200000000"));
    let bytes: Vec<u8> = (0..100_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut row = Vec::new();
    let mut writer = RowWriter::new(&mut row);
    writer.field(3, &Field::Int(1));
    writer.field(4, &Field::Int(1));
    writer.field(5, &Field::Bytea(&bytes));
    let mut batch = BatchWriter::new();
    batch.push(&row);
    let inserted: i64 = agent
        .query_one(
            "SELECT inserted FROM plimsoll.upload($1, 'shop.item', $2::bytea)",
            &[&till.id, &batch.finish()],
        )
        .expect("an upload")
        .get(0);
    assert_eq!(inserted, 1);
    let stored: Vec<u8> = shop.value("SELECT raw FROM shop.item");
    assert!(stored == bytes, "other bytes are stored");
}

#[test]
fn foreign_keys_are_checked_and_the_next_upload_of_the_session_works() {
    let (mut shop, till, mut agent) = shop_with(
        "CREATE TABLE shop.item (OWN, customer_id int, ITS_KEY,
             FOREIGN KEY (client_id, database_id, customer_id) REFERENCES shop.customer
                 DEFERRABLE INITIALLY DEFERRED)",
    );
    shop.superuser
        .execute(
            "INSERT INTO shop.customer SELECT 'acme', $1, i, NULL, i FROM generate_series(1, 10) i",
            &[&till.id],
        )
        .expect("customers");
    let sent = |wrong: i64| {
        rows(MANY, |id| json!({"id": id, "v": id, "customer_id": if id == wrong { 11 } else { id % 10 + 1 }}))
    };
    let uploaded = upload(&mut agent, &till, &sent(MANY - 3));
    assert_eq!(counts(&uploaded), (MANY - 1, 0, 0, 1));
    assert_eq!((&uploaded.3[0]["sqlstate"], &uploaded.3[0]["waits"]), (&json!("23503"), &json!(true)));
    assert_eq!(counts(&upload(&mut agent, &till, &sent(0))), (1, 0, MANY - 1, 0));
}

#[test]
fn row_level_security_that_is_forced_stands_in_no_ones_way() {
    let (mut shop, till, mut agent) = shop_with(
        "CREATE TABLE shop.item (OWN, name text, ITS_KEY);
         ALTER TABLE shop.item ENABLE ROW LEVEL SECURITY; ALTER TABLE shop.item FORCE ROW LEVEL SECURITY",
    );
    let sent = rows(MANY, |id| json!({"id": id, "v": id, "name": "x"}));
    assert_eq!(counts(&upload(&mut agent, &till, &sent)), (MANY, 0, 0, 0));
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.item"), MANY);
}

#[test]
fn a_table_that_became_a_partition_takes_only_its_own_rows() {
    let (mut shop, till, mut agent) = shop_with(
        "CREATE TABLE shop.item (OWN, name text, ITS_KEY); ALTER TABLE shop.item ADD CHECK (id <> 5)",
    );
    shop.superuser
        .batch_execute(
            "CREATE TABLE shop.parent (LIKE shop.item) PARTITION BY RANGE (id);
             ALTER TABLE shop.parent ATTACH PARTITION shop.item FOR VALUES FROM (2) TO (100000)",
        )
        .expect("a partition");
    let sent = rows(MANY, |id| json!({"id": id, "v": id, "name": "x"}));
    let uploaded = upload(&mut agent, &till, &sent);
    assert_eq!(counts(&uploaded), (MANY - 2, 0, 0, 2));
    assert!(uploaded.3.iter().all(|row| row["sqlstate"] == "23514"), "{:?}", uploaded.3);
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.parent"), MANY - 2);
}

#[test]
fn triggers_on_statement_and_row_see_each_row_once() {
    let (mut shop, till, mut agent) = shop_with(
        "CREATE TABLE shop.seen (what text, rows bigint);
         CREATE TABLE shop.item (OWN, name text, ITS_KEY);
         CREATE FUNCTION shop.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF TG_LEVEL = 'ROW' THEN INSERT INTO shop.seen VALUES ('row', NEW.id);
             ELSIF TG_WHEN = 'BEFORE' THEN INSERT INTO shop.seen SELECT 'before', count(*) FROM shop.item;
             ELSE INSERT INTO shop.seen SELECT 'after', count(*) FROM fresh; END IF;
             RETURN NULL; END $$;
         CREATE TRIGGER a BEFORE INSERT ON shop.item EXECUTE FUNCTION shop.note();
         CREATE TRIGGER b AFTER INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.note();
         CREATE TRIGGER c AFTER INSERT ON shop.item REFERENCING NEW TABLE AS fresh EXECUTE FUNCTION shop.note()",
    );
    let sent = rows(MANY, |id| json!({"id": id, "v": id, "name": "x"}));
    assert_eq!(counts(&upload(&mut agent, &till, &sent)), (MANY, 0, 0, 0));
    let seen: String = shop.value(
        "SELECT string_agg(concat_ws(' ', what, number, total), ', ' ORDER BY what)
         FROM (SELECT what, count(*) AS number, sum(rows) AS total FROM shop.seen GROUP BY what) s",
    );
    assert_eq!(seen, format!("after 1 {MANY}, before 1 0, row {MANY} {}", MANY * (MANY + 1) / 2));
}

#[test]
fn a_trigger_that_uploads_itself_is_refused_and_leaves_nothing_behind() {
    let (mut shop, till, mut agent) = shop_with(
        "CREATE TABLE shop.item (OWN, name text, ITS_KEY);
         CREATE FUNCTION shop.again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM plimsoll.upload((SELECT database_id FROM fresh LIMIT 1), 'shop.item',
                 '[{\"id\": 9000, \"v\": 9000}]'::jsonb);
             RETURN NULL; END $$;
         CREATE TRIGGER c AFTER INSERT ON shop.item REFERENCING NEW TABLE AS fresh EXECUTE FUNCTION shop.again()",
    );
    let owner: String = shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    shop.superuser.batch_execute(&format!("GRANT plimsoll_agent TO {owner}")).expect("a grant");
    shop.grant(&till, &owner);
    let sent = rows(MANY, |id| json!({"id": id, "v": id, "name": "x"}));
    let sql = "SELECT inserted FROM plimsoll.upload($1, 'shop.item', $2::jsonb)";
    let message = refused(agent.query_one(sql, &[&till.id, &sent]), "42501");
    assert!(message.contains("security-restricted operation"), "{message}");
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.item"), 0);
    shop.superuser.batch_execute("DROP TRIGGER c ON shop.item").expect("no trigger");
    assert_eq!(counts(&upload(&mut agent, &till, &sent)), (MANY, 0, 0, 0));
}

#[test]
fn a_trigger_that_writes_to_the_table_does_not_disturb_what_is_stored() {
    let (mut shop, till, mut agent) = shop_with(
        "CREATE TABLE shop.item (OWN, name text, ITS_KEY);
         CREATE FUNCTION shop.more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF pg_trigger_depth() = 1 THEN
                 INSERT INTO shop.item SELECT 'other', database_id, id, v, name FROM fresh WHERE id <= 10;
             END IF; RETURN NULL; END $$;
         CREATE TRIGGER c AFTER INSERT ON shop.item REFERENCING NEW TABLE AS fresh EXECUTE FUNCTION shop.more()",
    );
    let sent = rows(MANY, |id| json!({"id": id, "v": id, "name": "x"}));
    assert_eq!(counts(&upload(&mut agent, &till, &sent)), (MANY, 0, 0, 0));
    assert_eq!(counts(&upload(&mut agent, &till, &sent)), (0, 0, MANY, 0));
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.item WHERE client_id = 'other'"), 10);
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.item WHERE client_id = 'acme'"), MANY);
}

#[test]
fn an_owner_who_may_not_insert_is_told_so() {
    let (mut shop, till, mut agent) = shop_with("CREATE TABLE shop.item (OWN, name text, ITS_KEY)");
    let owner: String = shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    shop.superuser.batch_execute(&format!("REVOKE INSERT ON shop.item FROM {owner}")).expect("a revocation");
    let sent = rows(3, |id| json!({"id": id, "v": id, "name": "x"}));
    let sql = "SELECT inserted FROM plimsoll.upload($1, 'shop.item', $2::jsonb)";
    let message = refused(agent.query_one(sql, &[&till.id, &sent]), "42501");
    assert!(message.contains("permission denied for table item"), "{message}");
}

#[test]
fn many_changed_rows_keep_what_the_server_filled_in_and_are_seen_by_triggers_as_old_and_new() {
    let (mut shop, till, mut agent) = shop_with(
        "CREATE TABLE shop.seen (level text, rows bigint, raised bigint);
         CREATE TABLE shop.item (OWN, serial int GENERATED ALWAYS AS IDENTITY, filled text DEFAULT 'here', name text,
             CHECK (name <> 'bad'), ITS_KEY);
         CREATE UNIQUE INDEX ON shop.item (client_id, database_id, name);
         CREATE FUNCTION shop.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF TG_LEVEL = 'ROW' THEN INSERT INTO shop.seen VALUES ('row', 1, NEW.v - OLD.v);
             ELSE INSERT INTO shop.seen
                 SELECT 'statement', count(*), sum(n.v - o.v) FROM after n JOIN before o USING (id); END IF;
             RETURN NULL; END $$;
         CREATE TRIGGER b AFTER UPDATE OF name ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.note();
         CREATE TRIGGER c AFTER UPDATE ON shop.item REFERENCING NEW TABLE AS after OLD TABLE AS before
             EXECUTE FUNCTION shop.note()",
    );
    shop.superuser
        .batch_execute(
            "SELECT plimsoll.manage_table('shop.item', version_column => 'v', server_columns => '{serial,filled}')",
        )
        .expect("managed again");
    let first = rows(MANY, |id| json!({"id": id, "v": id, "name": format!("a{id}")}));
    assert_eq!(counts(&upload(&mut agent, &till, &first)), (MANY, 0, 0, 0));
    shop.superuser.batch_execute("UPDATE shop.item SET filled = 'by hand'; TRUNCATE shop.seen").expect("set");
    let second = rows(MANY, |id| json!({"id": id, "v": id + 10_000, "name": format!("b{id}")}));
    assert_eq!(counts(&upload(&mut agent, &till, &second)), (0, MANY, 0, 0));
    let seen: String = shop.value(
        "SELECT string_agg(concat_ws(' ', level, rows, raised), ', ' ORDER BY level)
         FROM (SELECT level, sum(rows) AS rows, sum(raised) AS raised FROM shop.seen GROUP BY level) s",
    );
    assert_eq!(seen, format!("row {MANY} {}, statement {MANY} {}", MANY * 10_000, MANY * 10_000));
    let stored: String = shop.value(
        "SELECT concat(count(*), ' ', count(DISTINCT serial), ' ', bool_and(filled = 'by hand'), ' ',
                       bool_and(name = 'b' || id), ' ', bool_and(v = id + 10000)) FROM shop.item",
    );
    assert_eq!(stored, format!("{MANY} {MANY} t t t"));
    shop.superuser.batch_execute("SET enable_seqscan = off").expect("a setting");
    for (condition, expected) in
        [("name = 'b2000'", 1i64), ("name = 'a2000'", 0), ("id = 2000", 1), ("v = 12000", 1)]
    {
        let sql = format!(
            "SELECT count(*) FROM shop.item WHERE {condition} AND client_id = 'acme' AND database_id = '{}'",
            till.id
        );
        assert_eq!(shop.value::<i64>(&sql), expected, "{condition}");
    }
    // One that breaks a rule is found among the rest, which is stored.
    let third = rows(
        MANY,
        |id| json!({"id": id, "v": id + 20_000, "name": if id == 700 { "bad".into() } else { format!("c{id}") }}),
    );
    let uploaded = upload(&mut agent, &till, &third);
    assert_eq!(counts(&uploaded), (0, MANY - 1, 0, 1));
    assert_eq!(uploaded.3[0]["sqlstate"], json!("23514"));
}

#[test]
fn new_changed_equal_and_older_rows_of_one_upload_are_told_apart() {
    let (mut shop, till, mut agent) = shop_with("CREATE TABLE shop.item (OWN, name text, ITS_KEY)");
    let first = rows(1_000, |id| json!({"id": id, "v": id + 5_000, "name": "first"}));
    assert_eq!(counts(&upload(&mut agent, &till, &first)), (1_000, 0, 0, 0));
    // By turns: raised, equal, the same position with other content, lowered; then new ones.
    let second = rows(MANY, |id| match id {
        1_001.. => json!({"id": id, "v": id, "name": "new"}),
        _ if id % 100 == 1 => json!({"id": id, "v": id, "name": "lowered"}),
        _ if id % 4 == 0 => json!({"id": id, "v": id + 9_000, "name": "raised"}),
        _ if id % 4 == 1 => json!({"id": id, "v": id + 5_000, "name": "other"}),
        _ => json!({"id": id, "v": id + 5_000, "name": "first"}),
    });
    assert_eq!(counts(&upload(&mut agent, &till, &second)), (MANY - 1_000, 500, 500, 0));
    let stored: String = shop.value(
        "SELECT string_agg(name || ' ' || number, ', ' ORDER BY name)
         FROM (SELECT name, count(*) AS number FROM shop.item GROUP BY name) s",
    );
    assert_eq!(stored, "first 500, lowered 10, new 1500, other 240, raised 250");
    assert_eq!(counts(&upload(&mut agent, &till, &second)), (0, 0, MANY, 0));
}

#[test]
fn a_row_that_another_session_is_changing_is_waited_for_and_then_changed() {
    let (mut shop, till, mut agent) = shop_with("CREATE TABLE shop.item (OWN, name text, ITS_KEY)");
    let first = rows(MANY, |id| json!({"id": id, "v": id, "name": "first"}));
    assert_eq!(counts(&upload(&mut agent, &till, &first)), (MANY, 0, 0, 0));
    let mut other = shop.server.superuser(&shop.database);
    let mut transaction = other.transaction().expect("a transaction");
    transaction
        .batch_execute("UPDATE shop.item SET name = 'meanwhile', v = 90000 WHERE id = 77")
        .expect("a change");
    transaction.batch_execute("DELETE FROM shop.item WHERE id = 99").expect("a deletion");
    let waiter = std::thread::spawn(move || {
        let second = rows(MANY, |id| json!({"id": id, "v": id + 10_000, "name": "second"}));
        upload(&mut agent, &till, &second)
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    while shop.value::<i64>(waiting) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    transaction.commit().expect("a commit");
    let uploaded = waiter.join().expect("the upload");
    assert_eq!((uploaded.0 + uploaded.1, uploaded.2, uploaded.3.len()), (MANY, 0, 0));
    let stored: String = shop.value("SELECT concat(count(*), ' ', bool_and(name = 'second')) FROM shop.item");
    assert_eq!(stored, format!("{MANY} t"));
}

#[test]
fn rows_that_a_trigger_adds_to_the_replica_itself_are_not_taken_for_sent_ones() {
    let (mut shop, till, mut agent) = shop_with(
        "CREATE TABLE shop.item (OWN, name text, ITS_KEY);
         CREATE FUNCTION shop.more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF pg_trigger_depth() = 1 THEN
                 INSERT INTO shop.item SELECT client_id, database_id, id + 10000, v, name FROM fresh WHERE id <= 10;
             END IF; RETURN NULL; END $$;
         CREATE TRIGGER c AFTER INSERT ON shop.item REFERENCING NEW TABLE AS fresh EXECUTE FUNCTION shop.more()",
    );
    shop.superuser
        .execute("SELECT plimsoll.rebuild_manifest($1, 'shop.item')", &[&till.id])
        .expect("a manifest that is trusted");
    let sent = rows(MANY, |id| json!({"id": id, "v": id, "name": "x"}));
    assert_eq!(counts(&upload(&mut agent, &till, &sent)), (MANY, 0, 0, 0));
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.item"), MANY + 10);
    let wrong: i64 = shop
        .superuser
        .query_one("SELECT count(*) FROM plimsoll.check_manifest($1, 'shop.item')", &[&till.id])
        .expect("a check")
        .get(0);
    assert_eq!(wrong, 0, "what is kept is what is stored");
}

#[test]
fn changed_rows_are_found_in_whatever_order_they_are_sent() {
    let (mut shop, till, mut agent) = shop_with("CREATE TABLE shop.item (OWN, name text, ITS_KEY)");
    let rows = |base: i64, ids: &[i64]| {
        let row = |id: &i64| json!({"id": id, "v": base + id, "name": format!("of {base}")});
        Value::Array(ids.iter().map(row).collect())
    };
    let even: Vec<i64> = (1..=MANY).map(|id| 2 * id).collect();
    assert_eq!(counts(&upload(&mut agent, &till, &rows(0, &even))), (MANY, 0, 0, 0));
    let scattered: Vec<i64> = (0..MANY).map(|id| 2 * (id * 7_919 % MANY + 1)).collect();
    let runs: Vec<i64> = even.chunks(25).rev().flatten().copied().collect();
    let falling: Vec<i64> = even.iter().rev().copied().collect();
    for (base, ids) in [(10_000, &even), (20_000, &falling), (30_000, &scattered), (40_000, &runs)] {
        assert_eq!(counts(&upload(&mut agent, &till, &rows(base, ids))), (0, MANY, 0, 0));
        let sql = format!("SELECT count(*) FROM shop.item WHERE v = {base} + id AND name = 'of {base}'");
        assert_eq!(shop.value::<i64>(&sql), MANY, "{base}");
    }
    // New ones stand between those that are there.
    let all: Vec<i64> = (1..=2 * MANY).collect();
    assert_eq!(counts(&upload(&mut agent, &till, &rows(50_000, &all))), (MANY, MANY, 0, 0));
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.item WHERE v = 50000 + id"), 2 * MANY);
}

#[test]
fn a_row_at_fault_or_a_key_that_comes_twice_among_new_ones_is_dealt_with_as_ever() {
    let (mut shop, till, mut agent) =
        shop_with("CREATE TABLE shop.item (OWN, name varchar(5), CHECK (name <> 'bad'), ITS_KEY)");
    let named = |id: i64, name: &str| json!({"id": id, "v": id, "name": name});
    let sent = rows(MANY, |id| match id {
        1_700 => named(id, "bad"),
        1_800 => named(id, "much too long"),
        2_000 => named(1, "last"),
        _ => named(id, "x"),
    });
    let uploaded = upload(&mut agent, &till, &sent);
    assert_eq!(counts(&uploaded), (MANY - 3, 0, 0, 3));
    let codes: Vec<_> = uploaded.3.iter().map(|row| row["sqlstate"].clone()).collect();
    assert_eq!(codes, [json!("21000"), json!("23514"), json!("22001")]);
    assert_eq!(shop.value::<String>("SELECT name FROM shop.item WHERE id = 1"), "last");
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.item"), MANY - 3);
}

#[test]
fn changed_rows_are_found_one_after_the_other_by_keys_that_are_text() {
    let (mut shop, till, mut agent) = shop_with(
        "CREATE TABLE shop.item (client_id text NOT NULL, database_id uuid NOT NULL, v bigint NOT NULL, body bytea,
             code text, PRIMARY KEY (client_id, database_id, code))",
    );
    // Bodies whose bytes would be taken for a pointer where a key is expected.
    let sent = |base: i64| {
        rows(MANY, |id| {
            let body = if id == 1 { "00".to_owned() } else { "01".repeat(3_000) };
            json!({"v": base + id, "body": format!("\\x{body}"), "code": format!("code {id:05}")})
        })
    };
    assert_eq!(counts(&upload(&mut agent, &till, &sent(0))), (MANY, 0, 0, 0));
    assert_eq!(counts(&upload(&mut agent, &till, &sent(10_000))), (0, MANY, 0, 0));
    let sql = "SELECT count(*) FROM shop.item WHERE v = 10000 + substr(code, 6)::int";
    assert_eq!(shop.value::<i64>(sql), MANY);
}
