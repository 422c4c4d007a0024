//! The begin of a run: which tables go on, and why the others do not.

use std::collections::HashMap;

use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::schema::TableSchema;
use plimsoll_core::store::{Failure, FailureKind, Outcome, TableShape};
use plimsoll_core::sync::TableInput;

use super::begin::{Schemas, begin};
use super::patience::Patience;
use super::{RunOptions, TableResult, not_started};
use crate::config::{Config, Direction, TableConfig};
use crate::failure::{Advise, run as no_run, table as refused};
use crate::names::{Relation, identifier};
use crate::server::{RemoteTable, Replica, Run, RunEnd, Server, Term};
use crate::source;
use crate::source::local::{LocalDatabase, Part};
use crate::source::plan::{Origin, TablePlan};
use crate::state::State;

/// A run that was begun.
pub struct Prepared {
    /// Its number.
    pub run_id: i64,
    /// How long it has its lease.
    pub term: Term,
    /// The local database, opened for reading.
    pub local: Box<dyn LocalDatabase>,
    /// The tables that go on: a group for each direction that has any, in the order of [`Direction::IN_ORDER`].
    pub groups: Vec<Group>,
    /// The tables that cannot.
    pub failed: Vec<TableResult>,
}

/// The tables of one direction, which are dealt with together.
pub struct Group {
    /// The direction.
    pub direction: Direction,
    /// How each local table becomes the managed one, in the order of `tables`.
    pub plans: Vec<TablePlan>,
    /// The tables.
    pub tables: Vec<PreparedTable>,
}

/// A table that goes on.
pub struct PreparedTable {
    /// The table as configured.
    pub config: TableConfig,
    /// What the algorithm is told of it.
    pub input: TableInput,
    /// What the server is told of its rows.
    pub replica: Replica,
}

impl PreparedTable {
    /// Numbers of the columns that are sent.
    pub fn sent(&self) -> Vec<u32> {
        let columns = self.replica.schema.iter().flat_map(|schema| schema.columns());
        let numbers = columns.map(|column| column.number);
        numbers.filter(|number| !self.replica.absent.contains(number)).collect()
    }
}

/// Begins a run.
///
/// # Errors
/// Where the run as a whole cannot begin.
pub fn prepare(
    config: &Config,
    server: &mut Server,
    state: &mut State,
    options: &RunOptions,
    patience: &mut Patience<'_>,
) -> Outcome<Prepared> {
    let chosen = choose(config, &options.tables)?;
    let mut local = patience.with(|| open_source(config))?;
    let (run, known) = begin(config, server, state.agent_id(), options, local.as_mut(), &chosen, patience)?;
    let run_id = run.run_id;
    match prepare_tables(Begun { run, local, chosen, known }, server, state, options, patience) {
        Ok(prepared) => Ok(prepared),
        Err(failure) => {
            give_back(server, run_id, &failure);
            Err(failure)
        }
    }
}

/// Ends a run that cannot go on before it began: the next one need not wait for its lease to expire.
pub fn give_back(server: &mut Server, run_id: i64, failure: &Failure) {
    let told = failure.to_string();
    if let Err(again) = server.end_run(run_id, RunEnd::Failed, &[], Some(&told)) {
        tracing::debug!("the end of the run could not be reported: {again}");
    }
}

/// Opens the local database.
///
/// # Errors
/// As [`source::open`].
pub fn open_source(config: &Config) -> Outcome<Box<dyn LocalDatabase>> {
    let mut local = source::open(&config.source_place()?)?;
    if config.source.use_manifests != Some(false) {
        local.use_manifests(config.server.database_id);
    }
    Ok(local)
}

/// Rebuilds a manifest that the server does not trust. Where it cannot, it goes on answering by scans.
fn rebuild_manifest(server: &mut Server, relation: &str) -> Outcome<()> {
    match server.rebuild_manifest(relation) {
        Err(failure) if failure.kind == FailureKind::Table => {
            tracing::debug!("the manifest of {relation} is not rebuilt: {failure}");
            Ok(())
        }
        outcome => outcome,
    }
}

/// A run that has begun, before its tables are looked at.
struct Begun<'c> {
    run: Run,
    local: Box<dyn LocalDatabase>,
    /// The tables that it is about.
    chosen: Vec<&'c TableConfig>,
    /// What the server told of managed tables on the way.
    known: Schemas,
}

fn prepare_tables(
    begun: Begun<'_>,
    server: &mut Server,
    state: &mut State,
    options: &RunOptions,
    patience: &mut Patience<'_>,
) -> Outcome<Prepared> {
    let Begun { run, mut local, chosen, mut known } = begun;
    let mut failed = Vec::new();
    let mut matched = match_tables(chosen, &run.tables, &mut failed);
    explain(server, &mut failed)?;
    matched.retain(|(table, remote)| match remote.refusal() {
        Some(failure) => {
            failed.push(not_started(table, Some(remote.relation.clone()), failure));
            false
        }
        None => true,
    });
    for (table, remote) in &matched {
        turn(state, &remote.relation, table.direction(), options.dry_run)?;
    }
    let released = match options.allow_mass_delete && !options.dry_run {
        true => release_holds(server, &matched)?,
        false => Vec::new(),
    };
    if !options.dry_run {
        for (_, remote) in matched.iter().filter(|(_, remote)| remote.wants_rebuild()) {
            rebuild_manifest(server, &remote.relation)?;
        }
    }
    let relation = |found: &(_, &RemoteTable)| found.1.relation.clone();
    let unknown: Vec<String> =
        matched.iter().map(relation).filter(|name| !known.contains_key(name)).collect();
    let asked: Vec<&str> = unknown.iter().map(String::as_str).collect();
    let mut refusals = HashMap::new();
    for (name, schema) in asked.iter().zip(server.table_schemas(&asked)?) {
        match schema {
            Ok(schema) => drop(known.insert((*name).to_owned(), schema)),
            Err(failure) => drop(refusals.insert((*name).to_owned(), failure)),
        }
    }
    let mut prepared = Vec::new();
    for (table, remote) in matched {
        let relation = remote.relation.clone();
        let schema = known.remove(&relation).ok_or_else(|| {
            let refusal = refusals.remove(&relation);
            refusal.unwrap_or_else(|| refused(format!("{relation} has no schema")))
        });
        let sent = state.sent(&relation);
        match patience.with(|| plan(local.as_mut(), table, schema.clone(), &sent)) {
            Ok(plan) => {
                let is_new = state.table(&relation).plan != Some(plan.stamp());
                // An agent that runs for ever does not say it each time.
                if options.interval.is_none() {
                    warn_of_sorting(local.as_ref(), &plan);
                }
                if table.direction().writes_remote() && (options.interval.is_none() || is_new) {
                    warn_of_columns(local.as_mut(), &plan, &table.name, &relation)?;
                }
                let replica = Replica {
                    relation: relation.clone(),
                    schema: Some(plan.schema.clone()),
                    absent: plan.absent().collect(),
                };
                let shape = TableShape::of(&plan.schema);
                let input = TableInput {
                    plan: Some(plan.stamp()),
                    on_hold: remote.hold.is_some()
                        && !released.contains(&relation)
                        && table.direction().writes_remote(),
                    name: relation,
                    version: remote.version(),
                    rejected: remote.rejected,
                    rank: remote.rank,
                    shape,
                };
                prepared.push((plan, PreparedTable { config: table.clone(), input, replica }));
            }
            Err(failure) if failure.kind == FailureKind::Table => {
                failed.push(not_started(table, Some(relation), failure));
            }
            Err(failure) => return Err(failure),
        }
    }
    let groups = by_direction(prepared);
    Ok(Prepared { run_id: run.run_id, term: run.term, local, groups, failed })
}

/// Notices that a table goes another way than in the run before: what was remembered of it holds no more.
///
/// # Errors
/// `Passing` where that cannot be remembered.
fn turn(state: &mut State, relation: &str, direction: Direction, dry_run: bool) -> Outcome<()> {
    if let Some(before) = state.turn(relation, direction, dry_run)? {
        tracing::warn!(
            "the direction of {relation} was {before} and is {direction} now: what was remembered of it is dropped, and all \
             is compared anew"
        );
    }
    Ok(())
}

fn by_direction(mut prepared: Vec<(TablePlan, PreparedTable)>) -> Vec<Group> {
    let groups = Direction::IN_ORDER.map(|direction| {
        let of_it = prepared.extract_if(.., |(_, table)| table.config.direction() == direction);
        let (plans, tables) = of_it.unzip();
        Group { direction, plans, tables }
    });
    groups.into_iter().filter(|group| !group.tables.is_empty()).collect()
}

/// The key of the database's digests, as the login answered it.
///
/// # Errors
/// A `Run` failure where the server gave none.
pub fn fingerprint_key(server: &Server) -> Outcome<FingerprintKey> {
    server
        .fingerprint_key()
        .and_then(FingerprintKey::from_slice)
        .ok_or_else(|| no_run("the server gave no fingerprint key of 32 bytes"))
}

/// The tables to deal with.
///
/// # Errors
/// A `Run` failure where a name is not configured, or nothing is.
pub fn choose<'c>(config: &'c Config, wanted: &[String]) -> Outcome<Vec<&'c TableConfig>> {
    if config.tables.is_empty() {
        return Err(no_run("no table is configured")
            .advise("add [[table]] with a name, or let \"plimsoll init\" find the tables"));
    }
    if wanted.is_empty() {
        return Ok(config.tables.iter().collect());
    }
    let mut chosen: Vec<&TableConfig> = Vec::new();
    for name in wanted {
        let found = config.tables.iter().find(|table| {
            table.name.eq_ignore_ascii_case(name)
                || table
                    .relation()
                    .is_some_and(|relation| Relation::parse(name).means(&relation, |a, b| a == b))
        });
        let Some(found) = found else {
            let known: Vec<_> = config.tables.iter().map(|table| table.name.as_str()).collect();
            return Err(no_run(format!("no table \"{name}\" is configured"))
                .advise(format!("the configured tables are {}", known.join(", "))));
        };
        if !chosen.iter().any(|table| table.name == found.name) {
            chosen.push(found);
        }
    }
    Ok(chosen)
}

/// Each configured table with its managed table; what has none goes to `failed`.
pub fn match_tables<'c, 'r>(
    chosen: Vec<&'c TableConfig>,
    remote: &'r [RemoteTable],
    failed: &mut Vec<TableResult>,
) -> Vec<(&'c TableConfig, &'r RemoteTable)> {
    let mut matched: Vec<(&TableConfig, &RemoteTable)> = Vec::new();
    for table in chosen {
        match find_remote(table, remote) {
            Ok(found) if matched.iter().any(|(_, other)| other.relation == found.relation) => {
                let failure =
                    refused(format!("{} is the managed table of another local table too", found.relation));
                failed.push(not_started(table, None, failure));
            }
            Ok(found) => matched.push((table, found)),
            Err(failure) => failed.push(not_started(table, table.remote.clone(), failure)),
        }
    }
    matched
}

/// Has the server say what is wrong with tables that it has, and left out because they are not as they were
/// registered.
///
/// # Errors
/// As the server says.
pub fn explain(server: &mut Server, failed: &mut [TableResult]) -> Outcome<()> {
    for table in failed.iter_mut() {
        let name = table.relation.as_ref().unwrap_or(&table.table);
        if let Some(Err(failure)) = server.table_schemas(&[name])?.pop()
            && failure.sqlstate.as_deref() != Some(NOT_MANAGED)
        {
            table.report.failure = Some(failure);
        }
    }
    Ok(())
}

/// SQLSTATE of a table that is not managed.
const NOT_MANAGED: &str = "42P01";

/// The managed table's name as configured: the local table's own where nothing is said.
pub fn wanted(table: &TableConfig) -> Relation {
    table.relation().unwrap_or_else(|| Relation { schema: None, table: table.name.clone() })
}

/// The managed tables that a configured one can mean; letter case counts only where it decides.
pub fn matching<'n>(table: &TableConfig, names: impl IntoIterator<Item = &'n String>) -> Vec<&'n String> {
    let wanted = wanted(table);
    let names: Vec<&String> = names.into_iter().collect();
    let alike = |same: &dyn Fn(&str, &str) -> bool| -> Vec<&'n String> {
        names.iter().copied().filter(|name| wanted.means(&Relation::parse(name), same)).collect()
    };
    let exact = alike(&|a, b| a == b);
    if exact.is_empty() { alike(&|a, b| a.to_lowercase() == b.to_lowercase()) } else { exact }
}

pub fn find_remote<'r>(table: &TableConfig, remote: &'r [RemoteTable]) -> Outcome<&'r RemoteTable> {
    let names: Vec<&String> = matching(table, remote.iter().map(|remote| &remote.relation));
    let wanted = wanted(table).text();
    match names[..] {
        [name] => remote
            .iter()
            .find(|remote| remote.relation == *name)
            .ok_or_else(|| refused(format!("the server has no managed table {wanted}"))),
        [] => Err(refused(format!("the server has no managed table {wanted} for this database"))
            .advise("\"plimsoll schema\" prints the SQL that makes it; remote = \"schema.table\" names it")),
        _ => Err(refused(format!("the server has several managed tables {wanted}"))
            .advise("say which: remote = \"schema.table\"")),
    }
}

fn release_holds(server: &mut Server, tables: &[(&TableConfig, &RemoteTable)]) -> Outcome<Vec<String>> {
    let mut released = Vec::new();
    for (_, remote) in tables.iter().filter(|(_, remote)| remote.hold.is_some()) {
        match server.release_hold(&remote.relation) {
            Ok(()) => released.push(remote.relation.clone()),
            Err(failure) if failure.kind == FailureKind::Table => {
                tracing::warn!("the hold on {} was not released: {failure}", remote.relation);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(released)
}

/// How a local table becomes the managed one. `sent_before`: numbers of the columns that earlier runs sent.
///
/// # Errors
/// As [`TablePlan::new`].
pub fn plan(
    local: &mut dyn LocalDatabase,
    table: &TableConfig,
    schema: Outcome<TableSchema>,
    sent_before: &[u32],
) -> Outcome<TablePlan> {
    let found = local.table(&table.name)?;
    let plan = TablePlan::new(&found, schema?, table, sent_before)?;
    let columns = plan.columns.iter().zip(plan.schema.columns());
    for (sent, managed) in columns.filter(|(sent, _)| sent.is_local() && sent.conversion().is_none()) {
        local.fits(&found, &sent.name, &managed.column_type)?;
    }
    if let Some(statement) = plan.condition_alone() {
        local.understands(&statement).map_err(|failure| plan.explained(failure))?;
    }
    Ok(plan)
}

/// Says which columns one side alone has, where the table goes on without them, and what to run.
///
/// # Errors
/// Where the local database cannot be read.
pub fn warn_of_columns(
    local: &mut dyn LocalDatabase,
    plan: &TablePlan,
    name: &str,
    relation: &str,
) -> Outcome<()> {
    let columns = plan.columns.iter().filter(|column| column.origin == Origin::Absent);
    for column in columns {
        tracing::warn!(
            "column \"{0}\" of {relation} is not in the local table \"{1}\": its rows hold NULL there; add it locally, or \
             name it in server_columns of plimsoll.manage_table if the server alone fills it",
            column.name,
            plan.table,
        );
    }
    if plan.unsent.is_empty() {
        return Ok(());
    }
    let table = local.table(name)?;
    for column in &plan.unsent {
        let proposed = local.proposed_type(&table, column, Part::Plain)?.unwrap_or_else(|| "text".to_owned());
        tracing::warn!(
            "column \"{0}\" of the local table \"{1}\" is not in {relation}, and not sent; to have it there: ALTER TABLE \
             {relation} ADD COLUMN {2} {proposed}; to leave it out: leave_out = [{0:?}]",
            column.name,
            plan.table,
            identifier(&column.name),
        );
    }
    Ok(())
}

/// Says what would make a table cheaper to read.
pub fn warn_of_sorting(local: &dyn LocalDatabase, plan: &TablePlan) {
    let Some(version) = plan.version().filter(|_| !plan.indexed) else { return };
    tracing::warn!(
        "no index of \"{}\" starts with \"{}\": each read sorts the table; this would help: {}",
        plan.table,
        version.name,
        crate::init::index_statement(local, &plan.relation, &plan.table, &version.name, plan.key_columns()),
    );
}
