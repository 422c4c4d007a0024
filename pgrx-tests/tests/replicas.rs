//! What runs find and report of each replica: versions, news, holds.

mod shop;

use plimsoll_tests::Registered;
use serde_json::json;
use shop::{Shop, begin, begin_with, end, record, refused, rejection};

#[test]
fn begin_run_answers_what_the_server_has_of_every_table() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 7);
    shop.register("zeta", 100);
    let mut agent = shop.agent(&till);
    let run = begin(&mut agent, &till, "agent").expect("a run");
    agent
        .execute(
            "SELECT plimsoll.reject_rows($1, 'shop.customer', $2)",
            &[&run.id, &json!([rejection(1, false), rejection(2, true)])],
        )
        .expect("rejected rows");
    let run = begin(&mut agent, &till, "agent").expect("a run");
    let customer = json!({"relation": "shop.customer", "row_count": 7, "max_version": 7, "max_modified": null,
        "fingerprint": null, "manifest": "untrusted", "rejected": 2, "hold": null, "rank": 0,
        "directions": ["push", "pull", "snapshot", "two-way"], "refused": null});
    assert_eq!(*run.table("shop.customer"), customer);
    assert_eq!(run.table("shop.invoice")["row_count"], 7);
    assert!(run.table("shop.invoice")["rank"].as_i64() > Some(0), "children stand below their parents");
    let seen: i64 = shop.value(
        "SELECT row_count FROM plimsoll.replicas WHERE client_id = 'acme' AND relation = 'shop.customer'",
    );
    assert_eq!(seen, 7);
}

#[test]
fn the_news_of_a_run_show_in_the_replicas() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let run = begin(&mut agent, &till, "agent").expect("a run");
    shop.superuser
        .execute("INSERT INTO shop.customer VALUES ('acme', $1, 2, 'new', 2)", &[&till.id])
        .expect("a row");
    let news = json!([
        {"relation": "shop.customer", "status": "level", "proved_at": 1_790_000_000_000_000i64,
         "local_rows": 2, "inserted": 1},
        {"relation": "shop.invoice", "status": "different", "local_rows": 5, "error": "no privilege"},
        {"relation": "shop.gone", "status": "level"},
    ]);
    end(&mut agent, &run, "finished", Some(news)).expect("an end");
    let customer = shop
        .superuser
        .query_one(
            "SELECT row_count, local_rows, status, extract(epoch FROM proved_at)::bigint,
                    lag < interval '1 minute', error
             FROM plimsoll.replicas WHERE relation = 'shop.customer'",
            &[],
        )
        .expect("a replica");
    assert_eq!((customer.get::<_, i64>(0), customer.get::<_, i64>(1)), (2, 2));
    assert_eq!(customer.get::<_, &str>(2), "level");
    assert_eq!(customer.get::<_, i64>(3), 1_790_000_000);
    assert!(customer.get::<_, bool>(4));
    assert_eq!(customer.get::<_, Option<&str>>(5), None);
    let invoice = shop
        .superuser
        .query_one(
            "SELECT status, local_rows, lag::text, error FROM plimsoll.replicas
             WHERE relation = 'shop.invoice'",
            &[],
        )
        .expect("a replica");
    assert_eq!((invoice.get::<_, &str>(0), invoice.get::<_, i64>(1)), ("different", 5));
    assert_eq!(invoice.get::<_, Option<&str>>(2), None);
    assert_eq!(invoice.get::<_, &str>(3), "no privilege");
}

#[test]
fn news_that_make_no_sense_are_refused_and_the_run_goes_on() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let run = begin(&mut agent, &till, "agent").expect("a run");
    let table = |member: &str, value: serde_json::Value| {
        let mut table = json!({"relation": "shop.customer", "status": "level"});
        table[member] = value;
        json!([table])
    };
    for (news, part) in [
        (table("status", json!("fine")), "tables[0].status"),
        (table("status", json!(null)), "tables[0].status"),
        (table("relation", json!(7)), "tables[0].relation"),
        (table("inserted", json!(-1)), "tables[0].inserted"),
        (table("local_rows", json!("many")), "tables[0].local_rows"),
        (table("proved_at", json!(i64::MIN)), "tables[0].proved_at"),
        (json!({}), "tables must be"),
    ] {
        let message = refused(end(&mut agent, &run, "finished", Some(news)), "22023");
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    refused(end(&mut agent, &run, "done", None), "22023");
    record(&mut agent, &run, "shop.customer").expect("the run goes on");
}

#[test]
fn a_proof_shows_once_it_is_a_quarter_of_an_hour_newer() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let mut shown = Vec::new();
    for second in [0, 899, 900, 901] {
        let run = begin(&mut agent, &till, "agent").expect("a run");
        let proved_at = (1_790_000_000 + second) * 1_000_000i64;
        let news = json!([{"relation": "shop.customer", "status": "level", "proved_at": proved_at}]);
        end(&mut agent, &run, "finished", Some(news)).expect("an end");
        let query = "SELECT extract(epoch FROM max(proved_at))::bigint - 1790000000 FROM plimsoll.replicas";
        shown.push(shop.value::<i64>(query));
    }
    assert_eq!(shown, [0, 0, 900, 900]);
}

#[test]
fn a_proof_never_lies_in_the_future() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let run = begin(&mut agent, &till, "agent").expect("a run");
    let news =
        json!([{"relation": "shop.customer", "status": "level", "proved_at": 9_000_000_000_000_000i64}]);
    end(&mut agent, &run, "finished", Some(news)).expect("an end");
    assert!(shop.value::<bool>("SELECT bool_and(proved_at <= clock_timestamp()) FROM plimsoll.replicas"));
}

#[test]
fn a_run_that_finds_a_replica_level_keeps_it_from_lagging() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let run = begin(&mut agent, &till, "agent").expect("a run");
    let news = json!([{"relation": "shop.customer", "status": "counts_agree"},
        {"relation": "shop.invoice", "status": "different"}]);
    end(&mut agent, &run, "finished", Some(news)).expect("an end");
    shop.superuser
        .batch_execute(
            "UPDATE plimsoll.replica_record SET level_at = now() - interval '3 hours';
             UPDATE plimsoll.lease_record SET confirmed_at = NULL",
        )
        .expect("time passes");
    let lags =
        "SELECT string_agg(date_trunc('hour', lag)::text, ' ' ORDER BY relation) FROM plimsoll.replicas";
    let mut lags_after = |outcome: &str, news: Option<serde_json::Value>| -> String {
        let run = begin(&mut agent, &till, "agent").expect("a run");
        end(&mut agent, &run, outcome, news).expect("an end");
        shop.value(lags)
    };
    let customer = json!({"relation": "shop.customer", "status": "counts_agree"});
    let invoice = json!({"relation": "shop.invoice", "status": "different"});
    assert_eq!(lags_after("failed", None), "03:00:00 03:00:00");
    assert_eq!(lags_after("finished", None), "03:00:00 03:00:00", "a dry run says nothing");
    assert_eq!(lags_after("finished", Some(json!([invoice]))), "03:00:00 03:00:00", "a run of one table");
    assert_eq!(lags_after("finished", Some(json!([customer, invoice]))), "00:00:00 03:00:00");
}

/// Reports local maxima and answers whether each table is on hold.
fn holds(shop: &mut Shop, till: &Registered, customer: Option<i64>, invoice: Option<i64>) -> [bool; 2] {
    let mut agent = shop.agent(till);
    let versions = json!({"shop.customer": customer, "shop.invoice": invoice});
    let run = begin_with(&mut agent, till, "agent", Some(versions)).expect("a run");
    ["shop.customer", "shop.invoice"].map(|relation| !run.table(relation)["hold"].is_null())
}

#[test]
fn several_tables_that_fell_together_go_on_hold() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 100);
    assert_eq!(holds(&mut shop, &till, Some(100), Some(100)), [false, false]);
    assert_eq!(holds(&mut shop, &till, Some(40), None), [true, true]);
    let row = shop
        .superuser
        .query_one(
            "SELECT status, hold_planned, hold_reason FROM plimsoll.replicas WHERE relation = 'shop.customer'",
            &[],
        )
        .expect("a replica");
    assert_eq!((row.get::<_, &str>(0), row.get::<_, i64>(1)), ("different", 60));
    let reason: &str = row.get(2);
    assert!(reason.contains("from 100 to 40"), "{reason}");
    assert_eq!(holds(&mut shop, &till, Some(100), Some(100)), [true, true], "a hold waits for a person");
}

#[test]
fn one_table_alone_or_a_few_rows_may_fall_without_a_hold() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 100);
    assert_eq!(holds(&mut shop, &till, Some(100), Some(100)), [false, false]);
    assert_eq!(holds(&mut shop, &till, Some(1), Some(100)), [false, false], "one table alone");
    assert_eq!(holds(&mut shop, &till, Some(100), Some(100)), [false, false]);
    assert_eq!(holds(&mut shop, &till, Some(90), Some(90)), [false, false], "20 rows");
    assert_eq!(holds(&mut shop, &till, Some(100), Some(100)), [false, false]);
    shop.set_option(&till, "fall_free_rows", Some("19"));
    assert_eq!(holds(&mut shop, &till, Some(90), Some(90)), [true, true], "20 rows where 19 are free");
}

#[test]
fn a_hold_is_released_once_by_who_may() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 100);
    holds(&mut shop, &till, Some(100), Some(100));
    holds(&mut shop, &till, Some(40), Some(40));
    let release = "SELECT plimsoll.release_hold($1, 'shop.customer')";
    let mut agent = shop.agent(&till);
    refused(agent.query_one(release, &[&till.id]), "42501");
    let planned: i64 = shop.superuser.query_one(release, &[&till.id]).expect("a release").get(0);
    assert_eq!(planned, 60);
    refused(shop.superuser.query_one(release, &[&till.id]), "55000");
    assert_eq!(
        holds(&mut shop, &till, Some(40), Some(40)),
        [false, true],
        "what was released is not held again"
    );
    shop.set_option(&till, "allow_agent_release", Some("true"));
    let planned: i64 = agent
        .query_one("SELECT plimsoll.release_hold($1, 'shop.invoice')", &[&till.id])
        .expect("the admin permits it")
        .get(0);
    assert_eq!(planned, 60);
}

#[test]
fn local_versions_that_make_no_sense_are_refused() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    for versions in [json!([]), json!({"shop.customer": "7"}), json!({"shop.customer": 1.5})] {
        let message = refused(begin_with(&mut agent, &till, "agent", Some(versions)), "22023");
        assert!(message.contains("local_versions"), "{message}");
    }
    let numbers = format!("{{\"shop.customer\": 1{}}}", "0".repeat(400));
    let outcome = agent.query(
        "SELECT * FROM plimsoll.begin_run($1, 'agent', '1.0', 1, NULL, $2::text::jsonb)",
        &[&till.id, &numbers],
    );
    refused(outcome, "22023");
}
