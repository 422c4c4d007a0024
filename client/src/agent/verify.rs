//! A full comparison of both sides that changes nothing and takes no lease.

use plimsoll_core::schema::TableSchema;
use plimsoll_core::store::{Failure, FailureKind, Outcome, Source, TableShape, Target};
use plimsoll_core::sync::{self, Difference, DifferenceKind, Settings, VerifyReport};
use serde::Serialize;

use super::patience::Patience;
use super::prepare::{
    choose, explain, fingerprint_key, match_tables, open_source, plan, warn_of_columns, warn_of_sorting,
};
use super::server_of;
use super::sides::{Pulled, Purpose, Sides, Unopened};
use super::world::VerifyWorld;
use crate::config::Config;
use crate::progress::{Progress, Way};
use crate::report::key_text;
use crate::server::{Replica, RunTarget, Server};
use crate::source::ahead::ReadAhead;
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
    let (mut from_here, mut from_there) = (Vec::new(), Vec::new());
    for ((table, remote), schema) in matched.into_iter().zip(schemas) {
        match plan(local.as_mut(), table, schema, &[]) {
            Ok(plan) => {
                warn_of_sorting(local.as_ref(), &plan);
                let is_pulled = table.direction().writes_local() && !table.direction().writes_remote();
                if !is_pulled {
                    warn_of_columns(local.as_mut(), &plan, &table.name, &remote.relation)?;
                }
                let group = if is_pulled { &mut from_there } else { &mut from_here };
                let replica = Replica { relation: remote.relation.clone(), ..Replica::default() };
                group.push(Compared {
                    name: table.name.clone(),
                    pulled: Pulled { replica, plan, root: None },
                });
            }
            Err(failure) => {
                verdicts.push(unknown(&table.name, Some(remote.relation.clone()), Some(failure)));
            }
        }
    }
    let settings = config.settings(None, true);
    let mut watch = Watch { limit, stop, progress, settings: &settings };
    if !from_here.is_empty() {
        let plans = from_here.iter().map(|table| table.pulled.plan.clone()).collect();
        let opened = fingerprint_key(&server).and_then(|key| ReadAhead::new(local.into_source(plans, key)?));
        verdicts.extend(match opened {
            Ok(mut source) => {
                let replicas = from_here.iter().map(|table| table.pulled.replica.clone()).collect();
                watch.compare(&mut source, &mut RunTarget::new(&mut server, 0, replicas), from_here)
            }
            Err(failure) => from_here.iter().map(|table| table.unknown(&failure)).collect(),
        });
    }
    if !from_there.is_empty() {
        verdicts.extend(watch.compare_pulled(config, &mut server, from_there));
    }
    let level = verdicts.iter().all(|table| table.report.is_some_and(|report| report.level));
    Ok(Verdict { level, tables: verdicts })
}

/// A table to compare.
struct Compared {
    /// The local table's name.
    name: String,
    pulled: Pulled,
}

impl Compared {
    /// Nothing was found out of it.
    fn unknown(&self, failure: &Failure) -> TableVerdict {
        unknown(&self.name, Some(self.pulled.replica.relation.clone()), Some(failure.clone()))
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
    /// Compares tables, the server being right. Those that cannot be opened are told of, the others compared.
    fn compare_pulled(
        &mut self,
        config: &Config,
        server: &mut Server,
        tables: Vec<Compared>,
    ) -> Vec<TableVerdict> {
        let mut patience = Patience::new(self.settings, self.stop);
        let mut verdicts = Vec::new();
        let (mut names, mut pulled): (Vec<String>, Vec<Pulled>) =
            tables.into_iter().map(|table| (table.name, table.pulled)).unzip();
        while !pulled.is_empty() {
            let of = |name: String, pulled: Pulled| Compared { name, pulled };
            match Sides::open(config, server, &mut pulled, Purpose::Look, &mut patience) {
                Ok(mut sides) => {
                    let tables = names.into_iter().zip(pulled).map(|(name, pulled)| of(name, pulled));
                    verdicts.extend(self.compare(&mut sides.source, &mut sides.target, tables.collect()));
                    break;
                }
                Err(Unopened::All(failure)) => {
                    let all = names.into_iter().zip(pulled);
                    verdicts.extend(all.map(|(name, pulled)| of(name, pulled).unknown(&failure)));
                    break;
                }
                Err(Unopened::Tables(failed)) => {
                    for (table, failure) in failed.into_iter().rev() {
                        verdicts.push(of(names.remove(table), pulled.remove(table)).unknown(&failure));
                    }
                }
            }
        }
        verdicts
    }

    /// Compares tables, the source being right.
    fn compare(
        &mut self,
        source: &mut dyn Source,
        target: &mut dyn Target,
        tables: Vec<Compared>,
    ) -> Vec<TableVerdict> {
        let Watch { limit, stop, progress, settings } = self;
        let mut verdicts = Vec::new();
        // Why no further table can be compared.
        let mut over: Option<Failure> = None;
        progress.begin(tables.iter().map(|table| table.name.clone()).collect(), Way::Sent);
        for (id, table) in tables.iter().enumerate() {
            if let Some(failure) = &over {
                verdicts.push(table.unknown(failure));
                continue;
            }
            let schema = &table.pulled.plan.schema;
            let mut verdict = TableVerdict {
                table: table.name.clone(),
                relation: Some(table.pulled.replica.relation.clone()),
                ..Default::default()
            };
            let mut show = |difference: Difference| match verdict.differences.len() < *limit {
                true => verdict.differences.push(shown(&difference, schema)),
                false => verdict.more_differences += 1,
            };
            let mut world = VerifyWorld { stop, progress };
            let shape = TableShape::of(schema);
            match sync::verify(source, target, &mut world, settings, (id, shape), &mut show) {
                Ok(report) if !stop.asked() || !report.level => verdict.report = Some(report),
                Ok(_) => verdict.failure = Some("stopped before everything was compared".to_owned()),
                Err(failure) => {
                    verdict.failure = Some(failure.to_string());
                    over = Some(failure).filter(|failure| failure.kind == FailureKind::Run);
                }
            }
            verdicts.push(verdict);
        }
        progress.end();
        verdicts
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
