//! Why Postgres does not take a row, or a statement.

use plimsoll_core::sqlstate::passes;
use tokio_postgres::Error;

use super::super::error::write_failure;
use super::row_error;
use crate::source::write::Stopped;

/// Classes of errors that say nothing of a row: of the connection, of transactions, cursors, names, rights and settings,
/// resources, servers behind foreign tables, and the server itself. What triggers raise may have any other one.
const OF_THE_STATEMENT: [&str; 26] = [
    "03", "08", "0A", "0B", "0F", "0L", "0P", "24", "25", "26", "28", "2B", "2D", "34", "3B", "3D", "3F",
    "40", "42", "53", "55", "57", "58", "72", "F0", "HV",
];

/// What of a server says that it takes no changes before old rows are frozen: with the SQLSTATE of a row that is too large.
const OUT_OF_NUMBERS: [&str; 2] = ["GetNewTransactionId", "GetNewMultiXactId"];

/// Whether an error, which comes from this routine of the server, is about a row that was written.
fn is_of_row(code: &str, routine: &str) -> bool {
    if OUT_OF_NUMBERS.contains(&routine) {
        return false;
    }
    !passes(code) && !code.starts_with("XX") && !OF_THE_STATEMENT.iter().any(|class| code.starts_with(class))
}

/// What an error of a statement that writes rows means.
pub fn stopped(error: &Error, role: &str, relation: &str) -> Stopped {
    let told = || Stopped::Failed(write_failure(error, role, relation));
    let Some(server) = error.as_db_error() else { return told() };
    let code = server.code().code();
    if !is_of_row(code, server.routine().unwrap_or_default()) {
        return told();
    }
    let mut message = server.message().trim_end_matches('.').to_owned();
    if let Some(detail) = server.detail() {
        message = format!("{message}: {}", detail.trim_end_matches('.'));
    }
    let column = server.column().or_else(|| server.detail().and_then(column_of)).map(str::to_owned);
    Stopped::Somewhere(row_error(code, column, message))
}

/// The column that a detail names, where it names one alone: `Key (code)=(a) already exists.`
fn column_of(detail: &str) -> Option<&str> {
    let (column, _) = detail.strip_prefix("Key (")?.split_once(")=(")?;
    (!column.contains(", ")).then(|| column.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::{column_of, is_of_row};

    #[test]
    fn a_row_is_refused_for_what_is_said_of_it_alone() {
        let of_row = [
            "21000", "22001", "22003", "22007", "22021", "22P02", "23000", "23001", "23502", "23503",
            "23505", "23514", "23P01", "27000", "2F002", "38000", "39000", "44000", "54000", "P0001",
            "P0002", "P0004", // What a trigger may call its own.
            "45000", "AB123", "99999",
        ];
        for code in of_row {
            assert!(is_of_row(code, "ExecConstraints"), "{code}");
        }
        let of_no_row = [
            "03000", "08000", "08003", "08006", "08P01", "0A000", "0F000", "0L000", "0P000", "24000",
            "25000", "25006", "25P02", "25P03", "25P04", "26000", "28000", "28P01", "2B000", "2D000",
            "34000", "3B001", "3D000", "3F000", "40000", "40001", "40002", "40003", "40P01", "42501",
            "42703", "42804", "42P01", "53000", "53100", "53200", "53300", "53400", "55000", "55006",
            "55P03", "57000", "57014", "57P01", "57P02", "57P03", "57P04", "57P05", "58000", "58030",
            "58P01", "72000", "F0000", "HV000", "HV00N", "XX000", "XX001", "XX002",
        ];
        for code in of_no_row {
            assert!(!is_of_row(code, "ExecConstraints"), "{code}");
        }
        // Numbers of transactions ran out.
        assert!(!is_of_row("54000", "GetNewTransactionId"));
    }

    #[test]
    fn one_column_is_named() {
        assert_eq!(column_of("Key (code)=(a) already exists."), Some("code"));
        assert_eq!(column_of("Key (\"Odd name\")=(a) already exists."), Some("Odd name"));
        assert_eq!(column_of("Key (a, b)=(1, 2) already exists."), None);
        assert_eq!(column_of("Failing row contains (1)."), None);
    }
}
