//! The second look: what was mended, and what `verify` found, is looked at again, and not all that lies around it.
mod model;

use std::collections::HashSet;

use model::{Kind, LocalRow, Model, RemoteRow, State};
use plimsoll_core::sync::{Difference, DifferenceKind, RunReport, Settings, Status};

/// A level table in windows of so many rows.
fn level(rows: u64, window: u64) -> Model {
    let mut model = Model::new(1, 1);
    model.settings =
        Settings { window_rows: window, max_window_rows: window, tail_rows: 8, ..Settings::default() };
    model.fill(0, 0..rows);
    assert_eq!(model.run().tables[0].status, Status::Level);
    model
}

/// Alters every so many rows of the target, and takes the row behind each away.
fn scatter(model: &Model, every: usize) -> u64 {
    let rows = model.with(|state| state.tables[0].local.len() as u64);
    let keys: Vec<u64> = (3..rows - 20).step_by(every).collect();
    for key in &keys {
        model.damage(0, *key, |row| row.value += 1);
        model.with(|state| state.tables[0].remote.remove(&(key + 1)));
    }
    keys.len() as u64
}

/// How many rows the windows of a run read beyond those that any comparison of the table reads.
fn read_again(model: &Model, report: &RunReport) -> u64 {
    model.rows_read() as u64 - report.tables[0].compared_rows
}

#[test]
fn what_was_mended_is_not_read_again_where_the_target_holds_what_was_read() {
    let model = level(4_000, 1_000);
    let places = scatter(&model, 150);
    let report = model.run();
    assert!(model.is_equal(0));
    assert_eq!(report.tables[0].found_missing, 2 * places);
    assert_eq!(report.tables[0].status, Status::Level, "{report:?}");
    assert_eq!(read_again(&model, &report), 0);
}

#[test]
fn where_rows_moved_meanwhile_the_places_that_differed_are_read_again_and_no_others() {
    let model = level(4_000, 1_000);
    let places = scatter(&model, 150);
    model.with(|state| {
        let mut changed = HashSet::new();
        // The first row of each window that is to be sent is another one by then.
        state.hook = Some(Box::new(move |state, operation| {
            if operation == "rows_of" {
                let table = &mut state.tables[0];
                let differs =
                    table.local.iter().find(|(key, row)| table.remote.get(key) != Some(&row.stored()));
                let key = *differs.expect("a row to send").0;
                if changed.insert(key / 1_000) {
                    table.local.get_mut(&key).unwrap().value += 1;
                    state.touch();
                }
            }
        }));
    });
    let report = model.run();
    assert!(model.is_equal(0), "{report:?}");
    let again = read_again(&model, &report);
    assert!((2 * places..4 * places).contains(&again), "{again} rows for {places} places");
    assert_ne!(report.tables[0].status, Status::Level);
}

#[test]
fn a_stretch_that_no_longer_holds_what_was_read_of_it_proves_nothing_even_without_a_sign_of_change() {
    let model = level(1_000, 2_000);
    model.damage(0, 500, |row| row.value += 1);
    model.with(|state| {
        // On the target, behind our back and behind the window, where nothing had differed.
        state.hook = Some(Box::new(move |state, operation| {
            if operation == "upload" {
                state.tables[0].remote.get_mut(&100).unwrap().value += 1;
            }
        }));
    });
    let report = model.run();
    assert_ne!(report.tables[0].status, Status::Level, "{report:?}");
    model.with(|state| state.hook = None);
    (0..3).for_each(|_| drop(model.run()));
    assert!(model.is_equal(0));
}

#[test]
fn what_differs_again_at_the_second_look_is_mended_again_and_proved() {
    let model = level(2_000, 2_000);
    scatter(&model, 100);
    model.with(|state| {
        let mut sent = 0;
        state.hook = Some(Box::new(move |state, operation| {
            sent += u32::from(operation == "upload");
            if operation == "fingerprint" && sent == 1 {
                sent += 1;
                state.tables[0].remote.get_mut(&103).unwrap().value += 9;
            }
        }));
    });
    let report = model.run();
    assert!(model.is_equal(0));
    assert_eq!(report.tables[0].status, Status::Level, "{report:?}");
    assert!(read_again(&model, &report) < 200, "{report:?}");
}

#[test]
fn most_of_a_window_is_looked_at_as_a_whole() {
    let model = level(2_000, 1_000);
    model.with(|state| state.tables[0].remote.retain(|key, _| key % 20 == 0));
    let report = model.run();
    assert!(model.is_equal(0));
    assert_eq!(report.tables[0].status, Status::Level, "{report:?}");
    assert_eq!(read_again(&model, &report), 0);
}

#[test]
fn differences_at_both_ends_of_the_axis_and_at_crowded_positions_are_confirmed() {
    let model = level(1_000, 2_000);
    for (key, version) in [(5_000, i64::MIN), (5_001, i64::MAX)] {
        model.insert(0, key, version);
    }
    (0..300).for_each(|key| model.insert(0, 6_000 + key, 500));
    while model.run().tables[0].status != Status::Level {}
    for key in [5_000, 5_001, 6_100] {
        model.damage(0, key, |row| row.value += 1);
    }
    model.with(|state| {
        let mut sent = 0;
        state.hook = Some(Box::new(move |state, operation| {
            sent += u32::from(operation == "rows_of");
            // The tail mends one row, the window the others.
            if operation == "rows_of" && sent == 2 {
                state.touch();
                state.tables[0].local.get_mut(&6_100).unwrap().value += 1;
            }
        }));
    });
    let report = model.run();
    assert!(model.is_equal(0), "{report:?}");
    // The lowest row, and all 301 of a position.
    assert_eq!(read_again(&model, &report), 302);
}

fn kinds(differences: &[Difference]) -> Vec<(DifferenceKind, u64)> {
    let key = |found: &Difference| u64::from_be_bytes(found.key.clone().try_into().unwrap());
    let mut kinds: Vec<_> = differences.iter().map(|found| (found.kind, key(found))).collect();
    kinds.sort_unstable();
    kinds
}

#[test]
fn verify_pauses_once_and_reads_again_what_differed_alone() {
    let model = level(8_000, 1_000);
    let places = scatter(&model, 200);
    let (report, differences) = model.verify(0);
    assert_eq!((report.rows, report.missing, report.altered), (8_000, places, places));
    assert_eq!(differences.len() as u64, 2 * places);
    assert_eq!(model.with(|state| state.paused), 100_000);
    let again = model.rows_read() - 8_000;
    assert!((places as usize * 2..places as usize * 4).contains(&again), "{again} rows, {places} places");
}

#[test]
fn verify_tells_of_a_row_whose_versions_lie_far_apart_once_as_altered() {
    let model = level(3_000, 100);
    model.damage(0, 2_500, |row| (row.version, row.value) = (150, 7));
    let (report, differences) = model.verify(0);
    assert_eq!(kinds(&differences), [(DifferenceKind::Altered, 2_500)]);
    assert_eq!(differences[0].position, Some(2_500));
    assert!(!report.level);
}

#[test]
fn verify_keeps_no_more_suspects_in_mind_than_it_may() {
    let mut model = level(4_000, 500);
    model.settings.max_excess_rows = 20;
    let places = scatter(&model, 100);
    let (report, differences) = model.verify(0);
    assert_eq!((report.missing, report.altered, differences.len() as u64), (places, places, 2 * places));
    let pauses = model.with(|state| state.paused) / 100_000;
    assert!((3..=8).contains(&pauses), "{pauses} pauses");
}

#[test]
fn verify_looks_at_all_places_where_they_are_too_many_for_one_comparison() {
    // More places than a comparison names one by one.
    let model = level(20_000, 20_000);
    let places = scatter(&model, 19);
    assert!(places > 1_024);
    let (report, _) = model.verify(0);
    assert_eq!((report.missing, report.altered), (places, places));
    assert!(model.rows_read() <= 40_000);
}

#[test]
fn verify_reads_bad_rows_and_rows_far_beyond_the_source_a_second_time() {
    let model = level(1_000, 100);
    model.change(0, 400, |row| row.kind = Kind::Bad);
    model.change(0, 401, |row| row.kind = Kind::Nowhere);
    model.with(|state| {
        let row = |version| RemoteRow { version, value: 1, unique: None, parent: None };
        state.tables[0].remote.insert(7_000, row(i64::MAX));
        state.tables[0].remote.insert(7_001, row(i64::MIN));
        state.tables[0].remote.insert(7_002, row(5_000));
    });
    use DifferenceKind::{Excess, Rejected};
    let (report, differences) = model.verify(0);
    let found = [(Excess, 7_000), (Excess, 7_001), (Excess, 7_002), (Rejected, 400), (Rejected, 401)];
    assert_eq!(kinds(&differences), found);
    assert!(!report.level);
    // Gone at the second look, all of them.
    model.with(|state| {
        state.hook = Some(Box::new(|state, _| {
            if state.paused > 0 {
                state.tables[0].remote.retain(|key, _| *key < 7_000);
                for key in [400, 401] {
                    let row = LocalRow::new(key as i64, 400);
                    state.tables[0].remote.insert(key, row.stored());
                    state.tables[0].local.insert(key, row);
                }
            }
        }));
    });
    let (report, differences) = model.verify(0);
    assert!(report.level && differences.is_empty(), "{differences:?}");
}

/// Has something happen once, between the two looks of a verify.
fn between_looks(model: &Model, change: impl Fn(&mut State) + 'static) {
    let mut is_done = false;
    model.with(|state| {
        state.hook = Some(Box::new(move |state, _| {
            if state.paused > 0 && !std::mem::replace(&mut is_done, true) {
                state.touch();
                change(state);
            }
        }));
    });
}

#[test]
fn verify_tells_of_a_row_that_the_target_has_old_although_the_source_changes_it_all_the_time() {
    for version in [500, 9_000] {
        let model = level(1_000, 100);
        model.change(0, 500, |row| row.value += 1);
        between_looks(&model, move |state| {
            let row = state.tables[0].local.get_mut(&500).unwrap();
            (row.value, row.version) = (row.value + 1, version);
        });
        let (report, differences) = model.verify(0);
        assert_eq!(kinds(&differences), [(DifferenceKind::Altered, 500)]);
        assert_eq!(differences[0].position, Some(version));
        assert!(!report.level);
    }
    // Level by the second look, whichever side it was that changed.
    let model = level(1_000, 100);
    model.change(0, 500, |row| row.value += 1);
    between_looks(&model, |state| state.tables[0].local.get_mut(&500).unwrap().value -= 1);
    assert!(model.verify(0).0.level);
}

#[test]
fn verify_tells_of_a_bad_row_that_the_source_changes_all_the_time() {
    let model = level(1_000, 100);
    model.change(0, 400, |row| row.kind = Kind::Bad);
    model.with(|state| state.tables[0].remote.remove(&400));
    between_looks(&model, |state| {
        let row = state.tables[0].local.get_mut(&400).unwrap();
        (row.value, row.version) = (row.value + 1, 9_000);
    });
    let (report, differences) = model.verify(0);
    assert_eq!(kinds(&differences), [(DifferenceKind::Rejected, 400)]);
    assert!(!report.level);
}

#[test]
fn verify_looks_bad_rows_up_however_many_there_are() {
    let model = level(2_000, 2_000);
    for key in (0..2_000).step_by(2) {
        model.change(0, key, |row| row.kind = Kind::Bad);
        model.with(|state| state.tables[0].remote.remove(&key));
    }
    let (report, _) = model.verify(0);
    assert_eq!((report.rejected, report.missing, report.excess), (1_000, 0, 0));
    assert_eq!(model.rows_read(), 2_000, "no range is compared again");
}

#[test]
fn verify_tells_of_a_row_once_where_its_older_version_was_met_long_before() {
    let mut model = level(3_000, 100);
    model.settings.max_excess_rows = 20;
    model.damage(0, 2_500, |row| (row.version, row.value) = (150, 7));
    let places = scatter(&model, 50);
    let (report, differences) = model.verify(0);
    let of_row = |found: &&Difference| found.key == 2_500u64.to_be_bytes();
    assert_eq!(differences.iter().filter(of_row).count(), 1);
    assert_eq!((report.missing, report.altered), (places, places + 1));
}
