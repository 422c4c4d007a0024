//! Some keys on their way to a decision: the rows that it needs are brought from both sides.

use std::collections::{HashMap, VecDeque};

use super::group::{Known, Unit};
use crate::short::ShortItem;
use crate::store::{
    Fetched, LocalContent, MemoryKey, RemoteRow, Seen, ShortDigest, SourceKey, SourceRecord, SourceRow,
    Wanted,
};

/// What the remote side has of a key.
#[derive(Debug, Clone)]
pub(super) enum Theirs {
    Absent,
    /// The row that is remembered, or the local side's.
    Known(ShortDigest),
    Row(Box<RemoteRow>),
}

impl Theirs {
    pub fn seen(&self) -> Seen {
        match self {
            Theirs::Absent => Seen::Absent,
            Theirs::Known(digest) => Seen::Row(*digest),
            Theirs::Row(row) => Seen::Row(ShortItem::from(&row.item).digest),
        }
    }

    pub fn row(&self) -> Option<&RemoteRow> {
        if let Theirs::Row(row) = self { Some(row) } else { None }
    }
}

/// One key with all that a decision needs.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub known: Known,
    pub theirs: Theirs,
    /// The local row with its content, where that may be needed.
    pub ours: Option<SourceRow>,
    /// Whether a row changed since it was listed: nothing is decided.
    pub moved: bool,
}

/// Some units.
#[derive(Debug)]
pub(super) struct Chunk {
    units: Vec<Unit>,
    pub wanted: Vec<Wanted>,
    /// The unit of each row that is wanted.
    wanted_of: Vec<usize>,
    pub ready: Vec<Ready>,
    /// Local rows to be looked up, and whose they are.
    pub keys: Vec<SourceKey>,
    keys_of: Vec<usize>,
}

impl Chunk {
    /// Takes about so many keys from the front.
    pub fn take(units: &mut VecDeque<Unit>, keys: usize) -> Self {
        let (mut taken, mut count) = (Vec::new(), 0);
        while let Some(unit) = units.pop_front_if(|unit| count == 0 || count + unit.keys() <= keys) {
            count += unit.keys();
            taken.push(unit);
        }
        let mut chunk = Chunk {
            units: taken,
            wanted: Vec::new(),
            wanted_of: Vec::new(),
            ready: Vec::new(),
            keys: Vec::new(),
            keys_of: Vec::new(),
        };
        for (at, unit) in chunk.units.iter().enumerate() {
            let strays = unit.strays.iter().map(|item| Wanted { item: *item, content: true });
            let known = unit.known.iter().filter_map(wanted);
            for wanted in strays.chain(known) {
                chunk.wanted.push(wanted);
                chunk.wanted_of.push(at);
            }
        }
        chunk
    }

    /// Takes the rows that were wanted. Units that there was no room for go back.
    pub fn fetched(&mut self, fetched: Fetched, back: &mut VecDeque<Unit>) -> bool {
        if fetched.looked_for > self.wanted.len() || (fetched.looked_for == 0 && !self.wanted.is_empty()) {
            return false;
        }
        // The first unit whose rows were not looked for.
        let end = self.wanted_of.get(fetched.looked_for).copied().unwrap_or(self.units.len()).max(1);
        self.return_from(end, back);
        let mut answered: HashMap<i64, Vec<RemoteRow>> = HashMap::new();
        for row in fetched.rows {
            answered.entry(row.item.position).or_default().push(row);
        }
        for unit in std::mem::take(&mut self.units) {
            let rows = unit.position().and_then(|position| answered.remove(&position)).unwrap_or_default();
            let has = |item: &ShortItem| rows.iter().any(|row| ShortItem::from(&row.item) == *item);
            let moved = !unit.strays.iter().all(has);
            let mut ready: Vec<Ready> =
                unit.known.into_iter().map(|known| Ready::new(known, moved)).collect();
            for row in rows {
                let key = MemoryKey::new(row.item.position, &SourceKey::Encoded(row.key.clone()));
                let place = ready.iter().position(|ready| ready.known.key == key).unwrap_or_else(|| {
                    ready.push(Ready::new(Known::new(key), moved));
                    ready.len() - 1
                });
                ready[place].theirs = Theirs::Row(Box::new(row));
            }
            self.ready.append(&mut ready);
        }
        self.plan_lookup();
        true
    }

    fn return_from(&mut self, end: usize, back: &mut VecDeque<Unit>) {
        for unit in self.units.drain(end.min(self.units.len())..).rev() {
            back.push_front(unit);
        }
    }

    /// Names the local rows whose content may be needed.
    fn plan_lookup(&mut self) {
        for (at, ready) in self.ready.iter().enumerate() {
            let (Some(local), Seen::Row(digest)) = (&ready.known.local, ready.known.local_seen()) else {
                continue;
            };
            let theirs = ready.theirs.seen();
            let may_win = ready.known.base() != Some(digest) || theirs == Seen::Absent || ready.known.forced;
            if !ready.moved && theirs != Seen::Row(digest) && may_win {
                self.keys.push(local.key.clone());
                self.keys_of.push(at);
            }
        }
    }

    /// Takes the local rows. Answers the units that there was no room for: their keys are decided upon next.
    pub fn found(&mut self, found: Vec<Option<SourceRecord>>) -> Option<Vec<Ready>> {
        if found.len() > self.keys.len() || (found.is_empty() && !self.keys.is_empty()) {
            return None;
        }
        let later = self.keys_of.get(found.len()).copied();
        for (at, record) in self.keys_of.iter().zip(found) {
            let ready = &mut self.ready[*at];
            match record {
                Some(SourceRecord::Row(row))
                    if Seen::Row(ShortItem::from(&row.item).digest) == ready.known.local_seen() =>
                {
                    ready.ours = Some(row);
                }
                _ => ready.moved = true,
            }
        }
        Some(later.map_or_else(Vec::new, |at| self.ready.split_off(at)))
    }

    /// Goes on with keys whose local rows there was no room for.
    pub fn resume(ready: Vec<Ready>) -> Self {
        let mut chunk = Chunk {
            units: Vec::new(),
            wanted: Vec::new(),
            wanted_of: Vec::new(),
            ready,
            keys: Vec::new(),
            keys_of: Vec::new(),
        };
        chunk.plan_lookup();
        chunk
    }
}

/// What is wanted of the row that the remote side is known to have.
fn wanted(known: &Known) -> Option<Wanted> {
    let digest = known.remote?;
    let item = ShortItem { position: known.key.position, digest };
    let local = known.local_seen();
    if local == Seen::Row(digest) {
        return None;
    }
    // Unchanged there: it is overwritten, or deleted by its key. Changed or chosen: it may be copied.
    let content = known.forced || known.base() != Some(digest);
    (content || local == Seen::Absent).then_some(Wanted { item, content })
}

impl Ready {
    fn new(known: Known, moved: bool) -> Self {
        let theirs = known.remote.map_or(Theirs::Absent, Theirs::Known);
        Ready { known, theirs, ours: None, moved }
    }

    /// The revision of the local row.
    pub fn revision(&self) -> i64 {
        match self.known.local.as_ref().map(|row| &row.content) {
            Some(LocalContent::Row { revision, .. }) => *revision,
            _ => 0,
        }
    }
}
