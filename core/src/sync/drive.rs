//! The machine of a run, over all tables, and the driver that carries its steps out.

use super::step::{Answer, Sides, Step};
use super::table::Table;
use super::task::{Part, Until};
use super::{RunReport, Settings, Status, TableInput, TableMemory};
use crate::store::{Failure, FailureKind, Outcome, TableId};

/// The share of the budget kept for deleting, confirming and concluding.
const CLOSING_SHARE: f64 = 0.1;
/// What a table with nothing to send counts for when time is divided.
const IDLE_WEIGHT: f64 = 0.1;

const PARTS: [Part; 4] = [Part::Look, Part::Level, Part::Delete, Part::Close];

/// One run over all tables.
#[derive(Debug)]
pub(super) struct Run {
    pub tables: Vec<Table>,
    /// Parents first.
    order: Vec<TableId>,
    settings: Settings,
    started: i64,
    /// Whether the source was asked for its change token.
    asked: bool,
    part: usize,
    /// How many tables of the part were begun.
    begun: usize,
    /// Tables that went through [`Part::Level`], or into it.
    levelled: Vec<bool>,
    stop: bool,
}

impl Run {
    pub fn new(settings: &Settings, inputs: &[TableInput], memories: &[TableMemory], now: i64) -> Self {
        let mut order: Vec<TableId> = (0..inputs.len()).collect();
        order.sort_by_key(|table| inputs[*table].rank);
        let memories = memories.iter().cloned().chain(std::iter::repeat(TableMemory::default()));
        let tables = inputs.iter().zip(memories);
        Run {
            tables: tables.map(|(input, memory)| Table::new(input.clone(), memory, settings)).collect(),
            order,
            settings: settings.clone(),
            started: now,
            asked: inputs.is_empty(),
            part: 0,
            begun: 0,
            levelled: vec![false; inputs.len()],
            stop: false,
        }
    }

    /// The table whose turn it is.
    fn current(&self) -> Option<TableId> {
        let part = PARTS.get(self.part)?;
        let at = self.begun.checked_sub(1)?;
        let at = if *part == Part::Delete { self.order.len().checked_sub(self.begun)? } else { at };
        self.order.get(at).copied()
    }

    pub fn step(&self) -> Option<(TableId, Step<'_>)> {
        if !self.asked {
            return Some((0, Step::ChangeToken));
        }
        let table = self.current()?;
        Some((table, self.tables.get(table)?.step()?))
    }

    pub fn tell(&mut self, outcome: Outcome<Answer>, took: u64, now: i64) -> Outcome<()> {
        if !self.asked {
            self.asked = true;
            // Without a token the tables' own signs of change have to do.
            match outcome {
                Ok(Answer::Token(token)) => {
                    self.tables.iter_mut().for_each(|table| table.token = token.clone());
                }
                Err(failure) if failure.kind == FailureKind::Run => return Err(failure),
                _ => {}
            }
        } else if let Some(table) = self.current() {
            self.tables[table].tell(outcome, took, now)?;
        }
        self.go_on(now);
        Ok(())
    }

    /// Begins the next table, or the next part, where nothing is left to do for the one under way.
    pub fn go_on(&mut self, now: i64) {
        while self.asked && self.part < PARTS.len() && self.step().is_none() {
            if self.begun < self.order.len() {
                self.begun += 1;
                if let Some(table) = self.current() {
                    self.begin(table, now);
                }
            } else {
                self.part += 1;
                self.begun = 0;
            }
        }
    }

    fn begin(&mut self, id: TableId, now: i64) {
        let part = PARTS[self.part];
        let unbegun = self.stop && !self.levelled[id];
        if unbegun {
            return;
        }
        let until = self.until(id, part, now);
        let others: usize = self.tables.iter().map(|table| table.candidates.len()).sum();
        let room = self.settings.max_excess_rows.saturating_sub(others).max(self.settings.delete_rows);
        let table = &mut self.tables[id];
        table.until = until;
        table.room = room.max(1);
        self.levelled[id] |= part == Part::Level;
        table.begin(part, now);
    }

    /// How the time that is left is divided: what a table does not use falls to those after it.
    fn until(&self, id: TableId, part: Part, now: i64) -> Until {
        let budget = self.settings.run_budget;
        let closing = (budget as f64 * CLOSING_SHARE) as u64;
        let end = self.started.saturating_add_unsigned(budget - closing.min(budget));
        if matches!(part, Part::Delete | Part::Close) {
            let run = self.started.saturating_add_unsigned(budget);
            return Until { run: run.max(now.saturating_add_unsigned(closing)), ..Until::default() };
        }
        let left = end.saturating_sub(now).max(0) as f64;
        let weight = |table: &Table| if table.is_busy() { 1.0 } else { IDLE_WEIGHT };
        let later = self.order.iter().skip_while(|other| **other != id);
        let weights: f64 = later.map(|table| weight(&self.tables[*table])).sum();
        let slot = left * weight(&self.tables[id]) / weights.max(f64::MIN_POSITIVE);
        let share = self.settings.window_share.clamp(0.0, 1.0);
        Until {
            upload: now.saturating_add((slot * (1.0 - share)) as i64),
            slot: now.saturating_add(slot as i64),
            windows: (slot * share) as u64,
            run: end,
        }
    }

    fn stop(&mut self) {
        self.stop = true;
        self.tables.iter_mut().for_each(Table::stop);
    }

    fn report(self, failure: Option<Failure>, memories: &mut [TableMemory]) -> RunReport {
        for (memory, table) in memories.iter_mut().zip(&self.tables) {
            *memory = table.saved.clone();
        }
        let stopped = self.stop;
        let tables = self.tables.into_iter().map(Table::into_report).collect();
        RunReport { tables, failure, stopped }
    }
}

impl Table {
    /// Whether the table has more to do than to look: rows to send, or counts that differ.
    fn is_busy(&self) -> bool {
        self.expected_rows() != Some(0) || !super::close::counts_agree(self)
    }

    fn into_report(self) -> super::TableReport {
        let mut report = self.ledger.report.clone();
        if self.failed.is_some() {
            report.status = Status::Unknown;
            report.concluded = false;
        }
        if !report.concluded {
            report.proved_at = self.saved.proved_at;
            (report.rejected, report.waiting) = match self.ledger.counts() {
                (0, 0) => (self.input.rejected, 0),
                counts => counts,
            };
        }
        report.failure = self.failed;
        report
    }
}

/// Carries out the steps of a run until none is left.
pub(super) fn drive(
    sides: &mut Sides<'_>,
    settings: &Settings,
    inputs: &[TableInput],
    memories: &mut [TableMemory],
) -> RunReport {
    let mut now = sides.world.now();
    let mut run = Run::new(settings, inputs, memories, now);
    run.go_on(now);
    let mut failure = None;
    loop {
        if !run.stop && sides.world.stopping() {
            run.stop();
        }
        let Some((table, step)) = run.step() else { break };
        let began = sides.world.now();
        let outcome = sides.carry_out(table, step);
        now = sides.world.now();
        let took = u64::try_from(now.saturating_sub(began)).unwrap_or(0);
        let told = run.tell(outcome, took, now);
        for (table, machine) in run.tables.iter_mut().enumerate() {
            for event in machine.ledger.events.drain(..) {
                sides.world.event(table, event);
            }
        }
        if let Err(fatal) = told {
            failure = Some(fatal);
            break;
        }
    }
    run.report(failure, memories)
}
