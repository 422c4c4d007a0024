//! What a kind of local database implements to be tested, and tables described without any SQL.

use plimsoll_client::config::TableConfig;
use plimsoll_client::source::plan::TablePlan;
use plimsoll_client::source::{self, Place};
use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::schema::{Column, Roles, TableSchema};
use plimsoll_core::store::Source;

/// The key that digests are made with.
pub const KEY: [u8; 32] = [7; 32];

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Whole numbers of 64 bits.
    Number,
    /// Text that is compared byte by byte.
    Text,
    /// Text under a collation to which `a` and `A` are the same.
    Folded,
    /// Bytes.
    Bytes,
    /// Date and time to the microsecond.
    Stamp,
}

impl Type {
    /// The managed column's type.
    pub fn managed(self) -> &'static str {
        match self {
            Type::Number => "int8",
            Type::Text | Type::Folded => "text",
            Type::Bytes => "bytea",
            Type::Stamp => "timestamp",
        }
    }
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Cell {
    /// NULL
    Null,
    /// Of a [`Type::Number`].
    Number(i64),
    /// Of a [`Type::Text`] or [`Type::Folded`].
    Text(String),
    /// Of a [`Type::Bytes`].
    Bytes(Vec<u8>),
    /// Of a [`Type::Stamp`]: microseconds since 2000-01-01.
    Stamp(i64),
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Cell::Number(number)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_owned())
    }
}

/// A table and the part that each column plays.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns; those of the key and the version take no NULL.
    pub columns: Vec<(String, Type)>,
    /// The primary key; none where there is none.
    pub key: Vec<&'static str>,
    /// The version, where there is one.
    pub version: Option<&'static str>,
    /// Whether an index leads to versions.
    pub indexed: bool,
}

impl Table {
    /// A table with an index on its version, where it has one.
    pub fn new(
        name: &str,
        columns: &[(&str, Type)],
        key: &[&'static str],
        version: Option<&'static str>,
    ) -> Self {
        let columns = columns.iter().map(|(name, of)| ((*name).to_owned(), *of)).collect();
        Table { name: name.to_owned(), columns, key: key.to_vec(), version, indexed: version.is_some() }
    }

    /// Whether a column takes no NULL.
    pub fn is_needed(&self, column: &str) -> bool {
        self.key.contains(&column) || self.version == Some(column)
    }

    /// The managed table; `managed` says which of its types are others than the columns'.
    pub fn schema(&self, managed: &[(&str, &str)]) -> TableSchema {
        let columns: Vec<Column> = (1..)
            .zip(&self.columns)
            .map(|(number, (name, of))| {
                let other = managed.iter().find(|(column, _)| column == name).map(|(_, text)| *text);
                Column {
                    number,
                    name: name.clone(),
                    column_type: other.unwrap_or(of.managed()).parse().expect("a type"),
                    not_null: self.is_needed(name),
                }
            })
            .collect();
        let all: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        let placed_by: &[&str] = match (self.version, self.key.is_empty()) {
            (Some(_), _) => &[],
            (None, true) => &all,
            (None, false) => &self.key,
        };
        let roles = Roles { key: &self.key, version: self.version, modified: None, placed_by };
        TableSchema::new(columns, &roles).expect("a schema")
    }
}

/// A private, empty database of one kind, which an application writes to.
pub trait LocalKind: Sized + Send {
    /// A new one.
    fn new() -> Self;

    /// Where the source finds it.
    fn place(&self) -> Place;

    /// The lines under `[source]` that say the same.
    fn setting(&self) -> String;

    /// Lets the source's user write to tables that are made from here on, and keep notes.
    fn allow_writing(&mut self) {}

    /// Whether others write while a snapshot is held.
    fn lets_others_write() -> bool {
        true
    }

    /// What follows a foreign key that is looked at when the transaction is committed, where there are such.
    fn put_off() -> &'static str {
        "DEFERRABLE INITIALLY DEFERRED"
    }

    /// Lets who writes see whether a table has triggers, where that takes a right.
    fn show_triggers(&mut self) {}

    /// Deletes the rows of another table that have in a column the id of a row that is deleted.
    fn trigger_on_delete(table: &str, other: &str, column: &str) -> String;

    /// Statements that make a trigger: whatever row is given `spoil` in a column is stored with `spoilt`.
    fn trigger_that_spoils(table: &str, column: &str) -> String;

    /// Runs statements.
    fn run(&mut self, sql: &str);

    /// The rows of a table as the database's own client prints them: NULL as none, stamps as
    /// `2000-01-01 00:00:00.000000`, bytes as hexadecimal digits.
    fn texts(&mut self, table: &Table) -> Vec<Vec<Option<String>>>;

    /// The type of a column, as a statement declares it.
    fn declared(of: Type) -> &'static str;

    /// The same of a column in the key.
    fn declared_in_key(of: Type) -> &'static str {
        Self::declared(of)
    }

    /// A name in a statement.
    fn quoted(name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    /// A table's name in the configuration.
    fn configured(name: &str) -> String {
        name.to_owned()
    }

    /// Bytes in a statement.
    fn bytes(hex: &str) -> String {
        format!("x'{hex}'")
    }

    /// Managed types that take text in several spellings, two of them that are one value, and how they are converted.
    fn spelled() -> Vec<(&'static str, [&'static str; 2], Option<&'static str>)> {
        let (one, other) = ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11");
        vec![
            ("jsonb", [r#"{"a":1}"#, r#"{"a": 1}"#], None),
            ("numeric", ["1.0", "1.00"], None),
            ("numeric(9,3)", ["0", "-0"], None),
            ("uuid", [one, other], None),
            ("timestamptz", ["1700000000", "1700000000.0"], Some("unix_seconds")),
        ]
    }

    /// The most columns of a table.
    fn most_columns() -> usize {
        1000
    }

    /// A value in a statement.
    fn literal(cell: &Cell) -> String {
        match cell {
            Cell::Null => "NULL".to_owned(),
            Cell::Number(i64::MIN) => format!("(-{} - 1)", i64::MAX),
            Cell::Number(number) => number.to_string(),
            Cell::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Cell::Bytes(bytes) => Self::bytes(&hex(bytes)),
            Cell::Stamp(micros) => format!("'{}'", stamp(*micros)),
        }
    }

    /// Makes a table.
    fn create(&mut self, table: &Table) {
        let name = Self::quoted(&table.name);
        let mut parts: Vec<String> = Vec::new();
        for (column, of) in &table.columns {
            let needed = if table.is_needed(column) { " NOT NULL" } else { "" };
            let declared = match table.key.contains(&column.as_str()) {
                true => Self::declared_in_key(*of),
                false => Self::declared(*of),
            };
            parts.push(format!("{} {declared}{needed}", Self::quoted(column)));
        }
        let list =
            |names: &[&str]| names.iter().map(|name| Self::quoted(name)).collect::<Vec<_>>().join(", ");
        if !table.key.is_empty() {
            parts.push(format!("PRIMARY KEY ({})", list(&table.key)));
        }
        self.run(&format!("CREATE TABLE {name} ({})", parts.join(", ")));
        if let Some(version) = table.version.filter(|_| table.indexed) {
            let index = Self::quoted(&format!("{}_position", table.name));
            let columns: Vec<&str> = [version]
                .into_iter()
                .chain(table.key.iter().copied().filter(|name| *name != version))
                .collect();
            self.run(&format!("CREATE INDEX {index} ON {name} ({})", list(&columns)));
        }
    }

    /// Puts rows into a table.
    fn insert(&mut self, table: &Table, rows: &[Vec<Cell>]) {
        let name = Self::quoted(&table.name);
        for rows in rows.chunks(200) {
            let lists: Vec<String> = rows
                .iter()
                .map(|row| format!("({})", row.iter().map(Self::literal).collect::<Vec<_>>().join(", ")))
                .collect();
            self.run(&format!("INSERT INTO {name} VALUES {}", lists.join(", ")));
        }
    }

    /// The source over tables, with their managed ones.
    fn source(&self, tables: &[(&Table, TableSchema)]) -> Box<dyn Source + Send> {
        let mut local = source::open(&self.place()).unwrap_or_else(|failure| panic!("{failure}"));
        let plan = |(table, schema): &(&Table, TableSchema)| {
            let config = TableConfig { name: Self::configured(&table.name), ..TableConfig::default() };
            let found = local.table(&config.name).unwrap_or_else(|failure| panic!("{failure}"));
            TablePlan::new(&found, schema.clone(), &config, &[]).unwrap_or_else(|failure| panic!("{failure}"))
        };
        let plans = tables.iter().map(plan).collect();
        local.into_source(plans, FingerprintKey::new(KEY)).unwrap_or_else(|failure| panic!("{failure}"))
    }
}

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A stamp with all its digits.
pub fn stamp(micros: i64) -> String {
    let text = plimsoll_core::value::datetime::format_timestamp(micros);
    match text.split_once('.') {
        Some((whole, fraction)) => format!("{whole}.{fraction:0<6}"),
        None => format!("{text}.000000"),
    }
}
