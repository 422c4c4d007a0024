//! Which row of the replica holds a unique value that an incoming row needs; and foreign keys that make
//! taking a row out and putting it in again do harm.

use pgrx::spi::Spi;
use plimsoll_core::row::key_of;

use super::IncomingRow;
use super::store::push_row;
use crate::access::Database;
use crate::datum::{IncomingRows, Indexes, Row, by_index, execute};
use crate::error::{Answer, Problem};
use crate::identity;
use crate::table::{ManagedTable, Placeholders, quoted};

/// Whether a foreign key to the table deletes or changes the rows that refer to it.
pub fn has_cascading_references(table: &ManagedTable) -> Answer<bool> {
    let cascades = Spi::get_one_with_args::<bool>(
        "WITH RECURSIVE tree (oid) AS (
             SELECT $1 UNION
             SELECT i.inhrelid FROM tree t
             JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid)
         SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint c
             WHERE c.contype OPERATOR(pg_catalog.=) 'f' AND c.confrelid OPERATOR(pg_catalog.=) ANY (SELECT t.oid FROM tree t)
               AND c.confdeltype OPERATOR(pg_catalog.=) ANY (ARRAY['c', 'n', 'd']::pg_catalog.\"char\"[]))",
        &[table.oid.into()],
    )?;
    Ok(cascades.unwrap_or(false))
}

/// Columns of a unique index, each with the operator by which the index compares it.
type UniqueColumns = Vec<(String, String)>;

/// The columns of the table's unique indexes over plain columns, tenant columns left out.
fn unique_columns(table: &ManagedTable) -> Answer<Vec<UniqueColumns>> {
    let mut lists: Vec<UniqueColumns> = Spi::connect(|client| {
        let rows = client.select(
            "SELECT k.columns, k.operators FROM pg_catalog.pg_index i
             CROSS JOIN LATERAL (
                 SELECT pg_catalog.array_agg(a.attname::pg_catalog.text ORDER BY u.place) AS columns,
                     pg_catalog.array_agg(pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname)
                                          ORDER BY u.place) AS operators
                 FROM ROWS FROM (pg_catalog.unnest(i.indkey::pg_catalog.int2[]),
                      pg_catalog.unnest(i.indclass::pg_catalog.oid[])) WITH ORDINALITY AS u (attnum, class, place)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid
                      AND a.attnum OPERATOR(pg_catalog.=) u.attnum
                 JOIN pg_catalog.pg_opclass c ON c.oid OPERATOR(pg_catalog.=) u.class
                 JOIN pg_catalog.pg_amop m ON m.amopfamily OPERATOR(pg_catalog.=) c.opcfamily
                      AND m.amopstrategy OPERATOR(pg_catalog.=) 3
                      AND m.amoplefttype OPERATOR(pg_catalog.=) c.opcintype
                      AND m.amoprighttype OPERATOR(pg_catalog.=) c.opcintype
                 JOIN pg_catalog.pg_operator o ON o.oid OPERATOR(pg_catalog.=) m.amopopr
                 JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) o.oprnamespace
                 WHERE u.place OPERATOR(pg_catalog.<=) i.indnkeyatts) k
             WHERE i.indrelid OPERATOR(pg_catalog.=) $1 AND i.indisunique AND i.indexprs IS NULL",
            None,
            &[table.oid.into()],
        )?;
        rows.map(|row| {
            let columns: Vec<String> = row.get(1)?.unwrap_or_default();
            let operators: Vec<String> = row.get(2)?.unwrap_or_default();
            Ok::<_, Problem>(columns.into_iter().zip(operators).collect())
        })
        .collect::<Answer<_>>()
    })?;
    for list in &mut lists {
        list.retain(|(column, _)| !table.tenant.iter().any(|tenant| tenant.name == *column));
    }
    Ok(lists)
}

/// The encoded key of a row of this replica that has the same unique value as `row`, under another key.
pub fn find(database: &Database, table: &mut ManagedTable, row: &IncomingRow<'_>) -> Answer<Option<Vec<u8>>> {
    let own_key = key_of(row.row, &table.schema)?;
    for list in unique_columns(table)? {
        if list.is_empty()
            || !list.iter().all(|(name, _)| table.physical.iter().any(|column| column.name == *name))
        {
            continue;
        }
        let equal: Vec<String> = list
            .iter()
            .map(|(name, operator)| {
                let name = quoted(name);
                format!("t.{name} {operator} i.{name}")
            })
            .collect();
        let sql = format!(
            "SELECT {} FROM incoming i JOIN {} t ON {} AND {}",
            table.column_list("t."),
            table.name,
            table.tenant_predicate(),
            equal.join(" AND ")
        );
        let placeholders = Placeholders::for_tenant(table, database)?;
        let owner = table.owner;
        let tenant = table.tenant.iter().map(|column| &column.name);
        let columns = tenant.chain(list.iter().map(|(name, _)| name)).cloned().collect();
        let index = Indexes::over(table.oid, columns);
        let mut found = None;
        identity::as_owner(owner, || {
            let mut incoming = IncomingRows::new(&table.incoming_columns())?;
            push_row(table, row, &mut incoming)?;
            let numbers = table.numbers();
            let (schema, codecs) = (&table.schema, &mut table.codecs);
            let mut take = |stored: &Row<'_>| {
                let mut encoded = Vec::new();
                stored.encode(0, &numbers, codecs, &mut encoded)?;
                let key = key_of(&encoded, schema)?;
                if key != own_key {
                    found = Some(key);
                }
                Ok(())
            };
            by_index(index, || execute(&sql, placeholders.parameters(), Some(&incoming), &mut take))
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
