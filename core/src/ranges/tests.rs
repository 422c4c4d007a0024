use proptest::prelude::*;

use super::*;
use crate::digest::RowDigest;

fn range(from: Option<i64>, to: Option<i64>) -> PositionRange {
    PositionRange { from, to }
}

/// Ranges in order, of boundaries anywhere or on a grid, with and without gaps and open ends.
fn ranges() -> impl Strategy<Value = Vec<PositionRange>> {
    let boundary = prop_oneof![
        any::<i64>(),
        -9..9i64,
        (-9..9i64).prop_map(|at| at << 20),
        Just(i64::MIN),
        Just(i64::MAX)
    ];
    let boundaries = prop::collection::btree_set(boundary, 1..24);
    (boundaries, any::<(bool, bool, u32)>()).prop_map(|(boundaries, (from_open, to_open, gaps))| {
        let mut ends: Vec<Option<i64>> = boundaries.into_iter().map(Some).collect();
        if from_open {
            ends.insert(0, None);
        }
        if to_open || ends.len() == 1 {
            ends.push(None);
        }
        let pairs = ends.windows(2).map(|pair| range(pair[0], pair[1])).enumerate();
        let last = ends.len() - 2;
        pairs
            .filter(|(at, _)| *at == 0 || *at == last || gaps >> (at % 32) & 1 == 0)
            .map(|(_, range)| range)
            .collect()
    })
}

proptest! {
    #[test]
    fn ranges_come_back(ranges in ranges()) {
        prop_assume!(in_order(&ranges));
        let bytes = pack_ranges(&ranges);
        prop_assert_eq!(read_ranges(&bytes), Ok(ranges));
        for cut in 0..bytes.len() {
            prop_assert!(read_ranges(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn summaries_come_back(ranges in ranges(), row_count: u64, sum: u64) {
        prop_assume!(in_order(&ranges));
        let of = |range| RangeSummary { range, row_count, sum: ShortSum(sum) };
        let summaries: Vec<_> = ranges.into_iter().map(of).collect();
        let bytes = pack_summaries(&summaries);
        prop_assert_eq!(read_summaries(&bytes), Ok(summaries));
        for cut in 0..bytes.len() {
            prop_assert!(read_summaries(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn no_bytes_panic_and_what_is_read_is_in_order(
        mut bytes in prop::collection::vec(any::<u8>(), 0..60),
        head in (0..4u8, 0..64u8, 0..6u8),
    ) {
        let _ = (read_ranges(&bytes), read_summaries(&bytes));
        bytes.splice(0..0, [ENCODING_VERSION, head.0, head.1, head.2]);
        if let Ok(ranges) = read_ranges(&bytes) {
            prop_assert!(in_order(&ranges));
        }
        let _ = read_summaries(&bytes);
    }

    #[test]
    fn chosen_ranges_make_up_the_range_and_are_few(
        positions in prop::collection::btree_set(prop_oneof![any::<i64>(), -500..500i64], 0..200),
        most in 1..40usize,
        from in prop::option::of(-300..0i64),
        to in prop::option::of(1..300i64),
    ) {
        let nodes: Vec<_> =
            positions.iter().filter(|position| range(from, to).contains(**position))
                .map(|position| (Dyadic::point(*position), one())).collect();
        let chosen = choose(&nodes, range(from, to), most);
        prop_assert!(chosen.len() <= most);
        prop_assert!(in_order(&chosen));
        prop_assert_eq!((chosen[0].from, chosen[chosen.len() - 1].to), (from, to));
        prop_assert!(chosen.windows(2).all(|pair| pair[0].to == pair[1].from));
        let rows = |range: &PositionRange| nodes.iter().filter(|(node, _)| range.contains(node.first())).count();
        // Cuts stand within a third of an ideal part from where they should.
        let trimmed = usize::from(from.is_none()) + usize::from(to.is_none());
        let ideal = nodes.len().div_ceil(if most >= FEWEST_TO_TRIM { most - trimmed } else { most });
        prop_assert!(chosen.iter().all(|range| rows(range) <= 2 * ideal + 1));
        prop_assert!(nodes.len() < most || chosen.len() * 2 >= most);
    }
}

fn one() -> Fingerprint {
    [RowDigest([1; 32])].into_iter().collect()
}

fn blocks(first: i64, blocks: i64) -> Vec<(Dyadic, Fingerprint)> {
    let held = Fingerprint::from_parts(1_024, [3; 32]);
    (first..first + blocks).map(|block| (Dyadic::of(block << 10, 54), held)).collect()
}

#[test]
fn a_list_of_blocks_takes_ten_or_eleven_bytes_a_summary() {
    let nodes = blocks(0, 977);
    let chosen = choose(&nodes, PositionRange::ALL, 512);
    assert!((400..=512).contains(&chosen.len()), "{}", chosen.len());
    let summaries: Vec<_> = chosen
        .iter()
        .map(|range| RangeSummary { range: *range, row_count: 2_048, sum: ShortSum(7) })
        .collect();
    let bytes = pack_summaries(&summaries).len();
    assert!(bytes <= 11 * chosen.len() + 10, "{bytes} bytes for {} ranges", chosen.len());
    let some: Vec<_> = chosen.iter().copied().step_by(5).collect();
    assert!(pack_ranges(&some).len() <= 2 * some.len() + 30);
}

#[test]
fn parts_are_of_about_equal_row_count() {
    let chosen = choose(&blocks(0, 1_000), range(Some(0), None), 32);
    assert_eq!(chosen.len(), 32);
    for part in &chosen[..31] {
        let rows = part.to.zip(part.from).map(|(to, from)| to - from).unwrap_or(0);
        assert!((16 << 10..=48 << 10).contains(&rows), "{part:?}");
    }
}

#[test]
fn boundaries_nest_with_those_of_a_side_whose_blocks_are_coarser() {
    let coarse: Vec<_> = (0..500i64)
        .map(|block| (Dyadic::of(block << 11, 53), Fingerprint::from_parts(2_048, [3; 32])))
        .collect();
    let chosen = choose(&blocks(0, 1_000), PositionRange::ALL, 64);
    let shared = chosen.iter().filter_map(|part| part.from);
    let known = |at: i64| coarse.iter().any(|(block, _)| block.first() == at || block.last() + 1 == at);
    assert!(shared.clone().all(known), "{chosen:?}");
}

#[test]
fn a_range_that_cannot_be_divided_comes_back() {
    let crowd = [(Dyadic::point(5), Fingerprint::from_parts(1_000_000, [3; 32]))];
    assert_eq!(choose(&crowd, range(Some(5), Some(6)), 32), [range(Some(5), Some(6))]);
    assert_eq!(choose(&[], PositionRange::ALL, 32), [PositionRange::ALL]);
    assert_eq!(choose(&blocks(0, 10), PositionRange::ALL, 1), [PositionRange::ALL]);
}

#[test]
fn a_list_has_one_form() {
    // The first with a smaller shift, a number that takes a byte more than it needs, and no ranges otherwise said.
    let pair = [range(None, Some(1 << 20)), range(Some(1 << 20), None)];
    assert_eq!(pack_ranges(&pair), [1, 3, 20, 2, 2, 0]);
    for other in [&[1, 3, 19, 2, 4, 0][..], &[1, 3, 20, 0x82, 0, 2, 0], &[1, 3, 0, 0], &[1, 0, 63, 0]] {
        assert!(read_ranges(other).is_err(), "{other:?}");
    }
}

#[test]
fn more_ranges_than_there_may_be_are_refused_without_reading_them() {
    let mut bytes = vec![ENCODING_VERSION, FROM_OPEN | TO_OPEN, 0];
    put_varint(&mut bytes, MOST_RANGES as u64 + 1);
    bytes.resize(MOST_RANGES * 2, 2);
    assert!(read_ranges(&bytes).is_err());
}

#[test]
fn what_ranges_hold_comes_back_and_nothing_else_does() {
    let held = [Fingerprint::from_parts(7, [9; 32]), Fingerprint::default()];
    let bytes = pack_fingerprints(&held);
    assert_eq!(read_fingerprints(&bytes), Ok(held.to_vec()));
    assert_eq!(read_fingerprints(&pack_fingerprints(&[])), Ok(Vec::new()));
    for cut in (0..bytes.len()).filter(|cut| *cut != 1 && *cut != 41) {
        assert!(read_fingerprints(&bytes[..cut]).is_err(), "{cut}");
    }
    assert!(read_fingerprints(&[&[ENCODING_VERSION + 1][..], &bytes[1..]].concat()).is_err());
}
