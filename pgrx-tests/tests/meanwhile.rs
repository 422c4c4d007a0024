//! What others do while a transaction is open or a call waits: what a call was allowed to do at its beginning, and
//! to which table, is what it may do until its end.

mod shop;

use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use plimsoll_tests::Registered;
use postgres::{Client, Error};
use serde_json::{Value, json};
use shop::{Shop, begin, refused};

const UPLOAD: &str = "SELECT inserted FROM plimsoll.upload($1, 'shop.customer', $2::jsonb)";

/// Uploads one row; how many were inserted.
fn upload(client: &mut impl postgres::GenericClient, database: &Registered, id: i32) -> Result<i64, Error> {
    client.query_one(UPLOAD, &[&database.id, &row(id)]).map(|row| row.get(0))
}

fn row(id: i32) -> Value {
    json!([{"id": id, "name": "12345", "version": id}])
}

/// Uploads in a thread of its own, and answers once that waits for a lock.
fn upload_that_waits(
    shop: &mut Shop,
    mut agent: Client,
    till: &Registered,
) -> JoinHandle<Result<i64, Error>> {
    let till = till.clone();
    let waiting = spawn(move || upload(&mut agent, &till, 100));
    let waits = "SELECT count(*) FROM pg_stat_activity
                 WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE '%upload(%'";
    while shop.value::<i64>(waits) == 0 {
        sleep(Duration::from_millis(10));
    }
    waiting
}

#[test]
fn an_older_snapshot_does_not_hide_that_a_database_is_not_its_agents_any_more() {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        for (change, sqlstate) in [
            ("suspend_database($1)", "28000"),
            ("revoke_database($1, $2::text::name)", "42501"),
            ("forget_database($1)", "42501"),
        ] {
            let mut shop = Shop::open();
            let till = shop.register("acme", 1);
            let login = shop.server.create_agent();
            shop.grant(&till, &login.role);
            let mut agent = shop.connect(&login);
            agent
                .batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SELECT * FROM plimsoll.databases"))
                .expect("an old snapshot");
            let arguments: [&(dyn postgres::types::ToSql + Sync); 2] = [&till.id, &login.role];
            let arguments = if change.contains("$2") { &arguments[..] } else { &arguments[..1] };
            shop.superuser.query(&format!("SELECT plimsoll.{change}"), arguments).expect("a change");
            refused(upload(&mut agent, &till, 5), sqlstate);
            agent.batch_execute("ROLLBACK").expect("a rollback");
            assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.customer WHERE id = 5"), 0);
        }
    }
}

#[test]
fn whoever_takes_a_database_away_waits_for_what_its_agent_is_writing() {
    for with_run in [false, true] {
        let mut shop = Shop::open();
        let till = shop.register("acme", 1);
        let login = shop.server.create_agent();
        shop.grant(&till, &login.role);
        let mut agent = shop.connect(&login);
        if with_run {
            let run = begin(&mut agent, &till, "agent").expect("a run");
            shop::end(&mut agent, &run, "finished", None).expect("its end");
        }
        let mut transaction = agent.transaction().expect("a transaction");
        assert_eq!(upload(&mut transaction, &till, 5).expect("an upload"), 1);
        shop.superuser.batch_execute("SET lock_timeout = '100ms'").expect("no patience");
        let changes = [
            "forget_database($1)".to_owned(),
            format!("revoke_database($1, '{}')", login.role),
            "suspend_database($1)".to_owned(),
        ];
        let mut change = |change: &str| {
            shop.superuser.query(&format!("SELECT plimsoll.{change}"), &[&till.id]).map(|rows| rows.len())
        };
        for taken in &changes {
            refused(change(taken), "55P03");
        }
        transaction.commit().expect("a commit");
        change(&changes[2]).expect("nobody writes any more");
        refused(upload(&mut agent, &till, 6), "28000");
        change(&changes[0]).expect("it is forgotten");
        assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.customer"), 0, "nothing is left behind");
    }
}

#[test]
fn what_an_agent_does_to_its_history_by_hand_is_waited_for_too() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 100);
    shop.set_option(&till, "allow_agent_release", Some("true"));
    let mut agent = shop.agent(&till);
    let held = "SELECT held FROM plimsoll.delete_all($1, 'shop.invoice')";
    assert!(agent.query_one(held, &[&till.id]).expect("a hold").get::<_, i64>(0) > 0);
    shop.superuser.batch_execute("SET lock_timeout = '100ms'").expect("no patience");
    for call in ["clear_rejected", "release_hold"] {
        let mut transaction = agent.transaction().expect("a transaction");
        transaction
            .query(&format!("SELECT plimsoll.{call}($1, 'shop.invoice')"), &[&till.id])
            .expect("a change");
        refused(shop.superuser.query("SELECT plimsoll.suspend_database($1)", &[&till.id]), "55P03");
        transaction.rollback().expect("an end");
    }
}

#[test]
fn an_upload_that_begins_while_its_database_is_suspended_waits_and_is_refused() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let agent = shop.agent(&till);
    let mut admin = shop.server.superuser(&shop.database);
    let mut transaction = admin.transaction().expect("a transaction");
    transaction.execute("SELECT plimsoll.suspend_database($1)", &[&till.id]).expect("a suspension");
    let waiting = upload_that_waits(&mut shop, agent, &till);
    transaction.commit().expect("a commit");
    refused(waiting.join().expect("the upload"), "28000");
}

#[test]
fn a_database_is_not_forgotten_by_who_looks_at_an_older_state() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut transaction = shop
        .superuser
        .build_transaction()
        .isolation_level(postgres::IsolationLevel::RepeatableRead)
        .start()
        .expect("a transaction");
    let message = refused(transaction.query("SELECT plimsoll.forget_database($1)", &[&till.id]), "55000");
    assert!(message.contains("READ COMMITTED"), "{message}");
}

#[test]
fn a_table_keeps_name_and_owner_as_long_as_a_call_goes_by_them() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let mut transaction = agent.transaction().expect("a transaction");
    transaction
        .query("SELECT * FROM plimsoll.table_schema($1, 'shop.customer')", &[&till.id])
        .expect("its columns");
    shop.superuser.batch_execute("SET lock_timeout = '100ms'").expect("no patience");
    for change in ["RENAME TO client", "OWNER TO CURRENT_USER", "RENAME COLUMN name TO called"] {
        let outcome = shop.superuser.batch_execute(&format!("ALTER TABLE shop.customer {change}"));
        refused(outcome, "55P03");
    }
    transaction.commit().expect("a commit");
    shop.superuser.batch_execute("ALTER TABLE shop.customer RENAME TO client").expect("another name");
}

#[test]
fn a_table_that_changes_while_a_call_waits_for_it_is_seen_as_it_is_then() {
    let hostile = "ALTER TABLE shop.customer RENAME TO client;
                   CREATE TABLE shop.customer (LIKE shop.client INCLUDING ALL);
                   ALTER TABLE shop.customer OWNER TO OTHER";
    for (change, sqlstate, told) in [
        ("ALTER TABLE shop.customer OWNER TO OTHER", "55000", "belongs to"),
        (hostile, "55000", "belongs to"),
        ("ALTER TABLE shop.customer RENAME TO client", "55000", "seems to be called shop.client"),
        ("DROP TABLE shop.customer CASCADE", "55000", "does not exist any more"),
        ("ALTER TABLE shop.customer DROP COLUMN version", "42703", "version"),
    ] {
        let mut shop = Shop::open();
        let till = shop.register("acme", 1);
        let agent = shop.agent(&till);
        let other = shop.server.create_owner();
        let mut ddl = shop.server.superuser(&shop.database);
        let mut transaction = ddl.transaction().expect("a transaction");
        transaction.batch_execute(&change.replace("OTHER", &other)).expect(change);
        let waiting = upload_that_waits(&mut shop, agent, &till);
        transaction.commit().expect("a commit");
        let message = refused(waiting.join().expect("the upload"), sqlstate);
        assert!(message.contains(told), "{change}: {message}");
    }
}

#[test]
fn a_column_that_changes_its_type_while_a_call_waits_is_written_in_its_new_type() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let agent = shop.agent(&till);
    let mut ddl = shop.server.superuser(&shop.database);
    let mut transaction = ddl.transaction().expect("a transaction");
    transaction
        .batch_execute("ALTER TABLE shop.customer ALTER COLUMN name TYPE numeric USING id")
        .expect("another type");
    let waiting = upload_that_waits(&mut shop, agent, &till);
    transaction.commit().expect("a commit");
    assert_eq!(waiting.join().expect("the upload").expect("an upload"), 1);
    assert_eq!(shop.value::<String>("SELECT name::text FROM shop.customer WHERE id = 100"), "12345");
}

#[test]
fn the_number_of_a_table_is_put_right_at_its_next_use_and_misleads_nobody() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    // As after a restore: another table has the number now.
    let stale = "UPDATE plimsoll.table_record SET relation_oid = 'shop.invoice'::regclass WHERE table_name = 'customer'";
    shop.superuser.batch_execute(stale).expect("a number of before");
    upload(&mut agent, &till, 7).expect("an upload");
    let right = "SELECT relation_oid = 'shop.customer'::regclass FROM plimsoll.table_record WHERE table_name = 'customer'";
    assert!(shop.value::<bool>(right));
    for (other, renamed) in [("shop.invoice", false), ("pg_class", false), ("shop.client", true)] {
        let mut transaction = shop.superuser.transaction().expect("a transaction");
        transaction
            .batch_execute(&format!(
                "ALTER TABLE shop.customer RENAME TO client;
                 UPDATE plimsoll.table_record SET relation_oid = '{other}'::regclass WHERE table_name = 'customer'"
            ))
            .expect("another name");
        let message = refused(upload(&mut transaction, &till, 8), "55000");
        assert_eq!(message.contains("seems to be called"), renamed, "{other}: {message}");
    }
    // The triggers of the table that has the number are left alone.
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'shop.invoice'::regclass AND tgname LIKE 'plimsoll%'";
    assert_eq!(shop.value::<i64>(triggers), 4);
    shop.superuser
        .batch_execute(&format!(
            "{stale}; DROP TABLE shop.customer CASCADE; SELECT plimsoll.unmanage_table('shop.customer'::text)"
        ))
        .expect("it is not managed any more");
    assert_eq!(shop.value::<i64>(triggers), 4);
}
