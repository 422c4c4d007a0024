//! Where a stretch differs: the few ranges that are worth a second look.

use super::compare::Piece;
use crate::manifest::Item;
use crate::store::PositionRange;

/// Source rows between two differences that are read again rather than passed by.
const NEAR_ROWS: usize = 16;
/// Places of one comparison at most; where there are more, all of it is looked at.
const MOST_PLACES: usize = 1_024;

/// A single position.
pub(crate) fn point(position: i64) -> PositionRange {
    PositionRange { from: Some(position), to: position.checked_add(1) }
}

/// Where the rows stand that were found on one side alone: single positions and stretches of near ones, in order.
/// All that was compared, where they are most of it or too many. `items`: the source's rows, in order.
pub(super) fn places(piece: &Piece, items: &[Item]) -> Vec<PositionRange> {
    let missing = piece.missing.iter().map(|item| item.position);
    let mut positions: Vec<i64> = missing.chain(piece.excess.iter().map(|item| item.position)).collect();
    positions.sort_unstable();
    positions.dedup();
    let rows_below = |end: i64| items.partition_point(|item| item.position < end);
    let begin = |range: &PositionRange| range.from.map_or(0, rows_below);
    let end = |range: &PositionRange| range.to.map_or(items.len(), rows_below);
    let mut places: Vec<PositionRange> = Vec::new();
    for place in positions.into_iter().map(point) {
        match places.last_mut() {
            Some(last) if begin(&place) - end(last) <= NEAR_ROWS => last.to = place.to,
            _ => places.push(place),
        }
    }
    let rows: usize = places.iter().map(|place| end(place) - begin(place)).sum();
    if places.len() > MOST_PLACES || 2 * rows > items.len() {
        return piece.ranges.clone();
    }
    places
}

/// Ranges in order, those that meet joined.
pub(crate) fn joined(mut ranges: Vec<PositionRange>) -> Vec<PositionRange> {
    ranges.sort_unstable_by_key(|range| range.from);
    let mut joined: Vec<PositionRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.to.is_none_or(|to| range.from.is_none_or(|from| from <= to)) => {
                last.to = last.to.zip(range.to).map(|(one, other)| one.max(other));
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// What of ranges in order lies below `to`.
pub(super) fn below(ranges: &[PositionRange], to: Option<i64>) -> Vec<PositionRange> {
    let Some(to) = to else { return ranges.to_vec() };
    let start = ranges.iter().filter(|range| range.from.is_none_or(|from| from < to));
    start
        .map(|range| PositionRange { from: range.from, to: Some(range.to.map_or(to, |end| end.min(to))) })
        .collect()
}

/// What of ranges in order lies at `from` and beyond.
pub(super) fn beyond(ranges: &[PositionRange], from: Option<i64>) -> Vec<PositionRange> {
    let Some(from) = from else { return Vec::new() };
    let rest = ranges.iter().filter(|range| range.to.is_none_or(|to| from < to));
    rest.map(|range| PositionRange { from: range.from.max(Some(from)), to: range.to }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::RowDigest;

    fn item(position: i64) -> Item {
        Item { position, digest: RowDigest([7; 32]) }
    }

    fn range(from: i64, to: i64) -> PositionRange {
        PositionRange { from: Some(from), to: Some(to) }
    }

    fn of(missing: &[i64], rows: std::ops::Range<i64>) -> Vec<PositionRange> {
        let piece = Piece {
            range: PositionRange::ALL,
            missing: missing.iter().copied().map(item).collect(),
            ranges: vec![PositionRange { from: None, to: Some(rows.end) }],
            top: Some(rows.end - 1),
            ..Piece::default()
        };
        places(&piece, &rows.map(item).collect::<Vec<_>>())
    }

    #[test]
    fn near_differences_are_one_place_and_far_ones_are_not() {
        assert_eq!(of(&[5, 6, 20, 60], 0..1_000), [range(5, 21), range(60, 61)]);
        // Rows count, not positions.
        let piece = Piece { missing: vec![item(0), item(1_000_000)], ..Piece::default() };
        let items: Vec<Item> = [0, 1_000_000].into_iter().chain(2_000_000..2_000_010).map(item).collect();
        assert_eq!(places(&piece, &items), [range(0, 1_000_001)]);
        assert_eq!(of(&[i64::MAX], 0..9), [PositionRange::starting_at(i64::MAX)]);
    }

    #[test]
    fn where_most_differs_or_too_much_all_of_it_is_one_place_but_for_its_open_end() {
        let all = PositionRange { from: None, to: Some(1_000) };
        assert_eq!(of(&(0..600).collect::<Vec<_>>(), 0..1_000), [all]);
        let scattered: Vec<i64> = (0..1_100).map(|nth| nth * 40).collect();
        assert_eq!(of(&scattered, 0..50_000), [PositionRange { from: None, to: Some(50_000) }]);
    }

    #[test]
    fn ranges_that_meet_are_joined() {
        let open = PositionRange { from: None, to: Some(i64::MIN + 1) };
        let ranges = vec![range(9, 12), point(i64::MIN), point(11), open, point(12), point(14)];
        assert_eq!(joined(ranges), [open, range(9, 13), point(14)]);
        assert_eq!(
            joined(vec![PositionRange::starting_at(3), point(i64::MAX)]),
            [PositionRange::starting_at(3)]
        );
    }

    #[test]
    fn what_is_left_begins_where_the_last_comparison_ended() {
        let ranges = [range(0, 10), range(20, 30), PositionRange::starting_at(40)];
        assert_eq!(beyond(&ranges, Some(10)), ranges[1..]);
        assert_eq!(beyond(&ranges, Some(25)), [range(25, 30), ranges[2]]);
        assert_eq!(beyond(&ranges, Some(50)), [PositionRange::starting_at(50)]);
        assert_eq!(beyond(&ranges, None), []);
    }
}
