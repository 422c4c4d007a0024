//! Values made of others: arrays, ranges, multiranges and composites, from datums and to datums part by part.

mod array;
mod composite;
mod range;

use std::ffi::c_void;

use pgrx::pg_sys::{self, Datum, Oid};
use plimsoll_core::value::{ColumnType, Value};

use super::{Codec, Purpose, catalogue};
use crate::error::{Answer, Problem, state};

use array::Element;
use composite::RowType;
use range::RangeType;

/// What a codec knows of the values inside its own.
pub(super) enum Inner {
    /// There are none.
    None,
    Array(Box<Element>),
    Range(Box<RangeType>),
    /// By the type of its ranges.
    Multirange(Box<RangeType>),
    Composite(Box<RowType>),
}

/// Values inside others.
pub(super) struct Part {
    pub(super) codec: Codec,
    /// Their type itself, which may be a domain.
    type_oid: Oid,
    /// What `domain_check` keeps from call to call.
    domain: *mut c_void,
}

impl Part {
    fn new(type_oid: Oid, typmod: i32, purpose: Purpose) -> Answer<Part> {
        let codec = Codec::with_purpose(type_oid, typmod, purpose)?;
        Ok(Part { codec, type_oid, domain: std::ptr::null_mut() })
    }

    fn is_domain(&self) -> bool {
        self.type_oid != self.codec.type_oid
    }

    /// Whether some values that the core takes are none of this part.
    pub(super) fn is_particular(&self) -> bool {
        self.is_domain() || self.codec.is_particular()
    }

    /// The datum of a value, `None` for NULL. A domain's constraints hold inside of values too, where no cast
    /// checks them.
    fn make(&mut self, value: Option<&Value<'_>>) -> Answer<Datum> {
        let datum = match value {
            Some(value) => self.codec.make_datum(value)?,
            None => Datum::from(0usize),
        };
        if self.is_domain() {
            // SAFETY: a value of the domain's base type; what is kept lives as long as the codec's other state.
            unsafe {
                pg_sys::domain_check(
                    datum,
                    value.is_none(),
                    self.type_oid,
                    &mut self.domain,
                    self.codec.input.fn_mcxt,
                );
            }
        }
        Ok(datum)
    }
}

impl Inner {
    /// What is inside values of a type.
    pub(super) fn of(type_oid: Oid, typmod: i32, purpose: Purpose) -> Answer<Inner> {
        if catalogue::is_refused(type_oid) {
            return Ok(Inner::None);
        }
        // SAFETY: looks the type up; the answer is InvalidOid where it is no array.
        let element = unsafe { pg_sys::get_element_type(type_oid) };
        if element != pg_sys::InvalidOid {
            return Element::new(element, typmod, purpose).map(|element| Inner::Array(Box::new(element)));
        }
        // SAFETY: looks the type up.
        match unsafe { pg_sys::get_typtype(type_oid) } as u8 {
            b'r' => RangeType::new(type_oid, purpose).map(|range| Inner::Range(Box::new(range))),
            b'm' => {
                // SAFETY: a multirange type has a type of its ranges.
                let range = unsafe { pg_sys::get_multirange_range(type_oid) };
                RangeType::new(range, purpose).map(|range| Inner::Multirange(Box::new(range)))
            }
            b'c' => RowType::new(type_oid, purpose).map(|row| Inner::Composite(Box::new(row))),
            _ => Ok(Inner::None),
        }
    }

    /// The core's type of such values; `None` where nothing is inside.
    pub(super) fn column_type(&self) -> Option<ColumnType> {
        let of = |part: &Part| Box::new(part.codec.column_type.clone());
        Some(match self {
            Inner::None => return None,
            Inner::Array(element) => ColumnType::Array(of(&element.part)),
            Inner::Range(range) => ColumnType::Range(of(&range.part)),
            Inner::Multirange(range) => ColumnType::Multirange(of(&range.part)),
            Inner::Composite(row) => ColumnType::Composite(row.column_attributes()),
        })
    }
}

/// Why a value is refused that its type would keep as another.
pub(super) fn kept_otherwise(how: &str) -> Problem {
    Problem::new(state::WOULD_CHANGE, how).hint("Write the value as Postgres writes it.")
}
