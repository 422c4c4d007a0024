//! Group roles and grants: what CREATE EXTENSION takes over and what it refuses, what DROP EXTENSION leaves, what
//! becomes of grants when roles change, and all of it on another server.

mod shop;

use plimsoll_tests::{Login, Registered, TestCluster, shared};
use shop::{Shop, log_in, refused};

const CREATE: &str = "CREATE EXTENSION plimsoll";
const DROP_ROLES: &str = "DROP ROLE plimsoll_admin, plimsoll_agent, plimsoll_reader";

fn forged(role: &str) -> String {
    format!("CREATE ROLE {role}; COMMENT ON ROLE {role} IS 'Plimsoll: manages tables and databases'")
}

#[test]
fn group_roles_that_somebody_prepared_are_refused_unless_told_so() {
    let server = TestCluster::start_bare(&[]);
    let mut superuser = server.superuser("postgres");
    let forged = forged("plimsoll_admin");
    let prepared = [
        ("CREATE ROLE plimsoll_admin LOGIN", "plimsoll_admin", "may log in"),
        ("CREATE ROLE plimsoll_agent PASSWORD 'known'", "plimsoll_agent", "a password"),
        ("CREATE ROLE plimsoll_agent CREATEROLE", "plimsoll_agent", "CREATEROLE"),
        ("CREATE ROLE plimsoll_reader BYPASSRLS", "plimsoll_reader", "attributes"),
        ("CREATE ROLE plimsoll_admin ROLE mallory", "plimsoll_admin", "members mallory"),
        (
            "CREATE ROLE plimsoll_reader IN ROLE pg_read_server_files",
            "plimsoll_reader",
            "pg_read_server_files",
        ),
        (
            "CREATE ROLE plimsoll_agent; ALTER ROLE plimsoll_agent SET work_mem = '1GB'",
            "plimsoll_agent",
            "settings",
        ),
        (
            "CREATE ROLE plimsoll_agent; CREATE SCHEMA lair AUTHORIZATION plimsoll_agent",
            "plimsoll_agent",
            "owns",
        ),
        // Whoever may make roles can write our comment too.
        (
            &format!("SET ROLE mallory; {forged}; GRANT plimsoll_admin TO eve; RESET ROLE"),
            "plimsoll_admin",
            "eve",
        ),
        (&format!("{forged}; GRANT plimsoll_admin TO eve WITH ADMIN OPTION"), "plimsoll_admin", "eve"),
    ];
    superuser.batch_execute("CREATE ROLE mallory CREATEROLE; CREATE ROLE eve").expect("roles");
    for (preparation, role, why) in prepared {
        superuser.batch_execute(preparation).expect(preparation);
        let message = refused(superuser.batch_execute(CREATE), "42710");
        assert!(
            message.contains(&format!("\"{role}\"")) && message.contains(why),
            "{preparation}: {message}"
        );
        assert!(message.contains("plimsoll.adopt_roles"), "{message}");
        superuser.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).expect("it goes");
    }
    // Told so, it takes a role as it is, and knows it from then on.
    superuser.batch_execute("CREATE ROLE plimsoll_agent ROLE eve").expect("a role");
    superuser
        .batch_execute(&format!("SET plimsoll.adopt_roles = on; {CREATE}; RESET plimsoll.adopt_roles"))
        .expect("it is told");
    let another = server.create_empty_database();
    server.superuser(&another).batch_execute(CREATE).expect("and is not asked again");
}

#[test]
fn group_roles_of_another_database_of_the_server_are_used() {
    let server = TestCluster::start_bare(&[]);
    let (first, second) = (server.create_empty_database(), server.create_empty_database());
    // A plain role that an administrator made beforehand will do.
    server.superuser("postgres").batch_execute("CREATE ROLE plimsoll_reader").expect("a role");
    server.superuser(&first).batch_execute(CREATE).expect("the first");
    let admin = server.create_login(&["plimsoll_admin"]);
    let agent = server.create_agent();
    server.superuser(&second).batch_execute(CREATE).expect("the second, with members there");
    for database in [&first, &second] {
        let register = "SELECT FROM plimsoll.register_database('acme', 'till')";
        server.connect(&admin, database).execute(register, &[]).expect("an admin of both");
        let mut agent = server.connect(&agent, database);
        let seen = agent.query("SELECT FROM plimsoll.databases", &[]).expect("the view");
        assert_eq!(seen.len(), 0);
    }
    // What was made later is seen all the same.
    server.superuser("postgres").batch_execute("ALTER ROLE plimsoll_admin CREATEDB").expect("a change");
    let third = server.create_empty_database();
    let message = refused(server.superuser(&third).batch_execute(CREATE), "42710");
    assert!(message.contains("attributes"), "{message}");
}

#[test]
fn only_a_superuser_creates_the_extension() {
    let database = shared().create_empty_database();
    let login = shared().create_login(&[]);
    let grant = format!("GRANT CREATE ON DATABASE {database} TO {}", login.role);
    shared().superuser(&database).batch_execute(&grant).expect("a grant");
    let message = refused(shared().connect(&login, &database).batch_execute(CREATE), "42501");
    assert!(message.contains("permission denied to create extension \"plimsoll\""), "{message}");
    assert!(message.contains("Must be superuser"), "{message}");
}

#[test]
fn the_extension_goes_and_comes_back_and_its_roles_go_with_the_last_of_it() {
    // Roles belong to the server, so the test has its own.
    let server: &'static TestCluster = Box::leak(Box::new(TestCluster::start()));
    let mut shop = Shop::open_on(server);
    let till = shop.register("acme", 3);
    shop.superuser.batch_execute("SELECT plimsoll.protect_table('shop.customer')").expect("policies");
    let ours = "SELECT count(*) FROM (SELECT tgname FROM pg_trigger WHERE tgname LIKE 'plimsoll%'
                UNION ALL SELECT relname FROM pg_class WHERE relname LIKE 'plimsoll\\_%'
                UNION ALL SELECT polname FROM pg_policy WHERE polname LIKE 'plimsoll%'
                UNION ALL SELECT evtname FROM pg_event_trigger WHERE evtname LIKE 'plimsoll%') o";
    assert!(shop.value::<i64>(ours) > 8);
    shop.superuser.batch_execute("DROP EXTENSION plimsoll").expect("it goes");
    assert_eq!(shop.value::<i64>(ours), 0, "nothing of it stays in the database");
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.invoice"), 3);
    // Another database of the server still has it.
    let message = refused(shop.superuser.batch_execute(DROP_ROLES), "2BP01");
    assert!(message.contains("plimsoll_template"), "{message}");
    shop.superuser.batch_execute(CREATE).expect("it comes back");
    shop.superuser
        .batch_execute(
            "SELECT plimsoll.manage_table('shop.customer', version_column => 'version');
             SELECT plimsoll.manage_table('shop.invoice', version_column => 'version')",
        )
        .expect("the tables are managed again");
    let adopt = "SELECT plimsoll.adopt_database($1, 'acme', 'till', $2)";
    shop.superuser.execute(adopt, &[&till.id, &[1u8; 32].as_slice()]).expect("it is known again");
    let rows: i64 = shop
        .superuser
        .query_one("SELECT row_count FROM plimsoll.table_version($1, 'shop.customer')", &[&till.id])
        .expect("its rows")
        .get(0);
    assert_eq!(rows, 3);
    shop.superuser.batch_execute("DROP EXTENSION plimsoll").expect("it goes");
    server.superuser("plimsoll_template").batch_execute("DROP EXTENSION plimsoll").expect("the last goes");
    shop.superuser.batch_execute(DROP_ROLES).expect("nothing needs them any more");
}

fn sees(server: &TestCluster, login: &Login, database: &str, till: &Registered) -> bool {
    let mut client = server.connect(login, database);
    let seen = client.query("SELECT FROM plimsoll.databases", &[]).expect("the view").len();
    match client.query("SELECT FROM plimsoll.table_versions($1)", &[&till.id]) {
        Ok(_) => assert_eq!(seen, 1),
        outcome => {
            refused(outcome, "42501");
            assert_eq!(seen, 0, "the view says the same");
        }
    }
    seen == 1
}

#[test]
fn a_grant_is_void_for_whoever_gets_the_name_of_its_role() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let (granted, other) = (shop.server.create_agent(), shop.server.create_agent());
    shop.grant(&till, &granted.role);
    assert!(sees(shop.server, &granted, &shop.database, &till));
    let shown = "SELECT granted_to::text FROM plimsoll.databases";
    assert_eq!(shop.value::<String>(shown), format!("{{{}}}", granted.role));
    // The name passes to another role. (A password that is stored with the name, as MD5, would go; SCRAM's stays.)
    let aside = format!("{}_aside", granted.role);
    let swap = |from: &str, to: &str| format!("ALTER ROLE {from} RENAME TO {to};");
    let swapped = swap(&granted.role, &aside) + &swap(&other.role, &granted.role);
    shop.superuser.batch_execute(&swapped).expect("renamed");
    let heir = Login { role: granted.role.clone(), password: other.password.clone() };
    let renamed = Login { role: aside.clone(), password: granted.password.clone() };
    assert!(!sees(shop.server, &heir, &shop.database, &till), "another role of the name");
    assert!(!sees(shop.server, &renamed, &shop.database, &till), "the role under another name");
    assert_eq!(shop.value::<String>(shown), "{}");
    // Granted again, each by its name now.
    shop.grant(&till, &aside);
    assert!(sees(shop.server, &renamed, &shop.database, &till));
    assert!(!sees(shop.server, &heir, &shop.database, &till));
    shop.grant(&till, &granted.role);
    assert!(sees(shop.server, &heir, &shop.database, &till));
    // Dropped, and made anew by somebody else.
    shop.superuser
        .batch_execute(&format!(
            "DROP ROLE {0}; CREATE ROLE {0} LOGIN PASSWORD 'new' IN ROLE plimsoll_agent",
            granted.role
        ))
        .expect("a new role");
    let anew = Login { role: granted.role.clone(), password: "new".to_owned() };
    assert!(!sees(shop.server, &anew, &shop.database, &till));
    shop.grant(&till, &granted.role);
    assert!(sees(shop.server, &anew, &shop.database, &till));
}

#[test]
fn a_membership_that_is_not_inherited_gives_nothing_before_the_role_is_set() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 1);
    let group = shop.server.create_owner();
    shop.superuser.batch_execute(&format!("GRANT plimsoll_agent TO {group}")).expect("a group of agents");
    shop.grant(&till, &group);
    let (inherits, sets) =
        (shop.server.create_login(&["plimsoll_agent"]), shop.server.create_login(&["plimsoll_agent"]));
    // Up to Postgres 15 a member inherits all of its roles or none, later each membership says.
    let memberships = match shop.server.major() {
        ..16 => {
            format!("GRANT {group} TO {}, {}; ALTER ROLE {} NOINHERIT", inherits.role, sets.role, sets.role)
        }
        _ => format!(
            "GRANT {group} TO {} WITH INHERIT TRUE, SET FALSE; GRANT {group} TO {} WITH INHERIT FALSE, SET TRUE",
            inherits.role, sets.role
        ),
    };
    shop.superuser.batch_execute(&memberships).expect("members");
    assert!(sees(shop.server, &inherits, &shop.database, &till));
    let mut client = shop.connect(&sets);
    let look = "SELECT count(*) FROM plimsoll.table_versions($1)";
    refused(client.query_one(look, &[&till.id]), "42501");
    client.batch_execute(&format!("SET ROLE {group}")).expect("it may");
    assert_eq!(client.query_one(look, &[&till.id]).expect("as the group").get::<_, i64>(0), 2);
    client.batch_execute("RESET ROLE").expect("itself again");
    refused(client.query_one(look, &[&till.id]), "42501");
    if shop.server.major() >= 16 {
        let mut client = shop.connect(&inherits);
        refused(client.batch_execute(&format!("SET ROLE {group}")), "42501");
    }
    // An admin by such a membership is none before the role is set.
    let admin = shop.server.create_login(&[]);
    let membership = match shop.server.major() {
        ..16 => format!("GRANT plimsoll_admin TO {0}; ALTER ROLE {0} NOINHERIT", admin.role),
        _ => format!("GRANT plimsoll_admin TO {} WITH INHERIT FALSE", admin.role),
    };
    shop.superuser.batch_execute(&membership).expect("a member");
    let mut client = shop.connect(&admin);
    let register = "SELECT FROM plimsoll.register_database('zeta', 'till')";
    refused(client.query(register, &[]), "42501");
    client.batch_execute("SET ROLE plimsoll_admin").expect("it may");
    client.query(register, &[]).expect("a registration");
}

#[test]
fn a_dump_restores_everything_on_another_server() {
    let mut shop = Shop::open();
    let till = shop.register("acme", 50);
    let (granted, renamed, missing) =
        (shop.server.create_agent(), shop.server.create_agent(), shop.server.create_agent());
    for login in [&granted, &renamed, &missing] {
        shop.grant(&till, &login.role);
    }
    let owner: String = shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    let newest: String =
        shop.superuser.query_one("SELECT plimsoll.rotate_token($1)", &[&till.id]).expect("a token").get(0);
    shop.superuser
        .execute("SELECT plimsoll.rebuild_manifest($1, 'shop.customer')", &[&till.id])
        .expect("a manifest");
    let version = "SELECT row_count, fingerprint FROM plimsoll.range_fingerprint($1, 'shop.customer', '(,)')";
    let before = shop.superuser.query_one(version, &[&till.id]).expect("a version");
    let acts: i64 = shop.value("SELECT count(*) FROM plimsoll.acts");
    shop.superuser
        .batch_execute(&format!("ALTER ROLE {0} RENAME TO {0}_aside", renamed.role))
        .expect("renamed");
    let dump = shop.server.command("pg_dump").args(["-Fp", &shop.database]).output().expect("pg_dump");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));

    let other = TestCluster::start_bare(&[]);
    let mut superuser = other.superuser("postgres");
    // Others have had the oids here that the roles have there; the renamed one's name is somebody else's here.
    superuser
        .batch_execute("DO $$ BEGIN FOR i IN 1..50 LOOP EXECUTE 'CREATE ROLE other_' || i; END LOOP; END $$;")
        .expect("roles");
    for role in [&granted, &renamed] {
        superuser
            .batch_execute(&format!("CREATE ROLE {} LOGIN PASSWORD '{}'", role.role, role.password))
            .expect("a role");
    }
    superuser.batch_execute(&format!("CREATE ROLE {owner}")).expect("a role");
    let database = other.create_empty_database();
    let mut psql = other.command("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &database, "-f", "-"]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &dump.stdout).expect("a dump");
    psql.stdin(std::fs::File::open(file.path()).expect("the dump"));
    let psql = psql.output().expect("psql");
    assert!(psql.status.success(), "{}", String::from_utf8_lossy(&psql.stderr));
    superuser
        .batch_execute(&format!(
            "CREATE ROLE {0} LOGIN PASSWORD '{1}';
             GRANT plimsoll_agent TO {0}, {2}, {3}",
            missing.role, missing.password, granted.role, renamed.role
        ))
        .expect("what a dump of one database does not have");

    assert!(sees(&other, &granted, &database, &till), "granted to the role of the name");
    assert!(!sees(&other, &renamed, &database, &till), "the grant was void already");
    assert!(!sees(&other, &missing, &database, &till), "the role was not there when it was restored");
    let mut restored = other.superuser(&database);
    let after = restored.query_one(version, &[&till.id]).expect("a version");
    assert_eq!(after.get::<_, i64>("row_count"), before.get::<_, i64>("row_count"));
    assert_eq!(after.get::<_, Vec<u8>>("fingerprint"), before.get::<_, Vec<u8>>("fingerprint"));
    let scanned: i64 = restored
        .query_one("SELECT plimsoll.rebuild_manifest($1, 'shop.customer')", &[&till.id])
        .expect("a scan")
        .get(0);
    assert_eq!(scanned, 50);
    let wrong = restored.query("SELECT * FROM plimsoll.check_manifest($1, 'shop.customer')", &[&till.id]);
    assert_eq!(wrong.expect("a check").len(), 0);
    let kept: i64 = restored.query_one("SELECT count(*) FROM plimsoll.acts", &[]).expect("the acts").get(0);
    assert_eq!(kept, acts);
    let mut agent = other.connect(&missing, &database);
    for token in [&till.token, &newest] {
        let mut transaction = agent.transaction().expect("a transaction");
        log_in(&mut transaction, till.id, token).expect("tokens are what they were");
        let rows = transaction.query(version, &[&till.id]).expect("its rows");
        assert_eq!(rows[0].get::<_, i64>("row_count"), 50);
    }
    // New acts go on after the old ones.
    restored.execute("SELECT plimsoll.suspend_database($1)", &[&till.id]).expect("an act");
    let last = "SELECT act FROM plimsoll.acts ORDER BY act_id DESC LIMIT 1";
    assert_eq!(restored.query_one(last, &[]).expect("an act").get::<_, String>(0), "suspend_database");
}
