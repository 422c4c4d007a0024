//! Tables whose rows stand at a hash, have no key, or are found by reading all of them; and late commits.
mod model;

use model::{Kind, LocalRow, Model, RemoteRow, UNSEEN};
use plimsoll_core::store::{Failure, FailureKind, TableShape};
use plimsoll_core::sync::{DifferenceKind, Settings, Status};

const HASHED: TableShape = TableShape { hashed: true, keyless: false };
const KEYLESS: TableShape = TableShape { hashed: true, keyless: true };

fn model(shape: TableShape, scanned: bool, rows: u64) -> Model {
    let mut model = Model::new(1, 1);
    model.settings = Settings { window_rows: 100, max_window_rows: 100, tail_rows: 8, ..Settings::default() };
    model.with(|state| {
        state.tables[0].shape = shape;
        state.tables[0].scanned = scanned;
        state.tables[0].keeps_sum = true;
    });
    model.fill(0, 0..rows);
    model
}

fn level(shape: TableShape, scanned: bool, rows: u64) -> Model {
    let model = model(shape, scanned, rows);
    let report = model.run();
    assert_eq!(report.tables[0].status, Status::Level, "{report:?}");
    model
}

/// A row of which there are copies.
fn copy() -> LocalRow {
    LocalRow::new(7, 77)
}

fn copies(model: &Model, local: u64, remote: u64) {
    model.with(|state| {
        state.touch();
        let table = &mut state.tables[0];
        for id in 10_000..10_000 + local {
            table.local.insert(id, copy());
        }
        for id in 10_000..10_000 + remote {
            table.remote.insert(id, copy().stored());
        }
    });
}

fn remote_copies(model: &Model) -> usize {
    model.with(|state| state.tables[0].remote.values().filter(|row| **row == copy().stored()).count())
}

#[test]
fn a_first_sync_reads_each_row_once_and_proves_it() {
    for (shape, scanned) in [(HASHED, false), (HASHED, true), (KEYLESS, false), (KEYLESS, true)] {
        let model = level(shape, scanned, 3_000);
        assert!(model.is_equal(0));
        for operation in ["window", "fingerprints", "tail_start", "max_position"] {
            assert_eq!(model.called(operation), 0, "{operation} of {shape:?}");
        }
        let report = model.run();
        assert_eq!(report.tables[0].status, Status::Level);
        assert_eq!(model.called("upload"), 0);
    }
}

#[test]
fn what_changed_is_found_by_the_next_run_wherever_it_stands() {
    for (shape, scanned) in [(HASHED, false), (HASHED, true), (KEYLESS, false), (KEYLESS, true)] {
        let model = level(shape, scanned, 1_000);
        model.change(0, 17, |row| row.value = 99);
        model.delete_local(0, 600);
        model.insert(0, 5_000, -3);
        let report = model.run();
        assert!(model.is_equal(0), "{shape:?} {scanned}: {report:?}");
        assert_eq!(report.tables[0].deleted, if shape.keyless { 2 } else { 1 });
    }
}

#[test]
fn equal_rows_are_counted_and_not_collapsed() {
    for (scanned, local, remote) in [(false, 3, 0), (true, 3, 5), (false, 2, 9), (true, 4, 1), (false, 0, 3)]
    {
        let model = level(KEYLESS, scanned, 300);
        copies(&model, local, remote);
        let report = model.run();
        assert!(model.is_equal(0), "{local} and {remote}: {report:?}");
        assert_eq!(remote_copies(&model) as u64, local);
        let report = &report.tables[0];
        assert_eq!(
            (report.inserted, report.deleted),
            (local.saturating_sub(remote), remote.saturating_sub(local))
        );
        assert_eq!(report.status, Status::Level);
    }
}

#[test]
fn an_upload_whose_answer_was_lost_multiplies_nothing() {
    let model = model(KEYLESS, false, 500);
    copies(&model, 50, 0);
    let lost = || Failure::new(FailureKind::Passing, "connection lost");
    model.with(|state| state.failures = vec![("upload lost", lost()), ("upload", lost())]);
    let report = model.run();
    assert!(model.is_equal(0));
    assert_eq!((report.tables[0].inserted, report.tables[0].deleted), (550, 0));
    assert_eq!(report.tables[0].status, Status::Level);
}

#[test]
fn a_first_sync_that_was_cut_off_goes_on_where_it_was() {
    for shape in [HASHED, KEYLESS] {
        let mut model = model(shape, true, 2_000);
        model.settings.max_batch_rows = 100;
        copies(&model, 40, 0);
        // Killed between two batches, where the memory says exactly what is stored.
        let kill = |operation: &'static str, nth: usize| {
            let mut seen = 0;
            model.with(|state| {
                state.hook = Some(Box::new(move |state, now| {
                    seen += usize::from(now == operation);
                    if seen == nth {
                        state.kill_at = Some(state.calls);
                        state.kill_after_effect = false;
                    }
                }));
            });
            model.run();
            model.with(|state| (state.hook, state.kill_at) = (None, None));
        };
        kill("read_batch", 6);
        let stored = model.with(|state| state.tables[0].remote.len());
        assert_eq!(stored, 500);
        let report = model.run();
        assert!(model.is_equal(0), "{report:?}");
        assert_eq!(
            (report.tables[0].inserted, report.tables[0].unchanged, report.tables[0].deleted),
            (1_540, 0, 0)
        );
    }
}

#[test]
fn a_replica_that_lost_most_rows_is_sent_them_in_order() {
    for shape in [HASHED, KEYLESS] {
        let model = level(shape, true, 3_000);
        model.with(|state| state.tables[0].remote.retain(|key, _| *key < 90));
        let report = model.run();
        assert!(model.is_equal(0), "{report:?}");
        assert_eq!((report.tables[0].inserted, report.tables[0].deleted), (2_910, 0));
        let unchanged = if shape.keyless { 0 } else { 90 };
        assert_eq!(report.tables[0].unchanged, unchanged, "a keyless row that is there is not sent");
        assert_eq!(model.called("windows") + model.called("window"), 0);
    }
}

#[test]
fn an_altered_table_is_sent_in_one_reading_instead_of_pass_after_pass() {
    let model = level(HASHED, true, 3_000);
    for key in 0..3_000 {
        model.change(0, key, |row| row.value += 1);
    }
    let report = model.run();
    assert!(model.is_equal(0), "{report:?}");
    assert!(model.called("fingerprints") <= 4 && model.called("rows_of") == 0);
    assert_eq!(report.tables[0].updated, 3_000);
}

#[test]
fn few_differences_in_a_table_without_an_index_cost_few_passes() {
    let model = level(KEYLESS, true, 20_000);
    for key in [3, 9_000, 15_000] {
        model.change(0, key, |row| row.value = 1_000_000);
    }
    model.with(|state| {
        state.tables[0].remote.pop_first();
    });
    let report = model.run();
    assert!(model.is_equal(0), "{report:?}");
    let passes: usize =
        ["fingerprints", "window", "windows", "rows_of"].map(|step| model.called(step)).iter().sum();
    assert!(passes <= 12, "{passes} readings of all rows");
    // Nothing changed since: nothing is read.
    let report = model.run();
    assert_eq!(report.tables[0].status, Status::Level);
    assert_eq!(
        (report.tables[0].windows, model.called("fingerprints"), model.called("row_count")),
        (0, 0, 0)
    );
}

#[test]
fn long_passes_are_made_a_twentieth_of_the_time_and_within_the_sweep_interval() {
    let mut model = level(HASHED, true, 1_000);
    // A pass takes a minute.
    model.with(|state| state.cost.1 = 60_000);
    let mut pass_at = Vec::new();
    for run in 0..60u64 {
        model.change(0, run, |row| row.value = 1_000_000 + run as u32);
        let report = model.run();
        if model.called("fingerprints") > 0 {
            pass_at.push(run);
        } else {
            assert_ne!(report.tables[0].status, Status::Level, "run {run}: a change is not looked for yet");
        }
    }
    assert!((2..8).contains(&pass_at.len()), "{pass_at:?}");
    model.settings.sweep_interval = model.settings.run_interval;
    model.run();
    assert!(model.called("fingerprints") > 0, "the sweep interval has passed");
    (0..5).for_each(|_| drop(model.run()));
    assert!(model.is_equal(0));
}

#[test]
fn a_copy_that_the_source_gets_meanwhile_is_not_deleted() {
    let model = level(KEYLESS, false, 300);
    copies(&model, 1, 4);
    model.with(|state| {
        state.hook = Some(Box::new(|state, operation| {
            if operation == "keys_of" {
                state.tables[0].local.insert(20_000, copy());
                state.touch();
            }
        }));
    });
    let report = model.run();
    assert_eq!((report.tables[0].deleted, remote_copies(&model)), (2, 2));
    model.with(|state| state.hook = None);
    assert_eq!(model.run().tables[0].status, Status::Level);
}

#[test]
fn rejected_and_waiting_rows_of_a_keyless_table_are_never_level() {
    for scanned in [false, true] {
        let model = model(KEYLESS, scanned, 300);
        for id in 0..5 {
            model.insert(0, 1_000 + id, 5);
            model.change(0, 1_000 + id, |row| (row.value, row.kind) = (1, Kind::Poison));
            model.insert(0, 2_000 + id, 5);
            model.change(0, 2_000 + id, |row| (row.value, row.kind) = (1, Kind::Bad));
        }
        let report = model.run();
        assert_eq!(report.tables[0].status, Status::LevelExcept(2), "{report:?}");
        assert_eq!(model.run().tables[0].status, Status::LevelExcept(2));
        // What is gone from the source is forgotten.
        (0..5).for_each(|id| model.delete_local(0, 1_000 + id));
        assert_eq!(model.run().tables[0].rejected, 1);
        (0..5).for_each(|id| model.delete_local(0, 2_000 + id));
        model.run();
        let report = model.run();
        assert_eq!(report.tables[0].status, Status::Level, "{report:?}");
    }
}

#[test]
fn a_keyless_row_that_waits_is_all_that_differs_in_each_run() {
    for scanned in [false, true] {
        let model = Model::new(2, 1);
        model.with(|state| {
            (state.tables[1].shape, state.tables[1].scanned) = (KEYLESS, scanned);
            (state.tables[1].parent, state.tables[1].rank) = (Some(0), 1);
        });
        model.fill(0, 0..50);
        model.fill(1, 0..400);
        model.change(1, 4, |row| row.parent = Some(999));
        for run in 0..3 {
            let report = model.run();
            assert_eq!(report.tables[1].status, Status::LevelExcept(1), "{run} {report:?}");
        }
        model.insert(0, 999, 999);
        model.run();
        assert_eq!(model.run().tables[1].status, Status::Level);
        assert!(model.is_equal(1));
    }
}

#[test]
fn verify_tells_of_each_copy() {
    for scanned in [false, true] {
        let model = level(KEYLESS, scanned, 1_000);
        copies(&model, 2, 5);
        model.with(|state| {
            state.tables[0].remote.remove(&3);
        });
        let (report, differences) = model.verify(0);
        assert_eq!((report.missing, report.excess, report.altered, report.level), (1, 3, 0, false));
        assert_eq!(report.rows, 1_002);
        assert_eq!(differences.iter().filter(|found| found.kind == DifferenceKind::Excess).count(), 3);
        model.run();
        assert!(model.verify(0).0.level);
    }
}

#[test]
fn a_version_of_its_own_in_each_row_is_no_cursor() {
    let model = level(HASHED, false, 500);
    // A revision goes from 4 to 5 while others are far higher; another one back.
    model.change(0, 4, |row| row.version = 5);
    model.change(0, 400, |row| row.version = 2);
    let report = model.run();
    assert!(model.is_equal(0), "{report:?}");
    assert_eq!((report.tables[0].updated, report.tables[0].status), (2, Status::Level));
    // The target guards against versions that go down.
    model.change(0, 300, |row| row.version = 1);
    model.with(|state| state.tables[0].hold = true);
    let held = |_| {
        let report = model.run();
        report.tables[0].held > 0 && report.tables[0].status == Status::Different
    };
    assert!((0..6).any(held), "a replica on hold gets one window a run");
    assert!(!model.is_equal(0));
}

#[test]
fn what_a_hold_kept_is_deleted_in_the_run_after_its_release() {
    for shape in [HASHED, KEYLESS] {
        for scanned in [false, true] {
            let model = level(shape, scanned, 500);
            (0..300).for_each(|id| model.delete_local(0, id));
            model.with(|state| state.tables[0].hold = true);
            assert!(model.run().tables[0].held > 0);
            // Nothing changes on either side meanwhile.
            (0..3).for_each(|_| assert_eq!(model.run().tables[0].status, Status::Different));
            model.with(|state| state.tables[0].hold = false);
            let report = model.run();
            assert!(model.is_equal(0), "{shape:?} {scanned}: {report:?}");
        }
    }
}

#[test]
fn what_others_put_on_the_target_while_it_is_mended_is_looked_for_in_the_next_run() {
    for shape in [TableShape::default(), HASHED, KEYLESS] {
        for scanned in [false, true] {
            for altered in [false, true] {
                let model = level(shape, scanned, 500);
                model.with(|state| {
                    state.tables[0].remote.insert(9_000, copy().stored());
                    let mut id = 9_000;
                    state.hook = Some(Box::new(move |state, operation| {
                        if operation == "delete" && altered {
                            state.tables[0].remote.get_mut(&3).expect("a row").value += 1;
                        } else if operation == "delete" {
                            id += 1;
                            state.tables[0].remote.insert(id, copy().stored());
                        }
                    }));
                });
                let report = model.run();
                let context = format!("{shape:?} {scanned} {altered}: {report:?}");
                assert!(model.with(|state| state.hook.take()).is_some());
                assert!(!model.is_equal(0) && report.tables[0].status != Status::Level, "{context}");
                let report = model.run();
                assert!(model.is_equal(0), "{context} {report:?}");
            }
        }
    }
}

#[test]
fn a_late_commit_is_found_by_the_next_run_where_the_source_says_what_is_settled() {
    for settles in [true, false] {
        let model = model(TableShape::default(), false, 1_000);
        model.with(|state| state.tables[0].settled = settles.then_some(500));
        assert!(model.run().tables[0].status == Status::Level);
        // The transaction that held 500 ends: its row has a version far below those that were sent.
        model.with(|state| {
            state.touch();
            state.tables[0].settled = settles.then_some(1_000);
            state.tables[0].local.insert(77_777, LocalRow::new(500, 1));
            // Counts say nothing of it.
            state.tables[0].local.remove(&20);
            // The window is elsewhere.
            state.memories[0].window_from = Some(600);
        });
        let missing = |model: &Model| model.with(|state| !state.tables[0].remote.contains_key(&77_777));
        model.run();
        assert_eq!(missing(&model), !settles);
        assert_eq!(model.with(|state| state.memories[0].unsettled), settles.then_some(1_000));
    }
}

#[test]
fn damage_of_a_keyless_replica_is_undone_exactly() {
    let model = level(KEYLESS, true, 400);
    model.with(|state| {
        let row: RemoteRow = state.tables[0].remote[&5].clone();
        for id in 5_000..5_030 {
            state.tables[0].remote.insert(id, row.clone());
        }
        state.tables[0].remote.retain(|id, _| !(100..120).contains(id));
    });
    let report = model.run();
    assert!(model.is_equal(0), "{report:?}");
    assert_eq!((report.tables[0].inserted, report.tables[0].deleted), (20, 30));
}

#[test]
fn equal_counts_and_short_sums_of_all_ranges_prove_nothing_where_the_whole_sums_differ() {
    for keeps_sum in [true, false] {
        let model = level(HASHED, true, 3_000);
        model.with(|state| {
            state.touch();
            state.tables[0].keeps_sum = keeps_sum;
            state.tables[0].remote.get_mut(&17).expect("a row").value ^= UNSEEN;
        });
        for _ in 0..2 {
            let status = model.run().tables[0].status;
            assert_eq!(status, Status::CountsAgree, "keeps its sum: {keeps_sum}");
        }
        let (report, differences) = model.verify(0);
        assert_eq!((report.level, report.altered), (false, 1), "keeps its sum: {keeps_sum}");
        assert_eq!(differences.len(), 1);
        model.with(|state| {
            state.tables[0].remote.get_mut(&17).expect("a row").value ^= UNSEEN;
        });
        assert_eq!(model.run().tables[0].status, Status::Level, "keeps its sum: {keeps_sum}");
        assert!(model.verify(0).0.level);
    }
}

#[test]
fn many_altered_rows_without_a_key_cost_few_readings_of_the_source() {
    let mut model = model(KEYLESS, true, 800);
    (model.settings.window_rows, model.settings.max_window_rows) = (800, 800);
    model.settings.delete_rows = 10;
    model.run();
    model.with(|state| {
        let altered = state.tables[0].remote.values_mut().step_by(2);
        altered.for_each(|row| row.value += 1_000_000);
        let more = std::mem::take(&mut state.tables[0].local).into_iter().skip(100);
        state.tables[0].local = more.collect();
        state.touch();
    });
    let report = model.run();
    assert_eq!((report.tables[0].status, report.tables[0].deleted), (Status::Level, 450));
    let passes = ["fingerprints", "window", "windows", "rows_of"].map(|step| model.called(step));
    assert!(passes.iter().sum::<usize>() <= 8, "{passes:?} readings of all rows");
}

#[test]
fn a_row_that_others_no_longer_refer_to_is_deleted_though_the_source_is_as_it_was() {
    let mut model = Model::new(2, 1);
    model.settings = Settings { window_rows: 100, max_window_rows: 100, ..Settings::default() };
    model.with(|state| {
        (state.tables[0].shape, state.tables[0].scanned) = (HASHED, true);
        (state.tables[1].rank, state.tables[1].parent) = (1, Some(0));
    });
    model.fill(0, 0..300);
    model.fill(1, 0..50);
    model.change(1, 30, |row| row.parent = Some(30));
    model.run();
    model.delete_local(0, 30);
    let report = model.run();
    assert!(report.tables[0].blocked > 0, "{report:?}");
    // Nothing tells of the source that this happened.
    model.with(|state| {
        state.tables[1].local.get_mut(&30).expect("a row").parent = None;
        state.tables[1].remote.get_mut(&30).expect("a row").parent = None;
    });
    let report = model.run();
    assert_eq!(report.tables[0].deleted, 1, "{report:?}");
    assert!(model.is_equal(0));
}

#[test]
fn whoever_writes_to_a_target_that_tells_nothing_is_noticed() {
    for (others_write, noticed) in [(true, true), (false, false)] {
        let mut model = model(HASHED, true, 300);
        model.with(|state| state.tables[0].keeps_sum = false);
        model.settings.others_write = others_write;
        assert_eq!(model.run().tables[0].status, Status::Level);
        // The source stands still, and there are as many rows as before.
        model.with(|state| state.tables[0].remote.insert(5, copy().stored()));
        let report = model.run();
        assert_eq!((report.tables[0].status, model.is_equal(0)), (Status::Level, noticed), "{report:?}");
    }
    // Of a target that tells its sum it is known.
    let mut model = level(HASHED, true, 300);
    model.settings.others_write = true;
    let report = model.run();
    assert_eq!((report.tables[0].status, report.tables[0].compared_rows), (Status::Level, 0));
    // Where rows stand at a version, a window is no proof of all.
    let mut model = Model::new(1, 1);
    model.settings = Settings { window_rows: 100, others_write: true, ..Settings::default() };
    model.fill(0, 0..1_000);
    model.run();
    let status = model.run().tables[0].status;
    assert_eq!(status, Status::CountsAgree, "nothing but a window was compared since");
}
