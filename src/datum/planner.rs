//! What the planner is told in a statement of this extension: which plans it shall avoid, and which indexes it may find rows
//! by.
//!
//! Without statistics, or with those of long ago, the planner takes all indexes that begin with the tenant's columns for
//! equally good, and may read the whole replica for each row. Which index finds rows is known: it is shown no other.

use std::cell::RefCell;
use std::ffi::CStr;

use pgrx::pg_sys::{self, Oid};

use crate::error::Answer;

/// What one statement may find the rows of a table, or of its partitions, by: some of its B-trees.
#[derive(Debug, Clone)]
pub struct Indexes {
    table: Oid,
    fit: Fit,
}

#[derive(Debug, Clone)]
enum Fit {
    /// Those of all rows that lead with these columns, whichever of them comes first.
    Over(Vec<String>),
    /// Those that lead with these columns in this order, and then with an expression or not.
    Leading(Vec<String>, bool),
}

impl Indexes {
    /// Indexes that find rows by these columns at once. Where there are none, every index.
    pub fn over(table: Oid, columns: Vec<String>) -> Self {
        Indexes { table, fit: Fit::Over(columns) }
    }

    /// Indexes that lead with these columns in this order, and with an expression after them where `computed`. Where
    /// there are none, every index.
    pub fn leading(table: Oid, columns: Vec<String>, computed: bool) -> Self {
        Indexes { table, fit: Fit::Leading(columns, computed) }
    }

    /// Takes the other indexes from what the planner knows of a table.
    ///
    /// # Safety
    /// `relation` is what the planner just looked up of the table with this oid.
    unsafe fn leave_only(&self, oid: Oid, relation: *mut pg_sys::RelOptInfo) {
        // SAFETY: by the caller's promise; a list of indexes holds nodes that describe them, and lists are made in the
        // planner's memory, as the one that they replace was.
        unsafe {
            let is_member = (*relation).reloptkind == pg_sys::RelOptKind::RELOPT_OTHER_MEMBER_REL;
            if oid != self.table && !is_member {
                return;
            }
            let count = pg_sys::list_length((*relation).indexlist);
            let mut left = std::ptr::null_mut();
            for place in 0..count {
                let index = pg_sys::list_nth((*relation).indexlist, place);
                if self.fit.takes(oid, &*index.cast::<pg_sys::IndexOptInfo>()) {
                    left = pg_sys::lappend(left, index);
                }
            }
            if !left.is_null() {
                (*relation).indexlist = left;
            }
        }
    }
}

impl Fit {
    /// Whether an index of the table is one of these.
    ///
    /// # Safety
    /// The planner made it of an index of the table with this oid.
    unsafe fn takes(&self, oid: Oid, index: &pg_sys::IndexOptInfo) -> bool {
        if index.relam != pg_sys::BTREE_AM_OID {
            return false;
        }
        let columns = usize::try_from(index.nkeycolumns).unwrap_or(0);
        // SAFETY: the arrays have a place for each key column.
        let (numbers, collations) = unsafe {
            (
                std::slice::from_raw_parts(index.indexkeys, columns),
                std::slice::from_raw_parts(index.indexcollations, columns),
            )
        };
        // SAFETY: by the caller's promise the numbers are of the table's columns.
        let is =
            |place: usize, name: &str| unsafe { is_column(oid, numbers[place], collations[place], name) };
        match self {
            Fit::Over(names) => {
                index.indpred.is_null()
                    && columns >= names.len()
                    && names.iter().all(|name| (0..names.len()).any(|place| is(place, name)))
            }
            Fit::Leading(names, computed) => {
                columns >= names.len() + usize::from(*computed)
                    && names.iter().enumerate().all(|(place, name)| is(place, name))
                    && (!computed || numbers[names.len()] == 0)
            }
        }
    }
}

/// Whether a key of an index is the column of that name, compared as the column's values are.
///
/// # Safety
/// There is a table with this oid, and a column with this number unless it is 0.
unsafe fn is_column(oid: Oid, number: i32, collation: Oid, name: &str) -> bool {
    let Ok(number @ 1..) = i16::try_from(number) else { return false };
    let (mut type_oid, mut typmod, mut own) = (Oid::INVALID, 0, Oid::INVALID);
    // SAFETY: by the caller's promise; the pointers are to locals, and names that are found end in NUL.
    unsafe {
        pg_sys::get_atttypetypmodcoll(oid, number, &mut type_oid, &mut typmod, &mut own);
        let found = pg_sys::get_attname(oid, number, true);
        own == collation && !found.is_null() && CStr::from_ptr(found).to_bytes() == name.as_bytes()
    }
}

thread_local! {
    /// Of the statement that is planned next.
    static NEXT: RefCell<Option<Indexes>> = const { RefCell::new(None) };
    /// Of the statement that is being planned.
    static PLANNED: RefCell<Option<Indexes>> = const { RefCell::new(None) };
    /// Whom Postgres asked before, once it asks here.
    static BEFORE: RefCell<Option<Hooks>> = const { RefCell::new(None) };
}

/// Whom Postgres asked before.
#[derive(Clone, Copy)]
struct Hooks {
    planner: pg_sys::planner_hook_type,
    relation: pg_sys::get_relation_info_hook_type,
}

/// Puts back what was there, whichever way the scope is left.
struct Restored(&'static std::thread::LocalKey<RefCell<Option<Indexes>>>, Option<Indexes>);

impl Drop for Restored {
    fn drop(&mut self) {
        self.0.replace(self.1.take());
    }
}

/// Runs `work`, whose first statement finds rows by these indexes alone; what that statement sets off is planned as ever.
pub fn by_only<T>(indexes: Indexes, work: impl FnOnce() -> Answer<T>) -> Answer<T> {
    let _restored = Restored(&NEXT, NEXT.replace(Some(indexes)));
    work()
}

/// Runs `work`, one statement, by a plan that looks each row up by one of these indexes: estimates on a table that grows
/// fast lead to plans that read all of it for every batch, and to compiling what is run once.
pub fn by_index<T>(indexes: Indexes, work: impl FnOnce() -> Answer<T>) -> Answer<T> {
    by_place(|| by_only(indexes, work))
}

/// The same where rows are named by where they lie, which no index tells.
pub fn by_place<T>(work: impl FnOnce() -> Answer<T>) -> Answer<T> {
    without(&[c"enable_hashjoin", c"enable_mergejoin", c"enable_seqscan", c"jit"], work)
}

/// Runs `work` with plans that find rows in the order asked for, where an index has it or the beginning of it: without
/// statistics the planner would rather read and sort all of them.
pub fn in_order<T>(work: impl FnOnce() -> Answer<T>) -> Answer<T> {
    without(&[c"enable_sort", c"jit"], work)
}

/// Runs `work` with these settings off.
fn without<T>(settings: &[&CStr], work: impl FnOnce() -> Answer<T>) -> Answer<T> {
    // SAFETY: the settings hold until the level is closed below, or by the abort that an ERROR leads to.
    let level = unsafe { pg_sys::NewGUCNestLevel() };
    for name in settings {
        // SAFETY: NUL-terminated names and values of settings that every user may change.
        unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                c"off".as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
    }
    let answer = work();
    // SAFETY: closes the level opened above.
    unsafe { pg_sys::AtEOXact_GUC(true, level) };
    answer
}

/// Asks Postgres to ask here, from when the library is loaded on.
pub fn register_hooks() {
    // SAFETY: variables of the backend, which has one thread; the hooks are functions of this library, which is never
    // unloaded.
    let before = unsafe {
        let before = Hooks { planner: pg_sys::planner_hook, relation: pg_sys::get_relation_info_hook };
        pg_sys::planner_hook = Some(plan);
        pg_sys::get_relation_info_hook = Some(look_up);
        before
    };
    BEFORE.replace(Some(before));
}

/// Plans a statement: where it is the one that was announced, with its indexes.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn plan(
    query: *mut pg_sys::Query,
    text: *const core::ffi::c_char,
    options: core::ffi::c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    let _restored = Restored(&PLANNED, PLANNED.replace(NEXT.take()));
    let before = BEFORE.with_borrow(|before| before.and_then(|hooks| hooks.planner));
    // SAFETY: the arguments are handed on as Postgres gave them. What another library raises goes no further than the
    // boundary, which turns it into a panic that drops what this frame holds.
    unsafe {
        match before {
            Some(before) => pg_sys::ffi::pg_guard_ffi_boundary(|| before(query, text, options, parameters)),
            None => pg_sys::standard_planner(query, text, options, parameters),
        }
    }
}

/// Told of each table of a statement that is being planned.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn look_up(
    root: *mut pg_sys::PlannerInfo,
    oid: Oid,
    is_parent: bool,
    relation: *mut pg_sys::RelOptInfo,
) {
    let before = BEFORE.with_borrow(|before| before.and_then(|hooks| hooks.relation));
    if let Some(before) = before {
        // SAFETY: as in `plan`.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| before(root, oid, is_parent, relation)) };
    }
    PLANNED.with_borrow(|indexes| {
        if let Some(indexes) = indexes {
            // SAFETY: Postgres calls this with what it just looked up of the table.
            unsafe { indexes.leave_only(oid, relation) };
        }
    });
}
