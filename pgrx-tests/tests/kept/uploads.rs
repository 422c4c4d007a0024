//! Uploads tell the manifest of rows without a trigger, where they can: what is kept is the same either way.

use plimsoll_tests::Registered;
use postgres::{Client, GenericClient};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::site::{COLUMNS, Site, assert_right};

/// More than are stored at once.
const MANY: i64 = 2_500;

/// An agent of the till, connected.
fn agent(site: &mut Site) -> Client {
    let login = site.server.create_agent();
    let id = site.till.id;
    grant(site, &login.role, &id);
    site.server.connect(&login, &site.database)
}

fn grant(site: &mut Site, role: &str, id: &Uuid) {
    let sql = "SELECT plimsoll.grant_database($1, $2::text::name)";
    site.superuser.execute(sql, &[id, &role]).expect("a grant");
}

/// Rows 1 to `count`, each with its number plus `shift` as version.
fn rows(count: i64, shift: i64, name: &str) -> Value {
    let row = |id: i64| {
        let changed = format!("2026-01-01 00:{:02}:{:02}+00", id / 60 % 60, id % 60);
        json!({"id": id, "version": id + shift, "name": name, "amount": id % 90, "changed": changed})
    };
    Value::Array((1..=count).map(row).collect())
}

/// Uploads; how many rows were inserted and updated. None may be rejected.
#[track_caller]
fn upload(client: &mut impl GenericClient, id: Uuid, rows: &Value) -> (i64, i64) {
    let sql = "SELECT inserted, updated, rejected FROM plimsoll.upload($1, 'shop.item', $2::jsonb)";
    let row = client.query_one(sql, &[&id, rows]).expect("an upload");
    assert_eq!(row.get::<_, Value>(2), json!([]));
    (row.get(0), row.get(1))
}

/// Changes of which statements told, that are not folded yet.
fn pending(site: &mut Site) -> i64 {
    site.value("SELECT count(*) FROM plimsoll.kept_delta")
}

/// New rows, changed ones, and both at once.
#[track_caller]
fn uploads_are_kept(site: &mut Site, client: &mut Client) {
    let id = site.till.id;
    assert_eq!(upload(client, id, &rows(MANY, 0, "new")), (MANY, 0));
    site.right();
    assert_eq!(upload(client, id, &rows(MANY, 10_000, "changed")), (0, MANY));
    site.right();
    assert_eq!(upload(client, id, &rows(MANY + 100, 20_000, "both")), (100, MANY));
    site.right();
    assert_eq!(site.rows(), MANY + 100);
}

#[test]
fn uploads_are_kept_beside_triggers_of_the_owner_with_and_without_transition_tables() {
    for referencing in [["", ""], ["REFERENCING NEW TABLE AS f", "REFERENCING OLD TABLE AS o NEW TABLE AS f"]]
    {
        let mut site = Site::with(&format!(
            "CREATE TABLE shop.item ({COLUMNS}, PRIMARY KEY (client_id, database_id, id));
             CREATE TABLE shop.seen (what text);
             CREATE FUNCTION shop.note() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO shop.seen VALUES (TG_OP || ' ' || TG_LEVEL); RETURN NULL; END $$;
             CREATE TRIGGER a AFTER INSERT ON shop.item {} EXECUTE FUNCTION shop.note();
             CREATE TRIGGER z AFTER UPDATE ON shop.item {} EXECUTE FUNCTION shop.note();
             CREATE TRIGGER r AFTER UPDATE ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.note()",
            referencing[0], referencing[1]
        ));
        let mut client = agent(&mut site);
        uploads_are_kept(&mut site, &mut client);
        let seen: String = site.value(
            "SELECT string_agg(concat_ws(' ', what, times), ', ' ORDER BY what)
             FROM (SELECT what, count(*) AS times FROM shop.seen GROUP BY what) s",
        );
        assert_eq!(seen, format!("INSERT STATEMENT 2, UPDATE ROW {}, UPDATE STATEMENT 2", 2 * MANY));
    }
}

#[test]
fn what_triggers_of_the_owner_change_in_the_same_replica_is_kept_too() {
    let mut site = Site::with(&format!(
        "CREATE TABLE shop.item ({COLUMNS}, PRIMARY KEY (client_id, database_id, id));
         CREATE FUNCTION shop.more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF pg_trigger_depth() = 1 THEN
                 UPDATE shop.item SET amount = 99 WHERE id <= 10;
                 INSERT INTO shop.item SELECT client_id, database_id, -id, name, amount, changed, version
                 FROM shop.item WHERE id BETWEEN 1 AND 5 ON CONFLICT DO NOTHING;
             END IF; RETURN NULL; END $$;
         CREATE TRIGGER c AFTER INSERT OR UPDATE ON shop.item EXECUTE FUNCTION shop.more()"
    ));
    let id = site.till.id;
    let mut client = agent(&mut site);
    assert_eq!(upload(&mut client, id, &rows(MANY, 0, "new")), (MANY, 0));
    assert_eq!(site.rows(), MANY + 5);
    site.right();
    assert_eq!(upload(&mut client, id, &rows(MANY, 10_000, "changed")), (0, MANY));
    assert_eq!(site.value::<i64>("SELECT count(*) FROM shop.item WHERE amount = 99"), 15);
    site.right();
}

#[test]
fn cascades_to_other_rows_of_the_table_are_kept() {
    for trigger in [
        "",
        "CREATE TRIGGER z AFTER UPDATE ON shop.item REFERENCING OLD TABLE AS o NEW TABLE AS n
             EXECUTE FUNCTION shop.nothing()",
    ] {
        let mut site = Site::with(&format!(
            "CREATE TABLE shop.item ({COLUMNS}, parent text, PRIMARY KEY (client_id, database_id, id),
                 UNIQUE (client_id, database_id, name),
                 FOREIGN KEY (client_id, database_id, parent)
                     REFERENCES shop.item (client_id, database_id, name) ON UPDATE CASCADE);
             CREATE FUNCTION shop.nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
             {trigger}"
        ));
        let id = site.till.id;
        let mut client = agent(&mut site);
        let named = |count: i64, shift: i64, name: &str| {
            let mut rows = rows(count, shift, "");
            for row in rows.as_array_mut().expect("rows") {
                row["name"] = json!(format!("{name}{}", row["id"]));
                row["parent"] = json!(format!("{name}{}", row["id"].as_i64().expect("an id") / 2 + 1));
            }
            rows
        };
        assert_eq!(upload(&mut client, id, &named(500, 0, "a")), (500, 0));
        site.right();
        // Each row that is renamed takes those along that refer to it.
        let mut renamed = named(500, 10_000, "b");
        for row in renamed.as_array_mut().expect("rows") {
            row["parent"] = json!(format!("a{}", row["id"].as_i64().expect("an id") / 2 + 1));
        }
        assert_eq!(upload(&mut client, id, &renamed), (0, 500));
        site.right();
        assert_eq!(site.value::<i64>("SELECT count(*) FROM shop.item WHERE parent LIKE 'b%'"), 500);
    }
}

#[test]
fn a_trigger_that_does_not_fire_counts_nothing() {
    let mut site = Site::open();
    let id = site.till.id;
    let mut client = agent(&mut site);
    assert_eq!(upload(&mut client, id, &rows(10, 0, "new")), (10, 0));
    let before = pending(&mut site);
    site.superuser
        .batch_execute(
            "ALTER TABLE shop.item DISABLE TRIGGER plimsoll_kept_insert;
             ALTER TABLE shop.item DISABLE TRIGGER plimsoll_kept_update",
        )
        .expect("disabled triggers");
    assert_eq!(upload(&mut client, id, &rows(MANY, 100, "other")), (MANY - 10, 10));
    assert_eq!(pending(&mut site), before);
    site.off();
    site.superuser
        .batch_execute(
            "ALTER TABLE shop.item ENABLE ALWAYS TRIGGER plimsoll_kept_insert;
             ALTER TABLE shop.item ENABLE ALWAYS TRIGGER plimsoll_kept_update",
        )
        .expect("triggers");
    site.untrusted_then_rebuilt();
}

#[test]
fn a_session_that_replicates_fires_what_always_fires() {
    let mut site = Site::open();
    let login = site.server.create_agent();
    let id = site.till.id;
    grant(&mut site, &login.role, &id);
    site.superuser
        .batch_execute(&format!("ALTER ROLE {} SET session_replication_role = replica", login.role))
        .expect("a setting of the role");
    let mut client = site.server.connect(&login, &site.database);
    uploads_are_kept(&mut site, &mut client);
    // One that fires for others only.
    site.superuser
        .batch_execute("ALTER TABLE shop.item ENABLE TRIGGER plimsoll_kept_update")
        .expect("a trigger");
    let before = pending(&mut site);
    assert_eq!(upload(&mut client, site.till.id, &rows(MANY, 30_000, "unseen")), (0, MANY));
    assert_eq!(pending(&mut site), before);
    site.off();
}

#[test]
fn uploads_that_are_rolled_back_leave_nothing_in_the_manifest() {
    let mut site = Site::open();
    let id = site.till.id;
    let mut client = agent(&mut site);
    let mut transaction = client.transaction().expect("a transaction");
    assert_eq!(upload(&mut transaction, id, &rows(100, 0, "first")), (100, 0));
    let mut point = transaction.savepoint("again").expect("a savepoint");
    assert_eq!(upload(&mut point, id, &rows(MANY, 10_000, "undone")), (MANY - 100, 100));
    point.rollback().expect("a rollback");
    assert_eq!(upload(&mut transaction, id, &rows(200, 5_000, "second")), (100, 100));
    transaction.commit().expect("a commit");
    site.right();
    assert_eq!(site.value::<i64>("SELECT count(*) FROM shop.item WHERE name = 'second'"), 200);
    let mut transaction = client.transaction().expect("a transaction");
    assert_eq!(upload(&mut transaction, id, &rows(MANY, 20_000, "undone")), (MANY - 200, 200));
    transaction.rollback().expect("a rollback");
    site.right();
    assert_eq!(site.rows(), 200);
}

#[test]
fn uploads_of_two_databases_are_kept_apart() {
    let mut site = Site::open();
    let login = site.server.create_agent();
    let other: Registered = site.server.register(&site.database, "acme", "other till");
    for id in [site.till.id, other.id] {
        grant(&mut site, &login.role, &id);
    }
    let rebuild = "SELECT plimsoll.rebuild_manifest($1, 'shop.item')";
    site.superuser.execute(rebuild, &[&other.id]).expect("a rebuild");
    let mut client = site.server.connect(&login, &site.database);
    uploads_are_kept(&mut site, &mut client);
    assert_eq!(upload(&mut client, other.id, &rows(700, 0, "theirs")), (700, 0));
    assert_eq!(upload(&mut client, other.id, &rows(700, 7_000, "theirs")), (0, 700));
    assert_right(&mut site.superuser, other.id);
    site.right();
    assert_eq!(site.rows(), MANY + 100);
}

#[test]
fn what_comes_after_all_rows_went_is_kept_without_a_look_at_it() {
    let mut site = Site::open();
    let id = site.till.id;
    let mut client = agent(&mut site);
    assert_eq!(upload(&mut client, id, &rows(MANY * 3, 0, "first")), (MANY * 3, 0));
    site.right();
    let scans = "SELECT coalesce(sum(idx_scan + seq_scan), 0)::int8 FROM pg_stat_xact_user_tables
                 WHERE relid = 'shop.item'::regclass";
    for (day, before) in [(2, ""), (3, "UPDATE shop.item SET amount = 1 WHERE id % 3 = 0;")] {
        site.run(&format!("{before} TRUNCATE shop.item"));
        let mut again = rows(MANY * 3, 0, "again");
        for row in again.as_array_mut().expect("rows") {
            row["changed"] = json!(format!("2026-01-{day:02} 00:00+00"));
        }
        assert_eq!(upload(&mut client, id, &again), (MANY * 3, 0));
        let mut transaction = site.superuser.transaction().expect("a transaction");
        let before: i64 = transaction.query_one(scans, &[]).expect("a count").get(0);
        let fold = "SELECT plimsoll.fold_manifest($1, 'shop.item')";
        assert!(transaction.query_one(fold, &[&id]).expect("a fold").get::<_, i64>(0) > 0);
        let after: i64 = transaction.query_one(scans, &[]).expect("a count").get(0);
        assert_eq!(after, before);
        transaction.commit().expect("a commit");
        site.right();
    }
}
