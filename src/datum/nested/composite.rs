//! Composites, attribute by attribute.

use std::ffi::CStr;

use pgrx::PgTupleDesc;
use pgrx::pg_sys::{self, Datum, Oid};
use plimsoll_core::value::{Attribute, Composite, CompositeBuilder, Value};

use super::super::{Purpose, release, type_name};
use super::Part;
use crate::error::{Answer, Problem, state};

/// A composite type.
pub(in crate::datum) struct RowType {
    /// What the catalogue calls its columns.
    pub(in crate::datum) relation: Oid,
    type_oid: Oid,
    descriptor: pg_sys::TupleDesc,
    /// Which state of the type the descriptor is of.
    state: u64,
    /// The attributes that are there, each with its place.
    attributes: Vec<(usize, Part)>,
    values: Vec<Datum>,
    nulls: Vec<bool>,
}

impl RowType {
    pub(super) fn new(type_oid: Oid, purpose: Purpose) -> Answer<RowType> {
        // SAFETY: a composite type's descriptor; the copy is ours and lives in the current context.
        let (relation, state, descriptor, all) = unsafe {
            let state = pg_sys::assign_record_type_identifier(type_oid, -1);
            let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(type_oid, -1);
            let all = PgTupleDesc::from_pg_unchecked(descriptor);
            (pg_sys::get_typ_typrelid(type_oid), state, descriptor, all)
        };
        let there = all.iter().enumerate().filter(|(_, attribute)| !attribute.attisdropped);
        let attributes = there.map(|(place, attribute)| {
            Ok((place, Part::new(attribute.atttypid, attribute.atttypmod, purpose)?))
        });
        let attributes = attributes.collect::<Answer<Vec<_>>>()?;
        let (values, nulls) = (vec![Datum::from(0usize); all.len()], vec![true; all.len()]);
        Ok(RowType { relation, type_oid, descriptor, state, attributes, values, nulls })
    }

    /// Makes sure that values of the type are what they were when this was made. Who calls a function over and over
    /// may alter a type in between, and an attribute read as another type than it is would be read out of bounds.
    fn check_unaltered(&mut self) -> Answer<()> {
        // SAFETY: looks the type up; both descriptors are alive, and the one that is looked up is let go again.
        let is_same = unsafe {
            let state = pg_sys::assign_record_type_identifier(self.type_oid, -1);
            if state == self.state {
                return Ok(());
            }
            self.state = state;
            let now = pg_sys::lookup_rowtype_tupdesc_copy(self.type_oid, -1);
            let is_same = pg_sys::equalTupleDescs(now, self.descriptor);
            pg_sys::FreeTupleDesc(now);
            is_same
        };
        if is_same {
            return Ok(());
        }
        // No state is 0: it is compared again.
        self.state = 0;
        let message = format!("composite type {} was altered meanwhile", type_name(self.type_oid));
        Err(Problem::new(state::NOT_IN_STATE, message).hint("Run the statement again."))
    }

    pub(in crate::datum) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.attributes.iter().map(|(_, part)| part)
    }

    pub(super) fn column_attributes(&self) -> Vec<Attribute> {
        let attribute = |(place, part): &(usize, Part)| {
            // SAFETY: the place is one of the descriptor's.
            let name = unsafe {
                CStr::from_ptr((*release::attribute(self.descriptor, *place)).attname.data.as_ptr())
            };
            Attribute {
                number: *place as u32 + 1,
                name: name.to_string_lossy().into_owned(),
                column_type: part.codec.column_type.clone(),
            }
        };
        self.attributes.iter().map(attribute).collect()
    }

    /// # Safety
    /// `datum` is a composite of the type.
    pub(in crate::datum) unsafe fn read(&mut self, datum: Datum) -> Answer<CompositeBuilder> {
        self.check_unaltered()?;
        // SAFETY: by the caller's promise; both arrays have a place for each attribute of the descriptor, and those
        // that the value was made without are NULL.
        unsafe {
            let header = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
            let mut tuple = pg_sys::HeapTupleData {
                t_len: pgrx::varlena::varsize_4b(header.cast()) as u32,
                t_data: header,
                ..Default::default()
            };
            let (values, nulls) = (self.values.as_mut_ptr(), self.nulls.as_mut_ptr());
            pg_sys::heap_deform_tuple(&mut tuple, self.descriptor, values, nulls);
        }
        let mut builder = CompositeBuilder::default();
        for (place, part) in &mut self.attributes {
            if !self.nulls[*place] {
                let number = *place as u32 + 1;
                let mut push = |value: &Value<'_>| {
                    builder.push(number, value);
                    Ok(())
                };
                // SAFETY: the value of this attribute, of its type.
                unsafe { part.codec.hand_value(self.values[*place], &mut push) }??;
            }
        }
        Ok(builder)
    }

    pub(in crate::datum) fn make(&mut self, composite: &Composite<'_>) -> Answer<Datum> {
        self.check_unaltered()?;
        self.nulls.fill(true);
        let mut given = composite.attributes().peekable();
        for (place, part) in &mut self.attributes {
            let number = *place as u32 + 1;
            let value = given.next_if(|(given, _)| *given == number).map(|(_, value)| value);
            self.values[*place] = part.make(value.as_ref())?;
            self.nulls[*place] = value.is_none();
        }
        if given.peek().is_some() {
            return Err(Problem::new(state::MALFORMED, "an attribute that the composite type has not"));
        }
        // SAFETY: both arrays have a place for each attribute; the tuple is copied.
        Ok(unsafe {
            let (values, nulls) = (self.values.as_mut_ptr(), self.nulls.as_mut_ptr());
            let tuple = pg_sys::heap_form_tuple(self.descriptor, values, nulls);
            pg_sys::heap_copy_tuple_as_datum(tuple, self.descriptor)
        })
    }
}
