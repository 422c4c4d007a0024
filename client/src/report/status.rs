//! What `plimsoll status` shows: what the server reports of the replicas, and what the agent remembers.

use comfy_table::Cell;
use plimsoll_core::sync::TableMemory;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::{dash, table_of, time};

/// One replica's state.
#[derive(Debug, Serialize)]
pub struct TableState {
    /// The managed table.
    pub relation: String,
    /// The row of `plimsoll.replicas`; none where the server was not asked or has none.
    pub server: Option<Json>,
    /// What the agent remembers.
    pub remembered: Option<TableMemory>,
}

/// The state of all replicas of the database.
#[derive(Debug, Serialize)]
pub struct StatusResult {
    /// Each replica.
    pub tables: Vec<TableState>,
    /// Why the server's part is missing, where it is.
    pub failure: Option<String>,
}

/// The first of these fields that is there, as text.
fn field(object: Option<&Json>, names: &[&str]) -> Option<String> {
    let object = object?;
    let value = names.iter().find_map(|name| object.get(*name).filter(|value| !value.is_null()))?;
    Some(match value {
        Json::String(text) => shorter(text),
        Json::Object(_) | Json::Array(_) => value.to_string(),
        value => value.to_string(),
    })
}

/// A time of the server without what nobody reads.
fn shorter(text: &str) -> String {
    let is_time = text.len() >= 19 && text.as_bytes()[10] == b'T' && text.as_bytes()[13] == b':';
    match is_time && (text.ends_with("+00:00") || text.ends_with('Z')) {
        true => format!("{}Z", &text[..19]),
        false => text.to_owned(),
    }
}

impl StatusResult {
    /// Prints it.
    pub fn print(&self, as_json: bool) {
        if as_json {
            outln!("{}", json!(self));
            return;
        }
        let header = [
            "table",
            "status",
            "proved at",
            "last run",
            "hold",
            "rows",
            "max version",
            "rejected",
            "swept to",
        ];
        let mut table = table_of(&header, 5);
        for state in &self.tables {
            let server = state.server.as_ref();
            let remembered = state.remembered.as_ref();
            let text = |names: &[&str]| Cell::new(dash(field(server, names)));
            let proved = field(server, &["proved_at"]).or_else(|| time(remembered?.proved_at));
            let window = remembered.and_then(|memory| memory.window_from).map(|from| from.to_string());
            table.add_row(vec![
                Cell::new(&state.relation),
                text(&["status"]),
                Cell::new(dash(proved)),
                text(&["last_run_at", "last_run", "last_seen_at"]),
                text(&["hold_reason", "hold"]),
                text(&["row_count", "rows"]),
                text(&["max_version"]),
                text(&["rejected_rows", "rejected"]),
                Cell::new(dash(window)),
            ]);
        }
        outln!("{table}");
        if let Some(failure) = &self.failure {
            outln!("the server's part is missing: {failure}");
        }
    }
}
