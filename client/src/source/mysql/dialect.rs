//! Statements of MariaDB and MySQL.
//!
//! Rows are ordered and compared by the database's own order of a column, so that a cursor neither passes over rows nor
//! meets them twice: values that are bound are given the column's character set and collation. Where that order lets
//! different values share a place (text of a keyless table under a collation that ignores case), or looks at the first
//! bytes of long values alone (TEXT, BLOB), the hash of the value takes its place: any order does.

use mysql_async::Value as Raw;
use plimsoll_core::schema::least_version_bytes;
use plimsoll_core::value::ColumnType;
use sha2::{Digest, Sha256};

use super::catalogue::Index;
use super::raw::{bound, moment, moments};
use super::types::{LocalType, TextType};
use crate::source::plan::TablePlan;
use crate::source::query::{Order, Query, RawValue};
use crate::source::statement::{Dialect, Parameter};

/// The first byte of a text that cannot be told in UTF-8; no text begins with it.
pub const NO_UTF8: u8 = 0xff;
/// More rows than there can be.
const ALL_ROWS: &str = "18446744073709551615";

/// The dialect of both, for a table with these indexes.
pub struct Sql<'a>(pub &'a [Index]);

/// A name as it stands in a statement.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// The local type of the plan's column at this place.
pub fn local_type(plan: &TablePlan, place: usize) -> LocalType {
    plan.columns
        .get(place)
        .map_or(LocalType::Other(String::new()), |column| LocalType::parse(&column.declared))
}

/// Whether the hash of a value stands for it where rows are ordered by it.
fn is_hashed(plan: &TablePlan, local: &LocalType) -> bool {
    match local {
        LocalType::Text(text) => text.length.is_none() || plan.schema.is_keyless(),
        LocalType::Binary { length, .. } => length.is_none(),
        LocalType::Members { .. } | LocalType::Json => true,
        _ => false,
    }
}

/// A text column in UTF-8. One whose character set has texts that UTF-8 has not is turned back to see whether it is the
/// same; if not, what is answered is no text at all.
pub fn selected(name: &str, text: &TextType) -> String {
    if text.is_lossless() {
        return name.to_owned();
    }
    let there = format!("CONVERT({name} USING utf8mb4)");
    let back = format!("CONVERT({there} USING {})", text.charset);
    format!(
        "IF(CAST({back} AS BINARY) <=> CAST({name} AS BINARY), CAST({there} AS BINARY), \
         CONCAT(x'ff', CAST({name} AS BINARY)))"
    )
}

impl Dialect for Sql<'_> {
    fn quoted(&self, name: &str) -> String {
        quoted(name)
    }

    fn mark(&self, _: usize, parameter: &Parameter<'_>, plan: &TablePlan) -> String {
        let place = match parameter {
            Parameter::Read(place, _) => *place,
            Parameter::Version(..) | Parameter::Least(_) => plan.version_place().unwrap_or(usize::MAX),
            Parameter::Rows(_) => return "?".to_owned(),
        };
        match local_type(plan, place) {
            local if is_hashed(plan, &local) => "?".to_owned(),
            LocalType::Text(TextType { charset, collation, .. }) => {
                format!("CONVERT(? USING {charset}) COLLATE {collation}")
            }
            LocalType::Binary { .. } => "UNHEX(?)".to_owned(),
            LocalType::Decimal(precision, scale) => format!("CAST(? AS DECIMAL({precision},{scale}))"),
            LocalType::Uuid => "CAST(? AS UUID)".to_owned(),
            LocalType::Inet(name) => format!("CAST(? AS {name})"),
            _ => "?".to_owned(),
        }
    }

    /// Versions that are numbers may be larger than any position.
    fn placed(&self, plan: &TablePlan) -> String {
        let version = self.version(plan);
        match local_type(plan, plan.version_place().unwrap_or(usize::MAX)) {
            LocalType::Integer { unsigned: true, .. } | LocalType::Decimal(..) => {
                format!("{version} <= {}", i64::MAX)
            }
            _ => format!("{version} IS NOT NULL"),
        }
    }

    fn misplaced(&self, plan: &TablePlan) -> String {
        let version = self.version(plan);
        let beyond = match local_type(plan, plan.version_place().unwrap_or(usize::MAX)) {
            LocalType::Integer { unsigned: true, .. } => format!(" OR {version} > {}", i64::MAX),
            LocalType::Decimal(..) => {
                format!(" OR {version} > {} OR {version} < {}", i64::MAX, i64::MIN)
            }
            // Dates that the calendar has not: what the modes of the server once let in.
            LocalType::Date | LocalType::Datetime(_) | LocalType::Timestamp(_) => format!(
                " OR YEAR({version}) = 0 OR MONTH({version}) = 0 OR DAYOFMONTH({version}) = 0 \
                 OR DAYOFMONTH({version}) > DAYOFMONTH(LAST_DAY({version}))"
            ),
            _ => String::new(),
        };
        format!("({version} IS NULL{beyond})")
    }

    fn selected(&self, plan: &TablePlan, place: usize) -> String {
        let name = quoted(&plan.columns[place].name);
        match local_type(plan, place) {
            LocalType::Text(text) | LocalType::Members { text, .. } => selected(&name, &text),
            _ => name,
        }
    }

    fn ordered(&self, plan: &TablePlan, place: usize) -> String {
        let Some(column) = plan.columns.get(place) else { return String::new() };
        let name = quoted(&column.name);
        match local_type(plan, place) {
            local if !is_hashed(plan, &local) => name,
            LocalType::Binary { .. } => format!("SHA2({name}, 256)"),
            LocalType::Text(text) | LocalType::Members { text, .. } if !text.is_lossless() => {
                format!("SHA2({}, 256)", selected(&name, &text))
            }
            _ => format!("SHA2(CONVERT({name} USING utf8mb4), 256)"),
        }
    }

    fn has_unique_versions(&self, plan: &TablePlan) -> bool {
        let version = plan.version_place().and_then(|place| plan.columns.get(place));
        version.is_some_and(|version| {
            let is_its = |columns: &[String]| columns.first() == Some(&version.name);
            let mut indexes = self.0.iter();
            // One by a hash orders nothing.
            indexes.any(|index| {
                index.is_unique && index.columns.len() == 1 && is_its(&index.columns) && is_its(&index.order)
            })
        })
    }

    /// Where all but the first rows are left, the index that has their order: the planner thinks that sorting the table is
    /// faster, as it would be for all rows.
    fn index(&self, query: &Query<'_>) -> String {
        let plan = query.plan;
        let name = |place: &usize| plan.columns.get(*place).map(|column| column.name.as_str());
        let version = plan.version_place().and_then(|place| name(&place));
        let is_taken_as_it_is = |place: &usize| !is_hashed(plan, &local_type(plan, *place));
        let order: Vec<&str> = match query.order {
            Order::Version | Order::VersionDown => version.into_iter().collect(),
            Order::Reading if self.has_unique_versions(plan) => version.into_iter().collect(),
            Order::Reading if plan.order.iter().all(is_taken_as_it_is) => {
                version.into_iter().chain(plan.order.iter().filter_map(name)).collect()
            }
            Order::Reading | Order::Any => return String::new(),
        };
        if query.limit.is_none() {
            return String::new();
        }
        match self.0.iter().find(|index| index.orders(&order)) {
            Some(index) => format!(" FORCE INDEX ({})", quoted(&index.name)),
            None => String::new(),
        }
    }

    fn compares_rows(&self) -> bool {
        false
    }

    fn nulls_first(&self) -> bool {
        true
    }

    fn limits(&self, limit: Option<String>, skip: Option<String>) -> String {
        match (limit, skip) {
            (None, None) => String::new(),
            (Some(limit), None) => format!(" LIMIT {limit}"),
            (limit, Some(skip)) => format!(" LIMIT {} OFFSET {skip}", limit.as_deref().unwrap_or(ALL_ROWS)),
        }
    }
}

fn hex(bytes: &[u8]) -> Raw {
    Raw::Bytes(bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect())
}

/// What a parameter is bound to.
pub fn value(plan: &TablePlan, parameter: &Parameter<'_>) -> Raw {
    let read = |place: usize, value: &RawValue| {
        let local = local_type(plan, place);
        match (bound(value), &local) {
            (Raw::Bytes(bytes), local) if is_hashed(plan, local) => hex(&Sha256::digest(&bytes)),
            (Raw::Bytes(bytes), LocalType::Binary { .. }) => hex(&bytes),
            (raw, _) => raw,
        }
    };
    match parameter {
        Parameter::Rows(rows) => Raw::UInt(*rows),
        Parameter::Read(place, value) => read(*place, value),
        Parameter::Version(_, value) => read(plan.version_place().unwrap_or(usize::MAX), value),
        Parameter::Least(position) => match plan.schema.version().map(|column| &column.column_type) {
            Some(ColumnType::Timestamp(_) | ColumnType::Timestamptz(_)) => moment(*position),
            Some(ColumnType::Bytea) => hex(&least_version_bytes(*position)),
            _ => Raw::Int(*position),
        },
    }
}

/// The positions that versions of the plan's table can have: outside, no bound can be bound. `None`: all.
pub fn bounds(plan: &TablePlan) -> Option<(i64, i64)> {
    match plan.schema.version().map(|column| &column.column_type) {
        Some(ColumnType::Timestamp(_) | ColumnType::Timestamptz(_)) => Some(moments()),
        _ => None,
    }
}
