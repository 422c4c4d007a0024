//! What the demo is played with: the small shop, or a copy of a database of the user's own.

use std::path::Path;

use anyhow::Result;
use plimsoll_cluster::postgres::Client;

/// A local table and the managed table that it is replicated into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    /// The table's name in SQLite.
    pub(super) local: String,
    /// The managed table, quoted where it must be.
    pub(super) remote: String,
    /// Its version column, in SQLite.
    pub(super) version: Option<String>,
}

/// A local database and what happens to it and to its replicas. Each event answers a line that says what was
/// done.
pub(super) trait Material {
    /// What the database is, for the opening line.
    fn title(&self) -> String;

    /// The SQLite file that the client reads.
    fn path(&self) -> &Path;

    /// Adds a rule to the empty managed tables that one row will break later.
    fn add_rule(&mut self, server: &mut Client, tables: &[Pair]) -> Result<String>;

    /// Rows are inserted, updated and deleted locally.
    fn change(&mut self) -> Result<String>;

    /// Rows are deleted and altered on the server, past Plimsoll.
    fn damage(&mut self, server: &mut Client) -> Result<String>;

    /// A row that breaks the rule comes in, among good ones.
    fn add_refused(&mut self) -> Result<String>;
}
