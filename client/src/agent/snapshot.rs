//! Snapshot: one side is overwritten as a whole.

use plimsoll_core::store::Outcome;

use super::prepare::PreparedTable;
use super::{GroupResult, Running};
use crate::failure::table as refused;
use crate::source::plan::TablePlan;

/// Makes the tables level.
///
/// # Errors
/// Where none of the tables could begin.
pub fn run(_: &mut Running<'_>, _: &[PreparedTable], _: Vec<TablePlan>) -> Outcome<GroupResult> {
    Err(refused("direction = \"snapshot\" is not built into this client yet"))
}
