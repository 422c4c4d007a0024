//! The record of administrative acts: each of them is there, with who did it, and nobody changes it.

mod shop;

use plimsoll_tests::Registered;
use postgres::Client;
use serde_json::{Value, json};
use shop::{Shop, begin, refused, rejection};
use uuid::Uuid;

/// The id of a local database.
const SIDE: &str = "5d0c6a3e-0b1e-4b1f-8a53-2f6f0d1c9e77";

/// Functions for admins alone that change nothing.
const READS: &str = "failed_login_count";

/// Name, database, relation, arguments and outcome.
type Act = (String, Option<Uuid>, Option<String>, Value, Value);

/// The acts since this one, oldest first.
fn acts(client: &mut Client, after: i64) -> Vec<Act> {
    let sql = "SELECT act, database_id, relation, arguments, outcome FROM plimsoll.acts WHERE act_id > $1
               ORDER BY act_id";
    let rows = client.query(sql, &[&after]).expect("the acts");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect()
}

fn last_act(shop: &mut Shop) -> i64 {
    shop.value("SELECT max(act_id) FROM plimsoll.acts")
}

/// A replica with a rejected row and a hold.
fn prepare(shop: &mut Shop, till: &Registered) {
    let mut agent = shop.agent(till);
    let run = begin(&mut agent, till, "agent").expect("a run");
    let rejected = json!([rejection(1, false), rejection(2, true)]);
    agent
        .execute("SELECT plimsoll.reject_rows($1, 'shop.customer', $2)", &[&run.id, &rejected])
        .expect("rejected rows");
    let held = agent
        .query_one("SELECT held FROM plimsoll.delete_all($1, 'shop.invoice', $2)", &[&till.id, &run.id])
        .expect("an answer")
        .get::<_, i64>(0);
    assert!(held > 0, "a hold");
    shop::end(&mut agent, &run, "finished", None).expect("the end");
    let side = SIDE.parse().expect("an id");
    let pulled = json!({"shop.invoice": "pull"});
    let run = shop::begin_towards(&mut agent, till, pulled, Some(side)).expect("a run");
    shop::end(&mut agent, &run, "finished", None).expect("the end");
}

#[test]
fn every_administrative_function_leaves_an_act() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 100);
    prepare(&mut shop, &till);
    let (id, text) = (till.id, till.id.to_string());
    let adopted = Uuid::new_v4();
    let login = shop.server.create_agent();
    let owner: String = shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    let admin = shop.server.create_login(&["plimsoll_admin", &owner]);
    let begun = last_act(&mut shop);
    let mut client = shop.connect(&admin);
    client.batch_execute("SET application_name = 'console'").expect("a name");
    let role = &login.role;
    let managed = json!({"tenant_columns": ["client_id", "database_id"], "key_columns": ["id"],
        "version_column": "version", "modified_column": null, "version_scope": "table", "server_columns": [],
        "placed_by": [], "superuser_allowed": false, "keep_manifest": true,
        "directions": ["push", "pull"]});
    let calls = [
        (
            format!("rotate_token('{text}', '1 hour')"),
            Some(id),
            None,
            json!({"grace": "01:00:00"}),
            json!({"old_tokens": 1}),
        ),
        (format!("end_old_tokens('{text}')"), Some(id), None, json!({}), json!({"ended": 1})),
        (format!("suspend_database('{text}')"), Some(id), None, json!({}), json!({})),
        (format!("resume_database('{text}')"), Some(id), None, json!({}), json!({})),
        (format!("grant_database('{text}', '{role}')"), Some(id), None, json!({"role": role}), json!({})),
        (format!("revoke_database('{text}', '{role}')"), Some(id), None, json!({"role": role}), json!({})),
        (
            format!("set_option('{text}', 'lease_seconds', '90')"),
            Some(id),
            None,
            json!({"option": "lease_seconds", "value": "90"}),
            json!({}),
        ),
        (
            format!("adopt_database('{adopted}', 'bob', 'till', decode(repeat('ab', 32), 'hex'))"),
            Some(adopted),
            None,
            json!({"client_id": "bob", "database_name": "till"}),
            json!({}),
        ),
        (
            format!("clear_rejected('{text}', 'shop.customer')"),
            Some(id),
            Some("shop.customer"),
            json!({}),
            json!({"rows": 2}),
        ),
        (
            format!("release_hold('{text}', 'shop.invoice')"),
            Some(id),
            Some("shop.invoice"),
            json!({}),
            json!({"planned": 100}),
        ),
        (
            "set_directions('shop.invoice', '{push,pull}')".to_owned(),
            None,
            Some("shop.invoice"),
            json!({"directions": ["push", "pull"]}),
            json!({"before": ["push", "pull", "snapshot", "two-way"]}),
        ),
        (
            format!("forget_side('{text}', 'shop.invoice')"),
            Some(id),
            Some("shop.invoice"),
            json!({}),
            json!({"replicas": 1, "sides": [SIDE]}),
        ),
        (
            "protect_table('shop.invoice')".to_owned(),
            None,
            Some("shop.invoice"),
            json!({"writable": false}),
            json!({}),
        ),
        ("unprotect_table('shop.invoice')".to_owned(), None, Some("shop.invoice"), json!({}), json!({})),
        (
            "keep_manifest('shop.invoice', false)".to_owned(),
            None,
            Some("shop.invoice"),
            json!({"keep": false}),
            json!({}),
        ),
        (
            "unmanage_table('shop.invoice'::regclass)".to_owned(),
            None,
            Some("shop.invoice"),
            json!({}),
            json!({}),
        ),
        (
            "manage_table('shop.invoice', version_column => 'version')".to_owned(),
            None,
            Some("shop.invoice"),
            managed.clone(),
            json!({}),
        ),
        ("unmanage_table('shop.invoice'::text)".to_owned(), None, Some("shop.invoice"), json!({}), json!({})),
        (
            "manage_table('shop.invoice', version_column => 'version')".to_owned(),
            None,
            Some("shop.invoice"),
            managed,
            json!({}),
        ),
        (
            "stamp_versions('shop.invoice')".to_owned(),
            None,
            Some("shop.invoice"),
            json!({"version_column": "version"}),
            json!({}),
        ),
        (
            "unstamp_versions('shop.invoice')".to_owned(),
            None,
            Some("shop.invoice"),
            json!({}),
            json!({"dropped": true}),
        ),
        (
            format!("forget_database('{text}')"),
            Some(id),
            None,
            json!({"client_id": "acme"}),
            json!({"rows": 200}),
        ),
    ];
    for (call, ..) in &calls {
        client
            .batch_execute(&format!("SELECT plimsoll.{call}"))
            .unwrap_or_else(|error| panic!("{call}: {error}"));
    }
    let register = "SELECT database_id, token FROM plimsoll.register_database('new', 'till')";
    let row = client.query_one(register, &[]).expect("a registration");
    let (registered, token): (Uuid, String) = (row.get(0), row.get(1));
    let recorded = acts(&mut client, begun);
    for (recorded, (call, database_id, relation, arguments, outcome)) in recorded.iter().zip(&calls) {
        assert_eq!(recorded.0, call[..call.find('(').expect("a call")], "{call}");
        let expected = (*database_id, relation.map(str::to_owned), arguments, outcome);
        assert_eq!((recorded.1, recorded.2.clone(), &recorded.3, &recorded.4), expected, "{call}");
    }
    assert_eq!(recorded.len(), calls.len() + 1);
    let last = &recorded[calls.len()];
    assert_eq!((last.0.as_str(), last.1), ("register_database", Some(registered)));
    assert_eq!(last.3, json!({"client_id": "new", "database_name": "till"}));
    // Who, from where, with what; and nothing of a secret.
    let who: i64 = client
        .query_one(
            "SELECT count(*) FROM plimsoll.acts WHERE act_id > $1 AND session_role = $2::text::name
                 AND effective_role = $2::text::name AND client_address = '127.0.0.1' AND application_name = 'console'
                 AND acted_at BETWEEN now() - interval '1 minute' AND now()",
            &[&begun, &admin.role],
        )
        .expect("a count")
        .get(0);
    assert_eq!(who as usize, recorded.len());
    let all: String = shop.value("SELECT string_agg(a::text, ' ') FROM plimsoll.act_record a");
    assert!(!all.contains(&token) && !all.contains("abababab"), "{all}");
    // A function for admins that is made later must be called here too.
    let functions = "SELECT proname::text FROM pg_proc WHERE pronamespace = 'plimsoll'::regnamespace
                         AND has_function_privilege('plimsoll_admin', oid, 'EXECUTE')
                         AND NOT has_function_privilege('plimsoll_agent', oid, 'EXECUTE')";
    for function in shop.superuser.query(functions, &[]).expect("functions") {
        let name: String = function.get(0);
        let done = recorded.iter().any(|act| act.0 == name) || READS.split(' ').any(|read| read == name);
        assert!(done, "{name} leaves no act");
    }
}

#[test]
fn an_act_that_was_rolled_back_or_refused_leaves_nothing() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let begun = last_act(&mut shop);
    let mut transaction = shop.superuser.transaction().expect("a transaction");
    transaction.execute("SELECT plimsoll.suspend_database($1)", &[&till.id]).expect("a suspension");
    transaction.rollback().expect("a rollback");
    let grant = "SELECT plimsoll.grant_database($1, 'nobody_of_this_name')";
    refused(shop.superuser.execute(grant, &[&till.id]), "42704");
    let mut agent = shop.agent(&till);
    refused(agent.execute("SELECT plimsoll.suspend_database($1)", &[&till.id]), "42501");
    let granted = acts(&mut shop.superuser, begun);
    assert_eq!(granted.iter().map(|act| act.0.as_str()).collect::<Vec<_>>(), ["grant_database"]);
}

#[test]
fn it_says_who_acted_for_whom() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let person = shop.server.create_login(&["plimsoll_admin"]);
    let mut client = shop.connect(&person);
    client.batch_execute("SET ROLE plimsoll_admin").expect("the group's role");
    client.execute("SELECT plimsoll.suspend_database($1)", &[&till.id]).expect("a suspension");
    let roles =
        "SELECT session_role || ' as ' || effective_role FROM plimsoll.acts ORDER BY act_id DESC LIMIT 1";
    assert_eq!(shop.value::<String>(roles), format!("{} as plimsoll_admin", person.role));
}

#[test]
fn what_is_recorded_is_read_by_admins_and_changed_by_nobody() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let mut reader = shop.connect(&shop.server.create_login(&["plimsoll_reader"]));
    let mut admin = shop.connect(&shop.server.create_login(&["plimsoll_admin"]));
    refused(agent.batch_execute("SELECT FROM plimsoll.acts"), "42501");
    refused(reader.batch_execute("SELECT FROM plimsoll.acts"), "42501");
    assert!(acts(&mut admin, 0).iter().any(|act| act.1 == Some(till.id)));
    let changes = [
        "UPDATE plimsoll.# SET act = 'other'",
        "DELETE FROM plimsoll.#",
        "TRUNCATE plimsoll.#",
        "INSERT INTO plimsoll.# OVERRIDING SYSTEM VALUE SELECT * FROM plimsoll.#",
    ];
    for change in changes {
        refused(admin.batch_execute(&change.replace('#', "act_record")), "42501");
        admin.batch_execute(&change.replace('#', "acts")).expect_err(change);
    }
    // Not by the owner either, unless the trigger is taken away first; nor where triggers do not fire as a rule.
    let before = acts(&mut admin, 0);
    shop.superuser.batch_execute("SET session_replication_role = replica").expect("a setting");
    for change in &changes[..3] {
        let message = refused(shop.superuser.batch_execute(&change.replace('#', "act_record")), "42501");
        assert!(message.contains("only added to"), "{message}");
    }
    assert_eq!(acts(&mut admin, 0), before);
}

#[test]
fn rows_that_an_admin_deletes_by_hand_are_recorded_and_those_of_a_run_and_of_a_client_are_not() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 100);
    prepare(&mut shop, &till);
    let begun = last_act(&mut shop);
    let mut agent = shop.agent(&till);
    let mut admin = shop.connect(&shop.server.create_login(&["plimsoll_admin"]));
    let named =
        |id: i32| format!("delete_rows($1, 'shop.invoice', '[{{\"key\": {{\"id\": {id}}}}}]'::jsonb)");
    let delete =
        |client: &mut Client, call: &str| client.execute(&format!("SELECT plimsoll.{call}"), &[&till.id]);
    delete(&mut agent, &named(1)).expect("its own");
    assert_eq!(delete(&mut agent, "clear_rejected($1, 'shop.customer')").expect("its own"), 1);
    let run = begin(&mut admin, &till, "agent").expect("a run");
    let within = format!("delete_range($1, 'shop.invoice', int8range(2, 3), {})", run.id);
    delete(&mut admin, &within).expect("in a run");
    shop::end(&mut admin, &run, "finished", None).expect("the end");
    for call in [named(3), named(3), "delete_range($1, 'shop.invoice', int8range(4, 6))".to_owned()] {
        delete(&mut admin, &call).expect("by hand");
    }
    let recorded = acts(&mut shop.superuser, begun);
    let recorded: Vec<_> =
        recorded.iter().map(|act| (act.0.as_str(), act.1, act.2.as_deref(), &act.4)).collect();
    let of = |name, outcome| (name, Some(till.id), Some("shop.invoice"), outcome);
    let (one, two) = (json!({"deleted": 1}), json!({"deleted": 2}));
    assert_eq!(recorded[0].0, "grant_database");
    assert_eq!(recorded[1..], [of("delete_rows", &one), of("delete_range", &two)]);
}

#[test]
fn an_agent_that_may_release_holds_is_recorded_too() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 100);
    prepare(&mut shop, &till);
    shop.set_option(&till, "allow_agent_release", Some("true"));
    let login = shop.server.create_agent();
    let mut agent = shop.connect(&login);
    let mut transaction = agent.transaction().expect("a transaction");
    shop::log_in(&mut transaction, till.id, &till.token).expect("a login");
    transaction
        .execute("SELECT plimsoll.release_hold($1, 'shop.invoice')", &[&till.id])
        .expect("the hold is released");
    transaction.commit().expect("a commit");
    let act = "SELECT act || ' ' || session_role || ' ' || relation FROM plimsoll.acts ORDER BY act_id DESC LIMIT 1";
    assert_eq!(shop.value::<String>(act), format!("release_hold {} shop.invoice", login.role));
}
