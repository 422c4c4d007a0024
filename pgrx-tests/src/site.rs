//! One Postgres database with managed tables in it, and agents that keep local databases level with it: all
//! made as a user would, with the client's own commands.

use postgres::Client;
use rusqlite::Connection;
use serde_json::Value as Json;

use crate::{ClientHome, Finished, Login, Registered, TestCluster};

/// The local database's file in an agent's directory.
pub const LOCAL: &str = "local.sqlite";

/// A database on a server, with the extension in it.
#[derive(Debug)]
pub struct Site<'c> {
    /// The server.
    pub cluster: &'c TestCluster,
    /// The database's name.
    pub database: String,
    /// The role that owns the managed tables.
    pub owner: String,
}

/// A registered database and the directory its agent works in.
#[derive(Debug)]
pub struct Agent {
    /// The directory, with `plimsoll.toml` and the local database.
    pub home: ClientHome,
    /// Id and token.
    pub registered: Registered,
    /// Whose database it is.
    pub client_id: String,
    /// As whom it connects.
    pub login: Login,
    url: String,
    source: String,
}

impl<'c> Site<'c> {
    /// A new database without managed tables.
    pub fn new(cluster: &'c TestCluster) -> Self {
        Site { cluster, database: cluster.create_database(), owner: cluster.create_owner() }
    }

    /// Registers a database of a client; its local database has what `sql` makes. The tables are configured
    /// in the order given, with further settings (TOML) before them.
    pub fn agent(&self, client_id: &str, sql: &str, tables: &[&str], settings: &str) -> Agent {
        let agent = self.agent_of(client_id, format!("sqlite = \"{LOCAL}\""));
        agent.local().execute_batch(sql).expect("the local tables");
        agent.configure(tables, settings);
        agent
    }

    /// Registers a database of a client, which is where `source` says, a line of the configuration. Nothing is configured
    /// yet.
    pub fn agent_of(&self, client_id: &str, source: String) -> Agent {
        let registered = self.cluster.register(&self.database, client_id, "till");
        let login = self.cluster.create_agent();
        let url = self.cluster.client_url(&login, &self.database);
        Agent { home: ClientHome::new(), registered, client_id: client_id.to_owned(), login, url, source }
    }

    /// Makes the managed tables as a DBA would: with what `plimsoll schema` prints.
    pub fn create_tables(&self, agent: &Agent) {
        let printed = agent.home.run(["schema", "--owner", &self.owner]).expect_code(0).stdout;
        let mut superuser = self.superuser();
        // The owner of tables in it must be able to create indexes there.
        superuser
            .batch_execute(&format!("GRANT CREATE ON SCHEMA public TO {}", self.owner))
            .expect("a grant");
        superuser.batch_execute(&printed).unwrap_or_else(|error| panic!("{error:?}\n{printed}"));
    }

    /// A connection as superuser.
    pub fn superuser(&self) -> Client {
        self.cluster.superuser(&self.database)
    }

    /// A connection as the tables' owner: what it does happens behind the extension's back.
    pub fn owner(&self) -> Client {
        let mut client = self.superuser();
        client.batch_execute(&format!("SET ROLE {}", self.owner)).expect("the owner's role");
        client
    }

    /// The rows of all databases in a managed table, as text: the same before and after means that nothing
    /// changed.
    pub fn content(&self, relation: &str) -> Vec<String> {
        let query = format!("SELECT t::text FROM {relation} t ORDER BY 1");
        self.superuser().query(&query, &[]).expect("the rows").iter().map(|row| row.get(0)).collect()
    }
}

impl Agent {
    /// Opens the local database that [`Site::agent`] made.
    pub fn local(&self) -> Connection {
        let connection = self.home.sqlite(LOCAL);
        connection.busy_timeout(std::time::Duration::from_secs(10)).expect("a timeout");
        connection.pragma_update(None, "synchronous", "OFF").expect("a setting");
        connection
    }

    /// Writes the configuration and the token's file.
    pub fn configure(&self, tables: &[&str], settings: &str) {
        let tables: String =
            tables.iter().map(|table| format!("\n[[table]]\nname = \"{table}\"\n")).collect();
        self.write_config(&format!("{settings}\n{tables}"));
    }

    /// Writes the configuration with everything after `[server]` and `[source]` as given.
    pub fn write_config(&self, rest: &str) {
        self.home.write("token", &self.registered.token);
        let text = format!(
            "[server]\nurl = \"{}\"\ndatabase_id = \"{}\"\ntoken_file = \"token\"\n\n\
             [source]\n{}\n\n{rest}",
            self.url, self.registered.id, self.source
        );
        self.home.write("plimsoll.toml", &text);
    }

    /// Lets it connect elsewhere, from the next configuration on.
    pub fn connect_to(&mut self, url: &str) {
        self.url = url.to_owned();
    }

    /// Makes one run.
    pub fn sync(&self) -> Finished {
        self.home.run(["sync", "--json", "--quiet"])
    }

    /// Makes runs until `plimsoll verify` says level, and answers how many it took; more than `most` fail the
    /// test.
    #[track_caller]
    pub fn level_within(&self, most: u32) -> u32 {
        let mut last = None;
        for runs in 1..=most {
            let run = self.sync();
            let verdict = self.home.run(["verify", "--quiet"]);
            if verdict.code == Some(0) {
                return runs;
            }
            last = Some((run, verdict));
        }
        panic!("not level after {most} runs: {last:?}")
    }
}

/// What a run reported of one table.
#[track_caller]
pub fn table_of<'r>(report: &'r Json, table: &str) -> &'r Json {
    let tables = report["tables"].as_array().expect("tables");
    let found = tables.iter().find(|entry| entry["table"] == table);
    found.unwrap_or_else(|| panic!("no table {table} in {report}"))
}
