//! Postgres and MariaDB as the local side.

use plimsoll_cluster::MariaDb;
use plimsoll_cluster::mysql_async::Value;
use plimsoll_tests::{Agent, Site, shared, table_of};
use serde_json::Value as Json;

use crate::pair::{Pair, counts, site, table};

/// A local database of another kind: statements, and its people as text.
trait Local {
    fn run(&mut self, sql: &str);
    fn people(&mut self) -> Vec<(i64, String, String)>;
}

impl Local for postgres::Client {
    fn run(&mut self, sql: &str) {
        self.batch_execute(sql).expect("done");
    }

    fn people(&mut self) -> Vec<(i64, String, String)> {
        let sql = "SELECT id::int8, phone, to_char(changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM people ORDER BY id";
        let rows = self.query(sql, &[]).expect("people");
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    }
}

impl Local for plimsoll_cluster::MariaSession {
    fn run(&mut self, sql: &str) {
        plimsoll_cluster::MariaSession::run(self, sql).expect("done");
    }

    fn people(&mut self) -> Vec<(i64, String, String)> {
        let text = |value: &Value| match value {
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            value => panic!("{value:?} is no text"),
        };
        let sql = "SELECT CAST(id AS CHAR), phone, DATE_FORMAT(changed_at, '%Y-%m-%d %H:%i:%s') FROM people ORDER BY id";
        let rows = self.rows(sql).expect("people");
        rows.iter().map(|row| (text(&row[0]).parse().expect("an id"), text(&row[1]), text(&row[2]))).collect()
    }
}

fn agent(site: &Site<'static>, client_id: &str, source: &str, password: Option<&str>) -> Agent {
    let mut agent = site.agent(client_id, "", &[], "");
    if let Some(password) = password {
        agent.home.set_env("PLIMSOLL_SOURCE_PASSWORD", password);
    }
    let text = format!(
        "[server]\nurl = \"{}\"\ndatabase_id = \"{}\"\ntoken_file = \"token\"\n\n[source]\n{source}\n\n{}",
        site.cluster.client_url(&agent.login, &site.database),
        agent.registered.id,
        table("policy = \"newest\"")
    );
    agent.home.write("plimsoll.toml", &text);
    agent
}

fn there(site: &Site<'static>, agent: &Agent) -> Vec<(i64, String, String)> {
    let sql =
        "SELECT id::int8, phone, to_char(changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM people
               WHERE database_id = $1 ORDER BY id";
    let rows = site.superuser().query(sql, &[&agent.registered.id]).expect("people");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// The example, deletes both ways, a lost base and a conflict, whatever the kind.
fn go_both_ways(site: &Site<'static>, agent: &Agent, local: &mut dyn Local) {
    let tenant = format!("'{}', '{}'", agent.client_id, agent.registered.id);
    let mine = format!("database_id = '{}'", agent.registered.id);
    let mut owner = site.owner();
    let mut remote = |sql: &str| owner.batch_execute(sql).expect("done there");
    let sync = || -> Json {
        let finished = agent.sync().expect_code(0);
        table_of(&finished.json(), "people").clone()
    };
    local.run(
        "INSERT INTO people VALUES (1, 'John Doe', '555-0001', NULL, '2024-01-01 08:00:00'),
         (2, 'Jane Doe', '555-3210', NULL, '2024-01-01 12:00:00'), (3, 'here', '3', NULL, '2024-01-01 12:00:00')",
    );
    remote(&format!(
        "INSERT INTO people VALUES ({tenant}, 1, 'John Doe', '123-4567', NULL, '2024-01-01 11:00:00+00'),
         ({tenant}, 2, 'Jane Doe', '555-0002', NULL, '2024-01-01 09:00:00+00'),
         ({tenant}, 4, 'there', '4', NULL, '2024-01-01 12:00:00+00')"
    ));
    let report = sync();
    let refused =
        site.superuser().query("SELECT reason::text FROM plimsoll.conflicts", &[]).expect("records");
    let refused: Vec<Option<String>> = refused.iter().map(|row| row.get(0)).collect();
    assert_eq!(refused, []);
    assert_eq!(Pair::moved(&report), counts(&[("sent", 2), ("received", 2), ("conflicts", 2)]), "{report}");
    let people = local.people();
    let expected = [
        (1, "123-4567", "2024-01-01 11:00:00"),
        (2, "555-3210", "2024-01-01 12:00:00"),
        (3, "3", "2024-01-01 12:00:00"),
        (4, "4", "2024-01-01 12:00:00"),
    ];
    assert_eq!(people, expected.map(|(id, phone, stamp)| (id, phone.to_owned(), stamp.to_owned())));
    assert_eq!(there(site, agent), people);
    assert_eq!(Pair::moved(&sync()), counts(&[]));
    local.run("DELETE FROM people WHERE id = 4");
    remote(&format!(
        "UPDATE people SET phone = '33', changed_at = '2024-01-02 12:00:00+00' WHERE id = 3 AND {mine}"
    ));
    assert_eq!(Pair::moved(&sync()), counts(&[("received", 1), ("deleted_there", 1)]));
    // Without the base nothing is deleted.
    local.run("DROP TABLE plimsoll_two_way");
    local.run("DELETE FROM people WHERE id = 1");
    let report = sync();
    assert_eq!(Pair::moved(&report), counts(&[("undecided", 1)]), "{report}");
    remote(&format!("DELETE FROM people WHERE id = 1 AND {mine}"));
    sync();
    assert_eq!((local.people().len(), there(site, agent)), (2, local.people()));
    assert_eq!(Pair::moved(&sync()), counts(&[]));
}

#[test]
fn a_local_postgres_goes_both_ways() {
    let site = site();
    let database = shared().create_empty_database();
    let mut local = shared().superuser(&database);
    let login = shared().create_login(&[]);
    local.run(&format!(
        "CREATE TABLE people (id int PRIMARY KEY, name text NOT NULL, phone text, town text, changed_at timestamptz NOT NULL);
         ALTER TABLE people OWNER TO {role}; GRANT CREATE ON SCHEMA public TO {role};
         ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role}; SET timezone = 'UTC'",
        role = login.role
    ));
    let url = format!("postgres = \"{}\"", shared().client_url(&login, &database));
    let agent = agent(&site, "postgres", &url, None);
    go_both_ways(&site, &agent, &mut local);
}

#[test]
fn a_local_mariadb_goes_both_ways() {
    let site = site();
    let server = MariaDb::start(&["--character-set-server=utf8mb4"]).expect("a server");
    server.create_user("writer", "open sesame").expect("a user");
    let mut local = server.create_database("people").expect("a database");
    local
        .run("GRANT ALL ON people.* TO 'writer'@'%'")
        .and_then(|()| {
            local.run(
                "CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(50) NOT NULL, phone VARCHAR(20), town VARCHAR(20),
                 changed_at DATETIME(6) NOT NULL)",
            )
        })
        .expect("a table");
    let url = format!("mysql = \"{}\"", server.url("writer", "people"));
    let agent = agent(&site, "mariadb", &url, Some("open sesame"));
    go_both_ways(&site, &agent, &mut local);
}
