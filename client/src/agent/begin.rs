//! The begin of a run on the server: what it is told, and what it answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use plimsoll_core::schema::TableSchema;
use plimsoll_core::store::{FailureKind, Outcome};
use serde_json::{Map, Value as Json};

use super::RunOptions;
use super::prepare::{find_remote, matching, plan, wanted};
use super::side::side_id;
use crate::config::{Config, Direction, TableConfig};
use crate::server::{Run, RunBegin, RunEnd, Server};
use crate::source::local::LocalDatabase;

/// Begins a run; answers it, and the schemas that were asked for on the way.
///
/// # Errors
/// Where the run as a whole cannot begin.
pub fn begin(
    config: &Config,
    server: &mut Server,
    agent_id: String,
    options: &RunOptions,
    local: &mut dyn LocalDatabase,
    chosen: &[&TableConfig],
) -> Outcome<(Run, Schemas)> {
    let known = known_schemas(server, chosen)?;
    let side_id = match chosen.iter().any(|table| table.direction().writes_local()) {
        true => side_id(config, options.dry_run)?,
        false => None,
    };
    let found = chosen.iter().filter_map(|table| match matching(table, known.keys())[..] {
        [remote] => Some((remote.clone(), table.direction())),
        _ => None,
    });
    let mut begin = RunBegin {
        agent_id,
        local_versions: local_versions(local, chosen, &known),
        directions: found.collect(),
        side_id,
        dry_run: options.dry_run,
    };
    let mut refused_places = BTreeSet::new();
    loop {
        let run = server.begin_run(&begin)?;
        let unsaid = unsaid(chosen, &run, &begin.directions);
        let mut taken: Vec<String> = match options.take_over && !options.dry_run {
            true => run.tables.iter().filter(|table| table.is_taken()).map(|t| t.relation.clone()).collect(),
            false => Vec::new(),
        };
        taken.retain(|relation| !refused_places.contains(relation));
        if unsaid.is_empty() && taken.is_empty() {
            return Ok((run, known));
        }
        // What was not said, or stood in the way, is known now: the run begins again.
        server.end_run(run.run_id, RunEnd::Finished, &[], None)?;
        begin.directions.extend(unsaid);
        for relation in taken {
            match server.forget_side(&relation) {
                Ok(()) => tracing::warn!("{relation} is kept level with this local database from now on"),
                Err(failure) if failure.kind == FailureKind::Table => {
                    tracing::warn!("the place of the other local database is not taken: {failure}");
                    refused_places.insert(relation);
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// Tables of which the server was not told which way they go, because their names are spelled otherwise there.
fn unsaid(
    chosen: &[&TableConfig],
    run: &Run,
    said: &BTreeMap<String, Direction>,
) -> BTreeMap<String, Direction> {
    let found = chosen.iter().filter_map(|table| Some((find_remote(table, &run.tables).ok()?, table)));
    let all = found.map(|(remote, table)| (remote.relation.clone(), table.direction()));
    all.filter(|(relation, _)| !said.contains_key(relation)).collect()
}

/// Schemas by the managed table's name.
pub type Schemas = HashMap<String, TableSchema>;

/// The schemas of the managed tables, as far as they are found by name: asked for before the run begins,
/// because that tells the server the highest local versions. What fails here is asked for again.
fn known_schemas(server: &mut Server, tables: &[&TableConfig]) -> Outcome<Schemas> {
    let mut names: Vec<String> = Vec::new();
    let (full, partial): (Vec<&TableConfig>, Vec<&TableConfig>) =
        tables.iter().partition(|table| wanted(table).schema.is_some());
    names.extend(full.into_iter().map(|table| wanted(table).text()));
    if !partial.is_empty() {
        let managed = server.managed_tables()?;
        for table in partial {
            if let [found] = matching(table, &managed)[..] {
                names.push(found.clone());
            }
        }
    }
    let asked: Vec<&str> = names.iter().map(String::as_str).collect();
    let schemas = server.table_schemas(&asked)?;
    let found = names.into_iter().zip(schemas);
    Ok(found.filter_map(|(name, schema)| Some((name, schema.ok()?))).collect())
}

/// The highest local position of each table that is sent and whose schema is known; the server compares them with
/// what was reported before.
fn local_versions(
    local: &mut dyn LocalDatabase,
    tables: &[&TableConfig],
    known: &Schemas,
) -> Map<String, Json> {
    let mut versions = Map::new();
    let sources = tables.iter().filter(|table| table.direction().writes_remote());
    for table in sources {
        let [remote] = matching(table, known.keys())[..] else { continue };
        let Some(schema) = known.get(remote) else { continue };
        // What cannot be read or does not fit is reported by the table itself.
        let Ok(plan) = plan(local, table, Ok(schema.clone()), &[]) else { continue };
        if let Ok(highest) = local.highest_position(&plan)
            && plan.version_place().is_some()
        {
            versions.insert(remote.clone(), highest.map_or(Json::Null, Json::from));
        }
    }
    versions
}
