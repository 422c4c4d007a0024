//! The trigger itself: before each row that is inserted or updated.

use pgrx::pg_guard;
use pgrx::pg_sys::{self, Datum};
use plimsoll_core::value::ColumnType;

use super::{is_synced, next_version};
use crate::datum::RowFired;
use crate::error::{Answer, OrRaise, Problem, state};
use crate::kept;

/// The version of the calling convention, as Postgres asks for it beside each function.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_stamp_trigger_wrapper() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// `plimsoll.stamp_trigger()`. On a table that is not registered it does nothing.
///
/// # Safety
/// Called by Postgres.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn stamp_trigger_wrapper(fcinfo: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: Postgres' own argument, used within the call.
    match unsafe { RowFired::new(fcinfo) } {
        Some(fired) => {
            let raised = raised(&fired).or_raise();
            fired.answer(raised)
        }
        None => {
            let message = "stamp_trigger can only be a trigger before a row is inserted or updated";
            Problem::new(state::BAD_ARGUMENT, message).raise()
        }
    }
}

/// The version that the row gets, and its place; `None` where it keeps the one it has.
fn raised(fired: &RowFired) -> Answer<Option<(usize, Datum)>> {
    let Some(mapping) = kept::mapping(fired.relation())? else { return Ok(None) };
    let Some((place, column_type)) = mapping.version() else { return Ok(None) };
    if is_synced(mapping.root) {
        return Ok(None);
    }
    let after = fired.after();
    let given = after.get(*place).map(|value| number(value, column_type));
    let previous = match fired.before() {
        // Whoever inserts a row with a version knows which.
        None if given.is_some() => return Ok(None),
        None => None,
        Some(before) => {
            let is_sent = |column: usize| column != *place && mapping.is_sent(column);
            if given.is_some() && !fired.differ(&before, &after, &is_sent) {
                return Ok(None);
            }
            before.get(*place).map(|value| number(value, column_type))
        }
    };
    let next = next_version(column_type, previous);
    if is_above(given, previous, next, column_type) {
        return Ok(None);
    }
    Ok(next.map(|next| (*place, datum(next, column_type))))
}

/// Whether the application raised the version itself: to any higher number, or to a stamp that is not of the future.
fn is_above(given: Option<i64>, previous: Option<i64>, next: Option<i64>, column_type: &ColumnType) -> bool {
    let is_stamp = matches!(column_type, ColumnType::Timestamp(_) | ColumnType::Timestamptz(_));
    let Some(given) = given.filter(|given| previous.is_none_or(|previous| *given > previous)) else {
        return false;
    };
    !is_stamp || next.is_some_and(|next| given <= next)
}

fn number(value: Datum, column_type: &ColumnType) -> i64 {
    match column_type {
        ColumnType::Int2 => i64::from(value.value() as i16),
        ColumnType::Int4 => i64::from(value.value() as i32),
        _ => value.value() as i64,
    }
}

fn datum(number: i64, column_type: &ColumnType) -> Datum {
    match column_type {
        ColumnType::Int2 => Datum::from(number as i16),
        ColumnType::Int4 => Datum::from(number as i32),
        _ => Datum::from(number),
    }
}
