//! Snapshots: the target becomes what one snapshot of the source is, within one transaction. Whoever reads it sees the old
//! rows or the new ones, never a part of either.
//!
//! ```text
//! token and root as at the last proof          -> level, nothing is read
//! manifests that both sides keep are equal     -> level, nothing is read
//! hold the source
//! compare, outside of a transaction            -> level, nothing is sent         (look)
//! hold the target
//!     a run over what differs, with no limit of time
//!     the target's whole sum is the source's   -> commit                         (prove)
//!     anything else                            -> roll back
//! ```
//!
//! All tables that differ are written in one transaction. A table that fails in it, or that the guard holds, is left out,
//! and the others are written in another one. What fails in passing ends the whole: it is not tried again before the next
//! run, which begins at the beginning.

mod look;
mod prove;

use std::collections::HashMap;

use super::drive::Run;
use super::step::{Answer, Sides};
use super::sweep::Swept;
use super::table::Table;
use super::{Event, RunReport, Settings, Status, TableInput, TableMemory, TableReport, World};
use crate::store::{Failure, FailureKind, Source, TableId, Target};
use look::Looked;

/// Time enough for any snapshot, in microseconds.
const NO_LIMIT: u64 = 1 << 50;
/// How often tables are gone through in one transaction, at most.
const MOST_ROUNDS: u32 = 1_000;
/// Stands for the change token of a source that has none, while it is held.
const NO_TOKEN: &[u8] = b"held";

/// Why an attempt was rolled back.
enum Undone {
    /// These tables cannot go on; the others may.
    Tables(Vec<(TableId, Verdict)>),
    /// Nothing can.
    All(Failure),
    /// The run was asked to stop.
    Stopped,
}

/// What is said of a table that was left as it was.
enum Verdict {
    Failed(Failure),
    /// The guard against destruction would not let so many rows be touched.
    Held(u64),
}

/// What was done to a table in the transaction.
struct Written {
    table: Table,
    /// Counts of earlier rounds.
    before: TableReport,
    /// Rows that the guard held beyond those that it was asked about.
    held: u64,
}

struct Snapshot<'a> {
    source: &'a mut dyn Source,
    target: &'a mut dyn Target,
    world: &'a mut dyn World,
    settings: Settings,
    inputs: Vec<TableInput>,
    memories: &'a mut [TableMemory],
    reports: Vec<TableReport>,
    /// The source's change token from before the snapshot was taken.
    token: Option<Vec<u8>>,
    /// When that was.
    began: i64,
}

/// Overwrites tables as a whole; see the head of this file. `memories` as for [`run`](super::run).
pub fn snapshot(
    source: &mut dyn Source,
    target: &mut dyn Target,
    world: &mut dyn World,
    settings: &Settings,
    tables: &[TableInput],
    memories: &mut [TableMemory],
) -> RunReport {
    let settings = Settings { run_budget: NO_LIMIT, max_tries: 1, ..settings.clone() };
    let began = world.now();
    let report = |(input, memory): (&TableInput, &TableMemory)| TableReport {
        proved_at: memory.proved_at,
        rejected: input.rejected,
        ..TableReport::default()
    };
    let reports = tables.iter().zip(memories.iter()).map(report).collect();
    let inputs = tables.iter().map(normal).collect();
    let mut snapshot =
        Snapshot { source, target, world, settings, inputs, memories, reports, token: None, began };
    let outcome = snapshot.run();
    snapshot.target.roll_back();
    snapshot.source.let_go();
    let (failure, stopped) = match outcome {
        Ok(()) => (None, false),
        Err(Undone::All(failure)) => (Some(failure), false),
        Err(Undone::Stopped) => (None, true),
        Err(Undone::Tables(_)) => (None, false),
    };
    RunReport { tables: snapshot.reports, failure, stopped }
}

/// The highest position says nothing where rows stand at a hash.
fn normal(input: &TableInput) -> TableInput {
    let mut input = input.clone();
    input.version.max_position = input.version.max_position.filter(|_| !input.shape.hashed);
    input
}

impl Snapshot<'_> {
    fn run(&mut self) -> Result<(), Undone> {
        self.token = match self.source.change_token() {
            Err(failure) if failure.kind == FailureKind::Run => return Err(Undone::All(failure)),
            token => token.unwrap_or(None),
        };
        let mut open: Vec<TableId> =
            (0..self.inputs.len()).filter(|table| !self.is_as_proved(*table)).collect();
        open.sort_by_key(|table| self.inputs[*table].rank);
        let mut differing = Vec::new();
        for (nth, &table) in open.iter().enumerate() {
            match self.is_kept_level(table) {
                Ok(true) => {}
                Ok(false) => differing.push(table),
                Err(failure) if failure.kind == FailureKind::Table => {
                    self.leave(table, Verdict::Failed(failure));
                }
                Err(failure) => {
                    differing.extend(&open[nth..]);
                    return self.fail_all(&differing, failure);
                }
            }
        }
        let open = std::mem::take(&mut differing);
        if open.is_empty() {
            return Ok(());
        }
        if let Err(failure) = self.source.hold() {
            return self.fail_all(&open, failure);
        }
        let mut found = HashMap::new();
        for (nth, &table) in open.iter().enumerate() {
            if self.world.stopping() {
                return Err(Undone::Stopped);
            }
            match self.look(table) {
                Ok(Looked::Level) => {}
                Ok(Looked::Differs(_)) if self.inputs[table].on_hold => {
                    let fewer = self.fewer_rows(table);
                    self.leave(table, Verdict::Held(fewer));
                }
                Ok(Looked::Differs(swept)) => {
                    found.extend(swept.map(|swept| (table, swept)));
                    differing.push(table);
                }
                Err(failure) if failure.kind == FailureKind::Table => {
                    self.leave(table, Verdict::Failed(failure));
                }
                Err(failure) => {
                    differing.extend(&open[nth..]);
                    return self.fail_all(&differing, failure);
                }
            }
        }
        self.write(differing, &found)
    }

    /// Whether nothing changed on either side since the table was proved, as far as both can tell.
    fn is_as_proved(&mut self, table: TableId) -> bool {
        let (input, memory) = (&self.inputs[table], &self.memories[table]);
        let Some(proof) = memory.proof.as_ref().filter(|_| memory.plan == input.plan) else { return false };
        let tells = self.token.is_some() && input.version.sum.is_some();
        let same = proof.token == self.token && proof.same_target(&input.version);
        let age = memory.proved_at.map_or(i64::MAX, |then| self.began.saturating_sub(then));
        let fresh = u64::try_from(age).unwrap_or(0) < self.settings.sweep_interval;
        if !tells || !same || !fresh || input.rejected > 0 {
            return false;
        }
        let report = &mut self.reports[table];
        report.status = Status::Level;
        report.concluded = true;
        (report.local_rows, report.remote_rows) = (proof.local_rows, input.version.row_count);
        self.world.event(table, Event::Finished { status: Status::Level });
        true
    }

    /// By how many rows the source has fewer than the target: so many would go at least.
    fn fewer_rows(&mut self, table: TableId) -> u64 {
        let rows = self.source.row_count(table).unwrap_or(u64::MAX);
        self.inputs[table].version.row_count.map_or(0, |remote| remote.saturating_sub(rows))
    }

    /// Says of tables why nothing became of them, and ends the run where the failure is of the whole.
    fn fail_all(&mut self, tables: &[TableId], failure: Failure) -> Result<(), Undone> {
        for table in tables {
            self.reports[*table].failure = Some(failure.clone());
        }
        if failure.kind == FailureKind::Run { Err(Undone::All(failure)) } else { Ok(()) }
    }

    /// Says of a table that it was left as it was, and why.
    fn leave(&mut self, table: TableId, verdict: Verdict) {
        let report = &mut self.reports[table];
        match verdict {
            Verdict::Failed(failure) => report.failure = Some(failure),
            Verdict::Held(rows) => {
                report.status = Status::Different;
                report.concluded = true;
                report.held = rows.max(1);
                self.world.event(table, Event::Finished { status: Status::Different });
            }
        }
    }

    /// Writes the tables in one transaction; in another one without those that cannot go on.
    fn write(&mut self, mut tables: Vec<TableId>, found: &HashMap<TableId, Swept>) -> Result<(), Undone> {
        while !tables.is_empty() {
            let outcome = self.attempt(&tables, found);
            if outcome.is_err() {
                self.target.roll_back();
            }
            match outcome {
                Ok(written) => {
                    self.conclude(written);
                    return Ok(());
                }
                Err(Undone::Tables(verdicts)) => {
                    for (table, verdict) in verdicts {
                        tables.retain(|other| *other != table);
                        self.leave(table, verdict);
                    }
                }
                Err(Undone::All(failure)) => return self.fail_all(&tables, failure),
                Err(stopped) => return Err(stopped),
            }
        }
        Ok(())
    }

    fn attempt(
        &mut self,
        tables: &[TableId],
        found: &HashMap<TableId, Swept>,
    ) -> Result<Vec<(TableId, Written)>, Undone> {
        self.target.hold().map_err(Undone::All)?;
        let mut written: HashMap<TableId, Written> = HashMap::new();
        let mut open = tables.to_vec();
        for round in 0..MOST_ROUNDS {
            let found = if round == 0 { Some(found) } else { None };
            for (table, mut done) in self.round(&open, found)? {
                if let Some(earlier) = written.remove(&table) {
                    done.before = counted(earlier.before, &earlier.table.ledger.report);
                    done.held += earlier.held;
                }
                written.insert(table, done);
            }
            // Where there were more rows to delete than are kept in mind at once, there is more to do.
            open.retain(|table| {
                let goes_on = |written: &Written| {
                    let report = &written.table.ledger.report;
                    written.table.dropped && report.held == 0 && report.deleted > 0
                };
                written.get(table).is_some_and(goes_on)
            });
            if open.is_empty() {
                break;
            }
        }
        let mut verdicts = Vec::new();
        for (table, written) in &written {
            let report = &written.table.ledger.report;
            if report.held + written.held > 0 {
                verdicts.push((*table, Verdict::Held(report.held + written.held)));
            }
        }
        if !verdicts.is_empty() {
            return Err(Undone::Tables(verdicts));
        }
        let mut done = Vec::new();
        for table in tables {
            let Some(mut written) = written.remove(table) else { continue };
            match self.prove(*table, &mut written.table) {
                Ok(()) => done.push((*table, written)),
                Err(failure) if failure.kind == FailureKind::Table => {
                    return Err(Undone::Tables(vec![(*table, Verdict::Failed(failure))]));
                }
                Err(failure) => return Err(Undone::All(failure)),
            }
        }
        if self.world.stopping() {
            return Err(Undone::Stopped);
        }
        self.target.commit().map_err(Undone::All)?;
        Ok(done)
    }

    /// Goes through tables once, all of them in each part of a run.
    fn round(
        &mut self,
        open: &[TableId],
        found: Option<&HashMap<TableId, Swept>>,
    ) -> Result<Vec<(TableId, Written)>, Undone> {
        let mut now = self.world.now();
        // What was remembered is of no use: all is compared. What is known of rows that are not stored is.
        let kept = |memory: &TableMemory| TableMemory {
            plan: memory.plan,
            stale: memory.stale.clone(),
            ..TableMemory::default()
        };
        let memories: Vec<TableMemory> = self.memories.iter().map(kept).collect();
        let mut run = Run::new(&self.settings, &self.inputs, &memories, now);
        for (id, table) in run.tables.iter_mut().enumerate() {
            table.left_out = !open.contains(&id);
            table.looked = found.and_then(|found| found.get(&id)).cloned();
        }
        let held = Some(self.token.clone().unwrap_or_else(|| NO_TOKEN.to_vec()));
        let mut sides =
            Sides { source: &mut *self.source, target: &mut *self.target, world: &mut *self.world, held };
        let mut planned = vec![0; run.tables.len()];
        run.go_on(now);
        while let Some((table, step)) = run.step() {
            if sides.world.stopping() {
                return Err(Undone::Stopped);
            }
            let asked = step.deletes().unwrap_or(0);
            let began = sides.world.now();
            let outcome = sides.carry_out(table, step);
            if let Ok(Answer::Deleted(deleted)) = &outcome
                && deleted.held > 0
            {
                planned[table] += asked.saturating_sub(deleted.held);
            }
            now = sides.world.now();
            let took = u64::try_from(now.saturating_sub(began)).unwrap_or(0);
            let passed = outcome.as_ref().is_err_and(|failure| failure.kind == FailureKind::Passing);
            run.tell(outcome, took, now).map_err(Undone::All)?;
            for event in run.tables[table].ledger.events.drain(..) {
                sides.world.event(table, event);
            }
            if let Some(failure) = run.tables[table].failed.take() {
                // The transaction may be lost, and the snapshot with it.
                return Err(match passed {
                    true => Undone::All(failure),
                    false => Undone::Tables(vec![(table, Verdict::Failed(failure))]),
                });
            }
        }
        let done = run.tables.into_iter().zip(planned).enumerate().filter(|(_, (table, _))| !table.left_out);
        let written = |(id, (table, held))| (id, Written { table, before: TableReport::default(), held });
        Ok(done.map(written).collect())
    }

    /// Takes note of what is committed.
    fn conclude(&mut self, written: Vec<(TableId, Written)>) {
        for (id, Written { table, before, .. }) in written {
            let (rejected, waiting) = table.ledger.counts();
            let status = match rejected + waiting {
                0 => Status::Level,
                rows => Status::LevelExcept(rows),
            };
            let mut memory = table.saved;
            // What was true of the source while it was held is true of it while it has the token from before.
            memory.seen.iter_mut().for_each(|seen| seen.token.clone_from(&self.token));
            memory.proof = memory.seen.clone().filter(|_| status == Status::Level && self.token.is_some());
            memory.proved_at = Some(self.began);
            memory.last_sweep = None;
            let report = counted(before, &table.ledger.report);
            self.remember(id, TableReport { status, proved_at: Some(self.began), ..report }, memory);
        }
    }

    fn remember(&mut self, id: TableId, report: TableReport, memory: TableMemory) {
        self.reports[id] = TableReport { concluded: true, ..report };
        if memory != self.memories[id] {
            match self.world.remember(id, &memory) {
                Ok(()) => self.memories[id] = memory,
                Err(failure) => self.reports[id].failure = Some(failure),
            }
        }
    }
}

/// A report with the counts of an earlier one added.
fn counted(earlier: TableReport, later: &TableReport) -> TableReport {
    TableReport {
        inserted: earlier.inserted + later.inserted,
        updated: earlier.updated + later.updated,
        unchanged: earlier.unchanged + later.unchanged,
        deleted: earlier.deleted + later.deleted,
        windows: earlier.windows + later.windows,
        compared_rows: earlier.compared_rows + later.compared_rows,
        found_missing: earlier.found_missing + later.found_missing,
        found_excess: earlier.found_excess + later.found_excess,
        ..later.clone()
    }
}
