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
        "an own table as a partition of the managed one",
        "CREATE TABLE maker.part PARTITION OF shop.customer DEFAULT",
        Expect::Refused(&["42501", "42P17"]),
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
    trials.touching("a managed table that its owner replaced by a view", &["registrations"], replaced);
    trials.touching("rows of another's that refer to one's own, which is deleted", &["registrations", "catalogue", "A's history"], |world| {
        let outcome = referred_to(world);
        world.admin(
            "SELECT plimsoll.unmanage_table('shop.place'::text); DROP TABLE shop.visit; DROP TABLE shop.place",
        );
        outcome
    });
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

/// The owner of a managed table puts a view over ours in its place.
fn replaced(world: &mut World) -> Outcome {
    let mut maker = world.connect(Who::Maker);
    maker.must(
        "CREATE TABLE maker.mine (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL, version bigint NOT NULL,
             PRIMARY KEY (client_id, database_id, id))",
    );
    world.admin("SELECT plimsoll.manage_table('maker.mine', version_column => 'version')");
    maker.must(
        "DROP TABLE maker.mine; CREATE VIEW maker.mine AS SELECT client_id, database_id, 1 AS id, 1::bigint AS version FROM plimsoll.databases",
    );
    let mut outcome = Ok(());
    for call in [
        "table_version('{A}', 'maker.mine')",
        "upload('{A}', 'maker.mine', '[]'::jsonb)",
        "delete_all('{A}', 'maker.mine')",
    ] {
        let sql = world.filled(&format!("SELECT plimsoll.{call}"));
        outcome = outcome.and(expect(&mut maker, &sql, Expect::Refused(&["55000"])));
    }
    let table_versions =
        world.superuser.batch_execute(&world.filled("SELECT plimsoll.table_versions('{B}')"));
    world.admin("SELECT plimsoll.unmanage_table('maker.mine'::text)");
    outcome.and(table_versions.map_err(|error| format!("{error:?}")))
}

/// A foreign key without the tenant columns would take another's rows along: such a delete takes none.
fn referred_to(world: &mut World) -> Outcome {
    world.admin(
        "SET ROLE {owner};
         CREATE TABLE shop.place (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL UNIQUE, version bigint NOT NULL,
             PRIMARY KEY (client_id, database_id, id));
         CREATE TABLE shop.visit (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL, version bigint NOT NULL,
             place int REFERENCES shop.place (id) ON DELETE CASCADE, PRIMARY KEY (client_id, database_id, id));
         RESET ROLE;
         SELECT plimsoll.manage_table('shop.place', version_column => 'version')",
    );
    let visits = world
        .superuser
        .batch_execute("SELECT plimsoll.manage_table('shop.visit', version_column => 'version')");
    let managed = visits.is_ok();
    world.admin(
        "INSERT INTO shop.place SELECT 'acme', '{A}', i, i FROM generate_series(1, 20) i;
         INSERT INTO shop.visit SELECT 'acme', '{A}', i, i, NULL FROM generate_series(1, 40) i;
         INSERT INTO shop.visit VALUES ('SECRET-client', '{B}', 1, 1, 1)",
    );
    let mut session = world.connect(Who::Granted);
    let delete = world.filled(
        "SELECT deleted FROM plimsoll.delete_rows('{A}', 'shop.place', '[{\"key\": {\"id\": 1}}]'::jsonb)",
    );
    let outcome = session.run(&delete);
    let left: i64 = world.value("SELECT count(*) FROM shop.visit WHERE database_id = '{B}'");
    if managed {
        world.admin("SELECT plimsoll.unmanage_table('shop.visit'::text)");
    }
    if left == 1 { Ok(()) } else { Err(format!("managed {managed}: {outcome:?}, and another's row is gone")) }
}
