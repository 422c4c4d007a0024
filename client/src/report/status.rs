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

/// A number that is not 0.
fn count(object: Option<&Json>, name: &str) -> Option<u64> {
    object?.get(name)?.as_u64().filter(|number| *number > 0)
}

/// Why nothing destructive happens, on the server or here.
fn hold(server: Option<&Json>) -> Option<String> {
    let there = field(server, &["hold_reason"]);
    let here = count(server, "held_local_rows").map(|rows| format!("here: {rows} rows held back"));
    let both: Vec<String> = there.into_iter().chain(here).collect();
    (!both.is_empty()).then(|| both.join("; "))
}

/// What the last run that moved rows did, per side, and what is left undecided.
fn moved(server: Option<&Json>) -> Option<String> {
    let counts = [
        ("sent", "sent"),
        ("received", "received"),
        ("deleted_remote", "deleted there"),
        ("deleted_local", "deleted here"),
        ("conflicts", "in conflict"),
        ("open_conflicts", "for a person to decide"),
        ("undecided_rows", "undecided"),
    ];
    let told = counts.iter().filter_map(|(name, word)| Some(format!("{} {word}", count(server, name)?)));
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| told.join(", "))
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
            "direction",
            "status",
            "proved at",
            "last run",
            "hold",
            "last moved",
            "rows",
            "rejected",
        ];
        let mut table = table_of(&header, 7);
        for state in &self.tables {
            let server = state.server.as_ref();
            let remembered = state.remembered.as_ref();
            let text = |names: &[&str]| Cell::new(dash(field(server, names)));
            let proved = field(server, &["proved_at"]).or_else(|| time(remembered?.proved_at));
            table.add_row(vec![
                Cell::new(&state.relation),
                text(&["direction"]),
                text(&["status"]),
                Cell::new(dash(proved)),
                text(&["last_run_at"]),
                Cell::new(dash(hold(server))),
                Cell::new(dash(moved(server))),
                text(&["row_count"]),
                text(&["rejected_rows"]),
            ]);
        }
        outln!("{table}");
        if let Some(failure) = &self.failure {
            outln!("the server's part is missing: {failure}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_last_is_told_by_side_and_what_did_not_is_left_out() {
        let replica = json!({"sent": 3, "received": 0, "deleted_remote": 1, "deleted_local": 2, "conflicts": 0,
            "undecided_rows": 4, "held_local_rows": 5, "hold_reason": null});
        let told = moved(Some(&replica)).expect("something");
        assert_eq!(told, "3 sent, 1 deleted there, 2 deleted here, 4 undecided");
        assert_eq!(hold(Some(&replica)).as_deref(), Some("here: 5 rows held back"));
        let still = json!({"sent": 0, "held_local_rows": 0, "hold_reason": "a backup"});
        assert_eq!((moved(Some(&still)), hold(Some(&still)).as_deref()), (None, Some("a backup")));
        assert_eq!((moved(None), hold(None)), (None, None));
    }
}
