//! What deletes would delete, and take along: rows that refer to what is deleted by a foreign key that acts (CASCADE, SET NULL,
//! SET DEFAULT).

use std::collections::{BTreeSet, HashMap, HashSet};

use plimsoll_core::store::{Outcome, TableId};

use super::{Apply, Doomed, Engine, Job, Wanted};
use crate::source::write::{Place, RowChange, TakenAlong, WriteKind};

impl<K: WriteKind> Engine<K> {
    /// As [`Transaction::taken_along`](crate::source::write::Transaction::taken_along).
    pub(in super::super) fn taken_along(
        &mut self,
        table: TableId,
        changes: &[RowChange<'_>],
    ) -> Outcome<TakenAlong> {
        let (plan, mut apply) = self.ready(table)?;
        let deletes = |change: &RowChange<'_>| !matches!(change, RowChange::Upsert { .. });
        let mut is_needed = || apply.reader.kind.takes_along(apply.reader.table, apply.write);
        if !changes.iter().any(deletes) || !is_needed().map_err(|failure| plan.explained(failure))? {
            return Ok(TakenAlong::default());
        }
        let doomed = match plan.schema.is_keyless() {
            true => apply.doomed_by_content(changes),
            false => apply.doomed(changes, Alike::Once),
        };
        let along = doomed.and_then(|doomed| apply.taken_along(&doomed));
        along.map_err(|failure| plan.explained(failure))
    }

    /// As [`Transaction::finds`](crate::source::write::Transaction::finds).
    pub(in super::super) fn finds(
        &mut self,
        table: TableId,
        deletes: &[RowChange<'_>],
    ) -> Outcome<Vec<usize>> {
        let (plan, mut apply) = self.ready(table)?;
        let doomed = match plan.schema.is_keyless() {
            true => apply.doomed_by_content(deletes),
            false => apply.doomed(deletes, Alike::Each),
        };
        let doomed = doomed.map_err(|failure| plan.explained(failure))?;
        let mut found: Vec<usize> = doomed.into_iter().map(|(number, _)| number).collect();
        found.sort_unstable();
        Ok(found)
    }
}

/// What is answered of deletes that name the same row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alike {
    /// It is the first one's.
    Once,
    /// It is each one's.
    Each,
}

impl<K: WriteKind> Apply<'_, K> {
    /// The rows that deletes of a list would delete, by their places in it: those of one key one after the other, as
    /// [`keyed`](Self::keyed) deletes them.
    fn doomed(&mut self, changes: &[RowChange<'_>], alike: Alike) -> Outcome<Doomed> {
        let mut doomed = Vec::with_capacity(changes.len());
        let mut jobs: Vec<Job<'_>> = Vec::with_capacity(changes.len());
        let mut keys: HashSet<&[u8]> = HashSet::new();
        let mut named: HashSet<(&[u8], Wanted)> = HashSet::new();
        for (number, change) in changes.iter().enumerate() {
            if matches!(change, RowChange::Upsert { .. }) {
                continue;
            }
            // Those that are refused are not deleted.
            let Ok(job) = self.job(number, change) else { continue };
            if !job.key.is_empty() {
                if !named.insert((job.key, job.expected)) && alike == Alike::Once {
                    continue;
                }
                if !keys.insert(job.key) {
                    self.find_doomed(&mut jobs, &mut doomed)?;
                    keys.clear();
                    keys.insert(job.key);
                }
            }
            jobs.push(job);
        }
        self.find_doomed(&mut jobs, &mut doomed)?;
        Ok(doomed)
    }

    /// The rows of changes whose keys are all different, which are done with then.
    fn find_doomed(&mut self, jobs: &mut Vec<Job<'_>>, doomed: &mut Doomed) -> Outcome<()> {
        self.locate(jobs, true)?;
        self.locate_content(jobs)?;
        for job in jobs.drain(..).filter(|job| job.verdict() == Some(false) && !job.is_unnamed()) {
            doomed.extend(job.found.map(|found| (job.number, found.at)));
        }
        Ok(())
    }

    fn taken_along(&mut self, doomed: &[(usize, Place)]) -> Outcome<TakenAlong> {
        let mut along = TakenAlong::default();
        let places: Vec<&Place> = doomed.iter().map(|(_, place)| place).collect();
        // Rows of the list, by those of it that refer to them.
        let mut parents: HashMap<usize, Vec<(usize, String)>> = HashMap::new();
        let mut extended: HashMap<usize, BTreeSet<String>> = HashMap::new();
        self.reader.kind.referring(self.reader.table, self.write, &places, &mut |found| match found.own {
            Some(own) if own == found.to => {}
            Some(own) => parents.entry(own).or_default().push((found.to, found.table.to_owned())),
            None => {
                *along.rows.entry(found.table.to_owned()).or_default() += found.rows;
                extended.entry(found.to).or_default().insert(found.table.to_owned());
            }
        })?;
        // A row that stays keeps what it refers to.
        let mut stays: Vec<usize> = extended.keys().copied().collect();
        while let Some(row) = stays.pop() {
            for (parent, table) in parents.remove(&row).unwrap_or_default() {
                let is_known = extended.contains_key(&parent);
                extended.entry(parent).or_default().insert(table);
                stays.extend((!is_known).then_some(parent));
            }
        }
        along.by =
            extended.into_iter().filter_map(|(at, tables)| Some((doomed.get(at)?.0, tables))).collect();
        Ok(along)
    }
}
