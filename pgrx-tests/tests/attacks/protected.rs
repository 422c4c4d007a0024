//! People and applications who read a managed table themselves, where `protect_table` set up its policies.

use crate::attempt::{Attempt, DENIED, Expect, Trials, by, made};
use crate::world::Who;

const ATTEMPTS: &[Attempt] = &[
    by(
        Who::Granted,
        "protected: rows read",
        "SELECT count(*) FROM shop.open WHERE database_id <> '{A}'",
        Expect::Answer("0"),
    ),
    by(
        Who::Shared,
        "protected: rows read under a login",
        "SELECT count(*) || ' of ' || min(client_id) || max(client_id) FROM shop.open",
        Expect::Answer("3 of acmeacme"),
    ),
    by(
        Who::Shared,
        "protected: rows read after the login",
        "COMMIT; SELECT * FROM shop.open",
        Expect::Nothing,
    ),
    by(
        Who::Granted,
        "protected: policies switched off",
        "SET row_security = off; SELECT * FROM shop.open",
        DENIED,
    ),
    by(
        Who::Granted,
        "protected: rows copied",
        "SELECT count(*) FROM (SELECT * FROM shop.open OFFSET 0) o WHERE client_id <> 'acme'",
        Expect::Answer("0"),
    ),
    by(
        Who::Granted,
        "protected: a row of another's put in",
        "INSERT INTO shop.open VALUES ('x', '{B}', 99, 'mine', 99)",
        DENIED,
    ),
    by(
        Who::Granted,
        "protected: an own row given to another",
        "UPDATE shop.open SET database_id = '{B}'",
        DENIED,
    ),
    by(
        Who::Granted,
        "protected: rows of another's changed",
        "WITH u AS (UPDATE shop.open SET name = 'mine' WHERE database_id = '{B}' RETURNING 1) SELECT count(*) FROM u",
        Expect::Answer("0"),
    ),
    by(
        Who::Granted,
        "protected: rows of another's deleted",
        "WITH u AS (DELETE FROM shop.open WHERE database_id = '{B}' RETURNING 1) SELECT count(*) FROM u",
        Expect::Answer("0"),
    ),
    by(
        Who::Granted,
        "protected: an upsert onto another's row",
        "INSERT INTO shop.open VALUES ('x', '{B}', 1, 'mine', 99) ON CONFLICT (client_id, database_id, id) DO UPDATE SET name = 'mine'",
        DENIED,
    ),
    by(
        Who::Granted,
        "protected: a row that exists already, told by nothing",
        "INSERT INTO shop.open VALUES ('x', '{B}', 1, 'mine', 99) ON CONFLICT DO NOTHING",
        DENIED,
    ),
    by(
        Who::Granted,
        "protected: a merge into another's rows",
        "MERGE INTO shop.open o USING (VALUES (1)) v (x) ON o.database_id = '{B}' WHEN MATCHED THEN DELETE; SELECT 1 WHERE false",
        Expect::Nothing,
    ),
    by(
        Who::Granted,
        "protected: rows locked",
        "SELECT count(*) FROM (SELECT 1 FROM shop.open WHERE database_id = '{B}' FOR UPDATE) l",
        Expect::Answer("0"),
    ),
    by(Who::Granted, "protected: the table emptied", "TRUNCATE shop.open", DENIED),
    by(
        Who::Granted,
        "protected: a policy of one's own",
        "CREATE POLICY mine ON shop.open USING (true)",
        DENIED,
    ),
    by(Who::Granted, "protected: policies taken off", "SELECT plimsoll.unprotect_table('shop.open')", DENIED),
    by(
        Who::Granted,
        "protected: statistics",
        "SELECT * FROM pg_stats WHERE tablename = 'open' AND attname <> 'x'",
        Expect::Nothing,
    ),
    made(
        "protected: a function that costs nothing looks at each row",
        "CREATE FUNCTION maker.look(text) RETURNS bool LANGUAGE plpgsql COST 0.0000001 AS $$
             BEGIN RAISE NOTICE 'seen: %', $1; RETURN true; END $$",
        "SELECT count(*) FROM shop.open WHERE maker.look(name) AND maker.look(client_id)",
        Expect::Answer("3"),
    ),
    made(
        "protected: an equality of one's own on the tenant columns",
        "CREATE FUNCTION maker.yes(uuid, uuid) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE OPERATOR maker.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = maker.yes);
         CREATE FUNCTION maker.yes(text, text) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE OPERATOR maker.= (LEFTARG = text, RIGHTARG = text, FUNCTION = maker.yes);
         SET search_path = maker, pg_catalog",
        "SELECT count(*) FROM shop.open",
        Expect::Answer("3"),
    ),
    made(
        "protected: a view of one's own over the table",
        "CREATE VIEW maker.mine AS SELECT * FROM shop.open",
        "SELECT count(*) FROM maker.mine WHERE client_id <> 'acme'",
        Expect::Answer("0"),
    ),
    made(
        "protected: a function of one's own with the definer's rights",
        "CREATE FUNCTION maker.mine() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT count(*) FROM shop.open WHERE database_id <> '{A}' $$",
        "SELECT maker.mine()",
        Expect::Answer("0"),
    ),
    made(
        "protected: a plan that was made for another's rights",
        "SET plan_cache_mode = force_generic_plan; PREPARE mine AS SELECT count(*) FROM shop.open WHERE client_id <> 'acme'; EXECUTE mine",
        "EXECUTE mine",
        Expect::Answer("0"),
    ),
    by(
        Who::Granted,
        "protected: the plan's estimates and counts",
        "EXPLAIN (ANALYZE, VERBOSE, COSTS OFF, TIMING OFF) SELECT * FROM shop.open WHERE name LIKE 'S%'; SELECT 1 WHERE false",
        Expect::Nothing,
    ),
    by(Who::Stranger, "protected: one who is in no group", "SELECT * FROM shop.open", Expect::Nothing),
    by(Who::Reader, "protected: a reader writes", "DELETE FROM shop.open; SELECT 1 WHERE false", DENIED),
];

pub fn attack(trials: &mut Trials) {
    trials.world.admin(
        "GRANT USAGE ON SCHEMA shop TO PUBLIC; GRANT SELECT ON shop.open TO PUBLIC;
         GRANT INSERT, UPDATE, DELETE ON shop.open TO {granted}, {maker}, {shared};
         SELECT plimsoll.protect_table('shop.open', true); ANALYZE shop.open",
    );
    trials.settle();
    trials.all(ATTEMPTS);
    trials.world.admin(
        "SELECT plimsoll.unprotect_table('shop.open'); REVOKE USAGE ON SCHEMA shop FROM PUBLIC;
         REVOKE ALL ON shop.open FROM PUBLIC, {granted}, {maker}, {shared}",
    );
    trials.settle();
}
