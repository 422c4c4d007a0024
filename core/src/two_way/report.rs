//! What a run did with a table, per side, and what the agent keeps in mind of it.

use serde::{Deserialize, Serialize};

use crate::store::{Failure, Made};
use crate::sync::Status;

/// What a run did with one two-way table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Whether both sides are level: *counts agree* where all that was found was mended, and not compared since.
    pub status: Status,
    /// Rows of the local side stored on the remote one.
    pub sent: u64,
    /// Rows of the remote side stored on the local one.
    pub received: u64,
    /// Rows deleted on the local side.
    pub deleted_here: u64,
    /// Rows deleted on the remote side.
    pub deleted_there: u64,
    /// Rows that became one out of changes of both sides.
    pub merged: u64,
    /// Keys that both sides had changed, each without knowledge of the other, and what was decided of them.
    pub conflicts: u64,
    /// Those of them that were recorded for a person.
    pub recorded: u64,
    /// Keys that one side alone has, of which nothing is remembered: left as they are.
    pub undecided: u64,
    /// Rows that a side cannot take or that cannot be encoded, found by this run.
    pub rejected: u64,
    /// Rows that a side cannot take yet, found by this run.
    pub waiting: u64,
    /// Rows that waited from earlier runs, and were tried again.
    pub tried_again: u64,
    /// Conflicts in which a stamp of the future took part: a clock is wrong.
    pub future_stamps: u64,
    /// Changes of the local side that its guard against destruction held back.
    pub held_here: u64,
    /// Changes of the remote side that its guard held back.
    pub held_there: u64,
    /// Keys that changed while they were being decided upon: the next run decides.
    pub moved: u64,
    /// Keys that are left as they are on both sides, of this run and earlier ones.
    pub open: u64,
    /// Whether memory was lost: nothing is deleted that cannot be told from new rows.
    pub memory_lost: bool,
    /// Whether what is remembered was of rows as they are made now.
    pub made: Made,
    /// Whether the local side is older than what the remote one remembers of it: it was restored from a backup. What was
    /// left open is decided anew.
    pub local_restored: bool,
    /// Rows of the local side that were compared, by their sums or one by one.
    pub compared: u64,
    /// Whether the run came to an end with the table.
    pub concluded: bool,
    /// Why it stopped.
    pub failure: Option<Failure>,
}

impl Report {
    /// Whether a row was stored or deleted on either side.
    pub fn has_moved(&self) -> bool {
        self.sent + self.received + self.deleted_here + self.deleted_there + self.merged > 0
    }

    /// Rows that the run changed on either side.
    pub fn changed(&self) -> u64 {
        self.sent + self.received + self.deleted_here + self.deleted_there
    }
}

/// What the agent keeps in mind of a table. Without it all is compared again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// What the local side said of itself before it was found level.
    pub token: Option<Vec<u8>>,
    /// The row count and the digest sum of the remote side then.
    pub remote: Option<(u64, [u8; 32])>,
    /// How many keys were open.
    pub open: u64,
}
