//! The columns of a managed table as both sides know them.

use crate::error::{Error, ErrorKind, Result};
use crate::value::{ColumnType, Value};

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

/// A managed table: columns by ascending number, and which of them are key, version and last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    columns: Vec<Column>,
    key: Vec<usize>,
    version: usize,
    modified: Option<usize>,
}

impl TableSchema {
    /// A schema from its columns and the names of key, version and last-modified columns.
    ///
    /// # Errors
    /// `InvalidSchema` where a name is unknown, the key is empty, a number is used twice, or the version
    /// column's type has no position on the axis.
    pub fn new(
        mut columns: Vec<Column>,
        key: &[&str],
        version: &str,
        modified: Option<&str>,
    ) -> Result<Self> {
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
        let mut key = key.iter().map(|name| find(name)).collect::<Result<Vec<_>>>()?;
        key.sort_unstable();
        if key.is_empty() {
            return Err(invalid("a key needs at least one column".to_owned()));
        }
        let version = find(version)?;
        use ColumnType::*;
        if !matches!(columns[version].column_type, Int2 | Int4 | Int8 | Xid8 | Timestamp(_) | Timestamptz(_))
        {
            let Column { name, column_type, .. } = &columns[version];
            return Err(invalid(format!("column \"{name}\" of type {column_type} is no version")));
        }
        let modified = modified.map(find).transpose()?;
        Ok(TableSchema { columns, key, version, modified })
    }

    /// All columns, by ascending number.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The key columns, by ascending number.
    pub fn key(&self) -> impl ExactSizeIterator<Item = &Column> {
        self.key.iter().map(|i| &self.columns[*i])
    }

    /// Where the key columns stand in [`columns`](Self::columns).
    pub fn key_indexes(&self) -> &[usize] {
        &self.key
    }

    /// The version column.
    pub fn version(&self) -> &Column {
        &self.columns[self.version]
    }

    /// Where the version column stands in [`columns`](Self::columns).
    pub fn version_index(&self) -> usize {
        self.version
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

/// Where a row with this version stands on the axis; `None` where the value is no version.
pub fn position_of(version: &Value<'_>) -> Option<i64> {
    match version {
        Value::Int(position) | Value::Timestamp(position) | Value::Timestamptz(position) => Some(*position),
        _ => None,
    }
}
