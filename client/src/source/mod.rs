//! Local databases. Each kind implements [`kind::Kind`] and [`local::LocalDatabase`]; the engine makes the core's
//! `Source` of it.

pub mod ahead;
pub mod engine;
pub mod kind;
pub mod local;
pub mod mysql;
pub mod notes;
mod place;
pub mod plan;
pub mod postgres;
pub mod query;
pub mod sqlite;
pub mod statement;
pub mod write;

use plimsoll_core::store::Outcome;

use crate::server::address::Address;
use local::LocalDatabase;
pub use place::{Password, Place, password_of_environment};

/// Opens a local database.
///
/// # Errors
/// A `Run` failure where it is not there or not readable, `Passing` where it may be later.
pub fn open(place: &Place) -> Outcome<Box<dyn LocalDatabase>> {
    match place {
        Place::Sqlite(path) => Ok(Box::new(sqlite::Sqlite::open(path)?)),
        Place::Postgres { url, password } => {
            let password = password.clone().map(|Password(password)| password);
            Ok(Box::new(postgres::Postgres::open(Address::of_source(url, password)?)?))
        }
        Place::Mysql { url, password } => Ok(Box::new(mysql::Mysql::open(url, password.as_ref())?)),
    }
}

/// Opens a local database to be written to.
///
/// # Errors
/// As [`open`]; a `Run` failure where it may not be written to at all.
pub fn open_writable(place: &Place) -> Outcome<Box<dyn LocalDatabase>> {
    match place {
        Place::Sqlite(path) => Ok(Box::new(sqlite::Sqlite::open_writable(path)?)),
        Place::Postgres { .. } => open(place),
        Place::Mysql { url, password } => Ok(Box::new(mysql::Mysql::open_writable(url, password.as_ref())?)),
    }
}
