//! Snapshot: one side is overwritten as a whole. Its readers see the old rows or the new ones, never a part.

use plimsoll_core::store::Outcome;
use plimsoll_core::sync;

use super::prepare::PreparedTable;
use super::{GroupResult, Running, pull, push};
use crate::config::Direction;
use crate::source::plan::TablePlan;

/// Rows to delete that are kept in mind at once: 24 bytes each. Where there are more, the table is gone through again.
const EXCESS_ROWS: usize = 1_000_000;

/// Makes the tables level.
///
/// # Errors
/// Where none of the tables could begin.
pub fn run(
    running: &mut Running<'_>,
    tables: &[PreparedTable],
    plans: Vec<TablePlan>,
) -> Outcome<GroupResult> {
    let most = running.settings.max_excess_rows;
    running.settings.max_excess_rows = most.max(EXCESS_ROWS);
    let algorithm = if running.options.dry_run { sync::run } else { sync::snapshot };
    let result = match tables.first().map(|table| table.config.direction()) {
        Some(Direction::SnapshotPull) => pull::run_by(algorithm, running, tables, plans),
        _ => push::run_by(algorithm, running, tables, plans),
    };
    running.settings.max_excess_rows = most;
    result
}
