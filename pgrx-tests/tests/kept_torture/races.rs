//! Moments of which random sessions would hardly find the worst: two transactions, each waiting for the other to
//! have done its part.

use std::time::Duration;

use plimsoll_tests::shared;
use postgres::Client;
use uuid::Uuid;

use crate::judge::{check_all_kept, check_everything, compare};
use crate::world::{Tenant, World};

/// Long enough for a call to reach the point where it waits for another transaction.
const MOMENT: Duration = Duration::from_millis(150);

/// Changes of a transaction that is under way while something else happens.
const CHANGES: [&str; 4] = [
    "INSERT INTO yard.ship (client_id, database_id, id, stamp)
     SELECT client_id, database_id, -id, stamp FROM yard.ship WHERE id % 2 = 0 AND id > 0 ON CONFLICT DO NOTHING",
    "UPDATE yard.ship SET stamp = stamp / 2, name = 'changed' WHERE id % 2 = 1",
    "DELETE FROM yard.ship WHERE id % 5 = 0",
    "UPDATE yard.crate SET no = CASE WHEN no < 10 THEN no + 11 ELSE no + 30 END",
];

/// Begins a transaction, makes the changes, has `meanwhile` done by another session at the same time, and ends
/// the transaction.
fn while_under_way(
    world: &World<'_>,
    begin: &str,
    changes: &str,
    end: &str,
    meanwhile: impl FnOnce(&mut Client) + Send,
) {
    let (mut writer, mut other) = (world.connect(), world.connect());
    writer.batch_execute(begin).expect("a transaction");
    writer.batch_execute(changes).expect("changes");
    std::thread::scope(|scope| {
        let other = scope.spawn(move || meanwhile(&mut other));
        std::thread::sleep(MOMENT);
        writer.batch_execute(end).expect("the end");
        other.join().expect("the other is through");
    });
}

fn rebuild_all(world: &World<'_>, client: &mut Client) {
    for (tenant, relation) in world.replicas() {
        world.rebuild(client, tenant, relation);
    }
}

#[test]
fn rows_that_others_have_not_committed_are_counted_once_by_a_rebuild() {
    let world = World::open(shared(), false);
    let mut client = world.connect();
    world.fill(60);
    // What is kept is in use, out of use, or never was in use, when the transaction writes.
    for before in [
        "SELECT 1",
        "ALTER TABLE yard.ship ALTER name SET STATISTICS 50; ALTER TABLE yard.crate ALTER label SET STATISTICS 50",
        "DELETE FROM plimsoll.kept_head",
    ] {
        for changes in CHANGES {
            for end in ["COMMIT", "ROLLBACK"] {
                client.batch_execute(before).expect("a change of state");
                while_under_way(&world, "BEGIN", changes, end, |client| rebuild_all(&world, client));
                check_all_kept(&mut client, &world);
            }
        }
    }
}

#[test]
fn rows_that_others_have_not_committed_are_counted_once_by_a_fold() {
    let world = World::open(shared(), false);
    let mut client = world.connect();
    world.fill(2_000);
    for changes in CHANGES {
        for end in ["COMMIT", "ROLLBACK"] {
            while_under_way(&world, "BEGIN", changes, end, |client| {
                for (tenant, relation) in world.replicas() {
                    world.fold(client, tenant, relation);
                }
            });
            check_all_kept(&mut client, &world);
        }
    }
}

#[test]
fn a_transaction_with_an_old_snapshot_may_meet_blocks_that_were_split_since() {
    let world = World::open(shared(), false);
    let mut client = world.connect();
    world.fill(1_500);
    for changes in CHANGES {
        let mut old = world.connect();
        old.batch_execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM yard.ship, plimsoll.kept_block LIMIT 1",
        )
        .expect("a snapshot");
        for tenant in &world.tenants {
            let insert = format!(
                "INSERT INTO yard.ship (client_id, database_id, id, stamp)
                 SELECT {}, i, i % 3000 FROM generate_series(100000, 106000) i ON CONFLICT DO NOTHING",
                tenant.values()
            );
            client.batch_execute(&insert).expect("rows");
            world.fold(&mut client, tenant, "yard.ship");
        }
        old.batch_execute(changes).expect("changes of rows that nobody else changed");
        let verdict = compare(&mut old, &world.tenants[0], "yard.ship", (0, 700)).expect("an answer");
        verdict.unwrap_or_else(|wrong| panic!("in the old snapshot: {wrong}"));
        old.batch_execute("COMMIT").expect("a commit");
        check_all_kept(&mut client, &world);
        for tenant in &world.tenants {
            let delete = format!("DELETE FROM yard.ship t WHERE {} AND id >= 100000", tenant.is("t"));
            client.batch_execute(&delete).expect("rows go");
            world.fold(&mut client, tenant, "yard.ship");
        }
        check_all_kept(&mut client, &world);
    }
}

#[test]
fn a_truncate_takes_rows_along_that_its_snapshot_does_not_see() {
    let world = World::open(shared(), false);
    let mut client = world.connect();
    world.fill(60);
    for truncate in ["TRUNCATE yard.crate_middle", "TRUNCATE yard.crate_high", "TRUNCATE yard.ship CASCADE"] {
        for end in ["COMMIT", "ROLLBACK"] {
            let mut old = world.connect();
            old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").expect("a snapshot");
            client
                .batch_execute(
                    "INSERT INTO yard.crate SELECT client_id, database_id, id, no, 'newer', 0, 7, NULL
                     FROM yard.ship, unnest(ARRAY[8, 18, 28]) no WHERE id % 4 = 0 ON CONFLICT DO NOTHING;
                     UPDATE yard.crate SET stamp = stamp + 1 WHERE ship_id % 3 = 0",
                )
                .expect("rows");
            old.batch_execute(truncate).expect("a truncate");
            old.batch_execute(end).expect("the end");
            check_everything(&mut client, &world);
        }
    }
}

#[test]
fn rows_that_are_older_than_their_database_are_seen() {
    let world = World::open(shared(), false);
    let mut client = world.connect();
    let insert = |tenant: &Tenant, ids: &str| {
        format!(
            "INSERT INTO yard.ship (client_id, database_id, id, stamp) SELECT {}, i, i FROM generate_series({ids}) i",
            tenant.values()
        )
    };
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        for committed in [true, false] {
            let tenant = Tenant { client_id: "zeta".to_owned(), database_id: Uuid::new_v4() };
            if committed {
                client.batch_execute(&insert(&tenant, "1, 20")).expect("rows");
            }
            // Rows of a transaction that began before anybody knew the database, and ends after.
            while_under_way(&world, begin, &insert(&tenant, "21, 50"), "COMMIT", |client| {
                client
                    .execute(
                        "SELECT plimsoll.adopt_database($1, 'zeta', $2, $3)",
                        &[&tenant.database_id, &tenant.database_id.to_string(), &[7u8; 32].as_slice()],
                    )
                    .expect("a database");
                for relation in ["yard.ship", "yard.crate"] {
                    world.fold(client, &tenant, relation);
                }
                let upload =
                    "SELECT plimsoll.upload($1, 'yard.ship', '[{\"id\": 60, \"stamp\": 60}]'::jsonb)";
                client.execute(upload, &[&tenant.database_id]).expect("an upload");
            });
            for rebuilt in [false, true] {
                if rebuilt {
                    world.rebuild(&mut client, &tenant, "yard.ship");
                }
                let verdict = compare(&mut client, &tenant, "yard.ship", (10, 40)).expect("an answer");
                let kept = verdict.unwrap_or_else(|wrong| panic!("{begin}, {committed}: {wrong}"));
                assert!(kept || !rebuilt, "kept once rebuilt");
            }
        }
    }
}

#[test]
fn a_statement_under_way_is_not_counted_twice() {
    let world = World::open(shared(), false);
    let mut client = world.connect();
    world.fill(1_500);
    let (tenant, id) = (&world.tenants[0], world.tenants[0].database_id);
    let is = tenant.is("t");
    client
        .batch_execute(
            "CREATE FUNCTION yard.calls() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 BEGIN
                     EXECUTE TG_ARGV[0];
                 EXCEPTION WHEN object_in_use OR object_not_in_prerequisite_state THEN NULL;
                 END;
                 RETURN NEW;
             END $$",
        )
        .expect("a function");
    let insert = format!(
        "INSERT INTO yard.ship (client_id, database_id, id, stamp, changed)
         SELECT {}, 10000 + i, 100000 + i, now() FROM generate_series(1, 3000) i",
        tenant.values()
    );
    let upload =
        format!("SELECT plimsoll.upload('{id}', 'yard.ship', '[{{\"id\": 1, \"stamp\": 5}}]'::jsonb)");
    for call in [
        format!("SELECT plimsoll.rebuild_manifest('{id}', 'yard.ship')"),
        format!("SELECT plimsoll.fold_manifest('{id}', 'yard.ship')"),
        upload,
    ] {
        // Within the statement, and from triggers of rows, which run before those of their statement. What went
        // before makes a fold look at rows.
        let changes =
            format!("UPDATE yard.ship t SET stamp = stamp + 1, changed = NULL WHERE {is} AND id > 9000");
        let within =
            format!("WITH u AS ({changes} RETURNING id), c AS (SELECT count(*) FROM u) {call} FROM c");
        let delete = format!("DELETE FROM yard.ship t WHERE {is} AND id > 9000");
        for (when, statement) in
            [("", &within), ("BEFORE", &changes), ("AFTER", &changes), ("AFTER", &insert)]
        {
            client.batch_execute(&delete).expect("rows go");
            if *statement != insert {
                client.batch_execute(&insert).expect("rows");
            }
            if !when.is_empty() {
                let trigger = format!(
                    "CREATE TRIGGER calls {when} INSERT OR UPDATE ON yard.ship FOR EACH ROW
                         WHEN (NEW.id = 12500) EXECUTE FUNCTION yard.calls('{}')",
                    call.replace('\'', "''")
                );
                client.batch_execute(&trigger).expect("a trigger");
            }
            // Refused is right as well.
            let outcome = client.batch_execute(statement);
            let state = outcome.err().and_then(|error| error.code().map(|state| state.code().to_owned()));
            assert!(state.is_none() || state.as_deref() == Some("55006"), "{statement}: {state:?}");
            client.batch_execute("DROP TRIGGER IF EXISTS calls ON yard.ship").expect("no trigger");
            check_everything(&mut client, &world);
        }
    }
}
