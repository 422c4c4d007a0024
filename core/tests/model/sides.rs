//! Source and target of the model.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use plimsoll_core::dyadic::Dyadic;
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::{Item, KeyedItem};
use plimsoll_core::ranges::{RangeSummary, choose, in_order};
use plimsoll_core::short::ShortItem;
use plimsoll_core::sketch::Sketch;
use plimsoll_core::store::*;

use super::state::{Kind, LocalRow, RemoteRow, State};

pub struct ModelSource(pub Rc<RefCell<State>>);
pub struct ModelTarget(pub Rc<RefCell<State>>);

fn key_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("a key"))
}

fn key_in(key: &SourceKey) -> u64 {
    match key {
        SourceKey::Encoded(bytes) | SourceKey::Raw(bytes) => key_of(bytes),
    }
}

impl Source for ModelSource {
    fn change_token(&mut self) -> Outcome<Option<Vec<u8>>> {
        let mut state = self.0.borrow_mut();
        state.before("change_token", 0, &[], 0)?;
        Ok(state.has_token.then(|| state.token.to_be_bytes().to_vec()))
    }
    fn max_position(&mut self, table: TableId) -> Outcome<Option<i64>> {
        let mut state = self.0.borrow_mut();
        state.before("max_position", table, &[], 0)?;
        Ok(state.tables[table].local.values().filter_map(LocalRow::position).max())
    }
    fn row_count(&mut self, table: TableId) -> Outcome<u64> {
        let mut state = self.0.borrow_mut();
        let rows = state.tables[table].local.len();
        state.before("row_count", table, &[], rows)?;
        Ok(state.tables[table].local.len() as u64)
    }
    fn tail_start(&mut self, table: TableId, upto: i64, rows: u64) -> Outcome<Option<i64>> {
        let mut state = self.0.borrow_mut();
        state.before("tail_start", table, &[], rows as usize)?;
        let range = PositionRange { from: None, to: upto.checked_add(1) };
        let positions = state.tables[table].local_by_position(range);
        Ok(positions.iter().rev().nth(rows as usize - 1).map(|(position, _)| *position))
    }
    fn read_batch(
        &mut self,
        table: TableId,
        after: Option<&Cursor>,
        limit: BatchLimit,
    ) -> Outcome<SourceBatch> {
        let mut state = self.0.borrow_mut();
        state.before("read_batch", table, &[], 0)?;
        let model = &state.tables[table];
        let mut batch = SourceBatch::default();
        let mut bytes = 0;
        let range = PositionRange { from: after.map(|after| after.position), to: None };
        for (position, key) in model.local_by_position(range) {
            let passed = after.is_some_and(|after| match &after.key {
                Some(bytes) => (position, key) <= (after.position, key_of(bytes)),
                None => position <= after.position,
            });
            if passed {
                continue;
            }
            let row = &model.local[&key];
            bytes += row.bytes(key).len();
            let full = batch.records.len() >= limit.rows || bytes > limit.bytes;
            if full && let Some(last) = batch.records.last() {
                let (position, key) = match last {
                    SourceRecord::Row(row) => (row.item.position, row.key.clone()),
                    SourceRecord::Bad(bad) => match &bad.key {
                        SourceKey::Encoded(key) | SourceKey::Raw(key) => {
                            (bad.position.expect("a position"), key.clone())
                        }
                    },
                };
                batch.next = Some(Cursor { position, key: Some(key) });
                break;
            }
            batch.records.push(row.record(key));
        }
        state.clock += state.cost.1 * batch.records.len() as i64;
        Ok(batch)
    }
    fn window(&mut self, table: TableId, range: PositionRange, rows: u64) -> Outcome<SourceWindow> {
        let mut state = self.0.borrow_mut();
        state.before("window", table, &[], rows as usize)?;
        let model = &state.tables[table];
        let mut window = SourceWindow { range, ..SourceWindow::default() };
        if range.from.is_none() {
            let nowhere = model.local.iter().filter(|(_, row)| row.kind == Kind::Nowhere);
            window.bad.extend(nowhere.filter_map(|(key, row)| match row.record(*key) {
                SourceRecord::Bad(bad) => Some(*bad),
                SourceRecord::Row(_) => None,
            }));
        }
        let mut last = None;
        for (position, key) in model.local_by_position(range) {
            let covered = (window.items.len() + window.bad.len()) as u64;
            if covered >= rows && last != Some(position) {
                window.range.to = Some(position);
                break;
            }
            last = Some(position);
            match model.local[&key].record(key) {
                SourceRecord::Row(row) => window.items.push(row.item),
                SourceRecord::Bad(bad) => window.bad.push(*bad),
            }
        }
        state.rows_read += window.items.len() + window.bad.len();
        Ok(window)
    }
    fn rows_of(&mut self, table: TableId, items: &[Item]) -> Outcome<Vec<SourceRow>> {
        let mut state = self.0.borrow_mut();
        state.before("rows_of", table, &[], items.len())?;
        let wanted: HashMap<Item, ()> = items.iter().map(|item| (*item, ())).collect();
        let rows = state.tables[table].local.iter();
        Ok(rows
            .filter(|(key, row)| wanted.contains_key(&row.item(**key)))
            .filter_map(|(key, row)| match row.record(*key) {
                SourceRecord::Row(row) => Some(row),
                SourceRecord::Bad(_) => None,
            })
            .collect())
    }
    fn lookup(&mut self, table: TableId, keys: &[SourceKey]) -> Outcome<Vec<Option<SourceRecord>>> {
        let mut state = self.0.borrow_mut();
        let numbers: Vec<u64> = keys.iter().map(key_in).collect();
        state.before("lookup", table, &numbers, keys.len())?;
        let found: Vec<_> = numbers
            .iter()
            .map(|key| state.tables[table].local.get(key).map(|row| row.record(*key)))
            .collect();
        let absent = numbers.iter().zip(&found).filter(|(_, found)| found.is_none());
        state.absent = absent.map(|(key, _)| (table, *key)).collect();
        Ok(found)
    }
}

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

impl ModelTarget {
    /// The rows of each range as they are when a call takes effect, by position.
    fn held(
        &self,
        operation: &'static str,
        table: TableId,
        ranges: &[PositionRange],
    ) -> Outcome<Vec<(PositionRange, Vec<Item>)>> {
        assert!(in_order(ranges), "{ranges:?}");
        let mut state = self.0.borrow_mut();
        state.before(operation, table, &[], 0)?;
        let all = state.tables[table].remote.iter().map(|(key, row)| row.item(*key));
        let mut items: Vec<Item> = all.collect();
        items.sort_unstable();
        let of = |range: PositionRange| -> Vec<Item> {
            items.iter().filter(|item| range.contains(item.position)).copied().collect()
        };
        let held: Vec<_> = ranges.iter().map(|range| (*range, of(*range))).collect();
        state.clock += state.cost.1 * held.iter().map(|(_, items)| items.len() as i64).sum::<i64>();
        Ok(held)
    }
}

fn summary(range: PositionRange, items: &[Item]) -> RangeSummary {
    let items = items.iter().filter(|item| range.contains(item.position));
    RangeSummary::new(range, &items.map(|item| item.digest).collect())
}

impl Summaries for ModelTarget {
    fn range_manifest(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        most: u32,
    ) -> Outcome<Vec<RangeSummary>> {
        let mut parts = Vec::new();
        for (range, items) in self.held("range_manifest", table, ranges)? {
            let mut points: Vec<(Dyadic, Fingerprint)> = Vec::new();
            for item in &items {
                match points.last_mut().filter(|(point, _)| point.contains(item.position)) {
                    Some((_, held)) => held.insert(&item.digest),
                    None => points.push((Dyadic::point(item.position), [item.digest].into_iter().collect())),
                }
            }
            let chosen = choose(&points, range, most as usize);
            parts.extend(chosen.into_iter().map(|part| summary(part, &items)));
        }
        Ok(parts)
    }
    fn summaries(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<RangeSummary>> {
        let held = self.held("summaries", table, ranges)?;
        Ok(held.iter().map(|(range, items)| summary(*range, items)).collect())
    }
    fn sketch(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        first: u32,
        symbols: u32,
    ) -> Outcome<Vec<u8>> {
        let mut sketch = Sketch::new(ranges, first, symbols).expect("a sketch");
        let held = self.held("sketch", table, ranges)?;
        held.iter().flat_map(|(_, items)| items).for_each(|item| sketch.add(&item.into()));
        Ok(sketch.pack())
    }
    fn items(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<ShortItem>> {
        let held = self.held("items", table, ranges)?;
        Ok(held.iter().flat_map(|(_, items)| items).map(ShortItem::from).collect())
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
        let rows = state.tables[table].remote.iter().map(|(key, row)| row.item(*key));
        Ok(rows.filter(|item| range.contains(item.position)).map(|item| item.digest).collect())
    }
    fn keys_of(&mut self, table: TableId, items: &[ShortItem]) -> Outcome<Vec<KeyedItem>> {
        let mut state = self.0.borrow_mut();
        state.before("keys_of", table, &[], items.len())?;
        let all = state.tables[table].remote.iter();
        let keyed = all.map(|(key, row)| KeyedItem { item: row.item(*key), key: super::key_bytes(*key) });
        Ok(keyed.filter(|row| items.contains(&ShortItem::from(&row.item))).collect())
    }
    fn upload(&mut self, table: TableId, rows: &[SourceRow]) -> Outcome<Uploaded> {
        let mut state = self.0.borrow_mut();
        let numbers: Vec<u64> = rows.iter().map(|row| key_of(&row.key)).collect();
        state.before("upload", table, &numbers, rows.len())?;
        let mut uploaded = Uploaded::default();
        let mut batch: Vec<(usize, u64, RemoteRow)> = Vec::new();
        let refusal = |ordinal, key: u64, sqlstate: &str, holder: Option<u64>| Refusal {
            ordinal,
            waits: sqlstate.starts_with("23"),
            holder: holder.map(super::key_bytes),
            sqlstate: sqlstate.to_owned(),
            column: None,
            key_text: format!("{{\"id\": {key}}}"),
            message: "refused".to_owned(),
        };
        for (ordinal, row) in rows.iter().enumerate() {
            let (key, row, poison) = RemoteRow::decode(&row.row);
            let lowers = state.tables[table].remote.get(&key).is_some_and(|now| now.version > row.version);
            if poison {
                uploaded.refused.push(refusal(ordinal, key, "22003", None));
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
        state.after("upload")?;
        Ok(uploaded)
    }
    fn delete(&mut self, table: TableId, rows: &[KeyedItem], planned: u64) -> Outcome<Deleted> {
        let mut state = self.0.borrow_mut();
        let numbers: Vec<u64> = rows.iter().map(|row| key_of(&row.key)).collect();
        state.before("delete", table, &numbers, rows.len())?;
        assert!(planned >= rows.len() as u64, "a plan of fewer rows than are to be deleted");
        state.tables[table].planned = state.tables[table].planned.max(planned);
        let mut deleted = Deleted::default();
        for (at, row) in rows.iter().enumerate() {
            let key = key_of(&row.key);
            assert!(state.absent.contains(&(table, key)), "row {key} was not looked up before its delete");
            if state.tables[table].remote.get(&key).is_none_or(|now| now.item(key) != row.item) {
                continue;
            }
            if state.tables[table].hold {
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
