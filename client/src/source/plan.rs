//! How the rows of one local table become rows of its managed table: settled at the start of a run from
//! both schemas, with a refusal that names the column where they do not fit.

use plimsoll_core::schema::{Axis, TableSchema};
use plimsoll_core::store::Outcome;

use super::local::{LocalColumn, LocalTable, same_name};
use crate::config::TableConfig;
use crate::failure::{Advise, table as refused};

/// A local column that is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentColumn {
    /// Its name as declared.
    pub name: String,
    /// The declared type, as [`LocalColumn::declared`].
    pub declared: String,
    /// Whether it was declared NOT NULL.
    pub not_null: bool,
}

/// One local table on its way to one managed table. Selected columns stand in the order of the managed
/// table's columns.
#[derive(Debug, Clone)]
pub struct TablePlan {
    /// The local table's name as declared.
    pub table: String,
    /// The local table as it stands in a statement.
    pub relation: String,
    /// The managed table.
    pub schema: TableSchema,
    /// The local column for each column of the managed table.
    pub columns: Vec<SentColumn>,
    /// By which columns rows are read in order, behind the version where they stand at it: the places of the key's columns in
    /// the local key's own order. In a keyless table the row's id, whose place is behind the columns, or all columns.
    pub order: Vec<usize>,
    /// As [`LocalTable::row_id`], in keyless tables alone.
    pub row_id: Option<String>,
    /// Whether rows may share a place in that order: equal ones, where a keyless table is read in the order of all columns.
    pub shares_places: bool,
    /// Whether an index leads with the version column, where rows stand at their version.
    pub indexed: bool,
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
        let row_id = local.row_id.clone().filter(|_| schema.is_keyless());
        let order = match (schema.is_keyless(), &row_id) {
            (false, _) => match_key(local, &schema, &columns, config)?,
            (true, Some(_)) => vec![columns.len()],
            (true, None) => own_order(local, &columns).unwrap_or_else(|| (0..columns.len()).collect()),
        };
        let shares_places = schema.is_keyless() && row_id.is_none() && own_order(local, &columns).is_none();
        if let (true, Some(key)) = (schema.is_keyless(), &config.key) {
            let message = format!("the local key is ({}), the managed table has none", key.join(", "));
            return Err(refused(message)
                .advise("take key = [..] out of the configuration, or manage the table again"));
        }
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
        let indexed = match schema.axis() {
            Axis::Version(place) => local.is_indexed_by(&columns[place].name),
            Axis::Hash => false,
        };
        let (table, relation) = (local.name.clone(), local.relation.clone());
        Ok(TablePlan { table, relation, schema, columns, order, row_id, shares_places, indexed })
    }

    /// The place of the version column, where rows stand at their version.
    pub fn version_place(&self) -> Option<usize> {
        match self.schema.axis() {
            Axis::Version(place) => Some(place),
            Axis::Hash => None,
        }
    }

    /// The local version column, where rows stand at their version.
    pub fn version(&self) -> Option<&SentColumn> {
        self.version_place().map(|place| &self.columns[place])
    }

    /// The places of the columns by which a person finds a row: the key's, all in a keyless table.
    pub fn shown(&self) -> impl Iterator<Item = usize> {
        let (key, all) = match self.schema.is_keyless() {
            true => (&[][..], self.columns.len()),
            false => (&self.order[..], 0),
        };
        key.iter().copied().chain(0..all)
    }

    /// The key's columns in the local key's order; none in a keyless table.
    pub fn key_columns(&self) -> impl Iterator<Item = &str> {
        let order: &[usize] = if self.schema.is_keyless() { &[] } else { &self.order };
        order.iter().map(|place| self.columns[*place].name.as_str())
    }
}

/// The places of the local primary key's columns; `None` where there is none, or not all are sent.
fn own_order(local: &LocalTable, columns: &[SentColumn]) -> Option<Vec<usize>> {
    let key = local.primary_key();
    let place = |column: &&LocalColumn| columns.iter().position(|sent| sent.name == column.name);
    key.iter().map(place).collect::<Option<Vec<_>>>().filter(|places| !places.is_empty())
}

fn find<'t>(local: &'t LocalTable, name: &str) -> Outcome<&'t LocalColumn> {
    local.column(name).ok_or_else(|| {
        let names: Vec<_> = local.columns.iter().map(|column| column.name.as_str()).collect();
        refused(format!("the local table \"{}\" has no column \"{name}\"", local.name))
            .advise(format!("its columns are {}", names.join(", ")))
    })
}

fn match_columns(local: &LocalTable, schema: &TableSchema, config: &TableConfig) -> Outcome<Vec<SentColumn>> {
    let left_out = |name: &str| config.leave_out.iter().any(|left| same_name(left, name));
    let mut columns: Vec<SentColumn> = Vec::with_capacity(schema.columns().len());
    let is_sent = |columns: &[SentColumn], name: &str| columns.iter().any(|column| column.name == name);
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
        if is_sent(&columns, &found.name) {
            let message = format!("column \"{}\" stands for two columns of the managed table", found.name);
            return Err(refused(message).advise("names must differ in more than upper and lower case"));
        }
        let LocalColumn { name, declared, not_null, .. } = found.clone();
        columns.push(SentColumn { name, declared, not_null });
    }
    for column in &local.columns {
        if !is_sent(&columns, &column.name) && !left_out(&column.name) {
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
    columns: &[SentColumn],
    config: &TableConfig,
) -> Outcome<Vec<usize>> {
    let server: Vec<&str> = schema.key_indexes().iter().map(|place| columns[*place].name.as_str()).collect();
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
        return Err(refused(format!("nothing makes ({}) unique in the local table", own.join(", ")))
            .advise(format!("CREATE UNIQUE INDEX ... ON {} ({})", local.name, own.join(", "))));
    }
    let place = |name: &String| columns.iter().position(|column| same_name(&column.name, name));
    Ok(own.iter().filter_map(place).collect())
}
