//! Applications that change disjoint rows never wait for each other, for uploads, folds or rebuilds, and never
//! deadlock, in whatever order they take their rows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plimsoll_tests::TestCluster;
use postgres::Client;

use crate::judge::check_all_kept;
use crate::number;
use crate::world::World;

/// Ships of each session.
const SHIPS: i32 = 300;
/// Rows that a transaction takes one after the other.
const STEPS: i32 = 12;

/// Makes transactions that take rows of one session's own: upwards, or downwards. The rows of all sessions stand
/// side by side, in the same blocks.
fn write(world: &World<'_>, session: i32, sessions: i32, over: &AtomicBool) -> u64 {
    let mut client = world.connect();
    client
        .batch_execute(&format!("SET application_name = 'application'; SET ROLE {}", world.application))
        .expect("a role");
    let is = world.tenants[0].is("t");
    let mut transactions = 0;
    let mut at = 0;
    while !over.load(Ordering::Relaxed) {
        let mut transaction = client.transaction().expect("a transaction");
        for step in 0..STEPS {
            let place = (at + step) % SHIPS;
            let place = if session % 2 == 0 { place } else { SHIPS - 1 - place };
            let id = 1000 + place * sessions + session;
            let sql = match step {
                3 => format!("DELETE FROM yard.ship t WHERE {is} AND id = {id}"),
                4 => format!(
                    "INSERT INTO yard.ship (client_id, database_id, id, name, stamp)
                     SELECT {}, 1000 + i * {sessions} + {session}, 'again', 1000 + i FROM generate_series(0, {}) i
                     ON CONFLICT DO NOTHING",
                    world.tenants[0].values(),
                    SHIPS - 1
                ),
                5 => format!(
                    "UPDATE yard.ship t SET name = 'many' WHERE {is} AND (id - 1000) % {sessions} = {session} AND id < 100000"
                ),
                _ => format!("UPDATE yard.ship t SET stamp = stamp + 1, name = 'one' WHERE {is} AND id = {id}"),
            };
            transaction.batch_execute(&sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        transaction.commit().expect("a commit");
        transactions += 1;
        at += 7;
    }
    transactions
}

/// Uploads, deletes, folds and rebuilds of the same replica, without end; uploads rows from a number on.
fn work_on(world: &World<'_>, first: i32, over: &AtomicBool) -> u64 {
    let mut client = world.connect();
    client
        .batch_execute(&format!("SET application_name = 'agent'; SET ROLE {}", world.agent))
        .expect("a role");
    let id = world.tenants[0].database_id;
    let mut calls = 0;
    while !over.load(Ordering::Relaxed) {
        let sql = match calls % 8 {
            0 => format!(
                "SELECT plimsoll.upload('{id}', 'yard.ship', (SELECT jsonb_agg(jsonb_build_object('id', {first} + i,
                     'stamp', 1000 + (i + {calls}) % 3000)) FROM generate_series(1, 500) i))"
            ),
            3 => format!(
                "SELECT plimsoll.delete_rows('{id}', 'yard.ship',
                     (SELECT jsonb_agg(jsonb_build_object('key', jsonb_build_object('id', {first} + i)))
                      FROM generate_series(1, 200) i))"
            ),
            5 => format!("SELECT plimsoll.rebuild_manifest('{id}', 'yard.ship')"),
            _ => format!("SELECT plimsoll.fold_manifest('{id}', 'yard.ship')"),
        };
        client.batch_execute(&sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        calls += 1;
    }
    calls
}

/// Takes what is dead out of what is kept, as the server does by itself from time to time.
fn clean(world: &World<'_>, over: &AtomicBool) {
    let mut client = world.connect();
    while !over.load(Ordering::Relaxed) {
        client.batch_execute("VACUUM plimsoll.kept_delta, plimsoll.kept_block").expect("a clean table");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What applications wait for at this moment, but for a relation to be made longer: who does that takes no
/// other lock meanwhile.
fn waits(client: &mut Client) -> Vec<String> {
    let sql = "SELECT format('%s on %s, %s: %s', l.mode, l.locktype, l.relation::regclass, a.query)
               FROM pg_locks l JOIN pg_stat_activity a USING (pid)
               WHERE NOT l.granted AND l.locktype <> 'extend' AND a.application_name = 'application'";
    client.query(sql, &[]).expect("the locks").iter().map(|row| row.get(0)).collect()
}

fn nobody_waits(sessions: i32, with_snapshot: bool) {
    let settings =
        [("log_lock_waits", "on"), ("deadlock_timeout", "10ms"), ("log_line_prefix", "%m [%p] %a ")];
    let cluster = TestCluster::start_with(&settings);
    let world = World::open(&cluster, false);
    world.fill(SHIPS * sessions);
    let mut watcher = world.connect();
    let mut old = world.connect();
    if with_snapshot {
        old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM yard.ship")
            .expect("a snapshot");
    }
    let (over, world, begun) = (AtomicBool::new(false), &world, Instant::now());
    let lasts = Duration::from_secs(number("PLIMSOLL_SECONDS", 8));
    let (mut looks, mut seen) = (0, Vec::new());
    let (transactions, calls) = std::thread::scope(|scope| {
        let over = &over;
        let writers: Vec<_> =
            (0..sessions).map(|session| scope.spawn(move || write(world, session, sessions, over))).collect();
        let workers: Vec<_> = [100_000, 200_000]
            .map(|first| scope.spawn(move || work_on(world, first, over)))
            .into_iter()
            .collect();
        scope.spawn(move || clean(world, over));
        while begun.elapsed() < lasts && !writers.iter().any(|writer| writer.is_finished()) {
            seen.extend(waits(&mut watcher));
            looks += 1;
            std::thread::sleep(Duration::from_millis(3));
        }
        over.store(true, Ordering::Relaxed);
        let transactions: Vec<u64> = writers.into_iter().map(|w| w.join().expect("no error")).collect();
        let calls: Vec<u64> = workers.into_iter().map(|w| w.join().expect("no error")).collect();
        (transactions, calls)
    });
    println!("{transactions:?} transactions, {calls:?} calls, {looks} looks, {:?}", begun.elapsed());
    assert!(seen.is_empty(), "applications waited {} times: {:#?}", seen.len(), &seen[..seen.len().min(9)]);
    assert!(transactions.iter().all(|count| *count > 3) && calls.iter().sum::<u64>() > 4);
    let log = std::fs::read_to_string(cluster.log_path()).expect("the server's log");
    let logged: Vec<&str> = log
        .lines()
        .filter(|line| {
            line.contains("deadlock detected")
                || (line.contains("still waiting") && line.contains("] application "))
                    && !line.contains("extension of relation")
        })
        .collect();
    assert!(logged.is_empty(), "{logged:#?}");
    drop(old);
    check_all_kept(&mut watcher, world);
}

#[test]
fn two_sessions_that_take_rows_in_opposite_order_never_wait() {
    nobody_waits(2, false);
}

#[test]
fn six_sessions_never_wait_while_a_snapshot_is_held() {
    nobody_waits(6, true);
}
