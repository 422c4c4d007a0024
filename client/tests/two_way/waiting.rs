//! Keys that wait for others, more of them than one run tries.

use std::collections::BTreeSet;

use plimsoll_core::reconcile::Side;
use plimsoll_core::store::{
    BaseInfo, Conclusion, LocalSide, MemoryEntry, MemoryKey, Open, OpenKind, Pending, Seen, Settle,
};
use rusqlite::Connection;

use crate::side::open_at;

#[test]
fn keys_that_wait_have_their_turn_however_many_wait_for_good() {
    const WAITING: i64 = 10_000;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("local.db");
    let connection = Connection::open(&path).expect("a file");
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, revision INTEGER NOT NULL, edit INTEGER NOT NULL,
               second INTEGER NOT NULL, part INTEGER)";
    connection.execute_batch(sql).expect("a table");
    let mut local = open_at(path.clone(), 0);
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
        let mut local = open_at(path.clone(), 0);
        let waiting = local.recall(0).expect("what is remembered").waiting;
        assert_eq!(waiting.iter().collect::<BTreeSet<_>>().len(), waiting.len(), "each once");
        least = least.min(waiting.len());
        tried.extend(waiting);
        local.prepare(0, &Pending { number, settles: Vec::new() }).expect("prepared");
    }
    assert_eq!(tried.len(), WAITING as usize);
    assert!(least > 1_000, "{least} are tried in a run");
}
