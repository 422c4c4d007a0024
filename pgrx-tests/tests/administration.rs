//! Registered databases: tokens, logins, grants, suspension, what is left when they are forgotten.

mod shop;

use plimsoll_tests::Registered;
use shop::{Shop, begin, log_in, record, refused};
use uuid::Uuid;

/// Whether the connection may read what the server has of a database.
fn reads(client: &mut impl postgres::GenericClient, id: Uuid) -> Result<usize, postgres::Error> {
    client.query("SELECT * FROM plimsoll.table_versions($1)", &[&id]).map(|rows| rows.len())
}

#[test]
fn a_registered_database_logs_in_with_the_token_that_was_shown_once() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.connect(&shop.server.create_agent());
    let mut transaction = agent.transaction().expect("a transaction");
    log_in(&mut transaction, till.id, &till.token).expect("a login");
    assert_eq!(reads(&mut transaction, till.id).expect("its tables"), 2);
    transaction.commit().expect("a commit");
    let digits = till.token.trim_start_matches("plimsoll_");
    let kept: String = shop.value("SELECT string_agg(d::text, ' ') FROM plimsoll.database_record d");
    assert!(kept.contains(&till.id.to_string()) && !kept.contains(digits), "the token is kept nowhere");
}

#[test]
fn names_that_make_no_sense_and_names_in_use_are_refused() {
    let mut shop = Shop::open();
    shop.register("acme", 1);
    let register = "SELECT * FROM plimsoll.register_database($1, $2)";
    let message = refused(shop.superuser.query(register, &[&"acme", &"till"]), "42710");
    assert!(message.contains("\"acme\"") && message.contains("rotate_token"), "{message}");
    let long = "x".repeat(201);
    for (client_id, name) in [("", "a"), ("a", "  "), ("a\tb", "a"), ("a", "b\n"), (long.as_str(), "a")] {
        refused(shop.superuser.query(register, &[&client_id, &name]), "22023");
    }
    refused(shop.superuser.query(register, &[&"acme", &None::<&str>]), "22004");
    shop.superuser.query(register, &[&"Åcme, Ltd.", &"Kasse 1"]).expect("any other name will do");
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM plimsoll.databases"), 2);
}

#[test]
fn a_wrong_token_is_refused_and_counted_and_a_transaction_has_one_try() {
    let mut shop = Shop::open();
    let (till, other) = (shop.register("acme", 1), shop.register("zeta", 1));
    let failures = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM plimsoll.failed_logins";
    let before: i64 = shop.value(failures);
    let mut agent = shop.connect(&shop.server.create_agent());
    let mut transaction = agent.transaction().expect("a transaction");
    let mut tried = transaction.savepoint("tried").expect("a savepoint");
    let wrong = refused(log_in(&mut tried, till.id, &other.token), "28000");
    tried.rollback().expect("a rollback");
    let again = refused(log_in(&mut transaction, till.id, &till.token), "28000");
    assert!(again.contains("already"), "{again}");
    transaction.rollback().expect("a rollback");
    assert_eq!(shop.value::<i64>(failures), before + 1, "a failure is counted although it was rolled back");
    let mut transaction = agent.transaction().expect("a transaction");
    let unknown = Uuid::new_v4();
    let message = refused(log_in(&mut transaction, unknown, &till.token), "28000");
    let wrong = wrong.replace(&till.id.to_string(), "ID");
    assert_eq!(message.replace(&unknown.to_string(), "ID"), wrong, "unknown and wrong read the same");
}

#[test]
fn a_proof_is_of_no_use_in_another_transaction_or_without_a_challenge() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.connect(&shop.server.create_agent());
    let mut transaction = agent.transaction().expect("a transaction");
    let challenge: Vec<u8> =
        transaction.query_one("SELECT plimsoll.login_challenge()", &[]).expect("a challenge").get(0);
    let token = plimsoll_core::token::Token::parse(&till.token).expect("a token");
    let proof = token.prove(&challenge, till.id.as_bytes()).to_vec();
    let login = "SELECT * FROM plimsoll.login($1, $2)";
    transaction.query_one(login, &[&till.id, &proof]).expect("a login");
    transaction.commit().expect("a commit");
    refused(agent.query_one(login, &[&till.id, &proof]), "28000");
    let mut transaction = agent.transaction().expect("a transaction");
    transaction.query_one("SELECT plimsoll.login_challenge()", &[]).expect("another challenge");
    refused(transaction.query_one(login, &[&till.id, &proof]), "28000");
}

#[test]
fn a_login_ends_with_its_transaction_savepoint_and_user() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let (login, other) = (shop.server.create_agent(), shop.server.create_agent());
    shop.superuser.batch_execute(&format!("GRANT {} TO {}", other.role, login.role)).expect("a membership");
    let mut agent = shop.connect(&login);
    for commit in [true, false] {
        let mut transaction = agent.transaction().expect("a transaction");
        log_in(&mut transaction, till.id, &till.token).expect("a login");
        reads(&mut transaction, till.id).expect("it is logged in");
        if commit { transaction.commit() } else { transaction.rollback() }.expect("an end");
        refused(reads(&mut agent, till.id), "42501");
    }
    agent.batch_execute("DISCARD ALL").expect("what poolers do");
    refused(reads(&mut agent, till.id), "42501");

    let mut transaction = agent.transaction().expect("a transaction");
    let mut inner = transaction.savepoint("nested").expect("a savepoint");
    log_in(&mut inner, till.id, &till.token).expect("a login");
    reads(&mut inner, till.id).expect("it is logged in");
    inner.rollback().expect("a rollback");
    refused(reads(&mut transaction, till.id), "42501");
    transaction.rollback().expect("a rollback");

    let mut transaction = agent.transaction().expect("a transaction");
    let mut inner = transaction.savepoint("nested").expect("a savepoint");
    log_in(&mut inner, till.id, &till.token).expect("a login");
    inner.commit().expect("a release");
    let mut later = transaction.savepoint("later").expect("a savepoint");
    reads(&mut later, till.id).expect("a released savepoint keeps its login");
    later.rollback().expect("a rollback");
    reads(&mut transaction, till.id).expect("another savepoint's rollback changes nothing");
    transaction.batch_execute(&format!("SET LOCAL ROLE {}", other.role)).expect("another user");
    refused(reads(&mut transaction, till.id), "42501");
}

#[test]
fn a_suspended_database_is_refused_everything_until_it_is_resumed() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let run = begin(&mut agent, &till, "agent").expect("a run");
    shop.superuser.execute("SELECT plimsoll.suspend_database($1)", &[&till.id]).expect("a suspension");
    let message = refused(reads(&mut agent, till.id), "28000");
    assert!(message.contains("suspended"), "{message}");
    refused(begin(&mut agent, &till, "agent"), "28000");
    refused(record(&mut agent, &run, "shop.customer"), "28000");
    assert_eq!(agent.query("SELECT * FROM plimsoll.databases", &[]).expect("a view").len(), 0);
    let mut stranger = shop.connect(&shop.server.create_agent());
    let mut transaction = stranger.transaction().expect("a transaction");
    refused(log_in(&mut transaction, till.id, &till.token), "28000");
    transaction.rollback().expect("a rollback");
    refused(reads(&mut stranger, till.id), "42501");
    reads(&mut shop.superuser, till.id).expect("an admin still may");
    shop.superuser.execute("SELECT plimsoll.resume_database($1)", &[&till.id]).expect("an end of it");
    record(&mut agent, &run, "shop.customer").expect("the run goes on");
}

#[test]
fn a_forgotten_database_takes_its_rows_along_and_no_others() {
    let mut shop = Shop::open();
    let (till, other) = (shop.register("acme", 5), shop.register("zeta", 7));
    let mut agent = shop.agent(&till);
    let run = begin(&mut agent, &till, "agent").expect("a run");
    record(&mut agent, &run, "shop.customer").expect("a batch");
    let removed: i64 = shop
        .superuser
        .query_one("SELECT plimsoll.forget_database($1)", &[&till.id])
        .expect("children go before parents")
        .get(0);
    assert_eq!(removed, 10);
    assert_eq!(
        shop.value::<String>(
            "SELECT string_agg(DISTINCT client_id, ' ') FROM (SELECT client_id FROM shop.customer
             UNION ALL SELECT client_id FROM shop.invoice UNION ALL SELECT client_id FROM plimsoll.databases
             UNION ALL SELECT client_id FROM plimsoll.runs UNION ALL SELECT client_id FROM plimsoll.batches) a"
        ),
        "zeta"
    );
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.invoice"), 7);
    refused(reads(&mut agent, till.id), "42501");
    refused(record(&mut agent, &run, "shop.customer"), "55000");
    refused(shop.superuser.query_one("SELECT plimsoll.forget_database($1)", &[&till.id]), "42501");
    reads(&mut shop.superuser, other.id).expect("the other is as it was");
}

#[test]
fn a_grant_holds_for_a_role_and_those_who_act_as_it() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let (team, member, stranger) =
        (shop.server.create_owner(), shop.server.create_agent(), shop.server.create_agent());
    shop.superuser
        .batch_execute(&format!("GRANT {team} TO {}; GRANT plimsoll_agent TO {team}", member.role))
        .expect("a membership");
    shop.grant(&till, &team);
    let (mut member, mut stranger) = (shop.connect(&member), shop.connect(&stranger));
    assert_eq!(reads(&mut member, till.id).expect("a member of the team"), 2);
    refused(reads(&mut stranger, till.id), "42501");
    let revoke = "SELECT plimsoll.revoke_database($1, $2::text::name)";
    shop.superuser.execute(revoke, &[&till.id, &team]).expect("a revocation");
    refused(reads(&mut member, till.id), "42501");
    let message = refused(shop.superuser.execute(revoke, &[&till.id, &team]), "22023");
    assert!(message.contains(&team), "{message}");
    let grant = "SELECT plimsoll.grant_database($1, $2::text::name)";
    refused(shop.superuser.execute(grant, &[&till.id, &"no_such_role"]), "42704");
    shop.grant(&till, &team);
    shop.superuser.batch_execute(&format!("DROP OWNED BY {team}; DROP ROLE {team}")).expect("the role goes");
    shop.superuser.execute(revoke, &[&till.id, &team]).expect("a role that is gone can be revoked");
}

#[test]
fn whoever_grants_a_database_is_told_what_that_does_not_do_or_does_too_much() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let admin = shop.server.create_login(&["plimsoll_admin"]);
    let url = shop.server.client_url(&admin, &shop.database);
    let mut config: postgres::Config = url.parse().expect("an address");
    let (send, heard) = std::sync::mpsc::channel();
    config.notice_callback(move |notice| drop(send.send(notice.message().to_owned())));
    let mut admin = config.connect(postgres::NoTls).expect("a connection");
    let (stranger, agent) = (shop.server.create_login(&[]).role, shop.server.create_agent().role);
    for (role, words) in [
        ("plimsoll_agent", Some("every member of \"plimsoll_agent\"")),
        ("plimsoll_reader", Some("every member of \"plimsoll_reader\"")),
        (&stranger, Some("may not call")),
        (&agent, None),
    ] {
        let grant = "SELECT plimsoll.grant_database($1, $2::text::name)";
        admin.execute(grant, &[&till.id, &role]).expect("a grant");
        let told = heard.try_iter().collect::<Vec<String>>().join(" ");
        assert!(words.map_or(told.is_empty(), |words| told.contains(words)), "{role}: {told}");
    }
}

#[test]
fn an_unknown_database_and_a_foreign_one_read_the_same_everywhere() {
    let mut shop = Shop::open();
    let (own, foreign) = (shop.register("acme", 1), shop.register("zeta", 1));
    let mut agent = shop.agent(&own);
    // Every function that takes a database and that agents may call, with NULL for all other arguments that
    // may be, and something harmless for the rest.
    let functions = shop
        .superuser
        .query(
            "SELECT format('SELECT plimsoll.%I(%s)', p.proname, (
                 SELECT string_agg(CASE WHEN a.place = 1 THEN '%ID%'
                     WHEN a.name = 'relation' THEN '''shop.customer'''
                     WHEN a.name = 'range' THEN '''[1,2)''::int8range'
                     WHEN a.type = 'bytea'::regtype AND a.name <> 'rows' THEN '''\\x00''::bytea'
                     WHEN a.name = 'rows' AND a.type = 'bytea'::regtype THEN '''\\x''::bytea'
                     WHEN a.name = 'rows' THEN '''[]''::jsonb'
                     WHEN a.type = 'integer'::regtype THEN '1'
                     WHEN a.type = 'text'::regtype THEN '''text'''
                     ELSE 'NULL::' || a.type::text END, ', ' ORDER BY a.place)
                 FROM ROWS FROM (unnest(p.proargtypes::regtype[]), unnest(p.proargnames))
                     WITH ORDINALITY AS a (type, name, place) WHERE a.type IS NOT NULL))
             FROM pg_proc p
             WHERE p.pronamespace = 'plimsoll'::regnamespace AND p.proargtypes[0] = 'uuid'::regtype
                 AND has_function_privilege('plimsoll_agent', p.oid, 'EXECUTE')
             ORDER BY 1",
            &[],
        )
        .expect("functions");
    assert!(functions.len() > 15, "only {} functions take a database", functions.len());
    for function in functions {
        let call: String = function.get(0);
        let messages = [foreign.id, Uuid::new_v4()].map(|id| {
            let call = call.replace("%ID%", &format!("'{id}'"));
            let error = agent.query(&call, &[]).map(|rows| rows.len()).expect_err(&call);
            let error = error.as_db_error().expect("the server's error");
            let text = format!("{} {} {:?}", error.code().code(), error.message(), error.hint());
            text.replace(&id.to_string(), "ID")
        });
        assert_eq!(messages[0], messages[1], "{call}");
        assert!(messages[0].contains("no database ID") || call.contains("login("), "{call}: {}", messages[0]);
    }
}

#[test]
fn the_views_show_only_what_a_role_may_see() {
    let mut shop = Shop::open();
    let tills: Vec<Registered> =
        ["acme", "beta", "zeta"].iter().map(|client_id| shop.register(client_id, 1)).collect();
    for till in &tills {
        let mut agent = shop.agent(till);
        let run = begin(&mut agent, till, "agent").expect("a run");
        record(&mut agent, &run, "shop.customer").expect("a batch");
        let rejected = serde_json::json!([shop::rejection(1, false)]);
        agent
            .execute("SELECT plimsoll.reject_rows($1, 'shop.customer', $2)", &[&run.id, &rejected])
            .expect("a rejected row");
    }
    let views = ["databases", "replicas", "runs", "batches", "rejected_rows"];
    let clients = |client: &mut dyn FnMut(&str) -> Vec<postgres::Row>| -> Vec<Vec<String>> {
        let shown = |view: &&str| {
            let rows = client(&format!("SELECT DISTINCT client_id FROM plimsoll.{view} ORDER BY 1"));
            rows.iter().map(|row| row.get(0)).collect()
        };
        views.iter().map(shown).collect()
    };
    let reader = shop.server.create_login(&["plimsoll_reader"]);
    shop.grant(&tills[1], &reader.role);
    let mut reader = shop.connect(&reader);
    assert_eq!(clients(&mut |sql| reader.query(sql, &[]).expect(sql)), vec![["beta"]; 5]);
    let mut stranger = shop.connect(&shop.server.create_agent());
    assert_eq!(clients(&mut |sql| stranger.query(sql, &[]).expect(sql)), vec![Vec::<String>::new(); 5]);
    let mut transaction = stranger.transaction().expect("a transaction");
    log_in(&mut transaction, tills[2].id, &tills[2].token).expect("a login");
    assert_eq!(clients(&mut |sql| transaction.query(sql, &[]).expect(sql)), vec![["zeta"]; 5]);
    transaction.commit().expect("a commit");
    let mut admin = shop.connect(&shop.server.create_login(&["plimsoll_admin"]));
    assert_eq!(clients(&mut |sql| admin.query(sql, &[]).expect(sql)), vec![["acme", "beta", "zeta"]; 5]);
}

#[test]
fn a_leaky_function_sees_no_rows_of_others_through_a_view() {
    let mut shop = Shop::open();
    let (own, _) = (shop.register("acme", 1), shop.register("zeta", 1));
    let login = shop.server.create_agent();
    shop.grant(&own, &login.role);
    shop.superuser.batch_execute("GRANT CREATE ON SCHEMA public TO PUBLIC").expect("a grant");
    let mut agent = shop.connect(&login);
    agent
        .batch_execute(
            "CREATE TABLE public.leaked (client_id text);
             CREATE FUNCTION public.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
                 'BEGIN INSERT INTO public.leaked VALUES ($1); RETURN true; END'",
        )
        .expect("a hostile function");
    agent.query("SELECT * FROM plimsoll.databases WHERE public.leak(client_id)", &[]).expect("its own row");
    let leaked: String =
        agent.query_one("SELECT string_agg(client_id, ' ') FROM public.leaked", &[]).expect("rows").get(0);
    assert_eq!(leaked, "acme");
}

#[test]
fn options_take_only_what_makes_sense() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let set = "SELECT plimsoll.set_option($1, $2, $3)";
    for (option, value) in [
        ("guard_fraction", "0"),
        ("guard_fraction", "1.01"),
        ("guard_fraction", "NaN"),
        ("lease_seconds", "4"),
        ("lease_seconds", "3601"),
        ("lease_seconds", "60.5"),
        ("history_days", "0"),
        ("fall_free_rows", "-1"),
        ("allow_agent_release", "1"),
        ("max_upload_bytes", "10"),
        ("max_upload_rows", "999"),
        ("max_answer_rows", "0"),
        ("max_ranges", "65537"),
        ("max_symbols", "131073"),
        ("colour", "blue"),
    ] {
        let message = refused(shop.superuser.execute(set, &[&till.id, &option, &value]), "22023");
        assert!(message.contains(option), "{message}");
    }
    for (option, value) in
        [("guard_fraction", "0.5"), ("lease_seconds", "120"), ("allow_agent_release", "on")]
    {
        shop.superuser.execute(set, &[&till.id, &option, &value]).expect("an option");
    }
    let settings: serde_json::Value = shop.value("SELECT settings FROM plimsoll.databases");
    assert_eq!(
        settings,
        serde_json::json!({"guard_fraction": 0.5, "lease_seconds": 120, "allow_agent_release": true})
    );
    shop.set_option(&till, "lease_seconds", None);
    shop.set_option(&till, "guard_fraction", None);
    let settings: serde_json::Value = shop.value("SELECT settings FROM plimsoll.databases");
    assert_eq!(settings, serde_json::json!({"allow_agent_release": true}));
}

#[test]
fn administration_is_for_admins() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let mut admin = shop.connect(&shop.server.create_login(&["plimsoll_admin"]));
    for call in [
        "rotate_token($1)",
        "suspend_database($1)",
        "resume_database($1)",
        "grant_database($1, 'postgres')",
        "revoke_database($1, 'postgres')",
        "set_option($1, 'lease_seconds', '60')",
        "forget_database($1)",
    ] {
        let call = format!("SELECT plimsoll.{call}::text");
        let denied = agent.query_one(&call, &[&till.id]);
        let message = refused(denied.map(drop), "42501");
        assert!(message.contains("permission denied for function"), "{message}");
        // An admin of Plimsoll need be no superuser.
        admin.query_one(&call, &[&till.id]).expect(&call);
    }
}
