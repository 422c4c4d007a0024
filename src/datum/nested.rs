//! Values made of others: arrays, ranges, multiranges and composites, from datums and to datums part by part.

use std::ffi::{CStr, c_char, c_void};

use pgrx::PgTupleDesc;
use pgrx::pg_sys::{self, Datum, Oid};
use plimsoll_core::row::RowWriter;
use plimsoll_core::value::{
    Array, ArrayBuilder, Attribute, ColumnType, Composite, CompositeBuilder, Multirange, MultirangeBuilder,
    Range, RangeBuilder, Value,
};

use super::{Codec, Purpose, catalogue, release};
use crate::error::{Answer, Problem, state};

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

/// The elements of an array.
pub(super) struct Element {
    pub(super) part: Part,
    length: i16,
    by_value: bool,
    alignment: c_char,
}

/// A range type, by its bounds.
pub(super) struct RangeType {
    pub(super) part: Part,
    /// Of the range type; it lives as long as the backend.
    cache: *mut pg_sys::TypeCacheEntry,
}

/// A composite type.
pub(super) struct RowType {
    /// What the catalogue calls its columns.
    pub(super) relation: Oid,
    type_oid: Oid,
    descriptor: pg_sys::TupleDesc,
    /// Which state of the type the descriptor is of.
    state: u64,
    /// The attributes that are there, each with its place.
    attributes: Vec<(usize, Part)>,
    values: Vec<Datum>,
    nulls: Vec<bool>,
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

impl Element {
    fn new(type_oid: Oid, typmod: i32, purpose: Purpose) -> Answer<Element> {
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
    pub(super) unsafe fn read(&mut self, datum: Datum, digest_form: bool) -> Answer<ArrayBuilder> {
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

    pub(super) fn make(&mut self, array: &Array<'_>) -> Answer<Datum> {
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

impl RangeType {
    fn new(type_oid: Oid, purpose: Purpose) -> Answer<RangeType> {
        // SAFETY: looks a range type up; the entry and what it refers to are never freed.
        let (cache, bound) = unsafe {
            let cache = pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_RANGE_INFO as i32);
            if (*cache).rngelemtype.is_null() {
                return Err(Problem::new(state::INTERNAL, "a range type without bounds"));
            }
            (cache, (*(*cache).rngelemtype).type_id)
        };
        Ok(RangeType { part: Part::new(bound, -1, purpose)?, cache })
    }

    /// # Safety
    /// `range` is a range of the type, not compressed or stored elsewhere.
    unsafe fn read(&mut self, range: *const pg_sys::RangeType) -> Answer<RangeBuilder> {
        let (mut lower, mut upper, mut empty) = (no_bound(true), no_bound(false), false);
        // SAFETY: by the caller's promise; the other pointers are to locals.
        unsafe { pg_sys::range_deserialize(self.cache, range, &mut lower, &mut upper, &mut empty) };
        if empty {
            return Ok(RangeBuilder::empty());
        }
        let included = |bound: &pg_sys::RangeBound| (!bound.infinite).then_some(bound.inclusive);
        let mut builder = RangeBuilder::between(included(&lower), included(&upper));
        for bound in [lower, upper].iter().filter(|bound| !bound.infinite) {
            let mut push = |value: &Value<'_>| {
                builder.push(value);
                Ok(())
            };
            // SAFETY: a bound of the range, of the type of its bounds.
            unsafe { self.part.codec.hand_value(bound.val, &mut push) }??;
        }
        Ok(builder)
    }

    /// # Safety
    /// `datum` is a range of the type.
    pub(super) unsafe fn read_range(&mut self, datum: Datum) -> Answer<RangeBuilder> {
        // SAFETY: by the caller's promise.
        unsafe { self.read(pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast()) }
    }

    /// # Safety
    /// `datum` is a multirange of such ranges.
    pub(super) unsafe fn read_multirange(&mut self, datum: Datum) -> Answer<MultirangeBuilder> {
        let mut builder = MultirangeBuilder::default();
        // SAFETY: by the caller's promise; each range is of the type.
        unsafe {
            let multirange = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
            for range in release::ranges_of(self.cache, multirange.cast()) {
                builder.push(self.read(*range)?.range());
            }
        }
        Ok(builder)
    }

    /// The range, as its type keeps it: with the bounds of the type's canonical form.
    fn make(&mut self, range: &Range<'_>) -> Answer<*mut pg_sys::RangeType> {
        let (lower, upper) = range.bounds();
        let (includes_lower, includes_upper) = range.inclusive();
        let mut bound = |value: Option<Value<'_>>, inclusive, is_lower| {
            Ok::<_, Problem>(match value {
                None => no_bound(is_lower),
                Some(value) => pg_sys::RangeBound {
                    val: self.part.make(Some(&value))?,
                    infinite: false,
                    inclusive,
                    lower: is_lower,
                },
            })
        };
        let (mut lower, mut upper) =
            (bound(lower, includes_lower, true)?, bound(upper, includes_upper, false)?);
        // SAFETY: bounds of the type's own, which are copied.
        Ok(unsafe { release::make_range(self.cache, &mut lower, &mut upper, range.is_empty()) })
    }

    /// The datum of a range that its type keeps as it is.
    ///
    /// # Errors
    /// `WOULD_CHANGE` where it keeps it otherwise.
    pub(super) fn make_range(&mut self, range: &Range<'_>) -> Answer<Datum> {
        let made = self.make(range)?;
        // SAFETY: the range was just made.
        let kept = unsafe { self.read(made) }?;
        if !is_same(&Value::Range(kept.range()), &Value::Range(*range))? {
            return Err(kept_otherwise("the range has another canonical form"));
        }
        Ok(Datum::from(made))
    }

    /// As [`make_range`](Self::make_range), of a multirange, whose type is `type_oid`.
    pub(super) fn make_multirange(&mut self, ranges: &Multirange<'_>, type_oid: Oid) -> Answer<Datum> {
        let mut made = Vec::new();
        for range in ranges.ranges() {
            made.push(self.make(&range)?);
        }
        // SAFETY: ranges of the type, as many as said, which are copied.
        let datum = unsafe { Datum::from(release::make_multirange(type_oid, self.cache, &mut made)) };
        // SAFETY: the multirange was just made.
        let kept = unsafe { self.read_multirange(datum) }?;
        if !is_same(&Value::Multirange(kept.multirange()), &Value::Multirange(*ranges))? {
            return Err(kept_otherwise("the ranges of the multirange overlap, touch, or are not in order"));
        }
        Ok(datum)
    }
}

fn no_bound(lower: bool) -> pg_sys::RangeBound {
    pg_sys::RangeBound { val: Datum::from(0usize), infinite: true, inclusive: false, lower }
}

/// Whether two values have one digest form.
fn is_same(one: &Value<'_>, other: &Value<'_>) -> Answer<bool> {
    let form = |value| {
        let mut form = Vec::new();
        RowWriter::new(&mut form).digest_field(1, value).map(|()| form)
    };
    Ok(form(one)? == form(other)?)
}

/// Why a value is refused that its type would keep as another.
pub(super) fn kept_otherwise(how: &str) -> Problem {
    Problem::new(state::WOULD_CHANGE, how).hint("Write the value as Postgres writes it.")
}

impl RowType {
    fn new(type_oid: Oid, purpose: Purpose) -> Answer<RowType> {
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
        let message = format!("composite type {} was altered meanwhile", super::type_name(self.type_oid));
        Err(Problem::new(state::NOT_IN_STATE, message).hint("Run the statement again."))
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.attributes.iter().map(|(_, part)| part)
    }

    fn column_attributes(&self) -> Vec<Attribute> {
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
    pub(super) unsafe fn read(&mut self, datum: Datum) -> Answer<CompositeBuilder> {
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

    pub(super) fn make(&mut self, composite: &Composite<'_>) -> Answer<Datum> {
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
