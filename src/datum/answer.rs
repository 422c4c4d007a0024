//! Rows of a set-returning function, handed over one by one: in memory as long as they fit into `work_mem`, in a file
//! from then on.

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};

use crate::error::{Answer, Problem, state};

/// The call of a set-returning function, as an argument of it.
pub struct Call(FunctionCallInfo);

// SAFETY: as that of what it wraps, of which only this module makes use, during the call.
unsafe impl<'fcx> ArgAbi<'fcx> for Call {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: by the caller's promise.
        Call(unsafe { FunctionCallInfo::unbox_arg_unchecked(arg) })
    }

    fn is_virtual_arg() -> bool {
        true
    }
}

// SAFETY: no argument in SQL, and nothing that is answered.
unsafe impl SqlTranslatable for Call {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Call);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::Skip);
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::Skip));
}

/// Where the rows of an answer go.
pub struct Answers {
    descriptor: pg_sys::TupleDesc,
    store: *mut pg_sys::Tuplestorestate,
    columns: usize,
}

impl Call {
    /// Answers the rows that `work` hands over.
    ///
    /// # Errors
    /// `UNSUPPORTED` where the caller takes no set of rows; those of `work`.
    pub fn answer(self, work: impl FnOnce(&mut Answers) -> Answer<()>) -> Answer<()> {
        // SAFETY: pgrx hands the call's own data over, which outlive it; descriptor and store are allocated where
        // the caller of the function looks for them, for as long as its query.
        let mut answers = unsafe {
            let info = (*self.0).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            let takes_set = !info.is_null()
                && (*info).type_ == pg_sys::NodeTag::T_ReturnSetInfo
                && (*info).allowedModes as u32 & pg_sys::SetFunctionReturnMode::SFRM_Materialize != 0;
            if !takes_set {
                let message = "this function answers a set of rows, which cannot be taken here";
                return Err(Problem::new(state::UNSUPPORTED, message).hint("Call it in FROM."));
            }
            let saved = pg_sys::MemoryContextSwitchTo((*(*info).econtext).ecxt_per_query_memory);
            let mut descriptor = std::ptr::null_mut();
            let class = pg_sys::get_call_result_type(self.0, std::ptr::null_mut(), &mut descriptor);
            if class != pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE {
                return Err(Problem::new(state::INTERNAL, "a function that answers no rows"));
            }
            let random =
                (*info).allowedModes as u32 & pg_sys::SetFunctionReturnMode::SFRM_Materialize_Random != 0;
            let store = pg_sys::tuplestore_begin_heap(random, false, pg_sys::work_mem);
            (*info).returnMode = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            (*info).setResult = store;
            (*info).setDesc = descriptor;
            pg_sys::MemoryContextSwitchTo(saved);
            Answers { descriptor, store, columns: (*descriptor).natts as usize }
        };
        work(&mut answers)
    }
}

impl Answers {
    /// The next row, NULL as `None`; it is copied.
    ///
    /// # Errors
    /// `INTERNAL` where it has another number of columns than the function.
    pub fn push(&mut self, values: &[Option<Datum>]) -> Answer<()> {
        if values.len() != self.columns {
            return Err(Problem::new(state::INTERNAL, "a row of another width than the answer"));
        }
        let mut nulls: Vec<bool> = values.iter().map(Option::is_none).collect();
        let mut values: Vec<Datum> =
            values.iter().map(|value| value.unwrap_or(Datum::from(0usize))).collect();
        // SAFETY: both arrays have a place for each column; callers make the datums of the columns' types.
        unsafe {
            pg_sys::tuplestore_putvalues(
                self.store,
                self.descriptor,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
        Ok(())
    }
}
