//! Between Postgres' memory and the core's values. All `unsafe` on rows is in this folder.
//!
//! | file | what lives there |
//! |---|---|
//! | `mod` | [`Codec`]: what is known of a column's type, looked up once a call |
//! | `read`, `write` | one value: datum to encoding, value to datum |
//! | `digest` | datum to digest form |
//! | `answer` | rows of a set-returning function, handed over one by one |
//! | `aggregate` | fingerprints as an aggregate of any query |
//! | `position` | where a row stands, for queries and indexes |
//! | `columns` | columns that a call of such a function hands over |
//! | `name` | names as SQL takes them |
//! | `numeric` | Postgres' packed numeric |
//! | `jsonb` | how long the text of a jsonb will be, and arrays of many items |
//! | `array` | lists of positions as parameters |
//! | `nested` | arrays, ranges, multiranges and composites, part by part |
//! | `catalogue` | the core's type of a column's type, and which types are refused |
//! | `bulk` | rows written without a statement |
//! | `release` | what differs between releases of Postgres |
//! | `statement` | statements with typed parameters, row by row |
//! | `plan` | plans of statements that every call runs |
//! | `planner` | which plans statements have, and which indexes they find rows by |
//! | `relation` | rows handed to a statement as a table, with no privileges needed |
//! | `row_trigger` | what a trigger before a row is told, and what it answers |
//! | `transition` | what a statement trigger is told, and a row appended without a statement |
//! | `dependency` | what goes when the extension goes |
//! | `held` | relations locked, then looked at |
//! | `snapshot` | a new snapshot for a piece of work |
//! | `invalidation` | news of what the catalogue says |
//! | `subtransaction` | errors caught without harm |

mod aggregate;
mod answer;
mod array;
mod bulk;
mod catalogue;
mod columns;
mod dependency;
mod digest;
mod held;
mod invalidation;
mod jsonb;
mod name;
mod nested;
mod numeric;
mod plan;
mod planner;
mod position;
mod read;
mod relation;
mod release;
mod row_trigger;
mod snapshot;
mod statement;
mod subtransaction;
mod transition;
mod write;

pub use answer::{Answers, Call};
pub use array::{long_array, place_arrays};
pub use bulk::{BulkInsert, BulkUpdate, FixedColumn, Sent, Witness, may_have_children};
pub use dependency::depend_on_extension;
pub use digest::Gathered;
pub use held::{Attribute, Held, hold, hold_by_name, lock_object};
pub use invalidation::{Changed, changed, own_function, own_table, tell};
pub use jsonb::{with_json_array, written_digits};
pub use name::{qualified, quoted, type_name};
pub use plan::{read_planned, select_planned};
pub use planner::{Indexes, by_index, by_only, by_place, in_order, register_hooks};
pub use relation::{IncomingColumn, IncomingRows};
pub use row_trigger::{RowFired, trigger_depth};
pub use snapshot::{
    execute_in_snapshot, is_in_use, is_read_committed, now, with_latest_snapshot, with_newest_snapshot,
};
pub use statement::{Ctid, Parameter, Place, Row, execute, read_all, read_joined, read_rows};
pub use subtransaction::{Caught, attempt, set_constraints_immediate};
pub use transition::{Event, Fired, insert_row};

use std::ffi::CString;

use pgrx::pg_sys::{self, Oid};
use plimsoll_core::row::MAX_DEPTH;
use plimsoll_core::value::ColumnType;

use nested::{Inner, Part};

use crate::error::{Answer, Problem, state};

/// How values of one column's type are read and written. Valid for the call that made it.
pub struct Codec {
    /// The type as the core knows it.
    pub column_type: ColumnType,
    /// The base type: a domain's own, below its constraints.
    pub type_oid: Oid,
    /// Its modifier.
    pub typmod: i32,
    input: pg_sys::FmgrInfo,
    input_parameter: Oid,
    output: pg_sys::FmgrInfo,
    inner: Inner,
}

/// What a codec is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Values of a managed table's columns, whose limits matter.
    Columns,
    /// Values of any query, of which only digests are made.
    Digests,
}

/// Whether values that a collation calls equal are the same bytes.
pub fn is_deterministic(collation: Oid) -> bool {
    // SAFETY: looks the collation of a column up in the catalogue.
    collation == pg_sys::InvalidOid || unsafe { pg_sys::get_collation_isdeterministic(collation) }
}

/// Whether this transaction may write.
pub fn may_write() -> bool {
    // SAFETY: reads a variable of the backend.
    !unsafe { pg_sys::XactReadOnly }
}

/// Base type and modifier of a type that may be a domain.
fn base_type(type_oid: Oid, typmod: i32) -> (Oid, i32) {
    let mut typmod = typmod;
    // SAFETY: the type comes from the catalogue, the pointer is to a local.
    let base = unsafe { pg_sys::getBaseTypeAndTypmod(type_oid, &mut typmod) };
    (base, typmod)
}

/// Makes sure that text in this database is UTF-8.
pub fn require_utf8() -> Answer<()> {
    // SAFETY: reads a variable of the backend.
    if unsafe { pg_sys::GetDatabaseEncoding() } == pg_sys::pg_enc::PG_UTF8 as i32 {
        return Ok(());
    }
    Err(Problem::new(state::UNSUPPORTED, "Plimsoll needs a database with encoding UTF8")
        .hint("CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"))
}

impl Codec {
    /// The codec of a column's type.
    ///
    /// # Errors
    /// `UNSUPPORTED` where values of the type have no encoding.
    pub fn new(type_oid: Oid, typmod: i32) -> Answer<Codec> {
        Codec::with_purpose(type_oid, typmod, Purpose::Columns)
    }

    /// The codec of values that are only written in digest form: their type's limits need not be known.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    fn for_digests(type_oid: Oid, typmod: i32) -> Answer<Codec> {
        Codec::with_purpose(type_oid, typmod, Purpose::Digests)
    }

    fn with_purpose(type_oid: Oid, typmod: i32, purpose: Purpose) -> Answer<Codec> {
        // Whoever may make types may nest them without end.
        pgrx::check_for_interrupts!();
        // SAFETY: raises an ERROR where little stack is left.
        unsafe { pg_sys::check_stack_depth() };
        let (type_oid, typmod) = base_type(type_oid, typmod);
        let (mut input, mut output) = (pg_sys::FmgrInfo::default(), pg_sys::FmgrInfo::default());
        let (mut input_oid, mut input_parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        let (mut output_oid, mut is_varlena) = (pg_sys::InvalidOid, false);
        // SAFETY: the type comes from the catalogue and every pointer is to a local. The functions'
        // own state lives in the current context, which outlives the call the codec is for.
        unsafe {
            pg_sys::getTypeInputInfo(type_oid, &mut input_oid, &mut input_parameter);
            pg_sys::getTypeOutputInfo(type_oid, &mut output_oid, &mut is_varlena);
            pg_sys::fmgr_info(input_oid, &mut input);
            pg_sys::fmgr_info(output_oid, &mut output);
        }
        let inner = Inner::of(type_oid, typmod, purpose)?;
        let column_type = match inner.column_type() {
            Some(column_type) => column_type,
            None => catalogue::scalar_type(type_oid, typmod, output_oid, purpose)?,
        };
        if column_type.depth() > MAX_DEPTH {
            let what = format!("it nests more than {MAX_DEPTH} types in each other");
            return Err(catalogue::unsupported(type_oid, &what));
        }
        Ok(Codec { column_type, type_oid, typmod, input, input_parameter, output, inner })
    }

    /// The codec of an array's elements.
    pub fn element(&mut self) -> Option<&mut Codec> {
        match &mut self.inner {
            Inner::Array(element) => Some(&mut element.part.codec),
            _ => None,
        }
    }

    /// Whether some values that the core takes for ones of the type are none, or would be kept as another value.
    pub fn is_particular(&self) -> bool {
        match &self.inner {
            Inner::None => matches!(self.column_type, ColumnType::Other(_)),
            Inner::Array(element) => element.part.is_particular(),
            Inner::Range(_) | Inner::Multirange(_) => true,
            Inner::Composite(row) => row.parts().any(Part::is_particular),
        }
    }

    /// Appends the relations of the composite types that values of the type are made of.
    pub fn row_types(&self, found: &mut Vec<Oid>) {
        match &self.inner {
            Inner::None => {}
            Inner::Array(element) => element.part.codec.row_types(found),
            Inner::Range(range) | Inner::Multirange(range) => range.part.codec.row_types(found),
            Inner::Composite(row) => {
                found.push(row.relation);
                row.parts().for_each(|part| part.codec.row_types(found));
            }
        }
    }
}

fn c_string(text: &str) -> Answer<CString> {
    CString::new(text).map_err(|_| Problem::new(state::MALFORMED, "text holds a NUL character"))
}

/// Bytes in a [`Scratch`] from which on it is relieved.
const RELIEVED_AT: usize = 1 << 20;

/// A memory context of its own, emptied between rows or batches and freed at the end of the scope.
pub struct Scratch {
    context: pg_sys::MemoryContext,
}

impl Scratch {
    /// A context below the current one.
    pub fn new() -> Self {
        // SAFETY: reads a variable of the backend.
        Self::below(unsafe { pg_sys::CurrentMemoryContext })
    }

    /// A context that lasts until it is dropped, beyond the transaction.
    pub fn lasting() -> Self {
        // SAFETY: reads a variable of the backend.
        Self::below(unsafe { pg_sys::TopMemoryContext })
    }

    fn below(parent: pg_sys::MemoryContext) -> Self {
        // SAFETY: the parent is alive; the name is static; sizes are Postgres' defaults.
        let context = unsafe {
            pg_sys::AllocSetContextCreateInternal(
                parent,
                c"plimsoll rows".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        };
        Scratch { context }
    }

    /// Frees everything that was allocated in it. What `work` returns must not point into it.
    pub fn reset(&self) {
        // SAFETY: the context is ours and alive until `drop`.
        unsafe { pg_sys::MemoryContextReset(self.context) }
    }

    /// As [`reset`](Self::reset), where much has gathered in it: large values are as large as a client made them.
    #[inline]
    pub fn relieve(&self) {
        // SAFETY: the context is ours and alive until `drop`; reads what it counts itself.
        if unsafe { (*self.context).mem_allocated } > RELIEVED_AT {
            self.reset();
        }
    }

    /// Runs `work` with it as the current context, which is set back whichever way `work` ends.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Back(pg_sys::MemoryContext);
        impl Drop for Back {
            fn drop(&mut self) {
                // SAFETY: the context was current when the scope began and outlives it.
                unsafe { pg_sys::MemoryContextSwitchTo(self.0) };
            }
        }
        // SAFETY: as above.
        let _back = Back(unsafe { pg_sys::MemoryContextSwitchTo(self.context) });
        work()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: nobody else frees it: its parent outlives this scope, in an abort too.
        unsafe { pg_sys::MemoryContextDelete(self.context) }
    }
}
