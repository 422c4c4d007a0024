//! The fingerprint of a set of rows: how many, and the sum of their digests modulo 2^256.
//!
//! Order-free and additive: insert adds, delete subtracts, disjoint ranges add up.

use crate::digest::RowDigest;

/// Row count and digest sum of a set of rows. The default is the empty set's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Fingerprint {
    row_count: u64,
    /// Least significant limb first.
    sum: [u64; 4],
}

/// How many bytes a fingerprint takes when it is written down.
pub const FINGERPRINT_BYTES: usize = 40;

fn limbs(bytes: &[u8; 32]) -> [u64; 4] {
    let mut limbs = [0; 4];
    for (limb, chunk) in limbs.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *limb = u64::from_le_bytes(*chunk);
    }
    limbs
}

impl Fingerprint {
    /// The fingerprint that a server reported as a count and 32 bytes.
    pub fn from_parts(row_count: u64, sum: [u8; 32]) -> Self {
        Fingerprint { row_count, sum: limbs(&sum) }
    }

    /// The fingerprint that [`to_bytes`](Self::to_bytes) wrote down.
    pub fn from_bytes(bytes: &[u8; FINGERPRINT_BYTES]) -> Self {
        let mut limbs = [0; 5];
        for (limb, chunk) in limbs.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *limb = u64::from_le_bytes(*chunk);
        }
        let [row_count, sum @ ..] = limbs;
        Fingerprint { row_count, sum }
    }

    /// Row count and sum, least significant byte first.
    pub fn to_bytes(&self) -> [u8; FINGERPRINT_BYTES] {
        let mut bytes = [0; FINGERPRINT_BYTES];
        let limbs = std::iter::once(self.row_count).chain(self.sum);
        for (chunk, limb) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(limbs) {
            *chunk = limb.to_le_bytes();
        }
        bytes
    }

    /// How many rows the set has.
    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    /// The digest sum as 32 bytes, least significant first.
    pub fn sum(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, limb) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.sum) {
            *chunk = limb.to_le_bytes();
        }
        bytes
    }

    /// Adds a row.
    pub fn insert(&mut self, digest: &RowDigest) {
        self.row_count = self.row_count.wrapping_add(1);
        self.add(limbs(&digest.0));
    }

    /// Takes a row away.
    pub fn remove(&mut self, digest: &RowDigest) {
        self.row_count = self.row_count.wrapping_sub(1);
        self.subtract(limbs(&digest.0));
    }

    /// Adds all rows of a set that shares none with this one.
    pub fn combine(&mut self, other: &Fingerprint) {
        self.row_count = self.row_count.wrapping_add(other.row_count);
        self.add(other.sum);
    }

    /// Takes away all rows of a subset.
    pub fn take_away(&mut self, other: &Fingerprint) {
        self.row_count = self.row_count.wrapping_sub(other.row_count);
        self.subtract(other.sum);
    }

    fn add(&mut self, other: [u64; 4]) {
        let mut carry = false;
        for (limb, added) in self.sum.iter_mut().zip(other) {
            (*limb, carry) = limb.carrying_add(added, carry);
        }
    }

    fn subtract(&mut self, other: [u64; 4]) {
        let mut borrow = false;
        for (limb, taken) in self.sum.iter_mut().zip(other) {
            (*limb, borrow) = limb.borrowing_sub(taken, borrow);
        }
    }
}

impl FromIterator<RowDigest> for Fingerprint {
    fn from_iter<I: IntoIterator<Item = RowDigest>>(digests: I) -> Self {
        let mut fingerprint = Fingerprint::default();
        for digest in digests {
            fingerprint.insert(&digest);
        }
        fingerprint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest() -> impl Strategy<Value = RowDigest> {
        any::<[u8; 32]>().prop_map(RowDigest)
    }

    #[test]
    fn carries_run_through_every_limb() {
        let mut fingerprint = Fingerprint::from_parts(1, [0xff; 32]);
        let mut one = [0; 32];
        one[0] = 1;
        fingerprint.insert(&RowDigest(one));
        assert_eq!(fingerprint.sum(), [0; 32]);
        assert_eq!(fingerprint.row_count(), 2);
        fingerprint.remove(&RowDigest(one));
        assert_eq!(fingerprint, Fingerprint::from_parts(1, [0xff; 32]));
    }

    proptest! {
        #[test]
        fn order_and_grouping_do_not_matter(digests in prop::collection::vec(digest(), 0..20), cut in 0usize..20) {
            let whole: Fingerprint = digests.iter().copied().collect();
            let cut = cut.min(digests.len());
            let mut parts: Fingerprint = digests[cut..].iter().rev().copied().collect();
            parts.combine(&digests[..cut].iter().copied().collect());
            prop_assert_eq!(whole, parts);
            parts.take_away(&whole);
            prop_assert_eq!(parts, Fingerprint::default());
        }

        #[test]
        fn what_is_written_down_comes_back(row_count: u64, sum: [u8; 32]) {
            let fingerprint = Fingerprint::from_parts(row_count, sum);
            let bytes = fingerprint.to_bytes();
            prop_assert_eq!(Fingerprint::from_bytes(&bytes), fingerprint);
            prop_assert_eq!((&bytes[..8], &bytes[8..]), (&row_count.to_le_bytes()[..], &sum[..]));
        }

        #[test]
        fn equal_rows_never_cancel(row in digest()) {
            let twice: Fingerprint = [row, row].into_iter().collect();
            prop_assert_ne!(twice, Fingerprint::default());
            prop_assert_eq!(twice.row_count(), 2);
        }
    }
}
