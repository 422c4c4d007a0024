//! `plimsoll conflicts`: what the server recorded of this database for a person to decide, and the decision.

use std::path::Path;

use plimsoll_core::store::{Failure, Outcome};
use serde_json::Value as Json;
use tokio_postgres::types::Type;

use crate::agent;
use crate::cli::{ConflictsCommand, Keep};
use crate::config::Config;
use crate::failure::{Advise, run as not_done};
use crate::report::{print_conflict, print_conflicts};
use crate::server::{Place, Server, cell};

const SELECT: &str = "SELECT pg_catalog.to_jsonb(c) FROM plimsoll.conflicts AS c
    WHERE c.database_id OPERATOR(pg_catalog.=) $1";

/// Does what the command says.
///
/// # Errors
/// As the server says; where there is no such conflict, or the row cannot be read.
pub fn conflicts(config: &Config, command: &ConflictsCommand, as_json: bool) -> Outcome<()> {
    let mut server = agent::server_of(config)?;
    match command {
        ConflictsCommand::List { all } => print_conflicts(&list(&mut server, *all)?, as_json),
        ConflictsCommand::Show { id } => print_conflict(&find(&mut server, *id)?, as_json),
        ConflictsCommand::Resolve { id, keep, row } => {
            match (keep, row) {
                (Some(keep), _) => resolve(&mut server, *id, *keep)?,
                (None, Some(path)) => store(&mut server, *id, path)?,
                (None, None) => {
                    return Err(not_done("it does not say how")
                        .advise("give --keep local, --keep remote or --row FILE"));
                }
            }
            print_conflict(&find(&mut server, *id)?, as_json);
        }
    }
    Ok(())
}

fn list(server: &mut Server, all: bool) -> Outcome<Vec<Json>> {
    let database = server.database_id();
    let open = if all { "" } else { " AND c.closed_at IS NULL" };
    let sql = format!("{SELECT}{open} ORDER BY c.conflict_id");
    let rows = server.call(Place::Run, &sql, vec![(&database, Type::UUID)])?;
    rows.iter().map(|row| cell(Some(row), 0)).collect()
}

fn find(server: &mut Server, id: i64) -> Outcome<Json> {
    let database = server.database_id();
    let sql = format!("{SELECT} AND c.conflict_id OPERATOR(pg_catalog.=) $2");
    let rows = server.call(Place::Run, &sql, vec![(&database, Type::UUID), (&id, Type::INT8)])?;
    let unknown = || {
        not_done(format!("there is no conflict {id}")).advise("plimsoll conflicts list shows those that are")
    };
    cell(Some(rows.first().ok_or_else(unknown)?), 0)
}

fn resolve(server: &mut Server, id: i64, keep: Keep) -> Outcome<()> {
    let side = match keep {
        Keep::Local => "local",
        Keep::Remote => "remote",
    };
    let sql = "SELECT plimsoll.resolve_conflict($1, $2)";
    server.call(Place::Run, sql, vec![(&id, Type::INT8), (&side, Type::TEXT)]).map(drop)
}

fn store(server: &mut Server, id: i64, path: &Path) -> Outcome<()> {
    let unreadable =
        |why: String| -> Failure { not_done(format!("{} cannot be read: {why}", path.display())) };
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    // It is sent as it is written: a number keeps every digit.
    serde_json::from_str::<serde::de::IgnoredAny>(&text).map_err(|error| unreadable(error.to_string()))?;
    let row = text.as_str();
    let sql = "SELECT plimsoll.resolve_conflict($1, $2::pg_catalog.text::pg_catalog.jsonb)";
    server.call(Place::Run, sql, vec![(&id, Type::INT8), (&row, Type::TEXT)]).map(drop)
}
