//! A local Postgres database whose tables are managed there too, the shared one, and the agent between them.

use std::time::{Duration, Instant};

use plimsoll_tests::{Agent, Finished, Login, Site, shared};
use postgres::Client;

/// The tables: rows with versions, rows at a hash of their key, and rows without a key.
pub const TABLES: [&str; 3] = ["sale", "stock", "visit"];

/// As they are made on the local side.
const LOCAL: &str = "
    CREATE TABLE sale (note text, id bigint PRIMARY KEY, amount numeric(12,2), version bigint NOT NULL);
    CREATE INDEX ON sale (version, id);
    CREATE TABLE stock (shop int, article text, pieces int, PRIMARY KEY (shop, article));
    CREATE TABLE visit (day date, guests int);";

/// What `plimsoll schema` cannot know of them.
const SALE_VERSION: &str = "version";

/// Both databases and the agent.
pub struct Shop {
    /// The shared database.
    pub site: Site<'static>,
    /// The agent.
    pub agent: Agent,
    /// The application's connection to the local database, as superuser.
    pub local: Client,
    /// Who reads it for the agent.
    pub reader: Login,
    /// The local database's name.
    pub database: String,
}

impl Shop {
    /// Tables of so many rows each on the local side, managed there and on the shared one; the replicas are empty.
    pub fn new(rows: u32) -> Self {
        let site = Site::new(shared());
        let agent = site.agent("acme", "", &[], "");
        let database = shared().create_database();
        let reader = shared().create_login(&["plimsoll_reader"]);
        let (mut local, owner) = (shared().superuser(&database), shared().create_owner());
        local
            .batch_execute(&format!(
                "GRANT CREATE ON SCHEMA public TO {owner}; SET ROLE {owner}; {LOCAL} RESET ROLE;
                 GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
                 INSERT INTO sale SELECT 'sale ' || i, i, i * 0.5, i * 10 FROM generate_series(1, {rows}) i;
                 INSERT INTO stock SELECT i % 7, 'article ' || i, i FROM generate_series(1, {rows}) i;
                 INSERT INTO visit SELECT date '2020-01-01' + i / 3 % 1000, i % 4 FROM generate_series(1, {rows}) i",
                role = reader.role
            ))
            .expect("the local tables");
        let shop = Shop { site, agent, local, reader, database };
        shop.configure("", "");
        shop.site.create_tables(&shop.agent);
        shop
    }

    /// Writes the configuration, with more lines of `[source]` and of the table `sale`.
    pub fn configure(&self, source: &str, sale: &str) {
        self.configure_tables(&TABLES, source, sale);
    }

    /// The same with one table alone.
    pub fn configure_alone(&self, table: &str, source: &str) {
        self.configure_tables(&[table], source, "");
    }

    fn configure_tables(&self, tables: &[&str], source: &str, sale: &str) {
        let server = shared().client_url(&self.agent.login, &self.site.database);
        let local = shared().client_url(&self.reader, &self.database);
        let tables: String = tables
            .iter()
            .map(|name| match *name {
                "sale" => format!("\n[[table]]\nname = 'sale'\nversion = '{SALE_VERSION}'\n{sale}\n"),
                name => format!("\n[[table]]\nname = '{name}'\n"),
            })
            .collect();
        let text = format!(
            "[server]\nurl = \"{server}\"\ndatabase_id = \"{}\"\ntoken_file = \"token\"\n\n\
             [source]\npostgres = \"{local}\"\n{source}\n{tables}",
            self.agent.registered.id
        );
        self.agent.home.write("plimsoll.toml", &text);
    }

    /// Has the local database manage its tables for this one, as documented: under its id, its key and its column
    /// numbers.
    pub fn manage(&mut self) {
        self.adopt_as_shared();
        for table in TABLES {
            self.manage_table(table, "");
        }
    }

    /// Registers the database locally, with the key that it has on the shared server.
    pub fn adopt_as_shared(&mut self) {
        let sql = "SELECT fingerprint_key FROM plimsoll.database_record";
        let key: Vec<u8> = self.site.superuser().query_one(sql, &[]).expect("a key").get(0);
        self.adopt(&key);
    }

    /// Registers the database locally, with this key.
    pub fn adopt(&mut self, key: &[u8]) {
        let id = self.agent.registered.id;
        self.local
            .execute("SELECT plimsoll.adopt_database($1, 'acme', 'till', $2)", &[&id, &key])
            .expect("the database under its id");
        let role = self.reader.role.clone();
        self.local
            .execute("SELECT plimsoll.grant_database($1, $2::text::name)", &[&id, &role])
            .expect("a grant");
    }

    /// Has the local database manage a table; `numbers`: the columns' numbers, as JSON, where not the server's.
    pub fn manage_table(&mut self, table: &str, numbers: &str) {
        let id = self.agent.registered.id;
        let numbers = match numbers {
            "" => self.value(&format!(
                "SELECT jsonb_object_agg(column_name, column_number)::text
                 FROM plimsoll.table_schema('{id}', 'public.{table}')"
            )),
            given => given.to_owned(),
        };
        let version = match table {
            "sale" => "version_column => 'version',",
            "visit" => "key_columns => '{}',",
            _ => "",
        };
        self.run(&format!(
            "SELECT plimsoll.manage_table('{table}', {version} tenant_columns => '{{}}', database_id => '{id}',
                 column_numbers => '{numbers}');
             SELECT plimsoll.rebuild_manifest('{id}', 'public.{table}')"
        ));
    }

    /// Text that the shared database answers.
    pub fn value(&self, sql: &str) -> String {
        self.site.superuser().query_one(sql, &[]).unwrap_or_else(|error| panic!("{error:?}: {sql}")).get(0)
    }

    /// Runs statements of the application on the local database.
    pub fn run(&mut self, sql: &str) {
        self.local.batch_execute(sql).unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    }

    /// Runs statements on the shared database, behind the extension's back.
    pub fn damage(&self, sql: &str) {
        self.site.owner().batch_execute(sql).unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    }

    /// Runs a command of the client, and counts how many rows of each local table it read. Log lines are in what it
    /// reported.
    #[track_caller]
    pub fn counted(&mut self, arguments: &[&str]) -> (Finished, [i64; 3]) {
        let before = self.rows_read();
        let finished = self.agent.home.run(arguments);
        let after = self.rows_read();
        (finished, std::array::from_fn(|at| after[at] - before[at]))
    }

    /// Waits until the agent's sessions have ended.
    pub fn wait_for_sessions(&mut self) {
        let sessions =
            format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", self.reader.role);
        let begun = Instant::now();
        while self.local.query_one(&sessions, &[]).expect("sessions").get::<_, i64>(0) > 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "the agent's sessions do not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Rows of the local tables that were read so far, by index or by scan. A session reports them when it ends.
    fn rows_read(&mut self) -> [i64; 3] {
        self.wait_for_sessions();
        report_counters(&mut self.local);
        TABLES.map(|table| {
            let sql = format!(
                "SELECT (seq_tup_read + (SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes i
                     WHERE i.relid = t.relid))::int8
                 FROM pg_stat_user_tables t WHERE relname = '{table}'"
            );
            self.local.query_one(&sql, &[]).expect("counters").get(0)
        })
    }

    /// The rows of both sides as text, which must be the same.
    #[track_caller]
    pub fn assert_same(&mut self) {
        let id = self.agent.registered.id;
        for (table, columns) in [
            ("sale", "id, note, amount, version"),
            ("stock", "shop, article, pieces"),
            ("visit", "day, guests"),
        ] {
            let content = |client: &mut Client, condition: &str| -> Vec<String> {
                let sql = format!("SELECT ({columns})::text FROM {table} WHERE {condition} ORDER BY 1");
                client.query(&sql, &[]).expect("rows").iter().map(|row| row.get(0)).collect()
            };
            let here = content(&mut self.local, "true");
            let there = content(&mut self.site.superuser(), &format!("database_id = '{id}'"));
            assert_eq!(here.len(), there.len(), "{table}");
            let differing = here.iter().zip(&there).find(|(here, there)| here != there);
            assert_eq!(differing, None, "{table}");
        }
    }
}

/// Has this session's counters of rows counted too, and everybody's shown.
fn report_counters(client: &mut Client) {
    if shared().major() >= 15 {
        client.execute("SELECT pg_stat_force_next_flush()", &[]).expect("this session's counters too");
        return;
    }
    // A session reports them half a second after it last did, and they are shown half a second later at the latest.
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(600));
        client.batch_execute("SELECT 1").expect("the end of a transaction");
    }
}
