//! Relations held still: locked first, and only then looked at, so that what is found stays so until the
//! transaction ends. What is found is the newest state, whatever the transaction's isolation.

use std::ffi::{CStr, CString};

use pgrx::pg_sys::{self, LOCKMODE, Oid};

use super::release;

/// A relation that nobody drops, renames or gives to another owner until the transaction ends.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its oid.
    pub oid: Oid,
    /// The name of its schema.
    pub schema: String,
    /// Its name there.
    pub name: String,
    /// Its owner.
    pub owner: Oid,
    /// Its kind, as `pg_class.relkind` has it.
    pub kind: u8,
    /// As `pg_class.relpersistence` has it.
    pub persistence: u8,
    /// Whether it is a partition.
    pub is_partition: bool,
}

/// A column of a table.
#[derive(Debug, Clone)]
pub struct Attribute {
    /// Its number, which it keeps when it is renamed.
    pub number: i16,
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_oid: Oid,
    /// The type's modifier.
    pub typmod: i32,
    /// Whether no row has NULL in it.
    pub not_null: bool,
    /// Its collation.
    pub collation: Oid,
    /// Whether it is computed from other columns.
    pub generated: bool,
    /// Whether it is an identity column that no UPDATE may set.
    pub always_identity: bool,
}

const READER: LOCKMODE = pg_sys::AccessShareLock as LOCKMODE;

/// Locks the relation with this name; `None` where there is none.
pub fn hold_by_name(schema: &str, name: &str) -> Option<Held> {
    let (schema, name) = (CString::new(schema).ok()?, CString::new(name).ok()?);
    // SAFETY: the strings outlive the call, which only reads them; it looks the name up again once it holds the
    // lock, and answers InvalidOid where nothing has it.
    let oid = unsafe {
        let range = pg_sys::makeRangeVar(schema.as_ptr().cast_mut(), name.as_ptr().cast_mut(), -1);
        pg_sys::RangeVarGetRelidExtended(
            range,
            READER,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    };
    if oid == pg_sys::InvalidOid { None } else { look_at(oid) }
}

/// Locks the relation with this oid; `None` where there is none.
pub fn hold(oid: Oid) -> Option<Held> {
    if oid == pg_sys::InvalidOid {
        return None;
    }
    // SAFETY: any oid can be locked; the lock takes in what others committed until then.
    unsafe { pg_sys::LockRelationOid(oid, READER) };
    look_at(oid)
}

fn look_at(oid: Oid) -> Option<Held> {
    let text = |text: *const core::ffi::c_char| {
        // SAFETY: a NUL-terminated name of the catalogue, or one that was just copied from it.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    };
    // SAFETY: a look-up in the catalogue's cache; the tuple is read before it is released.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(oid.to_u32()));
        if tuple.is_null() {
            return None;
        }
        let class = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let held = text(pg_sys::get_namespace_name(class.relnamespace)).map(|schema| Held {
            oid,
            schema,
            name: text(class.relname.data.as_ptr()).unwrap_or_default(),
            owner: class.relowner,
            kind: class.relkind as u8,
            persistence: class.relpersistence as u8,
            is_partition: class.relispartition,
        });
        pg_sys::ReleaseSysCache(tuple);
        held
    }
}

impl Held {
    /// Whether it is an ordinary or a partitioned table.
    pub fn is_table(&self) -> bool {
        [pg_sys::RELKIND_RELATION, pg_sys::RELKIND_PARTITIONED_TABLE].contains(&self.kind)
    }

    /// Schema and name, quoted where needed.
    pub fn shown(&self) -> String {
        pgrx::spi::quote_qualified_identifier(&self.schema, &self.name)
    }

    /// Its columns, in their order.
    pub fn attributes(&self) -> Vec<Attribute> {
        // SAFETY: the relation is locked; its descriptor is read before it is closed.
        unsafe {
            let relation = pg_sys::relation_open(self.oid, pg_sys::NoLock as LOCKMODE);
            let descriptor = (*relation).rd_att;
            let attributes = (0..(*descriptor).natts as usize)
                .map(|place| (place, &*release::attribute(descriptor, place)))
                .filter(|(_, attribute)| !attribute.attisdropped)
                .map(|(place, attribute)| Attribute {
                    number: attribute.attnum,
                    name: CStr::from_ptr(attribute.attname.data.as_ptr()).to_string_lossy().into_owned(),
                    type_oid: attribute.atttypid,
                    typmod: attribute.atttypmod,
                    not_null: release::is_never_null(descriptor, place),
                    collation: attribute.attcollation,
                    generated: attribute.attgenerated != 0,
                    always_identity: attribute.attidentity as u8 == pg_sys::ATTRIBUTE_IDENTITY_ALWAYS,
                })
                .collect();
            pg_sys::relation_close(relation, pg_sys::NoLock as LOCKMODE);
            attributes
        }
    }
}

/// Holds back, until the transaction ends, whoever asks for the same thing by the other of the two ways: any
/// number share it, one has it alone. `class` is a relation of ours, `number` what is meant there.
pub fn lock_object(class: Oid, number: u32, alone: bool) {
    let mode = if alone { pg_sys::AccessExclusiveLock } else { pg_sys::AccessShareLock };
    // SAFETY: an entry in the table of locks; what it names need not exist.
    unsafe { pg_sys::LockDatabaseObject(class, Oid::from(number), 0, mode as LOCKMODE) };
}
