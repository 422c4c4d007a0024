//! Random histories: local changes, damage of the replica, faults and kills, then quiet runs until both
//! sides are equal. `PLIMSOLL_SEED` replays one history, `PLIMSOLL_HISTORIES` says how many are made.
mod model;

use std::collections::BTreeMap;

use model::{Kind, LocalRow, Model, RemoteRow, State, Table};
use plimsoll_core::store::TableShape;
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

/// Rows of a keyless table are of few kinds, so that many are equal.
fn make_equal(table: &mut Table) {
    if table.shape.keyless {
        for row in table.local.values_mut() {
            (row.version, row.value, row.unique) = (row.version.rem_euclid(2), row.value % 4, None);
        }
        for row in table.remote.values_mut() {
            (row.version, row.value, row.unique) = (row.version.rem_euclid(2), row.value % 4, None);
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
        (_, Some(key)) if state.tables[table].shape.keyless && rng.random_bool(0.5) => {
            // Copies, one or many.
            let remote = &mut state.tables[table].remote;
            let (last, row) = (*remote.keys().last().unwrap(), remote[&key].clone());
            for copy in 0..rng.random_range(1..9) {
                remote.insert(last + 1 + copy, row.clone());
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
    if model.shape.keyless {
        // All that fits is there, and nothing that the source has not, each as often as there.
        let good = model.local.values().filter(|row| row.kind == Kind::Good).map(LocalRow::stored);
        let own = copies(good);
        let (wanted, held) = (copies(expected.into_values()), copies(model.remote.values().cloned()));
        let count = |copies: &BTreeMap<RemoteRow, usize>, row| copies.get(row).copied().unwrap_or(0);
        let surplus = held.iter().filter(|(row, held)| **held > count(&own, row));
        found.extend(surplus.map(|(row, held)| format!("{table}: {held} of {row:?}, {}", count(&own, row))));
        let lacking = wanted.iter().filter(|(row, wanted)| **wanted > count(&held, row));
        found.extend(lacking.map(|(row, wanted)| format!("{table}: not {wanted} of {row:?}")));
        return found;
    }
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

/// How often each row is there.
fn copies(rows: impl Iterator<Item = RemoteRow>) -> BTreeMap<RemoteRow, usize> {
    let mut copies = BTreeMap::new();
    rows.for_each(|row| *copies.entry(row).or_default() += 1);
    copies
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

/// What sorts of tables there are in a history.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tables {
    /// Rows have a key and stand at their version.
    Ordered,
    /// They may stand at a hash, have no key, and be found by reading all of them.
    Any,
}

fn history(seed: u64, sorts: Tables) {
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
            state.tables[table].keeps_manifest = rng.random_bool(0.4);
            state.tables[table].may_distrust = rng.random_bool(0.3);
            state.tables[table].parent = (table > 0 && rng.random_bool(0.7)).then(|| table - 1);
        }
        if sorts == Tables::Any {
            for table in 0..tables {
                let hashed = rng.random_bool(0.8);
                state.tables[table].shape = TableShape { hashed, keyless: rng.random_bool(0.5) };
                state.tables[table].scanned = rng.random_bool(0.5);
                state.tables[table].holds_stream = rng.random_bool(0.3);
                let keyless_parent = table > 0 && state.tables[table - 1].shape.keyless;
                state.tables[table].parent = state.tables[table].parent.filter(|_| !keyless_parent);
            }
        }
    });
    // Where nothing says that a replica was damaged, each sweep is due at once.
    let unseen = |state: &mut State| state.tables.iter().any(|table| table.scanned && !table.keeps_sum);
    if model.with(unseen) {
        model.settings.sweep_interval = model.settings.run_interval;
    }
    let change_source = |state: &mut State, rng: &mut StdRng, version: &mut i64| {
        change_source(state, rng, version);
        state.tables.iter_mut().for_each(make_equal);
    };
    let damage = |state: &mut State, rng: &mut StdRng| {
        damage(state, rng);
        state.tables.iter_mut().for_each(make_equal);
    };
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
            let says_nothing = state.tables[table].shape.hashed && !state.has_token;
            if state.tables[table].is_equal() && says_nothing {
                assert!(
                    matches!(report.status, Status::Level | Status::CountsAgree),
                    "seed {seed}: {report:?}"
                );
            } else if state.tables[table].is_equal() {
                assert_eq!(report.status, Status::Level, "seed {seed}, table {table}: {report:?}");
            } else {
                assert_ne!(report.status, Status::Level, "seed {seed}, table {table}");
            }
        }
    });
}

fn histories(sorts: Tables) {
    if let Some(seed) = env("PLIMSOLL_SEED") {
        return history(seed, sorts);
    }
    for seed in 0..env("PLIMSOLL_HISTORIES").unwrap_or(300) {
        if std::panic::catch_unwind(|| history(seed, sorts)).is_err() {
            panic!("failed with PLIMSOLL_SEED={seed}");
        }
    }
}

#[test]
fn random_histories_converge_and_claim_nothing_false() {
    histories(Tables::Ordered);
}

#[test]
fn so_do_those_of_tables_without_order_key_or_index() {
    histories(Tables::Any);
}
