//! Where releases of Postgres differ in what this folder calls.

use pgrx::pg_sys;

/// A column's description.
///
/// # Safety
/// `place` is below the number of attributes of the descriptor.
pub unsafe fn attribute(descriptor: pg_sys::TupleDesc, place: usize) -> *const pg_sys::FormData_pg_attribute {
    #[cfg(not(feature = "pg18"))]
    // SAFETY: by the caller's promise.
    unsafe {
        (*descriptor).attrs.as_ptr().add(place)
    }
    #[cfg(feature = "pg18")]
    // SAFETY: by the caller's promise.
    unsafe {
        pg_sys::TupleDescAttr(descriptor, place as i32)
    }
}

/// Whether no stored row of an open relation has NULL in a column: from Postgres 18 on a NOT NULL constraint may be
/// made without a look at the rows that there are.
///
/// # Safety
/// The descriptor is that of the relation, and `place` below its number of attributes.
pub unsafe fn is_never_null(descriptor: pg_sys::TupleDesc, place: usize) -> bool {
    // SAFETY: by the caller's promise; there is a compact attribute for each attribute.
    unsafe {
        #[cfg(feature = "pg18")]
        if (*(*descriptor).compact_attrs.as_ptr().add(place)).attnullability as u8
            != pg_sys::ATTNULLABLE_VALID
        {
            return false;
        }
        (*attribute(descriptor, place)).attnotnull
    }
}

/// Makes a relation the target of an executor state; `updated` are the places of columns that are to be set.
///
/// # Safety
/// The relation is open and locked for writing; the state is new.
pub unsafe fn open_target(
    estate: *mut pg_sys::EState,
    relation: pg_sys::Relation,
    updated: &[usize],
) -> *mut pg_sys::ResultRelInfo {
    // SAFETY: nodes are allocated at their size and live as long as the state, by the caller's promise.
    unsafe {
        let entry = pg_sys::palloc0(size_of::<pg_sys::RangeTblEntry>()).cast::<pg_sys::RangeTblEntry>();
        (*entry).type_ = pg_sys::NodeTag::T_RangeTblEntry;
        (*entry).rtekind = pg_sys::RTEKind::RTE_RELATION;
        (*entry).relid = (*relation).rd_id;
        (*entry).relkind = (*(*relation).rd_rel).relkind;
        (*entry).rellockmode = pg_sys::RowExclusiveLock as i32;
        let mut columns = std::ptr::null_mut();
        for place in updated {
            let number = *place as i32 + 1;
            columns = pg_sys::bms_add_member(columns, number - pg_sys::FirstLowInvalidHeapAttributeNumber);
        }
        let entries = pg_sys::lappend(std::ptr::null_mut(), entry.cast());
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        {
            (*entry).updatedCols = columns;
            pg_sys::ExecInitRangeTable(estate, entries);
        }
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        {
            let mut permissions = std::ptr::null_mut();
            (*pg_sys::addRTEPermissionInfo(&mut permissions, entry)).updatedCols = columns;
            #[cfg(not(feature = "pg18"))]
            pg_sys::ExecInitRangeTable(estate, entries, permissions);
            #[cfg(feature = "pg18")]
            pg_sys::ExecInitRangeTable(estate, entries, permissions, pg_sys::bms_make_singleton(1));
        }
        let target = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
        (*target).type_ = pg_sys::NodeTag::T_ResultRelInfo;
        pg_sys::ExecInitResultRelation(estate, target, 1);
        target
    }
}

/// Adds a stored row to the target's indexes; the indexes whose check is still to be made.
///
/// # Safety
/// The slot holds a row that was just stored in the target, whose indexes are open.
pub unsafe fn insert_index_tuples(
    target: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    estate: *mut pg_sys::EState,
) -> *mut pg_sys::List {
    let (none, no_indexes) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: by the caller's promise.
    unsafe {
        if (*target).ri_NumIndices == 0 {
            return no_indexes;
        }
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        return pg_sys::ExecInsertIndexTuples(target, slot, estate, false, false, none, no_indexes);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        pg_sys::ExecInsertIndexTuples(target, slot, estate, false, false, none, no_indexes, false)
    }
}

/// The context in which expressions are evaluated row by row.
///
/// # Safety
/// The state is alive.
pub unsafe fn per_tuple_context(estate: *mut pg_sys::EState) -> *mut pg_sys::ExprContext {
    // SAFETY: by the caller's promise.
    unsafe {
        match (*estate).es_per_tuple_exprcontext.is_null() {
            true => pg_sys::MakePerTupleExprContext(estate),
            false => (*estate).es_per_tuple_exprcontext,
        }
    }
}

/// Begins a scan of an index under the active snapshot.
///
/// # Safety
/// Both relations are open.
pub unsafe fn begin_index_scan(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    keys: i32,
) -> pg_sys::IndexScanDesc {
    // SAFETY: by the caller's promise.
    unsafe {
        let snapshot = pg_sys::GetActiveSnapshot();
        #[cfg(not(feature = "pg18"))]
        return pg_sys::index_beginscan(table, index, snapshot, keys, 0);
        #[cfg(feature = "pg18")]
        pg_sys::index_beginscan(table, index, snapshot, std::ptr::null_mut(), keys, 0)
    }
}

/// Indexes in which a changed row needs a new entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// None: it is reached by its old ones.
    None,
    /// All of them.
    All,
    /// Those that only sum up what is on a page.
    #[cfg(not(any(feature = "pg14", feature = "pg15")))]
    Summarizing,
}

/// Writes the row in `new` in the place of the one in `old`, in the table alone; `None` where somebody else changed
/// the row meanwhile.
///
/// # Safety
/// `old` holds a stored row of the target and `new` what it becomes.
pub unsafe fn update_tuple(
    target: *mut pg_sys::ResultRelInfo,
    old: *mut pg_sys::TupleTableSlot,
    new: *mut pg_sys::TupleTableSlot,
) -> Option<Touched> {
    let (mut failure, mut lock) = (pg_sys::TM_FailureData::default(), 0);
    let mut indexes = Default::default();
    // SAFETY: by the caller's promise; the other pointers are to locals.
    let outcome = unsafe {
        pg_sys::table_tuple_update(
            (*target).ri_RelationDesc,
            &raw mut (*old).tts_tid,
            new,
            pg_sys::GetCurrentCommandId(true),
            pg_sys::GetActiveSnapshot(),
            std::ptr::null_mut(),
            true,
            &mut failure,
            &mut lock,
            &mut indexes,
        )
    };
    if outcome != pg_sys::TM_Result::TM_Ok {
        return None;
    }
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    let touched = if indexes { Touched::All } else { Touched::None };
    #[cfg(not(any(feature = "pg14", feature = "pg15")))]
    let touched = match indexes {
        pg_sys::TU_UpdateIndexes::TU_None => Touched::None,
        pg_sys::TU_UpdateIndexes::TU_Summarizing => Touched::Summarizing,
        _ => Touched::All,
    };
    Some(touched)
}

/// Adds a changed row to the indexes that need it; the indexes whose check is still to be made.
///
/// # Safety
/// The slot holds a row that [`update_tuple`] wrote to the target, whose indexes are open.
pub unsafe fn update_index_tuples(
    target: *mut pg_sys::ResultRelInfo,
    estate: *mut pg_sys::EState,
    new: *mut pg_sys::TupleTableSlot,
    touched: Touched,
) -> *mut pg_sys::List {
    let (none, no_indexes) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: by the caller's promise; the other pointers are to locals.
    unsafe {
        if touched == Touched::None || (*target).ri_NumIndices == 0 {
            return no_indexes;
        }
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        return pg_sys::ExecInsertIndexTuples(target, new, estate, true, false, none, no_indexes);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        {
            let summarizing = touched == Touched::Summarizing;
            pg_sys::ExecInsertIndexTuples(target, new, estate, true, false, none, no_indexes, summarizing)
        }
    }
}

/// Tells triggers of a row that was changed.
///
/// # Safety
/// As for [`update_tuple`], after it.
pub unsafe fn after_row_update(
    estate: *mut pg_sys::EState,
    target: *mut pg_sys::ResultRelInfo,
    old: *mut pg_sys::TupleTableSlot,
    new: *mut pg_sys::TupleTableSlot,
    recheck: *mut pg_sys::List,
    capture: *mut pg_sys::TransitionCaptureState,
) {
    let none = std::ptr::null_mut();
    // SAFETY: by the caller's promise.
    unsafe {
        let place = &raw mut (*old).tts_tid;
        #[cfg(feature = "pg14")]
        pg_sys::ExecARUpdateTriggers(estate, target, place, none, new, recheck, capture);
        #[cfg(not(feature = "pg14"))]
        {
            let no_partition = std::ptr::null_mut();
            pg_sys::ExecARUpdateTriggers(
                estate,
                target,
                no_partition,
                no_partition,
                place,
                none,
                new,
                recheck,
                capture,
                false,
            );
        }
    }
}

/// A range between bounds, in its type's canonical form.
///
/// # Safety
/// `cache` is that of a range type, and the bounds are of its own.
pub unsafe fn make_range(
    cache: *mut pg_sys::TypeCacheEntry,
    lower: &mut pg_sys::RangeBound,
    upper: &mut pg_sys::RangeBound,
    empty: bool,
) -> *mut pg_sys::RangeType {
    // SAFETY: by the caller's promise.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        return pg_sys::make_range(cache, lower, upper, empty);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        pg_sys::make_range(cache, lower, upper, empty, std::ptr::null_mut())
    }
}

/// What the bindings leave out.
mod unbound {
    use pgrx::pg_sys::{Oid, RangeType, TypeCacheEntry, varlena};

    unsafe extern "C-unwind" {
        pub fn multirange_deserialize(
            ranges: *mut TypeCacheEntry,
            multirange: *const varlena,
            count: *mut i32,
            found: *mut *mut *mut RangeType,
        );
        pub fn make_multirange(
            multirange: Oid,
            ranges: *mut TypeCacheEntry,
            count: i32,
            given: *mut *mut RangeType,
        ) -> *mut varlena;
    }
}

/// The ranges of a multirange, in the current context.
///
/// # Safety
/// `multirange` is one of ranges of the type that `cache` is of, and neither compressed nor stored elsewhere.
pub unsafe fn ranges_of<'a>(
    cache: *mut pg_sys::TypeCacheEntry,
    multirange: *const pg_sys::varlena,
) -> &'a [*mut pg_sys::RangeType] {
    let (mut count, mut ranges) = (0, std::ptr::null_mut());
    // SAFETY: by the caller's promise; the other pointers are to locals, and the answer is `count` long.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            unbound::multirange_deserialize(cache, multirange, &mut count, &mut ranges);
        });
        if ranges.is_null() { &[] } else { std::slice::from_raw_parts(ranges, count as usize) }
    }
}

/// A multirange of these ranges, in order and joined where they touch.
///
/// # Safety
/// `ranges` are of the type that `cache` is of, of which `multirange` is the type of multiranges.
pub unsafe fn make_multirange(
    multirange: pg_sys::Oid,
    cache: *mut pg_sys::TypeCacheEntry,
    ranges: &mut [*mut pg_sys::RangeType],
) -> *mut pg_sys::varlena {
    // SAFETY: by the caller's promise.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            unbound::make_multirange(multirange, cache, ranges.len() as i32, ranges.as_mut_ptr())
        })
    }
}
