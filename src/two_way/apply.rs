//! Carries the acts of a batch out: deletes, then rows that are stored, then what deletes waited for, then records. A
//! refused act undoes no other.

use plimsoll_core::store::Applied;
use plimsoll_core::two_way::wire::{Act, Noted};

use super::records;
use crate::access::Database;
use crate::delete::{Removal, delete_expected};
use crate::error::{Answer, Problem, state};
use crate::table::ManagedTable;
use crate::upload::{Change, change};
use crate::{kept, run};

/// The acts of one kind, each with its place among all.
struct Sorted<'a> {
    changes: Vec<(usize, Change<'a>)>,
    removals: Vec<(usize, Removal<'a>)>,
    records: Vec<(usize, Noted<'a>)>,
}

impl<'a> Sorted<'a> {
    fn new(acts: &[Act<'a>]) -> Self {
        let mut sorted = Sorted { changes: Vec::new(), removals: Vec::new(), records: Vec::new() };
        for (place, act) in acts.iter().enumerate() {
            match *act {
                Act::Upsert { row, expected } => sorted.changes.push((place, Change { row, expected })),
                Act::Delete { key, expected, .. } => sorted.removals.push((place, Removal { key, expected })),
                Act::Record(noted) => sorted.records.push((place, noted)),
            }
        }
        sorted
    }
}

fn unzipped<T: Copy>(acts: &[(usize, T)]) -> Vec<T> {
    acts.iter().map(|(_, act)| *act).collect()
}

/// Carries acts out; `planned`: about how many rows the run still deletes. What became of each.
pub fn apply(
    database: &Database,
    table: &mut ManagedTable,
    acts: &[Act<'_>],
    planned: u64,
    run_id: Option<i64>,
) -> Answer<Vec<Applied>> {
    let sorted = Sorted::new(acts);
    let mut outcomes: Vec<Option<Applied>> = vec![None; acts.len()];
    let mut put = |places: &mut dyn Iterator<Item = usize>, applied: Vec<Applied>| {
        places.zip(applied).for_each(|(place, applied)| outcomes[place] = Some(applied));
    };
    let (removed, mut deleted) = delete_expected(database, table, &unzipped(&sorted.removals), planned)?;
    let is_waiting = |applied: &Applied| matches!(applied, Applied::Refused { waits: true, .. });
    let waiting: Vec<(usize, Removal<'_>)> = sorted
        .removals
        .iter()
        .zip(&removed)
        .filter(|(_, applied)| is_waiting(applied))
        .map(|(act, _)| *act)
        .collect();
    put(&mut sorted.removals.iter().map(|(place, _)| *place), removed);
    let (changed, inserted, updated) = change(database, table, &unzipped(&sorted.changes))?;
    put(&mut sorted.changes.iter().map(|(place, _)| *place), changed);
    if !waiting.is_empty() && inserted + updated > 0 {
        // Rows that referred to them may refer to others now.
        let (again, more) = delete_expected(database, table, &unzipped(&waiting), waiting.len() as u64)?;
        put(&mut waiting.iter().map(|(place, _)| *place), again);
        deleted += more;
    }
    let recorded = records::record(database, table, &unzipped(&sorted.records), run_id)?;
    put(&mut sorted.records.iter().map(|(place, _)| *place), recorded);
    kept::fold_if_due(database, table, kept::Due::WhenMany)?;
    if let Some(run_id) = run_id {
        run::add_counts(run_id, inserted, updated, deleted, 0)?;
    }
    let all: Option<Vec<Applied>> = outcomes.into_iter().collect();
    all.ok_or_else(|| Problem::new(state::INTERNAL, "an act without an outcome"))
}
