//! What `manage_table` writes: the registration, and the index by which rows are read in position order.

use pgrx::pg_sys::Oid;
use pgrx::spi::Spi;

use super::ManagedTable;
use super::catalog::Registration;
use super::labels::Labels;
use crate::datum::{qualified, quoted};
use crate::error::{Answer, Problem, state};
use crate::identity;

/// Writes the registration: a new one, one that was there under this name, or one whose table was renamed.
/// `directions`: the words for the ways that are allowed; where not given, those that were, else all.
pub fn register(
    registration: &Registration,
    version_scope: &str,
    directions: Option<Vec<String>>,
    user: &str,
) -> Answer<i32> {
    let table_id = Spi::get_one_with_args::<i32>(
        "WITH known AS (
             SELECT t.table_id FROM plimsoll.table_record t
             WHERE (t.schema_name OPERATOR(pg_catalog.=) $1::pg_catalog.name
                    AND t.table_name OPERATOR(pg_catalog.=) $2::pg_catalog.name)
                OR (t.relation_oid OPERATOR(pg_catalog.=) $3 AND t.owner_name OPERATOR(pg_catalog.=) $4::pg_catalog.name
                    AND COALESCE(t.version_column, '') OPERATOR(pg_catalog.=) COALESCE($7, '')::pg_catalog.name
                    AND NOT EXISTS (
                        SELECT FROM pg_catalog.pg_class c
                        JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
                        WHERE n.nspname OPERATOR(pg_catalog.=) t.schema_name
                          AND c.relname OPERATOR(pg_catalog.=) t.table_name))
             ORDER BY (t.table_name OPERATOR(pg_catalog.=) $2::pg_catalog.name
                       AND t.schema_name OPERATOR(pg_catalog.=) $1::pg_catalog.name) DESC, t.table_id DESC LIMIT 1),
         changed AS (
             UPDATE plimsoll.table_record t
             SET schema_name = $1::pg_catalog.name, table_name = $2::pg_catalog.name, relation_oid = $3,
                 owner_name = $4::pg_catalog.name, tenant_columns = $5::pg_catalog.name[],
                 key_columns = $6::pg_catalog.name[], version_column = $7::pg_catalog.name,
                 modified_column = $8::pg_catalog.name, version_scope = $9,
                 server_columns = $10::pg_catalog.name[], superuser_allowed = $12, database_id = $13,
                 placed_by = $14::pg_catalog.name[], placed_by_labels = '{}', unmanaged_at = NULL,
                 directions = COALESCE($15, t.directions),
                 managed_at = pg_catalog.now(), managed_by = $11::pg_catalog.name
             FROM known k WHERE t.table_id OPERATOR(pg_catalog.=) k.table_id RETURNING t.table_id),
         added AS (
             INSERT INTO plimsoll.table_record (schema_name, table_name, relation_oid, owner_name, tenant_columns,
                 key_columns, version_column, modified_column, version_scope, server_columns, managed_by,
                 superuser_allowed, database_id, placed_by, directions)
             SELECT $1::pg_catalog.name, $2::pg_catalog.name, $3, $4::pg_catalog.name, $5::pg_catalog.name[],
                    $6::pg_catalog.name[], $7::pg_catalog.name, $8::pg_catalog.name, $9,
                    $10::pg_catalog.name[], $11::pg_catalog.name, $12, $13,
                    $14::pg_catalog.name[], COALESCE($15, ARRAY['push', 'pull', 'snapshot', 'two-way'])
             WHERE NOT EXISTS (SELECT FROM known) RETURNING table_id)
         SELECT table_id FROM changed UNION ALL SELECT table_id FROM added",
        &[
            registration.schema_name.as_str().into(),
            registration.table_name.as_str().into(),
            registration.relation_oid.into(),
            registration.owner_name.as_str().into(),
            registration.tenant_columns.clone().into(),
            registration.key_columns.clone().into(),
            registration.version_column.clone().into(),
            registration.modified_column.clone().into(),
            version_scope.into(),
            registration.server_columns.clone().into(),
            user.into(),
            registration.superuser_allowed.into(),
            registration.only_database.into(),
            registration.placed_by.clone().into(),
            directions.into(),
        ],
    )?;
    table_id.ok_or_else(|| Problem::new(state::INTERNAL, "the registration was not written"))
}

/// Writes which ways are allowed for a managed table.
pub fn write_directions(table_id: i32, words: Vec<String>) -> Answer<()> {
    Ok(Spi::run_with_args(
        "UPDATE plimsoll.table_record t SET directions = $2 WHERE t.table_id OPERATOR(pg_catalog.=) $1",
        &[table_id.into(), words.into()],
    )?)
}

/// Writes the names that a registration's columns have now.
pub fn write_names(registration: &Registration) -> Answer<()> {
    Ok(Spi::run_with_args(
        "UPDATE plimsoll.table_record t
         SET tenant_columns = $2::pg_catalog.name[], key_columns = $3::pg_catalog.name[],
             version_column = $4::pg_catalog.name, modified_column = $5::pg_catalog.name,
             server_columns = $6::pg_catalog.name[], placed_by = $7::pg_catalog.name[], placed_by_labels = $8
         WHERE t.table_id OPERATOR(pg_catalog.=) $1
           AND (t.tenant_columns, t.key_columns, t.version_column, t.modified_column, t.server_columns, t.placed_by)
               IS DISTINCT FROM ($2::pg_catalog.name[], $3::pg_catalog.name[], $4::pg_catalog.name,
                                 $5::pg_catalog.name, $6::pg_catalog.name[], $7::pg_catalog.name[])",
        &[
            registration.table_id.into(),
            registration.tenant_columns.clone().into(),
            registration.key_columns.clone().into(),
            registration.version_column.clone().into(),
            registration.modified_column.clone().into(),
            registration.server_columns.clone().into(),
            registration.placed_by.clone().into(),
            registration.labels.json().into(),
        ],
    )?)
}

/// Remembers the labels of the enums among the columns whose hash is the position.
pub fn settle_labels(table_id: i32, labels: &Labels) -> Answer<()> {
    Ok(Spi::run_with_args(
        "UPDATE plimsoll.table_record t SET placed_by_labels = $2 WHERE t.table_id OPERATOR(pg_catalog.=) $1",
        &[table_id.into(), labels.json().into()],
    )?)
}

/// A B-tree of a table.
struct Index {
    name: String,
    /// Schema and name.
    shown: String,
    valid: bool,
    /// Its condition, as Postgres writes it.
    condition: Option<String>,
    /// Its columns and expressions, as Postgres writes them.
    keys: Vec<String>,
}

fn indexes(oid: Oid) -> Answer<Vec<Index>> {
    Spi::connect(|client| {
        let rows = client.select(
            "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, i.indisvalid,
                    pg_catalog.pg_get_expr(i.indpred, i.indrelid),
                    ARRAY(SELECT pg_catalog.pg_get_indexdef(i.indexrelid, k.place, false)
                          FROM pg_catalog.generate_series(1, i.indnkeyatts::pg_catalog.int4) AS k (place)
                          ORDER BY k.place)
             FROM pg_catalog.pg_index i
             JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
             JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
             JOIN pg_catalog.pg_am m ON m.oid OPERATOR(pg_catalog.=) c.relam AND m.amname OPERATOR(pg_catalog.=) 'btree'
             WHERE i.indrelid OPERATOR(pg_catalog.=) $1",
            None,
            &[oid.into()],
        )?;
        rows.map(|row| {
            let (schema, name): (String, String) =
                (row.get(1)?.unwrap_or_default(), row.get(2)?.unwrap_or_default());
            Ok::<_, Problem>(Index {
                shown: qualified(&schema, &name),
                name,
                valid: row.get(3)?.unwrap_or(false),
                condition: row.get(4)?,
                keys: row.get(5)?.unwrap_or_default(),
            })
        })
        .collect::<Answer<_>>()
    })
}

/// As Postgres writes an expression of ours or a condition.
fn as_written(expression: &str) -> String {
    let plain =
        expression.replace("::pg_catalog.int4[]", "::integer[]").replace("OPERATOR(pg_catalog.=)", "=");
    plain.replace("pg_catalog.", "")
}

/// Creates the index by which rows are read in position order, unless one leads with these columns; anew where labels
/// of enums are hashed, which may be others by now.
pub fn ensure_position_index(table: &ManagedTable, registration: &Registration) -> Answer<()> {
    let tenant = registration.tenant_columns.iter().map(|column| quoted(column));
    let keys: Vec<String> = tenant.chain([table.position("")]).collect();
    let condition = table.position_condition("");
    let name = format!("plimsoll_{}_position", registration.table_id);
    let wanted: Vec<String> = keys.iter().map(|key| as_written(key)).collect();
    let implied = condition.as_deref().map(|condition| format!("({})", as_written(condition)));
    let is_fit = |index: &&Index| {
        index.valid
            && index.keys.starts_with(&wanted)
            && index.condition.as_ref().is_none_or(|found| Some(found) == implied.as_ref())
    };
    let found = identity::as_extension(|| indexes(table.oid))?;
    let is_stale = !registration.labels.is_empty();
    if found.iter().any(|index| is_fit(&index) && !(is_stale && index.name == name)) {
        return Ok(());
    }
    let qualified_index = qualified(&registration.schema_name, &name);
    let keys = keys.join(", ");
    pgrx::notice!("creating index {qualified_index} on {} ({keys})", registration.name());
    let condition = condition.map_or(String::new(), |condition| format!(" WHERE {condition}"));
    identity::as_owner(table.owner, || {
        if let Some(old) = found.iter().find(|index| index.name == name) {
            Spi::run(&format!("DROP INDEX {}", old.shown))?;
        }
        Spi::run(&format!("CREATE INDEX {} ON {} ({keys}){condition}", quoted(&name), registration.name()))?;
        Spi::run(&format!("ALTER INDEX {qualified_index} DEPENDS ON EXTENSION plimsoll"))?;
        Ok(())
    })
}
