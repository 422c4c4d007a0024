//! Which symbols an item adds to.

/// Stirs 64 bits (the finaliser of SplitMix64: Steele, Lea, Flood, 2014).
fn stir(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// An item's hash: its high half is its check, all of it says which symbols it adds to. Digests are keyed, so
/// nobody who does not know the key can choose rows by it.
pub(super) fn hash(position: u64, digest: u128) -> u64 {
    let (low, high) = (digest as u64, (digest >> 64) as u64);
    stir(stir(stir(position.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ low).wrapping_add(high))
}

/// The least whole number that is no less, of one that is not negative and far below 2^63. Made of single instructions:
/// where the processor is not known to have one for this, `ceil` is a call, and that is most of what a row costs.
fn rounded_up(number: f64) -> u64 {
    let whole = number as i64;
    (whole + i64::from(number > whole as f64)).unsigned_abs()
}

/// The symbols an item adds to, ascending: the first always, each other one i with probability 1/(1 + i/2).
pub(super) struct Indices {
    next: u64,
    state: u64,
}

impl Indices {
    pub fn new(hash: u64) -> Self {
        Indices { next: 0, state: hash }
    }
}

impl Iterator for Indices {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let index = self.next;
        // After index i, the next g symbols are passed by with probability (i+1)(i+2) / ((i+g+1)(i+g+2)),
        // about ((i+1.5) / (i+g+1.5))^2. A draw from (0, 1] is turned into g. All operations are exactly
        // rounded by IEEE 754, and so the same on every machine.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let draw = ((stir(self.state) >> 11) + 1) as f64 / (1u64 << 53) as f64;
        let gap = (index as f64 + 1.5) * (1.0 / draw.sqrt() - 1.0);
        self.next = index.saturating_add(rounded_up(gap).max(1));
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rounding_up_is_ceil(number in prop_oneof![0.0..1e3f64, 0.0..1e15f64, (0u32..100_000).prop_map(f64::from)]) {
            for near in [number, number.next_up(), number.next_down().max(0.0)] {
                prop_assert_eq!(rounded_up(near), near.ceil() as u64);
            }
        }
    }
}
