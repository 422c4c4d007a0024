//! MariaDB.

use std::sync::LazyLock;

use plimsoll_client::source::Place;
use plimsoll_cluster::mysql_async::Value;
use plimsoll_cluster::{MariaDb, MariaSession};
use plimsoll_tests::shared;

use super::kind::{LocalKind, Table, Type};

const USER: &str = "reader";
const PASSWORD: &str = "secret";

/// One server for all tests; its own watchdog ends it.
static SERVER: LazyLock<MariaDb> = LazyLock::new(|| {
    let server = MariaDb::start(&["--max-allowed-packet=512M"]).expect("a server");
    server.create_user(USER, PASSWORD).expect("a user");
    server
});

/// A database that a user may read.
pub struct MariaDbKind {
    database: String,
    writer: MariaSession,
}

impl MariaDbKind {
    fn url(&self) -> String {
        SERVER.url(&format!("{USER}:{PASSWORD}"), &self.database)
    }
}

impl LocalKind for MariaDbKind {
    fn new() -> Self {
        let database = shared().unique("local");
        let mut writer = SERVER.create_database(&database).expect("a database");
        writer
            .run(&format!(
                "GRANT SELECT ON {database}.* TO '{USER}'@'%';
                 SET NAMES utf8mb4; SET sql_mode = 'STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES', time_zone = '+00:00'"
            ))
            .expect("a reader");
        MariaDbKind { database, writer }
    }

    fn place(&self) -> Place {
        Place::Mysql { url: self.url(), password: None }
    }

    fn setting(&self) -> String {
        format!("mysql = \"{}\"", self.url())
    }

    fn allow_writing(&mut self) {
        let database = &self.database;
        let sql = format!("GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON {database}.* TO '{USER}'@'%'");
        self.writer.run(&sql).expect("rights");
    }

    /// All are looked at at once.
    fn put_off() -> &'static str {
        ""
    }

    fn show_triggers(&mut self) {
        let sql = format!("GRANT TRIGGER ON {}.* TO '{USER}'@'%'", self.database);
        self.writer.run(&sql).expect("a right");
    }

    fn trigger_on_delete(table: &str, other: &str, column: &str) -> String {
        format!(
            "CREATE TRIGGER told AFTER DELETE ON {table} FOR EACH ROW DELETE FROM {other} WHERE {column} = OLD.id"
        )
    }

    fn trigger_that_spoils(table: &str, column: &str) -> String {
        format!(
            "CREATE TRIGGER spoils BEFORE INSERT ON {table} FOR EACH ROW
             SET NEW.{column} = IF(NEW.{column} = 'spoil', 'spoilt', NEW.{column})"
        )
    }

    fn run(&mut self, sql: &str) {
        self.writer.run(sql).unwrap_or_else(|error| panic!("{error:?}\n{sql:.300}"));
    }

    fn texts(&mut self, table: &Table) -> Vec<Vec<Option<String>>> {
        let text = |(name, of): &(String, Type)| match of {
            Type::Bytes => format!("LOWER(HEX({}))", Self::quoted(name)),
            Type::Stamp => format!("DATE_FORMAT({}, '%Y-%m-%d %H:%i:%s.%f')", Self::quoted(name)),
            _ => format!("CAST({} AS CHAR CHARACTER SET utf8mb4)", Self::quoted(name)),
        };
        let list: Vec<String> = table.columns.iter().map(text).collect();
        let sql = format!("SELECT {} FROM {}", list.join(", "), Self::quoted(&table.name));
        let text = |value: Value| match value {
            Value::NULL => None,
            Value::Bytes(bytes) => Some(String::from_utf8(bytes).expect("text")),
            other => panic!("no text: {other:?}"),
        };
        let rows = self.writer.rows(&sql).expect("rows");
        rows.into_iter().map(|row| row.into_iter().map(text).collect()).collect()
    }

    fn declared(of: Type) -> &'static str {
        match of {
            Type::Number => "BIGINT",
            Type::Text => "LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
            Type::Folded => "VARCHAR(190) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
            Type::Bytes => "LONGBLOB",
            Type::Stamp => "DATETIME(6)",
        }
    }

    /// A key needs columns of some length.
    fn declared_in_key(of: Type) -> &'static str {
        match of {
            Type::Text => "VARCHAR(190) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
            Type::Bytes => "VARBINARY(100)",
            other => Self::declared(other),
        }
    }

    fn quoted(name: &str) -> String {
        format!("`{}`", name.replace('`', "``"))
    }

    /// InnoDB has no room for more numbers of 8 bytes in half a page.
    fn most_columns() -> usize {
        990
    }
}
