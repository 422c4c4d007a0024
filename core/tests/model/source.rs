//! The source of the model.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::Item;
use plimsoll_core::ranges::in_order;
use plimsoll_core::store::*;
use rand::RngExt;

use super::state::{Kind, OTHER_SPELLING, State, Table};

pub struct ModelSource(pub Rc<RefCell<State>>);

/// The key's number; that of a keyless row is 0.
pub fn key_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().expect("a key"))
}

pub fn key_in(key: &SourceKey) -> u64 {
    match key {
        SourceKey::Encoded(bytes) | SourceKey::Raw(bytes) => key_of(bytes),
        SourceKey::Long(_) => unreachable!("no key of the model is long"),
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
        assert!(!state.tables[table].shape.hashed);
        let model = &state.tables[table];
        Ok(model.local_by_position(PositionRange::ALL).last().map(|(position, _)| *position))
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
    fn settled(&mut self, table: TableId) -> Outcome<Option<i64>> {
        let mut state = self.0.borrow_mut();
        state.before("settled", table, &[], 0)?;
        Ok(state.tables[table].settled)
    }
    fn is_scanned(&mut self, table: TableId) -> Outcome<bool> {
        let mut state = self.0.borrow_mut();
        state.before("is_scanned", table, &[], 0)?;
        Ok(state.tables[table].scanned)
    }
    fn kept(&mut self, table: TableId) -> Outcome<Option<Fingerprint>> {
        Ok(self.kept_ranges(table, &[PositionRange::ALL])?.and_then(|held| held.first().copied()))
    }
    fn kept_ranges(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Option<Vec<Fingerprint>>> {
        assert!(in_order(ranges), "{ranges:?}");
        let mut state = self.0.borrow_mut();
        if !state.tables[table].keeps_manifest {
            return Ok(None);
        }
        state.before("kept", table, &[], 0)?;
        if state.tables[table].may_distrust && state.rng.random_bool(0.1) {
            return Ok(None);
        }
        let model = &state.tables[table];
        let mut held = vec![Fingerprint::default(); ranges.len()];
        for (key, row) in &model.local {
            // No manifest is kept where a version is none.
            let Some(position) = row.position(model.shape, *key) else { return Ok(None) };
            if let Some(at) = ranges.iter().position(|range| range.contains(position)) {
                held[at].insert(&row.item(model.shape, *key).digest);
            }
        }
        Ok(Some(held))
    }
    fn fingerprints(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<RangeHeld>> {
        assert!(in_order(ranges), "{ranges:?}");
        let mut state = self.0.borrow_mut();
        let rows = state.tables[table].local.len();
        state.before("fingerprints", table, &[], rows)?;
        let model = &state.tables[table];
        let mut held = vec![RangeHeld::default(); ranges.len()];
        for (key, row) in &model.local {
            let at = match row.position(model.shape, *key) {
                Some(position) => ranges.iter().position(|range| range.contains(position)),
                None => ranges.iter().position(|range| range.from.is_none()),
            };
            let Some(held) = at.and_then(|at| held.get_mut(at)) else { continue };
            match row.record(model.shape, *key) {
                SourceRecord::Row(row) => held.rows.insert(&row.item.digest),
                SourceRecord::Bad(_) => held.bad += 1,
            }
        }
        Ok(held)
    }
    fn read_batch(
        &mut self,
        table: TableId,
        after: Option<&Cursor>,
        limit: BatchLimit,
    ) -> Outcome<SourceBatch> {
        let mut state = self.0.borrow_mut();
        state.before("read_batch", table, &[], 0)?;
        if state.tables[table].shape.hashed {
            return Ok(own_order(&mut state, table, after, limit));
        }
        let model = &state.tables[table];
        let mut batch = SourceBatch::default();
        let (mut bytes, mut last) = (0, None);
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
            if let Some((position, id)) = last.filter(|_| full) {
                batch.next = Some(Cursor { position, key: Some(super::key_bytes(id)) });
                break;
            }
            last = Some((position, key));
            batch.records.push(row.record(model.shape, key));
        }
        state.clock += state.cost.1 * batch.records.len() as i64;
        Ok(batch)
    }
    fn window(&mut self, table: TableId, range: PositionRange, rows: u64) -> Outcome<SourceWindow> {
        self.0.borrow_mut().before("window", table, &[], rows as usize)?;
        Ok(self.read_window(table, range, rows))
    }
    fn windows(&mut self, table: TableId, ranges: &[PositionRange], rows: u64) -> Outcome<Vec<SourceWindow>> {
        assert!(in_order(ranges), "{ranges:?}");
        assert!(ranges.windows(2).all(|pair| pair[0].to != pair[1].from), "ranges that meet: {ranges:?}");
        self.0.borrow_mut().before("windows", table, &[], 0)?;
        let (mut windows, mut left) = (Vec::new(), rows);
        for range in ranges {
            let window = self.read_window(table, *range, left);
            left = left.saturating_sub(window.rows());
            let is_whole = window.range == *range;
            windows.push(window);
            if left == 0 || !is_whole {
                break;
            }
        }
        Ok(windows)
    }
    fn rows_of(&mut self, table: TableId, items: &[Item]) -> Outcome<Vec<SourceRow>> {
        let mut state = self.0.borrow_mut();
        state.before("rows_of", table, &[], items.len())?;
        let mut wanted: HashMap<Item, usize> = HashMap::new();
        items.iter().for_each(|item| *wanted.entry(*item).or_default() += 1);
        let shape = state.tables[table].shape;
        let rows = state.tables[table].local.iter();
        Ok(rows
            .filter(|(key, row)| take_copy(&mut wanted, &row.item(shape, **key)))
            .filter_map(|(key, row)| match row.record(shape, *key) {
                SourceRecord::Row(row) => Some(row),
                SourceRecord::Bad(_) => None,
            })
            .collect())
    }
    fn lookup(&mut self, table: TableId, keys: &[SourceKey]) -> Outcome<Vec<Option<SourceRecord>>> {
        let mut state = self.0.borrow_mut();
        let numbers: Vec<u64> = keys.iter().map(key_in).collect();
        state.before("lookup", table, &numbers, keys.len())?;
        let model = &state.tables[table];
        if model.shape.keyless {
            let with = |key: &SourceKey| {
                let records = model.local.iter().map(|(id, row)| row.record(model.shape, *id));
                let mut own = records.filter(|record| match (record, key) {
                    (SourceRecord::Row(row), SourceKey::Encoded(key)) => row.key == *key,
                    (SourceRecord::Bad(bad), key) => bad.key == *key,
                    _ => false,
                });
                own.next()
            };
            return Ok(keys.iter().map(with).collect());
        }
        let found: Vec<_> =
            numbers.iter().zip(keys).map(|(number, key)| found_by(model, *number, key)).collect();
        let absent = numbers.iter().zip(&found).filter(|(_, found)| found.is_none());
        state.absent = absent.map(|(key, _)| (table, *key)).collect();
        Ok(found)
    }
    fn sharing(&mut self, table: TableId, keys: &[SourceKey]) -> Outcome<Vec<SourceRecord>> {
        let mut state = self.0.borrow_mut();
        let mut numbers: Vec<u64> = keys.iter().map(key_in).collect();
        state.before("sharing", table, &numbers, keys.len())?;
        numbers.sort_unstable();
        numbers.dedup();
        let model = &state.tables[table];
        let mut records = Vec::new();
        for number in numbers {
            let spelled = spellings(model, number);
            let Some((sent, others)) = spelled.split_first().filter(|(_, others)| !others.is_empty()) else {
                continue;
            };
            records.extend(others.iter().map(|key| model.local[key].double(model.shape, *key)));
            records.push(model.local[sent].record(model.shape, *sent));
        }
        Ok(records)
    }
    fn hold(&mut self) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.before("hold_source", 0, &[], 0)?;
        assert!(state.live.is_none(), "a snapshot is held already");
        state.hold_source();
        Ok(())
    }
    fn let_go(&mut self) {
        self.0.borrow_mut().let_go();
    }
}

/// The local keys that become this one, the one that is sent first.
fn spellings(model: &Table, key: u64) -> Vec<u64> {
    let all = (0..3).map(|nth| key % OTHER_SPELLING + nth * OTHER_SPELLING);
    let mut there: Vec<u64> = all.filter(|key| model.local.contains_key(key)).collect();
    // The latest, where there are versions.
    let version = |key: &u64| if model.shape.hashed { 0 } else { model.local[key].version };
    there.sort_by_key(|key| (std::cmp::Reverse(version(key)), *key));
    there
}

/// What a lookup answers for a key in a table with a key.
fn found_by(model: &Table, number: u64, key: &SourceKey) -> Option<SourceRecord> {
    let sent = *spellings(model, number).first()?;
    match key {
        SourceKey::Raw(_) if sent != number => {
            model.local.get(&number).map(|row| row.double(model.shape, number))
        }
        _ => Some(model.local[&sent].record(model.shape, sent)),
    }
}

impl ModelSource {
    fn read_window(&self, table: TableId, range: PositionRange, rows: u64) -> SourceWindow {
        let mut state = self.0.borrow_mut();
        let model = &state.tables[table];
        let mut window = SourceWindow { range, ..SourceWindow::default() };
        if range.from.is_none() {
            let nowhere = model.local.iter().filter(|(_, row)| row.kind == Kind::Nowhere);
            window.bad.extend(nowhere.filter_map(|(key, row)| match row.record(model.shape, *key) {
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
            match model.local[&key].record(model.shape, key) {
                SourceRecord::Row(row) => window.items.push(row.item),
                SourceRecord::Bad(bad) => window.bad.push(*bad),
            }
        }
        state.rows_read += window.items.len() + window.bad.len();
        window
    }
}

/// Whether one more of these items is wanted.
fn take_copy(wanted: &mut HashMap<Item, usize>, item: &Item) -> bool {
    match wanted.get_mut(item) {
        Some(copies) if *copies > 0 => {
            *copies -= 1;
            true
        }
        _ => false,
    }
}

/// Rows in the order of their numbers, which says nothing of positions.
fn own_order(state: &mut State, table: TableId, after: Option<&Cursor>, limit: BatchLimit) -> SourceBatch {
    let model = &state.tables[table];
    let from = match after {
        None => 0,
        Some(Cursor { key: Some(key), .. }) => key_of(key) + 1,
        Some(Cursor { key: None, .. }) => model.stream.expect("an open stream") + 1,
    };
    let mut batch = SourceBatch::default();
    let mut last = None;
    for (id, row) in model.local.range(from..).filter(|(_, row)| row.kind != Kind::Nowhere) {
        if let Some(last) = last.filter(|_| batch.records.len() >= limit.rows) {
            let key = (!model.holds_stream).then(|| super::key_bytes(last));
            batch.next = Some(Cursor { position: 0, key });
            break;
        }
        last = Some(*id);
        batch.records.push(row.record(model.shape, *id));
    }
    state.tables[table].stream = last;
    state.clock += state.cost.1 * batch.records.len() as i64;
    batch
}
