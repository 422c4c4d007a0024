//! Who may call and read what; what survives a dump, and what the extension leaves when it goes.

mod shop;

use shop::{Shop, begin, end, log_in, record, refused};

/// Functions of the extension by who may call them besides its owner.
const EVERY_GROUP: &str = "batch_history fingerprint login login_challenge manifest range_fingerprint \
    range_manifest rejected_keys table_schema table_version table_versions version visible_clients visible_databases";
const ADMINS_AND_AGENTS: &str = "begin_run change_mark check_manifest clear_rejected clear_rejected delete_all delete_range \
    delete_rows delete_rows download end_run fold_manifest forget_side packed_batch packed_fingerprints packed_items \
    packed_keys packed_lookup packed_manifest packed_ranges packed_rows packed_sketch packed_summaries packed_windows \
    rebuild_manifest record_batch reject_rows release_hold renew_lease resolve_conflict resolve_conflict sketch tail_start \
    two_way_apply two_way_base two_way_begin two_way_close two_way_fetch two_way_settle upload upload";
const ADMINS: &str = "adopt_database end_old_tokens failed_login_count forget_database grant_database \
    keep_manifest manage_table protect_table register_database resume_database \
    revoke_database rotate_token set_directions set_option stamp_versions suspend_database unmanage_table unmanage_table \
    unprotect_table unstamp_versions";
/// What Postgres calls for an aggregate, with the rights of its owner; triggers, which nobody may make one of their
/// own of; and what statements of the extension call.
const NOBODY: &str = "acts_stay fingerprint_add fingerprint_combine fingerprint_sum held_secret kept_rewrite \
    kept_subscription kept_trigger role_oid stamp_trigger";

#[test]
fn each_group_may_call_what_it_is_for_and_nobody_else_anything() {
    let mut shop = Shop::open();
    let stranger = shop.server.create_login(&[]);
    let mut callable = |roles: &[&str]| -> String {
        let mut query = "SELECT COALESCE(string_agg(proname, ' ' ORDER BY proname COLLATE \"C\"), '')
                         FROM pg_proc p WHERE pronamespace = 'plimsoll'::regnamespace"
            .to_owned();
        for role in ["plimsoll_admin", "plimsoll_agent", "plimsoll_reader", &stranger.role] {
            let not = if roles.contains(&role) { "" } else { "NOT" };
            query += &format!(" AND {not} has_function_privilege('{role}', p.oid, 'EXECUTE')");
        }
        shop.value(&query)
    };
    assert_eq!(callable(&["plimsoll_admin", "plimsoll_agent", "plimsoll_reader"]), EVERY_GROUP);
    assert_eq!(callable(&["plimsoll_admin", "plimsoll_agent"]), ADMINS_AND_AGENTS);
    assert_eq!(callable(&["plimsoll_admin"]), ADMINS);
    assert_eq!(callable(&[]), NOBODY);
}

#[test]
fn everybody_may_call_what_indexes_are_made_of_and_make_nothing_beside_it() {
    let mut shop = Shop::open();
    let stranger = shop.server.create_login(&[]).role;
    let there: String = shop.value(
        "SELECT string_agg(concat(proname, ' ', provolatile, proparallel, prosecdef), ', ' ORDER BY proname)
         FROM pg_proc WHERE pronamespace = 'plimsoll_open'::regnamespace",
    );
    assert_eq!(there, "hash_position isf, version_position isf");
    let more: i64 = shop.value(
        "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'plimsoll_open'::regnamespace)
              + (SELECT count(*) FROM pg_type WHERE typnamespace = 'plimsoll_open'::regnamespace)",
    );
    assert_eq!(more, 0, "nothing else is in it");
    for (what, may) in [("USAGE", true), ("CREATE", false)] {
        let sql = format!("SELECT has_schema_privilege('{stranger}', 'plimsoll_open', '{what}')");
        assert_eq!(shop.value::<bool>(&sql), may, "{what}");
    }
}

#[test]
fn nobody_reads_the_tables_and_the_groups_read_the_views() {
    let mut shop = Shop::open();
    let stranger = shop.server.create_login(&[]).role;
    let readable = |role: &str| {
        format!(
            "SELECT COALESCE(string_agg(relname, ' ' ORDER BY relname), '') FROM pg_class
             WHERE relnamespace = 'plimsoll'::regnamespace AND relkind IN ('r', 'v', 'S', 'm')
                 AND (CASE WHEN relkind = 'S' THEN has_sequence_privilege('{role}', oid, 'USAGE,SELECT,UPDATE')
                     ELSE has_any_column_privilege('{role}', oid, 'SELECT,INSERT,UPDATE,REFERENCES')
                          OR has_table_privilege('{role}', oid, 'DELETE,TRUNCATE,TRIGGER') END)"
        )
    };
    for (group, more) in [("plimsoll_admin", "acts "), ("plimsoll_agent", ""), ("plimsoll_reader", "")] {
        assert_eq!(
            shop.value::<String>(&readable(group)),
            format!("{more}batches blocks conflicts databases rejected_rows replicas runs tables"),
            "{group}"
        );
        let managed: bool = shop.value(&format!(
            "SELECT has_any_column_privilege('{group}', 'shop.customer', 'SELECT,INSERT,UPDATE,REFERENCES')
                 OR has_schema_privilege('{group}', 'shop', 'USAGE')"
        ));
        assert!(!managed, "{group} has privileges on managed tables");
        assert!(
            !shop.value::<bool>(&format!("SELECT has_schema_privilege('{group}', 'plimsoll', 'CREATE')"))
        );
    }
    assert_eq!(shop.value::<String>(&readable(&stranger)), "");
    assert!(!shop.value::<bool>(&format!("SELECT has_schema_privilege('{stranger}', 'plimsoll', 'USAGE')")));
    let writable: i64 = shop.value(
        "SELECT count(*) FROM pg_class, unnest(ARRAY['plimsoll_admin', 'plimsoll_agent', 'plimsoll_reader']) r
         WHERE relnamespace = 'plimsoll'::regnamespace AND relkind = 'v'
             AND has_table_privilege(r, oid, 'INSERT,UPDATE,DELETE,TRUNCATE')",
    );
    assert_eq!(writable, 0);
}

#[test]
fn every_function_pins_its_search_path_and_every_object_says_what_it_is() {
    let mut shop = Shop::open();
    // A setting would make the functions of the aggregate, which run once a row and run no SQL, and the triggers,
    // which name everything in full, cost many times what they do; an aggregate itself cannot have one.
    let unpinned: String = shop.value(
        "SELECT COALESCE(string_agg(proname, ' '), '') FROM pg_proc
         WHERE pronamespace = 'plimsoll'::regnamespace AND proname NOT IN
                 ('version', 'fingerprint', 'fingerprint_add', 'fingerprint_combine', 'fingerprint_sum', 'kept_trigger', 'stamp_trigger')
             AND (prosecdef OR proconfig IS DISTINCT FROM ARRAY['search_path=pg_catalog, pg_temp'])",
    );
    assert_eq!(unpinned, "");
    let open_views: String = shop.value(
        "SELECT COALESCE(string_agg(relname, ' '), '') FROM pg_class
         WHERE relnamespace = 'plimsoll'::regnamespace AND relkind = 'v'
             AND reloptions IS DISTINCT FROM ARRAY['security_barrier=true']",
    );
    assert_eq!(open_views, "");
    let silent: String = shop.value(
        "SELECT COALESCE(string_agg(name, ' '), '') FROM (
             SELECT proname::text, obj_description(oid, 'pg_proc') FROM pg_proc
             WHERE pronamespace = 'plimsoll'::regnamespace
             UNION ALL
             SELECT relname, obj_description(oid, 'pg_class') FROM pg_class
             WHERE relnamespace = 'plimsoll'::regnamespace AND relkind = 'v') AS o (name, comment)
         WHERE comment IS NULL",
    );
    assert_eq!(silent, "");
}

#[test]
fn nothing_runs_within_an_operation_that_somebody_else_restricted() {
    let mut shop = Shop::open();
    shop.register("acme", 1);
    let hostile = shop.server.create_agent();
    shop.superuser
        .batch_execute(&format!(
            "GRANT CREATE ON SCHEMA public TO {0};
             SET ROLE {0};
             CREATE MATERIALIZED VIEW public.trap AS SELECT * FROM plimsoll.databases WITH NO DATA;
             CREATE MATERIALIZED VIEW public.challenge AS SELECT plimsoll.login_challenge() WITH NO DATA;
             RESET ROLE",
            hostile.role
        ))
        .expect("a trap");
    for view in ["trap", "challenge"] {
        let outcome = shop.superuser.batch_execute(&format!("REFRESH MATERIALIZED VIEW public.{view}"));
        let message = refused(outcome, "42501");
        assert!(message.contains("security-restricted"), "{message}");
    }
}

/// Everything the extension keeps, as text; but manifests, which restored rows are scanned for, and where columns stand in
/// a table that is another one once it is restored.
fn kept(client: &mut postgres::Client) -> Vec<String> {
    let tables = client
        .query(
            "SELECT oid::regclass::text FROM pg_class
             WHERE relnamespace = 'plimsoll'::regnamespace AND relkind IN ('r', 'S')
                 AND relname NOT LIKE 'kept\\_%' AND relname <> 'column_place' ORDER BY 1",
            &[],
        )
        .expect("tables");
    let mut kept = Vec::new();
    for table in tables {
        let table: String = table.get(0);
        // The oid of a table is a cache; a sequence's log count says how much is left of what was reserved.
        let rows = client
            .query(
                &format!("SELECT (to_jsonb(t) - 'relation_oid' - 'log_cnt')::text FROM (SELECT * FROM {table}) t ORDER BY 1"),
                &[],
            )
            .expect("rows");
        let unused = [
            "guard_record",
            "upload_record",
            "two_way_record",
            "two_way_run",
            "two_way_batch",
            "conflict_record",
        ];
        let is_empty = unused.iter().any(|unused| table == format!("plimsoll.{unused}"));
        assert!(!rows.is_empty() || is_empty, "{table} has something to keep");
        kept.extend(rows.iter().map(|row| format!("{table} {}", row.get::<_, &str>(0))));
    }
    kept
}

#[test]
fn a_dump_keeps_every_registration_setting_and_history_row() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 3);
    let login = shop.server.create_agent();
    shop.grant(&till, &login.role);
    shop.set_option(&till, "lease_seconds", Some("120"));
    let mut agent = shop.connect(&login);
    let run = begin(&mut agent, &till, "agent").expect("a run");
    record(&mut agent, &run, "shop.customer").expect("a batch");
    end(&mut agent, &run, "finished", None).expect("an end");
    let side = uuid::Uuid::new_v4();
    let run = shop::begin_towards(&mut agent, &till, serde_json::json!({"shop.invoice": "pull"}), Some(side))
        .expect("a run that knows its local database");
    record(&mut agent, &run, "shop.customer").expect("a batch");
    agent
        .execute(
            "SELECT plimsoll.reject_rows($1, 'shop.customer', $2)",
            &[&run.id, &serde_json::json!([shop::rejection(1, false)])],
        )
        .expect("a rejected row");
    shop.superuser
        .batch_execute(
            "ALTER TABLE shop.customer RENAME TO renamed; DROP TABLE shop.invoice;
             CREATE TABLE shop.extra (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL,
                 version bigint NOT NULL, PRIMARY KEY (client_id, database_id, id));
             ALTER TABLE shop.extra OWNER TO CURRENT_USER;
             SELECT plimsoll.manage_table('shop.extra', version_column => 'version', superuser_allowed => true)",
        )
        .expect("tables that changed since they were handed over, and one that did not");
    shop.superuser.execute("INSERT INTO shop.extra VALUES ('acme', $1, 1, 7)", &[&till.id]).expect("a row");
    let restored = shop.server.create_empty_database();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let dump = shop.server.command("pg_dump").args(["-Fp", &shop.database]).output().expect("pg_dump");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    std::fs::write(file.path(), &dump.stdout).expect("a dump");
    let psql = shop
        .server
        .command("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &restored, "-f"])
        .arg("-")
        .stdin(std::fs::File::open(file.path()).expect("the dump"))
        .output()
        .expect("psql");
    assert!(psql.status.success(), "{}", String::from_utf8_lossy(&psql.stderr));
    let mut client = shop.server.superuser(&restored);
    assert_eq!(kept(&mut client), kept(&mut shop.superuser));
    let mut agent = shop.server.connect(&login, &restored);
    agent
        .execute("SELECT plimsoll.record_batch($1, 'shop.extra', 'upload', 1, 1, 1)", &[&run.id])
        .expect("the run goes on where it was");
    let count: i64 = agent
        .query_one("SELECT row_count FROM plimsoll.table_version($1, 'shop.extra')", &[&till.id])
        .expect("a table that is as it was")
        .get(0);
    assert_eq!(count, 1);
    let mut transaction = agent.transaction().expect("a transaction");
    log_in(&mut transaction, till.id, &till.token).expect("the token still logs in");
}

#[test]
fn the_extension_leaves_managed_tables_as_they_are() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 3);
    let mut agent = shop.agent(&till);
    begin(&mut agent, &till, "agent").expect("a run");
    let rows = "SELECT string_agg(c::text || i::text, ' ' ORDER BY c.id)
                FROM shop.customer c JOIN shop.invoice i USING (client_id, database_id, id)";
    let before: String = shop.value(rows);
    shop.superuser.batch_execute("DROP EXTENSION plimsoll").expect("it goes");
    assert_eq!(shop.value::<String>(rows), before);
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM pg_namespace WHERE nspname ~ '^plimsoll'"), 0);
    shop.superuser
        .execute("INSERT INTO shop.customer VALUES ('acme', $1, 99, 'new', 99)", &[&till.id])
        .expect("the table works as before");
}
