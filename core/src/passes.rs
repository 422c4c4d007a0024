//! Passes over a table whose rows stand at hashes: ranges of equal length hold about as many rows, and those that differ
//! are divided again, each time at the cost of another pass.

use crate::ranges::RangeSummary;
use crate::store::PositionRange;

/// Ranges of one pass at most: as many as a server tells of in one answer, unless it is set otherwise.
const MOST_RANGES: usize = 16_384;
/// Ranges of so few rows are not divided.
pub(crate) const FEW_ROWS: u64 = 64;
/// Ranges are not made so small that they have fewer rows.
const FEWEST_ROWS: u64 = 16;

/// The ranges of the first pass over a table of about `rows` rows, each with about `range_rows` of them.
pub(crate) fn first_ranges(rows: u64, range_rows: u64) -> Vec<PositionRange> {
    let parts = usize::try_from(rows / range_rows.max(1)).unwrap_or(MOST_RANGES).min(MOST_RANGES);
    divided(PositionRange::ALL, parts.next_power_of_two())
}

/// Into how many parts each of so many ranges may be divided for one more pass, where they hold so many rows in all; 1
/// where none is worth one.
pub(crate) fn parts(rows: u64, ranges: usize) -> usize {
    let ranges = ranges.max(1);
    let worthwhile = usize::try_from(rows / (ranges as u64 * FEWEST_ROWS)).unwrap_or(MOST_RANGES);
    (MOST_RANGES / ranges).min(worthwhile).checked_ilog2().map_or(1, |bits| 1usize << bits)
}

/// A range in so many parts of equal length, fewer where it has not as many positions.
pub(crate) fn divided(range: PositionRange, parts: usize) -> Vec<PositionRange> {
    let begin = i128::from(range.from.unwrap_or(i64::MIN));
    let end = range.to.map_or(i128::from(i64::MAX) + 1, i128::from);
    let parts = i128::try_from(parts).unwrap_or(1).clamp(1, (end - begin).max(1));
    let cut = |part: i128| i64::try_from(begin + (end - begin) * part / parts).ok();
    let part = |nth: i128| PositionRange {
        from: if nth == 0 { range.from } else { cut(nth) },
        to: if nth + 1 == parts { range.to } else { cut(nth + 1) },
    };
    (0..parts).map(part).collect()
}

/// Whether these summaries are of these ranges, one each.
pub(crate) fn are_of(summaries: &[RangeSummary], ranges: &[PositionRange]) -> bool {
    summaries.iter().map(|part| part.range).eq(ranges.iter().copied())
}

/// Ranges, each with its rows, in groups of about `rows` rows, one range at least.
pub(crate) fn groups(ranges: Vec<(PositionRange, u64)>, rows: u64) -> Vec<Vec<PositionRange>> {
    let (mut groups, mut held) = (Vec::<Vec<PositionRange>>::new(), 0u64);
    for (range, own) in ranges {
        held = held.saturating_add(own);
        match groups.last_mut().filter(|_| held <= rows) {
            Some(group) => group.push(range),
            None => {
                held = own;
                groups.push(vec![range]);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranges::in_order;
    use crate::sync::joined;

    #[test]
    fn parts_of_a_range_make_it_up() {
        let some = PositionRange { from: Some(3), to: Some(10) };
        let top = PositionRange::starting_at(i64::MAX - 1);
        for (range, parts, expected) in [
            (PositionRange::ALL, 1, 1),
            (PositionRange::ALL, 4_096, 4_096),
            (some, 4, 4),
            (some, 64, 7),
            (top, 8, 2),
        ] {
            let divided = divided(range, parts);
            assert_eq!(divided.len(), expected);
            assert!(in_order(&divided), "{divided:?}");
            assert_eq!(joined(divided), [range]);
        }
        assert_eq!(divided(PositionRange::ALL, 2)[1], PositionRange::starting_at(0));
    }
}
