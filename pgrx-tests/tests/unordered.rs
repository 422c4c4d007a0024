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
