//! The figures and how they are written.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

/// One run of the client.
pub(super) struct Run {
    /// From start to end.
    pub(super) seconds: f64,
    /// The most memory it had.
    pub(super) peak_kib: u64,
}

/// Everything that was measured.
pub(super) struct Figures {
    server: String,
    rows: u64,
    /// Seconds of each `psql \copy`.
    pub(super) copies: Vec<f64>,
    /// Each first sync.
    pub(super) syncs: Vec<Run>,
    /// Seconds until all rows of a first sync were stored.
    pub(super) stored: Vec<f64>,
    /// Runs with nothing to do.
    pub(super) idle_runs: Vec<Run>,
    /// Seconds of the comparison of every row.
    pub(super) verify_seconds: f64,
}

impl Figures {
    pub(super) fn new(server: String, rows: u64) -> Self {
        Figures {
            server,
            rows,
            copies: vec![],
            syncs: vec![],
            stored: vec![],
            idle_runs: vec![],
            verify_seconds: 0.0,
        }
    }

    /// A table for people.
    pub(super) fn markdown(&self) -> String {
        let copy = median(self.copies.iter().copied());
        let sync = median(self.syncs.iter().map(|run| run.seconds));
        let stored = median(self.stored.iter().copied());
        let idle = median(self.idle_runs.iter().map(|run| run.seconds));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        format!(
            "{} rows of 8 columns, {}, {cores} cores, medians of {} rounds in turns.\n\n\
             | what | figure |\n|---|---|\n\
             | `psql \\copy` of the rows as CSV | {copy:.2} s |\n\
             | first sync from SQLite, all rows compared afterwards | {sync:.2} s |\n\
             | of that, until every row was stored | {stored:.2} s |\n\
             | first sync against copy | {:.2} times |\n\
             | client's peak memory, first sync | {:.1} MiB |\n\
             | run with nothing to do | {:.0} ms |\n\
             | client's peak memory, nothing to do | {:.1} MiB |\n\
             | `plimsoll verify` of all rows | {:.2} s |\n",
            self.rows,
            self.server,
            self.copies.len(),
            sync / copy,
            peak_mib(&self.syncs),
            idle * 1_000.0,
            peak_mib(&self.idle_runs),
            self.verify_seconds,
        )
    }

    /// Writes `figures.md` and `figures.json`.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        fs::write(directory.join("figures.md"), self.markdown())?;
        let runs = |runs: &[Run]| -> Vec<_> {
            runs.iter().map(|run| json!({ "seconds": run.seconds, "peak_kib": run.peak_kib })).collect()
        };
        let all = json!({
            "server": self.server,
            "rows": self.rows,
            "copy_seconds": self.copies,
            "stored_seconds": self.stored,
            "first_syncs": runs(&self.syncs),
            "idle_runs": runs(&self.idle_runs),
            "verify_seconds": self.verify_seconds,
        });
        fs::write(directory.join("figures.json"), serde_json::to_string_pretty(&all)?)?;
        Ok(())
    }
}

fn peak_mib(runs: &[Run]) -> f64 {
    runs.iter().map(|run| run.peak_kib).max().unwrap_or(0) as f64 / 1024.0
}

/// The middle value, or the mean of the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
    }
}
