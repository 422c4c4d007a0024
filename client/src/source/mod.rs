//! Local databases: each kind implements the core's `Source`.

pub mod sqlite;
