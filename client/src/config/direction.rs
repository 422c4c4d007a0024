//! Which side of a table is right: the direction, and the settings that belong to each.

pub use plimsoll_core::direction::Direction;
use plimsoll_core::store::{Failure, Outcome};
use plimsoll_core::two_way::Policy;
use serde::{Deserialize, Serialize};

use super::TableConfig;
use crate::failure::{Advise, run as unusable};

/// `direction` as the file says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DirectionSetting {
    /// The local database is right.
    #[default]
    Push,
    /// The server is right.
    Pull,
    /// One side is overwritten as a whole.
    Snapshot,
    /// Both sides may change.
    TwoWay,
}

impl DirectionSetting {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// `snapshot_from`: the side that is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotFrom {
    /// The local database is: the server is overwritten.
    Local,
    /// The server is: the local database is overwritten.
    Remote,
}

/// `merge`: what becomes of rows that both sides changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Merge {
    /// One row out of both, where they changed in different columns.
    Columns,
}

impl TableConfig {
    /// Which side is right.
    pub fn direction(&self) -> Direction {
        match (self.direction, self.snapshot_from) {
            (DirectionSetting::Push, _) => Direction::Push,
            (DirectionSetting::Pull, _) => Direction::Pull,
            (DirectionSetting::Snapshot, Some(SnapshotFrom::Remote)) => Direction::SnapshotPull,
            (DirectionSetting::Snapshot, _) => Direction::SnapshotPush,
            (DirectionSetting::TwoWay, _) => Direction::TwoWay,
        }
    }

    /// Who wins where both sides changed a row; two-way only.
    pub fn policy(&self) -> Policy {
        self.policy.unwrap_or_default()
    }

    /// Whether rows that changed in different columns become one; two-way only.
    pub fn merges_columns(&self) -> bool {
        self.merge == Some(Merge::Columns)
    }

    /// Whether the rows themselves that both sides last agreed on are kept, not their digests alone; two-way only.
    pub fn keeps_base_rows(&self) -> bool {
        self.keep_base_rows == Some(true)
    }

    /// Refuses settings that do not belong to the table's direction.
    pub(super) fn check_direction(&self) -> Outcome<()> {
        let direction = self.direction();
        let wrong = |setting: &str, belongs: &str, why: &str, instead: &str| -> Outcome<()> {
            let failure: Failure = unusable(format!(
                "table \"{}\": {setting} belongs to direction = \"{belongs}\", and the table's is \"{}\": {why}",
                self.name,
                direction.setting()
            ));
            Err(failure.advise(format!("take {setting} out, or {instead}")))
        };
        if self.snapshot_from.is_some() && self.direction != DirectionSetting::Snapshot {
            let why = "the other directions say themselves which side is right";
            return wrong("snapshot_from", "snapshot", why, "set direction = \"snapshot\"");
        }
        if direction == Direction::TwoWay {
            return Ok(());
        }
        let one_way = "one side alone is right, so there is nothing to decide between the two";
        let given = [
            ("policy", self.policy.is_some()),
            ("merge", self.merge.is_some()),
            ("keep_base_rows", self.keep_base_rows.is_some()),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((setting, _)) => wrong(setting, "two-way", one_way, "set direction = \"two-way\""),
            None => Ok(()),
        }
    }
}
