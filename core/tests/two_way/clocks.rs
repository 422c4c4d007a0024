//! Stamps as revisions, and clocks that differ.

use plimsoll_core::reconcile::Side;
use plimsoll_core::two_way::{Revisions, Settings, Table};

use crate::model::Row;
use crate::rules::{EPOCH, SECOND, both, level, put, sync};

#[test]
fn a_stamp_of_the_future_wins_no_conflict_against_one_that_is_not_and_is_told_of() {
    let (world, mut memory) = level(0..4);
    let now = 1_700_000_000 * SECOND - EPOCH;
    let far = now + 3_600 * SECOND;
    put(&world, Side::Local, 1, far, 50);
    put(&world, Side::Remote, 1, now - SECOND, 51);
    put(&world, Side::Local, 2, far, 52);
    put(&world, Side::Remote, 2, far + 1, 53);
    // Alone, it is copied as any other.
    put(&world, Side::Remote, 3, far, 54);
    let table = Table { revisions: Revisions::Stamps, ..Table::default() };
    let report = sync(&world, &table, &mut memory);
    assert_eq!((report.future_stamps, report.conflicts), (2, 2), "{report:#?}");
    assert_eq!(both(&world, 1), [Some((now - SECOND, 51)); 2]);
    assert_eq!(both(&world, 2), [Some((far + 1, 53)); 2]);
    assert_eq!(both(&world, 3), [Some((far, 54)); 2]);
    // With numbers no clock matters.
    put(&world, Side::Local, 1, far, 60);
    put(&world, Side::Remote, 1, now, 61);
    let report = sync(&world, &Table::default(), &mut memory);
    assert_eq!((report.future_stamps, report.conflicts), (0, 1), "{report:#?}");
    assert_eq!(both(&world, 1), [Some((far, 60)); 2]);
}

#[test]
fn stamps_are_measured_by_the_remote_clock_whatever_the_local_one_says() {
    let table = Table { revisions: Revisions::Stamps, ..Table::default() };
    let hour = 3_600 * SECOND;
    // The local clock is two hours slow: so are the stamps that it makes. Right ones are of no future.
    let (world, mut memory) = level(0..4);
    let now = 1_700_000_000 * SECOND - EPOCH;
    world.with(|state| state.ahead = -2 * hour);
    put(&world, Side::Local, 1, now - hour, 50);
    put(&world, Side::Remote, 1, now + 2 * hour - 300 * SECOND, 51);
    let report = sync(&world, &table, &mut memory);
    assert_eq!((report.future_stamps, report.conflicts), (0, 1), "{report:#?}");
    assert_eq!(both(&world, 1), [Some((now + 2 * hour - 300 * SECOND, 51)); 2]);
    // It is two hours fast: a stamp that it makes wins no conflict until its time has come, and that is told.
    let (world, mut memory) = level(0..4);
    world.with(|state| state.ahead = 2 * hour);
    put(&world, Side::Local, 1, now - 10 * SECOND, 60);
    put(&world, Side::Remote, 1, now - 2 * hour - 300 * SECOND, 61);
    let report = sync(&world, &table, &mut memory);
    assert_eq!((report.future_stamps, report.conflicts), (1, 1), "{report:#?}");
    assert_eq!(both(&world, 1), [Some((now - 2 * hour - 300 * SECOND, 61)); 2]);
    put(&world, Side::Local, 2, now - 10 * SECOND, 62);
    put(&world, Side::Remote, 2, now - 2 * hour - 200 * SECOND, 63);
    world.with(|state| state.clock += 3 * hour);
    let report = sync(&world, &table, &mut memory);
    assert_eq!((report.future_stamps, report.conflicts), (0, 1), "{report:#?}");
    assert_eq!(both(&world, 2), [Some((now - 10 * SECOND, 62)); 2]);
}

#[test]
fn a_stamp_of_the_present_is_none_of_the_future_however_long_a_run_takes() {
    let (world, mut memory) = level(0..4);
    let now = 1_700_000_000 * SECOND - EPOCH;
    let later = now + 600 * SECOND;
    put(&world, Side::Local, 1, now - 5 * SECOND, 50);
    let mut calls = 0;
    world.with(|state| {
        state.write(Side::Remote, 1, 1);
        state.hook = Some(Box::new(move |state| {
            calls += 1;
            if calls == 4 {
                // Ten minutes went by.
                state.clock += 600 * SECOND;
                state.write(Side::Remote, 1, 1);
                state.remote.rows.rows.insert(1, Row { revision: later - SECOND, edit: 51, second: 0 });
            }
        }));
    });
    let table = Table { revisions: Revisions::Stamps, ..Table::default() };
    let settings = Settings { budget: 3_600 * SECOND as u64, ..Settings::default() };
    let report = world.run(&table, &settings, &mut memory);
    assert_eq!((report.future_stamps, report.conflicts), (0, 1), "{report:#?}");
    assert_eq!(both(&world, 1), [Some((later - SECOND, 51)); 2]);
}
