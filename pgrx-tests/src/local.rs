//! Local databases of each kind, as an application has them and the client may write to them: on a server that all tests of
//! one binary share, or on one of its own, which can be crashed.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_cluster::mysql_async::Value;
use plimsoll_cluster::{MariaDb, MariaSession, StopMode};
use postgres::{Client, SimpleQueryMessage};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use tempfile::TempDir;

use crate::{Agent, Login, TestCluster, shared};

/// What the client's user of a MariaDB server is called, and its password.
const USER: &str = "writer";
const PASSWORD: &str = "secret";

/// What a MariaDB server is run with: a lock is not waited for longer than a test can wait.
const SETTINGS: [&str; 1] = ["--innodb-lock-wait-timeout=20"];

/// The products that a local database may be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    Sqlite,
    /// A database without the extension.
    Postgres,
    /// MariaDB.
    MariaDb,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Sqlite, Kind::Postgres, Kind::MariaDb];

    /// A word for names.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Sqlite => "sqlite",
            Kind::Postgres => "postgres",
            Kind::MariaDb => "mariadb",
        }
    }
}

/// A local database. Its folder and its server go with the value.
#[derive(Debug)]
pub struct LocalDatabase {
    place: Place,
}

#[derive(Debug)]
enum Place {
    Sqlite { file: PathBuf, _folder: Option<TempDir> },
    Postgres { own: Option<Box<TestCluster>>, database: String, login: Login },
    MariaDb { own: bool, server: Arc<Mutex<MariaDb>>, database: String },
}

/// A connection of an application, which may do everything. Stamps are written and read in UTC.
pub enum LocalSession {
    /// To a file.
    Sqlite(Connection),
    /// To Postgres.
    Postgres(Client),
    /// To MariaDB.
    MariaDb(MariaSession),
}

/// One MariaDB server for all tests of a binary; its own watchdog ends it.
fn shared_mariadb() -> Arc<Mutex<MariaDb>> {
    static SERVER: LazyLock<Arc<Mutex<MariaDb>>> = LazyLock::new(start_mariadb);
    Arc::clone(&SERVER)
}

fn start_mariadb() -> Arc<Mutex<MariaDb>> {
    let server = MariaDb::start(&SETTINGS).expect("a MariaDB server");
    server.create_user(USER, PASSWORD).expect("a user");
    Arc::new(Mutex::new(server))
}

impl LocalDatabase {
    /// An empty one, on the server that the tests share.
    pub fn new(kind: Kind) -> Self {
        Self::of(kind, false)
    }

    /// An empty one, on a server of its own where there are servers.
    pub fn with_own_server(kind: Kind) -> Self {
        Self::of(kind, true)
    }

    /// The one of an agent of [`Site::agent`](crate::Site::agent).
    pub fn of_agent(agent: &Agent) -> Self {
        LocalDatabase { place: Place::Sqlite { file: agent.home.path(crate::LOCAL), _folder: None } }
    }

    fn of(kind: Kind, own: bool) -> Self {
        let place = match kind {
            Kind::Sqlite => {
                let folder = tempfile::tempdir().expect("a folder");
                Place::Sqlite { file: folder.path().join(crate::LOCAL), _folder: Some(folder) }
            }
            Kind::Postgres => {
                let own = own.then(|| Box::new(TestCluster::start_bare(&[])));
                let cluster = own.as_deref().unwrap_or_else(|| shared());
                let (database, login) = (cluster.create_empty_database(), cluster.create_login(&[]));
                let role = &login.role;
                let rights = format!(
                    "GRANT CREATE ON SCHEMA public TO {role};
                     ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role}"
                );
                cluster.superuser(&database).batch_execute(&rights).expect("rights");
                Place::Postgres { own, database, login }
            }
            Kind::MariaDb => {
                let server = if own { start_mariadb() } else { shared_mariadb() };
                let database = shared().unique("local");
                let rights =
                    format!("GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON {database}.* TO '{USER}'@'%'");
                let locked = server.lock().unwrap_or_else(PoisonError::into_inner);
                let mut session = locked.create_database(&database).expect("a database");
                session.run(&rights).expect("rights");
                drop(locked);
                Place::MariaDb { own, server, database }
            }
        };
        LocalDatabase { place }
    }

    /// What it is of.
    pub fn kind(&self) -> Kind {
        match self.place {
            Place::Sqlite { .. } => Kind::Sqlite,
            Place::Postgres { .. } => Kind::Postgres,
            Place::MariaDb { .. } => Kind::MariaDb,
        }
    }

    /// The line under `[source]` of the client's configuration.
    pub fn setting(&self) -> String {
        match &self.place {
            Place::Sqlite { file, .. } => format!("sqlite = \"{}\"", file.display()),
            Place::Postgres { own, database, login } => {
                let cluster = own.as_deref().unwrap_or_else(|| shared());
                format!("postgres = \"{}\"", cluster.client_url(login, database))
            }
            Place::MariaDb { server, database, .. } => {
                let server = server.lock().unwrap_or_else(PoisonError::into_inner);
                format!("mysql = \"{}\"", server.url(&format!("{USER}:{PASSWORD}"), database))
            }
        }
    }

    /// A new connection of an application.
    pub fn connect(&self) -> LocalSession {
        match &self.place {
            Place::Sqlite { file, .. } => {
                let connection = Connection::open(file).expect("a database");
                connection.busy_timeout(Duration::from_secs(20)).expect("a timeout");
                connection.pragma_update(None, "synchronous", "OFF").expect("a setting");
                LocalSession::Sqlite(connection)
            }
            Place::Postgres { own, database, .. } => {
                let mut client = own.as_deref().unwrap_or_else(|| shared()).superuser(database);
                client.batch_execute("SET timezone = 'UTC'").expect("a setting");
                LocalSession::Postgres(client)
            }
            Place::MariaDb { server, database, .. } => {
                let server = server.lock().unwrap_or_else(PoisonError::into_inner);
                let mut session = server.admin().expect("a session");
                let settings = format!(
                    "USE {database}; SET NAMES utf8mb4;
                     SET sql_mode = 'STRICT_ALL_TABLES,PIPES_AS_CONCAT,ANSI_QUOTES', time_zone = '+00:00'"
                );
                session.run(&settings).expect("settings");
                LocalSession::MariaDb(session)
            }
        }
    }

    /// Ends the client's connections, as an administrator of that server may; answers how many there were. A file has none.
    pub fn end_connections(&self) -> u64 {
        match &self.place {
            Place::Sqlite { .. } => 0,
            Place::Postgres { own, login, .. } => {
                end_connections(own.as_deref().unwrap_or_else(|| shared()), &login.role)
            }
            Place::MariaDb { server, database, .. } => {
                let server = server.lock().unwrap_or_else(PoisonError::into_inner);
                let mut admin = server.admin().expect("a session");
                let sql = format!(
                    "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '{USER}' AND DB = '{database}'"
                );
                let sessions = admin.rows(&sql).expect("the sessions");
                // One that ended by itself meanwhile is none.
                let ended = |row: &&Vec<Value>| {
                    let id = text(&row[0]).unwrap_or_default();
                    admin.run(&format!("KILL CONNECTION {id}")).is_ok()
                };
                sessions.iter().filter(ended).count() as u64
            }
        }
    }

    /// Ends its server as a power failure would, and starts it again; answers whether it has one of its own. Sessions are
    /// lost.
    pub fn crash(&self) -> bool {
        match &self.place {
            Place::Postgres { own: Some(cluster), .. } => {
                cluster.stop_server(StopMode::Immediate).expect("the server stops");
                cluster.start_server().expect("the server starts");
                true
            }
            Place::MariaDb { own: true, server, .. } => {
                let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
                server.kill().expect("the server ends");
                server.launch().expect("the server starts");
                true
            }
            _ => false,
        }
    }
}

/// Ends all connections of a role of a Postgres server; answers how many there were.
pub fn end_connections(cluster: &TestCluster, role: &str) -> u64 {
    let sql =
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1";
    cluster.superuser("postgres").query_one(sql, &[&role]).expect("ended").get::<_, i64>(0) as u64
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        other => panic!("{other:?} is neither text nor a whole number"),
    }
}

impl LocalSession {
    /// Runs statements.
    #[track_caller]
    pub fn run(&mut self, sql: &str) {
        self.attempt(sql).unwrap_or_else(|error| panic!("{error}\n{sql:.300}"));
    }

    /// Runs statements that may fail.
    ///
    /// # Errors
    /// What the database says.
    pub fn attempt(&mut self, sql: &str) -> Result<(), String> {
        match self {
            LocalSession::Sqlite(connection) => {
                connection.execute_batch(sql).map_err(|error| error.to_string())
            }
            LocalSession::Postgres(client) => client.batch_execute(sql).map_err(|error| format!("{error:?}")),
            LocalSession::MariaDb(session) => session.run(sql).map_err(|error| format!("{error:#}")),
        }
    }

    /// The rows of a query, each value as the database writes it as text. MariaDB's stamps and numbers that are not whole
    /// must be made text by the query.
    #[track_caller]
    pub fn rows(&mut self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.attempt_rows(sql).unwrap_or_else(|error| panic!("{error}\n{sql:.300}"))
    }

    /// The rows of a query that may fail.
    ///
    /// # Errors
    /// What the database says.
    pub fn attempt_rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        match self {
            LocalSession::Sqlite(connection) => {
                sqlite_rows(connection, sql).map_err(|error| error.to_string())
            }
            LocalSession::Postgres(client) => {
                let answers = client.simple_query(sql).map_err(|error| format!("{error:?}"))?;
                let texts = |message: &SimpleQueryMessage| match message {
                    SimpleQueryMessage::Row(row) => {
                        Some((0..row.len()).map(|place| row.get(place).map(str::to_owned)).collect())
                    }
                    _ => None,
                };
                Ok(answers.iter().filter_map(texts).collect())
            }
            LocalSession::MariaDb(session) => {
                let rows = session.rows(sql).map_err(|error| format!("{error:#}"))?;
                Ok(rows.iter().map(|row| row.iter().map(text).collect()).collect())
            }
        }
    }
}

fn sqlite_rows(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<Vec<Option<String>>>> {
    let mut statement = connection.prepare(sql)?;
    let width = statement.column_count();
    let mut rows = statement.query([])?;
    let mut texts = Vec::new();
    while let Some(row) = rows.next()? {
        let text = |place| {
            Ok(match row.get_ref(place)? {
                ValueRef::Null => None,
                ValueRef::Integer(number) => Some(number.to_string()),
                ValueRef::Real(number) => Some(number.to_string()),
                ValueRef::Text(text) | ValueRef::Blob(text) => {
                    Some(String::from_utf8_lossy(text).into_owned())
                }
            })
        };
        texts.push((0..width).map(text).collect::<rusqlite::Result<_>>()?);
    }
    Ok(texts)
}
