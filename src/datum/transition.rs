//! What a statement trigger is told: the event, and the rows before and after, read where they lie.

use pgrx::pg_sys::{self, Datum, Oid};

use super::{Row, Scratch};
use crate::error::Answer;

/// What happened to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Rows changed: there are rows before, rows after, or both.
    Rows,
    /// All rows went at once.
    Truncate,
}

/// A trigger that fired after a statement.
pub struct Fired {
    data: *mut pg_sys::TriggerData,
}

impl Fired {
    /// What the function's caller says of the trigger; `None` where it was not called as a trigger after a
    /// statement.
    ///
    /// # Safety
    /// `fcinfo` is what Postgres called the function with. The answer is not used beyond the call.
    pub unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Option<Fired> {
        const KIND: u32 = pg_sys::TRIGGER_EVENT_ROW | pg_sys::TRIGGER_EVENT_TIMINGMASK;
        // SAFETY: by the caller's promise; a context of this node type is a `TriggerData`.
        unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return None;
            }
            let data = context.cast::<pg_sys::TriggerData>();
            ((*data).tg_event & KIND == pg_sys::TRIGGER_EVENT_AFTER).then_some(Fired { data })
        }
    }

    /// The table that the trigger is on.
    pub fn relation(&self) -> Oid {
        // SAFETY: the relation is open for the length of the call.
        unsafe { (*(*self.data).tg_relation).rd_id }
    }

    /// Whether rows of children that are no partitions, of which nobody tells, may be among those handed over.
    pub fn may_have_children(&self) -> bool {
        // SAFETY: the relation is open for the length of the call, and its catalogue row with it.
        unsafe {
            let class = (*(*self.data).tg_relation).rd_rel;
            (*class).relhassubclass && (*class).relkind == pg_sys::RELKIND_RELATION as std::ffi::c_char
        }
    }

    /// What happened.
    pub fn event(&self) -> Event {
        // SAFETY: the data outlive the call.
        match unsafe { (*self.data).tg_event } & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_TRUNCATE => Event::Truncate,
            _ => Event::Rows,
        }
    }

    /// Hands over the rows as they were before.
    pub fn rows_before(&self, take: &mut dyn FnMut(&Row<'_>) -> Answer<()>) -> Answer<()> {
        // SAFETY: the data outlive the call.
        self.rows(unsafe { (*self.data).tg_oldtable }, take)
    }

    /// Hands over the rows as they are now.
    pub fn rows_after(&self, take: &mut dyn FnMut(&Row<'_>) -> Answer<()>) -> Answer<()> {
        // SAFETY: the data outlive the call.
        self.rows(unsafe { (*self.data).tg_newtable }, take)
    }

    /// Hands over the rows of a transition table, whose columns are those of the relation in their order.
    fn rows(
        &self,
        store: *mut pg_sys::Tuplestorestate,
        take: &mut dyn FnMut(&Row<'_>) -> Answer<()>,
    ) -> Answer<()> {
        if store.is_null() {
            return Ok(());
        }
        // SAFETY: the store was made to be read from the beginning more than once; a pointer of our own leaves
        // those of other triggers where they are. The slot reads tuples as the store keeps them.
        let (slot, columns) = unsafe {
            let descriptor = (*(*self.data).tg_relation).rd_att;
            let slot = pg_sys::MakeSingleTupleTableSlot(descriptor, &pg_sys::TTSOpsMinimalTuple);
            let pointer = pg_sys::tuplestore_alloc_read_pointer(store, pg_sys::EXEC_FLAG_REWIND as i32);
            pg_sys::tuplestore_select_read_pointer(store, pointer);
            pg_sys::tuplestore_rescan(store);
            (slot, (*descriptor).natts as usize)
        };
        let scratch = Scratch::new();
        let mut answer = Ok(());
        let mut rows = 0usize;
        // SAFETY: the slot is ours and of the store's rows.
        while answer.is_ok() && unsafe { pg_sys::tuplestore_gettupleslot(store, true, false, slot) } {
            rows += 1;
            pgrx::check_for_interrupts!();
            if rows.is_multiple_of(256) {
                scratch.reset();
            }
            scratch.relieve();
            // SAFETY: once all columns are read the arrays are as long as the descriptor says.
            let (values, nulls) = unsafe {
                pg_sys::slot_getallattrs(slot);
                (
                    std::slice::from_raw_parts((*slot).tts_values, columns),
                    std::slice::from_raw_parts((*slot).tts_isnull, columns),
                )
            };
            answer = scratch.within(|| take(&Row::new(values, nulls)));
        }
        // SAFETY: the slot is ours, and nothing points into it any more.
        unsafe { pg_sys::ExecDropSingleTupleTableSlot(slot) };
        answer
    }
}

/// Appends a row to one of the extension's own tables, and to its indexes: by nobody's privileges, and with no
/// lock but the one that every writer of the table shares.
pub fn insert_row(relation: Oid, values: &[Option<Datum>]) {
    let mut nulls: Vec<bool> = values.iter().map(Option::is_none).collect();
    let mut values: Vec<Datum> = values.iter().map(|value| value.unwrap_or(Datum::from(0usize))).collect();
    // SAFETY: the caller names a table of ours with these columns; the tuple is formed by its descriptor. The
    // lock is kept until the transaction ends, as that of every writer is.
    unsafe {
        let table = pg_sys::table_open(relation, pg_sys::RowExclusiveLock as i32);
        let tuple = pg_sys::heap_form_tuple((*table).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
        pg_sys::CatalogTupleInsert(table, tuple);
        pg_sys::heap_freetuple(tuple);
        pg_sys::table_close(table, pg_sys::NoLock as i32);
    }
}
