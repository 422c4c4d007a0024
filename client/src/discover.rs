//! Which columns of a local table are its key, version and last change, where nobody says.

use crate::source::local::{Holds, LocalColumn, LocalTable};

/// Usual names of version columns, the surest first. The names for times count as versions only where the
/// table has none of the others.
const VERSION_NAMES: [&str; 20] = [
    "version",
    "row_version",
    "rowversion",
    "row_ver",
    "version_no",
    "version_number",
    "revision",
    "rev",
    "change_number",
    "changeno",
    "change_seq",
    "change_id",
    "lsn",
    "updated_at",
    "modified_at",
    "last_modified",
    "changed_at",
    "last_changed",
    "modified",
    "updated",
];

/// Usual names of columns that say when a row was last changed.
const MODIFIED_NAMES: [&str; 9] = [
    "updated_at",
    "modified_at",
    "last_modified",
    "changed_at",
    "last_changed",
    "last_update",
    "modified",
    "updated",
    "changed",
];

/// What was found out about a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered<'t> {
    /// The key's columns; none where nothing tells rows apart: a row is its content then.
    pub key: Vec<&'t str>,
    /// The version column; without one rows stand at a hash, and each comparison reads them all.
    pub version: Option<&'t str>,
    /// The last-modified column, where it is another one.
    pub modified: Option<&'t str>,
}

/// Finds key, version and last change of a table. `version` names the version column where it has another name than the
/// usual ones; tables without it have none.
pub fn discover<'t>(table: &'t LocalTable, version: Option<&str>) -> Discovered<'t> {
    let mut key: Vec<&str> = table.primary_key().iter().map(|column| column.name.as_str()).collect();
    if key.is_empty() {
        // A unique index over columns that take no NULL serves as well.
        let sound = |columns: &[String]| {
            !columns.is_empty()
                && columns.iter().all(|name| table.column(name).is_some_and(|column| column.not_null))
        };
        let index = table.indexes.iter().find(|index| index.unique && sound(&index.columns));
        key = index.map(|index| index.columns.iter().map(String::as_str).collect()).unwrap_or_default();
    }
    let version = match version {
        Some(name) => table.column(name).map(|column| column.name.as_str()),
        None => named(table, &VERSION_NAMES, is_version),
    };
    let modified =
        named(table, &MODIFIED_NAMES, |column| !is_number(column)).filter(|name| Some(*name) != version);
    Discovered { key, version, modified }
}

fn named<'t>(table: &'t LocalTable, names: &[&str], fits: impl Fn(&LocalColumn) -> bool) -> Option<&'t str> {
    names.iter().find_map(|name| {
        let found = table.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name));
        found.filter(|column| fits(column)).map(|column| column.name.as_str())
    })
}

fn is_number(column: &LocalColumn) -> bool {
    column.holds == Holds::Numbers
}

/// Whether the declared type can hold a version: a whole number, a point in time, or what the database counts up.
fn is_version(column: &LocalColumn) -> bool {
    match column.holds {
        Holds::Numbers | Holds::Stamps | Holds::RowVersions => true,
        Holds::Text => column.name.to_ascii_lowercase().ends_with("_at"),
        Holds::Other => false,
    }
}
