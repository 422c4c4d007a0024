//! Ranges that are not as they are remembered: which of their keys are to be decided upon.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use crate::reconcile::{Found, Rows, Side};
use crate::short::ShortItem;
use crate::store::{LocalRow, LocalStates, MemoryEntry, MemoryKey, PositionRange, Seen, ShortDigest};

/// What is known of one key before rows of the remote side are fetched.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub key: MemoryKey,
    pub local: Option<LocalRow>,
    pub entry: Option<MemoryEntry>,
    /// The remote side's row, where it is the remembered one or the local side's.
    pub remote: Option<ShortDigest>,
    /// Whether it is decided upon though nothing changed: it waits, or a person chose.
    pub forced: bool,
}

impl Known {
    pub fn new(key: MemoryKey) -> Self {
        Known { key, local: None, entry: None, remote: None, forced: false }
    }

    pub fn local_seen(&self) -> Seen {
        self.local.as_ref().map_or(Seen::Absent, LocalRow::seen)
    }

    pub fn base(&self) -> Option<ShortDigest> {
        self.entry.as_ref()?.base.as_ref().map(|base| base.digest)
    }

    fn remembered(&self, side: Side) -> Seen {
        self.entry.as_ref().map_or(Seen::Absent, |entry| entry.seen(side))
    }

    /// Whether both sides are as they were when the key was last decided upon.
    fn is_settled(&self) -> bool {
        self.local_seen() == self.remembered(Side::Local)
            && Seen::from(self.remote) == self.remembered(Side::Remote)
    }

    /// The row that the remote side has, as far as can be guessed.
    fn guess(&self) -> Option<ShortDigest> {
        match &self.entry {
            Some(entry) => entry.seen(Side::Remote).digest(),
            None => self.local_seen().digest(),
        }
    }
}

/// All keys of one position: nearly always one.
#[derive(Debug, Clone, Default)]
pub(super) struct Unit {
    pub known: Vec<Known>,
    /// Rows of the remote side whose key is not known yet.
    pub strays: Vec<ShortItem>,
}

impl Unit {
    pub fn keys(&self) -> usize {
        self.known.len().max(self.strays.len())
    }

    pub fn position(&self) -> Option<i64> {
        let known = self.known.first().map(|known| known.key.position);
        known.or_else(|| self.strays.first().map(|stray| stray.position))
    }
}

/// The rows and the memory of some ranges.
#[derive(Debug)]
pub(super) struct Group {
    pub ranges: Vec<PositionRange>,
    keys: BTreeMap<MemoryKey, Known>,
}

impl Group {
    pub fn new(ranges: Vec<PositionRange>, states: LocalStates) -> Self {
        let mut keys = BTreeMap::new();
        for row in states.rows {
            let key = row.memory_key();
            keys.entry(key).or_insert_with(|| Known::new(key)).local = Some(row);
        }
        for entry in states.entries {
            let key = entry.key;
            keys.entry(key).or_insert_with(|| Known::new(key)).entry = Some(entry);
        }
        Group { ranges, keys }
    }

    /// What the remote side has if nothing changed there: what is compared with it.
    pub fn guesses(&self) -> Rows {
        let item = |known: &Known| Some(ShortItem { position: known.key.position, digest: known.guess()? });
        Rows::new(self.keys.values().filter_map(item).collect())
    }

    /// The keys to be decided upon, by position: those that are not as they are remembered, and `forced` ones.
    pub fn units(mut self, found: Found, forced: &BTreeSet<MemoryKey>) -> VecDeque<Unit> {
        // One that was chosen is decided upon though nothing here knows of it.
        for range in &self.ranges {
            let first = MemoryKey { position: range.from.unwrap_or(i64::MIN), tail: [0; 8] };
            for key in forced.range(first..).take_while(|key| range.contains(key.position)) {
                self.keys.entry(*key).or_insert_with(|| Known::new(*key));
            }
        }
        let wrong: HashSet<ShortItem> = found.local_only.into_iter().collect();
        let mut ours: HashMap<ShortItem, MemoryKey> = HashMap::new();
        for known in self.keys.values_mut() {
            let position = known.key.position;
            known.remote =
                known.guess().filter(|digest| !wrong.contains(&ShortItem { position, digest: *digest }));
            // Who else's row is it? Asked only where there are others.
            if let Some(digest) = known.local_seen().digest().filter(|_| !found.remote_only.is_empty()) {
                ours.insert(ShortItem { position, digest }, known.key);
            }
        }
        let mut strays: BTreeMap<i64, Vec<ShortItem>> = BTreeMap::new();
        for item in found.remote_only {
            match ours.get(&item).and_then(|key| self.keys.get_mut(key)) {
                Some(known) => known.remote = Some(item.digest),
                None => strays.entry(item.position).or_default().push(item),
            }
        }
        let mut units: BTreeMap<i64, Unit> = BTreeMap::new();
        for (key, mut known) in self.keys {
            known.forced = forced.contains(&key);
            let is_due = known.forced || strays.contains_key(&key.position) || !known.is_settled();
            if is_due {
                units.entry(key.position).or_default().known.push(known);
            }
        }
        for (position, strays) in strays {
            units.entry(position).or_default().strays = strays;
        }
        units.into_values().collect()
    }
}
