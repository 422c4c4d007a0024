//! `plimsoll_open.hash_position(numbers, ...)`, `plimsoll_open.version_position(bytes)`: where a row stands on the axis,
//! for queries and indexes.
//!
//! Whoever writes to a managed table calls them, because indexes of ours are over them: they read their arguments
//! and nothing else, and raise only where a stored value is damaged.

use pgrx::pg_guard;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo, Oid};
use plimsoll_core::schema::{hash_position as hashed, position_of};
use plimsoll_core::value::Value;

use super::Codec;
use super::columns::{CallColumns, argument, export, is_row_type, kept_at};
use super::digest::with_bytes;
use crate::error::{Answer, OrRaise, Problem, state};

/// What one call site keeps from row to row.
struct Placing {
    /// The numbers of the columns, as the array that they were given as has them, and read.
    given: Vec<u8>,
    numbers: Vec<u32>,
    columns: CallColumns,
    fields: Vec<u8>,
}

/// The codec of the column at a place, of so many.
fn codec(count: usize, place: usize, type_oid: Oid, typmod: i32) -> Answer<Codec> {
    if place >= count {
        return Err(wrong_numbers());
    }
    Codec::for_digests(type_oid, typmod).map_err(|problem| {
        let message = format!("column {} has no position: {}", place + 1, problem.message());
        Problem::new(problem.code(), message).hint("Leave it out, or cast it to text.")
    })
}

fn wrong_numbers() -> Problem {
    let message = "numbers must be a constant with one for each column, from 1 on, each above the one before";
    Problem::new(state::BAD_ARGUMENT, message)
        .hint("Take the numbers that plimsoll.table_schema shows, in their order.")
}

/// Reads the numbers out of an `int4[]` without its length; `None` where they are no numbers of columns.
fn read_numbers(array: &[u8]) -> Option<Vec<u32>> {
    let (words, []) = array.as_chunks::<4>() else { return None };
    // Postgres has them in the order of bytes of the machine.
    let order = if cfg!(target_endian = "big") { i32::from_be_bytes } else { i32::from_le_bytes };
    let mut words = words.iter().map(|word| order(*word));
    let (dimensions, null_bitmap, _element) = (words.next()?, words.next()?, words.next()?);
    let (count, _lower_bound) = (words.next()?, words.next()?);
    if dimensions != 1 || null_bitmap != 0 {
        return None;
    }
    let numbers: Vec<u32> = words.map(u32::try_from).collect::<Result<_, _>>().ok()?;
    let ascending = numbers.first() > Some(&0) && numbers.is_sorted_by(|one, next| one < next);
    (ascending && usize::try_from(count) == Ok(numbers.len())).then_some(numbers)
}

impl Placing {
    /// # Safety
    /// `fcinfo` is that of a call of `hash_position`.
    #[inline]
    unsafe fn of<'a>(fcinfo: FunctionCallInfo) -> Answer<&'a mut Placing> {
        // SAFETY: by the caller's promise; the first argument is an array.
        unsafe {
            let given = argument(fcinfo, 0).ok_or_else(wrong_numbers)?;
            let placing = kept_at(fcinfo, |memory| {
                let given = with_bytes(given, <[u8]>::to_vec);
                let numbers = read_numbers(&given).ok_or_else(wrong_numbers)?;
                let count = numbers.len();
                // A single column may be a row itself.
                let is_row =
                    |types: &[Oid]| count > 1 && matches!(types, [type_oid] if is_row_type(*type_oid));
                let make = move |place, type_oid, typmod| codec(count, place, type_oid, typmod);
                let name = "plimsoll_open.hash_position";
                let columns = CallColumns::new(fcinfo, name, 1, is_row, Box::new(make), memory)?;
                Ok(Placing { given, numbers, columns, fields: Vec::new() })
            })?;
            match with_bytes(given, |array| array == placing.given) {
                true => Ok(placing),
                false => Err(wrong_numbers()),
            }
        }
    }
}

/// `hash_position(numbers, columns...)`
///
/// # Safety
/// Called by Postgres as it was declared.
unsafe fn hash_position(fcinfo: FunctionCallInfo) -> Answer<Datum> {
    // SAFETY: the arguments are as declared.
    unsafe {
        let Placing { numbers, columns, fields, .. } = Placing::of(fcinfo)?;
        fields.clear();
        let is_row = columns.write(fcinfo, |place| numbers[place], fields)?;
        if !is_row || columns.count() != numbers.len() {
            return Err(wrong_numbers());
        }
        Ok(Datum::from(hashed(fields)))
    }
}

/// `version_position(bytes)`, which is strict.
///
/// # Safety
/// As [`hash_position`].
unsafe fn version_position(fcinfo: FunctionCallInfo) -> Answer<Datum> {
    // SAFETY: the argument is a bytea.
    let position = unsafe {
        argument(fcinfo, 0).and_then(|bytes| with_bytes(bytes, |bytes| position_of(&Value::Bytea(bytes))))
    };
    Ok(Datum::from(position.unwrap_or_default()))
}

export! {
    hash_position_wrapper, pg_finfo_hash_position_wrapper, hash_position;
    version_position_wrapper, pg_finfo_version_position_wrapper, version_position;
}
