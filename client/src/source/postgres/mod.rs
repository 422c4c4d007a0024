//! A Postgres database as the source. Each call is one short read-only snapshot; nothing but SELECT is needed.
//!
//! | file | what lives there |
//! |---|---|
//! | `catalogue` | tables, columns, keys, indexes and types as the database tells |
//! | `shape` | what values of a type look like, and which managed type is proposed for it |
//! | `session` | the connection, and the transaction of a call |
//! | `source` | rows of queries |
//! | `kept` | manifests that the database itself keeps |
//! | `dialect` | statements |
//! | `row` | rows, and values that are bound again |
//! | `decode`, `nested` | values from Postgres' binary form |
//! | `write` | writing |
//! | `spelled`, `written` | values as text, by which keys are looked up |

mod catalogue;
mod decode;
mod dialect;
mod error;
mod kept;
pub mod nested;
mod row;
mod session;
mod shape;
mod source;
mod spelled;
mod write;
mod written;

use std::collections::HashMap;

use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::store::{Outcome, Source};
use plimsoll_core::value::ColumnType;
use uuid::Uuid;

use super::local::{Holds, LocalColumn, LocalDatabase, LocalTable, Part, no_note};
use super::plan::TablePlan;
use super::write::LocalStore;
use crate::failure::{Advise, table as refused};
use crate::names::Relation;
use crate::server::address::Address;
use catalogue::{Described, Found, quoted};
use decode::fits;
use kept::Keeper;
use session::Session;
use shape::{Shape, Types, proposed};
use source::{PostgresSource, ReadTable};

/// An open database, of which the tables are still to be chosen.
#[derive(Debug)]
pub struct Postgres {
    session: Session,
    types: Types,
    /// The tables looked at so far, by the name that they were given.
    tables: HashMap<String, Described>,
    /// The database whose manifests are used.
    manifests_of: Option<Uuid>,
}

impl Postgres {
    /// Connects to the database.
    ///
    /// # Errors
    /// A `Run` failure where the address, the user or the server is not one to read from, `Passing` where nothing answers.
    pub fn open(address: Address) -> Outcome<Self> {
        Ok(Postgres {
            session: Session::open(address)?,
            types: Types::default(),
            tables: HashMap::new(),
            manifests_of: None,
        })
    }

    fn find(&mut self, name: &str) -> Outcome<Found> {
        let wanted = Relation::parse(name);
        let found = self.session.catalogue(async |client| {
            catalogue::find(client, wanted.schema.as_deref(), &wanted.table).await
        })?;
        // As it is spelled, else in any case; without a schema in `public`, else wherever it is alone.
        let exact = |found: &&Found| {
            found.name == wanted.table && wanted.schema.as_ref().is_none_or(|schema| *schema == found.schema)
        };
        let mut candidates: Vec<&Found> = found.iter().filter(exact).collect();
        if candidates.is_empty() {
            candidates = found.iter().collect();
        }
        let in_public =
            candidates.iter().copied().filter(|found| found.schema == "public").collect::<Vec<_>>();
        if wanted.schema.is_none() && in_public.len() == 1 {
            candidates = in_public;
        }
        match candidates[..] {
            [one] => Ok(one.clone()),
            [] => Err(refused(format!("the local Postgres database has no table \"{name}\""))
                .advise("correct its name in the configuration, or take it out")),
            _ => {
                let names: Vec<_> = candidates.iter().map(|found| found.local_name()).collect();
                Err(refused(format!("\"{name}\" may be several tables of the local database"))
                    .advise(format!("name one of {}", names.join(", "))))
            }
        }
    }

    fn described(&mut self, name: &str) -> Outcome<&Described> {
        if !self.tables.contains_key(name) {
            let found = self.find(name)?;
            if let Some((what, hint)) = no_table(&found.kind) {
                return Err(refused(format!("\"{name}\" of the local database is {what}")).advise(hint));
            }
            let types = &mut self.types;
            let mut described = self.session.catalogue(async |client| {
                let described = catalogue::describe(client, &found).await?;
                catalogue::read_types(client, &described.types, types).await?;
                Ok(described)
            })?;
            for (column, own) in described.table.columns.iter_mut().zip(&described.types) {
                column.holds = match self.types.shape(own.oid) {
                    Shape::Int2 | Shape::Int4 | Shape::Int8 | Shape::Xid8 => Holds::Numbers,
                    Shape::Timestamp | Shape::Timestamptz => Holds::Stamps,
                    _ => Holds::Other,
                };
            }
            self.tables.insert(name.to_owned(), described);
        }
        self.tables.get(name).ok_or_else(|| refused(format!("no table \"{name}\"")))
    }

    /// A table that was looked at, by the name that it was given or its own.
    fn looked_at(&self, table: &str) -> Option<&Described> {
        let named = || self.tables.values().find(|described| described.table.name == table);
        self.tables.get(table).or_else(named)
    }

    /// The type of a column, and how its values look.
    fn column_type(&self, table: &str, column: &str) -> Option<(catalogue::ColumnType, Shape)> {
        let described = self.looked_at(table)?;
        let place = described.table.columns.iter().position(|own| own.name == column)?;
        let own = *described.types.get(place)?;
        Some((own, self.types.shape(own.oid)))
    }

    /// What reading a table needs to know of it. Its plan may be of what another connection saw.
    ///
    /// # Errors
    /// Where it has not the columns that the plan is of: their values would all be taken for ones that fit nowhere.
    fn read_table(&self, plan: &TablePlan) -> Outcome<ReadTable> {
        let (mut shapes, mut types, mut operators) = (Vec::new(), Vec::new(), Vec::new());
        for column in &plan.columns {
            if !column.is_local() {
                shapes.push(Shape::Written(String::new()));
                types.push(None);
                operators.push(shape::Operators::None);
                continue;
            }
            let is_same = |described: &&Described| {
                let own = described.table.columns.iter().find(|own| own.name == column.name);
                own.is_some_and(|own| own.declared == column.declared)
            };
            let known = self.looked_at(&plan.table).filter(is_same);
            let Some((own, shape)) = known.and_then(|_| self.column_type(&plan.table, &column.name)) else {
                let message = format!(
                    "column \"{}\" of the local table \"{}\" is not as it was when the run began",
                    column.name, plan.table
                );
                return Err(refused(message).advise("run again: the table is read as it is by then"));
            };
            // Rows come with the type that a domain is made of.
            let (oid, _) = self.types.base(own.oid, own.modifier);
            types.push((!shape.is_written()).then_some(oid));
            let own_operators = self.types.operators(own.oid);
            operators.push(if own.as_text { shape::Operators::None } else { own_operators });
            shapes.push(shape);
        }
        Ok(ReadTable::new(shapes, types, operators))
    }

    /// The same of each.
    fn read_tables(&mut self, plans: &[TablePlan]) -> Outcome<Vec<ReadTable>> {
        plans
            .iter()
            .map(|plan| {
                if self.looked_at(&plan.table).is_none() {
                    self.described(&plan.table)?;
                }
                self.read_table(plan)
            })
            .collect()
    }
}

/// What a relation is that is not read, and what to do instead.
fn no_table(kind: &str) -> Option<(&'static str, &'static str)> {
    match kind {
        "v" => Some(("a view", "name the table that it reads, or make it a materialised view")),
        "f" => Some(("a foreign table", "read it where it is")),
        _ => None,
    }
}

impl LocalDatabase for Postgres {
    fn kind(&self) -> &'static str {
        "Postgres"
    }

    fn table_names(&mut self) -> Outcome<Vec<String>> {
        let found = self.session.catalogue(async |client| catalogue::tables(client).await)?;
        Ok(found.iter().map(Found::local_name).collect())
    }

    fn table(&mut self, name: &str) -> Outcome<LocalTable> {
        no_note(&Relation::parse(name).table)?;
        Ok(self.described(name)?.table.clone())
    }

    fn quoted(&self, name: &str) -> String {
        quoted(name)
    }

    fn managed_name(&self, name: &str) -> Relation {
        Relation::parse(name)
    }

    fn proposed_type(
        &mut self,
        table: &LocalTable,
        column: &LocalColumn,
        part: Part,
    ) -> Outcome<Option<String>> {
        self.described(&table.name)?;
        let Some((own, shape)) = self.column_type(&table.name, &column.name) else { return Ok(None) };
        let (oid, modifier) = self.types.base(own.oid, own.modifier);
        let declared = match oid == own.oid {
            true => column.declared.clone(),
            false => {
                self.session.catalogue(async |client| catalogue::type_text(client, oid, modifier).await)?
            }
        };
        let is_stamp = matches!(shape, Shape::Timestamp | Shape::Timestamptz);
        Ok(Some(proposed(&shape, &declared)).filter(|_| part != Part::Modified || is_stamp))
    }

    fn fits(&mut self, table: &LocalTable, column: &str, to: &ColumnType) -> Outcome<()> {
        let Some((_, shape)) = self.column_type(&table.name, column) else { return Ok(()) };
        if fits(&shape, to) {
            return Ok(());
        }
        let declared = table.column(column).map(|column| column.declared.as_str()).unwrap_or_default();
        let message = format!(
            "column \"{column}\" of the local table \"{}\" is {declared}, which the managed column's {to} does not hold \
             exactly",
            table.name
        );
        let hint = format!("let the managed column be {}, or leave it out", proposed(&shape, declared));
        Err(refused(message).advise(hint))
    }

    fn understands(&mut self, statement: &str) -> Outcome<()> {
        self.session.catalogue(async |client| client.prepare(statement).await.map(drop))
    }

    fn highest_position(&mut self, plan: &TablePlan) -> Outcome<Option<i64>> {
        let Some(place) = plan.version_place() else { return Ok(None) };
        let table = self.read_table(plan)?;
        self.session.highest(plan, place, &table)
    }

    fn use_manifests(&mut self, database_id: Uuid) {
        self.manifests_of = Some(database_id);
    }

    fn into_source(
        mut self: Box<Self>,
        tables: Vec<TablePlan>,
        key: FingerprintKey,
    ) -> Outcome<Box<dyn Source + Send>> {
        let read = self.read_tables(&tables)?;
        let keeper = self.manifests_of.map(|database_id| Keeper::new(database_id, key.clone()));
        let source = PostgresSource::new(self.session, read, keeper);
        Ok(Box::new(super::engine::Engine::new(source, tables, key)))
    }

    fn into_store(
        mut self: Box<Self>,
        tables: Vec<TablePlan>,
        key: FingerprintKey,
    ) -> Outcome<Box<dyn LocalStore>> {
        let read = self.read_tables(&tables)?;
        // A statement on a manifest may fail, and the transaction with it.
        let source = PostgresSource::new(self.session, read, None);
        Ok(Box::new(super::engine::Engine::new(source, tables, key)))
    }
}
