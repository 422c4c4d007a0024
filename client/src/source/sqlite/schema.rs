//! What a SQLite database says of its tables.

use rusqlite::{Connection, OptionalExtension, Result, params};

/// A column as it was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalColumn {
    /// Its name as declared.
    pub name: String,
    /// The declared type, empty where there is none.
    pub declared: String,
    /// Whether it was declared NOT NULL.
    pub not_null: bool,
    /// Its place in the primary key from 1, 0 where it is not in it.
    pub key_place: u32,
}

/// An index over plain columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalIndex {
    /// Its columns up to the first expression.
    pub columns: Vec<String>,
    /// Whether it makes its columns unique for every row.
    pub unique: bool,
}

/// A table of the local database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalTable {
    /// Its name as declared.
    pub name: String,
    /// Its columns in order, generated ones included.
    pub columns: Vec<LocalColumn>,
    /// Its indexes that hold every row.
    pub indexes: Vec<LocalIndex>,
}

/// The names of all tables that an application made, in alphabetical order.
pub fn table_names(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name",
    )?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// A table by its name, in any case; `None` where there is none (or it is a view).
pub fn read_table(connection: &Connection, name: &str) -> Result<Option<LocalTable>> {
    let found: Option<String> = connection
        .query_row(
            "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE
             ORDER BY name = ?1 DESC",
            params![name],
            |row| row.get(0),
        )
        .optional()?;
    let Some(name) = found else { return Ok(None) };
    let mut statement = connection.prepare(
        "SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 1 ORDER BY cid",
    )?;
    let columns: Vec<LocalColumn> = statement
        .query_map(params![name], |row| {
            Ok(LocalColumn {
                name: row.get(0)?,
                declared: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
                not_null: row.get(2)?,
                key_place: row.get(3)?,
            })
        })?
        .collect::<Result<_>>()?;
    let indexes = read_indexes(connection, &name)?;
    Ok(Some(LocalTable { name, columns, indexes }))
}

fn read_indexes(connection: &Connection, table: &str) -> Result<Vec<LocalIndex>> {
    let mut statement = connection.prepare(
        "SELECT name, \"unique\" FROM pragma_index_list(?1, 'main') WHERE partial = 0 ORDER BY seq",
    )?;
    let found: Vec<(String, bool)> =
        statement.query_map(params![table], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_>>()?;
    let mut columns_of =
        connection.prepare("SELECT name FROM pragma_index_info(?1, 'main') ORDER BY seqno")?;
    let mut indexes = Vec::with_capacity(found.len());
    for (name, unique) in found {
        let columns: Vec<Option<String>> =
            columns_of.query_map(params![name], |row| row.get(0))?.collect::<Result<_>>()?;
        // An expression has no name: what it makes unique is no set of columns.
        let unique = unique && columns.iter().all(Option::is_some);
        let columns = columns.into_iter().map_while(|column| column).collect();
        indexes.push(LocalIndex { columns, unique });
    }
    Ok(indexes)
}

impl LocalTable {
    /// The column with this name: as it is spelled, else in any case.
    pub fn column(&self, name: &str) -> Option<&LocalColumn> {
        let exact = self.columns.iter().find(|column| column.name == name);
        exact.or_else(|| self.columns.iter().find(|column| same_name(&column.name, name)))
    }

    /// The primary key's columns in its order; empty where there is none.
    pub fn primary_key(&self) -> Vec<&LocalColumn> {
        let mut key: Vec<_> = self.columns.iter().filter(|column| column.key_place > 0).collect();
        key.sort_by_key(|column| column.key_place);
        key
    }

    /// Whether no two rows can share their values in `key`.
    pub fn is_unique(&self, key: &[&str]) -> bool {
        let within = |column: &str| key.iter().any(|wanted| same_name(wanted, column));
        let primary = self.primary_key();
        (!primary.is_empty() && primary.iter().all(|column| within(&column.name)))
            || self
                .indexes
                .iter()
                .any(|index| index.unique && index.columns.iter().all(|column| within(column)))
    }

    /// Whether rows can be read in the order of this column without sorting them.
    pub fn is_indexed_by(&self, column: &str) -> bool {
        let leads = |name: Option<&str>| name.is_some_and(|name| same_name(name, column));
        leads(self.primary_key().first().map(|column| column.name.as_str()))
            || self.indexes.iter().any(|index| leads(index.columns.first().map(String::as_str)))
    }
}

/// Whether SQLite takes both names for the same.
pub fn same_name(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// A name as it stands in a statement.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
