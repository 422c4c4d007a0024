//! What runs record: rows that could not be stored, and batches; and how long it is kept.

mod shop;

use serde_json::json;
use shop::{Shop, begin, end, record, refused, rejection};

#[test]
fn rejected_rows_are_remembered_until_they_are_cleared() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let run = begin(&mut agent, &till, "agent").expect("a run");
    let reject = "SELECT plimsoll.reject_rows($1, 'shop.customer', $2)";
    let mut people = rejection(3, false);
    people["key"] = json!("kept as text");
    let rows = json!([rejection(1, false), rejection(2, true), people]);
    for _ in 0..2 {
        assert_eq!(agent.query_one(reject, &[&run.id, &rows]).expect("rows").get::<_, i64>(0), 3);
    }
    let shown = shop
        .superuser
        .query(
            "SELECT relation, key, waits, attempts, column_name, message, sqlstate
             FROM plimsoll.rejected_rows ORDER BY position",
            &[],
        )
        .expect("rows");
    assert_eq!(shown.len(), 3);
    assert_eq!(shown[0].get::<_, &str>(0), "shop.customer");
    assert_eq!(shown[0].get::<_, serde_json::Value>(1), json!({"id": 1}));
    assert_eq!(shown[2].get::<_, serde_json::Value>(1), json!("kept as text"));
    assert!(shown[1].get::<_, bool>(2));
    assert!(shown.iter().all(|row| row.get::<_, i32>(3) == 2), "each was tried twice");
    assert_eq!(shop.value::<i64>("SELECT rejected FROM plimsoll.runs"), 3, "each counts once");
    let counts = shop
        .superuser
        .query_one(
            "SELECT rejected_rows, waiting_rows FROM plimsoll.replicas WHERE relation = 'shop.customer'",
            &[],
        )
        .expect("a replica");
    assert_eq!((counts.get::<_, i64>(0), counts.get::<_, i64>(1)), (2, 1));
    let known =
        agent.query("SELECT * FROM plimsoll.rejected_keys($1, 'shop.customer')", &[&till.id]).expect("keys");
    assert_eq!(known.len(), 3);
    assert_eq!(known[0].get::<_, Vec<u8>>("key_id"), [1; 16]);
    assert_eq!(known[0].get::<_, Vec<u8>>("source_key"), [0, 1]);
    assert_eq!(known[0].get::<_, Option<i64>>("position"), Some(1));
    let cleared: i64 = agent
        .query_one(
            "SELECT plimsoll.clear_rejected($1, 'shop.customer', $2)",
            &[&run.id, &vec![vec![1u8; 16], vec![9; 16]]],
        )
        .expect("a row")
        .get(0);
    assert_eq!(cleared, 1);
    let cleared: i64 = agent
        .query_one("SELECT plimsoll.clear_rejected($1, 'shop.customer')", &[&till.id])
        .expect("rows")
        .get(0);
    assert_eq!(cleared, 2);
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM plimsoll.rejected_rows"), 0);
}

#[test]
fn a_malformed_rejection_is_refused_and_none_of_its_call_is_kept() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let run = begin(&mut agent, &till, "agent").expect("a run");
    let reject = "SELECT plimsoll.reject_rows($1, 'shop.customer', $2)";
    for (member, value) in [
        ("key_id", json!("ab".repeat(15))),
        ("key_id", json!("zz".repeat(16))),
        ("key_id", json!("é".repeat(16))),
        ("source_key", json!("")),
        ("source_key", json!("00".repeat(70_000))),
        ("source_digest", json!("abc")),
        ("position", json!(1.5)),
        ("waits", json!("no")),
        ("key", json!([1])),
        ("key", json!("x".repeat(70_000))),
        ("sqlstate", json!("2351")),
        ("message", json!(null)),
    ] {
        let mut wrong = rejection(2, false);
        wrong[member] = value;
        let message =
            refused(agent.query_one(reject, &[&run.id, &json!([rejection(1, false), wrong])]), "22023");
        assert!(message.contains(&format!("rejections[1].{member}")), "{message}");
    }
    let many: Vec<_> = (0..10_001).map(|_| rejection(1, false)).collect();
    refused(agent.query_one(reject, &[&run.id, &json!(many)]), "54000");
    refused(agent.query_one(reject, &[&run.id, &json!({})]), "22023");
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM plimsoll.rejected_rows"), 0);
    let mut long = rejection(1, false);
    long["message"] = json!("é".repeat(5_000));
    agent.query_one(reject, &[&run.id, &json!([long])]).expect("a long message is cut, not refused");
    assert_eq!(shop.value::<i32>("SELECT length(message) FROM plimsoll.rejected_rows"), 2001);
}

#[test]
fn the_history_of_batches_comes_newest_first() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let run = begin(&mut agent, &till, "agent").expect("a run");
    for (kind, rows) in [("upload", 10i64), ("compare", 20), ("delete", 30)] {
        agent
            .execute(
                "SELECT plimsoll.record_batch($1, 'shop.customer', $2, $3, 100, 2000)",
                &[&run.id, &kind, &rows],
            )
            .expect("a batch");
    }
    record(&mut agent, &run, "shop.invoice").expect("a batch of another table");
    let history = agent
        .query(
            "SELECT kind, row_count, byte_count, duration_micros
             FROM plimsoll.batch_history($1, 'shop.customer', 2)",
            &[&till.id],
        )
        .expect("history");
    let history: Vec<(&str, i64)> = history.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(history, [("delete", 30), ("compare", 20)]);
    for (kind, count) in [("burn", 1i64), ("upload", -1)] {
        let outcome = agent.execute(
            "SELECT plimsoll.record_batch($1, 'shop.customer', $2, $3, 1, 1)",
            &[&run.id, &kind, &count],
        );
        refused(outcome, "22023");
    }
    let outcome =
        agent.execute("SELECT plimsoll.record_batch($1, 'shop.customer', 'upload', NULL, 1, 1)", &[&run.id]);
    refused(outcome, "22004");
    refused(record(&mut agent, &run, "shop.nowhere"), "42P01");
    refused(
        agent.query("SELECT * FROM plimsoll.batch_history($1, 'shop.customer', -1)", &[&till.id]),
        "22023",
    );
}

#[test]
fn old_history_is_purged_when_a_run_ends() {
    let mut shop = Shop::open();
    let (till, other) = (shop.register("acme", 1), shop.register("zeta", 1));
    shop.set_option(&till, "history_days", Some("2"));
    let mut agents = [shop.agent(&till), shop.agent(&other)];
    for (agent, till) in agents.iter_mut().zip([&till, &other]) {
        let run = begin(agent, till, "agent").expect("a run");
        record(agent, &run, "shop.customer").expect("a batch");
        end(agent, &run, "finished", None).expect("an end");
    }
    shop.superuser
        .batch_execute(
            "UPDATE plimsoll.batch_record SET finished_at = now() - interval '3 days';
             UPDATE plimsoll.run_record SET started_at = now() - interval '3 days';
             UPDATE plimsoll.lease_record SET last_ended_at = now() - interval '2 hours'",
        )
        .expect("time passes");
    let run = begin(&mut agents[0], &till, "agent").expect("a run");
    record(&mut agents[0], &run, "shop.customer").expect("a batch");
    end(&mut agents[0], &run, "finished", None).expect("an end");
    for view in ["runs", "batches"] {
        let kept: String = shop.value(&format!(
            "SELECT string_agg(format('%s:%s', client_id, run_id), ' ' ORDER BY client_id) FROM plimsoll.{view}"
        ));
        assert!(kept.starts_with(&format!("acme:{} zeta:", run.id)), "{view}: {kept}");
    }
}
