//! What `plimsoll conflicts` shows: keys that both sides have differently, and what each has.

use comfy_table::Cell;
use serde_json::{Map, Value as Json, json};

use super::{dash, table_of};

/// The text of a JSON value, a text without its quotes.
fn text(value: Option<&Json>) -> Option<String> {
    match value? {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        value => Some(value.to_string()),
    }
}

/// A key as `column=value, column=value`.
fn key(conflict: &Json) -> String {
    match conflict.get("key") {
        Some(Json::Object(columns)) => {
            let columns = columns.iter().map(|(name, value)| format!("{name}={value}"));
            columns.collect::<Vec<_>>().join(", ")
        }
        key => dash(text(key)),
    }
}

fn kind(conflict: &Json) -> String {
    let kind = dash(text(conflict.get("kind")));
    match text(conflict.get("side")) {
        Some(side) => format!("{kind} ({side})"),
        None => kind,
    }
}

/// Prints one line a conflict.
pub fn print_conflicts(conflicts: &[Json], as_json: bool) {
    if as_json {
        outln!("{}", json!(conflicts));
        return;
    }
    let mut table = table_of(&["id", "table", "key", "kind", "recorded at", "decided", "closed"], 7);
    for conflict in conflicts {
        let cell = |name: &str| Cell::new(dash(text(conflict.get(name))));
        table.add_row(vec![
            cell("conflict_id"),
            cell("relation"),
            Cell::new(key(conflict)),
            Cell::new(kind(conflict)),
            cell("recorded_at"),
            cell("resolution"),
            cell("outcome"),
        ]);
    }
    outln!("{table}");
}

/// Prints all of one conflict, both rows side by side, what differs marked.
pub fn print_conflict(conflict: &Json, as_json: bool) {
    if as_json {
        outln!("{conflict}");
        return;
    }
    outln!("conflict {}: {}", dash(text(conflict.get("conflict_id"))), kind(conflict));
    outln!("table:    {}", dash(text(conflict.get("relation"))));
    outln!("key:      {}", key(conflict));
    outln!("recorded: {}", dash(text(conflict.get("recorded_at"))));
    if let Some(message) = conflict.get("reason").and_then(|reason| text(reason.get("message"))) {
        outln!("reason:   {message}");
    }
    if let Some(resolution) = text(conflict.get("resolution")) {
        outln!("decided:  {resolution}, by {}", dash(text(conflict.get("resolved_by"))));
    }
    if let Some(outcome) = text(conflict.get("outcome")) {
        outln!("closed:   {outcome}");
    }
    let row = |name: &str| conflict.get(name).and_then(Json::as_object);
    let (local, remote, base) = (row("local_row"), row("remote_row"), row("base_row"));
    let names = |row: Option<&Map<String, Json>>| {
        row.into_iter().flat_map(|row| row.keys().cloned()).collect::<Vec<_>>()
    };
    let mut columns = names(local);
    columns.extend(names(remote).into_iter().filter(|name| !local.is_some_and(|row| row.contains_key(name))));
    let mut table = table_of(&["", "column", "local", "remote", "base"], 5);
    for column in columns {
        let of = |row: Option<&Map<String, Json>>| dash(row.and_then(|row| text(row.get(&column))));
        let (here, there) = (of(local), of(remote));
        let mark = if here == there { "" } else { "*" };
        table.add_row([mark, &column, &here, &there, &of(base)]);
    }
    outln!("{table}");
    for (side, row) in [("local", local), ("remote", remote)] {
        if row.is_none() {
            outln!("The {side} side has no row, or one that is not shown.");
        }
    }
}
