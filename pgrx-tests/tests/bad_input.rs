//! Bad input gets an error that names table, column, key and what to do, and changes nothing.

use plimsoll_core::row::{BatchWriter, RowWriter};
use plimsoll_core::value::Value;
use plimsoll_tests::{Agent, Finished, LOCAL, Site, shared, table_of};
use postgres::Client;

const LOCAL_SQL: &str = "
    CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, size INTEGER, price NUMERIC, row_version INTEGER);
    INSERT INTO items VALUES (1, 'one', 1, 1.25, 1), (2, 'two', 2, NULL, 2);";

const REMOTE_SQL: &str = "
    CREATE TABLE items (client_id text NOT NULL, database_id uuid NOT NULL, id bigint NOT NULL, name varchar(5),
        size smallint, price numeric(6, 2), row_version bigint NOT NULL,
        PRIMARY KEY (client_id, database_id, id));";

/// A site with the table, and an agent whose two rows are there.
fn stocked() -> (Site<'static>, Agent) {
    let site = Site::new(shared());
    let agent = site.agent("acme", LOCAL_SQL, &["items"], "");
    let mut superuser = site.superuser();
    superuser
        .batch_execute(&format!(
            "GRANT CREATE ON SCHEMA public TO {owner}; SET ROLE {owner}; {REMOTE_SQL} RESET ROLE;
             SELECT plimsoll.manage_table('items', version_column => 'row_version')",
            owner = site.owner
        ))
        .expect("a managed table");
    agent.sync().expect_code(0);
    // What a refused run would send.
    agent.local().execute("INSERT INTO items VALUES (3, 'three', 3, 3, 3)", []).expect("a row");
    (site, agent)
}

#[track_caller]
fn says(text: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(text.contains(part), "\"{part}\" is not in:\n{text}");
    }
}

/// Runs `sync` and `verify`, which are refused as a whole with a message like this, and change nothing.
#[track_caller]
fn refused(site: &Site<'_>, agent: &Agent, wanted: &[&str]) -> Finished {
    let before = site.content("items");
    let run = agent.home.run(["sync", "--json"]).expect_code(2);
    says(&run.stderr, wanted);
    assert!(run.json()["error"]["message"].is_string(), "{}", run.stdout);
    assert!(!run.stderr.contains(&agent.registered.token), "the token is in {}", run.stderr);
    assert!(!run.stderr.contains(&agent.login.password), "the password is in {}", run.stderr);
    agent.home.run(["verify"]).expect_code(2);
    assert_eq!(site.content("items"), before);
    run
}

#[test]
fn a_wrong_token_is_refused() {
    let (site, agent) = stocked();
    let other = shared().register(&site.database, "other", "till");
    agent.home.write("token", &other.token);
    refused(&site, &agent, &["token", "hint"]);
    agent.home.write("token", "not a token");
    let run = refused(&site, &agent, &["token holds no token", "plimsoll_"]);
    assert!(!run.stderr.contains("not a token"));
    std::fs::remove_file(agent.home.path("token")).expect("it goes");
    refused(&site, &agent, &["there is no token file", "plimsoll init"]);
    agent.home.write("token", &agent.registered.token);
    agent.sync().expect_code(0);
}

#[test]
fn a_suspended_database_is_refused_until_it_is_resumed() {
    let (site, agent) = stocked();
    let mut admin = site.superuser();
    let id = agent.registered.id;
    admin.execute("SELECT plimsoll.suspend_database($1)", &[&id]).expect("suspended");
    refused(&site, &agent, &["suspended", &id.to_string(), "resume_database"]);
    admin.execute("SELECT plimsoll.resume_database($1)", &[&id]).expect("resumed");
    agent.sync().expect_code(0);
    assert_eq!(site.content("items").len(), 3);
}

#[test]
fn a_server_that_is_not_there_and_a_wrong_password_are_told_apart() {
    let (site, agent) = stocked();
    let config = std::fs::read_to_string(agent.home.path("plimsoll.toml")).expect("the configuration");
    let port = shared().port().to_string();
    agent.home.write("plimsoll.toml", &config.replace(&port, "1"));
    refused(&site, &agent, &["127.0.0.1:1/", "connection was refused", "is the server running"]);
    agent.home.write("plimsoll.toml", &config.replace(&agent.login.password, "guess"));
    let run = refused(&site, &agent, &["password", "check user and password"]);
    assert!(!run.stderr.contains("guess"), "{}", run.stderr);
    agent.home.write("plimsoll.toml", &config.replace(&site.database, "nowhere"));
    refused(&site, &agent, &["\"nowhere\" does not exist", "check the database"]);
    let bare = shared().create_empty_database();
    agent.home.write("plimsoll.toml", &config.replace(&site.database, &bare));
    refused(&site, &agent, &["lacks the extension", "CREATE EXTENSION plimsoll"]);
}

#[test]
fn a_missing_or_foreign_local_file_is_named() {
    let (site, agent) = stocked();
    std::fs::rename(agent.home.path(LOCAL), agent.home.path("away")).expect("moved");
    refused(&site, &agent, &["there is no file", LOCAL, "[source]"]);
    assert!(!agent.home.path(LOCAL).exists(), "an empty database was made");
    agent.home.write(LOCAL, &"no database ".repeat(500));
    refused(&site, &agent, &["not a SQLite database"]);
}

#[test]
fn mistakes_in_the_configuration_are_named_with_their_line() {
    let (site, agent) = stocked();
    agent.write_config("[[table]]\nname = \"items\"\nkeys = [\"id\"]\n");
    refused(&site, &agent, &["plimsoll.toml", "line 11", "keys"]);
    agent.write_config("[sync]\nrun_budget = \"soon\"\n\n[[table]]\nname = \"items\"\n");
    refused(&site, &agent, &["line 10"]);
    agent.write_config("[[table]]\nname = \"items\"\n[[table]]\nname = \"ITEMS\"\n");
    refused(&site, &agent, &["\"ITEMS\" is configured twice"]);
    agent.write_config("");
    refused(&site, &agent, &["no table is configured", "[[table]]"]);
    std::fs::remove_file(agent.home.path("plimsoll.toml")).expect("it goes");
    refused(&site, &agent, &["there is no configuration plimsoll.toml", "plimsoll init"]);
    let run = agent.home.run(["sync", "--tabel", "items"]).expect_code(2);
    says(&run.stderr, &["--tabel", "--table"]);
}

/// Runs `sync`, in which this table fails with a message like this while the run itself ends well.
#[track_caller]
fn table_refused(site: &Site<'_>, agent: &Agent, table: &str, wanted: &[&str]) {
    let before = site.content("items");
    let report = agent.sync().expect_code(1).json();
    let failure = &table_of(&report, table)["failure"];
    assert!(failure.is_object(), "{report}");
    says(&failure.to_string().replace("\\\"", "\""), wanted);
    assert_eq!(site.content("items"), before);
    let printed = agent.home.run(["sync"]).expect_code(1).stdout;
    says(&printed, &[table, wanted[0]]);
    agent.home.run(["verify"]).expect_code(2);
}

#[test]
fn tables_that_do_not_fit_are_refused_alone() {
    let (site, agent) = stocked();
    let local = agent.local();
    local
        .execute_batch(
            "CREATE TABLE loose (id INTEGER PRIMARY KEY, row_version INTEGER);
             INSERT INTO loose VALUES (1, 1)",
        )
        .expect("a table");
    agent.write_config("[[table]]\nname = \"loose\"\n");
    table_refused(&site, &agent, "loose", &["no managed table loose", "plimsoll schema"]);
    agent.write_config("[[table]]\nname = \"absent\"\nremote = \"items\"\n");
    table_refused(&site, &agent, "absent", &["no table \"absent\"", "configuration"]);
    agent.write_config("[[table]]\nname = \"items\"\nversion = \"price\"\n");
    table_refused(&site, &agent, "items", &["price", "row_version"]);
    agent.write_config("[[table]]\nname = \"items\"\nkey = [\"name\"]\n");
    table_refused(&site, &agent, "items", &["name", "id"]);
    // The others of a run go on.
    agent.write_config("[[table]]\nname = \"loose\"\n[[table]]\nname = \"items\"\n");
    let report = agent.sync().expect_code(1).json();
    assert!(table_of(&report, "loose")["failure"].is_object());
    assert_eq!(table_of(&report, "items")["inserted"], 1);
}

#[test]
fn a_column_on_one_side_only_is_named() {
    let (site, agent) = stocked();
    let local = agent.local();
    local.execute_batch("ALTER TABLE items ADD COLUMN colour TEXT").expect("a column");
    let run = agent.sync().expect_code(0);
    says(&run.stderr, &["\"colour\"", "ALTER TABLE public.items ADD COLUMN colour text", "leave_out"]);
    assert_eq!(site.content("items").len(), 3, "the table goes on");
    agent.write_config("[[table]]\nname = \"items\"\nleave_out = [\"colour\"]\n");
    let run = agent.sync().expect_code(0);
    assert!(!run.stderr.contains("colour"), "{}", run.stderr);
    let manage = "SELECT plimsoll.manage_table('items', version_column => 'row_version')";
    site.owner().batch_execute("ALTER TABLE items ADD COLUMN taste text").expect("a column");
    site.superuser().batch_execute(manage).expect("it is managed with the new column");
    let run = agent.sync().expect_code(0);
    says(&run.stderr, &["\"taste\"", "items", "server_columns"]);
    local.execute_batch("ALTER TABLE items DROP COLUMN row_version").expect("a column");
    table_refused(&site, &agent, "items", &["row_version", "items"]);
}

#[test]
fn values_that_do_not_fit_are_rejected_row_by_row() {
    let (site, agent) = stocked();
    let local = agent.local();
    // Key, what is wrong, the column at fault, and the row.
    let rows = [
        (10, "NUL", "name", "CAST(x'610062' AS TEXT), 1, 1, 10"),
        (11, "UTF-8", "name", "CAST(x'61ff62' AS TEXT), 1, 1, 11"),
        (12, "out of range", "size", "'ok', 32768, 1, 12"),
        (13, "round", "price", "'ok', 1, 1.005, 13"),
        (14, "too many digits", "price", "'ok', 1, 10000, 14"),
        (15, "5", "name", "'longer', 1, 1, 15"),
        (16, "whole numbers", "size", "'ok', 'many', 1, 16"),
        (17, "row_version", "row_version", "'ok', 1, 1, NULL"),
    ];
    for (id, _, _, values) in rows {
        local.execute(&format!("INSERT INTO items VALUES ({id}, {values})"), []).expect("a row");
    }
    local.execute("INSERT INTO items VALUES (18, 'last', 1, 1, 18)", []).expect("a row");
    let report = agent.sync().expect_code(0).json();
    let items = table_of(&report, "items");
    assert_eq!((&items["status"], &items["rejected"]), (&"level_except".into(), &rows.len().into()));
    assert_eq!(site.content("items").len(), 4, "the two from before, the waiting one and the last");
    let mut superuser = site.superuser();
    for (id, wrong, column, _) in rows {
        let found = superuser
            .query_one(
                "SELECT column_name, message, relation FROM plimsoll.rejected_rows WHERE key ->> 'id' = $1",
                &[&id.to_string()],
            )
            .unwrap_or_else(|error| panic!("row {id}: {error}"));
        let message: String = found.get("message");
        println!("{id}: {message}");
        assert_eq!(found.get::<_, Option<String>>("column_name").as_deref(), Some(column), "{id}: {message}");
        assert_eq!(found.get::<_, String>("relation"), "public.items");
        says(&message, &[wrong]);
    }
    let verdict = agent.home.run(["verify"]).expect_code(1).stdout;
    says(&verdict, &["items: rejected", "id=10", "id=16"]);
    // Mended, they arrive.
    local
        .execute(
            "UPDATE items SET name = 'ok', size = 1, price = 1, row_version = 100 + id WHERE id >= 10",
            [],
        )
        .expect("an update");
    agent.sync().expect_code(0);
    agent.home.run(["verify"]).expect_code(0);
    assert_eq!(site.content("items").len(), 4 + rows.len());
}

#[track_caller]
fn refused_sql(client: &mut Client, sql: &str, sqlstate: &str, wanted: &[&str]) {
    let error = client.batch_execute(sql).expect_err("it is refused");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(error.code().code(), sqlstate, "{error:?}");
    let all = [error.message(), error.detail().unwrap_or_default(), error.hint().unwrap_or_default()];
    says(&all.join("\n"), wanted);
}

#[test]
fn tables_that_cannot_be_managed_are_refused_with_what_to_run() {
    let site = Site::new(shared());
    let mut owner = site.superuser();
    owner
        .batch_execute(&format!(
            "GRANT CREATE ON SCHEMA public TO {owner}; SET ROLE {owner};
             CREATE TABLE plain (id bigint PRIMARY KEY, v bigint NOT NULL);
             CREATE TABLE heap (client_id text NOT NULL, database_id uuid NOT NULL, v bigint NOT NULL);
             CREATE TABLE sound (client_id text NOT NULL, database_id uuid NOT NULL, id bigint, v bigint,
                 PRIMARY KEY (client_id, database_id, id));
             RESET ROLE",
            owner = site.owner
        ))
        .expect("tables");
    let manage = |table: &str, more: &str| format!("SELECT plimsoll.manage_table('{table}'{more})");
    let version = ", version_column => 'v'";
    refused_sql(&mut owner, &manage("plain", version), "42703", &["plain", "tenant", "client_id"]);
    refused_sql(
        &mut owner,
        &manage("heap", version),
        "42P16",
        &["heap", "no usable key", "PRIMARY KEY", "'{}'"],
    );
    let row = ", version_scope => 'row'";
    refused_sql(&mut owner, &manage("sound", row), "22023", &["sound", "'row'", "needs a version column"]);
    refused_sql(
        &mut owner,
        &manage("sound", ", key_columns => '{}'"),
        "22023",
        &["sound", "has a key", "(id)"],
    );
    let absent = ", version_column => 'w'";
    refused_sql(&mut owner, &manage("sound", absent), "42703", &["sound", "version", "\"w\""]);
    let nullable = ["sound", "\"v\"", "NULL", "SET NOT NULL"];
    refused_sql(&mut owner, &manage("sound", version), "42P16", &nullable);
    assert!(owner.query("SELECT FROM plimsoll.tables", &[]).expect("the tables").is_empty());
    owner.batch_execute("ALTER TABLE sound ALTER COLUMN v SET NOT NULL").expect("the hint");
    owner.batch_execute(&manage("sound", version)).expect("it is managed now");
    owner.batch_execute(&manage("heap", ", key_columns => '{}'")).expect("the other hint");
}

/// An upload of one row as the table's schema numbers its columns.
fn upload_of(client: &mut Client, agent: &Agent, size: i64) -> Vec<u8> {
    let query = "SELECT column_number, column_name FROM plimsoll.table_schema($1, 'public.items')";
    let columns = client.query(query, &[&agent.registered.id]).expect("the schema");
    let mut row = Vec::new();
    let mut writer = RowWriter::new(&mut row);
    for column in &columns {
        let value = match column.get("column_name") {
            "id" | "row_version" => Value::Int(70),
            "size" => Value::Int(size),
            _ => continue,
        };
        writer.field(column.get::<_, i32>("column_number").unsigned_abs(), &value);
    }
    let mut batch = BatchWriter::new();
    batch.push(&row);
    batch.finish()
}

#[test]
fn malformed_uploads_and_ranges_are_refused_whole() {
    let (site, agent) = stocked();
    let mut admin = site.superuser();
    let id = agent.registered.id;
    admin
        .execute("SELECT plimsoll.grant_database($1, $2::text::name)", &[&id, &agent.login.role])
        .expect("a grant");
    let mut client = shared().connect(&agent.login, &site.database);
    let before = site.content("items");
    let sound = upload_of(&mut client, &agent, 7);
    let upload = "SELECT inserted, rejected FROM plimsoll.upload($1, 'public.items', $2::bytea)";
    let mut malformed = vec![vec![], [sound.as_slice(), &[0]].concat(), [&[9], &sound[1..]].concat()];
    malformed.extend((1..sound.len()).map(|length| sound[..length].to_vec()));
    // More rows, and a longer row, than there are.
    for (place, by) in [(1, 1), (4, 0x7f), (5, 1), (5, 0x70)] {
        let mut wrong = sound.clone();
        wrong[place] = wrong[place].wrapping_add(by);
        malformed.push(wrong);
    }
    for bytes in malformed {
        let error = client.query(upload, &[&id, &bytes]).expect_err("it is refused");
        let error = error.as_db_error().expect("an error of the server");
        assert_eq!(error.code().code(), "22P03", "{bytes:?}: {error:?}");
    }
    let out_of_range = upload_of(&mut client, &agent, 70_000);
    let row = client.query_one(upload, &[&id, &out_of_range]).expect("an answer");
    let rejected: serde_json::Value = row.get("rejected");
    assert_eq!((row.get::<_, i64>("inserted"), &rejected[0]["column"]), (0, &"size".into()), "{rejected}");
    assert_eq!(rejected[0]["key"]["id"], 70, "{rejected}");
    for call in [
        "manifest($1, 'public.items', $2::text::int8range)",
        "range_fingerprint($1, 'public.items', $2::text::int8range)",
    ] {
        let sql = format!("SELECT * FROM plimsoll.{call}");
        let error = client.query(&sql, &[&id, &"[5,3)"]).expect_err("it is refused");
        says(&error.as_db_error().expect("the server's").to_string(), &["lower bound", "upper bound"]);
    }
    let unmanaged = "SELECT * FROM plimsoll.upload($1, 'pg_catalog.pg_class', $2::bytea)";
    let error = client.query(unmanaged, &[&id, &sound]).expect_err("it is refused");
    assert_eq!(error.code().expect("a code").code(), "42P01");
    assert_eq!(site.content("items"), before);
    // The bytes were not at fault.
    assert_eq!(client.query_one(upload, &[&id, &sound]).expect("stored").get::<_, i64>("inserted"), 1);
}
