//! Rows that deleting others would take along, or change, by foreign keys with an action. They count toward the guard
//! against destruction; what both sides change is not deleted where there are any. Only direct references are looked at.

use std::collections::{BTreeSet, HashMap};

use pgrx::pg_sys::Oid;
use pgrx::spi::Spi;

use crate::access::Database;
use crate::datum::{Held, IncomingRows, Indexes, Row, by_only, execute, hold};
use crate::error::{Answer, Problem, state};
use crate::identity;
use crate::table::{self, ManagedTable, Placeholders, quoted};

/// A foreign key that acts when a row it refers to is deleted.
struct Reference {
    child: Oid,
    /// What the referring table is a partition or child of, itself among them.
    ancestors: Vec<Oid>,
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
            "WITH RECURSIVE tree (oid) AS (
                 SELECT $1 UNION
                 SELECT i.inhrelid FROM tree t
                 JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid)
             SELECT c.conrelid,
                    (WITH RECURSIVE up (oid) AS (
                         SELECT c.conrelid UNION
                         SELECT i.inhparent FROM up
                         JOIN pg_catalog.pg_inherits i ON i.inhrelid OPERATOR(pg_catalog.=) up.oid)
                     SELECT pg_catalog.array_agg(up.oid) FROM up),
                    pg_catalog.array_agg(child.attname::pg_catalog.text ORDER BY k.place),
                    pg_catalog.array_agg(parent.attname::pg_catalog.text ORDER BY k.place),
                    pg_catalog.array_agg(pg_catalog.format('OPERATOR(%I.%s)', s.nspname, o.oprname) ORDER BY k.place)
             FROM pg_catalog.pg_constraint c
             CROSS JOIN ROWS FROM (pg_catalog.unnest(c.conkey), pg_catalog.unnest(c.confkey),
                                   pg_catalog.unnest(c.conpfeqop)) WITH ORDINALITY AS k (child, parent, equal, place)
             JOIN pg_catalog.pg_attribute child ON child.attrelid OPERATOR(pg_catalog.=) c.conrelid
                  AND child.attnum OPERATOR(pg_catalog.=) k.child
             JOIN pg_catalog.pg_attribute parent ON parent.attrelid OPERATOR(pg_catalog.=) c.confrelid
                  AND parent.attnum OPERATOR(pg_catalog.=) k.parent
             JOIN pg_catalog.pg_operator o ON o.oid OPERATOR(pg_catalog.=) k.equal
             JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) o.oprnamespace
             WHERE c.contype OPERATOR(pg_catalog.=) 'f' AND c.confrelid OPERATOR(pg_catalog.=) ANY (SELECT t.oid FROM tree t)
               AND c.conparentid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
               AND c.confdeltype OPERATOR(pg_catalog.=) ANY (ARRAY['c', 'n', 'd']::pg_catalog.\"char\"[])
             GROUP BY c.oid, c.conrelid",
            None,
            &[table.oid.into()],
        )?;
        rows.map(|row| {
            Ok(Reference {
                child: row.get(1)?.unwrap_or(Oid::INVALID),
                ancestors: row.get(2)?.unwrap_or_default(),
                child_columns: row.get(3)?.unwrap_or_default(),
                parent_columns: row.get(4)?.unwrap_or_default(),
                operators: row.get(5)?.unwrap_or_default(),
            })
        })
        .collect::<Answer<Vec<_>>>()
    })
}

impl Reference {
    /// The index that finds referring rows, where there is one.
    fn index(&self) -> Indexes {
        Indexes::over(self.child, self.child_columns.clone())
    }

    /// The join of the referring rows `c` with incoming rows `i`; `None` where the key refers to columns that
    /// are neither tenant nor key.
    fn join(&self, table: &ManagedTable) -> Option<String> {
        self.joined(table, None)
    }

    /// The same with rows `p` of the table itself, where they are there, for columns that are neither tenant nor key.
    fn joined(&self, table: &ManagedTable, stored: Option<&str>) -> Option<String> {
        let pairs = self.child_columns.iter().zip(&self.parent_columns).zip(&self.operators);
        let conditions = pairs.map(|((child, parent), operator)| {
            let tenant = table.tenant.iter().position(|column| column.name == *parent);
            let key = table.schema.key().any(|column| column.name == *parent);
            let parent = match (tenant, stored) {
                (Some(place), _) => format!("${}", place + 1),
                (None, _) if key => format!("i.{}", quoted(parent)),
                (None, Some(stored)) => format!("{stored}.{}", quoted(parent)),
                (None, None) => return None,
            };
            Some(format!("{parent} {operator} c.{}", quoted(child)))
        });
        Some(conditions.collect::<Option<Vec<_>>>()?.join(" AND "))
    }
}

/// Refuses to take rows of other databases along: a foreign key without the tenant columns would.
fn refuse_others(
    database: &Database,
    table: &ManagedTable,
    (child, held): (&ManagedTable, &Held),
    (join, index): (&str, Indexes),
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
    let sql = format!("SELECT 1 FROM incoming i JOIN {} c ON {join} WHERE NOT ({own}) LIMIT 1", held.shown());
    let mut found = false;
    let mut take = |_: &Row<'_>| {
        found = true;
        Ok::<_, Problem>(())
    };
    identity::as_owner(held.owner, || {
        by_only(index, || execute(&sql, placeholders.parameters(), Some(doomed), &mut take))
    })?;
    if !found {
        return Ok(());
    }
    let message = format!("rows of {} that belong to others refer to rows of {}", child.name, table.name);
    Err(Problem::new(state::NOT_IN_STATE, message)
        .detail("To delete these would delete or change those.")
        .hint(format!("The foreign key of {} must hold the tenant columns.", child.name)))
}

/// How many rows of which tables deleting the incoming rows would take along.
pub fn taken(database: &Database, table: &ManagedTable, doomed: &IncomingRows) -> Answer<Vec<Taken>> {
    let mut all = Vec::new();
    for reference in identity::as_extension(|| references(table))? {
        let Some(join) = reference.join(table) else { continue };
        let Some(child) = hold(reference.child) else { continue };
        let placeholders = Placeholders::for_tenant(table, database)?;
        let sql = format!("SELECT pg_catalog.count(*) FROM incoming i JOIN {} c ON {join}", child.shown());
        let mut rows = 0;
        let mut take = |row: &Row<'_>| {
            rows = row.int8(0).unwrap_or(0) as u64;
            Ok::<_, Problem>(())
        };
        // As the foreign key's own action does, this runs with the rights of the referring table's owner.
        identity::as_owner(child.owner, || {
            let parameters = placeholders.parameters();
            by_only(reference.index(), || execute(&sql, parameters, Some(doomed), &mut take))
        })?;
        if rows > 0 {
            let managed =
                table::all(database)?.into_iter().find(|managed| reference.ancestors.contains(&managed.oid));
            if let Some(managed) = &managed {
                refuse_others(database, table, (managed, &child), (&join, reference.index()), doomed)?;
            }
            all.push(Taken { table: managed, rows });
        }
    }
    Ok(all)
}

/// Which of the incoming rows, whose places are known, cannot be deleted without a foreign key deleting or changing other rows,
/// each with the names of the tables that have such rows. Rows that are deleted with them are none.
pub fn extended(
    database: &Database,
    table: &ManagedTable,
    doomed: &IncomingRows,
) -> Answer<HashMap<usize, BTreeSet<String>>> {
    let mut extended: HashMap<usize, BTreeSet<String>> = HashMap::new();
    // Rows of the table itself, by the incoming row that refers to them.
    let mut parents: HashMap<usize, Vec<(usize, String)>> = HashMap::new();
    for reference in identity::as_extension(|| references(table))? {
        let Some(child) = hold(reference.child) else { continue };
        let statement = Search::new(table, &reference, &child);
        let placeholders = Placeholders::for_tenant(table, database)?;
        let mut take = |row: &Row<'_>| {
            let ordinal = |place| row.int8(place).and_then(|ordinal| usize::try_from(ordinal).ok());
            let Some(parent) = ordinal(0) else { return Ok(()) };
            match ordinal(1) {
                Some(own) if own == parent => {}
                Some(own) => parents.entry(own).or_default().push((parent, statement.told.clone())),
                None => {
                    extended.entry(parent).or_default().insert(statement.told.clone());
                }
            }
            Ok::<_, Problem>(())
        };
        identity::as_owner(statement.role, || {
            let sql = &statement.sql;
            by_only(reference.index(), || execute(sql, placeholders.parameters(), Some(doomed), &mut take))
                .map(drop)
        })?;
    }
    // A row that stays keeps what it refers to.
    let mut stays: Vec<usize> = extended.keys().copied().collect();
    while let Some(row) = stays.pop() {
        for (parent, name) in parents.remove(&row).unwrap_or_default() {
            let is_known = extended.contains_key(&parent);
            extended.entry(parent).or_default().insert(name);
            stays.extend((!is_known).then_some(parent));
        }
    }
    Ok(extended)
}

/// The search for rows that refer to incoming ones: answers the ordinals of both, that of the referring one where it is an
/// incoming row.
struct Search {
    sql: String,
    /// With whose rights.
    role: Oid,
    /// The referring table as people are told of it.
    told: String,
}

impl Search {
    fn new(table: &ManagedTable, reference: &Reference, child: &Held) -> Self {
        let told = child.shown();
        let (from, role) = match reference.join(table) {
            Some(join) => (format!("incoming i JOIN {} c ON {join}", child.shown()), child.owner),
            None => {
                let join = reference.joined(table, Some("p")).unwrap_or_default();
                let place = table.locked_predicate_of("p", "i");
                let from =
                    format!("incoming i JOIN {} p ON {place} JOIN {} c ON {join}", table.name, child.shown());
                let Some(role) = reader_of_both(table, child) else {
                    // Nobody can tell whether any do.
                    let told = format!("{told} (which nobody may read who may read {})", table.name);
                    let sql =
                        "SELECT i.\"plimsoll ordinal\", NULL::pg_catalog.int8 FROM incoming i".to_owned();
                    return Search { sql, role: table.owner, told };
                };
                (from, role)
            }
        };
        let sql = if reference.ancestors.contains(&table.oid) {
            let place = table.locked_predicate_of("c", "j");
            format!(
                "SELECT DISTINCT i.\"plimsoll ordinal\", j.\"plimsoll ordinal\" FROM {from} LEFT JOIN incoming j ON {place}"
            )
        } else {
            format!("SELECT DISTINCT i.\"plimsoll ordinal\", NULL::pg_catalog.int8 FROM {from}")
        };
        Search { sql, role, told }
    }
}

/// Whose rights let both tables be read.
fn reader_of_both(table: &ManagedTable, child: &Held) -> Option<Oid> {
    let may = |one: Oid, other: Oid| identity::may_act_as(one, other).then_some(one);
    may(child.owner, table.owner).or_else(|| may(table.owner, child.owner))
}
