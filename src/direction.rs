//! Which way each table of a run goes: what the agent declares when the run begins, whether that is allowed, and that
//! a run writes only where it said so.

use std::collections::{BTreeMap, BTreeSet};

use pgrx::Uuid;
use plimsoll_core::direction::{Allowed, Direction};
use serde_json::Value;

use crate::access::Database;
use crate::error::{Answer, Problem, state};
use crate::lease::{self, Agent, Renewed};
use crate::replica::Replica;
use crate::side;
use crate::table::{Registered, check_fits_two_way};

/// The direction of each table of a run, by its name.
pub type Directions = BTreeMap<String, Direction>;

/// What an agent says when it begins a run.
pub struct Declared<'a> {
    /// Who it is.
    pub agent: &'a Agent<'a>,
    /// Which way its tables go; those that are not named are not spoken of.
    pub directions: Directions,
    /// The id of its local database, where that is written to.
    pub side_id: Option<Uuid>,
    /// It only looks: nothing is remembered of what it declares.
    pub dry_run: bool,
}

/// Reads the argument of `begin_run`: `{"schema.table": direction}`.
pub fn read(value: &Value) -> Answer<Directions> {
    let wrong = |message: String| {
        let known = Direction::IN_ORDER.map(Direction::name).join(", ");
        Problem::new(state::BAD_ARGUMENT, format!("directions {message}"))
            .hint(format!("The directions are {known}."))
    };
    let members = value.as_object().ok_or_else(|| wrong("must be an object of table names".to_owned()))?;
    let member = |(name, value): (&String, &Value)| {
        let direction = value.as_str().and_then(Direction::of_name);
        let direction = direction.ok_or_else(|| wrong(format!("has no direction for table {name}")))?;
        Ok((name.clone(), direction))
    };
    members.iter().map(member).collect()
}

/// Judges what a run declares of each table, and remembers what it may do. Answers, in the order of the replicas, why
/// a table is refused.
pub fn judge(
    database: &Database,
    declared: &Declared,
    replicas: &mut [Replica],
) -> Answer<Vec<Option<Problem>>> {
    let mut refusals = Vec::with_capacity(replicas.len());
    let (mut ways, mut refused_tables, mut only_read) = (BTreeSet::new(), Vec::new(), Vec::new());
    // Whether a run may write to the local database.
    let mut is_written = false;
    for replica in replicas.iter_mut() {
        let Some(&direction) = declared.directions.get(&replica.table.name) else {
            refusals.push(None);
            continue;
        };
        let refusal = refused(database, declared, replica, direction)?;
        ways.insert(direction.name());
        if refusal.is_some() {
            refused_tables.push(replica.table.table_id);
        } else if !direction.writes_remote() {
            only_read.push(replica.table.table_id);
        }
        if refusal.is_none() && !declared.dry_run {
            is_written |= direction.writes_local();
            replica.turn(database, direction)?;
        }
        refusals.push(refusal);
    }
    if is_written {
        side::seen(database, declared)?;
    }
    lease::declare(database, ways.into_iter().map(str::to_owned).collect(), refused_tables, only_read)?;
    Ok(refusals)
}

/// Why a table may not go this way in this run.
fn refused(
    database: &Database,
    declared: &Declared,
    replica: &mut Replica,
    direction: Direction,
) -> Answer<Option<Problem>> {
    let table = replica.table;
    if !table.allowed.allows(direction) {
        return Ok(Some(forbidden(&table.name, table.allowed, direction.setting())));
    }
    let fits = if direction == Direction::TwoWay { check_fits_two_way(table) } else { Ok(()) };
    let settled = match fits {
        Ok(()) if direction.writes_local() => side::settle(database, declared, replica)?,
        fits => fits,
    };
    Ok(settled.err())
}

/// A way that no administrator allowed.
fn forbidden(name: &str, allowed: Allowed, wanted: &str) -> Problem {
    let words = allowed.words();
    let allowed = if words.is_empty() { "nothing".to_owned() } else { words.join(", ") };
    let wider = [words, vec![wanted]].concat().join(",");
    Problem::new(state::NOT_AUTHORISED, format!("table {name} does not allow direction {wanted}"))
        .detail(format!("It allows {allowed}."))
        .hint(format!(
            "An admin allows it with SELECT plimsoll.set_directions('{}', '{{{wider}}}');",
            name.replace('\'', "''")
        ))
}

/// Makes sure that a table may go this way, unless an admin asks.
///
/// # Errors
/// `NOT_AUTHORISED` where no administrator allowed it.
pub fn check_allowed(database: &Database, table: &Registered, way: Direction) -> Answer<()> {
    if database.admin || table.allowed.allows(way) {
        return Ok(());
    }
    Err(forbidden(&table.name, table.allowed, way.setting()))
}

/// Renews the lease of a run that is about to write to a replica. `way`: the direction that such a call serves, where it
/// serves one alone. See [`lease::renew`].
///
/// # Errors
/// `NOT_AUTHORISED` where the table allows no such way, or the run said that it only reads this one or was refused it.
/// Admins write at any time.
pub fn renew_to_write(
    run_id: Option<i64>,
    database: &Database,
    table: &Registered,
    way: Option<Direction>,
) -> Answer<Option<i64>> {
    match way {
        Some(way) => check_allowed(database, table, way)?,
        None if database.admin || table.allowed.writes_remote() => {}
        None => return Err(forbidden(&table.name, table.allowed, Direction::default().setting())),
    }
    let renewed = lease::renew(run_id, database)?;
    if let Some(run) = &renewed
        && !database.admin
        && (run.refused.contains(&table.table_id) || run.only_read.contains(&table.table_id))
    {
        return Err(not_this_run(run, table, "write to"));
    }
    Ok(renewed.map(|run| run.run_id))
}

/// Renews the lease of a run that is about to record something of a replica, such as rows that either side could not
/// store.
///
/// # Errors
/// `NOT_AUTHORISED` where the table allows no way at all, or the run was refused it. Admins record at any time.
pub fn renew_to_record(run_id: i64, database: &Database, table: &Registered) -> Answer<()> {
    if !database.admin && table.allowed == Allowed::default() {
        return Err(forbidden(&table.name, table.allowed, Direction::default().setting()));
    }
    match lease::renew(Some(run_id), database)? {
        Some(run) if !database.admin && run.refused.contains(&table.table_id) => {
            Err(not_this_run(&run, table, "record anything of"))
        }
        _ => Ok(()),
    }
}

fn not_this_run(run: &Renewed, table: &Registered, act: &str) -> Problem {
    let message = format!("run {} may not {act} {}", run.run_id, table.name);
    Problem::new(state::NOT_AUTHORISED, message)
        .detail("It said when it began that it only reads the table, or was refused it.")
        .hint("Begin a run with another direction for the table: the argument directions of plimsoll.begin_run.")
}
