//! The SQL for the managed tables.

use super::*;

fn sql_for(statements: &str, arguments: &SchemaArgs) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.sqlite");
    rusqlite::Connection::open(&path).expect("a database").execute_batch(statements).expect("sound SQL");
    let arguments = SchemaArgs { source: Some(path), ..arguments.clone() };
    schema_sql(None, &arguments).expect("SQL")
}

fn arguments() -> SchemaArgs {
    SchemaArgs {
        tables: Vec::new(),
        source: None,
        owner: None,
        schema: "public".to_owned(),
        version_column: None,
    }
}

#[test]
fn a_table_comes_with_its_tenant_columns_key_and_version() {
    let sql = sql_for(
        "CREATE TABLE \"Order\" (branch VARCHAR(3) NOT NULL, \"no\" INTEGER NOT NULL, total DECIMAL(8,2),
           anything, row_version INTEGER, modified_at TEXT, PRIMARY KEY (branch, \"no\"));
         INSERT INTO \"Order\" VALUES ('a', 1, 1, x'00', 1, '2024-01-01 10:00:00');
         CREATE TABLE loose (a TEXT);",
        &SchemaArgs { owner: Some("shop owner".into()), schema: "shop".into(), ..arguments() },
    );
    assert_eq!(
        sql,
        "-- To be run in the shared database, by an administrator of it.
CREATE SCHEMA IF NOT EXISTS shop AUTHORIZATION \"shop owner\";

CREATE TABLE shop.\"Order\" (
    client_id text NOT NULL,
    database_id uuid NOT NULL,
    branch varchar(3) NOT NULL,
    no bigint NOT NULL,
    total numeric(8,2),
    anything bytea,
    row_version bigint NOT NULL,
    modified_at timestamp,
    PRIMARY KEY (client_id, database_id, branch, no)
);
CREATE INDEX \"Order_position\" ON shop.\"Order\" (client_id, database_id, row_version) WHERE row_version IS NOT NULL;
ALTER TABLE shop.\"Order\" OWNER TO \"shop owner\";
SELECT plimsoll.manage_table('shop.\"Order\"', version_column => 'row_version', modified_column => 'modified_at');

CREATE TABLE shop.loose (
    client_id text NOT NULL,
    database_id uuid NOT NULL,
    a text
);
ALTER TABLE shop.loose OWNER TO \"shop owner\";
SELECT plimsoll.manage_table('shop.loose', key_columns => '{}');
"
    );
}

#[test]
fn text_that_is_no_time_is_no_last_change() {
    let sql = sql_for(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER, modified TEXT);
         INSERT INTO t VALUES (1, 1, 'yesterday')",
        &SchemaArgs { version_column: Some("V".into()), ..arguments() },
    );
    assert!(sql.contains("    modified text,\n"), "{sql}");
    assert!(sql.contains("version_column => 'v')"), "{sql}");
}
