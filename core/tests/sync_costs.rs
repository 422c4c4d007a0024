//! What finding a difference costs in a run, and what is not asked for twice.
mod model;

use model::{LocalRow, Model, RemoteRow};
use plimsoll_core::store::{Failure, FailureKind};
use plimsoll_core::sync::{Settings, Status};

const QUESTIONS: [&str; 4] = ["range_manifest", "summaries", "sketch", "items"];

/// A level table whose windows are as large as the table.
fn level(rows: u64) -> Model {
    let mut model = Model::new(1, 1);
    model.settings =
        Settings { window_rows: rows, max_window_rows: rows, tail_rows: 8, ..Settings::default() };
    model.with(|state| state.tables[0].keeps_sum = true);
    model.fill(0, 0..rows);
    assert_eq!(model.run().tables[0].status, Status::Level);
    model
}

fn asked(model: &Model) -> [usize; 4] {
    QUESTIONS.map(|question| model.called(question))
}

#[test]
fn rows_that_the_target_lost_in_one_place_are_found_by_its_fingerprint_alone() {
    let model = level(3_000);
    for lost in [700..701, 0..250, 2_500..3_000] {
        model.with(|state| state.tables[0].remote.retain(|key, _| !lost.contains(key)));
        let report = model.run();
        assert!(model.is_equal(0), "{report:?}");
        assert_eq!(report.tables[0].inserted, lost.end - lost.start);
        assert_eq!(asked(&model), [0; 4], "{lost:?}");
    }
}

#[test]
fn an_altered_row_costs_one_question() {
    let model = level(3_000);
    model.damage(0, 1_234, |row| row.value += 1);
    let report = model.run();
    assert!(model.is_equal(0), "{report:?}");
    assert_eq!((report.tables[0].found_missing, report.tables[0].found_excess), (1, 1));
    assert_eq!(asked(&model), [0, 0, 1, 0]);
}

#[test]
fn scattered_damage_is_found_without_a_list_of_all_rows() {
    let model = level(3_000);
    for key in (0..3_000).step_by(97) {
        model.damage(0, key, |row| row.value += 1);
        model.with(|state| state.tables[0].remote.remove(&(key + 1)));
    }
    let report = model.run();
    assert!(model.is_equal(0), "{report:?}");
    let [divided, _, sketches, items] = asked(&model);
    assert!(divided >= 1 && sketches >= 1 && items == 0 && divided + sketches <= 8, "{:?}", asked(&model));
}

/// Whether the next run, with nothing changed, compares one window and no more.
fn assert_quiet(model: &Model, context: &str) {
    let before = model.with(|state| state.memories[0].window_rows);
    let report = model.run();
    assert_eq!(report.tables[0].windows, 1, "{context}: {before} {report:?}");
}

#[test]
fn the_digest_sum_that_a_run_itself_changed_forces_no_sweep() {
    let mut model = level(2_000);
    model.settings.max_window_rows = 100;
    model.run();
    assert_quiet(&model, "at rest");
    model.insert(0, 5_000, 5_000);
    assert_eq!(model.run().tables[0].inserted, 1);
    assert_quiet(&model, "a row was sent");
    model.change(0, 5_000, |row| (row.version, row.value) = (5_001, 8));
    assert_eq!(model.run().tables[0].updated, 1);
    assert_quiet(&model, "a row was sent again");
    model.delete_local(0, 5_000);
    assert_eq!(model.run().tables[0].deleted, 1);
    assert_quiet(&model, "a row was deleted");
    for operation in ["upload lost", "delete lost"] {
        match operation {
            "upload lost" => model.insert(0, 6_000, 6_000),
            _ => model.delete_local(0, 6_000),
        }
        model.with(|state| {
            state.failures.push((operation, Failure::new(FailureKind::Passing, "connection lost")));
        });
        let report = model.run();
        assert!(model.is_equal(0));
        assert_eq!(report.tables[0].remote_rows, report.tables[0].local_rows, "{operation}: {report:?}");
        assert_quiet(&model, operation);
    }
}

#[test]
fn a_sweep_during_which_the_source_changed_proves_nothing() {
    let mut model = level(1_000);
    model.settings.max_window_rows = 100;
    model.settings.window_rows = 100;
    let sweep = |model: &Model| model.with(|state| state.memories[0].window_from);
    // On to the middle of a sweep.
    while sweep(&model).is_none_or(|from| from < 500) {
        model.run();
    }
    // A change behind the window, which neither counts nor highest positions tell.
    model.change(0, 50, |row| row.value = 77);
    let mut runs = 0;
    while !model.is_equal(0) {
        let report = model.run();
        assert!(model.is_equal(0) || report.tables[0].status != Status::Level, "{report:?}");
        runs += 1;
        assert!(runs < 25);
    }
    assert!(runs > 5, "the sweep under way came to its end before the row was met");
    (0..22).for_each(|_| drop(model.run()));
    assert_eq!(model.run().tables[0].status, Status::Level);
}

#[test]
fn what_is_held_is_not_compared_again() {
    let model = level(1_000);
    model.with(|state| state.tables[0].hold = true);
    // One row too many, and one whose version is to be lowered.
    model.with(|state| {
        let row = RemoteRow { version: 300, value: 1, unique: None, parent: None };
        state.tables[0].remote.insert(9_000, row);
        state.tables[0].remote.get_mut(&400).unwrap().version = 410;
    });
    let report = model.run();
    assert!(report.tables[0].held > 0, "{report:?}");
    assert_eq!(report.tables[0].status, Status::Different);
    // The tail and the window, once each.
    assert_eq!((model.called("window"), model.called("fingerprint")), (2, 2));
}

#[test]
fn time_is_divided_by_what_tables_have_to_do() {
    let mut model = Model::new(3, 1);
    model.settings = Settings { max_batch_rows: 100, tail_rows: 8, ..Settings::default() };
    (0..3).for_each(|table| model.fill(table, 0..50));
    model.run();
    model.with(|state| {
        state.cost = (20_000, 1);
        // The first and the last get new rows for ever.
        let mut next = 10_000;
        state.hook = Some(Box::new(move |state, operation| {
            if operation == "read_batch" {
                for table in [0, 2] {
                    for _ in 0..150 {
                        state.tables[table].local.insert(next, LocalRow::new(next as i64, 1));
                        next += 1;
                    }
                }
                state.touch();
            }
        }));
    });
    model.insert(0, 5_000, 5_000);
    model.insert(2, 5_000, 5_000);
    model.run();
    let uploads = |table| {
        let of = |call: &&model::Call| call.operation == "upload" && call.table == table;
        model.with(|state| state.log.iter().filter(of).count())
    };
    let (first, last) = (uploads(0) as f64, uploads(2) as f64);
    // Each of the busy ones gets ten times what the idle one gets; what that one does not use falls to the
    // last: 1 / 2.1 of the time, then all that is left.
    assert!(last > first * 1.02 && last < first * 1.4, "{first} and {last} batches");
    let budget = 50.0 * 0.9 * 0.75 / 2.1;
    let batch = 0.02 * 3.0;
    assert!((first * batch / budget - 1.0).abs() < 0.25, "{first} batches of {}", budget / batch);
}

#[test]
fn verify_takes_larger_windows_as_long_as_they_take_little_time() {
    let mut model = level(40_000);
    model.settings.window_rows = 1_000;
    let windows = |model: &Model| {
        model.with(|state| state.log.clear());
        assert!(model.verify(0).0.level);
        model.called("window")
    };
    assert!(windows(&model) <= 7, "1,000 rows, then twice as many each time");
    // A millisecond a row: half a second has 500.
    model.with(|state| state.cost = (1_000, 1_000));
    assert!(windows(&model) >= 35);
}
