//! A SQLite database with tables that have no version, and one without a key: replicated, changed and damaged, and made
//! level again. The larger one is compared by passes over all of its rows.

use plimsoll_tests::{Agent, Site, shared, table_of};
use postgres::Client;
use rusqlite::Connection;

/// More than one window has.
const ROWS: i64 = 220_000;

const LOCAL_TABLES: &str = "
    CREATE TABLE plain (id INTEGER PRIMARY KEY, name TEXT);
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 220000)
        INSERT INTO plain SELECT i, 'name ' || (i % 1000) FROM n;
    CREATE TABLE notes (text TEXT, amount INTEGER);
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
        INSERT INTO notes SELECT 'note ' || (i % 7), i % 20 FROM n;";

const MANAGED_TABLES: &str = "
    GRANT CREATE ON SCHEMA public TO {owner};
    CREATE TABLE plain (client_id text NOT NULL, database_id uuid NOT NULL, id bigint NOT NULL, name text,
        PRIMARY KEY (client_id, database_id, id));
    CREATE TABLE notes (client_id text NOT NULL, database_id uuid NOT NULL, text text, amount bigint);
    ALTER TABLE plain OWNER TO {owner};
    ALTER TABLE notes OWNER TO {owner};
    SELECT plimsoll.manage_table('public.plain');
    SELECT plimsoll.manage_table('public.notes', key_columns => '{}');";

/// How often each row is there, by either side's own text.
fn local_rows(local: &Connection, table: &str) -> Vec<String> {
    let sql = match table {
        "plain" => "SELECT id || ',' || coalesce(name, '-') FROM plain",
        _ => "SELECT coalesce(text, '-') || ',' || coalesce(amount, '-') FROM notes",
    };
    let mut statement = local.prepare(sql).expect("a statement");
    let mut rows: Vec<String> =
        statement.query_map([], |row| row.get(0)).expect("rows").map(|row| row.expect("a row")).collect();
    rows.sort_unstable();
    rows
}

fn remote_rows(server: &mut Client, table: &str) -> Vec<String> {
    let sql = match table {
        "plain" => "SELECT id || ',' || coalesce(name, '-') FROM plain",
        _ => "SELECT coalesce(text, '-') || ',' || coalesce(amount::text, '-') FROM notes",
    };
    let mut rows: Vec<String> = server.query(sql, &[]).expect("rows").iter().map(|row| row.get(0)).collect();
    rows.sort_unstable();
    rows
}

#[track_caller]
fn assert_level(agent: &Agent, site: &Site<'_>, context: &str) {
    let report = agent.sync().expect_code(0);
    assert_eq!(agent.home.run(["verify", "--quiet"]).code, Some(0), "{context}: {}", report.stdout);
    for table in ["plain", "notes"] {
        let (here, there) = (local_rows(&agent.local(), table), remote_rows(&mut site.superuser(), table));
        assert!(here == there, "{context}: {table} has {} rows here, {} there", here.len(), there.len());
    }
}

#[test]
fn tables_without_version_or_key_are_made_level() {
    let site = Site::new(shared());
    let agent = site.agent("client", LOCAL_TABLES, &["plain", "notes"], "");
    let managed = MANAGED_TABLES.replace("{owner}", &site.owner);
    site.superuser().batch_execute(&managed).expect("managed tables");
    let first = agent.sync().expect_code(0).json();
    for (table, rows) in [("plain", ROWS), ("notes", 3_000)] {
        assert_eq!(table_of(&first, table)["inserted"], rows, "{first}");
        assert_eq!(table_of(&first, table)["status"], "level", "{first}");
    }
    let again = agent.sync().expect_code(0).json();
    assert_eq!(table_of(&again, "plain")["status"], "level", "{again}");
    assert_eq!(table_of(&again, "plain")["compared_rows"], 0, "nothing says that a row changed: {again}");

    agent
        .local()
        .execute_batch(
            "UPDATE plain SET name = 'other' WHERE id IN (5, 100000, 219999); DELETE FROM plain WHERE id = 70000;
             INSERT INTO plain VALUES (-4, 'new');
             DELETE FROM notes WHERE rowid IN (SELECT rowid FROM notes WHERE amount = 3 LIMIT 2);
             INSERT INTO notes VALUES ('note 1', 1), ('note 1', 1), (NULL, NULL), (NULL, NULL);",
        )
        .expect("changes");
    assert_level(&agent, &site, "changes");

    site.owner()
        .batch_execute(
            "INSERT INTO notes SELECT (n).* FROM (SELECT n FROM notes n LIMIT 40) AS n;
             DELETE FROM notes WHERE ctid IN (SELECT ctid FROM notes WHERE amount = 7 LIMIT 3);
             DELETE FROM plain WHERE id % 40000 = 1; UPDATE plain SET name = 'damage' WHERE id % 50000 = 2;",
        )
        .expect("damage");
    assert_level(&agent, &site, "damage");
    site.owner().batch_execute("DELETE FROM plain WHERE id > 1000; TRUNCATE notes").expect("a disaster");
    assert_level(&agent, &site, "a disaster");
}

#[test]
fn what_the_guard_held_is_deleted_in_the_run_after_its_release() {
    let site = Site::new(shared());
    let agent = site.agent("client", LOCAL_TABLES, &["plain", "notes"], "");
    let managed = MANAGED_TABLES.replace("{owner}", &site.owner);
    site.superuser().batch_execute(&managed).expect("managed tables");
    agent.sync().expect_code(0);
    let fewer = "DELETE FROM plain WHERE id > 150000; DELETE FROM notes WHERE rowid > 500";
    agent.local().execute_batch(fewer).expect("fewer rows");
    // Once they are held, nothing changes any more on either side.
    for _ in 0..3 {
        let report = agent.sync().expect_code(1).json();
        for table in ["plain", "notes"] {
            assert_eq!(table_of(&report, table)["status"], "different", "{report}");
        }
    }
    let release =
        "SELECT plimsoll.release_hold(database_id, relation) FROM plimsoll.replicas WHERE database_id = $1";
    site.superuser().execute(release, &[&agent.registered.id]).expect("a release");
    assert_level(&agent, &site, "released");
}

#[test]
fn rejected_rows_longer_than_what_is_remembered_are_found_again() {
    let site = Site::new(shared());
    // No index takes such a key; no keyless row is found but by its content.
    let tables = "
        CREATE TABLE plain (id TEXT PRIMARY KEY, name TEXT);
        CREATE TABLE notes (text TEXT);
        INSERT INTO plain VALUES ('short', 'a'), (hex(randomblob(60000)), 'b');
        INSERT INTO notes VALUES ('short'), (hex(randomblob(60000)));";
    let agent = site.agent("client", tables, &["plain", "notes"], "");
    let managed = "
        GRANT CREATE ON SCHEMA public TO {owner};
        CREATE TABLE plain (client_id text NOT NULL, database_id uuid NOT NULL, id text NOT NULL, name text,
            PRIMARY KEY (client_id, database_id, id));
        CREATE TABLE notes (client_id text NOT NULL, database_id uuid NOT NULL, text text CHECK (length(text) < 1000));
        ALTER TABLE plain OWNER TO {owner};
        ALTER TABLE notes OWNER TO {owner};
        SELECT plimsoll.manage_table('public.plain');
        SELECT plimsoll.manage_table('public.notes', key_columns => '{}');";
    site.superuser().batch_execute(&managed.replace("{owner}", &site.owner)).expect("managed tables");
    let counts = |site: &Site<'_>| {
        let sql = "SELECT (SELECT count(*) FROM plain), (SELECT count(*) FROM notes),
                          (SELECT count(*) FROM plimsoll.rejected_rows)";
        let row = site.superuser().query_one(sql, &[]).expect("counts");
        [row.get::<_, i64>(0), row.get(1), row.get(2)]
    };
    for _ in 0..2 {
        let report = agent.sync();
        assert_eq!(counts(&site), [1, 1, 2], "{} {}", report.stdout, report.stderr);
    }
    agent
        .local()
        .execute_batch(
            "UPDATE plain SET id = 'longer' WHERE name = 'b'; UPDATE notes SET text = 'longer' WHERE text <> 'short'",
        )
        .expect("mended");
    agent.sync().expect_code(0);
    assert_eq!(counts(&site), [2, 2, 0]);
}

/// Few rows, but more than one window has.
const FEW: &str = "
    CREATE TABLE plain (id INTEGER PRIMARY KEY, name TEXT);
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
        INSERT INTO plain SELECT i, 'name ' || (i % 1000) FROM n;
    CREATE TABLE notes (text TEXT, amount INTEGER);
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
        INSERT INTO notes SELECT 'note ' || (i % 7), i % 20 FROM n;";

const SMALL_WINDOWS: &str = "[sync]\nwindow_rows = 1000\nmax_window_rows = 1000\n";

fn few(site: &Site<'_>, before: &str) -> Agent {
    let agent = site.agent("client", &[before, FEW].concat(), &["plain", "notes"], SMALL_WINDOWS);
    let managed = MANAGED_TABLES.replace("{owner}", &site.owner);
    site.superuser().batch_execute(&managed).expect("managed tables");
    agent
}

#[test]
fn a_run_reads_nothing_where_nothing_changed() {
    for journal in ["delete", "wal"] {
        let site = Site::new(shared());
        let agent = few(&site, &format!("PRAGMA journal_mode = {journal};"));
        for changed in [false, true] {
            // An application that has the database open, or none.
            let application = changed.then(|| agent.local());
            agent.sync().expect_code(0);
            for run in 2..6 {
                if run > 3 {
                    // Somebody looks, and changes nothing.
                    assert_eq!(local_rows(&agent.local(), "notes").len(), 3_000 + usize::from(changed));
                }
                let report = agent.sync().expect_code(0).json();
                for table in ["plain", "notes"] {
                    let context = format!("run {run} of {table}, {journal}: {report}");
                    assert_eq!(table_of(&report, table)["status"], "level", "{context}");
                    assert_eq!(table_of(&report, table)["compared_rows"], 0, "{context}");
                    assert_eq!(table_of(&report, table)["windows"], 0, "{context}");
                }
            }
            let changes = "DELETE FROM plain WHERE id = 7; INSERT INTO notes VALUES ('more', 1);";
            application.unwrap_or_else(|| agent.local()).execute_batch(changes).expect("changes");
        }
        assert_level(&agent, &site, journal);
    }
}

#[test]
fn a_dry_run_tells_what_would_be_sent_and_deleted() {
    let site = Site::new(shared());
    let agent = few(&site, "");
    agent.sync().expect_code(0);
    let dry = || agent.home.run(["sync", "--dry-run", "--json", "--quiet"]);
    let report = dry().expect_code(0).json();
    for table in ["plain", "notes"] {
        assert_eq!(table_of(&report, table)["status"], "level", "all rows were compared: {report}");
        assert_eq!(table_of(&report, table)["compared_rows"], 3_000, "{report}");
    }
    let changes = "UPDATE plain SET name = 'other' WHERE id IN (1, 2); DELETE FROM plain WHERE id = 3;
         UPDATE notes SET amount = -1 WHERE rowid = 9; INSERT INTO notes VALUES ('note 1', 1);";
    agent.local().execute_batch(changes).expect("changes");
    let report = dry().expect_code(1).json();
    // A row without a key that changed is another row: one is sent, one deleted.
    for (table, send, delete) in [("plain", 2, 1), ("notes", 2, 1)] {
        let told = table_of(&report, table);
        assert_eq!(told["status"], "different", "{report}");
        assert_eq!((&told["would_send"], &told["would_delete"]), (&send.into(), &delete.into()), "{report}");
    }
    let text = agent.home.run(["sync", "--dry-run", "--quiet"]).expect_code(1).stdout;
    assert!(text.contains("would send") && !text.contains("counts agree"), "{text}");
    assert_level(&agent, &site, "the run itself");
}

/// As many rows as the ordinary suite has time for, or as many as `PLIMSOLL_LARGE` asks for.
fn rows_or(few: i64, large: i64) -> i64 {
    if std::env::var_os("PLIMSOLL_LARGE").is_some() { large } else { few }
}

/// A table without a key that holds these rows, replicated.
fn notes_of(site: &Site<'_>, row: &str, rows: i64) -> Agent {
    let tables = format!(
        "CREATE TABLE notes (text TEXT, amount INTEGER);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
            INSERT INTO notes SELECT {row} FROM n;"
    );
    // A pass over a large table is made in each run.
    let agent = site.agent("client", &tables, &["notes"], "[sync]\nsweep_interval = \"1m\"\n");
    let managed = MANAGED_TABLES.replace("{owner}", &site.owner);
    site.superuser().batch_execute(&managed).expect("managed tables");
    let report = agent.sync().expect_code(0).json();
    assert_eq!(table_of(&report, "notes")["status"], "level", "{report}");
    println!("{rows} rows sent in {} s", report["seconds"]);
    agent
}

/// Makes runs until both sides hold the same.
#[track_caller]
fn level_notes(agent: &Agent, site: &Site<'_>, most: u32) {
    for run in 1..=most {
        let report = agent.sync().json();
        println!("run {run}: {report}");
        if local_rows(&agent.local(), "notes") == remote_rows(&mut site.superuser(), "notes") {
            agent.home.run(["verify", "--quiet"]).expect_code(0);
            return;
        }
    }
    panic!("not level after {most} runs");
}

#[test]
fn half_of_a_table_without_a_key_altered_at_random_is_mended_in_few_runs() {
    let site = Site::new(shared());
    let agent = notes_of(&site, "'note ' || i, i", rows_or(20_000, 200_000));
    let damage = "SELECT setseed(0.5); UPDATE notes SET text = text || '!' WHERE random() < 0.5";
    site.owner().batch_execute(damage).expect("damage");
    // As many rows are deleted as would be held.
    let option = "SELECT plimsoll.set_option($1, 'guard_fraction', '1')";
    site.superuser().execute(option, &[&agent.registered.id]).expect("an option");
    level_notes(&agent, &site, 3);
}

#[test]
fn very_many_equal_rows_without_a_key_are_counted_on_both_sides() {
    let site = Site::new(shared());
    let rows = rows_or(50_000, 1_000_000);
    let agent = notes_of(&site, "CASE WHEN i % 1000 > 0 THEN 'equal' ELSE 'other ' || i END, 1", rows);
    agent
        .local()
        .execute_batch("DELETE FROM notes WHERE rowid % 5000 = 1; INSERT INTO notes VALUES ('other', 1)")
        .expect("fewer equal ones");
    level_notes(&agent, &site, 2);
    let damage = "DELETE FROM notes WHERE ctid IN (SELECT ctid FROM notes WHERE text = 'equal' LIMIT 30)";
    site.owner().batch_execute(damage).expect("damage");
    level_notes(&agent, &site, 2);
}

/// A counter that an application keeps in a table of one row, and a few settings: altered again and again, these tables lose
/// nothing. Without a key each altered row is one that goes and one that comes.
#[test]
fn a_small_table_without_a_key_is_altered_without_end() {
    let site = Site::new(shared());
    let tables = "CREATE TABLE plain (id INTEGER PRIMARY KEY, name TEXT);
        CREATE TABLE notes (text TEXT, amount INTEGER); INSERT INTO notes VALUES ('counter', 0);";
    let agent = site.agent("client", tables, &["plain", "notes"], "");
    let managed = MANAGED_TABLES.replace("{owner}", &site.owner);
    site.superuser().batch_execute(&managed).expect("managed tables");
    assert_level(&agent, &site, "first");
    for step in 0..4 {
        agent.local().execute_batch("UPDATE notes SET amount = amount + 1").expect("a change");
        assert_level(&agent, &site, &format!("step {step}"));
    }
    let more = "INSERT INTO notes SELECT 'setting', value FROM json_each('[1,2,3,4,5,6,7,8,9]')";
    agent.local().execute_batch(more).expect("more rows");
    assert_level(&agent, &site, "more rows");
    agent.local().execute_batch("UPDATE notes SET amount = amount + 100").expect("all altered");
    assert_level(&agent, &site, "all altered");

    // Rows that nothing comes for are lost, however many were added before.
    agent.local().execute_batch("DELETE FROM notes WHERE amount > 103").expect("a loss");
    let report = agent.sync().expect_code(1).json();
    assert_eq!(table_of(&report, "notes")["held"], 7, "{report}");
    let report = agent.sync().expect_code(1).json();
    assert_eq!(table_of(&report, "notes")["status"], "different", "{report}");
}
