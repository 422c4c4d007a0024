//! `direction = "pull"`: the server is right, a local database is written.

/// Tests that take a kind of local database, for one kind: `beside!(postgres, Postgres, first, second)`.
macro_rules! beside {
    ($module:ident, $kind:ident, $($test:ident),+ $(,)?) => {
        mod $module {
            $(#[test]
            fn $test() {
                super::$test(plimsoll_tests::Kind::$kind);
            })+
        }
    };
}

/// The same for each kind.
macro_rules! beside_each_kind {
    ($($test:ident),+ $(,)?) => {
        beside!(sqlite, Sqlite, $($test),+);
        beside!(postgres, Postgres, $($test),+);
        beside!(mariadb, MariaDb, $($test),+);
    };
}

mod along;
mod deaths;
mod guard;
mod keys;
mod large;
mod leases;
mod looks;
mod mixed;
mod refused;
mod restored;
mod site;

use plimsoll_tests::table_of;
use site::{ITEM, NOTE, Pull, SALE};

const ROWS: i64 = 100_000;

/// Rows of tables that the server read so far.
fn rows_read(pull: &mut Pull) -> i64 {
    let sql = "SELECT pg_stat_clear_snapshot()";
    let count = "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint FROM pg_stat_user_tables
                 WHERE schemaname = 'public'";
    // What a backend counted is told when it ends, soon after: that of this test's own looks too.
    pull.server = pull.site.superuser();
    std::thread::sleep(std::time::Duration::from_millis(300));
    pull.server.execute(sql, &[]).expect("a new look");
    pull.server.query_one(count, &[]).expect("counters").get(0)
}

#[test]
fn the_first_pull_brings_all_rows_and_an_idle_one_reads_none() {
    let mut pull = Pull::of(&[&SALE, &ITEM, &NOTE]);
    pull.there(
        "INSERT INTO sale SELECT $T, i, 'c' || i, i % 7, i / 3 FROM generate_series(1, 100000) i;
         INSERT INTO item SELECT $T, i, 'name ' || i % 1000 FROM generate_series(1, 100000) i;
         INSERT INTO note SELECT $T, 'note ' || i % 7, i % 20 FROM generate_series(1, 3000) i",
    );
    let would = pull.agent.home.run(["sync", "--dry-run", "--json", "--quiet"]).json();
    assert_eq!(table_of(&would, "sale")["moved"]["received"], ROWS, "{would}");
    assert_eq!(pull.rows(&SALE).0.len(), 0, "a run that only looks changes nothing");
    let notes = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'plimsoll%'";
    let made: i64 = pull.agent.local().query_row(notes, [], |row| row.get(0)).expect("a count");
    assert_eq!(made, 0, "nor does it make notes");
    let first = pull.sync();
    for (table, rows) in [("sale", ROWS), ("item", ROWS), ("note", 3_000)] {
        let report = table_of(&first, table);
        assert_eq!((&report["inserted"], &report["direction"]), (&rows.into(), &"pull".into()), "{first}");
        assert_eq!(
            (&report["status"], &report["moved"]["received"]),
            (&"level".into(), &rows.into()),
            "{first}"
        );
        assert_eq!(report["moved"]["sent"], 0, "{first}");
    }
    pull.assert_level("the first pull");
    // What a run wrote last may be known to the next one only once that read it.
    pull.sync();
    let before = rows_read(&mut pull);
    let idle = pull.sync();
    // The highest version is looked up by index.
    let read = rows_read(&mut pull) - before;
    assert!(read < 20, "{read} rows were read on the server");
    for table in ["sale", "item", "note"] {
        let report = table_of(&idle, table);
        assert_eq!((&report["status"], &report["moved"]["received"]), (&"level".into(), &0.into()), "{idle}");
    }
}

#[test]
fn what_changes_there_arrives_and_what_is_damaged_here_is_mended() {
    let mut pull = Pull::of(&[&SALE, &ITEM, &NOTE]);
    pull.there(
        "INSERT INTO sale SELECT $T, i, 'c' || i, i % 7, i FROM generate_series(1, 5000) i;
         INSERT INTO item SELECT $T, i, 'name ' || i % 1000 FROM generate_series(1, 5000) i;
         INSERT INTO note SELECT $T, 'note ' || i % 7, i % 20 FROM generate_series(1, 500) i",
    );
    pull.sync();
    pull.assert_level("the first pull");
    // New rows, changed ones with and without a higher version, deleted ones, a key that changed.
    pull.there(
        "UPDATE sale SET amount = 70, version = 6000 + id WHERE id % 500 = 0;
         UPDATE sale SET amount = 71 WHERE id = 77;
         DELETE FROM sale WHERE id IN (13, 2500, 4999);
         INSERT INTO sale SELECT $T, i, 'c' || i, NULL, 20000 + i FROM generate_series(6001, 6050) i;
         UPDATE item SET name = NULL WHERE id IN (5, 5000);
         DELETE FROM item WHERE id BETWEEN 100 AND 120;
         UPDATE item SET id = 9000 WHERE id = 4000;
         DELETE FROM note WHERE ctid IN (SELECT ctid FROM note WHERE amount = 3 LIMIT 2);
         UPDATE note SET text = 'other' WHERE ctid IN (SELECT ctid FROM note WHERE amount = 4 LIMIT 1);
         INSERT INTO note SELECT $T, 'note 1', 1 FROM generate_series(1, 3)",
    );
    let changed = pull.sync();
    assert_eq!(table_of(&changed, "item")["moved"]["deleted_here"], 22, "{changed}");
    assert_eq!(table_of(&changed, "sale")["moved"]["deleted_here"], 3, "{changed}");
    pull.assert_level("changes there");
    // Whatever an application does here is undone.
    pull.here(
        "UPDATE sale SET amount = -1 WHERE id = 50; DELETE FROM sale WHERE id IN (51, 6050);
         INSERT INTO sale VALUES (100000, 'mine', 1, 999999);
         UPDATE sale SET version = 1 WHERE id = 60;
         UPDATE item SET name = 'mine' WHERE id < 10; DELETE FROM item WHERE id = 9000;
         INSERT INTO item VALUES (100001, 'mine');
         INSERT INTO note VALUES ('mine', 1), ('note 1', 1); DELETE FROM note WHERE rowid = 7",
    );
    let mended = pull.sync();
    assert_eq!(table_of(&mended, "item")["moved"]["deleted_here"], 1, "{mended}");
    pull.assert_level("damage here");
    // A row that no encoding holds, and one without a version.
    pull.here(
        "UPDATE sale SET amount = 'many' WHERE id = 90; INSERT INTO sale VALUES (100002, 'x', 1, 'soon');
         UPDATE item SET name = x'00ff' WHERE id = 11; INSERT INTO note VALUES (x'ff', 'what')",
    );
    pull.sync();
    pull.sync();
    pull.assert_level("rows that cannot be read");
}

#[test]
fn unique_values_are_swapped_and_many_rows_share_a_version() {
    let mut pull = Pull::of(&[&SALE]);
    pull.there("INSERT INTO sale SELECT $T, i, 'c' || i, 0, 5 FROM generate_series(1, 30000) i");
    pull.sync();
    pull.assert_level("one version");
    pull.there(
        "ALTER TABLE sale DROP CONSTRAINT sale_client_id_database_id_code_key;
         UPDATE sale SET code = CASE id WHEN 1 THEN 'c2' WHEN 2 THEN 'c3' WHEN 3 THEN 'c1' WHEN 10 THEN 'c20000'
             ELSE 'c10' END, version = 6 WHERE id IN (1, 2, 3, 10, 20000);
         ALTER TABLE sale ADD UNIQUE (client_id, database_id, code)",
    );
    pull.sync();
    pull.assert_level("swapped");
}

#[test]
fn a_large_table_without_an_index_on_positions_is_read_few_times() {
    let mut pull = Pull::with(&[&ITEM], "[sync]\nmax_window_rows = 20000");
    pull.there("INSERT INTO item SELECT $T, i, 'name ' || i FROM generate_series(1, 150000) i");
    pull.sync();
    pull.there(
        "UPDATE item SET name = 'other' WHERE id % 1500 = 0; DELETE FROM item WHERE id % 1501 = 0;
         INSERT INTO item SELECT $T, i, 'new' FROM generate_series(200001, 200100) i",
    );
    pull.agent.home.set_env("PLIMSOLL_LOG", "plimsoll_client::target=trace");
    let run = pull.agent.sync().expect_code(0);
    let passes = run.stderr.matches("all rows of \"item\" are read").count();
    assert!((3..=10).contains(&passes), "{passes} passes\n{}", run.stderr);
    pull.assert_level("after few passes");
}

#[test]
fn an_agent_that_forgot_everything_goes_on_and_loses_nothing() {
    let mut pull = Pull::of(&[&SALE, &ITEM, &NOTE]);
    pull.there(
        "INSERT INTO sale SELECT $T, i, 'c' || i, i % 7, i FROM generate_series(1, 2000) i;
         INSERT INTO item SELECT $T, i, 'name' FROM generate_series(1, 2000) i;
         INSERT INTO note SELECT $T, 'note', i % 3 FROM generate_series(1, 200) i",
    );
    pull.sync();
    pull.there("DELETE FROM item WHERE id = 5; UPDATE sale SET amount = 9, version = 5000 WHERE id = 5");
    for name in std::fs::read_dir(pull.agent.home.path("")).expect("a directory").flatten() {
        let name = name.file_name().to_string_lossy().into_owned();
        if name.contains("state") {
            std::fs::remove_file(pull.agent.home.path(&name)).expect("removed");
        }
    }
    let report = pull.sync();
    assert_eq!(table_of(&report, "item")["moved"]["deleted_here"], 1, "{report}");
    assert_eq!(table_of(&report, "note")["moved"]["received"], 0, "{report}");
    pull.assert_level("state lost");
}

#[test]
fn an_application_that_writes_meanwhile_neither_waits_nor_is_lost_sight_of() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let mut pull = Pull::of(&[&SALE, &ITEM]);
    pull.here("CREATE TABLE own (id INTEGER PRIMARY KEY, text TEXT)");
    pull.there(
        "INSERT INTO sale SELECT $T, i, 'c' || i, i % 7, i FROM generate_series(1, 20000) i;
         INSERT INTO item SELECT $T, i, 'name' FROM generate_series(1, 20000) i",
    );
    let over = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let local = pull.agent.local();
            let mut written = 0;
            while !over.load(Ordering::Relaxed) {
                local.execute("INSERT INTO own (text) VALUES ('mine')", []).expect("an application writes");
                local
                    .execute("UPDATE item SET name = 'mine' WHERE id = ?1", [written % 20_000])
                    .expect("and here");
                written += 1;
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            written
        });
        for _ in 0..3 {
            let run = pull.agent.sync();
            assert!(run.code.is_some_and(|code| code < 2), "{}\n{}", run.stdout, run.stderr);
        }
        over.store(true, Ordering::Relaxed);
        writer.join().expect("the application")
    });
    assert!(written > 20, "{written} rows");
    pull.agent.level_within(4);
    pull.assert_level("after an application wrote");
    let own: i64 =
        pull.agent.local().query_row("SELECT count(*) FROM own", [], |row| row.get(0)).expect("rows");
    assert_eq!(own, written, "what is not managed stays");
}
