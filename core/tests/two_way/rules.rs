//! The rules, one by one.

use plimsoll_core::reconcile::Side;
use plimsoll_core::store::{BaseInfo, BatchId, Choice, OpenKind, Seen};
use plimsoll_core::sync::Status;
use plimsoll_core::two_way::{Memory, Merging, Policy, Report, Revisions, Settings, Table};

use crate::model::{Local, Row, VERSION, World, digester, memory_key};

/// 2000-01-01 in microseconds since the Unix epoch: where stamps begin.
pub const EPOCH: i64 = 946_684_800_000_000;
pub const SECOND: i64 = 1_000_000;

pub fn put(world: &World, side: Side, key: u64, revision: i64, edit: usize) {
    put_both_columns(world, side, key, Row { revision, edit, second: 0 });
}

fn put_both_columns(world: &World, side: Side, key: u64, row: Row) {
    world.with(|state| {
        state.write(side, key, 1);
        state.rows(side).rows.insert(key, row);
    });
}

pub fn row(world: &World, side: Side, key: u64) -> Option<(i64, usize)> {
    world.with(|state| state.rows(side).rows.get(&key).map(|row| (row.revision, row.edit)))
}

/// A person decides of what was recorded of a key.
pub fn choose(world: &World, key: u64, side: Side) {
    world.with(|state| {
        let record = &state.remote.records[&memory_key(key)];
        let choice = Choice { key: record.key, side, local: record.local, remote: record.remote };
        state.remote.choices.push(choice);
        state.decided.push(choice);
    });
}

pub fn both(world: &World, key: u64) -> [Option<(i64, usize)>; 2] {
    [row(world, Side::Local, key), row(world, Side::Remote, key)]
}

pub fn sync(world: &World, table: &Table, memory: &mut Memory) -> Report {
    let report = world.run(table, &Settings::default(), memory);
    assert_eq!((report.concluded, &report.failure), (true, &None), "{report:#?}");
    report
}

/// Rows `keys` on both sides, agreed on.
pub fn level(keys: std::ops::Range<u64>) -> (World, Memory) {
    let (world, mut memory) = (World::new(1), Memory::default());
    world.with(|state| {
        for key in keys {
            state.write(Side::Local, key, 1);
        }
        state.remote.rows = state.local.rows.clone();
    });
    let report = sync(&world, &Table::default(), &mut memory);
    assert_eq!(report.changed(), 0, "{report:#?}");
    (world, memory)
}

#[test]
fn john_and_jane_doe_have_the_newer_number_on_both_systems() {
    const JOHN: u64 = 1;
    const JANE: u64 = 2;
    let phones = ["555-0001", "555-3210", "123-4567", "555-0002"];
    let world = World::new(1);
    let noon = 1_700_000_000 * SECOND - EPOCH;
    let (earlier, later) = (noon - 3_600 * SECOND, noon - 60 * SECOND);
    // System A is the local side, B the remote one. Jane's row is newer in A, John's in B.
    put(&world, Side::Local, JOHN, earlier, 0);
    put(&world, Side::Remote, JOHN, later, 2);
    put(&world, Side::Local, JANE, later + SECOND, 1);
    put(&world, Side::Remote, JANE, earlier, 3);
    let table = Table { revisions: Revisions::Stamps, ..Table::default() };
    let mut memory = Memory::default();
    let report = sync(&world, &table, &mut memory);
    assert_eq!((report.sent, report.received, report.conflicts, report.changed()), (1, 1, 2, 2));
    let phone = |side, key| row(&world, side, key).map(|(stamp, edit)| (stamp, phones[edit]));
    for side in [Side::Local, Side::Remote] {
        assert_eq!(phone(side, JOHN), Some((later, "123-4567")), "{side:?}");
        assert_eq!(phone(side, JANE), Some((later + SECOND, "555-3210")), "{side:?}");
    }
    let report = sync(&world, &table, &mut memory);
    assert_eq!((report.changed(), report.conflicts, report.status), (0, 0, Status::Level));
}

#[test]
fn a_conflict_that_a_backup_knows_of_comes_back_with_it_and_can_be_decided() {
    let table = Table { policy: Policy::Ask, ..Table::default() };
    // Of the conflict when it was open, or of before.
    for was_open in [true, false] {
        let (world, mut memory) = level(0..4);
        let before = world.with(|state| state.local.clone());
        put(&world, Side::Local, 1, 5, 50);
        put(&world, Side::Remote, 1, 6, 51);
        let report = sync(&world, &table, &mut memory);
        assert_eq!(report.recorded, 1, "{report:#?}");
        if was_open {
            let backup = world.with(|state| state.local.clone());
            choose(&world, 1, Side::Remote);
            sync(&world, &table, &mut memory);
            assert_eq!(both(&world, 1), [Some((6, 51)); 2]);
            world.with(|state| state.restore_local(backup));
            let report = sync(&world, &table, &mut memory);
            assert!(report.local_restored);
            assert_eq!((report.recorded, report.open), (1, 1), "{report:#?}");
            choose(&world, 1, Side::Local);
            sync(&world, &table, &mut memory);
            assert_eq!(both(&world, 1), [Some((5, 50)); 2]);
        } else {
            world.with(|state| state.restore_local(before));
            let report = sync(&world, &table, &mut memory);
            assert_eq!((report.received, report.recorded, report.open), (1, 0, 0), "{report:#?}");
            assert_eq!(both(&world, 1), [Some((6, 51)); 2]);
        }
        assert!(world.with(|state| state.remote.records.is_empty()), "nothing is left to decide");
        sync(&world, &table, &mut memory);
        let report = sync(&world, &table, &mut memory);
        assert_eq!((report.status, report.local_restored), (Status::Level, false), "{report:#?}");
        assert_eq!(world.with(|state| state.log.join(" ")), "token remembered recall");
    }
}

#[test]
fn a_decision_on_which_both_sides_agree_already_is_done() {
    let (world, mut memory) = level(0..4);
    let table = Table { policy: Policy::Ask, ..Table::default() };
    put(&world, Side::Local, 1, 5, 50);
    put(&world, Side::Remote, 1, 6, 51);
    sync(&world, &table, &mut memory);
    // Both sides have the same meanwhile, and nothing here knows of the record.
    world.with(|state| {
        let theirs = state.remote.rows.rows[&1];
        state.local.rows.rows.insert(1, theirs);
        state.local.entries.get_mut(&memory_key(1)).expect("an entry").open = None;
        state.token += 1;
    });
    choose(&world, 1, Side::Remote);
    sync(&world, &table, &mut memory);
    assert!(world.with(|state| state.remote.records.is_empty() && state.remote.choices.is_empty()));
    // Neither has it any more, or one side alone.
    for there in [false, true] {
        put(&world, Side::Local, 2, 7, 52);
        put(&world, Side::Remote, 2, 8, 53);
        assert_eq!(sync(&world, &table, &mut memory).recorded, 1);
        world.with(|state| {
            state.delete(Side::Local, 2);
            if !there {
                state.delete(Side::Remote, 2);
            }
            state.local.entries.remove(&memory_key(2));
        });
        choose(&world, 2, Side::Remote);
        sync(&world, &table, &mut memory);
        assert!(
            world.with(|state| state.remote.records.is_empty() && state.remote.choices.is_empty()),
            "{there}"
        );
        assert_eq!(both(&world, 2), [there.then_some((8, 53)); 2]);
    }
}

#[test]
fn a_decision_that_cannot_be_carried_out_is_told_and_tried_once() {
    let (world, mut memory) = level(0..4);
    world.with(|state| state.refuses = |side, edit| (side == Side::Remote && edit == 50).then_some(false));
    put(&world, Side::Local, 1, 5, 50);
    let report = sync(&world, &Table::default(), &mut memory);
    assert_eq!(report.rejected, 1, "{report:#?}");
    choose(&world, 1, Side::Local);
    let report = sync(&world, &Table::default(), &mut memory);
    assert_eq!((report.rejected, report.open), (1, 1), "it is recorded once more: {report:#?}");
    assert!(world.with(|state| state.remote.choices.is_empty()), "nothing is decided of the new record");
    sync(&world, &Table::default(), &mut memory);
    sync(&world, &Table::default(), &mut memory);
    assert_eq!(world.with(|state| state.log.join(" ")), "token remembered recall");
}

#[test]
fn what_changed_on_one_side_alone_is_copied_whatever_the_revisions_say() {
    let (world, mut memory) = level(0..10);
    put(&world, Side::Remote, 3, -7, 30);
    world.with(|state| {
        state.delete(Side::Local, 4);
        state.delete(Side::Remote, 5);
        state.write(Side::Local, 20, 1);
    });
    let report = sync(&world, &Table::default(), &mut memory);
    assert_eq!((report.sent, report.received), (1, 1), "{report:#?}");
    assert_eq!((report.deleted_here, report.deleted_there, report.conflicts), (1, 1, 0), "{report:#?}");
    assert_eq!(both(&world, 3), [Some((-7, 30)); 2]);
    assert_eq!((both(&world, 4), both(&world, 5)), ([None; 2], [None; 2]));
}

#[test]
fn what_both_changed_to_the_same_is_the_base_from_then_on() {
    let (world, mut memory) = level(0..10);
    for side in [Side::Local, Side::Remote] {
        put(&world, side, 3, 5, 30);
    }
    let report = sync(&world, &Table::default(), &mut memory);
    assert_eq!((report.changed(), report.conflicts), (0, 0), "{report:#?}");
    // Back to what it was before, on one side: a change as any other.
    put(&world, Side::Local, 3, 1, 3);
    sync(&world, &Table::default(), &mut memory);
    assert_eq!(both(&world, 3), [Some((1, 3)); 2]);
}

#[test]
fn few_differences_cost_few_rows_and_few_trips_and_none_cost_nothing() {
    let (world, mut memory) = level(0..6_000);
    // What was agreed on changed the local database too: it is looked at once more, by sums.
    let settings = Settings { range_rows: 500, group_rows: 1_000, ..Settings::default() };
    let report = world.run(&Table::default(), &settings, &mut memory);
    assert_eq!(report.status, Status::Level, "{report:#?}");
    let (calls, read) = world.with(|state| (state.log.join(" "), state.rows_read));
    assert_eq!((calls.as_str(), read), ("token remembered recall summaries held", 0));
    let report = world.run(&Table::default(), &settings, &mut memory);
    assert_eq!(
        (report.status, world.with(|state| state.log.join(" "))),
        (Status::Level, "token remembered recall".into())
    );
    world.with(|state| {
        for key in [7, 1_500, 4_444] {
            state.write(Side::Local, key, 1);
            state.write(Side::Remote, key + 1, 1);
        }
    });
    let report = world.run(&Table::default(), &settings, &mut memory);
    assert_eq!((report.sent, report.received), (3, 3), "{report:#?}");
    let (calls, read) = world.with(|state| (state.log.clone(), state.rows_read));
    assert!(read < 300, "{read} of 6000 rows read");
    let local = ["token", "recall", "held", "states", "lookup", "prepare", "conclude"];
    let trips = calls.iter().filter(|call| !local.contains(call)).count();
    assert!(trips <= 9, "{trips} round trips: {calls:?}");
}

#[test]
fn a_run_without_time_does_a_part_and_the_next_one_goes_on() {
    let (world, mut memory) = level(0..100);
    world.with(|state| {
        for key in 0..40 {
            state.write(if key % 2 == 0 { Side::Local } else { Side::Remote }, key, 1);
        }
    });
    let settings = Settings { budget: 0, batch_rows: 10, ..Settings::default() };
    let mut changed = Vec::new();
    loop {
        let report = world.run(&Table::default(), &settings, &mut memory);
        changed.push(report.changed());
        if report.concluded {
            break;
        }
        assert_eq!(report.status, Status::Different, "{report:#?}");
        assert!((1..=10).contains(&report.changed()), "{report:#?}");
    }
    assert_eq!(changed.iter().sum::<u64>(), 40, "{changed:?}");
    assert_eq!(sync(&world, &Table::default(), &mut memory).status, Status::Level);
}

#[test]
fn a_first_run_reads_no_more_ahead_than_it_has_time_for() {
    const ROWS: u64 = 6_000;
    let world = World::new(1);
    world.with(|state| {
        for key in 0..ROWS {
            state.write(Side::Local, key, 1);
        }
    });
    // A call takes a millisecond: each run has time for some groups.
    let settings = Settings { group_rows: 100, fresh_rows: 40, budget: 200_000, ..Settings::default() };
    let (mut memory, mut runs, mut sent) = (Memory::default(), 0, 0);
    loop {
        let report = world.run(&Table::default(), &settings, &mut memory);
        let read = world.with(|state| state.rows_read) as u64;
        (runs, sent) = (runs + 1, sent + report.sent);
        assert!(report.sent > 100, "{report:#?}");
        assert!(read <= 2 * report.sent + 1_000, "{read} rows were read to send {}", report.sent);
        if report.concluded {
            break;
        }
    }
    assert!((3..20).contains(&runs) && sent == ROWS, "{sent} in {runs} runs");
}

#[test]
fn the_base_takes_thirty_two_bytes_a_row() {
    let key = memory_key(1);
    let entry = plimsoll_core::store::Base { digest: [0; 16], columns: Vec::new() };
    assert_eq!(size_of_val(&key.position) + key.tail.len() + entry.digest.len(), 32);
}

#[test]
fn a_guard_holds_deletes_back_and_the_rest_arrives() {
    let (world, mut memory) = level(0..30);
    world.with(|state| {
        (0..20).for_each(|key| state.delete(Side::Local, key));
        state.write(Side::Local, 25, 1);
        state.guard = 0;
    });
    let report = sync(&world, &Table::default(), &mut memory);
    assert_eq!((report.held_there, report.deleted_there, report.sent), (20, 0, 1), "{report:#?}");
    assert_eq!(report.status, Status::Different);
    world.with(|state| state.guard = u64::MAX);
    let report = sync(&world, &Table::default(), &mut memory);
    assert_eq!((report.held_there, report.deleted_there), (0, 20), "{report:#?}");
}

#[test]
fn a_dry_run_counts_and_changes_nothing() {
    let (world, mut memory) = level(0..30);
    world.with(|state| {
        state.delete(Side::Local, 1);
        state.delete(Side::Remote, 2);
        state.write(Side::Local, 3, 1);
        state.write(Side::Remote, 4, 1);
        state.write(Side::Local, 5, 2);
        state.write(Side::Remote, 5, 1);
    });
    let before = world.with(|state| (state.token, state.remote.rows.rows.clone(), state.remote.run));
    let settings = Settings { dry_run: true, ..Settings::default() };
    let report = world.run(&Table::default(), &settings, &mut memory);
    let counts = (report.sent, report.received, report.deleted_here, report.deleted_there, report.conflicts);
    assert_eq!(counts, (2, 1, 1, 1, 1), "{report:#?}");
    assert_eq!(report.status, Status::Different, "nothing was mended");
    assert_eq!(before, world.with(|state| (state.token, state.remote.rows.rows.clone(), state.remote.run)));
    let real = sync(&world, &Table::default(), &mut memory);
    let really = (real.sent, real.received, real.deleted_here, real.deleted_there, real.conflicts);
    assert_eq!(counts, really);
}

#[test]
fn a_dry_run_foretells_what_a_run_does_after_a_crash_or_an_accident() {
    let settings = Settings { dry_run: true, ..Settings::default() };
    let counts = |report: &Report| {
        let deleted = (report.deleted_here, report.deleted_there);
        (report.sent, report.received, deleted, report.conflicts, report.undecided)
    };
    // The remote side is restored to before the base was begun.
    let (world, mut memory) = level(0..30);
    world.with(|state| {
        state.delete(Side::Local, 1);
        state.delete(Side::Remote, 2);
        state.write(Side::Local, 3, 1);
        (state.remote.begun, state.remote.last) = (false, BatchId::default());
        state.token += 1;
    });
    let dry = world.run(&Table::default(), &settings, &mut memory);
    let real = sync(&world, &Table::default(), &mut memory);
    assert_eq!(counts(&dry), counts(&real), "{dry:#?} {real:#?}");
    assert_eq!(counts(&real).4, 2, "{real:#?}");
    // The last run was killed once its batch was applied: what it did and one side changed since is no conflict.
    let (world, mut memory) = level(0..30);
    world.with(|state| {
        state.write(Side::Local, 3, 1);
        state.write(Side::Local, 4, 1);
        state.hook = Some(Box::new(|state| {
            state.kill_at = (state.log.last() == Some(&"conclude")).then_some(0);
        }));
    });
    let killed = world.run(&Table::default(), &Settings::default(), &mut memory);
    assert!(killed.failure.is_some(), "{killed:#?}");
    world.with(|state| {
        (state.kill_at, state.hook) = (None, None);
        assert!(state.local.pending.is_some() && state.remote.rows.rows[&3] == state.local.rows.rows[&3]);
        state.write(Side::Remote, 3, 1);
    });
    let dry = world.run(&Table::default(), &settings, &mut memory);
    assert!(world.with(|state| state.local.pending.is_some()), "a dry run changes nothing");
    let real = sync(&world, &Table::default(), &mut memory);
    assert_eq!(counts(&dry), counts(&real), "{dry:#?} {real:#?}");
    assert_eq!((real.received, real.conflicts), (1, 0), "{real:#?}");
}

#[test]
fn a_row_that_no_encoding_holds_is_not_taken_for_a_deleted_one() {
    let (world, mut memory) = level(0..5);
    world.with(|state| {
        state.bad.insert(3);
        state.token += 1;
    });
    let report = sync(&world, &Table::default(), &mut memory);
    assert_eq!(
        (report.changed(), report.rejected, report.status),
        (0, 1, Status::LevelExcept(1)),
        "{report:#?}"
    );
    let record = world.with(|state| state.remote.records[&memory_key(3)].clone());
    assert_eq!((record.kind, record.local), (OpenKind::Rejected(Side::Local), Seen::Unreadable));
    let report = sync(&world, &Table::default(), &mut memory);
    assert_eq!((report.changed(), report.rejected, report.open), (0, 0, 1), "{report:#?}");
    world.with(|state| {
        state.bad.clear();
        state.token += 1;
    });
    let report = sync(&world, &Table::default(), &mut memory);
    assert_eq!((report.changed(), report.open), (0, 0), "{report:#?}");
    assert!(world.with(|state| state.remote.records.is_empty()));
}

#[test]
fn what_the_remote_side_cannot_record_is_counted_and_decided_upon_again() {
    let (world, mut memory) = level(0..10);
    put(&world, Side::Local, 3, 7, 30);
    put(&world, Side::Remote, 3, 6, 31);
    put(&world, Side::Local, 4, 7, 40);
    world.with(|state| state.refuses_records = |_| true);
    let table = Table { policy: Policy::Ask, ..Table::default() };
    let report = world.run(&table, &Settings::default(), &mut memory);
    assert_eq!((report.sent, report.rejected, report.open), (1, 1, 0), "{report:#?}");
    assert_eq!((report.status, report.concluded, report.failure), (Status::Different, false, None));
    world.with(|state| state.refuses_records = |_| false);
    let report = sync(&world, &table, &mut memory);
    assert_eq!((report.recorded, report.open, report.changed()), (1, 1, 0), "{report:#?}");
}

#[test]
fn lost_memory_says_what_it_could_not_decide() {
    let (world, mut memory) = level(0..10);
    world.with(|state| {
        state.delete(Side::Local, 1);
        state.write(Side::Remote, 20, 1);
        state.write(Side::Local, 3, 5);
        let rows = std::mem::take(&mut state.local.rows);
        state.local = Local { rows, ..Local::default() };
    });
    let report = sync(&world, &Table::default(), &mut memory);
    assert!(report.memory_lost);
    assert_eq!((report.undecided, report.sent, report.changed()), (2, 1, 1), "{report:#?}");
    assert_eq!(report.status, Status::LevelExcept(2));
    let base = world.with(|state| state.local.base);
    assert!(matches!(base, Some(BaseInfo { rebuilding: false, .. })), "{base:?}");
    let report = sync(&world, &Table::default(), &mut memory);
    assert_eq!((report.memory_lost, report.undecided, report.open, report.changed()), (false, 0, 2, 0));
    // Somebody still works with the row: it is no deleted one.
    world.with(|state| state.write(Side::Remote, 20, 1));
    let report = sync(&world, &Table::default(), &mut memory);
    assert_eq!((report.received, report.open), (1, 1), "{report:#?}");
}

#[test]
fn rows_changed_in_different_columns_become_one_whatever_step_fails() {
    let table = Table {
        policy: Policy::Ask,
        merging: Some(Merging { digester: digester(), version: VERSION }),
        ..Table::default()
    };
    for kill_at in 0..30 {
        for meanwhile in [false, true] {
            let (world, mut memory) = (World::new(1), Memory::default());
            world.with(|state| state.merging = table.merging.clone());
            for side in [Side::Local, Side::Remote] {
                put_both_columns(&world, side, 1, Row { revision: 1, edit: 10, second: 100 });
                put_both_columns(&world, side, 2, Row { revision: 1, edit: 10, second: 100 });
            }
            sync(&world, &table, &mut memory);
            put_both_columns(&world, Side::Local, 1, Row { revision: 2, edit: 11, second: 100 });
            put_both_columns(&world, Side::Remote, 1, Row { revision: 3, edit: 10, second: 103 });
            put_both_columns(&world, Side::Local, 2, Row { revision: 2, edit: 11, second: 100 });
            put_both_columns(&world, Side::Remote, 2, Row { revision: 3, edit: 12, second: 103 });
            world.with(|state| state.kill_at = (kill_at > 0).then_some(kill_at));
            let report = world.run(&table, &Settings::default(), &mut memory);
            let killed = report.failure.is_some();
            assert!(killed || report.merged == 1, "{report:#?}");
            world.with(|state| state.kill_at = None);
            let mut edit = 11;
            if meanwhile {
                // Made with knowledge of one's own value alone, in the column that is one's own.
                let now = world.with(|state| state.local.rows.rows[&1]);
                edit = 15;
                put_both_columns(&world, Side::Local, 1, Row { revision: 7, edit, ..now });
            }
            let report = sync(&world, &table, &mut memory);
            let rows = world.with(|state| [state.local.rows.rows[&1], state.remote.rows.rows[&1]]);
            let revision = if meanwhile { 7 } else { 3 };
            assert_eq!(rows, [Row { revision, edit, second: 103 }; 2], "killed at {kill_at}: {report:#?}");
            // The other row changed in one column on both sides.
            let records = world.with(|state| state.remote.records.keys().copied().collect::<Vec<_>>());
            assert_eq!(records, [memory_key(2)], "killed at {kill_at}");
            if kill_at == 0 {
                assert!(!killed);
            }
        }
    }
}
