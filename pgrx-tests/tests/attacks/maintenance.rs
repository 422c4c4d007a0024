//! What an admin does to a table of the attacker's: its code must not have the admin's rights, however it is run.

use crate::attempt::{Outcome, Trials};
use crate::spy;
use crate::world::{Who, World};

/// What the maker's table has, and what the admin does to it.
struct Work {
    name: &'static str,
    hostile: &'static str,
    sql: &'static str,
    /// Whether the maker's code runs.
    runs: bool,
}

const fn runs(name: &'static str, hostile: &'static str, sql: &'static str) -> Work {
    Work { name, hostile, sql, runs: true }
}

const fn never_runs(name: &'static str, hostile: &'static str, sql: &'static str) -> Work {
    Work { name, hostile, sql, runs: false }
}

const EXPRESSION: &str = "CREATE INDEX ON maker.mine (maker.same(name))";
const SOME_ROWS: &str = "CREATE INDEX ON maker.mine (id) WHERE maker.is_fine(name)";

const WORKS: [Work; 21] = [
    runs("ANALYZE of an index on an expression", EXPRESSION, "ANALYZE maker.mine"),
    runs("ANALYZE of an index of some rows", SOME_ROWS, "ANALYZE maker.mine"),
    runs("ANALYZE of statistics on an expression", "CREATE STATISTICS maker.s ON (maker.same(name)) FROM maker.mine", "ANALYZE maker.mine"),
    runs("VACUUM ANALYZE", EXPRESSION, "VACUUM (ANALYZE) maker.mine"),
    runs("VACUUM FULL", EXPRESSION, "VACUUM FULL maker.mine"),
    runs("CLUSTER", "CREATE INDEX by_word ON maker.mine (maker.same(name))", "CLUSTER maker.mine USING mine_pkey"),
    runs("REINDEX TABLE", EXPRESSION, "REINDEX TABLE maker.mine"),
    runs("REINDEX TABLE CONCURRENTLY", EXPRESSION, "REINDEX TABLE CONCURRENTLY maker.mine"),
    runs("REINDEX SCHEMA", EXPRESSION, "REINDEX SCHEMA maker"),
    runs("CREATE INDEX on an expression", "SELECT", "CREATE INDEX ON maker.mine (maker.same(name))"),
    runs("CREATE INDEX CONCURRENTLY", "SELECT", "CREATE INDEX CONCURRENTLY ON maker.mine (maker.same(name))"),
    runs("CREATE INDEX over rows that a function picks", "SELECT", "CREATE INDEX ON maker.mine (id) WHERE maker.is_fine(name)"),
    runs("REFRESH of a materialized view", "CREATE MATERIALIZED VIEW maker.seen AS SELECT maker.tries('view')", "REFRESH MATERIALIZED VIEW maker.seen"),
    runs("REFRESH CONCURRENTLY", "CREATE MATERIALIZED VIEW maker.seen AS SELECT maker.tries('view') AS x; CREATE UNIQUE INDEX ON maker.seen (x)",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY maker.seen"),
    runs("REFRESH of a view over our views",
        "CREATE VIEW maker.over AS SELECT maker.tries('over') FROM maker.mine WHERE id = 1;
         CREATE MATERIALIZED VIEW maker.seen AS SELECT * FROM maker.over", "REFRESH MATERIALIZED VIEW maker.seen"),
    never_runs("a dump of a table with policies", "CREATE POLICY p ON maker.mine USING (maker.yes());
         ALTER TABLE maker.mine ENABLE ROW LEVEL SECURITY; ALTER TABLE maker.mine FORCE ROW LEVEL SECURITY",
        "SET row_security = off; COPY maker.mine TO '/dev/null'; RESET row_security"),
    never_runs("a dump of a table with rules", "CREATE RULE r AS ON INSERT TO maker.mine DO ALSO SELECT maker.tries('rule')",
        "COPY maker.mine TO '/dev/null'"),
    never_runs("a dump of a table with a generated column",
        "ALTER TABLE maker.mine ADD grown text GENERATED ALWAYS AS (maker.same(name)) STORED", "COPY maker.mine TO '/dev/null'"),
    never_runs("a table's management, refused for a view", "CREATE VIEW maker.trick AS SELECT maker.tries('view')",
        "DO $$ BEGIN PERFORM plimsoll.manage_table('maker.trick', version_column => 'x');RAISE 'managed';EXCEPTION WHEN invalid_table_definition THEN NULL;END $$"),
    runs("a table's management", "ALTER TABLE maker.mine ADD client_id text NOT NULL DEFAULT '', ADD database_id uuid NOT NULL DEFAULT '{B}',
             ADD version bigint NOT NULL DEFAULT 1;
         CREATE UNIQUE INDEX ON maker.mine (client_id, database_id, id);
         CREATE INDEX ON maker.mine (client_id, database_id, version) WHERE maker.is_fine(name)",
        "SELECT plimsoll.manage_table('maker.mine', ARRAY['id']::name[], 'version'); SELECT plimsoll.rebuild_manifest('{B}', 'maker.mine');
         SELECT plimsoll.keep_manifest('maker.mine', false); SELECT plimsoll.keep_manifest('maker.mine', true);
         SELECT plimsoll.check_manifest('{B}', 'maker.mine') WHERE false; REINDEX TABLE maker.mine;
         SELECT plimsoll.unmanage_table('maker.mine'::regclass)"),
    runs("a table's protection", "ALTER TABLE maker.mine ADD client_id text NOT NULL DEFAULT '', ADD database_id uuid NOT NULL DEFAULT '{B}',
             ADD version bigint NOT NULL DEFAULT 1;
         CREATE UNIQUE INDEX ON maker.mine (client_id, database_id, id);
         CREATE INDEX ON maker.mine (maker.same(name))",
        "SELECT plimsoll.manage_table('maker.mine', ARRAY['id']::name[], 'version'); SELECT plimsoll.protect_table('maker.mine');
         SELECT plimsoll.unprotect_table('maker.mine'); ANALYZE maker.mine; SELECT plimsoll.unmanage_table('maker.mine'::regclass)"),
];

pub fn attack(trials: &mut Trials) {
    for work in &WORKS {
        trials.touching(&format!("maintenance: {}", work.name), &["registrations"], |world| {
            maintain(world, work)
        });
    }
    trials.one("maintenance: pg_dump", |world| {
        prepare(world, "CREATE VIEW maker.look AS SELECT maker.tries('view'); CREATE MATERIALIZED VIEW maker.seen AS SELECT 1 WITH NO DATA");
        let dump = world.server.command("pg_dump").args(["-Fp", "-n", "maker", &world.database]).output().expect("pg_dump");
        if !dump.status.success() {
            return Err(String::from_utf8_lossy(&dump.stderr).into_owned());
        }
        spy::judged(world, false)
    });
    trials.one("maintenance: a view of ours within a hostile one, refreshed", |world| {
        let mut maker = world.connect(Who::Maker);
        maker.must("CREATE MATERIALIZED VIEW maker.seen AS SELECT * FROM plimsoll.databases WITH NO DATA");
        let outcome = world.superuser.batch_execute("REFRESH MATERIALIZED VIEW maker.seen");
        match outcome.as_ref().err().and_then(|error| error.code()) {
            Some(code) if code.code() == "42501" => Ok(()),
            _ => Err(format!("{outcome:?}")),
        }
    });
}

/// The maker's table, with rows.
fn prepare(world: &mut World, hostile: &str) {
    let mut maker = world.connect(Who::Maker);
    maker.must(&world.filled(&spy::code()));
    maker.must("CREATE TABLE maker.mine (id int PRIMARY KEY, name text); INSERT INTO maker.mine VALUES (1, 'one'), (2, 'two')");
    maker.must(&world.filled(hostile));
    // What its own code did while it made it does not count.
    maker.must("TRUNCATE maker.heard");
}

fn maintain(world: &mut World, work: &Work) -> Outcome {
    prepare(world, work.hostile);
    let before = world.session_of_admin();
    for statement in world.filled(work.sql).split("; ") {
        world.admin(statement);
    }
    let after = world.session_of_admin();
    if before != after {
        return Err(format!("the admin's session is {after:?} instead of {before:?}"));
    }
    spy::judged(world, work.runs)
}
