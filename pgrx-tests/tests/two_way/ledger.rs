//! Who changed which row, having seen what: the judge of what a history of changes may come to. A row holds the number of
//! the change that made it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fastrand::Rng;

/// Where somebody changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Here,
    There,
}

/// A change: whose row, what its maker saw there, and its stamp; a delete has none.
#[derive(Debug, Clone)]
struct Change {
    key: i64,
    side: Side,
    saw: Option<usize>,
    stamp: Option<i64>,
}

/// What both sides of a row held when its conflict was recorded: numbers of changes, none where there was no row.
type Recorded = (i64, Option<usize>, Option<usize>);

/// All changes that were committed.
#[derive(Debug, Default)]
pub struct Ledger {
    /// None where it was not committed after all.
    changes: Mutex<Vec<Option<Change>>>,
    /// Changes that a person decided against.
    given_up: Mutex<BTreeSet<usize>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// Notes that a row is about to be changed; its number, and its stamp in seconds.
    pub fn note(&self, key: i64, side: Side, saw: Option<usize>, rng: &mut Rng) -> (usize, i64) {
        let mut changes = locked(&self.changes);
        let before = saw.and_then(|saw| changes[saw].as_ref()?.stamp).unwrap_or(0);
        let stamp = before + rng.i64(1..4);
        changes.push(Some(Change { key, side, saw, stamp: Some(stamp) }));
        (changes.len() - 1, stamp)
    }

    /// Notes that a row that was seen is about to be deleted; the number.
    pub fn note_delete(&self, key: i64, side: Side, saw: usize) -> usize {
        let mut changes = locked(&self.changes);
        changes.push(Some(Change { key, side, saw: Some(saw), stamp: None }));
        changes.len() - 1
    }

    /// Strikes out a change that was not committed.
    pub fn strike(&self, number: usize) {
        locked(&self.changes)[number] = None;
    }

    /// Notes that a person decided against what a side has of a row: a change, or that it was deleted.
    pub fn give_up(&self, key: i64, side: Side, row: Option<usize>) {
        let changes = locked(&self.changes);
        let of_key = OfKey::new(&changes, key);
        let deletes = of_key.deletes().filter(|(_, delete)| delete.side == side);
        let deletes: Vec<usize> = deletes.map(|(number, _)| number).collect();
        locked(&self.given_up).extend(row.map_or(deletes, |row| vec![row]));
    }

    /// What must hold of the rows of both sides, by key, and of all conflicts that were ever recorded, with how often.
    #[track_caller]
    pub fn check(
        &self,
        policy: &str,
        here: &BTreeMap<i64, usize>,
        there: &BTreeMap<i64, usize>,
        recorded: &BTreeMap<Recorded, u32>,
    ) {
        let changes = locked(&self.changes);
        let given_up = locked(&self.given_up);
        let keys: BTreeSet<i64> = changes.iter().flatten().map(|change| change.key).collect();
        assert!(here.keys().chain(there.keys()).all(|key| keys.contains(key)), "rows that nobody made");
        for key in keys {
            let of_key = OfKey::new(&changes, key);
            let (ours, theirs) = (here.get(&key).copied(), there.get(&key).copied());
            if ours != theirs {
                assert_eq!(policy, "ask", "{key} differs: {ours:?}, {theirs:?}");
                let is_recorded = recorded.contains_key(&(key, ours, theirs));
                assert!(is_recorded, "{key}: {ours:?} and {theirs:?} are not recorded");
            }
            let left: BTreeSet<usize> =
                [ours, theirs].into_iter().flatten().flat_map(|number| of_key.known_to(number)).collect();
            of_key.nothing_is_lost(policy, &left, &given_up);
            if ours == theirs {
                of_key.nothing_comes_back(ours, &given_up);
            }
        }
        for ((key, ours, theirs), times) in recorded {
            let of_key = OfKey::new(&changes, *key);
            let what = format!("{key}: {ours:?} and {theirs:?}");
            match (ours, theirs) {
                (Some(ours), Some(theirs)) => {
                    assert_eq!(*times, 1, "{what} are recorded more than once");
                    let apart =
                        !of_key.known_to(*ours).contains(theirs) && !of_key.known_to(*theirs).contains(ours);
                    assert!(apart, "{what} are no conflict");
                }
                // Deleted, made anew and deleted once more, a row is in conflict with the other side's again.
                (Some(row), None) | (None, Some(row)) => {
                    let side = if ours.is_none() { Side::Here } else { Side::There };
                    let deletes = of_key.deletes().filter(|(_, delete)| delete.side == side);
                    let true_ones = deletes.filter(|(_, delete)| {
                        !delete.saw.is_some_and(|saw| of_key.known_to(saw).contains(row))
                    });
                    let most = true_ones.count() as u32;
                    assert!(
                        *times <= most,
                        "{what} are recorded {times} times, and {most} deletes speak of it"
                    );
                }
                (None, None) => panic!("{what} are no conflict"),
            }
        }
    }
}

/// The changes of one row, by number.
struct OfKey<'c> {
    key: i64,
    changes: BTreeMap<usize, &'c Change>,
}

impl<'c> OfKey<'c> {
    fn new(changes: &'c [Option<Change>], key: i64) -> Self {
        let numbered = changes.iter().enumerate();
        let own = numbered.filter_map(|(number, change)| Some((number, change.as_ref()?)));
        OfKey { key, changes: own.filter(|(_, change)| change.key == key).collect() }
    }

    /// A change, what its maker saw, what the maker of that saw, and so on.
    fn known_to(&self, number: usize) -> BTreeSet<usize> {
        std::iter::successors(Some(number), |number| self.changes.get(number)?.saw).collect()
    }

    fn deletes(&self) -> impl Iterator<Item = (usize, &'c Change)> {
        let all = self.changes.iter().map(|(number, change)| (*number, *change));
        all.filter(|(_, change)| change.stamp.is_none())
    }

    /// Each change that nobody built upon is left, or was beaten by one that was made without knowledge of it.
    #[track_caller]
    fn nothing_is_lost(&self, policy: &str, left: &BTreeSet<usize>, given_up: &BTreeSet<usize>) {
        let built_upon: BTreeSet<usize> = self.changes.values().filter_map(|change| change.saw).collect();
        let was_deleted = self.deletes().next().is_some();
        for (number, lost) in &self.changes {
            if lost.stamp.is_none() || built_upon.contains(number) || left.contains(number) {
                continue;
            }
            let known = self.known_to(*number);
            let beats = |by: &usize| {
                let by = self.changes[by];
                match policy {
                    // A delete has no stamp, and beats nothing.
                    "newest" => by.stamp >= lost.stamp,
                    "local" => by.side == Side::Here && lost.side == Side::There,
                    "remote" => by.side == Side::There && lost.side == Side::Here,
                    _ => false,
                }
            };
            // What beat it may have been deleted since.
            let others = self.changes.keys().filter(|other| was_deleted || left.contains(other));
            let is_beaten = others.filter(|other| !known.contains(other)).any(beats);
            let key = self.key;
            assert!(
                is_beaten || given_up.contains(number),
                "{key}: change {number} is gone, left are {left:?} of {:?}",
                self.changes
            );
        }
    }

    /// No row is left on both sides that somebody saw and deleted.
    #[track_caller]
    fn nothing_comes_back(&self, row: Option<usize>, given_up: &BTreeSet<usize>) {
        let Some(row) = row else { return };
        // A person may have preferred the row to its delete.
        let came_back = self.deletes().find(|(delete, by)| by.saw == Some(row) && !given_up.contains(delete));
        assert!(came_back.is_none(), "{}: {row} is back after {came_back:?} of {:?}", self.key, self.changes);
    }
}
