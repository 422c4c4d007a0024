//! A managed table `shop.item`, two databases with rows in it, and their agents.

use plimsoll_core::digest::{Digester, FingerprintKey, RowDigest};
use plimsoll_core::manifest::{Item, ItemsWriter, Manifest, read_manifest};
use plimsoll_core::row::{BatchWriter, RowWriter};
use plimsoll_core::value::Value as Field;
use plimsoll_tests::{Login, Registered, TestCluster, shared};
use postgres::{Client, Error};
use serde_json::Value;

/// A database of the shared server with one managed table.
pub struct Site {
    pub server: &'static TestCluster,
    pub database: String,
    pub owner: String,
    pub superuser: Client,
    /// The registered database of most calls, and another client's.
    pub till: Registered,
    pub other: Registered,
    /// An agent that was granted `till`.
    pub agent: Client,
    pub login: Login,
}

/// What every table begins with.
pub const TENANT: &str = "client_id text NOT NULL, database_id uuid NOT NULL";

/// Of an upload: rows inserted, updated, unchanged, held; digest sum; what was rejected.
#[derive(Debug, PartialEq)]
pub struct Uploaded {
    pub numbers: [i64; 4],
    pub sum: Vec<u8>,
    pub rejected: Vec<Value>,
}

impl Site {
    /// With tables made by `sql`, in which `TENANT` stands for the tenant columns; `manage` are more arguments of
    /// `manage_table`.
    pub fn with(sql: &str, manage: &str) -> Self {
        let server = shared();
        let database = server.create_database();
        let owner = server.create_owner();
        let mut superuser = server.superuser(&database);
        superuser
            .batch_execute(&format!(
                "CREATE SCHEMA shop AUTHORIZATION {owner}; SET ROLE {owner}; {}; RESET ROLE;
                 SELECT plimsoll.manage_table('shop.item'{manage})",
                sql.replace("TENANT", TENANT)
            ))
            .unwrap_or_else(|error| panic!("{error:?}"));
        let till = server.register(&database, "acme", "till");
        let other = server.register(&database, "umbrella", "till");
        let login = server.create_agent();
        let agent = server.connect(&login, &database);
        let mut site = Site { server, database, owner, superuser, till, other, agent, login };
        let grant = "SELECT plimsoll.grant_database($1, $2::text::name)";
        site.superuser.execute(grant, &[&site.till.id, &site.login.role]).expect("a grant");
        for id in [site.till.id, site.other.id] {
            site.superuser
                .execute("SELECT plimsoll.rebuild_manifest($1, 'shop.item')", &[&id])
                .expect("a manifest");
        }
        site
    }

    /// Runs statements as the table's owner; `$T` and `$O` stand for the tenant columns of either database.
    #[track_caller]
    pub fn run(&mut self, sql: &str) {
        let sql = format!("SET ROLE {}; {}; RESET ROLE", self.owner, self.filled(sql));
        self.superuser.batch_execute(&sql).unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
    }

    pub fn filled(&self, sql: &str) -> String {
        sql.replace("$T", &format!("'acme', '{}'", self.till.id))
            .replace("$O", &format!("'umbrella', '{}'", self.other.id))
            .replace("$D", &format!("'{}'", self.till.id))
    }

    /// One value of a query of the superuser.
    #[track_caller]
    pub fn value<T>(&mut self, query: &str) -> T
    where
        T: for<'a> postgres::types::FromSql<'a>,
    {
        let query = self.filled(query);
        self.superuser.query_one(&query, &[]).unwrap_or_else(|error| panic!("{error:?}\n{query}")).get(0)
    }

    /// Uploads rows given as JSON.
    #[track_caller]
    pub fn upload(&mut self, rows: &Value) -> Uploaded {
        let sql = "SELECT * FROM plimsoll.upload($1, 'shop.item', $2::jsonb)";
        let row =
            self.agent.query_one(sql, &[&self.till.id, rows]).unwrap_or_else(|error| panic!("{error:?}"));
        uploaded(&row)
    }

    /// Uploads encoded rows within a run.
    pub fn upload_batch(
        &mut self,
        rows: &[u8],
        run: Option<i64>,
        number: Option<i64>,
    ) -> Result<Uploaded, Error> {
        let sql = "SELECT * FROM plimsoll.upload($1, 'shop.item', $2::bytea, $3, batch_number => $4)";
        self.agent.query_one(sql, &[&self.till.id, &rows, &run, &number]).map(|row| uploaded(&row))
    }

    /// Begins a run of the agent; its number.
    #[track_caller]
    pub fn begin(&mut self) -> i64 {
        let sql = "SELECT run_id FROM plimsoll.begin_run($1, 'agent', '1.0', 1, 'host')";
        self.agent.query_one(sql, &[&self.till.id]).unwrap_or_else(|error| panic!("{error:?}")).get(0)
    }

    /// The row manifest of the database, as agents read it.
    #[track_caller]
    pub fn items(&mut self) -> Vec<Item> {
        let sql = "SELECT plimsoll.packed_manifest($1, 'shop.item', '(,)', 1000000)";
        let bytes: Vec<u8> =
            self.agent.query_one(sql, &[&self.till.id]).unwrap_or_else(|error| panic!("{error:?}")).get(0);
        let Manifest { items, next } = read_manifest(&bytes).expect("a manifest");
        assert_eq!(next, None);
        items
    }

    /// Deletes rows by packed items; how many were deleted, and held.
    #[track_caller]
    pub fn delete_items(&mut self, items: &[Item]) -> (i64, i64) {
        let mut list = ItemsWriter::new(true);
        items.iter().for_each(|item| list.push(item, &[]));
        let sql = "SELECT deleted, held FROM plimsoll.delete_rows($1, 'shop.item', $2::bytea)";
        let row = self
            .agent
            .query_one(sql, &[&self.till.id, &list.finish(None)])
            .unwrap_or_else(|error| panic!("{error:?}"));
        (row.get(0), row.get(1))
    }

    /// Makes digests as the server does for the first database.
    pub fn digester(&mut self) -> Digester {
        let key: Vec<u8> =
            self.value("SELECT fingerprint_key FROM plimsoll.database_record WHERE database_id = $D");
        Digester::new(FingerprintKey::from_slice(&key).expect("a key"))
    }

    /// Asserts that the manifests of both databases are trusted, and say what the rows are that plain SQL counts.
    #[track_caller]
    pub fn right(&mut self) {
        for id in [self.till.id, self.other.id] {
            for fold in [false, true] {
                if fold {
                    let sql = "SELECT plimsoll.fold_manifest($1, 'shop.item')";
                    self.superuser.execute(sql, &[&id]).expect("a fold");
                }
                let wrong = self
                    .superuser
                    .query("SELECT range::text FROM plimsoll.check_manifest($1, 'shop.item')", &[&id])
                    .unwrap_or_else(|error| panic!("{error:?}"));
                let wrong: Vec<String> = wrong.iter().map(|row| row.get(0)).collect();
                assert_eq!(wrong, Vec::<String>::new());
            }
            let sql = "SELECT v.row_count, (SELECT count(*) FROM shop.item t WHERE t.database_id = $1), v.fingerprint
                       FROM plimsoll.table_version($1, 'shop.item') v";
            let row = self.superuser.query_one(sql, &[&id]).expect("a version");
            assert_eq!(row.get::<_, i64>(0), row.get::<_, i64>(1), "rows");
            assert!(row.get::<_, Option<Vec<u8>>>(2).is_some(), "a fingerprint without a scan");
        }
    }

    /// The number of a column.
    pub fn number(&mut self, column: &str) -> u32 {
        let sql = "SELECT column_number FROM plimsoll.table_schema($1, 'shop.item') WHERE column_name = $2";
        self.superuser.query_one(sql, &[&self.till.id, &column]).expect("a column").get::<_, i32>(0) as u32
    }
}

fn uploaded(row: &postgres::Row) -> Uploaded {
    let rejected: Value = row.get("rejected");
    Uploaded {
        numbers: ["inserted", "updated", "unchanged", "held"].map(|name| row.get(name)),
        sum: row.get("fingerprint"),
        rejected: rejected.as_array().expect("an array").clone(),
    }
}

/// Encodes rows of columns given by number.
pub fn encoded(rows: &[Vec<(u32, Field<'_>)>]) -> Vec<u8> {
    let mut batch = BatchWriter::new();
    for row in rows {
        batch.push(&encoded_row(row));
    }
    batch.finish()
}

pub fn encoded_row(row: &[(u32, Field<'_>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = RowWriter::new(&mut bytes);
    row.iter().for_each(|(number, value)| writer.field(*number, value));
    bytes
}

/// The message, detail and hint of a refusal, which must have this SQLSTATE.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>, sqlstate: &str) -> String {
    let error = outcome.expect_err("a refusal");
    let error = error.as_db_error().unwrap_or_else(|| panic!("not the server's error: {error}"));
    let parts = [Some(error.message()), error.detail(), error.hint()];
    let text = parts.into_iter().flatten().collect::<Vec<_>>().join("\n");
    assert_eq!(error.code().code(), sqlstate, "{text}");
    text
}

/// A digest that no row has.
pub const NO_DIGEST: RowDigest = RowDigest([0; 32]);
