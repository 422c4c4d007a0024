//! The source against a real MariaDB, one server for all tests, and a database for each.

mod catalogue;
mod golden;
mod order;
mod read;
mod values;
mod write;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard};

use plimsoll_cluster::{MariaDb, MariaSession};
use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::schema::{Column, Roles, TableSchema};
use plimsoll_core::store::Outcome;

use super::Mysql;
use crate::config::TableConfig;
use crate::source::Password;
use crate::source::engine::Engine;
use crate::source::local::LocalDatabase;
use crate::source::plan::TablePlan;

/// What tests log in with.
const USER: &str = "reader";
const PASSWORD: &str = "a pass@word";

/// The server. A value of a static is never dropped: the server's own watchdog ends it.
fn server() -> MutexGuard<'static, MariaDb> {
    static SERVER: LazyLock<Mutex<MariaDb>> = LazyLock::new(|| {
        let server =
            MariaDb::start(&["--max-allowed-packet=512M", "--sql-mode=", "--userstat=1"]).expect("a server");
        server.create_user(USER, PASSWORD).expect("a user");
        Mutex::new(server)
    });
    SERVER.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A database of its own, and an administrator's connection to it.
pub struct Fixture {
    pub url: String,
    pub writer: MariaSession,
}

impl Fixture {
    pub fn new(sql: &str) -> Fixture {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let database = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let server = server();
        let mut writer = server.create_database(&database).expect("a database");
        writer.run(&format!("GRANT SELECT ON {database}.* TO '{USER}'@'%'")).expect("a grant");
        let mut fixture = Fixture { url: server.url(USER, &database), writer };
        fixture.run(sql);
        fixture
    }

    pub fn run(&mut self, sql: &str) {
        self.writer.run(sql).expect("sound SQL");
    }

    pub fn open(&self) -> Outcome<Mysql> {
        Mysql::open(&self.url, Some(&Password(PASSWORD.to_owned())))
    }

    /// A source over one table; see [`schema`] for the columns.
    pub fn source(&self, table: &str, columns: &[(&str, &str)], version: Option<&str>) -> Engine<Mysql> {
        let mut local = self.open().expect("opened");
        let found = local.table(table).expect("a table");
        let config = TableConfig { name: table.to_owned(), ..TableConfig::default() };
        let plan = TablePlan::new(&found, schema(columns, version), &config, &[]).expect("they fit");
        Engine::new(local, vec![plan], FingerprintKey::new([1; 32]))
    }
}

/// A managed table's schema: names and types; `!` behind a type is NOT NULL, `*` the key. Without a key the table is keyless,
/// without a version rows stand at the hash of their key, or of their content.
pub fn schema(columns: &[(&str, &str)], version: Option<&str>) -> TableSchema {
    let column = |(i, (name, text)): (usize, &(&str, &str))| Column {
        number: i as u32 + 1,
        name: (*name).to_owned(),
        column_type: text.trim_end_matches(['!', '*']).parse().expect("a type"),
        not_null: text.ends_with(['!', '*']),
    };
    let key: Vec<&str> = columns.iter().filter(|(_, text)| text.ends_with('*')).map(|(n, _)| *n).collect();
    let all: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let placed_by = match (version, key.is_empty()) {
        (Some(_), _) => &[][..],
        (None, true) => &all,
        (None, false) => &key,
    };
    let roles = Roles { key: &key, version, placed_by, ..Roles::default() };
    TableSchema::new(columns.iter().enumerate().map(column).collect(), &roles).expect("sound")
}
