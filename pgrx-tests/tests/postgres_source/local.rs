//! A database that stands for a local one, and what the source makes of its tables.

use plimsoll_client::config::TableConfig;
use plimsoll_client::server::address::Address;
use plimsoll_client::source::local::LocalDatabase;
use plimsoll_client::source::plan::TablePlan;
use plimsoll_client::source::postgres::Postgres;
use plimsoll_client::source::write::LocalStore;
use plimsoll_client::source::{Place, open_writable};
use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::schema::{Column, Roles, TableSchema};
use plimsoll_core::store::{BatchLimit, Failure, Source, SourceRecord};
use plimsoll_tests::{Login, shared};
use postgres::Client;

/// The key that digests are made with.
pub const KEY: [u8; 32] = [1; 32];

/// A database without the extension, and a role that may read it and nothing else.
pub struct Local {
    /// The database's name.
    pub database: String,
    /// Who reads.
    pub reader: Login,
    /// A connection of the application, as superuser.
    pub writer: Client,
}

impl Local {
    /// A new database with what `sql` makes in it.
    pub fn new(sql: &str) -> Self {
        let database = shared().create_empty_database();
        let mut writer = shared().superuser(&database);
        let reader = shared().create_login(&[]);
        let grant = format!(
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}; GRANT USAGE ON SCHEMA public TO {role};",
            role = reader.role
        );
        writer.batch_execute(&(grant + sql)).expect("the local tables");
        Local { database, reader, writer }
    }

    /// The address by which the source reads.
    pub fn address(&self) -> Address {
        Address::parse(&self.url()).expect("an address")
    }

    /// The same as text, password included.
    pub fn url(&self) -> String {
        shared().client_url(&self.reader, &self.database)
    }

    /// The source over one table; columns are written `name type`, with `*` behind those of the key and `!` behind those
    /// that take no NULL.
    pub fn source(&self, table: &str, columns: &[&str], version: Option<&str>) -> Box<dyn Source + Send> {
        self.try_source(table, columns, version).unwrap_or_else(|failure| panic!("{table}: {failure}"))
    }

    /// As [`source`](Self::source), which may be refused.
    pub fn try_source(
        &self,
        table: &str,
        columns: &[&str],
        version: Option<&str>,
    ) -> Result<Box<dyn Source + Send>, Failure> {
        source_at(self.address(), table, columns, version)
    }
}

impl Local {
    /// The store over one table, whose rows stand at the hash of their key; columns as in [`source`](Self::source).
    pub fn store(&mut self, table: &str, columns: &[&str]) -> (Box<dyn LocalStore>, TableSchema) {
        let grant = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON public.{table} TO {}", self.reader.role);
        self.writer.batch_execute(&grant).expect("the right to write");
        let (local, plan) = self.planned(table, columns);
        let schema = plan.schema.clone();
        (local.into_store(vec![plan], FingerprintKey::new(KEY)).expect("a store"), schema)
    }

    /// The database opened to be written to, and how one of its tables is.
    pub fn planned(&self, table: &str, columns: &[&str]) -> (Box<dyn LocalDatabase>, TablePlan) {
        let mut local = self.opened();
        let found = local.table(table).expect("a table");
        let config = TableConfig { name: table.to_owned(), ..Default::default() };
        let plan = TablePlan::new(&found, schema(columns, None), &config, &[]).expect("they fit");
        (local, plan)
    }

    /// The database opened to be written to.
    pub fn opened(&self) -> Box<dyn LocalDatabase> {
        open_writable(&Place::Postgres { url: self.url(), password: None }).expect("opened")
    }
}

/// The source over one table of a database anywhere.
pub fn source_at(
    address: Address,
    table: &str,
    columns: &[&str],
    version: Option<&str>,
) -> Result<Box<dyn Source + Send>, Failure> {
    let mut local: Box<dyn LocalDatabase> = Box::new(Postgres::open(address)?);
    let schema = schema(columns, version);
    let found = local.table(table)?;
    for column in schema.columns() {
        if let Some(own) = found.column(&column.name) {
            local.fits(&found, &own.name, &column.column_type)?;
        }
    }
    let plan =
        TablePlan::new(&found, schema, &TableConfig { name: table.to_owned(), ..Default::default() }, &[])?;
    local.into_source(vec![plan], FingerprintKey::new(KEY))
}

/// A managed table.
pub fn schema(columns: &[&str], version: Option<&str>) -> TableSchema {
    let mut key = Vec::new();
    let made = (1..).zip(columns).map(|(number, text)| {
        let (name, column_type) = text.split_once(' ').expect("a name and a type");
        let bare = column_type.trim_end_matches(['*', '!']);
        if column_type.ends_with('*') {
            key.push(name);
        }
        Column {
            number,
            name: name.to_owned(),
            column_type: bare.parse().unwrap_or_else(|error| panic!("{bare}: {error}")),
            not_null: bare.len() < column_type.len(),
        }
    });
    let made: Vec<Column> = made.collect();
    let all: Vec<&str> = columns.iter().map(|text| text.split(' ').next().expect("a name")).collect();
    let placed_by: &[&str] = match (version, key.is_empty()) {
        (Some(_), _) => &[],
        (None, false) => &key,
        (None, true) => &all,
    };
    TableSchema::new(made, &Roles { key: &key, version, modified: None, placed_by }).expect("a schema")
}

/// All records of the first table, read in batches of so many rows.
pub fn read_all(source: &mut dyn Source, rows: usize) -> Vec<SourceRecord> {
    let (mut records, mut after) = (Vec::new(), None);
    loop {
        let batch =
            source.read_batch(0, after.as_ref(), BatchLimit { rows, bytes: 64 << 20 }).expect("a batch");
        records.extend(batch.records);
        match batch.next {
            Some(next) => after = Some(next),
            None => return records,
        }
    }
}
