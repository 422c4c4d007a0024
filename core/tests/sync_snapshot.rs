//! Snapshots: the target is old or new, whatever happens on the way.
mod model;

use std::collections::BTreeMap;

use model::{Kind, LocalRow, Model, RemoteRow, State};
use plimsoll_core::store::{Failure, FailureKind, TableShape};
use plimsoll_core::sync::{Settings, Status, TableReport};

/// A source of so many rows with their keys as versions, and a target that keeps its digest sum.
fn filled(rows: u64, shape: TableShape) -> Model {
    let mut model = Model::new(1, 1);
    model.settings =
        Settings { max_batch_rows: 50, window_rows: 100, max_window_rows: 200, ..model.settings };
    model.with(|state| {
        state.tables[0].keeps_sum = true;
        state.tables[0].shape = shape;
        state.tables[0].scanned = shape.hashed;
    });
    model.fill(0, 0..rows);
    model
}

fn shapes() -> [TableShape; 3] {
    let shape = |hashed, keyless| TableShape { hashed, keyless };
    [shape(false, false), shape(true, false), shape(true, true)]
}

fn snapshot(model: &Model) -> TableReport {
    model.snapshot().tables[0].clone()
}

/// Changes some rows in place, under a new version, adds and deletes some.
fn change(model: &Model) {
    for key in 0..20 {
        model.change(0, key * 7, |row| row.value += 1_000);
    }
    for key in 0..20 {
        model.change(0, 200 + key, |row| row.version += 10_000);
    }
    model.fill(0, 5_000..5_040);
    for key in 300..310 {
        model.delete_local(0, key);
    }
}

#[test]
fn the_target_becomes_what_the_source_is_in_one_transaction() {
    for shape in shapes() {
        let model = filled(500, shape);
        let report = snapshot(&model);
        assert_eq!((report.status, report.inserted), (Status::Level, 500), "{shape:?} {report:?}");
        assert!(model.is_equal(0));
        change(&model);
        let report = snapshot(&model);
        assert_eq!(report.status, Status::Level, "{shape:?} {report:?}");
        assert!(report.proved_at.is_some());
        assert!(model.is_equal(0));
        assert_eq!((model.called("hold_target"), model.called("commit")), (1, 1));
    }
}

#[test]
fn equal_sides_open_no_transaction_and_an_unchanged_token_reads_nothing() {
    for shape in shapes() {
        let model = filled(500, shape);
        snapshot(&model);
        let report = snapshot(&model);
        assert_eq!(report.status, Status::Level);
        let log = model.with(|state| state.log.iter().map(|call| call.operation).collect::<Vec<_>>());
        assert_eq!(log, ["change_token"], "nothing changed");
        // Another table of the same file may have changed.
        model.with(State::touch);
        let report = snapshot(&model);
        assert_eq!((report.status, report.compared_rows), (Status::Level, 500));
        assert_eq!((model.called("hold_target"), model.called("upload")), (0, 0));
        assert_eq!(model.called("fingerprints"), 1, "one pass");
        assert_eq!(snapshot(&model).status, Status::Level);
        assert_eq!(model.called("fingerprints"), 0, "and it is remembered");
        // After a day all rows are read again.
        model.with(|state| state.clock += 25 * 3_600_000_000);
        snapshot(&model);
        assert_eq!(model.called("fingerprints"), 1);
    }
}

#[test]
fn damage_on_the_target_is_undone_though_the_source_stood_still() {
    for shape in shapes() {
        for keeps_sum in [true, false] {
            let model = filled(500, shape);
            model.with(|state| state.tables[0].keeps_sum = keeps_sum);
            snapshot(&model);
            model.damage(0, 77, |row| row.value += 1);
            assert_eq!(snapshot(&model).status, Status::Level);
            assert!(model.is_equal(0), "{shape:?} {keeps_sum}");
            // A difference that no short sum shows.
            model.damage(0, 78, |row| row.value ^= model::UNSEEN);
            assert_eq!(snapshot(&model).status, Status::Level, "{shape:?} {keeps_sum}");
            assert!(model.is_equal(0), "{shape:?} {keeps_sum}");
        }
    }
}

/// What the target holds, keys of keyless rows apart.
fn rows_of(model: &Model) -> Vec<RemoteRow> {
    model.with(|state| {
        let mut rows: Vec<RemoteRow> = state.seen(0).values().cloned().collect();
        rows.sort_unstable();
        rows
    })
}

/// A model with level rows, and changes waiting.
fn changed(shape: TableShape) -> Model {
    let model = filled(150, shape);
    snapshot(&model);
    for key in 0..6 {
        model.change(0, key * 7, |row| row.value += 1_000);
        model.change(0, 60 + key, |row| row.version += 10_000);
        model.insert(0, 5_000 + key, 5_000 + key as i64);
        model.delete_local(0, 100 + key);
    }
    model
}

#[test]
fn killed_at_any_step_the_target_is_old_or_new() {
    for shape in shapes() {
        let clean = changed(shape);
        let old = rows_of(&clean);
        snapshot(&clean);
        let calls = clean.with(|state| state.calls);
        let new = rows_of(&clean);
        assert!(calls > 20 && old != new);
        for at in 1..=calls {
            for after_effect in [false, true] {
                for passing in [false, true] {
                    let model = changed(shape);
                    model.with(|state| match passing {
                        false => (state.kill_at, state.kill_after_effect) = (Some(at), after_effect),
                        true => fail_at(state, at, after_effect),
                    });
                    let report = model.snapshot();
                    model.with(|state| (state.kill_at, state.hook) = (None, None));
                    let now = rows_of(&model);
                    assert!(
                        now == old || now == new,
                        "{shape:?}: a part of it at {at} {after_effect} {passing}"
                    );
                    if report.failure.is_none() && report.tables[0].failure.is_none() {
                        assert!(now == new, "{at}: said to be done, and is not");
                    }
                    let report = snapshot(&model);
                    assert_eq!(report.status, Status::Level, "{shape:?} at {at}: {report:?}");
                    assert!(rows_of(&model) == new);
                }
            }
        }
    }
}

/// Has a call fail in passing.
fn fail_at(state: &mut State, at: u64, after_effect: bool) {
    state.hook = Some(Box::new(move |state, operation| {
        if state.calls == at {
            let failure = Failure::new(FailureKind::Passing, "connection lost");
            let lost = ["upload lost", "delete lost", "commit lost", "reject lost"];
            let lost = lost.into_iter().find(|lost| lost.strip_suffix(" lost") == Some(operation));
            state.failures.push((lost.filter(|_| after_effect).unwrap_or(operation), failure));
        }
    }));
}

#[test]
fn what_fails_in_passing_is_not_tried_again_within() {
    let model = changed(TableShape::default());
    model.with(|state| {
        let failure = Failure::new(FailureKind::Passing, "connection lost");
        state.failures.push(("upload", failure));
    });
    let report = snapshot(&model);
    assert_eq!(report.status, Status::Unknown);
    assert!(report.failure.is_some());
    assert_eq!(report.inserted + report.updated + report.deleted, 0, "nothing stayed");
    assert_eq!((model.called("upload"), model.called("commit")), (1, 0));
    assert_eq!(model.with(|state| state.paused), 0);
}

#[test]
fn readers_see_old_or_new_while_the_source_goes_on_changing() {
    for shape in shapes() {
        let model = changed(shape);
        let old = rows_of(&model);
        let of_source = |state: &State| {
            let mut rows: Vec<RemoteRow> = state.tables[0].local.values().map(LocalRow::stored).collect();
            rows.sort_unstable();
            rows
        };
        let new = model.with(|state| of_source(state));
        let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let note = seen.clone();
        model.with(|state| {
            state.hook = Some(Box::new(move |state, operation| {
                let mut rows: Vec<RemoteRow> = state.seen(0).values().cloned().collect();
                rows.sort_unstable();
                note.borrow_mut().push(rows);
                if operation == "upload" || operation == "window" {
                    state.touch();
                    let calls = state.calls;
                    state.live(0).insert(9_000 + calls, LocalRow::new(9_000 + calls as i64, 1));
                    state.live(0).remove(&(calls % 100));
                }
            }));
        });
        let report = snapshot(&model);
        model.with(|state| state.hook = None);
        assert_eq!(report.status, Status::Level, "{shape:?} {report:?}");
        let seen = seen.borrow();
        assert!(seen.iter().all(|rows| *rows == old || *rows == new), "{shape:?}");
        assert!(seen.contains(&old));
        assert_eq!(rows_of(&model), new, "what the source was when it began");
        assert!(!model.is_equal(0));
        // What changed meanwhile is news to the next.
        assert_eq!(snapshot(&model).status, Status::Level);
        assert!(model.is_equal(0));
    }
}

#[test]
fn rows_that_cannot_be_stored_are_left_out_and_the_rest_is_committed() {
    // More rows than are compared at once, and fewer.
    for (shape, at_once) in shapes().into_iter().flat_map(|shape| [(shape, 200), (shape, 1_000)]) {
        let mut model = filled(400, shape);
        model.settings.max_window_rows = at_once;
        model.change(0, 10, |row| row.kind = Kind::Poison);
        model.change(0, 20, |row| row.kind = Kind::Bad);
        if shape.keyless {
            // Equal rows are all refused, and remembered as one.
            model.change(0, 11, |row| *row = LocalRow { kind: Kind::Poison, ..LocalRow::new(10, 10) });
        }
        for run in 0..3 {
            let report = snapshot(&model);
            assert_eq!(report.status, Status::LevelExcept(2), "{shape:?} {run} {report:?}");
            assert_eq!(report.rejected, 2);
            let missing = if shape.keyless { 3 } else { 2 };
            assert_eq!(rows_of(&model).len(), 400 - missing);
            assert_eq!(
                model.called("commit"),
                usize::from(run == 0),
                "once they are known there is nothing to do"
            );
        }
        // An older version of a rejected row stays, as it does with push.
        model.change(0, 50, |row| (row.kind, row.value) = (Kind::Poison, 7));
        let report = snapshot(&model);
        let kept = u64::from(!shape.keyless);
        assert_eq!((report.status, report.stale), (Status::LevelExcept(3), kept), "{shape:?} {report:?}");
        assert_eq!(snapshot(&model).status, Status::LevelExcept(3));
        for key in [10, 11, 20, 50] {
            model.change(0, key, |row| row.kind = Kind::Good);
        }
        assert_eq!(snapshot(&model).status, Status::Level);
        assert!(model.is_equal(0), "{shape:?}");
        assert_eq!(model.with(|state| state.tables[0].rejected.len()), 0);
    }
}

#[test]
fn rows_without_a_key_that_wait_are_left_out_too() {
    for at_once in [200, 1_000] {
        let mut model = Model::new(2, 1);
        model.settings = Settings { window_rows: 100, max_window_rows: at_once, ..model.settings };
        model.with(|state| {
            let shape = TableShape { hashed: true, keyless: true };
            (state.tables[1].shape, state.tables[1].scanned) = (shape, true);
            (state.tables[1].parent, state.tables[1].rank) = (Some(0), 1);
        });
        model.fill(0, 0..50);
        model.fill(1, 0..400);
        model.change(1, 4, |row| row.parent = Some(999));
        // In the second one it is known to wait.
        for run in 0..3 {
            let report = model.snapshot();
            let status = (report.tables[1].status, report.tables[1].waiting);
            assert_eq!(status, (Status::LevelExcept(1), 1), "{run} {report:?}");
        }
        model.insert(0, 999, 999);
        model.snapshot();
        assert!(model.is_equal(1));
    }
}

#[test]
fn rows_that_wait_are_left_out_too_and_tried_in_each_snapshot() {
    let model = Model::new(2, 1);
    model.with(|state| {
        (state.tables[1].parent, state.tables[1].rank) = (Some(0), 1);
        state.tables.iter_mut().for_each(|table| table.keeps_sum = true);
    });
    model.fill(0, 0..50);
    model.fill(1, 0..50);
    model.change(1, 3, |row| row.parent = Some(30));
    model.change(1, 4, |row| row.parent = Some(999));
    let report = model.snapshot();
    assert_eq!((report.tables[0].status, report.tables[1].status), (Status::Level, Status::LevelExcept(1)));
    assert_eq!(report.tables[1].waiting, 1);
    assert_eq!(model.called("commit"), 1, "both in one transaction");
    model.insert(0, 999, 999);
    let report = model.snapshot();
    assert_eq!((report.tables[0].status, report.tables[1].status), (Status::Level, Status::Level));
    assert!(model.is_equal(0) && model.is_equal(1));
    // Children are deleted first.
    model.delete_local(0, 999);
    model.delete_local(1, 4);
    let report = model.snapshot();
    assert_eq!((report.tables[0].deleted, report.tables[1].deleted), (1, 1), "{report:?}");
    assert!(model.is_equal(0) && model.is_equal(1));
}

#[test]
fn unique_values_change_hands_within_the_transaction() {
    for hashed in [false, true] {
        let model = filled(100, TableShape { hashed, keyless: false });
        for key in 0..10 {
            model.change(0, key, |row| row.unique = Some(key as u32));
        }
        snapshot(&model);
        for key in 0..10 {
            model.change(0, key, |row| row.unique = Some((key as u32 + 1) % 10));
        }
        // And one that a deleted row had.
        model.delete_local(0, 9);
        model.change(0, 50, |row| row.unique = Some(0));
        assert_eq!(snapshot(&model).status, Status::Level);
        assert!(model.is_equal(0));
    }
}

#[test]
fn a_held_snapshot_changes_nothing_at_all_and_the_others_go_on() {
    let model = Model::new(2, 1);
    model.with(|state| state.tables.iter_mut().for_each(|table| table.keeps_sum = true));
    model.fill(0, 0..100);
    model.fill(1, 0..100);
    model.snapshot();
    let old = model.with(|state| state.tables[0].remote.clone());
    for key in 0..50 {
        model.delete_local(0, key);
    }
    model.fill(0, 200..300);
    model.fill(1, 200..300);
    model.with(|state| state.allowed = [(0, 20)].into());
    let report = model.snapshot();
    assert_eq!((report.tables[0].status, report.tables[0].held), (Status::Different, 50), "{report:?}");
    assert_eq!(report.tables[0].inserted + report.tables[0].deleted, 0);
    assert_eq!(report.tables[1].status, Status::Level);
    assert_eq!(model.with(|state| state.tables[0].remote.clone()), old, "not even new rows arrive");
    assert!(model.is_equal(1));
    // While it is on hold nothing is tried.
    model.with(|state| state.tables[0].hold = true);
    let report = model.snapshot();
    assert!(report.tables[0].held > 0 && report.tables[0].status == Status::Different);
    assert_eq!(model.called("hold_target"), 0);
    for key in 200..240 {
        model.delete_local(0, key);
    }
    assert_eq!(model.snapshot().tables[0].held, 1, "it has more rows than the target");
    for key in 240..300 {
        model.delete_local(0, key);
    }
    assert_eq!(model.snapshot().tables[0].held, 50);
    model.with(|state| (state.tables[0].hold, state.allowed) = (false, Default::default()));
    assert_eq!(model.snapshot().tables[0].status, Status::Level);
    assert!(model.is_equal(0));
}

#[test]
fn a_table_that_fails_is_left_as_it_was_and_the_others_go_on() {
    let model = Model::new(2, 1);
    model.fill(0, 0..100);
    model.fill(1, 0..100);
    model.with(|state| state.failures.push(("upload", Failure::new(FailureKind::Table, "no such column"))));
    let report = model.snapshot();
    assert!(report.tables[0].failure.is_some() && report.failure.is_none());
    assert_eq!(report.tables[1].status, Status::Level);
    assert_eq!(model.with(|state| state.tables[0].remote.len()), 0);
    assert!(model.is_equal(1));
}

#[test]
fn what_others_write_meanwhile_is_never_committed_as_proved() {
    let model = changed(TableShape::default());
    let old = rows_of(&model);
    model.with(|state| {
        state.hook = Some(Box::new(|state, operation| {
            if operation == "table_version" && state.committed.is_some() {
                let value = state.calls as u32;
                state.tables[0].remote.insert(1, RemoteRow { version: 1, value, unique: None, parent: None });
            }
        }));
    });
    let report = snapshot(&model);
    let failure = report.failure.expect("a failure");
    assert!(failure.message.contains("rows and should hold"), "{failure}");
    model.with(|state| state.hook = None);
    assert_eq!(rows_of(&model), old);
}

#[test]
fn more_rows_than_are_kept_in_mind_go_in_several_rounds_of_one_transaction() {
    for shape in shapes() {
        let mut model = filled(600, shape);
        snapshot(&model);
        for key in 100..500 {
            model.delete_local(0, key);
        }
        (model.settings.delete_rows, model.settings.max_excess_rows) = (10, 90);
        let report = snapshot(&model);
        assert_eq!((report.status, report.deleted), (Status::Level, 400), "{shape:?} {report:?}");
        assert!(model.is_equal(0));
        assert_eq!(model.called("commit"), 1);
        assert!(model.called("row_count") > 4, "rounds");
    }
}

#[test]
fn stopping_leaves_the_old_rows() {
    let model = changed(TableShape::default());
    let old = rows_of(&model);
    let calls = {
        let other = changed(TableShape::default());
        snapshot(&other);
        other.with(|state| state.calls)
    };
    for after in 0..calls - 1 {
        let model = changed(TableShape::default());
        model.with(|state| state.stop_after = Some(after));
        let report = model.snapshot();
        if report.stopped {
            assert_eq!(rows_of(&model), old, "{after}");
        } else {
            assert!(model.is_equal(0));
        }
    }
}

#[test]
fn a_source_without_a_token_is_compared_in_each_run() {
    let model = filled(300, TableShape::default());
    model.with(|state| state.has_token = false);
    assert_eq!(snapshot(&model).status, Status::Level);
    assert_eq!(snapshot(&model).status, Status::Level);
    assert_eq!(model.called("fingerprints"), 1);
    model.with(|state| state.tables[0].local.get_mut(&3).unwrap().value += 1);
    assert_eq!(snapshot(&model).status, Status::Level);
    assert!(model.is_equal(0));
}

#[test]
fn manifests_that_both_sides_keep_are_compared_instead_of_rows() {
    let model = filled(500, TableShape::default());
    model.with(|state| state.tables[0].keeps_manifest = true);
    snapshot(&model);
    model.with(State::touch);
    snapshot(&model);
    assert_eq!((model.called("kept"), model.called("fingerprints"), model.called("window")), (1, 0, 0));
    change(&model);
    assert_eq!(snapshot(&model).status, Status::Level);
    assert!(model.is_equal(0));
}

#[test]
fn random_histories_end_level_and_never_in_between() {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    let histories = std::env::var("PLIMSOLL_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    for seed in 0..histories {
        let mut rng = StdRng::seed_from_u64(seed);
        let shape = shapes()[rng.random_range(0..3)];
        let model = filled(rng.random_range(0..300), shape);
        model.with(|state| {
            state.tables[0].keeps_sum = rng.random();
            state.tables[0].scanned = rng.random();
            state.tables[0].keeps_manifest = rng.random_ratio(1, 4);
            state.tables[0].may_distrust = rng.random();
            state.has_token = rng.random();
        });
        let mut states: Vec<BTreeMap<u64, LocalRow>> = vec![BTreeMap::new()];
        for _ in 0..8 {
            for _ in 0..rng.random_range(0..40) {
                let key = rng.random_range(0..400);
                match rng.random_range(0..4) {
                    0 if model.with(|state| state.tables[0].local.contains_key(&key)) => {
                        model.delete_local(0, key)
                    }
                    1 if model.with(|state| state.tables[0].local.contains_key(&key)) => {
                        model.change(0, key, |row| row.value += 1);
                    }
                    _ => {
                        let (version, value) = (rng.random_range(0..1_000), rng.random_range(0..50));
                        model.insert(0, key, version);
                        model.change(0, key, |row| row.value = value);
                    }
                }
            }
            states.push(model.with(|state| state.tables[0].local.clone()));
            model.with(|state| {
                state.passing = if rng.random_ratio(1, 2) { 60 } else { 0 };
                state.kill_at = rng.random_ratio(1, 3).then(|| rng.random_range(1..80));
                state.kill_after_effect = rng.random();
            });
            let report = model.snapshot();
            let now = rows_of(&model);
            let known = states.iter().any(|local| {
                let mut rows: Vec<RemoteRow> = local.values().map(LocalRow::stored).collect();
                rows.sort_unstable();
                rows == now
            });
            assert!(known, "seed {seed}: a state that the source never had");
            if report.tables[0].status == Status::Level {
                assert!(model.is_equal(0), "seed {seed}: {report:?}");
            }
        }
        model.with(|state| (state.passing, state.kill_at) = (0, None));
        let report = snapshot(&model);
        assert_eq!(report.status, Status::Level, "seed {seed}: {report:?}");
        assert!(model.is_equal(0), "seed {seed}");
    }
}
