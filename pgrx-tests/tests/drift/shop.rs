//! An agent with a table that is altered, `items`, and one beside it, `others`.

use plimsoll_tests::{Agent, Comparison, Site, assert_equal, table_of};
use serde_json::Value as Json;

/// Rows of each table.
pub const ROWS: i64 = 300;

const LOCAL: &str = "
    CREATE TABLE items (id INTEGER PRIMARY KEY, name VARCHAR(10), qty INTEGER, price NUMERIC, made TEXT,
        row_version INTEGER NOT NULL);
    CREATE INDEX items_version ON items (row_version);
    CREATE TABLE others (id INTEGER PRIMARY KEY, name TEXT, row_version INTEGER NOT NULL);
    CREATE INDEX others_version ON others (row_version);";

const MANAGED: &str = "
    CREATE TABLE items (client_id text NOT NULL, database_id uuid NOT NULL, id bigint NOT NULL, name varchar(10),
        qty int, price numeric(10,2), made timestamp(0), row_version bigint NOT NULL,
        PRIMARY KEY (client_id, database_id, id));
    CREATE TABLE others (client_id text NOT NULL, database_id uuid NOT NULL, id bigint NOT NULL, name text,
        row_version bigint NOT NULL, PRIMARY KEY (client_id, database_id, id));";

/// The place, its agent, and how both sides are compared.
pub struct Shop {
    pub site: Site<'static>,
    pub agent: Agent,
}

impl Shop {
    /// Everything is replicated, with manifests or without.
    pub fn open(keep_manifest: bool) -> Self {
        let site = Site::new(plimsoll_tests::shared());
        let agent = site.agent("acme", LOCAL, &["items", "others"], "");
        let insert = |table: &str, columns: &str| {
            format!(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
                 INSERT INTO {table} SELECT {columns} FROM n;"
            )
        };
        agent
            .local()
            .execute_batch(&format!(
                "{}{}",
                insert("items", "i, 'item ' || i, i, i + 0.25, '2026-01-01 00:00:00', i"),
                insert("others", "i, 'other ' || i, i")
            ))
            .expect("rows");
        let mut superuser = site.superuser();
        superuser
            .batch_execute(&format!("GRANT CREATE ON SCHEMA public TO {}", site.owner))
            .expect("a grant");
        site.owner().batch_execute(MANAGED).expect("the tables");
        for table in ["items", "others"] {
            let manage = format!(
                "SELECT plimsoll.manage_table('{table}', version_column => 'row_version', keep_manifest => {keep_manifest})"
            );
            superuser.batch_execute(&manage).expect("managed");
        }
        let shop = Shop { site, agent };
        assert_eq!(shop.sent(), (2 * ROWS, 0));
        shop.level();
        shop
    }

    /// Runs statements on the server as the tables' owner.
    #[track_caller]
    pub fn alter(&self, sql: &str) {
        self.site.owner().batch_execute(sql).unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
    }

    /// Runs statements on the local database.
    #[track_caller]
    pub fn locally(&self, sql: &str) {
        self.agent.local().execute_batch(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    }

    /// A run that must succeed: rows inserted and updated of all tables.
    #[track_caller]
    pub fn sent(&self) -> (i64, i64) {
        let run = self.agent.sync().expect_code(0);
        sent(&run.json())
    }

    /// A run in which `items` fails and the other table goes on: what is told of it.
    #[track_caller]
    pub fn items_fail(&self) -> String {
        let version: i64 = self
            .agent
            .local()
            .query_row("UPDATE others SET row_version = (SELECT max(row_version) + 1 FROM others) WHERE id = 1 RETURNING row_version", [], |row| row.get(0))
            .expect("a change");
        let run = self.agent.sync().expect_code(1);
        let report = run.json();
        assert_eq!(table_of(&report, "others")["updated"], 1, "the other table goes on: {report}");
        let there: i64 =
            self.site.superuser().query_one("SELECT max(row_version) FROM others", &[]).expect("it").get(0);
        assert_eq!(there, version);
        let failure = &table_of(&report, "items")["failure"];
        let text = |member: &str| failure[member].as_str().unwrap_or_default().to_owned();
        format!("{}\n{}", text("message"), text("hint"))
    }

    /// Asserts that both sides are level, by the client and by independent comparison.
    #[track_caller]
    pub fn level(&self) {
        self.agent.home.run(["verify", "--quiet"]).expect_code(0);
    }

    /// The same for `items`, whose columns are named `remote` on the server and come from these local expressions.
    #[track_caller]
    pub fn equal(&self, columns: &[(&str, &str, &str)]) {
        self.level();
        let mut comparison = Comparison::of(&self.agent.local(), "items", "items");
        for (column, local, remote) in columns {
            comparison = comparison.with(column, local, remote);
        }
        assert_equal(
            &[comparison],
            &self.agent.local(),
            &mut self.site.superuser(),
            self.agent.registered.id,
        );
    }

    /// A value of the server's, of this replica or of all.
    #[track_caller]
    pub fn server(&self, sql: &str) -> i64 {
        self.site.superuser().query_one(sql, &[]).unwrap_or_else(|error| panic!("{error:?}\n{sql}")).get(0)
    }
}

/// Rows inserted and updated of all tables.
pub fn sent(report: &Json) -> (i64, i64) {
    let tables = report["tables"].as_array().expect("tables");
    let sum = |what: &str| tables.iter().map(|table| table[what].as_i64().unwrap_or(0)).sum();
    (sum("inserted"), sum("updated"))
}
