//! What a piece of work sees: a snapshot of its own.

use pgrx::pg_sys::{self, Oid};

use super::Parameter;
use super::statement::{Connection, Prepared};
use crate::error::{Answer, Problem, state};

/// Runs `work` so that everything it reads (with read-only statements) it reads in one new snapshot: all that is
/// committed now, whatever the isolation level, and what this transaction did.
pub fn with_latest_snapshot<T>(work: impl FnOnce() -> T) -> T {
    struct Pushed;
    impl Drop for Pushed {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                // SAFETY: pops what was pushed below; an abort pops it by itself.
                unsafe { pg_sys::PopActiveSnapshot() };
            }
        }
    }
    // SAFETY: within a transaction; the active snapshot is a copy of its own.
    let _pushed = unsafe {
        pg_sys::CommandCounterIncrement();
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        Pushed
    };
    work()
}

/// As [`with_latest_snapshot`], within a plan that has workers too: no snapshot can be taken there, and the one that
/// the statement began with is used.
pub fn with_newest_snapshot<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: reads a variable of the backend.
    if unsafe { pg_sys::IsInParallelMode() } { work() } else { with_latest_snapshot(work) }
}

/// Whether a statement of this session that has not ended uses a relation, or triggers of it are still to fire: a
/// new snapshot may see what such a statement did so far, and nobody was told of it yet.
pub fn is_in_use(relation: Oid) -> bool {
    // SAFETY: the relation is opened and closed here; the lock of a reader stays until the transaction ends.
    unsafe {
        let opened = pg_sys::try_relation_open(relation, pg_sys::AccessShareLock as i32);
        if opened.is_null() {
            return false;
        }
        let in_use = (*opened).rd_refcnt > 1 || pg_sys::AfterTriggerPendingOnRel(relation);
        pg_sys::relation_close(opened, pg_sys::NoLock as i32);
        in_use
    }
}

/// Whether each statement of this transaction sees what was committed before it.
pub fn is_read_committed() -> bool {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::XactIsoLevel <= pg_sys::XACT_READ_COMMITTED as i32 }
}

/// Runs a statement that changes rows so that it finds exactly those seen in the active snapshot; how many it
/// touched.
pub fn execute_in_snapshot(sql: &str, parameters: &[Parameter]) -> Answer<u64> {
    let mut prepared = Prepared::new(sql, parameters)?;
    let _connection = Connection::open();
    let plan = prepared.plan()?;
    // SAFETY: the arrays are `types.len()` long and outlive the call; a snapshot is active within a function.
    let (code, processed) = unsafe {
        let code = pg_sys::SPI_execute_snapshot(
            plan,
            prepared.values.as_mut_ptr(),
            prepared.nulls.as_ptr(),
            pg_sys::GetActiveSnapshot(),
            std::ptr::null_mut(),
            false,
            true,
            0,
        );
        (code, pg_sys::SPI_processed)
    };
    if code < 0 {
        let message = format!("a statement of the extension failed with code {code}");
        return Err(Problem::new(state::INTERNAL, message));
    }
    Ok(processed)
}

/// The server's clock, in microseconds since 2000-01-01 UTC.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pgrx::pg_sys::GetCurrentTimestamp() }
}
