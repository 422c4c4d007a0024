//! What is found out before a transaction is opened: whether there is anything to write and, where one pass over the source
//! tells it, which ranges differ.

use std::collections::HashSet;

use super::super::kept::root;
use super::super::ledger::Ledger;
use super::super::sweep::{RANGE_ROWS, Swept, expected};
use super::super::{Seen, Status, TableMemory, TableReport};
use super::Snapshot;
use crate::digest::RowDigest;
use crate::fingerprint::Fingerprint;
use crate::manifest::Item;
use crate::ranges::RangeSummary;
use crate::store::{Outcome, PositionRange, RangeHeld, SourceKey, TableId, TableVersion};
use crate::sync::Event;

/// Ranges that the target is asked about at most.
const MOST_RANGES: u64 = 1_024;
/// Rows not stored that are looked up at once.
const KEYS_AT_ONCE: usize = 1_000;

/// What was found out about a table.
pub(super) enum Looked {
    /// It is level, or would be but for rows that cannot be stored; it is reported and remembered as such.
    Level,
    /// It differs. Where all rows were read for it, in these ranges.
    Differs(Option<Swept>),
}

impl Snapshot<'_> {
    /// Whether the manifests that both sides keep say that a table is level: no row is read for it.
    pub(super) fn is_kept_level(&mut self, table: TableId) -> Outcome<bool> {
        let Some(rows) = self.source.kept(table)? else { return Ok(false) };
        let Some(ledger) = self.begin_look(table)? else { return Ok(false) };
        let remote = root(&self.inputs[table].version);
        let held = RangeHeld { rows, bad: 0 };
        if remote.is_none() || expected(&[PositionRange::ALL], &[held], &ledger).0.first().copied() != remote
        {
            return Ok(false);
        }
        self.is_level(table, rows.row_count(), &ledger)?;
        Ok(true)
    }

    /// Asks the target anew what it says of a table. `None` where rows that were not stored may fit now, or are gone.
    fn begin_look(&mut self, table: TableId) -> Outcome<Option<Ledger>> {
        let mut version = self.target.table_version(table)?;
        let shape = self.inputs[table].shape;
        version.max_position = version.max_position.filter(|_| !shape.hashed);
        self.inputs[table].version = version;
        let mut ledger = Ledger::new(self.settings.clone(), shape);
        let known = self.inputs[table].rejected == 0 || self.load_rejected(table, &mut ledger)?;
        Ok(known.then_some(ledger))
    }

    /// Compares a table as a whole, at the cost of one pass over the source at most, and of less where it is known to differ
    /// without.
    pub(super) fn look(&mut self, table: TableId) -> Outcome<Looked> {
        self.world.event(table, Event::Started { expected_rows: None });
        let Some(ledger) = self.begin_look(table)? else { return Ok(Looked::Differs(None)) };
        let version = self.inputs[table].version;
        let rows = self.source.row_count(table)?;
        if version.row_count == Some(0) && rows > 0 {
            return Ok(Looked::Differs(None));
        }
        if !ledger.knows_any() && !self.source.is_scanned(table)? && self.tops_differ(table, rows)? {
            return Ok(Looked::Differs(None));
        }
        self.pass(table, rows, &ledger)
    }

    /// Whether the two sides differ by what they say of themselves.
    fn tops_differ(&mut self, table: TableId, rows: u64) -> Outcome<bool> {
        let input = &self.inputs[table];
        if input.version.row_count.is_some_and(|remote| remote != rows) {
            return Ok(true);
        }
        Ok(!input.shape.hashed && self.source.max_position(table)? != input.version.max_position)
    }

    /// Takes note of the rows that were not stored. `false` where one of them may fit now, or is gone: only what writes tells.
    fn load_rejected(&mut self, table: TableId, ledger: &mut Ledger) -> Outcome<bool> {
        let (input, memory) = (&self.inputs[table], &self.memories[table]);
        let replanned = memory.plan != input.plan;
        let rejected = self.target.rejected(table)?;
        if replanned || rejected.iter().any(|row| row.waits) {
            return Ok(false);
        }
        let keys: Vec<SourceKey> = rejected.iter().map(|row| row.key.clone()).collect();
        rejected.into_iter().for_each(|row| ledger.load_rejected(row));
        for keys in keys.chunks(KEYS_AT_ONCE) {
            for found in self.source.lookup(table, keys)? {
                let Some(found) = found.filter(|found| ledger.unchanged(found).is_some()) else {
                    return Ok(false);
                };
                ledger.note_found(&found);
            }
        }
        for stale in &memory.stale {
            if ledger.is_known(&stale.key_id) {
                ledger.keep(Item { position: stale.position, digest: RowDigest(stale.digest) }, stale.key_id);
            }
        }
        Ok(true)
    }

    /// Compares what both sides hold in ranges of about equal size, in one pass over the source.
    fn pass(&mut self, table: TableId, rows: u64, ledger: &Ledger) -> Outcome<Looked> {
        let remote_rows = self.inputs[table].version.row_count.unwrap_or(rows);
        let most = (remote_rows / RANGE_ROWS).clamp(2, MOST_RANGES) as u32;
        let remote = self.target.range_manifest(table, &[PositionRange::ALL], most)?;
        let ranges: Vec<PositionRange> = remote.iter().map(|part| part.range).collect();
        let local = self.source.fingerprints(table, &ranges)?;
        let (mut expected, known_bad) = expected(&ranges, &local, ledger);
        if ledger.shape.keyless {
            // Of equal rows one was taken out.
            let mut once = HashSet::new();
            for item in self.refused_rows(table, ledger)? {
                let at = ranges.iter().position(|range| range.contains(item.position));
                if let Some(expected) = at.and_then(|at| expected.get_mut(at)).filter(|_| !once.insert(item))
                {
                    expected.remove(&item.digest);
                }
            }
        }
        let mut swept = Swept { rows: local.iter().map(rows_of).sum(), ..Swept::default() };
        let (mut whole, mut all_expected) = (Fingerprint::default(), Fingerprint::default());
        for (((remote, local), expected), known_bad) in
            remote.iter().zip(&local).zip(&expected).zip(known_bad)
        {
            whole.combine(&local.rows);
            all_expected.combine(expected);
            if remote.agrees(&RangeSummary::new(remote.range, expected)) && local.bad == known_bad {
                swept.equal_rows += rows_of(local);
                swept.refused += rows_of(local).saturating_sub(remote.row_count);
                continue;
            }
            swept.lacking +=
                if local.rows.row_count() >= remote.row_count { local.rows.row_count() } else { 0 };
            swept.differing.push((remote.range, rows_of(local).max(remote.row_count)));
        }
        swept.whole = Some(whole);
        if !swept.differing.is_empty() {
            return Ok(Looked::Differs(Some(swept)));
        }
        // Ranges are compared by short sums, which prove nothing.
        if self.all_of_target(table, &self.inputs[table].version.clone())? == all_expected {
            self.is_level(table, swept.rows, ledger)?;
            return Ok(Looked::Level);
        }
        swept.differing = vec![(PositionRange::ALL, swept.rows)];
        Ok(Looked::Differs(Some(swept)))
    }

    /// All rows of the target: its own sum, where it keeps one, else a scan.
    pub(super) fn all_of_target(&mut self, table: TableId, version: &TableVersion) -> Outcome<Fingerprint> {
        match root(version) {
            Some(root) => Ok(root),
            None => self.target.fingerprint(table, PositionRange::ALL),
        }
    }

    /// Reports and remembers that a table is level as it stands.
    fn is_level(&mut self, table: TableId, rows: u64, ledger: &Ledger) -> Outcome<()> {
        let input = self.inputs[table].clone();
        let (rejected, waiting) = ledger.counts();
        let local_max = if input.shape.hashed { None } else { self.source.max_position(table)? };
        let seen = Seen {
            token: self.token.clone(),
            local_rows: Some(rows),
            local_max,
            remote_rows: input.version.row_count,
            remote_max: input.version.max_position,
            remote_modified: input.version.max_modified,
            remote_sum: input.version.sum,
        };
        let status = match rejected + waiting {
            0 => Status::Level,
            rows => Status::LevelExcept(rows),
        };
        let memory = TableMemory {
            proved_at: Some(self.began),
            proof: Some(seen.clone()).filter(|_| status == Status::Level && self.token.is_some()),
            seen: Some(seen),
            stale: self.memories[table].stale.clone(),
            compared_at: Some(self.began),
            plan: input.plan,
            ..TableMemory::default()
        };
        let report = TableReport {
            status,
            proved_at: Some(self.began),
            rejected,
            waiting,
            stale: ledger.kept_count() as u64,
            windows: 1,
            compared_rows: rows,
            local_rows: Some(rows),
            remote_rows: input.version.row_count,
            ..TableReport::default()
        };
        self.world.event(table, Event::Compared { rows, missing: 0, excess: 0 });
        self.world.event(table, Event::Finished { status });
        self.remember(table, report, memory);
        Ok(())
    }
}

fn rows_of(held: &RangeHeld) -> u64 {
    held.rows.row_count() + held.bad
}
