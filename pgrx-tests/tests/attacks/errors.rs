//! Reading through errors, notices, plans, statistics and functions that views are made to call.

use crate::attempt::{Attempt, DENIED, Expect, Outcome, Trials, by, expect};
use crate::world::{Who, World};

const ATTEMPTS: &[Attempt] = &[
    by(Who::Granted, "a value that another's row excludes",
        "SELECT rejected->0->>'sqlstate' FROM plimsoll.upload('{A}', 'shop.span', '[{\"id\": 9, \"version\": 9, \"low\": 1, \"high\": 2000000000}]'::jsonb)",
        Expect::Answer("23P01")),
    by(Who::Granted, "a value that another's row has, where it must be the only one",
        "SELECT rejected->0->>'sqlstate' FROM plimsoll.upload('{A}', 'shop.span', '[{\"id\": 9, \"version\": 9, \"mail\": \"common@example\"}]'::jsonb)",
        Expect::Answer("23505")),
    by(Who::Granted, "whose row it is that has the value",
        "SELECT rejected->0->'holder' FROM plimsoll.upload('{A}', 'shop.span', '[{\"id\": 9, \"version\": 9, \"mail\": \"common@example\"}]'::jsonb)",
        Expect::Answer("null")),
    by(Who::Granted, "two of one's own rows and another's in one batch",
        "SELECT inserted FROM plimsoll.upload('{A}', 'shop.span', '[{\"id\": 8, \"version\": 8, \"mail\": \"common@example\"},
             {\"id\": 9, \"version\": 9, \"low\": 1, \"high\": 2000000000}]'::jsonb)",
        Expect::Answer("0")),
    by(Who::Granted, "a check that one's own row fails",
        "SELECT rejected->0->>'sqlstate' FROM plimsoll.upload('{A}', 'shop.span', '[{\"id\": 9, \"version\": 9, \"note\": \"bad\"}]'::jsonb)",
        Expect::Answer("23514")),
    by(Who::Granted, "a parent that only another has",
        "SELECT rejected->0->>'sqlstate' FROM plimsoll.upload('{A}', 'shop.invoice', '[{\"id\": 90, \"version\": 90, \"customer_id\": 4711}]'::jsonb)",
        Expect::Answer("23503")),
    by(Who::Granted, "which other database a managed table is of",
        "SELECT * FROM plimsoll.tables WHERE database_id = '{B}'", Expect::Nothing),
    by(Who::Granted, "what admins did", "SELECT * FROM plimsoll.acts", DENIED),
    by(Who::Granted, "how many databases there are",
        "SELECT count(DISTINCT id) FROM (SELECT database_id FROM plimsoll.databases UNION ALL SELECT database_id FROM plimsoll.replicas
             UNION ALL SELECT database_id FROM plimsoll.runs UNION ALL SELECT database_id FROM plimsoll.batches
             UNION ALL SELECT database_id FROM plimsoll.rejected_rows UNION ALL SELECT database_id FROM plimsoll.conflicts UNION ALL SELECT database_id FROM plimsoll.blocks) AS all_of (id)",
        Expect::Answer("1")),
    by(Who::Granted, "the views joined with each other",
        "SELECT * FROM plimsoll.databases d FULL JOIN plimsoll.runs r ON true FULL JOIN plimsoll.replicas p ON true
             WHERE r.database_id <> '{A}' OR p.database_id <> '{A}' OR d.database_id <> '{A}'", Expect::Nothing),
    by(Who::Granted, "the plan of a view",
        "EXPLAIN (VERBOSE, COSTS OFF) SELECT * FROM plimsoll.replicas WHERE client_id = 'x'; SELECT 1 WHERE false", Expect::Nothing),
    by(Who::Granted, "the run of a view's plan, row by row",
        "EXPLAIN (ANALYZE, VERBOSE, BUFFERS) SELECT * FROM plimsoll.databases; SELECT 1 WHERE false", Expect::Nothing),
    by(Who::Granted, "statistics of the managed tables",
        "SELECT * FROM pg_stats WHERE schemaname IN ('shop', 'plimsoll')", Expect::Nothing),
    by(Who::Granted, "statistics as they are stored", "SELECT * FROM pg_statistic", DENIED),
    by(Who::Granted, "what others are doing",
        "SELECT query FROM pg_stat_activity WHERE usename <> current_user AND query <> '<insufficient privilege>' AND query <> ''",
        Expect::Nothing),
    by(Who::Granted, "a cast that fails on a value of the view",
        "SELECT client_id::int FROM plimsoll.databases", Expect::Refused(&["22P02"])),
    by(Who::Granted, "a division that fails on the other's row",
        "SELECT 1 / (CASE WHEN client_id = 'acme' THEN 1 ELSE 0 END) FROM plimsoll.databases", Expect::Answer("1")),
    by(Who::Granted, "rows of a view locked", "SELECT * FROM plimsoll.databases FOR UPDATE", DENIED),
    by(Who::Granted, "a view's rows by their place", "SELECT ctid FROM plimsoll.databases", Expect::Refused(&["42703"])),
    by(Who::Granted, "the size of the other's replica",
        "SELECT * FROM plimsoll.table_versions('{B}')", DENIED),
];

/// Views, and a column of each that a function can look at.
const VIEWS: [(&str, &str); 9] = [
    ("databases", "client_id"),
    ("replicas", "client_id"),
    ("runs", "client_id"),
    ("batches", "client_id"),
    ("rejected_rows", "message"),
    ("conflicts", "kind"),
    ("blocks", "client_id"),
    ("tables", "relation"),
    ("databases", "database_name"),
];

pub fn attack(trials: &mut Trials) {
    trials.all(ATTEMPTS);
    for (view, column) in VIEWS {
        trials.one(&format!("a function that costs nothing looks at plimsoll.{view}.{column}"), |world| {
            let mut session = world.connect(Who::Maker);
            session.must(
                "CREATE FUNCTION maker.look(text) RETURNS bool LANGUAGE plpgsql COST 0.0000001 AS $$
                     BEGIN RAISE NOTICE 'seen: %', $1; RETURN true; END $$;
                 CREATE OPERATOR maker.~~~ (RIGHTARG = text, FUNCTION = maker.look)",
            );
            session.must(&format!("SELECT * FROM plimsoll.{view} WHERE maker.look({column}::text)"));
            session.must(&format!("SELECT * FROM plimsoll.{view} WHERE OPERATOR(maker.~~~) {column}::text"));
            session.must(&format!("SELECT maker.look({column}::text) FROM plimsoll.{view} ORDER BY 1"));
            session.must(&format!(
                "SELECT * FROM plimsoll.{view} v JOIN pg_class c ON maker.look(v.{column}::text) AND c.relname = 'pg_class'"
            ));
            Ok(())
        });
    }
    trials.one("not yours and no such database read the same", same_answers);
    trials.one("all that a server says to one who wants to hear everything", loud);
}

/// The refusal for another's database and the one for a database that never was differ in the id alone.
fn same_answers(world: &mut World) -> Outcome {
    let never = "00000000-0000-4000-8000-000000000000";
    let mut session = world.connect(Who::Granted);
    for call in [
        "table_versions('{id}')",
        "table_version('{id}', 'shop.customer')",
        "table_version('{id}', 'shop.single')",
        "table_version('{id}', 'no.table')",
        "upload('{id}', 'shop.customer', '[]'::jsonb)",
        "begin_run('{id}', 'x', '1', 1)",
        "begin_run('{id}', 'x', '1', 99)",
        "release_hold('{id}', 'shop.customer')",
        "forget_side('{id}')",
        "forget_side('{id}', 'shop.customer')",
        "login('{id}')",
        "batch_history('{id}', 'shop.customer')",
        "download('{id}', 'shop.customer', '(,)', -1)",
    ] {
        let mut answers = Vec::new();
        for id in [world.b.id.to_string(), never.to_owned()] {
            let refusal = session.run(&format!("SELECT plimsoll.{}", call.replace("{id}", &id)));
            let refusal = refusal.err().ok_or_else(|| format!("{call} was answered"))?;
            answers.push((refusal.sqlstate, refusal.text.replace(&id, "id")));
        }
        if answers[0] != answers[1] {
            return Err(format!("{call}: {answers:?}"));
        }
    }
    let runs = [
        format!("SELECT plimsoll.end_run({}, 'finished')", world.run),
        "SELECT plimsoll.end_run(999999, 'finished')".to_owned(),
    ];
    let [one, other] = runs.map(|sql| session.run(&sql).expect_err("a refusal").text);
    let same = one.replace(&world.run.to_string(), "n") == other.replace("999999", "n");
    if same { Ok(()) } else { Err(format!("{one} / {other}")) }
}

/// With every message of the server switched on, nothing of the other database is among them.
fn loud(world: &mut World) -> Outcome {
    let mut session = world.connect(Who::Granted);
    session.must(
        "SET client_min_messages = debug5; SET debug_print_parse = on; SET debug_print_rewritten = on;
         SET debug_print_plan = on; SET debug_pretty_print = off",
    );
    for sql in [
        "SELECT plimsoll.table_versions('{B}')",
        "SELECT plimsoll.begin_run('{B}', 'x', '1', 1)",
        "SELECT plimsoll.end_run({run}, 'finished')",
        "SELECT plimsoll.upload('{A}', 'shop.customer', '[]'::jsonb, {run})",
        "SELECT plimsoll.table_version('{A}', 'shop.single')",
        "SELECT plimsoll.manifest('{B}', 'shop.single', '(,)')",
    ] {
        expect(&mut session, &world.filled(sql), Expect::Refused(&["42501", "55000"]))?;
    }
    session.must(&world.filled("BEGIN; SELECT plimsoll.login_challenge()"));
    let guess = world.filled("SELECT plimsoll.login('{B}', decode(repeat('00', 32), 'hex'))");
    expect(&mut session, &guess, Expect::Refused(&["28000"]))?;
    session.must("ROLLBACK");
    for sql in [
        "SELECT count(*) FROM plimsoll.databases",
        "SELECT count(*) FROM plimsoll.table_versions('{A}')",
        "SELECT count(*) FROM plimsoll.manifest('{A}', 'shop.customer', '(,)')",
        "SELECT count(*) FROM plimsoll.upload('{A}', 'shop.span', '[{\"id\": 9, \"version\": 9, \"mail\": \"common@example\"}]'::jsonb)",
    ] {
        session.must(&world.filled(sql));
    }
    Ok(())
}
