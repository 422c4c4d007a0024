//! The remote side.

use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::ranges::RangeSummary;
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{
    Applied, BatchId, Failure, FailureKind, Fetched, MemoryKey, Outcome, PositionRange, RemoteAct,
    RemoteMemory, RemoteRow, RemoteSide, Settled, Summaries, TableId, TableVersion, Wanted,
};
use rand::RngExt;

use super::held::{self, Held};
use super::{World, item, source_row};

impl World {
    fn remote_items(&mut self, call: &'static str, ranges: &[PositionRange]) -> Outcome<Held> {
        let mut state = self.0.borrow_mut();
        state.before(call)?;
        state.remote.rows.look(ranges);
        Ok(state.remote.rows.items(ranges))
    }
}

impl Summaries for World {
    fn range_manifest(
        &mut self,
        _: TableId,
        ranges: &[PositionRange],
        most: u32,
    ) -> Outcome<Vec<RangeSummary>> {
        Ok(held::parts(self.remote_items("range_manifest", ranges)?, most))
    }
    fn summaries(&mut self, _: TableId, ranges: &[PositionRange]) -> Outcome<Vec<RangeSummary>> {
        Ok(held::wholes(self.remote_items("summaries", ranges)?))
    }
    fn sketch(&mut self, _: TableId, ranges: &[PositionRange], first: u32, symbols: u32) -> Outcome<Vec<u8>> {
        Ok(held::sketch(&self.remote_items("sketch", ranges)?, ranges, first, symbols))
    }
    fn items(&mut self, _: TableId, ranges: &[PositionRange]) -> Outcome<Vec<ShortItem>> {
        Ok(held::items(&self.remote_items("items", ranges)?))
    }
}

impl RemoteSide for World {
    fn remembered(&mut self, _: TableId, dry_run: bool) -> Outcome<RemoteMemory> {
        let mut state = self.0.borrow_mut();
        state.before("remembered")?;
        if !dry_run {
            state.remote.run += 1;
            state.mark += 1;
            state.remote.mark = state.mark;
        }
        let remote = &state.remote;
        let whole: Fingerprint = remote.rows.rows.iter().map(|(key, row)| item(*key, row).digest).collect();
        let version = TableVersion {
            row_count: Some(whole.row_count()),
            sum: Some(whole.sum()),
            ..TableVersion::default()
        };
        Ok(RemoteMemory {
            version,
            begun: remote.begun,
            run: remote.run,
            mark: remote.mark,
            last: remote.last,
            clock: Some(state.clock - state.ahead),
            choices: remote.choices.clone(),
        })
    }
    fn base_begun(&mut self, _: TableId) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.before("base_begun")?;
        state.remote.begun = true;
        // A batch of before the restore may have recorded them meanwhile.
        if std::mem::take(&mut state.restored) {
            state.recorded.clear();
        }
        state.remote.records.clear();
        state.remote.choices.clear();
        state.after()
    }
    fn settle(&mut self, _: TableId, batch: BatchId) -> Outcome<Settled> {
        let mut state = self.0.borrow_mut();
        state.before("settle")?;
        let settled = match state.remote.outcomes.get(&batch.number) {
            Some((mark, applied)) if *mark == batch.mark => {
                Settled::Applied(applied.iter().map(|one| *one == Applied::Done).collect())
            }
            _ => Settled::Never,
        };
        Ok(settled)
    }
    fn fetch(&mut self, _: TableId, wanted: &[Wanted], bytes: usize) -> Outcome<Fetched> {
        let mut state = self.0.borrow_mut();
        state.before("fetch")?;
        let mut looked_for = wanted.len().min((bytes / 10).max(1));
        while wanted
            .get(looked_for)
            .is_some_and(|next| next.item.position == wanted[looked_for - 1].item.position)
        {
            looked_for += 1;
        }
        let rows = wanted[..looked_for].iter().filter_map(|wanted| {
            let mut rows = state.remote.rows.rows.iter();
            let (key, row) = rows.find(|(key, row)| ShortItem::from(&item(**key, row)) == wanted.item)?;
            let content = source_row(*key, row);
            Some(RemoteRow {
                item: content.item,
                key: content.key,
                revision: row.revision,
                row: wanted.content.then_some(content.row),
            })
        });
        Ok(Fetched { rows: rows.collect(), looked_for })
    }
    fn apply(&mut self, _: TableId, number: u64, acts: &[RemoteAct], _: u64) -> Outcome<Vec<Applied>> {
        let mut state = self.0.borrow_mut();
        state.before("apply")?;
        if let Some((_, applied)) = state.remote.outcomes.get(&number) {
            return Ok(applied.clone());
        }
        if number >> 24 != state.remote.run {
            return Err(Failure::new(FailureKind::Table, "a batch that was given up"));
        }
        if state.passing > 0 && state.rng.random_bool(0.1) {
            state.late = Some((number, acts.to_vec()));
            return Err(Failure::new(FailureKind::Run, "the connection is lost, the batch under way"));
        }
        let applied = state.carry_out(number, acts);
        state.after()?;
        Ok(applied)
    }
    fn close(&mut self, _: TableId, keys: &[MemoryKey]) -> Outcome<()> {
        let mut state = self.0.borrow_mut();
        state.before("close")?;
        for key in keys {
            state.remote.records.remove(key);
            state.remote.choices.retain(|choice| choice.key != *key);
        }
        state.after()
    }
}
