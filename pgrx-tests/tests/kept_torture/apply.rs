//! Rows that arrive by other ways than statements: logical replication, prepared transactions; and tables that a
//! crash empties.

use std::time::{Duration, Instant};

use plimsoll_cluster::StopMode;
use plimsoll_tests::TestCluster;
use postgres::Client;

use crate::judge::{check_everything, compare};
use crate::world::World;

fn wait_for(client: &mut Client, query: &str, expected: i64) {
    let begun = Instant::now();
    while client.query_one(query, &[]).expect(query).get::<_, i64>(0) != expected {
        assert!(begun.elapsed() < Duration::from_secs(30), "{query} is never {expected}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn rows_that_a_subscription_brought_are_never_missed() {
    let cluster = TestCluster::start_with(&[("wal_level", "logical"), ("max_prepared_transactions", "4")]);
    let world = World::open(&cluster, false);
    world.fill(50);
    let source_name = cluster.create_empty_database();
    let (mut source, mut client) = (cluster.superuser(&source_name), world.connect());
    let is = world.tenants[0].is("t");
    let values = world.tenants[0].values();
    source
        .batch_execute(&format!(
            "CREATE SCHEMA yard; CREATE TYPE yard.state AS ENUM ('new', 'afloat', 'sunk');
             CREATE TABLE yard.ship (client_id text, database_id uuid, id int, name text, stamp bigint,
                 PRIMARY KEY (client_id, database_id, id));
             INSERT INTO yard.ship SELECT {values}, i, 'initial', i FROM generate_series(1, 20) i;
             CREATE PUBLICATION ships FOR TABLE yard.ship"
        ))
        .expect("a publication");
    source.batch_execute("SELECT pg_create_logical_replication_slot('ships', 'pgoutput')").expect("a slot");
    let connection = format!(
        "host={} port={} user=postgres dbname={source_name}",
        cluster.socket_dir().display(),
        cluster.port()
    );
    client
        .batch_execute(&format!(
            "CREATE SUBSCRIPTION ships CONNECTION '{connection}' PUBLICATION ships WITH (create_slot = false)"
        ))
        .expect("a subscription");
    let count = format!("SELECT count(*) FROM yard.ship t WHERE {is} AND name IN ('initial', 'applied')");
    wait_for(&mut client, &count, 20);
    wait_for(&mut client, "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'", 0);
    check_everything(&mut client, &world);
    source
        .batch_execute(&format!(
            "INSERT INTO yard.ship SELECT {values}, i, 'applied', i FROM generate_series(21, 30) i;
             UPDATE yard.ship SET stamp = stamp + 1000 WHERE id = 1; DELETE FROM yard.ship WHERE id = 2"
        ))
        .expect("changes");
    wait_for(&mut client, &count, 29);
    check_everything(&mut client, &world);
    client
        .batch_execute("ALTER SUBSCRIPTION ships DISABLE; ALTER SUBSCRIPTION ships SET (slot_name = NONE)")
        .expect("it stops");
    client.batch_execute("DROP SUBSCRIPTION ships").expect("it goes");
    check_everything(&mut client, &world);
    wait_for(&mut source, "SELECT count(*) FROM pg_replication_slots WHERE active", 0);
    source.batch_execute("SELECT pg_drop_replication_slot('ships')").expect("the slot goes");

    client
        .batch_execute(
            "BEGIN; UPDATE yard.ship SET stamp = stamp + 5; DELETE FROM yard.crate WHERE no = 5;
             PREPARE TRANSACTION 'one'",
        )
        .expect("a prepared transaction");
    check_everything(&mut client, &world);
    cluster.stop_server(StopMode::Immediate).expect("the server stops");
    cluster.start_server().expect("the server starts");
    let mut client = world.connect();
    client.batch_execute("COMMIT PREPARED 'one'").expect("a commit");
    check_everything(&mut client, &world);
}

#[test]
fn a_table_that_a_crash_empties_is_empty() {
    let cluster = TestCluster::start();
    let world = World::open(&cluster, false);
    let mut client = world.connect();
    client
        .batch_execute(
            "CREATE UNLOGGED TABLE yard.buoy (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL,
                 stamp bigint NOT NULL, PRIMARY KEY (client_id, database_id, id));
             CREATE TABLE yard.light (LIKE yard.buoy INCLUDING ALL)",
        )
        .expect("tables");
    let tenant = &world.tenants[0];
    let insert = |table: &str| {
        format!("INSERT INTO {table} SELECT {}, i, i FROM generate_series(1, 50) i", tenant.values())
    };
    for table in ["yard.buoy", "yard.light"] {
        client
            .batch_execute(&format!(
                "ALTER TABLE {table} OWNER TO {};
                 SELECT plimsoll.manage_table('{table}', version_column => 'stamp'); {}",
                world.owner,
                insert(table)
            ))
            .expect("a managed table");
    }
    world.rebuild(&mut client, tenant, "yard.light");
    let kept = compare(&mut client, tenant, "yard.light", (1, 10)).expect("an answer");
    assert_eq!(kept, Ok(true), "it is kept while it has a log");
    client.batch_execute("ALTER TABLE yard.light SET UNLOGGED; CHECKPOINT").expect("no log");
    cluster.stop_server(StopMode::Immediate).expect("the server stops");
    cluster.start_server().expect("the server starts");
    let mut client = world.connect();
    for table in ["yard.buoy", "yard.light"] {
        let mut right = |when: &str| {
            let verdict = compare(&mut client, tenant, table, (1, 10)).expect("an answer");
            verdict.unwrap_or_else(|wrong| panic!("{table} {when}: {wrong}"))
        };
        right("after the crash");
        let mut owner = world.connect();
        owner.batch_execute(&format!("ALTER TABLE {table} SET LOGGED")).expect("a log");
        right("with a log again");
        owner.batch_execute(&insert(table)).expect("rows");
        right("with rows again");
        world.rebuild(&mut owner, tenant, table);
        assert!(right("once rebuilt"), "{table} is kept");
    }
}

#[test]
fn changes_that_nobody_can_fold_are_not_kept_for_ever() {
    let world = World::open(plimsoll_tests::shared(), false);
    world.fill(10);
    let (mut client, tenant) = (world.connect(), &world.tenants[0]);
    let pending = "SELECT count(*) FROM plimsoll.kept_delta";
    // Out of use; and never in use: rows were there before anybody asked for the database's replica.
    for state in ["ALTER TABLE yard.ship ADD COLUMN crew int DEFAULT 7", "DELETE FROM plimsoll.kept_head"] {
        client.batch_execute(state).expect("a change of state");
        for stamp in 0..3i64 {
            client
                .execute(
                    "UPDATE yard.ship SET stamp = $1 WHERE database_id = $2",
                    &[&stamp, &tenant.database_id],
                )
                .expect("an update");
        }
        assert!(client.query_one(pending, &[]).expect("a count").get::<_, i64>(0) > 2, "{state}");
        world.fold(&mut client, tenant, "yard.ship");
        assert_eq!(client.query_one(pending, &[]).expect("a count").get::<_, i64>(0), 0, "{state}");
        let kept =
            compare(&mut client, tenant, "yard.ship", (0, 3)).expect("an answer").expect("it is right");
        assert!(!kept, "{state}: answered by a scan until rebuilt");
        world.rebuild(&mut client, tenant, "yard.ship");
        let kept =
            compare(&mut client, tenant, "yard.ship", (0, 3)).expect("an answer").expect("it is right");
        assert!(kept, "{state}: kept once rebuilt");
    }
}
