//! Which ways tables go: what an administrator allows, what a run may then do, and which local database a replica is
//! kept level with.

mod shop;

use plimsoll_tests::Registered;
use postgres::Client;
use serde_json::{Value, json};
use shop::{Run, Shop, begin, begin_towards, begin_with, end, record, refused, rejection};
use uuid::Uuid;

fn allow(shop: &mut Shop, table: &str, directions: &str) {
    shop.superuser
        .batch_execute(&format!("SELECT plimsoll.set_directions('{table}', '{{{directions}}}')"))
        .expect("directions");
}

/// Calls that write to `shop.customer` in a run.
fn writes(client: &mut Client, till: &Registered, run: Option<i64>) -> [Result<u64, postgres::Error>; 3] {
    let row = json!([{"id": 90, "version": 90}]);
    let key = json!([{"key": {"id": 1}}]);
    [
        client.execute("SELECT plimsoll.upload($1, 'shop.customer', $2::jsonb, $3)", &[&till.id, &row, &run]),
        client.execute(
            "SELECT plimsoll.delete_rows($1, 'shop.customer', $2::jsonb, $3)",
            &[&till.id, &key, &run],
        ),
        client.execute("SELECT plimsoll.delete_all($1, 'shop.customer', $2)", &[&till.id, &run]),
    ]
}

fn reject(client: &mut Client, run: &Run) -> Result<u64, postgres::Error> {
    let rejected = json!([rejection(1, false)]);
    client.execute("SELECT plimsoll.reject_rows($1, 'shop.customer', $2)", &[&run.id, &rejected])
}

fn refusal<'r>(run: &'r Run, relation: &str) -> &'r Value {
    let refusal = &run.table(relation)["refused"];
    assert!(!refusal.is_null(), "{relation} is refused: {}", run.tables);
    refusal
}

#[test]
fn a_table_that_allows_no_way_to_the_server_takes_nothing_from_an_agent() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 3);
    let mut agent = shop.agent(&till);
    let run = begin(&mut agent, &till, "agent").expect("a run");
    allow(&mut shop, "shop.customer", "pull");
    for outcome in writes(&mut agent, &till, Some(run.id)) {
        let message = refused(outcome, "42501");
        assert!(message.contains("shop.customer does not allow direction push"), "{message}");
        assert!(message.contains("It allows pull."), "{message}");
        assert!(message.contains("set_directions('shop.customer', '{pull,push}')"), "{message}");
    }
    // What the local side could not store is told all the same, while anything is allowed.
    reject(&mut agent, &run).expect("a rejected row");
    allow(&mut shop, "shop.customer", "");
    let message = refused(reject(&mut agent, &run), "42501");
    assert!(message.contains("It allows nothing."), "{message}");
    end(&mut agent, &run, "finished", None).expect("an end");
    for outcome in writes(&mut agent, &till, None) {
        refused(outcome, "42501");
    }
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.customer"), 3);
    // Other tables are as they were, reading is, and so is the hand of an administrator.
    let mut reader = shop.agent(&till);
    reader
        .query("SELECT * FROM plimsoll.download($1, 'shop.customer', '(,)', 10)", &[&till.id])
        .expect("rows are read");
    shop.superuser
        .execute(
            "SELECT plimsoll.upload($1, 'shop.customer', '[{\"id\": 90, \"version\": 90}]'::jsonb)",
            &[&till.id],
        )
        .expect("an administrator writes");
    for allowed in ["push", "snapshot", "two-way"] {
        allow(&mut shop, "shop.customer", allowed);
        let upload = format!(
            "SELECT plimsoll.upload('{}', 'shop.customer', '[{{\"id\": 90, \"version\": 91}}]'::jsonb)",
            till.id
        );
        agent.batch_execute(&upload).unwrap_or_else(|error| panic!("{allowed}: {error:?}"));
    }
}

#[test]
fn a_run_is_told_which_of_its_tables_may_not_go_its_way_and_may_not_write_to_them() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 3);
    let mut agent = shop.agent(&till);
    allow(&mut shop, "shop.customer", "pull,snapshot");
    let directions = json!({"shop.customer": "push", "shop.invoice": "push", "shop.gone": "pull"});
    let run = begin_towards(&mut agent, &till, directions, None).expect("a run");
    assert_eq!(run.table("shop.customer")["directions"], json!(["pull", "snapshot"]));
    let customer = refusal(&run, "shop.customer");
    assert_eq!(customer["sqlstate"], "42501");
    assert_eq!(customer["message"], "table shop.customer does not allow direction push");
    assert!(customer["hint"].as_str().expect("a hint").contains("{pull,snapshot,push}"));
    assert!(run.table("shop.invoice")["refused"].is_null());
    for outcome in writes(&mut agent, &till, Some(run.id)) {
        let message = refused(outcome, "42501");
        assert!(message.contains(&format!("run {} may not write to shop.customer", run.id)), "{message}");
    }
    let message = refused(reject(&mut agent, &run), "42501");
    assert!(message.contains("may not record anything of shop.customer"), "{message}");
    record(&mut agent, &run, "shop.invoice").expect("the other table goes on");
    end(&mut agent, &run, "finished", None).expect("an end");
    // What it said of a table holds for the run, whatever the table allows.
    allow(&mut shop, "shop.customer", "push,pull");
    let side = Uuid::new_v4();
    let run = begin_towards(&mut agent, &till, json!({"shop.customer": "pull"}), Some(side)).expect("a run");
    assert!(run.table("shop.customer")["refused"].is_null());
    for outcome in writes(&mut agent, &till, Some(run.id)) {
        refused(outcome, "42501");
    }
    reject(&mut agent, &run).expect("a row that the local side does not take");
    let run = begin_towards(&mut agent, &till, json!({"shop.customer": "push"}), None).expect("a run");
    for outcome in writes(&mut agent, &till, Some(run.id)) {
        outcome.expect("it pushes");
    }
    for (directions, told) in [
        (json!([]), "must be an object"),
        (json!({"shop.customer": "both"}), "no direction for table shop.customer"),
        (json!({"shop.customer": 1}), "no direction for table shop.customer"),
    ] {
        let message = refused(begin_towards(&mut agent, &till, directions, None), "22023");
        assert!(message.contains(told), "{message}");
    }
}

#[test]
fn directions_are_set_by_the_owner_who_administers_and_kept_when_the_table_is_managed_again() {
    let mut shop = Shop::open();
    let shown =
        "SELECT array_to_string(directions, ' ') FROM plimsoll.tables WHERE relation = 'shop.customer'";
    assert_eq!(shop.value::<String>(shown), "push pull snapshot two-way");
    allow(&mut shop, "shop.customer", "two-way,pull");
    assert_eq!(shop.value::<String>(shown), "pull two-way");
    let manage = |more: &str| {
        format!("SELECT plimsoll.manage_table('shop.customer', version_column => 'version'{more})")
    };
    shop.superuser.batch_execute(&manage("")).expect("managed again");
    assert_eq!(shop.value::<String>(shown), "pull two-way", "nothing is allowed by the way");
    shop.superuser.batch_execute(&manage(", directions => '{push}'")).expect("managed again");
    assert_eq!(shop.value::<String>(shown), "push");
    allow(&mut shop, "shop.customer", "");
    assert_eq!(shop.value::<String>(shown), "");
    for (words, sqlstate) in [("'{push,both}'", "22023"), ("'{push,NULL}'", "22023"), ("NULL", "22004")] {
        let set = format!("SELECT plimsoll.set_directions('shop.customer', {words})");
        let message = refused(shop.superuser.batch_execute(&set), sqlstate);
        assert!(sqlstate == "22004" || message.contains("push, pull, snapshot, two-way"), "{message}");
    }
    let admin = shop.server.create_login(&["plimsoll_admin"]);
    let mut stranger = shop.connect(&admin);
    let oid: u32 = shop.value("SELECT 'shop.customer'::regclass::oid");
    let set = format!("SELECT plimsoll.set_directions({oid}::oid::regclass, '{{push}}')");
    let message = refused(stranger.batch_execute(&set), "42501");
    assert!(message.contains("is not yours"), "{message}");
}

#[test]
fn two_ways_need_a_version_that_each_row_counts_and_that_can_be_copied() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let owner: String =
        shop.value("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'shop.customer'::regclass");
    let table = |name: &str, version: &str, key: &str| {
        format!(
            "CREATE TABLE shop.{name} (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL,
                 noted timestamptz, extra text {version}{key}); "
        )
    };
    let key = ", PRIMARY KEY (client_id, database_id, id)";
    shop.superuser
        .batch_execute(&format!(
            "SET ROLE {owner};
             {}{}{}{}{} RESET ROLE;
             SELECT plimsoll.manage_table('shop.plain', modified_column => 'noted');
             SELECT plimsoll.manage_table('shop.keyless', key_columns => '{{}}');
             SELECT plimsoll.manage_table('shop.own', version_column => 'v', version_scope => 'row');
             SELECT plimsoll.manage_table('shop.stamped', version_column => 'v', version_scope => 'row');
             SELECT plimsoll.manage_table('shop.revised', version_column => 'v', modified_column => 'noted',
                 server_columns => '{{extra}}')",
            table("plain", "", key),
            table("keyless", "", ""),
            table("own", ", v xid8 NOT NULL", key),
            table("stamped", ", v bytea NOT NULL", key),
            table("revised", ", v int NOT NULL", key),
        ))
        .expect("tables");
    let mut agent = shop.agent(&till);
    let both_ways = json!({"shop.plain": "two-way", "shop.keyless": "two-way", "shop.own": "two-way",
        "shop.stamped": "two-way", "shop.revised": "two-way"});
    let side = Uuid::new_v4();
    let run = begin_towards(&mut agent, &till, both_ways.clone(), Some(side)).expect("a run");
    for (table, reason, hint) in [
        ("shop.plain", "without a version column", "ADD COLUMN revision bigint"),
        ("shop.keyless", "without a key", "ADD PRIMARY KEY"),
        ("shop.own", "has type xid8, which a database writes by itself", "ADD COLUMN revision bigint"),
        ("shop.stamped", "has type bytea, which a database writes by itself", "ADD COLUMN revision bigint"),
        (
            "shop.revised",
            "\"v\" is said to count the changes of the whole table",
            "SELECT plimsoll.manage_table('shop.revised', key_columns => ARRAY['id'], version_column => 'v', \
             version_scope => 'row', modified_column => 'noted', server_columns => ARRAY['extra']);",
        ),
    ] {
        let refusal = refusal(&run, table);
        assert_eq!(refusal["sqlstate"], "42P16", "{refusal}");
        let message = refusal["message"].as_str().expect("a message");
        assert!(
            message.starts_with(&format!("{table} cannot go two ways")) && message.contains(reason),
            "{message}"
        );
        let said = refusal["hint"].as_str().expect("a hint");
        assert!(said.contains(hint), "{said}");
        assert!(said.contains(&format!("plimsoll.manage_table('{table}'")), "{said}");
    }
    // What the hint says is all that it takes.
    let hint = refusal(&run, "shop.revised")["hint"].as_str().expect("a hint").to_owned();
    shop.superuser.batch_execute(&hint).expect("the call that the hint names");
    let run = begin_towards(&mut agent, &till, both_ways, Some(side)).expect("a run");
    assert!(run.table("shop.revised")["refused"].is_null(), "{}", run.table("shop.revised"));
    let server_columns: String = shop.value(
        "SELECT array_to_string(server_columns, ' ') FROM plimsoll.tables WHERE relation = 'shop.revised'",
    );
    assert_eq!(server_columns, "extra");
}

#[test]
fn a_replica_that_is_pulled_is_kept_level_with_one_local_database() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 3);
    let mut agent = shop.agent(&till);
    let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
    let ways = json!({"shop.customer": "pull", "shop.invoice": "push"});
    let run = begin_towards(&mut agent, &till, ways.clone(), Some(one)).expect("a run");
    assert!(run.table("shop.customer")["refused"].is_null());
    end(&mut agent, &run, "finished", None).expect("an end");
    let shown: (Uuid, String, bool) = {
        let row = shop
            .superuser
            .query_one(
                "SELECT side_id, side_host, side_since <= side_seen_at + interval '1 minute'
                 FROM plimsoll.replicas WHERE relation = 'shop.customer'",
                &[],
            )
            .expect("a replica");
        (row.get(0), row.get(1), row.get(2))
    };
    assert_eq!(shown, (one, "till-7".to_owned(), true));
    for way in ["pull", "snapshot-from-remote"] {
        let ways = json!({"shop.customer": way, "shop.invoice": "push"});
        let run = begin_towards(&mut agent, &till, ways, Some(other)).expect("a run");
        let refusal = refusal(&run, "shop.customer");
        assert_eq!(refusal["sqlstate"], "55006");
        assert_eq!(refusal["message"], "shop.customer is kept level with another local database");
        let detail = refusal["detail"].as_str().expect("a detail");
        for told in [&one.to_string(), &other.to_string(), "till-7", "since 20", "last seen 20"] {
            assert!(detail.contains(told), "{detail}");
        }
        let hint = refusal["hint"].as_str().expect("a hint");
        for told in ["register_database", "plimsoll.forget_side(", "--take-over", "allow_take_over"] {
            assert!(hint.contains(told), "{hint}");
        }
        assert!(run.table("shop.invoice")["refused"].is_null(), "what is pushed is not concerned");
        end(&mut agent, &run, "finished", None).expect("an end");
    }
    // One that cannot be told from others is none.
    let run = begin_towards(&mut agent, &till, ways.clone(), None).expect("a run");
    assert_eq!(refusal(&run, "shop.customer")["sqlstate"], "55006");
    let run = begin_towards(&mut agent, &till, json!({"shop.invoice": "pull"}), None).expect("a run");
    assert_eq!(refusal(&run, "shop.invoice")["sqlstate"], "22004");
    // A replica that is pushed takes rows of any local database.
    let run = begin_towards(&mut agent, &till, json!({"shop.customer": "push"}), Some(other)).expect("a run");
    assert!(run.table("shop.customer")["refused"].is_null());
}

#[test]
fn a_run_that_only_looks_takes_no_place() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let mut look = |side: Option<Uuid>| -> Value {
        let row = agent
            .query_one(
                "SELECT tables FROM plimsoll.begin_run($1, 'agent', '1.0', 1, directions => $2, side_id => $3,
                     dry_run => true)",
                &[&till.id, &json!({"shop.customer": "pull"}), &side],
            )
            .expect("a run");
        let tables: Value = row.get(0);
        let customer = tables.as_array().expect("tables").iter().find(|t| t["relation"] == "shop.customer");
        customer.expect("the table")["refused"].clone()
    };
    assert!(look(None).is_null());
    assert!(look(Some(Uuid::new_v4())).is_null());
    let known: i64 = shop.value(
        "SELECT count(*) + (SELECT count(*) FROM plimsoll.replica_record WHERE direction IS NOT NULL)
         FROM plimsoll.side_record",
    );
    assert_eq!(known, 0);
}

#[test]
fn another_local_database_takes_the_place_where_an_administrator_says_so() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    let ways = json!({"shop.customer": "pull", "shop.invoice": "pull"});
    let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
    begin_towards(&mut agent, &till, ways.clone(), Some(one)).expect("a run");
    let forget = "SELECT plimsoll.forget_side($1, $2)";
    let customer = Some("shop.customer");
    let message = refused(agent.query_one(forget, &[&till.id, &customer]), "42501");
    assert!(message.contains("allow_take_over"), "{message}");
    let forgotten: i64 = shop.superuser.query_one(forget, &[&till.id, &customer]).expect("forgotten").get(0);
    assert_eq!(forgotten, 1);
    let run = begin_towards(&mut agent, &till, ways.clone(), Some(other)).expect("a run");
    assert!(run.table("shop.customer")["refused"].is_null());
    assert_eq!(refusal(&run, "shop.invoice")["sqlstate"], "55006");
    shop.set_option(&till, "allow_take_over", Some("true"));
    let forgotten: i64 =
        agent.query_one(forget, &[&till.id, &None::<&str>]).expect("all are forgotten").get(0);
    assert_eq!(forgotten, 2);
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM plimsoll.side_record"), 0);
    let message = refused(agent.query_one(forget, &[&till.id, &customer]), "55000");
    assert!(message.contains("shop.customer"), "{message}");
    let run = begin_towards(&mut agent, &till, ways, Some(one)).expect("a run");
    assert!(run.tables.as_array().expect("tables").iter().all(|table| table["refused"].is_null()));
}

#[test]
fn what_was_found_one_way_is_forgotten_when_a_table_goes_another() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 3);
    let mut agent = shop.agent(&till);
    let run = begin_with(&mut agent, &till, "agent", Some(json!({"shop.customer": 3}))).expect("a run");
    end(&mut agent, &run, "finished", None).expect("an end");
    let run = begin_towards(&mut agent, &till, json!({"shop.customer": "push"}), None).expect("a run");
    let rejected = json!([rejection(1, false)]);
    agent
        .execute("SELECT plimsoll.reject_rows($1, 'shop.customer', $2)", &[&run.id, &rejected])
        .expect("a rejected row");
    let news = json!([{"relation": "shop.customer", "status": "level_except", "proved_at": 1_790_000_000_000_000i64,
        "direction": "push"}]);
    end(&mut agent, &run, "finished", Some(news)).expect("an end");
    let known = "SELECT concat_ws(' ', direction, status, proved_at IS NOT NULL, rejected_rows,
                     (SELECT r.reported_max FROM plimsoll.replica_record r JOIN plimsoll.table_record t USING (table_id)
                      WHERE t.table_name = 'customer'))
                 FROM plimsoll.replicas WHERE relation = 'shop.customer'";
    assert_eq!(shop.value::<String>(known), "push level_except t 1 3");
    let side = Some(Uuid::new_v4());
    let run = begin_towards(&mut agent, &till, json!({"shop.customer": "pull"}), side).expect("a run");
    assert_eq!(run.table("shop.customer")["rejected"], 0);
    assert_eq!(shop.value::<String>(known), "pull unknown f 0");
    // Said again it changes nothing.
    let stamp = "SELECT string_agg(xmin::text, ' ') FROM plimsoll.replica_record";
    let before: String = shop.value(stamp);
    end(&mut agent, &run, "finished", None).expect("an end");
    begin_towards(&mut agent, &till, json!({"shop.customer": "pull"}), side).expect("a run");
    assert_eq!(shop.value::<String>(stamp), before);
}

#[test]
fn conflicts_that_nobody_decided_are_open_until_the_table_goes_another_way() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let mut agent = shop.agent(&till);
    shop.superuser
        .batch_execute(
            "SELECT plimsoll.manage_table('shop.customer', version_column => 'version', version_scope => 'row')",
        )
        .expect("a table that can go both ways");
    let side = Some(Uuid::new_v4());
    let both = json!({"shop.customer": "two-way"});
    let run = begin_towards(&mut agent, &till, both.clone(), side).expect("a run");
    assert!(run.table("shop.customer")["refused"].is_null(), "{}", run.tables);
    shop.superuser
        .execute(
            "INSERT INTO plimsoll.conflict_record (database_id, table_id, memory_key, kind, local_seen, remote_seen, key, run_id)
             SELECT $1, table_id, decode(repeat('ab', 16), 'hex'), 'conflict', '', '', '{\"id\": 1}', $2
             FROM plimsoll.table_record WHERE table_name = 'customer'",
            &[&till.id, &run.id],
        )
        .expect("a conflict");
    let open = "SELECT open_conflicts FROM plimsoll.replicas WHERE relation = 'shop.customer'";
    begin_towards(&mut agent, &till, both, side).expect("a run");
    assert_eq!(shop.value::<i64>(open), 1);
    begin_towards(&mut agent, &till, json!({"shop.customer": "pull"}), side).expect("a run");
    assert_eq!(shop.value::<i64>(open), 0);
}

#[test]
fn reports_show_direction_and_rows_per_side() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 3);
    let mut agent = shop.agent(&till);
    let side = Some(Uuid::new_v4());
    let ways = json!({"shop.customer": "pull", "shop.invoice": "push"});
    let run = begin_towards(&mut agent, &till, ways.clone(), side).expect("a run");
    let running: String =
        shop.value("SELECT array_to_string(directions, ' ') FROM plimsoll.runs WHERE outcome = 'running'");
    assert_eq!(running, "pull push");
    for table in ["shop.customer", "shop.invoice"] {
        record(&mut agent, &run, table).expect("a batch");
    }
    let at_local = "SELECT plimsoll.record_batch($1, 'shop.invoice', 'compare', 1, 1, 1, 'local')";
    agent.execute(at_local, &[&run.id]).expect("a batch");
    let wrong = "SELECT plimsoll.record_batch($1, 'shop.invoice', 'compare', 1, 1, 1, 'here')";
    refused(agent.execute(wrong, &[&run.id]), "22023");
    let batches: String = shop.value(
        "SELECT string_agg(concat_ws(' ', relation, direction, kind, side), ', ' ORDER BY batch_id) FROM plimsoll.batches",
    );
    assert_eq!(
        batches,
        "shop.customer pull upload local, shop.invoice push upload remote, shop.invoice push compare local"
    );
    let news = json!([
        {"relation": "shop.customer", "status": "different", "direction": "pull", "inserted": 4, "deleted": 2,
         "sent": 0, "received": 4, "deleted_here": 2, "deleted_there": 0, "held_here": 7, "undecided": 1},
        {"relation": "shop.invoice", "status": "level", "direction": "push", "inserted": 1, "updated": 1, "deleted": 1},
    ]);
    end(&mut agent, &run, "finished", Some(news)).expect("an end");
    let replicas = "SELECT string_agg(concat_ws(' ', relation, direction, status, sent, received, deleted_local,
            deleted_remote, conflicts, undecided_rows, held_local_rows, held_local_since IS NOT NULL, moved_at IS NOT NULL),
            ', ' ORDER BY relation) FROM plimsoll.replicas";
    assert_eq!(
        shop.value::<String>(replicas),
        "shop.customer pull different 0 4 2 0 0 1 7 t t, shop.invoice push level 2 0 0 1 0 0 0 f t"
    );
    let run_counts: String = shop.value(
        "SELECT concat_ws(' ', array_to_string(directions, '+'), received, deleted_local, conflicts, undecided)
         FROM plimsoll.runs",
    );
    assert_eq!(run_counts, "pull+push 4 2 0 1");
    // A run that moves nothing leaves the counts of the one that did; what is held and undecided is as it is now.
    let run = begin_towards(&mut agent, &till, ways, side).expect("a run");
    let news = json!([{"relation": "shop.customer", "status": "level", "direction": "pull"}]);
    end(&mut agent, &run, "finished", Some(news)).expect("an end");
    let shown: String = shop.value(replicas);
    assert!(shown.starts_with("shop.customer pull level 0 4 2 0 0 0 0 f t,"), "{shown}");
    for wrong in [json!({"direction": "both"}), json!({"received": -1}), json!({"held_here": "x"})] {
        let mut news = json!({"relation": "shop.customer", "status": "level"});
        news.as_object_mut().expect("an object").extend(wrong.as_object().expect("an object").clone());
        let run = begin(&mut agent, &till, "agent").expect("a run");
        refused(end(&mut agent, &run, "finished", Some(json!([news]))), "22023");
    }
}

#[test]
fn what_a_snapshot_would_have_destroyed_is_held() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 100);
    let mut agent = shop.agent(&till);
    let run = begin_towards(&mut agent, &till, json!({"shop.invoice": "snapshot"}), None).expect("a run");
    let news =
        json!([{"relation": "shop.invoice", "status": "different", "direction": "snapshot", "planned": 80}]);
    end(&mut agent, &run, "finished", Some(news)).expect("an end");
    let held: i64 = shop.value("SELECT hold_planned FROM plimsoll.replicas WHERE relation = 'shop.invoice'");
    assert_eq!(held, 80);
    let run = begin(&mut agent, &till, "agent").expect("a run");
    assert_eq!(run.table("shop.invoice")["hold"]["planned"], 80);
}

#[test]
fn an_idle_run_changes_one_row_whichever_way_it_goes() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 3);
    let mut agent = shop.agent(&till);
    let side = Some(Uuid::new_v4());
    let ways = json!({"shop.customer": "pull", "shop.invoice": "push"});
    let idle = |agent: &mut Client| {
        let run = begin_towards(agent, &till, ways.clone(), side).expect("a run");
        let news = json!([
            {"relation": "shop.customer", "status": "level", "direction": "pull"},
            {"relation": "shop.invoice", "status": "level", "direction": "push"},
        ]);
        end(agent, &run, "finished", Some(news)).expect("an end");
    };
    idle(&mut agent);
    idle(&mut agent);
    // A row that was locked alone has another xmax.
    let changed =
        "SELECT string_agg(concat_ws(' ', tableoid::regclass, xmin, xmax), ', ' ORDER BY tableoid, ctid)
        FROM (
            SELECT tableoid, ctid, xmin, xmax FROM plimsoll.replica_record UNION ALL
            SELECT tableoid, ctid, xmin, xmax FROM plimsoll.side_record UNION ALL
            SELECT tableoid, ctid, xmin, xmax FROM plimsoll.run_record) rows";
    let before: String = shop.value(changed);
    idle(&mut agent);
    assert_eq!(shop.value::<String>(changed), before);
    assert!(shop.value::<bool>("SELECT idle_runs = 3 FROM plimsoll.databases"));
}
