//! Where reading goes on, in bytes.
//!
//! ```text
//! cursor = mark(1) copies(8) [version] value*
//! ```
//! The mark is the kind's ([`Kind::order_mark`](crate::source::kind::Kind::order_mark)); the version is there where rows
//! are ordered by it; the values are those of the plan's order; so many rows that share the place were read.

use crate::source::kind::LocalRow;
use crate::source::plan::TablePlan;
use crate::source::query::{RawValue, put_raw, read_raw};

use super::encode::put_order;

/// What a cursor says.
pub struct Place {
    /// The mark of the order in which it was made.
    pub mark: u8,
    /// How many rows that share the place were read.
    pub copies: u64,
    /// The version, where rows are ordered by it.
    pub version: Option<RawValue>,
    /// The values of the plan's order.
    pub order: Vec<RawValue>,
}

/// Reads a cursor; `None` where it is none of this table.
pub fn read(bytes: &[u8], plan: &TablePlan) -> Option<Place> {
    let (mark, rest) = bytes.split_first()?;
    let (copies, values) = rest.split_first_chunk()?;
    let mut order = read_raw(values)?;
    let version = match plan.version_place() {
        Some(_) if !order.is_empty() => Some(order.remove(0)),
        Some(_) => return None,
        None => None,
    };
    let copies = u64::from_le_bytes(*copies);
    (order.len() == plan.order.len()).then_some(Place { mark: *mark, copies, version, order })
}

/// Writes the cursor of a row in place of what `out` holds, as the only one at its place.
pub fn write<R: LocalRow>(out: &mut Vec<u8>, mark: u8, plan: &TablePlan, row: &R) {
    out.clear();
    out.push(mark);
    out.extend_from_slice(&1u64.to_le_bytes());
    if let Some(version) = plan.version_place() {
        put_raw(out, |out| row.raw(version, out));
    }
    put_order(plan, row, out);
}

/// Says how many rows that share the place were read.
pub fn set_copies(cursor: &mut [u8], copies: u64) {
    if let Some(place) = cursor.get_mut(1..9) {
        place.copy_from_slice(&copies.to_le_bytes());
    }
}
