//! What tells that the database changed, and that rows may yet appear below others.

use plimsoll_client::server::address::Address;
use plimsoll_core::store::PositionRange;
use plimsoll_tests::{TestCluster, shared};

use crate::local::{Local, read_all, source_at};
use crate::way::Way;

#[test]
fn the_token_changes_with_every_commit_and_with_nothing_else() {
    // A server of its own: the token is one for all databases of a server.
    let cluster = TestCluster::start_bare(&[("autovacuum", "off")]);
    let mut writer = cluster.superuser("postgres");
    writer
        .batch_execute("CREATE TABLE t (id int8 PRIMARY KEY, v int8 NOT NULL); CREATE SEQUENCE s")
        .expect("a table");
    let login = cluster.create_login(&["pg_read_all_data"]);
    let address = Address::parse(&cluster.client_url(&login, "postgres")).expect("an address");
    let mut source = source_at(address, "t", &["id int8*", "v int8!"], Some("v")).expect("a source");
    let mut token = || source.change_token().expect("a token").expect("one on a primary");
    let mut last = token();
    assert_eq!(token(), last, "nothing happened");
    let mut held = cluster.superuser("postgres");
    held.batch_execute("BEGIN; INSERT INTO t VALUES (1, 1)").expect("a transaction begins");
    // A transaction that began is told too, which costs a look and no more.
    last = token();
    assert_eq!(token(), last);
    let mut changed = |what: &str, now: Vec<u8>| {
        assert_ne!(now, last, "{what}");
        last = now;
    };
    for statement in [
        "INSERT INTO t VALUES (2, 2)",
        "UPDATE t SET v = 3 WHERE id = 2",
        "BEGIN; SAVEPOINT a; INSERT INTO t VALUES (3, 3); ROLLBACK TO a; INSERT INTO t VALUES (4, 4); COMMIT",
        "DELETE FROM t WHERE id = 4",
    ] {
        writer.batch_execute(statement).expect("a change");
        changed(statement, token());
    }
    held.batch_execute("COMMIT").expect("the first transaction ends");
    changed("a transaction that began before the others", token());
    let now = token();
    writer.batch_execute("SELECT count(*) FROM t; SELECT 1").expect("reads");
    assert_eq!(token(), now, "reading changes nothing");
}

const LATE: &str =
    "CREATE TABLE late (id int8 PRIMARY KEY, version xid8 NOT NULL DEFAULT pg_current_xact_id(), name text);
    CREATE INDEX ON late (version, id);
    INSERT INTO late SELECT i, pg_current_xact_id(), 'early' FROM generate_series(1, 1000) i";

#[test]
fn a_transaction_held_open_across_runs_is_found_by_the_next() {
    let mut way = Way::new(LATE, &["late"], "[sync]\ntail_rows = 1\nsweep_interval = '1000h'\n");
    way.create_tables();
    way.agent.sync().expect_code(0);
    let mut held = shared().superuser(&way.local.database);
    held.batch_execute("BEGIN; INSERT INTO late VALUES (-1, DEFAULT, 'late')").expect("a transaction begins");
    let mut client = shared().superuser(&way.local.database);
    for run in 1..=3 {
        for id in 0..200_i64 {
            let id = 1_000 + 200 * run + id;
            client.execute("INSERT INTO late VALUES ($1, DEFAULT, 'meanwhile')", &[&id]).expect("a row");
        }
        way.agent.sync().expect_code(0);
        assert_eq!(way.site.content("public.late").len() as i64, 1_000 + 200 * run);
    }
    held.batch_execute("COMMIT").expect("it ends");
    // Its version lies below 600 others that were sent before.
    way.agent.sync().expect_code(0);
    way.assert_equal("late", "public.late", "id, version::text, name");
    way.verify();
}

#[test]
fn what_is_settled_is_what_no_transaction_can_change_any_more() {
    let mut local = Local::new(LATE);
    let mut source = local.source("late", &["id int8*", "version xid8!", "name text"], Some("version"));
    let first = source.settled(0).expect("a bound").expect("one for xid8");
    assert_eq!(read_all(&mut *source, 300).len(), 1000);
    let mut held = shared().superuser(&local.database);
    held.batch_execute("BEGIN; INSERT INTO late VALUES (-1, DEFAULT, 'late')").expect("a transaction begins");
    for id in 2000..2010 {
        local.writer.execute("INSERT INTO late VALUES ($1, DEFAULT, '')", &[&(id as i64)]).expect("a row");
    }
    let bound = source.settled(0).expect("a bound").expect("one for xid8");
    let highest = source.max_position(0).expect("a position").expect("rows");
    assert!(first <= bound && bound < highest, "{first} {bound} {highest}");
    held.batch_execute("COMMIT").expect("it ends");
    let late = "SELECT version::text::int8 FROM late WHERE id = -1";
    let late: i64 = held.query_one(late, &[]).expect("the late row").get(0);
    assert!(bound <= late && late < highest, "the late row stands at the bound or above: {bound} {late}");
    // Transactions in other databases of the server hold the bound back, too.
    let beyond = source.window(0, PositionRange::starting_at(bound), 10_000).expect("a window");
    assert!(beyond.items.iter().any(|item| item.position == late) && beyond.items.len() >= 11);
}
