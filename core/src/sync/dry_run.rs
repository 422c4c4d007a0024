//! The dry run: what a run would send and delete.

use super::step::{Answer, Sides, Step};
use super::survey::{KEYS_AT_ONCE, Survey, unexpected};
use super::{Event, RunReport, Settings, Status, TableInput, TableReport};
use crate::store::{FailureKind, Outcome, SourceKey};

impl Survey<'_, '_> {
    /// Counts what a run would do.
    fn dry_run(&mut self, report: &mut TableReport) -> Outcome<()> {
        let Answer::Rejected(rejected) = self.ask(Step::Rejected)? else { return Err(unexpected()) };
        rejected.into_iter().for_each(|row| self.ledger.note_rejected(row));
        (report.rejected, report.waiting) = self.ledger.counts();
        let (mut rest, rows) = self.begin()?;
        report.compared_rows += rows;
        loop {
            self.stopping()?;
            let Some(piece) = self.next(&mut rest)? else { break };
            let missing = piece.missing.len() as u64;
            report.windows += 1;
            report.compared_rows += piece.rows;
            report.found_missing += missing;
            report.found_excess += piece.excess.len() as u64;
            report.would_send += missing;
            if self.ledger.shape.keyless {
                report.would_delete += piece.excess.len() as u64;
                continue;
            }
            let keyed = self.keys(&[], &piece.excess)?;
            let keys: Vec<_> = keyed.excess.into_iter().map(|(key, _)| SourceKey::Encoded(key)).collect();
            for keys in keys.chunks(KEYS_AT_ONCE) {
                report.would_delete +=
                    self.lookup(keys)?.iter().filter(|found| found.is_none()).count() as u64;
            }
        }
        let excepted = report.rejected + report.waiting;
        report.concluded = true;
        report.status = match (report.would_send + report.would_delete, excepted) {
            (0, 0) => Status::Level,
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
        let mut survey = Survey::new(sides, settings, (table, input.shape));
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
