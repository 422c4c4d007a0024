//! What a run tells of itself: status, proof and counts per table.

use std::fmt;

use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

use crate::store::Failure;

/// Whether a replica is level with its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// All content was compared equal, and nothing changed since on either side that is known.
    Level,
    /// Row counts and highest versions are equal; the content was not compared since the last change.
    CountsAgree,
    /// As the above, but for this many rows that are rejected or waiting. Never plain level.
    LevelExcept(u64),
    /// A difference is known and not yet repaired, or the replica is on hold.
    Different,
    /// Never compared, or the last attempt failed.
    #[default]
    Unknown,
}

impl Status {
    /// The word used on the server and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Status::Level => "level",
            Status::CountsAgree => "counts_agree",
            Status::LevelExcept(_) => "level_except",
            Status::Different => "different",
            Status::Unknown => "unknown",
        }
    }

    /// Whether both sides hold the same as far as is known, but for rows that cannot be stored.
    pub fn is_level(self) -> bool {
        matches!(self, Status::Level | Status::CountsAgree | Status::LevelExcept(_))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Level => f.write_str("level"),
            Status::CountsAgree => f.write_str("counts agree"),
            Status::LevelExcept(rows) => write!(f, "level except {rows}"),
            Status::Different => f.write_str("different"),
            Status::Unknown => f.write_str("unknown"),
        }
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What a run did with one table.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct TableReport {
    /// Whether the replica is level.
    pub status: Status,
    /// When the last full comparison that found everything equal began, in microseconds since the Unix
    /// epoch.
    pub proved_at: Option<i64>,
    /// Rows that were new on the target.
    pub inserted: u64,
    /// Rows that were changed on the target.
    pub updated: u64,
    /// Rows that were there as sent.
    pub unchanged: u64,
    /// Rows deleted on the target.
    pub deleted: u64,
    /// Rows now remembered as rejected.
    pub rejected: u64,
    /// Rows now remembered as waiting for others.
    pub waiting: u64,
    /// Rows that the guard against destruction left as they are.
    pub held: u64,
    /// Rows not deleted, because other rows still refer to them.
    pub blocked: u64,
    /// Older versions of rejected rows that stay on the target.
    pub stale: u64,
    /// Windows compared.
    pub windows: u64,
    /// Source rows compared by content.
    pub compared_rows: u64,
    /// Source rows that the target lacked or had otherwise, found by comparing.
    pub found_missing: u64,
    /// Target rows that the source does not have as they are, found by comparing.
    pub found_excess: u64,
    /// Rows of the source, where they were counted.
    pub local_rows: Option<u64>,
    /// Rows of the replica, where it is known.
    pub remote_rows: Option<u64>,
    /// Whether the run came to an end with the table. Where not, the status is unknown, and `failure` says
    /// why, unless the run was stopped or failed as a whole.
    pub concluded: bool,
    /// Why the table stopped.
    #[serde(serialize_with = "failure")]
    pub failure: Option<Failure>,
    /// Rows that a run would send; dry runs only.
    pub would_send: u64,
    /// Rows that a run would delete; dry runs only.
    pub would_delete: u64,
}

impl TableReport {
    /// Whether the run changed the replica.
    pub fn changed_target(&self) -> bool {
        self.inserted + self.updated + self.deleted > 0
    }
}

fn failure<S: Serializer>(failure: &Option<Failure>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(failure) = failure else { return serializer.serialize_none() };
    let mut fields = serializer.serialize_struct("Failure", 3)?;
    fields.serialize_field("message", &failure.message)?;
    fields.serialize_field("sqlstate", &failure.sqlstate)?;
    fields.serialize_field("hint", &failure.hint)?;
    fields.end()
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct RunReport {
    /// One report per table, in the order of the run's list.
    pub tables: Vec<TableReport>,
    /// Why the whole run stopped.
    #[serde(serialize_with = "failure")]
    pub failure: Option<Failure>,
    /// Whether it ended early because it was asked to.
    pub stopped: bool,
}

/// What a run tells while it goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The run turned to a table. `expected_rows`: about how many rows it will send, where that is known.
    Started {
        /// About how many rows will be sent.
        expected_rows: Option<u64>,
    },
    /// A batch was stored.
    Uploaded {
        /// Rows of the batch.
        rows: u64,
        /// Encoded bytes of the batch.
        bytes: u64,
        /// Rows sent of this table in this run.
        total_rows: u64,
    },
    /// Rows were deleted on the target.
    Deleted {
        /// Rows deleted.
        rows: u64,
    },
    /// A window was compared.
    Compared {
        /// Rows of the source in it.
        rows: u64,
        /// Rows the target lacked or had otherwise.
        missing: u64,
        /// Rows only the target had as they are.
        excess: u64,
    },
    /// A row was not stored.
    Rejected {
        /// Its key as a person reads it.
        key_text: String,
        /// Why.
        message: String,
        /// Whether it waits for other rows.
        waits: bool,
    },
    /// A step failed and is tried again.
    Retrying {
        /// Why it failed.
        failure: Failure,
        /// How long the run pauses first, in microseconds.
        pause: u64,
    },
    /// The run is done with the table.
    Finished {
        /// Its status.
        status: Status,
    },
}

/// How two sides differ in one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// The source has it, the target does not.
    Missing,
    /// The target has it, the source does not.
    Excess,
    /// Both have it, with different content.
    Altered,
    /// The source has it, the target refused it.
    Rejected,
}

/// A row in which two sides differ, read twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// How they differ.
    pub kind: DifferenceKind,
    /// Its position: the source's, or the target's where only the target has the row. `None` where its
    /// version is no version.
    pub position: Option<i64>,
    /// The encoded key; empty where it cannot be encoded.
    pub key: Vec<u8>,
    /// The key as a person reads it, where the source gave it so.
    pub key_text: Option<String>,
    /// Why the row cannot be stored, where the source says so.
    pub reason: Option<String>,
}

/// The result of a full comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct VerifyReport {
    /// Whether everything was equal.
    pub level: bool,
    /// Source rows compared.
    pub rows: u64,
    /// Rows the target lacks.
    pub missing: u64,
    /// Rows only the target has.
    pub excess: u64,
    /// Rows with different content.
    pub altered: u64,
    /// Rows the target refused.
    pub rejected: u64,
}
