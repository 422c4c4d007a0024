//! Rules of status and proof, of what is remembered, of stopping, of dry runs and of `verify`.
mod model;

use model::{Kind, LocalRow, Model, RemoteRow};
use plimsoll_core::store::{Failure, FailureKind};
use plimsoll_core::sync::{DifferenceKind, Event, Settings, Status, TableMemory};

fn model(rows: u64, window: u64) -> Model {
    let mut model = Model::new(1, 1);
    model.settings =
        Settings { window_rows: window, max_window_rows: window, tail_rows: 8, ..Settings::default() };
    model.fill(0, 0..rows);
    model
}

fn row(version: i64) -> RemoteRow {
    RemoteRow { version, value: 1, unique: None, parent: None }
}

#[test]
fn level_needs_a_whole_sweep_and_nothing_changed_since() {
    let model = model(1_000, 100);
    let proved = model.run().tables[0].clone();
    assert_eq!(proved.status, Status::Level);
    assert_eq!(model.run().tables[0].status, Status::Level, "nothing changed");
    // One new row arrives: the counts agree, the content is not compared yet.
    model.insert(0, 5_000, 5_000);
    let report = model.run().tables[0].clone();
    assert_eq!((report.status, report.proved_at), (Status::CountsAgree, proved.proved_at));
    let statuses: Vec<Status> = (0..21).map(|_| model.run().tables[0].status).collect();
    assert_eq!(*statuses.last().unwrap(), Status::Level);
    assert!(model.run().tables[0].proved_at > proved.proved_at);
}

#[test]
fn under_another_plan_all_is_compared_anew_and_rejected_rows_are_tried_again() {
    let model = model(300, 100);
    model.with(|state| {
        state.tables[0].local.insert(500, LocalRow { kind: Kind::Poison, ..LocalRow::new(500, 1) });
    });
    model.run();
    assert_eq!(model.run().tables[0].status, Status::LevelExcept(1));
    // What its rows are changes, and neither side says so.
    model.with(|state| state.tables[0].local.get_mut(&50).unwrap().value += 1);
    let sent = |model: &Model| {
        model.with(|state| {
            let uploads = state.log.drain(..).filter(|call| call.operation == "upload");
            uploads.flat_map(|call| call.keys).collect::<Vec<_>>()
        })
    };
    sent(&model);
    assert_eq!(model.run().tables[0].status, Status::LevelExcept(1));
    assert!(sent(&model).is_empty(), "nothing changed that anybody knows of");
    model.with(|state| state.tables[0].plan = Some(2));
    model.run();
    let mut keys = sent(&model);
    keys.sort_unstable();
    assert_eq!(keys, [50, 500]);
    model.run();
    assert!(sent(&model).is_empty(), "once for each plan");
}

#[test]
fn a_change_of_the_target_by_others_ends_the_proof() {
    let model = model(1_000, 100);
    model.run();
    model.with(|state| {
        state.tables[0].remote.insert(9_000, row(500));
        state.tables[0].local.insert(9_000, LocalRow::new(500, 1));
    });
    // Equal content, but no run compared it: the target said something else before.
    let report = model.run().tables[0].clone();
    assert_ne!(report.status, Status::Level, "{report:?}");
}

#[test]
fn a_change_of_the_source_while_the_run_goes_on_is_no_level() {
    let model = model(100, 200);
    model.run();
    model.with(|state| {
        state.hook = Some(Box::new(|state, operation| {
            // In place, behind the window.
            if operation == "remember" {
                return;
            }
            if operation == "fingerprint" {
                state.tables[0].local.get_mut(&50).unwrap().value += 1;
                state.touch();
            }
        }));
    });
    model.damage(0, 3, |row| row.value = 99);
    let report = model.run();
    assert!(!model.is_equal(0));
    assert_ne!(report.tables[0].status, Status::Level, "{report:?}");
}

#[test]
fn a_proof_that_a_comparison_disproved_does_not_come_back() {
    let model = model(1_000, 100);
    model.run();
    let from = model.with(|state| state.memories[0].window_from);
    assert_eq!(from, None);
    model.damage(0, 50, |row| row.value += 1);
    model.damage(0, 950, |row| row.value += 1);
    // The first is found; the agent is killed when it is mended.
    model.with(|state| {
        state.failures.push(("upload lost", Failure::new(FailureKind::Run, "killed")));
    });
    assert!(model.run().failure.is_some());
    assert_ne!(model.run().tables[0].status, Status::Level);
}

#[test]
fn a_table_that_failed_is_unknown_and_keeps_its_last_proof() {
    let model = model(100, 200);
    let proved_at = model.run().tables[0].proved_at;
    model.with(|state| state.failures.push(("window", Failure::new(FailureKind::Table, "no such column"))));
    let report = model.run();
    assert_eq!((report.tables[0].status, report.tables[0].proved_at), (Status::Unknown, proved_at));
}

#[test]
fn the_rows_are_counted_only_when_the_source_may_have_changed() {
    let model = model(1_000, 100);
    model.run();
    model.run();
    assert_eq!(model.called("row_count"), 0);
    model.insert(0, 5_000, 5_000);
    model.run();
    assert_eq!(model.called("row_count"), 1);
    // A source without a token: nothing else tells of rows that went.
    model.with(|state| state.has_token = false);
    model.run();
    model.run();
    assert_eq!(model.called("row_count"), 1);
}

#[test]
fn a_row_that_went_from_a_source_without_a_token_is_noticed_by_the_next_run() {
    let model = model(1_000, 100);
    model.with(|state| state.has_token = false);
    model.run();
    assert_eq!(model.run().tables[0].status, Status::Level);
    model.delete_local(0, 7);
    let report = model.run();
    assert!(report.tables[0].deleted == 1 || report.tables[0].status != Status::Level, "{report:?}");
}

#[test]
fn losing_the_memory_is_harmless() {
    let model = model(1_000, 100);
    model.change(0, 999, |row| row.kind = Kind::Poison);
    model.run();
    model.with(|state| state.memories[0] = TableMemory::default());
    let report = model.run();
    assert_eq!((report.tables[0].inserted, report.tables[0].deleted), (0, 0));
    assert_eq!(report.tables[0].status, Status::LevelExcept(1));
}

#[test]
fn a_kill_between_any_two_steps_loses_and_doubles_nothing() {
    for at in 1..200 {
        for after_effect in [false, true] {
            let model = model(300, 50);
            model.run();
            model.insert(0, 1_000, 1_000);
            model.change(0, 7, |row| row.kind = Kind::Poison);
            model.change(0, 299, |row| (row.version, row.kind) = (1_001, Kind::Poison));
            model.delete_local(0, 100);
            model.with(|state| {
                state.tables[0].remote.insert(5_000, row(2_000));
                state.tables[0].remote.remove(&200);
                state.kill_at = Some(at);
                state.kill_after_effect = after_effect;
            });
            let killed = model.run().failure.is_some();
            model.with(|state| state.kill_at = None);
            // Two rejected rows make the counts say little at first: the windows find the rest.
            (0..7).for_each(|_| drop(model.run()));
            let report = model.run();
            assert_eq!(report.tables[0].status, Status::LevelExcept(2), "killed at {at}: {report:?}");
            model.with(|state| {
                let table = &state.tables[0];
                let lost: Vec<_> = table.local.keys().filter(|key| !table.remote.contains_key(key)).collect();
                assert!(lost.is_empty(), "killed at {at}: {lost:?} {report:?}");
                assert_eq!(table.remote.len(), table.local.len(), "killed at {at}: two stale rows stay");
                assert!(!table.remote.contains_key(&5_000) && table.remote.contains_key(&200));
            });
            if !killed {
                return;
            }
        }
    }
    panic!("the run has more steps than were tried");
}

#[test]
fn a_run_stops_after_the_current_batch_and_remembers_it() {
    let mut model = model(5_000, 100);
    model.settings.max_batch_rows = 100;
    model.with(|state| state.stop_after = Some(12));
    let report = model.run();
    assert!(report.stopped);
    assert!(model.called("upload") >= 1 && model.called("upload") <= 6, "{}", model.called("upload"));
    assert_eq!(model.with(|state| state.tables[0].remote.len()) % 100, 0);
    assert_ne!(report.tables[0].status, Status::Level);
    model.with(|state| state.stop_after = None);
    assert_eq!(model.run().tables[0].status, Status::Level);
}

#[test]
fn a_dry_run_counts_and_changes_nothing() {
    let mut model = model(1_000, 100);
    model.run();
    model.insert(0, 5_000, 5_000);
    model.change(0, 10, |row| (row.version, row.value) = (5_001, 1));
    model.delete_local(0, 500);
    model.change(0, 600, |row| row.kind = Kind::Poison);
    model.with(|state| state.tables[0].remote.insert(9_000, row(i64::MAX)));
    let before = model.with(|state| (state.tables[0].remote.clone(), state.memories.clone()));
    model.settings.dry_run = true;
    let report = model.run();
    // The new one, the changed ones; the target alone can say that it will reject one of them.
    assert_eq!((report.tables[0].would_send, report.tables[0].would_delete), (3, 2), "{report:?}");
    assert_eq!(report.tables[0].status, Status::Different);
    for operation in ["upload", "delete", "reject", "clear_rejected", "record_batch", "remember"] {
        assert_eq!(model.called(operation), 0, "{operation}");
    }
    assert!(before == model.with(|state| (state.tables[0].remote.clone(), state.memories.clone())));
}

#[test]
fn verify_lists_each_difference_by_key_and_changes_nothing() {
    let model = model(1_000, 100);
    model.change(0, 900, |row| row.kind = Kind::Poison);
    model.change(0, 901, |row| row.kind = Kind::Bad);
    model.run();
    model.with(|state| {
        state.tables[0].remote.remove(&10);
        state.tables[0].remote.get_mut(&20).unwrap().value += 1;
        state.tables[0].remote.insert(9_000, row(30));
        state.log.clear();
    });
    let (report, differences) = model.verify(0);
    let found: Vec<_> = differences
        .iter()
        .map(|found| (found.kind, u64::from_be_bytes(found.key.clone().try_into().unwrap())))
        .collect();
    use DifferenceKind::*;
    let mut sorted = found.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [(Missing, 10), (Excess, 9_000), (Altered, 20), (Rejected, 900), (Rejected, 901)]);
    assert!(!report.level);
    assert_eq!(
        (report.rows, report.missing, report.excess, report.altered, report.rejected),
        (1_000, 1, 1, 1, 2)
    );
    for operation in ["upload", "delete", "reject", "clear_rejected", "record_batch", "remember"] {
        assert_eq!(model.called(operation), 0, "{operation}");
    }
}

#[test]
fn verify_reads_a_difference_twice_before_it_tells_of_it() {
    let model = model(1_000, 100);
    model.run();
    model.damage(0, 10, |row| row.value += 1);
    let right = model.with(|state| state.tables[0].local[&10].stored());
    // The damage is gone when it is looked at again.
    model.with(|state| {
        state.hook = Some(Box::new(move |state, _| {
            if state.paused > 0 {
                state.tables[0].remote.insert(10, right.clone());
            }
        }));
    });
    let (report, differences) = model.verify(0);
    assert!(report.level && differences.is_empty(), "{differences:?}");
    model.with(|state| state.hook = None);
    assert!(model.verify(0).0.level);
}

#[test]
fn verify_of_level_tables_says_so_and_of_empty_ones_too() {
    let model = model(1_000, 100);
    model.run();
    assert!(model.verify(0).0.level);
    assert!(Model::new(1, 1).verify(0).0.level);
    let empty = Model::new(1, 1);
    assert_eq!(empty.run().tables[0].status, Status::Level);
    empty.with(|state| state.tables[0].remote.insert(1, row(5)));
    assert!(!empty.verify(0).0.level);
}

#[test]
fn a_run_tells_what_it_does() {
    let model = model(1_000, 100);
    model.run();
    let events = model.with(|state| state.events.clone());
    assert!(matches!(events.first(), Some((0, Event::Started { expected_rows: Some(1_000) }))), "{events:?}");
    assert!(matches!(events.last(), Some((0, Event::Finished { status: Status::Level }))), "{events:?}");
    let sent: u64 = events
        .iter()
        .map(|(_, event)| match event {
            Event::Uploaded { rows, .. } => *rows,
            _ => 0,
        })
        .sum();
    assert_eq!(sent, 1_000);
}

#[test]
fn an_endless_table_leaves_time_for_the_others() {
    let mut model = Model::new(2, 1);
    model.settings = Settings { run_budget: 4_000_000, max_batch_rows: 100, ..Settings::default() };
    model.fill(0, 0..100);
    model.fill(1, 0..1_000);
    model.with(|state| {
        state.cost = (20_000, 1);
        let mut next = 10_000;
        state.hook = Some(Box::new(move |state, operation| {
            if operation == "read_batch" {
                for _ in 0..150 {
                    state.tables[0].local.insert(next, LocalRow::new(next as i64, 1));
                    next += 1;
                }
                state.touch();
            }
        }));
    });
    (0..2).for_each(|_| drop(model.run()));
    assert!(model.is_equal(1));
}
