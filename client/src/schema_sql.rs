//! `plimsoll schema`: the SQL that makes managed tables for local ones.

use std::fmt::Write;
use std::path::Path;

use plimsoll_core::store::Outcome;

use crate::cli::SchemaArgs;
use crate::config::{Config, TableConfig};
use crate::discover::discover;
use crate::failure::{Advise, run as no_run};
use crate::names::{Relation, identifier};
use crate::source::sqlite::LocalDatabase;
use crate::source::sqlite::schema::{LocalTable, same_name};

/// The SQL for the tables that the arguments name. Ends with a line break.
///
/// # Errors
/// Where the local database cannot be read or a named table is not there.
pub fn schema_sql(config: Option<&Config>, arguments: &SchemaArgs) -> Outcome<String> {
    let path = match (&arguments.source, config) {
        (Some(path), _) => path.clone(),
        (None, Some(config)) => config.sqlite_path(),
        (None, None) => return Err(no_run("neither a configuration nor --source is given")),
    };
    let local = LocalDatabase::open(Path::new(&path))?;
    let mut sql = String::from("-- To be run in the shared database, by an administrator of it.\n");
    let tables = chosen(&local, config, arguments)?;
    let mut schemas: Vec<String> = tables.iter().map(|table| names(table, arguments).0).collect();
    schemas.sort_unstable();
    schemas.dedup();
    for schema in schemas.into_iter().filter(|schema| *schema != "public") {
        let owner = arguments.owner.as_ref().map(|owner| format!(" AUTHORIZATION {}", identifier(owner)));
        let schema = identifier(&schema);
        let _ = writeln!(sql, "CREATE SCHEMA IF NOT EXISTS {schema}{};", owner.unwrap_or_default());
    }
    for table in tables {
        let found = local.table(&table.name)?;
        let version = table.version.as_deref().or(arguments.version_column.as_deref());
        match table_sql(&local, &found, &table, version, arguments)? {
            Ok(text) => sql.push_str(&text),
            Err(reason) => {
                let _ = write!(sql, "\n-- {}: left out, because it has {reason}.\n", found.name);
            }
        }
    }
    Ok(sql)
}

fn chosen(
    local: &LocalDatabase,
    config: Option<&Config>,
    arguments: &SchemaArgs,
) -> Outcome<Vec<TableConfig>> {
    let configured: &[TableConfig] = config.map_or(&[], |config| &config.tables);
    let plain = |name: &String| TableConfig { name: name.clone(), ..TableConfig::default() };
    let find = |name: &String| {
        let found = configured.iter().find(|table| same_name(&table.name, name));
        found.cloned().unwrap_or_else(|| plain(name))
    };
    if !arguments.tables.is_empty() {
        return Ok(arguments.tables.iter().map(find).collect());
    }
    if !configured.is_empty() {
        return Ok(configured.to_vec());
    }
    let names = local.table_names()?;
    if names.is_empty() {
        return Err(no_run("the local database has no table").advise("check the path of the file"));
    }
    Ok(names.iter().map(plain).collect())
}

/// The statements for one table, or why there are none.
fn table_sql(
    local: &LocalDatabase,
    table: &LocalTable,
    config: &TableConfig,
    version: Option<&str>,
    arguments: &SchemaArgs,
) -> Outcome<Result<String, String>> {
    let discovered = match discover(table, version) {
        Ok(discovered) => discovered,
        Err(reason) => return Ok(Err(reason)),
    };
    let key: Vec<&str> = match &config.key {
        Some(key) => key.iter().map(String::as_str).collect(),
        None => discovered.key.clone(),
    };
    let modified = config.modified.as_deref().or(discovered.modified);
    // Text is taken for times only where it holds them.
    let modified_zone = match modified.and_then(|name| table.column(name)) {
        Some(column) => local.holds_stamps(&table.name, &column.name)?,
        None => None,
    };
    let modified = modified.filter(|name| {
        let declared = table.column(name).map(|column| column.declared.as_str()).unwrap_or_default();
        modified_zone.is_some() || postgres_type(declared).is_some_and(|t| t.starts_with("timestamp"))
    });
    let (schema, remote) = names(config, arguments);
    let relation = format!("{}.{}", identifier(&schema), identifier(&remote));
    let mut sql = format!(
        "\nCREATE TABLE {relation} (\n    client_id text NOT NULL,\n    database_id uuid NOT NULL,\n"
    );
    for column in &table.columns {
        if config.leave_out.iter().any(|left| same_name(left, &column.name)) {
            continue;
        }
        let needed = column.not_null
            || column.key_place > 0
            || key.iter().any(|name| same_name(name, &column.name))
            || same_name(discovered.version, &column.name);
        let column_type = match postgres_type(&column.declared) {
            Some(column_type) => column_type,
            None => stored_type(&local.storage_classes(&table.name, &column.name)?).to_owned(),
        };
        let is_modified = modified.is_some_and(|name| same_name(name, &column.name));
        let column_type = match same_name(discovered.version, &column.name) {
            true if column_type == "text" => {
                stamp_type(local.holds_stamps(&table.name, &column.name)?).to_owned()
            }
            true => version_type(&column_type),
            false if is_modified && column_type == "text" => stamp_type(modified_zone).to_owned(),
            false => column_type,
        };
        let null = if needed { " NOT NULL" } else { "" };
        let _ = writeln!(sql, "    {} {column_type}{null},", identifier(&column.name));
    }
    let list: Vec<String> = key.iter().map(|name| identifier(name)).collect();
    let _ = write!(sql, "    PRIMARY KEY (client_id, database_id, {})\n);\n", list.join(", "));
    let index = identifier(&format!("{remote}_position"));
    let version_name = identifier(discovered.version);
    // Partial on what always holds, so that look-ups by key never choose it while the table has no statistics.
    let _ = writeln!(
        sql,
        "CREATE INDEX {index} ON {relation} (client_id, database_id, {version_name}) WHERE {version_name} IS NOT NULL;"
    );
    if let Some(owner) = &arguments.owner {
        let _ = writeln!(sql, "ALTER TABLE {relation} OWNER TO {};", identifier(owner));
    }
    let name = |name: &str| format!("'{}'", name.replace('\'', "''"));
    let _ = write!(
        sql,
        "SELECT plimsoll.manage_table({}, version_column => {}",
        name(&relation),
        name(discovered.version)
    );
    if let Some(modified) = modified {
        let _ = write!(sql, ", modified_column => {}", name(modified));
    }
    sql.push_str(");\n");
    Ok(Ok(sql))
}

/// Schema and name of the managed table.
fn names(table: &TableConfig, arguments: &SchemaArgs) -> (String, String) {
    let remote = match &table.remote {
        Some(remote) => Relation::parse(remote),
        None => Relation { schema: None, table: table.name.clone() },
    };
    (remote.schema.unwrap_or_else(|| arguments.schema.clone()), remote.table)
}

/// The Postgres type of a declared SQLite type; `None` where nothing is declared.
pub fn postgres_type(declared: &str) -> Option<String> {
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
        "bigint" | "timestamp" | "timestamptz" => column_type.to_owned(),
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
mod tests;
