//! What the catalogue says of a managed table, as a hash: while it is the same as when the rows were scanned,
//! the triggers have seen every change since.

use pgrx::pg_sys::{self, Datum};
use plimsoll_core::digest::{Digester, RowDigest};

use super::mapping;
use crate::access::Database;
use crate::datum::{Parameter, is_in_use, read_planned};
use crate::error::Answer;
use crate::identity;
use crate::table::ManagedTable;

/// A table's definition, as one database's manifest depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// Differs whenever rows may have changed unseen: columns, partitions, triggers and their states.
    pub hash: RowDigest,
    /// By which mapping and key digests are made now.
    pub mapping: i64,
}

/// The table and all its partitions: what each is, its columns and our triggers on it, with the transactions
/// that wrote them and where (one transaction may change a thing and change it back); and whether the triggers there
/// see all changes.
///
/// They do not see what a subscription applies, what recovery from a crash does to an unlogged table, what
/// happens to a child that is no partition, and what goes on while a partition is being detached. Our function is
/// named by text: a plan that is kept would not notice that an oid is no longer its.
const DEFINITION: &str = "
    WITH RECURSIVE tree (oid, parent, partition) AS (
        SELECT $1, 0::pg_catalog.oid, true
        UNION ALL
        SELECT i.inhrelid, i.inhparent, NOT i.inhdetachpending
        FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid),
    triggers AS (
        SELECT t.oid, pg_catalog.count(*) AS number,
               pg_catalog.count(DISTINCT g.tgtype) AS kinds,
               pg_catalog.bool_and(g.tgenabled OPERATOR(pg_catalog.=) 'A' AND g.tgqual IS NULL
                   AND pg_catalog.cardinality(g.tgattr::pg_catalog.int2[]) OPERATOR(pg_catalog.=) 0
                   AND CASE g.tgtype
                       WHEN 4 THEN g.tgnewtable IS NOT NULL
                       WHEN 8 THEN g.tgoldtable IS NOT NULL
                       WHEN 16 THEN g.tgoldtable IS NOT NULL AND g.tgnewtable IS NOT NULL
                       WHEN 32 THEN true ELSE false END) AS fit,
               pg_catalog.string_agg(pg_catalog.concat_ws(' ', g.oid, g.tgtype, g.tgenabled, g.xmin,
                                     g.ctid), ','
                                     ORDER BY g.oid) AS line
        FROM tree t JOIN pg_catalog.pg_trigger g ON g.tgrelid OPERATOR(pg_catalog.=) t.oid
        WHERE g.tgfoid OPERATOR(pg_catalog.=) (
            SELECT p.oid FROM pg_catalog.pg_proc p
            JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
            WHERE n.nspname OPERATOR(pg_catalog.=) 'plimsoll' AND p.proname OPERATOR(pg_catalog.=) 'kept_trigger')
        GROUP BY t.oid)
    SELECT pg_catalog.bool_and(t.partition AND c.relpersistence OPERATOR(pg_catalog.=) 'p'
               AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p']::pg_catalog.\"char\"[])
               AND (c.relispartition OR t.parent OPERATOR(pg_catalog.=) 0::pg_catalog.oid)
               AND COALESCE(g.fit AND g.number OPERATOR(pg_catalog.=) 4 AND g.kinds OPERATOR(pg_catalog.=) 4, false)
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_subscription_rel s
                               WHERE s.srrelid OPERATOR(pg_catalog.=) t.oid)),
           pg_catalog.string_agg(pg_catalog.concat_ws(' ', t.oid, t.parent, c.relkind,
               (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod,
                           a.attisdropped, a.xmin, a.ctid), ',' ORDER BY a.attnum)
                FROM pg_catalog.pg_attribute a
                WHERE a.attrelid OPERATOR(pg_catalog.=) t.oid AND a.attnum OPERATOR(pg_catalog.>) 0),
               g.line), E'\\n' ORDER BY t.oid)
    FROM tree t
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid
    LEFT JOIN triggers g ON g.oid OPERATOR(pg_catalog.=) t.oid";

/// The definition of a table now, in the snapshot of the caller; `None` where its triggers do not see all
/// changes.
pub fn of(database: &Database, table: &ManagedTable) -> Answer<Option<Definition>> {
    let oid = Parameter { type_oid: pg_sys::OIDOID, datum: Some(Datum::from(table.oid.to_u32())) };
    let mut found = None;
    identity::as_extension(|| {
        read_planned(DEFINITION, &[oid], &mut |row| {
            found = row.text(1).filter(|_| row.bool(0) == Some(true));
            Ok(true)
        })
    })?;
    let Some(text) = found else { return Ok(None) };
    let described = described(table);
    let digester = Digester::new(database.fingerprint_key.clone());
    let mapping = mapping::stamp(&digester, &described);
    let hash = digester.digest_of_form(&[described.as_slice(), b"\n", text.as_bytes()].concat());
    Ok(Some(Definition { hash, mapping }))
}

/// The mapping of a table as the trigger describes it.
fn described(table: &ManagedTable) -> Vec<u8> {
    let schema = &table.schema;
    let columns = schema.columns().iter().zip(&table.codecs);
    let version = schema.version().map(|column| column.name.as_str());
    let position =
        mapping::describe_position(version, schema.placed_by().map(|column| column.number).collect());
    mapping::describe(
        table.oid,
        table.tenant.iter().map(|column| column.name.as_str()),
        &position,
        schema.modified().map(|column| column.name.as_str()),
        columns.map(|(column, codec)| (column.number, column.name.as_str(), codec)),
    )
}

/// Whether a statement of this session is at work on the table or a partition. What it did so far can be seen by
/// whoever looks at the rows in a new snapshot, and its triggers will tell of it once more.
pub fn is_under_way(table: &ManagedTable) -> Answer<bool> {
    let oid = Parameter { type_oid: pg_sys::OIDOID, datum: Some(Datum::from(table.oid.to_u32())) };
    let mut members = Vec::new();
    identity::as_extension(|| {
        read_planned(
            "WITH RECURSIVE tree (oid) AS (
                 SELECT $1 UNION
                 SELECT i.inhrelid FROM tree t
                 JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid)
             SELECT tree.oid FROM tree",
            &[oid],
            &mut |row| {
                members.extend(row.oid(0));
                Ok(true)
            },
        )
    })?;
    Ok(members.into_iter().any(is_in_use))
}
