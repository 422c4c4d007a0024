//! What a row manifest says, as windows of the ranges that were asked about.

use plimsoll_core::manifest::Item;
use plimsoll_core::store::{PositionRange, SourceWindow};

/// Where a row manifest's reading ended, as windows of the ranges that were asked about.
pub fn windows_of(ranges: &[PositionRange], items: Vec<Item>, end: Option<i64>) -> Vec<SourceWindow> {
    let mut items = items.into_iter().peekable();
    let mut windows = Vec::new();
    for range in ranges {
        let is_cut = end.is_some_and(|end| range.to.is_none_or(|to| end < to));
        let to = if is_cut { end } else { range.to };
        let mut own = Vec::new();
        while let Some(item) = items.next_if(|item| to.is_none_or(|to| item.position < to)) {
            own.push(item);
        }
        let nothing = is_cut && range.from.is_some_and(|from| to.is_some_and(|to| to <= from));
        if !nothing || windows.is_empty() {
            windows.push(SourceWindow {
                range: PositionRange { from: range.from, to },
                items: own,
                bad: Vec::new(),
            });
        }
        if is_cut {
            break;
        }
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_core::digest::RowDigest;

    fn range(from: impl Into<Option<i64>>, to: impl Into<Option<i64>>) -> PositionRange {
        PositionRange { from: from.into(), to: to.into() }
    }

    fn items(positions: &[i64]) -> Vec<Item> {
        positions.iter().map(|position| Item { position: *position, digest: RowDigest([1; 32]) }).collect()
    }

    #[test]
    fn windows_cover_whole_ranges_and_the_beginning_of_the_last() {
        let ranges = [range(None, 5), range(7, 10), range(20, 30), range(40, None)];
        let shown = |items: Vec<Item>, end| -> Vec<(PositionRange, usize)> {
            windows_of(&ranges, items, end).iter().map(|window| (window.range, window.items.len())).collect()
        };
        let all = items(&[1, 2, 8, 25, 26, 50]);
        let whole: Vec<_> = ranges.into_iter().zip([2, 1, 2, 1]).collect();
        assert_eq!(shown(all, None), whole);
        // Cut within a range, before one's first row, and where one begins.
        assert_eq!(
            shown(items(&[1, 2, 8, 25]), Some(26)),
            [(ranges[0], 2), (ranges[1], 1), (range(20, 26), 1)]
        );
        assert_eq!(shown(items(&[1, 2, 8]), Some(25)), [(ranges[0], 2), (ranges[1], 1), (range(20, 25), 0)]);
        assert_eq!(shown(items(&[1, 2, 8]), Some(20)), [(ranges[0], 2), (ranges[1], 1)]);
        assert_eq!(shown(items(&[1]), Some(2)), [(range(None, 2), 1)]);
    }
}
