//! Both sides of a two-way table, the memory inside the local one, faults, and a journal of who changed what knowing what.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::dyadic::Dyadic;
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::Item;
use plimsoll_core::ranges::{RangeSummary, choose};
use plimsoll_core::reconcile::Side;
use plimsoll_core::row::{Fields, RowWriter};
use plimsoll_core::schema::hash_position;
use plimsoll_core::short::ShortItem;
use plimsoll_core::sketch::Sketch;
use plimsoll_core::store::{
    Applied, BaseInfo, Change, Choice, Conclusion, Failure, FailureKind, Fetched, LocalContent, LocalHeld,
    LocalRow, LocalSide, LocalStates, Made, MemoryEntry, MemoryKey, OpenKind, Outcome, Pending,
    PositionRange, RangeHeld, Reason, Recollection, Record, RemoteAct, RemoteMemory, RemoteRow, RemoteSide,
    Seen, SeenSum, Settled, ShortDigest, SourceKey, SourceRecord, SourceRow, Summaries, TableId,
    TableVersion, Wanted,
};
use plimsoll_core::two_way::{Clock, Memory, Merging, Report, Settings, Table, run};
use plimsoll_core::value::Value;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// What an application did to a row: its place in the journal.
pub type Edit = usize;

/// A row is its key, its revision, the edit that made it so, and one more column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub revision: i64,
    pub edit: Edit,
    pub second: i64,
}

/// What a call fails with though it was carried out.
pub const LOST_AFTER: &str = "lost after the effect";

/// The column number of a row's revision.
#[allow(dead_code, reason = "not all who include this ask for it")]
pub const VERSION: u32 = 2;

pub fn digester() -> Digester {
    Digester::new(FingerprintKey::new([7; 32]))
}

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
pub struct Rows {
    pub rows: BTreeMap<u64, Row>,
    /// Of each key the edit that made it what it is, deletes too.
    pub made_by: BTreeMap<u64, Edit>,
    /// The same when it was last read.
    pub read: BTreeMap<u64, Edit>,
}

#[derive(Debug, Clone, Default)]
pub struct Local {
    pub rows: Rows,
    pub base: Option<BaseInfo>,
    /// Of which columns it is: [`State::columns`] then.
    pub made_of: i64,
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
    pub last: u64,
    pub outcomes: BTreeMap<u64, Vec<Applied>>,
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
    /// What persons ever decided.
    pub decided: Vec<Choice>,
    /// Every conflict that was ever recorded.
    pub recorded: Vec<(Edit, Edit)>,
    /// Keys of which nobody knows who changed them last: it was recorded, or forgotten with what was open.
    pub undecided: BTreeSet<MemoryKey>,
    pub token: u64,
    /// What the local clock says, and by how much it is ahead of the remote side's.
    pub clock: i64,
    pub ahead: i64,
    /// How often the columns of the table were altered: what all rows have in their second one.
    pub columns: i64,
    pub calls: u64,
    pub log: Vec<&'static str>,
    pub rows_read: usize,
    pub rng: StdRng,
    /// One call in so many fails in passing; 0: none.
    pub passing: u32,
    pub kill_at: Option<u64>,
    pub hook: Option<Hook>,
    /// A batch that is still under way though its caller gave up.
    late: Option<(u64, Vec<RemoteAct>)>,
    /// What a side refuses, and whether for the time being.
    pub refuses: fn(Side, Edit) -> Option<bool>,
    /// Whether the remote side records nothing.
    pub refuses_records: bool,
    pub quiet: bool,
    /// Rows that a side's guard lets a run delete.
    pub guard: u64,
    /// How rows are merged by columns.
    pub merging: Option<Merging>,
    /// Rows of the local side that no encoding holds.
    pub bad: BTreeSet<u64>,
    /// The local side's rows as the call under way found them.
    pub found: BTreeMap<u64, Row>,
}

pub fn key_bytes(key: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    RowWriter::new(&mut bytes).int(1, key as i64);
    bytes
}

fn key_of(bytes: &[u8]) -> u64 {
    match Fields::new(bytes).next().map(|field| field.expect("a field").value) {
        Some(Value::Int(key)) => key as u64,
        value => panic!("{value:?} as a key"),
    }
}

/// Where a key stands; some share a position, where that can be had.
pub fn position(key: u64) -> i64 {
    let shares = crate::SHARES_POSITIONS && key % 10 < 2;
    hash_position(&key_bytes(if shares { key / 10 * 10 } else { key }))
}

pub fn item(key: u64, row: &Row) -> Item {
    Item { position: position(key), digest: digester().digest(&row_bytes(key, row)).expect("a row") }
}

fn row_bytes(key: u64, row: &Row) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = RowWriter::new(&mut bytes);
    for (number, value) in (1..).zip([key as i64, row.revision, row.edit as i64, row.second]) {
        writer.int(number, value);
    }
    bytes
}

pub fn digest(key: u64, row: &Row) -> ShortDigest {
    ShortItem::from(&item(key, row)).digest
}

pub fn memory_key(key: u64) -> MemoryKey {
    MemoryKey::new(position(key), &SourceKey::Encoded(key_bytes(key)))
}

fn source_row(key: u64, row: &Row) -> SourceRow {
    SourceRow { item: item(key, row), key: key_bytes(key), row: row_bytes(key, row) }
}

fn row_of(row: &SourceRow) -> Row {
    let values = Fields::new(&row.row).map(|field| match field.expect("a field").value {
        Value::Int(value) => value,
        value => panic!("{value:?} in a row"),
    });
    let values: Vec<i64> = values.collect();
    Row { revision: values[1], edit: values[2] as Edit, second: values[3] }
}

impl Rows {
    pub fn seen(&self, key: u64) -> Seen {
        self.rows.get(&key).map(|row| digest(key, row)).into()
    }

    fn items(&self, ranges: &[PositionRange]) -> Vec<(PositionRange, Vec<Item>)> {
        let inside = |key: &u64| ranges.iter().any(|range| range.contains(position(*key)));
        let rows = self.rows.iter().filter(|(key, _)| inside(key));
        let mut items: Vec<Item> = rows.map(|(key, row)| item(*key, row)).collect();
        items.sort_unstable();
        let held = |range: &PositionRange| {
            let own = items.iter().filter(|item| range.contains(item.position));
            (*range, own.copied().collect())
        };
        ranges.iter().map(held).collect()
    }

    fn look(&mut self, ranges: &[PositionRange]) {
        let made_by = self.made_by.iter().map(|(key, edit)| (*key, *edit));
        let inside = |key: u64| ranges.iter().any(|range| range.contains(position(key)));
        self.read.extend(made_by.filter(|(key, _)| inside(*key)));
    }
}

impl State {
    pub fn new(seed: u64) -> Self {
        State {
            local: Local::default(),
            remote: Remote::default(),
            journal: Vec::new(),
            forgiven: BTreeSet::new(),
            decided: Vec::new(),
            recorded: Vec::new(),
            undecided: BTreeSet::new(),
            token: 0,
            clock: 1_700_000_000_000_000,
            ahead: 0,
            columns: 0,
            calls: 0,
            log: Vec::new(),
            rows_read: 0,
            rng: StdRng::seed_from_u64(seed),
            passing: 0,
            kill_at: None,
            hook: None,
            late: None,
            refuses: |_, _| None,
            refuses_records: false,
            quiet: false,
            guard: u64::MAX,
            merging: None,
            bad: BTreeSet::new(),
            found: BTreeMap::new(),
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
        let columns = self.columns;
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

    fn changed(&mut self, side: Side, key: u64, edit: Edit) {
        self.rows(side).made_by.insert(key, edit);
        self.token += 1;
    }

    fn note(&mut self, key: u64, side: Option<Side>, parents: Vec<Edit>, revision: Option<i64>) -> Edit {
        self.journal.push(Journalled { key, side, parents, revision });
        self.journal.len() - 1
    }

    /// The highest revision that the maker of an edit knew of.
    fn highest(&self, edit: Edit) -> i64 {
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
        self.local = backup;
        self.local.rows.read = read;
        // What it remembers of conflicts is of another time: they are decided anew, though one side may know of the other
        // by now.
        self.recorded.clear();
        let open = self.local.entries.values().filter(|entry| entry.open.is_some());
        self.undecided.extend(open.map(|entry| entry.key));
        self.forgive();
    }

    /// The table's columns are altered on both sides: all rows are other ones, though no application changed any. A batch
    /// that was made before is taken no more.
    #[allow(dead_code, reason = "not all who include this ask for it")]
    pub fn alter(&mut self) {
        self.columns += 1;
        for rows in [&mut self.local.rows.rows, &mut self.remote.rows.rows] {
            rows.values_mut().for_each(|row| row.second = self.columns);
        }
        self.late = None;
        self.recorded.clear();
        self.token += 1;
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

    fn key(&self, of: MemoryKey) -> u64 {
        let known = self.journal.iter().find(|edit| memory_key(edit.key) == of);
        known.expect("a key that was there").key
    }

    fn before(&mut self, call: &'static str) -> Outcome<()> {
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

    fn after(&mut self) -> Outcome<()> {
        if self.passing > 0 && self.rng.random_ratio(1, self.passing) {
            return Err(Failure::new(FailureKind::Passing, LOST_AFTER));
        }
        Ok(())
    }

    fn change(&mut self, side: Side, change: &Change) -> Applied {
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
                    let reason = Reason { message: format!("refused by {side:?}"), ..Reason::default() };
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

    fn carry_out(&mut self, number: u64, acts: &[RemoteAct]) -> Vec<Applied> {
        assert!(number > self.remote.last);
        assert_eq!(number >> 24, self.remote.run);
        self.remote.last = number;
        let mut applied = Vec::new();
        for act in acts {
            applied.push(match act {
                RemoteAct::Change(change) => self.change(Side::Remote, change),
                RemoteAct::Record(record) => self.record(record),
            });
        }
        self.remote.outcomes.insert(number, applied.clone());
        applied
    }

    fn record(&mut self, record: &Record) -> Applied {
        if self.refuses_records {
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
    fn agree_on_absence(&mut self, of: MemoryKey) {
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
    fn remember(&mut self, settle: &plimsoll_core::store::Settle) {
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

/// The world of a test.
#[derive(Clone)]
pub struct World(pub Rc<RefCell<State>>);

impl World {
    pub fn new(seed: u64) -> Self {
        World(Rc::new(RefCell::new(State::new(seed))))
    }

    pub fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.borrow_mut())
    }

    pub fn run(&self, table: &Table, settings: &Settings, memory: &mut Memory) -> Report {
        self.with(|state| (state.calls, state.rows_read, state.log) = (0, 0, Vec::new()));
        let (mut local, mut remote, mut clock) = (crate::local_side(self), self.clone(), self.clone());
        run(&mut *local, &mut remote, &mut clock, settings, table, memory)
    }
}

impl Clock for World {
    fn now(&mut self) -> i64 {
        self.with(|state| state.clock)
    }
    fn pause(&mut self, micros: u64) {
        self.with(|state| state.clock += micros as i64);
    }
    fn stopping(&mut self) -> bool {
        false
    }
}

impl LocalSide for World {
    fn change_token(&mut self) -> Outcome<Option<Vec<u8>>> {
        let mut state = self.0.borrow_mut();
        state.before("token")?;
        Ok(Some(state.token.to_le_bytes().to_vec()))
    }
    fn recall(&mut self, _: TableId) -> Outcome<Recollection> {
        let mut state = self.0.borrow_mut();
        state.before("recall")?;
        let local = &state.local;
        let open = || local.entries.values().filter_map(|entry| Some((entry.key, entry.open?)));
        let waits = |kind: OpenKind| matches!(kind, OpenKind::Waiting(_));
        let is_same = local.base.is_none() || local.made_of == state.columns;
        Ok(Recollection {
            base: local.base,
            made: if is_same { Made::AsBefore } else { Made::OfOtherColumns },
            concluded: local.concluded.0,
            entries: local.entries.len() as u64,
            open: open().count() as u64,
            pending: local.pending.clone(),
            closing: local.closing.iter().copied().collect(),
            waiting: open().filter(|(_, open)| waits(open.kind)).map(|(key, _)| key).collect(),
        })
    }
    fn begin_base(&mut self, _: TableId, info: BaseInfo) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.before("begin_base")?;
        let rows = std::mem::take(&mut state.local.rows);
        state.local = Local { rows, base: Some(info), made_of: state.columns, ..Local::default() };
        state.token += 1;
        state.after()
    }
    fn complete_base(&mut self, _: TableId) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.before("complete_base")?;
        state.local.base.as_mut().unwrap().rebuilding = false;
        state.local.made_of = state.columns;
        state.token += 1;
        state.after()
    }
    fn forget_open(&mut self, _: TableId, last: u64) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.before("forget_open")?;
        let local = &mut state.local;
        local.entries.values_mut().for_each(|entry| entry.open = None);
        local.entries.retain(|_, entry| !entry.is_empty());
        local.closing.clear();
        local.base.as_mut().unwrap().last = last;
        state.token += 1;
        state.after()
    }
    fn held(&mut self, _: TableId, ranges: &[PositionRange]) -> Outcome<Vec<LocalHeld>> {
        let mut state = self.0.borrow_mut();
        state.before("held")?;
        let mut good = state.local.rows.clone();
        good.rows.retain(|key, _| !state.bad.contains(key));
        let held = good.items(ranges).into_iter().map(|(range, items)| {
            let bad = state.bad.iter().filter(|key| range.contains(position(**key))).count() as u64;
            let rows = items.iter().map(|item| item.digest).collect();
            let (mut local, mut remote) = (SeenSum::default(), SeenSum::default());
            for entry in state.local.entries.values().filter(|entry| range.contains(entry.key.position)) {
                local.add(entry.seen(Side::Local));
                remote.add(entry.seen(Side::Remote));
            }
            LocalHeld { rows: RangeHeld { rows, bad }, local, remote }
        });
        Ok(held.collect())
    }
    fn states(&mut self, _: TableId, ranges: &[PositionRange]) -> Outcome<LocalStates> {
        let mut state = self.0.borrow_mut();
        state.before("states")?;
        state.local.rows.look(ranges);
        let merging = state.merging.clone();
        let inside = |position: i64| ranges.iter().any(|range| range.contains(position));
        let rows = state.local.rows.rows.iter().filter(|(key, _)| inside(position(**key)));
        let rows: Vec<LocalRow> = rows
            .map(|(key, row)| LocalRow {
                position: Some(position(*key)),
                key: SourceKey::Encoded(key_bytes(*key)),
                content: match state.bad.contains(key) {
                    true => LocalContent::Bad(Box::default()),
                    false => LocalContent::Row {
                        digest: digest(*key, row),
                        revision: row.revision,
                        columns: merging.as_ref().map_or_else(Vec::new, |merging| {
                            merging.columns(&row_bytes(*key, row)).expect("a row")
                        }),
                    },
                },
            })
            .collect();
        state.rows_read += rows.len();
        let entries = state.local.entries.values().filter(|entry| inside(entry.key.position)).cloned();
        Ok(LocalStates { rows, entries: entries.collect() })
    }
    fn lookup(&mut self, _: TableId, keys: &[SourceKey], bytes: usize) -> Outcome<Vec<Option<SourceRecord>>> {
        let mut state = self.0.borrow_mut();
        state.before("lookup")?;
        let found = keys.iter().take((bytes / 10).max(1)).map(|key| {
            let SourceKey::Encoded(bytes) = key else { unreachable!() };
            let key = key_of(bytes);
            Some(SourceRecord::Row(source_row(key, state.local.rows.rows.get(&key)?)))
        });
        Ok(found.collect())
    }
    fn prepare(&mut self, _: TableId, pending: &Pending) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.before("prepare")?;
        state.local.pending = Some(pending.clone());
        state.token += 1;
        state.after()
    }
    fn conclude(&mut self, _: TableId, conclusion: &Conclusion) -> Outcome<Vec<Applied>> {
        let mut state = self.0.borrow_mut();
        state.before("conclude")?;
        if state.local.concluded.0 == conclusion.serial {
            return Ok(state.local.concluded.1.clone());
        }
        assert_eq!(state.local.concluded.0 + 1, conclusion.serial);
        if state.local.pending.as_ref().map(|pending| pending.number) == conclusion.number {
            state.local.pending = None;
        }
        if let Some(number) = conclusion.number.filter(|_| conclusion.applied) {
            state.local.base.as_mut().unwrap().last = number;
        }
        for settle in &conclusion.settled {
            state.remember(settle);
        }
        let mut applied = Vec::new();
        for (change, settle) in &conclusion.changes {
            applied.push(state.change(Side::Local, change));
            if applied.last() == Some(&Applied::Done) {
                state.remember(settle);
            }
        }
        state.token += 1;
        state.local.concluded = (conclusion.serial, applied.clone());
        state.after()?;
        Ok(applied)
    }
    fn closed(&mut self, _: TableId, keys: &[MemoryKey]) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.before("closed")?;
        keys.iter().for_each(|key| {
            state.local.closing.remove(key);
        });
        state.after()
    }
}

impl World {
    fn remote_items(
        &mut self,
        call: &'static str,
        ranges: &[PositionRange],
    ) -> Outcome<Vec<(PositionRange, Vec<Item>)>> {
        let mut state = self.0.borrow_mut();
        state.before(call)?;
        state.remote.rows.look(ranges);
        Ok(state.remote.rows.items(ranges))
    }
}

fn summary(range: PositionRange, items: &[Item]) -> RangeSummary {
    let inside = items.iter().filter(|item| range.contains(item.position));
    RangeSummary::new(range, &inside.map(|item| item.digest).collect())
}

impl Summaries for World {
    fn range_manifest(
        &mut self,
        _: TableId,
        ranges: &[PositionRange],
        most: u32,
    ) -> Outcome<Vec<RangeSummary>> {
        let mut parts = Vec::new();
        for (range, items) in self.remote_items("range_manifest", ranges)? {
            let mut points: Vec<(Dyadic, Fingerprint)> = Vec::new();
            for item in &items {
                match points.last_mut().filter(|(point, _)| point.contains(item.position)) {
                    Some((_, held)) => held.insert(&item.digest),
                    None => points.push((Dyadic::point(item.position), [item.digest].into_iter().collect())),
                }
            }
            let chosen = choose(&points, range, most as usize);
            parts.extend(chosen.into_iter().map(|part| summary(part, &items)));
        }
        Ok(parts)
    }
    fn summaries(&mut self, _: TableId, ranges: &[PositionRange]) -> Outcome<Vec<RangeSummary>> {
        let held = self.remote_items("summaries", ranges)?;
        Ok(held.iter().map(|(range, items)| summary(*range, items)).collect())
    }
    fn sketch(&mut self, _: TableId, ranges: &[PositionRange], first: u32, symbols: u32) -> Outcome<Vec<u8>> {
        let mut sketch = Sketch::new(ranges, first, symbols).expect("a sketch");
        let held = self.remote_items("sketch", ranges)?;
        held.iter().flat_map(|(_, items)| items).for_each(|item| sketch.add(&item.into()));
        Ok(sketch.pack())
    }
    fn items(&mut self, _: TableId, ranges: &[PositionRange]) -> Outcome<Vec<ShortItem>> {
        let held = self.remote_items("items", ranges)?;
        Ok(held.iter().flat_map(|(_, items)| items).map(ShortItem::from).collect())
    }
}

impl RemoteSide for World {
    fn remembered(&mut self, _: TableId, dry_run: bool) -> Outcome<RemoteMemory> {
        let mut state = self.0.borrow_mut();
        state.before("remembered")?;
        state.remote.run += u64::from(!dry_run);
        let remote = &state.remote;
        let whole: Fingerprint = remote.rows.rows.iter().map(|(key, row)| item(*key, row).digest).collect();
        let version = TableVersion {
            row_count: Some(whole.row_count()),
            sum: Some(whole.sum()),
            ..TableVersion::default()
        };
        Ok(RemoteMemory {
            version,
            begun: remote.begun,
            run: remote.run,
            last: remote.last,
            clock: Some(state.clock - state.ahead),
            choices: remote.choices.clone(),
        })
    }
    fn base_begun(&mut self, _: TableId) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.before("base_begun")?;
        state.remote.begun = true;
        state.remote.records.clear();
        state.remote.choices.clear();
        state.after()
    }
    fn settle(&mut self, _: TableId, number: u64) -> Outcome<Settled> {
        let mut state = self.0.borrow_mut();
        state.before("settle")?;
        let settled = match state.remote.outcomes.get(&number) {
            Some(applied) => Settled::Applied(applied.iter().map(|one| *one == Applied::Done).collect()),
            None => Settled::Never,
        };
        Ok(settled)
    }
    fn fetch(&mut self, _: TableId, wanted: &[Wanted], bytes: usize) -> Outcome<Fetched> {
        let mut state = self.0.borrow_mut();
        state.before("fetch")?;
        let mut looked_for = wanted.len().min((bytes / 10).max(1));
        while wanted
            .get(looked_for)
            .is_some_and(|next| next.item.position == wanted[looked_for - 1].item.position)
        {
            looked_for += 1;
        }
        let rows = wanted[..looked_for].iter().filter_map(|wanted| {
            let mut rows = state.remote.rows.rows.iter();
            let (key, row) = rows.find(|(key, row)| ShortItem::from(&item(**key, row)) == wanted.item)?;
            let content = source_row(*key, row);
            Some(RemoteRow {
                item: content.item,
                key: content.key,
                revision: row.revision,
                row: wanted.content.then_some(content.row),
            })
        });
        Ok(Fetched { rows: rows.collect(), looked_for })
    }
    fn apply(&mut self, _: TableId, number: u64, acts: &[RemoteAct], _: u64) -> Outcome<Vec<Applied>> {
        let mut state = self.0.borrow_mut();
        state.before("apply")?;
        if let Some(applied) = state.remote.outcomes.get(&number) {
            return Ok(applied.clone());
        }
        if number >> 24 != state.remote.run {
            return Err(Failure::new(FailureKind::Table, "a batch that was given up"));
        }
        if state.passing > 0 && state.rng.random_bool(0.1) {
            state.late = Some((number, acts.to_vec()));
            return Err(Failure::new(FailureKind::Run, "the connection is lost, the batch under way"));
        }
        let applied = state.carry_out(number, acts);
        state.after()?;
        Ok(applied)
    }
    fn close(&mut self, _: TableId, keys: &[MemoryKey]) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.before("close")?;
        for key in keys {
            state.remote.records.remove(key);
            state.remote.choices.retain(|choice| choice.key != *key);
        }
        state.after()
    }
}
