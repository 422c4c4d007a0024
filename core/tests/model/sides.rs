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
use rand::RngExt;

use super::state::{Kind, LocalRow, OTHER_SPELLING, RemoteRow, State, Table};

pub struct ModelSource(pub Rc<RefCell<State>>);
pub struct ModelTarget(pub Rc<RefCell<State>>);

/// The key's number; that of a keyless row is 0.
fn key_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().expect("a key"))
}

fn key_in(key: &SourceKey) -> u64 {
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
    fn held(
        &self,
        operation: &'static str,
        table: TableId,
        ranges: &[PositionRange],
    ) -> Outcome<Vec<(PositionRange, Vec<Item>)>> {
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
        assert!(!self.0.borrow().tables[table].shape.keyless, "symbols over rows without a key");
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
