//! The source's errors, as a person needs to hear them.

use std::error::Error as _;

use plimsoll_core::sqlstate::passes;
use plimsoll_core::store::{Failure, FailureKind};
use tokio_postgres::Error;

use crate::failure::Advise;
use crate::names::identifier;

/// What an error of the source means for the run. `role` reads there, from `relation` where it reads rows.
pub fn failure(error: &Error, role: &str, relation: Option<&str>) -> Failure {
    let Some(server) = error.as_db_error() else {
        let mut causes = error.to_string();
        if let Some(source) = error.source() {
            causes = format!("{causes}: {source}");
        }
        let message = format!("the connection to the local database failed: {causes}");
        return Failure::new(FailureKind::Passing, message);
    };
    let code = server.code().code();
    let mut message = format!("the local database: {}", server.message().trim_end_matches('.'));
    if let Some(detail) = server.detail() {
        message = format!("{message}: {}", detail.trim_end_matches('.'));
    }
    let hint = match code {
        "42501" => Some(missing_privilege(server.message(), role, relation)),
        "22021" | "22P05" => {
            Some("it holds text that is none in its own encoding, or has no UTF-8".to_owned())
        }
        "40001" if message.contains("conflict with recovery") => Some(
            "the source is a standby, where what was cleaned up on the primary ends reading: set hot_standby_feedback = on \
             there, or raise max_standby_streaming_delay"
                .to_owned(),
        ),
        "55P03" => Some("another session has the table locked; it is tried again".to_owned()),
        _ => server.hint().map(str::to_owned),
    };
    Failure { kind: kind(code), sqlstate: Some(code.to_owned()), message, hint }
}

/// What an error of a statement that writes to `relation` means for the run.
pub fn write_failure(error: &Error, role: &str, relation: &str) -> Failure {
    let failure = failure(error, role, Some(relation));
    let lacks_right = failure.sqlstate.as_deref() == Some("42501");
    match failure
        .hint
        .as_deref()
        .filter(|_| lacks_right)
        .and_then(|hint| hint.strip_prefix("GRANT SELECT ON "))
    {
        Some(rest) => {
            let hint = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {rest}");
            failure.advise(hint)
        }
        None => failure,
    }
}

fn kind(code: &str) -> FailureKind {
    if passes(code) { FailureKind::Passing } else { FailureKind::Table }
}

/// Which privilege would help.
fn missing_privilege(message: &str, role: &str, relation: Option<&str>) -> String {
    let role = identifier(role);
    if message.contains("row-level security") {
        return format!(
            "\"{role}\" would see a part of the rows only, and the others would be deleted from the replica: ALTER \
             ROLE {role} BYPASSRLS, or read as the table's owner"
        );
    }
    if let Some(schema) = message.strip_prefix("permission denied for schema ") {
        return format!("GRANT USAGE ON SCHEMA {} TO {role}", identifier(schema));
    }
    match relation {
        Some(relation) => {
            format!("GRANT SELECT ON {} TO {role}", relation.strip_prefix("ONLY ").unwrap_or(relation))
        }
        None => format!("{role} needs SELECT on the tables that are read, and nothing else"),
    }
}

/// What a failed attempt to connect means.
pub fn connect_failure(failure: Failure) -> Failure {
    let hint = match failure.sqlstate.as_deref() {
        Some("28P01") => {
            "check user and password of the source's url; PLIMSOLL_SOURCE_PASSWORD may hold the password"
        }
        Some("28000") => "check the user of the source's url, and pg_hba.conf there",
        Some("3D000") => "check the database at the end of the source's url",
        Some("42501") => "the role needs CONNECT on the database",
        None if failure.message.to_lowercase().contains("password missing") => {
            "put the password into PLIMSOLL_SOURCE_PASSWORD, or into the source's url"
        }
        _ => return failure,
    };
    failure.advise(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_privilege_is_named() {
        let hint = |message, relation| missing_privilege(message, "Reader", relation);
        let table = Some("ONLY \"sales\".\"orders\"");
        assert_eq!(
            hint("permission denied for table orders", table),
            "GRANT SELECT ON \"sales\".\"orders\" TO \"Reader\""
        );
        assert_eq!(
            hint("permission denied for schema sales", table),
            "GRANT USAGE ON SCHEMA sales TO \"Reader\""
        );
        assert!(hint("query would be affected by row-level security policy", table).contains("BYPASSRLS"));
    }
}
