//! Statements with typed parameters, their rows handed over one by one.
//!
//! Every statement is written by this extension: identifiers in it are quoted, values are parameters.

use std::ffi::CString;

use pgrx::pg_sys::{self, Datum, Oid};

use super::{Codec, IncomingRows, Scratch, c_string};
use crate::error::{Answer, Problem, state};

/// How many rows a cursor fetches at a time.
const FETCH: core::ffi::c_long = 1_000;

/// A parameter of a statement.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its type.
    pub type_oid: Oid,
    /// Its value, `None` for NULL.
    pub datum: Option<Datum>,
}

/// One row of a result, valid until the next.
pub struct Row<'a> {
    values: &'a [Datum],
    nulls: &'a [bool],
}

impl<'a> Row<'a> {
    /// A row of these columns.
    pub(super) fn new(values: &'a [Datum], nulls: &'a [bool]) -> Self {
        Row { values, nulls }
    }
}

impl Row<'_> {
    /// The value of a column counted from 0; `None` is NULL.
    pub fn datum(&self, column: usize) -> Option<Datum> {
        match self.nulls.get(column) {
            Some(false) => self.values.get(column).copied(),
            _ => None,
        }
    }

    /// A column of type int4, int8 or the like, by value.
    pub fn int8(&self, column: usize) -> Option<i64> {
        self.datum(column).map(|datum| datum.value() as i64)
    }

    /// A column of type bool.
    pub fn bool(&self, column: usize) -> Option<bool> {
        self.datum(column).map(|datum| datum.value() != 0)
    }

    /// A column of type oid.
    pub fn oid(&self, column: usize) -> Option<Oid> {
        self.datum(column).map(|datum| Oid::from(datum.value() as u32))
    }

    /// A column of type uuid.
    pub fn uuid(&self, column: usize) -> Option<[u8; 16]> {
        // SAFETY: the statement selects a uuid here: sixteen bytes, by reference.
        self.datum(column).map(|datum| unsafe { *datum.cast_mut_ptr::<[u8; 16]>() })
    }

    /// Hands the bytes of a column of type text, varchar or bytea to `take`.
    pub fn with_bytes<T>(&self, column: usize, take: impl FnOnce(&[u8]) -> T) -> Option<T> {
        // SAFETY: the statement selects a value of variable length here.
        self.datum(column).map(|datum| unsafe { super::digest::with_bytes(datum, take) })
    }

    /// A column of type text.
    pub fn text(&self, column: usize) -> Option<String> {
        self.with_bytes(column, |bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The position that a version column of the codec's type holds.
    pub fn position(&self, column: usize, codec: &mut Codec) -> Answer<Option<i64>> {
        match self.datum(column) {
            // SAFETY: the caller names the codec of this column.
            Some(datum) => unsafe { codec.with_value(datum, plimsoll_core::schema::position_of) },
            None => Ok(None),
        }
    }

    /// A column of type tid.
    pub fn ctid(&self, column: usize) -> Option<Ctid> {
        // SAFETY: the statement selects a ctid here: a value of six bytes, by reference.
        self.datum(column).map(|datum| unsafe { *datum.cast_mut_ptr::<Ctid>() })
    }

    /// Where the row lies, from columns of type tid and oid.
    pub fn place(&self, ctid: usize, table: usize) -> Option<Place> {
        Some(Place { ctid: self.ctid(ctid)?, table: self.oid(table)? })
    }

    /// Encodes columns `first..` of the result as the columns that `codecs` and `numbers` describe.
    pub fn encode(
        &self,
        first: usize,
        numbers: &[u32],
        codecs: &mut [Codec],
        out: &mut Vec<u8>,
    ) -> Answer<()> {
        let mut row = plimsoll_core::row::RowWriter::new(out);
        for (i, (number, codec)) in numbers.iter().zip(codecs).enumerate() {
            if let Some(datum) = self.datum(first + i) {
                // SAFETY: the statement selects the columns in this order, so the types agree.
                unsafe { codec.write_field(datum, *number, &mut row) }?;
            }
        }
        Ok(())
    }
}

/// A stored row's place, by which it is found again within the transaction that locked it.
pub type Ctid = [u8; 6];

/// Where a row lies: its place in a table, which may be a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The place.
    pub ctid: Ctid,
    /// The table itself.
    pub table: Oid,
}

pub(super) struct Prepared {
    pub(super) sql: CString,
    pub(super) types: Vec<Oid>,
    pub(super) values: Vec<Datum>,
    pub(super) nulls: Vec<core::ffi::c_char>,
}

impl Prepared {
    pub(super) fn new(sql: &str, parameters: &[Parameter]) -> Answer<Self> {
        Ok(Prepared {
            sql: c_string(sql)?,
            types: parameters.iter().map(|p| p.type_oid).collect(),
            values: parameters.iter().map(|p| p.datum.unwrap_or(Datum::from(0usize))).collect(),
            nulls: parameters
                .iter()
                .map(|p| if p.datum.is_some() { b' ' } else { b'n' } as core::ffi::c_char)
                .collect(),
        })
    }

    /// A plan of the statement, in the SPI connection that is open.
    pub(super) fn plan(&mut self) -> Answer<pg_sys::SPIPlanPtr> {
        let count = self.types.len() as i32;
        // SAFETY: a NUL-terminated statement, and as many types as said.
        let plan = unsafe { pg_sys::SPI_prepare(self.sql.as_ptr(), count, self.types.as_mut_ptr()) };
        if plan.is_null() {
            return Err(Problem::new(state::INTERNAL, "a statement of the extension could not be prepared"));
        }
        Ok(plan)
    }
}

/// The SPI connection of one statement, closed whichever way the scope is left.
pub(super) struct Connection;

impl Connection {
    pub(super) fn open() -> Self {
        // SAFETY: paired with SPI_finish in `drop`; it raises or succeeds.
        unsafe { pg_sys::SPI_connect() };
        Connection
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: the connection was opened by `open`, and connections nest.
        unsafe { pg_sys::SPI_finish() };
    }
}

/// Hands the rows of a fetched table to `take`, each in a scratch context emptied between rows.
///
/// # Safety
/// `table` is null or a tuple table of the open connection.
unsafe fn hand_over(
    table: *mut pg_sys::SPITupleTable,
    take: &mut dyn FnMut(&Row<'_>) -> Answer<()>,
) -> Answer<()> {
    if table.is_null() {
        return Ok(());
    }
    // SAFETY: by the caller's promise; `vals` has `numvals` tuples of the descriptor's columns.
    let (descriptor, tuples) = unsafe {
        let count = (*table).numvals as usize;
        let tuples = if count == 0 { &[][..] } else { std::slice::from_raw_parts((*table).vals, count) };
        ((*table).tupdesc, tuples)
    };
    // SAFETY: the descriptor belongs to the table.
    let columns = unsafe { (*descriptor).natts } as usize;
    let (mut values, mut nulls) = (vec![Datum::from(0usize); columns], vec![true; columns]);
    let scratch = Scratch::new();
    for (i, tuple) in tuples.iter().enumerate() {
        pgrx::check_for_interrupts!();
        if i % 256 == 0 {
            scratch.reset();
        }
        scratch.relieve();
        // SAFETY: both arrays are as long as the descriptor says.
        unsafe { pg_sys::heap_deform_tuple(*tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr()) };
        scratch.within(|| take(&Row { values: &values, nulls: &nulls }))?;
    }
    Ok(())
}

/// Reads the rows of a query under the caller's snapshot, a thousand at a time, by a plan that is quick to
/// begin. `take` answers whether to go on.
pub fn read_rows(
    sql: &str,
    parameters: &[Parameter],
    take: &mut dyn FnMut(&Row<'_>) -> Answer<bool>,
) -> Answer<()> {
    let mut prepared = Prepared::new(sql, parameters)?;
    let _connection = Connection::open();
    // SAFETY: the arrays are `types.len()` long and outlive the call; read-only, so that it sees the
    // snapshot of the statement that called the extension.
    let portal = unsafe {
        pg_sys::SPI_cursor_open_with_args(
            std::ptr::null(),
            prepared.sql.as_ptr(),
            prepared.types.len() as i32,
            prepared.types.as_mut_ptr(),
            prepared.values.as_mut_ptr(),
            prepared.nulls.as_ptr(),
            true,
            0,
        )
    };
    let mut more = true;
    while more {
        // SAFETY: the portal is open; the fetched table is freed before the next.
        let (table, fetched) = unsafe {
            pg_sys::SPI_cursor_fetch(portal, true, FETCH);
            (pg_sys::SPI_tuptable, pg_sys::SPI_processed)
        };
        // SAFETY: a table of this connection, or null.
        unsafe {
            hand_over(table, &mut |row| {
                // Once `take` has had enough it is asked no more: the rest of what was fetched is dropped.
                if more {
                    more = take(row)?;
                }
                Ok(())
            })?;
            pg_sys::SPI_freetuptable(table);
        }
        more &= fetched == FETCH as u64;
    }
    // SAFETY: the portal is open.
    unsafe { pg_sys::SPI_cursor_close(portal) };
    Ok(())
}

/// Where the rows of a statement go as they are made: nothing of them is kept.
#[repr(C)]
struct Receiver<'a> {
    base: pg_sys::DestReceiver,
    take: &'a mut dyn FnMut(&Row<'_>) -> Answer<bool>,
    scratch: Scratch,
    rows: usize,
    problem: Option<Problem>,
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn receive(
    slot: *mut pg_sys::TupleTableSlot,
    receiver: *mut pg_sys::DestReceiver,
) -> bool {
    // SAFETY: Postgres calls this with the receiver that `run` gave it, which lives until the statement ends,
    // and with a slot whose arrays are as long as its descriptor says once all columns are read.
    let (receiver, values, nulls) = unsafe {
        pg_sys::slot_getallattrs(slot);
        let columns = (*(*slot).tts_tupleDescriptor).natts as usize;
        let values = std::slice::from_raw_parts((*slot).tts_values, columns);
        let nulls = std::slice::from_raw_parts((*slot).tts_isnull, columns);
        (&mut *receiver.cast::<Receiver<'_>>(), values, nulls)
    };
    receiver.rows += 1;
    if receiver.rows.is_multiple_of(256) {
        receiver.scratch.reset();
    }
    receiver.scratch.relieve();
    let take = &mut receiver.take;
    match receiver.scratch.within(|| take(&Row { values, nulls })) {
        Ok(more) => more,
        Err(problem) => {
            receiver.problem = Some(problem);
            false
        }
    }
}

unsafe extern "C-unwind" fn start_up(_: *mut pg_sys::DestReceiver, _: i32, _: pg_sys::TupleDesc) {}

unsafe extern "C-unwind" fn shut_down(_: *mut pg_sys::DestReceiver) {}

/// Runs a statement in the SPI connection that is open, handing its rows over as they are made. `take`
/// answers whether to go on; a statement that writes must not be stopped. Answers the rows it touched.
pub(super) fn run(
    prepared: &Prepared,
    read_only: bool,
    take: &mut dyn FnMut(&Row<'_>) -> Answer<bool>,
) -> Answer<u64> {
    receive_rows(prepared, read_only, take, &|options| {
        // SAFETY: statement and options outlive the call, and have a place for each parameter.
        unsafe { pg_sys::SPI_execute_extended(prepared.sql.as_ptr(), options) }
    })
}

/// As [`run`], by whatever way `execute` takes to run the statement; it answers a code of SPI.
pub(super) fn receive_rows(
    prepared: &Prepared,
    read_only: bool,
    take: &mut dyn FnMut(&Row<'_>) -> Answer<bool>,
    execute: &dyn Fn(&pg_sys::SPIExecuteOptions) -> i32,
) -> Answer<u64> {
    let base = pg_sys::DestReceiver {
        receiveSlot: Some(receive),
        rStartup: Some(start_up),
        rShutdown: Some(shut_down),
        rDestroy: Some(shut_down),
        mydest: pg_sys::CommandDest::DestTuplestore,
    };
    let mut receiver = Receiver { base, take, scratch: Scratch::new(), rows: 0, problem: None };
    // SAFETY: the list has a place for each parameter; receiver and list outlive the call.
    let (code, processed) = unsafe {
        let list = pg_sys::makeParamList(prepared.types.len() as i32);
        let places = (*list).params.as_mut_ptr();
        for (i, (type_oid, value)) in prepared.types.iter().zip(&prepared.values).enumerate() {
            places.add(i).write(pg_sys::ParamExternData {
                value: *value,
                isnull: prepared.nulls[i] != b' ' as core::ffi::c_char,
                pflags: pg_sys::PARAM_FLAG_CONST as u16,
                ptype: *type_oid,
            });
        }
        let options = pg_sys::SPIExecuteOptions {
            params: list,
            read_only,
            dest: (&raw mut receiver).cast(),
            ..Default::default()
        };
        (execute(&options), pg_sys::SPI_processed)
    };
    if let Some(problem) = receiver.problem {
        return Err(problem);
    }
    if code < 0 {
        let message = format!("a statement of the extension failed with code {code}");
        return Err(Problem::new(state::INTERNAL, message));
    }
    Ok(processed)
}

/// Reads all rows of a query under the caller's snapshot, in the order that costs least.
pub fn read_all(
    sql: &str,
    parameters: &[Parameter],
    take: &mut dyn FnMut(&Row<'_>) -> Answer<bool>,
) -> Answer<()> {
    let prepared = Prepared::new(sql, parameters)?;
    let _connection = Connection::open();
    run(&prepared, true, take).map(drop)
}

/// Reads the rows of a query under the caller's snapshot, with `incoming` visible to it as a table.
pub fn read_joined(
    sql: &str,
    parameters: &[Parameter],
    incoming: &IncomingRows,
    take: &mut dyn FnMut(&Row<'_>) -> Answer<()>,
) -> Answer<()> {
    let prepared = Prepared::new(sql, parameters)?;
    let _connection = Connection::open();
    incoming.register()?;
    run(&prepared, true, &mut |row| take(row).map(|()| true)).map(drop)
}

/// Runs a statement that may write, with `incoming` visible to it as a table; hands over the rows it
/// returns and answers how many rows it touched.
pub fn execute(
    sql: &str,
    parameters: &[Parameter],
    incoming: Option<&IncomingRows>,
    take: &mut dyn FnMut(&Row<'_>) -> Answer<()>,
) -> Answer<u64> {
    let prepared = Prepared::new(sql, parameters)?;
    let _connection = Connection::open();
    if let Some(incoming) = incoming {
        incoming.register()?;
    }
    run(&prepared, false, &mut |row| take(row).map(|()| true))
}
