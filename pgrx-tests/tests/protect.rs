//! Row-level security that `protect_table` puts on managed tables: people and applications that read them directly
//! see the rows of their own databases.

mod shop;

use plimsoll_tests::{Login, Registered, compares_with_evaluated, gives_workers_values};
use postgres::{Client, GenericClient};
use serde_json::json;
use shop::{Shop, log_in, refused};

/// Two databases with customers and invoices, and a role that was granted the first one and may do all to both tables.
struct Site {
    shop: Shop,
    acme: Registered,
    zeta: Registered,
    reader: Login,
}

fn site() -> Site {
    let mut shop = Shop::open();
    let (acme, zeta) = (shop.register("acme", 3), shop.register("zeta", 5));
    let reader = shop.server.create_login(&["plimsoll_reader"]);
    shop.grant(&acme, &reader.role);
    allow(&mut shop, &reader.role);
    Site { shop, acme, zeta, reader }
}

/// Grants a role every privilege on rows of the shop's tables.
fn allow(shop: &mut Shop, role: &str) {
    let tables = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop";
    shop.superuser
        .batch_execute(&format!("GRANT USAGE ON SCHEMA shop TO {role}; GRANT {tables} TO {role}"))
        .expect("privileges");
}

fn protect(shop: &mut Shop, call: &str) {
    shop.superuser.batch_execute(&format!("SELECT plimsoll.protect_table({call})")).expect(call);
}

/// Whose rows of a table are seen, and how many.
fn seen(client: &mut impl GenericClient, table: &str) -> String {
    let sql = format!(
        "SELECT COALESCE(string_agg(client_id || ' ' || rows, ', ' ORDER BY client_id), '')
         FROM (SELECT client_id::text, count(*) AS rows FROM {table} GROUP BY 1) s"
    );
    client.query_one(&sql, &[]).unwrap_or_else(|error| panic!("{table}: {error:?}")).get(0)
}

#[test]
fn each_sees_the_rows_of_its_own_databases_and_nothing_else() {
    let Site { mut shop, acme, zeta, reader } = site();
    let (agent, admin, other) = (
        shop.server.create_agent(),
        shop.server.create_login(&["plimsoll_admin"]),
        shop.server.create_login(&[]),
    );
    for login in [&agent, &admin, &other] {
        allow(&mut shop, &login.role);
    }
    let [mut reader_of_acme, mut agent, mut admin, mut other] =
        [&reader, &agent, &admin, &other].map(|login| shop.connect(login));
    assert_eq!(seen(&mut reader_of_acme, "shop.customer"), "acme 3, zeta 5", "nothing protects the rows yet");
    protect(&mut shop, "'shop.customer'");
    for (client, expected) in
        [(&mut reader_of_acme, "acme 3"), (&mut agent, ""), (&mut admin, "acme 3, zeta 5"), (&mut other, "")]
    {
        assert_eq!(seen(client, "shop.customer"), expected);
    }
    assert_eq!(
        seen(&mut reader_of_acme, "shop.invoice"),
        "acme 3, zeta 5",
        "the other table is not protected"
    );
    // A statement that was prepared before goes by who is logged in when it runs.
    let prepared = agent.prepare("SELECT count(*) FROM shop.customer").expect("a statement");
    let mut transaction = agent.transaction().expect("a transaction");
    assert_eq!(transaction.query_one(&prepared, &[]).expect("a count").get::<_, i64>(0), 0);
    log_in(&mut transaction, zeta.id, &zeta.token).expect("a login");
    assert_eq!(transaction.query_one(&prepared, &[]).expect("a count").get::<_, i64>(0), 5);
    assert_eq!(seen(&mut transaction, "shop.customer"), "zeta 5");
    transaction.commit().expect("a commit");
    assert_eq!(agent.query_one(&prepared, &[]).expect("a count").get::<_, i64>(0), 0);
    // What is taken away is not seen any more, in a transaction that began before too.
    let mut old = reader_of_acme
        .build_transaction()
        .isolation_level(postgres::IsolationLevel::RepeatableRead)
        .start()
        .expect("a transaction");
    assert_eq!(seen(&mut old, "shop.customer"), "acme 3");
    shop.superuser.execute("SELECT plimsoll.suspend_database($1)", &[&acme.id]).expect("a suspension");
    assert_eq!(seen(&mut old, "shop.customer"), "");
    drop(old);
    assert_eq!(seen(&mut reader_of_acme, "shop.customer"), "");
}

#[test]
fn rows_are_written_where_that_was_asked_for_and_its_own_alone() {
    let Site { mut shop, acme, zeta, reader } = site();
    shop.superuser.batch_execute("DELETE FROM shop.invoice").expect("nothing refers to customers");
    let mut reader = shop.connect(&reader);
    let insert = "INSERT INTO shop.customer (client_id, database_id, id, version) VALUES ($1, $2, 9, 9)";
    let (acme_id, zeta_id) = (acme.id, zeta.id);
    let changed = |reader: &mut Client| {
        let update =
            reader.execute("UPDATE shop.customer SET name = 'x' WHERE id <= 2", &[]).expect("an update");
        let delete = reader.execute("DELETE FROM shop.customer WHERE id = 3", &[]).expect("a deletion");
        (update, delete)
    };
    protect(&mut shop, "'shop.customer'");
    refused(reader.execute(insert, &[&"acme", &acme_id]), "42501");
    assert_eq!(changed(&mut reader), (0, 0));
    protect(&mut shop, "'shop.customer', writable => true");
    refused(reader.execute(insert, &[&"zeta", &zeta_id]), "42501");
    refused(reader.execute(insert, &[&"zeta", &acme_id]), "42501");
    assert_eq!(reader.execute(insert, &[&"acme", &acme_id]).expect("its own row"), 1);
    let moved = reader.execute("UPDATE shop.customer SET client_id = 'zeta', database_id = $1", &[&zeta_id]);
    refused(moved, "42501");
    assert_eq!(changed(&mut reader), (2, 1));
    assert_eq!(seen(&mut shop.superuser, "shop.customer"), "acme 3, zeta 5");
    protect(&mut shop, "'shop.customer'");
    assert_eq!(changed(&mut reader), (0, 0), "and not any more");
}

#[test]
fn what_the_owner_permits_besides_opens_nothing_to_the_roles() {
    let Site { mut shop, reader, .. } = site();
    let other = shop.server.create_login(&[]);
    allow(&mut shop, &other.role);
    shop.superuser.batch_execute("CREATE POLICY open ON shop.customer USING (true)").expect("a policy");
    protect(&mut shop, "'shop.customer'");
    let [mut reader, mut other] = [&reader, &other].map(|login| shop.connect(login));
    assert_eq!(seen(&mut reader, "shop.customer"), "acme 3");
    assert_eq!(
        reader.execute("UPDATE shop.customer SET name = 'x'", &[]).expect("an update"),
        3,
        "its own alone"
    );
    assert_eq!(seen(&mut other, "shop.customer"), "acme 3, zeta 5", "whom the owner meant");
}

#[test]
fn partitions_are_protected_each() {
    let Site { mut shop, acme, zeta, reader } = site();
    let owner: String = shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    shop.superuser
        .batch_execute(&format!(
            "SET ROLE {owner};
             CREATE TABLE shop.sale (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL,
                 version bigint NOT NULL, PRIMARY KEY (client_id, database_id, id)) PARTITION BY RANGE (id);
             CREATE TABLE shop.low PARTITION OF shop.sale FOR VALUES FROM (0) TO (10);
             CREATE TABLE shop.high PARTITION OF shop.sale DEFAULT PARTITION BY HASH (client_id);
             CREATE TABLE shop.deep PARTITION OF shop.high FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             RESET ROLE;
             INSERT INTO shop.sale SELECT client_id, database_id, i, i FROM plimsoll.databases, generate_series(1, 15) i;
             SELECT plimsoll.manage_table('shop.sale', version_column => 'version')"
        ))
        .expect("a partitioned table");
    allow(&mut shop, &reader.role);
    protect(&mut shop, "'shop.sale'");
    let mut reader = shop.connect(&reader);
    for (table, expected) in
        [("shop.sale", "acme 15"), ("shop.low", "acme 9"), ("shop.high", "acme 6"), ("shop.deep", "acme 6")]
    {
        assert_eq!(seen(&mut reader, table), expected, "{table}");
    }
    // One that comes later is protected when it is asked for again.
    shop.superuser
        .batch_execute(&format!(
            "SET ROLE {owner}; CREATE TABLE shop.top PARTITION OF shop.sale FOR VALUES FROM (100) TO (200); RESET ROLE;
             INSERT INTO shop.sale SELECT client_id, database_id, 100, 100 FROM plimsoll.databases"
        ))
        .expect("a partition");
    shop.superuser.batch_execute("GRANT SELECT ON shop.top TO PUBLIC").expect("a grant");
    assert_eq!(seen(&mut reader, "shop.top"), "acme 1, zeta 1");
    protect(&mut shop, "'shop.sale'");
    assert_eq!(seen(&mut reader, "shop.top"), "acme 1");
    for till in [&acme, &zeta] {
        let mut agent = shop.agent(till);
        let sql = "SELECT inserted FROM plimsoll.upload($1, 'shop.sale', $2::jsonb)";
        let rows = json!([{"id": 50, "version": 50}, {"id": 5, "version": 55}]);
        assert_eq!(agent.query_one(sql, &[&till.id, &rows]).expect("an upload").get::<_, i64>(0), 1);
    }
    shop.superuser.batch_execute("SELECT plimsoll.unprotect_table('shop.sale')").expect("an end of it");
    let left = "SELECT count(*) FROM pg_class WHERE relrowsecurity OR EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid)";
    assert_eq!(shop.value::<i64>(left), 0);
}

#[test]
fn tenant_columns_of_every_type_are_compared_as_what_they_are() {
    let mut shop = Shop::open();
    let owner: String = shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    let uuid = "8d1b2f6e-6e6b-4a8e-9b1c-0123456789ab";
    let reader = shop.server.create_login(&["plimsoll_reader"]);
    let tills = ["9223372036854775807", uuid, "zeta", "1", "99999999999999999999"];
    let tills = tills.map(|client_id| shop.register(client_id, 0));
    for till in &tills[..3] {
        shop.grant(till, &reader.role);
    }
    for (client_type, database_type, clients) in [
        ("text", "uuid", &[0, 1, 2][..]),
        ("varchar(40)", "text", &[0, 1, 2]),
        ("bigint", "varchar", &[0]),
        ("int", "uuid", &[]),
        ("uuid", "uuid", &[1]),
        ("", "uuid", &[0, 1, 2]),
    ] {
        let (client, with_client) = match client_type {
            "" => (String::new(), ""),
            _ => (format!("client_id {client_type} NOT NULL,"), "client_id,"),
        };
        shop.superuser
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS shop.sale;
                 SET ROLE {owner};
                 CREATE TABLE shop.sale ({client} database_id {database_type} NOT NULL, id int NOT NULL,
                     version bigint NOT NULL, PRIMARY KEY ({with_client} database_id, id));
                 RESET ROLE;
                 SELECT plimsoll.manage_table('shop.sale', version_column => 'version',
                     tenant_columns => '{{{with_client}database_id}}')"
            ))
            .expect("a managed table");
        allow(&mut shop, &reader.role);
        protect(&mut shop, "'shop.sale'");
        for (place, till) in tills.iter().enumerate() {
            // Clients whose id the type cannot hold have no row.
            let client = match client_type {
                "" => "",
                "bigint" if ![0, 3].contains(&place) => continue,
                "int" if place != 3 => continue,
                "uuid" if place != 1 => continue,
                _ => &format!("d.client_id::{client_type},"),
            };
            shop.superuser
                .batch_execute(&format!(
                    "INSERT INTO shop.sale SELECT {client} d.database_id::{database_type}, 1, 1 FROM plimsoll.databases d
                     WHERE d.database_id = '{}'",
                    till.id
                ))
                .expect("a row");
        }
        let mut seen: Vec<String> = shop
            .connect(&reader)
            .query("SELECT database_id::text FROM shop.sale", &[])
            .expect("rows")
            .iter()
            .map(|row| row.get(0))
            .collect();
        let mut expected: Vec<String> = clients.iter().map(|place| tills[*place].id.to_string()).collect();
        seen.sort();
        expected.sort();
        assert_eq!(seen, expected, "{client_type} {database_type}");
    }
}

#[test]
fn a_table_of_one_database_is_seen_by_who_may_see_that_one() {
    let Site { mut shop, acme, zeta, reader } = site();
    let owner: String = shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    let mut reader = shop.connect(&reader);
    for (till, rows) in [(&acme, 1i64), (&zeta, 0)] {
        shop.superuser
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS shop.own;
                 CREATE TABLE shop.own (id int PRIMARY KEY, version bigint NOT NULL);
                 ALTER TABLE shop.own OWNER TO {owner};
                 SELECT plimsoll.manage_table('shop.own', version_column => 'version', tenant_columns => '{{}}',
                     database_id => '{}');
                 SELECT plimsoll.protect_table('shop.own'); GRANT SELECT ON shop.own TO PUBLIC;
                 INSERT INTO shop.own VALUES (1, 1)",
                till.id
            ))
            .expect("a managed table");
        let count = reader.query_one("SELECT count(*) FROM shop.own", &[]).expect("a count");
        assert_eq!(count.get::<_, i64>(0), rows);
    }
}

#[test]
fn agents_go_on_as_before_whether_or_not_security_is_forced() {
    let Site { mut shop, acme, .. } = site();
    for table in ["customer", "invoice"] {
        protect(&mut shop, &format!("'shop.{table}', writable => true"));
        shop.superuser
            .batch_execute(&format!("ALTER TABLE shop.{table} FORCE ROW LEVEL SECURITY"))
            .expect("forced");
    }
    let mut agent = shop.agent(&acme);
    let rows = json!([{"id": 1, "name": "changed", "version": 50}, {"id": 4, "version": 51}]);
    let sql = "SELECT inserted, updated FROM plimsoll.upload($1, 'shop.customer', $2::jsonb)";
    let row = agent.query_one(sql, &[&acme.id, &rows]).expect("an upload");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 1));
    // Foreign keys look at protected rows too.
    let rows = json!([{"id": 4, "customer_id": 4, "version": 4}, {"id": 5, "customer_id": 77, "version": 5}]);
    let sql =
        "SELECT inserted, jsonb_array_length(rejected) FROM plimsoll.upload($1, 'shop.invoice', $2::jsonb)";
    let row = agent.query_one(sql, &[&acme.id, &rows]).expect("an upload");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i32>(1)), (1, 1));
    let sql = "SELECT row_count FROM plimsoll.table_version($1, 'shop.customer')";
    assert_eq!(agent.query_one(sql, &[&acme.id]).expect("a version").get::<_, i64>(0), 4);
    let wrong = "SELECT count(*) FROM plimsoll.check_manifest($1, 'shop.customer')";
    shop.superuser
        .execute("SELECT plimsoll.rebuild_manifest($1, 'shop.customer')", &[&acme.id])
        .expect("a manifest");
    assert_eq!(agent.query_one(wrong, &[&acme.id]).expect("a check").get::<_, i64>(0), 0);
    let removed = "SELECT plimsoll.forget_database($1)";
    assert_eq!(shop.superuser.query_one(removed, &[&acme.id]).expect("it goes").get::<_, i64>(0), 8);
    assert_eq!(seen(&mut shop.superuser, "shop.customer"), "zeta 5");
}

#[test]
fn the_rows_of_one_tenant_among_many_are_found_by_index_and_the_tenant_once() {
    let Site { mut shop, reader, .. } = site();
    shop.superuser
        .batch_execute(
            "INSERT INTO shop.customer SELECT 'c' || d, gen_random_uuid(), i, 'customer', i
             FROM generate_series(1, 200) d, generate_series(1, 100) i;
             ANALYZE shop.customer",
        )
        .expect("many rows");
    protect(&mut shop, "'shop.customer'");
    let mut reader = shop.connect(&reader);
    let plan = |client: &mut Client, sql: &str| -> String {
        let lines = client
            .query(&format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {sql}"), &[])
            .expect("a plan");
        lines.iter().map(|line| line.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
    };
    for sql in
        ["SELECT * FROM shop.customer", "SELECT * FROM shop.customer WHERE version > 2 ORDER BY version"]
    {
        let plan = plan(&mut reader, sql);
        assert!(plan.contains("Index Cond: ") && compares_with_evaluated(&plan, "client_id"), "{plan}");
        assert!(!plan.contains("Seq Scan"), "{plan}");
        let tenant: Vec<&str> = plan.lines().filter(|line| line.contains("Scan on visible_")).collect();
        assert!(tenant.len() == 2 && tenant.iter().all(|line| line.contains("loops=1)")), "{plan}");
    }
    // Who may see all pays nothing.
    let admin = shop.server.create_login(&["plimsoll_admin"]);
    allow(&mut shop, &admin.role);
    let plan = plan(&mut shop.connect(&admin), "SELECT * FROM shop.customer");
    assert!(!plan.contains("visible_"), "{plan}");
}

#[test]
fn a_plan_with_workers_shows_the_same_rows() {
    let Site { mut shop, reader, .. } = site();
    protect(&mut shop, "'shop.customer'");
    let mut reader = shop.connect(&reader);
    reader
        .batch_execute(
            "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
             SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off",
        )
        .expect("settings");
    let sql = "SELECT count(*) FROM shop.customer WHERE id > 0";
    let plan = reader.query(&format!("EXPLAIN {sql}"), &[]).expect("a plan");
    let plan: Vec<String> = plan.iter().map(|line| line.get(0)).collect();
    assert!(gives_workers_values(&plan), "{plan:?}");
    assert_eq!(reader.query_one(sql, &[]).expect("rows").get::<_, i64>(0), 3);
}

#[test]
fn what_was_so_before_is_so_again_afterwards() {
    let Site { mut shop, reader, .. } = site();
    let mut reader = shop.connect(&reader);
    let unprotect = "SELECT plimsoll.unprotect_table('shop.customer')";
    protect(&mut shop, "'shop.customer'");
    protect(&mut shop, "'shop.customer'");
    shop.superuser.batch_execute(unprotect).expect("an end of it");
    assert_eq!(seen(&mut reader, "shop.customer"), "acme 3, zeta 5");
    // Where the owner had switched row-level security on, it stays on.
    shop.superuser.batch_execute("ALTER TABLE shop.customer ENABLE ROW LEVEL SECURITY").expect("on");
    protect(&mut shop, "'shop.customer'");
    protect(&mut shop, "'shop.customer', true");
    assert_eq!(seen(&mut reader, "shop.customer"), "acme 3");
    shop.superuser.batch_execute(unprotect).expect("an end of it");
    assert_eq!(seen(&mut reader, "shop.customer"), "");
    // The extension takes its policies along, and opens nothing.
    protect(&mut shop, "'shop.customer'");
    protect(&mut shop, "'shop.invoice'");
    shop.superuser.batch_execute("DROP EXTENSION plimsoll").expect("it goes");
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM pg_policy"), 0);
    assert_eq!(seen(&mut reader, "shop.invoice"), "");
    assert_eq!(seen(&mut shop.superuser, "shop.invoice"), "acme 3, zeta 5");
}

#[test]
fn only_an_admin_who_owns_a_managed_table_protects_it() {
    let Site { mut shop, reader, .. } = site();
    let owner: String = shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    let admin = shop.server.create_login(&["plimsoll_admin"]);
    let mut client = shop.connect(&admin);
    shop.superuser
        .batch_execute(&format!(
            "GRANT USAGE ON SCHEMA shop TO {}; CREATE TABLE shop.other (id int)",
            admin.role
        ))
        .expect("privileges");
    for call in ["protect_table('shop.customer')", "unprotect_table('shop.customer')"] {
        let call = format!("SELECT plimsoll.{call}");
        let message = refused(client.batch_execute(&call), "42501");
        assert!(message.contains("not yours"), "{message}");
        refused(shop.connect(&reader).batch_execute(&call), "42501");
    }
    shop.superuser.batch_execute(&format!("GRANT {owner} TO {}", admin.role)).expect("a membership");
    client.batch_execute("SELECT plimsoll.protect_table('shop.customer')").expect("its own table");
    refused(shop.superuser.batch_execute("SELECT plimsoll.protect_table('shop.other')"), "42P01");
    let message = refused(shop.superuser.batch_execute("SELECT plimsoll.protect_table(NULL)"), "22004");
    assert!(message.contains("relation"), "{message}");
    // A partition of somebody else is nobody's to protect but theirs.
    let other = shop.server.create_owner();
    shop.superuser
        .batch_execute(&format!(
            "CREATE TABLE shop.child () INHERITS (shop.customer); ALTER TABLE shop.child OWNER TO {other}"
        ))
        .expect("a child");
    let message = refused(client.batch_execute("SELECT plimsoll.protect_table('shop.customer')"), "42501");
    assert!(message.contains("shop.child"), "{message}");
}
