//! Sides that are set back to what they were: whatever moment the backup is of, and whenever the run after it dies.

use plimsoll_core::reconcile::Side;
use plimsoll_core::store::{BaseInfo, OpenKind, Reason};
use plimsoll_core::sync::Status;
use plimsoll_core::two_way::{Memory, Policy, Settings, Table};

use crate::model::{Local, Remote, World, memory_key};
use crate::rules::{both, choose, level, put, row, sync};

const POLICIES: [Policy; 4] = [Policy::Newest, Policy::Local, Policy::Remote, Policy::Ask];

/// Runs, and dies at a call; whether it did.
fn dies(world: &World, table: &Table, memory: &mut Memory, kill_at: u64) -> bool {
    world.with(|state| state.kill_at = Some(kill_at));
    let report = world.run(table, &Settings::default(), memory);
    world.with(|state| state.kill_at = None);
    report.failure.is_some()
}

/// The base is dropped.
fn lose_memory(world: &World) {
    world.with(|state| {
        let rows = std::mem::take(&mut state.local.rows);
        state.local = Local { rows, ..Local::default() };
        state.token += 1;
    });
}

#[test]
fn a_restored_remote_side_takes_no_local_change_along_whichever_call_a_run_dies_at() {
    for policy in POLICIES {
        let table = Table { policy, ..Table::default() };
        // The remote side lost the whole run that sent the changes, or its batch alone.
        for lost_run in [true, false] {
            for (kill_at, again) in (1..).flat_map(|kill_at| [(kill_at, 1), (kill_at, 2), (kill_at, 3)]) {
                let (world, mut memory) = level(0..20);
                let mut backup = world.with(|state| state.remote.clone());
                world.with(|state| state.write(Side::Local, 30, 1));
                world.with(|state| state.write(Side::Local, 3, 1));
                sync(&world, &table, &mut memory);
                world.with(|state| {
                    backup.run += u64::from(!lost_run);
                    state.restore_remote(backup);
                });
                let rows = world.with(|state| state.local.rows.rows.clone());
                let mut died = true;
                for _ in 0..again {
                    died = died && dies(&world, &table, &mut memory, kill_at);
                }
                let report = sync(&world, &table, &mut memory);
                let now = world.with(|state| state.local.rows.rows.clone());
                let story = format!("{policy:?}, {lost_run}, {again} times at {kill_at}: {report:#?}");
                assert_eq!(now, rows, "{story}");
                let is_recorded = |key| world.with(|s| s.remote.records.contains_key(&memory_key(key)));
                assert!(is_recorded(30), "{story}");
                let [here, there] = both(&world, 3);
                assert!(if policy == Policy::Ask { is_recorded(3) } else { here == there }, "{story}");
                if !died {
                    break;
                }
            }
        }
    }
}

#[test]
fn what_is_undecided_stays_so_when_the_local_side_is_restored() {
    for policy in POLICIES {
        let table = Table { policy, ..Table::default() };
        for kill_at in 1.. {
            let (world, mut memory) = level(0..10);
            world.with(|state| {
                state.delete(Side::Local, 1);
                state.delete(Side::Remote, 2);
                state.delete(Side::Local, 3);
                state.delete(Side::Remote, 4);
            });
            lose_memory(&world);
            assert_eq!(sync(&world, &table, &mut memory).undecided, 4);
            let backup = world.with(|state| state.local.clone());
            // What is decided since is undecided again: the backup does not know of it.
            choose(&world, 4, Side::Local);
            world.with(|state| state.write(Side::Local, 5, 1));
            sync(&world, &table, &mut memory);
            assert!(both(&world, 4)[1].is_some());
            world.with(|state| {
                state.restore_local(backup);
                // Both sides have no row any more, and what is new since is new.
                state.delete(Side::Remote, 3);
                state.write(Side::Local, 20, 1);
                state.write(Side::Remote, 21, 1);
            });
            let died = dies(&world, &table, &mut memory, kill_at);
            let mut report = sync(&world, &table, &mut memory);
            let story = format!("{policy:?}, died at {kill_at}: {report:#?}");
            assert_eq!(row(&world, Side::Local, 1), None, "{story}");
            assert_eq!(row(&world, Side::Remote, 2), None, "{story}");
            assert_eq!(both(&world, 3), [None; 2], "{story}");
            for key in [4, 20, 21] {
                let [here, there] = both(&world, key);
                assert!(here.is_some() && here == there, "{key}: {story}");
            }
            let records: Vec<_> = world.with(|state| state.remote.records.keys().copied().collect());
            let mut expected = [1, 2].map(memory_key);
            expected.sort_unstable();
            assert_eq!(records, expected, "{story}");
            if report.changed() > 0 {
                report = sync(&world, &table, &mut memory);
            }
            assert_eq!((report.open, report.status), (2, Status::LevelExcept(2)), "{story}");
            // Each can be decided.
            choose(&world, 1, Side::Remote);
            choose(&world, 2, Side::Remote);
            sync(&world, &table, &mut memory);
            assert!(both(&world, 1)[0].is_some() && both(&world, 1)[0] == both(&world, 1)[1], "{story}");
            assert_eq!(both(&world, 2), [None; 2], "{story}");
            assert!(world.with(|state| state.remote.records.is_empty()), "{story}");
            if !died {
                break;
            }
        }
    }
}

#[test]
fn a_backup_of_any_moment_of_a_run_leaves_no_difference_without_a_record() {
    let table = Table { policy: Policy::Ask, ..Table::default() };
    let settings = Settings { batch_rows: 1, ..Settings::default() };
    for moment in 1.. {
        let (world, mut memory) = level(0..4);
        put(&world, Side::Local, 1, 5, 50);
        put(&world, Side::Remote, 1, 6, 51);
        assert_eq!(sync(&world, &table, &mut memory).recorded, 1);
        choose(&world, 1, Side::Remote);
        world.with(|state| {
            state.write(Side::Local, 20, 1);
            let mut calls = 0;
            state.hook = Some(Box::new(move |state| {
                calls += 1;
                if calls == moment {
                    BACKUP.set(Some(state.local.clone()));
                }
            }));
        });
        let report = world.run(&table, &settings, &mut memory);
        assert!(report.concluded, "{report:#?}");
        assert_eq!(both(&world, 1), [Some((6, 51)); 2]);
        let Some(backup) = BACKUP.take() else { return };
        world.with(|state| {
            state.hook = None;
            state.restore_local(backup);
        });
        sync(&world, &table, &mut memory);
        let report = sync(&world, &table, &mut memory);
        let [here, there] = both(&world, 1);
        let is_recorded = world.with(|state| state.remote.records.contains_key(&memory_key(1)));
        assert_eq!(here != there, is_recorded, "a backup of call {moment}: {report:#?}");
        assert_eq!(report.open, u64::from(is_recorded), "a backup of call {moment}: {report:#?}");
    }
}

#[test]
fn a_remote_side_that_is_set_back_to_any_moment_of_a_run_takes_nothing_along() {
    let settings = Settings { range_rows: 2, group_rows: 2, batch_rows: 1, ..Settings::default() };
    for moment in 1.. {
        let (world, mut memory) = level(0..12);
        world.with(|state| {
            for key in 20..24 {
                state.write(Side::Local, key, 1);
            }
            for key in 30..34 {
                state.write(Side::Remote, key, 1);
            }
            let mut calls = 0;
            state.hook = Some(Box::new(move |state| {
                calls += 1;
                if calls == moment {
                    REMOTE.set(Some(state.remote.clone()));
                    // What the remote side will have lost.
                    for key in 40..44 {
                        state.write(Side::Remote, key, 1);
                    }
                }
            }));
        });
        let report = world.run(&Table::default(), &settings, &mut memory);
        assert!(report.failure.is_none(), "{report:#?}");
        let Some(backup) = REMOTE.take() else { return };
        let rows = world.with(|state| {
            state.hook = None;
            state.restore_remote(backup);
            state.local.rows.rows.clone()
        });
        let report = sync(&world, &Table::default(), &mut memory);
        let now = world.with(|state| state.local.rows.rows.clone());
        assert_eq!(now, rows, "set back to call {moment}: {report:#?}");
    }
}

thread_local! {
    static BACKUP: std::cell::RefCell<Option<Local>> = const { std::cell::RefCell::new(None) };
    static REMOTE: std::cell::RefCell<Option<Remote>> = const { std::cell::RefCell::new(None) };
}

#[test]
fn a_decision_that_waits_is_told_of_when_its_record_was_closed() {
    let table = Table { policy: Policy::Ask, ..Table::default() };
    let (world, mut memory) = level(0..4);
    put(&world, Side::Local, 1, 5, 50);
    put(&world, Side::Remote, 1, 6, 51);
    sync(&world, &table, &mut memory);
    let backup = world.with(|state| state.local.clone());
    world.with(|state| state.write(Side::Local, 2, 1));
    sync(&world, &table, &mut memory);
    // It cannot be carried out yet.
    choose(&world, 1, Side::Remote);
    world.with(|state| state.refuses = |side, edit| (side == Side::Local && edit == 51).then_some(true));
    let report = sync(&world, &table, &mut memory);
    assert_eq!((report.waiting, report.received), (1, 0), "{report:#?}");
    assert!(world.with(|state| state.remote.records.contains_key(&memory_key(1))), "the record stays");
    world.with(|state| state.restore_local(backup));
    let report = sync(&world, &table, &mut memory);
    assert!(report.local_restored && report.waiting == 1, "{report:#?}");
    // What was decided is forgotten with what it was decided of: there is a record once more, to be decided anew.
    assert_eq!(report.open, 1, "{report:#?}");
    choose(&world, 1, Side::Remote);
    world.with(|state| state.refuses = |_, _| None);
    sync(&world, &table, &mut memory);
    assert_eq!(both(&world, 1), [Some((6, 51)); 2]);
    assert!(world.with(|state| state.remote.records.is_empty()));
}

#[test]
fn lost_memory_is_lost_no_more_though_the_remote_side_does_not_record_all() {
    for undecided_too in [false, true] {
        let (world, mut memory) = level(0..10);
        world.with(|state| {
            state.delete(Side::Local, 1);
            state.refuses = |side, edit| (side == Side::Remote && edit == 50).then_some(false);
            state.refuses_records = match undecided_too {
                true => |_| true,
                false => |record| record.kind != OpenKind::Undecided,
            };
        });
        put(&world, Side::Local, 3, 7, 50);
        lose_memory(&world);
        let table = Table::default();
        let report = world.run(&table, &Settings::default(), &mut memory);
        assert_eq!((report.concluded, report.memory_lost), (false, true), "{report:#?}");
        let base = world.with(|state| state.local.base);
        // A key of which nobody knows would be new there.
        assert!(matches!(base, Some(BaseInfo { rebuilding, .. }) if rebuilding == undecided_too), "{base:?}");
        put(&world, Side::Local, 40, 1, 60);
        world.run(&table, &Settings::default(), &mut memory);
        assert_eq!(row(&world, Side::Remote, 40).is_some(), !undecided_too);
        assert_eq!(row(&world, Side::Local, 1), None);
    }
}

#[test]
fn a_record_says_no_more_than_the_beginning_of_a_long_message() {
    let (world, mut memory) = level(0..4);
    world.with(|state| state.refuses = |side, edit| (side == Side::Remote && edit == 50).then_some(false));
    put(&world, Side::Local, 1, 5, 50);
    sync(&world, &Table::default(), &mut memory);
    let reason = world.with(|state| state.remote.records[&memory_key(1)].reason.clone()).expect("a reason");
    assert!(reason.message.starts_with("refused by Remote: è") && reason.message.ends_with("è…"));
    assert_eq!(reason.message.chars().count(), Reason::MOST_CHARACTERS + 1);
}
