//! Batches while others are at work: applications that edit the same rows, calls that come late, connections that die.

use std::thread;
use std::time::{Duration, Instant};

use plimsoll_core::store::{Applied, Settled};
use plimsoll_core::two_way::wire::{Act, pack_acts, read_applied};
use postgres::Client;

use crate::shop::refused;
use crate::till::{Till, contact, edit};

/// Waits until a session waits for a lock.
pub fn until_one_waits(till: &mut Till) {
    let until = Instant::now() + Duration::from_secs(30);
    while till.shop.value::<i64>(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    ) == 0
    {
        assert!(Instant::now() < until, "nobody waits");
        thread::sleep(Duration::from_millis(10));
    }
}

/// An application that has edited, and not committed.
fn editor(till: &Till, sql: &str) -> Client {
    let mut editor = till.shop.server.superuser(&till.shop.database);
    editor.batch_execute("BEGIN").expect("a transaction");
    edit(&mut editor, &till.registered, sql);
    editor
}

#[test]
fn an_edit_under_way_is_waited_for_and_what_it_commits_is_not_overwritten() {
    let is = |id| contact(id, "p", 1);
    for (what, end, applied, left) in [
        ("UPDATE shop.contact SET phone = 'edited' WHERE id = 1", "COMMIT", Applied::Changed, "edited"),
        ("UPDATE shop.contact SET phone = 'edited' WHERE id = 1", "ROLLBACK", Applied::Done, "new"),
        // One that makes the row what it was to become.
        ("UPDATE shop.contact SET phone = 'new', rev = 2 WHERE id = 1", "COMMIT", Applied::Done, "new"),
        ("UPDATE shop.contact SET phone = 'p' WHERE id = 1", "COMMIT", Applied::Done, "new"),
        ("DELETE FROM shop.contact WHERE id = 1", "COMMIT", Applied::Changed, "-"),
    ] {
        let mut till = Till::open();
        till.put(&is(1));
        let mut application = editor(&till, what);
        let act = till.upsert(&contact(1, "new", 2), Some(&is(1)));
        let number = till.number();
        let mut remote = till.server_apart();
        let batch = thread::spawn(move || remote.apply(number, &[act]));
        until_one_waits(&mut till);
        application.batch_execute(end).expect("the end");
        assert_eq!(batch.join().expect("a batch"), [applied], "{what}; {end}");
        let phone = till.rows().first().and_then(|row| row.1.clone()).unwrap_or("-".to_owned());
        assert_eq!(phone, left, "{what}; {end}");
        till.assert_kept();
    }
}

#[test]
fn a_row_that_somebody_inserts_meanwhile_has_changed() {
    for (row, applied) in [("'edited', NULL, 1", Applied::Changed), ("'new', NULL, 2", Applied::Done)] {
        let mut till = Till::open();
        let mut application =
            editor(&till, &format!("INSERT INTO shop.contact VALUES ('acme', $1, 1, {row})"));
        let acts = [till.upsert(&contact(1, "new", 2), None), till.upsert(&contact(2, "new", 2), None)];
        let number = till.number();
        let mut remote = till.server_apart();
        let batch = thread::spawn(move || remote.apply(number, &acts));
        until_one_waits(&mut till);
        application.batch_execute("COMMIT").expect("the end");
        assert_eq!(batch.join().expect("a batch"), [applied, Applied::Done]);
        assert_eq!(till.rows().len(), 2);
        till.assert_kept();
    }
}

#[test]
fn of_many_new_rows_that_alone_has_changed_which_somebody_else_made_otherwise() {
    let many = 1..=200;
    for (row, end, applied) in [
        ("'edited', NULL, 1", "COMMIT", Applied::Changed),
        ("'new', NULL, 2", "COMMIT", Applied::Done),
        ("'edited', NULL, 1", "ROLLBACK", Applied::Done),
    ] {
        // Others are there from the beginning, as they are sent and otherwise; or none is.
        for there in [vec![], vec![contact(30, "new", 2), contact(40, "edited", 1)]] {
            let mut till = Till::open();
            there.iter().for_each(|row| till.put(row));
            let mut application =
                editor(&till, &format!("INSERT INTO shop.contact VALUES ('acme', $1, 150, {row})"));
            let acts: Vec<_> = many.clone().map(|id| till.upsert(&contact(id, "new", 2), None)).collect();
            let number = till.number();
            let mut remote = till.server_apart();
            let batch = thread::spawn(move || remote.apply(number, &acts));
            until_one_waits(&mut till);
            application.batch_execute(end).expect("the end");
            let answers = batch.join().expect("a batch");
            let is_edited = |id: i64| match id {
                40 => !there.is_empty(),
                150 => applied == Applied::Changed,
                _ => false,
            };
            for (id, answer) in many.clone().zip(&answers) {
                let expected = if is_edited(id) { Applied::Changed } else { Applied::Done };
                assert_eq!(*answer, expected, "{id} of {row}; {end}");
            }
            let row = |id| if is_edited(id) { contact(id, "edited", 1) } else { contact(id, "new", 2) };
            assert_eq!(till.rows(), many.clone().map(row).collect::<Vec<_>>());
            till.assert_kept();
        }
    }
}

#[test]
fn a_deleted_row_that_somebody_edits_meanwhile_stays() {
    let mut till = Till::open();
    till.put(&contact(1, "p", 1));
    let mut application = editor(&till, "UPDATE shop.contact SET phone = 'edited' WHERE id = 1");
    let acts = [till.delete(&contact(1, "p", 1))];
    let number = till.number();
    let mut remote = till.server_apart();
    let batch = thread::spawn(move || remote.apply(number, &acts));
    until_one_waits(&mut till);
    application.batch_execute("COMMIT").expect("the end");
    assert_eq!(batch.join().expect("a batch"), [Applied::Changed]);
    assert_eq!(till.rows(), [contact(1, "edited", 1)]);
}

const APPLY: &str = "SELECT plimsoll.two_way_apply($1, 'shop.contact', $2, $3, $4)";

#[test]
fn a_call_that_is_late_applies_nothing_once_a_later_run_began() {
    let mut till = Till::open();
    till.put(&contact(1, "p", 1));
    let act = till.upsert(&contact(1, "late", 2), Some(&contact(1, "p", 1)));
    let bytes = pack_acts([Act::of(&act, None)].into_iter());
    let (id, run_id, number) = (till.registered.id, till.run_id, till.number());
    let mut late = till.connect();
    // Under way when the run begins: the begin waits, and knows of it.
    let mut application = editor(&till, "SELECT FROM shop.contact WHERE id = 1 FOR UPDATE");
    let under_way = {
        let (bytes, number) = (bytes.clone(), number as i64);
        thread::spawn(move || {
            let answer = late.query_one(APPLY, &[&id, &run_id, &number, &bytes]).expect("a batch");
            (read_applied(answer.get(0)).expect("an answer"), late)
        })
    };
    until_one_waits(&mut till);
    let mut server = till.server_apart();
    let begin = thread::spawn(move || server.begin());
    thread::sleep(Duration::from_millis(200));
    assert!(!begin.is_finished(), "what is under way may be applied still");
    application.batch_execute("COMMIT").expect("the end");
    let (applied, mut late) = under_way.join().expect("the call");
    assert_eq!(applied, [Applied::Done]);
    let memory = begin.join().expect("a begin");
    assert_eq!((memory.last.number, memory.run), (number, till.run + 1));
    till.began(&memory);
    // The same again, and another of that run, too late.
    let again = late.query_one(APPLY, &[&id, &run_id, &(number as i64), &bytes]).expect("from memory");
    assert_eq!(read_applied(again.get(0)).expect("an answer"), [Applied::Done]);
    till.put(&contact(1, "p", 1));
    let message = refused(late.query_one(APPLY, &[&id, &run_id, &(number as i64 + 1), &bytes]), "22023");
    assert!(message.contains("never applied"), "{message}");
    assert_eq!(till.rows(), [contact(1, "p", 1)]);
    assert_eq!(till.settle(number), Ok(Settled::Applied(vec![true])));
    assert_eq!(till.settle(number + 1), Ok(Settled::Never));
}

#[test]
fn a_connection_that_dies_leaves_all_of_a_batch_or_nothing_and_it_is_known_which() {
    let mut till = Till::open();
    let acts: Vec<_> = (1..=20).map(|id| till.upsert(&contact(id, "p", 1), None)).collect();
    let bytes = pack_acts(acts.iter().map(|act| Act::of(act, None)));
    let (id, run_id) = (till.registered.id, till.run_id);
    for commits in [false, true] {
        let number = till.number();
        let mut dying = till.connect();
        let pid: i32 = dying.query_one("SELECT pg_backend_pid()", &[]).expect("a pid").get(0);
        dying.batch_execute("BEGIN").expect("a transaction");
        dying.query_one(APPLY, &[&id, &run_id, &(number as i64), &bytes]).expect("a batch");
        if commits {
            // The answer to this is what never arrives.
            dying.batch_execute("COMMIT").expect("the end");
        }
        till.shop.superuser.execute("SELECT pg_terminate_backend($1, 10000)", &[&pid]).expect("the end");
        let memory = till.begin();
        let (settled, last, rows) = match commits {
            true => (Settled::Applied(vec![true; 20]), number, 20),
            false => (Settled::Never, 0, 0),
        };
        assert_eq!((till.settle(number), memory.last.number), (Ok(settled), last));
        assert_eq!(till.rows().len(), rows);
        till.assert_kept();
    }
}
