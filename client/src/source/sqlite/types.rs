//! Which Postgres types are proposed for SQLite's columns.

use plimsoll_core::value::datetime::parse_timestamp;
use rusqlite::{Connection, Result};

use super::schema::quoted;
use crate::source::local::{LocalColumn, LocalTable, Part};

/// The type that a managed column should have for this one; `None` for a last change that is no point in time.
pub fn proposed(
    connection: &Connection,
    table: &LocalTable,
    column: &LocalColumn,
    part: Part,
) -> Result<Option<String>> {
    let column_type = match postgres_type(&column.declared) {
        Some(column_type) => column_type,
        None => stored_type(&storage_classes(connection, table, column)?).to_owned(),
    };
    let zoned = match part {
        Part::Plain => return Ok(Some(column_type)),
        Part::Version if column_type != "text" => return Ok(Some(version_type(&column_type))),
        Part::Version | Part::Modified => holds_stamps(connection, table, column)?,
    };
    Ok(match part {
        // Text is taken for times only where it holds them.
        Part::Modified if zoned.is_none() && !column_type.starts_with("timestamp") => None,
        _ if column_type == "text" => Some(stamp_type(zoned).to_owned()),
        _ => Some(column_type),
    })
}

/// Whether all that a column holds are timestamps as ISO text, and whether one of them has a time zone; `None` where
/// they are none or there are none. Looks at the first 1,000 rows.
fn holds_stamps(connection: &Connection, table: &LocalTable, column: &LocalColumn) -> Result<Option<bool>> {
    let name = quoted(&column.name);
    let sql = format!("SELECT {name} FROM {} WHERE {name} IS NOT NULL LIMIT 1000", table.relation);
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut zoned = None;
    while let Some(row) = rows.next()? {
        let text = row.get_ref(0)?.as_str().ok();
        let Some(Ok((_, zone))) = text.map(parse_timestamp) else { return Ok(None) };
        zoned = Some(zoned.unwrap_or(false) || zone.is_some());
    }
    Ok(zoned)
}

/// The storage classes of what a column holds, for a column declared without a type. Looks at the first 100,000 rows.
fn storage_classes(connection: &Connection, table: &LocalTable, column: &LocalColumn) -> Result<Vec<String>> {
    let (relation, name) = (&table.relation, quoted(&column.name));
    let sql = format!(
        "SELECT DISTINCT typeof({name}) FROM (SELECT {name} FROM {relation} LIMIT 100000)
         WHERE {name} IS NOT NULL"
    );
    let mut statement = connection.prepare(&sql)?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// The Postgres type of a declared SQLite type; `None` where nothing is declared.
fn postgres_type(declared: &str) -> Option<String> {
    let text = declared.trim().to_ascii_uppercase();
    if text.is_empty() || text == "ANY" {
        return None;
    }
    let (name, modifiers) = match text.split_once('(') {
        Some((name, rest)) => (name.trim(), rest.split(')').next().unwrap_or_default().replace(' ', "")),
        None => (text.as_str(), String::new()),
    };
    let with = |name: &str| match modifiers.is_empty() {
        true => name.to_owned(),
        false => format!("{name}({modifiers})"),
    };
    let length = |name: &str| match modifiers.parse::<u32>() {
        Ok(1..=10_485_760) => with(name),
        _ => "text".to_owned(),
    };
    Some(match name {
        "BOOLEAN" | "BOOL" => "boolean".to_owned(),
        "DATE" => "date".to_owned(),
        "DATETIME" | "TIMESTAMP" | "TIMESTAMP WITHOUT TIME ZONE" => "timestamp".to_owned(),
        "TIMESTAMPTZ" | "TIMESTAMP WITH TIME ZONE" | "DATETIMEOFFSET" => "timestamptz".to_owned(),
        "TIME" => "time".to_owned(),
        "NUMERIC" | "DECIMAL" | "NUMBER" => with("numeric"),
        "MONEY" | "CURRENCY" => "numeric".to_owned(),
        "UUID" | "GUID" | "UNIQUEIDENTIFIER" => "uuid".to_owned(),
        "JSON" => "json".to_owned(),
        "JSONB" => "jsonb".to_owned(),
        "VARCHAR" | "NVARCHAR" | "CHARACTER VARYING" | "VARYING CHARACTER" => length("varchar"),
        "CHAR" | "NCHAR" | "CHARACTER" | "NATIVE CHARACTER" if !modifiers.is_empty() => length("char"),
        // What is left follows SQLite's own rules of affinity.
        name if name.contains("INT") => "bigint".to_owned(),
        name if ["CHAR", "CLOB", "TEXT"].iter().any(|part| name.contains(part)) => "text".to_owned(),
        name if name.contains("BLOB") || name.contains("BINARY") || name == "BYTEA" => "bytea".to_owned(),
        name if ["REAL", "FLOA", "DOUB"].iter().any(|part| name.contains(part)) => {
            "double precision".to_owned()
        }
        _ => "numeric".to_owned(),
    })
}

/// The type for a column without a declared one, by what it holds.
fn stored_type(classes: &[String]) -> &'static str {
    let only = |allowed: &[&str]| classes.iter().all(|class| allowed.contains(&class.as_str()));
    match classes {
        [] => "text",
        _ if only(&["integer"]) => "bigint",
        _ if only(&["integer", "real"]) => "double precision",
        _ if only(&["blob"]) => "bytea",
        _ => "text",
    }
}

/// A version column's type must have a position.
fn version_type(column_type: &str) -> String {
    match column_type {
        "bigint" | "timestamp" | "timestamptz" | "bytea" => column_type.to_owned(),
        _ => "bigint".to_owned(),
    }
}

fn stamp_type(zoned: Option<bool>) -> &'static str {
    match zoned {
        Some(true) => "timestamptz",
        _ => "timestamp",
    }
}

#[cfg(test)]
mod tests {
    use super::{postgres_type, version_type};

    #[test]
    fn declared_types_become_postgres_types() {
        for (declared, expected) in [
            ("INTEGER", "bigint"),
            ("int", "bigint"),
            ("UNSIGNED BIG INT", "bigint"),
            ("REAL", "double precision"),
            ("DOUBLE PRECISION", "double precision"),
            ("TEXT", "text"),
            ("VARCHAR(12)", "varchar(12)"),
            ("nvarchar( 40 )", "varchar(40)"),
            ("VARCHAR", "text"),
            ("CHAR(2)", "char(2)"),
            ("CLOB", "text"),
            ("NUMERIC", "numeric"),
            ("DECIMAL(10, 2)", "numeric(10,2)"),
            ("BOOLEAN", "boolean"),
            ("DATE", "date"),
            ("DATETIME", "timestamp"),
            ("TIMESTAMP", "timestamp"),
            ("BLOB", "bytea"),
            ("UUID", "uuid"),
            ("STRANGE", "numeric"),
        ] {
            assert_eq!(postgres_type(declared).as_deref(), Some(expected), "{declared}");
        }
        assert_eq!(postgres_type(""), None);
        // A version of eight bytes stays what it is.
        assert_eq!((version_type("bytea").as_str(), version_type("numeric").as_str()), ("bytea", "bigint"));
    }
}
