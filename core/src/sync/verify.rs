//! Full comparisons that change nothing: `verify`, and the dry run.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use super::compare::{Compare, Piece};
use super::ledger::Ledger;
use super::report::{Difference, DifferenceKind, VerifyReport};
use super::step::{Answer, Sides, Step};
use super::{Event, RunReport, Settings, Status, TableInput, TableReport};
use crate::manifest::Item;
use crate::short::ShortItem;
use crate::store::{BadRow, Failure, FailureKind, Outcome, PositionRange, SourceKey, SourceRecord, TableId};

/// Rows whose keys are asked for at once.
const KEYS_AT_ONCE: usize = 1_000;
/// How long `verify` waits before it reads a difference a second time, in microseconds.
const SECOND_LOOK: u64 = 100_000;

/// A comparison of one whole table.
struct Survey<'a, 'b> {
    sides: &'a mut Sides<'b>,
    table: TableId,
    ledger: Ledger,
    /// Rows of the next window.
    rows: u64,
}

/// Rows that differ, with their keys.
#[derive(Default)]
struct Keyed {
    missing: HashMap<Vec<u8>, i64>,
    excess: HashMap<Vec<u8>, i64>,
}

impl<'a, 'b> Survey<'a, 'b> {
    fn new(sides: &'a mut Sides<'b>, settings: &Settings, table: TableId) -> Self {
        Survey { sides, table, ledger: Ledger::new(settings.clone()), rows: settings.window_rows }
    }
}

impl Survey<'_, '_> {
    /// Carries a step out, again where it failed in passing.
    fn ask(&mut self, step: Step<'_>) -> Outcome<Answer> {
        let settings = &self.ledger.settings;
        let mut pause = settings.retry_pause;
        for _ in 1..settings.max_tries.max(1) {
            match self.sides.carry_out(self.table, step) {
                Err(failure) if failure.kind == FailureKind::Passing && !self.sides.world.stopping() => {
                    self.sides.world.event(self.table, Event::Retrying { failure, pause });
                    self.sides.world.pause(pause);
                    pause = pause.saturating_mul(2);
                }
                outcome => return outcome,
            }
        }
        self.sides.carry_out(self.table, step)
    }

    /// Compares about a window from the beginning of a range.
    fn piece(&mut self, range: PositionRange) -> Outcome<Piece> {
        let began = self.sides.world.now();
        let mut compare = Compare::new(range, self.rows, self.ledger.settings.max_excess_rows);
        while let Some(step) = compare.step() {
            let answer = self.ask(step)?;
            if !compare.tell(answer, &self.ledger) {
                return Err(unexpected());
            }
        }
        let took = u64::try_from(self.sides.world.now().saturating_sub(began)).unwrap_or(0);
        self.size_next(took);
        Ok(compare.finish())
    }

    /// Windows grow while they are far from the longest snapshot, and shrink beyond it.
    fn size_next(&mut self, took: u64) {
        let settings = &self.ledger.settings;
        if took < settings.max_snapshot / 4 {
            self.rows = self.rows.saturating_mul(2).min(settings.max_window_rows.max(1));
        } else if took > settings.max_snapshot {
            self.rows = (self.rows / 2).max(1);
        }
    }

    /// The keys of the rows that a comparison found; rows that changed meanwhile are left out.
    fn keys(&mut self, missing: &[Item], excess: &[ShortItem]) -> Outcome<Keyed> {
        let mut keyed = Keyed::default();
        for items in missing.chunks(KEYS_AT_ONCE) {
            let Answer::Rows(rows) = self.ask(Step::RowsOf(items))? else { return Err(unexpected()) };
            keyed.missing.extend(rows.into_iter().map(|row| (row.key, row.item.position)));
        }
        for items in excess.chunks(KEYS_AT_ONCE) {
            let Answer::Keys(rows) = self.ask(Step::KeysOf(items))? else { return Err(unexpected()) };
            keyed.excess.extend(rows.into_iter().map(|row| (row.key, row.item.position)));
        }
        Ok(keyed)
    }

    fn lookup(&mut self, keys: &[SourceKey]) -> Outcome<Vec<Option<SourceRecord>>> {
        match self.ask(Step::Lookup(keys))? {
            Answer::Found(found) if found.len() == keys.len() => Ok(found),
            _ => Err(unexpected()),
        }
    }

    fn stopping(&mut self) -> Outcome<()> {
        if self.sides.world.stopping() {
            return Err(Failure::new(FailureKind::Run, "stopped before everything was compared"));
        }
        Ok(())
    }
}

fn unexpected() -> Failure {
    Failure::new(FailureKind::Table, "a step was answered with something else")
}

/// What both readings of a stretch have in common.
fn both<T: Eq + Hash>(first: Vec<T>, second: &[T]) -> Vec<T> {
    let second: HashSet<&T> = second.iter().collect();
    first.into_iter().filter(|item| second.contains(item)).collect()
}

/// Compares all rows of a table.
pub(super) fn verify(
    sides: &mut Sides<'_>,
    settings: &Settings,
    table: TableId,
    on_difference: &mut dyn FnMut(Difference),
) -> Outcome<VerifyReport> {
    let mut survey = Survey::new(sides, settings, table);
    let Answer::Rejected(rejected) = survey.ask(Step::Rejected)? else { return Err(unexpected()) };
    let rejected: HashSet<_> = rejected.into_iter().map(|row| row.key_id).collect();
    let mut report = VerifyReport::default();
    let mut tell = |report: &mut VerifyReport, difference: Difference| {
        match difference.kind {
            DifferenceKind::Missing => report.missing += 1,
            DifferenceKind::Excess => report.excess += 1,
            DifferenceKind::Altered => report.altered += 1,
            DifferenceKind::Rejected => report.rejected += 1,
        }
        on_difference(difference);
    };
    let mut range = PositionRange::ALL;
    loop {
        survey.stopping()?;
        let first = survey.piece(range)?;
        report.rows += first.rows;
        let (missing, excess) = (first.missing.len() as u64, first.excess.len() as u64);
        survey.sides.world.event(table, Event::Compared { rows: first.rows, missing, excess });
        let rest = first.range.to;
        let (mut missing, mut excess, mut bad) = (first.missing, first.excess, first.bad);
        if !missing.is_empty() || !excess.is_empty() || !bad.is_empty() {
            // Rows may have moved between the two readings.
            survey.sides.world.pause(SECOND_LOOK);
            let (again_missing, again_excess, again_bad) = survey.whole(first.range)?;
            (missing, excess) = (both(missing, &again_missing), both(excess, &again_excess));
            bad.retain(|row| again_bad.contains(row));
        }
        let mut keyed = survey.keys(&missing, &excess)?;
        for row in bad {
            if let SourceKey::Encoded(key) = &row.key {
                keyed.excess.remove(key);
            }
            tell(&mut report, of_bad(row));
        }
        let mut missing: Vec<_> = keyed.missing.into_iter().collect();
        missing.sort_unstable_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        for (key, position) in missing {
            let altered = keyed.excess.remove(&key).is_some();
            let kind = if rejected.contains(&SourceKey::Encoded(key.clone()).id()) {
                DifferenceKind::Rejected
            } else if altered {
                DifferenceKind::Altered
            } else {
                DifferenceKind::Missing
            };
            tell(&mut report, Difference { kind, position: Some(position), key, key_text: None });
        }
        let mut excess: Vec<_> = keyed.excess.into_iter().collect();
        excess.sort_unstable_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        let keys: Vec<_> = excess.iter().map(|(key, _)| SourceKey::Encoded(key.clone())).collect();
        for (rows, keys) in excess.chunks(KEYS_AT_ONCE).zip(keys.chunks(KEYS_AT_ONCE)) {
            let found = survey.lookup(keys)?;
            for ((key, position), found) in rows.iter().zip(found) {
                // A key that the source has elsewhere is told of there, once.
                if found.is_none() {
                    let (key, position) = (key.clone(), Some(*position));
                    tell(
                        &mut report,
                        Difference { kind: DifferenceKind::Excess, position, key, key_text: None },
                    );
                }
            }
        }
        match rest {
            Some(from) => range = PositionRange::starting_at(from),
            None => break,
        }
    }
    report.level = report.missing + report.excess + report.altered + report.rejected == 0;
    Ok(report)
}

fn of_bad(row: BadRow) -> Difference {
    let key = match row.key {
        SourceKey::Encoded(key) => key,
        SourceKey::Raw(_) => Vec::new(),
    };
    Difference { kind: DifferenceKind::Rejected, position: row.position, key, key_text: Some(row.key_text) }
}

type Found = (Vec<Item>, Vec<ShortItem>, Vec<BadRow>);

impl Survey<'_, '_> {
    /// Compares a whole range, however many rows came to lie in it.
    fn whole(&mut self, mut range: PositionRange) -> Outcome<Found> {
        let mut found = Found::default();
        loop {
            let piece = self.piece(range)?;
            found.0.extend(piece.missing);
            found.1.extend(piece.excess);
            found.2.extend(piece.bad);
            if piece.range.to.is_none() || piece.range.to == range.to {
                return Ok(found);
            }
            range.from = piece.range.to;
        }
    }

    /// Counts what a run would do.
    fn dry_run(&mut self, report: &mut TableReport) -> Outcome<()> {
        let Answer::Rejected(rejected) = self.ask(Step::Rejected)? else { return Err(unexpected()) };
        rejected.into_iter().for_each(|row| self.ledger.note_rejected(row));
        (report.rejected, report.waiting) = self.ledger.counts();
        let mut range = PositionRange::ALL;
        loop {
            self.stopping()?;
            let piece = self.piece(range)?;
            let (missing, excess) = (piece.missing.len() as u64, piece.excess.len() as u64);
            report.windows += 1;
            report.compared_rows += piece.rows;
            report.found_missing += missing;
            report.found_excess += excess;
            report.would_send += missing;
            self.sides.world.event(self.table, Event::Compared { rows: piece.rows, missing, excess });
            let keyed = self.keys(&[], &piece.excess)?;
            let keys: Vec<_> = keyed.excess.into_keys().map(SourceKey::Encoded).collect();
            for keys in keys.chunks(KEYS_AT_ONCE) {
                report.would_delete +=
                    self.lookup(keys)?.iter().filter(|found| found.is_none()).count() as u64;
            }
            match piece.range.to {
                Some(from) => range = PositionRange::starting_at(from),
                None => break,
            }
        }
        let excepted = report.rejected + report.waiting;
        report.concluded = true;
        report.status = match (report.would_send + report.would_delete, excepted) {
            (0, 0) => Status::CountsAgree,
            (0, _) => Status::LevelExcept(excepted),
            _ => Status::Different,
        };
        Ok(())
    }
}

/// Counts what a run would send and delete, for every table.
pub(super) fn dry_run(sides: &mut Sides<'_>, settings: &Settings, inputs: &[TableInput]) -> RunReport {
    let mut report = RunReport::default();
    for (table, input) in inputs.iter().enumerate() {
        let mut of_table = TableReport { remote_rows: input.version.row_count, ..TableReport::default() };
        let mut survey = Survey::new(sides, settings, table);
        if report.failure.is_none() && !report.stopped {
            survey.sides.world.event(table, Event::Started { expected_rows: None });
            let outcome = survey.dry_run(&mut of_table);
            report.stopped = survey.sides.world.stopping();
            match outcome {
                Err(_) if report.stopped => {}
                Err(failure) if failure.kind == FailureKind::Run => report.failure = Some(failure),
                Err(failure) => of_table.failure = Some(failure),
                Ok(()) => {}
            }
            survey.sides.world.event(table, Event::Finished { status: of_table.status });
        }
        report.tables.push(of_table);
    }
    report
}
