//! The table that most cases measure: 11 columns of mixed types, about 180 bytes a row.

use anyhow::{Context, Result};
use postgres::{Client, GenericClient};
use uuid::Uuid;

use crate::bench::Bench;

/// The columns that are replicated, in the table's order.
pub const COLUMNS: &str =
    "id, account, counterparty, purpose, amount, due_on, booked_at, settled, rate, reference, version";

/// The columns' definitions.
const DEFINITIONS: &str = "
    id bigint NOT NULL,
    account varchar(12) NOT NULL,
    counterparty text NOT NULL,
    purpose text NOT NULL,
    amount numeric(12,2) NOT NULL,
    due_on date NOT NULL,
    booked_at timestamptz NOT NULL,
    settled boolean,
    rate double precision NOT NULL,
    reference uuid NOT NULL,
    version bigint NOT NULL";

/// The tenant columns' definitions; every row has the same values, as one replica's rows have.
const TENANT: &str = "
    client_id text NOT NULL DEFAULT 'bench',
    database_id uuid NOT NULL,";

/// Rows written by one statement.
const CHUNK: u64 = 100_000;

/// The rows numbered `g` of a `generate_series`; `shift` is added to versions and changes the content.
fn rows_sql(shift: i64) -> String {
    format!(
        "g, 'DE' || lpad((g * 7919 % 10000000000)::text, 10, '0'),
         'Counterparty ' || (g * 104729 % 400000) || ' GmbH',
         (ARRAY['Invoice settled by bank transfer, thank you for the order',
                'Standing order for the berth at the north quay, monthly',
                'Überweisung Rechnung, bitte bei Rückfragen angeben: Hafen',
                'Refund of a deposit after the return of rented equipment'])[1 + g % 4],
         ((g * 1299709 + {shift}) % 999999999) / 100.0, date '2020-01-01' + (g % 2000)::int,
         timestamptz '2020-09-13 12:26:40Z' + g * interval '37 s', CASE WHEN g % 8 > 0 THEN g % 3 = 0 END,
         (g % 1000) / 7.0, md5(g::text)::uuid, g + {shift}"
    )
}

/// Makes a table of rows that no replica is made of: without tenant columns, without indexes.
///
/// # Errors
/// When the server refuses it.
pub fn create_plain(server: &mut Client, table: &str) -> Result<()> {
    Ok(server
        .batch_execute(&format!("CREATE TABLE {table} ({DEFINITIONS}) WITH (autovacuum_enabled = off)"))?)
}

/// Makes the table that a managed one is measured against: the same columns and indexes, nothing of ours.
///
/// # Errors
/// When the server refuses it.
pub fn create_identical(server: &mut Client, table: &str, database_id: &Uuid) -> Result<()> {
    server.batch_execute(&format!(
        "CREATE TABLE {table} ({TENANT} {DEFINITIONS}, PRIMARY KEY (client_id, database_id, id))
             WITH (autovacuum_enabled = off);
         ALTER TABLE {table} ALTER database_id SET DEFAULT '{database_id}';
         CREATE INDEX ON {table} (client_id, database_id, version)"
    ))?;
    Ok(())
}

/// Makes a managed table. Rows that are written without tenant columns belong to `database_id`.
///
/// # Errors
/// When the server refuses it.
pub fn create_managed(server: &mut Client, table: &str, database_id: &Uuid, kept: bool) -> Result<()> {
    server.batch_execute(&format!(
        "CREATE TABLE {table} ({TENANT} {DEFINITIONS}, PRIMARY KEY (client_id, database_id, id))
             WITH (autovacuum_enabled = off);
         ALTER TABLE {table} ALTER database_id SET DEFAULT '{database_id}';
         ALTER TABLE {table} OWNER TO {};
         SELECT plimsoll.manage_table('{table}', version_column => 'version', keep_manifest => {kept})",
        plimsoll_cluster::Site::OWNER
    ))?;
    if kept { begin_manifest(server, table, database_id) } else { Ok(()) }
}

/// Makes a managed table on the local side, which holds the rows of one database and no tenant columns; `numbers` are the
/// columns' numbers on the other side, as JSON.
///
/// # Errors
/// When the server refuses it.
pub fn create_local(server: &mut Client, table: &str, database_id: &Uuid, numbers: &str) -> Result<()> {
    server.batch_execute(&format!(
        "CREATE TABLE {table} ({DEFINITIONS}, PRIMARY KEY (id)) WITH (autovacuum_enabled = off);
         ALTER TABLE {table} OWNER TO {};
         SELECT plimsoll.manage_table('{table}', version_column => 'version', tenant_columns => '{{}}',
                                      column_numbers => '{numbers}', database_id => '{database_id}')",
        plimsoll_cluster::Site::OWNER
    ))?;
    begin_manifest(server, table, database_id)
}

/// Has an empty replica's manifest begun, as an agent's first run does.
fn begin_manifest(server: &mut Client, table: &str, database_id: &Uuid) -> Result<()> {
    server.execute("SELECT plimsoll.rebuild_manifest($1, $2)", &[database_id, &table])?;
    Ok(())
}

/// Writes the rows 1 to `rows`, as an application does, and lets the server settle.
///
/// # Errors
/// When the server refuses them.
pub fn fill(bench: &Bench<'_>, server: &mut Client, table: &str, rows: u64) -> Result<()> {
    fill_shifted(bench, server, table, rows, 0)
}

/// The same with `shift` added to every version and another amount in every row.
///
/// # Errors
/// When the server refuses them.
pub fn fill_shifted(
    bench: &Bench<'_>,
    server: &mut Client,
    table: &str,
    rows: u64,
    shift: i64,
) -> Result<()> {
    let select = rows_sql(shift);
    for first in (1..=rows).step_by(CHUNK as usize) {
        let last = rows.min(first + CHUNK - 1);
        bench.progress.update(&format!("{last} of {rows} rows of {table}"));
        let sql = format!(
            "INSERT INTO {table} ({COLUMNS}) SELECT {select} FROM generate_series({first}::bigint, {last}) g"
        );
        server.batch_execute(&sql).with_context(|| format!("cannot fill {table}"))?;
    }
    settle(server, table)
}

/// Empties a table and writes the rows of another one into it.
///
/// # Errors
/// When the server refuses it.
pub fn refill(server: &mut Client, table: &str, from: &str) -> Result<()> {
    server.batch_execute(&format!(
        "TRUNCATE {table};
         INSERT INTO {table} ({COLUMNS}) SELECT {COLUMNS} FROM {from} ORDER BY id"
    ))?;
    settle(server, table)
}

/// Empties a table and writes everything out.
///
/// # Errors
/// When the server refuses it.
pub fn empty(server: &mut Client, table: &str) -> Result<()> {
    server.batch_execute(&format!("TRUNCATE {table}"))?;
    settle(server, table)
}

fn settle(server: &mut Client, table: &str) -> Result<()> {
    server.batch_execute(&format!("VACUUM (ANALYZE) {table}"))?;
    server.batch_execute("CHECKPOINT")?;
    Ok(())
}

/// How many rows a table has, and bytes a row on average, header and alignment included.
///
/// # Errors
/// When the server refuses the question.
pub fn describe(server: &mut impl GenericClient, table: &str) -> Result<String> {
    let query = format!(
        "SELECT count(*), pg_catalog.pg_relation_size('{table}') / greatest(count(*), 1),
                pg_catalog.pg_size_pretty(pg_catalog.pg_total_relation_size('{table}')) FROM {table}"
    );
    let row = server.query_one(&query, &[])?;
    let (rows, bytes, total): (i64, i64, String) = (row.get(0), row.get(1), row.get(2));
    Ok(format!(
        "{rows} rows of {} columns, {bytes} bytes a row on disk, {total} with indexes",
        COLUMNS.split(',').count()
    ))
}
