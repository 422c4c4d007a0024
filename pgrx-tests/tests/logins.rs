//! What a login is bound to, and everything that ends it.

mod shop;

use std::sync::OnceLock;

use plimsoll_core::token::Token;
use plimsoll_tests::{Registered, TestCluster, gives_workers_values};
use postgres::{Client, GenericClient};
use shop::{Shop, log_in, refused};
use uuid::Uuid;

const LOGIN: &str = "SELECT * FROM plimsoll.login($1, $2)";

/// A server with prepared transactions and room for parallel workers.
fn server() -> &'static TestCluster {
    static SERVER: OnceLock<TestCluster> = OnceLock::new();
    SERVER.get_or_init(|| {
        TestCluster::start_with(&[
            ("max_prepared_transactions", "4"),
            ("max_parallel_workers_per_gather", "2"),
            ("parallel_setup_cost", "0"),
            ("parallel_tuple_cost", "0"),
            ("min_parallel_table_scan_size", "0"),
        ])
    })
}

/// A shop, one of its databases, and an agent's connection that nothing was granted to.
fn open() -> (Shop, Registered, Client) {
    let mut shop = Shop::open_on(server());
    let till = shop.register("acme", 3);
    let agent = shop.connect(&server().create_agent());
    (shop, till, agent)
}

fn challenge(client: &mut impl GenericClient) -> Vec<u8> {
    client.query_one("SELECT plimsoll.login_challenge()", &[]).expect("a challenge").get(0)
}

fn proof(till: &Registered, id: Uuid, challenge: &[u8]) -> Vec<u8> {
    Token::parse(&till.token).expect("a token").prove(challenge, id.as_bytes()).to_vec()
}

fn reads(client: &mut impl GenericClient, id: Uuid) -> Result<usize, postgres::Error> {
    client.query("SELECT * FROM plimsoll.table_versions($1)", &[&id]).map(|rows| rows.len())
}

/// Begins a transaction and logs it in, with plain statements.
fn begin_logged_in(client: &mut Client, till: &Registered) {
    client.batch_execute("BEGIN").expect("a transaction");
    let challenge = challenge(client);
    client.query_one(LOGIN, &[&till.id, &proof(till, till.id, &challenge)]).expect("a login");
    reads(client, till.id).expect("it is logged in");
}

#[test]
fn whatever_ends_the_transaction_ends_the_login() {
    let (_shop, till, mut agent) = open();
    let ends = [
        "COMMIT",
        "COMMIT AND CHAIN",
        "ROLLBACK",
        "ROLLBACK AND CHAIN",
        "PREPARE TRANSACTION 'of the agent'",
        "SELECT 1 / 0",
    ];
    for end in ends {
        begin_logged_in(&mut agent, &till);
        let outcome = agent.batch_execute(end);
        if end.starts_with("SELECT") {
            refused(outcome, "22012");
            agent.batch_execute("ROLLBACK").expect("an end");
        } else {
            outcome.expect(end);
        }
        let message = refused(reads(&mut agent, till.id), "42501");
        assert!(message.contains("no right to use it"), "after {end}: {message}");
        agent.batch_execute("ROLLBACK").expect("an end");
    }
    agent.batch_execute("COMMIT PREPARED 'of the agent'").expect("a commit");
    refused(reads(&mut agent, till.id), "42501");
    // A session that is discarded remembers no challenge either.
    agent.batch_execute("BEGIN").expect("a transaction");
    let left = challenge(&mut agent);
    for end in ["COMMIT", "DISCARD ALL", "BEGIN"] {
        agent.batch_execute(end).expect("what poolers do");
    }
    let message = refused(agent.query_one(LOGIN, &[&till.id, &proof(&till, till.id, &left)]), "28000");
    assert!(message.contains("no challenge"), "{message}");
}

#[test]
fn a_proof_is_for_one_challenge_one_transaction_and_one_database() {
    let (mut shop, till, mut agent) = open();
    let other = shop.register("zeta", 1);
    // Of another transaction of the same session, with and without a challenge of its own.
    agent.batch_execute("BEGIN").expect("a transaction");
    let old = challenge(&mut agent);
    agent.batch_execute("COMMIT; BEGIN").expect("another transaction");
    refused(agent.query_one(LOGIN, &[&till.id, &proof(&till, till.id, &old)]), "28000");
    agent.batch_execute("ROLLBACK; BEGIN").expect("another transaction");
    challenge(&mut agent);
    refused(agent.query_one(LOGIN, &[&till.id, &proof(&till, till.id, &old)]), "28000");
    // Of another session.
    agent.batch_execute("ROLLBACK; BEGIN").expect("another transaction");
    let mut second = shop.connect(&server().create_agent());
    second.batch_execute("BEGIN").expect("a transaction");
    challenge(&mut second);
    let seen = challenge(&mut agent);
    refused(second.query_one(LOGIN, &[&till.id, &proof(&till, till.id, &seen)]), "28000");
    // A challenge is replaced by the next one.
    challenge(&mut agent);
    refused(agent.query_one(LOGIN, &[&till.id, &proof(&till, till.id, &seen)]), "28000");
    // Of another database: its token or its id.
    for (id, of) in [(other.id, till.id), (till.id, other.id)] {
        agent.batch_execute("ROLLBACK; BEGIN").expect("another transaction");
        let seen = challenge(&mut agent);
        refused(agent.query_one(LOGIN, &[&id, &proof(&till, of, &seen)]), "28000");
    }
    // One that was good already, in its own transaction and after it.
    agent.batch_execute("ROLLBACK; BEGIN").expect("another transaction");
    let seen = challenge(&mut agent);
    let good = proof(&till, till.id, &seen);
    agent.query_one(LOGIN, &[&till.id, &good]).expect("a login");
    let message = refused(agent.query_one(LOGIN, &[&till.id, &good]), "28000");
    assert!(message.contains("already"), "{message}");
    agent.batch_execute("ROLLBACK; BEGIN").expect("another transaction");
    refused(agent.query_one(LOGIN, &[&till.id, &good]), "28000");
    // Not of the right length, empty.
    for bad in [&good[..31], &[], &[0; 33]] {
        agent.batch_execute("ROLLBACK; BEGIN").expect("another transaction");
        challenge(&mut agent);
        refused(agent.query_one(LOGIN, &[&till.id, &bad]), "28000");
    }
}

#[test]
fn a_second_login_is_refused_and_leaves_the_first() {
    let (mut shop, till, mut agent) = open();
    let other = shop.register("zeta", 1);
    begin_logged_in(&mut agent, &till);
    let seen = challenge(&mut agent);
    agent.batch_execute("SAVEPOINT before").expect("a savepoint");
    refused(agent.query_one(LOGIN, &[&other.id, &proof(&other, other.id, &seen)]), "28000");
    agent.batch_execute("ROLLBACK TO before").expect("a rollback");
    reads(&mut agent, till.id).expect("the first login");
    refused(reads(&mut agent, other.id), "42501");
}

#[test]
fn a_login_is_the_effective_users_own() {
    let (mut shop, till, mut agent) = open();
    let role: String = agent.query_one("SELECT current_user::text", &[]).expect("a name").get(0);
    let other = server().create_agent().role;
    shop.superuser
        .batch_execute(&format!(
            "GRANT {other} TO {role};
             CREATE FUNCTION public.reads(id uuid) RETURNS bigint LANGUAGE sql SECURITY DEFINER
                 AS 'SELECT count(*) FROM plimsoll.table_versions(id)';
             ALTER FUNCTION public.reads(uuid) OWNER TO {other};
             CREATE FUNCTION public.logs_in(id uuid, proof bytea) RETURNS text LANGUAGE sql SECURITY DEFINER
                 AS 'SELECT client_id FROM plimsoll.login(id, proof)';
             ALTER FUNCTION public.logs_in(uuid, bytea) OWNER TO {other}"
        ))
        .expect("functions of another role");
    begin_logged_in(&mut agent, &till);
    // Neither another role nor its functions inherit it; it is there again for who logged in.
    agent.batch_execute(&format!("SAVEPOINT before; SET LOCAL ROLE {other}")).expect("another role");
    refused(reads(&mut agent, till.id), "42501");
    agent.batch_execute("ROLLBACK TO before; SAVEPOINT before").expect("a rollback");
    reads(&mut agent, till.id).expect("it is logged in");
    refused(agent.query_one("SELECT public.reads($1)", &[&till.id]), "42501");
    agent.batch_execute("ROLLBACK").expect("an end");
    // A login within another role's function is that role's.
    agent.batch_execute("BEGIN").expect("a transaction");
    let seen = challenge(&mut agent);
    let proof = proof(&till, till.id, &seen);
    agent.query_one("SELECT public.logs_in($1, $2)", &[&till.id, &proof]).expect("a login");
    let rows: i64 = agent.query_one("SELECT public.reads($1)", &[&till.id]).expect("its own").get(0);
    assert_eq!(rows, 2);
    refused(reads(&mut agent, till.id), "42501");
    agent.batch_execute("ROLLBACK").expect("an end");
    // The session's user changes under a superuser.
    let mut session = server().superuser(&shop.database);
    session.batch_execute(&format!("SET SESSION AUTHORIZATION {role}")).expect("another user");
    begin_logged_in(&mut session, &till);
    session.batch_execute(&format!("SET LOCAL SESSION AUTHORIZATION {other}")).expect("another user");
    refused(reads(&mut session, till.id), "42501");
}

#[test]
fn savepoints_and_exceptions_undo_a_login_that_was_made_within_them() {
    let (mut shop, till, mut agent) = open();
    let database = &shop.database;
    shop.superuser
        .batch_execute(&format!(
            "GRANT CREATE ON DATABASE {database} TO PUBLIC; GRANT CREATE ON SCHEMA public TO PUBLIC"
        ))
        .expect("grants");
    agent
        .batch_execute(
            "CREATE FUNCTION public.log_in(id uuid, proof bytea, fails boolean) RETURNS bigint LANGUAGE plpgsql AS $$
             BEGIN
                 BEGIN
                     PERFORM plimsoll.login(id, proof);
                     PERFORM plimsoll.table_versions(id);
                     IF fails THEN RAISE division_by_zero; END IF;
                 EXCEPTION WHEN division_by_zero THEN NULL; END;
                 RETURN (SELECT count(*) FROM plimsoll.table_versions(id));
             END $$",
        )
        .expect("a function");
    let call = "SELECT public.log_in($1, $2, $3)";
    for fails in [false, true] {
        agent.batch_execute("BEGIN").expect("a transaction");
        let proof = proof(&till, till.id, &challenge(&mut agent));
        let outcome = agent.query_one(call, &[&till.id, &proof, &fails]);
        if fails {
            refused(outcome, "42501");
        } else {
            assert_eq!(outcome.expect("the block went well").get::<_, i64>(0), 2);
            reads(&mut agent, till.id).expect("and its login stays");
        }
        agent.batch_execute("ROLLBACK").expect("an end");
    }
    // A savepoint that is released and then undone by one around it.
    agent.batch_execute("BEGIN; SAVEPOINT a; SAVEPOINT b").expect("savepoints");
    let proof = proof(&till, till.id, &challenge(&mut agent));
    agent.query_one(LOGIN, &[&till.id, &proof]).expect("a login");
    agent.batch_execute("SAVEPOINT c; RELEASE b").expect("releases");
    reads(&mut agent, till.id).expect("it is logged in");
    agent.batch_execute("ROLLBACK TO a").expect("a rollback");
    refused(reads(&mut agent, till.id), "42501");
}

#[test]
fn a_procedure_that_commits_ends_its_challenge_and_its_try() {
    let (mut shop, till, mut agent) = open();
    shop.superuser.batch_execute("GRANT CREATE ON SCHEMA public TO PUBLIC").expect("a grant");
    agent
        .batch_execute(
            "CREATE PROCEDURE public.challenges(INOUT challenge bytea) LANGUAGE plpgsql AS $$
             BEGIN challenge := plimsoll.login_challenge(); COMMIT; END $$",
        )
        .expect("a procedure");
    let row = agent.query_one("CALL public.challenges(NULL)", &[]).expect("a challenge");
    let seen: Vec<u8> = row.get(0);
    refused(agent.query_one(LOGIN, &[&till.id, &proof(&till, till.id, &seen)]), "28000");
    agent
        .batch_execute(
            "CREATE PROCEDURE public.logs_in_and_commits(id uuid, INOUT answer text) LANGUAGE plpgsql AS $$
             DECLARE challenge bytea;
             BEGIN
                 challenge := plimsoll.login_challenge();
                 BEGIN PERFORM plimsoll.login(id, challenge); EXCEPTION WHEN OTHERS THEN NULL; END;
                 COMMIT;
                 BEGIN PERFORM plimsoll.login(id, challenge);
                 EXCEPTION WHEN invalid_authorization_specification THEN answer := SQLERRM; END;
             END $$",
        )
        .expect("a procedure");
    let row = agent.query_one("CALL public.logs_in_and_commits($1, NULL)", &[&till.id]).expect("an answer");
    assert!(
        row.get::<_, String>(0).contains("no challenge"),
        "the try before the commit is over, as is its challenge"
    );
}

#[test]
fn parallel_workers_are_never_asked_who_is_logged_in() {
    let (mut shop, till, mut agent) = open();
    let role: String = agent.query_one("SELECT current_user::text", &[]).expect("a name").get(0);
    shop.superuser
        .batch_execute(&format!(
            "CREATE TABLE public.many AS SELECT i FROM generate_series(1, 20000) i; ANALYZE public.many;
             GRANT SELECT ON public.many TO {role}"
        ))
        .expect("a table");
    begin_logged_in(&mut agent, &till);
    let explained: Vec<String> = agent
        .query("EXPLAIN SELECT count(*) FROM public.many WHERE i % 7 = 0", &[])
        .expect("a plan")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(explained.iter().any(|line| line.contains("Parallel Seq Scan")), "{explained:?}");
    let sql = "SELECT count(*) FROM public.many m WHERE i % 10000 = 0
               AND (SELECT count(*) FROM plimsoll.table_versions($1) v WHERE m.i > 0) = 2";
    let counted: i64 = agent.query_one(sql, &[&till.id]).expect("the leader answers").get(0);
    assert_eq!(counted, 2);
    let sql = "SELECT count(*) FROM public.many m CROSS JOIN plimsoll.databases d WHERE d.client_id = 'acme'";
    let counted: i64 = agent.query_one(sql, &[]).expect("the view").get(0);
    assert_eq!(counted, 20_000);
}

#[test]
fn what_only_reads_takes_no_number_of_a_transaction_and_goes_into_plans_with_workers() {
    let (mut shop, till, mut agent) = open();
    begin_logged_in(&mut agent, &till);
    let mut admin = shop.connect(&server().create_login(&["plimsoll_admin"]));
    shop.superuser
        .batch_execute(
            "CREATE TABLE public.many AS SELECT i FROM generate_series(1, 20000) i; ANALYZE public.many;
             GRANT SELECT ON public.many TO PUBLIC",
        )
        .expect("a table");
    let settings =
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0";
    for client in [&mut agent, &mut admin] {
        client.batch_execute(settings).expect("settings");
    }
    admin.batch_execute("BEGIN").expect("a transaction");
    let id = till.id;
    let table = format!("'{id}', 'shop.customer'");
    let reads = [
        "visible_databases()".to_owned(),
        "visible_clients()".to_owned(),
        "databases".to_owned(),
        "replicas".to_owned(),
        "tables".to_owned(),
        format!("table_versions('{id}')"),
        format!("table_version({table})"),
        format!("table_schema({table})"),
        format!("range_manifest({table}, int8range(0, 9), 5)"),
        format!("manifest({table}, int8range(0, 9))"),
        format!("download({table}, int8range(0, 9), 5)"),
        format!("sketch({table}, '{{[0,9)}}', 0, 10)"),
        format!("batch_history({table})"),
        format!("rejected_keys({table})"),
    ];
    let counter = "failed_login_count()".to_owned();
    let each = reads.iter().flat_map(|read| [(read, false), (read, true)]).chain([(&counter, true)]);
    for (read, by_admin) in each {
        let client = if by_admin { &mut admin } else { &mut agent };
        let sql =
            format!("SELECT count(*) FROM public.many WHERE i > (SELECT count(*) FROM plimsoll.{read})");
        let plan = client.query(&format!("EXPLAIN {sql}"), &[]).expect("a plan");
        let plan: Vec<String> = plan.iter().map(|line| line.get(0)).collect();
        assert!(gives_workers_values(&plan), "{read}: {plan:?}");
        let counted = client.query_one(&sql, &[]).unwrap_or_else(|error| panic!("{read}: {error:?}"));
        assert!((19_900..=20_000).contains(&counted.get::<_, i64>(0)), "{read}");
    }
    for client in [&mut agent, &mut admin] {
        let number = "SELECT pg_current_xact_id_if_assigned() IS NULL";
        assert!(client.query_one(number, &[]).expect("an answer").get::<_, bool>(0));
    }
}

#[test]
fn a_failed_login_is_a_line_in_the_log_and_is_counted_whatever_the_transaction() {
    let (mut shop, till, mut agent) = open();
    let count = "SELECT plimsoll.failed_login_count()";
    let role: String = agent.query_one("SELECT current_user::text", &[]).expect("a name").get(0);
    let before: i64 = shop.value(count);
    let wrong = Registered { id: till.id, token: format!("plimsoll_{}", "ab".repeat(32)) };
    for begin in ["BEGIN", "BEGIN READ ONLY", "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE"] {
        agent.batch_execute(begin).expect("a transaction");
        let proof = proof(&wrong, till.id, &challenge(&mut agent));
        refused(agent.query_one(LOGIN, &[&till.id, &proof]), "28000");
        agent.batch_execute("ROLLBACK").expect("an end");
    }
    // Nothing else became writable by it.
    agent.batch_execute("BEGIN READ ONLY; SAVEPOINT before").expect("a transaction");
    let seen = challenge(&mut agent);
    refused(agent.query_one(LOGIN, &[&till.id, &proof(&wrong, till.id, &seen)]), "28000");
    agent.batch_execute("ROLLBACK TO before").expect("a rollback");
    refused(agent.batch_execute("CREATE TABLE public.written ()"), "25006");
    agent.batch_execute("ROLLBACK").expect("an end");
    shop.superuser.execute("SELECT plimsoll.suspend_database($1)", &[&till.id]).expect("a suspension");
    agent.batch_execute("BEGIN").expect("a transaction");
    let seen = challenge(&mut agent);
    refused(agent.query_one(LOGIN, &[&till.id, &proof(&till, till.id, &seen)]), "28000");
    agent.batch_execute("ROLLBACK").expect("an end");
    assert_eq!(shop.value::<i64>(count) - before, 5);
    refused(agent.query_one(count, &[]), "42501");
    let log = std::fs::read_to_string(server().log_path()).expect("the log");
    let line = format!("failed login to database {} by role \"{role}\" from 127.0.0.1: ", till.id);
    let lines: Vec<&str> = log.lines().filter(|text| text.contains(&line)).collect();
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.contains("suspended")).count(), 1, "{lines:?}");
}

#[test]
fn a_login_needs_a_proof_or_a_grant() {
    let (mut shop, till, mut agent) = open();
    refused(agent.query_one(LOGIN, &[&till.id, &None::<&[u8]>]), "42501");
    refused(agent.query_one(LOGIN, &[&None::<Uuid>, &[1u8].as_slice()]), "22004");
    let mut granted = shop.agent(&till);
    let row = granted.query_one(LOGIN, &[&till.id, &None::<&[u8]>]).expect("a login by grant");
    assert_eq!(row.get::<_, String>("client_id"), "acme");
    let mut transaction = agent.transaction().expect("a transaction");
    log_in(&mut transaction, till.id, &till.token).expect("a login");
    let row = transaction.query_one(LOGIN, &[&till.id, &None::<&[u8]>]).expect("without a second proof");
    assert_eq!(row.get::<_, Vec<u8>>("fingerprint_key").len(), 32);
}
