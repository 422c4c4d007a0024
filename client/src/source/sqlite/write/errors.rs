//! Why SQLite does not take a row, in SQLSTATEs.

use plimsoll_core::sqlstate::FOREIGN_KEY;
use rusqlite::Error;
use rusqlite::ffi;

use super::super::error::failure;
use crate::failure::{Advise, table as refused};
use crate::source::write::{RowError, Stopped};

/// What a trigger says.
const RAISED: &str = "P0001";
/// What SQLite says of a foreign key.
const RESTRICTED: &str = "FOREIGN KEY constraint failed";

/// What an error means for the row at this place of the list. `is_over`: the transaction has ended. A statement that says
/// OR ABORT undoes the row that it stops at; a DELETE cannot say so.
pub fn stopped(row: usize, error: &Error, is_over: bool) -> Stopped {
    let Error::SqliteFailure(cause, message) = error else { return Stopped::Failed(failure(error)) };
    let code = match cause.extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            "23505"
        }
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => FOREIGN_KEY,
        // ON DELETE RESTRICT is a trigger of SQLite's own.
        ffi::SQLITE_CONSTRAINT_TRIGGER if message.as_deref() == Some(RESTRICTED) => FOREIGN_KEY,
        ffi::SQLITE_CONSTRAINT_NOTNULL => "23502",
        ffi::SQLITE_CONSTRAINT_CHECK => "23514",
        ffi::SQLITE_CONSTRAINT_TRIGGER => RAISED,
        // What a STRICT table, or an INTEGER PRIMARY KEY, does not take.
        ffi::SQLITE_CONSTRAINT_DATATYPE | ffi::SQLITE_MISMATCH => "22000",
        ffi::SQLITE_TOOBIG => "54000",
        code if code & 0xff == ffi::SQLITE_CONSTRAINT => "23000",
        _ => return Stopped::Failed(failure(error)),
    };
    let message = message.as_deref().unwrap_or("a constraint does not hold");
    if is_over {
        let message = format!("a trigger of the local database rolled the whole transaction back: {message}");
        return Stopped::Failed(
            refused(message).advise("let it RAISE(ABORT, ..), which refuses one row alone"),
        );
    }
    let column = column_of(message).map(str::to_owned);
    let error = RowError { sqlstate: code.to_owned(), column, message: message.to_owned() };
    // What a trigger's RAISE(FAIL, ..) refuses is done all the same, unless it is undone.
    if code == RAISED { Stopped::Somewhere(error) } else { Stopped::At(row, error) }
}

/// The column that a message names, where it names one alone.
fn column_of(message: &str) -> Option<&str> {
    let (what, named) = message.split_once(" constraint failed: ")?;
    let is_of_columns = matches!(what, "UNIQUE" | "NOT NULL") && !named.contains(", ");
    named.split_once('.').map(|(_, column)| column).filter(|_| is_of_columns)
}

#[cfg(test)]
mod tests {
    use plimsoll_core::store::FailureKind;
    use rusqlite::{Error, ffi};

    use super::{column_of, stopped};
    use crate::source::write::Stopped;

    #[test]
    fn a_row_is_refused_for_what_is_said_of_it_alone() {
        let error = |code| Error::SqliteFailure(ffi::Error::new(code), Some("as it says".to_owned()));
        let of_row = [
            (ffi::SQLITE_CONSTRAINT_UNIQUE, "23505"),
            (ffi::SQLITE_CONSTRAINT_FOREIGNKEY, "23503"),
            (ffi::SQLITE_CONSTRAINT_NOTNULL, "23502"),
            (ffi::SQLITE_CONSTRAINT_CHECK, "23514"),
            (ffi::SQLITE_CONSTRAINT_TRIGGER, "P0001"),
            (ffi::SQLITE_CONSTRAINT_DATATYPE, "22000"),
            (ffi::SQLITE_MISMATCH, "22000"),
            (ffi::SQLITE_TOOBIG, "54000"),
            (ffi::SQLITE_CONSTRAINT, "23000"),
        ];
        for (code, expected) in of_row {
            match stopped(3, &error(code), false) {
                Stopped::At(3, told) | Stopped::Somewhere(told) => {
                    assert_eq!(told.sqlstate, expected, "{code}")
                }
                other => panic!("{code}: {other:?}"),
            }
        }
        let passing = [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_BUSY_RECOVERY,
            ffi::SQLITE_BUSY_SNAPSHOT,
            ffi::SQLITE_BUSY_TIMEOUT,
            ffi::SQLITE_LOCKED,
            ffi::SQLITE_LOCKED_SHAREDCACHE,
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR,
            ffi::SQLITE_IOERR_WRITE,
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_IOERR_NOMEM,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_INTERRUPT,
            ffi::SQLITE_PROTOCOL,
            ffi::SQLITE_SCHEMA,
            ffi::SQLITE_ABORT,
            ffi::SQLITE_ABORT_ROLLBACK,
        ];
        for code in passing {
            match stopped(0, &error(code), false) {
                Stopped::Failed(failure) => {
                    assert_eq!(failure.kind, FailureKind::Passing, "{code}: {failure}")
                }
                other => panic!("{code}: {other:?}"),
            }
        }
        let lasting = [
            ffi::SQLITE_ERROR,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_READONLY_DBMOVED,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_NOTADB,
            ffi::SQLITE_PERM,
            ffi::SQLITE_AUTH,
        ];
        for code in lasting {
            match stopped(0, &error(code), false) {
                Stopped::Failed(failure) => {
                    assert_ne!(failure.kind, FailureKind::Passing, "{code}: {failure}")
                }
                other => panic!("{code}: {other:?}"),
            }
        }
    }

    #[test]
    fn one_column_is_named() {
        assert_eq!(column_of("UNIQUE constraint failed: t.code"), Some("code"));
        assert_eq!(column_of("NOT NULL constraint failed: t.a b"), Some("a b"));
        assert_eq!(column_of("UNIQUE constraint failed: t.a, t.b"), None);
        assert_eq!(column_of("CHECK constraint failed: price > 0.5"), None);
        assert_eq!(column_of("FOREIGN KEY constraint failed"), None);
    }
}
