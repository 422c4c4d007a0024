//! Rules of the tail and the window, each with a test that fails without it.
mod model;

use model::{LocalRow, Model, RemoteRow};
use plimsoll_core::sync::{Settings, Status};

/// A level table of `rows` rows that takes `rows / window` runs to sweep.
fn level(rows: u64, window: u64) -> Model {
    let mut model = Model::new(1, 1);
    model.settings =
        Settings { window_rows: window, max_window_rows: window, tail_rows: 16, ..Settings::default() };
    model.fill(0, 0..rows);
    let report = model.run();
    assert_eq!(report.tables[0].status, Status::Level, "{report:?}");
    assert!(model.is_equal(0));
    model
}

#[test]
fn a_first_sync_sends_everything_and_proves_it() {
    let model = level(5_000, 1_000);
    assert_eq!(model.with(|state| state.tables[0].remote.len()), 5_000);
    assert_eq!(model.verify(0).0.rows, 5_000);
}

#[test]
fn equal_max_with_unequal_count_sweeps_the_whole_table_in_this_run() {
    let model = level(3_000, 100);
    model.with(|state| state.tables[0].remote.remove(&1_700));
    // Found by the same sweep: the counts say nothing of it.
    model.damage(0, 2_400, |row| row.value += 1);
    let report = model.run();
    assert!(model.is_equal(0), "{report:?}");
    assert_eq!(report.tables[0].found_missing, 2);
    assert_eq!(report.tables[0].windows, 30);
}

/// Found by killing agents: the agent died in its last window, rows were lost, and the forced sweep never came
/// upon a window that begins where it began; it went round until its time was up, and the rows to delete that
/// each round found anew put the replica on hold.
#[test]
fn a_forced_sweep_that_begins_within_the_last_window_goes_round_once() {
    let model = level(3_000, 100);
    model.with(|state| {
        state.memories[0].window_from = Some(2_950);
        state.tables[0].remote.insert(9_000, RemoteRow { version: 5, value: 1, unique: None, parent: None });
    });
    let report = model.run();
    assert!(report.tables[0].windows <= 32, "{report:?}");
    assert_eq!((report.tables[0].found_excess, report.tables[0].deleted, report.tables[0].held), (1, 1, 0));
    assert!(model.is_equal(0));
}

#[test]
fn counts_that_cannot_be_brought_together_do_not_sweep_every_run() {
    let model = level(3_000, 100);
    model.with(|state| {
        state.tables[0]
            .remote
            .insert(9_000, RemoteRow { version: 5, value: 1, unique: None, parent: Some(1) });
        // A row that others refer to stays.
        state.tables.push(model::Table { parent: Some(0), ..Default::default() });
        let child = RemoteRow { version: 5, value: 1, unique: None, parent: Some(9_000) };
        state.tables[1].remote.insert(1, child.clone());
        state.tables[1].local.insert(1, LocalRow { parent: Some(9_000), ..LocalRow::new(5, 1) });
        state.memories.push(Default::default());
    });
    let first = model.run();
    assert_eq!((first.tables[0].blocked > 0, first.tables[0].windows), (true, 30), "{first:?}");
    let second = model.run();
    assert_eq!(second.tables[0].windows, 1, "{second:?}");
    assert_eq!(second.tables[0].status, Status::Different);
}

#[test]
fn the_tail_finds_a_late_commit_in_the_next_run() {
    let model = level(2_000, 50);
    // The counts stay equal: only the tail can see it at once.
    model.delete_local(0, 1_000);
    model.insert(0, 9_999, 1_990);
    model.run();
    let arrived = model.with(|state| state.tables[0].remote.contains_key(&9_999));
    assert!(arrived);
}

#[test]
fn the_tail_finds_ties_that_a_crash_cut() {
    let model = level(2_000, 50);
    for key in 6_000..6_010 {
        model.insert(0, key, 6_000);
    }
    model.run();
    model.with(|state| {
        for key in 6_005..6_010 {
            state.tables[0].remote.remove(&key);
        }
    });
    // The same counts, the same highest version.
    for key in 100..105 {
        model.delete_local(0, key);
    }
    model.run();
    let there = model.with(|state| state.tables[0].remote.contains_key(&6_009));
    assert!(there);
}

#[test]
fn the_tail_asks_for_rows_only_where_fingerprints_differ() {
    let model = level(3_000, 100);
    model.run();
    for operation in ["range_manifest", "summaries", "sketch", "items"] {
        assert_eq!(model.called(operation), 0, "{operation}");
    }
    assert_eq!(model.called("fingerprint"), 2);
}

#[test]
fn a_run_with_nothing_to_do_counts_and_sends_nothing() {
    let model = level(3_000, 100);
    let report = model.run();
    for operation in
        ["row_count", "read_batch", "batch_history", "upload", "delete", "rejected", "table_version"]
    {
        assert_eq!(model.called(operation), 0, "{operation}");
    }
    assert_eq!(report.tables[0].windows, 1);
    assert_eq!(report.tables[0].local_rows, Some(3_000));
}

#[test]
fn a_window_is_compared_every_run_also_while_rows_stream_in() {
    let mut model = level(3_000, 200);
    model.settings.run_budget = 4_000_000;
    model.settings.max_batch_rows = 100;
    // The windows have more to do than there is time.
    model.settings.window_share = 0.5;
    model.settings.sweep_interval = 60_000_000;
    model.with(|state| {
        state.cost = (80_000, 1);
        let mut next = 10_000;
        state.hook = Some(Box::new(move |state, operation| {
            if operation == "read_batch" {
                for _ in 0..200 {
                    state.tables[0].local.insert(next, LocalRow::new(next as i64, 1));
                    next += 1;
                }
                state.touch();
            }
        }));
    });
    model.insert(0, 9_999, 9_999);
    model.damage(0, 2_900, |row| row.value += 1);
    for run in 0..40 {
        let before = model.with(|state| state.clock);
        let report = model.run();
        let took = model.with(|state| state.clock) - before - 60_000_000;
        assert!(took < 5_000_000, "run {run} took {took} us");
        assert!(report.tables[0].windows >= 1, "{report:?}");
        assert_eq!(report.tables[0].status, Status::Different);
        if model.with(|state| state.tables[0].remote[&2_900].value == 2_900) {
            return;
        }
    }
    panic!("the damage was not found");
}

#[test]
fn the_window_moves_on_wraps_and_finds_silent_damage() {
    let model = level(1_000, 100);
    for key in [999, 450, 0, 950] {
        model.run();
        model.damage(0, key, |row| row.value += 1);
        // The damage may lie just behind the window: one round and one run.
        let runs = (0..11).take_while(|_| !model.is_equal(0) && model.run().failure.is_none()).count();
        assert!(model.is_equal(0), "row {key} after {runs} runs");
    }
    let silent = model.with(|state| state.memories[0].window_from);
    model.run();
    assert_ne!(model.with(|state| state.memories[0].window_from), silent);
}

#[test]
fn a_row_changed_in_place_without_a_new_version_is_found() {
    let model = level(1_000, 100);
    model.change(0, 500, |row| row.value = 77);
    (0..11).for_each(|_| drop(model.run()));
    assert!(model.is_equal(0));
}

#[test]
fn every_row_is_compared_once_per_sweep_interval() {
    let mut model = level(5_000, 100);
    // A run a minute, all rows within ten: a tenth each run, whatever the window.
    model.settings.sweep_interval = 10 * 60_000_000;
    model.run();
    for _ in 0..5 {
        let report = model.run();
        assert!(report.tables[0].windows >= 5, "{report:?}");
    }
}

#[test]
fn the_ends_of_the_axis_are_positions_like_all_others() {
    let model = Model::new(1, 1);
    for (key, version) in [(1, i64::MIN), (2, i64::MIN + 1), (3, 0), (4, i64::MAX - 1), (5, i64::MAX)] {
        model.insert(0, key, version);
    }
    assert_eq!(model.run().tables[0].status, Status::Level);
    for key in 1..=5 {
        model.damage(0, key, |row| row.value += 100);
        model.run();
        assert!(model.is_equal(0), "row {key}");
    }
    model.delete_local(0, 5);
    model.delete_local(0, 1);
    model.run();
    assert!(model.is_equal(0));
    model.with(|state| {
        for (key, version) in [(90, i64::MAX), (91, i64::MIN)] {
            state.tables[0].remote.insert(key, RemoteRow { version, value: 1, unique: None, parent: None });
        }
    });
    model.run();
    assert!(model.is_equal(0));
}

#[test]
fn a_target_with_far_more_rows_than_the_source_is_paged_and_bounded() {
    let mut model = level(100, 50);
    model.settings.max_excess_rows = 500;
    model.settings.delete_rows = 100;
    model.with(|state| {
        for key in 1_000..4_000 {
            // All of them within one window of the source.
            state.tables[0]
                .remote
                .insert(key, RemoteRow { version: 20, value: 1, unique: None, parent: None });
            state.tables[0].remote.get_mut(&key).unwrap().version = 20_000 + key as i64;
        }
        state.touch();
        state.tables[0].local.insert(100_000, LocalRow::new(100_000, 1));
        state.tables[0].remote.insert(100_000, LocalRow::new(100_000, 1).stored());
    });
    let mut runs = 0;
    while !model.is_equal(0) {
        let report = model.run();
        assert!((1..=700).contains(&report.tables[0].deleted), "{report:?}");
        runs += 1;
        assert!(runs < 15);
    }
    assert!(model.run().tables[0].status != Status::Different);
}

#[test]
fn a_window_is_sized_by_time() {
    let mut model = level(8_000, 1_000);
    model.settings.max_window_rows = 4_000;
    let sizes = |model: &Model| {
        model.run();
        model.with(|state| state.memories[0].window_rows)
    };
    let fast: Vec<u64> = (0..4).map(|_| sizes(&model)).collect();
    assert!(fast.windows(2).all(|pair| pair[1] <= 2 * pair[0]), "{fast:?}");
    assert!(fast.contains(&4_000), "{fast:?}");
    // A millisecond a row: a snapshot of two seconds holds 2,000.
    model.with(|state| state.cost = (1_000, 1_000));
    let slow: Vec<u64> = (0..8).map(|_| sizes(&model)).collect();
    assert!((1_000..=2_000).contains(slow.last().unwrap()), "{slow:?}");
}

#[test]
fn what_was_mended_is_compared_again() {
    let model = level(1_000, 2_000);
    model.damage(0, 500, |row| row.value += 1);
    let report = model.run();
    let log = model.with(|state| state.log.clone());
    let sent = log.iter().position(|call| call.operation == "upload").expect("an upload");
    assert!(log[sent..].iter().any(|call| call.operation == "fingerprint"), "{log:?}");
    // Mended, compared again, and so proved.
    assert_eq!(report.tables[0].status, Status::Level, "{report:?}");
}

#[test]
fn a_digest_sum_that_others_changed_sweeps_the_whole_table_in_this_run() {
    let model = level(2_000, 50);
    model.with(|state| state.tables[0].keeps_sum = true);
    model.run();
    // In place: neither counts nor versions tell.
    model.damage(0, 1_500, |row| row.value += 1);
    model.run();
    assert!(model.is_equal(0));
    assert_eq!(model.run().tables[0].windows, 1);
}

#[test]
fn rows_to_delete_that_were_left_for_lack_of_time_are_found_by_the_next_run() {
    let mut model = level(1_000, 100);
    model.settings.delete_rows = 10;
    model.with(|state| {
        for key in 2_000..2_100 {
            let version = key as i64 - 1_500;
            let row = RemoteRow { version, value: 1, unique: None, parent: None };
            state.tables[0].remote.insert(key, row);
        }
        // Each delete takes longer than the run may.
        state.hook = Some(Box::new(|state, operation| {
            state.clock += if operation == "delete" { 60_000_000 } else { 0 };
        }));
    });
    let mut runs = 0;
    while !model.is_equal(0) {
        let report = model.run();
        assert!((10..=20).contains(&report.tables[0].deleted), "{report:?}");
        assert!(model.is_equal(0) || report.tables[0].status == Status::Different, "{report:?}");
        runs += 1;
        assert!(runs <= 10);
    }
}

#[test]
fn a_window_is_compared_even_when_the_budget_is_spent() {
    let mut model = level(500, 50);
    model.settings.run_budget = 0;
    model.insert(0, 900, 900);
    for _ in 0..12 {
        let report = model.run();
        assert!(report.tables[0].windows >= 1, "{report:?}");
    }
    assert_eq!(model.with(|state| state.tables[0].remote.len()), 501, "and a batch is sent");
}

#[test]
fn the_tail_and_the_second_look_reach_the_last_position() {
    let model = level(1_000, 50);
    model.insert(0, 5_000, i64::MAX);
    model.run();
    // Far from the window, in place: only the tail can see it. And once more, after it was mended.
    model.damage(0, 5_000, |row| row.value += 1);
    model.with(|state| {
        let (mut sent, mut again) = (false, false);
        state.hook = Some(Box::new(move |state, operation| {
            if operation == "change_token" && sent && !again {
                panic!("concluded without a second look");
            }
            if operation == "window" && sent && !again {
                again = true;
                state.tables[0].remote.get_mut(&5_000).unwrap().value += 1;
            }
            sent |= operation == "upload";
        }));
    });
    model.run();
    assert!(model.is_equal(0));
}

#[test]
fn a_second_look_reaches_the_last_position_of_an_open_window() {
    let model = level(20, 50);
    model.insert(0, 5_000, i64::MAX);
    model.with(|state| state.memories[0].seen = None);
    model.run();
    model.with(|state| {
        let (mut looks, mut sent) = (0, 0);
        state.hook = Some(Box::new(move |state, operation| {
            sent += u32::from(operation == "upload");
            looks += u32::from(operation == "fingerprint");
            // Behind the tail, so that the window finds it; and again, behind what was mended.
            if operation == "fingerprint" && (looks == 2 || (looks == 3 && sent == 1)) {
                state.tables[0].remote.get_mut(&5_000).unwrap().value += 1;
            }
        }));
    });
    model.run();
    assert!(model.is_equal(0));
}
