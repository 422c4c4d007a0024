//! What is passed as `relation`: tables of the attacker's, ours, Postgres' own, and SQL.

use plimsoll_core::ranges::pack_ranges;
use plimsoll_core::store::PositionRange;

use crate::attempt::{Attempt, DENIED, Expect, Outcome, Trials, by, expect, made};
use crate::world::{Who, World, hex};

const NOT_MANAGED: Expect = Expect::Refused(&["42P01"]);

const ATTEMPTS: &[Attempt] = &[
    made(
        "an own table of the same name",
        "CREATE TABLE maker.customer (client_id text, database_id uuid, id int, name text, version bigint)",
        "SELECT * FROM plimsoll.upload('{A}', 'maker.customer', '[]'::jsonb)",
        NOT_MANAGED,
    ),
    made(
        "an own table of the same name, ahead in search_path",
        "CREATE TABLE maker.customer (client_id text, database_id uuid, id int, name text, version bigint);
         SET search_path = maker",
        "SELECT row_count FROM plimsoll.table_version('{A}', 'customer')",
        Expect::Answer("12"),
    ),
    made(
        "a temporary table of the same name",
        "CREATE TEMP TABLE customer (client_id text, database_id uuid, id int, name text, version bigint)",
        "SELECT * FROM plimsoll.upload('{A}', 'pg_temp.customer', '[]'::jsonb)",
        NOT_MANAGED,
    ),
    by(
        Who::Maker,
        "a view over the managed table",
        "CREATE VIEW maker.customer AS SELECT * FROM shop.customer",
        DENIED,
    ),
    by(
        Who::Maker,
        "an own table that inherits from the managed one",
        "CREATE TABLE maker.child () INHERITS (shop.customer)",
        DENIED,
    ),
    by(
        Who::Maker,
        "an own table that refers to the managed one",
        "CREATE TABLE maker.child (c text, d uuid, i int, FOREIGN KEY (c, d, i) REFERENCES shop.customer)",
        DENIED,
    ),
    made(
        "an own table moved beside the managed one",
        "CREATE TABLE maker.customers (id int)",
        "ALTER TABLE maker.customers SET SCHEMA shop",
        DENIED,
    ),
    made(
        "an own table handed over to Plimsoll",
        "CREATE TABLE maker.mine (client_id text, database_id uuid, id int, version bigint,
             PRIMARY KEY (client_id, database_id, id))",
        "SELECT plimsoll.manage_table('maker.mine', version_column => 'version')",
        DENIED,
    ),
    made(
        "a materialized view under the managed name",
        "CREATE MATERIALIZED VIEW maker.customer AS SELECT 1 AS id",
        "SELECT * FROM plimsoll.manifest('{A}', 'maker.customer', '(,)')",
        NOT_MANAGED,
    ),
    by(
        Who::Granted,
        "an index of the managed table",
        "SELECT * FROM plimsoll.table_version('{A}', 'shop.customer_pkey')",
        NOT_MANAGED,
    ),
    by(
        Who::Granted,
        "our own tables as relation",
        "SELECT * FROM plimsoll.download('{A}', 'plimsoll.database_record', '(,)', 10)",
        NOT_MANAGED,
    ),
    by(
        Who::Granted,
        "a catalogue as relation",
        "SELECT * FROM plimsoll.download('{A}', 'pg_catalog.pg_authid', '(,)', 10)",
        NOT_MANAGED,
    ),
    by(
        Who::Granted,
        "a toast table as relation",
        "SELECT plimsoll.delete_all('{A}', (SELECT reltoastrelid::regclass::text FROM pg_class WHERE relname = 'customer'))",
        NOT_MANAGED,
    ),
    by(
        Who::Granted,
        "a table by its oid",
        "SELECT * FROM plimsoll.table_version('{A}', (SELECT oid::text FROM pg_class WHERE relname = 'customer'))",
        NOT_MANAGED,
    ),
    by(
        Who::Granted,
        "a table with the database's name before it",
        "SELECT * FROM plimsoll.table_version('{A}', current_database() || '.shop.customer')",
        NOT_MANAGED,
    ),
    by(
        Who::Granted,
        "a statement after the name",
        "SELECT plimsoll.delete_all('{A}', 'shop.customer; DROP TABLE shop.customer')",
        NOT_MANAGED,
    ),
    by(
        Who::Granted,
        "a comment after the name",
        "SELECT * FROM plimsoll.table_version('{A}', 'shop.customer t WHERE true --')",
        NOT_MANAGED,
    ),
    by(
        Who::Granted,
        "a quote that ends the name",
        "SELECT * FROM plimsoll.table_version('{A}', '\"shop\".\"customer\"\" WHERE true --\"')",
        NOT_MANAGED,
    ),
    by(
        Who::Granted,
        "a subquery in place of the name",
        "SELECT * FROM plimsoll.table_version('{A}', '(SELECT * FROM shop.single)')",
        NOT_MANAGED,
    ),
    by(
        Who::Granted,
        "names of no and of great length",
        "SELECT * FROM plimsoll.table_version('{A}', ''); SELECT 1",
        NOT_MANAGED,
    ),
    by(
        Who::Granted,
        "a name of ten million characters",
        "SELECT * FROM plimsoll.table_version('{A}', repeat('x', 10000000))",
        NOT_MANAGED,
    ),
    by(
        Who::Granted,
        "a name that is the same in its first 63 bytes",
        "SELECT * FROM plimsoll.table_version('{A}', 'shop.customer' || repeat(' ', 100) || 'x')",
        NOT_MANAGED,
    ),
    by(
        Who::Maker,
        "management ended by name",
        "SELECT plimsoll.unmanage_table('shop.customer'::text)",
        DENIED,
    ),
];

/// Calls on the table of which all rows are B's, with A's id.
const SINGLE: [(&str, &str); 17] = [
    ("table_version", "'{A}', 'shop.single'"),
    ("range_fingerprint", "'{A}', 'shop.single', '(,)'"),
    ("range_manifest", "'{A}', 'shop.single', '(,)', 10"),
    ("manifest", "'{A}', 'shop.single', '(,)'"),
    ("packed_manifest", "'{A}', 'shop.single', '(,)', 10"),
    ("packed_items", "'{A}', 'shop.single', {ranges}"),
    ("packed_ranges", "'{A}', 'shop.single', {ranges}, 10"),
    ("packed_summaries", "'{A}', 'shop.single', {ranges}"),
    ("packed_sketch", "'{A}', 'shop.single', {ranges}, 0, 10"),
    ("sketch", "'{A}', 'shop.single', '{(,)}', 0, 10"),
    ("download", "'{A}', 'shop.single', '(,)', 10"),
    ("check_manifest", "'{A}', 'shop.single'"),
    ("rebuild_manifest", "'{A}', 'shop.single'"),
    ("upload", "'{A}', 'shop.single', '[{\"id\": 99, \"version\": 99}]'::jsonb"),
    ("delete_rows", "'{A}', 'shop.single', '[{\"key\": {\"id\": 1}}]'::jsonb"),
    ("delete_range", "'{A}', 'shop.single', '(,)'"),
    ("delete_all", "'{A}', 'shop.single'"),
];

pub fn attack(trials: &mut Trials) {
    trials.all(ATTEMPTS);
    for (function, arguments) in SINGLE {
        trials.one(&format!("{function} on the table of one other database"), |world| {
            single(world, function, arguments)
        });
    }
    trials.one("fold_manifest on the table of one other database", |world| {
        let mut session = world.connect(Who::Granted);
        expect(
            &mut session,
            &world.filled("SELECT plimsoll.fold_manifest('{A}', 'shop.single')"),
            Expect::Answer("0"),
        )
    });
    trials.one("the table of one other database is not among one's own", |world| {
        let mut session = world.connect(Who::Granted);
        let sql = world
            .filled("SELECT count(*) FROM plimsoll.table_versions('{A}') WHERE relation = 'shop.single'");
        expect(&mut session, &sql, Expect::Answer("0"))
    });
}

fn single(world: &mut World, function: &str, arguments: &str) -> Outcome {
    let mut session = world.connect(Who::Granted);
    let ranges = format!("'{}'::bytea", hex(&pack_ranges(&[PositionRange::ALL])));
    let sql = world
        .filled(&format!("SELECT * FROM plimsoll.{function}({})", arguments.replace("{ranges}", &ranges)));
    expect(&mut session, &sql, Expect::Refused(&["42501", "55000"]))
}
