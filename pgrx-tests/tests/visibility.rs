//! What a role learns of databases that are not its own: nothing, through rows, joins, errors, plans, statistics or
//! the way it is refused.

mod shop;

use plimsoll_tests::{Login, Registered};
use postgres::{Client, SimpleQueryMessage};
use shop::{Shop, begin, end, log_in, record, refused, rejection};
use uuid::Uuid;

/// The views that show rows of databases.
const VIEWS: [&str; 7] = ["databases", "replicas", "runs", "batches", "rejected_rows", "conflicts", "blocks"];

/// What is secret of the other databases: it stands in their names, rows, hosts, errors and settings.
const SECRET: &str = "umbrella";

/// A shop with a database whose agent the attacker is, and others full of what they must not see.
struct Street {
    shop: Shop,
    own: Registered,
    others: Vec<Registered>,
    attacker: Login,
}

/// Something in every view: a run that recorded, a rejected row, blocks, and another run under way.
fn live(shop: &mut Shop, database: &Registered, agent: &str) {
    let mut client = shop.agent(database);
    let run = begin(&mut client, database, agent).expect("a run");
    record(&mut client, &run, "shop.customer").expect("a batch");
    let mut rejected = rejection(1, false);
    rejected["message"] = format!("refused for {agent}").into();
    rejected["key"] = serde_json::json!({"id": agent});
    client
        .execute(
            "SELECT plimsoll.reject_rows($1, 'shop.customer', $2)",
            &[&run.id, &serde_json::json!([rejected])],
        )
        .expect("a rejected row");
    let row = serde_json::json!({"id": 1, "name": agent});
    shop.superuser
        .execute(
            "INSERT INTO plimsoll.conflict_record (database_id, table_id, memory_key, kind, local_seen, remote_seen, key,
                 local_row, remote_row, run_id)
             SELECT $1, table_id, decode(repeat('5e', 16), 'hex'), 'conflict', '', '', $2, $2, $2, $3
             FROM plimsoll.table_record WHERE table_name = 'customer'",
            &[&database.id, &row, &run.id],
        )
        .expect("a conflict");
    let news = serde_json::json!([{"relation": "shop.customer", "changed": true, "status": "level",
        "local_rows": 3, "error": null}]);
    end(&mut client, &run, "finished", Some(news)).expect("an end");
    for table in ["customer", "invoice"] {
        client
            .execute(&format!("SELECT plimsoll.rebuild_manifest($1, 'shop.{table}')"), &[&database.id])
            .expect("a manifest");
    }
    begin(&mut client, database, agent).expect("a run under way");
}

impl Street {
    fn open() -> Self {
        let mut shop = Shop::open();
        let own = shop.register("acme", 3);
        let others: Vec<Registered> =
            ["umbrella", "umbrella north", "umbrella south"].map(|client| shop.register(client, 3)).into();
        live(&mut shop, &own, "acme's agent");
        for other in &others {
            live(&mut shop, other, "umbrella's agent");
        }
        let attacker = shop.server.create_agent();
        shop.grant(&own, &attacker.role);
        shop.superuser
            .batch_execute("GRANT CREATE ON SCHEMA public TO PUBLIC; ANALYZE")
            .expect("a place for the attacker's objects, and statistics");
        Street { shop, own, others, attacker }
    }

    fn attacker(&self) -> Client {
        self.shop.connect(&self.attacker)
    }
}

/// All text that a statement answers, whatever the types.
fn text_of(client: &mut Client, sql: &str) -> String {
    let rows = client.simple_query(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let mut text = String::new();
    for row in rows {
        if let SimpleQueryMessage::Row(row) = row {
            (0..row.len()).for_each(|column| text += &format!("{} ", row.get(column).unwrap_or("NULL")));
            text.push('\n');
        }
    }
    text
}

/// The names of a view's columns and their types.
fn columns(client: &mut Client, view: &str) -> Vec<(String, String)> {
    client
        .query(
            "SELECT attname::text, format_type(atttypid, -1) FROM pg_attribute
             WHERE attrelid = ('plimsoll.' || $1)::regclass AND attnum > 0",
            &[&view],
        )
        .expect("columns")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
}

#[test]
fn every_view_shows_a_role_its_own_databases_and_joins_show_no_more() {
    let street = Street::open();
    let mut attacker = street.attacker();
    let own = street.own.id.to_string();
    for view in VIEWS {
        let shown = text_of(&mut attacker, &format!("SELECT * FROM plimsoll.{view}"));
        assert!(shown.contains(&own), "{view} shows its own: {shown}");
        assert!(!shown.contains(SECRET), "{view}: {shown}");
        for other in VIEWS {
            for join in ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"] {
                let sql = format!(
                    "SELECT a, b FROM plimsoll.{view} a {join} plimsoll.{other} b
                     ON a.database_id = b.database_id AND a.client_id <> 'x'"
                );
                let shown = text_of(&mut attacker, &sql);
                assert!(shown.contains(&own) && !shown.contains(SECRET), "{sql}: {shown}");
            }
        }
        for condition in [
            format!("database_id = '{}'", street.others[0].id),
            format!("database_id = ANY ('{{{}}}')", street.others[0].id),
            format!("client_id = '{SECRET}'"),
            format!("client_id LIKE '%{SECRET}%'"),
            "client_id > 'b'".to_owned(),
            format!(
                "EXISTS (SELECT FROM plimsoll.databases o WHERE o.database_id = '{}')",
                street.others[0].id
            ),
            format!("database_id IN (SELECT '{}'::uuid)", street.others[0].id),
        ] {
            let sql = format!("SELECT * FROM plimsoll.{view} v WHERE {condition}");
            assert_eq!(text_of(&mut attacker, &sql), "", "{sql}");
        }
    }
    let mut stranger = street.shop.connect(&street.shop.server.create_agent());
    for view in VIEWS {
        assert_eq!(text_of(&mut stranger, &format!("SELECT * FROM plimsoll.{view}")), "", "{view}");
    }
}

#[test]
fn history_is_gone_from_sight_when_a_grant_or_a_login_is() {
    let mut street = Street::open();
    let mut attacker = street.attacker();
    let shown =
        |client: &mut Client| VIEWS.map(|view| text_of(client, &format!("SELECT * FROM plimsoll.{view}")));
    assert!(shown(&mut attacker).iter().all(|text| !text.is_empty()));
    attacker.batch_execute("PREPARE kept AS SELECT count(*) FROM plimsoll.runs").expect("a kept plan");
    assert_eq!(text_of(&mut attacker, "EXECUTE kept").trim(), "2");
    let revoke = "SELECT plimsoll.revoke_database($1, $2::text::name)";
    street.shop.superuser.execute(revoke, &[&street.own.id, &street.attacker.role]).expect("a revocation");
    assert!(shown(&mut attacker).iter().all(String::is_empty));
    assert_eq!(text_of(&mut attacker, "EXECUTE kept").trim(), "0");
    let mut transaction = attacker.transaction().expect("a transaction");
    log_in(&mut transaction, street.own.id, &street.own.token).expect("a login");
    let runs: i64 = transaction.query_one("SELECT count(*) FROM plimsoll.runs", &[]).expect("runs").get(0);
    assert_eq!(runs, 2);
    transaction.commit().expect("a commit");
    assert!(shown(&mut attacker).iter().all(String::is_empty));
    // A role that it is a member of without inheriting its rights is not it.
    let team = street.shop.server.create_owner();
    street.shop.grant(&street.own, &team);
    street
        .shop
        .superuser
        .batch_execute(&format!(
            "ALTER ROLE {0} NOINHERIT; GRANT {team}, plimsoll_agent TO {0}",
            street.attacker.role
        ))
        .expect("a membership");
    let visible = "SELECT count(*) FROM plimsoll.visible_databases()";
    street.shop.superuser.batch_execute("GRANT USAGE ON SCHEMA plimsoll TO PUBLIC").expect("a grant");
    street
        .shop
        .superuser
        .batch_execute("GRANT EXECUTE ON FUNCTION plimsoll.visible_databases() TO PUBLIC")
        .expect("a grant");
    assert_eq!(text_of(&mut attacker, visible).trim(), "0");
    attacker.batch_execute(&format!("SET ROLE {team}")).expect("the role itself");
    assert_eq!(text_of(&mut attacker, visible).trim(), "1");
}

#[test]
fn conditions_of_the_attackers_making_are_asked_of_its_own_rows_only() {
    let street = Street::open();
    let mut attacker = street.attacker();
    attacker
        .batch_execute(
            "CREATE TABLE public.leaked (value text);
             CREATE FUNCTION public.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
                 'BEGIN INSERT INTO public.leaked VALUES ($1); RETURN true; END';
             CREATE FUNCTION public.leak_two(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
                 'BEGIN INSERT INTO public.leaked VALUES ($1 || $2); RETURN true; END';
             CREATE OPERATOR public.<<< (LEFTARG = text, RIGHTARG = text, FUNCTION = public.leak_two,
                 RESTRICT = eqsel, JOIN = eqjoinsel);
             CREATE AGGREGATE public.gather (text) (SFUNC = textcat, STYPE = text, INITCOND = '');
             CREATE FUNCTION public.first_letter(text) RETURNS integer LANGUAGE sql COST 0.0000001 AS
                 'SELECT CASE WHEN $1 LIKE ''%umbrella%'' THEN 1 / (length($1) - length($1)) ELSE 1 END'",
        )
        .expect("hostile functions and operators");
    let leakproof = attacker.batch_execute(
        "CREATE FUNCTION public.tight(text) RETURNS boolean LANGUAGE sql LEAKPROOF AS 'SELECT true'",
    );
    refused(leakproof, "42501");
    for view in VIEWS {
        for (column, _) in columns(&mut attacker, view) {
            for condition in [
                format!("public.leak({column}::text)"),
                format!("{column}::text OPERATOR(public.<<<) ''"),
                format!("public.first_letter({column}::text) = 1"),
                // Each of these raises an error with the value in it, or by the value alone.
                format!("({column}::text = '{SECRET}' AND {column}::text::integer = 1) IS NOT NULL"),
                format!(
                    "CASE WHEN {column}::text ~ '{SECRET}' THEN 1 / (length({column}::text) * 0) > 0 ELSE true END"
                ),
                format!("{column}::text LIKE '%' OR public.leak({column}::text)"),
            ] {
                let sql = format!("SELECT v FROM plimsoll.{view} v WHERE {condition}");
                let shown = text_of(&mut attacker, &sql);
                assert!(!shown.contains(SECRET), "{sql}: {shown}");
            }
            let sql = format!("SELECT public.gather({column}::text) FROM plimsoll.{view}");
            assert!(!text_of(&mut attacker, &sql).contains(SECRET), "{sql}");
        }
        let cast = attacker.batch_execute(&format!(
            "SELECT FROM plimsoll.{view} v, plimsoll.databases d WHERE (v.client_id || d.client_id)::integer = 1"
        ));
        let message = refused(cast, "22P02");
        assert!(message.contains("acmeacme") && !message.contains(SECRET), "{message}");
    }
    let leaked = text_of(&mut attacker, "SELECT * FROM public.leaked");
    assert!(leaked.contains("acme") && !leaked.contains(SECRET), "{leaked}");
}

/// A plan as EXPLAIN shows it, without what differs from one execution to the next and the condition itself.
fn plan(client: &mut Client, options: &str, sql: &str, literal: &str) -> String {
    let text = text_of(client, &format!("EXPLAIN ({options}) {sql}"));
    masked(&text, literal)
}

/// A text without a literal; where its characters are part of a larger number, such as a cost, they stay.
fn masked(text: &str, literal: &str) -> String {
    let is_part =
        |beside: Option<char>| beside.is_some_and(|beside| beside.is_ascii_digit() || beside == '.');
    let (mut masked, mut done) = (String::new(), 0);
    for (at, _) in text.match_indices(literal) {
        let end = at + literal.len();
        if is_part(text[..at].chars().next_back()) || is_part(text[end..].chars().next()) {
            continue;
        }
        masked.push_str(&text[done..at]);
        masked.push_str("LITERAL");
        done = end;
    }
    masked + &text[done..]
}

#[test]
fn plans_and_their_row_counts_are_the_same_whether_or_not_others_rows_would_match() {
    let mut street = Street::open();
    // Enough rows of others to make every one of their values a common one.
    street
        .shop
        .superuser
        .batch_execute(
            "INSERT INTO plimsoll.run_record SELECT 100000 + i, d.database_id, l.agent_id, '9.9', 'umbrella-host',
                 now(), now(), 'failed', 'umbrella failed', 4711, 4711, 4711, 4711
             FROM plimsoll.database_record d JOIN plimsoll.lease_record l USING (database_id),
                 generate_series(1, 300) i WHERE d.client_id = 'umbrella';
             INSERT INTO plimsoll.batch_record (run_id, database_id, table_id, kind, row_count, byte_count, duration_micros,
                 direction, side)
             SELECT 4711, d.database_id, t.table_id, 'delete', 4711, 4711, 4711, 'push', 'remote'
             FROM plimsoll.database_record d, plimsoll.table_record t, generate_series(1, 300) i
             WHERE d.client_id = 'umbrella';
             INSERT INTO plimsoll.rejected_record SELECT database_id, table_id, decode(lpad(i::text, 32, '0'), 'hex'),
                 source_key, source_digest, 4711, true, '\"umbrella\"', '99999', 'umbrella', 'umbrella', 4711,
                 now(), now(), 4711
             FROM plimsoll.rejected_record, generate_series(1, 300) i WHERE message LIKE '%umbrella%';
             ANALYZE",
        )
        .expect("rows of others");
    let mut attacker = street.attacker();
    let mut compared = 0;
    for view in VIEWS {
        for (column, kind) in columns(&mut attacker, view) {
            let (theirs, nobodys) = match (column.as_str(), kind.as_str()) {
                ("database_id", _) => (street.others[0].id.to_string(), Uuid::new_v4().to_string()),
                (_, "bigint" | "integer") => ("4711".to_owned(), "4712".to_owned()),
                ("agent_version", _) => ("9.9".to_owned(), "9.8".to_owned()),
                ("sqlstate", _) => ("99999".to_owned(), "99998".to_owned()),
                ("kind", _) => ("delete".to_owned(), "deleto".to_owned()),
                ("outcome", _) => ("failed".to_owned(), "failee".to_owned()),
                (_, "text" | "name") => ("umbrella".to_owned(), "umbrello".to_owned()),
                _ => continue,
            };
            // How two ids compare with its own is no secret.
            let operators: &[&str] = if column == "database_id" { &["="] } else { &["=", "<", ">="] };
            for operator in operators {
                let plans = [&theirs, &nobodys].map(|literal| {
                    let sql = format!("SELECT * FROM plimsoll.{view} WHERE {column} {operator} '{literal}'");
                    let estimated = plan(&mut attacker, "VERBOSE", &sql, literal);
                    // From Postgres 18 on buffers are shown unless it is said, which differ as caches fill.
                    let options = "ANALYZE, TIMING OFF, SUMMARY OFF, COSTS OFF, BUFFERS OFF";
                    let executed = plan(&mut attacker, options, &sql, literal);
                    estimated + &executed
                });
                assert_eq!(plans[0], plans[1], "{view}.{column} {operator} {theirs}");
                compared += 1;
            }
        }
    }
    assert!(compared > 100, "only {compared} plans were compared");
}

#[test]
fn statistics_sequences_and_sizes_tell_of_no_single_database() {
    let mut street = Street::open();
    let sampled = text_of(
        &mut street.shop.superuser,
        "SELECT DISTINCT a.attname FROM pg_statistic s
         JOIN pg_attribute a ON a.attrelid = s.starelid AND a.attnum = s.staattnum
         JOIN pg_class c ON c.oid = s.starelid
         WHERE c.relnamespace = 'plimsoll'::regnamespace AND c.relkind = 'r'
             AND relname NOT IN ('table_record', 'column_record') ORDER BY 1",
    );
    let sampled: Vec<&str> = sampled.split_whitespace().collect();
    assert_eq!(
        sampled,
        ["database_id", "first_position", "last_position", "mapping", "role_name", "table_id"]
    );
    let mut attacker = street.attacker();
    for (what, from) in [
        ("column statistics", "pg_stats WHERE schemaname IN ('plimsoll', 'shop')"),
        ("extended statistics", "pg_stats_ext WHERE schemaname IN ('plimsoll', 'shop')"),
        ("expressions' statistics", "pg_stats_ext_exprs WHERE schemaname IN ('plimsoll', 'shop')"),
        ("sequences", "pg_sequences WHERE schemaname IN ('plimsoll', 'shop') AND last_value IS NOT NULL"),
    ] {
        assert_eq!(text_of(&mut attacker, &format!("SELECT * FROM {from}")), "", "{what}");
    }
    let last_value = "SELECT pg_sequence_last_value('plimsoll.run_number')";
    assert!(street.shop.value::<Option<i64>>(last_value).is_some(), "there is something to tell");
    // From Postgres 18 on it answers NULL who may not know.
    match attacker.query_one(last_value, &[]) {
        Ok(told) => assert_eq!(told.get::<_, Option<i64>>(0), None),
        Err(denied) => assert_eq!(denied.code().map(|code| code.code()), Some("42501"), "{denied}"),
    }
    for query in [
        "SELECT * FROM plimsoll.run_number",
        "SELECT nextval('plimsoll.failed_logins')",
        "SELECT lastval()",
        "SELECT * FROM pg_statistic",
        "SELECT * FROM plimsoll.database_record",
        "SELECT FROM shop.customer",
        "EXPLAIN SELECT FROM plimsoll.database_record",
    ] {
        let denied = attacker.batch_execute(query).expect_err(query);
        let code = denied.code().expect("an SQLSTATE").code().to_owned();
        // No sequence was drawn from in this session.
        assert!(code == "42501" || (query.contains("lastval") && code == "55000"), "{query}: {denied}");
    }
}

#[test]
fn a_table_of_one_database_alone_is_shown_to_who_sees_that_database() {
    let mut street = Street::open();
    let owner = street.shop.server.create_owner();
    street
        .shop
        .superuser
        .batch_execute(&format!(
            "CREATE TABLE shop.alone (id int PRIMARY KEY, version bigint NOT NULL);
             ALTER TABLE shop.alone OWNER TO {owner};
             GRANT ALL ON SCHEMA shop TO {owner};
             SELECT plimsoll.manage_table('shop.alone', version_column => 'version', tenant_columns => '{{}}',
                 database_id => '{}')",
            street.others[0].id
        ))
        .expect("a table of one database");
    let tables = "SELECT string_agg(relation, ' ' ORDER BY relation) FROM plimsoll.tables";
    assert_eq!(text_of(&mut street.attacker(), tables).trim(), "shop.customer shop.invoice");
    let mut theirs = street.shop.agent(&street.others[0]);
    assert_eq!(text_of(&mut theirs, tables).trim(), "shop.alone shop.customer shop.invoice");
    let all = text_of(&mut street.shop.superuser, tables);
    assert_eq!(all.trim(), "shop.alone shop.customer shop.invoice");
}

/// The text of a refusal with everything that a client is shown.
fn refusal(client: &mut Client, sql: &str, hidden: &str) -> String {
    let error = client.simple_query(sql).expect_err(sql);
    let error = error.as_db_error().expect("the server's error");
    let text = format!(
        "{} {} {:?} {:?} {:?}",
        error.code().code(),
        error.message(),
        error.detail(),
        error.hint(),
        error.where_()
    );
    text.replace(hidden, "HIDDEN")
}

/// A call of a function with every argument that may be NULL as NULL and something harmless for the rest.
fn calls(client: &mut Client, first: &str) -> Vec<String> {
    let functions = client
        .query(
            "SELECT format('SELECT plimsoll.%I(%s)', p.proname, (
                 SELECT string_agg(CASE
                     WHEN a.name IN ('database_id', 'run_id') AND (a.place = 1 OR $1 <> 'database_id') THEN '%' || a.name || '%'
                     WHEN a.name = 'run_id' THEN 'NULL'
                     WHEN a.name = 'relation' THEN '''shop.customer'''
                     WHEN a.name = 'range' THEN '''[1,2)''::int8range'
                     WHEN a.name IN ('rejections', 'tables') THEN '''[]''::jsonb'
                     WHEN a.name = 'outcome' THEN '''finished'''
                     WHEN a.name = 'kind' THEN '''upload'''
                     WHEN a.type = 'bytea'::regtype AND a.name <> 'rows' THEN '''\\x00''::bytea'
                     WHEN a.name = 'rows' AND a.type = 'bytea'::regtype THEN '''\\x''::bytea'
                     WHEN a.name = 'rows' THEN '''[]''::jsonb'
                     WHEN a.type = 'bytea[]'::regtype THEN '''{}''::bytea[]'
                     WHEN a.type IN ('integer'::regtype, 'bigint'::regtype) THEN '1'
                     WHEN a.type = 'text'::regtype THEN '''text'''
                     ELSE 'NULL::' || a.type::text END, ', ' ORDER BY a.place)
                 FROM ROWS FROM (unnest(p.proargtypes::regtype[]), unnest(p.proargnames))
                     WITH ORDINALITY AS a (type, name, place) WHERE a.type IS NOT NULL))
             FROM pg_proc p
             WHERE p.pronamespace = 'plimsoll'::regnamespace AND $1 = ANY (p.proargnames[:p.pronargs])
                 AND has_function_privilege('plimsoll_agent', p.oid, 'EXECUTE')
             ORDER BY 1",
            &[&first],
        )
        .expect("functions");
    functions.iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_database_that_is_not_ones_own_reads_as_one_that_never_was_also_while_it_is_suspended() {
    let mut street = Street::open();
    let suspend = "SELECT plimsoll.suspend_database($1)";
    street.shop.superuser.execute(suspend, &[&street.others[1].id]).expect("a suspension");
    let mut attacker = street.attacker();
    let calls = calls(&mut attacker, "database_id");
    assert!(calls.len() > 20, "only {} functions take a database", calls.len());
    for call in calls {
        let ids = [Uuid::new_v4(), street.others[0].id, street.others[1].id].map(|id| id.to_string());
        let told = ids.map(|id| {
            let id: &str = &id;
            refusal(&mut attacker, &call.replace("%database_id%", &format!("'{id}'")), id)
        });
        assert!(told[0].contains("no database HIDDEN") || call.contains("login("), "{call}: {}", told[0]);
        assert_eq!(told[0], told[1], "{call}");
        assert_eq!(told[0], told[2], "{call}");
    }
    // A wrong proof for a suspended database is not told that it is suspended either.
    let told = [Uuid::new_v4(), street.others[0].id, street.others[1].id].map(|id| {
        let mut transaction = attacker.transaction().expect("a transaction");
        refused(log_in(&mut transaction, id, &street.own.token), "28000").replace(&id.to_string(), "HIDDEN")
    });
    assert!(told[0] == told[1] && told[0] == told[2], "{told:?}");
}

#[test]
fn a_run_that_is_not_ones_own_reads_as_one_that_never_was() {
    let mut street = Street::open();
    let suspend = "SELECT plimsoll.suspend_database($1)";
    street.shop.superuser.execute(suspend, &[&street.others[1].id]).expect("a suspension");
    let mut run = |outcome: &str, database: &Registered| -> i64 {
        let sql = "SELECT run_id FROM plimsoll.runs WHERE database_id = $1 AND outcome = $2";
        street.shop.superuser.query_one(sql, &[&database.id, &outcome]).expect("a run").get(0)
    };
    let runs = [
        9_000_000_000,
        run("running", &street.others[0]),
        run("finished", &street.others[0]),
        run("running", &street.others[1]),
        run("finished", &street.others[1]),
    ];
    let mut attacker = street.attacker();
    let calls = calls(&mut attacker, "run_id");
    assert!(calls.len() >= 9, "only {} functions take a run", calls.len());
    let before = text_of(&mut street.shop.superuser, "SELECT r FROM plimsoll.runs r ORDER BY run_id");
    for call in calls {
        let call = call.replace("%database_id%", &format!("'{}'", street.own.id));
        let told = runs.map(|run| {
            let call = call.replace("%run_id%", &run.to_string());
            refusal(&mut attacker, &call, &format!("run {run}"))
        });
        // What cannot be read is refused before anybody looks whose the run is.
        let unread = call.contains("'\\x'::bytea") && told[0].starts_with("22P03");
        assert!(unread || told[0].starts_with("55000 HIDDEN is over"), "{call}: {}", told[0]);
        assert!(told.iter().all(|text| *text == told[0]), "{call}: {told:?}");
    }
    let after = text_of(&mut street.shop.superuser, "SELECT r FROM plimsoll.runs r ORDER BY run_id");
    assert_eq!(before, after, "no run was changed by who may not");
}

/// Blocks of shared memory that a query of a view touched.
fn buffers(client: &mut Client, sql: &str) -> u64 {
    text_of(client, sql);
    let plan = text_of(client, &format!("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT YAML) {sql}"));
    let number = |name: &str| -> u64 {
        let rest = plan.split_once(name).unwrap_or_else(|| panic!("no {name}in {plan}")).1;
        rest.split_whitespace().next().and_then(|text| text.parse().ok()).expect("a number")
    };
    number("Shared Hit Blocks: ") + number("Shared Read Blocks: ")
}

#[test]
fn what_a_view_reads_for_one_tenant_does_not_grow_with_the_number_of_tenants() {
    let mut street = Street::open();
    let measure = |street: &Street| {
        let mut client = street.attacker();
        VIEWS.map(|view| buffers(&mut client, &format!("SELECT * FROM plimsoll.{view}")))
    };
    let few = measure(&street);
    street
        .shop
        .superuser
        .batch_execute(
            "DO $$ BEGIN FOR i IN 1..5000 LOOP EXECUTE 'CREATE ROLE tenant_' || i; END LOOP; END $$;
             INSERT INTO plimsoll.database_record
                 (database_id, client_id, database_name, fingerprint_key, registered_by)
             SELECT gen_random_uuid(), 'tenant_' || i, 'till', sha256(''), 'postgres'
             FROM generate_series(1, 10000) i;
             INSERT INTO plimsoll.token_record (database_id, stored_key)
             SELECT database_id, sha256('') FROM plimsoll.database_record WHERE client_id LIKE 'tenant\\_%';
             INSERT INTO plimsoll.grant_record (database_id, role_name, granted_by)
             SELECT database_id, client_id, 'postgres' FROM plimsoll.database_record WHERE client_id LIKE 'tenant\\_%';
             INSERT INTO plimsoll.run_record (run_id, database_id, agent_id, agent_version, started_at)
             SELECT 1000000 + row_number() OVER (), database_id, 'agent', '1', now()
             FROM plimsoll.database_record WHERE client_id LIKE 'tenant\\_%';
             INSERT INTO plimsoll.replica_record (database_id, table_id)
             SELECT d.database_id, t.table_id FROM plimsoll.database_record d, plimsoll.table_record t
             WHERE client_id LIKE 'tenant\\_%';
             INSERT INTO plimsoll.batch_record (run_id, database_id, table_id, kind, row_count, byte_count, duration_micros,
                 direction, side)
             SELECT 1, database_id, table_id, 'upload', 1, 1, 1, 'push', 'remote' FROM plimsoll.replica_record",
        )
        .expect("many tenants");
    street.shop.superuser.batch_execute("VACUUM ANALYZE").expect("statistics");
    let many = measure(&street);
    for (view, (few, many)) in VIEWS.iter().zip(few.into_iter().zip(many)) {
        // Indexes have grown by a level.
        assert!(many < few + 40, "{view}: {few} blocks with 4 databases, {many} with 10,004");
    }
}
