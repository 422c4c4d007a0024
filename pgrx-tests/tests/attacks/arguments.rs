//! Tricks with arguments: types, casts, operators, functions and tables that stand in front of Postgres' own.

use crate::attempt::{Attempt, DENIED, Expect, Trials, by, made};
use crate::world::Who;

const ATTEMPTS: &[Attempt] = &[
    made(
        "a domain in place of the id's type",
        "CREATE DOMAIN maker.id AS uuid",
        "SELECT * FROM plimsoll.table_versions('{B}'::maker.id)",
        DENIED,
    ),
    made(
        "a domain whose check calls us",
        "CREATE FUNCTION maker.check(uuid) RETURNS bool LANGUAGE sql AS $$
             SELECT EXISTS (SELECT FROM plimsoll.table_versions('{B}')) $$;
         CREATE DOMAIN maker.id AS uuid CHECK (maker.check(VALUE))",
        "SELECT * FROM plimsoll.table_versions('{A}'::maker.id)",
        DENIED,
    ),
    made(
        "an implicit cast to the other id",
        "CREATE TYPE maker.trick AS (x int);
         CREATE FUNCTION maker.other(maker.trick) RETURNS uuid LANGUAGE sql AS $$ SELECT '{B}'::uuid $$;
         CREATE CAST (maker.trick AS uuid) WITH FUNCTION maker.other(maker.trick) AS IMPLICIT",
        "SELECT * FROM plimsoll.table_versions(ROW(1)::maker.trick)",
        DENIED,
    ),
    made(
        "an id that is another when it is looked at again",
        "CREATE SEQUENCE maker.looks;
         CREATE FUNCTION maker.flip() RETURNS uuid LANGUAGE sql VOLATILE AS $$
             SELECT CASE nextval('maker.looks') WHEN 1 THEN '{A}'::uuid ELSE '{B}' END $$",
        "SELECT row_count FROM plimsoll.range_fingerprint(maker.flip(), 'shop.single', '(,)')",
        DENIED,
    ),
    made(
        "an implicit cast that makes rows out of an own type",
        "CREATE TYPE maker.doc AS (x int);
         CREATE FUNCTION maker.to_doc(maker.doc) RETURNS jsonb LANGUAGE sql AS $$
             SELECT jsonb_build_array(jsonb_build_object('id', 1, 'version', 9, 'database_id', '{B}')) $$;
         CREATE CAST (maker.doc AS jsonb) WITH FUNCTION maker.to_doc(maker.doc) AS IMPLICIT",
        "SELECT * FROM plimsoll.upload('{A}', 'shop.customer', ROW(1)::maker.doc)",
        Expect::Refused(&["42703"]),
    ),
    made(
        "a cast that takes the bytes of one type for another's",
        "CREATE TYPE maker.doc AS (x int)",
        "CREATE CAST (maker.doc AS jsonb) WITHOUT FUNCTION AS IMPLICIT",
        Expect::Refused(&["42501"]),
    ),
    by(
        Who::Maker,
        "a cast between types that are not one's own",
        "CREATE CAST (bytea AS jsonb) WITH INOUT AS IMPLICIT",
        DENIED,
    ),
    made(
        "an equality of ids that always holds, ahead in search_path",
        "CREATE FUNCTION maker.yes(uuid, uuid) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE OPERATOR maker.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = maker.yes);
         SET search_path = maker, pg_catalog",
        "SELECT * FROM plimsoll.table_versions('{B}')",
        DENIED,
    ),
    made(
        "equalities of names and texts that always hold",
        "CREATE FUNCTION maker.yes(name, name) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE FUNCTION maker.yes(text, text) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE OPERATOR maker.= (LEFTARG = name, RIGHTARG = name, FUNCTION = maker.yes);
         CREATE OPERATOR maker.= (LEFTARG = text, RIGHTARG = text, FUNCTION = maker.yes);
         SET search_path = maker, pg_catalog",
        "SELECT * FROM plimsoll.upload('{B}', 'shop.customer', '[]'::jsonb)",
        DENIED,
    ),
    made(
        "a comparison of versions that always holds deletes no row",
        "CREATE FUNCTION maker.yes(bigint, bigint) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE OPERATOR maker.>= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = maker.yes);
         CREATE OPERATOR maker.< (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = maker.yes);
         SET search_path = maker, pg_catalog",
        "SELECT deleted FROM plimsoll.delete_range('{A}', 'shop.customer', '[100,200)')",
        Expect::Answer("0"),
    ),
    made(
        "an own equality in the question shows own databases only",
        "CREATE FUNCTION maker.yes(uuid, uuid) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE OPERATOR maker.== (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = maker.yes)",
        "SELECT count(*) FROM plimsoll.databases WHERE database_id OPERATOR(maker.==) '{B}'",
        Expect::Answer("1"),
    ),
    made(
        "functions ahead in search_path are not called",
        "CREATE FUNCTION maker.loud() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
         CREATE FUNCTION maker.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT maker.loud()';
         CREATE FUNCTION maker.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT maker.loud()';
         CREATE FUNCTION maker.count(int) RETURNS bigint LANGUAGE sql AS 'SELECT 99::bigint';
         CREATE FUNCTION maker.int8range(bigint, bigint) RETURNS int8range LANGUAGE sql AS $$ SELECT '(,)'::int8range $$;
         SET search_path = maker, pg_catalog",
        "SELECT count(*) OPERATOR(pg_catalog.||) ''::text FROM plimsoll.range_manifest('{A}', 'shop.customer', '(,)', 1)",
        Expect::Answer("1"),
    ),
    made(
        "tables of ours in pg_temp",
        "CREATE TEMP TABLE grant_record (database_id uuid, role_name name);
         CREATE TEMP TABLE database_record (database_id uuid, client_id text);
         INSERT INTO pg_temp.grant_record VALUES ('{B}', current_user);
         INSERT INTO pg_temp.database_record VALUES ('{B}', 'acme');
         SET search_path = pg_temp, plimsoll, pg_catalog",
        "SELECT * FROM plimsoll.table_versions('{B}')",
        DENIED,
    ),
    made(
        "pg_class and pg_namespace in pg_temp",
        "CREATE TEMP TABLE pg_class AS SELECT * FROM pg_catalog.pg_class WHERE relname = 'single';
         UPDATE pg_temp.pg_class SET relname = 'customer';
         CREATE TEMP TABLE pg_namespace AS SELECT * FROM pg_catalog.pg_namespace;
         SET search_path = pg_temp, pg_catalog",
        "SELECT row_count FROM plimsoll.table_version('{A}', 'shop.customer')",
        Expect::Answer("12"),
    ),
    made(
        "pg_attribute, pg_index and pg_proc in pg_temp",
        "CREATE TEMP TABLE pg_attribute AS SELECT attrelid, attname, attnum FROM pg_catalog.pg_attribute WHERE false;
         CREATE TEMP TABLE pg_index AS SELECT * FROM pg_catalog.pg_index WHERE false;
         CREATE TEMP TABLE pg_proc AS SELECT * FROM pg_catalog.pg_proc WHERE false;
         SET search_path = pg_temp, pg_catalog",
        "SELECT count(*) FROM plimsoll.manifest('{A}', 'shop.customer', '(,)')",
        Expect::Answer("12"),
    ),
    made(
        "types of Postgres in pg_temp",
        "CREATE DOMAIN pg_temp.uuid AS text; CREATE DOMAIN pg_temp.bytea AS text; CREATE DOMAIN pg_temp.jsonb AS text;
         CREATE DOMAIN pg_temp.int8range AS text; CREATE TYPE pg_temp.name AS ENUM ('x');
         SET search_path = pg_temp, pg_catalog",
        "SELECT row_count FROM plimsoll.range_fingerprint('{A}', 'shop.customer', '[1,3)')",
        Expect::Answer("2"),
    ),
    made(
        "functions and operators in pg_temp",
        "CREATE FUNCTION pg_temp.yes(uuid, uuid) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE OPERATOR pg_temp.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = pg_temp.yes);
         CREATE FUNCTION pg_temp.nextval(text) RETURNS bigint LANGUAGE sql AS 'SELECT {run}::bigint';
         SET search_path = pg_temp, pg_catalog",
        "SELECT * FROM plimsoll.table_versions('{B}')",
        DENIED,
    ),
    made(
        "a schema's worth of views in front of ours",
        "CREATE VIEW maker.database_record AS SELECT '{B}'::uuid AS database_id, 'acme' AS client_id;
         CREATE VIEW maker.visible_databases AS SELECT '{B}'::uuid;
         SET search_path = maker, plimsoll",
        "SELECT count(*) FROM plimsoll.databases",
        Expect::Answer("1"),
    ),
    by(Who::Maker, "an overload of a function of ours",
        "CREATE FUNCTION plimsoll.table_versions(text) RETURNS void LANGUAGE sql AS ''", DENIED),
    by(Who::Maker, "an operator in our schema",
        "CREATE OPERATOR plimsoll.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = uuid_eq)", DENIED),
    by(Who::Granted, "an argument by name", "SELECT * FROM plimsoll.table_versions(database_id => '{B}')", DENIED),
    by(Who::Granted, "the id in upper case and braces",
        "SELECT * FROM plimsoll.table_versions(upper('{' || '{B}' || '}')::uuid)", DENIED),
    by(Who::Shared, "ids row by row, the own one first",
        "SELECT d.id, v.* FROM (VALUES ('{A}'::uuid), ('{B}')) AS d (id), LATERAL plimsoll.table_versions(d.id) v", DENIED),
    by(Who::Granted, "both databases in one array of calls",
        "SELECT ARRAY(SELECT (plimsoll.table_version(d, 'shop.customer')).row_count FROM unnest('{{A},{B}}'::uuid[]) d)", DENIED),
    by(Who::Granted, "a list in place of columns",
        "SELECT plimsoll.fingerprint(decode(repeat('00', 32), 'hex'), VARIADIC ARRAY[1, 2])", Expect::Refused(&["0A000"])),
    by(Who::Granted, "values of pseudo-types",
        "SELECT plimsoll.fingerprint(decode(repeat('00', 32), 'hex'), 'x'::cstring)", Expect::Refused(&["0A000"])),
    by(Who::Granted, "a record of records",
        "SELECT plimsoll.fingerprint(decode(repeat('00', 32), 'hex'), ROW(ROW(1, 'x'), 2))", Expect::Refused(&["0A000"])),
    by(Who::Granted, "records of other types from row to row",
        "SELECT plimsoll.fingerprint(decode(repeat('00', 32), 'hex'), CASE i WHEN 1 THEN ROW(1, 'x'::text) ELSE ROW('y'::text) END)
             IS NOT NULL FROM generate_series(1, 2) i",
        Expect::Answer("t")),
    by(Who::Granted, "a key of another length",
        "SELECT plimsoll.fingerprint('\\x00', 1)", Expect::Refused(&["22023"])),
    by(Who::Maker, "an aggregate of one's own over our functions",
        "CREATE AGGREGATE maker.mine(bytea) (SFUNC = plimsoll.fingerprint_combine, STYPE = bytea, INITCOND = '\\x00')", DENIED),
    by(
        Who::Maker,
        "a window of our aggregate adds up no row twice",
        "WITH n AS (SELECT decode(repeat('00', 32), 'hex') AS k, i FROM generate_series(1, 70) i),
              single AS (SELECT i, plimsoll.fingerprint(k, i) AS f FROM n GROUP BY i),
              moving AS (SELECT i, plimsoll.fingerprint(k, i) OVER (ORDER BY i ROWS BETWEEN CURRENT ROW AND CURRENT ROW) AS f FROM n),
              growing AS (SELECT i, plimsoll.fingerprint(k, i) OVER (ORDER BY i) AS f FROM n),
              whole AS (SELECT plimsoll.fingerprint(k, i) AS f FROM n)
         SELECT count(*) FROM single JOIN moving USING (i, f) CROSS JOIN whole
         WHERE whole.f = (SELECT g.f FROM growing g WHERE g.i = 70)",
        Expect::Answer("70"),
    ),
];

pub fn attack(trials: &mut Trials) {
    trials.all(ATTEMPTS);
}
