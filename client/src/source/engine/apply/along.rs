//! What deletes would take along: rows that refer to what is deleted by a foreign key that acts (CASCADE, SET NULL, SET DEFAULT).

use std::collections::{BTreeSet, HashMap, HashSet};

use plimsoll_core::store::{Outcome, TableId};

use super::{Apply, Engine, Job};
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
        if plan.schema.is_keyless() || !changes.iter().any(deletes) {
            return Ok(TakenAlong::default());
        }
        apply.taken_along(changes).map_err(|failure| plan.explained(failure))
    }
}

impl<K: WriteKind> Apply<'_, K> {
    fn taken_along(&mut self, changes: &[RowChange<'_>]) -> Outcome<TakenAlong> {
        let mut along = TakenAlong::default();
        if !self.reader.kind.takes_along(self.reader.table, self.write)? {
            return Ok(along);
        }
        let mut keys: HashSet<&[u8]> = HashSet::new();
        let deletes =
            changes.iter().enumerate().filter(|(_, change)| !matches!(change, RowChange::Upsert { .. }));
        // Those that are refused are not deleted.
        let mut jobs: Vec<Job<'_>> = deletes
            .filter_map(|(number, change)| self.job(number, change).ok())
            .filter(|job| job.key.is_empty() || keys.insert(job.key))
            .collect();
        self.locate(&mut jobs, true)?;
        let doomed: Vec<(usize, &Place)> = jobs
            .iter()
            .filter(|job| job.verdict() == Some(false))
            .filter_map(|job| Some((job.number, &job.found.as_ref()?.at)))
            .collect();
        let places: Vec<&Place> = doomed.iter().map(|(_, place)| *place).collect();
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
