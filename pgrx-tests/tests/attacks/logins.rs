//! Logins: proofs that are forged, replayed or moved, and rights that outlive their transaction.

use plimsoll_core::token::Token;

use crate::attempt::{Attempt, DENIED, Expect, Outcome, Trials, by, expect};
use crate::world::{Session, Who, World, hex};

const REFUSED: Expect = Expect::Refused(&["28000"]);

const ATTEMPTS: &[Attempt] = &[
    by(
        Who::Granted,
        "a login to the other database without a proof",
        "SELECT * FROM plimsoll.login('{B}')",
        DENIED,
    ),
    by(
        Who::Granted,
        "a login without a challenge",
        "SELECT * FROM plimsoll.login('{B}', decode(repeat('00', 32), 'hex'))",
        Expect::Says("28000", "no challenge"),
    ),
    by(
        Who::Granted,
        "an empty proof",
        "BEGIN; SELECT plimsoll.login_challenge(); SELECT * FROM plimsoll.login('{B}', '')",
        REFUSED,
    ),
    by(
        Who::Granted,
        "a proof of a million bytes",
        "BEGIN; SELECT plimsoll.login_challenge(); SELECT * FROM plimsoll.login('{B}', decode(repeat('00', 1000000), 'hex'))",
        REFUSED,
    ),
    by(
        Who::Granted,
        "the challenge as its own proof",
        "BEGIN; SELECT * FROM plimsoll.login('{B}', plimsoll.login_challenge())",
        REFUSED,
    ),
    by(
        Who::Shared,
        "another login in a transaction that is logged in",
        "SELECT plimsoll.login_challenge(); SELECT * FROM plimsoll.login('{B}', decode(repeat('00', 32), 'hex'))",
        Expect::Says("28000", "tried to log in already"),
    ),
    by(Who::Shared, "a role that one is no member of", "SET ROLE {owner}", DENIED),
    by(Who::Shared, "the superuser's role", "SET ROLE postgres", DENIED),
    by(Who::Shared, "the admins' role", "SET ROLE plimsoll_admin", DENIED),
    by(Who::Shared, "another session user", "SET SESSION AUTHORIZATION postgres", DENIED),
    by(Who::Shared, "the role as a setting", "SELECT set_config('role', 'postgres', true)", DENIED),
    by(
        Who::Shared,
        "the session user as a setting",
        "SELECT set_config('session_authorization', 'postgres', false)",
        DENIED,
    ),
    by(
        Who::Shared,
        "the login under the group's role",
        "SET LOCAL ROLE plimsoll_agent; SELECT * FROM plimsoll.table_versions('{A}')",
        DENIED,
    ),
    by(
        Who::Shared,
        "the login after its transaction",
        "COMMIT; SELECT * FROM plimsoll.table_versions('{A}')",
        DENIED,
    ),
    by(
        Who::Shared,
        "the login after a rollback",
        "ROLLBACK; SELECT * FROM plimsoll.table_versions('{A}')",
        DENIED,
    ),
    by(
        Who::Shared,
        "the login in the next transaction of a chain",
        "COMMIT AND CHAIN; SELECT * FROM plimsoll.table_versions('{A}')",
        DENIED,
    ),
    by(
        Who::Shared,
        "the login in the next transaction of a chain after a rollback",
        "ROLLBACK AND CHAIN; SELECT * FROM plimsoll.table_versions('{A}')",
        DENIED,
    ),
    by(
        Who::Shared,
        "the login after DISCARD ALL",
        "COMMIT; DISCARD ALL; SELECT * FROM plimsoll.table_versions('{A}')",
        Expect::Refused(&["42501", "25001"]),
    ),
    by(
        Who::Shared,
        "the login after a commit inside a block of code",
        "COMMIT; DO $$ BEGIN COMMIT; PERFORM plimsoll.table_versions('{A}'); END $$",
        Expect::Refused(&["42501", "2D000"]),
    ),
    by(
        Who::Shared,
        "the views after the login's end",
        "COMMIT; SELECT * FROM plimsoll.databases",
        Expect::Nothing,
    ),
];

pub fn attack(trials: &mut Trials) {
    trials.all(ATTEMPTS);
    trials.one("the own token with the other database's id", |world| {
        forged(world, |session, world| session.proof(world.b.id, &world.a.token))
    });
    trials.one("a proof for the own database with the other's id", |world| {
        forged(world, |session, world| session.proof(world.a.id, &world.a.token))
    });
    trials.one("a token that was made up", |world| {
        forged(world, |session, world| {
            let token = Token::from_random(&[7; 32]);
            session.proof(world.b.id, token.reveal())
        })
    });
    trials.one("the login after PREPARE TRANSACTION", |world| {
        let mut session = world.connect(Who::Shared);
        session.log_in(&world.a);
        session.must("PREPARE TRANSACTION 'mine'");
        let outcome =
            expect(&mut session, &world.filled("SELECT * FROM plimsoll.table_versions('{A}')"), DENIED);
        session.must("ROLLBACK PREPARED 'mine'");
        outcome
    });
    trials.one("a proof again in its own transaction", |world| {
        let mut session = world.connect(Who::Shared);
        session.must("BEGIN");
        let proof = session.proof(world.a.id, &world.a.token);
        let login = world.filled(&format!("SELECT client_id FROM plimsoll.login('{{A}}', '{proof}')"));
        expect(&mut session, &login, Expect::Answer("acme"))?;
        expect(&mut session, &login, REFUSED)
    });
    trials.one("a proof again in another transaction", |world| {
        let mut session = world.connect(Who::Shared);
        session.must("BEGIN");
        let proof = session.proof(world.a.id, &world.a.token);
        let login = world.filled(&format!("SELECT client_id FROM plimsoll.login('{{A}}', '{proof}')"));
        expect(&mut session, &login, Expect::Answer("acme"))?;
        session.must("COMMIT; BEGIN");
        expect(&mut session, &login, REFUSED)?;
        session.must("ROLLBACK; BEGIN; SELECT plimsoll.login_challenge()");
        expect(&mut session, &login, REFUSED)
    });
    trials.one("a proof moved to another session", |world| {
        let (mut one, mut other) = (world.connect(Who::Shared), world.connect(Who::Granted));
        one.must("BEGIN");
        let proof = one.proof(world.a.id, &world.a.token);
        other.must("BEGIN; SELECT plimsoll.login_challenge()");
        expect(
            &mut other,
            &world.filled(&format!("SELECT * FROM plimsoll.login('{{A}}', '{proof}')")),
            REFUSED,
        )
    });
    trials.one("a proof for a challenge that another one followed", |world| {
        let mut session = world.connect(Who::Shared);
        session.must("BEGIN");
        let proof = session.proof(world.a.id, &world.a.token);
        session.must("SELECT plimsoll.login_challenge()");
        expect(
            &mut session,
            &world.filled(&format!("SELECT * FROM plimsoll.login('{{A}}', '{proof}')")),
            REFUSED,
        )
    });
    trials.one("what the server keeps of a token, as a proof", |world| {
        let mut session = world.connect(Who::Shared);
        let kept = Token::parse(&world.a.token).expect("a token").stored_key().0;
        session.must("BEGIN; SELECT plimsoll.login_challenge()");
        let login = format!("SELECT * FROM plimsoll.login('{{A}}', '{}')", hex(&kept));
        expect(&mut session, &world.filled(&login), REFUSED)
    });
    trials.one("a login within a savepoint that is rolled back", |world| {
        let mut session = world.connect(Who::Shared);
        session.must("BEGIN; SAVEPOINT s");
        log_in_again(world, &mut session);
        session.must("ROLLBACK TO s");
        expect(&mut session, &world.filled("SELECT * FROM plimsoll.table_versions('{A}')"), DENIED)
    });
    trials.one("guess after guess, each in a savepoint", |world| {
        let mut session = world.connect(Who::Shared);
        let guess = world.filled("SELECT * FROM plimsoll.login('{B}', decode(repeat('00', 32), 'hex'))");
        session.must("BEGIN; SAVEPOINT s; SELECT plimsoll.login_challenge()");
        expect(&mut session, &guess, REFUSED)?;
        session.must("ROLLBACK TO s; SELECT plimsoll.login_challenge()");
        expect(&mut session, &guess, Expect::Says("28000", "tried to log in already"))
    });
    trials.one("a login of one savepoint released into a role", |world| {
        let mut session = world.connect(Who::Shared);
        session.must("BEGIN; SAVEPOINT s");
        log_in_again(world, &mut session);
        session.must("RELEASE s; SET LOCAL ROLE plimsoll_agent");
        expect(&mut session, &world.filled("SELECT * FROM plimsoll.table_versions('{A}')"), DENIED)
    });
    trials.one("a login of another session of the same role", |world| {
        let (mut one, mut other) = (world.connect(Who::Shared), world.connect(Who::Shared));
        one.log_in(&world.a);
        expect(&mut other, &world.filled("SELECT * FROM plimsoll.table_versions('{A}')"), DENIED)?;
        one.must("COMMIT");
        Ok(())
    });
    trials.one("a login made within a function of somebody else's", borrowed_login);
    trials.one("a function of somebody else's within one's login", lent_login);
    trials.one("a guess that leaves no trace in a read-only transaction", unseen_guess);
    trials.one("a login that a parallel worker has", |world| {
        let mut session = world.connect(Who::Maker);
        session.must(&world.filled(
            "CREATE FUNCTION maker.beside() RETURNS bigint LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
                 BEGIN RETURN (SELECT count(*) FROM plimsoll.table_versions('{A}')); END $$;
             GRANT USAGE ON SCHEMA maker TO PUBLIC",
        ));
        let mut shared = world.connect(Who::Shared);
        shared.log_in(&world.a);
        shared.must(&format!("SET LOCAL {} = on", world.parallel_setting()));
        expect(&mut shared, "SELECT maker.beside()", DENIED)
    });
}

/// Logs the transaction under way in to A.
fn log_in_again(world: &World, session: &mut Session) {
    let proof = session.proof(world.a.id, &world.a.token);
    session.must(&format!("SELECT client_id FROM plimsoll.login('{}', '{proof}')", world.a.id));
}

/// A proof that must not open the other database.
fn forged(world: &mut World, make: impl FnOnce(&mut Session, &World) -> String) -> Outcome {
    let mut session = world.connect(Who::Shared);
    session.must("BEGIN");
    let proof = make(&mut session, world);
    expect(
        &mut session,
        &world.filled(&format!("SELECT * FROM plimsoll.login('{{B}}', '{proof}')")),
        REFUSED,
    )?;
    session.must("ROLLBACK");
    expect(&mut session, &world.filled("SELECT * FROM plimsoll.table_versions('{B}')"), DENIED)
}

/// Whose login is it that a definer function makes? Its owner's, for as long as the function runs.
fn borrowed_login(world: &mut World) -> Outcome {
    let mut maker = world.connect(Who::Maker);
    maker.must(
        "CREATE FUNCTION maker.borrowed(id uuid, proof bytea) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN PERFORM plimsoll.login(id, proof); RETURN (SELECT count(*) FROM plimsoll.table_versions(id)); END $$;
         GRANT USAGE ON SCHEMA maker TO PUBLIC",
    );
    let mut session = world.connect(Who::Shared);
    session.must("BEGIN");
    let proof = session.proof(world.a.id, &world.a.token);
    let tables = world.filled(&format!("SELECT maker.borrowed('{{A}}', '{proof}')"));
    expect(&mut session, &tables, Expect::Answer("5"))?;
    expect(&mut session, &world.filled("SELECT * FROM plimsoll.table_versions('{A}')"), DENIED)
}

/// B's agent calls a function of the maker's: it has the maker's rights, not B's.
fn lent_login(world: &mut World) -> Outcome {
    let mut maker = world.connect(Who::Maker);
    maker.must(
        "CREATE FUNCTION maker.lent(id uuid) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$
             SELECT count(*) FROM plimsoll.table_versions(id) $$;
         GRANT USAGE ON SCHEMA maker TO PUBLIC",
    );
    let mut victim = world.connect(Who::Shared);
    victim.log_in(&world.b);
    // The victim was told whose database it is.
    world.leaked();
    expect(&mut victim, &world.filled("SELECT maker.lent('{B}')"), DENIED)
}

/// A failed login advances the counter, or is refused without looking at the proof.
fn unseen_guess(world: &mut World) -> Outcome {
    let failed = "SELECT last_value + is_called::int FROM plimsoll.failed_logins";
    let before: i64 = world.value(failed);
    let lines = world.log_lines("failed login");
    let mut session = world.connect(Who::Shared);
    session.must("BEGIN READ ONLY");
    let proof = session.proof(world.b.id, &world.a.token);
    let guess = world.filled(&format!("SELECT * FROM plimsoll.login('{{B}}', '{proof}')"));
    expect(&mut session, &guess, Expect::Refused(&["28000", "25006"]))?;
    session.must("ROLLBACK");
    let (after, now) = (world.value::<i64>(failed), world.log_lines("failed login"));
    if after == before && now == lines { Err("nobody was told of the guess".to_owned()) } else { Ok(()) }
}
