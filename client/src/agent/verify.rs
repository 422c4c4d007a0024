//! A full comparison of both sides that changes nothing and takes no lease.

use plimsoll_core::schema::TableSchema;
use plimsoll_core::store::{Failure, FailureKind, Outcome, Source, TableShape, Target};
use plimsoll_core::sync::{self, Difference, DifferenceKind, Settings, VerifyReport};
use serde::Serialize;

use super::prepare::{
    choose, explain, fingerprint_key, match_tables, open_source, plan, warn_of_columns, warn_of_sorting,
};
use super::pull::Sides;
use super::server_of;
use super::world::VerifyWorld;
use crate::config::Config;
use crate::progress::Progress;
use crate::report::key_text;
use crate::server::{Lease, Replica, RunTarget};
use crate::source::ahead::ReadAhead;
use crate::source::plan::TablePlan;
use crate::stop::Stop;

/// One row in which both sides differ.
#[derive(Debug, Clone, Serialize)]
pub struct ShownDifference {
    /// How they differ.
    pub kind: DifferenceKind,
    /// The key, `column=value`.
    pub key: String,
    /// Where the row stands.
    pub position: Option<i64>,
    /// Why it cannot be stored, where the local database's value says so.
    pub reason: Option<String>,
}

/// What the comparison of one table found.
#[derive(Debug, Default, Serialize)]
pub struct TableVerdict {
    /// The local table.
    pub table: String,
    /// The managed table.
    pub relation: Option<String>,
    /// The counts; none where the comparison failed.
    #[serde(flatten)]
    pub report: Option<VerifyReport>,
    /// The first of the differences.
    pub differences: Vec<ShownDifference>,
    /// How many more there are.
    pub more_differences: u64,
    /// Why it failed.
    pub failure: Option<String>,
}

/// What a comparison found.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Whether everything was compared and equal.
    pub level: bool,
    /// Each table.
    pub tables: Vec<TableVerdict>,
}

impl Verdict {
    /// 0 level, 1 not level, 2 could not tell.
    pub fn exit_code(&self) -> u8 {
        let differs = |table: &TableVerdict| table.report.is_some_and(|report| !report.level);
        if self.tables.iter().any(differs) {
            1
        } else if self.tables.iter().any(|table| table.report.is_none()) {
            2
        } else {
            0
        }
    }
}

/// Compares the tables; shows at most `limit` differences of each.
///
/// # Errors
/// Where nothing could be compared.
pub fn verify(
    config: &Config,
    wanted: &[String],
    limit: usize,
    stop: &Stop,
    progress: &mut Progress,
) -> Outcome<Verdict> {
    let chosen = choose(config, wanted)?;
    let mut server = server_of(config)?;
    let mut local = open_source(config)?;
    let remote = server.table_versions()?;
    let mut failed = Vec::new();
    let matched = match_tables(chosen, &remote, &mut failed);
    explain(&mut server, &mut failed)?;
    let names: Vec<&str> = matched.iter().map(|(_, table)| table.relation.as_str()).collect();
    let schemas = server.table_schemas(&names)?;
    let mut verdicts: Vec<TableVerdict> =
        failed.into_iter().map(|table| unknown(&table.table, table.relation, table.report.failure)).collect();
    let (mut from_here, mut from_there) = (Group::default(), Group::default());
    for ((table, remote), schema) in matched.into_iter().zip(schemas) {
        match plan(local.as_mut(), table, schema, &[]) {
            Ok(plan) => {
                warn_of_sorting(local.as_ref(), &plan);
                let is_pulled = table.direction().writes_local() && !table.direction().writes_remote();
                if !is_pulled {
                    warn_of_columns(local.as_mut(), &plan, &table.name, &remote.relation)?;
                }
                let group = if is_pulled { &mut from_there } else { &mut from_here };
                group.plans.push(plan);
                group.tables.push((table.name.clone(), remote.relation.clone()));
            }
            Err(failure) => {
                verdicts.push(unknown(&table.name, Some(remote.relation.clone()), Some(failure)));
            }
        }
    }
    let settings = config.settings(None, true);
    let mut watch = Watch { limit, stop, progress, settings: &settings };
    if !from_here.plans.is_empty() {
        let key = fingerprint_key(&server)?;
        let mut source = ReadAhead::new(local.into_source(from_here.plans.clone(), key))?;
        let mut target = RunTarget::new(&mut server, 0, from_here.replicas());
        verdicts.extend(watch.compare(&mut source, &mut target, from_here)?);
    }
    if !from_there.plans.is_empty() {
        let (plans, roots) = (from_there.plans.clone(), vec![None; from_there.plans.len()]);
        let mut sides =
            Sides::open(config, &mut server, (0, Lease::none()), from_there.replicas(), plans, roots)?;
        verdicts.extend(watch.compare(&mut sides.source, &mut sides.target, from_there)?);
    }
    let level = verdicts.iter().all(|table| table.report.is_some_and(|report| report.level));
    Ok(Verdict { level, tables: verdicts })
}

/// Tables of which the same side is right.
#[derive(Default)]
struct Group {
    plans: Vec<TablePlan>,
    /// The local table's name, and the managed one's.
    tables: Vec<(String, String)>,
}

impl Group {
    fn replicas(&self) -> Vec<Replica> {
        let replica =
            |(_, relation): &(String, String)| Replica { relation: relation.clone(), ..Replica::default() };
        self.tables.iter().map(replica).collect()
    }
}

/// Who watches a comparison, and how much of it is shown.
struct Watch<'w> {
    limit: usize,
    stop: &'w Stop,
    progress: &'w mut Progress,
    settings: &'w Settings,
}

impl Watch<'_> {
    /// Compares the tables of a group, the source being right.
    fn compare(
        &mut self,
        source: &mut dyn Source,
        target: &mut dyn Target,
        group: Group,
    ) -> Outcome<Vec<TableVerdict>> {
        let Watch { limit, stop, progress, settings } = self;
        let mut verdicts = Vec::new();
        progress.begin(group.tables.iter().map(|(name, _)| name.clone()).collect());
        for (id, ((name, relation), plan)) in group.tables.into_iter().zip(&group.plans).enumerate() {
            let schema = &plan.schema;
            let mut verdict = TableVerdict { table: name, relation: Some(relation), ..Default::default() };
            let mut show = |difference: Difference| match verdict.differences.len() < *limit {
                true => verdict.differences.push(shown(&difference, schema)),
                false => verdict.more_differences += 1,
            };
            let mut world = VerifyWorld { stop, progress };
            let table = (id, TableShape::of(schema));
            match sync::verify(source, target, &mut world, settings, table, &mut show) {
                Ok(report) if !stop.asked() || !report.level => verdict.report = Some(report),
                Ok(_) => verdict.failure = Some("stopped before everything was compared".to_owned()),
                Err(failure) if failure.kind == FailureKind::Run => return Err(failure),
                Err(failure) => verdict.failure = Some(failure.to_string()),
            }
            verdicts.push(verdict);
        }
        progress.end();
        Ok(verdicts)
    }
}

fn unknown(table: &str, relation: Option<String>, failure: Option<Failure>) -> TableVerdict {
    let failure = failure.map(|failure| failure.to_string());
    TableVerdict { table: table.to_owned(), relation, failure, ..TableVerdict::default() }
}

fn shown(difference: &Difference, schema: &TableSchema) -> ShownDifference {
    let own = difference.key_text.clone().filter(|_| difference.key.is_empty());
    ShownDifference {
        kind: difference.kind,
        key: own.unwrap_or_else(|| key_text(&difference.key, schema)),
        position: difference.position,
        reason: difference.reason.clone(),
    }
}
