//! The proof by reading all rows in order: each of its conditions, with a test that fails without it.
mod model;

use model::{Kind, LocalRow, Model, RemoteRow, State};
use plimsoll_core::store::{Failure, FailureKind};
use plimsoll_core::sync::{Settings, Status};

/// An empty replica of 1,000 rows, which are sent a hundred at a time.
fn first(keeps_sum: bool) -> Model {
    let mut model = Model::new(1, 1);
    model.settings = Settings { max_batch_rows: 100, tail_rows: 8, ..Settings::default() };
    model.with(|state| state.tables[0].keeps_sum = keeps_sum);
    model.fill(0, 0..1_000);
    model
}

/// Has something happen before the call of an operation for the `nth` time.
fn before(model: &Model, operation: &'static str, nth: usize, change: impl Fn(&mut State) + 'static) {
    let mut calls = 0;
    model.with(|state| {
        state.hook = Some(Box::new(move |state, called| {
            calls += usize::from(called == operation);
            if calls == nth && called == operation {
                change(state);
            }
        }));
    });
}

#[test]
fn a_first_sync_is_proved_by_what_it_read() {
    for keeps_sum in [true, false] {
        let model = first(keeps_sum);
        let began = model.with(|state| state.clock);
        let report = model.run().tables[0].clone();
        assert_eq!(report.status, Status::Level, "{report:?}");
        assert!(report.proved_at.is_some_and(|at| at >= began), "{report:?}");
        assert_eq!((report.windows, report.compared_rows), (1, 1_000));
        assert_eq!(model.called("window"), 0, "nothing is read a second time");
        // Where the target keeps its digest sum, what it says of itself anyway is enough.
        assert_eq!(model.called("fingerprint"), usize::from(!keeps_sum));
        assert!(model.is_equal(0));
        assert_eq!(model.run().tables[0].status, Status::Level, "and it stays so");
    }
}

#[test]
fn the_proof_is_as_old_as_the_first_row_read() {
    let model = first(true);
    let read = std::rc::Rc::new(std::cell::Cell::new(0));
    let seen = read.clone();
    before(&model, "read_batch", 1, move |state| seen.set(state.clock));
    let report = model.run().tables[0].clone();
    assert!(report.proved_at.is_some_and(|at| at <= read.get()), "{report:?}");
}

#[test]
fn a_row_changed_behind_the_reading_is_found_by_windows_in_the_same_run() {
    for has_token in [true, false] {
        let model = first(true);
        model.with(|state| state.has_token = has_token);
        // In place, without a new version, when it was read and sent already.
        before(&model, "read_batch", 5, |state| {
            state.touch();
            state.tables[0].local.get_mut(&50).unwrap().value += 1;
        });
        let report = model.run().tables[0].clone();
        assert!(model.is_equal(0), "{report:?}");
        assert!(model.called("window") > 0);
    }
}

#[test]
fn a_row_that_came_behind_the_reading_is_found_by_windows_in_the_same_run() {
    let model = first(true);
    // The counts agree: another row went.
    before(&model, "read_batch", 5, |state| {
        state.touch();
        state.tables[0].local.remove(&900);
        state.tables[0].local.insert(5_000, LocalRow::new(50, 1));
    });
    model.run();
    assert!(model.is_equal(0));
}

#[test]
fn a_change_after_the_last_row_was_read_leaves_no_level() {
    let model = first(true);
    before(&model, "table_version", 1, |state| {
        state.touch();
        state.tables[0].local.get_mut(&50).unwrap().value += 1;
    });
    let report = model.run().tables[0].clone();
    assert!(!model.is_equal(0));
    assert_eq!(report.status, Status::CountsAgree, "{report:?}");
}

#[test]
fn a_row_that_stands_nowhere_is_no_part_of_what_was_read() {
    let model = first(true);
    model.insert(0, 5_000, 0);
    model.change(0, 5_000, |row| row.kind = Kind::Nowhere);
    let report = model.run().tables[0].clone();
    assert_eq!((report.status, report.rejected), (Status::LevelExcept(1), 1), "{report:?}");
}

#[test]
fn what_the_target_has_otherwise_is_found_by_windows_in_the_same_run() {
    for keeps_sum in [true, false] {
        for case in 0..3 {
            let model = first(keeps_sum);
            before(&model, "upload", 5, move |state| {
                let remote = &mut state.tables[0].remote;
                match case {
                    0 => remote.get_mut(&50).unwrap().value += 1,
                    1 => drop(remote.remove(&50)),
                    _ => {
                        let row = RemoteRow { version: 50, value: 1, unique: None, parent: None };
                        remote.insert(9_000, row);
                    }
                }
            });
            let report = model.run().tables[0].clone();
            assert!(model.is_equal(0), "{case}: {report:?}");
            assert_eq!(report.status, Status::Level, "{case}: {report:?}");
        }
    }
}

#[test]
fn the_target_is_asked_after_the_last_row_was_sent() {
    let model = first(true);
    // Only the very last batch is damaged, and nothing of it is told.
    before(&model, "table_version", 1, |state| {
        state.tables[0].remote.get_mut(&999).unwrap().value += 1;
    });
    let report = model.run().tables[0].clone();
    assert!(model.is_equal(0), "{report:?}");
}

#[test]
fn a_row_that_is_not_stored_makes_the_question_vain() {
    for kind in [Kind::Poison, Kind::Bad] {
        let model = first(false);
        model.change(0, 700, |row| row.kind = kind);
        let report = model.run().tables[0].clone();
        assert_eq!(report.status, Status::LevelExcept(1), "{report:?}");
        // One for each window, and none for all rows.
        assert_eq!(model.called("fingerprint"), model.called("window"), "{kind:?}");
    }
}

#[test]
fn rows_of_an_earlier_run_are_compared_by_windows() {
    let mut model = first(false);
    model.with(|state| state.stop_after = Some(12));
    assert!(model.run().stopped);
    let stored = model.with(|state| state.tables[0].remote.len());
    assert!((100..1_000).contains(&stored), "{stored}");
    model.with(|state| state.stop_after = None);
    // Neither count nor highest version tells.
    model.damage(0, 5, |row| row.value += 1);
    let report = model.run().tables[0].clone();
    assert!(model.is_equal(0), "{report:?}");
    assert_eq!(report.status, Status::Level, "{report:?}");
    assert!(model.called("window") > 0);
    // Small tables have no row below the tail; a run that only adds to a replica asks for no sum of all rows.
    model.settings.sweep_interval = u64::MAX;
    model.insert(0, 2_000, 2_000);
    model.run();
    assert_eq!(model.called("fingerprint"), model.called("window"));
}

#[test]
fn answers_that_were_lost_count_no_row_twice() {
    for failing in ["read_batch", "upload", "upload lost", "change_token", "table_version", "fingerprint"] {
        let model = first(false);
        before(&model, "upload", 3, move |state| {
            let lost = Failure::new(FailureKind::Passing, "connection lost");
            state.failures.push((failing, lost));
        });
        let report = model.run().tables[0].clone();
        assert_eq!(report.status, Status::Level, "{failing}: {report:?}");
        assert!(model.with(|state| state.failures.is_empty()), "{failing}");
        assert_eq!(model.called("window"), 0, "{failing}");
    }
}

#[test]
fn a_run_that_is_asked_to_stop_asks_for_no_sum_of_all_rows() {
    let model = first(false);
    before(&model, "upload", 10, |state| state.stop_after = Some(0));
    let report = model.run();
    assert!(report.stopped && model.is_equal(0), "{report:?}");
    assert_eq!((model.called("fingerprint"), report.tables[0].proved_at), (0, None));
}

#[test]
fn each_table_is_proved_for_itself() {
    let mut model = Model::new(3, 1);
    model.settings = Settings { max_batch_rows: 100, tail_rows: 8, ..Settings::default() };
    (0..3).for_each(|table| model.fill(table, 0..300));
    model.with(|state| {
        for (rank, table) in state.tables.iter_mut().enumerate() {
            (table.rank, table.keeps_sum) = (rank as u32, true);
        }
        state.tables[1].local.get_mut(&7).unwrap().kind = Kind::Poison;
    });
    let report = model.run();
    let statuses: Vec<_> = report.tables.iter().map(|table| table.status).collect();
    assert_eq!(statuses, [Status::Level, Status::LevelExcept(1), Status::Level]);
    let compared = |table| {
        let of = |call: &&model::Call| call.operation == "window" && call.table == table;
        model.with(|state| state.log.iter().filter(of).count())
    };
    assert_eq!((compared(0), compared(2)), (0, 0));
    assert!(compared(1) > 0);
}

#[test]
fn an_empty_table_is_compared_as_before() {
    let model = Model::new(1, 1);
    assert_eq!(model.run().tables[0].status, Status::Level);
    assert_eq!(model.called("window"), 1);
}
