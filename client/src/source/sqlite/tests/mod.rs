//! The SQLite source against real database files.

mod convert;
mod find;
pub(in crate::source) mod golden;
mod open;
mod plan;
mod read;
mod write;

use std::path::PathBuf;

use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::row::Fields;
use plimsoll_core::schema::{Column, Roles, TableSchema};
use plimsoll_core::store::{BatchLimit, Cursor, Source, SourceRecord};
use rusqlite::Connection;
use tempfile::TempDir;

use super::Sqlite;
use crate::config::TableConfig;
use crate::source::engine::Engine;
use crate::source::local::LocalDatabase;
use crate::source::plan::TablePlan;

/// The source over a database file.
pub type SqliteSource = Engine<Sqlite>;

/// A database file in a folder of its own, and a writer on it.
pub struct Fixture {
    folder: TempDir,
    pub writer: Connection,
}

impl Fixture {
    pub fn new(sql: &str) -> Fixture {
        let folder = tempfile::tempdir().expect("a folder");
        let writer = Connection::open(folder.path().join("local.sqlite")).expect("a database");
        writer.execute_batch(sql).expect("sound SQL");
        Fixture { folder, writer }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("local.sqlite")
    }

    pub fn run(&self, sql: &str) {
        self.writer.execute_batch(sql).expect("sound SQL");
    }

    /// A source over one table; see [`schema`] for the columns.
    pub fn source(&self, table: &str, columns: &[(&str, &str)], version: &str) -> SqliteSource {
        let mut local = Sqlite::open(&self.path()).expect("opened");
        let found = local.table(table).expect("a table");
        let config = TableConfig { name: table.to_owned(), ..TableConfig::default() };
        let plan = TablePlan::new(&found, schema(columns, version), &config, &[]).expect("they fit");
        Engine::new(local, vec![plan], FingerprintKey::new([1; 32]))
    }
}

/// A managed table's schema: names and types; `!` behind a type is NOT NULL, `*` the key. With an empty
/// name for a version rows stand at a hash of the key.
pub fn schema(columns: &[(&str, &str)], version: &str) -> TableSchema {
    let column = |(i, (name, text)): (usize, &(&str, &str))| Column {
        number: i as u32 + 1,
        name: (*name).to_owned(),
        column_type: text.trim_end_matches(['!', '*']).parse().expect("a type"),
        not_null: text.ends_with(['!', '*']),
    };
    let key: Vec<&str> = columns.iter().filter(|(_, text)| text.ends_with('*')).map(|(n, _)| *n).collect();
    let roles = match version {
        "" => Roles { key: &key, placed_by: &key, ..Roles::default() },
        version => Roles { key: &key, version: Some(version), ..Roles::default() },
    };
    TableSchema::new(columns.iter().enumerate().map(column).collect(), &roles).expect("sound")
}

/// The position and the values of a row or, of a bad one, the column and the code.
pub fn shown(record: &SourceRecord) -> String {
    match record {
        SourceRecord::Row(row) => {
            let values: Vec<String> =
                Fields::new(&row.row).map(|field| format!("{:?}", field.expect("a field").value)).collect();
            format!("{}: {}", row.item.position, values.join(" "))
        }
        SourceRecord::Bad(bad) => {
            format!("{:?}: bad {} {}", bad.position, bad.column.as_deref().unwrap_or("?"), bad.sqlstate)
        }
    }
}

/// Reads everything, in batches of at most so many rows.
pub fn read_all(source: &mut impl Source, rows: usize) -> Vec<SourceRecord> {
    let mut records = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let limit = BatchLimit { rows, bytes: 1 << 20 };
        let batch = source.read_batch(0, after.as_ref(), limit).expect("read");
        records.extend(batch.records);
        after = batch.next;
        if after.is_none() {
            return records;
        }
    }
}
