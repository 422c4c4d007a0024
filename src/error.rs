//! Errors that people and agents see: an SQLSTATE, a message, a detail, a hint.

use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, function_name};

/// The SQLSTATEs of the extension, by what they mean to a caller.
pub mod state {
    /// An SQLSTATE.
    pub type Code = super::PgSqlErrorCode;

    /// Its five characters.
    pub fn text(code: Code) -> String {
        // Six bits a character, the first one lowest.
        let code = code as i32 as u32;
        (0..5).map(|i| char::from(((code >> (6 * i)) & 0x3f) as u8 + b'0')).collect()
    }

    /// Not your database, or none.
    pub const NOT_AUTHORISED: Code = Code::ERRCODE_INSUFFICIENT_PRIVILEGE;
    /// Wrong token, or a suspended database.
    pub const LOGIN_REFUSED: Code = Code::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;
    /// The relation is no managed table.
    pub const NOT_MANAGED: Code = Code::ERRCODE_UNDEFINED_TABLE;
    /// A column that is named does not exist.
    pub const NO_COLUMN: Code = Code::ERRCODE_UNDEFINED_COLUMN;
    /// The replica is kept level with another local database.
    pub const OTHER_SIDE: Code = Code::ERRCODE_OBJECT_IN_USE;
    /// Another agent holds the lease.
    pub const LEASE_HELD: Code = Code::ERRCODE_OBJECT_IN_USE;
    /// A statement under way uses the table.
    pub const IN_USE: Code = Code::ERRCODE_OBJECT_IN_USE;
    /// The run is over, or its lease passed on; the table is not as it was registered.
    pub const NOT_IN_STATE: Code = Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
    /// Rows for other columns than the table has now.
    pub const OTHER_SCHEMA: Code = Code::ERRCODE_DATATYPE_MISMATCH;
    /// Bytes that break their format.
    pub const MALFORMED: Code = Code::ERRCODE_INVALID_BINARY_REPRESENTATION;
    /// A value that would be stored as another.
    pub const WOULD_CHANGE: Code = Code::ERRCODE_DATA_EXCEPTION;
    /// An argument that makes no sense.
    pub const BAD_ARGUMENT: Code = Code::ERRCODE_INVALID_PARAMETER_VALUE;
    /// An argument that must be given.
    pub const MISSING_ARGUMENT: Code = Code::ERRCODE_NULL_VALUE_NOT_ALLOWED;
    /// Something of this name is there already.
    pub const DUPLICATE: Code = Code::ERRCODE_DUPLICATE_OBJECT;
    /// A role that does not exist.
    pub const NO_ROLE: Code = Code::ERRCODE_UNDEFINED_OBJECT;
    /// A table that cannot be managed as it is.
    pub const UNFIT_TABLE: Code = Code::ERRCODE_INVALID_TABLE_DEFINITION;
    /// Something that is planned but not there.
    pub const UNSUPPORTED: Code = Code::ERRCODE_FEATURE_NOT_SUPPORTED;
    /// Something went wrong that no caller can cause.
    pub const INTERNAL: Code = Code::ERRCODE_INTERNAL_ERROR;
    /// Postgres has no memory left.
    pub const OUT_OF_MEMORY: Code = Code::ERRCODE_OUT_OF_MEMORY;
    /// A limit was exceeded.
    pub const TOO_LARGE: Code = Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED;
}

/// An error on its way to the caller.
#[derive(Debug)]
pub struct Problem {
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

/// The result of the extension's inner functions.
pub type Answer<T> = Result<T, Problem>;

impl Problem {
    /// A problem with a message alone.
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Self {
        Problem { code, message: message.into(), detail: None, hint: None }
    }

    /// Its SQLSTATE.
    pub fn code(&self) -> PgSqlErrorCode {
        self.code
    }

    /// Its SQLSTATE as five characters.
    pub fn sqlstate(&self) -> String {
        state::text(self.code)
    }

    /// The same problem under another SQLSTATE.
    pub fn with_code(mut self, code: PgSqlErrorCode) -> Self {
        self.code = code;
        self
    }

    /// The same problem, saying in which column it is.
    pub fn in_column(mut self, column: &str, table: &str) -> Self {
        self.message = format!("column \"{column}\" of {table}: {}", self.message);
        self
    }

    /// Adds what exactly is wrong.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what to do where nothing else was said.
    pub fn hint_else(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// The sentence alone.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What an agent is told in an answer, where the rest of the call goes on.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "sqlstate": self.sqlstate(),
            "message": self.message,
            "detail": self.detail,
            "hint": self.hint,
        })
    }

    /// Raises it as a Postgres ERROR.
    pub fn raise(self) -> ! {
        let mut report = ErrorReport::new(self.code, self.message, function_name!());
        if let Some(detail) = self.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint {
            report = report.set_hint(hint);
        }
        report.report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return")
    }
}

/// Ends an SQL-facing function: the value, or the problem raised.
pub trait OrRaise<T> {
    /// The value; a problem is raised as a Postgres ERROR.
    fn or_raise(self) -> T;
}

impl<T> OrRaise<T> for Answer<T> {
    fn or_raise(self) -> T {
        match self {
            Ok(value) => value,
            Err(problem) => problem.raise(),
        }
    }
}

impl From<pgrx::spi::Error> for Problem {
    fn from(error: pgrx::spi::Error) -> Self {
        Problem::new(state::INTERNAL, format!("a statement of the extension failed: {error}"))
    }
}

impl From<plimsoll_core::Error> for Problem {
    fn from(error: plimsoll_core::Error) -> Self {
        Problem::new(state::MALFORMED, error.to_string())
    }
}
