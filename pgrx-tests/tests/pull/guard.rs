//! What vanished on the server does not empty the local tables.

use plimsoll_tests::{Kind, LocalDatabase, faulty_client, table_of};

use crate::site::{ITEM, NOTE, Pull, SALE, Table};

fn a_replica_whose_rows_vanished_empties_nothing_here_until_a_person_agrees(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::new(kind), &[&ITEM, &NOTE], "");
    pull.there(
        "INSERT INTO item SELECT $T, i, 'name' FROM generate_series(1, 5000) i;
         INSERT INTO note SELECT $T, 'note', i FROM generate_series(1, 500) i",
    );
    pull.sync();
    pull.there(
        "DELETE FROM item; DELETE FROM note WHERE amount > 100; INSERT INTO item VALUES ($T, 7000, 'new')",
    );
    for _ in 0..2 {
        let run = pull.agent.sync().expect_code(1);
        let item = table_of(&run.json(), "item").clone();
        assert_eq!(
            (&item["moved"]["deleted_here"], &item["status"]),
            (&0.into(), &"different".into()),
            "{item}"
        );
        assert_eq!(pull.rows(&NOTE).0.len(), 500);
    }
    assert_eq!(pull.rows(&ITEM).0.len(), 5_001, "new rows still arrive");
    let shown = pull.agent.sync();
    assert!(shown.stderr.contains("on hold"), "{}", shown.stderr);
    pull.agent.home.run(["sync", "--allow-mass-delete", "--quiet"]);
    pull.assert_level("a person agreed");
    assert_eq!(pull.rows(&ITEM).0.len(), 1);
    // Once: what vanishes next is asked about again.
    pull.there("INSERT INTO item SELECT $T, i, 'name' FROM generate_series(1, 5000) i");
    pull.sync();
    pull.there("DELETE FROM item");
    pull.agent.sync().expect_code(1);
    assert_eq!(pull.rows(&ITEM).0.len(), 5_001);
}

fn rows_that_the_same_run_brought_make_no_loss_smaller(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::new(kind), &[&ITEM], "");
    pull.there("INSERT INTO item SELECT $T, i, 'name' FROM generate_series(1, 1000) i");
    pull.sync();
    pull.there(
        "DELETE FROM item; INSERT INTO item SELECT $T, i, 'other' FROM generate_series(20001, 30000) i",
    );
    pull.agent.sync().expect_code(1);
    assert_eq!(pull.rows(&ITEM).0.len(), 11_000, "all that were here stay, all that came are here");
}

fn deletes_in_slices_are_counted_together(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::new(kind), &[&ITEM], "");
    pull.there("INSERT INTO item SELECT $T, i, 'name' FROM generate_series(1, 1000) i");
    pull.sync();
    let mut left = 1_000;
    for slice in 0..6 {
        pull.there(&format!(
            "DELETE FROM item WHERE id BETWEEN {} AND {}",
            slice * 100 + 1,
            slice * 100 + 100
        ));
        pull.agent.sync();
        left = pull.rows(&ITEM).0.len();
    }
    assert_eq!(left, 600, "a fifth, and a fifth of the rows that are free");
}

#[test]
fn rows_without_a_key_whose_newer_versions_came_are_not_lost() {
    let mut pull = Pull::of(&[&NOTE]);
    pull.there("INSERT INTO note SELECT $T, 'note', i FROM generate_series(1, 20000) i");
    pull.sync();
    // Many more than the guard lets go, in deletes of 10,000.
    pull.there("UPDATE note SET text = 'new' WHERE amount > 5000");
    let report = pull.sync();
    assert_eq!(table_of(&report, "note")["moved"]["deleted_here"], 15_000, "{report}");
    pull.assert_level("altered");
    // What is lost counts beside them.
    pull.there("UPDATE note SET text = 'newer' WHERE amount > 10000; DELETE FROM note WHERE amount <= 6000");
    pull.agent.sync().expect_code(1);
    assert_eq!(pull.rows(&NOTE).0.len(), 30_000, "what came is here, and nothing went");
    pull.agent.home.run(["sync", "--allow-mass-delete", "--quiet"]);
    pull.assert_level("a person agreed");
}

fn a_run_that_ended_between_newer_and_older_rows_is_gone_on_with(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::new(kind), &[&NOTE], "");
    pull.there("INSERT INTO note SELECT $T, 'note', i FROM generate_series(1, 1000) i");
    pull.sync();
    pull.there("UPDATE note SET text = 'new' WHERE amount > 300");
    pull.agent.home.set_binary(faulty_client());
    pull.agent.home.set_env("PLIMSOLL_FAULT", "before-delete");
    assert_eq!(pull.agent.sync().code, None);
    pull.agent.home.unset_env("PLIMSOLL_FAULT");
    assert_eq!(pull.rows(&NOTE).0.len(), 1_700, "what came is here, and what is to go");
    pull.agent.sync().expect_code(0);
    pull.assert_level("the next run");
    // What came before the table was level makes room for no loss afterwards.
    pull.there("DELETE FROM note WHERE amount > 300");
    pull.agent.sync().expect_code(1);
    assert_eq!(pull.rows(&NOTE).0.len(), 1_000);
}

// Numbers of runs come again from a server that was put back.
#[test]
fn what_was_replaced_before_a_server_was_restored_makes_room_for_nothing() {
    let mut pull = Pull::of(&[&NOTE]);
    pull.there("INSERT INTO note SELECT $T, 'note', i FROM generate_series(1, 300) i");
    pull.sync();
    pull.there(
        "SELECT setval('plimsoll.run_number', 100);
         INSERT INTO note SELECT $T, 'more', i FROM generate_series(1, 1000) i",
    );
    pull.sync();
    pull.there(
        "SELECT setval('plimsoll.run_number', 60); DELETE FROM note WHERE text = 'note' AND amount = 1",
    );
    pull.sync();
    pull.assert_level("restored");
    pull.there("DELETE FROM note WHERE text = 'more'");
    pull.agent.sync().expect_code(1);
    assert_eq!(pull.rows(&NOTE).0.len(), 1_299, "rows were deleted as if others had come for them");
}

fn rows_without_a_key_that_were_here_before_the_first_pull_are_not_replaced(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::new(kind), &[&NOTE], "");
    pull.there("INSERT INTO note SELECT $T, 'note', i FROM generate_series(1, 500) i");
    let mine =
        "INSERT INTO note WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
                SELECT 'mine', i FROM n";
    pull.here(mine);
    pull.agent.sync().expect_code(1);
    assert_eq!(pull.rows(&NOTE).0.len(), 1_000, "those that came, and those that were here");
    pull.agent.home.run(["sync", "--allow-mass-delete", "--quiet"]);
    pull.assert_level("a person agreed");
}

#[test]
fn one_approval_is_enough_for_rows_that_are_set_back_in_several_uploads() {
    let mut pull = Pull::of(&[&SALE]);
    pull.here("CREATE INDEX sale_version ON sale (version, id)");
    pull.there("INSERT INTO sale SELECT $T, i, 'c' || i, i % 7, 100000 + i FROM generate_series(1, 30000) i");
    pull.sync();
    pull.there("UPDATE sale SET version = id WHERE id <= 25000");
    pull.agent.sync().expect_code(1);
    let mut here = pull.local.connect();
    let held = here.rows("SELECT planned FROM plimsoll_hold WHERE relation = 'sale'");
    let left = here.rows("SELECT count(*) FROM sale WHERE id <= 25000 AND version > 100000");
    assert_eq!(held, left, "each row counts once");
    pull.agent.home.run(["sync", "--allow-mass-delete", "--quiet"]).expect_code(0);
    pull.assert_level("a person agreed");
    let released = here.rows("SELECT count(*) FROM plimsoll_hold WHERE released > 0");
    assert_eq!(released, [[Some("0".to_owned())]], "nothing is left of it");
}

fn a_server_restored_from_an_old_backup_sets_nothing_back_here(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::new(kind), &[&SALE, &OTHER], "");
    pull.there(
        "INSERT INTO sale SELECT $T, i, 'c' || i, i % 7, i FROM generate_series(1, 3000) i;
         INSERT INTO other SELECT $T, i, i FROM generate_series(1, 3000) i",
    );
    pull.sync();
    // As many rows as the guard would let go.
    pull.there("DELETE FROM sale WHERE version > 2900; DELETE FROM other WHERE version > 2900");
    let run = pull.agent.sync().expect_code(1);
    assert!(run.stderr.contains("fell, as after restoring a backup"), "{}", run.stderr);
    assert_eq!((pull.rows(&SALE).0.len(), pull.rows(&OTHER).0.len()), (3_000, 3_000));
    pull.agent.home.run(["sync", "--allow-mass-delete", "--quiet"]);
    pull.assert_level("a person agreed");
    // One table alone is no such sign.
    pull.there("DELETE FROM sale WHERE version > 2890");
    pull.sync();
    pull.assert_level("one table");
}

#[test]
fn what_is_left_of_an_approval_lets_no_table_fall() {
    let mut pull = Pull::of(&[&SALE, &OTHER]);
    pull.there(
        "INSERT INTO sale SELECT $T, i, 'c' || i, i % 7, i FROM generate_series(1, 3000) i;
         INSERT INTO other SELECT $T, i, i FROM generate_series(1, 3000) i",
    );
    pull.sync();
    // 1,300 are agreed to be lost, of which 50 come back: so many are left of it.
    pull.there("DELETE FROM sale WHERE id <= 1300");
    pull.agent.sync().expect_code(1);
    pull.there("INSERT INTO sale SELECT $T, i, 'c' || i, i % 7, i FROM generate_series(1251, 1300) i");
    pull.agent.home.run(["sync", "--allow-mass-delete", "--quiet"]).expect_code(0);
    pull.assert_level("a person agreed");
    pull.there("DELETE FROM sale WHERE version > 2900; DELETE FROM other WHERE version > 2900");
    let run = pull.agent.sync().expect_code(1);
    assert!(run.stderr.contains("fell, as after restoring a backup"), "{}", run.stderr);
    assert_eq!((pull.rows(&SALE).0.len(), pull.rows(&OTHER).0.len()), (1_750, 3_000));
}

/// What is left of the approval of a table's rows.
fn released(pull: &Pull, table: &str) -> Vec<Vec<Option<String>>> {
    pull.local.connect().rows(&format!("SELECT released FROM plimsoll_hold WHERE relation = '{table}'"))
}

fn an_approval_stays_good_for_rows_that_cannot_go_yet(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::new(kind), &[&ITEM], "");
    pull.there("INSERT INTO item SELECT $T, i, 'name' FROM generate_series(1, 1000) i");
    pull.sync();
    pull.here(
        "CREATE TABLE own (item INTEGER REFERENCES item (id));
         INSERT INTO own SELECT id FROM item WHERE id <= 500",
    );
    pull.there("DELETE FROM item WHERE id <= 900");
    pull.agent.sync().expect_code(1);
    assert_eq!(pull.rows(&ITEM).0.len(), 1_000);
    pull.agent.home.run(["sync", "--allow-mass-delete", "--quiet"]).expect_code(1);
    assert_eq!(pull.rows(&ITEM).0.len(), 600, "what nothing refers to is gone");
    assert_eq!(released(&pull, "item"), [[Some("500".to_owned())]]);
    pull.here("DELETE FROM own");
    pull.sync();
    pull.assert_level("by the same approval");
    assert_eq!(released(&pull, "item"), [[Some("0".to_owned())]]);
}

fn an_approval_stays_good_for_rows_that_cannot_be_set_back_yet(kind: Kind) {
    let local = LocalDatabase::new(kind);
    local.connect().run("CREATE TABLE own (id INTEGER PRIMARY KEY); INSERT INTO own VALUES (1)");
    let mut pull = Pull::beside(local, &[&PART], "");
    pull.there("INSERT INTO part SELECT $T, i, 1, 10000 + i FROM generate_series(1, 1000) i");
    pull.sync();
    pull.there("UPDATE part SET version = id, own = CASE WHEN id <= 500 THEN 2 ELSE 1 END WHERE id <= 900");
    let lower = |pull: &Pull| pull.local.connect().rows("SELECT 1 FROM part WHERE version < 10000").len();
    pull.agent.sync().expect_code(1);
    assert_eq!(lower(&pull), 0);
    pull.agent.home.run(["sync", "--allow-mass-delete", "--quiet"]);
    assert_eq!(lower(&pull), 400, "those that refer to a row that is here");
    assert_eq!(released(&pull, "part"), [[Some("500".to_owned())]]);
    pull.here("INSERT INTO own VALUES (2)");
    pull.agent.level_within(2);
    pull.assert_level("by the same approval");
    assert_eq!(released(&pull, "part"), [[Some("0".to_owned())]]);
}

/// Refers here to a table that is not pulled.
const PART: Table = Table {
    name: "part",
    managed: "id bigint NOT NULL, own bigint, version bigint NOT NULL, PRIMARY KEY (client_id, database_id, id)",
    manage: ", version_column => 'version'",
    local: "id INTEGER PRIMARY KEY, own INTEGER REFERENCES own (id), version INTEGER NOT NULL",
    text: "id || ',' || own || ',' || version",
};

const OTHER: Table = Table {
    name: "other",
    managed: "id bigint NOT NULL, version bigint NOT NULL, PRIMARY KEY (client_id, database_id, id)",
    manage: ", version_column => 'version'",
    local: "id INTEGER PRIMARY KEY, version INTEGER NOT NULL",
    text: "id || ',' || version",
};

beside_each_kind!(
    a_replica_whose_rows_vanished_empties_nothing_here_until_a_person_agrees,
    rows_that_the_same_run_brought_make_no_loss_smaller,
    deletes_in_slices_are_counted_together,
    a_run_that_ended_between_newer_and_older_rows_is_gone_on_with,
    rows_without_a_key_that_were_here_before_the_first_pull_are_not_replaced,
    a_server_restored_from_an_old_backup_sets_nothing_back_here,
    an_approval_stays_good_for_rows_that_cannot_go_yet,
    an_approval_stays_good_for_rows_that_cannot_be_set_back_yet
);
