//! A managed table with a kept manifest, and what is asked of it after each change.

use plimsoll_tests::{Registered, TestCluster, shared};
use postgres::{Client, GenericClient};

/// A database of the shared server with one managed table, `shop.item`.
pub struct Site {
    /// The server.
    pub server: &'static TestCluster,
    /// The Postgres database.
    pub database: String,
    /// Who owns the table.
    pub owner: String,
    /// A superuser's connection.
    pub superuser: Client,
    /// A registered database.
    pub till: Registered,
}

/// The table's columns, from the one after the opening bracket to the one before the closing.
pub const COLUMNS: &str = "client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL, name text,
    amount numeric(10,2), changed timestamptz, version bigint NOT NULL";

impl Site {
    /// With an ordinary table.
    pub fn open() -> Self {
        Self::with(&format!("CREATE TABLE shop.item ({COLUMNS}, PRIMARY KEY (client_id, database_id, id))"))
    }

    /// With tables made by `sql`, one of them `shop.item`.
    pub fn with(sql: &str) -> Self {
        let server = shared();
        let database = server.create_database();
        let owner = server.create_owner();
        let mut superuser = server.superuser(&database);
        superuser
            .batch_execute(&format!(
                "CREATE SCHEMA shop AUTHORIZATION {owner};
                 SET ROLE {owner};
                 {sql};
                 RESET ROLE;
                 SELECT plimsoll.manage_table('shop.item', version_column => 'version', modified_column => 'changed')"
            ))
            .expect("a managed table");
        let till = server.register(&database, "acme", "till");
        let mut site = Site { server, database, owner, superuser, till };
        site.rebuild();
        site
    }

    /// Runs statements as the table's owner; `$C` and `$D` stand for client and database.
    #[track_caller]
    pub fn run(&mut self, sql: &str) {
        let sql = self.filled(sql);
        let sql = format!("SET ROLE {}; {sql}; RESET ROLE", self.owner);
        self.superuser.batch_execute(&sql).unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
    }

    /// A statement with client and database filled in.
    pub fn filled(&self, sql: &str) -> String {
        sql.replace("$C", "'acme'").replace("$D", &format!("'{}'", self.till.id))
    }

    /// Adds rows with ids and versions `from..=to`.
    #[track_caller]
    pub fn insert(&mut self, from: i32, to: i32) {
        self.run(&format!(
            "INSERT INTO shop.item SELECT $C, $D, i, 'item ' || i, i * 0.5, '2026-01-01 00:00+00'::timestamptz
                 + i * interval '1 second', i FROM generate_series({from}, {to}) i"
        ));
    }

    /// Rebuilds the manifest; how many rows it has.
    #[track_caller]
    pub fn rebuild(&mut self) -> i64 {
        self.call("rebuild_manifest").expect("a rebuild")
    }

    /// Folds what is pending; how many statements it is of.
    #[track_caller]
    pub fn fold(&mut self) -> i64 {
        self.call("fold_manifest").expect("a fold")
    }

    fn call(&mut self, function: &str) -> Result<i64, postgres::Error> {
        let query = format!("SELECT plimsoll.{function}($1, 'shop.item')");
        self.superuser.query_one(&query, &[&self.till.id]).map(|row| row.get(0))
    }

    /// Asserts that the manifest is trusted and says what the rows are, before and after a fold.
    #[track_caller]
    pub fn right(&mut self) {
        let id = self.till.id;
        assert_right(&mut self.superuser, id);
        self.fold();
        assert_right(&mut self.superuser, id);
    }

    /// Asserts that nothing is answered from the manifest, that answers are right all the same, and that a rebuild
    /// helps.
    #[track_caller]
    pub fn untrusted_then_rebuilt(&mut self) {
        let message = self.refusal();
        assert!(message.contains("not trusted"), "{message}");
        self.answers_by_scan();
        let rows = self.rebuild();
        assert_eq!(rows, self.rows());
        self.right();
    }

    /// Asserts that no manifest is kept, and that answers are right all the same.
    #[track_caller]
    pub fn off(&mut self) {
        let message = self.refusal();
        assert!(message.contains("no manifest is kept"), "{message}");
        self.answers_by_scan();
    }

    #[track_caller]
    fn refusal(&mut self) -> String {
        let check = "SELECT * FROM plimsoll.check_manifest($1, 'shop.item')";
        let error =
            self.superuser.query(check, &[&self.till.id]).expect_err("a manifest that is not trusted");
        let error = error.as_db_error().expect("a server's error");
        assert_eq!(error.code().code(), "55000", "{error}");
        error.message().to_owned()
    }

    #[track_caller]
    fn answers_by_scan(&mut self) {
        let version = "SELECT row_count, fingerprint FROM plimsoll.table_version($1, 'shop.item')";
        let row = self.superuser.query_one(version, &[&self.till.id]).expect("a version");
        assert_eq!(row.get::<_, Option<Vec<u8>>>(1), None, "no fingerprint without a scan");
        assert_eq!(row.get::<_, i64>(0), self.rows());
        let counted = "SELECT row_count FROM plimsoll.range_fingerprint($1, 'shop.item', '(,)')";
        assert_eq!(
            self.superuser.query_one(counted, &[&self.till.id]).expect("a range").get::<_, i64>(0),
            self.rows()
        );
    }

    /// The rows of the registered database.
    pub fn rows(&mut self) -> i64 {
        let rows = "SELECT count(*) FROM shop.item WHERE client_id = 'acme' AND database_id = $1";
        self.superuser.query_one(rows, &[&self.till.id]).expect("a count").get(0)
    }

    /// One value of a query.
    #[track_caller]
    pub fn value<T>(&mut self, query: &str) -> T
    where
        T: for<'a> postgres::types::FromSql<'a>,
    {
        let query = self.filled(query);
        self.superuser.query_one(&query, &[]).expect(&query).get(0)
    }

    /// A second connection as superuser.
    pub fn connect(&self) -> Client {
        self.server.superuser(&self.database)
    }
}

/// Asserts that block by block, and in all, the manifest of a database's `shop.item` says what its rows are.
#[track_caller]
pub fn assert_right(client: &mut impl GenericClient, id: uuid::Uuid) {
    let check = "SELECT range::text, kept_rows, actual_rows FROM plimsoll.check_manifest($1, 'shop.item')";
    let wrong: Vec<(String, i64, i64)> = client
        .query(check, &[&id])
        .expect("a trusted manifest")
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    assert_eq!(wrong, []);
    let version = client
        .query_one(
            "SELECT v.row_count, v.max_version, v.max_modified::text, v.fingerprint,
                    (SELECT count(*) FROM shop.item t WHERE t.client_id = 'acme' AND t.database_id = $1),
                    (SELECT max(t.version)::int8 FROM shop.item t WHERE t.client_id = 'acme' AND t.database_id = $1),
                    (SELECT max(t.changed) FROM shop.item t
                     WHERE t.client_id = 'acme' AND t.database_id = $1)::text
             FROM plimsoll.table_version($1, 'shop.item') v",
            &[&id],
        )
        .expect("a version");
    assert_eq!(version.get::<_, i64>(0), version.get::<_, i64>(4), "rows");
    assert_eq!(version.get::<_, Option<i64>>(1), version.get::<_, Option<i64>>(5), "highest position");
    assert_eq!(version.get::<_, Option<String>>(2), version.get::<_, Option<String>>(6), "latest change");
    assert!(version.get::<_, Option<Vec<u8>>>(3).is_some(), "a fingerprint without a scan");
}
