//! SQLite's errors, as a person needs to hear them.

use plimsoll_core::sqlstate::FOREIGN_KEY;
use plimsoll_core::store::{Failure, FailureKind};
use rusqlite::{Error, ErrorCode};

use crate::failure::Advise;

/// What an error of SQLite means for the run.
pub fn failure(error: &Error) -> Failure {
    let Error::SqliteFailure(cause, _) = error else {
        let failure = Failure::new(FailureKind::Table, format!("the local SQLite database: {error}"));
        return Failure { sqlstate: missing(error).map(str::to_owned), ..failure };
    };
    let (kind, message, hint) = match cause.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => (
            FailureKind::Passing,
            "the local SQLite database is locked by another program".to_owned(),
            Some("a program holds it longer than 5 seconds; it is tried again"),
        ),
        ErrorCode::NotADatabase => (
            FailureKind::Run,
            "the local file is not a SQLite database".to_owned(),
            Some("check sqlite = \"..\" under [source]; an encrypted database looks like this too"),
        ),
        ErrorCode::DatabaseCorrupt => (
            FailureKind::Run,
            format!("the local SQLite database is damaged: {error}"),
            Some("run PRAGMA integrity_check on it"),
        ),
        ErrorCode::CannotOpen | ErrorCode::ReadOnly => (
            FailureKind::Run,
            format!("the local SQLite database cannot be opened: {error}"),
            Some("in WAL mode its folder must be writable, or another program must have it open"),
        ),
        ErrorCode::PermissionDenied => (
            FailureKind::Run,
            "the local SQLite database may not be read by this user".to_owned(),
            Some("give the user that runs plimsoll the right to read the file"),
        ),
        ErrorCode::DiskFull => (
            FailureKind::Passing,
            "the disk of the local SQLite database is full".to_owned(),
            Some("make room; it is tried again"),
        ),
        ErrorCode::SystemIoFailure
        | ErrorCode::OutOfMemory
        | ErrorCode::SchemaChanged
        | ErrorCode::OperationInterrupted
        | ErrorCode::OperationAborted
        | ErrorCode::FileLockingProtocolFailed => {
            (FailureKind::Passing, format!("the local SQLite database: {error}"), None)
        }
        _ => (FailureKind::Table, format!("the local SQLite database: {error}"), None),
    };
    let failure = Failure { sqlstate: missing(error).map(str::to_owned), ..Failure::new(kind, message) };
    match hint {
        Some(hint) => failure.advise(hint),
        None => failure,
    }
}

/// The SQLSTATE of a table or a column that is not there; SQLite has one code for all that is wrong with a statement.
fn missing(error: &Error) -> Option<&'static str> {
    let message = match error {
        Error::SqliteFailure(_, message) => message.as_deref()?,
        Error::SqlInputError { msg, .. } => msg,
        _ => return None,
    };
    let is_of = |what: &str| message.starts_with(what);
    match () {
        () if is_of("no such table: ") => Some("42P01"),
        () if is_of("no such column: ") => Some("42703"),
        () => None,
    }
}

/// What it means that a transaction could not be committed; `is_open`: it was open still, and has been rolled back.
pub fn commit_failure(error: &Error, is_open: bool) -> Failure {
    let is_foreign = matches!(error, Error::SqliteFailure(cause, _)
        if cause.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY);
    match failure(error) {
        failure if is_foreign => Failure {
            kind: FailureKind::Table,
            sqlstate: Some(FOREIGN_KEY.to_owned()),
            message: "a deferred foreign key of the local SQLite database does not hold".to_owned(),
            ..failure
        },
        failure if is_open => failure,
        failure => Failure {
            message: format!("{}; whether what was written is there is not known", failure.message),
            kind: FailureKind::Passing,
            ..failure
        },
    }
}
