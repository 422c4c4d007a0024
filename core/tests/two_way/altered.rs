//! Columns and keys that are others than those of which the base was made.

use plimsoll_core::reconcile::Side;
use plimsoll_core::store::Made;
use plimsoll_core::two_way::{Policy, Settings, Table};

use crate::rules::{both, level, put, row, sync};

#[test]
fn altered_columns_bring_no_deleted_row_back_and_overwrite_no_change() {
    for (policy, undecided) in
        [(Policy::Remote, 2), (Policy::Local, 2), (Policy::Newest, 2), (Policy::Ask, 4)]
    {
        let (world, mut memory) = level(0..20);
        let table = Table { policy, ..Table::default() };
        world.with(|state| {
            state.delete(Side::Local, 5);
            state.delete(Side::Remote, 6);
            state.write(Side::Local, 7, 1);
            state.write(Side::Remote, 8, 1);
            state.write(Side::Local, 30, 1);
            state.write(Side::Remote, 31, 1);
            state.alter(1);
        });
        let edits = [7, 8].map(|key| {
            world.with(|state| state.local.rows.made_by[&key].max(state.remote.rows.made_by[&key]))
        });
        let report = sync(&world, &table, &mut memory);
        assert_eq!((report.made, report.memory_lost), (Made::OfOtherColumns, false));
        assert_eq!(report.undecided, undecided, "{policy:?}: {report:#?}");
        assert_eq!((report.deleted_here, report.deleted_there), (0, 0));
        // What is gone does not come back, and what is there stays.
        for (key, gone_from) in [(5, Side::Local), (6, Side::Remote)] {
            assert_eq!(row(&world, gone_from, key), None, "{policy:?}");
            assert!(row(&world, gone_from.other(), key).is_some(), "{policy:?}");
        }
        // New rows are new, whatever the columns are.
        for key in [30, 31] {
            assert!(row(&world, Side::Local, key).is_some() && both(&world, key)[0] == both(&world, key)[1]);
        }
        if policy != Policy::Ask {
            let now = [7, 8].map(|key| both(&world, key).map(|row| row.expect("a row").1));
            assert_eq!(now, edits.map(|edit| [edit; 2]), "{policy:?}");
        }
        // It is remembered anew: a delete is one, a change is one.
        world.with(|state| {
            state.delete(Side::Remote, 9);
            state.write(Side::Local, 10, 1);
        });
        let report = sync(&world, &table, &mut memory);
        assert_eq!((report.made, report.deleted_here, report.sent), (Made::AsBefore, 1, 1), "{report:#?}");
    }
}

#[test]
fn columns_that_are_set_back_after_a_run_that_was_cut_off_lose_no_change() {
    // All calls of a run over other columns, until it comes to its end.
    for kill_at in 1.. {
        let (world, mut memory) = level(0..20);
        let table = Table { policy: Policy::Remote, ..Table::default() };
        let settings = Settings { range_rows: 4, group_rows: 8, batch_rows: 5, ..Settings::default() };
        world.with(|state| {
            state.alter(1);
            state.kill_at = Some(kill_at);
        });
        let report = world.run(&table, &settings, &mut memory);
        assert_eq!((report.changed(), report.conflicts), (0, 0), "{report:#?}");
        world.with(|state| {
            state.kill_at = None;
            state.alter(0);
            for key in 0..10 {
                state.write(Side::Local, key, 1);
            }
            (10..15).for_each(|key| state.delete(Side::Local, key));
        });
        let rows = world.with(|state| state.local.rows.rows.clone());
        let later = world.run(&table, &settings, &mut memory);
        let now = world.with(|state| state.local.rows.rows.clone());
        assert_eq!(now, rows, "cut off at {kill_at}: {later:#?}");
        for key in 0..10 {
            let [here, there] = both(&world, key);
            assert_eq!(here, there, "cut off at {kill_at}: {later:#?}");
        }
        if report.concluded {
            return;
        }
    }
}

#[test]
fn a_change_that_waited_while_columns_were_altered_is_no_conflict_later() {
    for (policy, changed) in [(Policy::Remote, Side::Local), (Policy::Local, Side::Remote)] {
        let (world, mut memory) = level(0..20);
        let table = Table { policy, ..Table::default() };
        put(&world, changed, 6, 9, 50);
        world.with(|state| {
            state.alter(1);
            state.refuses = |_, edit| (edit == 50).then_some(true);
        });
        let report = sync(&world, &table, &mut memory);
        assert_eq!((report.made, report.waiting), (Made::OfOtherColumns, 1), "{report:#?}");
        world.with(|state| state.refuses = |_, _| None);
        let report = sync(&world, &table, &mut memory);
        assert_eq!((report.made, both(&world, 6)), (Made::AsBefore, [Some((9, 50)); 2]), "{report:#?}");
    }
}

#[test]
fn what_is_remembered_of_other_keys_is_forgotten() {
    let (world, mut memory) = level(0..10);
    world.with(|state| {
        state.delete(Side::Local, 1);
        state.delete(Side::Remote, 2);
        state.write(Side::Local, 3, 1);
        state.write(Side::Remote, 20, 1);
        state.other_keys = true;
    });
    let table = Table { policy: Policy::Remote, ..Table::default() };
    let report = sync(&world, &table, &mut memory);
    assert_eq!((report.made, report.memory_lost), (Made::OfOtherKeys, true));
    assert_eq!((report.sent, report.undecided, report.changed()), (1, 3, 1), "{report:#?}");
    let report = sync(&world, &table, &mut memory);
    assert_eq!((report.made, report.memory_lost, report.changed()), (Made::AsBefore, false, 0));
}
