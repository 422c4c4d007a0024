//! Ranges and multiranges, by their bounds.

use pgrx::pg_sys::{self, Datum, Oid};
use plimsoll_core::row::RowWriter;
use plimsoll_core::value::{Multirange, MultirangeBuilder, Range, RangeBuilder, Value};

use super::super::{Purpose, release};
use super::{Part, kept_otherwise};
use crate::error::{Answer, Problem, state};

/// A range type, by its bounds.
pub(in crate::datum) struct RangeType {
    pub(in crate::datum) part: Part,
    /// Of the range type; it lives as long as the backend.
    cache: *mut pg_sys::TypeCacheEntry,
}

impl RangeType {
    pub(super) fn new(type_oid: Oid, purpose: Purpose) -> Answer<RangeType> {
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
    pub(in crate::datum) unsafe fn read_range(&mut self, datum: Datum) -> Answer<RangeBuilder> {
        // SAFETY: by the caller's promise.
        unsafe { self.read(pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast()) }
    }

    /// # Safety
    /// `datum` is a multirange of such ranges.
    pub(in crate::datum) unsafe fn read_multirange(&mut self, datum: Datum) -> Answer<MultirangeBuilder> {
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
    pub(in crate::datum) fn make_range(&mut self, range: &Range<'_>) -> Answer<Datum> {
        let made = self.make(range)?;
        // SAFETY: the range was just made.
        let kept = unsafe { self.read(made) }?;
        if !is_same(&Value::Range(kept.range()), &Value::Range(*range))? {
            return Err(kept_otherwise("the range has another canonical form"));
        }
        Ok(Datum::from(made))
    }

    /// As [`make_range`](Self::make_range), of a multirange, whose type is `type_oid`.
    pub(in crate::datum) fn make_multirange(
        &mut self,
        ranges: &Multirange<'_>,
        type_oid: Oid,
    ) -> Answer<Datum> {
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
