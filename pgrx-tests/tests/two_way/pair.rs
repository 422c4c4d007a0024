//! A table of people on both sides: a local database, and its replica on the server.

use plimsoll_tests::{Agent, Finished, Kind, LocalDatabase, Site, TestCluster, shared, table_of};
use postgres::Client;
use rusqlite::Connection;
use serde_json::Value as Json;

/// How people are declared on the server.
const MANAGED: &str = "
    CREATE TABLE people (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL, name text NOT NULL,
        phone text, town text, changed_at timestamptz NOT NULL, PRIMARY KEY (client_id, database_id, id))";

/// How they are in SQLite.
pub const LOCAL: &str = "
    CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, phone TEXT, town TEXT, changed_at TEXT NOT NULL)";

/// An empty table of people in a local database.
pub fn people_in(local: &LocalDatabase) {
    let sql = match local.kind() {
        Kind::Sqlite => LOCAL,
        Kind::Postgres => {
            "CREATE TABLE people (id int PRIMARY KEY, name text NOT NULL, phone text, town text,
                 changed_at timestamptz NOT NULL)"
        }
        Kind::MariaDb => {
            "CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(50) NOT NULL, phone VARCHAR(20), town VARCHAR(20),
                 changed_at DATETIME(6) NOT NULL)"
        }
    };
    local.connect().run(sql);
}

/// A person as both sides tell: id, name, phone, town, stamp in seconds of the Unix epoch.
pub type Person = (i64, String, Option<String>, Option<String>, i64);

/// The tables of a server, managed.
pub fn site() -> Site<'static> {
    site_on(shared())
}

/// The same on a server of one's own.
pub fn site_on(cluster: &TestCluster) -> Site<'_> {
    let site = Site::new(cluster);
    let mut superuser = site.superuser();
    superuser
        .batch_execute(&format!(
            "GRANT CREATE ON SCHEMA public TO {owner}; SET ROLE {owner}; {MANAGED}; RESET ROLE;
             SELECT plimsoll.manage_table('people', version_column => 'changed_at', version_scope => 'row')",
            owner = site.owner
        ))
        .expect("a managed table");
    site
}

/// Settings of a two-way table.
pub fn table(more: &str) -> String {
    format!("[[table]]\nname = \"people\"\ndirection = \"two-way\"\n{more}\n")
}

/// A local database with its replica.
pub struct Pair<'s> {
    pub site: &'s Site<'static>,
    pub agent: Agent,
    pub local: Connection,
    pub remote: Client,
}

impl<'s> Pair<'s> {
    pub fn new(site: &'s Site<'static>, client_id: &str, more: &str) -> Self {
        let agent = site.agent(client_id, LOCAL, &[], "");
        agent.write_config(&table(more));
        let (local, remote) = (agent.local(), site.owner());
        Pair { site, agent, local, remote }
    }

    /// Stores a person here, changed so many seconds after an hour of the year 2024.
    pub fn put_here(&self, id: i64, name: &str, phone: &str, seconds: i64) {
        let sql =
            "INSERT OR REPLACE INTO people VALUES (?, ?, ?, NULL, datetime(1704067200 + ?, 'unixepoch'))";
        self.local.execute(sql, (id, name, phone, seconds)).expect("stored here");
    }

    /// Stores a person there.
    pub fn put_there(&mut self, id: i64, name: &str, phone: &str, seconds: i64) {
        let sql = format!(
            "INSERT INTO people VALUES ('{}', '{}', {id}, '{name}', '{phone}', NULL, to_timestamp(1704067200 + {seconds}))
             ON CONFLICT (client_id, database_id, id) DO UPDATE SET name = excluded.name, phone = excluded.phone,
                 changed_at = excluded.changed_at",
            self.agent.client_id, self.agent.registered.id
        );
        self.remote.batch_execute(&sql).expect("stored there");
    }

    /// Runs a statement here.
    pub fn here(&self, sql: &str) {
        self.local.execute_batch(sql).expect("done here");
    }

    /// Runs a statement there.
    pub fn there(&mut self, sql: &str) {
        self.remote.batch_execute(sql).expect("done there");
    }

    pub fn people_here(&self) -> Vec<Person> {
        let sql = "SELECT id, name, phone, town, unixepoch(changed_at) FROM people ORDER BY id";
        let mut statement = self.local.prepare(sql).expect("a statement");
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)));
        rows.expect("people").collect::<Result<_, _>>().expect("people")
    }

    pub fn people_there(&mut self) -> Vec<Person> {
        let sql =
            "SELECT id::int8, name, phone, town, floor(extract(epoch FROM changed_at))::int8 FROM people
                   WHERE database_id = $1 ORDER BY id";
        let rows = self.remote.query(sql, &[&self.agent.registered.id]).expect("people");
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect()
    }

    /// Both sides, which must have the same.
    #[track_caller]
    pub fn both(&mut self) -> Vec<Person> {
        let (here, there) = (self.people_here(), self.people_there());
        assert_eq!(here, there, "both sides have the same");
        here
    }

    /// The phone of each person of one side.
    pub fn phones(people: &[Person]) -> Vec<(i64, &str)> {
        people.iter().map(|person| (person.0, person.2.as_deref().unwrap_or("-"))).collect()
    }

    pub fn run(&self) -> Finished {
        self.agent.sync()
    }

    /// Makes a run that must succeed. What became of the table.
    #[track_caller]
    pub fn sync(&self) -> Json {
        let finished = self.run().expect_code(0);
        table_of(&finished.json(), "people").clone()
    }

    /// The counts of a run that are not 0.
    pub fn moved(report: &Json) -> Vec<(String, u64)> {
        let moved = report["moved"].as_object().expect("counts");
        let counts = moved.iter().filter(|(name, _)| *name != "skew");
        counts
            .filter_map(|(name, count)| Some((name.clone(), count.as_u64().filter(|count| *count > 0)?)))
            .collect()
    }
}

/// Counts as [`Pair::moved`] answers them.
pub fn counts(counts: &[(&str, u64)]) -> Vec<(String, u64)> {
    let mut counts: Vec<_> = counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    counts.sort();
    counts
}
