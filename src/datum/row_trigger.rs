//! What a trigger before a row is told, and the row that it answers.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum, Oid};

/// A trigger that fired before a row is inserted or updated.
pub struct RowFired {
    data: *mut pg_sys::TriggerData,
}

/// The columns of a row, by their places in the relation.
pub struct Columns {
    values: Vec<Datum>,
    nulls: Vec<bool>,
}

impl Columns {
    /// A column that is passed by value; `None` is NULL.
    pub fn get(&self, place: usize) -> Option<Datum> {
        match self.nulls.get(place) {
            Some(false) => self.values.get(place).copied(),
            _ => None,
        }
    }
}

impl RowFired {
    /// What the function's caller says of the trigger; `None` where it was not called as a trigger before a row that is
    /// inserted or updated.
    ///
    /// # Safety
    /// `fcinfo` is what Postgres called the function with. The answer is not used beyond the call.
    pub unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Option<RowFired> {
        const KIND: u32 = pg_sys::TRIGGER_EVENT_ROW | pg_sys::TRIGGER_EVENT_TIMINGMASK;
        const BEFORE_ROW: u32 = pg_sys::TRIGGER_EVENT_ROW | pg_sys::TRIGGER_EVENT_BEFORE;
        // SAFETY: by the caller's promise; a context of this node type is a `TriggerData`.
        unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return None;
            }
            let data = context.cast::<pg_sys::TriggerData>();
            let operation = (*data).tg_event & pg_sys::TRIGGER_EVENT_OPMASK;
            let stores = [pg_sys::TRIGGER_EVENT_INSERT, pg_sys::TRIGGER_EVENT_UPDATE].contains(&operation);
            (stores && (*data).tg_event & KIND == BEFORE_ROW).then_some(RowFired { data })
        }
    }

    /// The table that the row is stored in, which may be a partition.
    pub fn relation(&self) -> Oid {
        // SAFETY: the relation is open for the length of the call.
        unsafe { (*(*self.data).tg_relation).rd_id }
    }

    fn is_update(&self) -> bool {
        // SAFETY: the data outlive the call.
        let operation = unsafe { (*self.data).tg_event } & pg_sys::TRIGGER_EVENT_OPMASK;
        operation == pg_sys::TRIGGER_EVENT_UPDATE
    }

    /// The row as it was; `None` where it is inserted.
    pub fn before(&self) -> Option<Columns> {
        // SAFETY: the data outlive the call; of an update this is the old row.
        self.is_update().then(|| self.columns(unsafe { (*self.data).tg_trigtuple }))
    }

    /// The row as it is to be.
    pub fn after(&self) -> Columns {
        self.columns(self.row())
    }

    fn row(&self) -> pg_sys::HeapTuple {
        // SAFETY: the data outlive the call.
        unsafe { if self.is_update() { (*self.data).tg_newtuple } else { (*self.data).tg_trigtuple } }
    }

    fn columns(&self, row: pg_sys::HeapTuple) -> Columns {
        // SAFETY: the row is one of the relation, which is open; the arrays have a place for each of its columns.
        unsafe {
            let descriptor = (*(*self.data).tg_relation).rd_att;
            let count = (*descriptor).natts as usize;
            let (mut values, mut nulls) = (vec![Datum::from(0usize); count], vec![true; count]);
            pg_sys::heap_deform_tuple(row, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
            Columns { values, nulls }
        }
    }

    /// Whether two rows differ in a column at one of these places; in any but generated ones that `places` takes.
    pub fn differ(&self, before: &Columns, after: &Columns, places: &dyn Fn(usize) -> bool) -> bool {
        (0..before.values.len()).filter(|place| places(*place)).any(|place| {
            if before.nulls[place] != after.nulls[place] {
                return true;
            }
            // SAFETY: the relation is open, and the place one of its columns.
            let attribute = unsafe { &*super::release::attribute((*(*self.data).tg_relation).rd_att, place) };
            if before.nulls[place] || attribute.attisdropped || attribute.attgenerated != 0 {
                return false;
            }
            let (before, after) = (before.values[place], after.values[place]);
            // SAFETY: both are values of the column's type, of which these are length and passing.
            !unsafe { is_same(before, after, attribute.attbyval, attribute.attlen) }
        })
    }

    /// What the trigger answers: the row, with another value at a place where one is given.
    pub fn answer(self, value: Option<(usize, Datum)>) -> Datum {
        let row = self.row();
        let Some((place, value)) = value else { return Datum::from(row) };
        let (mut number, mut value, mut null) = (place as i32 + 1, value, false);
        // SAFETY: the row is one of the relation, the value one of the column's type; one of each is handed over.
        unsafe {
            let descriptor = (*(*self.data).tg_relation).rd_att;
            let (number, value, null) = (&raw mut number, &raw mut value, &raw mut null);
            Datum::from(pg_sys::heap_modify_tuple_by_cols(row, descriptor, 1, number, value, null))
        }
    }
}

/// Whether two values have the same bytes, however they are stored.
///
/// # Safety
/// Both are values of one type, which is passed by value or has this length, as `pg_attribute` says.
unsafe fn is_same(before: Datum, after: Datum, by_value: bool, length: i16) -> bool {
    if by_value {
        return before.value() == after.value();
    }
    // SAFETY: by the caller's promise.
    unsafe {
        match length {
            -1 => super::digest::with_bytes(before, |before| {
                super::digest::with_bytes(after, |after| before == after)
            }),
            -2 => CStr::from_ptr(before.cast_mut_ptr()) == CStr::from_ptr(after.cast_mut_ptr()),
            length => {
                let length = usize::from(length.unsigned_abs());
                let bytes = |datum: Datum| std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), length);
                bytes(before) == bytes(after)
            }
        }
    }
}

/// How many triggers are being run, one within the other.
pub fn trigger_depth() -> i32 {
    // SAFETY: the function takes no arguments and reads a variable of the backend.
    unsafe { pgrx::direct_function_call::<i32>(pg_sys::pg_trigger_depth, &[]) }.unwrap_or(0)
}
