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

/// The locks that this process has on the database's files, as the kernel lists them.
#[cfg(target_os = "linux")]
fn locks(database: &std::path::Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let files = ["", "-wal", "-shm"].map(|suffix| {
        let name = format!("{}{suffix}", database.display());
        std::fs::metadata(name).map(|metadata| format!(":{}", metadata.ino()))
    });
    let own = format!(" {} ", std::process::id());
    let is_own = |line: &&str| {
        let file = line.split_whitespace().nth(5).unwrap_or_default();
        line.contains(&own) && files.iter().flatten().any(|inode| file.ends_with(inode.as_str()))
    };
    let all = std::fs::read_to_string("/proc/locks").expect("the locks");
    let mut locks: Vec<String> = all
        .lines()
        .filter(is_own)
        .map(|line| line.split_once(": ").map_or(line, |(_, lock)| lock).to_owned())
        .collect();
    locks.sort_unstable();
    locks
}

/// Another program would take the WAL away from under a connection without locks, and what that commits were lost.
#[cfg(target_os = "linux")]
#[test]
fn whoever_is_done_with_a_database_takes_no_locks_from_others_of_its_process() {
    let shop = Fixture::new(
        "PRAGMA journal_mode = WAL; CREATE TABLE item (id INTEGER PRIMARY KEY); INSERT INTO item VALUES (1)",
    );
    let stays = Sqlite::open_writable(&shop.path()).expect("opened");
    stays.connection.execute_batch("BEGIN IMMEDIATE; INSERT INTO item VALUES (2)").expect("a row");
    let before = locks(&shop.path());
    assert!(before.len() > 1, "{before:?}");
    for open in [Sqlite::open, Sqlite::open_writable] {
        let mut other = open(&shop.path()).expect("opened");
        assert_eq!(other.table_names().expect("names"), ["item"]);
        crate::source::kind::Kind::change_token(&mut other).expect("asked").expect("a token");
        drop(other);
        assert_eq!(locks(&shop.path()), before);
    }
    stays.connection.execute_batch("COMMIT").expect("committed");
}
