//! The columns of a managed table as both sides know them.

use crate::error::{Error, ErrorKind, Result};
use crate::value::ColumnType;

mod position;
mod stamp;

pub use position::{Axis, hash_position, least_version_bytes, position_of};

/// One column that is sent and digested. Tenant columns and server columns are not among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Plimsoll's own number of the column, 1 or more, stable for the life of the managed table.
    pub number: u32,
    /// The column's name on the server.
    pub name: String,
    /// What it takes.
    pub column_type: ColumnType,
    /// Whether it refuses NULL.
    pub not_null: bool,
}

/// Which columns play which part in a table, by name.
#[derive(Debug, Clone, Copy, Default)]
pub struct Roles<'a> {
    /// The columns that tell rows apart; none in a keyless table.
    pub key: &'a [&'a str],
    /// The column that grows when a row changes; of any type where other columns place rows.
    pub version: Option<&'a str>,
    /// The column that tells when a row was last changed.
    pub modified: Option<&'a str>,
    /// The columns whose hash is the position; none where rows stand at their version.
    pub placed_by: &'a [&'a str],
}

/// A managed table: columns by ascending number, and which of them play a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    columns: Vec<Column>,
    key: Vec<usize>,
    version: Option<usize>,
    modified: Option<usize>,
    placed_by: Vec<usize>,
    axis: Axis,
}

impl TableSchema {
    /// A schema from its columns and the parts that they play.
    ///
    /// # Errors
    /// `InvalidSchema` where a name is unknown, a number is used twice, rows stand at a version whose type has no position
    /// on the axis, rows would stand nowhere (no version, and no column places them), or rows of one key could stand at
    /// several positions (a column places them that is not of the key).
    pub fn new(mut columns: Vec<Column>, roles: &Roles<'_>) -> Result<Self> {
        let invalid = |message: String| Error::new(ErrorKind::InvalidSchema, message);
        columns.sort_by_key(|column| column.number);
        if columns.first().is_some_and(|column| column.number == 0)
            || columns.windows(2).any(|pair| pair[0].number == pair[1].number)
        {
            return Err(invalid("column numbers must be 1 or more, each used once".to_owned()));
        }
        let find = |name: &str| {
            let found = columns.iter().position(|column| column.name == name);
            found.ok_or_else(|| invalid(format!("no column \"{name}\"")))
        };
        let ascending = |names: &[&str]| {
            let mut places = names.iter().map(|name| find(name)).collect::<Result<Vec<_>>>()?;
            places.sort_unstable();
            Ok::<_, Error>(places)
        };
        let (key, placed_by) = (ascending(roles.key)?, ascending(roles.placed_by)?);
        let version = roles.version.map(find).transpose()?;
        let modified = roles.modified.map(find).transpose()?;
        use ColumnType::*;
        if let Some(Column { name, column_type, .. }) = version.map(|place| &columns[place])
            && placed_by.is_empty()
            && !matches!(column_type, Int2 | Int4 | Int8 | Xid8 | Timestamp(_) | Timestamptz(_) | Bytea)
        {
            return Err(invalid(format!("column \"{name}\" of type {column_type} is no version")));
        }
        if let Some(place) = placed_by.iter().find(|place| !key.is_empty() && !key.contains(place)) {
            let name = &columns[*place].name;
            return Err(invalid(format!("column \"{name}\" places rows, and is not of their key")));
        }
        let axis = match (&placed_by[..], version) {
            ([_, ..], _) => Axis::Hash,
            ([], Some(version)) => Axis::Version(version),
            ([], None) => {
                return Err(invalid("no version column, and no column that places rows".to_owned()));
            }
        };
        Ok(TableSchema { columns, key, version, modified, placed_by, axis })
    }

    /// All columns, by ascending number.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The key columns, by ascending number; none in a keyless table.
    pub fn key(&self) -> impl ExactSizeIterator<Item = &Column> {
        self.key.iter().map(|i| &self.columns[*i])
    }

    /// Where the key columns stand in [`columns`](Self::columns).
    pub fn key_indexes(&self) -> &[usize] {
        &self.key
    }

    /// Whether no column tells rows apart: a row is its content, and equal rows are counted.
    pub fn is_keyless(&self) -> bool {
        self.key.is_empty()
    }

    /// The version column, if there is one.
    pub fn version(&self) -> Option<&Column> {
        self.version.map(|place| &self.columns[place])
    }

    /// Where the version column stands in [`columns`](Self::columns).
    pub fn version_index(&self) -> Option<usize> {
        self.version
    }

    /// What the rows stand on.
    pub fn axis(&self) -> Axis {
        self.axis
    }

    /// The columns whose hash is the position, by ascending number; none where rows stand at their version.
    pub fn placed_by(&self) -> impl ExactSizeIterator<Item = &Column> {
        self.placed_by.iter().map(|place| &self.columns[*place])
    }

    /// Where those columns stand in [`columns`](Self::columns).
    pub fn placed_by_indexes(&self) -> &[usize] {
        &self.placed_by
    }

    /// The column that tells when a row was last changed, if there is one.
    pub fn modified(&self) -> Option<&Column> {
        self.modified.map(|i| &self.columns[i])
    }

    /// The column with this number.
    pub fn column(&self, number: u32) -> Option<&Column> {
        let found = self.columns.binary_search_by_key(&number, |column| column.number).ok()?;
        Some(&self.columns[found])
    }
}

#[cfg(test)]
mod tests;
