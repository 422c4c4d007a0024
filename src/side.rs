//! Local databases that agents write to. Each has an id inside it; a replica that is pulled or goes two ways is kept
//! level with one of them, and another one is refused: what the two would do to each other nobody could tell.

use pgrx::Uuid;
use pgrx::prelude::*;
use pgrx::spi::Spi;
use serde_json::json;

use crate::access::{self, Database};
use crate::acts::Act;
use crate::argument::required;
use crate::direction::Declared;
use crate::error::{Answer, OrRaise, Problem, state};
use crate::replica::Replica;
use crate::{identity, setting, table, two_way};

/// Makes sure that the local database of a run is the one that a replica is kept level with; of a replica that has
/// none it becomes the one. The inner problem is the refusal.
pub fn settle(database: &Database, declared: &Declared, replica: &mut Replica) -> Answer<Answer<()>> {
    match (replica.remembered.side_id, declared.side_id) {
        (Some(known), Some(side_id)) if known == side_id => Ok(Ok(())),
        (Some(known), side_id) => other_side(database, replica, known, side_id).map(Err),
        (None, Some(side_id)) if !declared.dry_run => claim(database, replica, side_id).map(Ok),
        (None, None) if !declared.dry_run => {
            let message = format!(
                "the run does not say which local database {} is kept level with",
                replica.table.name
            );
            Ok(Err(Problem::new(state::MISSING_ARGUMENT, message)
                .hint("Pass side_id to plimsoll.begin_run: an id that the local database itself holds.")))
        }
        (None, _) => Ok(Ok(())),
    }
}

/// Remembers the local database of a run, and about when it was seen last: an idle run writes nothing here.
pub fn seen(database: &Database, declared: &Declared) -> Answer<()> {
    let Some(side_id) = declared.side_id else { return Ok(()) };
    identity::as_extension(|| {
        Ok(Spi::run_with_args(
            "WITH later AS (
                 UPDATE plimsoll.side_record s
                 SET agent_id = $3, host = $4, last_seen_at = pg_catalog.clock_timestamp()
                 WHERE s.database_id OPERATOR(pg_catalog.=) $1 AND s.side_id OPERATOR(pg_catalog.=) $2
                     AND (s.last_seen_at OPERATOR(pg_catalog.<)
                             (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '15 minutes'::pg_catalog.interval)
                         OR (s.agent_id, s.host) IS DISTINCT FROM ($3, $4)))
             INSERT INTO plimsoll.side_record (database_id, side_id, agent_id, host)
             SELECT $1, $2, $3, $4
             WHERE NOT EXISTS (
                 SELECT FROM plimsoll.side_record s
                 WHERE s.database_id OPERATOR(pg_catalog.=) $1 AND s.side_id OPERATOR(pg_catalog.=) $2)",
            &[database.id.into(), side_id.into(), declared.agent.id.into(), declared.agent.host.into()],
        )?)
    })
}

fn claim(database: &Database, replica: &mut Replica, side_id: Uuid) -> Answer<()> {
    replica.remembered.side_id = Some(side_id);
    identity::as_extension(|| {
        Ok(Spi::run_with_args(
            "UPDATE plimsoll.replica_record r SET side_id = $3, side_since = pg_catalog.clock_timestamp()
             WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2",
            &[database.id.into(), replica.table.table_id.into(), side_id.into()],
        )?)
    })
}

/// Who is in the place that another local database asks for.
fn other_side(database: &Database, replica: &Replica, known: Uuid, asking: Option<Uuid>) -> Answer<Problem> {
    let who = identity::as_extension(|| {
        Spi::get_one_with_args::<String>(
            "SELECT (SELECT pg_catalog.format('on host \"%s\", agent \"%s\", since %s, last seen %s',
                        COALESCE(s.host, '?'), s.agent_id,
                        pg_catalog.to_char(r.side_since, 'YYYY-MM-DD HH24:MI TZH:TZM'),
                        pg_catalog.to_char(s.last_seen_at, 'YYYY-MM-DD HH24:MI TZH:TZM'))
                 FROM plimsoll.replica_record r
                 JOIN plimsoll.side_record s ON s.database_id OPERATOR(pg_catalog.=) r.database_id
                     AND s.side_id OPERATOR(pg_catalog.=) r.side_id
                 WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.table_id OPERATOR(pg_catalog.=) $2)",
            &[database.id.into(), replica.table.table_id.into()],
        )
        .map_err(Problem::from)
    })?;
    let name = &replica.table.name;
    let asking = asking.map_or("has none yet".to_owned(), |asking| format!("is {asking}"));
    Ok(Problem::new(state::OTHER_SIDE, format!("{name} is kept level with another local database"))
        .detail(format!("That is {known}, {}; this one {asking}.", who.unwrap_or_default()))
        .hint(format!(
            "Register a database of its own for this one (plimsoll.register_database); or, where it takes the place of \
             the other: SELECT plimsoll.forget_side('{}', '{}'), or \"plimsoll sync --take-over\" where an admin permits \
             it with plimsoll.set_option('{0}', 'allow_take_over', 'true').",
            database.id,
            name.replace('\'', "''"),
        )))
}

#[pg_extern(sql = false)]
fn forget_side(database_id: Option<Uuid>, relation: Option<&str>) -> i64 {
    forget(database_id, relation).or_raise()
}

/// How many replicas were kept level with a local database; the next one that asks is.
fn forget(database_id: Option<Uuid>, relation: Option<&str>) -> Answer<i64> {
    let database = access::authorise(required(database_id, "database_id")?)?;
    if !database.admin && !setting::allow_take_over(&database) {
        let message = "only an admin may let another local database take the place of the one that is known";
        return Err(Problem::new(state::NOT_AUTHORISED, message).hint(
            "An admin may permit it with plimsoll.set_option(database_id, 'allow_take_over', 'true').",
        ));
    }
    let table = relation.map(table::registered_id).transpose()?;
    access::keep_authorised(&database)?;
    let table_id = table.as_ref().map(|(table_id, _)| *table_id);
    let forgotten: Vec<(Option<String>, Option<i32>)> = identity::as_extension(|| {
        Spi::connect_mut(|client| {
            let rows = client.update(
                "WITH known AS (
                     SELECT r.table_id, r.side_id FROM plimsoll.replica_record r
                     WHERE r.database_id OPERATOR(pg_catalog.=) $1 AND r.side_id IS NOT NULL
                         AND COALESCE(r.table_id OPERATOR(pg_catalog.=) $2, true) FOR UPDATE),
                 forgotten AS (
                     UPDATE plimsoll.replica_record r SET side_id = NULL, side_since = NULL FROM known k
                     WHERE r.database_id OPERATOR(pg_catalog.=) $1
                         AND r.table_id OPERATOR(pg_catalog.=) k.table_id)
                 SELECT k.side_id::pg_catalog.text, k.table_id FROM known k",
                None,
                &[database.id.into(), table_id.into()],
            )?;
            let forgotten: Vec<_> =
                rows.map(|row| Ok((row.get(1)?, row.get(2)?))).collect::<Result<_, pgrx::spi::Error>>()?;
            client.update(
                "DELETE FROM plimsoll.side_record s
                 WHERE s.database_id OPERATOR(pg_catalog.=) $1 AND NOT EXISTS (
                     SELECT FROM plimsoll.replica_record r
                     WHERE r.database_id OPERATOR(pg_catalog.=) s.database_id
                         AND r.side_id OPERATOR(pg_catalog.=) s.side_id)",
                None,
                &[database.id.into()],
            )?;
            Ok::<_, Problem>(forgotten)
        })
    })?;
    let count = forgotten.len();
    if count == 0 {
        let what = table.as_ref().map_or("no table".to_owned(), |(_, name)| format!("no replica in {name}"));
        let message = format!("{what} is kept level with a known local database of database {}", database.id);
        return Err(Problem::new(state::NOT_IN_STATE, message)
            .hint("plimsoll.replicas shows which replicas have one: side_id."));
    }
    // The next one has no memory of its own: what both sides then have of a key is not lost, it is where they begin.
    for table_id in forgotten.iter().filter_map(|(_, table_id)| *table_id) {
        two_way::forget(&database, table_id)?;
    }
    let mut sides: Vec<String> = forgotten.into_iter().filter_map(|(side, _)| side).collect();
    sides.sort_unstable();
    sides.dedup();
    let mut act = Act::new("forget_side").database(database.id);
    if let Some((_, name)) = &table {
        act = act.relation(name);
    }
    act.outcome(json!({ "replicas": count, "sides": sides })).record()?;
    Ok(i64::try_from(count).unwrap_or(i64::MAX))
}
