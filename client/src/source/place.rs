//! Where a local database is.

use std::fmt;
use std::path::{Path, PathBuf};

use plimsoll_core::store::Outcome;

use crate::failure::run as unusable;

/// A password that no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Which database, of which kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A Postgres database.
    Postgres {
        /// As libpq takes it.
        url: String,
        /// The password that the url leaves out.
        password: Option<Password>,
    },
    /// A MySQL or MariaDB database.
    Mysql {
        /// `mysql://user@host:port/database`
        url: String,
        /// The password that the url leaves out.
        password: Option<Password>,
    },
}

/// The environment variable that holds the password of a local database.
pub const PASSWORD_VARIABLE: &str = "PLIMSOLL_SOURCE_PASSWORD";

impl Place {
    /// What `--source` names: a url of Postgres or MySQL, else a SQLite file. The password is the environment's.
    ///
    /// # Errors
    /// Where it is a url of something else.
    pub fn parse(source: &Path) -> Outcome<Place> {
        let text = source.to_str().unwrap_or_default();
        let (url, password) = (text.to_owned(), password_of_environment());
        match text.split_once("://").map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => Ok(Place::Postgres { url, password }),
            Some("mysql" | "mariadb") => Ok(Place::Mysql { url, password }),
            Some(other) if !source.exists() => Err(unusable(format!(
                "no source is known for {other}://; a SQLite file, postgres:// or mysql:// is"
            ))),
            _ => Ok(Place::Sqlite(source.to_owned())),
        }
    }

    /// The same place with its path as `seen` says it.
    pub fn seen_from(self, seen: impl FnOnce(&Path) -> PathBuf) -> Place {
        match self {
            Place::Sqlite(path) => Place::Sqlite(seen(&path)),
            other => other,
        }
    }

    /// How messages call its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Place::Sqlite(_) => "SQLite",
            Place::Postgres { .. } => "Postgres",
            Place::Mysql { .. } => "MySQL",
        }
    }
}

/// The password that the environment gives.
pub fn password_of_environment() -> Option<Password> {
    std::env::var(PASSWORD_VARIABLE).ok().map(Password)
}
