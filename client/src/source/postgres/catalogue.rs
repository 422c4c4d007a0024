//! What a Postgres database says of its tables and of their types.

use std::collections::HashSet;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use super::shape::{Making, TypeRow, Types};
use crate::source::local::{Holds, LocalColumn, LocalIndex, LocalTable};

/// A column's type as the catalogue has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnType {
    /// The type.
    pub oid: u32,
    /// Its modifier, -1 where there is none.
    pub modifier: i32,
    /// Whether its values are compared as text: its own comparison calls some the same that a key tells apart.
    pub as_text: bool,
}

/// A table with its columns' types, in the order of its columns.
#[derive(Debug, Clone)]
pub struct Described {
    /// What every kind of database tells.
    pub table: LocalTable,
    /// The columns' types.
    pub types: Vec<ColumnType>,
}

/// Ordinary and partitioned tables and materialised views that are no partitions and no part of the system.
const NAMES: &str = "SELECT n.nspname::text, c.relname::text, c.relkind::text, c.oid
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition AND c.relpersistence <> 't'
         AND c.relname NOT LIKE 'plimsoll\\_%'
         AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
             WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
     ORDER BY n.nspname <> 'public', n.nspname, c.relname";

/// One table, by its schema (any where it is NULL) and name; also what cannot be read, so that it can be said.
const BY_NAME: &str = "SELECT n.nspname::text, c.relname::text, c.relkind::text, c.oid
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f') AND c.relpersistence <> 't'
         AND lower(c.relname) = lower($2) AND ($1::text IS NULL OR lower(n.nspname) = lower($1))
         AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
     ORDER BY c.relname <> $2, $1::text IS NOT NULL AND n.nspname <> $1, n.nspname <> 'public', n.nspname";

/// Columns. NOT NULL holds only where it was checked for every row. The last says whether the column's collation may call
/// two keys the same that an index of another collation tells apart.
const COLUMNS: &str = "SELECT a.attname::text, a.atttypid, a.atttypmod,
         a.attnotnull AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = a.attrelid
             AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum] AND NOT k.convalidated),
         a.attgenerated <> '', pg_catalog.format_type(a.atttypid, a.atttypmod),
         EXISTS (SELECT FROM pg_catalog.pg_collation c, pg_catalog.pg_index i,
                 ROWS FROM (pg_catalog.unnest(i.indkey::int2[]), pg_catalog.unnest(i.indcollation::oid[])) k(number, rule)
             WHERE c.oid = a.attcollation AND NOT c.collisdeterministic AND i.indrelid = a.attrelid AND i.indisunique
                 AND k.number = a.attnum AND k.rule <> a.attcollation)
     FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
     ORDER BY a.attnum";

/// Indexes that hold every row and are there for readers: uniqueness counts only where it is checked at once.
const INDEXES: &str = "SELECT i.indisprimary AND NOT i.indisexclusion,
         i.indisunique AND i.indimmediate AND NOT i.indisexclusion,
         ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k(number, place)
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number AND k.number > 0
             WHERE k.place <= i.indnkeyatts ORDER BY k.place),
         am.amname = 'btree'
     FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
         JOIN pg_catalog.pg_am am ON am.oid = c.relam
     WHERE i.indrelid = $1 AND i.indpred IS NULL AND i.indisvalid
     ORDER BY i.indisprimary DESC, c.relname";

/// Types with all that they are made of.
const TYPES: &str = "WITH RECURSIVE needed(oid) AS (
         SELECT pg_catalog.unnest($1::oid[])
         UNION SELECT part.oid FROM needed JOIN pg_catalog.pg_type t ON t.oid = needed.oid
             CROSS JOIN LATERAL (
                 SELECT t.typbasetype
                 UNION ALL SELECT t.typelem WHERE t.typcategory = 'A'
                 UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid
                 UNION ALL SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngmultitypid = t.oid
                 UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
                     WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
             ) part(oid) WHERE part.oid <> 0)
     SELECT t.oid, pg_catalog.format_type(t.oid, NULL), t.typtype::text, t.typbasetype, t.typtypmod,
         CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END,
         (SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid),
         (SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngmultitypid = t.oid),
         ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE t.typtype = 'c'
             AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
         ARRAY(SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE t.typtype = 'c'
             AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
         (SELECT n.nspname::text FROM pg_catalog.pg_opclass o
             JOIN pg_catalog.pg_amop m ON m.amopfamily = o.opcfamily AND m.amopstrategy = 3
                 AND m.amoplefttype = o.opcintype AND m.amoprighttype = o.opcintype
             JOIN pg_catalog.pg_operator p ON p.oid = m.amopopr JOIN pg_catalog.pg_namespace n ON n.oid = p.oprnamespace
             WHERE o.opcdefault AND o.opcintype = t.oid AND o.opcmethod = 403)
     FROM needed JOIN pg_catalog.pg_type t ON t.oid = needed.oid";

/// A table's place in the catalogue.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What it is, as `pg_class.relkind`.
    pub kind: String,
    /// Its OID.
    pub oid: u32,
}

impl Found {
    /// From its schema, name, kind and OID.
    ///
    /// # Errors
    /// Where the row begins with other columns.
    pub fn of(row: &Row) -> Result<Self, Error> {
        Ok(Found {
            schema: row.try_get(0)?,
            name: row.try_get(1)?,
            kind: row.try_get(2)?,
            oid: row.try_get(3)?,
        })
    }

    /// The name by which a configuration knows it: the schema is left out where it is `public`.
    pub fn local_name(&self) -> String {
        match self.schema.as_str() {
            "public" => quoted_part(&self.name),
            schema => format!("{}.{}", quoted_part(schema), quoted_part(&self.name)),
        }
    }
}

/// A name in a configuration: quoted only where it would be read as two.
fn quoted_part(name: &str) -> String {
    match name.contains(['.', '"']) {
        true => quoted(name),
        false => name.to_owned(),
    }
}

/// A name in quotes.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// All tables that an application made.
pub async fn tables(client: &Client) -> Result<Vec<Found>, Error> {
    client.query_typed(NAMES, &[]).await?.iter().map(Found::of).collect()
}

/// The tables, views and foreign tables of a name, those spelled alike and in the schema `public` first.
pub async fn find(client: &Client, schema: Option<&str>, name: &str) -> Result<Vec<Found>, Error> {
    let rows = client.query_typed(BY_NAME, &[(&schema, Type::TEXT), (&name, Type::TEXT)]).await?;
    rows.iter().map(Found::of).collect()
}

/// Columns, keys and indexes of a table.
pub async fn describe(client: &Client, found: &Found) -> Result<Described, Error> {
    let oid = &[(&found.oid as &(dyn tokio_postgres::types::ToSql + Sync), Type::OID)];
    let rows = client.query_typed(COLUMNS, oid).await?;
    let indexes = client.query_typed(INDEXES, oid).await?;
    let (mut columns, mut types) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in &rows {
        types.push(ColumnType { oid: row.try_get(1)?, modifier: row.try_get(2)?, as_text: row.try_get(6)? });
        columns.push(LocalColumn {
            name: row.try_get(0)?,
            declared: row.try_get(5)?,
            holds: Holds::Other,
            not_null: row.try_get(3)?,
            key_place: 0,
            generated: row.try_get(4)?,
        });
    }
    let mut read = Vec::with_capacity(indexes.len());
    for row in &indexes {
        let (primary, unique, ordered) = (row.try_get(0)?, row.try_get(1)?, row.try_get(3)?);
        let names: Vec<Option<String>> = row.try_get(2)?;
        // What an expression makes unique is no set of columns.
        let unique = unique && names.iter().all(Option::is_some);
        if primary {
            for (place, name) in (1..).zip(names.iter().flatten()) {
                if let Some(column) = columns.iter_mut().find(|column| column.name == *name) {
                    column.key_place = place;
                }
            }
        }
        let plain: Vec<String> = names.into_iter().map_while(|name| name).collect();
        // Rows come in order of trees alone; what another kind of index makes unique is unique all the same.
        if ordered || unique {
            read.push(LocalIndex { columns: plain, unique });
        }
    }
    // The rows of tables that inherit are those tables' own.
    let only = if found.kind == "r" { "ONLY " } else { "" };
    let relation = format!("{only}{}.{}", quoted(&found.schema), quoted(&found.name));
    let row_id = (found.kind != "p").then(|| "ctid".to_owned());
    let table = LocalTable { name: found.local_name(), relation, columns, indexes: read, row_id };
    Ok(Described { table, types })
}

/// Adds the types of a table's columns to those known.
pub async fn read_types(client: &Client, wanted: &[ColumnType], known: &mut Types) -> Result<(), Error> {
    let wanted: HashSet<u32> = wanted.iter().map(|wanted| wanted.oid).collect();
    let unknown: Vec<u32> = wanted.into_iter().filter(|oid| !known.0.contains_key(oid)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    for row in client.query_typed(TYPES, &[(&unknown, Type::OID_ARRAY)]).await? {
        let (kind, element): (String, u32) = (row.try_get(2)?, row.try_get(5)?);
        let (bound, range): (Option<u32>, Option<u32>) = (row.try_get(6)?, row.try_get(7)?);
        let making = match (kind.as_str(), bound, range) {
            ("e", ..) => Making::Enum,
            ("d", ..) => Making::Domain(row.try_get(3)?, row.try_get(4)?),
            ("c", ..) => {
                let (names, types): (Vec<String>, Vec<u32>) = (row.try_get(8)?, row.try_get(9)?);
                Making::Composite(names.into_iter().zip(types).collect())
            }
            (_, Some(bound), _) => Making::Range(bound),
            (_, _, Some(range)) => Making::Multirange(range),
            _ if element > 0 => Making::Array(element),
            _ => Making::Base,
        };
        let operators: Option<String> = row.try_get(10)?;
        let name = row.try_get(1)?;
        known.0.insert(row.try_get(0)?, TypeRow { name, making, operators });
    }
    Ok(())
}

/// How the server spells a type with its modifier.
pub async fn type_text(client: &Client, oid: u32, modifier: i32) -> Result<String, Error> {
    let sql = "SELECT pg_catalog.format_type($1, $2)";
    client.query_typed_one(sql, &[(&oid, Type::OID), (&modifier, Type::INT4)]).await?.try_get(0)
}
