//! The target of the model.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::{Item, KeyedItem};
use plimsoll_core::ranges::{RangeSummary, in_order};
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::*;

use super::held::{self, Held};
use super::source::{key_in, key_of};
use super::state::{Kind, RemoteRow, State};

pub struct ModelTarget(pub Rc<RefCell<State>>);

impl State {
    /// Why a row cannot be stored beside the others: SQLSTATE and holder.
    fn conflict(
        &self,
        table: TableId,
        rows: &BTreeMap<u64, RemoteRow>,
        key: u64,
    ) -> Option<(&'static str, Option<u64>)> {
        let row = &rows[&key];
        if let (Some(parent), Some(of)) = (row.parent, self.tables[table].parent) {
            let there = if of == table {
                rows.contains_key(&parent)
            } else {
                self.tables[of].remote.contains_key(&parent)
            };
            if !there {
                return Some(("23503", None));
            }
        }
        let unique = row.unique?;
        let holder = rows.iter().find(|(other, row)| **other != key && row.unique == Some(unique));
        holder.map(|(other, _)| ("23505", Some(*other)))
    }
}

impl State {
    /// Deletes one of a keyless table's equal rows.
    fn delete_copy(&mut self, table: TableId, item: Item, deleted: &mut Deleted) {
        let model = &mut self.tables[table];
        let shape = model.shape;
        let copies = model.remote.iter().filter(|(id, row)| row.item(shape, **id) == item);
        let copies: Vec<u64> = copies.map(|(id, _)| *id).collect();
        let Some(id) = copies.first() else { return };
        if model.hold {
            deleted.held += 1;
            return;
        }
        let own = model.local.iter().filter(|(id, row)| row.item(shape, **id) == item).count();
        assert!(self.hook.is_some() || copies.len() > own, "a copy is deleted that the source has");
        model.remote.remove(id);
        deleted.deleted += 1;
    }
}

impl ModelTarget {
    /// The rows of each range as they are when a call takes effect, by position.
    fn held(&self, operation: &'static str, table: TableId, ranges: &[PositionRange]) -> Outcome<Held> {
        assert!(in_order(ranges), "{ranges:?}");
        let mut state = self.0.borrow_mut();
        state.before(operation, table, &[], 0)?;
        let mut items: Vec<Item> = state.tables[table].remote_items().collect();
        items.sort_unstable();
        let of = |range: PositionRange| -> Vec<Item> {
            items.iter().filter(|item| range.contains(item.position)).copied().collect()
        };
        let held: Vec<_> = ranges.iter().map(|range| (*range, of(*range))).collect();
        state.clock += state.cost.1 * held.iter().map(|(_, items)| items.len() as i64).sum::<i64>();
        Ok(held)
    }
}

impl Summaries for ModelTarget {
    fn range_manifest(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        most: u32,
    ) -> Outcome<Vec<RangeSummary>> {
        Ok(held::parts(self.held("range_manifest", table, ranges)?, most))
    }
    fn summaries(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<RangeSummary>> {
        Ok(held::wholes(self.held("summaries", table, ranges)?))
    }
    fn sketch(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        first: u32,
        symbols: u32,
    ) -> Outcome<Vec<u8>> {
        assert!(!self.0.borrow().tables[table].shape.keyless, "symbols over rows without a key");
        Ok(held::sketch(&self.held("sketch", table, ranges)?, ranges, first, symbols))
    }
    fn items(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<ShortItem>> {
        Ok(held::items(&self.held("items", table, ranges)?))
    }
}

impl Target for ModelTarget {
    fn table_version(&mut self, table: TableId) -> Outcome<TableVersion> {
        let mut state = self.0.borrow_mut();
        state.before("table_version", table, &[], 0)?;
        Ok(state.tables[table].remote_version())
    }
    fn fingerprint(&mut self, table: TableId, range: PositionRange) -> Outcome<Fingerprint> {
        let mut state = self.0.borrow_mut();
        state.before("fingerprint", table, &[], 0)?;
        let rows = state.tables[table].remote_items();
        Ok(rows.filter(|item| range.contains(item.position)).map(|item| item.digest).collect())
    }
    fn keys_of(&mut self, table: TableId, items: &[ShortItem]) -> Outcome<Vec<KeyedItem>> {
        let mut state = self.0.borrow_mut();
        state.before("keys_of", table, &[], items.len())?;
        let all = state.tables[table].remote.iter();
        let shape = state.tables[table].shape;
        let keyed =
            all.map(|(key, row)| KeyedItem { item: row.item(shape, *key), key: row.key(shape, *key) });
        if !shape.keyless {
            return Ok(keyed.filter(|row| items.contains(&ShortItem::from(&row.item))).collect());
        }
        let mut wanted: HashMap<ShortItem, usize> = HashMap::new();
        items.iter().for_each(|item| *wanted.entry(*item).or_default() += 1);
        let mut taken = |item: &ShortItem| {
            let copies = wanted.entry(*item).or_default();
            let is_wanted = *copies > 0;
            *copies = copies.saturating_sub(1);
            is_wanted
        };
        Ok(keyed.filter(|row| taken(&ShortItem::from(&row.item))).collect())
    }
    fn upload(&mut self, table: TableId, rows: &[SourceRow]) -> Outcome<Uploaded> {
        let mut state = self.0.borrow_mut();
        let numbers: Vec<u64> = rows.iter().map(|row| key_of(&row.key)).collect();
        let sent: Vec<Vec<u8>> = rows.iter().map(|row| row.row.clone()).collect();
        if let Some((unanswered, _)) = &state.tables[table].unanswered {
            assert_eq!(*unanswered, sent, "an upload that failed is made again before any other");
        }
        if let Err(failure) = state.before("upload", table, &numbers, rows.len()) {
            let known = state.tables[table].unanswered.take();
            state.tables[table].unanswered = Some(known.unwrap_or((sent, None)));
            return Err(failure);
        }
        let unanswered = state.tables[table].unanswered.take();
        if let Some((_, Some(answer))) = unanswered.filter(|_| state.tables[table].shape.keyless) {
            return Ok(answer);
        }
        let mut uploaded = Uploaded::default();
        let mut batch: Vec<(usize, u64, RemoteRow)> = Vec::new();
        let shape = state.tables[table].shape;
        let mut next_id = state.tables[table].remote.keys().last().map_or(0, |last| last + 1);
        let refusal = |ordinal, key: u64, sqlstate: &str, holder: Option<u64>| Refusal {
            ordinal,
            waits: sqlstate.starts_with("23"),
            holder: holder.filter(|_| !shape.keyless).map(super::key_bytes),
            sqlstate: sqlstate.to_owned(),
            column: None,
            key_text: format!("{{\"id\": {key}}}"),
            message: "refused".to_owned(),
        };
        // Of rows of one key the last is taken.
        let decoded = rows.iter().map(|row| RemoteRow::decode(&row.row)).enumerate();
        let taken: HashMap<u64, (usize, RemoteRow)> =
            decoded.filter(|(_, row)| !row.2).map(|(at, (key, row, _))| (key, (at, row))).collect();
        for (ordinal, row) in rows.iter().enumerate() {
            let (mut key, row, poison) = RemoteRow::decode(&row.row);
            if shape.keyless {
                key = next_id;
                next_id += 1;
            }
            let lowers = state.tables[table].remote.get(&key).is_some_and(|now| now.version > row.version);
            let later = taken.get(&key).filter(|(later, _)| *later > ordinal && !shape.keyless);
            if poison {
                uploaded.refused.push(refusal(ordinal, key, "22003", None));
            } else if let Some((_, later)) = later {
                match *later == row {
                    true => uploaded.unchanged += 1,
                    false => uploaded.refused.push(refusal(ordinal, key, TWICE_IN_UPLOAD, None)),
                }
            } else if lowers && state.tables[table].hold {
                uploaded.held += 1;
            } else {
                batch.push((ordinal, key, row));
            }
        }
        // The largest part of the batch that fits as a whole.
        let after = loop {
            let mut after = state.tables[table].remote.clone();
            after.extend(batch.iter().map(|(_, key, row)| (*key, row.clone())));
            let conflicts = batch.iter().enumerate().rev();
            let found = conflicts
                .filter_map(|(at, (_, key, _))| Some((at, state.conflict(table, &after, *key)?)))
                .next();
            let Some((at, (sqlstate, holder))) = found else { break after };
            let (ordinal, key, _) = batch.remove(at);
            uploaded.refused.push(refusal(ordinal, key, sqlstate, holder));
        };
        for (_, key, row) in &batch {
            match state.tables[table].remote.get(key) {
                None => uploaded.inserted += 1,
                Some(now) if now == row => uploaded.unchanged += 1,
                Some(_) => uploaded.updated += 1,
            }
        }
        state.tables[table].remote = after;
        if let Err(failure) = state.after("upload") {
            state.tables[table].unanswered = Some((sent, Some(uploaded)));
            return Err(failure);
        }
        Ok(uploaded)
    }
    fn delete(&mut self, table: TableId, rows: &[KeyedItem], planned: u64) -> Outcome<Deleted> {
        let mut state = self.0.borrow_mut();
        let numbers: Vec<u64> = rows.iter().map(|row| key_of(&row.key)).collect();
        state.before("delete", table, &numbers, rows.len())?;
        assert!(planned >= rows.len() as u64, "a plan of fewer rows than are to be deleted");
        state.tables[table].planned = state.tables[table].planned.max(planned);
        let mut deleted = Deleted::default();
        if state.tables[table].shape.keyless {
            for row in rows {
                state.delete_copy(table, row.item, &mut deleted);
            }
            state.after("delete")?;
            return Ok(deleted);
        }
        let shape = state.tables[table].shape;
        for (at, row) in rows.iter().enumerate() {
            let key = key_of(&row.key);
            assert!(state.absent.contains(&(table, key)), "row {key} was not looked up before its delete");
            if state.tables[table].remote.get(&key).is_none_or(|now| now.item(shape, key) != row.item) {
                continue;
            }
            let allowed = state.allowed.get(&table).is_none_or(|allowed| planned <= *allowed);
            if state.tables[table].hold || !allowed {
                deleted.held += 1;
                continue;
            }
            let referred = state.tables.iter().any(|child| {
                child.parent == Some(table) && child.remote.values().any(|row| row.parent == Some(key))
            });
            if referred {
                deleted.blocked.push(at);
                continue;
            }
            if state.hook.is_none() {
                assert!(!state.tables[table].local.contains_key(&key), "row {key} is on the source");
            }
            state.tables[table].remote.remove(&key);
            deleted.deleted += 1;
        }
        state.after("delete")?;
        Ok(deleted)
    }
    fn rejected(&mut self, table: TableId) -> Outcome<Vec<Rejected>> {
        let mut state = self.0.borrow_mut();
        state.before("rejected", table, &[], 0)?;
        Ok(state.tables[table].rejected.values().cloned().collect())
    }
    fn reject(&mut self, table: TableId, rows: &[Rejection]) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        let numbers: Vec<u64> = rows.iter().map(|row| key_in(&row.rejected.key)).collect();
        state.before("reject", table, &numbers, rows.len())?;
        for row in rows {
            state.tables[table].rejected.insert(row.rejected.key_id, row.rejected.clone());
        }
        state.after("reject")
    }
    fn clear_rejected(&mut self, table: TableId, rows: &[KeyId]) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.before("clear_rejected", table, &[], rows.len())?;
        for id in rows {
            state.tables[table].rejected.remove(id);
        }
        state.after("clear_rejected")
    }
    fn batch_history(&mut self, table: TableId) -> Outcome<Vec<BatchRecord>> {
        let mut state = self.0.borrow_mut();
        state.before("batch_history", table, &[], 0)?;
        Ok(state.tables[table].history.iter().rev().take(50).copied().collect())
    }
    fn record_batch(&mut self, table: TableId, batch: BatchRecord) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.before("record_batch", table, &[], 0)?;
        state.tables[table].history.push(batch);
        state.after("record_batch")
    }
    fn hold(&mut self) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.before("hold_target", 0, &[], 0)?;
        assert!(state.committed.is_none(), "a transaction is open already");
        state.hold_target();
        Ok(())
    }
    fn commit(&mut self) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        assert!(state.committed.is_some(), "no transaction is open");
        state.before("commit", 0, &[], 0)?;
        state.committed = None;
        state.after("commit")
    }
    fn roll_back(&mut self) {
        self.0.borrow_mut().lose_transaction();
    }
}

/// Whether a source row can be stored as far as its own table and its parents go.
pub fn storable(state: &State, table: TableId, key: u64) -> bool {
    let Some(row) = state.tables[table].local.get(&key) else { return false };
    let parent = match (row.parent, state.tables[table].parent) {
        (Some(parent), Some(of)) => storable(state, of, parent),
        _ => true,
    };
    row.kind == Kind::Good && parent
}
