//! The server's errors, as what they mean for the run.

use std::error::Error as _;

use plimsoll_core::sqlstate::passes;
use plimsoll_core::store::{Failure, FailureKind};
use tokio_postgres::Error;

use super::address::Address;
use super::tls;
use crate::failure::Advise;

/// What was asked when an error came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The run as a whole: its begin, its end, a report.
    Run,
    /// One table.
    Table,
}

/// What an error of the server, or on the way to it, means.
pub fn failure(error: &Error, place: Place) -> Failure {
    let Some(server) = error.as_db_error() else {
        let mut causes = error.to_string();
        if let Some(source) = error.source() {
            // The driver's own text names the stage, its source the reason.
            if !causes.contains(&source.to_string()) {
                causes = format!("{causes}: {source}");
            }
        }
        return Failure::new(FailureKind::Passing, format!("the connection to the server failed: {causes}"));
    };
    let code = server.code().code();
    let mut message = server.message().trim_end_matches('.').to_owned();
    if let Some(detail) = server.detail() {
        message = format!("{message}: {}", detail.trim_end_matches('.'));
    }
    Failure {
        kind: kind(code, place),
        sqlstate: Some(code.to_owned()),
        message,
        hint: server.hint().map(str::to_owned).or_else(|| own_hint(code).map(str::to_owned)),
    }
}

fn kind(code: &str, place: Place) -> FailureKind {
    match code {
        "55006" | "55000" | "28000" | "28P01" | "3D000" | "3F000" | "42883" => FailureKind::Run,
        "42501" if place == Place::Run => FailureKind::Run,
        code if passes(code) => FailureKind::Passing,
        _ if place == Place::Run => FailureKind::Run,
        _ => FailureKind::Table,
    }
}

fn own_hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "28P01" => "check user and password of the server's url, or PGPASSWORD",
        "28000" => "check the token, and with the server's administrator whether the database is suspended",
        "3D000" => "check the database at the end of the server's url",
        "3F000" | "42883" => {
            "that database lacks the extension, or has an older one: CREATE EXTENSION plimsoll, or ALTER \
             EXTENSION plimsoll UPDATE"
        }
        "42501" => "the role needs membership in plimsoll_agent, and a token or a grant for the database",
        "55006" => "another agent is at work for this database; this one goes on when it is done",
        _ => return None,
    })
}

/// What a failed attempt to connect means.
pub fn connect_failure(error: &Error, to: &Address) -> Failure {
    let mut failure = failure(error, Place::Run);
    let address = to.display();
    if error.as_db_error().is_some() {
        failure.message = format!("the server {address} refused the connection: {}", failure.message);
        return failure;
    }
    let mut cause = error.source();
    while let Some(inner) = cause {
        let io = inner.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            let message = format!("nothing answers at {address}: the connection was refused");
            return Failure::new(FailureKind::Passing, message)
                .advise("is the server running, and are host and port right?");
        }
        cause = inner.source();
    }
    let reason = match error.source() {
        Some(source) if !error.to_string().contains(&source.to_string()) => format!("{error}: {source}"),
        _ => error.to_string(),
    };
    if let Some(failure) = tls::explain(&reason, to) {
        return failure;
    }
    let lower = reason.to_lowercase();
    let hint = if lower.contains("password missing") {
        "put the password into the server's url or PGPASSWORD"
    } else {
        "check host, port and network"
    };
    Failure::new(FailureKind::Passing, format!("cannot connect to {address}: {reason}")).advise(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_decide_who_must_stop() {
        use FailureKind::{Passing, Run, Table};
        for (code, at_begin, at_table) in [
            ("55006", Run, Run),
            ("55000", Run, Run),
            ("28000", Run, Run),
            ("42501", Run, Table),
            ("42P01", Run, Table),
            ("22P03", Run, Table),
            ("40001", Passing, Passing),
            ("40P01", Passing, Passing),
            ("55P03", Passing, Passing),
            ("53100", Passing, Passing),
            ("57P01", Passing, Passing),
            ("08006", Passing, Passing),
            ("XX000", Run, Table),
        ] {
            assert_eq!(kind(code, Place::Run), at_begin, "{code}");
            assert_eq!(kind(code, Place::Table), at_table, "{code}");
        }
    }
}
