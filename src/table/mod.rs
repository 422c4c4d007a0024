//! Managed tables: from a name to everything a statement on the table needs.
//!
//! Registrations hold names. Each use finds the table by its registered name and makes sure that it still
//! has the registered owner and columns; the oid in the registration is a cache and a hint when the name
//! is gone.

mod catalog;
mod directions;
mod labels;
mod manage;
mod numbers;
mod position;
mod protect;
mod register;
mod roles;
mod sql;
mod unmanage;

pub use crate::datum::{qualified, quoted};
use catalog::Registration;
pub use catalog::registrations;
pub use directions::check_fits_two_way;
pub use position::Positions;
pub use sql::Placeholders;
pub use unmanage::managed_by;

use pgrx::Uuid;
use pgrx::pg_sys::Oid;
use plimsoll_core::direction::Allowed;
use plimsoll_core::schema::{Column, Roles, TableSchema};

use crate::access::{Database, authorise};
use crate::argument::required;
use crate::datum::{Codec, Parameter};
use crate::error::{Answer, Problem, state};
use crate::identity;

/// A column as the catalogue has it.
pub struct PhysicalColumn {
    /// Its name.
    pub name: String,
    /// Its collation.
    pub collation: Oid,
    /// `OPERATOR(schema.=)` by which the unique index compares it, for key columns.
    pub equality: Option<String>,
    /// Whether it is an identity column that no UPDATE may set.
    pub always_identity: bool,
}

/// A column that the server sets to the client's or the database's id.
pub struct TenantColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_oid: Oid,
}

/// A managed table, looked up for one call.
pub struct ManagedTable {
    /// Its number in the registration.
    pub table_id: i32,
    /// Schema and table as a person writes them, quoted where needed.
    pub name: String,
    /// Its oid now.
    pub oid: Oid,
    /// Its owner now.
    pub owner: Oid,
    /// The columns that are sent and digested.
    pub schema: TableSchema,
    /// The same columns as the catalogue has them.
    pub physical: Vec<PhysicalColumn>,
    /// How their values are read and written.
    pub codecs: Vec<Codec>,
    /// Columns that the server fills: neither sent nor tenant columns. Generated ones are not among them.
    pub server_filled: Vec<String>,
    /// The columns that hold the tenant: client and database, the database alone, or none.
    pub tenant: Vec<TenantColumn>,
    /// Whether triggers keep its manifests.
    pub keep_manifest: bool,
    /// The database that all rows belong to, where no column says so.
    pub only_database: Option<Uuid>,
    /// Which ways agents may keep replicas level.
    pub allowed: Allowed,
}

impl ManagedTable {
    /// Numbers of the columns, in the order of `schema.columns()`.
    pub fn numbers(&self) -> Vec<u32> {
        self.schema.columns().iter().map(|column| column.number).collect()
    }

    /// The values of the tenant columns, as text.
    pub fn tenant_texts(&self, database: &Database) -> Vec<String> {
        match self.tenant.len() {
            0 => Vec::new(),
            1 => vec![database.id.to_string()],
            _ => vec![database.client_id.clone(), database.id.to_string()],
        }
    }

    /// The parameters that stand for the tenant, first in every statement.
    ///
    /// # Errors
    /// `NOT_AUTHORISED` where the table holds the rows of another database alone.
    pub fn tenant_parameters(&self, database: &Database) -> Answer<Vec<Parameter>> {
        if !self.may_hold(database) {
            let message = format!("{} holds no rows of database {}", self.name, database.id);
            return Err(Problem::new(state::NOT_AUTHORISED, message)
                .detail("It has no tenant columns: all its rows belong to one other database."));
        }
        let pairs = self.tenant.iter().zip(self.tenant_texts(database));
        pairs
            .map(|(column, value)| {
                let datum = Codec::new(column.type_oid, -1)?.text_input(&value)?;
                Ok(Parameter { type_oid: column.type_oid, datum: Some(datum) })
            })
            .collect()
    }

    /// What is registered of it.
    pub fn registered(&self) -> Registered {
        Registered { table_id: self.table_id, name: self.name.clone(), allowed: self.allowed }
    }

    /// Whether rows of the database can be in it.
    pub fn may_hold(&self, database: &Database) -> bool {
        self.only_database.is_none_or(|only| only == database.id)
    }

    /// Runs `work` with the rights of the table's owner.
    pub fn as_owner<T>(&self, work: impl FnOnce() -> Answer<T>) -> Answer<T> {
        identity::as_owner(self.owner, work)
    }
}

/// The managed table that an agent or a person names, as `schema.table`, `table` where that is clear, or
/// quoted as SQL does.
///
/// # Errors
/// `NOT_MANAGED`, or `NOT_IN_STATE` where the table is not as it was registered; each says what to do.
pub fn resolve(relation: &str) -> Answer<ManagedTable> {
    let registration = identity::as_extension(|| catalog::registration_by_name(relation))?;
    identity::as_extension(|| catalog::load(&registration))
}

/// Where calls on one replica begin: the database, once its use is authorised, and the managed table.
///
/// # Errors
/// As [`authorise`] and [`resolve`]; an argument that is NULL, by its name.
pub fn open(database_id: Option<Uuid>, relation: Option<&str>) -> Answer<(Database, ManagedTable)> {
    let database = authorise(required(database_id, "database_id")?)?;
    let table = resolve(required(relation, "relation")?)?;
    Ok((database, table))
}

/// The registered number and name of a table, whether or not it is still as it was registered.
pub fn registered_id(relation: &str) -> Answer<(i32, String)> {
    registered(relation).map(|registered| (registered.table_id, registered.name))
}

/// What is registered of a table.
pub struct Registered {
    /// Its number.
    pub table_id: i32,
    /// Schema and table as a person writes them.
    pub name: String,
    /// Which ways agents may keep replicas level.
    pub allowed: Allowed,
}

/// What is registered of a table, whether or not it is still so.
pub fn registered(relation: &str) -> Answer<Registered> {
    let registration = identity::as_extension(|| catalog::registration_by_name(relation))?;
    let name = registration.name();
    Ok(Registered { table_id: registration.table_id, name, allowed: registration.allowed })
}

/// All tables that are managed now and can hold rows of the database. One that is not as it was registered is
/// left out with a warning.
pub fn all(database: &Database) -> Answer<Vec<ManagedTable>> {
    identity::as_extension(|| {
        let mut tables = Vec::new();
        for registration in catalog::registrations()? {
            if registration.only_database.is_some_and(|only| only != database.id) {
                continue;
            }
            match catalog::load(&registration) {
                Ok(table) => tables.push(table),
                Err(problem) => {
                    pgrx::warning!("plimsoll: {} is left out: {}", registration.name(), problem.message());
                }
            }
        }
        Ok(tables)
    })
}

/// All tables that are managed now and can hold rows of the database.
///
/// # Errors
/// `NOT_IN_STATE` where one of them is not as it was registered.
pub fn all_as_registered(database: &Database) -> Answer<Vec<ManagedTable>> {
    identity::as_extension(|| {
        let registrations = catalog::registrations()?;
        let may_hold = |registration: &&catalog::Registration| {
            registration.only_database.is_none_or(|only| only == database.id)
        };
        registrations.iter().filter(may_hold).map(catalog::load).collect()
    })
}

/// How deep each table stands below those its foreign keys refer to: parents before children on upload.
/// Tables that refer to each other in a circle get the rank at which they were found.
pub fn ranks(tables: &[ManagedTable]) -> Answer<Vec<u32>> {
    let references = identity::as_extension(|| catalog::references(tables))?;
    let mut ranks = vec![0u32; tables.len()];
    for _ in 0..tables.len() {
        let mut changed = false;
        for (child, parent) in &references {
            let wanted = (ranks[*parent] + 1).min(tables.len() as u32);
            if child != parent && ranks[*child] < wanted {
                ranks[*child] = wanted;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    Ok(ranks)
}

/// A core schema from columns and the names a registration holds.
fn schema_of(
    columns: Vec<Column>,
    registration: &Registration,
    modified: Option<&str>,
) -> Answer<TableSchema> {
    let key: Vec<&str> = registration.key_columns.iter().map(String::as_str).collect();
    let placed_by: Vec<&str> = registration.placed_by.iter().map(String::as_str).collect();
    let version = registration.version_column.as_deref();
    let roles = Roles { key: &key, version, modified, placed_by: &placed_by };
    TableSchema::new(columns, &roles).map_err(|error| Problem::new(state::UNFIT_TABLE, error.message()))
}
