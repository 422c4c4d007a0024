//! Pull: the server is right, the local database is made level with the replica.

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
    Err(refused("direction = \"pull\" is not built into this client yet"))
}
