//! Both sides of tables that are pulled, opened. What one table says against that is that table's alone.

use plimsoll_core::store::{Failure, FailureKind, Outcome, TableId, TableVersion};
use plimsoll_core::sync::{RunReport, TableInput, TableMemory};

use super::patience::Patience;
use super::prepare::{PreparedTable, fingerprint_key};
use crate::config::{Config, Direction};
use crate::server::{Lease, Replica, RunTarget, Server, ServerSource, SourceTable};
use crate::source;
use crate::source::ahead::ReadAhead;
use crate::source::notes::is_missing;
use crate::source::plan::TablePlan;
use crate::target::{Fall, LocalTarget, Root, hold_fallen};

/// A table that is to be pulled.
pub struct Pulled {
    /// The managed one, as the run records what becomes of it.
    pub replica: Replica,
    /// How the local one becomes it.
    pub plan: TablePlan,
    /// What the local table was known to hold.
    pub root: Option<Root>,
}

/// For what both sides are opened.
#[derive(Debug, Clone)]
pub enum Purpose {
    /// To be read.
    Look,
    /// To write the local side, in the run of this number.
    Write(i64, Lease),
}

/// Why both sides could not be opened.
pub enum Unopened {
    /// Because of these tables alone, by their places; what was read of the others is in their roots.
    Tables(Vec<(TableId, Failure)>),
    /// None of the tables can be dealt with.
    All(Failure),
}

impl From<Failure> for Unopened {
    fn from(failure: Failure) -> Self {
        Unopened::All(failure)
    }
}

/// Asks about each table. Those that fail, also after some tries, are told of together.
fn each<T>(
    tables: usize,
    patience: &mut Patience<'_>,
    mut ask: impl FnMut(TableId) -> Outcome<T>,
) -> Result<Vec<T>, Unopened> {
    let (mut answers, mut failed) = (Vec::with_capacity(tables), Vec::new());
    for table in 0..tables {
        match patience.with(|| ask(table)) {
            Ok(answer) => answers.push(answer),
            Err(failure) if failure.kind == FailureKind::Run => return Err(Unopened::All(failure)),
            Err(failure) => failed.push((table, failure)),
        }
    }
    if failed.is_empty() { Ok(answers) } else { Err(Unopened::Tables(failed)) }
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
    /// Opens both.
    ///
    /// # Errors
    /// See [`Unopened`]: what is known then of what the local tables hold is in `tables`.
    pub fn open(
        config: &Config,
        server: &'s mut Server,
        tables: &mut [Pulled],
        purpose: Purpose,
        patience: &mut Patience<'_>,
    ) -> Result<Self, Unopened> {
        let key = fingerprint_key(server)?;
        let place = config.source_place()?;
        let plans: Vec<TablePlan> = tables.iter().map(|table| table.plan.clone()).collect();
        let store = patience.with(|| {
            let database = match &purpose {
                Purpose::Look => source::open(&place),
                Purpose::Write(..) => source::open_writable(&place),
            };
            database?.into_store(plans.clone(), key.clone())
        })?;
        let source = |table: &Pulled| SourceTable {
            relation: table.replica.relation.clone(),
            schema: table.plan.schema.clone(),
            other_scans: false,
        };
        let mut source = ServerSource::new(server.again()?, tables.iter().map(source).collect(), key);
        find_manifests(&mut source, tables.len(), patience)?;
        let roots = tables.iter_mut().map(|table| table.root.take()).collect();
        let replicas = tables.iter().map(|table| table.replica.clone()).collect();
        let (run_id, lease) = match purpose {
            Purpose::Look => (0, Lease::none()),
            Purpose::Write(run_id, lease) => (run_id, lease),
        };
        let mut target =
            LocalTarget::new(store, &plans, roots, RunTarget::new(server, run_id, replicas), lease);
        let kept = source.kept_tables().to_vec();
        let versions = match each(plans.len(), patience, |table| target.begin(table, kept[table])) {
            Ok(versions) => versions,
            Err(unopened) => {
                tables.iter_mut().zip(target.into_roots()).for_each(|(table, root)| table.root = root);
                return Err(unopened);
            }
        };
        source.compare_with((0..plans.len()).map(|table| target.is_scanned(table)));
        let source = ReadAhead::new(Box::new(source))?;
        Ok(Sides { source, target, versions })
    }

    /// Makes ready what a run needs, and answers which tables are on hold here. A run that only looks makes no notes.
    ///
    /// # Errors
    /// See [`Unopened`].
    pub fn prepare(
        &mut self,
        dry_run: bool,
        allow_mass_delete: bool,
        memories: &[TableMemory],
        patience: &mut Patience<'_>,
    ) -> Result<Vec<bool>, Unopened> {
        let tables = self.versions.len();
        if dry_run {
            return each(tables, patience, |table| match self.target.hold_of(table) {
                Ok(hold) => Ok(hold.is_some()),
                // Where there are no notes, nothing is on hold.
                Err(failure) if is_missing(&failure) => Ok(false),
                Err(failure) => Err(failure),
            });
        }
        patience.with(|| self.target.define_notes())?;
        if allow_mass_delete {
            each(tables, patience, |table| self.target.release(table))?;
        }
        let falls = each(tables, patience, |table| {
            let before = memories[table].seen.as_ref().and_then(|seen| seen.local_max);
            Fall::of(&mut self.target, &mut self.source, table, before)
        })?;
        patience.with(|| hold_fallen(&mut self.target, &falls))?;
        each(tables, patience, |table| {
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
            Ok(hold.is_some())
        })
    }

    /// What the algorithm is told of the tables: what the local side says of itself.
    pub fn inputs(&self, tables: &[&PreparedTable], on_hold: &[bool]) -> Vec<TableInput> {
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
    pub fn hold_again(&mut self, tables: &[&PreparedTable], report: &RunReport) {
        let undone = |table: &&PreparedTable| table.config.direction() == Direction::SnapshotPull;
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

/// Finds out of which replicas the server keeps manifests: of all with one call; where that fails, which of them it is.
fn find_manifests(
    source: &mut ServerSource,
    tables: usize,
    patience: &mut Patience<'_>,
) -> Result<(), Unopened> {
    match patience.with(|| source.find_manifests()) {
        Err(failure) if failure.kind == FailureKind::Table => {
            each(tables, patience, |table| source.has_manifest(table))?;
            Err(Unopened::All(failure))
        }
        outcome => Ok(outcome?),
    }
}
