//! `plimsoll.fingerprint(key, ...)`: the fingerprint of the rows of any query, as an aggregate.
//!
//! Its state is a `bytea`, so that it needs no functions to carry it between parallel workers; it is changed in
//! place where the executor allows that. In a group of many rows some wait in it until they can be hashed
//! together. No role may call the functions here themselves: Postgres does, for the aggregate.

use std::mem::ManuallyDrop;

use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid, Pg_finfo_record};
use pgrx::varlena::{set_varsize_4b, varatt_is_4b_u, vardata_4b, varsize_4b};
use pgrx::{PgMemoryContexts, PgTupleDesc, pg_guard};
use plimsoll_core::digest::{Digester, FingerprintKey, GATHERING_BYTES, Gathering};
use plimsoll_core::fingerprint::{FINGERPRINT_BYTES, Fingerprint};
use plimsoll_core::row::RowWriter;

use super::digest::with_bytes;
use super::{Codec, Scratch, require_utf8};
use crate::error::{Answer, OrRaise, Problem, state};

const HEADER: usize = pg_sys::VARHDRSZ;

/// What one call site keeps from row to row.
struct Rows {
    digester: Digester,
    form: Vec<u8>,
    /// Of the columns, whether they are arguments or attributes of a record.
    codecs: Vec<Codec>,
    /// `None` where the columns are arguments.
    record: Option<Record>,
    /// Where the functions of the codecs keep their state. Its parent, the context of the call site's function,
    /// takes it along before it drops this.
    memory: ManuallyDrop<Scratch>,
}

/// The type of the rows that are given as one value each. Of type `record`, each may be another.
#[derive(Default)]
struct Record {
    row_type: Option<(Oid, i32)>,
    descriptor: pg_sys::TupleDesc,
    /// Places of the attributes that are not dropped.
    places: Vec<usize>,
    values: Vec<Datum>,
    nulls: Vec<bool>,
}

/// An argument; `None` is NULL.
///
/// # Safety
/// `fcinfo` is that of a call with more than `i` arguments.
#[inline]
unsafe fn argument(fcinfo: FunctionCallInfo, i: usize) -> Option<Datum> {
    // SAFETY: by the caller's promise.
    let argument = unsafe { &*(*fcinfo).args.as_ptr().add(i) };
    (!argument.isnull).then_some(argument.value)
}

/// The codec of a column, whose number counts from 1.
fn codec(number: usize, type_oid: Oid, typmod: i32) -> Answer<Codec> {
    Codec::for_digests(type_oid, typmod).map_err(|problem| {
        let message = format!("column {number} has no fingerprint: {}", problem.message());
        Problem::new(problem.code(), message).hint("Leave it out, or cast it to text.")
    })
}

/// Whether values of the type are whole rows.
fn is_row_type(type_oid: Oid) -> bool {
    // SAFETY: looks the type up in the catalogue.
    type_oid == pg_sys::RECORDOID || unsafe { pg_sys::type_is_rowtype(type_oid) }
}

impl Rows {
    /// What is kept at the call site of `fcinfo`, made at its first call.
    ///
    /// # Safety
    /// `fcinfo` is that of a call, and nobody else uses `fn_extra` of its function.
    #[inline]
    unsafe fn of<'a>(fcinfo: FunctionCallInfo) -> Answer<&'a mut Rows> {
        // SAFETY: by the caller's promise; what is kept is dropped with the function's context.
        unsafe {
            let function = (*fcinfo).flinfo;
            if (*function).fn_extra.is_null() {
                let mut lasting = PgMemoryContexts::For((*function).fn_mcxt);
                let memory = lasting.switch_to(|_| Scratch::new());
                let rows = Rows::new(fcinfo, memory)?;
                (*function).fn_extra = lasting.leak_and_drop_on_delete(rows).cast();
            }
            Ok(&mut *(*function).fn_extra.cast::<Rows>())
        }
    }

    /// # Safety
    /// As [`of`](Self::of).
    unsafe fn new(fcinfo: FunctionCallInfo, memory: Scratch) -> Answer<Rows> {
        require_utf8()?;
        // SAFETY: looks at the expression that the call came from.
        let (types, is_list) = unsafe {
            let (function, count) = ((*fcinfo).flinfo, (*fcinfo).nargs);
            let types = (2..i32::from(count)).map(|i| pg_sys::get_fn_expr_argtype(function, i));
            (types.collect::<Vec<_>>(), pg_sys::get_fn_expr_variadic(function))
        };
        if is_list {
            let message = "plimsoll.fingerprint takes columns one by one, not as VARIADIC array";
            return Err(Problem::new(state::UNSUPPORTED, message).hint("Write the columns out."));
        }
        let (codecs, record) = match types[..] {
            [type_oid] if is_row_type(type_oid) => (Vec::new(), Some(Record::default())),
            _ => {
                let codecs = types.iter().enumerate().map(|(i, type_oid)| codec(i + 1, *type_oid, -1));
                (memory.within(|| codecs.collect::<Answer<Vec<_>>>())?, None)
            }
        };
        let digester = Digester::new(FingerprintKey::new([0; 32]));
        Ok(Rows { digester, form: Vec::new(), codecs, record, memory: ManuallyDrop::new(memory) })
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
        if self.record.is_some() {
            // SAFETY: by the caller's promise.
            return unsafe { self.write_record(fcinfo) };
        }
        let mut row = RowWriter::new(&mut self.form);
        for (i, codec) in self.codecs.iter_mut().enumerate() {
            // SAFETY: the codecs were made for the arguments of this call site.
            unsafe {
                if let Some(datum) = argument(fcinfo, i + 2) {
                    codec.write_digest_field(datum, i as u32 + 1, &mut row)?;
                }
            }
        }
        Ok(true)
    }

    /// # Safety
    /// As [`write`](Self::write), where the call site hands over whole rows.
    unsafe fn write_record(&mut self, fcinfo: FunctionCallInfo) -> Answer<bool> {
        let Rows { form, codecs, record: Some(record), memory, .. } = self else { return Ok(false) };
        // SAFETY: a value of a row type says which one it is of, and its descriptor has as many attributes as
        // the arrays have places.
        unsafe {
            let Some(datum) = argument(fcinfo, 2) else { return Ok(false) };
            let stored = datum.cast_mut_ptr::<pg_sys::varlena>();
            let header = pg_sys::pg_detoast_datum(stored).cast::<pg_sys::HeapTupleHeaderData>();
            let fields = (*header).t_choice.t_datum;
            let row_type = (fields.datum_typeid, fields.datum_typmod);
            if record.row_type != Some(row_type) {
                record.row_type = None;
                codecs.clear();
                memory.reset();
                (*record, *codecs) = memory.within(|| Record::of_type(row_type))?;
            }
            let mut tuple = pg_sys::HeapTupleData {
                t_len: varsize_4b(header.cast()) as u32,
                t_data: header,
                ..Default::default()
            };
            let (values, nulls) = (record.values.as_mut_ptr(), record.nulls.as_mut_ptr());
            pg_sys::heap_deform_tuple(&mut tuple, record.descriptor, values, nulls);
            let mut row = RowWriter::new(form);
            for (i, (place, codec)) in record.places.iter().zip(codecs).enumerate() {
                if !record.nulls[*place] {
                    codec.write_digest_field(record.values[*place], i as u32 + 1, &mut row)?;
                }
            }
        }
        Ok(true)
    }
}

impl Record {
    /// What to expect of rows of a type, and the codecs of its columns. Both live in the current context.
    ///
    /// # Safety
    /// The type, with its modifier, is one of rows.
    unsafe fn of_type((type_oid, typmod): (Oid, i32)) -> Answer<(Record, Vec<Codec>)> {
        // SAFETY: by the caller's promise; the copy is ours.
        let (descriptor, attributes) = unsafe {
            let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(type_oid, typmod);
            (descriptor, PgTupleDesc::from_pg_unchecked(descriptor))
        };
        let (mut places, mut codecs) = (Vec::new(), Vec::new());
        for (place, attribute) in attributes.iter().enumerate().filter(|(_, a)| !a.attisdropped) {
            places.push(place);
            codecs.push(codec(places.len(), attribute.atttypid, attribute.atttypmod)?);
        }
        let values = vec![Datum::from(0usize); attributes.len()];
        let nulls = vec![true; attributes.len()];
        Ok((Record { row_type: Some((type_oid, typmod)), descriptor, places, values, nulls }, codecs))
    }
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

/// Makes functions known to Postgres that read their arguments themselves.
macro_rules! export {
    ($($name:ident, $info:ident, $inner:ident;)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $info() -> &'static Pg_finfo_record {
            &Pg_finfo_record { api_version: 1 }
        }

        #[unsafe(no_mangle)]
        #[pg_guard]
        unsafe extern "C-unwind" fn $name(fcinfo: FunctionCallInfo) -> Datum {
            // SAFETY: Postgres calls it as it was declared.
            unsafe { $inner(fcinfo) }.or_raise()
        }
    )*};
}

export! {
    fingerprint_add_wrapper, pg_finfo_fingerprint_add_wrapper, add;
    fingerprint_combine_wrapper, pg_finfo_fingerprint_combine_wrapper, combine;
    fingerprint_sum_wrapper, pg_finfo_fingerprint_sum_wrapper, sum;
}
