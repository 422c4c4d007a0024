//! Registrations, and what the catalogue says of the tables they name. Runs with the extension's rights.

use std::collections::HashMap;

use pgrx::pg_sys::Oid;
use pgrx::spi::{Spi, SpiHeapTupleData};
use pgrx::{JsonB, Uuid};
use plimsoll_core::direction::Allowed;
use plimsoll_core::schema::Column;

use super::labels::Labels;
use super::{ManagedTable, PhysicalColumn, TenantColumn, numbers, register, schema_of};
use crate::datum::{
    Attribute, Codec, Held, hold, hold_by_name, may_write, qualified, quoted, select_planned,
};
use crate::error::{Answer, Problem, state};
use crate::identity;

/// What `plimsoll.table_record` holds of a table.
#[derive(Debug, Clone)]
pub struct Registration {
    pub table_id: i32,
    pub schema_name: String,
    pub table_name: String,
    pub relation_oid: Oid,
    pub owner_name: String,
    pub tenant_columns: Vec<String>,
    pub key_columns: Vec<String>,
    /// `None`: rows have none.
    pub version_column: Option<String>,
    pub modified_column: Option<String>,
    pub server_columns: Vec<String>,
    /// The columns whose hash is the position; none where rows stand at their version.
    pub placed_by: Vec<String>,
    /// Labels of the enums among these when they were settled.
    pub labels: Labels,
    pub superuser_allowed: bool,
    pub keep_manifest: bool,
    pub only_database: Option<Uuid>,
    /// Which ways agents may keep replicas level.
    pub allowed: Allowed,
}

impl Registration {
    /// Schema and table, quoted where needed.
    pub fn name(&self) -> String {
        qualified(&self.schema_name, &self.table_name)
    }

    /// Gives the columns that it names the names that they have now.
    fn rename(&mut self, renamed: &HashMap<&str, &str>) {
        self.labels.rename(renamed);
        let lists =
            [&mut self.tenant_columns, &mut self.key_columns, &mut self.server_columns, &mut self.placed_by];
        let single = self.version_column.iter_mut().chain(&mut self.modified_column);
        for name in lists.into_iter().flatten().chain(single) {
            if let Some(now) = renamed.get(name.as_str()) {
                *name = (*now).to_owned();
            }
        }
    }
}

const COLUMNS: &str = "t.table_id, t.schema_name::pg_catalog.text, t.table_name::pg_catalog.text, t.relation_oid,
    t.owner_name::pg_catalog.text, t.tenant_columns::pg_catalog.text[], t.key_columns::pg_catalog.text[],
    t.version_column::pg_catalog.text, t.modified_column::pg_catalog.text, t.server_columns::pg_catalog.text[], t.superuser_allowed,
    t.keep_manifest, t.database_id, t.placed_by::pg_catalog.text[], t.placed_by_labels, t.directions";

fn registration(row: &SpiHeapTupleData<'_>) -> Answer<Registration> {
    Ok(Registration {
        table_id: row.get(1)?.unwrap_or_default(),
        schema_name: row.get(2)?.unwrap_or_default(),
        table_name: row.get(3)?.unwrap_or_default(),
        relation_oid: row.get(4)?.unwrap_or(Oid::INVALID),
        owner_name: row.get(5)?.unwrap_or_default(),
        tenant_columns: row.get(6)?.unwrap_or_default(),
        key_columns: row.get(7)?.unwrap_or_default(),
        version_column: row.get(8)?,
        modified_column: row.get(9)?,
        server_columns: row.get(10)?.unwrap_or_default(),
        superuser_allowed: row.get(11)?.unwrap_or(false),
        keep_manifest: row.get(12)?.unwrap_or(false),
        only_database: row.get(13)?,
        placed_by: row.get(14)?.unwrap_or_default(),
        labels: Labels::read(row.get::<JsonB>(15)?),
        allowed: allowed(&row.get::<Vec<String>>(16)?.unwrap_or_default()),
    })
}

/// The ways that are allowed; none where a word is of a later release.
fn allowed(words: &[String]) -> Allowed {
    Allowed::of_words(words.iter().map(String::as_str)).unwrap_or_default()
}

/// All registrations in force, by name.
pub fn registrations() -> Answer<Vec<Registration>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM plimsoll.table_record t WHERE t.unmanaged_at IS NULL
         ORDER BY t.schema_name, t.table_name"
    );
    Spi::connect(|client| select_planned(client, &sql, None, &[])?.map(|row| registration(&row)).collect())
}

/// The registration with this number.
pub fn registration_by_id(table_id: i32) -> Answer<Registration> {
    let sql =
        format!("SELECT {COLUMNS} FROM plimsoll.table_record t WHERE t.table_id OPERATOR(pg_catalog.=) $1");
    Spi::connect(|client| {
        let mut rows = select_planned(client, &sql, Some(1), &[table_id.into()])?;
        let row = rows.next().ok_or_else(|| Problem::new(state::INTERNAL, "a registration that is gone"))?;
        registration(&row)
    })
}

/// The registration that a name means.
pub fn registration_by_name(relation: &str) -> Answer<Registration> {
    let not_managed = || {
        let shown: String = relation.chars().take(130).collect();
        Problem::new(state::NOT_MANAGED, format!("\"{shown}\" is no managed table"))
            .hint("See plimsoll.tables; an admin hands a table over with plimsoll.manage_table.")
    };
    let parts = parse_name(relation).ok_or_else(not_managed)?;
    let (schema, table) = match parts.as_slice() {
        [table] => (None, table),
        [schema, table] => (Some(schema.clone()), table),
        _ => return Err(not_managed()),
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM plimsoll.table_record t
         WHERE t.unmanaged_at IS NULL AND t.table_name OPERATOR(pg_catalog.=) $1::pg_catalog.name
           AND ($2 IS NULL OR t.schema_name OPERATOR(pg_catalog.=) $2::pg_catalog.name)"
    );
    let found: Vec<Registration> = Spi::connect(|client| {
        let rows = select_planned(client, &sql, Some(2), &[table.as_str().into(), schema.into()])?;
        rows.map(|row| registration(&row)).collect::<Answer<_>>()
    })?;
    match <[Registration; 1]>::try_from(found) {
        Ok([registration]) => Ok(registration),
        Err(found) if found.is_empty() => Err(not_managed()),
        Err(_) => Err(not_managed().hint("Several managed tables have this name: name the schema too.")),
    }
}

/// Splits `a.b`, `"a.b"."c"` and the like; folds what is not quoted to lower case, as SQL does.
fn parse_name(text: &str) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut characters = text.trim().chars().peekable();
    let mut quoted = false;
    while let Some(character) = characters.next() {
        let part = parts.last_mut()?;
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            character if quoted => part.push(character),
            character => part.extend(character.to_lowercase()),
        }
    }
    (!quoted && parts.iter().all(|part| !part.is_empty())).then_some(parts)
}

/// The table that a registration names, checked against the catalogue.
pub fn load(registration: &Registration) -> Answer<ManagedTable> {
    let name = registration.name();
    let held = find(registration)?;
    let (oid, owner) = (held.oid, held.owner);
    let owner_name = identity::role_name(owner);
    if owner_name != registration.owner_name {
        return Err(Problem::new(
            state::NOT_IN_STATE,
            format!(
                "managed table {name} belongs to \"{owner_name}\" now, not to \"{}\"",
                registration.owner_name
            ),
        )
        .hint("An admin checks it and runs plimsoll.manage_table again."));
    }
    if identity::is_superuser(owner) && !registration.superuser_allowed {
        return Err(Problem::new(
            state::NOT_IN_STATE,
            format!("the owner of managed table {name}, \"{owner_name}\", is a superuser now"),
        )
        .hint("ALTER TABLE ... OWNER TO a role without superuser rights, then plimsoll.manage_table."));
    }
    let found = held.attributes();
    if oid != registration.relation_oid && may_write() {
        remember_oid(registration, oid)?;
    }
    let (registration, numbers) = follow(registration, oid, &found)?;
    let registration = &registration;
    let missing = |column: &str| {
        let problem = Problem::new(
            state::NO_COLUMN,
            format!("managed table {name} has no column \"{column}\" any more"),
        );
        problem.hint(format!(
            "ALTER TABLE {name} ADD COLUMN {} ... NOT NULL; or SELECT plimsoll.manage_table('{name}', ...) with the key, \
             version and tenant columns that it has.",
            quoted(column)
        ))
    };
    let attribute = |column: &str| found.iter().find(|a| a.name == column).ok_or_else(|| missing(column));
    let tenant = registration.tenant_columns.iter().map(|column| {
        let attribute = attribute(column)?;
        Ok(TenantColumn { name: column.clone(), type_oid: attribute.type_oid })
    });
    let tenant = tenant.collect::<Answer<Vec<_>>>()?;
    let named = registration.key_columns.iter().chain(&registration.version_column);
    for column in named.chain(&registration.placed_by) {
        attribute(column)?;
    }
    let equalities = key_equalities(oid, registration)?;
    let (mut columns, mut physical) = (Vec::new(), Vec::new());
    let mut codecs = Vec::new();
    for (number, column) in numbers {
        let sent =
            !registration.server_columns.contains(&column) && !registration.tenant_columns.contains(&column);
        let attribute = found.iter().find(|a| a.name == column).filter(|a| sent && !a.generated);
        let Some(attribute) = attribute else { continue };
        let codec = Codec::new(attribute.type_oid, attribute.typmod)
            .map_err(|problem| problem.in_column(&column, &name))?;
        let equality =
            equalities.iter().find(|(key, _)| *key == column).map(|(_, equality)| equality.clone());
        columns.push(Column {
            number,
            name: column.clone(),
            column_type: codec.column_type.clone(),
            not_null: attribute.not_null,
        });
        physical.push(PhysicalColumn {
            name: column,
            collation: attribute.collation,
            equality,
            always_identity: attribute.always_identity,
        });
        codecs.push(codec);
    }
    if let Some((column, label)) = registration.labels.gone(&columns) {
        let message = format!(
            "the type of column \"{column}\" of managed table {name} has not what it had: a label of it was renamed, or \
             an attribute dropped: \"{label}\""
        );
        return Err(Problem::new(state::NOT_IN_STATE, message)
            .detail(
                "Rows stand at a hash of it, and the index by which they are found still has the old one.",
            )
            .hint("An admin runs plimsoll.manage_table again, which makes the index anew."));
    }
    let server_filled = found
        .iter()
        .filter(|a| !a.generated && !registration.tenant_columns.contains(&a.name))
        .filter(|a| !physical.iter().any(|column: &PhysicalColumn| column.name == a.name))
        .map(|a| a.name.clone())
        .collect();
    let modified = registration.modified_column.as_deref().filter(|m| found.iter().any(|a| a.name == *m));
    let schema = schema_of(columns, registration, modified)?;
    Ok(ManagedTable {
        table_id: registration.table_id,
        name,
        oid,
        owner,
        schema,
        physical,
        codecs,
        server_filled,
        tenant,
        keep_manifest: registration.keep_manifest,
        only_database: registration.only_database,
        allowed: registration.allowed,
    })
}

/// The registration with the names that columns have now, and the numbers of the columns that are there. What is
/// recorded follows at the first call that may write: renamed columns, and numbers of new ones.
fn follow(
    registration: &Registration,
    oid: Oid,
    attributes: &[Attribute],
) -> Answer<(Registration, Vec<(u32, String)>)> {
    let mut numbers = numbers::of(registration.table_id, oid, attributes)?;
    let mut now = registration.clone();
    now.rename(&numbers::renamed(&numbers));
    if may_write() && !numbers::are_settled(&numbers, attributes) {
        numbers::rename(registration.table_id, &numbers, attributes)?;
        numbers::complete(registration.table_id, oid)?;
        register::write_names(&now)?;
        numbers = numbers::of(registration.table_id, oid, attributes)?;
    }
    let there = numbers.into_iter().filter_map(|column| Some((column.number, column.name?)));
    Ok((now, there.collect()))
}

/// The table that a registration names, locked so that it stays what it is until the transaction ends.
fn find(registration: &Registration) -> Answer<Held> {
    let held = hold_by_name(&registration.schema_name, &registration.table_name);
    if let Some(held) = held.filter(Held::is_table) {
        return Ok(held);
    }
    let name = registration.name();
    Err(match renamed(registration)?.map(|held| held.shown()) {
        Some(now) => {
            Problem::new(state::NOT_IN_STATE, format!("managed table {name} seems to be called {now} now"))
                .hint(format!(
                    "An admin runs SELECT plimsoll.manage_table('{now}') to go on under that name."
                ))
        }
        None => Problem::new(state::NOT_IN_STATE, format!("managed table {name} does not exist any more"))
            .hint("Restore it, or have an admin run plimsoll.unmanage_table."),
    })
}

/// The table that is gone under its registered name, if what has its oid looks like it: the oid may be one of a
/// server that this database was restored from.
pub fn renamed(registration: &Registration) -> Answer<Option<Held>> {
    let Some(held) = hold(registration.relation_oid).filter(Held::is_table) else { return Ok(None) };
    let columns: Vec<String> = held.attributes().into_iter().map(|attribute| attribute.name).collect();
    let mut known = registration.tenant_columns.iter().chain(&registration.key_columns);
    let mut placing = registration.version_column.iter().chain(&registration.placed_by);
    let is_like = identity::role_name(held.owner) == registration.owner_name
        && known.all(|column| columns.contains(column))
        && placing.all(|column| columns.contains(column));
    let is_another = registrations()?.iter().any(|other| other.name() == held.shown());
    Ok((is_like && !is_another).then_some(held))
}

/// Remembers the oid that a table has now.
fn remember_oid(registration: &Registration, oid: Oid) -> Answer<()> {
    Ok(Spi::run_with_args(
        "UPDATE plimsoll.table_record t SET relation_oid = $2
         WHERE t.table_id OPERATOR(pg_catalog.=) $1 AND t.relation_oid OPERATOR(pg_catalog.<>) $2",
        &[registration.table_id.into(), oid.into()],
    )?)
}

/// For each key column, the equality operator of the unique index over tenant columns and key.
pub fn key_equalities(oid: Oid, registration: &Registration) -> Answer<Vec<(String, String)>> {
    if registration.key_columns.is_empty() {
        return Ok(Vec::new());
    }
    let mut wanted: Vec<&str> =
        registration.tenant_columns.iter().chain(&registration.key_columns).map(String::as_str).collect();
    wanted.sort_unstable();
    let found: Vec<(String, String)> = Spi::connect(|client| {
        let rows = select_planned(
            client,
            "WITH chosen AS (
                 SELECT i.indexrelid, i.indrelid, i.indkey, i.indclass
                 FROM pg_catalog.pg_index i
                 WHERE i.indrelid OPERATOR(pg_catalog.=) $1 AND i.indisunique AND i.indisvalid
                   AND NOT i.indisexclusion AND i.indpred IS NULL AND i.indexprs IS NULL
                   AND (SELECT pg_catalog.array_agg(a.attname::pg_catalog.text
                               ORDER BY a.attname::pg_catalog.text COLLATE \"C\")
                        FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k (attnum, place)
                        JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid
                             AND a.attnum OPERATOR(pg_catalog.=) k.attnum
                        WHERE k.place OPERATOR(pg_catalog.<=) i.indnkeyatts) OPERATOR(pg_catalog.=) $2
                 ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1)
             SELECT a.attname::pg_catalog.text, pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname)
             FROM chosen i
             CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(i.indkey::pg_catalog.int2[]),
                  pg_catalog.unnest(i.indclass::pg_catalog.oid[])) AS k (attnum, class)
             JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid
                  AND a.attnum OPERATOR(pg_catalog.=) k.attnum
             JOIN pg_catalog.pg_opclass c ON c.oid OPERATOR(pg_catalog.=) k.class
             JOIN pg_catalog.pg_amop m ON m.amopfamily OPERATOR(pg_catalog.=) c.opcfamily
                  AND m.amopstrategy OPERATOR(pg_catalog.=) 3
                  AND m.amoplefttype OPERATOR(pg_catalog.=) c.opcintype
                  AND m.amoprighttype OPERATOR(pg_catalog.=) c.opcintype
             JOIN pg_catalog.pg_operator o ON o.oid OPERATOR(pg_catalog.=) m.amopopr
             JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) o.oprnamespace",
            None,
            &[oid.into(), wanted.iter().map(|w| w.to_string()).collect::<Vec<_>>().into()],
        )?;
        rows.map(|row| Ok::<_, Problem>((row.get(1)?.unwrap_or_default(), row.get(2)?.unwrap_or_default())))
            .collect::<Answer<_>>()
    })?;
    if registration.key_columns.iter().all(|key| found.iter().any(|(column, _)| column == key)) {
        return Ok(found);
    }
    let list: Vec<String> =
        registration.tenant_columns.iter().chain(&registration.key_columns).map(|c| quoted(c)).collect();
    let (name, list) = (registration.name(), list.join(", "));
    Err(Problem::new(state::UNFIT_TABLE, format!("no unique index of {name} covers exactly ({list})"))
        .hint(format!("CREATE UNIQUE INDEX ON {name} ({list});")))
}

/// Pairs (child, parent) of places in `tables` between which a foreign key exists, of partitions too.
pub fn references(tables: &[ManagedTable]) -> Answer<Vec<(usize, usize)>> {
    let oids: Vec<Oid> = tables.iter().map(|table| table.oid).collect();
    let place = |oid: Option<Oid>| oids.iter().position(|known| Some(*known) == oid);
    Spi::connect(|client| {
        let rows = client.select(
            "WITH RECURSIVE tree (root, oid) AS (
                 SELECT a.oid, a.oid FROM pg_catalog.unnest($1) a (oid) UNION
                 SELECT t.root, i.inhrelid FROM tree t
                 JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid)
             SELECT DISTINCT child.root, parent.root FROM pg_catalog.pg_constraint c
             JOIN tree child ON child.oid OPERATOR(pg_catalog.=) c.conrelid
             JOIN tree parent ON parent.oid OPERATOR(pg_catalog.=) c.confrelid
             WHERE c.contype OPERATOR(pg_catalog.=) 'f'",
            None,
            &[oids.clone().into()],
        )?;
        let mut pairs = Vec::new();
        for row in rows {
            if let (Some(child), Some(parent)) = (place(row.get(1)?), place(row.get(2)?)) {
                pairs.push((child, parent));
            }
        }
        Ok(pairs)
    })
}
