//! What belongs to one transaction, and what others see and do meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plimsoll_client::config::TableConfig;
use plimsoll_client::source;
use plimsoll_client::source::notes::{Cell as Note, NoteType};
use plimsoll_client::source::write::{Expected, LocalStore, RowChange};
use plimsoll_core::store::{Applied, FailureKind, Outcome, PositionRange, SourceRow};

use super::{Fixture, apply, cells, delete, digest, rows, simple, stop, store_of, upserts};
use crate::kind::{LocalKind, Table, Type};
use crate::model::row_of;

pub fn notes_are_kept_with_the_rows<K: LocalKind>() {
    let mut fixture = Fixture::<K>::new(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR(20))",
        simple("t"),
        TableConfig::default(),
    );
    let notes = fixture.store.notes();
    let columns = [
        ("part", NoteType::Int, false),
        ("k", NoteType::Bytes(16), false),
        ("said", NoteType::Text(40), true),
        ("whole", NoteType::LongBytes, true),
    ];
    let sql = notes.create("plimsoll_test", &columns, &["part", "k"]);
    fixture.store.define(&sql).unwrap_or_else(|failure| panic!("{failure}"));
    fixture.store.define(&sql).expect("there already");
    let row = fixture.row(&cells(1, "a"));
    let keys: Vec<[u8; 4]> = (0..3000u32).map(u32::to_be_bytes).collect();
    let large = vec![0xff_u8; 100_000];
    let write = |store: &mut dyn LocalStore, fails: bool| -> Outcome<()> {
        store.transact(&mut |transaction| {
            transaction.apply(0, &upserts(std::slice::from_ref(&row), Expected::Anything))?;
            let rows: Vec<Vec<Note<'_>>> = keys
                .iter()
                .map(|key| vec![Note::Int(-5), Note::Bytes(key), Note::Text("Ä?'"), Note::Null])
                .collect();
            for _ in 0..2 {
                notes.put(transaction, "plimsoll_test", &["part", "k"], &["said", "whole"], &rows)?;
            }
            let set = "UPDATE plimsoll_test SET whole = ?, said = '?' WHERE part = ? AND k = ?";
            let changed =
                transaction.execute(set, &[Note::Bytes(&large), Note::Int(-5), Note::Bytes(&keys[7])])?;
            assert_eq!(changed, 1);
            let gone: Vec<Vec<Note<'_>>> =
                keys[10..].iter().map(|key| vec![Note::Int(-5), Note::Bytes(key)]).collect();
            notes.remove(transaction, "plimsoll_test", &["part", "k"], &gone)?;
            if fails { Err(stop()) } else { Ok(()) }
        })
    };
    assert_eq!(write(fixture.store.as_mut(), true), Err(stop()));
    fixture.has(&[]);
    write(fixture.store.as_mut(), false).unwrap_or_else(|failure| panic!("{failure}"));
    let mut found = Vec::new();
    fixture
        .store
        .look(&mut |look| {
            let sql = "SELECT k, said, whole, part FROM plimsoll_test WHERE part < ? ORDER BY k";
            look.query(sql, &[Note::Int(0)], &mut |cells| {
                let [Note::Bytes(key), Note::Text(said), whole, Note::Int(-5)] = cells else {
                    panic!("{cells:?}")
                };
                let length = match whole {
                    Note::Bytes(bytes) => bytes.len(),
                    _ => 0,
                };
                found.push(format!("{} {said} {length}", key[3]));
                Ok(())
            })
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(found.len(), 10);
    assert_eq!((found[0].as_str(), found[7].as_str()), ("0 Ä?' 0", "7 ? 100000"));
    let mut opened = source::open_writable(&fixture.local.place()).expect("opened");
    assert_eq!(opened.table_names().expect("names"), ["t"]);
    let refused = opened.table("plimsoll_test").expect_err("no table to sync");
    assert!(refused.message.contains("notes"), "{refused}");
}

pub fn what_is_held_is_one_transaction<K: LocalKind>() {
    let mut fixture = Fixture::<K>::new(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR(20)); INSERT INTO t VALUES (1, 'a')",
        simple("t"),
        TableConfig::default(),
    );
    let of = |id: i64, text: &str| row_of(&fixture.schema, &cells(id, text));
    let (one, two, three) = (of(1, "a"), of(2, "b"), of(3, "c"));
    let names = [("id", Type::Number)];
    LocalStore::hold(fixture.store.as_mut(), true).expect("held");
    assert_eq!(fixture.upsert(std::slice::from_ref(&two)), ["done"]);
    assert_eq!(fixture.store.row_count(0), Ok(2));
    fixture.has(&[one.clone(), two.clone()]);
    fixture.store.finish(false).expect("rolled back");
    fixture.has(std::slice::from_ref(&one));
    LocalStore::hold(fixture.store.as_mut(), true).expect("held");
    assert_eq!(fixture.upsert(std::slice::from_ref(&two)), ["done"]);
    assert_eq!(fixture.upsert(std::slice::from_ref(&three)), ["done"]);
    // Nobody else sees a part of it.
    assert_eq!(fixture.texts(&names).len(), 1);
    fixture.store.finish(true).expect("committed");
    assert_eq!(fixture.texts(&names).len(), 3);
    // The first failure rolls all back, and is answered until then.
    LocalStore::hold(fixture.store.as_mut(), true).expect("held");
    let (answers, _) = fixture.apply(&[delete(&one, digest(&one))]);
    assert_eq!(answers, ["done"]);
    assert_eq!(fixture.store.transact(&mut |_| Err(stop())), Err(stop()));
    assert_eq!(fixture.store.row_count(0), Err(stop()));
    assert_eq!(fixture.store.finish(true), Err(stop()));
    assert_eq!(fixture.store.row_count(0), Ok(3));
    // A transaction in which something failed is not committed, whoever overlooks it.
    let overlooked = fixture.store.transact(&mut |transaction| {
        transaction.apply(0, &[delete(&one, digest(&one))])?;
        let _ = transaction.execute("UPDATE plimsoll_nowhere SET a = 1", &[]);
        Ok(())
    });
    assert!(overlooked.is_err());
    assert_eq!(fixture.store.row_count(0), Ok(3));
    // One moment, whatever is written meanwhile.
    if K::lets_others_write() {
        LocalStore::hold(fixture.store.as_mut(), false).expect("held");
        assert_eq!(fixture.store.row_count(0), Ok(3));
        fixture.local.run("DELETE FROM t WHERE id = 2");
        assert_eq!(fixture.store.row_count(0), Ok(3));
        let refused = fixture.store.transact(&mut |_| Ok(())).expect_err("nothing is written");
        assert_eq!(refused.kind, FailureKind::Run);
        fixture.store.finish(true).expect("ended");
        assert_eq!(fixture.store.row_count(0), Ok(2));
    }
}

/// Where nobody else writes meanwhile there is nothing to see.
pub fn what_others_commit_is_seen_where_all_is_one_transaction<K: LocalKind>() {
    let mut fixture = Fixture::<K>::new(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR(20)); INSERT INTO t VALUES (1, 'a'), (2, 'b')",
        simple("t"),
        TableConfig::default(),
    );
    if !K::lets_others_write() {
        return;
    }
    let of = |id: i64, text: &str| row_of(&fixture.schema, &cells(id, text));
    let (one, mine, theirs) = (of(1, "mine"), of(3, "mine"), of(4, "theirs"));
    LocalStore::hold(fixture.store.as_mut(), true).expect("held");
    assert_eq!(fixture.store.row_count(0), Ok(2));
    fixture.local.run("INSERT INTO t VALUES (4, 'theirs'); UPDATE t SET a = 'theirs' WHERE id IN (1, 2)");
    assert_eq!(fixture.store.row_count(0), Ok(3));
    let (two, changed) = (of(2, "theirs"), of(1, "theirs"));
    fixture.has(&[changed.clone(), two.clone(), theirs.clone()]);
    // A row that was changed meanwhile is met as it is now, and one that came is no stranger.
    let changes = [
        RowChange::Upsert { row: &one, expected: digest(&changed) },
        RowChange::Upsert { row: &mine, expected: Expected::Absent },
        RowChange::Upsert { row: &theirs, expected: Expected::Anything },
    ];
    assert_eq!(fixture.apply(&changes).0, ["done"; 3]);
    let held = fixture.store.fingerprints(0, &[PositionRange::ALL]).expect("sums");
    fixture.store.finish(true).expect("committed");
    fixture.has(&[one, two, mine, theirs]);
    let now = fixture.store.fingerprints(0, &[PositionRange::ALL]).expect("sums");
    assert!(held == now, "what was summed up is what was committed");
}

/// An application counts in some rows while changes of the same rows are made again and again, each on the condition that
/// the row is as it was read.
pub fn an_application_that_writes_meanwhile_loses_nothing<K: LocalKind>() {
    const ROWS: i64 = 50;
    let columns = [("id", Type::Number), ("n", Type::Number), ("ours", Type::Number)];
    let table = Table::new("t", &columns, &["id"], None);
    let mut local = K::new();
    local.allow_writing();
    local.run("CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT, ours BIGINT)");
    let schema = table.schema(&[]);
    let cells = |id: i64, n: i64, ours: i64| [id.into(), n.into(), ours.into()];
    let mut store = store_of(&local, &[(&table, schema.clone(), TableConfig::default())]);
    let first: Vec<SourceRow> = (0..ROWS).map(|id| row_of(&schema, &cells(id, 0, 0))).collect();
    assert!(
        apply(store.as_mut(), &upserts(&first, Expected::Absent)).0.iter().all(|answer| answer == "done")
    );
    let is_over = AtomicBool::new(false);
    let (counted, longest, mut done, mut changed) = std::thread::scope(|scope| {
        let application = scope.spawn(|| {
            let (mut counted, mut longest) = (0i64, Duration::ZERO);
            while !is_over.load(Ordering::Relaxed) {
                let started = Instant::now();
                local.run(&format!("UPDATE t SET n = n + 1 WHERE id = {}", counted % ROWS));
                longest = longest.max(started.elapsed());
                counted += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            (counted, longest)
        });
        let (mut done, mut changed) = (0i64, 0);
        for _ in 0..30 {
            let now = rows(store.as_mut());
            // What they are read as, and one more in our own column.
            let next: Vec<SourceRow> = now
                .iter()
                .map(|row| {
                    let numbers: Vec<i64> = plimsoll_core::row::Fields::new(&row.row)
                        .map(|field| match field.expect("a field").value {
                            plimsoll_core::value::Value::Int(number) => number,
                            other => panic!("{other:?}"),
                        })
                        .collect();
                    row_of(&schema, &cells(numbers[0], numbers[1], numbers[2] + 1))
                })
                .collect();
            let changes: Vec<RowChange<'_>> = now
                .iter()
                .zip(&next)
                .map(|(now, row)| RowChange::Upsert { row, expected: digest(now) })
                .collect();
            let outcome = store.transact(&mut |transaction| {
                let answers = transaction.apply(0, &changes)?;
                let is = |wanted: &Applied| answers.iter().filter(|answer| *answer == wanted).count() as i64;
                assert_eq!(is(&Applied::Done) + is(&Applied::Changed), ROWS, "{answers:?}");
                done += is(&Applied::Done);
                changed += is(&Applied::Changed);
                Ok(())
            });
            outcome.unwrap_or_else(|failure| panic!("{failure}"));
            std::thread::sleep(Duration::from_millis(2));
        }
        is_over.store(true, Ordering::Relaxed);
        let (counted, longest) = application.join().expect("an application");
        (counted, longest, done, changed)
    });
    let sum = |place: usize, texts: &[Vec<Option<String>>]| -> i64 {
        texts.iter().map(|row| row[place].as_deref().expect("a number").parse::<i64>().expect("one")).sum()
    };
    let texts = local.texts(&table);
    assert_eq!(sum(1, &texts), counted, "what the application counted");
    assert_eq!(sum(2, &texts), done, "what was done");
    assert!(longest < Duration::from_secs(5), "the application waited {longest:?}");
    (done, changed) = (done.max(1), changed.max(0));
    println!(
        "{counted} of the application, {done} of ours, {changed} came too late, longest wait {longest:?}"
    );
}
