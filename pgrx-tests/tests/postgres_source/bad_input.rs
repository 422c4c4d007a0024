//! What a user does wrong, or the database does to the client: said in words that help, and nothing is deleted for it.

use plimsoll_client::server::address::Address;
use plimsoll_core::store::{BatchLimit, FailureKind};
use plimsoll_tests::{TestCluster, shared, table_of};

use crate::local::{Local, source_at};
use crate::way::Way;

const ORDERS: &str = "CREATE TABLE orders (id int8 PRIMARY KEY, version int8 NOT NULL, name text);
    INSERT INTO orders SELECT i, i, 'order ' || i FROM generate_series(1, 3000) i;
    CREATE INDEX ON orders (version, id);";

#[test]
fn a_wrong_address_ends_the_run_with_what_to_do() {
    let mut way = Way::new(ORDERS, &["orders"], "");
    let (reader, port) = (way.local.reader.clone(), shared().port());
    let url = |user: &str, password: &str, port: u16, database: &str| {
        format!("postgresql://{user}:{password}@127.0.0.1:{port}/{database}")
    };
    let right = way.local.database.clone();
    let free = std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|socket| socket.local_addr())
        .expect("a port")
        .port();
    for (url, expected) in [
        (url(&reader.role, "wrong", port, &right), "password authentication failed"),
        (url(&reader.role, &reader.password, port, "nowhere"), "database \"nowhere\" does not exist"),
        (url(&reader.role, &reader.password, free, &right), "nothing answers"),
        ("postgres://h:port/d".to_owned(), "cannot be read"),
    ] {
        way.configure(&url, "[[table]]\nname = 'orders'\n");
        let told = way.agent.home.run(["sync", "--quiet"]).expect_code(2).stderr;
        assert!(told.contains(expected), "{told}");
        assert!(!told.contains("wrong") && !told.contains(&reader.password), "a password is shown: {told}");
    }
    // The password may stand beside the url; the shared server's is another.
    let bare = format!("postgresql://{}@127.0.0.1:{port}/{right}", reader.role);
    way.configure(&bare, "[[table]]\nname = 'orders'\n");
    way.agent.home.set_env("PGPASSWORD", "the shared server's");
    let told = way.agent.home.run(["schema"]).expect_code(2).stderr;
    assert!(told.contains("PLIMSOLL_SOURCE_PASSWORD"), "{told}");
    way.agent.home.set_env("PLIMSOLL_SOURCE_PASSWORD", &reader.password);
    way.agent.home.run(["schema"]).expect_code(0);
}

#[test]
fn a_missing_privilege_stops_its_table_and_is_named() {
    let sql =
        "CREATE SCHEMA hidden; CREATE TABLE hidden.secrets (id int8 PRIMARY KEY, version int8 NOT NULL);
        CREATE TABLE orders (id int8 PRIMARY KEY, version int8 NOT NULL, name text);
        CREATE TABLE shown (id int8 PRIMARY KEY, version int8 NOT NULL);
        INSERT INTO shown SELECT i, i FROM generate_series(1, 30) i;
        CREATE TABLE several (id int8 PRIMARY KEY, version int8 NOT NULL, owner text);
        INSERT INTO several SELECT i, i, 'somebody' FROM generate_series(1, 30) i";
    let mut way = Way::new(sql, &[], "");
    let rest = "[[table]]\nname = 'hidden.secrets'\nremote = 'hidden.secrets'\n[[table]]\nname = 'orders'\n\
        [[table]]\nname = 'shown'\n[[table]]\nname = 'several'\n";
    way.configure(&way.local.url(), rest);
    way.create_tables();
    let role = way.local.reader.role.clone();
    way.agent.sync();
    let revoke = format!(
        "REVOKE ALL ON orders FROM {role}; ALTER TABLE several ENABLE ROW LEVEL SECURITY;
         CREATE POLICY few ON several USING (owner = current_user)"
    );
    way.local.writer.batch_execute(&revoke).expect("a revocation");
    let report = way.agent.sync().expect_code(1).json();
    let failure = |table: &str| table_of(&report, table)["failure"].to_string();
    assert!(
        failure("orders").contains(&format!("GRANT SELECT ON \\\"public\\\".\\\"orders\\\" TO {role}")),
        "{report}"
    );
    assert!(
        failure("hidden.secrets").contains(&format!("GRANT USAGE ON SCHEMA hidden TO {role}")),
        "{report}"
    );
    // The rows that a policy hides are not taken for deleted.
    assert!(failure("several").contains("BYPASSRLS"), "{report}");
    assert_eq!(table_of(&report, "shown")["remote_rows"], 30, "{report}");
    assert_eq!(way.site.content("public.several").len(), 30);
}

#[test]
fn types_that_never_fit_stop_their_table_before_a_row_is_read() {
    let mut local =
        Local::new("CREATE TABLE t (id int8 PRIMARY KEY, v int8 NOT NULL, n numeric, at timestamp)");
    local.writer.batch_execute("INSERT INTO t VALUES (1, 1, 0.1, now())").expect("a row");
    for (column, expected) in [("n float8", "numeric"), ("at timestamptz", "timestamp")] {
        let failure = local.try_source("t", &["id int8*", "v int8!", column], Some("v")).err();
        let failure = failure.map(|failure| failure.to_string()).unwrap_or_default();
        // Columns that the managed table lacks are refused first.
        assert!(failure.contains(expected), "{column}: {failure}");
    }
}

#[test]
fn a_server_that_goes_while_it_is_read_is_read_again_when_it_is_back() {
    let cluster = TestCluster::start_bare(&[]);
    let mut writer = cluster.superuser("postgres");
    writer.batch_execute(ORDERS).expect("a table");
    drop(writer);
    let login = cluster.create_login(&["pg_read_all_data"]);
    let address = Address::parse(&cluster.client_url(&login, "postgres")).expect("an address");
    let columns = ["id int8*", "version int8!", "name text"];
    let mut source = source_at(address, "orders", &columns, Some("version")).expect("a source");
    let limit = BatchLimit { rows: 1000, bytes: 1 << 20 };
    let first = source.read_batch(0, None, limit).expect("a batch");
    let token = source.change_token().expect("a token").expect("one");
    cluster.stop_server(plimsoll_cluster::StopMode::Immediate).expect("it stops");
    let failure = source.read_batch(0, first.next.as_ref(), limit).expect_err("nobody answers");
    assert_eq!(failure.kind, FailureKind::Passing, "{failure}");
    cluster.start_server().expect("it comes back");
    let second = source.read_batch(0, first.next.as_ref(), limit).expect("a batch");
    assert_eq!((first.records.len(), second.records.len()), (1000, 1000));
    // An unlogged table may be empty now, without any transaction: the start counts.
    assert_ne!(source.change_token().expect("a token"), Some(token));
}
