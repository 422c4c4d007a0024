//! Statements, cursors, snapshots and runs that outlive a right; suspension and revocation under way.

use std::time::Duration;

use crate::attempt::{Attempt, DENIED, Expect, Outcome, Trials, by, expect};
use crate::world::{Session, Who, World};

const SUSPENDED: Expect = Expect::Refused(&["28000"]);
const OVER: Expect = Expect::Refused(&["55000"]);

const ATTEMPTS: &[Attempt] = &[
    by(
        Who::Granted,
        "another's run for one's own upload",
        "SELECT * FROM plimsoll.upload('{A}', 'shop.customer', '[]'::jsonb, {run})",
        OVER,
    ),
    by(
        Who::Granted,
        "another's run for one's own delete",
        "SELECT * FROM plimsoll.delete_all('{A}', 'shop.customer', {run})",
        OVER,
    ),
    by(
        Who::Granted,
        "a run that is still to come",
        "SELECT * FROM plimsoll.upload('{A}', 'shop.customer', '[]'::jsonb, {run} + 1)",
        OVER,
    ),
    by(
        Who::Granted,
        "a run with the lowest number",
        "SELECT plimsoll.end_run((-9223372036854775808)::bigint, 'finished')",
        OVER,
    ),
    by(
        Who::Granted,
        "the other's runs in the view of runs",
        "SELECT * FROM plimsoll.runs WHERE run_id = {run}",
        Expect::Nothing,
    ),
    by(
        Who::Granted,
        "the other's batches",
        "SELECT * FROM plimsoll.batches WHERE run_id = {run}",
        Expect::Nothing,
    ),
    by(
        Who::Granted,
        "the other's rejected rows",
        "SELECT * FROM plimsoll.rejected_rows WHERE database_id <> '{A}'",
        Expect::Nothing,
    ),
    by(
        Who::Granted,
        "the other's conflicts",
        "SELECT * FROM plimsoll.conflicts WHERE database_id <> '{A}'",
        Expect::Nothing,
    ),
    by(
        Who::Granted,
        "the other's hold",
        "SELECT * FROM plimsoll.replicas WHERE hold_since IS NOT NULL",
        Expect::Nothing,
    ),
    by(
        Who::Granted,
        "the other's blocks",
        "SELECT * FROM plimsoll.blocks WHERE database_id <> '{A}'",
        Expect::Nothing,
    ),
    by(
        Who::Granted,
        "the other's options",
        "SELECT * FROM plimsoll.databases WHERE settings ? 'history_days'",
        Expect::Nothing,
    ),
    by(
        Who::Granted,
        "one's own history, changed through a view",
        "DELETE FROM plimsoll.runs",
        Expect::Refused(&["42501", "55000"]),
    ),
    by(Who::Granted, "one's own options", "SELECT plimsoll.set_option('{A}', 'guard_fraction', '1')", DENIED),
    by(
        Who::Granted,
        "one's own hold released",
        "SELECT plimsoll.release_hold('{A}', 'shop.customer')",
        DENIED,
    ),
    by(
        Who::Granted,
        "another local database in the place of one's own",
        "SELECT plimsoll.forget_side('{A}', 'shop.customer')",
        DENIED,
    ),
    by(
        Who::Granted,
        "a direction that was not allowed",
        "SELECT plimsoll.set_directions('shop.customer'::text::regclass, '{push,two-way}')",
        DENIED,
    ),
    by(
        Who::Shared,
        "a prepared statement kept over the login",
        "PREPARE own AS SELECT database_id FROM plimsoll.databases; EXECUTE own; COMMIT; EXECUTE own",
        Expect::Nothing,
    ),
    by(
        Who::Shared,
        "a cursor kept over the login calls nothing afterwards",
        "DECLARE c CURSOR WITH HOLD FOR SELECT plimsoll.table_versions('{B}'); COMMIT",
        DENIED,
    ),
    by(
        Who::Shared,
        "a cursor of the views kept over the login holds one's own",
        "DECLARE c CURSOR WITH HOLD FOR SELECT count(*) FROM plimsoll.databases; COMMIT; FETCH ALL FROM c",
        Expect::Answer("1"),
    ),
];

pub fn attack(trials: &mut Trials) {
    trials.all(ATTEMPTS);
    trials.one("a cursor that was opened before a suspension", |world| {
        let mut session = world.connect(Who::Granted);
        session.must(&world.filled(
            "BEGIN; DECLARE c CURSOR FOR SELECT (plimsoll.table_version('{A}', 'shop.customer')).row_count FROM generate_series(1, 3)",
        ));
        expect(&mut session, "FETCH c", Expect::Answer("12"))?;
        while_suspended(world, |_| expect(&mut session, "FETCH c", SUSPENDED))
    });
    trials.one("a snapshot that was taken before a suspension", |world| {
        let mut session = world.connect(Who::Granted);
        session.must("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
        let count = world.filled("SELECT row_count FROM plimsoll.table_version('{A}', 'shop.customer')");
        expect(&mut session, &count, Expect::Answer("12"))?;
        while_suspended(world, |_| expect(&mut session, &count, SUSPENDED))
    });
    trials.one("an upload in a snapshot that was taken before a suspension", |world| {
        let mut session = world.connect(Who::Granted);
        session.must(
            &world.filled("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM plimsoll.databases"),
        );
        let upload = world.filled(
            "SELECT * FROM plimsoll.upload('{A}', 'shop.customer', '[{\"id\": 50, \"version\": 50}]'::jsonb)",
        );
        while_suspended(world, |_| expect(&mut session, &upload, SUSPENDED))
    });
    trials.one("a snapshot that was taken before a grant was revoked", |world| {
        let mut session = world.connect(Who::Granted);
        session.must("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
        let count = world.filled("SELECT row_count FROM plimsoll.table_version('{A}', 'shop.customer')");
        expect(&mut session, &count, Expect::Answer("12"))?;
        while_revoked(world, |_| expect(&mut session, &count, DENIED))
    });
    trials.one("a prepared statement kept over a revocation", |world| {
        let mut session = world.connect(Who::Granted);
        session.must(&world.filled(
            "SET plan_cache_mode = force_generic_plan;
             PREPARE own AS SELECT row_count FROM plimsoll.table_version('{A}', 'shop.customer')",
        ));
        expect(&mut session, "EXECUTE own", Expect::Answer("12"))?;
        while_revoked(world, |_| expect(&mut session, "EXECUTE own", DENIED))
    });
    trials.one("the views after a revocation", |world| {
        let mut session = world.connect(Who::Granted);
        session.must("PREPARE own AS SELECT database_id FROM plimsoll.databases; EXECUTE own");
        while_revoked(world, |_| expect(&mut session, "EXECUTE own", Expect::Nothing))
    });
    trials.one("a login that was made before a suspension", |world| {
        let mut session = world.connect(Who::Shared);
        session.log_in(&world.a);
        let count = world.filled("SELECT row_count FROM plimsoll.table_version('{A}', 'shop.customer')");
        while_suspended(world, |_| expect(&mut session, &count, SUSPENDED))
    });
    trials.one("a login to a suspended database", |world| {
        let mut session = world.connect(Who::Shared);
        while_suspended(world, |world| {
            session.must("BEGIN");
            let proof = session.proof(world.a.id, &world.a.token);
            expect(
                &mut session,
                &world.filled(&format!("SELECT * FROM plimsoll.login('{{A}}', '{proof}')")),
                SUSPENDED,
            )
        })
    });
    trials.one("a role that left the group that was granted", |world| {
        world.admin("CREATE ROLE team_of_a NOLOGIN; GRANT team_of_a TO {shared}; SELECT plimsoll.grant_database('{A}', 'team_of_a')");
        let mut session = world.connect(Who::Shared);
        let count = world.filled("SELECT row_count FROM plimsoll.table_version('{A}', 'shop.customer')");
        let before = expect(&mut session, &count, Expect::Answer("12"));
        world.admin("REVOKE team_of_a FROM {shared}");
        let after = expect(&mut session, &count, DENIED);
        world.admin("SELECT plimsoll.revoke_database('{A}', 'team_of_a'); DROP ROLE team_of_a");
        before.and(after)
    });
    trials.touching("a suspension while an upload waits", &["A's rows"], suspended_meanwhile);
    trials.touching("a run that another agent took over", &["A's history"], |world| {
        let (mut one, mut other) = (world.connect(Who::Granted), world.connect(Who::Maker));
        let begin = |name: &str| format!("SELECT run_id FROM plimsoll.begin_run('{{A}}', '{name}', '1', 1)");
        let run = one.must(&world.filled(&begin("one")))[0][0].clone().expect("a run");
        expect(&mut other, &world.filled(&begin("other")), Expect::Refused(&["55006"]))?;
        world.admin(
            "UPDATE plimsoll.lease_record SET lease_until = now() - interval '1 s' WHERE database_id = '{A}'",
        );
        other.must(&world.filled(&begin("other")));
        let upload = format!("SELECT * FROM plimsoll.upload('{{A}}', 'shop.customer', '[]'::jsonb, {run})");
        expect(&mut one, &world.filled(&upload), OVER)?;
        expect(&mut one, &format!("SELECT plimsoll.end_run({run}, 'finished')"), OVER)?;
        world.admin("UPDATE plimsoll.lease_record SET lease_until = NULL WHERE database_id = '{A}'");
        Ok(())
    });
    trials.touching("a transaction of one's own held open keeps nobody waiting", &["A's rows", "A's history"], |world| {
        let mut session = world.connect(Who::Granted);
        session.must(&world.filled(
            "BEGIN; SELECT * FROM plimsoll.upload('{A}', 'shop.customer', '[{\"id\": 1, \"version\": 60}]'::jsonb);
             SELECT * FROM plimsoll.rebuild_manifest('{A}', 'shop.customer')",
        ));
        world.admin(
            "SET lock_timeout = '5s'; SELECT plimsoll.rebuild_manifest('{B}', 'shop.customer');
             BEGIN; SELECT plimsoll.upload('{B}', 'shop.customer', '[{\"id\": 1, \"version\": 60}]'::jsonb); ROLLBACK;
             SELECT plimsoll.fold_manifest('{B}', 'shop.customer'); RESET lock_timeout",
        );
        session.must("ROLLBACK");
        Ok(())
    });
}

/// Does something while A is suspended.
fn while_suspended(world: &mut World, work: impl FnOnce(&mut World) -> Outcome) -> Outcome {
    world.admin("SELECT plimsoll.suspend_database('{A}')");
    let outcome = work(world);
    world.admin("SELECT plimsoll.resume_database('{A}')");
    outcome
}

/// Does something while A is not granted to the role.
fn while_revoked(world: &mut World, work: impl FnOnce(&mut World) -> Outcome) -> Outcome {
    world.admin(
        "CREATE TABLE public.kept_grant AS SELECT * FROM plimsoll.grant_record WHERE role_name = '{granted}'",
    );
    world.admin("SELECT plimsoll.revoke_database('{A}', '{granted}')");
    let outcome = work(world);
    world.admin(
        "SELECT plimsoll.grant_database('{A}', '{granted}');
         UPDATE plimsoll.grant_record g SET granted_at = k.granted_at FROM public.kept_grant k
             WHERE (g.database_id, g.role_name) = (k.database_id, k.role_name);
         DROP TABLE public.kept_grant",
    );
    outcome
}

/// An upload that waits for a row goes on, or not, after the suspension; no call after it does.
fn suspended_meanwhile(world: &mut World) -> Outcome {
    world.admin("BEGIN; SELECT 1 FROM shop.customer WHERE client_id = 'acme' AND id = 1 FOR UPDATE");
    let upload = world.filled(
        "BEGIN; SELECT updated FROM plimsoll.upload('{A}', 'shop.customer', '[{\"id\": 1, \"name\": \"late\", \"version\": 70}]'::jsonb)",
    );
    let mut session = world.connect(Who::Granted);
    let waiting = std::thread::spawn(move || {
        let outcome = session.run(&upload);
        (session, outcome)
    });
    let mut admin = world.server.superuser(&world.database);
    let waits =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%late%'";
    while admin.query_one(waits, &[]).expect("an answer").get::<_, i64>(0) == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    // It waits for calls under way.
    let (id, waits) = (
        world.a.id,
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%suspend_d%'",
    );
    let suspending =
        std::thread::spawn(move || admin.execute("SELECT plimsoll.suspend_database($1)", &[&id]).map(drop));
    let deadline = std::time::Instant::now() + Duration::from_secs(2);
    while world.value::<i64>(waits) == 0 && !suspending.is_finished() && std::time::Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(10));
    }
    world.admin("COMMIT");
    let (mut session, _): (Session, _) = waiting.join().expect("an end");
    session.run("COMMIT").ok();
    suspending.join().expect("an end").expect("suspended");
    let again = world.filled("SELECT * FROM plimsoll.upload('{A}', 'shop.customer', '[]'::jsonb)");
    let outcome = expect(&mut session, &again, SUSPENDED);
    world.admin("SELECT plimsoll.resume_database('{A}')");
    outcome
}
