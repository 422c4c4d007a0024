//! A small managed shop and what tests of the SQL surface do with it.

// Each test binary uses its own part.
#![allow(dead_code)]

use std::fmt::Write;

use plimsoll_core::store::PositionRange;
use plimsoll_core::token::Token;
use plimsoll_tests::{Login, Registered, TestCluster, shared};
use postgres::{Client, Error, Transaction};
use serde_json::Value;
use uuid::Uuid;

/// A database of the shared server with two managed tables, `shop.customer` and its child `shop.invoice`,
/// which belong to a role that cannot log in.
pub struct Shop {
    /// The server.
    pub server: &'static TestCluster,
    /// The Postgres database.
    pub database: String,
    /// A superuser's connection.
    pub superuser: Client,
}

impl Shop {
    pub fn open() -> Self {
        Self::open_on(shared())
    }

    /// The same on a server of the test's own.
    pub fn open_on(server: &'static TestCluster) -> Self {
        let database = server.create_database();
        let owner = server.create_owner();
        let mut superuser = server.superuser(&database);
        superuser
            .batch_execute(&format!(
                "CREATE SCHEMA shop AUTHORIZATION {owner};
                 SET ROLE {owner};
                 CREATE TABLE shop.customer (client_id text NOT NULL, database_id uuid NOT NULL,
                     id int NOT NULL, name text, version bigint NOT NULL,
                     PRIMARY KEY (client_id, database_id, id));
                 CREATE TABLE shop.invoice (client_id text NOT NULL, database_id uuid NOT NULL,
                     id int NOT NULL, customer_id int NOT NULL, version bigint NOT NULL,
                     PRIMARY KEY (client_id, database_id, id),
                     FOREIGN KEY (client_id, database_id, customer_id) REFERENCES shop.customer);
                 RESET ROLE;
                 SELECT plimsoll.manage_table('shop.invoice', version_column => 'version');
                 SELECT plimsoll.manage_table('shop.customer', version_column => 'version')"
            ))
            .expect("a shop");
        Shop { server, database, superuser }
    }

    /// Registers a database of a client, and gives it customers and invoices with versions from 1 on.
    pub fn register(&mut self, client_id: &str, rows: i32) -> Registered {
        let registered = self.server.register(&self.database, client_id, "till");
        for table in ["customer (client_id, database_id, id, version)", "invoice"] {
            let columns = if table == "invoice" { "i, i, i" } else { "i, i" };
            self.superuser
                .execute(
                    &format!(
                        "INSERT INTO shop.{table} SELECT $1, $2, {columns} FROM generate_series(1, $3) i"
                    ),
                    &[&client_id, &registered.id, &rows],
                )
                .expect("rows");
        }
        registered
    }

    /// A new login role, member of `plimsoll_agent`, that was granted the database; connected.
    pub fn agent(&mut self, registered: &Registered) -> Client {
        let login = self.server.create_agent();
        self.grant(registered, &login.role);
        self.connect(&login)
    }

    pub fn grant(&mut self, registered: &Registered, role: &str) {
        self.superuser
            .execute("SELECT plimsoll.grant_database($1, $2::text::name)", &[&registered.id, &role])
            .expect("a grant");
    }

    pub fn connect(&self, login: &Login) -> Client {
        self.server.connect(login, &self.database)
    }

    /// Sets an option of a database.
    pub fn set_option(&mut self, registered: &Registered, option: &str, value: Option<&str>) {
        self.superuser
            .execute("SELECT plimsoll.set_option($1, $2, $3)", &[&registered.id, &option, &value])
            .expect("an option");
    }

    /// Makes the lease of the database's run under way expire.
    pub fn expire_lease(&mut self, registered: &Registered) {
        let expired = self
            .superuser
            .execute(
                "UPDATE plimsoll.lease_record SET lease_until = clock_timestamp() - interval '1 second'
                 WHERE database_id = $1 AND lease_until IS NOT NULL",
                &[&registered.id],
            )
            .expect("an update");
        assert_eq!(expired, 1, "a run is under way");
    }

    /// One value of a query.
    pub fn value<T>(&mut self, query: &str) -> T
    where
        T: for<'a> postgres::types::FromSql<'a>,
    {
        self.superuser.query_one(query, &[]).expect(query).get(0)
    }
}

/// Rows of each database in `shop.sale`.
pub const ROWS: i64 = 6_000;

/// A shop with a managed table `shop.sale` that has this type of version, two databases with rows in it numbered
/// from 1 whose versions are what the expression says of the number `i`, and the first one's agent.
pub fn stocked(version: &str, expression: &str) -> (Shop, Registered, Client) {
    let mut shop = Shop::open();
    let owner: String =
        shop.value("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'shop.customer'::regclass");
    shop.superuser
        .batch_execute(&format!(
            "SET ROLE {owner};
             CREATE TABLE shop.sale (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL, note text,
                 version {version} NOT NULL, PRIMARY KEY (client_id, database_id, id));
             RESET ROLE;
             SELECT plimsoll.manage_table('shop.sale', version_column => 'version')"
        ))
        .expect("a managed table");
    let mut registered = Vec::new();
    for client in ["acme", "umbrella"] {
        registered.push(shop.register(client, 0));
        let database = registered.last().expect("a database");
        shop.superuser
            .execute(
                &format!("INSERT INTO shop.sale SELECT $1, $2, i, 'note ' || i, {expression} FROM generate_series(1, $3::bigint) i"),
                &[&client, &database.id, &ROWS],
            )
            .expect("rows");
    }
    let till = registered.swap_remove(0);
    let agent = shop.agent(&till);
    (shop, till, agent)
}

/// Logs a transaction in with a token.
pub fn log_in(transaction: &mut Transaction, id: Uuid, token: &str) -> Result<(), Error> {
    let challenge: Vec<u8> = transaction.query_one("SELECT plimsoll.login_challenge()", &[])?.get(0);
    let proof = Token::parse(token).expect("a token").prove(&challenge, id.as_bytes());
    transaction.query_one("SELECT * FROM plimsoll.login($1, $2)", &[&id, &proof.as_slice()]).map(drop)
}

/// A run as `begin_run` answers it.
#[derive(Debug)]
pub struct Run {
    pub id: i64,
    pub tables: Value,
}

impl Run {
    /// What was answered of one table.
    pub fn table(&self, relation: &str) -> &Value {
        let tables = self.tables.as_array().expect("an array");
        let table = tables.iter().find(|table| table["relation"] == relation);
        table.unwrap_or_else(|| panic!("{relation} is not among {}", self.tables))
    }
}

pub fn begin(client: &mut Client, registered: &Registered, agent: &str) -> Result<Run, Error> {
    begin_with(client, registered, agent, None)
}

/// Begins a run and reports the highest local versions.
pub fn begin_with(
    client: &mut Client,
    registered: &Registered,
    agent: &str,
    local_versions: Option<Value>,
) -> Result<Run, Error> {
    let row = client.query_one(
        "SELECT run_id, tables FROM plimsoll.begin_run($1, $2, '1.0', 1, 'till-7', $3)",
        &[&registered.id, &agent, &local_versions],
    )?;
    Ok(Run { id: row.get(0), tables: row.get(1) })
}

/// Begins a run that says which way its tables go, and which local database it is for.
pub fn begin_towards(
    client: &mut Client,
    registered: &Registered,
    directions: Value,
    side_id: Option<Uuid>,
) -> Result<Run, Error> {
    let row = client.query_one(
        "SELECT run_id, tables FROM plimsoll.begin_run($1, 'agent', '1.0', 1, 'till-7', directions => $2,
             side_id => $3)",
        &[&registered.id, &directions, &side_id],
    )?;
    Ok(Run { id: row.get(0), tables: row.get(1) })
}

pub fn end(client: &mut Client, run: &Run, outcome: &str, tables: Option<Value>) -> Result<(), Error> {
    client.execute("SELECT plimsoll.end_run($1, $2, $3)", &[&run.id, &outcome, &tables]).map(drop)
}

/// Records a batch of one row.
pub fn record(client: &mut Client, run: &Run, relation: &str) -> Result<(), Error> {
    client
        .execute("SELECT plimsoll.record_batch($1, $2, 'upload', 1, 100, 1000)", &[&run.id, &relation])
        .map(drop)
}

/// The message of a refusal, which must have this SQLSTATE.
pub fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>, sqlstate: &str) -> String {
    let error = outcome.expect_err("a refusal");
    let error = error.as_db_error().unwrap_or_else(|| panic!("not the server's error: {error}"));
    let mut text = error.message().to_owned();
    for more in [error.detail(), error.hint()].into_iter().flatten() {
        write!(text, "\n{more}").expect("text");
    }
    assert_eq!(error.code().code(), sqlstate, "{text}");
    text
}

/// A rejected row as agents record it.
pub fn rejection(number: u8, waits: bool) -> Value {
    serde_json::json!({
        "key_id": format!("{number:02x}").repeat(16),
        "source_key": format!("00{number:02x}"),
        "source_digest": "cd".repeat(32),
        "position": number,
        "waits": waits,
        "key": {"id": number},
        "sqlstate": "23514",
        "column": "name",
        "message": "violates a check",
    })
}

/// What a function of the schema answers, as bytes.
pub fn bytes(client: &mut Client, sql: &str, parameters: &[&(dyn postgres::types::ToSql + Sync)]) -> Vec<u8> {
    client
        .query_one(&format!("SELECT plimsoll.{sql}"), parameters)
        .unwrap_or_else(|error| panic!("{error:?}"))
        .get(0)
}

/// A range of positions; `None` is an open end.
pub fn range(from: impl Into<Option<i64>>, to: impl Into<Option<i64>>) -> PositionRange {
    PositionRange { from: from.into(), to: to.into() }
}
