//! What a SQLite database says of its tables.

use rusqlite::{Connection, OptionalExtension, Result, params};

use crate::source::local::{Holds, LocalColumn, LocalIndex, LocalTable, same_name};

/// The names of all tables that an application made, in alphabetical order.
pub fn table_names(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         AND name NOT LIKE 'plimsoll\\_%' ESCAPE '\\'
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
        "SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 1
         ORDER BY cid",
    )?;
    let columns: Vec<LocalColumn> = statement
        .query_map(params![name], |row| {
            let declared = row.get::<_, Option<String>>(1)?.unwrap_or_default();
            Ok(LocalColumn {
                name: row.get(0)?,
                holds: holds(&declared),
                declared,
                not_null: row.get(2)?,
                key_place: row.get(3)?,
                generated: row.get::<_, i64>(4)? > 0,
            })
        })?
        .collect::<Result<_>>()?;
    let indexes = read_indexes(connection, &name)?;
    let row_id = row_id(connection, &name, &columns)?;
    let relation = quoted(&name);
    Ok(Some(LocalTable { name, relation, columns, indexes, row_id }))
}

/// What the declared type says of values.
fn holds(declared: &str) -> Holds {
    let declared = declared.trim().to_ascii_uppercase();
    match declared.as_str() {
        text if text.contains("INT") || text.is_empty() => Holds::Numbers,
        text if text.starts_with("TIMESTAMP") || text.starts_with("DATETIME") => Holds::Stamps,
        text if text.starts_with("TEXT") => Holds::Text,
        _ => Holds::Other,
    }
}

/// The name by which statements reach a row's id; `None` where the table has none, or columns took all its names.
fn row_id(connection: &Connection, table: &str, columns: &[LocalColumn]) -> Result<Option<String>> {
    let mut statement =
        connection.prepare("SELECT wr FROM pragma_table_list(?1) WHERE \"schema\" = 'main'")?;
    let without: Option<bool> = statement.query_row(params![table], |row| row.get(0)).optional()?;
    if without != Some(false) {
        return Ok(None);
    }
    let is_free = |name: &&str| !columns.iter().any(|column| same_name(&column.name, name));
    Ok(["rowid", "_rowid_", "oid"].into_iter().find(is_free).map(str::to_owned))
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

/// A name as it stands in a statement.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
