//! Files that programs that died left behind.

use std::fs::copy;

use super::Fixture;
use crate::source::local::LocalDatabase;
use crate::source::sqlite::Sqlite;

/// What is on the disk while a transaction is half-way written is what is there when its program dies.
#[test]
fn what_a_program_that_died_left_half_way_is_undone_first() {
    let shop = Fixture::new(
        "PRAGMA journal_mode = DELETE; PRAGMA cache_size = 2;
         CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, version INTEGER NOT NULL);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO item SELECT i, printf('%0200d', i), i FROM n;",
    );
    shop.run("BEGIN; UPDATE item SET name = 'lost';");
    let folder = tempfile::tempdir().expect("a folder");
    let left = folder.path().join("left.sqlite");
    copy(shop.path(), &left).expect("copied");
    copy(shop.path().with_extension("sqlite-journal"), left.with_extension("sqlite-journal"))
        .expect("copied");

    let mut opened = Sqlite::open(&left).expect("opened");
    assert_eq!(opened.table_names().expect("names"), ["item"]);
    let lost: u64 = opened
        .connection
        .query_row("SELECT count(*) FROM item WHERE name = 'lost'", [], |row| row.get(0))
        .expect("counted");
    assert_eq!(lost, 0, "no part of a transaction that was not committed is read");
    assert!(
        opened.connection.is_readonly(rusqlite::MAIN_DB).expect("open"),
        "and no more is written than that"
    );
}
