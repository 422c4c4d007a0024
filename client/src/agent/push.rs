//! Push: the local database is right, the replica is made level with it.

use plimsoll_core::store::{Outcome, Source, Target};
use plimsoll_core::sync::{self, RunReport, Settings, TableInput, TableMemory, TableReport, World};

use super::patience::Patience;
use super::prepare::{PreparedTable, fingerprint_key};
use super::world::RunWorld;
use super::{GroupResult, Moved, Running};
use crate::progress::Way;
use crate::server::RunTarget;
use crate::source::ahead::ReadAhead;
use crate::source::plan::TablePlan;

/// Makes the replicas level.
///
/// # Errors
/// Where none of the tables could begin.
pub fn run(
    running: &mut Running<'_>,
    tables: &[PreparedTable],
    plans: Vec<TablePlan>,
) -> Outcome<GroupResult> {
    run_by(sync::run, running, tables, plans)
}

/// A way to make tables level: the core's run, or its snapshot.
pub type Algorithm = fn(
    &mut dyn Source,
    &mut dyn Target,
    &mut dyn World,
    &Settings,
    &[TableInput],
    &mut [TableMemory],
) -> RunReport;

/// Makes the replicas level in this way.
///
/// # Errors
/// Where none of the tables could begin.
pub fn run_by(
    algorithm: Algorithm,
    running: &mut Running<'_>,
    tables: &[PreparedTable],
    plans: Vec<TablePlan>,
) -> Outcome<GroupResult> {
    let key = fingerprint_key(running.server)?;
    let mut patience = Patience::new(&running.settings, running.stop);
    let source = patience.with(|| running.source()?.into_source(plans.clone(), key.clone()))?;
    let mut source = ReadAhead::new(source)?;
    let Running { server, state, options, stop, progress, run_id, settings, .. } = running;
    let relations: Vec<String> = tables.iter().map(|table| table.input.name.clone()).collect();
    let inputs: Vec<TableInput> = tables.iter().map(|table| table.input.clone()).collect();
    let mut memories: Vec<_> = relations.iter().map(|relation| state.table(relation)).collect();
    let replicas = tables.iter().map(|table| table.replica.clone()).collect();
    let mut target = RunTarget::new(server, *run_id, replicas);
    progress.begin(tables.iter().map(|table| table.config.name.clone()).collect(), Way::Sent);
    let mut world = RunWorld { state, relations: &relations, stop, progress, dry_run: options.dry_run };
    let report = algorithm(&mut source, &mut target, &mut world, settings, &inputs, &mut memories);
    progress.end();
    if let Err(failure) = target.flush() {
        tracing::warn!("the history of this run's batches could not be saved: {failure}");
    }
    let results = tables.iter().zip(report.tables);
    Ok(GroupResult {
        tables: results
            .map(|(table, report)| {
                let moved = moved(&report, options.dry_run);
                table.result(report, moved)
            })
            .collect(),
        failure: report.failure,
        stopped: report.stopped,
    })
}

/// What went to the server.
fn moved(report: &TableReport, dry_run: bool) -> Moved {
    let (sent, deleted_there) = match dry_run {
        true => (report.would_send, report.would_delete),
        false => (report.inserted + report.updated, report.deleted),
    };
    Moved { sent, deleted_there, held_there: report.held, ..Moved::default() }
}
