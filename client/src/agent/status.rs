//! What the server and the agent's memory say of the replicas.

use std::collections::BTreeMap;

use plimsoll_core::store::Outcome;
use serde_json::Value as Json;

use super::server_of;
use crate::config::Config;
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
        let state = TableState { relation: relation.clone(), server: Some(replica), remembered: memory };
        tables.insert(relation, state);
    }
    for (relation, memory) in remembered {
        let state = TableState { relation: relation.clone(), server: None, remembered: Some(memory) };
        tables.insert(relation, state);
    }
    Ok(StatusResult { tables: tables.into_values().collect(), failure })
}
