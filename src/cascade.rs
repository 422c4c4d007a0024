//! Rows of other tables that deleting rows would take along, or change, by foreign keys with an action. They
//! count toward the guard against destruction. Only direct references are counted.

use pgrx::pg_sys::Oid;
use pgrx::spi::Spi;

use crate::access::Database;
use crate::datum::{IncomingRows, execute};
use crate::error::{Answer, Problem, state};
use crate::identity;
use crate::table::{self, ManagedTable, Placeholders, quoted};

/// A foreign key that acts when a row it refers to is deleted.
struct Reference {
    child: Oid,
    owner: Oid,
    name: String,
    child_columns: Vec<String>,
    parent_columns: Vec<String>,
    /// `OPERATOR(schema.name)`, parent on the left.
    operators: Vec<String>,
}

/// Rows of one table that would be taken along.
pub struct Taken {
    /// The table, where it is managed.
    pub table: Option<ManagedTable>,
    /// How many rows.
    pub rows: u64,
}

fn references(table: &ManagedTable) -> Answer<Vec<Reference>> {
    Spi::connect(|client| {
        let rows = client.select(
            "SELECT c.conrelid, r.relowner, pg_catalog.format('%I.%I', n.nspname, r.relname),
                    pg_catalog.array_agg(child.attname::pg_catalog.text ORDER BY k.place),
                    pg_catalog.array_agg(parent.attname::pg_catalog.text ORDER BY k.place),
                    pg_catalog.array_agg(pg_catalog.format('OPERATOR(%I.%s)', s.nspname, o.oprname) ORDER BY k.place)
             FROM pg_catalog.pg_constraint c
             JOIN pg_catalog.pg_class r ON r.oid OPERATOR(pg_catalog.=) c.conrelid
             JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) r.relnamespace
             CROSS JOIN ROWS FROM (pg_catalog.unnest(c.conkey), pg_catalog.unnest(c.confkey),
                                   pg_catalog.unnest(c.conpfeqop)) WITH ORDINALITY AS k (child, parent, equal, place)
             JOIN pg_catalog.pg_attribute child ON child.attrelid OPERATOR(pg_catalog.=) c.conrelid
                  AND child.attnum OPERATOR(pg_catalog.=) k.child
             JOIN pg_catalog.pg_attribute parent ON parent.attrelid OPERATOR(pg_catalog.=) c.confrelid
                  AND parent.attnum OPERATOR(pg_catalog.=) k.parent
             JOIN pg_catalog.pg_operator o ON o.oid OPERATOR(pg_catalog.=) k.equal
             JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) o.oprnamespace
             WHERE c.contype OPERATOR(pg_catalog.=) 'f' AND c.confrelid OPERATOR(pg_catalog.=) $1
               AND c.conparentid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
               AND c.confdeltype OPERATOR(pg_catalog.=) ANY (ARRAY['c', 'n', 'd']::pg_catalog.\"char\"[])
             GROUP BY c.oid, c.conrelid, r.relowner, n.nspname, r.relname",
            None,
            &[table.oid.into()],
        )?;
        rows.map(|row| {
            Ok(Reference {
                child: row.get(1)?.unwrap_or(Oid::INVALID),
                owner: row.get(2)?.unwrap_or(Oid::INVALID),
                name: row.get(3)?.unwrap_or_default(),
                child_columns: row.get(4)?.unwrap_or_default(),
                parent_columns: row.get(5)?.unwrap_or_default(),
                operators: row.get(6)?.unwrap_or_default(),
            })
        })
        .collect::<Answer<Vec<_>>>()
    })
}

impl Reference {
    /// The join of the referring rows `c` with incoming rows `i`; `None` where the key refers to columns that
    /// are neither tenant nor key.
    fn join(&self, table: &ManagedTable) -> Option<String> {
        let pairs = self.child_columns.iter().zip(&self.parent_columns).zip(&self.operators);
        let conditions = pairs.map(|((child, parent), operator)| {
            let tenant = table.tenant.iter().position(|column| column.name == *parent);
            let key = table.schema.key().any(|column| column.name == *parent);
            let parent = match tenant {
                Some(place) => format!("${}", place + 1),
                None if key => format!("i.{}", quoted(parent)),
                None => return None,
            };
            Some(format!("{parent} {operator} c.{}", quoted(child)))
        });
        Some(conditions.collect::<Option<Vec<_>>>()?.join(" AND "))
    }

    /// Refuses to take rows of other databases along: a foreign key without the tenant columns would.
    fn refuse_others(
        &self,
        database: &Database,
        table: &ManagedTable,
        child: &ManagedTable,
        join: &str,
        doomed: &IncomingRows,
    ) -> Answer<()> {
        let mut placeholders = Placeholders::for_tenant(table, database)?;
        let own: Vec<String> = child
            .tenant
            .iter()
            .zip(child.tenant_parameters(database)?)
            .map(|(column, value)| {
                format!("c.{} OPERATOR(pg_catalog.=) {}", quoted(&column.name), placeholders.add(value))
            })
            .collect();
        if own.is_empty() {
            return Ok(());
        }
        let own = own.join(" AND ");
        let sql =
            format!("SELECT 1 FROM incoming i JOIN {} c ON {join} WHERE NOT ({own}) LIMIT 1", self.name);
        let mut found = false;
        identity::as_owner(self.owner, || {
            execute(&sql, placeholders.parameters(), Some(doomed), &mut |_| {
                found = true;
                Ok::<_, Problem>(())
            })
        })?;
        if !found {
            return Ok(());
        }
        let message = format!("rows of {} that belong to others refer to rows of {}", child.name, table.name);
        Err(Problem::new(state::NOT_IN_STATE, message)
            .detail("To delete these would delete or change those.")
            .hint(format!("The foreign key of {} must hold the tenant columns.", child.name)))
    }
}

/// How many rows of which tables deleting the incoming rows would take along.
pub fn taken(database: &Database, table: &ManagedTable, doomed: &IncomingRows) -> Answer<Vec<Taken>> {
    let mut all = Vec::new();
    for reference in identity::as_extension(|| references(table))? {
        let Some(join) = reference.join(table) else { continue };
        let placeholders = Placeholders::for_tenant(table, database)?;
        let sql = format!("SELECT pg_catalog.count(*) FROM incoming i JOIN {} c ON {join}", reference.name);
        let mut rows = 0;
        // As the foreign key's own action does, this runs with the rights of the referring table's owner.
        identity::as_owner(reference.owner, || {
            execute(&sql, placeholders.parameters(), Some(doomed), &mut |row| {
                rows = row.int8(0).unwrap_or(0) as u64;
                Ok::<_, Problem>(())
            })
        })?;
        if rows > 0 {
            let managed = table::all(database)?.into_iter().find(|managed| managed.oid == reference.child);
            if let Some(child) = &managed {
                reference.refuse_others(database, table, child, &join, doomed)?;
            }
            all.push(Taken { table: managed, rows });
        }
    }
    Ok(all)
}
