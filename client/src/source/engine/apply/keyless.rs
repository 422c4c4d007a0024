//! Rows without a key: one more, or one less of those that are equal.

use std::collections::HashMap;
use std::ops::ControlFlow;

use plimsoll_core::digest::RowDigest;
use plimsoll_core::store::{Applied, Outcome, SourceRow};

use super::{Apply, other_row, refusal, values_of};
use crate::source::engine::change::other_column;
use crate::source::engine::encode::Encoder;
use crate::source::engine::find::stretches;
use crate::source::engine::{Step, all_rows};
use crate::source::query::{Condition, Query, RawValue};
use crate::source::write::{Place, RowChange, RowError, Savepoint, Stopped, WriteKind, Written};

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
        let mut gone: HashMap<Content, Vec<usize>> = HashMap::new();
        let (mut positions, mut everywhere) = (Vec::new(), false);
        let mut additions = Vec::new();
        for (number, change) in changes.iter().enumerate() {
            match *change {
                RowChange::Upsert { row, .. } => {
                    match values_of(&*self.reader.kind, self.reader.table, self.write, row) {
                        Ok(values) => additions.push(Addition { number, row, values }),
                        Err(error) => {
                            answers[number] = Some(refusal(&self.write.plan, &row.key, error));
                        }
                    }
                }
                RowChange::Delete { position, key, .. } => {
                    positions.push(position);
                    gone.entry(Content::Row(key.to_vec())).or_default().push(number);
                }
                RowChange::DeleteBad { expected, .. } => {
                    everywhere = true;
                    gone.entry(Content::Bad(expected)).or_default().push(number);
                }
            }
        }
        self.remove(gone, positions, everywhere, answers)?;
        self.add(&additions, answers)
    }

    /// Deletes one row for each of these.
    fn remove(
        &mut self,
        mut gone: HashMap<Content, Vec<usize>>,
        mut positions: Vec<i64>,
        everywhere: bool,
        answers: &mut [Option<Applied>],
    ) -> Outcome<()> {
        if gone.is_empty() {
            return Ok(());
        }
        positions.sort_unstable();
        positions.dedup();
        let found = self.candidates(&gone, &positions, everywhere);
        let keys = found.map_err(|trouble| self.told_of(trouble))?;
        let (mut places, plan) = (Vec::new(), &self.write.plan);
        self.each_of(&keys, true, |encoder, row| {
            if let Some(number) = gone.get_mut(&content_of(encoder, plan, row)).and_then(Vec::pop) {
                places.push((number, place_of(plan, row)));
            }
        })?;
        // Those that are not there are gone already.
        for number in gone.into_values().flatten() {
            self.tally.unchanged += 1;
            answers[number] = Some(Applied::Done);
        }
        let mut parts = vec![places.as_slice()];
        while let Some(part) = parts.pop().filter(|part| !part.is_empty()) {
            self.reader.kind.savepoint(Savepoint::Set)?;
            let list: Vec<&Place> = part.iter().map(|(_, place)| place).collect();
            match self.reader.kind.delete(self.reader.table, self.write, &list) {
                Ok(()) => {
                    self.reader.kind.savepoint(Savepoint::Release)?;
                    for (number, _) in part {
                        self.tally.deleted += 1;
                        answers[*number] = Some(Applied::Done);
                    }
                }
                Err(Stopped::Failed(failure)) => return Err(failure),
                Err(Stopped::At(_, error) | Stopped::Somewhere(error)) => {
                    self.give_back()?;
                    match part {
                        [(number, _)] => answers[*number] = Some(refusal(&self.write.plan, &[], error)),
                        many => {
                            let (first, second) = many.split_at(many.len() / 2);
                            parts.extend([second, first]);
                        }
                    }
                }
            }
        }
        Ok(())
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
        let mut parts = vec![additions];
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            if part.len() > MOST_ROWS {
                let (first, second) = part.split_at(MOST_ROWS);
                parts.extend([second, first]);
                continue;
            }
            self.reader.kind.savepoint(Savepoint::Set)?;
            let error = match self.put_in(part) {
                Ok(()) => {
                    self.reader.kind.savepoint(Savepoint::Release)?;
                    for addition in part {
                        self.tally.inserted += 1;
                        answers[addition.number] = Some(Applied::Done);
                    }
                    continue;
                }
                Err(Stopped::Failed(failure)) => return Err(failure),
                Err(Stopped::At(_, error) | Stopped::Somewhere(error)) => error,
            };
            self.give_back()?;
            match part {
                [one] => answers[one.number] = Some(refusal(&self.write.plan, &one.row.key, error)),
                many => {
                    let (first, second) = many.split_at(many.len() / 2);
                    parts.extend([second, first]);
                }
            }
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
        let (mut matched, mut other) = (0, None);
        kind.insert_keyless(table, write, &rows, &mut |row| {
            let seen = see(encoder, &write.plan, row);
            let left = seen.content.ok().and_then(|digest| left.get_mut(&digest)).filter(|left| **left > 0);
            match (left, seen.bad) {
                (Some(left), _) => {
                    *left -= 1;
                    matched += 1;
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
        if matched == part.len() {
            return Ok(());
        }
        Err(Stopped::Somewhere(other.unwrap_or_else(|| self.gone())))
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
