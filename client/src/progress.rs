//! What a run is doing, on standard error: bars on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressStyle};
use plimsoll_core::store::TableId;
use plimsoll_core::sync::Event;

/// How often a plain line about one table comes at most.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// A display.
#[derive(Debug)]
pub struct Progress {
    mode: Mode,
    way: Way,
    names: Vec<String>,
    bars: HashMap<TableId, ProgressBar>,
    bar_group: MultiProgress,
    last_line: HashMap<TableId, Instant>,
    compared: HashMap<TableId, u64>,
}

/// Which way rows go that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the server.
    Sent,
    /// To the local database.
    Received,
    /// To either: [`Progress::exchanged`] tells how many.
    Both,
}

impl Way {
    fn done(self) -> &'static str {
        match self {
            Way::Sent => "sent",
            Way::Received => "received",
            Way::Both => "sent or received",
        }
    }

    fn to_do(self) -> &'static str {
        match self {
            Way::Sent => "to send",
            Way::Received => "to receive",
            Way::Both => "to send or to receive",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Bars,
    Lines,
    Quiet,
}

impl Progress {
    /// A display for where standard error goes; none where `quiet`.
    pub fn new(quiet: bool) -> Self {
        let mode = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Mode::Quiet,
            (false, true) => Mode::Bars,
            (false, false) => Mode::Lines,
        };
        Progress {
            mode,
            way: Way::Sent,
            names: Vec::new(),
            bars: HashMap::new(),
            bar_group: MultiProgress::new(),
            last_line: HashMap::new(),
            compared: HashMap::new(),
        }
    }

    /// A run over these tables begins, whose rows go this way.
    pub fn begin(&mut self, names: Vec<String>, way: Way) {
        self.end();
        (self.names, self.way) = (names, way);
    }

    /// The run is over.
    pub fn end(&mut self) {
        for (_, bar) in self.bars.drain() {
            bar.finish_and_clear();
        }
        self.last_line.clear();
        self.compared.clear();
    }

    /// Something happened.
    pub fn event(&mut self, table: TableId, event: &Event) {
        if let Event::Compared { rows, .. } = event {
            *self.compared.entry(table).or_default() += rows;
        }
        match self.mode {
            Mode::Quiet => {}
            Mode::Bars => self.bar_event(table, event),
            Mode::Lines => self.line_event(table, event),
        }
    }

    /// So many rows of a table went each way in this run.
    pub fn exchanged(&mut self, table: TableId, sent: u64, received: u64) {
        match self.mode {
            Mode::Bars => self.bar(table).set_message(both_ways(sent, received)),
            Mode::Lines => {
                if self.line_is_due(table) {
                    errln!("{}: {}", self.name(table), both_ways(sent, received));
                }
            }
            Mode::Quiet => {}
        }
    }

    fn name(&self, table: TableId) -> String {
        self.names.get(table).cloned().unwrap_or_default()
    }

    fn bar(&mut self, table: TableId) -> ProgressBar {
        let name = self.name(table);
        let (group, way) = (&self.bar_group, self.way);
        let new = || {
            let bar = group.add(ProgressBar::no_length().with_prefix(name));
            bar.set_style(style(false, way));
            bar
        };
        self.bars.entry(table).or_insert_with(new).clone()
    }

    fn bar_event(&mut self, table: TableId, event: &Event) {
        let bar = self.bar(table);
        match event {
            Event::Started { expected_rows } => {
                if let Some(rows) = expected_rows.filter(|rows| *rows > 0) {
                    bar.set_length(rows);
                    bar.set_style(style(true, self.way));
                }
                bar.set_message("");
            }
            Event::Uploaded { total_rows, .. } => {
                if bar.length().is_some_and(|length| length < *total_rows) {
                    bar.set_length(*total_rows);
                }
                bar.set_position(*total_rows);
            }
            Event::Compared { .. } => {
                let rows = self.compared.get(&table).copied().unwrap_or_default();
                bar.set_message(format!("compared {}", HumanCount(rows)));
            }
            Event::Finished { status } => bar.finish_with_message(status.to_string()),
            other => {
                if let Some(text) = notice(other) {
                    bar.suspend(|| errln!("{}: {text}", self.name(table)));
                }
            }
        }
    }

    fn line_event(&mut self, table: TableId, event: &Event) {
        let text = match event {
            Event::Started { expected_rows: Some(rows) } if *rows > 0 => {
                format!("about {} rows {}", HumanCount(*rows), self.way.to_do())
            }
            Event::Started { .. } => return,
            Event::Uploaded { total_rows, .. } if self.line_is_due(table) => {
                format!("{} rows {}", HumanCount(*total_rows), self.way.done())
            }
            Event::Compared { .. } if self.line_is_due(table) => {
                let rows = self.compared.get(&table).copied().unwrap_or_default();
                format!("{} rows compared", HumanCount(rows))
            }
            Event::Finished { status } => status.to_string(),
            other => match notice(other) {
                Some(text) => text,
                None => return,
            },
        };
        errln!("{}: {text}", self.name(table));
    }

    fn line_is_due(&mut self, table: TableId) -> bool {
        let now = Instant::now();
        let due = self.last_line.get(&table).is_none_or(|last| now - *last >= LINE_INTERVAL);
        if due {
            self.last_line.insert(table, now);
        }
        due
    }
}

/// How many rows went each way.
fn both_ways(sent: u64, received: u64) -> String {
    format!("{} rows sent, {} received", HumanCount(sent), HumanCount(received))
}

/// What is said in a line of its own wherever it is shown.
fn notice(event: &Event) -> Option<String> {
    match event {
        Event::Rejected { key_text, message, waits } => {
            let what = if *waits { "waits" } else { "rejected" };
            Some(format!("row {key_text} {what}: {message}"))
        }
        Event::Retrying { failure, pause } => {
            let pause = Duration::from_millis(pause / 1000);
            Some(format!("{failure}; trying again in {}", humantime::format_duration(pause)))
        }
        Event::Deleted { rows } if *rows > 0 => Some(format!("{} rows deleted", HumanCount(*rows))),
        _ => None,
    }
}

fn style(with_length: bool, way: Way) -> ProgressStyle {
    let done = way.done();
    let template = match (way, with_length) {
        (Way::Both, _) => "{prefix:20} {msg}".to_owned(),
        (Way::Sent | Way::Received, true) => {
            format!("{{prefix:20}} {{bar:30}} {{human_pos}}/{{human_len}} rows {done} {{per_sec}} {{msg}}")
        }
        (Way::Sent | Way::Received, false) => format!("{{prefix:20}} {{human_pos}} rows {done} {{msg}}"),
    };
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_go_both_ways_are_told_of_by_the_way() {
        assert_eq!(both_ways(1_200, 7), "1,200 rows sent, 7 received");
        let mut progress = Progress { mode: Mode::Bars, ..Progress::new(true) };
        progress.begin(vec!["people".to_owned()], Way::Both);
        progress.exchanged(0, 3, 0);
        progress.exchanged(0, 3, 4);
        assert_eq!(progress.bar(0).message(), "3 rows sent, 4 received");
    }
}
