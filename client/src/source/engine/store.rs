//! Transactions over any kind of database that is written to, and what holds all calls together.

use plimsoll_core::store::{Applied, Outcome, PositionRange, SourceKey, SourceRecord, TableId};

use super::{Engine, Held};
use crate::failure::run as no_run;
use crate::source::notes::{Cell, NoteDialect};
use crate::source::write::{
    LocalStore, Look, Mode, RowChange, RowSeen, TakenAlong, Tally, Transaction, WriteKind, WritePlan,
};

/// What is remembered of tables that are written to, and of what is under way.
#[derive(Debug, Default)]
pub struct Writing {
    /// How rows of each table are written, once one was.
    pub(super) plans: Vec<Option<WritePlan>>,
    /// Keys of each table that are spelled in a way that is not looked up, once all were looked through.
    pub(super) odd: Vec<Option<super::apply::OddKeys>>,
    /// What the last `apply` did.
    pub(super) tally: Tally,
}

impl Writing {
    /// Of so many tables.
    pub(super) fn new(tables: usize) -> Self {
        let mut writing = Writing::default();
        writing.plans.resize_with(tables, || None);
        writing.odd.resize_with(tables, || None);
        writing
    }
}

/// What is open: one moment, or a transaction.
struct Open<'e, K>(&'e mut Engine<K>);

impl<K: WriteKind> Engine<K> {
    /// Does something in what is open. Whatever fails there ends it.
    fn within<T>(&mut self, work: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        if let Held::Failed(failure) = &self.held {
            return Err(failure.clone());
        }
        let answer = work(self);
        if let Err(failure) = &answer {
            self.held = Held::Failed(failure.clone());
        }
        answer
    }

    /// Opens something for one piece of work; where the store is held, the work is part of that.
    fn opened(&mut self, mode: Mode, work: &mut dyn FnMut(&mut Open<'_, K>) -> Outcome<()>) -> Outcome<()> {
        let is_held = match &self.held {
            Held::Free => false,
            Held::Failed(failure) => return Err(failure.clone()),
            Held::Open(Mode::Snapshot) if mode != Mode::Snapshot => {
                return Err(no_run("the local database is held for reading, and was to be written to"));
            }
            Held::Open(_) => true,
        };
        if is_held {
            let answer = work(&mut Open(self));
            return self.within(|_| answer);
        }
        self.kind.begin_as(mode)?;
        self.held = Held::Open(mode);
        let answer = work(&mut Open(self));
        let failed = std::mem::replace(&mut self.held, Held::Free);
        let answer = match failed {
            Held::Failed(failure) => answer.and(Err(failure)),
            _ => answer,
        };
        match answer {
            Ok(()) if mode != Mode::Snapshot => self.kind.commit(),
            answer => {
                self.kind.end();
                answer
            }
        }
    }
}

impl<K: WriteKind> LocalStore for Engine<K> {
    fn transact(&mut self, work: &mut dyn FnMut(&mut dyn Transaction) -> Outcome<()>) -> Outcome<()> {
        self.opened(Mode::Writing, &mut |open| work(open))
    }

    fn look(&mut self, work: &mut dyn FnMut(&mut dyn Look) -> Outcome<()>) -> Outcome<()> {
        self.opened(Mode::Snapshot, &mut |open| work(open))
    }

    fn hold(&mut self, writing: bool) -> Outcome<()> {
        if !matches!(self.held, Held::Free) {
            return Err(no_run("the local database is held already"));
        }
        let mode = if writing { Mode::Writing } else { Mode::Snapshot };
        self.kind.begin_as(mode)?;
        self.held = Held::Open(mode);
        Ok(())
    }

    fn finish(&mut self, commit: bool) -> Outcome<()> {
        match std::mem::replace(&mut self.held, Held::Free) {
            Held::Free => Err(no_run("the local database is not held")),
            Held::Open(mode) if commit && mode != Mode::Snapshot => self.kind.commit(),
            Held::Open(_) => {
                self.kind.end();
                Ok(())
            }
            Held::Failed(failure) => {
                self.kind.end();
                if commit { Err(failure) } else { Ok(()) }
            }
        }
    }

    fn notes(&self) -> NoteDialect {
        self.kind.notes()
    }

    fn define(&mut self, sql: &str) -> Outcome<()> {
        match self.held {
            Held::Free => self.kind.define(sql),
            _ => Err(no_run("tables of notes are not made within a transaction")),
        }
    }
}

impl<K: WriteKind> Look for Open<'_, K> {
    fn rows(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        each: &mut dyn FnMut(RowSeen<'_>) -> Outcome<()>,
    ) -> Outcome<()> {
        // With fails what fails here.
        self.0.with(table, |reader| reader.seen(ranges, each))
    }

    fn lookup(&mut self, table: TableId, keys: &[SourceKey]) -> Outcome<Vec<Option<SourceRecord>>> {
        self.0.with(table, |reader| reader.lookup(keys))
    }

    fn sharing(&mut self, table: TableId, keys: &[SourceKey]) -> Outcome<Vec<SourceRecord>> {
        self.0.with(table, |reader| reader.sharing(keys))
    }

    fn query(
        &mut self,
        sql: &str,
        cells: &[Cell<'_>],
        each: &mut dyn FnMut(&[Cell<'_>]) -> Outcome<()>,
    ) -> Outcome<()> {
        self.0.within(|engine| engine.kind.note(sql, cells, each).map(drop))
    }

    fn notes(&self) -> NoteDialect {
        self.0.kind.notes()
    }
}

impl<K: WriteKind> Transaction for Open<'_, K> {
    fn apply(&mut self, table: TableId, changes: &[RowChange<'_>]) -> Outcome<Vec<Applied>> {
        self.0.within(|engine| engine.apply(table, changes))
    }

    fn taken_along(&mut self, table: TableId, changes: &[RowChange<'_>]) -> Outcome<TakenAlong> {
        self.0.within(|engine| engine.taken_along(table, changes))
    }

    fn finds(&mut self, table: TableId, deletes: &[RowChange<'_>]) -> Outcome<Vec<usize>> {
        self.0.within(|engine| engine.finds(table, deletes))
    }

    fn tally(&self) -> Tally {
        self.0.writing.tally
    }

    fn execute(&mut self, sql: &str, cells: &[Cell<'_>]) -> Outcome<u64> {
        self.0.within(|engine| engine.kind.note(sql, cells, &mut |_| Ok(())))
    }
}
