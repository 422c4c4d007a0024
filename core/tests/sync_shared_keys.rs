//! Rows that the source tells apart and whose keys are one once they are encoded: one of them is stored, the others are
//! told, for as long as it lasts.
mod model;

use model::{LocalRow, Model, OTHER_SPELLING};
use plimsoll_core::store::TableShape;
use plimsoll_core::sync::{DifferenceKind, Event, Settings, Status};

const ROWS: u64 = 300;

/// What the axis is, whether the source scans for ranges, and how many rows a batch has.
const KINDS: [(bool, bool, usize); 6] = [
    (false, false, 1_000),
    (false, false, 7),
    (true, false, 1_000),
    (true, false, 7),
    (true, true, 1_000),
    (true, true, 7),
];

fn model(kind: (bool, bool, usize), rows: u64) -> Model {
    let (hashed, scanned, batch) = kind;
    let mut model = Model::new(1, 1);
    model.settings =
        Settings { window_rows: 100, tail_rows: 8, max_batch_rows: batch, ..Settings::default() };
    model.with(|state| {
        state.tables[0].shape = TableShape { hashed, keyless: false };
        state.tables[0].scanned = scanned;
    });
    model.fill(0, 0..rows);
    model
}

/// A row whose key is another spelling of `key`.
fn respell(model: &Model, key: u64, version: i64, value: u32) {
    model.with(|state| {
        state.touch();
        state.tables[0].local.insert(key + OTHER_SPELLING, LocalRow::new(version, value));
    });
}

fn runs_until_told(model: &Model, told: u64) -> String {
    let mut message = String::new();
    for run in 0..4 {
        let report = &model.run().tables[0];
        assert_eq!(report.failure, None);
        assert_ne!(report.status, Status::Level, "{report:?}");
        message.push_str(&model.with(|state| {
            let rejected = state.events.iter().filter_map(|(_, event)| match event {
                Event::Rejected { key_text, message, .. } => Some(format!("{key_text}: {message}\n")),
                _ => None,
            });
            rejected.collect::<String>()
        }));
        if report.status == Status::LevelExcept(told) && report.rejected == told && run > 0 {
            return message;
        }
    }
    panic!("not told: {:?}", model.run());
}

fn stored(model: &Model, key: u64) -> u32 {
    model.with(|state| state.tables[0].remote[&key].value)
}

/// Compares both sides: `told` rows are rejected for their key, with the reason, and all else is equal.
fn assert_verified(model: &Model, told: usize) {
    let (report, differences) = model.verify(0);
    assert!(!report.level, "{report:?}");
    let counts = (report.missing, report.excess, report.altered, report.rejected);
    assert_eq!(counts, (0, 0, 0, told as u64), "{differences:?}");
    assert_eq!(differences.len(), told, "{differences:?}");
    for difference in differences {
        assert_eq!((difference.kind, difference.key), (DifferenceKind::Rejected, Vec::new()));
        let (key, reason) = (difference.key_text.expect("a key"), difference.reason.expect("a reason"));
        assert!(reason.contains(" is "), "{key}: {reason}");
    }
}

/// Nothing is sent any more, and the table is never level.
fn assert_quiet(model: &Model, told: u64) {
    for _ in 0..12 {
        let report = &model.run().tables[0];
        assert_eq!(report.status, Status::LevelExcept(told), "{report:?}");
        let sent = report.inserted + report.updated + report.deleted + report.unchanged;
        assert_eq!((sent, report.found_missing, report.found_excess), (0, 0, 0), "{report:?}");
    }
    assert_verified(model, told as usize);
}

fn assert_level_again(model: &Model, kind: (bool, bool, usize)) {
    let report = &model.run().tables[0];
    assert_eq!(report.rejected, 0, "{kind:?} {report:?}");
    assert!(model.verify(0).0.level, "{kind:?}");
    for _ in 0..8 {
        model.run();
    }
    assert_eq!(model.run().tables[0].status, Status::Level, "{kind:?}");
}

#[test]
fn rows_of_one_key_in_a_first_sync_are_told_and_one_is_stored() {
    for kind in KINDS {
        let model = model(kind, ROWS);
        respell(&model, 40, 290, 9);
        respell(&model, 41, 41, 9);
        let told = runs_until_told(&model, 2);
        assert!(told.contains(&format!("{} is 41", 41 + OTHER_SPELLING)), "{kind:?} {told}");
        // The latest, where there are versions.
        let first = if kind.0 { 40 } else { 9 };
        assert_eq!((stored(&model, 40), stored(&model, 41)), (first, 41), "{kind:?}");
        assert_quiet(&model, 2);
        // One row less, and one key more.
        model.delete_local(0, 40 + OTHER_SPELLING);
        model.delete_local(0, 41);
        model.insert(0, ROWS, ROWS as i64);
        assert_level_again(&model, kind);
        assert_eq!((stored(&model, 40), stored(&model, 41)), (40, 9), "{kind:?}");
    }
}

#[test]
fn a_row_that_comes_later_does_not_take_the_place_of_the_other_for_good() {
    for kind in KINDS {
        let model = model(kind, ROWS);
        model.run();
        respell(&model, 40, ROWS as i64, 9);
        runs_until_told(&model, 1);
        assert_eq!(stored(&model, 40), if kind.0 { 40 } else { 9 }, "{kind:?}");
        assert_quiet(&model, 1);
        // Either may change while it lasts.
        model.change(0, 40 + OTHER_SPELLING, |row| (row.version, row.value) = (ROWS as i64 + 1, 10));
        runs_until_told(&model, 1);
        model.change(0, 40, |row| (row.version, row.value) = (ROWS as i64 + 2, 11));
        runs_until_told(&model, 1);
        assert_eq!(stored(&model, 40), 11, "{kind:?}");
        assert_quiet(&model, 1);
        model.delete_local(0, 40);
        assert_level_again(&model, kind);
        assert_eq!(stored(&model, 40), 10, "{kind:?}");
    }
}

#[test]
fn rows_of_one_key_with_one_content_are_told_too() {
    for kind in KINDS {
        let model = model(kind, ROWS);
        respell(&model, 40, 40, 40);
        respell(&model, 40, 40, 40);
        runs_until_told(&model, 1);
        assert_quiet(&model, 1);
        // What the target lost of them comes back.
        model.with(|state| {
            state.tables[0].remote.remove(&40);
        });
        for _ in 0..8 {
            model.run();
        }
        assert_eq!(stored(&model, 40), 40, "{kind:?}");
        model.delete_local(0, 40 + OTHER_SPELLING);
        assert_level_again(&model, kind);
    }
}

#[test]
fn tables_whose_keys_are_all_different_are_not_asked_more_than_once_a_batch() {
    let model = model(KINDS[0], ROWS);
    model.run();
    model.damage(0, 40, |row| row.value = 9);
    for _ in 0..8 {
        model.run();
        assert!(model.called("sharing") <= model.called("upload"));
    }
    assert!(model.is_equal(0));
}
