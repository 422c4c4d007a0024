//! Comparisons that change nothing, step by step over both sides.

use super::compare::{Compare, Piece};
use super::kept::{KeptSweep, root};
use super::ledger::Ledger;
use super::places::beyond;
use super::step::{Answer, Sides, Step};
use super::sweep::{Sweep, Swept};
use super::{Event, Settings};
use crate::manifest::Item;
use crate::short::ShortItem;
use crate::store::{
    Failure, FailureKind, Outcome, PositionRange, SourceKey, SourceRecord, TableId, TableShape, TableVersion,
};

/// Rows whose keys are asked for at once.
pub(super) const KEYS_AT_ONCE: usize = 1_000;
/// How often a table is swept where ranges agree and the whole does not.
const MOST_SWEEPS: u32 = 3;

/// A comparison of one whole table.
pub(super) struct Survey<'a, 'b> {
    pub sides: &'a mut Sides<'b>,
    pub table: TableId,
    pub ledger: Ledger,
    /// Rows of the next window.
    rows: u64,
}

/// Rows that differ, with their keys.
#[derive(Default)]
pub(super) struct Keyed {
    pub missing: Vec<(Vec<u8>, Item)>,
    pub excess: Vec<(Vec<u8>, Item)>,
}

impl<'a, 'b> Survey<'a, 'b> {
    pub fn new(sides: &'a mut Sides<'b>, settings: &Settings, (table, shape): (TableId, TableShape)) -> Self {
        let ledger = Ledger::new(settings.clone(), shape);
        Survey { sides, table, ledger, rows: settings.window_rows }
    }
}

/// What of a table is still to be compared.
pub(super) enum Rest {
    /// This, one window after the other.
    Windows(Option<PositionRange>),
    /// The ranges that passes over a source without an index on positions found to differ, the first ones last.
    Groups(Vec<Vec<PositionRange>>),
}

impl Rest {
    pub fn is_none(&self) -> bool {
        match self {
            Rest::Windows(rest) => rest.is_none(),
            Rest::Groups(groups) => groups.is_empty(),
        }
    }
}

impl Survey<'_, '_> {
    /// Carries a step out, again where it failed in passing.
    pub fn ask(&mut self, step: Step<'_>) -> Outcome<Answer> {
        let settings = &self.ledger.settings;
        let mut pause = settings.retry_pause;
        for _ in 1..settings.max_tries.max(1) {
            match self.sides.carry_out(self.table, step) {
                Err(failure) if failure.kind == FailureKind::Passing && !self.sides.world.stopping() => {
                    self.sides.world.event(self.table, Event::Retrying { failure, pause });
                    self.sides.world.pause(pause);
                    pause = pause.saturating_mul(2);
                }
                outcome => return outcome,
            }
        }
        self.sides.carry_out(self.table, step)
    }

    /// Begins a comparison of the whole table: what is to be compared, and how many rows were already.
    pub fn begin(&mut self) -> Outcome<(Rest, u64)> {
        for _ in 0..MOST_SWEEPS {
            let Some(swept) = self.compare_kept()? else { break };
            if swept.differing.is_empty() && !self.holds_the_whole(&swept)? {
                continue;
            }
            return Ok(self.rest_of(swept));
        }
        let scanned = self.ledger.shape.hashed && self.ask(Step::IsScanned)? == Answer::Scanned(true);
        if !scanned {
            return Ok((Rest::Windows(Some(PositionRange::ALL)), 0));
        }
        self.rows = self.ledger.settings.max_window_rows.max(1);
        let Answer::Count(rows) = self.ask(Step::CountRows)? else { return Err(unexpected()) };
        for _ in 0..MOST_SWEEPS {
            let swept = self.sweep(rows)?;
            if swept.differing.is_empty() && !self.holds_the_whole(&swept)? {
                continue;
            }
            return Ok(self.rest_of(swept));
        }
        // Rows move all the time, or sums are equal by chance: each row is looked at.
        Ok((Rest::Windows(Some(PositionRange::ALL)), 0))
    }

    /// The passes that tell which ranges differ.
    fn sweep(&mut self, rows: u64) -> Outcome<Swept> {
        let version = self.version()?;
        let mut sweep = Sweep::new(rows.max(version.row_count.unwrap_or(0)), self.rows);
        while let Some(step) = sweep.step() {
            let answer = self.ask(step)?;
            if !sweep.tell(answer, &self.ledger) {
                return Err(unexpected());
            }
            self.stopping()?;
        }
        Ok(sweep.finish())
    }

    /// Whether the target's whole digest sum is that of the rows that the passes found, where it can be said.
    fn holds_the_whole(&mut self, swept: &Swept) -> Outcome<bool> {
        let Some(whole) = swept.whole.filter(|_| self.ledger.counts() == (0, 0)) else { return Ok(true) };
        match root(&self.version()?) {
            Some(remote) => Ok(remote == whole),
            None => Ok(self.ask(Step::Fingerprint(PositionRange::ALL))? == Answer::Fingerprint(whole)),
        }
    }

    fn version(&mut self) -> Outcome<TableVersion> {
        match self.ask(Step::TableVersion)? {
            Answer::Version(version) => Ok(version),
            _ => Err(unexpected()),
        }
    }

    /// Compares the manifests that both sides keep; `None` where one of them keeps none.
    fn compare_kept(&mut self) -> Outcome<Option<Swept>> {
        let Answer::Kept(kept) = self.ask(Step::Kept)? else { return Err(unexpected()) };
        if kept.is_none() {
            return Ok(None);
        }
        let Some(remote) = root(&self.version()?) else { return Ok(None) };
        self.rows = self.ledger.settings.max_window_rows.max(1);
        let mut sweep = KeptSweep::new(remote);
        while let Some(step) = sweep.step() {
            let answer = self.ask(step)?;
            if !sweep.tell(answer, &self.ledger) {
                return Err(unexpected());
            }
            self.stopping()?;
        }
        Ok(sweep.finish())
    }

    /// What is still to be compared after all ranges were, and how many rows are equal.
    fn rest_of(&self, swept: Swept) -> (Rest, u64) {
        let rows = swept.equal_rows;
        let mut groups = swept.groups(self.rows);
        groups.reverse();
        (Rest::Groups(groups), rows)
    }

    /// Compares the next stretch; `None` where nothing is left.
    pub fn next(&mut self, rest: &mut Rest) -> Outcome<Option<Piece>> {
        match rest {
            Rest::Windows(None) => Ok(None),
            Rest::Windows(Some(range)) => {
                let piece = self.window(*range)?;
                *rest = Rest::Windows(piece.range.to.map(PositionRange::starting_at));
                Ok(Some(piece))
            }
            Rest::Groups(groups) => {
                let Some(group) = groups.pop() else { return Ok(None) };
                let piece = self.piece(group.clone())?;
                let left = beyond(&group, piece.range.to);
                groups.extend(Some(left).filter(|left| !left.is_empty()));
                let (missing, excess) = (piece.missing.len() as u64, piece.excess.len() as u64);
                self.sides.world.event(self.table, Event::Compared { rows: piece.rows, missing, excess });
                Ok(Some(piece))
            }
        }
    }

    /// Compares the next window, from the beginning of a range.
    fn window(&mut self, range: PositionRange) -> Outcome<Piece> {
        let began = self.sides.world.now();
        let piece = self.piece(vec![range])?;
        let took = u64::try_from(self.sides.world.now().saturating_sub(began)).unwrap_or(0);
        self.size_next(took);
        let (missing, excess) = (piece.missing.len() as u64, piece.excess.len() as u64);
        self.sides.world.event(self.table, Event::Compared { rows: piece.rows, missing, excess });
        Ok(piece)
    }

    /// Compares about as many rows as a window has, from the beginning of ranges that ascend and do not meet.
    pub fn piece(&mut self, ranges: Vec<PositionRange>) -> Outcome<Piece> {
        let mut compare = Compare::new(ranges, self.rows, self.ledger.settings.max_excess_rows);
        while let Some(step) = compare.step() {
            let answer = self.ask(step)?;
            if !compare.tell(answer, &self.ledger) {
                return Err(unexpected());
            }
        }
        Ok(compare.finish())
    }

    /// Windows grow while they are far from the longest snapshot, and shrink beyond it.
    fn size_next(&mut self, took: u64) {
        let settings = &self.ledger.settings;
        if took < settings.max_snapshot / 4 {
            self.rows = self.rows.saturating_mul(2).min(settings.max_window_rows.max(1));
        } else if took > settings.max_snapshot {
            self.rows = (self.rows / 2).max(1);
        }
    }

    /// The keys of the rows that a comparison found, with their items; rows that changed meanwhile are left out.
    pub fn keys(&mut self, missing: &[Item], excess: &[ShortItem]) -> Outcome<Keyed> {
        let mut keyed = Keyed::default();
        for items in missing.chunks(KEYS_AT_ONCE) {
            let Answer::Rows(rows) = self.ask(Step::RowsOf(items))? else { return Err(unexpected()) };
            keyed.missing.extend(rows.into_iter().map(|row| (row.key, row.item)));
        }
        for items in excess.chunks(KEYS_AT_ONCE) {
            let Answer::Keys(rows) = self.ask(Step::KeysOf(items))? else { return Err(unexpected()) };
            keyed.excess.extend(rows.into_iter().map(|row| (row.key, row.item)));
        }
        Ok(keyed)
    }

    pub fn lookup(&mut self, keys: &[SourceKey]) -> Outcome<Vec<Option<SourceRecord>>> {
        match self.ask(Step::Lookup(keys))? {
            Answer::Found(found) if found.len() == keys.len() => Ok(found),
            _ => Err(unexpected()),
        }
    }

    pub fn stopping(&mut self) -> Outcome<()> {
        if self.sides.world.stopping() {
            return Err(Failure::new(FailureKind::Run, "stopped before everything was compared"));
        }
        Ok(())
    }
}

pub(super) fn unexpected() -> Failure {
    Failure::new(FailureKind::Table, "a step was answered with something else")
}
