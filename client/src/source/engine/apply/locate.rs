//! Finding the rows that changes are about: by an index under the spellings that are likely, and, where a key may be
//! spelled otherwise, among the few keys that are, which one pass over all keys finds once in a run.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use plimsoll_core::digest::RowDigest;
use plimsoll_core::store::{BadRow, Outcome, SourceKey};

use super::{Apply, Current, Job, Wanted};
use crate::failure::table as refused;
use crate::source::engine::all_rows;
use crate::source::engine::encode::{Encoded, Encoder, put_order};
use crate::source::engine::{Step, Trouble};
use crate::source::kind::LocalRow;
use crate::source::plan::{Origin, TablePlan};
use crate::source::query::{Query, RawValue, Select, put_raw, read_raw};
use crate::source::write::{Place, WriteKind};

/// More keys than this that are spelled oddly are not kept: all are looked through for each batch.
const MOST_ODD: usize = 100_000;

/// Keys that are spelled in a way that is not looked up.
#[derive(Debug)]
pub enum OddKeys {
    /// All of them, by their encoded key.
    Known(HashMap<Vec<u8>, Vec<Vec<RawValue>>>),
    /// Too many.
    Many,
}

/// What is seen of a row.
pub(super) struct Seen {
    pub key: Option<Vec<u8>>,
    pub content: Result<RowDigest, RowDigest>,
    pub position: Option<i64>,
    pub bad: Option<BadRow>,
}

/// What a row of a query is.
pub(super) fn see<R: LocalRow>(encoder: &mut Encoder, plan: &TablePlan, row: &R) -> Seen {
    match encoder.encode(plan, row) {
        Encoded::Good(position) => {
            let item = encoder.item(position);
            let key = Some(encoder.key().to_vec());
            Seen { key, content: Ok(item.digest), position: Some(position), bad: None }
        }
        Encoded::Bad(bad) => {
            let key = match &bad.key {
                SourceKey::Encoded(key) => Some(key.clone()),
                SourceKey::Raw(_) | SourceKey::Long(_) => None,
            };
            Seen { key, content: Err(bad.source_digest), position: bad.position, bad: Some(bad) }
        }
    }
}

/// How statements name a row of a query.
pub(super) fn place_of<R: LocalRow>(plan: &TablePlan, row: &R) -> Place {
    let mut raw = Vec::new();
    put_order(plan, row, &mut raw);
    let id = plan.row_id.as_ref().map(|_| {
        let mut bytes = Vec::new();
        let class = row.raw(plan.columns.len(), &mut bytes);
        RawValue { class, bytes }
    });
    Place { id, order: read_raw(&raw).unwrap_or_default() }
}

impl<K: WriteKind> Apply<'_, K> {
    /// Hands out the rows with these values in the columns of the plan's order.
    pub(super) fn each_of(
        &mut self,
        keys: &[Vec<RawValue>],
        lock: bool,
        mut each: impl FnMut(&mut Encoder, &K::Row<'_>),
    ) -> Outcome<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let query = all_rows(self.reader.table, &self.write.plan);
        let encoder = &mut *self.reader.encoder;
        self.reader.kind.stream_keys(&query, keys, lock, &mut |row| {
            each(encoder, row);
            ControlFlow::Continue(())
        })
    }

    /// Finds the row that there is of each change.
    pub(super) fn locate(&mut self, jobs: &mut [Job<'_>], lock: bool) -> Outcome<()> {
        let (mut keys, mut unsure) = (Vec::with_capacity(jobs.len()), Vec::new());
        for (at, job) in jobs.iter().enumerate() {
            keys.extend(job.own.clone());
            if job.key.is_empty() || (job.own.is_some() && self.is_found_as_written()) {
                continue;
            }
            let (spellings, complete) = self.reader.spellings(job.key);
            keys.extend(spellings.into_iter().filter(|spelling| job.own.as_ref() != Some(spelling)));
            if !complete {
                unsure.push(at);
            }
        }
        self.take_up(jobs, &keys, lock)?;
        // A row that goes beside another one needs both to be found.
        let is_unfound = |job: &Job<'_>| match job.expected {
            Wanted::Surplus { .. } => job.verdict().is_none(),
            Wanted::Expected(_) | Wanted::Bad(_) => job.found.is_none(),
        };
        let unfound: Vec<usize> = unsure.into_iter().filter(|at| is_unfound(&jobs[*at])).collect();
        if unfound.is_empty() {
            return Ok(());
        }
        let asked: HashSet<&[u8]> = unfound.iter().map(|at| jobs[*at].key).collect();
        let odd = self.odd_keys(&asked)?;
        self.take_up(jobs, &odd, lock)
    }

    /// Finds the rows that have no key by which they could be looked up, in one pass: that of each change once.
    pub(super) fn locate_content(&mut self, jobs: &mut [Job<'_>]) -> Outcome<()> {
        let mut asked: HashMap<RowDigest, Vec<usize>> = HashMap::new();
        for (at, job) in jobs.iter().enumerate().filter(|(_, job)| job.is_of_content()) {
            if let Wanted::Bad(digest) = job.expected {
                asked.entry(digest).or_default().push(at);
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        let plan = &self.write.plan;
        let mut found: Vec<(usize, Current)> = Vec::new();
        let pass = self.reader.each(&all_rows(self.reader.table, plan), |encoder, row| {
            let seen = see(encoder, plan, row);
            let is_asked = seen.bad.as_ref().is_some_and(|bad| matches!(bad.key, SourceKey::Long(_)));
            if let (true, Err(digest)) = (is_asked, seen.content)
                && let Some(at) = asked.get_mut(&digest).and_then(Vec::pop)
            {
                let (content, position) = (seen.content, seen.position);
                found.push((at, Current { at: place_of(plan, row), content, position }));
            }
            Ok(ControlFlow::Continue(()))
        });
        pass.map_err(|trouble| self.told(trouble))?;
        found.into_iter().for_each(|(at, row)| jobs[at].found = Some(row));
        Ok(())
    }

    /// Reads the rows of these keys, and gives them to their changes.
    fn take_up(&mut self, jobs: &mut [Job<'_>], keys: &[Vec<RawValue>], lock: bool) -> Outcome<()> {
        let by_key: HashMap<&[u8], usize> =
            (0..jobs.len()).filter(|at| !jobs[*at].key.is_empty()).map(|at| (jobs[at].key, at)).collect();
        let by_own: HashMap<&[RawValue], usize> = (0..jobs.len())
            .filter(|at| jobs[*at].key.is_empty())
            .filter_map(|at| Some((jobs[at].own.as_deref()?, at)))
            .collect();
        let mut found: Vec<(usize, Current)> = Vec::with_capacity(keys.len());
        let plan = &self.write.plan;
        self.each_of(keys, lock, |encoder, row| {
            let seen = see(encoder, plan, row);
            let at = place_of(plan, row);
            let job = match &seen.key {
                Some(key) => by_key.get(key.as_slice()),
                None => by_own.get(at.order.as_slice()),
            };
            if let Some(job) = job {
                found.push((*job, Current { at, content: seen.content, position: seen.position }));
            }
        })?;
        for (job, current) in found {
            let job = &mut jobs[job];
            // Of several that are one in the managed table, the one that is named, else the one that is sent.
            let wanted = job.expected;
            let rank = |row: &Current| {
                let is_named = wanted.names(row.content);
                (is_named, row.content.is_err(), row.position, std::cmp::Reverse(raw_of(&row.at.order)))
            };
            let other = match job.found.take() {
                Some(other) if is_same(&other.at, &current.at) => {
                    job.found = Some(other);
                    continue;
                }
                Some(other) if rank(&other) < rank(&current) => {
                    job.found = Some(current);
                    Some(other)
                }
                Some(other) => {
                    job.found = Some(other);
                    Some(current)
                }
                None => {
                    job.found = Some(current);
                    None
                }
            };
            job.is_doubled |= other.is_some_and(|other| wanted.stays(other.content));
        }
        Ok(())
    }

    fn is_found_as_written(&self) -> bool {
        let (plan, reader) = (&self.write.plan, &self.reader);
        let is_found = |place: &usize| match plan.columns[*place].origin {
            Origin::Column(None) => reader.kind.is_found_as_written(reader.table, plan, *place),
            Origin::Column(Some(_)) | Origin::Absent => false,
            Origin::Constant { .. } => true,
        };
        plan.schema.key_indexes().iter().all(is_found)
    }

    /// The database's own keys of these encoded ones, of those that are spelled oddly.
    fn odd_keys(&mut self, asked: &HashSet<&[u8]>) -> Outcome<Vec<Vec<RawValue>>> {
        if self.odd.is_none() {
            let found = self.find_odd_keys().map_err(|trouble| self.told(trouble))?;
            *self.odd = Some(found);
        }
        match &self.odd {
            Some(OddKeys::Known(odd)) => {
                Ok(asked.iter().filter_map(|key| odd.get(*key)).flatten().cloned().collect())
            }
            _ => {
                let found = self.reader.search(asked).map_err(|trouble| self.told(trouble))?;
                Ok(found.into_values().flatten().filter_map(|raw| read_raw(&raw)).collect())
            }
        }
    }

    /// One pass over all keys.
    fn find_odd_keys(&mut self) -> Step<OddKeys> {
        let (table, plan) = (self.reader.table, self.reader.plan);
        let query = Query { select: Select::Key, ..all_rows(table, plan) };
        let places = plan.schema.key_indexes();
        let mut all: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let (mut odd, mut is_many) = (HashMap::<Vec<u8>, Vec<Vec<RawValue>>>::new(), false);
        self.reader.each(&query, |encoder, row| {
            if let Some(key) = encoder.key_alone(plan, row) {
                let key = key.to_vec();
                let mut raw = Vec::new();
                for place in &plan.order {
                    let at = places.iter().position(|other| other == place).unwrap_or(0);
                    put_raw(&mut raw, |out| row.raw(at, out));
                }
                all.push((key, raw));
            }
            is_many = all.len() > MOST_KEYS;
            Ok(if is_many { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if is_many {
            return Ok(OddKeys::Many);
        }
        for (key, raw) in all {
            let Some(raw) = read_raw(&raw) else { continue };
            if !self.reader.spellings(&key).0.contains(&raw) {
                odd.entry(key).or_default().push(raw);
                if odd.len() > MOST_ODD {
                    return Ok(OddKeys::Many);
                }
            }
        }
        Ok(OddKeys::Known(odd))
    }

    fn told(&self, trouble: Trouble) -> plimsoll_core::store::Failure {
        match trouble {
            Trouble::Failed(failure) => failure,
            Trouble::Disorder => {
                refused(format!("the rows of \"{}\" come in no order", self.write.plan.table))
            }
        }
    }
}

/// Keys of a table that are looked at together.
const MOST_KEYS: usize = 1_000_000;

/// Whether two places are one row's, as far as can be told.
fn is_same(one: &Place, other: &Place) -> bool {
    match (&one.id, &other.id) {
        (Some(one), Some(other)) => one == other,
        _ => one.order == other.order,
    }
}

fn raw_of(values: &[RawValue]) -> Vec<u8> {
    let mut raw = Vec::new();
    for value in values {
        put_raw(&mut raw, |out| {
            out.extend_from_slice(&value.bytes);
            value.class
        });
    }
    raw
}
