//! Rows without a key: one more, or one less of those that are equal.

use std::collections::HashMap;
use std::ops::ControlFlow;

use plimsoll_core::digest::RowDigest;
use plimsoll_core::store::{Applied, Outcome, SourceRow};

use super::{Apply, Doomed, other_row, refusal, values_of};
use crate::source::engine::change::other_column;
use crate::source::engine::encode::Encoder;
use crate::source::engine::find::stretches;
use crate::source::engine::{Step, all_rows};
use crate::source::query::{Condition, Query, RawValue};
use crate::source::write::{Done, Place, RowChange, RowError, Savepoint, Stopped, WriteKind, Written};

use super::locate::{place_of, see};

/// What a row is known by: its encoding, or that of its own values where it has none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Content {
    Row(Vec<u8>),
    Bad(RowDigest),
}

/// A row to be added.
struct Addition<'c> {
    number: usize,
    row: &'c SourceRow,
    values: Vec<RawValue>,
}

impl<K: WriteKind> Apply<'_, K> {
    /// Changes of a table without a key: first what goes, then what comes.
    pub(super) fn keyless(
        &mut self,
        changes: &[RowChange<'_>],
        answers: &mut [Option<Applied>],
    ) -> Outcome<()> {
        let mut additions = Vec::new();
        for (number, change) in changes.iter().enumerate() {
            if let RowChange::Upsert { row, .. } = *change {
                match values_of(&*self.reader.kind, self.reader.table, self.write, row) {
                    Ok(values) => additions.push(Addition { number, row, values }),
                    Err(error) => answers[number] = Some(refusal(&self.write.plan, &row.key, error)),
                }
            }
        }
        self.remove(changes, answers)?;
        self.add(&additions, answers)
    }

    /// Finds and locks the rows that deletes would delete, by the places of these in the list.
    pub(super) fn doomed_by_content(&mut self, changes: &[RowChange<'_>]) -> Outcome<Doomed> {
        self.find_doomed_rows(changes).map(|(places, _)| places)
    }

    /// The same, and the deletes whose rows are not there.
    fn find_doomed_rows(&mut self, changes: &[RowChange<'_>]) -> Outcome<(Doomed, Vec<usize>)> {
        let mut gone: HashMap<Content, Vec<usize>> = HashMap::new();
        let (mut positions, mut everywhere) = (Vec::new(), false);
        for (number, change) in changes.iter().enumerate() {
            match *change {
                RowChange::Upsert { .. } => {}
                RowChange::Delete { position, key, .. } => {
                    positions.push(position);
                    gone.entry(Content::Row(key.to_vec())).or_default().push(number);
                }
                // Rows without a key are counted: none is one too many of its key.
                RowChange::DeleteSurplus { .. } => {}
                RowChange::DeleteBad { expected, .. } => {
                    everywhere = true;
                    gone.entry(Content::Bad(expected)).or_default().push(number);
                }
            }
        }
        let (mut places, plan) = (Vec::new(), &self.write.plan);
        if gone.is_empty() {
            return Ok((places, Vec::new()));
        }
        positions.sort_unstable();
        positions.dedup();
        let found = self.candidates(&gone, &positions, everywhere);
        let keys = found.map_err(|trouble| self.told_of(trouble))?;
        self.each_of(&keys, true, |encoder, row| {
            if let Some(number) = gone.get_mut(&content_of(encoder, plan, row)).and_then(Vec::pop) {
                places.push((number, place_of(plan, row)));
            }
        })?;
        Ok((places, gone.into_values().flatten().collect()))
    }

    /// Deletes one row for each delete.
    fn remove(&mut self, changes: &[RowChange<'_>], answers: &mut [Option<Applied>]) -> Outcome<()> {
        let (places, absent) = self.find_doomed_rows(changes)?;
        // Those that are not there are gone already.
        for number in absent {
            self.tally.unchanged += 1;
            answers[number] = Some(Applied::Done);
        }
        let outcomes = self.in_halves(&places, places.len(), |apply, part| {
            let list: Vec<&Place> = part.iter().map(|(_, place)| place).collect();
            apply.reader.kind.delete(apply.reader.table, apply.write, &list)?;
            apply.check_late(list.iter().map(|place| Done { order: &place.order, is_gone: true }))
        })?;
        for ((number, _), refused) in places.iter().zip(outcomes) {
            answers[*number] = Some(match refused {
                None => Applied::Done,
                Some(error) => refusal(&self.write.plan, key_of(&changes[*number]), error),
            });
            self.tally.deleted += u64::from(answers[*number] == Some(Applied::Done));
        }
        Ok(())
    }

    /// Does something with rows, so many at once; where it stops, with the halves of them, until those at fault stand alone.
    /// Answers of each why it was not done.
    fn in_halves<T>(
        &mut self,
        rows: &[T],
        most: usize,
        mut work: impl FnMut(&mut Self, &[T]) -> Result<(), Stopped>,
    ) -> Outcome<Vec<Option<RowError>>> {
        let mut refused: Vec<Option<RowError>> = Vec::with_capacity(rows.len());
        let mut parts: Vec<&[T]> = rows.chunks(most.max(1)).rev().collect();
        while let Some(part) = parts.pop() {
            self.reader.kind.savepoint(Savepoint::Set)?;
            let error = match work(self, part) {
                Ok(()) => {
                    self.reader.kind.savepoint(Savepoint::Release)?;
                    refused.extend(part.iter().map(|_| None));
                    continue;
                }
                Err(Stopped::Failed(failure)) => return Err(failure),
                Err(Stopped::At(_, error) | Stopped::Somewhere(error)) => error,
            };
            self.give_back()?;
            if part.len() == 1 {
                refused.push(Some(error));
                continue;
            }
            let (first, second) = part.split_at(part.len() / 2);
            parts.extend([second, first]);
        }
        Ok(refused)
    }

    /// Has constraints looked at that were put off: whatever does not hold is found before the savepoint is released, and
    /// not at the commit of all.
    fn check_late<'d>(&mut self, rows: impl Iterator<Item = Done<'d>>) -> Result<(), Stopped> {
        let rows: Vec<Done<'d>> = rows.collect();
        let broken = self.reader.kind.check(self.reader.table, self.write, &rows)?;
        broken.into_iter().next().map_or(Ok(()), |(_, error)| Err(Stopped::Somewhere(error)))
    }

    /// Rows that may be those, as many of each as are to go.
    fn candidates(
        &mut self,
        gone: &HashMap<Content, Vec<usize>>,
        positions: &[i64],
        everywhere: bool,
    ) -> Step<Vec<Vec<RawValue>>> {
        let (table, plan) = (self.reader.table, self.reader.plan);
        let mut left: HashMap<&Content, usize> =
            gone.iter().map(|(content, numbers)| (content, numbers.len())).collect();
        let mut keys: Vec<Vec<RawValue>> = Vec::new();
        let is_found = self.reader.kind.finds_positions(table, plan)? && !everywhere;
        let mut take = |encoder: &mut Encoder, row: &K::Row<'_>| {
            let is_near = everywhere
                || encoder
                    .position(plan, row)
                    .is_some_and(|position| positions.binary_search(&position).is_ok());
            if is_near
                && let Some(left) = left.get_mut(&content_of(encoder, plan, row)).filter(|left| **left > 0)
            {
                *left -= 1;
                let place = place_of(plan, row);
                // Where equal rows are named alike, one name finds them all.
                if !plan.shares_places || !keys.contains(&place.order) {
                    keys.push(place.order);
                }
            }
            Ok(ControlFlow::Continue(()))
        };
        match is_found {
            true => {
                for range in stretches(positions) {
                    let query = Query { condition: Condition::At(range), ..all_rows(table, plan) };
                    self.reader.each(&query, &mut take)?;
                }
            }
            false => self.reader.each_of_all(&mut take)?,
        }
        Ok(keys)
    }

    /// Puts rows in, and compares what is there then.
    fn add(&mut self, additions: &[Addition<'_>], answers: &mut [Option<Applied>]) -> Outcome<()> {
        let outcomes = self.in_halves(additions, MOST_ROWS, Self::put_in)?;
        for (addition, refused) in additions.iter().zip(outcomes) {
            answers[addition.number] = Some(match refused {
                None => Applied::Done,
                Some(error) => refusal(&self.write.plan, &addition.row.key, error),
            });
            self.tally.inserted += u64::from(answers[addition.number] == Some(Applied::Done));
        }
        Ok(())
    }

    fn put_in(&mut self, part: &[Addition<'_>]) -> Result<(), Stopped> {
        let (kind, encoder) = (&mut *self.reader.kind, &mut *self.reader.encoder);
        let (table, write) = (self.reader.table, self.write);
        let rows: Vec<Written<'_>> =
            part.iter().map(|addition| Written { values: &addition.values, at: None }).collect();
        let mut left: HashMap<RowDigest, usize> = HashMap::with_capacity(part.len());
        part.iter().for_each(|addition| *left.entry(addition.row.item.digest).or_default() += 1);
        let (mut places, mut other) = (Vec::with_capacity(part.len()), None);
        kind.insert_keyless(table, write, &rows, &mut |row| {
            let seen = see(encoder, &write.plan, row);
            let left = seen.content.ok().and_then(|digest| left.get_mut(&digest)).filter(|left| **left > 0);
            match (left, seen.bad) {
                (Some(left), _) => {
                    *left -= 1;
                    places.push(place_of(&write.plan, row));
                }
                (None, Some(bad)) => {
                    other =
                        Some(RowError { sqlstate: bad.sqlstate, column: bad.column, message: bad.message });
                }
                (None, None) => {
                    let stored = encoder.take_row(encoder.item(0)).row;
                    let named = part.first().and_then(|one| other_column(&write.plan, &one.row.row, &stored));
                    other = Some(named.unwrap_or_else(other_row));
                }
            }
        })?;
        if places.len() < part.len() {
            return Err(Stopped::Somewhere(other.unwrap_or_else(|| self.gone())));
        }
        self.check_late(places.iter().map(|place| Done { order: &place.order, is_gone: false }))
    }

    fn told_of(&self, trouble: crate::source::engine::Trouble) -> plimsoll_core::store::Failure {
        match trouble {
            crate::source::engine::Trouble::Failed(failure) => failure,
            crate::source::engine::Trouble::Disorder => {
                crate::failure::table(format!("the rows of \"{}\" come in no order", self.write.plan.table))
            }
        }
    }
}

/// Rows that are put in at once.
const MOST_ROWS: usize = 2_000;

/// The encoded row that a change is about; empty where no encoding holds it.
fn key_of<'c>(change: &RowChange<'c>) -> &'c [u8] {
    match *change {
        RowChange::Upsert { row, .. } => &row.key,
        RowChange::Delete { key, .. } | RowChange::DeleteSurplus { key, .. } => key,
        RowChange::DeleteBad { .. } => &[],
    }
}

fn content_of<R: crate::source::kind::LocalRow>(
    encoder: &mut Encoder,
    plan: &crate::source::plan::TablePlan,
    row: &R,
) -> Content {
    let seen = see(encoder, plan, row);
    match (seen.key, seen.content) {
        (Some(key), Ok(_)) => Content::Row(key),
        (_, Ok(digest) | Err(digest)) => Content::Bad(digest),
    }
}
