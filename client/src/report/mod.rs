//! What commands print on standard output: tables for people, JSON for programs.

mod key;
mod status;

pub use key::key_text;
pub use status::{StatusResult, TableState};

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::{Cell, CellAlignment, Table, presets};
use plimsoll_core::store::Failure;
use plimsoll_core::sync::DifferenceKind;
use serde_json::json;

use crate::agent::{RunResult, TableResult, Verdict};

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

/// Prints a run's outcome.
pub fn print_run(result: &RunResult, as_json: bool) {
    if as_json {
        let mut object = json!(result);
        object["error"] = result
            .failure
            .as_ref()
            .map_or(serde_json::Value::Null, |failure| failure_json(failure)["error"].clone());
        outln!("{object}");
        return;
    }
    let header = match result.dry_run {
        true => ["table", "status", "would send", "would delete", "compared", "rejected"].as_slice(),
        false => &["table", "status", "new", "changed", "deleted", "compared", "rejected", "waiting", "rows"],
    };
    let mut table = table_of(header, 2);
    for TableResult { table: name, report, .. } in &result.tables {
        let mut row = vec![Cell::new(name), Cell::new(report.status)];
        let numbers = match result.dry_run {
            true => {
                vec![report.would_send, report.would_delete, report.compared_rows, report.rejected]
            }
            false => vec![
                report.inserted,
                report.updated,
                report.deleted,
                report.compared_rows,
                report.rejected,
                report.waiting,
            ],
        };
        row.extend(numbers.into_iter().map(Cell::new));
        if !result.dry_run {
            row.push(Cell::new(dash(report.remote_rows.map(|rows| rows.to_string()))));
        }
        table.add_row(row);
    }
    outln!("{table}");
    result.tables.iter().for_each(print_remarks);
    let seconds = result.seconds;
    match (&result.failure, result.stopped) {
        (Some(failure), _) => print_failure(failure),
        (None, true) => outln!("stopped after {seconds:.1} s; the next run goes on from here"),
        (None, false) => outln!("done in {seconds:.1} s"),
    }
}

/// What the numbers do not say.
fn print_remarks(table: &TableResult) {
    let (name, report) = (&table.table, &table.report);
    if let Some(failure) = &report.failure {
        outln!("{name}: {}", failure.message);
        if let Some(hint) = &failure.hint {
            outln!("    {hint}");
        }
    }
    let proof = || match time(report.proved_at) {
        Some(time) => format!("every row was compared and found equal since {time}"),
        None => "not every row was compared yet".to_owned(),
    };
    if report.failure.is_none() && report.status == plimsoll_core::sync::Status::CountsAgree {
        outln!("{name}: counts agree; {}", proof());
    }
    for (rows, what) in [
        (report.rejected, "rejected: plimsoll.rejected_rows says why; they are tried again when they change"),
        (report.waiting, "waiting for other rows: they are tried again in each run"),
        (report.held, "held back by the guard against destruction: see --allow-mass-delete"),
        (report.blocked, "not deleted, because other rows refer to them"),
        (report.stale, "stored in an older version, because the newer one is rejected"),
    ] {
        if rows > 0 {
            outln!("{name}: {rows} {} {what}", if rows == 1 { "row" } else { "rows" });
        }
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
