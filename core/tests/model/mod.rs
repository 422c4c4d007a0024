//! A model of both sides and of what surrounds a run: rows in maps, a clock that each call moves, a log of
//! calls, and faults on demand. Shares no decision with the code under test.
#![allow(dead_code, unused_imports)]

#[path = "../held/mod.rs"]
mod held;
mod source;
mod state;
mod target;

use std::cell::RefCell;
use std::rc::Rc;

use plimsoll_core::store::{Outcome, Source, TableId, Target};
use plimsoll_core::sync::{
    Difference, Event, RunReport, Settings, TableInput, TableMemory, VerifyReport, World, run, snapshot,
    verify,
};
pub use source::ModelSource;
pub use state::{Call, Hook, Kind, LocalRow, OTHER_SPELLING, RemoteRow, State, Table, UNSEEN, key_bytes};
pub use target::{ModelTarget, storable};

pub struct ModelWorld(pub Rc<RefCell<State>>);

impl World for ModelWorld {
    fn now(&mut self) -> i64 {
        self.0.borrow().clock
    }
    fn pause(&mut self, micros: u64) {
        let mut state = self.0.borrow_mut();
        state.clock += micros as i64;
        state.paused += micros;
        // What was looked up before a pause says nothing of what is there after it.
        state.absent.clear();
    }
    fn stopping(&mut self) -> bool {
        let state = self.0.borrow();
        state.stop_after.is_some_and(|calls| state.calls >= calls)
    }
    fn remember(&mut self, table: TableId, memory: &TableMemory) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.before("remember", table, &[], 100)?;
        state.memories[table] = memory.clone();
        state.after("remember")
    }
    fn event(&mut self, table: TableId, event: Event) {
        self.0.borrow_mut().events.push((table, event));
    }
}

/// [`run`], or another way to make tables level.
type Algorithm = fn(
    &mut dyn Source,
    &mut dyn Target,
    &mut dyn World,
    &Settings,
    &[TableInput],
    &mut [TableMemory],
) -> RunReport;

/// Both sides of a test, and the agent's durable memory.
pub struct Model {
    pub state: Rc<RefCell<State>>,
    pub settings: Settings,
}

impl Model {
    pub fn new(tables: usize, seed: u64) -> Self {
        let settings = Settings { window_rows: 1_000, ..Settings::default() };
        Model { state: Rc::new(RefCell::new(State::new(tables, seed))), settings }
    }

    pub fn inputs(&self) -> Vec<TableInput> {
        let state = self.state.borrow();
        let input = |(id, table): (usize, &Table)| TableInput {
            name: format!("shop.t{id}"),
            version: table.remote_version(),
            on_hold: table.hold,
            rejected: table.rejected.len() as u64,
            rank: table.rank,
            shape: table.shape,
            plan: table.plan,
        };
        state.tables.iter().enumerate().map(input).collect()
    }

    /// One run from what the agent durably remembers.
    pub fn run(&self) -> RunReport {
        self.made(run)
    }

    /// One snapshot.
    pub fn snapshot(&self) -> RunReport {
        let report = self.made(snapshot);
        self.with(|state| {
            assert!(state.live.is_none() && state.committed.is_none(), "something is still held")
        });
        report
    }

    fn made(&self, run: Algorithm) -> RunReport {
        let inputs = self.inputs();
        let mut memories = self.state.borrow().memories.clone();
        {
            let mut state = self.state.borrow_mut();
            state.log.clear();
            state.events.clear();
            state.calls = 0;
            state.rows_read = 0;
            state.clock += 1_000;
            for table in &mut state.tables {
                (table.unanswered, table.stream) = (None, None);
            }
        }
        let report = run(
            &mut ModelSource(self.state.clone()),
            &mut ModelTarget(self.state.clone()),
            &mut ModelWorld(self.state.clone()),
            &self.settings,
            &inputs,
            &mut memories,
        );
        let mut state = self.state.borrow_mut();
        // What the run hands back is what was saved, never more; unless the answer to the save was lost.
        let failed = report.failure.is_some() || report.tables.iter().any(|table| table.failure.is_some());
        assert!(failed || memories == state.memories);
        state.clock += 60_000_000;
        drop(state);
        report
    }

    pub fn verify(&self, table: TableId) -> (VerifyReport, Vec<Difference>) {
        self.with(|state| (state.rows_read, state.paused) = (0, 0));
        let mut differences = Vec::new();
        let report = verify(
            &mut ModelSource(self.state.clone()),
            &mut ModelTarget(self.state.clone()),
            &mut ModelWorld(self.state.clone()),
            &self.settings,
            (table, self.with(|state| state.tables[table].shape)),
            &mut |difference| differences.push(difference),
        )
        .expect("verify");
        (report, differences)
    }

    /// Changes either side from a test.
    pub fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.borrow_mut())
    }

    pub fn insert(&self, table: TableId, key: u64, version: i64) {
        self.with(|state| {
            state.touch();
            state.tables[table].local.insert(key, LocalRow::new(version, key as u32));
        });
    }

    /// Rows `keys`, each with its key as version.
    pub fn fill(&self, table: TableId, keys: std::ops::Range<u64>) {
        for key in keys {
            self.insert(table, key, key as i64);
        }
    }

    pub fn change(&self, table: TableId, key: u64, change: impl FnOnce(&mut LocalRow)) {
        self.with(|state| {
            state.touch();
            change(state.tables[table].local.get_mut(&key).expect("the row"));
        });
    }

    pub fn delete_local(&self, table: TableId, key: u64) {
        self.with(|state| {
            state.touch();
            state.tables[table].local.remove(&key).expect("the row");
        });
    }

    pub fn damage(&self, table: TableId, key: u64, change: impl FnOnce(&mut RemoteRow)) {
        self.with(|state| change(state.tables[table].remote.get_mut(&key).expect("the row")));
    }

    pub fn is_equal(&self, table: TableId) -> bool {
        self.with(|state| state.tables[table].is_equal())
    }

    /// Source rows that the windows of the last run, or the last verify, read.
    pub fn rows_read(&self) -> usize {
        self.with(|state| state.rows_read)
    }

    /// How often an operation was called in the last run.
    pub fn called(&self, operation: &str) -> usize {
        self.with(|state| state.log.iter().filter(|call| call.operation == operation).count())
    }
}
