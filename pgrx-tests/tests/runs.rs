//! Runs: whose turn it is, and what they leave behind.

mod shop;

use std::time::{Duration, Instant};

use plimsoll_tests::Registered;
use serde_json::json;
use shop::{Run, Shop, begin, begin_with, end, record, refused, rejection};
use uuid::Uuid;

#[test]
fn a_second_agent_is_told_who_holds_the_lease_and_until_when() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let run = begin(&mut agent, &till, "first").expect("a run");
    let until: String =
        shop.value("SELECT to_char(lease_until, 'YYYY-MM-DD HH24:MI:SS TZH:TZM') FROM plimsoll.databases");
    let message = refused(begin(&mut agent, &till, "second"), "55006");
    for part in ["\"first\"", "\"till-7\"", until.as_str()] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    record(&mut agent, &run, "shop.customer").expect("the first goes on");
    end(&mut agent, &run, "finished", None).expect("an end");
    begin(&mut agent, &till, "second").expect("the lease is free");
}

#[test]
fn an_expired_lease_goes_on_until_another_agent_takes_it() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let first = begin(&mut agent, &till, "first").expect("a run");
    shop.expire_lease(&till);
    record(&mut agent, &first, "shop.customer").expect("nobody took it");
    refused(begin(&mut agent, &till, "second"), "55006");
    shop.expire_lease(&till);
    let second = begin(&mut agent, &till, "second").expect("it expired");
    for outcome in [record(&mut agent, &first, "shop.customer"), end(&mut agent, &first, "finished", None)] {
        let message = refused(outcome, "55000");
        assert!(message.contains("\"second\""), "{message}");
    }
    record(&mut agent, &second, "shop.customer").expect("the second goes on");
    let outcomes: Vec<String> = shop
        .superuser
        .query(
            "SELECT outcome || CASE WHEN ended_at IS NULL THEN '' ELSE ', ended' END
             FROM plimsoll.runs ORDER BY run_id",
            &[],
        )
        .expect("runs")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(outcomes, ["abandoned, ended", "running"]);
}

#[test]
fn a_lease_lasts_as_long_as_the_option_says_and_each_step_renews_it() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    shop.set_option(&till, "lease_seconds", Some("900"));
    let mut agent = shop.agent(&till);
    let run = begin(&mut agent, &till, "first").expect("a run");
    let seconds =
        "SELECT extract(epoch FROM lease_until - clock_timestamp())::float8 FROM plimsoll.databases";
    let left: f64 = shop.value(seconds);
    assert!((890.0..=900.0).contains(&left), "{left}");
    shop.superuser
        .batch_execute("UPDATE plimsoll.lease_record SET lease_until = clock_timestamp() + interval '5 s'")
        .expect("an update");
    record(&mut agent, &run, "shop.customer").expect("a step");
    let left: f64 = shop.value(seconds);
    assert!((890.0..=900.0).contains(&left), "{left}");
}

#[test]
fn a_run_that_only_reads_keeps_its_lease_until_another_follows() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    shop.set_option(&till, "lease_seconds", Some("900"));
    let (mut first, mut second) = (shop.agent(&till), shop.agent(&till));
    let renew = |agent: &mut postgres::Client, run: &Run| {
        let sql = "SELECT extract(epoch FROM plimsoll.renew_lease($1) - clock_timestamp())::float8";
        agent.query_one(sql, &[&run.id]).map(|row| row.get::<_, f64>(0))
    };
    let run = begin(&mut first, &till, "first").expect("a run");
    // Its own still, as long as nobody took it.
    shop.expire_lease(&till);
    let left = renew(&mut first, &run).expect("its lease");
    assert!((890.0..=900.0).contains(&left), "{left}");
    refused(begin(&mut second, &till, "second"), "55006");
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM plimsoll.run_record"), 0, "it recorded nothing");
    shop.expire_lease(&till);
    let other = begin(&mut second, &till, "second").expect("another run");
    refused(renew(&mut first, &run), "55000");
    end(&mut second, &other, "finished", None).expect("its end");
    refused(renew(&mut second, &other), "55000");
}

#[test]
fn an_agent_that_restarts_takes_its_own_lease_over_at_once() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let crashed = begin(&mut agent, &till, "same").expect("a run");
    let run = begin(&mut agent, &till, "same").expect("its own lease");
    refused(record(&mut agent, &crashed, "shop.customer"), "55000");
    record(&mut agent, &run, "shop.customer").expect("the new run goes on");
}

#[test]
fn no_run_begins_between_a_step_and_its_commit() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let (mut first, mut second) = (shop.agent(&till), shop.agent(&till));
    let run = begin(&mut first, &till, "first").expect("a run");
    shop.expire_lease(&till);
    let mut step = first.transaction().expect("a transaction");
    step.execute("SELECT plimsoll.record_batch($1, 'shop.customer', 'upload', 1, 1, 1)", &[&run.id])
        .expect("a step that renews the lease");
    let other = {
        let till = till.clone();
        std::thread::spawn(move || begin(&mut second, &till, "second"))
    };
    let blocked =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'begin_run'
                   AND datname = current_database()";
    let limit = Instant::now() + Duration::from_secs(20);
    while shop.value::<i64>(blocked) == 0 {
        assert!(Instant::now() < limit && !other.is_finished(), "the other agent did not wait");
        std::thread::sleep(Duration::from_millis(10));
    }
    step.commit().expect("the step is done");
    refused(other.join().expect("a thread"), "55006");
}

#[test]
fn two_agents_that_begin_at_once_get_one_lease() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let agents: Vec<_> = (0..4)
        .map(|number| {
            let (mut agent, till) = (shop.agent(&till), till.clone());
            std::thread::spawn(move || begin(&mut agent, &till, &format!("agent {number}")))
        })
        .collect();
    let outcomes: Vec<_> = agents.into_iter().map(|agent| agent.join().expect("a thread")).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    for outcome in outcomes.into_iter().filter(Result::is_err) {
        refused(outcome, "55006");
    }
}

/// Every row of the extension's tables with its place and its writers: any change or lock shows.
fn rows(shop: &mut Shop) -> Vec<(String, String)> {
    let tables = shop
        .superuser
        .query(
            "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'plimsoll'::regnamespace
             AND relkind = 'r' ORDER BY 1",
            &[],
        )
        .expect("tables");
    let mut rows = Vec::new();
    for table in tables {
        let table: String = table.get(0);
        let found = shop
            .superuser
            .query(&format!("SELECT format('%s %s %s', ctid, xmin, xmax) FROM {table} ORDER BY 1"), &[])
            .expect("rows");
        rows.extend(found.iter().map(|row| (table.clone(), row.get(0))));
    }
    rows
}

#[test]
fn a_run_with_nothing_to_do_changes_one_row() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 3);
    let mut agent = shop.agent(&till);
    let versions = Some(json!({"shop.customer": 3, "shop.invoice": 3}));
    // The same as ever, and a proof that is a minute newer.
    let news = |minute: i64| {
        let proved_at = 1_790_000_000_000_000 + minute * 60_000_000;
        json!([{"relation": "shop.customer", "status": "level", "proved_at": proved_at, "local_rows": 3},
            {"relation": "shop.invoice", "status": "unknown", "error": "no privilege"}])
    };
    for minute in 0..2 {
        let run = begin_with(&mut agent, &till, "agent", versions.clone()).expect("a run");
        end(&mut agent, &run, "finished", Some(news(minute))).expect("an end");
    }
    let before = rows(&mut shop);
    assert!(before.iter().any(|(table, _)| table == "plimsoll.replica_record"), "something is remembered");
    let run = begin_with(&mut agent, &till, "agent", versions).expect("a run");
    end(&mut agent, &run, "finished", Some(news(2))).expect("an end");
    let after = rows(&mut shop);
    let changed: Vec<&str> =
        after.iter().filter(|row| !before.contains(row)).map(|(table, _)| table.as_str()).collect();
    assert_eq!(changed, ["plimsoll.lease_record"]);
    assert_eq!(before.len(), after.len());
    assert_eq!(shop.value::<i64>("SELECT idle_runs FROM plimsoll.databases"), 3);
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM plimsoll.runs"), 0);
}

#[test]
fn a_run_that_did_something_leaves_a_record() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let run = begin(&mut agent, &till, "agent").expect("a run");
    record(&mut agent, &run, "shop.customer").expect("a batch");
    agent
        .execute(
            "SELECT plimsoll.reject_rows($1, 'shop.customer', $2)",
            &[&run.id, &json!([rejection(1, false), rejection(2, false)])],
        )
        .expect("rejected rows");
    end(&mut agent, &run, "finished", None).expect("an end");
    let row = shop
        .superuser
        .query_one(
            "SELECT run_id, outcome, agent_id, host, rejected, ended_at >= started_at FROM plimsoll.runs",
            &[],
        )
        .expect("one run");
    assert_eq!(row.get::<_, i64>(0), run.id);
    assert_eq!(row.get::<_, &str>(1), "finished");
    assert_eq!(row.get::<_, &str>(2), "agent");
    assert_eq!(row.get::<_, &str>(3), "till-7");
    assert_eq!(row.get::<_, i64>(4), 2);
    assert!(row.get::<_, bool>(5));
    assert_eq!(shop.value::<i64>("SELECT idle_runs FROM plimsoll.databases"), 0);
    let message = refused(end(&mut agent, &run, "finished", None), "55000");
    assert!(message.contains("has ended"), "{message}");
}

#[test]
fn a_run_that_failed_before_it_wrote_is_recorded_with_its_reason() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let run = begin(&mut agent, &till, "agent").expect("a run");
    agent
        .execute("SELECT plimsoll.end_run($1, 'failed', NULL, $2)", &[&run.id, &"x".repeat(1_000_000)])
        .expect("an end");
    let error: String = shop.value("SELECT error FROM plimsoll.runs WHERE outcome = 'failed'");
    assert!(error.starts_with("xxx") && error.chars().count() <= 2001, "{} characters", error.len());
}

#[test]
fn an_unknown_run_and_a_foreign_one_read_the_same() {
    let mut shop = Shop::open();
    let (own, foreign) = (shop.register("acme", 1), shop.register("zeta", 1));
    let (mut agent, mut stranger) = (shop.agent(&own), shop.agent(&foreign));
    let run = begin(&mut stranger, &foreign, "stranger").expect("a run");
    record(&mut stranger, &run, "shop.customer").expect("it is recorded");
    let mut messages = Vec::new();
    for id in [run.id, 987_654] {
        let tried = Run { id, tables: json!([]) };
        for outcome in [
            record(&mut agent, &tried, "shop.customer"),
            end(&mut agent, &tried, "finished", None),
            agent.execute("SELECT plimsoll.reject_rows($1, 'shop.customer', '[]')", &[&id]).map(drop),
            agent.execute("SELECT plimsoll.clear_rejected($1, 'shop.customer', '{}')", &[&id]).map(drop),
        ] {
            messages.push(refused(outcome, "55000").replace(&id.to_string(), "N"));
        }
    }
    messages.sort();
    messages.dedup();
    assert_eq!(messages.len(), 1, "{messages:?}");
    record(&mut stranger, &run, "shop.customer").expect("it was left alone");
}

#[test]
fn another_protocol_is_refused_with_what_to_update() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    for (protocol, hint) in [(2, "Update the extension"), (0, "Update the agent")] {
        let outcome =
            agent.query("SELECT * FROM plimsoll.begin_run($1, 'agent', '1.0', $2)", &[&till.id, &protocol]);
        let message = refused(outcome, "0A000");
        assert!(message.contains(hint), "{message}");
    }
    for (id, host) in [("", "host"), ("agent\n", "host"), ("agent", "host\u{7}")] {
        let outcome =
            agent.query("SELECT * FROM plimsoll.begin_run($1, $2, '1.0', 1, $3)", &[&till.id, &id, &host]);
        refused(outcome, "22023");
    }
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM plimsoll.lease_record"), 0);
}

#[test]
fn writes_without_a_run_wait_for_the_end_of_the_run_under_way() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 3);
    shop.set_option(&till, "guard_fraction", Some("1"));
    let mut agent = shop.agent(&till);
    let delete = "SELECT deleted FROM plimsoll.delete_all($1, 'shop.invoice', $2)";
    let run = begin(&mut agent, &till, "agent").expect("a run");
    let message = refused(agent.query_one(delete, &[&till.id, &None::<i64>]), "55006");
    assert!(message.contains("\"agent\""), "{message}");
    end(&mut agent, &run, "finished", None).expect("an end");
    refused(agent.query_one(delete, &[&till.id, &Some(run.id)]), "55000");
    let deleted: i64 = agent.query_one(delete, &[&till.id, &None::<i64>]).expect("rows").get(0);
    assert_eq!(deleted, 3);
    let run = begin(&mut agent, &till, "agent").expect("a run");
    shop.superuser.query_one(delete, &[&till.id, &None::<i64>]).expect("an admin may at any time");
    end(&mut agent, &run, "finished", None).expect("an end");
}

#[test]
fn a_run_of_an_unknown_database_is_refused() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let unknown = Registered { id: Uuid::new_v4(), token: String::new() };
    refused(begin(&mut agent, &unknown, "agent"), "42501");
}
