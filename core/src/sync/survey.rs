//! Comparisons that change nothing, step by step over both sides.

use std::collections::HashMap;

use super::compare::{Compare, Piece};
use super::ledger::Ledger;
use super::step::{Answer, Sides, Step};
use super::{Event, Settings};
use crate::manifest::Item;
use crate::short::ShortItem;
use crate::store::{Failure, FailureKind, Outcome, PositionRange, SourceKey, SourceRecord, TableId};

/// Rows whose keys are asked for at once.
pub(super) const KEYS_AT_ONCE: usize = 1_000;

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
    pub missing: HashMap<Vec<u8>, i64>,
    pub excess: HashMap<Vec<u8>, Item>,
}

impl<'a, 'b> Survey<'a, 'b> {
    pub fn new(sides: &'a mut Sides<'b>, settings: &Settings, table: TableId) -> Self {
        Survey { sides, table, ledger: Ledger::new(settings.clone()), rows: settings.window_rows }
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

    /// Compares the next window, from the beginning of a range.
    pub fn window(&mut self, range: PositionRange) -> Outcome<Piece> {
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

    /// The keys of the rows that a comparison found; rows that changed meanwhile are left out.
    pub fn keys(&mut self, missing: &[Item], excess: &[ShortItem]) -> Outcome<Keyed> {
        let mut keyed = Keyed::default();
        for items in missing.chunks(KEYS_AT_ONCE) {
            let Answer::Rows(rows) = self.ask(Step::RowsOf(items))? else { return Err(unexpected()) };
            keyed.missing.extend(rows.into_iter().map(|row| (row.key, row.item.position)));
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
