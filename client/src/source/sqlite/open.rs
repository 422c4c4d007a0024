//! Opening the file.

use std::path::Path;
use std::time::Duration;

use plimsoll_core::store::{FailureKind, Outcome};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Error, OpenFlags, ffi};

use super::axis;
use super::error::failure;
use crate::failure::{Advise, run as no_run};

/// How long a statement waits for a writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many prepared statements are kept.
const STATEMENTS: usize = 512;

/// Opens a database. What a program that died left half-way in it is undone first, as whoever opens it does.
///
/// # Errors
/// As [`Sqlite::open`](super::Sqlite::open).
pub fn connect(path: &Path, read_only: bool) -> Outcome<Connection> {
    match set_up(path, read_only) {
        Err(error) if read_only && is_left_half_way(&error) => {
            // Only who may write can undo it.
            set_up(path, false).map_err(|error| match failure(&error) {
                locked if locked.kind == FailureKind::Passing => locked,
                _ => no_run(format!(
                    "a program that died left a transaction half-way in {}, which could not be undone: {error}",
                    path.display()
                ))
                .advise("open it once with a program that may write to it, such as the one that died"),
            })?;
            set_up(path, true).map_err(|error| failure(&error))
        }
        opened => opened.map_err(|error| failure(&error)),
    }
}

/// Whether a journal is to be played back before anything can be read.
fn is_left_half_way(error: &Error) -> bool {
    error.sqlite_error().is_some_and(|cause| {
        matches!(cause.extended_code, ffi::SQLITE_READONLY_ROLLBACK | ffi::SQLITE_READONLY_RECOVERY)
    })
}

fn set_up(path: &Path, read_only: bool) -> rusqlite::Result<Connection> {
    let access = match read_only {
        true => OpenFlags::SQLITE_OPEN_READ_ONLY,
        false => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", read_only)?;
    // Whatever SQLite was built with.
    connection.pragma_update(None, "foreign_keys", !read_only)?;
    // Else a name in quotes that no column has any more would be a text, the same in all rows.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    axis::add_functions(&connection)?;
    // The first statement that reads shows whether this is a database at all.
    connection.query_row("SELECT count(*) FROM main.sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}
