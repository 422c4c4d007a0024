//! Random histories: local changes, damage of the replica, faults and kills, then quiet runs until both
//! sides are equal. `PLIMSOLL_SEED` replays one history, `PLIMSOLL_HISTORIES` says how many are made.
mod model;

use std::collections::BTreeMap;

use model::{Kind, LocalRow, Model, RemoteRow, State};
use plimsoll_core::sync::{RunReport, Settings, Status, TableMemory};
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Quiet runs needed until both sides are equal, beyond ceil(rows / window): one to finish what was under way when the changes ended, one
/// to confirm what the last window mended, one for rows that waited for rows deleted in the run before, and
/// one whose sweep begins in the middle. Until the report says so, a whole sweep more: one that found nothing.
const BEYOND: u64 = 4;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Changes the source as an application would: its own keys stay unique and its references whole.
fn change_source(state: &mut State, rng: &mut StdRng, next_version: &mut i64) {
    state.touch();
    let table = rng.random_range(0..state.tables.len());
    state.changed_at[table] = state.clock;
    *next_version += i64::from(rng.random_bool(0.8));
    let version = *next_version;
    let parents: Vec<u64> = match state.tables[table].parent {
        Some(of) => state.tables[of].local.keys().copied().collect(),
        None => Vec::new(),
    };
    let rows = &mut state.tables[table].local;
    let some_key = rows.keys().copied().choose(rng);
    match (rng.random_range(0..100), some_key) {
        (0..35, _) | (_, None) => {
            let key = rng.random_range(0..400);
            let unique = rng.random_bool(0.4).then(|| rng.random_range(0..200u32));
            let unique = unique.filter(|unique| rows.values().all(|row| row.unique != Some(*unique)));
            let version = match rng.random_range(0..50) {
                0 => rng.random_range(-5..version.max(0) + 1),
                1 => i64::MIN,
                _ => version,
            };
            let value = rng.random();
            let parent = parents.iter().copied().choose(rng).filter(|_| rng.random_bool(0.7));
            let kind = match rng.random_range(0..40) {
                0 => Kind::Poison,
                1 => Kind::Bad,
                2 => Kind::Nowhere,
                _ => Kind::Good,
            };
            rows.entry(key).or_insert(LocalRow { version, value, unique, parent, kind });
        }
        (35..60, Some(key)) => {
            let row = rows.get_mut(&key).unwrap();
            (row.version, row.value) = (version, rng.random());
            if rng.random_bool(0.1) {
                let kinds = [Kind::Good, Kind::Good, Kind::Good, Kind::Poison, Kind::Bad, Kind::Nowhere];
                row.kind = kinds[rng.random_range(0..kinds.len())];
            }
        }
        (60..68, Some(key)) => rows.get_mut(&key).unwrap().value = rng.random(),
        (68..72, Some(key)) => {
            rows.get_mut(&key).unwrap().version = version.saturating_sub(rng.random_range(0..20))
        }
        (72..82, Some(first)) => {
            // A cycle of unique values.
            let keys: Vec<u64> =
                rows.iter().filter(|(_, row)| row.unique.is_some()).map(|(key, _)| *key).take(3).collect();
            if keys.len() > 1 {
                let values: Vec<_> = keys.iter().map(|key| rows[key].unique).collect();
                for (at, key) in keys.iter().enumerate() {
                    let row = rows.get_mut(key).unwrap();
                    row.unique = values[(at + 1) % keys.len()];
                    row.version = version;
                }
            } else {
                rows.get_mut(&first).unwrap().value = 7;
            }
        }
        (_, Some(key)) => {
            rows.remove(&key);
            for (id, child) in
                state.tables.iter_mut().enumerate().filter(|(_, child)| child.parent == Some(table))
            {
                let before = child.local.len();
                child.local.retain(|_, row| row.parent != Some(key));
                if child.local.len() < before {
                    state.changed_at[id] = state.clock;
                }
            }
        }
    }
}

/// Damages the replica behind the server's back, as far as its constraints let.
fn damage(state: &mut State, rng: &mut StdRng) {
    let table = rng.random_range(0..state.tables.len());
    state.changed_at[table] = state.clock;
    let some_key = state.tables[table].remote.keys().copied().choose(rng);
    match (rng.random_range(0..3), some_key) {
        (0, Some(key)) => {
            state.tables[table].remote.remove(&key);
            for (id, child) in
                state.tables.iter_mut().enumerate().filter(|(_, child)| child.parent == Some(table))
            {
                let before = child.remote.len();
                child.remote.retain(|_, row| row.parent != Some(key));
                if child.remote.len() < before {
                    state.changed_at[id] = state.clock;
                }
            }
        }
        (1, Some(key)) => {
            let row = state.tables[table].remote.get_mut(&key).unwrap();
            row.value = rng.random();
            if rng.random_bool(0.3) {
                row.version = rng.random_range(-10..500);
            }
        }
        _ => {
            let version = match rng.random_range(0..10) {
                0 => i64::MAX,
                1 => i64::MIN,
                _ => rng.random_range(-10..1_000),
            };
            let remote = &mut state.tables[table].remote;
            let unique = Some(rng.random_range(0..200u32));
            let unique = unique.filter(|unique| remote.values().all(|row| row.unique != Some(*unique)));
            let row = RemoteRow { version, value: rng.random(), unique, parent: None };
            remote.entry(rng.random_range(0..500)).or_insert(row);
        }
    }
}

/// What keeps a table from being equal, but for what the target cannot store: judged by values.
fn differences(state: &State, table: usize) -> Vec<String> {
    let mut found = Vec::new();
    let model = &state.tables[table];
    let referred = |key: u64| {
        state.tables.iter().any(|child| {
            child.parent == Some(table) && child.remote.values().any(|row| row.parent == Some(key))
        })
    };
    // Rows that stay as they are: the source's current one cannot be stored, or others refer to them.
    let stale = |key: &u64| {
        if model.local.contains_key(key) { !model::storable(state, table, *key) } else { referred(*key) }
    };
    // A value that a row which cannot be stored still holds on the target; whoever needs it waits.
    let mut blocked: Vec<u64> = Vec::new();
    loop {
        let before = blocked.len();
        for (key, row) in &model.local {
            let holder = model
                .remote
                .iter()
                .find(|(other, held)| *other != key && row.unique.is_some() && held.unique == row.unique);
            if let Some((holder, _)) = holder
                && (stale(holder) || blocked.contains(holder))
                && !blocked.contains(key)
            {
                blocked.push(*key);
            }
        }
        if blocked.len() == before {
            break;
        }
    }
    // Rows whose parents wait do so too.
    let waits = |key: &u64| blocked.contains(key) || !parent_is_there(state, table, *key);
    let expected: BTreeMap<u64, RemoteRow> = model
        .local
        .iter()
        .filter(|(key, _)| model::storable(state, table, **key) && !waits(key))
        .map(|(key, row)| (*key, row.stored()))
        .collect();
    for (key, row) in &expected {
        if model.remote.get(key) != Some(row) {
            found.push(format!("{table}/{key}: {row:?} is {:?}", model.remote.get(key)));
        }
    }
    for (key, row) in &model.remote {
        if !model.local.contains_key(key) && !referred(*key) {
            found.push(format!("{table}/{key}: {row:?} is not on the source"));
        }
    }
    found
}

fn parent_is_there(state: &State, table: usize, key: u64) -> bool {
    match (state.tables[table].local[&key].parent, state.tables[table].parent) {
        (Some(parent), Some(of)) => state.tables[of].remote.contains_key(&parent),
        _ => true,
    }
}

/// A report never says level of what is not: nothing changed since the proof, so both sides must be equal.
fn check_claims(model: &Model, report: &RunReport, context: &str) {
    model.with(|state| {
        for (id, table) in report.tables.iter().enumerate() {
            let remembered = state.tables[id].rejected.len();
            if table.status != Status::Level {
                continue;
            }
            let proved_at = table.proved_at.expect("level without a proof");
            assert_eq!(remembered, 0, "{context}: level with rejected rows");
            if state.changed_at[id] < proved_at {
                assert!(state.tables[id].is_equal(), "{context}: not level: {:?}", differences(state, id));
            }
        }
    });
}

fn history(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let tables = rng.random_range(1..=3);
    let mut model = Model::new(tables, seed);
    let window = *[7, 20, 60].iter().choose(&mut rng).unwrap();
    model.settings = Settings {
        window_rows: window,
        max_window_rows: window,
        tail_rows: rng.random_range(1..20),
        max_batch_rows: rng.random_range(1..40),
        delete_rows: rng.random_range(1..10),
        max_excess_rows: rng.random_range(30..300),
        retry_pause: 1_000,
        max_tries: 3,
        ..Settings::default()
    };
    model.with(|state| {
        state.has_token = rng.random_bool(0.7);
        for table in 0..tables {
            state.tables[table].rank = table as u32;
            state.tables[table].keeps_sum = rng.random_bool(0.5);
            state.tables[table].parent = (table > 0 && rng.random_bool(0.7)).then(|| table - 1);
        }
    });
    let mut next_version = 0;
    for round in 0..rng.random_range(1..10) {
        let changes = rng.random_range(0..60);
        model.with(|state| (0..changes).for_each(|_| change_source(state, &mut rng, &mut next_version)));
        let damages = if rng.random_bool(0.5) { rng.random_range(0..12) } else { 0 };
        model.with(|state| (0..damages).for_each(|_| damage(state, &mut rng)));
        let moving = rng.random_bool(0.4);
        model.with(|state| {
            state.passing = if rng.random_bool(0.4) { 15 } else { 0 };
            state.kill_at = rng.random_bool(0.5).then(|| rng.random_range(1..80));
            state.kill_after_effect = rng.random_bool(0.5);
            state.stop_after = rng.random_bool(0.1).then(|| rng.random_range(1..60));
            if rng.random_bool(0.1) {
                state.memories = vec![TableMemory::default(); tables];
            }
            if moving {
                let mut rng = StdRng::seed_from_u64(seed ^ (round << 32));
                let mut version = next_version;
                state.hook = Some(Box::new(move |state, _| {
                    if rng.random_bool(0.2) {
                        change_source(state, &mut rng, &mut version);
                    }
                    if rng.random_bool(0.02) {
                        damage(state, &mut rng);
                    }
                }));
            }
        });
        next_version += if moving { 100 } else { 0 };
        let report = model.run();
        model.with(|state| {
            (state.passing, state.kill_at, state.stop_after) = (0, None, None);
            state.hook = None;
        });
        check_claims(&model, &report, &format!("seed {seed}, round {round}"));
    }
    let rows = model.with(|state| {
        let rows = |table: &model::Table| table.local.len().max(table.remote.len()) as u64;
        state.tables.iter().map(rows).max().unwrap_or(0)
    });
    let limit = rows.div_ceil(window) + BEYOND;
    let mut last = RunReport::default();
    for run in 0..limit {
        last = model.run();
        assert!(last.failure.is_none(), "seed {seed}: {last:?}");
        check_claims(&model, &last, &format!("seed {seed}, quiet run {run}"));
    }
    model.with(|state| {
        for (table, report) in last.tables.iter().enumerate() {
            let found = differences(state, table);
            assert!(found.is_empty(), "seed {seed}, {limit} runs, window {window}: {found:#?}\n{report:?}");
            assert!(report.failure.is_none(), "seed {seed}: {report:?}");
        }
    });
    for run in 0..rows.div_ceil(window) {
        last = model.run();
        check_claims(&model, &last, &format!("seed {seed}, last sweep, run {run}"));
    }
    model.with(|state| {
        for (table, report) in last.tables.iter().enumerate() {
            if state.tables[table].is_equal() {
                assert_eq!(report.status, Status::Level, "seed {seed}, table {table}: {report:?}");
            } else {
                assert_ne!(report.status, Status::Level, "seed {seed}, table {table}");
            }
        }
    });
}

#[test]
fn random_histories_converge_and_claim_nothing_false() {
    if let Some(seed) = env("PLIMSOLL_SEED") {
        return history(seed);
    }
    for seed in 0..env("PLIMSOLL_HISTORIES").unwrap_or(300) {
        if std::panic::catch_unwind(|| history(seed)).is_err() {
            panic!("failed with PLIMSOLL_SEED={seed}");
        }
    }
}
