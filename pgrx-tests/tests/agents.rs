//! Agents beside each other: one lease for a database, a wall between databases, an end when asked, and the
//! guard that holds back what looks like destruction; and limits that an admin sets.

use std::time::{Duration, Instant};

use plimsoll_tests::{Agent, ClientHome, Comparison, LOCAL, Running, Site, assert_equal, shared, table_of};

const TABLES: [&str; 2] = ["items", "parts"];

/// Rows of each table.
const ROWS: i64 = 200;

fn local_sql() -> String {
    let table = |name: &str| {
        format!(
            "CREATE TABLE {name} (id INTEGER PRIMARY KEY, name TEXT, row_version INTEGER NOT NULL);
             CREATE INDEX {name}_version ON {name} (row_version);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
             INSERT INTO {name} SELECT i, '{name} ' || i, i FROM n;"
        )
    };
    TABLES.map(table).concat()
}

/// An agent with two tables of which everything is replicated.
fn replicated() -> (Site<'static>, Agent) {
    let site = Site::new(shared());
    let agent = site.agent("acme", &local_sql(), &TABLES, "");
    site.create_tables(&agent);
    agent.sync().expect_code(0);
    agent.home.run(["verify"]).expect_code(0);
    (site, agent)
}

/// Another directory with the same configuration and local database: another agent of the same database.
fn twin(agent: &Agent) -> ClientHome {
    let home = ClientHome::new();
    for name in ["plimsoll.toml", "token", LOCAL] {
        std::fs::copy(agent.home.path(name), home.path(name)).expect("a copy");
    }
    home
}

fn set_option(site: &Site<'_>, agent: &Agent, option: &str, value: &str) {
    let sql = "SELECT plimsoll.set_option($1, $2, $3)";
    site.superuser().execute(sql, &[&agent.registered.id, &option, &value]).expect("an option");
}

/// Waits until the agent of a database holds its lease; answers the agent and until when.
fn lease_holder(site: &Site<'_>, agent: &Agent) -> (String, String) {
    let sql = "SELECT lease_holder, to_char(lease_until, 'YYYY-MM-DD HH24:MI') FROM plimsoll.databases
               WHERE database_id = $1 AND lease_holder IS NOT NULL";
    let mut server = site.superuser();
    let begun = Instant::now();
    loop {
        if let Some(row) = server.query_opt(sql, &[&agent.registered.id]).expect("the databases") {
            return (row.get(0), row.get(1));
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody takes the lease");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Has an agent stand still in the middle of an upload: the lock that it waits for ends with the answer.
fn stuck(site: &Site<'_>, agent: &Agent) -> (Running, postgres::Client) {
    let mut blocker = site.superuser();
    blocker.batch_execute("BEGIN; LOCK TABLE items IN SHARE MODE").expect("a lock");
    agent.local().execute("INSERT INTO items VALUES (1000, 'new', 1000)", []).expect("a row");
    let run = agent.home.start(["sync", "--json"]);
    lease_holder(site, agent);
    (run, blocker)
}

#[test]
fn the_second_agent_is_told_who_holds_the_lease_and_until_when() {
    let (site, agent) = replicated();
    let second = twin(&agent);
    let (run, mut blocker) = stuck(&site, &agent);
    let (holder, until) = lease_holder(&site, &agent);
    let told = second.run(["sync"]).expect_code(2).stderr;
    assert!(told.contains(&holder) && told.contains(&until), "{holder} {until}: {told}");
    assert!(told.contains("holds the lease until") && told.contains("hint"), "{told}");
    // The same directory cannot be used twice either.
    let told = agent.home.run(["sync"]).expect_code(2).stderr;
    assert!(told.contains("another plimsoll process"), "{told}");
    blocker.batch_execute("ROLLBACK").expect("the lock goes");
    run.wait(Duration::from_secs(60)).expect_code(0);
    second.run(["sync"]).expect_code(0);
}

#[test]
fn the_lease_of_a_dead_agent_expires_and_its_run_is_over() {
    let (site, agent) = replicated();
    set_option(&site, &agent, "lease_seconds", "5");
    let second = twin(&agent);
    let (run, mut blocker) = stuck(&site, &agent);
    run.kill();
    blocker.batch_execute("ROLLBACK").expect("the lock goes");
    let begun = Instant::now();
    second.run(["sync"]).expect_code(2);
    let taken = loop {
        let run = second.run(["sync"]);
        if run.code != Some(2) {
            break run;
        }
        assert!(run.stderr.contains("holds the lease"), "{}", run.stderr);
        assert!(begun.elapsed() < Duration::from_secs(15), "the lease does not expire");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(taken.code, Some(0), "{taken:?}");
    assert!(begun.elapsed() > Duration::from_secs(2), "taken over before it expired");
}

#[test]
fn agents_at_the_same_time_never_interleave() {
    let (site, agent) = replicated();
    let homes: Vec<ClientHome> = (0..3).map(|_| twin(&agent)).collect();
    let (mut done, mut refused) = (0, 0);
    for round in 0..8 {
        agent
            .local()
            .execute("UPDATE items SET name = ?1, row_version = row_version + 1000", [round])
            .expect("it");
        for home in &homes {
            std::fs::copy(agent.home.path(LOCAL), home.path(LOCAL)).expect("a copy");
        }
        let runs: Vec<Running> = homes.iter().map(|home| home.start(["sync", "--quiet"])).collect();
        for run in runs {
            let run = run.wait(Duration::from_secs(60));
            match run.code {
                Some(0) => done += 1,
                Some(2) if run.stderr.contains("holds the lease") => refused += 1,
                _ => panic!("{run:?}"),
            }
        }
    }
    println!("{done} runs, {refused} refused");
    assert!(done >= 8 && refused > 0);
    // Each batch belongs to a run, and those of one run stand together.
    let sql =
        "SELECT count(*) FROM plimsoll.batches a JOIN plimsoll.batches b ON a.database_id = b.database_id
               WHERE a.batch_id < b.batch_id AND a.run_id > b.run_id";
    assert_eq!(site.superuser().query_one(sql, &[]).expect("a count").get::<_, i64>(0), 0);
    agent.sync();
    agent.home.run(["verify"]).expect_code(0);
}

#[test]
fn run_ends_after_the_current_batch_when_asked() {
    let (site, agent) = replicated();
    for signal in ["TERM", "INT"] {
        let mut run = agent.home.start(["run", "--every", "1h", "--json"]);
        let begun = Instant::now();
        while !run.stdout().contains("\"tables\"") {
            assert!(run.is_running() && begun.elapsed() < Duration::from_secs(30), "{}", run.stderr());
            std::thread::sleep(Duration::from_millis(20));
        }
        send(signal, &run);
        run.wait(Duration::from_secs(10)).expect_code(0);
    }
    // In the middle of a run it says so, and the next goes on.
    let local = agent.local();
    local
        .execute("UPDATE items SET name = 'later', row_version = row_version + 5000", [])
        .expect("an update");
    agent.configure(&TABLES, "[sync]\nmax_batch_rows = 1");
    let mut blocker = site.superuser();
    blocker.batch_execute("BEGIN; LOCK TABLE items IN SHARE MODE").expect("a lock");
    let run = agent.home.start(["run", "--every", "1h", "--json"]);
    lease_holder(&site, &agent);
    std::thread::sleep(Duration::from_millis(300));
    send("TERM", &run);
    std::thread::sleep(Duration::from_millis(300));
    blocker.batch_execute("ROLLBACK").expect("the lock goes");
    let stopped = run.wait(Duration::from_secs(10)).expect_code(0).json();
    assert_eq!(stopped["stopped"], true, "{stopped}");
    let updated = table_of(&stopped, "items")["updated"].as_i64().expect("a number");
    assert!((1..ROWS).contains(&updated), "{stopped}");
    let outcome = "SELECT outcome FROM plimsoll.runs ORDER BY run_id DESC LIMIT 1";
    assert_eq!(site.superuser().query_one(outcome, &[]).expect("a run").get::<_, String>(0), "stopped");
    agent.sync().expect_code(0);
    agent.home.run(["verify"]).expect_code(0);
}

fn send(signal: &str, run: &Running) {
    let status = std::process::Command::new("kill").args(["-s", signal, &run.id().to_string()]).status();
    assert!(status.expect("kill runs").success());
}

#[test]
fn databases_in_the_same_tables_never_touch_each_other() {
    let (site, one) = replicated();
    let other = site.agent("other", &local_sql(), &TABLES, "");
    other.local().execute("UPDATE items SET name = 'mine ' || id", []).expect("an update");
    other.sync().expect_code(0);
    let compare = |agent: &Agent| {
        let local = agent.local();
        let tables = TABLES.map(|name| Comparison::of(&local, name, &format!("public.{name}")));
        assert_equal(&tables, &local, &mut site.superuser(), agent.registered.id);
    };
    // The same keys and versions, other content; each changes, deletes and repairs only its own.
    for (agent, from) in [(&one, 1), (&other, 21)] {
        let local = agent.local();
        local.execute("DELETE FROM items WHERE id BETWEEN ?1 AND ?1 + 9", [from]).expect("a delete");
        local
            .execute("UPDATE parts SET name = 'x', row_version = row_version + 500 WHERE id > 190", [])
            .expect("it");
    }
    one.sync().expect_code(0);
    compare(&one);
    other.sync().expect_code(0);
    compare(&one);
    compare(&other);
    let rows = "SELECT client_id, count(*) FROM items GROUP BY 1 ORDER BY 1";
    let rows = site.superuser().query(rows, &[]).expect("the rows");
    let counts: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(counts, [("acme".to_owned(), ROWS - 10), ("other".to_owned(), ROWS - 10)]);
    // Another's id with one's own token is refused.
    let config = std::fs::read_to_string(one.home.path("plimsoll.toml")).expect("the configuration");
    let (own, foreign) = (one.registered.id.to_string(), other.registered.id.to_string());
    one.home.write("plimsoll.toml", &config.replace(&own, &foreign));
    for command in ["sync", "verify", "status"] {
        one.home.run([command]).expect_code(2);
    }
    compare(&other);
}

#[test]
fn a_mass_delete_is_held_until_a_person_agrees() {
    let (site, agent) = replicated();
    agent.local().execute("DELETE FROM items WHERE id <= 150", []).expect("a delete");
    for _ in 0..2 {
        let report = agent.sync().expect_code(1).json();
        let items = table_of(&report, "items");
        assert_eq!((&items["deleted"], &items["status"]), (&0.into(), &"different".into()), "{report}");
        assert!(items["held"].as_i64() > Some(0), "{report}");
        assert_eq!(table_of(&report, "parts")["status"], "level");
    }
    assert_eq!(site.content("items").len(), 200);
    let hold = "SELECT hold_planned, hold_reason FROM plimsoll.replicas WHERE relation = 'public.items'";
    let row = site.superuser().query_one(hold, &[]).expect("the replica");
    assert_eq!(row.get::<_, Option<i64>>("hold_planned"), Some(150));
    assert!(row.get::<_, String>("hold_reason").contains("guard"));
    // New rows still arrive; the agent may not release the hold by itself.
    agent.local().execute("INSERT INTO items VALUES (900, 'new', 900)", []).expect("a row");
    agent.home.run(["sync", "--allow-mass-delete"]).expect_code(1);
    assert_eq!(site.content("items").len(), 201);
    let release = "SELECT plimsoll.release_hold($1, 'public.items')";
    assert_eq!(site.superuser().execute(release, &[&agent.registered.id]).expect("released"), 1);
    let report = agent.sync().expect_code(0).json();
    assert_eq!(table_of(&report, "items")["deleted"], 150, "{report}");
    assert_eq!(site.content("items").len(), 51);
    agent.home.run(["verify"]).expect_code(0);
    // It was agreed to once.
    agent.local().execute("DELETE FROM items WHERE id <= 190", []).expect("a delete");
    agent.sync().expect_code(1);
    assert_eq!(site.content("items").len(), 51);
}

#[test]
fn a_restored_backup_puts_the_tables_on_hold() {
    let (site, agent) = replicated();
    std::fs::copy(agent.home.path(LOCAL), agent.home.path("backup")).expect("a backup");
    let local = agent.local();
    for table in TABLES {
        let day = format!(
            "WITH RECURSIVE n (i) AS (SELECT 301 UNION ALL SELECT i + 1 FROM n WHERE i < 315)
             INSERT INTO {table} SELECT i, 'today', i FROM n"
        );
        local.execute(&day, []).expect("a day's work");
    }
    drop(local);
    agent.sync().expect_code(0);
    // Half a day later the server's disk breaks, and yesterday's copy is put back.
    std::fs::copy(agent.home.path("backup"), agent.home.path(LOCAL)).expect("restored");
    let report = agent.sync().expect_code(1).json();
    for table in TABLES {
        assert_eq!(table_of(&report, table)["deleted"], 0, "{report}");
        assert_eq!(site.content(table).len(), 215, "what the backup lacks is all there is of it");
    }
    let holds =
        "SELECT count(*) FROM plimsoll.replicas WHERE hold_since IS NOT NULL AND hold_reason LIKE '%backup%'";
    assert_eq!(site.superuser().query_one(holds, &[]).expect("a count").get::<_, i64>(0), 2);
    let release = "SELECT plimsoll.release_hold(database_id, relation) FROM plimsoll.replicas";
    site.superuser().execute(release, &[]).expect("released");
    agent.sync().expect_code(0);
    agent.home.run(["verify"]).expect_code(0);
}

#[test]
fn limits_that_an_admin_sets_make_uploads_smaller_and_refuse_no_row_that_they_allow() {
    let (site, agent) = replicated();
    set_option(&site, &agent, "max_upload_bytes", "65536");
    set_option(&site, &agent, "max_upload_rows", "1000");
    let more = "WITH RECURSIVE n (i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
                INSERT INTO items SELECT i, CASE WHEN i % 4 THEN 'short' ELSE hex(randomblob(100)) END, i FROM n";
    agent.local().execute(more, []).expect("rows");
    agent.sync().expect_code(0);
    agent.home.run(["verify"]).expect_code(0);
    // One row that no upload can carry, among others.
    let large =
        "INSERT INTO items VALUES (6000, 'a', 6000), (6001, hex(zeroblob(50000)), 6001), (6002, 'b', 6002)";
    agent.local().execute(large, []).expect("rows");
    agent.sync().expect_code(0);
    let rows: i64 = site.superuser().query_one("SELECT count(*) FROM items", &[]).expect("rows").get(0);
    assert_eq!(rows, ROWS + 4_003);
    let told = agent.home.run(["verify"]).expect_code(1).stdout;
    assert!(told.contains("6001") && !told.contains("6002"), "{told}");
}

#[test]
fn an_application_that_leaves_during_a_run_does_not_take_the_log_away_under_it() {
    let (site, agent) = replicated();
    let application = agent.local();
    application.pragma_update(None, "journal_mode", "WAL").expect("a mode");
    application.execute("UPDATE items SET name = 'early' WHERE id = 7", []).expect("a change");
    let (run, mut blocker) = stuck(&site, &agent);
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'items'::regclass";
    let mut server = site.superuser();
    let begun = Instant::now();
    while server.query_one(waiting, &[]).expect("the locks").get::<_, i64>(0) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing is uploaded");
        std::thread::sleep(Duration::from_millis(10));
    }
    // The last of its connections: SQLite would tidy up were nobody else there.
    drop(application);
    let log = agent.home.path(&format!("{LOCAL}-wal"));
    assert!(log.exists(), "the log that the run reads is gone");
    agent.local().execute("UPDATE items SET name = 'late' WHERE id = 7", []).expect("a change");
    blocker.batch_execute("ROLLBACK").expect("the lock goes");
    run.wait(Duration::from_secs(60)).expect_code(0);
    // Its window read the row after the change, behind which no newer version tells of it.
    agent.home.run(["verify"]).expect_code(0);
}
