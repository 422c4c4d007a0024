//! What is remembered of a table as a whole: of which rows it is, and how far keys that wait for others were tried.

use std::collections::BTreeSet;
use std::path::PathBuf;

use plimsoll_client::two_way::{LocalTables, MadeOf};
use plimsoll_core::reconcile::Side;
use plimsoll_core::store::{
    Base, BaseInfo, BatchId, Conclusion, LocalSide, Made, MemoryEntry, MemoryKey, Open, OpenKind, Pending,
    PositionRange, Seen, Settle,
};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::side::open_at;

/// A file with the table.
fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("local.db");
    let connection = Connection::open(&path).expect("a file");
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, revision INTEGER NOT NULL, edit INTEGER NOT NULL,
               second INTEGER NOT NULL, part INTEGER)";
    connection.execute_batch(sql).expect("a table");
    (folder, path)
}

/// A batch of nothing.
fn pending(number: u64) -> Pending {
    Pending { batch: BatchId { number, mark: 5 }, settles: Vec::new() }
}

#[test]
fn a_base_says_of_which_keys_and_columns_it_is() {
    use Made::{OfOtherColumns, OfOtherKeys};
    let (_folder, path) = file();
    let open = |keys, columns| open_at(path.clone(), MadeOf { keys, columns });
    let made = |keys, columns| open(keys, columns).recall(0).expect("what is remembered").made;
    assert_eq!(made(1, 1), Made::AsBefore, "there is none");
    open(1, 1).begin_base(0, BaseInfo::default()).expect("begun");
    assert_eq!(made(1, 1), Made::AsBefore);
    assert_eq!(made(1, 2), Made::OfOtherColumns);
    assert_eq!((made(2, 1), made(2, 2)), (Made::OfOtherKeys, Made::OfOtherKeys));
    // Until all keys were looked at it stays so, whatever was remembered meanwhile.
    let mut altered = open(1, 2);
    altered.prepare(0, &pending(1)).expect("prepared");
    assert_eq!(made(1, 2), Made::OfOtherColumns);
    altered.complete_base(0).expect("completed");
    assert_eq!((made(1, 2), made(1, 1)), (Made::AsBefore, Made::OfOtherColumns));
    // Nor is it of the columns of before once those are set back: part of it is of others. Its keys are what they were.
    let settled = || {
        let key = MemoryKey { position: 1, tail: [0; 8] };
        let entry =
            MemoryEntry { key, base: Some(Base { digest: [1; 16], columns: Vec::new() }), open: None };
        vec![Settle { entry, closes: false }]
    };
    let part = [
        |local: &mut LocalTables, _| local.prepare(0, &pending(2)),
        |local: &mut LocalTables, settled| {
            let conclusion = Conclusion { serial: 1, settled, ..Conclusion::default() };
            local.conclude(0, &conclusion).map(drop)
        },
    ];
    for make in part {
        open(1, 2).begin_base(0, BaseInfo::default()).expect("begun");
        make(&mut open(1, 3), settled()).expect("made");
        assert_eq!((made(1, 2), made(1, 3), made(2, 2)), (OfOtherColumns, OfOtherColumns, OfOtherKeys));
        open(1, 3).complete_base(0).expect("completed");
        assert_eq!(made(1, 3), Made::AsBefore);
    }
}

#[test]
fn what_cannot_be_read_is_not_taken_for_what_was_never_remembered() {
    let (_folder, path) = file();
    open_at(path.clone(), MadeOf::default()).begin_base(0, BaseInfo::default()).expect("begun");
    let connection = Connection::open(&path).expect("the file");
    let sql = "ALTER TABLE plimsoll_two_way RENAME TO aside;
               CREATE VIEW plimsoll_two_way AS SELECT *, a_function_of_the_application(relation) FROM aside";
    connection.execute_batch(sql).expect("what is remembered cannot be read");
    let mut local = open_at(path.clone(), MadeOf::default());
    local.recall(0).expect_err("it is not known what is remembered");
    local.begin_base(0, BaseInfo::default()).expect_err("nor is it begun anew");
    let sql = "DROP VIEW plimsoll_two_way; ALTER TABLE aside RENAME TO plimsoll_two_way";
    connection.execute_batch(sql).expect("it can be read again");
    let mut local = open_at(path, MadeOf::default());
    assert!(local.recall(0).expect("what is remembered").base.is_some());
}

#[test]
fn what_was_undecided_is_known_to_have_been_so_once_all_that_was_open_is_forgotten() {
    let (_folder, path) = file();
    let mut local = open_at(path, MadeOf::default());
    local.begin_base(0, BaseInfo::default()).expect("begun");
    let kinds =
        [OpenKind::Undecided, OpenKind::Conflict, OpenKind::Undecided, OpenKind::Rejected(Side::Remote)];
    let settled = (1..).zip(kinds).map(|(position, kind)| {
        let open = Open { kind, local: Seen::Absent, remote: Seen::Row([2; 16]) };
        let key = MemoryKey { position, tail: [0; 8] };
        Settle { entry: MemoryEntry { key, base: None, open: Some(open) }, closes: false }
    });
    let conclusion = Conclusion { serial: 1, settled: settled.collect(), ..Conclusion::default() };
    local.conclude(0, &conclusion).expect("remembered");
    assert_eq!(local.recall(0).expect("what is remembered").open, 4);
    local.forget_open(0, BatchId { number: 7, mark: -7 }).expect("forgotten");
    let recalled = local.recall(0).expect("what is remembered");
    assert_eq!(
        (recalled.open, recalled.base.map(|base| base.last)),
        (0, Some(BatchId { number: 7, mark: -7 }))
    );
    let mut entries = local.states(0, &[PositionRange::ALL], &[]).expect("states").entries;
    entries.sort_by_key(|entry| entry.key);
    let once = |position| MemoryEntry {
        key: MemoryKey { position, tail: [0; 8] },
        base: None,
        open: Some(Open::ONCE_UNDECIDED),
    };
    assert_eq!(entries, [once(1), once(3)]);
}

#[test]
fn keys_that_wait_have_their_turn_however_many_wait_for_good() {
    const WAITING: i64 = 10_000;
    let (_folder, path) = file();
    let mut local = open_at(path.clone(), MadeOf::default());
    local.begin_base(0, BaseInfo::default()).expect("begun");
    let open = Open { kind: OpenKind::Waiting(Side::Local), local: Seen::Absent, remote: Seen::Row([1; 16]) };
    let settle = |position: i64| {
        let key = MemoryKey { position, tail: [0; 8] };
        Settle { entry: MemoryEntry { key, base: None, open: Some(open) }, closes: false }
    };
    let settled = (0..WAITING).map(|place| settle((place - WAITING / 2) << 40)).collect();
    local.conclude(0, &Conclusion { serial: 1, settled, ..Conclusion::default() }).expect("remembered");
    let (mut tried, mut least) = (BTreeSet::new(), usize::MAX);
    for number in 1..=3 {
        // Each run opens it anew, and sends a batch.
        let mut local = open_at(path.clone(), MadeOf::default());
        let waiting = local.recall(0).expect("what is remembered").waiting;
        assert_eq!(waiting.iter().collect::<BTreeSet<_>>().len(), waiting.len(), "each once");
        least = least.min(waiting.len());
        tried.extend(waiting);
        local.prepare(0, &pending(number)).expect("prepared");
    }
    assert_eq!(tried.len(), WAITING as usize);
    assert!(least > 1_000, "{least} are tried in a run");
}
