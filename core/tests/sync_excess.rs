//! Rules of deleting, of order between tables, and of the guard.
mod model;

use model::{LocalRow, Model, RemoteRow};
use plimsoll_core::store::{Failure, FailureKind};
use plimsoll_core::sync::{Settings, Status};

fn level(rows: u64, window: u64) -> Model {
    let mut model = Model::new(1, 1);
    model.settings =
        Settings { window_rows: window, max_window_rows: window, tail_rows: 8, ..Settings::default() };
    model.fill(0, 0..rows);
    assert_eq!(model.run().tables[0].status, Status::Level);
    model
}

#[test]
fn what_the_target_has_beyond_the_source_is_deleted_in_one_run() {
    let model = level(1_000, 50);
    for key in 900..1_000 {
        model.delete_local(0, key);
    }
    let report = model.run();
    assert_eq!(report.tables[0].deleted, 100);
    assert!(model.is_equal(0));
    // Nothing else differs: the rest of the table need not be swept for it.
    assert_eq!(report.tables[0].windows, 1);
}

#[test]
fn a_row_whose_version_was_lowered_is_sent_and_not_deleted() {
    let model = level(1_000, 50);
    model.change(0, 999, |row| (row.version, row.value) = (3, 5));
    let report = model.run();
    assert!(model.is_equal(0));
    assert_eq!((report.tables[0].deleted, model.called("delete")), (0, 0));
}

#[test]
fn keys_are_looked_up_right_before_the_delete() {
    let model = level(1_000, 50);
    model.delete_local(0, 999);
    model.delete_local(0, 998);
    // One of them comes back after the comparison, before the lookup.
    model.with(|state| {
        state.hook = Some(Box::new(|state, operation| {
            if operation == "keys_of" && !state.tables[0].local.contains_key(&998) {
                state.tables[0].local.insert(998, LocalRow::new(5_000, 1));
                state.touch();
            }
        }));
    });
    let report = model.run();
    assert_eq!(report.tables[0].deleted, 1);
    let log = model.with(|state| state.log.clone());
    let delete = log.iter().position(|call| call.operation == "delete").expect("a delete");
    assert_eq!(log[delete].keys, [999]);
    assert_eq!(log[delete - 1].operation, "lookup");
    model.with(|state| state.hook = None);
    model.run();
    assert!(model.is_equal(0));
}

/// Customers and their invoices.
fn family() -> Model {
    let mut model = Model::new(2, 1);
    model.settings = Settings { window_rows: 50, tail_rows: 8, ..Settings::default() };
    model.with(|state| {
        // The child stands first in the list: order is by rank alone.
        (state.tables[1].rank, state.tables[0].rank) = (0, 1);
        state.tables[0].parent = Some(1);
    });
    model.fill(1, 0..100);
    model.fill(0, 0..100);
    for key in 0..100 {
        model.change(0, key, |row| row.parent = Some(key));
    }
    model
}

#[test]
fn parents_are_sent_before_children() {
    let model = family();
    let report = model.run();
    assert!(model.is_equal(0) && model.is_equal(1));
    assert_eq!(model.called("reject"), 0, "no child had to wait");
    assert_eq!(report.tables[0].status, Status::Level);
}

#[test]
fn children_are_deleted_before_parents() {
    let model = family();
    model.run();
    for key in [99, 98, 20] {
        model.delete_local(0, key);
        model.delete_local(1, key);
    }
    let report = model.run();
    assert!(model.is_equal(0) && model.is_equal(1), "{report:?}");
    assert_eq!(report.tables[1].blocked, 0);
}

#[test]
fn a_unique_value_held_by_an_excess_row_arrives_in_the_same_run() {
    let model = level(2_000, 50);
    model.change(0, 1_200, |row| (row.version, row.unique) = (3_000, Some(7)));
    model.run();
    assert!(model.is_equal(0));
    // The holder goes, a new row takes its value; so do the counts agree, and no window is near.
    model.with(|state| {
        state.tables[0].local.remove(&1_200);
        state.tables[0].remote.get_mut(&1_200).unwrap().version = 1_200;
        state.touch();
    });
    model.insert(0, 5_000, 5_000);
    model.change(0, 5_000, |row| row.unique = Some(7));
    let report = model.run();
    assert!(model.is_equal(0), "{report:?}");
    assert_eq!((report.tables[0].waiting, report.tables[0].deleted), (0, 1));
}

#[test]
fn a_hold_stops_deletes_and_lowering_rows_but_new_rows_arrive() {
    let model = level(2_000, 50);
    for key in 0..1_500 {
        model.delete_local(0, key);
    }
    model.with(|state| state.tables[0].hold = true);
    model.insert(0, 5_000, 5_000);
    let report = model.run();
    assert_eq!(report.tables[0].status, Status::Different);
    assert!(report.tables[0].held > 0);
    // The person who is asked is told of all that the run would delete, not of one call's rows.
    assert_eq!(model.with(|state| state.tables[0].planned), 1_500);
    assert_eq!((report.tables[0].inserted, report.tables[0].deleted), (1, 0));
    for key in 6_000..6_003 {
        // Counts that change do not make it sweep for what is held.
        model.insert(0, key, key as i64);
        let report = model.run();
        assert_eq!((report.tables[0].windows, report.tables[0].status), (1, Status::Different));
        assert!(model.called("delete") <= 1, "asked again and again");
    }
    // A person agrees.
    model.with(|state| state.tables[0].hold = false);
    model.run();
    assert!(model.is_equal(0));
    // Once is enough.
    assert_eq!(model.run().tables[0].windows, 1);
}

#[test]
fn rows_that_others_still_refer_to_are_left_and_told() {
    let mut model = family();
    model.settings.max_window_rows = 50;
    model.fill(1, 100..5_000);
    model.run();
    model.with(|state| {
        state.touch();
        state.tables[1].local.remove(&50);
        state.tables[0]
            .remote
            .insert(900, RemoteRow { version: 3, value: 1, unique: None, parent: Some(50) });
        state.tables[0].local.insert(900, LocalRow { parent: Some(50), ..LocalRow::new(3, 1) });
        state.tables[0].local.remove(&50);
    });
    let report = model.run();
    assert!(report.tables[1].blocked > 0, "{report:?}");
    assert_eq!(report.tables[1].status, Status::Different);
    // However long it takes until the last of them is gone, the run after that deletes it.
    model.run();
    model.run();
    model.delete_local(0, 900);
    model.run();
    assert!(model.is_equal(0) && model.is_equal(1));
}

#[test]
fn keys_are_looked_up_again_before_a_delete_is_tried_again() {
    let model = level(1_000, 50);
    model.delete_local(0, 999);
    model.with(|state| {
        let failure = Failure::new(FailureKind::Passing, "connection lost");
        state.failures.push(("delete", failure));
        let row = state.tables[0].remote[&999].clone();
        // It comes back while the run pauses.
        state.hook = Some(Box::new(move |state, operation| {
            if operation == "delete" && !state.tables[0].local.contains_key(&999) {
                let back = LocalRow::new(row.version, row.value);
                state.tables[0].local.insert(999, back);
                state.touch();
            }
        }));
    });
    let report = model.run();
    assert_eq!(report.tables[0].deleted, 0);
    assert!(model.is_equal(0));
}
