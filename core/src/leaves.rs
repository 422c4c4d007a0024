//! Dyadic ranges of about equal row count out of rows that come in order, in memory that does not grow with
//! the number of rows. For replicas whose manifest is not kept, and for the parts of kept blocks.

use crate::digest::RowDigest;
use crate::dyadic::Dyadic;
use crate::fingerprint::Fingerprint;

/// A dyadic range and the fingerprint of the rows in it.
pub type Leaf = (Dyadic, Fingerprint);

/// Collects rows and ranges by ascending position, and joins neighbours as they become too many. A leaf is the
/// smallest dyadic range that holds its rows: it never meets another, here or on another side.
#[derive(Debug, Clone)]
pub struct Leaves {
    /// About how many leaves there may be.
    most: usize,
    /// Leaves with no more rows than this together are joined.
    rows: u64,
    /// Ascending and disjoint. The last ones are not joined yet: rows to come may lie between them.
    leaves: Vec<Leaf>,
    /// At how many leaves the next joining is due.
    due: usize,
}

impl Leaves {
    /// None yet; in the end about `most`, or fewer where there are fewer positions with rows.
    pub fn new(most: usize) -> Self {
        let most = most.max(1);
        Leaves { most, rows: 1, leaves: Vec::new(), due: 2 * most }
    }

    /// The next row; positions must not descend.
    pub fn insert(&mut self, position: i64, digest: &RowDigest) {
        self.push(Dyadic::point(position), &Fingerprint::from_iter([*digest]));
    }

    /// The rows of the next range, which lies beyond all others.
    pub fn push(&mut self, range: Dyadic, fingerprint: &Fingerprint) {
        if fingerprint.row_count() == 0 {
            return;
        }
        match self.leaves.last_mut() {
            Some((last, sum)) if last.contains_range(&range) => sum.combine(fingerprint),
            _ => self.leaves.push((range, *fingerprint)),
        }
        if self.leaves.len() > self.due {
            self.join();
        }
    }

    fn join(&mut self) {
        let mut joined = Vec::new();
        loop {
            joined.clear();
            if join(&self.leaves, self.rows, true, &mut joined) <= self.most {
                break;
            }
            self.rows *= 2;
        }
        self.leaves = joined;
        let open = usize::try_from(self.rows).unwrap_or(usize::MAX);
        self.due = self.leaves.len().saturating_add(self.most.max(open));
    }

    /// The leaves, in order. A row count differs from the others' where positions are crowded or far apart.
    pub fn finish(self) -> Vec<Leaf> {
        let mut joined = Vec::new();
        join(&self.leaves, self.rows, false, &mut joined);
        joined
    }
}

/// Joins neighbours into the greatest dyadic ranges of at most `rows` rows. Where more rows are to come (`open`),
/// the last such range is left in its parts. Answers how many ranges were closed.
fn join(leaves: &[Leaf], rows: u64, open: bool, joined: &mut Vec<Leaf>) -> usize {
    let [(first, _), .., (last, _)] = leaves else {
        joined.extend_from_slice(leaves);
        return usize::from(!open && !leaves.is_empty());
    };
    let whole = sum(leaves);
    let range = Dyadic::enclosing(first.first(), last.last());
    match range.halves() {
        Some((_, upper)) if whole.row_count() > rows => {
            let cut = leaves.partition_point(|(range, _)| range.first() < upper.first());
            join(&leaves[..cut], rows, false, joined) + join(&leaves[cut..], rows, open, joined)
        }
        _ if open => {
            joined.extend_from_slice(leaves);
            0
        }
        _ => {
            joined.push((range, whole));
            1
        }
    }
}

fn sum(leaves: &[Leaf]) -> Fingerprint {
    let mut whole = Fingerprint::default();
    leaves.iter().for_each(|(_, fingerprint)| whole.combine(fingerprint));
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(position: i64, nth: u64) -> RowDigest {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&position.to_le_bytes());
        bytes[8..16].copy_from_slice(&nth.to_le_bytes());
        RowDigest(bytes)
    }

    /// What must hold of leaves made of these positions, however they are cut.
    fn check(mut positions: Vec<i64>, most: usize) -> Vec<Leaf> {
        positions.sort_unstable();
        let mut leaves = Leaves::new(most);
        for (nth, position) in (0..).zip(&positions) {
            leaves.insert(*position, &digest(*position, nth));
            let kept = leaves.leaves.len() as u64;
            assert!(kept <= 4 * (most as u64 + leaves.rows), "{kept} leaves of {} rows", leaves.rows);
        }
        let leaves = leaves.finish();
        for pair in leaves.windows(2) {
            assert!(pair[0].0.last() < pair[1].0.first(), "{pair:?}");
        }
        let mut rows = (0..).zip(&positions).peekable();
        for (range, fingerprint) in &leaves {
            let mut expected = Fingerprint::default();
            while let Some((nth, position)) = rows.next_if(|(_, position)| range.contains(**position)) {
                expected.insert(&digest(*position, nth));
            }
            assert_eq!(*fingerprint, expected);
            assert!(expected.row_count() > 0);
        }
        assert_eq!(rows.next(), None, "a row without a leaf");
        leaves
    }

    #[test]
    fn even_rows_give_even_leaves() {
        for step in [1, 3, 1_000_003] {
            let leaves = check((0..100_000).map(|i| i * step).collect(), 64);
            assert!((16..=128).contains(&leaves.len()), "{}", leaves.len());
            let largest = leaves.iter().map(|(_, sum)| sum.row_count()).max();
            assert!(largest <= Some(8_192), "{largest:?}");
        }
    }

    #[test]
    fn a_crowded_position_is_one_leaf_beside_the_others() {
        let mut positions = vec![500; 20_000];
        positions.extend(0..1_000);
        let leaves = check(positions, 16);
        let crowded = leaves.iter().find(|(range, _)| range.contains(500)).expect("a leaf");
        assert!(crowded.0.is_point());
        assert_eq!(crowded.1.row_count(), 20_001);
        assert!(leaves.len() > 2);
    }

    #[test]
    fn few_rows_stay_apart() {
        let leaves = check(vec![i64::MIN, -1, 0, 1, i64::MAX, i64::MAX], 8);
        assert_eq!(leaves.len(), 5);
        assert!(check(Vec::new(), 8).is_empty());
    }

    #[test]
    fn whole_ranges_are_joined_with_rows() {
        let mut leaves = Leaves::new(1);
        leaves.insert(-5, &digest(-5, 0));
        leaves.push(Dyadic::enclosing(0, 1_023), &Fingerprint::from_parts(1_000, [1; 32]));
        leaves.push(Dyadic::enclosing(1_024, 2_047), &Fingerprint::default());
        for position in 2_048..2_060 {
            leaves.insert(position, &digest(position, 0));
        }
        let leaves = leaves.finish();
        let rows: u64 = leaves.iter().map(|(_, sum)| sum.row_count()).sum();
        assert_eq!(rows, 1_013);
        assert!(leaves.iter().any(|(range, _)| range.contains(0) && range.contains(1_023)));
    }

    proptest! {
        #[test]
        fn any_positions_give_disjoint_leaves_with_exact_sums(
            clusters in prop::collection::vec((any::<i64>(), 0u32..64, 1usize..200), 1..6),
            most in 1usize..40,
        ) {
            let mut positions = Vec::new();
            for (centre, spread, rows) in clusters {
                let mut state = centre;
                for _ in 0..rows {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    positions.push(centre.wrapping_add((state as u64 >> spread) as i64));
                }
            }
            check(positions, most);
        }
    }
}
