//! Triggers on the statement, and the one that is left out for somebody who is told of each row directly.

use pgrx::pg_sys::{self, Oid};
use plimsoll_core::digest::RowDigest;

use super::{Operation, Target};
use crate::datum::Row;
use crate::error::Answer;

/// KiB of rows that a transition table holds in memory, where `work_mem` is less: an upload is in memory
/// anyway, and all of its rows would go through a file otherwise.
const TRANSITION_MEMORY: i32 = 64 << 10;

/// A row as it was sent.
#[derive(Clone, Copy)]
pub struct Sent<'s> {
    /// In wire form.
    pub row: &'s [u8],
    /// Its digest, with the key that rows have now, where it was made already.
    pub digest: Option<&'s RowDigest>,
}

/// Is told of each row that is written, as the table has its columns, in place of a trigger that would read them
/// from transition tables.
pub trait Witness {
    /// The function of that trigger.
    fn function(&self) -> Oid;

    /// A row is about to be stored, which was sent so.
    ///
    /// # Errors
    /// `UNSUPPORTED` where it is not the row that was sent; whatever else is to undo the statement.
    fn added(&mut self, row: &Row<'_>, sent: Sent<'_>) -> Answer<()>;

    /// A row is about to be replaced.
    ///
    /// # Errors
    /// Whatever is to undo the statement.
    fn removed(&mut self, row: &Row<'_>) -> Answer<()>;

    /// All rows are stored; triggers after the statement run next.
    ///
    /// # Errors
    /// Whatever is to undo the statement.
    fn end(self: Box<Self>) -> Answer<()>;
}

/// A trigger that is left out: its place among the target's, and its kind.
pub(super) struct LeftOut {
    place: usize,
    kind: i16,
}

impl Target {
    /// Leaves the trigger out that `witness` stands for. Where that trigger is not exactly one that fires whenever
    /// rows are written and is told of all of them, or where transition tables are needed for others anyway (which
    /// cascades of foreign keys would share), nothing is left out and nobody is told.
    pub(super) fn leave_out(&mut self) {
        let Some(witness) = self.witness.take() else { return };
        let event = self.operation.event();
        // SAFETY: the copy of the table's triggers that the executor's state has is this target's own, and has
        // as many as it says.
        unsafe {
            let descriptor = (*self.info).ri_TrigDesc;
            if descriptor.is_null() {
                return;
            }
            let triggers =
                std::slice::from_raw_parts_mut((*descriptor).triggers, (*descriptor).numtriggers as usize);
            let concerned = |trigger: &pg_sys::Trigger| i32::from(trigger.tgtype) & event != 0;
            let is_ours = |trigger: &pg_sys::Trigger| trigger.tgfoid == witness.function();
            let wants_rows =
                |trigger: &pg_sys::Trigger| !trigger.tgnewtable.is_null() || !trigger.tgoldtable.is_null();
            let mut ours = (0..triggers.len()).filter(|i| concerned(&triggers[*i]) && is_ours(&triggers[*i]));
            let (Some(place), None) = (ours.next(), ours.next()) else { return };
            if triggers.iter().any(|other| concerned(other) && !is_ours(other) && wants_rows(other)) {
                return;
            }
            let trigger = &mut triggers[place];
            let is_fit = i32::from(trigger.tgtype) == event
                && trigger.tgenabled as u8 == pg_sys::TRIGGER_FIRES_ALWAYS
                && trigger.tgnattr == 0
                && trigger.tgqual.is_null()
                && !trigger.tgnewtable.is_null()
                && (self.operation == Operation::Insert || !trigger.tgoldtable.is_null());
            if !is_fit {
                return;
            }
            // Of this kind nothing ever happens. Its place stays: what is known of triggers goes by places.
            self.left_out = Some(LeftOut { place, kind: std::mem::replace(&mut trigger.tgtype, 0) });
            match self.operation {
                Operation::Insert => (*descriptor).trig_insert_new_table = false,
                Operation::Update => {
                    (*descriptor).trig_update_old_table = false;
                    (*descriptor).trig_update_new_table = false;
                }
            }
        }
        self.witness = Some(witness);
    }

    /// Puts a trigger back that was left out: cascades of foreign keys to the same table fire it for their rows.
    pub(super) fn put_back(&mut self) {
        let Some(LeftOut { place, kind }) = self.left_out.take() else { return };
        // SAFETY: as in `leave_out`.
        unsafe { (*(*(*self.info).ri_TrigDesc).triggers.add(place)).tgtype = kind };
    }

    /// Tells the witness, where there is one, of a row.
    ///
    /// # Safety
    /// The slot's arrays hold a row of the table, whose values are alive.
    pub(super) unsafe fn tell(
        &mut self,
        slot: *mut pg_sys::TupleTableSlot,
        tell: impl FnOnce(&mut dyn Witness, &Row<'_>) -> Answer<()>,
    ) -> Answer<()> {
        let Some(witness) = &mut self.witness else { return Ok(()) };
        // SAFETY: by the caller's promise; the arrays have a place for each column.
        let (values, nulls) = unsafe {
            (
                std::slice::from_raw_parts((*slot).tts_values, self.columns),
                std::slice::from_raw_parts((*slot).tts_isnull, self.columns),
            )
        };
        tell(witness.as_mut(), &Row::new(values, nulls))
    }
}

/// Whether a trigger may change or skip rows before they are stored: any that is not ours, which leaves what is stored
/// here as it is.
///
/// # Safety
/// The triggers are those of an open relation.
pub(super) unsafe fn changes_rows(descriptor: *mut pg_sys::TriggerDesc, operation: Operation) -> bool {
    const BEFORE_ROW: i32 = (pg_sys::TRIGGER_TYPE_ROW | pg_sys::TRIGGER_TYPE_BEFORE) as i32;
    // SAFETY: by the caller's promise; it has as many triggers as it says.
    let triggers =
        unsafe { std::slice::from_raw_parts((*descriptor).triggers, (*descriptor).numtriggers as usize) };
    let fires = |trigger: &&pg_sys::Trigger| {
        let kind = i32::from(trigger.tgtype);
        kind & BEFORE_ROW == BEFORE_ROW && kind & operation.event() != 0
    };
    let mut firing = triggers.iter().filter(fires).peekable();
    if firing.peek().is_none() {
        return false;
    }
    let ours = crate::stamp::trigger_function();
    firing.any(|trigger| Some(trigger.tgfoid) != ours)
}

impl Operation {
    /// The bit by which a trigger's kind says that it fires on this.
    fn event(self) -> i32 {
        match self {
            Operation::Insert => pg_sys::TRIGGER_TYPE_INSERT as i32,
            Operation::Update => pg_sys::TRIGGER_TYPE_UPDATE as i32,
        }
    }
}

/// Sets `work_mem` back when transition tables have been begun with more.
pub(super) struct TransitionMemory(i32);

impl TransitionMemory {
    pub(super) fn raise() -> Self {
        // SAFETY: a variable of the backend that is read where such a table begins; `drop` sets it back.
        unsafe {
            let before = pg_sys::work_mem;
            pg_sys::work_mem = before.max(TRANSITION_MEMORY);
            TransitionMemory(before)
        }
    }
}

impl Drop for TransitionMemory {
    fn drop(&mut self) {
        // SAFETY: as in `raise`.
        unsafe { pg_sys::work_mem = self.0 };
    }
}
