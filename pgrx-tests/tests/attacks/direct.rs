//! Past our functions: our tables, sequences, functions and types, the managed tables, and what Postgres offers.

use crate::attempt::{Attempt, DENIED, Expect, Outcome, Trials, by, expect};
use crate::world::{Who, World};

const ATTEMPTS: &[Attempt] = &[
    by(Who::Granted, "a managed table read", "SELECT * FROM shop.customer", DENIED),
    by(Who::Granted, "a managed table written", "INSERT INTO shop.customer VALUES ('acme', '{A}', 99, 'x', 99)", DENIED),
    by(Who::Granted, "a managed table locked", "BEGIN; LOCK TABLE shop.customer IN ACCESS EXCLUSIVE MODE", DENIED),
    by(Who::Granted, "a managed table emptied", "TRUNCATE shop.customer CASCADE", DENIED),
    by(Who::Granted, "a managed table copied", "COPY shop.customer TO STDOUT", DENIED),
    by(Who::Granted, "statistics on a managed table", "CREATE STATISTICS maker.s ON id, version FROM shop.customer", DENIED),
    by(Who::Granted, "a managed table's triggers switched off", "ALTER TABLE shop.customer DISABLE TRIGGER ALL", DENIED),
    by(Who::Granted, "a managed table dropped", "DROP TABLE shop.customer CASCADE", Expect::Refused(&["42501"])),
    by(Who::Granted, "a managed table analysed", "ANALYZE shop.customer; SELECT 1 WHERE false", Expect::Refused(&["42501"])),
    by(Who::Maker, "our trigger on an own table",
        "CREATE TABLE maker.mine (id int); CREATE TRIGGER kept AFTER INSERT ON maker.mine
             FOR EACH STATEMENT EXECUTE FUNCTION plimsoll.kept_trigger()", DENIED),
    by(Who::Maker, "our event trigger's function as a trigger",
        "CREATE TABLE maker.mine (id int); CREATE TRIGGER kept AFTER INSERT ON maker.mine
             FOR EACH STATEMENT EXECUTE FUNCTION plimsoll.kept_rewrite()", Expect::Refused(&["42501", "42P17"])),
    by(Who::Maker, "an event trigger of one's own",
        "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION plimsoll.kept_subscription()", DENIED),
    by(Who::Maker, "our event triggers switched off", "ALTER EVENT TRIGGER plimsoll_rewrite DISABLE", DENIED),
    by(Who::Maker, "a function out of our library",
        "CREATE FUNCTION maker.f(bytea) RETURNS bytea LANGUAGE c AS '$libdir/plimsoll', 'fingerprint_sum_wrapper'", DENIED),
    by(Who::Maker, "our library loaded by name", "LOAD 'plimsoll'", DENIED),
    by(Who::Maker, "an internal function of Postgres by another name",
        "CREATE FUNCTION maker.f(text) RETURNS text LANGUAGE internal AS 'pg_read_file_all'", DENIED),
    by(Who::Maker, "a function of ours taken over", "ALTER FUNCTION plimsoll.version() OWNER TO {maker}", DENIED),
    by(Who::Maker, "a function of ours without its search_path",
        "ALTER FUNCTION plimsoll.table_versions(uuid) RESET ALL", DENIED),
    by(Who::Maker, "a function of ours for everybody",
        "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA plimsoll TO PUBLIC",
        Expect::Refused(&["42501"])),
    by(Who::Maker, "the extension dropped", "DROP EXTENSION plimsoll CASCADE", DENIED),
    by(Who::Maker, "the extension updated", "ALTER EXTENSION plimsoll UPDATE", Expect::Refused(&["42501"])),
    by(Who::Maker, "an object added to the extension",
        "CREATE TABLE maker.mine (id int); ALTER EXTENSION plimsoll ADD TABLE maker.mine", DENIED),
    by(Who::Maker, "our schema dropped", "DROP SCHEMA plimsoll CASCADE", DENIED),
    by(Who::Maker, "our schema renamed", "ALTER SCHEMA plimsoll RENAME TO old", DENIED),
    by(Who::Maker, "a table in our schema", "CREATE TABLE plimsoll.mine (id int)", DENIED),
    by(Who::Maker, "a rule on a view of ours",
        "CREATE RULE r AS ON UPDATE TO plimsoll.databases DO INSTEAD NOTHING", DENIED),
    by(Who::Maker, "a view of ours without its barrier",
        "ALTER VIEW plimsoll.databases SET (security_barrier = false)", DENIED),
    by(Who::Maker, "a view of ours replaced",
        "CREATE OR REPLACE VIEW plimsoll.databases AS SELECT 1", DENIED),
    by(Who::Maker, "a row written through a view of ours",
        "UPDATE plimsoll.databases SET client_id = 'acme'", Expect::Refused(&["42501", "55000"])),
    by(Who::Maker, "a policy on a table of ours",
        "CREATE POLICY p ON plimsoll.grant_record USING (true)", DENIED),
    by(Who::Maker, "a table like one of ours", "CREATE TABLE maker.mine (LIKE plimsoll.database_record INCLUDING ALL)", DENIED),
    by(Who::Maker, "a column of the type of a table of ours, which then cannot be changed",
        "CREATE TABLE maker.mine (x plimsoll.database_record)", DENIED),
    by(Who::Maker, "a column of the type of a view of ours, which then cannot be dropped",
        "CREATE TABLE maker.mine (x plimsoll.replicas)", DENIED),
    by(Who::Maker, "a foreign key to a table of ours",
        "CREATE TABLE maker.mine (id uuid REFERENCES plimsoll.database_record)", DENIED),
    by(Who::Maker, "the admins' group", "GRANT plimsoll_admin TO CURRENT_USER", DENIED),
    by(Who::Maker, "the owner's role", "GRANT {owner} TO CURRENT_USER", DENIED),
    by(Who::Maker, "attributes for oneself", "ALTER ROLE CURRENT_USER SUPERUSER", DENIED),
    by(Who::Maker, "row-level security passed by", "ALTER ROLE CURRENT_USER BYPASSRLS", DENIED),
    by(Who::Maker, "another role's password", "ALTER ROLE {granted} PASSWORD 'mine'", DENIED),
    by(Who::Maker, "another role's settings", "ALTER ROLE {granted} SET search_path = maker", DENIED),
    by(Who::Maker, "a role of one's own", "CREATE ROLE mine LOGIN IN ROLE plimsoll_admin", DENIED),
    by(Who::Maker, "the role of a group renamed", "ALTER ROLE plimsoll_admin RENAME TO old", DENIED),
    by(Who::Maker, "another role's objects", "REASSIGN OWNED BY {owner} TO CURRENT_USER", DENIED),
    by(Who::Granted, "a file of the server read", "SELECT pg_read_file('postgresql.conf')", DENIED),
    by(Who::Granted, "a file of the server listed", "SELECT pg_ls_dir('.')", DENIED),
    by(Who::Granted, "a file taken in as a large object", "SELECT lo_import('/etc/passwd')", DENIED),
    by(Who::Granted, "a file written from a large object", "SELECT lo_export(1, '/tmp/mine')", DENIED),
    by(Who::Granted, "a program run by COPY", "COPY (SELECT 1) TO PROGRAM 'true'", DENIED),
    by(Who::Granted, "a file written by COPY", "COPY (SELECT 1) TO '/tmp/mine'", DENIED),
    by(Who::Granted, "the server's settings changed", "ALTER SYSTEM SET log_statement = 'all'", DENIED),
    by(Who::Granted, "the server's settings read anew", "SELECT pg_reload_conf()", DENIED),
    by(Who::Granted, "another's backend ended",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres' AND pid <> pg_backend_pid() LIMIT 1",
        DENIED),
    by(Who::Granted, "a slot that decodes every change",
        "SELECT pg_create_logical_replication_slot('mine', 'test_decoding')", DENIED),
    by(Who::Maker, "a publication of the managed tables", "CREATE PUBLICATION mine FOR TABLE shop.customer", DENIED),
    by(Who::Maker, "a subscription into the managed tables",
        "CREATE SUBSCRIPTION mine CONNECTION 'host=127.0.0.1' PUBLICATION p WITH (connect = false)", DENIED),
    by(Who::Granted, "another statistics function",
        "SELECT pg_stat_reset()", DENIED),
    by(Who::Granted, "what is written to disk of a table of ours",
        "SELECT pg_relation_filepath('plimsoll.database_record') WHERE false; SELECT pg_read_binary_file('PG_VERSION')", DENIED),
    by(Who::Granted, "the toast of a table of ours",
        "DO $$ DECLARE t text; BEGIN SELECT c.reltoastrelid::regclass INTO t FROM pg_class c WHERE relname = 'kept_delta';
             EXECUTE 'SELECT * FROM ' || t; END $$", DENIED),
    by(Who::Maker, "default rights for objects of others",
        "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT ALL ON TABLES TO {maker}", DENIED),
];

pub fn attack(trials: &mut Trials) {
    trials.all(ATTEMPTS);
    let relations: Vec<(String, String)> = {
        let sql = "SELECT relname::text, relkind::text FROM pg_class
                   WHERE relnamespace = 'plimsoll'::regnamespace AND relkind IN ('r', 'S') ORDER BY 1";
        let rows = trials.world.superuser.query(sql, &[]).expect("our relations");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    for (relation, kind) in relations {
        trials
            .one(&format!("plimsoll.{relation} without a function"), |world| touch(world, &relation, &kind));
    }
    trials.one("advisory locks of every number that might mean something", advisory_locks);
}

/// Everything that one can do to a table or a sequence.
fn touch(world: &mut World, relation: &str, kind: &str) -> Outcome {
    let table = format!("plimsoll.{relation}");
    let statements = match kind {
        "S" => vec![
            format!("SELECT * FROM {table}"),
            format!("SELECT nextval('{table}')"),
            format!("SELECT setval('{table}', 1)"),
            format!("ALTER SEQUENCE {table} RESTART"),
        ],
        _ => vec![
            format!("SELECT * FROM {table}"),
            format!("SELECT count(*) FROM {table}"),
            format!("TABLE ONLY {table}"),
            format!("INSERT INTO {table} DEFAULT VALUES"),
            format!("DELETE FROM {table}"),
            format!("DELETE FROM {table} WHERE false"),
            format!("TRUNCATE {table} CASCADE"),
            format!("BEGIN; LOCK TABLE {table} IN ACCESS SHARE MODE"),
            "ROLLBACK; SELECT pg_read_file('PG_VERSION')".to_owned(),
            format!("COPY {table} TO STDOUT"),
            format!("COPY {table} FROM STDIN"),
            format!("CREATE INDEX ON {table} ((1))"),
            format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"),
            format!("SELECT * FROM {table} FOR UPDATE"),
            format!("EXPLAIN ANALYZE SELECT * FROM {table}"),
        ],
    };
    for who in [Who::Granted, Who::Maker, Who::Reader] {
        let mut session = world.connect(who);
        for statement in &statements {
            expect(&mut session, statement, DENIED)?;
        }
    }
    Ok(())
}

/// Somebody holds all locks that an application may give a meaning to: nobody waits for them.
fn advisory_locks(world: &mut World) -> Outcome {
    let mut session = world.connect(Who::Granted);
    session.must(&world.filled(
        "SELECT pg_advisory_lock(i) FROM generate_series(-50, 50) i;
         SELECT pg_advisory_lock(hashtext('{B}')), pg_advisory_lock(hashtext('plimsoll'));
         SELECT pg_advisory_lock(c.oid::int, 0), pg_advisory_lock(c.oid::int, 1) FROM pg_class c WHERE relname IN ('customer', 'lease_record')",
    ));
    world.admin(
        "SET lock_timeout = '5s'; SELECT plimsoll.fold_manifest('{B}', 'shop.customer');
         SELECT plimsoll.table_versions('{B}'); RESET lock_timeout",
    );
    Ok(())
}
