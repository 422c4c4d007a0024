//! Why Postgres does not take a row, or a statement.

use tokio_postgres::Error;

use super::super::error::write_failure;
use super::row_error;
use crate::source::write::Stopped;

/// Classes of errors that say nothing of a row: of the connection, of transactions, names and rights, resources and the
/// server itself.
const OF_THE_STATEMENT: [&str; 17] =
    ["08", "0A", "0B", "25", "26", "28", "2B", "2D", "3B", "3D", "3F", "40", "42", "53", "55", "57", "58"];

/// What an error of a statement that writes rows means.
pub fn stopped(error: &Error, role: &str, relation: &str) -> Stopped {
    let told = || Stopped::Failed(write_failure(error, role, relation));
    let Some(server) = error.as_db_error() else { return told() };
    let code = server.code().code();
    let is_of_statement =
        OF_THE_STATEMENT.iter().any(|class| code.starts_with(class)) || code.starts_with("XX");
    if is_of_statement {
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
    use super::column_of;

    #[test]
    fn one_column_is_named() {
        assert_eq!(column_of("Key (code)=(a) already exists."), Some("code"));
        assert_eq!(column_of("Key (\"Odd name\")=(a) already exists."), Some("Odd name"));
        assert_eq!(column_of("Key (a, b)=(1, 2) already exists."), None);
        assert_eq!(column_of("Failing row contains (1)."), None);
    }
}
