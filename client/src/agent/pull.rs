//! Pull: the server is right, the local database is made level with the replica. The same algorithm as push, with the
//! sides exchanged.

use plimsoll_core::store::Outcome;
use plimsoll_core::sync::{self, RunReport, Settings, TableReport};

use super::patience::Patience;
use super::prepare::PreparedTable;
use super::push::Algorithm;
use super::sides::{Pulled, Purpose, Sides, Unopened};
use super::world::{RunWorld, now};
use super::{GroupResult, Moved, Running};
use crate::progress::Way;
use crate::source::plan::TablePlan;

/// Rows of one delete at most: where no index leads to positions, all rows are read to find the keys of those that one
/// delete names.
const DELETE_ROWS: usize = 10_000;

/// Makes the tables level.
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

/// Makes the tables level in this way.
///
/// # Errors
/// Where none of the tables could begin.
pub fn run_by(
    algorithm: Algorithm,
    running: &mut Running<'_>,
    tables: &[PreparedTable],
    plans: Vec<TablePlan>,
) -> Outcome<GroupResult> {
    let Running { config, server, state, options, stop, progress, run_id, lease, settings, .. } = running;
    let dry_run = options.dry_run;
    let purpose = if dry_run { Purpose::Look } else { Purpose::Write(*run_id, lease.clone()) };
    let mut patience = Patience::new(settings, stop);
    let mut tables: Vec<&PreparedTable> = tables.iter().collect();
    let pulled = |(table, plan): (&&PreparedTable, TablePlan)| Pulled {
        replica: table.replica.clone(),
        plan,
        root: state.root(&table.input.name),
    };
    let mut pulled: Vec<Pulled> = tables.iter().zip(plans).map(pulled).collect();
    let mut failed = Vec::new();
    // Those that cannot begin are left out, and the others opened again.
    let (mut sides, on_hold, mut memories) = loop {
        let memories: Vec<_> = tables.iter().map(|table| state.table(&table.input.name)).collect();
        let opened = Sides::open(config, server, &mut pulled, purpose.clone(), &mut patience);
        let opened = opened.and_then(|mut sides| {
            match sides.prepare(dry_run, options.allow_mass_delete, &memories, &mut patience) {
                Ok(on_hold) => Ok((sides, on_hold)),
                Err(unopened) => {
                    let roots = sides.target.into_roots();
                    pulled.iter_mut().zip(roots).for_each(|(table, root)| table.root = root);
                    Err(unopened)
                }
            }
        });
        match opened {
            Ok((sides, on_hold)) => break (sides, on_hold, memories),
            Err(Unopened::All(failure)) => return Err(failure),
            Err(Unopened::Tables(those)) => {
                for (table, failure) in those.into_iter().rev() {
                    pulled.remove(table);
                    failed.push(tables.remove(table).failed(failure));
                }
            }
        }
        if tables.is_empty() {
            return Ok(GroupResult { tables: failed, ..GroupResult::default() });
        }
    };
    let relations: Vec<String> = tables.iter().map(|table| table.input.name.clone()).collect();
    sides.target.follow(relations.iter().map(|relation| state.level_mark(relation)));
    let inputs = sides.inputs(&tables, &on_hold);
    progress.begin(tables.iter().map(|table| table.config.name.clone()).collect(), Way::Received);
    let settings =
        Settings { delete_rows: DELETE_ROWS, others_write: true, keys_repeat: true, ..settings.clone() };
    let mut world = RunWorld { state, relations: &relations, stop, progress, dry_run };
    let report =
        algorithm(&mut sides.source, &mut sides.target, &mut world, &settings, &inputs, &mut memories);
    progress.end();
    if let Err(failure) = sides.target.flush() {
        tracing::warn!("the history of this run's batches could not be saved: {failure}");
    }
    if !dry_run {
        sides.hold_again(&tables, &report);
        state.remember_roots(relations.iter().zip(sides.target.into_roots()))?;
        let ended = tables.iter().zip(&report.tables).zip(&relations);
        let is_level = |((table, report), _): &((&&PreparedTable, &TableReport), &String)| {
            table.input.shape.keyless && report.status.is_level()
        };
        state.remember_level(now(), ended.filter(is_level).map(|(_, relation)| relation))?;
    }
    let mut done = results(&tables, report, dry_run);
    done.tables.extend(failed);
    Ok(done)
}

fn results(tables: &[&PreparedTable], report: RunReport, dry_run: bool) -> GroupResult {
    let result = |(table, report): (&&PreparedTable, TableReport)| {
        let moved = moved(&report, dry_run);
        // What the report calls remote is the target.
        let (local_rows, remote_rows) = (report.remote_rows, report.local_rows);
        table.result(TableReport { local_rows, remote_rows, ..report }, moved)
    };
    GroupResult {
        tables: tables.iter().zip(report.tables).map(result).collect(),
        failure: report.failure,
        stopped: report.stopped,
    }
}

/// What came from the server.
fn moved(report: &TableReport, dry_run: bool) -> Moved {
    let (received, deleted_here) = match dry_run {
        true => (report.would_send, report.would_delete),
        false => (report.inserted + report.updated, report.deleted),
    };
    Moved { received, deleted_here, held_here: report.held, ..Moved::default() }
}
