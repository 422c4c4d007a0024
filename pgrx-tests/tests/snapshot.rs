//! Snapshots of a SQLite database, at a size and in circumstances that the other suites have not: readers while 200,000 rows
//! go over, the death of either side in the middle, the guard, a pooler, constraints that rows refer to each other by.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plimsoll_tests::{Agent, Comparison, Pooler, Running, Site, assert_equal, shared, table_of};
use serde_json::Value as Json;

const SNAPSHOT: &str = "direction = \"snapshot\"\n";

const SALES: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE sales (id INTEGER PRIMARY KEY, note TEXT, row_version INTEGER NOT NULL);
    CREATE INDEX sales_version ON sales (row_version);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
    INSERT INTO sales SELECT i, 'sale number ' || i, i FROM n";

/// An agent that makes snapshots of these tables, which the DBA made and gave `constraints`.
fn open(site: &Site<'_>, sql: &str, tables: &[&str], constraints: &str) -> Agent {
    let agent = site.agent("shop", sql, tables, "");
    site.create_tables(&agent);
    site.owner().batch_execute(constraints).expect("constraints");
    configure(&agent, tables, "");
    agent
}

fn configure(agent: &Agent, tables: &[&str], settings: &str) {
    let tables: Vec<String> =
        tables.iter().map(|table| format!("[[table]]\nname = \"{table}\"\n{SNAPSHOT}")).collect();
    agent.write_config(&format!("{settings}\n{}", tables.join("\n")));
}

fn synced(agent: &Agent) -> Json {
    let run = agent.sync();
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

/// Rows of the managed table and what they add up to, as anybody sees it.
fn seen(client: &mut postgres::Client) -> (i64, i64) {
    let sql = "SELECT count(*), coalesce(sum(hashtext(note) + row_version), 0)::int8 FROM public.sales";
    let row = client.query_one(sql, &[]).expect("the rows");
    (row.get(0), row.get(1))
}

/// Looks at the managed table until `running` has ended or `enough` says so of how long it ran: all that was seen.
fn watch(site: &Site<'_>, running: &mut Running) -> Vec<(i64, i64)> {
    let mut client = site.superuser();
    let mut all = vec![seen(&mut client)];
    while running.is_running() {
        all.push(seen(&mut client));
        std::thread::sleep(Duration::from_millis(5));
    }
    all.push(seen(&mut client));
    let looks = all.len();
    assert!(looks > 8, "{looks} looks are none");
    all.dedup();
    all
}

#[test]
fn readers_of_200_000_rows_see_none_or_all_and_then_old_or_new() {
    let site = Site::new(shared());
    let agent = open(&site, SALES, &["sales"], "");
    let mut first = agent.home.start(["sync", "--json", "--quiet"]);
    let seen_first = watch(&site, &mut first);
    let empty = (0, 0);
    assert_eq!((seen_first.len(), seen_first[0], seen_first[1].0), (2, empty, 200_000), "{seen_first:?}");
    let local = agent.local();
    // Others write on while it goes.
    let over = AtomicBool::new(false);
    local
        .execute_batch(
            "UPDATE sales SET note = note || '!', row_version = row_version + 1000000 WHERE id % 100 = 7;
             UPDATE sales SET note = 'in place' WHERE id % 1000 = 3;
             DELETE FROM sales WHERE id % 50 = 1;",
        )
        .expect("changes");
    let seen_second = std::thread::scope(|scope| {
        scope.spawn(|| {
            let writer = agent.local();
            for id in 1_000_000.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let sql = "INSERT INTO sales VALUES (?1, 'meanwhile', ?1)";
                writer.execute(sql, [id]).expect("a row");
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let mut second = agent.home.start(["sync", "--json", "--quiet"]);
        let seen = watch(&site, &mut second);
        over.store(true, Ordering::Relaxed);
        seen
    });
    assert_eq!(seen_second.len(), 2, "{seen_second:?}");
    assert_eq!(seen_second[0], seen_first[1]);
    assert!(seen_second[1].0 >= 196_000, "{seen_second:?}");
    // What came meanwhile is of the next snapshot.
    agent.home.run(["sync", "--quiet"]).expect_code(0);
    agent.home.run(["verify", "--quiet"]).expect_code(0);
    // And what did not change is not even read.
    let report = synced(&agent);
    let sales = table_of(&report, "sales");
    assert_eq!((&sales["status"], sales["compared_rows"].as_u64()), (&"level".into(), Some(0)), "{report}");
}

#[test]
fn whoever_dies_in_the_middle_leaves_the_old_rows_and_the_next_run_begins_again() {
    let site = Site::new(shared());
    let agent = open(&site, SALES, &["sales"], "");
    agent.home.run(["sync", "--quiet"]).expect_code(0);
    agent
        .local()
        .execute_batch("UPDATE sales SET note = 'new', row_version = row_version + 1000000 WHERE id % 3 > 0")
        .expect("changes");
    let mut superuser = site.superuser();
    let old = seen(&mut superuser);
    let writing =
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL
                   AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()";
    for kill_server in [true, false] {
        let run = agent.home.start(["sync", "--json", "--quiet"]);
        let began = Instant::now();
        let backend: i32 = loop {
            assert!(began.elapsed() < Duration::from_secs(60), "nothing is written");
            if let Some(row) = superuser.query(writing, &[]).expect("the backends").first() {
                break row.get(0);
            }
        };
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(seen(&mut superuser), old);
        if kill_server {
            superuser.query("SELECT pg_terminate_backend($1)", &[&backend]).expect("its death");
            let run = run.wait(Duration::from_secs(60)).expect_code(1);
            assert!(run.stdout.contains("connection"), "{}", run.stdout);
        } else {
            run.kill();
        }
        assert_eq!(seen(&mut superuser), old);
    }
    let report = synced(&agent);
    assert_eq!(table_of(&report, "sales")["status"], "level", "{report}");
    assert_ne!(seen(&mut superuser), old);
    agent.home.run(["verify", "--quiet"]).expect_code(0);
}

const FAMILY: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE people (id INTEGER PRIMARY KEY, email TEXT NOT NULL, credit INTEGER, row_version INTEGER NOT NULL);
    CREATE TABLE phones (person_id INTEGER NOT NULL, no INTEGER NOT NULL, phone TEXT, row_version INTEGER NOT NULL,
        PRIMARY KEY (person_id, no));
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT);
    CREATE TABLE visits (page TEXT, seconds INTEGER);
    CREATE INDEX people_version ON people (row_version);
    CREATE INDEX phones_version ON phones (row_version);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
    INSERT INTO people SELECT i, i || '@example.com', i, i FROM n;
    INSERT INTO phones SELECT id, 1, '555-' || id, id FROM people;
    INSERT INTO settings SELECT 'key ' || id, 'value ' || id FROM people;
    INSERT INTO visits SELECT 'page ' || (id % 7), id % 5 FROM people;";

/// A child is named first: the client must find the order itself.
const FAMILY_TABLES: [&str; 4] = ["phones", "people", "settings", "visits"];

const FAMILY_CONSTRAINTS: &str = "
    ALTER TABLE people ADD CONSTRAINT people_email UNIQUE (client_id, database_id, email),
        ADD CONSTRAINT people_credit CHECK (credit >= 0);
    ALTER TABLE phones ADD FOREIGN KEY (client_id, database_id, person_id) REFERENCES people;";

fn assert_level(site: &Site<'_>, agent: &Agent) {
    let local = agent.local();
    let tables = FAMILY_TABLES.map(|table| Comparison::of(&local, table, &format!("public.{table}")));
    assert_equal(&tables, &local, &mut site.superuser(), agent.registered.id);
    agent.home.run(["verify", "--quiet"]).expect_code(0);
}

#[test]
fn tables_that_refer_to_each_other_become_new_together() {
    let site = Site::new(shared());
    let agent = open(&site, FAMILY, &FAMILY_TABLES, FAMILY_CONSTRAINTS);
    let report = synced(&agent);
    for table in FAMILY_TABLES {
        let table = table_of(&report, table);
        assert_eq!(
            (&table["status"], &table["direction"]),
            (&"level".into(), &"snapshot".into()),
            "{report}"
        );
    }
    assert_level(&site, &agent);
    // Children and parents come and go, unique values change hands, rows change in place.
    let change = "
        DELETE FROM phones WHERE person_id <= 20;
        DELETE FROM people WHERE id <= 20;
        INSERT INTO people SELECT id + 1000, 'new' || id || '@example.com', 1, row_version + 1000 FROM people WHERE id < 60;
        INSERT INTO phones SELECT id, 1, 'new', row_version FROM people WHERE id > 1000;
        UPDATE people SET email = 'swap' || id WHERE id BETWEEN 100 AND 110;
        UPDATE people SET email = (210 - id) || '@example.com', row_version = row_version + 2000 WHERE id BETWEEN 100 AND 110;
        UPDATE people SET email = '5@example.com' WHERE id = 300;
        UPDATE settings SET value = 'other' WHERE name LIKE 'key 4%';
        DELETE FROM visits WHERE rowid % 20 = 0;
        INSERT INTO visits SELECT * FROM visits LIMIT 30;";
    agent.local().execute_batch(change).expect("changes");
    let looking = agent.home.run(["sync", "--dry-run", "--json", "--quiet"]);
    let report: Json = serde_json::from_str(&looking.stdout).expect("a report");
    assert!(table_of(&report, "people")["would_send"].as_u64() > Some(40), "{report}");
    let before = site.content("public.people");
    assert_eq!(before.len(), 500, "a dry run sends nothing");
    let report = synced(&agent);
    assert_eq!(table_of(&report, "people")["status"], "level", "{report}");
    assert_eq!(table_of(&report, "people")["deleted"], 20);
    assert_level(&site, &agent);
}

#[test]
fn rows_that_cannot_be_stored_are_left_out_told_and_counted() {
    let site = Site::new(shared());
    let agent = open(&site, FAMILY, &FAMILY_TABLES, FAMILY_CONSTRAINTS);
    agent
        .local()
        .execute_batch(
            "UPDATE people SET credit = -1 WHERE id = 7;
             UPDATE people SET credit = 'much' WHERE id = 8;
             INSERT INTO phones VALUES (9999, 1, 'nobody', 1)",
        )
        .expect("poison");
    for run in 0..2 {
        let report = synced(&agent);
        let (people, phones) = (table_of(&report, "people"), table_of(&report, "phones"));
        assert_eq!((&people["status"], &people["rejected"]), (&"level_except".into(), &2.into()), "{report}");
        // A phone of each rejected person, and the one of nobody.
        assert_eq!((&phones["status"], &phones["waiting"]), (&"level_except".into(), &3.into()), "{report}");
        assert_eq!(table_of(&report, "settings")["status"], "level");
        assert_eq!(site.content("public.people").len(), 498, "run {run}");
        assert_eq!(site.content("public.phones").len(), 498);
    }
    agent.home.run(["verify", "--quiet"]).expect_code(1);
    agent
        .local()
        .execute_batch(
            "UPDATE people SET credit = 1 WHERE id IN (7, 8); DELETE FROM phones WHERE person_id = 9999",
        )
        .expect("they are mended");
    let report = synced(&agent);
    assert_eq!(table_of(&report, "phones")["status"], "level", "{report}");
    assert_level(&site, &agent);
}

#[test]
fn a_held_snapshot_changes_nothing_until_a_person_agrees() {
    let site = Site::new(shared());
    let agent = open(&site, FAMILY, &FAMILY_TABLES, FAMILY_CONSTRAINTS);
    synced(&agent);
    let old = site.content("public.settings");
    agent
        .local()
        .execute_batch(
            "DELETE FROM settings WHERE rowid % 2 = 0; INSERT INTO settings VALUES ('new', 'row');
             INSERT INTO people VALUES (2000, 'x', 1, 2000)",
        )
        .expect("half of the rows go");
    for _ in 0..2 {
        let run = agent.sync();
        assert_eq!(run.code, Some(1), "{run:?}");
        let report: Json = serde_json::from_str(&run.stdout).expect("a report");
        let settings = table_of(&report, "settings");
        assert_eq!(settings["status"], "different", "{report}");
        assert!(settings["held"].as_u64() > Some(0), "{report}");
        assert_eq!(site.content("public.settings"), old, "not even the new row arrives");
        assert_eq!(table_of(&report, "people")["status"], "level", "the others go on");
        assert_eq!(site.content("public.people").len(), 501);
    }
    let hold = "SELECT hold_planned FROM plimsoll.replicas
                WHERE relation = 'public.settings' AND hold_since IS NOT NULL";
    let planned: i64 = site.superuser().query_one(hold, &[]).expect("a hold").get(0);
    assert_eq!(planned, 250);
    site.superuser()
        .execute("SELECT plimsoll.release_hold($1, 'public.settings')", &[&agent.registered.id])
        .expect("a release");
    let report = synced(&agent);
    assert_eq!(table_of(&report, "settings")["status"], "level", "{report}");
    assert_level(&site, &agent);
}

#[test]
fn a_snapshot_goes_through_a_pooler_and_in_parts_where_the_server_takes_no_more_at_once() {
    let site = Site::new(shared());
    let sql = SALES.replace("200000", "20000");
    let mut agent = open(&site, &sql, &["sales"], "");
    let pooler = Pooler::start(site.cluster, &agent.login, &site.database);
    agent.connect_to(&pooler.client_url());
    configure(&agent, &["sales"], "");
    let option = "SELECT plimsoll.set_option($1, 'max_upload_bytes', '65536')";
    site.superuser().execute(option, &[&agent.registered.id]).expect("an option");
    let report = synced(&agent);
    assert_eq!(table_of(&report, "sales")["status"], "level", "{report}");
    let commits = "SELECT count(DISTINCT xmin::text) FROM public.sales";
    let subtransactions: i64 = site.superuser().query_one(commits, &[]).expect("a count").get(0);
    assert!(subtransactions < 30, "{subtransactions} subtransactions");
    agent.home.run(["verify", "--quiet"]).expect_code(0);
}

/// An agent whose local table is overwritten with what the server has: 200,000 rows, and as many changed ones as are asked for.
fn pulling(site: &Site<'_>) -> Agent {
    let agent = open(site, SALES, &["sales"], "");
    agent.write_config("[[table]]\nname = \"sales\"\n");
    agent.home.run(["sync", "--quiet"]).expect_code(0);
    let settings = "[[table]]\nname = \"sales\"\ndirection = \"snapshot\"\nsnapshot_from = \"remote\"\n";
    agent.write_config(settings);
    agent
}

fn seen_here(local: &rusqlite::Connection) -> (i64, i64) {
    let sql = "SELECT count(*), total(length(note) + row_version) FROM sales";
    local.query_row(sql, [], |row| Ok((row.get(0)?, row.get::<_, f64>(1)? as i64))).expect("the rows")
}

#[test]
fn readers_of_the_local_database_see_old_or_new_and_the_dead_leave_the_old() {
    let site = Site::new(shared());
    let agent = pulling(&site);
    let local = agent.local();
    local.execute_batch("DELETE FROM sales").expect("an empty table");
    let mut run = agent.home.start(["sync", "--quiet"]);
    let mut seen = vec![seen_here(&local)];
    while run.is_running() {
        seen.push(seen_here(&local));
    }
    run.wait(Duration::from_secs(60)).expect_code(0);
    seen.push(seen_here(&local));
    assert!(seen.len() > 8, "{} looks", seen.len());
    seen.dedup();
    assert_eq!((seen.len(), seen[0], seen[1].0), (2, (0, 0), 200_000), "{seen:?}");
    site.owner()
        .batch_execute(
            "UPDATE sales SET note = 'new', row_version = row_version + 1000000 WHERE id % 3 > 0;
             UPDATE sales SET note = 'in place' WHERE id % 1000 = 3; DELETE FROM sales WHERE id % 50 = 1",
        )
        .expect("changes");
    let old = seen_here(&local);
    let wal = agent.home.path(&format!("{}-wal", plimsoll_tests::LOCAL));
    let size = || std::fs::metadata(&wal).map_or(0, |file| file.len());
    local.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("an empty log");
    let began = Instant::now();
    let mut run = agent.home.start(["sync", "--quiet"]);
    // In the middle: it writes.
    while size() < 1 << 20 && run.is_running() {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is written");
    }
    assert!(run.is_running(), "it was too fast to be killed");
    run.kill();
    assert_eq!(seen_here(&local), old);
    agent.home.run(["sync", "--quiet"]).expect_code(0);
    assert_eq!(seen_here(&local).0, 196_000);
    agent.home.run(["verify", "--quiet"]).expect_code(0);
}

#[test]
fn the_guard_of_the_local_side_leaves_all_as_it_is_until_a_person_agrees() {
    let site = Site::new(shared());
    let agent = pulling(&site);
    let local = agent.local();
    let old = seen_here(&local);
    site.owner()
        .batch_execute("DELETE FROM sales WHERE id % 2 = 0; UPDATE sales SET note = 'other' WHERE id < 100")
        .expect("half of the rows go");
    for _ in 0..2 {
        let run = agent.sync();
        assert_eq!(run.code, Some(1), "{run:?}");
        let report: Json = serde_json::from_str(&run.stdout).expect("a report");
        let sales = table_of(&report, "sales");
        assert_eq!(sales["status"], "different", "{report}");
        assert!(sales["moved"]["held_here"].as_u64() > Some(0), "{report}");
        assert_eq!(seen_here(&local), old, "not even changed rows arrive");
    }
    agent.home.run(["sync", "--quiet", "--allow-mass-delete"]).expect_code(0);
    assert_eq!(seen_here(&local).0, 100_000);
    agent.home.run(["verify", "--quiet"]).expect_code(0);
}
