//! Rows handed to a statement as a table: an ephemeral named relation, as transition tables are. The
//! statement needs no privilege on it, and nothing is created in the catalogue.

use pgrx::pg_sys::{self, Datum, Oid};

use super::{Ctid, Scratch, c_string};
use crate::error::{Answer, Problem, state};

/// The name by which statements know the rows.
const NAME: &str = "incoming";

/// A column of the rows.
#[derive(Debug, Clone)]
pub struct IncomingColumn {
    /// Its name in the statement.
    pub name: String,
    /// Its type.
    pub type_oid: Oid,
    /// Its modifier.
    pub typmod: i32,
    /// Its collation, that of the column it is compared with.
    pub collation: Oid,
}

/// Rows that a statement sees as the table `incoming`.
pub struct IncomingRows {
    descriptor: pg_sys::TupleDesc,
    store: *mut pg_sys::Tuplestorestate,
    columns: usize,
    rows: u64,
    values: Scratch,
}

impl IncomingRows {
    /// No rows, of these columns. Lives in the current memory context.
    pub fn new(columns: &[IncomingColumn]) -> Answer<Self> {
        // SAFETY: the descriptor has a place for each column; names are copied; `work_mem` is a setting.
        unsafe {
            let descriptor = pg_sys::CreateTemplateTupleDesc(columns.len() as i32);
            for (i, column) in columns.iter().enumerate() {
                let name = c_string(&column.name)?;
                let number = (i + 1) as i16;
                pg_sys::TupleDescInitEntry(
                    descriptor,
                    number,
                    name.as_ptr(),
                    column.type_oid,
                    column.typmod,
                    0,
                );
                pg_sys::TupleDescInitEntryCollation(descriptor, number, column.collation);
            }
            let store = pg_sys::tuplestore_begin_heap(false, false, pg_sys::work_mem);
            Ok(IncomingRows { descriptor, store, columns: columns.len(), rows: 0, values: Scratch::new() })
        }
    }

    /// Runs `make` with memory for values, which lasts until the next row was added.
    pub fn within<T>(&self, make: impl FnOnce() -> T) -> T {
        self.values.within(make)
    }

    /// Adds a row: its place in the upload, its ctid where it is stored and locked, and its columns, NULL as
    /// `None`.
    pub fn push_row(
        &mut self,
        ordinal: usize,
        mut ctid: Option<Ctid>,
        columns: &[Option<Datum>],
    ) -> Answer<()> {
        let mut values = Vec::with_capacity(columns.len() + 2);
        values.push(Some(Datum::from(ordinal as i64)));
        values.push(ctid.as_mut().map(|ctid| Datum::from(ctid.as_mut_ptr())));
        values.extend_from_slice(columns);
        self.push(&values)
    }

    fn push(&mut self, values: &[Option<Datum>]) -> Answer<()> {
        if values.len() != self.columns {
            return Err(Problem::new(state::INTERNAL, "a row of another width than its table"));
        }
        let mut nulls: Vec<bool> = values.iter().map(Option::is_none).collect();
        let mut values: Vec<Datum> = values.iter().map(|v| v.unwrap_or(Datum::from(0usize))).collect();
        // SAFETY: both arrays have a place for each column; the store copies them.
        unsafe {
            pg_sys::tuplestore_putvalues(
                self.store,
                self.descriptor,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
        self.rows += 1;
        self.values.relieve();
        Ok(())
    }

    /// Makes the rows visible to statements of the SPI connection that is open.
    pub(super) fn register(&self) -> Answer<()> {
        let name = c_string(NAME)?;
        // SAFETY: relation and name are allocated in the connection's context and live as long as it;
        // descriptor and store outlive the connection, which is closed before `self` is dropped.
        let code = unsafe {
            let relation = pg_sys::palloc0(size_of::<pg_sys::EphemeralNamedRelationData>())
                .cast::<pg_sys::EphemeralNamedRelationData>();
            (*relation).md.name = pg_sys::pstrdup(name.as_ptr());
            (*relation).md.reliddesc = pg_sys::InvalidOid;
            (*relation).md.tupdesc = self.descriptor;
            (*relation).md.enrtype = pg_sys::EphemeralNameRelationType::ENR_NAMED_TUPLESTORE;
            (*relation).md.enrtuples = self.rows as f64;
            (*relation).reldata = self.store.cast();
            pg_sys::SPI_register_relation(relation)
        };
        if code < 0 {
            return Err(Problem::new(state::INTERNAL, format!("rows could not be registered (code {code})")));
        }
        Ok(())
    }
}

impl Drop for IncomingRows {
    fn drop(&mut self) {
        // During an unwinding the store's memory goes with its context, its files with the resource owner.
        if !std::thread::panicking() {
            // SAFETY: ours, and no statement uses it any more.
            unsafe { pg_sys::tuplestore_end(self.store) };
        }
    }
}
