//! MariaDB as the local database, on its whole way: `init`, `schema`, `sync`, `verify` and `status` against a private server.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use plimsoll_cluster::mysql_async::Value;
use plimsoll_cluster::{MariaDb, MariaSession, Runner, Workspace};
use plimsoll_tests::{Agent, Comparison, Site, line, shared, table_of};
use postgres::Client;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

const USER: &str = "reader";
const PASSWORD: &str = "open sesame";

/// One server for all tests; its own watchdog ends it.
fn server() -> MutexGuard<'static, MariaDb> {
    static SERVER: LazyLock<Mutex<MariaDb>> = LazyLock::new(|| {
        let server = MariaDb::start(&["--character-set-server=utf8mb4"]).expect("a server");
        server.create_user(USER, PASSWORD).expect("a user");
        Mutex::new(server)
    });
    SERVER.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A database that the user may read, and an administrator's connection to it.
fn database(name: &str) -> MariaSession {
    let mut session = server().create_database(name).expect("a database");
    session.run(&format!("GRANT SELECT ON {name}.* TO '{USER}'@'%'")).expect("a grant");
    session
}

/// Lets an agent read that database.
fn configure(site: &Site<'_>, agent: &mut Agent, database: &str, rest: &str) {
    agent.home.set_env("PLIMSOLL_SOURCE_PASSWORD", PASSWORD);
    let text = format!(
        "[server]\nurl = \"{}\"\ndatabase_id = \"{}\"\ntoken_file = \"token\"\n\n[source]\nmysql = \"{}\"\n\n{rest}",
        site.cluster.client_url(&agent.login, &site.database),
        agent.registered.id,
        server().url(USER, database)
    );
    agent.home.write("plimsoll.toml", &text);
}

fn agent(site: &Site<'_>, database: &str, tables: &[&str]) -> Agent {
    let mut agent = site.agent("shop", "", &[], "");
    let tables: String = tables.iter().map(|table| format!("\n[[table]]\nname = \"{table}\"\n")).collect();
    // A run takes as long as it needs, on a busy machine too.
    configure(site, &mut agent, database, &format!("[sync]\nrun_budget = \"10m\"\n{tables}"));
    agent
}

#[test]
fn a_database_is_found_made_sent_and_proved() {
    let mut local = database("found");
    local
        .run(
            "CREATE TABLE customers (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50) NOT NULL, vip BOOLEAN,
                balance DECIMAL(12,2), born DATE, note TEXT, `row version` INT, row_version BIGINT UNSIGNED NOT NULL UNIQUE,
                updated_at TIMESTAMP(6) NOT NULL);
             CREATE TABLE codes (code VARCHAR(10) COLLATE utf8mb4_unicode_ci PRIMARY KEY, what JSON, bits BIT(5),
                updated_at DATETIME(6) NOT NULL);
             CREATE VIEW everybody AS SELECT name FROM customers;
             INSERT INTO customers VALUES (1, 'Ünal 𝄞', TRUE, 12.50, '1970-02-28', NULL, 1, 1, '2024-01-02 03:04:05.678901'),
                (4000000000, '', FALSE, -0.01, NULL, 'x\\ny', NULL, 2, '2024-01-02 03:04:05.678901');
             INSERT INTO codes SELECT concat('code ', seq), NULL, NULL, '2024-01-01' FROM seq_1_to_40;
             INSERT INTO codes VALUES ('b', '{\"a\": 1}', b'10101', '2024-01-02 03:04:05'), ('A', NULL, NULL, '2024-01-01')",
        )
        .expect("tables");
    let site = Site::new(shared());
    let mut agent = site.agent("shop", "", &[], "");
    let url = server().url(USER, "found");
    let home = &mut agent.home;
    home.set_env("PLIMSOLL_SOURCE_PASSWORD", PASSWORD);
    home.set_env("PLIMSOLL_TOKEN", &agent.registered.token);
    std::fs::remove_file(home.path("plimsoll.toml")).expect("a configuration");
    let server_url = site.cluster.client_url(&agent.login, &site.database);
    let id = agent.registered.id.to_string();
    let made =
        home.run(["init", "--source", &url, "--server", &server_url, "--database-id", &id]).expect_code(0);
    let config = std::fs::read_to_string(home.path("plimsoll.toml")).expect("a configuration");
    assert!(config.contains(&format!("mysql = \"{url}\"")) && !config.contains(PASSWORD), "{config}");
    assert!(
        config.contains("customers") && config.contains("codes") && !config.contains("everybody"),
        "{config}"
    );
    assert!(made.stderr.contains("codes") || made.stdout.contains("codes"), "{made:?}");

    site.create_tables(&agent);
    let run = agent.sync().expect_code(0).json();
    assert_eq!(table_of(&run, "customers")["inserted"], 2);
    agent.home.run(["verify", "--quiet"]).expect_code(0);
    assert!(agent.home.run(["status"]).expect_code(0).stdout.contains("codes"));
    let rows = site.content("public.customers");
    assert!(
        rows[0].contains("Ünal 𝄞") && rows[0].contains("12.50") && rows[0].contains("03:04:05.678901"),
        "{rows:?}"
    );
    assert!(rows[1].contains("4000000000") && rows[1].contains("-0.01"), "{rows:?}");

    // A key that changes in its case alone is another key there; a zero date is told.
    local
        .run(
            "UPDATE codes SET code = 'B', updated_at = '2024-02-01';
             SET sql_mode = ''; UPDATE customers SET born = '0000-00-00', row_version = 9 WHERE id = 1",
        )
        .expect_err("two rows cannot both be B");
    local
        .run(
            "UPDATE codes SET code = 'B', updated_at = '2024-02-01' WHERE code = 'b';
             SET sql_mode = ''; UPDATE customers SET born = '0000-00-00', row_version = 9 WHERE id = 1",
        )
        .expect("changes");
    agent.sync().expect_code(0);
    let codes = site.content("public.codes");
    assert!(codes.len() == 42 && codes.iter().any(|row| row.contains(",B,")), "{codes:?}");
    agent.home.run(["verify", "--quiet"]).expect_code(1);
    let told =
        site.superuser().query("SELECT message FROM plimsoll.rejected_rows", &[]).expect("the rejected rows");
    let told: Vec<String> = told.iter().map(|row| row.get(0)).collect();
    assert!(told.len() == 1 && told[0].contains("0000-00-00") && told[0].contains("\"born\""), "{told:?}");
    local.run("UPDATE customers SET born = '2000-02-29' WHERE id = 1").expect("a change");
    agent.level_within(2);
}

#[test]
fn what_is_wrong_is_told_and_changes_nothing() {
    let mut local = database("wrong");
    local
        .run(
            "CREATE TABLE t (id INT PRIMARY KEY, row_version INT NOT NULL UNIQUE); INSERT INTO t VALUES (1, 1);
             CREATE TABLE old (id INT PRIMARY KEY, row_version INT NOT NULL UNIQUE) ENGINE = MyISAM",
        )
        .expect("tables");
    let site = Site::new(shared());
    let mut agent = agent(&site, "wrong", &["t", "old"]);
    site.create_tables(&agent);
    let run = agent.sync().expect_code(0);
    assert!(run.stderr.contains("MyISAM") && run.stderr.contains("\"old\""), "{}", run.stderr);

    agent.home.set_env("PLIMSOLL_SOURCE_PASSWORD", "wrong");
    let run = agent.sync().expect_code(2);
    assert!(
        run.stderr.contains("Access denied") && run.stderr.contains("PLIMSOLL_SOURCE_PASSWORD"),
        "{}",
        run.stderr
    );
    assert!(!run.stderr.contains(PASSWORD));
    agent.home.set_env("PLIMSOLL_SOURCE_PASSWORD", PASSWORD);

    // One table that may not be read, and one that is gone: the other goes on.
    local.run("RENAME TABLE old TO older; INSERT INTO t VALUES (2, 2)").expect("renamed");
    let run = agent.sync().expect_code(1);
    assert!(run.stdout.contains("no table \\\"old\\\""), "{}", run.stdout);
    assert_eq!(table_of(&run.json(), "t")["inserted"], 1);
    // Columns that no managed one takes: all tables are told of at once.
    local.run("CREATE TABLE p (id INT PRIMARY KEY, place POINT); CREATE TABLE q (id INT PRIMARY KEY, area POLYGON)").expect("tables");
    configure(
        &site,
        &mut agent,
        "wrong",
        "[[table]]\nname = \"p\"\n[[table]]\nname = \"q\"\n[[table]]\nname = \"t\"\n",
    );
    let told = agent.home.run(["schema"]).expect_code(2).stderr;
    for column in ["place", "area"] {
        assert!(told.contains(&format!("\"{column}\" of")), "{told}");
        assert!(told.contains(&format!("leave_out = [\"{column}\"]")), "{told}");
    }
    configure(&site, &mut agent, "absent", "[[table]]\nname = \"t\"\n");
    let run = agent.sync().expect_code(2);
    assert!(run.stderr.contains("absent") && run.stderr.contains("[source]"), "{}", run.stderr);
    assert_eq!(site.content("public.t").len(), 2);
}

#[test]
fn a_server_that_dies_while_it_is_read_is_read_again_later() {
    // A server of its own: others go on.
    let mut maria = MariaDb::start(&["--sql-mode="]).expect("a server");
    maria.create_user(USER, PASSWORD).expect("a user");
    let mut local = maria.create_database("dying").expect("a database");
    local
        .run(&format!(
            "GRANT SELECT ON dying.* TO '{USER}'@'%';
             CREATE TABLE t (id INT PRIMARY KEY, text VARCHAR(200), row_version INT NOT NULL UNIQUE);
             INSERT INTO t SELECT seq, repeat('x', 200), seq FROM seq_1_to_200000"
        ))
        .expect("rows");
    drop(local);
    let site = Site::new(shared());
    let mut agent = site.agent("shop", "", &[], "");
    configure(&site, &mut agent, "dying", "[[table]]\nname = \"t\"\n");
    let config = std::fs::read_to_string(agent.home.path("plimsoll.toml")).expect("a configuration");
    let config = config.replace(&server().url(USER, "dying"), &maria.url(USER, "dying"));
    agent.home.write("plimsoll.toml", &config);
    site.create_tables(&agent);

    let running = agent.home.start(["sync", "--quiet"]);
    let mut owner = site.owner();
    let begun = Instant::now();
    while owner.query_one("SELECT count(*) FROM public.t", &[]).expect("a count").get::<_, i64>(0) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no row arrived");
        std::thread::sleep(Duration::from_millis(5));
    }
    maria.kill().expect("killed");
    let ended = running.wait(Duration::from_secs(60));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let told = ended.stdout + &ended.stderr;
    assert!(told.contains("local database"), "{told}");
    let arrived: i64 = owner.query_one("SELECT count(*) FROM public.t", &[]).expect("a count").get(0);
    assert!((1..200_000).contains(&arrived), "{arrived} rows");
    let unreachable = agent.home.run(["sync", "--quiet"]).expect_code(2);
    assert!(unreachable.stderr.contains("host and port"), "{}", unreachable.stderr);

    maria.launch().expect("started");
    agent.level_within(3);
    let arrived: i64 = owner.query_one("SELECT count(*) FROM public.t", &[]).expect("a count").get(0);
    assert_eq!(arrived, 200_000);
}

/// The baseball database's tables as MariaDB has them: three with a key and a version, one with a key alone, one with
/// neither.
const TABLES: [(&str, &str); 5] = [
    (
        "people",
        "playerID VARCHAR(10) NOT NULL, birthYear SMALLINT UNSIGNED, birthMonth TINYINT, birthDay TINYINT,
         birthCountry VARCHAR(60), birthState VARCHAR(60), birthCity VARCHAR(60), deathYear SMALLINT, deathMonth TINYINT,
         deathDay TINYINT, deathCountry TEXT, deathState TEXT, deathCity TEXT, nameFirst VARCHAR(100), nameLast VARCHAR(100),
         nameGiven TEXT, weight INT UNSIGNED, height MEDIUMINT, bats CHAR(1), throws ENUM('L','R','B','S'), debut DATE,
         finalGame DATE, retroID TEXT, bbrefID VARCHAR(20) CHARACTER SET latin1, row_version BIGINT UNSIGNED NOT NULL UNIQUE,
         modified_at DATETIME(3) NOT NULL, PRIMARY KEY (playerID)",
    ),
    (
        "batting",
        "playerID VARCHAR(10) NOT NULL, yearID SMALLINT NOT NULL, stint TINYINT NOT NULL, teamID CHAR(3), lgID CHAR(2), G INT,
         AB INT, R INT, H INT, `2B` INT, `3B` INT, HR INT, RBI INT, SB INT, CS INT, BB INT, SO INT, IBB INT, HBP INT, SH INT,
         SF INT, GIDP INT, row_version BIGINT NOT NULL UNIQUE, modified_at TIMESTAMP(3) NOT NULL,
         PRIMARY KEY (playerID, yearID, stint)",
    ),
    (
        "salaries",
        "yearID SMALLINT NOT NULL, teamID CHAR(3) NOT NULL, lgID CHAR(2), playerID VARCHAR(10) NOT NULL,
         salary DECIMAL(12,2), row_version INT UNSIGNED NOT NULL UNIQUE, modified_at DATETIME(3) NOT NULL,
         PRIMARY KEY (yearID, teamID, playerID)",
    ),
    (
        "awards",
        "playerID VARCHAR(10), awardID TEXT, yearID SMALLINT, lgID VARCHAR(3), tie CHAR(1), notes VARCHAR(255)",
    ),
    (
        "parks",
        "`park.key` VARCHAR(10) NOT NULL, `park.name` TEXT, `park.alias` TEXT, city VARCHAR(60), state VARCHAR(20),
         country CHAR(2) CHARACTER SET latin1, PRIMARY KEY (`park.key`)",
    ),
];

/// The database's file, unpacked into a folder; none where it is not on this machine.
fn baseball(folder: &std::path::Path) -> Option<Connection> {
    let path = match std::env::var_os("PLIMSOLL_BASEBALL") {
        Some(path) => PathBuf::from(path),
        None => {
            let root = Workspace::find(&Runner::current().expect("a user")).expect("a workspace").root;
            root.join("../shared/data/baseball.sqlite.gz")
        }
    };
    if !path.exists() {
        println!("SKIPPED: {} is missing (PLIMSOLL_BASEBALL names another place)", path.display());
        return None;
    }
    let mut bytes = Vec::new();
    let packed = std::fs::File::open(&path).expect("the database can be read");
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).expect("it can be unpacked");
    let file = folder.join("baseball.sqlite");
    std::fs::File::create(&file).and_then(|mut file| file.write_all(&bytes)).expect("it is written");
    Some(Connection::open(file).expect("a database"))
}

fn literal(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) | ValueRef::Blob(text) => {
            let text = String::from_utf8_lossy(text).replace('\\', "\\\\").replace('\'', "''");
            // Stamps are spelled with a T and a Z.
            match text.strip_suffix('Z').filter(|text| text.len() == 23 && text.as_bytes()[10] == b'T') {
                Some(stamp) => format!("'{}'", stamp.replace('T', " ")),
                None => format!("'{text}'"),
            }
        }
    }
}

/// Copies a table from SQLite.
fn load(local: &mut MariaSession, from: &Connection, table: &str, declared: &str) {
    local.run(&format!("CREATE TABLE {table} ({declared})")).expect("a table");
    let mut statement = from.prepare(&format!("SELECT * FROM {table}")).expect("a statement");
    let columns = statement.column_count();
    let mut rows = statement.query([]).expect("rows");
    let mut batch: Vec<String> = Vec::new();
    loop {
        let row = rows.next().expect("a row");
        if let Some(row) = row {
            let values = (0..columns).map(|place| literal(row.get_ref(place).expect("a value")));
            batch.push(format!("({})", values.collect::<Vec<_>>().join(",")));
        }
        if batch.len() >= 2000 || row.is_none() {
            if !batch.is_empty() {
                local.run(&format!("INSERT INTO {table} VALUES {}", batch.join(","))).expect("rows");
            }
            batch.clear();
        }
        if row.is_none() {
            return;
        }
    }
}

/// Both sides' columns as text, by their own SQL.
fn comparison(local: &mut MariaSession, table: &str) -> Comparison {
    let sql = format!(
        "SELECT column_name, data_type FROM information_schema.columns
         WHERE table_schema = DATABASE() AND table_name = '{table}' ORDER BY ordinal_position"
    );
    let columns: Vec<(String, String, String)> = local
        .rows(&sql)
        .expect("columns")
        .into_iter()
        .map(|row| {
            let [name, data_type] = [0, 1].map(|place| text(&row[place]).expect("text"));
            match data_type.as_str() {
                "datetime" | "timestamp" => (
                    name.clone(),
                    format!("DATE_FORMAT(`{name}`, '%Y-%m-%d %H:%i:%s.%f')"),
                    format!("to_char(\"{name}\", 'YYYY-MM-DD HH24:MI:SS.US')"),
                ),
                _ => (
                    name.clone(),
                    format!("CONVERT(CAST(`{name}` AS CHAR) USING utf8mb4)"),
                    format!("\"{name}\"::text"),
                ),
            }
        })
        .collect();
    let columns: Vec<(&str, &str, &str)> =
        columns.iter().map(|(name, here, there)| (name.as_str(), here.as_str(), there.as_str())).collect();
    Comparison::of_columns(table, &format!("public.{table}"), &columns)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8(bytes.clone()).expect("UTF-8")),
        other => panic!("no text: {other:?}"),
    }
}

fn differences(
    tables: &[(String, Comparison)],
    local: &mut MariaSession,
    server: &mut Client,
    agent: &Agent,
) -> Vec<String> {
    let mut differences = Vec::new();
    for (table, comparison) in tables {
        let rows = local.rows(&format!("SELECT {} FROM {table}", comparison.local_list())).expect("rows");
        let line_of = |row: &Vec<Value>| {
            let values: Vec<Option<String>> = row.iter().map(text).collect();
            line(values.iter().map(Option::as_deref))
        };
        let here = rows.iter().map(line_of).collect();
        differences.extend(comparison.differences_from(here, server, agent.registered.id));
    }
    differences
}

#[test]
fn a_real_database_is_level_again_after_random_damage() {
    let seed =
        std::env::var("PLIMSOLL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(fastrand::u32(..));
    println!("PLIMSOLL_SEED={seed}");
    let folder = tempfile::tempdir().expect("a folder");
    let Some(from) = baseball(folder.path()) else { return };
    let mut local = database("baseball");
    local.run("SET sql_mode = 'STRICT_ALL_TABLES', time_zone = '+00:00'").expect("settings");
    for (table, declared) in TABLES {
        load(&mut local, &from, table, declared);
    }
    let site = Site::new(shared());
    let agent = agent(&site, "baseball", &TABLES.map(|(table, _)| table));
    site.create_tables(&agent);
    let begun = Instant::now();
    let first = agent.sync().expect_code(0).json();
    println!("first sync of 161,801 rows: {:.1} s", begun.elapsed().as_secs_f64());
    for ((table, _), rows) in TABLES.iter().zip([20_093, 108_789, 26_428, 6_236, 255]) {
        assert_eq!(table_of(&first, table)["inserted"], rows, "{table}");
    }
    let mut server = site.owner();
    server.batch_execute("SET timezone = 'UTC'").expect("a setting");
    let tables: Vec<(String, Comparison)> =
        TABLES.iter().map(|(table, _)| ((*table).to_owned(), comparison(&mut local, table))).collect();
    let unequal = differences(&tables, &mut local, &mut server, &agent);
    assert!(unequal.is_empty(), "{} rows differ: {:?}", unequal.len(), &unequal[..unequal.len().min(5)]);
    agent.home.run(["verify", "--quiet"]).expect_code(0);

    // On both sides: rows changed, with and without their versions, gone, and new.
    let mine = format!("database_id = '{}'", agent.registered.id);
    for (i, (table, column)) in
        [("people", "weight"), ("batting", "2B"), ("salaries", "salary")].into_iter().enumerate()
    {
        let some = |of: u32| {
            format!("ORDER BY RAND({}) LIMIT 40", seed.wrapping_add(of).wrapping_add(i as u32 * 10))
        };
        let (changed, in_place, deleted) = (some(1), some(2), some(3));
        local
            .run(&format!(
                "SET @v = 155310 + {i} * 1000;
                 UPDATE {table} SET `{column}` = 1, row_version = (@v := @v + 1) {changed};
                 UPDATE {table} SET `{column}` = 2 {in_place};
                 UPDATE {table} SET playerID = CONCAT('zü', row_version) ORDER BY row_version LIMIT 9;
                 DELETE FROM {table} {deleted}"
            ))
            .expect("local changes");
        let rows = |of: u32| {
            format!(
                "{mine} AND row_version IN (SELECT row_version FROM public.{table} WHERE {mine}
                     ORDER BY md5(row_version::text || '{seed} {of}') LIMIT 40)"
            )
        };
        server
            .batch_execute(&format!(
                "DELETE FROM public.{table} WHERE {}; UPDATE public.{table} SET \"{column}\" = 3 WHERE {};
                 UPDATE public.{table} SET row_version = row_version + 1000000 WHERE {};
                 UPDATE public.{table} SET row_version = -row_version WHERE {}",
                rows(1),
                rows(2),
                rows(3),
                rows(4)
            ))
            .expect("remote damage");
    }
    local
        .run(&format!(
            "DELETE FROM awards ORDER BY RAND({seed}) LIMIT 40; UPDATE awards SET notes = 'ü' ORDER BY RAND({seed} + 1) LIMIT 40;
             INSERT INTO awards SELECT * FROM awards ORDER BY RAND({seed} + 2) LIMIT 40;
             DELETE FROM parks ORDER BY RAND({seed}) LIMIT 5; UPDATE parks SET city = NULL ORDER BY RAND({seed} + 1) LIMIT 5"
        ))
        .expect("local changes");
    for (table, column, rows) in [("awards", "awardID", 40), ("parks", "park.name", 5)] {
        let some = |of: u32| {
            format!(
                "ctid IN (SELECT ctid FROM public.{table} WHERE {mine} ORDER BY md5(ctid::text || '{seed} {of}') LIMIT {rows})"
            )
        };
        server
            .batch_execute(&format!(
                "DELETE FROM public.{table} WHERE {}; UPDATE public.{table} SET \"{column}\" = 'another' WHERE {}",
                some(1),
                some(2)
            ))
            .expect("remote damage");
    }
    let copies = format!("INSERT INTO public.awards SELECT * FROM public.awards WHERE {mine} LIMIT 40");
    server.batch_execute(&copies).expect("copies");
    assert!(differences(&tables, &mut local, &mut server, &agent).len() > 500);
    agent.home.run(["verify", "--quiet"]).expect_code(1);
    let begun = Instant::now();
    let runs = agent.level_within(108_789_u32.div_ceil(10_000) + 2);
    println!("level after {runs} runs, {:.1} s", begun.elapsed().as_secs_f64());
    let unequal = differences(&tables, &mut local, &mut server, &agent);
    assert!(unequal.is_empty(), "{} rows differ: {:?}", unequal.len(), &unequal[..unequal.len().min(5)]);
}
