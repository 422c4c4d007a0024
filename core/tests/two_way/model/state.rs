//! What both sides hold and remember, who changed it, and what goes wrong.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_core::reconcile::Side;
use plimsoll_core::store::{
    Applied, BaseInfo, BatchId, Change, Choice, Failure, FailureKind, LocalRow, MemoryEntry, MemoryKey,
    OpenKind, Outcome, Pending, PositionRange, Reason, Record, RemoteAct, Seen,
};
use plimsoll_core::two_way::Merging;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Edit, LOST_AFTER, Row, Rows, digest, key_of, memory_key, row_of};

#[derive(Debug, Clone)]
pub struct Journalled {
    pub key: u64,
    /// Who made it; `None`: agreement, of both.
    pub side: Option<Side>,
    pub parents: Vec<Edit>,
    /// The revision; `None` of a delete.
    pub revision: Option<i64>,
}

#[derive(Debug, Clone, Default)]
pub struct Local {
    pub rows: Rows,
    pub base: Option<BaseInfo>,
    /// Of which columns it is: [`State::columns`] then. `None`: of more than one kind.
    pub made_of: Option<i64>,
    pub entries: BTreeMap<MemoryKey, MemoryEntry>,
    pub pending: Option<Pending>,
    pub closing: BTreeSet<MemoryKey>,
    /// The number of the last conclusion, and what it answered.
    pub concluded: (u64, Vec<Applied>),
}

#[derive(Debug, Clone, Default)]
pub struct Remote {
    pub rows: Rows,
    pub begun: bool,
    pub run: u64,
    /// What tells the run from others of its number.
    pub mark: i64,
    pub last: BatchId,
    /// Of each batch the mark of its run, and what became of its acts.
    pub outcomes: BTreeMap<u64, (i64, Vec<Applied>)>,
    pub records: BTreeMap<MemoryKey, Record>,
    pub choices: Vec<Choice>,
}

/// Something that an application, an accident or a person does between two steps.
pub type Hook = Box<dyn FnMut(&mut State)>;

pub struct State {
    pub local: Local,
    pub remote: Remote,
    pub journal: Vec<Journalled>,
    /// Edits that an accident took, or a person decided against.
    pub forgiven: BTreeSet<Edit>,
    /// Edits that the local side knew, and did not once it was restored.
    pub set_back: BTreeSet<Edit>,
    /// What persons ever decided.
    pub decided: Vec<Choice>,
    /// Every conflict that was ever recorded.
    pub recorded: Vec<(Edit, Edit)>,
    /// Whether the local side was restored since a run began anew.
    pub restored: bool,
    /// Keys of which nobody knows who changed them last: it was recorded, or forgotten with what was open.
    pub undecided: BTreeSet<MemoryKey>,
    pub token: u64,
    /// The mark of the last run, whatever became of it: no two have the same.
    pub mark: i64,
    /// What the local clock says, and by how much it is ahead of the remote side's.
    pub clock: i64,
    pub ahead: i64,
    /// Which columns the table has: what those rows that have something in an altered one have in their second.
    pub columns: i64,
    /// Whether its key was altered since the base was begun.
    pub other_keys: bool,
    pub calls: u64,
    pub log: Vec<&'static str>,
    pub rows_read: usize,
    pub rng: StdRng,
    /// One call in so many fails in passing; 0: none.
    pub passing: u32,
    pub kill_at: Option<u64>,
    pub hook: Option<Hook>,
    /// A batch that is still under way though its caller gave up.
    pub(super) late: Option<(u64, Vec<RemoteAct>)>,
    /// What a side refuses, and whether for the time being.
    pub refuses: fn(Side, Edit) -> Option<bool>,
    /// What the remote side does not record.
    pub refuses_records: fn(&Record) -> bool,
    pub quiet: bool,
    /// Rows that a side's guard lets a run delete.
    pub guard: u64,
    /// How rows are merged by columns.
    pub merging: Option<Merging>,
    /// Rows of the local side that no encoding holds.
    pub bad: BTreeSet<u64>,
    /// The local side's rows as the call under way found them.
    pub found: BTreeMap<u64, Row>,
    /// Rows of ranges that were read ahead, and what was told last of such.
    pub spool: Vec<ReadAhead>,
    pub told: BTreeMap<u64, Row>,
}

/// The rows of ranges, and the content of those that have one.
pub struct ReadAhead {
    pub ranges: Vec<PositionRange>,
    pub rows: Vec<LocalRow>,
    pub content: BTreeMap<u64, Row>,
}

/// Whether the row of a key has something in columns that are altered.
fn is_alterable(key: u64) -> bool {
    key % 5 != 4
}

impl State {
    pub fn new(seed: u64) -> Self {
        State {
            local: Local::default(),
            remote: Remote::default(),
            journal: Vec::new(),
            forgiven: BTreeSet::new(),
            set_back: BTreeSet::new(),
            decided: Vec::new(),
            recorded: Vec::new(),
            restored: false,
            undecided: BTreeSet::new(),
            token: 0,
            mark: 0,
            clock: 1_700_000_000_000_000,
            ahead: 0,
            columns: 0,
            other_keys: false,
            calls: 0,
            log: Vec::new(),
            rows_read: 0,
            rng: StdRng::seed_from_u64(seed),
            passing: 0,
            kill_at: None,
            hook: None,
            late: None,
            refuses: |_, _| None,
            refuses_records: |_| false,
            quiet: false,
            guard: u64::MAX,
            merging: None,
            bad: BTreeSet::new(),
            found: BTreeMap::new(),
            spool: Vec::new(),
            told: BTreeMap::new(),
        }
    }

    pub fn rows(&mut self, side: Side) -> &mut Rows {
        match side {
            Side::Local => &mut self.local.rows,
            Side::Remote => &mut self.remote.rows,
        }
    }

    /// An application writes a row, knowing what is there.
    pub fn write(&mut self, side: Side, key: u64, ahead: i64) -> Edit {
        let parent = self.rows(side).made_by.get(&key).copied();
        let before = parent.map_or(0, |parent| self.highest(parent));
        let revision = before + ahead;
        let edit = self.note(key, Some(side), parent.into_iter().collect(), Some(revision));
        let columns = if is_alterable(key) { self.columns } else { 0 };
        let second = self.rows(side).rows.get(&key).map_or(columns, |row| row.second);
        self.rows(side).rows.insert(key, Row { revision, edit, second });
        self.changed(side, key, edit);
        edit
    }

    /// An application deletes a row.
    pub fn delete(&mut self, side: Side, key: u64) {
        if self.rows(side).rows.remove(&key).is_some() {
            let parent = self.rows(side).made_by[&key];
            let edit = self.note(key, Some(side), vec![parent], None);
            self.changed(side, key, edit);
        }
    }

    pub(super) fn changed(&mut self, side: Side, key: u64, edit: Edit) {
        self.rows(side).made_by.insert(key, edit);
        self.token += 1;
    }

    pub(super) fn note(
        &mut self,
        key: u64,
        side: Option<Side>,
        parents: Vec<Edit>,
        revision: Option<i64>,
    ) -> Edit {
        self.journal.push(Journalled { key, side, parents, revision });
        self.journal.len() - 1
    }

    /// The highest revision that the maker of an edit knew of.
    pub(super) fn highest(&self, edit: Edit) -> i64 {
        let known = self.known_to(edit);
        known.iter().filter_map(|edit| self.journal.get(*edit)?.revision).max().unwrap_or(0)
    }

    /// An edit, and all that its maker knew of.
    pub fn known_to(&self, edit: Edit) -> BTreeSet<Edit> {
        let (mut known, mut left) = (BTreeSet::new(), vec![edit]);
        while let Some(edit) = left.pop() {
            if known.insert(edit) {
                left.extend(self.journal.get(edit).into_iter().flat_map(|edit| &edit.parents));
            }
        }
        known
    }

    /// All that the local side knows of.
    fn known_here(&self) -> BTreeSet<Edit> {
        self.local.rows.made_by.values().flat_map(|edit| self.known_to(*edit)).collect()
    }

    /// An accident: what only the lost state of a side had is nobody's fault.
    pub fn forgive(&mut self) {
        let made: Vec<Edit> =
            self.local.rows.made_by.values().chain(self.remote.rows.made_by.values()).copied().collect();
        let kept: BTreeSet<Edit> = made.into_iter().flat_map(|edit| self.known_to(edit)).collect();
        self.forgiven.extend((0..self.journal.len()).filter(|edit| !kept.contains(edit)));
        self.token += 1;
    }

    /// The local side becomes what it was. A batch may be under way still: it is of what was read before.
    pub fn restore_local(&mut self, backup: Local) {
        let read = std::mem::take(&mut self.local.rows.read);
        let known = self.known_here();
        self.local = backup;
        let kept = self.known_here();
        self.set_back.extend(known.difference(&kept));
        self.local.rows.read = read;
        // What it remembers of conflicts is of another time: they are decided anew, though one side may know of the other
        // by now.
        self.restored = true;
        self.recorded.clear();
        let open = self.local.entries.values().filter(|entry| entry.open.is_some());
        self.undecided.extend(open.map(|entry| entry.key));
        self.forgive();
    }

    /// The table's columns are altered on both sides, or set back to what they were: rows are other ones, though no
    /// application changed any, but for some that have nothing in the altered columns. A batch that was made before is
    /// taken no more.
    #[allow(dead_code, reason = "not all who include this ask for it")]
    pub fn alter(&mut self, columns: i64) {
        self.columns = columns;
        for rows in [&mut self.local.rows.rows, &mut self.remote.rows.rows] {
            rows.iter_mut().filter(|(key, _)| is_alterable(**key)).for_each(|(_, row)| row.second = columns);
        }
        self.late = None;
        self.recorded.clear();
        self.token += 1;
    }

    /// What is remembered from here on is of the columns of now.
    pub(super) fn is_partly_of_columns(&mut self) {
        let now = self.columns;
        self.local.made_of = self.local.made_of.filter(|columns| *columns == now);
    }

    /// The remote side becomes what it was; what was under way there ends.
    pub fn restore_remote(&mut self, backup: Remote) {
        self.remote = backup;
        self.late = None;
        self.forgive();
    }

    /// Whether all that the local side has is agreed on, or left open.
    pub fn is_settled(&self) -> bool {
        let expected = |key: &u64| {
            self.local.entries.get(&memory_key(*key)).map_or(Seen::Absent, |e| e.seen(Side::Local))
        };
        let keys = self.local.rows.made_by.keys();
        self.local.pending.is_none()
            && keys.into_iter().all(|key| self.local.rows.seen(*key) == expected(key))
    }

    pub(super) fn key(&self, of: MemoryKey) -> u64 {
        let known = self.journal.iter().find(|edit| memory_key(edit.key) == of);
        known.expect("a key that was there").key
    }

    pub(super) fn before(&mut self, call: &'static str) -> Outcome<()> {
        self.calls += 1;
        assert!(self.calls < 200_000, "a run without an end: {:?}", &self.log[self.log.len() - 30..]);
        self.clock += 1_000;
        self.log.push(call);
        if let Some(mut hook) = self.hook.take() {
            hook(self);
            self.hook = self.hook.take().or(Some(hook));
        }
        if self.late.is_some() && self.rng.random_bool(0.3) {
            let (number, acts) = self.late.take().unwrap();
            if number >> 24 == self.remote.run {
                self.carry_out(number, &acts);
            }
        }
        self.found.clone_from(&self.local.rows.rows);
        if self.kill_at.is_some_and(|at| self.calls >= at) {
            return Err(Failure::new(FailureKind::Run, "killed"));
        }
        if self.passing > 0 && self.rng.random_ratio(1, self.passing) {
            return Err(Failure::new(FailureKind::Passing, "lost before the effect"));
        }
        Ok(())
    }

    pub(super) fn after(&mut self) -> Outcome<()> {
        if self.passing > 0 && self.rng.random_ratio(1, self.passing) {
            return Err(Failure::new(FailureKind::Passing, LOST_AFTER));
        }
        Ok(())
    }

    pub(super) fn change(&mut self, side: Side, change: &Change) -> Applied {
        let (key, expected, to) = match change {
            Change::Upsert { row, expected } => (key_of(&row.key), Seen::from(*expected), Some(row_of(row))),
            Change::Delete { key, expected, .. } => (key_of(key), Seen::Row(*expected), None),
        };
        let bad = side == Side::Local && self.bad.contains(&key);
        let now = if bad { Seen::Unreadable } else { self.rows(side).seen(key) };
        if now == to.map(|row| digest(key, &row)).into() {
            // Both deleted it.
            if let Some(made_by) = self.rows(side).made_by.get(&key).copied() {
                self.rows(side).read.insert(key, made_by);
            }
            return Applied::Done;
        }
        if now != expected {
            return Applied::Changed;
        }
        let is_decided = self.decided.iter().any(|choice| {
            let seen = if side == Side::Local { choice.local } else { choice.remote };
            choice.key == memory_key(key) && seen == now
        });
        if is_decided && let Some(beaten) = self.rows(side).made_by.get(&key).copied() {
            self.forgiven.insert(beaten);
        }
        match to {
            Some(row) => {
                if let Some(waits) = (self.refuses)(side, row.edit).filter(|waits| !waits || !self.quiet) {
                    let message = format!("refused by {side:?}: {}", "è".repeat(3_000));
                    let reason = Reason { message, ..Reason::default() };
                    return Applied::Refused { waits, reason: Box::new(reason) };
                }
                self.rows(side).rows.insert(key, row);
                self.changed(side, key, row.edit);
            }
            None => {
                if self.guard == 0 {
                    return Applied::Held;
                }
                self.guard -= 1;
                self.rows(side).rows.remove(&key);
                let by = self.rows(side.other()).read.get(&key).copied();
                // The other side never had it: a person wants none.
                let parent = self.rows(side).made_by[&key];
                let by = by.or_else(|| is_decided.then(|| self.note(key, None, vec![parent], None)));
                let by = by.expect("the other side's delete");
                self.changed(side, key, by);
            }
        }
        Applied::Done
    }

    pub(super) fn carry_out(&mut self, number: u64, acts: &[RemoteAct]) -> Vec<Applied> {
        assert_eq!(number >> 24, self.remote.run);
        assert_eq!(number, self.remote.last.number.max(self.remote.run << 24) + 1, "batches are missing");
        let mark = self.remote.mark;
        self.remote.last = BatchId { number, mark };
        let mut applied = Vec::new();
        for act in acts {
            applied.push(match act {
                RemoteAct::Change(change) => self.change(Side::Remote, change),
                RemoteAct::Record(record) => self.record(record),
            });
        }
        self.remote.outcomes.insert(number, (mark, applied.clone()));
        applied
    }

    pub(super) fn record(&mut self, record: &Record) -> Applied {
        if (self.refuses_records)(record) {
            return Applied::Refused { waits: false, reason: Box::default() };
        }
        let key = self.key(record.key);
        if self.remote.rows.seen(key) != record.remote {
            return Applied::Changed;
        }
        if record.kind == OpenKind::Conflict {
            let ours = match (&record.local_row, record.local) {
                (Some(row), _) => row_of(row).edit,
                (None, _) => self.local.rows.read[&key],
            };
            let theirs = self.remote.rows.made_by[&key];
            let is_decided = self.remote.choices.iter().any(|choice| choice.key == record.key);
            assert!(is_decided || !self.recorded.contains(&(ours, theirs)), "recorded twice: {record:?}");
            self.recorded.push((ours, theirs));
            let is_unknown = self.undecided.contains(&record.key);
            assert!(
                is_unknown
                    || !self.known_to(ours).contains(&theirs) && !self.known_to(theirs).contains(&ours),
                "a false conflict: {record:?} of {ours} and {theirs}"
            );
        }
        if record.kind == OpenKind::Undecided {
            self.undecided.insert(record.key);
        }
        self.remote.choices.retain(|choice| choice.key != record.key);
        self.remote.records.insert(record.key, record.clone());
        Applied::Done
    }

    /// Agreement that neither side has a row: both deleted it, and what either makes of it later knows of both.
    pub(super) fn agree_on_absence(&mut self, of: MemoryKey) {
        let key = self.key(of);
        let read = [&self.local.rows, &self.remote.rows].map(|rows| rows.read.get(&key).copied());
        let [Some(ours), Some(theirs)] = read else { return };
        let absent = |edit: Edit| self.journal[edit].revision.is_none();
        let apart = !self.known_to(ours).contains(&theirs) && !self.known_to(theirs).contains(&ours);
        if !(absent(ours) && absent(theirs) && apart) {
            return;
        }
        let both = self.note(key, None, vec![ours, theirs], None);
        for (side, read) in [(Side::Local, ours), (Side::Remote, theirs)] {
            // A restored side may not know that there ever was one.
            match self.rows(side).made_by.get(&key).copied() {
                Some(now) if now != read => self.journal[now].parents.push(both),
                _ => drop(self.rows(side).made_by.insert(key, both)),
            }
        }
    }

    /// Remembers what was agreed on, as the local database does.
    pub(super) fn remember(&mut self, settle: &plimsoll_core::store::Settle) {
        let entry = &settle.entry;
        if entry.is_empty() {
            self.local.entries.remove(&entry.key);
            self.agree_on_absence(entry.key);
        } else {
            self.local.entries.insert(entry.key, entry.clone());
        }
        if settle.closes {
            self.local.closing.insert(entry.key);
        }
        if entry.open.is_some() {
            self.local.closing.remove(&entry.key);
        }
    }
}
