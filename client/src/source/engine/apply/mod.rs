//! Changes of rows, within an open transaction: each is found under its local spelling and locked, compared with what is
//! expected, written with others of its sort, read back and compared again.
//!
//! | file | what lives there |
//! |---|---|
//! | `locate` | finding the rows that changes are about |
//! | `put` | writing, and what becomes of rows that a constraint refuses |
//! | `holder` | which row holds a unique value for which another one is refused |
//! | `keyless` | rows without a key |
//! | `along` | rows that foreign keys would take along |

mod along;
mod holder;
mod keyless;
mod locate;
mod put;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use plimsoll_core::digest::RowDigest;
use plimsoll_core::manifest::Item;
use plimsoll_core::store::{Applied, Outcome, ShortDigest, SourceKey, SourceRow, TableId};

use super::change::{order_of_key, other_column, refusal, values_of};
use super::encode::Encoder;
use super::{Engine, Reader};
use crate::failure::table as refused;
use crate::source::plan::TablePlan;
use crate::source::query::{RawValue, read_raw};
use crate::source::write::{
    Done, Expected, Place, RowChange, RowError, Savepoint, Stopped, Tally, WriteKind, WritePlan, Written,
};
pub(super) use locate::OddKeys;

/// A change on its way.
struct Job<'c> {
    /// Its place in the list.
    number: usize,
    /// The encoded key, where it is one that can be.
    key: &'c [u8],
    /// The key in the database's own values, where that is known.
    own: Option<Vec<RawValue>>,
    /// What is to be stored, and its values; `None`: nothing.
    row: Option<(&'c SourceRow, Vec<RawValue>)>,
    expected: Wanted,
    /// The row that there is.
    found: Option<Current>,
    /// Whether another one of the key is there, beside which this one may go.
    is_doubled: bool,
}

/// Rows that deletes would delete, each with the place of its delete in the list.
type Doomed = Vec<(usize, Place)>;

/// What a change expects to find.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Wanted {
    Expected(Expected),
    /// A row that no encoding holds.
    Bad(RowDigest),
    /// One row (`None`: that no encoding holds) beside another one of its key.
    Surplus {
        surplus: Option<ShortDigest>,
        stored: RowDigest,
    },
}

impl Wanted {
    /// Whether a row with this content is the one expected, and no other of the key.
    fn names(self, content: Result<RowDigest, RowDigest>) -> bool {
        match (self, content) {
            (Wanted::Expected(Expected::Row(digest)), Ok(found)) => short(&found) == digest,
            (Wanted::Bad(digest), Err(found)) => found == digest,
            (Wanted::Surplus { surplus: Some(digest), .. }, Ok(found)) => short(&found) == digest,
            (Wanted::Surplus { surplus: None, .. }, Err(_)) => true,
            _ => false,
        }
    }

    /// Whether a row with this content is the other one, beside which a row may go.
    fn stays(self, content: Result<RowDigest, RowDigest>) -> bool {
        matches!(self, Wanted::Surplus { stored, .. } if content == Ok(stored))
    }
}

/// A row that there is.
struct Current {
    at: Place,
    /// What it is; the digest of the database's own values where no encoding holds it.
    content: Result<RowDigest, RowDigest>,
    position: Option<i64>,
}

impl Job<'_> {
    /// Whether it is done already; `None` where it is not to be done at all.
    fn verdict(&self) -> Option<bool> {
        let found = self.found.as_ref();
        if let Wanted::Surplus { .. } = self.expected {
            let is_named = found.is_some_and(|found| self.expected.names(found.content));
            return (is_named && self.is_doubled).then_some(false);
        }
        let is_there = match (&self.row, found) {
            (Some((row, _)), Some(found)) => found.content == Ok(row.item.digest),
            (None, None) => true,
            _ => false,
        };
        if is_there {
            return Some(true);
        }
        let is_expected = match (self.expected, found) {
            (Wanted::Expected(Expected::Anything), _) => true,
            (Wanted::Expected(Expected::Absent), found) => found.is_none(),
            (wanted, Some(found)) => wanted.names(found.content),
            _ => false,
        };
        is_expected.then_some(false)
    }

    /// Whether its row is known by its content alone.
    fn is_of_content(&self) -> bool {
        self.key.is_empty() && self.own.is_none()
    }

    /// Whether no statement can name its row alone.
    fn is_unnamed(&self) -> bool {
        self.is_of_content() && self.found.as_ref().is_some_and(|found| found.at.id.is_none())
    }

    fn op(&self) -> Op {
        match (&self.row, &self.found) {
            (None, _) => Op::Delete,
            (Some(_), Some(_)) => Op::Update,
            (Some(_), None) => Op::Insert,
        }
    }

    fn written(&self) -> Written<'_> {
        Written {
            values: self.row.as_ref().map_or(&[], |(_, values)| values.as_slice()),
            at: self.found.as_ref().map(|found| &found.at),
        }
    }

    /// About how many bytes a statement with it has.
    fn bytes(&self) -> usize {
        let values = self.row.iter().flat_map(|(_, values)| values);
        values.map(|value| value.bytes.len() + VALUE_ROOM).sum::<usize>() + VALUE_ROOM
    }
}

/// What a value takes in a statement beside its bytes.
const VALUE_ROOM: usize = 8;

/// What is done with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Delete,
    Update,
    Insert,
}

fn short(digest: &RowDigest) -> ShortDigest {
    plimsoll_core::short::ShortItem::from(&Item { position: 0, digest: *digest }).digest
}

/// One call.
struct Apply<'a, K> {
    reader: Reader<'a, K>,
    write: &'a WritePlan,
    odd: &'a mut Option<OddKeys>,
    tally: &'a mut Tally,
    /// How many holders of unique values were looked for.
    holders_sought: usize,
}

impl<K: WriteKind> Engine<K> {
    /// A call on a table that can be written to, and the table's plan.
    fn ready(&mut self, table: TableId) -> Outcome<(&TablePlan, Apply<'_, K>)> {
        let Engine { kind, tables, row_bytes, encoder, writing, .. } = self;
        let (Some(plan), Some(row_bytes)) = (tables.get(table), row_bytes.get_mut(table)) else {
            return Err(refused("a table outside the run"));
        };
        let (Some(write), Some(odd)) = (writing.plans.get_mut(table), writing.odd.get_mut(table)) else {
            return Err(refused("a table outside the run"));
        };
        let write = write.get_or_insert_with(|| WritePlan::new(plan));
        kind.ready(table, write)?;
        let reader = Reader { kind, table, plan, encoder, snapshot: Duration::MAX, row_bytes };
        Ok((plan, Apply { reader, write, odd, tally: &mut writing.tally, holders_sought: 0 }))
    }

    /// As [`Transaction::apply`](crate::source::write::Transaction::apply).
    pub(super) fn apply(&mut self, table: TableId, changes: &[RowChange<'_>]) -> Outcome<Vec<Applied>> {
        self.writing.tally = Tally::default();
        let (plan, mut apply) = self.ready(table)?;
        let mut answers: Vec<Option<Applied>> = vec![None; changes.len()];
        let answer = match plan.schema.is_keyless() {
            true => apply.keyless(changes, &mut answers),
            false => apply.keyed(changes, &mut answers),
        };
        answer.map_err(|failure| plan.explained(failure))?;
        Ok(answers.into_iter().map(|answer| answer.unwrap_or(Applied::Changed)).collect())
    }
}

impl<K: WriteKind> Apply<'_, K> {
    /// Changes of a table with a key: those of one key one after the other.
    fn keyed(&mut self, changes: &[RowChange<'_>], answers: &mut [Option<Applied>]) -> Outcome<()> {
        let mut jobs: Vec<Job<'_>> = Vec::with_capacity(changes.len());
        let mut keys: HashSet<&[u8]> = HashSet::new();
        for (number, change) in changes.iter().enumerate() {
            let job = match self.job(number, change) {
                Ok(job) => job,
                Err((key, error)) => {
                    answers[number] = Some(refusal(&self.write.plan, key, error));
                    continue;
                }
            };
            if !job.key.is_empty() && !keys.insert(job.key) {
                self.round(&mut jobs, answers)?;
                jobs.clear();
                keys.clear();
                keys.insert(job.key);
            }
            jobs.push(job);
        }
        self.round(&mut jobs, answers)
    }

    fn job<'c>(&self, number: usize, change: &RowChange<'c>) -> Result<Job<'c>, (&'c [u8], RowError)> {
        let (kind, table, write) = (&*self.reader.kind, self.reader.table, self.write);
        let job =
            |key, own, row, expected| Job { number, key, own, row, expected, found: None, is_doubled: false };
        let own_of = |key| order_of_key(kind, table, &write.plan, key);
        Ok(match *change {
            RowChange::Upsert { row, expected } => {
                let values =
                    values_of(kind, table, write, row).map_err(|error| (row.key.as_slice(), error))?;
                let own = write.order_of(&values);
                job(row.key.as_slice(), own, Some((row, values)), Wanted::Expected(expected))
            }
            RowChange::Delete { key, expected, .. } => {
                job(key, own_of(key), None, Wanted::Expected(expected))
            }
            RowChange::DeleteSurplus { key, surplus, stored } => {
                job(key, own_of(key), None, Wanted::Surplus { surplus, stored })
            }
            RowChange::DeleteBad { key: SourceKey::Encoded(key), expected } => {
                job(key, own_of(key), None, Wanted::Bad(expected))
            }
            RowChange::DeleteBad { key: SourceKey::Raw(raw), expected } => {
                job(&[], read_raw(raw), None, Wanted::Bad(expected))
            }
            // Found by its content.
            RowChange::DeleteBad { key: SourceKey::Long(_), expected } => {
                job(&[], None, None, Wanted::Bad(expected))
            }
        })
    }

    /// Changes of keys that are all different.
    fn round(&mut self, jobs: &mut [Job<'_>], answers: &mut [Option<Applied>]) -> Outcome<()> {
        self.locate(jobs, true)?;
        self.locate_content(jobs)?;
        let mut todo = Vec::with_capacity(jobs.len());
        for (at, job) in jobs.iter().enumerate() {
            match job.verdict() {
                _ if job.is_unnamed() => {
                    let message = "its key is NULL, by which no statement finds it alone: delete it by hand";
                    let error =
                        RowError { sqlstate: "22004".to_owned(), column: None, message: message.to_owned() };
                    answers[job.number] = Some(refusal(&self.write.plan, job.key, error));
                }
                Some(true) => {
                    self.tally.unchanged += 1;
                    answers[job.number] = Some(Applied::Done);
                }
                Some(false) => todo.push(at),
                None => answers[job.number] = Some(Applied::Changed),
            }
        }
        self.attempt(jobs, &todo, answers)
    }

    /// Makes changes. What is not kept as it was given is undone with all the others, and those are made again.
    fn attempt(&mut self, jobs: &[Job<'_>], todo: &[usize], answers: &mut [Option<Applied>]) -> Outcome<()> {
        if todo.is_empty() {
            return Ok(());
        }
        self.reader.kind.savepoint(Savepoint::Set)?;
        let mut refused = self.put_all(jobs, todo)?;
        let is_refused: HashSet<usize> = refused.iter().map(|(at, _)| *at).collect();
        let written: Vec<usize> = todo.iter().copied().filter(|at| !is_refused.contains(at)).collect();
        let done = |at: &usize| {
            let job = &jobs[*at];
            let order = job.found.as_ref().map(|found| &found.at.order).or(job.own.as_ref());
            Done { order: order.map_or(&[], Vec::as_slice), is_gone: job.row.is_none() }
        };
        let all: Vec<Done<'_>> = written.iter().map(done).collect();
        let (late, broken) = match self.reader.kind.check(self.reader.table, self.write, &all) {
            Ok(broken) => (None, broken),
            Err(Stopped::Failed(failure)) => return Err(failure),
            Err(Stopped::At(_, error) | Stopped::Somewhere(error)) => (Some(error), Vec::new()),
        };
        if let Some(error) = late {
            self.give_back()?;
            return match todo {
                [one] => {
                    let job = &jobs[*one];
                    answers[job.number] = Some(refusal(&self.write.plan, job.key, error));
                    Ok(())
                }
                many => {
                    let (first, second) = many.split_at(many.len() / 2);
                    self.attempt(jobs, first, answers)?;
                    self.attempt(jobs, second, answers)
                }
            };
        }
        let other = match broken.is_empty() {
            true => self.read_back(jobs, &written)?,
            false => broken.into_iter().map(|(place, error)| (written[place], error)).collect(),
        };
        if !other.is_empty() {
            self.give_back()?;
            let rest: Vec<usize> = todo.iter().copied().filter(|at| !other.contains_key(at)).collect();
            for (at, error) in other {
                let job = &jobs[at];
                answers[job.number] = Some(refusal(&self.write.plan, job.key, error));
            }
            return self.attempt(jobs, &rest, answers);
        }
        self.reader.kind.savepoint(Savepoint::Release)?;
        self.tell_holders(jobs, &mut refused)?;
        for (at, error) in refused.drain(..) {
            let job = &jobs[at];
            answers[job.number] = Some(refusal(&self.write.plan, job.key, error));
        }
        for at in written {
            let job = &jobs[at];
            match job.op() {
                Op::Delete => self.tally.deleted += 1,
                Op::Update => self.tally.updated += 1,
                Op::Insert => self.tally.inserted += 1,
            }
            answers[job.number] = Some(Applied::Done);
        }
        Ok(())
    }

    fn give_back(&mut self) -> Outcome<()> {
        self.reader.kind.savepoint(Savepoint::Undo)?;
        self.reader.kind.savepoint(Savepoint::Release)
    }

    /// Reads what was written, and tells what is not as it was to be.
    fn read_back(&mut self, jobs: &[Job<'_>], written: &[usize]) -> Outcome<HashMap<usize, RowError>> {
        let (mut keys, mut missing) = (Vec::with_capacity(written.len()), HashMap::new());
        let mut by_key: HashMap<&[u8], usize> = HashMap::with_capacity(written.len());
        for at in written.iter().copied() {
            let job = &jobs[at];
            // A row that is changed keeps its key as it was spelled.
            let key = job.found.as_ref().map(|found| &found.at.order).or(job.own.as_ref());
            keys.extend(key.cloned());
            if !job.key.is_empty() {
                by_key.insert(job.key, at);
            }
            if job.row.is_some() {
                missing.insert(at, self.gone());
            }
        }
        let plan = &self.write.plan;
        self.each_of(&keys, false, |encoder: &mut Encoder, row: &K::Row<'_>| {
            let seen = locate::see(encoder, plan, row);
            let Some(at) = seen.key.as_deref().and_then(|key| by_key.get(key)) else { return };
            let Some((wanted, _)) = &jobs[*at].row else {
                let message = "it is still there after it was deleted: a trigger keeps it".to_owned();
                missing.insert(*at, RowError { sqlstate: "22000".to_owned(), column: None, message });
                return;
            };
            if seen.content == Ok(wanted.item.digest) {
                missing.remove(at);
            } else if missing.contains_key(at) {
                let error = match seen.bad {
                    Some(bad) => {
                        RowError { sqlstate: bad.sqlstate, column: bad.column, message: bad.message }
                    }
                    None => {
                        let stored = encoder.take_row(encoder.item(0)).row;
                        other_column(plan, &wanted.row, &stored).unwrap_or_else(other_row)
                    }
                };
                missing.insert(*at, error);
            }
        })?;
        Ok(missing)
    }

    /// What is said of a row that is not there after it was written.
    fn gone(&self) -> RowError {
        let (sqlstate, message) = match &self.write.plan.filter {
            Some(filter) => ("44000", format!("it does not fulfil where = {filter:?} of the configuration")),
            None => {
                ("22000", "it is not there after it was written: a trigger changes or drops it".to_owned())
            }
        };
        RowError { sqlstate: sqlstate.to_owned(), column: None, message }
    }
}

fn other_row() -> RowError {
    let message = "it is another row once it is stored: a trigger changes it".to_owned();
    RowError { sqlstate: "22000".to_owned(), column: None, message }
}
