//! Index entries of rows that were stored together, added to one index after the other: the pages of an index stay
//! in the processor's cache that way.

use pgrx::pg_sys::{self, Datum};

use super::Target;
use crate::datum::release;

/// As many columns as an index may have.
const COLUMNS: usize = pg_sys::INDEX_MAX_KEYS as usize;

/// The function of a B-tree that adds an entry.
type Insert = unsafe extern "C-unwind" fn(
    pg_sys::Relation,
    *mut Datum,
    *mut bool,
    pg_sys::ItemPointer,
    pg_sys::Relation,
    pg_sys::IndexUniqueCheck::Type,
    bool,
    *mut pg_sys::IndexInfo,
) -> bool;

/// An open index of a target.
struct Index {
    relation: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    unique: pg_sys::IndexUniqueCheck::Type,
    /// Rows without entries, where there are any.
    predicate: *mut pg_sys::ExprState,
    /// For a B-tree over columns: their places in the table, and how an entry is added.
    plain: Option<(Vec<usize>, Insert)>,
    /// Whether an UPDATE leaves its columns as they are.
    unchanged: bool,
}

/// All indexes of a target.
pub(super) struct Indexes(Vec<Index>);

impl Indexes {
    /// The indexes of a target that was started; `updated` are the places of columns that an UPDATE sets. `None` where
    /// one must be told of each row by itself.
    pub(super) fn of(target: &Target, updated: Option<&[usize]>) -> Option<Indexes> {
        // SAFETY: the target's indexes are open.
        let one = |(relation, info)| unsafe { Index::of(target, relation, info, updated) };
        target.indexes().map(one).collect::<Option<Vec<_>>>().map(Indexes)
    }

    /// Adds rows.
    ///
    /// # Safety
    /// The slots hold rows of the target that were just stored, in the arrays of the slots too.
    pub(super) unsafe fn add(&self, target: &Target, slots: &[*mut pg_sys::TupleTableSlot]) {
        // SAFETY: by the caller's promise. What the access methods allocate goes with the context, which the caller
        // resets.
        unsafe {
            let context = release::per_tuple_context(target.estate);
            let saved = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
            for index in &self.0 {
                match &index.plain {
                    Some((columns, insert)) if index.predicate.is_null() => {
                        index.add_plain(target, slots, columns, *insert);
                    }
                    _ => index.add(target, slots, context),
                }
            }
            pg_sys::MemoryContextSwitchTo(saved);
        }
    }
}

impl Index {
    /// # Safety
    /// Both belong to one open index of the target.
    unsafe fn of(
        target: &Target,
        relation: pg_sys::Relation,
        info: *mut pg_sys::IndexInfo,
        updated: Option<&[usize]>,
    ) -> Option<Index> {
        // SAFETY: by the caller's promise; the arrays have a place for each column of the index.
        unsafe {
            if !(*info).ii_ExclusionOps.is_null()
                || !(*info).ii_ReadyForInserts
                || !(*(*relation).rd_index).indimmediate
            {
                return None;
            }
            let unique = match (*(*relation).rd_index).indisunique {
                true => pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES,
                false => pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO,
            };
            let numbers = &(&(*info).ii_IndexAttrNumbers)[..(*info).ii_NumIndexAttrs as usize];
            let columns: Option<Vec<usize>> =
                numbers.iter().map(|number| usize::try_from(number - 1).ok()).collect();
            let is_btree = (*(*relation).rd_rel).relam == pg_sys::BTREE_AM_OID;
            let insert = (*(*relation).rd_indam).aminsert.filter(|_| is_btree);
            let predicate = match target.always_holds((*info).ii_Predicate) {
                true => std::ptr::null_mut(),
                false => pg_sys::ExecPrepareQual((*info).ii_Predicate, target.estate),
            };
            let keys = (*info).ii_NumIndexKeyAttrs as usize;
            let is_set = |place: &usize| updated.is_some_and(|updated| updated.contains(place));
            let unchanged = updated.is_some()
                && columns.as_ref().is_some_and(|columns| !columns[..keys].iter().any(is_set));
            Some(Index { relation, info, unique, predicate, plain: columns.zip(insert), unchanged })
        }
    }

    /// Adds entries that are made of columns.
    ///
    /// # Safety
    /// As [`Indexes::add`].
    unsafe fn add_plain(
        &self,
        target: &Target,
        slots: &[*mut pg_sys::TupleTableSlot],
        columns: &[usize],
        insert: Insert,
    ) {
        let (mut values, mut nulls) = ([Datum::from(0usize); COLUMNS], [false; COLUMNS]);
        // SAFETY: by the caller's promise; an index has no more columns than the arrays have places. An ERROR
        // leaves nothing on this stack that would have to be dropped, and the loop does not panic.
        unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                for slot in slots {
                    for ((column, value), null) in columns.iter().zip(&mut values).zip(&mut nulls) {
                        *value = *(**slot).tts_values.add(*column);
                        *null = *(**slot).tts_isnull.add(*column);
                    }
                    insert(
                        self.relation,
                        values.as_mut_ptr(),
                        nulls.as_mut_ptr(),
                        &raw mut (**slot).tts_tid,
                        target.relation,
                        self.unique,
                        self.unchanged,
                        self.info,
                    );
                }
            });
        }
    }

    /// Adds entries, whatever they are made of, of the rows that have some.
    ///
    /// # Safety
    /// As [`Indexes::add`]; the context is the one of the target's state.
    unsafe fn add(
        &self,
        target: &Target,
        slots: &[*mut pg_sys::TupleTableSlot],
        context: *mut pg_sys::ExprContext,
    ) {
        let (mut values, mut nulls) = ([Datum::from(0usize); COLUMNS], [false; COLUMNS]);
        for slot in slots {
            // SAFETY: by the caller's promise; an index has no more columns than the arrays have places.
            unsafe {
                (*context).ecxt_scantuple = *slot;
                let mut null = false;
                if !self.predicate.is_null()
                    && pg_sys::ExecEvalExpr(self.predicate, context, &mut null).value() == 0
                {
                    continue;
                }
                let (values, nulls) = (values.as_mut_ptr(), nulls.as_mut_ptr());
                pg_sys::FormIndexDatum(self.info, *slot, target.estate, values, nulls);
                pg_sys::index_insert(
                    self.relation,
                    values,
                    nulls,
                    &raw mut (**slot).tts_tid,
                    target.relation,
                    self.unique,
                    self.unchanged,
                    self.info,
                );
            }
        }
    }
}

impl Target {
    /// Whether a predicate says no more than that columns are not NULL which never are: all rows meet it once
    /// constraints are checked.
    ///
    /// # Safety
    /// The predicate is that of an index of the target, or empty.
    unsafe fn always_holds(&self, predicate: *mut pg_sys::List) -> bool {
        if predicate.is_null() {
            return true;
        }
        // SAFETY: a list has as many cells as it says, of nodes here; nodes are what their tags say.
        unsafe {
            let cells = std::slice::from_raw_parts((*predicate).elements, (*predicate).length as usize);
            cells.iter().all(|cell| {
                let test = cell.ptr_value.cast::<pg_sys::NullTest>();
                if (*test).xpr.type_ != pg_sys::NodeTag::T_NullTest
                    || (*test).nulltesttype != pg_sys::NullTestType::IS_NOT_NULL
                    || (*test).argisrow
                {
                    return false;
                }
                let column = (*test).arg.cast::<pg_sys::Var>();
                (*column).xpr.type_ == pg_sys::NodeTag::T_Var
                    && usize::try_from(i32::from((*column).varattno) - 1)
                        .is_ok_and(|place| (*release::attribute(self.descriptor, place)).attnotnull)
            })
        }
    }
}
