//! Errors caught without harm: the work runs in a subtransaction that is rolled back.

use std::panic::AssertUnwindSafe;

use pgrx::PgTryBuilder;
use pgrx::pg_sys;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::CaughtError;

use crate::error::{Answer, state};

/// An ERROR that was raised within [`attempt`].
#[derive(Debug)]
pub struct Caught {
    code: PgSqlErrorCode,
    /// The error's message.
    pub message: String,
    /// Its detail.
    pub detail: Option<String>,
    cause: Box<CaughtError>,
}

impl Caught {
    fn new(cause: CaughtError) -> Self {
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. }) = &cause;
        Caught {
            code: report.sql_error_code(),
            message: report.message().to_owned(),
            detail: report.detail().map(str::to_owned),
            cause: Box::new(cause),
        }
    }

    /// The five characters of its SQLSTATE.
    pub fn sqlstate(&self) -> String {
        state::text(self.code)
    }

    /// Raises it again, as it was.
    pub fn raise(self) -> ! {
        self.cause.rethrow()
    }
}

/// Runs `work` in a subtransaction. It is committed where `work` answers a value and rolled back where it
/// answers a problem or raises an ERROR, which is then answered instead of raised.
pub fn attempt<T>(work: impl FnOnce() -> Answer<T>) -> Result<Answer<T>, Caught> {
    // SAFETY: reads variables of the backend, begins a subtransaction that is ended on each path below,
    // and keeps to the context the caller runs in.
    let (context, owner) = unsafe {
        let saved = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(saved.0);
        saved
    };
    let restore = || {
        // SAFETY: both outlive the subtransaction.
        unsafe {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        }
    };
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| {
        let answer = work();
        if answer.is_ok() {
            // SAFETY: ends the subtransaction begun above.
            unsafe { pg_sys::ReleaseCurrentSubTransaction() };
        }
        Ok(answer)
    }))
    .catch_others(|cause| Err(Caught::new(cause)))
    .execute();
    if !matches!(outcome, Ok(Ok(_))) {
        // SAFETY: as above; the context must be one that survives.
        unsafe {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
    }
    restore();
    outcome
}

/// Makes deferred constraints immediate for this transaction: within a restricted operation no deferred
/// trigger could fire, and a violation then belongs to the batch, not to COMMIT.
pub fn set_constraints_immediate() {
    // SAFETY: a node of this type with no names means ALL.
    unsafe {
        let statement =
            pg_sys::palloc0(size_of::<pg_sys::ConstraintsSetStmt>()).cast::<pg_sys::ConstraintsSetStmt>();
        (*statement).type_ = pg_sys::NodeTag::T_ConstraintsSetStmt;
        pg_sys::AfterTriggerSetState(statement);
    }
}
