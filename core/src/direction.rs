//! Which side of a table is right, and which ways an administrator allows.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::schema::{Axis, TableSchema};
use crate::value::ColumnType;

/// Which side of a table is right, and how the other is made level with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Direction {
    /// The local side is right; what differs is sent.
    #[default]
    Push,
    /// The remote side is right; what differs is fetched.
    Pull,
    /// The local side is right; the remote one is overwritten as a whole.
    SnapshotPush,
    /// The remote side is right; the local one is overwritten as a whole.
    SnapshotPull,
    /// Both may change.
    TwoWay,
}

impl Direction {
    /// All of them, in the order in which a run deals with them: what comes from the server first, so that what is sent
    /// knows of it.
    pub const IN_ORDER: [Direction; 5] = [
        Direction::Pull,
        Direction::SnapshotPull,
        Direction::TwoWay,
        Direction::Push,
        Direction::SnapshotPush,
    ];

    /// The name on the server, in JSON and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Push => "push",
            Direction::Pull => "pull",
            Direction::SnapshotPush => "snapshot",
            Direction::SnapshotPull => "snapshot-from-remote",
            Direction::TwoWay => "two-way",
        }
    }

    /// The direction with this name.
    pub fn of_name(name: &str) -> Option<Direction> {
        Direction::IN_ORDER.into_iter().find(|direction| direction.name() == name)
    }

    /// The word by which administrators allow it, and a configuration asks for it.
    pub fn setting(self) -> &'static str {
        match self {
            Direction::SnapshotPull => "snapshot",
            direction => direction.name(),
        }
    }

    /// Whether a run may change the local database's own rows.
    pub fn writes_local(self) -> bool {
        matches!(self, Direction::Pull | Direction::SnapshotPull | Direction::TwoWay)
    }

    /// Whether a run may change the replica's rows.
    pub fn writes_remote(self) -> bool {
        matches!(self, Direction::Push | Direction::SnapshotPush | Direction::TwoWay)
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Direction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The ways that an administrator allows for a managed table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowed {
    push: bool,
    pull: bool,
    snapshot: bool,
    two_way: bool,
}

impl Allowed {
    /// Every way.
    pub const ALL: Allowed = Allowed { push: true, pull: true, snapshot: true, two_way: true };

    /// The words for the ways, in the order in which they are shown.
    pub const WORDS: [&'static str; 4] = ["push", "pull", "snapshot", "two-way"];

    /// The ways that these words name; the first word that names none is the error.
    ///
    /// # Errors
    /// As said.
    pub fn of_words<'w>(words: impl IntoIterator<Item = &'w str>) -> Result<Allowed, &'w str> {
        let mut allowed = Allowed::default();
        for word in words {
            match word {
                "push" => allowed.push = true,
                "pull" => allowed.pull = true,
                "snapshot" => allowed.snapshot = true,
                "two-way" => allowed.two_way = true,
                unknown => return Err(unknown),
            }
        }
        Ok(allowed)
    }

    /// The words for them.
    pub fn words(self) -> Vec<&'static str> {
        let given = [self.push, self.pull, self.snapshot, self.two_way];
        Self::WORDS.into_iter().zip(given).filter_map(|(word, is_given)| is_given.then_some(word)).collect()
    }

    /// Whether tables may go this way. A snapshot of the remote side only reads there, as a pull does.
    pub fn allows(self, direction: Direction) -> bool {
        match direction {
            Direction::Push => self.push,
            Direction::Pull => self.pull,
            Direction::SnapshotPush => self.snapshot,
            Direction::SnapshotPull => self.snapshot || self.pull,
            Direction::TwoWay => self.two_way,
        }
    }

    /// Whether any of them writes to the replica.
    pub fn writes_remote(self) -> bool {
        Direction::IN_ORDER.into_iter().any(|way| way.writes_remote() && self.allows(way))
    }
}

/// Why a table cannot go both ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// No column tells its rows apart.
    NoKey,
    /// No column tells which of two states of a row is the newer one.
    NoVersion,
    /// Rows stand at their version, which differs between the sides.
    StandsAtVersion {
        /// The version column.
        column: String,
    },
    /// Only a database itself can write such versions, so a winner's cannot be copied to the other side.
    VersionOfDatabase {
        /// The version column.
        column: String,
        /// Its type.
        column_type: String,
    },
    /// The version is neither a number nor a point in time.
    NoRevision {
        /// The version column.
        column: String,
        /// Its type.
        column_type: String,
    },
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::NoKey => f.write_str(
                "it is managed without a key: nothing tells which rows of both sides belong together",
            ),
            Unfit::NoVersion => f.write_str(
                "it is managed without a version column: nothing tells which of two states of a row is newer",
            ),
            Unfit::StandsAtVersion { column } => write!(
                f,
                "its version column \"{column}\" is said to count the changes of the whole table (version_scope 'table'), \
                 and copied versions do not"
            ),
            Unfit::VersionOfDatabase { column, column_type } => write!(
                f,
                "its version column \"{column}\" has type {column_type}, which a database writes by itself: the version of \
                 one side cannot be copied to the other"
            ),
            Unfit::NoRevision { column, column_type } => write!(
                f,
                "its version column \"{column}\" has type {column_type}: a number or a point in time is needed to tell \
                 which of two states of a row is newer"
            ),
        }
    }
}

/// Whether rows of this table can change on both sides.
///
/// # Errors
/// Why not.
pub fn fits_two_way(schema: &TableSchema) -> Result<(), Unfit> {
    if schema.is_keyless() {
        return Err(Unfit::NoKey);
    }
    let version = schema.version().ok_or(Unfit::NoVersion)?;
    let (column, column_type) = (version.name.clone(), version.column_type.to_string());
    use ColumnType::{Bytea, Int2, Int4, Int8, Timestamp, Timestamptz, Xid8};
    match version.column_type {
        Int2 | Int4 | Int8 | Timestamp(_) | Timestamptz(_) => {}
        Xid8 | Bytea => return Err(Unfit::VersionOfDatabase { column, column_type }),
        _ => return Err(Unfit::NoRevision { column, column_type }),
    }
    match schema.axis() {
        Axis::Hash => Ok(()),
        Axis::Version(_) => Err(Unfit::StandsAtVersion { column }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, Roles};

    #[test]
    fn every_direction_has_a_name_of_its_own_and_a_word_that_allows_it() {
        for direction in Direction::IN_ORDER {
            assert_eq!(Direction::of_name(direction.name()), Some(direction));
            let allowed = Allowed::of_words([direction.setting()]).expect("a word");
            assert!(allowed.allows(direction), "{direction}");
            assert_eq!(allowed.words(), [direction.setting()]);
        }
        assert_eq!(Direction::of_name("both"), None);
        assert_eq!(Allowed::of_words(["push", "both"]), Err("both"));
        assert_eq!(Allowed::of_words(Allowed::WORDS), Ok(Allowed::ALL));
    }

    #[test]
    fn what_only_reads_the_server_is_allowed_with_pull() {
        let pull = Allowed::of_words(["pull"]).expect("a word");
        let allowed: Vec<Direction> =
            Direction::IN_ORDER.into_iter().filter(|direction| pull.allows(*direction)).collect();
        assert_eq!(allowed, [Direction::Pull, Direction::SnapshotPull]);
        assert!(!pull.writes_remote());
        for word in ["push", "snapshot", "two-way"] {
            assert!(Allowed::of_words([word]).expect("a word").writes_remote(), "{word}");
        }
        assert!(!Allowed::default().writes_remote());
    }

    fn schema(version_type: ColumnType, roles: &Roles<'_>) -> TableSchema {
        let column = |number, name: &str, column_type| Column {
            number,
            name: name.to_owned(),
            column_type,
            not_null: true,
        };
        let columns = vec![column(1, "id", ColumnType::Int8), column(2, "revision", version_type)];
        TableSchema::new(columns, roles).expect("a schema")
    }

    #[test]
    fn both_ways_need_a_key_and_a_revision_that_can_be_copied() {
        let fit = Roles { key: &["id"], version: Some("revision"), modified: None, placed_by: &["id"] };
        assert_eq!(fits_two_way(&schema(ColumnType::Int4, &fit)), Ok(()));
        assert_eq!(fits_two_way(&schema(ColumnType::Timestamptz(6), &fit)), Ok(()));
        for own in [ColumnType::Xid8, ColumnType::Bytea] {
            assert!(matches!(fits_two_way(&schema(own, &fit)), Err(Unfit::VersionOfDatabase { .. })));
        }
        assert!(matches!(fits_two_way(&schema(ColumnType::Bool, &fit)), Err(Unfit::NoRevision { .. })));
        let in_order = Roles { placed_by: &[], ..fit };
        let stands = fits_two_way(&schema(ColumnType::Int8, &in_order));
        assert_eq!(stands, Err(Unfit::StandsAtVersion { column: "revision".to_owned() }));
        let unversioned = Roles { version: None, ..fit };
        assert_eq!(fits_two_way(&schema(ColumnType::Int8, &unversioned)), Err(Unfit::NoVersion));
        let keyless = Roles { key: &[], placed_by: &["id", "revision"], ..unversioned };
        assert_eq!(fits_two_way(&schema(ColumnType::Int8, &keyless)), Err(Unfit::NoKey));
    }
}
