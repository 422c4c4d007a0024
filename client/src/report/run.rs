//! What became of a run: which way each table went, and how many rows went to which side.

use comfy_table::Cell;
use plimsoll_core::sync::Status;
use serde_json::json;

use super::{dash, failure_json, print_failure, table_of, time};
use crate::agent::{RunResult, TableResult};
use crate::config::Direction;

/// A column of numbers.
struct Column {
    /// Its header after a run, and after one that only looked.
    names: [&'static str; 2],
    /// Whether tables that go this way can have such rows: a column that none of the run's tables can fill is left out.
    of: fn(Direction) -> bool,
    /// The number.
    count: fn(&TableResult) -> u64,
}

const COLUMNS: [Column; 9] = [
    Column { names: ["sent", "would send"], of: Direction::writes_remote, count: |table| table.moved.sent },
    Column {
        names: ["received", "would receive"],
        of: Direction::writes_local,
        count: |table| table.moved.received,
    },
    Column {
        names: ["deleted\nthere", "would delete\nthere"],
        of: Direction::writes_remote,
        count: |table| table.moved.deleted_there,
    },
    Column {
        names: ["deleted\nhere", "would delete\nhere"],
        of: Direction::writes_local,
        count: |table| table.moved.deleted_here,
    },
    Column { names: ["conflicts"; 2], of: both_ways, count: |table| table.moved.conflicts },
    Column { names: ["undecided"; 2], of: both_ways, count: |table| table.moved.undecided },
    Column { names: ["compared"; 2], of: |_| true, count: |table| table.report.compared_rows },
    Column { names: ["rejected"; 2], of: |_| true, count: |table| table.report.rejected },
    Column { names: ["waiting"; 2], of: |_| true, count: |table| table.report.waiting },
];

fn both_ways(direction: Direction) -> bool {
    direction.writes_local() && direction.writes_remote()
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
    outln!("{}", table_text(result));
    result.tables.iter().flat_map(remarks).for_each(|remark| outln!("{remark}"));
    let seconds = result.seconds;
    match (&result.failure, result.stopped) {
        (Some(failure), _) => print_failure(failure),
        (None, true) => outln!("stopped after {seconds:.1} s; the next run goes on from here"),
        (None, false) => outln!("done in {seconds:.1} s"),
    }
}

fn table_text(result: &RunResult) -> String {
    let is_filled = |column: &&Column| result.tables.iter().any(|table| (column.of)(table.direction));
    let columns: Vec<&Column> = COLUMNS.iter().filter(is_filled).collect();
    let mut header = vec!["table", "direction", "status"];
    header.extend(columns.iter().map(|column| column.names[usize::from(result.dry_run)]));
    if !result.dry_run {
        header.push("rows");
    }
    let mut table = table_of(&header, 3);
    for row in &result.tables {
        let words = [Cell::new(&row.table), Cell::new(row.direction), Cell::new(row.report.status)];
        let number = |column: &&Column| match (column.of)(row.direction) {
            true => Cell::new((column.count)(row)),
            false => Cell::new("-"),
        };
        let mut cells: Vec<Cell> = words.into_iter().chain(columns.iter().map(number)).collect();
        if !result.dry_run {
            cells.push(Cell::new(dash(row.report.remote_rows.map(|rows| rows.to_string()))));
        }
        table.add_row(cells);
    }
    table.to_string()
}

/// What the numbers do not say.
fn remarks(table: &TableResult) -> Vec<String> {
    let (name, report, moved) = (&table.table, &table.report, &table.moved);
    let mut remarks = Vec::new();
    if let Some(failure) = &report.failure {
        remarks.push(format!("{name}: {}", failure.message));
        remarks.extend(failure.hint.as_ref().map(|hint| format!("    {hint}")));
    }
    if report.failure.is_none() && report.status == Status::CountsAgree {
        let proof = match time(report.proved_at) {
            Some(time) => format!("every row was compared and found equal since {time}"),
            None => "not every row was compared yet".to_owned(),
        };
        remarks.push(format!("{name}: counts agree; {proof}"));
    }
    // What was held is counted per side where a direction says on which.
    let held_somewhere = report.held.saturating_sub(moved.held_here + moved.held_there);
    for (rows, what) in [
        (report.rejected, "rejected: plimsoll.rejected_rows says why; they are tried again when they change"),
        (report.waiting, "waiting for other rows: they are tried again in each run"),
        (
            moved.held_there + held_somewhere,
            "held back by the guard against destruction: see --allow-mass-delete",
        ),
        (
            moved.held_here,
            "of the local database held back by the guard against destruction here: see --allow-mass-delete",
        ),
        (report.blocked, "not deleted, because other rows refer to them"),
        (report.stale, "stored in an older version, because the newer one is rejected"),
        (moved.merged, "made of the changes of both sides"),
        (
            moved.undecided,
            "of which nobody remembers which side changed them: deleted on one, or new on the other? They are left as they are",
        ),
        (moved.future_stamps, "in conflict with a stamp of the future: a clock is wrong"),
    ] {
        if rows > 0 {
            remarks.push(format!("{name}: {rows} {} {what}", if rows == 1 { "row" } else { "rows" }));
        }
    }
    if let Some(skew) = moved.skew.filter(|skew| skew.unsigned_abs() >= SHOWN_SKEW) {
        let side = if skew > 0 { "ahead of" } else { "behind" };
        let seconds = skew.unsigned_abs() as f64 / 1e6;
        remarks.push(format!("{name}: the clock here is {seconds:.1} s {side} the server's"));
    }
    remarks
}

/// A difference of clocks that is worth a word, in microseconds.
const SHOWN_SKEW: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use plimsoll_core::sync::TableReport;

    use super::*;
    use crate::agent::Moved;

    fn result(tables: &[(Direction, Moved)], dry_run: bool) -> RunResult {
        let table = |(direction, moved): &(Direction, Moved)| TableResult {
            table: format!("t {direction}"),
            relation: None,
            direction: *direction,
            report: TableReport { status: Status::Level, remote_rows: Some(9), ..TableReport::default() },
            moved: *moved,
        };
        RunResult {
            tables: tables.iter().map(table).collect(),
            failure: None,
            stopped: false,
            dry_run,
            seconds: 0.0,
        }
    }

    /// The words of each line, without what draws the table.
    fn lines(result: &RunResult) -> Vec<Vec<String>> {
        let text = table_text(result);
        let lines = text.lines().filter(|line| line.chars().any(char::is_alphanumeric));
        lines
            .map(|line| {
                line.split("  ").map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect()
            })
            .collect()
    }

    #[test]
    fn a_run_that_only_pushes_has_no_column_for_what_it_cannot_do() {
        let moved = Moved { sent: 3, deleted_there: 1, ..Moved::default() };
        let lines = lines(&result(&[(Direction::Push, moved)], false));
        assert_eq!(
            lines[0],
            ["table", "direction", "status", "sent", "deleted", "compared", "rejected", "waiting", "rows"]
        );
        assert_eq!(lines[1], ["there"]);
        assert_eq!(lines[2], ["t push", "push", "level", "3", "1", "0", "0", "0", "9"]);
    }

    #[test]
    fn every_direction_counts_by_side() {
        let both = Moved {
            sent: 1,
            received: 2,
            deleted_here: 3,
            deleted_there: 4,
            conflicts: 5,
            undecided: 6,
            ..Moved::default()
        };
        let pulled = Moved { received: 7, deleted_here: 8, ..Moved::default() };
        let lines = lines(&result(&[(Direction::TwoWay, both), (Direction::Pull, pulled)], false));
        assert_eq!(lines[2][3..9], ["1", "2", "4", "3", "5", "6"]);
        assert_eq!(lines[3][1..9], ["pull", "level", "-", "7", "-", "8", "-", "-"]);
    }

    #[test]
    fn a_run_that_only_looked_says_what_it_would_do() {
        let moved = Moved { received: 7, deleted_here: 8, ..Moved::default() };
        let text = table_text(&result(&[(Direction::SnapshotPull, moved)], true));
        assert!(text.contains("would receive") && text.contains("would delete"), "{text}");
        assert!(!text.contains("would send") && text.contains("snapshot-from-remote"), "{text}");
    }

    #[test]
    fn what_is_held_is_said_with_its_side() {
        let mut table = result(&[(Direction::TwoWay, Moved { held_here: 4, ..Moved::default() })], false);
        table.tables[0].report.held = 4;
        let said = remarks(&table.tables[0]);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("4 rows of the local database held back"), "{said:?}");
        let mut pushed = result(&[(Direction::Push, Moved { held_there: 4, ..Moved::default() })], false);
        pushed.tables[0].report.held = 4;
        let said = remarks(&pushed.tables[0]);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("t push: 4 rows held back"), "{said:?}");
    }
}
