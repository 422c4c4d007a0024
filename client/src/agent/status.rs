//! What the server and the agent's memory say of the replicas.

use std::collections::BTreeMap;

use plimsoll_core::store::Outcome;
use serde_json::Value as Json;

use super::server_of;
use crate::config::Config;
use crate::names::Relation;
use crate::report::{StatusResult, TableState};
use crate::state;

/// The state of all replicas of the database.
///
/// # Errors
/// For a wrong setting. A server that cannot be asked is in the result.
pub fn status(config: &Config) -> Outcome<StatusResult> {
    let mut server = server_of(config)?;
    let mut remembered = state::peek(&config.state_path());
    let (replicas, failure) = match server.replicas() {
        Ok(replicas) => (replicas, None),
        Err(failure) => (Vec::new(), Some(failure.to_string())),
    };
    let mut tables = BTreeMap::new();
    for replica in replicas {
        let relation = replica.get("relation").and_then(Json::as_str).unwrap_or_default().to_owned();
        let memory = remembered.remove(&relation);
        // The view lists every managed table of the server, also those that no agent fills for this database.
        let rows = replica.get("row_count").and_then(Json::as_i64).unwrap_or_default();
        if memory.is_none() && rows == 0 && !is_configured(config, &relation) {
            continue;
        }
        let state = TableState { relation: relation.clone(), server: Some(replica), remembered: memory };
        tables.insert(relation, state);
    }
    for (relation, memory) in remembered {
        let state = TableState { relation: relation.clone(), server: None, remembered: Some(memory) };
        tables.insert(relation, state);
    }
    Ok(StatusResult { tables: tables.into_values().collect(), failure })
}

fn is_configured(config: &Config, relation: &str) -> bool {
    let relation = Relation::parse(relation);
    config.tables.iter().any(|table| {
        let own = table.relation();
        let own = own.unwrap_or_else(|| Relation { schema: None, table: table.name.clone() });
        own.means(&relation, str::eq_ignore_ascii_case)
    })
}
