//! The columns that a call hands over: arguments from a certain one on, or the columns of one that is a row. For
//! functions that run once a row: what is known of the types is kept from call to call.

use std::mem::ManuallyDrop;

use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use pgrx::varlena::varsize_4b;
use pgrx::{PgMemoryContexts, PgTupleDesc};
use plimsoll_core::row::RowWriter;

use super::{Codec, Scratch, require_utf8};
use crate::error::{Answer, Problem, state};

/// Makes functions known to Postgres that read their arguments themselves.
macro_rules! export {
    ($($name:ident, $info:ident, $inner:ident;)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $info() -> &'static pg_sys::Pg_finfo_record {
            &pg_sys::Pg_finfo_record { api_version: 1 }
        }

        #[unsafe(no_mangle)]
        #[pg_guard]
        unsafe extern "C-unwind" fn $name(fcinfo: FunctionCallInfo) -> Datum {
            // SAFETY: Postgres calls it as it was declared.
            unsafe { $inner(fcinfo) }.or_raise()
        }
    )*};
}
pub(super) use export;

/// An argument; `None` is NULL.
///
/// # Safety
/// `fcinfo` is that of a call with more than `i` arguments.
#[inline]
pub(super) unsafe fn argument(fcinfo: FunctionCallInfo, i: usize) -> Option<Datum> {
    // SAFETY: by the caller's promise.
    let argument = unsafe { &*(*fcinfo).args.as_ptr().add(i) };
    (!argument.isnull).then_some(argument.value)
}

/// What is kept at the call site of `fcinfo`, made at its first call with memory that lasts as long.
///
/// # Safety
/// `fcinfo` is that of a call, and nothing but a `T` is kept in `fn_extra` of its function.
#[inline]
pub(super) unsafe fn kept_at<'a, T>(
    fcinfo: FunctionCallInfo,
    make: impl FnOnce(Scratch) -> Answer<T>,
) -> Answer<&'a mut T> {
    // SAFETY: by the caller's promise; what is kept is dropped with the function's context.
    unsafe {
        let function = (*fcinfo).flinfo;
        if (*function).fn_extra.is_null() {
            let mut lasting = PgMemoryContexts::For((*function).fn_mcxt);
            let memory = lasting.switch_to(|_| Scratch::new());
            let made = make(memory)?;
            (*function).fn_extra = lasting.leak_and_drop_on_delete(made).cast();
        }
        Ok(&mut *(*function).fn_extra.cast::<T>())
    }
}

/// Whether values of the type are whole rows.
pub(super) fn is_row_type(type_oid: Oid) -> bool {
    // SAFETY: looks the type up in the catalogue.
    type_oid == pg_sys::RECORDOID || unsafe { pg_sys::type_is_rowtype(type_oid) }
}

/// Makes the codec of a column, given its place, type and modifier.
pub(super) type MakeCodec = Box<dyn Fn(usize, Oid, i32) -> Answer<Codec>>;

/// The columns of one call site.
pub(super) struct CallColumns {
    /// The argument that they begin with.
    first: usize,
    make: MakeCodec,
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
    /// Which state of the type the descriptor is of: between two calls it may be altered.
    state: u64,
    descriptor: pg_sys::TupleDesc,
    /// Places of the attributes that are not dropped.
    places: Vec<usize>,
    values: Vec<Datum>,
    nulls: Vec<bool>,
}

impl CallColumns {
    /// The columns from argument `first` on; of one row, where `is_row` says so of the arguments' types.
    ///
    /// # Safety
    /// `fcinfo` is that of a call, and `memory` lies in the context of its function.
    pub(super) unsafe fn new(
        fcinfo: FunctionCallInfo,
        name: &str,
        first: usize,
        is_row: impl FnOnce(&[Oid]) -> bool,
        make: MakeCodec,
        memory: Scratch,
    ) -> Answer<CallColumns> {
        require_utf8()?;
        // SAFETY: looks at the expression that the call came from.
        let (types, is_list) = unsafe {
            let (function, count) = ((*fcinfo).flinfo, (*fcinfo).nargs);
            let types = (first as i32..i32::from(count)).map(|i| pg_sys::get_fn_expr_argtype(function, i));
            (types.collect::<Vec<_>>(), pg_sys::get_fn_expr_variadic(function))
        };
        if is_list {
            let message = format!("{name} takes columns one by one, not as VARIADIC array");
            return Err(Problem::new(state::UNSUPPORTED, message).hint("Write the columns out."));
        }
        let (codecs, record) = match is_row(&types) {
            true => (Vec::new(), Some(Record::default())),
            false => {
                let codecs = types.iter().enumerate().map(|(i, type_oid)| make(i, *type_oid, -1));
                (memory.within(|| codecs.collect::<Answer<Vec<_>>>())?, None)
            }
        };
        Ok(CallColumns { first, make, codecs, record, memory: ManuallyDrop::new(memory) })
    }

    /// How many columns the last call had.
    pub(super) fn count(&self) -> usize {
        self.codecs.len()
    }

    /// Appends the columns of this call in digest form, each under the number of its place. Whether there is a row:
    /// a NULL in place of one is none.
    ///
    /// # Safety
    /// `fcinfo` is that of a call from the call site that this was made for.
    #[inline]
    pub(super) unsafe fn write(
        &mut self,
        fcinfo: FunctionCallInfo,
        number: impl Fn(usize) -> u32,
        form: &mut Vec<u8>,
    ) -> Answer<bool> {
        if self.record.is_some() {
            // SAFETY: by the caller's promise.
            return unsafe { self.write_record(fcinfo, number, form) };
        }
        let mut row = RowWriter::new(form);
        for (i, codec) in self.codecs.iter_mut().enumerate() {
            // SAFETY: the codecs were made for the arguments of this call site.
            unsafe {
                if let Some(datum) = argument(fcinfo, self.first + i) {
                    codec.write_digest_field(datum, number(i), &mut row)?;
                }
            }
        }
        Ok(true)
    }

    /// # Safety
    /// As [`write`](Self::write), where the call site hands over whole rows.
    unsafe fn write_record(
        &mut self,
        fcinfo: FunctionCallInfo,
        number: impl Fn(usize) -> u32,
        form: &mut Vec<u8>,
    ) -> Answer<bool> {
        let CallColumns { first, make, codecs, record: Some(record), memory } = self else {
            return Ok(false);
        };
        // SAFETY: a value of a row type says which one it is of, and its descriptor has as many attributes as
        // the arrays have places.
        unsafe {
            let Some(datum) = argument(fcinfo, *first) else { return Ok(false) };
            let stored = datum.cast_mut_ptr::<pg_sys::varlena>();
            let header = pg_sys::pg_detoast_datum(stored).cast::<pg_sys::HeapTupleHeaderData>();
            let fields = (*header).t_choice.t_datum;
            let row_type = (fields.datum_typeid, fields.datum_typmod);
            let state = pg_sys::assign_record_type_identifier(row_type.0, row_type.1);
            if record.row_type != Some(row_type) || record.state != state {
                record.row_type = None;
                codecs.clear();
                memory.reset();
                (*record, *codecs) = memory.within(|| Record::of_type(row_type, make))?;
                record.state = state;
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
                    codec.write_digest_field(record.values[*place], number(i), &mut row)?;
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
    unsafe fn of_type((type_oid, typmod): (Oid, i32), make: &MakeCodec) -> Answer<(Record, Vec<Codec>)> {
        // SAFETY: by the caller's promise; the copy is ours.
        let (descriptor, attributes) = unsafe {
            let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(type_oid, typmod);
            (descriptor, PgTupleDesc::from_pg_unchecked(descriptor))
        };
        let (mut places, mut codecs) = (Vec::new(), Vec::new());
        for (place, attribute) in attributes.iter().enumerate().filter(|(_, a)| !a.attisdropped) {
            codecs.push(make(places.len(), attribute.atttypid, attribute.atttypmod)?);
            places.push(place);
        }
        let values = vec![Datum::from(0usize); attributes.len()];
        let nulls = vec![true; attributes.len()];
        let row_type = Some((type_oid, typmod));
        Ok((Record { row_type, state: 0, descriptor, places, values, nulls }, codecs))
    }
}
