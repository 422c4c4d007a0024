//! Which local column, or what else, each column of a managed table is filled from.

use plimsoll_core::row::{Field, RowWriter, put_field};
use plimsoll_core::schema::{Column, TableSchema};
use plimsoll_core::store::Outcome;
use plimsoll_core::value::literal;

use super::{Origin, SentColumn};
use crate::config::{Constant, TableConfig};
use crate::failure::{Advise, table as refused};
use crate::source::local::{LocalColumn, LocalTable, same_name};

/// The columns of both sides, brought together.
pub(super) struct Matched {
    /// What each column of the managed table is locally.
    pub columns: Vec<SentColumn>,
    /// Local columns that the managed table does not have, and nothing says that they are left out.
    pub unsent: Vec<LocalColumn>,
}

/// A local column that a setting names.
pub(super) fn find<'t>(local: &'t LocalTable, name: &str) -> Outcome<&'t LocalColumn> {
    local.column(name).ok_or_else(|| {
        let names: Vec<_> = local.columns.iter().map(|column| column.name.as_str()).collect();
        refused(format!("the local table \"{}\" has no column \"{name}\"", local.name))
            .advise(format!("its columns are {}", names.join(", ")))
    })
}

/// Brings the columns of both sides together, as far as nothing can be lost or misunderstood by that.
pub(super) fn match_columns(
    local: &LocalTable,
    schema: &TableSchema,
    config: &TableConfig,
    sent_before: &[u32],
) -> Outcome<Matched> {
    for remote in config.columns.values().chain(config.constants.keys()) {
        if !schema.columns().iter().any(|column| same_name(&column.name, remote)) {
            let names: Vec<_> = schema.columns().iter().map(|column| column.name.as_str()).collect();
            return Err(refused(format!("the managed table has no column \"{remote}\" that is sent"))
                .advise(format!("its columns are {}", names.join(", "))));
        }
    }
    let mut columns: Vec<SentColumn> = Vec::with_capacity(schema.columns().len());
    let mut missing = Vec::new();
    for (place, column) in schema.columns().iter().enumerate() {
        let found = source_of(local, column, config)?;
        let sent = match (config.constant(&column.name), found) {
            (Some(_), Some(found)) => {
                let message = format!(
                    "column \"{}\" of the managed table is a constant, and the local table has \"{}\"",
                    column.name, found.name
                );
                return Err(refused(message).advise(format!("leave_out = [\"{}\"]", found.name)));
            }
            (Some(value), None) => constant(schema, place, value)?,
            (None, Some(found)) => {
                if columns.iter().any(|sent| sent.is_local() && sent.name == found.name) {
                    let message =
                        format!("column \"{}\" stands for two columns of the managed table", found.name);
                    return Err(
                        refused(message).advise("names must differ in more than upper and lower case")
                    );
                }
                sent(schema, place, found, config)?
            }
            (None, None) => {
                missing.push(place);
                SentColumn {
                    name: column.name.clone(),
                    declared: String::new(),
                    not_null: false,
                    origin: Origin::Absent,
                }
            }
        };
        columns.push(sent);
    }
    let is_sent = |name: &str| columns.iter().any(|sent| sent.is_local() && sent.name == name);
    let unsent: Vec<LocalColumn> = local
        .columns
        .iter()
        .filter(|column| !is_sent(&column.name) && !config.leaves_out(&column.name))
        .cloned()
        .collect();
    for place in missing {
        check_absent(local, schema, place, &unsent, sent_before)?;
    }
    if let Some(column) = unsent.iter().find(|column| config.conversion(&column.name).is_some()) {
        return Err(refused(format!("column \"{}\" is converted, and not sent", column.name))
            .advise("take it out of convert, or add it to the managed table"));
    }
    Ok(Matched { columns, unsent })
}

/// The local column that a managed column is filled from, if there is one.
fn source_of<'t>(
    local: &'t LocalTable,
    column: &Column,
    config: &TableConfig,
) -> Outcome<Option<&'t LocalColumn>> {
    let is_renamed_here = |found: &&LocalColumn| {
        config.renamed(&found.name).is_some_and(|remote| same_name(remote, &column.name))
    };
    // One that is called so, and nothing says that it is another's.
    let named = local.column(&column.name).filter(|found| config.renamed(&found.name).is_none());
    if let Some(renamed) = local.columns.iter().find(is_renamed_here) {
        if let Some(named) = named.filter(|named| !config.leaves_out(&named.name)) {
            let message = format!(
                "column \"{}\" is renamed to \"{}\", and the local table has \"{}\" too",
                renamed.name, column.name, named.name
            );
            return Err(
                refused(message).advise(format!("leave_out = [\"{}\"], or rename it too", named.name))
            );
        }
        return Ok(Some(renamed));
    }
    match named {
        Some(found) if config.leaves_out(&found.name) && config.constant(&column.name).is_none() => {
            Err(refused(format!("column \"{}\" is left out, but the managed table has it", found.name))
                .advise("take it out of leave_out, or name it in server_columns of plimsoll.manage_table"))
        }
        named => Ok(named.filter(|found| !config.leaves_out(&found.name))),
    }
}

/// Whether a column decides which row is which, or where one stands.
fn plays_a_part(schema: &TableSchema, place: usize) -> bool {
    schema.key_indexes().contains(&place)
        || schema.placed_by_indexes().contains(&place)
        || schema.version_index() == Some(place)
}

fn sent(
    schema: &TableSchema,
    place: usize,
    found: &LocalColumn,
    config: &TableConfig,
) -> Outcome<SentColumn> {
    let column = &schema.columns()[place];
    let conversion = config.conversion(&found.name);
    if let Some(conversion) = conversion {
        let wrong = |why: &str| {
            Err(refused(format!("column \"{}\" cannot be converted by {conversion}: {why}", found.name)))
        };
        if !conversion.fits(&column.column_type) {
            return wrong(&format!("the managed column is {}", column.column_type));
        }
        if schema.version_index() == Some(place) {
            return wrong("it is the version, by which rows are found").map_err(|failure| {
                failure.advise(
                    "give the managed column a type that holds the version as it is, bigint for numbers",
                )
            });
        }
        // Rows without a key that become the same are as many copies of it.
        if schema.key_indexes().contains(&place) && conversion.may_lose() {
            return wrong("rows of different keys could become one");
        }
    }
    let LocalColumn { name, declared, not_null, .. } = found.clone();
    Ok(SentColumn { name, declared, not_null, origin: Origin::Column(conversion) })
}

/// A column that holds the same in all rows.
fn constant(schema: &TableSchema, place: usize, value: &Constant) -> Outcome<SentColumn> {
    let column = &schema.columns()[place];
    if schema.version_index() == Some(place) {
        return Err(refused(format!("column \"{}\" is the version: it cannot be a constant", column.name)));
    }
    let text = value.to_string();
    let fields = || {
        let mut buffer = Vec::new();
        let value = literal::parse(&text, &column.column_type, &mut buffer)?;
        column.column_type.check(&value)?;
        let (mut wire, mut form) = (Vec::new(), Vec::new());
        RowWriter::new(&mut wire).field(column.number, &value);
        put_field(&mut form, &Field { number: column.number, value, bytes: &wire })?;
        Ok((wire, form))
    };
    let unfit = |error: plimsoll_core::Error| {
        refused(format!("the constant for column \"{}\": {}", column.name, error.message()))
    };
    let (wire, form) = fields().map_err(unfit)?;
    let (name, declared) = (column.name.clone(), column.column_type.to_string());
    Ok(SentColumn { name, declared, not_null: true, origin: Origin::Constant { wire, form } })
}

/// Refuses a managed column without a local one where rows cannot do without it, where it may be one of those that
/// nobody sends, under another name, and where it was sent before: NULL would take the place of its values.
fn check_absent(
    local: &LocalTable,
    schema: &TableSchema,
    place: usize,
    unsent: &[LocalColumn],
    sent_before: &[u32],
) -> Outcome<()> {
    let Column { number, name, not_null, .. } = &schema.columns()[place];
    let here = &local.name;
    let server_fills = "or name it in server_columns of plimsoll.manage_table if the server alone fills it";
    if let Some(other) = unsent.first() {
        let message = format!(
            "column \"{name}\" of the managed table is not in the local table \"{here}\", and \"{}\" is nowhere else",
            other.name
        );
        return Err(refused(message).advise(format!(
            "where both are the same: columns = {{ {:?} = {name:?} }}; else leave_out = [\"{}\"], and add \"{name}\" \
             locally, {server_fills}",
            other.name, other.name
        )));
    }
    if *not_null || plays_a_part(schema, place) {
        let message = format!("column \"{name}\" of the managed table is not in the local table \"{here}\"");
        return Err(refused(message).advise(format!(
            "add the column locally, give it a value: constants = {{ {name:?} = .. }}, {server_fills}"
        )));
    }
    if sent_before.contains(number) {
        let message = format!("column \"{name}\" is not in the local table \"{here}\" any more");
        return Err(refused(message).advise(format!(
            "its values on the server would be lost: add it again; {server_fills}; or drop it there: ALTER TABLE .. DROP \
             COLUMN {name:?}"
        )));
    }
    Ok(())
}

/// The key's places in the local order, after checking that both sides mean the same key. Constants are the same in all
/// rows: the others must tell rows apart.
pub(super) fn match_key(
    local: &LocalTable,
    schema: &TableSchema,
    columns: &[SentColumn],
    config: &TableConfig,
) -> Outcome<Vec<usize>> {
    let places = schema.key_indexes().iter().copied().filter(|place| columns[*place].is_local());
    let server: Vec<&str> = places.map(|place| columns[place].name.as_str()).collect();
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
    let place =
        |name: &String| columns.iter().position(|column| column.is_local() && same_name(&column.name, name));
    Ok(own.iter().filter_map(place).collect())
}
