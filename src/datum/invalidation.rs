//! News of the catalogue: which relations are no longer what they were when something of them was cached.

use std::cell::{Cell, RefCell};

use pgrx::pg_sys::{self, Datum, Oid};

/// More relations than this at once count as all.
const MOST: usize = 256;

thread_local! {
    static LISTENING: Cell<bool> = const { Cell::new(false) };
    static CHANGED: RefCell<Vec<Oid>> = const { RefCell::new(Vec::new()) };
}

/// What changed since it was last asked.
pub enum Changed {
    /// These relations.
    Relations(Vec<Oid>),
    /// Perhaps everything.
    All,
}

fn note(relation: Oid) {
    CHANGED.with_borrow_mut(|changed| {
        if relation == Oid::INVALID || changed.len() >= MOST {
            changed.clear();
            changed.push(Oid::INVALID);
        } else if changed.first() != Some(&Oid::INVALID) {
            changed.push(relation);
        }
    });
}

unsafe extern "C-unwind" fn relation_changed(_: Datum, relation: Oid) {
    note(relation);
}

unsafe extern "C-unwind" fn label_changed(_: Datum, _: i32, _: u32) {
    note(Oid::INVALID);
}

/// Listens from the first call on. What was cached before is told to have changed.
pub fn changed() -> Changed {
    if !LISTENING.replace(true) {
        // SAFETY: both functions live as long as the backend and raise nothing; they are registered once.
        unsafe {
            pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), Datum::from(0usize));
            pg_sys::CacheRegisterSyscacheCallback(
                pg_sys::SysCacheIdentifier::ENUMOID as i32,
                Some(label_changed),
                Datum::from(0usize),
            );
        }
        return Changed::All;
    }
    let changed = CHANGED.take();
    if changed.first() == Some(&Oid::INVALID) { Changed::All } else { Changed::Relations(changed) }
}

/// Tells every backend, once this transaction commits, that a relation is to be looked at anew.
pub fn tell(relation: Oid) {
    // SAFETY: the relation is one of the extension's own, which is there.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) };
}

/// The oid of one of the extension's own tables; `None` where it is not there.
pub fn own_table(name: &std::ffi::CStr) -> Option<Oid> {
    // SAFETY: NUL-terminated names; both answer InvalidOid where there is no such thing.
    let oid = unsafe {
        let schema = pg_sys::get_namespace_oid(c"plimsoll".as_ptr(), true);
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// The oid of one of the extension's own functions without arguments; `None` where it is not there.
pub fn own_function(name: &std::ffi::CStr) -> Option<Oid> {
    // SAFETY: NUL-terminated names; the look-ups answer InvalidOid where there is no such thing.
    let oid = unsafe {
        let schema = pg_sys::get_namespace_oid(c"plimsoll".as_ptr(), true);
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as i32,
            pg_sys::Anum_pg_proc_oid as i16,
            Datum::from(name.as_ptr()),
            Datum::from(pg_sys::buildoidvector(std::ptr::null(), 0)),
            Datum::from(schema),
            Datum::from(0usize),
        )
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}
