//! Both sides of a two-way table, the memory inside the local one, faults, and a journal of who changed what knowing what.

#[path = "../../held/mod.rs"]
mod held;
mod local;
mod remote;
mod state;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::manifest::Item;
use plimsoll_core::row::{Fields, RowWriter};
use plimsoll_core::schema::hash_position;
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{MemoryKey, PositionRange, Seen, ShortDigest, SourceKey, SourceRow};
use plimsoll_core::two_way::{Clock, Memory, Report, Settings, Table, run};
use plimsoll_core::value::Value;

pub use state::{Local, Remote, State};

use held::Held;

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

#[derive(Debug, Clone, Default)]
pub struct Rows {
    pub rows: BTreeMap<u64, Row>,
    /// Of each key the edit that made it what it is, deletes too.
    pub made_by: BTreeMap<u64, Edit>,
    /// The same when it was last read.
    pub read: BTreeMap<u64, Edit>,
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

    fn items(&self, ranges: &[PositionRange]) -> Held {
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
