//! Local databases: each kind implements the core's `Source`.

pub mod ahead;
pub mod sqlite;
