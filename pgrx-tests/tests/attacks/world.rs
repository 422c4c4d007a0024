//! The server under attack.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use plimsoll_core::token::Token;
use plimsoll_tests::{Login, Registered, TestCluster};
use postgres::{Client, Config, NoTls, SimpleQueryMessage};
use uuid::Uuid;

use crate::spy::SESSION;

/// Part of every text that is the other database's: no attacker may be sent it.
pub const MARK: &str = "SECRET";

/// A number that the other database's rows hold.
pub const NUMBER: i32 = 771_133_557;

/// Who attacks. All have valid credentials of database A, and of no other; the last two have less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A login role that was granted A.
    Granted,
    /// A role that everybody shares; logged in to A by its token, in one transaction.
    Shared,
    /// A role that was granted A, and may create in a schema of its own and temporary things.
    Maker,
    /// A member of `plimsoll_reader` that was granted A.
    Reader,
    /// A role without rights.
    Stranger,
}

/// All that an attacker was sent: rows, errors, notices.
pub type Heard = Arc<Mutex<Vec<String>>>;

/// An attacker's connection.
pub struct Session {
    pub client: Client,
    heard: Heard,
}

/// How a statement was refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub sqlstate: String,
    pub text: String,
}

/// The rows of a statement's answer, as text.
pub type Rows = Vec<Vec<Option<String>>>;

/// What is compared after each attempt: parts by name, each as a hash.
pub type Snapshot = BTreeMap<String, String>;

/// Two databases in one Postgres database, of which B is somebody else's.
pub struct World {
    pub server: &'static TestCluster,
    pub database: String,
    pub superuser: Client,
    pub owner: String,
    pub a: Registered,
    pub b: Registered,
    /// B's run under way.
    pub run: i64,
    logins: Vec<(Who, Login)>,
    pub heard: Heard,
    /// B's fingerprint key and stored key, hexadecimal, and its token.
    secrets: Vec<String>,
}

const TABLES: &str = "
    CREATE TABLE shop.customer (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL, name text,
        version bigint NOT NULL, PRIMARY KEY (client_id, database_id, id));
    CREATE TABLE shop.invoice (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL,
        customer_id int, version bigint NOT NULL, PRIMARY KEY (client_id, database_id, id),
        FOREIGN KEY (client_id, database_id, customer_id) REFERENCES shop.customer ON DELETE CASCADE);
    CREATE TABLE shop.span (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL, version bigint NOT NULL,
        low int, high int, mail text UNIQUE, note text CHECK (note <> 'bad'),
        PRIMARY KEY (client_id, database_id, id), EXCLUDE USING gist (int4range(low, high) WITH &&));
    CREATE TABLE shop.wide (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL, version bigint NOT NULL,
        moment timestamptz, day date, length interval, share float8, part float4, amount numeric, bytes bytea,
        doc jsonb, list int[], tag text, flag bool, ip inet, PRIMARY KEY (client_id, database_id, id));
    CREATE TABLE shop.open (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL, name text,
        version bigint NOT NULL, PRIMARY KEY (client_id, database_id, id));
    CREATE TABLE shop.single (id int PRIMARY KEY, name text, version bigint NOT NULL);";

/// The rows of the databases in `{pairs}`.
const ROWS: &str = "
    INSERT INTO shop.customer SELECT c, d, i, m || ' name ' || i, i FROM generate_series(1, 12) i, {pairs};
    INSERT INTO shop.invoice SELECT c, d, i, i, i FROM generate_series(1, 12) i, {pairs};
    INSERT INTO shop.open SELECT c, d, i, m || ' name ' || i, i FROM generate_series(1, 3) i, {pairs};
    INSERT INTO shop.wide SELECT c, d, i, i, '2026-01-02 03:04:05+00', '2026-01-02', '1 mon 2 days', 0.1, 0.1, 1.50,
        '\\x0a0b', '{\"b\": 1.0, \"a\": 2}', '{1,NULL,3}', m, true, '10.0.0.1/8' FROM generate_series(1, 4) i, {pairs};";

/// The managed tables that have tenant columns.
pub const SHARED_TABLES: [&str; 5] = ["shop.customer", "shop.invoice", "shop.open", "shop.span", "shop.wide"];

impl World {
    pub fn open() -> Self {
        let server = server();
        let (database, owner) = (server.create_database(), server.create_owner());
        let mut superuser = server.superuser(&database);
        let tables = TABLES;
        superuser
            .batch_execute(&format!(
                "CREATE SCHEMA shop AUTHORIZATION {owner}; SET ROLE {owner}; {tables} RESET ROLE"
            ))
            .expect("tables");
        for table in SHARED_TABLES {
            superuser
                .batch_execute(&format!(
                    "SELECT plimsoll.manage_table('{table}', version_column => 'version')"
                ))
                .expect("a managed table");
        }
        let a = server.register(&database, "acme", "till");
        let b = server.register(&database, "SECRET-client", "SECRET-till");
        let logins = [
            (Who::Granted, "plimsoll_agent"),
            (Who::Shared, "plimsoll_agent"),
            (Who::Maker, "plimsoll_agent"),
            (Who::Reader, "plimsoll_reader"),
        ]
        .map(|(who, group)| (who, server.create_login(&[group])));
        let mut logins = logins.to_vec();
        logins.push((Who::Stranger, server.create_login(&[])));
        let mut world = World {
            server,
            database,
            superuser,
            owner,
            a,
            b,
            run: 0,
            logins,
            heard: Heard::default(),
            secrets: Vec::new(),
        };
        world.admin("SET statement_timeout = '60s'");
        world.fill();
        world
    }

    fn fill(&mut self) {
        for who in [Who::Granted, Who::Maker, Who::Reader] {
            let (id, role) = (self.a.id, self.login(who).role.clone());
            self.superuser
                .execute("SELECT plimsoll.grant_database($1, $2::text::name)", &[&id, &role])
                .expect("a grant");
        }
        self.superuser
            .batch_execute(&self.filled(
                "SELECT plimsoll.manage_table('shop.single', version_column => 'version', tenant_columns => '{}',
                     database_id => '{B}');
                 INSERT INTO shop.single SELECT i, 'SECRET single ' || i, i FROM generate_series(1, 5) i;
                 INSERT INTO shop.span VALUES ('SECRET-client', '{B}', 1, 1, 771133557, 771133560, 'common@example', 'SECRET');
                 {rows}
                 SELECT plimsoll.set_option('{B}', 'history_days', '77');
                 SELECT plimsoll.rebuild_manifest(d, t) FROM {pairs}, unnest(ARRAY['shop.customer', 'shop.invoice', 'shop.open',
                     'shop.span', 'shop.wide']) t;
                 SELECT plimsoll.rebuild_manifest('{B}', 'shop.single');",
            ))
            .expect("rows");
        let run = "SELECT run_id FROM plimsoll.begin_run($1, 'SECRET-agent', '1', 1, 'SECRET-host')";
        self.run = self.superuser.query_one(run, &[&self.b.id]).expect("a run").get(0);
        self.superuser
            .batch_execute(&self.filled(
                "SELECT plimsoll.record_batch({run}, 'shop.customer', 'upload', 771133557, 1, 1);
                 SELECT plimsoll.reject_rows({run}, 'shop.customer', jsonb_build_array(jsonb_build_object('key_id',
                     repeat('5e', 16), 'source_key', '5ec2', 'source_digest', repeat('5e', 32), 'key', '{\"id\": \"SECRET\"}'::jsonb,
                     'sqlstate', '23514', 'message', 'SECRET reason')));
                 UPDATE plimsoll.replica_record SET status = 'different', hold_since = now(), hold_reason = 'SECRET hold',
                     hold_planned = 5 WHERE database_id = '{B}';
                 INSERT INTO plimsoll.conflict_record (database_id, table_id, memory_key, kind, local_seen, remote_seen, key,
                     local_row, remote_row, run_id)
                 SELECT '{B}', table_id, decode(repeat('5e', 16), 'hex'), 'conflict', '', '', '{\"id\": \"SECRET\"}',
                     '{\"name\": \"SECRET\"}', '{\"name\": \"SECRET\"}', 1
                 FROM plimsoll.table_record WHERE table_name = 'customer';
                 UPDATE plimsoll.lease_record SET lease_until = now() + interval '1 day'",
            ))
            .expect("a history");
        let key: String = self.value(
            "SELECT encode(fingerprint_key, 'hex') FROM plimsoll.database_record WHERE database_id = '{B}'",
        );
        let stored = Token::parse(&self.b.token).expect("a token").stored_key();
        self.secrets = vec![key, hex(&stored.0)[2..].to_owned(), self.b.token.clone()];
        self.reset_maker();
    }

    /// Gives A the rows back that it had.
    pub fn stock_a(&mut self) {
        self.admin(&format!(
            "DELETE FROM shop.invoice WHERE client_id = 'acme'; DELETE FROM shop.customer WHERE client_id = 'acme';
             DELETE FROM shop.wide WHERE client_id = 'acme'; DELETE FROM shop.span WHERE client_id = 'acme';
             DELETE FROM shop.open WHERE client_id = 'acme'; DELETE FROM plimsoll.guard_record WHERE database_id = '{{A}}';
             DELETE FROM plimsoll.replica_record WHERE database_id = '{{A}}'; {}",
            ROWS.replace("{pairs}", "(VALUES ('acme', '{A}'::uuid, 'own')) AS pairs (c, d, m)")
        ));
    }

    /// Takes away what the maker made.
    pub fn reset_maker(&mut self) {
        let sql = self.filled(
            "DROP SCHEMA IF EXISTS maker CASCADE; CREATE SCHEMA maker; GRANT ALL ON SCHEMA maker TO {maker};
             ALTER SCHEMA maker OWNER TO {maker}",
        );
        self.superuser.batch_execute(&sql).expect("a schema for the maker");
    }

    pub fn login(&self, who: Who) -> &Login {
        let found = self.logins.iter().find(|(one, _)| *one == who);
        &found.expect("a login").1
    }

    /// A text with ids, run and roles filled in.
    pub fn filled(&self, text: &str) -> String {
        let (a, b) = (self.a.id, self.b.id);
        text.replace("{rows}", ROWS)
            .replace("{A}", &a.to_string())
            .replace("{B}", &b.to_string())
            .replace("{run}", &self.run.to_string())
            .replace("{owner}", &self.owner)
            .replace("{granted}", &self.login(Who::Granted).role)
            .replace("{shared}", &self.login(Who::Shared).role)
            .replace("{maker}", &self.login(Who::Maker).role)
            .replace("{pairs}", &format!(
                "(VALUES ('acme', '{a}'::uuid, 'own'), ('SECRET-client', '{b}', 'SECRET')) AS pairs (c, d, m)"
            ))
    }

    /// Runs statements as superuser, with placeholders filled in.
    #[track_caller]
    pub fn admin(&mut self, sql: &str) {
        let sql = self.filled(sql);
        self.superuser.batch_execute(&sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// One value of a query of the superuser.
    #[track_caller]
    pub fn value<T: for<'v> postgres::types::FromSql<'v>>(&mut self, sql: &str) -> T {
        let sql = self.filled(sql);
        self.superuser.query_one(&sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
    }

    /// What must be the same in the superuser's session after somebody else's code ran in it.
    pub fn session_of_admin(&mut self) -> Vec<String> {
        let row = self
            .superuser
            .query_one(&format!("SELECT s::text FROM ({SESSION}) AS s"), &[])
            .expect("a session");
        vec![row.get(0)]
    }

    /// A new connection of an attacker; nothing is logged in yet.
    pub fn connect(&self, who: Who) -> Session {
        let heard = self.heard.clone();
        let mut config = Config::new();
        // Over the socket no password is asked for: how a role logs in to Postgres is not what is tried here.
        config
            .host_path(self.server.socket_dir())
            .port(self.server.port())
            .user(&self.login(who).role)
            .dbname(&self.database)
            .options("-c statement_timeout=60s");
        config.notice_callback(move |notice| heard.lock().expect("a list").push(all_of(&notice)));
        let client = config.connect(NoTls).expect("the role can connect");
        Session { client, heard: self.heard.clone() }
    }

    /// How many lines of the server's log hold these words.
    pub fn log_lines(&self, words: &str) -> usize {
        let log = std::fs::read_to_string(self.server.log_path()).expect("the server's log");
        log.lines().filter(|line| line.contains(words)).count()
    }

    /// The setting that makes statements use parallel workers whatever they cost.
    pub fn parallel_setting(&mut self) -> String {
        self.value(
            "SELECT name FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')",
        )
    }

    /// What an attacker was sent that is the other database's; forgets what was sent.
    pub fn leaked(&mut self) -> Option<String> {
        let heard = std::mem::take(&mut *self.heard.lock().expect("a list"));
        let hex: String = MARK.bytes().map(|byte| format!("{byte:02x}")).collect();
        let number = NUMBER.to_string();
        heard.into_iter().find(|text| {
            text.contains(MARK)
                || text.to_lowercase().contains(&hex)
                || text.contains(&number)
                || self.secrets.iter().any(|secret| text.contains(secret))
        })
    }

    /// All that must stay as it is.
    pub fn snapshot(&mut self) -> Snapshot {
        let (a, b) = (self.a.id, self.b.id);
        let mut parts: Vec<(String, String)> = Vec::new();
        let mut part = |name: &str, rows: String| parts.push((name.to_owned(), rows));
        for (whose, id) in [("A's", a), ("B's", b)] {
            for table in SHARED_TABLES {
                part(
                    &format!("{whose} rows"),
                    format!("SELECT '{table}' || t::text FROM {table} t WHERE database_id = '{id}'"),
                );
            }
            for table in [
                "run_record",
                "batch_record",
                "rejected_record",
                "conflict_record",
                "replica_record",
                "guard_record",
                "lease_record",
            ] {
                part(
                    &format!("{whose} history"),
                    format!("SELECT '{table}' || t::text FROM plimsoll.{table} t WHERE database_id = '{id}'"),
                );
            }
        }
        part("kept manifests", "SELECT (database_id, table_id)::text FROM plimsoll.kept_head".to_owned());
        part("B's rows", "SELECT 'single\' || t::text FROM shop.single t".to_owned());
        for table in SHARED_TABLES {
            part(
                "rows of nobody",
                format!("SELECT '{table}' || t::text FROM {table} t WHERE database_id NOT IN ('{a}', '{b}')"),
            );
        }
        for table in ["database_record", "grant_record", "token_record", "table_record", "column_record"] {
            part("registrations", format!("SELECT '{table}' || t::text FROM plimsoll.{table} t"));
        }
        for table in [
            "pg_authid",
            "pg_auth_members",
            "pg_db_role_setting",
            "pg_database",
            "pg_event_trigger",
            "pg_extension",
            "pg_default_acl",
            "pg_replication_slots",
            "pg_largeobject_metadata",
            "pg_publication",
            "pg_parameter_acl",
        ] {
            // Postgres 14 knows no privileges on settings.
            if table == "pg_parameter_acl" && self.server.major() < 15 {
                continue;
            }
            let rows = match table {
                "pg_database" => {
                    "SELECT (datname, datdba, datacl, datconnlimit)::text FROM pg_database".to_owned()
                }
                _ => format!("SELECT '{table}' || t::text FROM {table} t"),
            };
            part("roles and server", rows);
        }
        let ours = "('plimsoll'::regnamespace, 'shop'::regnamespace, 'public'::regnamespace)";
        for (table, schema) in [
            ("pg_class", "relnamespace"),
            ("pg_proc", "pronamespace"),
            ("pg_type", "typnamespace"),
            ("pg_constraint", "connamespace"),
            ("pg_operator", "oprnamespace"),
            ("pg_opclass", "opcnamespace"),
        ] {
            let text = match table {
                // Statistics of the table, which any maintenance changes.
                "pg_class" => {
                    "(relname, relowner, relkind, relacl, reloptions, relrowsecurity, relforcerowsecurity, relhastriggers, relhasrules)::text"
                }
                _ => "t::text",
            };
            part("catalogue", format!("SELECT '{table}' || {text} FROM {table} t WHERE {schema} IN {ours}"));
        }
        for table in ["pg_trigger", "pg_policy", "pg_rewrite", "pg_attribute", "pg_attrdef"] {
            let column = match table {
                "pg_trigger" => "tgrelid",
                "pg_policy" => "polrelid",
                "pg_rewrite" => "ev_class",
                "pg_attribute" => "attrelid",
                _ => "adrelid",
            };
            part(
                "catalogue",
                format!(
                    "SELECT '{table}' || t::text FROM {table} t JOIN pg_class c ON c.oid = t.{column} WHERE c.relnamespace IN {ours}"
                ),
            );
        }
        part(
            "catalogue",
            format!("SELECT n::text FROM pg_namespace n WHERE oid IN {ours} OR nspname = 'pg_catalog'"),
        );
        part(
            "catalogue",
            "SELECT count(*)::text FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace".to_owned(),
        );
        part("roles and server", "SELECT pg_postmaster_start_time()::text".to_owned());
        part(
            "manifests that are level",
            format!(
                "SELECT w::text FROM (VALUES ('{a}'::uuid), ('{b}')) AS d (id), unnest(ARRAY['{}']) AS t, plimsoll.check_manifest(d.id, t) w",
                SHARED_TABLES.join("', '")
            ),
        );
        part(
            "manifests that are level",
            format!("SELECT w::text FROM plimsoll.check_manifest('{b}', 'shop.single') w"),
        );
        let query: Vec<String> = parts
            .iter()
            .map(|(name, rows)| {
                format!("SELECT '{}' AS part, x FROM ({rows}) AS rows (x)", name.replace('\'', "''"))
            })
            .collect();
        let query = format!(
            "SELECT part, md5(string_agg(x, E'\\n' ORDER BY x COLLATE \"C\")) FROM ({}) AS parts GROUP BY part",
            query.join(" UNION ALL ")
        );
        let rows = self.superuser.query(&query, &[]).unwrap_or_else(|error| panic!("{error:?}"));
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}

impl Session {
    /// Runs statements; the rows that the last of them answered.
    pub fn run(&mut self, sql: &str) -> Result<Rows, Refusal> {
        let answer = self.client.simple_query(sql);
        let mut heard = self.heard.lock().expect("a list");
        match answer {
            Ok(messages) => {
                let (mut rows, mut ended) = (Rows::new(), false);
                for message in messages {
                    match message {
                        SimpleQueryMessage::RowDescription(_) => (rows, ended) = (Rows::new(), false),
                        SimpleQueryMessage::Row(row) => {
                            let row: Vec<_> = (0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect();
                            heard.push(format!("{row:?}"));
                            rows.push(row);
                        }
                        SimpleQueryMessage::CommandComplete(_) if ended => rows = Rows::new(),
                        SimpleQueryMessage::CommandComplete(_) => ended = true,
                        _ => {}
                    }
                }
                Ok(rows)
            }
            Err(error) => Err(refusal(&error, &mut heard)),
        }
    }

    /// Runs statements that must go well.
    #[track_caller]
    pub fn must(&mut self, sql: &str) -> Rows {
        self.run(sql).unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}"))
    }

    /// Begins a transaction that is logged in to a database.
    #[track_caller]
    pub fn log_in(&mut self, database: &Registered) {
        self.must("BEGIN");
        let proof = self.proof(database.id, &database.token);
        self.must(&format!("SELECT client_id FROM plimsoll.login('{}', '{proof}')", database.id));
    }

    /// The answer to a new challenge of this transaction, as SQL writes bytes.
    #[track_caller]
    pub fn proof(&mut self, id: Uuid, token: &str) -> String {
        let challenge = self.client.query_one("SELECT plimsoll.login_challenge()", &[]).expect("a challenge");
        let challenge: Vec<u8> = challenge.get(0);
        hex(&Token::parse(token).expect("a token").prove(&challenge, id.as_bytes()))
    }
}

/// Bytes as SQL writes them.
pub fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\\x{digits}")
}

fn refusal(error: &postgres::Error, heard: &mut Vec<String>) -> Refusal {
    let Some(error) = error.as_db_error() else {
        return Refusal { sqlstate: "none".to_owned(), text: error.to_string() };
    };
    let text = all_of(error);
    heard.push(text.clone());
    Refusal { sqlstate: error.code().code().to_owned(), text }
}

/// Everything that an error or a notice says.
fn all_of(error: &postgres::error::DbError) -> String {
    let more =
        [error.detail(), error.hint(), error.where_(), error.column(), error.table(), error.constraint()];
    let more: Vec<&str> = more.into_iter().flatten().collect();
    format!("{}\n{}", error.message(), more.join("\n"))
}

/// A server that allows what an attacker might make use of: two-phase commit, logical decoding, and settings
/// under which it would say much.
fn server() -> &'static TestCluster {
    static SERVER: OnceLock<TestCluster> = OnceLock::new();
    SERVER.get_or_init(|| {
        TestCluster::start_with(&[("max_prepared_transactions", "4"), ("wal_level", "logical")])
    })
}
