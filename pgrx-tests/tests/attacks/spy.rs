//! Code of the maker's that tries whatever might help, wherever it is run, and notes what came of it.

use crate::attempt::Outcome;
use crate::world::World;

/// What must be the same in a session after somebody else's code ran in it.
pub const SESSION: &str = "SELECT current_user, session_user, current_setting('search_path'), current_setting('work_mem'),
        current_setting('role'), (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_cursors WHERE is_holdable),
        (SELECT count(*) FROM pg_listening_channels()),
        (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema())";

/// What the code tries. All of it must fail, as whomever it runs.
const TRIES: [&str; 24] = [
    "SELECT count(*) FROM plimsoll.table_versions('{B}')",
    "SELECT count(*) FROM plimsoll.manifest('{B}', 'shop.customer', '(,)')",
    "SELECT count(*) FROM plimsoll.download('{B}', 'shop.customer', '(,)', 10)",
    "SELECT * FROM plimsoll.upload('{B}', 'shop.customer', '[]'::jsonb)",
    "SELECT plimsoll.delete_all('{B}', 'shop.customer')",
    "SELECT plimsoll.begin_run('{B}', 'spy', '1', 1)",
    "SELECT plimsoll.grant_database('{B}', '{maker}')",
    "SELECT plimsoll.forget_database('{B}')",
    "SELECT plimsoll.rotate_token('{B}')",
    "SELECT plimsoll.login('{B}')",
    "SELECT 1 / count(*) FROM plimsoll.databases WHERE database_id = '{B}'",
    "SELECT count(*) FROM shop.customer",
    "DELETE FROM shop.customer",
    "SELECT count(*) FROM plimsoll.database_record",
    "INSERT INTO plimsoll.grant_record (database_id, role_name, granted_by) VALUES ('{B}', '{maker}', 'postgres')",
    "SET ROLE postgres",
    "RESET ROLE; SELECT 1/0",
    "SELECT set_config('role', 'postgres', false)",
    "SET SESSION AUTHORIZATION postgres",
    "ALTER ROLE {maker} SUPERUSER",
    "GRANT plimsoll_admin TO {maker}",
    "SELECT pg_read_file('PG_VERSION')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "CREATE FUNCTION shop.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
];

/// Functions of the maker's for every place where a table may have some.
pub fn code() -> String {
    let tries: Vec<String> = TRIES.iter().map(|sql| format!("'{}'", sql.replace('\'', "''"))).collect();
    format!(
        "CREATE TABLE maker.heard (place text, who text, tried text, state text);
         GRANT INSERT ON maker.heard TO PUBLIC;
         GRANT USAGE ON SCHEMA maker TO PUBLIC;
         CREATE FUNCTION maker.tries(place text) RETURNS text LANGUAGE plpgsql AS $spy$
         DECLARE one text; ended text;
         BEGIN
             PERFORM pg_catalog.set_config('search_path', 'maker, pg_catalog', false);
             PERFORM pg_catalog.set_config('work_mem', '77kB', false);
             FOREACH one IN ARRAY ARRAY[{}]::text[] LOOP
                 BEGIN
                     EXECUTE one;
                     ended := '00000';
                 EXCEPTION WHEN OTHERS THEN
                     ended := SQLSTATE;
                 END;
                 INSERT INTO maker.heard VALUES (place, current_user, one, ended);
             END LOOP;
             BEGIN
                 CREATE TEMP TABLE left_behind (x int);
             EXCEPTION WHEN OTHERS THEN NULL; END;
             BEGIN
                 EXECUTE 'DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1';
             EXCEPTION WHEN OTHERS THEN NULL; END;
             BEGIN
                 EXECUTE 'LISTEN left_behind';
             EXCEPTION WHEN OTHERS THEN NULL; END;
             BEGIN
                 EXECUTE 'PREPARE left_behind AS SELECT 1';
             EXCEPTION WHEN OTHERS THEN NULL; END;
             BEGIN
                 EXECUTE 'SET CONSTRAINTS ALL DEFERRED';
             EXCEPTION WHEN OTHERS THEN NULL; END;
             RETURN place;
         END $spy$;
         CREATE FUNCTION maker.fire() RETURNS trigger LANGUAGE plpgsql AS $spy$
             BEGIN PERFORM maker.tries(TG_NAME); RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $spy$;
         CREATE FUNCTION maker.yes() RETURNS bool LANGUAGE plpgsql AS $spy$
             BEGIN PERFORM maker.tries('yes'); RETURN true; END $spy$;
         CREATE FUNCTION maker.is_fine(x text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $spy$
             BEGIN PERFORM maker.tries('is_fine'); RETURN true; END $spy$;
         CREATE FUNCTION maker.same(x text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $spy$
             BEGIN PERFORM maker.tries('same'); RETURN x; END $spy$;
         CREATE FUNCTION maker.word() RETURNS text LANGUAGE plpgsql AS $spy$
             BEGIN PERFORM maker.tries('word'); RETURN 'word'; END $spy$;",
        tries.join(", ")
    )
}

/// Whether the code ran (where it must have), as the maker alone, and nothing that it tried went well.
pub fn judged(world: &mut World, must_run: bool) -> Outcome {
    let ran: i64 = world.value("SELECT count(*) FROM maker.heard");
    if must_run && ran == 0 {
        return Err("the code did not run: nothing was tried".to_owned());
    }
    let wrong: Option<String> = world.value(
        "SELECT string_agg(DISTINCT place || ': ' || tried || ' as ' || who || ' ended with ' || state, E'\\n') FROM maker.heard
         WHERE who <> '{maker}' OR state = '00000' OR state NOT IN ('42501', '22012', '55000')",
    );
    wrong.map_or(Ok(()), Err)
}
