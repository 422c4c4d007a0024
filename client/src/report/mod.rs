//! What commands print on standard output: tables for people, JSON for programs.

mod conflicts;
mod key;
mod run;
mod status;

pub use conflicts::{print_conflict, print_conflicts};
pub use key::key_text;
pub use run::print_run;
pub use status::{StatusResult, TableState};

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::{CellAlignment, Table, presets};
use plimsoll_core::store::Failure;
use plimsoll_core::sync::DifferenceKind;
use serde_json::json;

use crate::agent::Verdict;

/// A table in the house's style; all columns but the first `words` are numbers.
pub(crate) fn table_of(header: &[&str], words: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A time as people and JSON read it, in UTC; nothing for none.
pub fn time(micros: Option<i64>) -> Option<String> {
    let micros = u64::try_from(micros?).ok()?;
    let time: SystemTime = UNIX_EPOCH + Duration::from_micros(micros);
    Some(humantime::format_rfc3339_seconds(time).to_string())
}

fn dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// A failure in the form of a JSON object.
pub fn failure_json(failure: &Failure) -> serde_json::Value {
    json!({"error": {
        "message": failure.message,
        "sqlstate": failure.sqlstate,
        "hint": failure.hint,
    }})
}

/// Prints a failure where errors go, its hint on a line of its own.
pub fn print_failure(failure: &Failure) {
    errln!("error: {}", failure.message);
    if let Some(hint) = &failure.hint {
        errln!("hint: {hint}");
    }
}

/// Prints a comparison's outcome.
pub fn print_verdict(verdict: &Verdict, as_json: bool) {
    if as_json {
        outln!("{}", json!(verdict));
        return;
    }
    let header = ["table", "verdict", "compared", "missing", "excess", "altered", "rejected"];
    let mut table = table_of(&header, 2);
    for verdict in &verdict.tables {
        let row: Vec<String> = match &verdict.report {
            Some(report) => {
                let word = if report.level { "level" } else { "not level" };
                let numbers = [report.rows, report.missing, report.excess, report.altered, report.rejected];
                [verdict.table.clone(), word.to_owned()]
                    .into_iter()
                    .chain(numbers.map(|number| number.to_string()))
                    .collect()
            }
            None => vec![verdict.table.clone(), "could not tell".to_owned()],
        };
        table.add_row(row);
    }
    outln!("{table}");
    for verdict in &verdict.tables {
        for difference in &verdict.differences {
            let what = match difference.kind {
                DifferenceKind::Missing => "only local ",
                DifferenceKind::Excess => "only remote",
                DifferenceKind::Altered => "altered    ",
                DifferenceKind::Rejected => "rejected   ",
            };
            let reason = difference.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            outln!("{}: {what} {}{reason}", verdict.table, difference.key);
        }
        if verdict.more_differences > 0 {
            outln!("{}: and {} more (--limit shows more)", verdict.table, verdict.more_differences);
        }
        if let Some(failure) = &verdict.failure {
            outln!("{}: {failure}", verdict.table);
        }
    }
}
