//! Tenants that share one role and one connection behind a pooler in transaction mode: none sees or writes what is
//! another's.

mod shop;

use plimsoll_core::token::Token;
use plimsoll_tests::{Login, Pooler, Registered, Site, shared};
use postgres::types::{ToSql, Type};
use postgres::{Client, GenericClient, Row, Transaction};
use serde_json::json;
use shop::{Shop, refused};

type Typed<'a> = (&'a (dyn ToSql + Sync), Type);

/// Runs a statement without a name: PgBouncer before 1.21 knows none in transaction mode.
fn ask(
    client: &mut impl GenericClient,
    sql: &str,
    parameters: &[Typed<'_>],
) -> Result<Vec<Row>, postgres::Error> {
    client.query_typed(sql, parameters)
}

fn backend(client: &mut Client) -> i32 {
    ask(client, "SELECT pg_backend_pid()", &[]).expect("a number")[0].get(0)
}

fn log_in(transaction: &mut Transaction<'_>, till: &Registered, token: &str) -> Result<(), postgres::Error> {
    let challenge: Vec<u8> = ask(transaction, "SELECT plimsoll.login_challenge()", &[])?[0].get(0);
    let proof = Token::parse(token).expect("a token").prove(&challenge, till.id.as_bytes()).to_vec();
    let login = "SELECT FROM plimsoll.login($1, $2)";
    ask(transaction, login, &[(&till.id, Type::UUID), (&proof, Type::BYTEA)]).map(drop)
}

/// How many databases the views show, and whether this one can be read.
fn sees(client: &mut impl GenericClient, till: &Registered) -> (usize, Result<usize, postgres::Error>) {
    let shown = ask(client, "SELECT FROM plimsoll.databases", &[]).expect("the view").len();
    let sql = "SELECT FROM plimsoll.table_versions($1)";
    (shown, ask(client, sql, &[(&till.id, Type::UUID)]).map(|rows| rows.len()))
}

/// Two tenants of one shop, and the role that they share.
fn tenants() -> (Shop, [Registered; 2], Login) {
    let mut shop = Shop::open();
    let tills = [shop.register("acme", 2), shop.register("zeta", 3)];
    let login = shop.server.create_agent();
    (shop, tills, login)
}

#[test]
fn a_login_is_not_there_for_the_next_client_of_the_connection() {
    let (shop, [acme, zeta], login) = tenants();
    let pooler = Pooler::start(shop.server, &login, &shop.database);
    let (mut one, mut other) = (pooler.connect(), pooler.connect());
    assert_eq!(backend(&mut one), backend(&mut other), "both have the same session");
    for ends_well in [true, false] {
        let mut transaction = one.transaction().expect("a transaction");
        log_in(&mut transaction, &acme, &acme.token).expect("a login");
        let (shown, read) = sees(&mut transaction, &acme);
        assert_eq!((shown, read.expect("its own")), (1, 2));
        refused(sees(&mut transaction, &zeta).1, "42501");
        if ends_well { transaction.commit() } else { transaction.rollback() }.expect("an end");
        for client in [&mut other, &mut one] {
            let (shown, read) = sees(client, &acme);
            assert_eq!(shown, 0);
            refused(read, "42501");
        }
    }
    // A challenge that another client left is of no use, and one's own token does not open the other's database.
    let challenge: Vec<u8> =
        ask(&mut one, "SELECT plimsoll.login_challenge()", &[]).expect("a challenge")[0].get(0);
    let proof = Token::parse(&acme.token).expect("a token").prove(&challenge, acme.id.as_bytes()).to_vec();
    let login = "SELECT FROM plimsoll.login($1, $2)";
    refused(ask(&mut other, login, &[(&acme.id, Type::UUID), (&proof, Type::BYTEA)]), "28000");
    let mut transaction = other.transaction().expect("a transaction");
    refused(log_in(&mut transaction, &acme, &zeta.token), "28000");
}

#[test]
fn two_tenants_at_the_same_time_write_their_own_rows_alone() {
    const TRANSACTIONS: i64 = 60;
    let (mut shop, tills, login) = tenants();
    let pooler = Pooler::start(shop.server, &login, &shop.database);
    std::thread::scope(|scope| {
        for (own, foreign) in [(&tills[0], &tills[1]), (&tills[1], &tills[0])] {
            let pooler = &pooler;
            scope.spawn(move || {
                let mut client = pooler.connect();
                let upload = "SELECT inserted, updated FROM plimsoll.upload($1, 'shop.customer', $2::jsonb)";
                for round in 0..TRANSACTIONS {
                    let rows =
                        json!([{"id": 100 + round, "name": own.id.to_string(), "version": 100 + round}]);
                    let mut transaction = client.transaction().expect("a transaction");
                    log_in(&mut transaction, own, &own.token).expect("a login");
                    let stored =
                        ask(&mut transaction, upload, &[(&own.id, Type::UUID), (&rows, Type::JSONB)]);
                    assert_eq!(stored.expect("its own")[0].get::<_, i64>(0), 1);
                    if round % 3 == 0 {
                        let outcome =
                            ask(&mut transaction, upload, &[(&foreign.id, Type::UUID), (&rows, Type::JSONB)]);
                        refused(outcome, "42501");
                        transaction.rollback().expect("an end");
                    } else {
                        transaction.commit().expect("an end");
                    }
                    // Between transactions nobody is logged in to anything.
                    for till in [own, foreign] {
                        refused(
                            ask(&mut client, upload, &[(&till.id, Type::UUID), (&rows, Type::JSONB)]),
                            "42501",
                        );
                    }
                }
            });
        }
    });
    let wrong: i64 = shop.value(
        "SELECT count(*) FROM shop.customer WHERE id >= 100
             AND (name <> database_id::text OR client_id <> (SELECT client_id FROM plimsoll.databases d
                                                             WHERE d.database_id = customer.database_id))",
    );
    assert_eq!(wrong, 0);
    let each: Vec<i64> = shop
        .superuser
        .query("SELECT count(*) FROM shop.customer WHERE id >= 100 GROUP BY client_id", &[])
        .expect("counts")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(each, [TRANSACTIONS * 2 / 3; 2]);
}

#[test]
fn what_a_client_leaves_in_the_shared_session_changes_nothing_for_the_next() {
    let (mut shop, [acme, zeta], login) = tenants();
    shop.superuser
        .batch_execute(&format!(
            "GRANT CREATE ON SCHEMA public TO {}; GRANT TEMP ON DATABASE {} TO PUBLIC",
            login.role, shop.database
        ))
        .expect("grants");
    let pooler = Pooler::start(shop.server, &login, &shop.database);
    let (mut hostile, mut client) = (pooler.connect(), pooler.connect());
    hostile
        .batch_execute(
            "CREATE FUNCTION public.login_challenge() RETURNS bytea LANGUAGE sql AS 'SELECT ''\\x00''::bytea';
             CREATE FUNCTION public.same(uuid, uuid) RETURNS boolean LANGUAGE sql AS 'SELECT true';
             CREATE OPERATOR public.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = public.same);
             CREATE TEMP TABLE database_record (database_id uuid);
             CREATE TEMP TABLE customer (id int);
             SET search_path = pg_temp, public, plimsoll, pg_catalog;
             SET bytea_output = 'escape'; SET IntervalStyle = 'sql_standard'; SET extra_float_digits = -15;
             SET array_nulls = off; SET xmloption = 'document'; SET quote_all_identifiers = on;
             SET transform_null_equals = on; SET row_security = off; SET plan_cache_mode = force_generic_plan;
             SET default_transaction_isolation = 'serializable'",
        )
        .expect("what anyone may do in a session");
    let left: String = ask(&mut client, "SELECT pg_catalog.current_setting('search_path')", &[])
        .expect("a setting")[0]
        .get(0);
    assert!(left.starts_with("pg_temp"), "the next client finds it: {left}");
    let mut transaction = client.transaction().expect("a transaction");
    log_in(&mut transaction, &zeta, &zeta.token).expect("a login");
    let rows = json!([{"id": 9, "name": "nine", "version": 9}]);
    let upload = "SELECT inserted FROM plimsoll.upload($1, 'shop.customer', $2::pg_catalog.jsonb)";
    let stored =
        ask(&mut transaction, upload, &[(&zeta.id, Type::UUID), (&rows, Type::JSONB)]).expect("an upload");
    assert_eq!(stored[0].get::<_, i64>(0), 1);
    transaction.commit().expect("a commit");
    let mut transaction = hostile.transaction().expect("a transaction");
    log_in(&mut transaction, &acme, &acme.token).expect("a login");
    refused(sees(&mut transaction, &zeta).1, "42501");
    drop(transaction);
    let counts = "SELECT string_agg(client_id || ' ' || n, ',' ORDER BY client_id)
                  FROM (SELECT client_id, count(*) n FROM shop.customer GROUP BY 1) c";
    assert_eq!(shop.value::<String>(counts), "acme 2,zeta 4");
}

#[test]
fn the_client_works_through_a_pooler_beside_others() {
    let site = Site::new(shared());
    let rows = |name: &str| {
        format!(
            "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, row_version INTEGER NOT NULL);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             INSERT INTO items SELECT i, '{name} ' || i, i FROM n"
        )
    };
    let mut agents = ["acme", "zeta"].map(|client| site.agent(client, &rows(client), &["items"], ""));
    site.create_tables(&agents[0]);
    let login = site.cluster.create_agent();
    let pooler = Pooler::start(site.cluster, &login, &site.database);
    for agent in &mut agents {
        agent.connect_to(&pooler.client_url());
        agent.configure(&["items"], "[sync]\nmax_batch_rows = 100");
    }
    for round in 0..3 {
        let runs: Vec<_> =
            agents.iter().map(|agent| agent.home.start(["sync", "--json", "--quiet"])).collect();
        for run in runs {
            run.wait(std::time::Duration::from_secs(120)).expect_code(0);
        }
        for agent in &agents {
            agent.home.run(["verify"]).expect_code(0);
            let local = agent.local();
            local
                .execute(
                    "UPDATE items SET name = name || ?1, row_version = row_version + 5000 WHERE id % 7 = 0",
                    [round],
                )
                .expect("an update");
            local.execute("DELETE FROM items WHERE id % 100 = ?1", [round]).expect("a delete");
        }
    }
    let mixed: i64 = site
        .superuser()
        .query_one("SELECT count(*) FROM items WHERE name NOT LIKE client_id || ' %'", &[])
        .expect("a count")
        .get(0);
    assert_eq!(mixed, 0, "no row of one tenant is among another's");
    let status = agents[0].home.run(["status"]).expect_code(0).stdout;
    assert!(status.contains("level"), "{status}");
}
