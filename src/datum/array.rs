//! Lists of values as parameters of a statement.

use pgrx::pg_sys::{self, Datum, Oid};

use super::{Parameter, Place};

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

/// An array of `tid` and one of `oid`: where rows lie. They live in the current memory context.
pub fn place_arrays(places: &[Place]) -> [Parameter; 2] {
    let mut ctids: Vec<Datum> = places.iter().map(|place| Datum::from(place.ctid.as_ptr())).collect();
    let mut tables: Vec<Datum> = places.iter().map(|place| Datum::from(place.table)).collect();
    // SAFETY: the elements are as long and aligned as said, and copied.
    unsafe {
        let ctids = pg_sys::construct_array(
            ctids.as_mut_ptr(),
            ctids.len() as i32,
            pg_sys::TIDOID,
            size_of::<super::Ctid>() as i32,
            false,
            pg_sys::TYPALIGN_SHORT as core::ffi::c_char,
        );
        let tables = pg_sys::construct_array(
            tables.as_mut_ptr(),
            tables.len() as i32,
            pg_sys::OIDOID,
            size_of::<Oid>() as i32,
            true,
            pg_sys::TYPALIGN_INT as core::ffi::c_char,
        );
        [(pg_sys::TIDARRAYOID, ctids), (pg_sys::OIDARRAYOID, tables)]
            .map(|(type_oid, array)| Parameter { type_oid, datum: Some(Datum::from(array)) })
    }
}
