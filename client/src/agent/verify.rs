//! A full comparison of both sides that changes nothing and takes no lease.

use plimsoll_core::schema::TableSchema;
use plimsoll_core::store::{Failure, FailureKind, Outcome, TableShape};
use plimsoll_core::sync::{self, Difference, DifferenceKind, VerifyReport};
use serde::Serialize;

use super::prepare::{
    choose, explain, fingerprint_key, match_tables, open_source, plan, warn_of_columns, warn_of_sorting,
};
use super::server_of;
use super::world::VerifyWorld;
use crate::config::Config;
use crate::progress::Progress;
use crate::report::key_text;
use crate::server::{Replica, RunTarget};
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
    let (mut plans, mut tables) = (Vec::new(), Vec::new());
    for ((table, remote), schema) in matched.into_iter().zip(schemas) {
        match plan(local.as_mut(), table, schema, &[]) {
            Ok(plan) => {
                warn_of_sorting(local.as_ref(), &plan);
                warn_of_columns(local.as_mut(), &plan, &table.name, &remote.relation)?;
                plans.push(plan);
                tables.push((table.name.clone(), remote.relation.clone()));
            }
            Err(failure) => {
                verdicts.push(unknown(&table.name, Some(remote.relation.clone()), Some(failure)));
            }
        }
    }
    if !plans.is_empty() {
        let schemas: Vec<TableSchema> = plans.iter().map(|plan| plan.schema.clone()).collect();
        let mut source = ReadAhead::new(local.into_source(plans, fingerprint_key(&server)?))?;
        let replicas = tables
            .iter()
            .map(|(_, relation)| Replica { relation: relation.clone(), ..Replica::default() })
            .collect();
        let mut target = RunTarget::new(&mut server, 0, replicas);
        progress.begin(tables.iter().map(|(name, _)| name.clone()).collect());
        let settings = config.settings(None, true);
        for (id, (name, relation)) in tables.into_iter().enumerate() {
            let mut verdict = TableVerdict { table: name, relation: Some(relation), ..Default::default() };
            let mut show = |difference: Difference| match verdict.differences.len() < limit {
                true => verdict.differences.push(shown(&difference, &schemas[id])),
                false => verdict.more_differences += 1,
            };
            let mut world = VerifyWorld { stop, progress };
            let table = (id, TableShape::of(&schemas[id]));
            match sync::verify(&mut source, &mut target, &mut world, &settings, table, &mut show) {
                Ok(report) if !stop.asked() || !report.level => verdict.report = Some(report),
                Ok(_) => verdict.failure = Some("stopped before everything was compared".to_owned()),
                Err(failure) if failure.kind == FailureKind::Run => return Err(failure),
                Err(failure) => verdict.failure = Some(failure.to_string()),
            }
            verdicts.push(verdict);
        }
        progress.end();
    }
    let level = verdicts.iter().all(|table| table.report.is_some_and(|report| report.level));
    Ok(Verdict { level, tables: verdicts })
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
