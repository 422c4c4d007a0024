//! A managed table with tenant columns, and one without that holds one database's rows.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use plimsoll_client::server::address::Address;
use plimsoll_client::server::{Levelled, Login, ReadOnly, Replica, RunBegin, RunTarget, Server, level};
use plimsoll_core::schema::TableSchema;
use plimsoll_tests::{Registered, shared};
use postgres::Client;
use serde_json::{Map, json};

/// A database on either side, and how an agent connects to both.
pub struct Pair {
    /// The database, the same on both sides.
    pub till: Registered,
    /// A superuser's connection to the table with tenant columns.
    pub remote: Client,
    /// And to the one without.
    pub local: Client,
    remote_url: String,
    local_url: String,
    role: String,
}

/// The columns that both tables have, in an order of their own.
const REMOTE_COLUMNS: &str = "id bigint NOT NULL, note text, amount numeric(12, 2), version bigint NOT NULL";
const LOCAL_COLUMNS: &str =
    "version bigint NOT NULL, amount numeric(12, 2), id bigint PRIMARY KEY, note varchar(60)";

/// What the rows `i` of a series hold.
const ROW: &str = "i, 'sale ' || i, i * 0.5, i * 10";

/// The one table of either side.
pub fn replicas() -> Vec<Replica> {
    vec![Replica { relation: "shop.sale".to_owned(), ..Replica::default() }]
}

impl Pair {
    /// Both sides without rows, their manifests trusted.
    pub fn empty() -> Pair {
        let server = shared();
        let (remote_name, local_name) = (server.create_database(), server.create_database());
        let (mut remote, mut local) = (server.superuser(&remote_name), server.superuser(&local_name));
        let owner = server.create_owner();
        let login = server.create_agent();
        let till = server.register(&remote_name, "acme", "till");
        for (client, columns) in [
            (
                &mut remote,
                format!(
                    "client_id text NOT NULL, database_id uuid NOT NULL, {REMOTE_COLUMNS}, PRIMARY KEY (client_id, database_id, id)"
                ),
            ),
            (&mut local, LOCAL_COLUMNS.to_owned()),
        ] {
            client
                .batch_execute(&format!(
                    "CREATE SCHEMA shop AUTHORIZATION {owner}; SET ROLE {owner};
                     CREATE TABLE shop.sale ({columns}); RESET ROLE"
                ))
                .expect("a table");
        }
        remote
            .batch_execute("SELECT plimsoll.manage_table('shop.sale', version_column => 'version')")
            .expect("a managed table");
        let key: Vec<u8> = remote
            .query_one("SELECT fingerprint_key FROM plimsoll.database_record", &[])
            .expect("a key")
            .get(0);
        local
            .execute("SELECT plimsoll.adopt_database($1, 'acme', 'till', $2)", &[&till.id, &key])
            .expect("the database under its id");
        let numbers = remote
            .query(
                "SELECT column_name, column_number FROM plimsoll.table_schema($1, 'shop.sale')",
                &[&till.id],
            )
            .expect("the columns");
        let numbers: Map<_, _> =
            numbers.iter().map(|row| (row.get(0), json!(row.get::<_, i32>(1)))).collect();
        local
            .execute(
                "SELECT plimsoll.manage_table('shop.sale', version_column => 'version', tenant_columns => '{}',
                     database_id => $1, column_numbers => $2)",
                &[&till.id, &serde_json::Value::Object(numbers)],
            )
            .expect("a managed table without tenant columns");
        for client in [&mut remote, &mut local] {
            client
                .execute("SELECT plimsoll.grant_database($1, $2::text::name)", &[&till.id, &login.role])
                .expect("a grant");
        }
        let mut pair = Pair {
            remote_url: server.client_url(&login, &remote_name),
            local_url: server.client_url(&login, &local_name),
            role: login.role,
            till,
            remote,
            local,
        };
        pair.rebuild();
        pair
    }

    /// Both sides with the same rows, numbered from 1, and their blocks.
    pub fn of_rows(rows: i64) -> Pair {
        let mut pair = Pair::empty();
        pair.put_remote(1, rows);
        pair.put_local(1, rows);
        pair.rebuild();
        pair
    }

    /// Puts the rows `first..=last` on the remote side.
    pub fn put_remote(&mut self, first: i64, last: i64) {
        let id = self.till.id;
        self.remote(&format!(
            "INSERT INTO shop.sale SELECT 'acme', '{id}', {ROW} FROM generate_series({first}, {last}) i"
        ));
    }

    /// Puts the rows `first..=last` on the local side.
    pub fn put_local(&mut self, first: i64, last: i64) {
        self.local(&format!(
            "INSERT INTO shop.sale (id, note, amount, version)
             SELECT {ROW} FROM generate_series({first}, {last}) i"
        ));
    }

    /// Scans both sides, whatever their manifests say.
    fn rebuild(&mut self) {
        self.on_both("SELECT plimsoll.rebuild_manifest($1, 'shop.sale')");
    }

    /// Adds to the blocks what the triggers noted.
    pub fn fold(&mut self) {
        self.on_both("SELECT plimsoll.fold_manifest($1, 'shop.sale')");
    }

    fn on_both(&mut self, call: &str) {
        for client in [&mut self.remote, &mut self.local] {
            client.execute(call, &[&self.till.id]).unwrap_or_else(|error| panic!("{error}: {call}"));
        }
    }

    /// Runs statements on the remote side, behind the extension's back.
    pub fn remote(&mut self, sql: &str) {
        self.remote.batch_execute(sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
    }

    /// And on the local side.
    pub fn local(&mut self, sql: &str) {
        self.local.batch_execute(sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
    }

    /// Both servers as an agent without a token connects to them: local, then remote. `port`: where the remote one
    /// is reached, instead of its own.
    pub fn servers(&self, port: Option<u16>) -> (Server, Server) {
        let mut remote_url = self.remote_url.clone();
        if let Some(port) = port {
            remote_url = remote_url.replace(&format!(":{}/", shared().port()), &format!(":{port}/"));
        }
        let server = |url: &str| {
            let address = Address::parse(url).expect("an address");
            Server::new(address, Login { database_id: self.till.id, token: None }).expect("a server")
        };
        (server(&self.local_url), server(&format!("{remote_url}?sslmode=disable")))
    }

    /// Makes the remote side level, and answers what it took, and how many rows of either side were read.
    pub fn level(&mut self) -> (Levelled, [i64; 2]) {
        let before = self.rows_read();
        let (mut local, mut remote) = self.servers(None);
        let schemas = remote.table_schemas(&["shop.sale"]).expect("schemas");
        let schema: TableSchema = schemas.into_iter().next().expect("one").expect("a schema");
        let run = remote
            .begin_run(&RunBegin { agent_id: "test".to_owned(), ..RunBegin::default() })
            .expect("a run");
        let mut target = RunTarget::new(&mut remote, run.run_id, replicas());
        let levelled =
            level(&mut ReadOnly::new(&mut local, replicas()), &schema, &mut target, 0).expect("level");
        drop((local, remote));
        let after = self.rows_read();
        (levelled, [after[0] - before[0], after[1] - before[1]])
    }

    /// Rows that agents have read of the tables so far, on the local and the remote side. A session reports them
    /// when it ends.
    fn rows_read(&mut self) -> [i64; 2] {
        let begun = Instant::now();
        let role = self.role.clone();
        while self
            .local
            .query_one("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", &[&role])
            .expect("sessions")
            .get::<_, i64>(0)
            > 0
        {
            assert!(begun.elapsed() < Duration::from_secs(20), "the agent's sessions do not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        [&mut self.local, &mut self.remote].map(|client| {
            report_counters(client);
            let sql =
                "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE schemaname = 'shop'";
            client.query_one(sql, &[]).expect("counters").get(0)
        })
    }

    /// The rows of both sides as text, which must be the same.
    pub fn assert_same(&mut self) {
        let content = |client: &mut Client| -> BTreeSet<String> {
            let sql = "SELECT (id, note, amount, version)::text FROM shop.sale";
            client.query(sql, &[]).expect("rows").iter().map(|row| row.get(0)).collect()
        };
        let (local, remote) = (content(&mut self.local), content(&mut self.remote));
        let difference: Vec<_> = local.symmetric_difference(&remote).take(5).collect();
        assert!(difference.is_empty(), "{difference:?}");
    }

    /// Whether the kept manifest of a side says what its rows are.
    pub fn assert_kept(&mut self) {
        for client in [&mut self.local, &mut self.remote] {
            let sql = "SELECT count(*) FROM plimsoll.check_manifest($1, 'shop.sale')";
            assert_eq!(client.query_one(sql, &[&self.till.id]).expect("a check").get::<_, i64>(0), 0);
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
