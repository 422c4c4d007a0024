//! The client or its server dies in the middle; the next runs bring both sides together, with nothing lost and nothing
//! doubled.

use std::time::Duration;

use plimsoll_tests::faulty_client;

use crate::site::{ITEM, NOTE, Pull, SALE};

/// Where a client that writes here may die.
const POINTS: [&str; 9] = [
    "before-upload",
    "in-upload",
    "after-upload:2",
    "before-delete",
    "in-delete",
    "after-delete",
    "after-memory",
    "committed:7",
    "before-end",
];

#[test]
fn a_client_that_dies_at_named_points_doubles_and_loses_nothing() {
    let mut pull = Pull::with(&[&SALE, &ITEM, &NOTE], "[sync]\nmax_batch_rows = 300\nwindow_rows = 300");
    pull.agent.home.set_binary(faulty_client());
    for (round, point) in POINTS.iter().enumerate() {
        pull.there(&format!(
            "INSERT INTO sale SELECT $T, {round} * 1000 + i, {round} || 'c' || i, i % 7, {round} * 1000 + i
                 FROM generate_series(1, 500) i;
             INSERT INTO item SELECT $T, {round} * 1000 + i, 'name' FROM generate_series(1, 500) i;
             INSERT INTO note SELECT $T, 'note {round}', i % 5 FROM generate_series(1, 500) i;
             DELETE FROM sale WHERE id % 1000 = 17; DELETE FROM item WHERE id % 1000 = 18;
             DELETE FROM note WHERE ctid IN (SELECT ctid FROM note LIMIT 3)"
        ));
        pull.agent.home.set_env("PLIMSOLL_FAULT", point);
        let died = pull.agent.sync();
        assert_eq!(died.code, None, "{point}: it did not die\n{}\n{}", died.stdout, died.stderr);
        pull.agent.home.unset_env("PLIMSOLL_FAULT");
        pull.agent.level_within(4);
        pull.assert_level(point);
    }
}

#[test]
fn a_server_that_ends_sessions_costs_time_alone() {
    let mut pull = Pull::with(&[&SALE, &NOTE], "[sync]\nmax_batch_rows = 2000");
    pull.there(
        "INSERT INTO sale SELECT $T, i, 'c' || i, i % 7, i FROM generate_series(1, 60000) i;
         INSERT INTO note SELECT $T, 'note', i FROM generate_series(1, 20000) i",
    );
    let mut running = pull.agent.home.start(["sync", "--json", "--quiet"]);
    let mut killed = 0;
    while running.is_running() && killed < 6 {
        std::thread::sleep(Duration::from_millis(60));
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE usename = $1 AND datname = current_database()";
        let ended: i64 = pull.server.query_one(sql, &[&pull.agent.login.role]).expect("ended").get(0);
        killed += ended;
    }
    drop(running.wait(Duration::from_secs(120)));
    assert!(killed > 0, "nobody was connected");
    pull.agent.level_within(4);
    pull.assert_level("sessions were ended");
}
