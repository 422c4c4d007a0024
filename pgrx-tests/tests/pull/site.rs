//! A replica that is right, and a local database that is made level with it. Both are compared by their own text,
//! without a word of Plimsoll's.

use plimsoll_tests::{Agent, Kind, LocalDatabase, Site, shared};
use postgres::Client;

/// A managed table, its local one, and how a row of either is told as text.
pub struct Table {
    pub name: &'static str,
    pub managed: &'static str,
    /// What follows the table's name in `plimsoll.manage_table`.
    pub manage: &'static str,
    /// As SQLite declares it; what others say otherwise is replaced.
    pub local: &'static str,
    /// An expression that both sides understand, but for the name of the type of text.
    pub text: &'static str,
}

impl Table {
    /// The statement that makes the local table.
    fn local_sql(&self, kind: Kind) -> String {
        let columns = match kind {
            // No key and no unique value is of any length.
            Kind::MariaDb => self.local.replace("TEXT", "VARCHAR(60)"),
            Kind::Sqlite | Kind::Postgres => self.local.to_owned(),
        };
        format!("CREATE TABLE {} ({columns});", self.name)
    }
}

/// With a version, and a unique value beside the key.
pub const SALE: Table = Table {
    name: "sale",
    managed: "id bigint NOT NULL, code text NOT NULL, amount bigint, version bigint NOT NULL,
              PRIMARY KEY (client_id, database_id, id), UNIQUE (client_id, database_id, code)",
    manage: ", version_column => 'version'",
    local: "id INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE, amount INTEGER, version INTEGER NOT NULL",
    text: "id || ',' || code || ',' || coalesce(CAST(amount AS text), '-') || ',' || version",
};

/// Without a version.
pub const ITEM: Table = Table {
    name: "item",
    managed: "id bigint NOT NULL, name text, PRIMARY KEY (client_id, database_id, id)",
    manage: "",
    local: "id INTEGER PRIMARY KEY, name TEXT",
    text: "id || ',' || coalesce(name, '-')",
};

/// Without a key: equal rows are counted.
pub const NOTE: Table = Table {
    name: "note",
    managed: "text text, amount bigint",
    manage: ", key_columns => '{}'",
    local: "text TEXT, amount INTEGER",
    text: "coalesce(text, '-') || ',' || coalesce(CAST(amount AS text), '-')",
};

/// With a version that counts a row's own changes, as two-way needs it.
pub const PERSON: Table = Table {
    name: "person",
    managed: "id bigint NOT NULL, name text, version bigint NOT NULL, PRIMARY KEY (client_id, database_id, id)",
    manage: ", version_column => 'version', version_scope => 'row'",
    local: "id INTEGER PRIMARY KEY, name TEXT, version INTEGER NOT NULL",
    text: "id || ',' || name || ',' || version",
};

/// A server and one agent that pulls.
pub struct Pull {
    pub site: Site<'static>,
    pub agent: Agent,
    pub server: Client,
    pub local: LocalDatabase,
    tables: Vec<&'static Table>,
}

impl Pull {
    /// With these tables, empty on both sides, SQLite on the local one.
    pub fn of(tables: &[&'static Table]) -> Self {
        Self::with(tables, "")
    }

    /// The same with further settings (TOML) in front of the tables.
    pub fn with(tables: &[&'static Table], settings: &str) -> Self {
        let site = Site::new(shared());
        let agent = site.agent("acme", "", &[], "");
        let local = LocalDatabase::of_agent(&agent);
        Self::between(site, agent, local, tables, settings)
    }

    /// The same beside a local database of any kind.
    pub fn beside(local: LocalDatabase, tables: &[&'static Table], settings: &str) -> Self {
        let site = Site::new(shared());
        let agent = site.agent_of("acme", local.setting());
        Self::between(site, agent, local, tables, settings)
    }

    fn between(
        site: Site<'static>,
        agent: Agent,
        local: LocalDatabase,
        tables: &[&'static Table],
        settings: &str,
    ) -> Self {
        let made: String = tables.iter().map(|table| table.local_sql(local.kind())).collect();
        local.connect().run(&made);
        agent.write_config(&config(tables, settings));
        let mut server = site.superuser();
        server.batch_execute(&format!("GRANT CREATE ON SCHEMA public TO {}", site.owner)).expect("a grant");
        for table in tables {
            server
                .batch_execute(&format!(
                    "CREATE TABLE {name} (client_id text NOT NULL, database_id uuid NOT NULL, {columns});
                     ALTER TABLE {name} OWNER TO {owner};
                     SELECT plimsoll.manage_table('public.{name}'{manage});",
                    name = table.name,
                    columns = table.managed,
                    owner = site.owner,
                    manage = table.manage
                ))
                .expect("a managed table");
        }
        Pull { site, agent, server, local, tables: tables.to_vec() }
    }

    /// Has the tables go in another direction (TOML).
    pub fn configure(&self, direction: &str) {
        self.agent.write_config(&config(&self.tables, "").replace("direction = \"pull\"", direction));
    }

    /// Has each table go its own way (TOML).
    pub fn configure_each(&self, tables: &[(&Table, &str)]) {
        let tables: String = tables
            .iter()
            .map(|(table, settings)| {
                format!("[[table]]\nname = \"{0}\"\nremote = \"public.{0}\"\n{settings}\n", table.name)
            })
            .collect();
        self.agent.write_config(&tables);
    }

    /// Changes the replica behind the extension's back; `$T` stands for the tenant's two columns' values.
    #[track_caller]
    pub fn there(&mut self, sql: &str) {
        let tenant = format!("'{}', '{}'::uuid", self.agent.client_id, self.agent.registered.id);
        self.server
            .batch_execute(&sql.replace("$T", &tenant))
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Changes the local database as an application does.
    #[track_caller]
    pub fn here(&self, sql: &str) {
        self.local.connect().run(sql);
    }

    /// Makes one run, which must go well; what it reported.
    #[track_caller]
    pub fn sync(&self) -> serde_json::Value {
        self.agent.sync().expect_code(0).json()
    }

    /// The rows of both sides, in order.
    pub fn rows(&mut self, table: &Table) -> (Vec<String>, Vec<String>) {
        let sql = format!("SELECT {} FROM {}", table.text, table.name);
        let local_sql = match self.local.kind() {
            Kind::MariaDb => sql.replace("AS text", "AS CHAR"),
            Kind::Sqlite | Kind::Postgres => sql.clone(),
        };
        let here = self.local.connect().rows(&local_sql);
        let mut here: Vec<String> =
            here.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
        let there = self.server.query(&sql, &[]).expect("rows");
        let mut there: Vec<String> = there.iter().map(|row| row.get(0)).collect();
        here.sort_unstable();
        there.sort_unstable();
        (here, there)
    }

    /// Both sides hold the same.
    #[track_caller]
    pub fn assert_same(&mut self, context: &str) {
        for table in self.tables.clone() {
            let (here, there) = self.rows(table);
            let only = |one: &[String], other: &[String]| -> Vec<String> {
                one.iter().filter(|row| other.binary_search(row).is_err()).take(5).cloned().collect()
            };
            assert!(
                here == there,
                "{context}: {} has {} rows here, {} there; here alone {:?}, there alone {:?}",
                table.name,
                here.len(),
                there.len(),
                only(&here, &there),
                only(&there, &here)
            );
        }
    }

    /// The same, and `plimsoll verify` says so.
    #[track_caller]
    pub fn assert_level(&mut self, context: &str) {
        self.assert_same(context);
        let verdict = self.agent.home.run(["verify", "--quiet"]);
        assert_eq!(verdict.code, Some(0), "{context}: {}\n{}", verdict.stdout, verdict.stderr);
    }
}

/// The configuration behind `[source]`.
pub fn config(tables: &[&Table], settings: &str) -> String {
    let tables: String = tables
        .iter()
        .map(|table| {
            format!(
                "\n[[table]]\nname = \"{0}\"\nremote = \"public.{0}\"\ndirection = \"pull\"\n",
                table.name
            )
        })
        .collect();
    format!("{settings}\n{tables}")
}
