//! Lists of eight-byte values as parameters of a statement.

use pgrx::pg_sys::{self, Datum, Oid};

use super::Parameter;

/// An array of a type whose values are eight bytes by value: `int8`, `xid8`, `timestamp`, `timestamptz`. Lives
/// in the current memory context.
pub fn long_array(element: Oid, values: &[i64]) -> Parameter {
    let mut datums: Vec<Datum> = values.iter().map(|value| Datum::from(*value)).collect();
    // SAFETY: the elements are as long and aligned as said, by value, and copied; the type is looked up.
    let (type_oid, array) = unsafe {
        let array = pg_sys::construct_array(
            datums.as_mut_ptr(),
            datums.len() as i32,
            element,
            8,
            true,
            pg_sys::TYPALIGN_DOUBLE as core::ffi::c_char,
        );
        (pg_sys::get_array_type(element), array)
    };
    Parameter { type_oid, datum: Some(Datum::from(array)) }
}
