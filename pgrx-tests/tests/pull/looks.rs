//! What only looks needs no right to write; and one table that cannot begin is that table's matter alone.

use plimsoll_tests::{LOCAL, table_of};

use crate::site::{ITEM, PERSON, Pull, SALE};

const SNAPSHOT: &str = "direction = \"snapshot\"\nsnapshot_from = \"remote\"";

#[test]
fn a_file_that_may_only_be_read_can_be_compared_and_not_written() {
    let mut pull = Pull::of(&[&SALE, &ITEM, &PERSON]);
    pull.configure_each(&[
        (&SALE, "direction = \"pull\""),
        (&ITEM, SNAPSHOT),
        (&PERSON, "direction = \"two-way\""),
    ]);
    pull.there(
        "INSERT INTO sale SELECT $T, i, 'c' || i, 0, i FROM generate_series(1, 50) i;
         INSERT INTO item SELECT $T, i, 'item' FROM generate_series(1, 50) i;
         INSERT INTO person SELECT $T, i, 'person', i FROM generate_series(1, 50) i",
    );
    pull.sync();
    pull.assert_level("all is here");
    pull.there(
        "UPDATE sale SET amount = 1 WHERE id = 7; UPDATE item SET name = 'other' WHERE id < 3;
         INSERT INTO person SELECT $T, i, 'new', i FROM generate_series(51, 53) i",
    );
    pull.agent.home.obey_permissions();
    let file = pull.agent.home.path(LOCAL);
    let mut permissions = std::fs::metadata(&file).expect("the file").permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&file, permissions).expect("it may only be read");
    let would = pull.agent.home.run(["sync", "--dry-run", "--json", "--quiet"]);
    let report = would.json();
    for (table, rows) in [("sale", 1), ("item", 2), ("person", 3)] {
        assert_eq!(table_of(&report, table)["moved"]["received"], rows, "{would:?}");
    }
    let verdict = pull.agent.home.run(["verify", "--json", "--quiet"]).expect_code(1).json();
    assert_eq!(table_of(&verdict, "sale")["altered"], 1, "{verdict}");
    assert_eq!(table_of(&verdict, "item")["altered"], 2, "{verdict}");
    let refused = pull.agent.sync();
    assert!(refused.stderr.contains("may not be written to"), "{refused:?}");
}

/// Local rows of one table that its condition cannot be asked of.
fn with_one_that_fails(direction: &str) -> Pull {
    let mut pull = Pull::of(&[&SALE, &ITEM]);
    pull.configure_each(&[(&SALE, direction), (&ITEM, &format!("{direction}\nwhere = \"abs(id) > 0\""))]);
    pull.there(
        "INSERT INTO sale SELECT $T, i, 'c' || i, 0, i FROM generate_series(1, 50) i;
         INSERT INTO item SELECT $T, i, 'item' FROM generate_series(1, 50) i",
    );
    pull.sync();
    pull.here("INSERT INTO item VALUES (-9223372036854775807 - 1, 'no integer is its opposite')");
    pull.there("UPDATE sale SET amount = 1, version = 100 WHERE id = 7");
    pull
}

#[test]
fn a_table_that_cannot_begin_stops_no_other() {
    for direction in ["direction = \"pull\"", SNAPSHOT] {
        let mut pull = with_one_that_fails(direction);
        let report = pull.agent.sync().expect_code(1).json();
        let (sale, item) = (table_of(&report, "sale"), table_of(&report, "item"));
        assert_eq!((&sale["status"], &sale["moved"]["received"]), (&"level".into(), &1.into()), "{report}");
        let why = item["failure"]["message"].as_str().unwrap_or_default();
        assert!(why.contains("integer overflow"), "{report}");
        // What is known of one table is told, whatever becomes of the other.
        let verdict = pull.agent.home.run(["verify", "--json", "--quiet"]).expect_code(2).json();
        assert_eq!(table_of(&verdict, "sale")["level"], true, "{verdict}");
        let why = table_of(&verdict, "item")["failure"].as_str().unwrap_or_default();
        assert!(why.contains("integer overflow"), "{verdict}");
        pull.here("DELETE FROM item WHERE id < 0");
        pull.sync();
        pull.assert_level(direction);
    }
}

#[test]
fn a_file_that_is_locked_for_a_while_when_a_run_begins_is_waited_for() {
    let mut pull = Pull::of(&[&SALE]);
    pull.there("INSERT INTO sale SELECT $T, i, 'c' || i, 0, i FROM generate_series(1, 50) i");
    let other = pull.agent.local();
    other.execute_batch("BEGIN EXCLUSIVE").expect("the only one");
    let run = pull.agent.home.start(["sync", "--quiet"]);
    // Longer than one wait for a lock takes.
    std::thread::sleep(std::time::Duration::from_secs(6));
    other.execute_batch("ROLLBACK").expect("the lock goes");
    run.wait(std::time::Duration::from_secs(60)).expect_code(0);
    pull.assert_level("once it was free");
}

#[test]
fn rows_that_arrive_are_said_to_be_received() {
    let mut pull = Pull::of(&[&SALE]);
    pull.there("INSERT INTO sale SELECT $T, i, 'c' || i, 0, i FROM generate_series(1, 50) i");
    let told = pull.agent.home.run(["sync"]).expect_code(0).stderr;
    assert!(told.contains("about 50 rows to receive") && told.contains("50 rows received"), "{told}");
    assert!(!told.contains("send") && !told.contains("sent"), "{told}");
}
