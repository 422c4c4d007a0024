//! A session that makes random transactions: isolation levels, savepoints, rollbacks, and comparisons in the
//! midst of them.

use std::collections::BTreeMap;
use std::io::Write;

use fastrand::Rng;
use postgres::error::SqlState;
use postgres::{Client, Error};

use crate::judge::compare;
use crate::statements::{Actor, Statement, any};
use crate::values::range;
use crate::world::World;

/// What an application of random statements has to expect: constraints, values beyond their type, one row
/// twice in an upsert or MERGE, deadlocks of its own making, snapshots that are too old; and a rebuild refused within
/// one snapshot, or before deferred triggers have fired.
const EXPECTED: [&str; 9] = ["23505", "23503", "23514", "22003", "21000", "40P01", "40001", "55000", "55006"];

/// A transaction with one snapshot for all its statements. A TRUNCATE by others would empty the tables even for
/// those who look at an older snapshot, were they not locked before it is taken.
pub const SNAPSHOT: &str = "RESET ROLE; BEGIN ISOLATION LEVEL REPEATABLE READ;
    LOCK TABLE yard.ship, yard.crate IN ACCESS SHARE MODE";

/// What became of statements and comparisons.
#[derive(Debug, Default)]
pub struct Tally {
    pub statements: u64,
    /// Statements and commits that failed, by SQLSTATE.
    pub failed: BTreeMap<String, u64>,
    pub comparisons: u64,
    /// Comparisons of a kept answer; the others were answered by a scan.
    pub kept: u64,
    pub savepoints: u64,
    pub rollbacks: u64,
    pub commits: u64,
}

impl Tally {
    /// Adds another session's.
    pub fn add(&mut self, other: Tally) {
        self.statements += other.statements;
        self.comparisons += other.comparisons;
        self.kept += other.kept;
        self.savepoints += other.savepoints;
        self.rollbacks += other.rollbacks;
        self.commits += other.commits;
        for (state, count) in other.failed {
            *self.failed.entry(state).or_default() += count;
        }
    }
}

pub struct Session<'w> {
    world: &'w World<'w>,
    client: Client,
    rng: Rng,
    pub tally: Tally,
    /// The statements of the transaction under way, for the message when a comparison fails.
    story: Vec<String>,
    /// Whether the connection is a new one since the last statement: the transaction ended with the old one.
    lost: bool,
}

impl<'w> Session<'w> {
    pub fn new(world: &'w World<'w>, rng: Rng) -> Self {
        let client = world.connect();
        Session { world, client, rng, tally: Tally::default(), story: Vec::new(), lost: false }
    }

    /// Makes transactions until as many statements were tried. Every `compare_one_of` statements a comparison
    /// is made, within the transaction or after it.
    pub fn live(&mut self, statements: u64, compare_one_of: u32) {
        let until = self.tally.statements + statements;
        while self.tally.statements < until {
            self.story.clear();
            if self.rng.u8(..4) == 0 {
                self.statement();
                self.lost = false;
            } else {
                self.transaction(compare_one_of);
            }
            if self.rng.u32(..compare_one_of) == 0 {
                self.compare();
            }
        }
    }

    fn transaction(&mut self, compare_one_of: u32) {
        let one_snapshot = self.rng.u8(..3) == 0;
        let begin = if one_snapshot { SNAPSHOT } else { "BEGIN ISOLATION LEVEL READ COMMITTED" };
        let outcome = self.client.batch_execute(begin);
        self.story.push(begin.to_owned());
        if !self.went_well(outcome, begin) {
            return self.control("ROLLBACK");
        }
        let mut savepoints = 0;
        for _ in 0..self.rng.u32(1..7) {
            if self.rng.u8(..3) == 0 {
                savepoints += 1;
                self.control(&format!("SAVEPOINT s{savepoints}"));
            }
            if !self.statement() {
                if std::mem::take(&mut self.lost) {
                    self.tally.rollbacks += 1;
                    return;
                }
                if savepoints == 0 || self.rng.u8(..4) == 0 {
                    self.tally.rollbacks += 1;
                    return self.control("ROLLBACK");
                }
                self.back_to(&mut savepoints);
            }
            match self.rng.u8(..12) {
                0 if savepoints > 0 => self.back_to(&mut savepoints),
                1 if savepoints > 0 => {
                    self.control(&format!("RELEASE SAVEPOINT s{savepoints}"));
                    savepoints -= 1;
                }
                _ => {}
            }
            if self.rng.u32(..compare_one_of) == 0 && !self.compare() {
                self.tally.rollbacks += 1;
                return self.control("ROLLBACK");
            }
        }
        if self.rng.u8(..6) == 0 {
            self.tally.rollbacks += 1;
            return self.control("ROLLBACK");
        }
        self.story.push("COMMIT".to_owned());
        let outcome = self.client.batch_execute("COMMIT");
        self.tally.commits += u64::from(self.went_well(outcome, "COMMIT"));
    }

    /// Undoes what was done since one of the savepoints, which stays.
    fn back_to(&mut self, savepoints: &mut u32) {
        *savepoints = self.rng.u32(1..=*savepoints);
        self.tally.savepoints += 1;
        self.control(&format!("ROLLBACK TO SAVEPOINT s{savepoints}"));
    }

    /// A statement that cannot fail.
    fn control(&mut self, sql: &str) {
        self.story.push(sql.to_owned());
        self.client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}\n{:#?}", self.story));
    }

    /// Makes a random statement; answers whether it went well.
    fn statement(&mut self) -> bool {
        let statement = any(self.world, &mut self.rng);
        self.tally.statements += 1;
        self.story.push(statement.sql.clone());
        let outcome = self.execute(&statement);
        if outcome.is_err() && statement.copied.is_some() {
            // The client library may have an answer to a COPY that failed left over, and takes it for the next.
            self.client = self.world.connect();
            self.lost = true;
        }
        self.went_well(outcome, &statement.sql)
    }

    fn execute(&mut self, statement: &Statement) -> Result<(), Error> {
        let role = match statement.actor {
            Actor::Application => &self.world.application,
            Actor::Agent => &self.world.agent,
        };
        self.client.batch_execute(&format!("SET ROLE {role}"))?;
        match &statement.copied {
            None => self.client.batch_execute(&statement.sql),
            Some(lines) => {
                let mut writer = self.client.copy_in(statement.sql.as_str())?;
                writer.write_all(lines.as_bytes()).expect("lines are sent");
                writer.finish().map(drop)
            }
        }
    }

    fn went_well(&mut self, outcome: Result<(), Error>, sql: &str) -> bool {
        let Err(error) = outcome else { return true };
        let state = error.code().map(|state| state.code().to_owned());
        let expected = state.as_deref().is_some_and(|state| EXPECTED.contains(&state));
        assert!(expected, "{sql}: {error:?}\n{:#?}", self.story);
        *self.tally.failed.entry(state.unwrap_or_default()).or_default() += 1;
        false
    }

    /// Compares a replica, as this transaction sees it. Whether it could: what the transaction locked before may make it the
    /// victim of a deadlock with a TRUNCATE.
    fn compare(&mut self) -> bool {
        let replicas: Vec<_> = self.world.replicas().collect();
        let (tenant, relation) = replicas[self.rng.usize(..replicas.len())];
        let range = range(&mut self.rng);
        self.control("RESET ROLE");
        let verdict = compare(&mut self.client, tenant, relation, range);
        let verdict = match verdict {
            Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => {
                *self.tally.failed.entry("40P01".to_owned()).or_default() += 1;
                return false;
            }
            verdict => verdict.unwrap_or_else(|error| panic!("{error:?}\n{:#?}", self.story)),
        };
        let kept = verdict.unwrap_or_else(|wrong| panic!("{wrong}\n{:#?}", self.story));
        self.tally.comparisons += 1;
        self.tally.kept += u64::from(kept);
        true
    }
}
