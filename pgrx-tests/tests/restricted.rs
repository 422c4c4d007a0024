//! Work on a managed table's rows runs as the table's owner, within a restricted operation: what the owner's code may
//! do there, that nothing of it is left afterwards, and that nobody else's restricted operation lends us its rights.

mod shop;

use plimsoll_tests::Registered;
use postgres::{Client, GenericClient};
use serde_json::{Value, json};
use shop::{Shop, refused};

const UPLOAD: &str = "SELECT inserted, updated, rejected FROM plimsoll.upload($1, 'shop.item', $2::jsonb)";

/// A managed table `shop.item` with these columns besides tenant, `id` and `v`; then `more`, as its owner.
fn shop_with(columns: &str, more: &str) -> (Shop, Registered, Client) {
    let mut shop = Shop::open();
    let owner: String = shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    shop.superuser
        .batch_execute(&format!(
            "SET ROLE {owner};
             CREATE TABLE shop.item (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL,
                 v bigint NOT NULL, {columns}, PRIMARY KEY (client_id, database_id, id));
             {more};
             RESET ROLE;
             SELECT plimsoll.manage_table('shop.item', version_column => 'v')"
        ))
        .expect("a managed table");
    let till = shop.register("acme", 0);
    let agent = shop.agent(&till);
    (shop, till, agent)
}

fn upload(client: &mut impl GenericClient, database: &Registered, rows: &Value) -> (i64, i64, Value) {
    let row = client.query_one(UPLOAD, &[&database.id, rows]).expect("an upload");
    (row.get(0), row.get(1), row.get(2))
}

#[test]
fn no_function_runs_while_an_admin_maintains_a_hostile_table() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let hostile = shop.server.create_login(&["plimsoll_admin"]);
    // Every function that somebody may call, but the one that touches nothing of anybody's.
    let calls: String = shop
        .superuser
        .query_one(
            "SELECT string_agg(quote_literal(format('SELECT plimsoll.%I(%s)', p.proname, (
                 SELECT string_agg(format('%s => %s', a.name, CASE
                     WHEN a.name = 'database_id' THEN format('%L::uuid', $1::text)
                     WHEN a.type = 'uuid'::regtype THEN 'gen_random_uuid()'
                     WHEN a.type = 'regclass'::regtype THEN '''shop.customer'''
                     WHEN a.name = 'relation' THEN '''shop.customer'''
                     WHEN a.type = 'text[]'::regtype THEN '''{}''::text[]'
                     WHEN a.type = 'name[]'::regtype THEN '''{}''::name[]'
                     WHEN a.type = 'int8range'::regtype THEN '''[1,2)''::int8range'
                     WHEN a.type = 'int8multirange'::regtype THEN '''{[1,2)}''::int8multirange'
                     WHEN a.type = 'bytea'::regtype THEN '''\\x00''::bytea'
                     WHEN a.type = 'bytea[]'::regtype THEN '''{}''::bytea[]'
                     WHEN a.type = 'integer[]'::regtype THEN '''{}''::integer[]'
                     WHEN a.type = 'jsonb'::regtype THEN '''[]''::jsonb'
                     WHEN a.type IN ('integer'::regtype, 'bigint'::regtype) THEN format('1::%s', a.type)
                     WHEN a.type = 'boolean'::regtype THEN 'false'
                     WHEN a.type = 'interval'::regtype THEN '''1 hour'''
                     ELSE '''text''' END), ', ')
                 FROM ROWS FROM (unnest(p.proargtypes::regtype[]), unnest(p.proargnames))
                     WITH ORDINALITY AS a (type, name, place) WHERE a.type IS NOT NULL))), ', ')
             FROM pg_proc p
             WHERE p.pronamespace = 'plimsoll'::regnamespace AND p.prokind = 'f'
                 AND p.proname <> 'version' AND has_function_privilege('plimsoll_admin', p.oid, 'EXECUTE')",
            &[&till.id.to_string()],
        )
        .expect("calls")
        .get(0);
    assert!(calls.matches("SELECT plimsoll.").count() > 40, "{calls}");
    shop.superuser
        .batch_execute(&format!(
            "GRANT CREATE ON SCHEMA public TO {0}; GRANT USAGE ON SCHEMA shop TO {0};
             SET ROLE {0};
             CREATE TABLE public.armed (armed bool);
             CREATE FUNCTION public.spring() RETURNS text LANGUAGE plpgsql AS $$
             DECLARE call text; open text := ''; BEGIN
                 FOREACH call IN ARRAY ARRAY[{calls}] LOOP
                     BEGIN
                         EXECUTE call;
                         open := open || call || ' was answered; ';
                     EXCEPTION WHEN OTHERS THEN
                         IF SQLSTATE <> '42501' OR SQLERRM NOT LIKE '%within a security-restricted operation%' THEN
                             open := open || call || ': ' || SQLERRM || '; ';
                         END IF;
                     END;
                 END LOOP;
                 RETURN open;
             END $$;
             CREATE FUNCTION public.trap(id int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
                 IF EXISTS (SELECT FROM public.armed) THEN RAISE 'as %: %', current_user, public.spring(); END IF;
                 RETURN id;
             END $$;
             CREATE TABLE public.hostile (id int);
             CREATE INDEX hostile_trap ON public.hostile (public.trap(id));
             CREATE MATERIALIZED VIEW public.view AS SELECT public.trap(id) FROM public.hostile WITH NO DATA;
             INSERT INTO public.hostile VALUES (1);
             INSERT INTO public.armed VALUES (true);
             RESET ROLE",
            hostile.role
        ))
        .expect("traps");
    for maintenance in [
        "REINDEX TABLE public.hostile",
        "ANALYZE public.hostile",
        "REFRESH MATERIALIZED VIEW public.view",
        "CREATE INDEX ON public.hostile (public.trap(id))",
        "CLUSTER public.hostile USING hostile_trap",
        "VACUUM FULL public.hostile",
    ] {
        let message = refused(shop.superuser.batch_execute(maintenance), "P0001");
        assert_eq!(message.lines().next(), Some(format!("as {}: ", hostile.role).as_str()), "{maintenance}");
    }
    // Outside of them they are answered, or fail for reasons of their own.
    let open: String = shop.connect(&hostile).query_one("SELECT public.spring()", &[]).expect("calls").get(0);
    assert!(open.contains("answered") && !open.contains("restricted"), "{open}");
}

/// What a session is, as far as the work on a table could change it.
fn session(client: &mut impl GenericClient) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', current_user, session_user, current_setting('search_path'),
        current_setting('work_mem'), current_setting('enable_seqscan'), current_setting('jit'),
        current_setting('role'), NULLIF(current_setting('myshop.setting', true), ''), pg_my_temp_schema()::regnamespace)";
    let what = client.query_one(sql, &[]).expect("a session").get(0);
    // Its temporary tables are found by name, and what no restricted operation allows is allowed.
    let temporary = client.query_one("SELECT count(*)::text FROM mine", &[]).expect("its table").get(0);
    client
        .batch_execute(
            "CREATE TEMP TABLE other (id int); DROP TABLE other; SET enable_hashjoin = off; SET enable_hashjoin = on",
        )
        .expect("an open session");
    vec![what, temporary]
}

#[test]
fn whichever_way_the_work_ends_the_session_is_what_it_was() {
    // A trigger that changes settings, then does what the row says.
    let (mut shop, till, mut agent) = shop_with(
        "what text, UNIQUE (client_id, database_id, what)",
        "CREATE FUNCTION shop.act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM set_config('search_path', 'shop', false), set_config('work_mem', '64kB', false),
                 set_config('myshop.setting', 'owners', false), set_config('enable_seqscan', 'off', false);
             CASE split_part(NEW.what, ' ', 1)
                 WHEN 'raise' THEN RAISE 'no' USING ERRCODE = split_part(NEW.what, ' ', 2);
                 WHEN 'sleep' THEN PERFORM pg_sleep(60);
                 WHEN 'caught' THEN
                     BEGIN PERFORM plimsoll.version(); RAISE 'no'; EXCEPTION WHEN OTHERS THEN NULL; END;
                 WHEN 'other' THEN UPDATE shop.item SET what = what || '.' WHERE id = 1;
                 ELSE NULL;
             END CASE;
             RETURN NEW; END $$;
         CREATE TRIGGER act AFTER INSERT OR UPDATE ON shop.item FOR EACH ROW
             WHEN (pg_trigger_depth() < 2) EXECUTE FUNCTION shop.act()",
    );
    let other = shop.server.create_owner();
    let role: String = agent.query_one("SELECT current_user::text", &[]).expect("a name").get(0);
    shop.superuser
        .batch_execute(&format!("GRANT {other} TO {role}; GRANT plimsoll_agent TO {other}"))
        .expect("roles");
    shop.grant(&till, &other);
    agent
        .batch_execute("CREATE TEMP TABLE mine (id int); INSERT INTO mine VALUES (1); GRANT SELECT ON mine TO PUBLIC;
                        SET search_path = pg_temp, public; SET work_mem = '3MB'; SET statement_timeout = '2s'")
        .expect("a session of its own");
    for role in [role, other] {
        let mut session_role = agent.transaction().expect("a transaction");
        session_role.batch_execute(&format!("SET LOCAL ROLE {role}")).expect("a role");
        let before = session(&mut session_role);
        let mut number = 0;
        for (what, sqlstate) in [
            ("nothing", ""),
            ("caught", ""),
            ("other", ""),
            ("raise 23514", ""),
            ("raise 23505", ""),
            ("raise 40001", "40001"),
            ("raise P0001", "P0001"),
            ("raise XX000", "XX000"),
            ("sleep", "57014"),
        ] {
            for rows in [1, 3] {
                let mut attempt = session_role.savepoint("attempt").expect("a savepoint");
                number += 10;
                let rows: Vec<Value> = (0..rows)
                    .map(|i| json!({"id": number + i, "v": number + i, "what": format!("{what} {number} {i}")}))
                    .collect();
                let rows = Value::Array(rows);
                let rows = match what.starts_with("raise") {
                    true => json!([{"id": number, "v": number, "what": what}]),
                    false => rows,
                };
                match sqlstate {
                    "" => drop(upload(&mut attempt, &till, &rows)),
                    state => drop(refused(attempt.query(UPLOAD, &[&till.id, &rows]), state)),
                }
                if sqlstate.is_empty() {
                    assert_eq!(session(&mut attempt), before, "{what}");
                    attempt.commit().expect("a release");
                } else {
                    attempt.rollback().expect("a rollback");
                }
                assert_eq!(session(&mut session_role), before, "{what}");
                if sqlstate == "57014" {
                    break;
                }
            }
        }
        session_role.commit().expect("a commit");
    }
    // Nobody asked for a savepoint: the whole transaction is rolled back.
    let before = session(&mut agent);
    for (rows, sqlstate) in [("raise P0001", "P0001"), ("sleep", "57014")] {
        let rows = json!([{"id": 9000, "v": 9000, "what": rows}]);
        refused(agent.query(UPLOAD, &[&till.id, &rows]), sqlstate);
        assert_eq!(session(&mut agent), before);
    }
    // A cancel from outside.
    let cancel = agent.cancel_token();
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(700));
        cancel.cancel_query(postgres::NoTls).expect("a cancel");
    });
    let rows = json!([{"id": 9000, "v": 9000, "what": "sleep"}]);
    refused(agent.query(UPLOAD, &[&till.id, &rows]), "57014");
    canceller.join().expect("the canceller");
    assert_eq!(session(&mut agent), before);
    // A delete, too: its trigger has nothing to say here, but a key in the way has.
    shop.superuser
        .batch_execute(
            "CREATE TABLE shop.child (client_id text, database_id uuid, id int,
                 FOREIGN KEY (client_id, database_id, id) REFERENCES shop.item);
             INSERT INTO shop.child SELECT client_id, database_id, min(id) FROM shop.item GROUP BY 1, 2",
        )
        .expect("a child");
    let deleted = "SELECT deleted, jsonb_array_length(blocked) FROM plimsoll.delete_all($1, 'shop.item')";
    shop.set_option(&till, "guard_fraction", Some("1"));
    let row = agent.query_one(deleted, &[&till.id]).expect("a deletion");
    assert_eq!(row.get::<_, i32>(1), 1, "the row that is referred to stays");
    assert_eq!(session(&mut agent), before);
}

#[test]
fn the_owners_code_can_leave_nothing_for_the_caller_to_run() {
    for (code, sqlstate) in [
        ("SET CONSTRAINTS ALL DEFERRED; INSERT INTO shop.late VALUES (1)", "42501"),
        ("CREATE TEMP TABLE mine (id int)", "42501"),
        ("SET ROLE NONE", "42501"),
        ("SET SESSION AUTHORIZATION DEFAULT", "42501"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "42501"),
        ("PREPARE mine AS SELECT 1", "42501"),
        ("LISTEN told", "42501"),
    ] {
        let (mut shop, till, mut agent) = shop_with(
            "name text",
            &format!(
                "CREATE TABLE shop.late (id int);
                 CREATE FUNCTION shop.later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     EXECUTE format('CREATE TABLE shop.%I ()', 'run by ' || current_user); RETURN NULL; END $$;
                 CREATE CONSTRAINT TRIGGER later AFTER INSERT ON shop.late DEFERRABLE INITIALLY DEFERRED
                     FOR EACH ROW EXECUTE FUNCTION shop.later();
                 CREATE FUNCTION shop.act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     EXECUTE '{code}'; RETURN NULL; END $$;
                 CREATE TRIGGER act AFTER INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.act()"
            ),
        );
        for rows in [json!([{"id": 1, "v": 1}]), json!([{"id": 1, "v": 1}, {"id": 2, "v": 2}])] {
            refused(agent.query(UPLOAD, &[&till.id, &rows]), sqlstate);
            refused(shop.superuser.query(UPLOAD, &[&till.id, &rows]), sqlstate);
        }
        let run = "SELECT count(*) FROM pg_class WHERE relname LIKE 'run by%'";
        assert_eq!(shop.value::<i64>(run), 0, "{code}");
    }
}

#[test]
fn deferred_constraints_speak_within_the_batch_and_not_at_the_end() {
    let (mut shop, till, mut agent) = shop_with(
        "mark text, UNIQUE (client_id, database_id, mark) DEFERRABLE INITIALLY DEFERRED, customer_id int,
         FOREIGN KEY (client_id, database_id, customer_id) REFERENCES shop.customer DEFERRABLE INITIALLY DEFERRED",
        "CREATE FUNCTION shop.check_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.mark = 'bad' THEN RAISE 'bad mark' USING ERRCODE = '23514'; END IF; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER check_it AFTER INSERT OR UPDATE ON shop.item DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION shop.check_it()",
    );
    let rows = json!([
        {"id": 1, "v": 1, "mark": "a"}, {"id": 2, "v": 2, "mark": "bad"}, {"id": 3, "v": 3, "mark": "a"},
        {"id": 4, "v": 4, "mark": "b", "customer_id": 77}, {"id": 5, "v": 5, "mark": "c"}]);
    let mut transaction = agent.transaction().expect("a transaction");
    let (inserted, _, rejected) = upload(&mut transaction, &till, &rows);
    let told: Vec<_> = rejected
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| (row["key"]["id"].as_i64(), row["sqlstate"].as_str(), row["waits"].as_bool()))
        .collect();
    assert_eq!(inserted, 2);
    assert_eq!(
        told,
        [
            (Some(2), Some("23514"), Some(false)),
            (Some(3), Some("23505"), Some(true)),
            (Some(4), Some("23503"), Some(true))
        ]
    );
    transaction.commit().expect("nothing is left to be checked");
    // Unique values change places, as a deferrable constraint allows.
    let swapped = json!([{"id": 1, "v": 11, "mark": "c"}, {"id": 5, "v": 15, "mark": "a"}]);
    assert_eq!(upload(&mut agent, &till, &swapped), (0, 2, json!([])));
    // What the caller itself left to be checked is checked first, and is not the batch's fault.
    let mut transaction = shop.superuser.transaction().expect("a transaction");
    transaction
        .execute(
            "INSERT INTO shop.item (client_id, database_id, id, v, mark) VALUES ('acme', $1, 50, 50, 'a')",
            &[&till.id],
        )
        .expect("a row that breaks a rule for now");
    refused(transaction.query(UPLOAD, &[&till.id, &json!([{"id": 60, "v": 60}])]), "23505");
    transaction.rollback().expect("a rollback");
    // Constraints stay immediate until the transaction ends, and no longer.
    let insert =
        "INSERT INTO shop.item (client_id, database_id, id, v, mark) VALUES ('acme', $1, 51, 51, 'a')";
    let mut transaction = shop.superuser.transaction().expect("a transaction");
    upload(&mut transaction, &till, &json!([{"id": 61, "v": 61}]));
    refused(transaction.execute(insert, &[&till.id]), "23505");
    transaction.rollback().expect("a rollback");
    let mut transaction = shop.superuser.transaction().expect("a transaction");
    transaction.execute(insert, &[&till.id]).expect("deferred again");
    transaction.execute("DELETE FROM shop.item WHERE id = 51", &[]).expect("and put right");
    transaction.commit().expect("a commit");
}

/// Everything that agents and people do with a replica, on tables whose policies let nobody do anything.
#[test]
fn row_level_security_hides_and_refuses_nothing_whatever_the_policies() {
    let policies = [
        "CREATE POLICY shut ON TABLE USING (false)",
        "CREATE POLICY shut ON TABLE AS RESTRICTIVE USING (false)",
        "CREATE POLICY open_to ON TABLE USING (true); CREATE POLICY shut ON TABLE AS RESTRICTIVE TO OWNER
             USING (current_setting('shop.tenant', true) = client_id) WITH CHECK (false)",
        "CREATE POLICY open_to ON TABLE FOR SELECT USING (id > 2)",
        "SELECT",
    ];
    for (place, policies) in policies.iter().enumerate() {
        for (force, before_row) in [(true, false), (true, true), (false, false)] {
            let protect = |table: &str| {
                let force = if force { "FORCE" } else { "NO FORCE" };
                format!(
                    "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; ALTER TABLE {table} {force} ROW LEVEL SECURITY; {}",
                    policies.replace("TABLE", table).replace("OWNER", "CURRENT_USER")
                )
            };
            let trigger = "CREATE FUNCTION shop.pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
                CREATE TRIGGER pass BEFORE INSERT OR UPDATE ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.pass();";
            let (mut shop, till, mut agent) = shop_with(
                "mark text, UNIQUE (client_id, database_id, mark)",
                &format!(
                    "CREATE TABLE shop.part (client_id text, database_id uuid, id int,
                         FOREIGN KEY (client_id, database_id, id) REFERENCES shop.item ON DELETE CASCADE);
                     {} {}; {}",
                    if before_row { trigger } else { "" },
                    protect("shop.item"),
                    protect("shop.part")
                ),
            );
            let what = format!("policies {place}, forced {force}, before row {before_row}");
            agent.batch_execute("SET row_security = off").expect("a setting that must not matter");
            let mark = |mark: &str, v: i64, from: i64, to: i64| {
                let row = |id: i64| json!({"id": id, "v": v + id, "mark": format!("{mark}{id}")});
                Value::Array((from..=to).map(row).collect())
            };
            assert_eq!(upload(&mut agent, &till, &mark("a", 0, 1, 8)), (8, 0, json!([])), "{what}");
            assert_eq!(upload(&mut agent, &till, &mark("a", 0, 1, 8)), (0, 0, json!([])), "{what}");
            assert_eq!(upload(&mut agent, &till, &mark("b", 10, 1, 4)), (0, 4, json!([])), "{what}");
            let swapped = json!([{"id": 1, "v": 31, "mark": "b2"}, {"id": 2, "v": 32, "mark": "b1"}]);
            let outcome = upload(&mut agent, &till, &swapped);
            assert_eq!(outcome.1 + outcome.2.as_array().map_or(0, Vec::len) as i64, 2, "{what}: {outcome:?}");
            // The row that holds a value is found, and said to be in the way.
            let taken = upload(&mut agent, &till, &json!([{"id": 20, "v": 50, "mark": "a8"}]));
            assert_eq!((taken.0, taken.2[0]["waits"].as_bool()), (0, Some(true)), "{what}");
            assert!(taken.2[0]["holder"].is_string(), "{what}: {taken:?}");
            let mut ask = |sql: &str| -> i64 { agent.query_one(sql, &[&till.id]).expect(sql).get(0) };
            assert_eq!(ask("SELECT count(*) FROM plimsoll.manifest($1, 'shop.item', '(,)')"), 8, "{what}");
            assert_eq!(
                ask("SELECT count(*) FROM plimsoll.download($1, 'shop.item', '(,)', 100)"),
                8,
                "{what}"
            );
            assert_eq!(ask("SELECT plimsoll.rebuild_manifest($1, 'shop.item')"), 8, "{what}");
            assert_eq!(ask("SELECT count(*) FROM plimsoll.check_manifest($1, 'shop.item')"), 0, "{what}");
            assert_eq!(ask("SELECT row_count FROM plimsoll.table_version($1, 'shop.item')"), 8, "{what}");
            assert_eq!(
                ask("SELECT row_count FROM plimsoll.range_fingerprint($1, 'shop.item', '(,)')"),
                8,
                "{what}"
            );
            // The guard counts rows that nobody sees, those of the table that refers to ours too.
            shop.superuser
                .batch_execute("INSERT INTO shop.part SELECT client_id, database_id, 8 FROM shop.item, generate_series(1, 9)")
                .expect("referring rows");
            let mut delete = |id: i64| -> (i64, i64) {
                let sql = "SELECT deleted, held FROM plimsoll.delete_rows($1, 'shop.item', $2::jsonb)";
                let rows = json!([{"key": {"id": id}}]);
                let row = agent.query_one(sql, &[&till.id, &rows]).expect("a deletion");
                (row.get(0), row.get(1))
            };
            assert_eq!(delete(8), (0, 1), "{what}");
            shop.superuser
                .execute("SELECT plimsoll.release_hold($1, 'shop.item')", &[&till.id])
                .expect("a release");
            assert_eq!(delete(8), (1, 0), "{what}");
            assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.part"), 0, "{what}");
            shop.superuser
                .execute("SELECT plimsoll.delete_all($1, 'shop.item')", &[&till.id])
                .expect("a deletion");
            assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.item"), 0, "{what}");
        }
    }
}
