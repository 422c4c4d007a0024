//! `plimsoll.fingerprint(key, ...)`: the fingerprint of the rows of any query, as an aggregate.
//!
//! Its state is a `bytea`, so that it needs no functions to carry it between parallel workers; it is changed in
//! place where the executor allows that. In a group of many rows some wait in it until they can be hashed
//! together. No role may call the functions here themselves: Postgres does, for the aggregate.

use pgrx::pg_guard;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use pgrx::varlena::{set_varsize_4b, varatt_is_4b_u, vardata_4b, varsize_4b};
use plimsoll_core::digest::{Digester, FingerprintKey, GATHERING_BYTES, Gathering};
use plimsoll_core::fingerprint::{FINGERPRINT_BYTES, Fingerprint};

use super::Codec;
use super::columns::{CallColumns, argument, export, is_row_type, kept_at};
use super::digest::with_bytes;
use crate::error::{Answer, OrRaise, Problem, state};

const HEADER: usize = pg_sys::VARHDRSZ;

/// What one call site keeps from row to row.
struct Rows {
    digester: Digester,
    form: Vec<u8>,
    columns: CallColumns,
}

impl Rows {
    /// What is kept at the call site of `fcinfo`, made at its first call.
    ///
    /// # Safety
    /// `fcinfo` is that of a call, and nobody else uses `fn_extra` of its function.
    #[inline]
    unsafe fn of<'a>(fcinfo: FunctionCallInfo) -> Answer<&'a mut Rows> {
        // SAFETY: by the caller's promise.
        unsafe {
            kept_at(fcinfo, |memory| {
                let name = "plimsoll.fingerprint";
                let columns = CallColumns::new(fcinfo, name, 2, is_whole_row, Box::new(codec), memory)?;
                let digester = Digester::new(FingerprintKey::new([0; 32]));
                Ok(Rows { digester, form: Vec::new(), columns })
            })
        }
    }

    /// Takes the key of this row, which may be another than the last one's.
    ///
    /// # Safety
    /// `key` is a bytea.
    #[inline]
    unsafe fn set_key(&mut self, key: Option<Datum>) -> Answer<()> {
        let hint = "Take the database's own key, or 32 random bytes.";
        let Some(key) = key else {
            return Err(Problem::new(state::MISSING_ARGUMENT, "the fingerprint key is NULL").hint(hint));
        };
        // SAFETY: by the caller's promise.
        let known = unsafe { with_bytes(key, |key| self.digester.set_key(key)) };
        known.map_err(|error| Problem::new(state::BAD_ARGUMENT, error.to_string()).hint(hint))
    }

    /// Writes down the columns of this row, in digest form. Whether there is a row: a NULL in place of one, as
    /// an outer join makes them, is none.
    ///
    /// # Safety
    /// `fcinfo` is that of a call from the call site that this was made for.
    #[inline]
    unsafe fn write(&mut self, fcinfo: FunctionCallInfo) -> Answer<bool> {
        self.form.clear();
        // SAFETY: by the caller's promise.
        unsafe { self.columns.write(fcinfo, |place| place as u32 + 1, &mut self.form) }
    }
}

/// Whether one argument is a row whose columns are meant, not one column.
fn is_whole_row(types: &[Oid]) -> bool {
    matches!(types, [type_oid] if is_row_type(*type_oid))
}

/// The codec of a column, whose number counts from 1.
fn codec(place: usize, type_oid: Oid, typmod: i32) -> Answer<Codec> {
    Codec::for_digests(type_oid, typmod).map_err(|problem| {
        let message = format!("column {} has no fingerprint: {}", place + 1, problem.message());
        Problem::new(problem.code(), message).hint("Leave it out, or cast it to text.")
    })
}

/// What is handed over in place of a state.
fn no_state() -> Problem {
    Problem::new(state::BAD_ARGUMENT, "not a state of plimsoll.fingerprint")
}

/// The state to change: the one handed over where an aggregate owns it, else a copy.
///
/// # Safety
/// `fcinfo` is that of a call whose first argument is a bytea.
#[inline]
unsafe fn own_state(fcinfo: FunctionCallInfo) -> Answer<*mut pg_sys::varlena> {
    // SAFETY: by the caller's promise; in an aggregate the first argument is the aggregate's own copy.
    unsafe {
        let datum = argument(fcinfo, 0).ok_or_else(no_state)?;
        let place = datum.cast_mut_ptr();
        if is_aggregate(fcinfo) && varatt_is_4b_u(place) {
            return Ok(place);
        }
        Ok(with_bytes(datum, |bytes| {
            let copy = new_bytea(bytes.len());
            bytes_mut(copy).copy_from_slice(bytes);
            copy
        }))
    }
}

/// The bytes of a state.
///
/// # Safety
/// `place` is a bytea with a long header, and nobody else reads or writes it meanwhile.
#[inline]
unsafe fn bytes_mut<'a>(place: *mut pg_sys::varlena) -> &'a mut [u8] {
    // SAFETY: by the caller's promise; the header says how long it is.
    unsafe { std::slice::from_raw_parts_mut(vardata_4b(place).cast_mut().cast(), varsize_4b(place) - HEADER) }
}

/// Whether a call comes from an aggregate's node, as `AggCheckCallContext` finds out.
///
/// # Safety
/// `fcinfo` is that of a call.
#[inline]
unsafe fn is_aggregate(fcinfo: FunctionCallInfo) -> bool {
    // SAFETY: by the caller's promise; the context is null or a node.
    unsafe {
        let context = (*fcinfo).context;
        !context.is_null()
            && matches!((*context).type_, pg_sys::NodeTag::T_AggState | pg_sys::NodeTag::T_WindowAggState)
    }
}

/// A bytea of `length` zero bytes.
fn new_bytea(length: usize) -> *mut pg_sys::varlena {
    // SAFETY: a fresh allocation, as long as its header says.
    unsafe {
        let place = pg_sys::palloc0(HEADER + length).cast::<pg_sys::varlena>();
        set_varsize_4b(place, (HEADER + length) as i32);
        place
    }
}

/// `sfunc(state, key, columns...)`
///
/// # Safety
/// Called by Postgres as it was declared.
unsafe fn add(fcinfo: FunctionCallInfo) -> Answer<Datum> {
    // SAFETY: the arguments are as declared; states are used by one reference at a time.
    unsafe {
        let place = own_state(fcinfo)?;
        let rows = Rows::of(fcinfo)?;
        rows.set_key(argument(fcinfo, 1))?;
        if !rows.write(fcinfo)? {
            return Ok(Datum::from(place));
        }
        let mut gathering = Gathering::new(bytes_mut(place)).ok_or_else(no_state)?;
        if !gathering.add(&rows.digester, &rows.form) {
            return Ok(Datum::from(place));
        }
        // The executor copies what is not the state that it handed over to where it keeps states.
        let [short, long] = GATHERING_BYTES;
        let grown = new_bytea(long);
        bytes_mut(grown)[..short].copy_from_slice(bytes_mut(place));
        Ok(Datum::from(grown))
    }
}

/// The fingerprint of the rows in a state.
///
/// # Safety
/// `fcinfo` is that of a call whose argument `i` is a bytea.
unsafe fn fingerprint(fcinfo: FunctionCallInfo, i: usize) -> Answer<Fingerprint> {
    // SAFETY: by the caller's promise.
    unsafe {
        let datum = argument(fcinfo, i).ok_or_else(no_state)?;
        with_bytes(datum, |bytes| Gathering::new(bytes).map(|rows| rows.fingerprint())).ok_or_else(no_state)
    }
}

/// `combinefunc(state, state)`
///
/// # Safety
/// As [`add`].
unsafe fn combine(fcinfo: FunctionCallInfo) -> Answer<Datum> {
    // SAFETY: both arguments are states.
    unsafe {
        let mut total = fingerprint(fcinfo, 0)?;
        total.combine(&fingerprint(fcinfo, 1)?);
        let mut place = own_state(fcinfo)?;
        if bytes_mut(place).len() != FINGERPRINT_BYTES {
            place = new_bytea(FINGERPRINT_BYTES);
        }
        bytes_mut(place).copy_from_slice(&total.to_bytes());
        Ok(Datum::from(place))
    }
}

/// `finalfunc(state)`: the digest sum.
///
/// # Safety
/// As [`add`].
unsafe fn sum(fcinfo: FunctionCallInfo) -> Answer<Datum> {
    // SAFETY: the argument is a state.
    unsafe {
        let sum = fingerprint(fcinfo, 0)?.sum();
        let place = new_bytea(sum.len());
        bytes_mut(place).copy_from_slice(&sum);
        Ok(Datum::from(place))
    }
}

export! {
    fingerprint_add_wrapper, pg_finfo_fingerprint_add_wrapper, add;
    fingerprint_combine_wrapper, pg_finfo_fingerprint_combine_wrapper, combine;
    fingerprint_sum_wrapper, pg_finfo_fingerprint_sum_wrapper, sum;
}
