//! What a server shows that tells all it can: the log with every statement and parameter, plans of nested statements,
//! statistics, activity. No secret is in any of it.

mod shop;

use std::fmt::Write;

use plimsoll_core::token::Token;
use plimsoll_tests::{Registered, Site, TestCluster};
use shop::{Shop, log_in, refused};
use uuid::Uuid;

/// Everything on. What only a preloaded library offers is there where Postgres' own contributions are installed.
fn talkative() -> TestCluster {
    TestCluster::start_with(&[
        ("shared_preload_libraries", "auto_explain,pg_stat_statements"),
        ("log_statement", "all"),
        ("log_min_duration_statement", "0"),
        ("log_parameter_max_length", "-1"),
        ("log_parameter_max_length_on_error", "-1"),
        ("log_min_messages", "debug2"),
        ("log_min_error_statement", "debug5"),
        ("log_error_verbosity", "verbose"),
        ("log_connections", "on"),
        ("debug_print_parse", "on"),
        ("debug_print_rewritten", "on"),
        ("debug_print_plan", "on"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_nested_statements", "on"),
        ("auto_explain.log_verbose", "on"),
        ("auto_explain.log_analyze", "on"),
        ("pg_stat_statements.track", "all"),
        ("track_activity_query_size", "65536"),
        ("compute_query_id", "on"),
    ])
}

/// A secret in every way in which a server may write bytes or text.
fn spellings(name: &str, secret: &[u8]) -> Vec<(String, String)> {
    let hex: String = secret.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("text");
        text
    });
    // As trees of plans have constants: decimal numbers, signed.
    let plan = secret.iter().map(|byte| byte.cast_signed().to_string()).collect::<Vec<_>>().join(" ");
    let escaped: String = secret.iter().fold(String::new(), |mut text, byte| {
        match byte {
            b'\\' => text.push_str("\\\\"),
            0x20..0x7f => text.push(*byte as char),
            _ => write!(text, "\\{byte:03o}").expect("text"),
        }
        text
    });
    let upper = hex.to_uppercase();
    let all = [("hex", hex), ("HEX", upper), ("a plan", plan), ("escapes", escaped)];
    all.map(|(how, text)| (format!("{name} as {how}"), text)).to_vec()
}

/// All that is secret of a token: itself, the key that proofs are made with, the key that is kept.
fn of_token(name: &str, token: &str) -> Vec<(String, String)> {
    let digits = token.trim_start_matches("plimsoll_");
    let mut secrets = spellings(name, token.as_bytes());
    secrets.push((name.to_owned(), digits.to_owned()));
    let token = Token::parse(token).expect("a token");
    secrets.extend(spellings(&format!("the stored key of {name}"), &token.stored_key().0));
    // As plimsoll_core::token derives it.
    let client_key = blake3::derive_key("plimsoll 2026-11 login client key v1", token.reveal().as_bytes());
    assert_eq!(blake3::hash(&client_key).as_bytes(), &token.stored_key().0);
    secrets.extend(spellings(&format!("the client key of {name}"), &client_key));
    secrets
}

/// The log as it is, and once more without the line breaks that trees of plans have in it.
fn log_of(server: &TestCluster) -> String {
    let log = std::fs::read_to_string(server.log_path()).expect("the log");
    let joined: Vec<&str> = log.split_whitespace().collect();
    format!("{log}\n{}", joined.join(" "))
}

#[test]
fn no_secret_is_in_the_log_the_statistics_or_the_activity_of_a_server_that_tells_all() {
    let server: &'static TestCluster = Box::leak(Box::new(talkative()));
    let mut shop = Shop::open_on(server);
    shop.superuser.batch_execute("CREATE EXTENSION pg_stat_statements").expect("statistics");
    let admin = server.create_login(&["plimsoll_admin"]);
    let mut admin = shop.connect(&admin);
    let row = admin
        .query_one("SELECT * FROM plimsoll.register_database($1, $2)", &[&"acme", &"till"])
        .expect("a registration");
    let till = Registered { id: row.get("database_id"), token: row.get("token") };
    let rotate = "SELECT plimsoll.rotate_token($1)";
    let newest: String = admin.query_one(rotate, &[&till.id]).expect("a token").get(0);
    let mut secrets = of_token("the first token", &till.token);
    secrets.extend(of_token("the newest token", &newest));

    // Logins: with both tokens, with a wrong one, and errors after them; each with a setting that shows more.
    let mut agent = shop.connect(&server.create_agent());
    for token in [&newest, &till.token] {
        let mut transaction = agent.transaction().expect("a transaction");
        log_in(&mut transaction, till.id, token).expect("a login");
        let rows = serde_json::json!([{"id": 1, "name": "one", "version": 1}]);
        transaction
            .execute("SELECT plimsoll.upload($1, 'shop.customer', $2::jsonb)", &[&till.id, &rows])
            .expect("an upload");
        transaction.execute("SELECT plimsoll.table_versions($1)", &[&till.id]).expect("the tables");
        refused(transaction.execute("SELECT plimsoll.table_version($1, 'none')", &[&till.id]), "42P01");
        transaction.rollback().expect("an end");
    }
    let wrong = format!("plimsoll_{}", "ab".repeat(32));
    let mut transaction = agent.transaction().expect("a transaction");
    refused(log_in(&mut transaction, till.id, &wrong), "28000");
    transaction.rollback().expect("an end");
    // A registration that fails, and one that is adopted by way of COPY.
    let again = admin.query_one("SELECT * FROM plimsoll.register_database('acme', 'till')", &[]);
    refused(again, "42710");
    let fingerprint_key: Vec<u8> = server
        .superuser(&shop.database)
        .query_one("SELECT fingerprint_key FROM plimsoll.database_record", &[])
        .expect("the key")
        .get(0);
    secrets.extend(spellings("the fingerprint key", &fingerprint_key));
    let copied = [0x5a_u8, 0xc3, 0x11, 0x9e].repeat(8);
    secrets.extend(spellings("a key that was copied", &copied));
    adopt_by_copy(&mut admin, &copied);
    admin.execute("SELECT plimsoll.end_old_tokens($1)", &[&till.id]).expect("an end");
    let _ = admin.query("SELECT * FROM plimsoll.acts", &[]).expect("the acts");

    // The client too, with its own first run.
    let site = Site { cluster: server, database: shop.database.clone(), owner: server.create_owner() };
    let sql = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, row_version INTEGER NOT NULL);
               INSERT INTO items VALUES (1, 'one', 1)";
    let synced = site.agent("zeta", sql, &["items"], "");
    secrets.extend(of_token("the client's token", &synced.registered.token));
    site.create_tables(&synced);
    synced.sync().expect_code(0);
    synced.home.run(["verify"]).expect_code(0);

    let log = log_of(server);
    let statements: String = shop.value("SELECT string_agg(query, chr(10)) FROM pg_stat_statements");
    let parameters =
        if server.major() < 17 { "DETAIL:  parameters: $1 =" } else { "DETAIL:  Parameters: $1 =" };
    let activity: String = shop.value("SELECT string_agg(a::text, chr(10)) FROM pg_stat_activity a");
    for (text, must) in [
        (&log, "rotate_token"),
        // Nested statements, their plans and trees are there to be searched.
        (&log, "held_secret"),
        (&log, "Query Text: INSERT INTO plimsoll.token_record"),
        (&log, parameters),
        (&log, "{CONST"),
        (&log, "failed login to database"),
        (&statements, "INSERT INTO plimsoll.token_record"),
        (&activity, "plimsoll."),
    ] {
        assert!(text.contains(must), "nothing was searched: no {must}");
    }
    for (name, secret) in &secrets {
        for (text, place) in
            [(&log, "the log"), (&statements, "pg_stat_statements"), (&activity, "pg_stat_activity")]
        {
            assert!(!text.contains(secret), "{name} is in {place}");
        }
    }
    // What is looked for would be found: a key in a literal is.
    let literal = format!("SELECT length('\\x{}'::bytea)", "5ac3119e".repeat(8));
    shop.superuser.batch_execute(&literal).expect("a statement");
    let log = log_of(server);
    let found = spellings("", &copied).iter().filter(|(_, secret)| log.contains(secret)).count();
    assert!(found >= 2, "a key in a statement is seen as text and in its plan");
}

/// As docs/administration.md says: what COPY reads is not logged.
fn adopt_by_copy(admin: &mut postgres::Client, key: &[u8]) {
    use std::io::Write as _;
    admin.batch_execute("CREATE TEMP TABLE adopted (fingerprint_key bytea)").expect("a table");
    let mut copy = admin.copy_in("COPY adopted FROM STDIN (FORMAT csv)").expect("a copy");
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(copy, "\\x{hex}").expect("the key");
    copy.finish().expect("it is copied");
    let adopt = "SELECT plimsoll.adopt_database($1, 'bob', 'till', fingerprint_key) FROM adopted";
    admin.query_one(adopt, &[&Uuid::new_v4()]).expect("it is adopted");
    admin.batch_execute("DROP TABLE adopted").expect("it goes");
}
