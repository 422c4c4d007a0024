//! Random histories: applications change both sides between any two steps, answers are lost, agents killed, memory lost.
//! Then both sides must be equal, and no change gone that was not beaten by one made without knowledge of it.
//! `PLIMSOLL_SEED` replays one history, `PLIMSOLL_HISTORIES` says how many are made.

use std::collections::BTreeSet;

use plimsoll_core::reconcile::Side;
use plimsoll_core::store::{Choice, MemoryKey, OpenKind, Seen};
use plimsoll_core::sync::Status;
use plimsoll_core::two_way::{Memory, Policy, Settings, Table};
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::kept;
use crate::model::{Edit, Local, Remote, State, World, digest, memory_key};

const KEYS: u64 = 60;

/// What may happen beside edits, lost answers and kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Accidents {
    /// The local database is restored from a backup that was made when all was agreed on or left open.
    local_restored: bool,
    /// The base is dropped, the remote side restored.
    memory_lost: bool,
    /// Sides refuse rows.
    refused: bool,
    /// Persons decide.
    resolved: bool,
    /// The table's columns are altered.
    altered: bool,
}

const NONE: Accidents =
    Accidents { local_restored: false, memory_lost: false, refused: false, resolved: false, altered: false };

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// An application changes a side.
fn edit(state: &mut State, rng: &mut StdRng) {
    let side = if rng.random() { Side::Local } else { Side::Remote };
    let key = rng.random_range(0..KEYS);
    let some = state.rows(side).rows.keys().copied().choose(rng);
    match (rng.random_range(0..10), some) {
        (0..3, _) | (_, None) => {
            state.write(side, key, rng.random_range(1..4));
        }
        (3..7, Some(key)) => {
            state.write(side, key, rng.random_range(1..4));
        }
        (7, Some(key)) => {
            // The key changes: a delete and an insert.
            state.delete(side, key);
            let other = (key + 1) % KEYS;
            if !state.rows(side).rows.contains_key(&other) {
                state.write(side, other, 1);
            }
        }
        (_, Some(key)) => state.delete(side, key),
    }
}

fn resolve(state: &mut State, rng: &mut StdRng) {
    let Some(record) = state.remote.records.values().choose(rng).cloned() else { return };
    let side = if rng.random() { Side::Local } else { Side::Remote };
    state.remote.choices.retain(|choice| choice.key != record.key);
    let choice = Choice { key: record.key, side, local: record.local, remote: record.remote };
    state.remote.choices.push(choice);
    state.decided.push(choice);
}

fn refuses(side: Side, edit: Edit) -> Option<bool> {
    match (side, edit % 23) {
        (Side::Local, 3) | (Side::Remote, 4) => Some(false),
        (Side::Local, 5) | (Side::Remote, 6) => Some(true),
        _ => None,
    }
}

fn table(policy: Policy) -> Table {
    Table { policy, ..Table::default() }
}

fn history(seed: u64, policy: Policy, accidents: Accidents) {
    let world = World::new(seed);
    let mut rng = StdRng::seed_from_u64(seed ^ 0x7077);
    let settings = Settings {
        range_rows: [4, 16, 4_096][rng.random_range(0..3)],
        group_rows: [8, 40, 1 << 16][rng.random_range(0..3)],
        fresh_rows: [3, 20, 1 << 16][rng.random_range(0..3)],
        batch_rows: [1, 5, 1_000][rng.random_range(0..3)],
        batch_bytes: [1, 35, 8 << 20][rng.random_range(0..3)],
        ..Settings::default()
    };
    let mut memory = Memory::default();
    let (mut local_backups, mut remote_backups): (Vec<Local>, Vec<Remote>) = (Vec::new(), Vec::new());
    if accidents.refused {
        world.with(|state| state.refuses = refuses);
    }
    world.with(|state| kept::begin(state));
    if rng.random() {
        // Both sides have the same rows. What one deletes before they agreed for the first time is new on the other.
        world.with(|state| {
            for key in 0..KEYS / 2 {
                state.write(Side::Local, key, 1);
            }
            state.remote.rows = state.local.rows.clone();
        });
        let report = world.run(&table(policy), &settings, &mut memory);
        assert_eq!((report.changed(), report.concluded), (0, true), "{report:#?}");
    }
    for _ in 0..rng.random_range(2..9) {
        world.with(|state| {
            for _ in 0..rng.random_range(0..15) {
                edit(state, &mut rng);
            }
            if accidents.local_restored {
                let backup = local_backups.iter().enumerate().choose(&mut rng);
                if state.local.base.is_some() && state.is_settled() && rng.random_bool(0.7) {
                    kept::back_up(state, local_backups.len());
                    local_backups.push(state.local.clone());
                } else if let Some((place, backup)) = backup.filter(|_| rng.random_bool(0.2)) {
                    state.restore_local(backup.clone());
                    kept::restore(state, place);
                }
            }
            if accidents.memory_lost {
                match rng.random_range(0..12) {
                    0 => {
                        let rows = std::mem::take(&mut state.local.rows);
                        state.local = Local { rows, ..Local::default() };
                        state.token += 1;
                        kept::forget(state);
                    }
                    1 if let Some(backup) = remote_backups.iter().choose(&mut rng) => {
                        state.restore_remote(backup.clone());
                    }
                    // Before that neither side remembers anything: a first run.
                    2..5 if state.remote.begun => remote_backups.push(state.remote.clone()),
                    _ => {}
                }
            }
            if accidents.altered && rng.random_bool(0.4) {
                // They are set back as often.
                state.alter(rng.random_range(0..3));
            }
            if accidents.resolved && rng.random_bool(0.5) {
                resolve(state, &mut rng);
            }
            state.passing = [0, 0, 30, 6][rng.random_range(0..4)];
            state.kill_at = rng.random_bool(0.4).then(|| rng.random_range(1..60));
            let (share, mut own) =
                ([0.0, 0.1, 0.6][rng.random_range(0..3)], StdRng::seed_from_u64(rng.random()));
            state.hook = Some(Box::new(move |state| {
                if own.random_bool(share) {
                    edit(state, &mut own);
                }
            }));
        });
        world.run(&table(policy), &settings, &mut memory);
        if rng.random_bool(0.1) {
            memory = Memory::default();
        }
    }
    world.with(|state| (state.passing, state.kill_at, state.hook, state.quiet) = (0, None, None, true));
    let mut reports = Vec::new();
    for _ in 0..4 {
        reports.push(world.run(&table(policy), &settings, &mut memory));
    }
    let last = &reports[3];
    assert!(last.concluded && last.failure.is_none(), "{reports:#?}");
    assert_eq!(last.changed() + last.recorded + last.moved, 0, "a further run moves something: {reports:#?}");
    world.with(|state| check(state, policy, accidents));
    let open =
        world.with(|state| state.local.entries.values().filter(|entry| entry.open.is_some()).count() as u64);
    assert_eq!(last.status, if open > 0 { Status::LevelExcept(open) } else { Status::Level }, "{reports:#?}");
    let (calls, read) = world.with(|state| (state.log.join(" "), state.rows_read));
    assert!(calls == "token remembered recall" && read == 0, "nothing changed: {calls}");
}

/// What must hold at the end.
fn check(state: &mut State, policy: Policy, accidents: Accidents) {
    let keys: BTreeSet<u64> =
        state.local.rows.made_by.keys().chain(state.remote.rows.made_by.keys()).copied().collect();
    let is_parent: BTreeSet<Edit> = state.journal.iter().flat_map(|edit| edit.parents.clone()).collect();
    let mut recorded: BTreeSet<MemoryKey> = BTreeSet::new();
    for key in keys {
        let (ours, theirs) = (state.local.rows.seen(key), state.remote.rows.seen(key));
        let made = [&state.local.rows, &state.remote.rows].map(|rows| rows.made_by.get(&key).copied());
        let open = state.local.entries.get(&memory_key(key)).and_then(|entry| entry.open);
        if ours != theirs {
            let entry = state.local.entries.get(&memory_key(key));
            let open =
                open.unwrap_or_else(|| panic!("{key} differs: {ours:?} {theirs:?}, by {made:?}: {entry:?}"));
            assert_eq!((open.local, open.remote), (ours, theirs), "{key}");
            let record = &state.remote.records[&memory_key(key)];
            assert_eq!((record.kind, record.local, record.remote), (open.kind, ours, theirs), "{key}");
            recorded.insert(memory_key(key));
            match open.kind {
                OpenKind::Conflict => assert_eq!(policy, Policy::Ask, "{key}"),
                OpenKind::Undecided => assert!(accidents.memory_lost || accidents.altered, "{key}"),
                OpenKind::Rejected(_) => assert!(accidents.refused, "{key}"),
                OpenKind::Waiting(_) => panic!("{key} still waits"),
            }
            if open.kind == OpenKind::Conflict && !state.undecided.contains(&memory_key(key)) {
                let [Some(ours), Some(theirs)] = made else { panic!("{key}: a conflict with nothing") };
                assert!(!state.known_to(ours).contains(&theirs), "{key}: {ours} knew of {theirs}");
                assert!(!state.known_to(theirs).contains(&ours), "{key}: {theirs} knew of {ours}");
            } else {
                continue;
            }
        } else {
            assert_eq!(open, None, "{key} is equal, and open");
        }
        // What is deleted is gone, whichever of two deletes did it.
        let is_gone = ours == Seen::Absent && theirs == Seen::Absent;
        let own = |edit: &Edit| state.journal[*edit].key == key && !is_parent.contains(edit);
        for lost in (0..state.journal.len()).filter(own).filter(|edit| !state.forgiven.contains(edit)) {
            let is_there = made.iter().flatten().any(|made| state.known_to(*made).contains(&lost));
            // Nor is a key that never was agreed on known to be deleted once a backup has it again.
            let was_open = accidents.local_restored && state.undecided.contains(&memory_key(key));
            let is_deleted = (is_gone || was_open) && state.journal[lost].revision.is_none();
            if !is_there && !is_deleted && !made.iter().flatten().any(|made| is_nothing(state, *made, lost)) {
                let beaten = made.iter().flatten().any(|made| beats(state, *made, lost, policy, accidents));
                let story = state.journal.iter().enumerate().filter(|(_, edit)| edit.key == key);
                assert!(
                    beaten,
                    "{key}: edit {lost} is gone, left are {made:?} of {:#?}",
                    story.collect::<Vec<_>>()
                );
            }
        }
    }
    let left: BTreeSet<MemoryKey> = state.remote.records.keys().copied().collect();
    assert_eq!(left, recorded, "records without a difference");
}

/// Whether an edit deletes what the other side never had: since both last knew the same, nothing changed.
fn is_nothing(state: &State, left: Edit, lost: Edit) -> bool {
    let known_to_left = state.known_to(left);
    let common = state.known_to(lost).into_iter().filter(|edit| known_to_left.contains(edit)).max();
    let then = common.and_then(|edit| state.journal[edit].revision);
    state.journal[lost].revision.is_none() && then.is_none()
}

/// Whether what is left, or what it was made of, beats an edit by the policy, each without knowledge of the other.
fn beats(state: &State, left: Edit, lost: Edit, policy: Policy, accidents: Accidents) -> bool {
    let known_to_lost = state.known_to(lost);
    if known_to_lost.contains(&left) {
        return false;
    }
    let by = |edit: Edit, side: Side| state.journal[edit].side == Some(side);
    // What the local side made and was restored to before is what the remote side alone has.
    let of_remote = |edit: Edit| by(edit, Side::Remote) || state.set_back.contains(&edit);
    let row = |edit: Edit| {
        let revision = state.journal[edit].revision?;
        Some((revision, digest(state.journal[edit].key, &crate::model::Row { revision, edit, second: 0 })))
    };
    // Where nobody knows which side changed a row the higher revision wins, whatever the policy. Of equal ones the greater
    // digest, by the columns of then.
    let revision = |edit: Edit| state.journal[edit].revision;
    let is_newer = |edit: Edit| accidents.altered && revision(edit) >= revision(lost);
    state.known_to(left).into_iter().filter(|edit| !known_to_lost.contains(edit)).any(|edit| match policy {
        Policy::Newest | Policy::Local | Policy::Remote if is_newer(edit) => true,
        Policy::Newest => row(edit) > row(lost),
        Policy::Local => by(edit, Side::Local) && of_remote(lost),
        Policy::Remote => of_remote(edit) && !of_remote(lost),
        Policy::Ask => false,
    })
}

fn histories(policy: Policy, accidents: Accidents) {
    let seeds = match env("PLIMSOLL_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = rand::rng().random_range(0..1 << 40);
            first..first + env("PLIMSOLL_HISTORIES").unwrap_or(crate::HISTORIES)
        }
    };
    for seed in seeds {
        let result = std::panic::catch_unwind(|| history(seed, policy, accidents));
        if let Err(panic) = result {
            eprintln!("PLIMSOLL_SEED={seed} under {policy:?} with {accidents:?}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn both_sides_end_equal_and_no_change_is_lost_but_to_the_policy() {
    for policy in [Policy::Newest, Policy::Local, Policy::Remote] {
        histories(policy, NONE);
    }
}

#[test]
fn a_local_database_restored_with_its_base_loses_nothing_more() {
    for policy in [Policy::Newest, Policy::Local, Policy::Remote] {
        histories(policy, Accidents { local_restored: true, ..NONE });
    }
}

#[test]
fn lost_memory_deletes_nothing_and_newer_rows_stay() {
    histories(Policy::Newest, Accidents { memory_lost: true, ..NONE });
}

#[test]
fn both_sides_restored_each_from_another_time_lose_nothing_more() {
    histories(Policy::Newest, Accidents { local_restored: true, memory_lost: true, ..NONE });
}

#[test]
fn refused_rows_delay_only_themselves() {
    for policy in [Policy::Newest, Policy::Local, Policy::Remote] {
        histories(policy, Accidents { refused: true, ..NONE });
    }
}

#[test]
fn every_true_conflict_is_recorded_once_and_no_false_one() {
    histories(Policy::Ask, NONE);
}

#[test]
fn what_a_person_decides_is_carried_out() {
    histories(Policy::Ask, Accidents { resolved: true, ..NONE });
}

#[test]
fn what_a_person_decides_in_vain_is_told_and_tried_once() {
    for policy in [Policy::Newest, Policy::Ask] {
        histories(policy, Accidents { resolved: true, refused: true, ..NONE });
    }
}

#[test]
fn conflicts_of_a_restored_local_database_are_decided_anew() {
    histories(Policy::Ask, Accidents { local_restored: true, ..NONE });
    for policy in [Policy::Newest, Policy::Ask] {
        histories(policy, Accidents { local_restored: true, resolved: true, refused: true, ..NONE });
    }
}

#[test]
fn altered_columns_bring_nothing_back_and_lose_no_change() {
    for policy in [Policy::Newest, Policy::Local, Policy::Remote, Policy::Ask] {
        histories(policy, Accidents { altered: true, ..NONE });
    }
    histories(Policy::Ask, Accidents { altered: true, resolved: true, ..NONE });
}
