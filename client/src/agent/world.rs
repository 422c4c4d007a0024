//! What surrounds a run: the clock, the state file, signals, the progress display.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use plimsoll_core::store::{Outcome, TableId};
use plimsoll_core::sync::{Event, TableMemory, World};

use crate::fault::{clock_ahead, fault_point};
use crate::progress::Progress;
use crate::state::State;
use crate::stop::Stop;

/// The world of one run.
pub struct RunWorld<'w> {
    /// The agent's memory.
    pub state: &'w mut State,
    /// The managed tables, by their place in the run's list.
    pub relations: &'w [String],
    /// The wish to stop.
    pub stop: &'w Stop,
    /// Who watches.
    pub progress: &'w mut Progress,
    /// Nothing is remembered of a run that only looked.
    pub dry_run: bool,
}

/// The time, in microseconds since the Unix epoch.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX).saturating_add(clock_ahead())
}

impl World for RunWorld<'_> {
    fn now(&mut self) -> i64 {
        now()
    }

    fn pause(&mut self, micros: u64) {
        self.stop.pause(Duration::from_micros(micros));
    }

    fn stopping(&mut self) -> bool {
        self.stop.asked()
    }

    fn remember(&mut self, table: TableId, memory: &TableMemory) -> Outcome<()> {
        match self.relations.get(table) {
            Some(relation) if !self.dry_run => {
                fault_point("before-memory");
                self.state.remember(relation, memory).map(|()| fault_point("after-memory"))
            }
            _ => Ok(()),
        }
    }

    fn event(&mut self, table: TableId, event: Event) {
        self.progress.event(table, &event);
    }
}

/// The world of a comparison: nothing is remembered.
pub struct VerifyWorld<'w> {
    /// The wish to stop.
    pub stop: &'w Stop,
    /// Who watches.
    pub progress: &'w mut Progress,
}

impl World for VerifyWorld<'_> {
    fn now(&mut self) -> i64 {
        now()
    }

    fn pause(&mut self, micros: u64) {
        self.stop.pause(Duration::from_micros(micros));
    }

    fn stopping(&mut self) -> bool {
        self.stop.asked()
    }

    fn remember(&mut self, _: TableId, _: &TableMemory) -> Outcome<()> {
        Ok(())
    }

    fn event(&mut self, table: TableId, event: Event) {
        self.progress.event(table, &event);
    }
}
