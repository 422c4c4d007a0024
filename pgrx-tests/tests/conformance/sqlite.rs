//! SQLite.

use std::path::PathBuf;

use plimsoll_client::source::Place;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use tempfile::TempDir;

use super::kind::{LocalKind, Table, Type, hex};

/// A database file.
pub struct SqliteKind {
    folder: TempDir,
    connection: Connection,
}

impl SqliteKind {
    fn path(&self) -> PathBuf {
        self.folder.path().join("local.sqlite")
    }
}

impl LocalKind for SqliteKind {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = Connection::open(folder.path().join("local.sqlite")).expect("a database");
        connection.busy_timeout(std::time::Duration::from_secs(10)).expect("a timeout");
        connection.pragma_update(None, "synchronous", "OFF").expect("a setting");
        SqliteKind { folder, connection }
    }

    fn place(&self) -> Place {
        Place::Sqlite(self.path())
    }

    fn setting(&self) -> String {
        format!("sqlite = \"{}\"", self.path().display())
    }

    /// The file's journal keeps old rows in itself.
    fn lets_others_write() -> bool {
        false
    }

    fn trigger_on_delete(table: &str, other: &str, column: &str) -> String {
        format!(
            "CREATE TRIGGER told AFTER DELETE ON {table} BEGIN DELETE FROM {other} WHERE {column} = OLD.id; END"
        )
    }

    fn trigger_that_spoils(table: &str, column: &str) -> String {
        format!(
            "CREATE TRIGGER spoils AFTER INSERT ON {table} WHEN NEW.{column} = \"spoil\"
             BEGIN UPDATE {table} SET {column} = 'spoilt' WHERE id = NEW.id; END"
        )
    }

    fn run(&mut self, sql: &str) {
        self.connection.execute_batch(sql).unwrap_or_else(|error| panic!("{error}\n{sql:.300}"));
    }

    fn texts(&mut self, table: &Table) -> Vec<Vec<Option<String>>> {
        let names: Vec<String> = table.columns.iter().map(|(name, _)| Self::quoted(name)).collect();
        let sql = format!("SELECT {} FROM {}", names.join(", "), Self::quoted(&table.name));
        let mut statement = self.connection.prepare(&sql).expect("a statement");
        let mut rows = statement.query([]).expect("rows");
        let mut texts = Vec::new();
        while let Some(row) = rows.next().expect("a row") {
            let text = |place| match row.get_ref(place).expect("a column") {
                ValueRef::Null => None,
                ValueRef::Integer(number) => Some(number.to_string()),
                ValueRef::Real(number) => Some(number.to_string()),
                ValueRef::Text(text) => Some(String::from_utf8(text.to_vec()).expect("text")),
                ValueRef::Blob(bytes) => Some(hex(bytes)),
            };
            texts.push((0..names.len()).map(text).collect());
        }
        texts
    }

    fn declared(of: Type) -> &'static str {
        match of {
            Type::Number => "INTEGER",
            Type::Text => "TEXT",
            Type::Folded => "TEXT COLLATE NOCASE",
            Type::Bytes => "BLOB",
            Type::Stamp => "TIMESTAMP",
        }
    }
}
