//! What a table's machines share in one run: its report, the rows that the target would not take, and how
//! large batches are.

use std::collections::{HashMap, HashSet};

use super::{Event, Settings, TableReport};
use crate::batch::{BatchAim, FIRST_BATCH_ROWS, next_batch};
use crate::digest::RowDigest;
use crate::manifest::Item;
use crate::store::{
    BadRow, BatchKind, BatchLimit, BatchRecord, KeyId, ROW_ROOM, Rejected, SourceKey, SourceRecord,
    TableShape,
};

/// Batches of the run that count for sizing.
const RECENT: usize = 50;

/// What a table's machines share.
#[derive(Debug)]
pub(super) struct Ledger {
    pub settings: Settings,
    pub shape: TableShape,
    pub report: TableReport,
    pub events: Vec<Event>,
    /// Rows not stored, by identity.
    known: HashMap<KeyId, Rejected>,
    /// The same rows as a window sees them.
    refused: HashSet<Item>,
    /// Those of them whose key is another row's too, which is stored, and how many are equal.
    doubles: HashMap<Item, u64>,
    /// Those that no encoding holds, and where they stand.
    bad: HashMap<KeyId, Option<i64>>,
    /// Older versions of such rows, which stay on the target, and whose they are.
    kept: HashMap<Item, KeyId>,
    /// Rows of the target for which the source's row of that key was sent, and its digest, where the target may hold several
    /// of one key. Rows that no encoding holds are told apart by the key alone.
    answered: HashMap<(KeyId, Item), RowDigest>,
    /// Whether a row was rejected that was not one of those remembered.
    pub newly_rejected: bool,
    /// Rejections since a row was last stored.
    pub rejected_in_a_row: u32,
    /// Whether a row waits for a unique value whose holder is gone from the source, and so is excess that
    /// windows have yet to find.
    pub holder_gone: bool,
    /// Why a row that is gone from the source is still on the target.
    pub blocked_by: Option<String>,
    /// Rows sent in this run.
    pub sent_rows: u64,
    /// Batches to be recorded on the target.
    pub records: Vec<BatchRecord>,
    history: Vec<BatchRecord>,
}

impl Ledger {
    pub fn new(settings: Settings, shape: TableShape) -> Self {
        Ledger {
            settings,
            shape,
            report: TableReport::default(),
            events: Vec::new(),
            known: HashMap::new(),
            refused: HashSet::new(),
            doubles: HashMap::new(),
            bad: HashMap::new(),
            kept: HashMap::new(),
            answered: HashMap::new(),
            newly_rejected: false,
            rejected_in_a_row: 0,
            holder_gone: false,
            blocked_by: None,
            sent_rows: 0,
            records: Vec::new(),
            history: Vec::new(),
        }
    }

    /// Takes note of a row that an earlier run did not store. One of a keyless table that waits has no key by which it
    /// could be tried again: it is missing like any other row, until it was tried.
    pub fn load_rejected(&mut self, rejected: Rejected) {
        if self.shape.keyless && rejected.waits {
            self.known.insert(rejected.key_id, rejected);
        } else {
            self.note_rejected(rejected);
        }
    }

    /// Takes note of a row that is still not stored, and of which all is remembered.
    pub fn note_refused(&mut self, rejected: &Rejected) {
        let is_new = item_of(rejected).is_some_and(|item| self.refused.insert(item));
        // The comparison that found it missing did not count its copies as such that the target would not take.
        self.newly_rejected |= is_new && self.shape.keyless;
    }

    /// Takes note of what the source has of a row that was not stored: whether it can be encoded now, and where it
    /// stands.
    pub fn note_found(&mut self, record: &SourceRecord) {
        match record {
            SourceRecord::Bad(bad) if bad.shares_key => drop(self.bad.remove(&bad.key.id())),
            SourceRecord::Bad(bad) => self.note_bad(bad),
            SourceRecord::Row(row) => drop(self.bad.remove(&SourceKey::Encoded(row.key.clone()).id())),
        }
    }

    /// Takes note of a row that no encoding holds.
    pub fn note_bad(&mut self, row: &BadRow) {
        self.bad.insert(row.key.id(), row.position);
    }

    /// Takes note of a row that was not stored.
    pub fn note_rejected(&mut self, rejected: Rejected) {
        if let Some(earlier) = self.known.remove(&rejected.key_id) {
            self.take_out(&earlier);
        }
        match item_of(&rejected) {
            Some(item) if self.is_raw(&rejected) => *self.doubles.entry(item).or_default() += 1,
            item => self.refused.extend(item),
        }
        self.known.insert(rejected.key_id, rejected);
    }

    /// Whether a row of its own key, the source's, and not the encoded one: no encoding holds it, or its encoded key is
    /// another row's too.
    fn is_raw(&self, rejected: &Rejected) -> bool {
        !self.shape.keyless && matches!(rejected.key, SourceKey::Raw(_))
    }

    /// Windows see the row as any other again.
    fn take_out(&mut self, rejected: &Rejected) {
        let Some(item) = item_of(rejected) else { return };
        if !self.is_raw(rejected) {
            self.refused.remove(&item);
        } else if let Some(rows) = self.doubles.get_mut(&item) {
            *rows -= 1;
            if *rows == 0 {
                self.doubles.remove(&item);
            }
        }
    }

    /// Takes note that a row is no longer one of those not stored.
    pub fn forget_rejected(&mut self, key_id: &KeyId) {
        if let Some(known) = self.known.remove(key_id) {
            self.take_out(&known);
            self.bad.remove(key_id);
            self.kept.retain(|_, owner| owner != key_id);
        }
    }

    /// Whether any row is one of those not stored.
    pub fn knows_any(&self) -> bool {
        !self.known.is_empty()
    }

    /// Whether the row is one of those not stored, whatever its content.
    pub fn is_known(&self, key_id: &KeyId) -> bool {
        self.known.contains_key(key_id)
    }

    /// Whether exactly this is remembered.
    pub fn knows(&self, rejected: &Rejected) -> bool {
        self.known.get(&rejected.key_id).is_some_and(|known| {
            (known.source_digest, known.waits) == (rejected.source_digest, rejected.waits)
        })
    }

    /// What is remembered of the row, where its content is still what was not stored.
    pub fn unchanged(&self, record: &SourceRecord) -> Option<&Rejected> {
        // An identity costs a hash.
        if self.known.is_empty() {
            return None;
        }
        let (id, digest) = match record {
            SourceRecord::Row(row) => (SourceKey::Encoded(row.key.clone()).id(), row.item.digest),
            SourceRecord::Bad(bad) => (bad.key.id(), bad.source_digest),
        };
        self.known.get(&id).filter(|known| known.source_digest == digest)
    }

    /// Whether a window's source row is one that the target would not take.
    pub fn is_refused(&self, item: &Item) -> bool {
        self.refused.contains(item) || self.is_double(item)
    }

    /// Whether a row, as a window sees it, is not sent because its key is another row's too.
    pub fn is_double(&self, item: &Item) -> bool {
        !self.doubles.is_empty() && self.doubles.contains_key(item)
    }

    /// Of a window's source rows, which ascend, those that the target takes. A row may be equal to the one that is stored
    /// of their common key: then it is left out, and the other is not.
    pub fn taken<'a>(&'a self, items: &'a [Item]) -> impl Iterator<Item = &'a Item> {
        let (mut before, mut left) = (None, 0);
        items.iter().filter(move |item| {
            if self.refused.contains(item) {
                return false;
            }
            if before.replace(*item) != Some(*item) {
                left = self.doubles.get(*item).copied().unwrap_or(0);
            }
            let is_double = left > 0;
            left = left.saturating_sub(1);
            !is_double
        })
    }

    /// The source's rows that the target would not take, as they stand on the source; of equal ones, one.
    pub fn refused_items(&self) -> impl Iterator<Item = Item> {
        let encoded = self.known.values().filter(|known| !self.bad.contains_key(&known.key_id));
        encoded.filter_map(item_of).filter(|item| self.is_refused(item))
    }

    /// Where the remembered rows stand that no encoding holds; `None`: nowhere.
    pub fn bad_positions(&self) -> impl Iterator<Item = Option<i64>> {
        self.bad.iter().filter(|(id, _)| self.known.contains_key(*id)).map(|(_, position)| *position)
    }

    /// Takes note of the older version of a row that the target would not take in its present form.
    pub fn keep(&mut self, item: Item, owner: KeyId) {
        if self.kept.insert(item, owner).is_none() {
            self.report.stale += 1;
        }
    }

    /// Takes note that the source's row with this digest was sent for a row of the target.
    pub fn answer(&mut self, key: KeyId, item: Item, digest: RowDigest) {
        self.answered.insert((key, item), digest);
    }

    /// Whether the source's row, as it is, was sent for this row of the target, which is there still: then this may be another
    /// row of the key.
    pub fn is_answered(&self, key: KeyId, item: Item, digest: RowDigest) -> bool {
        self.answered.get(&(key, item)) == Some(&digest)
    }

    /// From here on it is as if nothing had been sent for the row: where it is not deleted, it is sent again.
    pub fn forget_answer(&mut self, key: KeyId, item: Item) {
        self.answered.remove(&(key, item));
    }

    /// How many older versions of rows not stored are known.
    pub fn kept_count(&self) -> usize {
        self.kept.len()
    }

    /// Older versions of rows not stored, and whose they are.
    pub fn kept(&self) -> impl Iterator<Item = (&Item, &KeyId)> {
        self.kept.iter()
    }

    /// The keys of the rows not stored; of those that wait only, where `waiting`.
    pub fn known_keys(&self, waiting: bool) -> Vec<SourceKey> {
        let mut rows: Vec<&Rejected> = self.known.values().filter(|row| row.waits || !waiting).collect();
        rows.sort_by_key(|row| (row.position, row.key_id));
        rows.into_iter().map(|row| row.key.clone()).collect()
    }

    /// How many rows are rejected, and how many wait.
    pub fn counts(&self) -> (u64, u64) {
        let waiting = self.known.values().filter(|row| row.waits).count();
        ((self.known.len() - waiting) as u64, waiting as u64)
    }

    /// Takes over the history of earlier runs, newest first.
    pub fn load_history(&mut self, history: Vec<BatchRecord>) {
        self.history.extend(history);
    }

    /// Adds a batch to the history.
    pub fn add_batch(&mut self, batch: BatchRecord) {
        self.records.push(batch);
        self.history.insert(0, batch);
        self.history.truncate(RECENT);
    }

    /// How many rows may be fetched at once where a call is bounded by rows alone: as many as have the
    /// bytes of a batch, going by the rows sent so far.
    pub fn fetch_rows(&self) -> usize {
        let (rows, bytes) = self.history.iter().fold((0, 0), |(rows, bytes), batch| match batch.kind {
            BatchKind::Upload => (rows + batch.rows, bytes + batch.bytes),
            _ => (rows, bytes),
        });
        let rows = match bytes {
            0 => FIRST_BATCH_ROWS as u64,
            bytes => {
                let kept = bytes.saturating_add(rows.saturating_mul(ROW_ROOM as u64));
                rows.saturating_mul(self.settings.max_batch_bytes as u64) / kept
            }
        };
        usize::try_from(rows).unwrap_or(usize::MAX).clamp(1, self.settings.max_batch_rows.max(1))
    }

    /// How large the next batch is.
    pub fn next_batch(&self) -> BatchLimit {
        let aim = BatchAim {
            target_micros: self.settings.target_batch,
            max_rows: self.settings.max_batch_rows,
            max_bytes: self.settings.max_batch_bytes,
        };
        next_batch(&self.history, &aim)
    }
}

fn item_of(rejected: &Rejected) -> Option<Item> {
    Some(Item { position: rejected.position?, digest: rejected.source_digest })
}
