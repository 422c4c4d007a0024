//! Where rows stand: a 64-bit integer, the one order that all sides share.

use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};

use crate::value::Value;

/// What the rows of a table stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// A row stands at its version, the column at this place of the schema: what is new stands above what is old.
    Version(usize),
    /// A row stands at a hash of the columns that place it. The order of positions says nothing.
    Hash,
}

/// Where a row with this version stands on the axis; `None` where the value is no version.
///
/// Of a `bytea` the first eight bytes count, as a big-endian number; what exceeds `i64::MAX` stands there.
pub fn position_of(version: &Value<'_>) -> Option<i64> {
    match version {
        Value::Int(position) | Value::Timestamp(position) | Value::Timestamptz(position) => Some(*position),
        Value::Bytea(bytes) => Some(position_of_bytes(bytes)),
        _ => None,
    }
}

fn position_of_bytes(bytes: &[u8]) -> i64 {
    let mut first = [0; 8];
    let length = bytes.len().min(first.len());
    first[..length].copy_from_slice(&bytes[..length]);
    i64::try_from(u64::from_be_bytes(first)).unwrap_or(i64::MAX)
}

/// The least `bytea` version that stands at `position` or above: a version of any length is not less than it, byte
/// by byte, exactly where its position is not less than `position`.
pub fn least_version_bytes(position: i64) -> Vec<u8> {
    let bytes = u64::try_from(position).unwrap_or(0).to_be_bytes();
    let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes[..length].to_vec()
}

/// Domain of the hash, so that it is none that is made for another purpose.
const CONTEXT: &str = "plimsoll position 1";

static CONTEXT_KEY: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context(CONTEXT));

/// Where a row stands whose placing columns have these fields, in digest form, by ascending column number. The same
/// in all databases, so that one index serves all tenants.
pub fn hash_position(fields: &[u8]) -> i64 {
    let mut first = [0; 8];
    let mut hasher = blake3::Hasher::new_from_context_key(&CONTEXT_KEY);
    hasher.update(fields).finalize_xof().fill(&mut first);
    i64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hash_is_the_one_of_blake3_by_its_own_name() {
        for fields in [&b""[..], &[7; 5], &[1; 3000]] {
            let expected = blake3::derive_key(CONTEXT, fields);
            assert_eq!(hash_position(fields).to_le_bytes(), expected[..8]);
        }
    }

    #[test]
    fn a_row_version_of_eight_bytes_is_a_number() {
        let position = |bytes: &[u8]| position_of(&Value::Bytea(bytes));
        assert_eq!(position(&[0, 0, 0, 0, 0, 0, 7, 0xd1]), Some(2001));
        assert_eq!(position(&[]), Some(0));
        assert_eq!(position(&[1]), Some(1 << 56));
        assert_eq!(position(&[0, 0, 0, 0, 0, 0, 0, 1, 255]), Some(1));
        assert_eq!(position(&[0x80]), Some(i64::MAX));
        assert_eq!(position_of(&Value::Text("1")), None);
    }

    proptest! {
        #[test]
        fn the_bound_of_a_position_cuts_where_positions_do(
            bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(255), any::<u8>()], 0..11),
            position in prop_oneof![any::<i64>(), -3i64..3, Just(i64::MAX)],
            near in -2i64..3,
        ) {
            let own = position_of_bytes(&bytes);
            for bound in [position, own.saturating_add(near)] {
                prop_assert_eq!(bytes >= least_version_bytes(bound), own >= bound, "{:?} at {}", bytes, bound);
            }
        }
    }
}
