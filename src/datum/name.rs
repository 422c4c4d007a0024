//! Names as SQL takes them: quoted where they must be, and nowhere else. Names of types and tables are told apart
//! by them, kept and answered, so they must not depend on a setting of the caller's.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Oid};

/// Sets `quote_all_identifiers` aside.
struct Plain(bool);

impl Plain {
    fn begin() -> Self {
        // SAFETY: a variable of the backend that the functions here read; `drop` sets it back.
        Plain(unsafe { std::ptr::replace(&raw mut pg_sys::quote_all_identifiers, false) })
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // SAFETY: as in `begin`.
        unsafe { pg_sys::quote_all_identifiers = self.0 };
    }
}

/// A type's name, qualified.
pub fn type_name(type_oid: Oid) -> String {
    let _plain = Plain::begin();
    // SAFETY: the answer is a NUL-terminated string in the current context, for unknown types too.
    unsafe { CStr::from_ptr(pg_sys::format_type_be_qualified(type_oid)) }.to_string_lossy().into_owned()
}

/// An identifier.
pub fn quoted(name: &str) -> String {
    let _plain = Plain::begin();
    pgrx::spi::quote_identifier(name)
}

/// A schema and a name in it.
pub fn qualified(schema: &str, name: &str) -> String {
    let _plain = Plain::begin();
    pgrx::spi::quote_qualified_identifier(schema, name)
}
