//! What `manage_table` writes: the registration, and the index by which rows are read in position order.

use pgrx::pg_sys::Oid;
use pgrx::spi::Spi;

use super::catalog::Registration;
use crate::datum::{qualified, quoted};
use crate::error::{Answer, Problem, state};
use crate::identity;

/// Writes the registration: a new one, one that was there under this name, or one whose table was renamed.
pub fn register(registration: &Registration, version_scope: &str, user: &str) -> Answer<i32> {
    let table_id = Spi::get_one_with_args::<i32>(
        "WITH known AS (
             SELECT t.table_id FROM plimsoll.table_record t
             WHERE (t.schema_name OPERATOR(pg_catalog.=) $1::pg_catalog.name
                    AND t.table_name OPERATOR(pg_catalog.=) $2::pg_catalog.name)
                OR (t.relation_oid OPERATOR(pg_catalog.=) $3 AND t.owner_name OPERATOR(pg_catalog.=) $4::pg_catalog.name
                    AND t.version_column OPERATOR(pg_catalog.=) $7::pg_catalog.name AND NOT EXISTS (
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
                 unmanaged_at = NULL,
                 managed_at = pg_catalog.now(), managed_by = $11::pg_catalog.name
             FROM known k WHERE t.table_id OPERATOR(pg_catalog.=) k.table_id RETURNING t.table_id),
         added AS (
             INSERT INTO plimsoll.table_record (schema_name, table_name, relation_oid, owner_name, tenant_columns,
                 key_columns, version_column, modified_column, version_scope, server_columns, managed_by,
                 superuser_allowed, database_id)
             SELECT $1::pg_catalog.name, $2::pg_catalog.name, $3, $4::pg_catalog.name, $5::pg_catalog.name[],
                    $6::pg_catalog.name[], $7::pg_catalog.name, $8::pg_catalog.name, $9,
                    $10::pg_catalog.name[], $11::pg_catalog.name, $12, $13
             WHERE NOT EXISTS (SELECT FROM known) RETURNING table_id)
         SELECT table_id FROM changed UNION ALL SELECT table_id FROM added",
        &[
            registration.schema_name.as_str().into(),
            registration.table_name.as_str().into(),
            registration.relation_oid.into(),
            registration.owner_name.as_str().into(),
            registration.tenant_columns.clone().into(),
            registration.key_columns.clone().into(),
            registration.version_column.as_str().into(),
            registration.modified_column.clone().into(),
            version_scope.into(),
            registration.server_columns.clone().into(),
            user.into(),
            registration.superuser_allowed.into(),
            registration.only_database.into(),
        ],
    )?;
    table_id.ok_or_else(|| Problem::new(state::INTERNAL, "the registration was not written"))
}

/// Writes the names that a registration's columns have now.
pub fn write_names(registration: &Registration) -> Answer<()> {
    Ok(Spi::run_with_args(
        "UPDATE plimsoll.table_record t
         SET tenant_columns = $2::pg_catalog.name[], key_columns = $3::pg_catalog.name[],
             version_column = $4::pg_catalog.name, modified_column = $5::pg_catalog.name,
             server_columns = $6::pg_catalog.name[]
         WHERE t.table_id OPERATOR(pg_catalog.=) $1
           AND (t.tenant_columns, t.key_columns, t.version_column, t.modified_column, t.server_columns)
               IS DISTINCT FROM ($2::pg_catalog.name[], $3::pg_catalog.name[], $4::pg_catalog.name,
                                 $5::pg_catalog.name, $6::pg_catalog.name[])",
        &[
            registration.table_id.into(),
            registration.tenant_columns.clone().into(),
            registration.key_columns.clone().into(),
            registration.version_column.as_str().into(),
            registration.modified_column.clone().into(),
            registration.server_columns.clone().into(),
        ],
    )?)
}

/// Creates the index by which rows are read in position order, unless one leads with these columns.
///
/// Ours is partial on a condition that always holds and that every range of positions implies: a look-up
/// by key cannot use it. While a new table has no statistics the planner takes both indexes for equal, and
/// would read the whole replica for each key.
pub fn ensure_position_index(oid: Oid, registration: &Registration, owner: Oid) -> Answer<()> {
    let exists = identity::as_extension(|| {
        Ok(Spi::get_one_with_args::<bool>(
            "SELECT EXISTS (
                 SELECT FROM pg_catalog.pg_index i
                 WHERE i.indrelid OPERATOR(pg_catalog.=) $1 AND i.indisvalid
                   AND (i.indpred IS NULL OR pg_catalog.pg_get_expr(i.indpred, i.indrelid) OPERATOR(pg_catalog.=)
                            pg_catalog.format('(%I IS NOT NULL)', $2[pg_catalog.cardinality($2)]))
                   AND (SELECT pg_catalog.array_agg(a.attname::pg_catalog.text ORDER BY k.place)
                        FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k (attnum, place)
                        JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid
                             AND a.attnum OPERATOR(pg_catalog.=) k.attnum
                        WHERE k.place OPERATOR(pg_catalog.<=) pg_catalog.cardinality($2)) OPERATOR(pg_catalog.=) $2)",
            &[
                oid.into(),
                registration
                    .tenant_columns
                    .iter()
                    .chain([&registration.version_column])
                    .cloned()
                    .collect::<Vec<_>>()
                    .into(),
            ],
        )?)
    })?;
    if exists == Some(true) {
        return Ok(());
    }
    let columns: Vec<String> =
        registration.tenant_columns.iter().chain([&registration.version_column]).map(|c| quoted(c)).collect();
    let index = format!("plimsoll_{}_position", registration.table_id);
    let qualified_index = qualified(&registration.schema_name, &index);
    pgrx::notice!("creating index {qualified_index} on {} ({})", registration.name(), columns.join(", "));
    identity::as_owner(owner, || {
        Spi::run(&format!(
            "CREATE INDEX {} ON {} ({}) WHERE {} IS NOT NULL",
            quoted(&index),
            registration.name(),
            columns.join(", "),
            quoted(&registration.version_column)
        ))?;
        Spi::run(&format!("ALTER INDEX {qualified_index} DEPENDS ON EXTENSION plimsoll"))?;
        Ok(())
    })
}
