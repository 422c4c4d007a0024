//! Arrays, element by element.

use std::ffi::c_char;

use pgrx::pg_sys::{self, Datum, Oid};
use plimsoll_core::value::{Array, ArrayBuilder, Value};

use super::super::Purpose;
use super::Part;
use crate::error::Answer;

/// The elements of an array.
pub(in crate::datum) struct Element {
    pub(in crate::datum) part: Part,
    length: i16,
    by_value: bool,
    alignment: c_char,
}

impl Element {
    pub(super) fn new(type_oid: Oid, typmod: i32, purpose: Purpose) -> Answer<Element> {
        let part = Part::new(type_oid, typmod, purpose)?;
        let mut element = Element { part, length: 0, by_value: false, alignment: 0 };
        // SAFETY: the type comes from the catalogue, the pointers are to a local.
        unsafe {
            pg_sys::get_typlenbyvalalign(
                type_oid,
                &mut element.length,
                &mut element.by_value,
                &mut element.alignment,
            );
        }
        Ok(element)
    }

    /// The array in wire form or in digest form.
    ///
    /// # Safety
    /// `datum` is an array of such elements.
    pub(in crate::datum) unsafe fn read(&mut self, datum: Datum, digest_form: bool) -> Answer<ArrayBuilder> {
        let (mut items, mut nulls) = (std::ptr::null_mut(), std::ptr::null_mut());
        let mut count = 0;
        // SAFETY: the datum is an array of the element type, by the caller's promise; the answers are
        // `count` long. Dimensions and lower bounds follow the array's header, `ndim` of each.
        let (items, nulls, dimensions) = unsafe {
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            pg_sys::deconstruct_array(
                array,
                self.part.type_oid,
                i32::from(self.length),
                self.by_value,
                self.alignment,
                &mut items,
                &mut nulls,
                &mut count,
            );
            let ndim = (*array).ndim as usize;
            let bounds = array.add(1).cast::<i32>();
            let dimensions: Vec<(u32, i32)> =
                (0..ndim).map(|i| (*bounds.add(i) as u32, *bounds.add(ndim + i))).collect();
            let count = count as usize;
            if count == 0 {
                (&[][..], &[][..], dimensions)
            } else {
                (
                    std::slice::from_raw_parts(items, count),
                    std::slice::from_raw_parts(nulls, count),
                    dimensions,
                )
            }
        };
        let mut builder = ArrayBuilder::new(&dimensions);
        for (item, null) in items.iter().zip(nulls) {
            if *null {
                builder.push(None);
                continue;
            }
            let mut push = |value: &Value<'_>| {
                if digest_form {
                    return builder.push_digest_form(Some(value));
                }
                builder.push(Some(value));
                Ok(())
            };
            // SAFETY: an element of the array, of the element type.
            unsafe { self.part.codec.hand_value(*item, &mut push) }??;
        }
        Ok(builder)
    }

    pub(in crate::datum) fn make(&mut self, array: &Array<'_>) -> Answer<Datum> {
        let (mut items, mut nulls) = (Vec::new(), Vec::new());
        for item in array.elements() {
            nulls.push(item.is_none());
            items.push(self.part.make(item.as_ref())?);
        }
        let (mut lengths, mut bounds): (Vec<i32>, Vec<i32>) =
            array.dimensions().map(|(length, lower)| (length as i32, lower)).unzip();
        // SAFETY: items and nulls are as many as the product of the lengths, which the core has checked;
        // all pointers are to locals, copied by the call.
        let built = unsafe {
            pg_sys::construct_md_array(
                items.as_mut_ptr(),
                nulls.as_mut_ptr(),
                lengths.len() as i32,
                lengths.as_mut_ptr(),
                bounds.as_mut_ptr(),
                self.part.type_oid,
                i32::from(self.length),
                self.by_value,
                self.alignment,
            )
        };
        Ok(Datum::from(built))
    }
}
