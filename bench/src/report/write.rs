//! A report as people read it, on a terminal and in Markdown, and as programs do.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::Table;
use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};

use super::{CaseReport, Report, Verdict};

const HEADER: [&str; 8] = ["what", "median", "range", "ratio", "against", "bar", "aim", "verdict"];

impl CaseReport {
    /// The case for a terminal.
    pub fn text(&self) -> String {
        format!("\n{}: {}\n{}", self.name, self.title, self.body("  ", UTF8_FULL_CONDENSED))
    }

    fn markdown(&self) -> String {
        format!("## {}\n\n`{}`\n\n{}", self.title, self.name, self.body("- ", ASCII_MARKDOWN))
    }

    fn body(&self, bullet: &str, preset: &str) -> String {
        let mut text = String::new();
        for what in &self.measured_on {
            text.push_str(&format!("{bullet}{what}\n"));
        }
        if !self.lines.is_empty() {
            let mut table = Table::new();
            table.load_preset(preset).set_header(HEADER);
            table.add_rows(self.lines.iter().map(|line| line.cells()));
            // Both a list and a table of Markdown end at an empty line.
            let _ = write!(text, "\n{table}\n");
        }
        for reason in &self.skipped {
            let _ = write!(text, "\nNot measured: {reason}\n");
        }
        if let Some(failure) = &self.failure {
            let _ = write!(text, "\nFailed: {failure}\n");
        }
        text
    }
}

impl Report {
    /// The whole report in Markdown.
    pub fn markdown(&self) -> String {
        let memory = self.memory_gib.map(|gib| format!(", {gib:.0} GiB of memory")).unwrap_or_default();
        let durable = if self.durable { "" } else { " (without fsync)" };
        let mut text = format!(
            "# Figures\n\n\
             Measured by `cargo xtask bench` on {} cores{memory}, with {}{durable}, client and server on one \
             machine.\nMedians of {} rounds unless a case says otherwise; contestants take turns, in every second \
             round in the\nopposite order, and a ratio is the median of the rounds' ratios. Bar and aim are on the \
             ratio where there is one.\n",
            self.cores, self.server, self.rounds,
        );
        for case in &self.cases {
            let _ = write!(text, "\n{}", case.markdown());
        }
        text
    }

    /// One line: how many bars were reached.
    pub fn summary(&self) -> String {
        let verdicts: Vec<Verdict> =
            self.cases.iter().flat_map(|case| &case.lines).map(|line| line.verdict()).collect();
        let count = |wanted: &[Verdict]| verdicts.iter().filter(|verdict| wanted.contains(verdict)).count();
        let failed = self.cases.iter().filter(|case| case.failure.is_some()).count();
        format!(
            "{} bars met ({} aims too), {} missed, {failed} cases failed",
            count(&[Verdict::BarMet, Verdict::AimMet]),
            count(&[Verdict::AimMet]),
            count(&[Verdict::Missed])
        )
    }

    /// Writes `bench.md` and `bench.json`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("bench.md", self.markdown())?;
        write("bench.json", serde_json::to_string_pretty(self)?)
    }
}
