//! The client, a connection or a server dies in the middle; the next runs bring both sides together, with nothing lost and
//! nothing doubled.

use std::time::{Duration, Instant};

use plimsoll_tests::{Kind, LocalDatabase, Running, end_connections, faulty_client};

use crate::site::{ITEM, NOTE, Pull, SALE};

/// Where a client that writes here may die: before, within and after a local transaction, and before it is remembered
/// what it came to.
const POINTS: [&str; 12] = [
    "before-upload",
    "in-upload",
    "in-upload:3",
    "after-upload:2",
    "before-delete",
    "in-delete",
    "after-delete",
    "before-memory:2",
    "memory-written-not-renamed",
    "after-memory",
    "committed:7",
    "before-end",
];

/// Changes of all sorts on the server.
fn change(pull: &mut Pull, round: usize) {
    pull.there(&format!(
        "INSERT INTO sale SELECT $T, {round} * 1000 + i, {round} || 'c' || i, i % 7, {round} * 1000 + i
             FROM generate_series(1, 120) i;
         INSERT INTO item SELECT $T, {round} * 1000 + i, 'name' FROM generate_series(1, 120) i;
         INSERT INTO note SELECT $T, 'note {round}', i % 5 FROM generate_series(1, 120) i;
         DELETE FROM sale WHERE id % 1000 = 17; DELETE FROM item WHERE id % 1000 = 18;
         UPDATE sale SET amount = 77, version = version + 500 WHERE id % 1000 = 19;
         DELETE FROM note WHERE ctid IN (SELECT ctid FROM note WHERE text <> 'note {round}' LIMIT 3)"
    ));
}

const SMALL_STEPS: &str = "[sync]\nmax_batch_rows = 40\nwindow_rows = 60";

fn a_client_that_dies_at_named_points_doubles_and_loses_nothing(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::new(kind), &[&SALE, &ITEM, &NOTE], SMALL_STEPS);
    let client = faulty_client();
    pull.agent.home.set_binary(client.clone());
    for (round, point) in POINTS.iter().enumerate() {
        change(&mut pull, round);
        pull.agent.home.set_env("PLIMSOLL_FAULT", point);
        let died = pull.agent.sync();
        assert_eq!(died.code, None, "{point}: it did not die\n{}\n{}", died.stdout, died.stderr);
        pull.agent.home.unset_env("PLIMSOLL_FAULT");
        pull.agent.level_within(4);
        pull.assert_same(point);
    }
    std::fs::remove_file(client).expect("the copy goes");
}

/// Rounds of changes, each with a run in which `kill` has somebody die after the time that it is given; then both sides must be
/// level. There are more of them where all runs were over before.
fn somebody_dies(pull: &mut Pull, rounds: usize, mut kill: impl FnMut(&Pull, Running, Duration) -> bool) {
    change(pull, 0);
    let begun = Instant::now();
    pull.sync();
    let (whole, mut deaths) = (begun.elapsed(), 0);
    for round in 1..=rounds * 6 {
        if round > rounds && deaths > 0 {
            break;
        }
        change(pull, round);
        let run = pull.agent.home.start(["sync", "--json", "--quiet"]);
        deaths += u32::from(kill(pull, run, whole.mul_f64(fastrand::f64())));
        pull.agent.level_within(4);
        pull.assert_same(&format!("round {round}"));
    }
    assert!(deaths > 0, "nobody died");
}

fn a_client_that_dies_at_any_moment_doubles_and_loses_nothing(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::new(kind), &[&SALE, &ITEM, &NOTE], SMALL_STEPS);
    somebody_dies(&mut pull, 4, |_, mut run, after| {
        std::thread::sleep(after);
        let dies = run.is_running();
        drop(run.kill());
        dies
    });
}

fn a_server_that_ends_sessions_costs_time_alone(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::new(kind), &[&SALE, &NOTE], "[sync]\nmax_batch_rows = 2000");
    pull.there(
        "INSERT INTO sale SELECT $T, i, 'c' || i, i % 7, i FROM generate_series(1, 20000) i;
         INSERT INTO note SELECT $T, 'note', i FROM generate_series(1, 10000) i",
    );
    let mut running = pull.agent.home.start(["sync", "--json", "--quiet"]);
    let (mut there, mut here) = (0, 0);
    while running.is_running() && there + here < 6 {
        std::thread::sleep(Duration::from_millis(60));
        there += end_connections(pull.site.cluster, &pull.agent.login.role);
        std::thread::sleep(Duration::from_millis(60));
        here += pull.local.end_connections();
    }
    drop(running.wait(Duration::from_secs(120)));
    assert!(there + here > 0, "nobody was connected");
    pull.agent.level_within(4);
    pull.assert_same("sessions were ended");
}

fn a_local_server_that_crashes_doubles_and_loses_nothing(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::with_own_server(kind), &[&SALE, &ITEM, &NOTE], SMALL_STEPS);
    somebody_dies(&mut pull, 3, |pull, mut run, after| {
        std::thread::sleep(after);
        let runs = run.is_running();
        let crashed = pull.local.crash();
        let finished = run.wait(Duration::from_secs(120));
        assert!(!finished.stderr.contains("panicked"), "{finished:?}");
        runs && crashed
    });
}

beside_each_kind!(
    a_client_that_dies_at_named_points_doubles_and_loses_nothing,
    a_client_that_dies_at_any_moment_doubles_and_loses_nothing,
    a_server_that_ends_sessions_costs_time_alone,
);
beside!(postgres_alone, Postgres, a_local_server_that_crashes_doubles_and_loses_nothing);
beside!(mariadb_alone, MariaDb, a_local_server_that_crashes_doubles_and_loses_nothing);
