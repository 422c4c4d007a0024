//! Tokens: rotated without a moment at which an agent has none that is good, ended when they are known to others.

mod shop;

use plimsoll_tests::{Registered, Site, shared};
use shop::{Shop, log_in, refused};

fn rotate(shop: &mut Shop, till: &Registered, grace: &str) -> String {
    let sql = "SELECT plimsoll.rotate_token($1, $2::text::interval)";
    shop.superuser.query_one(sql, &[&till.id, &grace]).expect("a token").get(0)
}

/// Whether each of the tokens logs in, each in a transaction of its own.
fn good(agent: &mut postgres::Client, till: &Registered, tokens: &[&str]) -> Vec<bool> {
    let attempt = |token: &&str| {
        let mut transaction = agent.transaction().expect("a transaction");
        match log_in(&mut transaction, till.id, token) {
            Ok(()) => true,
            outcome => {
                refused(outcome, "28000");
                false
            }
        }
    };
    tokens.iter().map(attempt).collect()
}

/// Lets the grace of all old tokens pass.
fn let_grace_pass(shop: &mut Shop) {
    let moved =
        "UPDATE plimsoll.token_record SET good_until = clock_timestamp() WHERE good_until IS NOT NULL";
    assert!(shop.superuser.execute(moved, &[]).expect("an update") > 0);
}

#[test]
fn a_replaced_token_is_good_until_its_grace_has_passed() {
    let mut shop = Shop::open();
    let (till, other) = (shop.register("acme", 1), shop.register("zeta", 1));
    let mut agent = shop.connect(&shop.server.create_agent());
    let second: String =
        shop.superuser.query_one("SELECT plimsoll.rotate_token($1)", &[&till.id]).expect("a token").get(0);
    assert_ne!(second, till.token);
    assert_eq!(good(&mut agent, &till, &[&second, &till.token, &other.token]), [true, true, false]);
    let hours: f64 = shop.value(
        "SELECT extract(epoch FROM old_tokens_until - now())::float8 / 3600 FROM plimsoll.databases
         WHERE client_id = 'acme'",
    );
    assert!((23.9..24.1).contains(&hours), "{hours}");
    assert!(
        shop.value::<bool>(
            "SELECT old_tokens_until IS NULL FROM plimsoll.databases WHERE client_id = 'zeta'"
        )
    );
    // Another rotation leaves what an agent may still have, for as long as was said then.
    let third = rotate(&mut shop, &till, "30 days");
    assert_eq!(good(&mut agent, &till, &[&third, &second, &till.token]), [true, true, true]);
    let within = "SELECT count(*) FROM plimsoll.token_record WHERE good_until < now() + interval '25 hours'";
    assert_eq!(shop.value::<i64>(within), 1, "the first is not good for longer than it was");
    let_grace_pass(&mut shop);
    assert_eq!(good(&mut agent, &till, &[&third, &second, &till.token]), [true, false, false]);
    assert_eq!(good(&mut agent, &other, &[&other.token]), [true]);
}

#[test]
fn an_admin_sees_who_still_uses_an_old_token_and_ends_it() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.connect(&shop.server.create_agent());
    let token = rotate(&mut shop, &till, "7 days");
    let used = "SELECT old_token_used_at > now() - interval '1 minute' FROM plimsoll.databases";
    assert_eq!(good(&mut agent, &till, &[&token]), [true]);
    assert_eq!(shop.value::<Option<bool>>(used), None);
    let mut transaction = agent.transaction().expect("a transaction");
    log_in(&mut transaction, till.id, &till.token).expect("the old token");
    transaction.commit().expect("a commit");
    assert_eq!(shop.value::<Option<bool>>(used), Some(true));
    // Where nothing can be written, it is good all the same.
    shop.superuser.batch_execute("UPDATE plimsoll.token_use SET used_at = NULL").expect("an update");
    agent.batch_execute("SET default_transaction_read_only = on").expect("a setting");
    assert_eq!(good(&mut agent, &till, &[&till.token, &token]), [true, true]);
    agent.batch_execute("RESET default_transaction_read_only").expect("a setting");
    let end = "SELECT plimsoll.end_old_tokens($1)";
    assert_eq!(shop.superuser.query_one(end, &[&till.id]).expect("an end").get::<_, i64>(0), 1);
    assert_eq!(good(&mut agent, &till, &[&till.token, &token]), [false, true]);
    assert_eq!(shop.superuser.query_one(end, &[&till.id]).expect("nothing").get::<_, i64>(0), 0);
    refused(shop.superuser.query_one(end, &[&uuid::Uuid::new_v4()]), "42501");
}

#[test]
fn a_token_that_others_know_is_ended_at_once() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.connect(&shop.server.create_agent());
    let second = rotate(&mut shop, &till, "1 year");
    let third = rotate(&mut shop, &till, "0");
    assert_eq!(good(&mut agent, &till, &[&till.token, &second, &third]), [false, false, true]);
}

#[test]
fn nobody_keeps_a_token_good_with_a_transaction_that_logged_in_with_it() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.connect(&shop.server.create_agent());
    let login = shop.server.create_agent();
    shop.superuser.batch_execute("SET lock_timeout = '2s'").expect("no patience");
    for end in ["plimsoll.rotate_token($1, '0')::text", "plimsoll.end_old_tokens($1)::text"] {
        let old = rotate(&mut shop, &till, "1 day");
        let newer = rotate(&mut shop, &till, "1 day");
        let mut thief = shop.connect(&login);
        let mut transaction = thief.transaction().expect("a transaction");
        log_in(&mut transaction, till.id, &old).expect("its grace lasts");
        shop.superuser.query_one(&format!("SELECT {end}"), &[&till.id]).expect("it waits for nobody");
        let newest_only = good(&mut agent, &till, &[&old, &newer]);
        assert_eq!(newest_only, [false, end.contains("end_old")], "{end}");
        transaction.commit().expect("a commit");
        rotate(&mut shop, &till, "0");

        for table in ["plimsoll.token_record", "plimsoll.token_use"] {
            assert_eq!(shop.value::<i64>(&format!("SELECT count(*) FROM {table}")), 1, "{table}");
        }
    }
}

#[test]
fn what_makes_no_sense_of_a_grace_is_refused_and_changes_nothing() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.connect(&shop.server.create_agent());
    let sql = "SELECT plimsoll.rotate_token($1, $2::text::interval)";
    for (grace, code) in
        [(Some("-1 second"), "22023"), (Some("2 years"), "22023"), (None, "22004"), (Some("-1 mon"), "22023")]
    {
        refused(shop.superuser.query_one(sql, &[&till.id, &grace]), code);
    }
    refused(shop.superuser.query_one(sql, &[&uuid::Uuid::new_v4(), &"1 day"]), "42501");
    for _ in 0..9 {
        rotate(&mut shop, &till, "1 day");
    }
    let message = refused(shop.superuser.query_one(sql, &[&till.id, &"1 day"]), "55000");
    assert!(message.contains("end_old_tokens"), "{message}");
    assert_eq!(good(&mut agent, &till, &[&till.token]), [true]);
    rotate(&mut shop, &till, "0");
    assert_eq!(good(&mut agent, &till, &[&till.token]), [false]);
}

#[test]
fn a_suspended_database_is_refused_with_its_old_and_its_new_token() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    shop.superuser.execute("SELECT plimsoll.suspend_database($1)", &[&till.id]).expect("a suspension");
    let token = rotate(&mut shop, &till, "1 day");
    let mut agent = shop.connect(&shop.server.create_agent());
    for token in [&till.token, &token] {
        let mut transaction = agent.transaction().expect("a transaction");
        let message = refused(log_in(&mut transaction, till.id, token), "28000");
        assert!(message.contains("suspended"), "{message}");
    }
    shop.superuser.execute("SELECT plimsoll.resume_database($1)", &[&till.id]).expect("an end of it");
    assert_eq!(good(&mut agent, &till, &[&till.token, &token]), [true, true]);
}

#[test]
fn an_adopted_database_gets_its_first_token_by_rotation() {
    let mut shop = Shop::open();
    let id = uuid::Uuid::new_v4();
    let adopt = "SELECT plimsoll.adopt_database($1, 'acme', 'till', $2)";
    shop.superuser.execute(adopt, &[&id, &[7u8; 32].as_slice()]).expect("it is adopted");
    let till = Registered { id, token: String::new() };
    let token = rotate(&mut shop, &till, "1 day");
    let mut agent = shop.connect(&shop.server.create_agent());
    assert_eq!(good(&mut agent, &till, &[&token]), [true]);
    let key: Vec<u8> = shop.value("SELECT fingerprint_key FROM plimsoll.database_record");
    assert_eq!(key, [7u8; 32], "the key is what was given");
}

#[test]
fn two_rotations_at_once_leave_one_newest_token_and_all_of_them_good() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let tokens: Vec<String> = std::thread::scope(|scope| {
        let rotations: Vec<_> = (0..4)
            .map(|_| {
                let mut admin = shop.server.superuser(&shop.database);
                let id = till.id;
                scope.spawn(move || -> String {
                    admin.query_one("SELECT plimsoll.rotate_token($1)", &[&id]).expect("a token").get(0)
                })
            })
            .collect();
        rotations.into_iter().map(|rotation| rotation.join().expect("a rotation")).collect()
    });
    let newest = "SELECT count(*) FROM plimsoll.token_record WHERE good_until IS NULL";
    assert_eq!(shop.value::<i64>(newest), 1);
    let mut agent = shop.connect(&shop.server.create_agent());
    let mut all: Vec<&str> = tokens.iter().map(String::as_str).collect();
    all.push(&till.token);
    assert_eq!(good(&mut agent, &till, &all), [true; 5]);
}

#[test]
fn an_agent_goes_on_with_its_old_token_until_it_is_given_the_new_one() {
    let site = Site::new(shared());
    let sql = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, row_version INTEGER NOT NULL);
               INSERT INTO items VALUES (1, 'one', 1)";
    let mut agent = site.agent("acme", sql, &["items"], "");
    site.create_tables(&agent);
    agent.sync().expect_code(0);
    let rotate = "SELECT plimsoll.rotate_token($1, '1 hour')";
    let token: String = site.superuser().query_one(rotate, &[&agent.registered.id]).expect("a token").get(0);
    agent.local().execute("INSERT INTO items VALUES (2, 'two', 2)", []).expect("a row");
    agent.sync().expect_code(0);
    assert_eq!(site.content("items").len(), 2, "the old token sends rows");
    agent.registered.token = token;
    agent.home.write("token", &agent.registered.token);
    let end = "SELECT plimsoll.end_old_tokens($1)";
    site.superuser().execute(end, &[&agent.registered.id]).expect("an end");
    agent.local().execute("INSERT INTO items VALUES (3, 'three', 3)", []).expect("a row");
    agent.sync().expect_code(0);
    assert_eq!(site.content("items").len(), 3, "and so does the new one");
    agent.home.run(["verify"]).expect_code(0);
}

#[test]
fn a_token_that_was_ended_is_refused_to_a_transaction_that_looks_at_an_older_state() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.connect(&shop.server.create_agent());
    agent
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM pg_catalog.pg_class")
        .expect("a snapshot");
    rotate(&mut shop, &till, "0");
    let challenge: Vec<u8> =
        agent.query_one("SELECT plimsoll.login_challenge()", &[]).expect("a challenge").get(0);
    let token = plimsoll_core::token::Token::parse(&till.token).expect("a token");
    let proof = token.prove(&challenge, till.id.as_bytes()).to_vec();
    refused(agent.query_one("SELECT * FROM plimsoll.login($1, $2)", &[&till.id, &proof]), "28000");
}
