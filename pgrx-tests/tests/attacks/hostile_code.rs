//! Code of the attacker's that runs while a function of ours does, in the attacker's own session: what is deferred
//! fires there, what is an argument is computed before.

use crate::attempt::{Attempt, DENIED, Expect, Outcome, Trials, expect, made};
use crate::spy;
use crate::world::{Who, World};

const ATTEMPTS: &[Attempt] = &[
    made(
        "a function with the definer's rights that calls us",
        "CREATE FUNCTION maker.steal() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT count(*) FROM plimsoll.manifest('{B}', 'shop.customer', '(,)') $$",
        "SELECT maker.steal()",
        DENIED,
    ),
    made(
        "a SQL function that is put in line",
        "CREATE FUNCTION maker.steal(uuid) RETURNS SETOF bigint LANGUAGE sql STABLE AS $$ SELECT row_count FROM plimsoll.table_version($1, 'shop.customer') $$",
        "SELECT * FROM maker.steal('{B}')",
        DENIED,
    ),
    made(
        "a function that says it is immutable, computed while planning",
        "CREATE FUNCTION maker.steal(uuid) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT row_count FROM plimsoll.table_version($1, 'shop.customer') $$",
        "EXPLAIN SELECT maker.steal('{B}')",
        DENIED,
    ),
    made(
        "a function that says it is leakproof",
        "SELECT",
        "CREATE FUNCTION maker.leak(text) RETURNS bool LANGUAGE sql LEAKPROOF AS 'SELECT true'",
        DENIED,
    ),
    made(
        "a function that says who estimates its rows",
        "SELECT",
        "CREATE FUNCTION maker.rows(int) RETURNS SETOF int LANGUAGE sql SUPPORT generate_series_int4_support AS 'SELECT 1'",
        DENIED,
    ),
    made(
        "a procedure that commits within",
        "CREATE PROCEDURE maker.go() LANGUAGE plpgsql AS $$ BEGIN
             PERFORM plimsoll.table_versions('{A}'); COMMIT; PERFORM plimsoll.table_versions('{B}'); END $$",
        "CALL maker.go()",
        DENIED,
    ),
    made(
        "a default of an own table that calls us",
        "CREATE FUNCTION maker.count() RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM plimsoll.manifest('{B}', 'shop.customer', '(,)') $$;
         CREATE TABLE maker.mine (id int, found bigint DEFAULT maker.count())",
        "INSERT INTO maker.mine VALUES (1)",
        DENIED,
    ),
    made(
        "a policy of an own table that calls us",
        "CREATE TABLE maker.mine (id int); INSERT INTO maker.mine VALUES (1);
         CREATE POLICY p ON maker.mine USING (EXISTS (SELECT FROM plimsoll.table_versions('{B}')));
         ALTER TABLE maker.mine ENABLE ROW LEVEL SECURITY; ALTER TABLE maker.mine FORCE ROW LEVEL SECURITY",
        "SELECT * FROM maker.mine",
        DENIED,
    ),
    made(
        "a rule of an own view that calls us",
        "CREATE VIEW maker.mine AS SELECT 1 AS id;
         CREATE RULE r AS ON INSERT TO maker.mine DO INSTEAD SELECT * FROM plimsoll.table_versions('{B}')",
        "INSERT INTO maker.mine VALUES (1)",
        DENIED,
    ),
    made(
        "an index of an own table that calls us",
        "CREATE FUNCTION maker.found(int) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT count(*) FROM plimsoll.visible_databases() $$;
         CREATE TABLE maker.mine (id int); INSERT INTO maker.mine VALUES (1)",
        "CREATE INDEX ON maker.mine (maker.found(id))",
        Expect::Says("42501", "security-restricted"),
    ),
    made(
        "a materialized view of what one may see",
        "SELECT",
        "CREATE MATERIALIZED VIEW maker.mine AS SELECT * FROM plimsoll.databases",
        Expect::Says("42501", "security-restricted"),
    ),
    made(
        "rows of a download put where a trigger sends them on",
        "CREATE TABLE maker.mine (x bytea);
         CREATE FUNCTION maker.on() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM plimsoll.upload('{B}', 'shop.customer', '[{\"id\": 1, \"version\": 99}]'::jsonb); RETURN NEW; END $$;
         CREATE TRIGGER t BEFORE INSERT ON maker.mine FOR EACH ROW EXECUTE FUNCTION maker.on()",
        "INSERT INTO maker.mine SELECT d.row FROM plimsoll.download('{A}', 'shop.customer', '(,)', 10) d",
        DENIED,
    ),
    made(
        "a call of ours within the estimate of another",
        "SELECT",
        "SELECT * FROM plimsoll.download('{A}', 'shop.customer', '(,)', (SELECT count(*)::int FROM plimsoll.table_versions('{B}')))",
        DENIED,
    ),
    made(
        "settings changed by a function within a call's arguments",
        "CREATE FUNCTION maker.set() RETURNS text LANGUAGE plpgsql AS $$ BEGIN
             PERFORM set_config('search_path', 'maker', false); PERFORM set_config('DateStyle', 'German', false); RETURN 'shop.customer'; END $$;
         CREATE FUNCTION maker.max(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint'",
        "SELECT row_count FROM plimsoll.table_version('{A}', maker.set())",
        Expect::Answer("12"),
    ),
];

pub fn attack(trials: &mut Trials) {
    trials.all(ATTEMPTS);
    let parts = ["A's rows", "A's history"];
    trials.touching("a deferred trigger that fires within an upload", &parts, |world| {
        deferred(world, "SELECT inserted FROM plimsoll.upload('{A}', 'shop.customer', '[{\"id\": 200, \"version\": 200}]'::jsonb)")
    });
    trials.touching("a deferred trigger that fires within a delete", &parts, |world| {
        deferred(world, "SELECT deleted FROM plimsoll.delete_rows('{A}', 'shop.customer', '[{\"key\": {\"id\": 12}}]'::jsonb)")
    });
    trials.touching("a deferred trigger that calls the call that fired it", &parts, recursive);
    trials.one("a trigger that the victim's login fires", lured);
}

/// Something deferred on an own table fires when our function makes constraints immediate.
fn deferred(world: &mut World, call: &str) -> Outcome {
    let mut maker = world.connect(Who::Maker);
    maker.must(&world.filled(&spy::code()));
    maker.must(
        "CREATE TABLE maker.mine (id int);
         CREATE CONSTRAINT TRIGGER late AFTER INSERT ON maker.mine DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION maker.fire()",
    );
    maker.must("BEGIN; INSERT INTO maker.mine VALUES (1)");
    let call = expect(&mut maker, &world.filled(call), Expect::Answer("1"));
    maker.must("COMMIT");
    // What the maker's own session lets through is its own: temporary tables, settings, cursors.
    call.and_then(|()| spy::judged(world, true))
}

/// It uploads again, to the same table, from within.
fn recursive(world: &mut World) -> Outcome {
    let mut maker = world.connect(Who::Maker);
    maker.must(&world.filled(
        "CREATE TABLE maker.mine (id int);
         CREATE FUNCTION maker.again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM plimsoll.upload('{A}', 'shop.customer', '[{\"id\": 300, \"name\": \"inner\", \"version\": 300}]'::jsonb);
             PERFORM plimsoll.rebuild_manifest('{A}', 'shop.customer'); RETURN NEW; END $$;
         CREATE CONSTRAINT TRIGGER late AFTER INSERT ON maker.mine DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION maker.again();
         BEGIN; INSERT INTO maker.mine VALUES (1)",
    ));
    let call = "SELECT inserted + updated FROM plimsoll.upload('{A}', 'shop.customer', '[{\"id\": 300, \"name\": \"outer\", \"version\": 301}]'::jsonb)";
    let outcome = expect(&mut maker, &world.filled(call), Expect::Answer("1"));
    maker.must("COMMIT");
    outcome
}

/// B's agent writes into a table of the maker's within its login: the code that runs is its own doing, but what it
/// leaves behind is not the maker's when the login is over.
fn lured(world: &mut World) -> Outcome {
    let mut maker = world.connect(Who::Maker);
    maker.must(
        "CREATE TABLE maker.mine (id uuid, n bigint); GRANT USAGE ON SCHEMA maker TO PUBLIC; GRANT INSERT ON maker.mine TO PUBLIC;
         CREATE FUNCTION maker.later() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
             NEW.n := (SELECT count(*) FROM plimsoll.table_versions(NEW.id)); RETURN NEW; END $$;
         CREATE TRIGGER t BEFORE INSERT ON maker.mine FOR EACH ROW EXECUTE FUNCTION maker.later()",
    );
    let mut victim = world.connect(Who::Shared);
    victim.log_in(&world.b);
    world.leaked();
    expect(&mut victim, &world.filled("INSERT INTO maker.mine VALUES ('{B}')"), DENIED)
}
