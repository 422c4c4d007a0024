//! Which columns of a table play which part when it is handed over: key, version, and those that place rows.

use pgrx::pg_sys::Oid;
use pgrx::spi::Spi;
use plimsoll_core::schema::{Column, Roles, TableSchema};

use super::catalog;
use super::manage::{find, find_not_null, unfit};
use crate::datum::{Attribute, Codec, quoted};
use crate::error::{Answer, Problem, state};

/// A unique index by which rows can be told apart: its columns without those of the tenant.
struct Key {
    columns: Vec<String>,
    index: String,
    primary: bool,
}

/// The key that a table has besides its tenant columns, the primary key before others. An index that holds the version
/// beside other columns is none: each change would be another row.
fn usable_key(oid: Oid, tenant: &[String], version: Option<&str>) -> Answer<Option<Key>> {
    Spi::connect(|client| {
        let rows = client.select(
            "SELECT k.columns, c.relname::pg_catalog.text, i.indisprimary
             FROM pg_catalog.pg_index i
             JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
             CROSS JOIN LATERAL (
                 SELECT pg_catalog.array_agg(a.attname::pg_catalog.text ORDER BY u.place) AS columns,
                        pg_catalog.bool_and(a.attnotnull AND NOT EXISTS (
                            -- Postgres 18: rows that were there before may have NULL all the same.
                            SELECT FROM pg_catalog.pg_constraint n
                            WHERE n.conrelid OPERATOR(pg_catalog.=) a.attrelid
                              AND n.contype OPERATOR(pg_catalog.=) 'n' AND NOT n.convalidated
                              AND n.conkey OPERATOR(pg_catalog.=) ARRAY[a.attnum])) AS not_null
                 FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS u (attnum, place)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid
                      AND a.attnum OPERATOR(pg_catalog.=) u.attnum
                 WHERE u.place OPERATOR(pg_catalog.<=) i.indnkeyatts) k
             WHERE i.indrelid OPERATOR(pg_catalog.=) $1 AND i.indisunique AND i.indisvalid
               AND NOT i.indisexclusion AND i.indpred IS NULL AND i.indexprs IS NULL AND k.not_null
               AND k.columns OPERATOR(pg_catalog.@>) $2 AND NOT k.columns OPERATOR(pg_catalog.<@) $2
             ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid",
            None,
            &[oid.into(), tenant.to_vec().into()],
        )?;
        for row in rows {
            let mut columns: Vec<String> = row.get(1)?.unwrap_or_default();
            columns.retain(|column| !tenant.contains(column));
            let primary = row.get(3)?.unwrap_or(false);
            let changes = columns.len() > 1 && columns.iter().any(|column| Some(column.as_str()) == version);
            if primary || !changes {
                return Ok(Some(Key { columns, index: row.get(2)?.unwrap_or_default(), primary }));
            }
        }
        Ok(None)
    })
}

/// The primary key's columns, whether or not it holds the tenant's.
fn primary_key(oid: Oid) -> Answer<Vec<String>> {
    let columns = Spi::get_one_with_args::<Vec<String>>(
        "SELECT (SELECT pg_catalog.array_agg(a.attname::pg_catalog.text ORDER BY k.place)
                 FROM pg_catalog.pg_index i
                 CROSS JOIN pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k (attnum, place)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid
                      AND a.attnum OPERATOR(pg_catalog.=) k.attnum
                 WHERE i.indrelid OPERATOR(pg_catalog.=) $1 AND i.indisprimary
                   AND k.place OPERATOR(pg_catalog.<=) i.indnkeyatts)",
        &[oid.into()],
    )?;
    Ok(columns.unwrap_or_default())
}

/// The key: the one that is wished for, else the primary key, else a unique index over columns that are never NULL.
/// None, only where that is said.
///
/// # Errors
/// `UNFIT_TABLE` where there is none, with what to do; `BAD_ARGUMENT` where there is one and none is wished for.
pub fn key(
    oid: Oid,
    shown: &str,
    wished: Option<&[String]>,
    tenant: &[String],
    version: Option<&str>,
) -> Answer<Vec<String>> {
    match (wished, usable_key(oid, tenant, version)?) {
        (Some([]), Some(key)) => {
            let message = format!("table {shown} has a key: ({})", key.columns.join(", "));
            Err(Problem::new(state::BAD_ARGUMENT, message)
                .detail("A table is managed without one only where rows cannot be told apart otherwise.")
                .hint("Leave key_columns out."))
        }
        (Some([]), None) => {
            pgrx::notice!(
                "{shown} is managed without a key: rows are told apart by their whole content, and equal ones are counted"
            );
            Ok(Vec::new())
        }
        (Some(wished), _) => Ok(wished.to_vec()),
        (None, Some(key)) => {
            if !key.primary {
                let columns = key.columns.join(", ");
                pgrx::notice!("the key of {shown} is ({columns}), by unique index {}", quoted(&key.index));
            }
            Ok(key.columns)
        }
        (None, None) => {
            let mut key = primary_key(oid)?;
            key.retain(|column| !tenant.contains(column));
            if !key.is_empty() {
                // What its unique index lacks is told when that is looked for.
                return Ok(key);
            }
            let columns = tenant.iter().map(|column| quoted(column) + ", ").collect::<String>();
            Err(unfit(format!("table {shown} has no usable key"))
                .detail("Neither a primary key nor a unique index tells the rows of a tenant apart by columns that are never NULL.")
                .hint(format!(
                    "ALTER TABLE {shown} ADD PRIMARY KEY ({columns}...); or pass key_columns => '{{}}': then rows are \
                     told apart by their whole content, and equal rows are counted."
                )))
        }
    }
}

/// How rows change: the version column, and the scope in which its values grow.
pub struct Versions<'w> {
    /// The version column, if there is one.
    pub column: Option<&'w str>,
    /// `table` or `row`.
    pub scope: &'w str,
}

/// The columns whose hash is the position, without those that are settled only when all columns are known: none where
/// rows stand at their version.
///
/// # Errors
/// `BAD_ARGUMENT`, `UNFIT_TABLE` where key and version do not go together.
pub fn placing_key(
    attributes: &[Attribute],
    shown: &str,
    key: &[String],
    versions: &Versions<'_>,
) -> Answer<Option<Vec<String>>> {
    let bad = |message: String| Problem::new(state::BAD_ARGUMENT, message);
    match (versions.scope, versions.column) {
        ("table", None) if key.is_empty() => Ok(None),
        ("table", None) => Ok(Some(key.to_vec())),
        ("table", Some(column)) => {
            let attribute = find_not_null(attributes, column, "version", shown)?;
            check_version_type(attribute)?;
            Ok(Some(Vec::new()))
        }
        ("row", None) => Err(bad(format!("version_scope 'row' of {shown} needs a version column"))
            .hint("Name version_column; or leave version_scope out, then any change of content counts.")),
        ("row", Some(_)) if key.is_empty() => {
            Err(bad(format!("version_scope 'row' of {shown} needs a key")).hint("Leave version_column out."))
        }
        ("row", Some(column)) => {
            if find(attributes, column, "version", shown)?.generated {
                return Err(unfit(format!("version column \"{column}\" of {shown} is generated"))
                    .hint("It must be one that can be written."));
            }
            Ok(Some(key.to_vec()))
        }
        (other, _) => Err(bad(format!("version_scope '{other}' is not known")).hint("Use 'table' or 'row'.")),
    }
}

/// All columns that are sent, which place the rows of a table without key and version. Those that did when it was
/// managed before go on to do so while they are there: a column that was added since moves no row.
pub fn placing_all(shown: &str, sent: &[String]) -> Answer<Vec<String>> {
    if sent.is_empty() {
        return Err(unfit(format!("no column of table {shown} is sent")));
    }
    let before = catalog::registration_by_name(shown).ok().filter(|before| before.key_columns.is_empty());
    let placed_by = before.map(|before| before.placed_by).unwrap_or_default();
    let is_fit = !placed_by.is_empty() && placed_by.iter().all(|column| sent.contains(column));
    Ok(if is_fit { placed_by } else { sent.to_vec() })
}

/// Whether values of the column's type have an order in which the changes of a whole table can be numbered.
fn check_version_type(attribute: &Attribute) -> Answer<()> {
    let column = Column {
        number: 1,
        name: attribute.name.clone(),
        column_type: Codec::new(attribute.type_oid, attribute.typmod)?.column_type,
        not_null: true,
    };
    let name = [attribute.name.as_str()];
    let roles = Roles { key: &name, version: Some(name[0]), ..Roles::default() };
    let schema = TableSchema::new(vec![column], &roles);
    schema.map(drop).map_err(|error| {
        unfit(error.message().to_owned()).hint(
            "Use smallint, integer, bigint, xid8, timestamp, timestamptz or bytea; a status or a revision that each \
             row has of its own is one with version_scope => 'row'.",
        )
    })
}
