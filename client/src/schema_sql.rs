//! `plimsoll schema`: the SQL that makes managed tables for local ones.

use std::fmt::Write;

use plimsoll_core::store::{Failure, FailureKind, Outcome};
use plimsoll_core::value::adapt::Conversion;

use crate::cli::SchemaArgs;
use crate::config::{Config, Constant, TableConfig};
use crate::discover::discover;
use crate::failure::{Advise, run as no_run, table as refused};
use crate::names::{Relation, identifier};
use crate::source::local::{LocalDatabase, LocalTable, Part, same_name};
use crate::source::{self, Place};

/// The SQL for the tables that the arguments name. Ends with a line break.
///
/// # Errors
/// Where the local database cannot be read or a named table is not there.
pub fn schema_sql(config: Option<&Config>, arguments: &SchemaArgs) -> Outcome<String> {
    let place = match (&arguments.source, config) {
        (Some(text), _) => Place::parse(text),
        (None, Some(config)) => config.source_place(),
        (None, None) => return Err(no_run("neither a configuration nor --source is given")),
    };
    let mut local = source::open(&place?)?;
    let local = local.as_mut();
    let mut sql = String::from("-- To be run in the shared database, by an administrator of it.\n");
    let tables = chosen(local, config, arguments)?;
    let mut schemas: Vec<String> = tables.iter().map(|table| names(&*local, table, arguments).0).collect();
    schemas.sort_unstable();
    schemas.dedup();
    for schema in schemas.into_iter().filter(|schema| *schema != "public") {
        let owner = arguments.owner.as_ref().map(|owner| format!(" AUTHORIZATION {}", identifier(owner)));
        let schema = identifier(&schema);
        let _ = writeln!(sql, "CREATE SCHEMA IF NOT EXISTS {schema}{};", owner.unwrap_or_default());
    }
    let mut refusals = Vec::new();
    for table in tables {
        let found = local.table(&table.name)?;
        match table_sql(local, &found, &table, arguments) {
            Ok(of_table) => sql.push_str(&of_table),
            Err(failure) if failure.kind == FailureKind::Table => refusals.push(failure),
            Err(failure) => return Err(failure),
        }
    }
    all_at_once(refusals).map_or(Ok(sql), Err)
}

/// What stands in the way of several tables, told together.
fn all_at_once(refusals: Vec<Failure>) -> Option<Failure> {
    refusals.into_iter().reduce(|before, next| Failure {
        message: format!("{}\n{}", before.message, next.message),
        hint: match (before.hint, next.hint) {
            (Some(before), Some(next)) if before != next => Some(format!("{before}\n{next}")),
            (before, next) => before.or(next),
        },
        ..before
    })
}

fn chosen(
    local: &mut dyn LocalDatabase,
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
        let message = format!("the local {} database has no table", local.kind());
        return Err(no_run(message).advise("check what [source] or --source names"));
    }
    Ok(names.iter().map(plain).collect())
}

/// The statements for one table.
fn table_sql(
    local: &mut dyn LocalDatabase,
    table: &LocalTable,
    config: &TableConfig,
    arguments: &SchemaArgs,
) -> Outcome<String> {
    let discovered = discover(table, config.version.as_deref().or(arguments.version_column.as_deref()));
    if let (Some(name), None) = (&config.version, discovered.version) {
        return Err(no_such_column(&table.name, name));
    }
    let is_version = |name: &str| discovered.version.is_some_and(|version| same_name(version, name));
    let key: Vec<&str> = match &config.key {
        Some(key) => key.iter().map(String::as_str).collect(),
        None => discovered.key.clone(),
    };
    let modified =
        match config.modified.as_deref().or(discovered.modified).and_then(|name| table.column(name)) {
            Some(column) => local.proposed_type(table, column, Part::Modified)?.map(|_| column.name.as_str()),
            None => None,
        };
    let (schema, remote) = names(local, config, arguments);
    let managed = |local: &str| config.renamed(local).unwrap_or(local).to_owned();
    let relation = format!("{}.{}", identifier(&schema), identifier(&remote));
    let mut sql = format!(
        "\nCREATE TABLE {relation} (\n    client_id text NOT NULL,\n    database_id uuid NOT NULL,\n"
    );
    for column in &table.columns {
        if config.leaves_out(&column.name) {
            continue;
        }
        let needed = column.not_null
            || column.key_place > 0
            || key.iter().any(|name| same_name(name, &column.name))
            || is_version(&column.name);
        let part = match () {
            () if is_version(&column.name) => Part::Version,
            () if modified.is_some_and(|name| same_name(name, &column.name)) => Part::Modified,
            () => Part::Plain,
        };
        let column_type = match config.conversion(&column.name) {
            Some(Conversion::UnixSeconds | Conversion::UnixMilliseconds | Conversion::JulianDay) => None,
            _ => Some(local.proposed_type(table, column, part)?.unwrap_or_else(|| "text".to_owned())),
        };
        let column_type = column_type.as_deref().unwrap_or("timestamptz");
        let null = if needed { " NOT NULL" } else { "" };
        let _ = writeln!(sql, "    {} {column_type}{null},", identifier(&managed(&column.name)));
    }
    for (name, value) in &config.constants {
        let _ = writeln!(sql, "    {} {} NOT NULL,", identifier(name), type_of_constant(value));
    }
    match key[..] {
        [] => sql.truncate(sql.trim_end_matches(",\n").len()),
        _ => {
            let list: Vec<String> = key.iter().map(|name| identifier(&managed(name))).collect();
            let _ = write!(sql, "    PRIMARY KEY (client_id, database_id, {})", list.join(", "));
        }
    }
    sql.push_str("\n);\n");
    if let Some(version) = discovered.version.map(|name| identifier(&managed(name))) {
        let index = identifier(&format!("{remote}_position"));
        // Partial on what always holds, so that look-ups by key never choose it while the table has no statistics.
        let _ = writeln!(
            sql,
            "CREATE INDEX {index} ON {relation} (client_id, database_id, {version}) WHERE {version} IS NOT NULL;"
        );
    }
    if let Some(owner) = &arguments.owner {
        let _ = writeln!(sql, "ALTER TABLE {relation} OWNER TO {};", identifier(owner));
    }
    let name = |name: &str| format!("'{}'", name.replace('\'', "''"));
    let _ = write!(sql, "SELECT plimsoll.manage_table({}", name(&relation));
    if key.is_empty() {
        sql.push_str(", key_columns => '{}'");
    }
    for (setting, column) in [("version_column", discovered.version), ("modified_column", modified)] {
        if let Some(column) = column {
            let _ = write!(sql, ", {setting} => {}", name(&managed(column)));
        }
    }
    sql.push_str(");\n");
    Ok(sql)
}

fn no_such_column(table: &str, column: &str) -> Failure {
    refused(format!("the local table \"{table}\" has no column \"{column}\""))
        .advise("correct version = \"..\" in the configuration")
}

/// A type for a column that holds the same in all rows.
fn type_of_constant(value: &Constant) -> &'static str {
    match value {
        Constant::Bool(_) => "boolean",
        Constant::Whole(_) => "bigint",
        Constant::Number(_) => "numeric",
        Constant::Text(_) => "text",
    }
}

/// Schema and name of the managed table.
fn names(local: &dyn LocalDatabase, table: &TableConfig, arguments: &SchemaArgs) -> (String, String) {
    let remote = match &table.remote {
        Some(remote) => Relation::parse(remote),
        None => local.managed_name(&table.name),
    };
    (remote.schema.unwrap_or_else(|| arguments.schema.clone()), remote.table)
}

#[cfg(test)]
mod tests;
