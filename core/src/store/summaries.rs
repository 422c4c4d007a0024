//! What either side tells of ranges of its rows, so that differences are found in proportion to their
//! number.

use super::{Outcome, PositionRange, TableId};
use crate::ranges::RangeSummary;
use crate::short::ShortItem;

/// A side as reconciliation sees it. Ranges are given in ascending order, disjoint and not empty. Each call
/// is one short snapshot.
pub trait Summaries {
    /// Divides each of `ranges` into at most `most` ranges of about equal row count that together make it
    /// up, and tells what they hold. One that cannot be divided comes back as it is; one with fewer rows
    /// than `most`, down to single positions where the rows are few. Boundaries nest on both sides.
    fn range_manifest(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        most: u32,
    ) -> Outcome<Vec<RangeSummary>>;

    /// What exactly these ranges hold, one answer each.
    fn summaries(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<RangeSummary>>;

    /// The coded symbols `first..first + symbols` over all rows of the ranges, as
    /// [`crate::sketch::Sketch::pack`] makes them.
    fn sketch(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        first: u32,
        symbols: u32,
    ) -> Outcome<Vec<u8>>;

    /// All rows of the ranges.
    fn items(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<ShortItem>>;
}
