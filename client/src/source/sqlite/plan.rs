//! How the rows of one local table become rows of its managed table: settled at the start of a run from
//! both schemas, with a refusal that names the column where they do not fit.

use plimsoll_core::schema::TableSchema;
use plimsoll_core::store::Outcome;

use super::axis::{Axis, VersionKind};
use super::schema::{LocalColumn, LocalTable, quoted, same_name};
use crate::config::TableConfig;
use crate::failure::{Advise, table as refused};

/// One local table on its way to one managed table. Selected columns stand in the order of the managed
/// table's columns.
#[derive(Debug)]
pub struct TablePlan {
    /// The local table's name as declared.
    pub table: String,
    /// The managed table.
    pub schema: TableSchema,
    /// The local column for each column of the managed table.
    pub columns: Vec<String>,
    /// The places of the key's columns in the local key's own order.
    pub key_order: Vec<usize>,
    /// The place of the version column.
    pub version: usize,
    /// The kind of its version.
    pub version_kind: VersionKind,
    /// Whether an index leads with the version column.
    pub indexed: bool,
    /// How statements compare versions; found at the first read.
    pub axis: Option<Axis>,
}

impl TablePlan {
    /// Fits a local table to a managed one.
    ///
    /// # Errors
    /// A `Table` failure that names the column and says what to do: a column on one side only, another
    /// key or version than the server's, a key that no index makes unique.
    pub fn new(local: &LocalTable, schema: TableSchema, config: &TableConfig) -> Outcome<TablePlan> {
        for name in config.key.iter().flatten().chain(&config.leave_out) {
            find(local, name)?;
        }
        let columns = match_columns(local, &schema, config)?;
        let key_order = match_key(local, &schema, &columns, config)?;
        for (configured, role, found) in [
            (&config.version, "version", schema.version()),
            (&config.modified, "last-modified", schema.modified()),
        ] {
            let Some(name) = configured else { continue };
            let column = find(local, name)?;
            let same = found.is_some_and(|column| same_name(&column.name, name));
            if !same {
                let server = found.map_or("none".to_owned(), |column| format!("\"{}\"", column.name));
                return Err(refused(format!(
                    "the configured {role} column is \"{}\", the managed table's is {server}",
                    column.name
                ))
                .advise("correct the configuration, or manage the table again with the other column"));
            }
        }
        let version = schema.version_index().ok_or_else(|| {
            refused(format!("the managed table of \"{}\" has no version column", local.name))
                .advise("manage it again with version_column")
        })?;
        let version_kind = VersionKind::of(&schema.columns()[version].column_type);
        let indexed = local.is_indexed_by(&columns[version]);
        let table = local.name.clone();
        Ok(TablePlan { table, schema, columns, key_order, version, version_kind, indexed, axis: None })
    }

    /// The local version column.
    pub fn version_column(&self) -> &str {
        &self.columns[self.version]
    }

    /// The selected columns of a statement.
    pub fn select_list(&self) -> String {
        self.columns.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
    }

    /// The key's columns in the local key's order.
    pub fn key_columns(&self) -> impl Iterator<Item = &str> {
        self.key_order.iter().map(|place| self.columns[*place].as_str())
    }
}

fn find<'t>(local: &'t LocalTable, name: &str) -> Outcome<&'t LocalColumn> {
    local.column(name).ok_or_else(|| {
        let names: Vec<_> = local.columns.iter().map(|column| column.name.as_str()).collect();
        refused(format!("the local table \"{}\" has no column \"{name}\"", local.name))
            .advise(format!("its columns are {}", names.join(", ")))
    })
}

fn match_columns(local: &LocalTable, schema: &TableSchema, config: &TableConfig) -> Outcome<Vec<String>> {
    let left_out = |name: &str| config.leave_out.iter().any(|left| same_name(left, name));
    let mut columns = Vec::with_capacity(schema.columns().len());
    for column in schema.columns() {
        let Some(found) = local.column(&column.name) else {
            let hint = if column.not_null {
                "add the column locally, or name it in server_columns of plimsoll.manage_table"
            } else {
                "add the column locally, or name it in server_columns of plimsoll.manage_table if the \
                 server alone fills it"
            };
            let message = format!(
                "column \"{}\" of the managed table is not in the local table \"{}\"",
                column.name, local.name
            );
            return Err(refused(message).advise(hint));
        };
        if left_out(&found.name) {
            return Err(refused(format!(
                "column \"{}\" is left out, but the managed table has it",
                found.name
            ))
            .advise("take it out of leave_out, or name it in server_columns of plimsoll.manage_table"));
        }
        if columns.contains(&found.name) {
            let message = format!("column \"{}\" stands for two columns of the managed table", found.name);
            return Err(refused(message).advise("names must differ in more than upper and lower case"));
        }
        columns.push(found.name.clone());
    }
    for column in &local.columns {
        if !columns.contains(&column.name) && !left_out(&column.name) {
            let message = format!(
                "column \"{}\" of the local table \"{}\" is not in the managed table",
                column.name, local.name
            );
            let hint = format!(
                "add it to the managed table, or leave it out: leave_out = [\"{}\"] in the configuration",
                column.name
            );
            return Err(refused(message).advise(hint));
        }
    }
    Ok(columns)
}

/// The key's places in the local order, after checking that both sides mean the same key.
fn match_key(
    local: &LocalTable,
    schema: &TableSchema,
    columns: &[String],
    config: &TableConfig,
) -> Outcome<Vec<usize>> {
    let server: Vec<&str> = schema.key_indexes().iter().map(|place| columns[*place].as_str()).collect();
    let own: Vec<String> = match &config.key {
        Some(key) => key.clone(),
        None => local.primary_key().iter().map(|column| column.name.clone()).collect(),
    };
    let own = if own.is_empty() { server.iter().map(|name| (*name).to_owned()).collect() } else { own };
    let equal =
        own.len() == server.len() && own.iter().all(|name| server.iter().any(|other| same_name(name, other)));
    if !equal {
        return Err(refused(format!(
            "the local key is ({}), the managed table's is ({})",
            own.join(", "),
            server.join(", ")
        ))
        .advise("name the managed table's key columns as key = [..] in the configuration"));
    }
    if !local.is_unique(&server) {
        let list: Vec<_> = own.iter().map(|name| quoted(name)).collect();
        return Err(refused(format!("nothing makes ({}) unique in the local table", own.join(", ")))
            .advise(format!("CREATE UNIQUE INDEX ... ON {} ({})", quoted(&local.name), list.join(", "))));
    }
    let place = |name: &String| columns.iter().position(|column| same_name(column, name));
    Ok(own.iter().filter_map(place).collect())
}
