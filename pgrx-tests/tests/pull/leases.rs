//! Two agents for one local database: whoever lost the lease while it read writes nothing here any more, and nobody loses
//! it for reading alone.

use std::time::{Duration, Instant};

use plimsoll_tests::{ClientHome, LOCAL, Running};
use rusqlite::Connection;

use crate::site::{Pull, SALE, Table};

/// The shortest lease there is.
const LEASE: Duration = Duration::from_secs(5);

/// The same rows, which both sides may change.
const SHARED: Table = Table { manage: ", version_column => 'version', version_scope => 'row'", ..SALE };

/// A hundred rows on both sides, and another agent for the same local file. `settings`: what the table says of itself.
fn two_agents(table: &'static Table, settings: &str) -> (Pull, ClientHome) {
    let mut pull = Pull::of(&[table]);
    pull.there("INSERT INTO sale SELECT $T, i, 'c' || i, 0, i FROM generate_series(1, 100) i");
    let sql = "SELECT plimsoll.set_option($1, 'lease_seconds', '5')";
    pull.server.execute(sql, &[&pull.agent.registered.id]).expect("a short lease");
    pull.agent.write_config(&format!("[[table]]\nname = \"sale\"\nremote = \"public.sale\"\n{settings}"));
    pull.sync();
    let second = ClientHome::new();
    let text = std::fs::read_to_string(pull.agent.home.path("plimsoll.toml")).expect("a configuration");
    let path = pull.agent.home.path(LOCAL);
    second.write("plimsoll.toml", &text.replace(LOCAL, path.to_str().expect("a path")));
    second.write("token", &pull.agent.registered.token);
    (pull, second)
}

/// Has row 1 change on the server, and an agent read that, over so many connections, and wait for its turn to write it here.
fn about_to_write(pull: &mut Pull, connections: i64) -> (Running, Connection) {
    let blocker = pull.agent.local();
    blocker.execute_batch("BEGIN IMMEDIATE").expect("the right to write");
    pull.there("UPDATE sale SET amount = 1, version = 200 WHERE id = 1");
    let mut run = pull.agent.home.start(["sync"]);
    let asked = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND datname = current_database()
                     AND state LIKE 'idle%' AND now() - state_change > interval '0.7 s' AND query <> ''";
    let begun = Instant::now();
    // Its connections are silent: what they read is to be written.
    while pull.server.query_one(asked, &[&pull.agent.login.role]).expect("a count").get::<_, i64>(0)
        < connections
    {
        assert!(run.is_running() && begun.elapsed() < Duration::from_secs(20), "{}", run.stderr());
        std::thread::sleep(Duration::from_millis(50));
    }
    (run, blocker)
}

fn amount(pull: &Pull) -> i64 {
    pull.agent.local().query_row("SELECT amount FROM sale WHERE id = 1", [], |row| row.get(0)).expect("a row")
}

fn nothing_is_written_by_a_run_that_another_followed(
    table: &'static Table,
    settings: &str,
    connections: i64,
) {
    let (mut pull, second) = two_agents(table, settings);
    let (late, blocker) = about_to_write(&mut pull, connections);
    late.freeze();
    std::thread::sleep(LEASE);
    drop(blocker);
    pull.there("UPDATE sale SET amount = 2, version = 300 WHERE id = 1");
    let begun = Instant::now();
    while second.run(["sync", "--quiet"]).code != Some(0) {
        assert!(begun.elapsed() < 3 * LEASE, "the lease does not expire");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(amount(&pull), 2);
    late.thaw();
    let late = late.wait(Duration::from_secs(60)).expect_code(1);
    assert_eq!(amount(&pull), 2, "{}", late.stderr);
    assert!(late.stderr.contains("is over"), "{}", late.stderr);
    second.run(["verify", "--quiet"]).expect_code(0);
}

#[test]
fn a_pull_that_lost_its_lease_writes_nothing_here() {
    nothing_is_written_by_a_run_that_another_followed(&SALE, "direction = \"pull\"", 2);
}

#[test]
fn a_snapshot_that_lost_its_lease_is_not_committed_here() {
    let settings = "direction = \"snapshot\"\nsnapshot_from = \"remote\"";
    nothing_is_written_by_a_run_that_another_followed(&SALE, settings, 2);
}

#[test]
fn a_two_way_run_that_lost_its_lease_remembers_and_writes_nothing_here() {
    nothing_is_written_by_a_run_that_another_followed(&SHARED, "direction = \"two-way\"", 1);
}

#[test]
fn a_run_that_does_not_speak_with_the_server_for_long_keeps_its_lease() {
    let (mut pull, second) = two_agents(&SALE, "direction = \"pull\"");
    let (mut slow, blocker) = about_to_write(&mut pull, 2);
    std::thread::sleep(LEASE + Duration::from_secs(1));
    let told = second.run(["sync", "--quiet"]).expect_code(2).stderr;
    assert!(told.contains("holds the lease until"), "{told}");
    assert!(slow.is_running(), "{}", slow.stderr());
    drop(blocker);
    slow.wait(Duration::from_secs(60)).expect_code(0);
    assert_eq!(amount(&pull), 1);
    second.run(["sync", "--quiet"]).expect_code(0);
}

#[test]
fn nobody_here_waits_for_a_server_that_does_not_answer() {
    let (mut pull, _) = two_agents(&SALE, "direction = \"pull\"");
    let (mut run, blocker) = about_to_write(&mut pull, 2);
    // From now on the lease is not renewed, and soon too old to commit under.
    let mut other = pull.site.superuser();
    let mut held = other.transaction().expect("a transaction");
    let id = &pull.agent.registered.id;
    let lock = format!("SELECT 1 FROM plimsoll.lease_record WHERE database_id = '{id}' FOR UPDATE");
    held.batch_execute(&lock).expect("a lock");
    std::thread::sleep(LEASE * 6 / 10);
    drop(blocker);
    std::thread::sleep(Duration::from_millis(500));
    let local = pull.agent.local();
    local.busy_timeout(Duration::from_millis(500)).expect("a short patience");
    local.execute("UPDATE sale SET amount = 9 WHERE id = 2", []).expect("the right to write");
    assert!(run.is_running(), "{}", run.stderr());
    assert_eq!(amount(&pull), 0, "nothing is written without the lease");
    drop(held);
    let done = run.wait(Duration::from_secs(60));
    assert!(done.code.is_some_and(|code| code < 2), "{}", done.stderr);
    assert_eq!(amount(&pull), 1, "{}", done.stderr);
}
