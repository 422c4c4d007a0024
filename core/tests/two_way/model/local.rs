//! The local side.

use std::collections::BTreeMap;

use plimsoll_core::reconcile::Side;
use plimsoll_core::store::{
    Applied, BaseInfo, BatchId, Conclusion, LocalContent, LocalHeld, LocalRow, LocalSide, LocalStates, Made,
    MemoryEntry, MemoryKey, Open, OpenKind, Outcome, Pending, PositionRange, RangeHeld, Recollection,
    SeenSum, SourceKey, SourceRecord, TableId,
};

use super::state::ReadAhead;
use super::{Local, Row, State, World, digest, key_bytes, key_of, position, row_bytes, source_row};

impl State {
    /// Who fails comes back with nothing in mind.
    fn begin(&mut self, call: &'static str) -> Outcome<()> {
        self.before(call).inspect_err(|_| self.forget_spool())
    }

    fn forget_spool(&mut self) {
        self.spool.clear();
        self.told.clear();
    }

    /// The rows of ranges as they are now, and those of them with their content that can be encoded.
    fn read(&mut self, ranges: &[PositionRange]) -> ReadAhead {
        self.local.rows.look(ranges);
        let inside = |key: u64| ranges.iter().any(|range| range.contains(position(key)));
        let found = self.local.rows.rows.iter().filter(|(key, _)| inside(**key));
        let found: BTreeMap<u64, Row> = found.map(|(key, row)| (*key, *row)).collect();
        let content = |key: &u64, row: &Row| match self.bad.contains(key) {
            true => LocalContent::Bad(Box::default()),
            false => LocalContent::Row {
                digest: digest(*key, row),
                revision: row.revision,
                columns: self
                    .merging
                    .as_ref()
                    .map_or_else(Vec::new, |merging| merging.columns(&row_bytes(*key, row)).expect("a row")),
            },
        };
        let local = |(key, row): (&u64, &Row)| LocalRow {
            position: Some(position(*key)),
            key: SourceKey::Encoded(key_bytes(*key)),
            content: content(key, row),
        };
        let rows: Vec<LocalRow> = found.iter().map(local).collect();
        self.rows_read += rows.len();
        let good = found.into_iter().filter(|(key, _)| !self.bad.contains(key));
        ReadAhead { ranges: ranges.to_vec(), rows, content: good.collect() }
    }
}

impl LocalSide for World {
    fn change_token(&mut self) -> Outcome<Option<Vec<u8>>> {
        let mut state = self.0.borrow_mut();
        state.begin("token")?;
        Ok(Some(state.token.to_le_bytes().to_vec()))
    }
    fn recall(&mut self, _: TableId) -> Outcome<Recollection> {
        let mut state = self.0.borrow_mut();
        state.begin("recall")?;
        state.forget_spool();
        let local = &state.local;
        let open = || local.entries.values().filter_map(|entry| Some((entry.key, entry.open?)));
        let waits = |kind: OpenKind| matches!(kind, OpenKind::Waiting(_));
        let is_same = local.base.is_none() || local.made_of == Some(state.columns);
        Ok(Recollection {
            base: local.base,
            made: match is_same {
                _ if state.other_keys => Made::OfOtherKeys,
                true => Made::AsBefore,
                false => Made::OfOtherColumns,
            },
            concluded: local.concluded.0,
            entries: local.entries.len() as u64,
            open: open().filter(|(_, open)| *open != Open::ONCE_UNDECIDED).count() as u64,
            pending: local.pending.clone(),
            closing: local.closing.iter().copied().collect(),
            waiting: open().filter(|(_, open)| waits(open.kind)).map(|(key, _)| key).collect(),
        })
    }
    fn begin_base(&mut self, _: TableId, info: BaseInfo) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.begin("begin_base")?;
        let rows = std::mem::take(&mut state.local.rows);
        state.other_keys = false;
        state.local = Local { rows, base: Some(info), made_of: Some(state.columns), ..Local::default() };
        state.token += 1;
        state.after()
    }
    fn complete_base(&mut self, _: TableId) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.begin("complete_base")?;
        state.local.base.as_mut().unwrap().rebuilding = false;
        state.local.made_of = Some(state.columns);
        state.token += 1;
        state.after()
    }
    fn forget_open(&mut self, _: TableId, last: BatchId) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.begin("forget_open")?;
        let local = &mut state.local;
        let is_undecided = |open: &Open| open.kind == OpenKind::Undecided;
        for entry in local.entries.values_mut() {
            entry.open = entry.open.filter(is_undecided).map(|_| Open::ONCE_UNDECIDED);
        }
        local.entries.retain(|_, entry| !entry.is_empty());
        local.closing.clear();
        local.base.as_mut().unwrap().last = last;
        state.token += 1;
        state.after()
    }
    fn held(&mut self, _: TableId, ranges: &[PositionRange]) -> Outcome<Vec<LocalHeld>> {
        let mut state = self.0.borrow_mut();
        state.begin("held")?;
        let mut good = state.local.rows.clone();
        good.rows.retain(|key, _| !state.bad.contains(key));
        let held = good.items(ranges).into_iter().map(|(range, items)| {
            let bad = state.bad.iter().filter(|key| range.contains(position(**key))).count() as u64;
            let rows = items.iter().map(|item| item.digest).collect();
            let (mut local, mut remote) = (SeenSum::default(), SeenSum::default());
            for entry in state.local.entries.values().filter(|entry| range.contains(entry.key.position)) {
                local.add(entry.seen(Side::Local));
                remote.add(entry.seen(Side::Remote));
            }
            LocalHeld { rows: RangeHeld { rows, bad }, local, remote }
        });
        Ok(held.collect())
    }
    fn states(
        &mut self,
        _: TableId,
        ranges: &[PositionRange],
        later: &[Vec<PositionRange>],
    ) -> Outcome<LocalStates> {
        let mut state = self.0.borrow_mut();
        state.begin("states")?;
        let inside = |position: i64| ranges.iter().any(|range| range.contains(position));
        let entries = state.local.entries.values().filter(|entry| inside(entry.key.position)).cloned();
        let entries: Vec<MemoryEntry> = entries.collect();
        // What was read ahead is told once, where nothing is remembered.
        let place = state.spool.iter().position(|ahead| ahead.ranges == ranges);
        let spooled = place.map(|place| state.spool.remove(place));
        state.told.clear();
        if let Some(ahead) = spooled.filter(|_| entries.is_empty()) {
            state.told = ahead.content;
            return Ok(LocalStates { rows: ahead.rows, entries });
        }
        let reads_ahead = place.is_none() && entries.is_empty() && !later.is_empty();
        if place.is_none() {
            state.spool.clear();
        }
        if reads_ahead {
            for group in later {
                let ahead = state.read(group);
                state.spool.push(ahead);
            }
        }
        let ReadAhead { rows, content, .. } = state.read(ranges);
        if reads_ahead {
            state.told = content;
        }
        Ok(LocalStates { rows, entries })
    }
    fn lookup(&mut self, _: TableId, keys: &[SourceKey], bytes: usize) -> Outcome<Vec<Option<SourceRecord>>> {
        let mut state = self.0.borrow_mut();
        state.begin("lookup")?;
        let found = keys.iter().take((bytes / 10).max(1)).map(|key| {
            let SourceKey::Encoded(bytes) = key else { unreachable!() };
            let key = key_of(bytes);
            let row = state.told.get(&key).or_else(|| state.local.rows.rows.get(&key))?;
            Some(SourceRecord::Row(source_row(key, row)))
        });
        Ok(found.collect())
    }
    fn prepare(&mut self, _: TableId, pending: &Pending) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.begin("prepare")?;
        state.local.pending = Some(pending.clone());
        state.is_partly_of_columns();
        state.token += 1;
        state.after()
    }
    fn conclude(&mut self, _: TableId, conclusion: &Conclusion) -> Outcome<Vec<Applied>> {
        let mut state = self.0.borrow_mut();
        state.begin("conclude")?;
        if state.local.concluded.0 == conclusion.serial {
            return Ok(state.local.concluded.1.clone());
        }
        assert_eq!(state.local.concluded.0 + 1, conclusion.serial);
        if state.local.pending.as_ref().map(|pending| pending.batch) == conclusion.batch {
            state.local.pending = None;
        }
        if let Some(batch) = conclusion.batch.filter(|_| conclusion.applied) {
            state.local.base.as_mut().unwrap().last = batch;
        }
        for settle in &conclusion.settled {
            state.remember(settle);
        }
        let mut applied = Vec::new();
        for (change, settle) in &conclusion.changes {
            applied.push(state.change(Side::Local, change));
            if applied.last() == Some(&Applied::Done) {
                state.remember(settle);
            }
        }
        state.token += 1;
        state.local.concluded = (conclusion.serial, applied.clone());
        state.is_partly_of_columns();
        state.after()?;
        Ok(applied)
    }
    fn closed(&mut self, _: TableId, keys: &[MemoryKey]) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.begin("closed")?;
        keys.iter().for_each(|key| {
            state.local.closing.remove(key);
        });
        state.after()
    }
}
