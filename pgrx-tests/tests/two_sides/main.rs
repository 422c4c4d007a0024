//! Two Postgres tables with kept manifests, one of them without tenant columns: differences are found and
//! repaired without a scan of either.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use plimsoll_client::server::address::Address;
use plimsoll_client::server::{Levelled, Login, ReadOnly, Replica, RunTarget, Server, level, roots};
use plimsoll_core::schema::TableSchema;
use plimsoll_tests::{Registered, shared};
use postgres::Client;
use serde_json::{Map, json};

/// So many that a guess does not read them all.
const ROWS: i64 = 200_000;

/// More than a block can have, before it is split: what one difference may cost to be read.
const BLOCK: i64 = 2_048;

/// A database on either side, with the same rows in it, and how an agent connects to both.
struct Pair {
    till: Registered,
    remote: Client,
    local: Client,
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

impl Pair {
    fn new() -> Pair {
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
        let pair = Pair {
            remote_url: server.client_url(&login, &remote_name),
            local_url: server.client_url(&login, &local_name),
            role: login.role,
            till,
            remote,
            local,
        };
        pair.filled()
    }

    /// Puts the same rows on both sides, and makes their blocks.
    fn filled(mut self) -> Pair {
        self.remote(&format!(
            "INSERT INTO shop.sale SELECT 'acme', '{}', {ROW} FROM generate_series(1, {ROWS}) i",
            self.till.id
        ));
        self.local(&format!(
            "INSERT INTO shop.sale (id, note, amount, version) SELECT {ROW} FROM generate_series(1, {ROWS}) i"
        ));
        let id = self.till.id;
        for client in [&mut self.remote, &mut self.local] {
            client.execute("SELECT plimsoll.rebuild_manifest($1, 'shop.sale')", &[&id]).expect("blocks");
            client.batch_execute("VACUUM ANALYZE shop.sale").expect("statistics");
        }
        self
    }

    fn remote(&mut self, sql: &str) {
        self.remote.batch_execute(sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
    }

    fn local(&mut self, sql: &str) {
        self.local.batch_execute(sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
    }

    /// A server as an agent without a token connects to it.
    fn server(&self, url: &str) -> Server {
        let address = Address::parse(url).expect("an address");
        Server::new(address, Login { database_id: self.till.id, token: None }).expect("a server")
    }

    /// Makes the remote side level, and answers what it took, and how many rows of either side were read.
    fn level(&mut self) -> (Levelled, [i64; 2]) {
        let before = self.rows_read();
        let (mut local, mut remote) = (self.server(&self.local_url), self.server(&self.remote_url));
        let replicas = || vec![Replica { relation: "shop.sale".to_owned() }];
        let schemas = remote.table_schemas(&["shop.sale"]).expect("schemas");
        let schema: TableSchema = schemas.into_iter().next().expect("one").expect("a schema");
        let run = remote.begin_run("test", &Map::new()).expect("a run");
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
            client.execute("SELECT pg_stat_force_next_flush()", &[]).expect("this session's counters too");
            let sql =
                "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE schemaname = 'shop'";
            client.query_one(sql, &[]).expect("counters").get(0)
        })
    }

    /// The rows of both sides as text, which must be the same.
    fn assert_same(&mut self) {
        let content = |client: &mut Client| -> BTreeSet<String> {
            let sql = "SELECT (id, note, amount, version)::text FROM shop.sale";
            client.query(sql, &[]).expect("rows").iter().map(|row| row.get(0)).collect()
        };
        let (local, remote) = (content(&mut self.local), content(&mut self.remote));
        let difference: Vec<_> = local.symmetric_difference(&remote).take(5).collect();
        assert!(difference.is_empty(), "{difference:?}");
    }

    /// Whether the kept manifest of a side says what its rows are.
    fn assert_kept(&mut self) {
        for client in [&mut self.local, &mut self.remote] {
            let sql = "SELECT count(*) FROM plimsoll.check_manifest($1, 'shop.sale')";
            assert_eq!(client.query_one(sql, &[&self.till.id]).expect("a check").get::<_, i64>(0), 0);
        }
    }
}

#[test]
fn equal_content_has_equal_roots_whatever_the_tables_look_like_and_is_proved_without_reading_a_row() {
    let mut pair = Pair::new();
    let (levelled, read) = pair.level();
    assert_eq!(levelled, Levelled { level: true, ..Levelled::default() });
    assert!(read.iter().all(|rows| *rows < 10), "{read:?} rows read");
    let (mut local, mut remote) = (pair.server(&pair.local_url), pair.server(&pair.remote_url));
    let replicas = || vec![Replica { relation: "shop.sale".to_owned() }];
    let found =
        roots(&mut ReadOnly::new(&mut local, replicas()), &mut ReadOnly::new(&mut remote, replicas()), 0);
    let found = found.expect("roots");
    assert!(found.equal);
    assert_eq!(found.local.row_count, ROWS as u64);
}

/// Changes on both sides, and what is found.
struct Case {
    remote: &'static str,
    local: &'static str,
    local_only: u64,
    remote_only: u64,
    /// In how many blocks, at most.
    blocks: i64,
}

#[test]
fn differences_are_found_and_repaired_at_the_cost_of_the_blocks_they_are_in() {
    let mut pair = Pair::new();
    let cases = [
        // Missing, altered and surplus rows, far from each other.
        Case {
            remote: "DELETE FROM shop.sale WHERE id IN (1, 77777, 131000);
                     UPDATE shop.sale SET note = note || '!' WHERE id IN (15000, 200000);
                     INSERT INTO shop.sale SELECT client_id, database_id, 900000, 'surplus', 1, 1225555 FROM shop.sale WHERE id = 5",
            local: "",
            local_only: 5,
            remote_only: 3,
            blocks: 6,
        },
        // A run of missing rows.
        Case {
            remote: "DELETE FROM shop.sale WHERE id BETWEEN 112345 AND 115999",
            local: "",
            local_only: 3_655,
            remote_only: 0,
            blocks: 5,
        },
        // The source went on: rows changed, with higher versions, came and went; two share a version.
        Case {
            remote: "",
            local: "UPDATE shop.sale SET amount = NULL, version = version + 4000000 WHERE id IN (3, 120000, 199999);
                    INSERT INTO shop.sale (id, note, amount, version) SELECT 500000 + i, NULL, i, 9000000 + i / 2 FROM generate_series(1, 101) i;
                    DELETE FROM shop.sale WHERE id IN (30000, 2)",
            local_only: 104,
            remote_only: 5,
            blocks: 7,
        },
        // Beyond the highest position of the other side, at the ends of the axis.
        Case {
            remote: "UPDATE shop.sale SET version = 9223372036854775807 WHERE id = 17;
                     UPDATE shop.sale SET version = -9223372036854775808 WHERE id = 18",
            local: "",
            local_only: 2,
            remote_only: 2,
            blocks: 4,
        },
    ];
    for Case { remote, local, local_only, remote_only, blocks } in cases {
        pair.remote(remote);
        pair.local(local);
        let (levelled, read) = pair.level();
        assert!(levelled.level, "{levelled:?}");
        assert_eq!((levelled.local_only, levelled.remote_only), (local_only, remote_only));
        assert_eq!((levelled.held, levelled.blocked, levelled.refused.len()), (0, 0, 0));
        pair.assert_same();
        pair.assert_kept();
        // Each differing block is read a few times: as parts, as rows or symbols, and to be sent.
        let bound = 4 * BLOCK * blocks;
        assert!(
            read.iter().all(|rows| *rows < bound),
            "{read:?} rows read, {bound} at most: {remote} {local}"
        );
    }
}

#[test]
fn a_table_that_holds_one_database_refuses_every_other() {
    let mut pair = Pair::new();
    let other = pair
        .local
        .query_one("SELECT database_id FROM plimsoll.register_database('umbrella', 'till')", &[])
        .expect("another database")
        .get::<_, uuid::Uuid>(0);
    let ranges = plimsoll_core::ranges::pack_ranges(&[plimsoll_core::store::PositionRange::ALL]);
    for call in ["packed_summaries($1, 'shop.sale', $2)", "packed_items($1, 'shop.sale', $2)"] {
        let outcome = pair.local.query_one(&format!("SELECT plimsoll.{call}"), &[&other, &ranges]);
        let error = outcome.expect_err("a refusal");
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{error}");
    }
}
