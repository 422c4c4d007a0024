//! Figures, what they are measured against, and whether they reach their bars.

mod line;
mod write;

use serde::Serialize;

pub use line::{Limit, Line, Unit, Verdict};

/// What a run of the benchmarks found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The server's version.
    pub server: String,
    /// Processor cores.
    pub cores: usize,
    /// Memory in GiB, where the system tells.
    pub memory_gib: Option<f64>,
    /// Whether committed work survives a power failure.
    pub durable: bool,
    /// Rounds, unless a case says otherwise.
    pub rounds: usize,
    /// The cases, in the order they were measured.
    pub cases: Vec<CaseReport>,
}

/// What one case found.
#[derive(Debug, Serialize)]
pub struct CaseReport {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it measures.
    pub title: &'static str,
    /// What it was measured on: rows, bytes, indexes, how it was done.
    pub measured_on: Vec<String>,
    /// The figures.
    pub lines: Vec<Line>,
    /// Why something was not measured.
    pub skipped: Vec<String>,
    /// Why the case failed, where it did.
    pub failure: Option<String>,
}

impl CaseReport {
    /// A case without figures yet.
    pub fn new(name: &'static str, title: &'static str) -> Self {
        CaseReport { name, title, measured_on: vec![], lines: vec![], skipped: vec![], failure: None }
    }

    /// Says what it was measured on.
    pub fn on(&mut self, what: impl Into<String>) {
        self.measured_on.push(what.into());
    }

    /// Adds a figure.
    pub fn add(&mut self, line: Line) {
        self.lines.push(line);
    }
}
