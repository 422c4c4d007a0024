//! The begin of a run on the server: what it is told, and what it answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use plimsoll_core::schema::TableSchema;
use plimsoll_core::store::{FailureKind, Outcome};
use serde_json::{Map, Value as Json};

use super::RunOptions;
use super::patience::Patience;
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
    patience: &mut Patience<'_>,
) -> Outcome<(Run, Schemas)> {
    let known = known_schemas(server, chosen)?;
    let side_id = match chosen.iter().any(|table| table.direction().writes_local()) {
        true => patience.with(|| side_id(config, options.dry_run))?,
        false => None,
    };
    let found = chosen.iter().filter_map(|table| match matching(table, known.keys())[..] {
        [remote] => Some((remote.clone(), table.direction())),
        _ => None,
    });
    let mut begin = RunBegin {
        agent_id,
        local_versions: local_versions(local, chosen, &known, patience)?,
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
///
/// # Errors
/// `Passing` where one is not told after some tries: the server would remember those of the others, and not notice that
/// all fell together.
fn local_versions(
    local: &mut dyn LocalDatabase,
    tables: &[&TableConfig],
    known: &Schemas,
    patience: &mut Patience<'_>,
) -> Outcome<Map<String, Json>> {
    let mut versions = Map::new();
    let sources = tables.iter().filter(|table| table.direction().writes_remote());
    for table in sources {
        let [remote] = matching(table, known.keys())[..] else { continue };
        let Some(schema) = known.get(remote) else { continue };
        let told = patience.with(|| {
            let plan = plan(local, table, Ok(schema.clone()), &[])?;
            plan.version_place().map(|_| local.highest_position(&plan)).transpose()
        });
        match told {
            Ok(Some(highest)) => {
                drop(versions.insert(remote.clone(), highest.map_or(Json::Null, Json::from)))
            }
            Ok(None) => {}
            Err(failure) if failure.kind == FailureKind::Passing => return Err(failure),
            // What cannot be read or does not fit is reported by the table itself.
            Err(_) => {}
        }
    }
    Ok(versions)
}

#[cfg(test)]
mod tests {
    use plimsoll_core::digest::FingerprintKey;
    use plimsoll_core::schema::{Column, Roles};
    use plimsoll_core::store::Source;
    use plimsoll_core::sync::Settings;

    use super::*;
    use crate::failure::{passing, table as refused};
    use crate::source::local::{Holds, LocalColumn, LocalIndex, LocalTable, Part};
    use crate::source::plan::TablePlan;
    use crate::source::write::LocalStore;
    use crate::stop::Stop;

    /// A database that says so of the highest positions of its tables, one answer after the other.
    struct Answering(Vec<Outcome<Option<i64>>>);

    impl LocalDatabase for Answering {
        fn kind(&self) -> &'static str {
            "a test's"
        }

        fn table_names(&mut self) -> Outcome<Vec<String>> {
            Ok(Vec::new())
        }

        fn table(&mut self, name: &str) -> Outcome<LocalTable> {
            let column = LocalColumn {
                name: "v".to_owned(),
                declared: "int8".to_owned(),
                holds: Holds::Numbers,
                not_null: true,
                key_place: 1,
                generated: false,
            };
            let index = LocalIndex { columns: vec!["v".to_owned()], unique: true };
            let (name, relation) = (name.to_owned(), name.to_owned());
            Ok(LocalTable { name, relation, columns: vec![column], indexes: vec![index], row_id: None })
        }

        fn quoted(&self, name: &str) -> String {
            name.to_owned()
        }

        fn proposed_type(&mut self, _: &LocalTable, _: &LocalColumn, _: Part) -> Outcome<Option<String>> {
            Ok(None)
        }

        fn understands(&mut self, _: &str) -> Outcome<()> {
            Ok(())
        }

        fn highest_position(&mut self, _: &TablePlan) -> Outcome<Option<i64>> {
            self.0.remove(0)
        }

        fn into_source(
            self: Box<Self>,
            _: Vec<TablePlan>,
            _: FingerprintKey,
        ) -> Outcome<Box<dyn Source + Send>> {
            Err(refused("it is not read"))
        }

        fn into_store(self: Box<Self>, _: Vec<TablePlan>, _: FingerprintKey) -> Outcome<Box<dyn LocalStore>> {
            Err(refused("it is not written to"))
        }
    }

    #[test]
    fn the_highest_position_of_each_table_is_told_or_no_run_begins() {
        let column_type = "int8".parse().expect("a type");
        let column = Column { number: 1, name: "v".to_owned(), column_type, not_null: true };
        let roles = Roles { key: &["v"], version: Some("v"), modified: None, placed_by: &[] };
        let schema = TableSchema::new(vec![column], &roles).expect("a schema");
        let names = ["s.a", "s.b", "s.c"];
        let tables =
            ["a", "b", "c"].map(|name| TableConfig { name: name.to_owned(), ..TableConfig::default() });
        let known: Schemas = names.map(|name| (name.to_owned(), schema.clone())).into();
        let stop = Stop::never();
        let settings = Settings { max_tries: 3, retry_pause: 1, ..Settings::default() };
        let told = |answers: Vec<Outcome<Option<i64>>>| {
            let chosen: Vec<&TableConfig> = tables.iter().collect();
            let mut patience = Patience::new(&settings, &stop);
            local_versions(&mut Answering(answers), &chosen, &known, &mut patience)
        };
        let locked = || Err(passing("locked"));
        let versions = told(vec![Ok(Some(5)), locked(), locked(), Ok(Some(6)), Err(refused("no right"))]);
        assert_eq!(Json::from(versions.expect("told")), serde_json::json!({"s.a": 5, "s.b": 6}));
        let failure =
            told(vec![Ok(Some(5)), locked(), locked(), locked(), Ok(Some(7))]).expect_err("not told");
        assert_eq!(failure.kind, FailureKind::Passing);
    }
}
