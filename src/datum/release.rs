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

/// Makes a relation the target of an executor state.
///
/// # Safety
/// The relation is open and locked for writing; the state is new.
pub unsafe fn open_target(
    estate: *mut pg_sys::EState,
    relation: pg_sys::Relation,
) -> *mut pg_sys::ResultRelInfo {
    // SAFETY: nodes are allocated at their size and live as long as the state, by the caller's promise.
    unsafe {
        let entry = pg_sys::palloc0(size_of::<pg_sys::RangeTblEntry>()).cast::<pg_sys::RangeTblEntry>();
        (*entry).type_ = pg_sys::NodeTag::T_RangeTblEntry;
        (*entry).rtekind = pg_sys::RTEKind::RTE_RELATION;
        (*entry).relid = (*relation).rd_id;
        (*entry).relkind = (*(*relation).rd_rel).relkind;
        (*entry).rellockmode = pg_sys::RowExclusiveLock as i32;
        let entries = pg_sys::lappend(std::ptr::null_mut(), entry.cast());
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        pg_sys::ExecInitRangeTable(estate, entries);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        {
            let mut permissions = std::ptr::null_mut();
            pg_sys::addRTEPermissionInfo(&mut permissions, entry);
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
