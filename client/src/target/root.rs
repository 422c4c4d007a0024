//! What a table is known to hold. A database that tells by a token that nothing was committed since it was read need not
//! be read again: its rows are what they were.

use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::store::{Outcome, PositionRange, TableId, TableVersion, Target};
use serde::{Deserialize, Serialize};

use super::LocalTarget;
use super::summaries::held;
use crate::agent::now;
use crate::failure::table as refused;

/// A table is read for nothing but to know what it holds no sooner than so many times as long after the last time as
/// that took.
const REST: i64 = 20;
/// Unless it took less, in microseconds.
const SHORT: i64 = 2_000_000;

/// What all rows of a table were at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The database's change token, where it has one, and had the same after they were read.
    token: Option<Vec<u8>>,
    /// Under which plan the table was read.
    plan: i64,
    rows: u64,
    sum: [u8; 32],
    top: Option<i64>,
    /// When that was, and how long it took, in microseconds.
    read_at: i64,
    took: i64,
}

impl Root {
    /// What the table says of itself while it is so.
    pub fn version(&self) -> TableVersion {
        TableVersion {
            row_count: Some(self.rows),
            max_position: self.top,
            max_modified: None,
            sum: Some(self.sum),
        }
    }
}

impl LocalTarget<'_> {
    /// What a table holds, where it is known to be what was remembered.
    pub(super) fn root_now(&mut self, table: TableId) -> Outcome<Option<Root>> {
        // Within a transaction the table may hold what no token tells of.
        if self.held {
            return Ok(None);
        }
        let plan = self.table(table)?.schema.stamp();
        let Some(root) = self.table(table)?.root.clone().filter(|root| root.plan == plan) else {
            return Ok(None);
        };
        if root.token.is_none() {
            return Ok(None);
        }
        Ok((self.store.change_token()? == root.token).then_some(root))
    }

    /// What all rows are, from reading all of them; it stays known while nothing is committed.
    pub(super) fn all(&mut self, table: TableId) -> Outcome<Fingerprint> {
        if self.held {
            let found = self.store.fingerprints(table, &[PositionRange::ALL])?;
            let found = found.first().ok_or_else(|| refused("what a table holds is missing"))?;
            return Ok(held(found));
        }
        let began = now();
        let before = self.store.change_token()?;
        self.tell_of_pass(table);
        let found = self.store.fingerprints(table, &[PositionRange::ALL])?;
        let found = found.first().copied().ok_or_else(|| refused("what a table holds is missing"))?;
        let known = self.table(table)?;
        let top = if known.shape.hashed { None } else { self.store.max_position(table)? };
        let plan = self.table(table)?.schema.stamp();
        let after = self.store.change_token()?;
        let found = held(&found);
        let root = Root {
            token: before.filter(|before| after.as_ref() == Some(before)),
            plan,
            rows: found.row_count(),
            sum: found.sum(),
            top,
            read_at: now(),
            took: now().saturating_sub(began),
        };
        self.table_mut(table)?.root = Some(root);
        Ok(found)
    }

    /// What a table says of itself when a run begins. Where it is not known what it holds, it is read to know it: whoever
    /// changed it did not tell. A long one is only counted where it was read a short while ago, or where the other side
    /// would not tell the same of itself (`is_kept`).
    ///
    /// # Errors
    /// What the database says.
    pub fn begin(&mut self, table: TableId, is_kept: bool) -> Outcome<TableVersion> {
        let is_scanned = self.table(table)?.shape.hashed && self.store.is_scanned(table)?;
        self.table_mut(table)?.is_scanned = is_scanned;
        let rests = self.table(table)?.root.as_ref().is_some_and(|root| {
            root.took > SHORT && now().saturating_sub(root.read_at) < root.took.saturating_mul(REST)
        });
        if !is_kept || rests || self.root_now(table)?.is_some() {
            return self.table_version(table);
        }
        self.all(table)?;
        let root = self.table(table)?.root.as_ref();
        let version = root.map(Root::version).ok_or_else(|| refused("what a table holds is missing"))?;
        self.table_mut(table)?.began(&version);
        Ok(version)
    }
}
