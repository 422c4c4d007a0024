//! Rows here whose keys the server cannot have, or has once where there are several here.

use plimsoll_tests::table_of;

use crate::site::{Pull, SALE, Table};

/// Keys that are spelled in capitals or not are one on the server.
const TAG: Table = Table {
    name: "tag",
    managed: "id uuid NOT NULL, name text, version bigint NOT NULL, PRIMARY KEY (client_id, database_id, id)",
    manage: ", version_column => 'version'",
    local: "id TEXT PRIMARY KEY, name TEXT, version INTEGER NOT NULL",
    text: "lower(CAST(id AS text)) || ',' || name || ',' || version",
};

/// The same without a version.
const LABEL: Table = Table {
    name: "label",
    managed: "id uuid NOT NULL, name text, PRIMARY KEY (client_id, database_id, id)",
    manage: "",
    local: "id TEXT PRIMARY KEY, name TEXT",
    text: "lower(CAST(id AS text)) || ',' || name",
};

/// A table of which the server keeps no manifest: a run compares a part of it.
const PRICE: Table = Table {
    name: "price",
    managed: "id bigint NOT NULL, amount bigint, version bigint NOT NULL, PRIMARY KEY (client_id, database_id, id)",
    manage: ", version_column => 'version', keep_manifest => false",
    local: "id INTEGER PRIMARY KEY, amount INTEGER, version INTEGER",
    text: "id || ',' || amount || ',' || version",
};

const SNAPSHOT: &str = "direction = \"snapshot\"\nsnapshot_from = \"remote\"";

fn turn(pull: &Pull, direction: &str) {
    let text = std::fs::read_to_string(pull.agent.home.path("plimsoll.toml")).expect("a configuration");
    pull.agent.home.write("plimsoll.toml", &text.replace("direction = \"pull\"", direction));
}

/// Both tables, with so many rows each that were pulled once.
fn tagged(rows: u32) -> Pull {
    let mut pull = Pull::of(&[&TAG, &LABEL]);
    pull.there(&format!(
        "INSERT INTO tag SELECT $T, md5(i::text)::uuid, 'n' || i, i FROM generate_series(1, {rows}) i;
         INSERT INTO label SELECT $T, md5(i::text)::uuid, 'n' || i FROM generate_series(1, {rows}) i"
    ));
    pull.sync();
    pull
}

#[test]
fn of_rows_here_that_are_one_there_one_is_left() {
    let mut pull = tagged(200);
    for direction in ["direction = \"pull\"", SNAPSHOT] {
        turn(&pull, direction);
        // Lower and higher versions, other content and the same.
        pull.here(
            "INSERT INTO tag SELECT upper(id), 'other', version - 1 FROM tag WHERE version IN (5, 100);
             INSERT INTO tag SELECT upper(id), 'other', version + 300 FROM tag WHERE version = 6;
             INSERT INTO tag SELECT upper(id), name, version FROM tag WHERE version = 7;
             INSERT INTO label SELECT upper(id), 'other' FROM label WHERE name IN ('n5', 'n100');
             INSERT INTO label SELECT upper(id), name FROM label WHERE name = 'n7'",
        );
        let report = pull.sync();
        for (table, surplus) in [("tag", 4), ("label", 3)] {
            let report = table_of(&report, table);
            assert_eq!(report["moved"]["deleted_here"], surplus, "{direction} {report}");
            assert_eq!(report["status"], "level", "{direction} {report}");
        }
        pull.assert_level(direction);
    }
}

#[test]
fn rows_that_no_encoding_holds_are_overwritten_wherever_they_stand() {
    let mut pull = Pull::with(&[&PRICE], "[sync]\nwindow_rows = 50\nmax_window_rows = 50\ntail_rows = 8");
    pull.there("INSERT INTO price SELECT $T, i, i, i FROM generate_series(1, 3000) i");
    pull.sync();
    pull.assert_level("at first");
    pull.here(
        "CREATE TABLE gone (id INTEGER);
         CREATE TRIGGER tells AFTER DELETE ON price BEGIN INSERT INTO gone VALUES (old.id); END;
         UPDATE price SET amount = 'n/a', version = 9000 WHERE id BETWEEN 1000 AND 1199;
         UPDATE price SET amount = 'n/a', version = NULL WHERE id BETWEEN 2000 AND 2199",
    );
    for _ in 0..4 {
        let report = pull.sync();
        assert_eq!(table_of(&report, "price")["moved"]["deleted_here"], 0, "{report}");
    }
    assert_eq!(pull.local.connect().rows("SELECT id FROM gone").len(), 0, "rows were deleted");
    pull.assert_same("in the end");
}

#[test]
fn a_row_whose_key_is_null_is_deleted() {
    let mut pull = tagged(50);
    for direction in ["direction = \"pull\"", SNAPSHOT] {
        turn(&pull, direction);
        pull.here(
            "INSERT INTO tag VALUES (NULL, 'mine', 3), (NULL, 'mine', 4);
             INSERT INTO label VALUES (NULL, 'mine'), (NULL, 'mine'), (NULL, NULL)",
        );
        let report = pull.sync();
        assert_eq!(table_of(&report, "tag")["moved"]["deleted_here"], 2, "{direction} {report}");
        assert_eq!(table_of(&report, "label")["moved"]["deleted_here"], 3, "{direction} {report}");
        pull.assert_level(direction);
    }
}

#[test]
fn a_snapshot_says_why_a_row_cannot_be_deleted() {
    let mut pull = Pull::of(&[&LABEL]);
    pull.there("INSERT INTO label SELECT $T, md5(i::text)::uuid, 'n' || i FROM generate_series(1, 50) i");
    pull.sync();
    turn(&pull, SNAPSHOT);
    pull.here(
        "CREATE TRIGGER keeps BEFORE DELETE ON label WHEN old.name = 'n7'
             BEGIN SELECT RAISE(ABORT, 'seven is never given up'); END",
    );
    pull.there("DELETE FROM label WHERE name IN ('n7', 'n8')");
    let run = pull.agent.sync().expect_code(1);
    let failure = table_of(&run.json(), "label")["failure"].to_string();
    assert!(failure.contains("cannot be deleted: seven is never given up"), "{failure}");
    assert_eq!(pull.rows(&LABEL).0.len(), 50, "the snapshot was undone");
}

#[test]
fn rows_that_are_overwritten_again_and_again_are_none_too_many() {
    let mut pull = Pull::of(&[&SALE]);
    pull.here("CREATE INDEX sale_version ON sale (version, id)");
    pull.there("INSERT INTO sale SELECT $T, i, 'c' || i, 1, i FROM generate_series(1, 2000) i");
    pull.sync();
    // What is set back is noted behind the rows of its transaction: then an application has its own way again.
    let mine =
        "UPDATE sale SET amount = -1 WHERE id > 500; UPDATE sale SET version = version + 1 WHERE id = 600";
    let again =
        |event: &str| format!("CREATE TRIGGER on_{event} AFTER {event} ON plimsoll_guard BEGIN {mine}; END");
    pull.here(&format!("{mine}; {}; {}", again("INSERT"), again("UPDATE")));
    let report = pull.agent.sync().json();
    let report = table_of(&report, "sale");
    assert!(report["updated"].as_u64() > Some(3_000), "they were sent more than twice: {report}");
    assert_eq!((&report["held"], &report["moved"]["deleted_here"]), (&0.into(), &0.into()), "{report}");
    assert_eq!(
        pull.local.connect().rows("SELECT 1 FROM plimsoll_hold").len(),
        0,
        "nobody need agree to anything"
    );
    pull.here("DROP TRIGGER on_INSERT; DROP TRIGGER on_UPDATE");
    pull.agent.level_within(2);
    pull.assert_level("left alone");
}
