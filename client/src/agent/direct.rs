//! From the tables of a run to the directions: each group is dealt with by its own, one after the other.

use std::time::Instant;

use plimsoll_core::store::{Failure, FailureKind, Outcome};
use plimsoll_core::sync::{Settings, TableReport};
use serde::Serialize;

use super::prepare::{Group, PreparedTable, open_source};
use super::{RunOptions, TableResult, pull, push, snapshot, two_way};
use crate::config::{Config, Direction};
use crate::progress::Progress;
use crate::server::{Lease, Server};
use crate::source::local::LocalDatabase;
use crate::state::State;
use crate::stop::Stop;

/// A run under way: what its directions share.
pub struct Running<'r> {
    /// The configuration.
    pub config: &'r Config,
    /// The remote side.
    pub server: &'r mut Server,
    /// The agent's memory.
    pub state: &'r mut State,
    /// What was asked of the run.
    pub options: &'r RunOptions,
    /// The wish to stop.
    pub stop: &'r Stop,
    /// Who watches.
    pub progress: &'r mut Progress,
    /// The run's number on the server.
    pub run_id: i64,
    /// Its lease, by which writing of the local side is fenced.
    pub lease: Lease,
    /// The core's settings; the budget is the share of the direction under way.
    pub settings: Settings,
    /// The local database as the tables were prepared with it.
    pub(super) local: Option<Box<dyn LocalDatabase>>,
}

impl Running<'_> {
    /// The local database, opened for reading.
    ///
    /// # Errors
    /// As [`open_source`].
    pub fn source(&mut self) -> Outcome<Box<dyn LocalDatabase>> {
        self.local.take().map_or_else(|| open_source(self.config), Ok)
    }
}

/// Rows of a table by the side that they went to: what a run did, or would have done where it only looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Moved {
    /// Rows of the local side stored on the remote one.
    pub sent: u64,
    /// Rows of the remote side stored on the local one.
    pub received: u64,
    /// Rows deleted on the local side.
    pub deleted_here: u64,
    /// Rows deleted on the remote side.
    pub deleted_there: u64,
    /// Rows that both sides had changed, each without knowledge of the other.
    pub conflicts: u64,
    /// Rows that became one out of changes of both sides.
    pub merged: u64,
    /// Rows that one side alone has, and of which it is not known whether the other deleted them: left as they are.
    pub undecided: u64,
    /// Changes of the local side that its guard against destruction held back.
    pub held_here: u64,
    /// Changes of the remote side that its guard held back.
    pub held_there: u64,
    /// Conflicts in which a stamp of the future took part.
    pub future_stamps: u64,
    /// By how much the local clock is ahead of the server's, in microseconds, where it was measured.
    pub skew: Option<i64>,
}

/// What became of the tables of one direction, or of all.
#[derive(Debug, Default)]
pub struct GroupResult {
    /// Each table.
    pub tables: Vec<TableResult>,
    /// Why the run as a whole stopped, where it did.
    pub failure: Option<Failure>,
    /// Whether it ended early because it was asked to.
    pub stopped: bool,
}

impl PreparedTable {
    /// What became of this table.
    pub fn result(&self, report: TableReport, moved: Moved) -> TableResult {
        let (table, relation) = (self.config.name.clone(), Some(self.input.name.clone()));
        TableResult { table, relation, direction: self.config.direction(), report, moved }
    }

    /// That it failed.
    pub fn failed(&self, failure: Failure) -> TableResult {
        self.result(TableReport { failure: Some(failure), ..TableReport::default() }, Moved::default())
    }

    /// That its turn did not come.
    pub fn untouched(&self) -> TableResult {
        self.result(TableReport::default(), Moved::default())
    }
}

/// Deals with all groups. What the time of one leaves over falls to those after it.
pub(super) fn run(mut running: Running<'_>, groups: Vec<Group>) -> GroupResult {
    let started = Instant::now();
    let budget = running.settings.run_budget;
    let mut tables_left: usize = groups.iter().map(|group| group.tables.len()).sum();
    let mut done = GroupResult::default();
    for group in groups {
        if done.failure.is_some() || done.stopped || running.stop.asked() {
            done.stopped |= done.failure.is_none();
            done.tables.extend(group.tables.iter().map(PreparedTable::untouched));
            continue;
        }
        let spent = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let left = budget.saturating_sub(spent);
        let count = group.tables.len();
        // Alone or last, a direction has all that is left.
        running.settings.run_budget =
            if count == tables_left { left } else { left / tables_left.max(1) as u64 * count as u64 };
        tables_left -= count;
        let deal = match group.direction {
            Direction::Pull => pull::run,
            Direction::SnapshotPush | Direction::SnapshotPull => snapshot::run,
            Direction::TwoWay => two_way::run,
            Direction::Push => push::run,
        };
        match deal(&mut running, &group.tables, group.plans) {
            Ok(result) => {
                done.tables.extend(result.tables);
                done.failure = result.failure;
                done.stopped = result.stopped;
            }
            // What passes was tried again by then.
            Err(failure) if failure.kind != FailureKind::Run => {
                done.tables.extend(group.tables.iter().map(|table| table.failed(failure.clone())));
            }
            Err(failure) => {
                done.tables.extend(group.tables.iter().map(PreparedTable::untouched));
                done.failure = Some(failure);
            }
        }
    }
    done
}
