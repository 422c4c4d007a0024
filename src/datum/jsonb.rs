//! Large `jsonb`: how long its text is before it is made, and arrays made item by item.

use pgrx::pg_sys::{self, Datum};
use pgrx::{IntoDatum, JsonB};

use super::digest::with_bytes;
use super::statement::{Parameter, read_all};
use super::{Scratch, numeric};
use crate::error::{Answer, Problem, state};

/// Items up to which an array is made in one go.
const FEW: usize = 500;

/// Hands a jsonb array of items, given as JSON text, to `take`. Of many items it is made one by one, so that it can
/// be cancelled.
pub fn with_json_array(
    items: impl ExactSizeIterator<Item = String>,
    take: impl FnOnce(Datum) -> Answer<()>,
) -> Answer<()> {
    let none = || Problem::new(state::INTERNAL, "an array of no value");
    if items.len() == 0 {
        return take(JsonB(serde_json::Value::Array(Vec::new())).into_datum().ok_or_else(none)?);
    }
    let scratch = Scratch::new();
    scratch.within(|| {
        let few = items.len() <= FEW;
        let items: Vec<String> = items.collect();
        let datum =
            if few { [format!("[{}]", items.join(","))].to_vec().into_datum() } else { items.into_datum() };
        let sql = if few {
            "SELECT i.item::pg_catalog.jsonb FROM pg_catalog.unnest($1) AS i (item)"
        } else {
            "SELECT pg_catalog.jsonb_agg(i.item::pg_catalog.jsonb) FROM pg_catalog.unnest($1) AS i (item)"
        };
        let mut take = Some(take);
        read_all(sql, &[Parameter { type_oid: pg_sys::TEXTARRAYOID, datum }], &mut |row| match (
            take.take(),
            row.datum(0),
        ) {
            (Some(take), Some(array)) => take(array).map(|()| true),
            _ => Err(none()),
        })
    })
}

/// About how many digits the numbers of a `jsonb` have when they are written, which is without exponents: a few bytes
/// may stand for 131,072 of them.
///
/// # Safety
/// `datum` is a jsonb that is not NULL.
pub unsafe fn written_digits(datum: Datum) -> usize {
    let mut digits = 0usize;
    // SAFETY: by the caller's promise; the iterator reads the copy that is not compressed, and each numeric where it
    // stands in it.
    unsafe {
        let jsonb = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::Jsonb>();
        let mut iterator = pg_sys::JsonbIteratorInit(&raw mut (*jsonb).root);
        let mut value = pg_sys::JsonbValue::default();
        loop {
            match pg_sys::JsonbIteratorNext(&mut iterator, &mut value, false) {
                pg_sys::JsonbIteratorToken::WJB_DONE => return digits,
                pg_sys::JsonbIteratorToken::WJB_ELEM | pg_sys::JsonbIteratorToken::WJB_VALUE
                    if value.type_ == pg_sys::jbvType::jbvNumeric =>
                {
                    pgrx::check_for_interrupts!();
                    digits += with_bytes(Datum::from(value.val.numeric), numeric::written_digits);
                }
                _ => {}
            }
        }
    }
}
