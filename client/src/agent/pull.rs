//! Pull: the server is right, the local database is made level with the replica. The same algorithm as push, with the
//! sides exchanged.

use plimsoll_core::store::{Outcome, TableVersion};
use plimsoll_core::sync::{self, RunReport, Settings, TableInput, TableMemory, TableReport};

use super::prepare::{PreparedTable, fingerprint_key};
use super::push::Algorithm;
use super::world::RunWorld;
use super::{GroupResult, Moved, Running};
use crate::config::{Config, Direction};
use crate::server::{Lease, Replica, RunTarget, Server, ServerSource, SourceTable};
use crate::source;
use crate::source::ahead::ReadAhead;
use crate::source::plan::TablePlan;
use crate::target::{LocalTarget, Root, check_fall};

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
    let relations: Vec<String> = tables.iter().map(|table| table.input.name.clone()).collect();
    let roots = relations.iter().map(|relation| state.root(relation)).collect();
    let replicas = tables.iter().map(|table| table.replica.clone()).collect();
    let mut sides = Sides::open(config, server, (*run_id, lease.clone()), replicas, plans, roots)?;
    sides.target.follow(*run_id, relations.iter().map(|relation| state.level_run(relation)));
    let mut memories: Vec<_> = relations.iter().map(|relation| state.table(relation)).collect();
    let on_hold = sides.prepare(dry_run, options.allow_mass_delete, &memories)?;
    let inputs = sides.inputs(tables, &on_hold);
    progress.begin(tables.iter().map(|table| table.config.name.clone()).collect());
    let settings = Settings { delete_rows: DELETE_ROWS, others_write: true, ..settings.clone() };
    let mut world = RunWorld { state, relations: &relations, stop, progress, dry_run };
    let report =
        algorithm(&mut sides.source, &mut sides.target, &mut world, &settings, &inputs, &mut memories);
    progress.end();
    if let Err(failure) = sides.target.flush() {
        tracing::warn!("the history of this run's batches could not be saved: {failure}");
    }
    if !dry_run {
        sides.hold_again(tables, &report);
        state.remember_roots(relations.iter().zip(sides.target.into_roots()))?;
        let ended = tables.iter().zip(&report.tables).zip(&relations);
        let is_level = |((table, report), _): &((&PreparedTable, &TableReport), &String)| {
            table.input.shape.keyless && report.status.is_level()
        };
        state.remember_level(*run_id, ended.filter(is_level).map(|(_, relation)| relation))?;
    }
    Ok(results(tables, report, dry_run))
}

/// The two sides of tables that are pulled.
pub struct Sides<'s> {
    /// The server.
    pub source: ReadAhead,
    /// The local database.
    pub target: LocalTarget<'s>,
    /// What the local tables said of themselves.
    versions: Vec<TableVersion>,
}

impl<'s> Sides<'s> {
    /// Opens both. `roots`: what each local table was known to hold.
    ///
    /// # Errors
    /// Where the local database cannot be opened.
    pub fn open(
        config: &Config,
        server: &'s mut Server,
        (run_id, lease): (i64, Lease),
        replicas: Vec<Replica>,
        plans: Vec<TablePlan>,
        roots: Vec<Option<Root>>,
    ) -> Outcome<Self> {
        let key = fingerprint_key(server)?;
        let other = server.again()?;
        let database = source::open_writable(&config.source_place()?)?;
        let store = database.into_store(plans.clone(), key.clone());
        let table = |(replica, plan): (&Replica, &TablePlan)| SourceTable {
            relation: replica.relation.clone(),
            schema: plan.schema.clone(),
            other_scans: false,
        };
        let sources = replicas.iter().zip(&plans).map(table).collect();
        let mut source = ServerSource::open(other, sources, key)?;
        let mut target =
            LocalTarget::new(store, &plans, roots, RunTarget::new(server, run_id, replicas), lease)?;
        source.compare_with((0..plans.len()).map(|table| target.is_scanned(table)));
        let mut versions = Vec::with_capacity(plans.len());
        for (table, is_kept) in source.kept_tables().iter().enumerate() {
            versions.push(target.begin(table, *is_kept)?);
        }
        let source = ReadAhead::new(Box::new(source))?;
        Ok(Sides { source, target, versions })
    }

    /// Makes ready what a run needs, and answers which tables are on hold here. A run that only looks makes no notes.
    fn prepare(
        &mut self,
        dry_run: bool,
        allow_mass_delete: bool,
        memories: &[TableMemory],
    ) -> Outcome<Vec<bool>> {
        let tables = self.versions.len();
        if dry_run {
            // Where there are no notes, nothing is on hold.
            let hold = |table| self.target.hold_of(table).is_ok_and(|hold| hold.is_some());
            return Ok((0..tables).map(hold).collect());
        }
        self.target.define_notes()?;
        if allow_mass_delete {
            for table in 0..tables {
                self.target.release(table)?;
            }
        }
        let before = |memory: &TableMemory| memory.seen.as_ref().and_then(|seen| seen.local_max);
        let before: Vec<Option<i64>> = memories.iter().map(before).collect();
        check_fall(&mut self.target, &mut self.source, &before)?;
        let mut on_hold = Vec::with_capacity(tables);
        for table in 0..tables {
            let hold = self.target.hold_of(table)?;
            if let Some(hold) = &hold {
                tracing::warn!(
                    "\"{}\" is on hold: {} ({} rows); rows are neither deleted nor set back here until you agree: \
                     plimsoll sync --allow-mass-delete",
                    self.target.name(table),
                    hold.reason,
                    hold.planned
                );
            }
            on_hold.push(hold.is_some());
        }
        Ok(on_hold)
    }

    /// What the algorithm is told of the tables: what the local side says of itself.
    fn inputs(&self, tables: &[PreparedTable], on_hold: &[bool]) -> Vec<TableInput> {
        let sides = tables.iter().zip(&self.versions).zip(on_hold);
        sides
            .map(|((table, version), on_hold)| TableInput {
                version: *version,
                on_hold: *on_hold,
                ..table.input.clone()
            })
            .collect()
    }

    /// Puts tables on hold whose snapshot met the guard here: the hold was undone with it.
    fn hold_again(&mut self, tables: &[PreparedTable], report: &RunReport) {
        let undone = |table: &PreparedTable| table.config.direction() == Direction::SnapshotPull;
        for (id, (table, report)) in tables.iter().zip(&report.tables).enumerate() {
            if report.held == 0 || !undone(table) {
                continue;
            }
            if let Err(failure) = self.target.hold_again(id, report.held) {
                tracing::warn!(
                    "\"{}\" is to be on hold, and could not be put so: {failure}",
                    table.config.name
                );
            }
        }
    }
}

fn results(tables: &[PreparedTable], report: RunReport, dry_run: bool) -> GroupResult {
    let result = |(table, report): (&PreparedTable, TableReport)| {
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
