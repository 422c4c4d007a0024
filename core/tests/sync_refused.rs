//! Rules of rows that cannot be stored, of failures, and of batches.
mod model;

use model::{Kind, LocalRow, Model};
use plimsoll_core::store::{BatchKind, BatchRecord, Failure, FailureKind};
use plimsoll_core::sync::{Event, Settings, Status, TableMemory};

fn model(rows: u64) -> Model {
    let mut model = Model::new(1, 1);
    model.settings = Settings { window_rows: 100, tail_rows: 8, ..Settings::default() };
    model.fill(0, 0..rows);
    model
}

fn uploads_of(model: &Model, key: u64) -> usize {
    let sent = |call: &&model::Call| call.operation == "upload" && call.keys.contains(&key);
    model.with(|state| state.log.iter().filter(sent).count())
}

#[test]
fn a_rejected_row_delays_only_itself_and_is_never_plain_level() {
    for kind in [Kind::Poison, Kind::Bad] {
        let model = model(1_000);
        model.change(0, 400, |row| row.kind = kind);
        let report = model.run();
        assert_eq!(report.tables[0].inserted, 999);
        assert_eq!(report.tables[0].status, Status::LevelExcept(1), "{kind:?} {report:?}");
        assert_eq!(report.tables[0].rejected, 1);
        for _ in 0..12 {
            let report = model.run();
            assert_eq!(report.tables[0].status, Status::LevelExcept(1), "{kind:?} {report:?}");
            assert_eq!((uploads_of(&model, 400), report.tables[0].found_missing), (0, 0));
        }
        assert!(!model.verify(0).0.level);
    }
}

#[test]
fn a_rejected_row_with_the_highest_version_does_not_keep_the_table_behind() {
    let model = model(100);
    model.change(0, 99, |row| row.kind = Kind::Poison);
    model.run();
    model.run();
    assert_eq!(model.called("read_batch"), 0, "the table is not behind");
    model.insert(0, 100, 100);
    let report = model.run();
    assert_eq!((report.tables[0].inserted, uploads_of(&model, 99)), (1, 0));
    // Losing the memory does no harm.
    model.with(|state| state.memories[0] = TableMemory::default());
    assert_eq!(model.run().tables[0].status, Status::LevelExcept(1));
    assert_eq!(uploads_of(&model, 99), 0);
}

#[test]
fn the_position_skipped_to_is_saved_only_after_the_rejection() {
    let model = model(100);
    model.change(0, 99, |row| row.kind = Kind::Poison);
    model.with(|state| {
        state.failures.push(("reject", Failure::new(FailureKind::Run, "killed")));
    });
    assert!(model.run().failure.is_some());
    assert_eq!(model.with(|state| state.memories[0].skipped_to), None);
    assert_eq!(model.run().tables[0].rejected, 1);
    assert_eq!(model.with(|state| state.memories[0].skipped_to), Some(99));
}

#[test]
fn a_rejected_row_is_sent_again_when_it_changed_and_forgotten_when_it_is_gone() {
    let model = model(100);
    model.change(0, 40, |row| row.kind = Kind::Poison);
    model.change(0, 50, |row| row.kind = Kind::Bad);
    assert_eq!(model.run().tables[0].status, Status::LevelExcept(2));
    // No new version: neither tail nor cursor nor this run's window would bring it.
    model.change(0, 40, |row| row.kind = Kind::Good);
    model.delete_local(0, 50);
    let report = model.run();
    assert_eq!(uploads_of(&model, 40), 1);
    assert_eq!(report.tables[0].rejected, 0);
    assert!(model.is_equal(0));
    assert!(model.with(|state| state.tables[0].rejected.is_empty()));
}

#[test]
fn the_older_version_of_a_rejected_row_stays_and_is_no_news() {
    for kind in [Kind::Poison, Kind::Bad] {
        let model = model(1_000);
        model.run();
        model.change(0, 400, |row| (row.version, row.kind) = (2_000, kind));
        for run in 0..12 {
            let report = model.run();
            assert_eq!(report.tables[0].status, Status::LevelExcept(1), "{kind:?}, run {run}: {report:?}");
            assert_eq!((report.tables[0].deleted, report.tables[0].found_excess), (0, 0), "run {run}");
        }
        assert_eq!(model.run().tables[0].stale, 1);
        assert_eq!(model.with(|state| state.tables[0].remote[&400].version), 400);
        // Gone from the source, it is like every other excess row.
        model.delete_local(0, 400);
        (0..11).for_each(|_| drop(model.run()));
        assert!(model.is_equal(0));
    }
}

#[test]
fn unique_values_swapped_between_rows_arrive() {
    for length in [2u64, 3, 10] {
        let mut model = model(1_000);
        model.settings.max_batch_rows = 1;
        for key in 0..length {
            model.change(0, key * 50, |row| row.unique = Some(key as u32));
        }
        model.run();
        assert!(model.is_equal(0));
        // One of them is read alone, the others have no new version yet.
        for key in 0..length {
            let next = ((key + 1) % length) as u32;
            model.change(0, key * 50, |row| row.unique = Some(next));
        }
        model.change(0, 0, |row| row.version = 5_000);
        let report = model.run();
        for key in 0..length {
            let remote = model.with(|state| state.tables[0].remote[&(key * 50)].clone());
            assert_eq!(remote.unique, Some(((key + 1) % length) as u32), "{length}: {report:?}");
        }
        assert_eq!(report.tables[0].waiting, 0);
    }
}

#[test]
fn a_waiting_row_is_tried_again_at_the_end_of_the_run_and_in_later_runs() {
    let mut model = Model::new(2, 1);
    model.settings.window_rows = 100;
    model.with(|state| {
        state.tables[1].parent = Some(0);
        // The order is of no help: both have one rank, and the child stands first.
        state.tables.swap(0, 1);
        state.tables[0].parent = Some(1);
        state.tables[1].parent = None;
    });
    model.fill(0, 0..10);
    model.change(0, 3, |row| row.parent = Some(5));
    model.fill(1, 0..5);
    let report = model.run();
    assert_eq!((report.tables[0].waiting, report.tables[0].status), (1, Status::LevelExcept(1)));
    model.insert(1, 5, 5);
    let report = model.run();
    assert!(model.is_equal(0) && model.is_equal(1), "{report:?}");
    assert_eq!(report.tables[0].waiting, 0);
}

#[test]
fn a_passing_failure_rejects_nothing_and_the_same_batch_is_tried_again() {
    let model = model(1_000);
    for message in ["lock timeout", "disk full"] {
        model.with(|state| state.failures.push(("upload", Failure::new(FailureKind::Passing, message))));
    }
    // The third time it is stored, and the answer is lost.
    model.with(|state| {
        state.failures.push(("upload lost", Failure::new(FailureKind::Passing, "connection lost")));
    });
    let report = model.run();
    let uploads: Vec<_> = model.with(|state| {
        state.log.iter().filter(|call| call.operation == "upload").map(|call| call.keys.clone()).collect()
    });
    assert!(uploads.len() == 4 && uploads.iter().all(|keys| *keys == uploads[0]), "{}", uploads.len());
    assert_eq!((report.tables[0].rejected, model.called("reject")), (0, 0));
    let pauses: Vec<u64> = model.with(|state| {
        let pause = |(_, event): &(usize, Event)| match event {
            Event::Retrying { pause, .. } => Some(*pause),
            _ => None,
        };
        state.events.iter().filter_map(pause).collect()
    });
    assert_eq!(pauses, [500_000, 1_000_000, 2_000_000]);
    assert!(model.is_equal(0));
    assert_eq!(report.tables[0].unchanged, 1_000);
}

#[test]
fn a_failure_that_does_not_pass_stops_the_table_and_not_the_others() {
    for (kind, times) in [(FailureKind::Passing, 5), (FailureKind::Table, 1)] {
        let model = Model::new(2, 1);
        model.fill(0, 0..100);
        model.fill(1, 0..100);
        for _ in 0..times {
            model.with(|state| state.failures.push(("upload", Failure::new(kind, "no privilege"))));
        }
        let report = model.run();
        let failure = report.tables[0].failure.as_ref().expect("a failure");
        assert_eq!((failure.message.as_str(), report.tables[0].status), ("no privilege", Status::Unknown));
        assert_eq!((report.failure, report.tables[1].status), (None, Status::Level));
        assert!(!report.tables[0].concluded && report.tables[1].concluded);
        model.run();
        assert!(model.is_equal(0));
    }
}

#[test]
fn a_failure_of_the_run_stops_it() {
    let model = Model::new(2, 1);
    model.fill(0, 0..100);
    model.fill(1, 0..100);
    model.with(|state| {
        state.failures.push(("upload", Failure::new(FailureKind::Run, "another agent holds the lease")));
    });
    let report = model.run();
    assert_eq!(report.failure.expect("a failure").message, "another agent holds the lease");
    assert_eq!(model.called("upload"), 1);
}

#[test]
fn a_hundred_rejections_in_a_row_stop_the_table() {
    for kind in [Kind::Poison, Kind::Bad] {
        let mut stuck = model(2_000);
        stuck.settings.max_batch_rows = 50;
        for key in 300..2_000 {
            stuck.change(0, key, |row| row.kind = kind);
        }
        let report = stuck.run();
        assert!(report.tables[0].failure.is_some(), "{kind:?} {report:?}");
        assert_eq!(report.tables[0].rejected, 100);
        // Many, but none in a row.
        let scattered = model(2_000);
        for key in 0..1_000 {
            scattered.change(0, key * 2, |row| row.kind = kind);
        }
        let report = scattered.run();
        assert_eq!((report.tables[0].failure.clone(), report.tables[0].rejected), (None, 1_000));
        assert_eq!(report.tables[0].status, Status::LevelExcept(1_000));
    }
}

#[test]
fn the_batch_after_one_with_rejected_rows_is_as_large_as_ever() {
    let model = model(8_000);
    model.change(0, 10, |row| row.kind = Kind::Poison);
    // A batch with a refused row takes the server long.
    model.with(|state| {
        state.hook = Some(Box::new(|state, operation| {
            if operation == "reject" {
                state.clock += 1;
            }
            if operation == "upload" && !state.tables[0].remote.contains_key(&11) {
                state.clock += 9_000_000;
            }
        }));
    });
    model.run();
    let sizes: Vec<usize> = model.with(|state| {
        state.log.iter().filter(|call| call.operation == "upload").map(|call| call.keys.len()).collect()
    });
    assert!(sizes[1] >= sizes[0], "{sizes:?}");
}

#[test]
fn batches_are_sized_by_the_history_that_the_server_keeps() {
    let model = model(4_000);
    let record = |rows| BatchRecord { kind: BatchKind::Upload, rows, bytes: 0, micros: rows * 5_000 };
    model.with(|state| state.tables[0].history = vec![record(180), record(200), record(220)]);
    model.run();
    let first = model.with(|state| {
        state.log.iter().find(|call| call.operation == "upload").expect("an upload").keys.len()
    });
    assert!((150..=250).contains(&first), "{first}");
    assert!(model.with(|state| state.tables[0].history.len()) > 3, "and new batches are added");
}

#[test]
fn one_upload_holds_no_more_bytes_than_it_may() {
    let mut model = model(1_000);
    // A row of the model has 37 bytes.
    model.settings.max_batch_bytes = 370;
    model.run();
    let log = model.with(|state| state.log.clone());
    assert!(log.iter().filter(|call| call.operation == "upload").all(|call| call.keys.len() <= 10));
    // So it is with what a window found.
    model.with(|state| state.tables[0].remote.retain(|key, _| *key >= 500));
    model.with(|state| state.tables[0].local.insert(7, LocalRow::new(7, 8)));
    model.run();
    let log = model.with(|state| state.log.clone());
    assert!(log.iter().filter(|call| call.operation == "upload").all(|call| call.keys.len() <= 10));
    assert!(model.is_equal(0));
}

#[test]
fn rejected_rows_do_not_hide_that_the_counts_differ() {
    let mut model = model(1_000);
    model.settings.max_window_rows = 50;
    model.settings.window_rows = 50;
    model.run();
    for key in 0..30 {
        // Half of them have an older version on the target, half have none.
        model.change(0, key, |row| (row.version, row.kind) = (2_000, Kind::Poison));
        model.insert(0, 5_000 + key, 3_000);
        model.change(0, 5_000 + key, |row| row.kind = Kind::Poison);
    }
    (0..42).for_each(|_| drop(model.run()));
    model.with(|state| state.tables[0].remote.remove(&500));
    let report = model.run();
    assert!(model.with(|state| state.tables[0].remote.contains_key(&500)), "{report:?}");
    assert_eq!(report.tables[0].status, Status::LevelExcept(60));
    assert_eq!(model.run().tables[0].windows, 1);
}
